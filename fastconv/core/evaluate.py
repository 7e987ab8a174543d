"""One operation from arrays to array: plain inputs, a plan, its run, and the result in the caller's type.

What does not depend on the data is worked out once, in a `Call`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .algorithm import ACTIVATIONS, PLAIN, Epilogue, Plan
from .arrays import Array, allocate, check_out, is_plain, plain
from .errors import RejectedError
from .parameters import is_positive, numpy_type
from .problem import ConvProblem, Op
from .recent import remembered
from .registry import algorithm_names
from .selector import contained_plan_for, plan_for, require_support, seconds_alone
from .threads import allowed_threads

# Predicted seconds below which one thread is used: waking a second one costs 2 us on the machine of
# docs/performance.md, but 8 ms and more while another program holds its core.
SERIAL_SECONDS = 30e-6


class Call:
    """One operation on tensors of known shapes and types, ready to be made any number of times.

    Parameters
    ----------
    op, problem
        What to compute.
    algorithm
        "auto" or the name of one.
    epilogue
        What happens to the result when it is stored. Not for a GRAD_INPUT whose padding folds.
    batched
        Whether x and y come and go with their batch axis.
    rtol
        Largest error over the root mean square of the result that "auto" accepts, or None for that of the type.

    Attributes
    ----------
    op, problem, algorithm
        As given.
    shape, dtype
        Of the result, as the caller sees it.
    computed_dtype
        The type in which it is computed.
    plan
        What runs, unless the data holds numbers that it must not meet; None where nothing is summed.

    Raises
    ------
    RejectedError
        For an unknown `algorithm`, an activation that the type does not have, or a bad `rtol`.
    UnsupportedError
        If the named algorithm cannot serve, or none is accurate enough.
    """

    def __init__(
        self,
        op: Op,
        problem: ConvProblem,
        algorithm: str = "auto",
        epilogue: Epilogue = PLAIN,
        batched: bool = True,
        rtol: float | None = None,
    ) -> None:
        check_algorithm(algorithm)
        check_rtol(rtol)
        require_support(algorithm, problem, op)
        check_activation(epilogue.activation, problem.dtype)
        self.op, self.problem, self.algorithm = op, problem, algorithm
        self.dtype, self.computed_dtype = np.dtype(problem.dtype), np.dtype(problem.computed.dtype)
        self._batched = batched
        self._result_shape = problem.result_shape(op)
        self.shape = self._result_shape if batched or op is Op.GRAD_WEIGHT else self._result_shape[1:]
        # Integers are summed modulo the width of the computed type; their sign is known once they are in their own.
        self._relu_last = epilogue.activation is not None and problem.is_exact and self.dtype != self.computed_dtype
        self._epilogue = Epilogue(None, epilogue.residual) if self._relu_last else epilogue
        self._has_channels = problem.C > 0
        self._summed = problem if self._has_channels or op is not Op.FORWARD else _with_a_channel(problem)
        nothing = self._summed.multiplications == 0
        self.plan = None if nothing else plan_for(self._summed, op, algorithm, self._epilogue, rtol)
        # What is bad in an input shows in the results that it reaches, unless an activation hides it: so inputs that
        # are larger than the result are judged by that. 256x14x14 to 256, 3x3: 12 us in place of 40.
        sizes = (math.prod(shape) for shape in (problem.x_shape, problem.w_shape, problem.y_shape))
        # Best is a plan that notices it in its sums, on the way.
        has_limit, is_auto = self.plan is not None and self.plan.limit is not None, algorithm == "auto"
        self._sums_show = has_limit and is_auto and self.plan.notices  # type: ignore[union-attr]
        self._result_shows = (
            has_limit and is_auto and not self._sums_show and self._epilogue.activation is None
            and sum(sizes) > 2 * math.prod(self._result_shape)
        )  # fmt: skip
        self._inputs_show = has_limit and not self._sums_show and not self._result_shows
        self._seconds_alone = seconds_alone(self._summed, op, self.plan.algorithm) if self.plan else 0.0
        self._no_bias = self.constants(None)

    def __call__(
        self,
        x: Array | None,
        w: Array | None,
        y: Array | None,
        *,
        bias: Array | None = None,
        add: Array | None = None,
        out: Any = None,
        num_threads: int | None = None,
    ) -> Array:
        """The tensor that is None from the other two.

        Parameters
        ----------
        x, w, y
            In the problem's shapes, and in any type that promotes to the problem's.
        bias
            (channels of the result,); FORWARD and GRAD_INPUT only.
        add
            In the result's shape, if and only if the epilogue has a residual.
        out
            Where to put the result, or None.
        num_threads
            Most threads to use, or None for all of Numba's.

        Raises
        ------
        RejectedError
            For a bad `out` or `num_threads`, or data that the named algorithm must not meet.
        """
        if num_threads is not None:
            check_threads(num_threads)
        constants = self._no_bias if bias is None else self.constants(bias)
        if out is not None:
            self.check_out(out, (x, w, y, bias, add))
        return self.run(x, w, y, constants, add, out, num_threads)

    def check_out(self, out: Any, inputs: tuple[Array | None, ...]) -> None:
        """Refuse an ``out=`` that cannot take the result."""
        check_out(out, self.shape, self.dtype, inputs)

    def plain(self, w: Array) -> Array:
        """A weight as the plan takes it."""
        return plain(w, self.computed_dtype)

    def constants(self, bias: Array | None) -> Array:
        """The bias of every channel of the result, then what stands outside the gathered tensor."""
        problem = self._summed
        channels = {Op.FORWARD: problem.K, Op.GRAD_INPUT: problem.C, Op.GRAD_WEIGHT: 0}[self.op]
        constants = np.zeros(channels + 1, self.dtype)
        if bias is not None:
            constants[:-1] = bias
        if self.op is not Op.GRAD_INPUT:  # there y is gathered, which ends in zeros
            constants[-1] = problem.pad_value
        return plain(constants, self.computed_dtype)

    def kept_weight(self, w: Array, num_threads: int | None) -> Array | None:
        """What the plan makes of a plain weight that stays; None where it makes nothing, or must not meet it."""
        plan = self.plan
        if plan is None or plan.kept_weight is None or not self._has_channels:
            return None
        threads = self._threads(num_threads)
        if plan.limit is not None and plan.is_extreme(w, plan.limit, threads):  # type: ignore[misc]
            return None
        kept: Array = plan.kept_weight.transform(w, threads)
        return kept

    def run(
        self,
        x: Array | None,
        w: Array | None,
        y: Array | None,
        constants: Array,
        add: Array | None,
        out: Array | None,
        num_threads: int | None,
        kept: Array | None = None,
    ) -> Array:
        """What calling it does, with arguments that are checked, the constants made, and `kept_weight` if there is."""
        in_place = out is not None and is_plain(out, self.computed_dtype)
        result = out.reshape(self._result_shape) if in_place else allocate(self._result_shape, self.computed_dtype)  # type: ignore[union-attr]
        if self.plan is None:
            result[...] = 0
        else:
            self._compute(x, w, y, constants, add, result, num_threads, kept)
        if result.shape != self.shape:
            result = result.reshape(self.shape)
        if self.dtype != self.computed_dtype:
            result = result.astype(self.dtype)
            if self._relu_last:
                np.maximum(result, 0, out=result)
        if out is None:
            return result
        if not in_place:
            out[...] = result
        return out

    def _compute(
        self,
        x: Array | None,
        w: Array | None,
        y: Array | None,
        constants: Array,
        add: Array | None,
        result: Array,
        num_threads: int | None,
        kept: Array | None,
    ) -> None:
        """Write the result, an array of the computed type in the problem's shape."""
        dtype = self.computed_dtype
        if not self._batched:
            x, y, add = _as_batch(x), _as_batch(y), _as_batch(add)
        if not self._has_channels:
            x, w = np.zeros(self._summed.x_shape, dtype), np.zeros(self._summed.w_shape, dtype)
        x = result if x is None else plain(x, dtype)
        w = result if w is None else plain(w, dtype)
        y = result if y is None else plain(y, dtype)
        residual = result if add is None else plain(add, dtype)
        plan: Plan = self.plan  # type: ignore[assignment]
        threads = self._threads(num_threads)
        if self._inputs_show or (kept is not None and self._result_shows):
            known = w if kept is not None else result
            inputs = [each for each in (x, w, y) if each is not result and each is not known]
            plan = self._within_limit(plan, [*inputs, constants[-1:]], threads)
        if kept is not None and plan is self.plan:
            is_bad = plan.kept_weight.run(x, kept, y, residual, constants, threads)  # type: ignore[union-attr]
        else:
            is_bad = plan.run(x, w, y, residual, constants, threads)
            if self._result_shows and kept is None:
                is_bad = plan.is_extreme(result, plan.limit, threads)  # type: ignore[misc, arg-type]
        if is_bad and self.algorithm == "auto":
            contained_plan_for(self._summed, self.op, self._epilogue).run(x, w, y, residual, constants, threads)

    def _threads(self, num_threads: int | None) -> int:
        return 1 if self._seconds_alone < SERIAL_SECONDS else allowed_threads(num_threads)

    def _within_limit(self, plan: Plan, inputs: list[Array], threads: int) -> Plan:
        """The plan, unless it would spread a NaN or overflow on these inputs."""
        limit: float = plan.limit  # type: ignore[assignment]
        if not any(plan.is_extreme(array, limit, threads) for array in inputs):  # type: ignore[misc]
            return plan
        if self.algorithm != "auto":
            raise RejectedError(
                "algorithm",
                self.algorithm,
                f"spreads NaN, Inf and elements of {limit:.1e} or more over results that do not depend on them, "
                'and the input holds one; "auto" goes another way',
            )
        return contained_plan_for(self._summed, self.op, self._epilogue)


def _as_batch(tensor: Array | None) -> Array | None:
    """The tensor as a batch of one."""
    return None if tensor is None else tensor[np.newaxis]


call_for = remembered()(Call)


def evaluate(
    op: Op,
    problem: ConvProblem,
    *,
    x: Array | None = None,
    w: Array | None = None,
    y: Array | None = None,
    out: Any = None,
    algorithm: str = "auto",
    num_threads: int | None = None,
    batched: bool = True,
) -> Array:
    """Compute the tensor of `op` from the other two; parameters and errors are those of `Call`."""
    return call_for(op, problem, algorithm, PLAIN, batched)(x, w, y, out=out, num_threads=num_threads)


def check_algorithm(algorithm: Any, device: str = "cpu") -> None:
    """Refuse an ``algorithm=`` that does not exist on a device."""
    if algorithm not in algorithm_names(device):
        raise RejectedError("algorithm", algorithm, f"must be one of {', '.join(algorithm_names(device))}")


def check_rtol(rtol: Any) -> None:
    """Refuse an ``rtol=`` that is neither None nor a number above zero."""
    if rtol is not None and not is_positive(rtol):
        raise RejectedError("rtol", rtol, "must be None or a finite number above 0")


def check_threads(num_threads: Any) -> None:
    """Refuse a ``num_threads=`` that is neither None nor a positive integer."""
    if num_threads is not None and (
        isinstance(num_threads, bool) or not isinstance(num_threads, (int, np.integer)) or num_threads < 1
    ):
        raise RejectedError("num_threads", num_threads, "must be None or an integer of at least 1")


def check_activation(activation: Any, dtype: str) -> None:
    """Refuse an ``activation=`` that does not exist, or not for this type."""
    if activation is None:
        return
    if activation not in ACTIVATIONS:
        raise RejectedError("activation", activation, f"must be None or one of {', '.join(ACTIVATIONS)}")
    kind = numpy_type(dtype).kind
    if kind != "f" and not (kind in "iu" and activation == "relu"):
        raise RejectedError(
            "activation", activation, f"must be {'None or relu' if kind in 'iu' else 'None'} for {dtype}"
        )


def _with_a_channel(problem: ConvProblem) -> ConvProblem:
    """A FORWARD problem of the same output and one channel in each group; of zeros, it sums up to as much as none."""
    return problem.replace(
        C=problem.groups,
        input=problem.output,
        filter=(1, 1, 1),
        stride=(1, 1, 1),
        dilation=(1, 1, 1),
        padding=((0, 0), (0, 0), (0, 0)),
        padding_mode="zeros",
        pad_value=0,
    )
