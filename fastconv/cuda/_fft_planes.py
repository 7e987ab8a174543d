"""Fourier transforms of single channels, for filters of which each has one source channel: overlap-save.

The result is cut into tiles; those of the source around them are squares of N x N that a block transforms in shared
memory (`fastconv.cuda._fourier`). With X and F the spectra of the source around a tile and of the filter::

    tile = inverse transform of (X * conj(F)), of which the first N - reach + 1 rows and columns are right

Two tiles go together as the real and the imaginary part of one square: the filter is real, so they stay apart.
GRAD_INPUT is the same with the filter turned around.

Source: Oppenheim, Schafer, Discrete-Time Signal Processing, 3rd edition, 2010, section 8.7.3 (overlap-save).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..core.algorithm import Epilogue
from ._contained import watch
from ._device import (
    COMPUTED_AS,
    barrier,
    block_x,
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
from ._epilogue import finish
from ._fourier import Square, keeping, passing, row_of, taking, transforming, twisting
from ._kernel import Body, kernels

# Blocks that a multiprocessor is to hold: four of 33 KB of shared memory, whose 1024 threads have 64 registers each.
RESIDENT = 4


class FilterNumbers(NamedTuple):
    """What `transform_filters` is told."""

    height: int  # taps, R
    width: int
    dilation_h: int
    dilation_w: int
    result_channels: int  # of a group
    weight_group: int  # strides of w
    weight_result: int


@kernels
def transform_filters(dtype: str, square: Square, is_turned: bool) -> Body:
    """A block transforms the filter of one result channel; is_turned: from its last tap to the first."""
    real_type = real_of(dtype)
    edge, pitch, threads, memory = square.edge, square.pitch, square.threads, square.memory
    transform = transforming(square, real_type, False)
    scale = 1 / edge**2

    def body(
        w,  # read
        spectra,  # (channels of the result, 2, N, N), written: conjugated, over N^2, in the order of the passes
        twiddles,  # `Square.twiddles`
        n,  # FilterNumbers
    ):
        some_real = cuda.shared.array(memory, real_type, 16)
        some_imaginary = cuda.shared.array(memory, real_type, 16)
        channel = block_x()
        group = quotient(channel, n.result_channels)
        filter_ = int32(group * n.weight_group + (channel - group * n.result_channels) * n.weight_result)
        for i in range(thread(), int32(edge * edge), int32(threads)):
            row, column = quotient(int32(i), int32(edge)), remainder(int32(i), int32(edge))
            r, s = quotient(row, n.dilation_h), quotient(column, n.dilation_w)
            value = real_type(0)
            if r < n.height and s < n.width and r * n.dilation_h == row and s * n.dilation_w == column:
                tap = int32(r * n.width + s)
                if is_turned:
                    tap = int32(n.height * n.width - 1 - tap)
                value = get(w, int32(filter_ + tap)) * real_type(scale)
            put(some_real, int32(row * pitch + column), value)
            put(some_imaginary, int32(row * pitch + column), real_type(0))
        transform(some_real, some_imaginary, twiddles)
        spectrum = shifted(spectra, int64(channel) * (2 * edge * edge))
        for i in range(thread(), int32(edge * edge), int32(threads)):
            row, column = quotient(int32(i), int32(edge)), remainder(int32(i), int32(edge))
            put(spectrum, int32(i), get(some_real, int32(row * pitch + column)))
            put(spectrum, int32(edge * edge + i), -get(some_imaginary, int32(row * pitch + column)))

    return Body(body, (pointer(dtype), *[pointer(COMPUTED_AS[dtype])] * 2, record(FilterNumbers)), threads)


class Numbers(NamedTuple):
    """What `correlate_tiles` is told; strides are in elements."""

    tiles: int  # of all images
    image_tiles: int
    across: int  # tiles along w
    result_channels: int  # of a group
    valid_h: int  # of the result in a tile
    valid_w: int
    first_h: int  # place in the source of what the first element of the result needs
    first_w: int
    extent_h: int  # of the source
    extent_w: int
    source_channel: int  # strides
    source_h: int
    source_w: int
    result_height: int  # extents
    result_width: int
    result_channel: int
    result_h: int
    result_w: int
    has_bias: int


@function
def tile_place(tile, n):
    """Image and place in the result of a tile, or of the last one for one behind it."""
    tile = min(tile, int32(n.tiles - 1))
    image = quotient(tile, n.image_tiles)
    tile = int32(tile - image * n.image_tiles)
    row = quotient(tile, n.across)
    return image, int32(row * n.valid_h), int32((tile - row * n.across) * n.valid_w)


def gathering(square: Square, real_type: Any) -> Any:
    """The function that takes elements n2, B + n2, ... of a row: those that are inside, and zeros.

    ``(values, elements, at, h, w, n2, height, width, row, column)``; at: of a channel; h, w: of the row's beginning;
    height, width: where the tensor ends; row, column: its strides.
    """
    first, second = square.first, square.second

    @function
    def gather(values, elements, at, h, w, n2, height, width, row, column):
        at = int32(at + h * row + w * column)
        is_row = h >= 0 and h < height
        for k in range(first):
            place = int32(k * second + n2)
            is_inside = is_row and w + place >= 0 and w + place < width
            values[k] = get(elements, int32(at + place * column)) if is_inside else real_type(0)

    return gather


@kernels
def correlate_tiles(dtype: str, square: Square, epilogue: Epilogue) -> Body:
    """A block computes two tiles of one channel."""
    real_type = real_of(dtype)
    first, second, edge, pitch = square.first, square.second, square.edge, square.pitch
    threads, memory = square.threads, square.memory
    first_pieces, second_pieces = edge * edge // first // threads, edge * edge // second // threads
    row_of_sum, twist, untwist = row_of(square), twisting(square, False), twisting(square, True)
    transform_first, transform_second = fourier(first), fourier(second)
    take_row, keep_row = taking(first, second), keeping(first, second)
    take_column, keep_column = taking(second, pitch), keeping(second, pitch)
    rows_second = passing(square, real_type, True, False, False)
    columns_first = passing(square, real_type, False, True, False)
    columns_back = passing(square, real_type, False, True, True)
    rows_back = passing(square, real_type, True, False, True)
    gather, end = gathering(square, real_type), finish(epilogue)

    @function
    def store(values, results, residuals, bias, alarm, channel, row, h, w, n2, is_real, n):
        """Finish and store the same of a row of the result, those that are right."""
        is_real = is_real and row < n.valid_h and h + row < n.result_height
        at = int32(channel * n.result_channel + (h + row) * n.result_h + w * n.result_w)
        for k in range(first):
            column = int32(k * second + n2)
            if is_real and column < n.valid_w and w + column < n.result_width:
                watch(values[k], alarm)
                place = int32(at + column * n.result_w)
                put(results, place, end(values[k], channel, place, bias, n.has_bias, residuals))

    def body(
        source,  # the tensor that is gathered, read
        spectra,  # (channels of the result, 2, N, N), read
        result,  # written
        residual,  # like the result, read where the epilogue says so
        bias,  # (channels of the result,), read where there is one
        alarm,  # int32 (1,), raised at a sum that is not finite
        twiddles,  # `Square.twiddles`
        n,  # Numbers
        source_image,  # int64: elements from one image of the source to the next
        result_image,  # int64: likewise of the result
    ):
        some_real = cuda.shared.array(memory, real_type, 16)
        some_imaginary = cuda.shared.array(memory, real_type, 16)
        real, imaginary = cuda.local.array(first, real_type), cuda.local.array(first, real_type)
        pairs = int32((n.tiles + 1) >> 1)
        channel = quotient(block_x(), pairs)
        source_at = int32(quotient(channel, n.result_channels) * n.source_channel)
        tile = int32(2 * (block_x() - channel * pairs))
        is_pair = tile + 1 < n.tiles
        height = n.extent_h if is_pair else int32(0)  # of the other tile's source: nothing is inside if there is none
        image, h, w = tile_place(tile, n)
        other_image, h2, w2 = tile_place(int32(tile + 1), n)

        images = shifted(source, int64(image) * source_image)
        other_images = shifted(source, int64(other_image) * source_image)
        for piece in range(first_pieces):
            row, n2 = row_of_sum(int32(thread() + piece * threads))
            at = int32(h + n.first_h + row)
            left = int32(w + n.first_w)
            gather(real, images, source_at, at, left, n2, n.extent_h, n.extent_w, n.source_h, n.source_w)
            at = int32(h2 + n.first_h + row)
            left = int32(w2 + n.first_w)
            gather(imaginary, other_images, source_at, at, left, n2, height, n.extent_w, n.source_h, n.source_w)
            transform_first(real, imaginary)
            twist(real, imaginary, twiddles, n2)
            keep_row(real, imaginary, some_real, some_imaginary, int32(row * pitch + n2))
        barrier()
        rows_second(some_real, some_imaginary, twiddles)
        barrier()
        columns_first(some_real, some_imaginary, twiddles)
        barrier()

        spectrum = shifted(spectra, int64(channel) * (2 * edge * edge))
        for piece in range(second_pieces):
            item = int32(thread() + piece * threads)
            column, k1 = remainder(item, int32(edge)), quotient(item, int32(edge))
            at = int32(k1 * second * pitch + column)
            take_column(real, imaginary, some_real, some_imaginary, at)
            transform_second(real, imaginary)
            for k in range(second):
                place = int32((k1 * second + k) * edge + column)
                factor, other = get(spectrum, place), get(spectrum, int32(place + edge * edge))
                value = real[k]
                real[k] = value * factor - imaginary[k] * other
                imaginary[k] = imaginary[k] * factor + value * other
            transform_second(imaginary, real)
            keep_column(real, imaginary, some_real, some_imaginary, at)
        barrier()

        columns_back(some_real, some_imaginary, twiddles)
        barrier()
        rows_back(some_real, some_imaginary, twiddles)
        barrier()
        offset, other_offset = int64(image) * result_image, int64(other_image) * result_image
        results, residuals = shifted(result, offset), shifted(residual, offset)
        other_results, other_residuals = shifted(result, other_offset), shifted(residual, other_offset)
        for piece in range(first_pieces):
            row, n2 = row_of_sum(int32(thread() + piece * threads))
            take_row(real, imaginary, some_real, some_imaginary, int32(row * pitch + n2))
            untwist(real, imaginary, twiddles, n2)
            transform_first(imaginary, real)
            store(real, results, residuals, bias, alarm, channel, row, h, w, n2, True, n)
            store(imaginary, other_results, other_residuals, bias, alarm, channel, row, h2, w2, n2, is_pair, n)

    arguments = (
        pointer(dtype),
        pointer(COMPUTED_AS[dtype]),
        *[pointer(dtype)] * 3,
        pointer("int32"),
        pointer(COMPUTED_AS[dtype]),
        record(Numbers),
        int64,
        int64,
    )
    return Body(body, arguments, threads, RESIDENT)
