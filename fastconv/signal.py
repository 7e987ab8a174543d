"""Convolution in SciPy's dialect: the functions of `scipy.signal` under their names, on the kernels of fastconv.

``from fastconv.signal import convolve`` in place of ``from scipy.signal import convolve``: the same arguments, modes,
types, errors and warnings. Where results differ from SciPy's, and which arguments go to SciPy itself, is told in
docs/scipy.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from . import _correlation
from ._correlation import Border
from ._dialect import chosen_axes, leave, or_scipy, served_array
from .core.arrays import Array
from .core.problem import COMPUTE_DTYPES

__all__ = [
    "choose_conv_method",
    "convolve",
    "convolve2d",
    "correlate",
    "correlate2d",
    "correlation_lags",
    "fftconvolve",
    "oaconvolve",
]

METHODS = ("auto", "direct", "fft")
BOUNDARIES = {
    "fill": "constant",
    "pad": "constant",
    "wrap": "circular",
    "circular": "circular",
    "symm": "symmetric",
    "symmetric": "symmetric",
}
# Seconds that a method is run for when it is measured.
MEASURED_SECONDS = 0.02


@or_scipy("scipy.signal")
def convolve(in1: ArrayLike, in2: ArrayLike, mode: str = "full", method: str = "auto") -> Array:
    """Convolve two arrays of the same rank: ``y[n] = sum over k of in1[k] * in2[n - k]``.

    Parameters
    ----------
    in1, in2 : arrays of the same number of axes, of any rank
    mode : {"full", "same", "valid"}
        All of it; the centre, of the extents of `in1`; or what no padding enters.
    method : {"auto", "direct", "fft"}
        "auto" takes the cheapest that is exact for integers, keeps NaN and Inf where they belong, and leaves half of
        the digits of quiet passages right.

    Returns
    -------
    array of extents in1 + in2 - 1, in1, or abs(in1 - in2) + 1
        Of the type to which both promote.

    Raises
    ------
    ValueError
        As `scipy.signal.convolve`.
    """
    first, second = _pair(in1, in2)
    return _by_method(first, second, mode, method)


@or_scipy("scipy.signal")
def correlate(in1: ArrayLike, in2: ArrayLike, mode: str = "full", method: str = "auto") -> Array:
    """Cross-correlate two arrays of the same rank: ``y[n] = sum over k of in1[k + n] * conj(in2[k])``.

    Parameters
    ----------
    in1, in2, mode, method
        As in `convolve`. ``correlate(x, x)`` is the autocorrelation.

    Returns
    -------
    array of extents in1 + in2 - 1, in1, or abs(in1 - in2) + 1
        In mode "full", the lag 0 is at in2 - 1 (`correlation_lags`).

    Raises
    ------
    ValueError
        As `scipy.signal.correlate`.
    """
    first, second = _pair(in1, in2)
    return _by_method(first, np.flip(np.conj(second)), mode, method)


@or_scipy("scipy.signal")
def convolve2d(
    in1: ArrayLike, in2: ArrayLike, mode: str = "full", boundary: str = "fill", fillvalue: complex = 0
) -> Array:
    """Convolve two arrays of two axes, `in1` continued beyond its boundary.

    Parameters
    ----------
    in1, in2 : arrays of shape (H, W)
    mode
        As in `convolve`.
    boundary : {"fill", "wrap", "symm"}
        What stands around `in1`: `fillvalue`, its other side, or its reflection.
    fillvalue : number

    Returns
    -------
    array of shape (P, Q)
        Of the type to which both promote.

    Raises
    ------
    ValueError
        As `scipy.signal.convolve2d`.
    """
    first, second = _pair(in1, in2)
    return _in_the_plane(first, second, mode, False, boundary, fillvalue)


@or_scipy("scipy.signal")
def correlate2d(
    in1: ArrayLike, in2: ArrayLike, mode: str = "full", boundary: str = "fill", fillvalue: complex = 0
) -> Array:
    """Cross-correlate two arrays of two axes, `in1` continued beyond its boundary.

    Parameters
    ----------
    in1, in2, mode, boundary, fillvalue
        As in `convolve2d`.

    Returns
    -------
    array of shape (P, Q)

    Raises
    ------
    ValueError
        As `scipy.signal.correlate2d`.
    """
    first, second = _pair(in1, in2)
    result = _in_the_plane(first, np.flip(np.conj(second)), mode, True, boundary, fillvalue)
    is_swapped = mode == "valid" and any(n < m for n, m in zip(first.shape, second.shape, strict=True))
    return np.conj(result) if is_swapped and result.dtype.kind == "c" else result  # the smaller is conjugated


@or_scipy("scipy.signal")
def fftconvolve(in1: ArrayLike, in2: ArrayLike, mode: str = "full", axes: int | Sequence[int] | None = None) -> Array:
    """Convolve two arrays along some axes by the Fourier transform; the others are broadcast.

    Parameters
    ----------
    in1, in2 : arrays of the same number of axes
        Their extents along the axes that are not in `axes` are equal, or 1.
    mode
        As in `convolve`.
    axes : int or sequence of ints, optional
        By default all.

    Returns
    -------
    array of floating point or complex numbers
        Integers are transformed as float64, and not rounded.

    Raises
    ------
    ValueError
        As `scipy.signal.fftconvolve`.
    """
    first, second = (_transformable(array) for array in _pair(in1, in2))
    chosen = chosen_axes(axes, first.ndim)
    along = [a for a in chosen if first.shape[a] != 1 and second.shape[a] != 1]
    across = [a for a in range(first.ndim) if a not in along]
    outer = [max(first.shape[a], second.shape[a]) for a in across]
    if not 1 <= len(along) <= 3 or any(
        {first.shape[a], second.shape[a]} - {1, n} for a, n in zip(across, outer, strict=True)
    ):
        leave()
    parts = _parts(mode, [first.shape[a] for a in along], [second.shape[a] for a in along])
    stacked = _convolved_stacks(
        _stacked(first, across, along, outer), _stacked(second, across, along, outer), parts, "fft"
    )
    result = stacked.reshape(*outer, *(part.length for part in parts))
    if mode == "same":
        kept = (Part((n - first.shape[a]) // 2, first.shape[a]) for a, n in zip(across, outer, strict=True))
        result = result[tuple(slice(part.start, part.start + part.length) for part in kept)]
    return np.ascontiguousarray(np.moveaxis(result, range(first.ndim), [*across, *along]))


@or_scipy("scipy.signal")
def oaconvolve(in1: ArrayLike, in2: ArrayLike, mode: str = "full", axes: int | Sequence[int] | None = None) -> Array:
    """Convolve as `fftconvolve`, which goes tile by tile wherever that is cheaper.

    Parameters
    ----------
    in1, in2, mode, axes
        As in `fftconvolve`.

    Returns
    -------
    array of floating point or complex numbers

    Raises
    ------
    ValueError
        As `scipy.signal.oaconvolve`.
    """
    _pair(in1, in2)
    return fftconvolve(in1, in2, mode, axes)


@or_scipy("scipy.signal")
def choose_conv_method(
    in1: ArrayLike, in2: ArrayLike, mode: str = "full", measure: bool = False
) -> str | tuple[str, dict[str, float]]:
    """The method that `convolve` takes for arrays of these shapes and types, or the one that is measured to be faster.

    Parameters
    ----------
    in1, in2, mode
        As in `convolve`.
    measure : bool
        Run both.

    Returns
    -------
    "direct" or "fft"; with `measure`, also a dictionary with the seconds of each
    """
    if measure:
        times = {method: _seconds(in1, in2, mode, method) for method in ("fft", "direct")}
        return min(times, key=lambda method: times[method]), times
    first, second = _pair(in1, in2)
    placed = _placed(first[np.newaxis], second[np.newaxis], _parts(mode, first.shape, second.shape))
    return "fft" if _correlation.algorithm_for(*placed) == "fft" else "direct"


def correlation_lags(in1_len: int, in2_len: int, mode: str = "full") -> Array:
    """The lag of each element of ``correlate(in1, in2, mode)`` in one dimension; `scipy.signal.correlation_lags`.

    Parameters
    ----------
    in1_len, in2_len : int
        Extents of both arrays.
    mode
        As in `correlate`.

    Returns
    -------
    array of integers
    """
    from scipy import signal

    lags: Array = signal.correlation_lags(in1_len, in2_len, mode)
    return lags


# ---- arguments


def _pair(in1: ArrayLike, in2: ArrayLike) -> tuple[Array, Array]:
    """Both as arrays of the same rank that fastconv serves."""
    first, second = served_array(in1), served_array(in2)
    if first.ndim != second.ndim or np.result_type(first, second).name not in COMPUTE_DTYPES:
        leave()
    return first, second


class Part(NamedTuple):
    """Elements of the full convolution along an axis."""

    start: int
    length: int


def _parts(mode: str, first: Sequence[int], second: Sequence[int], after: bool = False) -> list[Part]:
    """What a mode keeps of the full convolution along each axis; after: of two middles, the later one."""
    pairs = list(zip(first, second, strict=True))
    if mode == "full":
        return [Part(0, n + m - 1) for n, m in pairs]
    if mode == "same":
        return [Part((m - (not after)) // 2, n) for n, m in pairs]
    if mode != "valid" or not (all(n >= m for n, m in pairs) or all(n <= m for n, m in pairs)):
        leave()
    return [Part(min(n, m) - 1, abs(n - m) + 1) for n, m in pairs]


# ---- convolutions; a stack is an array of shape (B, *extents), or (1, *extents) for all of a batch


def _by_method(first: Array, second: Array, mode: str, method: str) -> Array:
    """What `convolve` gives."""
    dtype = np.result_type(first, second)
    if method not in METHODS or (dtype == np.float16 and first.ndim > 1 and method != "fft"):
        leave()
    parts = _parts(mode, first.shape, second.shape)
    if method == "fft":
        if all(1 in pair for pair in zip(first.shape, second.shape, strict=True)):
            leave()  # SciPy multiplies
        first, second = _transformable(first), _transformable(second)
    result = _convolved(first, second, parts, method)
    if result.dtype == dtype:
        return result
    return (np.rint(result) if dtype.kind in "iu" else result).astype(dtype)


def _convolved(first: Array, second: Array, parts: list[Part], algorithm: str) -> Array:
    """The parts of the full convolution of two arrays."""
    result = _convolved_stacks(first[np.newaxis], second[np.newaxis], parts, algorithm)
    return result.reshape(result.shape[1:])


def _convolved_stacks(first: Array, second: Array, parts: list[Part], algorithm: str) -> Array:
    """The parts of the full convolution of each of a batch, whose axis is the first."""
    x, w, border = _placed(first, second, parts)
    return _correlation.correlate_stacks(x, w, border, algorithm)


def _placed(first: Array, second: Array, parts: list[Part]) -> tuple[Array, Array, Border]:
    """The correlation that gives the parts: the smaller array is the filter, and of the other what it reaches."""
    if math.prod(second.shape[1:]) > math.prod(first.shape[1:]):
        first, second = second, first
    batch = max(first.shape[0], second.shape[0])
    x = np.broadcast_to(first, (batch, *first.shape[1:]))
    reached, pads = [slice(None)], []
    for n, m, part in zip(first.shape[1:], second.shape[1:], parts, strict=True):
        low, high = m - 1 - part.start, part.start + part.length - n
        reached.append(slice(max(0, -low), n - max(0, -high)))
        pads.append((max(0, low), max(0, high)))
    return x[tuple(reached)], np.flip(second, tuple(range(1, second.ndim))), Border(tuple(pads))


def _in_the_plane(first: Array, second: Array, mode: str, after: bool, boundary: str, fillvalue: Any) -> Array:
    """The convolution of one array, continued beyond its boundary, with another; after: as `_parts` takes it."""
    parts = _parts(mode, first.shape, second.shape, after)
    dtype = np.result_type(first, second)
    fits = isinstance(fillvalue, (int, float, complex, np.number)) and (dtype.kind == "c" or np.isrealobj(fillvalue))
    if first.ndim != 2 or boundary not in BOUNDARIES or dtype == np.float16 or not fits:
        leave()
    padding_mode = BOUNDARIES[boundary]
    if mode == "valid" or (padding_mode == "constant" and fillvalue == 0):
        return _convolved(first, second, parts, "auto")
    extents = zip(first.shape, second.shape, parts, strict=True)
    pads = tuple((m - 1 - part.start, part.start + part.length - n) for n, m, part in extents)
    border = Border(pads, padding_mode, fillvalue if padding_mode == "constant" else 0)
    return _correlation.correlate(first, np.flip(second), border)


def _transformable(array: Array) -> Array:
    """The array in a type that SciPy transforms: no integers, no half precision."""
    if array.dtype.kind in "iu":
        return array.astype(np.float64)
    return array.astype(np.float32) if array.dtype.name == "float16" else array


def _stacked(array: Array, across: list[int], along: list[int], outer: list[int]) -> Array:
    """The array with the axes of a batch in front, as one; of extent 1 where it is the same for all of them."""
    moved = np.transpose(array, [*across, *along])
    extents = moved.shape[len(across) :]
    if math.prod(moved.shape[: len(across)]) == 1:
        return moved.reshape(1, *extents)
    return np.broadcast_to(moved, (*outer, *extents)).reshape(-1, *extents)


def _seconds(in1: ArrayLike, in2: ArrayLike, mode: str, method: str) -> float:
    """Time of a call: the best of as many as fit, after one that plans and compiles."""
    convolve(in1, in2, mode, method)
    best, start = math.inf, perf_counter()
    while perf_counter() - start < MEASURED_SECONDS or best == math.inf:
        begun = perf_counter()
        convolve(in1, in2, mode, method)
        best = min(best, perf_counter() - begun)
    return best
