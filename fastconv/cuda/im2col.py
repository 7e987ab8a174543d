"""im2col as an implicit GEMM: a product of the patch matrix and of w, of which the patch matrix is never stored.

FORWARD and GRAD_INPUT multiply panels of patches by panels of w, in registers (`fastconv.cuda._gather_tiles`) or, where
tensors have 16 bits, on tensor cores (`fastconv.cuda._tensor_cores`). GRAD_WEIGHT multiplies panels of patches by
panels of y, over runs of pixels (`fastconv.cuda._weight_runs`), in registers (`fastconv.cuda._weight_tiles`) or on
tensor cores (`fastconv.cuda._tensor_weights`).
"""

from __future__ import annotations

import math

from ..core.algorithm import Algorithm, Epilogue
from ..core.machine import Gpu
from ..core.problem import ConvProblem, Op
from ._gather import Gather
from ._gather_tiles import Access, gather_tiles, launched
from ._limits import LARGEST_OVER_RMS, MOST_ELEMENTS, refusal, rounding_error
from ._plan import Work, planned, scratch_of
from ._queue import bytes_of
from ._tensor_cores import gather_matrices, is_copied
from ._tensor_weights import copied_lines, sum_matrices
from ._tiles import MULTIPROCESSORS, gather_tile, gather_time, weight_tile, weight_time
from ._warp_products import WarpTile, format_of
from ._weight_form import weight_form
from ._weight_runs import AnyTile, RunNumbers, partial_sums, summed_runs
from ._weight_tiles import sum_runs, wide_lines

# What tensor cores cut off at the most of each sum that they write, less than half a unit in its last place on average.
CUT_OFF = 2.0**-24
# Largest error of sums whose factors are rounded to 11 bits, over the root mean square of the result: up to 1.6e-3 in
# tests/cuda/simulated/test_im2col.py, of a few thousand results.
TF32_ERROR = 2.5e-3


def gathered(gather: Gather, epilogue: Epilogue, tile: AnyTile, precision: str | None = None) -> Work:
    """FORWARD or GRAD_INPUT in tiles of this size; on tensor cores in a precision that is not the type's, if given."""
    constants = epilogue, tile, Access.of(gather)
    if isinstance(tile, WarpTile):
        kernel = gather_matrices(precision or gather.problem.dtype, *constants, is_copied(gather))
    else:
        kernel = gather_tiles(gather.problem.dtype, *constants)
    tiles = launched(gather, kernel, tile)

    def run(queue, x, w, y, residual, bias, scratch):
        source, result = (x, y) if gather.is_forward else (y, x)
        tiles(queue, source, w[1], result, residual, bias)

    return Work(run, (), weight_form(gather, tile.depth, tile.columns), tile._asdict())


def summed(problem: ConvProblem, tile: AnyTile, runs: int, precision: str | None = None) -> Work:
    """GRAD_WEIGHT in tiles of this size, the pixels cut into so many runs at most; precision: as of `gathered`."""
    gather = Gather(problem, Op.FORWARD)
    if isinstance(tile, WarpTile):
        kernel = sum_matrices(precision or problem.dtype, tile, problem.layout, *copied_lines(gather))
    else:
        kernel = sum_runs(problem.dtype, tile, *wide_lines(gather))
    sums = summed_runs(gather, kernel, tile, runs)

    def run(queue, x, w, y, residual, bias, scratch):
        sums(queue, x, w, y, scratch[0])

    return Work(run, (partial_sums(problem, tile, runs),), tiles=tile._asdict() | {"runs": runs})


def work(problem: ConvProblem, op: Op, epilogue: Epilogue) -> Work:
    """What im2col does for a problem whose padding is zeros."""
    exact = _in_float32(problem)
    precision = "tf32" if problem is not exact else None
    if op is Op.GRAD_WEIGHT:
        return summed(exact, *weight_tile(problem), precision)
    return gathered(Gather(exact, op), epilogue, gather_tile(Gather(problem, op)), precision)


def _in_float32(problem: ConvProblem) -> ConvProblem:
    """The problem itself, unless its products may be rounded to TF32."""
    return problem.replace(dtype="float32") if problem.dtype == "tf32" else problem


def supports(problem: ConvProblem, op: Op) -> str | None:
    """None, or one sentence that says why not."""
    pixels = problem.N * max(math.prod(problem.padded), math.prod(problem.output))
    if pixels >= MOST_ELEMENTS:
        return f"the images have {pixels} pixels together, and im2col counts them with 31 bits"
    return refusal(problem)


def cost(problem: ConvProblem, op: Op, gpu: Gpu) -> float:
    """Predicted seconds: the turns that the blocks of the best tile take, or the traffic."""
    if op is Op.GRAD_WEIGHT:
        tile, runs = weight_tile(problem)
        time, launches = weight_time(problem, tile), 2
        scratch = partial_sums(problem, tile, runs)
    else:
        gather = Gather(problem, op)
        best = gather_tile(gather)
        time, launches = gather_time(gather, best), 1 + len(gather.phases)
        scratch = weight_form(gather, best.depth, best.columns).part
    return gpu.seconds(2 * time * MULTIPROCESSORS, problem.bytes + 2 * bytes_of((scratch,)), launches)


def error_bound(problem: ConvProblem, op: Op) -> float:
    """Largest expected error over the root mean square of the result."""
    if op is Op.GRAD_WEIGHT:
        tile, runs = weight_tile(problem)
        m = RunNumbers.of(problem, tile, runs)
        additions = m.run + m.runs
    else:
        tile, additions = gather_tile(Gather(problem, op)), problem.terms(op)
    return rounding_error(problem, additions) + (matrix_error(problem, additions) if isinstance(tile, WarpTile) else 0)


def matrix_error(problem: ConvProblem, additions: int) -> float:
    """What sums on tensor cores err by besides: cut off, not rounded, their errors have one sign and add up."""
    cut_off = LARGEST_OVER_RMS * CUT_OFF * additions / format_of(problem.dtype).inner
    return cut_off + (TF32_ERROR if problem.dtype == "tf32" else 0)


ALGORITHM = Algorithm(
    name="im2col",
    device="cuda",
    supports=supports,
    cost=cost,
    error_bound=error_bound,
    workspace=scratch_of(work),
    plan=planned("im2col", work),
    rounds=True,
)
