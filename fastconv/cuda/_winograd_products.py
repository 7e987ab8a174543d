"""The products of Winograd's method: for each frequency and group one matrix of sums, all in one launch.

::

    sums[k, tile] = sum over t, c of filters[(t, c), k] * data[c, tile + t * plane]

A block holds a part of this matrix in registers, 8 x 8 sums a thread as 2 x 2 pieces of 4 x 4, so that what it reads
from shared memory comes in accesses of 128 bits. It takes 8 terms of both factors at a time: the next 8 are on their
way to registers while these are multiplied, and two sets of shared memory need one barrier. (Nath, Tomov, Dongarra, "An
Improved MAGMA GEMM for Fermi Graphics Processing Units", 2010, has the two levels of tiles.)

Everything is rounded up to whole blocks, so that nothing is compared with a bound.
"""

from __future__ import annotations

from typing import NamedTuple

from ._device import (
    add_products,
    barrier,
    block_x,
    block_y,
    block_z,
    cuda,
    function,
    get4,
    int32,
    int64,
    pointer,
    put,
    put4,
    quotient,
    real_of,
    record,
    remainder,
    repeated,
    shifted,
    thread,
)
from ._kernel import Body, kernels

TERMS = 8  # of a step
WIDE = 4  # elements of an access
SIDE = 8  # of a thread's square of sums
SUMS = SIDE**2
# Elements behind each line of data in shared memory: with them, the eight elements that two threads store of one tile
# fall into different banks.
SKEW = 4
# Threads of a multiprocessor that have room for a thread's sums and both factors, of 65536 registers.
RESIDENT = {"float32": 512, "float64": 256}


class Numbers(NamedTuple):
    """What `multiply_frequencies` is told; the names are those of `_winograd_tiles.Tiling`."""

    column_blocks: int  # blocks along k
    groups: int
    plane: int
    slices: int  # T
    source_room: int
    result_room: int
    source_rows: int
    result_rows: int


@kernels
def multiply_frequencies(dtype: str, rows: int, columns: int, channels_last: bool) -> Body:
    """A block sums `rows` tiles times `columns` channels of one frequency of one group."""
    threads = rows * columns // SIDE**2
    real = real_of(dtype)
    pitch = rows + SKEW
    data_pieces, filter_pieces = (TERMS * extent // WIDE // threads for extent in (rows, columns))
    data_set, filter_set = TERMS * pitch, TERMS * columns
    data_memory, filter_memory = 2 * data_set, 2 * filter_set
    data_held, filter_held = WIDE * data_pieces, WIDE * filter_pieces
    half_rows, half_columns = rows // 2, columns // 2
    # Threads along what is contiguous in the result: channels or tiles.
    fast, slow = (columns, rows) if channels_last else (rows, columns)
    half_fast, half_slow, fast_threads = fast // 2, slow // 2, fast // SIDE
    # Of the data, a piece of 4 elements is of one line: a tile with channels_last, else a channel.
    line_pieces = TERMS // WIDE if channels_last else rows // WIDE
    data_lines, filter_lines = threads // line_pieces, threads * WIDE // columns

    @function
    def fetch(held, pieces, elements, at, stride):
        """Pieces of 4 elements, a stride apart, on their way to registers."""
        for piece in range(pieces):
            first, second, third, fourth = get4(elements, int32(at + piece * stride))
            held[piece * WIDE] = first
            held[piece * WIDE + 1] = second
            held[piece * WIDE + 2] = third
            held[piece * WIDE + 3] = fourth

    @function
    def keep_data(some_data, held, first, line, place):
        """Put the pieces of a thread into shared memory, term by term."""
        for piece in range(data_pieces):
            at = piece * WIDE
            if channels_last:
                for k in range(WIDE):
                    put(some_data, int32(first + (place + k) * pitch + line + piece * data_lines), held[at + k])
            else:
                to = int32(first + (line + piece * data_lines) * pitch + place)
                put4(some_data, to, held[at], held[at + 1], held[at + 2], held[at + 3])

    @function
    def keep_filters(some_filters, held, first):
        """Likewise; they come as they stand."""
        for piece in range(filter_pieces):
            at = piece * WIDE
            to = int32(first + (thread() + piece * threads) * WIDE)
            put4(some_filters, to, held[at], held[at + 1], held[at + 2], held[at + 3])

    @function
    def multiply(term, arguments):
        """One term of a step."""
        sums, some_data, data_at, some_filters, filters_at = arguments
        at = int32(data_at + term * pitch)
        tiles = get4(some_data, at) + get4(some_data, int32(at + half_rows))
        at = int32(filters_at + term * columns)
        channels = get4(some_filters, at) + get4(some_filters, int32(at + half_columns))
        if channels_last:
            add_products(sums, tiles, channels)
        else:
            add_products(sums, channels, tiles)

    multiply_terms = repeated(TERMS, multiply)

    def body(
        data,  # (frequencies, elements of a frequency), read
        filters,  # (frequencies, groups, T, source_room, result_room), read
        result,  # (frequencies, elements of a frequency): the sums, written
        n,  # Numbers
        data_size,  # int64: elements of a frequency
        filters_size,  # int64
        result_size,  # int64
    ):
        some_data = cuda.shared.array(data_memory, real, 16)
        some_filters = cuda.shared.array(filter_memory, real, 16)
        data_next = cuda.local.array(data_held, real)
        filters_next = cuda.local.array(filter_held, real)
        sums = cuda.local.array(SUMS, real)
        for i in range(SUMS):
            sums[i] = real(0)

        frequency, group = block_y(), block_z()
        block = quotient(block_x(), n.column_blocks)
        first_column = int32((block_x() - block * n.column_blocks) * columns)
        first_row = int32(block * rows)
        fast_place = int32(remainder(thread(), int32(fast_threads)) * WIDE)
        slow_place = int32(quotient(thread(), int32(fast_threads)) * WIDE)
        tile, channel = (slow_place, fast_place) if channels_last else (fast_place, slow_place)

        # Where the data come from: the line of the first piece, and the place in it.
        line = quotient(thread(), int32(line_pieces))
        place = int32(remainder(thread(), int32(line_pieces)) * WIDE)
        all_source_room = int32(n.source_room * n.groups)
        if channels_last:
            line_stride, step_stride, slice_stride = all_source_room, int32(TERMS), int32(n.plane * all_source_room)
            data_at = int32((first_row + line) * line_stride + group * n.source_room + place)
            slice_stride = int32(slice_stride - n.source_room)
        else:
            line_stride, step_stride, slice_stride = n.source_rows, int32(TERMS * n.source_rows), n.plane
            data_at = int32((group * n.source_room + line) * line_stride + first_row + place)
            slice_stride = int32(slice_stride - n.source_room * n.source_rows)
        data_stride = int32(data_lines * line_stride)
        slice_steps = quotient(n.source_room, int32(TERMS))
        steps = int32(slice_steps * n.slices)
        left = slice_steps
        all_data = shifted(data, int64(frequency) * data_size)

        filter_stride = int32(filter_lines * n.result_room)
        filter_step = int32(TERMS * n.result_room)
        filters_at = int32(
            group * (steps * filter_step)
            + quotient(thread(), int32(columns // WIDE)) * n.result_room
            + first_column
            + remainder(thread(), int32(columns // WIDE)) * WIDE
        )
        all_filters = shifted(filters, int64(frequency) * filters_size)

        # Where the sums go; known before they are, it takes fewer registers than what it is made of.
        if channels_last:
            slow_stride = int32(n.result_room * n.groups)
            at = int32((first_row + tile) * slow_stride + group * n.result_room + first_column + channel)
        else:
            slow_stride = n.result_rows
            at = int32((group * n.result_room + first_column + channel) * slow_stride + first_row + tile)

        fetch(data_next, data_pieces, all_data, data_at, data_stride)
        fetch(filters_next, filter_pieces, all_filters, filters_at, filter_stride)
        keep_data(some_data, data_next, int32(0), line, place)
        keep_filters(some_filters, filters_next, int32(0))
        barrier()
        present = int32(0)
        # The last step fetches once more what it multiplies: behind a condition, the compiler would move the loads
        # to where they are stored, and every step would wait for them.
        while steps > 0:
            steps = int32(steps - 1)
            if steps > 0:
                data_at = int32(data_at + step_stride)
                filters_at = int32(filters_at + filter_step)
                left = int32(left - 1)
                if left == 0:
                    left = slice_steps
                    data_at = int32(data_at + slice_stride)
            fetch(data_next, data_pieces, all_data, data_at, data_stride)
            fetch(filters_next, filter_pieces, all_filters, filters_at, filter_stride)
            data_present = int32(present * data_set + tile)
            filters_present = int32(present * filter_set + channel)
            multiply_terms((sums, some_data, data_present, some_filters, filters_present))
            present = int32(1 - present)
            keep_data(some_data, data_next, int32(present * data_set), line, place)
            keep_filters(some_filters, filters_next, int32(present * filter_set))
            barrier()

        all_sums = shifted(result, int64(frequency) * result_size + int64(at))
        for i in range(SIDE):
            to = int32((i % WIDE + i // WIDE * half_slow) * slow_stride)
            first = i * SIDE
            put4(all_sums, to, sums[first], sums[first + 1], sums[first + 2], sums[first + 3])
            to = int32(to + half_fast)
            put4(all_sums, to, sums[first + 4], sums[first + 5], sums[first + 6], sums[first + 7])

    return Body(body, (*[pointer(dtype)] * 3, record(Numbers), *[int64] * 3), threads, RESIDENT[dtype] // threads)
