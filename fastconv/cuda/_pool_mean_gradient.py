"""The gradient of the mean: each element of x adds up what the windows that hold it have, in the order of windows."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.pool_problem import PoolAxis, PoolProblem
from ._device import block_x, cuda, get, int32, int64, pointer, quotient, real_of, record, shifted, thread
from ._kernel import Body, Launch, kernels
from ._places import THREADS, lists_of, place_in, table_of
from ._pool_windows import LOADS, STORES, Planes, image_sizes, wide_of
from ._queue import Table


def holders_of(axes: tuple[PoolAxis, ...], distances: tuple[int, ...]) -> Table:
    """For each element the windows that hold it: their numbers along each axis, times a distance."""
    elements, numbers = [], []
    for axis, distance in zip(axes, distances, strict=True):
        longest = int(axis.count.max(initial=0))
        held = axis.first[:, np.newaxis] + axis.dilation * np.arange(longest)
        held[np.arange(longest) >= axis.count[:, np.newaxis]] = -1
        elements.append(held.reshape(-1))
        numbers.append(np.repeat(distance * np.arange(axis.output), longest))
    return table_of(tuple(axis.input for axis in axes), elements, numbers)


@kernels
def spread_means(dtype: str, wide: int) -> Body:
    """A thread adds up one element of x."""
    real = real_of(dtype)
    load, store = LOADS[wide], STORES[wide]

    def body(
        y,  # read
        x,  # written
        holders,  # of `holders_of`: numbers of windows
        divisors,  # int32: of the windows along d, h and w
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
            gradients = shifted(y, int64(image) * y_image)
            d, h, w = lists_of(n, d, h, w)
            for each_d in range(get(holders, d), get(holders, int32(d + 1))):
                z = get(holders, int32(each_d))
                for each_h in range(get(holders, h), get(holders, int32(h + 1))):
                    p = get(holders, int32(each_h))
                    divisor = int32(get(divisors, z) * get(divisors, int32(n.windows_d + p)))
                    row = int32(((outer * n.windows_d + z) * n.windows_h + p) * n.windows_w)
                    for each_w in range(get(holders, w), get(holders, int32(w + 1))):
                        q = get(holders, int32(each_w))
                        load(values, gradients, int32((row + q) * n.inner + i))
                        whole = real(int32(divisor * get(divisors, int32(n.windows_d + n.windows_h + q))))
                        for k in range(wide):
                            sums[k] += values[k] / whole
            store(sums, shifted(x, int64(image) * x_image), at)

    pointers = (*[pointer(dtype)] * 2, *[pointer("int32")] * 2)
    return Body(body, (*pointers, record(Planes), int64, int64), THREADS)


def mean_gradient(problem: PoolProblem) -> Any:
    """What computes MEAN_GRADIENT: ``run(queue, y, indices, x)``."""
    wide, holders = wide_of(problem), holders_of(problem.axes, (1, 1, 1))
    divisors = Table(np.concatenate([axis.divisors for axis in problem.axes]).astype(np.int32))
    n = Planes.of(problem, wide, True)
    launch = Launch(spread_means(problem.dtype, wide), (problem.N * n.blocks,), n, *image_sizes(problem))
    return lambda queue, y, indices, x: launch(queue, y, x, holders.on(queue), divisors.on(queue))
