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


def test_gradients_of_gradients_of_arrays_that_cannot_be_added():
    given = (X, W, BIAS, Y, X, W)
    right = grad.conv2d_double_backward(*given, **PARAMETERS)
    results = grad.conv2d_double_backward(*map(FakeArray.of, given), **PARAMETERS)
    for got, wanted in zip(results, right, strict=True):
        close(got.values(), wanted)


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


def test_products_are_rounded_only_where_that_is_allowed():
    x, w = FakeArray.of(X), FakeArray.of(W)
    y = fastconv.conv2d(x, w, precision="tf32", **PARAMETERS)
    assert y.dtype == "float32"
    close(y.values(), fastconv.conv2d(X, W, **PARAMETERS), 5e-3)
    with pytest.raises(ValueError, match=r"precision='tf32'.*CPU"):
        fastconv.conv2d(X, W, precision="tf32")
    with pytest.raises(ValueError, match="precision='half'"):
        fastconv.conv2d(x, w, precision="half")


# ---- pooling


def alike(name, *arrays, tolerance=1e-5, **parameters):
    """A function of `fastconv`, or of `fastconv.grad`, gives on a device what it gives in memory."""
    function = getattr(fastconv, name, None) or getattr(grad, name)
    right = function(*arrays, **parameters)
    got = function(*[FakeArray.of(each) if isinstance(each, np.ndarray) else each for each in arrays], **parameters)
    close(got.values(), right, tolerance)


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_every_kind_of_pooling(layout):
    x = np.abs(X) + 0.1
    alike("max_pool2d", X, 3, 2, 1, layout=layout)
    alike("avg_pool2d", X, 2, 1, 1, layout=layout)
    alike("lp_pool2d", x, 3.0, 2, layout=layout, tolerance=1e-4)
    alike("adaptive_avg_pool2d", X, (2, 3), layout=layout)
    alike("adaptive_max_pool2d", X, (2, 3), layout=layout)
    alike("global_avg_pool2d", X, layout=layout)
    alike("global_max_pool2d", X, layout=layout)


def test_gradients_of_pooling():
    x = np.abs(X) + 0.1
    small = RNG.standard_normal((2, 3, 3, 3))
    alike("max_pool2d_backward", small, X, (2, 2), (2, 2))
    alike("avg_pool2d_backward", small, X.shape, (2, 2), (2, 2))
    alike("lp_pool2d_backward", small, x, 3.0, 2, tolerance=1e-4)
    alike("adaptive_avg_pool2d_backward", small, X.shape)
    alike("adaptive_max_pool2d_backward", small, X)
    alike("global_avg_pool2d_backward", small[:, :, :1, :1], X.shape)


def test_indices_go_there_and_back():
    right, places = fastconv.max_pool2d(X, 2, return_indices=True)
    y, indices = fastconv.max_pool2d(FakeArray.of(X), 2, return_indices=True)
    assert indices.dtype == "int64"
    np.testing.assert_array_equal(indices.elements.reshape(places.shape), places)
    unpooled = fastconv.max_unpool2d(y, indices, 2, output_size=X.shape[2:])
    close(unpooled.values(), fastconv.max_unpool2d(right, places, 2, output_size=X.shape[2:]))
    indices.elements[0] = 1000
    with pytest.raises(ValueError, match="indices"):
        fastconv.max_unpool2d(y, indices, 2, output_size=X.shape[2:])


def test_numpy_arrays_are_pooled_on_the_device():
    x = X.astype(np.float32)
    close(fastconv.avg_pool2d(x, 2, device="cuda"), fastconv.avg_pool2d(x, 2))
    y, indices = fastconv.max_pool2d(x, 2, return_indices=True, device="cuda")
    size = {"output_size": X.shape[2:]}
    close(fastconv.max_unpool2d(y, indices, 2, device="cuda", **size), fastconv.max_unpool2d(y, indices, 2, **size))


# ---- patches


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_patches_go_there_and_back(layout):
    parameters = {"padding": 1, "stride": 2, "layout": layout}
    alike("unfold", X, 3, **parameters)
    alike("im2col", X, 3, **parameters, padding_mode="reflect")
    alike("windows", X, (2, 3), layout=layout)
    columns, matrix = fastconv.im2col(X, 3, **parameters), fastconv.unfold(X, 3, **parameters)
    alike("col2im", columns, X.shape, 3, **parameters)
    size = X.shape[2:] if layout == "channels_first" else X.shape[1:3]
    alike("fold", matrix, size, 3, **parameters, normalize=True)
