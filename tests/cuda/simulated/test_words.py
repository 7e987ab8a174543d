"""The simulator's words refuse what a device would."""

from __future__ import annotations

import numpy as np
import pytest

from fastconv.cuda._device import get, get4, put4, quotient, remainder, shifted

ELEMENTS = np.zeros(16, np.float32)


@pytest.mark.parametrize("index", [-1, 16])
def test_an_index_that_is_outside(index):
    with pytest.raises(IndexError):
        get(ELEMENTS, index)


@pytest.mark.parametrize(("first", "index"), [(0, 1), (1, 0), (2, 4), (0, 16)])
def test_an_access_that_does_not_begin_at_a_multiple_of_its_size(first, index):
    with pytest.raises(IndexError):
        get4(shifted(ELEMENTS, first), index)
    with pytest.raises(IndexError):
        put4(shifted(ELEMENTS, first), index, 0, 0, 0, 0)


@pytest.mark.parametrize("divided", [quotient, remainder])
def test_a_division_of_what_is_below_zero(divided):
    with pytest.raises(ValueError, match="without a sign"):
        divided(np.int32(-1), np.int32(3))
