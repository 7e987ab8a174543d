"""The choice: the cheapest that is accurate enough and fits, said aloud."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given

import fastconv
from fastconv import functional
from fastconv.core import registry, selector
from fastconv.core.problem import ConvProblem, Op
from fastconv.core.selector import explain_problem, plan_for

from .problems import FLOATING, INTEGERS, conv_problems


@pytest.mark.parametrize("op", Op)
@given(problem=conv_problems(dtypes=FLOATING + INTEGERS))
def test_auto_takes_the_cheapest_that_is_allowed(op, problem):
    explanation = explain_problem(problem, op)
    allowed = [each for each in explanation.candidates.values() if each.refusal is None]
    assert explanation.algorithm == min(allowed, key=lambda each: each.seconds).name
    assert plan_for(problem, op).algorithm == explanation.algorithm
    for candidate in explanation.candidates.values():
        assert candidate.name in str(explanation)
        assert candidate.refusal is None or candidate.refusal in str(explanation)


def test_the_table_names_the_choice_and_the_reasons():
    text = str(fastconv.explain("x=1x1x512x512 w=1x1x31x31 i32"))
    assert "auto takes: direct" in text
    assert "not taken: it computes in floating point, and integers must be exact" in text
    assert "times the price" in text


@pytest.mark.parametrize(
    ("line", "algorithm"),
    [
        ("x=1x1x1024x1024 w=1x1x127x127 p=63", "fft"),
        ("x=1x64x56x56 w=64x64x1x1", "direct im2col"),
        ("x=1x32x112x112 w=32x1x3x3 p=1 g=32", "direct"),
    ],
)
def test_what_is_taken_for_the_families(line, algorithm):
    assert fastconv.explain(line).algorithm in algorithm.split()


def test_arguments_and_lines_explain_the_same():
    x, weight = np.ones((2, 3, 9, 9), np.float32), np.ones((4, 3, 3, 3), np.float32)
    first = fastconv.explain(x, weight, 2, padding=1, op="grad_weight")
    assert str(first) == str(fastconv.explain("x=2x3x9x9 w=4x3x3x3 s=2 p=1", op="grad_weight"))
    assert str(first) == str(fastconv.explain(first.problem, op="grad_weight"))


def test_the_error_budget_and_the_memory_limit_exclude(monkeypatch):
    problem = ConvProblem.parse("x=1x1x1024x1024 w=1x1x127x127 p=63")
    monkeypatch.setattr(selector, "ERROR_BUDGET", {4: 5e-6, 8: 1e-12})
    assert "exceeds" in explain_problem(problem, Op.FORWARD).candidates["direct"].refusal
    monkeypatch.setattr(selector, "ERROR_BUDGET", {4: 1, 8: 1})
    monkeypatch.setitem(selector.WORKSPACE_LIMIT, "cpu", 1)
    with pytest.raises(fastconv.UnsupportedError, match=r"no algorithm serves forward.*workspace"):
        explain_problem(problem, Op.FORWARD)


def forget_calls():
    """What was worked out with other algorithms."""
    selector.plan_for.cache_clear()
    functional.conv_call.forget()


def test_only_auto_falls_back(monkeypatch):
    """An algorithm asked for by name is taken although it is dearer, or refuses."""
    refusing = [
        dataclasses.replace(each, supports=lambda problem, op: "not today") if each.name == "direct" else each
        for each in registry.algorithms()
    ]
    monkeypatch.setattr(selector, "algorithms", lambda device="cpu": tuple(refusing))
    forget_calls()
    x, weight = np.ones((1, 1, 9)), np.ones((1, 1, 3))
    with pytest.raises(fastconv.UnsupportedError, match="algorithm='direct': not today"):
        fastconv.conv1d(x, weight, algorithm="direct")
    assert fastconv.explain(x, weight).algorithm != "direct"
    np.testing.assert_allclose(fastconv.conv1d(x, weight), np.full((1, 1, 7), 3.0))
    forget_calls()


def test_plans_are_kept():
    problem = ConvProblem.parse("x=1x3x20x20 w=4x3x3x3")
    assert plan_for(problem, Op.FORWARD) is plan_for(ConvProblem.parse(str(problem)), Op.FORWARD)


@pytest.mark.parametrize("line", ["x=1x0x8x8 w=4x0x3x3", "x=0x3x8x8 w=4x3x3x3"])
@pytest.mark.parametrize("op", ["forward", "grad_input", "grad_weight"])
def test_empty_problems_need_no_algorithm(line, op):
    with pytest.raises(fastconv.UnsupportedError, match="nothing to multiply"):
        fastconv.explain(line, op=op)


@pytest.mark.parametrize("op", Op)
def test_many_terms_stay_within_the_budget(op):
    """A batch of large images is no reason to leave the direct method, which adds up tile by tile."""
    problem = ConvProblem.parse("x=64x64x56x56 w=64x64x3x3 p=1")
    assert explain_problem(problem, op).candidates["direct"].refusal is None
    beyond = ConvProblem.parse("x=8x1x256x256 w=1x1x3x3 p=1").replace(N=10**6)
    assert selector.contained_plan_for(beyond, op).limit is None


def test_rtol_excludes_what_errs_by_more():
    line = "x=1x64x56x56 w=64x64x3x3 p=1"
    assert fastconv.explain(line).algorithm == "winograd"
    assert fastconv.explain(line, rtol=7e-6).algorithm == "fft"
    assert fastconv.explain(line, rtol=7e-6).candidates["winograd"].refusal.endswith("exceeds 7e-06")
    with pytest.raises(fastconv.UnsupportedError, match=r"no algorithm serves.*exceeds 1e-09"):
        fastconv.explain(line, rtol=1e-9)


def test_functions_take_rtol():
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((1, 64, 56, 56), np.float32), rng.standard_normal((64, 64, 3, 3), np.float32)
    closer = fastconv.conv2d(x, weight, padding=1, algorithm="fft")
    np.testing.assert_array_equal(fastconv.conv2d(x, weight, padding=1, rtol=7e-6), closer)
    np.testing.assert_array_equal(fastconv.prepare(weight, padding=1, rtol=7e-6)(x), closer)
    assert (fastconv.conv2d(x, weight, padding=1) != closer).any()
    with pytest.raises(fastconv.UnsupportedError, match="exceeds"):
        fastconv.grad.conv2d_backward(closer, x, weight, padding=1, rtol=1e-9)


@pytest.mark.parametrize("rtol", [0, -1e-3, float("nan"), float("inf"), "1e-4", True])
def test_rtol_is_a_positive_number(rtol):
    for function in (fastconv.explain, fastconv.conv1d):
        with pytest.raises(ValueError, match=r"rtol=.*must be None or a finite number above 0"):
            function(np.ones((1, 9)), np.ones((1, 1, 3)), rtol=rtol)


def test_without_rtol_very_long_sums_go_the_most_accurate_way(monkeypatch):
    monkeypatch.setattr(selector, "ERROR_BUDGET", {4: 1e-12, 8: 1e-30})
    explanation = explain_problem(ConvProblem.parse("x=1x64x56x56 w=64x64x3x3 p=1"), Op.FORWARD)
    bounds = {name: each.error_bound for name, each in explanation.candidates.items()}
    assert bounds[explanation.algorithm] == min(bounds.values())
