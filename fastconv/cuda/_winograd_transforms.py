"""The three transforms of Winograd's method as kernels: a thread takes a filter, a tile of data, a tile of sums.

With the matrices A, G, B of F(m, r) along each axis (`fastconv.core.winograd_matrices`) and a frequency e for each of
the elements of a transformed tile::

    filters[e, group, (t, c), k] = G w[k, c, t] G^T
    data[e, group, c, tile]      = B^T (source around the tile) B
    result                       = A^T sums[:, group, k, tile] A

where c and k are channels of the source and of the result. With channels_last the order of a frequency's data is
[tile, group, c], and that of its sums [tile, group, k]: neighbouring threads take what is neighbouring in the tensor.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..core.algorithm import Epilogue
from ..core.winograd_matrices import filtering
from ._contained import watch
from ._device import (
    along_both,
    block_x,
    cuda,
    float64,
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
from ._kernel import Body, Launch, kernels
from ._plan import WeightForm
from ._winograd_tiles import Numbers, Square, Tiling, coefficients, place_of, tile_and_channel

THREADS = 128
WIDE = 4  # elements of an access of 128 bits


class FilterNumbers(NamedTuple):
    """What `transform_filters` is told; strides are in elements of w."""

    elements: int  # of one frequency
    room: int  # result channels of a group, rounded up
    source_room: int
    slices: int  # T
    result_channels: int
    source_channels: int
    weight_group: int
    weight_result: int
    weight_source: int


@kernels
def transform_filters(dtype: str, square: Square, is_turned: bool, columns: int) -> Body:
    """A thread transforms one filter; is_turned: its taps are taken from the last to the first, as GRAD_INPUT does.

    It is computed in float64: the filters' rounding errors would be those of every result. Every `columns` result
    channels are stored as the transpose of a matrix of 4 rows, so that `columns / 4` of them in the tensor's order
    stand 4 elements apart; with 4 columns the order is the tensor's.
    """
    heights, widths = square.heights, square.widths
    taps_h, taps_w, taps = heights.taps, widths.taps, heights.taps * widths.taps
    transform = along_both(coefficients(heights.filter), coefficients(widths.filter))
    pitch, products = widths.products, square.products
    stride = columns // WIDE
    real = real_of(dtype)

    def body(
        w,  # read
        filters,  # (products, groups, T, source_room, room), written
        n,  # FilterNumbers
        frequency,  # int64: elements from one frequency to the next
    ):
        number = int32(block_x() * THREADS + thread())
        if number < n.elements:
            column = remainder(number, n.room)
            place = remainder(column, int32(columns))
            k = int32(column - place + remainder(place, int32(WIDE)) * stride + quotient(place, int32(WIDE)))
            row = quotient(number, n.room)
            c = remainder(row, n.source_room)
            row = quotient(row, n.source_room)
            group = quotient(row, n.slices)
            t = int32(row - group * n.slices)
            if is_turned:
                t = int32(n.slices - 1 - t)
            at = int32(group * n.weight_group + k * n.weight_result + c * n.weight_source + t * taps)
            is_real = c < n.source_channels and k < n.result_channels
            values = cuda.local.array(products, float64)
            for i in range(taps_h):
                for j in range(taps_w):
                    tap = i * taps_w + j
                    if is_turned:
                        tap = taps - 1 - tap
                    values[i * pitch + j] = float64(get(w, int32(at + tap))) if is_real else float64(0)
            transform(values)
            for e in range(products):
                put(shifted(filters, int64(e) * frequency), number, real(values[e]))

    return Body(body, (*[pointer(dtype)] * 2, record(FilterNumbers), int64), THREADS)


def filter_form(tiling: Tiling, columns: int = WIDE) -> WeightForm:
    """The transformed filters, in this order of result channels."""
    gather, square = tiling.gather, tiling.square
    group, result, source = gather.weight_strides
    numbers = FilterNumbers(
        tiling.filter_size,
        tiling.result_room,
        tiling.source_room,
        tiling.slice_taps,
        gather.result_channels,
        gather.source_channels,
        group,
        result,
        source,
    )
    kernel = transform_filters(gather.problem.dtype, square, not gather.is_forward, columns)
    launch = Launch(kernel, (-(-tiling.filter_size // THREADS),), numbers, np.int64(tiling.filter_size))
    key = ("winograd", gather.op, square, columns, tiling.source_room, tiling.result_room)
    return WeightForm(key, (gather.problem.dtype, square.products * tiling.filter_size), launch)


@kernels
def transform_data(dtype: str, square: Square, channels_last: bool, is_filter: bool = False) -> Body:
    """A thread gathers the elements around one tile of one channel, and transforms them.

    is_filter: it takes the m elements of the tile alone, as the filter of F(r, m) (`_winograd_weights`).
    """
    outputs_h, outputs_w = square.height[0], square.width[0]
    if is_filter:
        matrices = [coefficients(filtering(taps, outputs).filter) for outputs, taps in square]
    else:
        matrices = [coefficients(each.data) for each in (square.heights, square.widths)]
    height, width = (len(matrix[0]) for matrix in matrices)
    pitch, products = square.widths.products, square.products
    transform = along_both(*matrices)
    real = real_of(dtype)

    def body(
        source,  # the tensor that is gathered, read
        data,  # (products, elements of a frequency), written
        n,  # Numbers
        elements,  # of one frequency
        source_image,  # int64: elements from one image of the source to the next
        first_image,  # int64: elements in front of the first image that is served
    ):
        number = int32(block_x() * THREADS + thread())
        if number < elements:
            tile, channel = tile_and_channel(number, n, channels_last)
            group = quotient(channel, n.room)
            c = int32(channel - group * n.room)
            image, d, h, w = place_of(tile, n, outputs_h, outputs_w)
            is_real = tile < n.tiles and c < n.group_channels and d >= 0 and d < n.extent_d
            images = shifted(source, int64(image) * source_image + first_image)
            at = int32((group * n.group_channels + c) * n.channel + d * n.d + h * n.h + w * n.w)
            values = cuda.local.array(products, real)
            for i in range(height):
                for j in range(width):
                    is_inside = h + i >= 0 and h + i < n.extent_h and w + j >= 0 and w + j < n.extent_w
                    values[i * pitch + j] = (
                        get(images, int32(at + i * n.h + j * n.w)) if is_real and is_inside else real(0)
                    )
            transform(values)
            for e in range(products):
                put(shifted(data, int64(e) * int64(elements)), number, values[e])

    return Body(body, (*[pointer(dtype)] * 2, record(Numbers), int32, int64, int64), THREADS)


@kernels
def transform_sums(dtype: str, square: Square, channels_last: bool, epilogue: Epilogue) -> Body:
    """A thread transforms the sums of one tile of one channel, finishes and stores them."""
    heights, widths = square.heights, square.widths
    outputs_h, outputs_w = heights.outputs, widths.outputs
    width, products = widths.products, square.products
    transform = along_both(coefficients(heights.back), coefficients(widths.back))
    end = finish(epilogue)
    real = real_of(dtype)

    def body(
        sums,  # (products, elements of a frequency), read
        result,  # written
        residual,  # like the result, read where the epilogue says so
        bias,  # (channels of the result,), read where there is one
        alarm,  # int32 (1,), raised at a sum that is not finite
        n,  # Numbers
        elements,  # of one frequency
        has_bias,
        result_image,  # int64: elements from one image of the result to the next
        first_image,  # int64: elements in front of the first image that is served
    ):
        number = int32(block_x() * THREADS + thread())
        if number < elements:
            tile, channel = tile_and_channel(number, n, channels_last)
            group = quotient(channel, n.room)
            k = int32(channel - group * n.room)
            image, d, h, w = place_of(tile, n, outputs_h, outputs_w)
            if tile < n.tiles and k < n.group_channels and d < n.extent_d and h < n.extent_h:
                values = cuda.local.array(products, real)
                for e in range(products):
                    values[e] = get(shifted(sums, int64(e) * int64(elements)), number)
                transform(values)
                channel = int32(group * n.group_channels + k)
                at = int32(channel * n.channel + d * n.d + h * n.h + w * n.w)
                offset = int64(image) * result_image + first_image
                results, residuals = shifted(result, offset), shifted(residual, offset)
                for i in range(outputs_h):
                    for j in range(outputs_w):
                        total = values[i * width + j]
                        if h + i < n.extent_h and w + j < n.extent_w:
                            watch(total, alarm)
                            place = int32(at + i * n.h + j * n.w)
                            put(results, place, end(total, channel, place, bias, has_bias, residuals))

    arguments = (*[pointer(dtype)] * 4, pointer("int32"), record(Numbers), int32, int32, int64, int64)
    return Body(body, arguments, THREADS)
