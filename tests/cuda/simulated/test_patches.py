"""The patch matrix and its adjoint: every padding mode, both ways that the matrix lies, both layouts."""

from __future__ import annotations

import numpy as np
import pytest

from fastconv.core.boundary import OUTSIDE, PADDING_MODES, source_index
from fastconv.core.patch_problem import patch_problem
from fastconv.core.problem import Op
from fastconv.cuda._device import DTYPES
from fastconv.cuda._queue import SimulatedQueue
from fastconv.cuda.patches import plan, refusal

from .devices import TOLERANCE, error, from_device, poisoned, to_device

# Extents, then kernel_size, stride, padding and dilation.
CASES = (
    ((5, 6), (3, 2), (1, 2), ((1, 1), (0, 2)), (1, 1)),
    ((9,), (3,), (2,), ((3, 1),), (2,)),
    ((3, 4, 5), (2, 1, 3), (1, 2, 1), ((0, 1), (0, 0), (2, 1)), (1, 1, 2)),
    ((17, 19), (2, 2), (1, 1), ((0, 0), (0, 0)), (1, 1)),
)
every_layout = pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
every_way = pytest.mark.parametrize("pixel_rows", [False, True])


def problem_of(case, layout, mode="zeros", dtype="float32", channels=3):
    extents, *window = case
    shape = (2, *extents, channels) if layout == "channels_last" else (2, channels, *extents)
    value = 1.5 if mode == "constant" else 0
    problem = patch_problem(shape, *window, padding_mode=mode, pad_value=value, layout=layout)
    return problem.replace(dtype=dtype)


def patches_of(problem, x, pixel_rows):
    """The matrix, from a padded copy of x."""
    lead = 3 - problem.rank
    x = np.moveaxis(x, -1, 1) if problem.layout == "channels_last" else x
    for axis in range(problem.rank):
        sources = source_index(x.shape[2 + axis], *problem.padding[lead + axis], problem.padding_mode)
        x = x.take(sources, 2 + axis)
        x[(slice(None),) * (2 + axis) + (sources == OUTSIDE,)] = problem.pad_value
    rows = np.empty((problem.N, problem.C, problem.taps, problem.pixels))
    for tap, places in enumerate(np.ndindex(*problem.filter[lead:])):
        cut = tuple(
            slice(place * d, place * d + s * (size - 1) + 1, s)
            for place, d, s, size in zip(
                places, problem.dilation[lead:], problem.stride[lead:], problem.output[lead:], strict=True
            )
        )
        rows[:, :, tap] = x[(slice(None), slice(None), *cut)].reshape(problem.N, problem.C, -1)
    rows = rows.reshape(problem.N, problem.K, problem.pixels)
    return rows.swapaxes(1, 2) if pixel_rows else rows


def gathered(problem, x, pixel_rows):
    shape = (problem.N, problem.pixels, problem.K) if pixel_rows else (problem.N, problem.K, problem.pixels)
    matrix = poisoned(int(np.prod(shape)), problem.dtype)
    plan(problem, Op.FORWARD, pixel_rows)(SimulatedQueue(), to_device(x, problem.dtype), matrix)
    return from_device(matrix, problem.dtype).reshape(shape)


def added(problem, matrix, pixel_rows):
    x = poisoned(int(np.prod(problem.x_shape)), problem.dtype)
    plan(problem, Op.GRAD_INPUT, pixel_rows)(SimulatedQueue(), x, to_device(matrix, problem.dtype))
    return from_device(x, problem.dtype).reshape(problem.x_shape)


@every_layout
@every_way
@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("case", CASES)
def test_patches_are_copied_and_added_up(case, mode, pixel_rows, layout):
    problem, rng = problem_of(case, layout, mode), np.random.default_rng(0)
    x = rng.integers(-9, 9, problem.x_shape).astype(float)
    right = patches_of(problem, x, pixel_rows)
    np.testing.assert_array_equal(gathered(problem, x, pixel_rows), right)
    if mode != "constant":
        matrix = rng.integers(-9, 9, right.shape).astype(float)
        assert np.vdot(right, matrix) == np.vdot(x, added(problem, matrix, pixel_rows))


@every_way
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_is_moved(dtype, pixel_rows):
    problem = problem_of(CASES[0], "channels_last", "reflect", dtype)
    x = np.random.default_rng(1).standard_normal(problem.x_shape)
    x = from_device(to_device(x, dtype), dtype).reshape(problem.x_shape)
    right = patches_of(problem, x, pixel_rows)
    np.testing.assert_array_equal(gathered(problem, x, pixel_rows), right)
    wide = added(problem.replace(dtype="float64"), right, pixel_rows)
    assert error(added(problem, right, pixel_rows), wide) < 4 * TOLERANCE[dtype]


def test_what_indices_cannot_count_is_refused():
    assert refusal(problem_of(CASES[0], "channels_first")) is None
    assert "matrix" in refusal(patch_problem((1, 64, 4096, 4096), (3, 3)))
