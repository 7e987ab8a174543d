"""GRAD_WEIGHT on tensor cores: runs of pixels (`_weight_runs`) in the products of `_warp_products`.

Both factors of a run come to lie in the block's memory pixel by pixel, the channels of one pixel next to each other.
Rows are lines of the patch matrix, where a tap's channels are filled up to whole pieces of 16 bytes, so that a piece
belongs to one tap; columns are channels of y. Three panels of either are there at a time, as in `_tensor_cores`: one is
multiplied while the next two arrive, copied where channels come in pieces of 16 bytes; where not, by way of registers.
"""

from __future__ import annotations

from typing import Any

from ._device import (
    WARP,
    barrier,
    block_x,
    cuda,
    float32,
    function,
    get4,
    int32,
    int64,
    pointer,
    put4,
    quotient,
    record,
    remainder,
    shifted,
    thread,
)
from ._elements import Numbers
from ._gather import Gather
from ._gather_tiles import inside
from ._gemm import PIECE, resident_blocks
from ._kernel import Body, kernels
from ._tensor_cores import STAGES, come_in_pieces
from ._tensor_words import address_of, copy16, end_of_group, wait_for_all_but_one_group
from ._warp_products import (
    ELEMENTS,
    HEIGHT,
    WIDTH,
    WORDS,
    WarpTile,
    fetch_piece,
    format_of,
    lay_piece,
    line_home,
    line_reads,
    line_words,
    multiply_panels,
    spread_matrices,
)
from ._weight_runs import Lanes, RunNumbers, lane_of, line_of, place_of, position_of, share_of


def copied_lines(gather: Gather) -> tuple[bool, bool]:
    """Whether x, and y, need not pass through registers; gather: FORWARD of the problem."""
    problem = gather.problem
    return come_in_pieces(problem, gather.source_channels), come_in_pieces(problem, gather.result_channels)


def bring_piece(precision: str, copies: bool) -> Any:
    """The function ``(panels, address, source, at, stride, count, words, to)``: a piece of one place's channels.

    It begins a copy to the address, of all of the piece unless the count is 0, or fetches so many into words.
    """
    fetch = fetch_piece(precision)

    @function
    def brought(panels, address, source, at, stride, count, words, to):
        if copies:
            copy16(panels, address, source, at, count > 0)
        else:
            fetch(source, at, stride, count, words, to)

    return brought


def store_rows(tile: WarpTile) -> Any:
    """The function ``(sums, partial, at, width)``: write `HEIGHT * row_warps` rows of a tile from the block's memory.

    at, width: of the first of them in the sums of the runs, and elements from row to row there.
    """
    along, threads = tile.columns // PIECE, tile.threads
    accesses, step = HEIGHT * tile.row_warps * along // threads, threads // along

    @function
    def stored(sums, partial, at, width):
        row, piece = quotient(thread(), int32(along)), remainder(thread(), int32(along))
        for i in range(accesses):
            first, second, third, fourth = get4(sums, int32((thread() + i * threads) * PIECE))
            put4(partial, int32(at + (row + i * step) * width + piece * PIECE), first, second, third, fourth)

    return stored


@kernels
def sum_matrices(precision: str, tile: WarpTile, layout: str, row_copies: bool, column_copies: bool) -> Body:
    """GRAD_WEIGHT: a block sums a tile of (tap, input channel) x output channel over a run of pixels.

    precision: one of `ELEMENTS`. row_copies, column_copies: as `copied_lines` allows.
    """
    threads, depth, row_warps = tile.threads, tile.depth, tile.row_warps
    are_neighbours = layout == "channels_last"
    dtype, each = ELEMENTS[precision], format_of(precision)
    width = each.piece
    column_panel = depth * tile.rows * each.bytes // 4  # words
    one_panel = column_panel + depth * tile.columns * each.bytes // 4
    memory, ahead = STAGES * one_panel, STAGES - 1
    one_stage, last_stage = one_panel * WORDS, (STAGES - 1) * one_panel * WORDS  # bytes
    row_matrices, column_matrices = tile.row_matrices, tile.column_matrices
    sums_size, piece_rows = 4 * row_matrices * column_matrices, HEIGHT * row_warps
    row_lanes, column_lanes = (Lanes.of(tile, lines, width, are_neighbours) for lines in (tile.rows, tile.columns))
    row_turns, column_turns, row_pieces, column_pieces = (
        row_lanes.turns,
        column_lanes.turns,
        row_lanes.piece_turns,
        column_lanes.piece_turns,
    )
    row_lane, column_lane = (lane_of(lanes, are_neighbours) for lanes in (row_lanes, column_lanes))
    row_words, column_words = WORDS * row_turns, WORDS * column_turns
    bring_row, bring_column = (bring_piece(precision, copies) for copies in (row_copies, column_copies))
    row_home, column_home = (line_home(precision, lines) for lines in (tile.rows, tile.columns))
    row_word, column_word = line_words(precision, tile.rows, True), line_words(precision, tile.columns, False)
    matrix_reads, column_reads = line_reads(precision, HEIGHT), line_reads(precision, column_matrices * WIDTH)
    row_reads = row_matrices * matrix_reads
    multiply, lay, store = multiply_panels(precision, tile, "lines"), spread_matrices(tile, False), store_rows(tile)

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
        panels = cuda.shared.array(memory, float32, 128)
        sums = cuda.local.array(sums_size, float32)
        fetched_rows = cuda.local.array(row_words, int32)
        fetched_columns = cuda.local.array(column_words, int32)
        # Of each piece of the panel of rows that this thread fetches: where its tap lies, its first channel, how many.
        shift_d = cuda.local.array(row_pieces, int32)
        shift_h = cuda.local.array(row_pieces, int32)
        shift_w = cuda.local.array(row_pieces, int32)
        channels = cuda.local.array(row_pieces, int32)
        counts = cuda.local.array(row_pieces, int32)
        row_to = cuda.local.array(row_turns, int32)
        column_to = cuda.local.array(column_turns, int32)
        row_from = cuda.local.array(row_reads, int32)
        column_from = cuda.local.array(column_reads, int32)
        row_at = cuda.local.array(row_reads, int32)
        column_at = cuda.local.array(column_reads, int32)
        row_tile, column_tile, group, rest, begin, end = share_of(block_x(), m)

        # What this thread fetches, and where it lays it.
        row_pixel, row_piece = row_lane()
        column_pixel, column_piece = column_lane()
        for j in range(row_pieces):
            line = int32(row_tile * tile.rows + (row_piece + j * row_lanes.pieces) * width)
            shift_d[j], shift_h[j], shift_w[j], channels[j], counts[j] = line_of(taps, line, group, n, m)
        for i in range(row_lanes.pixel_turns):
            for j in range(row_pieces):
                pixel, piece = int32(row_pixel + i * row_lanes.pixels), int32(row_piece + j * row_lanes.pieces)
                row_to[i * row_pieces + j] = address_of(panels, row_home(pixel, piece))
        for i in range(column_lanes.pixel_turns):
            for j in range(column_pieces):
                pixel, piece = (
                    int32(column_pixel + i * column_lanes.pixels),
                    int32(column_piece + j * column_lanes.pieces),
                )
                column_to[i * column_pieces + j] = address_of(panels, int32(column_panel + column_home(pixel, piece)))
        first_column = int32(column_tile * tile.columns + column_piece * width)

        # Where the matrices of this warp lie.
        lane, warp = remainder(thread(), int32(WARP)), quotient(thread(), int32(WARP))
        row_warp, column_warp = remainder(warp, int32(row_warps)), quotient(warp, int32(row_warps))
        for i in range(row_reads):
            matrix = int32(i // matrix_reads * row_warps + row_warp)
            row_from[i] = address_of(panels, row_word(lane, int32(matrix * matrix_reads + i % matrix_reads)))
        for j in range(column_reads):
            word = column_word(lane, int32(column_warp * column_reads + j))
            column_from[j] = address_of(panels, int32(column_panel + word))

        for i in range(sums_size):
            sums[i] = float32(0)
        first = begin
        laid, multiplied = int32(0), int32(0)  # how far the panels are that are laid next, and multiplied
        steps = quotient(int32(end - begin + depth - 1), int32(depth))
        step = int32(-ahead)
        while step < steps:
            is_fetching = first < end
            if step >= 0:
                wait_for_all_but_one_group()
                barrier()
            if is_fetching:
                for i in range(row_lanes.pixel_turns):
                    pixel = int32(first + row_pixel + i * row_lanes.pixels)
                    is_there = pixel < end
                    image, slice_, row, column = position_of(pixel if is_there else int32(0), n, m)
                    images = shifted(x, int64(image) * x_image)
                    for j in range(row_pieces):
                        is_inside, at = inside(slice_, row, column, shift_d[j], shift_h[j], shift_w[j], n)
                        count = counts[j] if is_inside and is_there else int32(0)
                        turn = i * row_pieces + j
                        to, at = int32(laid + row_to[turn]), int32(at + channels[j])
                        bring_row(panels, to, images, at, n.source_channel, count, fetched_rows, turn * WORDS)
                for i in range(column_lanes.pixel_turns):
                    pixel = int32(first + column_pixel + i * column_lanes.pixels)
                    is_there = pixel < end
                    image, place = place_of(pixel if is_there else int32(0), n, m)
                    gradients = shifted(y, int64(image) * y_image)
                    for j in range(column_pieces):
                        k = int32(first_column + j * (column_lanes.pieces * width))
                        count = int32(n.group_channels - k) if is_there else int32(0)
                        at = int32(place * n.result_w + (k + group * n.group_channels) * n.result_channel)
                        turn = i * column_pieces + j
                        to = int32(laid + column_to[turn])
                        bring_column(panels, to, gradients, at, n.result_channel, count, fetched_columns, turn * WORDS)
                first = int32(first + depth)
            end_of_group()
            if step >= 0:
                for i in range(row_reads):
                    row_at[i] = int32(multiplied + row_from[i])
                for j in range(column_reads):
                    column_at[j] = int32(multiplied + column_from[j])
                multiply(panels, row_at, column_at, sums)
                multiplied = int32(multiplied + one_stage) if multiplied < last_stage else int32(0)
            if not row_copies and is_fetching:
                for i in range(row_turns):
                    lay_piece(panels, int32(laid + row_to[i]), fetched_rows, i * WORDS)
            if not column_copies and is_fetching:
                for i in range(column_turns):
                    lay_piece(panels, int32(laid + column_to[i]), fetched_columns, i * WORDS)
            laid = int32(laid + one_stage) if laid < last_stage else int32(0)
            step = int32(step + 1)

        # All of the tile is written: what lies outside w is zeros.
        row_size = int32(m.column_tiles * tile.columns)
        own = shifted(partial, int64(rest) * (int64(m.row_tiles * tile.rows) * row_size))
        at = int32(row_tile * tile.rows * row_size + column_tile * tile.columns)
        for i in range(row_matrices):
            barrier()
            lay(panels, sums, i, row_warp, column_warp)
            barrier()
            store(panels, own, int32(at + i * piece_rows * row_size), row_size)

    arguments = (*[pointer(dtype)] * 2, *map(pointer, ("float32", "int32")), record(Numbers), record(RunNumbers))
    return Body(body, (*arguments, *[int64] * 2), threads, resident_blocks(dtype, threads, precision == "3xtf32"))
