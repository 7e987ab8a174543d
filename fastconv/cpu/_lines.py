"""Direct kernels for a single target channel in each group: depthwise filters, and images of one channel.

There is nothing that several target channels could share, so registers hold lines of the target, up to eight, one below
the other, and the weights of a run of taps, one below the other, too. A line of the strip is loaded once for them all::

    line p += w[r] * strip[p + r]      for the lines p and the taps r of a run: P + R - 1 loads for P * R multiply-adds

GRAD_WEIGHT keeps a vector of sums for each of several taps while it walks along the lines of y.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import types
from numpy.typing import NDArray

from ..core.jit import kernel, subroutine
from ..core.machine import local_machine
from ..core.problem import Axes, ConvProblem, Op
from ._axes import folding
from ._gemm import lanes_of, vector_steps
from ._geometry import even_split
from ._kernel import always_inlined, first_integers, never_inlined, number, views
from ._rows import ROW_CYCLES, Finish, changes, finish_runs
from ._simd import (
    add_first_products,
    add_lines,
    add_products,
    cleared,
    lanes,
    lanes_of_value,
    load,
    load_first,
    store_first_of_lines,
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
# Cycles for each multiply-add of a vector in lines, for each run and for each segment, fitted to the problems of
# bench/shapes/depthwise.txt in tiles of several sizes; and for each multiply-add in a sum of GRAD_WEIGHT: its loads
# cross cache lines.
LINE_CYCLES = 1.0
RUN_CYCLES = 7
SEGMENT_CYCLES = 60
DOT_CYCLES = 1.7
# Cycles that a task takes to begin: an estimate, of its header, its place and the first fetches.
TASK_CYCLES = 700
# Pixels of a part of a line; fewer where many lines are read and written at once, whose distance is often near 4096
# bytes, so that they fall on the same places of the first-level cache: 1024x1024 with 31x31 took 73 ms, and 18 ms so.
LINE_PIXELS = 4096
TALL_PIXELS = 256
# Lines that are computed at once: their sums, the weights of the longest run and a line that is loaded take 16
# registers. Seven divide the planes of many networks, of 7, 14, 28, 56 or 112 lines. One or two lines at once take WIDE
# vectors each.
MANY_LINES, SEVEN_LINES, FEW_LINES = 8, 7, 4
WIDE = 4
# Lengths of runs of taps, one below the other; from TALL on a filter is tall.
RUNS = (7, 5, 3, 2, 1)
TALL = 5
# Integers of an entry of a table of runs: an offset, a weight, and the distance of the next weight.
RUN = 3


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
                            _compute(Plane(
                                target, at + d * g.target_d, g.target_h, tile.height, tile.width,
                                workspace, strip + d * g.strip_h * g.strip_w, g.strip_w,
                                weights, group * g.weight_group, geometry, geometry[entry + 1],
                            ))  # fmt: skip
                            if changes(finish, group, 1):
                                finish_runs(
                                    target, at + d * g.target_d, g.target_h, tile.height, tile.width, group, 0, finish
                                )  # fmt: skip
                    else:
                        for part in range(g.together):
                            sums, runs_at = g.sums_at + part * g.phase_pitch, geometry[entry + part * PHASE + 1]
                            for d in range(tile.depth):
                                _compute(Plane(
                                    workspace, sums + d * g.plane_pitch, g.line_pitch, tile.height, tile.width,
                                    workspace, strip + d * g.strip_h * g.strip_w, g.strip_w,
                                    weights, group * g.weight_group, geometry, runs_at,
                                ))  # fmt: skip
                        store_tile(
                            target, image_at, workspace, g.sums_at, group, 1, geometry, tile, entry, finish
                        )  # fmt: skip


class Plane(NamedTuple):
    """target[p, q] = sum over the runs, and r < the length of each, of weights[first + r * step] * strip[place + r, q].

    The runs are integers in `table`, from runs_at on, as `runs` puts them there.
    """

    target: types.Array
    target_at: int
    pitch: int  # from one line of the target to the next
    height: int
    width: int
    strips: types.Array
    strip_at: int
    line: int  # from one line of the strip to the next
    weights: types.Array
    weights_at: int
    table: types.Array
    runs_at: int


@subroutine
def _compute(plane):
    """All sums of a `Plane`."""
    is_tall = number(plane.table, plane.runs_at) + number(plane.table, plane.runs_at + 1) > 0
    at_once = lines_at_once(plane.height, -(-plane.width // lanes(plane.strips)), is_tall)
    if at_once == MANY_LINES:
        _compute_lines(plane, tuple_of(zeros(plane.strips, 1), MANY_LINES))
    elif at_once == SEVEN_LINES:
        _compute_lines(plane, tuple_of(zeros(plane.strips, 1), SEVEN_LINES))
    elif at_once == FEW_LINES:
        _compute_lines(plane, tuple_of(zeros(plane.strips, 1), FEW_LINES))
    elif at_once == 2:
        _compute_lines(plane, tuple_of(zeros(plane.strips, WIDE), 2))
    else:
        _compute_lines(plane, tuple_of(zeros(plane.strips, WIDE), 1))


@subroutine
def lines_at_once(height, vectors, is_tall):
    """Lines that are computed at once, of a plane of this height and so many vectors.

    For a filter that is not tall what matters is the memory, which prefers few lines with long segments: pairs.
    """
    if height < FEW_LINES or not (is_tall or vectors <= WIDE // 2):
        return min(height, 2)
    if height < SEVEN_LINES:
        return FEW_LINES
    blocks = -(-height // MANY_LINES)
    return SEVEN_LINES if blocks * SEVEN_LINES >= height else MANY_LINES


@subroutine
def _compute_lines(plane, sums):
    """`_compute`, as many lines at once as the tuple has sums, whose type says how wide.

    The last lines are computed with those before them once more, rather than in fewer at once.
    """
    never_inlined()
    step = lanes_of_value(sums[0])
    for h in range(0, plane.height, len(sums)):
        p = min(h, plane.height - len(sums))
        for q in range(0, plane.width, step):
            _compute_segments(plane, sums, p, q, min(step, plane.width - q))


@subroutine
def _compute_segments(plane, sums, p, q, count):
    """`count` pixels of as many lines as there are sums, from (p, q) on. The lengths are those of RUNS, as literals."""
    always_inlined()
    sums = cleared(sums)
    begin = plane.strip_at + p * plane.line + q
    counts_at, entry = plane.runs_at, plane.runs_at + len(RUNS)
    sums, entry = _add_runs(plane, sums, 7, begin, counts_at, entry)
    sums, entry = _add_runs(plane, sums, 5, begin, counts_at + 1, entry)
    sums, entry = _add_runs(plane, sums, 3, begin, counts_at + 2, entry)
    sums, entry = _add_runs(plane, sums, 2, begin, counts_at + 3, entry)
    sums, entry = _add_runs(plane, sums, 1, begin, counts_at + 4, entry)
    store_first_of_lines(plane.target, plane.target_at + p * plane.pitch + q, plane.pitch, count, sums)


@subroutine
def _add_runs(plane, sums, length, begin, count_at, entry):
    """The sums plus the products of the runs of one length, a literal, from `entry` on; and the entry behind them."""
    always_inlined()
    for _ in range(number(plane.table, count_at)):
        sums = add_lines(
            sums, length, plane.strips, begin + number(plane.table, entry), plane.line,
            plane.weights, plane.weights_at + number(plane.table, entry + 1), number(plane.table, entry + 2),
        )  # fmt: skip
        entry += RUN
    return sums, entry


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


def runs(offsets: NDArray[np.int64], taken: NDArray[np.int64], line: int) -> NDArray[np.int64]:
    """The table of a `Plane`: how many runs there are of each length, then their offsets, weights and steps.

    offsets: what the first line reads, for each of its weights. A run are taps one below the other, `line` elements
    apart, whose weights are equally far from each other.
    """
    weights = dict(zip(offsets.tolist(), taken.tolist(), strict=True))
    found: dict[int, list[tuple[int, int, int]]] = {length: [] for length in RUNS}
    while weights:
        place = min(weights)
        weight = weights[place]
        step = weights.get(place + line, weight) - weight
        count = 0
        while weights.get(place + count * line) == weight + count * step:
            del weights[place + count * line]
            count += 1
        for length in split(count):
            found[length].append((place, weight, step))
            place, weight = place + length * line, weight + length * step
    entries = itertools.chain.from_iterable(found[length] for length in RUNS)
    return np.array([*(len(found[length]) for length in RUNS), *itertools.chain.from_iterable(entries)], np.int64)


def run_lengths(problem: ConvProblem) -> list[int]:
    """Of one channel's taps in a column of the filter, by stride phase."""
    _, height, _ = problem.filter
    stride, dilation = problem.stride[1], problem.dilation[1]
    if dilation // math.gcd(dilation, stride) > 1:
        return [1] * height
    return list(Counter(tap * dilation % stride for tap in range(height)).values())


def split(count: int) -> Iterator[int]:
    """The lengths of the runs that taps one below the other are cut into."""
    while count:
        length = next(each for each in RUNS if each <= count)
        yield length
        count -= length


@lru_cache(maxsize=1024)
def tiling(problem: ConvProblem, op: Op) -> Tiling:
    """The sizes that take the least time on this machine's number of threads."""
    threads = TASKS_LEAST if op is Op.GRAD_WEIGHT else local_machine().threads
    return min(_tilings(problem, op), key=lambda each: each.time(threads))


def _tilings(problem: ConvProblem, op: Op) -> Iterator[Tiling]:
    sources, _ = channels_of(problem, op)
    positions, halo, planes = positions_of(problem, op), halo_of(problem, op), planes_of(problem, op)
    size, lanes = np.dtype(problem.dtype).itemsize, lanes_of(problem.dtype)
    whole = op is Op.GRAD_INPUT and folding(problem)
    width = _part_of_line(problem, op, positions[2], lanes)
    line_bytes = sources * math.prod(planes) * (width + halo[2]) * size
    for tile in _tile_choices(positions, halo, STRIP_BYTES // line_bytes, width):
        strip = axes(part + more for part, more in zip(tile, halo, strict=True))
        bytes = sources * math.prod(planes) * math.prod(strip) * size
        together = max(1, min(problem.groups, SMALL_STRIP_BYTES // bytes))
        one = sources * gather_cycles(problem, op, strip, lanes) + _product_cycles(problem, op, tile, lanes)
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


def _part_of_line(problem: ConvProblem, op: Op, width: int, lanes: int) -> int:
    """Pixels of the equal parts, of whole vectors, that lines are cut into."""
    most = TALL_PIXELS if op is not Op.GRAD_WEIGHT and max(run_lengths(problem)) >= TALL else LINE_PIXELS
    return min(width, -(-even_split(width, most) // lanes) * lanes)


def _product_cycles(problem: ConvProblem, op: Op, tile: Axes, lanes: int) -> float:
    """Of one tile of one target channel, its gathering aside."""
    sources, _ = channels_of(problem, op)
    vectors = -(-tile[2] // lanes)
    if op is Op.GRAD_WEIGHT:
        lines = tile[0] * tile[1] * (vectors * DOT_TERMS * DOT_CYCLES + ROW_CYCLES)
        return -(-sources * problem.taps // DOT_TERMS) * lines * vector_steps(problem)
    lengths = run_lengths(problem)
    at_once: int = lines_at_once.py_func(tile[1], vectors, max(lengths) >= TALL)
    wide = 1 if at_once > 2 else WIDE
    segments = tile[0] * -(-tile[1] // at_once) * -(-vectors // wide)
    runs = problem.taps // problem.filter[1] * sum(len(list(split(length))) for length in lengths)
    products = problem.taps * at_once * wide * LINE_CYCLES * vector_steps(problem)
    phases = math.prod(problem.stride) if op is Op.GRAD_INPUT else 1
    return segments * (sources * (products + runs * RUN_CYCLES) + phases * SEGMENT_CYCLES)


def _tile_choices(positions: Axes, halo: Axes, lines: int, part: int) -> Iterator[Axes]:
    """Parts of lines, or whole lines, or whole planes, of strips of at most this many lines."""
    depth, height, width = positions
    most = lines // (1 + halo[0]) - halo[1]
    if most > 0:
        yield from ((1, part_of, part) for part_of in itertools.islice(parts_of(height, most), 24))
        if most >= height and part == width:
            planes = lines // (height + halo[1]) - halo[0]
            yield from ((part_of, height, width) for part_of in itertools.islice(parts_of(depth, planes), 8))
