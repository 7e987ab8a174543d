"""Large results are stored past the caches: the same results, wherever they begin in memory."""

from __future__ import annotations

import math

import numpy as np
import pytest

import fastconv
from fastconv import grad
from fastconv.core.arrays import LINE_BYTES, on_a_line
from fastconv.cpu._past_caches import LEAST_BYTES

# Height and width of 64 planes of float32 or float64: whole registers or not, and whole turns of the loops or not.
EXTENTS = [(256, 256), (260, 272), (256, 257)]


def in_memory(shape, dtype, ahead):
    """NaN, from so many elements after the beginning of a cache line on."""
    elements = math.prod(shape)
    memory = on_a_line(elements + LINE_BYTES, dtype)[ahead : ahead + elements].reshape(shape)
    memory[...] = np.nan
    return memory


def check(shape, dtype, call):
    """Results that begin with a cache line are those that do not, which are stored as any others."""
    assert math.prod(shape) * np.dtype(dtype).itemsize >= LEAST_BYTES
    expected = call(out=in_memory(shape, dtype, 1))
    assert not np.isnan(expected).any()
    for ahead in (0, 8):
        np.testing.assert_array_equal(call(out=in_memory(shape, dtype, ahead)), expected)


def normal(shape, dtype="float32", seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def planes(extents, layout, scale=1):
    """The shape of 64 planes whose extents are so many times as large."""
    height, width = (scale * extent for extent in extents)
    return (1, 64, height, width) if layout == "channels_first" else (1, height, width, 64)


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("extents", EXTENTS, ids=str)
@pytest.mark.parametrize("window", [(2, 2, 0), (3, 1, 1)], ids=str)
def test_pooling(window, extents, layout, num_threads):
    x = normal(planes(extents, layout, window[1]))
    options = {"layout": layout, "num_threads": num_threads}
    for pool in (fastconv.max_pool2d, fastconv.avg_pool2d):
        check(planes(extents, layout), "float32", lambda out, pool=pool: pool(x, *window, **options, out=out))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("extents", EXTENTS, ids=str)
@pytest.mark.parametrize("window", [(3, 2, 1), (2, 2, 0), (3, 1, 1)], ids=str)
def test_gradients_of_pooling(window, extents, layout, dtype):
    shape = planes(extents, layout)
    x = normal(shape, dtype)
    options = {"layout": layout, "num_threads": 2}
    _, indices = fastconv.max_pool2d(x, *window, return_indices=True, **options)
    y = normal(indices.shape, dtype, seed=1)
    check(shape, dtype, lambda out: grad.avg_pool2d_backward(y, shape, *window, **options, out=out))
    check(shape, dtype, lambda out: grad.max_pool2d_backward(y, x, *window, indices=indices, **options, out=out))


@pytest.mark.parametrize("parameters", [{}, {"bias": normal(1)}, {"activation": "relu"}], ids=str)
@pytest.mark.parametrize("extent", [3, 5, 7])
@pytest.mark.parametrize("shape", [(1, 1, 2048, 2048), (1, 1, 2050, 2064), (2, 1, 1500, 1424)], ids=str)
def test_images(shape, extent, parameters):
    x, weight = normal(shape), normal((1, 1, extent, extent), seed=1)
    options = {"padding": "same", "algorithm": "direct", "num_threads": 2, **parameters}
    check(shape, "float32", lambda out: fastconv.conv2d(x, weight, **options, out=out))


@pytest.mark.parametrize("parameters", [{}, {"bias": normal(64)}], ids=["plain", "bias"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("extent", [1, 3])
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("extents", EXTENTS, ids=str)
def test_wide_images_of_few_channels(extents, layout, extent, dtype, parameters):
    shape = (1, 3, *extents) if layout == "channels_first" else (1, *extents, 3)
    x, weight = normal(shape, dtype), normal((64, 3, extent, extent), dtype, seed=1)
    parameters = {name: value.astype(dtype) for name, value in parameters.items()}
    options = {"padding": "same", "algorithm": "direct", "layout": layout, "num_threads": 2, **parameters}
    check(planes(extents, layout), dtype, lambda out: fastconv.conv2d(x, weight, **options, out=out))


@pytest.mark.parametrize("parameters", [{}, {"bias": normal(64)}], ids=["plain", "bias"])
@pytest.mark.parametrize("extents", EXTENTS, ids=str)
def test_depthwise_filters(extents, parameters):
    shape = planes(extents, "channels_first")
    x, weight = normal(shape), normal((64, 1, 3, 3), seed=1)
    options = {"padding": 1, "groups": 64, "algorithm": "direct", "num_threads": 2, **parameters}
    check(shape, "float32", lambda out: fastconv.conv2d(x, weight, **options, out=out))
    check(shape, "float32", lambda out: fastconv.conv_transpose2d(x, weight, **options, out=out))


@pytest.mark.parametrize("parameters", [{}, {"bias": normal(64)}], ids=["plain", "bias"])
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("extents", EXTENTS, ids=str)
def test_depthwise_gradients_of_strides(extents, padding, parameters):
    """The transposed convolution is the gradient of the input."""
    shape = planes(extents, "channels_first")
    outputs = tuple((extent + 2 * padding - 3) // 2 + 1 for extent in extents)
    rest = tuple(extent + 2 * padding - 3 - 2 * (p - 1) for extent, p in zip(extents, outputs, strict=True))
    y, weight = normal((1, 64, *outputs)), normal((64, 1, 3, 3), seed=1)
    options = {"stride": 2, "padding": padding, "output_padding": rest, "groups": 64, "num_threads": 2, **parameters}
    check(shape, "float32", lambda out: fastconv.conv_transpose2d(y, weight, **options, algorithm="direct", out=out))


@pytest.mark.parametrize("ahead", range(17))
def test_registers_of_channels_begin_where_they_do_in_x(ahead):
    """And then not where they do in y."""
    x = in_memory((1, 7, 7, 512), "float32", ahead)
    x[...] = np.rint(4 * normal(x.shape))  # whose sums are exact
    y = fastconv.avg_pool2d(x, 7, layout="channels_last", out=in_memory((1, 1, 1, 512), "float32", 3 * ahead % 17))
    np.testing.assert_array_equal(y, x.sum((1, 2), keepdims=True) / np.float32(49))
