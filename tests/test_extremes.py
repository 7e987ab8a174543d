"""What must not come to an algorithm that spreads it is found wherever it is."""

from __future__ import annotations

import numpy as np
import pytest

from fastconv.cpu._extremes import FEW, PART, is_extreme

LIMIT = 1e10
SIZES = (1, FEW, FEW + 1, 3 * PART, 3 * PART + 1)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_only_extremes_are_found(dtype, size, threads):
    rng = np.random.default_rng(0)
    array = (1e9 * rng.standard_normal(size)).astype(dtype)
    assert not is_extreme(array, LIMIT, threads)
    for place in {0, size // 2, size - 1}:
        for bad in (np.nan, np.inf, -np.inf, LIMIT * 1.001, -2 * LIMIT):
            held = array.copy()
            held[place] = bad * 1j if held.dtype.kind == "c" and np.isfinite(bad) else bad
            assert is_extreme(held, LIMIT, threads)


def test_there_may_be_nothing():
    assert not is_extreme(np.zeros((0, 3), np.float32), LIMIT, 1)
