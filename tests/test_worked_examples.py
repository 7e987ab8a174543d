"""Worked examples: numbers that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest

import fastconv

from .problems import GENERAL_NAMES

ALGORITHMS = pytest.mark.parametrize("algorithm", GENERAL_NAMES)
EXACT = pytest.mark.parametrize("algorithm", [name for name in GENERAL_NAMES if name != "fft"])


def image(*rows):
    return np.array(rows, float)[None, None]


@ALGORITHMS
def test_true_convolution_of_two_sequences(algorithm):
    """[2, -1, 1] * [1, 1, 2] = [2, 1, 4, -1, 2], as products of polynomials are formed."""
    y = fastconv.conv1d(
        np.array([[[2.0, -1, 1]]]), np.array([[[1.0, 1, 2]]]), padding="full", flip=True, algorithm=algorithm
    )
    np.testing.assert_allclose(y, [[[2, 1, 4, -1, 2]]], atol=1e-14)


@ALGORITHMS
def test_cross_correlation_of_a_3x3_image(algorithm):
    x, weight = np.arange(9.0).reshape(1, 1, 3, 3), image([0, 1], [2, 3])
    np.testing.assert_allclose(fastconv.conv2d(x, weight, algorithm=algorithm), image([19, 25], [37, 43]), atol=1e-13)


@EXACT
def test_integers_stay_integers(algorithm):
    x, weight = np.arange(9).reshape(1, 1, 3, 3), np.array([[0, 1], [2, 3]])[None, None]
    y = fastconv.conv2d(x, weight, algorithm=algorithm)
    assert y.dtype == np.int64
    np.testing.assert_array_equal(y[0, 0], [[19, 25], [37, 43]])


@pytest.mark.parametrize(
    ("i", "k", "parameters", "o"),
    [
        (4, 3, {}, 2),
        (5, 3, {"stride": 2}, 2),
        (7, 3, {"dilation": 2}, 3),
        (5, 3, {"padding": 1}, 5),  # half padding keeps the size
        (5, 5, {"padding": 2}, 5),
        (5, 3, {"padding": 2}, 7),  # full padding gives i + k - 1
        (5, 4, {"padding": "full"}, 8),
        (6, 3, {"stride": 2, "padding": 1}, 3),
    ],
)
def test_output_sizes(i, k, parameters, o):
    x, weight = np.ones((1, 1, i, i)), np.ones((1, 1, k, k))
    assert fastconv.conv2d(x, weight, **parameters).shape == (1, 1, o, o)


@pytest.mark.parametrize(("stride", "o"), [(1, 4), (2, 5)])
def test_transposed_sizes(stride, o):
    x, weight = np.ones((1, 1, 2, 2)), np.ones((1, 1, 3, 3))
    assert fastconv.conv_transpose2d(x, weight, stride=stride).shape == (1, 1, o, o)


@ALGORITHMS
def test_transposed_convolution_adds_shifted_filters(algorithm):
    y = fastconv.conv_transpose1d(
        np.array([[[1.0, 10]]]), np.array([[[1.0, 2, 3]]]), np.array([0.5]), stride=2, algorithm=algorithm
    )
    np.testing.assert_allclose(y, [[[1.5, 2.5, 13.5, 20.5, 30.5]]], atol=1e-13)


@ALGORITHMS
def test_convolution_is_a_matrix_and_transposed_convolution_its_transpose(algorithm):
    """A 2x2 filter on a 3x3 image, stride 1: the 4 x 9 matrix, written out."""
    a, b, c, d = 1.0, 2.0, 3.0, 5.0
    matrix = np.array(
        [
            [a, b, 0, c, d, 0, 0, 0, 0],
            [0, a, b, 0, c, d, 0, 0, 0],
            [0, 0, 0, a, b, 0, c, d, 0],
            [0, 0, 0, 0, a, b, 0, c, d],
        ]
    )
    weight = image([a, b], [c, d])
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((1, 1, 3, 3)), rng.standard_normal((1, 1, 2, 2))
    np.testing.assert_allclose(fastconv.conv2d(x, weight, algorithm=algorithm).ravel(), matrix @ x.ravel(), atol=1e-13)
    np.testing.assert_allclose(
        fastconv.conv_transpose2d(y, weight, algorithm=algorithm).ravel(), matrix.T @ y.ravel(), atol=1e-13
    )


@ALGORITHMS
def test_groups_bias_and_stride_by_hand(algorithm):
    x = np.arange(8.0).reshape(1, 2, 4)
    weight = np.array([[[1.0, -1]], [[2.0, 1]]])
    y = fastconv.conv1d(x, weight, np.array([10.0, 20]), stride=2, groups=2, algorithm=algorithm)
    np.testing.assert_allclose(y, [[[9, 9], [33, 39]]], atol=1e-13)


def test_the_gradients_of_a_product():
    """With one pixel and one tap, y = w * x, and the gradients are the other factor."""
    x, weight, grad_output = np.full((1, 1, 1), 3.0), np.full((1, 1, 1), 5.0), np.full((1, 1, 1), 7.0)
    grad_x, grad_weight, grad_bias = fastconv.grad.conv1d_backward(grad_output, x, weight)
    assert (grad_x.item(), grad_weight.item(), grad_bias.item()) == (35, 21, 7)
