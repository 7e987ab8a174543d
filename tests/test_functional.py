"""Arrays in and out: types, memory layouts, batches, `out=`, and what is empty."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import fastconv
from fastconv import functional, grad
from fastconv.core import recent
from fastconv.core.problem import COMPUTE_DTYPES

from . import reference
from .problems import GENERAL_NAMES

EXACT = ("auto", "direct", "im2col")


def integers(shape, dtype="float64", seed=0, low=-3, high=4):
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


# ---- types


@pytest.mark.parametrize("dtype", COMPUTE_DTYPES)
@pytest.mark.parametrize("algorithm", EXACT)
def test_every_type_is_exact_on_small_integers(dtype, algorithm):
    low = 0 if np.dtype(dtype).kind == "u" else -3
    x, weight = integers((1, 2, 6, 7), dtype, 0, low), integers((3, 2, 3, 2), dtype, 1, low)
    y = fastconv.conv2d(x, weight, padding=1, algorithm=algorithm)
    assert y.dtype == dtype
    exact = reference.forward(integers((1, 2, 6, 7), "int64", 0, low), integers((3, 2, 3, 2), "int64", 1, low),
                              (1, 1), [(1, 1)] * 2, (1, 1), 1)  # fmt: skip
    np.testing.assert_array_equal(y, exact.astype(dtype))


@pytest.mark.parametrize(("first", "second"), [*itertools.combinations(COMPUTE_DTYPES, 2)])
def test_mixed_types_promote_as_in_numpy(first, second):
    x, weight = np.ones((1, 1, 4), first), np.ones((1, 1, 2), second)
    y = fastconv.conv1d(x, weight)
    assert y.dtype == np.result_type(x, weight)
    np.testing.assert_array_equal(y, np.full((1, 1, 3), 2))
    assert fastconv.conv1d(x, x, np.zeros(1, second)).dtype == np.result_type(x, weight)


@pytest.mark.parametrize("dtype", [name for name in COMPUTE_DTYPES if np.dtype(name).kind in "iu"])
def test_integers_wrap_around_as_numpy_does(dtype):
    """Exact modulo 2**bits, whatever the accumulator."""
    info = np.iinfo(dtype)
    x = np.random.default_rng(0).integers(info.min, info.max, (1, 3, 9), dtype=dtype, endpoint=True)
    weight = np.random.default_rng(1).integers(info.min, info.max, (2, 3, 4), dtype=dtype, endpoint=True)
    windows = np.lib.stride_tricks.sliding_window_view(x, 4, axis=2)
    exact = [[sum(int(a) * int(b) for a, b in zip(windows[0, :, p].ravel(), k.ravel(), strict=True))
              for p in range(6)] for k in weight]  # fmt: skip
    wrapped = [[(v - info.min) % 2**info.bits + info.min for v in row] for row in exact]
    for algorithm in EXACT:
        np.testing.assert_array_equal(fastconv.conv1d(x, weight, algorithm=algorithm)[0], wrapped)


def test_float16_is_computed_in_float32():
    """2048 + 1 is not a float16, so a running sum in float16 would stay at 2048."""
    x, weight = np.ones((1, 1, 4096), np.float16), np.ones((1, 1, 4096), np.float16)
    assert fastconv.conv1d(x, weight).item() == 4096


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("algorithm", GENERAL_NAMES)
def test_complex_convolution_is_bilinear(dtype, algorithm):
    x, weight = np.array([[[1j, 2]]], dtype), np.array([[[1j]]], dtype)
    np.testing.assert_allclose(fastconv.conv1d(x, weight, algorithm=algorithm), [[[-1, 2j]]], atol=1e-6)
    np.testing.assert_allclose(fastconv.conv_transpose1d(x, weight, algorithm=algorithm), [[[-1, 2j]]], atol=1e-6)


# ---- memory


def unaligned(array):
    held = np.zeros(array.nbytes + 1, np.uint8)
    view = held[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    assert not view.flags.aligned
    return view


def read_only(array):
    copy = array.copy()
    copy.flags.writeable = False
    return copy


MEMORY = {
    "contiguous": lambda a: a,
    "fortran": np.asfortranarray,
    "every second": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "negative strides": lambda a: np.flip(np.flip(a).copy()),
    "transposed": lambda a: a.swapaxes(-1, -2).copy().swapaxes(-1, -2),
    "read-only": read_only,
    "unaligned": unaligned,
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "list": lambda a: a.tolist(),
}


@pytest.mark.parametrize("how", MEMORY)
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_any_memory_gives_the_same(how, layout):
    x, weight, bias = integers((2, 4, 6, 4)), integers((6, 2, 3, 2)), integers(6)
    expected = fastconv.conv2d(x, weight, bias, padding=1, groups=2, layout=layout)
    before = x.copy(), weight.copy()
    result = fastconv.conv2d(MEMORY[how](x), MEMORY[how](weight), bias, padding=1, groups=2, layout=layout)
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(weight, before[1])


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "complex128"])
def test_out_may_have_any_strides(dtype):
    x, weight = integers((2, 3, 8, 9), dtype, low=0), integers((4, 3, 3, 3), dtype, low=0)
    expected = fastconv.conv2d(x, weight)
    for out in (
        np.zeros((2, 4, 6, 7), dtype),
        np.zeros((7, 6, 4, 2), dtype).T,
        np.zeros((2, 4, 12, 14), dtype)[:, :, ::2, ::-2],
        unaligned(np.zeros((2, 4, 6, 7), dtype)) if dtype != "uint8" else np.zeros((2, 4, 6, 7), dtype),
    ):
        assert fastconv.conv2d(x, weight, out=out) is out
        np.testing.assert_array_equal(out, expected)


def test_out_between_the_inputs_of_one_array_is_no_overlap():
    """Interleaved, but not shared."""
    whole = np.zeros((1, 1, 5, 2))
    whole[..., 0] = np.arange(5)
    out = whole[:, :, :3, 1]
    np.testing.assert_array_equal(fastconv.conv1d(whole[..., 0], np.ones((1, 1, 3)), out=out), [[[3, 6, 9]]])


# ---- batches


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_without_a_batch(layout):
    x, weight, bias = integers((3, 8, 3)), integers((4, 3, 2, 2)), integers(4)
    batched = fastconv.conv2d(x[None], weight, bias, layout=layout)
    np.testing.assert_array_equal(fastconv.conv2d(x, weight, bias, layout=layout), batched[0])
    out = np.empty(batched.shape[1:])
    assert fastconv.conv2d(x, weight, bias, layout=layout, out=out) is out
    np.testing.assert_array_equal(out, batched[0])
    y = integers(batched.shape[1:])
    for name, arguments in (("conv2d_input", (weight, y)), ("conv_transpose2d", ())):
        if name == "conv2d_input":
            alone = grad.conv2d_input(x.shape, *arguments, layout=layout)
            together = grad.conv2d_input(x[None].shape, weight, y[None], layout=layout)
        else:
            alone = fastconv.conv_transpose2d(y, weight, layout=layout)
            together = fastconv.conv_transpose2d(y[None], weight, layout=layout)
        np.testing.assert_array_equal(alone, together[0])
    np.testing.assert_array_equal(
        grad.conv2d_weight(x, weight.shape, y, layout=layout),
        grad.conv2d_weight(x[None], weight.shape, y[None], layout=layout),
    )


def test_an_empty_batch():
    x, weight = np.empty((0, 3, 8, 8)), np.ones((4, 3, 3, 3))
    y = fastconv.conv2d(x, weight, np.ones(4))
    assert y.shape == (0, 4, 6, 6)
    assert fastconv.conv_transpose2d(np.empty((0, 4, 6, 6)), weight).shape == (0, 3, 8, 8)
    grad_x, grad_weight, grad_bias = grad.conv2d_backward(y, x, weight)
    assert grad_x.shape == x.shape
    np.testing.assert_array_equal(grad_weight, np.zeros(weight.shape))
    np.testing.assert_array_equal(grad_bias, np.zeros(4))


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_no_channels_leave_the_bias(layout):
    x = np.empty((1, 0, 5) if layout == "channels_first" else (1, 5, 0))
    y = fastconv.conv1d(x, np.empty((2, 0, 3)), np.array([1.0, 2]), layout=layout)
    np.testing.assert_array_equal(y if layout == "channels_first" else y.swapaxes(1, 2), [[[1, 1, 1], [2, 2, 2]]])


def test_padding_may_exceed_the_input():
    x = np.array([[[1.0, 2, 3]]])
    padded = np.pad(x, [(0, 0), (0, 0), (7, 8)], mode="reflect")
    weight = np.array([[[1.0, 10]]])
    np.testing.assert_array_equal(
        fastconv.conv1d(x, weight, padding=[(7, 8)], padding_mode="reflect"), fastconv.conv1d(padded, weight)
    )


def test_the_functions_say_what_they_are():
    for rank in (1, 2, 3):
        function = getattr(fastconv, f"conv{rank}d")
        assert function.__name__ == f"conv{rank}d"
        assert f"{rank}-D convolution" in function.__doc__
        assert "{n}" not in function.__doc__


# ---- what is remembered of earlier calls


def test_equal_parameters_of_other_types_are_not_taken_for_each_other():
    """1 == True == 1.0, alone and in sequences."""
    x, weight = integers((1, 1, 5, 5)), integers((1, 1, 2, 2))
    for one in (1, (1, 1), [1, 1], np.int64(1), [np.int32(1)] * 2):
        fastconv.conv2d(x, weight, stride=one, padding=one, dilation=one)
    for name, bad in itertools.product(("stride", "padding", "dilation"), (True, 1.0, (1, True), [1.0, 1], "1")):
        with pytest.raises((TypeError, ValueError), match=name):
            fastconv.conv2d(x, weight, **{name: bad})


def test_sequences_of_any_kind_mean_the_same():
    x, weight = integers((1, 1, 7, 9)), integers((1, 1, 2, 3))
    expected = fastconv.conv2d(x, weight, stride=(1, 2), padding=((0, 1), (2, 1)))
    for kind in (tuple, list, np.array):
        y = fastconv.conv2d(x, weight, stride=kind([1, 2]), padding=kind([kind([0, 1]), kind([2, 1])]))
        np.testing.assert_array_equal(y, expected)
    changing = [1, 1]
    fastconv.conv2d(x, weight, stride=changing)
    changing[1] = 2
    np.testing.assert_array_equal(
        fastconv.conv2d(x, weight, stride=changing), fastconv.conv2d(x, weight, stride=(1, 2))
    )


@pytest.mark.parametrize("values", [(float("nan"), 0), (2, 3), (1e-300, 0), (np.inf, -np.inf)])
def test_pad_values_are_not_taken_for_each_other(values):
    x, weight = np.full((1, 1, 2), -0.0), np.ones((1, 1, 1))
    for value in (*values, *values):
        y = fastconv.conv1d(x, weight, padding=1, padding_mode="constant", pad_value=value)
        np.testing.assert_array_equal(y[0, 0, [0, 3]], value)


DIFFERENT = {
    "stride": 2, "padding": 1, "dilation": 2, "groups": 2, "layout": "channels_last", "activation": "relu",
    "flip": True, "add": -3 * np.ones((4, 2, 2)), "bias": integers(4), "num_threads": 1, "algorithm": "im2col",
}  # fmt: skip


@pytest.mark.parametrize(("first", "second"), [*itertools.permutations(DIFFERENT, 2)])
def test_no_call_is_taken_for_another(first, second):
    """A call gives the same whatever was called before."""
    x, weight = integers((4, 4, 4)), integers((4, 4, 3, 3), seed=1)

    def call(name):
        part = weight[:, :2] if name == "groups" else weight
        padding = {"padding": 1} if name in ("stride", "dilation") else {}
        return fastconv.conv2d(x, part, **padding, **{name: DIFFERENT[name]})

    functional.conv_call.forget()
    alone = call(second)
    functional.conv_call.forget()
    call(first)
    np.testing.assert_array_equal(call(second), alone)


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(recent, "MOST", 3)
    made = []

    @recent.remembered()
    def square(value):
        made.append(value)
        return value * value

    assert [square(value) for value in (1, 2, 3, 1, 4, 1, 2)] == [1, 4, 9, 1, 16, 1, 4]
    assert made == [1, 2, 3, 4, 2]  # the one that was asked for least recently has gone
    assert [square(np.float64(value)) for value in (1, 2, 3, 1, 4, 1)] == [1, 4, 9, 1, 16, 1]
    assert made[5:] == [1, 2, 3, 4, 1]  # of what Python does not tell apart, the oldest


def test_what_raises_is_not_remembered():
    @recent.remembered()
    def inverse(value):
        return 1 / value

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            inverse(0)
    assert inverse(2) == 0.5
