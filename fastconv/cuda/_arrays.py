"""The caller's arrays on a device: what they are, without a copy, and how a result of the same kind is made.

PyTorch, CuPy and Numba are each one `Library`; whatever else speaks DLPack or has a `__cuda_array_interface__` is read
through `cuda.core`, and takes its results with ``out=``, as nobody but its library can make another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.arrays import Array
from ..core.devices import INDICES, device_type, is_on_cuda
from ..core.errors import RejectedError
from ..core.parameters import numpy_type
from ._device import DTYPES, SIMULATED
from ._host import HostCopy
from ._queue import DEFAULT_STREAM, Queue, queue_of
from ._sums import channel_sums, fill


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
        ``empty(shape, name, device)``: memory for a result.
    stream
        ``stream(device)``: address of the stream on which the caller expects work.
    flip
        ``flip(array, axes)``: a copy, reversed along axes, which may be none.
    finished
        What the caller gets when a result is queued.
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
    finished: Callable[[Any], Any] = lambda array: array


def _torch() -> Library:
    import torch

    names = {getattr(torch, name): name for name in (*DTYPES, *INDICES)}

    return Library(
        name="torch",
        dtype=lambda array: names.get(array.dtype) or str(array.dtype),
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
        flip=lambda array, axes: cupy.flip(array, axes).copy(),
    )


def _refused(array: Any, *how: Any) -> Any:
    allowed = "must be in C order, of the type that is computed, and not to be flipped: its library cannot convert it"
    raise RejectedError("array", type(array).__name__, allowed)


def _numba() -> Library:
    from numba import cuda

    def copy(array: Any, axes: tuple[int, ...]) -> Any:
        if axes:
            return _refused(array)
        copied = cuda.device_array(array.shape, array.dtype)
        copied.copy_to_device(array)
        return copied

    return Library(
        name="numba",
        dtype=lambda array: str(array.dtype.name),
        device=_device_of_pointer,
        pointer=lambda array: int(array.__cuda_array_interface__["data"][0]),
        contiguous=lambda array: array.__cuda_array_interface__.get("strides") is None,
        plain=_refused,
        empty=lambda shape, name, device: cuda.device_array(shape, name),
        stream=lambda device: 0,
        flip=copy,
    )


def _device_of_pointer(array: Any) -> int:
    return int(_view(array).device_id)


NO_STREAM = -1  # none waits for another


def _view(array: Any, stream: int = NO_STREAM) -> Any:
    """Any library's array, as cuda.core sees it; the stream waits for what its library has under way with it."""
    from cuda.core.utils import StridedMemoryView

    return StridedMemoryView.from_any_interface(array, stream_ptr=stream)


def _any_library() -> Library:
    def no_array(shape: tuple[int, ...], name: str, device: int) -> Any:
        raise RejectedError(
            "out", None, "must be given: results are made for arrays of PyTorch, CuPy and Numba", TypeError
        )

    return Library(
        name="other",
        dtype=lambda array: str(_view(array).dtype),
        device=_device_of_pointer,
        pointer=lambda array: int(_view(array, DEFAULT_STREAM).ptr),
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


def _host() -> Library:
    """NumPy arrays that were copied, and whose results are copied back."""
    return Library(
        name="numpy",
        dtype=lambda copy: copy.dtype,
        device=lambda copy: copy.device,
        pointer=lambda copy: copy.pointer,
        contiguous=lambda copy: True,
        plain=lambda copy, name: copy.converted(name),
        empty=HostCopy.empty,
        stream=lambda device: 0,
        flip=lambda copy, axes: copy.flipped(axes),
        finished=lambda copy: copy.back(),
    )


ALIGNMENT = 16  # bytes: of the widest loads and stores
DLPACK_CUDA = 2  # kDLCUDA of the DLPack standard

_MAKERS = {"torch": _torch, "cupy": _cupy, "numba": _numba, "numba_cuda": _numba, "fastconv": _host}
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
    allowed
        Names of the types that it may have.

    Raises
    ------
    RejectedError
        A TypeError for a type that is not computed on devices.
    """

    def __init__(self, argument: str, array: Any, allowed: Collection[str] = DTYPES) -> None:
        self.array, self.library = array, library_of(array)
        name = self.library.dtype(array)
        if name not in allowed:
            types = f"must have one of the types {', '.join(allowed)} on a CUDA device"
            raise RejectedError(f"{argument}.dtype", name, types, TypeError)
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.device = self.library.device(array)
        self.dtype = device_type(name, self.device)

    def __dlpack_device__(self) -> tuple[int, int]:
        """It is on a device like what it stands for."""
        return DLPACK_CUDA, self.device

    def __reduce__(self) -> tuple[Any, ...]:
        return CudaArray, ("array", self.array)

    @property
    def ndim(self) -> int:
        """Axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def pointer(self) -> Any:
        """Address of the first element."""
        return self.library.pointer(self.array)

    def flipped(self, axes: tuple[int, ...]) -> CudaArray:
        """A copy, reversed along axes."""
        return CudaArray("array", self.library.flip(self.array, axes))

    def plain(self, name: str) -> CudaArray:
        """The array in C order, of this type and aligned for wide loads; itself where it is so."""
        if name != self.dtype.name or not self.library.contiguous(self.array):
            return CudaArray("array", self.library.plain(self.array, name))
        return self if is_aligned(self.pointer) else self.flipped(())


def is_aligned(pointer: Any) -> bool:
    """Whether elements of 128 bits may be loaded from an address on."""
    return SIMULATED or pointer % ALIGNMENT == 0


def as_cuda_array(argument: str, value: Any) -> CudaArray:
    """An argument as a `CudaArray`; itself if it is one."""
    return value if isinstance(value, CudaArray) else CudaArray(argument, value)


def copied(argument: str, array: Array, allowed: Collection[str] = DTYPES) -> CudaArray:
    """A NumPy array, copied to the device."""
    return CudaArray(argument, HostCopy.of(array), allowed)


def index_array(argument: str, value: Any, shape: tuple[int, ...]) -> CudaArray:
    """Indices of a shape, in C order and of int64, as the pooling functions give them."""
    indices = CudaArray(argument, value, INDICES)
    if indices.shape != shape:
        raise RejectedError(f"{argument}.shape", indices.shape, f"must be {shape}")
    if not indices.library.contiguous(value):
        raise RejectedError(argument, "not contiguous", "must be in C order")
    return indices


def result_array(out: Any, library: Library, shape: tuple[int, ...], name: str, device: int) -> CudaArray:
    """Where a result goes: `out`, or a new array of a library."""
    if isinstance(out, np.ndarray):
        return CudaArray("out", HostCopy.empty(shape, name, device, out))
    return CudaArray("out", library.empty(shape, name, device) if out is None else out, (*DTYPES, *INDICES))


def zeros_like(value: Any) -> Any:
    """Zeros of the shape, type and library of an array."""
    array = as_cuda_array("array", value)
    zeros = result_array(None, array.library, array.shape, array.dtype.name, array.device)
    with queue_for(array) as queue:
        fill(array.dtype.name, zeros.size)(queue, zeros.pointer)
    return array.library.finished(zeros.array)


def sum_of_channels(array: CudaArray, axis: int) -> Any:
    """Sum over every axis but this one."""
    given = array.plain(array.dtype.name)
    sums = result_array(None, array.library, (array.shape[axis],), array.dtype.name, array.device)
    launch = channel_sums(array.dtype.name, array.shape, axis)
    with queue_for(array) as queue:
        launch(queue, given.pointer, sums.pointer)
    return array.library.finished(sums.array)


def queue_for(array: CudaArray) -> Queue:
    """The queue of the stream in which an array's library expects work."""
    return queue_of(array.device, array.library.stream(array.device))


def check_out(out: Any, shape: tuple[int, ...], name: str, inputs: list[CudaArray]) -> None:
    """Refuse an ``out=`` that cannot take the result."""
    is_copied = inputs[0].library.name == "numpy"
    if not (isinstance(out, np.ndarray) if is_copied else is_on_cuda(out)):
        kind = "a NumPy array" if is_copied else "an array on the CUDA device of the inputs"
        raise RejectedError("out", type(out).__name__, f"must be {kind}", TypeError)
    if tuple(out.shape) != shape:
        raise RejectedError("out.shape", tuple(out.shape), f"must be {shape}")
    if is_copied:
        if out.dtype != np.dtype(name):
            raise RejectedError("out.dtype", str(out.dtype), f"must be {name}", TypeError)
        return
    target = CudaArray("out", out)
    if target.dtype.name != name:
        raise RejectedError("out.dtype", target.dtype.name, f"must be {name}", TypeError)
    if target.device != inputs[0].device:
        raise RejectedError("out", f"cuda:{target.device}", f"must be on the inputs' device, cuda:{inputs[0].device}")
    if not target.library.contiguous(out):
        raise RejectedError("out", "not contiguous", "must be in C order")
    if not is_aligned(target.pointer):
        raise RejectedError("out", "not aligned", f"must begin at a multiple of {ALIGNMENT} bytes")
    if any(_overlap(target, each) for each in inputs):
        raise RejectedError("out", "overlapping", "must not share memory with an input")


def _overlap(first: CudaArray, second: CudaArray) -> bool:
    """Whether two arrays may share memory; of the second, what lies in C order behind its first element counts."""
    begin, other = first.pointer, second.pointer
    if SIMULATED:
        return bool(np.shares_memory(begin, other))
    return bool(begin < other + second.size * _bytes(second) and other < begin + first.size * _bytes(first))


def _bytes(array: CudaArray) -> int:
    return numpy_type(array.dtype.name).itemsize
