"""Public functions on arrays of a device: taken without a copy, given back in kind, errors that say what is wrong."""

from __future__ import annotations

import numpy as np
import pytest

import fastconv
from fastconv import grad

from . import fake
from .fake import FakeArray

RNG = np.random.default_rng(0)
X, W, Y = RNG.standard_normal((2, 3, 6, 7)), RNG.standard_normal((4, 3, 3, 3)), RNG.standard_normal((2, 4, 6, 7))
BIAS = RNG.standard_normal(4)
PARAMETERS = {"padding": 1}


def close(result, right, tolerance=1e-5):
    assert np.abs(result - right).max() < tolerance * max(1, np.abs(right).max())


def test_a_convolution_takes_arrays_as_they_are_and_gives_one_of_their_kind():
    fake.LIBRARY_COPIES.clear()
    y = fastconv.conv2d(FakeArray.of(X), FakeArray.of(W), FakeArray.of(BIAS), **PARAMETERS)
    assert isinstance(y, FakeArray)
    assert fake.LIBRARY_COPIES == []
    close(y.values(), fastconv.conv2d(X, W, BIAS, **PARAMETERS))


def test_out_is_written_and_given_back():
    out = FakeArray.of(np.zeros((2, 4, 6, 7)))
    assert fastconv.conv2d(FakeArray.of(X), FakeArray.of(W), out=out, **PARAMETERS) is out
    close(out.values(), fastconv.conv2d(X, W, **PARAMETERS))


def test_an_image_without_a_batch_and_a_residual_with_an_activation():
    add = RNG.standard_normal((4, 6, 7))
    y = fastconv.conv2d(FakeArray.of(X[0]), FakeArray.of(W), add=FakeArray.of(add), activation="silu", **PARAMETERS)
    close(y.values(), fastconv.conv2d(X[0], W, add=add, activation="silu", **PARAMETERS))


def test_arrays_out_of_order_and_of_other_types_are_converted():
    fake.LIBRARY_COPIES.clear()
    y = fastconv.conv2d(FakeArray.of(X, contiguous=False), FakeArray.of(W, "float16"), **PARAMETERS)
    assert (y.dtype, len(fake.LIBRARY_COPIES)) == ("float32", 2)
    close(y.values(), fastconv.conv2d(X, W, **PARAMETERS), 1e-2)


def test_bfloat16_stays_and_promotes_like_float32():
    x, w = FakeArray.of(X, "bfloat16"), FakeArray.of(W, "bfloat16")
    assert fastconv.conv2d(x, w).dtype == "bfloat16"
    assert fastconv.conv2d(x, FakeArray.of(W, "float16")).dtype == "float32"
    assert fastconv.conv2d(x, FakeArray.of(W, "float64")).dtype == "float64"


def test_a_flipped_filter():
    y = fastconv.conv2d(FakeArray.of(X), FakeArray.of(W), flip=True)
    close(y.values(), fastconv.conv2d(X, W, flip=True))


def test_gradients():
    x, w, y = FakeArray.of(X), FakeArray.of(W), FakeArray.of(Y)
    right = grad.conv2d_backward(Y, X, W, **PARAMETERS)
    for got, wanted in zip(grad.conv2d_backward(y, x, w, **PARAMETERS), right, strict=True):
        close(got.values(), wanted)
    transposed = fastconv.conv_transpose2d(FakeArray.of(Y), FakeArray.of(W), padding=1)
    close(transposed.values(), fastconv.conv_transpose2d(Y, W, padding=1))


def test_where_nothing_is_summed_stands_the_bias():
    y = fastconv.conv2d(FakeArray.of(np.zeros((1, 0, 4, 4))), FakeArray.of(np.zeros((4, 0, 3, 3))), FakeArray.of(BIAS))
    close(y.values(), np.broadcast_to(BIAS.reshape(1, 4, 1, 1), (1, 4, 2, 2)))


def test_a_prepared_convolution_keeps_its_own_weight():
    w = FakeArray.of(W)
    prepared = fastconv.prepare(w, FakeArray.of(BIAS), **PARAMETERS)
    w.elements[...] = 0
    for _ in range(2):
        close(prepared(FakeArray.of(X)).values(), fastconv.conv2d(X, W, BIAS, **PARAMETERS))


def test_numpy_arrays_are_copied_there_and_back():
    y = fastconv.conv2d(X.astype(np.float32), W.astype(np.float32), device="cuda", **PARAMETERS)
    assert isinstance(y, np.ndarray)
    close(y, fastconv.conv2d(X, W, **PARAMETERS))
    out = np.empty_like(y)
    assert fastconv.conv2d(X.astype(np.float32), W.astype(np.float32), device="cuda", out=out, **PARAMETERS) is out
    np.testing.assert_array_equal(out, y)


def test_explain_names_the_algorithms_of_the_device():
    assert "direct" in fastconv.explain("x=1x3x8x8 w=4x3x3x3", device="cuda").candidates


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: fastconv.conv2d(FakeArray.of(X), W), ValueError, "device='cpu and cuda:0'.*one device"),
        (lambda: fastconv.conv2d(FakeArray.of(X), FakeArray.of(W, device=1)), ValueError, "cuda:0 and cuda:1"),
        (lambda: fastconv.conv2d(FakeArray.of(X), FakeArray.of(W), device="cpu"), ValueError, 'device="cpu"'),
        (lambda: fastconv.conv2d(X, W, device="tpu"), ValueError, "device='tpu'.*cpu, cuda"),
        (lambda: fastconv.conv2d(FakeArray.of(X), FakeArray.of(W), out=Y), TypeError, "out='ndarray'"),
        (lambda: fastconv.conv2d(FakeArray.of(X), FakeArray.of(W), num_threads=2), ValueError, "num_threads=2"),
        (lambda: fastconv.conv2d(FakeArray.of(X), FakeArray.of(W), algorithm="magic"), ValueError, "algorithm='magic'"),
        (lambda: fastconv.conv2d(FakeArray(X.shape, "int32", X), FakeArray.of(W)), TypeError, "x.dtype='int32'"),
    ],
)
def test_errors_name_the_argument_and_the_problem(call, kind, words):
    with pytest.raises(kind, match=words) as raised:
        call()
    assert "[problem: " in str(raised.value)


def test_out_must_fit():
    x, w = FakeArray.of(X), FakeArray.of(W)
    with pytest.raises(ValueError, match=r"out\.shape"):
        fastconv.conv2d(x, w, out=FakeArray.of(np.zeros(3)))
    with pytest.raises(TypeError, match=r"out\.dtype='float64'"):
        fastconv.conv2d(x, w, out=FakeArray.of(np.zeros((2, 4, 4, 5)), "float64"))
    with pytest.raises(ValueError, match="C order"):
        fastconv.conv2d(x, w, out=FakeArray.of(np.zeros((2, 4, 4, 5)), contiguous=False))
    shared = FakeArray.of(np.zeros((2, 3, 6, 7)))
    with pytest.raises(ValueError, match="share memory"):
        fastconv.conv2d(shared, FakeArray.of(W[:3]), padding=1, out=shared)
