"""Filters of rank 1: found within the precision of their type, taken apart where that is cheaper, and said so."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage as scipy_ndimage
from scipy import signal as scipy_signal

import fastconv
from fastconv._separable import rank_one, separation
from fastconv.core.problem import ConvProblem

PROBLEM = ConvProblem.parse("x=1x1x900x800 w=1x1x25x25 p=12")


def outer(*extents, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    vectors = [rng.standard_normal(n) for n in extents]
    return np.einsum({2: "r,s->rs", 3: "t,r,s->trs"}[len(extents)], *vectors).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("extents", [(5, 7), (1, 4), (25, 25), (3, 4, 5)])
def test_the_factors_multiply_to_the_filter(extents, dtype):
    weight = outer(*extents, dtype=dtype)
    factors = rank_one(weight)
    product = np.ones(1, dtype)
    for factor in factors:
        product = product * factor
    assert [factor.size for factor in factors] == list(extents)
    np.testing.assert_allclose(product, weight, atol=4 * np.finfo(dtype).eps * np.abs(weight).max())


def test_a_filter_of_another_rank_has_none():
    weight = outer(9, 9) + 1e-9 * outer(9, 9, seed=1)
    assert rank_one(weight) is None
    assert rank_one(weight.astype(np.float32)) is not None  # which that precision cannot tell
    assert rank_one(np.full((3, 3), np.nan)) is None
    assert rank_one(np.eye(3)) is None
    assert rank_one(outer(3, 4, 5) + np.ones((3, 4, 5))) is None


def test_passes_are_taken_where_they_are_cheaper():
    assert (
        separation(PROBLEM, outer(25, 25, dtype="float32")).prices.passes
        < separation(PROBLEM, outer(25, 25, dtype="float32")).prices.whole
    )
    assert separation(PROBLEM, np.random.default_rng(0).random((25, 25), np.float32)) is None
    assert separation(ConvProblem.parse("x=1x1x30x30 w=1x1x3x3 p=1"), outer(3, 3, dtype="float32")) is None


def test_explain_says_so():
    x = np.zeros((1, 1, 900, 800), np.float32)
    remark = fastconv.explain(x, outer(25, 25, dtype="float32")[None, None], 1, 12).remark
    assert remark.startswith("separable: 25x1 and 1x25 in one launch")
    assert remark in str(fastconv.explain(x, outer(25, 25, dtype="float32")[None, None], 1, 12))
    assert fastconv.explain(x, np.random.default_rng(0).random((1, 1, 25, 25), np.float32), 1, 12).remark == ""


@pytest.mark.parametrize("mode", ["reflect", "mirror", "nearest", "wrap", "constant"])
def test_the_result_is_that_of_the_whole_filter(mode):
    array, weights = np.random.default_rng(0).random((900, 800)), outer(21, 25)
    assert separation(PROBLEM.replace(filter=(1, 21, 25), dtype="float64"), weights) is not None
    expected = scipy_ndimage.correlate(array, weights, mode=mode, cval=3.0)
    ours = fastconv.ndimage.correlate(array, weights, mode=mode, cval=3.0)
    np.testing.assert_allclose(ours, expected, atol=1e-13 * np.abs(expected).max())


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
def test_in_every_mode_of_signal(mode):
    array, weights = np.random.default_rng(0).random((900, 800)), outer(21, 25)
    ours = fastconv.signal.convolve2d(array, weights, mode)
    np.testing.assert_allclose(ours, scipy_signal.fftconvolve(array, weights, mode), atol=1e-11)


@pytest.mark.parametrize(("array", "weights"), [("int16", "float32"), ("float32", "float64"), ("float64", "float32")])
def test_of_two_types(array, weights):
    x, w = (100 * np.random.default_rng(0).random((900, 800))).astype(array), outer(21, 25, dtype=weights)
    ours, theirs = fastconv.signal.convolve2d(x, w), scipy_signal.fftconvolve(x.astype(float), w.astype(float))
    assert ours.dtype == np.result_type(x, w)
    np.testing.assert_allclose(ours, theirs, atol=np.abs(theirs).max() * (1e-5 if ours.dtype == np.float32 else 1e-6))
