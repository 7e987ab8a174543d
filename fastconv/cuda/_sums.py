"""What gradients need besides convolutions: the sum of each channel, and zeros."""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np

from ._device import (
    WARP,
    block_x,
    cuda,
    get,
    int32,
    int64,
    pointer,
    put,
    real_of,
    record,
    shifted,
    sum_of_block,
    thread,
)
from ._kernel import Body, Launch, kernels

THREADS = 256


class Extents(NamedTuple):
    """A tensor as (outer, channels, inner)."""

    outer: int
    channels: int
    inner: int


@kernels
def add_up_channels(dtype: str) -> Body:
    """A block sums one channel, in a fixed order."""
    real = real_of(dtype)
    warps = THREADS // WARP
    block_sum = sum_of_block(warps)

    def body(
        y,  # (outer, channels, inner), read
        sums,  # (channels,), written
        n,  # Extents
    ):
        parts = cuda.shared.array(warps, real)
        total = real(0)
        for outer in range(n.outer):
            row = shifted(y, (int64(outer) * int64(n.channels) + int64(block_x())) * int64(n.inner))
            for inner in range(thread(), n.inner, int32(THREADS)):
                total += get(row, int32(inner))
        total = block_sum(total, parts)
        if thread() == 0:
            put(sums, block_x(), total)

    return Body(body, (pointer(dtype), pointer(dtype), record(Extents)), THREADS)


@kernels
def fill_zeros(dtype: str) -> Body:
    """Set elements to zero."""
    real = real_of(dtype)

    def body(
        elements,  # written
        count,  # int64
    ):
        at = int64(block_x()) * int64(THREADS) + int64(thread())
        if at < count:
            put(shifted(elements, at), 0, real(0))

    return Body(body, (pointer(dtype), int64), THREADS)


@cache
def channel_sums(dtype: str, shape: tuple[int, ...], axis: int) -> Launch:
    """What adds up every axis of a tensor but one: pointers to the tensor and to the sums."""
    extents = Extents(math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]))
    return Launch(add_up_channels(dtype), (shape[axis],), extents)


@cache
def fill(dtype: str, count: int) -> Launch:
    """What writes so many zeros."""
    return Launch(fill_zeros(dtype), (-(-count // THREADS),), np.int64(count))
