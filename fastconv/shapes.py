"""Shape arithmetic: what a convolution gives, and how many numbers it learns."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .core.errors import RejectedError, reporting
from .core.parameters import Extents, Padding, as_integer, as_size
from .core.problem import ConvProblem

__all__ = ["conv_output_shape", "conv_transpose_output_shape", "parameter_count"]


@reporting
def conv_output_shape(
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    stride: Extents = 1,
    padding: Padding = 0,
    dilation: Extents = 1,
    groups: int = 1,
    *,
    layout: str = "channels_first",
) -> tuple[int, ...]:
    """Shape of the result of `conv1d`, `conv2d` or `conv3d`.

    Each extent is floor((input + pads - dilation * (filter - 1) - 1) / stride) + 1.

    Parameters
    ----------
    x_shape, weight_shape
        Shapes of the arguments; the rank is that of the weight, and x may be without its batch axis.
    stride, padding, dilation, groups, layout
        As given to the convolution.

    Raises
    ------
    ValueError, TypeError
        Where the convolution would raise it.
    """
    problem = ConvProblem.from_shapes(x_shape, weight_shape, stride, padding, dilation, groups, layout=layout)
    return problem.y_shape[len(weight_shape) - len(x_shape) :]


@reporting
def conv_transpose_output_shape(
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    stride: Extents = 1,
    padding: int | Sequence[int] | Sequence[tuple[int, int]] = 0,
    output_padding: Extents = 0,
    groups: int = 1,
    dilation: Extents = 1,
    *,
    layout: str = "channels_first",
) -> tuple[int, ...]:
    """Shape of the result of `conv_transpose1d`, `conv_transpose2d` or `conv_transpose3d`.

    Each extent is (input - 1) * stride - pads + dilation * (filter - 1) + output_padding + 1.

    Parameters
    ----------
    x_shape, weight_shape
        Shapes of the arguments; the rank is that of the weight, and x may be without its batch axis.
    stride, padding, output_padding, groups, dilation, layout
        As given to the transposed convolution.

    Raises
    ------
    ValueError, TypeError
        Where the transposed convolution would raise it.
    """
    problem = ConvProblem.from_transposed(
        x_shape, weight_shape, stride, padding, output_padding, groups, dilation, layout=layout
    )
    return problem.x_shape[len(weight_shape) - len(x_shape) :]


@reporting
def parameter_count(
    in_channels: int, out_channels: int, kernel_size: Sequence[int], groups: int = 1, bias: bool = True
) -> int:
    """Learned numbers of a convolution or transposed convolution.

    Parameters
    ----------
    in_channels, out_channels
        C and K.
    kernel_size
        Extents of the filter.
    groups
        Each filter sees C / groups channels.
    bias
        Whether each output channel has one.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, what it was and what is allowed.
    """
    C, K = as_integer("in_channels", in_channels, 0), as_integer("out_channels", out_channels, 1)
    if as_integer("groups", groups, 1) > 1 and (C % groups or K % groups):
        raise RejectedError("groups", groups, f"must divide in_channels={C} and out_channels={K}")
    filter = as_size("kernel_size", kernel_size, (1, 2, 3))
    return K * (C // groups) * math.prod(filter) + (K if bias else 0)
