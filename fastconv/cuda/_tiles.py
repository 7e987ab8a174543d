"""In tiles of which size im2col computes, chosen from the shapes alone: what takes all multiprocessors the least time.

Times are counted in multiply-adds of float32, of one lane of one multiprocessor; a block's are its whole tile's,
whether inside the result or not.
"""

from __future__ import annotations

import math

from ..core.problem import ConvProblem, Op
from . import _gather_tiles, _weight_tiles
from ._gather import Gather
from ._gemm import Tile, resident_blocks
from ._warp_products import WarpTile
from ._weight_form import filled_up
from ._weight_runs import AnyTile, RunNumbers

# Multiprocessors that work is spread over: those of an H100 or H200. A constant, so that results do not depend on the
# device.
MULTIPROCESSORS = 132
# Tiles and the share of multiply-adds in the instructions of their main loops, as tests/cuda/compiled/test_im2col.py
# holds them to: what a multiprocessor reaches of its peak at the most. A depth of 4 is for the first layer of a
# network, whose images have 3 channels.
TILES: dict[AnyTile, float] = {
    Tile(128, 128, 8, 2, 2): 0.80,
    Tile(128, 64, 8, 2, 2): 0.77,
    Tile(64, 64, 8, 2, 2): 0.76,
    Tile(128, 32, 8, 2, 1): 0.64,
    Tile(128, 64, 4, 2, 2): 0.72,
    Tile(32, 32, 8, 1, 1): 0.57,
}
# In float64 sums take two registers, so a thread has half as many.
DOUBLE_TILES: dict[AnyTile, float] = {
    Tile(64, 64, 8, 1, 2): 0.67,
    Tile(32, 32, 8, 1, 1): 0.55,
}
# Pixels of a run: enough that the writing and the adding of its sums, two passes of memory, are a small part.
SHORTEST_RUN = 256
# Tensor cores multiply 16-bit numbers 12 times as fast as others float32 (788 over 67 TFLOP/s on an H200, machine.py);
# a third of it is an estimate, not yet measured: on Hopper mma.sync reaches 60 % of what its own instructions do.
MATRIX_TILES: dict[AnyTile, float] = {
    WarpTile(128, 128, 32, 2, 4): 12 * 0.35,
    WarpTile(128, 64, 32, 2, 2): 12 * 0.3,
    WarpTile(64, 64, 32, 1, 2): 12 * 0.25,
}
# Of TF32 they multiply half as many.
ROUNDED_TILES: dict[AnyTile, float] = {WarpTile(128, 128, 16, 2, 4): 6 * 0.25}
# The same of GRAD_WEIGHT, which has more indices to work out.
WEIGHT_TILES: dict[AnyTile, float] = {
    Tile(128, 128, 8, 2, 2): 0.66,
    Tile(128, 64, 8, 2, 2): 0.59,
    Tile(64, 64, 8, 2, 2): 0.53,
    Tile(32, 32, 8, 1, 1): 0.36,
}
# On tensor cores less than of `MATRIX_TILES`, as products are a smaller share of the loops: an estimate, as there. More
# warps to a small tile than there: a thread that fetched more of it would spill.
WEIGHT_MATRIX_TILES: dict[AnyTile, float] = {
    WarpTile(128, 128, 32, 2, 4): 12 * 0.3,
    WarpTile(128, 64, 32, 4, 2): 12 * 0.25,
    WarpTile(64, 64, 32, 2, 2): 12 * 0.2,
}
WEIGHT_ROUNDED_TILES: dict[AnyTile, float] = {WarpTile(128, 128, 16, 2, 4): 6 * 0.2}
DOUBLE_SLOWNESS = 2  # a multiply-add of float64 over one of float32 on the processors of data centres


def gather_rates(problem: ConvProblem) -> dict[AnyTile, float]:
    """The tiles that FORWARD and GRAD_INPUT may be computed in, and their rates over the peak of float32."""
    if problem.dtype == "float64":
        return {tile: share / DOUBLE_SLOWNESS for tile, share in DOUBLE_TILES.items()}
    return TILES | {"float32": {}, "tf32": ROUNDED_TILES}.get(problem.dtype, MATRIX_TILES)


def weight_rates(problem: ConvProblem) -> dict[AnyTile, float]:
    """Likewise for GRAD_WEIGHT."""
    if problem.dtype == "float64":
        return {tile: share / DOUBLE_SLOWNESS for tile, share in DOUBLE_TILES.items()}
    return WEIGHT_TILES | {"float32": {}, "tf32": WEIGHT_ROUNDED_TILES}.get(problem.dtype, WEIGHT_MATRIX_TILES)


def gather_time(gather: Gather, tile: AnyTile) -> float:
    """Until the last block of every phase is done."""
    problem = gather.problem
    rows, columns = filled_up(gather, tile.depth, tile.columns)
    turns = 0.0
    for phase in gather.phases:
        pixels = math.prod(phase.positions) * problem.N
        blocks = -(-pixels // tile.rows) * (columns // tile.columns) * problem.groups
        turns += turns_of(blocks, gather_resident(problem, tile)) * phase.taps
    return turns * tile.rows * tile.columns * rows / gather_rates(problem)[tile]


def weight_time(problem: ConvProblem, tile: AnyTile) -> float:
    """Until the last run of pixels is summed."""
    m = RunNumbers.of(problem, tile, most_runs(problem, tile))
    turns = turns_of(m.tiles * m.runs, weight_resident(problem, tile))
    return turns * tile.rows * tile.columns * m.run / weight_rates(problem)[tile]


def turns_of(blocks: int, resident: int) -> float:
    """Blocks that follow one another on a multiprocessor which holds so many at once.

    Of fewer than half of those, each takes as long as if they were half: it waits for memory.
    """
    return max(-(-blocks // MULTIPROCESSORS), resident / 2)


def gather_resident(problem: ConvProblem, tile: AnyTile) -> int:
    """Blocks of FORWARD or GRAD_INPUT that a multiprocessor holds at once."""
    if isinstance(tile, WarpTile):
        return resident_blocks(problem.dtype, tile.threads)
    return _gather_tiles.resident_of(problem.dtype, tile)


def weight_resident(problem: ConvProblem, tile: AnyTile) -> int:
    """Likewise of GRAD_WEIGHT."""
    if isinstance(tile, WarpTile):
        return resident_blocks(problem.dtype, tile.threads)
    wide_rows, _ = _weight_tiles.wide_lines(Gather(problem, Op.FORWARD))
    return _weight_tiles.resident_of(problem.dtype, tile, wide_rows)


def most_runs(problem: ConvProblem, tile: AnyTile) -> int:
    """Into how many runs the pixels are cut: two blocks for every one that the processor holds, of enough pixels."""
    tiles = RunNumbers.of(problem, tile, 1).tiles
    wanted = -(-2 * MULTIPROCESSORS * weight_resident(problem, tile) // tiles)
    return max(1, min(wanted, problem.N * problem.pixels // SHORTEST_RUN))


def gather_tile(gather: Gather) -> AnyTile:
    """The tile of FORWARD or GRAD_INPUT that takes the least time."""
    return min(gather_rates(gather.problem), key=lambda tile: gather_time(gather, tile))


def weight_tile(problem: ConvProblem) -> tuple[AnyTile, int]:
    """The tile of GRAD_WEIGHT that takes the least time, and into how many runs the pixels are cut."""
    tile = min(weight_rates(problem), key=lambda tile: weight_time(problem, tile))
    return tile, most_runs(problem, tile)
