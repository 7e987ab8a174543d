"""Pooling on the CPU: which kernel computes an operation, and what stands around it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from ..core.arrays import Array, allocate
from ..core.errors import RejectedError
from ..core.pool_problem import PoolAxis, PoolOp, PoolProblem, PoolRun
from . import (
    _pool_found,
    _pool_indices,
    _pool_lines,
    _pool_max_gradient,
    _pool_mean_gradient,
    _pool_power,
    _pool_windows,
)
from ._launch import Launch
from ._pool_lines import shape_of

# Elements of a window, or rows of a box, above which each axis is pooled by itself: at most so many follow one another
# in a sum, and tasks stay short.
MOST_TAPS = 1 << 10
# Elements looked at, in one pass over those in several, from which the latter are worth the tensors between them: in
# channels_last, 3x3 (1.48) took 80 us in one and 100 us in two, 31x31 with stride 16 (1.61) 118 and 64, 5x5 (2.42) 163
# and 102.
WORTH_PASSES = 1.5


@lru_cache(maxsize=1024)
def plan(problem: PoolProblem, op: PoolOp) -> PoolRun:
    """What computes an operation of a problem, in its type."""
    if op in (PoolOp.ADD_AT, PoolOp.PUT_AT, PoolOp.TAKE_AT):
        return _by_indices(problem, op)
    if op is PoolOp.MEAN_GRADIENT:
        return _mean_gradient(problem)
    if op is PoolOp.MAX_GRADIENT:
        return _max_gradient(problem)
    if op is PoolOp.MAX_WITH_INDICES:
        return _with_indices(problem)
    passes = list(_passes(problem))
    return _windows(passes[0], op) if len(passes) == 1 else _in_turns(passes, op)


def power(x: Array, exponent: float, y: Array, threads: int) -> None:
    """Write y = x ** exponent, of contiguous arrays of one floating type; they may be the same."""
    launch = _pool_power.launch_of(x.size, x.dtype.name)
    launch(x, y, y, y, np.array([exponent], x.dtype), threads)


def _windows(problem: PoolProblem, op: PoolOp) -> PoolRun:
    """Every element of every window in one pass."""
    shape, dtype = shape_of(problem), np.dtype(problem.dtype)
    kind = _pool_windows.kind_of(shape)
    if op is PoolOp.MEAN:
        kernel, constants = _pool_windows.MEAN[kind], np.append(_pool_windows.divisors_of(shape), dtype.type(0))
    else:
        kernel, constants = _pool_windows.GREATEST[kind], np.array([_least(dtype)], dtype)
    geometry, tasks, workspace = _pool_windows.launch_numbers(shape, constants.size)
    launch = Launch(kernel, tasks, problem.dtype, geometry, workspace)

    def run(x: Array, indices: None, y: Array, threads: int) -> None:
        launch(x, y, y, y, constants, threads)

    return run


def _least(dtype: np.dtype[Any]) -> Any:
    """The number that no other is less than."""
    return -np.inf if dtype.kind == "f" else np.iinfo(dtype).min


def _as_elements(indices: Array, dtype: np.dtype[Any]) -> Array:
    """The memory of indices as elements of the type that kernels get."""
    return indices.reshape(-1).view(dtype)


def _with_indices(problem: PoolProblem) -> PoolRun:
    """The greatest and where it is; -1 for windows that hold no element."""
    shape, dtype = shape_of(problem), np.dtype(problem.dtype)
    least = np.array([_least(dtype)], dtype)
    geometry, tasks = _pool_found.launch_numbers(shape)
    launch = Launch(_pool_found.greatest_with_indices, tasks, problem.dtype, geometry, 0)

    def inner(x: Array, indices: Array, y: Array, threads: int) -> None:
        launch(x, _as_elements(indices, dtype), y, y, least, threads)

    empty = [np.flatnonzero(axis.count == 0) for axis in problem.axes]
    if not any(each.size for each in empty):
        return inner
    extents = [axis.output for axis in problem.axes]
    is_first = problem.layout == "channels_first"

    def run(x: Array, indices: Array, y: Array, threads: int) -> None:
        inner(x, indices, y, threads)
        planes = indices.reshape(-1, *extents) if is_first else indices.reshape(problem.N, *extents, problem.C)
        for axis, windows in enumerate(empty):
            planes[(slice(None),) * (axis + 1) + (windows,)] = -1

    return run


# ---- large windows


def _passes(problem: PoolProblem) -> Iterator[PoolProblem]:
    """Poolings along one axis each, which together are that of the problem; or just this one.

    The greatest of greatest is the greatest, and the mean of means the mean, as the divisor of a window is a product
    of one for each axis. In channels_first, W is gone along by itself in any case (`fastconv.cpu._pool_windows`).
    """
    boxed = (2, 1, 0) if problem.layout == "channels_last" else (1, 0)
    wide = [number for number in boxed if problem.axes[number].count.max() > 1]
    if len(wide) < 2 or _is_joined(problem) or not _is_worth_passes(problem, wide):
        yield problem
        return
    extents = [axis.input for axis in problem.axes]
    narrow = [number for number in range(3) if number not in wide and problem.axes[number] != PoolAxis(1, 1, 1)]
    for number in (*narrow, *wide):
        axes = [PoolAxis(extent, extent, 1) for extent in extents]
        axes[number] = problem.axes[number]
        extents[number] = axes[number].output
        yield problem.replace(axes=tuple(axes))


def _is_worth_passes(problem: PoolProblem, wide: list[int]) -> bool:
    taps = math.prod(int(problem.axes[number].count.max()) for number in wide)
    elements, in_passes = problem.plane, 0
    for number in wide:
        axis = problem.axes[number]
        elements = elements // axis.input * axis.output
        in_passes += elements * int(axis.count.max())
    return taps > MOST_TAPS or elements * taps > WORTH_PASSES * in_passes


def _is_joined(problem: PoolProblem) -> bool:
    """Whether the kernels see one axis, which is not too long for a single task."""
    return (
        problem.layout == "channels_first" and all(map(_pool_lines.covers, problem.axes)) and problem.plane <= 1 << 14
    )


def _in_turns(passes: list[PoolProblem], op: PoolOp) -> PoolRun:
    runs = [_windows(each, op) for each in passes]

    def run(x: Array, indices: None, y: Array, threads: int) -> None:
        for number, (each, part) in enumerate(zip(passes, runs, strict=True)):
            result = y if number == len(runs) - 1 else allocate(each.y_shape, each.dtype)
            part(x, None, result, threads)
            x = result

    return run


# ---- gradients


def _mean_gradient(problem: PoolProblem) -> PoolRun:
    shape = shape_of(problem)
    geometry, tasks, workspace = _pool_mean_gradient.geometry_of(shape)
    launch = Launch(_pool_mean_gradient.mean_gradient, tasks, problem.dtype, geometry, workspace)
    divisors = shape.v.divisors.astype(problem.dtype)

    def run(x: Array, indices: None, y: Array, threads: int) -> None:
        launch(x, y, y, y, divisors, threads)

    return run


def _max_gradient(problem: PoolProblem) -> PoolRun:
    """Gathered in channels_last, where all indices lie in their windows; else put one by one."""
    one_by_one = _by_indices(problem, PoolOp.ADD_AT)
    if problem.layout == "channels_first":
        return one_by_one
    dtype, shape = np.dtype(problem.dtype), shape_of(problem)
    geometry, tasks, _ = _pool_mean_gradient.geometry_of(shape)
    launch = Launch(_pool_max_gradient.max_gradient, tasks, problem.dtype, geometry, 0)
    windows = problem.N * problem.C * math.prod(int(np.count_nonzero(axis.count)) for axis in problem.axes)
    nothing = np.zeros(1, dtype)

    def run(x: Array, indices: Array, y: Array, threads: int) -> None:
        met = np.zeros(tasks, np.int64)
        launch(x, _as_elements(indices, dtype), y, _as_elements(met, dtype), nothing, threads)
        if met.sum() != windows:
            one_by_one(x, indices, y, threads)

    return run


def _by_indices(problem: PoolProblem, op: PoolOp) -> PoolRun:
    dtype = np.dtype(problem.dtype)
    geometry, tasks = _pool_indices.geometry_of(problem, op is PoolOp.ADD_AT, op is PoolOp.TAKE_AT)
    kernel = _pool_indices.take if op is PoolOp.TAKE_AT else _pool_indices.put
    launch = Launch(kernel, tasks, problem.dtype, geometry, 0)
    nothing = np.zeros(1, dtype)

    def run(x: Array, indices: Array, y: Array, threads: int) -> None:
        wrong = np.zeros(tasks, dtype)
        launch(x, _as_elements(indices, dtype), y, wrong, nothing, threads)
        if wrong.any():
            worst = indices.max() if indices.max() >= problem.plane else indices.min()
            raise RejectedError("indices", int(worst), f"must be -1, or at least 0 and below {problem.plane}")

    return run
