"""Boundary modes: the index map of every mode pads as numpy.pad does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastconv.core.boundary import OUTSIDE, PADDING_MODES, folds, linear_mode, source_index

from .reference import pad


@given(extent=st.integers(1, 7), low=st.integers(0, 25), high=st.integers(0, 25), mode=st.sampled_from(PADDING_MODES))
def test_gathering_through_the_index_pads(extent, low, high, mode):
    values = np.arange(10.0, 10.0 + extent)
    index = source_index(extent, low, high, mode)
    value = 7.0 if mode == "constant" else 0.0
    gathered = np.where(index == OUTSIDE, value, values[index])
    np.testing.assert_array_equal(gathered, pad(values[None, None], [(low, high)], mode, value)[0, 0])


@pytest.mark.parametrize(
    ("mode", "padded"),
    [
        ("zeros", "---abcd---"),
        ("constant", "---abcd---"),
        ("replicate", "aaaabcdddd"),
        ("reflect", "dcbabcdcba"),
        ("symmetric", "cbaabcddcb"),
        ("circular", "bcdabcdabc"),
    ],
)
def test_the_table_of_the_documentation(mode, padded):
    assert "".join("abcd-"[place] for place in source_index(4, 3, 3, mode)) == padded
    assert folds(mode) == ("-" not in padded)


@pytest.mark.parametrize("mode", PADDING_MODES)
def test_the_linear_mode_pads_the_same_but_for_the_value(mode):
    assert linear_mode(mode) == ("zeros" if mode == "constant" else mode)
    np.testing.assert_array_equal(source_index(4, 5, 6, linear_mode(mode)), source_index(4, 5, 6, mode))
