"""The kernels that go by indices into the planes of a tensor: adding and putting values there, and taking them.

A tensor is seen as (outer, elements, channels): channels_first is (N * C, D * H * W, 1), channels_last (N, D * H * W,
C). A task has a block of the channels of one outer index to itself. Elements of one plane are met in their order, so
that sums are always formed alike, and the last of several values that are put at one place stays. The index -1 stands
for none; any other that lies outside is passed over too, and reported.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import uint64

from ..core.jit import kernel, subroutine
from ..core.pool_problem import PoolProblem
from ._geometry import Integers, Tables
from ._kernel import SIZES, first_integers, integers, views
from ._rows import fill_first
from ._simd import splat

# Tasks from which on channels stay together in channels_last, and least channels of a task: a cache line of float32.
ENOUGH_TASKS = 4
LEAST_BLOCK = 16
# Elements of the planes of a task, about: 128 KiB of float32.
TASK_ELEMENTS = 1 << 15


class Header(NamedTuple):
    """The numbers at the head of the geometry vector."""

    x_size: int
    w_size: int
    y_size: int
    residual_size: int
    constants_size: int
    workspace_size: int
    geometry_size: int
    plane: int  # elements that indices count
    places: int  # indices of one channel
    channels: int
    block: int
    outer_per_task: int
    outer: int
    accumulates: int


HEADER = len(Header._fields)


@kernel
def put(task, x, w, y, residual, constants, workspace, geometry):
    """Put y[indices] = x, or += x, and zero elsewhere. w: the indices; residual[task]: whether one was outside."""
    tensors = views(x, w, y, residual, constants, workspace, geometry)
    indices = integers(w, tensors[0].size)
    x, _, y, residual, constants, workspace, geometry = tensors
    g = Header(*first_integers(geometry, HEADER))
    group, part = divmod(task, -(-g.channels // g.block))
    begin = part * g.block
    wrong = False
    for outer in range(group * g.outer_per_task, min((group + 1) * g.outer_per_task, g.outer)):
        count = min(g.block, g.channels - begin)
        y_at, x_at = outer * g.plane * g.channels + begin, outer * g.places * g.channels + begin
        _clear(y, y_at, count, g, constants)
        if g.channels == 1:
            wrong |= _put_elements(x, indices, y, x_at, y_at, g)
        else:
            for place in range(g.places):
                wrong |= _put_channels(x, indices, y, x_at + place * g.channels, y_at, count, g)
    residual[task] = wrong


@subroutine
def _clear(y, y_at, count, g, constants):
    nothing = splat(constants, 0, 1)
    if count == g.channels:
        fill_first(y, y_at, g.plane * g.channels, nothing)
    else:
        for i in range(g.plane):
            fill_first(y, y_at + i * g.channels, count, nothing)


@subroutine
def _put_elements(x, indices, y, x_at, y_at, g):
    """One plane, and whether an index was outside of it."""
    wrong = False
    if g.accumulates:
        for i in range(uint64(x_at), uint64(x_at + g.places)):
            index = indices[i]
            if uint64(index) < uint64(g.plane):
                y[uint64(y_at) + uint64(index)] += x[i]
            else:
                wrong |= index != -1
    else:
        for i in range(uint64(x_at), uint64(x_at + g.places)):
            index = indices[i]
            if uint64(index) < uint64(g.plane):
                y[uint64(y_at) + uint64(index)] = x[i]
            else:
                wrong |= index != -1
    return wrong


@subroutine
def _put_channels(x, indices, y, x_at, y_at, count, g):
    """Neighbouring channels of one place, and whether an index was outside of its plane."""
    plane, channels, begin = uint64(g.plane), uint64(g.channels), uint64(x_at)
    wrong = False
    for c in range(uint64(count)):
        index = indices[begin + c]
        if uint64(index) < plane:
            at = uint64(y_at) + c + uint64(index) * channels
            y[at] = y[at] + x[begin + c] if g.accumulates else x[begin + c]
        else:
            wrong |= index != -1
    return wrong


@kernel
def take(task, x, w, y, residual, constants, workspace, geometry):
    """Take y = x[indices], and zero where there is none. w: the indices; residual[task]: whether one was outside."""
    tensors = views(x, w, y, residual, constants, workspace, geometry)
    indices = integers(w, tensors[2].size)
    x, _, y, residual, constants, workspace, geometry = tensors
    g = Header(*first_integers(geometry, HEADER))
    group, part = divmod(task, -(-g.channels // g.block))
    begin = part * g.block
    wrong = False
    for outer in range(group * g.outer_per_task, min((group + 1) * g.outer_per_task, g.outer)):
        count = min(g.block, g.channels - begin)
        x_at, y_at = outer * g.plane * g.channels + begin, outer * g.places * g.channels + begin
        for place in range(g.places):
            for c in range(count):
                at = uint64(y_at + place * g.channels + c)
                index = indices[at]
                inside = uint64(index) < uint64(g.plane)
                y[at] = x[uint64(x_at + c + index * g.channels)] if inside else constants[0]
                wrong |= index != -1 and not inside
    residual[task] = wrong


def geometry_of(problem: PoolProblem, accumulates: bool, takes: bool) -> tuple[Integers, int]:
    """The geometry vector and the tasks."""
    first = problem.layout == "channels_first"
    outer, channels = (problem.N * problem.C, 1) if first else (problem.N, problem.C)
    places = math.prod(axis.output for axis in problem.axes)
    block = channels if outer >= ENOUGH_TASKS else max(LEAST_BLOCK, -(-channels // ENOUGH_TASKS))
    blocks = -(-channels // block)
    per_task = max(1, round(TASK_ELEMENTS / max(1, problem.plane * channels))) if blocks == 1 else 1
    tasks = -(-outer // per_task) * blocks
    tables = Tables(Header)
    vector = tables.vector(
        plane=problem.plane,
        places=places,
        channels=channels,
        block=block,
        outer_per_task=per_task,
        outer=outer,
        accumulates=int(accumulates),
    )
    sizes = outer * channels * places, outer * channels * problem.plane
    x_size, y_size = sizes[::-1] if takes else sizes
    ratio = 8 // np.dtype(problem.dtype).itemsize
    vector[:SIZES] = (x_size, sizes[0] * ratio, y_size, tasks, 1, 0, vector.size)
    vector.flags.writeable = False
    return vector, tasks
