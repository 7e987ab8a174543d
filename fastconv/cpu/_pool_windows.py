"""The greatest and the mean of windows: the rows of a box are put together first, then what that gives along v.

For a line of the output, and with + for what is done to the elements of a window::

    row[i] = x[row 0, i] + x[row 1, i] + ...
    y[q] = row[q * stride - low] + row[q * stride + dilation - low] + ...

A row stands in the workspace, with what counts as nothing on both sides, so that there are no borders. Along v, outputs
are computed in one of three ways:

- there is nothing to do for the channels of channels_last: y is the row. Where there are few lines, they are cut;
- in lanes: a vector of outputs at once, tap by tap;
- one by one: the elements of a window are loaded as vectors. So go adaptive windows, and wide ones where there are few.

For windows of two elements along v, next to each other, all rows but one are put together first. Windows that hold all
of a plane need no row: what as many planes as a vector has lanes give, a vector each, is a square, of which one vector
of outputs is made.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import types
from numba.extending import intrinsic, overload

from ..core.arrays import Array
from ..core.jit import SUBROUTINE, kernel, subroutine
from ..core.machine import local_machine
from ..core.pool_problem import PoolAxis
from ._geometry import Integers
from ._kernel import always_inlined, integers_at, never_inlined, views
from ._past_caches import caches_passed, elements_to_register, goes_past_caches, store_left
from ._pool_lines import (
    HEADER,
    LEAST_TASK_BYTES,
    TASKS_PER_THREAD,
    Shape,
    box_of,
    covers,
    geometry_of,
    header,
    is_idle,
    line_of,
    lines_of_task,
    next_line,
    next_row,
    rows_of,
    segment_of,
)
from ._pool_vectors import everywhere, greater_lanes, halves, load_apart, load_held, store_held
from ._rows import copy, fill_first
from ._simd import (
    REGISTER_BYTES,
    Emitter,
    every_second,
    lanes,
    lanes_of_value,
    load,
    prefetch,
    splat,
    store,
)

# Registers of a row that are put together at once where there are as many; and those of channels, whose rows lie far
# apart, so that longer runs are read of each: the mean of 7x7 of 8x2048 channels took 50 us with 16 of them on one
# thread, and 100 us with 4.
WIDE = 4
WIDEST = 16
# Bytes of the rows that are put together before anything is done along them; they stay in the first-level cache.
ROWS_BYTES = 1 << 13
# Time of putting the lanes of a window together, and of gathering a vector of elements that are more than two apart,
# in vectors that are loaded and put together one by one, each of 1.35 ns: fitted to windows of 16 to 256 elements, of
# which 4 to 17 stand in a row.
LANES_TOGETHER = 4
APART = 4

# Bytes of x from which on it is fetched beforehand, if more rows are read at once than the processor fetches by itself,
# and by how many elements. On two threads the mean of 2x2x2 of 8x64x16x56x56 took 5.4 ms without and 3.3 so, the
# maximum of 3x3 of 8x64x112x112 1.8 and 1.3; but that of 2x2 of 64x224x224, of two rows, 0.29 and 0.35.
FAR_BYTES = 8 << 20
NEAR_ROWS = 2
AHEAD = 4096

# What is done along v: nothing, windows in lanes, one by one, or all of a plane.
CHANNELS, PAIRS, IN_LANES, ONE_BY_ONE, PLANES = range(5)


class Along(NamedTuple):
    """The numbers that follow the header."""

    kind: int
    parts: int  # that lines are cut into
    part: int  # elements of a part
    fetched: int  # elements of x that are fetched beforehand with each line of y
    rows: int  # of the workspace
    margin: int  # elements before those of a row
    pitch: int  # from one row to the next
    paired: int  # taps of which every two neighbours are loaded together where the stride is 2


ALONG = len(Along._fields)


@subroutine
def along_of(geometry):
    return Along(*integers_at(geometry, HEADER, ALONG))


class Mean(NamedTuple):
    """Elements are summed, and sums divided."""

    divisors: types.Array  # of each window along v


class Greatest(NamedTuple):
    """The greatest element."""

    constants: types.Array


# ---- what the kinds do


@intrinsic
def both(typing_context, kind, first, second):
    """Elements of windows put together, lane by lane."""

    def codegen(context, builder, signature, arguments):
        emitter = Emitter(builder, first.dtype, first.vectors)
        if kind.instance_class is Greatest:
            return greater_lanes(builder, first.dtype, *arguments[1:])
        return emitter.pack(emitter.add(*map(emitter.unpack, arguments[1:])))

    return first(kind, first, first), codegen


def finished(kind, value, q, count, divisor):
    """What is written of the first `count` lanes, of which the first belongs to window q along v.

    A divisor of 0 stands for what goes on to be put together.
    """


def _mean(kind, value, q, count, divisor):
    if divisor == 0:
        return value
    return value / (everywhere(value, divisor) * load_held(kind.divisors, q, count, value))


def _same(kind, value, q, count, divisor):
    return value


@overload(finished, jit_options=SUBROUTINE)
def _finished(kind, value, q, count, divisor):
    return _mean if kind.instance_class is Mean else _same


# ---- the kernels
#
# One for each way, so that a call compiles no other. constants: the divisor of each window along v, for a mean, and
# last what counts as nothing.


@kernel
def mean_of_channels(task, x, w, y, residual, constants, workspace, geometry):
    """One task: lines of y, or a part of one."""
    tensors = views(x, w, y, residual, constants, workspace, geometry)
    _pool_channels(task, Mean(tensors[4]), tensors)


@kernel
def greatest_of_channels(task, x, w, y, residual, constants, workspace, geometry):
    """One task: lines of y, or a part of one."""
    tensors = views(x, w, y, residual, constants, workspace, geometry)
    _pool_channels(task, Greatest(tensors[4]), tensors)


@kernel
def mean_of_pairs(task, x, w, y, residual, constants, workspace, geometry):
    """One task: lines of y. workspace: a row."""
    tensors = views(x, w, y, residual, constants, workspace, geometry)
    _pool_pairs(task, Mean(tensors[4]), tensors)


@kernel
def greatest_of_pairs(task, x, w, y, residual, constants, workspace, geometry):
    """One task: lines of y. workspace: a row."""
    tensors = views(x, w, y, residual, constants, workspace, geometry)
    _pool_pairs(task, Greatest(tensors[4]), tensors)


@kernel
def mean_of_planes(task, x, w, y, residual, constants, workspace, geometry):
    """One task: elements of y, each of a plane. workspace: a square."""
    tensors = views(x, w, y, residual, constants, workspace, geometry)
    _pool_planes(task, Mean(tensors[4]), tensors)


@kernel
def greatest_of_planes(task, x, w, y, residual, constants, workspace, geometry):
    """One task: elements of y, each of a plane. workspace: a square."""
    tensors = views(x, w, y, residual, constants, workspace, geometry)
    _pool_planes(task, Greatest(tensors[4]), tensors)


@kernel
def mean_of_rows(task, x, w, y, residual, constants, workspace, geometry):
    """One task: lines of y. workspace: rows."""
    tensors = views(x, w, y, residual, constants, workspace, geometry)
    _pool_rows(task, Mean(tensors[4]), tensors)


@kernel
def greatest_of_rows(task, x, w, y, residual, constants, workspace, geometry):
    """One task: lines of y. workspace: rows."""
    tensors = views(x, w, y, residual, constants, workspace, geometry)
    _pool_rows(task, Greatest(tensors[4]), tensors)


@subroutine
def _pool_channels(task, kind, tensors):
    """Where many channels are a multiple of a register, all registers but the first ones begin where theirs do in x.

    The mean of 7x7 of 8x2048 channels in memory that begins 16 bytes behind a cache line took 55 us, and 52 so.
    """
    always_inlined()
    x, _, y, _, constants, _, geometry = tensors
    g, v, last = header(geometry), along_of(geometry), constants.size - 1
    nothing, wide, widest = splat(constants, last, 1), splat(constants, last, WIDE), splat(constants, last, WIDEST)
    group, part = divmod(task, v.parts)
    begin, end = group * g.lines_per_task, min((group + 1) * g.lines_per_task, g.lines)
    ahead = 0
    if v.part >= lanes_of_value(widest) and g.extent % lanes_of_value(nothing) == 0:
        ahead = elements_to_register(x, 0)
    first = part * v.part + ahead
    until = g.extent if part + 1 == v.parts else first + v.part
    y_at = begin * g.width
    if part == 0 and ahead > 0:
        _put_rows_together(kind, None, x, y, geometry, begin, end, y_at, g.width, 0, ahead, nothing)
    if until - first < lanes_of_value(wide):
        _put_rows_together(kind, None, x, y, geometry, begin, end, y_at, g.width, first, until, nothing)
    elif until - first < lanes_of_value(widest):
        _put_rows_together(kind, None, x, y, geometry, begin, end, y_at, g.width, first, until, wide)
    else:
        _put_rows_together(kind, None, x, y, geometry, begin, end, y_at, g.width, first, until, widest)


@subroutine
def _pool_pairs(task, kind, tensors):
    always_inlined()
    x, _, y, _, constants, row, geometry = tensors
    g, nothing, wide = (
        header(geometry),
        splat(constants, constants.size - 1, 1),
        splat(constants, constants.size - 1, WIDE),
    )
    begin, end = task * g.lines_per_task, min((task + 1) * g.lines_per_task, g.lines)
    fetched = along_of(geometry).fetched
    if fetched:
        _put_pairs_together(kind, fetched, x, y, row, geometry, begin, end, nothing, wide)
    else:
        _put_pairs_together(kind, None, x, y, row, geometry, begin, end, nothing, wide)


@subroutine
def _pool_planes(task, kind, tensors):
    always_inlined()
    x, _, y, _, constants, square, geometry = tensors
    g, nothing = header(geometry), splat(constants, constants.size - 1, 1)
    begin, end = task * g.lines_per_task, min((task + 1) * g.lines_per_task, g.lines)
    _put_planes_together(kind, x, y, square, geometry, begin, end, nothing)


@subroutine
def _pool_rows(task, kind, tensors):
    always_inlined()
    x, _, y, _, constants, rows, geometry = tensors
    g, v = header(geometry), along_of(geometry)
    nothing, wide = splat(constants, constants.size - 1, 1), splat(constants, constants.size - 1, WIDE)
    fill_first(rows, 0, rows.size, nothing)
    end = min((task + 1) * g.lines_per_task, g.lines)
    for begin in range(task * g.lines_per_task, end, v.rows):
        until = min(begin + v.rows, end)
        if g.extent < lanes_of_value(wide):
            _put_rows_together(kind, None, x, rows, geometry, begin, until, v.margin, v.pitch, 0, g.extent, nothing)
        elif v.fetched:
            _put_rows_together(kind, v.fetched, x, rows, geometry, begin, until, v.margin, v.pitch, 0, g.extent, wide)
        else:
            _put_rows_together(kind, None, x, rows, geometry, begin, until, v.margin, v.pitch, 0, g.extent, wide)
        if v.kind == IN_LANES:
            _go_along(kind, rows, y, geometry, begin, until, nothing)
        else:
            _go_one_by_one(kind, rows, y, geometry, begin, until, nothing)


@subroutine
def _put_rows_together(kind, fetched, x, target, geometry, begin, end, target_at, pitch, first, last, outside):
    """target[i] = all rows of a line put together, for first <= i < last; the next line is `pitch` further on.

    fetched: as in `Along`, or None, for which nothing is compiled: where the loop held a call that was never made, the
    mean of 2x2 of 64x224x224, channels_last, took 0.31 ms in place of 0.27.

    The last vector begins earlier instead of being shorter, unless it is the only one. Three rows, which many windows
    have, go without a loop: the maximum of 3x3 of 64x112x112 took 170 us on one thread with it, and 154 so.
    """
    never_inlined()
    g, step, is_last = header(geometry), lanes_of_value(outside), along_of(geometry).kind == CHANNELS
    held = min(step, last - first)
    past_caches = is_last and held == step and goes_past_caches(target, target_at + first, pitch)
    past_caches = past_caches and (last - first) % lanes(target) == 0
    line = line_of(g, begin)
    for number in range(begin, end):
        rows = rows_of(g, geometry, line)
        if fetched is not None:
            _fetch(x, number, fetched)
        for begin_i in range(first, last, step):
            i = max(first, min(begin_i, last - step))
            value, at, left = outside, rows.at + i, box_of(rows)
            if left.rows == 3 and rows.count_c == 3:
                value = both(kind, load_held(x, at, held, outside), load_held(x, at + rows.step_c, held, outside))
                value = both(kind, value, load_held(x, at + 2 * rows.step_c, held, outside))
            else:
                while left.rows:
                    value = both(kind, value, load_held(x, at, held, outside))
                    at, left = next_row(rows, at, left)
            value = finished(kind, value, i, held, rows.divisor * is_last)
            store_left(target, target_at + i, held, value, past_caches)
        target_at += pitch
        line = next_line(g, line)
    if past_caches:
        caches_passed()


@subroutine
def _fetch(x, line, fetched):
    """Begin to fetch what lies AHEAD of what a line of y is made of."""
    always_inlined()
    for i in range(line * fetched + AHEAD, (line + 1) * fetched + AHEAD, lanes(x)):
        prefetch(x, i)


@subroutine
def _put_pairs_together(kind, fetched, x, y, row, geometry, begin, end, outside, wide):
    """Windows of two elements along v, next to each other. The last row of a line is put to the others on the way."""
    never_inlined()
    g, step = header(geometry), lanes_of_value(outside)
    held, past_caches = min(step, g.width), goes_past_caches(y, 0, g.width)
    line = line_of(g, begin)
    for number in range(begin, end):
        rows = rows_of(g, geometry, line)
        if fetched is not None:
            _fetch(x, number, fetched)
        at = _put_rows_but_last(kind, x, rows, row, 2 * g.width, outside, wide)
        for begin_q in range(0, g.width, step):
            q = max(0, min(begin_q, g.width - step))
            first = load_held(x, at + 2 * q, 2 * held, outside)
            second = load_held(x, at + 2 * q + step, 2 * held - step, outside)
            first = both(kind, load(row, 2 * q, outside), first)
            second = both(kind, load(row, 2 * q + step, outside), second)
            value = both(kind, every_second(first, second, 0), every_second(first, second, 1))
            store_left(y, number * g.width + q, held, finished(kind, value, q, held, rows.divisor), past_caches)
        line = next_line(g, line)
    if past_caches:
        caches_passed()


@subroutine
def _put_rows_but_last(kind, x, rows, target, count, outside, wide):
    """target[i] = the rows of a line put together, but for the last one; gives where that is.

    One row after the other, so that x is read in its order: the mean of 2x2 of 8x64x224x224 took 7.9 ms on one thread
    where the rows took turns every 64 elements, and 5.4 so; to read x alone took 4.5.
    """
    always_inlined()
    at, left = rows.at, box_of(rows)
    if left.rows == 1:
        fill_first(target, 0, count, outside)
    else:
        copy(target, 0, x, at, count)
        at, left = next_row(rows, at, left)
    while left.rows > 1:
        _put_row_to(kind, x, at, target, count, outside, wide)
        at, left = next_row(rows, at, left)
    return at


@subroutine
def _put_row_to(kind, x, at, target, count, outside, wide):
    """Put the elements of a row to those of the target."""
    i, step = 0, lanes_of_value(outside)
    while i + lanes_of_value(wide) <= count:
        store(target, i, both(kind, load(target, i, wide), load(x, at + i, wide)))
        i += lanes_of_value(wide)
    while i < count:
        store(target, i, both(kind, load(target, i, outside), load_held(x, at + i, count - i, outside)))
        i += step


@subroutine
def _go_along(kind, row, y, geometry, begin, end, outside):
    """Windows in lanes. Those of three elements that are two apart go without a loop, as three rows do."""
    never_inlined()
    g, v, step = header(geometry), along_of(geometry), lanes_of_value(outside)
    held, past_caches = min(step, g.width), goes_past_caches(y, 0, g.width)
    line = line_of(g, begin)
    for number in range(end - begin):
        divisor, y_at = rows_of(g, geometry, line).divisor, (begin + number) * g.width
        for begin_q in range(0, g.width, step):
            q = max(0, min(begin_q, g.width - step))
            at = number * v.pitch + v.margin + q * g.stride - g.low
            value = outside
            if g.stride == 1:
                for r in range(g.taps):
                    value = both(kind, value, load(row, at + r * g.dilation, outside))
            elif g.stride == 2 and v.paired == 2 and g.taps == 3:
                left, right = load(row, at, outside), load(row, at + step, outside)
                value = both(kind, every_second(left, right, 0), every_second(left, right, 1))
                left, right = load(row, at + 2, outside), load(row, at + 2 + step, outside)
                value = both(kind, value, every_second(left, right, 0))
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
            store_left(y, y_at + q, held, finished(kind, value, q, held, divisor), past_caches)
        line = next_line(g, line)
    if past_caches:
        caches_passed()


@subroutine
def _go_one_by_one(kind, row, y, geometry, begin, end, outside):
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
                    seen = load_held(row, at + piece * segment.step + i, segment.length - i, outside)
                    value = both(kind, value, seen)
            store_held(y, y_at + q, 1, finished(kind, _lanes_together(kind, value), q, 1, divisor))
        line = next_line(g, line)


@intrinsic
def _lanes_together(typing_context, kind, value):
    """All lanes put together, in the first one and in others."""

    def codegen(context, builder, signature, arguments):
        emitter, found = Emitter(builder, value.dtype, value.vectors), arguments[1]
        for order in halves(emitter.lanes):
            turned = emitter.shuffle(found, found, order)
            if kind.instance_class is Greatest:
                found = greater_lanes(builder, value.dtype, found, turned)
            else:
                (found,) = emitter.add((found,), (turned,))
        return found

    return value(kind, value), codegen


@subroutine
def _put_planes_together(kind, x, y, square, geometry, begin, end, outside):
    """The windows of lines that are a plane each, as many at once as there are lanes.

    What the planes give stands in the rows of a square. Neighbouring lanes of two rows make one row, again and again,
    until a single one is left, with a lane for each plane.
    """
    never_inlined()
    g, step = header(geometry), lanes_of_value(outside)
    whole = g.extent // step * step
    for line in range(begin, end, step):
        planes = min(step, end - line)
        for number in range(planes):
            at = (line + number) * g.extent
            value = load_held(x, at + whole, g.extent - whole, outside)
            for i in range(0, whole, step):
                value = both(kind, value, load(x, at + i, outside))
            store(square, number * step, value)
        rows = step
        while rows > 1:
            rows //= 2
            for row in range(rows):
                first, second = load(square, 2 * row * step, outside), load(square, (2 * row + 1) * step, outside)
                value = both(kind, every_second(first, second, 0), every_second(first, second, 1))
                store(square, row * step, value)
        store_held(y, line, planes, finished(kind, load(square, 0, outside), 0, step, 1))


# ---- the numbers


MEAN = {
    CHANNELS: mean_of_channels,
    PAIRS: mean_of_pairs,
    PLANES: mean_of_planes,
    IN_LANES: mean_of_rows,
    ONE_BY_ONE: mean_of_rows,
}
GREATEST = {
    CHANNELS: greatest_of_channels,
    PAIRS: greatest_of_pairs,
    PLANES: greatest_of_planes,
    IN_LANES: greatest_of_rows,
    ONE_BY_ONE: greatest_of_rows,
}


def launch_numbers(shape: Shape, constants: int) -> tuple[Integers, int, int]:
    """The geometry vector, the tasks, and the elements of the workspace."""
    v, size, kind = shape.v, np.dtype(shape.dtype).itemsize, kind_of(shape)
    in_register = REGISTER_BYTES // size
    of_task = lines_of_task(shape.lines, shape.bytes)
    parts, part, rows, margin, pitch, workspace = 1, v.input, 1, 0, 0, 0
    if kind == CHANNELS and of_task == 1:
        part = _part(shape, in_register * WIDEST)
        parts = -(-v.input // part)
    elif kind == PLANES:
        of_task = -(-of_task // in_register) * in_register
        workspace = in_register * in_register
    elif kind == PAIRS:
        workspace = _whole(2 * v.output, 2 * in_register)
    elif kind in (IN_LANES, ONE_BY_ONE):
        margin = _whole(v.low, in_register)
        reach = (-(-v.output // in_register) * in_register - 1) * v.stride + (v.size - 1) * v.dilation + 2 * in_register
        pitch = margin + _whole(max(reach - v.low, v.input), in_register) + in_register
        rows = max(1, min(of_task, ROWS_BYTES // (pitch * size)))
        workspace = rows * pitch
    paired = v.size // 2 * 2 if v.dilation == 1 else 0
    many = kind != CHANNELS and math.prod(axis.size for axis in shape.boxes) > NEAR_ROWS
    fetched = shape.x_size // shape.lines if many and shape.bytes >= FAR_BYTES else 0
    along = Along(kind, parts, part, fetched, rows, margin, pitch, paired)
    geometry = geometry_of(shape, of_task, along, constants, workspace)
    return geometry, -(-shape.lines // of_task) * parts, workspace


def _whole(elements: int, in_register: int) -> int:
    """So many elements, in whole registers."""
    return -(-elements // in_register) * in_register


def _part(shape: Shape, multiple: int) -> int:
    """Elements of a part of a line, a multiple of vectors, of lines of which each is a task.

    As few parts as there must be: x is read in longer runs.
    """
    tasks = TASKS_PER_THREAD * local_machine().threads
    parts = max(1, min(round(shape.bytes / LEAST_TASK_BYTES), tasks) // max(1, shape.lines))
    return max(1, -(-shape.v.input // (parts * multiple))) * multiple


def kind_of(shape: Shape) -> int:
    v = shape.v
    if shape.index_steps[3] == 0:
        return CHANNELS
    if covers(v) and all(map(is_idle, shape.boxes)):
        return PLANES
    is_paired = v.size == v.stride == 2 and v.dilation == 1 and v.low == 0 and 2 * v.output <= v.input
    if is_paired and all(axis.count.min() > 0 for axis in shape.boxes):
        return PAIRS
    return IN_LANES if not v.is_adaptive and _is_faster_in_lanes(v, shape.dtype) else ONE_BY_ONE


def divisors_of(shape: Shape) -> Array:
    """The divisor of each window along v, or of each plane of a vector."""
    divisors = shape.v.divisors.astype(shape.dtype)
    return np.resize(divisors, REGISTER_BYTES // divisors.itemsize) if kind_of(shape) == PLANES else divisors


def _is_faster_in_lanes(axis: PoolAxis, dtype: str) -> bool:
    lanes = REGISTER_BYTES // np.dtype(dtype).itemsize
    in_lanes = math.ceil(axis.output / lanes) * axis.size * (1 if axis.stride < 3 else APART)
    pieces = axis.size if axis.dilation > 1 else math.ceil(axis.size / lanes)
    return in_lanes < axis.output * (pieces + LANES_TOGETHER)
