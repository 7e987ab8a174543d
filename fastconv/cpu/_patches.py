"""The patch matrix: gathering rows of it from x, and adding rows of it back to x.

Column i holds what output pixel i sees, row j = (c, t, r, s) one tap of one channel::

    patch[j, i] = x_padded[c, i * stride + (t, r, s) * dilation]

Pixels are numbered through the whole output. Padding, stride and dilation are in the index tables of
`fastconv.cpu._axes`, so that every padding mode is gathered, and its places in the padding are added to the elements
that they repeat, by the same two loops.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

from ..core.jit import subroutine
from ..core.problem import ConvProblem
from ._axes import input_axis
from ._geometry import Tables, tensor_strides
from ._kernel import integers_at, never_inlined, number, place, plane_at
from ._rows import add_row, fill, gather_row


class Patches(NamedTuple):
    """The table that describes a patch matrix, in the geometry vector."""

    taps: int
    taps_at: int  # for each tap its slot and shift in d, h and w
    axis_d: int  # positions of the packed input axes in the vector
    axis_h: int
    axis_w: int
    x_c: int  # strides in elements
    x_d: int
    x_h: int
    x_w: int
    output_h: int
    output_w: int


NUMBERS = len(Patches._fields)
TAP = 6


def add_patches(tables: Tables, problem: ConvProblem) -> int:
    """Append the table of a problem's patch matrix, and give its position."""
    axes, taps = zip(*[input_axis(problem, axis, problem.output[axis]) for axis in range(3)], strict=True)
    axes_at = [tables.add(axis.packed()) for axis in axes]
    taps_at = tables.add([number for combination in itertools.product(*taps) for tap in combination for number in tap])
    _, *x_strides = tensor_strides(problem)[0]
    return tables.add([problem.taps, taps_at, *axes_at, *x_strides, *problem.output[1:]])


@subroutine
def gather(target, target_at, pitch, x, x_at, geometry, patches_at, first, rows, pixel, count, outside):
    """target[j * pitch + i] = patch[first + j, pixel + i], for j < rows, i < count.

    x_at: where the first channel begins; outside: what stands in the padding.
    """
    never_inlined()
    m = Patches(*integers_at(geometry, patches_at, NUMBERS))
    step = number(geometry, m.axis_w + 1)
    for j in range(rows):
        channel, tap = divmod(first + j, m.taps)
        plane_d, plane_h, plane_w, shift = planes_of(geometry, m, tap)
        at = target_at + j * pitch
        end = at + count
        row, q = divmod(pixel, m.output_w)
        z, p = divmod(row, m.output_h)
        while at < end:
            length = min(end - at, m.output_w - q)
            in_d, in_h = place(geometry, plane_d, z), place(geometry, plane_h, p)
            if in_d >= 0 and in_h >= 0:
                row_at = x_at + channel * m.x_c + in_d * m.x_d + in_h * m.x_h
                gather_row(target, at, length, x, row_at, m.x_w, outside, geometry, plane_w, step, q + shift)
            else:
                fill(target, at, length, outside)
            at += length
            z, p, q = (z, p + 1, 0) if p + 1 < m.output_h else (z + 1, 0, 0)


@subroutine
def scatter(x, x_at, low, high, source, source_at, pitch, geometry, patches_at, first, rows, pixel, count):
    """Add source[j * pitch + i] to where patch[first + j, pixel + i] comes from, for j < rows, i < count.

    low, high: distances from the beginning of a channel between which rows of x are added to; others are passed over.
    """
    never_inlined()
    m = Patches(*integers_at(geometry, patches_at, NUMBERS))
    step = number(geometry, m.axis_w + 1)
    for j in range(rows):
        channel, tap = divmod(first + j, m.taps)
        plane_d, plane_h, plane_w, shift = planes_of(geometry, m, tap)
        at = source_at + j * pitch
        end = at + count
        row, q = divmod(pixel, m.output_w)
        z, p = divmod(row, m.output_h)
        while at < end:
            length = min(end - at, m.output_w - q)
            in_d, in_h = place(geometry, plane_d, z), place(geometry, plane_h, p)
            distance = in_d * m.x_d + in_h * m.x_h
            if in_d >= 0 and in_h >= 0 and low <= distance < high:
                row_at = x_at + channel * m.x_c + distance
                add_row(x, row_at, m.x_w, geometry, plane_w, step, q + shift, source, at, length)
            at += length
            z, p, q = (z, p + 1, 0) if p + 1 < m.output_h else (z + 1, 0, 0)


@subroutine
def planes_of(geometry, m, tap):
    """The planes that a tap reads along d, h and w, the first two moved by its shifts, and its shift along w."""
    t = m.taps_at + tap * TAP
    return (
        plane_at(geometry, m.axis_d, number(geometry, t)) + number(geometry, t + 1),
        plane_at(geometry, m.axis_h, number(geometry, t + 2)) + number(geometry, t + 3),
        plane_at(geometry, m.axis_w, number(geometry, t + 4)),
        number(geometry, t + 5),
    )
