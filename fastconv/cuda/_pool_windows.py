"""The kernels that look at the elements of windows: the greatest, with or without its index, and the mean.

A thread has a window of one channel, or, in channels_last, of four that follow one another. Elements are met in their
order in the plane: of equal ones the first is the greatest, and of NaNs the last, as in PyTorch.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..core.pool_problem import PoolProblem
from ._device import (
    float32,
    float64,
    function,
    get,
    get4,
    int32,
    put,
    put4,
    quotient,
    remainder,
)
from ._queue import Table

THREADS = 256
VECTOR = 4
REALS = {"float32": float32, "float64": float64}


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
    blocks: int  # of the grid for one image

    @classmethod
    def of(cls, problem: PoolProblem, wide: int, gives_x: bool) -> Planes:
        """For a kernel with a thread for every so many channels of each element of y, or of x."""
        outer, inner = (problem.C, 1) if problem.layout == "channels_first" else (1, problem.C // wide)
        inputs, outputs = ([getattr(axis, name) for axis in problem.axes] for name in ("input", "output"))
        threads = outer * inner * math.prod(inputs if gives_x else outputs)
        return cls(outer, inner, *inputs, *outputs, -(-threads // THREADS))


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
def place_in(number, inner, depth, height, width):
    """Channels in front, places along d, h and w, and piece behind, of an element's number in an image."""
    i, rest = remainder(number, inner), quotient(number, inner)
    w, rest = remainder(rest, width), quotient(rest, width)
    h, rest = remainder(rest, height), quotient(rest, height)
    return quotient(rest, depth), remainder(rest, depth), h, w, i


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


def _over_window(wide: int, meet: Any) -> Any:
    """The function that calls ``meet(best, places, values, place)`` with the elements of a window, in order."""
    load = LOADS[wide]

    @function
    def over(best, places, values, x, table, n, outer, z, p, q, i):
        windows = int32(n.windows_d + n.windows_h + n.windows_w)
        p, q = int32(n.windows_d + p), int32(n.windows_d + n.windows_h + q)
        first_d, first_h, first_w = get(table, z), get(table, p), get(table, q)
        end_d = int32(first_d + get(table, int32(windows + z)))
        end_h = int32(first_h + get(table, int32(windows + p)))
        end_w = int32(first_w + get(table, int32(windows + q)))
        for d in range(first_d, end_d):
            for h in range(first_h, end_h):
                row = int32(((outer * n.depth + d) * n.height + h) * n.width)
                place = int32((d * n.height + h) * n.width)
                for w in range(first_w, end_w):
                    load(values, x, int32((row + w) * n.inner + i))
                    meet(best, places, values, int32(place + w))

    return over
