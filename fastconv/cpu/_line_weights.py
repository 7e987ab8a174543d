"""The direct gradient of the weight for a single target channel in each group: depthwise filters, images.

A task gathers strips (`fastconv.cpu._strips`) of some groups. A vector of y meets the strip once for each of DOT_TERMS
taps, and every tap keeps a vector of sums in a register::

    sums[tap] += y[q] * strip[offset[tap] + q]       lane by lane, over the pixels of a tile

whose lanes are added up at the end of the tile.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from ..core.jit import Kernel, kernel, subroutine
from ..core.problem import ConvProblem, Op
from ._gemm import lanes_of, vector_steps
from ._geometry import even_split
from ._kernel import first_integers, views
from ._rows import ROW_CYCLES
from ._simd import add_first_products, add_products, lanes, load, load_first, totals_of, tuple_of, zeros
from ._strips import for_both_ways, gather_strips, header, tile_of
from ._tiles import (
    TASK_CYCLES,
    TASKS_LEAST,
    Tiling,
    axes,
    channels_of,
    gather_cycles,
    halo_of,
    line_tiles,
    parts_of,
    planes_of,
)

# Strips of a task: they stay in a second-level cache of 1 MiB beside what streams through it, and, where a plane is
# small, in the first level.
STRIP_BYTES = 128 << 10
SMALL_STRIP_BYTES = 16 << 10
# Sums in registers: they divide the taps of 3x3, 5x5 and 7x7 with little waste (9 of 9, 25 of 27, 49 of 54), and leave
# room in 16 registers.
DOT_TERMS = 9
# Cycles for each multiply-add, whose loads cross cache lines; fitted to the problems of bench/shapes/depthwise.txt.
DOT_CYCLES = 1.7
# Pixels of a part of a line.
LINE_PIXELS = 4096


@subroutine
def _correlate(plain, task, tensors):
    """One task: a run of groups and a run of tiles of all images.

    w: (runs, groups, C / groups, taps), to be added up over the runs; workspace: strips of a block of groups.
    """
    x, w, y, _, constants, workspace, geometry = tensors
    g = header(geometry)
    tiles = g.tiles_z * g.tiles_p * g.tiles_q
    entry = g.phases_at
    blocks = -(-g.groups // g.row_block)
    run, block = divmod(task, blocks)
    together = g.channel_block // g.sources
    terms = g.sources * geometry[entry]
    first_item = run * g.tiles_per_task
    start, end = block * g.row_block, min((block + 1) * g.row_block, g.groups)
    for begin in range(start, end, together):
        groups = min(together, end - begin)
        for item in range(first_item, min(first_item + g.tiles_per_task, g.images * tiles)):
            image, tile_number = divmod(item, tiles)
            tile = tile_of(g, tile_number)
            source_at = image * g.source_n + begin * g.sources * g.source_c
            gather_strips(
                plain, workspace, geometry, x, source_at, groups * g.sources, tile, constants,
                tiles > 1 or (begin == start and item == first_item),
            )  # fmt: skip
            for group in range(begin, begin + groups):
                strip = (group - begin) * g.sources * g.channel_pitch
                y_at = image * g.target_n + group * g.target_c
                _add_dots(
                    w, (run * g.groups + group) * terms, terms, y, y_at, workspace, strip,
                    g, geometry, geometry[entry + 1], tile, item == first_item,
                )  # fmt: skip


def _grad_weight(plain: bool | None) -> Kernel:
    @kernel
    def run(task, x, w, y, residual, constants, workspace, geometry):
        _correlate(plain, task, views(x, w, y, residual, constants, workspace, geometry))

    return run


KERNELS = for_both_ways(_grad_weight)


@subroutine
def _add_dots(w, w_at, terms, y, y_at, workspace, strip, g, geometry, offsets_at, tile, fresh):
    """w[j] = or += the sum over the pixels of a tile of y times the strip at the j-th offset."""
    step = lanes(workspace)
    zero = tuple_of(zeros(workspace, 1), DOT_TERMS)
    for j in range(0, terms, DOT_TERMS):
        offsets = first_integers(geometry[offsets_at + j :], DOT_TERMS)
        totals = zero
        for d in range(tile.depth):
            for h in range(tile.height):
                line = y_at + (tile.z + d) * g.target_d + (tile.p + h) * g.target_h + tile.q
                begin = strip + (d * g.strip_h + h) * g.strip_w
                q = 0
                while q + step <= tile.width:
                    totals = add_products(totals, load(y, line + q, 1), workspace, begin + q, offsets)
                    q += step
                if q < tile.width:
                    held = tile.width - q
                    seen = load_first(y, line + q, held, 1)
                    totals = add_first_products(totals, seen, workspace, begin + q, offsets, held)
        sums = totals_of(totals)
        for i in range(min(DOT_TERMS, terms - j)):
            w[w_at + j + i] = sums[i] if fresh else w[w_at + j + i] + sums[i]


# ---- sizes


@lru_cache(maxsize=1024)
def tiling(problem: ConvProblem) -> Tiling:
    """The sizes that take the least time in TASKS_LEAST tasks at once."""
    return min(tilings(problem), key=lambda each: each.time(TASKS_LEAST))


def tilings(problem: ConvProblem) -> Iterator[Tiling]:
    """Those whose strips fit."""
    op = Op.GRAD_WEIGHT
    sources, _ = channels_of(problem, op)
    halo, planes = halo_of(problem, op), planes_of(problem, op)
    size, lanes = np.dtype(problem.dtype).itemsize, lanes_of(problem.dtype)
    width = min(problem.output[2], -(-even_split(problem.output[2], LINE_PIXELS) // lanes) * lanes)
    line_bytes = sources * math.prod(planes) * (width + halo[2]) * size
    for tile in line_tiles(problem.output, halo, STRIP_BYTES // line_bytes, width):
        strip = axes(part + more for part, more in zip(tile, halo, strict=True))
        together = max(1, min(problem.groups, SMALL_STRIP_BYTES // (line_bytes * strip[0] * strip[1])))
        lines = tile[0] * tile[1] * (-(-tile[2] // lanes) * DOT_TERMS * DOT_CYCLES + ROW_CYCLES)
        one = sources * gather_cycles(problem, planes, strip, lanes)
        one += -(-sources * problem.taps // DOT_TERMS) * lines * vector_steps(problem)
        items = problem.N * math.prod(-(-extent // part) for extent, part in zip(problem.output, tile, strict=True))
        for groups in itertools.islice(parts_of(problem.groups, problem.groups), 24):
            blocks = -(-problem.groups // groups)
            per_task = max(1, -(-items // max(1, -(-TASKS_LEAST // blocks))))
            parts = -(-items // per_task)
            yield Tiling(
                problem.output, tile, strip, planes, together * sources, groups, False, math.prod(strip),
                blocks * parts, tiles_per_task=per_task, parts=parts,
                cycles=blocks * parts * TASK_CYCLES + problem.groups * items * one,
            )  # fmt: skip
