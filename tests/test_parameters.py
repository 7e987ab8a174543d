"""Parameters: the forms in which each may be written, what is refused, and how a line of text holds them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fastconv.core.errors import RejectedError
from fastconv.core.parameters import (
    as_integer,
    as_pad_value,
    as_pads,
    as_shape,
    as_size,
    elements_of,
    integers_of,
    is_positive,
    joined,
    joined_shape,
    lifted,
    merged,
    number_of,
    one_of,
    padding_of,
    per_axis,
    rank_of_weight,
    split_shape,
)


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3), np.array(3)])
def test_an_integer_may_be_of_any_integer_type(value):
    assert as_integer("groups", value, 1) == 3
    assert type(as_integer("groups", value, 1)) is int


@pytest.mark.parametrize(
    ("value", "kind"), [(0, ValueError), (2.0, TypeError), (True, TypeError), (np.True_, TypeError), ("2", TypeError)]
)
def test_what_is_no_integer_of_at_least_one(value, kind):
    with pytest.raises(RejectedError) as caught:
        as_integer("groups", value, 1)
    assert (caught.value.argument, caught.value.value, caught.value.kind) == ("groups", value, kind)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, True), (1e-3, True), (np.float32(2), True)]
    + [(value, False) for value in (0, -1, math.inf, math.nan, True, "1", 1j, None)],
)
def test_what_is_positive(value, expected):
    assert is_positive(value) is expected


def test_one_of_several_words():
    assert one_of("layout", "b", ("a", "b")) == "b"
    for value in ("c", None, 1):
        with pytest.raises(RejectedError, match="must be one of a, b"):
            one_of("layout", value, ("a", "b"))


@pytest.mark.parametrize(
    ("value", "dtype", "held"),
    [
        (1, "int8", 1),
        (np.float32(0.5), "float64", 0.5),
        (0.1, "float32", float(np.float32(0.1))),
        (1j, "complex64", 1j),
    ],
)
def test_a_pad_value_is_what_the_type_holds(value, dtype, held):
    assert as_pad_value(value, "constant", dtype) == held


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(128, "int8"), (0.5, "int32"), (1e39, "float32"), (1j, "float32"), ("1", "int8"), (True, "int8")],
)
def test_a_pad_value_that_the_type_cannot_hold(value, dtype):
    with pytest.raises(RejectedError, match=f"must be a number that {dtype} can hold"):
        as_pad_value(value, "constant", dtype)


def test_a_pad_value_stands_in_constant_padding_only():
    assert as_pad_value(0.0, "reflect", "float32") == 0
    with pytest.raises(RejectedError, match='needs padding_mode="constant"'):
        as_pad_value(1, "reflect", "float32")


def test_nan_as_a_pad_value_is_equal_to_itself_in_a_key():
    values = [as_pad_value(np.float32("nan"), "constant", "float32") for _ in range(2)]
    assert (values[0],) == (values[1],)


def test_a_shape_is_integers_of_at_least_zero():
    assert as_shape("x", [np.int64(2), 0]) == (2, 0)
    with pytest.raises(RejectedError, match=r"x\.shape"):
        as_shape("x", (2, -1))
    with pytest.raises(RejectedError, match="must be integers"):
        as_shape("x", (2, 1.5))


def test_a_size_has_one_of_the_lengths():
    assert as_size("input_size", [1, 2, 3], (2, 3)) == (1, 2, 3)
    for size in [(1,), (1, -2), (1, 2.5), 3]:
        with pytest.raises(RejectedError, match="must be a shape of 2 or 3 integers"):
            as_size("input_size", size, (2, 3))


def test_the_rank_is_that_of_the_weight():
    assert [rank_of_weight((1,) * axes) for axes in (3, 4, 5)] == [1, 2, 3]
    for axes in (2, 6):
        with pytest.raises(RejectedError, match="must have 3, 4 or 5 axes"):
            rank_of_weight((1,) * axes)


@pytest.mark.parametrize(
    ("shape", "layout"),
    [((2, 3, 8, 9), "channels_first"), ((2, 8, 9, 3), "channels_last")],
    ids=lambda value: str(value),
)
def test_a_shape_is_split_and_joined(shape, layout):
    assert split_shape("x", shape, 2, layout) == (2, 3, (8, 9))
    assert split_shape("x", shape[1:], 2, layout) == (1, 3, (8, 9))
    assert joined_shape((2,), 3, (8, 9), layout) == shape
    assert joined_shape((), 3, (8, 9), layout) == shape[1:]


def test_a_shape_that_cannot_be_split():
    with pytest.raises(RejectedError, match="must have 4 axes, or 3 without the batch"):
        split_shape("x", (8, 9), 2, "channels_first")
    with pytest.raises(RejectedError, match="must be one of channels_first, channels_last"):
        split_shape("x", (1, 1, 8, 9), 2, "NCHW")


@pytest.mark.parametrize("value", [2, [2], (2, 2), np.array([2, 2])])
def test_one_integer_stands_for_all_axes(value):
    assert per_axis("stride", value, 2, 1) == (2, 2)


@pytest.mark.parametrize("value", [0, (1, 0), (1, 2, 3), (), "22", (1, 2.0)])
def test_what_is_not_one_integer_for_each_axis(value):
    with pytest.raises(RejectedError, match=r"must be (one|an) integer"):
        per_axis("stride", value, 2, 1)


def test_missing_leading_axes_are_filled_in():
    assert lifted((5,), 1) == (1, 1, 5)
    assert lifted((5, 6, 7), 1) == (5, 6, 7)


@pytest.mark.parametrize("value", [(1, 2), [1, 2], np.array([1, 2]), range(1, 3)])
def test_elements_of_a_sequence_of_any_kind(value):
    assert elements_of(value) == (1, 2)


@pytest.mark.parametrize("value", [3, np.array(3), np.int8(3), None, "12", b"12", {1, 2}, {0: 1, 1: 2}, iter((1, 2))])
def test_what_has_no_elements_in_an_order(value):
    assert elements_of(value) is None


def test_an_array_without_axes_is_an_integer_for_all_of_them():
    assert per_axis("stride", np.array(2), 3, 1) == (2, 2, 2)
    assert as_pads(np.array(2), (9, 9), (3, 3), (1, 1), (1, 1)) == ((2, 2), (2, 2))
    assert as_pads((np.array(2), (0, 1)), (9, 9), (3, 3), (1, 1), (1, 1)) == ((2, 2), (0, 1))


@pytest.mark.parametrize(
    ("padding", "pads"),
    [
        (2, [(2, 2), (2, 2)]),
        ((1, 2), [(1, 1), (2, 2)]),
        (((1, 2), (0, 3)), [(1, 2), (0, 3)]),
        ((1, (0, 3)), [(1, 1), (0, 3)]),
        ([(1, 2)], [(1, 2), (1, 2)]),
        ("valid", [(0, 0), (0, 0)]),
        ("full", [(4, 4), (3, 3)]),
        ("same", [(2, 2), (1, 2)]),
        ("same_lower", [(2, 2), (2, 1)]),
    ],
)
def test_the_forms_of_padding(padding, pads):
    assert list(as_pads(padding, (9, 9), (3, 4), (1, 1), (2, 1))) == pads


@pytest.mark.parametrize(
    "padding", [-1, (1, 2, 3), ((1, 2, 3), 0), ("1", 2), "causal", "SAME", (1, (0, -1)), 1.5, {1, 2}, {}]
)
def test_what_is_no_padding(padding):
    with pytest.raises(RejectedError) as caught:
        as_pads(padding, (9, 9), (3, 4), (1, 1), (2, 1))
    assert caught.value.argument == "padding"


def test_causal_padding_is_for_one_axis():
    assert as_pads("causal", (9,), (3,), (1,), (2,)) == ((4, 0),)


def test_integers_in_a_line_of_text():
    assert joined((1, 64, 56)) == "1x64x56"
    assert integers_of("1x64x56") == (1, 64, 56)
    assert (merged((2, 2)), merged((2, 3))) == ("2", "2x3")


@pytest.mark.parametrize(
    ("text", "padding"), [("1", 1), ("same", "same"), ("0:1", [(0, 1)]), ("0:1x2", [(0, 1), (2, 2)])]
)
def test_padding_in_a_line_of_text(text, padding):
    assert padding_of(text) == padding


@pytest.mark.parametrize(("text", "number"), [("2", 2), ("2.5", 2.5), ("1j", 1j)])
def test_a_number_in_a_line_of_text(text, number):
    assert (number_of(text), type(number_of(text))) == (number, type(number))
    with pytest.raises(ValueError, match="is not a number"):
        number_of("two")
