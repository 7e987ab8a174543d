"""Winograd's method with strides, where neighbouring outputs share products."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import fastconv
from fastconv.core.algorithm import PLAIN
from fastconv.core.boundary import PADDING_MODES
from fastconv.core.evaluate import evaluate
from fastconv.core.parameters import LAYOUTS
from fastconv.core.problem import ConvProblem, Op
from fastconv.core.selector import find
from fastconv.cpu import _winograd_pair_sizes, winograd
from fastconv.cpu._launch import scratch

from .problems import expected, inputs_of, random_tensors
from .test_algorithms import agrees_within_rounding, receives_the_result

ALGORITHM = find("winograd")
OPS = [Op.FORWARD, Op.GRAD_INPUT]
SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def problems(draw, op, dtypes=("float32", "float64")):
    """Any small problem with a stride that is served."""
    rank = draw(st.sampled_from((1, 2)))
    chosen = draw(st.integers(0, rank - 1))  # an axis with taps that share products
    stride = [draw(st.integers(1 + (axis == chosen), 3)) for axis in range(rank)]
    filters = [draw(st.integers(step + (axis == chosen), 7)) for axis, step in enumerate(stride)]
    dilation = [1 if axis == chosen else draw(st.sampled_from((1, 1, 1, 2, 3))) for axis in range(rank)]
    padding = [draw(st.tuples(st.integers(0, 4), st.integers(0, 4))) for _ in range(rank)]
    extents = [
        draw(st.integers(max(1, d * (r - 1) + 1 + (axis == chosen) * step - low - high), 150 if rank == 1 else 30))
        for axis, (r, d, step, (low, high)) in enumerate(zip(filters, dilation, stride, padding, strict=True))
    ]
    groups = draw(st.sampled_from((1, 1, 2)))
    few, many = draw(st.integers(1, 20)), draw(st.integers(16, 40))
    channels, outputs = (few, many) if op is Op.FORWARD else (many, few)
    mode = draw(st.sampled_from(PADDING_MODES)) if op is Op.FORWARD else "zeros"
    layout = draw(st.sampled_from(LAYOUTS))
    N = draw(st.integers(1, 2))
    problem = ConvProblem.from_shapes(
        (N, groups * channels, *extents) if layout == "channels_first" else (N, *extents, groups * channels),
        (groups * outputs, channels, *filters),
        stride,
        padding,
        dilation,
        groups,
        padding_mode=mode,
        pad_value=draw(st.integers(-3, 3)) if mode == "constant" else 0,
        layout=layout,
        dtype=draw(st.sampled_from(dtypes)),
    )
    assume(problem.stride != (1, 1, 1) and winograd.supports(problem, op) is None)
    return problem


@pytest.mark.parametrize("op", OPS)
@given(data=st.data(), seed=SEEDS)
def test_random_data_agrees_within_rounding(op, data, seed):
    agrees_within_rounding(ALGORITHM, op, data.draw(problems(op)), seed)


@pytest.mark.parametrize("op", OPS)
@given(data=st.data(), seed=SEEDS)
def test_out_receives_the_result_and_inputs_stay(op, data, seed):
    receives_the_result(ALGORITHM, op, data.draw(problems(op)), seed)


def is_within_its_bound(problem, op, result, tensors):
    exact = expected(problem, op, tensors)
    error = np.abs(result - exact).max() / np.sqrt(np.mean(exact**2))
    return error < 1.5 * winograd.error_bound(problem, op)


# Every extent around pairs of outputs and whole tiles.
@pytest.mark.parametrize("extent", [4, 5, 6, 7, 8, 9, 10, 17, 31, 32, 33, 34, 63, 64, 65, 66, 129, 130])
@pytest.mark.parametrize("op", OPS)
def test_extents_around_pairs_and_tiles(op, extent):
    for line in (
        f"x=1x17x{extent}x7 w=18x17x3x3 s=2 p=1", f"x=1x17x8x{extent} w=18x17x3x3 s=2 p=1",
        f"x=2x17x{extent} w=33x17x4 s=2 p=1", f"x=1x17x{extent}x9 w=18x17x7x7 s=2 p=3",
        f"x=1x17x9x{extent} w=18x17x5x4 s=1x2 p=2", f"x=1x17x9x{extent} w=18x17x7x3 s=3x1 p=3x0",
    ):  # fmt: skip
        for layout in LAYOUTS:
            problem = ConvProblem.parse(line).replace(layout=layout)
            tensors = random_tensors(problem, extent)
            result = evaluate(op, problem, algorithm="winograd", **inputs_of(op, tensors))
            assert is_within_its_bound(problem, op, result, tensors), line


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "line",
    [
        "x=2x40x21x38 w=36x40x3x3 s=2 p=1",
        "x=1x66x40x19 w=34x33x4x5 s=2x3 p=2 g=2",
        "x=1x33x300 w=50x33x5 s=2",
    ],
)
@pytest.mark.parametrize("op", OPS)
def test_every_choice_of_sizes_gives_the_result(op, line, dtype, monkeypatch):
    problem = ConvProblem.parse(line).replace(dtype=dtype)
    tensors = random_tensors(problem, 0)
    inputs = inputs_of(op, tensors)
    choices = list(_winograd_pair_sizes.tilings(problem, op))
    assert len(choices) > 10
    for sizes in choices[::5]:
        monkeypatch.setattr(_winograd_pair_sizes, "sizes_of", lambda problem, op, sizes=sizes: sizes)
        result = np.full(problem.result_shape(op), np.nan, dtype)
        constants = np.zeros({Op.FORWARD: problem.K, Op.GRAD_INPUT: problem.C}[op] + 1, dtype)
        arguments = {name: inputs.get(name, result) for name in "xwy"}
        winograd.plan(problem, op, PLAIN).run(*arguments.values(), result, constants, 2)
        assert is_within_its_bound(problem, op, result, tensors), sizes


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("op", OPS)
def test_sums_tell_of_every_element_that_spreads(op, layout, bad):
    """Of one element anywhere that is met, and not of what an earlier call left in the workspace."""
    problem = ConvProblem.parse("x=1x17x7x9 w=18x17x3x3 s=2 p=1").replace(layout=layout)
    tensors = random_tensors(problem, 0)
    result = np.empty(problem.result_shape(op), problem.dtype)
    tensors["y" if op is Op.FORWARD else "x"] = result
    constants = np.zeros({Op.FORWARD: problem.K, Op.GRAD_INPUT: problem.C}[op] + 1, problem.dtype)
    plan = winograd.plan(problem, op, PLAIN)

    def are_bad(tensors):
        return plan.run(tensors["x"], tensors["w"], tensors["y"], result, constants, 2)

    assert plan.notices
    for name in ("x", "w") if op is Op.FORWARD else ("y", "w"):
        for place in range(0, tensors[name].size, 7):
            held = tensors[name].copy()
            held.flat[place] = bad
            assert are_bad(tensors | {name: held})
    scratch(1 << 20, problem.dtype, "workspace").fill(bad)
    assert not are_bad(tensors)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_auto_puts_what_is_not_finite_where_direct_does(bad):
    line = "x=1x64x56x56 w=128x64x4x4 s=2 p=1"
    assert fastconv.explain(line).algorithm == "winograd"
    tensors = random_tensors(ConvProblem.parse(line), 0)
    tensors["x"][0, 5, 17, 18] = bad
    results = [
        fastconv.conv2d(tensors["x"], tensors["w"], stride=2, padding=1, algorithm=each) for each in ("auto", "direct")
    ]
    np.testing.assert_array_equal(*map(np.isfinite, results))
    np.testing.assert_array_equal(*map(np.isnan, results))


@pytest.mark.parametrize("activation", [None, "relu", "gelu"])
@given(data=st.data(), has_add=st.booleans(), seed=SEEDS)
def test_bias_add_and_activation_as_it_stores(activation, data, has_add, seed):
    problem = data.draw(problems(Op.FORWARD, dtypes=("float32",)))
    tensors = random_tensors(problem, seed)
    rng = np.random.default_rng(seed)
    bias = rng.standard_normal(problem.K).astype("float32")
    add = rng.standard_normal(problem.y_shape).astype("float32") if has_add else None
    conv = getattr(fastconv, f"conv{problem.rank}d")
    lead = 3 - problem.rank
    window = (bias, problem.stride[lead:], problem.padding[lead:], problem.dilation[lead:], problem.groups)
    options = {
        "padding_mode": problem.padding_mode,
        "layout": problem.layout,
        "pad_value": problem.pad_value,
        "activation": activation,
        "add": add,
    }
    results = [conv(tensors["x"], tensors["w"], *window, **options, algorithm=each) for each in ("winograd", "direct")]
    np.testing.assert_allclose(*results, rtol=0, atol=2e-5 * (1 + np.abs(results[1]).max()))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize("has_add", [False, True])
def test_bias_add_and_activation_of_transposed_convolutions(layout, activation, has_add):
    rng = np.random.default_rng(0)
    x_shape, y_shape = ((2, 9, 7, 11), (2, 21, 14, 22))
    if layout == "channels_last":
        x_shape, y_shape = (2, 7, 11, 9), (2, 14, 22, 21)
    x, w, bias, add = (
        rng.standard_normal(shape, dtype=np.float32) for shape in (x_shape, (9, 21, 4, 4), (21,), y_shape)
    )
    options = {"stride": 2, "padding": 1, "layout": layout, "activation": activation, "add": add if has_add else None}
    results = [fastconv.conv_transpose2d(x, w, bias, **options, algorithm=each) for each in ("winograd", "direct")]
    np.testing.assert_allclose(*results, rtol=0, atol=1e-5 * np.abs(results[1]).max())


@pytest.mark.parametrize(
    ("line", "op", "reason"),
    [
        ("x=1x20x9x9 w=20x20x3x3 s=2", Op.GRAD_WEIGHT, "with a stride it serves FORWARD and GRAD_INPUT only"),
        ("x=1x20x9x9 w=20x20x3x3 s=3", Op.FORWARD, "no two taps meet neighbouring elements"),
        ("x=1x20x9x9 w=20x20x1x1 s=2", Op.GRAD_INPUT, "no two taps meet neighbouring elements"),
        ("x=1x20x9x9x9 w=20x20x3x3x3 s=2", Op.FORWARD, "with a stride it serves filters of at most two axes"),
        ("x=1x20x9x9 w=3x20x3x3 s=2", Op.FORWARD, "with a stride it serves groups of at least"),
    ],
)
def test_what_it_does_not_serve(line, op, reason):
    assert ALGORITHM.supports(ConvProblem.parse(line), op).startswith(reason)


@pytest.mark.parametrize("op", OPS)
def test_what_auto_takes_it_for(op):
    assert fastconv.explain("x=1x128x64x64 w=128x128x9x9 s=2 p=4", op=op.value).algorithm == "winograd"
    assert fastconv.explain("x=1x64x64x64 w=128x64x1x1 s=2", op=op.value).algorithm == "direct"
