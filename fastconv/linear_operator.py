"""The operator of `fastconv.conv_operator`; apart, because SciPy is imported with it."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator

from .core.algorithm import PLAIN
from .core.arrays import Array, as_array, common_dtype
from .core.errors import RejectedError
from .core.evaluate import Call, call_for
from .core.problem import ConvProblem, Op
from .prepared import WeightForms

__all__ = ["ConvOperator"]


class ConvOperator(LinearOperator):  # type: ignore[misc]
    """A convolution with a fixed weight as a `scipy.sparse.linalg.LinearOperator`; made by `conv_operator`.

    Attributes
    ----------
    weight
        Its own copy, read-only.
    input_shape, output_shape
        Of x and of the result, as the convolution has them: ``(A @ x.ravel()).reshape(A.output_shape)``.
    shape, dtype
        Of the matrix. A product has the type to which this and that of the vector promote.
    """

    def __init__(
        self,
        weight: Array,
        problem: ConvProblem,
        input_shape: tuple[int, ...],
        algorithm: str,
        rtol: float | None,
        num_threads: int | None,
    ) -> None:
        self.weight = np.array(weight, problem.dtype, order="C")
        self.weight.flags.writeable = False
        self.input_shape = tuple(map(int, input_shape))
        self.output_shape = problem.y_shape[len(problem.x_shape) - len(input_shape) :]
        self._problem, self._algorithm, self._rtol, self._num_threads = problem, algorithm, rtol, num_threads
        # GRAD_INPUT is the transpose; the adjoint has the conjugate weight.
        self._forms = {
            Op.FORWARD: WeightForms(self.weight, num_threads),
            Op.GRAD_INPUT: WeightForms(self.weight.conj(), num_threads),
        }
        for op in self._forms:  # an algorithm that cannot serve is refused now
            self._call(op, 1, problem.dtype)
        rows, columns = int(np.prod(problem.y_shape)), int(np.prod(problem.x_shape))
        super().__init__(np.dtype(problem.dtype), (rows, columns))

    def _call(self, op: Op, columns: int, dtype: str) -> Call:
        """The operation on as many batches as there are columns."""
        problem = self._problem.replace(N=columns * self._problem.N, dtype=dtype)
        return call_for(op, problem, self._algorithm, PLAIN, True, self._rtol)

    def _product(self, op: Op, vectors: Array) -> Array:
        """The operation on each column of (elements, columns)."""
        try:
            return self._columns(op, as_array("x", vectors))
        except RejectedError as error:
            raise error.completed(str(self._problem)) from None

    def _columns(self, op: Op, vectors: Array) -> Array:
        call = self._call(op, vectors.shape[1], common_dtype(self.dtype, vectors.dtype))
        given = {Op.FORWARD: call.problem.x_shape, Op.GRAD_INPUT: call.problem.y_shape}[op]
        tensor = vectors.T.reshape(given)
        x, y = (tensor, None) if op is Op.FORWARD else (None, tensor)
        weight, kept = self._forms[op].of(call)
        result = call.run(x, weight, y, call.constants(None), None, None, self._num_threads, kept)
        return result.reshape(vectors.shape[1], self.shape[op is Op.GRAD_INPUT]).T

    def _matmat(self, vectors: Array) -> Array:
        return self._product(Op.FORWARD, vectors)

    def _rmatmat(self, vectors: Array) -> Array:
        return self._product(Op.GRAD_INPUT, vectors)

    def _matvec(self, vector: Array) -> Array:
        return self._product(Op.FORWARD, vector.reshape(-1, 1)).reshape(-1)

    def _rmatvec(self, vector: Array) -> Array:
        return self._product(Op.GRAD_INPUT, vector.reshape(-1, 1)).reshape(-1)

    def __repr__(self) -> str:
        """The shape of the matrix, its type, and the problem line."""
        rows, columns = self.shape
        return f"<{rows}x{columns} ConvOperator of {self._problem}>"

    def __reduce__(self) -> tuple[Any, ...]:
        options = (self._algorithm, self._rtol, self._num_threads)
        return ConvOperator, (self.weight, self._problem, self.input_shape, *options)
