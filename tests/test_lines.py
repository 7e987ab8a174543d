"""Filters with a single target channel in lines: planes of any height and width, and runs of taps of every length."""

from __future__ import annotations

import numpy as np
import pytest

from fastconv.core.algorithm import PLAIN
from fastconv.core.evaluate import evaluate
from fastconv.core.problem import ConvProblem, Op
from fastconv.cpu import _lines, direct

from .problems import expected, inputs_of, random_tensors, surrounded

# Around the numbers of lines that are computed at once, and around whole and half vectors of every type.
HEIGHTS = (1, 2, 6, 7, 8, 13, 14, 15, 16, 17, 23)
WIDTHS = (1, 3, 4, 5, 8, 9, 12, 16, 20, 24, 25, 33)
OPS = (Op.FORWARD, Op.GRAD_INPUT)


def is_right(problem, op):
    """Small integers: any wrong product shows in full."""
    tensors = random_tensors(problem, 0, small_integers=True)
    result = evaluate(op, problem, algorithm="direct", **inputs_of(op, tensors))
    np.testing.assert_array_equal(result, expected(problem, op, tensors), err_msg=f"{op} {problem}")


@pytest.mark.parametrize("dtype", ["f32", "f64", "i32"])
@pytest.mark.parametrize("height", HEIGHTS)
@pytest.mark.parametrize("op", OPS)
def test_planes_of_any_height_and_width(op, height, dtype):
    for width in WIDTHS:
        is_right(ConvProblem.parse(f"x=2x3x{height}x{width} w=3x1x5x5 p=2 g=3 {dtype}"), op)


@pytest.mark.parametrize("taps", range(1, 17))
@pytest.mark.parametrize("step", ["s=1 d=1", "s=2x1 d=1", "s=1 d=2x1", "s=2x1 d=2x1", "s=4x1 d=2x1", "s=3x1 d=2x1"])
@pytest.mark.parametrize("op", OPS)
def test_runs_of_every_length(op, step, taps):
    """A kernel has code for the runs of its filter alone."""
    is_right(ConvProblem.parse(f"x=1x2x19x9 w=2x1x{taps}x3 {step} p={taps}x1 g=2 f32"), op)


@pytest.mark.parametrize("mode", ["reflect", "circular"])
@pytest.mark.parametrize("height", HEIGHTS)
def test_low_planes_in_strips(height, mode):
    for op in OPS:
        is_right(ConvProblem.parse(f"x=1x2x{max(3, height)}x20 w=2x1x5x5 p=2 g=2 f32 mode={mode}"), op)


@pytest.mark.parametrize("height", HEIGHTS)
@pytest.mark.parametrize("op", OPS)
def test_nothing_is_written_around_low_planes_and_ends_of_lines(op, height):
    for width in (7, 8, 24):
        problem = ConvProblem.parse(f"x=1x1x{height}x{width} w=1x1x7x7 p=3 f32")
        tensors = {name: surrounded(each) for name, each in random_tensors(problem, 0, small_integers=True).items()}
        answer, result = expected(problem, op, tensors), {Op.FORWARD: "y", Op.GRAD_INPUT: "x"}[op]
        tensors[result][...] = 99
        before = tensors[result].base.copy()
        constants = np.zeros(problem.C + 1, problem.dtype)
        direct.plan(problem, op, PLAIN).run(*(tensors[each] for each in "xwy"), tensors[result], constants, 1)
        np.testing.assert_array_equal(tensors[result], answer, err_msg=f"{op} {problem}")
        tensors[result][...] = 99
        np.testing.assert_array_equal(tensors[result].base, before)


def test_lines_that_are_computed_at_once_waste_few():
    tall, low = (ConvProblem.parse(f"x=1x1x9x9 w=1x1x{taps} g=1") for taps in ("5x5", "3x3"))
    for height in range(1, 200):
        lines, vectors = _lines._at_once(tall, (1, height, 64))
        assert vectors == 1
        computed = -(-height // lines) * lines
        assert computed <= -(-height // 7) * 7
    assert _lines._at_once(low, (1, 100, 64)) == (2, _lines.WIDE)
