"""Keeping a NaN where it belongs: what an algorithm in a transformed domain spreads, is computed once more.

One NaN, Inf or overflow in a tile of Winograd's or Fourier's makes every result of the tile one. A kernel that is
about to store such a sum raises an alarm, one integer on the device; behind it runs the plain form of the operation,
which ends at once unless the alarm is raised. So nothing waits for the host, and results are those of direct wherever
they matter.
"""

from __future__ import annotations

from ..core.algorithm import Epilogue
from ..core.problem import ConvProblem, Op
from ._device import function, pointer, put
from ._elements import elementwise
from ._kernel import Body, Launch, kernels
from ._plan import MakeWork, Work


@function
def watch(total, alarm):
    """Raise the alarm if a sum, before it is finished, is NaN or infinite; all who raise it write the same."""
    if total - total != 0:
        put(alarm, 0, 1)


@kernels
def lower_alarm() -> Body:
    """Set the alarm to 0."""

    def body(alarm):  # int32 (1,), written
        put(alarm, 0, 0)

    return Body(body, (pointer("int32"),), 1)


def contained(make: MakeWork) -> MakeWork:
    """The work of an algorithm that calls `watch` on every sum: its first piece of scratch memory is the alarm.

    `make` gives a work whose scratch does not count the alarm; its `run` gets it in front of the others.
    """

    def made(problem: ConvProblem, op: Op, epilogue: Epilogue) -> Work:
        inner, plain = make(problem, op, epilogue), elementwise(problem, op, epilogue)
        lower = Launch(lower_alarm(), (1,))

        def run(queue, x, w, y, residual, bias, scratch):
            lower(queue, scratch[0])
            inner.run(queue, x, w, y, residual, bias, scratch)
            plain(queue, x, w if inner.weight is None else w[0], y, residual, bias, scratch[0])

        return Work(run, (("int32", 1), *inner.scratch), inner.weight, inner.tiles)

    return made
