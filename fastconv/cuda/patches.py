"""The patch matrix on CUDA devices: copied out of x, and its adjoint, added up into x.

The matrix lies in one of two ways: a row for each tap of each channel, (N, C * taps, pixels), or a row for each pixel,
(N, pixels, C * taps). Copying, neighbouring threads write neighbouring elements of it, and each works its place out
once for several. Adding up, a thread has an element of x, and adds in one order what the matrix holds of it: its place
there is a sum of one number for each axis, and tables list those numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ..core.algorithm import PLAIN
from ..core.problem import ConvProblem, Op
from ._device import (
    COMPUTED_AS,
    block_x,
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
from ._gather import Strides
from ._kernel import Body, Launch, kernels
from ._limits import MOST_ELEMENTS, refusal_of_planes, refusal_of_sizes
from ._padding import sources_of
from ._places import THREADS, Image, add_places, table_of
from ._queue import Queue, Table

# Pixels of a thread that has one tap of one channel: it divides five times to find its place, and then adds.
PIXELS = 8
# queue, x, matrix: addresses. FORWARD writes the matrix, GRAD_INPUT x.
PatchRun = Callable[[Queue, Any, Any], None]


class Windows(NamedTuple):
    """What the copies are told; strides are in elements."""

    channels: int
    taps_d: int
    taps_h: int
    taps_w: int
    windows_d: int
    windows_h: int
    windows_w: int
    step_d: int
    step_h: int
    step_w: int
    dilation_d: int
    dilation_h: int
    dilation_w: int
    sources_h: int  # where the table of `sources_of` goes on with h
    sources_w: int
    x_channel: int
    x_d: int
    x_h: int
    x_w: int
    blocks: int  # of the grid for one image

    @classmethod
    def of(cls, problem: ConvProblem, threads: int) -> Windows:
        """For a kernel with so many threads for an image."""
        x, padded = Strides.of(problem.C, problem.input, problem.layout), problem.padded
        return cls(
            problem.C,
            *problem.filter,
            *problem.output,
            *problem.stride,
            *problem.dilation,
            padded[0],
            padded[0] + padded[1],
            x.channel,
            x.d,
            x.h,
            x.w,
            -(-threads // THREADS),
        )


@kernels
def copy_taps(dtype: str) -> Body:
    """(N, C * taps, pixels): a thread copies all taps of one channel at one pixel."""

    def body(
        x,  # read
        matrix,  # written
        sources,  # int32: of `sources_of`
        n,  # Windows
        x_image,  # int64: elements from one image of x to the next
        matrix_image,  # int64: likewise of the matrix
        outside,  # value that stands in the padding
    ):
        image = quotient(block_x(), n.blocks)
        item = int32((block_x() - image * n.blocks) * THREADS + thread())
        pixels = int32(n.windows_d * n.windows_h * n.windows_w)
        channel = quotient(item, pixels)
        if channel < n.channels:
            pixel = int32(item - channel * pixels)
            q, rest = remainder(pixel, n.windows_w), quotient(pixel, n.windows_w)
            p, z = remainder(rest, n.windows_h), quotient(rest, n.windows_h)
            elements = shifted(x, int64(image) * x_image)
            rows = shifted(matrix, int64(image) * matrix_image)
            to = int32(channel * n.taps_d * n.taps_h * n.taps_w * pixels + pixel)
            for t in range(n.taps_d):
                d = get(sources, int32(z * n.step_d + t * n.dilation_d))
                for r in range(n.taps_h):
                    h = get(sources, int32(n.sources_h + p * n.step_h + r * n.dilation_h))
                    row = int32(channel * n.x_channel + d * n.x_d + h * n.x_h)
                    for s in range(n.taps_w):
                        w = get(sources, int32(n.sources_w + q * n.step_w + s * n.dilation_w))
                        value = outside
                        if d >= 0 and h >= 0 and w >= 0:
                            value = get(elements, int32(row + w * n.x_w))
                        put(rows, to, value)
                        to = int32(to + pixels)

    real = real_of(dtype)
    arguments = (pointer(dtype), pointer(dtype), pointer("int32"), record(Windows), int64, int64, real)
    return Body(body, arguments, THREADS)


@kernels
def copy_pixels(dtype: str) -> Body:
    """(N, pixels, C * taps): a thread copies one tap of one channel at `PIXELS` pixels."""

    def body(
        x,  # read
        matrix,  # written
        sources,  # int32: of `sources_of`
        n,  # Windows
        x_image,  # int64: elements from one image of x to the next
        matrix_image,  # int64: likewise of the matrix
        outside,  # value that stands in the padding
    ):
        image = quotient(block_x(), n.blocks)
        item = int32((block_x() - image * n.blocks) * THREADS + thread())
        row_size = int32(n.channels * n.taps_d * n.taps_h * n.taps_w)
        group = quotient(item, row_size)
        tap = int32(item - group * row_size)
        s, rest = remainder(tap, n.taps_w), quotient(tap, n.taps_w)
        r, rest = remainder(rest, n.taps_h), quotient(rest, n.taps_h)
        t, channel = remainder(rest, n.taps_d), quotient(rest, n.taps_d)
        first = int32(group * PIXELS)
        q, rest = remainder(first, n.windows_w), quotient(first, n.windows_w)
        p, z = remainder(rest, n.windows_h), quotient(rest, n.windows_h)
        elements = shifted(x, int64(image) * x_image)
        rows = shifted(matrix, int64(image) * matrix_image)
        last = min(int32(first + PIXELS), int32(n.windows_d * n.windows_h * n.windows_w))
        for pixel in range(first, last):
            d = get(sources, int32(z * n.step_d + t * n.dilation_d))
            h = get(sources, int32(n.sources_h + p * n.step_h + r * n.dilation_h))
            w = get(sources, int32(n.sources_w + q * n.step_w + s * n.dilation_w))
            value = outside
            if d >= 0 and h >= 0 and w >= 0:
                value = get(elements, int32(channel * n.x_channel + d * n.x_d + h * n.x_h + w * n.x_w))
            put(rows, int32(pixel * row_size + tap), value)
            q = int32(q + 1)
            if q == n.windows_w:
                q, p = int32(0), int32(p + 1)
            if p == n.windows_h:
                p, z = int32(0), int32(z + 1)

    real = real_of(dtype)
    arguments = (pointer(dtype), pointer(dtype), pointer("int32"), record(Windows), int64, int64, real)
    return Body(body, arguments, THREADS)


# ---- plans


def refusal(problem: ConvProblem) -> str | None:
    """None, or one sentence that says why the problem of a patch matrix cannot be served on this device."""
    size = problem.K * problem.pixels
    if size >= MOST_ELEMENTS:
        return f"the matrix of an image has {size} elements, and indices inside it 31 bits"
    return refusal_of_sizes(problem) or refusal_of_planes(problem.N, problem.C)


@lru_cache(maxsize=1024)
def plan(problem: ConvProblem, op: Op, pixel_rows: bool, normalized: bool = False) -> PatchRun:
    """What copies a patch matrix out of x (FORWARD), or sets x to what its elements add up to (GRAD_INPUT).

    Parameters
    ----------
    problem
        A convolution with as many outputs and groups as make one for each tap of each channel: its y is the matrix.
    pixel_rows
        Whether the matrix is (N, pixels, C * taps), not (N, C * taps, pixels); whatever the layout of x.
    normalized
        Whether sums are divided by the number of patches that hold an element.
    """
    images = np.int64(problem.C * math.prod(problem.input)), np.int64(problem.K * problem.pixels)
    if op is Op.FORWARD:
        return _copy(problem, pixel_rows, images)
    return _add(problem, pixel_rows, normalized, images)


def _copy(problem: ConvProblem, pixel_rows: bool, images: tuple[np.int64, np.int64]) -> PatchRun:
    threads = problem.K * -(-problem.pixels // PIXELS) if pixel_rows else problem.C * problem.pixels
    kernel = (copy_pixels if pixel_rows else copy_taps)(problem.dtype)
    outside = np.dtype(COMPUTED_AS[problem.dtype]).type(problem.pad_value.real)
    n = Windows.of(problem, threads)
    launch = Launch(kernel, (problem.N * n.blocks,), n, *images, outside)
    sources = Table(np.concatenate(sources_of(problem)).astype(np.int32))
    return lambda queue, x, matrix: launch(queue, x, matrix, sources.on(queue))


def _add(problem: ConvProblem, pixel_rows: bool, normalized: bool, images: tuple[np.int64, np.int64]) -> PatchRun:
    n = Image.of(problem.C, problem.input, problem.layout, problem.taps * (1 if pixel_rows else problem.pixels))
    launch = Launch(add_places(problem.dtype, PLAIN, normalized), (problem.N * n.blocks,), n, 0, *images)
    places = _places(problem, pixel_rows)
    return lambda queue, x, matrix: launch(queue, matrix, x, x, x, places.on(queue))


def _places(problem: ConvProblem, pixel_rows: bool) -> Table:
    """Where the matrix holds the elements of x."""
    (_, R, S), (_, P, Q) = problem.filter, problem.output
    taps, pixels = np.array([R * S, S, 1]), np.array([P * Q, Q, 1])
    tap, pixel = (taps, pixels * problem.K) if pixel_rows else (taps * problem.pixels, pixels)
    elements, numbers = [], []
    for axis, sources in enumerate(sources_of(problem)):
        windows, offsets = np.arange(problem.output[axis]), np.arange(problem.filter[axis])
        reads = np.add.outer(problem.stride[axis] * windows, problem.dilation[axis] * offsets)
        elements.append(sources[reads].reshape(-1))
        numbers.append(np.add.outer(pixel[axis] * windows, tap[axis] * offsets).reshape(-1))
    return table_of(problem.input, elements, numbers)
