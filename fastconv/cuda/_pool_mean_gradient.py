"""The gradient of the mean: each element of x adds up what the windows that hold it have, in the order of windows."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.pool_problem import PoolAxis, PoolProblem
from ._device import block_x, cuda, get, int32, int64, pointer, quotient, real_of, record, shifted, thread
from ._kernel import Body, Launch, kernels
from ._pool_windows import LOADS, STORES, THREADS, Planes, image_sizes, place_in, wide_of
from ._queue import Table


def _holders_of(axis: PoolAxis) -> tuple[Any, Any]:
    """Where each element's windows begin in a list of windows, with its end, and the list."""
    longest = int(axis.count.max(initial=0))
    elements = axis.first[:, np.newaxis] + axis.dilation * np.arange(longest)
    elements[np.arange(longest) >= axis.count[:, np.newaxis]] = axis.input
    flat = elements.reshape(-1)
    order = np.argsort(flat, kind="stable")
    begins = np.searchsorted(flat[order], np.arange(axis.input + 1))
    return begins, (order // max(longest, 1))[: begins[-1]]


def _table(problem: PoolProblem) -> Table:
    """Divisors of the windows along d, h and w, then where the lists of windows begin, then the lists."""
    divisors = [axis.divisors for axis in problem.axes]
    begins, lists = zip(*map(_holders_of, problem.axes), strict=True)
    at = sum(map(len, (*divisors, *begins)))
    placed = []
    for begin, windows in zip(begins, lists, strict=True):
        placed.append(begin + at)
        at += len(windows)
    return Table(np.concatenate([*divisors, *placed, *lists]).astype(np.int32))


@kernels
def spread_means(dtype: str, wide: int) -> Body:
    """A thread adds up one element of x."""
    real = real_of(dtype)
    load, store = LOADS[wide], STORES[wide]

    def body(
        y,  # read
        x,  # written
        table,  # of `_table`
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
            windows = int32(n.windows_d + n.windows_h + n.windows_w)
            d = int32(windows + d)
            h = int32(windows + n.depth + 1 + h)
            w = int32(windows + n.depth + n.height + 2 + w)
            for each_d in range(get(table, d), get(table, int32(d + 1))):
                z = get(table, int32(each_d))
                for each_h in range(get(table, h), get(table, int32(h + 1))):
                    p = get(table, int32(each_h))
                    divisor = int32(get(table, z) * get(table, int32(n.windows_d + p)))
                    row = int32(((outer * n.windows_d + z) * n.windows_h + p) * n.windows_w)
                    for each_w in range(get(table, w), get(table, int32(w + 1))):
                        q = get(table, int32(each_w))
                        load(values, gradients, int32((row + q) * n.inner + i))
                        whole = real(int32(divisor * get(table, int32(n.windows_d + n.windows_h + q))))
                        for k in range(wide):
                            sums[k] += values[k] / whole
            store(sums, shifted(x, int64(image) * x_image), at)

    return Body(body, (pointer(dtype), pointer(dtype), pointer("int32"), record(Planes), int64, int64), THREADS)


def mean_gradient(problem: PoolProblem) -> Any:
    """What computes MEAN_GRADIENT: ``run(queue, y, indices, x)``."""
    wide, table = wide_of(problem), _table(problem)
    n = Planes.of(problem, wide, True)
    launch = Launch(spread_means(problem.dtype, wide), (problem.N * n.blocks,), n, *image_sizes(problem))
    return lambda queue, y, indices, x: launch(queue, y, x, table.on(queue))
