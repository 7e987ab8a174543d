"""The gradient of the mean: each element of the input gets its part of every window that holds it.

With the windows of an output line as in `fastconv.cpu._pool_lines`, line i of grad_x needs the lines of grad_y whose
boxes hold it, each over its divisor. Their sum is formed first, in the order of the lines::

    sums[q] = sum over the lines o that hold i of grad_y[o, q] / (divisor[o] * divisor[q])

Then each window along v hands its part to its elements. Where windows follow each other evenly, an element collects it,
``grad_x[i] = sum over r of sums[(i + low - r * dilation) / stride]`` where that is an integer; with zeros on both sides
of the sums there are no borders. Elsewhere each window in turn adds it to its elements.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..core.jit import kernel, subroutine
from ..core.pool_problem import PoolAxis
from ._geometry import Integers, Tables, named
from ._kernel import SIZES, always_inlined, first_integers, never_inlined, number, real, views
from ._past_caches import caches_passed, goes_past_caches, store_left
from ._pool_lines import (
    Shape,
    covers,
    is_idle,
    line_of,
    lines_of_task,
    next_line,
    row_strides,
    segment_of,
    table_of,
)
from ._pool_vectors import everywhere
from ._rows import fill_first
from ._simd import (
    REGISTER_BYTES,
    fma,
    interleaved,
    lanes,
    lanes_of_value,
    load,
    load_first,
    splat,
    store_first,
    zeros,
)

# Registers of a line that are computed at once.
WIDE = 4
# Bytes of the lines of a task, and as many of their sums: together they stay in the first-level cache. The gradient of
# the mean of 2x2 of 1x64x224x224 took 0.82 ms on one thread, and 1.09 with twice as many.
SUMS_BYTES = 1 << 14

# What windows along v are: channels, one apart, two apart, one for all, even of a plane, and anything else.
CHANNELS, DENSE, BY_TURNS, SINGLE, PLANES, ANY = range(6)


class Header(NamedTuple):
    """The numbers at the head of the geometry vector."""

    x_size: int
    w_size: int
    y_size: int
    residual_size: int
    constants_size: int
    workspace_size: int
    geometry_size: int
    lines: int
    lines_per_task: int
    # Lines of grad_x along each axis; positions of the first line of grad_y that holds each, and of all of these.
    lines_a: int
    lines_b: int
    lines_c: int
    holders_a: int
    holders_b: int
    holders_c: int
    # Elements of grad_y from one line to the next along each axis.
    y_outer: int
    y_a: int
    y_b: int
    y_c: int
    # Along v: elements of grad_x, windows, and what they are.
    table_v: int
    extent: int
    width: int
    kind: int
    taps: int
    dilation: int
    low: int
    # Of windows two apart: the sum for an element at an even position that its first tap gives it, from where the sums
    # begin, the taps, and the same at odd ones; and sums from one tap to the next.
    even_at: int
    even_taps: int
    odd_at: int
    odd_taps: int
    tap_step: int
    margin: int  # zeros before the sums of a line
    pitch: int  # from the sums of one line to those of the next
    divides: int  # whether windows along v have divisors of their own


HEADER = len(Header._fields)


class Holders(NamedTuple):
    """Lines of grad_y that hold a line of grad_x: positions in the geometry vector, of pairs (line, divisor)."""

    outer: int
    begin_a: int
    end_a: int
    begin_b: int
    end_b: int
    begin_c: int
    end_c: int


@kernel
def mean_gradient(task, x, w, y, residual, constants, workspace, geometry):
    """One task: lines of y, which is grad_x; x is grad_y. constants: the divisor of each window along v.

    workspace: the sums of each line, and zeros around them.
    """
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    g = Header(*first_integers(geometry, HEADER))
    first = task * g.lines_per_task
    past_caches = goes_past_caches(y, 0, g.extent)
    if g.kind == CHANNELS:
        _sum(x, y, first * g.extent, g.extent, geometry, first, past_caches)
    elif g.kind == PLANES:
        _hand_out_planes(x, y, geometry, first)
    else:
        fill_first(workspace, 0, workspace.size, zeros(x, 1))
        _sum(x, workspace, g.margin, g.pitch, geometry, first, False)
        if g.divides:
            _divide(workspace, constants, geometry)
        if g.kind == DENSE:
            _collect(y, workspace, geometry, first, past_caches)
        elif g.kind == BY_TURNS:
            _collect_by_turns(y, workspace, geometry, first, past_caches)
        else:
            _hand_out(y, workspace, geometry, first)
    if past_caches:
        caches_passed()


@subroutine
def holders_of(g, geometry, line):
    return Holders(
        line.outer,
        number(geometry, g.holders_a + line.a),
        number(geometry, g.holders_a + line.a + 1),
        number(geometry, g.holders_b + line.b),
        number(geometry, g.holders_b + line.b + 1),
        number(geometry, g.holders_c + line.c),
        number(geometry, g.holders_c + line.c + 1),
    )


@subroutine
def _sum(x, target, target_at, pitch, geometry, first, past_caches):
    """target[q] = sum over the lines that hold a line of x[., q] / divisor.

    For the lines of a task, of which `first` is the first; in the target they are `pitch` elements apart.
    """
    always_inlined()
    if Header(*first_integers(geometry, HEADER)).width <= lanes(x):
        _sum_lines(x, target, target_at, pitch, geometry, first, past_caches, zeros(x, 1))
    else:
        _sum_lines(x, target, target_at, pitch, geometry, first, past_caches, zeros(x, WIDE))


@subroutine
def _sum_lines(x, target, target_at, pitch, geometry, first, past_caches, nothing):
    """The last vector begins earlier instead of being shorter, unless it is the only one."""
    never_inlined()
    g, step = Header(*first_integers(geometry, HEADER)), lanes_of_value(nothing)
    held = min(step, g.width)
    line = line_of(g, first)
    for _ in range(first, min(first + g.lines_per_task, g.lines)):
        holders = holders_of(g, geometry, line)
        start = holders.outer * g.y_outer
        for begin in range(0, g.width, step):
            q, total = max(0, min(begin, g.width - step)), nothing
            for a in range(holders.begin_a, holders.end_a, 2):
                row_a, part_a = start + number(geometry, a) * g.y_a, real(geometry, a + 1)
                for b in range(holders.begin_b, holders.end_b, 2):
                    row_b, part_b = row_a + number(geometry, b) * g.y_b, part_a * real(geometry, b + 1)
                    for c in range(holders.begin_c, holders.end_c, 2):
                        at, part = row_b + number(geometry, c) * g.y_c + q, part_b * real(geometry, c + 1)
                        seen = load(x, at, nothing) if held == step else load_first(x, at, held, nothing)
                        total = fma(everywhere(nothing, part), seen, total)
            store_left(target, target_at + q, held, total, past_caches)
        target_at += pitch
        line = next_line(g, line)


@subroutine
def _divide(sums, divisors, geometry):
    """Divide the sums of all lines by the divisors along v."""
    never_inlined()
    g, step = Header(*first_integers(geometry, HEADER)), lanes(sums)
    for at in range(g.margin, g.margin + g.lines_per_task * g.pitch, g.pitch):
        for q in range(0, g.width, step):
            held = min(step, g.width - q)
            store_first(sums, at + q, held, load_first(sums, at + q, held, 1) / load_first(divisors, q, held, 1))


@subroutine
def _collect(y, sums, geometry, first, past_caches):
    """Windows one apart."""
    never_inlined()
    g, step = Header(*first_integers(geometry, HEADER)), lanes(y)
    for line in range(min(g.lines_per_task, g.lines - first)):
        y_at, at = (first + line) * g.extent, line * g.pitch + g.margin + g.low
        for i in range(0, g.extent, step):
            total = zeros(y, 1)
            for r in range(g.taps):
                total = total + load(sums, at + i - r * g.dilation, 1)
            store_left(y, y_at + i, g.extent - i, total, past_caches)


@subroutine
def _collect_by_turns(y, sums, geometry, first, past_caches):
    """Windows two apart: elements at even and at odd positions are in windows of their own."""
    never_inlined()
    g, step = Header(*first_integers(geometry, HEADER)), lanes(y)
    for line in range(min(g.lines_per_task, g.lines - first)):
        y_at, at = (first + line) * g.extent, line * g.pitch + g.margin
        for i in range(0, g.extent, 2 * step):
            even = _sum_of_taps(sums, at + i // 2 + g.even_at, g.even_taps, g.tap_step, zeros(y, 1))
            odd = _sum_of_taps(sums, at + i // 2 + g.odd_at, g.odd_taps, g.tap_step, zeros(y, 1))
            store_left(y, y_at + i, g.extent - i, interleaved(even, odd, 0), past_caches)
            store_left(y, y_at + i + step, g.extent - i - step, interleaved(even, odd, 1), past_caches)


@subroutine
def _sum_of_taps(sums, at, taps, step, total):
    """Add sums[at], sums[at - step] and so on to a total, of so many taps."""
    always_inlined()
    for _ in range(taps):
        total = total + load(sums, at, 1)
        at -= step
    return total


@subroutine
def _hand_out_planes(x, y, geometry, first):
    """One window for each plane, of which a line is one."""
    never_inlined()
    g = Header(*first_integers(geometry, HEADER))
    part = everywhere(zeros(y, 1), real(geometry, number(geometry, g.holders_c) + 1))
    for line in range(first, min(first + g.lines_per_task, g.lines)):
        fill_first(y, line * g.extent, g.extent, splat(x, line, 1) * part)


@subroutine
def _hand_out(y, sums, geometry, first):
    """Any windows, one after the other; a single one writes what it hands out, as nothing stands there before."""
    never_inlined()
    g, step = Header(*first_integers(geometry, HEADER)), lanes(y)
    for line in range(min(g.lines_per_task, g.lines - first)):
        y_at, at = (first + line) * g.extent, line * g.pitch + g.margin
        if g.kind == SINGLE:
            fill_first(y, y_at, g.extent, splat(sums, at, 1))
            continue
        fill_first(y, y_at, g.extent, zeros(y, 1))
        for q in range(g.width):
            part = splat(sums, at + q, 1)
            segment = segment_of(g, geometry, q)
            for piece in range(segment.pieces):
                for i in range(0, segment.length, step):
                    place, held = y_at + segment.at + piece * segment.step + i, min(step, segment.length - i)
                    store_first(y, place, held, load_first(y, place, held, 1) + part)


# ---- the numbers


def geometry_of(shape: Shape) -> tuple[Integers, int, int]:
    """The geometry vector, the tasks, and the workspace of a thread in elements."""
    tables = Tables(Header)
    v, size = shape.v, np.dtype(shape.dtype).itemsize
    # One divisor for all of a line is that of its rows, too.
    common = int(v.divisors[0]) if np.all(v.divisors == v.divisors[0]) else 1
    holders = [_add_holders(tables, axis, factor) for axis, factor in zip(shape.boxes, (1, 1, common), strict=True)]
    table_v = tables.add(table_of(v))
    vector = REGISTER_BYTES // size
    margin = v.dilation * (v.size - 1) + 1 + v.low + vector if _kind(shape) in (DENSE, BY_TURNS) else 0
    pitch = margin + v.output + margin + vector
    if _kind(shape) in (CHANNELS, PLANES):
        per_task, workspace = lines_of_task(shape.x_lines, shape.bytes), 0
    else:
        per_task = max(1, SUMS_BYTES // (max(v.input, pitch) * size))
        workspace = per_task * pitch
    output_strides = _output_strides(shape)
    geometry = tables.vector(
        lines=shape.x_lines,
        lines_per_task=per_task,
        **named("lines_{}", "abc", [axis.input for axis in shape.boxes]),
        **named("holders_{}", "abc", holders),
        **dict(zip(("y_outer", "y_a", "y_b", "y_c"), output_strides, strict=True)),
        table_v=table_v,
        extent=v.input,
        width=v.output,
        kind=_kind(shape),
        taps=v.size,
        dilation=v.dilation,
        low=v.low,
        **_taps_by_turns(v),
        margin=margin,
        pitch=pitch,
        divides=int(common == 1),
    )
    x_size = row_strides(shape)[0] * shape.outer
    geometry[:SIZES] = (shape.lines * v.output, 0, x_size, 0, v.output, workspace, geometry.size)
    geometry.flags.writeable = False
    return geometry, -(-shape.x_lines // per_task), workspace


def _taps_by_turns(axis: PoolAxis) -> dict[str, int]:
    """Tap r of windows two apart gives ``sums[(i + low - r * dilation) / 2]`` to the elements i where that is whole."""
    distances = axis.low - np.arange(axis.size) * axis.dilation
    even, odd = distances[distances % 2 == 0] // 2, (distances[distances % 2 == 1] + 1) // 2
    return {
        "even_at": int(even[0]) if even.size else 0,
        "even_taps": even.size,
        "odd_at": int(odd[0]) if odd.size else 0,
        "odd_taps": odd.size,
        "tap_step": axis.dilation if axis.dilation % 2 else axis.dilation // 2,
    }


def _kind(shape: Shape) -> int:
    v = shape.v
    if shape.index_steps[3] == 0:
        return CHANNELS
    if covers(v):
        return PLANES if all(map(is_idle, shape.boxes)) else SINGLE
    return ANY if v.is_adaptive or v.stride > 2 else {1: DENSE, 2: BY_TURNS}[v.stride]


def _output_strides(shape: Shape) -> tuple[int, int, int, int]:
    """Elements of grad_y from one outer, a, b and c to the next."""
    strides = [shape.v.output]
    for axis in reversed(shape.boxes):
        strides.append(strides[-1] * axis.output)
    c, b, a, outer = strides
    return outer, a, b, c


def _add_holders(tables: Tables, axis: PoolAxis, factor: int) -> int:
    """Add the windows that hold each element, and a table of where they begin.

    As pairs (window, its part), of which the part, 1 / (factor * divisor), is a float64.
    """
    windows = np.repeat(np.arange(axis.output), axis.count)
    order = np.arange(windows.size) - np.repeat(np.cumsum(axis.count) - axis.count, axis.count)
    elements = np.repeat(axis.first, axis.count) + order * axis.dilation
    sorted_ = np.argsort(elements, kind="stable")
    parts = 1.0 / (factor * axis.divisors[windows[sorted_]])
    pairs = np.stack([windows[sorted_], parts.view(np.int64)], axis=1)
    at = tables.add(pairs)
    begins = np.searchsorted(elements[sorted_], np.arange(axis.input + 1))
    return tables.add(at + 2 * begins)
