"""SciPy: `signal.correlate` and `signal.convolve`, which choose between sums and one FFT, or `signal.oaconvolve`.

The faster of them on the problem at hand is the one that is measured.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from time import perf_counter

import numpy as np
import scipy.fft
from scipy import signal

from bench.peers import Case
from bench.prepared import Array, Prepared, only
from fastconv.core.problem import Op

Candidates = dict[str, Callable[[], Array]]


def prepare(case: Case) -> Prepared:
    problem = case.problem
    only(problem.N == problem.C == problem.K == 1, "has one channel of one image only")
    only(case.is_dense(), "has stride 1 and dilation 1 only")
    candidates = {Op.FORWARD: _forward, Op.GRAD_INPUT: _grad_input, Op.GRAD_WEIGHT: _grad_weight}[case.op](case)
    calls = {name: functools.partial(_call, function, case.threads) for name, function in candidates.items()}
    best = min(calls, key=lambda name: _seconds(calls[name])) if len(calls) > 1 else next(iter(calls))
    return Prepared(calls[best], note=best)


def _call(function: Callable[[], Array], threads: int) -> Array:
    """The result with the axes of batch and channel."""
    with scipy.fft.set_workers(threads):
        return function()[np.newaxis, np.newaxis]


def _forward(case: Case) -> Candidates:
    x, w = case.tensors.x[0, 0], case.tensors.w[0, 0]
    fits = all(max(pads) < extent for extent, pads in zip(w.shape, case.pads, strict=True))
    only(fits, "cannot pad by the extent of the filter or more")
    part = _part([extent - 1 - low for extent, (low, _) in zip(w.shape, case.pads, strict=True)], case.output)
    return {
        "correlate": lambda: signal.correlate(x, w)[part],
        "oaconvolve": lambda: signal.oaconvolve(x, np.flip(w))[part],
    }


def _grad_input(case: Case) -> Candidates:
    y, w = case.tensors.y[0, 0], case.tensors.w[0, 0]
    part = _part([low for low, _ in case.pads], case.tensors.x.shape[2:])
    return {
        "convolve": lambda: signal.convolve(y, w)[part],
        "oaconvolve": lambda: signal.oaconvolve(y, w)[part],
    }


def _grad_weight(case: Case) -> Candidates:
    x, y = case.tensors.x[0, 0], case.tensors.y[0, 0]
    return {"correlate": lambda: signal.correlate(np.pad(x, case.pads), y, mode="valid")}


def _part(starts: list[int], extents: tuple[int, ...]) -> tuple[slice, ...]:
    """The region of the full convolution that the problem asks for."""
    return tuple(slice(start, start + extent) for start, extent in zip(starts, extents, strict=True))


def _seconds(call: Callable[[], Array]) -> float:
    """Time of a second call; the first one plans the FFT."""
    call()
    start = perf_counter()
    call()
    return perf_counter() - start
