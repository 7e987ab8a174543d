"""The sums that pairs of outputs share: with exact numbers they give what the taps say."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastconv.core.problem import ConvProblem, Op
from fastconv.cpu._axes import Tap
from fastconv.cpu._pairs import paired_axis, sums_of


def value_of(kind, taps):
    """What a kind makes of taps."""
    return taps[kind.first] + (taps[kind.second] if kind.is_sum else 0)


@given(
    filters=st.lists(
        st.sets(st.tuples(st.integers(0, 2), st.integers(0, 8)), min_size=1, max_size=7), min_size=1, max_size=3
    ),
    step=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_outputs_are_what_their_taps_say(filters, step, seed):
    rng = np.random.default_rng(seed)
    phases, count = [], 0
    for places in filters:
        phases.append([(count + n, Tap(*place)) for n, place in enumerate(places)])
        count += len(places)
    taps = [Fraction(int(n), 7) for n in rng.integers(-50, 50, count)]
    planes = [[Fraction(int(n), 3) for n in rng.integers(-50, 50, 40)] for _ in range(3)]
    axis = sums_of(phases, step, is_paired=True)

    def total(terms):
        result = Fraction(0)
        for term in terms:
            slot, shift, less = axis.elements[term.element]
            element = planes[slot][shift] - (planes[slot][shift + less] if less else 0)
            result += element * value_of(axis.kinds[term.kind], taps)
        return result

    sums = [total(terms) for terms in axis.sums]
    for phase, outputs in zip(phases, axis.outputs, strict=True):
        assert len(outputs) == axis.together
        for turn, output in enumerate(outputs):
            expected = sum(taps[number] * planes[place.slot][place.shift + turn * step] for number, place in phase)
            assert sums[output.own] + (sums[output.shared] if output.shared >= 0 else 0) == expected


@pytest.mark.parametrize(
    ("line", "op", "products", "direct"),
    [
        ("x=1x1x8 w=1x1x3 s=2", Op.FORWARD, 5, 6),
        ("x=1x1x8 w=1x1x4 s=2", Op.FORWARD, 6, 8),
        ("x=1x1x20 w=1x1x7 s=2", Op.FORWARD, 11, 14),
        ("x=1x1x20 w=1x1x3 s=2", Op.GRAD_INPUT, 5, 6),
        ("x=1x1x20 w=1x1x4 s=2", Op.GRAD_INPUT, 6, 8),
        ("x=1x1x20 w=1x1x7 s=3", Op.FORWARD, 11, 14),
    ],
)
def test_products_of_a_pair_of_outputs(line, op, products, direct):
    problem = ConvProblem.parse(line)
    axis = paired_axis(problem, op, 2, problem.stride[2] - 1 if op is Op.FORWARD else 0)
    assert (axis.products, 2 * problem.filter[2]) == (products, direct)


# A filter of one element, one with a tap for each phase, and one output.
@pytest.mark.parametrize("line", ["x=1x1x9 w=1x1x1 s=2", "x=1x1x9 w=1x1x2 s=2", "x=1x1x3 w=1x1x3 s=2"])
def test_nothing_is_shared_where_no_taps_meet_neighbours(line):
    problem = ConvProblem.parse(line)
    axis = paired_axis(problem, Op.FORWARD, 2, 1)
    assert axis.together == 1
    assert axis.products == problem.filter[2]
    assert not any(kind.is_sum for kind in axis.kinds)
    assert not any(element.less for element in axis.elements)
