"""GRAD_WEIGHT in registers: runs of pixels (`_weight_runs`) in the register-tiled product of `_gemm`."""

from __future__ import annotations

from typing import Any

from ._device import (
    COMPUTED_AS,
    barrier,
    block_x,
    cuda,
    function,
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
from ._gather import Gather
from ._gather_tiles import fetch_channels, inside
from ._gemm import PIECE, Tile, multiply, resident_blocks
from ._kernel import Body, kernels
from ._weight_runs import Lanes, RunNumbers, lane_of, line_of, place_of, position_of, share_of

FEW_LINES = 4  # whose places a thread keeps in 128 registers


def wide_lines(gather: Gather) -> tuple[bool, bool]:
    """Whether channels of x, and of y, can be read four at a time; gather: FORWARD of the problem."""
    is_last = gather.problem.layout == "channels_last"
    return is_last and gather.source_channels % PIECE == 0, is_last and gather.result_channels % PIECE == 0


def lay_lines(lanes: Lanes, stride: int) -> Any:
    """The function ``(panels, at, fetched)``: lay what a thread fetched into its panel, its first element at `at`."""
    width, pixel_turns, piece_turns = lanes.width, lanes.pixel_turns, lanes.piece_turns
    pixel_step, piece_step = lanes.pixels * stride, lanes.pieces * width

    @function
    def lay(panels, at, fetched):
        for i in range(pixel_turns):
            for j in range(piece_turns):
                to, first = int32(at + i * pixel_step + j * piece_step), (i * piece_turns + j) * width
                if width == PIECE:
                    put4(panels, to, fetched[first], fetched[first + 1], fetched[first + 2], fetched[first + 3])
                else:
                    put(panels, to, fetched[first])

    return lay


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
    row_lanes, column_lanes = lanes_of(tile, tile.rows, wide_rows), lanes_of(tile, tile.columns, wide_columns)
    row_width, column_width = row_lanes.width, column_lanes.width
    row_loads, column_loads = row_lanes.turns * row_width, column_lanes.turns * column_width
    row_turns = row_lanes.piece_turns
    fetch_row, fetch_column = (fetch_channels(width == PIECE, width, real) for width in (row_width, column_width))
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
        # Of each line of the panel of rows that this thread fetches: where its tap lies, and its channel.
        shift_d = cuda.local.array(row_turns, int32)
        shift_h = cuda.local.array(row_turns, int32)
        shift_w = cuda.local.array(row_turns, int32)
        channels = cuda.local.array(row_turns, int32)
        row_tile, column_tile, group, rest, begin, end = share_of(block_x(), m)

        row_pixel, row_piece = row_lane()
        column_pixel, column_piece = column_lane()
        row_line, column_line = int32(row_piece * row_width), int32(column_piece * column_width)
        for i in range(row_turns):
            line = int32(row_tile * tile.rows + row_line + i * (row_lanes.pieces * row_width))
            shift_d[i], shift_h[i], shift_w[i], channels[i], _ = line_of(taps, line, group, n, m)
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
        first = begin  # pixel of the panel that is fetched
        for step in range(-1, steps):
            if first < end:
                for i in range(row_lanes.pixel_turns):
                    pixel = int32(first + row_pixel + i * row_lanes.pixels)
                    is_there = pixel < end
                    image, slice_, row, column = position_of(pixel if is_there else int32(0), n, m)
                    images = shifted(x, int64(image) * x_image)
                    for j in range(row_turns):
                        is_inside, at = inside(slice_, row, column, shift_d[j], shift_h[j], shift_w[j], n)
                        count = int32(row_width) if is_inside and is_there else int32(0)
                        to = (i * row_turns + j) * row_width
                        fetch_row(images, int32(at + channels[j]), int32(1), count, fetched_rows, to)
                for i in range(column_lanes.pixel_turns):
                    pixel = int32(first + column_pixel + i * column_lanes.pixels)
                    is_there = pixel < end
                    image, place = place_of(pixel if is_there else int32(0), n, m)
                    gradients = shifted(y, int64(image) * y_image)
                    for j in range(column_lanes.piece_turns):
                        k = int32(first_column + j * (column_lanes.pieces * column_width))
                        count = int32(column_width) if is_there and k < n.group_channels else int32(0)
                        at = int32(place * n.result_w + (k + group * n.group_channels) * n.result_channel)
                        to = (i * column_lanes.piece_turns + j) * column_width
                        fetch_column(gradients, at, int32(1), count, fetched_columns, to)
            if step >= 0:
                multiply_panels(panels, int32(panel + row_from), int32(panel + column_from), sums, rows, columns)
                panel = int32(one_panel - panel)
            if first < end:
                first = int32(first + depth)
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
    return Body(body, arguments, threads, resident_of(dtype, tile, wide_rows))


def lanes_of(tile: Tile, lines: int, is_wide: bool) -> Lanes:
    """How threads share the fetching of a panel of so many lines."""
    return Lanes.of(tile, lines, PIECE if is_wide else 1, is_wide)


def resident_of(dtype: str, tile: Tile, wide_rows: bool) -> int:
    """Blocks of `sum_runs` that a multiprocessor is to hold at once."""
    return resident_blocks(dtype, tile.threads, lanes_of(tile, tile.rows, wide_rows).piece_turns > FEW_LINES)
