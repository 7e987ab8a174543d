"""FORWARD and GRAD_INPUT of filters that reach one channel: a thread computes neighbouring results from one window.

The time is that of memory: x is read and y written once. In channels_first a block loads a tile of x with its border
into shared memory, threads take windows from there by 128 bits, and the results go back through it, so that neighbours
write neighbours whatever the width is. In channels_last threads stand along the channels, and windows come straight
from the first-level cache, in which those of neighbouring threads overlap.

The products of several channels, or of several slices of a filter in three dimensions, follow one another in a loop, so
that groups of few source or few result channels are served too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ..core.algorithm import Epilogue
from ..core.problem import ConvProblem, Op
from ._device import (
    barrier,
    block_x,
    cuda,
    fetched,
    float64,
    function,
    get,
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
    Tile,
    place_of_thread,
    tile_begin,
    tile_loader,
    tile_of,
    window_begin,
)
from ._windows import VECTOR, Along, first_place, gathered

# A thread keeps its filter in registers, of which it has 255.
MOST_TAPS = 49
MOST_VECTORS = 6
MOST_SPREAD = 2
# Results of a thread: with four columns a window is whole vectors, and sixteen results share what is read of it.
RESULTS_ACROSS, RESULTS_DOWN = VECTOR, 4


REGISTERS = 65536  # of a multiprocessor
# Registers of a thread beside its numbers, as few as spill nothing: strides and copies under way. `gather_pixels` needs
# an address for each number too.
OTHERS_OF_PLANES, OTHERS_OF_PIXELS = 52, 30


class Numbers(NamedTuple):
    """What the kernels are told of the tensors; strides are in elements."""

    channels: int  # of the result, all groups together
    result_channels: int  # in one group
    source_channels: int
    depth: int  # extents of the result
    height: int
    width: int
    source_depth: int  # of the source
    source_height: int
    source_width: int
    first_d: int  # place of the first tap of result 0 along d
    first_h: int  # element of the source at which the window of result 0 begins
    first_w: int
    taps_d: int
    step_d: int
    spread_d: int
    dilation_d: int
    source_channel: int  # strides of the source
    source_d: int
    source_h: int
    source_w: int
    result_channel: int  # strides of the result
    result_d: int
    result_h: int
    result_w: int
    weight_group: int  # strides of w
    weight_result: int
    weight_source: int
    first_tap: int  # the tap that comes first, and strides of the taps in the order in which they are walked
    tap_d: int
    tap_h: int
    tap_w: int
    has_bias: int

    @classmethod
    def of(cls, gather: Gather, has_bias: bool) -> Numbers:
        """For an operation."""
        problem, op = gather.problem, gather.op
        down, across = Along.of(problem, op, 1), Along.of(problem, op, 2)
        source, result = gather.source_strides, gather.result_strides
        _, R, S = problem.filter
        first_tap, sign = (0, 1) if gather.is_forward else (problem.taps - 1, -1)
        return cls(
            gather.result_channels * problem.groups,
            gather.result_channels,
            gather.source_channels,
            *gather.result_extents,
            *gather.source_extents,
            first_place(problem, op, 0),
            (first_place(problem, op, 1) - down.lead) // down.spread,
            (first_place(problem, op, 2) - across.lead) // across.spread,
            problem.filter[0],
            gather.step[0],
            gather.spread[0],
            problem.dilation[0],
            source.channel,
            source.d,
            source.h,
            source.w,
            result.channel,
            result.d,
            result.h,
            result.w,
            *gather.weight_strides,
            first_tap,
            sign * R * S,
            sign * S,
            sign,
            int(has_bias),
        )


def resident(numbers: int, others: int, real: Any) -> int:
    """Blocks that fit a multiprocessor when its threads keep so many numbers in registers, and others beside them."""
    return max(1, REGISTERS // THREADS // (numbers * (2 if real is float64 else 1) + others))


class Place(NamedTuple):
    """Where a window of shared memory begins."""

    at: Any
    pitch: Any


class PixelPlace(NamedTuple):
    """Where a window of a channels_last tensor begins, and the pixels of a thread that are in the result."""

    at: Any  # element of row 0 and column 0 of the slice, for the thread's channel
    h: Any
    w: Any
    height: Any
    width: Any
    row: Any  # strides
    column: Any
    pixels_down: Any
    pixels_across: Any


@function
def slice_of(n, slice_, t):
    """The slice of the source that a slice of the result meets with this tap, or -1."""
    place = int32(slice_ * n.step_d + t * n.dilation_d + n.first_d)
    if place < 0 or place >= n.source_depth * n.spread_d or remainder(place, n.spread_d) != 0:
        return int32(-1)
    return quotient(place, n.spread_d)


@function
def load_filter(filter_, weight, at, n, taps_down, taps_across):
    """A slice of a filter, in the order in which its taps are walked."""
    for r in range(taps_down):
        for s in range(taps_across):
            filter_[r * taps_across + s] = get(weight, int32(at + r * n.tap_h + s * n.tap_w))


def load_from_tile(vectors: int) -> Any:
    """Loads of a window's row from shared memory."""

    @function
    def load(window, elements, place, number):
        for v in range(vectors):
            at = int32(place.at + number * place.pitch + v * VECTOR)
            k = v * VECTOR
            window[k], window[k + 1], window[k + 2], window[k + 3] = get4(elements, at)

    return load


def load_pixels(columns: int, real: Any) -> Any:
    """Loads of a window's row from memory, zeros outside; most rows are inside and ask once."""

    @function
    def load(window, elements, place, number):
        h = int32(place.h + number)
        at = int32(place.at + h * place.row + place.w * place.column)
        is_row = h >= 0 and h < place.height
        if is_row and place.w >= 0 and place.w + columns <= place.width:
            for k in range(columns):
                window[k] = get(elements, int32(at + k * place.column))
        else:
            for k in range(columns):
                window[k] = real(0)
                if is_row and place.w + k >= 0 and place.w + k < place.width:
                    window[k] = get(elements, int32(at + k * place.column))

    return load


def planes_storer(epilogue: Epilogue, rows: int, columns: int) -> Any:
    """The function that stores the results of a block's threads, staged in shared memory, so that neighbours do."""
    end, results = finish(epilogue), rows * columns

    @function
    def store(elements, sums, result, residual, bias, n, tile, planes, channel, slice_, first_row, first_column):
        plane, row, column = place_of_thread(tile)
        row = int32((plane << tile.down_bits) + row)
        barrier()
        if plane < planes:
            for k in range(0, results, VECTOR):
                at = int32((row * rows + k // columns << tile.across_bits) * columns + column * columns + k % columns)
                put4(elements, at, sums[k], sums[k + 1], sums[k + 2], sums[k + 3])
        barrier()
        column = int32(thread() & ((columns << tile.across_bits) - 1))
        first = int32(quotient(thread(), int32(columns)) >> tile.across_bits)
        at_column = int32(channel * n.result_channel + slice_ * n.result_d + first_column + column)
        for k in range(results):
            rest = int32(first + k * (THREADS // columns >> tile.across_bits))
            row = int32(first_row + (rest & ((rows << tile.down_bits) - 1)))
            plane = int32(quotient(rest, int32(rows)) >> tile.down_bits)
            if plane < planes and row < n.height and first_column + column < n.width:
                at = int32(at_column + plane * n.result_channel + row * n.result_h)
                put(result, at, end(elements[k * THREADS + thread()], channel + plane, at, bias, n.has_bias, residual))

    return store


def filters_loader(dtype: str, taps_down: int, taps_across: int) -> Any:
    """The function that begins to load a slice of the filters of some planes, in the order in which taps are walked."""
    fetch, filter_size = fetch_of(dtype), taps_down * taps_across

    @function
    def load(elements, weight, at, n, tile, planes):
        for each in range(thread(), int32(planes * filter_size), int32(THREADS)):
            plane, tap = quotient(int32(each), int32(filter_size)), remainder(int32(each), int32(filter_size))
            r, s = quotient(tap, int32(taps_across)), remainder(tap, int32(taps_across))
            index = int32(at + plane * n.weight_group + r * n.tap_h + s * n.tap_w)
            fetch(elements, int32(tile.filters_at + each), weight, index, True)

    return load


@kernels
def gather_planes(dtype: str, epilogue: Epilogue, down: Along, across: Along, rows: int, columns: int) -> Body:
    """channels_first: a block computes a tile of the results of some planes."""
    real, vectors = real_of(dtype), across.vectors(columns)
    load_tile, load_filters = tile_loader(dtype), filters_loader(dtype, down.taps, across.taps)
    begin_tile, begin_window = (each(down, across, rows, columns) for each in (tile_begin, window_begin))
    add, store = gathered(down, across, rows, columns, load_from_tile(vectors)), planes_storer(epilogue, rows, columns)
    window_size, results, filter_size = vectors * VECTOR, rows * columns, down.taps * across.taps

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
        filter_ = cuda.local.array(filter_size, real)
        window = cuda.local.array(window_size, real)
        channel_blocks = quotient(int32(n.channels + tile.planes - 1), tile.planes)
        image, channel, slice_, first_row, first_column, h, w = begin_tile(tile, channel_blocks, n)
        channel = int32(channel * tile.planes)
        planes = min(tile.planes, int32(n.channels - channel))
        plane, at = begin_window(tile)
        place = Place(at, tile.pitch)
        group = quotient(channel, n.result_channels)
        within = int32(channel - group * n.result_channels)
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
                load_tile(elements, shifted(source, int64(image) * source_image + int64(at)), tile, planes, n, h, w)
                load_filters(elements, weight, int32(filters + t * n.tap_d + c * n.weight_source), n, tile, planes)
                fetched()
                barrier()
                if plane < planes:
                    for k in range(filter_size):
                        filter_[k] = elements[tile.filters_at + plane * filter_size + k]
                    add(sums, filter_, window, elements, place)
        offset = int64(image) * result_image
        outputs, residuals = shifted(result, offset), shifted(residual, offset)
        store(elements, sums, outputs, residuals, bias, n, tile, planes, channel, slice_, first_row, first_column)

    arguments = (*[pointer(dtype)] * 5, record(Numbers), record(Tile), int64, int64)
    return Body(body, arguments, THREADS, resident(results + filter_size + window_size, OTHERS_OF_PLANES, real))


class Pixels(NamedTuple):
    """How the threads of `gather_pixels` divide the result."""

    tiles_across: int
    tiles_down: int
    blocks: int  # of the grid for one slice of an image


@kernels
def gather_pixels(dtype: str, epilogue: Epilogue, down: Along, across: Along, rows: int, columns: int) -> Body:
    """channels_last: a thread computes a tile of the results of one channel, its neighbour that of the next."""
    end, real = finish(epilogue), real_of(dtype)
    window_size, results, filter_size = across.window(columns), rows * columns, down.taps * across.taps
    add = gathered(down, across, rows, columns, load_pixels(window_size, real))

    def body(
        source,  # the tensor that is gathered, read
        weight,  # w, read
        result,  # written
        residual,  # like the result, read where the epilogue says so
        bias,  # (channels of the result,), read where there is one
        n,  # Numbers
        pixels,  # Pixels
        source_image,  # int64: elements from one image of the source to the next
        result_image,  # int64: likewise of the result
    ):
        sums = cuda.local.array(results, real)
        filter_ = cuda.local.array(filter_size, real)
        window = cuda.local.array(window_size, real)
        rest = quotient(block_x(), pixels.blocks)
        item = int32((block_x() - rest * pixels.blocks) * THREADS + thread())
        slice_, image = remainder(rest, n.depth), quotient(rest, n.depth)
        channel = remainder(item, n.channels)
        rest = quotient(item, n.channels)
        column = int32(remainder(rest, pixels.tiles_across) * columns)
        row = int32(quotient(rest, pixels.tiles_across) * rows)
        if row < n.height:
            group = quotient(channel, n.result_channels)
            filter_at = int32(
                group * n.weight_group + (channel - group * n.result_channels) * n.weight_result + n.first_tap
            )
            h = int32(n.first_h + quotient(int32(row * down.step), int32(down.spread)))
            w = int32(n.first_w + quotient(int32(column * across.step), int32(across.spread)))
            images = shifted(source, int64(image) * source_image)
            for i in range(results):
                sums[i] = real(0)
            for layer in range(int32(n.taps_d * n.source_channels)):
                t = quotient(int32(layer), n.source_channels)
                c = int32(layer - t * n.source_channels)
                d = slice_of(n, slice_, t)
                if d >= 0:
                    at = int32(filter_at + t * n.tap_d + c * n.weight_source)
                    load_filter(filter_, weight, at, n, down.taps, across.taps)
                    at = int32(d * n.source_d + (group * n.source_channels + c) * n.source_channel)
                    place = PixelPlace(at, h, w, n.source_height, n.source_width, n.source_h, n.source_w, rows, columns)
                    add(sums, filter_, window, images, place)
            offset = int64(image) * result_image
            outputs, residuals = shifted(result, offset), shifted(residual, offset)
            for i in range(rows):
                for j in range(columns):
                    if row + i < n.height and column + j < n.width:
                        at = int32(
                            channel * n.result_channel
                            + slice_ * n.result_d
                            + (row + i) * n.result_h
                            + (column + j) * n.result_w
                        )
                        total = end(sums[i * columns + j], channel, at, bias, n.has_bias, residuals)
                        put(outputs, at, total)

    arguments = (*[pointer(dtype)] * 5, record(Numbers), record(Pixels), int64, int64)
    numbers = results + filter_size + window_size
    return Body(body, arguments, THREADS, resident(numbers, OTHERS_OF_PIXELS + numbers, real))


Run = Callable[..., None]


def depthwise(problem: ConvProblem, op: Op, epilogue: Epilogue) -> Run | None:
    """What runs FORWARD or GRAD_INPUT, as `Work.run` without scratch; None where these kernels do not serve."""
    gather = Gather(problem, op)
    down, across = Along.of(problem, op, 1), Along.of(problem, op, 2)
    rows, columns = results_of(down, gather.result_extents[1]), RESULTS_ACROSS * across.spread
    if not is_served(down, across, columns):
        return None
    images = np.int64(gather.source_strides.image), np.int64(gather.result_strides.image)
    constants = problem.dtype, epilogue, down, across, rows, columns
    division, blocks, kernel = _divided(gather, constants)
    blocks *= problem.N
    if division is None or not fits(blocks):
        return None

    @cache
    def launch(has_bias: bool) -> Launch:
        return Launch(kernel, (blocks,), Numbers.of(gather, has_bias), division, *images)

    def run(queue, x, w, y, residual, bias):
        source, result = (x, y) if op is Op.FORWARD else (y, x)
        launch(bias is not None)(queue, source, w, result, residual, result if bias is None else bias)

    return run


def results_of(down: Along, height: int) -> int:
    """Rows of results of a thread: with strides, half as many share their window, and one row has no neighbours."""
    return down.spread if height == 1 else max(RESULTS_DOWN // down.step, down.spread)


def is_served(down: Along, across: Along, columns: int) -> bool:
    """Whether a filter and a window fit into the registers of a thread."""
    return (
        down.taps * across.taps <= MOST_TAPS
        and across.vectors(columns) <= MOST_VECTORS
        and max(down.spread, across.spread) <= MOST_SPREAD
    )


def _divided(gather: Gather, constants: Any) -> Any:
    """How the result is divided, blocks of an image, and the kernel."""
    *_, down, across, rows, columns = constants
    depth, height, width = gather.result_extents
    channels = gather.result_channels * gather.problem.groups
    if gather.problem.layout == "channels_last":
        tiles = -(-width // columns), -(-height // rows)
        blocks = -(-channels * math.prod(tiles) // THREADS)
        return Pixels(*tiles, blocks), blocks * depth, gather_pixels(*constants)
    most_planes = channels if gather.result_channels == gather.source_channels == 1 else 1
    tile = tile_of(down, across, rows, columns, (height, width), most_planes)
    if tile is None:
        return None, 0, None
    blocks = tile.tiles_across * tile.tiles_down * depth * -(-channels // tile.planes)
    return tile, blocks, gather_planes(*constants)
