"""fastconv: the public functions, each call from the arrays to a new array."""

from __future__ import annotations

import fastconv
from bench.peers import Case
from bench.prepared import Prepared, RefusedError, compiled
from fastconv.core.problem import Op


def prepare(case: Case) -> Prepared:
    rank = case.problem.rank
    x, w, y = case.tensors
    padding = [low for low, _ in case.pads] if case.is_evenly_padded() else case.pads
    window = (case.stride, padding, case.dilation, case.problem.groups)
    function, arguments = {
        Op.FORWARD: (getattr(fastconv, f"conv{rank}d"), (x, w, None)),
        Op.GRAD_INPUT: (getattr(fastconv.grad, f"conv{rank}d_input"), (x.shape, w, y)),
        Op.GRAD_WEIGHT: (getattr(fastconv.grad, f"conv{rank}d_weight"), (x, w.shape, y)),
    }[case.op]

    def call() -> object:
        return function(*arguments, *window, algorithm=case.algorithm, num_threads=case.threads)

    try:
        return Prepared(compiled(call), note=_algorithm(case))
    except fastconv.UnsupportedError as error:
        raise RefusedError(str(error)) from None


def _algorithm(case: Case) -> str:
    if case.algorithm != "auto":
        return case.algorithm
    return fastconv.explain(case.problem, op=case.op.value).algorithm
