"""Pooling on CUDA devices: which kernel computes an operation.

Every kernel is a gather: a thread has results of its own, and meets what they are made of in one order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from ..core.pool_problem import PoolOp, PoolProblem
from ._device import DTYPES
from ._limits import MOST_ELEMENTS, refusal_of_planes
from ._pool_indices import by_indices
from ._pool_max_gradient import max_gradient
from ._pool_mean_gradient import mean_gradient
from ._pool_windows import pool_windows
from ._queue import Queue

# queue, given, indices or None, result, alarm: addresses. The alarm, an int32 of 0, becomes OUTSIDE if an index is
# outside of its plane; only operations that take indices touch it.
PoolRun = Callable[[Queue, Any, Any, Any, Any], None]

# Whose indices come from the caller, and may lie outside.
BY_INDICES = (PoolOp.MAX_GRADIENT, PoolOp.ADD_AT, PoolOp.PUT_AT, PoolOp.TAKE_AT)


def refusal(problem: PoolProblem) -> str | None:
    """None, or one sentence that says why the problem cannot be served on this device."""
    if problem.dtype not in DTYPES:
        return f"{problem.dtype} is not pooled on CUDA devices, which take {', '.join(DTYPES)}"
    windows = math.prod(axis.output for axis in problem.axes)
    for tensor, size in (("x", problem.C * problem.plane), ("y", problem.C * windows)):
        if size >= MOST_ELEMENTS:
            return f"an image of {tensor} has {size} elements, and indices inside it 31 bits"
    return refusal_of_planes(problem.N, problem.C)


@lru_cache(maxsize=1024)
def plan(problem: PoolProblem, op: PoolOp) -> PoolRun:
    """What computes an operation of a problem, in its type: float16 and bfloat16 with float32 sums."""
    if op in BY_INDICES:
        indexed: PoolRun = max_gradient(problem) if op is PoolOp.MAX_GRADIENT else by_indices(problem, op)
        return indexed
    inner = mean_gradient(problem) if op is PoolOp.MEAN_GRADIENT else pool_windows(problem, op)

    def run(queue: Queue, given: Any, indices: Any, result: Any, alarm: Any) -> None:
        inner(queue, given, indices, result)

    return run
