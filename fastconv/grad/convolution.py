"""Gradients of the convolutions, and the gradients of those.

Every gradient of the trilinear form is again one of its three operations (`fastconv.core.problem`). For a loss L
and ``y = conv(x, weight, bias)``, the functions take ``grad_output = dL/dy`` and give dL/dx, dL/dweight and
dL/dbias; `conv{n}d_double_backward` differentiates these once more.

Complex gradients follow the convention of PyTorch: dL/dx is the conjugate of the Wirtinger derivative, the
direction of steepest ascent, so that the adjoint identity holds with `numpy.vdot`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .._ranks import of_ranks
from ..core.arrays import Array, as_array, sum_of_channels, zeros_like
from ..core.boundary import linear_mode
from ..core.devices import is_on_cuda
from ..core.errors import RejectedError
from ..core.parameters import Extents, Padding, as_size, elements_of
from ..core.problem import Op
from ..functional import conv, conv_call, conv_transpose, conv_transpose_call, dtypes_of, flipped, weight_array
from ..shapes import conv_output_shape, conv_transpose_output_shape

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
    "conv_transpose1d_backward",
    "conv_transpose1d_double_backward",
    "conv_transpose1d_input",
    "conv_transpose1d_weight",
    "conv_transpose2d_backward",
    "conv_transpose2d_double_backward",
    "conv_transpose2d_input",
    "conv_transpose2d_weight",
    "conv_transpose3d_backward",
    "conv_transpose3d_double_backward",
    "conv_transpose3d_input",
    "conv_transpose3d_weight",
]  # fmt: skip

Gradients = tuple[Array | None, Array | None, Array | None]
Options = dict[str, Any]


def _as_gradient(argument: str, value: ArrayLike, shape: tuple[int, ...], batched: tuple[int, ...]) -> Array:
    """An array that must have a shape, given with or without the batch axis as `shape` is."""
    array = as_array(argument, value)
    expected = batched if len(shape) == len(batched) else batched[1:]
    if array.shape != expected:
        raise RejectedError(f"{argument}.shape", array.shape, f"must be {expected}")
    return array


def _conjugate(array: Array) -> Array:
    return np.conj(array) if array.dtype.kind == "c" else array


def _grad_bias(grad_output: Array, rank: int, layout: str) -> Array:
    """Sum over the batch and the pixels."""
    return sum_of_channels(grad_output, grad_output.ndim - (1 if layout == "channels_last" else rank + 1))


# ---- conv


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
    given = _as_gradient("grad_output", given, shape, call.problem.y_shape)
    return call(None, _conjugate(weight), given, out=out, num_threads=num_threads)


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
    given = _as_gradient("grad_output", given, x.shape, call.problem.y_shape)
    target = flipped(out, flip) if isinstance(out, np.ndarray) and out.ndim == rank + 2 else out
    result = call(_conjugate(x), None, given, out=target, num_threads=num_threads)
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
    options = _options(layout, algorithm, rtol, num_threads, device, precision)
    affine, linear = _paddings(padding_mode, pad_value, {**options, "flip": flip})
    window = (stride, padding, dilation, groups)
    return _backward(rank, _CONV, grad_output, x, weight, window, affine, linear, output_mask)


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
    options = _options(layout, algorithm, rtol, num_threads, device, precision)
    affine, linear = _paddings(padding_mode, pad_value, {**options, "flip": flip})
    return _double_backward(
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


# ---- conv_transpose


def _conv_transpose_input(
    rank: int,
    input_size: Sequence[int],
    weight: ArrayLike,
    grad_output: ArrayLike,
    stride: Extents = 1,
    padding: int | Sequence[int] | Sequence[tuple[int, int]] = 0,
    output_padding: Extents = 0,
    groups: int = 1,
    dilation: Extents = 1,
    *,
    layout: str = "channels_first",
    algorithm: str = "auto",
    rtol: float | None = None,
    out: Array | None = None,
    num_threads: int | None = None,
    device: str | None = None,
    precision: str | None = None,
) -> Array:
    """Gradient of `conv_transpose{n}d` with respect to x: the convolution of grad_output.

    Parameters
    ----------
    input_size : shape of x, with or without the batch
    weight : array of shape (C, K / groups, ...)
    grad_output : array of the shape of the transposed convolution's result
    stride, padding, output_padding, groups, dilation, layout, algorithm, rtol, num_threads, device, precision
        As given to `conv_transpose{n}d`.
    out : array of shape `input_size`, optional

    Returns
    -------
    array of shape `input_size`
    """
    shape = as_size("input_size", input_size, (rank + 1, rank + 2))
    weight, given = weight_array(weight, rank, device), as_array("grad_output", grad_output, device)
    parameters = (stride, padding, output_padding, groups, dilation, layout, algorithm, rtol)
    call = conv_transpose_call(
        Op.FORWARD, shape, weight.shape, dtypes_of(given, weight, precision=precision), *parameters
    )
    given = _as_gradient("grad_output", given, shape, call.problem.x_shape)
    return call(given, _conjugate(weight), None, out=out, num_threads=num_threads)


def _conv_transpose_weight(
    rank: int,
    x: ArrayLike,
    weight_size: Sequence[int],
    grad_output: ArrayLike,
    stride: Extents = 1,
    padding: int | Sequence[int] | Sequence[tuple[int, int]] = 0,
    output_padding: Extents = 0,
    groups: int = 1,
    dilation: Extents = 1,
    *,
    layout: str = "channels_first",
    algorithm: str = "auto",
    rtol: float | None = None,
    out: Array | None = None,
    num_threads: int | None = None,
    device: str | None = None,
    precision: str | None = None,
) -> Array:
    """Gradient of `conv_transpose{n}d` with respect to its weight.

    Parameters
    ----------
    x : array of shape (N, C, ...) or (C, ...)
    weight_size : (C, K / groups, ...)
    grad_output : array of the shape of the transposed convolution's result
    stride, padding, output_padding, groups, dilation, layout, algorithm, rtol, num_threads, device, precision
        As given to `conv_transpose{n}d`.
    out : array of shape `weight_size`, optional

    Returns
    -------
    array of shape `weight_size`
    """
    x, given = as_array("x", x, device), as_array("grad_output", grad_output, device)
    shape = as_size("weight_size", weight_size, (rank + 2,))
    parameters = (stride, padding, output_padding, groups, dilation, layout, algorithm, rtol)
    call = conv_transpose_call(Op.GRAD_WEIGHT, x.shape, shape, dtypes_of(x, given, precision=precision), *parameters)
    given = _as_gradient("grad_output", given, x.shape, call.problem.x_shape)
    return call(given, None, _conjugate(x), out=out, num_threads=num_threads)


def _conv_transpose_backward(
    rank: int,
    grad_output: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike,
    stride: Extents = 1,
    padding: int | Sequence[int] | Sequence[tuple[int, int]] = 0,
    output_padding: Extents = 0,
    groups: int = 1,
    dilation: Extents = 1,
    *,
    layout: str = "channels_first",
    algorithm: str = "auto",
    rtol: float | None = None,
    num_threads: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    output_mask: tuple[bool, bool, bool] = (True, True, True),
) -> Gradients:
    """All gradients of `conv_transpose{n}d`; the arguments are those of `conv{n}d_backward`.

    Returns
    -------
    (grad_x, grad_weight, grad_bias)
        None where the mask says so.
    """
    options = _options(layout, algorithm, rtol, num_threads, device, precision)
    window = (stride, padding, output_padding, groups, dilation)
    return _backward(rank, _CONV_TRANSPOSE, grad_output, x, weight, window, options, options, output_mask)


def _conv_transpose_double_backward(
    rank: int,
    grad_grad_x: ArrayLike | None,
    grad_grad_weight: ArrayLike | None,
    grad_grad_bias: ArrayLike | None,
    grad_output: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike,
    stride: Extents = 1,
    padding: int | Sequence[int] | Sequence[tuple[int, int]] = 0,
    output_padding: Extents = 0,
    groups: int = 1,
    dilation: Extents = 1,
    *,
    layout: str = "channels_first",
    algorithm: str = "auto",
    rtol: float | None = None,
    num_threads: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    output_mask: tuple[bool, bool, bool] = (True, True, True),
) -> Gradients:
    """Gradients of `conv_transpose{n}d_backward`; the arguments are those of `conv{n}d_double_backward`.

    Returns
    -------
    (grad_grad_output, grad_x, grad_weight)
        None where the mask says so, and zeros where nothing flows.
    """
    options = _options(layout, algorithm, rtol, num_threads, device, precision)
    return _double_backward(
        rank,
        _CONV_TRANSPOSE,
        (grad_grad_x, grad_grad_weight, grad_grad_bias),
        (grad_output, x, weight),
        (stride, padding, output_padding, groups, dilation),
        options,
        options,
        output_mask,
    )


# ---- what both families share


def _options(
    layout: str,
    algorithm: str,
    rtol: float | None,
    num_threads: int | None,
    device: str | None,
    precision: str | None,
) -> Options:
    """The options that every operation of both families takes, by their names."""
    return {
        "layout": layout,
        "algorithm": algorithm,
        "rtol": rtol,
        "num_threads": num_threads,
        "device": device,
        "precision": precision,
    }


class _Family(NamedTuple):
    """A convolution and its gradients, each of any rank; all take one window: stride, padding and so on, in order."""

    forward: Callable[..., Array]
    input: Callable[..., Array]
    weight: Callable[..., Array]
    output_shape: Callable[..., tuple[int, ...]]


def _backward(
    rank: int,
    family: _Family,
    grad_output: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike,
    window: tuple[Any, ...],
    affine: Options,
    linear: Options,
    mask: tuple[bool, bool, bool],
) -> Gradients:
    x_shape, weight_shape = as_array("x", x).shape, as_array("weight", weight).shape
    y_shape = family.output_shape(x_shape, weight_shape, *window, layout=affine["layout"])
    _require_shape("grad_output", grad_output, y_shape)
    _require_mask(mask)
    grad_x = grad_weight = grad_bias = None
    if mask[0]:
        grad_x = family.input(rank, x_shape, weight, grad_output, *window, **linear)
    if mask[1]:
        grad_weight = family.weight(rank, x, weight_shape, grad_output, *window, **affine)
    if mask[2]:
        grad_bias = _grad_bias(as_array("grad_output", grad_output, linear["device"]), rank, affine["layout"])
    return grad_x, grad_weight, grad_bias


def _double_backward(
    rank: int,
    family: _Family,
    grad_grads: tuple[ArrayLike | None, ArrayLike | None, ArrayLike | None],
    arguments: tuple[ArrayLike, ArrayLike, ArrayLike],
    window: tuple[Any, ...],
    affine: Options,
    linear: Options,
    mask: tuple[bool, bool, bool],
) -> Gradients:
    to_x, to_weight, to_bias = grad_grads
    grad_output, x, weight = arguments
    layout = affine["layout"]
    x_shape, weight_shape = as_array("x", x).shape, as_array("weight", weight).shape
    y_shape = family.output_shape(x_shape, weight_shape, *window, layout=layout)
    channels = y_shape[-1 if layout == "channels_last" else -1 - rank]
    _require_shape("grad_output", grad_output, y_shape)
    _require_shape("grad_grad_x", to_x, x_shape)
    _require_shape("grad_grad_weight", to_weight, weight_shape)
    _require_shape("grad_grad_bias", to_bias, (channels,))
    _require_mask(mask)
    grad_grad_output = grad_x = grad_weight = None
    if mask[0]:
        # Sums are added up where they are stored: arrays on a device need not know addition.
        grad_grad_output, bias = zeros_like(grad_output), to_bias
        if to_x is not None:
            grad_grad_output = family.forward(rank, to_x, weight, bias, *window, add=grad_grad_output, **linear)
            bias = None
        if to_weight is not None:
            grad_grad_output = family.forward(rank, x, to_weight, bias, *window, add=grad_grad_output, **affine)
            bias = None
        if bias is not None:
            grad_grad_output = grad_grad_output + _per_channel(bias, rank, layout)
    if mask[1]:
        grad_x = zeros_like(x)
        if to_weight is not None:
            grad_x = family.input(rank, x_shape, to_weight, grad_output, *window, **linear)
    if mask[2]:
        grad_weight = zeros_like(weight)
        if to_x is not None:
            grad_weight = family.weight(rank, to_x, weight_shape, grad_output, *window, **linear)
    return grad_grad_output, grad_x, grad_weight


def _require_shape(argument: str, value: ArrayLike | None, shape: tuple[int, ...]) -> None:
    if value is not None and as_array(argument, value).shape != shape:
        raise RejectedError(f"{argument}.shape", np.shape(value), f"must be {shape}")


def _require_mask(mask: Any) -> None:
    if len(elements_of(mask) or ()) != 3:
        raise RejectedError("output_mask", mask, "must be three booleans, one for each gradient")


def _per_channel(bias: ArrayLike, rank: int, layout: str) -> Array:
    """The bias in a shape that broadcasts along the channels."""
    values: Array = bias if is_on_cuda(bias) else np.asarray(bias)  # type: ignore[assignment]
    return values if layout == "channels_last" else values.reshape(-1, *[1] * rank)


_CONV = _Family(conv, _conv_input, _conv_weight, conv_output_shape)
_CONV_TRANSPOSE = _Family(conv_transpose, _conv_transpose_input, _conv_transpose_weight, conv_transpose_output_shape)

conv1d_input, conv2d_input, conv3d_input = of_ranks(_conv_input, "conv{n}d_input")
conv1d_weight, conv2d_weight, conv3d_weight = of_ranks(_conv_weight, "conv{n}d_weight")
conv1d_backward, conv2d_backward, conv3d_backward = of_ranks(_conv_backward, "conv{n}d_backward")
conv1d_double_backward, conv2d_double_backward, conv3d_double_backward = of_ranks(
    _conv_double_backward, "conv{n}d_double_backward"
)
conv_transpose1d_input, conv_transpose2d_input, conv_transpose3d_input = of_ranks(
    _conv_transpose_input, "conv_transpose{n}d_input"
)
conv_transpose1d_weight, conv_transpose2d_weight, conv_transpose3d_weight = of_ranks(
    _conv_transpose_weight, "conv_transpose{n}d_weight"
)
conv_transpose1d_backward, conv_transpose2d_backward, conv_transpose3d_backward = of_ranks(
    _conv_transpose_backward, "conv_transpose{n}d_backward"
)
conv_transpose1d_double_backward, conv_transpose2d_double_backward, conv_transpose3d_double_backward = of_ranks(
    _conv_transpose_double_backward, "conv_transpose{n}d_double_backward"
)
