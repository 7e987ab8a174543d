"""Direct convolution: gather a strip, multiply through an offset table, store what is not border.

A task takes a tile of output pixels. It copies the rows that the tile needs, of every channel, into a strip in
the workspace, with padding filled in and each stride phase in a plane of its own (`fastconv.cpu._axes`). In the
strip the pixels of a tile are contiguous for each channel and filter tap, and one offset says where::

    y[k, i] = sum over j of w[k, j] * strip[offset[j] + i],   j = (c, t, r, s),
    offset[j] = c * channel_pitch + plane(t, r, s) + (shift_t * strip_h + shift_r) * strip_w + shift_s

i runs over whole rows of the strip, so the columns on its border give sums that mean nothing; they are dropped
when the tile is stored. GRAD_INPUT is the same with the roles exchanged: y is gathered with a border of zeros, and
each stride phase of x is an output of its own with its own taps. In GRAD_WEIGHT the sums run over the pixels::

    w[k, j] = sum over i of y[k, i] * strip[offset[j] + i]

where y is gathered with zeros in the border columns.

Sources: Zhang, Franchetti, Low, "High Performance Zero-Memory Overhead Direct Convolutions", ICML 2018 (blocking
of the direct method); Dukhan, "The Indirect Convolution Algorithm", 2019, section 3 (multiplying through a table).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core.algorithm import Algorithm, Array, Plan
from ..core.boundary import folds
from ..core.jit import kernel, subroutine
from ..core.machine import Machine, local_machine
from ..core.problem import Axes, ConvProblem, Op
from ._axes import Axis, Tap, input_axis, output_axis, transposed_axes
from ._gemm import dots, multiply, padded, peak_flops, whole_rows
from ._geometry import Tables, even_split, initialise, tensor_strides, with_sizes
from ._launch import launch, summed_in_parts
from ._loops import (
    SIZES,
    TILE_PIXELS,
    all_finite,
    copying,
    error_bound,
    fill,
    first_integers,
    gather_row,
    place,
    plane_at,
    scatter_row,
    views,
)

# Strips and sums of a task, each a quarter of a second-level cache of 1 MiB.
STRIP_BYTES = 256 << 10
SUMS_BYTES = 256 << 10
# The sum over the pixels is cut into parts until there are this many tasks; a constant, so that the result does not
# depend on the machine.
PARTS_LEAST = 8
# Input channels of a task of GRAD_WEIGHT: enough terms for each row of y that is gathered, and several tasks.
SUM_CHANNELS = 16
ROWS_LEAST = 16


class Strips(NamedTuple):
    """The header of the geometry vector. `source` is gathered; `target` is stored, or gathered in GRAD_WEIGHT."""

    sizes_1: int
    sizes_2: int
    sizes_3: int
    sizes_4: int
    sizes_5: int
    sizes_6: int
    groups: int
    source_channels: int  # of one group, as all channel counts here
    target_channels: int
    channel_block: int  # source channels in the strip at once
    row_block: int  # target channels of one task
    source_n: int  # strides in elements
    source_c: int
    source_d: int
    source_h: int
    source_w: int
    target_n: int
    target_c: int
    target_d: int
    target_h: int
    target_w: int
    tiles_z: int
    tiles_p: int
    tiles_q: int
    tile_z: int
    tile_p: int
    tile_q: int
    tiles_per_task: int
    strip_d: int
    strip_h: int
    strip_w: int
    planes_d: int
    planes_h: int
    planes_w: int
    channel_pitch: int  # elements of all planes of a channel
    pixels: int  # of a tile, border columns included
    pitch: int  # distance of their rows
    source_axis_d: int  # positions of packed axes in the vector
    source_axis_h: int
    source_axis_w: int
    target_axis_d: int
    target_axis_h: int
    target_axis_w: int
    add: int  # whether the target is added to
    images: int
    phases: int
    weight_group: int  # strides of the weight in elements
    weight_source: int
    weight_target: int
    phases_at: int  # for each phase: taps, source offsets and taken weights in the vector, target slots in d, h, w


HEADER = len(Strips._fields)
PHASE = 6


# ---- kernels


@kernel
def _forward(task, x, w, y, constants, workspace, geometry):
    x, w, y, constants, workspace, geometry = views(x, w, y, constants, workspace, geometry)
    _correlate(task, x, w, y, constants, workspace, geometry)


@kernel
def _grad_input(task, x, w, y, constants, workspace, geometry):
    x, w, y, constants, workspace, geometry = views(x, w, y, constants, workspace, geometry)
    _correlate(task, y, w, x, constants, workspace, geometry)


@subroutine
def _correlate(task, source, weights, target, constants, workspace, geometry):
    """One task: a run of tiles, one block of target channels of one group of one image.

    source, target: tensors in either layout; weights: (K, C / groups, taps); workspace: strips, then sums.
    """
    g = Strips(*first_integers(geometry, HEADER))
    tiles = g.tiles_z * g.tiles_p * g.tiles_q
    runs = -(-tiles // g.tiles_per_task)
    blocks = -(-g.target_channels // g.row_block)
    image, rest = divmod(task, g.groups * runs * blocks)
    group, rest = divmod(rest, runs * blocks)
    run, block = divmod(rest, blocks)
    row = block * g.row_block
    rows = min(g.row_block, g.target_channels - row)
    sums = g.channel_block * g.channel_pitch
    source_at = image * g.source_n + group * g.source_channels * g.source_c
    channel = group * g.target_channels + row
    for tile in range(run * g.tiles_per_task, min((run + 1) * g.tiles_per_task, tiles)):
        for phase in range(g.phases):
            entry = g.phases_at + phase * PHASE
            taps, offsets_at, taken_at = geometry[entry], geometry[entry + 1], geometry[entry + 2]
            fill(workspace, sums, rows * g.pitch, 0)
            for first in range(0, g.source_channels, g.channel_block):
                channels = min(g.channel_block, g.source_channels - first)
                if phase == 0 or g.channel_block < g.source_channels:
                    _gather_strips(
                        workspace, g, geometry, source, source_at + first * g.source_c, channels, tile,
                        constants[constants.size - 1],
                    )  # fmt: skip
                multiply(
                    workspace, sums, g.pitch, rows, g.pixels,
                    weights, group * g.weight_group + row * g.weight_target + first * g.weight_source, g.weight_target,
                    workspace, geometry, offsets_at, taken_at, channels * taps,
                )  # fmt: skip
            _scatter_tile(
                target, image * g.target_n, constants, channel, rows, workspace, sums, g, geometry, tile, entry
            )


@kernel
def _grad_weight(task, x, w, y, constants, workspace, geometry):
    """One task: a run of tiles of all images, one block of input and one of output channels of one group.

    w: (runs, K, C / groups, taps), zero at first, to be added up over the runs.
    """
    x, w, y, constants, workspace, geometry = views(x, w, y, constants, workspace, geometry)
    g = Strips(*first_integers(geometry, HEADER))
    tiles = g.tiles_z * g.tiles_p * g.tiles_q
    taps, offsets_at = geometry[g.phases_at], geometry[g.phases_at + 1]
    channel_blocks = -(-g.source_channels // g.channel_block)
    row_blocks = -(-g.target_channels // g.row_block)
    run, rest = divmod(task, g.groups * channel_blocks * row_blocks)
    group, rest = divmod(rest, channel_blocks * row_blocks)
    first = rest // row_blocks * g.channel_block
    row = rest % row_blocks * g.row_block
    channels = min(g.channel_block, g.source_channels - first)
    rows = min(g.row_block, g.target_channels - row)
    channel = group * g.target_channels + row
    width = g.source_channels * taps
    w_at = (run * g.groups * g.target_channels + channel) * width + first * taps
    y_at = g.channel_block * g.channel_pitch
    for item in range(run * g.tiles_per_task, min((run + 1) * g.tiles_per_task, g.images * tiles)):
        image, tile = divmod(item, tiles)
        source_at = image * g.source_n + (group * g.source_channels + first) * g.source_c
        _gather_strips(workspace, g, geometry, x, source_at, channels, tile, constants[constants.size - 1])
        _gather_tile(workspace, y_at, rows, y, image * g.target_n + channel * g.target_c, g, geometry, tile)
        if all_finite(workspace, 0, channels * g.channel_pitch):
            dots(
                w, w_at, width, rows, workspace, y_at, g.pitch,
                workspace, geometry, offsets_at, channels * taps, 0, g.pixels,
            )  # fmt: skip
        else:
            _dots_by_row(w, w_at, width, rows, workspace, y_at, g, geometry, offsets_at, channels * taps, tile)


@subroutine
def _origin(g, tile):
    """First pixel of a tile: (z, p, q)."""
    z, rest = divmod(tile, g.tiles_p * g.tiles_q)
    p, q = divmod(rest, g.tiles_q)
    return z * g.tile_z, p * g.tile_p, q * g.tile_q


@subroutine
def _gather_strips(workspace, g, geometry, source, source_at, channels, tile, outside):
    """workspace[c, plane, d, h, w] = the padded source around a tile, for c < channels."""
    z, p, q = _origin(g, tile)
    at = 0
    for c in range(channels):
        channel_at = source_at + c * g.source_c
        for slot_d in range(g.planes_d):
            plane_d = plane_at(geometry, g.source_axis_d, slot_d)
            for slot_h in range(g.planes_h):
                plane_h = plane_at(geometry, g.source_axis_h, slot_h)
                for slot_w in range(g.planes_w):
                    plane_w = plane_at(geometry, g.source_axis_w, slot_w)
                    for d in range(g.strip_d):
                        in_d = place(geometry, plane_d, z + d)
                        for h in range(g.strip_h):
                            in_h = place(geometry, plane_h, p + h)
                            if in_d < 0 or in_h < 0:
                                fill(workspace, at, g.strip_w, outside)
                            else:
                                gather_row(
                                    workspace, at, g.strip_w,
                                    source, channel_at + in_d * g.source_d + in_h * g.source_h, g.source_w, outside,
                                    geometry, plane_w, geometry[g.source_axis_w + 1], q,
                                )  # fmt: skip
                            at += g.strip_w


@subroutine
def _scatter_tile(target, target_at, constants, channel, rows, workspace, sums, g, geometry, tile, entry):
    """Store the sums (rows, pitch) of a tile, less their border columns, in one phase of the target."""
    z, p, q = _origin(g, tile)
    plane_d = plane_at(geometry, g.target_axis_d, geometry[entry + 3])
    plane_h = plane_at(geometry, g.target_axis_h, geometry[entry + 4])
    plane_w = plane_at(geometry, g.target_axis_w, geometry[entry + 5])
    step = geometry[g.target_axis_w + 1]
    for k in range(rows):
        bias = constants[channel + k]
        at = target_at + (channel + k) * g.target_c
        for d in range(g.tile_z):
            in_d = place(geometry, plane_d, z + d)
            for h in range(g.tile_p):
                in_h = place(geometry, plane_h, p + h)
                if in_d >= 0 and in_h >= 0:
                    scatter_row(
                        target, at + in_d * g.target_d + in_h * g.target_h, g.target_w, geometry, plane_w, step, q,
                        workspace, sums + k * g.pitch + (d * g.strip_h + h) * g.strip_w, g.tile_q, bias, g.add,
                    )  # fmt: skip


@subroutine
def _gather_tile(workspace, y_at, rows, y, source_at, g, geometry, tile):
    """workspace[y_at:] = a tile of y as (rows, pitch), with zeros in the border columns."""
    z, p, q = _origin(g, tile)
    plane_d = plane_at(geometry, g.target_axis_d, 0)
    plane_h = plane_at(geometry, g.target_axis_h, 0)
    plane_w = plane_at(geometry, g.target_axis_w, 0)
    fill(workspace, y_at, rows * g.pitch, 0)
    for k in range(rows):
        for d in range(g.tile_z):
            in_d = place(geometry, plane_d, z + d)
            for h in range(g.tile_p):
                in_h = place(geometry, plane_h, p + h)
                if in_d >= 0 and in_h >= 0:
                    gather_row(
                        workspace, y_at + k * g.pitch + (d * g.strip_h + h) * g.strip_w, g.tile_q,
                        y, source_at + k * g.target_c + in_d * g.target_d + in_h * g.target_h, g.target_w, 0,
                        geometry, plane_w, 1, q,
                    )  # fmt: skip


@subroutine
def _dots_by_row(w, w_at, width, rows, workspace, y_at, g, geometry, offsets_at, terms, tile):
    """`dots` without the border columns, where zero times a NaN or Inf would not be zero."""
    z, p, q = _origin(g, tile)
    plane_d = plane_at(geometry, g.target_axis_d, 0)
    plane_h = plane_at(geometry, g.target_axis_h, 0)
    plane_w = plane_at(geometry, g.target_axis_w, 0)
    count = min(g.tile_q, geometry[plane_w + 1] - q)
    for d in range(g.tile_z):
        for h in range(g.tile_p):
            if place(geometry, plane_d, z + d) >= 0 and place(geometry, plane_h, p + h) >= 0:
                begin = (d * g.strip_h + h) * g.strip_w
                dots(
                    w, w_at, width, rows, workspace, y_at, g.pitch,
                    workspace, geometry, offsets_at, terms, begin, count,
                )  # fmt: skip


# ---- sizes


@dataclass(frozen=True)
class _Tiling:
    """Sizes of tiles, strips and blocks; extents are over the positions of the planes."""

    tile: Axes
    tiles: Axes
    strip: Axes
    planes: Axes
    channel_block: int
    row_block: int
    pitch: int
    tiles_per_task: int
    tasks: int
    parts: int

    @property
    def channel_pitch(self) -> int:
        return math.prod(self.planes) * math.prod(self.strip)

    @property
    def pixels(self) -> int:
        return _row_of_pixels(self.tile, self.strip)

    @property
    def workspace_elements(self) -> int:
        return self.channel_block * self.channel_pitch + self.row_block * self.pitch


@lru_cache(maxsize=256)
def _tiling(problem: ConvProblem, op: Op) -> _Tiling:
    sources, targets = _channels(problem, op)
    positions = _positions(problem, op)
    halo = [(reach - 1) // stride for reach, stride in zip(problem.reach, problem.stride, strict=True)]
    tile = _tile_extents(positions, halo)
    tiles = _axes(-(-whole // part) for whole, part in zip(positions, tile, strict=True))
    strip = _axes(part + more for part, more in zip(tile, halo, strict=True))
    planes = (1, 1, 1) if op is Op.GRAD_INPUT else _axes(len(_input_phases(problem, axis)) for axis in range(3))
    size = np.dtype(problem.dtype).itemsize
    channel_bytes = math.prod(planes) * math.prod(strip) * size
    row_bytes = padded(_row_of_pixels(tile, strip), problem.dtype) * size
    channel_block = max(1, min(sources, STRIP_BYTES // channel_bytes))
    row_block = whole_rows(targets, max(ROWS_LEAST, SUMS_BYTES // row_bytes))
    if op is Op.GRAD_WEIGHT:
        channel_block = min(channel_block, even_split(sources, SUM_CHANNELS))
        items = problem.N * math.prod(tiles)
        blocks = problem.groups * -(-sources // channel_block) * -(-targets // row_block)
        tiles_per_task = max(1, -(-items // max(1, PARTS_LEAST // max(1, blocks))))
        parts = max(1, -(-items // tiles_per_task))
        tasks = blocks * parts
    else:
        parts = 1
        tiles_per_task = math.prod(tiles) if op is Op.GRAD_INPUT and folds(problem.padding_mode) else 1
        whole = problem.N * problem.groups * -(-math.prod(tiles) // tiles_per_task)
        while whole * -(-targets // row_block) < 2 * local_machine().threads and row_block > ROWS_LEAST:
            row_block = whole_rows(row_block, max(ROWS_LEAST, row_block // 2))
        tasks = whole * -(-targets // row_block)
    pitch = row_bytes // size
    return _Tiling(tile, tiles, strip, planes, channel_block, row_block, pitch, tiles_per_task, tasks, parts)


def _axes(values: Iterable[int]) -> Axes:
    first, second, third = values
    return first, second, third


def _channels(problem: ConvProblem, op: Op) -> tuple[int, int]:
    """Channels of one group that are gathered, and those that are stored."""
    inputs, outputs = problem.C // problem.groups, problem.K // problem.groups
    return (outputs, inputs) if op is Op.GRAD_INPUT else (inputs, outputs)


def _tile_extents(positions: Axes, halo: list[int]) -> Axes:
    """Whole rows and planes where they fit into TILE_PIXELS, else parts of equal size."""
    q = even_split(positions[2], TILE_PIXELS)
    p = even_split(positions[1], TILE_PIXELS // (q + halo[2]))
    z = even_split(positions[0], TILE_PIXELS // ((q + halo[2]) * (p + halo[1])))
    return z, p, q


def _row_of_pixels(tile: Axes, strip: Axes) -> int:
    """Elements of a strip from the first pixel of a tile to its last, border columns between them included."""
    return ((tile[0] - 1) * strip[1] + tile[1] - 1) * strip[2] + tile[2]


def _positions(problem: ConvProblem, op: Op) -> Axes:
    """Positions of the target's planes."""
    if op is not Op.GRAD_INPUT:
        return problem.output
    return _axes(-(-whole // step) for whole, step in zip(problem.padded, problem.stride, strict=True))


def _input_phases(problem: ConvProblem, axis: int) -> set[int]:
    return {tap * problem.dilation[axis] % problem.stride[axis] for tap in range(problem.filter[axis])}


# ---- plans


@dataclass(frozen=True)
class _Phase:
    """One plane of the target: its slots, and the taps that reach it, by axis."""

    slots: Axes
    taps: tuple[list[tuple[int, Tap]], ...]

    @property
    def count(self) -> int:
        return math.prod(map(len, self.taps))


def _axes_and_phases(problem: ConvProblem, op: Op, tiling: _Tiling) -> tuple[list[Axis], list[Axis], list[_Phase]]:
    """Source axes, target axes and the phases of the target."""
    covered = [count * size for count, size in zip(tiling.tiles, tiling.tile, strict=True)]
    if op is Op.GRAD_INPUT:
        transposed = [transposed_axes(problem, axis, covered[axis]) for axis in range(3)]
        sources, targets, meets = map(list, zip(*transposed, strict=True))
        phases = [
            _Phase(slots, tuple(meets[axis][slot] for axis, slot in enumerate(slots)))  # type: ignore[arg-type]
            for slots in itertools.product(*[range(len(each)) for each in meets])
        ]
        return sources, targets, phases
    gathered = [input_axis(problem, axis, covered[axis]) for axis in range(3)]
    taps = tuple(list(enumerate(reads)) for _, reads in gathered)
    targets = [output_axis(problem, axis, covered[axis]) for axis in range(3)]
    return [planes for planes, _ in gathered], targets, [_Phase((0, 0, 0), taps)]


def _offsets(phase: _Phase, tiling: _Tiling) -> NDArray[np.int64]:
    """Positions in the strip of every (channel, tap) of a phase."""
    strip, planes = tiling.strip, tiling.planes
    taps = [
        ((t.slot * planes[1] + r.slot) * planes[2] + s.slot) * math.prod(strip)
        + (t.shift * strip[1] + r.shift) * strip[2]
        + s.shift
        for (_, t), (_, r), (_, s) in itertools.product(*phase.taps)
    ]
    channels = tiling.channel_pitch * np.arange(tiling.channel_block, dtype=np.int64)
    return channels[:, None] + np.asarray(taps, np.int64)


def _taken_weights(phase: _Phase, problem: ConvProblem, channels: int, channel_stride: int) -> NDArray[np.int64]:
    """Places of the weights of every (channel, tap) of a phase, from the first channel's first tap."""
    _, height, width = problem.filter
    taps = [(t * height + r) * width + s for (t, _), (r, _), (s, _) in itertools.product(*phase.taps)]
    return channel_stride * np.arange(channels, dtype=np.int64)[:, None] + np.asarray(taps, np.int64)


def plan(problem: ConvProblem, op: Op) -> Plan:
    tiling = _tiling(problem, op)
    source_axes, target_axes, phases = _axes_and_phases(problem, op, tiling)
    sources, targets = _channels(problem, op)
    source_strides, target_strides = tensor_strides(problem)
    weight_source, weight_target = problem.taps, problem.C // problem.groups * problem.taps
    if op is Op.GRAD_INPUT:
        source_strides, target_strides = target_strides, source_strides
        weight_source, weight_target = weight_target, weight_source
    tables = Tables(HEADER)
    source_at = [tables.add(axis.packed()) for axis in source_axes]
    target_at = [tables.add(axis.packed()) for axis in target_axes]
    entries: list[int] = []
    for phase in phases:
        taken = _taken_weights(phase, problem, tiling.channel_block, weight_source)
        entries += [phase.count, tables.add(_offsets(phase, tiling)), tables.add(taken), *phase.slots]
    folding = op is Op.GRAD_INPUT and folds(problem.padding_mode)
    header = Strips._make(
        (
            *[0] * SIZES,
            problem.groups,
            sources,
            targets,
            tiling.channel_block,
            tiling.row_block,
            *source_strides,
            *target_strides,
            *tiling.tiles,
            *tiling.tile,
            tiling.tiles_per_task,
            *tiling.strip,
            *tiling.planes,
            tiling.channel_pitch,
            tiling.pixels,
            tiling.pitch,
            *source_at,
            *target_at,
            int(folding),
            problem.N,
            len(phases),
            math.prod(problem.w_shape) // problem.groups,
            weight_source,
            weight_target,
            tables.add(entries),
        )
    )
    parts = tiling.parts
    geometry = with_sizes(
        tables.vector(header), problem, op, parts * math.prod(problem.w_shape), tiling.workspace_elements
    )
    elements, tasks = tiling.workspace_elements, tiling.tasks

    def forward(x: Array, w: Array, y: Array, constants: Array, threads: int) -> None:
        launch(_forward, tasks, x, w, y, constants, geometry, elements, threads)

    def grad_input(x: Array, w: Array, y: Array, constants: Array, threads: int) -> None:
        if folding:
            initialise(x, problem, constants)
        launch(_grad_input, tasks, x, w, y, constants, geometry, elements, threads)

    def grad_weight(x: Array, w: Array, y: Array, constants: Array, threads: int) -> None:
        summed_in_parts(_grad_weight, parts, tasks, x, w, y, constants, geometry, elements, threads)

    return Plan(
        algorithm="direct",
        problem=problem,
        op=op,
        workspace_bytes=workspace(problem, op),
        run={Op.FORWARD: forward, Op.GRAD_INPUT: grad_input, Op.GRAD_WEIGHT: grad_weight}[op],
        tiles={
            "pixels": tiling.pixels,
            "channels": tiling.channel_block,
            "rows": tiling.row_block,
            "tasks": tasks,
        },
    )


# ---- what the selector asks


def supports(problem: ConvProblem, op: Op) -> str | None:
    return None


def workspace(problem: ConvProblem, op: Op) -> int:
    return _tiling(problem, op).workspace_elements * np.dtype(problem.dtype).itemsize


def cost(problem: ConvProblem, op: Op, machine: Machine) -> float:
    """Products over the tiles' border columns too, and every element that is gathered or stored, as often as it is."""
    tiling = _tiling(problem, op)
    tiles = problem.N * problem.groups * math.prod(tiling.tiles)
    sources, targets = _channels(problem, op)
    products = tiles * tiling.pixels * sources * targets * problem.taps
    gathers = tiles * sources * tiling.channel_pitch * -(-targets // tiling.row_block)
    again = -(-sources // tiling.channel_block) if op is Op.GRAD_WEIGHT else 1
    phases = math.prod(problem.stride) if op is Op.GRAD_INPUT else 1
    stores = 2 * tiles * targets * tiling.pixels * again * phases
    copied = copying(gathers, tiling.strip[2]) + copying(stores, tiling.tile[2])
    return machine.seconds(
        peak_flops(problem, products, targets), copied, problem.bytes, problem.real_bytes, tiling.tasks
    )


ALGORITHM = Algorithm(
    name="direct",
    device="cpu",
    supports=supports,
    cost=cost,
    error_bound=error_bound,
    workspace=workspace,
    plan=plan,
)
