"""Patches: against NumPy's windows, PyTorch and ONNX, as adjoints of each other, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import fastconv
from fastconv.core.boundary import PADDING_MODES
from fastconv.core.problem import COMPUTE_DTYPES
from fastconv.cpu import patches as kernels

from . import reference

LAYOUTS = ("channels_first", "channels_last")


@st.composite
def patchings(draw, modes=PADDING_MODES, dtypes=tuple(COMPUTE_DTYPES)):
    """An x of whole numbers and the parameters of `im2col` by name."""
    rank = draw(st.sampled_from((1, 2, 3)))
    largest = {1: 70, 2: 20, 3: 7}[rank]

    def per_axis(elements):
        return tuple(draw(elements) for _ in range(rank))

    extents, size = per_axis(st.integers(1, largest)), per_axis(st.integers(1, 4))
    stride, dilation = per_axis(st.integers(1, 3)), per_axis(st.integers(1, 3))
    padding = per_axis(st.tuples(st.integers(0, 4), st.integers(0, 4)))
    for n, k, d, (low, high) in zip(extents, size, dilation, padding, strict=True):
        assume(n + low + high > d * (k - 1))
    layout, mode = draw(st.sampled_from(LAYOUTS)), draw(st.sampled_from(modes))
    batch, channels = draw(st.sampled_from(((), (1,), (3,)))), (draw(st.integers(1, 20)),)
    shape = (*batch, *channels, *extents) if layout == "channels_first" else (*batch, *extents, *channels)
    x = np.random.default_rng(0).integers(-9, 10, shape).astype(draw(st.sampled_from(dtypes)))
    options = {"padding_mode": mode, "layout": layout}
    if mode == "constant":
        options["pad_value"] = draw(st.integers(0, 3))
    return x, {"kernel_size": size, "stride": stride, "padding": padding, "dilation": dilation, **options}


def patches_of(x, kernel_size, stride, padding, dilation, padding_mode, layout, pad_value=0):
    """(N, C * taps, L) by NumPy's own padding and windows."""
    rank = len(kernel_size)
    x = x if x.ndim == rank + 2 else x[np.newaxis]
    x = x if layout == "channels_first" else np.moveaxis(x, -1, 1)
    padded = reference.pad(x, padding, padding_mode, pad_value)
    reach = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel_size, strict=True))
    seen = np.lib.stride_tricks.sliding_window_view(padded, reach, range(2, 2 + rank))
    places, taps = [slice(None, None, s) for s in stride], [slice(None, None, d) for d in dilation]
    seen = np.moveaxis(seen[(slice(None), slice(None), *places, *taps)], range(2, 2 + rank), range(-rank, 0))
    return seen.reshape(len(x), x.shape[1] * math.prod(kernel_size), -1)


def matrices(layout, patches, batched):
    """What `unfold` and `im2col` give of (N, C * taps, L)."""
    by_pixel = np.swapaxes(patches, 1, 2)
    unfolded = patches if layout == "channels_first" else by_pixel
    return unfolded if batched else unfolded[0], by_pixel.reshape(-1, by_pixel.shape[2])


def linear(parameters):
    """The parameters for the adjoint, which has no pad value."""
    return {name: value for name, value in parameters.items() if name != "pad_value"}


def extents_of(x, parameters):
    rank = len(parameters["kernel_size"])
    return x.shape[-rank:] if parameters["layout"] == "channels_first" else x.shape[-rank - 1 : -1]


# ---- against others


@given(patchings())
def test_patches_are_numpys_windows(case):
    x, parameters = case
    unfolded, columns = matrices(
        parameters["layout"], patches_of(x, **parameters), x.ndim == len(parameters["kernel_size"]) + 2
    )
    for result, answer in (
        (fastconv.unfold(x, **parameters), unfolded),
        (fastconv.im2col(x, **parameters), columns),
        (fastconv.windows(x, **parameters).reshape(unfolded.shape), unfolded),
    ):
        np.testing.assert_array_equal(result, answer)
        assert result.dtype == x.dtype


@given(patchings(dtypes=("int32", "float64", "complex64")))
def test_folding_is_the_adjoint(case):
    """<unfold(x), u> == <x, fold(u)> of whole numbers, for every padding mode; without a pad value both are linear."""
    x, parameters = case
    parameters = linear(parameters)
    unfolded, columns = fastconv.unfold(x, **parameters), fastconv.im2col(x, **parameters)
    rng = np.random.default_rng(1)
    u, v = (rng.integers(-9, 10, each.shape).astype(x.dtype) for each in (unfolded, columns))
    folded = fastconv.fold(u, extents_of(x, parameters), **parameters)
    assert np.vdot(unfolded, u) == np.vdot(x, folded)
    assert np.vdot(columns, v) == np.vdot(x, fastconv.col2im(v, x.shape, **parameters))
    assert (folded.shape, folded.dtype) == (x.shape, x.dtype)


@given(patchings(modes=("zeros",), dtypes=("float32", "float64")))
def test_the_same_as_pytorch(case):
    torch = pytest.importorskip("torch")
    x, parameters = case
    assume(len(parameters["kernel_size"]) == 2 and parameters["layout"] == "channels_first")
    size, stride, dilation = (parameters[name] for name in ("kernel_size", "stride", "dilation"))
    padding = tuple(low for low, _ in parameters["padding"])
    assume(all(n + 2 * p > d * (k - 1) for n, p, d, k in zip(x.shape[-2:], padding, dilation, size, strict=True)))
    window = (size, dilation, padding, stride)
    unfolded = torch.nn.functional.unfold(torch.from_numpy(x), *window)
    np.testing.assert_array_equal(fastconv.unfold(x, *window), unfolded.numpy())
    folded = torch.nn.functional.fold(unfolded, x.shape[-2:], *window)
    np.testing.assert_array_equal(fastconv.fold(unfolded.numpy(), x.shape[-2:], *window), folded.numpy())


# The cases of ONNX's Col2Im operator: columns, image, block, pads (low of each axis, then high), strides, dilations.
COL2IM = {
    "default": ((1, 5, 5), (5, 5), (1, 5), (0, 0, 0, 0), (1, 1), (1, 1)),
    "strides": ((1, 9, 4), (5, 5), (3, 3), (0, 0, 0, 0), (2, 2), (1, 1)),
    "pads": ((1, 5, 15), (5, 5), (1, 5), (0, 1, 0, 1), (1, 1), (1, 1)),
    "dilations": ((1, 4, 5), (6, 6), (2, 2), (0, 0, 0, 0), (1, 1), (1, 5)),
    "asymmetric pads": ((2, 12, 20), (4, 5), (2, 3), (1, 0, 0, 2), (1, 1), (1, 1)),
    "5-D": ((1, 10, 12), (3, 4, 5), (1, 1, 5), (0, 0, 0, 0, 0, 0), (1, 1, 1), (1, 1, 1)),
}


@pytest.mark.parametrize("case", COL2IM.values(), ids=COL2IM)
def test_onnx_col2im(case):
    helper = pytest.importorskip("onnx.helper")
    evaluator = pytest.importorskip("onnx.reference")
    shape, image, block, pads, strides, dilations = case
    node = helper.make_node(
        "Col2Im", ["input", "image", "block"], ["output"], pads=pads, strides=strides, dilations=dilations
    )
    columns = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
    feed = {"input": columns, "image": np.array(image), "block": np.array(block)}
    (answer,) = evaluator.ReferenceEvaluator(node).run(None, feed)
    rank = len(image)
    padding = list(zip(pads[:rank], pads[rank:], strict=True))
    np.testing.assert_array_equal(fastconv.fold(columns, image, block, dilations, padding, strides), answer)


# ---- worked examples


def test_a_row_for_each_output_pixel():
    assert fastconv.im2col(np.zeros((3, 5, 7)), 3, padding=1).shape == (35, 27)
    assert fastconv.im2col(np.zeros((2, 3, 5, 7)), (3, 3), padding=1).shape == (70, 27)


def test_the_product_with_the_weight_is_the_convolution():
    rng = np.random.default_rng(0)
    x, weight = rng.integers(-4, 5, (2, 3, 8, 9)), rng.integers(-4, 5, (5, 3, 3, 2))
    y = fastconv.conv2d(x, weight, stride=2, padding=1)
    matrix = weight.reshape(5, -1)
    np.testing.assert_array_equal(matrix @ fastconv.unfold(x, (3, 2), padding=1, stride=2), y.reshape(2, 5, -1))
    last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    columns = fastconv.im2col(last, (3, 2), stride=2, padding=1, layout="channels_last")
    np.testing.assert_array_equal((columns @ matrix.T).reshape(2, -1, 5), y.reshape(2, 5, -1).swapaxes(1, 2))


def test_asymmetric_padding_by_hand():
    u = np.array([[1, 2, 3], [10, 20, 30]])  # pairs of 0 x0 x1 x2
    np.testing.assert_array_equal(fastconv.unfold([[7, 8, 9]], (2,), padding=[(1, 0)]), [[0, 7, 8], [7, 8, 9]])
    np.testing.assert_array_equal(fastconv.fold(u, (3,), (2,), padding=[(1, 0)]), [[12, 23, 30]])
    np.testing.assert_array_equal(
        fastconv.fold(u, (3,), (2,), padding=[(1, 0)], padding_mode="circular"), [[12, 23, 31]]
    )


@pytest.mark.parametrize(
    ("padding", "pixels"), [("valid", 5), ("same", 7), ("same_lower", 7), ("full", 9), ("causal", 7)]
)
def test_named_paddings(padding, pixels):
    assert fastconv.unfold(np.ones((2, 7)), (3,), padding=padding).shape == (6, pixels)


@pytest.mark.parametrize(
    ("shape", "kernel_size", "pixels"),
    [
        ((1, 9), 2, 8),
        ((1, 9, 9), 2, 64),
        ((1, 1, 9, 9), 2, 64),
        ((1, 1, 9, 9, 9), 2, 512),
        ((1, 9, 9, 9), (2,) * 3, 512),
    ],
)
def test_the_rank_is_that_of_the_kernel_or_of_x(shape, kernel_size, pixels):
    assert fastconv.im2col(np.ones(shape), kernel_size).shape[0] == pixels


@pytest.mark.parametrize("dtype", ["float32", "complex128", "int64"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("pixels", [1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65])
def test_rows_of_any_length_are_added_up(pixels, stride, dtype):
    """Around the edges of vectors, whose last elements are two apart with stride 2."""
    u = np.random.default_rng(0).integers(-9, 10, (2, 3, pixels)).astype(dtype)
    extent = stride * (pixels - 1) + 3 + stride - 1
    expected = np.zeros((2, extent), dtype)
    for tap in range(3):
        expected[:, tap : tap + stride * pixels : stride][:, :pixels] += u[:, tap]
    np.testing.assert_array_equal(fastconv.fold(u.reshape(6, pixels), (extent,), (3,), stride=stride), expected)
    columns = u.reshape(6, pixels).T
    np.testing.assert_array_equal(fastconv.col2im(columns, expected.shape, (3,), stride=stride), expected)


# ---- normalize


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "complex128"])
def test_normalized_folding_gives_x_back(mode, layout, dtype):
    """Also where patches lie apart: what none covers is zero."""
    x = np.random.default_rng(0).integers(1, 9, (2, 3, 8, 9)).astype(dtype)
    x = x if layout == "channels_first" else np.moveaxis(x, 1, -1)
    parameters = {"kernel_size": (3, 2), "stride": (1, 3), "padding": (1, 0), "padding_mode": mode, "layout": layout}
    expected = x.copy()
    covered = fastconv.fold(fastconv.unfold(np.ones_like(x), **parameters), (8, 9), **parameters)
    expected[covered == 0] = 0
    assert (covered == 0).any()
    u = fastconv.unfold(x, **parameters)
    np.testing.assert_array_equal(fastconv.fold(u, (8, 9), normalize=True, **parameters), expected)
    columns = fastconv.im2col(x, **parameters)
    np.testing.assert_array_equal(fastconv.col2im(columns, x.shape, normalize=True, **parameters), expected)


# ---- types, memory, threads


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "uint64"])
def test_integers_wrap_as_in_numpy(dtype):
    u = np.full((2, 3), np.iinfo(dtype).max, dtype)
    assert fastconv.fold(u, (4,), (2,))[0, 1] == (u[0] + u[1])[0]


def test_nan_and_infinity_go_where_they_belong():
    x = np.ones((1, 6, 6), np.float32)
    x[0, 2, 3], x[0, 4, 4] = np.nan, -np.inf
    np.testing.assert_array_equal(fastconv.unfold(x, 3), fastconv.windows(x, 3).reshape(9, -1))
    folded = fastconv.fold(fastconv.unfold(x, 3, stride=2, padding=1), 6, 3, stride=2, padding=1)
    np.testing.assert_array_equal(np.isnan(folded), np.isnan(x))
    np.testing.assert_array_equal(np.isinf(folded), np.isinf(x))


def test_windows_are_a_view_of_any_array():
    x = np.arange(2 * 9 * 8).reshape(8, 9, 2).T[:, ::2]
    seen = fastconv.windows(x, (2, 3), stride=(1, 2), dilation=(2, 1))
    assert np.shares_memory(seen, x)
    assert not seen.flags.writeable
    assert seen.shape == (2, 2, 3, 3, 3)
    assert seen[1, 1, 2, 0, 1] == x[1, 2, 4]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_results_go_into_out(dtype):
    x = np.random.default_rng(0).integers(0, 9, (2, 3, 8, 9)).astype(dtype)
    unfolded, columns = fastconv.unfold(x, 3), fastconv.im2col(x, 3)
    for function, shaped_as, like in (
        (lambda **out: fastconv.unfold(x, 3, **out), unfolded, unfolded),
        (lambda **out: fastconv.im2col(x, 3, **out), columns, columns),
        (lambda **out: fastconv.fold(unfolded, (8, 9), 3, **out), x, fastconv.fold(unfolded, (8, 9), 3)),
        (lambda **out: fastconv.col2im(columns, x.shape, 3, **out), x, fastconv.fold(unfolded, (8, 9), 3)),
    ):
        for out in (np.empty(shaped_as.shape, dtype), np.empty((*shaped_as.shape, 2), dtype)[..., 0]):
            assert function(out=out) is out
            np.testing.assert_array_equal(out, like)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(1, 1, 300, 301), (2, 40, 60, 61)])
def test_threads_change_nothing(shape, layout):
    """Also where a channel is cut into bands, and the matrix is large enough for several threads."""
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    x = np.ascontiguousarray(np.moveaxis(x, 1, -1)) if layout == "channels_last" else x
    options = {"padding": 2, "padding_mode": "reflect", "layout": layout}
    columns, unfolded = fastconv.im2col(x, 5, **options), fastconv.unfold(x, 5, **options)
    for function, *arguments in (
        (fastconv.unfold, x, 5),
        (fastconv.im2col, x, 5),
        (fastconv.fold, unfolded, shape[2:], 5),
        (fastconv.col2im, columns, x.shape, 5),
    ):
        alone = function(*arguments, **options, num_threads=1)
        np.testing.assert_array_equal(function(*arguments, **options), alone)


@pytest.mark.parametrize("threads", [1, 2, 64])
def test_parts_do_not_depend_on_each_other(threads, monkeypatch):
    """Any division of the work, as on machines of any number of threads, gives the same sums."""
    x = np.random.default_rng(0).integers(-9, 10, (2, 5, 30, 31)).astype(np.float32)
    expected = patches_of(x, (3, 3), (1, 2), [(2, 2)] * 2, (2, 1), "circular", "channels_first")
    machine = kernels.local_machine()
    monkeypatch.setattr(kernels, "local_machine", lambda: type(machine)(threads, 1e9, 1e9, 0))
    fastconv.patches._copy_of.forget()
    fastconv.patches._folding_of.forget()
    window = {"dilation": (2, 1), "padding": 2, "stride": (1, 2), "padding_mode": "circular"}
    np.testing.assert_array_equal(fastconv.unfold(x, 3, **window), expected)
    columns = fastconv.im2col(x, 3, **window)
    np.testing.assert_array_equal(columns, matrices("channels_last", expected, True)[1])
    covered = np.vdot(expected, expected)
    assert np.vdot(fastconv.fold(expected, (30, 31), 3, **window), x) == covered
    assert np.vdot(fastconv.col2im(columns, x.shape, 3, **window), x) == covered


def test_an_empty_batch():
    assert fastconv.unfold(np.ones((0, 3, 5, 7)), 3).shape == (0, 27, 15)
    assert fastconv.im2col(np.ones((0, 3, 5, 7)), 3).shape == (0, 27)
    assert fastconv.fold(np.ones((0, 27, 15)), (5, 7), 3).shape == (0, 3, 5, 7)
    assert fastconv.col2im(np.ones((0, 27)), (0, 3, 5, 7), 3).shape == (0, 3, 5, 7)
    assert fastconv.windows(np.ones((0, 3, 5, 7)), 3).shape == (0, 3, 3, 3, 3, 5)


# ---- refusals

X, U = np.ones((2, 3, 5, 7)), np.ones((2, 27, 15))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fastconv.unfold(X, (3, 3, 3, 3)), r"kernel_size=\(3, 3, 3, 3\): must be one integer, or one for each"),
        (lambda: fastconv.unfold(X, 0), "kernel_size=0: must be an integer of at least 1"),
        (lambda: fastconv.im2col(X, 9), r"kernel_size=9: the dilated filter \(9, 9\) must not exceed the padded input"),
        (lambda: fastconv.im2col(X, 3, stride=0), "stride=0: must be an integer of at least 1"),
        (lambda: fastconv.im2col(X[0, 0], (3, 3)), r"x.shape=\(5, 7\): must have 4 axes, or 3 without the batch"),
        (lambda: fastconv.windows(X, 3, padding="half"), "padding='half': must be integers or one of valid"),
        (lambda: fastconv.windows(X, 3, padding_mode="mirror"), "padding_mode='mirror': must be one of zeros"),
        (lambda: fastconv.unfold(X, 3, layout="last"), "layout='last': must be one of channels_first"),
        (lambda: fastconv.unfold(X, 3, pad_value=1), 'pad_value=1: needs padding_mode="constant"'),
        (lambda: fastconv.unfold(np.ones((0, 5, 7)), 3), r"x.shape=\(0, 5, 7\): needs at least one channel"),
        (
            lambda: fastconv.fold(U, (5, 7), 2),
            r"x.shape=\(2, 27, 15\): the axis of 27 must be the channels times the 4",
        ),
        (lambda: fastconv.fold(U, (5, 6), 3), r"x.shape=\(2, 27, 15\): the axis of 15 must be the 12 patches"),
        (lambda: fastconv.fold(U, (5, 0), 3), "output_size=0: must be an integer of at least 1"),
        (lambda: fastconv.fold(U[0, 0], 5, 3), r"x.shape=\(15,\): must have 3 axes, or 2 without the batch"),
        (lambda: fastconv.col2im(U, X.shape, 3), r"columns.shape=\(2, 27, 15\): must be \(30, 27\)"),
        (lambda: fastconv.unfold(X, 3, num_threads=0), "num_threads=0: must be None or an integer of at least 1"),
        (lambda: fastconv.unfold(X, 3, out=X), r"out.shape=\(2, 3, 5, 7\): must be \(2, 27, 15\)"),
    ],
)
def test_refusals_name_the_argument_and_the_problem(call, message):
    with pytest.raises(ValueError, match=rf"^{message}.*\[problem: .*k=.*s=.*p=.*d=.*\]$"):
        call()


def test_what_has_the_wrong_type():
    with pytest.raises(TypeError, match="normalize=True: must be False for int64"):
        fastconv.fold(U.astype(int), (5, 7), 3, normalize=True)
    with pytest.raises(TypeError, match="kernel_size='3'"):
        fastconv.unfold(X, "3")
    with pytest.raises(TypeError, match=r"x\.dtype='bool'"):
        fastconv.unfold(X > 0, 3)
    with pytest.raises(TypeError, match="x_shape=5: must be a shape"):
        fastconv.col2im(U[0].T, 5, 3)
    with pytest.raises(ValueError, match="columns='list': is no array"):
        fastconv.col2im([[1.0], [2.0, 3.0]], X.shape, 3)
    with pytest.raises(TypeError, match=r"out\.dtype='float32'"):
        fastconv.unfold(X, 3, out=np.ones((2, 27, 15), np.float32))
