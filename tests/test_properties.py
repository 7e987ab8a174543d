"""What convolution is, as equations that hold for any data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastconv
from fastconv import grad
from fastconv.core.evaluate import evaluate
from fastconv.core.problem import Op

from .problems import GENERAL_NAMES, conv_problems, random_tensors

ALGORITHMS = pytest.mark.parametrize("algorithm", GENERAL_NAMES)
SEEDS = st.integers(0, 2**32 - 1)
# Relative to the norms of the operands: float64 sums of at most some ten thousand terms, 1e4 * 2**-53 = 1e-12.
TOLERANCE = 1e-12


def near(first, second, scale):
    return np.all(np.abs(np.asarray(first) - second) <= TOLERANCE * (1 + scale))


@ALGORITHMS
@given(problem=conv_problems(dtypes=("float64",)).filter(lambda p: p.padding_mode != "constant"), seed=SEEDS)
def test_the_three_operations_are_one_form(algorithm, problem, seed):
    """<conv(x, w), y> = <x, grad_input(y, w)> = <w, grad_weight(x, y)>."""
    t = random_tensors(problem, seed)
    form = [
        np.vdot(t["y"], evaluate(Op.FORWARD, problem, x=t["x"], w=t["w"], algorithm=algorithm)),
        np.vdot(t["x"], evaluate(Op.GRAD_INPUT, problem, y=t["y"], w=t["w"], algorithm=algorithm)),
        np.vdot(t["w"], evaluate(Op.GRAD_WEIGHT, problem, x=t["x"], y=t["y"], algorithm=algorithm)),
    ]
    scale = problem.multiplications
    assert near(form[0], form[1], scale)
    assert near(form[0], form[2], scale)


@ALGORITHMS
@given(problem=conv_problems(dtypes=("complex128",), padding_modes=("zeros", "reflect")), seed=SEEDS)
def test_complex_gradients_are_adjoints(algorithm, problem, seed):
    """<conv(x, w), y> = <x, grad_x> = <w, grad_weight>, with conjugation as in numpy.vdot."""
    t = random_tensors(problem, seed)
    conv, conv_input, conv_weight = functions(problem.rank)
    window, options = parameters(problem), {"layout": problem.layout, "padding_mode": problem.padding_mode}
    options["algorithm"] = algorithm
    forward = np.vdot(conv(t["x"], t["w"], None, *window, **options), t["y"])
    scale = problem.multiplications
    assert near(forward, np.vdot(t["x"], conv_input(t["x"].shape, t["w"], t["y"], *window, **options)), scale)
    assert near(forward, np.vdot(t["w"], conv_weight(t["x"], t["w"].shape, t["y"], *window, **options)), scale)


def functions(rank):
    return getattr(fastconv, f"conv{rank}d"), getattr(grad, f"conv{rank}d_input"), getattr(grad, f"conv{rank}d_weight")


def parameters(problem):
    lead = 3 - problem.rank
    return problem.stride[lead:], problem.padding[lead:], problem.dilation[lead:], problem.groups


@ALGORITHMS
@given(problem=conv_problems(dtypes=("float64",), padding_modes=("zeros", "circular")), seed=SEEDS)
def test_linear_in_each_argument(algorithm, problem, seed):
    t, u = random_tensors(problem, seed), random_tensors(problem, seed + 1)

    def conv(x, w):
        return evaluate(Op.FORWARD, problem, x=x, w=w, algorithm=algorithm)

    scale = problem.terms(Op.FORWARD) * 100
    assert near(conv(2 * t["x"] + 3 * u["x"], t["w"]), 2 * conv(t["x"], t["w"]) + 3 * conv(u["x"], t["w"]), scale)
    assert near(conv(t["x"], 2 * t["w"] + 3 * u["w"]), 2 * conv(t["x"], t["w"]) + 3 * conv(t["x"], u["w"]), scale)


@ALGORITHMS
@given(
    extents=st.tuples(st.integers(3, 12), st.integers(3, 12)),
    shift=st.tuples(st.integers(-5, 5), st.integers(-5, 5)),
    seed=SEEDS,
)
def test_shifting_the_input_shifts_the_output(algorithm, extents, shift, seed):
    rng = np.random.default_rng(seed)
    x, weight = rng.standard_normal((1, 2, *extents)), rng.standard_normal((3, 2, 3, 3))

    def conv(x):
        return fastconv.conv2d(x, weight, padding=1, padding_mode="circular", algorithm=algorithm)

    assert near(conv(np.roll(x, shift, (2, 3))), np.roll(conv(x), shift, (2, 3)), 18)


@ALGORITHMS
@given(groups=st.integers(1, 4), channels=st.integers(1, 3), outputs=st.integers(1, 3), seed=SEEDS)
def test_groups_are_separate_convolutions(algorithm, groups, channels, outputs, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, groups * channels, 7, 6))
    weight = rng.standard_normal((groups * outputs, channels, 3, 2))
    together = fastconv.conv2d(x, weight, padding=1, groups=groups, algorithm=algorithm)
    apart = [
        fastconv.conv2d(part, filters, padding=1, algorithm=algorithm)
        for part, filters in zip(np.split(x, groups, 1), np.split(weight, groups), strict=True)
    ]
    assert near(together, np.concatenate(apart, 1), 20)


SEQUENCES = st.integers(1, 12)


def convolved(a, b, algorithm):
    return fastconv.conv1d(a[None], b[None, None], padding="full", flip=True, algorithm=algorithm)[0]


@ALGORITHMS
@given(lengths=st.tuples(SEQUENCES, SEQUENCES, SEQUENCES), seed=SEEDS)
def test_true_convolution_commutes_and_associates(algorithm, lengths, seed):
    rng = np.random.default_rng(seed)
    a, b, c = (rng.standard_normal(n) for n in lengths)
    assert near(convolved(a, b, algorithm), convolved(b, a, algorithm), 12)
    first = convolved(convolved(a, b, algorithm), c, algorithm)
    assert near(first, convolved(a, convolved(b, c, algorithm), algorithm), 144)
    np.testing.assert_allclose(first, np.convolve(np.convolve(a, b), c), atol=1e-10)


@given(problem=conv_problems(dtypes=("float64",)), seed=SEEDS)
def test_flip_reverses_the_filter(problem, seed):
    t = random_tensors(problem, seed)
    conv, conv_input, conv_weight = functions(problem.rank)
    window = parameters(problem)
    options = {"layout": problem.layout, "padding_mode": problem.padding_mode}
    value = {"pad_value": problem.pad_value}
    axes = tuple(range(2, problem.rank + 2))
    turned = np.flip(t["w"], axes)
    np.testing.assert_array_equal(
        conv(t["x"], t["w"], None, *window, flip=True, **options, **value),
        conv(t["x"], turned, None, *window, **options, **value),
    )
    np.testing.assert_array_equal(
        conv_input(t["x"].shape, t["w"], t["y"], *window, flip=True, **options),
        conv_input(t["x"].shape, turned, t["y"], *window, **options),
    )
    np.testing.assert_array_equal(
        conv_weight(t["x"], t["w"].shape, t["y"], *window, flip=True, **options, **value),
        np.flip(conv_weight(t["x"], t["w"].shape, t["y"], *window, **options, **value), axes),
    )


@given(problem=conv_problems(dtypes=("float32", "float64", "int32")), seed=SEEDS)
def test_layouts_agree(problem, seed):
    t = random_tensors(problem, seed, small_integers=True)
    conv = functions(problem.rank)[0]
    window = parameters(problem)
    options = {"padding_mode": problem.padding_mode, "pad_value": problem.pad_value, "algorithm": "direct"}
    given_layout = conv(t["x"], t["w"], None, *window, layout=problem.layout, **options)
    first = problem.layout == "channels_first"
    moved = np.moveaxis(t["x"], 1, -1) if first else np.moveaxis(t["x"], -1, 1)
    other = conv(moved, t["w"], None, *window, layout="channels_last" if first else "channels_first", **options)
    np.testing.assert_array_equal(given_layout, np.moveaxis(other, -1, 1) if first else np.moveaxis(other, 1, -1))
