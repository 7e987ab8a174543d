"""Arrays in and out: what is accepted, how it is made plain for kernels, and how a result is handed back."""

from __future__ import annotations

import contextlib
import math
import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import kept
from .devices import DeviceType, check_device, cuda_arrays, is_on_cuda
from .errors import RejectedError
from .problem import COMPUTE_DTYPES

Array = NDArray[Any]

# Scalar types of what is accepted; C's integer types have several for one name.
_SCALARS = {kind.type for kind in map(np.dtype, np.typecodes["All"]) if kind.name in COMPUTE_DTYPES}


def as_array(argument: str, value: Any, device: str | None = None) -> Array:
    """An argument as an array of a supported type, not copied where it already is one.

    What is on a CUDA device becomes a `fastconv.cuda._arrays.CudaArray`; with device="cuda", so does everything else.

    Raises
    ------
    RejectedError
        A TypeError for masked, object, string, boolean and any other unsupported type; NumPy's error for lists of
        different lengths and whatever else it makes no array of.
    """
    if type(value) is np.ndarray and device is None and value.dtype.type in _SCALARS:
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise RejectedError(argument, type(value).__name__, "must not be masked: fill it first", TypeError)
    if device is not None or (type(value) is not np.ndarray and is_on_cuda(value)):
        check_device(device)
        if is_on_cuda(value):
            return _on_cuda(argument, value, device)
        if device == "cuda":
            copied: Array = cuda_arrays().copied(argument, as_array(argument, value))
            return copied
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RejectedError(argument, type(value).__name__, f"is no array: {error}", type(error)) from None
    if array.dtype.type not in _SCALARS:
        hint = "; convert booleans to an integer type first" if array.dtype.kind == "b" else ""
        allowed = f"must have one of the types {', '.join(COMPUTE_DTYPES)}{hint}"
        raise RejectedError(f"{argument}.dtype", str(array.dtype), allowed, TypeError)
    return array


def _on_cuda(argument: str, value: Any, device: str | None) -> Array:
    if device == "cpu":
        raise RejectedError(argument, type(value).__name__, 'is on a CUDA device, and device="cpu" was asked for')
    array: Array = cuda_arrays().as_cuda_array(argument, value)
    return array


def common_dtype(*dtypes: np.dtype[Any] | DeviceType | None) -> str:
    """Name of the type to which NumPy promotes arrays of these types together; None is passed over.

    bfloat16, which NumPy lacks, promotes with any other type as float32 does.
    """
    names = {each.name for each in dtypes if isinstance(each, DeviceType)}
    if len(names) == 1:
        return names.pop()
    if names:
        return np.result_type(*["float32" if name in ("bfloat16", "tf32") else name for name in names]).name
    dtype = np.result_type(*[each for each in dtypes if isinstance(each, np.dtype)])
    if dtype.name not in COMPUTE_DTYPES:
        raise RejectedError(
            "dtype", str(dtype), f"the arrays promote to it; allowed is {', '.join(COMPUTE_DTYPES)}", TypeError
        )
    return dtype.name


def common_type(*dtypes: Any) -> Any:
    """The type of `common_dtype`, on the device where the arrays are."""
    name, device = common_dtype(*dtypes), next((each.device for each in dtypes if isinstance(each, DeviceType)), None)
    return np.dtype(name) if device is None else DeviceType(name, device)


def is_plain(array: Array, dtype: np.dtype[Any]) -> bool:
    """Whether kernels can use the array's memory as it is."""
    flags = array.flags
    return (flags.carray or (flags.c_contiguous and flags.aligned)) and array.dtype == dtype  # carray: and writeable


def plain(array: Array, dtype: np.dtype[Any]) -> Array:
    """The array as C-contiguous, aligned, native elements of `dtype`; itself where it already is so."""
    if is_plain(array, dtype):
        return array
    if array.dtype.kind in "iu" and dtype.kind == "i":
        return array.astype(dtype, order="C", casting="unsafe")  # modulo the width, on purpose
    return array.astype(dtype, order="C", casting="same_kind")


def zeros_like(value: Any) -> Array:
    """Zeros of the shape and type of an argument, where that lives."""
    if is_on_cuda(value):
        zeros: Array = cuda_arrays().zeros_like(value)
        return zeros
    array = np.asarray(value)
    return np.zeros(array.shape, array.dtype.newbyteorder("="))


def sum_of_channels(array: Array, axis: int) -> Array:
    """Sum over every axis but that of the channels, of float16 in float32, where the array lives."""
    if not isinstance(array, np.ndarray):
        total: Array = cuda_arrays().sum_of_channels(array, axis)
        return total
    axes = tuple(each for each in range(array.ndim) if each != axis)
    dtype = array.dtype.newbyteorder("=")
    computed = np.dtype("float32") if dtype == np.float16 else dtype
    return np.asarray(array.sum(axis=axes, dtype=computed)).astype(dtype, copy=False)


_empty = np.empty  # the tests put poison here

LINE_BYTES = 64
# Bytes of a result from which on it is worth the microsecond that it takes to let it begin with a cache line. NumPy's
# arrays begin anywhere: 64x56x56 to 64, 1x1, took 144 us where every vector of x lay in two lines, and 137 so.
LARGE_BYTES = 1 << 20


def allocate(shape: int | tuple[int, ...], dtype: np.dtype[Any] | str) -> Array:
    """Memory that is about to be written; every result comes from here."""
    fresh = _empty(shape, dtype)
    if fresh.nbytes < LARGE_BYTES:
        return fresh
    del fresh  # first, or the C library would give memory of twice the size back to the system at each call
    return on_a_line(shape, dtype)


def on_a_line(shape: int | tuple[int, ...], dtype: np.dtype[Any] | str) -> Array:
    """Memory that begins with a cache line, as every workspace does."""
    elements = shape if isinstance(shape, int) else math.prod(shape)
    bytes = int(elements) * np.dtype(dtype).itemsize
    memory = _empty(bytes + LINE_BYTES, np.uint8)
    if bytes >= kept.LEAST_BYTES:
        memory = kept.instead_of(memory)
    at = -memory.ctypes.data % LINE_BYTES
    return memory[at : at + bytes].view(dtype).reshape(shape)


# Bytes of a large page of x86 and ARM, where the other ones have 4 KiB.
LARGE_PAGE_BYTES = 1 << 21


def on_large_pages(elements: int, dtype: np.dtype[Any] | str) -> Array:
    """Memory that begins with a cache line, and with a large page where there are enough elements to fill one.

    A kernel that goes through many places of its workspace at once, such as the points of Winograd's tiles, finds them
    faster: 512x7x7 to 512, 3x3, took 1.04 to 1.11 ms with pages of 4 KiB and 1.01 so, others the same within 3 %.
    """
    bytes = elements * np.dtype(dtype).itemsize
    if bytes < LARGE_PAGE_BYTES or not hasattr(mmap, "MADV_HUGEPAGE"):
        return on_a_line(elements, dtype)
    pages = mmap.mmap(-1, -(-bytes // LARGE_PAGE_BYTES) * LARGE_PAGE_BYTES + LARGE_PAGE_BYTES)
    with contextlib.suppress(OSError):  # a kernel without large pages; it is memory all the same
        pages.madvise(mmap.MADV_HUGEPAGE)
    memory = np.frombuffer(pages, np.uint8)
    at = -memory.ctypes.data % LARGE_PAGE_BYTES
    return memory[at : at + bytes].view(dtype)


def check_out(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], inputs: tuple[Array | None, ...]) -> None:
    """Refuse an ``out=`` that cannot take the result."""
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):
        raise RejectedError("out", type(out).__name__, "must be a NumPy array", TypeError)
    if out.shape != shape:
        raise RejectedError("out.shape", out.shape, f"must be {shape}")
    if out.dtype != dtype:
        raise RejectedError("out.dtype", str(out.dtype), f"must be {dtype}", TypeError)
    if not out.flags.writeable:
        raise RejectedError("out", "read-only", "must be writeable")
    for array in inputs:
        if array is not None and _overlap(out, array):
            raise RejectedError("out", "overlapping", "must not share memory with an input")


def handed_back(result: Array, out: Array | None) -> Array:
    """The result, in `out` if there is one."""
    if out is None or result is out:
        return result
    out[...] = result
    return out


def _overlap(first: Array, second: Array) -> bool:
    if first is not second and first.flags.owndata and second.flags.owndata:
        return False
    try:
        return np.shares_memory(first, second, max_work=1000)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:  # interleaved in a way that is expensive to tell apart
        return True


def extreme(array: Array, limit: float) -> bool:
    """Whether an element is NaN, infinite or at least `limit` in magnitude."""
    if array.size == 0:
        return False
    parts = (array.real, array.imag) if array.dtype.kind == "c" else (array,)
    return not all(-limit < part.min() and part.max() < limit for part in parts)
