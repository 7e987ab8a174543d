"""Direct convolution with filters of one element: the tensors are the matrices as they are.

Without padding, the pixels of an image that a stride meets are a matrix of channels and pixels, as those of y are::

    y[k, i] = sum over c of w[k, c] * x[c, i]

With a stride of 1 nothing is gathered: what one panel of pixels needs is fetched while the one before it is multiplied,
or, on processors whose products wait for loads, copied while the first rows meet it.
Pixels that fill no vector are copied and multiplied apart. GRAD_INPUT is the same with the roles of channels and
tensors exchanged. With another stride, x is gathered line by line, or sums are spread over its lines, zeros between.

Source: Goto, van de Geijn, "Anatomy of High-Performance Matrix Multiplication", ACM Trans. Math. Softw. 34 (2008),
section 4 (panels of one operand that stay in the second-level cache).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np

from ..core.algorithm import Epilogue, Plan
from ..core.arrays import LINE_BYTES
from ..core.jit import Kernel, kernel, subroutine
from ..core.machine import local_machine
from ..core.problem import ConvProblem, Op
from . import _dots
from ._activation import activation_code
from ._dots import multiply_by_dots
from ._gemm import (
    ROWS,
    SPARE_ROWS,
    TILE_CYCLES,
    VECTORS,
    Ending,
    Place,
    Product,
    lanes_of,
    multiply,
    multiply_by_columns,
    padded,
    row_cycles,
    vector_steps,
)
from ._geometry import Tables, even_split, with_sizes
from ._kernel import always_inlined, first_integers, integers_at, never_inlined, number, views
from ._launch import Launch
from ._packing import Packed, PackedRows, multiply_packed, row_table
from ._past_caches import caches_passed, products_pass_caches
from ._pointwise_lines import GRID, Grid, gather_cycles, gather_lines, grid_of, line_at, spread_lines
from ._rows import Finish, changes, copy, finish_runs, transpose_all
from ._simd import FAST_PRODUCTS, lanes
from ._tiles import LINE_CYCLES, SUMS_BYTES, TASK_CYCLES, WAITING, role_fields


class Panels(NamedTuple):
    """The header of the geometry vector."""

    sizes_1: int
    sizes_2: int
    sizes_3: int
    sizes_4: int
    sizes_5: int
    sizes_6: int
    sizes_7: int
    groups: int
    sources: int  # channels of one group
    targets: int
    source_n: int  # strides in elements
    source_c: int
    target_n: int
    target_c: int
    weight_group: int
    weight_source: int
    weight_target: int
    pixels: int  # of y
    gathers: int  # whether the source is gathered, or the target's pixels are spread: a stride other than 1
    spreads: int
    row_block: int  # target channels and pixels of a task
    pixel_block: int
    source_block: int  # source channels that are multiplied at once
    pitch: int  # of pixels that are left over
    lines_at: int  # positions in the workspace: what is gathered, or is to be spread, and the distance of its rows
    lines_pitch: int
    sums_at: int
    turned_at: int  # sums of pixels, a row of channels each
    dots_at: int
    dots_pitch: int
    packed_at: int
    packed_rows_at: int
    fetches: int  # whether pixels that are copied come from memory
    activation: int
    has_residual: int
    by_dots: int  # whether weights of neighbouring channels are neighbours
    rows_at: int  # tables: the first weight of each row, the weights and pixels of each term, in the tensor and copied
    taken_at: int
    offsets_at: int
    copied_at: int
    packed_offsets_at: int
    packed_row_table_at: int
    packed_taken_at: int
    pixels_at: int  # those that are left over
    grid_at: int  # `Grid`


HEADER = len(Panels._fields)


@cache
def _kernel(op: Op, packs: bool | None) -> Kernel:
    """packs: True, or None, for which no code is made: whether operands are copied as they are met first."""
    exchanges = op is Op.GRAD_INPUT
    has_neighbours = exchanges or None  # weights of target channels are neighbours

    @kernel
    def run(task, x, w, y, residual, constants, workspace, geometry):
        x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
        source, target = (y, x) if exchanges else (x, y)
        _multiply_channels(packs, has_neighbours, task, source, w, target, residual, constants, workspace, geometry)

    return run


@subroutine
def _block_of(g, task):
    """What a task works on: image, group, first target channel of it and how many, first pixel and how many."""
    blocks, row_blocks = -(-g.pixels // g.pixel_block), -(-g.targets // g.row_block)
    image, rest = divmod(task, g.groups * blocks * row_blocks)
    group, rest = divmod(rest, blocks * row_blocks)
    row, block = divmod(rest, blocks)
    row, pixel = row * g.row_block, block * g.pixel_block
    return image, group, row, min(g.row_block, g.targets - row), pixel, min(g.pixel_block, g.pixels - pixel)


@subroutine
def _multiply_channels(
    packs, has_neighbours, task, source, weights, target, residual, constants, workspace, geometry
):  # fmt: skip
    """One task: a block of pixels, one block of target channels of one group of one image.

    packs, has_neighbours: as in `_kernel`; source, target: (N, channels, elements); weights: (K, C / groups);
    workspace: pixels that are gathered, spread or copied, those that are left over, and their sums.
    """
    g = Panels(*first_integers(geometry, HEADER))
    grid = Grid(*integers_at(geometry, g.grid_at, GRID))
    image, group, row, rows, pixel, pixels = _block_of(g, task)
    first_line, end_line = pixel // grid.line, (pixel + pixels) // grid.line
    channel = group * g.targets + row
    weights_at = group * g.weight_group + row * g.weight_target
    right, right_at = source, image * g.source_n + group * g.sources * g.source_c
    if g.gathers:
        gather_lines(
            workspace, g.lines_at, g.lines_pitch, right, right_at, g.source_c, g.sources, first_line, end_line, grid
        )  # fmt: skip
        right, right_at = workspace, g.lines_at
    else:
        right_at += pixel
    target_at = image * g.target_n + channel * g.target_c
    begin, end = pixel, pixel + pixels
    sums, sums_at, pitch = target, target_at + pixel, g.target_c
    if g.spreads:
        begin, end = line_at(grid, first_line), line_at(grid, end_line)
        sums, sums_at, pitch = workspace, g.lines_at, g.lines_pitch
    finish = Finish(constants, residual, g.has_residual, g.activation, None)
    is_changed = changes(finish, channel, rows)
    is_whole = g.source_block == g.sources
    passes = is_whole and not g.spreads and not is_changed and products_pass_caches(sums, sums_at, pitch)
    product = Product(
        sums, sums_at, pitch, weights, weights_at, right, right_at,
        geometry, g.rows_at, g.taken_at, g.offsets_at, g.sources, Ending(True, passes),
    )  # fmt: skip
    _multiply_blocks(packs, has_neighbours, product, rows, pixels, workspace, g)
    if g.spreads:
        spread_lines(target, target_at, g.target_c, workspace, g.lines_at, pitch, rows, first_line, end_line, grid)
    if is_changed:
        finish_runs(target, target_at + begin, g.target_c, rows, end - begin, channel, 1, finish)


@subroutine
def _multiply_blocks(packs, has_neighbours, product, rows, pixels, workspace, g):
    """A `Product` of all source channels, in blocks of them, then that of pixels that are left over."""
    left = pixels % lanes(workspace)
    whole = pixels - left
    by_dots = g.by_dots and 0 < left <= _dots.MOST
    for first in range(0, g.sources, g.source_block):
        part = Product(
            product.sums, product.sums_at, product.pitch, product.left, product.left_at, product.right,
            product.right_at, product.table, product.row_at, product.taken_at + first, product.offset_at + first,
            min(g.source_block, g.sources - first), Ending(first == 0, product.fresh.past_caches),
        )  # fmt: skip
        _multiply_whole(packs, has_neighbours, part, rows, whole, workspace, g)
        if left and not by_dots:
            _multiply_left(part, workspace, g, rows, whole, left, first)
    if product.fresh.past_caches:
        caches_passed()
    if by_dots:
        _copy_left(workspace, product.table, g, product.right, product.right_at + whole, left, 0, g.sources)
        dots = Product(
            product.sums, product.sums_at, product.pitch, product.left, product.left_at, workspace, -whole,
            product.table, product.row_at, product.taken_at, g.copied_at, g.sources, True,
        )  # fmt: skip
        multiply_by_dots(dots, g.dots_at, g.dots_pitch, rows, whole, left)
    elif left:
        if _left_are_rows(g, rows, lanes(workspace)):
            transpose_all(workspace, g.sums_at, g.pitch, workspace, g.turned_at, rows, left, rows)
        for k in range(rows):
            copy(product.sums, product.sums_at + k * product.pitch + whole, workspace, g.sums_at + k * g.pitch, left)


@subroutine
def _multiply_whole(packs, has_neighbours, product, rows, columns, workspace, g):
    """The columns of a product that are whole registers; packs, has_neighbours: as in `_kernel`."""
    always_inlined()
    if packs is None:
        multiply_by_columns(product, rows, columns)
    else:
        packed = Packed(workspace, Place(g.packed_at, g.packed_offsets_at), g.fetches != 0)
        if has_neighbours is None:
            multiply_packed(product, rows, columns, packed, None)
        else:
            packed_rows = PackedRows(g.packed_rows_at, g.packed_row_table_at, g.packed_taken_at)
            multiply_packed(product, rows, columns, packed, packed_rows)


@subroutine
def _copy_left(workspace, geometry, g, source, source_at, left, first, sources):
    """workspace[c, i] = source[first + c, i], for c < sources and the pixels that are left over."""
    for c in range(sources):
        copy(workspace, c * g.pitch, source, source_at + number(geometry, g.offsets_at + first + c), left)


@subroutine
def _left_are_rows(g, rows, step):
    """Whether vectors hold target channels of pixels that are left over, where those are neighbours in the weight."""
    return not g.by_dots and rows % step == 0


@subroutine
def _multiply_left(product, workspace, g, rows, whole, left, first):
    """The columns of a product that are left over behind whole registers, in the workspace; first: its first source.

    They stand there as (rows, pitch); or turned around, if `_left_are_rows`, so that no lane is idle.
    """
    never_inlined()
    fresh, source_at = product.fresh.fresh, product.right_at + whole
    if _left_are_rows(g, rows, lanes(workspace)):
        turned = Product(
            workspace, g.turned_at, rows, product.right, source_at, product.left, product.left_at,
            product.table, g.pixels_at, product.offset_at, product.taken_at, product.terms, fresh,
        )  # fmt: skip
        multiply(turned, left, rows)
    else:
        _copy_left(workspace, product.table, g, product.right, source_at, left, first, product.terms)
        copied = Product(
            workspace, g.sums_at, g.pitch, product.left, product.left_at, workspace, 0,
            product.table, g.rows_at, product.taken_at, g.copied_at, product.terms, fresh,
        )  # fmt: skip
        multiply(copied, rows, left)


# ---- plans


# Whether pixels are copied as they are met first. On an Intel Xeon 8x256x56x56 to 64 took 3.9 ms on two threads where
# they were read where they lie, and takes 3.0 so, its GRAD_INPUT 3.3 and 2.8, 64x56x56 to 256 0.38 and 0.35, its
# GRAD_INPUT 0.48 and 0.39; copied before all products 3.2, 3.0, 0.36 and 0.41.
PACKS = FAST_PRODUCTS or None
# Bytes of the tensors from which on these pixels are fetched before they are copied. There 8x256x60x64 to 64, 39 MB,
# took 7.1 ms without and 4.0 so, 8x256x56x56, 32 MB, as long, 256x56x56 0.37 and 0.38.
FAR_BYTES = 16 << 20
# Source channels that GRAD_INPUT multiplies at once, where operands are copied. Each is a run of weights, and the next
# lies far from it: of few runs, the processor fetches what follows before it is asked for. 512x7x7 to 2048 took 0.67 ms
# with all of them, 0.45 with 16 or 128, and takes 0.41 with 64 to 96; 1024x14x14 to 256 0.37, 0.43, 0.37 and 0.35.
SOURCE_BLOCK = 96
# Pixels of a task: 8x256x56x56 to 64 took 5.38 ms in tasks of a whole image, 5.07 in those of half of one, and 4.94 in
# those of a sixth; its GRAD_INPUT 5.60, 5.48 and 5.45.
MOST_PIXELS = 1584


@dataclass(frozen=True)
class Sizes:
    """Blocks of a task."""

    row_block: int
    pixel_block: int
    tasks: int
    cycles: float  # of all tasks, one after the other

    def time(self, threads: int) -> float:
        """As `fastconv.cpu._tiles.Tiling.time`."""
        return self.cycles / self.tasks * (-(-self.tasks // threads) + WAITING)


def serves(problem: ConvProblem, op: Op) -> bool:
    """Whether this computes a problem whose axes are one (`fastconv.cpu.direct`)."""
    targets = role_fields(problem, op)["targets"]
    return (
        op is not Op.GRAD_WEIGHT
        and problem.layout == "channels_first"
        and problem.taps == 1
        and not any(map(any, problem.padding))
        and targets % ROWS == 0
        and math.prod(problem.output) >= lanes_of(problem.dtype)
    )


def _is_strided(problem: ConvProblem) -> bool:
    return problem.stride != (1, 1, 1)


def parts(extent: int, unit: int) -> list[int]:
    """Sizes, in whole units, of about equal parts of an extent."""
    units = -(-extent // unit)
    return sorted({even_split(units, most) * unit for most in range(1, units + 1)})


def _source_block(problem: ConvProblem, op: Op) -> int:
    sources = role_fields(problem, op)["sources"]
    return even_split(sources, SOURCE_BLOCK) if PACKS and op is Op.GRAD_INPUT else sources


def _steps(op: Op, columns: int, lanes: int) -> float:
    """Vectors of columns that take as long."""
    return _dots.steps(columns, lanes) if op is Op.FORWARD else columns / lanes


@lru_cache(maxsize=1024)
def sizes_of(problem: ConvProblem, op: Op) -> Sizes:
    """The blocks that take the least time."""
    return min(_candidates(problem, op), key=lambda each: each.time(local_machine().threads))


def _candidates(problem: ConvProblem, op: Op) -> Iterator[Sizes]:
    roles = role_fields(problem, op)
    sources, targets, groups = roles["sources"], roles["targets"], problem.N * problem.groups
    pixels, lanes = math.prod(problem.output), lanes_of(problem.dtype)
    size = np.dtype(problem.dtype).itemsize
    panel = VECTORS * lanes
    halves = 1 if op is Op.FORWARD else 2  # a register tile of GRAD_INPUT takes half of each cache line of weights
    unit = problem.output[2] if _is_strided(problem) else panel
    for row_block in parts(targets, ROWS):
        for block in parts(pixels, unit):
            copied = (sources if op is Op.FORWARD else row_block) if _is_strided(problem) else 0
            fits = block <= MOST_PIXELS and copied * block * size <= SUMS_BYTES
            if fits or block == unit:
                tasks = groups * -(-targets // row_block) * -(-pixels // block)
                tiles = row_block // ROWS * -(-block // panel)
                product = (
                    row_cycles(row_block) * sources * _steps(op, min(pixels, block), lanes) * vector_steps(problem)
                )
                fetched = sources * (min(pixels, block) + row_block * halves) * size / LINE_BYTES * LINE_CYCLES
                lines = gather_cycles(problem, copied, block // unit) if copied else 0
                cycles = tasks * (product + tiles * TILE_CYCLES + fetched + lines + TASK_CYCLES)
                yield Sizes(row_block, block, tasks, cycles)


@dataclass(frozen=True)
class _Memory:
    """Places in the workspace, in elements; each part ends with a vector to spare."""

    lines_at: int
    lines_pitch: int
    sums_at: int
    turned_at: int
    dots_at: int
    dots_pitch: int
    packed_at: int
    packed_rows_at: int
    elements: int


def _memory(problem: ConvProblem, op: Op) -> _Memory:
    lanes, sources = lanes_of(problem.dtype), role_fields(problem, op)["sources"]
    sizes = sizes_of(problem, op)
    rows = sizes.row_block + SPARE_ROWS + 1
    lines_at, lines_pitch, copied = (sources + 1) * lanes, 0, 0
    if _is_strided(problem):
        lines_pitch, copied = padded(sizes.pixel_block, problem.dtype), sources if op is Op.FORWARD else sizes.row_block
    sums_at = lines_at + (copied + 1) * lines_pitch
    turned_at = sums_at + rows * lanes
    dots_at = turned_at + (lanes + SPARE_ROWS) * rows
    dots_pitch = -(-sources // lanes) * lanes
    packed_at = padded(dots_at + _dots.MOST * dots_pitch, problem.dtype)
    block = _source_block(problem, op) if PACKS else 0
    packed_rows_at = packed_at + VECTORS * lanes * block
    elements = packed_rows_at + (padded(sizes.row_block * block, problem.dtype) if op is Op.GRAD_INPUT else 0)
    return _Memory(
        lines_at, lines_pitch, sums_at, turned_at, dots_at, dots_pitch, packed_at, packed_rows_at, elements
    )  # fmt: skip


def workspace(problem: ConvProblem, op: Op) -> int:
    """Scratch memory of a thread, in bytes."""
    return _memory(problem, op).elements * np.dtype(problem.dtype).itemsize


def plan(whole: ConvProblem, problem: ConvProblem, op: Op, epilogue: Epilogue) -> Plan:
    """The plan of a problem, as it was and with its axes made one."""
    sizes, memory, roles = sizes_of(problem, op), _memory(problem, op), role_fields(problem, op)
    lanes = lanes_of(problem.dtype)
    strided = _is_strided(problem)
    tables = Tables(Panels)
    c = np.arange(roles["sources"])
    vector = tables.vector(
        **{name: value for name, value in roles.items() if name in Panels._fields},
        pixels=math.prod(problem.output),
        gathers=strided and op is Op.FORWARD,
        spreads=strided and op is Op.GRAD_INPUT,
        row_block=sizes.row_block,
        pixel_block=sizes.pixel_block,
        source_block=_source_block(problem, op),
        pitch=lanes,
        **{name: value for name, value in vars(memory).items() if name != "elements"},
        activation=activation_code(epilogue, problem.dtype),
        has_residual=epilogue.residual,
        fetches=problem.bytes >= FAR_BYTES,
        by_dots=op is Op.FORWARD,
        rows_at=tables.add(roles["weight_target"] * np.arange(sizes.row_block)),
        taken_at=tables.add(roles["weight_source"] * c),
        offsets_at=tables.add((memory.lines_pitch if strided and op is Op.FORWARD else roles["source_c"]) * c),
        copied_at=tables.add(lanes * c),
        packed_offsets_at=tables.add(VECTORS * lanes * c),
        packed_row_table_at=tables.add(row_table(sizes.row_block, _source_block(problem, op))),
        packed_taken_at=tables.add(ROWS * c),
        pixels_at=tables.add(np.arange(lanes)),
        grid_at=tables.add(grid_of(problem)),
    )
    geometry = with_sizes(vector, problem, op, math.prod(problem.w_shape), memory.elements)
    return Plan(
        algorithm="direct",
        problem=whole,
        op=op,
        workspace_bytes=workspace(problem, op),
        run=Launch(_kernel(op, PACKS), sizes.tasks, problem.dtype, geometry, memory.elements),
        tiles={"pixels": sizes.pixel_block, "rows": sizes.row_block, "tasks": sizes.tasks},
    )
