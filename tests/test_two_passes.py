"""Two passes in one launch: every border, size and type, nothing around the result, and when it is taken."""

from __future__ import annotations

import numpy as np
import pytest

from fastconv import ndimage
from fastconv._two_passes import two_passes
from fastconv.core.boundary import PADDING_MODES, source_index
from fastconv.core.problem import ConvProblem
from fastconv.cpu import passes

from .test_guards import guarded

# Height and width, taps down and across, pads above, below, before and behind: around the lanes of a register, the
# lengths of runs of taps and the lines of a task.
SIZES = [
    (1, 1, 1, 1, 0, 0, 0, 0),
    (16, 16, 3, 3, 1, 1, 1, 1),
    (17, 15, 5, 8, 2, 2, 3, 4),
    (40, 33, 8, 17, 0, 0, 0, 0),
    (65, 50, 1, 9, 0, 0, 8, 0),
    (130, 31, 17, 1, 16, 16, 0, 0),
    (3, 2, 12, 13, 10, 11, 9, 14),
]
OUTSIDE = 3.0, -5.0


def problems(sizes, mode="zeros", dtype="float32", images=1):
    """The passes as problems."""
    height, width, down, across, *pads = sizes
    first = ConvProblem.parse(f"x={images}x1x{height}x{width} w=1x1x{down}x1 p={pads[0]}:{pads[1]}x0:0")
    first = first.replace(padding_mode=mode, dtype=dtype)
    return first, first.replace(
        input=first.output, filter=(1, 1, across), padding=((0, 0), (0, 0), (pads[2], pads[3]))
    )  # fmt: skip


def data(down, across, dtype):
    """Small integers, whose sums are exact: x, and the weights of both passes."""
    rng = np.random.default_rng(0)
    sizes = down.x_shape, down.filter[1], across.filter[2]
    return [rng.integers(-4, 5, size).astype(dtype) for size in sizes]


def along(x, weights, axis, problem, outside):
    """A pass, element by element."""
    index = source_index(x.shape[axis], *problem.padding[axis - 1], problem.padding_mode)
    taken = np.moveaxis(np.take(x, index, axis), axis, -1).astype(np.float64)
    taken[..., index < 0] = outside
    return np.moveaxis(np.lib.stride_tricks.sliding_window_view(taken, weights.size, -1) @ weights, -1, axis)


def expected(x, weights, down, across):
    t = along(x, weights[0], 2, down, OUTSIDE[0])
    return along(t, weights[1], 3, across, OUTSIDE[1])


def computed(x, weights, down, across, y, threads=2):
    outside = np.array(OUTSIDE, y.dtype)
    passes.plan(down, across)(x, np.concatenate(weights), y, outside, threads)
    return y


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("sizes", SIZES)
def test_every_border_and_size(sizes, mode, dtype):
    down, across = problems(sizes, mode, dtype, images=2)
    x, *weights = data(down, across, dtype)
    y, intact = guarded(across.y_shape, dtype)
    np.testing.assert_array_equal(computed(x, weights, down, across, y), expected(x, weights, down, across))
    assert intact()


@pytest.mark.parametrize("first", range(4))
def test_images_that_begin_anywhere_in_a_register(first):
    down, across = problems((40, 64, 9, 9, 4, 4, 4, 4), "symmetric")
    x, *weights = data(down, across, "float32")
    moved = [np.empty(x.size + first, np.float32)[first:].reshape(x.shape) for _ in range(2)]
    moved[0][...] = x
    found = computed(moved[0], weights, down, across, moved[1])
    np.testing.assert_array_equal(found, expected(x, weights, down, across))


def test_the_result_does_not_depend_on_the_threads():
    down, across = problems((300, 90, 7, 9, 3, 3, 4, 4))
    rng = np.random.default_rng(0)
    x, *weights = (rng.random(size, np.float32) for size in (down.x_shape, 7, 9))
    results = [computed(x, weights, down, across, np.empty(across.y_shape, np.float32), n) for n in (1, 2, 3)]
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_what_is_no_number_reaches_only_the_windows_that_hold_it():
    x = np.zeros((100, 100), np.float32)
    x[50, 40] = np.nan
    reached = np.isnan(ndimage.gaussian_filter(x, 1.0, radius=3))
    assert reached.sum() == 49
    assert reached[47:54, 37:44].all()


def test_it_is_taken_for_images_where_it_is_cheaper():
    assert two_passes(*problems((2048, 2048, 17, 17, 8, 8, 8, 8))) is not None
    assert two_passes(*problems((1, 2048, 1, 17, 0, 0, 8, 8))) is None  # most lanes of a transpose would be empty
    assert two_passes(*problems((512, 512, 9, 9, 4, 4, 4, 4), dtype="int32")) is None


@pytest.mark.parametrize("wrong", [0, 1])
def test_each_pass_has_an_axis_of_its_own(wrong):
    passes = list(problems((512, 512, 9, 9, 4, 4, 4, 4)))
    passes[wrong] = passes[wrong].replace(filter=(1, 3, 3))
    assert two_passes(*passes) is None
