"""Winograd's F(2, 2) for filters with a stride of 2: neighbouring outputs share products (`fastconv.cpu._pairs`).

Along both axes 25 products serve for 36 of a 3x3 filter. Data are not transformed point by point, as larger tiles are
(`fastconv.cpu.winograd`): there are four times as many elements for each output as with a stride of 1, and the
differences that are needed are those of whole rows, which follow each other in a strip. A task, some outputs of some
target channels, does this for one block of source channels after the other::

    strip[plane]     = the padded source, with phases along H apart        (`fastconv.cpu._strips`)
    strip[other]     = strip[plane, h] - strip[plane, h + 1], then of all of these strip[w] - strip[w + step]
    panel[c, m, n]   = the taps of a source channel, or sums of them, along H and W; target channels side by side
    sums[i, j]      += panel rows * strip elements, of pairs of outputs     (`fastconv.cpu._gemm.multiply`)

A vector holds target channels, so that a pixel is a single element and a stride costs nothing. Of the sums that make
an output, up to four, the total is turned around as it is stored.

Sources: Winograd, Arithmetic Complexity of Computations, 1980, section Vb; Karatsuba, Ofman, "Multiplication of
Multidigit Numbers on Automata", 1963, for the same identity.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..core.algorithm import Epilogue, Plan, Run, running_sum_error
from ..core.jit import Kernel, kernel, subroutine
from ..core.machine import local_machine
from ..core.problem import Axes, ConvProblem, Op
from ._activation import activate_row
from ._axes import folding
from ._extremes import NoticingLaunch, greatest_magnitudes, is_extreme, limit_of
from ._gemm import (
    ROWS,
    SPARE_ROWS,
    VECTORS,
    Product,
    lanes_of,
    multiply,
    padded,
    row_steps,
)
from ._geometry import Integers, Tables, even_split, with_sizes
from ._kernel import integers_at, never_inlined, number, views
from ._launch import Launch
from ._pairs import ADDED, NEGATED, Kind, Output, PairedAxis, paired_axis
from ._phases import axes_and_phases, fields_of
from ._rows import (
    STORED_ROW_CYCLES,
    TRANSPOSED_CYCLES,
    VECTOR_CYCLES,
    Finish,
    store_runs,
    transpose_all,
)
from ._simd import lanes, load, load_first, store, store_first, zeros
from ._strips import Strips, block_of, for_both_ways, gather_strips, header, is_plain, tile_of
from ._tiles import (
    CALL_TILES,
    TASK_CYCLES,
    UNALIGNED,
    Tiling,
    channels_of,
    gather_cycles,
    halo_of,
    parts_of,
    planes_of,
    positions_of,
    whole_rows_strip,
)

# Bytes of the strips, the panel and the sums of a task, about a second-level cache of 1 MiB together. On one thread
# 128x56x56 to 128, 3x3, took 1.76 ms with 350, 128 and 477 KiB, 1.80 to 1.99 with 400 to 500, 256 and 280 to 350.
STRIP_BYTES = 440 << 10
PANEL_BYTES = 256 << 10
SUMS_BYTES = 720 << 10
# Cycles for each vector of differences, and of taps that are added.
DIFFERENCE_CYCLES = 5
KIND_CYCLES = 7
# Cycles for each vector of a sum that goes into an output.
TOTAL_CYCLES = 4
REGISTER_TILE_CYCLES = 50


class Pairs(NamedTuple):
    """What the kernels know beside `Strips`; tables are positions in the geometry vector."""

    together_h: int  # outputs of a group, along each axis
    together_w: int
    planes: int  # of a channel in the strip, differences along H included
    plane: int  # elements of one of them
    differing: int  # planes with differences along H
    differing_at: int  # for each of them its plane and that of its differences
    differs_w: int  # whether there are differences along W
    step_w: int  # elements from one to the other
    further_at: int  # where they stand in the workspace: from here on as the planes from its begin
    taps_h: int
    taps_w: int
    kinds_h: int
    kinds_w: int
    panel_pitch: int  # elements of the panel from one source channel to the next
    kinds_h_at: int  # tables of `fastconv.cpu._pairs.Kind`
    kinds_w_at: int
    sums: int  # sums along both axes, and along W
    sums_w: int
    sums_pitch: int  # elements of one of them
    sums_entries_at: int  # for each its elements of the strip, its rows of the panel, and products of a channel
    phases_h: int  # of the target
    phases_w: int
    outputs_h_at: int  # tables of `fastconv.cpu._pairs.Output`
    outputs_w_at: int
    groups_w: int  # groups of outputs in a row of a tile
    target_p: int  # rows and columns of the target
    target_q: int
    turned_at: int  # taps turned around, and with the kinds along H, in the workspace
    kinds_at: int
    notices: int  # whether tasks tell the greatest magnitudes, in the place of the residual
    totals_at: int  # results of a group of rows and a vector of target channels, a pixel after the other
    lines_at: int  # and a channel after the other


# Numbers of them, of what is known of a sum, of a kind of taps and of an output.
PAIRS, ENTRY, KIND, OUTPUT = len(Pairs._fields), 3, len(Kind._fields), len(Output._fields)


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
    planes, their differences along W, taps turned around, a panel, sums, totals, and totals turned around.
    """
    g = header(geometry)
    pairs = _pairs(geometry)
    block = block_of(g, task)
    tile = tile_of(g, block.run)
    groups = -(-tile.height // pairs.together_h) * pairs.groups_w
    for first in range(0, g.sources, g.channel_block):
        channels = min(g.channel_block, g.sources - first)
        source_at = block.source_at + first * g.source_c
        gather_strips(plain, workspace, geometry, source, source_at, channels, tile, constants, first == 0)
        _subtract(workspace, geometry, channels, g.strip_w)
        _fill_panel(workspace, geometry, weights, block.weights_at + first * g.weight_source, channels, block.rows)
        for n in range(pairs.sums):
            entry = pairs.sums_entries_at + ENTRY * n
            product = Product(
                workspace, g.sums_at + n * pairs.sums_pitch, g.columns_pitch,
                workspace, 0,
                workspace, g.panel_at,
                geometry, g.pixels_at, geometry[entry], geometry[entry + 1], channels * geometry[entry + 2], first == 0,
            )  # fmt: skip
            multiply(product, groups, block.rows)
    finish = Finish(constants, residual, g.has_residual, g.activation, None)
    greatest = _store(target, workspace, geometry, block, tile, finish)
    if pairs.notices:
        store(residual, task * lanes(residual), greatest)


@subroutine
def _pairs(geometry):
    return Pairs(*integers_at(geometry, header(geometry).pairs_at, PAIRS))


@subroutine
def _subtract(workspace, geometry, channels, line):
    """Differences of neighbouring rows of the planes of some channels, then of neighbours in all rows."""
    never_inlined()
    pairs = _pairs(geometry)
    pitch = pairs.planes * pairs.plane
    for c in range(channels):
        for n in range(pairs.differing):
            begin = c * pitch + number(geometry, pairs.differing_at + 2 * n) * pairs.plane
            into = c * pitch + number(geometry, pairs.differing_at + 2 * n + 1) * pairs.plane
            _subtract_next(workspace, into, begin, line, pairs.plane - line)
    if pairs.differs_w:
        _subtract_next(workspace, pairs.further_at, 0, pairs.step_w, channels * pitch - pairs.step_w)


@subroutine
def _subtract_next(workspace, into, begin, distance, count):
    """workspace[into + i] = workspace[begin + i] - workspace[begin + distance + i] for i < count."""
    step = lanes(workspace)
    i = 0
    while i + step <= count:
        at = begin + i
        store(workspace, into + i, load(workspace, at, 1) - load(workspace, at + distance, 1))
        i += step
    if i < count:
        at, held = begin + i, count - i
        value = load_first(workspace, at, held, 1) - load_first(workspace, at + distance, held, 1)
        store_first(workspace, into + i, held, value)


@subroutine
def _fill_panel(workspace, geometry, weights, weights_at, channels, rows):
    """workspace[panel_at + ((c, m, n), k)] = kinds m along H and n along W of the taps of source c and target k."""
    never_inlined()
    g, pairs = header(geometry), _pairs(geometry)
    step, taps = lanes(workspace), pairs.taps_h * pairs.taps_w
    lines = pairs.kinds_h * pairs.taps_w
    at_once = channels if g.weight_source == taps else 1
    for k in range(0, rows, step):
        for c in range(0, channels, at_once):
            transpose_all(
                workspace, pairs.turned_at + c * taps * step, step,
                weights, weights_at + k * g.weight_target + c * g.weight_source, g.weight_target,
                min(step, rows - k), at_once * taps,
            )  # fmt: skip
        for m in range(pairs.kinds_h):
            for s in range(pairs.taps_w):
                _fill_kind(
                    workspace, pairs.kinds_at + (m * pairs.taps_w + s) * step, lines * step, pairs.turned_at + s * step,
                    pairs.taps_w * step, taps * step, channels, geometry, pairs.kinds_h_at + KIND * m,
                )  # fmt: skip
            for n in range(pairs.kinds_w):
                _fill_kind(
                    workspace, g.panel_at + k + (m * pairs.kinds_w + n) * g.columns_pitch, pairs.panel_pitch,
                    pairs.kinds_at + m * pairs.taps_w * step, step, lines * step, channels,
                    geometry, pairs.kinds_w_at + KIND * n,
                )  # fmt: skip


@subroutine
def _fill_kind(workspace, into, into_pitch, at, tap_pitch, pitch, channels, geometry, kind):
    """workspace[into + c * into_pitch] = what is made of the taps at + c * pitch + tap * tap_pitch, in vectors."""
    first = at + number(geometry, kind) * tap_pitch
    second = at + number(geometry, kind + 1) * tap_pitch
    form = number(geometry, kind + 2)
    if form == ADDED:
        for c in range(channels):
            value = load(workspace, first + c * pitch, 1) + load(workspace, second + c * pitch, 1)
            store(workspace, into + c * into_pitch, value)
    elif form == NEGATED:
        for c in range(channels):
            store(workspace, into + c * into_pitch, zeros(workspace, 1) - load(workspace, first + c * pitch, 1))
    else:
        for c in range(channels):
            store(workspace, into + c * into_pitch, load(workspace, first + c * pitch, 1))


@subroutine
def _store(target, workspace, geometry, block, tile, finish):
    """Add up what makes each result, and store it finished; give the greatest magnitudes before that.

    All phases of the target that belong to a group of rows are stored together, as they follow each other there; in
    channels first turned around.
    """
    never_inlined()
    g, pairs = header(geometry), _pairs(geometry)
    step = lanes(workspace)
    pitch = g.tile_q * pairs.phases_w
    p, q = tile.p * pairs.phases_h, tile.q * pairs.phases_w
    columns = min(pitch, pairs.target_q - q)
    height = pairs.together_h * pairs.phases_h
    greatest = zeros(target, 1)
    at = block.image * g.target_n + tile.z * g.target_d + p * g.target_h + q * g.target_w
    for k in range(0, block.rows, step):
        held, channel = min(step, block.rows - k), block.channel + k
        for line in range(-(-tile.height // pairs.together_h)):
            rows = min(height, pairs.target_p - p - line * height)
            for row in range(rows):
                _add_up(workspace, geometry, line, row, k)
                if pairs.notices:
                    greatest = _greatest(workspace, pairs.totals_at + row * pitch * step, columns, held, greatest)
            to = at + line * height * g.target_h + channel * g.target_c
            if g.target_c == 1:
                for row in range(rows):
                    totals = pairs.totals_at + row * pitch * step
                    _store_pixels(
                        target, to + row * g.target_h, g.target_w, workspace, totals, columns, channel, held, finish
                    )  # fmt: skip
            else:
                transpose_all(
                    workspace, pairs.lines_at, height * pitch, workspace, pairs.totals_at, step, rows * pitch, step
                )  # fmt: skip
                is_joined = columns == pitch and columns == g.target_h
                for i in range(held):
                    store_runs(
                        target, to + i * g.target_c, g.target_h, workspace, pairs.lines_at + i * height * pitch, pitch,
                        1 if is_joined else rows, rows * pitch if is_joined else columns, channel + i, 0, finish,
                    )  # fmt: skip
    return greatest


@subroutine
def _greatest(totals, at, count, channels, greatest):
    """`greatest` or the magnitudes of the first channels of so many pixels, lane by lane."""
    for q in range(count):
        greatest = greatest_magnitudes(load(totals, at + q * lanes(totals), 1), channels, greatest)
    return greatest


@subroutine
def _add_up(workspace, geometry, line, row, k):
    """workspace[totals_at + (row, pixel, lane)] = results of a row of a group, for the target channels from k on."""
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
        for q in range(pairs.groups_w):
            i = q * g.columns_pitch
            total = load(workspace, own + own_w + i, 1)
            if shared_w >= 0:
                total = total + load(workspace, own + shared_w + i, 1)
            if shared_h >= 0:
                further = load(workspace, shared + own_w + i, 1)
                if shared_w >= 0:
                    further = further + load(workspace, shared + shared_w + i, 1)
                total = total + further
            store(workspace, into + q * columns * step, total)


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


@lru_cache(maxsize=1024)
def axes_of(problem: ConvProblem, op: Op) -> tuple[PairedAxis, PairedAxis]:
    """The sums along H and W."""
    gap = problem.stride[2] - 1 if op is Op.FORWARD else 0
    return paired_axis(problem, op, 1, 0), paired_axis(problem, op, 2, gap)


def refusal(problem: ConvProblem, op: Op) -> str | None:
    """Why there is no way here for a problem with a stride."""
    if op is Op.GRAD_WEIGHT:
        return "with a stride it serves FORWARD and GRAD_INPUT only"
    if op is Op.GRAD_INPUT and folding(problem):
        return "with a stride it serves no padding that repeats elements in GRAD_INPUT"
    if problem.filter[0] != 1 or problem.stride[0] != 1:
        return "with a stride it serves filters of at most two axes"
    heights, widths = axes_of(problem, op)
    is_whole = all(all(each.sums) for each in (heights, widths))
    if not is_whole or heights.together == widths.together == 1:
        return "no two taps meet neighbouring elements for neighbouring outputs, so that they could share products"
    targets, lanes = channels_of(problem, op)[1], lanes_of(problem.dtype)
    if targets < lanes:
        return f"with a stride it serves groups of at least {lanes} output channels, which fill a vector"
    return None if next(tilings(problem, op), None) else "its sums would not fit a cache"


@lru_cache(maxsize=1024)
def sizes_of(problem: ConvProblem, op: Op) -> Tiling:
    """The sizes that take the least time; `pitch` is that of the totals turned around."""
    threads = local_machine().threads
    return min(tilings(problem, op), key=lambda each: each.time(threads))


def _strip_of(problem: ConvProblem, op: Op, tile: Axes) -> tuple[Axes, Axes, int]:
    """Planes of a channel as they are gathered, a strip, and its gap, as in `Tiling`."""
    if op is Op.FORWARD:
        return whole_rows_strip(problem, tile)
    depth, height, width = (part + more for part, more in zip(tile, halo_of(problem, op), strict=True))
    return planes_of(problem, op), (depth, height, width), 0


def tilings(problem: ConvProblem, op: Op) -> Iterator[Tiling]:
    heights, widths = axes_of(problem, op)
    sources, targets = channels_of(problem, op)
    positions, size, lanes = positions_of(problem, op), np.dtype(problem.dtype).itemsize, lanes_of(problem.dtype)
    grid = -(-positions[1] // heights.together), -(-positions[2] // widths.together)
    kinds, sums = len(heights.kinds) * len(widths.kinds), len(heights.sums) * len(widths.sums)
    products = heights.products * widths.products
    phases = len(heights.outputs) * len(widths.outputs)
    for lines, groups_w, row_block in itertools.product(
        itertools.islice(parts_of(grid[0], grid[0]), 24),
        itertools.islice(parts_of(grid[1], grid[1]), 6),
        {lanes * even_split(-(-targets // lanes), most) for most in range(2, -(-targets // lanes) + 1)} or {lanes},
    ):
        groups, columns = lines * groups_w, -(-row_block // lanes)
        tile = 1, lines * heights.together, groups_w * widths.together
        planes, strip, gap = _strip_of(problem, op, tile)
        planes = (planes[0], planes[1] + len(heights.differing), planes[2])
        plane, copies = math.prod(strip), 2 if widths.differing else 1
        channel = math.prod(planes) * plane
        most = min(STRIP_BYTES // (channel * copies), PANEL_BYTES // (kinds * columns * lanes)) // size
        if most == 0 or sums * groups * columns * lanes * size > SUMS_BYTES:
            continue
        block = even_split(sources, most)
        blocks = -(-sources // block)
        gather = sources * gather_cycles(problem, (1, planes[1] - len(heights.differing), 1), strip, lanes)
        gather += sources * -(-channel // lanes) * DIFFERENCE_CYCLES
        taps = problem.filter[1] * problem.filter[2]
        # In FORWARD the taps of all sources follow each other, in GRAD_INPUT each source has squares of its own.
        turned = taps if op is Op.FORWARD else 2 * padded(taps, problem.dtype)
        panel = turned * TRANSPOSED_CYCLES + (len(heights.kinds) * problem.filter[2] + kinds) * KIND_CYCLES
        product = sources * products * row_steps(groups) * columns * UNALIGNED
        register_tiles = blocks * (-(-groups // ROWS) * -(-columns // VECTORS) + CALL_TILES)
        product += sums * register_tiles * REGISTER_TILE_CYCLES
        again = VECTOR_CYCLES * sums * groups * columns * (blocks - 1)
        pixels = tile[1] * tile[2]
        store = phases * pixels * columns * (4 * TOTAL_CYCLES + TRANSPOSED_CYCLES)
        store += row_block * (lines * STORED_ROW_CYCLES + phases * -(-pixels // lanes) * VECTOR_CYCLES)
        tiles = positions[0] * -(-positions[1] // tile[1]) * -(-positions[2] // tile[2])
        tasks = problem.N * problem.groups * -(-targets // row_block) * tiles
        yield Tiling(
            positions, tile, strip, planes, block, row_block, True, -(-pixels // lanes) * lanes, tasks, gap=gap,
            cycles=tasks * (gather + sources * columns * panel + product + again + store + TASK_CYCLES),
        )  # fmt: skip


@dataclass(frozen=True)
class _Memory:
    """Places in the workspace, in elements."""

    further_at: int
    turned_at: int
    kinds_at: int
    panel_at: int
    panel_pitch: int
    columns_pitch: int
    sums_at: int
    sums_pitch: int
    totals_at: int
    lines_at: int
    elements: int


def _memory(problem: ConvProblem, op: Op) -> _Memory:
    sizes, (heights, widths) = sizes_of(problem, op), axes_of(problem, op)
    lanes, columns_pitch = lanes_of(problem.dtype), padded(sizes.row_block, problem.dtype)
    pixels = sizes.tile[1] * sizes.tile[2]
    groups = pixels // (heights.together * widths.together)
    strips = padded(sizes.channel_block * sizes.channel_pitch, problem.dtype)
    turned_at = strips * (2 if widths.differing else 1)
    kinds_at = turned_at + sizes.channel_block * problem.filter[1] * problem.filter[2] * lanes
    panel_at = kinds_at + sizes.channel_block * len(heights.kinds) * problem.filter[2] * lanes
    # No multiple of 4096 bytes, or what is stored for all channels in turn would share a few lines of the cache.
    panel_pitch = len(heights.kinds) * len(widths.kinds) * columns_pitch + lanes
    sums_at = panel_at + sizes.channel_block * panel_pitch
    sums_pitch = (groups + SPARE_ROWS) * columns_pitch
    totals_at = sums_at + len(heights.sums) * len(widths.sums) * sums_pitch
    results = heights.together * len(heights.outputs) * sizes.tile[2] * len(widths.outputs) * lanes
    lines_at = totals_at + results
    return _Memory(
        strips, turned_at, kinds_at, panel_at, panel_pitch, columns_pitch, sums_at, sums_pitch, totals_at, lines_at,
        lines_at + results,
    )  # fmt: skip


def workspace(problem: ConvProblem, op: Op) -> int:
    """Scratch memory of a thread, in bytes."""
    return _memory(problem, op).elements * np.dtype(problem.dtype).itemsize


def error_bound(problem: ConvProblem, op: Op) -> float:
    """That of sums of products which are larger: where two random elements or taps are added, by the root of two."""
    sizes, both = sizes_of(problem, op), axes_of(problem, op)
    terms = sizes.channel_block * math.prod(max(map(len, each.sums)) for each in both)
    blocks = -(-channels_of(problem, op)[0] // sizes.channel_block)
    return math.sqrt(_growth(problem, op)) * running_sum_error(problem, terms + blocks + 3)


def _growth(problem: ConvProblem, op: Op) -> int:
    """Of sums of magnitudes: along each axis products of two elements and a tap, or an element and two taps."""
    return math.prod(each.together for each in axes_of(problem, op))


def plan(problem: ConvProblem, op: Op, epilogue: Epilogue) -> Plan:
    sizes = sizes_of(problem, op)
    return Plan(
        algorithm="winograd",
        problem=problem,
        op=op,
        workspace_bytes=workspace(problem, op),
        run=_launch(problem, op, sizes, epilogue),
        limit=limit_of(problem, op, _growth(problem, op)),
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
    memory = _memory(problem, op)
    source_axes, target_axes, _ = axes_and_phases(problem, op, sizes)
    tables = Tables(Strips)
    fields = fields_of(tables, problem, op, epilogue, sizes, (source_axes, target_axes))
    fields |= {
        "planes_h": sizes.planes[1] - len(axes_of(problem, op)[0].differing),
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
    limit = limit_of(problem, op, _growth(problem, op))
    return NoticingLaunch(launch, sizes.tasks, problem.dtype, limit) if notices else launch


def _pixels(problem: ConvProblem, op: Op, sizes: Tiling) -> Integers:
    """Positions in the strip of the first output of each group."""
    heights, widths = axes_of(problem, op)
    lines = heights.step * heights.together * np.arange(sizes.tile[1] // heights.together)
    groups = widths.step * widths.together * np.arange(sizes.tile[2] // widths.together)
    return (lines[:, None] * sizes.strip[2] + groups).reshape(-1)


def _fields(
    tables: Tables, problem: ConvProblem, op: Op, epilogue: Epilogue, sizes: Tiling, memory: _Memory
) -> list[int]:
    """The numbers of `Pairs`."""
    heights, widths = axes_of(problem, op)
    plane, planes = math.prod(sizes.strip), sizes.planes[1]
    differing = {slot: planes - len(heights.differing) + n for n, slot in enumerate(heights.differing)}
    channels = np.arange(sizes.channel_block)[:, None]
    entries: list[int] = []
    for sum_h, sum_w in itertools.product(heights.sums, widths.sums):
        terms = list(itertools.product(sum_h, sum_w))
        elements = [
            (differing[h.slot] if h.is_difference else h.slot) * plane + h.shift * sizes.strip[2]
            + w.shift + w.is_difference * memory.further_at
            for h, w in terms
        ]  # fmt: skip
        rows = [(h.kind * len(widths.kinds) + w.kind) * memory.columns_pitch for h, w in terms]
        entries += [
            tables.add(channels * sizes.channel_pitch + elements),
            tables.add(channels * memory.panel_pitch + rows),
            len(terms),
        ]
    return list(
        Pairs(
            together_h=heights.together,
            together_w=widths.together,
            planes=planes,
            plane=plane,
            differing=len(differing),
            differing_at=tables.add(np.array(list(differing.items()), np.int64)),
            differs_w=bool(widths.differing),
            step_w=widths.step,
            further_at=memory.further_at,
            taps_h=problem.filter[1],
            taps_w=problem.filter[2],
            kinds_h=len(heights.kinds),
            kinds_w=len(widths.kinds),
            panel_pitch=memory.panel_pitch,
            kinds_h_at=tables.add(np.array(heights.kinds)),
            kinds_w_at=tables.add(np.array(widths.kinds)),
            sums=len(heights.sums) * len(widths.sums),
            sums_w=len(widths.sums),
            sums_pitch=memory.sums_pitch,
            sums_entries_at=tables.add(entries),
            phases_h=len(heights.outputs),
            phases_w=len(widths.outputs),
            outputs_h_at=tables.add(np.array(heights.outputs)),
            outputs_w_at=tables.add(np.array(widths.outputs)),
            groups_w=sizes.tile[2] // widths.together,
            target_p=(problem.input if op is Op.GRAD_INPUT else problem.output)[1],
            target_q=(problem.input if op is Op.GRAD_INPUT else problem.output)[2],
            turned_at=memory.turned_at,
            kinds_at=memory.kinds_at,
            notices=not epilogue.residual,
            totals_at=memory.totals_at,
            lines_at=memory.lines_at,
        )
    )
