"""GRAD_WEIGHT as a product of matrices of which one is never stored: implicit GEMM over the pixels.

The rows are the pairs of a tap and an input channel, the columns the output channels of one group, and what is summed
over are the pixels of all images::

    w[k, c, t] = sum over pixels of x[c, pixel * stride + shift[t]] * y[k, pixel]

There are few rows and columns and many pixels, so the pixels are cut into runs that blocks sum at the same time, in
registers (`fastconv.cuda._weight_tiles`) or on tensor cores (`fastconv.cuda._tensor_weights`). Their sums lie side by
side in scratch memory, and a second kernel adds them up in the order of the runs: the result is the same every time.

Source: Chetlur et al., "cuDNN: efficient primitives for deep learning", arXiv:1410.0759, section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..core.problem import ConvProblem
from ._device import (
    COMPUTED_AS,
    block_x,
    function,
    get,
    int32,
    int64,
    pointer,
    put,
    quotient,
    quotient_by,
    real_of,
    reciprocal,
    record,
    remainder,
    shifted,
    thread,
)
from ._elements import Numbers
from ._gather import TAP_FIELDS, Gather
from ._gemm import Tile
from ._kernel import Body, Kernel, Launch, kernels
from ._queue import Part, Table
from ._warp_products import WarpTile, elements_of_piece

THREADS = 256  # of `add_runs`
OUTSIDE = -(2**31)  # the shift of a tap that no position brings inside
AnyTile = Tile | WarpTile


class RunNumbers(NamedTuple):
    """What the kernels that sum runs are told besides the `Numbers` of FORWARD."""

    pixels: int  # of all images
    run: int  # pixels of a run, whole panels
    row_tiles: int
    column_tiles: int
    groups: int
    rows: int  # taps times channels
    channels: int  # of the input in one group, filled up to whole pieces
    positions_multiplier: int  # reciprocals of the output extents
    positions_shift: int
    width_multiplier: int
    width_shift: int
    height_multiplier: int
    height_shift: int

    @classmethod
    def of(cls, problem: ConvProblem, tile: AnyTile, runs: int) -> RunNumbers:
        """For so many runs at most."""
        pixels = problem.N * problem.pixels
        piece = elements_of_piece(problem.dtype) if isinstance(tile, WarpTile) else 1
        channels = -(-problem.C // problem.groups // piece) * piece
        rows, columns = problem.taps * channels, problem.K // problem.groups
        run = -(-pixels // (runs * tile.depth)) * tile.depth
        _, height, width = problem.output
        return cls(
            pixels,
            run,
            -(-rows // tile.rows),
            -(-columns // tile.columns),
            problem.groups,
            rows,
            channels,
            *reciprocal(problem.pixels),
            *reciprocal(width),
            *reciprocal(height),
        )

    @property
    def tiles(self) -> int:
        """Of one run."""
        return self.row_tiles * self.column_tiles * self.groups

    @property
    def runs(self) -> int:
        """How many there are."""
        return -(-self.pixels // self.run)


# ---- what a block sums, and where its factors are


@function
def share_of(block, m):
    """Of a block: its tile along rows and columns, its group, its number among all but the tiles, and its pixels.

    Blocks that follow one another share their run, so that its pixels come from memory once.
    """
    row_tile = remainder(block, m.row_tiles)
    rest = quotient(block, m.row_tiles)
    column_tile = remainder(rest, m.column_tiles)
    rest = quotient(rest, m.column_tiles)
    begin = int32(quotient(rest, m.groups) * m.run)
    end = int32(min(begin + int64(m.run), int64(m.pixels)))
    return row_tile, column_tile, remainder(rest, m.groups), rest, begin, end


@function
def line_of(taps, line, group, n, m):
    """Of a line of the panel of rows: the shifts of its tap, its channel's place, and the channels from it on.

    A line that is outside w has a tap that is outside of every image.
    """
    tap = quotient(line, m.channels)
    channel = int32(line - tap * m.channels)
    is_there = line < m.rows
    entry = int32((tap if is_there else int32(0)) * TAP_FIELDS)
    shift_d = get(taps, entry) if is_there else int32(OUTSIDE)
    at = int32((group * n.source_channels + channel) * n.source_channel)
    return shift_d, get(taps, int32(entry + 1)), get(taps, int32(entry + 2)), at, int32(n.source_channels - channel)


@function
def place_of(pixel, n, m):
    """Image of a pixel, by its number among those of all images, and its number in the image."""
    image = quotient_by(pixel, m.positions_multiplier, m.positions_shift)
    return image, int32(pixel - image * n.positions)


@function
def position_of(pixel, n, m):
    """Image, d, h and w of a pixel: as in `_gather_tiles`, but for the loop, without a division."""
    image, place = place_of(pixel, n, m)
    row = quotient_by(place, m.width_multiplier, m.width_shift)
    slice_ = quotient_by(row, m.height_multiplier, m.height_shift)
    return image, slice_, int32(row - slice_ * n.height), int32(place - row * n.width)


class Lanes(NamedTuple):
    """How the threads of a block share the fetching of a panel of pixels x lines.

    Attributes
    ----------
    width
        Lines that a thread fetches at once.
    pixels, pieces
        Threads side by side along either.
    pixel_turns, piece_turns
        How often each thread goes on by so many.
    """

    width: int
    pixels: int
    pieces: int
    pixel_turns: int
    piece_turns: int

    @classmethod
    def of(cls, tile: AnyTile, lines: int, width: int, are_neighbours: bool) -> Lanes:
        """Neighbouring threads take neighbouring lines where they are neighbours in memory, else pixels."""
        pieces = lines // width
        along = pieces if are_neighbours else tile.threads // tile.depth
        return cls(width, tile.threads // along, along, tile.depth * along // tile.threads, pieces // along)

    @property
    def turns(self) -> int:
        """How often a thread fetches."""
        return self.pixel_turns * self.piece_turns


def lane_of(lanes: Lanes, are_neighbours: bool) -> Any:
    """The function that gives the pixel of a thread's first access to a panel, and the number of its piece."""
    pixels, pieces = lanes.pixels, lanes.pieces

    @function
    def lane():
        if are_neighbours:
            return quotient(thread(), int32(pieces)), remainder(thread(), int32(pieces))
        return remainder(thread(), int32(pixels)), quotient(thread(), int32(pixels))

    return lane


# ---- the sums of the runs


class AddNumbers(NamedTuple):
    """What `add_runs` is told."""

    runs: int
    blocks: int  # of the grid for one group
    rows: int
    columns: int
    channels: int  # of the input in one group
    filled: int  # these channels in whole pieces
    taps: int
    width: int  # elements of a row of the sums, filled up


@kernels
def add_runs(dtype: str) -> Body:
    """Add up the sums of the runs, run by run: a thread for each element of w."""
    real = real_of(dtype)

    def body(
        partial,  # (runs, groups, rows, columns), read
        w,  # written
        n,  # AddNumbers
        partial_group,  # int64: elements from one group of the sums to the next
        partial_run,  # int64: likewise from one run
    ):
        group = quotient(block_x(), n.blocks)
        element = int32((block_x() - group * n.blocks) * THREADS + thread())
        row = quotient(element, n.columns)
        column = remainder(element, n.columns)
        if row < n.rows:
            tap = quotient(row, n.channels)
            channel = remainder(row, n.channels)
            at = int32((tap * n.filled + channel) * n.width + column)
            total = real(0)
            for run in range(n.runs):
                total += get(shifted(partial, int64(run) * partial_run + int64(group) * partial_group), at)
            put(w, int32(((group * n.columns + column) * n.channels + channel) * n.taps + tap), total)

    arguments = (pointer(COMPUTED_AS[dtype]), pointer(dtype), record(AddNumbers), int64, int64)
    return Body(body, arguments, THREADS)


def partial_sums(problem: ConvProblem, tile: AnyTile, runs: int) -> Part:
    """The scratch memory that the sums of the runs take."""
    m = RunNumbers.of(problem, tile, runs)
    return COMPUTED_AS[problem.dtype], m.runs * m.tiles * tile.rows * tile.columns


def summed_runs(gather: Gather, kernel: Kernel, tile: AnyTile, runs: int) -> Callable[..., None]:
    """What runs GRAD_WEIGHT with a kernel that sums tiles of this size, and so many runs at most.

    gather: FORWARD of the problem.

    Returns
    -------
    function ``(queue, x, w, y, partial)``
        partial: of the size of `partial_sums`.
    """
    problem, taps = gather.problem, Table(gather.taps)
    n, m = Numbers.of(gather, gather.phases[0], False), RunNumbers.of(problem, tile, runs)
    images = [np.int64(gather.source_strides.image), np.int64(gather.result_strides.image)]
    sum_ = Launch(kernel, (m.tiles * m.runs,), n, m, *images)

    channels, columns = gather.source_channels, gather.result_channels
    rows, width = problem.taps * channels, m.column_tiles * tile.columns
    blocks = -(-rows * columns // THREADS)
    size = m.row_tiles * tile.rows * width
    numbers = AddNumbers(m.runs, blocks, rows, columns, channels, m.channels, problem.taps, width)
    add = Launch(
        add_runs(problem.dtype),
        (blocks * problem.groups,),
        numbers,
        np.int64(size),
        np.int64(size * problem.groups),
    )

    def run(queue, x, w, y, partial):
        sum_(queue, x, y, partial, taps.on(queue))
        add(queue, partial, w)

    return run
