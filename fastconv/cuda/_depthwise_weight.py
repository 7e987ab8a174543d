"""GRAD_WEIGHT of filters that reach one channel: a thread keeps a filter's sums in registers, over many pixels.

With one channel c of x for each k of y::

    w[k, t, r, s] = sum over n, z, p, q of y[n, k, z, p, q] * x[n, c, z * stride + t * dilation - padding, ...]

The pixels are divided among blocks, the blocks of one filter write a sum each, and a second kernel adds those up: every
sum has one order, which the shapes decide. The windows of x are those of FORWARD (`fastconv.cuda._depthwise`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..core.problem import ConvProblem, Op
from ._depthwise import (
    OTHERS_OF_PIXELS,
    OTHERS_OF_PLANES,
    RESULTS_ACROSS,
    Numbers,
    PixelPlace,
    is_served,
    load_from_tile,
    load_pixels,
    resident,
    results_of,
    slice_of,
)
from ._device import (
    COMPUTED_AS,
    WARP,
    barrier,
    block_x,
    block_y,
    cuda,
    fetched,
    function,
    get,
    int32,
    int64,
    pointer,
    put,
    quotient,
    real_of,
    record,
    remainder,
    shifted,
    thread,
)
from ._gather import Gather
from ._kernel import Body, Kernel, Launch, kernels
from ._planes import CAPACITY, SHARED_ALIGNMENT, THREADS, Tile, place_of_thread, tile_loader, tile_of
from ._queue import Part
from ._windows import VECTOR, Along, correlated, in_turn

SLOTS = THREADS // WARP
PITCH = THREADS + 1  # of the sums of one tap in shared memory
ADDING_THREADS, ADDING_SLOTS = 256, 8
# Blocks that the work is divided into, where it is enough: eight for each of 132 multiprocessors.
WANTED_BLOCKS = 1056


class Split(NamedTuple):
    """How the tiles of all images are divided among blocks."""

    tiles_across: int
    tiles_down: int
    tiles: int  # of all slices and images
    share: int  # of a block


class TilePlace(NamedTuple):
    """Where a window of shared memory begins, and the pixels of a thread that are in y."""

    at: Any
    pitch: Any
    pixels_down: Any
    pixels_across: Any


@function
def place_of_tile(split, number, depth):
    """Image, slice, and the tile's number down and across."""
    rest = quotient(number, split.tiles_across)
    across = int32(number - rest * split.tiles_across)
    down = remainder(rest, split.tiles_down)
    rest = quotient(rest, split.tiles_down)
    return quotient(rest, depth), remainder(rest, depth), down, across


@function
def load_gradients(gradients, y, at, n, pixels_down, pixels_across, rows, columns):
    """A thread's pixels of y; those outside are never used."""
    for i in range(rows):
        for j in range(columns):
            if i < pixels_down and j < pixels_across:
                gradients[i * columns + j] = get(y, int32(at + i * n.result_h + j * n.result_w))


class Parts(NamedTuple):
    """Which threads of a block share a filter, and where its sum is written."""

    filters: Any  # how many the block has
    filter_threads: Any  # distance of the first threads of two of them
    count: Any  # threads of one
    distance: Any  # from one of them to the next
    at: Any  # of the first filter's slice
    between: Any  # elements from one filter to the next


def sums_writer(filter_size: int, real: Any) -> Any:
    """The function ``(sums, partial, _, elements, parts)`` that adds up and writes the sums of a block's threads.

    A few taps at a time go through shared memory, in rows whose pitch spreads them over its banks.
    """

    def of_taps(first: int, count: int) -> Any:
        @function
        def write(sums, partial, _, elements, parts):
            barrier()
            for k in range(count):
                elements[k * PITCH + thread()] = sums[first + k]
            barrier()
            for each in range(thread(), int32(parts.filters * count), int32(THREADS)):
                number, k = quotient(int32(each), int32(count)), remainder(int32(each), int32(count))
                total = real(0)
                for part in range(parts.count):
                    total += elements[k * PITCH + number * parts.filter_threads + part * parts.distance]
                put(partial, int32(parts.at + number * parts.between + first + k), total)

        return write

    most = CAPACITY // PITCH
    return in_turn([of_taps(first, min(most, filter_size - first)) for first in range(0, filter_size, most)])


@kernels
def correlate_planes(dtype: str, down: Along, across: Along, rows: int, columns: int) -> Body:
    """channels_first: a block sums its share of the tiles of some planes, for one slice of their filters."""
    real = real_of(dtype)
    load, vectors = tile_loader(dtype), across.vectors(columns)
    add = correlated(down, across, rows, columns, load_from_tile(vectors))
    write = sums_writer(down.taps * across.taps, real)
    window_size, pixels, filter_size = vectors * VECTOR, rows * columns, down.taps * across.taps

    def body(
        x,  # read
        y,  # read
        partial,  # (splits, K, T, R, S), written
        n,  # Numbers of FORWARD
        tile,  # Tile
        split,  # Split
        x_image,  # int64: elements from one image of x to the next
        y_image,  # int64: likewise of y
    ):
        elements = cuda.shared.array(CAPACITY, real, SHARED_ALIGNMENT)
        sums = cuda.local.array(filter_size, real)
        gradients = cuda.local.array(pixels, real)
        window = cuda.local.array(window_size, real)
        t = remainder(block_x(), n.taps_d)
        channel = int32(quotient(block_x(), n.taps_d) * tile.planes)
        planes = min(tile.planes, int32(n.channels - channel))
        plane, row, column = place_of_thread(tile)
        row, column = int32(row * rows), int32(column * columns)
        at = int32((row * down.step + plane * tile.source_rows) * tile.pitch + column * across.step)
        first_plane = int32(quotient(channel, n.result_channels) * n.source_channel)
        for k in range(filter_size):
            sums[k] = real(0)
        first = int32(block_y() * split.share)
        for number in range(first, min(int32(first + split.share), split.tiles)):
            image, slice_, tile_row, tile_column = place_of_tile(split, int32(number), n.depth)
            tile_row = int32(tile_row * rows << tile.down_bits)
            tile_column = int32(tile_column * columns << tile.across_bits)
            d = slice_of(n, slice_, t)
            if d >= 0:
                barrier()
                source = shifted(x, int64(image) * x_image + int64(int32(first_plane + d * n.source_d)))
                h, w = int32(n.first_h + tile_row * down.step), int32(n.first_w + tile_column * across.step)
                load(elements, source, tile, planes, n, h, w)
                fetched()
                barrier()
                pixels_down, pixels_across = int32(n.height - tile_row - row), int32(n.width - tile_column - column)
                if plane < planes and pixels_down > 0 and pixels_across > 0:
                    outputs = shifted(y, int64(image) * y_image)
                    y_at = int32(
                        (channel + plane) * n.result_channel
                        + slice_ * n.result_d
                        + (tile_row + row) * n.result_h
                        + (tile_column + column) * n.result_w
                    )
                    load_gradients(gradients, outputs, y_at, n, pixels_down, pixels_across, rows, columns)
                    add(sums, gradients, window, elements, TilePlace(at, tile.pitch, pixels_down, pixels_across))
        threads = int32(1 << (tile.across_bits + tile.down_bits))
        at = int32(((block_y() * n.channels + channel) * n.taps_d + t) * filter_size)
        parts = Parts(planes, threads, threads, int32(1), at, int32(n.taps_d * filter_size))
        write(sums, partial, n, elements, parts)

    pointers = pointer(dtype), pointer(dtype), pointer(COMPUTED_AS[dtype])
    arguments = (*pointers, record(Numbers), record(Tile), record(Split), int64, int64)
    blocks = resident(filter_size + pixels + window_size, OTHERS_OF_PLANES, real)
    return Body(body, arguments, THREADS, blocks)


@kernels
def correlate_pixels(dtype: str, down: Along, across: Along, rows: int, columns: int) -> Body:
    """channels_last: a warp sums tiles of 32 channels, a thread those of one, and the warps of a block are added up."""
    real = real_of(dtype)
    window_size, pixels, filter_size = across.window(columns), rows * columns, down.taps * across.taps
    add = correlated(down, across, rows, columns, load_pixels(window_size, real))
    write = sums_writer(filter_size, real)

    def body(
        x,  # read
        y,  # read
        partial,  # (splits, K, T, R, S), written
        n,  # Numbers of FORWARD
        split,  # Split
        x_image,  # int64: elements from one image of x to the next
        y_image,  # int64: likewise of y
    ):
        elements = cuda.shared.array(CAPACITY, real, SHARED_ALIGNMENT)
        sums = cuda.local.array(filter_size, real)
        gradients = cuda.local.array(pixels, real)
        window = cuda.local.array(window_size, real)
        t = remainder(block_x(), n.taps_d)
        slot, lane = quotient(thread(), int32(WARP)), remainder(thread(), int32(WARP))
        channel = int32(quotient(block_x(), n.taps_d) * WARP + lane)
        for k in range(filter_size):
            sums[k] = real(0)
        if channel < n.channels:
            x_channel = int32(quotient(channel, n.result_channels) * n.source_channel)
            first = int32(block_y() * split.share)
            for number in range(int32(first + slot), min(int32(first + split.share), split.tiles), SLOTS):
                image, slice_, row, column = place_of_tile(split, int32(number), n.depth)
                row, column = int32(row * rows), int32(column * columns)
                d = slice_of(n, slice_, t)
                if d >= 0:
                    pixels_down, pixels_across = int32(n.height - row), int32(n.width - column)
                    y_at = int32(
                        channel * n.result_channel + slice_ * n.result_d + row * n.result_h + column * n.result_w
                    )
                    outputs = shifted(y, int64(image) * y_image)
                    load_gradients(gradients, outputs, y_at, n, pixels_down, pixels_across, rows, columns)
                    place = PixelPlace(
                        int32(x_channel + d * n.source_d),
                        int32(n.first_h + row * down.step),
                        int32(n.first_w + column * across.step),
                        n.source_height,
                        n.source_width,
                        n.source_h,
                        n.source_w,
                        pixels_down,
                        pixels_across,
                    )
                    add(sums, gradients, window, shifted(x, int64(image) * x_image), place)
        first = int32(channel - lane)
        at = int32(((block_y() * n.channels + first) * n.taps_d + t) * filter_size)
        filters = min(int32(WARP), int32(n.channels - first))
        parts = Parts(filters, int32(1), int32(SLOTS), int32(WARP), at, int32(n.taps_d * filter_size))
        write(sums, partial, n, elements, parts)

    pointers = pointer(dtype), pointer(dtype), pointer(COMPUTED_AS[dtype])
    arguments = (*pointers, record(Numbers), record(Split), int64, int64)
    numbers = filter_size + pixels + window_size
    blocks = resident(numbers, OTHERS_OF_PIXELS + numbers, real)
    return Body(body, arguments, THREADS, blocks)


@kernels
def add_splits(dtype: str) -> Body:
    """Add up what the blocks of each filter have summed: a warp takes every eighth split of 32 elements."""
    real = real_of(dtype)

    def body(
        partial,  # (splits, size), read
        w,  # (size,), written
        splits,  # int32
        size,  # int32
    ):
        parts = cuda.shared.array(ADDING_THREADS, real)
        slot, lane = quotient(thread(), int32(WARP)), remainder(thread(), int32(WARP))
        at = int32(block_x() * WARP + lane)
        total = real(0)
        if at < size:
            for split in range(slot, splits, int32(ADDING_SLOTS)):
                total += get(partial, int32(split * size + at))
        parts[thread()] = total
        barrier()
        if slot == 0 and at < size:
            for other in range(1, ADDING_SLOTS):
                total += parts[other * WARP + lane]
            put(w, at, total)

    return Body(body, (pointer(COMPUTED_AS[dtype]), pointer(dtype), int32, int32), ADDING_THREADS)


class Correlation(NamedTuple):
    """What computes GRAD_WEIGHT: ``run(queue, x, w, y, partial)``, its scratch memory, and additions in a row."""

    run: Callable[..., None]
    partial: Part
    additions: int


def depthwise_weight(problem: ConvProblem) -> Correlation | None:
    """What computes GRAD_WEIGHT; None where these kernels do not serve."""
    gather = Gather(problem, Op.FORWARD)
    down, across = Along.of(problem, Op.GRAD_WEIGHT, 1), Along.of(problem, Op.GRAD_WEIGHT, 2)
    rows = results_of(down, problem.output[1])
    if gather.source_channels > 1 or not is_served(down, across, RESULTS_ACROSS):
        return None
    divided = _divided(gather, (problem.dtype, down, across, rows, RESULTS_ACROSS))
    if divided is None:
        return None
    kernel, records, columns_of_blocks, tiles = divided
    count = problem.N * problem.output[0] * math.prod(tiles)
    share = -(-count // max(1, WANTED_BLOCKS // columns_of_blocks))
    splits, size = -(-count // share) if count else 0, math.prod(problem.w_shape)
    images = np.int64(gather.source_strides.image), np.int64(gather.result_strides.image)
    correlate = Launch(
        kernel, (columns_of_blocks, splits), Numbers.of(gather, False), *records, Split(*tiles, count, share), *images
    )
    add = Launch(add_splits(problem.dtype), (-(-size // WARP),), splits, size)

    def run(queue, x, w, y, partial):
        correlate(queue, x, y, partial)
        add(queue, partial, w)

    additions = share * rows * RESULTS_ACROSS + THREADS + splits // ADDING_SLOTS + ADDING_SLOTS
    return Correlation(run, (COMPUTED_AS[problem.dtype], splits * size), additions)


def _divided(gather: Gather, constants: Any) -> tuple[Kernel, tuple[Tile, ...], int, tuple[int, int]] | None:
    """The kernel, its own records, blocks for all filters, and tiles of a plane across and down."""
    _, down, across, rows, columns = constants
    problem = gather.problem
    height, width = problem.output[1:]
    if problem.layout == "channels_last":
        blocks = -(-problem.K // WARP) * problem.filter[0]
        return correlate_pixels(*constants), (), blocks, (-(-width // columns), -(-height // rows))
    most_planes = problem.K if gather.result_channels == 1 else 1
    tile = tile_of(down, across, rows, columns, (height, width), most_planes)
    if tile is None:
        return None
    blocks = -(-problem.K // tile.planes) * problem.filter[0]
    return correlate_planes(*constants), (tile,), blocks, (tile.tiles_across, tile.tiles_down)
