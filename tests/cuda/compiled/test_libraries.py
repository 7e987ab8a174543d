"""What PyTorch says of its tensors, which do not have to be on a device for that."""

from __future__ import annotations

import pytest

from fastconv.core.devices import INDICES
from fastconv.cuda import _arrays
from fastconv.cuda._device import DTYPES

torch = pytest.importorskip("torch")


@pytest.fixture
def library():
    return _arrays._torch()


@pytest.mark.parametrize("name", [*DTYPES, *INDICES])
def test_types_have_our_names(library, name):
    assert library.dtype(torch.zeros(2, dtype=getattr(torch, name))) == name


def test_other_types_have_theirs(library):
    assert library.dtype(torch.zeros(2, dtype=torch.int16)) == "torch.int16"


def test_copies_are_in_order(library):
    tensor = torch.arange(6.0, requires_grad=True).reshape(2, 3).T
    assert not library.contiguous(tensor)
    copied = library.plain(tensor, "float16")
    assert library.contiguous(copied)
    assert copied.dtype == torch.float16
    assert library.flip(tensor, (0,))[0, 0] == 2


def test_a_view_that_begins_between_wide_accesses_is_copied(library):
    view = torch.arange(9.0)[1:]
    assert not _arrays.is_aligned(library.pointer(view))
    assert _arrays.is_aligned(library.pointer(library.flip(view, ())))
    assert library.flip(view, ()).equal(view)
