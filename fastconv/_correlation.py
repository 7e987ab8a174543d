"""Correlation of arrays of any rank, on which SciPy's dialects stand.

For batch b, and with one filter for all of it or one for each::

    y[b, p] = sum over r of w[b, r] * x_padded[b, p + r]

Up to three axes are one convolution of one channel, or of as many groups as there are filters. Axes along which nothing
happens join their neighbours or the batch. Where more than three are left, the first ones are gone through tap by tap,
and what is left of x for a tap is a batch of three axes each.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ._magnitudes import spread
from ._separable import separation
from .core.arrays import Array
from .core.boundary import OUTSIDE, source_index
from .core.evaluate import Call
from .core.problem import ConvProblem, Op
from .core.selector import find
from .functional import DTypes, Shape, conv_call, dtypes_of

# Largest error of a result over the magnitudes in its own window that "auto" accepts: half of the digits of the type.
HALF_OF_THE_DIGITS = {4: 2.0**-12, 8: 2.0**-26}
WIDER = {"float32": "float64", "complex64": "complex128"}


class Border(NamedTuple):
    """What surrounds x: (low, high) pads for each axis but the batch, and what stands in them, as in `conv1d`."""

    padding: tuple[tuple[int, int], ...]
    mode: str = "zeros"
    value: complex = 0


def correlate(x: Array, w: Array, border: Border, algorithm: str = "auto", out: Array | None = None) -> Array:
    """`correlate_stacks` without the first axis."""
    target = None if out is None else out[np.newaxis]
    result = correlate_stacks(x[np.newaxis], w[np.newaxis], border, algorithm, target)
    return result.reshape(result.shape[1:]) if out is None else out


def correlate_stacks(x: Array, w: Array, border: Border, algorithm: str = "auto", out: Array | None = None) -> Array:
    """The sums above, in the type to which both arrays promote.

    Parameters
    ----------
    x : array of shape (B, *extents)
    w : array of shape (1 or B, *filter extents)
    algorithm
        As in `conv1d`. "auto" takes a transform only where it leaves half of the digits of each result right, and
        takes a filter of rank 1 apart where that is cheaper.
    out : C-contiguous array of the result's shape and type, optional
        Shares no memory with the others.

    Raises
    ------
    RejectedError
        If a named algorithm must not meet the data.
    """
    shape = (x.shape[0], *_outputs(x.shape[1:], w.shape[1:], border))
    batch, extents, taps, padding = _folded(x.shape, w.shape, border.padding)
    border = border._replace(padding=padding)
    images, groups = batch // w.shape[0], w.shape[0]
    x, w = x.reshape(images, groups, *extents), w.reshape(groups, 1, *taps)
    target = None if out is None else out.reshape(images, groups, *_outputs(extents, taps, border))
    sums = _in_three_axes if len(extents) <= 3 else _tap_by_tap
    result = sums(x, w, border, algorithm, target)
    return result.reshape(shape) if out is None else out


def algorithm_for(x: Array, w: Array, border: Border) -> str:
    """What "auto" takes for arrays of these shapes and types; of more than three axes, for the last three."""
    batch, extents, taps, padding = _folded(x.shape, w.shape, border.padding)
    shapes = (batch // w.shape[0], w.shape[0], *extents[-3:]), (w.shape[0], 1, *taps[-3:])
    call = _call(*shapes, dtypes_of(x, w), border._replace(padding=padding[-3:]), "auto")
    return call.plan.algorithm if call.plan else "direct"


# ---- axes


class _Folded(NamedTuple):
    """Extents after axes were joined."""

    batch: int
    extents: tuple[int, ...]
    taps: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]


def _folded(x_shape: tuple[int, ...], w_shape: tuple[int, ...], padding: tuple[tuple[int, int], ...]) -> _Folded:
    """Join each axis without filter and padding to the one before it, if that is such a one or the batch."""
    batch = x_shape[0]
    axes: list[tuple[int, int, tuple[int, int]]] = []
    joins = w_shape[0] == 1
    for n, f, pads in zip(x_shape[1:], w_shape[1:], padding, strict=True):
        is_idle = f == 1 and pads == (0, 0)
        if is_idle and joins and not axes:
            batch *= n
        elif is_idle and joins:
            axes[-1] = (axes[-1][0] * n, 1, (0, 0))
        else:
            axes.append((n, f, pads))
        joins = is_idle if axes else joins
    axes = axes or [(1, 1, (0, 0))]
    return _Folded(batch, tuple(n for n, _, _ in axes), tuple(f for _, f, _ in axes), tuple(pads for *_, pads in axes))


def _outputs(extents: Sequence[int], taps: Sequence[int], border: Border) -> tuple[int, ...]:
    return tuple(n + sum(pads) - f + 1 for n, f, pads in zip(extents, taps, border.padding, strict=True))


# ---- more than three axes


def _tap_by_tap(x: Array, w: Array, border: Border, algorithm: str, out: Array | None) -> Array:
    """The first axes tap by tap: for each, a batch of three axes, whose results are added up in the taps' order."""
    outer = x.ndim - 5
    images, groups = x.shape[:2]
    outputs = _outputs(x.shape[2:], w.shape[2:], border)
    padded = _padded(x, border._replace(padding=border.padding[:outer]))
    inner = border._replace(padding=border.padding[outer:])
    filters = np.moveaxis(w, (0, 1), (outer, outer + 1))
    total = None
    for tap in itertools.product(*map(range, w.shape[2 : 2 + outer])):
        seen = tuple(slice(t, t + n) for t, n in zip(tap, outputs, strict=False))
        window = np.moveaxis(padded[(slice(None), slice(None), *seen)], 1, 1 + outer)
        batch = window.reshape(-1, groups, *x.shape[-3:])
        part = _in_three_axes(batch, filters[tap], inner, algorithm, None)
        total = part if total is None else np.add(total, part, out=total)
    assert total is not None, "a filter has an element"
    total = np.moveaxis(total.reshape(images, *outputs[:outer], groups, *outputs[outer:]), 1 + outer, 1)
    return _handed(total, out)


def _padded(x: Array, border: Border) -> Array:
    """The array with its axes from the third on padded, as many as there are pads."""
    for axis, (low, high) in enumerate(border.padding, start=2):
        index = source_index(x.shape[axis], low, high, border.mode)
        x = np.take(x, index, axis)
        np.moveaxis(x, axis, 0)[index == OUTSIDE] = border.value
    return x


def _handed(result: Array, out: Array | None) -> Array:
    """The result, in `out` where there is one."""
    if out is None:
        return result
    out[...] = result
    return out


# ---- up to three axes: x is (N, groups, ...), w is (groups, 1, ...)


def _in_three_axes(x: Array, w: Array, border: Border, algorithm: str, out: Array | None) -> Array:
    call = _call(x.shape, w.shape, dtypes_of(x, w), border, algorithm)
    if algorithm == "auto":
        passes = separation(call.problem, w[0, 0])
        if passes is not None:
            return _in_passes(x, passes.factors, border, out)
        if call.plan is not None and call.plan.limit is not None:
            apart = spread(x, w.shape[2:])
            if apart > _bearable_spread(call.problem, call.plan.algorithm):
                return _in_more_digits(x, w, border, call, out)
    return call(x, w, None, out=out)


def _call(x_shape: Shape, w_shape: Shape, dtypes: DTypes, border: Border, algorithm: str) -> Call:
    return conv_call(
        Op.FORWARD, x_shape, w_shape, dtypes, 1, border.padding, 1, w_shape[0],
        border.mode, border.value, "channels_first", algorithm,
    )  # fmt: skip


def _in_passes(x: Array, factors: tuple[Array, ...], border: Border, out: Array | None) -> Array:
    """One pass for each factor; what lies in the padding has gone through the passes before."""
    value = border.value
    for axis, factor in enumerate(factors):
        pads = tuple(pads if number == axis else (0, 0) for number, pads in enumerate(border.padding))
        is_last = axis == len(factors) - 1
        x = _in_three_axes(x, factor[None, None], Border(pads, border.mode, value), "auto", out if is_last else None)
        value = value * factor.sum().item()
    return x


def _in_more_digits(x: Array, w: Array, border: Border, call: Call, out: Array | None) -> Array:
    """In the wider type, whose transform may have digits enough, or, in the widest one, without a transform."""
    dtype = call.dtype
    wider = WIDER.get(dtype.name)
    if wider is None:
        return _call(x.shape, w.shape, dtypes_of(x, w), border, "direct")(x, w, None, out=out)
    result = _in_three_axes(x.astype(wider), w.astype(wider), border, "auto", None)
    return _handed(result.astype(dtype), out)


@lru_cache(maxsize=1024)
def _bearable_spread(problem: ConvProblem, algorithm: str) -> float:
    """How far magnitudes may lie apart for an algorithm to leave half of the digits."""
    return HALF_OF_THE_DIGITS[problem.computed.real_bytes] / find(algorithm).error_bound(problem.computed, Op.FORWARD)
