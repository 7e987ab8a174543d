"""Pooling against plain Python: windows of every kind, both layouts, NaN, and what goes by indices."""

from __future__ import annotations

import numpy as np
import pytest

from fastconv.core.pool_problem import PoolOp, PoolProblem
from fastconv.cuda._device import DTYPES
from fastconv.cuda._pool_indices import ASTRAY, OUTSIDE
from fastconv.cuda._pool_power import power_of
from fastconv.cuda._queue import SimulatedQueue
from fastconv.cuda.pooling import plan, refusal
from tests import pool_reference
from tests.pool_reference import in_layout, random_input

from .devices import TOLERANCE, error, from_device, poisoned, to_device

every_layout = pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
# Extents, channels, then size, stride, padding, dilation and ceil_mode, along each axis or for all.
WINDOWS = (
    ((7, 9), 3, (2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1), False),
    ((8, 7), 4, (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1), True),
    ((11,), 3, (3,), (2,), ((2, 3),), (2,), False),
    ((4, 5, 6), 4, (2, 3, 2), (2, 1, 3), ((1, 0), (0, 2), (1, 1)), (1, 1, 2), "all"),
    ((9, 13), 3, (5, 9), (3, 2), ((1, 2), (3, 0)), (1, 1), True),  # windows that a warp shares
    ((3,), 2, (1,), (4,), ((4, 4),), (1,), False),  # windows with nothing in them
)


def problem_of(case, layout, dtype="float32", **parameters):
    extents, channels, *window = case
    shape = (2, *extents, channels) if layout == "channels_last" else (2, channels, *extents)
    return PoolProblem.from_windows(shape, len(extents), *window, layout=layout, dtype=dtype, **parameters)


def windows_of(case):
    extents, _, sizes, strides, pads, dilations, ceil_mode = case
    return [
        pool_reference.windows_of(*parts, *pad, ceil_mode)
        for *parts, pad in zip(extents, sizes, strides, dilations, pads, strict=True)
    ]


def computed(problem, op, given, indices=None, alarm=None):
    """The result of a problem's plan, as float64 in its shape; float16 and bfloat16 come as they are there."""
    shape = problem.x_shape if op.gives_x else problem.y_shape
    result = poisoned(int(np.prod(shape)), problem.dtype)
    flat = None if indices is None else indices.reshape(-1)
    plan(problem, op)(SimulatedQueue(), to_device(given, problem.dtype), flat, result, alarm)
    return from_device(result, problem.dtype).reshape(shape)


def moved(x, layout):
    return in_layout(x, layout)


@every_layout
@pytest.mark.parametrize("case", WINDOWS)
def test_the_greatest_and_its_index_are_those_of_plain_python(case, layout):
    problem = problem_of(case, layout)
    x = random_input((2, case[1], *case[0]), "float32", 0)
    values, places = pool_reference.greatest(x, windows_of(case))
    indices = np.full(problem.y_shape, 99, np.int64)
    flat = indices.reshape(-1)
    result = computed(problem, PoolOp.MAX_WITH_INDICES, moved(x, layout), flat)
    np.testing.assert_array_equal(result, moved(values, layout))
    np.testing.assert_array_equal(indices, moved(places, layout))
    np.testing.assert_array_equal(computed(problem, PoolOp.MAX, moved(x, layout)), moved(values, layout))


@every_layout
@pytest.mark.parametrize("counts_padding", [False, True])
@pytest.mark.parametrize("case", WINDOWS[:-1])
def test_the_mean_is_that_of_plain_python(case, counts_padding, layout):
    problem = problem_of(case, layout, count_include_pad=counts_padding)
    x = np.random.default_rng(1).standard_normal((2, case[1], *case[0])).astype(np.float32)
    right = pool_reference.mean(x, windows_of(case), case[4] if counts_padding else None)
    assert error(computed(problem, PoolOp.MEAN, moved(x, layout)), moved(right, layout)) < 1e-6


@every_layout
@pytest.mark.parametrize("case", [*WINDOWS[:-1], None])
def test_the_gradient_of_the_mean_is_its_adjoint(case, layout):
    if case is None:
        shape = (2, 7, 5, 3) if layout == "channels_last" else (2, 3, 7, 5)
        problem = PoolProblem.adaptive(shape, 2, (3, 7), layout=layout)
    else:
        problem = problem_of(case, layout)
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal(problem.x_shape), rng.standard_normal(problem.y_shape)
    forward, backward = computed(problem, PoolOp.MEAN, x), computed(problem, PoolOp.MEAN_GRADIENT, y)
    assert abs(np.vdot(forward, y) - np.vdot(x, backward)) < 1e-5 * np.linalg.norm(x) * np.linalg.norm(y)


@every_layout
def test_adaptive_windows_are_those_of_plain_python(layout):
    x = np.random.default_rng(3).standard_normal((2, 4, 7, 5)).astype(np.float32)
    windows = [pool_reference.adaptive_windows_of(*each) for each in ((7, 3), (5, 7))]
    problem = PoolProblem.adaptive(moved(x, layout).shape, 2, (3, 7), layout=layout)
    assert (
        error(computed(problem, PoolOp.MEAN, moved(x, layout)), moved(pool_reference.mean(x, windows), layout)) < 1e-6
    )


@pytest.mark.parametrize("dtype", DTYPES)
@every_layout
def test_every_type_is_pooled(layout, dtype):
    problem = problem_of(WINDOWS[1], layout, dtype if dtype != "bfloat16" else "float32").replace(dtype=dtype)
    x = from_device(to_device(np.random.default_rng(4).standard_normal((2, 4, 8, 7)), dtype), dtype)
    x = x.reshape(2, 4, 8, 7)
    values, _ = pool_reference.greatest(x, windows_of(WINDOWS[1]))
    np.testing.assert_array_equal(computed(problem, PoolOp.MAX, moved(x, layout)), moved(values, layout))
    right = moved(pool_reference.mean(x, windows_of(WINDOWS[1])), layout)
    assert error(computed(problem, PoolOp.MEAN, moved(x, layout)), right) < 4 * TOLERANCE[dtype]


def placed(problem, given, indices, accumulates):
    """What lands in each plane, one by one."""
    is_last = problem.layout == "channels_last"
    given, indices = (np.moveaxis(each, -1, 1) if is_last else each for each in (given, indices))
    planes = np.zeros((problem.N, problem.C, problem.plane))
    for n, c in np.ndindex(problem.N, problem.C):
        for value, index in zip(given[n, c].reshape(-1), indices[n, c].reshape(-1), strict=True):
            if index >= 0:
                planes[n, c, index] = planes[n, c, index] + value if accumulates else value
    planes = planes.reshape(problem.N, problem.C, *[axis.input for axis in problem.axes[3 - problem.rank :]])
    return np.moveaxis(planes, 1, -1) if is_last else planes


@every_layout
@pytest.mark.parametrize("op", [PoolOp.ADD_AT, PoolOp.PUT_AT])
def test_values_land_at_their_indices_in_order(op, layout):
    shape = (2, 5, 30, 3) if layout == "channels_last" else (2, 3, 5, 30)
    problem = PoolProblem.from_extents(shape, 2, (60, 40), layout=layout, dtype="float32")
    rng = np.random.default_rng(5)
    given, indices = rng.standard_normal(shape), rng.integers(-1, 2400, shape)
    indices.reshape(-1)[::3] = 7
    alarm = np.zeros(1, np.int32)
    right = placed(problem, given.astype(np.float32), indices, op is PoolOp.ADD_AT)
    np.testing.assert_allclose(computed(problem, op, given, indices, alarm), right, rtol=1e-4, atol=1e-5)
    assert alarm[0] == 0


@every_layout
@pytest.mark.parametrize("case", [*WINDOWS, None])
def test_the_gradient_of_the_greatest_adds_up_where_the_windows_chose(case, layout):
    if case is None:
        shape = (2, 7, 5, 4) if layout == "channels_last" else (2, 4, 7, 5)
        problem = PoolProblem.adaptive(shape, 2, (3, 7), layout=layout)
    else:
        problem = problem_of(case, layout)
    rng = np.random.default_rng(8)
    x, y = (rng.integers(-3, 4, shape).astype(np.float32) for shape in (problem.x_shape, problem.y_shape))
    indices, alarm = np.full(problem.y_shape, 99, np.int64), np.zeros(1, np.int32)
    computed(problem, PoolOp.MAX_WITH_INDICES, x, indices.reshape(-1))
    right = placed(problem, y, indices, True)
    np.testing.assert_array_equal(computed(problem, PoolOp.MAX_GRADIENT, y, indices, alarm), right)
    assert alarm[0] == 0
    # An index of another window counts too, and one outside of the plane is said to be.
    for stray, raised in ((problem.plane - 1, ASTRAY), (problem.plane, OUTSIDE)):
        indices.flat[0], alarm[0] = stray, 0
        result = computed(problem, PoolOp.MAX_GRADIENT, y, indices, alarm)
        assert alarm[0] == raised
        if raised == ASTRAY:
            np.testing.assert_array_equal(result, placed(problem, y, indices, True))


@every_layout
def test_elements_are_taken_and_bad_indices_raise_the_alarm(layout):
    shape = (2, 3, 4, 3) if layout == "channels_last" else (2, 3, 3, 4)
    problem = PoolProblem.from_extents(shape, 2, (5, 6), layout=layout, dtype="float32")
    rng = np.random.default_rng(6)
    x, y, indices = rng.standard_normal(problem.x_shape), rng.standard_normal(shape), rng.integers(0, 30, shape)
    alarm = np.zeros(1, np.int32)
    taken, put = (
        computed(problem, PoolOp.TAKE_AT, x, indices, alarm),
        computed(problem, PoolOp.ADD_AT, y, indices, alarm),
    )
    assert abs(np.vdot(taken, y) - np.vdot(x, put)) < 1e-5 * np.linalg.norm(x) * np.linalg.norm(y)
    assert alarm[0] == 0
    for op, given in ((PoolOp.TAKE_AT, x), (PoolOp.PUT_AT, y)):
        for bad in (30, -2):
            indices.reshape(-1)[5], alarm[0] = bad, 0
            computed(problem, op, given, indices, alarm)
            assert alarm[0] == 1


@pytest.mark.parametrize("exponent", [1, 2, 3, 0.5, -1.5])
@pytest.mark.parametrize("size", [0, 1, 256, 300])
def test_powers(exponent, size):
    x = np.random.default_rng(7).uniform(0.1, 2, size).astype(np.float32)
    y = poisoned(size, "float32")
    power_of(size, "float32", exponent)(SimulatedQueue(), x, x, y)
    np.testing.assert_allclose(y, x**exponent, rtol=1e-6)


def test_powers_scaled_and_multiplied_and_zero_where_x_is():
    x, factor = np.array([0, 1, 2, 3], np.float32), np.array([5, 6, 7, 8], np.float32)
    y = poisoned(4, "float32")
    power_of(4, "float32", -0.5, scale=4, gain=3, has_factor=True)(SimulatedQueue(), x, factor, y)
    np.testing.assert_allclose(y, [0, *(3 * (4 * x[1:]) ** -0.5 * factor[1:])], rtol=1e-6)


def test_what_indices_cannot_count_is_refused():
    assert refusal(problem_of(WINDOWS[0], "channels_first")) is None
    assert "31 bits" in refusal(PoolProblem.adaptive((1, 2, 1 << 15, 1 << 15), 2, 1, dtype="float32"))
    assert "int32" in refusal(problem_of(WINDOWS[0], "channels_first").replace(dtype="int32"))
