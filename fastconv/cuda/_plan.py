"""From an algorithm's work to the plan that the selector hands out: padding in front, scratch memory, the queue.

An algorithm describes its `Work` for problems whose padding is zeros. Every other padding mode is a copy in front of
it, or, for the gradient, a sum behind it (`fastconv.cuda._padding`), in this one place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..core.algorithm import PLAIN, Epilogue, KeptWeight, Plan
from ..core.problem import ConvProblem, Op
from ._padding import Fold, Pad, is_zero_padded, padded_problem
from ._queue import Part, Queue, bytes_of

Pointer = Any  # an address; a flat array in the simulator
Run = Callable[[Queue, Pointer, Pointer, Pointer, Pointer, Pointer | None, tuple[Pointer, ...]], None]


@dataclass(frozen=True)
class WeightForm:
    """What an algorithm makes of w before it meets the data; a prepared convolution keeps it.

    Attributes
    ----------
    key
        Equal for the forms of one w that are the same.
    part
        Type and number of its elements.
    transform
        ``transform(queue, w, form)`` queues the kernels that write it.
    """

    key: Hashable
    part: Part
    transform: Callable[[Queue, Pointer, Pointer], None]


@dataclass(frozen=True)
class Work:
    """What an algorithm does for one operation of one problem.

    Attributes
    ----------
    run
        ``run(queue, x, w, y, residual, bias, scratch)`` queues the kernels that write the tensor that the operation
        computes. bias is None where there is none; the residual is read only where the epilogue says so. With a
        `weight`, w is a pair: as it is, and in that form.
    scratch
        Type and number of elements of each piece of scratch memory; `run` gets their addresses in this order.
    weight
        The form in which w is taken, or None if as it is.
    tiles
        Sizes that the algorithm settled on, for people to read.
    """

    run: Run
    scratch: tuple[Part, ...] = ()
    weight: WeightForm | None = None
    tiles: Mapping[str, int] = field(default_factory=dict)


MakeWork = Callable[[ConvProblem, Op, Epilogue], Work]


def padded(make: MakeWork, problem: ConvProblem, op: Op, epilogue: Epilogue) -> Work:
    """The work for a problem of any padding mode, from that for zeros."""
    if is_zero_padded(problem):
        return make(problem, op, epilogue)
    inner_problem = padded_problem(problem)
    if op is Op.GRAD_INPUT:
        inner, fold = make(inner_problem, op, PLAIN), Fold(problem, epilogue)

        def run(queue, x, w, y, residual, bias, scratch):
            inner.run(queue, scratch[0], w, y, scratch[0], None, scratch[1:])
            fold(queue, scratch[0], x, residual, bias)
    else:
        inner, pad = make(inner_problem, op, epilogue), Pad(problem)

        def run(queue, x, w, y, residual, bias, scratch):
            pad(queue, x, scratch[0])
            inner.run(queue, scratch[0], w, y, residual, bias, scratch[1:])

    size = inner_problem.N * inner_problem.C * math.prod(inner_problem.input)
    return Work(run, ((problem.dtype, size), *inner.scratch), inner.weight, inner.tiles)


def planned(name: str, make: MakeWork) -> Callable[[ConvProblem, Op, Epilogue], Plan]:
    """The `plan` of an algorithm's record, from what makes its work."""

    def plan(problem: ConvProblem, op: Op, epilogue: Epilogue = PLAIN) -> Plan:
        work = padded(make, problem, op, epilogue)
        form = work.weight

        def run(x: Pointer, w: Pointer, y: Pointer, residual: Pointer, bias: Pointer | None, queue: Queue) -> None:
            with queue:
                scratch = queue.scratch(*_parts(work))
                if form is not None:
                    form.transform(queue, w, scratch[0])
                    w, scratch = (w, scratch[0]), scratch[1:]
                work.run(queue, x, w, y, residual, bias, scratch)

        return Plan(name, problem, op, bytes_of(_parts(work)), run, kept_weight=_kept(work), tiles=work.tiles)

    return plan


def _kept(work: Work) -> KeptWeight | None:
    form = work.weight
    if form is None:
        return None

    def transform(w: Pointer, queue: Queue) -> Any:
        with queue:
            memory = queue.allocate(form.part)
            form.transform(queue, w, queue.address(memory))
        return w, memory

    def run(x: Pointer, kept: Any, y: Pointer, residual: Pointer, bias: Pointer | None, queue: Queue) -> None:
        w, memory = kept
        with queue:
            work.run(queue, x, (w, queue.address(memory)), y, residual, bias, queue.scratch(*work.scratch))

    return KeptWeight(form.key, transform, run)


def _parts(work: Work) -> tuple[Part, ...]:
    """All scratch memory of a call that is not prepared: the form of w, if it has one, then its own."""
    return work.scratch if work.weight is None else (work.weight.part, *work.scratch)


def scratch_of(make: MakeWork) -> Callable[[ConvProblem, Op], int]:
    """The `workspace` of an algorithm's record: bytes of scratch memory."""
    return lambda problem, op: bytes_of(_parts(padded(make, problem, op, PLAIN)))
