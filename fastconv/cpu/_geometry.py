"""Putting a kernel's integers together: sizes, a header of named numbers, then tables."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.problem import Axes, ConvProblem, Op
from ._kernel import SIZES

Integers = NDArray[np.int64]


class Tables:
    """Integer tables that follow a header; each is added once and known by its position."""

    def __init__(self, header: type[tuple[int, ...]]) -> None:
        """header: a NamedTuple whose first SIZES fields `with_sizes` fills in."""
        self._names: tuple[str, ...] = header._fields  # type: ignore[attr-defined]
        self._parts: list[Integers] = []
        self._end = len(self._names)

    def add(self, table: Iterable[int] | Integers) -> int:
        """Append a table and give the position of its first number in the geometry vector."""
        part = np.asarray(table, np.int64).reshape(-1)
        at = self._end
        self._parts.append(part)
        self._end += part.size
        return at

    def add_elements(self, numbers: NDArray[Any], dtype: str) -> int:
        """Append numbers of a type other than integers, which a kernel finds with `fastconv.cpu._kernel.elements_in`.

        Returns the position of the first among elements of this type.
        """
        count = np.dtype(np.int64).itemsize // np.dtype(dtype).itemsize
        padded = np.zeros(-(-numbers.size // count) * count, dtype)
        padded[: numbers.size] = numbers
        return count * self.add(padded.view(np.int64))

    def vector(self, **fields: int) -> Integers:
        """The header's other fields, each by its name, then the tables."""
        numbers = [0] * SIZES + [fields.pop(name) for name in self._names[SIZES:]]
        assert not fields, f"unknown fields {sorted(fields)}"
        return np.concatenate([np.asarray(numbers, np.int64), *self._parts])

    def partial_vector(self, **fields: int) -> Integers:
        """`vector`, with 0 for the fields that are not given, which a kernel does not read."""
        return self.vector(**(dict.fromkeys(self._names[SIZES:], 0) | fields))


def named(name: str, letters: str, values: Iterable[int]) -> dict[str, int]:
    """Values as the fields that the letters make of a name: ``named("x_{}", "dh", (1, 2))`` is x_d=1, x_h=2."""
    return {name.format(letter): value for letter, value in zip(letters, values, strict=True)}


def with_sizes(
    vector: Integers,
    problem: ConvProblem,
    op: Op,
    weight_size: int,
    workspace: int,
    result_size: int | None = None,
    residual_size: int | None = None,
) -> Integers:
    """Write the sizes that `views` reads over the first numbers of a geometry vector.

    result_size, residual_size: elements of what a kernel gets in place of the result and the residual of an operation.
    """
    channels = {Op.FORWARD: problem.K, Op.GRAD_INPUT: problem.C, Op.GRAD_WEIGHT: 0}[op]
    x_size, y_size = math.prod(problem.x_shape), math.prod(problem.y_shape)
    if result_size is not None:
        x_size, y_size = (result_size, y_size) if op is Op.GRAD_INPUT else (x_size, result_size)
    sizes = (
        x_size,
        weight_size,
        y_size,
        math.prod(problem.result_shape(op)) if residual_size is None else residual_size,
        channels + 1,
        workspace,
    )
    return sized(vector, sizes)


def sized(vector: Integers, sizes: tuple[int, ...]) -> Integers:
    """Write the sizes of x, w, y, residual, constants and workspace over the first numbers of a geometry vector."""
    vector[:SIZES] = (*sizes, vector.size)
    vector.flags.writeable = False
    return vector


def strides(channels: int, extents: Axes, layout: str) -> tuple[int, int, int, int, int]:
    """Elements from one image, channel, d, h and w to the next in a contiguous tensor."""
    depth, height, width = extents
    if layout == "channels_first":
        return channels * depth * height * width, depth * height * width, height * width, width, 1
    return depth * height * width * channels, 1, height * width * channels, width * channels, channels


def tensor_strides(problem: ConvProblem) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """`strides` of x and of y."""
    return (
        strides(problem.C, problem.input, problem.layout),
        strides(problem.K, problem.output, problem.layout),
    )


def initialise(x: NDArray[Any], problem: ConvProblem, constants: NDArray[Any]) -> None:
    """Set every element of x to the bias of its channel, where a kernel then adds to it."""
    bias = constants[:-1]
    x[...] = bias if problem.layout == "channels_last" else bias.reshape(-1, *[1] * problem.rank)


def grouped(problem: ConvProblem, weight: NDArray[Any]) -> NDArray[Any]:
    """The weight as (groups, K / groups, C / groups, T, R, S)."""
    g = problem.groups
    return weight.reshape(g, problem.K // g, problem.C // g, *problem.filter)


def even_split(extent: int, most: int) -> int:
    """Size of the equal parts, of at most `most`, that an extent is divided into; at least 1."""
    whole = max(1, extent)
    parts = -(-whole // max(1, min(most, whole)))
    return -(-whole // parts)
