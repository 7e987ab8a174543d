"""Direct kernels for depthwise filters of 3x3: a plane is read once, where it lies, and nothing is copied.

A vector of a line of the source is loaded once for each of the three columns of the filter, and meets its three lines
while it is in registers. What the lines above have left of a sum waits in a register, too::

    y[h] is complete with line h + 1 of x:      y[h]     = sums[h] + w[2] . x[h + 1]
                                                sums[h + 1] += w[1] . x[h + 1]
                                                sums[h + 2]  = w[0] . x[h + 1]      with . along a line

so that a plane costs three loads and nine products for each vector. GRAD_INPUT with a stride of 1 is the same with
the filter turned around; with a stride of 2, two lines of x and two vectors of each are made of every line of y.
GRAD_WEIGHT keeps nine vectors of sums, whose lanes are added up once, behind the last image.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..core.algorithm import Epilogue, Plan
from ..core.jit import kernel, subroutine
from ..core.machine import local_machine
from ..core.problem import ConvProblem, Op
from ._activation import activation_code
from ._axes import folding
from ._gemm import lanes_of
from ._geometry import Tables, with_sizes
from ._kernel import always_inlined, first_integers, never_inlined, views
from ._launch import Launch
from ._line_vectors import by_turns, half_of, load_inside
from ._past_caches import caches_passed, goes_past_caches, store_left
from ._rows import Finish, changes, finish_runs
from ._simd import fma, lanes_of_value, prefetch, splat, store_first, totals_of, zeros
from ._tiles import WAITING, parts_of


class Planes(NamedTuple):
    """The header of the geometry vector."""

    sizes_1: int
    sizes_2: int
    sizes_3: int
    sizes_4: int
    sizes_5: int
    sizes_6: int
    sizes_7: int
    images: int
    groups: int
    block: int  # planes of a task
    source_h: int  # lines of a plane and elements of a line; in GRAD_WEIGHT of x
    source_w: int
    target_h: int  # in GRAD_WEIGHT of y
    target_w: int
    before_h: int  # lines and columns that the first tap of the first position lies before the source
    before_w: int
    turned: int  # whether the filter is turned around
    fetches: int  # whether the plane that follows is fetched meanwhile
    activation: int
    has_residual: int


HEADER = len(Planes._fields)


@subroutine
def _fetch(tensor, at, vectors):
    """Begin to fetch so many vectors that are wanted with the plane that follows.

    A plane is fetched in the order of memory, a part with every vector of results. The weight gradient of 8x64x112x112
    took 3.5 ms, and takes 1.7; with a stride of 2, where the order was that of the results, which go down a column of
    vectors after the other, 1.25 and 0.95.
    """
    always_inlined()
    step = lanes_of_value(zeros(tensor, 1))
    for i in range(0, vectors * step, step):
        prefetch(tensor, at + i)


class Weights(NamedTuple):
    """A filter, each weight in all lanes."""

    w00: object
    w01: object
    w02: object
    w10: object
    w11: object
    w12: object
    w20: object
    w21: object
    w22: object


@subroutine
def _weights_of(w, at, step, like):
    """Nine weights, `step` apart."""
    always_inlined()
    return Weights(
        splat(w, at, like), splat(w, at + step, like), splat(w, at + 2 * step, like),
        splat(w, at + 3 * step, like), splat(w, at + 4 * step, like), splat(w, at + 5 * step, like),
        splat(w, at + 6 * step, like), splat(w, at + 7 * step, like), splat(w, at + 8 * step, like),
    )  # fmt: skip


# ---- forward


@kernel
def _forward(task, x, w, y, residual, constants, workspace, geometry):
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    _filter_planes(task, x, w, y, residual, constants, geometry, None)


@kernel
def _forward_strided(task, x, w, y, residual, constants, workspace, geometry):
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    _filter_planes(task, x, w, y, residual, constants, geometry, True)


@kernel
def _grad_input(task, x, w, y, residual, constants, workspace, geometry):
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    _filter_planes(task, y, w, x, residual, constants, geometry, None)


@subroutine
def _filter_planes(task, source, w, target, residual, constants, geometry, strided):
    """A run of planes of all images. strided: None where the stride is 1; the type tells what is compiled."""
    g = Planes(*first_integers(geometry, HEADER))
    finish = Finish(constants, residual, g.has_residual, g.activation, None)
    for plane in range(task * g.block, min((task + 1) * g.block, g.images * g.groups)):
        source_at, target_at = plane * g.source_h * g.source_w, plane * g.target_h * g.target_w
        channel = plane % g.groups
        is_changed = changes(finish, channel, 1)
        if strided is None:
            _filter(g, source, source_at, w, 9 * channel, target, target_at, not is_changed)
        else:
            _filter_strided(g, source, source_at, w, 9 * channel, target, target_at)
        if is_changed:
            finish_runs(target, target_at, 0, 1, g.target_h * g.target_w, channel, 0, finish)


@subroutine
def _columns(g, source, at, low, zero):
    """The three vectors of a line that the columns of a filter meet, from the first one's first element on."""
    always_inlined()
    lanes = lanes_of_value(zero)
    return (
        load_inside(source, at, _within(low, lanes), _within(low + g.source_w, lanes), zero),
        load_inside(source, at + 1, _within(low - 1, lanes), _within(low - 1 + g.source_w, lanes), zero),
        load_inside(source, at + 2, _within(low - 2, lanes), _within(low - 2 + g.source_w, lanes), zero),
    )  # fmt: skip


@subroutine
def _within(lane, lanes):
    always_inlined()
    return max(0, min(lane, lanes))


@subroutine
def _filter(g, source, source_at, w, w_at, target, target_at, may_pass):
    """A plane with a stride of 1."""
    never_inlined()
    zero = zeros(target, 1)
    f = _weights_of(w, w_at + 8 if g.turned else w_at, -1 if g.turned else 1, zero)
    step = lanes_of_value(zero)
    following = source_at + g.source_h * g.source_w
    past_caches = may_pass and goes_past_caches(target, target_at, g.target_w)
    for q in range(0, g.target_w, step):
        low = g.before_w - q
        held = min(step, g.target_w - q)
        above, here = zero, zero
        for h in range(-g.before_h, g.target_h + 2 - g.before_h):
            left, middle, right = zero, zero, zero
            if g.fetches:
                _fetch(source, following, 1)
                following += step
            if 0 <= h < g.source_h:
                left, middle, right = _columns(g, source, source_at + h * g.source_w - low, low, zero)
            done = above + fma(f.w22, right, fma(f.w21, middle, f.w20 * left))
            above = here + fma(f.w12, right, fma(f.w11, middle, f.w10 * left))
            here = fma(f.w02, right, fma(f.w01, middle, f.w00 * left))
            p = h + g.before_h - 2
            if p >= 0:
                store_left(target, target_at + p * g.target_w + q, held, done, past_caches)
    if past_caches:
        caches_passed()


@subroutine
def _filter_strided(g, source, source_at, w, w_at, target, target_at):
    """A plane with a stride of 2."""
    never_inlined()
    zero = zeros(target, 2)
    f = _weights_of(w, w_at, 1, zero)
    step = lanes_of_value(zero)
    following = source_at + g.source_h * g.source_w
    for q in range(0, g.target_w, step):
        low = g.before_w - 2 * q
        held = min(step, g.target_w - q)
        left, middle, right = _strided_columns(g, source, source_at, -g.before_h, low, zero)
        above = fma(f.w02, right, fma(f.w01, middle, f.w00 * left))
        for p in range(g.target_h):
            h = 2 * p - g.before_h + 1
            if g.fetches:
                _fetch(source, following, 8)
                following += 4 * step
            left, middle, right = _strided_columns(g, source, source_at, h, low, zero)
            here = fma(f.w12, right, fma(f.w11, middle, f.w10 * left))
            left, middle, right = _strided_columns(g, source, source_at, h + 1, low, zero)
            done = above + fma(f.w22, right, fma(f.w21, middle, fma(f.w20, left, here)))
            above = fma(f.w02, right, fma(f.w01, middle, f.w00 * left))
            store_first(target, target_at + p * g.target_w + q, held, done)


@subroutine
def _strided_columns(g, source, source_at, h, low, zero):
    """`_columns` of a line, perhaps outside, for positions two elements apart."""
    always_inlined()
    left, middle, right = zero, zero, zero
    if 0 <= h < g.source_h:
        double = by_turns(zero, zero)
        lanes, at = lanes_of_value(double), source_at + h * g.source_w - low
        pair = load_inside(source, at, _within(low, lanes), _within(low + g.source_w, lanes), double)
        next = load_inside(source, at + 2, _within(low - 2, lanes), _within(low - 2 + g.source_w, lanes), double)
        left, middle, right = half_of(pair, 0), half_of(pair, 1), half_of(next, 0)
    return left, middle, right


# ---- grad_input with a stride of 2


@kernel
def _grad_input_strided(task, x, w, y, residual, constants, workspace, geometry):
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    g = Planes(*first_integers(geometry, HEADER))
    finish = Finish(constants, residual, g.has_residual, g.activation, None)
    for plane in range(task * g.block, min((task + 1) * g.block, g.images * g.groups)):
        channel, x_at = plane % g.groups, plane * g.target_h * g.target_w
        is_changed = changes(finish, channel, 1)
        _spread(g, y, plane * g.source_h * g.source_w, w, 9 * channel, x, x_at, not is_changed)
        if is_changed:
            finish_runs(x, x_at, 0, 1, g.target_h * g.target_w, channel, 0, finish)


@subroutine
def _spread(g, y, y_at, w, w_at, x, x_at, may_pass):
    """The lines of x at the padded places (2 m, 2 j) and behind it, from y at (m, j) and before it.

    Where the first element of x is at an odd place, so is that of each vector, which begins a register so, and large
    results can be stored past the caches: 8x64x112x112 took 0.90 ms with vectors that began with even places and took
    two registers, and takes 0.78, 64x112x112 0.11 and 0.08, on an Intel Xeon.
    """
    never_inlined()
    zero = zeros(x, 1)
    f = _weights_of(w, w_at, 1, zero)
    step = lanes_of_value(zero)
    following = y_at + g.source_h * g.source_w
    past_caches = may_pass and goes_past_caches(x, x_at, g.target_w)
    is_odd = g.before_w % 2 != 0
    for column in range(0, g.target_w, 2 * step):
        j = (g.before_w + column + 1) // 2  # of the first even place
        left = min(2 * step, g.target_w - column)
        first = g.before_h // 2
        here, before = _pair(g, y, y_at, first - 1, j, zero)
        for m in range(first, (g.before_h + g.target_h + 1) // 2):
            if g.fetches:
                _fetch(y, following, 1)
                following += step
            above_here, above_before = here, before
            here, before = _pair(g, y, y_at, m, j, zero)
            h = 2 * m - g.before_h
            at = x_at + h * g.target_w + column
            if h >= 0:
                even = fma(f.w20, above_here, f.w00 * here) + fma(f.w22, above_before, f.w02 * before)
                if is_odd:
                    both = by_turns(fma(f.w21, above_before, f.w01 * before), even)
                else:
                    both = by_turns(even, fma(f.w21, above_here, f.w01 * here))
                store_left(x, at, left, both, past_caches)
            if h + 1 < g.target_h:
                even = fma(f.w12, before, f.w10 * here)
                both = by_turns(f.w11 * before, even) if is_odd else by_turns(even, f.w11 * here)
                store_left(x, at + g.target_w, left, both, past_caches)
    if past_caches:
        caches_passed()


@subroutine
def _pair(g, y, y_at, m, j, zero):
    """The vectors of y at (m, j) and at (m, j - 1)."""
    always_inlined()
    here, before = zero, zero
    if 0 <= m < g.source_h:
        lanes, at = lanes_of_value(zero), y_at + m * g.source_w + j
        here = load_inside(y, at, 0, _within(g.source_w - j, lanes), zero)
        before = load_inside(y, at - 1, _within(1 - j, lanes), _within(g.source_w + 1 - j, lanes), zero)
    return here, before


# ---- grad_weight


@kernel
def _grad_weight(task, x, w, y, residual, constants, workspace, geometry):
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    g = Planes(*first_integers(geometry, HEADER))
    for image in range(g.images):
        for channel in range(task * g.block, min((task + 1) * g.block, g.groups)):
            following = _plane_after(g, task, image, channel)
            _correlate(g, x, w, 9 * channel, y, image * g.groups + channel, following, image == 0)


@subroutine
def _plane_after(g, task, image, channel):
    """The plane that a task goes on with, or the task after it."""
    begin, end = task * g.block, min((task + 1) * g.block, g.groups)
    if channel + 1 < end:
        return image * g.groups + channel + 1
    return (image + 1) * g.groups + begin if image + 1 < g.images else end


@subroutine
def _correlate(g, x, w, w_at, y, plane, following, is_first):
    """A filter with a stride of 1: line h of x meets three of y, which stay in registers."""
    never_inlined()
    zero = zeros(x, 1)
    a00, a01, a02, a10, a11, a12, a20, a21, a22 = zero, zero, zero, zero, zero, zero, zero, zero, zero
    step = lanes_of_value(zero)
    x_size, y_size = g.source_h * g.source_w, g.target_h * g.target_w
    x_at, y_at, next_x, next_y = plane * x_size, plane * y_size, following * x_size, following * y_size
    for q in range(0, g.target_w, step):
        low = g.before_w - q
        held = min(step, g.target_w - q)
        above, here = zero, zero
        for h in range(-g.before_h, g.target_h + 2 - g.before_h):
            p = h + g.before_h
            below, left, middle, right = zero, zero, zero, zero
            if p < g.target_h:
                below = load_inside(y, y_at + p * g.target_w + q, 0, held, zero)
            if g.fetches:
                _fetch(x, next_x, 1)
                _fetch(y, next_y, 1)
                next_x, next_y = next_x + step, next_y + step
            if 0 <= h < g.source_h:
                left, middle, right = _columns(g, x, x_at + h * g.source_w - low, low, zero)
            a00, a01, a02 = fma(left, below, a00), fma(middle, below, a01), fma(right, below, a02)
            a10, a11, a12 = fma(left, here, a10), fma(middle, here, a11), fma(right, here, a12)
            a20, a21, a22 = fma(left, above, a20), fma(middle, above, a21), fma(right, above, a22)
            above, here = here, below
    _store_totals(w, w_at, (a00, a01, a02, a10, a11, a12, a20, a21, a22), is_first)


@kernel
def _grad_weight_strided(task, x, w, y, residual, constants, workspace, geometry):
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    g = Planes(*first_integers(geometry, HEADER))
    for image in range(g.images):
        for channel in range(task * g.block, min((task + 1) * g.block, g.groups)):
            following = _plane_after(g, task, image, channel)
            _correlate_strided(g, x, w, 9 * channel, y, image * g.groups + channel, following, image == 0)


@subroutine
def _correlate_strided(g, x, w, w_at, y, plane, following, is_first):
    """A filter with a stride of 2."""
    never_inlined()
    zero = zeros(x, 1)
    a00, a01, a02, a10, a11, a12, a20, a21, a22 = zero, zero, zero, zero, zero, zero, zero, zero, zero
    step = lanes_of_value(zero)
    x_size, y_size = g.source_h * g.source_w, g.target_h * g.target_w
    x_at, y_at, next_x, next_y = plane * x_size, plane * y_size, following * x_size, following * y_size
    for q in range(0, g.target_w, step):
        low, held = g.before_w - 2 * q, min(step, g.target_w - q)
        left, middle, right = _strided_columns(g, x, x_at, -g.before_h, low, zero)
        for p in range(g.target_h):
            h = 2 * p - g.before_h
            if g.fetches:
                _fetch(x, next_x, 4)
                _fetch(y, next_y, 1)
                next_x, next_y = next_x + 4 * step, next_y + step
            here = load_inside(y, y_at + p * g.target_w + q, 0, held, zero)
            a00, a01, a02 = fma(left, here, a00), fma(middle, here, a01), fma(right, here, a02)
            left, middle, right = _strided_columns(g, x, x_at, h + 1, low, zero)
            a10, a11, a12 = fma(left, here, a10), fma(middle, here, a11), fma(right, here, a12)
            left, middle, right = _strided_columns(g, x, x_at, h + 2, low, zero)
            a20, a21, a22 = fma(left, here, a20), fma(middle, here, a21), fma(right, here, a22)
    _store_totals(w, w_at, (a00, a01, a02, a10, a11, a12, a20, a21, a22), is_first)


@subroutine
def _store_totals(w, w_at, sums, is_first):
    totals = totals_of(sums)
    for tap in range(9):
        w[w_at + tap] = totals[tap] if is_first else w[w_at + tap] + totals[tap]


KERNELS = {
    (Op.FORWARD, 1): _forward,
    (Op.FORWARD, 2): _forward_strided,
    (Op.GRAD_INPUT, 1): _grad_input,
    (Op.GRAD_INPUT, 2): _grad_input_strided,
    (Op.GRAD_WEIGHT, 1): _grad_weight,
    (Op.GRAD_WEIGHT, 2): _grad_weight_strided,
}


# ---- plans

# Cycles for each vector of a line of y, by stride, for each column of vectors and for each task, on the machine of
# docs/performance.md: 32x112x112 took 13 a vector, 2x64x112x112 with a stride of two 24; 512x14x14 took 310 a plane;
# 256 tasks of it took 5 us longer than 4.
VECTOR_CYCLES = {1: 13, 2: 24}
COLUMN_CYCLES = 130
TASK_CYCLES = 75
# Longer lines lie so far apart that few of them stay in the first-level cache together: 8x384x384 took 0.26 ms, and
# 0.40 in `fastconv.cpu._lines`; 8x512x512 took 0.94 ms, and 0.75 there.
LINE_BYTES_MOST = 1536
# Bytes of the tensors from which planes are fetched beforehand: 64x112x112, 6.4 MB, took 7 to 15 % less so, in the mean
# of both orders in which two versions take turns; 32x112x112, 3.2 MB, as long.
FAR_BYTES = 4 << 20
# Fewer channels would leave threads idle.
GROUPS_LEAST = 8


@dataclass(frozen=True)
class Sizes:
    """Planes of a task; in GRAD_WEIGHT channels, each of all images."""

    block: int
    tasks: int
    cycles: float  # of all tasks, one after the other
    additions: int  # that follow one another in a sum of GRAD_WEIGHT: over the vectors of all images, then over lanes

    def time(self, threads: int) -> float:
        """As `fastconv.cpu._tiles.Tiling.time`."""
        return self.cycles / self.tasks * (-(-self.tasks // threads) + WAITING)


def serves(problem: ConvProblem, op: Op) -> bool:
    """Whether this computes a problem: zeros around planes that are not long, and planes enough for all threads."""
    return (
        problem.filter == (1, 3, 3)
        and problem.groups == problem.C == problem.K
        and problem.groups >= GROUPS_LEAST
        and problem.layout == "channels_first"
        and problem.input[0] == problem.output[0] == 1
        and problem.stride[1:] in ((1, 1), (2, 2))
        and problem.dilation[1:] == (1, 1)
        and not folding(problem)
        and (op is Op.GRAD_INPUT or problem.pad_value == 0)
        and problem.real_products == 1
        and problem.input[2] * np.dtype(problem.dtype).itemsize <= LINE_BYTES_MOST
    )


@lru_cache(maxsize=1024)
def sizes_of(problem: ConvProblem, op: Op) -> Sizes:
    """The block that takes the least time."""
    _, height, width = problem.output
    lanes = lanes_of(problem.dtype)
    columns = -(-width // lanes)
    additions = problem.N * height * columns + lanes
    plane = columns * (height * VECTOR_CYCLES[problem.stride[2]] + COLUMN_CYCLES)
    planes = problem.groups if op is Op.GRAD_WEIGHT else problem.N * problem.groups
    images = problem.N if op is Op.GRAD_WEIGHT else 1  # that a task goes through
    choices = []
    for block in itertools.islice(parts_of(planes, planes), 24):
        tasks = -(-planes // block)
        choices.append(Sizes(block, tasks, tasks * (TASK_CYCLES + block * images * plane), additions))
    return min(choices, key=lambda each: each.time(local_machine().threads))


def workspace(problem: ConvProblem, op: Op) -> int:
    """Scratch memory of one thread, in bytes: planes are read and written in place."""
    return 0


def plan(whole: ConvProblem, problem: ConvProblem, op: Op, epilogue: Epilogue) -> Plan:
    """The plan of a problem, as it was and with its axes made one."""
    sizes, stride = sizes_of(problem, op), problem.stride[2]
    source, target = problem.input[1:], problem.output[1:]
    before = tuple(low for low, _ in problem.padding[1:])
    if op is Op.GRAD_INPUT:
        source, target = target, source
        before = tuple(2 - low for low in before) if stride == 1 else before
    vector = Tables(Planes).vector(
        images=problem.N,
        groups=problem.groups,
        block=sizes.block,
        source_h=source[0],
        source_w=source[1],
        target_h=target[0],
        target_w=target[1],
        before_h=before[0],
        before_w=before[1],
        turned=op is Op.GRAD_INPUT,
        fetches=problem.bytes >= FAR_BYTES,
        activation=activation_code(epilogue, problem.dtype),
        has_residual=epilogue.residual,
    )
    geometry = with_sizes(vector, problem, op, math.prod(problem.w_shape), 0)
    return Plan(
        algorithm="direct",
        problem=whole,
        op=op,
        workspace_bytes=0,
        run=Launch(KERNELS[op, stride], sizes.tasks, problem.dtype, geometry, 0),
        tiles={"pixels": math.prod(problem.output), "rows": sizes.block, "tasks": sizes.tasks},
    )
