"""Winograd's matrices: what they compute is the correlation, as an identity of the matrices themselves."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fastconv.core.winograd_matrices import filtering
from fastconv.cpu._winograd_transforms import SQUARES

USED = sorted({(each.outputs, each.taps) for square in (*SQUARES, *(s.exchanged for s in SQUARES)) for each in square})


@pytest.mark.parametrize(("m", "r"), USED)
def test_they_are_the_correlation(m, r):
    """Output i takes the product of tap k and element j once where j = i + k, and never else."""
    back, filters, data = filtering(m, r)
    products = np.einsum("ie,ek,ej->ikj", back, filters, data)
    correlation = np.zeros((m, r, m + r - 1))
    for i, k in itertools.product(range(m), range(r)):
        correlation[i, k, i + k] = 1
    np.testing.assert_allclose(products, correlation, rtol=0, atol=1e-14)


def test_which_are_used():
    assert USED == [
        (1, 1), (2, 3), (3, 2), (3, 4), (3, 6), (3, 7), (4, 3), (4, 5), (4, 7), (5, 4), (6, 3), (7, 3), (7, 4),
    ]  # fmt: skip


@pytest.mark.parametrize(("m", "r"), USED)
def test_their_extents(m, r):
    each = filtering(m, r)
    assert (each.outputs, each.taps, each.products) == (m, r, m + r - 1)
    assert (each.back.shape, each.filter.shape) == ((m, m + r - 1), (m + r - 1, r))


@pytest.mark.parametrize(("m", "r"), [(2, 3), (4, 3), (6, 3), (7, 3), (4, 5), (4, 7)])
def test_exchanging_outputs_and_taps_leaves_the_data_matrix(m, r):
    """So one transform of the data serves the convolution and the gradient of its weight."""
    np.testing.assert_array_equal(filtering(m, r).data, filtering(r, m).data)


def test_two_outputs_need_no_products_in_the_data():
    """F(2, 3) of Lavin and Gray, section 4.1, up to signs."""
    np.testing.assert_array_equal(
        np.abs(filtering(2, 3).data), [[1, 0, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 0, 1]]
    )
    np.testing.assert_array_equal(
        np.abs(filtering(2, 3).filter), [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [0, 0, 1]]
    )
