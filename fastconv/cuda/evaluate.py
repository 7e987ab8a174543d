"""One operation from arrays to array on a CUDA device: addresses, a plan, its kernels in the caller's stream.

Nothing here waits for the device: results are ready when the stream has come to them, as those of the caller's library.
"""

from __future__ import annotations

from typing import Any

from ..core.algorithm import PLAIN, Epilogue, Plan
from ..core.errors import RejectedError
from ..core.evaluate import check_activation, check_algorithm, check_rtol
from ..core.problem import ConvProblem, Op
from ..core.selector import plan_for, require_support
from ._arrays import CudaArray, check_out, queue_for, result_array

Bias = CudaArray | None


class Call:
    """`fastconv.core.evaluate.Call` for arrays on a CUDA device; parameters, attributes and errors are those."""

    def __init__(
        self,
        op: Op,
        problem: ConvProblem,
        algorithm: str = "auto",
        epilogue: Epilogue = PLAIN,
        batched: bool = True,
        rtol: float | None = None,
    ) -> None:
        check_algorithm(algorithm, "cuda")
        check_rtol(rtol)
        require_support(algorithm, problem, op, "cuda")
        check_activation(epilogue.activation, problem.dtype)
        self.op, self.problem, self.algorithm = op, problem, algorithm
        self.dtype = self.computed_dtype = "float32" if problem.dtype == "tf32" else problem.dtype
        result_shape = problem.result_shape(op)
        self.shape = result_shape if batched or op is Op.GRAD_WEIGHT else result_shape[1:]
        # The plain kernels know sums of nothing too: zeros, finished like any other.
        taken = algorithm if problem.multiplications else "direct"
        self.plan: Plan = plan_for(problem, op, taken, epilogue, rtol, "cuda")

    def __call__(
        self,
        x: CudaArray | None,
        w: CudaArray | None,
        y: CudaArray | None,
        *,
        bias: Bias = None,
        add: CudaArray | None = None,
        out: Any = None,
        num_threads: int | None = None,
    ) -> Any:
        """The tensor that is None from the other two, as the caller's library holds it.

        Raises
        ------
        RejectedError
            For a bad `out`, and for `num_threads`.
        """
        if out is not None:
            self.check_out(out, (x, w, y, bias, add))
        return self.run(x, w, y, bias, add, out, num_threads)

    def check_out(self, out: Any, inputs: tuple[CudaArray | None, ...]) -> None:
        """Refuse an ``out=`` that cannot take the result."""
        check_out(out, self.shape, self.dtype, [each for each in inputs if each is not None])

    def plain(self, w: CudaArray) -> CudaArray:
        """A weight as the plan takes it."""
        return w.plain(self.dtype)

    def constants(self, bias: Bias) -> Bias:
        """What `run` takes for the bias."""
        return None if bias is None else bias.plain(self.dtype)

    def kept_weight(self, w: CudaArray, num_threads: int | None) -> Any:
        """What the plan makes of a plain weight that stays; None where it makes nothing."""
        if self.plan.kept_weight is None:
            return None
        queue = queue_for(w)
        kept = self.plan.kept_weight.transform(w.pointer, queue)
        queue.wait()  # whichever stream takes it
        return kept

    def run(
        self,
        x: CudaArray | None,
        w: CudaArray | None,
        y: CudaArray | None,
        bias: Bias,
        add: CudaArray | None,
        out: Any,
        num_threads: int | None,
        kept: Any = None,
    ) -> Any:
        """What calling it does, with arguments that are checked, and `kept_weight` if there is."""
        if num_threads is not None:
            raise RejectedError("num_threads", num_threads, "must be None on a CUDA device")
        first: CudaArray = y if x is None else x  # type: ignore[assignment]
        library = first.library
        result = result_array(out, library, self.shape, self.dtype, first.device)
        if result.size == 0:
            return library.finished(result.array)
        queue = queue_for(first)
        # Held until the kernels are queued: copies that were made of arguments are given back in the stream's order.
        held = [None if each is None else each.plain(self.dtype) for each in (x, w, y, add, bias)]
        x_at, w_at, y_at, add_at, bias_at = [None if each is None else each.pointer for each in held]
        target = result.pointer
        x_at, w_at, y_at, add_at = [target if each is None else each for each in (x_at, w_at, y_at, add_at)]
        if kept is None:
            self.plan.run(x_at, w_at, y_at, add_at, bias_at, queue)
        else:
            self.plan.kept_weight.run(x_at, kept, y_at, add_at, bias_at, queue)  # type: ignore[union-attr]
        return library.finished(result.array)
