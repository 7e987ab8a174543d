"""The kernels that go by indices into the planes of a tensor: adding and putting values there, and taking them.

Indices may name any element of their plane, any number of times. So that no two threads write one, and sums have one
order, each thread owns elements of x and passes over all indices of their plane, in order: adding is a gather here too.
The last of several values that are put at one place stays. The index -1 stands for none; any other that lies outside is
passed over too, and raises an alarm. Behind other kernels (`fastconv.cuda._pool_max_gradient`) nothing is done unless
these have raised it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ..core.pool_problem import PoolOp, PoolProblem
from ._device import (
    barrier,
    block_x,
    cuda,
    function,
    get,
    get4,
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
from ._pool_windows import VECTOR

THREADS = 128
OUTSIDE, ASTRAY = 1, -1  # what the alarm is raised to by an index outside of its plane, and outside of its window
# Elements of x that a thread owns, in shared memory: 8 KiB and 16 KiB of float32 for a block. In channels_last every
# thread reads all indices of its channel, so that more elements for each save more.
OWNED_IN_PLANES, OWNED_IN_PIXELS = 16, 32


class Places(NamedTuple):
    """What the kernels are told."""

    plane: int  # elements that indices count
    places: int  # indices of one channel
    channels: int
    parts: int  # of a plane, each owned by one block or thread
    blocks: int  # of the grid for one image


@function
def _checked(index, plane, alarm):
    """An index as 32 bits, -1 if it is outside: then the alarm is raised unless it was -1."""
    if index < -1 or index >= plane:
        put(alarm, 0, OUTSIDE)
        return int32(-1)
    return int32(index)


def _meets(accumulates: bool, distance: int) -> Any:
    """The function that gives a thread what belongs to it; its elements are so far apart in shared memory."""

    @function
    def meet(owned, place, values, at):
        if place >= 0 and place & (distance - 1) == thread():
            owned[place] = owned[place] + values[at] if accumulates else values[at]

    return meet


@kernels
def put_in_planes(dtype: str, accumulates: bool, is_behind: bool) -> Body:
    """channels_first: a block owns a part of one plane, its threads every `THREADS`-th element of it."""
    real, size = real_of(dtype), THREADS * OWNED_IN_PLANES
    meet = _meets(accumulates, THREADS)

    def body(
        y,  # read
        indices,  # int64, like y, read
        x,  # written
        alarm,  # int32 (1,), raised if an index is outside
        n,  # Places
    ):
        owned = cuda.shared.array(size, real)
        places = cuda.shared.array(THREADS, int32, 16)
        values = cuda.shared.array(THREADS, real)
        if is_behind and get(alarm, 0) == 0:
            return
        rest = quotient(block_x(), n.parts)
        first = int32((block_x() - rest * n.parts) * size)
        gradients, wanted = shifted(y, int64(rest) * int64(n.places)), shifted(indices, int64(rest) * int64(n.places))
        for k in range(thread(), size, THREADS):
            owned[k] = real(0)
        for begin in range(0, n.places, THREADS):
            at = int32(begin + thread())
            place = int32(-1)
            if at < n.places:
                place = int32(_checked(get(wanted, at), n.plane, alarm) - first)
            barrier()
            if place >= 0 and place < size:
                values[thread()] = get(gradients, at)
            else:
                place = int32(-1)
            places[thread()] = place
            barrier()
            for each in range(0, THREADS, VECTOR):
                a, b, c, d = get4(places, int32(each))
                meet(owned, a, values, each)
                meet(owned, b, values, each + 1)
                meet(owned, c, values, each + 2)
                meet(owned, d, values, each + 3)
        results = shifted(x, int64(rest) * int64(n.plane))
        for k in range(thread(), size, THREADS):
            if first + k < n.plane:
                put(results, int32(first + k), owned[k])

    return Body(body, (pointer(dtype), pointer("int64"), pointer(dtype), pointer("int32"), record(Places)), THREADS)


@kernels
def put_in_pixels(dtype: str, accumulates: bool, is_behind: bool) -> Body:
    """channels_last: a thread owns elements of one channel that follow one another, its neighbour those of the next."""
    real, size = real_of(dtype), THREADS * OWNED_IN_PIXELS

    def body(
        y,  # read
        indices,  # int64, like y, read
        x,  # written
        alarm,  # int32 (1,), raised if an index is outside
        n,  # Places
    ):
        owned = cuda.shared.array(size, real)
        if is_behind and get(alarm, 0) == 0:
            return
        image = quotient(block_x(), n.blocks)
        item = int32((block_x() - image * n.blocks) * THREADS + thread())
        channel, part = remainder(item, n.channels), quotient(item, n.channels)
        if part < n.parts:
            offset = int64(image) * int64(int32(n.places * n.channels))
            gradients, wanted = shifted(y, offset), shifted(indices, offset)
            first = int32(part * OWNED_IN_PIXELS)
            for k in range(OWNED_IN_PIXELS):
                owned[k * THREADS + thread()] = real(0)
            for place in range(n.places):
                at = int32(place * n.channels + channel)
                index = int32(_checked(get(wanted, at), n.plane, alarm) - first)
                if index >= 0 and index < OWNED_IN_PIXELS:
                    k = int32(index * THREADS + thread())
                    owned[k] = owned[k] + get(gradients, at) if accumulates else get(gradients, at)
            results = shifted(x, int64(image) * int64(int32(n.plane * n.channels)))
            for k in range(OWNED_IN_PIXELS):
                if first + k < n.plane:
                    put(results, int32((first + k) * n.channels + channel), owned[k * THREADS + thread()])

    return Body(body, (pointer(dtype), pointer("int64"), pointer(dtype), pointer("int32"), record(Places)), THREADS)


@kernels
def take(dtype: str) -> Body:
    """A thread takes one element of x; nothing is 0."""
    real = real_of(dtype)

    def body(
        x,  # read
        indices,  # int64, like y, read
        y,  # written
        alarm,  # int32 (1,), raised if an index is outside
        n,  # Places
        outer,  # int32: channels in front of the axes
    ):
        image = quotient(block_x(), n.blocks)
        at = int32((block_x() - image * n.blocks) * THREADS + thread())
        inner = quotient(n.channels, outer)
        if at < n.places * n.channels:
            offset = int64(image) * int64(int32(n.places * n.channels))
            index = _checked(get(shifted(indices, offset), at), n.plane, alarm)
            value = real(0)
            if index >= 0:
                plane = quotient(quotient(at, inner), n.places)
                elements = shifted(x, int64(image) * int64(int32(n.plane * n.channels)))
                value = get(elements, int32((plane * n.plane + index) * inner + remainder(at, inner)))
            put(shifted(y, offset), at, value)

    pointers = pointer(dtype), pointer("int64"), pointer(dtype), pointer("int32")
    return Body(body, (*pointers, record(Places), int32), THREADS)


def by_indices(problem: PoolProblem, op: PoolOp, is_behind: bool = False) -> Any:
    """What computes ADD_AT, PUT_AT or TAKE_AT: ``run(queue, given, indices, result, alarm)``.

    is_behind: whether nothing is done unless the alarm is raised.
    """
    is_first = problem.layout == "channels_first"
    places = math.prod(axis.output for axis in problem.axes)
    if op is PoolOp.TAKE_AT:
        blocks = -(-places * problem.C // THREADS)
        n = Places(problem.plane, places, problem.C, 1, blocks)
        return Launch(take(problem.dtype), (problem.N * blocks,), n, problem.C if is_first else 1)
    accumulates = op is PoolOp.ADD_AT
    if is_first:
        parts = -(-problem.plane // (THREADS * OWNED_IN_PLANES))
        n = Places(problem.plane, places, problem.C, parts, problem.C * parts)
        return Launch(put_in_planes(problem.dtype, accumulates, is_behind), (problem.N * n.blocks,), n)
    parts = -(-problem.plane // OWNED_IN_PIXELS)
    n = Places(problem.plane, places, problem.C, parts, -(-problem.C * parts // THREADS))
    return Launch(put_in_pixels(problem.dtype, accumulates, is_behind), (problem.N * n.blocks,), n)
