"""Direct convolution: one thread for each element of the result, nothing stored in between.

It serves every problem, and is the one to take where few products are summed for each element: filters of one channel
(depthwise), few input channels. The kernels are those of `fastconv.cuda._elements`.
"""

from __future__ import annotations

import math

from ..core.algorithm import Algorithm, Epilogue
from ..core.machine import Gpu
from ..core.problem import ConvProblem, Op
from ._depthwise import depthwise
from ._depthwise_weight import depthwise_weight
from ._elements import THREADS, elementwise
from ._limits import refusal, rounding_error
from ._plan import Work, planned, scratch_of

# Share of the arithmetic peak that these kernels are taken to reach: each multiply-add waits for two loads from the
# first-level cache, of which a multiprocessor makes one for every four multiply-adds. An estimate: not yet measured.
RATE = 1 / 8


def work(problem: ConvProblem, op: Op, epilogue: Epilogue) -> Work:
    """What direct does for a problem whose padding is zeros."""
    if op is Op.GRAD_WEIGHT:
        found = depthwise_weight(problem)
        if found is not None:
            correlate, partial = found
            return Work(lambda queue, x, w, y, residual, bias, scratch: correlate(queue, x, w, y, *scratch), (partial,))
    gather = depthwise(problem, op, epilogue) if op is not Op.GRAD_WEIGHT else None
    elements = gather or elementwise(problem, op, epilogue)

    def run(queue, x, w, y, residual, bias, scratch):
        elements(queue, x, w, y, residual, bias)

    return Work(run)


def supports(problem: ConvProblem, op: Op) -> str | None:
    """None, or one sentence that says why not."""
    return refusal(problem)


def cost(problem: ConvProblem, op: Op, gpu: Gpu) -> float:
    """Predicted seconds: every product reads both of its factors through the first-level cache."""
    phases = math.prod(problem.stride) if op is Op.GRAD_INPUT else 1
    return gpu.seconds(problem.flops / RATE, problem.bytes, launches=phases)


def error_bound(problem: ConvProblem, op: Op) -> float:
    """Largest expected error over the root mean square of the result."""
    return rounding_error(problem, problem.terms(op) if op is not Op.GRAD_WEIGHT else problem.terms(op) // THREADS + 1)


ALGORITHM = Algorithm(
    name="direct",
    device="cuda",
    supports=supports,
    cost=cost,
    error_bound=error_bound,
    workspace=scratch_of(work),
    plan=planned("direct", work),
)
