"""`prepare`: the same as `conv{n}d`, with the weight fixed."""

from __future__ import annotations

import copy
import pickle
import re
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastconv
from fastconv import prepared
from fastconv.core.problem import COMPUTE_DTYPES

from .problems import GENERAL_NAMES


def random(shape, dtype="float64", seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def integers(shape, dtype, seed=0):
    return np.random.default_rng(seed).integers(0, 5, shape).astype(dtype)


def conv(weight):
    return getattr(fastconv, f"conv{weight.ndim - 2}d")


X, W, BIAS = random((2, 4, 9, 8), "float32"), random((6, 2, 3, 3), "float32", 1), random(6, "float32", 2)


# ---- what is computed


@pytest.mark.parametrize("algorithm", GENERAL_NAMES)
def test_a_weight_without_channels_is_not_read(algorithm, monkeypatch):
    """Behind it stands what must not reach the result; the convolution is the bias."""
    monkeypatch.setattr(prepared, "_kept", lambda array: array)
    behind = np.full(64, np.nan)
    weight = behind[32:32].reshape(2, 0, 3)
    smooth = fastconv.prepare(weight, np.ones(2), algorithm=algorithm)
    np.testing.assert_array_equal(smooth(np.ones((1, 0, 9))), np.ones((1, 2, 7)))


@st.composite
def cases(draw):
    """A weight, a bias or None, parameters, and several x."""
    rank = draw(st.integers(1, 3))
    groups, channels = draw(st.integers(1, 2)), draw(st.integers(0, 3))
    weight = random((groups * draw(st.integers(1, 5)), channels, *(draw(st.integers(1, 3)) for _ in range(rank))))
    layout = draw(st.sampled_from(["channels_first", "channels_last"]))
    parameters = {
        "stride": draw(st.sampled_from([1, 2, [2] * rank])),
        "padding": draw(st.sampled_from(["same", "full", 1, [1] * rank, [(0, 2)] * rank])),
        "dilation": draw(st.integers(1, 2)),
        "groups": groups,
        "padding_mode": draw(st.sampled_from(["zeros", "circular"])),
        "layout": layout,
        "activation": draw(st.sampled_from([None, "relu", "tanh"])),
        "flip": draw(st.booleans()),
    }
    if parameters["stride"] == 1 and draw(st.booleans()):
        parameters |= {"padding_mode": "constant", "pad_value": 2.5}

    def x(seed):
        extents = [draw(st.integers(5, 9)) for _ in range(rank)]
        shape = (groups * channels, *extents) if layout == "channels_first" else (*extents, groups * channels)
        batch = draw(st.sampled_from([(), (0,), (1,), (2,)]))
        return random((*batch, *shape), draw(st.sampled_from(["float32", "float64"])), seed)

    return weight, draw(st.sampled_from([None, random(weight.shape[0])])), parameters, [x(seed) for seed in range(3)]


@pytest.mark.parametrize("algorithm", GENERAL_NAMES)
@given(case=cases())
def test_it_is_the_convolution(algorithm, case):
    weight, bias, parameters, several = case
    c = fastconv.prepare(weight, bias, **parameters, algorithm=algorithm)
    for x in [*several, *several]:
        expected = conv(weight)(x, weight, bias, **parameters, algorithm=algorithm)
        np.testing.assert_array_equal(c(x), expected)
        out = np.empty_like(expected)
        assert c(x, out) is out
        np.testing.assert_array_equal(out, expected)
        add = random(expected.shape, seed=9)
        expected = conv(weight)(x, weight, bias, **parameters, algorithm=algorithm, add=add)
        np.testing.assert_array_equal(c(x, add=add), expected)


@pytest.mark.parametrize("of_x", COMPUTE_DTYPES)
@pytest.mark.parametrize("of_weight", COMPUTE_DTYPES)
def test_types_promote_as_in_the_convolution(of_x, of_weight):
    """One prepared weight for x of any type."""
    weight, x = integers((2, 1, 2), of_weight), integers((1, 1, 6), of_x, 1)
    c = fastconv.prepare(weight)
    c(integers((1, 1, 6), "float32"))
    y = c(x)
    assert y.dtype == np.result_type(x, weight)
    np.testing.assert_array_equal(y, fastconv.conv1d(x, weight))


def test_bias_and_add_take_part_in_the_type():
    c = fastconv.prepare(W, BIAS.astype("float64"), groups=2)
    assert c(X).dtype == "float64"
    c = fastconv.prepare(W, groups=2)
    y = c(X)
    assert (y.dtype, c(X, add=y.astype("complex64")).dtype) == ("float32", "complex64")


def test_lists_and_any_memory():
    c = fastconv.prepare(W.tolist(), BIAS.tolist(), groups=2)
    expected = fastconv.conv2d(X.astype("float64"), W.astype("float64"), BIAS.astype("float64"), groups=2)
    for x in (X.tolist(), np.asfortranarray(X), X.astype(">f4"), np.repeat(X, 2, axis=-1)[..., ::2]):
        np.testing.assert_array_equal(c(x), expected)


def test_nan_goes_another_way():
    """fft would be taken, and would spread it."""
    x, weight = np.ones((1, 1, 256, 256), np.float32), np.ones((1, 1, 45, 45), np.float32)
    c = fastconv.prepare(weight, padding=22)
    c(x)
    assert "fft forward" in repr(c)
    x[0, 0, 100, 100] = np.nan
    assert np.isnan(c(x)).sum() == 45 * 45


# ---- what is kept


def test_later_changes_of_the_arguments_do_not_matter():
    weight, bias, padding = W.copy(), BIAS.copy(), [1, 1]
    c = fastconv.prepare(weight, bias, padding=padding, groups=2)
    expected = fastconv.conv2d(X, W, BIAS, padding=1, groups=2)
    weight[...] = bias[...] = 0
    padding[0] = 0
    np.testing.assert_array_equal(c(X), expected)
    np.testing.assert_array_equal(c(X[:, :, 1:]), fastconv.conv2d(X[:, :, 1:], W, BIAS, padding=1, groups=2))


def test_its_own_copies_are_read_only():
    c = fastconv.prepare(W, BIAS, groups=2)
    np.testing.assert_array_equal(c.weight, W)
    np.testing.assert_array_equal(c.bias, BIAS)
    with pytest.raises(ValueError, match="read-only"):
        c.weight[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        c.bias[0] = 0


def test_results_are_not_shared():
    c = fastconv.prepare(W, groups=2)
    first, second = c(X), c(X)
    assert not np.shares_memory(first, second)


def test_what_it_keeps_is_bounded():
    c = fastconv.prepare(np.ones((1, 1, 2)))
    for extent in [*range(2, 3 * prepared.MOST_KINDS), 2]:
        np.testing.assert_array_equal(c(np.ones((1, 1, extent))), np.full((1, 1, extent - 1), 2))
    assert repr(c).count("direct forward") <= prepared.MOST_KINDS


def test_repr_says_what_it_is_and_what_it_does():
    c = fastconv.prepare(W, BIAS, 2, padding="same", groups=2, activation="relu")
    first = "prepare(weight=6x2x3x3 float32, bias=float32, stride=2, padding='same', groups=2, activation='relu')"
    assert repr(c) == first
    c(X)
    c(X[0])
    c(X[:0])
    lines = repr(c).splitlines()
    assert lines[0] == first
    assert [re.search(r"of x=(\S+)|in x=(\S+)", line).group(0) for line in lines[1:]] == [
        "of x=2x4x9x8", "of x=1x4x9x8", "in x=0x4x9x8"
    ]  # fmt: skip
    assert "workspace=" in lines[1]
    assert "nothing to multiply" in lines[3]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_copies(copied):
    c = fastconv.prepare(W, BIAS, padding=[1, 0], groups=2, activation="tanh", flip=True, num_threads=1)
    expected, text = (
        c(X),
        repr(fastconv.prepare(W, BIAS, padding=[1, 0], groups=2, activation="tanh", flip=True, num_threads=1)),
    )
    other = copied(c)
    assert repr(other) == text
    np.testing.assert_array_equal(other(X), expected)
    assert not other.weight.flags.writeable


def test_several_threads_at_once():
    """They meet new shapes and old ones, and more of them than are kept."""
    c = fastconv.prepare(np.ones((1, 1, 3)), activation="relu")
    wrong = []

    def call(seed):
        for extent in np.random.default_rng(seed).integers(3, 200, 500):
            y = c(np.ones((1, 1, extent)))
            if y.shape != (1, 1, extent - 2) or not np.all(y == 3):
                wrong.append(extent)

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# ---- refusals

EARLY = [
    ({"stride": 0}, ValueError, "stride=0: must be an integer of at least 1"),
    ({"stride": (1, 2, 3)}, ValueError, "stride=(1, 2, 3): must be one integer, or one for each of the 2 axes"),
    ({"stride": True}, TypeError, "stride=True: must be an integer"),
    ({"dilation": 1.5}, TypeError, "dilation=1.5: must be an integer"),
    ({"groups": 0}, ValueError, "groups=0: must be an integer of at least 1"),
    ({"groups": -2}, ValueError, "groups=-2: must be an integer of at least 1"),
    ({"groups": "2"}, TypeError, "groups='2': must be an integer"),
    ({"groups": 4}, ValueError, "groups=4: must divide the 8 input and the 6 output channels"),
    ({"padding": "sane"}, ValueError, "padding='sane': must be integers or one of valid, same"),
    ({"padding": -1}, ValueError, "padding=-1: must be an integer of at least 0"),
    ({"padding_mode": "mirror"}, ValueError, "padding_mode='mirror': must be one of zeros"),
    ({"pad_value": 1}, ValueError, 'pad_value=1: needs padding_mode="constant"'),
    ({"pad_value": "1", "padding_mode": "constant"}, TypeError, "pad_value='1': must be a number"),
    ({"layout": "NHWC"}, ValueError, "layout='NHWC': must be one of channels_first, channels_last"),
    ({"activation": "swish"}, ValueError, "activation='swish': must be None or one of relu"),
    ({"weight": W.astype(complex), "activation": "relu"}, ValueError, "activation='relu': must be None for complex128"),
    ({"algorithm": "magic"}, ValueError, "algorithm='magic': must be one of auto, direct"),
    ({"num_threads": 0}, ValueError, "num_threads=0: must be None or an integer of at least 1"),
    ({"precision": "tf16"}, ValueError, "precision='tf16': must be None or \"tf32\""),
    ({"precision": "tf32"}, ValueError, "precision='tf32': must be None for NumPy arrays"),
    ({"bias": np.ones(5)}, ValueError, "bias.shape=(5,): must be (6,), one for each output channel"),
    ({"weight": W[0, 0]}, ValueError, "weight.shape=(3, 3): must have 3, 4 or 5 axes"),
    ({"weight": W[:0]}, ValueError, "weight.shape=(0, 2, 3, 3): needs at least one output channel"),
    ({"weight": W[:, :, :0]}, ValueError, "every filter extent must be at least 1"),
    ({"weight": W > 0}, TypeError, "weight.dtype='bool': must have one of the types"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "kind", "says"), EARLY, ids=range(len(EARLY)))
def test_what_is_refused_before_any_x(options, kind, says):
    with pytest.raises(kind, match=re.escape(says)) as caught:
        fastconv.prepare(**({"weight": W} | options))
    assert "[problem: w=" in str(caught.value)


LATE = [
    ({}, {"x": X[:, :3]}, ValueError, "weight.shape=(6, 2, 3, 3): axis 1 must be channels / groups = 3 / 1"),
    ({"groups": 2}, {"x": X[0, 0]}, ValueError, "x.shape=(9, 8): must have 4 axes, or 3 without the batch"),
    ({"groups": 2}, {"x": X[:, :, :2]}, ValueError, "the dilated filter (3, 3) must not exceed the padded input"),
    ({"groups": 2}, {"x": X > 0}, TypeError, "x.dtype='bool': must have one of the types"),
    ({"groups": 2}, {"x": X, "add": X}, ValueError, "add.shape=(2, 4, 9, 8): must be (2, 6, 7, 6)"),
    ({"groups": 2}, {"x": X, "out": np.empty((2, 6, 7, 5), "f4")}, ValueError, "out.shape=(2, 6, 7, 5): must be"),
    ({"groups": 2}, {"x": X, "out": np.empty((2, 6, 7, 6))}, TypeError, "out.dtype='float64': must be float32"),
    ({"groups": 2, "padding": 1, "padding_mode": "constant", "pad_value": 1j}, {"x": X}, ValueError,
     "pad_value=1j: must be a number that float32 can hold"),
    ({"groups": 2, "activation": "relu"}, {"x": X.astype(complex)}, ValueError,
     "activation='relu': must be None for complex128"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "arguments", "kind", "says"), LATE, ids=range(len(LATE)))
def test_what_is_refused_at_each_call(options, arguments, kind, says):
    c = fastconv.prepare(W, **options)
    for _ in range(2):
        with pytest.raises(kind, match=re.escape(says)) as caught:
            c(**arguments)
        assert "[problem: x=" in str(caught.value)
        assert "w=6x2x3x3" in str(caught.value)
        assert caught.value.__suppress_context__


def test_out_must_be_apart_from_x_and_add():
    c = fastconv.prepare(np.ones((1, 1, 1)))
    x, add = np.ones((1, 1, 4)), np.ones((1, 1, 4))
    for arguments in ({"out": x}, {"out": add, "add": add}, {"out": x[:, :, ::-1]}):
        with pytest.raises(ValueError, match="out='overlapping': must not share memory with an input"):
            c(x, **arguments)


def test_an_algorithm_that_cannot_serve_says_why():
    c = fastconv.prepare(np.ones((1, 1, 2), int), algorithm="fft")
    np.testing.assert_allclose(c(np.ones((1, 1, 4))), [[[2, 2, 2]]])
    with pytest.raises(fastconv.UnsupportedError, match="algorithm='fft': it computes in floating point"):
        c(np.ones((1, 1, 4), int))
