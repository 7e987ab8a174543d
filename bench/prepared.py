"""What a library makes of a case: a call that is ready to be measured, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.core.arrays import on_a_line

Array = NDArray[Any]


class RefusedError(Exception):
    """The library has no way to do this; the message is the reason."""


@dataclass(frozen=True)
class Prepared:
    """A call that computes the result, how to read the result, and which way it is computed."""

    call: Callable[[], Any]
    to_array: Callable[[Any], Array] = np.asarray
    note: str = ""


def normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
    """Normally distributed numbers, in memory that begins with a cache line, as PyTorch's and ONNX Runtime's does."""
    numbers: Array = rng.standard_normal(dtype=dtype, out=on_a_line(shape, dtype))
    return numbers


def copied(array: Array) -> Array:
    """The elements in their order, in such memory."""
    copy = on_a_line(array.shape, array.dtype)
    copy[...] = array
    return copy


def compiled(call: Callable[[], Any]) -> Callable[[], Any]:
    """The call, made once: what it compiles is not measured."""
    call()
    return call


def only(allowed: bool, reason: str) -> None:
    """Refuse what is not allowed.

    Raises
    ------
    RefusedError
        With this reason.
    """
    if not allowed:
        raise RefusedError(reason)
