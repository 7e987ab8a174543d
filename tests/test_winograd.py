"""Winograd's method on the problems that it serves; what it has in common with all others is in test_algorithms."""

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
from fastconv.cpu import _winograd_sizes, _winograd_weights, winograd
from fastconv.cpu._launch import scratch

from .problems import expected, inputs_of, random_tensors
from .test_algorithms import agrees_within_rounding, receives_the_result

ALGORITHM = find("winograd")
SEEDS = st.integers(0, 2**32 - 1)
FILTERS = {
    1: [(3,), (5,), (7,)],
    2: [(3, 3), (5, 5), (1, 3), (1, 5), (1, 7), (3, 1), (5, 1), (7, 1)],
    3: [(1, 3, 3), (2, 3, 3), (3, 3, 3), (2, 1, 3), (2, 5, 1), (2, 5, 5)],
}
# Along W past a register of 16 tiles of 4 outputs.
EXTENTS = {1: st.integers(1, 150), 2: st.integers(1, 30), 3: st.integers(1, 9)}


@st.composite
def problems(draw, dtypes=("float32", "float64")):
    """Any small problem that is served."""
    rank = draw(st.sampled_from((1, 2, 3)))
    filters = draw(st.sampled_from(FILTERS[rank]))
    extents = [draw(EXTENTS[rank]) for _ in range(rank)]
    padding = [draw(st.tuples(st.integers(0, 4), st.integers(0, 4))) for _ in range(rank)]
    dilation = [draw(st.integers(1, 3)) for _ in range(rank)]
    for n, r, d, (low, high) in zip(extents, filters, dilation, padding, strict=True):
        assume(n + low + high > d * (r - 1))
    groups = draw(st.sampled_from((1, 1, 2, 3)))
    channels, outputs = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    mode = draw(st.sampled_from(PADDING_MODES))
    N, layout = draw(st.integers(1, 2)), draw(st.sampled_from(LAYOUTS))
    return ConvProblem.from_shapes(
        (N, groups * channels, *extents) if layout == "channels_first" else (N, *extents, groups * channels),
        (groups * outputs, channels, *filters),
        1,
        padding,
        dilation,
        groups,
        padding_mode=mode,
        pad_value=draw(st.integers(-3, 3)) if mode == "constant" else 0,
        layout=layout,
        dtype=draw(st.sampled_from(dtypes)),
    )


@pytest.mark.parametrize("op", Op)
@given(problem=problems(), seed=SEEDS)
def test_random_data_agrees_within_rounding(op, problem, seed):
    agrees_within_rounding(ALGORITHM, op, problem, seed)


@pytest.mark.parametrize("op", Op)
@given(problem=problems(), seed=SEEDS)
def test_out_receives_the_result_and_inputs_stay(op, problem, seed):
    receives_the_result(ALGORITHM, op, problem, seed)


# Largest error over the root mean square of a result in float32: a quarter above the 6.4e-5 that were measured at most.
TOLERANCE = 8e-5


def relative_error(problem, op, result, tensors):
    exact = expected(problem, op, tensors)
    return np.abs(result - exact).max() / max(np.sqrt(np.mean(exact**2)), 1e-30)


# Every extent around whole tiles of 2 and 4, alone and in blocks.
@pytest.mark.parametrize("extent", [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 129])
@pytest.mark.parametrize("op", Op)
def test_extents_around_the_edges_of_tiles(op, extent):
    for line in (
        f"x=1x5x{extent}x7 w=6x5x3x3 p=1", f"x=1x5x6x{extent} w=6x5x3x3 p=1", f"x=2x3x{extent} w=4x3x3 p=1",
        f"x=2x3x{extent} w=4x3x5 p=2", f"x=2x3x{extent} w=4x3x7 p=3", f"x=2x3x{extent}x6 w=4x3x7x1 p=3x0",
        f"x=1x5x{extent}x7 w=6x5x5x5 p=2",
    ):  # fmt: skip
        problem = ConvProblem.parse(line)
        tensors = random_tensors(problem, extent)
        result = evaluate(op, problem, algorithm="winograd", **inputs_of(op, tensors))
        assert relative_error(problem, op, result, tensors) < TOLERANCE


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("line", ["x=1x3x6x21 w=16x3x3x3 p=1", "x=2x6x21 w=6x3x3 p=1 g=2", "x=1x3x9x9 w=14x3x5x5 p=2"])
@pytest.mark.parametrize("op", [Op.FORWARD, Op.GRAD_INPUT])
def test_sums_tell_of_every_element_that_spreads(op, line, bad):
    """Of one element anywhere, and not of what an earlier call left in the workspace."""
    problem = ConvProblem.parse(line)
    tensors = random_tensors(problem, 0)
    result = np.empty(problem.result_shape(op), problem.dtype)
    tensors["y" if op is Op.FORWARD else "x"] = result
    constants = np.zeros({Op.FORWARD: problem.K, Op.GRAD_INPUT: problem.C}[op] + 1, problem.dtype)
    plan = winograd.plan(problem, op, PLAIN)

    def are_bad(tensors):
        return plan.run(tensors["x"], tensors["w"], tensors["y"], result, constants, 2)

    assert plan.notices
    for name in ("x", "w") if op is Op.FORWARD else ("y", "w"):
        for place in range(tensors[name].size):
            held = tensors[name].copy()
            held.flat[place] = bad
            assert are_bad(tensors | {name: held})
    scratch(1 << 20, problem.dtype, "workspace").fill(bad)
    assert not are_bad(tensors)


# Filters that one kind of tiles serves, whatever the extents.
@pytest.mark.parametrize(
    "line",
    [
        "x={}x20x{}x21 w=18x20x1x3",
        "x={}x20x4x{}x9 w=10x10x2x5x1 g=2",
        "x={}x64x{} w=33x64x5",
        "x={}x9x{}x21 w=10x9x5x5",
    ],
)
@pytest.mark.parametrize("op", [Op.FORWARD, Op.GRAD_INPUT])
def test_transformed_filters_serve_other_extents(op, line):
    weight = random_tensors(ConvProblem.parse(line.format(8, 40)), 0)["w"]
    kept = {}
    for N, extent in ((8, 40), (3, 128), (12, 22)):
        problem = ConvProblem.parse(line.format(N, extent))
        tensors = random_tensors(problem, extent) | {"w": weight}
        keeping = winograd.plan(problem, op, PLAIN).kept_weight
        if keeping.key not in kept:
            kept[keeping.key] = keeping.transform(weight, 2)
        result = np.full(problem.result_shape(op), np.nan, problem.dtype)
        constants = np.zeros({Op.FORWARD: problem.K, Op.GRAD_INPUT: problem.C}[op] + 1, problem.dtype)
        x, y = (tensors["x"], result) if op is Op.FORWARD else (result, tensors["y"])
        keeping.run(x, kept[keeping.key], y, result, constants, 2)
        assert relative_error(problem, op, result, tensors) < TOLERANCE
    assert len(kept) == 1


# As many phases as outputs, more of them, fewer, and phases of unequal extents; with borders that repeat elements.
@pytest.mark.parametrize("dilation", [2, 3, 4, 7, 11])
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
@pytest.mark.parametrize("op", Op)
def test_dilated_filters_meet_one_phase_of_the_data(op, mode, dilation):
    for line in (f"x=1x3x26x30 w=4x3x3x3 p=4 d={dilation}", f"x=1x3x5x5x30 w=4x3x2x1x3 p=1x0x2 d=2x1x{dilation}"):
        problem = ConvProblem.parse(line).replace(padding_mode=mode)
        tensors = random_tensors(problem, dilation)
        result = evaluate(op, problem, algorithm="winograd", **inputs_of(op, tensors))
        assert relative_error(problem, op, result, tensors) < TOLERANCE


def sizes_of_all_kinds(problem, op):
    """All sizes that may be chosen for a weight."""
    for kind in _winograd_sizes.kinds(problem):
        if op is Op.GRAD_WEIGHT:
            yield from _winograd_weights.candidates(problem, kind)
        else:
            yield from (each for each in _winograd_sizes.candidates(problem, op, kind) if not each.prepared)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "line",
    [
        "x=2x20x21x38 w=18x20x3x3 p=1",
        "x=1x40x4x9x10 w=33x40x2x3x3",
        "x=1x33x300 w=9x33x3",
        "x=1x20x21x19 w=18x20x3x3 p=2 d=2x3",
        "x=2x20x40x9 w=9x20x7x1",
    ],
)
@pytest.mark.parametrize("op", Op)
def test_every_choice_of_sizes_gives_the_result(op, line, dtype, monkeypatch):
    problem = ConvProblem.parse(line).replace(dtype=dtype)
    tensors = random_tensors(problem, 0)
    answer = expected(problem, op, tensors)
    inputs = inputs_of(op, tensors)
    for sizes in list(sizes_of_all_kinds(problem, op))[::7]:
        monkeypatch.setattr(winograd, "_sizes", lambda problem, op, sizes=sizes: sizes)
        result = np.full(problem.result_shape(op), np.nan, dtype)
        constants = np.zeros({Op.FORWARD: problem.K, Op.GRAD_INPUT: problem.C, Op.GRAD_WEIGHT: 0}[op] + 1, dtype)
        arguments = {name: inputs.get(name, result) for name in "xwy"}
        winograd.plan(problem, op, PLAIN).run(*arguments.values(), result, constants, 2)
        error = np.abs(result - answer).max() / np.sqrt(np.mean(answer**2))
        assert error < 1.5 * winograd.error_bound(problem, op), sizes


@pytest.mark.parametrize("activation", [None, "relu", "gelu"])
@given(problem=problems(dtypes=("float32",)), has_add=st.booleans(), seed=SEEDS)
def test_bias_add_and_activation_as_it_stores(activation, problem, has_add, seed):
    tensors = random_tensors(problem, seed)
    rng = np.random.default_rng(seed)
    bias = rng.standard_normal(problem.K).astype("float32")
    add = rng.standard_normal(problem.y_shape).astype("float32") if has_add else None
    conv = getattr(fastconv, f"conv{problem.rank}d")
    lead = 3 - problem.rank
    window = (bias, 1, problem.padding[lead:], problem.dilation[lead:], problem.groups)
    options = {
        "padding_mode": problem.padding_mode,
        "layout": problem.layout,
        "pad_value": problem.pad_value,
        "activation": activation,
        "add": add,
    }
    results = [conv(tensors["x"], tensors["w"], *window, **options, algorithm=each) for each in ("winograd", "direct")]
    np.testing.assert_allclose(*results, rtol=0, atol=2e-5 * (1 + np.abs(results[1]).max()))


@pytest.mark.parametrize(
    ("line", "op", "reason"),
    [
        ("x=1x2x8x8 w=2x2x3x3 i32", Op.FORWARD, "it computes in floating point"),
        ("x=1x2x8x8 w=2x2x3x3 c64", Op.FORWARD, "it serves real numbers only"),
        ("x=1x2x8x8 w=2x2x5x3", Op.FORWARD, "it serves filters of 3x3 and 5x5, and of 3, 5 or 7 taps"),
    ],
)
def test_what_it_does_not_serve(line, op, reason):
    assert ALGORITHM.supports(ConvProblem.parse(line), op).startswith(reason)


@pytest.mark.parametrize("op", Op)
def test_what_auto_takes_it_for(op):
    assert fastconv.explain("x=1x64x56x56 w=64x64x3x3 p=1", op=op.value).algorithm == "winograd"
    assert fastconv.explain("x=1x64x56x56 w=64x64x3x3 p=2 d=2", op=op.value).algorithm == "winograd"
    assert fastconv.explain("x=1x64x56x56 w=64x64x1x1", op=op.value).algorithm != "winograd"
