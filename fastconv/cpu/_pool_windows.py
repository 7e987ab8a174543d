"""The kernels that look at every element of every window: the greatest, with or without its index, and the mean.

They differ in what becomes of the elements of a window. Each kernel has a kind, a named tuple of what it writes, and
four functions, which are chosen by that type when the code that they share is compiled. What a window has so far, its
state, is a tuple of values, each a vector of outputs.
"""

from __future__ import annotations

from typing import NamedTuple

from numba import types
from numba.extending import overload

from ..core.jit import SUBROUTINE, kernel, subroutine
from ._kernel import always_inlined, integers, never_inlined, views
from ._pool_lines import header, line_of, next_line, rows_of, segment_of
from ._pool_vectors import (
    choose,
    chosen_of,
    everywhere,
    greater,
    greatest_of,
    load_apart,
    load_between,
    placed,
    places,
    store_first_places,
)
from ._simd import every_second, lanes_of_value, load, load_first, splat, store_first, totals_of, zeros

# Registers of outputs that are computed at once where there are as many.
WIDE = 4


class Mean(NamedTuple):
    """Sums, divided."""

    y: types.Array
    divisors: types.Array  # of each window along v


class Greatest(NamedTuple):
    """The greatest."""

    y: types.Array


class Found(NamedTuple):
    """The greatest and its index."""

    y: types.Array
    indices: types.Array


# ---- what the kinds do


def start(kind, outside, place):
    """The state before the first element, whose index is `place`."""


def take(kind, state, seen, index, step):
    """The state after more elements, whose indices are index, index + step, ... lane by lane."""


def finish(kind, state, at, q, count, divisor):
    """Write what the first `count` lanes have, from y[at] on; window q along v is the first."""


def join(kind, state, at, q, divisor):
    """Put all lanes together, which are those of window q, and write y[at]."""


def _start_one(kind, outside, place):
    return (outside,)


def _start_found(kind, outside, place):
    return (outside, place)


def _take_sum(kind, state, seen, index, step):
    return (state[0] + seen,)


def _take_greater(kind, state, seen, index, step):
    return (greater(state[0], seen),)


def _take_found(kind, state, seen, index, step):
    return choose(state[0], state[1], seen, places(seen, index, step))


def _finish_mean(kind, state, at, q, count, divisor):
    divisors = everywhere(state[0], divisor) * load_first(kind.divisors, q, count, state[0])
    store_first(kind.y, at, count, state[0] / divisors)


def _finish_greatest(kind, state, at, q, count, divisor):
    store_first(kind.y, at, count, state[0])


def _finish_found(kind, state, at, q, count, divisor):
    store_first(kind.y, at, count, state[0])
    store_first_places(kind.indices, at, count, state[1])


def _join_mean(kind, state, at, q, divisor):
    kind.y[at] = totals_of(state)[0] / (divisor * kind.divisors[q])


def _join_greatest(kind, state, at, q, divisor):
    kind.y[at] = greatest_of(state[0])


def _join_found(kind, state, at, q, divisor):
    kind.y[at], kind.indices[at] = chosen_of(state[0], state[1])


@overload(start, jit_options=SUBROUTINE)
def _start(kind, outside, place):
    return {Mean: _start_one, Greatest: _start_one, Found: _start_found}[kind.instance_class]


@overload(take, jit_options=SUBROUTINE)
def _take(kind, state, seen, index, step):
    return {Mean: _take_sum, Greatest: _take_greater, Found: _take_found}[kind.instance_class]


@overload(finish, jit_options=SUBROUTINE)
def _finish(kind, state, at, q, count, divisor):
    return {Mean: _finish_mean, Greatest: _finish_greatest, Found: _finish_found}[kind.instance_class]


@overload(join, jit_options=SUBROUTINE)
def _join(kind, state, at, q, divisor):
    return {Mean: _join_mean, Greatest: _join_greatest, Found: _join_found}[kind.instance_class]


# ---- the kernels


@kernel
def mean(task, x, w, y, residual, constants, workspace, geometry):
    """One task: lines of y. constants: the divisor of each window along v."""
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    _pool(task, Mean(y, constants), x, geometry, zeros(x, 1), zeros(x, WIDE))


@kernel
def greatest(task, x, w, y, residual, constants, workspace, geometry):
    """One task: lines of y. constants: the least number, which windows without elements hold."""
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    _pool(task, Greatest(y), x, geometry, splat(constants, 0, 1), splat(constants, 0, WIDE))


@kernel
def greatest_with_indices(task, x, w, y, residual, constants, workspace, geometry):
    """`greatest`, and in w, as integers of 64 bits, its index in a plane of x."""
    tensors = views(x, w, y, residual, constants, workspace, geometry)
    indices = integers(w, tensors[2].size)
    x, _, y, residual, constants, workspace, geometry = tensors
    _pool(task, Found(y, indices), x, geometry, splat(constants, 0, 1), splat(constants, 0, WIDE))


# ---- what they share


@subroutine
def _pool(task, kind, x, geometry, outside, wide):
    """All windows of the lines of a task, in passes: each has few values to keep, and its lines stay in the cache.

    outside, wide: what counts as nothing, in one register and in several.
    """
    always_inlined()
    g = header(geometry)
    first_line = task * g.lines_per_task
    if g.end - g.begin >= lanes_of_value(wide):
        _inner_windows(kind, x, geometry, first_line, wide)
    elif g.begin < g.end:
        _inner_windows(kind, x, geometry, first_line, outside)
    if g.borders_in_lanes:
        _border_windows(kind, x, geometry, first_line, 0, g.begin, outside)
        _border_windows(kind, x, geometry, first_line, g.end, g.width, outside)
    elif g.end - g.begin < g.width:
        _segments(kind, x, geometry, first_line, outside)


@subroutine
def _inner_windows(kind, x, geometry, first_line, outside):
    """Whole windows, as many as fill vectors; the last vector begins earlier instead of being shorter."""
    never_inlined()
    g, step = header(geometry), lanes_of_value(outside)
    line = line_of(g, first_line)
    for number in range(first_line, min(first_line + g.lines_per_task, g.lines)):
        rows, y_at = rows_of(g, geometry, line), number * g.width
        for begin in range(g.begin, g.end, step):
            q = min(begin, g.end - step)
            first = q * g.stride - g.low
            state = start(kind, outside, places(outside, rows.place + first * g.index_v, g.stride * g.index_v))
            for a in range(rows.count_a):
                for b in range(rows.count_b):
                    for c in range(rows.count_c):
                        at = rows.at + a * rows.step_a + b * rows.step_b + c * rows.step_c + first
                        index = rows.place + a * rows.index_a + b * rows.index_b + c * rows.index_c + first * g.index_v
                        if g.stride == 1:
                            for r in range(g.taps):
                                far = r * g.dilation
                                state = take(
                                    kind, state, load(x, at + far, outside), index + far * g.index_v, g.index_v
                                )
                        elif g.stride == 2:
                            for r in range(0, g.paired, 2):
                                left, right = load(x, at + r, outside), load(x, at + r + step, outside)
                                index_r = index + r * g.index_v
                                state = take(kind, state, every_second(left, right, 0), index_r, 2 * g.index_v)
                                state = take(
                                    kind, state, every_second(left, right, 1), index_r + g.index_v, 2 * g.index_v
                                )
                            for r in range(g.paired, g.taps):
                                far = r * g.dilation
                                left = load(x, at + far, outside)
                                right = load_first(x, at + far + step, step - 1, outside)
                                seen = every_second(left, right, 0)
                                state = take(kind, state, seen, index + far * g.index_v, 2 * g.index_v)
                        else:
                            for r in range(g.taps):
                                far = r * g.dilation
                                seen = load_apart(x, at + far, g.stride, 0, step, outside)
                                state = take(kind, state, seen, index + far * g.index_v, g.stride * g.index_v)
            finish(kind, state, y_at + q, q, step, rows.divisor)
        line = next_line(g, line)


@subroutine
def _border_windows(kind, x, geometry, first_line, begin, end, outside):
    """Windows that hang over the ends of their rows, or too few to fill a vector."""
    never_inlined()
    g, step = header(geometry), lanes_of_value(outside)
    line = line_of(g, first_line)
    for number in range(first_line, min(first_line + g.lines_per_task, g.lines)):
        rows, y_at = rows_of(g, geometry, line), number * g.width
        for q in range(begin, end, step):
            first = q * g.stride - g.low
            state = start(kind, outside, placed(outside, geometry, g.table_v + q, g.index_v, rows.place))
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
                            state = take(kind, state, seen, index + far * g.index_v, g.stride * g.index_v)
            finish(kind, state, y_at + q, q, min(step, end - q), rows.divisor)
        line = next_line(g, line)


@subroutine
def _segments(kind, x, geometry, first_line, outside):
    """Windows before the whole ones and after them, one by one; their elements are loaded as vectors."""
    never_inlined()
    g, step = header(geometry), lanes_of_value(outside)
    line = line_of(g, first_line)
    for number in range(first_line, min(first_line + g.lines_per_task, g.lines)):
        rows, y_at = rows_of(g, geometry, line), number * g.width
        for other in range(g.begin + g.width - g.end):
            q = other if other < g.begin else other - g.begin + g.end
            segment = segment_of(g, geometry, q)
            state = start(kind, outside, places(outside, rows.place + segment.at * g.index_v, g.index_v))
            for a in range(rows.count_a):
                for b in range(rows.count_b):
                    for c in range(rows.count_c):
                        at = rows.at + a * rows.step_a + b * rows.step_b + c * rows.step_c + segment.at
                        index = (
                            rows.place + a * rows.index_a + b * rows.index_b + c * rows.index_c + segment.at * g.index_v
                        )
                        for piece in range(segment.pieces):
                            for i in range(0, segment.length, step):
                                far = piece * segment.step + i
                                seen = load_between(x, at + far, 0, segment.length - i, outside)
                                state = take(kind, state, seen, index + far * g.index_v, g.index_v)
            join(kind, state, y_at + q, q, rows.divisor)
        line = next_line(g, line)
