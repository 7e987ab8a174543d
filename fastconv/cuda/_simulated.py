"""The device's words as plain Python, for Numba's simulator, which has neither warps nor wide accesses."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda

Number = Any  # what Numba would type

float32: Any = np.float32
float64: Any = np.float64
int32: Any = np.int32
int64: Any = np.int64

VECTOR = 4
WIDEST = 16  # bytes of an access

function: Any = cuda.jit(device=True)


def pointer(dtype: str) -> Any:
    """Nothing: the simulator takes arguments as they come."""
    return None


def record(kind: type) -> Any:
    """Nothing either."""
    return None


def _checked(elements: Any, index: Number, count: int = 1) -> int:
    """An index that is inside: Python would take one below zero from the end."""
    size = elements.shape[0]
    if not 0 <= index <= size - count:
        raise IndexError(f"{count} elements from {index} on, of {size}")
    if count > 1:
        # Where the memory begins counts too: an image behind others, for one, need not lie at a multiple of an access.
        address = elements.ctypes.data + int(index) * elements.itemsize
        if index % count or address % min(count * elements.itemsize, WIDEST):
            raise IndexError(f"{count} elements from {index} on, at an address that is no multiple of their size")
    return int(index)


def shifted(elements: Any, count: Number) -> Any:
    """The elements from this one on."""
    if not 0 <= count <= elements.shape[0]:
        raise IndexError(f"{count} elements on, of {elements.shape[0]}")
    return elements[count:]


def _widened(value: Any) -> Any:
    if value.dtype == np.int16:
        return value.view(np.float16).astype(np.float32)
    if value.dtype == np.uint16:
        return (value.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return value


def _narrowed(value: Any, dtype: np.dtype[Any]) -> Any:
    if dtype == np.int16:
        return np.float16(value).view(np.int16)
    if dtype == np.uint16:
        bits = int(np.float32(value).view(np.uint32))
        if np.isnan(value):
            return np.uint16(0x7FFF)
        return np.uint16((bits + 0x7FFF + (bits >> 16 & 1)) >> 16)
    return dtype.type(value)


def get(elements: Any, index: Number) -> Any:
    """`_intrinsics.get`."""
    return _widened(elements[_checked(elements, index)])


def get_behind(elements: Any, index: Number, count: int) -> Any:
    """`_intrinsics.get_behind`."""
    return get(elements, index + count)


def put(elements: Any, index: Number, value: Any) -> None:
    """`_intrinsics.put`."""
    elements[_checked(elements, index)] = _narrowed(value, elements.dtype)


def get4(elements: Any, index: Number) -> tuple[Any, ...]:
    """`_intrinsics.get4`."""
    first = _checked(elements, index, VECTOR)
    return tuple([_widened(elements[first + k]) for k in range(VECTOR)])


def put4(elements: Any, index: Number, *values: Any) -> None:
    """`_intrinsics.put4`."""
    first = _checked(elements, index, VECTOR)
    for k, value in enumerate(values):
        elements[first + k] = _narrowed(value, elements.dtype)


def _without_sign(*numbers: Number) -> None:
    if min(numbers) < 0:
        raise ValueError(f"{numbers} are divided as integers without a sign")


def quotient(dividend: Number, divisor: Number) -> Any:
    """`_intrinsics.quotient`."""
    _without_sign(dividend, divisor)
    return np.int32(dividend // divisor)


def remainder(dividend: Number, divisor: Number) -> Any:
    """`_intrinsics.remainder`."""
    _without_sign(dividend, divisor)
    return np.int32(dividend % divisor)


def quotient_by(dividend: Number, multiplier: Number, shift: Number) -> Any:
    """`_intrinsics.quotient_by`."""
    return np.int32((2 * int(dividend) * (int(multiplier) % 2**32) >> 32) >> int(shift))


def copy_or_zero(elements: Any, at: Number, source: Any, index: Number, is_there: Any) -> None:
    """`_intrinsics.copy_or_zero`, which here has copied when it returns."""
    elements[_checked(elements, at)] = get(source, index) if is_there else 0


def fetched() -> None:
    """`_intrinsics.fetched`: nothing is under way."""
