"""Direct convolution: gather a strip, multiply through an offset table, store what is not border.

A task takes a tile of output pixels. It copies the rows that the tile needs, of every channel, into a strip in
the workspace, with padding filled in and each stride phase in a plane of its own (`fastconv.cpu._axes`). In the
strip the pixels of a tile are contiguous for each channel and filter tap, and one offset says where::

    y[k, i] = sum over j of w[k, j] * strip[offset[j] + i],   j = (c, t, r, s),
    offset[j] = c * channel_pitch + plane(t, r, s) + (shift_t * strip_h + shift_r) * strip_w + shift_s

i runs over whole rows of the strip, so the columns on its border give sums that mean nothing; they are dropped
when the tile is stored. Where that wastes too much, the strip is copied once more into a panel without them.
GRAD_INPUT is the same with the roles exchanged: y is gathered with a border of zeros, and each stride phase of x is an
output of its own with its own taps. In GRAD_WEIGHT the sums run over the pixels, of which a table skips the border::

    w[k, j] = sum over i of y[k, i] * strip[offset[j] + pixel[i]]

with the tile of y transposed, so that a vector holds neighbouring k, and rows in the strip as they are, so that pixels
are the stride apart.

Some problems have kernels of their own: groups with a single target channel in `fastconv.cpu._lines` and
`_line_weights`, depthwise filters of 3x3 in `_three_lines`, filters of one element in `_pointwise` and
`_pointwise_weights`, wide images in `_rowwise`, large strides in `_pixelwise`. Depthwise filters that cover the image
change places with it (`_exchanged`). The sizes of tiles are chosen in `fastconv.cpu._tiles`.

Sources: Zhang, Franchetti, Low, "High Performance Zero-Memory Overhead Direct Convolutions", ICML 2018 (blocking
of the direct method); Dukhan, "The Indirect Convolution Algorithm", 2019, section 3 (multiplying through a table).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..core.algorithm import Algorithm, Array, Epilogue, Plan, running_sum_error
from ..core.jit import Kernel, kernel, subroutine
from ..core.machine import Machine, local_machine
from ..core.problem import ConvProblem, Op
from . import (
    _channels_dense,
    _channels_depthwise,
    _dots,
    _exchanged,
    _line_weights,
    _lines,
    _pixelwise,
    _pointwise,
    _pointwise_weights,
    _rowwise,
    _three_lines,
)
from ._axes import folding
from ._dots import multiply_by_dots
from ._exchanged import Exchange
from ._gemm import ROWS, SPARE_ROWS, Product, lanes_of, multiply
from ._geometry import Tables, initialise, with_sizes
from ._kernel import views
from ._launch import Launch, SummedLaunch
from ._phases import axes_and_phases, fields_of, offsets_of, taken_weights
from ._rows import Finish, changes, fill, finish_runs, transpose_all
from ._simd import FAST_PRODUCTS, lanes
from ._strips import (
    PHASE,
    Strips,
    block_of,
    columns_of,
    for_both_ways,
    gather_strips,
    header,
    is_plain,
    pack_panel,
    store_tile,
    tile_of,
    transpose_tile,
    weight_block_of,
)
from ._tiles import Tiling, channels_of, role_fields, row_group, rows_are_joined, tiling, together

# Modules whose kernels serve some problems.
OWN_KERNELS = (_pointwise, _pointwise_weights, _three_lines, _pixelwise, _channels_depthwise, _channels_dense)
# Strips that are packed while they are in a first-level cache, where products are fast: 128x56x56 to 128, 3x3 with a
# stride of 2, took 0.83 ms on an Intel Xeon with all strips of a block at once, 0.81 with 16 or 32 KiB, and takes 0.79.
PACKED_STRIPS_BYTES = 8 << 10
# Parts of the workspace begin at multiples of it: a cache line of any type.
ALIGNMENT = 16


# ---- kernels


def _forward(plain: bool | None) -> Kernel:
    @kernel
    def run(task, x, w, y, residual, constants, workspace, geometry):
        x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
        _correlate(plain, task, x, w, y, residual, constants, workspace, geometry, None)

    return run


def _grad_input(plain: bool | None) -> Kernel:
    @kernel
    def run(task, x, w, y, residual, constants, workspace, geometry):
        x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
        accumulates = header(geometry).accumulates
        _correlate(plain, task, y, w, x, residual, constants, workspace, geometry, accumulates)

    return run


@subroutine
def _correlate(plain, task, source, weights, target, residual, constants, workspace, geometry, accumulates):
    """One task: a run of tiles, one block of target channels of one group of one image.

    plain: as in `gather_strips`; source, target: tensors in either layout; weights: (K, C / groups, taps); workspace:
    strips, a panel, sums; accumulates: as in `Finish`.
    """
    g = header(geometry)
    tiles = g.tiles_z * g.tiles_p * g.tiles_q
    block = block_of(g, task)
    finish = Finish(constants, residual, g.has_residual, g.activation, accumulates)
    is_changed = changes(finish, block.channel, block.rows)
    for number in range(block.run * g.tiles_per_task, min((block.run + 1) * g.tiles_per_task, tiles)):
        tile = tile_of(g, number)
        for first in range(0, g.sources, g.channel_block):
            channels = min(g.channel_block, g.sources - first)
            _gather(plain, workspace, geometry, source, block.source_at, first, channels, tile, constants)
            for phase in range(0, g.phases, g.together):
                if g.packed and g.phases > g.together:
                    _pack(workspace, geometry, g, phase, 0, channels, tile)
                _add_channels(
                    phase, first, channels, block, weights, target, workspace, geometry, tile, finish, is_changed
                )  # fmt: skip


@subroutine
def _gather(plain, workspace, geometry, source, source_at, first, channels, tile, constants):
    """The strips of channels from `first` on, a few at a time, and their panel where all phases have one at once."""
    g = header(geometry)
    for c in range(0, channels, g.strip_channels):
        gathered = min(g.strip_channels, channels - c)
        at = source_at + (first + c) * g.source_c
        gather_strips(plain, workspace, geometry, source, at, gathered, tile, constants, first + c == 0)
        if g.packed and g.phases == g.together:
            _pack(workspace, geometry, g, 0, c, gathered, tile)


@subroutine
def _add_channels(phase, first, channels, block, weights, target, workspace, geometry, tile, finish, is_changed):
    """Add the products of source channels from `first` on to phases that are stored together; store them with the last.

    block: the target channels of a group of an image; is_changed: whether finishing changes any of them.
    """
    g = header(geometry)
    columns, image_at = columns_of(g, tile), block.image * g.target_n
    left = columns % lanes(target)
    by_dots = g.dots_at >= 0 and 0 < left <= _dots.MOST
    to_target = g.in_place and (left == 0 or by_dots) and block.rows % ROWS == 0
    # A call costs as much as a few register tiles: all rows at once, unless their sums share memory.
    at_once = block.rows if to_target or g.keeps_sums else g.row_group
    in_vectors = columns - left if by_dots and at_once == block.rows else columns
    for k in range(0, block.rows, at_once):
        held, channel = min(at_once, block.rows - k), block.channel + k
        sums = g.sums_at + (phase * g.phase_pitch + k * g.pitch if g.keeps_sums else 0)
        at = image_at + channel * g.target_c + tile.z * g.target_d + tile.p * g.target_h + tile.q
        for part in range(g.together):
            entry = g.phases_at + (phase + part) * PHASE
            terms, into = channels * geometry[entry], at if to_target else sums + part * g.phase_pitch
            if terms == 0:
                fill(workspace, into, held * g.pitch, 0)
                continue
            product = Product(
                target if to_target else workspace, into, g.target_c if to_target else g.pitch,
                weights, block.weights_at + first * g.weight_source,
                workspace, g.panel_at + part * g.panel_pitch if g.packed else 0,
                geometry, g.rows_at + k, geometry[entry + 2],
                g.panel_rows_at if g.packed else geometry[entry + 1], terms, first == 0,
            )  # fmt: skip
            multiply(product, held, in_vectors)
            if in_vectors < columns:
                multiply_by_dots(product, g.dots_at, g.dots_pitch, held, in_vectors, left)
        if first + channels < g.sources:
            continue
        if not to_target:
            entry = g.phases_at + phase * PHASE
            store_tile(target, image_at, workspace, sums, channel, held, geometry, tile, entry, finish)
        elif is_changed:
            finish_runs(target, at, g.target_c, held, columns, channel, 1, finish)


@subroutine
def _pack(workspace, geometry, g, phase, first, channels, tile):
    """The panels of phases that are stored together: their part from channel `first` on, of channels in the strip."""
    for part in range(g.together):
        entry = g.phases_at + (phase + part) * PHASE
        taps = geometry[entry]
        panel_at = g.panel_at + part * g.panel_pitch + first * taps * g.pitch
        pack_panel(workspace, g, geometry, panel_at, geometry[entry + 1], channels * taps, tile)


@subroutine
def _correlate_weights(plain, task, tensors):
    """One task: a run of tiles of all images, one block of input and one of output channels of one group.

    w: (runs, K, C / groups, taps), to be added up over the runs; workspace: strips, y transposed, sums (c, tap, k).
    """
    x, w, y, _, constants, workspace, geometry = tensors
    g = header(geometry)
    tiles = g.tiles_z * g.tiles_p * g.tiles_q
    taps, offsets_at = geometry[g.phases_at], geometry[g.phases_at + 1]
    run, group, first, channels, channel, rows = weight_block_of(g, task)
    begin = run * g.tiles_per_task
    for item in range(begin, min(begin + g.tiles_per_task, g.images * tiles)):
        image, number = divmod(item, tiles)
        tile = tile_of(g, number)
        source_at = image * g.source_n + (group * g.sources + first) * g.source_c
        gather_strips(plain, workspace, geometry, x, source_at, channels, tile, constants, item == begin or tiles > 1)
        transpose_tile(workspace, g, y, image * g.target_n, channel, rows, tile)
        product = Product(
            workspace, g.sums_at, g.pitch,
            workspace, 0,
            workspace, g.panel_at,
            geometry, offsets_at, g.pixels_at, g.panel_rows_at,
            tile.depth * tile.height * tile.width, item == begin,
        )  # fmt: skip
        multiply(product, channels * taps, rows)
    width = g.sources * taps
    w_at = (run * g.groups * g.targets + channel) * width + first * taps
    transpose_all(w, w_at, width, workspace, g.sums_at, g.pitch, channels * taps, rows)


def _grad_weight(plain: bool | None) -> Kernel:
    @kernel
    def run(task, x, w, y, residual, constants, workspace, geometry):
        _correlate_weights(plain, task, views(x, w, y, residual, constants, workspace, geometry))

    return run


KERNELS = {
    Op.FORWARD: for_both_ways(_forward),
    Op.GRAD_INPUT: for_both_ways(_grad_input),
    Op.GRAD_WEIGHT: for_both_ways(_grad_weight),
}


# ---- plans


def _collapsed(problem: ConvProblem) -> ConvProblem:
    """The problem with as few axes as describe it: axes that no filter, stride or padding tells apart are one."""
    input = list(problem.input)
    for axis in (1, 0):
        if all(_is_trivial(problem, each) for each in (axis, 2)):
            input[2] *= input[axis]
            input[axis] = 1
        else:
            break
    return problem.replace(input=tuple(input)) if input != list(problem.input) else problem


def _is_trivial(problem: ConvProblem, axis: int) -> bool:
    return problem.filter[axis] == problem.stride[axis] == 1 and problem.padding[axis] == (0, 0)


@dataclass(frozen=True)
class _Memory:
    """Places in the workspace, in elements; each part ends with a vector to spare."""

    panel_at: int
    panel_pitch: int
    sums_at: int
    phase_pitch: int
    scratch_at: int
    dots_at: int
    dots_pitch: int
    elements: int
    keeps_sums: bool


def _memory(problem: ConvProblem, op: Op, sizes: Tiling) -> _Memory:
    spare = lanes_of(problem.dtype)
    strips = _strip_channels(problem, op, sizes) * sizes.channel_pitch
    phases_together = together(problem, op)
    keeps_sums = op is not Op.GRAD_WEIGHT and sizes.channel_block < channels_of(problem, op)[0]
    by_lines = _by_lines(problem, op)
    if by_lines:
        keeps_sums = False
        panel, rows = 0, 1
    elif sizes.row_by_row:
        panel, rows = 0, 0
    elif op is Op.GRAD_WEIGHT:
        panel, rows = math.prod(sizes.tile) * sizes.pitch, sizes.channel_block * problem.taps
    else:
        panel = sizes.channel_block * problem.taps * sizes.pitch if sizes.packed else 0
        rows = row_group(problem)
        if keeps_sums:
            rows = -(-sizes.row_block // rows) * rows
    panel_at = _aligned(strips + spare)
    panel_pitch = _aligned(panel + spare)
    sums_at = panel_at + phases_together * panel_pitch
    phase_pitch = _aligned((rows + SPARE_ROWS) * sizes.pitch)
    phases = math.prod(problem.stride) if keeps_sums and op is Op.GRAD_INPUT else phases_together
    scratch_at = sums_at + phases * phase_pitch
    # Only FORWARD takes its weights one after the other.
    dots_pitch = _aligned(sizes.channel_block * problem.taps) if op is Op.FORWARD and not by_lines else 0
    dots_at = scratch_at + spare * spare
    return _Memory(
        panel_at, panel_pitch, sums_at, phase_pitch, scratch_at, dots_at if dots_pitch else -1, dots_pitch,
        dots_at + _dots.MOST * dots_pitch, keeps_sums,
    )  # fmt: skip


def _strip_channels(problem: ConvProblem, op: Op, sizes: Tiling) -> int:
    """Channels that are gathered at once: all of a block where strips are multiplied, or packed phase by phase."""
    by_phases = op is Op.GRAD_INPUT and math.prod(problem.stride) > 1
    if not FAST_PRODUCTS or not sizes.packed or by_phases or problem.layout == "channels_last":
        return sizes.channel_block
    strip_bytes = sizes.channel_pitch * np.dtype(problem.dtype).itemsize
    return min(sizes.channel_block, max(1, PACKED_STRIPS_BYTES // strip_bytes))


def _aligned(elements: int) -> int:
    return -(-elements // ALIGNMENT) * ALIGNMENT


def plan(problem: ConvProblem, op: Op, epilogue: Epilogue) -> Plan:
    usual = _plan(problem, op, epilogue)
    exchange = None if epilogue.residual else _exchange(problem, op)
    return usual if exchange is None else _exchanged.plan(problem, op, epilogue, _plan(*exchange, epilogue), usual)


def _plan(problem: ConvProblem, op: Op, epilogue: Epilogue) -> Plan:
    whole, problem = problem, _collapsed(problem)
    own = _own_kernels(problem, op)
    if own is not None:
        planned: Plan = own.plan(whole, problem, op, epilogue)
        return planned
    by_lines = _by_lines(problem, op)
    sizes = _tiling(problem, op)
    memory = _memory(problem, op, sizes)
    source_axes, target_axes, phases = axes_and_phases(problem, op, sizes)
    roles = role_fields(problem, op)
    sources = roles["sources"]
    tables = Tables(Strips)
    entries: list[int] = []
    for phase in phases:
        if by_lines and op is not Op.GRAD_WEIGHT:
            offsets, taken = _lines.run_tables(phase.taps, source_axes, roles, problem, sizes)
        else:
            block = sources if by_lines else sizes.channel_block
            offsets = offsets_of(phase, sizes, block)
            taken = taken_weights(phase, problem, block, roles["weight_source"])
            if by_lines:
                offsets = np.append(offsets, np.repeat(offsets[-1:], _line_weights.DOT_TERMS))
        entries += [phase.count, tables.add(offsets), tables.add(taken), *phase.slots]
    folded = op is Op.GRAD_INPUT and folding(problem)
    joined = _is_joined(problem, op, sizes)
    in_place = joined and sizes.tile[0] == 1 and len(phases) == 1 and sizes.channel_block == sources
    panel_rows = math.prod(sizes.tile) if op is Op.GRAD_WEIGHT else sizes.channel_block * problem.taps
    vector = tables.partial_vector(
        **fields_of(tables, problem, op, epilogue, sizes, (source_axes, target_axes)),
        row_group=row_group(problem),
        strip_channels=_strip_channels(problem, op, sizes),
        keeps_sums=memory.keeps_sums,
        phase_pitch=memory.phase_pitch,
        panel_pitch=memory.panel_pitch,
        packed=sizes.packed,
        panel_at=memory.panel_at,
        sums_at=memory.sums_at,
        scratch_at=memory.scratch_at,
        dots_at=memory.dots_at,
        dots_pitch=memory.dots_pitch,
        joined=joined,
        in_place=in_place,
        in_source=by_lines and op is not Op.GRAD_WEIGHT and _lines.reads_source(problem, op),
        accumulates=folded,
        rows_at=tables.add(roles["target_c" if op is Op.GRAD_WEIGHT else "weight_target"] * np.arange(sizes.row_block)),
        panel_rows_at=tables.add(sizes.pitch * np.arange(panel_rows)),
        phases=len(phases),
        phases_at=tables.add(entries),
    )
    parts, tasks = sizes.parts, sizes.tasks
    geometry = with_sizes(vector, problem, op, parts * math.prod(problem.w_shape), memory.elements)

    if by_lines and op is Op.GRAD_WEIGHT:
        kernel = _line_weights.KERNELS[is_plain(problem, op, sizes.gap)]
    elif by_lines:
        kernel = _lines.kernel_of(problem, op, phases, joined)
    else:
        kernel = (_rowwise.KERNELS if sizes.row_by_row else KERNELS)[op][is_plain(problem, op, sizes.gap)]
    launch = Launch(kernel, tasks, problem.dtype, geometry, memory.elements)

    def add_to_bias(x: Array, w: Array, y: Array, residual: Array, constants: Array, threads: int) -> None:
        initialise(x, whole, constants)
        launch(x, w, y, residual, constants, threads)

    return Plan(
        algorithm="direct",
        problem=whole,
        op=op,
        workspace_bytes=memory.elements * np.dtype(problem.dtype).itemsize,
        run=SummedLaunch(launch, parts) if op is Op.GRAD_WEIGHT else add_to_bias if folded else launch,
        tiles={
            "pixels": math.prod(sizes.tile),
            "channels": sizes.channel_block,
            "rows": sizes.row_block,
            "packed": int(sizes.packed),
            "row_by_row": int(sizes.row_by_row),
            "tasks": tasks,
        },
    )


@lru_cache(maxsize=1024)
def _exchange(problem: ConvProblem, op: Op) -> Exchange | None:
    """What is computed instead if that is cheaper."""
    exchange, machine = _exchanged.exchange_of(problem, op), local_machine()
    if exchange is None or _cost(problem, op, machine) <= _exchanged_cost(problem, op, exchange, machine):
        return None
    return exchange


def _own_kernels(problem: ConvProblem, op: Op) -> Any:
    """The module that has kernels of its own for a problem, tasks and all, or None."""
    return next((each for each in OWN_KERNELS if each.serves(problem, op)), None)


def _tiling(problem: ConvProblem, op: Op) -> Tiling:
    if not _by_lines(problem, op):
        return tiling(problem, op)
    return _line_weights.tiling(problem) if op is Op.GRAD_WEIGHT else _lines.tiling(problem, op)


def _by_lines(problem: ConvProblem, op: Op) -> bool:
    """Whether the kernels of lines compute a problem: one target channel, and strips of all its sources fit."""
    if problem.layout == "channels_last" or channels_of(problem, op)[1] != 1:
        return False
    tilings = _line_weights.tilings(problem) if op is Op.GRAD_WEIGHT else _lines.tilings(problem, op)
    return next(tilings, None) is not None


def _is_joined(problem: ConvProblem, op: Op, sizes: Tiling) -> bool:
    """Whether the rows of a tile follow each other in the target and in the sums.

    For the kernels of lines: whether these can be added up in the target.
    """
    if _by_lines(problem, op):
        return op is not Op.GRAD_INPUT or (problem.stride[2] <= 2 and not folding(problem))
    return rows_are_joined(problem, op, sizes.tile, op is Op.GRAD_WEIGHT or sizes.line_pitch == sizes.tile[2])


# ---- what the selector asks


def supports(problem: ConvProblem, op: Op) -> str | None:
    return None


def workspace(problem: ConvProblem, op: Op) -> int:
    exchange = _exchange(problem, op)
    usual = _workspace(problem, op)
    return usual if exchange is None else max(usual, _workspace(*exchange))


def _workspace(problem: ConvProblem, op: Op) -> int:
    problem = _collapsed(problem)
    own = _own_kernels(problem, op)
    if own is not None:
        return int(own.workspace(problem, op))
    return _memory(problem, op, _tiling(problem, op)).elements * np.dtype(problem.dtype).itemsize


def error_bound(problem: ConvProblem, op: Op) -> float:
    """One sum over all terms, but in GRAD_WEIGHT first over the pixels of each tile."""
    exchange = _exchange(problem, op)
    usual = _error_bound(problem, op)
    return usual if exchange is None else max(usual, _error_bound(*exchange))


def _error_bound(problem: ConvProblem, op: Op) -> float:
    if op is Op.GRAD_WEIGHT:
        collapsed = _collapsed(problem)
        own = _own_kernels(collapsed, op)
        if own is not None:
            return running_sum_error(problem, own.sizes_of(collapsed, op).additions)
        sizes = _tiling(collapsed, op)
        return running_sum_error(problem, math.prod(sizes.tile) + problem.N * math.prod(sizes.tiles))
    return running_sum_error(problem, problem.terms(op) + 1)


def cost(problem: ConvProblem, op: Op, machine: Machine) -> float:
    """The cycles of the tasks, and the tensors through memory once."""
    exchange = _exchange(problem, op)
    return _cost(problem, op, machine) if exchange is None else _exchanged_cost(problem, op, exchange, machine)


def _cost(problem: ConvProblem, op: Op, machine: Machine) -> float:
    collapsed = _collapsed(problem)
    own = _own_kernels(collapsed, op)
    sizes = own.sizes_of(collapsed, op) if own is not None else _tiling(collapsed, op)
    return machine.seconds(sizes.cycles, sizes.tasks, problem.bytes)


def _exchanged_cost(problem: ConvProblem, op: Op, exchange: Exchange, machine: Machine) -> float:
    return problem.N * _cost(*exchange, machine) + _exchanged.seconds(problem, op)


ALGORITHM = Algorithm(
    name="direct",
    device="cpu",
    supports=supports,
    cost=cost,
    error_bound=error_bound,
    workspace=workspace,
    plan=plan,
)
