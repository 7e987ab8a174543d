"""`activation=` and `add=`: activation(convolution + bias + add), in every algorithm, and where they are refused."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

import fastconv
from fastconv.core.algorithm import ACTIVATIONS
from fastconv.core.problem import COMPUTE_DTYPES
from fastconv.core.registry import algorithms

from .problems import GENERAL, GENERAL_NAMES

# The formulas, in float64.
FORMULAS = {
    "relu": lambda v: np.where(v < 0, 0, v),
    "leaky_relu": lambda v: np.where(v > 0, v, 0.01 * v),
    "silu": lambda v: v * special.expit(v),
    "gelu": lambda v: v * special.ndtr(v),
    "sigmoid": special.expit,
    "tanh": np.tanh,
}
EVERY = [pytest.param(each, id=each.name) for each in algorithms()]
SERVING_ALL = [pytest.param(each, id=each.name) for each in GENERAL]
KINDS = st.sampled_from(["float32", "float64"])
RELU_TYPES = [name for name in COMPUTE_DTYPES if np.dtype(name).kind != "c"]


def random(shape, dtype="float64", seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def activated(values, activation):
    return values if activation is None else FORMULAS[activation](values)


def test_the_formulas_are_all_there():
    assert tuple(FORMULAS) == ACTIVATIONS


# ---- what is computed


@st.composite
def cases(draw):
    """A function, its arguments without epilogue, and an epilogue."""
    rank = draw(st.integers(1, 3))
    groups, channels, outputs = draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.integers(1, 9))
    transposed = draw(st.booleans())
    layout = draw(st.sampled_from(["channels_first", "channels_last"]))
    extents = [draw(st.integers(3, 40 if rank == 1 else 9)) for _ in range(rank)]
    C = groups * channels
    shape = (C, *extents) if layout == "channels_first" else (*extents, C)
    if draw(st.booleans()):
        shape = (draw(st.integers(1, 2)), *shape)
    filters = [draw(st.integers(1, 3)) for _ in range(rank)]
    weight = (C, outputs, *filters) if transposed else (groups * outputs, channels, *filters)
    parameters = {"stride": draw(st.integers(1, 3)), "groups": groups, "layout": layout}
    dtype = draw(KINDS)
    if not transposed:
        parameters |= {"padding": draw(st.integers(0, 2)), "padding_mode": draw(st.sampled_from(["zeros", "reflect"]))}
    name = f"conv_transpose{rank}d" if transposed else f"conv{rank}d"
    bias = random(groups * outputs, dtype, 2) if draw(st.booleans()) else None
    arguments = (random(shape, dtype), random(weight, dtype, 1), bias)
    return getattr(fastconv, name), arguments, parameters, draw(st.sampled_from([None, *FORMULAS])), draw(st.booleans())


@pytest.mark.parametrize("algorithm", SERVING_ALL)
@given(case=cases())
def test_every_algorithm_applies_them_as_it_stores(algorithm, case):
    function, arguments, parameters, activation, has_add = case
    plain = function(*arguments, **parameters, algorithm=algorithm.name)
    add = random(plain.shape, plain.dtype, 3) if has_add else None
    y = function(*arguments, **parameters, algorithm=algorithm.name, activation=activation, add=add)
    sums = plain.astype("float64") + (add if has_add else 0)
    tolerance = 1e-5 if plain.dtype == "float32" else 1e-13
    assert y.dtype == plain.dtype
    np.testing.assert_allclose(y, activated(sums, activation), rtol=0, atol=tolerance * np.abs(sums).max())


@pytest.mark.parametrize("algorithm", EVERY)
def test_large_problems_in_several_threads(algorithm, monkeypatch):
    """More than one tile, block of channels and task."""
    monkeypatch.setattr("fastconv.core.evaluate.SERIAL_SECONDS", 0)
    x, weight, bias = random((2, 40, 30, 33), "float32"), random((20, 40, 3, 3), "float32", 1), random(20, "float32", 2)
    plain = fastconv.conv2d(x, weight, bias, algorithm=algorithm.name)
    add = random(plain.shape, "float32", 3)
    y = fastconv.conv2d(x, weight, bias, algorithm=algorithm.name, activation="relu", add=add)
    np.testing.assert_allclose(y, np.maximum(plain + add, 0), atol=1e-4)


def values_of(dtype):
    """All magnitudes, both signs, zeros, subnormal numbers and what is not finite."""
    info = np.finfo(dtype)
    magnitudes = np.concatenate([np.geomspace(info.smallest_subnormal, 1e4, 3000), np.linspace(0, 40, 4001)])
    special_values = [0.0, np.inf, np.nan, info.tiny, info.smallest_subnormal, info.max]
    positive = np.concatenate([magnitudes, special_values])
    return np.concatenate([positive, -positive]).astype(dtype)


def through(values, activation):
    """The activation of each value, by way of a convolution with 1."""
    return fastconv.conv1d(values[None, None], np.ones((1, 1, 1), values.dtype), activation=activation)[0, 0]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_all_magnitudes(activation, dtype):
    """Within 4 units in the last place, but for underflow, and gelu within 8.

    The rounding of x**2 / 2 moves gelu by as many units on its tail, where it falls as exp(-x**2 / 2).
    """
    values = values_of(dtype)
    with np.errstate(all="ignore"):
        exact = FORMULAS[activation](values.astype("float64"))
        given = through(values, activation)
    finite = np.isfinite(values)
    info = np.finfo(dtype)
    units = 8 + np.minimum(np.abs(values), 40.0) ** 2 if activation == "gelu" else 4
    with np.errstate(all="ignore"):
        error = np.abs(given - exact) / (units * info.eps * np.abs(exact) + 64 * info.tiny)
    assert error[finite].max() <= 1


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_registers_and_what_is_left_of_them_agree(activation, layout):
    """Rows of any length, along the registers and across them."""
    values = random(70, "float32") * 5
    each = [through(values[i : i + 1], activation).item() for i in range(70)]
    for count in range(1, 70, 3):
        x = values[None, :count] if layout == "channels_first" else values[:count, None]
        y = fastconv.conv1d(x, np.ones((1, 1, 1), np.float32), layout=layout, activation=activation)
        np.testing.assert_allclose(y.ravel(), each[:count], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize(
    ("activation", "of_inf", "of_minus_inf"),
    [
        ("relu", np.inf, 0),
        ("leaky_relu", np.inf, -np.inf),
        ("silu", np.inf, np.nan),
        ("gelu", np.inf, np.nan),
        ("sigmoid", 1, 0),
        ("tanh", 1, -1),
    ],
)
def test_what_is_not_finite(activation, of_inf, of_minus_inf, dtype):
    """NaN stays NaN, and Inf times zero is one, as the formulas have it."""
    values = np.array([np.inf, -np.inf, np.nan] * 9, dtype)
    np.testing.assert_array_equal(through(values, activation), [of_inf, of_minus_inf, np.nan] * 9)


def test_float16_is_rounded_after_the_activation():
    """The sum, 2049, is no float16."""
    x, weight = np.array([[[1024, 1025]]], np.float16), np.ones((1, 1, 2), np.float16)
    add = np.full((1, 1, 1), -2048, np.float16)
    assert fastconv.conv1d(x, weight, add=add, activation="tanh").item() == np.float16(np.tanh(1))


@pytest.mark.parametrize("dtype", RELU_TYPES)
def test_relu_of_every_real_type(dtype):
    info = np.iinfo(dtype) if np.dtype(dtype).kind in "iu" else np.finfo(dtype)
    x = np.array([info.min, info.min + 1, 0, 1, 2, info.max], dtype)
    np.testing.assert_array_equal(through(x, "relu"), np.maximum(x, 0))


@pytest.mark.parametrize("dtype", [name for name in RELU_TYPES if np.dtype(name).kind in "iu"])
def test_relu_of_integers_is_that_of_the_wrapped_sum(dtype):
    """As NumPy would give, whatever the accumulator."""
    info = np.iinfo(dtype)
    x = np.random.default_rng(0).integers(info.min, info.max, (1, 3, 50), dtype=dtype, endpoint=True)
    weight, bias = x[:, :, :5].copy(), x[0, 0, :1].copy()
    plain = fastconv.conv1d(x, weight, bias)
    add = np.random.default_rng(1).integers(info.min, info.max, plain.shape, dtype=dtype, endpoint=True)
    y = fastconv.conv1d(x, weight, bias, activation="relu", add=add)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, np.maximum(plain + add, 0))
    out = np.empty_like(y)
    assert fastconv.conv1d(x, weight, bias, activation="relu", add=add, out=out) is out
    np.testing.assert_array_equal(out, y)


def test_a_nan_in_the_data_goes_another_way_with_the_epilogue():
    """fft would be taken, and would spread it."""
    x, weight = np.ones((1, 1, 256, 256), np.float32), np.ones((1, 1, 45, 45), np.float32)
    assert fastconv.explain(x, weight, 1, 22).algorithm == "fft"
    add = np.full(x.shape, -1e6, np.float32)
    add[0, 0, 5, 5] = np.nan
    assert np.flatnonzero(fastconv.conv2d(x, weight, padding=22, activation="relu", add=add)).tolist() == [5 * 256 + 5]
    x[0, 0, 100, 100] = np.nan
    y = fastconv.conv2d(x, weight, padding=22, activation="relu", add=add)
    bad = np.zeros((256, 256), bool)
    bad[78:123, 78:123] = bad[5, 5] = True
    np.testing.assert_array_equal(np.isnan(y[0, 0]), bad)
    np.testing.assert_array_equal(y[0, 0][~bad], 0)


# ---- add


def test_add_takes_part_in_the_type():
    x, weight = np.ones((1, 1, 4), np.float32), np.ones((1, 1, 2), np.float32)
    y = fastconv.conv1d(x, weight, add=np.full((1, 1, 3), 1e-12))
    assert y.dtype == "float64"
    np.testing.assert_array_equal(y, 2 + 1e-12)
    assert fastconv.conv_transpose1d(x, weight, add=np.ones((1, 1, 5), complex)).dtype == "complex128"


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
def test_add_may_have_any_memory_and_no_batch(name, layout):
    function, x, weight = getattr(fastconv, name), random((4, 6, 4)), random((4, 4, 3, 2), seed=1)
    plain = function(x, weight, layout=layout)
    add = random(plain.shape[::-1], seed=2).T
    before = add.copy()
    out = np.empty(plain.shape)
    assert function(x, weight, layout=layout, add=add, activation="tanh", out=out) is out
    np.testing.assert_allclose(out, np.tanh(plain + add), atol=1e-14)
    np.testing.assert_allclose(function(x, weight, layout=layout, add=add.tolist()), plain + add, atol=1e-13)
    np.testing.assert_array_equal(add, before)


def test_out_in_other_memory():
    x, weight = random((1, 2, 8, 8), "float16"), random((3, 2, 3, 3), "float16", 1)
    expected = fastconv.conv2d(x, weight, activation="silu")
    out = np.zeros((1, 3, 12, 6), np.float16)[:, :, ::2]
    assert fastconv.conv2d(x, weight, activation="silu", out=out) is out
    np.testing.assert_array_equal(out, expected)


# ---- nothing to multiply


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("algorithm", GENERAL_NAMES)
def test_without_channels_the_bias_is_all_there_is(layout, algorithm):
    x = np.empty((2, 0, 5) if layout == "channels_first" else (2, 5, 0))
    bias, add = np.array([1.0, -2]), random((2, 2, 3) if layout == "channels_first" else (2, 3, 2))
    along = bias[:, None] if layout == "channels_first" else bias
    parameters = {"layout": layout, "algorithm": algorithm}
    y = fastconv.conv1d(x, np.empty((2, 0, 3)), bias, add=add, activation="relu", **parameters)
    np.testing.assert_allclose(y, np.maximum(along + add, 0), atol=1e-14)
    y = fastconv.conv1d(x, np.empty((2, 0, 3)), bias, activation="sigmoid", **parameters)
    np.testing.assert_allclose(y, np.broadcast_to(special.expit(along), add.shape), atol=1e-14)


@pytest.mark.parametrize("name", ["conv1d", "conv_transpose1d"])
def test_without_a_batch_there_is_no_result(name):
    function = getattr(fastconv, name)
    y = function(np.empty((0, 2, 4)), np.ones((2, 2, 1)), activation="gelu", add=np.empty((0, 2, 4)))
    assert y.shape == (0, 2, 4)


# ---- refusals

X, W, ADD = np.ones((1, 2, 4), np.float32), np.ones((3, 2, 2), np.float32), np.ones((1, 3, 3), np.float32)
REFUSALS = [
    ({"activation": "swish"}, ValueError, "activation='swish': must be None or one of relu, leaky_relu, silu, gelu"),
    ({"activation": 1}, ValueError, "activation=1: must be None or one of relu"),
    ({"activation": ["relu"]}, ValueError, "activation=['relu']: must be None or one of relu"),
    ({"add": ADD[0]}, ValueError, "add.shape=(3, 3): must be (1, 3, 3), the shape of the result"),
    ({"add": 1.0}, ValueError, "add.shape=(): must be (1, 3, 3)"),
    ({"add": ADD > 0}, TypeError, "add.dtype='bool': must have one of the types"),
    ({"add": np.ma.masked_array(ADD)}, TypeError, "add='MaskedArray': must not be masked"),
    ({"add": ADD, "out": ADD}, ValueError, "out='overlapping': must not share memory with an input"),
    ({"add": ADD, "out": ADD[:, ::-1]}, ValueError, "out='overlapping': must not share memory with an input"),
]


@pytest.mark.parametrize(("options", "kind", "says"), REFUSALS, ids=range(len(REFUSALS)))
def test_what_is_refused(options, kind, says):
    with pytest.raises(kind, match=re.escape(says)) as caught:
        fastconv.conv1d(X, W, **options)
    assert "[problem: x=1x2x4 w=3x2x2" in str(caught.value)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", ["conv1d", "conv_transpose1d"])
@pytest.mark.parametrize(
    ("dtype", "allowed"), [("complex64", "None"), ("int32", "None or relu"), ("uint8", "None or relu")]
)
def test_types_without_the_activation(activation, name, dtype, allowed):
    if activation in allowed:
        return
    x, weight = np.ones((1, 2, 4), dtype), np.ones((2, 2, 2), dtype)
    with pytest.raises(ValueError, match=f"activation='{activation}': must be {allowed} for {dtype}"):
        getattr(fastconv, name)(x, weight, activation=activation)


def test_what_add_promotes_to_decides():
    x, weight = np.ones((1, 1, 4), int), np.ones((1, 1, 2), int)
    np.testing.assert_allclose(fastconv.conv1d(x, weight, add=np.ones((1, 1, 3)), activation="tanh"), np.tanh(3))
