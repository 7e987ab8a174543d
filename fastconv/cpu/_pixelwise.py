"""Direct convolution with large strides, the roles of pixels and weights exchanged: a vector holds target channels.

In the other direct kernels a vector holds neighbouring pixels, which a stride takes apart: its phases are separated, of
which every row is a few elements long. Here a pixel is a single element, read wherever it stands::

    y[i, k] = sum over j of strip[pixel[i] + offset[j]] * panel[j, k],   j = (c, t, r, s)

so that the rows of a strip are copied as they are. The weights are turned around once for each task, into a panel whose
rows are neighbouring target channels; so are the sums at the end. That is worth it from strides of 3 on: on one thread
16x16 with a stride of 16, 3x224x224 to 768, took 3.9 ms with phases and 2.7 ms so; 5x5 with a stride of 3, 64x64x64 to
128, 2.45 and 2.1 ms; but 3x3 with a stride of 2, 128x56x56 to 128, 2.4 ms both.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..core.algorithm import Epilogue, Plan
from ..core.jit import Kernel, kernel, subroutine
from ..core.machine import local_machine
from ..core.problem import ConvProblem, Op
from ._gemm import ROWS, SPARE_ROWS, TILE_CYCLES, VECTORS, Product, lanes_of, multiply, padded, row_cycles
from ._geometry import Tables, even_split, with_sizes
from ._kernel import views
from ._launch import Launch
from ._phases import axes_and_phases, fields_of, offsets_of
from ._rows import (
    STORED_CYCLES,
    STORED_ROW_CYCLES,
    TRANSPOSED_CYCLES,
    VECTOR_CYCLES,
    Finish,
    transpose_all,
)
from ._simd import REGISTER_BYTES, lanes
from ._strips import Strips, block_of, for_both_ways, gather_strips, header, is_plain, store_tile, tile_of
from ._tiles import (
    CALL_TILES,
    STRIP_PRODUCTS,
    TASK_CYCLES,
    Tiling,
    channels_of,
    gather_cycles,
    halo_of,
    rows_are_joined,
    tile_choices,
    tiling,
    whole_rows_strip,
)

# The least stride along a row; for what it is worth see above.
LEAST_STRIDE = 3
# Bytes of the weights of a task, if more than a register tile of them: with a strip and the sums they take a
# second-level cache of 1 MiB.
PANEL_BYTES = 640 << 10
# Bytes of the weights of a register tile, and of the sums of a task, at most: a thread is to have no more than 8 MiB.
LEAST_PANEL_BYTES = 4 << 20
SUMS_BYTES = 1 << 20
# Pixels of a tile, and bytes of a strip; beside those weights, strips take a quarter of a second-level cache.
TILE_PIXELS = 480
STRIP_BYTES = 256 << 10


# ---- the kernel


@subroutine
def _correlate(plain, task, tensors):
    """One task: a run of tiles, one block of target channels of one group of one image.

    x, y: channels first; w: (K, C / groups, taps); workspace: strips, weights, sums, and sums turned around.
    """
    x, w, y, residual, constants, workspace, geometry = tensors
    g = header(geometry)
    block = block_of(g, task)
    finish = Finish(constants, residual, g.has_residual, g.activation, None)
    taps, offsets_at, rows_at = geometry[g.phases_at], geometry[g.phases_at + 1], geometry[g.phases_at + 2]
    transpose_all(
        workspace, g.panel_at, g.columns_pitch, w, block.weights_at, g.weight_target, block.rows, g.sources * taps
    )
    tiles = g.tiles_z * g.tiles_p * g.tiles_q
    for number in range(block.run * g.tiles_per_task, min((block.run + 1) * g.tiles_per_task, tiles)):
        tile = tile_of(g, number)
        pixels = tile.depth * tile.height * tile.width
        for first in range(0, g.sources, g.channel_block):
            channels = min(g.channel_block, g.sources - first)
            source_at = block.source_at + first * g.source_c
            gather_strips(plain, workspace, geometry, x, source_at, channels, tile, constants, first == 0)
            product = Product(
                workspace, g.sums_at, g.columns_pitch,
                workspace, 0,
                workspace, g.panel_at + first * taps * g.columns_pitch,
                geometry, g.pixels_at, offsets_at, rows_at, channels * taps, first == 0,
            )  # fmt: skip
            multiply(product, pixels, block.rows)
        _store(y, workspace, g, geometry, block, tile, pixels, finish)


def _forward(plain: bool | None) -> Kernel:
    @kernel
    def run(task, x, w, y, residual, constants, workspace, geometry):
        _correlate(plain, task, views(x, w, y, residual, constants, workspace, geometry))

    return run


KERNELS = for_both_ways(_forward)


@subroutine
def _store(target, workspace, g, geometry, block, tile, pixels, finish):
    """Turn the sums of a tile around, a vector of target channels at a time, and store them."""
    step = lanes(workspace)
    for k in range(0, block.rows, step):
        rows = min(step, block.rows - k)
        transpose_all(
            workspace, g.scratch_at, g.pitch, workspace, g.sums_at + k, g.columns_pitch, pixels, rows
        )  # fmt: skip
        store_tile(
            target, block.image * g.target_n, workspace, g.scratch_at, block.channel + k, rows, geometry, tile,
            g.phases_at, finish,
        )  # fmt: skip


# ---- plans


def serves(problem: ConvProblem, op: Op) -> bool:
    """Whether this computes a problem: where it takes less time than the kernels whose vectors hold pixels."""
    if not _can(problem, op):
        return False
    threads = local_machine().threads
    return sizes_of(problem, op).time(threads) < tiling(problem, op).time(threads)


def _can(problem: ConvProblem, op: Op) -> bool:
    return (
        op is Op.FORWARD
        and problem.stride[2] >= LEAST_STRIDE
        and problem.layout == "channels_first"
        and problem.real_products == 1
        and channels_of(problem, op)[1] >= lanes_of(problem.dtype)
        and channels_of(problem, op)[0] * problem.taps * VECTORS * REGISTER_BYTES <= LEAST_PANEL_BYTES
    )


@lru_cache(maxsize=1024)
def sizes_of(problem: ConvProblem, op: Op) -> Tiling:
    """The sizes that take the least time; `pitch` is that of the sums turned around."""
    threads = local_machine().threads
    return min(_tilings(problem, op), key=lambda each: each.time(threads))


def _tilings(problem: ConvProblem, op: Op) -> Iterator[Tiling]:
    sources, targets = channels_of(problem, op)
    size, lanes, terms = np.dtype(problem.dtype).itemsize, lanes_of(problem.dtype), sources * problem.taps
    for tile, row_block in itertools.product(
        tile_choices(problem.output, halo_of(problem, op), TILE_PIXELS, lanes),
        row_blocks(targets, lanes, min(PANEL_BYTES // terms, SUMS_BYTES // TILE_PIXELS) // size),
    ):
        planes, strip, gap = whole_rows_strip(problem, tile)
        pixels, columns = math.prod(tile), -(-row_block // lanes)
        vectors = -(-pixels // lanes)
        block = even_split(sources, max(1, STRIP_BYTES // (math.prod(planes) * math.prod(strip) * size)))
        blocks = -(-sources // block)
        gather = sources * gather_cycles(problem, planes, strip, lanes)
        register_tiles = blocks * (-(-pixels // ROWS) * -(-columns // VECTORS) + CALL_TILES)
        product = terms * row_cycles(pixels) * columns * STRIP_PRODUCTS + register_tiles * TILE_CYCLES
        again = 2 * VECTOR_CYCLES * pixels * columns * (blocks - 1)
        runs = 1 if rows_are_joined(problem, op, tile, True) else tile[0] * tile[1]
        store = row_block * (runs * STORED_ROW_CYCLES + vectors * (STORED_CYCLES + TRANSPOSED_CYCLES))
        turned = terms * columns * TRANSPOSED_CYCLES + TASK_CYCLES
        tiles = math.prod(-(-whole // part) for whole, part in zip(problem.output, tile, strict=True))
        whole = problem.N * problem.groups * -(-targets // row_block)
        for per_task in {-(-tiles // parts) for parts in range(1, min(tiles, 2 * local_machine().threads) + 1)}:
            tasks = whole * -(-tiles // per_task)
            yield Tiling(
                problem.output, tile, strip, planes, block, row_block, True, vectors * lanes, tasks,
                tiles_per_task=per_task, gap=gap,
                cycles=whole * tiles * (gather + product + again + store) + tasks * turned,
            )  # fmt: skip


def row_blocks(targets: int, lanes: int, most: int) -> list[int]:
    """Blocks of target channels in whole vectors: of at most so many channels, but a register tile of them."""
    vectors = -(-targets // lanes)
    counts = range(min(VECTORS, vectors), min(max(VECTORS, most // lanes), vectors) + 1)
    return sorted({lanes * even_split(vectors, each) for each in counts})


@dataclass(frozen=True)
class _Memory:
    """Places in the workspace, in elements."""

    panel_at: int
    columns_pitch: int
    sums_at: int
    scratch_at: int
    elements: int


def _memory(problem: ConvProblem, op: Op) -> _Memory:
    sizes, terms = sizes_of(problem, op), channels_of(problem, op)[0] * problem.taps
    lanes, columns_pitch = lanes_of(problem.dtype), padded(sizes.row_block, problem.dtype)
    panel_at = padded(sizes.channel_block * sizes.channel_pitch, problem.dtype)
    sums_at = panel_at + terms * columns_pitch
    scratch_at = sums_at + (math.prod(sizes.tile) + SPARE_ROWS) * columns_pitch
    return _Memory(panel_at, columns_pitch, sums_at, scratch_at, scratch_at + lanes * sizes.pitch)


def workspace(problem: ConvProblem, op: Op) -> int:
    """Scratch memory of a thread, in bytes."""
    return _memory(problem, op).elements * np.dtype(problem.dtype).itemsize


def plan(whole: ConvProblem, problem: ConvProblem, op: Op, epilogue: Epilogue) -> Plan:
    """The plan of a problem, as it was and with its axes made one."""
    sizes, memory = sizes_of(problem, op), _memory(problem, op)
    source_axes, target_axes, (phase,) = axes_and_phases(problem, op, sizes)
    tables = Tables(Strips)
    rows = memory.columns_pitch * np.arange(sizes.channel_block * problem.taps)
    entry = [phase.count, tables.add(offsets_of(phase, sizes, sizes.channel_block)), tables.add(rows), *phase.slots]
    vector = tables.partial_vector(
        **fields_of(tables, problem, op, epilogue, sizes, (source_axes, target_axes)),
        **{name: value for name, value in vars(memory).items() if name != "elements"},
        joined=rows_are_joined(problem, op, sizes.tile, True),
        phases_at=tables.add(entry),
    )
    geometry = with_sizes(vector, problem, op, math.prod(problem.w_shape), memory.elements)
    return Plan(
        algorithm="direct",
        problem=whole,
        op=op,
        workspace_bytes=workspace(problem, op),
        run=Launch(KERNELS[is_plain(problem, op, sizes.gap)], sizes.tasks, problem.dtype, geometry, memory.elements),
        tiles={
            "pixels": math.prod(sizes.tile),
            "channels": sizes.channel_block,
            "rows": sizes.row_block,
            "tasks": sizes.tasks,
        },
    )
