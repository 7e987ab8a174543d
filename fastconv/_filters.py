"""Filters that keep the shape of an array, as `scipy.ndimage` defines them: borders, origins, and types.

SciPy sums in float64 and converts each sum to the type of the output. Here

- float32 to float32 is summed in float32;
- integers with weights that are integers, to integers, are summed exactly, modulo the width of the result;
- everything else is summed in float64. Where that is cut to an integer, and a sum lies so near to one that the order of
  its terms decides, the call is left to SciPy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ._correlation import Border, Pass, correlate, correlate_in_passes
from ._dialect import leave
from .core.arrays import Array, allocate, is_plain
from .core.problem import COMPUTE_DTYPES

# The names of `scipy.ndimage` for what lies beyond the edge, and those of fastconv.
PADDING_MODES = {
    "reflect": "symmetric",
    "grid-mirror": "symmetric",
    "mirror": "reflect",
    "nearest": "replicate",
    "wrap": "circular",
    "grid-wrap": "circular",
    "constant": "constant",
    "grid-constant": "constant",
}
# Weights that are multiples of it, and sums of less than 2**53 of them, are exact in float64 in any order.
FRACTION = 2.0**-20
# Weights that are changed for the sake of their sum, at most: each leaves no more than half of what was lost.
GIVEN = 4


class Window(NamedTuple):
    """Where weights stand, and what they meet beyond the edge.

    Attributes
    ----------
    mode, cval
        A padding mode of fastconv, and the pad value.
    origins
        For each axis, how far the weights are moved towards its beginning.
    """

    mode: str
    cval: complex
    origins: tuple[int, ...]

    def reversed(self, extents: tuple[int, ...]) -> Window:
        """Where the weights stand when they are reversed: of an even number, the centre is the one before."""
        return self._replace(origins=tuple(-o - (n % 2 == 0) for o, n in zip(self.origins, extents, strict=True)))

    def border(self, extents: tuple[int, ...], part: str = "real") -> Border:
        """The padding that keeps the shape of an array; part: of the pad value, "real" or "imag"."""
        low = [n // 2 + o for n, o in zip(extents, self.origins, strict=True)]
        if any(not 0 <= before < n for before, n in zip(low, extents, strict=True)):
            leave()
        pads = tuple((before, n - 1 - before) for before, n in zip(low, extents, strict=True))
        return Border(pads, self.mode, getattr(self.cval, part) if self.mode == "constant" else 0)


class Target(NamedTuple):
    """The type of a result, and the array for it where the caller gave one."""

    dtype: np.dtype[Any]
    array: Array | None

    def take(self, result: Array) -> Array:
        """The result, in the array if there is one."""
        if self.array is None or result is self.array:
            return result
        self.array[...] = result
        return self.array


def target_of(output: Any, array: Array, is_complex: bool) -> Target:
    """What ``output=`` means for an input."""
    given = None
    if output is None:
        dtype = np.dtype(np.promote_types(array.dtype, np.complex64) if is_complex else array.dtype.name)
    elif isinstance(output, (str, type, np.dtype)):
        dtype = np.dtype(output)
    else:
        given = np.asarray(output)
        dtype = given.dtype
        if given.shape != array.shape or not given.flags.writeable:
            leave()
    if dtype.name not in COMPUTE_DTYPES or dtype.name == "float16" or is_complex != (dtype.kind == "c"):
        leave()
    return Target(dtype, given)


class Step(NamedTuple):
    """Weights of as many axes as the array, float64 or complex128, and where they stand."""

    weights: Array
    window: Window


def filtered(array: Array, weights: Array, window: Window, output: Any) -> Array:
    """The correlation of an array with weights, into what ``output=`` means."""
    target = target_of(output, array, "c" in (array.dtype.kind, weights.dtype.kind))
    return _filtered(array, weights, window, target)


def filtered_in_steps(array: Array, steps: Sequence[Step], target: Target) -> Array:
    """Correlations with real weights one after the other, each of which gives the type of the target."""
    if not steps:
        return target.take(array.astype(target.dtype))
    if target.dtype.kind == "f" and array.dtype.kind != "c" and target.dtype in (array.dtype, np.float64):
        passes = [Pass(rounded(weights, target.dtype), window.border(weights.shape)) for weights, window in steps]
        x = array.astype(target.dtype, copy=False)
        return target.take(correlate_in_passes(x, passes, _writable(target, array)))
    for weights, window in steps[:-1]:
        array = _filtered(array, weights, window, target._replace(array=None))
    return _filtered(array, *steps[-1], target)


def _filtered(array: Array, weights: Array, window: Window, target: Target) -> Array:
    if target.dtype.kind == "c":
        return target.take(_of_complex(array, weights, window, target.dtype))
    return target.take(_of_real(array, weights, window.border(weights.shape), target))


def _writable(target: Target, array: Array) -> Array | None:
    """The target's array if a result of its type can be written to it straight away, while the input is read."""
    out = target.array
    if out is None or not is_plain(out, target.dtype) or np.may_share_memory(out, array):
        return None
    return out


def _of_complex(array: Array, weights: Array, window: Window, dtype: np.dtype[Any]) -> Array:
    """Real and imaginary parts apart, so that a NaN in one does not reach the other."""
    result = allocate(array.shape, dtype)
    part = Target(result.real.dtype, None)

    def correlated(of_array: str, of_weights: str) -> Array:
        taps = getattr(weights, of_weights)
        return _of_real(getattr(array, of_array), taps, window.border(weights.shape, of_array), part)

    if array.dtype.kind != "c":
        result.real, result.imag = correlated("real", "real"), correlated("real", "imag")
    elif weights.dtype.kind != "c":
        result.real, result.imag = correlated("real", "real"), correlated("imag", "real")
    else:
        result.real = correlated("real", "real") - correlated("imag", "imag")
        result.imag = correlated("real", "imag") + correlated("imag", "real")
    return result


def _of_real(array: Array, weights: Array, border: Border, target: Target) -> Array:
    """The result in the target's type; in its array if that can be written to straight away."""
    dtype = target.dtype
    if dtype.kind in "iu":
        if array.dtype.kind in "iu" and _are_whole(weights, border.value):
            return _of_integers(array, weights, border, dtype.itemsize).astype(dtype)
        return _cut(array, weights, border, dtype)
    computed = np.dtype("float32" if array.dtype == dtype == np.float32 else "float64")
    out = _writable(target, array) if dtype == computed else None
    result = correlate(array.astype(computed, copy=False), rounded(weights, computed), border, out=out)
    return result.astype(dtype, copy=False) if out is None else out


def rounded(weights: Array, dtype: np.dtype[Any]) -> Array:
    """Weights in a narrower type; what that takes from their sum is given to the largest ones that can hold it.

    A smoothed image keeps its brightness: a Gaussian whose weights are only rounded changes it by up to 2**-25.
    """
    result = weights.astype(dtype)
    if dtype == weights.dtype or not np.all(np.isfinite(result)):
        return result
    for _ in range(GIVEN):
        lost = float(weights.sum()) - float(result.sum(dtype=np.float64))
        holding = np.where(np.spacing(np.abs(result)) <= abs(lost), np.abs(result), 0)
        place = np.unravel_index(int(np.argmax(holding)), holding.shape)
        if lost == 0 or holding[place] == 0:
            break
        result[place] += dtype.type(lost)
    return result


# ---- integers


def _are_whole(weights: Array, cval: complex) -> bool:
    """Whether weights and pad value are integers."""
    values = np.append(weights, cval)
    return bool(np.all(values == np.rint(values)) and np.abs(values).max() < 2.0**53)


def _of_integers(array: Array, weights: Array, border: Border, bytes: int) -> Array:
    """The exact sums modulo 2**32 or 2**64, for a result of this many bytes."""
    dtype = np.dtype("int64" if bytes > 4 else "int32")
    value = int(np.int64(border.value.real).astype(dtype))
    x, w = array.astype(dtype, copy=False), weights.astype(np.int64).astype(dtype)
    return correlate(x, w, border._replace(value=value))


def _cut(array: Array, weights: Array, border: Border, dtype: np.dtype[Any]) -> Array:
    """Sums in float64, cut to integers, where rounding cannot decide which."""
    sums = correlate(array.astype(np.float64), weights, border, "direct")
    largest = max(abs(float(array.max())), abs(float(array.min())), abs(border.value))
    total = float(np.abs(weights).sum()) * largest
    steps = np.append(weights, border.value) / FRACTION
    is_exact = array.dtype.kind in "iu" and bool(np.all(steps == np.rint(steps))) and total / FRACTION < 2.0**53
    # Either sum of n terms is off by n / 2**53 of the sum of their magnitudes at most.
    error = 0.0 if is_exact else 4 * weights.size * 2.0**-53 * total
    if not math.isfinite(error) or (not is_exact and bool(np.any(np.abs(sums - np.rint(sums)) <= error))):
        leave()
    return cut(sums, dtype)


def cut(sums: Array, dtype: np.dtype[Any]) -> Array:
    """Numbers below 2**63 without their fractions, modulo the width of a type of integers."""
    return sums.astype(np.int64).astype(dtype)


def uniform(array: Array, extents: tuple[int, ...], window: Window, target: Target) -> Array:
    """The mean of a window, as the sum over it divided by its size."""
    size = math.prod(extents)
    if array.dtype.kind in "iu" and target.dtype.kind in "iu":
        largest = max(abs(int(array.max())), abs(int(array.min())), math.ceil(abs(window.cval)))
        if largest * size >= 2**53 or not float(window.cval).is_integer():  # type: ignore[arg-type]
            leave()
        sums = _of_integers(array, np.ones(extents), window.border(extents), 8)
        return target.take(cut(sums / size, target.dtype))
    return filtered(array, np.full(extents, 1 / size), window, target.dtype if target.array is None else target.array)
