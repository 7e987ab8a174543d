"""Two passes over images of one channel, down their columns and along their lines, in one launch.

What a separable filter leaves to do (`fastconv._separable`)::

    t[p, q] = sum over r of down[r] * x_padded[p + r, q]
    y[p, q] = sum over s of across[s] * t_padded[p, q + s]

The lanes of a register hold neighbours of one line, so the pass down the columns multiplies whole lines by weights.
So does the other, on the transpose: as many lines of t as a register has lanes are transposed while they are in
registers, and stay in a second-level cache, a vector for each column; what they give is transposed again when it is
stored. Both passes are one function. Its transposes shuffle four times for each vector of 16 lanes, where a pass along
the lines loads across two cache lines for every tap; and no array lies between the passes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import types

from ..core.algorithm import Array, PassesRun
from ..core.boundary import source_index
from ..core.jit import kernel, subroutine
from ..core.machine import Machine
from ..core.problem import ConvProblem
from ._gemm import lanes_of, padded
from ._geometry import Tables, even_split, sized
from ._kernel import first_integers, never_inlined, number, views
from ._launch import Launch
from ._line_vectors import RUNS, Runs, add_lines, behind_boundary, squared, store_transposed
from ._rows import copy, fill
from ._simd import lanes, load, store, tuple_of

# Cycles for each run of taps of a block of 16 x 16 elements, beside its multiply-adds, and for each block: 2000x2000
# with 3, 9, 17, 25 and 41 taps each way took 1.33, 2.14, 3.64, 4.83 and 7.35 ms on one thread.
RUN_CYCLES = 25
BLOCK_CYCLES = 170
# How much faster than copies of a `Machine` the images are gone through: 2048x2048 with 1 tap each way took 0.85 ms.
FASTER = 2
# Lines of t, in multiples of the lanes, that make a task.
BLOCKS_PER_TASK = 4
# More than any width or number of lines.
FAR = 1 << 40


class Bands(NamedTuple):
    """The header of the geometry vector."""

    sizes_1: int
    sizes_2: int
    sizes_3: int
    sizes_4: int
    sizes_5: int
    sizes_6: int
    sizes_7: int
    height: int  # of x
    width: int
    lines: int  # of y
    columns: int
    down: int  # taps
    across: int
    above: int  # pads
    before: int
    span: int  # lines of y of a task
    pitch: int  # from one line of the strip to the next
    strip_at: int  # in the workspace, behind the transposed lines
    rows_at: int  # the lines of x that stand in each place of the padded ones, and the columns of t
    columns_at: int


HEADER = len(Bands._fields)


@kernel
def _passes(task, x, w, y, residual, constants, workspace, geometry):
    """One task: a band of the lines of one image.

    w: the weights down, then those across; constants: what stands in the padding of x, and in that of t; workspace:
    the lines of t, transposed, with their padding, then a strip of x.
    """
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    g = Bands(*first_integers(geometry, HEADER))
    image, band = divmod(task, -(-g.lines // g.span))
    step = lanes(x)
    end = min((band + 1) * g.span, g.lines)
    for p in range(band * g.span, end, step):
        lines = min(step, end - p)
        image_at = image * g.height * g.width
        source = _blocks(x, image_at + (p - g.above) * g.width, g.width, g.width)
        if p < g.above or p - g.above + step + g.down - 1 > g.height:
            _gather(workspace, x, image_at, p, lines + g.down - 1, constants, geometry)
            source = _blocks(workspace, g.strip_at, g.pitch, g.width)
        target = _blocks(y, (image * g.lines + p) * g.columns, g.columns, g.columns)
        _pass(source, w, 0, g.down, _columns(workspace, step + g.before - source.first), step)
        _pad(workspace, constants, geometry)
        _pass(_columns(workspace, step - target.first), w, g.down, g.across, target, lines)


class Blocks(NamedTuple):
    """Lines in blocks of as many elements as a register has lanes: block b of line i is at + i * line + b * step."""

    array: types.Array
    at: int
    line: int
    step: int
    first: int  # element of a line that exists, and the one past the last
    last: int


@subroutine
def _blocks(array, at, line, width):
    """Lines from array[at] on, in blocks that begin where a register does.

    2048x2048 with 17 taps each way, whose lines all begin 16 bytes behind a page, took 2.7 ms, and 1.9 ms so.
    """
    first = behind_boundary(array, at)
    return Blocks(array, at - first, line, lanes(array), first, first + width)


@subroutine
def _columns(workspace, column):
    """The transposed lines of t from a column on; `lanes` columns lie before the padded ones."""
    step = lanes(workspace)
    return Blocks(workspace, column * step, step, step * step, 0, FAR)


@subroutine
def _gather(workspace, x, image_at, p, count, constants, geometry):
    """strip[i] = line p + i of the padded image."""
    never_inlined()
    g = Bands(*first_integers(geometry, HEADER))
    for i in range(count):
        line = number(geometry, g.rows_at + p + i)
        if line < 0:
            fill(workspace, g.strip_at + i * g.pitch, g.width, constants[0])
        else:
            copy(workspace, g.strip_at + i * g.pitch, x, image_at + line * g.width, g.width)


@subroutine
def _pad(workspace, constants, geometry):
    """The columns of t around those that were computed, a vector each."""
    never_inlined()
    g = Bands(*first_integers(geometry, HEADER))
    step = lanes(workspace)
    for i in range(g.columns + g.across - 1 - g.width):
        place = i if i < g.before else i + g.width
        column, at = number(geometry, g.columns_at + place), (step + place) * step
        if column < 0:
            fill(workspace, at, step, constants[1])
        else:
            store(workspace, at, load(workspace, (step + g.before + column) * step, 1))


@subroutine
def _pass(source, weights, weights_at, taps, target, lines):
    """The transpose of sums over r < taps of weights[weights_at + r] * source, moved up by r lines, is the target.

    lines: of the target, at most the lanes. The blocks of a line of the source lie below each other in the target.
    """
    never_inlined()
    step, lengths = lanes(weights), Runs(True, True, True, True, True)
    for block in range(-(-min(source.last, target.last) // step)):
        sums = squared(weights)
        at, done = source.at + block * source.step, 0
        low, high = _inside(source, block)
        while done < taps:
            run = _run(taps - done)
            sums = add_lines(
                sums, run, lengths, tuple_of(done, 1), source.array, at + done * source.line, source.line,
                0, FAR, low, high, weights, weights_at + done, 1,
            )  # fmt: skip
            done += run
        low, high = _inside(target, block)
        store_transposed(target.array, target.at + block * target.step, target.line, lines, low, high, sums)


@subroutine
def _inside(blocks, block):
    """The lanes of a block between which elements exist."""
    step = lanes(blocks.array)
    return max(0, blocks.first - block * step), min(step, blocks.last - block * step)


@subroutine
def _run(left):
    """The longest of `RUNS` that is not longer than what is left."""
    if left >= 7:
        return 7
    if left >= 5:
        return 5
    return min(left, 3)


# ---- plans


def cost(down: ConvProblem, across: ConvProblem, machine: Machine) -> float:
    """Predicted seconds of both passes, of problems as `plan` takes them."""
    (_, lines, columns), lanes = across.output, lanes_of(down.dtype)
    blocks = -(-lines // lanes) * -(-max(columns, down.input[2]) // lanes)
    taps = down.filter[1], across.filter[2]
    runs = sum(-(-each // RUNS[0]) for each in taps)
    cycles = down.N * blocks * (sum(taps) * lanes + runs * RUN_CYCLES + BLOCK_CYCLES)
    moved = (math.prod(down.x_shape) + math.prod(across.y_shape)) * np.dtype(down.dtype).itemsize
    return machine.seconds(cycles, down.N * -(-lines // _span(lines, lanes)), moved / FASTER)


def _span(lines: int, lanes: int) -> int:
    """Lines of a task."""
    return even_split(lines, BLOCKS_PER_TASK * lanes)


def plan(down: ConvProblem, across: ConvProblem) -> PassesRun:
    """What goes through images of one channel down their columns, then along their lines.

    Parameters
    ----------
    down, across
        FORWARD problems of one channel, of two axes, without strides: the second one's input is the first one's output,
        and their filters have an extent of 1 along the other axis.

    Returns
    -------
    ``run(x, weights, y, constants, threads)``
        Of contiguous arrays of the problems' type. weights: those down, then those across; constants: what stands in
        the padding of x, and of what the first pass gives.
    """
    (_, height, width), (_, lines, columns) = down.input, across.output
    (above, below), (before, after) = down.padding[1], across.padding[2]
    taps_down, taps_across = down.filter[1], across.filter[2]
    step = lanes_of(down.dtype)
    span = _span(lines, step)
    pitch = padded(width, down.dtype) + step  # so that lines do not all begin at the same place of a page
    strip_at = step * (padded(width, down.dtype) + before + after + 3 * step)
    workspace = strip_at + pitch * (step + taps_down - 1)
    tables = Tables(Bands)
    vector = tables.vector(
        height=height,
        width=width,
        lines=lines,
        columns=columns,
        down=taps_down,
        across=taps_across,
        above=above,
        before=before,
        span=span,
        pitch=pitch,
        strip_at=strip_at,
        rows_at=tables.add(source_index(height, above, below, down.padding_mode)),
        columns_at=tables.add(source_index(width, before, after, across.padding_mode)),
    )
    x_size, y_size = math.prod(down.x_shape), math.prod(across.y_shape)
    geometry = sized(vector, (x_size, taps_down + taps_across, y_size, y_size, 2, workspace))
    launch = Launch(_passes, down.N * -(-lines // span), down.dtype, geometry, workspace)

    def run(x: Array, weights: Array, y: Array, constants: Array, threads: int) -> None:
        launch(x, weights, y, y, constants, threads)

    return run
