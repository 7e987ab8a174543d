"""The caller's arrays on a device: what they are, without a copy, and how a result of the same kind is made.

PyTorch, CuPy and Numba are each one `Library`; whatever else speaks DLPack or has a `__cuda_array_interface__` is read
through `cuda.core`, and takes its results with ``out=``, as nobody but its library can make another.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..core.arrays import BFLOAT16
from ..core.errors import RejectedError
from ._device import COMPUTED_AS


@dataclass(frozen=True)
class Library:
    """What one library's arrays can do; every function takes one of them, or makes one.

    Attributes
    ----------
    name
        The package.
    dtype
        Name of the element type.
    device
        Number of the device.
    pointer
        Address of the first element.
    contiguous
        Whether elements follow one another in C order.
    plain
        ``plain(array, name)``: a copy in C order, converted to a type.
    empty
        ``empty(shape, name, device)``.
    stream
        ``stream(device)``: address of the stream on which the caller expects work.
    flip
        ``flip(array, axes)``: a copy, reversed along axes.
    """

    name: str
    dtype: Callable[[Any], str]
    device: Callable[[Any], int]
    pointer: Callable[[Any], int]
    contiguous: Callable[[Any], bool]
    plain: Callable[[Any, str], Any]
    empty: Callable[[tuple[int, ...], str, int], Any]
    stream: Callable[[int], int]
    flip: Callable[[Any, tuple[int, ...]], Any]


def _torch() -> Library:
    import torch

    return Library(
        name="torch",
        dtype=lambda array: str(array.dtype).removeprefix("torch."),
        device=lambda array: int(array.device.index),
        pointer=lambda array: int(array.data_ptr()),
        contiguous=lambda array: bool(array.is_contiguous()),
        plain=lambda array, name: array.detach().to(getattr(torch, name)).contiguous(),
        empty=lambda shape, name, device: torch.empty(shape, dtype=getattr(torch, name), device=f"cuda:{device}"),
        stream=lambda device: int(torch.cuda.current_stream(device).cuda_stream),
        flip=lambda array, axes: torch.flip(array.detach(), axes),
    )


def _cupy() -> Library:
    import cupy

    def empty(shape: tuple[int, ...], name: str, device: int) -> Any:
        with cupy.cuda.Device(device):
            return cupy.empty(shape, name)

    return Library(
        name="cupy",
        dtype=lambda array: str(array.dtype.name),
        device=lambda array: int(array.device.id),
        pointer=lambda array: int(array.data.ptr),
        contiguous=lambda array: bool(array.flags.c_contiguous),
        plain=lambda array, name: cupy.ascontiguousarray(array, name),
        empty=empty,
        stream=lambda device: int(cupy.cuda.get_current_stream(device).ptr),
        flip=lambda array, axes: cupy.ascontiguousarray(cupy.flip(array, axes)),
    )


def _refused(array: Any, *how: Any) -> Any:
    raise RejectedError(
        "array", type(array).__name__, "must be in C order and of the type that is computed: its library cannot convert it"
    )


def _numba() -> Library:
    from numba import cuda

    return Library(
        name="numba",
        dtype=lambda array: str(array.dtype.name),
        device=_device_of_pointer,
        pointer=lambda array: int(array.__cuda_array_interface__["data"][0]),
        contiguous=lambda array: array.__cuda_array_interface__.get("strides") is None,
        plain=_refused,
        empty=lambda shape, name, device: cuda.device_array(shape, name),
        stream=lambda device: 0,
        flip=_refused,
    )


def _device_of_pointer(array: Any) -> int:
    return int(_view(array).device_id)


def _view(array: Any) -> Any:
    """Any library's array, as cuda.core sees it; no stream waits for another."""
    from cuda.core.utils import StridedMemoryView

    return StridedMemoryView.from_any_interface(array, stream_ptr=-1)


def _any_library() -> Library:
    def no_array(shape: tuple[int, ...], name: str, device: int) -> Any:
        raise RejectedError("out", None, "must be given: results are made for arrays of PyTorch, CuPy and Numba", TypeError)

    return Library(
        name="other",
        dtype=lambda array: str(_view(array).dtype),
        device=_device_of_pointer,
        pointer=lambda array: int(_view(array).ptr),
        contiguous=lambda array: _in_c_order(_view(array)),
        plain=_refused,
        empty=no_array,
        stream=lambda device: 0,
        flip=_refused,
    )


def _in_c_order(view: Any) -> bool:
    if view.strides is None:
        return True
    expected = [math.prod(view.shape[axis + 1 :]) for axis in range(len(view.shape))]
    return all(n == 1 or s == e for n, s, e in zip(view.shape, view.strides, expected, strict=True))


_MAKERS = {"torch": _torch, "cupy": _cupy, "numba": _numba, "numba_cuda": _numba}
_libraries: dict[str, Library] = {}


def library_of(array: Any) -> Library:
    """The library of an array."""
    package = type(array).__module__.partition(".")[0]
    library = _libraries.get(package)
    if library is None:
        library = _libraries[package] = _MAKERS.get(package, _any_library)()
    return library


class CudaArray:
    """An argument on a device: shape and type as NumPy would say them, and the caller's array.

    Parameters
    ----------
    argument
        Its name, for errors.
    array
        The caller's.

    Raises
    ------
    RejectedError
        A TypeError for a type that is not computed on devices.
    """

    def __init__(self, argument: str, array: Any) -> None:
        self.array, self.library = array, library_of(array)
        name = self.library.dtype(array)
        if name not in COMPUTED_AS:
            allowed = f"must have one of the types {', '.join(COMPUTED_AS)} on a CUDA device"
            raise RejectedError(f"{argument}.dtype", name, allowed, TypeError)
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.dtype: np.dtype[Any] = BFLOAT16 if name == "bfloat16" else np.dtype(name)
        self.dtype_name = name

    @property
    def ndim(self) -> int:
        """Axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @cached_property
    def device(self) -> int:
        """Number of the device."""
        return self.library.device(self.array)

    def flipped(self, axes: tuple[int, ...]) -> CudaArray:
        """A copy, reversed along axes."""
        return CudaArray("weight", self.library.flip(self.array, axes))

    def plain(self, name: str) -> Any:
        """The caller's array in C order and of this type, copied only where it is not."""
        if name == self.dtype_name and self.library.contiguous(self.array):
            return self.array
        return self.library.plain(self.array, name)
