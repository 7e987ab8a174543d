"""How far the magnitudes of data lie apart: what a Fourier transform of it costs in accuracy where it is small.

The error of a transform is relative to the largest elements that it meets, so that results which depend on small ones
alone lose digits: of a window whose elements are 1000 times smaller than the largest, three decimal ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .core.arrays import Array


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


def _spread(x: Array, reach: Sequence[int]) -> float:
    high = low = x
    for axis, extent in enumerate(reach, start=x.ndim - len(reach)):
        block = (extent + 1) // 2
        starts = np.arange(0, max(1, x.shape[axis] - block + 1), block)  # the last one is the longest
        high, low = np.maximum.reduceat(high, starts, axis), np.minimum.reduceat(low, starts, axis)
    peaks = np.maximum(high, -low)
    heard = peaks[peaks > 0]
    return float(heard.max()) / float(heard.min()) if heard.size else 1.0
