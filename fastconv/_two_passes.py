"""Two passes over images, down their columns and along their lines, in one launch where that is the cheapest."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .core.algorithm import PassesRun
from .core.arrays import Array, plain
from .core.evaluate import SERIAL_SECONDS
from .core.machine import local_machine
from .core.problem import ConvProblem, Op
from .core.registry import passes_module
from .core.selector import explain_problem
from .core.threads import allowed_threads


class TwoPasses(NamedTuple):
    """Both passes, ready to run any number of times.

    Attributes
    ----------
    seconds
        Predicted.
    is_short
        Whether one thread is enough.
    run
        What `fastconv.cpu.passes.plan` gives.
    """

    seconds: float
    is_short: bool
    run: PassesRun

    def __call__(self, x: Array, weights: tuple[Array, Array], outside: tuple[float, float], y: Array) -> None:
        """Write y, a plain array of the type of x. outside: what stands in the padding of each pass."""
        constants = np.array(outside, y.dtype)
        threads = 1 if self.is_short else allowed_threads(None)
        self.run(plain(x, y.dtype), np.concatenate([each.ravel() for each in weights]), y, constants, threads)


@lru_cache(maxsize=1024)
def two_passes(down: ConvProblem, across: ConvProblem) -> TwoPasses | None:
    """Both in one launch, or None where that cannot be, or where one after the other is cheaper.

    Parameters
    ----------
    down, across
        FORWARD problems without strides, the second one of what the first one gives.
    """
    if not _is_served(down, 1) or not _is_served(across, 2):
        return None
    passes, machine = passes_module(), local_machine()
    seconds = passes.cost(down, across, machine)
    if seconds >= taken(down)[0] + taken(across)[0]:
        return None
    alone = passes.cost(down, across, dataclasses.replace(machine, threads=1))
    return TwoPasses(seconds, alone < SERIAL_SECONDS, passes.plan(down, across))


def _is_served(problem: ConvProblem, axis: int) -> bool:
    """Whether this is a pass along the axis, over images of one channel that hold something."""
    other = 3 - axis
    return (
        (problem.rank, problem.C, problem.K) == (2, 1, 1)
        and problem.dtype in ("float32", "float64")
        and (problem.filter[other], problem.padding[other]) == (1, (0, 0))
        and min(problem.N, *problem.input, *problem.output) > 0
    )


def taken(problem: ConvProblem) -> tuple[float, str]:
    """Predicted seconds of what "auto" takes, and its name."""
    explanation = explain_problem(problem, Op.FORWARD)
    return explanation.candidates[explanation.algorithm].seconds, explanation.algorithm
