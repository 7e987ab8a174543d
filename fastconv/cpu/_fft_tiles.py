"""Small tiles of many channels as complex points: what all operations of dense convolutions share.

A point holds a register of channels of two tiles of the same image or of two, one as the real and one as the imaginary
part. The frequencies of a tile come by twos that are opposite to each other, but for those that are their own
opposites; every other one is stored with its real and imaginary parts exchanged (`fastconv.cpu._fft_dense` says why).

A product of complex numbers takes three products of real ones, here of matrices::

    (a + i b) (u + i v)  =  (p - r) + i (p + q),    p = (a + b) u,   q = a (v - u),   r = b (u + v)

Source: Knuth, "The Art of Computer Programming", volume 2, 3rd edition, section 4.6.4, exercise 41.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core.jit import subroutine
from ..core.problem import ConvProblem, Op
from ._activation import activate_row
from ._fourier import add_passes, frequencies, transform, transform_back
from ._gemm import lanes_of
from ._geometry import Tables, even_split
from ._kernel import first_integers, inner, never_inlined, number, place, plane_at
from ._overlap import Cut, least_strip, most_outputs, positions, prefetch_tile, taps_of, tile_of_item
from ._rows import changes, finish_runs, store_first_finished
from ._simd import lanes, load, load_first, splat, store, store_first, transpose
from ._strips import HEADER, header

# Points of a tile along an axis.
LENGTHS = (12, 16, 20, 24, 28, 32, 36, 40, 48, 56, 60, 64)
# Cycles for each register of points and each halving of a transform: 30 in all for 24x24 points on the machine of
# docs/performance.md.
LEVEL_CYCLES = 3.2


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
    seen_at: int  # the spectra of what is gathered: (frequencies, 3, pairs, channels)
    seen_pitch: int  # from one frequency to the next


TILES = len(Tiles._fields)
# Where the integers of one kernel stand, behind these.
OWN = HEADER + TILES


@subroutine
def tiles_of(geometry):
    return Tiles(*first_integers(geometry[HEADER:], TILES))


@subroutine
def gather_pair(source, channel, held, pair, constants, workspace, geometry):
    """Both tiles of `held` neighbouring channels as the points of a plane; past the last tile is border."""
    never_inlined()
    s, g = header(geometry), tiles_of(geometry)
    step = lanes(workspace)
    border = splat(constants, constants.size - 1, 1)
    plane_h, plane_w = plane_at(geometry, s.source_axis_h, 0), plane_at(geometry, s.source_axis_w, 0)
    for item in range(2 * pair, 2 * pair + 2):
        image, tile = tile_of_item(s, item)
        begin = image * s.source_n + channel * s.source_c
        for i in range(g.height):
            to = g.plane_at + (item & 1) * step + i * g.row
            in_h = place(geometry, plane_h, tile.p + i)
            if image < s.images and in_h >= 0:
                _gather_row(source, begin + in_h * s.source_h, held, border, plane_w, tile.q, to, workspace, geometry)
            else:
                for point in range(to, to + g.width * 2 * step, 2 * step):
                    store(workspace, point, border)


@subroutine
def _gather_row(source, source_at, held, border, plane, position, to, workspace, geometry):
    """A row of a tile; where elements follow each other, a square of channels and elements at once."""
    s, g = header(geometry), tiles_of(geometry)
    step = lanes(workspace)
    first, last = inner(geometry, plane, position, g.width)
    j = 0
    while j < g.width:
        element = place(geometry, plane, position + j)
        point, at = to + j * 2 * step, source_at + element * s.source_w
        count = min(step, last - j) if first <= j < last else 1
        if element < 0:
            store(workspace, point, border)
        elif s.source_c == 1:
            for column in range(count):
                value = load_first(source, at + column * s.source_w, held, 1)
                store(workspace, point + column * 2 * step, value)
        else:
            transpose(workspace, point, 2 * step, source, at, s.source_c, held, count)
        j += count


@subroutine
def prefetch_pair(target, channel, held, pair, geometry):
    """Begin to fetch where both tiles of `held` neighbouring channels are stored."""
    never_inlined()
    s = header(geometry)
    for item in range(2 * pair, 2 * pair + 2):
        image, tile = tile_of_item(s, item)
        if image < s.images:
            prefetch_tile(target, channel, held, image, tile, geometry)


@subroutine
def store_pair(target, channel, held, pair, workspace, geometry, finish):
    """Both tiles of `held` neighbouring channels from the points of a plane."""
    never_inlined()
    s, g = header(geometry), tiles_of(geometry)
    step = lanes(workspace)
    finished = changes(finish, channel, held)
    for item in range(2 * pair, 2 * pair + 2):
        image, tile = tile_of_item(s, item)
        if image < s.images:
            begin = image * s.target_n + channel * s.target_c + tile.p * s.target_h + tile.q * s.target_w
            for i in range(tile.height):
                point, at = g.plane_at + (item & 1) * step + i * g.row, begin + i * s.target_h
                if s.target_c == 1:
                    for j in range(tile.width):
                        store_first(target, at + j * s.target_w, held, load(workspace, point + j * 2 * step, 1))
                else:
                    for j in range(0, tile.width, step):
                        columns = min(step, tile.width - j)
                        transpose(
                            target, at + j, s.target_c, workspace, point + j * 2 * step, 2 * step, columns, held
                        )  # fmt: skip
            if finished:
                _finish_tile(target, begin, channel, held, tile, geometry, finish)


@subroutine
def _finish_tile(target, target_at, channel, held, tile, geometry, finish):
    """Finish a tile of `held` neighbouring channels that holds its sums."""
    never_inlined()
    s = header(geometry)
    if s.target_c == 1:
        bias = load_first(finish.constants, channel, held, 1)
        for i in range(tile.height):
            for j in range(tile.width):
                at = target_at + i * s.target_h + j * s.target_w
                store_first_finished(target, at, held, load_first(target, at, held, 1) + bias, finish)
                activate_row(target, at, 1, held, finish.activation)
    else:
        for k in range(held):
            finish_runs(
                target, target_at + k * s.target_c, s.target_h, tile.height, tile.width, channel + k, 0, finish
            )  # fmt: skip


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
def spread(to, pitch, apart, workspace, geometry):
    """Store a register of channels of every frequency as (Re + Im, Re, Im), `apart` elements from each other.

    pitch: from one frequency to the next.
    """
    never_inlined()
    g = tiles_of(geometry)
    step = lanes(workspace)
    entry = g.points_at
    for i in range(g.height):
        for point in range(g.plane_at + i * g.row, g.plane_at + i * g.row + 2 * step * g.width, 2 * step):
            at, swap = to + number(geometry, entry) * pitch, number(geometry, entry + 1) * step
            real, imaginary = load(workspace, point + swap, 1), load(workspace, point + step - swap, 1)
            store(workspace, at, real + imaginary)
            store(workspace, at + apart, real)
            store(workspace, at + 2 * apart, imaginary)
            entry += 2


@subroutine
def store_factor(target, at, apart, real, imaginary):
    """Store what meets the three parts of `spread`: (Re, Im - Re, Re + Im)."""
    store(target, at, real)
    store(target, at + apart, imaginary - real)
    store(target, at + 2 * apart, real + imaginary)


@subroutine
def product_of(sums, at, apart):
    """Real and imaginary part from the three products of the parts."""
    first, second, third = load(sums, at, 1), load(sums, at + apart, 1), load(sums, at + 2 * apart, 1)
    return first - third, first + second


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
    """All tiles that are longer than the filter; of one row where the problem has one."""
    extents, least = positions(problem, op), least_strip(problem, op)
    for height, width in itertools.product((1,) if least[1] == 1 else LENGTHS, LENGTHS):
        _, most_p, most_q = most_outputs(problem, op, (1, height, width))
        if min(most_p, most_q) >= 1:
            tile_p, tile_q = even_split(extents[1], most_p), even_split(extents[2], most_q)
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
