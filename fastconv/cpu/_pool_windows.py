"""The kernels that look at every element of every window: the greatest, with or without its index, and the mean."""

from __future__ import annotations

from ..core.jit import kernel, subroutine
from ._kernel import integers, never_inlined, views
from ._pool_lines import (
    header,
    line_of,
    next_line,
    rows_of,
    segment_of,
    strided,
)
from ._pool_vectors import (
    choose,
    chosen_of,
    everywhere,
    greater,
    greatest_of,
    load_first_or,
    places,
    store_first_places,
)
from ._simd import lanes, load_first, splat, store_first, totals_of, zeros


# ---- the mean


@kernel
def mean(task, x, w, y, residual, constants, workspace, geometry):
    """One task: lines of y. constants: the divisor of each window along v."""
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    g = header(geometry)
    first = task * g.lines_per_task
    line = line_of(g, first)
    for at in range(first, min(first + g.lines_per_task, g.lines)):
        rows = rows_of(g, geometry, line)
        _mean_in_lanes(x, y, at * g.width, g, rows, constants)
        _mean_of_segments(x, y, at * g.width, g, geometry, rows, 0, g.begin, constants)
        _mean_of_segments(x, y, at * g.width, g, geometry, rows, g.end, g.width, constants)
        line = next_line(g, line)


@subroutine
def _mean_in_lanes(x, y, y_at, g, rows, constants):
    never_inlined()
    step = lanes(x)
    for q in range(g.begin, g.end, step):
        held = min(step, g.end - q)
        total = zeros(x, 1)
        for a in range(rows.count_a):
            for b in range(rows.count_b):
                for c in range(rows.count_c):
                    at = rows.at + a * rows.step_a + b * rows.step_b + c * rows.step_c + q * g.stride - g.low
                    for r in range(g.taps):
                        total = total + strided(x, at + r * g.dilation, g.stride, held)
        divisor = everywhere(total, rows.divisor) * load_first(constants, q, held, 1)
        store_first(y, y_at + q, held, total / divisor)


@subroutine
def _mean_of_segments(x, y, y_at, g, geometry, rows, begin, end, constants):
    never_inlined()
    step = lanes(x)
    for q in range(begin, end):
        segment = segment_of(g, geometry, q)
        total = zeros(x, 1)
        for a in range(rows.count_a):
            for b in range(rows.count_b):
                for c in range(rows.count_c):
                    at = rows.at + a * rows.step_a + b * rows.step_b + c * rows.step_c + segment.at
                    for piece in range(segment.pieces):
                        for i in range(0, segment.length, step):
                            held = min(step, segment.length - i)
                            total = total + load_first(x, at + piece * segment.step + i, held, 1)
        (sum,) = totals_of((total,))
        y[y_at + q] = sum / (rows.divisor * constants[q])


# ---- the greatest


@kernel
def greatest(task, x, w, y, residual, constants, workspace, geometry):
    """One task: lines of y. constants: the least number, which windows without elements hold."""
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    g = header(geometry)
    first = task * g.lines_per_task
    line = line_of(g, first)
    for at in range(first, min(first + g.lines_per_task, g.lines)):
        rows = rows_of(g, geometry, line)
        _greatest_in_lanes(x, y, at * g.width, g, rows, constants)
        _greatest_of_segments(x, y, at * g.width, g, geometry, rows, 0, g.begin, constants)
        _greatest_of_segments(x, y, at * g.width, g, geometry, rows, g.end, g.width, constants)
        line = next_line(g, line)


@subroutine
def _greatest_in_lanes(x, y, y_at, g, rows, constants):
    never_inlined()
    step = lanes(x)
    for q in range(g.begin, g.end, step):
        held = min(step, g.end - q)
        found = splat(constants, 0, 1)
        for a in range(rows.count_a):
            for b in range(rows.count_b):
                for c in range(rows.count_c):
                    at = rows.at + a * rows.step_a + b * rows.step_b + c * rows.step_c + q * g.stride - g.low
                    for r in range(g.taps):
                        found = greater(found, strided(x, at + r * g.dilation, g.stride, held))
        store_first(y, y_at + q, held, found)


@subroutine
def _greatest_of_segments(x, y, y_at, g, geometry, rows, begin, end, constants):
    never_inlined()
    step = lanes(x)
    least = splat(constants, 0, 1)
    for q in range(begin, end):
        segment = segment_of(g, geometry, q)
        found = least
        for a in range(rows.count_a):
            for b in range(rows.count_b):
                for c in range(rows.count_c):
                    at = rows.at + a * rows.step_a + b * rows.step_b + c * rows.step_c + segment.at
                    for piece in range(segment.pieces):
                        for i in range(0, segment.length, step):
                            held = min(step, segment.length - i)
                            found = greater(found, load_first_or(x, at + piece * segment.step + i, held, least))
        y[y_at + q] = greatest_of(found)


@kernel
def greatest_with_indices(task, x, w, y, residual, constants, workspace, geometry):
    """`greatest`, and in w, as integers of 64 bits, its index in a plane of x; -1 for windows without elements."""
    results = views(x, w, y, residual, constants, workspace, geometry)
    indices = integers(w, results[2].size)
    x, _, y, residual, constants, workspace, geometry = results
    g = header(geometry)
    first = task * g.lines_per_task
    line = line_of(g, first)
    for at in range(first, min(first + g.lines_per_task, g.lines)):
        rows = rows_of(g, geometry, line)
        _found_in_lanes(x, y, indices, at * g.width, g, rows, constants)
        _found_in_segments(x, y, indices, at * g.width, g, geometry, rows, 0, g.begin, constants)
        _found_in_segments(x, y, indices, at * g.width, g, geometry, rows, g.end, g.width, constants)
        line = next_line(g, line)


@subroutine
def _is_empty(rows):
    return min(rows.count_a, rows.count_b, rows.count_c) == 0


@subroutine
def _row_index(g, rows, a, b, c):
    """Index of the first element of a row in a plane of x."""
    return rows.index + a * g.tap_a * g.index_a + b * g.tap_b * g.index_b + c * g.tap_c * g.index_c


@subroutine
def _found_in_lanes(x, y, indices, y_at, g, rows, constants):
    never_inlined()
    step = lanes(x)
    for q in range(g.begin, g.end, step):
        held = min(step, g.end - q)
        first = q * g.stride - g.low
        found = splat(constants, 0, 1)
        start = rows.index + first * g.index_v
        place = places(found, -1, 0) if _is_empty(rows) else places(found, start, g.stride * g.index_v)
        for a in range(rows.count_a):
            for b in range(rows.count_b):
                for c in range(rows.count_c):
                    at = rows.at + a * rows.step_a + b * rows.step_b + c * rows.step_c + first
                    index = _row_index(g, rows, a, b, c) + first * g.index_v
                    for r in range(g.taps):
                        seen = strided(x, at + r * g.dilation, g.stride, held)
                        seen_place = places(found, index + r * g.dilation * g.index_v, g.stride * g.index_v)
                        found, place = choose(found, place, seen, seen_place)
        store_first(y, y_at + q, held, found)
        store_first_places(indices, y_at + q, held, place)


@subroutine
def _found_in_segments(x, y, indices, y_at, g, geometry, rows, begin, end, constants):
    never_inlined()
    step = lanes(x)
    least = splat(constants, 0, 1)
    for q in range(begin, end):
        segment = segment_of(g, geometry, q)
        found, place = least, places(least, rows.index + segment.at * g.index_v, g.index_v)
        for a in range(rows.count_a):
            for b in range(rows.count_b):
                for c in range(rows.count_c):
                    at = rows.at + a * rows.step_a + b * rows.step_b + c * rows.step_c + segment.at
                    index = _row_index(g, rows, a, b, c) + segment.at * g.index_v
                    for piece in range(segment.pieces):
                        for i in range(0, segment.length, step):
                            further = piece * segment.step + i
                            seen = load_first_or(x, at + further, min(step, segment.length - i), least)
                            seen_place = places(found, index + further * g.index_v, g.index_v)
                            found, place = choose(found, place, seen, seen_place)
        greatest_element, at_index = chosen_of(found, place)
        y[y_at + q] = greatest_element
        indices[y_at + q] = -1 if _is_empty(rows) or segment.pieces * segment.length == 0 else at_index
