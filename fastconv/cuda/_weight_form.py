"""w as the kernels of im2col read it: for every tap a matrix of source x result channels, filled up with zeros.

    form[group, t, c, r] = weight[r, c, tap t]

with r and c the result and the source channel in the group, and t a row of `Gather.taps`. Neighbouring threads take
neighbouring result channels, 128 bits at a time, and no bounds are left to check.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._device import block_x, get, int32, int64, pointer, put, quotient, record, remainder, shifted, thread
from ._gather import TAP_FIELDS, Gather
from ._kernel import Body, Launch, kernels
from ._plan import WeightForm
from ._queue import Table

THREADS = 256


class Numbers(NamedTuple):
    """What `fill_form` is told; strides are of w, in elements."""

    blocks: int  # of the grid for one group
    taps: int
    rows: int  # source channels, filled up
    columns: int  # result channels, filled up
    source_channels: int
    result_channels: int
    weight_source: int
    weight_result: int


@kernels
def fill_form(dtype: str) -> Body:
    """Write the form: a thread for each element."""

    def body(
        w,  # read
        form,  # (groups, taps, rows, columns), written
        taps,  # int32 (taps, 4): the last is the place in the filter
        n,  # Numbers
        weight_group,  # int64: elements of w from one group to the next
        form_group,  # int64: likewise of the form
    ):
        group = quotient(block_x(), n.blocks)
        element = int32((block_x() - group * n.blocks) * THREADS + thread())
        column = remainder(element, n.columns)
        row = quotient(element, n.columns)
        tap = quotient(row, n.rows)
        row = remainder(row, n.rows)
        if tap < n.taps:
            filled = shifted(form, int64(group) * form_group)
            if row < n.source_channels and column < n.result_channels:
                place = get(taps, int32(tap * TAP_FIELDS + 3))
                filter_ = shifted(w, int64(group) * weight_group)
                put(filled, element, get(filter_, int32(column * n.weight_result + row * n.weight_source + place)))
            else:
                put(filled, element, 0)

    return Body(body, (*[pointer(dtype)] * 2, pointer("int32"), record(Numbers), int64, int64), THREADS)


def filled_up(gather: Gather, rows: int, columns: int) -> tuple[int, int]:
    """Rows and columns of a tap's matrix: source and result channels in whole panels."""
    return -(-gather.source_channels // rows) * rows, -(-gather.result_channels // columns) * columns


def weight_form(gather: Gather, rows: int, columns: int) -> WeightForm:
    """The form for panels of so many source and result channels."""
    problem = gather.problem
    group, result, source = gather.weight_strides
    height, width = filled_up(gather, rows, columns)
    size = problem.taps * height * width
    blocks = -(-size // THREADS)
    numbers = Numbers(
        blocks, problem.taps, height, width, gather.source_channels, gather.result_channels, source, result
    )
    taps = Table(gather.taps)
    launch = Launch(fill_form(problem.dtype), (blocks * problem.groups,), numbers, np.int64(group), np.int64(size))

    def transform(queue, w, form):
        launch(queue, w, form, taps.on(queue))

    key = ("taps of channels", gather.op, problem.dtype, problem.w_shape, problem.groups, height, width)
    order = tuple(gather.taps[:, TAP_FIELDS - 1].tolist())
    return WeightForm((*key, order), (problem.dtype, problem.groups * size), transform)
