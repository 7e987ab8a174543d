"""One pooling from array to array: a plain input, a run, and the result in the caller's type."""

from __future__ import annotations

from typing import Any

import numpy as np

from .arrays import Array, allocate, as_array, check_out, is_plain, plain
from .errors import RejectedError
from .evaluate import check_threads
from .pool_problem import PoolOp, PoolProblem
from .registry import pooling_device
from .threads import allowed_threads

# Bytes of x and y below which one thread is used: the mean of 3x3 and of 2x2 windows of 64x40x40, 500 KiB, took 36 and
# 24 us on one and 45 and 31 us on two; of 64x56x56, 970 KiB, 59 and 28 us and 49 and 29 us.
SERIAL_BYTES = 1 << 19
# Elements of a plane above which it has no indices: kernels compare them in 32 bits.
LARGEST_PLANE = 2**31 - 1


def pooled_dtypes(argument: str, dtype: np.dtype[Any], averages: bool) -> tuple[np.dtype[Any], np.dtype[Any]]:
    """The type of a result, and that in which it is computed.

    The greatest of numbers is one of them, and has their type. An average is a floating number: of integers it is a
    float64, as `numpy.mean` of them. float16 is computed in float32.

    Raises
    ------
    RejectedError
        For complex numbers, which have no order.
    """
    if dtype.kind == "c":
        raise RejectedError(f"{argument}.dtype", str(dtype), "must be a real type: pool the parts", TypeError)
    result = np.dtype("float64") if averages and dtype.kind in "iu" else dtype.newbyteorder("=")
    return result, np.dtype("float32") if result == np.float16 else result


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

    def with_indices(self, x: Array, *, out: Any = None, num_threads: int | None = None) -> tuple[Array, Array]:
        """The result of `MAX_WITH_INDICES`, and the indices."""
        indices = self.new_indices()
        return self(x, indices, out=out, num_threads=num_threads), indices


def index_array(argument: str, value: Any, shape: tuple[int, ...]) -> Array:
    """Indices as plain int64 of a shape."""
    indices = as_array(argument, value)
    if indices.dtype.kind not in "iu":
        raise RejectedError(f"{argument}.dtype", str(indices.dtype), "must be an integer type", TypeError)
    if indices.shape != shape:
        raise RejectedError(f"{argument}.shape", indices.shape, f"must be {shape}")
    return plain(indices, np.dtype(np.int64))
