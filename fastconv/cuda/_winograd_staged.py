"""Winograd's method in three kernels: transform the data, multiply, transform the sums.

They serve some images at a time, so that what lies between them stays in the second-level cache. It is the way for
F(4, 3), whose 36 frequencies of a block of sums no multiprocessor holds together, for filters along one axis, for
filters with slices, and for float64.
"""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np

from ..core.algorithm import Epilogue
from ..core.machine import Gpu
from ..core.problem import ConvProblem, Op
from ._gather import Gather
from ._kernel import Launch
from ._limits import MOST_ELEMENTS
from ._plan import Work
from ._winograd_products import TERMS, multiply_frequencies
from ._winograd_products import Numbers as ProductNumbers
from ._winograd_tiles import Square, Tiling, rounded_up
from ._winograd_transforms import THREADS, filter_form, transform_data, transform_sums

# Bytes of data and sums between the kernels: they stay in a second-level cache of 50 MB.
MOST_SCRATCH = 32 << 20
# Blocks of a launch, where there is work for them: four for each of 132 multiprocessors.
LEAST_BLOCKS = 528

# Share of the arithmetic peak that the products are taken to reach, of the memory's bandwidth that the transforms do,
# and of a byte's price that one costs in the second-level cache. Estimates: not yet measured.
RATE, BANDWIDTH_RATE, CACHED = 0.7, 0.7, 0.5


def tiling_of(problem: ConvProblem, op: Op, square: Square) -> Tiling:
    """The tiles of as many images as are served together, and the blocks that multiply them."""
    small = Tiling(Gather(problem, op), square, 1, 64, 64, TERMS)
    wide = dataclasses.replace(small, block_rows=128, block_columns=128)
    if wide.result_room > small.result_room:
        wide = dataclasses.replace(wide, block_columns=64)
    images = _images(problem, wide)
    is_small = problem.real_bytes > 4 or images * small.tiles <= small.block_rows
    return dataclasses.replace(small if is_small else wide, images=images)


def _images(problem: ConvProblem, one: Tiling) -> int:
    """Images that are served together: about as many as may be, so that few rows are there for nothing."""
    rooms = problem.groups * (one.source_room + one.result_room)
    in_cache = MOST_SCRATCH // (one.square.products * rooms * problem.real_bytes)
    column_blocks = one.square.products * problem.groups * one.result_room // one.block_columns
    most = max(in_cache, -(-LEAST_BLOCKS // column_blocks) * one.block_rows) // one.tiles
    most = max(1, min(problem.N, most))

    def rows(images: int) -> int:
        return -(-problem.N // images) * rounded_up(images * one.tiles, one.block_rows)

    return min(range(most, most // 2, -1), key=rows)


def _between(tiling: Tiling) -> int:
    """Elements of the transformed data and of the sums."""
    return tiling.square.products * (tiling.source_size + tiling.result_size)


def serves(problem: ConvProblem, op: Op, square: Square) -> bool:
    """Whether indices inside a frequency of an image, and inside the filters, have 31 bits."""
    tiling = tiling_of(problem, op, square)
    return max(tiling.source_size, tiling.result_size, tiling.filter_size) < MOST_ELEMENTS


def work(problem: ConvProblem, op: Op, epilogue: Epilogue, square: Square) -> Work:
    """What is done for a problem whose padding is zeros."""
    most = tiling_of(problem, op, square)
    tilings = [
        (first, dataclasses.replace(most, images=min(most.images, problem.N - first)))
        for first in range(0, problem.N, most.images)
    ]

    @cache
    def launches(has_bias: bool) -> list[tuple[Launch, Launch, Launch]]:
        return [_launches(tiling, first, epilogue, has_bias) for first, tiling in tilings]

    def run(queue, x, w, y, residual, bias, scratch):
        source, result = (x, y) if op is Op.FORWARD else (y, x)
        alarm, data, sums = scratch
        for gather, multiply, store in launches(bias is not None):
            gather(queue, source, data)
            multiply(queue, data, w[1], sums)
            store(queue, sums, result, residual, result if bias is None else bias, alarm)

    sizes = {"outputs": square.outputs, "rows": most.block_rows, "columns": most.block_columns, "images": most.images}
    parts = [(problem.dtype, square.products * size) for size in (most.source_size, most.result_size)]
    return Work(run, tuple(parts), filter_form(most), sizes)


def _launches(tiling: Tiling, first: int, epilogue: Epilogue, has_bias: bool) -> tuple[Launch, Launch, Launch]:
    """For the images from the first on."""
    gather, square = tiling.gather, tiling.square
    dtype, channels_last = gather.problem.dtype, gather.problem.layout == "channels_last"
    images = [
        (np.int64(strides.image), np.int64(first * strides.image))
        for strides in (gather.source_strides, gather.result_strides)
    ]
    column_blocks = tiling.result_room // tiling.block_columns
    numbers = ProductNumbers(
        column_blocks,
        gather.problem.groups,
        tiling.plane,
        tiling.slice_taps,
        tiling.source_room,
        tiling.result_room,
        tiling.source_rows,
        tiling.result_rows,
    )
    return (
        Launch(
            transform_data(dtype, square, channels_last),
            (-(-tiling.source_size // THREADS),),
            tiling.source_numbers,
            tiling.source_size,
            *images[0],
        ),
        Launch(
            multiply_frequencies(dtype, tiling.block_rows, tiling.block_columns, channels_last),
            (tiling.result_rows // tiling.block_rows * column_blocks, square.products, gather.problem.groups),
            numbers,
            *map(np.int64, (tiling.source_size, tiling.filter_size, tiling.result_size)),
        ),
        Launch(
            transform_sums(dtype, square, channels_last, epilogue),
            (-(-tiling.result_size // THREADS),),
            tiling.result_numbers,
            tiling.result_size,
            int(has_bias),
            *images[1],
        ),
    )


def cost(problem: ConvProblem, op: Op, gpu: Gpu, square: Square) -> float:
    """Predicted seconds, but for the filters: each kernel waits for the one before."""
    tiling = tiling_of(problem, op, square)
    parts = -(-problem.N // tiling.images)
    sums = tiling.result_rows * tiling.result_room * problem.groups * square.products
    flops = 2 * parts * sums * tiling.slice_taps * tiling.source_room
    moved = 2 * parts * _between(tiling) * problem.real_bytes * CACHED + problem.bytes
    arithmetic = 1 if problem.real_bytes == 4 else 2
    return gpu.seconds(flops * arithmetic / RATE, 0, 3 * parts) + moved / (gpu.bandwidth * BANDWIDTH_RATE)
