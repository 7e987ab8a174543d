"""Direct kernels for a single target channel in each group: depthwise filters, and images of one channel.

There is nothing that several target channels could share, so registers hold lines of the target: two lines, one below
the other, use most elements of the strip together, and a loaded vector serves both::

    line p     += w[a] * strip[offset + q]
    line p + 1 += w[b] * strip[offset + q]      for every (offset, a, b), a or b missing at the upper and lower edge

GRAD_WEIGHT keeps a vector of sums for each of several taps while it walks along the lines of y.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..core.jit import kernel, subroutine
from ..core.machine import local_machine
from ..core.problem import Axes, ConvProblem, Op
from ._axes import folding
from ._gemm import ROWS, lanes_of, vector_steps
from ._kernel import first_integers, number, views
from ._rows import ROW_CYCLES, Finish, changes, finish_runs
from ._simd import (
    add_first_products,
    add_products,
    fma,
    lanes,
    load,
    load_first,
    splat,
    store_first,
    totals_of,
    tuple_of,
    zeros,
)
from ._strips import PHASE, gather_strips, header, store_tile, tile_of
from ._tiles import TASKS_LEAST, Tiling, axes, channels_of, gather_cycles, halo_of, parts_of, planes_of, positions_of

# Strips of a task: they stay in a second-level cache of 1 MiB beside what streams through it, and, where a plane is
# small, in the first level.
STRIP_BYTES = 128 << 10
SMALL_STRIP_BYTES = 16 << 10
# Sums of GRAD_WEIGHT in registers: they divide the taps of 3x3, 5x5 and 7x7 with little waste (9 of 9, 25 of 27, 49 of
# 54), and leave room in 16 registers.
DOT_TERMS = 9
# Cycles for each multiply-add of a vector in a pair of lines, and in a sum of GRAD_WEIGHT: loads cross cache lines.
PAIR_CYCLES = 1.2
DOT_CYCLES = 1.7
# Cycles that a task takes to begin: an estimate, of its header, its place and the first fetches.
TASK_CYCLES = 700
# Pixels of a part of a line.
LINE_PIXELS = 4096
# Vectors of a line that are computed together: four sums of each, and what is loaded, fit the registers.
WIDE = ROWS // 2
# Integers of an entry of a table of pairs: an offset, and a weight for each line.
PAIR = 3


def serves(problem: ConvProblem, op: Op) -> bool:
    """Whether the kernels here compute a problem: one target channel, and strips of all its sources fit."""
    _, targets = channels_of(problem, op)
    return targets == 1 and problem.layout == "channels_first" and next(_tilings(problem, op), None) is not None


# ---- kernels


@kernel
def forward(task, x, w, y, residual, constants, workspace, geometry):
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    _correlate(task, x, w, y, residual, constants, workspace, geometry)


@kernel
def grad_input(task, x, w, y, residual, constants, workspace, geometry):
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    _correlate(task, y, w, x, residual, constants, workspace, geometry)


@subroutine
def _correlate(task, source, weights, target, residual, constants, workspace, geometry):
    """One task: a run of groups and a run of tiles of one image; workspace: strips of a block of groups, then sums."""
    g = header(geometry)
    tiles = g.tiles_z * g.tiles_p * g.tiles_q
    runs = -(-tiles // g.tiles_per_task)
    blocks = -(-g.groups // g.row_block)
    image, rest = divmod(task, blocks * runs)
    block, run = divmod(rest, runs)
    finish = Finish(constants, residual, g.has_residual, g.activation, g.accumulates)
    together = g.channel_block // g.sources
    start, end = block * g.row_block, min((block + 1) * g.row_block, g.groups)
    for tile_number in range(run * g.tiles_per_task, min((run + 1) * g.tiles_per_task, tiles)):
        tile = tile_of(g, tile_number)
        for begin in range(start, end, together):
            groups = min(together, end - begin)
            source_at = image * g.source_n + begin * g.sources * g.source_c
            gather_strips(workspace, geometry, source, source_at, groups * g.sources, tile, constants, begin == start)
            for group in range(begin, begin + groups):
                strip = (group - begin) * g.sources * g.channel_pitch
                for phase in range(0, g.phases, g.together):
                    entry = g.phases_at + phase * PHASE
                    image_at = image * g.target_n
                    if g.joined:
                        at = image_at + group * g.target_c + tile.z * g.target_d + tile.p * g.target_h + tile.q
                        for d in range(tile.depth):
                            _tile_of_lines(
                                target, at + d * g.target_d, g.target_h, tile.height, tile.width,
                                workspace, strip + d * g.strip_h * g.strip_w, g.strip_w,
                                weights, group * g.weight_group, geometry, geometry[entry + 1],
                            )  # fmt: skip
                            if changes(finish, group, 1):
                                finish_runs(
                                    target, at + d * g.target_d, g.target_h, tile.height, tile.width, group, 0, finish
                                )  # fmt: skip
                    else:
                        for part in range(g.together):
                            sums, pairs = g.sums_at + part * g.phase_pitch, geometry[entry + part * PHASE + 1]
                            for d in range(tile.depth):
                                _tile_of_lines(
                                    workspace, sums + d * g.plane_pitch, g.line_pitch, tile.height, tile.width,
                                    workspace, strip + d * g.strip_h * g.strip_w, g.strip_w,
                                    weights, group * g.weight_group, geometry, pairs,
                                )  # fmt: skip
                        store_tile(
                            target, image_at, workspace, g.sums_at, group, 1, geometry, tile, entry, finish
                        )  # fmt: skip


@subroutine
def _tile_of_lines(
    target, target_at, line, height, width, workspace, strip, strip_line, weights, weights_at, geometry, pairs
):  # fmt: skip
    """The sums of the lines of a plane, by twos; target: (height, width), `line` elements apart."""
    step = lanes(workspace)
    for h in range(0, height, 2):
        at, begin = target_at + h * line, strip + h * strip_line
        below = at + line if h + 1 < height else -1
        q = 0
        while q < width:
            held = width - q
            if held > WIDE // 2 * step:
                _pair_of_segments(
                    zeros(workspace, WIDE), target, at + q, below + q, below, min(held, WIDE * step),
                    workspace, begin + q, weights, weights_at, geometry, pairs,
                )  # fmt: skip
                q += WIDE * step
            else:
                _pair_of_segments(
                    zeros(workspace, 1), target, at + q, below + q, below, min(held, step),
                    workspace, begin + q, weights, weights_at, geometry, pairs,
                )  # fmt: skip
                q += step


@subroutine
def _pair_of_segments(
    zero, target, at, below_at, below, count, workspace, begin, weights, weights_at, geometry, pairs
):  # fmt: skip
    """Sums of `count` pixels of two lines; the second is not stored where `below` is negative."""
    only_upper, both, only_lower = number(geometry, pairs), number(geometry, pairs + 1), number(geometry, pairs + 2)
    upper, lower = zero, zero
    # Every other entry has sums of its own: multiply-adds to the same sum wait for each other.
    second_upper, second_lower = zero, zero
    entry = pairs + 3
    for _ in range(only_upper):
        upper = fma(
            _weight(weights, weights_at, geometry, entry + 1, zero),
            _pixels(workspace, begin, geometry, entry, zero),
            upper,
        )
        entry += PAIR
    for _ in range(both // 2):
        loaded = _pixels(workspace, begin, geometry, entry, zero)
        upper = fma(_weight(weights, weights_at, geometry, entry + 1, zero), loaded, upper)
        lower = fma(_weight(weights, weights_at, geometry, entry + 2, zero), loaded, lower)
        entry += PAIR
        loaded = _pixels(workspace, begin, geometry, entry, zero)
        second_upper = fma(_weight(weights, weights_at, geometry, entry + 1, zero), loaded, second_upper)
        second_lower = fma(_weight(weights, weights_at, geometry, entry + 2, zero), loaded, second_lower)
        entry += PAIR
    if both % 2:
        loaded = _pixels(workspace, begin, geometry, entry, zero)
        upper = fma(_weight(weights, weights_at, geometry, entry + 1, zero), loaded, upper)
        lower = fma(_weight(weights, weights_at, geometry, entry + 2, zero), loaded, lower)
        entry += PAIR
    if below >= 0:
        for _ in range(only_lower):
            lower = fma(
                _weight(weights, weights_at, geometry, entry + 2, zero),
                _pixels(workspace, begin, geometry, entry, zero),
                lower,
            )
            entry += PAIR
        store_first(target, below_at, count, lower + second_lower)
    store_first(target, at, count, upper + second_upper)


@subroutine
def _weight(weights, weights_at, geometry, entry, zero):
    """One weight in all lanes."""
    return splat(weights, weights_at + number(geometry, entry), zero)


@subroutine
def _pixels(workspace, begin, geometry, entry, zero):
    """The pixels of a segment that an entry reads."""
    return load(workspace, begin + number(geometry, entry), zero)


@kernel
def grad_weight(task, x, w, y, residual, constants, workspace, geometry):
    """One task: a run of groups and a run of tiles of all images.

    w: (runs, groups, C / groups, taps), to be added up over the runs; workspace: strips of a block of groups.
    """
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
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
                workspace,
                geometry,
                x,
                source_at,
                groups * g.sources,
                tile,
                constants,
                tiles > 1 or (begin == start and item == first_item),
            )
            for group in range(begin, begin + groups):
                strip = (group - begin) * g.sources * g.channel_pitch
                y_at = image * g.target_n + group * g.target_c
                _add_dots(
                    w, (run * g.groups + group) * terms, terms, y, y_at, workspace, strip,
                    g, geometry, geometry[entry + 1], tile, item == first_item,
                )  # fmt: skip


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


KERNELS = {Op.FORWARD: forward, Op.GRAD_INPUT: grad_input, Op.GRAD_WEIGHT: grad_weight}


# ---- sizes


def pairs(offsets: NDArray[np.int64], taken: NDArray[np.int64], line: int) -> NDArray[np.int64]:
    """The table of `_pair_of_segments`: three counts, then an offset and the weights of both lines for each entry.

    offsets: what the upper line reads, for each of its weights; the lower one reads the same, `line` elements behind.
    """
    upper = dict(zip(offsets.tolist(), taken.tolist(), strict=True))
    lower = {place + line: weight for place, weight in upper.items()}
    kinds = (upper.keys() - lower.keys(), upper.keys() & lower.keys(), lower.keys() - upper.keys())
    entries = [(place, upper.get(place, 0), lower.get(place, 0)) for kind in kinds for place in sorted(kind)]
    return np.array([*map(len, kinds), *itertools.chain.from_iterable(entries)], np.int64)


@lru_cache(maxsize=1024)
def tiling(problem: ConvProblem, op: Op) -> Tiling:
    """The sizes that take the least time on this machine's number of threads."""
    threads = TASKS_LEAST if op is Op.GRAD_WEIGHT else local_machine().threads
    return min(_tilings(problem, op), key=lambda each: each.time(threads))


def _tilings(problem: ConvProblem, op: Op) -> Iterator[Tiling]:
    sources, _ = channels_of(problem, op)
    positions, halo, planes = positions_of(problem, op), halo_of(problem, op), planes_of(problem, op)
    size, lanes = np.dtype(problem.dtype).itemsize, lanes_of(problem.dtype)
    phases = math.prod(problem.stride) if op is Op.GRAD_INPUT else 1
    whole = op is Op.GRAD_INPUT and folding(problem)
    line_bytes = sources * math.prod(planes) * (min(positions[2], LINE_PIXELS) + halo[2]) * size
    for tile in _tile_choices(positions, halo, STRIP_BYTES // line_bytes, lanes):
        strip = axes(part + more for part, more in zip(tile, halo, strict=True))
        bytes = sources * math.prod(planes) * math.prod(strip) * size
        together = max(1, min(problem.groups, SMALL_STRIP_BYTES // bytes))
        lines, vectors = tile[0] * tile[1], -(-tile[2] // lanes)
        if op is Op.GRAD_WEIGHT:
            product = -(-sources * problem.taps // DOT_TERMS) * lines * (vectors * DOT_TERMS * DOT_CYCLES + ROW_CYCLES)
        else:
            pairs = phases * tile[0] * -(-tile[1] // 2)
            product = pairs * (2 * vectors * sources * problem.taps / phases * PAIR_CYCLES + 2 * ROW_CYCLES * vectors)
        one = sources * gather_cycles(problem, op, strip, lanes) + product * vector_steps(problem)
        tiles = math.prod(-(-extent // part) for extent, part in zip(positions, tile, strict=True))
        items = tiles * problem.N
        for groups in itertools.islice(parts_of(problem.groups, problem.groups), 24):
            blocks = -(-problem.groups // groups)
            per_task = tiles if whole else 1
            parts = 1
            if op is Op.GRAD_WEIGHT:
                per_task = max(1, -(-items // max(1, -(-TASKS_LEAST // blocks))))
                parts = -(-items // per_task)
            tasks = blocks * (parts if op is Op.GRAD_WEIGHT else problem.N * -(-tiles // per_task))
            yield Tiling(
                positions, tile, strip, planes, together * sources, groups, False, math.prod(strip), tasks,
                tiles_per_task=per_task, parts=parts,
                cycles=tasks * TASK_CYCLES + problem.groups * items * one,
            )  # fmt: skip


def _tile_choices(positions: Axes, halo: Axes, lines: int, lanes: int) -> Iterator[Axes]:
    """Parts of lines, or whole lines, or whole planes, of strips of at most this many lines."""
    depth, height, width = positions
    most = lines // (1 + halo[0]) - halo[1]
    if most > 0:
        part = width if width <= LINE_PIXELS else LINE_PIXELS // (WIDE * lanes) * WIDE * lanes
        yield from ((1, part_of, part) for part_of in itertools.islice(parts_of(height, most), 24))
        if most >= height and part == width:
            planes = lines // (height + halo[1]) - halo[0]
            yield from ((part_of, height, width) for part_of in itertools.islice(parts_of(depth, planes), 8))
