"""Gradients of pooling.

For a loss L and ``y = pool(x)``, the functions take ``grad_output = dL/dy`` and give dL/dx. An average hands each of
its elements the same part of its gradient, a maximum all of it to the element that it took. An element in several
windows gets the sum, which is formed in the order of the windows, whatever the number of threads.

The gradient of `avg_pool{n}d_backward` in grad_output is `avg_pool{n}d`, and that of `max_pool{n}d_backward` is
`max_unpool{n}d_backward`, which takes the elements at the indices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .._ranks import of_ranks
from ..core.arrays import Array, as_array, common_type
from ..core.errors import RejectedError
from ..core.parameters import Extents, Padding, as_size
from ..core.pool_problem import PoolOp
from ..core.pooling import Pooling, index_array, pooled_dtypes
from ..pooling import adaptive_call, index_call, norm_of, windows_call

__all__ = [
    "adaptive_avg_pool1d_backward", "adaptive_avg_pool2d_backward", "adaptive_avg_pool3d_backward",
    "adaptive_max_pool1d_backward", "adaptive_max_pool2d_backward", "adaptive_max_pool3d_backward",
    "avg_pool1d_backward", "avg_pool2d_backward", "avg_pool3d_backward",
    "global_avg_pool1d_backward", "global_avg_pool2d_backward", "global_avg_pool3d_backward",
    "global_max_pool1d_backward", "global_max_pool2d_backward", "global_max_pool3d_backward",
    "lp_pool1d_backward", "lp_pool2d_backward", "lp_pool3d_backward",
    "max_pool1d_backward", "max_pool2d_backward", "max_pool3d_backward",
    "max_unpool1d_backward", "max_unpool2d_backward", "max_unpool3d_backward",
]  # fmt: skip


def _require_shape(grad_output: Array, shape: tuple[int, ...]) -> None:
    if grad_output.shape != shape:
        raise RejectedError("grad_output.shape", grad_output.shape, f"must be {shape}")


def _of_mean(
    make: Callable[..., Pooling], grad_output: Array, input_size: Sequence[int], rank: int, out: Any,
    num_threads: int | None, *parameters: Any,
) -> Array:  # fmt: skip
    """The gradient of the averages that `make` makes of the parameters."""
    shape = as_size("input_size", input_size, (rank + 1, rank + 2))
    call = make(PoolOp.MEAN_GRADIENT, shape, grad_output.dtype, rank, *parameters)
    _require_shape(grad_output, call.y_shape)
    return call(grad_output, out=out, num_threads=num_threads)


def _of_max(
    make: Callable[..., Pooling], grad_output: Array, x: Array, indices: ArrayLike | None, rank: int, layout: str,
    out: Any, num_threads: int | None, *parameters: Any,
) -> Array:  # fmt: skip
    """The gradient of the maxima that `make` makes of the parameters."""
    call = make(PoolOp.MAX_WITH_INDICES, x.shape, x.dtype, rank, layout, *parameters)
    _require_shape(grad_output, call.y_shape)
    if indices is None:
        _, indices = call.with_indices(x, num_threads=num_threads)
    adding = make(PoolOp.MAX_GRADIENT, x.shape, grad_output.dtype, rank, layout, *parameters)
    return adding(grad_output, index_array("indices", indices, call.y_shape), out=out, num_threads=num_threads)


def _max_pool_backward(
    rank: int,
    grad_output: ArrayLike,
    x: ArrayLike,
    kernel_size: Extents,
    stride: Extents | None = None,
    padding: Padding = 0,
    dilation: Extents = 1,
    ceil_mode: bool | str = False,
    *,
    indices: ArrayLike | None = None,
    layout: str = "channels_first",
    out: Array | None = None,
    num_threads: int | None = None,
    device: str | None = None,
) -> Array:
    """Gradient of `max_pool{n}d`: ``grad_x[n, c, i] = sum of grad_output[n, c, p] over all p whose index
    is i``.

    Parameters
    ----------
    grad_output : array of the shape of the pooling's result
    x, kernel_size, stride, padding, dilation, ceil_mode, layout, num_threads, device
        As given to `max_pool{n}d`.
    indices : array of integers of the same shape, optional
        As `max_pool{n}d` gave them; they are found again where they are missing.
    out : array of the shape of x and the type of grad_output, optional

    Returns
    -------
    array of the shape of x and the type of grad_output

    Raises
    ------
    ValueError, TypeError
        Naming the argument, what it was, what is allowed, and the problem.
    """
    given, x = as_array("grad_output", grad_output, device), as_array("x", x, device)
    window = (kernel_size, stride, padding, dilation, ceil_mode)
    return _of_max(windows_call, given, x, indices, rank, layout, out, num_threads, *window)


def _avg_pool_backward(
    rank: int,
    grad_output: ArrayLike,
    input_size: Sequence[int],
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
    """Gradient of `avg_pool{n}d`: ``grad_x[n, c, i] = sum of grad_output[n, c, p] / count[p] over all windows p
    that hold i``.

    Parameters
    ----------
    grad_output : array of the shape of the pooling's result
    input_size : shape of x, with or without the batch
    kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, dilation, layout, num_threads, device
        As given to `avg_pool{n}d`.
    out : array of shape `input_size`, optional

    Returns
    -------
    array of shape `input_size` and of the type of grad_output; float64 for integers

    Raises
    ------
    ValueError, TypeError
        Naming the argument, what it was, what is allowed, and the problem.
    """
    given = as_array("grad_output", grad_output, device)
    window = (kernel_size, stride, padding, dilation, ceil_mode, count_include_pad, divisor_override)
    return _of_mean(windows_call, given, input_size, rank, out, num_threads, layout, *window)


def _lp_pool_backward(
    rank: int,
    grad_output: ArrayLike,
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
    """Gradient of `lp_pool{n}d`: ``grad_x[n, c, i] = x[n, c, i] ** (norm_type - 1) * sum of grad_output[n, c, p] *
    y[n, c, p] ** (1 - norm_type) over all windows p that hold i``.

    As in PyTorch it is zero where the sum of powers is, and the root has none.

    Parameters
    ----------
    grad_output : array of the shape of the pooling's result
    x, norm_type, kernel_size, stride, ceil_mode, padding, dilation, layout, num_threads, device
        As given to `lp_pool{n}d`.
    out : array of the shape of x and the type of the result, optional

    Returns
    -------
    array of the shape of x and the type to which x and grad_output promote; float64 for integers

    Raises
    ------
    ValueError, TypeError
        Naming the argument, what it was, what is allowed, and the problem.
    """
    given, x, norm = as_array("grad_output", grad_output, device), as_array("x", x, device), norm_of(norm_type)
    result, computed = pooled_dtypes(PoolOp.MEAN, common_type(given.dtype, x.dtype))
    window = (kernel_size, stride, padding, dilation, ceil_mode, True)
    mean = windows_call(PoolOp.MEAN, x.shape, computed, rank, layout, *window)
    backward = windows_call(PoolOp.MEAN_GRADIENT, x.shape, computed, rank, layout, *window)
    _require_shape(given, mean.shape)
    return backward.power_mean_gradient(given, x, norm, mean, result, out, num_threads)


def _adaptive_avg_pool_backward(
    rank: int,
    grad_output: ArrayLike,
    input_size: Sequence[int],
    *,
    layout: str = "channels_first",
    out: Array | None = None,
    num_threads: int | None = None,
    device: str | None = None,
) -> Array:
    """Gradient of `adaptive_avg_pool{n}d`, whose result has the extents of grad_output.

    Parameters
    ----------
    grad_output : array of the shape of the pooling's result
    input_size : shape of x, with or without the batch
    layout, out, num_threads, device
        As in `avg_pool{n}d_backward`.

    Returns
    -------
    array of shape `input_size`
    """
    given = as_array("grad_output", grad_output, device)
    extents = extents_of(given, rank, layout)
    return _of_mean(adaptive_call, given, input_size, rank, out, num_threads, layout, extents)


def _adaptive_max_pool_backward(
    rank: int,
    grad_output: ArrayLike,
    x: ArrayLike,
    *,
    indices: ArrayLike | None = None,
    layout: str = "channels_first",
    out: Array | None = None,
    num_threads: int | None = None,
    device: str | None = None,
) -> Array:
    """Gradient of `adaptive_max_pool{n}d`, whose result has the extents of grad_output.

    Parameters
    ----------
    grad_output : array of the shape of the pooling's result
    x : the argument of the pooling
    indices, layout, out, num_threads, device
        As in `max_pool{n}d_backward`.

    Returns
    -------
    array of the shape of x and the type of grad_output
    """
    given, x = as_array("grad_output", grad_output, device), as_array("x", x, device)
    extents = extents_of(given, rank, layout)
    return _of_max(adaptive_call, given, x, indices, rank, layout, out, num_threads, extents)


def extents_of(grad_output: Array, rank: int, layout: str) -> tuple[int, ...]:
    """The spatial extents of an array."""
    if grad_output.ndim not in (rank + 1, rank + 2):
        allowed = f"must have {rank + 2} axes, or {rank + 1} without the batch"
        raise RejectedError("grad_output.shape", grad_output.shape, allowed)
    return grad_output.shape[-rank - 1 : -1] if layout == "channels_last" else grad_output.shape[-rank:]


def _global_avg_pool_backward(
    rank: int,
    grad_output: ArrayLike,
    input_size: Sequence[int],
    *,
    layout: str = "channels_first",
    out: Array | None = None,
    num_threads: int | None = None,
    device: str | None = None,
) -> Array:
    """Gradient of `global_avg_pool{n}d`.

    Parameters
    ----------
    grad_output : array of the shape of the pooling's result
    input_size, layout, out, num_threads, device
        As in `avg_pool{n}d_backward`.

    Returns
    -------
    array of shape `input_size`
    """
    given = as_array("grad_output", grad_output, device)
    return _of_mean(adaptive_call, given, input_size, rank, out, num_threads, layout, 1)


def _global_max_pool_backward(
    rank: int,
    grad_output: ArrayLike,
    x: ArrayLike,
    *,
    indices: ArrayLike | None = None,
    layout: str = "channels_first",
    out: Array | None = None,
    num_threads: int | None = None,
    device: str | None = None,
) -> Array:
    """Gradient of `global_max_pool{n}d`.

    Parameters
    ----------
    grad_output : array of the shape of the pooling's result
    x : the argument of the pooling
    indices, layout, out, num_threads, device
        As in `max_pool{n}d_backward`.

    Returns
    -------
    array of the shape of x and the type of grad_output
    """
    given, x = as_array("grad_output", grad_output, device), as_array("x", x, device)
    return _of_max(adaptive_call, given, x, indices, rank, layout, out, num_threads, 1)


def _max_unpool_backward(
    rank: int,
    grad_output: ArrayLike,
    indices: ArrayLike,
    *,
    layout: str = "channels_first",
    out: Array | None = None,
    num_threads: int | None = None,
    device: str | None = None,
) -> Array:
    """Gradient of `max_unpool{n}d`: ``grad_x[n, c, p] = grad_output[n, c, indices[n, c, p]]``, and 0 for
    the index -1.

    Where several elements have one index, each gets the gradient, as in PyTorch.

    Parameters
    ----------
    grad_output : array of the shape of the unpooling's result
    indices : the argument of `max_unpool{n}d`
    layout, num_threads, device
        As given to `max_unpool{n}d`.
    out : array of the shape of the indices and the type of grad_output, optional

    Returns
    -------
    array of the shape of the indices and the type of grad_output
    """
    given, shape = as_array("grad_output", grad_output, device), tuple(np.shape(indices))
    extents = extents_of(given, rank, layout)
    if len(shape) != given.ndim:
        raise RejectedError("indices.shape", shape, f"must have as many axes as grad_output, {given.ndim}")
    call = index_call(PoolOp.TAKE_AT, shape, given.dtype, rank, layout, extents)
    _require_shape(given, call.x_shape)
    return call(given, index_array("indices", indices, call.y_shape, device), out=out, num_threads=num_threads)


max_pool1d_backward, max_pool2d_backward, max_pool3d_backward = of_ranks(_max_pool_backward, "max_pool{n}d_backward")
avg_pool1d_backward, avg_pool2d_backward, avg_pool3d_backward = of_ranks(_avg_pool_backward, "avg_pool{n}d_backward")
lp_pool1d_backward, lp_pool2d_backward, lp_pool3d_backward = of_ranks(_lp_pool_backward, "lp_pool{n}d_backward")
adaptive_avg_pool1d_backward, adaptive_avg_pool2d_backward, adaptive_avg_pool3d_backward = of_ranks(
    _adaptive_avg_pool_backward, "adaptive_avg_pool{n}d_backward"
)
adaptive_max_pool1d_backward, adaptive_max_pool2d_backward, adaptive_max_pool3d_backward = of_ranks(
    _adaptive_max_pool_backward, "adaptive_max_pool{n}d_backward"
)
global_avg_pool1d_backward, global_avg_pool2d_backward, global_avg_pool3d_backward = of_ranks(
    _global_avg_pool_backward, "global_avg_pool{n}d_backward"
)
global_max_pool1d_backward, global_max_pool2d_backward, global_max_pool3d_backward = of_ranks(
    _global_max_pool_backward, "global_max_pool{n}d_backward"
)
max_unpool1d_backward, max_unpool2d_backward, max_unpool3d_backward = of_ranks(
    _max_unpool_backward, "max_unpool{n}d_backward"
)
