"""Filters of one element: pixels that are read where they lie, and those that are copied as they are met first."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastconv.core.algorithm import PLAIN
from fastconv.core.problem import ConvProblem, Op
from fastconv.cpu import _pointwise, direct

from .problems import expected, random_tensors, surrounded

OPS = (Op.FORWARD, Op.GRAD_INPUT)
WAYS = {"read": None, "copied": True, "fetched and copied": True}


@st.composite
def pointwise(draw):
    """Problems around the extents of register tiles, of 8 rows, and of panels, of 48 or 24 pixels."""
    stride = draw(st.sampled_from(((1, 1), (1, 1), (2, 2), (3, 1))))
    height, width = draw(st.sampled_from(((1, 16), (1, 47), (2, 24), (7, 7), (5, 10), (1, 97), (9, 16), (40, 40))))
    input = tuple((q - 1) * s + 1 + draw(st.integers(0, s - 1)) for q, s in zip((height, width), stride, strict=True))
    groups = draw(st.sampled_from((1, 2)))
    C, K = draw(st.sampled_from((8, 24, 32, 40))), draw(st.sampled_from((8, 16, 40, 64)))
    return ConvProblem.from_shapes(
        (draw(st.integers(1, 2)), groups * C, *input), (groups * K, C, 1, 1), stride, groups=groups,
        dtype=draw(st.sampled_from(("float32", "float64", "complex64", "int32"))),
    )  # fmt: skip


def run(problem, op, way, tensors, monkeypatch, source_block=1 << 20):
    """The result of one way, NaN or 99 where nothing was stored; source_block: about as many channels at once."""
    monkeypatch.setattr(_pointwise, "PACKS", WAYS[way])
    monkeypatch.setattr(_pointwise, "SOURCE_BLOCK", source_block)
    monkeypatch.setattr(_pointwise, "FAR_BYTES", 0 if way.startswith("fetched") else 1 << 40)
    own = direct._collapsed(problem)
    assert _pointwise.serves(own, op)
    tensors = {name: surrounded(tensor) for name, tensor in tensors.items()}
    result = tensors["y" if op is Op.FORWARD else "x"]
    result[...] = 99
    constants = np.zeros({Op.FORWARD: problem.K, Op.GRAD_INPUT: problem.C}[op] + 1, problem.dtype)
    _pointwise.plan(problem, own, op, PLAIN).run(*(tensors[name] for name in "xwy"), result, constants, 2)
    return result


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("op", OPS)
@given(problem=pointwise(), source_block=st.sampled_from((14, 64)))
def test_integers_come_out_exactly(op, way, problem, source_block):
    """What is read or written outside of a tensor, or left from another call, would show."""
    tensors = random_tensors(problem, 0, small_integers=True)
    with pytest.MonkeyPatch.context() as monkeypatch:
        result = run(problem, op, way, tensors, monkeypatch, source_block)
    np.testing.assert_array_equal(result, expected(problem, op, tensors))


@pytest.mark.parametrize(
    "line", ["x=2x40x31x33 w=64x40x1x1", "x=1x64x14x14 w=256x64x1x1", "x=1x64x29x29 w=32x64x1x1 s=2"]
)
@pytest.mark.parametrize("op", OPS)
def test_both_ways_add_in_the_same_order(op, line, monkeypatch):
    problem = ConvProblem.parse(line)
    tensors = random_tensors(problem, 0)
    results = [run(problem, op, way, tensors, monkeypatch) for way in WAYS]
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])
