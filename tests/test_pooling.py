"""Pooling: every window against plain Python, PyTorch's and ONNX's rules, types, layouts, edges and errors."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastconv
from fastconv.core.problem import COMPUTE_DTYPES

from . import pool_reference as reference
from .pool_reference import adaptive_windows_of, in_layout, random_input, window_problems, windows_of

LAYOUTS = ("channels_first", "channels_last")
REAL = [name for name in COMPUTE_DTYPES if np.dtype(name).kind != "c"]
ROOT = pathlib.Path(__file__).parents[1]


def function(name, rank):
    return getattr(fastconv, f"{name}{rank}d")


# ---- the greatest


@given(
    problem=window_problems(),
    dtype=st.sampled_from(("float32", "float64", "int8", "uint64")),
    layout=st.sampled_from(LAYOUTS),
    channels=st.sampled_from((1, 3, 17)),
    seed=st.integers(0, 9),
)
def test_max_pool_is_the_greatest_of_each_window(problem, dtype, layout, channels, seed):
    rank, extents, parameters, windows = problem
    x = random_input((2, channels, *extents), dtype, seed)
    values, indices = reference.greatest(x, windows)
    given_x, max_pool = in_layout(x, layout), function("max_pool", rank)
    np.testing.assert_array_equal(max_pool(given_x, *parameters, layout=layout), in_layout(values, layout))
    y, found = max_pool(given_x, *parameters, True, layout=layout)
    np.testing.assert_array_equal(y, in_layout(values, layout))
    np.testing.assert_array_equal(found, in_layout(indices, layout))


@pytest.mark.parametrize("dtype", REAL)
def test_max_pool_of_every_type_has_that_type(dtype):
    x = random_input((1, 2, 9, 40), dtype, 0)
    y, indices = fastconv.max_pool2d(x, 3, 2, 1, return_indices=True)
    values, places = reference.greatest(x, [windows_of(n, 3, 2, 1, 1, 1, False) for n in (9, 40)])
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, values)
    np.testing.assert_array_equal(indices, places)


def test_nan_is_greater_than_any_number_and_the_last_one_counts():
    x = np.array([[[np.nan, np.inf, 1.0, np.nan, 2.0]]])
    y, indices = fastconv.max_pool1d(x, 5, return_indices=True)
    assert np.isnan(y).all()
    assert indices.item() == 3


def test_of_equal_elements_the_first_one_counts():
    for x in (np.zeros((1, 1, 6, 40)), np.full((1, 1, 6, 40), -np.inf), np.full((1, 1, 6, 40), -128, np.int8)):
        _, indices = fastconv.max_pool2d(x, 3, 3, return_indices=True)
        np.testing.assert_array_equal(indices[0, 0], np.add.outer(40 * np.arange(0, 6, 3), np.arange(0, 39, 3)))


def test_a_window_without_elements_has_the_least_number_and_no_index():
    y, indices = fastconv.max_pool1d(np.ones((1, 1, 2)), 1, 1, padding=2, return_indices=True)
    np.testing.assert_array_equal(y[0, 0], [-np.inf, -np.inf, 1, 1, -np.inf, -np.inf])
    np.testing.assert_array_equal(indices[0, 0], [-1, -1, 0, 1, -1, -1])
    assert fastconv.max_pool1d(np.ones((1, 1, 2), np.int16), 1, 1, padding=1)[0, 0, 0] == -(2**15)


# ---- the mean


@given(
    problem=window_problems(),
    dtype=st.sampled_from(("float64", "int16")),
    layout=st.sampled_from(LAYOUTS),
    channels=st.sampled_from((1, 3, 17)),
    counting=st.sampled_from(((True, None), (False, None), (True, 7))),
)
def test_avg_pool_is_the_mean_of_each_window(problem, dtype, layout, channels, counting):
    rank, extents, (sizes, strides, pads, dilations, ceil_mode), windows = problem
    x = np.random.default_rng(0).integers(-9, 10, (2, channels, *extents)).astype(dtype)
    expected = reference.mean(x, windows, pads if counting[0] else None, counting[1])
    y = function("avg_pool", rank)(
        in_layout(x, layout), sizes, strides, pads, ceil_mode, *counting, dilations, layout=layout
    )
    assert y.dtype == np.float64
    # Sums of small integers are exact; the quotient is rounded once for each axis that has a pass of its own.
    np.testing.assert_allclose(y, in_layout(expected, layout), rtol=4 * 2.0**-53)


@pytest.mark.parametrize("dtype", REAL)
def test_the_mean_of_integers_is_float64_and_that_of_floats_has_their_type(dtype):
    x = np.arange(8).astype(dtype).reshape(1, 1, 8)
    y = fastconv.avg_pool1d(x, 2)
    assert y.dtype == (np.float64 if x.dtype.kind in "iu" else x.dtype)
    np.testing.assert_array_equal(y[0, 0], [0.5, 2.5, 4.5, 6.5])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "parameters",
    [
        ((1, 2), (1, 2), (0, 0)),
        ((2, 2), (2, 2), (0, 0)),
        ((3, 2), (2, 2), (1, 0)),
        ((2, 2), (2, 2), (2, 0)),
        ((3, 3), (2, 2), (1, 1)),
        ((1, 4), (3, 3), (0, 2)),
        ((2, 5), (1, 5), (1, 0)),
    ],
)
@pytest.mark.parametrize("long", [5, 40, 130, 600])
def test_rows_and_channels_of_any_number_are_pooled(long, parameters, layout):
    """In whole vectors, one or several at once, and in what is left."""
    shape = (1, 2, 7, long) if layout == "channels_first" else (1, long, 7, 6)
    x = np.random.default_rng(long).integers(-99, 100, shape).astype(np.float32)
    sizes, strides, pads = parameters
    windows = [windows_of(n, k, s, 1, p, p, False) for n, k, s, p in zip(shape[2:], sizes, strides, pads, strict=True)]
    given_x = in_layout(x, layout)
    y = fastconv.max_pool2d(given_x, *parameters, layout=layout)
    np.testing.assert_array_equal(y, in_layout(reference.greatest(x, windows)[0], layout))
    y = fastconv.avg_pool2d(given_x, *parameters, layout=layout)
    expected = reference.mean(x, windows, [(p, p) for p in pads])
    np.testing.assert_allclose(y, in_layout(expected, layout), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 15, 37])
@pytest.mark.parametrize("extent", [3, 7, 16])
def test_planes_are_averaged_many_at_once(channels, extent):
    x = np.random.default_rng(0).integers(-99, 100, (3, channels, extent, extent)).astype(np.float32)
    np.testing.assert_allclose(fastconv.global_avg_pool2d(x), x.mean((2, 3), keepdims=True), rtol=1e-6)
    np.testing.assert_array_equal(fastconv.global_max_pool2d(x), x.max((2, 3), keepdims=True))


def test_float16_is_averaged_in_float32():
    """The sum of 4096 times 17 is no float16."""
    assert fastconv.avg_pool1d(np.full((1, 1, 4096), 17, np.float16), 4096).item() == 17


def test_infinity_and_nan_reach_the_windows_that_hold_them_only():
    x = np.ones((1, 1, 5, 50))
    x[0, 0, 2, 25] = np.nan
    y = fastconv.avg_pool2d(x, 3, 1, 1)
    hit = np.zeros((5, 50), bool)
    hit[1:4, 24:27] = True
    np.testing.assert_array_equal(np.isnan(y[0, 0]), hit)


@pytest.mark.parametrize("size", [13, (7, 9), (2, 40)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_large_windows_are_pooled_axis_by_axis(size, layout):
    x = random_input((1, 3, 30, 50), "float64", 1)
    sizes = (size, size) if isinstance(size, int) else size
    windows = [windows_of(n, k, 1, 1, k // 2, k // 2, False) for n, k in zip((30, 50), sizes, strict=True)]
    pads, given_x = [k // 2 for k in sizes], in_layout(x, layout)
    values, _ = reference.greatest(x, windows)
    np.testing.assert_array_equal(fastconv.max_pool2d(given_x, size, 1, pads, layout=layout), in_layout(values, layout))
    finite = np.nan_to_num(x, neginf=0)
    for counts in (True, False):
        expected = reference.mean(finite, windows, [(k // 2,) * 2 for k in sizes] if counts else None)
        y = fastconv.avg_pool2d(in_layout(finite, layout), size, 1, pads, False, counts, layout=layout)
        np.testing.assert_allclose(y, in_layout(expected, layout), atol=1e-14)


# ---- adaptive and global


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("extents", "size"),
    [((7,), 3), ((40,), 1), ((3,), 5), ((9, 40), (2, None)), ((5, 7), (5, 7)), ((6, 5, 4), (2, 3, 1)), ((4, 4, 4), 1)],
)
def test_adaptive_windows_divide_the_axes(extents, size, layout):
    rank = len(extents)
    counts = [n if s is None else s for n, s in zip(extents, size if isinstance(size, tuple) else (size,) * rank,
                                                    strict=True)]  # fmt: skip
    windows = [adaptive_windows_of(n, count) for n, count in zip(extents, counts, strict=True)]
    x = random_input((2, 17, *extents), "float64", 2)
    y, indices = function("adaptive_max_pool", rank)(in_layout(x, layout), size, True, layout=layout)
    values, places = reference.greatest(x, windows)
    np.testing.assert_array_equal(y, in_layout(values, layout))
    np.testing.assert_array_equal(indices, in_layout(places, layout))
    finite = np.nan_to_num(x, neginf=0)
    mean = function("adaptive_avg_pool", rank)(in_layout(finite, layout), size, layout=layout)
    np.testing.assert_allclose(mean, in_layout(reference.mean(finite, windows), layout), atol=1e-14)


@pytest.mark.parametrize("size", [(None, 2), [None, 2], (3, 2)])
def test_none_is_the_extent_of_the_input(size):
    x = np.random.default_rng(0).random((2, 3, 4))
    expected = fastconv.adaptive_avg_pool2d(x, (3, 2))
    np.testing.assert_array_equal(fastconv.adaptive_avg_pool2d(x, size), expected)
    for whole in (None, (None,), (None, None)):
        np.testing.assert_array_equal(fastconv.adaptive_avg_pool2d(x, whole), x)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("extents", [(5,), (7, 7), (40, 60), (200, 300), (3, 4, 5)])
def test_global_pooling_keeps_the_axes(extents, layout):
    rank, axes = len(extents), tuple(range(2, 2 + len(extents)))
    x = np.random.default_rng(0).standard_normal((2, 5, *extents))
    mean = function("global_avg_pool", rank)(in_layout(x, layout), layout=layout)
    np.testing.assert_allclose(mean, in_layout(x.mean(axes, keepdims=True), layout), atol=1e-14)
    y, indices = function("global_max_pool", rank)(in_layout(x, layout), True, layout=layout)
    np.testing.assert_array_equal(y, in_layout(x.max(axes, keepdims=True), layout))
    flat = x.reshape(2, 5, -1).argmax(-1).reshape(2, 5, *[1] * rank)
    np.testing.assert_array_equal(indices, in_layout(flat, layout))


# ---- powers


@pytest.mark.parametrize("norm", [1, 2, 3, 0.5, 2.5])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_lp_pool_is_a_root_of_a_sum_of_powers(rank, norm):
    x = np.random.default_rng(0).random((2, 3, *(9, 8, 7)[:rank]))
    y = function("lp_pool", rank)(x, norm, 3, 2, padding=1)
    axes = tuple(range(-rank, 0))
    padded = np.pad(x**norm, [(0, 0)] * 2 + [(1, 1)] * rank)
    views = np.lib.stride_tricks.sliding_window_view(padded, (3,) * rank, axes)[(..., *[slice(None, None, 2)] * rank,
                                                                                *[slice(None)] * rank)]  # fmt: skip
    np.testing.assert_allclose(y, views.sum(axes) ** (1 / norm), rtol=1e-13)


def test_lp_pool_keeps_the_signs_as_in_pytorch():
    x = np.array([[[3.0, -4.0, -1.0, 2.0]]])
    np.testing.assert_allclose(fastconv.lp_pool1d(x, 2, 2), [[[5, 5**0.5]]])
    np.testing.assert_allclose(fastconv.lp_pool1d(x, 1, 2), [[[-1, 1]]])
    assert np.isnan(fastconv.lp_pool1d(x, 3, 2)[0, 0, 0])
    assert fastconv.lp_pool1d(x.astype(int), 2, 2).dtype == np.float64
    assert fastconv.lp_pool1d(x.astype(np.float16), 2, 2).dtype == np.float16


# ---- unpooling


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_max_unpool_puts_maxima_where_they_were(rank, layout):
    x = np.random.default_rng(0).permutation(2 * 17 * 5**rank).reshape(2, 17, *[5] * rank).astype(float) + 1
    given_x = in_layout(x, layout)
    y, indices = function("max_pool", rank)(given_x, 2, return_indices=True, layout=layout)
    back = function("max_unpool", rank)(y, indices, 2, output_size=given_x.shape, layout=layout)
    assert back.shape == given_x.shape
    assert set(y.ravel()) == set(back[back != 0])
    np.testing.assert_array_equal(back[back != 0], given_x[back != 0])
    assert function("max_unpool", rank)(y, indices, 2, output_size=[5] * rank, layout=layout).shape == given_x.shape


def test_max_unpool_of_one_index_twice_keeps_the_last_and_of_none_nothing():
    x, indices = np.array([[[1.0, 2, 3]]]), np.array([[[4, 4, -1]]])
    np.testing.assert_array_equal(fastconv.max_unpool1d(x, indices, 2), [[[0, 0, 0, 0, 2, 0]]])
    assert fastconv.max_unpool1d(x.astype(np.int8), indices, 2).dtype == np.int8


@pytest.mark.parametrize("wrong", [6, -2, 2**40])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_index_outside_of_its_plane_is_refused(wrong, layout):
    x, indices = np.zeros((1, 3, 3)), np.zeros((1, 3, 3), int)
    indices[0, 2, 1] = wrong
    with pytest.raises(ValueError, match=rf"indices={wrong}: must be -1, or at least 0 and below 6"):
        fastconv.max_unpool1d(x, indices, 2, layout=layout)


# ---- PyTorch's and ONNX's rules


def test_with_ceil_mode_the_last_window_starts_in_the_input():
    """Five elements by windows of 2, 2 apart, padded by one: the fourth would start behind them."""
    x = np.arange(1.0, 6).reshape(1, 1, 5)
    np.testing.assert_array_equal(fastconv.max_pool1d(x, 2, 2, 1, ceil_mode=True), [[[1, 3, 5]]])
    np.testing.assert_array_equal(fastconv.max_pool1d(x, 2, 3, 1, ceil_mode=True), [[[1, 4]]])
    np.testing.assert_array_equal(fastconv.max_pool1d(x, 1, 3, 1, ceil_mode=True), [[[-np.inf, 3]]])
    np.testing.assert_array_equal(fastconv.max_pool1d(x, 1, 3, 1, ceil_mode="all"), [[[-np.inf, 3, -np.inf]]])


# The examples of ONNX's operators AveragePool-22 and MaxPool-22 (onnx/backend/test/case/node).
FOUR = np.arange(1.0, 17).reshape(1, 1, 4, 4)
FIVE = np.arange(1.0, 26).reshape(1, 1, 5, 5)


def test_onnx_averagepool_2d_ceil():
    np.testing.assert_array_equal(fastconv.avg_pool2d(FOUR, 3, 2, ceil_mode=True), [[[[6, 7.5], [12, 13.5]]]])


def test_onnx_averagepool_2d_ceil_last_window_starts_on_pad():
    x = np.array([[[[0.8580, 0.0786], [0.2692, 0.1537]], [[0.8816, 0.4353], [0.5772, 0.6623]],
                   [[0.9067, 0.9483], [0.5970, 0.7630]]]])  # fmt: skip
    y = fastconv.avg_pool2d(x, 3, 3, 1, True, True)
    np.testing.assert_allclose(y, [[[[0.1511]], [[0.2841]], [[0.3572]]]], atol=1e-4)
    assert fastconv.avg_pool2d(x, 3, 3, 1, "all", True).shape == (1, 3, 2, 2)


def test_onnx_averagepool_2d_precomputed_pads():
    expected = [[7, 7.5, 8, 8.5, 9], [9.5, 10, 10.5, 11, 11.5], [12, 12.5, 13, 13.5, 14],
                [14.5, 15, 15.5, 16, 16.5], [17, 17.5, 18, 18.5, 19]]  # fmt: skip
    np.testing.assert_allclose(fastconv.avg_pool2d(FIVE, 5, 1, 2, count_include_pad=False), [[expected]])


def test_onnx_averagepool_2d_precomputed_pads_count_include_pad():
    y = fastconv.avg_pool2d(FIVE, 5, 1, 2)
    np.testing.assert_allclose(y[0, 0, 0], [2.52, 3.6, 4.8, 4.08, 3.24])
    np.testing.assert_allclose(y[0, 0, 2], [7.2, 10, 13, 10.8, 8.4])


def test_onnx_averagepool_2d_precomputed_same_upper():
    y = fastconv.avg_pool2d(FIVE, 3, 2, "same", count_include_pad=False)
    np.testing.assert_array_equal(y, [[[[4, 5.5, 7], [11.5, 13, 14.5], [19, 20.5, 22]]]])


def test_onnx_averagepool_2d_same_lower_pads_before():
    y = fastconv.avg_pool2d(FOUR, 2, 1, "same_lower", count_include_pad=False)
    np.testing.assert_array_equal(y, fastconv.avg_pool2d(FOUR, 2, 1, [(1, 0), (1, 0)], count_include_pad=False))
    assert y[0, 0, 0, 0] == 1


def test_onnx_averagepool_2d_dilations():
    np.testing.assert_array_equal(fastconv.avg_pool2d(FOUR, 2, 1, dilation=2), [[[[6, 7], [10, 11]]]])
    y = fastconv.avg_pool2d(FOUR, 2, 1, dilation=2, ceil_mode=True)
    np.testing.assert_array_equal(y, [[[[6, 7], [10, 11]]]])


def test_onnx_maxpool_2d_ceil_and_dilations():
    np.testing.assert_array_equal(fastconv.max_pool2d(FOUR, 3, 2, ceil_mode=True), [[[[11, 12], [15, 16]]]])
    np.testing.assert_array_equal(fastconv.max_pool2d(FOUR, 2, 1, dilation=2), [[[[11, 12], [15, 16]]]])


def test_onnx_maxpool_2d_ceil_output_size_reduce_by_one():
    x = np.array([[[[1.0, 2], [3, 4]]]])
    np.testing.assert_array_equal(fastconv.max_pool2d(x, 1, 2, ceil_mode=True), [[[[1]]]])


def test_onnx_maxpool_with_argmax_2d_precomputed_pads():
    y, indices = fastconv.max_pool2d(FIVE, 5, 1, 2, return_indices=True)
    np.testing.assert_array_equal(y[0, 0, :2], [[13, 14, 15, 15, 15], [18, 19, 20, 20, 20]])
    np.testing.assert_array_equal(indices, y - 1)


@given(problem=window_problems(), dtype=st.sampled_from(("float32", "float64")), seed=st.integers(0, 9))
def test_as_pytorch(problem, dtype, seed):
    """Where PyTorch has it: padding that is even and at most half a window, and averages of dense windows."""
    torch = pytest.importorskip("torch")
    rank, extents, (sizes, strides, _, dilations, ceil_mode), _ = problem
    if (
        ceil_mode == "all"
        or max(sizes) > min(extents)
        or any(d * (k - 1) >= n for d, k, n in zip(dilations, sizes, extents, strict=True))
    ):
        return
    pads = [k // 2 for k in sizes]
    x = random_input((2, 3, *extents), dtype, seed)
    given_x, functions = torch.from_numpy(x), torch.nn.functional
    y, indices = getattr(functions, f"max_pool{rank}d")(given_x, sizes, strides, pads, dilations, ceil_mode, True)
    ours = function("max_pool", rank)(x, sizes, strides, pads, dilations, ceil_mode, True)
    np.testing.assert_array_equal(ours[0], y.numpy())
    seen = ours[1] >= 0  # PyTorch has some index for windows without elements
    np.testing.assert_array_equal(ours[1][seen], indices.numpy()[seen])
    finite = np.nan_to_num(x, neginf=0)
    for counts in (True, False):
        mean = getattr(functions, f"avg_pool{rank}d")(torch.from_numpy(finite), sizes, strides, pads, ceil_mode, counts)
        ours = function("avg_pool", rank)(finite, sizes, strides, pads, ceil_mode, counts)
        np.testing.assert_allclose(ours, mean.numpy(), atol=1e-6)
    positive, size = np.abs(finite), sizes[0]
    norm = getattr(functions, f"lp_pool{rank}d")(torch.from_numpy(positive), 3, size, strides, ceil_mode)
    ours = function("lp_pool", rank)(positive, 3, size, strides, ceil_mode)
    np.testing.assert_allclose(ours, norm.numpy(), rtol=1e-5)


# ---- arrays


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["max_pool", "avg_pool"])
def test_without_a_batch_into_out_on_any_memory_and_threads(name, layout):
    x = np.random.default_rng(0).standard_normal((70, 50, 60))
    pool = function(name, 2)
    y = pool(x[np.newaxis], 3, 2, 1, layout=layout)[0]
    np.testing.assert_array_equal(pool(x, 3, 2, 1, layout=layout), y)
    for threads in (1, 2):
        np.testing.assert_array_equal(pool(x, 3, 2, 1, layout=layout, num_threads=threads), y)
    np.testing.assert_array_equal(pool(np.asfortranarray(x), 3, 2, 1, layout=layout), y)
    np.testing.assert_array_equal(pool(x.astype(">f8"), 3, 2, 1, layout=layout), y)
    out = np.full(y.shape, np.nan)
    assert pool(x, 3, 2, 1, layout=layout, out=out) is out
    np.testing.assert_array_equal(out, y)
    strided = np.full((2, *y.shape), np.nan).T[..., 0].T
    assert pool(x, 3, 2, 1, layout=layout, out=strided) is strided
    np.testing.assert_array_equal(strided, y)


def test_out_with_indices_and_with_powers():
    x = np.random.default_rng(0).random((1, 2, 8)).astype(np.float16)
    out = np.zeros((1, 2, 4), np.float16)
    y, indices = fastconv.max_pool1d(x, 2, return_indices=True, out=out)
    assert y is out
    np.testing.assert_array_equal(np.take_along_axis(x, indices, 2), out)
    assert fastconv.lp_pool1d(x, 2, 2, out=out) is out
    np.testing.assert_array_equal(out, fastconv.lp_pool1d(x, 2, 2))


@pytest.mark.parametrize("shape", [(0, 3, 6, 8), (2, 0, 6, 8)])
def test_empty_batches_and_channels_give_empty_results(shape):
    y = fastconv.max_pool2d(np.zeros(shape), 2)
    assert y.shape == (*shape[:2], 3, 4)
    y, indices = fastconv.adaptive_max_pool2d(np.zeros(shape), 1, True)
    assert y.shape == indices.shape == (*shape[:2], 1, 1)
    assert fastconv.avg_pool2d(np.zeros(shape, int), 2).dtype == np.float64
    assert fastconv.lp_pool2d(np.zeros(shape), 2, 2).shape == (*shape[:2], 3, 4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: fastconv.max_pool2d(np.zeros((1, 2, 4, 4)), 5), ValueError, "kernel_size=5: the dilated window"),
        (lambda: fastconv.max_pool2d(np.zeros((1, 2, 4, 4)), 0), ValueError, "kernel_size=0: must be an integer"),
        (lambda: fastconv.max_pool2d(np.zeros((1, 2, 4, 4)), (2, 2, 2)), ValueError, "kernel_size=.*one for each"),
        (lambda: fastconv.max_pool2d(np.zeros((4, 4)), 2), ValueError, "x.shape=.*must have 4 axes, or 3"),
        (lambda: fastconv.max_pool2d(np.zeros((1, 2, 0, 4)), 2), ValueError, "x.shape=.*at least 1"),
        (lambda: fastconv.max_pool1d(np.zeros((1, 2, 4)), 2, 0), ValueError, "stride=0"),
        (lambda: fastconv.max_pool1d(np.zeros((1, 2, 4)), 2, padding=-1), ValueError, "padding=-1"),
        (lambda: fastconv.max_pool1d(np.zeros((1, 2, 4)), 2, padding="around"), ValueError, "padding='around'"),
        (lambda: fastconv.max_pool1d(np.zeros((1, 2, 4)), 2, ceil_mode="up"), ValueError, "ceil_mode='up': must be"),
        (lambda: fastconv.max_pool1d(np.zeros((1, 2, 4)), 2, layout="last"), ValueError, "layout='last'"),
        (lambda: fastconv.max_pool1d(np.zeros((1, 2, 4), complex), 2), TypeError, "x.dtype='complex128': must"),
        (lambda: fastconv.avg_pool1d(np.zeros((1, 2, 4), bool), 2), TypeError, "x.dtype='bool'"),
        (lambda: fastconv.avg_pool1d(np.zeros((1, 2, 4)), 2, divisor_override=0), ValueError, "divisor_override=0"),
        (lambda: fastconv.avg_pool1d(np.zeros((1, 2, 4)), 2, num_threads=0), ValueError, "num_threads=0"),
        (lambda: fastconv.avg_pool1d(np.zeros((1, 2, 4)), 2, out=np.zeros((1, 2, 4))), ValueError, "out.shape="),
        (lambda: fastconv.avg_pool1d(np.zeros((1, 2, 4)), 2, out=np.zeros((1, 2, 2), "f")), TypeError, "out.dtype="),
        (lambda: fastconv.lp_pool1d(np.zeros((1, 2, 4)), 0, 2), ValueError, "norm_type=0: must be a finite number"),
        (lambda: fastconv.adaptive_avg_pool1d(np.zeros((1, 2, 4)), 0), ValueError, "output_size=0"),
        (lambda: fastconv.adaptive_max_pool2d(np.zeros((1, 2, 4, 4)), (1, 2, 3)), ValueError,
         r"output_size=\(1, 2, 3\): must be an integer or None, or one for each of the 2 axes"),
        (lambda: fastconv.max_unpool1d(np.zeros((1, 1, 2)), np.zeros((1, 1, 3), int), 2), ValueError, "indices.shape="),
        (lambda: fastconv.max_unpool1d(np.zeros((1, 1, 2)), np.zeros((1, 1, 2)), 2), TypeError, "indices.dtype="),
        (lambda: fastconv.max_unpool1d(np.zeros((1, 1, 2)), np.zeros((1, 1, 2), int), 2, output_size=[7]), ValueError,
         r"output_size=\[7\]: must differ from \(4,\)"),
    ],
)  # fmt: skip
def test_errors_name_the_argument_and_the_problem(call, error, message):
    with pytest.raises(error, match=rf"{message}.*\[problem: x="):
        call()


AT_THE_END_OF_A_PAGE = """
import ctypes, mmap
import numpy as np, fastconv
from fastconv import grad

libc = ctypes.CDLL(None, use_errno=True)
PAGE = mmap.PAGESIZE

def fenced(array, at_the_end):
    "A copy that ends, or begins, where memory that nobody may touch begins or ends."
    pages = -(-array.nbytes // PAGE)
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (0, pages + 1):
        assert libc.mprotect(ctypes.c_void_p(base + page * PAGE), ctypes.c_size_t(PAGE), 0) == 0
    first = PAGE + (pages * PAGE - array.nbytes if at_the_end else 0)
    copy = np.frombuffer(memory, array.dtype, array.size, first).reshape(array.shape)
    copy[...] = array
    return copy

rng = np.random.default_rng(0)
for at_the_end in (False, True):
    for dtype in ("float32", "int8"):
        for shape in ((1, 3, 9, 41), (2, 3, 6, 5), (1, 3, 35, 70)):
            for layout in ("channels_first", "channels_last"):
                x = fenced(rng.integers(-5, 6, shape).astype(dtype), at_the_end)
                for k, s, p, d in ((2, 2, 0, 1), (3, 2, 1, 1), (3, 1, 1, 1), (2, 3, 1, 1), (2, 1, 0, 2)):
                    y, indices = fastconv.max_pool2d(x, k, s, p, d, return_indices=True, layout=layout)
                    y, indices = fenced(y, at_the_end), fenced(indices, at_the_end)
                    fastconv.max_pool2d(x, k, s, p, d, layout=layout, out=y)
                    out = fenced(x, at_the_end)
                    grad.max_pool2d_backward(y, x, k, s, p, d, indices=indices, layout=layout, out=out)
                    if dtype == "float32":
                        fastconv.avg_pool2d(x, k, s, p, dilation=d, layout=layout, out=y)
                        grad.avg_pool2d_backward(y, x.shape, k, s, p, dilation=d, layout=layout, out=out)
print("done")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="protects pages through the C library's mprotect")
def test_nothing_is_touched_beyond_the_tensors():
    """A read or write past either end of a tensor ends the process."""
    done = subprocess.run(
        [sys.executable, "-c", AT_THE_END_OF_A_PAGE], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr[-2000:]
