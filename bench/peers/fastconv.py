"""fastconv: the public functions, each call from the arrays in the layout of the problem to a new array."""

from __future__ import annotations

import numpy as np

import fastconv
from bench.peers import Case
from bench.prepared import Array, Prepared, RefusedError, compiled, copied
from fastconv.core.problem import Op


def prepare(case: Case) -> Prepared:
    rank, layout = case.problem.rank, case.problem.layout
    x, w, y = case.tensors
    is_last = layout == "channels_last"
    if is_last:
        x, y = (copied(np.moveaxis(tensor, 1, -1)) for tensor in (x, y))
    padding = [low for low, _ in case.pads] if case.is_evenly_padded() else case.pads
    window = (case.stride, padding, case.dilation, case.problem.groups)
    function, arguments = {
        Op.FORWARD: (getattr(fastconv, f"conv{rank}d"), (x, w, None)),
        Op.GRAD_INPUT: (getattr(fastconv.grad, f"conv{rank}d_input"), (x.shape, w, y)),
        Op.GRAD_WEIGHT: (getattr(fastconv.grad, f"conv{rank}d_weight"), (x, w.shape, y)),
    }[case.op]

    def call() -> object:
        return function(*arguments, *window, layout=layout, algorithm=case.algorithm, num_threads=case.threads)

    def to_array(result: Array) -> Array:
        return np.moveaxis(result, -1, 1) if is_last and case.op is not Op.GRAD_WEIGHT else result

    try:
        return Prepared(compiled(call), to_array, _algorithm(case))
    except fastconv.UnsupportedError as error:
        raise RefusedError(str(error)) from None


def _algorithm(case: Case) -> str:
    if case.algorithm != "auto":
        return case.algorithm
    return fastconv.explain(case.problem, op=case.op.value).algorithm
