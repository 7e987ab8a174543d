"""Gradients of the convolutions, and the gradients of those.

Every gradient of the trilinear form is again one of its three operations (`fastconv.core.problem`). For a loss L
and ``y = conv(x, weight, bias)``, the functions take ``grad_output = dL/dy`` and give dL/dx, dL/dweight and
dL/dbias; `conv{n}d_double_backward` differentiates these once more.

Complex gradients follow the convention of PyTorch: dL/dx is the conjugate of the Wirtinger derivative, the
direction of steepest ascent, so that the adjoint identity holds with `numpy.vdot`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from .._ranks import of_ranks
from ..core.arrays import Array, as_array
from ..core.boundary import linear_mode
from ..core.parameters import Extents, Padding, as_size
from ..core.problem import Op
from ..functional import conv, conv_call, dtypes_of, flipped, weight_array
from ..shapes import conv_output_shape
from ._families import Family, Gradients, Options, as_gradient, backward, conjugate, double_backward, options_of

__all__ = [
    "conv1d_backward",
    "conv1d_double_backward",
    "conv1d_input",
    "conv1d_weight",
    "conv2d_backward",
    "conv2d_double_backward",
    "conv2d_input",
    "conv2d_weight",
    "conv3d_backward",
    "conv3d_double_backward",
    "conv3d_input",
    "conv3d_weight",
]


def _conv_input(
    rank: int,
    input_size: Sequence[int],
    weight: ArrayLike,
    grad_output: ArrayLike,
    stride: Extents = 1,
    padding: Padding = 0,
    dilation: Extents = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    layout: str = "channels_first",
    algorithm: str = "auto",
    rtol: float | None = None,
    out: Array | None = None,
    num_threads: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    flip: bool = False,
) -> Array:
    """Gradient of `conv{n}d` with respect to x.

    ``grad_x[n, c, i] = sum over k and all p, r with p * stride + r * dilation - pad = i of
    grad_output[n, k, p] * conj(weight[k, c, r])``; an element of x that the padding repeats gets the sum
    over all its places.

    Parameters
    ----------
    input_size : shape of x, with or without the batch
    weight : array of shape (K, C / groups, ...)
    grad_output : array of the shape of the convolution's result
    stride, padding, dilation, groups, padding_mode, layout, algorithm, rtol, num_threads, device
    precision, flip
        As given to `conv{n}d`.
    out : array of shape `input_size`, optional

    Returns
    -------
    array of shape `input_size`

    Raises
    ------
    ValueError, TypeError
        Naming the argument, what it was, what is allowed, and the problem.
    """
    shape = as_size("input_size", input_size, (rank + 1, rank + 2))
    weight = flipped(weight_array(weight, rank, device), flip)
    given = as_array("grad_output", grad_output, device)
    parameters = (stride, padding, dilation, groups, linear_mode(padding_mode), 0, layout, algorithm, rtol)
    call = conv_call(Op.GRAD_INPUT, shape, weight.shape, dtypes_of(given, weight, precision=precision), *parameters)
    given = as_gradient("grad_output", given, shape, call.problem.y_shape)
    return call(None, conjugate(weight), given, out=out, num_threads=num_threads)


def _conv_weight(
    rank: int,
    x: ArrayLike,
    weight_size: Sequence[int],
    grad_output: ArrayLike,
    stride: Extents = 1,
    padding: Padding = 0,
    dilation: Extents = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    pad_value: complex = 0,
    layout: str = "channels_first",
    algorithm: str = "auto",
    rtol: float | None = None,
    out: Array | None = None,
    num_threads: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    flip: bool = False,
) -> Array:
    """Gradient of `conv{n}d` with respect to its weight.

    ``grad_weight[k, c, r] = sum over n, p of grad_output[n, k, p] * conj(x_padded[n, c, p * stride + r *
    dilation])``. The order of the sum does not depend on the number of threads.

    Parameters
    ----------
    x : array of shape (N, C, ...) or (C, ...)
    weight_size : (K, C / groups, ...)
    grad_output : array of the shape of the convolution's result
    stride, padding, dilation, groups, padding_mode, pad_value, layout, algorithm, rtol, num_threads, device
    precision, flip
        As given to `conv{n}d`.
    out : array of shape `weight_size`, optional

    Returns
    -------
    array of shape `weight_size`

    Raises
    ------
    ValueError, TypeError
        Naming the argument, what it was, what is allowed, and the problem.
    """
    x, given = as_array("x", x, device), as_array("grad_output", grad_output, device)
    shape = as_size("weight_size", weight_size, (rank + 2,))
    value = np.conj(pad_value).item() if np.iscomplexobj(pad_value) else pad_value
    parameters = (stride, padding, dilation, groups, padding_mode, value, layout, algorithm, rtol)
    call = conv_call(Op.GRAD_WEIGHT, x.shape, shape, dtypes_of(x, given, precision=precision), *parameters)
    given = as_gradient("grad_output", given, x.shape, call.problem.y_shape)
    target = flipped(out, flip) if isinstance(out, np.ndarray) and out.ndim == rank + 2 else out
    result = call(conjugate(x), None, given, out=target, num_threads=num_threads)
    return flipped(result, flip) if out is None else out


def _conv_backward(
    rank: int,
    grad_output: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike,
    stride: Extents = 1,
    padding: Padding = 0,
    dilation: Extents = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    pad_value: complex = 0,
    layout: str = "channels_first",
    algorithm: str = "auto",
    rtol: float | None = None,
    num_threads: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    flip: bool = False,
    output_mask: tuple[bool, bool, bool] = (True, True, True),
) -> Gradients:
    """All gradients of `conv{n}d`.

    Parameters
    ----------
    grad_output : array of the shape of the convolution's result
    x, weight : the arguments of the convolution
    stride, padding, dilation, groups, padding_mode, pad_value, layout, algorithm, rtol, num_threads, device
    precision, flip
        As given to `conv{n}d`.
    output_mask : three booleans
        Which of the gradients to compute.

    Returns
    -------
    (grad_x, grad_weight, grad_bias)
        None where the mask says so.
    """
    options = options_of(layout, algorithm, rtol, num_threads, device, precision)
    affine, linear = _paddings(padding_mode, pad_value, {**options, "flip": flip})
    window = (stride, padding, dilation, groups)
    return backward(rank, _CONV, grad_output, x, weight, window, affine, linear, output_mask)


def _conv_double_backward(
    rank: int,
    grad_grad_x: ArrayLike | None,
    grad_grad_weight: ArrayLike | None,
    grad_grad_bias: ArrayLike | None,
    grad_output: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike,
    stride: Extents = 1,
    padding: Padding = 0,
    dilation: Extents = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    pad_value: complex = 0,
    layout: str = "channels_first",
    algorithm: str = "auto",
    rtol: float | None = None,
    num_threads: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    flip: bool = False,
    output_mask: tuple[bool, bool, bool] = (True, True, True),
) -> Gradients:
    """Gradients of `conv{n}d_backward`.

    With M = <grad_grad_x, grad_x> + <grad_grad_weight, grad_weight> + <grad_grad_bias, grad_bias>::

        dM/dgrad_output = conv(grad_grad_x, weight) + conv(x, grad_grad_weight) + grad_grad_bias
        dM/dx           = conv_input(grad_grad_weight, grad_output)
        dM/dweight      = conv_weight(grad_grad_x, grad_output)

    Parameters
    ----------
    grad_grad_x, grad_grad_weight, grad_grad_bias : arrays of the shapes of x, weight and bias, or None
        Gradients of a loss with respect to what `conv{n}d_backward` gave; None means zero.
    grad_output, x, weight
        The arguments of `conv{n}d_backward`.
    stride, padding, dilation, groups, padding_mode, pad_value, layout, algorithm, rtol, num_threads, device
    precision, flip
        As given to `conv{n}d`.
    output_mask : three booleans
        Which of the gradients to compute.

    Returns
    -------
    (grad_grad_output, grad_x, grad_weight)
        None where the mask says so, and zeros where nothing flows.
    """
    options = options_of(layout, algorithm, rtol, num_threads, device, precision)
    affine, linear = _paddings(padding_mode, pad_value, {**options, "flip": flip})
    return double_backward(
        rank,
        _CONV,
        (grad_grad_x, grad_grad_weight, grad_grad_bias),
        (grad_output, x, weight),
        (stride, padding, dilation, groups),
        affine,
        linear,
        output_mask,
    )


def _paddings(padding_mode: str, pad_value: complex, options: Options) -> tuple[Options, Options]:
    """Options for what depends on x itself, and for what is linear in x."""
    affine = {"padding_mode": padding_mode, "pad_value": pad_value, **options}
    return affine, {"padding_mode": linear_mode(padding_mode), **options}


_CONV = Family(conv, _conv_input, _conv_weight, conv_output_shape)

conv1d_input, conv2d_input, conv3d_input = of_ranks(_conv_input, "conv{n}d_input")
conv1d_weight, conv2d_weight, conv3d_weight = of_ranks(_conv_weight, "conv{n}d_weight")
conv1d_backward, conv2d_backward, conv3d_backward = of_ranks(_conv_backward, "conv{n}d_backward")
conv1d_double_backward, conv2d_double_backward, conv3d_double_backward = of_ranks(
    _conv_double_backward, "conv{n}d_double_backward"
)
