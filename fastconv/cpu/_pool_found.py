"""The greatest of windows and its index: every element of every window in its order, with its place.

Along v windows are computed in one of two ways:

- in lanes: a vector of outputs at once. Their elements follow each other a stride apart, and are loaded for one tap r
  after the other. For the channels of channels_last there is a single tap;
- one by one: the elements of a window are loaded as vectors. So go adaptive windows, and wide ones where there are few.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import types

from ..core.jit import kernel, subroutine
from ..core.pool_problem import PoolAxis
from ._geometry import Integers
from ._kernel import integers, integers_at, never_inlined, views
from ._pool_lines import (
    HEADER,
    Shape,
    geometry_of,
    header,
    line_of,
    lines_of_task,
    next_line,
    rows_of,
    segment_of,
)
from ._pool_vectors import choose, chosen_of, load_apart, load_between, placed, places, store_first_places
from ._simd import REGISTER_BYTES, every_second, lanes_of_value, load, load_first, splat, store_first

# Registers of outputs that are computed at once where there are as many.
WIDE = 4
# Time of putting the lanes of a window together, of an element of windows at a border, and of gathering elements that
# are more than two apart, in vectors loaded and compared one by one, each of 2 ns: fitted to windows of 3 to 64
# elements, of which 1 to 15 stand in a row.
LANES_TOGETHER = 12
BORDER = 3
APART = 6


class Along(NamedTuple):
    """The numbers that follow the header."""

    borders_in_lanes: int
    begin: int  # windows in lanes that are whole, and enough to fill vectors
    end: int
    paired: int  # taps of which every two neighbours are loaded together where the stride is 2


ALONG = len(Along._fields)


@subroutine
def along_of(geometry):
    return Along(*integers_at(geometry, HEADER, ALONG))


class Found(NamedTuple):
    """What is written: the greatest, and its index in a plane of x."""

    y: types.Array
    indices: types.Array


@kernel
def greatest_with_indices(task, x, w, y, residual, constants, workspace, geometry):
    """One task: lines of y, and in w, as integers of 64 bits, of indices. constants: the least number.

    In passes over all windows of its lines: each has few values to keep.
    """
    tensors = views(x, w, y, residual, constants, workspace, geometry)
    indices = integers(w, tensors[2].size)
    x, _, y, residual, constants, workspace, geometry = tensors
    target, outside, wide = Found(y, indices), splat(constants, 0, 1), splat(constants, 0, WIDE)
    g, v = header(geometry), along_of(geometry)
    line = task * g.lines_per_task
    if v.end - v.begin >= lanes_of_value(wide):
        _inner_windows(target, x, geometry, line, wide)
    elif v.begin < v.end:
        _inner_windows(target, x, geometry, line, outside)
    if v.borders_in_lanes:
        _border_windows(target, x, geometry, line, 0, v.begin, outside)
        _border_windows(target, x, geometry, line, v.end, g.width, outside)
    elif v.end - v.begin < g.width:
        _segments(target, x, geometry, line, outside)


@subroutine
def _inner_windows(target, x, geometry, first_line, outside):
    """Whole windows, as many as fill vectors; the last vector begins earlier instead of being shorter."""
    never_inlined()
    g, v, step = header(geometry), along_of(geometry), lanes_of_value(outside)
    line = line_of(g, first_line)
    for number in range(first_line, min(first_line + g.lines_per_task, g.lines)):
        rows, y_at = rows_of(g, geometry, line), number * g.width
        for begin in range(v.begin, v.end, step):
            q = min(begin, v.end - step)
            first = q * g.stride - g.low
            apart = g.stride * g.index_v
            best, place = outside, places(outside, rows.place + first * g.index_v, apart)
            for a in range(rows.count_a):
                for b in range(rows.count_b):
                    for c in range(rows.count_c):
                        at = rows.at + a * rows.step_a + b * rows.step_b + c * rows.step_c + first
                        index = rows.place + a * rows.index_a + b * rows.index_b + c * rows.index_c + first * g.index_v
                        if g.stride == 1:
                            for r in range(g.taps):
                                far = r * g.dilation
                                seen = load(x, at + far, outside)
                                best, place = choose(best, place, seen, places(seen, index + far * g.index_v, apart))
                        elif g.stride == 2:
                            for r in range(0, v.paired, 2):
                                left, right = load(x, at + r, outside), load(x, at + r + step, outside)
                                index_r = index + r * g.index_v
                                seen = every_second(left, right, 0)
                                best, place = choose(best, place, seen, places(seen, index_r, apart))
                                seen = every_second(left, right, 1)
                                best, place = choose(best, place, seen, places(seen, index_r + g.index_v, apart))
                            for r in range(v.paired, g.taps):
                                far = r * g.dilation
                                left = load(x, at + far, outside)
                                right = load_first(x, at + far + step, step - 1, outside)
                                seen = every_second(left, right, 0)
                                best, place = choose(best, place, seen, places(seen, index + far * g.index_v, apart))
                        else:
                            for r in range(g.taps):
                                far = r * g.dilation
                                seen = load_apart(x, at + far, g.stride, 0, step, outside)
                                best, place = choose(best, place, seen, places(seen, index + far * g.index_v, apart))
            _write(target, y_at + q, step, best, place)
        line = next_line(g, line)


@subroutine
def _write(target, at, count, best, place):
    """The first `count` lanes, from y[at] on."""
    store_first(target.y, at, count, best)
    store_first_places(target.indices, at, count, place)


@subroutine
def _border_windows(target, x, geometry, first_line, begin, end, outside):
    """Windows that hang over the ends of their rows, or too few to fill a vector."""
    never_inlined()
    g, step = header(geometry), lanes_of_value(outside)
    line = line_of(g, first_line)
    for number in range(first_line, min(first_line + g.lines_per_task, g.lines)):
        rows, y_at = rows_of(g, geometry, line), number * g.width
        for q in range(begin, end, step):
            first = q * g.stride - g.low
            best, place = outside, placed(outside, geometry, g.table_v + q, g.index_v, rows.place)
            for a in range(rows.count_a):
                for b in range(rows.count_b):
                    for c in range(rows.count_c):
                        at = rows.at + a * rows.step_a + b * rows.step_b + c * rows.step_c
                        index = rows.place + a * rows.index_a + b * rows.index_b + c * rows.index_c
                        for r in range(g.taps):
                            far = first + r * g.dilation
                            if g.stride == 1:
                                seen = load_between(x, at + far, -far, g.extent - far, outside)
                            elif g.stride == 2:
                                left = load_between(x, at + far, -far, g.extent - far, outside)
                                right = load_between(x, at + far + step, -far - step, g.extent - far - step, outside)
                                seen = every_second(left, right, 0)
                            else:
                                inside = -(far // g.stride), -((far - g.extent) // g.stride)
                                seen = load_apart(x, at + far, g.stride, inside[0], inside[1], outside)
                            seen_at = places(seen, index + far * g.index_v, g.stride * g.index_v)
                            best, place = choose(best, place, seen, seen_at)
            _write(target, y_at + q, min(step, end - q), best, place)
        line = next_line(g, line)


@subroutine
def _segments(target, x, geometry, first_line, outside):
    """Windows before the whole ones and after them, one by one; their elements are loaded as vectors."""
    never_inlined()
    g, v, step = header(geometry), along_of(geometry), lanes_of_value(outside)
    line = line_of(g, first_line)
    for number in range(first_line, min(first_line + g.lines_per_task, g.lines)):
        rows, y_at = rows_of(g, geometry, line), number * g.width
        for other in range(v.begin + g.width - v.end):
            q = other if other < v.begin else other - v.begin + v.end
            segment = segment_of(g, geometry, q)
            first = rows.place + segment.at * g.index_v
            best, place = outside, places(outside, first, g.index_v)
            for a in range(rows.count_a):
                for b in range(rows.count_b):
                    for c in range(rows.count_c):
                        at = rows.at + a * rows.step_a + b * rows.step_b + c * rows.step_c + segment.at
                        index = first + a * rows.index_a + b * rows.index_b + c * rows.index_c
                        for piece in range(segment.pieces):
                            for i in range(0, segment.length, step):
                                far = piece * segment.step + i
                                seen = load_between(x, at + far, 0, segment.length - i, outside)
                                seen_at = places(seen, index + far * g.index_v, g.index_v)
                                best, place = choose(best, place, seen, seen_at)
            target.y[y_at + q], target.indices[y_at + q] = chosen_of(best, place)
        line = next_line(g, line)


# ---- the numbers


def launch_numbers(shape: Shape) -> tuple[Integers, int]:
    """The geometry vector, and the tasks."""
    v, of_task = shape.v, lines_of_task(shape.lines, shape.bytes)
    along = _along(v, shape.dtype)
    return geometry_of(shape, of_task, along, 1, 0, indices=True), -(-shape.lines // of_task)


def _along(axis: PoolAxis, dtype: str) -> Along:
    """In lanes go windows that hang over neither end, if they fill a vector, and the others where that is faster."""
    lanes = REGISTER_BYTES // np.dtype(dtype).itemsize
    if axis.is_adaptive:
        return Along(0, 0, 0, 0)
    reach = axis.dilation * (axis.size - 1) + 1
    begin = -(-axis.low // axis.stride)
    end = min(axis.output, (axis.input - reach + axis.low) // axis.stride + 1)
    if end - begin < lanes:
        begin = end = axis.output
    vectors = math.ceil(begin / lanes) + math.ceil((axis.output - end) / lanes)
    pieces = axis.size if axis.dilation > 1 else math.ceil(axis.size / lanes)
    one_by_one = (begin + axis.output - end) * (pieces + LANES_TOGETHER)
    in_lanes = vectors * axis.size * (BORDER if axis.stride < 3 else APART) < one_by_one
    return Along(int(in_lanes), begin, end, axis.size // 2 * 2 if axis.dilation == 1 else 0)
