"""Small tiles of many channels as complex points: what all operations of dense convolutions share.

A point holds a register of channels of two tiles of the same image or of two, one as the real and one as the imaginary
part. The frequencies of a tile come by twos that are opposite to each other, but for those that are their own
opposites; every other one is stored with its real and imaginary parts exchanged (`fastconv.cpu._fft_dense` says why).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core.jit import subroutine
from ..core.problem import ConvProblem, Op
from ._fourier import add_passes, frequencies, transform, transform_back
from ._gemm import lanes_of
from ._geometry import Tables, even_split
from ._kernel import first_integers, never_inlined, number
from ._overlap import Cut, halo, positions, taps_of, tile_of_item, whole
from ._simd import lanes, load, store, transpose, zeros
from ._strips import HEADER, gather_strips, header

# Points of a tile along an axis.
LENGTHS = (12, 16, 20, 24, 32, 40, 48, 64)
# Cycles for each register of points and each halving of a transform.
LEVEL_CYCLES = 5


class Tiles(NamedTuple):
    """Integers behind those of `Strips`; positions are in the workspace unless they say otherwise."""

    runs: int  # tasks of a group, or of a block of its channels
    pairs: int  # of tiles, in all images
    pairs_per_run: int
    height: int  # points of a tile
    width: int
    row: int  # elements from one row of points to the next
    column_passes: int  # positions of the tables of both transforms in the geometry vector
    row_passes: int
    scale_at: int  # among the elements in the geometry vector: what filters are multiplied by
    points_at: int  # in the geometry vector, for each point: where its frequency stands among all, and if swapped
    slots_at: int  # for each frequency but the opposite ones: the elements of its point, and of the opposite one
    slots: int
    twice: int  # slots whose opposite frequency is another one; they come first
    tap_columns: int  # columns of points that hold taps
    taps: int
    places_at: int  # in the geometry vector: the elements of the point of each tap
    channels: int  # source and target channels of a task, in whole registers
    filters: int
    plane_at: int
    taps_at: int
    seen_at: int  # the spectra of what is gathered: (frequencies, pairs, 3, channels)
    seen_pitch: int  # from one frequency to the next


TILES = len(Tiles._fields)
# Where the integers of one kernel stand, behind these.
OWN = HEADER + TILES


@subroutine
def tiles_of(geometry):
    return Tiles(*first_integers(geometry[HEADER:], TILES))


@subroutine
def gather_pair(source, channel, held, pair, constants, workspace, geometry):
    """Both tiles of `held` neighbouring channels as the points of a plane; zeros where there is no second tile."""
    never_inlined()
    s, g = header(geometry), tiles_of(geometry)
    step = lanes(workspace)
    for item in range(2 * pair, 2 * pair + 2):
        image, tile = tile_of_item(s, item)
        part = g.plane_at + (item & 1) * step
        if image < s.images:
            begin = image * s.source_n + channel * s.source_c
            gather_strips(workspace, geometry, source, begin, held, whole(s, tile), constants, True)
            for i in range(g.height):
                for j in range(0, g.width, step):
                    transpose(
                        workspace, part + i * g.row + j * 2 * step, 2 * step,
                        workspace, i * g.width + j, s.channel_pitch, held, min(step, g.width - j),
                    )  # fmt: skip
        else:
            zero = zeros(workspace, 1)
            for i in range(g.height):
                for j in range(g.width):
                    store(workspace, part + i * g.row + j * 2 * step, zero)


@subroutine
def transform_plane(columns, workspace, geometry):
    """The spectrum of a plane, of which only the first columns are not zero."""
    g = tiles_of(geometry)
    step = lanes(workspace)
    if g.height > 1:
        for j in range(columns):
            transform(workspace, g.plane_at + j * 2 * step, g.row, geometry, g.column_passes)
    for i in range(g.height):
        transform(workspace, g.plane_at + i * g.row, 2 * step, geometry, g.row_passes)


@subroutine
def transform_plane_back(columns, workspace, geometry):
    """Undo `transform_plane` for the first columns."""
    g = tiles_of(geometry)
    step = lanes(workspace)
    for i in range(g.height):
        transform_back(workspace, g.plane_at + i * g.row, 2 * step, geometry, g.row_passes)
    if g.height > 1:
        for j in range(columns):
            transform_back(workspace, g.plane_at + j * 2 * step, g.row, geometry, g.column_passes)


@subroutine
def spread(to, pitch, apart, flipped, workspace, geometry):
    """Store a register of channels of every frequency as (-Im, Re, Im), `apart` elements from each other.

    pitch: from one frequency to the next; flipped: 1 to exchange real and imaginary parts first.
    """
    never_inlined()
    g = tiles_of(geometry)
    step = lanes(workspace)
    zero = zeros(workspace, 1)
    entry = g.points_at
    for i in range(g.height):
        for point in range(g.plane_at + i * g.row, g.plane_at + i * g.row + 2 * step * g.width, 2 * step):
            at, swap = to + number(geometry, entry) * pitch, (number(geometry, entry + 1) ^ flipped) * step
            a, b = load(workspace, point + swap, 1), load(workspace, point + step - swap, 1)
            store(workspace, at, zero - b)
            store(workspace, at + apart, a)
            store(workspace, at + 2 * apart, b)
            entry += 2


# ---- sizes and tables


class Shape(NamedTuple):
    """Extents of tiles, and how they cover the axes."""

    cut: Cut

    @property
    def height(self) -> int:
        return self.cut.strip[1]

    @property
    def width(self) -> int:
        return self.cut.strip[2]

    @property
    def points(self) -> int:
        return self.height * self.width

    @property
    def twice(self) -> int:
        """Pairs of frequencies that are opposite to each other: all but 0 and the middle of each axis."""
        return (self.points - (4 if self.height > 1 else 2)) // 2

    @property
    def slots(self) -> int:
        return self.points - self.twice


def shapes(problem: ConvProblem, op: Op) -> Iterator[Shape]:
    """All tiles that are larger than the halo; of one row where the problem has one."""
    extents, more = positions(problem, op), halo(problem, op)
    heights = (1,) if extents[1] + more[1] == 1 else LENGTHS
    for height, width in itertools.product(heights, LENGTHS):
        if height > more[1] and width > more[2]:
            tile_p, tile_q = even_split(extents[1], height - more[1]), even_split(extents[2], width - more[2])
            counts = 1, -(-extents[1] // tile_p), -(-extents[2] // tile_q)
            yield Shape(Cut((1, height, width), (1, tile_p, tile_q), counts))


def whole_registers(channels: int, lanes: int) -> int:
    return -(-channels // lanes) * lanes


def tile_fields(tables: Tables, problem: ConvProblem, op: Op, shape: Shape, row: int) -> dict[str, int]:
    """The fields of `Tiles` that follow from the shape.

    Two tiles in a plane double what comes out of it, and the way there and back multiplies by the number of points.
    """
    lanes = lanes_of(problem.dtype)
    taps = taps_of(problem, op, shape.cut)
    order, opposite = _opposites(shape)
    elements = row * np.arange(shape.height)[:, None] + 2 * lanes * np.arange(shape.width)
    swapped = np.isin(np.arange(shape.points), order[1 : 2 * shape.twice : 2])
    firsts = np.concatenate([order[: 2 * shape.twice : 2], order[2 * shape.twice :]])
    return {
        "height": shape.height,
        "width": shape.width,
        "row": row,
        "column_passes": add_passes(tables, shape.height, problem.dtype) if shape.height > 1 else 0,
        "row_passes": add_passes(tables, shape.width, problem.dtype),
        "scale_at": tables.add_elements(np.array([0.5 / shape.points]), problem.dtype),
        "points_at": tables.add(np.stack([np.argsort(order), swapped], axis=1)),
        "slots_at": tables.add(elements.reshape(-1)[np.stack([firsts, opposite[firsts]], axis=1)]),
        "slots": shape.slots,
        "twice": shape.twice,
        "tap_columns": max(s for _, _, s in taps) + 1,
        "taps": len(taps),
        "places_at": tables.add([elements[r, s] for _, r, s in taps]),
    }


def _opposites(shape: Shape) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The points of a tile by twos of opposite frequencies, then those opposite to themselves; and all opposites."""
    rows = frequencies(shape.height) if shape.height > 1 else np.zeros(1, np.int64)
    columns = frequencies(shape.width)
    height, width = shape.height, shape.width
    opposite_row, opposite_column = (np.argsort(each)[-each % n] for each, n in ((rows, height), (columns, width)))
    opposite = (width * opposite_row[:, None] + opposite_column).reshape(-1)
    itself = np.arange(shape.points)
    first = np.flatnonzero(itself < opposite)
    by_twos = np.stack([first, opposite[first]], axis=1).reshape(-1)
    return np.concatenate([by_twos, np.flatnonzero(itself == opposite)]), opposite
