"""im2col as an implicit GEMM: a product of the patch matrix and of w, of which the patch matrix is never stored.

FORWARD and GRAD_INPUT multiply panels of patches by panels of w (`fastconv.cuda._gather_tiles`). The tile is chosen
from the shapes alone, for the time that all multiprocessors take together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..core.algorithm import Algorithm, Epilogue
from ..core.machine import Gpu
from ..core.problem import ConvProblem, Op
from ._gather import Gather
from ._gather_tiles import Access, gather_tiles, launched
from ._gemm import Tile, resident_blocks
from ._limits import MOST_ELEMENTS, refusal, rounding_error
from ._plan import Work, planned, scratch_of
from ._queue import bytes_of
from ._tensor_cores import WarpTile, gather_matrices, is_copied
from ._weight_form import filled_up, weight_form
from ._weight_tiles import RunNumbers, partial_sums, summed_runs

# Multiprocessors that work is spread over: those of an H100 or H200. A constant, so that results do not depend on the
# device.
MULTIPROCESSORS = 132
# Tiles and the share of multiply-adds in the instructions of their main loops, as tests/cuda/compiled/test_im2col.py
# holds them to: what a multiprocessor reaches of its peak at the most. A depth of 4 is for the first layer of a
# network, whose images have 3 channels.
TILES = {
    Tile(128, 128, 8, 2, 2): 0.70,
    Tile(128, 64, 8, 2, 2): 0.67,
    Tile(64, 64, 8, 2, 2): 0.62,
    Tile(128, 32, 8, 2, 1): 0.47,
    Tile(128, 64, 4, 2, 2): 0.55,
    Tile(32, 32, 8, 1, 1): 0.42,
}
# In float64 sums take two registers, so a thread has half as many.
DOUBLE_TILES = {
    Tile(64, 64, 8, 1, 2): 0.60,
    Tile(32, 32, 8, 1, 1): 0.35,
}
# Pixels of a run: enough that the writing and the adding of its sums, two passes of memory, are a small part.
SHORTEST_RUN = 256
# Tensor cores multiply 16-bit numbers 12 times as fast as others float32 (788 over 67 TFLOP/s on an H200, machine.py);
# a third of it is an estimate, not yet measured: on Hopper mma.sync reaches 60 % of what its own instructions do.
MATRIX_TILES = {
    WarpTile(128, 128, 32, 2, 4): 12 * 0.35,
    WarpTile(128, 64, 32, 2, 2): 12 * 0.3,
    WarpTile(64, 64, 32, 1, 2): 12 * 0.25,
}
# The same of GRAD_WEIGHT, which has more indices to work out.
WEIGHT_TILES = {
    Tile(128, 128, 8, 2, 2): 0.57,
    Tile(128, 64, 8, 2, 2): 0.50,
    Tile(64, 64, 8, 2, 2): 0.46,
    Tile(32, 32, 8, 1, 1): 0.26,
}
DOUBLE_SLOWNESS = 2  # a multiply-add of float64 over one of float32 on the processors of data centres


def tiles_of(problem: ConvProblem, op: Op) -> Mapping[Tile | WarpTile, float]:
    """The tiles that an operation may be computed in, and their rates over the peak of float32."""
    if problem.dtype == "float64":
        return DOUBLE_TILES
    if op is Op.GRAD_WEIGHT:
        return WEIGHT_TILES
    return TILES if problem.dtype == "float32" else TILES | MATRIX_TILES


def gather_cycles(gather: Gather, tile: Tile, share: float) -> float:
    """Multiply-adds of one multiprocessor's lanes, idle ones counted, until the last block of all phases is done."""
    rows, columns = filled_up(gather, tile.depth, tile.columns)
    cycles = 0.0
    for phase in gather.phases:
        pixels = math.prod(phase.positions) * gather.problem.N
        blocks = -(-pixels // tile.rows) * (columns // tile.columns) * gather.problem.groups
        # With fewer blocks than fit, latencies stay: at least half the time of those that do.
        turns = max(-(-blocks // MULTIPROCESSORS), resident_blocks(gather.problem.dtype, tile) / 2)
        cycles += turns * tile.rows * tile.columns * phase.taps * rows / share
    return cycles


def weight_cycles(problem: ConvProblem, tile: Tile, share: float) -> float:
    """Likewise for GRAD_WEIGHT."""
    m = RunNumbers.of(problem, tile, most_runs(problem, tile))
    turns = max(-(-m.tiles * m.runs // MULTIPROCESSORS), resident_blocks(problem.dtype, tile) / 2)
    return turns * tile.rows * tile.columns * m.run / share


def most_runs(problem: ConvProblem, tile: Tile) -> int:
    """Into how many runs the pixels are cut: two blocks for every one that the processor holds, of enough pixels."""
    tiles = RunNumbers.of(problem, tile, 1).tiles
    wanted = -(-2 * MULTIPROCESSORS * resident_blocks(problem.dtype, tile) // tiles)
    return max(1, min(wanted, problem.N * problem.pixels // SHORTEST_RUN))


def weight_tile(problem: ConvProblem) -> tuple[Tile, int]:
    """The tile of GRAD_WEIGHT that takes the least time, and into how many runs the pixels are cut."""
    tiles = tiles_of(problem, Op.GRAD_WEIGHT)
    tile = min(tiles, key=lambda tile: weight_cycles(problem, tile, tiles[tile]))
    return tile, most_runs(problem, tile)


def gather_tile(gather: Gather) -> Tile:
    """The tile that takes the least time."""
    tiles = tiles_of(gather.problem, gather.op)
    return min(tiles, key=lambda tile: gather_cycles(gather, tile, tiles[tile]))


def gathered(gather: Gather, epilogue: Epilogue, tile: Tile | WarpTile) -> Work:
    """FORWARD or GRAD_INPUT in tiles of this size."""
    constants = gather.problem.dtype, epilogue, tile, Access.of(gather)
    on_tensor_cores = isinstance(tile, WarpTile)
    kernel = gather_matrices(*constants, is_copied(gather)) if on_tensor_cores else gather_tiles(*constants)
    tiles = launched(gather, kernel, tile)

    def run(queue, x, w, y, residual, bias, scratch):
        source, result = (x, y) if gather.is_forward else (y, x)
        tiles(queue, source, w[1], result, residual, bias)

    return Work(run, (), weight_form(gather, tile.depth, tile.columns), tile._asdict())


def summed(problem: ConvProblem, tile: Tile, runs: int) -> Work:
    """GRAD_WEIGHT in tiles of this size, the pixels cut into so many runs at most."""
    sums = summed_runs(problem, tile, runs)

    def run(queue, x, w, y, residual, bias, scratch):
        sums(queue, x, w, y, scratch[0])

    return Work(run, (partial_sums(problem, tile, runs),), tiles=tile._asdict() | {"runs": runs})


def work(problem: ConvProblem, op: Op, epilogue: Epilogue) -> Work:
    """What im2col does for a problem whose padding is zeros."""
    if op is Op.GRAD_WEIGHT:
        return summed(problem, *weight_tile(problem))
    gather = Gather(problem, op)
    return gathered(gather, epilogue, gather_tile(gather))


def supports(problem: ConvProblem, op: Op) -> str | None:
    """None, or one sentence that says why not."""
    pixels = problem.N * max(math.prod(problem.padded), math.prod(problem.output))
    if pixels >= MOST_ELEMENTS:
        return f"the images have {pixels} pixels together, and im2col counts them with 31 bits"
    return refusal(problem)


def cost(problem: ConvProblem, op: Op, gpu: Gpu) -> float:
    """Predicted seconds: the turns that the blocks of the best tile take, or the traffic."""
    tiles = tiles_of(problem, op)
    if op is Op.GRAD_WEIGHT:
        tile, runs = weight_tile(problem)
        cycles, launches = weight_cycles(problem, tile, tiles[tile]), 2
        bytes_ = problem.bytes + 2 * bytes_of((partial_sums(problem, tile, runs),))
    else:
        gather = Gather(problem, op)
        cycles, launches = min(gather_cycles(gather, *each) for each in tiles.items()), len(gather.phases)
        bytes_ = problem.bytes
    slowness = DOUBLE_SLOWNESS if problem.dtype == "float64" else 1
    return gpu.seconds(2 * cycles * slowness * MULTIPROCESSORS, bytes_, launches)


def error_bound(problem: ConvProblem, op: Op) -> float:
    """Largest expected error over the root mean square of the result."""
    if op is not Op.GRAD_WEIGHT:
        return rounding_error(problem, problem.terms(op))
    m = RunNumbers.of(problem, *weight_tile(problem))
    return rounding_error(problem, m.run + m.runs)


ALGORITHM = Algorithm(
    name="im2col",
    device="cuda",
    supports=supports,
    cost=cost,
    error_bound=error_bound,
    workspace=scratch_of(work),
    plan=planned("im2col", work),
)
