"""Problems to test with: a Hypothesis strategy, data for a problem, and the reference's answer to it."""

from __future__ import annotations

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from fastconv.core.boundary import PADDING_MODES
from fastconv.core.problem import ConvProblem, Op
from fastconv.core.registry import algorithms
from fastconv.core.selector import find

from . import reference

FLOATING = ("float32", "float64", "complex64", "complex128")
INTEGERS = ("int32", "int64")

# The algorithms that serve any problem of floating-point numbers: they are those that serve an odd one. The others are
# asked for by name in tests of their own.
_ODD = ConvProblem.parse("x=1x2x5x9 w=4x1x2x2 s=2 p=1 d=2 g=2 c64 mode=reflect layout=channels_last")
GENERAL = [each for each in algorithms() if all(each.supports(_ODD, op) is None for op in Op)]
GENERAL_NAMES = ["auto", *(each.name for each in GENERAL)]


def serves(name, problem, op):
    """Whether the algorithm of that name serves an operation of a problem."""
    return find(name).supports(problem.computed, op) is None


# Extents along W reach past the tiles of 512 pixels and past 8 and 16 vector elements.
_EXTENTS = {1: st.one_of(st.integers(1, 40), st.integers(500, 530)), 2: st.integers(1, 24), 3: st.integers(1, 9)}


@st.composite
def conv_problems(draw, dtypes=FLOATING, padding_modes=PADDING_MODES):
    """Any small valid problem."""
    rank = draw(st.sampled_from((1, 2, 3)))

    def per_axis(elements):
        return tuple(draw(elements) for _ in range(rank))

    groups = draw(st.sampled_from((1, 1, 2, 3)))
    # 8: whole register tiles, whose sums may be added up in the result's own memory.
    channels, outputs = (draw(st.one_of(st.integers(1, 5), st.just(8))) for _ in range(2))
    extents = per_axis(_EXTENTS[rank])
    filter_extents = per_axis(st.integers(1, 4 if rank == 3 else 5))
    dilation, stride = per_axis(st.integers(1, 3)), per_axis(st.integers(1, 3))
    padding = per_axis(st.tuples(st.integers(0, 4), st.integers(0, 4)))
    for n, f, d, (low, high) in zip(extents, filter_extents, dilation, padding, strict=True):
        assume(n + low + high > d * (f - 1))
    mode = draw(st.sampled_from(padding_modes))
    layout = draw(st.sampled_from(("channels_first", "channels_last")))
    N = draw(st.integers(1, 3))
    x_shape = (N, groups * channels, *extents)
    return ConvProblem.from_shapes(
        x_shape if layout == "channels_first" else (N, *extents, groups * channels),
        (groups * outputs, channels, *filter_extents),
        stride,
        padding,
        dilation,
        groups,
        padding_mode=mode,
        pad_value=draw(st.integers(-3, 3)) if mode == "constant" else 0,
        layout=layout,
        dtype=draw(st.sampled_from(dtypes)),
    )


def surrounded(array):
    """The same between elements of NaN, or the largest integers: what is read outside of it shows in a result."""
    kind, margin = array.dtype.kind, 64
    outside = np.nan if kind in "fc" else np.iinfo(array.dtype).max
    memory = np.full(array.size + 2 * margin, outside, array.dtype)
    inside = memory[margin : margin + array.size].reshape(array.shape)
    inside[...] = array
    return inside


def random_tensors(problem, seed, small_integers=False):
    """x, w and y of a problem: normal, or integers from -4 to 4; `surrounded`."""
    rng = np.random.default_rng(seed)

    def tensor(shape):
        if small_integers or np.dtype(problem.dtype).kind in "iu":
            return rng.integers(-4, 5, shape).astype(problem.dtype)
        values = rng.standard_normal(shape)
        if np.dtype(problem.dtype).kind == "c":
            values = values + 1j * rng.standard_normal(shape)
        return values.astype(problem.dtype)

    shapes = {"x": problem.x_shape, "w": problem.w_shape, "y": problem.y_shape}
    return {name: surrounded(tensor(shape)) for name, shape in shapes.items()}


def inputs_of(op, tensors):
    """The two tensors from which `op` computes the third."""
    return {name: tensors[name] for name in {Op.FORWARD: "xw", Op.GRAD_INPUT: "wy", Op.GRAD_WEIGHT: "xy"}[op]}


def window_of(problem):
    """stride, pads, dilation and groups, as the reference takes them."""
    lead = 3 - problem.rank
    return problem.stride[lead:], problem.padding[lead:], problem.dilation[lead:], problem.groups


def expected(problem, op, tensors, forward=reference.forward):
    """The reference's result in the problem's layout, in a wide type."""
    lead = 3 - problem.rank
    window = window_of(problem)
    mode, value = problem.padding_mode, problem.pad_value
    x, w, y = channels_first(problem, tensors["x"]), tensors["w"], channels_first(problem, tensors["y"])
    if op is Op.GRAD_WEIGHT:
        return reference.grad_weight(x, y, problem.filter[lead:], *window, mode, value)
    if op is Op.FORWARD:
        result = forward(x, w, *window, mode, value)
    else:
        result = reference.grad_input(y, w, problem.input[lead:], *window, mode)
    return result if problem.layout == "channels_first" else np.moveaxis(result, 1, -1)


def channels_first(problem, tensor):
    return tensor if problem.layout == "channels_first" else np.moveaxis(tensor, -1, 1)
