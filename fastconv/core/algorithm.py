"""What an algorithm is to the rest of the library: a record of functions, and the plan that it makes."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from .problem import ConvProblem, Op

Array = NDArray[Any]
Run = Callable[..., bool | None]
PatchRun = Callable[[Array, Array, Array, int], None]  # x, patch matrix, value outside, threads
PassesRun = Callable[[Array, Array, Array, Array, int], None]  # x, weights, y, values outside, threads

ACTIVATIONS = ("relu", "leaky_relu", "silu", "gelu", "sigmoid", "tanh")


@dataclass(frozen=True)
class Epilogue:
    """What happens to a result when it is stored: ``activation(sums + bias + residual)``.

    Attributes
    ----------
    activation
        One of `ACTIVATIONS`, or None.
    residual
        Whether a tensor of the result's shape is added.
    """

    activation: str | None = None
    residual: bool = False


PLAIN = Epilogue()


def running_sum_error(problem: ConvProblem, additions: int) -> float:
    """Error bound of a method in which this many additions follow one another in the sum of a result.

    The rounding errors of random terms add up like a random walk: their root mean square, over that of the result,
    grows with sqrt(additions) (Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition, section 2.8);
    6 of it is the largest of many results: 5.4 times were met among 2.4 million (`python -m bench.accuracy`).
    """
    precision = {4: 2.0**-24, 8: 2.0**-53}[problem.real_bytes]
    return 0.0 if problem.is_exact else 6 * precision * math.sqrt(additions)


@dataclass(frozen=True)
class KeptWeight:
    """What a plan makes of a weight that stays the same from call to call, before it sees any data.

    Attributes
    ----------
    key
        Equal for plans of one weight that make the same of it.
    transform
        ``transform(w, threads)`` makes it of the weight, an array of the problem's shape and type; on CUDA
        ``transform(w, queue)``, of its address.
    run
        `Plan.run` with what `transform` made in the place of w.
    """

    key: Hashable
    transform: Callable[[Any, Any], Any]
    run: Run


@dataclass(frozen=True)
class Plan:
    """One operation of one problem, ready to run any number of times.

    Attributes
    ----------
    algorithm
        Name of the algorithm that made the plan.
    problem, op
        What is computed; the problem's type is the computed type.
    workspace_bytes
        Scratch memory of one thread, in bytes.
    run
        ``run(x, w, y, residual, constants, threads)`` writes the tensor that `op` computes from the other two. All
        three are C-contiguous arrays in the problem's shapes, layout and type. ``residual`` has the result's shape;
        it is read only where the epilogue says so. ``constants`` holds the bias of each channel of
        the result, then the value that stands outside the tensor that is gathered: the pad value, or zero around y.
        ``threads`` is the most threads to use. On CUDA the tensors are addresses, and the last two arguments are that
        of the bias, or None, and the `fastconv.cuda._queue.Queue` in which kernels are queued. It gives None, or what
        `notices` says.
    limit
        Magnitude that every element of the tensors must stay below for the result to be right; None where
        any element, NaN and Inf included, only reaches the results that depend on it.
    is_extreme
        ``is_extreme(array, limit, threads)`` tells whether an element does not; only where there is a limit.
    notices
        Whether `run` tells if a sum, before bias and activation, is NaN, infinite or at least `limit`: what is bad in a
        tensor shows in the sums that it reaches.
    kept_weight
        What is worked out once for a weight that stays; None where nothing is.
    tiles
        Sizes that the algorithm settled on, for people to read.
    """

    algorithm: str
    problem: ConvProblem
    op: Op
    workspace_bytes: int
    run: Run
    limit: float | None = None
    is_extreme: Callable[[Array, float, int], bool] | None = None
    notices: bool = False
    kept_weight: KeptWeight | None = None
    tiles: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        sizes = "".join(f" {name}={size}" for name, size in self.tiles.items())
        return f"{self.algorithm} {self.op.value} of {self.problem}:{sizes} workspace={self.workspace_bytes} bytes"


@dataclass(frozen=True)
class Algorithm:
    """A method of convolution on one device.

    Attributes
    ----------
    name, device
        As the user writes it in ``algorithm=``; "cpu" or "cuda".
    supports
        None, or one sentence that says why this problem and operation cannot be served.
    cost
        Predicted seconds on a `Machine`, or on a `Gpu`.
    error_bound
        Largest expected error divided by the root mean square of the result, for random data.
    workspace
        Scratch memory of one thread, in bytes.
    plan
        Precomputes everything that does not depend on the data.
    spreads
        Whether one NaN, Inf or huge element may reach results that do not depend on it; then another algorithm computes
        them, or computes them again.
    rounds
        Whether it makes use of it where a problem allows products to be rounded to TF32; the others get float32.
    """

    name: str
    device: str
    supports: Callable[[ConvProblem, Op], str | None]
    cost: Callable[[ConvProblem, Op, Any], float]
    error_bound: Callable[[ConvProblem, Op], float]
    workspace: Callable[[ConvProblem, Op], int]
    plan: Callable[[ConvProblem, Op, Epilogue], Plan]
    spreads: bool = False
    rounds: bool = False
