"""A library of arrays on a device for the simulator: NumPy arrays that answer as PyTorch's or CuPy's would."""

from __future__ import annotations

import numpy as np

from fastconv.cuda import _arrays

from .devices import from_device, to_device


class FakeArray:
    """`elements` is what the device holds: flat, as kernels get it."""

    def __init__(self, shape, dtype, elements, device=0, contiguous=True):
        self.shape, self.dtype, self.elements = tuple(shape), dtype, elements
        self.device, self.contiguous = device, contiguous

    @classmethod
    def of(cls, values, dtype="float32", **options):
        return cls(np.shape(values), dtype, to_device(values, dtype), **options)

    def __dlpack_device__(self):
        return (2, self.device)

    def values(self):
        return from_device(self.elements, self.dtype).reshape(self.shape)


def _library():
    def plain(array, name):
        made = FakeArray.of(array.values(), name, device=array.device)
        LIBRARY_COPIES.append(made)
        return made

    return _arrays.Library(
        name="fake",
        dtype=lambda array: array.dtype,
        device=lambda array: array.device,
        pointer=lambda array: array.elements,
        contiguous=lambda array: array.contiguous,
        plain=plain,
        empty=lambda shape, name, device: FakeArray.of(np.full(shape, np.nan), name, device=device),
        stream=lambda device: 7,
        flip=lambda array, axes: FakeArray.of(np.flip(array.values(), axes), array.dtype),
    )


LIBRARY_COPIES = []
_arrays._MAKERS["tests"] = _library
