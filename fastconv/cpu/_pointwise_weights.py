"""The gradient of filters of one element: the product of two tensors as they are, summed over their pixels.

Without padding, the pixels of x that a stride meets are a matrix, as those of y are::

    w[k, c] = sum over images and i of y[k, i] * x[c, i]

One of them is read where it lies, element by element, and the other is transposed, a block of pixels at a time, so that
a vector holds neighbouring channels. That is the one with fewer channels, but x if it has to be gathered.

Source: Goto, van de Geijn, "Anatomy of High-Performance Matrix Multiplication", ACM Trans. Math. Softw. 34 (2008),
section 4 (panels of one operand that stay in the second-level cache).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..core.algorithm import Epilogue, Plan
from ..core.arrays import LINE_BYTES
from ..core.jit import kernel
from ..core.problem import ConvProblem, Op
from ._gemm import ROWS, SPARE_ROWS, TILE_CYCLES, VECTORS, Product, lanes_of, multiply, padded, row_cycles, vector_steps
from ._geometry import Tables, named, tensor_strides, with_sizes
from ._kernel import first_integers, integers_at, views
from ._launch import Launch, SummedLaunch
from ._pointwise_lines import GRID, Grid, gather_cycles, gather_lines, grid_of
from ._rows import TRANSPOSED_CYCLES, VECTOR_CYCLES, copy, transpose_all
from ._tiles import PANEL_BYTES, SUMS_BYTES, TASK_CYCLES, TASKS_LEAST, WAITING, parts_of, summing_cycles

# Pixels that are transposed at once, at most: 64x56x56 to 256 took 0.62 ms on two threads with 512, which cut 3136 into
# 7 parts, and 0.57 so, in 4.
PIXELS = 1024
# Cycles for each cache line of what is read where it lies: 256x56x56 to 512 with a stride of 2 took 1.89 ms on one
# thread where y is read eight times, and 1.98 ms where x is gathered and transposed twice and y read twice.
READ_CYCLES = 1


class Matrices(NamedTuple):
    """The header of the geometry vector. Rows and columns are the channels of one group of either tensor."""

    sizes_1: int
    sizes_2: int
    sizes_3: int
    sizes_4: int
    sizes_5: int
    sizes_6: int
    sizes_7: int
    groups: int
    row_count: int
    column_count: int
    row_block: int  # of a task
    column_block: int
    turned: int  # whether rows are channels of x
    left_n: int  # strides in elements: of the tensor with the rows
    left_c: int
    right_n: int
    right_c: int
    pixels: int
    pixel_block: int
    items: int  # blocks of pixels of all images
    items_per_task: int
    gathers: int  # whether the columns are gathered
    in_place: int  # whether sums are added up in the weight
    strip_at: int  # positions in the workspace, and distances of rows
    strip_pitch: int
    panel_at: int
    panel_pitch: int
    sums_at: int
    grid_at: int  # tables: `Grid`, the first pixel of each row, the pixels of a row, and of the panel
    rows_at: int
    taken_at: int
    offsets_at: int


HEADER = len(Matrices._fields)


@kernel
def _grad_weight(task, x, w, y, residual, constants, workspace, geometry):
    """One task: a run of blocks of pixels of all images, one block of rows and one of columns of one group.

    x, y: channels first; w: (runs, K, C / groups), to be added up over the runs; workspace: columns gathered and
    transposed, sums.
    """
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    g = Matrices(*first_integers(geometry, HEADER))
    left, right = (x, y) if g.turned else (y, x)
    row_blocks, column_blocks = -(-g.row_count // g.row_block), -(-g.column_count // g.column_block)
    run, rest = divmod(task, g.groups * row_blocks * column_blocks)
    group, rest = divmod(rest, row_blocks * column_blocks)
    row, column = divmod(rest, column_blocks)
    row, column = row * g.row_block, column * g.column_block
    rows, columns = min(g.row_block, g.row_count - row), min(g.column_block, g.column_count - column)
    weights_at = (run * g.groups + group) * g.row_count * g.column_count
    weights_at += column * g.row_count + row if g.turned else row * g.column_count + column
    sums, sums_at, pitch = (w, weights_at, g.column_count) if g.in_place else (workspace, g.sums_at, g.panel_pitch)
    blocks = -(-g.pixels // g.pixel_block)
    begin = run * g.items_per_task
    for item in range(begin, min(begin + g.items_per_task, g.items)):
        image, pixel = divmod(item, blocks)
        pixel *= g.pixel_block
        pixels = min(g.pixel_block, g.pixels - pixel)
        left_at = image * g.left_n + (group * g.row_count + row) * g.left_c + pixel
        right_at = image * g.right_n + (group * g.column_count + column) * g.right_c
        if g.gathers:
            grid = Grid(*integers_at(geometry, g.grid_at, GRID))
            gather_lines(
                workspace, g.strip_at, g.strip_pitch, right, right_at, g.right_c, columns,
                pixel // grid.line, (pixel + pixels) // grid.line, grid,
            )  # fmt: skip
            transpose_all(
                workspace, g.panel_at, g.panel_pitch, workspace, g.strip_at, g.strip_pitch, columns, pixels
            )  # fmt: skip
        else:
            transpose_all(workspace, g.panel_at, g.panel_pitch, right, right_at + pixel, g.right_c, columns, pixels)
        product = Product(
            sums, sums_at, pitch, left, left_at, workspace, g.panel_at,
            geometry, g.rows_at, g.taken_at, g.offsets_at, pixels, item == begin,
        )  # fmt: skip
        multiply(product, rows, columns)
    if g.turned:
        transpose_all(w, weights_at, g.row_count, workspace, g.sums_at, g.panel_pitch, rows, columns)
    elif not g.in_place:
        for k in range(rows):
            copy(w, weights_at + k * g.column_count, workspace, g.sums_at + k * g.panel_pitch, columns)


# ---- plans


@dataclass(frozen=True)
class Sizes:
    """Blocks of a task."""

    turned: bool
    row_block: int
    column_block: int
    pixel_block: int
    items: int
    items_per_task: int
    parts: int
    tasks: int
    cycles: float  # of all tasks, one after the other

    def time(self, threads: int) -> float:
        """As `fastconv.cpu._tiles.Tiling.time`."""
        return self.cycles / self.tasks * (-(-self.tasks // threads) + WAITING)

    @property
    def additions(self) -> int:
        """That follow one another in a sum: over the pixels of each block first."""
        return self.pixel_block + self.items


def serves(problem: ConvProblem, op: Op) -> bool:
    """Whether this computes a problem (`fastconv.cpu.direct`)."""
    return (
        op is Op.GRAD_WEIGHT
        and problem.layout == "channels_first"
        and problem.taps == 1
        and not any(map(any, problem.padding))
        and min(_channels(problem)) > 1
    )


def _channels(problem: ConvProblem) -> tuple[int, int]:
    """Of x and of y, of one group."""
    return problem.C // problem.groups, problem.K // problem.groups


def _gathers(problem: ConvProblem) -> bool:
    return problem.stride != (1, 1, 1)


@lru_cache(maxsize=1024)
def sizes_of(problem: ConvProblem, op: Op) -> Sizes:
    """The blocks that take the least time; the same on every machine, as the order of the sums depends on them."""
    return min(_candidates(problem), key=lambda each: each.time(TASKS_LEAST))


def _candidates(problem: ConvProblem) -> Iterator[Sizes]:
    lanes, size = lanes_of(problem.dtype), np.dtype(problem.dtype).itemsize
    pixels = math.prod(problem.output)
    for turned in (False,) if _gathers(problem) else (False, True):
        row_count, column_count = _channels(problem) if turned else _channels(problem)[::-1]
        unit = problem.output[2] if _gathers(problem) else min(lanes, pixels)
        choices = itertools.product(
            itertools.islice(parts_of(-(-pixels // unit), max(1, PIXELS // unit)), 6),
            itertools.islice(parts_of(-(-row_count // ROWS), row_count), 12),
            itertools.islice(parts_of(-(-column_count // lanes), column_count), 12),
        )
        for units, row_units, column_units in choices:
            row_block, column_block = min(row_units * ROWS, row_count), min(column_units * lanes, column_count)
            block, pitch = min(units * unit, pixels), padded(column_block, problem.dtype)
            if max(block * pitch * size - PANEL_BYTES, row_block * pitch * size - SUMS_BYTES) > 0 and (
                column_units > 1 or units > 1 or row_units > 1
            ):
                continue
            items = problem.N * -(-pixels // block)
            blocks = problem.groups * -(-row_count // row_block) * -(-column_count // column_block)
            per_task = max(1, -(-items // max(1, -(-TASKS_LEAST // blocks))))
            parts = -(-items // per_task)
            vectors = pitch // lanes
            pixel = row_cycles(row_block) * vectors * vector_steps(problem) + column_block / lanes * TRANSPOSED_CYCLES
            pixel += (row_block + column_block) * size / LINE_BYTES * READ_CYCLES
            if _gathers(problem):
                pixel += gather_cycles(problem, column_block, 1) / unit
            item = -(-row_block // ROWS) * -(-vectors // VECTORS) * TILE_CYCLES
            last = row_block * vectors * (TRANSPOSED_CYCLES if turned else VECTOR_CYCLES)
            cycles = blocks * (problem.N * pixels * pixel + items * item + parts * (last + TASK_CYCLES))
            cycles += summing_cycles(problem, parts)
            yield Sizes(turned, row_block, column_block, block, items, per_task, parts, blocks * parts, cycles)


@dataclass(frozen=True)
class _Memory:
    """Places in the workspace, in elements; each part ends with a vector to spare."""

    strip_at: int
    strip_pitch: int
    panel_at: int
    panel_pitch: int
    sums_at: int
    elements: int


def _memory(problem: ConvProblem, sizes: Sizes) -> _Memory:
    lanes = lanes_of(problem.dtype)
    strip_pitch = padded(sizes.pixel_block, problem.dtype) if _gathers(problem) else 0
    panel_at = (sizes.column_block * strip_pitch // lanes + 1) * lanes
    panel_pitch = padded(sizes.column_block, problem.dtype)
    sums_at = panel_at + (sizes.pixel_block + 1) * panel_pitch
    elements = sums_at + (sizes.row_block + SPARE_ROWS + 1) * panel_pitch
    return _Memory(0, strip_pitch, panel_at, panel_pitch, sums_at, elements)


def workspace(problem: ConvProblem, op: Op) -> int:
    """Scratch memory of a thread, in bytes."""
    return _memory(problem, sizes_of(problem, op)).elements * np.dtype(problem.dtype).itemsize


def plan(whole: ConvProblem, problem: ConvProblem, op: Op, epilogue: Epilogue) -> Plan:
    """The plan of a problem, as it was and with as few axes as describe it."""
    sizes = sizes_of(problem, op)
    memory = _memory(problem, sizes)
    strides, channels = tensor_strides(problem), _channels(problem)
    (left, right), (row_count, column_count) = (
        (strides, channels) if sizes.turned else (strides[::-1], channels[::-1])
    )  # fmt: skip
    is_whole = (
        row_count % sizes.row_block == sizes.row_block % ROWS == 0
        and column_count % sizes.column_block == sizes.column_block % lanes_of(problem.dtype) == 0
    )
    tables = Tables(Matrices)
    pixels = np.arange(sizes.pixel_block)
    vector = tables.vector(
        groups=problem.groups,
        row_count=row_count,
        column_count=column_count,
        row_block=sizes.row_block,
        column_block=sizes.column_block,
        turned=sizes.turned,
        **named("left_{}", "nc", left[:2]),
        **named("right_{}", "nc", right[:2]),
        pixels=math.prod(problem.output),
        pixel_block=sizes.pixel_block,
        items=sizes.items,
        items_per_task=sizes.items_per_task,
        gathers=_gathers(problem),
        in_place=is_whole and not sizes.turned,
        **{name: value for name, value in vars(memory).items() if name != "elements"},
        grid_at=tables.add(grid_of(problem)),
        rows_at=tables.add(left[1] * np.arange(sizes.row_block)),
        taken_at=tables.add(pixels),
        offsets_at=tables.add(memory.panel_pitch * pixels),
    )
    geometry = with_sizes(vector, problem, op, sizes.parts * math.prod(problem.w_shape), memory.elements)
    launch = Launch(_grad_weight, sizes.tasks, problem.dtype, geometry, memory.elements)
    return Plan(
        algorithm="direct",
        problem=whole,
        op=op,
        workspace_bytes=workspace(problem, op),
        run=SummedLaunch(launch, sizes.parts),
        tiles={
            "pixels": sizes.pixel_block,
            "rows": sizes.row_block,
            "columns": sizes.column_block,
            "turned": int(sizes.turned),
            "tasks": sizes.tasks,
        },
    )
