"""Every (algorithm, operation) of the registry against the reference, on any problem.

A new algorithm joins by being registered. One that serves few problems is tested on those that it serves in a file of
its own, with the same checks.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, currently_in_test_context, given
from hypothesis import strategies as st

from fastconv.core.algorithm import PLAIN
from fastconv.core.evaluate import evaluate
from fastconv.core.problem import ConvProblem, Op
from fastconv.core.registry import algorithms

from . import reference
from .problems import FLOATING, GENERAL, INTEGERS, conv_problems, expected, inputs_of, random_tensors

EVERY = [pytest.param(a, op, id=f"{a.name}-{op.value}") for a in algorithms() for op in Op]
ON_ANY = [pytest.param(a, op, id=f"{a.name}-{op.value}") for a in GENERAL for op in Op]
CONTAINED = [pytest.param(a, op, id=f"{a.name}-{op.value}") for a in GENERAL if not a.spreads for op in Op]
FORWARD = [pytest.param(a, id=a.name) for a in GENERAL]


def served(lines):
    """Every algorithm, operation and problem that go together."""
    return [
        pytest.param(a, op, line, id=f"{a.name}-{op.value}-{line}")
        for a in algorithms() for op in Op for line in lines if a.supports(ConvProblem.parse(line), op) is None
    ]  # fmt: skip


def computed(algorithm, op, problem, tensors, **options):
    """The algorithm's result; a random problem that it does not serve is no example."""
    if currently_in_test_context():
        assume(algorithm.supports(problem.computed, op) is None)
    return evaluate(op, problem, algorithm=algorithm.name, **inputs_of(op, tensors), **options)


def rounding_error(algorithm, op, problem, tensors):
    """A bound on the rounding error of each element.

    A sum of n products in any order is off by at most n * u / (1 - n * u) times the sum of their magnitudes
    (Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition, section 3.1), with 2 * sqrt(2) for
    complex products (section 3.6). Through the transform, the error of an element is at most a multiple of
    u * log2(points) of the product of the Euclidean norms (section 24.1); the multiple is 16 for three transforms.
    """
    kind = np.dtype(problem.dtype)
    unit = np.finfo(kind).eps / 2
    terms = problem.terms(op) + 2
    if not algorithm.spreads:
        magnitudes = {name: np.abs(tensor) for name, tensor in tensors.items()}
        total = expected(problem.replace(pad_value=abs(problem.pad_value)), op, magnitudes)
        return (3 if kind.kind == "c" else 1) * terms * unit / (1 - terms * unit) * total
    padded = reference.pad(np.abs(tensors["x"]), [(0, 0)] * problem.rank)
    norms = {name: np.linalg.norm(tensor.astype(complex)) for name, tensor in inputs_of(op, tensors).items()}
    if "x" in norms:  # with all that the padding adds
        norms["x"] = math.sqrt(norms["x"] ** 2 * 16 + problem.N * math.prod(problem.padded) * problem.C * 9)
    points = 4 * math.prod(problem.padded) + padded.size
    return 16 * unit * math.log2(points + 2) * math.prod(norms.values())


@pytest.mark.parametrize(("algorithm", "op"), ON_ANY)
@given(problem=conv_problems(dtypes=FLOATING), seed=st.integers(0, 2**32 - 1))
def test_random_data_agrees_within_rounding(algorithm, op, problem, seed):
    agrees_within_rounding(algorithm, op, problem, seed)


def agrees_within_rounding(algorithm, op, problem, seed):
    tensors = random_tensors(problem, seed)
    result = computed(algorithm, op, problem, tensors)
    assert result.dtype == problem.dtype
    assert result.shape == problem.result_shape(op)
    error = np.abs(result - expected(problem, op, tensors))
    assert np.all(error <= rounding_error(algorithm, op, problem, tensors)), str(problem)


@pytest.mark.parametrize(("algorithm", "op"), CONTAINED)
@given(problem=conv_problems(dtypes=FLOATING + INTEGERS), seed=st.integers(0, 2**32 - 1))
def test_small_integers_are_exact(algorithm, op, problem, seed):
    tensors = random_tensors(problem, seed, small_integers=True)
    result = computed(algorithm, op, problem, tensors)
    np.testing.assert_array_equal(result, expected(problem, op, tensors), err_msg=str(problem))


@pytest.mark.parametrize("algorithm", FORWARD)
@given(problem=conv_problems(dtypes=("float64",)), seed=st.integers(0, 2**32 - 1))
def test_forward_agrees_with_scipy(algorithm, problem, seed):
    tensors = random_tensors(problem, seed)
    result = computed(algorithm, Op.FORWARD, problem, tensors)
    other = expected(problem, Op.FORWARD, tensors, forward=reference.scipy_forward)
    assert np.all(np.abs(result - other) <= 2 * rounding_error(algorithm, Op.FORWARD, problem, tensors))


@pytest.mark.parametrize(("algorithm", "op"), ON_ANY)
@given(problem=conv_problems(dtypes=("float32",)), seed=st.integers(0, 2**32 - 1))
def test_out_receives_the_result_and_inputs_stay(algorithm, op, problem, seed):
    receives_the_result(algorithm, op, problem, seed)


def receives_the_result(algorithm, op, problem, seed):
    tensors = random_tensors(problem, seed)
    before = {name: tensor.copy() for name, tensor in tensors.items()}
    out = np.full(problem.result_shape(op), np.nan, problem.dtype)
    assert computed(algorithm, op, problem, tensors, out=out) is out
    np.testing.assert_array_equal(out, computed(algorithm, op, problem, tensors))
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, before[name])


# Sizes around the tiles: 512 pixels, blocks of 16 rows, 14 or 16 lines, sums in parts, several blocks of channels.
LARGER = [
    "x=1x40x33x35 w=70x40x3x3 p=1",
    "x=2x3x70x71 w=5x3x7x5 s=2 p=3x2",
    "x=1x2x1030 w=3x2x9 p=4",
    "x=1x1x130x1100 w=1x1x3x3 p=1",
    "x=3x600x4x4 w=33x600x1x1",
    "x=1x24x40x40 w=24x1x5x5 p=2 g=24",
    *(f"x=1x6x47x35 w=6x1x7x5 p=3x2 g=6 {dtype}" for dtype in ("f32", "f64")),
    "x=1x4x9x40x41 w=6x4x3x3x3 p=1 s=1x2x1",
    "x=1x2x50x50 w=2x2x21x21 p=10",
    *(f"x=3x600x5x5 w=40x600x1x1 {dtype}" for dtype in ("f32", "f64", "c64")),
    "x=2x48x14x14 w=32x24x1x1 g=2",
    *(f"x=2x3x20x200 w=16x3x3x3 p=1 {dtype}" for dtype in ("f32", "f64", "c64")),
    "x=1x2x31x205 w=8x2x3x4 s=2 p=1",
]


@pytest.mark.parametrize(("algorithm", "op", "line"), served(LARGER))
def test_sizes_around_the_tiles(algorithm, op, line):
    problem = ConvProblem.parse(line)
    tensors = random_tensors(problem, 0)
    error = np.abs(computed(algorithm, op, problem, tensors) - expected(problem, op, tensors))
    assert np.all(error <= rounding_error(algorithm, op, problem, tensors))


@pytest.mark.parametrize(("algorithm", "op", "line"), served(LARGER))
def test_threads_do_not_change_the_result(algorithm, op, line, monkeypatch):
    monkeypatch.setattr("fastconv.core.evaluate.SERIAL_SECONDS", 0)
    problem = ConvProblem.parse(line)
    tensors = random_tensors(problem, 0)
    serial = computed(algorithm, op, problem, tensors, num_threads=1)
    np.testing.assert_array_equal(serial, computed(algorithm, op, problem, tensors))


@pytest.mark.parametrize(
    ("algorithm", "op", "line"), served(["x=2x32x28x28 w=32x32x5x5 p=2", "x=2x64x28x28 w=64x64x3x3 p=1"])
)
def test_the_error_bound_holds_on_random_data(algorithm, op, line):
    """What `auto` goes by: the largest error over the root mean square of the result."""
    problem = ConvProblem.parse(line)
    tensors = random_tensors(problem, 0)
    exact = expected(problem, op, tensors)
    error = np.abs(computed(algorithm, op, problem, tensors) - exact).max() / np.sqrt(np.mean(exact**2))
    assert error <= algorithm.error_bound(problem, op)


@pytest.mark.parametrize(("algorithm", "op"), EVERY)
@given(problem=conv_problems())
def test_plans_describe_themselves(algorithm, op, problem):
    if algorithm.supports(problem, op) is None:
        plan = algorithm.plan(problem, op, PLAIN)
        assert plan.algorithm == algorithm.name
        assert str(problem) in str(plan)
        assert plan.workspace_bytes == algorithm.workspace(problem, op)
        assert 0 <= algorithm.error_bound(problem, op) < 1


@pytest.mark.parametrize(("algorithm", "op"), EVERY)
@pytest.mark.parametrize("dtype", INTEGERS)
def test_an_algorithm_that_rounds_refuses_integers(algorithm, op, dtype):
    problem = ConvProblem.parse("x=1x2x8x8 w=2x2x3x3").replace(dtype=dtype)
    refusal = algorithm.supports(problem, op)
    assert (refusal is not None) == algorithm.spreads
    assert algorithm.spreads or algorithm.error_bound(problem, op) == 0
