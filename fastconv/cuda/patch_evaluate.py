"""The patch matrix from array to array on a CUDA device, as `fastconv.patches` does it for NumPy arrays."""

from __future__ import annotations

from typing import Any

from ..core.errors import RejectedError, UnsupportedError
from ..core.problem import ConvProblem, Op
from ._arrays import CudaArray, check_out, queue_for, result_array
from .patches import plan, refusal


class Copy:
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
        reason = refusal(problem)
        if reason is not None:
            raise UnsupportedError(f"{reason}  [problem: {problem}]")
        self.problem, self._op, self._pixel_rows = problem, op, pixel_rows

    def gather(self, x: CudaArray, shape: tuple[int, ...], out: Any, num_threads: int | None) -> Any:
        """The matrix, in this shape."""
        matrix = self._result(x, shape, out, num_threads)
        plain = x.plain(self.problem.dtype)
        if matrix.size:
            with queue_for(x) as queue:
                plan(self.problem, self._op, self._pixel_rows)(queue, plain.pointer, matrix.pointer)
        return x.library.finished(matrix.array)

    def scatter(
        self, matrix: CudaArray, shape: tuple[int, ...], normalize: bool, out: Any, num_threads: int | None
    ) -> Any:
        """What the matrix adds up to, in this shape."""
        x = self._result(matrix, shape, out, num_threads)
        plain = matrix.plain(self.problem.dtype)
        if x.size:
            with queue_for(matrix) as queue:
                plan(self.problem, self._op, self._pixel_rows, normalize)(queue, x.pointer, plain.pointer)
        return matrix.library.finished(x.array)

    def _result(self, given: CudaArray, shape: tuple[int, ...], out: Any, num_threads: int | None) -> CudaArray:
        if num_threads is not None:
            raise RejectedError("num_threads", num_threads, "must be None on a CUDA device")
        if out is not None:
            check_out(out, shape, self.problem.dtype, [given])
        return result_array(out, given.library, shape, self.problem.dtype, given.device)
