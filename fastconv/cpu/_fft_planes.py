"""Convolution of single channels through the Fourier transform of planes: depthwise filters, images, long 1-D filters.

A plane has n1 x n2 complex points. Its columns are transformed first, a register of neighbouring columns at once, then
its lines, a register of lines at once, for which squares of registers are transposed. Two tiles of the same channel
share it, one as the real and one as the imaginary part: the filter is real, so that ::

    (a + i b) * w  =  a * w  +  i (b * w)

and nothing needs to be taken apart. In GRAD_WEIGHT the real part of the correlation of the planes is the sum over both
tiles. A sequence of n1 * n2 elements fills the same plane, line by line; between columns and lines each point is
turned by exp(-2 pi i j k / (n1 n2)), for line frequency k and column j.

Source: Bailey, "FFTs in External or Hierarchical Memory", J. Supercomputing 4 (1990), section 2 (sequences as planes).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core.algorithm import Array, Epilogue, Plan, Run
from ..core.jit import kernel, subroutine
from ..core.machine import Machine, local_machine
from ..core.problem import Axes, ConvProblem, Op
from ._extremes import is_extreme
from ._fft_filters import Filtered
from ._fourier import LENGTHS, add_passes, frequencies, limit, transform, transform_back, transform_error
from ._gemm import lanes_of
from ._geometry import Tables, even_split, initialise, with_sizes
from ._kernel import elements_in, first_integers, never_inlined, number, place, plane_at, views
from ._launch import Launch, SummedLaunch
from ._overlap import (
    Cut,
    accumulates,
    least_strip,
    most_outputs,
    positions,
    prefetch_tile,
    serves,
    strips_vector,
    taps_of,
    tile_of_item,
)
from ._rows import Finish, copy, fill, gather_row, store_row
from ._simd import lanes, load, store, transpose
from ._strips import HEADER, Strips, header


class Planes(NamedTuple):
    """Integers behind those of `Strips`; positions are in the workspace unless they say otherwise."""

    runs: int  # tasks of a channel
    pairs: int  # of tiles, in all images
    pairs_per_run: int
    lines: int  # n1
    columns: int  # n2
    line_passes: int  # positions of the tables of both transforms in the geometry vector
    column_passes: int
    turns_at: int  # factors between columns and lines, among the elements in the geometry vector; 0 for an image
    scale_at: int  # 1 / (n1 n2) there
    stage: int  # what tasks do
    kept_lines: int  # of a plane, which hold the outputs of a tile
    kept_columns: int  # whole panels of them
    tap_panels: int  # panels of columns that hold taps
    taps: int
    places_at: int  # in the geometry vector: where each tap stands in a plane
    second_at: int  # the strip of the second tile
    plane_at: int  # planes of columns
    other_at: int
    panel_at: int  # panels of lines
    spectrum_at: int


PLANES = len(Planes._fields)


@subroutine
def planes(geometry):
    return Planes(*first_integers(geometry[HEADER:], PLANES))


# ---- kernels

# What a task does: transform the filter of a channel, correlate a channel with the spectrum of its filter, or both.
FILTER, CORRELATE, BOTH = range(3)


@kernel
def _forward(task, x, w, y, residual, constants, workspace, geometry):
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    _run_task(task, x, w, y, residual, constants, workspace, geometry)


@kernel
def _grad_input(task, x, w, y, residual, constants, workspace, geometry):
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    _run_task(task, y, w, x, residual, constants, workspace, geometry)


@subroutine
def _run_task(task, source, weights, target, residual, constants, workspace, geometry):
    """One task of a stage. weights: the taps, or to CORRELATE their spectra, which FILTER writes to the target."""
    g = planes(geometry)
    size = 2 * g.lines * g.columns
    if g.stage == FILTER:
        _transform_filter(target, task * size, weights, task * g.taps, workspace, geometry)
    elif g.stage == CORRELATE:
        _correlate(task, source, weights, task // g.runs * size, target, residual, constants, workspace, geometry)
    else:
        _transform_filter(workspace, g.spectrum_at, weights, task // g.runs * g.taps, workspace, geometry)
        _correlate(task, source, workspace, g.spectrum_at, target, residual, constants, workspace, geometry)


@subroutine
def _correlate(task, source, spectra, spectrum_at, target, residual, constants, workspace, geometry):
    """A channel and a run of pairs of its tiles; workspace: strips, a plane, a panel, perhaps a spectrum."""
    never_inlined()
    s, g = header(geometry), planes(geometry)
    finish = Finish(constants, residual, s.has_residual, s.activation, s.accumulates)
    channel, run = divmod(task, g.runs)
    for pair in range(run * g.pairs_per_run, min((run + 1) * g.pairs_per_run, g.pairs)):
        _gather_pair(source, channel * s.source_c, pair, constants, workspace, geometry)
        _transform_columns(g.plane_at, g.columns, workspace, geometry)
        _filter_lines(spectra, spectrum_at, workspace, geometry)
        _transform_columns_back(g.plane_at, g.kept_columns, g.kept_lines, workspace, geometry)
        _store_pair(target, channel, pair, workspace, geometry, finish)


@kernel
def _grad_weight(task, x, w, y, residual, constants, workspace, geometry):
    """One task: a channel and a run of pairs of its tiles; w: (runs, channels, taps), to be added up over the runs."""
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    s, g = header(geometry), planes(geometry)
    run, channel = divmod(task, s.groups)
    tap_columns = g.tap_panels * lanes(workspace)
    fill(workspace, g.spectrum_at, 2 * g.lines * g.columns, 0)
    for pair in range(run * g.pairs_per_run, min((run + 1) * g.pairs_per_run, g.pairs)):
        _gather_pair(x, channel * s.source_c, pair, constants, workspace, geometry)
        _transform_columns(g.plane_at, g.columns, workspace, geometry)
        _gather_pair_of_outputs(y, channel * s.target_c, pair, constants, workspace, geometry)
        _transform_columns(g.other_at, g.columns, workspace, geometry)
        _add_products_of_lines(workspace, geometry)
    _transform_lines_back(tap_columns, workspace, geometry)
    _transform_columns_back(g.plane_at, tap_columns, g.lines, workspace, geometry)
    w_at, scale = (run * s.groups + channel) * g.taps, elements_in(geometry, workspace)[g.scale_at]
    for tap in range(g.taps):
        w[w_at + tap] = workspace[number(geometry, g.places_at + tap)] * scale


KERNELS = {Op.FORWARD: _forward, Op.GRAD_INPUT: _grad_input, Op.GRAD_WEIGHT: _grad_weight}


@subroutine
def _transform_filter(spectra, spectrum_at, weights, weights_at, workspace, geometry):
    """The spectrum of a filter: conjugated, so that products with it correlate, and over the number of points."""
    never_inlined()
    g = planes(geometry)
    step = lanes(workspace)
    fill(workspace, 0, g.lines * g.columns, 0)
    fill(workspace, g.second_at, g.lines * g.columns, 0)
    scale = elements_in(geometry, workspace)[g.scale_at]
    for tap in range(g.taps):
        workspace[number(geometry, g.places_at + tap)] = weights[weights_at + tap] * scale
    _transform_columns(g.plane_at, g.tap_panels * step, workspace, geometry)
    zero = load(workspace, g.second_at, 1)
    for u in range(0, g.lines, step):
        at = spectrum_at + u * 2 * g.columns
        _transform_panel_of_lines(spectra, at, g.plane_at, u, workspace, geometry)
        for point in range(at + step, at + 2 * step * g.columns, 2 * step):
            store(spectra, point, zero - load(spectra, point, 1))


@subroutine
def _gather_pair(source, source_at, pair, constants, workspace, geometry):
    """Both strips; the second is border where the number of tiles is odd and the pair the last."""
    never_inlined()
    s, g = header(geometry), planes(geometry)
    outside = constants[constants.size - 1]
    plane_h, plane_w = plane_at(geometry, s.source_axis_h, 0), plane_at(geometry, s.source_axis_w, 0)
    for item in range(2 * pair, 2 * pair + 2):
        image, tile = tile_of_item(s, item)
        begin = g.second_at if item & 1 else 0
        for h in range(s.strip_h):
            at, in_h = begin + h * s.strip_w, place(geometry, plane_h, tile.p + h)
            if image < s.images and in_h >= 0:
                row = source_at + image * s.source_n + in_h * s.source_h
                gather_row(
                    workspace, at, s.strip_w, source, row, s.source_w, outside, geometry, plane_w, 1, tile.q
                )  # fmt: skip
            else:
                fill(workspace, at, s.strip_w, outside)


@subroutine
def _gather_pair_of_outputs(y, y_at, pair, constants, workspace, geometry):
    """Both strips with the outputs of a tile of each, and zeros around them."""
    never_inlined()
    s, g = header(geometry), planes(geometry)
    for item in range(2 * pair, 2 * pair + 2):
        image, tile = tile_of_item(s, item)
        at = g.second_at if item & 1 else 0
        fill(workspace, at, g.lines * g.columns, 0)
        if image < s.images:
            begin = y_at + image * s.target_n + tile.p * s.target_h + tile.q * s.target_w
            for p in range(tile.height):
                row, to = begin + p * s.target_h, at + p * s.strip_w
                if s.target_w == 1:
                    copy(workspace, to, y, row, tile.width)
                else:
                    for q in range(tile.width):
                        workspace[to + q] = y[row + q * s.target_w]


@subroutine
def _store_pair(target, channel, pair, workspace, geometry, finish):
    never_inlined()
    s, g = header(geometry), planes(geometry)
    plane_h, plane_w = plane_at(geometry, s.target_axis_h, 0), plane_at(geometry, s.target_axis_w, 0)
    for item in range(2 * pair, 2 * pair + 2):
        image, tile = tile_of_item(s, item)
        if image < s.images:
            prefetch_tile(target, channel, 1, image, tile, geometry)
            begin = image * s.target_n + channel * s.target_c
            for h in range(tile.height):
                at, in_h = h * s.strip_w + (g.second_at if item & 1 else 0), place(geometry, plane_h, tile.p + h)
                if in_h >= 0:
                    store_row(
                        target, begin + in_h * s.target_h, s.target_w, geometry, plane_w, 1, tile.q,
                        workspace, at, tile.width, channel, finish,
                    )  # fmt: skip


# ---- transforms of planes: columns in panels of one register, then lines likewise


@subroutine
def _transform_columns(plane, columns, workspace, geometry):
    """The columns of the strips, panel by panel; those from `columns` on hold zeros."""
    never_inlined()
    g = planes(geometry)
    step = lanes(workspace)
    for v in range(0, g.columns, step):
        at = plane + v * 2 * g.lines
        if v >= columns:
            fill(workspace, at, 2 * step * g.lines, 0)
            continue
        for i in range(g.lines):
            point, place = at + i * 2 * step, i * g.columns + v
            store(workspace, point, load(workspace, place, 1))
            store(workspace, point + step, load(workspace, g.second_at + place, 1))
        transform(workspace, at, 2 * step, geometry, g.column_passes)
        if g.turns_at:
            turns = g.turns_at + v * 2 * g.lines
            for point in range(0, 2 * step * g.lines, 2 * step):
                _multiply_point(workspace, at + point, elements_in(geometry, workspace), turns + point, 1)


@subroutine
def _transform_columns_back(plane, columns, lines, workspace, geometry):
    """Undo `_transform_columns` for the first columns, and put back the first lines."""
    never_inlined()
    g = planes(geometry)
    step = lanes(workspace)
    for v in range(0, columns, step):
        at = plane + v * 2 * g.lines
        if g.turns_at:
            turns = g.turns_at + v * 2 * g.lines
            for point in range(0, 2 * step * g.lines, 2 * step):
                _multiply_point(workspace, at + point, elements_in(geometry, workspace), turns + point, -1)
        transform_back(workspace, at, 2 * step, geometry, g.column_passes)
        for i in range(lines):
            point, place = at + i * 2 * step, i * g.columns + v
            store(workspace, place, load(workspace, point, 1))
            store(workspace, g.second_at + place, load(workspace, point + step, 1))


@subroutine
def _transform_panel_of_lines(panels, to, plane, u, workspace, geometry):
    """Transform the lines from u on, a register of them, into the panel at `to`."""
    g = planes(geometry)
    step = lanes(workspace)
    for v in range(0, g.columns, step):
        _transpose_points(panels, to + v * 2 * step, workspace, plane + v * 2 * g.lines + u * 2 * step)
    transform(panels, to, 2 * step, geometry, g.line_passes)


@subroutine
def _transform_panel_of_lines_back(panel, plane, u, columns, workspace, geometry):
    """Undo `_transform_panel_of_lines` for the first columns."""
    g = planes(geometry)
    step = lanes(workspace)
    transform_back(workspace, panel, 2 * step, geometry, g.line_passes)
    for v in range(0, columns, step):
        _transpose_points(workspace, plane + v * 2 * g.lines + u * 2 * step, workspace, panel + v * 2 * step)


@subroutine
def _transpose_points(target, to, source, begin):
    """As many points as they have lanes: what was lane i of point j is lane j of point i."""
    step = lanes(source)
    for part in range(0, 2 * step, step):
        transpose(target, to + part, 2 * step, source, begin + part, 2 * step, step, step)


@subroutine
def _filter_lines(spectra, spectrum_at, workspace, geometry):
    """Multiply the spectrum of a plane by the filter's."""
    never_inlined()
    g = planes(geometry)
    step = lanes(workspace)
    for u in range(0, g.lines, step):
        _transform_panel_of_lines(workspace, g.panel_at, g.plane_at, u, workspace, geometry)
        spectrum = spectrum_at + u * 2 * g.columns
        for point in range(0, 2 * step * g.columns, 2 * step):
            _multiply_point(workspace, g.panel_at + point, spectra, spectrum + point, 1)
        _transform_panel_of_lines_back(g.panel_at, g.plane_at, u, g.kept_columns, workspace, geometry)


@subroutine
def _add_products_of_lines(workspace, geometry):
    """Add the spectrum of one plane times the conjugate of the other's."""
    never_inlined()
    g = planes(geometry)
    step = lanes(workspace)
    other = g.panel_at + 2 * step * g.columns
    for u in range(0, g.lines, step):
        _transform_panel_of_lines(workspace, g.panel_at, g.plane_at, u, workspace, geometry)
        _transform_panel_of_lines(workspace, other, g.other_at, u, workspace, geometry)
        spectrum = g.spectrum_at + u * 2 * g.columns
        for point in range(0, 2 * step * g.columns, 2 * step):
            _multiply_point(workspace, g.panel_at + point, workspace, other + point, -1)
            for part in range(point, point + 2 * step, step):
                total = load(workspace, spectrum + part, 1) + load(workspace, g.panel_at + part, 1)
                store(workspace, spectrum + part, total)


@subroutine
def _transform_lines_back(columns, workspace, geometry):
    """The spectrum's lines back into the first columns of a plane."""
    never_inlined()
    g = planes(geometry)
    for u in range(0, g.lines, lanes(workspace)):
        spectrum = g.spectrum_at + u * 2 * g.columns
        _transform_panel_of_lines_back(spectrum, g.plane_at, u, columns, workspace, geometry)


@subroutine
def _multiply_point(workspace, at, factors, factors_at, sign):
    """Multiply a point by another, or with a sign of -1 by its conjugate."""
    step = lanes(workspace)
    a, b = load(workspace, at, 1), load(workspace, at + step, 1)
    c, d = load(factors, factors_at, 1), load(factors, factors_at + step, 1)
    if sign > 0:
        store(workspace, at, a * c - b * d)
        store(workspace, at + step, a * d + b * c)
    else:
        store(workspace, at, a * c + b * d)
        store(workspace, at + step, b * c - a * d)


# ---- sizes

# Cycles, fitted with FAR_CYCLES to the times of 590 planes, of all sizes that are near the best, for eleven problems
# from 512 channels of 14x14 with 7x7 to 1024x1024 with 127x127 and 480000 with 4096: the prices are within 11 % of
# three quarters of the times, and within 30 % of nearly all.
# For each register of points and each halving of a transform:
LEVEL_CYCLES = 4
# For each register of points of a pair beside its transforms: copied in and out, transposed there and back, multiplied;
# and what a sequence is turned by on top.
POINT_CYCLES = 33
TURNED_CYCLES = 10
# For each pair: what begins and ends in all the loops.
PAIR_CYCLES = 1900
# For each register of results that is stored, and for each tap that is put into its place, one by one.
STORED_CYCLES = 11
TAP_CYCLES = 2
# Part of a task for which threads wait for each other at the end. So 32 pairs go in four runs, and six in two, on two
# threads: 1024x1024 with 127x127 in six, each with a spectrum of the filter, took 4.5 ms, and 4.1 ms so.
WAITING = 0.25
# Cycles for each register of points where a task does not fit a second-level cache of 1 MiB.
FAR_CYCLES = 33
NEAR_BYTES = 1 << 20
# Pairs of tiles are cut into runs until there are at most this many tasks; a constant, so that the sums of GRAD_WEIGHT
# do not depend on the machine.
TASKS_LEAST = 8
# Points of a plane: 2 MiB of float32.
MOST_POINTS = 1 << 18


@dataclass(frozen=True)
class _Sizes:
    """Extents of a plane, the tiles in it, and the tasks."""

    n1: int
    n2: int
    cut: Cut
    tasks: int
    runs: int
    pairs: int
    cycles: float

    @property
    def points(self) -> int:
        return self.n1 * self.n2

    @property
    def pairs_per_run(self) -> int:
        return -(-self.pairs // self.runs)


def _is_line(problem: ConvProblem) -> bool:
    return problem.padded[:2] == problem.filter[:2] == (1, 1)


def _extents(problem: ConvProblem, op: Op) -> Iterator[tuple[int, int, Axes]]:
    """Planes that are larger than the halo, and the extents of the strips that fill them."""
    _, height, width = least_strip(problem, op)
    if _is_line(problem):
        for n1, n2 in itertools.product(LENGTHS, LENGTHS):
            if n1 <= n2 <= 2 * n1:
                yield n1, n2, (1, 1, n1 * n2)
        return
    for n1, n2 in itertools.product(_lengths(height), _lengths(width)):
        if n1 * n2 <= MOST_POINTS:
            yield n1, n2, (1, n1, n2)


def _lengths(whole: int) -> list[int]:
    """Lengths for an axis, up to the first that holds all of it."""
    return [n for n in LENGTHS if n <= min((n for n in LENGTHS if n >= whole), default=LENGTHS[-1])]


class _Memory(NamedTuple):
    """Places in the workspace, in elements."""

    second_at: int
    plane_at: int
    other_at: int
    panel_at: int
    spectrum_at: int
    elements: int


def _memory(n1: int, n2: int, op: Op, lanes: int) -> _Memory:
    """Two strips; planes and panels, in GRAD_WEIGHT of y as well; a spectrum."""
    count, strip = 2 if op is Op.GRAD_WEIGHT else 1, n1 * n2
    plane_at, plane = 2 * strip, 2 * strip
    panel_at = plane_at + count * plane
    spectrum_at = panel_at + count * 2 * lanes * n2
    return _Memory(strip, plane_at, plane_at + plane, panel_at, spectrum_at, spectrum_at + plane)


@lru_cache(maxsize=1024)
def _sizes(problem: ConvProblem, op: Op) -> _Sizes | None:
    """The sizes that take the fewest cycles, if there are any."""
    found = (_sized(problem, op, *each) for each in _extents(problem, op))
    return min((each for each in found if each is not None), key=lambda each: each.cycles, default=None)


def _runs(problem: ConvProblem, op: Op, pairs: int, pair: float, once: float) -> int:
    """Runs of about as many pairs, each a task for every group; of several, the filter's spectrum is made before.

    The sums of GRAD_WEIGHT depend on their number, and must not on the machine.
    """
    most = 1 if accumulates(problem, op) else min(pairs, -(-TASKS_LEAST // problem.groups))
    choices = sorted({-(-pairs // -(-pairs // runs)) for runs in range(1, most + 1)})
    if op is Op.GRAD_WEIGHT:
        return choices[-1]
    threads = local_machine().threads

    def time(runs: int) -> float:
        before = once * -(-problem.groups // threads) if runs > 1 else 0
        task = -(-pairs // runs) * pair + (once if runs == 1 else 0)
        return before + (-(-runs * problem.groups // threads) + WAITING) * task

    return min(choices, key=time)


def _sized(problem: ConvProblem, op: Op, n1: int, n2: int, strip: Axes) -> _Sizes | None:
    """A plane with the tiles that fit it."""
    most = most_outputs(problem, op, strip)
    if min(most) < 1:
        return None
    extents = positions(problem, op)
    _, height, width = (even_split(whole, part) for whole, part in zip(extents, most, strict=True))
    cut = Cut(strip, (1, height, width), (1, -(-extents[1] // height), -(-extents[2] // width)))
    pairs = -(-problem.N * cut.number // 2)
    lanes, points = lanes_of(problem.dtype), n1 * n2
    transform = points / lanes * LEVEL_CYCLES * math.log2(points)
    far = FAR_CYCLES * (_memory(n1, n2, op, lanes).elements * problem.real_bytes > NEAR_BYTES)
    beside = POINT_CYCLES + TURNED_CYCLES * (strip[1] == 1) + far
    pair = 2 * transform + points / lanes * beside + PAIR_CYCLES
    once = transform + problem.taps * TAP_CYCLES
    stored = math.prod(extents) * problem.N / lanes * STORED_CYCLES
    runs = _runs(problem, op, pairs, pair, once)
    spectra = runs if op is Op.GRAD_WEIGHT else 1
    cycles = problem.groups * (pairs * pair + spectra * once + stored)
    return _Sizes(n1, n2, cut, problem.groups * runs, runs, pairs, cycles)


# ---- plans


def _turns(sizes: _Sizes, lanes: int) -> NDArray[np.float64]:
    """exp(-2 pi i j k / (n1 n2)) for line frequency k and column j, as the points of a plane."""
    angles = np.outer(frequencies(sizes.n1), np.arange(sizes.n2)) % sizes.points * (-2 * math.pi / sizes.points)
    parts = np.stack([np.cos(angles), np.sin(angles)], axis=1)  # (n1, 2, n2)
    return parts.reshape(sizes.n1, 2, -1, lanes).transpose(2, 0, 1, 3).reshape(-1)


def plan(problem: ConvProblem, op: Op, epilogue: Epilogue) -> Plan:
    sizes = _require(problem, op)
    both = _launch(problem, op, epilogue, sizes, BOTH)
    kept = None
    run: Run = both
    if op is Op.GRAD_WEIGHT:
        run = SummedLaunch(both, sizes.runs)
    else:
        filtered = Filtered(
            _launch(problem, op, epilogue, sizes, FILTER),
            _launch(problem, op, epilogue, sizes, CORRELATE),
            problem.groups * 2 * sizes.points,
            problem.dtype,
        )
        run = filtered if sizes.runs > 1 else both
        kept = filtered.kept_weight(_order_of_spectra(problem, op, sizes))
        if accumulates(problem, op):
            run, kept = _adding(run, problem), dataclasses.replace(kept, run=_adding(kept.run, problem))
    return Plan(
        algorithm="fft",
        problem=problem,
        op=op,
        workspace_bytes=workspace(problem, op),
        run=run,
        limit=limit(problem, op, sizes.points),
        is_extreme=is_extreme,
        kept_weight=kept,
        tiles={"lines": sizes.n1, "columns": sizes.n2, "pairs": sizes.pairs, "tasks": sizes.tasks},
    )


def _adding(run: Run, problem: ConvProblem) -> Run:
    """A run of GRAD_INPUT that adds to its result, begun with the bias."""

    def add_to_bias(x: Array, w: Array, y: Array, residual: Array, constants: Array, threads: int) -> None:
        initialise(x, problem, constants)
        run(x, w, y, residual, constants, threads)

    return add_to_bias


def _order_of_spectra(problem: ConvProblem, op: Op, sizes: _Sizes) -> Hashable:
    """All that the spectra depend on beside the weight."""
    return "planes", op, sizes.n1, sizes.n2, tuple(taps_of(problem, op, sizes.cut))


def _launch(problem: ConvProblem, op: Op, epilogue: Epilogue, sizes: _Sizes, stage: int) -> Launch:
    memory = _memory(sizes.n1, sizes.n2, op, lanes_of(problem.dtype))
    vector = _geometry(problem, op, epilogue, sizes, memory, stage)
    taps, spectra = math.prod(problem.w_shape), problem.groups * 2 * sizes.points
    weight_size = {FILTER: taps, CORRELATE: spectra, BOTH: sizes.runs * taps}[stage]
    with_sizes(vector, problem, op, weight_size, memory.elements, spectra if stage == FILTER else None)
    tasks = problem.groups if stage == FILTER else sizes.tasks
    return Launch(KERNELS[op], tasks, problem.dtype, vector, memory.elements)


def _geometry(
    problem: ConvProblem, op: Op, epilogue: Epilogue, sizes: _Sizes, memory: _Memory, stage: int
) -> NDArray[np.int64]:
    """The geometry vector of a stage: the header of strips, that of planes, and the tables."""
    _, height, width = sizes.cut.strip
    taps = [(t * height + r) * width + s for t, r, s in taps_of(problem, op, sizes.cut)]
    lanes = lanes_of(problem.dtype)
    tables = Tables(Strips)
    own = np.zeros(PLANES, np.int64)
    tables.add(own)
    own[:] = Planes(
        runs=sizes.runs,
        pairs=sizes.pairs,
        pairs_per_run=sizes.pairs_per_run,
        lines=sizes.n1,
        columns=sizes.n2,
        line_passes=add_passes(tables, sizes.n2, problem.dtype),
        column_passes=add_passes(tables, sizes.n1, problem.dtype),
        turns_at=tables.add_elements(_turns(sizes, lanes), problem.dtype) if height == 1 else 0,
        scale_at=tables.add_elements(np.array([1 / sizes.points]), problem.dtype),
        stage=stage,
        kept_lines=sizes.cut.tile[1] if height > 1 else -(-sizes.cut.tile[2] // sizes.n2),
        kept_columns=-(-sizes.cut.tile[2] // lanes) * lanes if height > 1 else sizes.n2,
        tap_panels=max(tap % sizes.n2 for tap in taps) // lanes + 1,
        taps=len(taps),
        places_at=tables.add(taps),
        second_at=memory.second_at,
        plane_at=memory.plane_at,
        other_at=memory.other_at,
        panel_at=memory.panel_at,
        spectrum_at=memory.spectrum_at,
    )
    return strips_vector(tables, problem, op, epilogue, sizes.cut)


# ---- what the selector asks


def supports(problem: ConvProblem, op: Op) -> bool:
    """Whether these kernels serve: real tensors of one channel in each group, of one or two axes, without strides."""
    return serves(problem) and problem.C == problem.K == problem.groups and _sizes(problem, op) is not None


def _require(problem: ConvProblem, op: Op) -> _Sizes:
    sizes = _sizes(problem, op)
    assert sizes is not None, "supports was asked before"
    return sizes


def workspace(problem: ConvProblem, op: Op) -> int:
    sizes = _require(problem, op)
    return _memory(sizes.n1, sizes.n2, op, lanes_of(problem.dtype)).elements * problem.real_bytes


def error_bound(problem: ConvProblem, op: Op) -> float:
    sizes = _require(problem, op)
    spectra = sizes.pairs_per_run + sizes.runs if op is Op.GRAD_WEIGHT else 1
    return transform_error(problem, sizes.points, spectra)


def cost(problem: ConvProblem, op: Op, machine: Machine) -> float:
    """The cycles of the tasks, and the tensors through memory once."""
    sizes = _require(problem, op)
    return machine.seconds(sizes.cycles, sizes.tasks, problem.bytes)
