"""Separable filters: one of rank 1 is an outer product of vectors, and runs as a pass along each axis.

For ``w[r, s] = u[r] * v[s]`` the correlation with w is that with u along one axis, then with v along the other: R + S
multiplications for an output instead of R * S. Whether it is one is found by a singular value decomposition: the second
singular value of ``w``, as a matrix with an axis against all others, vanishes within the precision of the type.

Source: Treitel, Shanks, "The Design of Multistage Separable Planar Filters", IEEE Trans. Geoscience Electronics 9
(1971).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeVar

import numpy as np

from ._two_passes import taken, two_passes
from .core.arrays import Array
from .core.problem import ConvProblem

Value = TypeVar("Value")

# Seconds of a singular value decomposition of n elements, of which m along the shorter side: `numpy.linalg.svd` took
# 13 us for 3x3, 30 us for 9x9, 190 us for 25x25 and 2.2 ms for 64x64.
SVD_SECONDS = 12e-6
SVD_ELEMENT_SECONDS = 9e-9
# Seconds of all else that passes take before the first: 256x256 with 3x3 took 172 us in passes, 106 us as a whole.
PASSES_SECONDS = 60e-6


class Prices(NamedTuple):
    """Predicted seconds of both ways, and the algorithm of each pass; none where both are one launch."""

    whole: float
    passes: float
    algorithms: tuple[str, ...]


@dataclass(frozen=True)
class Separation:
    """A filter as one vector for each axis, with an extent of 1 along the others; and what that saves."""

    factors: tuple[Array, ...]
    prices: Prices

    def __str__(self) -> str:
        shapes, algorithms = ["x".join(map(str, factor.shape)) for factor in self.factors], self.prices.algorithms
        passes = " and ".join(shapes) + " in one launch"
        if algorithms:
            passes = " + ".join(f"{shape} {name}" for shape, name in zip(shapes, algorithms, strict=True))
        times = f"{self.prices.passes * 1e3:.3f} ms predicted instead of {self.prices.whole * 1e3:.3f} ms"
        return f"separable: {passes}, {times}: fastconv.signal and fastconv.ndimage take it so"


def separation(problem: ConvProblem, weight: Array) -> Separation | None:
    """The passes that compute a problem of one channel, or None where the filter as a whole is cheaper, or not rank 1.

    Parameters
    ----------
    problem
        A FORWARD problem without strides.
    weight : array of shape (T, R, S), (R, S) or (S,)
    """
    if problem.C != 1 or problem.K != 1 or problem.stride != (1, 1, 1) or problem.computed.dtype[:5] != "float":
        return None
    prices = _prices(problem)
    if prices.passes >= prices.whole:
        return None
    factors = rank_one(weight.astype(problem.computed.dtype, copy=False))
    return None if factors is None else Separation(factors, prices)


def rank_one(weight: Array) -> tuple[Array, ...] | None:
    """The vectors whose outer product a filter is, within the precision of its type; None where it is none.

    Each has the filter's number of axes, and an extent of 1 along all but its own.
    """
    if not np.all(np.isfinite(weight)):
        return None
    factors = []
    rest = weight
    for axis in range(weight.ndim - 1):
        columns, values, rows = np.linalg.svd(rest.reshape(rest.shape[0], -1), full_matrices=False)
        if values.size > 1 and values[1] > np.finfo(weight.dtype).eps * values[0]:
            return None
        factors.append(_along(columns[:, 0] * math.sqrt(values[0]), axis, weight.ndim))
        rest = (rows[0] * math.sqrt(values[0])).reshape(rest.shape[1:])
    return (*factors, _along(rest, weight.ndim - 1, weight.ndim))


def _along(vector: Array, axis: int, rank: int) -> Array:
    shape = [1] * rank
    shape[axis] = -1
    return vector.reshape(shape)


@lru_cache(maxsize=1024)
def _prices(problem: ConvProblem) -> Prices:
    """What the filter as a whole, and its passes from the first axis to the last, would take."""
    whole = taken(problem)[0]
    shorter = min(problem.filter[3 - problem.rank :])
    if sum(extent > 1 for extent in problem.filter) < 2 or whole < PASSES_SECONDS:
        return Prices(whole, math.inf, ())
    seconds = PASSES_SECONDS + SVD_SECONDS + SVD_ELEMENT_SECONDS * problem.taps * shorter
    passes = [along_axis(problem, axis) for axis in range(3 - problem.rank, 3)]
    both = two_passes(*passes) if len(passes) == 2 else None
    if both is not None:
        return Prices(whole, seconds + both.seconds, ())
    each = [taken(once) for once in passes]
    return Prices(whole, seconds + sum(price for price, _ in each), tuple(name for _, name in each))


def along_axis(problem: ConvProblem, axis: int) -> ConvProblem:
    """The pass along one of the three axes, which those before have already gone along."""
    covered = (*problem.output[:axis], *problem.input[axis:])
    return problem.replace(
        input=covered,
        filter=_only(problem.filter, axis, 1),
        dilation=_only(problem.dilation, axis, 1),
        padding=_only(problem.padding, axis, (0, 0)),
    )


def _only(values: tuple[Value, Value, Value], axis: int, other: Value) -> tuple[Value, Value, Value]:
    first, second, third = (value if number == axis else other for number, value in enumerate(values))
    return first, second, third
