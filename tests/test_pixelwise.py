"""Large strides: pixels that are read wherever they stand, and weights whose vectors hold target channels."""

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
from fastconv.cpu import _pixelwise, direct

from .problems import expected, inputs_of, random_tensors, surrounded


@st.composite
def strided(draw, dtypes=("int32", "int64")):
    """Problems with large strides along the rows, around the extents of register tiles: 8 pixels, 16 channels."""
    rank, groups = draw(st.sampled_from((1, 2, 3))), draw(st.sampled_from((1, 2)))
    stride = (*(draw(st.integers(1, 4)) for _ in range(rank - 1)), draw(st.integers(3, 17)))
    filter = tuple(draw(st.integers(1, 5)) for _ in range(rank))
    dilation = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    padding = tuple((draw(st.integers(0, 4)), draw(st.integers(0, 4))) for _ in range(rank))
    # Rows of more pixels than a tile has are cut.
    rows = st.one_of(st.integers(1, 11), st.integers(470, 500)) if rank == 1 else st.integers(1, 11)
    outputs = (*(draw(st.integers(1, 5)) for _ in range(rank - 1)), draw(rows))
    input = tuple(
        (q - 1) * s + d * (r - 1) + 1 + draw(st.integers(0, s - 1)) - sum(pads)
        for q, s, d, r, pads in zip(outputs, stride, dilation, filter, padding, strict=True)
    )
    assume(min(input) > max(map(max, padding)))
    C, K = draw(st.integers(1, 9)), draw(st.sampled_from((16, 17, 31, 33, 48, 49, 64, 100)))
    return ConvProblem.from_shapes(
        (draw(st.integers(1, 3)), groups * C, *input), (groups * K, C, *filter), stride, padding, dilation, groups,
        padding_mode=draw(st.sampled_from(PADDING_MODES)), dtype=draw(st.sampled_from(dtypes)),
    )  # fmt: skip


@given(strided())
def test_integers_come_out_exactly(problem):
    """Computed so whatever it costs; what is read outside of a tensor would show."""
    tensors = {name: surrounded(tensor) for name, tensor in random_tensors(problem, 0, small_integers=True).items()}
    x, w, y = (tensors[name] for name in "xwy")
    sizes = direct._collapsed(problem)
    plan = _pixelwise.plan(problem, sizes, Op.FORWARD, PLAIN)
    y[...] = 99
    constants = np.zeros(problem.K + 1, problem.dtype)
    constants[-1] = problem.pad_value
    plan.run(x, w, y, y, constants, 2)
    np.testing.assert_array_equal(y, expected(problem, Op.FORWARD, tensors))


@given(strided(), st.sampled_from(Op))
def test_every_operation_with_what_is_chosen(problem, op):
    tensors = random_tensors(problem, 0, small_integers=True)
    result = evaluate(op, problem, algorithm="direct", **inputs_of(op, tensors))
    np.testing.assert_array_equal(result, expected(problem, op, tensors))


def test_bias_activation_and_residual():
    rng = np.random.default_rng(0)
    x, weight, bias = rng.standard_normal((2, 3, 40, 37)), rng.standard_normal((33, 3, 8, 8)), rng.standard_normal(33)
    assert _is_chosen("x=2x3x40x37 w=33x3x8x8 s=8 f64")
    y = fastconv.conv2d(x, weight, stride=8, algorithm="direct")
    add = rng.standard_normal(y.shape)
    finished = fastconv.conv2d(x, weight, bias, stride=8, algorithm="direct", activation="relu", add=add)
    np.testing.assert_allclose(finished, np.maximum(y + bias[:, None, None] + add, 0), atol=1e-12)


@pytest.mark.parametrize("line", [
    "x=1x3x224x224 w=768x3x16x16 s=16",
    "x=1x3x224x224 w=64x3x11x11 s=4 p=2",
    "x=8x16x64x64 w=32x16x5x5 s=4 p=2",
    "x=1x64x112x112 w=64x64x3x3 s=3 p=1",
])  # fmt: skip
def test_it_is_chosen_where_it_is_cheaper(line):
    """In each it took 0.19 to 0.93 of the time of the other kernels."""
    assert _is_chosen(line)


@pytest.mark.parametrize("line", [
    "x=8x1x16000 w=512x1x10 s=5",  # few terms, many outputs: 3.1 times as long
    "x=1x32x16000 w=64x32x9 s=4 p=4",  # 1.16 times
    "x=1x128x56x56 w=128x128x3x3 s=2 p=1",
    "x=1x3x224x224 w=15x3x16x16 s=16",
    "x=1x3x224x224 w=768x3x16x16 s=16 c64",
    "x=1x3x224x224 w=768x3x16x16 s=16 layout=channels_last",
])  # fmt: skip
def test_other_problems_are_left_to_the_other_kernels(line):
    assert not _is_chosen(line)


def _is_chosen(line):
    return direct._own_kernels(direct._collapsed(ConvProblem.parse(line)), Op.FORWARD) is _pixelwise
