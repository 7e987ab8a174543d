"""Direct kernels for a single target channel in each group: depthwise filters, and images of one channel.

There is nothing that several target channels could share, so registers hold lines of the target, up to sixteen, one
below the other, and the weights of a run of taps, one below the other, too. A line of the source is loaded once for
them all::

    line p += w[r] * source[p + r]     for the lines p and the taps r of a run: P + R - 1 loads for P * R multiply-adds

The source is read where it lies, with masks at its sides; lines above and below it are left out, with their products.
Only where something else than zeros is around it, or its elements are far apart, it is copied into a strip first; and
where a weight is NaN or infinite, whose products with zeros count. GRAD_WEIGHT stands in `fastconv.cpu._line_weights`.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
from numba import types, uint64
from numpy.typing import NDArray

from ..core.jit import Kernel, kernel, subroutine
from ..core.machine import local_machine
from ..core.problem import Axes, ConvProblem, Op
from ._axes import Axis, Tap, folding
from ._gemm import lanes_of, vector_steps
from ._geometry import even_split
from ._kernel import always_inlined, inner, never_inlined, number, place, plane_at, views
from ._line_vectors import (
    RUNS,
    Runs,
    add_lines,
    cleared,
    halved,
    interleave_lines,
    store_first_of_lines,
    store_lines_past_caches,
)
from ._past_caches import caches_passed, goes_past_caches
from ._phases import Phase
from ._rows import Finish, changes, fill, finish_runs, gather_row, store_row
from ._simd import REGISTER_BYTES, REGISTERS, lanes, lanes_of_value, prefetch, tuple_of, zeros
from ._strips import PHASE, header, tile_of
from ._tiles import (
    Tiling,
    axes,
    channels_of,
    gather_cycles,
    halo_of,
    line_tiles,
    parts_of,
    planes_of,
    positions_of,
    together,
)

# Strips of a task: they stay in a second-level cache of 1 MiB beside what streams through it.
STRIP_BYTES = 128 << 10
# Cycles for each multiply-add of a vector in lines, for each run and for each segment, fitted to the problems of
# bench/shapes/depthwise.txt in tiles of several sizes.
LINE_CYCLES = 1.0
RUN_CYCLES = 7
SEGMENT_CYCLES = 60
# Cycles that a task takes beside its planes: 512x14x14 and 512x7x7 with 5x5 took 3.4 us longer in 24 tasks than in 2.
TASK_CYCLES = 570
# Pixels of a part of a line; fewer where many lines are read and written at once, whose distance is often near 4096
# bytes, so that they fall on the same places of the first-level cache: 1024x1024 with 31x31 took 73 ms, and 18 ms so.
LINE_PIXELS = 4096
TALL_PIXELS = 256
# Lines that are computed at once: their sums, the weights of the longest run and a line that is loaded take 16
# registers or, where there are 32, 22. Seven divide the planes of many networks, of 7, 14, 28, 56 or 112 lines. Where
# sixteen waste fewer they take their place: 96x64x64 with 7x7 took 0.25 ms in fourteen, and 0.23 ms so. Two lines at
# once take WIDE vectors each. A kernel has one of these numbers: the first call with 7x7 took 5.6 s with code for four,
# and takes 4.0 s. With a stride of two, FEW_LINES: 8x64x112x112 with 3x3 took 1.3 ms, and
# 2.4 ms with seven, whose lines come from too many places at once.
MOST_LINES, SEVEN_LINES, FEW_LINES = 14 if REGISTERS == 32 else 7, 7, 4
SIXTEEN_LINES = 16
WIDE = 4
# Taps one below the other from which on a filter is tall.
TALL = 5
# Integers of an entry of a table of runs (`run_tables`).
RUN = 10
# Lines that lie a multiple of this apart share eight places of a first-level cache.
PAGE_BYTES = 4096
# Elements from what is read to what is fetched meanwhile, as planes follow each other: 8x64x112x112 with 3x3 and a
# stride of two took 1.9 ms without.
AHEAD = 4096
# Beyond every position.
FAR = 1 << 40


def reads_source(problem: ConvProblem, op: Op) -> bool:
    """Whether the source is read where it lies: its elements are at most two apart, and nothing but zeros is around.

    Not where its lines all begin at the same place of a page, and more of them are read at once than fit there.
    """
    source = problem.output if op is Op.GRAD_INPUT else problem.input
    if source[2] * np.dtype(problem.dtype).itemsize % PAGE_BYTES == 0 and _is_tall(problem):
        return False
    return op is Op.GRAD_INPUT or (problem.stride[2] <= 2 and problem.pad_value == 0 and not folding(problem))


# ---- kernels


class Form(NamedTuple):
    """What is compiled into a kernel; for all forms it would take ten seconds."""

    lengths: Runs  # of taps, one below the other
    lines: int  # that are computed at once, each `vectors` wide
    vectors: int = 1
    strided: bool | None = None  # True, or None: whether elements of the source may be two apart
    turns: bool | None = None  # whether phases of the target take turns in its lines
    scattered: bool | None = None  # whether elements of the target are no neighbours, or are added to
    halves: bool | None = None  # whether ends of lines may be computed in half a vector


@cache
def _kernel(op: Op, form: Form) -> Kernel:
    (seven, five, three, two, one), lines, vectors, strided, turns, scattered, halves = form
    exchanges = op is Op.GRAD_INPUT

    @kernel
    def correlate(task, x, w, y, residual, constants, workspace, geometry):
        x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
        source, target = (y, x) if exchanges else (x, y)
        sums, lengths = tuple_of(zeros(w, vectors), lines), Runs(seven, five, three, two, one)
        _correlate(
            sums, lengths, strided, turns, scattered, halves,
            task, source, w, target, residual, constants, workspace, geometry,
        )  # fmt: skip

    return correlate


@subroutine
def _correlate(
    sums, lengths, strided, turns, scattered, halves,
    task, source, weights, target, residual, constants, workspace, geometry,
):  # fmt: skip
    """One task: a run of groups and a run of tiles of one image; workspace: the strips of a group, then sums.

    sums: a tuple, whose type says how many lines are computed at once, and how wide; all else before `task`: as in
    `Form`.
    """
    g = header(geometry)
    tiles = g.tiles_z * g.tiles_p * g.tiles_q
    runs = -(-tiles // g.tiles_per_task)
    blocks = -(-g.groups // g.row_block)
    image, rest = divmod(task, blocks * runs)
    block, run = divmod(rest, runs)
    finish = Finish(constants, residual, g.has_residual, g.activation, g.accumulates)
    begin, end = block * g.row_block, min((block + 1) * g.row_block, g.groups)
    in_source = g.in_source != 0 and _are_finite(weights, begin * g.weight_group, (end - begin) * g.weight_group)
    at_once = end - begin if in_source and tiles == 1 else 1  # else tiles follow each other, in memory, too
    for group in range(begin, end, at_once):
        for tile_number in range(run * g.tiles_per_task, min((run + 1) * g.tiles_per_task, tiles)):
            tile = tile_of(g, tile_number)
            source_at = image * g.source_n + group * g.sources * g.source_c
            if in_source:
                lines = _in_source(g, geometry, source, source_at)
            else:
                _gather(workspace, geometry, source, source_at, tile, constants)
                lines = _in_strip(g, workspace, tile)
            for phase in range(0, g.phases, g.together):
                entry, table = g.phases_at + phase * PHASE, 1 if in_source else 2
                if scattered is None:
                    _store_joined(
                        sums, lengths, strided, turns, halves, target, image * g.target_n, group, at_once, lines,
                        table, weights, geometry, tile, entry, finish,
                    )  # fmt: skip
                else:
                    _scatter(
                        sums, lengths, target, image * g.target_n, group, at_once, lines, table, weights, workspace,
                        geometry, tile, entry, finish,
                    )  # fmt: skip


class Source(NamedTuple):
    """Where the source of groups lies: position (z, p, q) at place + group * step + z * depth + p * line + q * jump."""

    array: types.Array
    place: int
    step: int
    depth: int
    line: int
    jump: int


@subroutine
def _in_source(g, geometry, source, source_at):
    """The tensor itself, around which there is nothing but zeros."""
    steps = (geometry[g.source_axis_d + 1], geometry[g.source_axis_h + 1], geometry[g.source_axis_w + 1])
    return Source(source, source_at, g.sources * g.source_c, steps[0] * g.source_d, steps[1] * g.source_h, steps[2])


@subroutine
def _in_strip(g, workspace, tile):
    plane = g.strip_h * g.strip_w
    return Source(workspace, -(tile.z * plane + tile.p * g.strip_w + tile.q), 0, plane, g.strip_w, 1)


@subroutine
def _are_finite(weights, at, count):
    """Whether none is NaN or infinite: their products with the zeros around a tensor need not be computed then."""
    total = weights[at] - weights[at]
    for i in range(uint64(1), uint64(count)):
        total += weights[uint64(at) + i] - weights[uint64(at) + i]
    return total == 0


@subroutine
def _gather(workspace, geometry, source, source_at, tile, constants):
    """workspace[c, plane, d, h, w] = the padded source around a tile, for the channels c of a group."""
    never_inlined()
    g = header(geometry)
    outside = constants[constants.size - 1]
    step = geometry[g.source_axis_w + 1]
    at = 0
    for channel in range(g.sources):
        for plane in range(g.planes_d * g.planes_h * g.planes_w):
            slot_d, rest = divmod(plane, g.planes_h * g.planes_w)
            slot_h, slot_w = divmod(rest, g.planes_w)
            plane_d = plane_at(geometry, g.source_axis_d, slot_d)
            plane_h = plane_at(geometry, g.source_axis_h, slot_h)
            plane_w = plane_at(geometry, g.source_axis_w, slot_w)
            for line in range(g.strip_d * g.strip_h):
                d, h = divmod(line, g.strip_h)
                if d < tile.depth + g.strip_d - g.tile_z and h < tile.height + g.strip_h - g.tile_p:
                    in_d, in_h = place(geometry, plane_d, tile.z + d), place(geometry, plane_h, tile.p + h)
                    width = tile.width + g.strip_w - g.tile_q
                    if in_d < 0 or in_h < 0:
                        fill(workspace, at, width, outside)
                    else:
                        begin = source_at + channel * g.source_c + in_d * g.source_d + in_h * g.source_h
                        gather_row(
                            workspace, at, width, source, begin, 1, outside, geometry, plane_w, step, tile.q
                        )  # fmt: skip
                at += g.strip_w


@subroutine
def _store_joined(
    sums, lengths, strided, turns, halves, target, image_at, group, groups, source, table, weights,
    geometry, tile, entry, finish,
):  # fmt: skip
    """A tile of one phase of the target, or of two that take turns in its lines, for some groups: added up in place."""
    g = header(geometry)
    plane_d = plane_at(geometry, g.target_axis_d, geometry[entry + 3])
    plane_h = plane_at(geometry, g.target_axis_h, geometry[entry + 4])
    plane_w = plane_at(geometry, g.target_axis_w, geometry[entry + 5])
    height = inner(geometry, plane_h, tile.p, tile.height)[1]
    width = inner(geometry, plane_w, tile.q, tile.width)[1]
    other_runs_at = -1
    if g.together == 2:
        other_runs_at = geometry[entry + PHASE + table]
        other_w = plane_at(geometry, g.target_axis_w, geometry[entry + PHASE + 5])
        width += inner(geometry, other_w, tile.q, tile.width)[1]
    pitch = geometry[g.target_axis_h + 1] * g.target_h
    for d in range(tile.depth):
        in_d = place(geometry, plane_d, tile.z + d)
        if in_d < 0 or height == 0:
            continue
        at = image_at + group * g.target_c + in_d * g.target_d
        at += place(geometry, plane_h, tile.p) * g.target_h + place(geometry, plane_w, tile.q)
        past_caches = goes_past_caches(target, at, pitch) and g.target_c % lanes(target) == 0
        past_caches = past_caches and not changes(finish, group, 1)
        plane = Plane(
            target, at, g.target_c, past_caches, pitch, height, width, source, tile.z + d, tile.p, tile.q,
            weights, group * g.weight_group, g.weight_group, geometry, geometry[entry + table], other_runs_at,
            0, groups, lengths,
        )  # fmt: skip
        if turns is not None:
            _compute_pairs(plane, sums)
        elif strided is not None and source.jump == 2:
            _compute_lines(plane, sums, tuple_of(plane.p, 2), None)
        else:
            _compute_lines(plane, sums, tuple_of(plane.p, 1), halves)
        for k in range(groups):
            if changes(finish, group + k, 1):
                finish_runs(target, at + k * g.target_c, pitch, height, width, group + k, 0, finish)


@subroutine
def _scatter(
    sums, lengths, target, image_at, group, groups, source, table, weights, workspace, geometry, tile, entry, finish
):  # fmt: skip
    """`_store_joined` where the elements of a phase are no neighbours or are added to: from sums in the workspace."""
    g = header(geometry)
    plane_d = plane_at(geometry, g.target_axis_d, geometry[entry + 3])
    for item in range(groups * tile.depth):
        k, d = divmod(item, tile.depth)
        in_d = place(geometry, plane_d, tile.z + d)
        if in_d >= 0:
            plane = Plane(
                workspace, g.sums_at, 0, False, g.line_pitch, tile.height, tile.width, source, tile.z + d, tile.p,
                tile.q, weights, group * g.weight_group, g.weight_group, geometry, geometry[entry + table], -1, k, 1,
                lengths,
            )  # fmt: skip
            _compute_lines(plane, sums, tuple_of(plane.p, 1), None)
            at = image_at + (group + k) * g.target_c + in_d * g.target_d
            _scatter_plane(target, at, workspace, geometry, tile, entry, group + k, finish)


@subroutine
def _scatter_plane(target, plane_begin, workspace, geometry, tile, entry, group, finish):
    """Store the sums of a plane of a phase."""
    never_inlined()
    g = header(geometry)
    plane_h = plane_at(geometry, g.target_axis_h, geometry[entry + 4])
    plane_w = plane_at(geometry, g.target_axis_w, geometry[entry + 5])
    for h in range(tile.height):
        in_h = place(geometry, plane_h, tile.p + h)
        if in_h >= 0:
            store_row(
                target, plane_begin + in_h * g.target_h, 1, geometry, plane_w, geometry[g.target_axis_w + 1], tile.q,
                workspace, g.sums_at + h * g.line_pitch, tile.width, group, finish,
            )  # fmt: skip


class Plane(NamedTuple):
    """target[p, q] = sum over the runs, and r < the length of each, of weights[first + r * step] * source[p + r, q].

    The runs are integers in `table`, from runs_at on, as `run_tables` puts them there. Where there are other runs, the
    elements of the target are taken by turns from the sums over these and over those. So for some groups.
    """

    target: types.Array
    target_at: int
    target_step: int  # from one group to the next
    past_caches: int  # whether whole registers are stored so
    pitch: int  # from one line of the target to the next
    height: int
    width: int
    source: Source
    z: int  # the position of target[0, 0]
    p: int
    q: int
    weights: types.Array
    weights_at: int
    weight_step: int
    table: types.Array
    runs_at: int
    other_runs_at: int
    first: int  # of the groups, and how many there are
    groups: int
    lengths: Runs


@subroutine
def _compute_lines(plane, sums, jump, halves):
    """All sums of a `Plane`, as many lines at once as the tuple has sums, whose type says how wide.

    jump: a tuple of as many elements as those of the source are apart, 1 or 2; halves: None, or True where the end of a
    line that fills no more than half of a value is computed in half of one. The last lines are computed with those
    before them once more, rather than in fewer at once; where there are too few of them, what would follow is computed,
    too, and not stored.
    """
    never_inlined()
    step = lanes_of_value(sums[0])
    past_caches = plane.past_caches and plane.width % step == 0 and plane.height >= len(sums)
    lines = min(len(sums), plane.height)
    share = _share(plane, lines, step)
    for group in range(plane.first, plane.first + plane.groups):
        for h in range(0, plane.height, len(sums)):
            p = max(0, min(h, plane.height - len(sums)))
            ahead = _to_fetch(plane, group, p, lines)
            for q in range(0, plane.width, step):
                ahead = _fetch(plane, ahead, share)
                if halves is not None and 2 * (plane.width - q) <= step:
                    _put_lines(plane, halved(sums), jump, group, p, q, False)
                else:
                    _put_lines(plane, sums, jump, group, p, q, past_caches)
    if past_caches:
        caches_passed()


@subroutine
def _put_lines(plane, sums, jump, group, p, q, past_caches):
    """As many lines as there are sums, from (p, q) of the target on: as much of them as a sum holds, and exists."""
    always_inlined()
    step = lanes_of_value(sums[0])
    sums = _sums_over(plane, sums, jump, plane.runs_at, group, p, q)
    at = plane.target_at + group * plane.target_step + p * plane.pitch + q
    if past_caches:
        store_lines_past_caches(plane.target, at, plane.pitch, sums)
    else:
        held = min(step, plane.width - q)
        store_first_of_lines(plane.target, at, plane.pitch, plane.height - p, held, sums)


@subroutine
def _compute_pairs(plane, sums):
    """`_compute_lines` of two phases, whose sums are stored by turns."""
    never_inlined()
    step = lanes_of_value(sums[0])
    lines = min(len(sums), plane.height)
    share = _share(plane, lines, 2 * step)
    for group in range(plane.first, plane.first + plane.groups):
        for h in range(0, plane.height, len(sums)):
            p = max(0, min(h, plane.height - len(sums)))
            ahead = _to_fetch(plane, group, p, lines)
            for q in range(0, -(-plane.width // 2), step):
                ahead = _fetch(plane, ahead, share)
                even, odd = sums, sums
                for runs_at in (plane.runs_at, plane.other_runs_at):
                    even, odd = odd, _sums_over(plane, sums, tuple_of(plane.p, 1), runs_at, group, p, q)
                at = plane.target_at + group * plane.target_step + p * plane.pitch + 2 * q
                left = plane.width - 2 * q
                first, second = interleave_lines(even, odd)
                store_first_of_lines(plane.target, at, plane.pitch, plane.height - p, min(step, left), first)
                store_first_of_lines(
                    plane.target, at + step, plane.pitch, plane.height - p, max(0, min(step, left - step)), second
                )  # fmt: skip


@subroutine
def _to_fetch(plane, group, p, lines):
    """Where what is fetched begins while these lines are worked on: AHEAD of them, or behind long ones.

    As many elements follow as these lines take, a share of them with each part of a line: 2048x2048 with 3x3 took 1.38
    ms on two threads where all were fetched before any line was worked on, and takes 1.04.
    """
    always_inlined()
    source = plane.source
    begin = source.place + group * source.step + plane.z * source.depth + (plane.p + p) * source.line
    return begin + max(AHEAD, (lines + 1) * source.line)


@subroutine
def _share(plane, lines, part):
    """Elements that are fetched with each part of some lines: all of them take as much as the lines do."""
    always_inlined()
    return lines * plane.source.line * min(part, plane.width) // max(1, plane.width)


@subroutine
def _fetch(plane, at, count):
    """Begin to fetch so many elements of the source; gives where the next ones begin."""
    always_inlined()
    for i in range(at, at + count, lanes(plane.weights)):
        prefetch(plane.source.array, i)
    return at + count


@subroutine
def _sums_over(plane, sums, jump, runs_at, group, p, q):
    """As many lines as there are sums, from (p, q) of the target on."""
    always_inlined()
    sums = cleared(sums)
    step = lanes_of_value(sums[0])
    entry = runs_at + 1
    for _ in range(number(plane.table, runs_at)):
        run = _run_of(plane, group, p, q, entry, step)
        if run.low < run.high and run.first < len(sums) + run.taps - 1 and run.last > 0:
            sums = add_lines(
                sums, run.taps, plane.lengths, jump, plane.source.array, run.source_at, plane.source.line,
                run.first, run.last, run.low, run.high, plane.weights, run.weights_at, run.weights_step,
            )  # fmt: skip
        entry += RUN
    return sums


class _Run(NamedTuple):
    """A run at some place of the target: where its first line begins, and which of its lines and elements exist."""

    source_at: int
    taps: int
    first: int  # line, and the one past the last
    last: int
    low: int  # element, and the one past the last, of those of a vector
    high: int
    weights_at: int
    weights_step: int


@subroutine
def _run_of(plane, group, p, q, entry, lanes):
    """The run that is described from `entry` on, for (p, q) of the target."""
    always_inlined()
    source, table, taps = plane.source, plane.table, number(plane.table, entry + 9)
    below = plane.height - p + taps - 1  # lines behind those that reach the plane, of which a strip has none
    z, p, q = plane.z, plane.p + p, plane.q + q
    first = number(table, entry + 3) - p
    last = max(first, min(number(table, entry + 4) - p, below))
    if z < number(table, entry + 1) or z >= number(table, entry + 2):
        last = first
    return _Run(
        source.place + group * source.step + number(table, entry)
        + z * source.depth + p * source.line + q * source.jump,
        taps, first, last,
        max(0, number(table, entry + 5) - q), min(lanes, number(table, entry + 6) - q),
        plane.weights_at + group * plane.weight_step + number(table, entry + 7), number(table, entry + 8),
    )  # fmt: skip


def kernel_of(problem: ConvProblem, op: Op, phases: list[Phase], is_joined: bool) -> Kernel:
    """The kernel that serves; phases: of the target; is_joined: whether the sums of a tile are added up in it."""
    lengths = _lengths(phases)
    if _is_strided(problem, op):
        return _kernel(op, Form(lengths, FEW_LINES, strided=True))
    if is_joined and together(problem, op) == 2:
        return _kernel(op, Form(lengths, SEVEN_LINES, turns=True))
    tile = tiling(problem, op).tile
    lines, vectors = _at_once(problem, tile)
    if not is_joined:
        return _kernel(op, Form(lengths, lines, vectors, scattered=True))
    return _kernel(op, Form(lengths, lines, vectors, halves=_has_halves(lines, vectors) or None))


def _lengths(phases: list[Phase]) -> Runs:
    """The lengths of the runs that there are, and 1, so that there is one."""
    lengths = {length for phase in phases for *_, length in _columns(phase.taps[1])} | {1}
    return Runs(*(length in lengths or None for length in RUNS))


def _is_strided(problem: ConvProblem, op: Op) -> bool:
    """Whether elements that are two apart are read where they lie."""
    return op is Op.FORWARD and problem.stride[2] == 2 and reads_source(problem, op)


def _is_tall(problem: ConvProblem) -> bool:
    return max(run_lengths(problem)) >= TALL


# ---- sizes


def run_tables(
    taps: tuple[list[tuple[int, Tap]], ...], axes: list[Axis], roles: dict[str, int],
    problem: ConvProblem, sizes: Tiling,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:  # fmt: skip
    """The runs of a phase, as a `Plane` finds them: in the source itself, and in strips.

    taps: of the phase, by axis; axes: the planes of the source. How many runs there are, then, for each, where its
    first line begins for position (0, 0, 0); the first position that finds an element and the one past the last, along
    each axis; its first weight, the distance of the next, and how many there are.
    """
    _, height, width = problem.filter
    planes, strip = sizes.planes, sizes.strip
    in_source: list[list[int]] = []
    in_strip: list[list[int]] = []
    for c, (t, tap_d), (s, tap_w), (r, tap_h, step, length) in itertools.product(
        range(roles["sources"]), taps[0], taps[2], list(_columns(taps[1]))
    ):
        last = [c * roles["weight_source"] + (t * height + r) * width + s, step * width, length]
        reads = [_reads(axis, tap) for axis, tap in zip(axes, (tap_d, tap_h, tap_w), strict=True)]
        source = c * roles["source_c"] + sum(
            each[0] * roles[f"source_{axis}"] for each, axis in zip(reads, "dhw", strict=True)
        )
        plane = (tap_d.slot * planes[1] + tap_h.slot) * planes[2] + tap_w.slot
        shift = (tap_d.shift * strip[1] + tap_h.shift) * strip[2] + tap_w.shift
        place = c * sizes.channel_pitch + plane * math.prod(strip) + shift
        everywhere = [-FAR, FAR, -FAR, FAR, 0, sizes.tiles[2] * sizes.tile[2]]
        in_source.append([source, *reads[0][1:], *reads[1][1:], *reads[2][1:], *last])
        in_strip.append([place, *everywhere, *last])
    return (
        np.array([len(in_source), *itertools.chain(*in_source)], np.int64),
        np.array([len(in_strip), *itertools.chain(*in_strip)], np.int64),
    )


def _columns(taps: list[tuple[int, Tap]]) -> Iterator[tuple[int, Tap, int, int]]:
    """Runs of taps that read neighbouring lines: the first, its number, the step to the next number, the length."""
    left = sorted(taps, key=lambda each: each[1])
    while left:
        r, tap = left[0]
        step = next((other - r for other, each in left[1:] if each == (tap.slot, tap.shift + 1)), 0)
        count = 1
        while count < len(left) and left[count] == (r + count * step, Tap(tap.slot, tap.shift + count)):
            count += 1
        done = 0
        for length in split(count):
            yield r + done * step, Tap(tap.slot, tap.shift + done), step, length
            done += length
        left = left[count:]


def _reads(axis: Axis, tap: Tap) -> tuple[int, int, int]:
    """The element that a tap reads at position 0, there or not, and the positions between which it reads elements."""
    first, last = axis.runs[tap.slot].tolist()
    if first == last:
        return 0, 0, 0
    return (
        int(axis.index[tap.slot, first]) - axis.step * first + axis.step * tap.shift,
        first - tap.shift,
        last - tap.shift,
    )


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
    return min(tilings(problem, op), key=lambda each: each.time(local_machine().threads))


def tilings(problem: ConvProblem, op: Op) -> Iterator[Tiling]:
    """Those whose strips fit."""
    sources, _ = channels_of(problem, op)
    positions, halo, planes = positions_of(problem, op), halo_of(problem, op), planes_of(problem, op)
    size, lanes = np.dtype(problem.dtype).itemsize, lanes_of(problem.dtype)
    whole = op is Op.GRAD_INPUT and folding(problem)
    width = _part_of_line(problem, positions[2], lanes)
    line_bytes = sources * math.prod(planes) * (width + halo[2]) * size
    for tile in line_tiles(positions, halo, STRIP_BYTES // line_bytes, width):
        strip = axes(part + more for part, more in zip(tile, halo, strict=True))
        one = _product_cycles(problem, op, tile, lanes)
        if not reads_source(problem, op):
            one += sources * gather_cycles(problem, planes, strip, lanes)
        tiles = math.prod(-(-extent // part) for extent, part in zip(positions, tile, strict=True))
        items = tiles * problem.N
        for groups in itertools.islice(parts_of(problem.groups, problem.groups), 24):
            blocks = -(-problem.groups // groups)
            per_task = tiles if whole else 1
            tasks = blocks * problem.N * -(-tiles // per_task)
            yield Tiling(
                positions, tile, strip, planes, sources, groups, False, math.prod(strip), tasks,
                tiles_per_task=per_task, cycles=tasks * TASK_CYCLES + problem.groups * items * one,
            )  # fmt: skip


def _part_of_line(problem: ConvProblem, width: int, lanes: int) -> int:
    """Pixels of the equal parts, of whole vectors, that lines are cut into."""
    most = TALL_PIXELS if _is_tall(problem) else LINE_PIXELS
    return min(width, -(-even_split(width, most) // lanes) * lanes)


def _at_once(problem: ConvProblem, tile: Axes) -> tuple[int, int]:
    """Lines of a tile that are computed at once, and vectors of each.

    For a filter that is not tall what matters is the memory, which prefers few lines with long segments; for others,
    and narrow tiles, the most lines that waste the fewest.
    """
    height, vectors = tile[1], -(-tile[2] // lanes_of(problem.dtype))
    if not _is_tall(problem) and (height < SEVEN_LINES or vectors > WIDE // 2):
        return 2, WIDE
    choices = (SIXTEEN_LINES, MOST_LINES, SEVEN_LINES) if REGISTERS == 32 else (MOST_LINES, SEVEN_LINES)
    return min(choices, key=lambda lines: (-(-height // lines) * lines, lines != MOST_LINES, -lines)), 1


def _has_halves(lines: int, vectors: int) -> bool:
    """Whether the ends of lines are computed in half a vector where that suffices, if so many are computed at once.

    Two halves of 64 bytes take as long as one whole on the machine of docs/performance.md: 96x56x56 with 7x7 took 0.33
    ms on one thread without, and takes 0.29 so, 512x7x7 with 5x5 33 and 29 us. Processors with smaller vectors compute
    both at the same rate.
    """
    return REGISTER_BYTES == 64 and vectors == 1 and lines <= MOST_LINES


def _product_cycles(problem: ConvProblem, op: Op, tile: Axes, lanes: int) -> float:
    """Of one tile of one target channel, its gathering aside."""
    sources, _ = channels_of(problem, op)
    vectors, lengths = -(-tile[2] // lanes), run_lengths(problem)
    at_once, wide = _at_once(problem, tile)
    is_half = 0 < 2 * (tile[2] % lanes) <= lanes and _has_halves(at_once, wide)
    lines, parts = tile[0] * -(-tile[1] // at_once), -(-vectors // wide)
    filled = parts - 0.5 * is_half
    runs = problem.taps // problem.filter[1] * sum(len(list(split(length))) for length in lengths)
    # Of lines that do not exist only those products are computed whose source lines do.
    computed = min(at_once, tile[1] + (max(lengths) - 1) / 2)
    products = problem.taps * computed * wide * LINE_CYCLES * vector_steps(problem)
    phases = math.prod(problem.stride) if op is Op.GRAD_INPUT else 1
    return lines * (sources * (filled * products + parts * runs * RUN_CYCLES) + parts * phases * SEGMENT_CYCLES)
