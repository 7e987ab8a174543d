"""GRAD_WEIGHT as a product of matrices of which one is never stored: implicit GEMM over the pixels.

The rows are the pairs of a tap and an input channel, the columns the output channels of one group, and what is summed
over are the pixels of all images::

    w[k, c, t] = sum over pixels of x[c, pixel * stride + shift[t]] * y[k, pixel]

There are few rows and columns and many pixels, so the pixels are cut into runs that blocks sum at the same time. Their
sums lie side by side in scratch memory, and a second kernel adds them up in the order of the runs: the result is the
same every time.

Source: Chetlur et al., "cuDNN: efficient primitives for deep learning", arXiv:1410.0759, section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..core.problem import ConvProblem, Op
from ._device import (
    COMPUTED_AS,
    barrier,
    block_x,
    cuda,
    function,
    get,
    int32,
    int64,
    pointer,
    put,
    put4,
    quotient,
    real_of,
    record,
    remainder,
    shifted,
    thread,
)
from ._elements import Numbers
from ._gather import TAP_FIELDS, Gather
from ._gather_tiles import fetch_channels, inside, position_of
from ._gemm import PIECE, Tile, multiply, resident_blocks
from ._kernel import Body, Launch, kernels
from ._queue import Part, Table

THREADS = 256  # of `add_runs`
FEW_LINES = 4  # whose places a thread keeps in 128 registers


class RunNumbers(NamedTuple):
    """What `sum_runs` is told besides the `Numbers` of FORWARD."""

    pixels: int  # of all images
    run: int  # pixels of a run, whole panels
    row_tiles: int
    column_tiles: int
    groups: int
    rows: int  # taps times input channels of one group

    @classmethod
    def of(cls, problem: ConvProblem, tile: Tile, runs: int) -> RunNumbers:
        """For so many runs at most."""
        pixels = problem.N * problem.pixels
        rows, columns = problem.taps * (problem.C // problem.groups), problem.K // problem.groups
        run = -(-pixels // (runs * tile.depth)) * tile.depth
        return cls(pixels, run, -(-rows // tile.rows), -(-columns // tile.columns), problem.groups, rows)

    @property
    def tiles(self) -> int:
        """Of one run."""
        return self.row_tiles * self.column_tiles * self.groups

    @property
    def runs(self) -> int:
        """How many there are."""
        return -(-self.pixels // self.run)


class Lanes(NamedTuple):
    """How the threads of a block share the fetching of a panel of pixels x lines.

    Attributes
    ----------
    width
        Lines that an access holds.
    pixels, lines
        Threads side by side along either.
    pixel_turns, line_turns
        How often each thread goes on by so many.
    """

    width: int
    pixels: int
    lines: int
    pixel_turns: int
    line_turns: int

    @classmethod
    def of(cls, tile: Tile, lines: int, wide: bool) -> Lanes:
        """Neighbouring threads take neighbouring lines in fours where channels are neighbours, else pixels."""
        if wide:
            along = lines // PIECE
            return cls(PIECE, tile.threads // along, along, tile.depth * along // tile.threads, 1)
        along = tile.threads // tile.depth
        return cls(1, tile.depth, along, 1, lines // along)

    @property
    def loads(self) -> int:
        """Elements that a thread fetches."""
        return self.width * self.pixel_turns * self.line_turns


def lay_lines(lanes: Lanes, stride: int) -> Any:
    """The function ``(panels, at, fetched)``: lay what a thread fetched into its panel, its first element at `at`."""
    width, pixel_turns, line_turns = lanes.width, lanes.pixel_turns, lanes.line_turns
    pixel_step, line_step = lanes.pixels * stride, lanes.lines * width

    @function
    def lay(panels, at, fetched):
        for i in range(pixel_turns):
            for j in range(line_turns):
                to, first = int32(at + i * pixel_step + j * line_step), (i * line_turns + j) * width
                if width == PIECE:
                    put4(panels, to, fetched[first], fetched[first + 1], fetched[first + 2], fetched[first + 3])
                else:
                    put(panels, to, fetched[first])

    return lay


def lane_of(lanes: Lanes, wide: bool) -> Any:
    """The function that gives the pixel and the line of a thread's first access to a panel."""
    width, pixels, lines = lanes.width, lanes.pixels, lanes.lines

    @function
    def lane():
        if wide:
            return quotient(thread(), int32(lines)), int32(remainder(thread(), int32(lines)) * width)
        return remainder(thread(), int32(pixels)), quotient(thread(), int32(pixels))

    return lane


@kernels
def sum_runs(dtype: str, tile: Tile, wide_rows: bool, wide_columns: bool) -> Body:
    """GRAD_WEIGHT: a block sums a tile of (tap, input channel) x output channel over a run of pixels.

    wide_rows, wide_columns: whether channels of x, and of y, are read four at a time.
    """
    real = real_of(dtype)
    threads, depth = tile.threads, tile.depth
    one_panel, row_stride, column_stride = tile.panels, tile.row_stride, tile.column_stride
    memory, column_panel, sums_size = tile.memory, depth * row_stride, tile.sums
    column_threads = tile.column_threads
    row_lines, column_lines = PIECE * tile.row_pieces, PIECE * tile.column_pieces
    row_gap, column_gap = tile.rows // tile.row_pieces, tile.columns // tile.column_pieces
    row_lanes, column_lanes = Lanes.of(tile, tile.rows, wide_rows), Lanes.of(tile, tile.columns, wide_columns)
    row_loads, column_loads, row_turns = row_lanes.loads, column_lanes.loads, row_lanes.line_turns
    fetch_row = fetch_channels(wide_rows, row_lanes.width, real)
    fetch_column = fetch_channels(wide_columns, column_lanes.width, real)
    lay_rows, lay_columns = lay_lines(row_lanes, row_stride), lay_lines(column_lanes, column_stride)
    row_lane, column_lane = lane_of(row_lanes, wide_rows), lane_of(column_lanes, wide_columns)
    multiply_panels = multiply(tile)

    def body(
        x,  # read
        y,  # read
        partial,  # (runs, groups, rows, columns), the last two filled up to whole tiles, written
        taps,  # int32 (taps, 4): shifts along d, h, w and the place in the filter
        n,  # Numbers of FORWARD
        m,  # RunNumbers
        x_image,  # int64: elements from one image of x to the next
        y_image,  # int64: likewise of y
    ):
        panels = cuda.shared.array(memory, real, 16)
        sums = cuda.local.array(sums_size, real)
        rows = cuda.local.array(row_lines, real)
        columns = cuda.local.array(column_lines, real)
        fetched_rows = cuda.local.array(row_loads, real)
        fetched_columns = cuda.local.array(column_loads, real)
        # Of each line of the panel of rows that this thread fetches: where its tap lies, and its channel, or -1.
        shift_d = cuda.local.array(row_turns, int32)
        shift_h = cuda.local.array(row_turns, int32)
        shift_w = cuda.local.array(row_turns, int32)
        channels = cuda.local.array(row_turns, int32)
        # Blocks that follow one another share their run, so that its pixels come from memory once.
        row_tile = remainder(block_x(), m.row_tiles)
        rest = quotient(block_x(), m.row_tiles)
        column_tile = remainder(rest, m.column_tiles)
        rest = quotient(rest, m.column_tiles)
        group = remainder(rest, m.groups)
        begin = int32(quotient(rest, m.groups) * m.run)
        end = int32(min(begin + int64(m.run), int64(m.pixels)))

        row_pixel, row_line = row_lane()
        column_pixel, column_line = column_lane()
        for i in range(row_turns):
            line = int32(row_tile * tile.rows + row_line + i * row_lanes.lines)
            tap = quotient(line, n.source_channels)
            is_line = line < m.rows
            row = int32((tap if is_line else int32(0)) * TAP_FIELDS)
            shift_d[i] = get(taps, row)
            shift_h[i] = get(taps, int32(row + 1))
            shift_w[i] = get(taps, int32(row + 2))
            channel = int32(line - tap * n.source_channels + group * n.source_channels)
            channels[i] = int32(channel * n.source_channel) if is_line else int32(-1)
        first_column = int32(column_tile * tile.columns + column_line)
        row_to = int32(row_pixel * row_stride + row_line)
        column_to = int32(column_panel + column_pixel * column_stride + column_line)
        row_thread = quotient(thread(), int32(column_threads))
        column_thread = remainder(thread(), int32(column_threads))
        row_from = int32(row_thread * PIECE)
        column_from = int32(column_panel + column_thread * PIECE)

        for i in range(sums_size):
            sums[i] = real(0)
        steps = quotient(int32(end - begin + depth - 1), int32(depth))
        panel = int32(0)  # where the panels that are multiplied begin; those that are laid are the others
        for step in range(-1, steps):
            if step + 1 < steps:
                first = int32(begin + (step + 1) * depth)
                for i in range(row_lanes.pixel_turns):
                    pixel = int32(first + row_pixel + i * row_lanes.pixels)
                    is_there = pixel < end
                    image, slice_, row, column = position_of(pixel if is_there else int32(0), n)
                    images = shifted(x, int64(image) * x_image)
                    for j in range(row_turns):
                        is_inside, at = inside(slice_, row, column, shift_d[j], shift_h[j], shift_w[j], n)
                        is_inside = is_inside and is_there and channels[j] >= 0
                        count = int32(row_lanes.width) if is_inside else int32(0)
                        to = (i * row_turns + j) * row_lanes.width
                        fetch_row(images, int32(at + channels[j]), int32(1), count, fetched_rows, to)
                for i in range(column_lanes.pixel_turns):
                    pixel = int32(first + column_pixel + i * column_lanes.pixels)
                    is_there = pixel < end
                    image = quotient(pixel if is_there else int32(0), n.positions)
                    gradients = shifted(y, int64(image) * y_image)
                    place = int32((pixel - image * n.positions) * n.result_w)
                    for j in range(column_lanes.line_turns):
                        k = int32(first_column + j * column_lanes.lines)
                        count = int32(column_lanes.width) if is_there and k < n.group_channels else int32(0)
                        at = int32(place + (k + group * n.group_channels) * n.result_channel)
                        to = (i * column_lanes.line_turns + j) * column_lanes.width
                        fetch_column(gradients, at, int32(1), count, fetched_columns, to)
            if step >= 0:
                multiply_panels(panels, int32(panel + row_from), int32(panel + column_from), sums, rows, columns)
                panel = int32(one_panel - panel)
            if step + 1 < steps:
                lay_rows(panels, int32(panel + row_to), fetched_rows)
                lay_columns(panels, int32(panel + column_to), fetched_columns)
            barrier()

        # All of the tile is written: what lies outside w is zeros.
        width = int32(m.column_tiles * tile.columns)
        own = shifted(partial, int64(rest) * (int64(m.row_tiles * tile.rows) * width))
        at = int32((row_tile * tile.rows + row_from) * width + column_tile * tile.columns + column_thread * PIECE)
        for i in range(row_lines):
            line = int32(at + (i // PIECE * row_gap + i % PIECE) * width)
            for j in range(0, column_lines, PIECE):
                first = i * column_lines + j
                to = int32(line + j // PIECE * column_gap)
                put4(own, to, sums[first], sums[first + 1], sums[first + 2], sums[first + 3])

    arguments = (
        *[pointer(dtype)] * 2,
        pointer(COMPUTED_AS[dtype]),
        pointer("int32"),
        record(Numbers),
        record(RunNumbers),
        *[int64] * 2,
    )
    return Body(body, arguments, threads, resident_blocks(dtype, threads, row_turns > FEW_LINES))


class AddNumbers(NamedTuple):
    """What `add_runs` is told."""

    runs: int
    blocks: int  # of the grid for one group
    rows: int
    columns: int
    channels: int  # of the input in one group
    taps: int
    width: int  # elements of a row of the sums, filled up


@kernels
def add_runs(dtype: str) -> Body:
    """Add up what `sum_runs` wrote, run by run: a thread for each element of w."""
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
            at = int32(row * n.width + column)
            total = real(0)
            for run in range(n.runs):
                total += get(shifted(partial, int64(run) * partial_run + int64(group) * partial_group), at)
            tap = quotient(row, n.channels)
            channel = remainder(row, n.channels)
            put(w, int32(((group * n.columns + column) * n.channels + channel) * n.taps + tap), total)

    arguments = (pointer(COMPUTED_AS[dtype]), pointer(dtype), record(AddNumbers), int64, int64)
    return Body(body, arguments, THREADS)


def partial_sums(problem: ConvProblem, tile: Tile, runs: int) -> Part:
    """The scratch memory that the sums of the runs take."""
    m = RunNumbers.of(problem, tile, runs)
    return COMPUTED_AS[problem.dtype], m.runs * m.tiles * tile.rows * tile.columns


def summed_runs(problem: ConvProblem, tile: Tile, runs: int) -> Callable[..., None]:
    """What runs GRAD_WEIGHT in tiles of this size and so many runs at most.

    Returns
    -------
    function ``(queue, x, w, y, partial)``
        partial: of the size of `partial_sums`.
    """
    gather = Gather(problem, Op.FORWARD)
    taps = Table(gather.taps)
    is_last = problem.layout == "channels_last"
    kernel = sum_runs(
        problem.dtype,
        tile,
        is_last and gather.source_channels % PIECE == 0,
        is_last and gather.result_channels % PIECE == 0,
    )
    n, m = Numbers.of(gather, gather.phases[0], False), RunNumbers.of(problem, tile, runs)
    images = [np.int64(gather.source_strides.image), np.int64(gather.result_strides.image)]
    sum_ = Launch(kernel, (m.tiles * m.runs,), n, m, *images)

    columns = gather.result_channels
    blocks = -(-m.rows * columns // THREADS)
    size = m.row_tiles * m.column_tiles * tile.rows * tile.columns
    width = m.column_tiles * tile.columns
    numbers = AddNumbers(m.runs, blocks, m.rows, columns, gather.source_channels, problem.taps, width)
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
