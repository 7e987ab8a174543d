"""Gradients of the transposed convolutions, and the gradients of those.

The transposed convolution is the operation GRAD_INPUT of a convolution, and so its gradients are the other two:
with respect to x FORWARD, and with respect to the weight GRAD_WEIGHT with x and y in each other's place. Otherwise as
`fastconv.grad.convolution`.
"""

from __future__ import annotations

from collections.abc import Sequence

from numpy.typing import ArrayLike

from .._ranks import of_ranks
from ..core.arrays import Array, as_array
from ..core.parameters import Extents, as_size
from ..core.problem import Op
from ..functional import conv_transpose, conv_transpose_call, dtypes_of, weight_array
from ..shapes import conv_transpose_output_shape
from ._families import Family, Gradients, as_gradient, backward, conjugate, double_backward, options_of

__all__ = [
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
]


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
    given = as_gradient("grad_output", given, shape, call.problem.x_shape)
    return call(given, conjugate(weight), None, out=out, num_threads=num_threads)


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
    given = as_gradient("grad_output", given, x.shape, call.problem.x_shape)
    return call(given, None, conjugate(x), out=out, num_threads=num_threads)


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
    options = options_of(layout, algorithm, rtol, num_threads, device, precision)
    window = (stride, padding, output_padding, groups, dilation)
    return backward(rank, _CONV_TRANSPOSE, grad_output, x, weight, window, options, options, output_mask)


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
    options = options_of(layout, algorithm, rtol, num_threads, device, precision)
    return double_backward(
        rank,
        _CONV_TRANSPOSE,
        (grad_grad_x, grad_grad_weight, grad_grad_bias),
        (grad_output, x, weight),
        (stride, padding, output_padding, groups, dilation),
        options,
        options,
        output_mask,
    )


_CONV_TRANSPOSE = Family(conv_transpose, _conv_transpose_input, _conv_transpose_weight, conv_transpose_output_shape)

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
