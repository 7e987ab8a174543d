"""Winograd's F(2, 2) for filters with a stride: neighbouring outputs share products (`fastconv.cpu._pairs`).

With a stride of 2, along both axes, 25 products serve for 36 of a 3x3 filter. A task, some outputs of some target
channels, does this for one block of source channels after the other::

    strip[plane]    = the padded source of a few channels, with phases along H apart    (`fastconv.cpu._strips`)
    data[e, c, i]   = element e of source channel c for pair i of outputs, or what remains of it less its neighbours
    panel[c, m, n]  = the taps of a source channel, and sums of them, along H and W; target channels side by side
    sums[i, j]     += panel rows * elements, of pairs of outputs     (`fastconv.cpu._gemm`)

A vector holds target channels, so that a pixel is a single element and a stride costs nothing. Of the sums that make
an output, up to four, the total is turned around as it is stored.

Sources: Winograd, Arithmetic Complexity of Computations, 1980, section Vb; Karatsuba, Ofman, "Multiplication of
Multidigit Numbers on Automata", 1963, for the same identity.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np

from ..core.algorithm import Epilogue, Plan, Run
from ..core.jit import Kernel, kernel, subroutine
from ..core.problem import ConvProblem, Op
from . import _winograd_pair_sizes
from ._activation import activate_row
from ._extremes import NoticingLaunch, greatest_magnitudes, is_extreme, limit_of
from ._gemm import ROWS, Near, Product, lanes_of, multiply_by_columns, multiply_last_rows
from ._geometry import Integers, Tables, with_sizes
from ._kernel import integers_at, never_inlined, number, views
from ._launch import Launch
from ._pairs import Kind, PairedAxis
from ._phases import axes_and_phases, fields_of
from ._rows import Finish, changes, finish_runs, transpose_all
from ._simd import every_second, lanes, load, load_first, prefetch, store, store_first, zeros
from ._strips import Strips, block_of, for_both_ways, gather_strips, header, is_plain, tile_of
from ._tiles import Tiling
from ._winograd_pair_sizes import Memory, axes_of, groups_of, growth_of, memory_of


class Pairs(NamedTuple):
    """What the kernels know beside `Strips`; tables are positions in the geometry vector."""

    together_h: int  # outputs of a group, along each axis
    together_w: int
    groups: int  # elements of a tile's groups of outputs, and groups in a row of it
    groups_w: int
    strip_channels: int  # channels in the strip at once
    period_w: int  # elements of the strip from one group to the next
    apart_at: int  # planes of the strip taken apart, in the workspace
    apart_channel: int  # from one channel to the next, from one phase along H, along W, and from one line
    apart_rows: int
    apart_plane: int
    apart_line: int
    elements: int  # of a group
    elements_at: int  # table of `Read`
    data_at: int  # where they stand in the workspace
    data_pitch: int  # from one element to the next
    taps: int
    additions: int  # sums of taps
    additions_at: int  # table of `Addition`
    sums: int  # sums along both axes, and along W
    sums_w: int
    sums_pitch: int  # elements of one of them
    terms_at: int  # for each its data, its rows of the panel, and products of a channel
    phases_h: int  # of the target
    phases_w: int
    outputs_h_at: int  # tables of `fastconv.cpu._pairs.Output`
    outputs_w_at: int
    target_p: int  # rows and columns of the target
    target_q: int
    notices: int  # whether tasks tell the greatest magnitudes, in the place of the residual
    totals_at: int  # results of a group of rows and a vector of target channels, a pixel after the other


class Read(NamedTuple):
    """An element of the first group in a channel taken apart, and from there to what is taken away, or 0."""

    at: int
    less_h: int
    less_w: int


class Addition(NamedTuple):
    """Rows of the panel, from one source channel to the next, of which one is the sum of two."""

    into: int
    first: int
    second: int
    pitch: int  # from one channel to the next, of those that are added


# Numbers of them, of what is known of a sum, and of an output.
PAIRS, READ, ADDITION, TERMS, OUTPUT = len(Pairs._fields), len(Read._fields), len(Addition._fields), 3, 2


# ---- kernels


def _forward(plain: bool | None) -> Kernel:
    @kernel
    def run(task, x, w, y, residual, constants, workspace, geometry):
        x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
        _correlate(plain, task, x, w, y, residual, constants, workspace, geometry)

    return run


def _grad_input(plain: bool | None) -> Kernel:
    @kernel
    def run(task, x, w, y, residual, constants, workspace, geometry):
        x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
        _correlate(plain, task, y, w, x, residual, constants, workspace, geometry)

    return run


KERNELS = {Op.FORWARD: for_both_ways(_forward), Op.GRAD_INPUT: for_both_ways(_grad_input)}


@subroutine
def _correlate(plain, task, source, weights, target, residual, constants, workspace, geometry):
    """One task: a tile, one block of target channels of one group of one image.

    plain: as in `gather_strips`; source, target: tensors in either layout; weights: (K, C / groups, taps); workspace:
    a strip, planes taken apart, data, a panel, sums, and totals.
    """
    g = header(geometry)
    pairs = _pairs(geometry)
    block = block_of(g, task)
    tile = tile_of(g, block.run)
    lines = -(-tile.height // pairs.together_h)
    groups = lines * pairs.groups_w
    for first in range(0, g.sources, g.channel_block):
        channels = min(g.channel_block, g.sources - first)
        for c in range(0, channels, pairs.strip_channels):
            held = min(pairs.strip_channels, channels - c)
            source_at = block.source_at + (first + c) * g.source_c
            gather_strips(plain, workspace, geometry, source, source_at, held, tile, constants, first + c == 0)
            _separate(workspace, geometry, held, tile.height + g.strip_h - g.tile_p)
            _subtract(workspace, geometry, c, held, lines * pairs.apart_line)
        _fill_panel(workspace, geometry, weights, block.weights_at + first * g.weight_source, channels, block.rows)
        for n in range(pairs.sums):
            entry = pairs.terms_at + TERMS * n
            product = Product(
                workspace, g.sums_at + n * pairs.sums_pitch, g.columns_pitch,
                workspace, pairs.data_at,
                workspace, g.panel_at,
                geometry, g.pixels_at, geometry[entry], geometry[entry + 1], channels * geometry[entry + 2],
                Near(first == 0),
            )  # fmt: skip
            _multiply(product, groups, block.rows)
    finish = Finish(constants, residual, g.has_residual, g.activation, None)
    greatest = _store(plain, target, workspace, geometry, block, tile, finish)
    if pairs.notices:
        store(residual, task * lanes(residual), greatest)


@subroutine
def _multiply(product, rows, columns):
    """A `Product`, a few columns at a time: their part of the panel stays in a first-level cache for whole tiles."""
    whole = rows // ROWS * ROWS
    multiply_by_columns(product, whole, -(-columns // lanes(product.sums)) * lanes(product.sums))
    multiply_last_rows(product, whole, rows, columns)


@subroutine
def _pairs(geometry):
    return Pairs(*integers_at(geometry, header(geometry).pairs_at, PAIRS))


@subroutine
def _separate(workspace, geometry, channels, rows):
    """workspace[apart_at + (c, plane, phase_h, phase_w, line, group)] = the strip, taken apart into groups of outputs.

    rows: of each plane, of which each has `together_h` phases.
    """
    never_inlined()
    g, pairs = header(geometry), _pairs(geometry)
    step = lanes(workspace)
    for c in range(channels):
        for plane in range(g.planes_h):
            begin = c * g.channel_pitch + plane * g.strip_h * g.strip_w
            into = pairs.apart_at + c * pairs.apart_channel + plane * pairs.apart_rows * pairs.together_h
            for phase in range(pairs.together_h):
                to = into + phase * pairs.apart_rows
                for row in range(phase, rows, pairs.together_h):
                    # What is written behind the last group is written over by the next, or lies in a spare vector.
                    for i in range(0, pairs.apart_line, step):
                        at = begin + row * g.strip_w + i * pairs.period_w
                        _separate_vectors(workspace, to + i, pairs.apart_plane, at, pairs.period_w)
                    to += pairs.apart_line


@subroutine
def _separate_vectors(workspace, to, pitch, at, period):
    """workspace[to + phase * pitch + i] = workspace[at + i * period + phase] for a register of i and every phase."""
    step = lanes(workspace)
    if period == 4:
        first, second = load(workspace, at, 1), load(workspace, at + step, 1)
        third, fourth = load(workspace, at + 2 * step, 1), load(workspace, at + 3 * step, 1)
        even, other = every_second(first, second, 0), every_second(third, fourth, 0)
        store(workspace, to, every_second(even, other, 0))
        store(workspace, to + 2 * pitch, every_second(even, other, 1))
        even, other = every_second(first, second, 1), every_second(third, fourth, 1)
        store(workspace, to + pitch, every_second(even, other, 0))
        store(workspace, to + 3 * pitch, every_second(even, other, 1))
    elif period == 2:
        first, second = load(workspace, at, 1), load(workspace, at + step, 1)
        store(workspace, to, every_second(first, second, 0))
        store(workspace, to + pitch, every_second(first, second, 1))
    elif period == 1:
        store(workspace, to, load(workspace, at, 1))
    else:
        for phase in range(period):
            for i in range(step):
                store_first(workspace, to + phase * pitch + i, 1, load_first(workspace, at + i * period + phase, 1, 1))


@subroutine
def _subtract(workspace, geometry, first, channels, count):
    """workspace[data_at + (e, first + c, group)] = element e of `count` groups, of the channels taken apart."""
    never_inlined()
    pairs, step = _pairs(geometry), lanes(workspace)
    for c in range(channels):
        for e in range(pairs.elements):
            read = Read(*integers_at(geometry, pairs.elements_at + READ * e, READ))
            at = pairs.apart_at + c * pairs.apart_channel + read.at
            into = pairs.data_at + e * pairs.data_pitch + (first + c) * pairs.groups
            if read.less_h and read.less_w:
                for i in range(0, count, step):
                    above = _difference(workspace, at + i, read.less_w)
                    store(workspace, into + i, above - _difference(workspace, at + read.less_h + i, read.less_w))
            elif read.less_h or read.less_w:
                for i in range(0, count, step):
                    store(workspace, into + i, _difference(workspace, at + i, read.less_h + read.less_w))
            else:
                for i in range(0, count, step):
                    store(workspace, into + i, load(workspace, at + i, 1))


@subroutine
def _difference(workspace, at, less):
    return load(workspace, at, 1) - load(workspace, at + less, 1)


@subroutine
def _fetch(array, at, runs, pitch, count):
    """Begin to fetch runs of elements."""
    for run in range(runs):
        for i in range(0, count, lanes(array)):
            prefetch(array, at + run * pitch + i)


@subroutine
def _fill_panel(workspace, geometry, weights, weights_at, channels, rows):
    """workspace[panel_at + ((c, tap), k)] = the taps of source c and target k; behind them sums of these."""
    never_inlined()
    g, pairs = header(geometry), _pairs(geometry)
    step = lanes(workspace)
    at_once = channels if g.weight_source == pairs.taps else 1
    for k in range(0, rows, step):
        following = k + step
        begin = following * g.weight_target if following < rows else channels * g.weight_source
        if at_once > 1:
            _fetch(weights, weights_at + begin, step, g.weight_target, channels * pairs.taps)
        else:
            _fetch(weights, weights_at + begin, channels, g.weight_source, step * pairs.taps)
        for c in range(0, channels, at_once):
            transpose_all(
                workspace, g.panel_at + k + c * pairs.taps * g.columns_pitch, g.columns_pitch,
                weights, weights_at + k * g.weight_target + c * g.weight_source, g.weight_target,
                min(step, rows - k), at_once * pairs.taps,
            )  # fmt: skip
        for n in range(pairs.additions):
            added = Addition(*integers_at(geometry, pairs.additions_at + ADDITION * n, ADDITION))
            for c in range(channels):
                at = g.panel_at + k + c * added.pitch
                value = load(workspace, at + added.first, 1) + load(workspace, at + added.second, 1)
                store(workspace, g.panel_at + k + added.into + c * g.columns_pitch, value)


@subroutine
def _store(plain, target, workspace, geometry, block, tile, finish):
    """Add up what makes each result, and store it finished; give the greatest magnitudes before that.

    plain: as in `gather_strips`, whose True stands for channels first.

    All phases of the target that belong to a group of rows are stored together, as they follow each other there; in
    channels first turned around, and then finished where they stand.
    """
    never_inlined()
    g, pairs = header(geometry), _pairs(geometry)
    step = lanes(workspace)
    pitch = g.tile_q * pairs.phases_w
    p, q = tile.p * pairs.phases_h, tile.q * pairs.phases_w
    columns = min(pitch, pairs.target_q - q)
    height = pairs.together_h * pairs.phases_h
    lines = -(-tile.height // pairs.together_h)
    greatest = zeros(target, 1)
    at = block.image * g.target_n + tile.z * g.target_d + p * g.target_h + q * g.target_w
    for k in range(0, block.rows, step):
        held, channel = min(step, block.rows - k), block.channel + k
        found = zeros(target, 1)
        for line in range(lines):
            rows = min(height, pairs.target_p - p - line * height)
            to = at + line * height * g.target_h + channel * g.target_c
            if g.target_c != 1:
                if line + 1 < lines:
                    _fetch(target, to + height * g.target_h, held, g.target_c, height * g.target_h)
                else:
                    _fetch(target, at + (channel + step) * g.target_c, held, g.target_c, height * g.target_h)
            for row in range(rows):
                found = _add_up(workspace, geometry, line, row, k, columns, found)
            if plain is None and g.target_c == 1:
                for row in range(rows):
                    totals = pairs.totals_at + row * pitch * step
                    _store_pixels(
                        target, to + row * g.target_h, g.target_w, workspace, totals, columns, channel, held, finish
                    )  # fmt: skip
            else:
                is_joined = columns == pitch and columns == g.target_h
                runs, count = (1, rows * pitch) if is_joined else (rows, columns)
                for run in range(runs):
                    transpose_all(
                        target, to + run * g.target_h, g.target_c,
                        workspace, pairs.totals_at + run * pitch * step, step, count, held,
                    )  # fmt: skip
                if changes(finish, channel, held):
                    for i in range(held):
                        finish_runs(target, to + i * g.target_c, g.target_h, runs, count, channel + i, 0, finish)
        if pairs.notices:
            greatest = greatest_magnitudes(found, held, greatest)
    return greatest


@subroutine
def _add_up(workspace, geometry, line, row, k, count, greatest):
    """workspace[totals_at + (row, pixel, lane)] = `count` results of a row of a group, for target channels from k on.

    Gives the greatest magnitudes of them and of `greatest`, lane by lane.
    """
    never_inlined()
    g, pairs = header(geometry), _pairs(geometry)
    step = lanes(workspace)
    turn, phase_h = divmod(row, pairs.phases_h)
    output_h = pairs.outputs_h_at + (phase_h * pairs.together_h + turn) * OUTPUT
    own_h, shared_h = number(geometry, output_h), number(geometry, output_h + 1)
    at = g.sums_at + k + line * pairs.groups_w * g.columns_pitch
    own, shared = at + own_h * pairs.sums_w * pairs.sums_pitch, at + shared_h * pairs.sums_w * pairs.sums_pitch
    columns = pairs.together_w * pairs.phases_w
    for column in range(columns):
        turn, phase_w = divmod(column, pairs.phases_w)
        output_w = pairs.outputs_w_at + (phase_w * pairs.together_w + turn) * OUTPUT
        own_w = number(geometry, output_w) * pairs.sums_pitch
        shared_w = number(geometry, output_w + 1) * pairs.sums_pitch
        into = pairs.totals_at + (row * columns * pairs.groups_w + column) * step
        for q in range(-(-(count - column) // columns)):
            i = q * g.columns_pitch
            total = load(workspace, own + own_w + i, 1)
            if shared_w >= 0:
                total = total + load(workspace, own + shared_w + i, 1)
            if shared_h >= 0:
                further = load(workspace, shared + own_w + i, 1)
                if shared_w >= 0:
                    further = further + load(workspace, shared + shared_w + i, 1)
                total = total + further
            greatest = greatest_magnitudes(total, step, greatest)
            store(workspace, into + q * columns * step, total)
    return greatest


@subroutine
def _store_pixels(target, target_at, pitch, totals, at, count, channel, channels, finish):
    """Store pixels of neighbouring channels, `pitch` apart in channels_last, finished."""
    never_inlined()
    bias = load_first(finish.constants, channel, channels, 1)
    for q in range(count):
        to = target_at + q * pitch
        value = load(totals, at + q * lanes(totals), 1) + bias
        if finish.has_residual:
            value = value + load_first(finish.residual, to, channels, 1)
        store_first(target, to, channels, value)
        activate_row(target, to, 1, channels, finish.activation)


# ---- plans


def plan(problem: ConvProblem, op: Op, epilogue: Epilogue) -> Plan:
    sizes = _winograd_pair_sizes.sizes_of(problem, op)
    return Plan(
        algorithm="winograd",
        problem=problem,
        op=op,
        workspace_bytes=_winograd_pair_sizes.workspace(problem, op),
        run=_launch(problem, op, sizes, epilogue),
        limit=limit_of(problem, op, growth_of(problem, op)),
        notices=not epilogue.residual,
        is_extreme=is_extreme,
        tiles={
            "outputs": max(each.together for each in axes_of(problem, op)),
            "pixels": math.prod(sizes.tile),
            "channels": sizes.channel_block,
            "rows": sizes.row_block,
            "tasks": sizes.tasks,
        },
    )


def _launch(problem: ConvProblem, op: Op, sizes: Tiling, epilogue: Epilogue) -> Run:
    memory = memory_of(problem, op)
    source_axes, target_axes, _ = axes_and_phases(problem, op, sizes)
    tables = Tables(Strips)
    fields = fields_of(tables, problem, op, epilogue, sizes, (source_axes, target_axes))
    fields |= {
        "columns_pitch": memory.columns_pitch,
        "panel_at": memory.panel_at,
        "sums_at": memory.sums_at,
        "pixels_at": tables.add(_pixels(problem, op, sizes)),
        "pairs_at": tables.add(_fields(tables, problem, op, epilogue, sizes, memory)),
    }
    notices = not epilogue.residual
    geometry = with_sizes(
        tables.partial_vector(**fields), problem, op, math.prod(problem.w_shape), memory.elements,
        residual_size=sizes.tasks * lanes_of(problem.dtype) if notices else None,
    )  # fmt: skip
    kernel_of = KERNELS[op][is_plain(problem, op, sizes.gap)]
    launch = Launch(kernel_of, sizes.tasks, problem.dtype, geometry, memory.elements)
    limit = limit_of(problem, op, growth_of(problem, op))
    return NoticingLaunch(launch, sizes.tasks, problem.dtype, limit) if notices else launch


def _pixels(problem: ConvProblem, op: Op, sizes: Tiling) -> Integers:
    """Positions in the data of the groups of a tile."""
    heights, widths = axes_of(problem, op)
    lines = groups_of(sizes, heights, widths)[0] * np.arange(sizes.tile[1] // heights.together)
    return (lines[:, None] + np.arange(sizes.tile[2] // widths.together)).reshape(-1)


def _fields(
    tables: Tables, problem: ConvProblem, op: Op, epilogue: Epilogue, sizes: Tiling, memory: Memory
) -> list[int]:
    """The numbers of `Pairs`."""
    heights, widths = axes_of(problem, op)
    groups = groups_of(sizes, heights, widths)[1]
    rows = widths.period * memory.apart_plane

    def row(slot: int, shift: int) -> int:
        line, phase = divmod(shift, heights.period)
        return (slot * heights.period + phase) * rows + line * memory.apart_line

    def column(shift: int) -> int:
        group, phase = divmod(shift, widths.period)
        return phase * memory.apart_plane + group

    reads = [
        Read(
            row(h.slot, h.shift) + column(w.shift),
            row(h.slot, h.shift + h.less) - row(h.slot, h.shift),
            column(w.shift + w.less) - column(w.shift),
        )
        for h, w in itertools.product(heights.elements, widths.elements)
    ]
    kinds, additions = _kinds(problem, heights, widths, sizes.channel_block, memory)
    channels = np.arange(sizes.channel_block)[:, None]
    terms: list[int] = []
    for sum_h, sum_w in itertools.product(heights.sums, widths.sums):
        pairs = list(itertools.product(sum_h, sum_w))
        data = [(h.element * len(widths.elements) + w.element) * memory.data_pitch for h, w in pairs]
        panel_rows, pitches = zip(*[kinds[h.kind, w.kind] for h, w in pairs], strict=True)
        terms += [
            tables.add(channels * groups + data),
            tables.add(channels * np.array(pitches) + panel_rows),
            len(pairs),
        ]
    return list(
        Pairs(
            together_h=heights.together,
            together_w=widths.together,
            groups=groups,
            groups_w=sizes.tile[2] // widths.together,
            strip_channels=memory.strip_channels,
            period_w=widths.period,
            apart_at=memory.apart_at,
            apart_channel=sizes.planes[1] * heights.period * rows,
            apart_rows=rows,
            apart_plane=memory.apart_plane,
            apart_line=memory.apart_line,
            elements=len(reads),
            elements_at=tables.add(np.array(reads)),
            data_at=memory.data_at,
            data_pitch=memory.data_pitch,
            taps=problem.taps,
            additions=len(additions),
            additions_at=tables.add(np.array(additions)),
            sums=len(heights.sums) * len(widths.sums),
            sums_w=len(widths.sums),
            sums_pitch=memory.sums_pitch,
            terms_at=tables.add(terms),
            phases_h=len(heights.outputs),
            phases_w=len(widths.outputs),
            outputs_h_at=tables.add(np.array(heights.outputs)),
            outputs_w_at=tables.add(np.array(widths.outputs)),
            target_p=(problem.input if op is Op.GRAD_INPUT else problem.output)[1],
            target_q=(problem.input if op is Op.GRAD_INPUT else problem.output)[2],
            notices=not epilogue.residual,
            totals_at=memory.totals_at,
        )
    )


def _kinds(
    problem: ConvProblem, heights: PairedAxis, widths: PairedAxis, channel_block: int, memory: Memory
) -> tuple[dict[tuple[int, int], tuple[int, int]], list[Addition]]:
    """The row of the panel of each kind along H and W, and its distance from channel to channel; and what makes them.

    Taps stand as they are transposed, all of a channel together, sums of them a kind after the other.
    """
    columns, width = memory.columns_pitch, problem.filter[2]
    rows: dict[tuple[Kind, Kind], tuple[int, int]] = {}
    additions: list[Addition] = []

    def place(h: Kind, w: Kind) -> tuple[int, int]:
        """The row of a kind, which is added up along one axis after the other."""
        if (h, w) in rows:
            return rows[h, w]
        if not h.is_sum and not w.is_sum:
            rows[h, w] = (h.first * width + w.first) * columns, problem.taps * columns
            return rows[h, w]
        parts = [(h, Kind(each)) for each in (w.first, w.second)] if w.is_sum else []
        parts = parts or [(Kind(each), w) for each in (h.first, h.second)]
        (first, pitch), (second, _) = (place(*part) for part in parts)
        begin = memory.sums_of_taps_at - memory.panel_at
        into = begin + len(additions) * channel_block * columns
        additions.append(Addition(into, first, second, pitch))
        rows[h, w] = into, columns
        return rows[h, w]

    numbers = itertools.product(range(len(heights.kinds)), range(len(widths.kinds)))
    return {(m, n): place(heights.kinds[m], widths.kinds[n]) for m, n in numbers}, additions
