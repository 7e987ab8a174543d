"""Powers of every element, as `lp_pool` needs them: products for small whole exponents, else `pow`."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from ._device import (
    COMPUTED_AS,
    block_x,
    function,
    get,
    int32,
    int64,
    pointer,
    put,
    real_of,
    shifted,
    thread,
)
from ._kernel import Body, Launch, kernels

THREADS = 256


@function
def _same(value, exponent):
    return value


@function
def _square(value, exponent):
    return value * value


@function
def _cube(value, exponent):
    return value * value * value


@function
def _root(value, exponent):
    return math.sqrt(value)


@function
def _power(value, exponent):
    return value**exponent


_POWERS: dict[float | None, Any] = {1.0: _same, 2.0: _square, 3.0: _cube, 0.5: _root, None: _power}


@kernels
def raise_elements(dtype: str, easy: float | None, has_factor: bool) -> Body:
    """A thread raises one element, scaled, to one of the easy powers, or to any, and multiplies by its factor."""
    raised = _POWERS[easy]
    real = real_of(dtype)

    def body(
        x,  # read
        factor,  # read if has_factor: an element of zero then gives zero, whatever its power
        y,  # written; may be one of the others
        left,  # int32: elements of the last block
        last,  # int32: its number
        scale,  # of x
        exponent,
        gain,  # of the result
    ):
        if block_x() < last or thread() < left:
            first = int64(block_x()) * int64(int32(THREADS))
            value = scale * get(shifted(x, first), thread())
            power = gain * raised(value, exponent)
            if has_factor:
                power = real(0) if value == 0 else power * get(shifted(factor, first), thread())
            put(shifted(y, first), thread(), power)

    return Body(body, (*[pointer(dtype)] * 3, int32, int32, real, real, real), THREADS)


@lru_cache(maxsize=1024)
def power_of(
    size: int, dtype: str, exponent: float, scale: float = 1, gain: float = 1, has_factor: bool = False
) -> Any:
    """The launch, of x, factor and y, for so many elements: ``y = gain * (scale * x)**exponent * factor``."""
    kernel = raise_elements(dtype, exponent if exponent in _POWERS else None, has_factor)
    last, left = divmod(size - 1, THREADS)
    real = np.dtype(COMPUTED_AS[dtype]).type
    return Launch(kernel, (last + 1,), left + 1, last, real(scale), real(exponent), real(gain))
