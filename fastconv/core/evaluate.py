"""One operation from arrays to array: plain inputs, a plan, its run, and the result in the caller's type."""

from __future__ import annotations

from typing import Any

import numpy as np

from .algorithm import Plan
from .arrays import Array, allocate, check_out, extreme, plain
from .errors import RejectedError
from .problem import ConvProblem, Op
from .registry import algorithm_names
from .selector import contained_plan_for, plan_for


# Operations below which one thread is faster: 1e6 take 20 us in one thread of the machine of docs/performance.md, where
# waking a second costs 3 us, and far more when another program holds its core.
SERIAL_FLOPS = 1_000_000


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

    Raises
    ------
    RejectedError
        For a bad `out`, `algorithm` or `num_threads`.
    UnsupportedError
        If the named algorithm cannot serve.
    """
    given = tuple(array for array in (x, w, y, bias) if array is not None)
    _check_options(algorithm, num_threads)
    shape = problem.result_shape(op)
    if out is not None:
        check_out(out, shape, problem.dtype, given)
    dtype = problem.computed.dtype
    result = out if out is not None and plain(out, dtype) is out else allocate(shape, dtype)
    constants = _constants(op, problem, bias)
    tensors = {name: plain(array, dtype) for name, array in (("x", x), ("w", w), ("y", y)) if array is not None}
    threads = 1 if problem.flops < SERIAL_FLOPS else num_threads
    if all(tensor.size for tensor in tensors.values()):
        plan = _plan_within_limits(op, problem, algorithm, [*tensors.values(), constants[-1:]])
        if op is Op.GRAD_WEIGHT:
            plan.run(tensors["x"], result, tensors["y"], constants, threads)
        elif op is Op.FORWARD:
            plan.run(tensors["x"], _packed(plan, tensors["w"]), result, constants, threads)
        else:
            plan.run(result, _packed(plan, tensors["w"]), tensors["y"], constants, threads)
    else:
        result[...] = 0 if op is Op.GRAD_WEIGHT else _along_channels(constants[:-1], problem)
    if out is None:
        return result if dtype == problem.dtype else result.astype(problem.dtype)
    if result is not out:
        out[...] = result.astype(problem.dtype, copy=False)
    return out  # type: ignore[no-any-return]


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


def _packed(plan: Plan, weight: Array) -> Array:
    return plan.pack(weight.reshape(plan.problem.K, -1, *plan.problem.filter))
