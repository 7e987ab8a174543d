"""Direct convolution in channels_last: the channels of a pixel are neighbours, and a vector holds target channels.

A pixel is a single element, wherever it stands, as in `fastconv.cpu._pixelwise`, and the sums are in the order of the
target, so that nothing is turned around but the weights::

    y[i, k] = sum over j of strip[pixel[i] + offset[j]] * panel[j, k],   j = (c, t, r, s)

GRAD_INPUT is the same with the roles exchanged, each stride phase of x an output of its own with its own taps. In
GRAD_WEIGHT the sums run over the pixels, and y is read as it is::

    w[j, k] = sum over i of strip[pixel[i] + offset[j]] * y[i, k]
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..core.algorithm import Epilogue, Plan
from ..core.jit import kernel, subroutine
from ..core.machine import local_machine
from ..core.problem import Axes, ConvProblem, Op
from ._axes import folding
from ._channels import (
    CHANNELS_CYCLES,
    PIXEL_CYCLES,
    Sizes,
    copy_pixels,
    finish_pixels,
    gather_cycles,
    gather_pixels,
    store_pixels,
)
from ._gemm import (
    FEW_ROWS,
    ROWS,
    SPARE_ROWS,
    TILE_CYCLES,
    VECTORS,
    Ending,
    Product,
    lanes_of,
    multiply,
    padded,
    row_cycles,
)
from ._geometry import Integers, Tables, even_split, with_sizes
from ._kernel import views
from ._launch import Launch, SummedLaunch
from ._past_caches import caches_passed, products_pass_caches
from ._phases import Phase, axes_and_phases, fields_of, offsets_of, pixels_of
from ._pixelwise import PANEL_BYTES, row_blocks
from ._rows import TRANSPOSED_CYCLES, VECTOR_CYCLES, Finish, changes, copy, fill, transpose_all
from ._simd import FAST_PRODUCTS, REGISTER_BYTES, lanes
from ._strips import PHASE, Strips, header, tile_of, weight_block_of
from ._tiles import (
    CALL_TILES,
    SUMS_BYTES,
    TASK_CYCLES,
    TASKS_LEAST,
    WEIGHT_CHANNELS,
    WEIGHT_PIXELS,
    axes,
    channels_of,
    halo_of,
    parts_of,
    planes_of,
    positions_of,
    summing_cycles,
    tile_choices,
    whole_rows_strip,
)

# Bytes of the weights of a register tile, at most: a thread is to have no more than 8 MiB.
LEAST_PANEL_BYTES = 4 << 20
# Pixels of a tile and bytes of a strip, as those of `fastconv.cpu._pixelwise`.
TILE_PIXELS = 480
STRIP_BYTES = 256 << 10
# Bytes of a tensor whose pixels are read where they lie, at most: those of a larger one come from far, and are fetched
# beforehand where they are gathered. 14x14, 1024 channels to 256, took 0.50 ms gathered and 0.48 in place, but
# 8x56x56, 256 channels to 64, 4.6 and 5.4. On an Intel Xeon that takes 2.96 gathered and 2.87 in place, its GRAD_INPUT
# 2.63 and 2.34.
NEAR_BYTES = math.inf if FAST_PRODUCTS else 4 << 20
# Cycles for each vector of weights that is turned around, whose rows lie far apart: 0.034 ms for 1152 weights of 128
# channels. Every task does that for itself and finds them near: turned around once for all, and read from the cache
# that the threads share, 3x3 with a stride of 2, 128x56x56, took 1.57 ms in place of 1.32.
TURNED_CYCLES = 13
# The fields of a tensor's strides along the three axes, of `fastconv.cpu._strips.Strips`.
AXES = ("source_d", "source_h", "source_w")


# ---- kernels


@kernel
def _forward(task, x, w, y, residual, constants, workspace, geometry):
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    _multiply_pixels(task, x, w, y, residual, constants, workspace, geometry)


@kernel
def _grad_input(task, x, w, y, residual, constants, workspace, geometry):
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    _multiply_pixels(task, y, w, x, residual, constants, workspace, geometry)


@subroutine
def _multiply_pixels(task, source, weights, target, residual, constants, workspace, geometry):
    """One task: a run of the tiles of all images, one block of target channels of one group.

    source, target: channels last; weights: (K, C / groups, taps); workspace: strips, weights, sums of each phase.
    """
    g = header(geometry)
    tiles = g.tiles_z * g.tiles_p * g.tiles_q
    runs, blocks = -(-g.images * tiles // g.tiles_per_task), -(-g.targets // g.row_block)
    group, rest = divmod(task, runs * blocks)
    block, run = divmod(rest, runs)
    begin = block * g.row_block
    rows, channel = min(g.row_block, g.targets - begin), group * g.targets + begin
    taps = min(g.weight_source, g.weight_target)
    _turn_weights(workspace, g, weights, group * g.weight_group + begin * g.weight_target, rows, taps)
    finish = Finish(constants, residual, g.has_residual, g.activation, None)
    may_pass, has_passed = g.channel_block >= g.sources and not changes(finish, channel, rows), False
    for item in range(run * g.tiles_per_task, min((run + 1) * g.tiles_per_task, g.images * tiles)):
        image, number = divmod(item, tiles)
        tile = tile_of(g, number)
        pixels = tile.depth * tile.height * tile.width
        for first in range(0, g.sources, g.channel_block):
            channels = min(g.channel_block, g.sources - first)
            left, left_at = source, image * g.source_n + group * g.sources + first
            if g.in_source:
                left_at += tile.z * g.position_d + tile.p * g.position_h + tile.q * g.position_w
            else:
                gather_pixels(workspace, geometry, source, left_at, channels, tile, constants)
                left, left_at = workspace, 0
            # Rows of sums behind the last are written unless these fill short register tiles.
            to_target = g.in_place != 0 and rows % lanes(target) == 0 and pixels % FEW_ROWS <= 2
            for phase in range(g.phases):
                entry, sums, sums_at, pitch = g.phases_at + phase * PHASE, workspace, g.sums_at, g.columns_pitch
                sums_at += phase * g.phase_pitch
                if to_target:
                    sums, sums_at, pitch = target, image * g.target_n + channel, g.target_w
                    sums_at += tile.z * g.target_d + tile.p * g.target_h + tile.q * g.target_w
                passes = to_target and may_pass and products_pass_caches(target, sums_at, pitch)
                has_passed |= passes
                terms = channels * geometry[entry]
                if terms == 0:
                    fill(workspace, sums_at, pixels * pitch, 0)
                else:
                    product = Product(
                        sums, sums_at, pitch,
                        left, left_at,
                        workspace, g.panel_at + first * taps * g.columns_pitch,
                        geometry, g.pixels_at, geometry[entry + 1], geometry[entry + 2], terms,
                        Ending(first == 0, passes),
                    )  # fmt: skip
                    multiply(product, pixels, rows)
        for phase in range(g.phases):
            entry = g.phases_at + phase * PHASE
            if not to_target:
                store_pixels(
                    target, image * g.target_n, workspace, g.sums_at + phase * g.phase_pitch, g.columns_pitch,
                    channel, rows, geometry, tile, entry, finish,
                )  # fmt: skip
            elif changes(finish, channel, rows):
                finish_pixels(target, image * g.target_n, channel, rows, geometry, tile, finish)
    if has_passed:
        caches_passed()


@subroutine
def _turn_weights(workspace, g, weights, weights_at, rows, taps):
    """workspace[panel_at + (c * taps + tap) * columns_pitch + k] = the weight of source c, tap, and target k < rows."""
    if g.weight_source == taps:
        transpose_all(
            workspace, g.panel_at, g.columns_pitch, weights, weights_at, g.weight_target, rows, g.sources * taps
        )  # fmt: skip
        return
    for c in range(g.sources):
        to, begin = g.panel_at + c * taps * g.columns_pitch, weights_at + c * g.weight_source
        if taps == 1:
            copy(workspace, to, weights, begin, rows)
        else:
            transpose_all(workspace, to, g.columns_pitch, weights, begin, g.weight_target, rows, taps)


@kernel
def _grad_weight(task, x, w, y, residual, constants, workspace, geometry):
    """One task: a run of tiles of all images, one block of input and one of output channels of one group.

    x, y: channels last; w: (runs, K, C / groups, taps), to be added up over the runs; workspace: strips, a tile of y,
    sums (c, tap, k).
    """
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    g = header(geometry)
    tiles = g.tiles_z * g.tiles_p * g.tiles_q
    taps = geometry[g.phases_at]
    run, group, first, channels, channel, rows = weight_block_of(g, task)
    begin = run * g.tiles_per_task
    for item in range(begin, min(begin + g.tiles_per_task, g.images * tiles)):
        image, number = divmod(item, tiles)
        tile = tile_of(g, number)
        gather_pixels(
            workspace, geometry, x, image * g.source_n + group * g.sources + first, channels, tile, constants
        )  # fmt: skip
        right, right_at, offsets_at = y, image * g.target_n + channel, g.copied_at
        if rows % lanes(y) == 0:
            right_at += tile.z * g.target_d + tile.p * g.target_h + tile.q * g.target_w
            offsets_at = g.panel_rows_at
        else:
            copy_pixels(workspace, g.panel_at, g.columns_pitch, y, right_at, rows, g, tile)
            right, right_at = workspace, g.panel_at
        product = Product(
            workspace, g.sums_at, g.columns_pitch,
            workspace, 0,
            right, right_at,
            geometry, geometry[g.phases_at + 1], g.pixels_at, offsets_at,
            tile.depth * tile.height * tile.width, item == begin,
        )  # fmt: skip
        multiply(product, channels * taps, rows)
    width = g.sources * taps
    w_at = (run * g.groups * g.targets + channel) * width + first * taps
    transpose_all(w, w_at, width, workspace, g.sums_at, g.columns_pitch, channels * taps, rows)


KERNELS = {Op.FORWARD: _forward, Op.GRAD_INPUT: _grad_input, Op.GRAD_WEIGHT: _grad_weight}


# ---- sizes


def serves(problem: ConvProblem, op: Op) -> bool:
    """Whether this computes a problem."""
    sources, targets = channels_of(problem, op)
    if op is Op.GRAD_WEIGHT:
        targets = problem.K // problem.groups
    return (
        problem.layout == "channels_last"
        and problem.real_products == 1
        and targets >= lanes_of(problem.dtype) // 2
        and not (op is Op.GRAD_INPUT and folding(problem))
        and sources * problem.taps * VECTORS * REGISTER_BYTES <= LEAST_PANEL_BYTES
    )


@lru_cache(maxsize=1024)
def sizes_of(problem: ConvProblem, op: Op) -> Sizes:
    """The sizes that take the least time."""
    if op is Op.GRAD_WEIGHT:
        return min(_weight_tilings(problem), key=lambda each: each.time(TASKS_LEAST))
    return min(_tilings(problem, op), key=lambda each: each.time(local_machine().threads))


def _tilings(problem: ConvProblem, op: Op) -> Iterator[Sizes]:
    sources, targets = channels_of(problem, op)
    positions, halo = positions_of(problem, op), halo_of(problem, op)
    size, lanes, terms = np.dtype(problem.dtype).itemsize, lanes_of(problem.dtype), sources * problem.taps
    phases = math.prod(problem.stride) if op is Op.GRAD_INPUT else 1
    blocks_of_rows = row_blocks(targets, lanes, min(PANEL_BYTES // terms, SUMS_BYTES // TILE_PIXELS) // size)
    for tile, row_block in itertools.product(
        tile_choices(positions, halo, TILE_PIXELS // phases or 1, lanes), blocks_of_rows
    ):
        planes, strip, gap = _strip_of(problem, op, tile)
        pixels, columns = math.prod(tile), -(-row_block // lanes)
        held = math.prod(planes) * math.prod(strip)
        reads_source = _in_source(problem, op)
        block = sources if reads_source else even_split(sources, max(1, STRIP_BYTES // (held * size)))
        blocks = -(-sources // block)
        gather = 0 if reads_source else blocks * _gather_cycles(problem, op, planes, strip, gap, block)
        register_tiles = phases * blocks * (-(-pixels // ROWS) * -(-columns // VECTORS) + CALL_TILES)
        product = terms * row_cycles(pixels) * columns + register_tiles * TILE_CYCLES
        again = 2 * VECTOR_CYCLES * phases * pixels * columns * (blocks - 1)
        in_place = _in_place(problem, op, positions, tile)
        store = 0 if in_place else phases * pixels * (PIXEL_CYCLES + CHANNELS_CYCLES * columns)
        turned = terms * columns * TURNED_CYCLES + TASK_CYCLES
        tiles = problem.N * math.prod(-(-whole // part) for whole, part in zip(positions, tile, strict=True))
        whole = problem.groups * -(-targets // row_block)
        for per_task in {-(-tiles // parts) for parts in range(1, min(tiles, 4 * local_machine().threads) + 1)}:
            tasks = whole * -(-tiles // per_task)
            yield Sizes(
                positions, tile, strip, planes, block, row_block, True, columns * lanes, tasks,
                tiles_per_task=per_task, gap=gap,
                cycles=whole * tiles * (gather + product + again + store) + tasks * turned,
            )  # fmt: skip


def _strip_of(problem: ConvProblem, op: Op, tile: Axes) -> tuple[Axes, Axes, int]:
    """Planes, strip and gap of a tile: rows stay as they are where every phase along them is met."""
    planes = planes_of(problem, op)
    if op is not Op.GRAD_INPUT and planes[2] == problem.stride[2]:
        return whole_rows_strip(problem, tile)
    return planes, axes(part + more for part, more in zip(tile, halo_of(problem, op), strict=True)), 0


def _gather_cycles(problem: ConvProblem, op: Op, planes: Axes, strip: Axes, gap: int, block: int) -> int:
    """Of a block of channels of a strip."""
    rows = math.prod(planes) * strip[0] * strip[1]
    are_all = block == (problem.K if op is Op.GRAD_INPUT else problem.C)
    follow = op is Op.GRAD_INPUT or gap + 1 == problem.stride[2]
    return gather_cycles(rows * strip[2], rows, block, lanes_of(problem.dtype), are_all and follow)


def _weight_tilings(problem: ConvProblem) -> Iterator[Sizes]:
    sources, targets = problem.C // problem.groups, problem.K // problem.groups
    halo = halo_of(problem, Op.GRAD_WEIGHT)
    size, lanes = np.dtype(problem.dtype).itemsize, lanes_of(problem.dtype)
    row_block = even_split(targets, WEIGHT_CHANNELS)
    columns = -(-row_block // lanes)
    row_parts = -(-targets // row_block)
    for tile in tile_choices(problem.output, halo, WEIGHT_PIXELS, lanes):
        planes, strip, gap = _strip_of(problem, Op.GRAD_WEIGHT, tile)
        pixels, held = math.prod(tile), math.prod(planes) * math.prod(strip)
        tiles = math.prod(-(-whole // part) for whole, part in zip(problem.output, tile, strict=True))
        items = problem.N * tiles
        most = min(STRIP_BYTES // (held * size), SUMS_BYTES // (problem.taps * columns * lanes * size))
        for block in itertools.islice(parts_of(sources, max(1, most)), 12):
            blocks = problem.groups * -(-sources // block) * row_parts
            per_task = max(1, -(-items // max(1, -(-TASKS_LEAST // blocks))))
            parts = -(-items // per_task)
            gather = _gather_cycles(problem, Op.GRAD_WEIGHT, planes, strip, gap, block)
            gather += pixels * (PIXEL_CYCLES + CHANNELS_CYCLES * columns)
            rows = block * problem.taps
            product = pixels * row_cycles(rows) * columns + -(-rows // ROWS) * -(-columns // VECTORS) * TILE_CYCLES
            item = gather + product + 2 * VECTOR_CYCLES * rows * columns
            last = rows * columns * TRANSPOSED_CYCLES * (1 if parts == 1 else 2)
            yield Sizes(
                problem.output, tile, strip, planes, block, row_block, False, columns * lanes, blocks * parts,
                tiles_per_task=per_task, parts=parts, gap=gap, additions=pixels + items,
                cycles=blocks * (items * item + parts * last) + summing_cycles(problem, parts),
            )  # fmt: skip


@dataclass(frozen=True)
class _Memory:
    """Places in the workspace, in elements."""

    panel_at: int
    sums_at: int
    phase_pitch: int
    elements: int


def _memory(problem: ConvProblem, op: Op, sizes: Sizes) -> _Memory:
    strip = 0 if _in_source(problem, op) else sizes.channel_block * sizes.channel_pitch
    panel_at = padded(strip, problem.dtype)
    pixels = math.prod(sizes.tile)
    if op is Op.GRAD_WEIGHT:
        panel, phases, rows = pixels, 1, sizes.channel_block * problem.taps
    else:
        panel, rows = channels_of(problem, op)[0] * problem.taps, pixels
        phases = math.prod(problem.stride) if op is Op.GRAD_INPUT else 1
    sums_at = panel_at + panel * sizes.pitch
    phase_pitch = (rows + SPARE_ROWS) * sizes.pitch
    return _Memory(panel_at, sums_at, phase_pitch, sums_at + phases * phase_pitch)


def workspace(problem: ConvProblem, op: Op) -> int:
    """Scratch memory of a thread, in bytes."""
    return _memory(problem, op, sizes_of(problem, op)).elements * np.dtype(problem.dtype).itemsize


# ---- plans


def _in_source(problem: ConvProblem, op: Op) -> bool:
    """Whether pixels are read where they lie: with no padding, nor anything around y, in at most NEAR_BYTES."""
    shape = problem.y_shape if op is Op.GRAD_INPUT else problem.x_shape
    return (
        not any(map(any, problem.padding))
        and (op is Op.FORWARD or (op is Op.GRAD_INPUT and problem.taps == 1))
        and math.prod(shape) * problem.real_bytes <= NEAR_BYTES
    )


def _in_place(problem: ConvProblem, op: Op, positions: Axes, tile: Axes) -> bool:
    """Whether the pixels of a tile follow each other in the target."""
    depth, height, width = tile
    _, rows, columns = positions
    whole = (depth == 1 or height == rows) and (depth == height == 1 or width == columns)
    return whole and (op is Op.FORWARD or problem.stride == (1, 1, 1))


def _places(problem: ConvProblem, phase: Phase, sizes: Sizes, roles: dict[str, int], reads_source: bool) -> Integers:
    """Positions of every (channel, tap) of a phase, in the strip or in the source."""
    taps = sizes.channel_block * offsets_of(phase, sizes, 1)
    if reads_source:
        steps = [roles[name] * dilation for name, dilation in zip(AXES, problem.dilation, strict=True)]
        taps = np.array([sum(map(operator.mul, tap, steps)) for tap in np.ndindex(problem.filter)])
    return (np.arange(sizes.channel_block)[:, None] + taps).reshape(-1)


def _positions(sizes: Sizes, distances: dict[str, int]) -> Integers:
    """Positions in a tensor of the pixels of a tile."""
    z, p, q = np.ogrid[: sizes.tile[0], : sizes.tile[1], : sizes.tile[2]]
    depth, height, width = distances.values()
    return np.asarray(z * depth + p * height + q * width, np.int64).reshape(-1)


def _panel_rows(phase: Phase, problem: ConvProblem, sizes: Sizes) -> Integers:
    """Rows of the panel of every (channel, tap) of a phase."""
    _, height, width = problem.filter
    taps = [(t * height + r) * width + s for (t, _), (r, _), (s, _) in itertools.product(*phase.taps)]
    begins = problem.taps * np.arange(sizes.channel_block, dtype=np.int64)
    return sizes.pitch * (begins[:, None] + np.asarray(taps, np.int64)).reshape(-1)


def plan(whole: ConvProblem, problem: ConvProblem, op: Op, epilogue: Epilogue) -> Plan:
    """The plan of a problem, as it was and with its axes made one."""
    sizes = sizes_of(problem, op)
    memory = _memory(problem, op, sizes)
    source_axes, target_axes, phases = axes_and_phases(problem, op, sizes)
    tables = Tables(Strips)
    fields = fields_of(tables, problem, op, epilogue, sizes, (source_axes, target_axes))
    reads_source = _in_source(problem, op)
    entries: list[int] = []
    for phase in phases:
        places = _places(problem, phase, sizes, fields, reads_source)
        entries += [phase.count, tables.add(places), tables.add(_panel_rows(phase, problem, sizes)), *phase.slots]
    strides = problem.stride if op is Op.FORWARD else (1, 1, 1)
    distances = {f"position_{name[-1]}": fields[name] * stride for name, stride in zip(AXES, strides, strict=True)}
    met = _positions(sizes, {name: fields[name] for name in ("target_d", "target_h", "target_w")})
    pixels = _positions(sizes, distances) if reads_source else sizes.channel_block * pixels_of(sizes)
    vector = tables.partial_vector(
        **fields | {"pixels_at": tables.add(pixels)},
        **distances,
        in_source=reads_source,
        in_place=_in_place(problem, op, sizes.positions, sizes.tile),
        pixel_pitch=sizes.channel_block,
        vector_pitch=lanes_of(problem.dtype),
        columns_pitch=sizes.pitch,
        panel_at=memory.panel_at,
        sums_at=memory.sums_at,
        phase_pitch=memory.phase_pitch,
        panel_rows_at=tables.add(met),
        copied_at=tables.add(sizes.pitch * np.arange(math.prod(sizes.tile))),
        phases=len(phases),
        phases_at=tables.add(entries),
    )
    geometry = with_sizes(vector, problem, op, sizes.parts * math.prod(problem.w_shape), memory.elements)
    launch = Launch(KERNELS[op], sizes.tasks, problem.dtype, geometry, memory.elements)
    return Plan(
        algorithm="direct",
        problem=whole,
        op=op,
        workspace_bytes=workspace(problem, op),
        run=SummedLaunch(launch, sizes.parts) if op is Op.GRAD_WEIGHT else launch,
        tiles={
            "pixels": math.prod(sizes.tile),
            "channels": sizes.channel_block,
            "rows": sizes.row_block,
            "tasks": sizes.tasks,
        },
    )
