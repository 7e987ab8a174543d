"""Winograd's gradient of the weight: F(r, m) in the place of F(m, r), with the tiles of y as its filters.

A tile of y of m elements and the m + r - 1 elements of x around it give r sums, one for each tap, which are added over
all tiles. With the matrices A, G of F(r, m), and B, which is that of F(m, r) too::

    x'[e, tile, c] = B^T (x around the tile) B,      y'[e, tile, k] = G (tile of y) G^T
    sums[e, k, c]  = sum over tiles of x'[e, tile, c] * y'[e, tile, k]
    w[k, c]        = A^T sums[:, k, c] A

The tiles are cut into equal runs, which stand in the place of groups in the products' kernel, so that there are blocks
enough; the transform of the sums adds their runs in order.

Source: Lavin, Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4.2.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from ..core.machine import Gpu
from ..core.problem import ConvProblem, Op
from ..core.winograd_matrices import filtering
from ._contained import watch
from ._device import (
    along_both,
    block_x,
    cuda,
    function,
    get,
    int32,
    int64,
    pointer,
    put,
    quotient,
    real_of,
    record,
    repeated,
    shifted,
    thread,
)
from ._gather import Gather
from ._kernel import Body, Launch, kernels
from ._plan import Work
from ._winograd_products import TERMS, multiply_frequencies
from ._winograd_products import Numbers as ProductNumbers
from ._winograd_staged import BANDWIDTH_RATE, CACHED, LEAST_BLOCKS, RATE
from ._winograd_tiles import Square, Tiling, coefficients
from ._winograd_transforms import THREADS, transform_data

# Bytes of scratch memory that a problem may take: all images stand in it, transformed.
MOST_SCRATCH = 1 << 30


class SumNumbers(NamedTuple):
    """What `transform_weight_sums` is told."""

    pairs: int  # of channels
    inputs: int  # C
    runs: int
    run: int  # elements from one run to the next
    row: int  # from one k to the next


@kernels
def transform_weight_sums(dtype: str, square: Square) -> Body:
    """A thread adds the runs of the sums of one pair of channels, and transforms them to a filter."""
    heights, widths = (filtering(taps, outputs) for outputs, taps in square)
    transform = along_both(coefficients(heights.back), coefficients(widths.back))
    taps_h, taps_w, width, products = heights.outputs, widths.outputs, widths.products, square.products
    real = real_of(dtype)

    @function
    def add_runs(e, arguments):
        """Of a frequency."""
        values, sums, at, n, size = arguments
        some_sums = shifted(sums, int64(e) * size)
        total = real(0)
        for run in range(n.runs):
            total += get(some_sums, int32(at + run * n.run))
        values[e] = total

    add_runs_of_all = repeated(products, add_runs)

    def body(
        sums,  # (frequencies, runs, K and C rounded up), read
        w,  # (K, C, taps), written
        alarm,  # int32 (1,), raised at a sum that is not finite
        n,  # SumNumbers
        size,  # int64: elements of a frequency
    ):
        pair = int32(block_x() * THREADS + thread())
        if pair < n.pairs:
            k = quotient(pair, n.inputs)
            at = int32(k * n.row + pair - k * n.inputs)
            values = cuda.local.array(products, real)
            add_runs_of_all((values, sums, at, n, size))
            transform(values)
            for i in range(taps_h):
                for j in range(taps_w):
                    watch(values[i * width + j], alarm)
                    put(w, int32((pair * taps_h + i) * taps_w + j), values[i * width + j])

    return Body(body, (*[pointer(dtype)] * 2, pointer("int32"), record(SumNumbers), int64), THREADS)


def tiling_of(problem: ConvProblem, square: Square) -> tuple[Tiling, int]:
    """The tiles of x and y, whole blocks of channels and whole runs of tiles; and how many runs."""
    small = Tiling(Gather(problem, Op.FORWARD), square, problem.N, TERMS, 64, 64)
    wide = dataclasses.replace(small, block_terms=128, block_columns=128)
    if problem.real_bytes > 4 or wide.source_room > small.source_room:
        tiling = small
    elif wide.result_room > small.result_room:
        tiling = dataclasses.replace(wide, block_columns=64)
    else:
        tiling = wide
    blocks = square.products * tiling.source_room * tiling.result_room // (tiling.block_terms * tiling.block_columns)
    runs = max(1, min(-(-LEAST_BLOCKS // blocks), tiling.tiles // TERMS))
    return dataclasses.replace(tiling, block_rows=runs * TERMS), runs


def refusal(problem: ConvProblem, square: Square) -> str | None:
    """None, or one sentence that says why a problem that winograd serves has no gradient of the weight."""
    if problem.groups != 1 or problem.filter[0] != 1:
        return "the gradient of the weight is served for one group and filters of one slice"
    if _scratch(problem, square) > MOST_SCRATCH:
        return "the gradient of the weight would take more than 1 GiB of scratch memory"
    return None


def _scratch(problem: ConvProblem, square: Square) -> int:
    return sum(_sizes(*tiling_of(problem, square))) * square.products * problem.real_bytes


def _sizes(tiling: Tiling, runs: int) -> tuple[int, int, int]:
    """Elements of a frequency of x, of y and of the sums."""
    return tiling.source_size, tiling.result_size, runs * tiling.source_room * tiling.result_room


def work(problem: ConvProblem, square: Square) -> Work:
    """What is done for a problem whose padding is zeros."""
    tiling, runs = tiling_of(problem, square)
    gather, dtype, sizes = tiling.gather, problem.dtype, _sizes(tiling, runs)
    sources = [
        Launch(
            transform_data(dtype, square, True, of_result),
            (-(-size // THREADS),),
            numbers,
            size,
            np.int64(strides.image),
            np.int64(0),
        )
        for of_result, size, numbers, strides in (
            (False, sizes[0], tiling.source_numbers, gather.source_strides),
            (True, sizes[1], tiling.result_numbers, gather.result_strides),
        )
    ]
    column_blocks, row_blocks = tiling.result_room // tiling.block_columns, tiling.source_room // tiling.block_terms
    # A run has the place of a group, its tiles that of source channels, and channels of x that of tiles.
    inputs, outputs = tiling.source_room, tiling.result_room
    numbers = ProductNumbers(column_blocks, runs, 0, 1, tiling.source_rows // runs, outputs, inputs, inputs)
    multiply = Launch(
        multiply_frequencies(dtype, tiling.block_terms, tiling.block_columns, False),
        (row_blocks * column_blocks, square.products, runs),
        numbers,
        *map(np.int64, sizes),
    )
    pairs = problem.K * problem.C
    store = Launch(
        transform_weight_sums(dtype, square),
        (-(-pairs // THREADS),),
        SumNumbers(pairs, problem.C, runs, outputs * inputs, inputs),
        np.int64(sizes[2]),
    )

    def run(queue, x, w, y, residual, bias, scratch):
        alarm, data, gradients, sums = scratch
        sources[0](queue, x, data)
        sources[1](queue, y, gradients)
        multiply(queue, data, gradients, sums)
        store(queue, sums, w, alarm)

    parts = tuple((dtype, square.products * size) for size in sizes)
    return Work(run, parts, None, {"outputs": square.outputs, "runs": runs})


def cost(problem: ConvProblem, gpu: Gpu, square: Square) -> float:
    """Predicted seconds: each kernel waits for the one before."""
    tiling, _ = tiling_of(problem, square)
    flops = 2 * square.products * tiling.source_rows * tiling.source_room * tiling.result_room
    moved = 2 * _scratch(problem, square) * CACHED + problem.bytes
    arithmetic = 1 if problem.real_bytes == 4 else 2
    return gpu.seconds(flops * arithmetic / RATE, 0, 4) + moved / (gpu.bandwidth * BANDWIDTH_RATE)
