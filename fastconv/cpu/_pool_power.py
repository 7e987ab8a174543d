"""Powers of every element, as `lp_pool` needs them: vectors of products for small whole exponents, else `pow`."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import uint64

from ..core.jit import kernel
from ._kernel import SIZES, views
from ._launch import Launch

# Elements of a task: 128 KiB of float32.
PART = 1 << 15


@kernel
def power(task, x, w, y, residual, constants, workspace, geometry):
    """Raise elements that follow each other: y = x ** constants[0]."""
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    exponent = constants[0]
    begin, end = uint64(task * PART), uint64(min((task + 1) * PART, x.size))
    if exponent == 1:
        for i in range(begin, end):
            y[i] = x[i]
    elif exponent == 2:
        for i in range(begin, end):
            y[i] = x[i] * x[i]
    elif exponent == 3:
        for i in range(begin, end):
            y[i] = x[i] * x[i] * x[i]
    elif exponent == 0.5:
        for i in range(begin, end):
            y[i] = np.sqrt(x[i])
    else:
        for i in range(begin, end):
            y[i] = x[i] ** exponent


@lru_cache(maxsize=1024)
def launch_of(size: int, dtype: str) -> Launch:
    """The launch for so many elements."""
    geometry = np.array([size, size, size, size, 1, 0, SIZES], np.int64)
    return Launch(power, -(-size // PART), dtype, geometry, 0)
