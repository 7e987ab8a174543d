"""One operation from arrays to array: plain inputs, a plan, its run, and the result in the caller's type."""

from __future__ import annotations

from typing import Any

import numpy as np

from .algorithm import Plan
from .arrays import Array, allocate, check_out, extreme, is_plain, plain
from .errors import RejectedError
from .problem import ConvProblem, Op
from .registry import algorithm_names
from .selector import contained_plan_for, plan_for, require_support
from .threads import allowed_threads

# Operations below which one thread is used: 4e6 take about 100 us on the machine of docs/performance.md, where waking
# a second thread costs 3 us, but 8 ms and more while another program holds its core.
SERIAL_FLOPS = 4_000_000


def evaluate(
    op: Op,
    problem: ConvProblem,
    *,
    x: Array | None = None,
    w: Array | None = None,
    y: Array | None = None,
    bias: Array | None = None,
    out: Any = None,
    algorithm: str = "auto",
    num_threads: int | None = None,
    batched: bool = True,
) -> Array:
    """Compute the tensor of `op` from the other two.

    Parameters
    ----------
    op, problem
        What to compute.
    x, w, y
        The two given tensors, in the problem's shapes and in any type that promotes to the problem's.
    bias
        (channels of the result,), added to it; FORWARD and GRAD_INPUT only.
    out
        Where to put the result, or None.
    algorithm
        "auto" or the name of one.
    num_threads
        Most threads to use, or None for all of Numba's.
    batched
        Whether x and y come and go with their batch axis.

    Raises
    ------
    RejectedError
        For a bad `out`, `algorithm` or `num_threads`.
    UnsupportedError
        If the named algorithm cannot serve.
    """
    _check_options(algorithm, num_threads)
    require_support(algorithm, problem, op)
    shape = problem.result_shape(op)
    caller_shape = shape if batched or op is Op.GRAD_WEIGHT else shape[1:]
    if out is not None:
        check_out(out, caller_shape, problem.dtype, tuple(each for each in (x, w, y, bias) if each is not None))
    dtype = problem.computed.dtype
    in_place = out is not None and is_plain(out, dtype)
    result = out.reshape(shape) if in_place else allocate(shape, dtype)
    _compute(op, problem, x, w, y, _constants(op, problem, bias), result, algorithm, num_threads)
    if in_place:
        return out  # type: ignore[no-any-return]
    result = result.reshape(caller_shape).astype(problem.dtype, copy=False)
    if out is None:
        return result
    out[...] = result
    return out  # type: ignore[no-any-return]


def _compute(
    op: Op,
    problem: ConvProblem,
    x: Array | None,
    w: Array | None,
    y: Array | None,
    constants: Array,
    result: Array,
    algorithm: str,
    num_threads: int | None,
) -> None:
    """Write the result, an array of the computed type in the problem's shape."""
    dtype = problem.computed.dtype
    x = result if x is None else plain(x, dtype).reshape(problem.x_shape)
    w = result if w is None else plain(w, dtype)
    y = result if y is None else plain(y, dtype).reshape(problem.y_shape)
    inputs = [tensor for tensor in (x, w, y) if tensor is not result]
    if not all(tensor.size for tensor in inputs):
        result[...] = 0 if op is Op.GRAD_WEIGHT else _along_channels(constants[:-1], problem)
        return
    plan = _plan_within_limits(op, problem, algorithm, [*inputs, constants[-1:]])
    plan.run(x, w, y, result, constants, 1 if problem.flops < SERIAL_FLOPS else allowed_threads(num_threads))


def _check_options(algorithm: str, num_threads: Any) -> None:
    if algorithm not in algorithm_names():
        raise RejectedError("algorithm", algorithm, f"must be one of {', '.join(algorithm_names())}")
    if num_threads is not None and (
        isinstance(num_threads, bool) or not isinstance(num_threads, (int, np.integer)) or num_threads < 1
    ):
        raise RejectedError("num_threads", num_threads, "must be None or an integer of at least 1")


def _constants(op: Op, problem: ConvProblem, bias: Array | None) -> Array:
    """The bias of every channel of the result, then what stands outside the gathered tensor."""
    channels = {Op.FORWARD: problem.K, Op.GRAD_INPUT: problem.C, Op.GRAD_WEIGHT: 0}[op]
    constants = np.zeros(channels + 1, problem.dtype)
    if bias is not None:
        constants[:-1] = bias
    if op is not Op.GRAD_INPUT:  # there y is gathered, which ends in zeros
        constants[-1] = problem.pad_value
    return plain(constants, problem.computed.dtype)


def _along_channels(bias: Array, problem: ConvProblem) -> Array:
    return bias if problem.layout == "channels_last" else bias.reshape(-1, *[1] * problem.rank)


def _plan_within_limits(op: Op, problem: ConvProblem, algorithm: str, inputs: list[Array]) -> Plan:
    """The plan, unless it would spread a NaN or overflow on these inputs."""
    plan = plan_for(problem, op, algorithm)
    if plan.limit is None or not any(extreme(array, plan.limit) for array in inputs):
        return plan
    if algorithm != "auto":
        raise RejectedError(
            "algorithm",
            algorithm,
            f"spreads NaN, Inf and elements of {plan.limit:.1e} or more over results that do not depend on them, "
            'and the input holds one; "auto" goes another way',
        )
    return contained_plan_for(problem, op)
