"""Strips of the direct kernels that are packed into panels, all of a block or a few at a time."""

from __future__ import annotations

import numpy as np
import pytest

from fastconv.core.algorithm import PLAIN
from fastconv.core.problem import ConvProblem, Op
from fastconv.cpu import direct

from .problems import expected, random_tensors, surrounded


@pytest.mark.parametrize("strips_bytes", [1, 3000, 1 << 30], ids=["one", "a few", "all"])
@pytest.mark.parametrize(
    ("op", "line"),
    [
        (Op.FORWARD, "x=1x70x14x14 w=128x70x3x3 p=1"),
        (Op.FORWARD, "x=1x128x28x28 w=128x128x3x3 s=2 p=1"),
        (Op.GRAD_INPUT, "x=1x70x7x7 w=16x70x3x3 p=1"),
    ],
)
def test_strips_at_a_time(op, line, strips_bytes, monkeypatch):
    """Borders are written with the first strips only, and panels lie behind each other."""
    monkeypatch.setattr(direct, "FAST_PRODUCTS", True)
    monkeypatch.setattr(direct, "PACKED_STRIPS_BYTES", strips_bytes)
    problem = ConvProblem.parse(line)
    tensors = random_tensors(problem, 0, small_integers=True)
    right = expected(problem, op, tensors)
    plan = direct._plan(problem, op, PLAIN)
    assert plan.tiles["packed"]
    tensors = {name: surrounded(tensor) for name, tensor in tensors.items()}
    result = tensors["y" if op is Op.FORWARD else "x"]
    result[...] = 99
    constants = np.zeros({Op.FORWARD: problem.K, Op.GRAD_INPUT: problem.C}[op] + 1, problem.dtype)
    plan.run(*(tensors[name] for name in "xwy"), result, constants, 2)
    np.testing.assert_array_equal(result, right)
