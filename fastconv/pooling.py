"""Pooling in one, two and three dimensions, as in `torch.nn.functional`, with what ONNX has beside it.

The functions of one family differ in their rank alone, so each family is written once. Global pooling has a name of its
own, made of ONNX's (GlobalAveragePool) in the spelling of the others: PyTorch writes it as an adaptive one of size 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import ArrayLike

from ._ranks import of_ranks
from .core.arrays import Array, as_array
from .core.errors import RejectedError
from .core.parameters import Extents, Padding, is_positive
from .core.pool_problem import PoolOp, PoolProblem
from .core.pooling import Pooling, index_array, pooled_dtypes, pooling_of
from .core.recent import remembered

__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
    "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d",
    "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "global_avg_pool1d", "global_avg_pool2d", "global_avg_pool3d",
    "global_max_pool1d", "global_max_pool2d", "global_max_pool3d",
    "lp_pool1d", "lp_pool2d", "lp_pool3d",
    "max_pool1d", "max_pool2d", "max_pool3d",
    "max_unpool1d", "max_unpool2d", "max_unpool3d",
]  # fmt: skip

Shape = tuple[int, ...]
Pads = int | Sequence[int] | Sequence[tuple[int, int]]


@remembered("x_shape")
def windows_call(
    op: PoolOp,
    x_shape: Shape,
    dtype: Any,
    rank: int,
    layout: str,
    kernel_size: Extents,
    stride: Extents | None,
    padding: Padding,
    dilation: Extents,
    ceil_mode: bool | str,
    count_include_pad: bool = False,
    divisor_override: int | None = None,
) -> Pooling:
    """What pooling by windows of one size, or its gradient, does with arguments of these shapes, types and values."""
    result, computed = pooled_dtypes(op, dtype)
    problem = PoolProblem.from_windows(
        x_shape,
        rank,
        kernel_size,
        stride,
        padding,
        dilation,
        ceil_mode,
        count_include_pad=count_include_pad,
        divisor_override=divisor_override,
        layout=layout,
        dtype=computed.name,
    )
    return pooling_of(op, problem, result, len(x_shape) == rank + 2)


@remembered("x_shape")
def adaptive_call(op: PoolOp, x_shape: Shape, dtype: Any, rank: int, layout: str, output_size: Any) -> Pooling:
    """What adaptive pooling, or its gradient, does with arguments of these shapes, types and values."""
    result, computed = pooled_dtypes(op, dtype)
    problem = PoolProblem.adaptive(x_shape, rank, output_size, layout=layout, dtype=computed.name)
    return pooling_of(op, problem, result, len(x_shape) == rank + 2)


@remembered("y_shape")
def index_call(op: PoolOp, y_shape: Shape, dtype: Any, rank: int, layout: str, extents: Shape) -> Pooling:
    """What goes by indices into planes of these extents."""
    result, computed = pooled_dtypes(op, dtype)
    problem = PoolProblem.from_extents(y_shape, rank, extents, layout=layout, dtype=computed.name)
    return pooling_of(op, problem, result, len(y_shape) == rank + 2)


def greatest(
    call: Callable[..., Pooling], x: Array, return_indices: bool, out: Any, num_threads: int | None, *parameters: Any
) -> Any:
    """The greatest of windows, and the indices if they are wanted; `call` makes the pooling of the parameters."""
    if not return_indices:
        return call(PoolOp.MAX, x.shape, x.dtype, *parameters)(x, out=out, num_threads=num_threads)
    pooling = call(PoolOp.MAX_WITH_INDICES, x.shape, x.dtype, *parameters)
    return pooling.with_indices(x, out=out, num_threads=num_threads)


def _max_pool(
    rank: int,
    x: ArrayLike,
    kernel_size: Extents,
    stride: Extents | None = None,
    padding: Padding = 0,
    dilation: Extents = 1,
    ceil_mode: bool | str = False,
    return_indices: bool = False,
    *,
    layout: str = "channels_first",
    out: Array | None = None,
    num_threads: int | None = None,
    device: str | None = None,
) -> Any:
    """{n}-D maximum pooling: ``y[n, c, p] = max over r of x[n, c, p * stride + r * dilation - pad]``.

    The padding holds nothing: no element of it is taken. NaN is greater than any number.

    Parameters
    ----------
    x : array of shape (N, C, ...) or (C, ...)
        Of real numbers. With layout="channels_last", (N, ..., C) or (..., C).
    kernel_size : int or one for each axis
        Extents of the window.
    stride : int or one for each axis, optional
        By default the extents of the window.
    padding : int, one for each axis, a pair (low, high) for each axis, or str
        As in `conv{n}d`. It may be as large as the window and larger.
    dilation : int or one for each axis
    ceil_mode : bool or "all"
        Whether a last window may hang over the end. With True it must start in x or in the padding before it; "all"
        keeps it in any case, as ONNX did before its version 22.
    return_indices : bool
        Whether to give the index of each maximum, too.
    layout : {"channels_first", "channels_last"}
    out : array of the result's shape and type, optional
        Must not overlap x.
    num_threads, device
        As in `conv{n}d`.

    Returns
    -------
    array of shape (N, C, ...) or (N, ..., C), unbatched where x is
        Of the type of x. A window that holds no element of x gives the least number of the type.
    indices : array of int64 of the same shape, with return_indices=True
        Where the maximum stands in the flattened spatial axes of its channel: the first one of equal numbers, the
        last NaN, and -1 for a window that holds no element.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, what it was, what is allowed, and the problem.
    """
    x = as_array("x", x, device)
    window = (kernel_size, stride, padding, dilation, ceil_mode)
    return greatest(windows_call, x, return_indices, out, num_threads, rank, layout, *window)


def _avg_pool(
    rank: int,
    x: ArrayLike,
    kernel_size: Extents,
    stride: Extents | None = None,
    padding: Padding = 0,
    ceil_mode: bool | str = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    dilation: Extents = 1,
    *,
    layout: str = "channels_first",
    out: Array | None = None,
    num_threads: int | None = None,
    device: str | None = None,
) -> Array:
    """{n}-D average pooling: ``y[n, c, p] = sum over r of x[n, c, p * stride + r * dilation - pad] / count[p]``.

    Parameters
    ----------
    x, kernel_size, stride, padding, ceil_mode, dilation, layout, out, num_threads, device
        As in `max_pool{n}d`.
    count_include_pad : bool
        Whether the count of a window includes the padding; never what lies beyond it.
    divisor_override : int, optional
        Divides the sums instead of the counts.

    Returns
    -------
    array of shape (N, C, ...) or (N, ..., C), unbatched where x is
        Of the type of x; float64 for integers, as `numpy.mean` gives. A window that holds no element of x gives 0.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, what it was, what is allowed, and the problem.
    """
    x = as_array("x", x, device)
    window = (kernel_size, stride, padding, dilation, ceil_mode, count_include_pad, divisor_override)
    call = windows_call(PoolOp.MEAN, x.shape, x.dtype, rank, layout, *window)
    return call(x, out=out, num_threads=num_threads)


def _lp_pool(
    rank: int,
    x: ArrayLike,
    norm_type: float,
    kernel_size: Extents,
    stride: Extents | None = None,
    ceil_mode: bool | str = False,
    padding: Padding = 0,
    dilation: Extents = 1,
    *,
    layout: str = "channels_first",
    out: Array | None = None,
    num_threads: int | None = None,
    device: str | None = None,
) -> Array:
    """{n}-D power-average pooling: ``y[n, c, p] = (sum over r of x[n, c, p * stride + ...] ** norm_type) ** (1 /
    norm_type)``.

    As in PyTorch the elements keep their signs: an odd power of a negative one is negative, and a root of a
    negative sum NaN. The norm of ONNX is that of ``numpy.abs(x)``. Also as there, a window that hangs over the end
    counts as if its elements were as many as those of the others.

    Parameters
    ----------
    norm_type : number
        Above 0 and finite.
    x, kernel_size, stride, ceil_mode, padding, dilation, layout, out, num_threads, device
        As in `max_pool{n}d`; the padding holds zeros.

    Returns
    -------
    array of shape (N, C, ...) or (N, ..., C), unbatched where x is
        Of the type of x; float64 for integers.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, what it was, what is allowed, and the problem.
    """
    x, norm = as_array("x", x, device), norm_of(norm_type)
    result, computed = pooled_dtypes(PoolOp.MEAN, x.dtype)
    window = (kernel_size, stride, padding, dilation, ceil_mode, True)
    call = windows_call(PoolOp.MEAN, x.shape, computed, rank, layout, *window)
    return call.power_mean(x, norm, result, out, num_threads)


def norm_of(norm_type: Any) -> float:
    """The exponent of a norm."""
    if not is_positive(norm_type):
        raise RejectedError("norm_type", norm_type, "must be a finite number above 0")
    return float(norm_type)


def _adaptive_avg_pool(
    rank: int,
    x: ArrayLike,
    output_size: int | Sequence[int | None] | None,
    *,
    layout: str = "channels_first",
    out: Array | None = None,
    num_threads: int | None = None,
    device: str | None = None,
) -> Array:
    """{n}-D adaptive average pooling: window p of P is that of elements floor(p * input / P) to before
    ceil((p + 1) * input / P).

    Parameters
    ----------
    output_size : int or None, or one for each axis
        Extents of the result; None for that of x.
    x, layout, out, num_threads, device
        As in `max_pool{n}d`.

    Returns
    -------
    array of shape (N, C, ...) or (N, ..., C), unbatched where x is
        Of the type of x; float64 for integers.
    """
    x = as_array("x", x, device)
    call = adaptive_call(PoolOp.MEAN, x.shape, x.dtype, rank, layout, output_size)
    return call(x, out=out, num_threads=num_threads)


def _adaptive_max_pool(
    rank: int,
    x: ArrayLike,
    output_size: int | Sequence[int | None] | None,
    return_indices: bool = False,
    *,
    layout: str = "channels_first",
    out: Array | None = None,
    num_threads: int | None = None,
    device: str | None = None,
) -> Any:
    """{n}-D adaptive maximum pooling, with the windows of `adaptive_avg_pool{n}d`.

    Parameters
    ----------
    output_size : int or None, or one for each axis
        Extents of the result; None for that of x.
    x, return_indices, layout, out, num_threads, device
        As in `max_pool{n}d`.

    Returns
    -------
    array of shape (N, C, ...) or (N, ..., C), unbatched where x is
    indices : array of int64 of the same shape, with return_indices=True
    """
    x = as_array("x", x, device)
    return greatest(adaptive_call, x, return_indices, out, num_threads, rank, layout, output_size)


def _global_avg_pool(
    rank: int,
    x: ArrayLike,
    *,
    layout: str = "channels_first",
    out: Array | None = None,
    num_threads: int | None = None,
    device: str | None = None,
) -> Array:
    """The mean of each channel, as an array whose {n} spatial extents are 1.

    Parameters
    ----------
    x, layout, out, num_threads, device
        As in `max_pool{n}d`.
    """
    x = as_array("x", x, device)
    call = adaptive_call(PoolOp.MEAN, x.shape, x.dtype, rank, layout, 1)
    return call(x, out=out, num_threads=num_threads)


def _global_max_pool(
    rank: int,
    x: ArrayLike,
    return_indices: bool = False,
    *,
    layout: str = "channels_first",
    out: Array | None = None,
    num_threads: int | None = None,
    device: str | None = None,
) -> Any:
    """The maximum of each channel, as an array whose {n} spatial extents are 1.

    Parameters
    ----------
    x, return_indices, layout, out, num_threads, device
        As in `max_pool{n}d`.
    """
    x = as_array("x", x, device)
    return greatest(adaptive_call, x, return_indices, out, num_threads, rank, layout, 1)


def _max_unpool(
    rank: int,
    x: ArrayLike,
    indices: ArrayLike,
    kernel_size: Extents,
    stride: Extents | None = None,
    padding: Pads = 0,
    output_size: Sequence[int] | None = None,
    *,
    layout: str = "channels_first",
    out: Array | None = None,
    num_threads: int | None = None,
    device: str | None = None,
) -> Array:
    """The partial inverse of `max_pool{n}d`: each element of x at its index, and zero elsewhere.

    Parameters
    ----------
    x : array of shape (N, C, ...) or (C, ...)
    indices : array of integers of the shape of x
        As `max_pool{n}d` gives them; -1 for an element that goes nowhere. Where two elements have one index, the
        later one stays.
    kernel_size, stride, padding
        As given to `max_pool{n}d`: the result has the extents (input - 1) * stride - pads + kernel_size.
    output_size : integers, optional
        Other extents, which differ from these by less than the stride: of all axes or of the spatial ones.
    layout, out, num_threads, device
        As in `max_pool{n}d`.

    Returns
    -------
    array of shape (N, C, ...) or (N, ..., C), unbatched where x is

    Raises
    ------
    ValueError, TypeError
        Naming the argument, what it was, what is allowed, and the problem.
    """
    x = as_array("x", x, device)
    extents = PoolProblem.unpooled(x.shape, rank, kernel_size, stride, padding, output_size, layout=layout)
    call = index_call(PoolOp.PUT_AT, x.shape, x.dtype, rank, layout, extents)
    return call(x, index_array("indices", indices, x.shape, device), out=out, num_threads=num_threads)


max_pool1d, max_pool2d, max_pool3d = of_ranks(_max_pool, "max_pool{n}d")
avg_pool1d, avg_pool2d, avg_pool3d = of_ranks(_avg_pool, "avg_pool{n}d")
lp_pool1d, lp_pool2d, lp_pool3d = of_ranks(_lp_pool, "lp_pool{n}d")
adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d = of_ranks(_adaptive_avg_pool, "adaptive_avg_pool{n}d")
adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d = of_ranks(_adaptive_max_pool, "adaptive_max_pool{n}d")
global_avg_pool1d, global_avg_pool2d, global_avg_pool3d = of_ranks(_global_avg_pool, "global_avg_pool{n}d")
global_max_pool1d, global_max_pool2d, global_max_pool3d = of_ranks(_global_max_pool, "global_max_pool{n}d")
max_unpool1d, max_unpool2d, max_unpool3d = of_ranks(_max_unpool, "max_unpool{n}d")
