"""Sizes of blocks for Winograd's method with a stride: those with which all tasks together take the fewest cycles.

Cycles are counted as in `fastconv.cpu._tiles`: one is a multiply-add of a vector register. The kernels, with the parts
of the workspace that are counted here, are those of `fastconv.cpu._winograd_pairs`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..core.algorithm import running_sum_error
from ..core.machine import local_machine
from ..core.problem import Axes, ConvProblem, Op
from ._axes import folding
from ._gemm import ROWS, SPARE_ROWS, VECTORS, lanes_of, padded, row_cycles
from ._geometry import even_split
from ._pairs import PairedAxis, paired_axis
from ._rows import STORED_ROW_CYCLES, TRANSPOSED_CYCLES, VECTOR_CYCLES
from ._tiles import (
    CALL_TILES,
    TASK_CYCLES,
    Tiling,
    channels_of,
    gather_cycles,
    halo_of,
    parts_of,
    planes_of,
    positions_of,
    whole_rows_strip,
)

# Bytes of the data and the panel of a task, and of its sums. On two threads the gradient of 128x56x56 to 128, 3x3, took
# 1.01 ms with 0.7 and 1.3 MB, 1.07 with half the sums and twice the tasks; operands of 0.3 to 1.1 MB take about as long
# forward, and 1.6 MB a tenth longer.
OPERAND_BYTES = 800 << 10
SUMS_BYTES = 1400 << 10
# Bytes of both that a second-level cache holds, and cycles for each vector where they are more: 3x224x224 to 64, 7x7,
# took 1.07 ms in tiles of 14x112 outputs, with 1.5 MB, and 1.03 with 0.9 MB; 1.33 and 1.18 beside a busy process.
NEAR_BYTES = 1100 << 10
FAR_CYCLES = 1
# Bytes of the data of a sum that a first-level cache holds, and cycles for each vector of them where they are more:
# they come from the second level then, for every three vectors of the panel. The same gradient took 1.06 and 1.18 ms in
# the mean of two busy minutes in tiles of 14x28 outputs of 128 channels, 1.09 and 1.26 in those of 28x28 of 64.
NEAREST_BYTES = 24 << 10
STREAMED_CYCLES = 0.8
# Bytes of planes that are gathered before they are separated: half of a first-level cache of 32 KiB.
GATHERED_BYTES = 16 << 10
# Elements from one group of outputs to the next in a row that are separated in vectors.
PERIODS = 1, 2, 4
# Cycles for each vector from which elements are separated, for one that is taken alone, for each vector of elements of
# the data, of taps that are added and of a sum that goes into an output, and for each register tile beside products.
# A fit to 60 times of 11 problems, of 3x3 to 7x7 and of 3 and 5 taps, on one thread, gave 9, 4, 13, 3.6 and 22, and met
# those of chosen sizes within 8 %. The first and the fourth are less here by what x and y take through memory, which is
# counted apart. What is taken alone was not measured.
SEPARATED_CYCLES = 7
SINGLE_CYCLES = 6
DIFFERENCE_CYCLES = 4
ADDITION_CYCLES = 13
TOTAL_CYCLES = 3
REGISTER_TILE_CYCLES = 22


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
    sums, additions = len(heights.sums) * len(widths.sums), sums_of_taps(problem, op)
    elements, products = len(heights.elements) * len(widths.elements), heights.products * widths.products
    phases, taps = len(heights.outputs) * len(widths.outputs), problem.filter[1] * problem.filter[2]
    for lines, groups_w, row_block in itertools.product(
        itertools.islice(parts_of(grid[0], grid[0]), 24),
        itertools.islice(parts_of(grid[1], grid[1]), 6),
        {lanes * even_split(-(-targets // lanes), most) for most in range(2, -(-targets // lanes) + 1)} or {lanes},
    ):
        groups, columns = lines * groups_w, -(-row_block // lanes)
        tile = 1, lines * heights.together, groups_w * widths.together
        planes, strip, gap = _strip_of(problem, op, tile)
        rows, line = planes[1] * strip[1], groups_w + widths.further
        operands = (elements * lines * line + (taps + additions) * columns * lanes) * size
        most, sums_bytes = OPERAND_BYTES // operands, sums * groups * columns * lanes * size
        if most == 0 or sums_bytes > SUMS_BYTES:
            continue
        block = even_split(sources, most)
        blocks = -(-sources // block)
        gather = sources * gather_cycles(problem, planes, strip, lanes)
        if widths.period in PERIODS:
            gather += sources * rows * -(-line // lanes) * widths.period * SEPARATED_CYCLES
        else:
            gather += sources * rows * line * widths.period * SINGLE_CYCLES
        gather += sources * elements * -(-lines * line // lanes) * DIFFERENCE_CYCLES
        # In FORWARD the taps of all sources follow each other, in GRAD_INPUT each source has squares of its own.
        turned = taps if op is Op.FORWARD else 1.25 * padded(taps, problem.dtype)
        panel = turned * TRANSPOSED_CYCLES + additions * ADDITION_CYCLES
        product: float = sources * products * row_cycles(groups) * columns
        register_tiles = blocks * -(-columns // VECTORS) * (-(-groups // ROWS) + CALL_TILES)
        product += sums * register_tiles * REGISTER_TILE_CYCLES
        if products / sums * block * lines * line * size > NEAREST_BYTES:
            product += STREAMED_CYCLES * sources * products * -(-columns // VECTORS) * lines * line / lanes
        again: float = VECTOR_CYCLES * sums * groups * columns * (blocks - 1)
        if operands * block + sums_bytes > NEAR_BYTES:
            again += FAR_CYCLES * blocks * (operands * block + 2 * sums_bytes) / (lanes * size)
        pixels = tile[1] * tile[2]
        store = phases * pixels * columns * (4 * TOTAL_CYCLES + TRANSPOSED_CYCLES)
        store += row_block * (lines * STORED_ROW_CYCLES + phases * -(-pixels // lanes) * VECTOR_CYCLES)
        tiles = positions[0] * -(-positions[1] // tile[1]) * -(-positions[2] // tile[2])
        tasks = problem.N * problem.groups * -(-targets // row_block) * tiles
        yield Tiling(
            positions, tile, strip, planes, block, row_block, True, -(-pixels // lanes) * lanes, tasks, gap=gap,
            cycles=tasks * (gather + sources * columns * panel + product + again + store + TASK_CYCLES),
        )  # fmt: skip


def sums_of_taps(problem: ConvProblem, op: Op) -> int:
    """Kinds of taps along H and W but for the taps themselves."""
    both = axes_of(problem, op)
    return math.prod(len(each.kinds) for each in both) - math.prod(
        sum(not kind.is_sum for kind in each.kinds) for each in both
    )


@dataclass(frozen=True)
class Memory:
    """Places in the workspace, in elements, behind the strip."""

    strip_channels: int
    apart_at: int
    apart_plane: int
    apart_line: int
    data_at: int
    data_pitch: int
    panel_at: int
    sums_of_taps_at: int
    columns_pitch: int
    sums_at: int
    sums_pitch: int
    totals_at: int
    elements: int


def memory_of(problem: ConvProblem, op: Op) -> Memory:
    sizes, (heights, widths) = sizes_of(problem, op), axes_of(problem, op)
    size, lanes = np.dtype(problem.dtype).itemsize, lanes_of(problem.dtype)
    columns_pitch = padded(sizes.row_block, problem.dtype)
    apart_line, groups = groups_of(sizes, heights, widths)
    # As many as are turned around at once, or as stay in a first-level cache until they are separated.
    together = lanes if problem.layout == "channels_last" else max(1, GATHERED_BYTES // (sizes.channel_pitch * size))
    strip_channels = min(sizes.channel_block, together)
    # As far behind the last row as vectors of every fourth element read.
    apart_at = padded(strip_channels * sizes.channel_pitch, problem.dtype) + max(PERIODS) * lanes
    apart_plane = padded(-(-sizes.strip[1] // heights.period) * apart_line, problem.dtype) + lanes
    data_at = apart_at + strip_channels * sizes.planes[1] * heights.period * widths.period * apart_plane
    data_pitch = padded(sizes.channel_block * groups, problem.dtype) + lanes
    panel_at = data_at + len(heights.elements) * len(widths.elements) * data_pitch
    sums_of_taps_at = panel_at + sizes.channel_block * problem.taps * columns_pitch
    sums_at = sums_of_taps_at + sizes.channel_block * sums_of_taps(problem, op) * columns_pitch
    pairs = math.prod(sizes.tile) // (heights.together * widths.together)
    sums_pitch = (pairs + SPARE_ROWS) * columns_pitch
    totals_at = sums_at + len(heights.sums) * len(widths.sums) * sums_pitch
    results = heights.together * len(heights.outputs) * sizes.tile[2] * len(widths.outputs) * lanes
    return Memory(
        strip_channels, apart_at, apart_plane, apart_line, data_at, data_pitch, panel_at, sums_of_taps_at,
        columns_pitch, sums_at, sums_pitch, totals_at, totals_at + results,
    )  # fmt: skip


def groups_of(sizes: Tiling, heights: PairedAxis, widths: PairedAxis) -> tuple[int, int]:
    """Elements of a line of groups, with those further on that it reaches, and of the groups of a tile."""
    line = sizes.tile[2] // widths.together + widths.further
    return line, sizes.tile[1] // heights.together * line


def workspace(problem: ConvProblem, op: Op) -> int:
    """Scratch memory of a thread, in bytes."""
    return memory_of(problem, op).elements * np.dtype(problem.dtype).itemsize


def error_bound(problem: ConvProblem, op: Op) -> float:
    """That of sums of products which are larger: where two random elements or taps are added, by the root of two."""
    sizes, both = sizes_of(problem, op), axes_of(problem, op)
    terms = sizes.channel_block * math.prod(max(map(len, each.sums)) for each in both)
    blocks = -(-channels_of(problem, op)[0] // sizes.channel_block)
    return math.sqrt(growth_of(problem, op)) * running_sum_error(problem, terms + blocks + 3)


def growth_of(problem: ConvProblem, op: Op) -> int:
    """Of sums of magnitudes: along each axis products of two elements and a tap, or an element and two taps."""
    return math.prod(each.together for each in axes_of(problem, op))
