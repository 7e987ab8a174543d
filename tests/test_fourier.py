"""The transforms of `fastconv.cpu._fourier` against NumPy's, in both directions, for every radix and type."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from fastconv.core.jit import kernel
from fastconv.cpu._fourier import LENGTHS, add_passes, frequencies, radices, transform, transform_back
from fastconv.cpu._gemm import lanes_of
from fastconv.cpu._geometry import Tables
from fastconv.cpu._kernel import SIZES, views
from fastconv.cpu._launch import Launch

# 4 and 8 are a last pass alone; the others hold every radix as a pass with factors.
SIZES_TESTED = [4, 8, 12, 20, *LENGTHS]
Header = NamedTuple("Header", [(f"size_{number}", int) for number in range(SIZES)] + [("pitch", int), ("table", int)])
PRECISION = {"float32": 2.0**-24, "float64": 2.0**-53}


@kernel
def _there(task, x, w, y, residual, constants, workspace, geometry):
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    transform(x, 0, geometry[SIZES], geometry, geometry[SIZES + 1])


@kernel
def _back(task, x, w, y, residual, constants, workspace, geometry):
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    transform_back(x, 0, geometry[SIZES], geometry, geometry[SIZES + 1])


def run(compiled, points, dtype, apart=1):
    """The kernel's result for complex points (n, lanes) that stand `apart` points from each other."""
    n, lanes = points.shape
    data = np.full((n, apart, 2, lanes), np.nan, dtype)
    data[:, 0, 0], data[:, 0, 1] = points.real, points.imag
    tables = Tables(Header)
    geometry = tables.vector(pitch=apart * 2 * lanes, table=add_passes(tables, n, dtype))
    geometry[:SIZES] = data.size, 1, 1, 1, 1, 1, geometry.size
    none = np.zeros(1, dtype)
    Launch(compiled, 1, dtype, geometry, 1)(data, none, none, none, none, 1)
    assert np.all(np.isnan(data[:, 1:]))
    return data[:, 0, 0] + 1j * data[:, 0, 1]


def points_of(n, dtype):
    parts = np.random.default_rng(n).standard_normal((2, n, lanes_of(dtype))).astype(dtype)
    return parts[0] + 1j * parts[1]


@pytest.mark.parametrize("dtype", PRECISION)
@pytest.mark.parametrize("n", SIZES_TESTED)
def test_every_lane_is_transformed_by_itself(n, dtype):
    points = points_of(n, dtype)
    expected = np.fft.fft(points.astype(np.complex128), axis=0)
    error = np.abs(run(_there, points, dtype) - expected[frequencies(n)])
    # A pass rounds a few times; 4 of the random walk over all passes is the largest of many results.
    assert error.max() < 4 * PRECISION[dtype] * np.sqrt(n) * np.sqrt(3 * np.log2(n))


@pytest.mark.parametrize("n", SIZES_TESTED)
def test_there_and_back_is_n_times_the_points(n):
    points = points_of(n, "float64")
    result = run(_back, run(_there, points, "float64"), "float64")
    np.testing.assert_allclose(result, n * points, rtol=0, atol=1e-14 * n)


def test_points_may_stand_apart():
    points = points_of(48, "float32")
    np.testing.assert_array_equal(run(_there, points, "float32", apart=3), run(_there, points, "float32"))


@pytest.mark.parametrize("n", SIZES_TESTED)
def test_radices_and_frequencies_are_complete(n):
    assert np.prod(radices(n)) == n
    assert radices(n)[-1] in (4, 8)
    assert sorted(frequencies(n)) == list(range(n))
