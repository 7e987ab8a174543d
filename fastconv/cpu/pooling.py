"""Pooling on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.arrays import Array
from ..core.pooling import PoolOp, PoolProblem
from ._launch import Launch
from ._pool_lines import geometry_of, shape_of
from ._pool_windows import greatest, greatest_with_indices, mean

Run = Callable[[Array, Array, Array, int], None]


def plan(problem: PoolProblem, op: PoolOp) -> Run:
    shape = shape_of(problem)
    dtype = np.dtype(problem.dtype)
    if op is PoolOp.MEAN:
        constants = shape.v.divisors.astype(dtype)
        k = mean
    else:
        least = -np.inf if dtype.kind == "f" else np.iinfo(dtype).min
        constants = np.array([least], dtype)
        k = greatest_with_indices if op.has_indices else greatest
    geometry, tasks = geometry_of(shape, constants.size, op.has_indices)
    launch = Launch(k, tasks, problem.dtype, geometry, 0)

    def run(x, indices, y, threads):
        w = indices.reshape(-1).view(dtype) if op.has_indices else y
        launch(x, w, y, y, constants, threads)

    return run
