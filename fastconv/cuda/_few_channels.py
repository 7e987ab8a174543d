"""FORWARD and GRAD_INPUT of groups with few source or few result channels: first layers, last layers, multipliers.

A block computes a tile of pixels of some channels of one group. The source comes into shared memory channel by channel,
as for one filter a channel (`fastconv.cuda._depthwise`), and so do the filters of all channels of the block. A thread
has neighbouring pixels of all of them: each element of its window, and each tap, is read once for all products that it
is a factor of. The results go back through shared memory, so that neighbours write neighbours in either layout.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ..core.algorithm import Epilogue
from ..core.problem import ConvProblem, Op
from ._depthwise import (
    RESULTS_ACROSS,
    Numbers,
    is_served,
    load_from_tile,
    resident,
    results_of,
    slice_of,
)
from ._device import (
    barrier,
    cuda,
    fetched,
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
from ._epilogue import finish
from ._fetches import fetch_of
from ._gather import Gather
from ._kernel import Body, Launch, kernels
from ._limits import fits
from ._planes import (
    CAPACITY,
    SHARED_ALIGNMENT,
    THREADS,
    place_of_thread,
    tile_begin,
    tile_loader,
    tile_of,
    window_begin,
)
from ._planes import Tile as TileKind
from ._windows import VECTOR, Along, gathered_for_channels, in_turn

FEW = 4
# Result channels of a thread: with one row of pixels, or with as many rows as one channel would have, 64 sums.
MANY_CHANNELS, FEW_CHANNELS = 16, 4
OTHERS = 60  # registers of a thread beside its numbers, as few as spill nothing


class Place(NamedTuple):
    """Where a window, and the filters, begin in shared memory."""

    at: Any
    pitch: Any
    filters_at: Any


class Target(NamedTuple):
    """Where the results of a block belong."""

    result: Any  # pointers to the image
    residual: Any
    bias: Any
    channel: Any  # the first one
    channels: Any
    at: Any  # of the slice
    row: Any  # the first one
    column: Any


def results_storer(epilogue: Epilogue, is_last: bool, rows: int, columns: int, channels: int) -> Any:
    """The function ``(sums, n, tile, elements, target)`` that finishes and stores the results of a block.

    Some channels at a time are staged, planes of them one vector further apart than their size, so that threads along
    the channels meet different banks.
    """
    end, size = finish(epilogue), rows * columns
    pitch = THREADS * size + VECTOR

    def of_channels(first: int, count: int) -> Any:
        @function
        def store(sums, n, tile, elements, target):
            plane, row, column = place_of_thread(tile)
            width_bits, height_bits = tile.across_bits, tile.down_bits
            barrier()
            if plane == 0:
                for k in range(count):
                    for i in range(rows):
                        at = int32(k * pitch + ((row * rows + i << width_bits) + column) * columns)
                        for j in range(0, columns, VECTOR):
                            v = ((first + k) * rows + i) * columns + j
                            put4(elements, int32(at + j), sums[v], sums[v + 1], sums[v + 2], sums[v + 3])
            barrier()
            for each in range(thread(), int32(count * (rows * columns << width_bits + height_bits)), int32(THREADS)):
                if is_last:
                    k, pixel = remainder(int32(each), int32(count)), quotient(int32(each), int32(count))
                else:
                    pixels = int32(rows * columns << width_bits + height_bits)
                    k = quotient(int32(each), pixels)
                    pixel = int32(each - k * pixels)
                row = int32(quotient(pixel, int32(columns)) >> width_bits)
                column = int32(target.column + pixel - (row * columns << width_bits))
                value = elements[k * pitch + pixel]
                row, k = int32(target.row + row), int32(first + k)
                if k < target.channels and row < n.height and column < n.width:
                    channel = int32(target.channel + k)
                    at = int32(target.at + channel * n.result_channel + row * n.result_h + column * n.result_w)
                    put(target.result, at, end(value, channel, at, target.bias, n.has_bias, target.residual))

        return store

    most = min(channels, CAPACITY // pitch)
    return in_turn([of_channels(first, min(most, channels - first)) for first in range(0, channels, most)])


def filters_loader(dtype: str, taps_down: int, taps_across: int, channels: int) -> Any:
    """The function that begins to load a slice of the filters of some channels, (taps, channels), zeros beyond."""
    fetch = fetch_of(dtype)

    @function
    def load(elements, weight, at, n, filters_at, count):
        for each in range(thread(), taps_down * taps_across * channels, THREADS):
            k, tap = remainder(int32(each), int32(channels)), quotient(int32(each), int32(channels))
            r, s = quotient(tap, int32(taps_across)), remainder(tap, int32(taps_across))
            index = int32(at + k * n.weight_result + r * n.tap_h + s * n.tap_w)
            fetch(elements, int32(filters_at + each), weight, index, k < count)

    return load


@kernels
def gather_channels(
    dtype: str, epilogue: Epilogue, is_last: bool, down: Along, across: Along, rows: int, columns: int, channels: int
) -> Body:
    """A block computes a tile of the results of some channels of one group; is_last: whether the layout is so."""
    real, vectors = real_of(dtype), across.vectors(columns)
    load_tile, load_filters = tile_loader(dtype), filters_loader(dtype, down.taps, across.taps, channels)
    add = gathered_for_channels(down, across, rows, columns, channels, load_from_tile(vectors))
    begin_tile, begin_window = (each(down, across, rows, columns) for each in (tile_begin, window_begin))
    store = results_storer(epilogue, is_last, rows, columns, channels)
    window_size, results = vectors * VECTOR, rows * columns * channels

    def body(
        source,  # the tensor that is gathered, read
        weight,  # w, read
        result,  # written
        residual,  # like the result, read where the epilogue says so
        bias,  # (channels of the result,), read where there is one
        n,  # Numbers
        tile,  # Tile
        source_image,  # int64: elements from one image of the source to the next
        result_image,  # int64: likewise of the result
    ):
        elements = cuda.shared.array(CAPACITY, real, SHARED_ALIGNMENT)
        sums = cuda.local.array(results, real)
        factors = cuda.local.array(channels, real)
        window = cuda.local.array(window_size, real)
        parts = quotient(int32(n.result_channels + channels - 1), int32(channels))
        blocks = int32(quotient(n.channels, n.result_channels) * parts)
        image, block, slice_, first_row, first_column, h, w = begin_tile(tile, blocks, n)
        group = quotient(block, parts)
        within = int32((block - group * parts) * channels)
        count = min(int32(channels), int32(n.result_channels - within))
        plane, at = begin_window(tile)
        place = Place(at, tile.pitch, tile.filters_at)
        filters = int32(group * n.weight_group + within * n.weight_result + n.first_tap)
        for i in range(results):
            sums[i] = real(0)
        for layer in range(int32(n.taps_d * n.source_channels)):
            t = quotient(int32(layer), n.source_channels)
            c = int32(layer - t * n.source_channels)
            d = slice_of(n, slice_, t)
            if d >= 0:
                at = int32((group * n.source_channels + c) * n.source_channel + d * n.source_d)
                barrier()
                source_slice = shifted(source, int64(image) * source_image + int64(at))
                load_tile(elements, source_slice, tile, int32(1), n, h, w)
                at = int32(filters + t * n.tap_d + c * n.weight_source)
                load_filters(elements, weight, at, n, tile.filters_at, count)
                fetched()
                barrier()
                if plane == 0:
                    add(sums, factors, window, elements, place)
        offset = int64(image) * result_image
        channel = int32(group * n.result_channels + within)
        at = int32(slice_ * n.result_d)
        target = Target(
            shifted(result, offset), shifted(residual, offset), bias, channel, count, at, first_row, first_column
        )
        store(sums, n, tile, elements, target)

    arguments = (*[pointer(dtype)] * 5, record(Numbers), record(TileKind), int64, int64)
    return Body(body, arguments, THREADS, resident(results + channels + window_size, OTHERS, real))


Run = Callable[..., None]


def few_channels(problem: ConvProblem, op: Op, epilogue: Epilogue) -> Run | None:
    """What runs FORWARD or GRAD_INPUT, as `Work.run` without scratch; None where this kernel does not serve."""
    gather = Gather(problem, op)
    down, across = Along.of(problem, op, 1), Along.of(problem, op, 2)
    is_last = problem.layout == "channels_last"
    # Channel by channel is a bad way through a channels_last source of many.
    is_few = gather.source_channels <= FEW or (gather.result_channels <= FEW and not is_last)
    columns = RESULTS_ACROSS * across.spread
    if not (is_few and is_served(down, across, columns)):
        return None
    channels = FEW_CHANNELS if gather.result_channels <= FEW else MANY_CHANNELS // across.spread // down.spread
    rows = down.spread if channels > FEW_CHANNELS or across.spread > 1 else results_of(down, gather.result_extents[1])
    depth, height, width = gather.result_extents
    tile = tile_of(down, across, rows, columns, (height, width), 1, channels)
    if tile is None:
        return None
    blocks = tile.tiles_across * tile.tiles_down * depth * problem.groups * -(-gather.result_channels // channels)
    blocks *= problem.N
    if not fits(blocks):
        return None
    images = np.int64(gather.source_strides.image), np.int64(gather.result_strides.image)
    kernel = gather_channels(problem.dtype, epilogue, is_last, down, across, rows, columns, channels)

    @cache
    def launch(has_bias: bool) -> Launch:
        return Launch(kernel, (blocks,), Numbers.of(gather, has_bias), tile, *images)

    def run(queue, x, w, y, residual, bias):
        source, result = (x, y) if op is Op.FORWARD else (y, x)
        launch(bias is not None)(queue, source, w, result, residual, result if bias is None else bias)

    return run
