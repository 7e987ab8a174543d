"""What the window kernels share: lines of the output, the rows of the input that each sees, and how tasks share them.

A tensor is seen as (outer, a, b, c, v): channels_first is (N * C, 1, D, H, W), channels_last (N, D, H, W, C). A line of
the output is contiguous along v. Its windows have the same elements along a, b and c, a box of rows of the input, which
tables tell. A task has a few lines, or, where there are few, a part of one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..core.jit import subroutine
from ..core.machine import local_machine
from ..core.pool_problem import PoolAxis, PoolProblem
from ._geometry import Integers, Tables, named, sized
from ._kernel import first_integers, number
from ._simd import REGISTER_BYTES

# Tasks of a thread, as far as they have at least and at most so many bytes of the input: threads shall end together,
# but a task begins with rows that nothing has begun to fetch. The mean of 2x2 of 8x64x224x224 took 6.4 ms in tasks of
# 32 KiB and 5.2 ms in those of 1 MiB, and 4.3 and 2.4 ms in channels_last.
TASKS_PER_THREAD = 8
LEAST_TASK_BYTES = 1 << 15
MOST_TASK_BYTES = 1 << 20


class Header(NamedTuple):
    """The numbers at the head of a window kernel's geometry vector; those that a kernel needs beside them follow."""

    x_size: int
    w_size: int
    y_size: int
    residual_size: int
    constants_size: int
    workspace_size: int
    geometry_size: int
    lines: int
    lines_per_task: int
    # Lines along each axis, and where its table begins: first element, count and divisor of each.
    lines_a: int
    lines_b: int
    lines_c: int
    table_a: int
    table_b: int
    table_c: int
    table_v: int
    # Elements of x from one position of each axis to the next, and places that a tap is from the one before.
    x_outer: int
    x_a: int
    x_b: int
    x_c: int
    tap_a: int
    tap_b: int
    tap_c: int
    # How far each axis counts in an index into a plane of x.
    index_a: int
    index_b: int
    index_c: int
    index_v: int
    # Along v: elements of x, outputs, and the windows.
    extent: int
    width: int
    taps: int
    stride: int
    dilation: int
    low: int


HEADER = len(Header._fields)


@subroutine
def header(geometry):
    return Header(*first_integers(geometry, HEADER))


class Line(NamedTuple):
    """A line of the output."""

    outer: int
    a: int
    b: int
    c: int


@subroutine
def line_of(g, at):
    """The line of that number."""
    at, c = divmod(at, g.lines_c)
    at, b = divmod(at, g.lines_b)
    outer, a = divmod(at, g.lines_a)
    return Line(outer, a, b, c)


@subroutine
def next_line(g, line):
    """The line after this one, without a division."""
    if line.c + 1 < g.lines_c:
        return Line(line.outer, line.a, line.b, line.c + 1)
    if line.b + 1 < g.lines_b:
        return Line(line.outer, line.a, line.b + 1, 0)
    if line.a + 1 < g.lines_a:
        return Line(line.outer, line.a + 1, 0, 0)
    return Line(line.outer + 1, 0, 0, 0)


class Rows(NamedTuple):
    """The rows of x that a line sees: x from `at` on, and so many along each axis, a step apart."""

    at: int
    place: int  # of the first one in a plane of x, as an index
    divisor: int
    count_a: int
    count_b: int
    count_c: int
    step_a: int
    step_b: int
    step_c: int
    index_a: int  # from the index of a row to that of the next
    index_b: int
    index_c: int


@subroutine
def rows_of(g, geometry, line):
    first_a, first_b, first_c = (
        number(geometry, g.table_a + line.a),
        number(geometry, g.table_b + line.b),
        number(geometry, g.table_c + line.c),
    )
    return Rows(
        line.outer * g.x_outer + first_a * g.x_a + first_b * g.x_b + first_c * g.x_c,
        first_a * g.index_a + first_b * g.index_b + first_c * g.index_c,
        number(geometry, g.table_a + 2 * g.lines_a + line.a)
        * number(geometry, g.table_b + 2 * g.lines_b + line.b)
        * number(geometry, g.table_c + 2 * g.lines_c + line.c),
        number(geometry, g.table_a + g.lines_a + line.a),
        number(geometry, g.table_b + g.lines_b + line.b),
        number(geometry, g.table_c + g.lines_c + line.c),
        g.tap_a * g.x_a,
        g.tap_b * g.x_b,
        g.tap_c * g.x_c,
        g.tap_a * g.index_a,
        g.tap_b * g.index_b,
        g.tap_c * g.index_c,
    )


class Box(NamedTuple):
    """The rows of a line that are still to come, and of them those along b and c."""

    rows: int
    count_b: int
    count_c: int


@subroutine
def box_of(rows):
    """All rows. One loop goes through them: three would each have a beginning and an end, which took as long."""
    return Box(rows.count_a * rows.count_b * rows.count_c, rows.count_b, rows.count_c)


@subroutine
def next_row(rows, at, left):
    """Where the row after that at `at` is, and what is left then."""
    if left.count_c > 1:
        return at + rows.step_c, Box(left.rows - 1, left.count_b, left.count_c - 1)
    at -= (rows.count_c - 1) * rows.step_c
    if left.count_b > 1:
        return at + rows.step_b, Box(left.rows - 1, left.count_b - 1, rows.count_c)
    at += rows.step_a - (rows.count_b - 1) * rows.step_b
    return at, Box(left.rows - 1, rows.count_b, rows.count_c)


class Segment(NamedTuple):
    """The elements of a row that one output sees: pieces of `length` from `at` on, a step apart."""

    at: int
    pieces: int
    length: int
    step: int


@subroutine
def segment_of(g, geometry, q):
    first, count = number(geometry, g.table_v + q), number(geometry, g.table_v + g.width + q)
    if g.dilation == 1:
        return Segment(first, 1, count, 0)
    return Segment(first, count, 1, g.dilation)


# ---- the numbers


@dataclasses.dataclass(frozen=True)
class Shape:
    """A pooling problem as (outer, a, b, c, v)."""

    outer: int
    a: PoolAxis
    b: PoolAxis
    c: PoolAxis
    v: PoolAxis
    index_steps: tuple[int, int, int, int]
    dtype: str

    @property
    def boxes(self) -> tuple[PoolAxis, PoolAxis, PoolAxis]:
        """All axes but v."""
        return self.a, self.b, self.c

    @property
    def all(self) -> tuple[PoolAxis, ...]:
        """a, b, c and v."""
        return *self.boxes, self.v

    @property
    def lines(self) -> int:
        """Lines of the output."""
        return self.outer * math.prod(axis.output for axis in self.boxes)

    @property
    def x_size(self) -> int:
        """Elements of the input."""
        return self.x_lines * self.v.input

    @property
    def bytes(self) -> int:
        """Of the input."""
        return self.x_size * np.dtype(self.dtype).itemsize

    @property
    def x_lines(self) -> int:
        """Lines of the input."""
        return self.outer * math.prod(axis.input for axis in self.boxes)


ONE = PoolAxis(1, 1, 1)


@lru_cache(maxsize=1024)
def shape_of(problem: PoolProblem) -> Shape:
    """The axes of a problem as the kernels see them; those that a single window covers are joined into one."""
    d, h, w = problem.axes
    depth_step, height_step = h.input * w.input, w.input
    if problem.layout == "channels_last":
        channels = PoolAxis(problem.C, problem.C, 1)
        return Shape(problem.N, d, h, w, channels, (depth_step, height_step, 1, 0), problem.dtype)
    if covers(w) and covers(h):
        h, w = ONE, _joined_axis(h, w)
        if covers(d):
            d, w = ONE, _joined_axis(d, w)
    return Shape(problem.N * problem.C, ONE, d, h, w, (0, depth_step, height_step, 1), problem.dtype)


def covers(axis: PoolAxis) -> bool:
    """Whether a single window holds every element of the axis, in order."""
    return axis.output == 1 and axis.dilation == 1 and int(axis.count[0]) == axis.input


def is_idle(axis: PoolAxis) -> bool:
    """Whether the axis is a single element, and divides nothing."""
    return axis.input == axis.output == int(axis.divisors[0]) == int(axis.count[0]) == 1


def _joined_axis(outer: PoolAxis, inner: PoolAxis) -> PoolAxis:
    """Two axes of which each has one window as one axis."""
    extent = outer.input * inner.input
    return PoolAxis(extent, 1, extent, divisor=int(outer.divisors[0]) * int(inner.divisors[0]))


# Numbers behind the table of an axis, of which whole vectors are loaded: as many as a register has bytes.
BEHIND = REGISTER_BYTES


def table_of(axis: PoolAxis) -> Integers:
    """First element, count and divisor of each window."""
    return np.concatenate([axis.first, axis.count, axis.divisors, np.zeros(BEHIND, np.int64)])


def row_strides(shape: Shape) -> tuple[int, int, int, int]:
    """Elements of x from one outer, a, b and c to the next."""
    strides = [shape.v.input]
    for axis in reversed(shape.boxes):
        strides.append(strides[-1] * axis.input)
    c, b, a, outer = strides
    return outer, a, b, c


def lines_of_task(lines: int, bytes: int) -> int:
    """How many lines a task has, of so many that are so many bytes in all."""
    wanted = bytes / (TASKS_PER_THREAD * local_machine().threads)
    of_task = min(max(wanted, LEAST_TASK_BYTES), MOST_TASK_BYTES)
    return max(1, min(lines, round(of_task * lines / max(1, bytes))))


def geometry_of(
    shape: Shape, lines_per_task: int, along: Iterable[int], constants: int, workspace: int, indices: bool = False
) -> Integers:
    """The geometry vector of a window kernel; along: the numbers that follow the header."""
    tables = Tables(Header)
    tables.add(along)
    at = [tables.add(table_of(axis)) for axis in shape.all]
    v = shape.v
    vector = tables.vector(
        lines=shape.lines,
        lines_per_task=lines_per_task,
        **named("lines_{}", "abc", [axis.output for axis in shape.boxes]),
        **named("table_{}", "abcv", at),
        **dict(zip(("x_outer", "x_a", "x_b", "x_c"), row_strides(shape), strict=True)),
        **named("tap_{}", "abc", [axis.dilation for axis in shape.boxes]),
        **named("index_{}", "abcv", shape.index_steps),
        extent=v.input,
        width=v.output,
        taps=v.size,
        stride=v.stride,
        dilation=v.dilation,
        low=v.low,
    )
    y_size = shape.lines * v.output
    w_size = y_size * 8 // np.dtype(shape.dtype).itemsize if indices else y_size
    return sized(vector, (shape.x_size, w_size, y_size, y_size, constants, workspace))
