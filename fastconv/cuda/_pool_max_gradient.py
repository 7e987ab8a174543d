"""The gradient of the maximum: each element of x adds up what the windows that chose it have, in the order of windows.

::

    grad_x[i] = sum over the windows o that hold i and whose index[o] is i of grad_y[o]

Only the windows that hold an element are looked at. So an index that lies outside of its window is met by nobody: a
first kernel looks for such, and where there are some, the kernels that pass over all indices of a plane
(`fastconv.cuda._pool_indices`) compute the gradient once more.
"""

from __future__ import annotations

from typing import Any

from ..core.pool_problem import PoolOp, PoolProblem
from ._device import (
    block_x,
    cuda,
    function,
    get,
    int32,
    int64,
    pointer,
    put,
    quotient,
    real_of,
    record,
    remainder,
    shifted,
    thread,
)
from ._kernel import Body, Launch, kernels
from ._places import THREADS, lists_of, place_in
from ._pool_indices import ASTRAY, by_indices
from ._pool_mean_gradient import holders_of
from ._pool_windows import LOADS, STORES, Planes, image_sizes, wide_of, window_table


@function
def holds(table, window, windows, dilation, place):
    """Whether a window holds a place of its axis; table: of `window_table`, with so many windows along all axes."""
    distance = int32(place - get(table, window))
    is_near = distance >= 0 and distance < get(table, int32(windows + window)) * dilation
    return is_near and remainder(distance, dilation) == 0


@kernels
def find_strays() -> Body:
    """A thread looks at one index: unless it is -1 or lies in its window, the alarm is raised to `ASTRAY`."""

    def body(
        indices,  # int64, like y, read
        alarm,  # int32 (1,), written
        table,  # of `window_table`
        n,  # Planes
        y_image,  # int64: elements from one image of the indices to the next
    ):
        image = quotient(block_x(), n.blocks)
        at = int32((block_x() - image * n.blocks) * THREADS + thread())
        outer, z, p, q, _ = place_in(at, n.inner, n.windows_d, n.windows_h, n.windows_w)
        if outer < n.outer:
            index = get(shifted(indices, int64(image) * y_image), at)
            is_held = index >= 0 and index < int32(n.depth * n.height * n.width)
            if is_held:
                row, windows = quotient(int32(index), n.width), int32(n.windows_d + n.windows_h + n.windows_w)
                d, h, w = quotient(row, n.height), remainder(row, n.height), remainder(int32(index), n.width)
                is_held = (
                    holds(table, z, windows, n.dilation_d, d)
                    and holds(table, int32(n.windows_d + p), windows, n.dilation_h, h)
                    and holds(table, int32(n.windows_d + n.windows_h + q), windows, n.dilation_w, w)
                )
            if not is_held and index != -1:
                put(alarm, 0, ASTRAY)

    return Body(body, (pointer("int64"), *[pointer("int32")] * 2, record(Planes), int64), THREADS)


@kernels
def spread_maxima(dtype: str, wide: int) -> Body:
    """A thread adds up one element of x, or four channels of it."""
    real = real_of(dtype)
    load, store = LOADS[wide], STORES[wide]

    def body(
        y,  # read
        indices,  # int64, like y, read
        x,  # written
        holders,  # of `holders_of`: elements of y in front of the windows
        n,  # Planes
        x_image,  # int64: elements from one image of x to the next
        y_image,  # int64: likewise of y
    ):
        sums, values = cuda.local.array(wide, real), cuda.local.array(wide, real)
        image = quotient(block_x(), n.blocks)
        at = int32((block_x() - image * n.blocks) * THREADS + thread())
        outer, d, h, w, i = place_in(at, n.inner, n.depth, n.height, n.width)
        if outer < n.outer:
            for k in range(wide):
                sums[k] = real(0)
            gradients, wanted = shifted(y, int64(image) * y_image), shifted(indices, int64(image) * y_image)
            place = int32((d * n.height + h) * n.width + w)
            first = int32(outer * n.windows_d * n.windows_h * n.windows_w)
            d, h, w = lists_of(n, d, h, w)
            for each_d in range(get(holders, d), get(holders, int32(d + 1))):
                slice_ = int32(first + get(holders, int32(each_d)))
                for each_h in range(get(holders, h), get(holders, int32(h + 1))):
                    row = int32(slice_ + get(holders, int32(each_h)))
                    for each_w in range(get(holders, w), get(holders, int32(w + 1))):
                        window = int32((row + get(holders, int32(each_w))) * n.inner + i)
                        load(values, gradients, window)
                        for k in range(wide):
                            if get(wanted, int32(window * wide + k)) == place:
                                sums[k] += values[k]
            store(sums, shifted(x, int64(image) * x_image), at)

    pointers = pointer(dtype), pointer("int64"), pointer(dtype), pointer("int32")
    return Body(body, (*pointers, record(Planes), int64, int64), THREADS)


def max_gradient(problem: PoolProblem) -> Any:
    """What computes MAX_GRADIENT: ``run(queue, y, indices, x, alarm)``."""
    wide, windows = wide_of(problem), window_table(problem)
    _, rows, columns = (axis.output for axis in problem.axes)
    holders = holders_of(problem.axes, (rows * columns, columns, 1))
    n, of_window, sizes = Planes.of(problem, wide, True), Planes.of(problem, 1, False), image_sizes(problem)
    find = Launch(find_strays(), (problem.N * of_window.blocks,), of_window, sizes[1])
    spread = Launch(spread_maxima(problem.dtype, wide), (problem.N * n.blocks,), n, *sizes)
    add = by_indices(problem, PoolOp.ADD_AT, True)

    def run(queue, y, indices, x, alarm):
        find(queue, indices, alarm, windows.on(queue))
        spread(queue, y, indices, x, holders.on(queue))
        add(queue, y, indices, x, alarm)

    return run
