"""ConvProblem: the shape formulas, what parameters mean, and the text form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastconv import conv_output_shape, conv_transpose_output_shape, parameter_count
from fastconv.core.problem import ConvProblem, Op

from .problems import conv_problems


def windows_that_fit(extent, filter_extent, stride, low, high, dilation):
    """Output extent, counted: places of the window in the padded axis."""
    return sum(
        1
        for start in range(0, extent + low + high, stride)
        if start + dilation * (filter_extent - 1) < extent + low + high
    )


@given(
    extent=st.integers(1, 30),
    filter_extent=st.integers(1, 6),
    stride=st.integers(1, 5),
    low=st.integers(0, 6),
    high=st.integers(0, 6),
    dilation=st.integers(1, 4),
)
def test_output_extent_counts_the_windows(extent, filter_extent, stride, low, high, dilation):
    counted = windows_that_fit(extent, filter_extent, stride, low, high, dilation)
    arguments = (1, 1, extent), (1, 1, filter_extent), stride, [(low, high)], dilation
    if counted:
        assert conv_output_shape(*arguments) == (1, 1, counted)
    else:
        with pytest.raises(ValueError, match="must not exceed the padded input"):
            conv_output_shape(*arguments)


@given(problem=conv_problems())
def test_the_transposed_shape_inverts_the_shape(problem):
    """Some output_padding brings every input extent back."""
    lead = 3 - problem.rank
    extra = [
        (padded - reach) % stride
        for padded, reach, stride in zip(problem.padded, problem.reach, problem.stride, strict=True)
    ]
    shape = conv_transpose_output_shape(
        problem.y_shape,
        problem.w_shape,
        problem.stride[lead:],
        problem.padding[lead:],
        extra[lead:],
        problem.groups,
        problem.dilation[lead:],
        layout=problem.layout,
    )
    assert shape == problem.x_shape


@given(problem=conv_problems())
def test_the_problem_line_is_read_back(problem):
    assert ConvProblem.parse(str(problem)) == problem


@given(problem=conv_problems())
def test_problems_are_keys(problem):
    assert {problem: 1}[ConvProblem.parse(str(problem))] == 1


def test_the_problem_line_of_the_documentation():
    line = "x=1x64x56x56 w=64x64x3x3 s=1 p=1 d=1 g=1 f32"
    problem = ConvProblem.parse(line)
    assert str(problem) == line
    assert problem.y_shape == (1, 64, 56, 56)
    assert problem.flops == 2 * 64 * 64 * 9 * 56 * 56


@pytest.mark.parametrize(
    ("line", "rest"),
    [
        ("x=1x4x9x9 w=2x2x3x3 s=2x1 p=0:1x2 g=2 i32", "s=2x1 p=0:1x2 d=1 g=2 i32"),
        ("x=1x4x9 w=2x4x3 p=causal c64", "s=1 p=2:0 d=1 g=1 c64"),
        (
            "x=1x4x9x9 w=2x4x3x3 p=same mode=reflect layout=channels_last",
            "p=1 d=1 g=1 f32 mode=reflect layout=channels_last",
        ),
        ("x=1x4x9x9 w=2x4x3x3 mode=constant value=2.5", "f32 mode=constant value=2.5"),
    ],
)
def test_what_the_problem_line_may_leave_out(line, rest):
    assert str(ConvProblem.parse(line)).endswith(rest)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "x=1x1x3",
        "x=1x1x3 w=1x1x2 q=1",
        "x=1x1xa w=1x1x2",
        "x=1x1x3 w=1x1x2 f33",
        "x=1x1x3 w=1x1x2 s=0",
        "x=1x1x3 w=1x1x4",
        "x=1x3 w=1x1x3",
    ],
)
def test_a_bad_line_says_so(line):
    with pytest.raises(ValueError, match=r"problem( line|:)"):
        ConvProblem.parse(line)


@given(extent=st.integers(1, 40), filter_extent=st.integers(1, 6), stride=st.integers(1, 5), dilation=st.integers(1, 3))
def test_same_padding_divides_by_the_stride(extent, filter_extent, stride, dilation):
    for name in ("same", "same_lower"):
        shape = conv_output_shape((1, 1, extent), (1, 1, filter_extent), stride, name, dilation)
        assert shape[2] == -(-extent // stride)


@given(extent=st.integers(1, 40), filter_extent=st.integers(1, 6), dilation=st.integers(1, 3))
def test_causal_padding_keeps_the_size_and_full_adds_the_reach(extent, filter_extent, dilation):
    reach = dilation * (filter_extent - 1)
    shapes = [
        conv_output_shape((1, 1, extent), (1, 1, filter_extent), 1, name, dilation) for name in ("causal", "full")
    ]
    assert [shape[2] for shape in shapes] == [extent, extent + reach]


def test_shapes_without_the_batch_and_with_channels_last():
    assert conv_output_shape((3, 8, 9), (4, 3, 3, 3)) == (4, 6, 7)
    assert conv_output_shape((8, 9, 3), (4, 3, 3, 3), layout="channels_last") == (6, 7, 4)
    assert conv_transpose_output_shape((3, 8, 9), (3, 4, 3, 3)) == (4, 10, 11)


def test_parameter_count():
    assert parameter_count(3, 64, (7, 7)) == 64 * 3 * 49 + 64
    assert parameter_count(32, 32, (3, 3), groups=32, bias=False) == 288


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, 4, (1,), 2), "groups=2: must divide in_channels=3 and out_channels=4"),
        ((3, 4, (1,), 0), "groups=0: must be an integer of at least 1"),
        ((-3, 4, (1,)), "in_channels=-3: must be an integer of at least 0"),
        (("3", 4, (1,)), "in_channels='3': must be an integer"),
        ((3, 4, 5), "kernel_size=5: must be a shape"),
    ],
)
def test_what_has_no_parameters(arguments, message):
    with pytest.raises((ValueError, TypeError), match=f"^{message}"):
        parameter_count(*arguments)


@given(problem=conv_problems())
def test_multiplications_are_terms_times_results(problem):
    weights = problem.K * problem.C // problem.groups * problem.taps
    assert problem.multiplications == problem.terms(Op.GRAD_WEIGHT) * weights
    assert problem.multiplications == problem.terms(Op.FORWARD) * problem.N * problem.K * problem.pixels
