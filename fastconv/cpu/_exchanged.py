"""Depthwise filters that cover the image, which change places with it.

With "same" padding and 2 * H - 1 taps or more along an axis of H elements, as in the last layers of networks with large
filters, every output meets every input, and none meets padding::

    FORWARD       y[p] = sum over i of x[i] * w[i - p + pad]
    GRAD_INPUT    x[i] = sum over m of w[m] * y[i - m + pad]
    GRAD_WEIGHT   w[m] = sum over p of y[p] * x[p + m - pad]

A vector of neighbouring outputs meets all taps, of which each lane uses half, but only H elements of the image. So the
image, or y for the gradients, is taken as the filter, and the filter as what is filtered. The first line is then a
FORWARD that gives y from its end to its beginning, the second a GRAD_INPUT, and the third a FORWARD. 512x14x14 with
27x27 takes 0.27 ms in place of 0.55 on the machine of docs/performance.md, 0.01 of them to turn y around.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import uint64

from ..core.algorithm import Array, Epilogue, Plan
from ..core.jit import kernel
from ..core.problem import ConvProblem, Op, axes
from ._extremes import is_extreme
from ._kernel import SIZES, integers_at, views
from ._launch import Launch
from ._simd import lanes, load, store, turned

# Elements of a task that turns lines around: 64 KiB of float32.
TURNED_ELEMENTS = 1 << 14
# Time of turning an element around, and of what is done in Python.
TURNED_SECONDS = 0.05e-9
CALL_SECONDS = 15e-6


class Exchange(NamedTuple):
    """What is computed in place of an operation of a problem, once for each image."""

    problem: ConvProblem
    op: Op


def exchange_of(problem: ConvProblem, op: Op) -> Exchange | None:
    """What to compute instead where the filter covers the image, or None."""
    if not _covers(problem) or (op is Op.GRAD_WEIGHT and problem.N > 1):
        return None
    image, filter, output = problem.input, problem.filter, problem.output
    if op is Op.FORWARD:
        seen = axes(stop - start for start, stop in _seen(problem))
        return Exchange(problem.replace(N=1, input=seen, filter=image, padding=((0, 0),) * 3), Op.FORWARD)
    if op is Op.GRAD_INPUT:
        padding = tuple((extent - 1, extent - 1) for extent in output)
        return Exchange(problem.replace(N=1, filter=output, padding=padding), Op.GRAD_INPUT)
    padding = tuple(
        (low, taps - extent - low + outputs - 1)
        for (low, _), taps, extent, outputs in zip(problem.padding, filter, image, output, strict=True)
    )
    return Exchange(problem.replace(filter=output, padding=padding), Op.FORWARD)


def _covers(problem: ConvProblem) -> bool:
    """Whether every output meets every input, and no padding, of filters for one channel each."""
    ones = (1, 1, 1)
    return (
        problem.groups == problem.C == problem.K
        and problem.layout == "channels_first"
        and problem.padding_mode == "zeros"
        and problem.stride == problem.dilation == ones
        and problem.input != ones
        and all(start >= 0 and stop <= taps for (start, stop), taps in zip(_seen(problem), problem.filter, strict=True))
    )


def _seen(problem: ConvProblem) -> list[tuple[int, int]]:
    """Along each axis, the first tap that any output uses, and the one behind the last."""
    return [
        (low - outputs + 1, low + extent)
        for (low, _), outputs, extent in zip(problem.padding, problem.output, problem.input, strict=True)
    ]


def plan(problem: ConvProblem, op: Op, epilogue: Epilogue, inner: Plan, usual: Plan) -> Plan:
    """The plan of a problem, given that of its exchange and the one without.

    The latter is used where a weight is NaN or Inf: its products with the zeros of the padding, which are left out
    here, are NaN then. It shows in the result, which is smaller than the weight, where every weight has a part in it.
    """
    N, C = problem.N, problem.C
    turn_around = _turning(N * C, math.prod(problem.output), problem.dtype)
    image, filter, output = ((C, 1, *extents) for extents in (problem.input, problem.filter, problem.output))
    taken: Any = (..., *(slice(*seen) for seen in _seen(problem)))

    def forward(x: Array, w: Array, y: Array, residual: Array, constants: Array, threads: int) -> None:
        seen = np.ascontiguousarray(w.reshape(filter)[taken])
        for x_n, y_n in zip(x.reshape(N, *image), y.reshape(N, *output), strict=True):
            inner.run(seen, x_n, y_n, y_n, constants, threads)
        turn_around(y, constants, threads)

    def grad_input(x: Array, w: Array, y: Array, residual: Array, constants: Array, threads: int) -> None:
        seen = np.ascontiguousarray(w.reshape(filter)[taken])
        for x_n, y_n in zip(x.reshape(N, *image), y.reshape(N, *output), strict=True):
            inner.run(x_n, y_n, seen, x_n, constants, threads)

    def grad_weight(x: Array, w: Array, y: Array, residual: Array, constants: Array, threads: int) -> None:
        inner.run(x, y, w, w, np.zeros(C + 1, w.dtype), threads)

    exchanged = {Op.FORWARD: forward, Op.GRAD_INPUT: grad_input, Op.GRAD_WEIGHT: grad_weight}[op]

    whole = all(seen == (0, taps) for seen, taps in zip(_seen(problem), problem.filter, strict=True))
    shows = whole and epilogue.activation is None

    def run(x: Array, w: Array, y: Array, residual: Array, constants: Array, threads: int) -> None:
        result = y if op is Op.FORWARD else x
        if shows:
            exchanged(x, w, y, residual, constants, threads)
        if is_extreme(result if shows else w, math.inf, threads):
            usual.run(x, w, y, residual, constants, threads)
        elif not shows:
            exchanged(x, w, y, residual, constants, threads)

    never_extreme = op is Op.GRAD_WEIGHT or problem.is_exact
    return dataclasses.replace(
        inner,
        problem=problem,
        op=op,
        workspace_bytes=max(inner.workspace_bytes, usual.workspace_bytes),
        run=exchanged if never_extreme else run,
        tiles={**inner.tiles, "exchanged": 1},
    )


# ---- from its end to its beginning


@kernel
def _turn(task, x, w, y, residual, constants, workspace, geometry):
    """One task: some lines of y, each turned around."""
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    lines, extent = integers_at(geometry, SIZES, 2)
    step = lanes(y)
    for line in range(task * lines, min((task + 1) * lines, y.size // extent)):
        begin, end = line * extent, (line + 1) * extent
        while end - begin >= 2 * step:
            end -= step
            first, last = load(y, begin, 1), load(y, end, 1)
            store(y, begin, turned(last))
            store(y, end, turned(first))
            begin += step
        while end - begin > 1:
            end -= 1
            y[uint64(begin)], y[uint64(end)] = y[uint64(end)], y[uint64(begin)]
            begin += 1


def _turning(lines: int, extent: int, dtype: str) -> Callable[[Array, Array, int], None]:
    """What turns so many lines of so many elements around, in place."""
    of_task = max(1, TURNED_ELEMENTS // extent)
    size = lines * extent
    geometry = np.array([size, size, size, size, 1, 0, SIZES + 2, of_task, extent], np.int64)
    launch = Launch(_turn, -(-lines // of_task), dtype, geometry, 0)

    def turn_around(y: Array, constants: Array, threads: int) -> None:
        launch(y, y, y, y, constants, threads)

    return turn_around


def seconds(problem: ConvProblem, op: Op) -> float:
    """Time beside the launches."""
    turned = TURNED_SECONDS * math.prod(problem.y_shape) if op is Op.FORWARD else 0
    return CALL_SECONDS + turned
