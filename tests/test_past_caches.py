"""Large results are stored past the caches: the same results, wherever they begin in memory."""

from __future__ import annotations

import numpy as np
import pytest

import fastconv
from fastconv import grad, pooling
from fastconv.core.arrays import LINE_BYTES, on_a_line
from fastconv.cpu import _pool_lines
from fastconv.cpu import pooling as plans

# Channels, height and width that are whole registers of every type, and some that are not.
EXTENTS = [(64, 6, 32), (256, 4, 128), (5, 7, 64), (48, 5, 33)]
WINDOWS = [(2, 2, 0), (3, 2, 1), (3, 1, 1), (4, 3, 2)]


@pytest.fixture
def from_any_size(monkeypatch):
    """Results of any size go past the caches, once this is called."""

    def forget():
        plans.plan.cache_clear()
        pooling.windows_call.forget()

    def begin():
        monkeypatch.setattr(_pool_lines, "PAST_CACHES_BYTES", 0)
        forget()

    forget()
    yield begin
    forget()


def in_memory(shape, dtype, ahead):
    """An array that begins so many elements after a cache line."""
    dtype = np.dtype(dtype)
    memory = on_a_line(int(np.prod(shape)) + LINE_BYTES, dtype)
    return memory[ahead : ahead + int(np.prod(shape))].reshape(shape)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("extents", EXTENTS, ids=str)
@pytest.mark.parametrize("num_threads", [1, 2])
def test_the_results_are_the_same(extents, window, layout, dtype, num_threads, from_any_size):
    C, H, W = extents
    shape = (2, C, H, W) if layout == "channels_first" else (2, H, W, C)
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    options = {"layout": layout, "num_threads": num_threads}
    _, indices = fastconv.max_pool2d(x, *window, return_indices=True, **options)
    y = np.random.default_rng(1).standard_normal(indices.shape).astype(dtype)
    calls = [
        (indices.shape, lambda **out: fastconv.max_pool2d(x, *window, **options, **out)),
        (indices.shape, lambda **out: fastconv.avg_pool2d(x, *window, **options, **out)),
        (shape, lambda **out: grad.avg_pool2d_backward(y, shape, *window, **options, **out)),
        (shape, lambda **out: grad.max_pool2d_backward(y, x, *window, indices=indices, **options, **out)),
    ]
    expected = [call() for _, call in calls]
    from_any_size()
    for (result_shape, call), right in zip(calls, expected, strict=True):
        for ahead in (0, 1, 8):
            result = in_memory(result_shape, dtype, ahead)
            result[...] = np.nan
            call(out=result)
            np.testing.assert_array_equal(result, right)


def test_x_may_begin_anywhere(from_any_size):
    """Registers of channels begin where they do in x, and then not where they do in y."""
    expected = None
    from_any_size()
    for ahead in range(17):
        x = in_memory((1, 7, 7, 512), np.float32, ahead)
        x[...] = np.random.default_rng(0).standard_normal(x.shape)
        y = in_memory((1, 1, 1, 512), np.float32, (3 * ahead) % 17)
        fastconv.avg_pool2d(x, 7, layout="channels_last", out=y)
        expected = y.copy() if expected is None else expected
        np.testing.assert_array_equal(y, expected)
