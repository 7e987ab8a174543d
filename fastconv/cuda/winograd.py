"""Winograd's minimal filtering: fewer products, between transforms of tiles and filters.

The result is cut into tiles of m elements along each axis. With the matrices of F(m, r) the sum over the channels is
formed for each of the (m + r - 1)^2 elements of a transformed tile (`fastconv.cuda._winograd_transforms`). F(4, 3)
takes 36 products for 16 results where direct takes 144, F(2, 3) 16 for 4 in place of 36, F(2, 5) 36 for 4 in place of
100. GRAD_INPUT is the same with the filters turned around, GRAD_WEIGHT stands in `fastconv.cuda._winograd_weights`.

There are two ways: three kernels, one after another, for every size of tiles (`fastconv.cuda._winograd_staged`), and
one kernel that keeps everything to itself, for F(2, 3) along both axes (`fastconv.cuda._winograd_fused`).

Sources: Winograd, Arithmetic Complexity of Computations, 1980; Lavin, Gray, "Fast Algorithms for Convolutional Neural
Networks", CVPR 2016, section 4.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

from ..core.algorithm import Algorithm, Epilogue
from ..core.machine import Gpu, local_gpu
from ..core.problem import ConvProblem, Op
from . import _winograd_fused as fused
from . import _winograd_staged as staged
from . import _winograd_weights as weights
from ._contained import contained
from ._limits import MOST_BLOCKS, refusal, rounding_error
from ._plan import Work, planned, scratch_of
from ._winograd_tiles import Square

NONE = (1, 1)
# By the filter's extents along h and w.
SQUARES = {
    (3, 3): (Square((2, 3), (2, 3)), Square((4, 3), (4, 3))),
    (1, 3): (Square(NONE, (2, 3)), Square(NONE, (4, 3))),
    (3, 1): (Square((2, 3), NONE), Square((4, 3), NONE)),
    (5, 5): (Square((2, 5), (2, 5)),),
    (1, 5): (Square(NONE, (2, 5)), Square(NONE, (4, 5))),
    (5, 1): (Square((2, 5), NONE), Square((4, 5), NONE)),
}

# Error of the transforms in units of rounding of the result's root mean square, by the products of a tile: what
# was met on the CPU, whose matrices are the same.
TRANSFORM_ERROR = {4: 60, 6: 60, 8: 150, 16: 60, 36: 200}


class Way(NamedTuple):
    """How a problem is served."""

    square: Square
    is_fused: bool


def ways(problem: ConvProblem, op: Op) -> list[Way]:
    """All that serve an operation of a problem."""
    squares = SQUARES[problem.filter[1:]]
    if op is Op.GRAD_WEIGHT:
        return [Way(squares[-1], False)]
    found = [Way(square, False) for square in squares if staged.serves(problem, op, square)]
    return [Way(squares[0], True), *found] if fused.serves(problem, op) else found


def seconds(problem: ConvProblem, op: Op, gpu: Gpu, way: Way) -> float:
    """Predicted seconds of a way."""
    if op is Op.GRAD_WEIGHT:
        return weights.cost(problem, gpu, way.square)
    if way.is_fused:
        return fused.cost(problem, op, gpu)
    return staged.cost(problem, op, gpu, way.square)


def chosen(problem: ConvProblem, op: Op) -> Way:
    """The cheapest."""
    return min(ways(problem, op), key=partial(seconds, problem, op, local_gpu()))


def work_by(way: Way, problem: ConvProblem, op: Op, epilogue: Epilogue) -> Work:
    """What is done in a way for a problem whose padding is zeros, but for sums that are not finite."""
    if op is Op.GRAD_WEIGHT:
        return weights.work(problem, way.square)
    if way.is_fused:
        return fused.work(problem, op, epilogue)
    return staged.work(problem, op, epilogue, way.square)


@contained
def work(problem: ConvProblem, op: Op, epilogue: Epilogue) -> Work:
    """What winograd does for a problem whose padding is zeros."""
    return work_by(chosen(problem, op), problem, op, epilogue)


# ---- what the selector asks


def supports(problem: ConvProblem, op: Op) -> str | None:
    """None, or one sentence that says why not."""
    if problem.dtype in ("float16", "bfloat16"):
        return f"its transforms would lose what {problem.dtype} has of precision"
    if problem.filter[1:] not in SQUARES:
        return "it serves filters of 3 or 5 taps along H, along W or along both, and not of {}x{}".format(
            *problem.filter[1:]
        )
    if problem.stride != (1, 1, 1) or problem.dilation != (1, 1, 1):
        return "it serves a stride and a dilation of 1 only"
    if problem.groups > MOST_BLOCKS[-1]:
        return f"its grids have room for {MOST_BLOCKS[-1]} groups, and not for {problem.groups}"
    if not ways(problem, op):
        return "an image in tiles has more elements than indices of 31 bits reach"
    if op is Op.GRAD_WEIGHT and weights.refusal(problem, chosen(problem, op).square) is not None:
        return weights.refusal(problem, chosen(problem, op).square)
    return refusal(problem)


def cost(problem: ConvProblem, op: Op, gpu: Gpu) -> float:
    """Predicted seconds of the cheapest way, and of transforming the filters."""
    way = chosen(problem, op)
    filters = math.prod(problem.w_shape) * problem.real_bytes * (1 + way.square.products / problem.taps)
    return seconds(problem, op, gpu, way) + gpu.seconds(0, filters)


def error_bound(problem: ConvProblem, op: Op) -> float:
    """What the transforms add, and the sums over channels, which follow one another."""
    square = chosen(problem, op).square
    terms = problem.terms(op) // (square.outputs if op is Op.GRAD_WEIGHT else math.prod(problem.filter[1:]))
    precision = {4: 2.0**-24, 8: 2.0**-53}[problem.real_bytes]
    return TRANSFORM_ERROR[square.products] * precision + rounding_error(problem, terms)


ALGORITHM = Algorithm(
    name="winograd",
    device="cuda",
    supports=supports,
    cost=cost,
    error_bound=error_bound,
    workspace=scratch_of(work),
    plan=planned("winograd", work),
)
