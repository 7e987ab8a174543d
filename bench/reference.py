"""What a result must be: the same random tensors in every process, and elements of the result in float64.

The elements of a convolution are summed directly from the definition, product by product, so that no library is its
own judge. Where the result is large, a random sample of its elements stands for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from bench.prepared import Array, normal
from fastconv.core.problem import ConvProblem, Op

# Largest allowed |error| over the root mean square of the result.
TOLERANCE = {"float32": 1e-4, "float64": 1e-12}
# A sample holds this many elements, fewer if their products would be more than the second number.
_SAMPLE = range(16, 1025)
_PRODUCTS = 50_000_000


class Tensors(NamedTuple):
    """The input, the weight and the output or its gradient, in the shapes of the problem."""

    x: Array
    w: Array
    y: Array


def tensors(problem: ConvProblem) -> Tensors:
    """Normally distributed numbers, the same for the same problem; channels first in either layout."""
    problem = problem.replace(layout="channels_first")
    shapes = (problem.x_shape, problem.w_shape, problem.y_shape)
    return Tensors(*(normal(np.random.default_rng(seed), shape, problem.dtype) for seed, shape in enumerate(shapes)))


@dataclass(frozen=True)
class Reference:
    """Elements of one result.

    Attributes
    ----------
    shape
        Of the whole result.
    points, values
        Flat indices into it, and the right elements there.
    tolerance
        Largest allowed error.
    """

    shape: tuple[int, ...]
    points: Array
    values: Array
    tolerance: float

    def error(self, values: Array) -> float:
        """Largest error of these values at `points`, over the root mean square of the right ones."""
        return float(np.max(np.abs(values - self.values)) / np.sqrt(np.mean(np.abs(self.values) ** 2)))

    def fault(self, shape: tuple[int, ...], error: float) -> str | None:
        """What is wrong with a result of this shape and error, or None."""
        if shape != self.shape:
            return f"its shape is {shape} and must be {self.shape}"
        return None if error <= self.tolerance else f"its error of {error:.1e} exceeds {self.tolerance:.0e}"


def of_convolution(problem: ConvProblem, op: Op) -> Reference:
    """Elements of a convolution or gradient, exact to float64; channels first in either layout."""
    problem = problem.replace(layout="channels_first")
    shape = problem.result_shape(op)
    points = _sample(int(np.prod(shape)), problem.terms(op))
    return Reference(shape, points, _elements(problem, op, points), TOLERANCE[problem.dtype])


def of_array(result: Array, tolerance: float) -> Reference:
    """A sample of a result that is known as a whole."""
    points = _sample(result.size, 1)
    return Reference(result.shape, points, result.reshape(-1)[points], tolerance)


def _sample(size: int, terms: int) -> Array:
    """Flat indices into the result: all, or the first, the last and random ones between them."""
    count = int(np.clip(_PRODUCTS // terms, _SAMPLE.start, _SAMPLE.stop - 1))
    if size <= count:
        return np.arange(size)
    inner = np.random.default_rng(0).integers(1, size - 1, count - 2)
    return np.concatenate([[0], inner, [size - 1]])


def _elements(problem: ConvProblem, op: Op, points: Array) -> Array:
    given = tensors(problem)
    x = given.x.reshape(problem.N, problem.C, *problem.input)
    w = given.w.reshape(problem.K, -1, *problem.filter)
    y = given.y.reshape(problem.N, problem.K, *problem.output)
    shape = {Op.FORWARD: y, Op.GRAD_INPUT: x, Op.GRAD_WEIGHT: w}[op].shape
    element = {Op.FORWARD: _forward, Op.GRAD_INPUT: _grad_input, Op.GRAD_WEIGHT: _grad_weight}[op]
    places = zip(*np.unravel_index(points, shape), strict=True)
    return np.array([_dot(*element(problem, x, w, y, place)) for place in places])


def _dot(first: Array, second: Array) -> float:
    return float(np.multiply(first.ravel(), second.ravel(), dtype=np.float64).sum())


# ---- the two factors of each product, for one element of the result


def _forward(problem: ConvProblem, x: Array, w: Array, y: Array, place: tuple[int, ...]) -> tuple[Array, Array]:
    n, k, *output = place
    width = problem.C // problem.groups
    start = k // (problem.K // problem.groups) * width
    taps, inputs = _along_axes(_of_output, problem, output)
    return _part(x, n, np.arange(start, start + width), *inputs), _part(w, k, np.arange(width), *taps)


def _grad_input(problem: ConvProblem, x: Array, w: Array, y: Array, place: tuple[int, ...]) -> tuple[Array, Array]:
    n, c, *inputs = place
    group, channel = divmod(c, problem.C // problem.groups)
    width = problem.K // problem.groups
    filters = np.arange(group * width, (group + 1) * width)
    taps, outputs = _along_axes(_of_input, problem, inputs)
    return _part(y, n, filters, *outputs), _part(w, filters, channel, *taps)


def _grad_weight(problem: ConvProblem, x: Array, w: Array, y: Array, place: tuple[int, ...]) -> tuple[Array, Array]:
    k, channel, *taps = place
    c = k // (problem.K // problem.groups) * (problem.C // problem.groups) + channel
    outputs, inputs = _along_axes(_of_tap, problem, taps)
    images = np.arange(problem.N)
    return _part(x, images, c, *inputs), _part(y, images, k, *outputs)


def _part(tensor: Array, *indices: ArrayLike) -> Array:
    """The elements whose index along each axis is one of those."""
    part: Array = tensor[np.ix_(*map(np.atleast_1d, indices))]
    return part


# ---- along one axis: output p and tap r meet at input p * stride + r * dilation - low


class _Axis(NamedTuple):
    extent: int
    filter: int
    output: int
    stride: int
    dilation: int
    low: int


def _along_axes(
    meet: Callable[[_Axis, int], tuple[Array, Array]], problem: ConvProblem, place: list[int]
) -> tuple[list[Array], list[Array]]:
    """Where the three tensors meet along each axis, with one of them at this place."""
    lows = [low for low, _ in problem.padding]
    columns = (problem.input, problem.filter, problem.output, problem.stride, problem.dilation, lows)
    pairs = [meet(_Axis(*row), at) for *row, at in zip(*columns, place, strict=True)]
    return [first for first, _ in pairs], [second for _, second in pairs]


def _of_output(axis: _Axis, p: int) -> tuple[Array, Array]:
    """Taps, and the inputs that they meet."""
    r = np.arange(axis.filter)
    i = p * axis.stride + r * axis.dilation - axis.low
    inside = (i >= 0) & (i < axis.extent)
    return r[inside], i[inside]


def _of_input(axis: _Axis, i: int) -> tuple[Array, Array]:
    """Taps, and the outputs that they meet."""
    r = np.arange(axis.filter)
    p, between = np.divmod(i + axis.low - r * axis.dilation, axis.stride)
    inside = (between == 0) & (p >= 0) & (p < axis.output)
    return r[inside], p[inside]


def _of_tap(axis: _Axis, r: int) -> tuple[Array, Array]:
    """Outputs, and the inputs that they meet."""
    p = np.arange(axis.output)
    i = p * axis.stride + r * axis.dilation - axis.low
    inside = (i >= 0) & (i < axis.extent)
    return p[inside], i[inside]
