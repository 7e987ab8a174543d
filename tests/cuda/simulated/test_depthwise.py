"""Filters that reach one channel: every tail of a tile, several planes in a block, each stride, several channels."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fastconv.core.algorithm import Epilogue
from fastconv.core.problem import Op
from fastconv.cuda._depthwise import depthwise
from fastconv.cuda._depthwise_weight import depthwise_weight
from fastconv.cuda._device import DTYPES
from fastconv.cuda._plan import Work, planned

from .devices import TOLERANCE, computed, error, expected, parsed, tensors_of

LINES = (
    "x=2x3x7x7 w=3x1x3x3 p=1 g=3",
    "x=1x2x9x70 w=2x1x3x3 p=1x0 g=2",
    "x=1x2x21x13 w=2x1x7x7 p=3 g=2",
    "x=1x3x9x10 w=3x1x3x3 s=2 p=1 g=3",
    "x=1x2x10x9 w=2x1x5x4 s=2x1 p=0x2 g=2",
    "x=1x2x9x12 w=2x1x3x3 d=2 p=2 g=2",
    "x=2x2x40 w=2x1x5 p=2 g=2",
    "x=1x2x4x5x6 w=2x1x3x3x2 s=2x1x2 p=1 g=2",
    "x=1x2x5x6 w=6x1x3x3 p=1 g=2",
    "x=1x3x5x6 w=1x3x3x3 p=1",
)


class Depthwise:
    """As an algorithm of its own."""

    @staticmethod
    def work(problem, op, epilogue):
        run = depthwise(problem, op, epilogue)
        assert run is not None
        return Work(lambda queue, x, w, y, residual, bias, scratch: run(queue, x, w, y, residual, bias))

    plan = staticmethod(planned("depthwise", work))


every_layout = pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
every_op = pytest.mark.parametrize("op", [Op.FORWARD, Op.GRAD_INPUT])


def check(problem, op):
    tensors = tensors_of(problem)
    result = computed(Depthwise, problem, op, tensors)
    assert error(result, expected(problem, op, tensors)) < TOLERANCE[problem.dtype] * math.sqrt(problem.terms(op))


@every_layout
@every_op
@pytest.mark.parametrize("line", LINES)
def test_results_are_those_of_the_reference(line, op, layout):
    check(parsed(f"{line} layout={layout}", "float32"), op)


@every_layout
@every_op
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_is_computed(dtype, op, layout):
    check(parsed(f"{LINES[0]} layout={layout}", dtype), op)


@every_layout
def test_sums_are_finished_where_they_are_stored(layout):
    problem = parsed(f"{LINES[0]} layout={layout}", "float32")
    tensors, rng = tensors_of(problem), np.random.default_rng(1)
    bias, residual = rng.standard_normal(3), rng.standard_normal(problem.y_shape)
    across = bias if layout == "channels_last" else bias.reshape(-1, 1, 1)
    right = np.maximum(expected(problem, Op.FORWARD, tensors) + across + residual, 0)
    result = computed(Depthwise, problem, Op.FORWARD, tensors, Epilogue("relu", True), bias, residual)
    assert error(result, right) < 1e-5


@pytest.mark.parametrize("line", ["x=1x2x40x40 w=2x1x9x9 p=4 g=2", "x=1x2x9x9 w=2x1x3x3 s=3 g=2"])
def test_what_does_not_fit_into_registers_is_left_to_others(line):
    assert depthwise(parsed(line, "float32"), Op.GRAD_INPUT, Epilogue()) is None


class Weight:
    """GRAD_WEIGHT as an algorithm of its own."""

    @staticmethod
    def work(problem, op, epilogue):
        found = depthwise_weight(problem)
        return Work(
            lambda queue, x, w, y, residual, bias, scratch: found.run(queue, x, w, y, *scratch), (found.partial,)
        )

    plan = staticmethod(planned("depthwise weight", work))


@every_layout
@pytest.mark.parametrize("line", LINES[:-1])
def test_the_gradient_of_a_filter_is_that_of_the_reference(line, layout):
    problem = parsed(f"{line} layout={layout}", "float32")
    tensors = tensors_of(problem)
    result = computed(Weight, problem, Op.GRAD_WEIGHT, tensors)
    bound = TOLERANCE["float32"] * math.sqrt(problem.terms(Op.GRAD_WEIGHT))
    assert error(result, expected(problem, Op.GRAD_WEIGHT, tensors)) < bound


@every_layout
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gradient_of_a_filter_is_computed_in_every_type(dtype, layout):
    problem = parsed(f"{LINES[0]} layout={layout}", dtype)
    tensors = tensors_of(problem)
    result = computed(Weight, problem, Op.GRAD_WEIGHT, tensors)
    bound = TOLERANCE[dtype] * math.sqrt(problem.terms(Op.GRAD_WEIGHT))
    assert error(result, expected(problem, Op.GRAD_WEIGHT, tensors)) < bound


@every_layout
def test_nan_reaches_the_taps_that_meet_it(layout):
    problem = parsed(f"x=1x2x7x9 w=2x1x3x3 s=1x2 g=2 layout={layout}", "float32")
    tensors = tensors_of(problem)
    at = (0, 1, 6, 8) if layout == "channels_first" else (0, 6, 8, 1)
    tensors["x"][at] = np.nan
    result = computed(Weight, problem, Op.GRAD_WEIGHT, tensors)
    assert np.isnan(result).sum() == 1
    assert np.isnan(result[1, 0, 2, 2])


@pytest.mark.parametrize("blocks", [1, 7])
@every_layout
def test_few_blocks_take_several_tiles_each(layout, blocks, monkeypatch):
    monkeypatch.setattr("fastconv.cuda._depthwise_weight.WANTED_BLOCKS", blocks)
    problem = parsed(f"x=3x2x9x17 w=2x1x3x3 g=2 layout={layout}", "float32")
    tensors = tensors_of(problem)
    result = computed(Weight, problem, Op.GRAD_WEIGHT, tensors)
    assert error(result, expected(problem, Op.GRAD_WEIGHT, tensors)) < 1e-5
