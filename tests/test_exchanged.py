"""Depthwise filters that cover the image, which change places with it: which they are, and every way they can lie."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastconv
from fastconv.core.algorithm import PLAIN, Epilogue
from fastconv.core.problem import ConvProblem, Op
from fastconv.cpu import direct
from fastconv.cpu._exchanged import exchange_of

from .problems import expected, random_tensors


@st.composite
def covered(draw, dtypes=("int32", "int64")):
    """Depthwise problems of which every output meets every input."""
    rank = draw(st.sampled_from((1, 2, 3)))
    N, C = draw(st.integers(1, 3)), draw(st.sampled_from((1, 2, 5, 16)))
    axes = [(draw(st.integers(1, 9)), *(draw(st.integers(0, 4)) for _ in range(3))) for _ in range(rank)]
    input = tuple(extent for extent, *_ in axes)
    filter = tuple(extent + outputs + before + behind for extent, outputs, before, behind in axes)
    padding = tuple((outputs + before, outputs + behind) for _, outputs, before, behind in axes)
    return ConvProblem.from_shapes(
        (N, C, *input), (C, 1, *filter), 1, padding, 1, C, dtype=draw(st.sampled_from(dtypes))
    )


def exchanged(problem, op, tensors, epilogue=PLAIN, constants=None, exchange=exchange_of):
    """What the plan with places changed gives, whatever it costs, and the plan."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(direct, "_exchange", exchange)
        plan = direct.plan(problem, op, epilogue)
    tensors = dict(zip("xwy", (tensors[name].copy() for name in "xwy"), strict=True))
    result = tensors[{Op.FORWARD: "y", Op.GRAD_INPUT: "x", Op.GRAD_WEIGHT: "w"}[op]]
    result[...] = 99
    if constants is None:
        constants = np.zeros(problem.C + 1, problem.dtype)
    plan.run(*tensors.values(), result, constants, 2)
    return result, plan


@given(covered(), st.sampled_from(Op))
def test_integers_come_out_exactly(problem, op):
    tensors = random_tensors(problem, 0, small_integers=True)
    result, plan = exchanged(problem, op, tensors)
    assert ("exchanged" in plan.tiles) == (exchange_of(problem, op) is not None)
    np.testing.assert_array_equal(result, expected(problem, op, tensors))


@given(covered(("float32", "float64")), st.sampled_from(Op), st.integers(0, 9))
def test_a_weight_that_is_not_a_number_reaches_as_many_results_as_ever(problem, op, seed):
    """Also through its products with the padding."""
    tensors, rng = random_tensors(problem, seed), np.random.default_rng(seed)
    for tensor in tensors.values():
        tensor.reshape(-1)[rng.integers(tensor.size)] = rng.choice([np.nan, np.inf])
    result, _ = exchanged(problem, op, tensors)
    usual, _ = exchanged(problem, op, tensors, exchange=lambda problem, op: None)
    np.testing.assert_array_equal(np.isnan(result), np.isnan(usual))


@given(covered(("float64",)))
def test_bias_and_activation(problem):
    tensors, bias = random_tensors(problem, 0), np.random.default_rng(1).standard_normal(problem.C + 1)
    bias[-1] = 0
    plain, _ = exchanged(problem, Op.FORWARD, tensors)
    finished, _ = exchanged(problem, Op.FORWARD, tensors, Epilogue("relu", False), bias)
    biased = plain + bias[:-1].reshape(problem.C, *[1] * problem.rank)
    np.testing.assert_allclose(finished, np.maximum(biased, 0), atol=1e-12)


def test_a_residual_is_added_where_it_belongs():
    problem = ConvProblem.parse("x=2x32x14x14 w=32x1x27x27 p=13 g=32 f64")
    assert direct.plan(problem, Op.FORWARD, PLAIN).tiles["exchanged"]
    tensors = random_tensors(problem, 0)
    x, weight, add = tensors["x"], tensors["w"], np.random.default_rng(1).standard_normal(problem.y_shape)
    call = {"padding": 13, "groups": 32, "algorithm": "direct"}
    y = fastconv.conv2d(x, weight, **call)
    np.testing.assert_allclose(fastconv.conv2d(x, weight, **call, add=add), y + add, atol=1e-11)


def test_it_is_chosen_where_it_is_cheaper():
    large = ConvProblem.parse("x=1x512x14x14 w=512x1x27x27 p=13 g=512")
    assert all("exchanged" in direct.plan(large, op, PLAIN).tiles for op in Op)
    small = ConvProblem.parse("x=1x8x3x3 w=8x1x5x5 p=2 g=8")
    assert all("exchanged" not in direct.plan(small, op, PLAIN).tiles for op in Op)


@pytest.mark.parametrize("line", [
    "x=1x8x9x9 w=8x1x16x16 p=8 g=8",
    "x=1x8x9x9 w=8x1x17x17 p=8 g=8 s=2",
    "x=1x8x5x5 w=8x1x17x17 p=16 g=8 d=2",
    "x=1x8x9x9 w=16x1x17x17 p=8 g=8",
    "x=1x8x9x9 w=8x8x17x17 p=8",
    "x=1x8x9x9 w=8x1x17x17 p=8 g=8 mode=reflect",
    "x=1x8x9x9 w=8x1x17x17 p=8 g=8 layout=channels_last",
])  # fmt: skip
@pytest.mark.parametrize("op", Op)
def test_other_problems_are_left_as_they_are(op, line):
    assert exchange_of(ConvProblem.parse(line), op) is None
