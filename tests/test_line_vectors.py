"""Lines in vectors: what exists is read and written, and nothing around it."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from fastconv.cpu._line_vectors import (
    behind_boundary,
    by_turns,
    half_of,
    load_inside,
    squared,
    store_transposed,
)
from fastconv.cpu._simd import lanes, load, store

DTYPES = ["float32", "float64", "int32", "complex64"]


@numba.njit
def _lanes(array):
    return lanes(array)


@numba.njit
def _loaded(source, low, high, target):
    store(target, 0, load_inside(source, 0, low, high, 2))


@numba.njit
def _parted(source, evens, odds):
    value = load(source, 0, 2)
    store(evens, 0, half_of(value, 0))
    store(odds, 0, half_of(value, 1))


@numba.njit
def _joined(evens, odds, target):
    store(target, 0, by_turns(load(evens, 0, 1), load(odds, 0, 1)))


@numba.njit
def _cleared_in_squares(target, line, lines, low, high):
    store_transposed(target, 0, line, lines, low, high, squared(target))


@numba.njit
def _behind(array, at):
    return behind_boundary(array, at)


def numbers(dtype, registers=2):
    """1, 2, ... in so many registers."""
    return np.arange(1, registers * _lanes(np.zeros(1, dtype)) + 1).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_elements_outside_are_zeros(dtype):
    source = numbers(dtype)
    places = np.arange(source.size)
    for low in range(source.size + 1):
        for high in range(source.size + 1):
            found = np.full_like(source, 99)
            _loaded(source, low, high, found)
            np.testing.assert_array_equal(found, np.where((places >= low) & (places < high), source, 0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_lanes_are_taken_apart_and_put_together_by_turns(dtype):
    source = numbers(dtype)
    evens, odds, joined = numbers(dtype, 1), numbers(dtype, 1), np.zeros_like(source)
    _parted(source, evens, odds)
    np.testing.assert_array_equal(evens, source[::2])
    np.testing.assert_array_equal(odds, source[1::2])
    _joined(evens, odds, joined)
    np.testing.assert_array_equal(joined, source)


@pytest.mark.parametrize("dtype", DTYPES)
def test_only_lines_and_lanes_inside_of_a_square_are_stored(dtype):
    count = numbers(dtype, 1).size
    for lines, low, high in ((count, 0, count), (1, 1, count), (count - 1, 0, 1), (0, 0, count)):
        target = np.ones((count, count + 3), dtype)
        expected = target.copy()
        expected[:lines, low:high] = 0
        _cleared_in_squares(target.reshape(-1), count + 3, lines, low, high)
        np.testing.assert_array_equal(target, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_places_behind_a_boundary(dtype):
    array, bytes = np.zeros(40, dtype), numbers(dtype, 1).nbytes
    for at in range(20):
        assert _behind(array, at) * array.itemsize == array[at:].ctypes.data % bytes
