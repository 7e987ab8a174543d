"""Bad input: every message names the argument, its value, what is allowed, and the problem line."""

from __future__ import annotations

import re

import numpy as np
import pytest

import fastconv
from fastconv import grad

X, W = np.ones((1, 4, 8, 8), np.float32), np.ones((6, 2, 3, 3), np.float32)
Y = np.ones((1, 6, 6, 6), np.float32)
LINE = "x=1x4x8x8 w=6x2x3x3"


def conv(x=X, weight=W, **parameters):
    return lambda: fastconv.conv2d(x, weight, **({"groups": 2} | parameters))


def transposed(x=Y, weight=W, **parameters):
    return lambda: fastconv.conv_transpose2d(x, weight, **({"groups": 2} | parameters))


CASES = [
    # call, exception, what the message says
    (conv(groups=3), ValueError, "groups=3: must divide the 4 input and the 6 output channels", LINE),
    (conv(groups=1), ValueError, "weight.shape=(6, 2, 3, 3): axis 1 must be channels / groups = 4 / 1", LINE),
    (conv(groups=0), ValueError, "groups=0: must be an integer of at least 1", "g=0"),
    (conv(weight=W[0]), ValueError, "weight.shape=(2, 3, 3): must have 4 axes", "w=2x3x3"),
    (conv(weight=W[:, :1]), ValueError, "weight.shape=(6, 1, 3, 3): axis 1", "w=6x1x3x3"),
    (conv(x=X[0, 0]), ValueError, "x.shape=(8, 8): must have 4 axes, or 3 without the batch", "x=8x8"),
    (conv(x=X[:, :, :2]), ValueError, "the dilated filter (3, 3) must not exceed the padded input (2, 8)", "x=1x4x2x8"),
    (conv(dilation=4), ValueError, "the dilated filter (9, 9) must not exceed the padded input (8, 8)", "d=4"),
    (conv(stride=0), ValueError, "stride=0: must be an integer of at least 1", "s=0"),
    (conv(stride=1.5), TypeError, "stride=1.5: must be an integer", "s=1.5"),
    (conv(stride=True), TypeError, "stride=True: must be an integer", "s=True"),
    (conv(stride=(1, 2, 3)), ValueError, "stride=(1, 2, 3): must be one integer, or one for each of the 2 axes", LINE),
    (conv(dilation=(1, 0)), ValueError, "dilation=0: must be an integer of at least 1", "d=(1,0)"),
    (conv(padding=-1), ValueError, "padding=-1: must be an integer of at least 0", "p=-1"),
    (conv(padding="sane"), ValueError, "padding='sane': must be integers or one of valid, same", "p=sane"),
    (conv(padding="causal"), ValueError, "padding='causal'", LINE),
    (conv(padding=(1, 2, 3)), ValueError, "padding=(1, 2, 3): must be one integer, or an integer or a", LINE),
    (conv(padding=((1, 2, 3), 1)), ValueError, "each axis takes one integer or a pair", LINE),
    (conv(padding_mode="mirror"), ValueError, "padding_mode='mirror': must be one of zeros, constant, reflect", LINE),
    (conv(pad_value=1), ValueError, 'pad_value=1: needs padding_mode="constant"', LINE),
    (conv(pad_value="a", padding_mode="constant"), TypeError, "pad_value='a': must be a number", LINE),
    (conv(x=X.astype(int), weight=W.astype(int), pad_value=0.5, padding_mode="constant"), ValueError,
     "pad_value=0.5: must be a number that int64 can hold", LINE),
    (conv(pad_value=None, padding_mode="constant"), TypeError, "pad_value=None: must be a number that float32", LINE),
    (conv(pad_value=True, padding_mode="constant"), TypeError, "pad_value=True: must be a number that float32", LINE),
    (conv(pad_value=np.ones(2)), TypeError, "pad_value=array([1., 1.]): must be a number that float32", LINE),
    (conv(pad_value=1j, padding_mode="constant"), ValueError, "pad_value=1j: must be a number that float32", LINE),
    (conv(x=X.astype("u1"), weight=W.astype("u1"), pad_value=-1, padding_mode="constant"), ValueError,
     "pad_value=-1: must be a number that uint8 can hold", LINE),
    (conv(layout="NHWC"), ValueError, "layout='NHWC': must be one of channels_first, channels_last", LINE),
    (conv(algorithm="winograd9"), ValueError, "algorithm='winograd9': must be one of auto, direct, im2col, fft", LINE),
    (conv(num_threads=0), ValueError, "num_threads=0: must be None or an integer of at least 1", LINE),
    (conv(bias=np.ones(5)), ValueError, "bias.shape=(5,): must be (6,)", LINE),
    (conv(x=[[1.0], [2.0, 3.0]]), ValueError, "x='list': is no array: setting an array element", "w=6x2x3x3"),
    (conv(weight=[[1.0], [2.0, 3.0]]), ValueError, "weight='list': is no array: setting an array", "x=1x4x8x8"),
    (conv(stride={2}), TypeError, "stride={2}: must be an integer", LINE),
    (conv(x=X.astype(object)), TypeError, "x.dtype='object': must have one of the types float16", LINE),
    (conv(x=np.full(X.shape, "a")), TypeError, "x.dtype='<U1': must have one of the types", LINE),
    (conv(x=X > 0), TypeError, "convert booleans to an integer type", LINE),
    (conv(x=np.ma.masked_array(X)), TypeError, "x='MaskedArray': must not be masked", LINE),
    (conv(weight=W.astype(np.longdouble)), TypeError, "weight.dtype=", LINE),
    (conv(x=X[:, :, :0]), ValueError, "every spatial extent must be at least 1", "x=1x4x0x8"),
    (conv(weight=W[:, :, :0]), ValueError, "every filter extent must be at least 1", "w=6x2x0x3"),
    (conv(weight=W[:0]), ValueError, "at least one output channel", "w=0x2x3x3"),
    (transposed(output_padding=1), ValueError, "output_padding=1: must be less than stride=(1, 1)", "output_padding=1"),
    (transposed(padding="same"), ValueError, "padding='same': must be \"valid\", integers", "p=same"),
    (transposed(padding=4), ValueError, "padding=4: leaves nothing of the output", "p=4"),
    (transposed(x=X), ValueError, "weight.shape=(6, 2, 3, 3): axis 0 must be the 4 input channels", LINE),
    (transposed(groups=4), ValueError, "groups=4: must divide the 6 input channels", "g=4"),
    (transposed(bias=np.ones(6)), ValueError, "bias.shape=(6,): must be (4,)", "x=1x6x6x6"),
    (lambda: grad.conv2d_input((1, 4, 8, 8), W, Y[:, :, 1:], 1, 0, 1, 2), ValueError,
     "grad_output.shape=(1, 6, 5, 6): must be (1, 6, 6, 6)", LINE),
    (lambda: grad.conv2d_input((4, 8), W, Y), ValueError, "input_size=(4, 8): must be a shape of 3 or 4", "x=4x8"),
    (lambda: grad.conv2d_input("ab", W, Y), TypeError, "input_size='ab': must be a shape", "x='ab'"),
    (lambda: grad.conv2d_weight(X, (6, 2, 3), Y, groups=2), ValueError,
     "weight_size=(6, 2, 3): must be a shape of 4 integers", "w=6x2x3"),
    (lambda: grad.conv2d_weight(X, (6, 2, 3, 3), Y[0], groups=2), ValueError,
     "grad_output.shape=(6, 6, 6): must be (1, 6, 6, 6)", LINE),
    (lambda: grad.conv2d_backward(Y[0], X, W, groups=2, output_mask=(False, False, True)), ValueError,
     "grad_output.shape=(6, 6, 6): must be (1, 6, 6, 6)", LINE),
    (lambda: grad.conv2d_backward([[1.0], [2.0, 3.0]], X, W, groups=2), ValueError,
     "grad_output='list': is no array", LINE),
    (lambda: grad.conv2d_backward(Y, [[1.0], [2.0, 3.0]], W, groups=2), ValueError, "x='list': is no array", "w=6x2"),
    (lambda: grad.conv2d_backward(Y, X, W, groups=2, output_mask=(True,)), ValueError,
     "output_mask=(True,): must be three booleans", LINE),
    (lambda: grad.conv2d_double_backward(X, None, None, Y, X, W, groups=2, output_mask=True), ValueError,
     "output_mask=True: must be three booleans", LINE),
    (lambda: grad.conv_transpose2d_input((1, 6, 6, 6), W, Y, groups=2), ValueError,
     "grad_output.shape=(1, 6, 6, 6): must be (1, 4, 8, 8)", "x=1x6x6x6"),
    (lambda: grad.conv2d_double_backward(None, None, np.ones(5), Y, X, W, groups=2), ValueError,
     "grad_grad_bias.shape=(5,): must be (6,)", LINE),
    (lambda: grad.conv2d_double_backward(X, None, None, Y[:, :1], X, W, groups=2), ValueError,
     "grad_output.shape=(1, 1, 6, 6): must be (1, 6, 6, 6)", LINE),
    (conv(pad_value="3", padding_mode="constant"), TypeError, "pad_value='3': must be a number that float32", LINE),
    (conv(pad_value=1e60, padding_mode="constant"), ValueError, "pad_value=1e+60: must be a number that", LINE),
    (transposed(x=Y[:, :0], weight=W[:0]), ValueError, "channels and every spatial extent", "x=1x0x6x6"),
    (lambda: fastconv.conv_output_shape((-1, 1, 5), (1, 1, 3)), ValueError, "must not be negative", "x=-1x1x5"),
    (lambda: fastconv.conv_output_shape((1, 1, 5.5), (1, 1, 3)), TypeError, "must be integers", "w=1x1x3"),
    (lambda: fastconv.conv_output_shape((1, 1), (1, 1)), ValueError, "must have 3, 4 or 5 axes", "w=1x1"),
    (lambda: fastconv.conv_output_shape((1,) * 6, (1,) * 6), ValueError, "must have 3, 4 or 5 axes", "w=1x1x1x1x1x1"),
    (lambda: fastconv.conv_output_shape((1, 4, 8, 8), (6, 2, 3, 3), groups=3), ValueError, "groups=3", LINE),
]  # fmt: skip


@pytest.mark.parametrize(("call", "exception", "says", "line"), CASES, ids=range(len(CASES)))
def test_what_the_message_says(call, exception, says, line):
    with pytest.raises(exception) as caught:
        call()
    message = str(caught.value)
    assert says in message
    assert re.search(rf"\[problem: .*{re.escape(line)}", message)
    assert caught.value.__suppress_context__


def test_an_out_without_a_batch_is_named_as_the_caller_sees_it():
    with pytest.raises(ValueError, match=re.escape("out.shape=(6, 6, 5): must be (6, 6, 6)")):
        fastconv.conv2d(X[0], W, groups=2, out=np.ones((6, 6, 5), np.float32))


OUTS = [
    (np.ones((1, 6, 6, 5), np.float32), ValueError, "out.shape=(1, 6, 6, 5): must be (1, 6, 6, 6)"),
    (np.ones((1, 6, 6, 6)), TypeError, "out.dtype='float64': must be float32"),
    (np.ma.ones((1, 6, 6, 6), np.float32), TypeError, "out='MaskedArray': must be a NumPy array"),
    ([1.0], TypeError, "out='list': must be a NumPy array"),
]


@pytest.mark.parametrize(("out", "exception", "says"), OUTS, ids=["shape", "dtype", "masked", "list"])
def test_a_bad_out(out, exception, says):
    with pytest.raises(exception, match=re.escape(says)):
        fastconv.conv2d(X, W, groups=2, out=out)


def test_out_must_be_writeable_and_apart_from_the_inputs():
    out = np.ones((1, 6, 6, 6), np.float32)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="out='read-only': must be writeable"):
        fastconv.conv2d(X, W, groups=2, out=out)
    whole = np.ones(1000, np.float32)
    x, out = whole[:256].reshape(1, 4, 8, 8), whole[200:416].reshape(1, 6, 6, 6)
    with pytest.raises(ValueError, match="out='overlapping': must not share memory with an input"):
        fastconv.conv2d(x, W, groups=2, out=out)


def test_an_algorithm_that_cannot_serve_says_why():
    with pytest.raises(fastconv.UnsupportedError, match=r"algorithm='fft': it computes in floating point.*int64|i64"):
        fastconv.conv2d(X.astype(int), W.astype(int), groups=2, algorithm="fft")
    with pytest.raises(fastconv.UnsupportedError):
        fastconv.conv2d(X[:0].astype(int), W.astype(int), groups=2, algorithm="fft")
    assert issubclass(fastconv.UnsupportedError, ValueError)


def test_explain_refuses_what_is_no_problem():
    with pytest.raises(ValueError, match="op='sideways': must be one of forward, grad_input, grad_weight"):
        fastconv.explain("x=1x1x4 w=1x1x2", op="sideways")
    with pytest.raises(TypeError, match="a problem line holds all parameters"):
        fastconv.explain("x=1x1x4 w=1x1x2", stride=2)
    with pytest.raises(ValueError, match="groups=3"):
        fastconv.explain(X, W, groups=3)
    with pytest.raises(
        ValueError, match=re.escape("must not exceed the padded input (5,)  [problem: x=1x1x5 w=1x1x9]")
    ):
        fastconv.explain("x=1x1x5 w=1x1x9")
    with pytest.raises(ValueError, match=r"rtol=-1: must be None or a finite number above 0  \[problem: x=1x4x8x8 w="):
        fastconv.explain(X, W, rtol=-1)


class Attached:
    """Like a tensor of PyTorch that requires a gradient."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("detach it first")


def test_what_makes_no_array_of_itself_keeps_its_error():
    with pytest.raises(RuntimeError, match=re.escape("x='Attached': is no array: detach it first  [problem: x=")):
        fastconv.conv2d(Attached(), W)


B = np.ones(6, np.float32)
# Everything that is computed by a convolution, on arguments that fit.
CONVOLUTIONS = {
    "conv2d": lambda **options: fastconv.conv2d(X, W, groups=2, **options),
    "prepare": lambda **options: fastconv.prepare(W, groups=2, **options)(X),
    "conv2d_input": lambda **options: grad.conv2d_input(X.shape, W, Y, groups=2, **options),
    "conv2d_weight": lambda **options: grad.conv2d_weight(X, W.shape, Y, groups=2, **options),
    "conv2d_backward": lambda **options: grad.conv2d_backward(Y, X, W, groups=2, **options),
    "conv2d_double_backward": lambda **options: grad.conv2d_double_backward(X, W, B, Y, X, W, groups=2, **options),
    "conv_transpose2d": lambda **options: fastconv.conv_transpose2d(Y, W, groups=2, **options),
    "conv_transpose2d_input": lambda **options: grad.conv_transpose2d_input(Y.shape, W, X, groups=2, **options),
    "conv_transpose2d_weight": lambda **options: grad.conv_transpose2d_weight(Y, W.shape, X, groups=2, **options),
    "conv_transpose2d_backward": lambda **options: grad.conv_transpose2d_backward(X, Y, W, groups=2, **options),
    "conv_transpose2d_double_backward": lambda **options: grad.conv_transpose2d_double_backward(
        Y, W, B[:4], X, Y, W, groups=2, **options
    ),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("layout", "NHWC"),
        ("algorithm", "winograd9"),
        ("rtol", -1.0),
        ("num_threads", 0),
        ("device", "tpu"),
        ("precision", "tf16"),
        ("precision", "tf32"),  # which there is on CUDA devices only
    ],
)
def test_no_function_overlooks_an_option(name, option, value):
    CONVOLUTIONS[name]()
    if name == "prepare" and option == "num_threads":
        return  # that is given to the call
    with pytest.raises(ValueError, match=rf"{option}='?{value}'?: must be"):
        CONVOLUTIONS[name](**{option: value})
