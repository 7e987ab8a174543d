"""The pixels that a stride meets, where filters have one element: lines of them out of an image, and back into one."""

from __future__ import annotations

import math
from typing import NamedTuple

from ..core.jit import subroutine
from ..core.problem import ConvProblem
from ._gemm import lanes_of
from ._kernel import never_inlined
from ._rows import ROW_CYCLES, VECTOR_CYCLES, copy, copy_apart, fill_first
from ._simd import interleaved, lanes, load_first, prefetch, store_first, zeros
from ._strips import PREFETCHED


def gather_cycles(problem: ConvProblem, channels: int, lines: int) -> int:
    """Cycles to gather some lines of some channels."""
    span = (problem.output[2] - 1) * problem.stride[2] + 1
    return channels * lines * (ROW_CYCLES + 2 * VECTOR_CYCLES * -(-span // lanes_of(problem.dtype)))


class Grid(NamedTuple):
    """Where the pixels of a channel lie: pixel q of line (z, p) is element z * step_z + p * step_p + q * step_q."""

    line: int  # pixels of a line
    lines: int
    lines_p: int  # of a plane
    step_z: int
    step_p: int
    step_q: int
    row: int  # elements of a row, of which a line is some
    extent: int  # elements of a channel


GRID = len(Grid._fields)


def grid_of(problem: ConvProblem) -> Grid:
    """The pixels of y in x, for filters of one element without padding."""
    (_, height, width), (z, p, q) = problem.input, problem.stride
    depths, lines, line = problem.output
    return Grid(
        line, depths * lines, lines, z * height * width, p * width, q, width, math.prod(problem.input)
    )  # fmt: skip


@subroutine
def line_at(grid, number):
    """The element that a line begins with, or past the last element where there is no such line."""
    z, p = divmod(number, grid.lines_p)
    return z * grid.step_z + p * grid.step_p if number < grid.lines else grid.extent


@subroutine
def gather_lines(target, target_at, pitch, source, source_at, channel_pitch, channels, begin, end, grid):
    """target[c * pitch + i] = pixel i of channel c of an image, for c < channels, from line `begin` to before `end`."""
    never_inlined()
    span = (grid.line - 1) * grid.step_q + 1
    vectors = -(-span // lanes(source)) * (end - begin)
    ahead = max(1, PREFETCHED // vectors) * channel_pitch
    for c in range(channels):
        to = target_at + c * pitch
        for number in range(begin, end):
            at = source_at + c * channel_pitch + line_at(grid, number)
            for i in range(0, span, lanes(source)):
                prefetch(source, at + ahead + i)
            copy_apart(target, to, source, at, grid.step_q, grid.line)
            to += grid.line


@subroutine
def spread_lines(target, target_at, channel_pitch, source, source_at, pitch, channels, begin, end, grid):
    """The inverse of `gather_lines`, with zeros between the pixels, and behind each line up to the one that follows."""
    never_inlined()
    nothing = zeros(target, 1)
    for c in range(channels):
        at = source_at + c * pitch
        for number in range(begin, end):
            to = target_at + c * channel_pitch + line_at(grid, number)
            if grid.step_q == 1:
                copy(target, to, source, at, grid.line)
            elif grid.step_q == 2:
                _copy_to_every_second(target, to, source, at, grid.line, grid.row)
            else:
                fill_first(target, to, grid.row, nothing)
                for q in range(grid.line):
                    target[to + q * grid.step_q] = source[at + q]
            behind = to + grid.row
            following = target_at + c * channel_pitch + line_at(grid, number + 1)
            fill_first(target, behind, following - behind, nothing)
            at += grid.line


@subroutine
def _copy_to_every_second(target, target_at, source, source_at, count, row):
    """target[2 * i] = source[i] for i < count, and zeros elsewhere in target[:row]; row is at most 2 * count."""
    step = lanes(source)
    nothing = zeros(target, 1)
    for i in range(0, count, step):
        value = load_first(source, source_at + i, count - i, 1)
        held = row - 2 * i
        at = target_at + 2 * i
        store_first(target, at, held, interleaved(value, nothing, 0))
        store_first(target, at + step, held - step, interleaved(value, nothing, 1))
