"""One pooling from array to array: a plain input, a run, and the result in the caller's type."""

from __future__ import annotations

from typing import Any

import numpy as np

from .arrays import Array, allocate, as_array, check_out, handed_back, is_plain, plain
from .devices import INDICES, DeviceType, common_device, cuda_arrays, is_on_cuda
from .errors import RejectedError
from .evaluate import check_threads
from .pool_problem import PoolOp, PoolProblem
from .registry import pooling_class, pooling_device
from .threads import allowed_threads

# Bytes of x and y below which one thread is used: the mean of 7x7 windows, which is the fastest pooling of all, of
# 49x1024 channels, 200 KiB, took 6.8 us on one and 7.2 us on two, of 400 KiB 9.4 and 8.5; that of 3x3 of 64x28x28 19
# and 14 us.
SERIAL_BYTES = 1 << 18
# Elements of a plane above which it has no indices: kernels compare them in 32 bits.
LARGEST_PLANE = 2**31 - 1


def pooled_dtypes(op: PoolOp, dtype: Any) -> tuple[Any, Any]:
    """The type of a result, and that in which it is computed.

    The greatest of numbers is one of them, and has their type. An average is a floating number: of integers it is a
    float64, as `numpy.mean` of them. float16 is computed in float32; on a CUDA device, kernels see to that.

    Raises
    ------
    RejectedError
        For complex numbers, which have no order.
    """
    if isinstance(dtype, DeviceType):
        return dtype, dtype
    if dtype.kind == "c":
        raise RejectedError(f"{op.argument}.dtype", str(dtype), "must be a real type: pool the parts", TypeError)
    is_mean = op in (PoolOp.MEAN, PoolOp.MEAN_GRADIENT)
    result = np.dtype("float64") if is_mean and dtype.kind in "iu" else dtype.newbyteorder("=")
    return result, np.dtype("float32") if result == np.float16 else result


def pooling_of(op: PoolOp, problem: PoolProblem, dtype: Any, batched: bool) -> Pooling:
    """The `Pooling` for arrays of this type, where they live."""
    pooling: Pooling = pooling_class(common_device(dtype))(op, problem, dtype, batched)
    return pooling


class Pooling:
    """An operation on windows of known shapes and types, ready to be made any number of times.

    Parameters
    ----------
    op, problem
        What to compute; the problem's type is the computed one.
    dtype
        Of the result, as the caller sees it.
    batched
        Whether x and y come and go with their batch axis.

    Attributes
    ----------
    op, problem, dtype
        As given.
    x_shape, y_shape, shape
        Of x, of y and of the result, as the caller sees them.
    """

    def __init__(self, op: PoolOp, problem: PoolProblem, dtype: np.dtype[Any], batched: bool) -> None:
        if op is PoolOp.MAX_WITH_INDICES and problem.plane > LARGEST_PLANE:
            allowed = f"has more than the {LARGEST_PLANE} elements of a plane that indices count"
            raise RejectedError("x.shape", problem.x_shape, allowed)
        self.op, self.problem, self.dtype = op, problem, dtype
        self.computed_dtype = np.dtype(problem.dtype)
        self.x_shape, self.y_shape = (shape[not batched :] for shape in (problem.x_shape, problem.y_shape))
        self.shape = self.x_shape if op.gives_x else self.y_shape
        self._run = pooling_device().plan(problem, op) if problem.N * problem.C else None
        self._is_small = problem.bytes < SERIAL_BYTES

    def __call__(
        self, given: Array, indices: Array | None = None, *, out: Any = None, num_threads: int | None = None
    ) -> Array:
        """The result from x, or from y where the operation gives x.

        Parameters
        ----------
        given
            In the problem's shape, of any type that promotes to the computed one.
        indices
            In the shape of y, of int64; for `MAX_WITH_INDICES`, where to put them.
        out
            Where to put the result, or None.
        num_threads
            Most threads to use, or None for all of Numba's.

        Raises
        ------
        RejectedError
            For a bad `out` or `num_threads`, or an index outside of its plane.
        """
        if num_threads is not None:
            check_threads(num_threads)
        dtype = self.computed_dtype
        if out is not None:
            check_out(out, self.shape, self.dtype, (given, indices))
        in_place = out is not None and is_plain(out, dtype)
        result: Array = out if in_place else allocate(self.shape, dtype)
        if self._run is not None:
            threads = 1 if self._is_small else allowed_threads(num_threads)
            self._run(plain(given, dtype), indices, result, threads)
        if dtype != self.dtype:
            result = result.astype(self.dtype)
        if out is None or in_place:
            return result
        out[...] = result
        written: Array = out
        return written

    def new_indices(self) -> Array:
        """Memory for the indices of y."""
        return allocate(self.y_shape, "int64")

    def power_mean(self, x: Array, norm: float, dtype: np.dtype[Any], out: Any, num_threads: int | None) -> Array:
        """``(sum of x ** norm) ** (1 / norm)``, of a pooling that averages; the result has this type."""
        if out is not None:
            check_out(out, self.shape, dtype, (x,))
        means = self(self._powers(x, norm, num_threads), num_threads=num_threads)
        means *= self.problem.window
        return handed_back(self._powers(means, 1 / norm, num_threads, means).astype(dtype, copy=False), out)

    def power_mean_gradient(
        self,
        given: Array,
        x: Array,
        norm: float,
        mean: Pooling,
        dtype: np.dtype[Any],
        out: Any,
        num_threads: int | None,
    ) -> Array:
        """The gradient of `power_mean` of the pooling `mean`, of the gradient of that pooling."""
        if out is not None:
            check_out(out, self.shape, dtype, (given, x))
        size = self.problem.window
        sums = mean(self._powers(x, norm, num_threads), num_threads=num_threads) * size
        slopes = self._powers(np.where(sums == 0, 1, sums), 1 / norm - 1, num_threads)
        parts = np.where(sums == 0, 0, given * slopes * size).astype(self.computed_dtype, copy=False)
        grad_x = self(parts, num_threads=num_threads)
        grad_x *= self._powers(x, norm - 1, num_threads)
        return handed_back(grad_x.astype(dtype, copy=False), out)

    def _powers(self, x: Array, exponent: float, num_threads: int | None, out: Array | None = None) -> Array:
        """``x ** exponent`` in the computed type."""
        result = allocate(x.shape, self.computed_dtype) if out is None else out
        pooling_device().power(plain(x, self.computed_dtype), exponent, result, allowed_threads(num_threads))
        return result

    def with_indices(self, x: Array, *, out: Any = None, num_threads: int | None = None) -> tuple[Array, Array]:
        """The result of `MAX_WITH_INDICES`, and the indices."""
        indices = self.new_indices()
        return self(x, indices, out=out, num_threads=num_threads), indices


def index_array(argument: str, value: Any, shape: tuple[int, ...], device: str | None = None) -> Array:
    """Indices as plain int64 of a shape."""
    if is_on_cuda(value):
        on_cuda: Array = cuda_arrays().index_array(argument, value, shape)
        return on_cuda
    if device == "cuda":
        copied: Array = cuda_arrays().copied(argument, index_array(argument, value, shape), INDICES)
        return copied
    indices = as_array(argument, value)
    if indices.dtype.kind not in "iu":
        raise RejectedError(f"{argument}.dtype", str(indices.dtype), "must be an integer type", TypeError)
    if indices.shape != shape:
        raise RejectedError(f"{argument}.shape", indices.shape, f"must be {shape}")
    return plain(indices, np.dtype(np.int64))
