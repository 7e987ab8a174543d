"""Gradients by finite differences, first and second, of both families, and their shapes and masks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import fastconv
from fastconv import grad

from .problems import GENERAL_NAMES

# Family, its parameters in order, and shapes of x and weight, for every rank and every padding mode.
CASES = [
    ("conv1d", (2, [(2, 1)], 2, 1), {}, (2, 2, 9), (3, 2, 3)),
    ("conv2d", (1, 1, 1, 1), {}, (2, 2, 4, 5), (3, 2, 3, 2)),
    ("conv2d", ((2, 1), (1, 2), (1, 2), 2), {"padding_mode": "reflect"}, (1, 4, 5, 6), (2, 2, 2, 3)),
    ("conv2d", (1, 2, 1, 1), {"padding_mode": "circular", "flip": True}, (1, 1, 3, 4), (2, 1, 3, 3)),
    ("conv2d", (2, 2, 1, 1), {"padding_mode": "replicate"}, (1, 2, 4, 4), (1, 2, 3, 3)),
    ("conv2d", (1, "same", 1, 1), {"padding_mode": "symmetric", "layout": "channels_last"}, (1, 4, 4, 2), (2, 2, 3, 3)),
    ("conv2d", (1, 1, 1, 1), {"padding_mode": "constant", "pad_value": 0.7}, (1, 1, 4, 4), (2, 1, 3, 3)),
    ("conv2d", (1, 1, 1, 1), {}, (2, 4, 4), (2, 2, 3, 3)),
    ("conv3d", (1, "same", 1, 2), {}, (1, 2, 3, 3, 4), (2, 1, 2, 3, 2)),
    ("conv_transpose1d", (3, 1, 2, 2, 2), {}, (2, 4, 4), (4, 1, 3)),
    ("conv_transpose2d", ((2, 1), (1, 0), (1, 0), 1, 1), {}, (1, 2, 3, 3), (2, 3, 3, 2)),
    ("conv_transpose2d", (2, [(0, 1), (1, 0)], 1, 1, 2), {"layout": "channels_last"}, (3, 3, 2), (2, 1, 2, 2)),
    ("conv_transpose3d", (2, 0, 1, 1, 1), {}, (1, 2, 2, 2, 2), (2, 1, 2, 1, 2)),
]
IDS = [f"{case[0]}-{number}" for number, case in enumerate(CASES)]


def difference(function, tensor, step=1e-6):
    """Central differences of a real function of an array."""
    result = np.zeros_like(tensor)
    for place in itertools.product(*map(range, tensor.shape)):
        moved = [tensor.copy(), tensor.copy()]
        moved[0][place] += step
        moved[1][place] -= step
        result[place] = (function(moved[0]) - function(moved[1])) / (2 * step)
    return result


def close(first, second):
    # Central differences of values around 10: truncation 0 (at most bilinear), rounding 10 * 2**-53 / 1e-6 = 1e-9.
    np.testing.assert_allclose(first, second, atol=1e-7)


@pytest.fixture(params=CASES, ids=IDS)
def case(request):
    """(forward, backward, double_backward, x, weight, bias, grad_output) with the parameters filled in."""
    name, window, options, x_shape, weight_shape = request.param
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal(x_shape), rng.standard_normal(weight_shape)
    transposed = "transpose" in name
    groups = window[3]
    bias = rng.standard_normal(weight_shape[1] * groups if transposed else weight_shape[0])

    def forward(x, weight, bias):
        return getattr(fastconv, name)(x, weight, bias, *window, **options)

    def backward(grad_output, x, weight, **more):
        return getattr(grad, f"{name}_backward")(grad_output, x, weight, *window, **options, **more)

    def double_backward(gradients, grad_output, x, weight, **more):
        function = getattr(grad, f"{name}_double_backward")
        return function(*gradients, grad_output, x, weight, *window, **options, **more)

    grad_output = rng.standard_normal(forward(x, weight, bias).shape)
    return forward, backward, double_backward, x, weight, bias, grad_output


def test_gradients_are_finite_differences(case):
    forward, backward, _, x, weight, bias, grad_output = case
    grad_x, grad_weight, grad_bias = backward(grad_output, x, weight)
    close(grad_x, difference(lambda v: np.vdot(forward(v, weight, bias), grad_output), x))
    close(grad_weight, difference(lambda v: np.vdot(forward(x, v, bias), grad_output), weight))
    close(grad_bias, difference(lambda v: np.vdot(forward(x, weight, v), grad_output), bias))


def test_double_backward_is_finite_differences_of_the_gradients(case):
    _, backward, double_backward, x, weight, bias, grad_output = case
    rng = np.random.default_rng(1)
    directions = [rng.standard_normal(np.shape(each)) for each in (x, weight, bias)]

    def paired(grad_output, x, weight):
        return sum(np.vdot(a, b) for a, b in zip(directions, backward(grad_output, x, weight), strict=True))

    second = double_backward(directions, grad_output, x, weight)
    close(second[0], difference(lambda v: paired(v, x, weight), grad_output))
    close(second[1], difference(lambda v: paired(grad_output, v, weight), x))
    close(second[2], difference(lambda v: paired(grad_output, x, v), weight))


def test_the_mask_leaves_out(case):
    _, backward, double_backward, x, weight, bias, grad_output = case
    whole = backward(grad_output, x, weight)
    second = double_backward((x, weight, bias), grad_output, x, weight)
    for mask in itertools.product((False, True), repeat=3):
        for results, all_results in (
            (backward(grad_output, x, weight, output_mask=mask), whole),
            (double_backward((x, weight, bias), grad_output, x, weight, output_mask=mask), second),
        ):
            for wanted, result, same in zip(mask, results, all_results, strict=True):
                assert (result is not None) == wanted
                if wanted:
                    np.testing.assert_array_equal(result, same)


def test_no_direction_gives_zeros(case):
    _, _, double_backward, x, weight, _, grad_output = case
    for result, like in zip(
        double_backward((None, None, None), grad_output, x, weight), (grad_output, x, weight), strict=True
    ):
        np.testing.assert_array_equal(result, np.zeros_like(like))


@pytest.mark.parametrize("algorithm", GENERAL_NAMES)
def test_every_algorithm_gives_the_same_gradients(algorithm):
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 4, 9, 8)), rng.standard_normal((6, 2, 3, 3))
    grad_output = rng.standard_normal((2, 6, 5, 4))
    results = [
        grad.conv2d_backward(grad_output, x, weight, 2, 1, 1, 2, padding_mode="reflect", algorithm=each)
        for each in (algorithm, "direct")
    ]
    for first, second in zip(*results, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-12)


def test_complex_gradients_follow_the_conjugate_convention():
    """For L = Re(w * x) the gradient in x is conj(w), the direction of steepest ascent."""
    x, weight = np.full((1, 1, 1), 2 + 1j), np.full((1, 1, 1), 3 - 4j)
    grad_x, grad_weight, _ = grad.conv1d_backward(np.ones((1, 1, 1), complex), x, weight)
    assert grad_x.item() == 3 + 4j
    assert grad_weight.item() == 2 - 1j


def test_grad_weight_into_out_with_flip():
    rng = np.random.default_rng(0)
    x, grad_output = rng.standard_normal((1, 2, 9)), rng.standard_normal((1, 3, 7))
    out = np.full((3, 2, 3), np.nan)
    assert grad.conv1d_weight(x, (3, 2, 3), grad_output, flip=True, out=out) is out
    np.testing.assert_array_equal(out, grad.conv1d_weight(x, (3, 2, 3), grad_output, flip=True))


def test_the_bias_gradient_of_float16_is_summed_in_float32():
    grad_output = np.ones((1, 1, 5000), np.float16)
    grad_bias = grad.conv1d_backward(
        grad_output, np.ones((1, 1, 5000), np.float16), np.ones((1, 1, 1), np.float16), output_mask=(False, False, True)
    )[2]
    assert grad_bias.dtype == np.float16
    assert grad_bias[0] == 5000


@pytest.mark.parametrize("dtype", ["float16", "float32", "complex64", "int16"])
def test_gradients_are_in_native_byte_order(dtype):
    x, weight, grad_output = np.ones((1, 1, 5000), dtype), np.ones((1, 1, 1), dtype), np.ones((1, 1, 5000), dtype)
    swapped = [each.astype(each.dtype.newbyteorder()) for each in (grad_output, x, weight)]
    for found, expected in [
        (grad.conv1d_backward(*swapped), grad.conv1d_backward(grad_output, x, weight)),
        (grad.conv1d_double_backward(None, None, None, *swapped), (np.zeros_like(x), np.zeros_like(x), 0 * weight)),
    ]:
        for ours, right in zip(found, expected, strict=True):
            assert ours.dtype == right.dtype
            np.testing.assert_array_equal(ours, right)


def test_a_complex_pad_value_is_conjugated_whatever_its_type():
    x, grad_output = np.ones((1, 1, 3), np.complex64), np.ones((1, 1, 7), np.complex64)
    results = [
        grad.conv1d_weight(x, (1, 1, 1), grad_output, padding=2, padding_mode="constant", pad_value=value)
        for value in (1 + 2j, np.complex64(1 + 2j))
    ]
    np.testing.assert_allclose(results, np.full((2, 1, 1, 1), 7 - 8j))
