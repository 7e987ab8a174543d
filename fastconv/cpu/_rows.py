"""Copying rows between tensors and the workspace: padding in, border out, bias and activation on the way.

Arguments called ``..._at`` are positions in a flat array. Planes are those of `fastconv.cpu._axes.Axis.packed`. Only
the elements that are named are read or written.
"""

from __future__ import annotations

from typing import NamedTuple

from numba import types, uint64
from numba.extending import overload

from ..core.jit import SUBROUTINE, subroutine
from ._activation import activate_row
from ._kernel import always_inlined, inner, never_inlined, place
from ._simd import (
    every_second,
    interleaved,
    lanes,
    load,
    load_every,
    load_first,
    prefetch,
    splat,
    store,
    store_first,
    transpose,
    zeros,
)

# Cycles for each row that is gathered or stored, and for each vector of it: 0.7 ns for a row of one masked vector on
# the machine of docs/performance.md, and about as much again for finding its place.
ROW_CYCLES = 8
VECTOR_CYCLES = 2
# Cycles for each row of pixels that is stored in a tensor, in a call of thirty arguments, and for each of its vectors:
# fitted to 64x112x112 to 64, 3x3, and 16x570x570 to 16, in tiles of all sizes.
STORED_ROW_CYCLES = 100
STORED_CYCLES = 10
# Cycles for each vector that is transposed: 1.7 ns there.
TRANSPOSED_CYCLES = 6


class Finish(NamedTuple):
    """What happens to sums when they are stored: target = activation(sums + bias + residual), or target += sums.

    Where `accumulates` is None, nothing is compiled for the latter.
    """

    constants: types.Array  # the bias of each channel
    residual: types.Array  # in the target's shape
    has_residual: int
    activation: int
    accumulates: int | None


@subroutine
def fill(target, target_at, count, value):
    at = uint64(target_at)
    for i in range(uint64(count)):
        target[at + i] = value


@subroutine
def fill_first(target, target_at, count, value):
    """target[i] = the lanes of a value of one register, for i < count."""
    i, step = 0, lanes(target)
    while i + step <= count:
        store(target, target_at + i, value)
        i += step
    if i < count:
        store_first(target, target_at + i, count - i, value)


@subroutine
def copy(target, target_at, source, source_at, count):
    """target[i] = source[i] for i < count."""
    step = lanes(source)
    i = 0
    while i + step <= count:
        store(target, target_at + i, load(source, source_at + i, 1))
        i += step
    if i < count:
        store_first(target, target_at + i, count - i, load_first(source, source_at + i, count - i, 1))


def _copying_every(jump):
    @subroutine
    def copy_every(target, target_at, source, source_at, count):
        """target[i] = source[jump * i] for i < count."""
        step = lanes(source)
        i = 0
        while i + step <= count:
            store(target, target_at + i, load_every(source, source_at + jump * i, jump, step))
            i += step
        if i < count:
            store_first(target, target_at + i, count - i, load_every(source, source_at + jump * i, jump, count - i))

    return copy_every


copy_every_second, copy_every_third, copy_every_fourth = map(_copying_every, (2, 3, 4))


@subroutine
def copy_apart(target, target_at, source, source_at, jump, count):
    """target[i] = source[jump * i] for i < count.

    Vectors are put together from what lies between too: 57 elements, 3 apart, took 5.6 ns so, and 16.8 ns where the
    processor gathered them.
    """
    if jump == 1:
        copy(target, target_at, source, source_at, count)
    elif jump == 2:
        copy_every_second(target, target_at, source, source_at, count)
    elif jump == 3:
        copy_every_third(target, target_at, source, source_at, count)
    elif jump == 4:
        copy_every_fourth(target, target_at, source, source_at, count)
    else:
        for i in range(uint64(count)):
            target[uint64(target_at) + i] = source[uint64(source_at) + i * uint64(jump)]


@subroutine
def copy_by_turns(target, first_at, second_at, source, source_at, count):
    """Copy `count` elements by turns to target[first_at:] and target[second_at:]."""
    step = lanes(source)
    i = 0
    while i + 2 * step <= count:
        first, second = load(source, source_at + i, 1), load(source, source_at + i + step, 1)
        store(target, first_at + i // 2, every_second(first, second, 0))
        store(target, second_at + i // 2, every_second(first, second, 1))
        i += 2 * step
    if i < count:
        held = count - i
        first = load_first(source, source_at + i, held, 1)
        second = load_first(source, source_at + i + step, held - step, 1)
        store_first(target, first_at + i // 2, (held + 1) // 2, every_second(first, second, 0))
        store_first(target, second_at + i // 2, held // 2, every_second(first, second, 1))


@subroutine
def gather_rows(
    target, target_at, line, height, width, source, source_at, row_stride, jump, outside_of, with_borders,
    geometry, plane_h, p, plane_w, q, channels, target_pitch, source_pitch, ahead,
):  # fmt: skip
    """target[c, h, i] = element (c, p + h, q + i) of a plane, for c < channels, h < height, i < width.

    line, target_pitch: from one row and channel of the target to the next; row_stride, source_pitch: of the source;
    ahead: elements from what is gathered to what is fetched meanwhile. For rows whose elements are at most two apart,
    and around which there is nothing but the last of `outside_of`; that is written only `with_borders`. A function of
    its own, without any branch that this does not need: LLVM keeps an index in memory for each loop that it vectorises,
    and advanced twenty of them for each row, 28 ns long.
    """
    never_inlined()
    first, last = inner(geometry, plane_w, q, width)
    if with_borders:
        for c in range(channels):
            _surround(
                target, target_at + c * target_pitch, line, height, first, last, width, outside_of, geometry, plane_h, p
            )  # fmt: skip
    if first == last:
        return
    begin = source_at + place(geometry, plane_w, q + first)
    for c in range(channels):
        for h in range(height):
            in_h = place(geometry, plane_h, p + h)
            if in_h >= 0:
                at = target_at + c * target_pitch + h * line + first
                row = begin + c * source_pitch + in_h * row_stride
                for i in range(0, (last - first) * jump, lanes(source)):
                    prefetch(source, row + ahead + i)
                if jump == 1:
                    copy(target, at, source, row, last - first)
                else:
                    copy_every_second(target, at, source, row, last - first)


@subroutine
def gather_rows_by_turns(
    target, target_at, other_at, line, height, width, source, source_at, row_stride, outside_of, with_borders,
    geometry, plane_h, p, plane_w, other_w, q, ahead,
):  # fmt: skip
    """`gather_rows` of one channel, for two planes that take turns in a row of the source: at target_at and other_at.

    Neither has more than one element more than the other.
    """
    never_inlined()
    first, last = inner(geometry, plane_w, q, width)
    other_first, other_last = inner(geometry, other_w, q, width)
    if with_borders:
        _surround(target, target_at, line, height, first, last, width, outside_of, geometry, plane_h, p)
        _surround(target, other_at, line, height, other_first, other_last, width, outside_of, geometry, plane_h, p)
    count = last - first + other_last - other_first
    if count == 0:
        return
    begin = place(geometry, plane_w, q + first) if first < last else place(geometry, other_w, q + other_first) + 1
    other_begin = place(geometry, other_w, q + other_first) if other_first < other_last else begin + 1
    lead, follow = target_at + first, other_at + other_first
    if other_begin < begin:
        lead, follow, begin = follow, lead, other_begin
    for h in range(height):
        in_h = place(geometry, plane_h, p + h)
        if in_h >= 0:
            row = source_at + begin + in_h * row_stride
            for i in range(0, count, lanes(source)):
                prefetch(source, row + ahead + i)
            copy_by_turns(target, lead + h * line, follow + h * line, source, row, count)


@subroutine
def _surround(target, target_at, line, height, first, last, width, outside_of, geometry, plane_h, p):
    """Write the last of `outside_of` around the rows of a plane: before `first`, from `last` on, and in whole rows."""
    outside = splat(outside_of, outside_of.size - 1, 1)
    for h in range(height):
        at = target_at + h * line
        is_inside = place(geometry, plane_h, p + h) >= 0
        fill_first(target, at, first if is_inside else width, outside)
        fill_first(target, at + last, width - last, outside)


@subroutine
def prefetch_rows(source, source_at, row_stride, height, width, jump, geometry, plane_h, p, plane_w, q):
    """Begin to fetch rows whose elements follow each other `jump` apart."""
    first, last = inner(geometry, plane_w, q, width)
    if first < last:
        begin = source_at + place(geometry, plane_w, q + first)
        for h in range(height):
            in_h = place(geometry, plane_h, p + h)
            if in_h >= 0:
                for i in range(0, (last - first) * jump, lanes(source)):
                    prefetch(source, begin + in_h * row_stride + i)


@subroutine
def gather_row(target, target_at, count, source, source_at, stride, outside, geometry, plane, step, position):
    """target[q] = element at `position + q` of a plane, for q < count, or `outside`.

    source_at, stride: first element of the axis in `source`, and the distance of its elements.
    """
    first, last = inner(geometry, plane, position, count)
    for q in range(first):
        target[target_at + q] = _looked_up(source, source_at, stride, outside, place(geometry, plane, position + q))
    if first < last:
        begin = source_at + place(geometry, plane, position + first) * stride
        copy_apart(target, target_at + first, source, begin, step * stride, last - first)
    for q in range(last, count):
        target[target_at + q] = _looked_up(source, source_at, stride, outside, place(geometry, plane, position + q))


@subroutine
def _looked_up(source, source_at, stride, outside, element):
    return outside if element < 0 else source[source_at + element * stride]


@subroutine
def _transpose(target, target_at, target_pitch, source, source_at, source_pitch, rows, columns):
    """`transpose`, compiled once: where each caller had its own, winograd's first call took 0.4 s longer."""
    never_inlined()
    transpose(target, target_at, target_pitch, source, source_at, source_pitch, rows, columns)


@subroutine
def gather_channels(
    target, target_at, pitch, channels, count, source, source_at, stride, outside, geometry, plane, step, position
):
    """`gather_row` for several neighbouring channels of a channels_last tensor: target[c * pitch + q]."""
    width = lanes(source)
    first, last = inner(geometry, plane, position, count)
    for q in range(count):
        if q < first or q >= last:
            element = place(geometry, plane, position + q)
            for c in range(channels):
                target[target_at + c * pitch + q] = outside if element < 0 else source[source_at + c + element * stride]
    if first < last:
        begin = source_at + place(geometry, plane, position + first) * stride
        for c in range(0, channels, width):
            for q in range(first, last, width):
                _transpose(
                    target, target_at + c * pitch + q, pitch,
                    source, begin + c + (q - first) * step * stride, step * stride,
                    min(width, last - q), min(width, channels - c),
                )  # fmt: skip


@subroutine
def add_row(target, target_at, stride, geometry, plane, step, position, source, source_at, count):
    """Add source[q] to `position + q` of a plane, for q < count; positions outside are dropped.

    target_at, stride: first element of the axis in `target`, and the distance of its elements. Nobody else may write
    to the axis meanwhile: elements between those that are added to are written back as they are.
    """
    first, last = inner(geometry, plane, position, count)
    _add_each(target, target_at, stride, geometry, plane, position, source, source_at, 0, first)
    if first < last:
        begin = target_at + place(geometry, plane, position + first) * stride
        jump = step * stride
        if jump == 1:
            add_run(target, begin, source, source_at + first, last - first)
        elif step == 2 and stride == 1:
            add_to_every_second(target, begin, source, source_at + first, last - first)
        else:
            for q in range(uint64(last - first)):
                target[uint64(begin) + q * uint64(jump)] += source[uint64(source_at + first) + q]
    _add_each(target, target_at, stride, geometry, plane, position, source, source_at, last, count)


@subroutine
def _add_each(target, target_at, stride, geometry, plane, position, source, source_at, begin, end):
    """The part of `add_row` in which every position is looked up."""
    for q in range(begin, end):
        element = place(geometry, plane, position + q)
        if element >= 0:
            target[target_at + element * stride] += source[source_at + q]


@subroutine
def add_run(target, target_at, source, source_at, count):
    """target[i] += source[i] for i < count."""
    step = lanes(source)
    i = 0
    while i + step <= count:
        store(target, target_at + i, load(target, target_at + i, 1) + load(source, source_at + i, 1))
        i += step
    if i < count:
        held = count - i
        total = load_first(target, target_at + i, held, 1) + load_first(source, source_at + i, held, 1)
        store_first(target, target_at + i, held, total)


@subroutine
def add_to_every_second(target, target_at, source, source_at, count):
    """target[2 * i] += source[i] for i < count."""
    step = lanes(source)
    nothing = zeros(source, 1)
    for i in range(0, count, step):
        value = load_first(source, source_at + i, min(step, count - i), 1)
        held = 2 * (count - i) - 1
        at = target_at + 2 * i
        first, second = load_first(target, at, held, 1), load_first(target, at + step, held - step, 1)
        store_first(target, at, held, first + interleaved(value, nothing, 0))
        store_first(target, at + step, held - step, second + interleaved(value, nothing, 1))


def _is_added(target, target_at, stride, geometry, plane, step, position, source, source_at, count, finish):
    """Add a row to the target, if that is how it is finished, and tell."""


def _never(target, target_at, stride, geometry, plane, step, position, source, source_at, count, finish):
    return False


def _perhaps(target, target_at, stride, geometry, plane, step, position, source, source_at, count, finish):
    if finish.accumulates:
        add_row(target, target_at, stride, geometry, plane, step, position, source, source_at, count)
    return finish.accumulates != 0


@overload(_is_added, jit_options=SUBROUTINE)
def _is_added_as(target, target_at, stride, geometry, plane, step, position, source, source_at, count, finish):
    return _never if finish.types[Finish._fields.index("accumulates")] is types.none else _perhaps


@subroutine
def store_row(target, target_at, stride, geometry, plane, step, position, source, source_at, count, channel, finish):
    """Store source[q] at `position + q` of a plane, for q < count, finished; positions outside are dropped.

    target_at, stride: first element of the axis in `target`, and the distance of its elements.
    """
    first, last = inner(geometry, plane, position, count)
    jump = step * stride
    begin = target_at + place(geometry, plane, position + first) * stride
    if _is_added(target, target_at, stride, geometry, plane, step, position, source, source_at, count, finish):
        return
    if first < last:
        if jump == 1:
            store_run(target, begin, source, source_at + first, last - first, channel, finish)
        else:
            bias = finish.constants[channel]
            for q in range(uint64(last - first)):
                at = uint64(begin) + q * uint64(jump)
                extra = finish.residual[at] if finish.has_residual else target.dtype.type(0)
                target[at] = source[uint64(source_at + first) + q] + bias + extra
            activate_row(target, begin, jump, last - first, finish.activation)


@subroutine
def store_run(target, target_at, source, source_at, count, channel, finish):
    """Store a row of one channel whose elements follow each other."""
    always_inlined()
    step = lanes(source)
    bias = splat(finish.constants, channel, 1)
    i = 0
    if finish.has_residual:
        while i < count:
            held = min(step, count - i)
            value = load_first(source, source_at + i, held, 1) + bias
            store_first(target, target_at + i, held, value + load_first(finish.residual, target_at + i, held, 1))
            i += step
    else:
        while i + step <= count:
            store(target, target_at + i, load(source, source_at + i, 1) + bias)
            i += step
        if i < count:
            store_first(target, target_at + i, count - i, load_first(source, source_at + i, count - i, 1) + bias)
    activate_row(target, target_at, 1, count, finish.activation)


@subroutine
def store_by_turns(target, target_at, even, odd, source, count, channel, finish):
    """Store `count` elements taken by turns from source[even:] and source[odd:], finished."""
    step = lanes(source)
    bias = splat(finish.constants, channel, 1)
    for i in range(0, count, 2 * step):
        held = count - i
        first = load_first(source, even + i // 2, (held + 1) // 2, 1)
        second = load_first(source, odd + i // 2, held // 2, 1)
        store_first_finished(target, target_at + i, held, interleaved(first, second, 0) + bias, finish)
        store_first_finished(target, target_at + i + step, held - step, interleaved(first, second, 1) + bias, finish)
    activate_row(target, target_at, 1, count, finish.activation)


@subroutine
def store_first_finished(target, at, count, value, finish):
    if finish.has_residual:
        value = value + load_first(finish.residual, at, count, 1)
    store_first(target, at, count, value)


@subroutine
def changes(finish, channel, channels):
    """Whether finishing changes the sums of any of these channels."""
    found = finish.has_residual != 0 or finish.activation != 0
    for k in range(channel, channel + channels):
        found |= finish.constants[k] != 0
    return found


@subroutine
def store_runs(target, target_at, pitch, source, source_at, line, runs, count, channel, channel_step, finish):
    """Store rows whose elements follow each other: `pitch` apart in the target, and `line` in the source.

    The source may be the target. One call for all rows: of 82000 rows of 52 pixels, each took 46 ns in calls of
    `store_row`.
    """
    never_inlined()
    for run in range(runs):
        store_run(
            target, target_at + run * pitch, source, source_at + run * line, count, channel + run * channel_step, finish
        )  # fmt: skip


@subroutine
def finish_runs(target, target_at, pitch, runs, count, channel, channel_step, finish):
    """Finish rows, `pitch` apart, whose elements follow each other and hold their sums already."""
    store_runs(target, target_at, pitch, target, target_at, pitch, runs, count, channel, channel_step, finish)


@subroutine
def store_channels(
    target, target_at, stride, geometry, plane, step, position,
    source, source_at, pitch, channels, count, channel, finish, scratch_at,
):  # fmt: skip
    """`store_row` for several neighbouring channels of a channels_last tensor: source[c * pitch + q].

    scratch_at: lanes * lanes elements of the source that may be overwritten.
    """
    first, last = inner(geometry, plane, position, count)
    is_added = False
    for c in range(channels):
        at = source_at + c * pitch
        is_added = _is_added(target, target_at + c, stride, geometry, plane, step, position, source, at, count, finish)
    if not is_added and first < last:
        begin = target_at + place(geometry, plane, position + first) * stride
        store_run_of_channels(
            target, begin, step * stride, source, source_at + first, pitch, channels, last - first,
            channel, finish, scratch_at,
        )  # fmt: skip


@subroutine
def store_run_of_channels(
    target, target_at, jump, source, source_at, pitch, channels, count, channel, finish, scratch_at
):  # fmt: skip
    """Store pixels, `jump` apart, of several neighbouring channels: source[c * pitch + q], finished."""
    width = lanes(source)
    for c in range(0, channels, width):
        held = min(width, channels - c)
        bias = load_first(finish.constants, channel + c, held, 1)
        for q in range(0, count, width):
            pixels = min(width, count - q)
            _transpose(source, scratch_at, width, source, source_at + c * pitch + q, pitch, held, pixels)
            for i in range(pixels):
                at = target_at + c + (q + i) * jump
                value = load_first(source, scratch_at + i * width, held, 1) + bias
                if finish.has_residual:
                    value = value + load_first(finish.residual, at, held, 1)
                store_first(target, at, held, value)
                activate_row(target, at, 1, held, finish.activation)


@subroutine
def transpose_all(target, target_at, target_pitch, source, source_at, source_pitch, rows, columns):
    """target[j, i] = source[i, j] for i < rows, j < columns."""
    width = lanes(source)
    for i in range(0, rows, width):
        for j in range(0, columns, width):
            transpose(
                target, target_at + j * target_pitch + i, target_pitch,
                source, source_at + i * source_pitch + j, source_pitch, min(width, rows - i), min(width, columns - j),
            )  # fmt: skip
