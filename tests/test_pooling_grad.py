"""Gradients of pooling: finite differences, PyTorch's where it is installed, order and threads, edges and errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastconv
from fastconv import grad

from .pool_reference import in_layout, window_problems
from .test_grad import difference

LAYOUTS = ("channels_first", "channels_last")


def pair(name, rank):
    return getattr(fastconv, f"{name}{rank}d"), getattr(grad, f"{name}{rank}d_backward")


def distinct(shape, seed=0):
    """Numbers no two of which are nearer than 1e-2, so that small steps do not change which is the greatest."""
    size = int(np.prod(shape))
    return np.random.default_rng(seed).permutation(size).reshape(shape) * 1e-2 + 0.5


def close(first, second):
    # Central differences: the truncation of third derivatives below 1e3 is 1e-9, the rounding of sums near 100 1e-8.
    np.testing.assert_allclose(first, second, atol=1e-6)


# Parameters by position after x, and extents, for every rank: strides 1, 2 and more, gaps, overlaps, uneven padding.
WINDOWS = [
    ((7,), (3, 1, 1)),
    ((8,), (2, 2, 0)),
    ((9,), (2, 3, [(2, 0)])),
    ((11,), (4, 3, 2)),
    ((5, 6), (3, 2, 1)),
    ((4, 5), ((2, 3), (1, 2), [(0, 1), (2, 1)])),
    ((3, 4, 5), (2, 2, 0)),
    ((3, 3, 4), ((2, 3, 2), 1, 1)),
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize(("extents", "window"), WINDOWS)
def test_max_pool(extents, window, ceil_mode, layout):
    pool, backward = pair("max_pool", len(extents))
    x = in_layout(distinct((2, 2, *extents)), layout)
    for dilation in (1, 2) if min(extents) > 4 else (1,):
        rest = (*window, dilation, ceil_mode)
        y, indices = pool(x, *rest, True, layout=layout)
        some = indices >= 0
        g = np.random.default_rng(1).standard_normal(y.shape) * some

        def loss(v, rest=rest, some=some, g=g):
            return np.vdot(pool(v, *rest, layout=layout)[some], g[some])

        expected = difference(loss, x)
        close(backward(g, x, *rest, layout=layout), expected)
        close(backward(g, x, *rest, indices=indices, layout=layout), expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize(("extents", "window"), WINDOWS)
def test_avg_pool(extents, window, ceil_mode, layout):
    pool, backward = pair("avg_pool", len(extents))
    x = in_layout(np.random.default_rng(0).standard_normal((2, 2, *extents)), layout)
    for counting in ((True, None), (False, None), (True, 3)):
        for dilation in (1, 2) if min(extents) > 4 else (1,):
            rest = (ceil_mode, *counting, dilation)
            g = np.random.default_rng(1).standard_normal(pool(x, *window, *rest, layout=layout).shape)
            expected = difference(lambda v, g=g, rest=rest: np.vdot(pool(v, *window, *rest, layout=layout), g), x)
            close(backward(g, x.shape, *window, *rest, layout=layout), expected)


@given(problem=window_problems(), layout=st.sampled_from(LAYOUTS), channels=st.sampled_from((1, 17)))
def test_the_gradient_of_the_mean_is_its_adjoint(problem, layout, channels):
    rank, extents, (sizes, strides, pads, dilations, ceil_mode), _ = problem
    pool, backward = pair("avg_pool", rank)
    rest = (sizes, strides, pads, ceil_mode, False, None, dilations)
    rng = np.random.default_rng(0)
    x = in_layout(rng.integers(-9, 10, (2, channels, *extents)).astype(float), layout)
    y = pool(x, *rest, layout=layout)
    g = rng.integers(-9, 10, y.shape).astype(float)
    np.testing.assert_allclose(
        np.vdot(backward(g, x.shape, *rest, layout=layout), x), np.vdot(g, y), atol=1e-9 * max(1, y.size)
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("norm", [1, 2, 3, 1.5])
@pytest.mark.parametrize(("extents", "window"), WINDOWS[:6])
def test_lp_pool(extents, window, norm, layout):
    pool, backward = pair("lp_pool", len(extents))
    x = in_layout(distinct((1, 2, *extents)), layout)
    size, stride, padding = window
    rest = (norm, size, stride, True, padding)
    y = pool(x, *rest, layout=layout)
    g = np.random.default_rng(1).standard_normal(y.shape)
    close(backward(g, x, *rest, layout=layout), difference(lambda v: np.vdot(pool(v, *rest, layout=layout), g), x))


@pytest.mark.parametrize("norm", [1, 2, 3])
def test_the_gradient_of_lp_pool_is_zero_where_the_sum_is(norm):
    x, g = np.array([[[0.0, 0.0, 3.0, 4.0]]]), np.ones((1, 1, 2))
    result = grad.lp_pool1d_backward(g, x, norm, 2)
    np.testing.assert_array_equal(result[0, 0, :2], [0, 0])
    assert (result[0, 0, 2:] > 0).all()


@pytest.mark.parametrize("channels", [1, 37, 2048])
@pytest.mark.parametrize("extent", [1, 4, 7])
def test_the_gradient_of_the_mean_of_planes_is_one_number_for_each(channels, extent):
    g = np.random.default_rng(0).standard_normal((3, channels, 1, 1), np.float32)
    shape = (3, channels, extent, extent)
    result = grad.global_avg_pool2d_backward(g, shape)
    np.testing.assert_allclose(result, np.broadcast_to(g / extent**2, shape), rtol=1e-6)
    np.testing.assert_array_equal(
        grad.avg_pool2d_backward(g, shape, extent, divisor_override=1), np.broadcast_to(g, shape)
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("extents", "size"), [((7,), 3), ((3,), 5), ((5, 6), (2, 4)), ((4, 4), 1), ((3, 4, 3), 2)])
def test_adaptive_and_global_pooling(extents, size, layout):
    rank = len(extents)
    x = in_layout(distinct((2, 2, *extents)), layout)
    for name, arguments in (("adaptive_avg_pool", (size,)), ("global_avg_pool", ())):
        pool, backward = pair(name, rank)
        g = np.random.default_rng(1).standard_normal(pool(x, *arguments, layout=layout).shape)
        expected = difference(lambda v: np.vdot(pool(v, *arguments, layout=layout), g), x)  # noqa: B023
        close(backward(g, x.shape, layout=layout), expected)
    for name, arguments in (("adaptive_max_pool", (size,)), ("global_max_pool", ())):
        pool, backward = pair(name, rank)
        y, indices = pool(x, *arguments, True, layout=layout)
        g = np.random.default_rng(1).standard_normal(y.shape)
        expected = difference(lambda v: np.vdot(pool(v, *arguments, layout=layout), g), x)  # noqa: B023
        close(backward(g, x, layout=layout), expected)
        close(backward(g, x, indices=indices, layout=layout), expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_max_unpool(rank, layout):
    x = in_layout(distinct((2, 17, *[4] * rank)), layout)
    y, indices = pair("max_pool", rank)[0](x, 2, return_indices=True, layout=layout)
    unpool, backward = pair("max_unpool", rank)
    g = np.random.default_rng(1).standard_normal(x.shape)
    expected = difference(lambda v: np.vdot(unpool(v, indices, 2, layout=layout), g), y)
    close(backward(g, indices, layout=layout), expected)


def test_max_unpool_without_an_index_has_no_gradient():
    result = grad.max_unpool1d_backward(np.array([[[5.0, 6, 7]]]), [[[2, -1, 2]]])
    np.testing.assert_array_equal(result, [[[7, 0, 7]]])


# ---- rules


def test_the_gradient_goes_to_the_nan():
    x = np.array([[[1.0, np.nan, 3, np.nan, 5, 6]]])
    result = grad.max_pool1d_backward(np.array([[[1.0, 2.0]]]), x, 3, 3)
    np.testing.assert_array_equal(result, [[[0, 1, 0, 2, 0, 0]]])


def test_all_windows_add_up_at_one_element():
    x = np.zeros((1, 1, 9, 40))
    x[0, 0, 4, 20] = 1
    g = np.ones((1, 1, 7, 38))
    result = grad.max_pool2d_backward(g, x, 3, 1)
    assert result[0, 0, 4, 20] == 9
    assert result.sum() == g.size


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [3, 70])
def test_indices_outside_of_their_windows_count_as_well(channels, layout):
    """Those of another pooling, for one: all gradients go to the element that is named."""
    x, g = np.zeros((1, channels, 4, 6)), np.arange(6.0 * channels).reshape(1, channels, 2, 3)
    indices = np.full(g.shape, 23)
    indices[..., 0, 0] = -1
    expected = np.zeros_like(x)
    expected[..., 3, 5] = g.sum((2, 3)) - g[..., 0, 0]
    given = [in_layout(each, layout) for each in (g, x, indices)]
    result = grad.max_pool2d_backward(given[0], given[1], 2, indices=given[2], layout=layout)
    np.testing.assert_array_equal(result, in_layout(expected, layout))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_overlapping_windows_are_summed_in_one_order_on_any_threads(layout):
    rng = np.random.default_rng(0)
    x = in_layout(rng.standard_normal((2, 40, 61, 60), np.float32), layout)
    y, indices = fastconv.max_pool2d(x, 3, 1, 1, return_indices=True, layout=layout)
    g = rng.standard_normal(y.shape, np.float32) * 10.0 ** rng.integers(-6, 7, y.shape).astype(np.float32)
    for call in (
        lambda threads: grad.max_pool2d_backward(g, x, 3, 1, 1, indices=indices, layout=layout, num_threads=threads),
        lambda threads: grad.avg_pool2d_backward(g, x.shape, 3, 1, 1, layout=layout, num_threads=threads),
    ):
        np.testing.assert_array_equal(call(1), call(2))


@pytest.mark.parametrize("dtype", ["float16", "float32", "int16"])
def test_types(dtype):
    g = np.array([[[1, 2, 3]]], dtype)
    mean = grad.avg_pool1d_backward(g, (1, 1, 6), 2)
    assert mean.dtype == (np.float64 if dtype == "int16" else dtype)
    np.testing.assert_array_equal(mean, [[[0.5, 0.5, 1, 1, 1.5, 1.5]]])
    of_max = grad.max_pool1d_backward(g, np.array([[[1, 2, 2, 1, 1, 1]]], dtype), 2)
    assert of_max.dtype == dtype
    np.testing.assert_array_equal(of_max, [[[0, 1, 2, 0, 3, 0]]])


def test_out_and_no_batch():
    x = distinct((2, 6, 8))
    g = np.random.default_rng(0).standard_normal((2, 3, 4))
    for call in (
        lambda **more: grad.max_pool2d_backward(g, x, 2, **more),
        lambda **more: grad.avg_pool2d_backward(g, x.shape, 2, **more),
        lambda **more: grad.lp_pool2d_backward(g, x, 2, 2, **more),
    ):
        out = np.full(x.shape, np.nan)
        assert call(out=out) is out
        np.testing.assert_array_equal(out, call())


def test_empty_batches():
    assert grad.max_pool2d_backward(np.zeros((0, 2, 2, 2)), np.zeros((0, 2, 4, 4)), 2).shape == (0, 2, 4, 4)
    assert grad.avg_pool2d_backward(np.zeros((0, 2, 2, 2)), (0, 2, 4, 4), 2).shape == (0, 2, 4, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: grad.max_pool1d_backward(np.zeros((1, 1, 3)), np.zeros((1, 1, 4)), 2), "grad_output.shape=.*must be"),
        (lambda: grad.avg_pool1d_backward(np.zeros((1, 1, 3)), (1, 1, 4), 2), "grad_output.shape="),
        (lambda: grad.avg_pool1d_backward(np.zeros((1, 1, 2)), (4,), 2), r"input_size=\(4,\)"),
        (lambda: grad.lp_pool1d_backward(np.zeros((1, 1, 3)), np.zeros((1, 1, 4)), 2, 2), "grad_output.shape="),
        (lambda: grad.adaptive_avg_pool2d_backward(np.zeros((3, 3)), (1, 1, 4, 4)), "grad_output.shape=.*4 axes"),
        (lambda: grad.max_unpool1d_backward(np.zeros((1, 2, 6)), np.zeros((1, 1, 3), int)), "grad_output.shape="),
        (lambda: grad.max_unpool1d_backward(np.zeros((1, 2, 6)), np.zeros((1, 3), int)), r"indices.shape=\(1, 3\)"),
        (lambda: grad.max_pool1d_backward(np.zeros((1, 1, 2)), np.zeros((1, 1, 4)), 2,
                                          indices=np.full((1, 1, 2), 4)), "indices=4: must be -1, or"),
        (lambda: grad.max_pool1d_backward(np.zeros((1, 1, 2)), np.zeros((1, 1, 4)), 2,
                                          indices=np.zeros((1, 1, 3), int)), "indices.shape="),
    ],
)  # fmt: skip
def test_errors_name_the_argument_and_the_problem(call, message):
    with pytest.raises(ValueError, match=rf"{message}.*\[problem: x="):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda g: grad.avg_pool1d_backward(g, (1, 1, 4), 2),
        lambda g: grad.adaptive_avg_pool1d_backward(g, (1, 1, 4)),
        lambda g: grad.max_pool1d_backward(g, np.zeros((1, 1, 4)), 2),
        lambda g: grad.max_unpool1d_backward(g, np.zeros((1, 1, 2), int)),
    ],
)
def test_complex_gradients_are_refused_by_their_name(call):
    with pytest.raises(TypeError, match=r"grad_output.dtype='complex128': must be a real type"):
        call(np.zeros((1, 1, 2), complex))


# ---- PyTorch


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(("size", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (3, 1, 1), (2, 3, 1)])
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_as_pytorch(rank, size, stride, padding, ceil_mode, layout):
    torch = pytest.importorskip("torch")
    functions = torch.nn.functional
    x = np.random.default_rng(0).integers(-3, 4, (2, 3, *(9, 11, 41)[-rank:])).astype(float)
    window = (size, stride, padding)
    calls = {
        "max_pool": lambda v: getattr(functions, f"max_pool{rank}d")(v, *window, 1, ceil_mode),
        "avg_pool": lambda v: getattr(functions, f"avg_pool{rank}d")(v, *window, ceil_mode, False),
        "lp_pool": lambda v: getattr(functions, f"lp_pool{rank}d")(v, 2, size, stride, ceil_mode),
    }
    for name, call in calls.items():
        leaf = torch.from_numpy(x).requires_grad_()
        y = call(leaf)
        g = np.random.default_rng(1).standard_normal(y.shape)
        y.backward(torch.from_numpy(g))
        given_x, given_g, backward = in_layout(x, layout), in_layout(g, layout), pair(name, rank)[1]
        ours = {
            "max_pool": lambda: backward(given_g, given_x, *window, 1, ceil_mode, layout=layout),  # noqa: B023
            "avg_pool": lambda: backward(given_g, given_x.shape, *window, ceil_mode, False, layout=layout),  # noqa: B023
            "lp_pool": lambda: backward(given_g, given_x, 2, size, stride, ceil_mode, layout=layout),  # noqa: B023
        }[name]()
        np.testing.assert_allclose(ours, in_layout(leaf.grad.numpy(), layout), atol=1e-12)
