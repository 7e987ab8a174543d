"""FORWARD and GRAD_INPUT on tensor cores: the implicit GEMM of `_gather_tiles`.

A block sums a tile of positions x result channels in float32. Its warps multiply matrices of 16 positions x 16 source
channels by such of 16 source x 8 result channels. Three panels of either factor are in the block's memory at a time:
one is multiplied while the next two arrive, copied there without passing through registers where source channels
are neighbours that come in pieces of 16 bytes; where not, by way of registers.

Source: NVIDIA, "CUTLASS: efficient GEMM in CUDA", sections on tiles and pipelining.
"""

from __future__ import annotations

from typing import Any

from ..core.algorithm import Epilogue
from ..core.problem import ConvProblem
from ._device import (
    WARP,
    barrier,
    block_x,
    cuda,
    float32,
    function,
    get,
    int32,
    int64,
    quotient,
    remainder,
    shifted,
    thread,
)
from ._gather import TAP_FIELDS, Gather
from ._gather_tiles import Access, arguments_of, inside, position_of, share_of, store_tile
from ._gemm import resident_blocks
from ._kernel import Body, kernels
from ._tensor_words import address_of, copy16, end_of_group, wait_for_all_but_one_group
from ._warp_products import (
    ELEMENTS,
    HEIGHT,
    ROW_BYTES,
    WIDTH,
    WORDS,
    WarpTile,
    elements_of_piece,
    fetch_piece,
    format_of,
    lay_piece,
    line_home,
    line_reads,
    line_words,
    multiply_panels,
    row_home,
    spread_matrices,
)

STAGES = 3  # panels in memory; 3 of 64 bytes by 128 + 128 take the 48 KB that a block has


def is_copied(gather: Gather) -> bool:
    """Whether the channels of a group come in pieces of 16 bytes."""
    return come_in_pieces(gather.problem, gather.source_channels)


def come_in_pieces(problem: ConvProblem, channels: int) -> bool:
    """Whether so many channels of a group, of x or of y, are neighbours in pieces of 16 bytes."""
    return problem.layout == "channels_last" and channels % elements_of_piece(problem.dtype) == 0


def lanes_of(tile: WarpTile, is_last: bool) -> Any:
    """The function that gives the row of the panel that a thread fetches a part of, and the number of its first piece.

    Its other pieces are `threads // rows` apart. Neighbouring threads take neighbouring pieces with channels_last, else
    neighbouring positions.
    """
    rows, parts = tile.rows, tile.threads // tile.rows

    @function
    def lanes():
        if is_last:
            return quotient(thread(), int32(parts)), remainder(thread(), int32(parts))
        return remainder(thread(), int32(rows)), quotient(thread(), int32(rows))

    return lanes


@kernels
def gather_matrices(precision: str, epilogue: Epilogue, tile: WarpTile, access: Access, copies: bool) -> Body:
    """FORWARD and GRAD_INPUT: a block sums a tile of positions x result channels on tensor cores.

    precision: one of `ELEMENTS`. copies: whether the source does not pass through registers, as `is_copied` allows.
    """
    threads, depth, row_warps = tile.threads, tile.depth, tile.row_warps
    is_last = access.layout == "channels_last"
    dtype, each = ELEMENTS[precision], format_of(precision)
    element, piece_size = each.bytes, each.piece
    column_panel = tile.rows * ROW_BYTES // 4  # words
    one_panel = column_panel + depth * tile.columns * element // 4
    memory, ahead = STAGES * one_panel, STAGES - 1
    one_stage, last_stage = one_panel * WORDS, (STAGES - 1) * one_panel * WORDS  # bytes
    sums_size = 4 * tile.row_matrices * tile.column_matrices
    row_matrices = tile.row_matrices
    row_steps, column_steps = depth // each.inner, line_reads(precision, tile.column_matrices * WIDTH)
    lanes, fetch, lay = lanes_of(tile, is_last), fetch_piece(precision), spread_matrices(tile, not is_last)
    multiply = multiply_panels(precision, tile, "positions")
    home, column_word = line_home(precision, tile.columns), line_words(precision, tile.columns, False)
    parts = threads // tile.rows
    row_pieces = depth // piece_size // parts
    fetched_size = row_pieces * WORDS
    along = tile.columns // piece_size  # pieces of a row of the form
    form_pieces, form_step = depth * along // threads, threads // along
    form_bytes = form_step * tile.columns * element
    piece_rows = HEIGHT * row_warps
    store = store_tile(epilogue, access.layout, access.wide_result, piece_rows, tile.columns, threads)

    def body(
        source,  # the tensor that is gathered, read
        form,  # w as in `_weight_form`, read
        result,  # written
        residual,  # like the result, read where the epilogue says so
        bias,  # (channels of the result,), read where there is one
        taps,  # int32 (rows, 4): shifts along d, h, w and the place in the filter
        n,  # Numbers
        m,  # TileNumbers
        source_image,  # int64: elements from one image of the source to the next
        result_image,  # int64: likewise of the result
        form_group,  # int64: elements of the form from one group to the next
    ):
        panels = cuda.shared.array(memory, float32, 128)
        sums = cuda.local.array(sums_size, float32)
        fetched = cuda.local.array(fetched_size, int32)
        row_to = cuda.local.array(row_pieces, int32)
        row_from = cuda.local.array(row_steps, int32)
        column_from = cuda.local.array(column_steps, int32)
        row_at = cuda.local.array(row_steps, int32)
        column_at = cuda.local.array(column_steps, int32)
        t = thread()
        group, first_pixel, first_channel = share_of(block_x(), int32(tile.rows), int32(tile.columns), m)

        # What this thread fetches, and where it lays it.
        line, part = lanes()
        is_there = first_pixel + line < m.pixels
        image, slice_, row, column = position_of(int32(first_pixel + line) if is_there else int32(0), n)
        images = shifted(source, int64(image) * source_image)
        first = int32((group * n.source_channels + part * piece_size) * n.source_channel)
        for i in range(row_pieces):
            row_to[i] = address_of(panels, row_home(line, int32(part + i * parts)))
        form_row, piece = quotient(t, int32(along)), remainder(t, int32(along))
        forms = shifted(form, int64(group) * form_group)
        form_at = int32((n.first_tap * m.form_rows + form_row) * m.form_columns + first_channel + piece * piece_size)
        column_to = address_of(panels, int32(column_panel + home(form_row, piece)))

        # Where the matrices of this warp lie: lane i names row i % 16, and of two pieces the first or the second.
        lane, warp = remainder(t, int32(WARP)), quotient(t, int32(WARP))
        row_warp, column_warp = remainder(warp, int32(row_warps)), quotient(warp, int32(row_warps))
        half, inner = quotient(lane, int32(HEIGHT)), remainder(lane, int32(HEIGHT))
        for i in range(row_steps):
            row_from[i] = address_of(panels, row_home(int32(row_warp * HEIGHT + inner), int32(2 * i + half)))
        for j in range(column_steps):
            column_from[j] = address_of(
                panels, int32(column_panel + column_word(lane, int32(column_warp * column_steps + j)))
            )

        for i in range(sums_size):
            sums[i] = float32(0)
        tap, c, at, is_inside = n.first_tap, int32(0), int32(0), False
        steps = int32(n.taps * quotient(m.form_rows, int32(depth)))
        laid, multiplied = int32(0), int32(0)  # how far the panels are that are laid next, and multiplied
        step = int32(-ahead)
        while step < steps:
            is_fetching = int32(step + ahead) < steps
            if step >= 0:
                wait_for_all_but_one_group()
                barrier()
            if is_fetching:
                if c == 0:
                    entry = int32(tap * TAP_FIELDS)
                    shift_d, shift_h = get(taps, entry), get(taps, int32(entry + 1))
                    shift_w = get(taps, int32(entry + 2))
                    is_inside, at = inside(slice_, row, column, shift_d, shift_h, shift_w, n)
                    is_inside = is_inside and is_there
                    at = int32(at + first)
                    tap = int32(tap + 1)
                count = int32(n.source_channels - c - part * piece_size) if is_inside else int32(0)
                for i in range(row_pieces):
                    beside = i * parts * piece_size
                    if copies:
                        copy16(panels, int32(laid + row_to[i]), images, int32(at + beside), beside < count)
                    else:
                        from_ = int32(at + beside * n.source_channel)
                        fetch(images, from_, n.source_channel, int32(count - beside), fetched, i * WORDS)
                at = int32(at + depth * n.source_channel)
                c = int32(c + depth)
                c = c if c < n.source_channels else int32(0)
                for i in range(form_pieces):
                    to = int32(laid + column_to + i * form_bytes)
                    copy16(panels, to, forms, int32(form_at + i * form_step * m.form_columns), True)
                form_at = int32(form_at + depth * m.form_columns)
            end_of_group()
            if step >= 0:
                for i in range(row_steps):
                    row_at[i] = int32(multiplied + row_from[i])
                for j in range(column_steps):
                    column_at[j] = int32(multiplied + column_from[j])
                multiply(panels, row_at, column_at, sums)
                multiplied = int32(multiplied + one_stage) if multiplied < last_stage else int32(0)
            if not copies and is_fetching:
                for i in range(row_pieces):
                    lay_piece(panels, int32(laid + row_to[i]), fetched, i * WORDS)
            laid = int32(laid + one_stage) if laid < last_stage else int32(0)
            step = int32(step + 1)

        for i in range(row_matrices):
            barrier()
            lay(panels, sums, i, row_warp, column_warp)
            barrier()
            store(
                panels,
                result,
                residual,
                bias,
                int32(first_pixel + i * piece_rows),
                first_channel,
                group,
                n,
                m,
                result_image,
            )

    return Body(body, arguments_of(dtype), threads, resident_blocks(dtype, threads, precision == "3xtf32"))
