"""NaN and Inf: they reach the results that depend on them, and no others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastconv
from fastconv.core.evaluate import evaluate
from fastconv.core.problem import Op
from fastconv.core.registry import algorithms

from .problems import conv_problems, expected, inputs_of, random_tensors

NAMES = ["auto", *(each.name for each in algorithms() if not each.spreads)]
SPREADING = [each.name for each in algorithms() if each.spreads]
DATA = {Op.FORWARD: "x", Op.GRAD_INPUT: "y", Op.GRAD_WEIGHT: "x"}


@pytest.mark.parametrize("algorithm", NAMES)
@pytest.mark.parametrize("op", Op)
@given(problem=conv_problems(dtypes=("float32", "float64")), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_they_reach_exactly_what_depends_on_them(algorithm, op, problem, seed, data):
    tensors = random_tensors(problem, seed)
    bad = tensors[DATA[op]]
    place = data.draw(st.integers(0, bad.size - 1))
    bad.flat[place] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    result = evaluate(op, problem, algorithm=algorithm, **inputs_of(op, tensors))
    with np.errstate(invalid="ignore"):
        exact = expected(problem, op, tensors)
    np.testing.assert_array_equal(np.isnan(result), np.isnan(exact))
    np.testing.assert_array_equal(np.isposinf(result), np.isposinf(exact))
    np.testing.assert_array_equal(np.isneginf(result), np.isneginf(exact))


@pytest.mark.parametrize("algorithm", NAMES)
@given(problem=conv_problems(dtypes=("float64",)), seed=st.integers(0, 2**32 - 1))
def test_grad_weight_with_a_nan_in_grad_output(algorithm, problem, seed):
    """It reaches every tap of its output channel, and no other channel."""
    tensors = random_tensors(problem, seed)
    channel = seed % problem.K
    where = (0, channel) if problem.layout == "channels_first" else (0, ..., channel)
    tensors["y"][where] = np.nan
    result = evaluate(Op.GRAD_WEIGHT, problem, x=tensors["x"], y=tensors["y"], algorithm=algorithm)
    bad = np.zeros(problem.w_shape, bool)
    bad[channel] = True
    np.testing.assert_array_equal(np.isnan(result), bad)


@pytest.mark.parametrize("algorithm", NAMES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_weight_stays_in_its_output_channel(algorithm, bad):
    """The padding counts as numbers: zero times Inf is NaN at the border."""
    x, weight = np.ones((1, 2, 5)), np.ones((3, 2, 3))
    weight[1, 0, 0] = bad
    y = fastconv.conv1d(x, weight, padding=1, algorithm=algorithm)
    np.testing.assert_array_equal(y[0, [0, 2]], [[4, 6, 6, 6, 4]] * 2)
    np.testing.assert_array_equal(y[0, 1], [np.nan, bad, bad, bad, bad])


@pytest.mark.parametrize("algorithm", NAMES)
def test_the_padding_above_counts_as_numbers_too(algorithm):
    """Lines of zeros are left out of sums with finite weights only."""
    weight = np.ones((1, 1, 3, 3))
    weight[0, 0, 0] = np.inf
    y = fastconv.conv2d(np.ones((1, 1, 3, 4)), weight, padding=1, algorithm=algorithm)
    np.testing.assert_array_equal(
        y[0, 0], [[np.nan] * 4, [np.nan, np.inf, np.inf, np.nan], [np.nan, np.inf, np.inf, np.nan]]
    )


@pytest.mark.parametrize("algorithm", SPREADING)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("which", ["x", "weight", "pad_value"])
def test_an_algorithm_that_would_spread_them_refuses_by_name(algorithm, bad, which):
    arguments = {"x": np.ones((1, 1, 64), np.float32), "weight": np.ones((1, 1, 3), np.float32), "pad_value": 0}
    if which == "pad_value":
        arguments["pad_value"] = bad
    else:
        arguments[which][0, 0, 2] = bad
    arguments |= {"padding": 1, "padding_mode": "constant"}
    with pytest.raises(ValueError, match=f"algorithm='{algorithm}': spreads NaN, Inf"):
        fastconv.conv1d(**arguments, algorithm=algorithm)
    y = fastconv.conv1d(**arguments)
    np.testing.assert_array_equal(y, fastconv.conv1d(**arguments, algorithm="direct"))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("epilogue", [{}, {"activation": "relu"}])
@pytest.mark.parametrize("which", ["x", "weight"])
def test_inputs_larger_than_the_result_are_judged_by_it(which, bad, epilogue):
    """A problem that winograd is taken for."""
    x, weight = np.ones((1, 64, 14, 14), np.float32), np.ones((64, 64, 3, 3), np.float32)
    assert fastconv.explain(x, weight, 1, 1).algorithm == "winograd"
    if which == "x":
        x[0, 3, 7, 13] = bad
    else:
        weight[5, 7, 1, 1] = bad
    y = fastconv.conv2d(x, weight, padding=1, **epilogue)
    np.testing.assert_array_equal(y, fastconv.conv2d(x, weight, padding=1, algorithm="direct", **epilogue))


def test_auto_leaves_the_transform_for_one_nan():
    """A problem that the transform would be taken for."""
    x, weight = np.ones((1, 1, 256, 256), np.float32), np.ones((1, 1, 45, 45), np.float32)
    assert fastconv.explain(x, weight, 1, 22).algorithm == "fft"
    x[0, 0, 100, 100] = np.nan
    y = fastconv.conv2d(x, weight, padding=22)
    bad = np.zeros((256, 256), bool)
    bad[78:123, 78:123] = True
    np.testing.assert_array_equal(np.isnan(y[0, 0]), bad)


def test_large_sums_overflow_only_where_they_are():
    x = np.zeros((1, 1, 300), np.float32)
    x[0, 0, 100:102] = 3e38
    y = fastconv.conv1d(x, np.ones((1, 1, 2), np.float32))
    assert np.flatnonzero(np.isinf(y[0, 0])).tolist() == [100]
    assert y[0, 0, 99] == y[0, 0, 101] == np.float32(3e38)


def integers(*shape):
    """Small integers, none of them zero, so that every dependence shows."""
    values = np.random.default_rng(len(shape)).integers(1, 4, shape)
    return (values * np.random.default_rng(7).choice([-1, 1], shape)).astype(float)


X, W, Y = integers(1, 2, 6, 7), integers(3, 2, 3, 2), integers(1, 3, 4, 6)
PUBLIC = {
    "conv2d": (fastconv.conv2d, (X, W)),
    "conv_transpose2d": (fastconv.conv_transpose2d, (Y, W)),
    "conv2d_input": (lambda w, y: fastconv.grad.conv2d_input(X.shape, w, y), (W, Y)),
    "conv2d_weight": (lambda x, y: fastconv.grad.conv2d_weight(x, W.shape, y), (X, Y)),
    "conv_transpose2d_input": (lambda w, x: fastconv.grad.conv_transpose2d_input(Y.shape, w, x), (W, X)),
    "conv_transpose2d_weight": (lambda y, x: fastconv.grad.conv_transpose2d_weight(y, W.shape, x), (Y, X)),
    "conv2d_backward": (fastconv.grad.conv2d_backward, (Y, X, W)),
    "conv_transpose2d_backward": (fastconv.grad.conv_transpose2d_backward, (X, Y, W)),
    "conv2d_double_backward": (fastconv.grad.conv2d_double_backward, (X, W, integers(3), Y, X, W)),
    "conv_transpose2d_double_backward": (fastconv.grad.conv_transpose2d_double_backward, (Y, W, integers(2), X, Y, W)),
}


@pytest.mark.parametrize("name", PUBLIC)
@given(data=st.data())
def test_public_functions_pass_them_on_to_what_depends_on_them(name, data):
    """What a large change of an element changes is what its NaN must reach.

    Not the data around the border of a gradient: zeros that stand there in place of nothing are multiplied, so a
    bad weight may reach any pixel of its channels.
    """
    function, arguments = PUBLIC[name]
    number = data.draw(st.integers(0, len(arguments) - 1))
    place = data.draw(st.integers(0, arguments[number].size - 1))

    def results(value):
        changed = [argument.copy() for argument in arguments]
        changed[number].flat[place] = value
        result = function(*changed)
        return result if isinstance(result, tuple) else (result,)

    is_weight = arguments[number].shape == W.shape
    for before, after, bad in zip(results(0.0), results(1e6), results(np.nan), strict=True):
        depends = before != after
        assert np.all(np.isnan(bad[depends]))
        assert is_weight or not np.any(np.isnan(bad[~depends]))
        assert np.all(np.isfinite(before))
