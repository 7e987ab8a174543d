"""Depthwise filters of 3x3, which have kernels of their own: which they serve, and every way a border can lie."""

from __future__ import annotations

import numpy as np
import pytest

import fastconv
from fastconv.core.algorithm import PLAIN
from fastconv.core.evaluate import evaluate
from fastconv.core.problem import ConvProblem, Op
from fastconv.cpu import _three_lines, direct

from .problems import expected, inputs_of, random_tensors, surrounded

PADS = ("0", "1", "2", "3", "1:0", "0x2:1")
EXTENTS = ((1, 1), (2, 3), (3, 2), (5, 17), (8, 9), (9, 33), (15, 16), (4, 66))


def problems(dtype):
    """As many as have an output, of both strides."""
    for stride in (1, 2):
        for H, W in EXTENTS:
            for pads in PADS:
                try:
                    yield ConvProblem.parse(f"x=2x9x{H}x{W} w=9x1x3x3 s={stride} p={pads} g=9 {dtype}")
                except ValueError:  # the filter is larger than the padded input
                    continue


@pytest.mark.parametrize("dtype", ["f32", "f64", "i32"])
@pytest.mark.parametrize("op", Op)
def test_every_border(op, dtype):
    """Small integers: any wrong product shows in full."""
    for problem in problems(dtype):
        assert _three_lines.serves(problem, op)
        tensors = random_tensors(problem, 0, small_integers=True)
        result = evaluate(op, problem, algorithm="direct", **inputs_of(op, tensors))
        np.testing.assert_array_equal(result, expected(problem, op, tensors), err_msg=f"{op} {problem}")


@pytest.mark.parametrize("op", Op)
def test_planes_that_are_fetched_beforehand(op, monkeypatch):
    """As those of large tensors are; of any size, from memory that ends with the last plane."""
    monkeypatch.setattr(_three_lines, "FAR_BYTES", 0)
    for problem in problems("i32"):
        tensors = {name: surrounded(each) for name, each in random_tensors(problem, 0, small_integers=True).items()}
        answer, result = expected(problem, op, tensors), {Op.FORWARD: "y", Op.GRAD_INPUT: "x", Op.GRAD_WEIGHT: "w"}[op]
        tensors[result][...] = 99
        constants = np.zeros(problem.C + 1, problem.dtype)
        direct.plan(problem, op, PLAIN).run(*(tensors[each] for each in "xwy"), tensors[result], constants, 2)
        np.testing.assert_array_equal(tensors[result], answer, err_msg=f"{op} {problem}")


@pytest.mark.parametrize("stride", [1, 2])
def test_bias_activation_and_residual(stride):
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 8, 9, 21)), rng.standard_normal((8, 1, 3, 3))
    bias, plain = rng.standard_normal(8), {"stride": stride, "padding": 1, "groups": 8, "algorithm": "direct"}
    y = fastconv.conv2d(x, weight, **plain)
    add = rng.standard_normal(y.shape)
    finished = fastconv.conv2d(x, weight, bias, **plain, add=add, activation="relu")
    np.testing.assert_allclose(finished, np.maximum(y + bias[:, None, None] + add, 0), atol=1e-12)


@pytest.mark.parametrize("line", [
    "x=1x8x9x9 w=8x1x5x5 p=2 g=8",
    "x=1x8x9x9 w=8x1x3x3 s=3 p=1 g=8",
    "x=1x8x9x9 w=8x1x3x3 s=2x1 p=1 g=8",
    "x=1x8x9x9 w=8x1x3x3 d=2 g=8",
    "x=1x8x9x9 w=16x1x3x3 g=8",
    "x=1x16x9x9 w=8x2x3x3 g=8",
    "x=1x2x9x9 w=2x1x3x3 g=2",
    "x=1x8x9x900 w=8x1x3x3 g=8",
    "x=1x8x9x9 w=8x1x3x3 p=1 g=8 c64",
])  # fmt: skip
@pytest.mark.parametrize("op", Op)
def test_other_problems_are_left_to_other_kernels(op, line):
    assert not _three_lines.serves(ConvProblem.parse(line), op)


def test_only_zeros_may_stand_around():
    problem = ConvProblem.parse("x=1x8x9x9 w=8x1x3x3 p=1 g=8")
    assert not _three_lines.serves(problem.replace(padding_mode="reflect"), Op.FORWARD)
    assert not _three_lines.serves(problem.replace(padding_mode="constant", pad_value=1), Op.FORWARD)
    assert not _three_lines.serves(problem.replace(layout="channels_last"), Op.FORWARD)


@pytest.mark.parametrize("stride", [1, 2])
def test_an_infinite_weight_meets_the_zeros_of_the_border(stride):
    """Their product is NaN, as everywhere in the direct method."""
    x, weight = np.ones((1, 8, 6, 6)), np.ones((8, 1, 3, 3))
    weight[3, 0, 0, 0] = np.inf
    y = fastconv.conv2d(x, weight, stride=stride, padding=1, groups=8, algorithm="direct")
    assert np.isnan(y[0, 3, 0]).all()
    assert np.isnan(y[0, 3, :, 0]).all()
    assert np.isinf(y[0, 3, 1:, 1:]).all()
    assert np.isfinite(np.delete(y, 3, 1)).all()


@pytest.mark.parametrize("stride", [1, 2])
def test_a_nan_at_the_border_of_y_meets_the_zeros_around_x(stride):
    """So it reaches all nine weights of its channel."""
    problem = ConvProblem.parse(f"x=1x8x6x6 w=8x1x3x3 s={stride} p=1 g=8")
    x, y = np.ones(problem.x_shape, np.float32), np.ones(problem.y_shape, np.float32)
    y[0, 5, 0, 0] = np.nan
    w = evaluate(Op.GRAD_WEIGHT, problem, algorithm="direct", x=x, y=y)
    assert np.isnan(w[5]).all()
    assert np.isfinite(np.delete(w, 5, 0)).all()
