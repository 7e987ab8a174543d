"""Winograd's method in one kernel: F(2, 3) along both axes, in float32.

A block computes 64 channels of 32 tiles of the result. It holds the sums of all 16 frequencies in registers: a warp
those of two frequencies, a thread 8 tiles times 8 channels of each. Four source channels at a time are gathered and
transformed on the way to shared memory, where the transformed filters go too; the next four are on their way to
registers while these are multiplied. At the end the frequencies of a tile meet in shared memory, 16 channels at a time.

The sizes are those of Yan, Wang, Chu, "Optimizing Batched Winograd Convolution on GPUs", PPoPP 2020, sections 3 and 4
(64 x 32 results a block, 8 x 8 sums of two frequencies a thread), with 4 terms a step in place of 8, so that two sets
of them fit the 48 KB of shared memory that a kernel has without asking.

What a warp writes at once falls into different banks of shared memory: a tile's place in its line of 32 is changed by
the exclusive or with 8 times the term, or with 4 times the channel.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ..core.algorithm import Epilogue
from ..core.machine import Gpu
from ..core.problem import ConvProblem, Op
from ._contained import watch
from ._device import (
    add_products,
    along_both,
    barrier,
    block_x,
    block_y,
    cuda,
    float32,
    function,
    get,
    get4,
    get_behind,
    int32,
    int64,
    pointer,
    put,
    put4,
    quotient,
    record,
    remainder,
    repeated,
    shifted,
    thread,
)
from ._epilogue import finish
from ._gather import Gather
from ._kernel import Body, Launch, kernels
from ._limits import MOST_ELEMENTS
from ._plan import Work
from ._winograd_tiles import Numbers, Square, Tiling, coefficients, place_of
from ._winograd_transforms import filter_form

SQUARE = Square((2, 3), (2, 3))
TILES, COLUMNS, TERMS = 32, 64, 4  # of a block and a step
THREADS, WARP = 256, 32
WIDE, SIDE = 4, 8  # elements of an access; sums along an edge of a thread's square
SUMS = SIDE**2
EDGE = 4  # of a transformed tile
FREQUENCIES = EDGE**2
HALF = 2  # rows of a transformed tile that one thread makes, from the three rows of the tile that they need
ROWS = 3
PATCH = ROWS * EDGE
DATA_SET, FILTER_SET = FREQUENCIES * TERMS * TILES, FREQUENCIES * TERMS * COLUMNS
DATA_MEMORY, FILTER_MEMORY = 2 * DATA_SET, 2 * FILTER_SET
FILTER_PIECES = FILTER_SET // WIDE // THREADS
FILTERS_HELD = FILTER_PIECES * WIDE
# In the end 16 frequencies of 16 channels of all tiles have the place of the filters.
ROUNDS = COLUMNS // 16
CHANNELS = COLUMNS // ROUNDS

# Share of the arithmetic peak that the kernel is taken to reach while it multiplies. An estimate: not yet measured.
RATE = 0.6

_data = coefficients(SQUARE.heights.data)
_upper = along_both(tuple(row[:ROWS] for row in _data[:HALF]), _data)
_lower = along_both(tuple(row[EDGE - ROWS :] for row in _data[HALF:]), _data)
_back = along_both(coefficients(SQUARE.heights.back), coefficients(SQUARE.widths.back))


# ---- steps of the kernel


def fetching_data(channels_last: bool) -> Any:
    """The function ``(patch, images, at, mask, row, column)`` that has half of a tile on its way to registers.

    patch: three rows of four elements. mask: bit i * 4 + j says what is inside. row, column: strides of the source.
    """

    @function
    def fetch_data(patch, images, at, mask, row, column):
        for i in range(ROWS):
            for j in range(EDGE):
                value = float32(0)
                if mask >> (i * EDGE + j) & 1:
                    if channels_last:
                        value = get(images, int32(at + i * row + j * column))
                    else:
                        value = get_behind(images, int32(at + i * row), j)
                patch[i * EDGE + j] = value

    return fetch_data


@function
def fetch_filters(held, filters, at, stride):
    """Filters of four frequencies, each `stride` elements behind the one before."""
    for piece in range(FILTER_PIECES):
        first, second, third, fourth = get4(filters, int32(at + piece * stride))
        held[piece * WIDE] = first
        held[piece * WIDE + 1] = second
        held[piece * WIDE + 2] = third
        held[piece * WIDE + 3] = fourth


@function
def keep_data(some_data, patch, at, half):
    """Transform two rows of frequencies, and put them into shared memory."""
    if half == 0:
        _upper(patch)
    else:
        _lower(patch)
    for e in range(HALF * EDGE):
        put(some_data, int32(at + e * (TERMS * TILES)), patch[e])


@function
def keep_filters(some_filters, held, first):
    """Put them into shared memory as they stand."""
    for piece in range(FILTER_PIECES):
        at = piece * WIDE
        to = int32(first + (thread() + piece * THREADS) * WIDE)
        put4(some_filters, to, held[at], held[at + 1], held[at + 2], held[at + 3])


@function
def multiply(term, arguments):
    """One term of a step, for both frequencies."""
    first_sums, second_sums, some_data, data_at, tile, some_filters, filters_at = arguments
    at = int32(data_at + term * TILES + (tile ^ (2 * WIDE * term)))
    other = int32(data_at + term * TILES + ((tile + TILES // 2) ^ (2 * WIDE * term)))
    tiles = get4(some_data, at) + get4(some_data, other)
    columns_at = int32(filters_at + term * COLUMNS)
    columns = get4(some_filters, columns_at) + get4(some_filters, int32(columns_at + COLUMNS // 2))
    add_products(first_sums, tiles, columns)
    tiles = get4(some_data, int32(at + TERMS * TILES)) + get4(some_data, int32(other + TERMS * TILES))
    columns_at = int32(columns_at + TERMS * COLUMNS)
    columns = get4(some_filters, columns_at) + get4(some_filters, int32(columns_at + COLUMNS // 2))
    add_products(second_sums, tiles, columns)


multiply_terms = repeated(TERMS, multiply)


@function
def spread(some_sums, sums, column, at, lane_column):
    """Put the sums of all tiles of a thread for two of its channels, 4 apart, into shared memory."""
    for upper in range(2):
        for far in range(2):
            k = column + far * WIDE
            i = upper * WIDE * SIDE + k
            tile = int32(remainder(quotient(thread(), int32(SIDE)), int32(WIDE)) * WIDE + upper * (TILES // 2))
            to = int32(at + (lane_column + far * SIDE) * TILES + (tile ^ int32(lane_column * WIDE)))
            put4(some_sums, to, sums[i], sums[i + SIDE], sums[i + 2 * SIDE], sums[i + 3 * SIDE])


@function
def spread_of_round(column, arguments):
    """Do so in the round that the column belongs to."""
    some_sums, first_sums, second_sums, at, lane_column, round_ = arguments
    if column == round_:
        spread(some_sums, first_sums, column, at, lane_column)
        spread(some_sums, second_sums, column, int32(at + CHANNELS * TILES), lane_column)


spread_sums = repeated(ROUNDS, spread_of_round)


# ---- the kernel


@kernels
def correlate_tiles(channels_last: bool, epilogue: Epilogue) -> Body:
    """A block computes 64 channels of one group for 32 tiles."""
    end, fetch_data = finish(epilogue), fetching_data(channels_last)

    def body(
        source,  # the tensor that is gathered, read
        filters,  # (frequencies, groups, source_room, result_room), read; of every 64 channels every 16th one together
        result,  # written
        residual,  # like the result, read where the epilogue says so
        bias,  # (channels of the result,), read where there is one
        alarm,  # int32 (1,), raised at a sum that is not finite
        s,  # Numbers of the source
        r,  # Numbers of the result
        filters_size,  # elements of a frequency
        has_bias,
        source_image,  # int64: elements from one image of the source to the next
        result_image,  # int64: likewise of the result
    ):
        some_data = cuda.shared.array(DATA_MEMORY, float32, 16)
        some_filters = cuda.shared.array(FILTER_MEMORY, float32, 16)
        patch = cuda.local.array(PATCH, float32)
        held = cuda.local.array(FILTERS_HELD, float32)
        first_sums = cuda.local.array(SUMS, float32)
        second_sums = cuda.local.array(SUMS, float32)
        for i in range(SUMS):
            first_sums[i] = float32(0)
            second_sums[i] = float32(0)

        group = block_y()
        column_blocks = quotient(r.room, int32(COLUMNS))
        row_block = quotient(block_x(), column_blocks)
        first_column = int32((block_x() - row_block * column_blocks) * COLUMNS)
        first_tile = int32(row_block * TILES)
        warp = quotient(thread(), int32(WARP))
        lane = remainder(thread(), int32(WARP))

        # What this thread gathers: half of a tile of every fourth channel.
        half = quotient(warp, int32(TERMS))
        if channels_last:
            term = remainder(lane, int32(TERMS))
            tile = int32(remainder(warp, int32(TERMS)) * SIDE + quotient(lane, int32(TERMS)))
        else:
            term = remainder(warp, int32(TERMS))
            tile = lane
        image, d, h, w = place_of(int32(first_tile + tile), s, int32(2), int32(2))
        images = shifted(source, int64(image) * source_image)
        h = int32(h + half)
        c = term
        data_at = int32((group * s.group_channels + c) * s.channel + d * s.d + h * s.h + w * s.w)
        data_step, data_ahead = int64(s.channel) * TERMS, int64(0)
        mask = int32(0)
        if first_tile + tile < s.tiles and d >= 0 and d < s.extent_d:
            for i in range(ROWS):
                for j in range(EDGE):
                    if h + i >= 0 and h + i < s.extent_h and w + j >= 0 and w + j < s.extent_w:
                        mask = int32(mask | (1 << (i * EDGE + j)))
        data_to = int32(half * (HALF * EDGE * TERMS * TILES) + term * TILES + (tile ^ int32(term * (2 * WIDE))))

        # Which filters it fetches: four columns of one term of every fourth frequency.
        frequency_pieces = TERMS * COLUMNS // WIDE
        filters_at = int32(
            quotient(thread(), int32(frequency_pieces)) * filters_size
            + (group * s.room + remainder(quotient(thread(), int32(COLUMNS // WIDE)), int32(TERMS))) * r.room
            + first_column
            + remainder(thread(), int32(COLUMNS // WIDE)) * WIDE
        )
        filters_stride = int32(THREADS // frequency_pieces * filters_size)
        filters_step = int32(TERMS * r.room)

        # Which sums it holds: of these frequencies, tiles and columns.
        lane_tile = int32(quotient(lane, int32(SIDE)) * WIDE)
        lane_column = remainder(lane, int32(SIDE))
        data_from = int32(warp * (2 * TERMS * TILES))
        filters_from = int32(warp * (2 * TERMS * COLUMNS) + lane_column * WIDE)

        fetch_data(patch, images, data_at, mask if c < s.group_channels else int32(0), s.h, s.w)
        fetch_filters(held, filters, filters_at, filters_stride)
        keep_data(some_data, patch, data_to, half)
        keep_filters(some_filters, held, int32(0))
        barrier()
        present = int32(0)
        steps = quotient(s.room, int32(TERMS))
        # The last step fetches once more what it multiplies: behind a condition, the compiler would move the loads
        # to where they are stored, and every step would wait for them.
        while steps > 0:
            steps = int32(steps - 1)
            if steps > 0:
                c = int32(c + TERMS)
                data_ahead = data_ahead + data_step
                filters_at = int32(filters_at + filters_step)
            ahead = shifted(images, data_ahead)
            fetch_data(patch, ahead, data_at, mask if c < s.group_channels else int32(0), s.h, s.w)
            fetch_filters(held, filters, filters_at, filters_stride)
            data_present = int32(present * DATA_SET + data_from)
            filters_present = int32(present * FILTER_SET + filters_from)
            multiply_terms((first_sums, second_sums, some_data, data_present, lane_tile, some_filters, filters_present))
            present = int32(1 - present)
            keep_data(some_data, patch, int32(present * DATA_SET + data_to), half)
            keep_filters(some_filters, held, int32(present * FILTER_SET))
            barrier()

        # What it stores: two channels of a tile in each round.
        if channels_last:
            tile = int32(warp * WIDE + quotient(lane, int32(SIDE)))
            column = lane_column
        else:
            tile, column = lane, warp
        image, d, h, w = place_of(int32(first_tile + tile), r, int32(2), int32(2))
        is_real = first_tile + tile < r.tiles
        results = shifted(result, int64(image) * result_image)
        residuals = shifted(residual, int64(image) * result_image)
        tile_at = int32(d * r.d + h * r.h + w * r.w)
        sums_at = int32(warp * (2 * CHANNELS * TILES))
        values = cuda.local.array(FREQUENCIES, float32)
        for round_ in range(ROUNDS):
            spread_sums((some_filters, first_sums, second_sums, sums_at, lane_column, int32(round_)))
            barrier()
            for far in range(CHANNELS // SIDE):
                k = int32(first_column + round_ * CHANNELS + far * SIDE + column)
                at = int32((far * SIDE + column) * TILES + (tile ^ int32(column * WIDE)))
                for e in range(FREQUENCIES):
                    values[e] = get(some_filters, int32(at + e * (CHANNELS * TILES)))
                _back(values)
                channel = int32(group * r.group_channels + k)
                for i in range(2):
                    for j in range(2):
                        total = values[i * EDGE + j]
                        if is_real and k < r.group_channels and h + i < r.extent_h and w + j < r.extent_w:
                            watch(total, alarm)
                            place = int32(tile_at + channel * r.channel + i * r.h + j * r.w)
                            put(results, place, end(total, channel, place, bias, has_bias, residuals))
            barrier()

    arguments = (*[pointer("float32")] * 5, pointer("int32"), *[record(Numbers)] * 2, int32, int32, int64, int64)
    return Body(body, arguments, THREADS)


# ---- what runs it


def serves(problem: ConvProblem, op: Op) -> bool:
    """Whether the kernel serves a problem that winograd does."""
    if problem.filter != (1, 3, 3) or problem.dtype != "float32":
        return False
    tiling = tiling_of(problem, op)
    return max(FREQUENCIES * tiling.filter_size, tiling.result_rows) < MOST_ELEMENTS


def tiling_of(problem: ConvProblem, op: Op) -> Tiling:
    """Tiles of all images, in whole blocks."""
    return Tiling(Gather(problem, op), SQUARE, problem.N, TILES, COLUMNS, TERMS)


def work(problem: ConvProblem, op: Op, epilogue: Epilogue) -> Work:
    """What is done for a problem whose padding is zeros."""
    tiling = tiling_of(problem, op)
    gather = tiling.gather
    kernel = correlate_tiles(problem.layout == "channels_last", epilogue)
    grid = (tiling.result_rows // TILES * (tiling.result_room // COLUMNS), problem.groups)
    images = [np.int64(strides.image) for strides in (gather.source_strides, gather.result_strides)]

    @cache
    def launch(has_bias: bool) -> Launch:
        numbers = tiling.source_numbers, tiling.result_numbers, tiling.filter_size, int(has_bias)
        return Launch(kernel, grid, *numbers, *images)

    def run(queue, x, w, y, residual, bias, scratch):
        source, result = (x, y) if op is Op.FORWARD else (y, x)
        bias_or_any = result if bias is None else bias
        launch(bias is not None)(queue, source, w[1], result, residual, bias_or_any, scratch[0])

    return Work(run, (), filter_form(tiling, COLUMNS), {"outputs": SQUARE.outputs, "rows": TILES, "columns": COLUMNS})


def cost(problem: ConvProblem, op: Op, gpu: Gpu) -> float:
    """Predicted seconds, but for the filters."""
    tiling = tiling_of(problem, op)
    flops = 2 * tiling.result_rows * tiling.result_room * problem.groups * FREQUENCIES * tiling.source_room
    return gpu.seconds(flops / RATE, problem.bytes)
