"""The kernels that look at the elements of windows: the greatest, with or without its index, and the mean.

A thread has a window of one channel, or, in channels_last, of four that follow one another; in channels_first, a warp
has a large window. Of equal elements the first in the plane is the greatest, and of NaNs the last, as in PyTorch.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..core.pool_problem import PoolOp, PoolProblem
from ._device import (
    WARP,
    block_x,
    cuda,
    from_other_lane,
    function,
    get,
    get4,
    int32,
    int64,
    pointer,
    put,
    put4,
    quotient,
    real_of,
    record,
    remainder,
    shifted,
    sum_of_warp,
    thread,
)
from ._kernel import Body, Launch, kernels
from ._places import THREADS, place_in
from ._queue import Table

VECTOR = 4


class Planes(NamedTuple):
    """Extents of x and y in one image: ``outer`` channels in front of the axes, ``inner`` pieces of them behind."""

    outer: int
    inner: int
    depth: int  # of x
    height: int
    width: int
    windows_d: int  # of y
    windows_h: int
    windows_w: int
    dilation_d: int
    dilation_h: int
    dilation_w: int
    blocks: int  # of the grid for one image

    @classmethod
    def of(cls, problem: PoolProblem, wide: int, gives_x: bool, lanes: int = 1) -> Planes:
        """For a kernel with so many threads for every so many channels of each element of y, or of x."""
        outer, inner = (problem.C, 1) if problem.layout == "channels_first" else (1, problem.C // wide)
        d, h, w = problem.axes
        inputs, outputs = (d.input, h.input, w.input), (d.output, h.output, w.output)
        blocks = -(-outer * inner * math.prod(inputs if gives_x else outputs) * lanes // THREADS)
        return cls(outer, inner, *inputs, *outputs, d.dilation, h.dilation, w.dilation, blocks)


def wide_of(problem: PoolProblem) -> int:
    """Channels of a thread."""
    return VECTOR if problem.layout == "channels_last" and problem.C % VECTOR == 0 else 1


def image_sizes(problem: PoolProblem) -> tuple[np.int64, np.int64]:
    """Elements of an image of x and of y."""
    windows = math.prod(axis.output for axis in problem.axes)
    return np.int64(problem.C * problem.plane), np.int64(problem.C * windows)


def window_table(problem: PoolProblem) -> Table:
    """First elements of the windows along d, h and w, then their counts, then the divisors."""
    parts = [getattr(axis, name) for name in ("first", "count", "divisors") for axis in problem.axes]
    return Table(np.concatenate(parts).astype(np.int32))


@function
def divisor_of(table, n, z, p, q):
    """What the sum of a window is divided by."""
    divisors = int32(2 * (n.windows_d + n.windows_h + n.windows_w))
    at_h, at_w = int32(divisors + n.windows_d + p), int32(divisors + n.windows_d + n.windows_h + q)
    return int32(get(table, int32(divisors + z)) * get(table, at_h) * get(table, at_w))


@function
def load_one(values, elements, at):
    """Into an array of one."""
    values[0] = get(elements, at)


@function
def load_four(values, elements, at):
    """Into an array of four, from four times the index."""
    values[0], values[1], values[2], values[3] = get4(elements, int32(at * VECTOR))


@function
def store_one(values, elements, at):
    """From an array of one."""
    put(elements, at, values[0])


@function
def store_four(values, elements, at):
    """From an array of four, to four times the index."""
    put4(elements, int32(at * VECTOR), values[0], values[1], values[2], values[3])


LOADS, STORES = {1: load_one, VECTOR: load_four}, {1: store_one, VECTOR: store_four}


def _over_window(wide: int, lanes: int, meet: Any) -> Any:
    """The function that calls ``meet(best, places, values, place)`` with the elements of a window, in order.

    Each of so many lanes begins with an element of its own, and goes on with that as many further.
    """
    load = LOADS[wide]

    @function
    def over(best, places, values, x, table, n, outer, z, p, q, i):
        windows = int32(n.windows_d + n.windows_h + n.windows_w)
        p, q = int32(n.windows_d + p), int32(n.windows_d + n.windows_h + q)
        first_d, first_h, first_w = get(table, z), get(table, p), get(table, q)
        count_d, count_h = get(table, int32(windows + z)), get(table, int32(windows + p))
        count_w = get(table, int32(windows + q))
        if count_d > 0 and count_h > 0 and count_w > 0:
            number = remainder(thread(), int32(lanes))
            s, r = remainder(number, count_w), quotient(number, count_w)
            t, r = quotient(r, count_h), remainder(r, count_h)
            skip_w, skip_h = remainder(int32(lanes), count_w), quotient(int32(lanes), count_w)
            while t < count_d:
                row = int32((first_d + t * n.dilation_d) * n.height + first_h + r * n.dilation_h)
                place = int32(row * n.width + first_w + s * n.dilation_w)
                load(values, x, int32((outer * n.depth * n.height * n.width + place) * n.inner + i))
                meet(best, places, values, place)
                s, r = int32(s + skip_w), int32(r + skip_h)
                if s >= count_w:
                    s, r = int32(s - count_w), int32(r + 1)
                while r >= count_h:
                    r, t = int32(r - count_h), int32(t + 1)

    return over


@kernels
def average(dtype: str, wide: int, lanes: int) -> Body:
    """Sums, divided; lanes: 1, or the threads of a warp, which share a window."""
    real = real_of(dtype)
    store = STORES[wide]

    @function
    def meet(sums, places, values, place):
        for k in range(wide):
            sums[k] += values[k]

    over = _over_window(wide, lanes, meet)

    def body(
        x,  # read
        y,  # written
        table,  # of `window_table`
        n,  # Planes
        x_image,  # int64: elements from one image of x to the next
        y_image,  # int64: likewise of y
    ):
        sums, values = cuda.local.array(wide, real), cuda.local.array(wide, real)
        image = quotient(block_x(), n.blocks)
        at = quotient(int32((block_x() - image * n.blocks) * THREADS + thread()), int32(lanes))
        outer, z, p, q, i = place_in(at, n.inner, n.windows_d, n.windows_h, n.windows_w)
        if outer < n.outer:
            for k in range(wide):
                sums[k] = real(0)
            over(sums, sums, values, shifted(x, int64(image) * x_image), table, n, outer, z, p, q, i)
            divisor = real(divisor_of(table, n, z, p, q))
            for k in range(wide):
                values[k] = (sums[k] if lanes == 1 else sum_of_warp(sums[k])) / divisor
            if remainder(thread(), int32(lanes)) == 0:
                store(values, shifted(y, int64(image) * y_image), at)

    return Body(body, (pointer(dtype), pointer(dtype), pointer("int32"), record(Planes), int64, int64), THREADS)


@function
def greatest_of_warp(value, place):
    """The greatest of the lanes' values, and its place; a place of -1 is none."""
    for distance in (16, 8, 4, 2, 1):
        other, at = from_other_lane(value, distance), from_other_lane(place, distance)
        if at >= 0:
            if other != other or value != value:
                is_later = place < 0 or value == value or at > place
                is_taken = other != other and is_later
            else:
                is_taken = place < 0 or other > value or (other == value and at < place)
            if is_taken:
                value, place = other, at
    return value, place


@kernels
def greatest(dtype: str, wide: int, lanes: int, has_indices: bool) -> Body:
    """The greatest, and where it is in its plane, -1 in windows that hold nothing; lanes: as in `average`."""
    real = real_of(dtype)
    store = STORES[wide]

    @function
    def meet(best, places, values, place):
        for k in range(wide):
            if places[k] < 0 or values[k] > best[k] or values[k] != values[k]:
                best[k], places[k] = values[k], place

    over = _over_window(wide, lanes, meet)

    def body(
        x,  # read
        indices,  # int64, like y, written if has_indices
        y,  # written
        table,  # of `window_table`
        n,  # Planes
        x_image,  # int64: elements from one image of x to the next
        y_image,  # int64: likewise of y
    ):
        best, values = cuda.local.array(wide, real), cuda.local.array(wide, real)
        places = cuda.local.array(wide, int32)
        image = quotient(block_x(), n.blocks)
        at = quotient(int32((block_x() - image * n.blocks) * THREADS + thread()), int32(lanes))
        outer, z, p, q, i = place_in(at, n.inner, n.windows_d, n.windows_h, n.windows_w)
        if outer < n.outer:
            for k in range(wide):
                best[k], places[k] = real(-math.inf), int32(-1)
            over(best, places, values, shifted(x, int64(image) * x_image), table, n, outer, z, p, q, i)
            if lanes > 1:
                best[0], places[0] = greatest_of_warp(best[0], places[0])
            if remainder(thread(), int32(lanes)) == 0:
                store(best, shifted(y, int64(image) * y_image), at)
                if has_indices:
                    for k in range(wide):
                        put(shifted(indices, int64(image) * y_image), int32(at * wide + k), places[k])

    pointers = pointer(dtype), pointer("int64"), pointer(dtype), pointer("int32")
    return Body(body, (*pointers, record(Planes), int64, int64), THREADS)


def pool_windows(problem: PoolProblem, op: PoolOp) -> Any:
    """What computes MEAN, MAX or MAX_WITH_INDICES: ``run(queue, x, indices, y)``."""
    wide, table = wide_of(problem), window_table(problem)
    lanes = WARP if problem.layout == "channels_first" and problem.taps >= WARP else 1
    n, sizes = Planes.of(problem, wide, False, lanes), image_sizes(problem)
    if op is PoolOp.MEAN:
        launch = Launch(average(problem.dtype, wide, lanes), (problem.N * n.blocks,), n, *sizes)
        return lambda queue, x, indices, y: launch(queue, x, y, table.on(queue))
    has_indices = op is PoolOp.MAX_WITH_INDICES
    launch = Launch(greatest(problem.dtype, wide, lanes, has_indices), (problem.N * n.blocks,), n, *sizes)
    return lambda queue, x, indices, y: launch(queue, x, indices if has_indices else y, y, table.on(queue))
