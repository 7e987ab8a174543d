"""One thread, or one block, for each element of a result: the plain form of the three operations, for every problem.

`direct` is made of it, and an algorithm that would spread a NaN over its neighbours computes with it once more where it
met one (`fastconv.cuda._contained`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from ..core.algorithm import Epilogue
from ..core.problem import ConvProblem, Op
from ._device import (
    WARP,
    barrier,
    block_x,
    cuda,
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
    sum_of_block,
    thread,
)
from ._epilogue import finish
from ._gather import TAP_FIELDS, Gather, Phase, Strides
from ._kernel import Body, Launch, kernels
from ._queue import Table

THREADS = 256
# Blocks that wait for an alarm, eight for each of 132 multiprocessors; where it is raised, each goes on with elements
# so far apart. A block that has nothing to do still takes its turn: one for each element of a large w would take longer
# than the kernels that may raise the alarm.
WAITING_BLOCKS = 1056


class Numbers(NamedTuple):
    """What `gather_elements` is told of one phase; strides are in elements."""

    blocks: int  # of the grid for one channel of one image
    channels: int  # of the result, all groups together
    group_channels: int  # of the result in one group
    source_channels: int  # in one group
    first_tap: int
    taps: int
    positions: int
    height: int  # positions along h
    width: int  # positions along w
    first_d: int
    first_h: int
    first_w: int
    spread_d: int
    spread_h: int
    spread_w: int
    step_d: int
    step_h: int
    step_w: int
    extent_d: int  # of the source
    extent_h: int
    extent_w: int
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
    has_bias: int

    @classmethod
    def of(cls, gather: Gather, phase: Phase, has_bias: bool) -> Numbers:
        """For one phase of an operation."""
        positions = math.prod(phase.positions)
        source, result = gather.source_strides, gather.result_strides
        return cls(
            -(-positions // THREADS),
            gather.result_channels * gather.problem.groups,
            gather.result_channels,
            gather.source_channels,
            phase.first_tap,
            phase.taps,
            positions,
            *phase.positions[1:],
            *phase.first,
            *gather.spread,
            *gather.step,
            *gather.source_extents,
            source.channel,
            source.d,
            source.h,
            source.w,
            result.channel,
            result.d,
            result.h,
            result.w,
            *gather.weight_strides,
            int(has_bias),
        )


@kernels
def gather_elements(dtype: str, epilogue: Epilogue, has_alarm: bool) -> Body:
    """FORWARD and GRAD_INPUT: a thread gathers one element of the result."""
    end = finish(epilogue)
    real = real_of(dtype)

    def body(
        source,  # the tensor that is gathered, read
        weight,  # w, read
        result,  # written
        residual,  # like the result, read where the epilogue says so
        bias,  # (channels of the result,), read where there is one
        taps,  # int32 (rows, 4): shifts along d, h, w and the place in the filter
        alarm,  # int32 (1,), read if has_alarm: nothing is done unless it is raised
        n,  # Numbers
        blocks,  # shares of `THREADS` elements
        step,  # from one share of a block to its next
        source_image,  # int64: elements from one image of the source to the next
        result_image,  # int64: likewise of the result
    ):
        if has_alarm and get(alarm, 0) == 0:
            return
        for block in range(block_x(), blocks, step):
            rest = quotient(int32(block), n.blocks)
            position = int32((block - rest * n.blocks) * THREADS + thread())
            image = quotient(rest, n.channels)
            channel = remainder(rest, n.channels)
            group = quotient(channel, n.group_channels)
            if position < n.positions:
                row = quotient(position, n.width)
                column = remainder(position, n.width)
                slice_ = quotient(row, n.height)
                row = remainder(row, n.height)
                images = shifted(source, int64(image) * source_image)
                first = int32(group * n.source_channels * n.source_channel)
                filter_ = int32(group * n.weight_group + (channel - group * n.group_channels) * n.weight_result)
                total = real(0)
                for tap in range(n.first_tap, int32(n.first_tap + n.taps)):
                    d = int32(slice_ * n.step_d + get(taps, int32(tap * TAP_FIELDS)))
                    h = int32(row * n.step_h + get(taps, int32(tap * TAP_FIELDS + 1)))
                    w = int32(column * n.step_w + get(taps, int32(tap * TAP_FIELDS + 2)))
                    if d >= 0 and d < n.extent_d and h >= 0 and h < n.extent_h and w >= 0 and w < n.extent_w:
                        at = int32(first + d * n.source_d + h * n.source_h + w * n.source_w)
                        weight_at = int32(filter_ + get(taps, int32(tap * TAP_FIELDS + 3)))
                        for c in range(n.source_channels):
                            factor = get(weight, int32(weight_at + c * n.weight_source))
                            total += factor * get(images, int32(at + c * n.source_channel))
                at = int32(
                    channel * n.result_channel
                    + (slice_ * n.spread_d + n.first_d) * n.result_d
                    + (row * n.spread_h + n.first_h) * n.result_h
                    + (column * n.spread_w + n.first_w) * n.result_w
                )
                offset = int64(image) * result_image
                total = end(total, channel, at, bias, n.has_bias, shifted(residual, offset))
                put(shifted(result, offset), at, total)

    numbers = record(Numbers), int32, int32, int64, int64
    arguments = (*[pointer(dtype)] * 5, *[pointer("int32")] * 2, *numbers)
    return Body(body, arguments, THREADS)


class WeightNumbers(NamedTuple):
    """What `sum_pixels` is told; strides are in elements."""

    images: int
    pixels: int
    height: int  # output extents
    width: int
    taps: int
    filter_h: int
    filter_w: int
    group_inputs: int  # channels of x in one group
    group_outputs: int  # of y
    step_d: int
    step_h: int
    step_w: int
    dilation_d: int
    dilation_h: int
    dilation_w: int
    low_d: int  # padding
    low_h: int
    low_w: int
    extent_d: int  # of x
    extent_h: int
    extent_w: int
    x_channel: int
    x_d: int
    x_h: int
    x_w: int
    y_channel: int
    y_w: int  # from pixel to pixel

    @classmethod
    def of(cls, problem: ConvProblem) -> WeightNumbers:
        """For a problem whose padding is zeros."""
        (low_d, _), (low_h, _), (low_w, _) = problem.padding
        x = Strides.of(problem.C, problem.input, problem.layout)
        y = Strides.of(problem.K, problem.output, problem.layout)
        return cls(
            problem.N,
            problem.pixels,
            *problem.output[1:],
            problem.taps,
            *problem.filter[1:],
            problem.C // problem.groups,
            problem.K // problem.groups,
            *problem.stride,
            *problem.dilation,
            low_d,
            low_h,
            low_w,
            *problem.input,
            x.channel,
            x.d,
            x.h,
            x.w,
            y.channel,
            y.w,
        )


@kernels
def sum_pixels(dtype: str, has_alarm: bool) -> Body:
    """GRAD_WEIGHT: a block sums one element of w over all pixels of all images."""
    real = real_of(dtype)
    warps = THREADS // WARP
    block_sum = sum_of_block(warps)

    def body(
        x,  # read
        w,  # written
        y,  # read
        alarm,  # int32 (1,), read if has_alarm: nothing is done unless it is raised
        n,  # WeightNumbers
        elements,  # of w
        step,  # from one element of a block to its next
        x_image,  # int64: elements from one image of x to the next
        y_image,  # int64: likewise of y
    ):
        sums = cuda.shared.array(warps, real)
        if has_alarm and get(alarm, 0) == 0:
            return
        for element in range(block_x(), elements, step):
            tap = remainder(int32(element), n.taps)
            rest = quotient(int32(element), n.taps)
            c = remainder(rest, n.group_inputs)
            k = quotient(rest, n.group_inputs)
            s = remainder(tap, n.filter_w)
            r = quotient(tap, n.filter_w)
            t = quotient(r, n.filter_h)
            r = remainder(r, n.filter_h)
            first = int32((quotient(k, n.group_outputs) * n.group_inputs + c) * n.x_channel)
            total = real(0)
            for image in range(n.images):
                images = shifted(x, int64(image) * x_image)
                gradients = shifted(y, int64(image) * y_image)
                for pixel in range(thread(), n.pixels, int32(THREADS)):
                    row = quotient(int32(pixel), n.width)
                    column = remainder(int32(pixel), n.width)
                    d = int32(quotient(row, n.height) * n.step_d + t * n.dilation_d - n.low_d)
                    h = int32(remainder(row, n.height) * n.step_h + r * n.dilation_h - n.low_h)
                    v = int32(column * n.step_w + s * n.dilation_w - n.low_w)
                    if d >= 0 and d < n.extent_d and h >= 0 and h < n.extent_h and v >= 0 and v < n.extent_w:
                        factor = get(gradients, int32(k * n.y_channel + pixel * n.y_w))
                        total += factor * get(images, int32(first + d * n.x_d + h * n.x_h + v * n.x_w))
            total = block_sum(total, sums)
            if thread() == 0:
                put(w, int32(element), total)
            barrier()

    numbers = record(WeightNumbers), int32, int32, int64, int64
    return Body(body, (*[pointer(dtype)] * 3, pointer("int32"), *numbers), THREADS)


Run = Callable[..., None]


def elementwise(problem: ConvProblem, op: Op, epilogue: Epilogue) -> Run:
    """What runs an operation of a problem whose padding is zeros.

    Returns
    -------
    function ``(queue, x, w, y, residual, bias, alarm)``
        As `Work.run`; where an alarm is given, an int32 on the device, nothing is written unless it is raised.
    """
    return _sums_of_pixels(problem) if op is Op.GRAD_WEIGHT else _gathered_elements(problem, op, epilogue)


def _grid(shares: int, has_alarm: bool) -> int:
    """Blocks for so many shares of the work."""
    return min(shares, WAITING_BLOCKS) if has_alarm else shares


def _gathered_elements(problem: ConvProblem, op: Op, epilogue: Epilogue) -> Run:
    gather = Gather(problem, op)
    taps = Table(gather.taps)
    images = [np.int64(gather.source_strides.image), np.int64(gather.result_strides.image)]

    @cache
    def launches(has_bias: bool, has_alarm: bool) -> list[Launch]:
        kernel = gather_elements(problem.dtype, epilogue, has_alarm)
        made = []
        for phase in gather.phases:
            n = Numbers.of(gather, phase, has_bias)
            blocks = n.blocks * n.channels * problem.N
            grid = _grid(blocks, has_alarm)
            made.append(Launch(kernel, (grid,), n, blocks, grid, *images))
        return made

    def run(queue, x, w, y, residual, bias, alarm=None):
        source, result = (x, y) if op is Op.FORWARD else (y, x)
        table = taps.on(queue)
        for launch in launches(bias is not None, alarm is not None):
            bias_or_any = result if bias is None else bias
            launch(queue, source, w, result, residual, bias_or_any, table, table if alarm is None else alarm)

    return run


def _sums_of_pixels(problem: ConvProblem) -> Run:
    images = [
        np.int64(Strides.of(channels, extents, problem.layout).image)
        for channels, extents in ((problem.C, problem.input), (problem.K, problem.output))
    ]

    @cache
    def launch(has_alarm: bool) -> Launch:
        elements = math.prod(problem.w_shape)
        grid = _grid(elements, has_alarm)
        return Launch(sum_pixels(problem.dtype, has_alarm), (grid,), WeightNumbers.of(problem), elements, grid, *images)

    tap_of_nothing = Table(np.zeros(1, np.int32))

    def run(queue, x, w, y, residual, bias, alarm=None):
        launch(alarm is not None)(queue, x, w, y, tap_of_nothing.on(queue) if alarm is None else alarm)

    return run
