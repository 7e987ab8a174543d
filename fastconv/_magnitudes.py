"""How far the magnitudes of data lie apart: what a Fourier transform of it costs in accuracy where it is small.

The error of a transform is relative to the largest elements that it meets, so that results which depend on small ones
alone lose digits: of a window whose elements are 1000 times smaller than the largest, three decimal ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from .core.arrays import Array

# Seconds for each element that is read, and for each block along the last axis: 2048 x 2048 elements of float32 took
# 3 ms in blocks of 81 along the first axis, 2.3 ms along the last one; blocks of 21 along the last one took 12 ms.
ELEMENT_SECONDS = 0.6e-9
LINE_SECONDS = 60e-9


def spread(x: Array, reach: Sequence[int]) -> float:
    """The largest magnitude of x, over that of the quietest window that is not all zeros.

    Every window of `reach` elements along the last axes holds one of the blocks of half of it that are looked at.

    Parameters
    ----------
    x : array of shape (..., *extents)
    reach
        Extents of the filter.
    """
    return max(_spread(part, reach) for part in ((x.real, x.imag) if x.dtype.kind == "c" else (x,)))


def seconds(extents: Sequence[int], reach: Sequence[int]) -> float:
    """Time that `spread` takes, on the machine of docs/performance.md."""
    total, left = 0.0, math.prod(extents)
    for extent, whole in zip(reach, extents, strict=True):
        block = min((extent + 1) // 2, whole)
        if block > 1:
            total += left * ELEMENT_SECONDS
            left = -(-left // block)
    # Neighbours are not reduced a register at a time.
    return total + left * LINE_SECONDS


def _spread(x: Array, reach: Sequence[int]) -> float:
    high = low = x
    for axis, extent in enumerate(reach, start=x.ndim - len(reach)):
        block = (extent + 1) // 2
        high, low = _of_blocks(np.max, high, axis, block), _of_blocks(np.min, low, axis, block)
    peaks = np.maximum(high, -low)
    heard = peaks[peaks > 0]
    return float(heard.max()) / float(heard.min()) if heard.size else 1.0


def _of_blocks(reduce: Callable[..., Array], x: Array, axis: int, block: int) -> Array:
    """The greatest or least of each block along an axis; the last block overlaps the one before."""
    extent = x.shape[axis]
    if block == 1:
        return x
    if block >= extent:
        return reduce(x, axis, keepdims=True)
    before = (slice(None),) * axis
    whole = x[(*before, slice(extent // block * block))]
    blocks = whole.reshape(*x.shape[:axis], -1, block, *x.shape[axis + 1 :])
    last = x[(*before, slice(extent - block, extent))]
    return np.concatenate([reduce(blocks, axis + 1), reduce(last, axis, keepdims=True)], axis)
