"""GRAD_WEIGHT through Fourier transforms of tiles, for filters of which each has one source channel.

With Y the spectrum of a tile of y, zeros around it, and X that of x around the tile::

    w[k] = the inverse transform of the sum over images and tiles of X * conj(Y), at the places of the taps

x and y go together as the real and the imaginary part of one square z: with Z' the conjugate of Z at the opposite
frequency, X = (Z + Z') / 2 and Y = (Z - Z') / 2i. A block sums some of the tiles of one channel, its threads each some
frequencies in registers; a second kernel adds the blocks' sums in their order, and transforms them back once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.problem import ConvProblem
from ._contained import watch
from ._device import (
    COMPUTED_AS,
    barrier,
    block_x,
    block_y,
    cuda,
    fourier,
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
from ._fft_planes import FilterNumbers, Numbers, gathering, tile_place
from ._fourier import Square, keeping, passing, row_of, transforming, twisting
from ._kernel import Body, Launch, kernels
from ._plan import Work
from ._queue import Table

# Blocks of a launch, where there are tiles for them: four for each of 132 multiprocessors.
LEAST_BLOCKS = 528
# Blocks that a multiprocessor is to hold: their threads have 80 registers each, of which the sums take 32.
RESIDENT = 3


def opposite(square: Square) -> Any:
    """The function of the place of frequency k that gives the place of -k, modulo N."""
    first, second, edge = square.first, square.second, square.edge

    @function
    def place(number):
        k = int32(quotient(number, int32(second)) + first * remainder(number, int32(second)))
        k = remainder(int32(edge - k), int32(edge))
        return int32(remainder(k, int32(first)) * second + quotient(k, int32(first)))

    return place


@kernels
def sum_spectra(dtype: str, square: Square) -> Body:
    """A block sums the spectra of some tiles of one channel of y."""
    real_type = real_of(dtype)
    edge, pitch, threads, memory = square.edge, square.pitch, square.threads, square.memory
    first, second = square.first, square.second
    pieces, held = edge * edge // first // threads, edge * edge // threads
    gather, row_of_sum, twist = gathering(square, real_type), row_of(square), twisting(square, False)
    transform, keep_row, opposite_of = fourier(first), keeping(first, second), opposite(square)
    rows_second = passing(square, real_type, True, False, False)
    columns_first = passing(square, real_type, False, True, False)
    columns_second = passing(square, real_type, False, False, False)

    @function
    def add(real_sums, imaginary_sums, some_real, some_imaginary):
        """X * conj(Y), four times, at the frequencies of this thread."""
        column = remainder(thread(), int32(edge))
        other_column = opposite_of(column)
        for k in range(held):
            row = quotient(int32(thread() + k * threads), int32(edge))
            at, other = int32(row * pitch + column), int32(opposite_of(row) * pitch + other_column)
            a, b = get(some_real, at), get(some_imaginary, at)
            c, d = get(some_real, other), get(some_imaginary, other)
            real_sums[k] += (a + c) * (b + d) - (b - d) * (a - c)
            imaginary_sums[k] += (a + c) * (a - c) + (b - d) * (b + d)

    def body(
        x,  # read
        y,  # read
        sums,  # (blocks, channels of y, 2, N, N), written
        twiddles,  # `Square.twiddles`
        n,  # Numbers of FORWARD
        block_tiles,  # tiles of a block
        channels,  # of y
        x_image,  # int64: elements from one image of x to the next
        y_image,  # int64: likewise of y
    ):
        some_real = cuda.shared.array(memory, real_type, 16)
        some_imaginary = cuda.shared.array(memory, real_type, 16)
        real, imaginary = cuda.local.array(first, real_type), cuda.local.array(first, real_type)
        real_sums, imaginary_sums = cuda.local.array(held, real_type), cuda.local.array(held, real_type)
        for k in range(held):
            real_sums[k] = real_type(0)
            imaginary_sums[k] = real_type(0)
        channel, block = block_x(), block_y()
        x_at = int32(quotient(channel, n.result_channels) * n.source_channel)
        y_at = int32(channel * n.result_channel)
        begin = int32(block * block_tiles)
        for tile in range(begin, min(int32(begin + block_tiles), n.tiles)):
            image, h, w = tile_place(int32(tile), n)
            images, gradients = shifted(x, int64(image) * x_image), shifted(y, int64(image) * y_image)
            bottom, right = min(n.result_height, int32(h + n.valid_h)), min(n.result_width, int32(w + n.valid_w))
            for piece in range(pieces):
                row, n2 = row_of_sum(int32(thread() + piece * threads))
                top, left = int32(h + n.first_h + row), int32(w + n.first_w)
                gather(real, images, x_at, top, left, n2, n.extent_h, n.extent_w, n.source_h, n.source_w)
                gather(imaginary, gradients, y_at, int32(h + row), w, n2, bottom, right, n.result_h, n.result_w)
                transform(real, imaginary)
                twist(real, imaginary, twiddles, n2)
                keep_row(real, imaginary, some_real, some_imaginary, int32(row * pitch + n2))
            barrier()
            rows_second(some_real, some_imaginary, twiddles)
            barrier()
            columns_first(some_real, some_imaginary, twiddles)
            barrier()
            columns_second(some_real, some_imaginary, twiddles)
            barrier()
            add(real_sums, imaginary_sums, some_real, some_imaginary)
            barrier()
        some_sums = shifted(sums, (int64(block) * int64(channels) + int64(channel)) * (2 * edge * edge))
        for k in range(held):
            put(some_sums, int32(thread() + k * threads), real_sums[k])
            put(some_sums, int32(edge * edge + thread() + k * threads), imaginary_sums[k])

    computed = pointer(COMPUTED_AS[dtype])
    arguments = (pointer(dtype), pointer(dtype), computed, computed, record(Numbers), int32, int32, int64, int64)
    return Body(body, arguments, threads, RESIDENT)


@kernels
def transform_back(dtype: str, square: Square) -> Body:
    """A block adds the sums of one channel of y, and transforms them to its filter."""
    real_type = real_of(dtype)
    edge, pitch, threads, memory = square.edge, square.pitch, square.threads, square.memory
    transform = transforming(square, real_type, True)
    scale = 1 / (2 * edge) ** 2

    def body(
        sums,  # (blocks, channels of y, 2, N, N), read
        w,  # written
        alarm,  # int32 (1,), raised at a sum that is not finite
        twiddles,  # `Square.twiddles`
        n,  # FilterNumbers
        blocks,
        channels,  # of y
    ):
        some_real = cuda.shared.array(memory, real_type, 16)
        some_imaginary = cuda.shared.array(memory, real_type, 16)
        channel = block_x()
        for i in range(thread(), int32(edge * edge), int32(threads)):
            real, imaginary = real_type(0), real_type(0)
            for block in range(blocks):
                all_sums = shifted(sums, (int64(block) * int64(channels) + int64(channel)) * (2 * edge * edge))
                real += get(all_sums, int32(i))
                imaginary += get(all_sums, int32(edge * edge + i))
            at = int32(quotient(int32(i), int32(edge)) * pitch + remainder(int32(i), int32(edge)))
            put(some_real, at, real)
            put(some_imaginary, at, imaginary)
        transform(some_real, some_imaginary, twiddles)
        taps = int32(n.height * n.width)
        for tap in range(thread(), taps, int32(threads)):
            r, s = quotient(int32(tap), n.width), remainder(int32(tap), n.width)
            total = get(some_real, int32(r * n.dilation_h * pitch + s * n.dilation_w)) * real_type(scale)
            watch(total, alarm)
            put(w, int32(channel * taps + tap), total)

    computed = pointer(COMPUTED_AS[dtype])
    arguments = (computed, pointer(dtype), pointer("int32"), computed, record(FilterNumbers), int32, int32)
    return Body(body, arguments, threads)


def splits_of(problem: ConvProblem, tiles: int) -> tuple[int, int]:
    """Blocks of one channel, and tiles of a block."""
    blocks = min(tiles, -(-LEAST_BLOCKS // problem.K))
    block_tiles = -(-tiles // blocks)
    return -(-tiles // block_tiles), block_tiles


def work(
    square: Square, problem: ConvProblem, numbers: Numbers, filters: FilterNumbers, images: tuple[int, int]
) -> Work:
    """What is done for a problem whose padding is zeros; images: elements from one of x and of y to the next."""
    real = COMPUTED_AS[problem.dtype]
    twiddles = Table(square.twiddles.astype(real))
    blocks, block_tiles = splits_of(problem, numbers.tiles)
    sum_tiles = Launch(
        sum_spectra(problem.dtype, square), (problem.K, blocks), numbers, block_tiles, problem.K, *map(np.int64, images)
    )
    add = Launch(transform_back(problem.dtype, square), (problem.K,), filters, blocks, problem.K)

    def run(queue, x, w, y, residual, bias, scratch):
        alarm, sums = scratch
        sum_tiles(queue, x, y, sums, twiddles.on(queue))
        add(queue, sums, w, alarm, twiddles.on(queue))

    size = blocks * problem.K * 2 * square.edge**2
    return Work(run, ((real, size),), None, {"edge": square.edge, "blocks": blocks, "tiles": block_tiles})
