"""What the window kernels share: lines of the output, the rows of the input that each sees, and the way along a row.

A tensor is seen as (outer, a, b, c, v): channels_first is (N * C, 1, D, H, W), channels_last (N, D, H, W, C). A line of
the output is contiguous along v. Its windows have the same elements along a, b and c, a box of rows of the input, which
tables tell. Along v windows are computed in one of two ways:

- in lanes: a vector of outputs at once. Their elements follow each other a stride apart, and are loaded for one tap r
  after the other. For the channels of channels_last there is a single tap;
- one by one: the elements of a window are loaded as vectors. So go adaptive windows, and wide ones where there are few.
"""

from __future__ import annotations

import dataclasses
import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..core.jit import subroutine
from ..core.pool_problem import PoolAxis, PoolProblem
from ._geometry import Integers, Tables, named
from ._kernel import SIZES, first_integers, number
from ._simd import REGISTER_BYTES

# Bytes of the input that a task reads, about: small enough for its lines to stay in the first-level cache from one pass
# to the next, and for the threads to end together. With 128 KiB, 2048 planes of 7x7 were three tasks.
TASK_BYTES = 1 << 15
# Time of putting the lanes of a window together, and of an element of windows at a border, in vectors loaded and added.
LANES_TOGETHER = 10
BORDER = 4


class Header(NamedTuple):
    """The numbers at the head of a window kernel's geometry vector."""

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
    # Along v: elements of x, outputs, those that fill vectors and whose windows are whole, and the windows.
    extent: int
    width: int
    in_lanes: int
    borders_in_lanes: int
    begin: int
    end: int
    taps: int
    paired: int  # taps of which every two neighbours are loaded together where the stride is 2
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


def _joined_axis(outer: PoolAxis, inner: PoolAxis) -> PoolAxis:
    """Two axes of which each has one window as one axis."""
    extent = outer.input * inner.input
    return PoolAxis(extent, 1, extent, divisor=int(outer.divisors[0]) * int(inner.divisors[0]))


class Ways(NamedTuple):
    """How the windows along v are computed: those from `begin` to before `end` in lanes, the others as it says."""

    begin: int
    end: int
    borders_in_lanes: bool


def ways_of(axis: PoolAxis, dtype: str) -> Ways:
    """In lanes go windows that hang over neither end, if they fill a vector, and the others where that is faster."""
    together = REGISTER_BYTES // np.dtype(dtype).itemsize
    if axis.is_adaptive:
        return Ways(0, 0, False)
    reach = axis.dilation * (axis.size - 1) + 1
    begin = -(-axis.low // axis.stride)
    end = min(axis.output, (axis.input - reach + axis.low) // axis.stride + 1)
    if end - begin < together:
        begin = end = axis.output
    vectors = -(-begin // together) - (end - axis.output) // together
    pieces = axis.size if axis.dilation > 1 else -(-axis.size // together)
    one_by_one = (begin + axis.output - end) * (pieces + LANES_TOGETHER)
    in_lanes = vectors * axis.size * BORDER < one_by_one
    return Ways(begin, end, in_lanes)


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


def lines_per_task(shape: Shape) -> int:
    """Lines of the output whose windows are about `TASK_BYTES` of the input."""
    bytes = np.dtype(shape.dtype).itemsize * math.prod(row_strides(shape)[:1]) * shape.outer / max(1, shape.lines)
    return max(1, round(TASK_BYTES / max(1, bytes)))


def geometry_of(shape: Shape, constants: int, indices: bool) -> tuple[Integers, int]:
    """The geometry vector of a window kernel, and its tasks."""
    tables = Tables(Header)
    at = [tables.add(table_of(axis)) for axis in shape.all]
    v, per_task = shape.v, lines_per_task(shape)
    ways = ways_of(v, shape.dtype)
    vector = tables.vector(
        lines=shape.lines,
        lines_per_task=per_task,
        **named("lines_{}", "abc", [axis.output for axis in shape.boxes]),
        **named("table_{}", "abcv", at),
        **dict(zip(("x_outer", "x_a", "x_b", "x_c"), row_strides(shape), strict=True)),
        **named("tap_{}", "abc", [axis.dilation for axis in shape.boxes]),
        **named("index_{}", "abcv", shape.index_steps),
        extent=v.input,
        width=v.output,
        in_lanes=int(ways.begin < ways.end),
        borders_in_lanes=int(ways.borders_in_lanes),
        begin=ways.begin,
        end=ways.end,
        taps=v.size,
        paired=v.size // 2 * 2 if v.dilation == 1 else 0,
        stride=v.stride,
        dilation=v.dilation,
        low=v.low,
    )
    x_size, y_size = row_strides(shape)[0] * shape.outer, shape.lines * v.output
    w_size = y_size * 8 // np.dtype(shape.dtype).itemsize if indices else y_size
    vector[:SIZES] = (x_size, w_size, y_size, y_size, constants, 0, vector.size)
    vector.flags.writeable = False
    return vector, -(-shape.lines // per_task)
