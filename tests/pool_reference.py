"""Pooling window by window, in plain Python, and problems to try it on."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st


def windows_of(extent, size, stride, dilation, low, high, ceil_mode):
    """The places of x that each window of an axis has, those in the padding included, and which are inside."""
    reach, padded = dilation * (size - 1) + 1, low + extent + high
    starts = range(0, padded + stride, stride)
    if ceil_mode is False:
        starts = [start for start in starts if start + reach <= padded]
    else:  # a window more where the one before does not end at the end
        starts = [start for start in starts if start - stride + reach < padded]
    if ceil_mode is True:
        starts = [start for start in starts if start < low + extent]
    return [[start + r * dilation - low for r in range(size)] for start in starts]


def adaptive_windows_of(extent, count):
    """The places of each of so many windows that divide an axis among them."""
    return [list(range(p * extent // count, -(-(p + 1) * extent // count))) for p in range(count)]


def pool(x, windows, reduce):
    """reduce(its elements, their indices in the plane, its place) for each window of each channel of x, (N, C, ...)."""
    extents = x.shape[2:]
    shape = [len(axis) for axis in windows]
    results = np.empty((*x.shape[:2], *shape), object)
    for place in itertools.product(*map(range, shape)):
        inside = [
            [i for i in axis[p] if 0 <= i < extent] for axis, p, extent in zip(windows, place, extents, strict=True)
        ]
        elements = x[(slice(None), slice(None), *np.ix_(*inside))].reshape(*x.shape[:2], -1)
        grid = np.meshgrid(*[np.array(each, int) for each in inside], indexing="ij")
        indices = np.ravel_multi_index([each.ravel() for each in grid], extents) if grid[0].size else np.array([], int)
        for n, c in np.ndindex(x.shape[:2]):
            results[(n, c, *place)] = reduce(elements[n, c], indices, place)
    return results


def greatest(x, windows):
    """Maxima and their indices: the first of equal ones, the last NaN, and -1 in windows that have nothing."""
    least = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min

    def reduce(elements, indices, place):
        best, at = least, int(indices[0]) if indices.size else -1
        for element, index in zip(elements.tolist(), indices.tolist(), strict=True):
            if element > best or element != element:
                best, at = element, index
        return best, at

    found = pool(x, windows, reduce)
    values = np.frompyfunc(lambda pair: pair[0], 1, 1)(found).astype(x.dtype)
    return values, np.frompyfunc(lambda pair: pair[1], 1, 1)(found).astype(np.int64)


def mean(x, windows, pads=None, divisor=None):
    """Means of the elements that are there, or, with pads, of those that are there and those in the padding."""

    def reduce(elements, indices, place):
        counted = elements.size
        if pads is not None:
            counted = int(np.prod([
                sum(i < extent + high for i in axis[p])
                for axis, p, extent, (_, high) in zip(windows, place, x.shape[2:], pads, strict=True)
            ]))  # fmt: skip
        return elements.sum(dtype=np.float64) / (divisor or max(counted, 1))

    return pool(x, windows, reduce).astype(np.float64)


# ---- problems

_EXTENTS = {1: st.one_of(st.integers(1, 20), st.integers(60, 90)), 2: st.integers(1, 12), 3: st.integers(1, 6)}


@st.composite
def window_problems(draw):
    """Rank, extents, and what the functions take: kernel_size, stride, padding, dilation, ceil_mode."""
    rank = draw(st.sampled_from((1, 2, 3)))

    def per_axis(elements):
        return tuple(draw(elements) for _ in range(rank))

    extents = per_axis(_EXTENTS[rank])
    sizes, strides = per_axis(st.integers(1, 5)), per_axis(st.integers(1, 4))
    dilations, pads = per_axis(st.integers(1, 3)), per_axis(st.tuples(st.integers(0, 4), st.integers(0, 4)))
    ceil_mode = draw(st.sampled_from((False, True, "all")))
    windows = [
        windows_of(*parts, *pad, ceil_mode)
        for *parts, pad in zip(extents, sizes, strides, dilations, pads, strict=True)
    ]
    assume(all(windows))
    return rank, extents, (sizes, strides, pads, dilations, ceil_mode), windows


def random_input(shape, dtype, seed):
    """Numbers many of which are equal, and some of which are NaN where the type has it."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind in "iu":
        info = np.iinfo(dtype)
        return rng.choice(np.array([info.min, info.min + 1, info.max // 2, info.max - 1, info.max], dtype), shape)
    x = rng.integers(-3, 4, shape).astype(dtype)
    x[rng.random(shape) < 0.05] = np.nan
    x[rng.random(shape) < 0.05] = -np.inf
    return x


def in_layout(x, layout):
    """An array of (N, C, ...) in a layout."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)) if layout == "channels_last" else x
