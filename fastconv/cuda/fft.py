"""Convolution through Fourier transforms of tiles, for large filters of which each has one source channel: depthwise.

A product of spectra takes the place of all taps, so that a filter of 31 x 31 costs little more than one of 13 x 13. The
kernels, and their formulas, are those of `fastconv.cuda._fft_planes`; GRAD_INPUT is the same as FORWARD with the
filters turned around, GRAD_WEIGHT stands in `fastconv.cuda._fft_weights`. The spectra of the filters are made from w
once, and kept by a prepared convolution.
"""

from __future__ import annotations

import math
from functools import cache, partial

import numpy as np

from ..core.algorithm import Algorithm, Epilogue
from ..core.machine import Gpu, local_gpu
from ..core.problem import ConvProblem, Op
from . import _fft_weights
from ._contained import contained
from ._device import COMPUTED_AS
from ._fft_planes import FilterNumbers, Numbers, correlate_tiles, transform_filters
from ._fourier import Square
from ._gather import TAP_FIELDS, Gather
from ._kernel import Launch
from ._limits import MOST_BLOCKS, fits, refusal, rounding_error
from ._plan import WeightForm, Work, planned, scratch_of
from ._queue import Table

# By the type that is computed in: both parts of a square, in the 48 KB of shared memory that a block may have.
SQUARES = {"float32": (Square(8, 8), Square(8, 4)), "float64": (Square(8, 4),)}

# Times that a block writes its square to shared memory or reads it: six passes that go through it.
SHARED_PASSES = 12
# Bytes of shared memory, and operations, that a multiprocessor gets through in a cycle.
SHARED_BYTES, CYCLE_FLOPS = 128, 256
# Share of the shared memory's bandwidth that the kernel is taken to reach. An estimate: not yet measured.
RATE = 0.6
# Bytes that memory moves for each element of 4 where neighbouring threads are not neighbours in it.
SECTOR = 32


def valid(problem: ConvProblem, square: Square) -> tuple[int, int]:
    """Extents of the result in a tile."""
    _, height, width = problem.reach
    return square.edge - height + 1, square.edge - width + 1


def tiles_of(problem: ConvProblem, op: Op, square: Square) -> tuple[int, int]:
    """Tiles of an image along h and w."""
    _, height, width = _gather(problem, op).result_extents
    rows, columns = valid(problem, square)
    return -(-height // rows), -(-width // columns)


def _gather(problem: ConvProblem, op: Op) -> Gather:
    """The gather of an operation, for GRAD_WEIGHT that of FORWARD: it takes the same tiles."""
    return Gather(problem, Op.FORWARD if op is Op.GRAD_WEIGHT else op)


def chosen(problem: ConvProblem, op: Op) -> Square:
    """The cheapest of the squares that a filter fits into."""
    return min(_fitting(problem), key=partial(_seconds, problem, op, local_gpu()))


def _fitting(problem: ConvProblem) -> list[Square]:
    return [each for each in SQUARES[COMPUTED_AS[problem.dtype]] if min(valid(problem, each)) > 0]


def _seconds(problem: ConvProblem, op: Op, gpu: Gpu, square: Square) -> float:
    """Predicted seconds, but for the filters: the longer of shared and other memory."""
    together = 1 if op is Op.GRAD_WEIGHT else 2  # tiles in a square, beside one of y or one another
    squares = problem.N * math.prod(tiles_of(problem, op, square)) * _channels(problem, op) / together
    real_bytes = np.dtype(COMPUTED_AS[problem.dtype]).itemsize
    cycles = squares * SHARED_PASSES * square.edge**2 * 2 * real_bytes / SHARED_BYTES
    overlap = square.edge**2 / math.prod(valid(problem, square))
    apart = SECTOR / problem.real_bytes if problem.layout == "channels_last" else 1
    return gpu.seconds(cycles * CYCLE_FLOPS / RATE, problem.bytes * (1 + overlap) / 2 * apart)


def _channels(problem: ConvProblem, op: Op) -> int:
    return _gather(problem, op).result_channels * problem.groups


def _blocks(problem: ConvProblem, op: Op, square: Square) -> int:
    """Pairs of tiles of all channels."""
    return -(-problem.N * math.prod(tiles_of(problem, op, square)) // 2) * _channels(problem, op)


def work(problem: ConvProblem, op: Op, epilogue: Epilogue) -> Work:
    """What is done for a problem whose padding is zeros."""
    return work_by(chosen(problem, op), problem, op, epilogue)


def work_by(square: Square, problem: ConvProblem, op: Op, epilogue: Epilogue) -> Work:
    """The same with squares of this size."""
    if op is Op.GRAD_WEIGHT:
        return _weights(square, problem)
    gather = Gather(problem, op)
    real = COMPUTED_AS[problem.dtype]
    twiddles = Table(square.twiddles.astype(real))
    channels = _channels(problem, op)
    images = [np.int64(strides.image) for strides in (gather.source_strides, gather.result_strides)]
    filters = Launch(transform_filters(problem.dtype, square, not gather.is_forward), (channels,), _filters_of(gather))

    @cache
    def launch(has_bias: bool) -> Launch:
        kernel = correlate_tiles(problem.dtype, square, epilogue)
        return Launch(kernel, (_blocks(problem, op, square),), _numbers_of(gather, square, has_bias), *images)

    def transform(queue, w, form):
        filters(queue, w, form, twiddles.on(queue))

    def run(queue, x, w, y, residual, bias, scratch):
        source, result = (x, y) if op is Op.FORWARD else (y, x)
        tensors = source, w[1], result, residual, result if bias is None else bias
        launch(bias is not None)(queue, *tensors, scratch[0], twiddles.on(queue))

    form = WeightForm(("fft", op, square), (real, channels * 2 * square.edge**2), transform)
    return Work(run, (), form, {"edge": square.edge})


def _weights(square: Square, problem: ConvProblem) -> Work:
    gather = Gather(problem, Op.FORWARD)
    images = gather.source_strides.image, gather.result_strides.image
    return _fft_weights.work(square, problem, _numbers_of(gather, square, False), _filters_of(gather), images)


def _filters_of(gather: Gather) -> FilterNumbers:
    problem = gather.problem
    group, result, _ = gather.weight_strides
    return FilterNumbers(*problem.filter[1:], *problem.dilation[1:], gather.result_channels, group, result)


def _numbers_of(gather: Gather, square: Square, has_bias: bool) -> Numbers:
    problem = gather.problem
    down, across = tiles_of(problem, gather.op, square)
    _, first_h, first_w = gather.taps[:, : TAP_FIELDS - 1].min(axis=0)
    source, result = gather.source_strides, gather.result_strides
    return Numbers(
        problem.N * down * across,
        down * across,
        across,
        gather.result_channels,
        *valid(problem, square),
        int(first_h),
        int(first_w),
        *gather.source_extents[1:],
        source.channel,
        source.h,
        source.w,
        *gather.result_extents[1:],
        result.channel,
        result.h,
        result.w,
        int(has_bias),
    )


# ---- what the selector asks


def supports(problem: ConvProblem, op: Op) -> str | None:
    """None, or one sentence that says why not."""
    if refusal(problem) is not None:
        return refusal(problem)
    if _gather(problem, op).source_channels != 1:
        return "it serves filters of which each has one source channel"
    if problem.stride != (1, 1, 1):
        return "it serves a stride of 1 only"
    if problem.input[0] != 1 or problem.filter[0] != 1:
        return "it serves one and two axes"
    if not _fitting(problem):
        edge = max(square.edge for square in SQUARES[COMPUTED_AS[problem.dtype]])
        return "it serves filters that reach over {} x {} elements at most, and not {} x {}".format(
            edge, edge, *problem.reach[1:]
        )
    blocks = _blocks(problem, op, chosen(problem, op))
    if not fits(blocks):
        return f"its tiles take {blocks} blocks, and a grid has {MOST_BLOCKS[0]}"
    return None


def cost(problem: ConvProblem, op: Op, gpu: Gpu) -> float:
    """Predicted seconds, with those of transforming the filters."""
    square = chosen(problem, op)
    spectra = _channels(problem, op) * 2 * square.edge**2 * np.dtype(COMPUTED_AS[problem.dtype]).itemsize
    return _seconds(problem, op, gpu, square) + gpu.seconds(0, 2 * spectra)


def error_bound(problem: ConvProblem, op: Op) -> float:
    """Three transforms, of log2 N additions along each of two axes."""
    return rounding_error(problem, 3 * 2 * round(math.log2(chosen(problem, op).edge)))


ALGORITHM = Algorithm(
    name="fft",
    device="cuda",
    supports=supports,
    cost=cost,
    error_bound=error_bound,
    workspace=scratch_of(contained(work)),
    plan=planned("fft", contained(work)),
)
