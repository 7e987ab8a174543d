"""Few source or few result channels: tails of tiles and of channels, strides, groups, both layouts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fastconv.core.algorithm import Epilogue
from fastconv.core.problem import Op
from fastconv.cuda._device import DTYPES
from fastconv.cuda._few_channels import few_channels
from fastconv.cuda._plan import Work, planned

from .devices import TOLERANCE, computed, error, expected, parsed, tensors_of

LINES = (
    "x=2x3x9x11 w=5x3x3x3 p=1",
    "x=1x3x21x13 w=18x3x7x7 s=2 p=3",
    "x=1x4x6x7 w=6x2x3x2 s=1x2 p=1x0 g=2",
    "x=1x2x5x6 w=6x1x3x3 p=1 g=2",
    "x=1x3x30 w=2x3x5 p=2 d=2",
    "x=1x2x3x4x5 w=3x2x2x3x3 s=2x1x1 p=1",
)


class FewChannels:
    """As an algorithm of its own."""

    @staticmethod
    def work(problem, op, epilogue):
        run = few_channels(problem, op, epilogue)
        assert run is not None
        return Work(lambda queue, x, w, y, residual, bias, scratch: run(queue, x, w, y, residual, bias))

    plan = staticmethod(planned("few channels", work))


every_layout = pytest.mark.parametrize("layout", ["channels_first", "channels_last"])


def check(problem, op):
    tensors = tensors_of(problem)
    result = computed(FewChannels, problem, op, tensors)
    assert error(result, expected(problem, op, tensors)) < TOLERANCE[problem.dtype] * math.sqrt(problem.terms(op))


@every_layout
@pytest.mark.parametrize("line", LINES)
def test_the_result_is_that_of_the_reference(line, layout):
    check(parsed(f"{line} layout={layout}", "float32"), Op.FORWARD)


@pytest.mark.parametrize("line", LINES)
def test_the_gradient_is_that_of_the_reference(line):
    check(parsed(line, "float32"), Op.GRAD_INPUT)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_is_computed(dtype):
    check(parsed(LINES[0], dtype), Op.FORWARD)


@every_layout
def test_sums_are_finished_where_they_are_stored(layout):
    problem = parsed(f"{LINES[0]} layout={layout}", "float32")
    tensors, rng = tensors_of(problem), np.random.default_rng(1)
    bias, residual = rng.standard_normal(5), rng.standard_normal(problem.y_shape)
    across = bias if layout == "channels_last" else bias.reshape(-1, 1, 1)
    right = np.maximum(expected(problem, Op.FORWARD, tensors) + across + residual, 0)
    result = computed(FewChannels, problem, Op.FORWARD, tensors, Epilogue("relu", True), bias, residual)
    assert error(result, right) < 1e-5


@pytest.mark.parametrize(
    "line", ["x=1x8x6x6 w=8x8x3x3", "x=1x3x40x40 w=5x3x9x9", "x=1x8x6x6 w=3x8x3x3 layout=channels_last"]
)
def test_what_it_is_not_made_for_is_left_to_others(line):
    assert few_channels(parsed(line, "float32"), Op.FORWARD, Epilogue()) is None
