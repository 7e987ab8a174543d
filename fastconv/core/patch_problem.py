"""The convolution whose y is a patch matrix: K = C * taps filters, each with a single one in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .boundary import linear_mode
from .errors import RejectedError
from .parameters import LAYOUTS, Extents, Padding, as_shape, elements_of, joined_shape, one_of, per_axis, split_shape
from .problem import ConvProblem


def patch_problem(
    x_shape: Sequence[int],
    kernel_size: Extents,
    stride: Extents = 1,
    padding: Padding = 0,
    dilation: Extents = 1,
    *,
    padding_mode: str = "zeros",
    pad_value: complex = 0,
    layout: str = "channels_first",
    dtype: str = "float32",
) -> ConvProblem:
    """The convolution whose y is the patch matrix of x.

    Its rank is the length of `kernel_size`; an integer stands for as many axes as x has, and for two where x may or may
    not have a batch.
    """
    x_shape = as_shape("x", x_shape)
    rank = _length(kernel_size) or {2: 1, 5: 3}.get(len(x_shape), 2)
    filter_extents = _kernel_extents(kernel_size, rank)
    _, C, _ = split_shape("x", x_shape, rank, layout)
    if C < 1:
        raise RejectedError("x.shape", x_shape, "needs at least one channel")
    try:
        return ConvProblem.from_shapes(
            x_shape,
            (C * math.prod(filter_extents), 1, *filter_extents),
            stride,
            padding,
            dilation,
            C,
            padding_mode=padding_mode,
            pad_value=pad_value,
            layout=layout,
            dtype=dtype,
        )
    except RejectedError as error:
        if error.argument != "weight.shape":
            raise
        raise RejectedError("kernel_size", kernel_size, error.allowed) from None


def folded_problem(
    shape: Sequence[int],
    output_size: Extents,
    kernel_size: Extents,
    stride: Extents = 1,
    padding: Padding = 0,
    dilation: Extents = 1,
    *,
    padding_mode: str = "zeros",
    layout: str = "channels_first",
    dtype: str = "float32",
) -> ConvProblem:
    """The convolution of `patch_problem` whose y, with its pixels as one axis, has this shape.

    Its rank is the length of `output_size`, or of `kernel_size` where that is an integer, or two; the extents of x
    are `output_size`.
    """
    shape = as_shape("x", shape)
    rank = _length(output_size) or _length(kernel_size) or 2
    filter_extents = _kernel_extents(kernel_size, rank)
    extents = per_axis("output_size", output_size, rank, 1)
    if len(shape) not in (2, 3):
        raise RejectedError("x.shape", shape, "must have 3 axes, or 2 without the batch")
    (*batch, rows, pixels), taps = shape, math.prod(filter_extents)
    if one_of("layout", layout, LAYOUTS) == "channels_last":
        rows, pixels = pixels, rows
    if rows < 1 or rows % taps:
        raise RejectedError("x.shape", shape, f"the axis of {rows} must be the channels times the {taps} taps")
    problem = patch_problem(
        joined_shape(tuple(batch), rows // taps, extents, layout),
        filter_extents,
        stride,
        padding,
        dilation,
        padding_mode=linear_mode(padding_mode),
        layout=layout,
        dtype=dtype,
    )
    if problem.pixels != pixels:
        raise RejectedError("x.shape", shape, f"the axis of {pixels} must be the {problem.pixels} patches")
    return problem


def _length(value: Any) -> int:
    """Elements of a sequence, and 0 for what is none."""
    return len(elements_of(value) or ())


def _kernel_extents(kernel_size: Any, rank: int) -> tuple[int, ...]:
    if rank not in (1, 2, 3):
        raise RejectedError("kernel_size", kernel_size, "must be one integer, or one for each of 1, 2 or 3 axes")
    return per_axis("kernel_size", kernel_size, rank, 1)
