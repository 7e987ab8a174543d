"""Sizes of blocks for the kernels of Winograd's method: those with which all tasks together take the fewest cycles.

Cycles are counted as in `fastconv.cpu._tiles`: one is a multiply-add of a vector register.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np

from ..core.arrays import LINE_BYTES
from ..core.boundary import OUTSIDE, source_index
from ..core.machine import local_machine
from ..core.problem import Axes, ConvProblem, Op
from ._axes import Axis, Integers, folding, phased_axis, transposed_extent
from ._gemm import ROWS, SPARE_ROWS, VECTORS, column_steps, lanes_of, padded, row_cycles, whole_rows
from ._geometry import even_split
from ._rows import ROW_CYCLES, TRANSPOSED_CYCLES, VECTOR_CYCLES
from ._simd import FAST_PRODUCTS
from ._tiles import WAITING, axes, channels_of, parts_of
from ._winograd_transforms import SQUARES, Square

# Parts of the workspace begin at multiples of it: a cache line of any type.
ALIGNMENT = 16
# Tiles of a block: four of the widest register tiles of float32.
BLOCK_TILES = 192
# Elements of tiles that are written before they are read: half of a first-level cache of 32 KiB.
ELEMENTS_BYTES = 16 << 10


class _Most(NamedTuple):
    """Bytes of the data and filters of a block, and of its sums, which are gone through point by point, at most."""

    data: int
    filters: int
    sums: int
    filter_rows: int  # target channels whose filters are transformed at once even if they take more


# On the machine of docs/performance.md, with a second-level cache of 1 MiB, 256x14x14 to 256, 3x3, took 1.08 to 1.25 ms
# with all parts between 0.6 and 1.4 MiB, and rows of less than 64 channels 1.3 to 1.4 ms; 8x64x56x56 to 64, by F(7, 3)
# and F(4, 3), 3.6 ms with blocks of 112 tiles and 64 rows, whose sums take 1.5 MiB, 4.4 with 56 tiles, as long with
# more channels; 512x38x57 to 512 with a dilation of 3 27 to 30 ms with 256 rows, whose sums take 1.7 MiB, 32 to 33 with
# 128. On an Intel Xeon, with 2 MiB, data had better be less, and filters read as soon as they are written: by turns
# with the sizes above, 22 of 32 runs of 16 problems, forward and back, take 2 to 12 % less and one 2 % more; those
# dilated ones 17.5 ms in place of 19.4, back 19.0 and 21.3, 3x3x3 of 64x56x64x64 57 and 64, with sums of 2.1 MiB 70.
MOST = _Most(data=900 << 10, filters=512 << 10, sums=1800 << 10, filter_rows=ROWS)
if FAST_PRODUCTS:
    MOST = MOST._replace(data=600 << 10, filters=170 << 10, filter_rows=2 * ROWS)
# Cycles for each point of a register of tiles that is transformed, of filters, and of sums, storing into a second-level
# cache included; for each row of outputs that is stored; and for each register tile beside its products. From the parts
# of 64x56x56, 128x28x28 and 256x14x14 with 3x3 there, each left out in turn: 6 to 9 for the data of F(4, 3), 8 to 11
# where not all points find room in registers.
DATA_CYCLES = 7
SPILLED_CYCLES = 9
FILTER_CYCLES = 7
BACK_CYCLES = 3.5
STORED_ROW_CYCLES = 16
REGISTER_TILE_CYCLES = 50
# Cycles for each cache line of weights that is transformed, where products are fast, as transforming does not hide what
# comes from far: 512x7x7 to 512, 3x3, took 1.20 ms on two threads of an Intel Xeon where 0.78 were predicted without,
# 512x14x14 2.00 and 1.76, 256x14x14 to 256 0.62 and 0.48.
WEIGHT_CYCLES = 20 if FAST_PRODUCTS else 0
# Cycles for each vector of transformed filters that is read from the third-level cache, and the most bytes of them: on
# one thread, 256x14x14 to 256, 3x3, took 0.84 ms with them and 1.10 ms without, 512x7x7 to 512 with 16 MiB of them 1.6
# and 2.1 ms, but 512x28x28 to 512 with 36 MiB 19 to 25 and 19 ms. Transforming all filters before all tasks of one call
# never won: 7.2 to 8.4 ms in place of 7.6 for 8x64x56x56 to 64, 1.18 in place of 1.13 ms for 256x14x14.
FETCHED_CYCLES = 2
PREPARED_BYTES = 20 << 20
# Cycles for each element that is copied one by one, as those of a row with a dilation are.
ELEMENT_CYCLES = 2.5


@dataclass(frozen=True)
class Sizes:
    """Extents of blocks in tiles, and channels."""

    kind: int  # of `SQUARES`
    tiles: Axes
    block: Axes
    channel_block: int
    row_block: int
    filter_block: int
    blocks_per_task: int
    prepared: bool  # whether tasks are given transformed filters
    tasks: int
    additions: int  # that follow one another in a sum
    cycles: float  # of all tasks, one after the other

    def time(self, threads: int) -> float:
        """Cycles from the first task to the last, for which the other threads wait a part of its time."""
        return self.cycles / self.tasks * (-(-self.tasks // threads) + WAITING)

    @property
    def square(self) -> Square:
        return SQUARES[self.kind]

    @property
    def blocks(self) -> Axes:
        return axes(-(-whole // part) for whole, part in zip(self.tiles, self.block, strict=True))

    @property
    def plane(self) -> int:
        """Tiles of a plane of a block."""
        return self.block[1] * self.block[2]


def _computed(problem: ConvProblem, op: Op, axis: int) -> int:
    """Elements along an axis that are computed; of a GRAD_INPUT that folds, those in the padding, too."""
    return transposed_extent(problem, axis) if op is Op.GRAD_INPUT else problem.output[axis]


def phases_of(problem: ConvProblem, op: Op, axis: int) -> int:
    """Along H and W, each first position of a dilated filter: what it meets is a plane, in which nothing is dilated.

    The slices of a filter, along the depth, are terms of a sum, and may stand anywhere.
    """
    return 1 if axis == 0 else min(problem.dilation[axis], _computed(problem, op, axis))


def plane_extents(problem: ConvProblem, op: Op) -> Axes:
    """Planes that are computed: for each element along the depth those of all phases; and their height and width."""
    planes = _computed(problem, op, 0) * phases_of(problem, op, 1) * phases_of(problem, op, 2)
    height, width = (-(-_computed(problem, op, axis) // problem.dilation[axis]) for axis in (1, 2))
    return planes, height, width


def depth_reach(problem: ConvProblem, op: Op) -> int:
    """Planes that the last slice of a filter is behind the first."""
    return (problem.reach[0] - 1) * phases_of(problem, op, 1) * phases_of(problem, op, 2)


def gathers(problem: ConvProblem, op: Op) -> bool:
    """Whether elements of a row of the source are apart, or have more than constant padding around."""
    return _is_apart(problem) or (op is Op.FORWARD and folding(problem))


def scatters(problem: ConvProblem, op: Op) -> bool:
    """Whether elements of a row of the target are apart, or are added to."""
    return _is_apart(problem) or (op is Op.GRAD_INPUT and folding(problem))


def _is_apart(problem: ConvProblem) -> bool:
    return problem.layout == "channels_last" or problem.dilation[2] > 1


def kinds(problem: ConvProblem) -> list[int]:
    """Those of `SQUARES` that serve the filter."""
    taps = problem.filter[1:]
    return [kind for kind, square in enumerate(SQUARES) if (square.height.taps, square.width.taps) == taps]


def source_axis(problem: ConvProblem, op: Op, axis: int, positions: int) -> Axis:
    """The source along an axis, by phases, with the border that the filter reaches."""
    low, high = problem.padding[axis]
    if op is not Op.GRAD_INPUT:
        extent = problem.input[axis]
        places = source_index(extent, low, high, problem.padding_mode)
    else:
        extent, low = problem.output[axis], problem.reach[axis] - 1 - (0 if folding(problem) else low)
        at = np.arange(_computed(problem, op, axis) + problem.reach[axis] - 1) - low
        places = np.where((at >= 0) & (at < extent), at, OUTSIDE)
    run = max(0, low), max(0, low + extent)
    return _by_phases(problem, op, axis, places, run, positions)


def target_axis(problem: ConvProblem, op: Op, axis: int, positions: int) -> Axis:
    """The target along an axis, by phases; of a GRAD_INPUT that folds, with the padding, which repeats elements."""
    if op is not Op.GRAD_INPUT:
        return output_axis(problem, axis, positions)
    extent = problem.input[axis]
    low, high = problem.padding[axis] if folding(problem) else (0, 0)
    places = source_index(extent, low, high, problem.padding_mode)
    return _by_phases(problem, op, axis, places, (low, low + extent), positions)


def output_axis(problem: ConvProblem, axis: int, positions: int) -> Axis:
    """The output along an axis, by phases."""
    extent = problem.output[axis]
    return _by_phases(problem, Op.FORWARD, axis, np.arange(extent), (0, extent), positions)


def _by_phases(problem: ConvProblem, op: Op, axis: int, places: Integers, run: tuple[int, int], positions: int) -> Axis:
    phases = list(range(phases_of(problem, op, axis)))
    return phased_axis(places, phases, problem.dilation[axis] if axis else 1, run, positions)


@lru_cache(maxsize=1024)
def sizes_of(problem: ConvProblem, op: Op) -> Sizes:
    """The sizes that take the least time on this machine's number of threads, from the weight."""
    return _least(each for kind in kinds(problem) for each in candidates(problem, op, kind) if not each.prepared)


def prepared_sizes_of(problem: ConvProblem, op: Op) -> Sizes | None:
    """Sizes of the same kind for filters that are transformed already, or None where nothing is gained."""
    usual = sizes_of(problem, op)
    best = _least([usual, *(each for each in candidates(problem, op, usual.kind) if each.prepared)])
    return best if best.prepared else None


def _least(choices: Iterable[Sizes]) -> Sizes:
    threads = local_machine().threads
    return min(choices, key=lambda each: each.time(threads))


def candidates(problem: ConvProblem, op: Op, kind: int) -> Iterator[Sizes]:
    square = SQUARES[kind]
    sources, targets = channels_of(problem, op)
    planes, height, width = plane_extents(problem, op)
    tiles = planes, -(-height // square.height.outputs), -(-width // square.width.outputs)
    lanes, size = lanes_of(problem.dtype), problem.real_bytes
    points, slices, reach = square.products, problem.filter[0], depth_reach(problem, op)
    folds = op is Op.GRAD_INPUT and folding(problem)  # blocks add to each other's elements
    may_prepare = prepared_filters(problem, op, square)[-1] * size <= PREPARED_BYTES
    for block in _block_choices(tiles, lanes):
        depth, height, width = block
        plane = height * width
        blocks = math.prod(-(-whole // part) for whole, part in zip(tiles, block, strict=True))
        planes = depth + reach
        lines = height * square.height.outputs + square.height.reach
        line_elements = square.width.outputs * width
        line_cycles: float = VECTOR_CYCLES * -(-line_elements // lanes)
        if problem.layout == "channels_last":
            line_cycles += TRANSPOSED_CYCLES * -(-line_elements // lanes)
        elif problem.dilation[2] > 1:
            line_cycles = ELEMENT_CYCLES * line_elements
        gather = planes * lines * (ROW_CYCLES + line_cycles)
        data = gather + planes * -(-plane // lanes) * points * (DATA_CYCLES if points <= 36 else SPILLED_CYCLES)
        vectors = -(-depth * plane // lanes)
        back = vectors * points * BACK_CYCLES
        back += depth * height * square.height.outputs * (STORED_ROW_CYCLES + line_cycles)
        data_bytes = points * size * padded(planes * plane, problem.dtype)
        for channel_block in _channel_blocks(sources, MOST.data // data_bytes, lanes):
            filter_bytes = points * slices * channel_block * size
            channel_blocks = -(-sources // channel_block)
            for row_block in _row_blocks(targets, MOST.sums // (points * size * vectors * lanes)):
                row_blocks = -(-targets // row_block)
                register_tiles = channel_blocks * -(-row_block // ROWS) * -(-vectors // VECTORS)
                product = row_cycles(row_block) * column_steps(depth * plane, lanes) * slices * sources
                product = points * (product + register_tiles * REGISTER_TILE_CYCLES)
                block_cycles = blocks * (sources * data + product + row_block * back)
                filter_vectors = slices * row_block * -(-sources // lanes) * points
                whole = problem.N * problem.groups * row_blocks
                choose = partial(
                    Sizes, kind, tiles, block, channel_block, row_block,
                    additions=channel_block * slices + channel_blocks,
                )  # fmt: skip
                if may_prepare:
                    yield choose(
                        row_block, blocks if folds else 1, True, whole * (1 if folds else blocks),
                        cycles=whole * (block_cycles + blocks * filter_vectors * FETCHED_CYCLES),
                    )  # fmt: skip
                filter_block = whole_rows(row_block, max(MOST.filter_rows, MOST.filters // filter_bytes))
                filters: float = filter_vectors * FILTER_CYCLES
                filters += row_block * sources * problem.taps * size / LINE_BYTES * WEIGHT_CYCLES
                stays = channel_blocks == 1 and filter_block == row_block
                for per_task in {blocks} if folds else {1, -(-blocks // 4), -(-blocks // 2), blocks} if stays else {1}:
                    runs = -(-blocks // per_task)
                    yield choose(
                        filter_block, per_task, False, whole * runs,
                        cycles=whole * (block_cycles + (runs if stays else blocks) * filters),
                    )  # fmt: skip


def _block_choices(tiles: Axes, lanes: int) -> Iterator[Axes]:
    """Blocks that lose few lanes: whole planes, or the best of parts of one plane."""
    depth, height, width = tiles
    if height * width <= BLOCK_TILES:
        yield from (
            (part, height, width) for part in itertools.islice(parts_of(depth, BLOCK_TILES // (height * width)), 4)
        )

    def vectors(part: tuple[int, int]) -> tuple[int, int]:
        h, w = part
        edges = itertools.product({h, height % h or h}, {w, width % w or w})
        counts = {h: height // h, height % h: 1}, {w: width // w, width % w: 1}
        return sum(counts[0][a] * counts[1][b] * -(-a * b // lanes) for a, b in edges), -w

    parts = [
        (h, w)
        for w in itertools.islice(parts_of(width, BLOCK_TILES), 12)
        for h in range(1, min(height, BLOCK_TILES // w) + 1)
        if h * w * 8 >= min(BLOCK_TILES, height * width)
    ]
    yield from ((1, *part) for part in sorted(parts, key=vectors)[:8])


def _channel_blocks(sources: int, most: int, lanes: int) -> set[int]:
    """About equal parts of whole registers, as that is what filters are transformed in."""
    most = max(1, min(most, sources))
    parts = {even_split(sources, part) for part in (most, most // 2) if part >= min(16, most)}
    return {min(sources, -(-part // lanes) * lanes) for part in parts}


def _row_blocks(targets: int, most: int) -> set[int]:
    fewest = -(-targets // max(ROWS, min(most, targets)))
    counts = fewest, fewest + 1, 2 * fewest, 4 * fewest, 8 * fewest
    return {whole_rows(targets, -(-targets // count)) for count in counts}


@dataclass(frozen=True)
class Memory:
    """Places in the workspace and their distances, in elements.

    Distances of points are no multiples of 4096 bytes, or all points of a tile would share a few lines of the cache.
    """

    planes_together: int
    channels_together: int
    elements_pitch: int
    elements_phase: int
    elements_plane: int
    gathered_at: int
    gathered_pitch: int
    data_at: int
    data_pitch: int
    data_point: int
    filters_at: int
    filters_slice: int
    filters_pitch: int
    filters_point: int
    filters_group: int
    prepared_elements: int  # of all filters, where they are not in the workspace
    sums_at: int
    sums_pitch: int
    sums_point: int
    rows_together: int
    lines_at: int
    lines_pitch: int
    lines_row: int
    scratch_at: int
    elements: int


def aligned(elements: int) -> int:
    return -(-elements // ALIGNMENT) * ALIGNMENT


def _filters(problem: ConvProblem, square: Square, sources: int, targets: int) -> tuple[int, int, int, int]:
    """Elements from one slice, row, point and group of filters to the next."""
    slice = padded(sources, problem.dtype)
    pitch = problem.filter[0] * slice
    point = aligned(targets * pitch) + ALIGNMENT
    return slice, pitch, point, square.products * point


def prepared_filters(problem: ConvProblem, op: Op, square: Square) -> tuple[int, int, int, int, int]:
    """Those distances of all filters, transformed once, and their number of elements."""
    distances = _filters(problem, square, *channels_of(problem, op))
    return *distances, problem.groups * distances[3]


def memory_of(problem: ConvProblem, op: Op, sizes: Sizes) -> Memory:
    square, plane, depth = sizes.square, sizes.plane, sizes.block[0]
    lanes = lanes_of(problem.dtype)
    m_h, m_w = square.height.outputs, square.width.outputs
    heights, widths = (part * each.outputs + each.reach for part, each in zip(sizes.block[1:], square, strict=True))
    # A register behind the last row of tiles is written, and read.
    elements_pitch = (-(-heights // m_h) * sizes.block[2] // lanes + 2) * lanes
    elements_phase = square.width.products * elements_pitch
    elements_plane = m_h * elements_phase
    gathered_pitch = heights * widths if gathers(problem, op) else 0
    together = max(1, ELEMENTS_BYTES // problem.real_bytes // (elements_plane + gathered_pitch))
    is_last = problem.layout == "channels_last"
    gathered = lanes if is_last else together
    gathered_at = together * elements_plane
    data_at = aligned(gathered_at + gathered * gathered_pitch)
    planes = depth + depth_reach(problem, op)
    data_pitch = padded((planes - 1) * plane + padded(plane, problem.dtype), problem.dtype)
    data_point = aligned(sizes.channel_block * data_pitch + lanes) + ALIGNMENT
    filters_at = sums_at = data_at + square.products * data_point
    filters = prepared_filters(problem, op, square)
    if not sizes.prepared:
        distances = _filters(problem, square, sizes.channel_block, sizes.filter_block)
        filters = *distances[:3], 0, 0
        sums_at += distances[3]
    sums_pitch = padded(depth * plane, problem.dtype)
    sums_point = aligned((sizes.row_block + SPARE_ROWS) * sums_pitch) + ALIGNMENT
    lines_at = sums_at + square.products * sums_point
    lines_pitch = m_w * sums_pitch
    lines_row, rows = m_h * lines_pitch, lanes if is_last else 1
    scratch_at = lines_at + rows * lines_row
    elements = scratch_at + lanes * rows
    return Memory(
        together, gathered, elements_pitch, elements_phase, elements_plane, gathered_at, gathered_pitch,
        data_at, data_pitch, data_point, filters_at, *filters,
        sums_at, sums_pitch, sums_point, rows, lines_at, lines_pitch, lines_row, scratch_at, elements,
    )  # fmt: skip
