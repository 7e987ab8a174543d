"""Tiles of fft, where images, filters and tiles end early."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fastconv.core.algorithm import Epilogue
from fastconv.core.problem import Op
from fastconv.cuda import _fft_weights, fft
from fastconv.cuda._contained import contained
from fastconv.cuda._plan import planned

from .devices import TOLERANCE, computed, error, expected, parsed, tensors_of

LARGE, SMALL = fft.SQUARES["float32"]
# One tile, an odd number of tiles along both axes, tiles of several images in one square, dilation, filters that share
# a source channel, one axis.
LINES = (
    ("x=1x1x9x7 w=1x1x13x13 p=6", SMALL),
    ("x=3x2x33x11 w=2x1x9x8 p=4 g=2", SMALL),
    ("x=1x2x12x30 w=2x1x5x4 d=3x2 p=0:7x6:0 g=2 layout=channels_last", SMALL),
    ("x=2x1x10x11 w=3x1x7x3 p=3x1", SMALL),
    ("x=1x1x50 w=1x1x15 p=20", SMALL),
    ("x=2x1x20x40 w=1x1x31x31 p=15", LARGE),
)


class Tiles:
    """An algorithm with squares of one size."""

    def __init__(self, square):
        self.plan = planned("fft", contained(lambda *which: fft.work_by(square, *which)))


@pytest.mark.parametrize("op", Op)
@pytest.mark.parametrize(("line", "square"), LINES)
def test_tiles(line, square, op):
    problem = parsed(line, "float32")
    if fft.supports(problem, op) is None:
        tensors = tensors_of(problem)
        result = computed(Tiles(square), problem, op, tensors)
        assert error(result, expected(problem, op, tensors)) < 2 * TOLERANCE["float32"]


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_other_types(dtype):
    problem = parsed("x=1x1x9x7 w=1x1x5x6 p=2", dtype)
    tensors = tensors_of(problem)
    result = computed(Tiles(SMALL), problem, Op.FORWARD, tensors)
    assert error(result, expected(problem, Op.FORWARD, tensors)) < TOLERANCE[dtype] * math.sqrt(problem.taps)


def test_blocks_sum_several_tiles(monkeypatch):
    monkeypatch.setattr(_fft_weights, "LEAST_BLOCKS", 4)
    problem = parsed(LINES[1][0], "float32")
    tensors = tensors_of(problem)
    result = computed(Tiles(SMALL), problem, Op.GRAD_WEIGHT, tensors)
    assert error(result, expected(problem, Op.GRAD_WEIGHT, tensors)) < 2 * TOLERANCE["float32"]


def test_results_are_finished():
    problem = parsed("x=2x2x5x6 w=2x1x5x5 p=2 g=2", "float32")
    tensors = tensors_of(problem)
    right = expected(problem, Op.FORWARD, tensors)
    rng = np.random.default_rng(1)
    bias, residual = rng.standard_normal(2), rng.standard_normal(right.shape)
    result = computed(Tiles(SMALL), problem, Op.FORWARD, tensors, Epilogue("relu", True), bias, residual)
    assert error(result, np.maximum(right + bias.reshape(-1, 1, 1) + residual, 0)) < 1e-5


def test_nan_reaches_what_depends_on_it():
    problem = parsed("x=1x1x9x9 w=1x1x5x5 p=2", "float32")
    tensors = tensors_of(problem)
    tensors["x"][0, 0, 1, 7] = np.nan
    result = computed(Tiles(SMALL), problem, Op.FORWARD, tensors)
    np.testing.assert_array_equal(np.isnan(result), np.isnan(expected(problem, Op.FORWARD, tensors)))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("x=1x2x20x20 w=2x2x9x9", "one source channel"),
        ("x=1x1x20x20 w=1x1x9x9 s=2", "stride"),
        ("x=1x1x80x80 w=1x1x9x65", "64 x 64"),
        ("x=1x1x9x9x9 w=1x1x3x3x3", "two axes"),
    ],
)
def test_what_is_refused(line, reason):
    assert reason in fft.supports(parsed(line, "float32"), Op.FORWARD)
