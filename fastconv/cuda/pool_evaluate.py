"""One pooling from array to array on a CUDA device, as `fastconv.core.pooling` does it for NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.devices import DeviceType
from ..core.errors import RejectedError, UnsupportedError
from ..core.pool_problem import PoolOp, PoolProblem
from ._arrays import CudaArray, check_out, queue_for, result_array
from ._pool_indices import OUTSIDE
from ._pool_power import power_of
from ._queue import Queue
from .pooling import BY_INDICES, plan, refusal


class Pooling:
    """`fastconv.core.pooling.Pooling` for arrays on a CUDA device; parameters, attributes and errors are those."""

    def __init__(self, op: PoolOp, problem: PoolProblem, dtype: DeviceType, batched: bool) -> None:
        reason = refusal(problem)
        if reason is not None:
            raise UnsupportedError(f"{reason}  [problem: {problem}]")
        self.op, self.problem, self.dtype = op, problem, dtype
        self.x_shape, self.y_shape = (shape[not batched :] for shape in (problem.x_shape, problem.y_shape))
        self.shape = self.x_shape if op.gives_x else self.y_shape
        self._run = plan(problem, op) if problem.N * problem.C else None

    def __call__(
        self, given: CudaArray, indices: CudaArray | None = None, *, out: Any = None, num_threads: int | None = None
    ) -> Any:
        """The result from x, or from y where the operation gives x, as the caller's library holds it.

        Where indices come from the caller, this waits for the device: one may lie outside of its plane.
        """
        return given.library.finished(self.result(given, indices, out=out, num_threads=num_threads).array)

    def result(
        self, given: CudaArray, indices: CudaArray | None = None, *, out: Any = None, num_threads: int | None = None
    ) -> CudaArray:
        """The same, still on the device."""
        if num_threads is not None:
            raise RejectedError("num_threads", num_threads, "must be None on a CUDA device")
        name = self.problem.dtype
        if out is not None:
            check_out(out, self.shape, name, [each for each in (given, indices) if each is not None])
        result = result_array(out, given.library, self.shape, name, given.device)
        if result.size and self._run is not None:
            plain = given.plain(name)
            with queue_for(given) as queue:
                self._compute(queue, plain.pointer, None if indices is None else indices.pointer, result.pointer)
        return result

    def _compute(self, queue: Queue, given: Any, indices: Any, result: Any) -> None:
        alarm = queue.upload(np.zeros(1, np.int32)) if self.op in BY_INDICES else None
        self._run(queue, given, indices, result, None if alarm is None else queue.address(alarm))  # type: ignore[misc]
        if alarm is not None and queue.download(alarm, np.dtype(np.int32), 1)[0] == OUTSIDE:
            raise RejectedError("indices", "outside", f"must be -1 or of the {self.problem.plane} elements of a plane")

    def power_mean(self, x: CudaArray, norm: float, dtype: DeviceType, out: Any, num_threads: int | None) -> Any:
        """``(sum of x ** norm) ** (1 / norm)``, of a pooling that averages."""
        if out is not None:
            check_out(out, self.shape, dtype.name, [x])
        means = self.result(self._raised(x, norm), num_threads=num_threads)
        roots = self._raised(means, 1 / norm, scale=self.problem.window, out=out)
        return x.library.finished(roots.array)

    def power_mean_gradient(
        self,
        given: CudaArray,
        x: CudaArray,
        norm: float,
        mean: Pooling,
        dtype: DeviceType,
        out: Any,
        num_threads: int | None,
    ) -> Any:
        """The gradient of `power_mean` of the pooling `mean`, of the gradient of that pooling."""
        if out is not None:
            check_out(out, self.shape, dtype.name, [given, x])
        size = self.problem.window
        means = mean.result(self._raised(x, norm), num_threads=num_threads)
        parts = self._raised(means, 1 / norm - 1, scale=size, gain=size, factor=given)
        spread = self.result(parts, num_threads=num_threads)
        grad_x = self._raised(x, norm - 1, factor=spread, out=out)
        return x.library.finished(grad_x.array)

    def _raised(
        self,
        x: CudaArray,
        exponent: float,
        *,
        scale: float = 1,
        gain: float = 1,
        factor: CudaArray | None = None,
        out: Any = None,
    ) -> CudaArray:
        """``gain * (scale * x) ** exponent * factor``, and 0 where x is 0 if there is a factor."""
        name = self.problem.dtype
        plain, times = x.plain(name), None if factor is None else factor.plain(name)
        result = result_array(out, x.library, x.shape, name, x.device)
        if result.size:
            with queue_for(x) as queue:
                launch = power_of(result.size, name, exponent, scale, gain, times is not None)
                launch(queue, plain.pointer, plain.pointer if times is None else times.pointer, result.pointer)
        return result

    def with_indices(self, x: CudaArray, *, out: Any = None, num_threads: int | None = None) -> tuple[Any, Any]:
        """The result of `MAX_WITH_INDICES`, and the indices."""
        indices = result_array(None, x.library, self.y_shape, "int64", x.device)
        values = self(x, indices, out=out, num_threads=num_threads)
        return values, x.library.finished(indices.array)
