"""The greatest and the mean of windows: the rows of a box are put together first, then what that gives along v.

For a line of the output, and with + for what is done to the elements of a window::

    row[i] = x[row 0, i] + x[row 1, i] + ...
    y[q] = row[q * stride - low] + row[q * stride + dilation - low] + ...

A row stands in the workspace, with what counts as nothing on both sides, so that there are no borders. Along v, outputs
are computed in one of three ways:

- there is nothing to do for the channels of channels_last: y is the row. Where there are few lines, they are cut;
- in lanes: a vector of outputs at once, tap by tap;
- one by one: the elements of a window are loaded as vectors. So go adaptive windows, and wide ones where there are few.

Windows that hold all of a plane need no row. What as many planes as a vector has lanes give, a vector each, is a square,
and a vector of outputs is what its rows give.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from ..core.arrays import Array
from ..core.jit import SUBROUTINE, kernel, subroutine
from ..core.pool_problem import PoolAxis
from ._geometry import Integers
from ._kernel import always_inlined, integers_at, never_inlined, views
from ._pool_lines import (
    HEADER,
    LEAST_TASK_BYTES,
    Shape,
    covers,
    box_of,
    geometry_of,
    header,
    line_of,
    lines_of_task,
    next_line,
    next_row,
    rows_of,
    segment_of,
)
from ._pool_vectors import everywhere, greater, greatest_of, load_apart, load_between
from ._rows import fill_first
from ._simd import (
    REGISTER_BYTES,
    every_second,
    lanes_of_value,
    load,
    load_first,
    splat,
    store,
    store_first,
    totals_of,
    zeros,
)

# Registers of a row that are put together at once where there are as many; and those of channels, whose rows lie far
# apart, so that longer runs are read of each: the mean of 7x7 of 8x2048 channels took 50 us with 16 of them on one
# thread, and 100 us with 4.
WIDE = 4
WIDEST = 16
# Bytes of the rows that are put together before anything is done along them; they stay in the first-level cache.
ROWS_BYTES = 1 << 13
# Time of putting the lanes of a window together, and of gathering a vector of elements that are more than two apart, in
# vectors that are loaded and added.
LANES_TOGETHER = 10
APART = 10

# What is done along v: nothing, windows in lanes, one by one, or all of a plane.
CHANNELS, PAIRS, IN_LANES, ONE_BY_ONE, PLANES = range(5)


class Along(NamedTuple):
    """The numbers that follow the header."""

    kind: int
    parts: int  # that lines are cut into
    part: int  # elements of a part
    rows: int  # of the workspace
    margin: int  # elements before those of a row
    pitch: int  # from one row to the next
    paired: int  # taps of which every two neighbours are loaded together where the stride is 2


ALONG = len(Along._fields)


@subroutine
def along_of(geometry):
    return Along(*integers_at(geometry, HEADER, ALONG))


class Mean(NamedTuple):
    """Sums, divided."""

    y: types.Array
    divisors: types.Array  # of each window along v


class Sum(NamedTuple):
    """Sums, a part of those of a mean."""

    y: types.Array


class Greatest(NamedTuple):
    """The greatest."""

    y: types.Array


# ---- what the kinds do


def both(kind, first, second):
    """Elements of windows put together, lane by lane."""


def together(kind, value):
    """All lanes put together."""


def finished(kind, value, q, count, divisor):
    """What is written of the first `count` lanes, of which the first belongs to window q along v."""


def rows_in(kind, workspace):
    """What rows are put together for."""


def _sum(kind, first, second):
    return first + second


def _greater(kind, first, second):
    return greater(first, second)


def _total(kind, value):
    return totals_of((value,))[0]


def _greatest(kind, value):
    return greatest_of(value)


def _mean(kind, value, q, count, divisor):
    return value / (everywhere(value, divisor) * load_first(kind.divisors, q, count, value))


def _same(kind, value, q, count, divisor):
    return value


def _sums_in(kind, workspace):
    return Sum(workspace)


def _greatest_in(kind, workspace):
    return Greatest(workspace)


@overload(both, jit_options=SUBROUTINE)
def _both(kind, first, second):
    return _greater if kind.instance_class is Greatest else _sum


@overload(together, jit_options=SUBROUTINE)
def _together(kind, value):
    return _greatest if kind.instance_class is Greatest else _total


@overload(finished, jit_options=SUBROUTINE)
def _finished(kind, value, q, count, divisor):
    return _mean if kind.instance_class is Mean else _same


@overload(rows_in, jit_options=SUBROUTINE)
def _rows_in(kind, workspace):
    return _greatest_in if kind.instance_class is Greatest else _sums_in


# ---- the kernels


@kernel
def mean(task, x, w, y, residual, constants, workspace, geometry):
    """One task: lines of y. constants: the divisor of each window along v; workspace: rows, or a square."""
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    _pool(task, Mean(y, constants), x, workspace, geometry, zeros(x, 1), zeros(x, WIDE), zeros(x, WIDEST))


@kernel
def greatest(task, x, w, y, residual, constants, workspace, geometry):
    """One task: lines of y. constants: the least number, which windows without elements hold; workspace: as above."""
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    values = splat(constants, 0, 1), splat(constants, 0, WIDE), splat(constants, 0, WIDEST)
    _pool(task, Greatest(y), x, workspace, geometry, *values)


@subroutine
def _pool(task, kind, x, workspace, geometry, outside, wide, widest):
    """outside, wide, widest: what counts as nothing, in one register and in several."""
    always_inlined()
    g, v = header(geometry), along_of(geometry)
    group, part = divmod(task, v.parts)
    begin, end = group * g.lines_per_task, min((group + 1) * g.lines_per_task, g.lines)
    if v.kind == CHANNELS:
        first = part * v.part
        last = min(first + v.part, g.extent)
        if last - first < lanes_of_value(widest):
            _put_together(kind, x, geometry, begin, end, begin * g.width, g.width, first, last, outside, wide)
        else:
            _put_rows_together(kind, x, geometry, begin, end, begin * g.width, g.width, first, last, widest)
    elif v.kind == PAIRS and g.width < lanes_of_value(wide):
        _put_pairs_together(kind, x, geometry, begin, end, outside)
    elif v.kind == PAIRS:
        _put_pairs_together(kind, x, geometry, begin, end, wide)
    elif v.kind == PLANES:
        _put_planes_together(kind, x, workspace, geometry, begin, end, outside)
    else:
        rows = rows_in(kind, workspace)
        fill_first(workspace, 0, workspace.size, outside)
        for line in range(begin, end, v.rows):
            until = min(line + v.rows, end)
            _put_together(rows, x, geometry, line, until, v.margin, v.pitch, 0, g.extent, outside, wide)
            if v.kind == IN_LANES:
                _go_along(kind, workspace, geometry, line, until, outside)
            else:
                _go_one_by_one(kind, workspace, geometry, line, until, outside)


@subroutine
def _put_together(kind, x, geometry, begin, end, at, pitch, first, last, outside, wide):
    """y[at + i] = all rows of a line put together, for first <= i < last; the next line is `pitch` further on."""
    always_inlined()
    if last - first < lanes_of_value(wide):
        _put_rows_together(kind, x, geometry, begin, end, at, pitch, first, last, outside)
    else:
        _put_rows_together(kind, x, geometry, begin, end, at, pitch, first, last, wide)


@subroutine
def _put_rows_together(kind, x, geometry, begin, end, target_at, pitch, first, last, outside):
    """The last vector begins earlier instead of being shorter, unless it is the only one.
    """
    never_inlined()
    g, step = header(geometry), lanes_of_value(outside)
    held = min(step, last - first)
    line = line_of(g, begin)
    for _ in range(begin, end):
        rows = rows_of(g, geometry, line)
        for begin_i in range(first, last, step):
            i = max(first, min(begin_i, last - step))
            value, at, left = outside, rows.at + i, box_of(rows)
            while left.count:
                if held == step:
                    value = both(kind, value, load(x, at, outside))
                else:
                    value = both(kind, value, load_between(x, at, 0, held, outside))
                at, left = next_row(rows, at, left)
            value = finished(kind, value, i, held, rows.divisor)
            if held == step:
                store(kind.y, target_at + i, value)
            else:
                store_first(kind.y, target_at + i, held, value)
        target_at += pitch
        line = next_line(g, line)


@subroutine
def _put_pairs_together(kind, x, geometry, begin, end, outside):
    """Windows of two elements along v, next to each other."""
    never_inlined()
    g, step = header(geometry), lanes_of_value(outside)
    held = min(step, g.width)
    line = line_of(g, begin)
    for number in range(begin, end):
        rows = rows_of(g, geometry, line)
        for begin_q in range(0, g.width, step):
            q = max(0, min(begin_q, g.width - step))
            left, right, at, left_rows = outside, outside, rows.at + 2 * q, box_of(rows)
            while left_rows.count:
                if held == step:
                    left, right = both(kind, left, load(x, at, outside)), both(kind, right, load(x, at + step, outside))
                else:
                    left = both(kind, left, load_between(x, at, 0, 2 * held, outside))
                    right = both(kind, right, load_between(x, at + step, 0, 2 * held - step, outside))
                at, left_rows = next_row(rows, at, left_rows)
            value = both(kind, every_second(left, right, 0), every_second(left, right, 1))
            value = finished(kind, value, q, held, rows.divisor)
            if held == step:
                store(kind.y, number * g.width + q, value)
            else:
                store_first(kind.y, number * g.width + q, held, value)
        line = next_line(g, line)


@subroutine
def _go_along(kind, row, geometry, begin, end, outside):
    """Windows in lanes."""
    never_inlined()
    g, v, step = header(geometry), along_of(geometry), lanes_of_value(outside)
    line = line_of(g, begin)
    for number in range(end - begin):
        divisor, y_at = rows_of(g, geometry, line).divisor, (begin + number) * g.width
        for q in range(0, g.width, step):
            at = number * v.pitch + v.margin + q * g.stride - g.low
            value = outside
            if g.stride == 1:
                for r in range(g.taps):
                    value = both(kind, value, load(row, at + r * g.dilation, outside))
            elif g.stride == 2:
                for r in range(0, v.paired, 2):
                    left, right = load(row, at + r, outside), load(row, at + r + step, outside)
                    value = both(kind, value, every_second(left, right, 0))
                    value = both(kind, value, every_second(left, right, 1))
                for r in range(v.paired, g.taps):
                    left = load(row, at + r * g.dilation, outside)
                    right = load(row, at + r * g.dilation + step, outside)
                    value = both(kind, value, every_second(left, right, 0))
            else:
                for r in range(g.taps):
                    value = both(kind, value, load_apart(row, at + r * g.dilation, g.stride, 0, step, outside))
            held = min(step, g.width - q)
            store_first(kind.y, y_at + q, held, finished(kind, value, q, held, divisor))
        line = next_line(g, line)


@subroutine
def _go_one_by_one(kind, row, geometry, begin, end, outside):
    """Windows one after the other."""
    never_inlined()
    g, v, step = header(geometry), along_of(geometry), lanes_of_value(outside)
    line = line_of(g, begin)
    for number in range(end - begin):
        divisor, y_at = rows_of(g, geometry, line).divisor, (begin + number) * g.width
        for q in range(g.width):
            segment, value = segment_of(g, geometry, q), outside
            at = number * v.pitch + v.margin + segment.at
            for piece in range(segment.pieces):
                for i in range(0, segment.length, step):
                    seen = load_between(row, at + piece * segment.step + i, 0, segment.length - i, outside)
                    value = both(kind, value, seen)
            whole = everywhere(outside, together(kind, value))
            store_first(kind.y, y_at + q, 1, finished(kind, whole, q, 1, divisor))
        line = next_line(g, line)


@subroutine
def _put_planes_together(kind, x, square, geometry, begin, end, outside):
    """The windows of lines that are a plane each, as many at once as there are lanes."""
    never_inlined()
    g, step = header(geometry), lanes_of_value(outside)
    whole = g.extent // step * step
    for line in range(begin, end, step):
        held = min(step, end - line)
        for number in range(held):
            at, value = (line + number) * g.extent, outside
            for i in range(0, whole, step):
                value = both(kind, value, load(x, at + i, outside))
            if whole < g.extent:
                value = both(kind, value, load_between(x, at + whole, 0, g.extent - whole, outside))
            store(square, number * step, value)
        store_first(kind.y, line, held, finished(kind, _lanes_together(kind, square, outside), 0, step, 1))


@subroutine
def _lanes_together(kind, square, outside):
    """The lanes of each row of a square put together, a lane for each row.

    Neighbouring lanes of two rows make one row, again and again, until a single one is left.
    """
    step = lanes_of_value(outside)
    rows = step
    while rows > 1:
        rows //= 2
        for row in range(rows):
            first, second = load(square, 2 * row * step, outside), load(square, (2 * row + 1) * step, outside)
            halves = every_second(first, second, 0), every_second(first, second, 1)
            store(square, row * step, both(kind, halves[0], halves[1]))
    return load(square, 0, outside)


# ---- the numbers


def launch_numbers(shape: Shape, constants: int) -> tuple[Integers, int, int]:
    """The geometry vector, the tasks, and the elements of the workspace."""
    v, size, kind = shape.v, np.dtype(shape.dtype).itemsize, _kind(shape)
    in_register = REGISTER_BYTES // size
    of_task = lines_of_task(shape.lines, shape.bytes)
    parts, part, rows, margin, pitch, workspace = 1, v.input, 1, 0, 0, 0
    if kind == CHANNELS and of_task == 1:
        part = _part(shape, in_register * WIDEST)
        parts = -(-v.input // part)
    elif kind == PLANES:
        of_task = -(-of_task // in_register) * in_register
        workspace = in_register * in_register
    elif kind in (IN_LANES, ONE_BY_ONE):
        margin = v.low
        reach = (-(-v.output // in_register) * in_register - 1) * v.stride + (v.size - 1) * v.dilation + 2 * in_register
        pitch = margin + max(reach - v.low, v.input) + in_register
        rows = max(1, min(of_task, ROWS_BYTES // (pitch * size)))
        workspace = rows * pitch
    paired = v.size // 2 * 2 if v.dilation == 1 else 0
    along = Along(kind, parts, part, rows, margin, pitch, paired)
    geometry = geometry_of(shape, of_task, along, constants, workspace)
    return geometry, -(-shape.lines // of_task) * parts, workspace


def _part(shape: Shape, multiple: int) -> int:
    """Elements of a part of a line, a multiple of vectors, of lines of which each is a task."""
    bytes = shape.bytes / max(1, shape.lines)
    parts = max(1, round(bytes / LEAST_TASK_BYTES))
    return max(1, -(-shape.v.input // (parts * multiple))) * multiple


def _kind(shape: Shape) -> int:
    v = shape.v
    if shape.index_steps[3] == 0:
        return CHANNELS
    if covers(v) and all(map(_is_idle, shape.boxes)):
        return PLANES
    if v.size == v.stride == 2 and v.dilation == 1 and v.low == 0 and 2 * v.output <= v.input:
        return PAIRS
    return IN_LANES if not v.is_adaptive and _is_faster_in_lanes(v, shape.dtype) else ONE_BY_ONE


def _is_idle(axis: PoolAxis) -> bool:
    return axis.input == axis.output == int(axis.divisors[0]) == int(axis.count[0]) == 1


def divisors_of(shape: Shape) -> Array:
    """The divisor of each window along v, or of each plane of a vector."""
    divisors = shape.v.divisors.astype(shape.dtype)
    return np.resize(divisors, REGISTER_BYTES // divisors.itemsize) if _kind(shape) == PLANES else divisors


def _is_faster_in_lanes(axis: PoolAxis, dtype: str) -> bool:
    lanes = REGISTER_BYTES // np.dtype(dtype).itemsize
    in_lanes = math.ceil(axis.output / lanes) * axis.size * (1 if axis.stride < 3 else APART)
    pieces = axis.size if axis.dilation > 1 else math.ceil(axis.size / lanes)
    return in_lanes < axis.output * (pieces + LANES_TOGETHER)
