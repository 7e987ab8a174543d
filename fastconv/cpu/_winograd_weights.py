"""The gradient of the weight by Winograd's method: F(r, m), with tiles of outputs in the place of filters.

The correlation of m + r - 1 elements of data with m outputs gives r taps, and the sum over all tiles is formed between
the transforms, for each of the points e::

    data[e, tile, c]     = B^T d B           of the input around the tile
    outputs[e, tile, k]  = G y G^T
    sums[e, k, c]        = sum over the tiles of outputs[e, tile, k] * data[e, tile, c]
    w[k, c]              = A^T sums A

A lane holds a channel: the sums want neighbouring channels in registers, and pixels are transposed where there are
fewest of them, before the transforms. Slices of a filter along the depth are computed one by one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import literally

from ..core.jit import Kernel, kernel, subroutine
from ..core.problem import ConvProblem, Op
from ._gemm import ROWS, SPARE_ROWS, VECTORS, Product, column_steps, lanes_of, multiply, padded, row_cycles
from ._geometry import Tables, even_split, named, tensor_strides, with_sizes
from ._kernel import first_integers, inner, never_inlined, place, plane_at, views
from ._launch import Launch, SummedLaunch
from ._rows import ROW_CYCLES, TRANSPOSED_CYCLES, copy, fill
from ._simd import lanes, transpose
from ._tiles import TASKS_LEAST, WAITING, parts_of
from ._winograd_sizes import (
    ALIGNMENT,
    ELEMENT_CYCLES,
    REGISTER_TILE_CYCLES,
    aligned,
    kinds,
    output_axis,
    phases_of,
    plane_extents,
    source_axis,
)
from ._winograd_transforms import SQUARES, Square, transform_channels, transform_sums

# Tiles of a block, and the most channels of one: sums of 64 x 64 channels take 590 KB.
BLOCK_TILES = 64
SUMS_BYTES = 1024 << 10
# Cycles for each point of a tile of a register of channels, and of filters.
TILE_POINT_CYCLES = 8
FILTER_POINT_CYCLES = 7


class Gradient(NamedTuple):
    """The header of the geometry vector; channels are those of one group."""

    sizes_1: int
    sizes_2: int
    sizes_3: int
    sizes_4: int
    sizes_5: int
    sizes_6: int
    sizes_7: int
    images: int
    groups: int
    sources: int  # channels of x
    targets: int  # channels of y
    channel_block: int  # channels of a task
    row_block: int
    slices: int  # of a filter, along the depth
    dilation_d: int
    slice_taps: int
    x_n: int  # strides in elements
    x_c: int
    x_d: int
    x_h: int
    x_w: int
    y_n: int
    y_c: int
    y_d: int
    y_h: int
    y_w: int
    outputs_h: int  # of a tile
    outputs_w: int
    further_h: int  # elements of data beyond the outputs
    further_w: int
    points: int  # of a tile
    neighbours: int  # whether the pixels of a row, or the channels of a pixel, follow each other
    planes: int  # of y: for each element along the depth those of all phases
    phases_h: int
    phases_w: int
    tiles_p: int
    tiles_q: int
    block_p: int  # tiles of a block
    block_q: int
    blocks_p: int
    blocks_q: int
    items_per_task: int  # blocks of all planes of all images
    data_at: int  # positions in the workspace
    data_pitch: int  # from one tile to the next, and from one point to the next
    data_point: int
    outputs_at: int
    outputs_pitch: int
    outputs_point: int
    sums_at: int
    sums_pitch: int
    sums_point: int
    x_axis_d: int  # positions of packed axes in the vector
    x_axis_h: int
    x_axis_w: int
    y_axis_h: int
    y_axis_w: int
    rows_at: int  # tables of the product: output channels,
    taken_at: int  # their tiles,
    offsets_at: int  # and those of the data


HEADER = len(Gradient._fields)


# ---- kernels


def _accumulation(kind: int) -> Kernel:
    """The kernel of one of `SQUARES`."""

    @kernel
    def accumulate(task, x, w, y, residual, constants, workspace, geometry):
        x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
        _accumulate(kind, task, x, w, y, constants, workspace, geometry)

    return accumulate


KERNELS = [_accumulation(kind) for kind in range(len(SQUARES))]


@subroutine
def _accumulate(kind, task, x, w, y, constants, workspace, geometry):
    """One task: a run of blocks of all images, one slice of the filters between two blocks of channels of one group.

    w: (runs, K, C / groups, taps), to be added up over the runs; workspace: pixels, data, outputs, sums.
    """
    literally(kind)
    g = Gradient(*first_integers(geometry, HEADER))
    channel_blocks = -(-g.sources // g.channel_block)
    row_blocks = -(-g.targets // g.row_block)
    blocks = g.blocks_p * g.blocks_q
    run, rest = divmod(task, g.groups * g.slices * channel_blocks * row_blocks)
    group, rest = divmod(rest, g.slices * channel_blocks * row_blocks)
    slice, rest = divmod(rest, channel_blocks * row_blocks)
    first, row = divmod(rest, row_blocks)
    first, row = group * g.sources + first * g.channel_block, group * g.targets + row * g.row_block
    channels = min(g.channel_block, (group + 1) * g.sources - first)
    rows = min(g.row_block, (group + 1) * g.targets - row)
    plane_d = plane_at(geometry, g.x_axis_d, 0)
    begin = run * g.items_per_task
    for item in range(begin, min(begin + g.items_per_task, g.images * g.planes * blocks)):
        image, rest = divmod(item, g.planes * blocks)
        plane, rest = divmod(rest, blocks)
        z, phase = divmod(plane, g.phases_h * g.phases_w)
        phase_h, phase_w = divmod(phase, g.phases_w)
        p, q = divmod(rest, g.blocks_q)
        p, q = p * g.block_p, q * g.block_q
        height, width = min(g.block_p, g.tiles_p - p), min(g.block_q, g.tiles_q - q)
        in_d = place(geometry, plane_d, z + slice * g.dilation_d)
        window = Window(
            p * g.outputs_h, q * g.outputs_w,
            height * g.outputs_h + g.further_h, width * g.outputs_w + g.further_w,
        )  # fmt: skip
        source = Pixels(
            x, image * g.x_n + first * g.x_c + in_d * g.x_d, g.x_c, g.x_h, g.x_w,
            plane_at(geometry, g.x_axis_h, phase_h), plane_at(geometry, g.x_axis_w, phase_w), g.neighbours,
        )  # fmt: skip
        _transform_pixels(
            kind, 1, workspace, geometry, source, channels, constants[constants.size - 1], in_d < 0, window,
            height, width, g.data_at, g.data_pitch, g.data_point,
        )  # fmt: skip
        window = Window(p * g.outputs_h, q * g.outputs_w, height * g.outputs_h, width * g.outputs_w)
        source = Pixels(
            y, image * g.y_n + row * g.y_c + z * g.y_d, g.y_c, g.y_h, g.y_w,
            plane_at(geometry, g.y_axis_h, phase_h), plane_at(geometry, g.y_axis_w, phase_w), g.neighbours,
        )  # fmt: skip
        _transform_pixels(
            kind, 0, workspace, geometry, source, rows, y.dtype.type(0), False, window,
            height, width, g.outputs_at, g.outputs_pitch, g.outputs_point,
        )  # fmt: skip
        for e in range(g.points):
            product = Product(
                workspace, g.sums_at + e * g.sums_point, g.sums_pitch,
                workspace, g.outputs_at + e * g.outputs_point,
                workspace, g.data_at + e * g.data_point,
                geometry, g.rows_at, g.taken_at, g.offsets_at, height * width, item == begin,
            )  # fmt: skip
            multiply(product, rows, channels)
    taps = g.slices * g.slice_taps
    w_at = ((run * g.groups * g.targets + row) * g.sources + first - group * g.sources) * taps + slice * g.slice_taps
    _store_filters(kind, w, w_at, workspace, geometry, rows, channels)


@subroutine
def _store_filters(kind, w, w_at, workspace, geometry, rows, channels):
    """Store the filters that the sums give; w_at: the slice of the first one."""
    literally(kind)
    never_inlined()
    g = Gradient(*first_integers(geometry, HEADER))
    taps = g.slices * g.slice_taps
    step = lanes(workspace)
    for k in range(rows):
        for c in range(0, channels, step):
            transform_sums(
                kind, workspace, g.sums_at + k * g.sums_pitch + c, g.sums_point,
                w, w_at + (k * g.sources + c) * taps, taps, min(step, channels - c),
            )  # fmt: skip


class Window(NamedTuple):
    """A part of the bordered plane of a tensor: first row and column, and extents."""

    row: int
    column: int
    height: int
    width: int


class Pixels(NamedTuple):
    """A plane of some channels of a tensor."""

    tensor: object
    at: int  # of the first channel
    channel_stride: int
    row_stride: int
    pixel_stride: int
    plane_h: int  # positions of planes of packed axes in the geometry vector
    plane_w: int
    neighbours: int  # whether the pixels of a row, or the channels of a pixel, follow each other


@subroutine
def _transform_pixels(
    kind, is_data, workspace, geometry, source, channels, outside, is_outside, window,
    height, width, to, pitch, point_pitch,
):  # fmt: skip
    """workspace[to + tile * pitch + c + e * point_pitch] = point e of a tile of channel c, for height * width tiles."""
    literally(kind)
    literally(is_data)
    never_inlined()
    g = Gradient(*first_integers(geometry, HEADER))
    step = lanes(workspace)
    line = window.width * step
    for c in range(0, channels, step):
        if is_outside:
            fill(workspace, 0, window.height * line, outside)
        else:
            _gather_pixels(workspace, geometry, source, c, min(step, channels - c), outside, window)
        for h in range(height):
            for v in range(width):
                at = h * g.outputs_h * line + v * g.outputs_w * step
                tile_to = to + (h * width + v) * pitch + c
                transform_channels(kind, is_data, workspace, at, line, tile_to, point_pitch)


@subroutine
def _gather_pixels(workspace, geometry, source, channel, channels, outside, window):
    """workspace[h, w, c] = the bordered plane of neighbouring channels, at most a register of them, in a window."""
    step = lanes(workspace)
    plane_h, plane_w = source.plane_h, source.plane_w
    first, last = inner(geometry, plane_w, window.column, window.width) if source.neighbours else (0, 0)
    channel_at = source.at + channel * source.channel_stride
    for h in range(window.height):
        in_h = place(geometry, plane_h, window.row + h)
        to = h * window.width * step
        if in_h < 0:
            fill(workspace, to, window.width * step, outside)
            continue
        begin = channel_at + in_h * source.row_stride
        for q in range(window.width):
            if q < first or q >= last:
                element = place(geometry, plane_w, window.column + q)
                if element < 0:
                    fill(workspace, to + q * step, step, outside)
                else:
                    for c in range(channels):
                        workspace[to + q * step + c] = source.tensor[
                            begin + c * source.channel_stride + element * source.pixel_stride
                        ]
        if source.channel_stride == 1:
            for q in range(first, last):
                element = place(geometry, plane_w, window.column + q)
                copy(workspace, to + q * step, source.tensor, begin + element * source.pixel_stride, channels)
            continue
        for q in range(first, last, step):
            element = place(geometry, plane_w, window.column + q)
            transpose(
                workspace, to + q * step, step, source.tensor, begin + element, source.channel_stride,
                channels, min(step, last - q),
            )  # fmt: skip


# ---- sizes


@dataclass(frozen=True)
class Sizes:
    """Extents of blocks in tiles, and channels."""

    kind: int  # of `SQUARES`
    tiles: tuple[int, int]
    block: tuple[int, int]
    channel_block: int
    row_block: int
    items_per_task: int
    parts: int
    tasks: int
    additions: int  # that follow one another in a sum
    cycles: float  # of all tasks, one after the other

    def time(self) -> float:
        """Cycles from the first task to the last, for which the other threads wait a part of its time."""
        return self.cycles / self.tasks * (-(-self.tasks // TASKS_LEAST) + WAITING)

    @property
    def square(self) -> Square:
        return SQUARES[self.kind]

    @property
    def blocks(self) -> tuple[int, int]:
        (p, q), (height, width) = self.tiles, self.block
        return -(-p // height), -(-q // width)


@lru_cache(maxsize=1024)
def sizes_of(problem: ConvProblem) -> Sizes:
    """The sizes that take the least time."""
    return min((each for kind in kinds(problem) for each in candidates(problem, kind)), key=Sizes.time)


def candidates(problem: ConvProblem, kind: int) -> Iterator[Sizes]:
    square = SQUARES[kind]
    steps, points = (square.height.outputs, square.width.outputs), square.products
    planes, *extents = plane_extents(problem, Op.FORWARD)
    tiles = -(-extents[0] // steps[0]), -(-extents[1] // steps[1])
    sources, targets = problem.C // problem.groups, problem.K // problem.groups
    lanes = lanes_of(problem.dtype)
    for width in itertools.islice(parts_of(tiles[1], BLOCK_TILES), 8):
        height = min(tiles[0], BLOCK_TILES // width)
        height = -(-tiles[0] // -(-tiles[0] // height))
        items = problem.N * planes * -(-tiles[0] // height) * -(-tiles[1] // width)
        columns, rows = width * steps[1], height * steps[0]
        gather: float = rows * lanes * (-(-columns // lanes) * TRANSPOSED_CYCLES + ROW_CYCLES)
        if problem.dilation[2] > 1 and problem.layout == "channels_first":
            gather = rows * lanes * columns * ELEMENT_CYCLES
        transform = gather + height * width * points * TILE_POINT_CYCLES
        for channel_block in {even_split(sources, most) for most in (32, 64, 128)}:
            for row_block in {even_split(targets, most) for most in (32, 64, 128)}:
                vectors = -(-channel_block // lanes)
                if points * row_block * vectors * lanes * problem.real_bytes > SUMS_BYTES:
                    continue
                channel_blocks, row_blocks = -(-sources // channel_block), -(-targets // row_block)
                product = row_cycles(row_block) * column_steps(channel_block, lanes) * height * width
                product += -(-row_block // ROWS) * -(-vectors // VECTORS) * REGISTER_TILE_CYCLES
                item = (vectors + -(-row_block // lanes)) * transform + points * product
                last = row_block * vectors * points * FILTER_POINT_CYCLES
                blocks = problem.groups * problem.filter[0] * channel_blocks * row_blocks
                per_task = max(1, -(-items // max(1, -(-TASKS_LEAST // blocks))))
                parts = -(-items // per_task)
                yield Sizes(
                    kind, tiles, (height, width), channel_block, row_block, per_task, parts, blocks * parts,
                    additions=height * width + per_task + parts,
                    cycles=blocks * (items * item + parts * last),
                )  # fmt: skip


@dataclass(frozen=True)
class Memory:
    """Places in the workspace and their distances, in elements, as in `fastconv.cpu._winograd_sizes.Memory`."""

    data_at: int
    data_pitch: int
    data_point: int
    outputs_at: int
    outputs_pitch: int
    outputs_point: int
    sums_at: int
    sums_pitch: int
    sums_point: int
    elements: int


def memory_of(problem: ConvProblem, sizes: Sizes) -> Memory:
    lanes, points = lanes_of(problem.dtype), sizes.square.products
    tiles = math.prod(sizes.block)
    height, width = (
        part * each.outputs + each.products - each.outputs for part, each in zip(sizes.block, sizes.square, strict=True)
    )
    data_at = aligned(height * width * lanes)
    data_pitch, outputs_pitch = padded(sizes.channel_block, problem.dtype), padded(sizes.row_block, problem.dtype)
    data_point, outputs_point = (aligned(tiles * pitch) + ALIGNMENT for pitch in (data_pitch, outputs_pitch))
    outputs_at = data_at + points * data_point
    sums_at = outputs_at + points * outputs_point
    sums_point = aligned((sizes.row_block + SPARE_ROWS) * data_pitch) + ALIGNMENT
    elements = sums_at + points * sums_point
    return Memory(
        data_at, data_pitch, data_point, outputs_at, outputs_pitch, outputs_point, sums_at, data_pitch, sums_point,
        elements,
    )  # fmt: skip


# ---- the launch


def launch_of(problem: ConvProblem, sizes: Sizes) -> SummedLaunch:
    """What computes the gradient."""
    memory, square, blocks = memory_of(problem, sizes), sizes.square, sizes.blocks
    x_strides, y_strides = tensor_strides(problem)
    tables = Tables(Gradient)
    covered = [count * part for count, part in zip(blocks, sizes.block, strict=True)]
    outputs = [count * each.outputs for count, each in zip(covered, square, strict=True)]
    further = [each.products - each.outputs for each in square]
    extents = problem.padded[0], outputs[0] + further[0], outputs[1] + further[1]
    x_axes = [tables.add(source_axis(problem, Op.FORWARD, axis, extents[axis]).packed()) for axis in range(3)]
    y_axes = [tables.add(output_axis(problem, axis, outputs[axis - 1]).packed()) for axis in (1, 2)]
    tiles = np.arange(math.prod(sizes.block))
    vector = tables.vector(
        images=problem.N,
        groups=problem.groups,
        sources=problem.C // problem.groups,
        targets=problem.K // problem.groups,
        channel_block=sizes.channel_block,
        row_block=sizes.row_block,
        slices=problem.filter[0],
        dilation_d=problem.dilation[0],
        slice_taps=problem.filter[1] * problem.filter[2],
        **named("x_{}", "ncdhw", x_strides),
        **named("y_{}", "ncdhw", y_strides),
        **named("outputs_{}", "hw", (each.outputs for each in square)),
        **named("further_{}", "hw", further),
        points=square.products,
        neighbours=problem.dilation[2] == 1 or problem.layout == "channels_last",
        planes=plane_extents(problem, Op.FORWARD)[0],
        **named("phases_{}", "hw", (phases_of(problem, Op.FORWARD, axis) for axis in (1, 2))),
        **named("tiles_{}", "pq", sizes.tiles),
        **named("block_{}", "pq", sizes.block),
        **named("blocks_{}", "pq", blocks),
        items_per_task=sizes.items_per_task,
        **{name: value for name, value in vars(memory).items() if name != "elements"},
        **named("x_axis_{}", "dhw", x_axes),
        **named("y_axis_{}", "hw", y_axes),
        rows_at=tables.add(np.arange(sizes.row_block)),
        taken_at=tables.add(memory.outputs_pitch * tiles),
        offsets_at=tables.add(memory.data_pitch * tiles),
    )
    geometry = with_sizes(vector, problem, Op.GRAD_WEIGHT, sizes.parts * math.prod(problem.w_shape), memory.elements)
    launch = Launch(KERNELS[sizes.kind], sizes.tasks, problem.dtype, geometry, memory.elements)
    return SummedLaunch(launch, sizes.parts)
