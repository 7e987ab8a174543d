"""Each way of winograd, where blocks, tiles and channels end early."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fastconv.core.algorithm import Epilogue
from fastconv.core.problem import Op
from fastconv.cuda import _winograd_staged as staged
from fastconv.cuda import _winograd_weights as weights
from fastconv.cuda import winograd
from fastconv.cuda._contained import contained
from fastconv.cuda._plan import planned

from .devices import TOLERANCE, computed, error, expected, parsed, tensors_of

BOTH = [Op.FORWARD, Op.GRAD_INPUT]
SMALL, LARGE = winograd.SQUARES[3, 3]

# Tiles that reach over an edge, channels that fill no block, several blocks, groups, and padding that turns negative.
FUSED = (
    "x=1x5x6x7 w=66x5x3x3 p=1",
    "x=3x3x9x5 w=4x3x3x3 p=0:2x1:0",
    "x=1x6x5x4 w=4x3x3x3 p=2 g=2",
    "x=2x6x7x9 w=4x3x3x3 p=1 g=2 layout=channels_last",
    "x=1x9x4x4 w=3x9x3x3 p=4 layout=channels_last",
)
STAGED = (
    ("x=2x3x7x9 w=4x3x3x3 p=1", SMALL),
    ("x=1x9x9x6 w=3x9x3x3 p=0:2x1:0", LARGE),
    ("x=2x4x6x5 w=6x2x3x3 p=1 g=2 layout=channels_last", LARGE),
    ("x=1x2x4x6x5 w=3x2x3x3x3 p=1", LARGE),
    ("x=2x3x3x5x6 w=2x3x2x3x3 p=0:1x1x2 layout=channels_last", SMALL),
    ("x=1x3x6x9 w=2x3x3x1 p=1x0", winograd.SQUARES[3, 1][1]),
    ("x=1x2x7x6 w=3x2x1x3 p=0x2", winograd.SQUARES[1, 3][1]),
    ("x=1x3x270 w=2x3x3 p=1", winograd.SQUARES[1, 3][0]),
    ("x=1x2x136 w=100x2x3 layout=channels_last", winograd.SQUARES[1, 3][0]),
    ("x=1x2x136 w=2x2x3 layout=channels_last", winograd.SQUARES[1, 3][0]),
    ("x=2x3x7x8 w=4x3x5x5 p=2", winograd.SQUARES[5, 5][0]),
    ("x=1x4x6x9 w=2x2x5x5 p=3x1 g=2 layout=channels_last", winograd.SQUARES[5, 5][0]),
    ("x=1x2x3x8x6 w=3x2x2x5x5 p=0x2x2", winograd.SQUARES[5, 5][0]),
    ("x=1x3x29 w=2x3x5 p=2", winograd.SQUARES[1, 5][1]),
    ("x=1x3x11x6 w=2x3x5x1 p=4x0 layout=channels_last", winograd.SQUARES[5, 1][0]),
)


class Way:
    """An algorithm that goes one way."""

    def __init__(self, way):
        self.plan = planned("winograd", contained(lambda *which: winograd.work_by(way, *which)))


def agrees(way, line, op, dtype="float32"):
    problem = parsed(line, dtype)
    tensors = tensors_of(problem)
    result = computed(Way(way), problem, op, tensors)
    tolerance = 2 * TOLERANCE[dtype] * math.sqrt(problem.terms(op))
    return error(result, expected(problem, op, tensors)) < tolerance


@pytest.mark.parametrize("op", BOTH)
@pytest.mark.parametrize("line", FUSED)
def test_one_kernel(line, op):
    assert agrees(winograd.Way(SMALL, True), line, op)


@pytest.mark.parametrize("op", BOTH)
@pytest.mark.parametrize(("line", "square"), STAGED)
def test_three_kernels(line, square, op):
    assert agrees(winograd.Way(square, False), line, op)


@pytest.mark.parametrize(
    ("line", "dtype"),
    [
        ("x=2x3x7x9 w=4x3x3x3 p=1", "float32"),
        ("x=1x2x6x9 w=3x2x3x3 p=0:2x1:0 layout=channels_last", "float32"),
        ("x=1x2x1x20 w=2x2x1x3 p=0x1", "float64"),
        ("x=1x66x8 w=2x66x3 p=1", "float32"),
        ("x=1x2x30x3 w=3x2x3x1", "float32"),
        ("x=2x2x9x8 w=3x2x5x5 p=2", "float32"),
        ("x=1x3x31 w=2x3x5 p=2 layout=channels_last", "float64"),
    ],
)
def test_gradient_of_the_weight(line, dtype, monkeypatch):
    monkeypatch.setattr(weights, "LEAST_BLOCKS", 64)
    problem = parsed(line, dtype)
    way = winograd.chosen(problem, Op.GRAD_WEIGHT)
    assert agrees(way, line, Op.GRAD_WEIGHT, dtype)


@pytest.mark.parametrize("square", [SMALL, LARGE])
def test_three_kernels_in_float64(square):
    assert agrees(winograd.Way(square, False), "x=1x2x6x5 w=3x2x3x3 p=1", Op.FORWARD, "float64")


def test_images_are_served_in_parts(monkeypatch):
    monkeypatch.setattr(staged, "MOST_SCRATCH", 100_000)
    monkeypatch.setattr(staged, "LEAST_BLOCKS", 1)
    problem = parsed("x=3x2x120 w=2x2x3 p=1", "float32")
    tiling = staged.tiling_of(problem, Op.FORWARD, winograd.SQUARES[1, 3][0])
    assert tiling.images == 2
    assert agrees(winograd.Way(tiling.square, False), str(problem), Op.FORWARD)


@pytest.mark.parametrize("way", [winograd.Way(SMALL, True), winograd.Way(LARGE, False)])
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_results_are_finished(way, layout):
    problem = parsed(f"x=2x3x5x6 w=4x3x3x3 p=1 layout={layout}", "float32")
    tensors = tensors_of(problem)
    right = expected(problem, Op.FORWARD, tensors)
    rng = np.random.default_rng(1)
    bias, residual = rng.standard_normal(4), rng.standard_normal(right.shape)
    across = bias if layout == "channels_last" else bias.reshape(-1, 1, 1)
    result = computed(Way(way), problem, Op.FORWARD, tensors, Epilogue("relu", True), bias, residual)
    assert error(result, np.maximum(right + across + residual, 0)) < 1e-5


def test_a_gradient_of_the_weight_that_is_refused():
    groups, large = parsed("x=1x4x8x8 w=4x2x3x3 g=2", "float32"), parsed("x=32x64x224x224 w=64x64x3x3 p=1", "float32")
    assert "one group" in winograd.supports(groups, Op.GRAD_WEIGHT)
    assert "1 GiB" in winograd.supports(large, Op.GRAD_WEIGHT)


def test_which_way_is_chosen():
    """Few channels in large images: nothing between kernels; many in small ones: the fewest products."""
    large = winograd.chosen(parsed("x=32x64x224x224 w=64x64x3x3 p=1", "float32"), Op.FORWARD)
    small = winograd.chosen(parsed("x=32x512x16x16 w=512x512x3x3 p=1", "float32"), Op.FORWARD)
    assert large == winograd.Way(SMALL, True)
    assert small == winograd.Way(LARGE, False)


@pytest.mark.parametrize(
    ("line", "dtype", "reason"),
    [
        ("x=1x2x8x8 w=2x2x3x3", "float16", "precision"),
        ("x=1x2x8x8 w=2x2x3x5", "float32", "3x5"),
        ("x=1x2x8x8 w=2x2x3x3 s=2", "float32", "stride"),
        ("x=1x2x8x8 w=2x2x3x3 d=2", "float32", "dilation"),
        ("x=1x1x600000000 w=1x1x3", "float32", "31 bits"),
    ],
)
def test_what_is_refused(line, dtype, reason):
    assert reason in winograd.supports(parsed(line, dtype), Op.FORWARD)
