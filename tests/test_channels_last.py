"""Direct kernels of channels_last, whose vectors hold the channels of a pixel: dense and depthwise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import fastconv
from fastconv.core.algorithm import PLAIN
from fastconv.core.boundary import PADDING_MODES
from fastconv.core.evaluate import evaluate
from fastconv.core.problem import ConvProblem, Op
from fastconv.cpu import _channels_dense, _channels_depthwise, direct

from .problems import expected, inputs_of, random_tensors, surrounded

RESULT = {Op.FORWARD: "y", Op.GRAD_INPUT: "x", Op.GRAD_WEIGHT: "w"}


@st.composite
def windows(draw, rank):
    """Extents, filter, stride, padding and dilation, around the extents of register tiles: 7 and 8 pixels."""
    stride = tuple(draw(st.integers(1, 4)) for _ in range(rank))
    filter = tuple(draw(st.integers(1, 5)) for _ in range(rank))
    dilation = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    padding = tuple((draw(st.integers(0, 4)), draw(st.integers(0, 4))) for _ in range(rank))
    outputs = (*(draw(st.integers(1, 5)) for _ in range(rank - 1)), draw(st.integers(1, 17)))
    input = tuple(
        (q - 1) * s + d * (r - 1) + 1 + draw(st.integers(0, s - 1)) - sum(pads)
        for q, s, d, r, pads in zip(outputs, stride, dilation, filter, padding, strict=True)
    )
    assume(min(input) > max(map(max, padding)))
    return input, filter, stride, padding, dilation


@st.composite
def dense(draw, dtypes=("int32", "int64")):
    """Around the lanes of registers: 16 and 8 channels."""
    rank, groups = draw(st.sampled_from((1, 2, 3))), draw(st.sampled_from((1, 2)))
    input, filter, *window = draw(windows(rank))
    channels = st.sampled_from((8, 9, 15, 16, 17, 33, 48, 100))
    C, K = draw(st.one_of(st.integers(1, 9), channels)), draw(channels)
    return ConvProblem.from_shapes(
        (draw(st.integers(1, 3)), *input, groups * C), (groups * K, C, *filter), *window, groups,
        padding_mode=draw(st.sampled_from(PADDING_MODES)), layout="channels_last", dtype=draw(st.sampled_from(dtypes)),
    )  # fmt: skip


@st.composite
def depthwise(draw, dtypes=("int32", "int64")):
    rank, C = draw(st.sampled_from((1, 2, 3))), draw(st.sampled_from((8, 9, 15, 16, 17, 33, 48, 100)))
    input, filter, *window = draw(windows(rank))
    return ConvProblem.from_shapes(
        (draw(st.integers(1, 3)), *input, C), (C, 1, *filter), *window, C,
        padding_mode=draw(st.sampled_from(PADDING_MODES)), layout="channels_last", dtype=draw(st.sampled_from(dtypes)),
    )  # fmt: skip


def check(kernels, problem, op):
    """Computed so whatever it costs; what is read or written outside of a tensor would show."""
    collapsed = direct._collapsed(problem)
    assume(kernels.serves(collapsed, op))
    tensors = {name: surrounded(tensor) for name, tensor in random_tensors(problem, 0, small_integers=True).items()}
    answer, result = expected(problem, op, tensors), tensors[RESULT[op]]
    result[...] = 99
    constants = np.zeros({Op.FORWARD: problem.K, Op.GRAD_INPUT: problem.C, Op.GRAD_WEIGHT: 0}[op] + 1, problem.dtype)
    constants[-1] = 0 if op is Op.GRAD_INPUT else problem.pad_value
    kernels.plan(problem, collapsed, op, PLAIN).run(*(tensors[name] for name in "xwy"), result, constants, 2)
    np.testing.assert_array_equal(result, answer)


@given(dense(), st.sampled_from(Op))
def test_dense_integers_come_out_exactly(problem, op):
    check(_channels_dense, problem, op)


@given(depthwise(), st.sampled_from(Op))
def test_depthwise_integers_come_out_exactly(problem, op):
    check(_channels_depthwise, problem, op)


@given(st.one_of(dense(), depthwise()), st.sampled_from(Op))
def test_every_operation_with_what_is_chosen(problem, op):
    tensors = random_tensors(problem, 0, small_integers=True)
    result = evaluate(op, problem, algorithm="direct", **inputs_of(op, tensors))
    np.testing.assert_array_equal(result, expected(problem, op, tensors))


@pytest.mark.parametrize("op", Op)
@pytest.mark.parametrize("line", [
    "x=1x512x14x14 w=40x512x3x3 p=1",  # source channels in blocks
    "x=1x40x70x70 w=300x40x3x3 p=1",  # target channels in blocks
    "x=3x64x28x28 w=64x64x1x1",  # read and stored in place
    "x=1x200x60x90 w=200x1x3x3 p=1 g=200",  # parts of rows and channels
    "x=2x48x9x9 w=48x1x9x9 p=4 g=48",
])  # fmt: skip
def test_tensors_that_are_cut(op, line):
    problem = ConvProblem.parse(f"{line} i32 layout=channels_last")
    tensors = random_tensors(problem, 0, small_integers=True)
    result = evaluate(op, problem, algorithm="direct", **inputs_of(op, tensors))
    np.testing.assert_array_equal(result, expected(problem, op, tensors))


@pytest.mark.parametrize(("shape", "groups"), [((40, 24, 3, 3), 1), ((32, 24, 1, 1), 1), ((24, 1, 3, 3), 24)])
@pytest.mark.parametrize("stride", [1, 2])
def test_bias_activation_and_residual(shape, groups, stride):
    rng = np.random.default_rng(0)
    x, weight, bias = rng.standard_normal((2, 12, 16, 24)), rng.standard_normal(shape), rng.standard_normal(shape[0])
    plain = {"stride": stride, "groups": groups, "algorithm": "direct", "layout": "channels_last"}
    y = fastconv.conv2d(x, weight, **plain)
    add = rng.standard_normal(y.shape)
    finished = fastconv.conv2d(x, weight, bias, **plain, add=add, activation="relu")
    np.testing.assert_allclose(finished, np.maximum(y + bias + add, 0), atol=1e-12)


@pytest.mark.parametrize(("line", "kernels"), [
    ("x=1x64x56x56 w=256x64x1x1", _channels_dense),
    ("x=1x3x224x224 w=64x3x7x7 s=2 p=3", _channels_dense),
    ("x=1x64x56x56 w=64x1x3x3 p=1 g=64", _channels_depthwise),
    ("x=1x64x56x56 w=3x64x3x3 p=1", None),  # most lanes would be idle
    ("x=1x64x56x56 w=64x1x3x3 p=1 g=64 c64", None),
    ("x=1x16x2000000 w=16x1x3 p=1 g=16", _channels_depthwise),  # rows of which no part is small are cut all the same
    ("x=1x16x900x900 w=16x1x3x3 d=300 p=300 g=16", None),  # the strip of a register tile takes too much memory
    ("x=1x2048x7x7 w=64x2048x5x5 p=2", None),  # the weights of a register tile take too much memory
])  # fmt: skip
def test_which_kernels_serve(line, kernels):
    problem = direct._collapsed(ConvProblem.parse(f"{line} layout=channels_last"))
    assert direct._own_kernels(problem, Op.FORWARD) is kernels
    for op in Op:
        assert direct.workspace(problem, op) <= 8 << 20


def test_gradients_that_are_folded_back_are_left_to_the_other_kernels():
    problem = ConvProblem.parse("x=1x16x9x9 w=16x16x3x3 p=1 mode=reflect layout=channels_last")
    assert direct._own_kernels(problem, Op.GRAD_INPUT) is None
    assert direct._own_kernels(problem, Op.FORWARD) is _channels_dense
