"""Convolution and transposed convolution in one, two and three dimensions, as in `torch.nn.functional`.

The functions of one family differ in their rank alone, so each family is written once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ._ranks import of_ranks
from .core.algorithm import Epilogue
from .core.arrays import Array, as_array, common_dtype
from .core.devices import DeviceType, common_device, with_precision
from .core.errors import RejectedError
from .core.evaluate import Call
from .core.parameters import Extents, Padding
from .core.problem import ConvProblem, Op
from .core.recent import remembered
from .core.registry import call_class

__all__ = ["conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]

Shape = tuple[int, ...]
DTypes = tuple[np.dtype[Any] | DeviceType | None, ...]


def weight_array(weight: ArrayLike, rank: int, device: str | None = None) -> Array:
    """The weight as an array of the right number of axes."""
    array = as_array("weight", weight, device)
    if array.ndim != rank + 2:
        raise RejectedError("weight.shape", array.shape, f"must have {rank + 2} axes for {rank} spatial dimensions")
    return array


def bias_array(bias: ArrayLike | None, channels: int, device: str | None = None) -> Array | None:
    """The bias as an array of shape (channels,), or None."""
    if bias is None:
        return None
    array = as_array("bias", bias, device)
    if array.shape != (channels,):
        raise RejectedError("bias.shape", array.shape, f"must be ({channels},), one for each output channel")
    return array


def flipped(weight: Array, flip: bool) -> Array:
    """The weight, reversed along its spatial axes if `flip`."""
    if not flip:
        return weight
    axes = tuple(range(2, weight.ndim))
    return np.flip(weight, axes) if isinstance(weight, np.ndarray) else weight.flipped(axes)


def dtypes_of(*arrays: Array | None, precision: str | None = None) -> DTypes:
    """The types of the arguments, None for what is not given; a precision tells how float32 may be multiplied."""
    dtypes = tuple([None if array is None else array.dtype for array in arrays])
    return dtypes if precision is None else with_precision(dtypes, precision)


@remembered("x_shape", "weight_shape", "dtypes", "add_shape")
def conv_call(
    op: Op,
    x_shape: Shape,
    weight_shape: Shape,
    dtypes: DTypes,
    stride: Extents,
    padding: Padding,
    dilation: Extents,
    groups: int,
    padding_mode: str,
    pad_value: complex,
    layout: str,
    algorithm: str,
    rtol: float | None = None,
    activation: str | None = None,
    add_shape: Shape | None = None,
) -> Call:
    """What `conv{n}d`, or a gradient of it, does with arguments of these shapes, types and values."""
    problem = ConvProblem.from_shapes(
        x_shape,
        weight_shape,
        stride,
        padding,
        dilation,
        groups,
        padding_mode=padding_mode,
        pad_value=pad_value,
        layout=layout,
        dtype=common_dtype(*dtypes),
    )
    batched = len(x_shape) == len(weight_shape)
    return _call(op, problem, algorithm, rtol, activation, add_shape, batched, common_device(*dtypes))


@remembered("x_shape", "weight_shape", "dtypes", "add_shape")
def conv_transpose_call(
    op: Op,
    x_shape: Shape,
    weight_shape: Shape,
    dtypes: DTypes,
    stride: Extents,
    padding: Padding,
    output_padding: Extents,
    groups: int,
    dilation: Extents,
    layout: str,
    algorithm: str,
    rtol: float | None = None,
    activation: str | None = None,
    add_shape: Shape | None = None,
) -> Call:
    """What `conv_transpose{n}d`, or a gradient of it, does with arguments of these shapes, types and values."""
    problem = ConvProblem.from_transposed(
        x_shape,
        weight_shape,
        stride,
        padding,
        output_padding,
        groups,
        dilation,
        layout=layout,
        dtype=common_dtype(*dtypes),
    )
    batched = len(x_shape) == len(weight_shape)
    return _call(op, problem, algorithm, rtol, activation, add_shape, batched, common_device(*dtypes))


def _call(
    op: Op,
    problem: ConvProblem,
    algorithm: str,
    rtol: float | None,
    activation: str | None,
    add_shape: Shape | None,
    batched: bool,
    device: str,
) -> Call:
    call: Call = call_class(device)(op, problem, algorithm, Epilogue(activation, add_shape is not None), batched, rtol)
    if add_shape is not None and add_shape != call.shape:
        raise RejectedError("add.shape", add_shape, f"must be {call.shape}, the shape of the result")
    return call


def conv(
    rank: int,
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Extents = 1,
    padding: Padding = 0,
    dilation: Extents = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    pad_value: complex = 0,
    layout: str = "channels_first",
    activation: str | None = None,
    add: ArrayLike | None = None,
    algorithm: str = "auto",
    rtol: float | None = None,
    out: Array | None = None,
    num_threads: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    flip: bool = False,
) -> Array:
    """{n}-D convolution, in the sense of cross-correlation.

    ``y[n, k, p] = bias[k] + sum over c, r of weight[k, c, r] * x_padded[n, c, p * stride + r * dilation]``,
    with c over the input channels of the group of k, and p, r, stride and dilation over {n} axes; with `add` and
    `activation`, ``activation(y + add)``.

    Parameters
    ----------
    x : array of shape (N, C, ...) or (C, ...)
        With layout="channels_last", (N, ..., C) or (..., C).
    weight : array of shape (K, C / groups, ...)
        The filters, in this order in either layout.
    bias : array of shape (K,), optional
    stride, dilation : int or one for each axis
        At least 1.
    padding : int, one for each axis, a pair (low, high) for each axis, or str
        In elements. "valid": none; "same": an output of ceil(extent / stride), the odd element after;
        "same_lower": the odd element before; "full": every overlap, dilation * (filter - 1) on both sides;
        "causal" (1-D): all of that before.
    groups : int
        Divides C and K into independent convolutions.
    padding_mode : {"zeros", "constant", "reflect", "replicate", "circular", "symmetric"}
        What stands in the padding. It may exceed the extent of x: each mode goes on periodically.
    pad_value : number
        For padding_mode="constant".
    layout : {"channels_first", "channels_last"}
    activation : {"relu", "leaky_relu", "silu", "gelu", "sigmoid", "tanh"}, optional
        Applied to the results as they are stored. leaky_relu has the slope 0.01, gelu is the exact one. Integers
        have relu only, complex numbers none.
    add : array of the result's shape, optional
        Added before the activation.
    algorithm : {"auto", "direct", "im2col", "fft", "winograd"}
    rtol : float, optional
        Largest error that "auto" may expect of an algorithm, over the root mean square of the result: by default
        1e-4 in float32 and 1e-12 in float64. Of a named algorithm nothing is asked.
    out : array of the result's shape and type, optional
        Must not overlap the inputs. Faster than a new array where the result is large.
    num_threads : int, optional
        Most threads to use; by default Numba's number. None on a CUDA device.
    device : {"cpu", "cuda"}, optional
        Where to compute: by default where the arrays are. Arrays on a CUDA device (of PyTorch, CuPy, Numba, or any
        other library by DLPack or ``__cuda_array_interface__``) are taken without a copy, in their library's current
        stream, and the result is an array of the same kind; with "cuda", NumPy arrays are copied there and back.
    precision : {"tf32"}, optional
        On a CUDA device, whether products of float32 may be rounded to TF32, 11 bits, where that is faster; else never.
    flip : bool
        Reverse the filters along their spatial axes: convolution in the mathematical sense.

    Returns
    -------
    array of shape (N, K, ...) or (N, ..., K), unbatched where x is
        Its type is what NumPy promotes the inputs to, bias and `add` among them. float16 is computed in float32.
        Integers are exact modulo 2**bits of that type; the accumulator has 32 bits, or 64 for 64-bit types.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, what it was, what is allowed, and the problem.
    UnsupportedError
        If the named algorithm cannot serve, or none is as accurate as `rtol` says (a ValueError).
    """
    x, weight = as_array("x", x, device), flipped(weight_array(weight, rank, device), flip)
    bias = bias_array(bias, weight.shape[0], device)
    add = None if add is None else as_array("add", add, device)
    parameters = (stride, padding, dilation, groups, padding_mode, pad_value, layout, algorithm, rtol, activation)
    add_shape = None if add is None else add.shape
    call = conv_call(
        Op.FORWARD,
        x.shape,
        weight.shape,
        dtypes_of(x, weight, bias, add, precision=precision),
        *parameters,
        add_shape,
    )
    return call(x, weight, None, bias=bias, add=add, out=out, num_threads=num_threads)


def conv_transpose(
    rank: int,
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Extents = 1,
    padding: int | Sequence[int] | Sequence[tuple[int, int]] = 0,
    output_padding: Extents = 0,
    groups: int = 1,
    dilation: Extents = 1,
    *,
    layout: str = "channels_first",
    activation: str | None = None,
    add: ArrayLike | None = None,
    algorithm: str = "auto",
    rtol: float | None = None,
    out: Array | None = None,
    num_threads: int | None = None,
    device: str | None = None,
    precision: str | None = None,
) -> Array:
    """{n}-D transposed convolution: the adjoint of `conv{n}d` in its first argument.

    Every input element adds its multiple of the filter to the output, `stride` apart. The output has the
    extents (input - 1) * stride - pads + dilation * (filter - 1) + output_padding + 1.

    Parameters
    ----------
    x : array of shape (N, C, ...) or (C, ...)
        With layout="channels_last", (N, ..., C) or (..., C).
    weight : array of shape (C, K / groups, ...)
    bias : array of shape (K,), optional
    stride, dilation : int or one for each axis
        At least 1.
    padding : int, one for each axis, or a pair (low, high) for each axis
        Elements that are cut off the output.
    output_padding : int or one for each axis
        Elements by which the output is longer at its end; less than the stride (PyTorch also takes less than the
        dilation).
    groups, layout, activation, add, algorithm, rtol, out, num_threads, device, precision
        As in `conv{n}d`.

    Returns
    -------
    array of shape (N, K, ...) or (N, ..., K), unbatched where x is

    Raises
    ------
    ValueError, TypeError
        Naming the argument, what it was, what is allowed, and the problem.
    """
    x, weight = as_array("x", x, device), weight_array(weight, rank, device)
    bias = None if bias is None else as_array("bias", bias, device)
    add = None if add is None else as_array("add", add, device)
    parameters = (stride, padding, output_padding, groups, dilation, layout, algorithm, rtol, activation)
    add_shape, dtypes = None if add is None else add.shape, dtypes_of(x, weight, bias, add, precision=precision)
    call = conv_transpose_call(Op.GRAD_INPUT, x.shape, weight.shape, dtypes, *parameters, add_shape)
    bias = bias_array(bias, call.problem.C, device)
    return call(None, weight, x, bias=bias, add=add, out=out, num_threads=num_threads)


conv1d, conv2d, conv3d = of_ranks(conv, "conv{n}d")
conv_transpose1d, conv_transpose2d, conv_transpose3d = of_ranks(conv_transpose, "conv_transpose{n}d")
