"""Looking for NaN, Inf and huge elements before an algorithm that would spread them: one pass, on all threads."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import uint64

from ..core.algorithm import Array
from ..core.arrays import extreme
from ..core.jit import kernel
from ._kernel import SIZES, views
from ._launch import Launch

# Elements of a task: 128 KiB of float32.
PART = 1 << 15
# Elements up to which NumPy is as fast, in two passes.
FEW = 1 << 16


def is_extreme(array: Array, limit: float, threads: int) -> bool:
    """Whether an element of a contiguous array is NaN, infinite or at least `limit` in magnitude, in either part.

    2.4 million elements of float32: 84 us on two threads of the machine of docs/performance.md, 223 us through NumPy.
    """
    if array.size <= FEW:
        return extreme(array, limit)
    reals = array.reshape(-1).view(array.real.dtype)
    launch, parts = _launch_for(reals.size, reals.dtype.name)
    found = np.empty(parts, reals.dtype)
    launch(reals, found, found, found, np.array([limit], reals.dtype), threads)
    return bool(found.any())


@kernel
def _find(task, x, w, y, residual, constants, workspace, geometry):
    """y[task] = 1 where an element of a part of x is not below constants[0] in magnitude, else 0."""
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    limit = constants[0]
    found = False
    for i in range(uint64(task * PART), uint64(min((task + 1) * PART, x.size))):
        found |= not abs(x[i]) < limit  # not >=: NaN is not below the limit, either
    y[task] = found


@lru_cache(maxsize=1024)
def _launch_for(size: int, dtype: str) -> tuple[Launch, int]:
    """The launch for so many elements, and its tasks."""
    parts = -(-size // PART)
    geometry = np.array([size, parts, parts, parts, 1, 0, SIZES], np.int64)
    return Launch(_find, parts, dtype, geometry, 0), parts
