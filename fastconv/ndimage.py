"""Filters in SciPy's dialect: functions of `scipy.ndimage` under their names, on the kernels of fastconv.

``from fastconv import ndimage`` in place of ``from scipy import ndimage``: the same arguments, modes, origins, types of
output, errors and warnings. What is computed in which type, where results differ from SciPy's, and which arguments go
to SciPy itself, is told in docs/scipy.md.
"""

from __future__ import annotations

import numbers
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from . import _filters
from ._dialect import chosen_axes, leave, or_scipy, served_array
from ._filters import Window
from .core.arrays import Array

__all__ = [
    "convolve",
    "convolve1d",
    "correlate",
    "correlate1d",
    "gaussian_filter",
    "gaussian_filter1d",
    "laplace",
    "sobel",
    "uniform_filter",
    "uniform_filter1d",
]

Output = Array | DTypeLike | str | None
Axes = int | Sequence[int] | None
Mode = str | Sequence[str]


@or_scipy("scipy.ndimage")
def correlate(
    input: ArrayLike,
    weights: ArrayLike,
    output: Output = None,
    mode: str = "reflect",
    cval: complex = 0.0,
    origin: int | Sequence[int] = 0,
    *,
    axes: Axes = None,
) -> Array:
    """Correlate an array with weights: ``y[p] = sum over r of weights[r] * input[p + r - extent // 2 - origin]``.

    Parameters
    ----------
    input : array of any rank
    weights : array with as many axes, or as many as `axes` names
        They count in double precision; complex ones are conjugated.
    output : array of the input's shape, or type, optional
        Where the result goes, or its type; by default the type of the input, or the complex one that goes with it.
    mode : {"reflect", "mirror", "nearest", "wrap", "constant", "grid-mirror", "grid-wrap", "grid-constant"}
        What lies beyond the edge of ``a b c d``: ``b a | a b c d | d c``, ``c b | a b c d | c b``, ``a a | a b c d | d
        d``, ``c d | a b c d | a b``, or `cval`; "grid-mirror" is "reflect".
    cval : number
        For the mode "constant".
    origin : int or one for each axis
        Moves the weights: positive ones to the left.
    axes : int or sequence of ints, optional
        The axes that the weights go along, by default all.

    Returns
    -------
    array of the input's shape
        `output` itself where it is an array.

    Raises
    ------
    RuntimeError, ValueError
        As `scipy.ndimage.correlate`.
    """
    array, filter, window = _arguments(input, weights, mode, cval, origin, axes)
    _leave_what_is_not_finite(array, filter)
    return _filters.filtered(array, np.conj(filter), window, output)


@or_scipy("scipy.ndimage")
def convolve(
    input: ArrayLike,
    weights: ArrayLike,
    output: Output = None,
    mode: str = "reflect",
    cval: complex = 0.0,
    origin: int | Sequence[int] = 0,
    *,
    axes: Axes = None,
) -> Array:
    """Convolve an array with weights: `correlate` with the weights, and where they stand, reversed.

    Parameters
    ----------
    input, weights, output, mode, cval, origin, axes
        As in `correlate`. Complex weights are taken as they are, and a positive origin moves them to the right.

    Returns
    -------
    array of the input's shape

    Raises
    ------
    RuntimeError, ValueError
        As `scipy.ndimage.convolve`.
    """
    array, filter, window = _arguments(input, weights, mode, cval, origin, axes)
    _leave_what_is_not_finite(array, filter)
    return _filters.filtered(array, np.flip(filter), window.reversed(filter.shape), output)


@or_scipy("scipy.ndimage")
def correlate1d(
    input: ArrayLike,
    weights: ArrayLike,
    axis: int = -1,
    output: Output = None,
    mode: str = "reflect",
    cval: complex = 0.0,
    origin: int = 0,
) -> Array:
    """Correlate an array with weights along one axis.

    Parameters
    ----------
    input : array of any rank
    weights : array of shape (S,)
    axis : int
    output, mode, cval, origin
        As in `correlate`.

    Returns
    -------
    array of the input's shape

    Raises
    ------
    RuntimeError, ValueError
        As `scipy.ndimage.correlate1d`.
    """
    array, filter, window = _arguments(input, weights, mode, cval, origin, axis)
    return _filters.filtered(array, np.conj(filter), window, output)


@or_scipy("scipy.ndimage")
def convolve1d(
    input: ArrayLike,
    weights: ArrayLike,
    axis: int = -1,
    output: Output = None,
    mode: str = "reflect",
    cval: complex = 0.0,
    origin: int = 0,
) -> Array:
    """Convolve an array with weights along one axis.

    Parameters
    ----------
    input, weights, axis, output, mode, cval, origin
        As in `correlate1d` and `convolve`.

    Returns
    -------
    array of the input's shape

    Raises
    ------
    RuntimeError, ValueError
        As `scipy.ndimage.convolve1d`.
    """
    array, filter, window = _arguments(input, weights, mode, cval, origin, axis)
    return _filters.filtered(array, np.flip(filter), window.reversed(filter.shape), output)


@or_scipy("scipy.ndimage")
def gaussian_filter1d(
    input: ArrayLike,
    sigma: float,
    axis: int = -1,
    order: int = 0,
    output: Output = None,
    mode: str = "reflect",
    cval: complex = 0.0,
    truncate: float = 4.0,
    *,
    radius: int | None = None,
) -> Array:
    """Smooth an array by a Gaussian, or take a derivative of that, along one axis.

    Parameters
    ----------
    input : array of any rank
    sigma : float
        Standard deviation, in elements.
    axis : int
    order : int
        Of the derivative; 0 smooths.
    output, mode, cval
        As in `correlate`.
    truncate, radius
        The filter has 2 * radius + 1 elements; the radius is sigma * truncate, rounded, unless given.

    Returns
    -------
    array of the input's shape

    Raises
    ------
    RuntimeError, ValueError
        As `scipy.ndimage.gaussian_filter1d`.
    """
    weights = _gaussian(sigma, order, int(truncate * float(sigma) + 0.5) if radius is None else radius)
    return correlate1d(input, weights, axis, output, mode, cval)


@or_scipy("scipy.ndimage")
def gaussian_filter(
    input: ArrayLike,
    sigma: float | Sequence[float],
    order: int | Sequence[int] = 0,
    output: Output = None,
    mode: Mode = "reflect",
    cval: complex = 0.0,
    truncate: float = 4.0,
    *,
    radius: int | Sequence[int] | None = None,
    axes: Axes = None,
) -> Array:
    """Smooth an array by a Gaussian along all or some axes, one after the other.

    Parameters
    ----------
    input : array of any rank
    sigma, order, mode, radius
        As in `gaussian_filter1d`, for all axes or for each.
    output, cval, truncate
        As in `gaussian_filter1d`. What one axis gives to the next has the type of the output.
    axes : int or sequence of ints, optional
        By default all.

    Returns
    -------
    array of the input's shape

    Raises
    ------
    RuntimeError, ValueError
        As `scipy.ndimage.gaussian_filter`.
    """
    array = served_array(input)
    chosen = chosen_axes(axes, array.ndim)
    sigmas, orders, modes, radii = (_each(given, len(chosen)) for given in (sigma, order, mode, radius))
    passes = []
    for axis, deviation, derivative, beyond, reach in zip(chosen, sigmas, orders, modes, radii, strict=True):
        if deviation > 1e-15:
            radius_here = int(truncate * float(deviation) + 0.5) if reach is None else reach
            passes.append((_gaussian(deviation, derivative, radius_here), axis, beyond))
    return _in_passes(array, passes, output, cval)


@or_scipy("scipy.ndimage")
def uniform_filter1d(
    input: ArrayLike,
    size: int,
    axis: int = -1,
    output: Output = None,
    mode: str = "reflect",
    cval: complex = 0.0,
    origin: int = 0,
) -> Array:
    """The mean of each window along one axis.

    Parameters
    ----------
    input : array of any rank
    size : int
        Elements of a window.
    axis, output, mode, cval, origin
        As in `correlate1d`.

    Returns
    -------
    array of the input's shape
        Integers are summed exactly, then divided and cut.

    Raises
    ------
    RuntimeError, ValueError
        As `scipy.ndimage.uniform_filter1d`.
    """
    if size < 1:
        leave()
    array, filter, window = _arguments(input, np.ones(operator.index(size)), mode, cval, origin, axis)
    target = _filters.target_of(output, array, array.dtype.kind == "c")
    return _filters.uniform(array, filter.shape, window, target)


@or_scipy("scipy.ndimage")
def uniform_filter(
    input: ArrayLike,
    size: int | Sequence[int] = 3,
    output: Output = None,
    mode: Mode = "reflect",
    cval: complex = 0.0,
    origin: int | Sequence[int] = 0,
    *,
    axes: Axes = None,
) -> Array:
    """The mean of each window along all or some axes, one after the other.

    Parameters
    ----------
    input : array of any rank
    size, mode, origin
        As in `uniform_filter1d`, for all axes or for each.
    output, cval
        As in `correlate`. What one axis gives to the next has the type of the output.
    axes : int or sequence of ints, optional
        By default all.

    Returns
    -------
    array of the input's shape

    Raises
    ------
    RuntimeError, ValueError
        As `scipy.ndimage.uniform_filter`.
    """
    array = served_array(input)
    target = _filters.target_of(output, array, array.dtype.kind == "c")
    chosen = chosen_axes(axes, array.ndim)
    result = array
    for axis, extent, beyond, moved in zip(chosen, *(_each(g, len(chosen)) for g in (size, mode, origin)), strict=True):
        if extent > 1:
            result, filter, window = _arguments(result, np.ones(int(extent)), beyond, cval, moved, axis)
            result = _filters.uniform(result, filter.shape, window, target._replace(array=None))
    return target.take(result if result is not array else array.astype(target.dtype))


@or_scipy("scipy.ndimage")
def sobel(
    input: ArrayLike, axis: int = -1, output: Output = None, mode: Mode = "reflect", cval: complex = 0.0
) -> Array:
    """Sobel's derivative: differences ``[-1, 0, 1]`` along one axis, smoothed by ``[1, 2, 1]`` along the others.

    Parameters
    ----------
    input : array of any rank
    axis : int
    output, cval
        As in `correlate`. What one axis gives to the next has the type of the output.
    mode
        For all axes or for each.

    Returns
    -------
    array of the input's shape

    Raises
    ------
    RuntimeError, ValueError
        As `scipy.ndimage.sobel`.
    """
    array = served_array(input)
    (along,) = chosen_axes(axis, array.ndim)
    modes = _each(mode, array.ndim)
    passes: list[Along] = [([-1, 0, 1], along, modes[along])]
    passes += [([1, 2, 1], other, modes[other]) for other in range(array.ndim) if other != along]
    return _in_passes(array, passes, output, cval)


@or_scipy("scipy.ndimage")
def laplace(
    input: ArrayLike, output: Output = None, mode: Mode = "reflect", cval: complex = 0.0, *, axes: Axes = None
) -> Array:
    """The sum of the second differences ``[1, -2, 1]`` along all or some axes.

    Parameters
    ----------
    input : array of any rank
    output, cval
        As in `correlate`.
    mode
        For all axes or for each.
    axes : int or sequence of ints, optional
        By default all.

    Returns
    -------
    array of the input's shape

    Raises
    ------
    RuntimeError, ValueError
        As `scipy.ndimage.laplace`.
    """
    array = served_array(input)
    target = _filters.target_of(output, array, array.dtype.kind == "c")
    chosen = chosen_axes(axes, array.ndim)
    total = None
    for axis, beyond in zip(chosen, _each(mode, len(chosen)), strict=True):
        once = _in_passes(array, [([1, -2, 1], axis, beyond)], target.dtype, cval)
        total = once if total is None else np.add(total, once, out=total)
    return target.take(array.astype(target.dtype) if total is None else total)


# ---- arguments

Along = tuple[ArrayLike, int, str]  # weights, axis, mode


def _arguments(
    input: ArrayLike, weights: ArrayLike, mode: Any, cval: Any, origin: Any, axes: Any
) -> tuple[Array, Array, Window]:
    """The input, weights of as many axes in double precision, and where these stand."""
    array, filter = served_array(input), np.asarray(weights)
    if array.dtype.name == "float16" or filter.dtype.kind not in "biufc" or mode.__hash__ is None:
        leave()
    chosen = chosen_axes(axes, array.ndim)
    if mode not in _filters.PADDING_MODES or filter.ndim != len(chosen) or filter.size == 0 or np.ndim(cval) != 0:
        leave()
    if np.iscomplexobj(cval) and array.dtype.kind != "c":
        leave()
    origins = _each(origin, len(chosen))
    if len(chosen) < array.ndim:
        placed = dict(zip(chosen, origins, strict=True))
        origins = [placed.get(axis, 0) for axis in range(array.ndim)]
        filter = np.expand_dims(filter, [axis for axis in range(array.ndim) if axis not in placed])
    filter = filter.astype(np.complex128 if filter.dtype.kind == "c" else np.float64)
    return array, filter, Window(_filters.PADDING_MODES[mode], cval, tuple(map(operator.index, origins)))


def _leave_what_is_not_finite(array: Array, weights: Array) -> None:
    """SciPy leaves out elements under a weight of 0, where a NaN does no harm, and weights that are NaN themselves."""
    if np.isnan(weights).any():
        leave()
    if weights.all() or array.dtype.kind in "iu":
        return
    with np.errstate(all="ignore"):
        if not np.isfinite(array.sum()):
            leave()


def _each(given: Any, count: int) -> list[Any]:
    """One value for each of some axes, from one for all or as many."""
    values = list(given) if np.iterable(given) and not isinstance(given, str) else [given] * count
    if len(values) != count:
        leave()
    return values


def _in_passes(array: Array, passes: Sequence[Along], output: Any, cval: Any) -> Array:
    """Correlations one after the other, each of them to the type of the output."""
    target = _filters.target_of(output, array, array.dtype.kind == "c")
    steps = []
    for weights, axis, mode in passes:
        _, filter, window = _arguments(array, weights, mode, cval, 0, axis)
        steps.append(_filters.Step(filter, window))
    return _filters.filtered_in_steps(array, steps, target)


def _gaussian(sigma: float, order: int, radius: int) -> Array:
    """A derivative of a normal distribution, at the whole numbers from radius down to -radius.

    The derivatives of ``q(x) * exp(-x**2 / (2 * sigma**2))``, with a polynomial q, are of this form again::

        (q * exp)' = (q' - q * x / sigma**2) * exp
    """
    if order < 0 or not isinstance(radius, numbers.Integral) or radius < 0:
        leave()
    variance = float(sigma) * float(sigma)
    x = np.arange(-radius, radius + 1)
    density = np.exp(-0.5 / variance * x**2)
    density = density / density.sum()
    polynomial = np.ones(1)
    for _ in range(order):
        polynomial = np.polynomial.polynomial.polysub(
            np.polynomial.polynomial.polyder(polynomial), np.polynomial.polynomial.polymulx(polynomial) / variance
        )
    return np.flip(np.polynomial.polynomial.polyval(x, polynomial) * density if order else density)
