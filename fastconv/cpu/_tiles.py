"""Sizes of tiles and blocks for the direct kernels: those with which all tasks together take the fewest cycles.

One cycle is one multiply-add of a vector register. Gathering, packing and storing are counted in the same cycles, so
that waste at the edges of tiles, work that is done twice and idle threads are weighed against each other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..core.arrays import LINE_BYTES
from ..core.machine import local_machine
from ..core.problem import Axes, ConvProblem, Op
from . import _dots
from ._axes import folding, transposed_extent, transposed_reach
from ._gemm import ROWS, TILE_CYCLES, VECTORS, column_steps, lanes_of, row_cycles, vector_steps, whole_rows
from ._geometry import even_split, named, tensor_strides
from ._rows import ROW_CYCLES, STORED_CYCLES, STORED_ROW_CYCLES, TRANSPOSED_CYCLES, VECTOR_CYCLES
from ._simd import FAST_PRODUCTS

# Pixels of a tile: eighty times the widest register tile of float32. With 480, whose eight rows of sums take half of a
# first-level cache, the gradient of 3x224x224 to 64, 3x3, took 2.2 ms on two threads, with 960 2.0 and so 1.8; that of
# 4x512x512 to 4 1.08, 0.82 and 0.64 ms.
TILE_PIXELS = 3840
# Pixels of a row that is multiplied at once: the eight rows of y of a register tile take a first-level cache of 32 KiB.
ROW_PIXELS = 960
# Strips of a task, panels and sums, in a second-level cache of 1 MiB. With strips of 256 KiB, the gradient of 128x56x56
# to 128, 3x3 with a stride of 2, took 1.54 ms, and so 1.46.
STRIP_BYTES = 448 << 10
PANEL_BYTES = 256 << 10
SUMS_BYTES = 256 << 10
# Weights of a register tile of GRAD_INPUT, in whole cache lines, where products are fast: a run of them for each source
# channel, of which a first-level cache and the processor's guesses hold some tens. 512x7x7 to 512, 3x3, took 1.5 ms on
# an Intel Xeon with all channels at once, and takes 0.9 so, 512x14x14 to 512 with a stride of 2 1.28 and 1.04.
WEIGHT_BYTES = 16 << 10
# Pixels and output channels of a task of GRAD_WEIGHT: the transposed tile of y takes a quarter of that cache, too.
WEIGHT_PIXELS = 256
WEIGHT_CHANNELS = 256
# The sum over the pixels is cut into parts, and the input channels into blocks, until there are this many tasks; a
# constant, so that the result does not depend on the machine.
TASKS_LEAST = 8
# Register tiles that take as long as to begin with the next rows of sums: `multiply` has forty arguments. Fitted as the
# cycles of `fastconv.cpu._rows`.
CALL_TILES = 8
# Time of products with pixels from a strip, which begin anywhere in a cache line, over those from a panel: 9.9 to
# 9.5 ms for 64x112x112 to 64, 3x3, in tiles that waste nothing.
UNALIGNED = 1.06
# Time of products with pixels from strips and panels over others, where products are fast: on an Intel Xeon FORWARD and
# GRAD_INPUT took 0.65 to 0.85 of what was predicted for 30 problems without it, and as long by most other algorithms.
# The same holds for `_pixelwise`, which is 1.08 to 1.25 times as fast there where it is chosen.
STRIP_PRODUCTS = 0.75 if FAST_PRODUCTS else 1.0
# Cycles for each cache line of weights, which come from the second level for every tile. With 112, 224 and 448 pixels
# in a tile, 64x112x112 to 64, 3x3, took 10.0, 9.7 and 9.2 ms.
LINE_CYCLES = 4
# Cycles of a task beside its tiles: 64x56x56 to 256, 1x1, took 0.08 ms longer on two threads in 528 tasks than in 72.
TASK_CYCLES = 1300
# Cycles for each vector of each part of a gradient that is added up at the end, by one thread while another waits:
# 41 us for four parts of 512x256.
SUMMED_CYCLES = 9
# Cycles for each row that two phases make by turns: 28x28 to 56x56, 1x1 with a stride of 2, 512 channels to 256, took
# 1.10 ms on two threads, where those of other rows would make 1.27.
TURNS_CYCLES = 25
# Part of a task for which threads wait for each other at the end. 0.25 cut 14x14 into tiles of 28 pixels: 2.7 ms
# instead of 2.3 for 256 to 256, 3x3.
WAITING = 0.05


@dataclass(frozen=True)
class Tiling:
    """Sizes of tiles, strips and blocks; extents are over the positions of the planes."""

    positions: Axes
    tile: Axes
    strip: Axes
    planes: Axes
    channel_block: int
    row_block: int
    packed: bool
    pitch: int
    tasks: int
    tiles_per_task: int = 1
    parts: int = 1
    row_by_row: bool = False
    gap: int = 0  # positions of a strip between those of two neighbouring pixels
    cycles: float = 0.0  # of all tasks, one after the other

    def time(self, threads: int) -> float:
        """Cycles from the first task to the last, for which the other threads wait a part of its time."""
        return self.cycles / self.tasks * (-(-self.tasks // threads) + WAITING)

    @property
    def tiles(self) -> Axes:
        return axes(-(-whole // part) for whole, part in zip(self.positions, self.tile, strict=True))

    @property
    def channel_pitch(self) -> int:
        return math.prod(self.planes) * math.prod(self.strip)

    @property
    def line_pitch(self) -> int:
        return self.tile[2] if self.packed else self.strip[2]

    @property
    def plane_pitch(self) -> int:
        return self.line_pitch * (self.tile[1] if self.packed else self.strip[1])


def axes(values: Iterable[int]) -> Axes:
    first, second, third = values
    return first, second, third


def channels_of(problem: ConvProblem, op: Op) -> tuple[int, int]:
    """Channels of one group that are gathered, and those that are stored."""
    inputs, outputs = problem.C // problem.groups, problem.K // problem.groups
    return (outputs, inputs) if op is Op.GRAD_INPUT else (inputs, outputs)


def role_fields(problem: ConvProblem, op: Op) -> dict[str, int]:
    """The fields, of a header, of the tensor that is gathered, the one that is stored, and the weight's way between.

    FORWARD and GRAD_WEIGHT gather x and meet y, GRAD_INPUT gathers y and stores x.
    """
    sources, targets = channels_of(problem, op)
    source_strides, target_strides = tensor_strides(problem)
    weight_source, weight_target = problem.taps, problem.C // problem.groups * problem.taps
    if op is Op.GRAD_INPUT:
        source_strides, target_strides = target_strides, source_strides
        weight_source, weight_target = weight_target, weight_source
    return {
        "groups": problem.groups,
        "sources": sources,
        "targets": targets,
        **named("source_{}", "ncdhw", source_strides),
        **named("target_{}", "ncdhw", target_strides),
        "weight_group": math.prod(problem.w_shape) // problem.groups,
        "weight_source": weight_source,
        "weight_target": weight_target,
    }


def row_group(problem: ConvProblem) -> int:
    """Rows of sums that are stored together: in channels_last as many as are transposed at once."""
    return ROWS if problem.layout == "channels_first" else max(ROWS, lanes_of(problem.dtype))


def rows_are_joined(problem: ConvProblem, op: Op, tile: Axes, is_dense: bool) -> bool:
    """Whether the rows of a tile follow each other in the target, and in the sums, if those are dense."""
    if problem.layout == "channels_last" or (
        op is Op.GRAD_INPUT and (folding(problem) or problem.stride[1:] != (1, 1))
    ):
        return False
    return is_dense and tile[2] == positions_of(problem, op)[2]


def positions_of(problem: ConvProblem, op: Op) -> Axes:
    """Positions of the target's planes."""
    if op is not Op.GRAD_INPUT:
        return problem.output
    return axes(-(-transposed_extent(problem, axis) // problem.stride[axis]) for axis in range(3))


def halo_of(problem: ConvProblem, op: Op) -> Axes:
    """Positions that a tile needs beyond its own."""
    if op is Op.GRAD_INPUT:
        return axes(sum(transposed_reach(problem, axis)) for axis in range(3))
    return axes((reach - 1) // stride for reach, stride in zip(problem.reach, problem.stride, strict=True))


def planes_of(problem: ConvProblem, op: Op) -> Axes:
    """Stride phases of the source that some tap reads."""
    if op is Op.GRAD_INPUT:
        return 1, 1, 1
    return axes(
        len({tap * dilation % stride for tap in range(taps)})
        for taps, dilation, stride in zip(problem.filter, problem.dilation, problem.stride, strict=True)
    )


def together(problem: ConvProblem, op: Op) -> int:
    """Phases that are stored together: those that take turns in a row, where there are two."""
    takes_turns = op is Op.GRAD_INPUT and problem.stride[2] == 2 and transposed_extent(problem, 2) > 1
    return 2 if takes_turns and problem.layout == "channels_first" and not folding(problem) else 1


def whole_rows_strip(problem: ConvProblem, tile: Axes) -> tuple[Axes, Axes, int]:
    """Of a tile of y whose pixels need not be neighbours, so that rows of x stay as they are: planes, strip and gap."""
    depth, height, _ = (part + more for part, more in zip(tile, halo_of(problem, Op.FORWARD), strict=True))
    stride, planes = problem.stride[2], planes_of(problem, Op.FORWARD)
    return (*planes[:2], 1), (depth, height, (tile[2] - 1) * stride + problem.reach[2]), stride - 1


def parts_of(extent: int, most: int) -> Iterator[int]:
    """Sizes of the parts, all different, into which an extent can be cut about equally, at most `most` each."""
    size = None
    for count in range(-(-extent // max(1, most)), extent + 1):
        if size != (size := -(-extent // count)):
            yield size


def tile_choices(positions: Axes, halo: Axes, pixels: int, lanes: int) -> Iterator[Axes]:
    """Parts of a row, or several rows, or several planes, so that the pixels of the last tile are the first of a whole.

    Several rows are cut where parts of equal length make up a row, several planes nowhere.
    """
    depth, height, width = positions
    if width > pixels:
        yield 1, 1, pixels // (VECTORS * lanes) * VECTORS * lanes or pixels
        yield from ((1, 1, part) for part in itertools.islice(parts_of(width, pixels), 8))
    for part in itertools.islice(parts_of(width, pixels), 8):
        if width % part == 0:
            rows = parts_of(height, pixels // (part + halo[2]))
            yield from ((1, row, part) for row in itertools.islice(rows, 12))
    plane = (width + halo[2]) * (height + halo[1])
    if plane <= pixels:
        yield from ((part, height, width) for part in itertools.islice(parts_of(depth, pixels // plane), 12))


def line_tiles(positions: Axes, halo: Axes, lines: int, part: int) -> Iterator[Axes]:
    """Tiles of the kernels of lines: parts of lines, or whole lines or planes, of strips of at most this many lines."""
    depth, height, width = positions
    most = lines // (1 + halo[0]) - halo[1]
    if most > 0:
        yield from ((1, part_of, part) for part_of in itertools.islice(parts_of(height, most), 24))
        if most >= height and part == width:
            planes = lines // (height + halo[1]) - halo[0]
            yield from ((part_of, height, width) for part_of in itertools.islice(parts_of(depth, planes), 8))


@lru_cache(maxsize=1024)
def tiling(problem: ConvProblem, op: Op) -> Tiling:
    """The sizes that take the least time on this machine's number of threads."""
    makes = {
        Op.FORWARD: (_tilings, _row_tilings),
        Op.GRAD_INPUT: (_tilings,),
        Op.GRAD_WEIGHT: (_weight_tilings, _weight_row_tilings),
    }[op]
    threads = TASKS_LEAST if op is Op.GRAD_WEIGHT else local_machine().threads
    return min(itertools.chain(*(make(problem, op) for make in makes)), key=lambda each: each.time(threads))


def _vectors(count: int, lanes: int) -> int:
    return -(-count // lanes)


def gather_cycles(problem: ConvProblem, planes: Axes, strip: Axes, lanes: int) -> float:
    """Of one channel of a strip."""
    rows = math.prod(planes) * strip[0] * strip[1]
    if problem.layout == "channels_last":
        return rows * (_vectors(strip[2], lanes) * TRANSPOSED_CYCLES + ROW_CYCLES / lanes)
    return rows * (ROW_CYCLES + VECTOR_CYCLES * _vectors(strip[2], lanes))


def _tilings(problem: ConvProblem, op: Op) -> Iterator[Tiling]:
    """Tilings of FORWARD and GRAD_INPUT."""
    sources, targets = channels_of(problem, op)
    positions, halo, planes = positions_of(problem, op), halo_of(problem, op), planes_of(problem, op)
    size, lanes = np.dtype(problem.dtype).itemsize, lanes_of(problem.dtype)
    one_task = op is Op.GRAD_INPUT and folding(problem)
    for tile, packed in itertools.product(tile_choices(positions, halo, TILE_PIXELS, lanes), (False, True)):
        strip = axes(part + more for part, more in zip(tile, halo, strict=True))
        if packed and halo[2] == 0 and tile[0] == 1:
            continue
        lines = tile[0] * tile[1]
        pixels = math.prod(tile) if packed else (tile[0] * strip[1] - halo[1]) * strip[2] - halo[2]
        vectors = _vectors(pixels, lanes)
        channel_bytes = math.prod(planes) * math.prod(strip) * size
        block = STRIP_BYTES // channel_bytes
        if packed:
            block = min(block, PANEL_BYTES // (problem.taps * vectors * lanes * size))
        if op is Op.GRAD_INPUT and FAST_PRODUCTS:
            block = min(block, WEIGHT_BYTES // (ROWS * problem.taps * size + LINE_BYTES))
        block = even_split(sources, max(1, block))
        blocks = -(-sources // block)
        phases = math.prod(problem.stride) if op is Op.GRAD_INPUT else 1
        reached = math.prod(planes_of(problem, Op.FORWARD)) if op is Op.GRAD_INPUT else 1
        gather = sources * gather_cycles(problem, planes, strip, lanes)
        pack = sources * problem.taps * lines * (ROW_CYCLES + VECTOR_CYCLES * _vectors(tile[2], lanes)) * packed
        joined = rows_are_joined(problem, op, tile, packed or halo[2] == 0)
        stores = phases // together(problem, op)
        stored_row = STORED_ROW_CYCLES if stores == phases else TURNS_CYCLES
        store = stores * ((tile[0] if joined else lines) * stored_row + STORED_CYCLES * vectors)
        again = 2 * VECTOR_CYCLES * phases * vectors * (blocks - 1)
        tiles = math.prod(-(-whole // part) for whole, part in zip(positions, tile, strict=True))
        for row_block in _row_blocks(targets, vectors * lanes * size * phases if blocks > 1 else 0):
            steps = row_cycles(row_block) * (
                _dots.steps(pixels, lanes) if op is Op.FORWARD else column_steps(pixels, lanes)
            )
            register_tiles = reached * blocks * -(-row_block // ROWS) * (CALL_TILES + -(-vectors // VECTORS))
            product = sources * problem.taps * steps * vector_steps(problem) * STRIP_PRODUCTS
            product *= 1 if packed else UNALIGNED
            product += register_tiles * TILE_CYCLES
            product += row_block * sources * problem.taps * size / LINE_BYTES * LINE_CYCLES
            cycles = gather + pack + product + row_block * (store + again)
            row_blocks = -(-targets // row_block)
            whole = problem.N * problem.groups * row_blocks
            tasks = whole * (1 if one_task else tiles)
            yield Tiling(
                positions, tile, strip, planes, block, row_block, packed, vectors * lanes, tasks,
                tiles_per_task=tiles if one_task else 1, cycles=whole * tiles * cycles,
            )  # fmt: skip


def _row_tilings(problem: ConvProblem, op: Op) -> Iterator[Tiling]:
    """Tilings of FORWARD whose rows are multiplied one by one, and stored in place."""
    sources, targets = channels_of(problem, op)
    halo, planes = halo_of(problem, op), planes_of(problem, op)
    size, lanes = np.dtype(problem.dtype).itemsize, lanes_of(problem.dtype)
    if problem.layout == "channels_last" or targets % ROWS:
        return
    depth, height, width = problem.output
    for part, lines in itertools.product(
        itertools.islice(parts_of(width, ROW_PIXELS), 4), itertools.islice(parts_of(height, height), 24)
    ):
        strip = axes(held + more for held, more in zip((1, lines, part), halo, strict=True))
        if sources * math.prod(planes) * math.prod(strip) * size > STRIP_BYTES:
            continue
        tiles = depth * -(-height // lines) * -(-width // part)
        gather = sources * gather_cycles(problem, planes, strip, lanes)
        for row_block in _row_blocks(targets, 0):
            steps = row_cycles(row_block) * _dots.steps(part, lanes)
            register_tiles = -(-row_block // ROWS) * -(-_vectors(part, lanes) // VECTORS) + CALL_TILES
            line = sources * problem.taps * steps * vector_steps(problem) * STRIP_PRODUCTS * UNALIGNED
            line += register_tiles * TILE_CYCLES
            line += row_block * sources * problem.taps * size / LINE_BYTES * LINE_CYCLES
            tasks = problem.N * problem.groups * -(-targets // row_block) * tiles
            yield Tiling(
                problem.output, (1, lines, part), strip, planes, sources, row_block, False, lanes, tasks,
                row_by_row=True, cycles=tasks * (gather + lines * line + TASK_CYCLES),
            )  # fmt: skip


def _row_blocks(targets: int, row_bytes: int) -> Iterator[int]:
    """Blocks of target channels whose sums fit; row_bytes is 0 where sums need not be kept."""
    most = targets if row_bytes == 0 else max(ROWS, SUMS_BYTES // row_bytes)
    blocks = -(-targets // most)
    while blocks <= targets:
        yield whole_rows(targets, -(-targets // blocks))
        blocks *= 2


def summing_cycles(problem: ConvProblem, parts: int) -> float:
    """Of adding up the parts of the gradient of a weight."""
    return 0 if parts == 1 else parts * math.prod(problem.w_shape) / lanes_of(problem.dtype) * SUMMED_CYCLES


def _weight_tilings(problem: ConvProblem, op: Op) -> Iterator[Tiling]:
    """Tilings of GRAD_WEIGHT."""
    sources, targets = channels_of(problem, op)
    halo, size, lanes = halo_of(problem, op), np.dtype(problem.dtype).itemsize, lanes_of(problem.dtype)
    row_block = even_split(targets, WEIGHT_CHANNELS)
    vectors = _vectors(row_block, lanes)
    row_blocks = -(-targets // row_block)
    for tile in tile_choices(problem.output, halo, WEIGHT_PIXELS, lanes):
        planes, strip, gap = whole_rows_strip(problem, tile)
        pixels = math.prod(tile)
        tiles = math.prod(-(-whole // part) for whole, part in zip(problem.output, tile, strict=True))
        items = problem.N * tiles
        most = min(
            STRIP_BYTES // (math.prod(planes) * math.prod(strip) * size),
            SUMS_BYTES // (problem.taps * vectors * lanes * size),
        )
        for block in itertools.islice(parts_of(sources, max(1, most)), 12):
            blocks = problem.groups * -(-sources // block) * row_blocks
            per_task = max(1, -(-items // max(1, -(-TASKS_LEAST // blocks))))
            parts = -(-items // per_task)
            turned = row_block * (
                _vectors(pixels, lanes) * TRANSPOSED_CYCLES + pixels * size / LINE_BYTES * LINE_CYCLES
            )
            steps = row_cycles(block * problem.taps) * column_steps(row_block, lanes)
            register_tiles = -(-block * problem.taps // ROWS) * -(-vectors // VECTORS)
            product = pixels * steps * vector_steps(problem) + register_tiles * TILE_CYCLES
            again = 2 * VECTOR_CYCLES * block * problem.taps * vectors
            item = block * gather_cycles(problem, planes, strip, lanes) + turned + product + again
            last = block * problem.taps * vectors * TRANSPOSED_CYCLES * (1 if parts == 1 else 2)
            yield Tiling(
                problem.output, tile, strip, planes, block, row_block, False, vectors * lanes, blocks * parts,
                tiles_per_task=per_task, parts=parts, gap=gap,
                cycles=blocks * (items * item + parts * last) + summing_cycles(problem, parts),
            )  # fmt: skip


def _weight_row_tilings(problem: ConvProblem, op: Op) -> Iterator[Tiling]:
    """Tilings of GRAD_WEIGHT whose rows are multiplied one by one."""
    sources, targets = channels_of(problem, op)
    halo, planes = halo_of(problem, op), planes_of(problem, op)
    size, lanes = np.dtype(problem.dtype).itemsize, lanes_of(problem.dtype)
    if problem.layout == "channels_last" or problem.real_products != 1:
        return
    depth, height, width = problem.output
    for part, lines in itertools.product(
        itertools.islice(parts_of(width, ROW_PIXELS), 4), itertools.islice(parts_of(height, height), 24)
    ):
        tile = (1, lines, part)
        strip = axes(held + more for held, more in zip(tile, halo, strict=True))
        items = problem.N * depth * -(-height // lines) * -(-width // part)
        most = STRIP_BYTES // (math.prod(planes) * math.prod(strip) * size)
        row_blocks = {min(targets, whole_rows(targets, STRIP_BYTES // (lines * part * size) or 1)), targets}
        for block, row_block in itertools.product(itertools.islice(parts_of(sources, max(1, most)), 6), row_blocks):
            blocks = problem.groups * -(-sources // block) * -(-targets // row_block)
            per_task = max(1, -(-items // max(1, -(-TASKS_LEAST // blocks))))
            runs = -(-items // per_task)
            columns = block * problem.taps
            register_tiles = -(-row_block // ROWS) * (columns // _dots.LINE_COLUMNS + columns % _dots.LINE_COLUMNS)
            steps = -(-row_block // ROWS) * ROWS * columns * _vectors(part, lanes) * lines
            item: float = steps + register_tiles * (_dots.SUMS_CYCLES + lines * _dots.line_cycles(part, lanes))
            item += row_block * lines * part * size / LINE_BYTES * LINE_CYCLES
            item += block * gather_cycles(problem, planes, strip, lanes)
            cycles = blocks * (items * item + runs * TASK_CYCLES) + summing_cycles(problem, runs)
            yield Tiling(
                problem.output, tile, strip, planes, block, row_block, False, lanes, blocks * runs,
                tiles_per_task=per_task, parts=runs, row_by_row=True, cycles=cycles,
            )  # fmt: skip
