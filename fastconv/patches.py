"""Patches: what every place of a filter sees of x, as a matrix, as a view, and added back.

With j = (c, t, r, s) for a tap of a channel and i = (z, p, q) for a place of the filter, an output pixel::

    patch[j, i] = x_padded[c, i * stride + (t, r, s) * dilation]

`unfold` gives patch, `im2col` its transpose, and `windows` the same elements without copying them; `fold` and `col2im`
are their adjoints, which add every element of patch to where it came from. So ``conv(x, weight)`` is
``weight.reshape(K, -1) @ unfold(x)``, ``<unfold(x), u> == <x, fold(u)>``, and the gradient of each is the other, with
the same parameters.

Source: Chellapilla, Puri, Simard, "High Performance Convolutional Neural Networks for Document Processing",
IWFHR 2006, section 3 (unrolling convolution into a matrix product).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import ArrayLike

from .core.arrays import Array, allocate, as_array, check_out, common_dtype, handed_back, is_plain, plain
from .core.boundary import OUTSIDE, linear_mode, source_index
from .core.devices import common_device
from .core.errors import RejectedError, reporting
from .core.evaluate import SERIAL_SECONDS, check_threads
from .core.machine import local_machine
from .core.parameters import Extents, Padding, as_size
from .core.patch_problem import folded_problem, patch_problem
from .core.problem import ConvProblem, Op
from .core.recent import remembered
from .core.registry import patch_class, patch_plan
from .core.threads import allowed_threads

__all__ = ["col2im", "fold", "im2col", "unfold", "windows"]

# A copy moves bits, whatever they stand for: types of one size share a compiled kernel.
_WORDS = {1: "int8", 2: "int16", 4: "int32", 8: "int64", 16: "complex128"}


@reporting
def im2col(
    x: ArrayLike,
    kernel_size: Extents,
    stride: Extents = 1,
    padding: Padding = 0,
    dilation: Extents = 1,
    *,
    padding_mode: str = "zeros",
    pad_value: complex = 0,
    layout: str = "channels_first",
    out: Array | None = None,
    num_threads: int | None = None,
    device: str | None = None,
) -> Array:
    """The patch matrices of all images, with a row for each output pixel: ``im2col(x)[n * L + i, j] = patch[j, i]``.

    Parameters
    ----------
    x : array of shape (N, C, ...) or (C, ...)
        With layout="channels_last", (N, ..., C) or (..., C).
    kernel_size : int or one for each axis
        Extents of the filter. Their number is the number of spatial axes; a single integer stands for all axes of x,
        two where x has 3 or 4.
    stride, padding, dilation, padding_mode, pad_value, layout
        As in `conv2d`, whose result has the same pixels.
    out : array of the result's shape and type, optional
        Must not overlap x.
    num_threads, device
        As in `conv2d`.

    Returns
    -------
    array of shape (N * L, C * taps)
        In the type of x, whatever the layout: L = Z * P * Q pixels in their order, and in a row first the channel, then
        the taps, as in ``weight.reshape(K, -1)``.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, what it was, what is allowed, and the problem.

    Examples
    --------
    >>> fastconv.im2col(np.zeros((3, 5, 7)), 3, padding=1).shape
    (35, 27)
    >>> fastconv.im2col([[1, 2, 3, 4]], (2,))
    array([[1, 2],
           [2, 3],
           [3, 4]])
    """
    x = as_array("x", x, device)
    window = (kernel_size, stride, padding, dilation, padding_mode, pad_value, layout)
    copy = _copy_of(Op.FORWARD, True, x.dtype, x.shape, *window)
    return copy.gather(x, (copy.problem.N * copy.problem.pixels, copy.problem.K), out, num_threads)


@reporting
def col2im(
    columns: ArrayLike,
    x_shape: Sequence[int],
    kernel_size: Extents,
    stride: Extents = 1,
    padding: Padding = 0,
    dilation: Extents = 1,
    *,
    padding_mode: str = "zeros",
    layout: str = "channels_first",
    normalize: bool = False,
    out: Array | None = None,
    num_threads: int | None = None,
    device: str | None = None,
) -> Array:
    """The adjoint of `im2col`: every element is added to the element of x that it would have come from.

    Parameters
    ----------
    columns : array of shape (N * L, C * taps)
        A matrix as `im2col` gives it.
    x_shape : shape of x, with or without the batch
    kernel_size, stride, padding, dilation, layout
        As given to `im2col`.
    padding_mode
        Likewise: what fell on the padding is added to the elements that are repeated there, and dropped for "zeros" and
        "constant".
    normalize : bool
        Divide by the number of patches that cover an element: ``col2im(im2col(x), normalize=True)`` is x, wherever a
        patch covers it, and 0 elsewhere. Not for integers.
    out : array of shape `x_shape` and the type of `columns`, optional
    num_threads, device
        As in `conv2d`.

    Returns
    -------
    array of shape `x_shape`
        Integers are exact modulo 2**bits, float16 is summed in float32.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, what it was, what is allowed, and the problem.
    """
    matrix, shape = as_array("columns", columns, device), as_size("x_shape", x_shape, (2, 3, 4, 5))
    window = (kernel_size, stride, padding, dilation, linear_mode(padding_mode), 0, layout)
    copy = _copy_of(Op.GRAD_INPUT, True, matrix.dtype, shape, *window)
    expected = (copy.problem.N * copy.problem.pixels, copy.problem.K)
    if matrix.shape != expected:
        raise RejectedError("columns.shape", matrix.shape, f"must be {expected}")
    return copy.scatter(matrix, shape, normalize, out, num_threads)


@reporting
def unfold(
    x: ArrayLike,
    kernel_size: Extents,
    dilation: Extents = 1,
    padding: Padding = 0,
    stride: Extents = 1,
    *,
    padding_mode: str = "zeros",
    pad_value: complex = 0,
    layout: str = "channels_first",
    out: Array | None = None,
    num_threads: int | None = None,
    device: str | None = None,
) -> Array:
    """The patch matrix of each image, as `torch.nn.functional.unfold` gives it: ``unfold(x)[n] = patch``.

    Parameters
    ----------
    x, kernel_size, dilation, padding, stride, padding_mode, pad_value, layout, out, num_threads
        As in `im2col`, in PyTorch's order.

    Returns
    -------
    array of shape (N, C * taps, L), without the batch where x is
        With layout="channels_last", (N, L, C * taps): what goes through the channels is the last axis here too. Within
        it, in either layout, first the channel, then the taps.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, what it was, what is allowed, and the problem.
    """
    x = as_array("x", x, device)
    is_last = layout == "channels_last"
    window = (kernel_size, stride, padding, dilation, padding_mode, pad_value, layout)
    copy = _copy_of(Op.FORWARD, is_last, x.dtype, x.shape, *window)
    problem = copy.problem
    shape = (problem.N, problem.pixels, problem.K) if is_last else (problem.N, problem.K, problem.pixels)
    return copy.gather(x, shape[problem.rank + 2 - x.ndim :], out, num_threads)


@reporting
def fold(
    x: ArrayLike,
    output_size: Extents,
    kernel_size: Extents,
    dilation: Extents = 1,
    padding: Padding = 0,
    stride: Extents = 1,
    *,
    padding_mode: str = "zeros",
    layout: str = "channels_first",
    normalize: bool = False,
    out: Array | None = None,
    num_threads: int | None = None,
    device: str | None = None,
) -> Array:
    """The adjoint of `unfold`, as `torch.nn.functional.fold` gives it, and ONNX Col2Im.

    Parameters
    ----------
    x : array of shape (N, C * taps, L) or (C * taps, L)
        A matrix as `unfold` gives it; with layout="channels_last", (N, L, C * taps) or (L, C * taps).
    output_size : int or one for each axis
        Spatial extents of the result. Their number, or that of `kernel_size`, is the number of spatial axes; two where
        both are single integers.
    kernel_size, dilation, padding, stride, layout
        As given to `unfold`.
    padding_mode, normalize, num_threads, device
        As in `col2im`.
    out : array of the result's shape and type, optional

    Returns
    -------
    array of shape (N, C, ...) or (N, ..., C), without the batch where x is

    Raises
    ------
    ValueError, TypeError
        Naming the argument, what it was, what is allowed, and the problem.

    Examples
    --------
    >>> fastconv.fold([[1.0, 2, 3], [10, 20, 30]], (4,), (2,))
    array([[ 1., 12., 23., 30.]])
    >>> fastconv.fold([[1.0, 2, 3], [2, 3, 4]], (4,), (2,), normalize=True)
    array([[1., 2., 3., 4.]])
    """
    x = as_array("x", x, device)
    window = (kernel_size, stride, padding, dilation, padding_mode, layout)
    copy = _folding_of(x.dtype, x.shape, output_size, *window)
    problem = copy.problem
    return copy.scatter(x, problem.x_shape[3 - x.ndim :], normalize, out, num_threads)


@reporting
def windows(
    x: ArrayLike,
    kernel_size: Extents,
    stride: Extents = 1,
    padding: Padding = 0,
    dilation: Extents = 1,
    *,
    padding_mode: str = "zeros",
    pad_value: complex = 0,
    layout: str = "channels_first",
    device: str | None = None,
) -> Array:
    """The patches as a view: the elements of `unfold`, none of them copied, with an axis for each spatial one.

    Parameters
    ----------
    x, kernel_size, stride, padding, dilation, padding_mode, pad_value, layout
        As in `im2col`. Without padding the result is a view of x itself, whatever its strides; with padding, of a
        padded copy of x, which is smaller than the patches by a factor of about the number of taps.

    Returns
    -------
    read-only array of shape (N, C, T, R, S, Z, P, Q), without the batch where x is
        ``windows(x)[n, c, r, s, p, q] = x_padded[n, c, p * stride + r * dilation, q * stride + s * dilation]``, so that
        ``windows(x).reshape(N, C * R * S, P * Q)`` is `unfold`, and a copy. With layout="channels_last",
        (N, Z, P, Q, C, T, R, S). On a CUDA device, a copy.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, what it was, what is allowed, and the problem.
    """
    x = as_array("x", x, device)
    problem = patch_problem(
        x.shape,
        kernel_size,
        stride,
        padding,
        dilation,
        padding_mode=padding_mode,
        pad_value=pad_value,
        layout=layout,
        dtype=common_dtype(x.dtype),
    )
    is_last, batch = layout == "channels_last", x.ndim - problem.rank - 1
    if not isinstance(x, np.ndarray):
        lead = 3 - problem.rank
        taps, places = (problem.C, *problem.filter[lead:]), problem.output[lead:]
        shape = (*x.shape[:batch], *((*places, *taps) if is_last else (*taps, *places)))
        return _copies(Op.FORWARD, problem, is_last, x.dtype).gather(x, shape, None, None)
    spatial = slice(batch, batch + problem.rank) if is_last else slice(batch + 1, x.ndim)
    padded = _padded(x, problem, range(x.ndim)[spatial])
    lead, steps = 3 - problem.rank, np.array(padded.strides[spatial])
    channel = x.ndim - 1 if is_last else batch
    taps = (problem.C, *problem.filter[lead:]), (padded.strides[channel], *steps * problem.dilation[lead:])
    places = problem.output[lead:], tuple(steps * problem.stride[lead:])
    (first, first_strides), (second, second_strides) = (places, taps) if is_last else (taps, places)
    strides = (*padded.strides[:batch], *first_strides, *second_strides)
    return as_strided(padded, (*x.shape[:batch], *first, *second), strides, writeable=False)


def _padded(x: Array, problem: ConvProblem, axes: Sequence[int]) -> Array:
    """X with its padding; itself where there is none."""
    lead = 3 - problem.rank
    for axis, extent, (low, high) in zip(axes, problem.input[lead:], problem.padding[lead:], strict=True):
        if low or high:
            source = source_index(extent, low, high, problem.padding_mode)
            x = x.take(source, axis)
            x[(slice(None),) * axis + (source == OUTSIDE,)] = problem.pad_value
    return x


# ---- copies


class _Copy:
    """A patch matrix of known shapes and types, ready to be copied out of x, or added up, any number of times.

    Parameters
    ----------
    op
        FORWARD gathers, GRAD_INPUT adds up.
    problem
        The convolution whose y is the matrix.
    pixel_rows
        Whether the rows of the matrix are pixels.
    """

    def __init__(self, op: Op, problem: ConvProblem, pixel_rows: bool) -> None:
        self.problem, self.dtype = problem, np.dtype(problem.dtype)
        self._moved = np.dtype(_WORDS[self.dtype.itemsize] if op is Op.FORWARD else problem.computed.dtype)
        self._outside = np.full(1, problem.pad_value, self.dtype if op is Op.FORWARD else self._moved).view(self._moved)
        moved = problem.replace(dtype=self._moved.name, pad_value=0)
        self._run = patch_plan(moved, op, pixel_rows) if problem.N else None
        matrix_bytes = problem.N * problem.K * problem.pixels * self._moved.itemsize
        self._is_short = matrix_bytes / local_machine().bandwidth < SERIAL_SECONDS

    def gather(self, x: Array, shape: tuple[int, ...], out: Array | None, num_threads: int | None) -> Array:
        """The matrix, in this shape."""
        check_threads(num_threads)
        if out is not None:
            check_out(out, shape, self.dtype, (x,))
        matrix = out if out is not None and is_plain(out, self.dtype) else allocate(shape, self.dtype)
        if self._run is not None:
            x = plain(x, self.dtype)
            self._run(x.view(self._moved), matrix.view(self._moved), self._outside, self._threads(num_threads))
        return handed_back(matrix, out)

    def scatter(
        self, matrix: Array, shape: tuple[int, ...], normalize: bool, out: Array | None, num_threads: int | None
    ) -> Array:
        """What the matrix adds up to, in this shape."""
        check_threads(num_threads)
        if normalize and self.problem.is_exact:
            raise RejectedError(
                "normalize", normalize, f"must be False for {self.dtype}: means are no integers", TypeError
            )
        if out is not None:
            check_out(out, shape, self.dtype, (matrix,))
        x = out if out is not None and is_plain(out, self._moved) else allocate(shape, self._moved)
        if self._run is not None:
            self._run(x, plain(matrix, self._moved), self._outside, self._threads(num_threads))
        if normalize:
            x /= self._coverage
        return handed_back(x.astype(self.dtype, copy=False), out)

    def _threads(self, num_threads: int | None) -> int:
        return 1 if self._is_short else allowed_threads(num_threads)

    @cached_property
    def _coverage(self) -> Array:
        """How many patches cover each element of a channel, and 1 where none does, as sums of nothing are 0."""
        problem = self.problem
        whole = np.ones((), self._moved)
        for axis in range(3 - problem.rank, 3):
            reads = problem.stride[axis] * np.arange(problem.output[axis])[:, np.newaxis]
            reads = reads + problem.dilation[axis] * np.arange(problem.filter[axis])
            places = source_index(problem.input[axis], *problem.padding[axis], problem.padding_mode)[reads]
            counts = np.bincount(places[places != OUTSIDE], minlength=problem.input[axis])
            whole = np.multiply.outer(whole, counts.astype(self._moved))
        return np.maximum(whole if problem.layout == "channels_first" else whole[..., np.newaxis], 1)


def _copies(op: Op, problem: ConvProblem, pixel_rows: bool, dtype: Any) -> _Copy:
    """The copy of a problem where arrays of this type live."""
    place = common_device(dtype)
    if place == "cpu":
        return _Copy(op, problem, pixel_rows)
    copy: _Copy = patch_class(place)(op, problem, pixel_rows)
    return copy


@remembered("x_shape")
def _copy_of(
    op: Op,
    pixel_rows: bool,
    dtype: Any,
    x_shape: tuple[int, ...],
    kernel_size: Extents,
    stride: Extents,
    padding: Padding,
    dilation: Extents,
    padding_mode: str,
    pad_value: complex,
    layout: str,
) -> _Copy:
    """The copy between x of this shape and its patch matrix."""
    problem = patch_problem(
        x_shape,
        kernel_size,
        stride,
        padding,
        dilation,
        padding_mode=padding_mode,
        pad_value=pad_value,
        layout=layout,
        dtype=common_dtype(dtype),
    )
    return _copies(op, problem, pixel_rows, dtype)


@remembered("shape")
def _folding_of(
    dtype: Any,
    shape: tuple[int, ...],
    output_size: Extents,
    kernel_size: Extents,
    stride: Extents,
    padding: Padding,
    dilation: Extents,
    padding_mode: str,
    layout: str,
) -> _Copy:
    """What adds up matrices of this shape."""
    problem = folded_problem(
        shape,
        output_size,
        kernel_size,
        stride,
        padding,
        dilation,
        padding_mode=padding_mode,
        layout=layout,
        dtype=common_dtype(dtype),
    )
    return _copies(Op.GRAD_INPUT, problem, layout == "channels_last", dtype)
