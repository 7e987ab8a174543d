"""Every algorithm, operation and type against the reference, element for element."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fastconv.core.algorithm import ACTIVATIONS, Epilogue
from fastconv.core.problem import Op
from fastconv.core.registry import algorithms
from fastconv.cuda._device import DTYPES
from tests import problems

from .devices import LINES, TOLERANCE, computed, error, expected, parsed, tensors_of

ALGORITHMS = {each.name: each for each in algorithms("cuda")}
every_algorithm = pytest.mark.parametrize("name", ALGORITHMS)
every_op = pytest.mark.parametrize("op", Op)


@every_algorithm
@every_op
@pytest.mark.parametrize("line", LINES)
def test_an_algorithm_computes_what_the_reference_does(name, op, line):
    problem = parsed(line, "float32")
    if ALGORITHMS[name].supports(problem, op) is None:
        tensors = tensors_of(problem)
        result = computed(ALGORITHMS[name], problem, op, tensors)
        assert error(result, expected(problem, op, tensors)) < TOLERANCE["float32"] * math.sqrt(problem.terms(op))


@every_algorithm
@every_op
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_is_computed(name, op, dtype):
    problem = parsed(LINES[0], dtype)
    if ALGORITHMS[name].supports(problem, op) is None:
        tensors = tensors_of(problem)
        result = computed(ALGORITHMS[name], problem, op, tensors)
        assert error(result, expected(problem, op, tensors)) < TOLERANCE[dtype] * math.sqrt(problem.terms(op))


ACTIVATED = {
    "relu": lambda v: np.maximum(v, 0),
    "leaky_relu": lambda v: np.where(v > 0, v, 0.01 * v),
    "sigmoid": lambda v: 1 / (1 + np.exp(-v)),
    "silu": lambda v: v / (1 + np.exp(-v)),
    "gelu": lambda v: v * (1 + np.vectorize(math.erf)(v / math.sqrt(2))) / 2,
    "tanh": np.tanh,
}


@every_algorithm
@pytest.mark.parametrize("op", [Op.FORWARD, Op.GRAD_INPUT])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("line", [LINES[0], LINES[5], LINES[7]])
def test_bias_residual_and_activation_are_applied_at_the_store(name, op, activation, line):
    problem = parsed(line, "float32")
    if ALGORITHMS[name].supports(problem, op) is None:
        tensors = tensors_of(problem)
        right = expected(problem, op, tensors)
        channels = problem.K if op is Op.FORWARD else problem.C
        rng = np.random.default_rng(1)
        bias, residual = rng.standard_normal(channels), rng.standard_normal(right.shape)
        across = bias if problem.layout == "channels_last" else bias.reshape(-1, *[1] * problem.rank)
        right = ACTIVATED[activation](right + across + residual)
        result = computed(ALGORITHMS[name], problem, op, tensors, Epilogue(activation, True), bias, residual)
        assert error(result, right) < 1e-5


@every_algorithm
@every_op
def test_nan_stays_where_direct_puts_it(name, op):
    """In the results that depend on it; an algorithm that would spread it has noticed it and stood back."""
    problem = parsed("x=1x2x12x12 w=2x2x3x3 p=1", "float32")
    if ALGORITHMS[name].supports(problem, op) is None and op is not Op.GRAD_WEIGHT:
        tensors = tensors_of(problem)
        source = tensors["x" if op is Op.FORWARD else "y"]
        source[0, 1, 3, 4] = np.nan
        result = computed(ALGORITHMS[name], problem, op, tensors)
        np.testing.assert_array_equal(np.isnan(result), np.isnan(problems.expected(problem, op, tensors)))
