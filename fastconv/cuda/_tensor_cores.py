"""FORWARD and GRAD_INPUT on tensor cores: the implicit GEMM of `_gather_tiles` for tensors of 16 bits.

A block sums a tile of positions x result channels in float32. Its warps multiply matrices of 16 positions x 16 source
channels by such of 16 source x 8 result channels. Three panels of either factor are in the block's memory at a time:
one is multiplied while the next two arrive, copied there without passing through registers where eight source channels
are neighbours that begin at a multiple of eight; where not, by way of registers.

In memory a piece of 16 bytes, eight channels, is at home in its row at a place that is its number XOR that of the row,
so that the eight rows of a matrix lie in different banks.

Source: PTX ISA 8.0, section 9.7.13.4; NVIDIA, "CUTLASS: efficient GEMM in CUDA", sections on pipelining; Bhaskaracharya
et al., "Automatic kernel generation for Volta tensor cores", arXiv:2006.12645, section 4 (XOR-swizzled panels).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..core.algorithm import Epilogue
from ._device import (
    barrier,
    block_x,
    cuda,
    float32,
    function,
    get,
    int32,
    int64,
    pointer,
    put,
    quotient,
    record,
    remainder,
    shifted,
    thread,
)
from ._elements import WARP, Numbers
from ._gather import TAP_FIELDS, Gather
from ._gather_tiles import Access, TileNumbers, inside, position_of, store_tile
from ._gemm import resident_blocks
from ._kernel import Body, kernels
from ._tensor_words import (
    address_of,
    bits_of,
    copy16,
    end_of_group,
    matrices,
    multiply_matrices,
    put_words,
    transposed_matrices,
    wait_for_all_but_one_group,
)

STAGES = 3  # panels in memory; 3 of 32 channels by 128 + 128 take the 48 KB that a block has
EIGHT = 8  # elements of 16 bits in 16 bytes
WORDS = 4  # of 32 bits in 16 bytes
BYTES = 2  # of an element
HEIGHT, WIDTH, INNER = 16, 8, 16  # of the matrices that are multiplied


class WarpTile(NamedTuple):
    """Sizes of a block's tile.

    Attributes
    ----------
    rows, columns
        Sums of a block.
    depth
        Products between two barriers.
    row_warps, column_warps
        Warps side by side along either.
    """

    rows: int
    columns: int
    depth: int
    row_warps: int
    column_warps: int

    @property
    def threads(self) -> int:
        """Of a block."""
        return WARP * self.row_warps * self.column_warps

    @property
    def row_matrices(self) -> int:
        """Of a warp, `HEIGHT * row_warps` rows apart."""
        return self.rows // (HEIGHT * self.row_warps)

    @property
    def column_matrices(self) -> int:
        """Of a warp, next to each other."""
        return self.columns // (WIDTH * self.column_warps)


def is_copied(gather: Gather) -> bool:
    """Whether eight source channels are neighbours that begin at a multiple of eight."""
    return gather.problem.layout == "channels_last" and gather.source_channels % EIGHT == 0


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


@function
def eight_channels(source, at, stride, count, words, to):
    """Four words of eight channels of one place, zeros after the first count."""
    for k in range(WORDS):
        low = bits_of(source, int32(at + 2 * k * stride)) if 2 * k < count else int32(0)
        high = bits_of(source, int32(at + (2 * k + 1) * stride)) if 2 * k + 1 < count else int32(0)
        words[to + k] = int32(low | high << 16)


def multiply_stage(dtype: str, tile: WarpTile) -> Any:
    """The function ``(panels, row_at, column_at, sums)``: add the product of two panels to the sums of a warp.

    row_at, column_at: address of the first matrices, one for each step of 16 channels and for each pair of columns.
    sums: four for each matrix of the warp, row by row of matrices.
    """
    row_count, column_count, depth = tile.row_matrices, tile.column_matrices, tile.depth
    row_step = HEIGHT * tile.row_warps * depth * BYTES
    inner_step = INNER * tile.columns * BYTES
    row_words, column_words = 4 * row_count, 2 * column_count
    multiply = multiply_matrices[dtype]

    @function
    def multiplied(panels, row_at, column_at, sums):
        rows = cuda.local.array(row_words, int32)
        columns = cuda.local.array(column_words, int32)
        for inner in range(depth // INNER):
            for i in range(row_count):
                words = matrices(panels, int32(row_at[inner] + i * row_step))
                for k in range(4):
                    rows[4 * i + k] = words[k]
            for j in range(column_count // 2):
                words = transposed_matrices(panels, int32(column_at[j] + inner * inner_step))
                for k in range(4):
                    columns[4 * j + k] = words[k]
            for i in range(row_count):
                for j in range(column_count):
                    first, column = 4 * (i * column_count + j), 2 * j
                    sums[first], sums[first + 1], sums[first + 2], sums[first + 3] = multiply(
                        rows[4 * i],
                        rows[4 * i + 1],
                        rows[4 * i + 2],
                        rows[4 * i + 3],
                        columns[column],
                        columns[column + 1],
                        sums[first],
                        sums[first + 1],
                        sums[first + 2],
                        sums[first + 3],
                    )

    return multiplied


def spread_matrices(tile: WarpTile, rows_are_neighbours: bool) -> Any:
    """The function ``(memory, sums, i, row_warp, column_warp)``: lay one row of matrices of every warp into memory.

    What is laid is `HEIGHT * row_warps` rows x all columns, neighbouring rows next to each other or columns.
    """
    column_count = tile.column_matrices
    height, columns = HEIGHT * tile.row_warps, tile.columns
    (row_step, column_step) = (1, height) if rows_are_neighbours else (columns, 1)

    @function
    def laid(memory, at, sums, first):
        for j in range(column_count):
            for k in range(4):
                to = int32(at + k // 2 * 8 * row_step + (j * WIDTH + k % 2) * column_step)
                put(memory, to, sums[first + 4 * j + k])

    def from_row(own: int) -> Any:
        """Row by row, since the compiler leaves a loop over them a loop, and the sums in slow memory."""
        first, below = 4 * own * column_count, from_row(own + 1) if own + 1 < tile.row_matrices else None

        if below is None:

            @function
            def last_laid(memory, at, sums, i):
                laid(memory, at, sums, first)

            return last_laid

        @function
        def one_laid(memory, at, sums, i):
            if i == own:
                laid(memory, at, sums, first)
            else:
                below(memory, at, sums, i)

        return one_laid

    any_laid = from_row(0)

    @function
    def spread(memory, sums, i, row_warp, column_warp):
        lane = remainder(thread(), int32(WARP))
        row = int32(row_warp * HEIGHT + quotient(lane, int32(4)))
        column = int32(column_warp * (column_count * WIDTH) + remainder(lane, int32(4)) * 2)
        any_laid(memory, int32(row * row_step + column * column_step), sums, i)

    return spread


@kernels
def gather_matrices(dtype: str, epilogue: Epilogue, tile: WarpTile, access: Access, copies: bool) -> Body:
    """FORWARD and GRAD_INPUT: a block sums a tile of positions x result channels on tensor cores.

    copies: whether the source is copied without passing through registers, as `is_copied` allows.
    """
    threads, depth, row_warps = tile.threads, tile.depth, tile.row_warps
    is_last = access.layout == "channels_last"
    row_stride, column_stride = depth // 2, tile.columns // 2  # words
    column_panel = tile.rows * row_stride
    one_panel = column_panel + depth * column_stride
    memory, ahead = STAGES * one_panel, STAGES - 1
    one_stage, last_stage = one_panel * WORDS, (STAGES - 1) * one_panel * WORDS  # bytes
    sums_size = 4 * tile.row_matrices * tile.column_matrices
    row_matrices, column_matrices = tile.row_matrices, tile.column_matrices
    row_steps, column_steps = depth // INNER, column_matrices // 2
    lanes, multiply, lay = lanes_of(tile, is_last), multiply_stage(dtype, tile), spread_matrices(tile, not is_last)
    parts = threads // tile.rows
    row_pieces = depth // EIGHT // parts
    fetched_size = row_pieces * WORDS
    along = tile.columns // EIGHT  # pieces of a row of the form
    form_pieces, form_step = depth * along // threads, threads // along
    form_bytes = form_step * column_stride * WORDS
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
        channel_tile = remainder(block_x(), m.channel_tiles)
        rest = quotient(block_x(), m.channel_tiles)
        group = quotient(rest, m.pixel_tiles)
        first_pixel = int32((rest - group * m.pixel_tiles) * tile.rows)
        first_channel = int32(channel_tile * tile.columns)

        # What this thread fetches, and where it lays it.
        line, part = lanes()
        is_there = first_pixel + line < m.pixels
        image, slice_, row, column = position_of(int32(first_pixel + line) if is_there else int32(0), n)
        images = shifted(source, int64(image) * source_image)
        first = int32((group * n.source_channels + part * EIGHT) * n.source_channel)
        for i in range(row_pieces):
            place = int32((part + i * parts) ^ (line >> 1 & 3))
            row_to[i] = address_of(panels, int32(line * row_stride + place * WORDS))
        form_row, piece = quotient(t, int32(along)), remainder(t, int32(along))
        forms = shifted(form, int64(group) * form_group)
        form_at = int32((n.first_tap * m.form_rows + form_row) * m.form_columns + first_channel + piece * EIGHT)
        place = int32(column_panel + form_row * column_stride + (piece ^ form_row & 7) * WORDS)
        column_to = address_of(panels, place)

        # Where the matrices of this warp lie: lane i names row i % 16, and of 16 channels the first or the second half.
        lane, warp = remainder(t, int32(WARP)), quotient(t, int32(WARP))
        row_warp, column_warp = remainder(warp, int32(row_warps)), quotient(warp, int32(row_warps))
        half, inner = quotient(lane, int32(16)), remainder(lane, int32(16))
        for i in range(row_steps):
            place = int32((2 * i + half) ^ (inner >> 1 & 3))
            row_from[i] = address_of(panels, int32((row_warp * HEIGHT + inner) * row_stride + place * WORDS))
        for j in range(column_steps):
            place = int32((column_warp * column_matrices + 2 * j + half) ^ (inner & 7))
            column_from[j] = address_of(panels, int32(column_panel + inner * column_stride + place * WORDS))

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
                count = int32(n.source_channels - c - part * EIGHT) if is_inside else int32(0)
                for i in range(row_pieces):
                    beside = i * parts * EIGHT
                    if copies:
                        copy16(panels, int32(laid + row_to[i]), images, int32(at + beside), beside < count)
                    else:
                        from_ = int32(at + beside * n.source_channel)
                        eight_channels(images, from_, n.source_channel, int32(count - beside), fetched, i * WORDS)
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
                    words = i * WORDS
                    put_words(
                        panels,
                        int32(laid + row_to[i]),
                        fetched[words],
                        fetched[words + 1],
                        fetched[words + 2],
                        fetched[words + 3],
                    )
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

    arguments = (*[pointer(dtype)] * 5, pointer("int32"), record(Numbers), record(TileNumbers), *[int64] * 3)
    return Body(body, arguments, threads, resident_blocks(dtype, tile))
