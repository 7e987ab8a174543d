"""Correlation of arrays of any rank, on which SciPy's dialects stand.

For batch b, and with one filter for all of it or one for each::

    y[b, p] = sum over r of w[b, r] * x_padded[b, p + r]

Up to three axes are one convolution of one channel, or of as many groups as there are filters. Axes along which nothing
happens join their neighbours or the batch. Where more than three are left, the first ones are gone through tap by tap,
and what is left of x for a tap is a batch of three axes each.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ._magnitudes import seconds, spread
from ._separable import separation
from ._two_passes import TwoPasses, two_passes
from .core.arrays import Array, allocate
from .core.boundary import OUTSIDE, source_index
from .core.evaluate import Call
from .core.problem import ConvProblem, Op
from .core.recent import remembered
from .core.selector import explain_problem, seconds_alone
from .functional import DTypes, Shape, conv_call, conv_transpose_call, dtypes_of

# Largest error of a result over the magnitudes in its own window that "auto" accepts: half of the digits of the type.
HALF_OF_THE_DIGITS = {4: 2.0**-12, 8: 2.0**-26}
# Bytes of a band of an array that goes through several passes: two passes of 17 taps over 2048 x 2048 elements of
# float32 took 8.6 ms as a whole, 5.2 ms in bands of 4 MiB, and 6.8 ms in bands of 512 KiB. And the least rows of a band
# for each tap: some of the rows that it reads are read again by the next.
BAND_BYTES = 4 << 20
LEAST_BAND = 4
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
    groups = w.shape[0]
    batch, extents, taps, padding = _folded(x.shape, w.shape, border, dtypes_of(x, w), algorithm)
    border = border._replace(padding=padding)
    x, w = x.reshape(batch // groups, groups, *extents), w.reshape(groups, 1, *taps)
    target = None if out is None else out.reshape(batch // groups, groups, *_outputs(extents, taps, border))
    sums = _in_three_axes if len(extents) <= 3 else _tap_by_tap
    result = sums(x, w, border, algorithm, target)
    return result.reshape(shape) if out is None else out


class Pass(NamedTuple):
    """One of several correlations that follow each other; weights: as many axes as the array."""

    weights: Array
    border: Border


def correlate_in_passes(x: Array, passes: Sequence[Pass], out: Array | None = None) -> Array:
    """Correlations one after the other, in the type of x, which is that of all weights.

    What one pass gives to the next stays in a cache: images go through two of them in one launch, and another large
    array in bands of its first axis.

    Parameters
    ----------
    x : array of any rank
    passes
        At least one.
    out
        As in `correlate`.
    """
    extents = x.shape
    for weights, border in passes:
        extents = _outputs(extents, weights.shape, border)
    both = _both_at_once(x, passes)
    if both is not None:
        return _in_one_launch(both, x, passes, allocate(extents, x.dtype) if out is None else out)
    down = [number for number, (weights, _) in enumerate(passes) if weights.shape[0] > 1] or [0]
    weights, border = passes[down[0]]
    taps, (low, _) = weights.shape[0], border.padding[0]
    rows = max(BAND_BYTES * x.shape[0] // x.nbytes, LEAST_BAND * taps)
    if len(passes) == 1 or len(down) > 1 or 2 * rows > extents[0] or border.mode == "circular":
        return _one_after_another(x, passes, out)
    result = allocate(extents, x.dtype) if out is None else out
    bands = extents[0] // rows
    for begin, end in itertools.pairwise(extents[0] * band // bands for band in range(bands + 1)):
        stop = end + taps - 1 - low
        pads = (max(0, low - begin), max(0, stop - x.shape[0])), *border.padding[1:]
        here = list(passes)
        here[down[0]] = Pass(weights, border._replace(padding=pads))
        _one_after_another(x[max(0, begin - low) : stop], here, result[begin:end])
    return result


def _both_at_once(x: Array, passes: Sequence[Pass]) -> TwoPasses | None:
    """Two passes along the last two axes, one each, if that is served."""
    lead = x.ndim - 2
    if len(passes) != 2 or lead < 0:
        return None
    shape = (math.prod(x.shape[:lead]), 1, *x.shape[lead:])
    problems = []
    for weights, border in passes:
        if math.prod(weights.shape[:lead]) > 1 or any(any(pads) for pads in border.padding[:lead]):
            return None
        border = border._replace(padding=border.padding[lead:])
        call = _call(shape, (1, 1, *weights.shape[lead:]), dtypes_of(x, weights), border, "auto")
        problems.append(call.problem)
        shape = call.shape
    return two_passes(*problems)


def _in_one_launch(both: TwoPasses, x: Array, passes: Sequence[Pass], result: Array) -> Array:
    (down, around), (across, beside) = passes
    outside = [float(border.value.real) if border.mode == "constant" else 0.0 for border in (around, beside)]
    both(x, (down, across), (outside[0], outside[1]), result)
    return result


def _one_after_another(x: Array, passes: Sequence[Pass], out: Array | None) -> Array:
    for number, (weights, border) in enumerate(passes, start=1):
        x = correlate(x, weights, border, out=out if number == len(passes) else None)
    return x


def algorithm_for(x: Array, w: Array, border: Border) -> str:
    """What "auto" takes for arrays of these shapes and types; of more than three axes, for the last three."""
    folded = _folded(x.shape, w.shape, border, dtypes_of(x, w), "auto")
    inner = _Folded(folded.batch, folded.extents[-3:], folded.taps[-3:], folded.padding[-3:])
    call = _folded_call(inner, w.shape[0], border, dtypes_of(x, w), "auto")
    return call.plan.algorithm if call.plan else "direct"


# ---- axes


class _Folded(NamedTuple):
    """Extents after axes were joined."""

    batch: int
    extents: tuple[int, ...]
    taps: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]


@remembered("x_shape", "w_shape", "dtypes")
def _folded(x_shape: Shape, w_shape: Shape, border: Border, dtypes: DTypes, algorithm: str) -> _Folded:
    """Join axes without filter and padding to each other, and the first ones to the batch if that is cheaper."""
    ways = [_joined(x_shape, w_shape, border, to_batch) for to_batch in (True, False)]
    if w_shape[0] > 1 or ways[0] == ways[1] or len(ways[1].extents) > 3:
        return ways[w_shape[0] > 1]

    def price(way: _Folded) -> float:
        call = _folded_call(way, w_shape[0], border, dtypes, algorithm)
        return seconds_alone(call.problem, Op.FORWARD, call.plan.algorithm) if call.plan else 0.0

    return min(ways, key=price)


def _folded_call(way: _Folded, groups: int, border: Border, dtypes: DTypes, algorithm: str) -> Call:
    shapes = (way.batch // groups, groups, *way.extents), (groups, 1, *way.taps)
    return _call(*shapes, dtypes, border._replace(padding=way.padding), algorithm)


def _joined(x_shape: Shape, w_shape: Shape, border: Border, to_batch: bool) -> _Folded:
    batch = x_shape[0]
    axes: list[tuple[int, int, tuple[int, int]]] = []
    is_open = to_batch
    for n, f, pads in zip(x_shape[1:], w_shape[1:], border.padding, strict=True):
        is_idle = f == 1 and pads == (0, 0)
        if is_idle and is_open and not axes:
            batch *= n
        elif is_idle and is_open:
            axes[-1] = (axes[-1][0] * n, 1, (0, 0))
        else:
            axes.append((n, f, pads))
            is_open = is_idle
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
    if border.mode == "zeros" and algorithm != "fft" and np.any(border.padding) and not np.isfinite(w).all():
        return _beside_no_zeros(x, w, border, out)
    call = _call(x.shape, w.shape, dtypes_of(x, w), border, algorithm)
    if algorithm == "auto":
        passes = separation(call.problem, w[0, 0])
        if passes is not None:
            return _separately(x, passes.factors, border, call, out)
        if call.plan is not None and call.plan.limit is not None:
            transformed = _transformed(call.problem, call.plan.algorithm)
            if not transformed.is_cheaper:
                call = _call(x.shape, w.shape, dtypes_of(x, w), border, "direct")
            elif spread(x, w.shape[2:]) > transformed.bearable_spread:
                return _in_more_digits(x, w, border, call, out)
    return call(x, w, None, out=out)


def _beside_no_zeros(x: Array, w: Array, border: Border, out: Array | None) -> Array:
    """The sums over the elements of x alone: zeros around it would be NaN under a weight that is not finite.

    They are those of the transposed convolution, of which im2col forms no others.
    """
    cut = tuple((f - 1 - low, f - 1 - high) for f, (low, high) in zip(w.shape[2:], border.padding, strict=True))
    call = conv_transpose_call(
        Op.GRAD_INPUT, x.shape, w.shape, dtypes_of(x, w), 1, cut, 0, w.shape[0], 1, "channels_first", "im2col"
    )
    return call(None, np.flip(w, tuple(range(2, w.ndim))), x, out=out)


def _call(x_shape: Shape, w_shape: Shape, dtypes: DTypes, border: Border, algorithm: str) -> Call:
    return conv_call(
        Op.FORWARD, x_shape, w_shape, dtypes, 1, border.padding, 1, w_shape[0],
        border.mode, border.value, "channels_first", algorithm,
    )  # fmt: skip


def _separately(x: Array, factors: tuple[Array, ...], border: Border, call: Call, out: Array | None) -> Array:
    """One pass for each factor; what lies in the padding has gone through the passes before."""
    x = x.astype(call.computed_dtype, copy=False)
    lead = x.shape[:1] if x.shape[0] > 1 else ()
    passes, value = [], border.value
    for axis, factor in enumerate(factors):
        pads = ((0, 0),) * (len(lead) + axis) + (border.padding[axis],) + ((0, 0),) * (len(factors) - axis - 1)
        passes.append(Pass(factor.reshape((1,) * len(lead) + factor.shape), Border(pads, border.mode, value)))
        value = value * factor.sum().item()
    target = None if out is None or out.dtype != x.dtype else out.reshape(*lead, *out.shape[2:])
    result = correlate_in_passes(x.reshape(*lead, *x.shape[2:]), passes, target)
    if target is not None:
        return target.reshape(call.shape)
    return _handed(result.reshape(call.shape).astype(call.dtype, copy=False), out)


def _in_more_digits(x: Array, w: Array, border: Border, call: Call, out: Array | None) -> Array:
    """In the wider type, whose transform may have digits enough, or, in the widest one, without a transform."""
    dtype = call.dtype
    wider = WIDER.get(dtype.name)
    if wider is None:
        return _call(x.shape, w.shape, dtypes_of(x, w), border, "direct")(x, w, None, out=out)
    result = _in_three_axes(x.astype(wider), w.astype(wider), border, "auto", None)
    return _handed(result.astype(dtype), out)


class _Transformed(NamedTuple):
    """What is known of a problem that "auto" gives to an algorithm with transforms.

    Attributes
    ----------
    is_cheaper
        Whether the transform is cheaper than the direct sums, with the look at the magnitudes before it.
    bearable_spread
        How far magnitudes may lie apart for half of the digits to be left.
    """

    is_cheaper: bool
    bearable_spread: float


@lru_cache(maxsize=1024)
def _transformed(problem: ConvProblem, algorithm: str) -> _Transformed:
    candidates = explain_problem(problem, Op.FORWARD).candidates
    taken, lead = candidates[algorithm], 3 - problem.rank
    looking = problem.N * problem.C * seconds(problem.input[lead:], problem.filter[lead:])
    digits = HALF_OF_THE_DIGITS[problem.computed.real_bytes]
    return _Transformed(taken.seconds + looking < candidates["direct"].seconds, digits / taken.error_bound)
