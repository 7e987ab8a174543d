"""Direct convolution: sums of products as they stand, nothing stored in between.

It serves every problem, and is the one to take where few products are summed for each element, so that time is that of
memory: filters of one channel (`fastconv.cuda._depthwise`, `fastconv.cuda._depthwise_weight`) and few source or result
channels (`fastconv.cuda._few_channels`), whose threads compute neighbours from one window in registers. Everything else
is left to the plain form, a thread or a block for each element (`fastconv.cuda._elements`).
"""

from __future__ import annotations

import math
from functools import lru_cache

from ..core.algorithm import PLAIN, Algorithm, Epilogue
from ..core.machine import Gpu
from ..core.problem import ConvProblem, Op
from ._depthwise import depthwise
from ._depthwise_weight import depthwise_weight
from ._elements import THREADS, elementwise
from ._few_channels import few_channels
from ._gather import Gather
from ._limits import refusal, rounding_error
from ._plan import Work, planned, scratch_of

# Share of the arithmetic peak that the plain form is taken to reach: each multiply-add waits for two loads from the
# first-level cache, of which a multiprocessor makes one for every four multiply-adds. An estimate: not yet measured.
RATE_OF_ELEMENTS = 1 / 8
# Shares of the arithmetic peak and of the bandwidth for kernels that share windows: of the instructions of the most
# arithmetic ones, filters of 7 x 7, a half are multiply-adds; the bandwidth is what they were made to reach. Estimates.
RATE_OF_WINDOWS, BANDWIDTH_OF_WINDOWS = 1 / 2, 0.8


@lru_cache(maxsize=1024)
def _in_windows(problem: ConvProblem, op: Op, epilogue: Epilogue) -> Work | None:
    """What the kernels that share windows do; None where they do not serve."""
    if op is Op.GRAD_WEIGHT:
        found = depthwise_weight(problem)
        if found is None:
            return None
        return Work(
            lambda queue, x, w, y, residual, bias, scratch: found.run(queue, x, w, y, *scratch), (found.partial,)
        )
    gather = Gather(problem, op)
    make = depthwise if gather.source_channels == gather.result_channels == 1 else few_channels
    run = make(problem, op, epilogue)
    if run is None:
        return None
    return Work(lambda queue, x, w, y, residual, bias, scratch: run(queue, x, w, y, residual, bias))


def work(problem: ConvProblem, op: Op, epilogue: Epilogue) -> Work:
    """What direct does for a problem whose padding is zeros."""
    found = _in_windows(problem, op, epilogue)
    if found is not None:
        return found
    elements = elementwise(problem, op, epilogue)
    return Work(lambda queue, x, w, y, residual, bias, scratch: elements(queue, x, w, y, residual, bias))


def supports(problem: ConvProblem, op: Op) -> str | None:
    """None, or one sentence that says why not."""
    return refusal(problem)


def cost(problem: ConvProblem, op: Op, gpu: Gpu) -> float:
    """Predicted seconds; the plain form reads both factors of every product through the first-level cache."""
    if _in_windows(problem, op, PLAIN) is not None:
        launches = 2 if op is Op.GRAD_WEIGHT else 1
        return gpu.seconds(problem.flops / RATE_OF_WINDOWS, problem.bytes / BANDWIDTH_OF_WINDOWS, launches)
    phases = math.prod(problem.stride) if op is Op.GRAD_INPUT else 1
    return gpu.seconds(problem.flops / RATE_OF_ELEMENTS, problem.bytes, launches=phases)


def error_bound(problem: ConvProblem, op: Op) -> float:
    """Largest expected error over the root mean square of the result."""
    if op is not Op.GRAD_WEIGHT:
        return rounding_error(problem, problem.terms(op))
    found = depthwise_weight(problem)
    return rounding_error(problem, problem.terms(op) // THREADS + 1 if found is None else found.additions)


ALGORITHM = Algorithm(
    name="direct",
    device="cuda",
    supports=supports,
    cost=cost,
    error_bound=error_bound,
    workspace=scratch_of(work),
    plan=planned("direct", work),
)
