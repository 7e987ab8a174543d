"""Convolution as a linear map: its sparse matrix, and an operator for SciPy's solvers.

For a fixed weight, ``conv(x, weight).ravel() == A @ x.ravel()``. `conv_matrix` gives A in full, `conv_operator` only
its products with vectors, through the kernels of the library. The transpose of A is the transposed convolution. SciPy
is imported when one of them is called.

Source: Hansen, Nagy, O'Leary, "Deblurring Images: Matrices, Spectra, and Filtering", SIAM 2006, chapter 4 (the
structure of A for each boundary condition).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .core.arrays import Array, as_array
from .core.boundary import OUTSIDE, source_index
from .core.errors import RejectedError, reporting
from .core.evaluate import check_threads
from .core.parameters import Extents, Padding
from .core.problem import COMPUTE_DTYPES, ConvProblem
from .functional import flipped

if TYPE_CHECKING:
    from .linear_operator import ConvOperator

__all__ = ["conv_matrix", "conv_operator"]

Integers = NDArray[np.int64]


@reporting
def conv_matrix(
    weight: ArrayLike,
    input_shape: Sequence[int],
    stride: Extents = 1,
    padding: Padding = 0,
    dilation: Extents = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    *,
    layout: str = "channels_first",
    flip: bool = False,
) -> Any:
    """The sparse matrix A of a convolution: ``A @ x.ravel()`` is ``conv{n}d(x, weight, ...).ravel()``.

    Parameters
    ----------
    weight : array of shape (K, C / groups, ...)
        With one, two or three spatial axes.
    input_shape : shape of x, with or without the batch
        Each image of a batch has a block of the same numbers on the diagonal.
    stride, padding, dilation, groups, padding_mode, layout, flip
        As in `conv2d`; what "constant" adds is not linear in x, so it is refused.

    Returns
    -------
    scipy.sparse.csr_array of shape (elements of the result, elements of x)
        With sorted indices and without duplicates, in the type of the weight (float32 for float16, which SciPy's sparse
        arrays do not have). Zeros of the weight are stored. Its transpose is the transposed convolution, and its
        conjugate transpose the gradient with respect to x.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, what it was, what is allowed, and the problem.

    Examples
    --------
    >>> fastconv.conv_matrix([[[1, 2]]], (1, 4)).toarray()
    array([[1, 2, 0, 0],
           [0, 1, 2, 0],
           [0, 0, 1, 2]])
    """
    weight, problem = _problem(weight, input_shape, stride, padding, dilation, groups, padding_mode, layout, flip)
    from scipy import sparse

    image = _image_matrix(weight.astype(_matrix_dtype(weight), copy=False), problem.replace(N=1))
    return image if problem.N == 1 else sparse.kron(sparse.eye_array(problem.N, dtype=image.dtype), image, format="csr")


@reporting
def conv_operator(
    weight: ArrayLike,
    input_shape: Sequence[int],
    stride: Extents = 1,
    padding: Padding = 0,
    dilation: Extents = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    *,
    layout: str = "channels_first",
    algorithm: str = "auto",
    rtol: float | None = None,
    num_threads: int | None = None,
    flip: bool = False,
) -> ConvOperator:
    """The matrix of `conv_matrix` as an operator, for `scipy.sparse.linalg`: lsqr, cg, svds and others.

    Parameters
    ----------
    weight : array of shape (K, C / groups, ...)
        It is copied, and what `prepare` would work out for it is worked out once for each direction.
    input_shape : shape of x, with or without the batch
    stride, padding, dilation, groups, padding_mode, layout, flip
        As in `conv_matrix`.
    algorithm, rtol, num_threads
        As in `conv2d`; for both directions.

    Returns
    -------
    ConvOperator
        A `scipy.sparse.linalg.LinearOperator`. ``matvec`` is the convolution, ``rmatvec`` its adjoint, the gradient
        with respect to x; ``matmat`` and ``rmatmat`` take the columns of their argument as a batch. Its adjoint
        ``.H``, its transpose ``.T``, and sums and products with other operators are those of SciPy.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, what it was, what is allowed, and the problem.
    UnsupportedError
        If the named algorithm cannot serve, or none is as accurate as `rtol` says (a ValueError).

    Examples
    --------
    >>> difference = fastconv.conv_operator([[[-1.0, 1.0]]], (1, 4))
    >>> difference @ [0, 1, 4, 9]
    array([1., 3., 5.])
    >>> difference.T @ [1.0, 3.0, 5.0]
    array([-1., -2., -2.,  5.])
    """
    weight, problem = _problem(weight, input_shape, stride, padding, dilation, groups, padding_mode, layout, flip)
    from .linear_operator import ConvOperator

    check_threads(num_threads)
    problem = problem.replace(dtype=_matrix_dtype(weight).name)
    return ConvOperator(weight, problem, tuple(input_shape), algorithm, rtol, num_threads)


def _problem(
    weight: ArrayLike,
    input_shape: Sequence[int],
    stride: Extents,
    padding: Padding,
    dilation: Extents,
    groups: int,
    padding_mode: str,
    layout: str,
    flip: bool,
) -> tuple[Array, ConvProblem]:
    """The weight, turned if `flip`, and the convolution that its matrix does."""
    array = as_array("weight", weight)
    if padding_mode == "constant":
        raise RejectedError("padding_mode", padding_mode, 'is not linear in x; "zeros" is')
    try:
        problem = ConvProblem.from_shapes(
            input_shape,
            array.shape,
            stride,
            padding,
            dilation,
            groups,
            padding_mode=padding_mode,
            layout=layout,
            dtype=array.dtype.name,
        )
    except RejectedError as error:
        if error.argument != "x.shape":
            raise
        raise RejectedError("input_shape", input_shape, error.allowed, error.kind) from None
    return flipped(array, flip), problem


def _matrix_dtype(weight: Array) -> np.dtype[Any]:
    """The type of the matrix: that of the weight, wide enough for SciPy."""
    return np.dtype(COMPUTE_DTYPES["float16"]) if weight.dtype.name == "float16" else weight.dtype.newbyteorder("=")


def _image_matrix(weight: Array, problem: ConvProblem) -> Any:
    """The matrix of a single image.

    All its elements at once, as arrays with an axis for k, the pixel i, c and the tap j each, which are then put into
    the order of the layout.
    """
    from scipy import sparse

    K, C, L, taps = problem.K, problem.C // problem.groups, problem.pixels, problem.taps
    elements = problem.input[0] * problem.input[1] * problem.input[2]
    sources = _sources(problem)
    first_channels = np.arange(K) // (K // problem.groups) * C
    channels = (first_channels[:, np.newaxis] + np.arange(C)).reshape(K, 1, C, 1)
    if problem.layout == "channels_first":
        order, columns = (0, 1, 2, 3), channels * elements + sources[:, np.newaxis]
    else:
        order, columns = (1, 0, 3, 2), sources[:, np.newaxis] * problem.C + channels
    shape = (K, L, C, taps)
    is_inside = np.broadcast_to((sources != OUTSIDE)[:, np.newaxis], shape).transpose(order)
    values = np.broadcast_to(weight.reshape(K, 1, C, taps), shape).transpose(order)[is_inside]
    counts = is_inside.reshape(K * L, C * taps).sum(axis=1)
    matrix_shape = (K * L, problem.C * elements)
    integers = np.int32 if max(*matrix_shape, values.size) < 2**31 else np.int64
    row_ends = np.concatenate([[0], np.cumsum(counts)]).astype(integers)
    columns = columns.transpose(order)[is_inside].astype(integers, copy=False)
    matrix = sparse.csr_array((values, columns, row_ends), shape=matrix_shape)
    matrix.sum_duplicates()
    return matrix


def _sources(problem: ConvProblem) -> Integers:
    """(pixels, taps): the element of a channel that each output pixel meets with each tap, or OUTSIDE."""
    sources = np.zeros((1, 1), np.int64)
    for axis, extent in enumerate(problem.input):
        places = source_index(extent, *problem.padding[axis], problem.padding_mode)
        outputs = problem.stride[axis] * np.arange(problem.output[axis])
        seen = places[outputs[:, np.newaxis] + problem.dilation[axis] * np.arange(problem.filter[axis])]
        before, here = sources[:, np.newaxis, :, np.newaxis], seen[np.newaxis, :, np.newaxis, :]
        joined = np.where((before == OUTSIDE) | (here == OUTSIDE), OUTSIDE, before * extent + here)
        sources = joined.reshape(sources.shape[0] * seen.shape[0], -1)
    return sources
