"""Convolution of few channels through the Fourier transform of planes: images, depthwise filters, long 1-D filters.

Two tiles of a channel share a plane of complex points (`fastconv.cpu._planes`), and its spectrum is multiplied by those
of the filters point by point: with some pairs of tiles at once, so that a filter that comes from a far cache serves
several::

    Y[pair, k] = sum over c of Z[pair, c] * U[k, c]

With C and K channels that takes C + K transforms and C * K such products of a plane; `fastconv.cpu._fft_dense` wins
where they are many. In GRAD_WEIGHT the real part of the correlation of two planes is the sum over both tiles.

Source: Mathieu, Henaff, LeCun, "Fast Training of Convolutional Networks through FFTs", ICLR 2014, section 2.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from ..core.algorithm import Array, Epilogue, Plan, Run
from ..core.jit import kernel, subroutine
from ..core.machine import Machine, local_machine
from ..core.problem import ConvProblem, Op
from ._extremes import is_extreme
from ._fft_filters import Filtered
from ._fourier import limit, transform_error
from ._gemm import lanes_of
from ._geometry import even_split, initialise, with_sizes
from ._kernel import never_inlined, views
from ._launch import Launch, SummedLaunch
from ._overlap import accumulates, positions, serves, taps_of
from ._planes import (
    Layout,
    gather_pair,
    gather_pair_of_outputs,
    layouts,
    memory_of,
    multiply_point,
    planes,
    prefetch_pair,
    spectrum_pitch,
    store_filter,
    store_pair,
    transform_columns,
    transform_columns_back,
    transform_filter,
    transform_lines,
    transform_panel_of_lines,
    transform_panel_of_lines_back,
    vector_of,
)
from ._rows import Finish, fill
from ._simd import lanes, load, store, zeros
from ._strips import header
from ._tiles import channels_of

# ---- kernels

# What a task does: transform a filter, correlate a group with the spectra of its filters, or, for a single channel,
# both.
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
    s, g = header(geometry), planes(geometry)
    if g.stage == FILTER:
        transform_filter(target, task * g.spectrum_pitch, weights, task * g.taps, workspace, geometry)
    elif g.stage == BOTH:
        transform_filter(workspace, g.spectrum_at, weights, task // g.runs * g.taps, workspace, geometry)
        _correlate_channel(task, source, workspace, g.spectrum_at, target, residual, constants, workspace, geometry)
    elif s.sources == s.targets == 1:
        spectrum_at = task // g.runs * g.spectrum_pitch
        _correlate_channel(task, source, weights, spectrum_at, target, residual, constants, workspace, geometry)
    else:
        _correlate_channels(task, source, weights, target, residual, constants, workspace, geometry)


@subroutine
def _correlate_channel(task, source, spectra, spectrum_at, target, residual, constants, workspace, geometry):
    """A channel and a run of pairs of its tiles; workspace: strips, a plane, a panel, perhaps a spectrum."""
    never_inlined()
    s, g = header(geometry), planes(geometry)
    finish = Finish(constants, residual, s.has_residual, s.activation, s.accumulates)
    channel, run = divmod(task, g.runs)
    for pair in range(run * g.pairs_per_run, min((run + 1) * g.pairs_per_run, g.pairs)):
        gather_pair(source, channel * s.source_c, pair, constants, workspace, geometry)
        transform_columns(g.plane_at, g.columns, workspace, geometry)
        _filter_lines(spectra, spectrum_at, workspace, geometry)
        prefetch_pair(target, channel, pair, geometry)
        transform_columns_back(g.plane_at, g.kept_columns, g.kept_lines, workspace, geometry)
        store_pair(target, channel, pair, workspace, geometry, finish)


@subroutine
def _filter_lines(spectra, spectrum_at, workspace, geometry):
    """Multiply the spectrum of a plane by the filter's."""
    never_inlined()
    g = planes(geometry)
    step = lanes(workspace)
    for u in range(0, g.lines, step):
        transform_panel_of_lines(workspace, g.panel_at, g.plane_at, u, workspace, geometry)
        spectrum = spectrum_at + u * 2 * g.columns
        for point in range(0, 2 * step * g.columns, 2 * step):
            multiply_point(workspace, g.panel_at + point, spectra, spectrum + point, 1)
        transform_panel_of_lines_back(g.panel_at, g.plane_at, u, g.kept_columns, workspace, geometry)


@subroutine
def _correlate_channels(task, source, spectra, target, residual, constants, workspace, geometry):
    """A group and a run of pairs of its tiles; workspace: strips, a plane, a panel, and Z, (pairs, sources, points).

    spectra: U, in the order of the weight.
    """
    never_inlined()
    s, g = header(geometry), planes(geometry)
    finish = Finish(constants, residual, s.has_residual, s.activation, s.accumulates)
    group, run = divmod(task, g.runs)
    begin, end = run * g.pairs_per_run, min((run + 1) * g.pairs_per_run, g.pairs)
    for pair in range(begin, end):
        for c in range(s.sources):
            gather_pair(source, (group * s.sources + c) * s.source_c, pair, constants, workspace, geometry)
            transform_columns(g.plane_at, g.columns, workspace, geometry)
            at = g.spectrum_at + ((pair - begin) * s.sources + c) * g.spectrum_pitch
            transform_lines(workspace, at, workspace, geometry)
    for k in range(s.targets):
        filters_at = (group * s.weight_group + k * s.weight_target) // g.taps * g.spectrum_pitch
        for pair in range(begin, end):
            at = g.spectrum_at + (pair - begin) * s.sources * g.spectrum_pitch
            _add_up_lines(at, spectra, filters_at, workspace, geometry)
            prefetch_pair(target, group * s.targets + k, pair, geometry)
            transform_columns_back(g.plane_at, g.kept_columns, g.kept_lines, workspace, geometry)
            store_pair(target, group * s.targets + k, pair, workspace, geometry, finish)


@subroutine
def _add_up_lines(seen_at, spectra, filters_at, workspace, geometry):
    """The lines of a plane whose spectrum is the sum, over the source channels, of products of spectra."""
    never_inlined()
    s, g = header(geometry), planes(geometry)
    step = lanes(workspace)
    pitch = s.weight_source // g.taps * g.spectrum_pitch
    for u in range(0, g.lines, step):
        panel = u * 2 * g.columns
        _add_up(seen_at + panel, spectra, filters_at + panel, pitch, workspace, geometry)
        transform_panel_of_lines_back(g.panel_at, g.plane_at, u, g.kept_columns, workspace, geometry)


@subroutine
def _add_up(seen_at, spectra, filters_at, pitch, workspace, geometry):
    """A panel of the sum; pitch: from the spectrum of a filter to that of the next source channel."""
    never_inlined()
    s, g = header(geometry), planes(geometry)
    step = lanes(workspace)
    for point in range(0, 2 * step * g.columns, 2 * step):
        real, imaginary = zeros(workspace, 1), zeros(workspace, 1)
        seen, filter = seen_at + point, filters_at + point
        for _ in range(s.sources):
            a, b = load(workspace, seen, 1), load(workspace, seen + step, 1)
            c, d = load(spectra, filter, 1), load(spectra, filter + step, 1)
            real, imaginary = real + a * c - b * d, imaginary + a * d + b * c
            seen, filter = seen + g.spectrum_pitch, filter + pitch
        store(workspace, g.panel_at + point, real)
        store(workspace, g.panel_at + point + step, imaginary)


@kernel
def _grad_weight(task, x, w, y, residual, constants, workspace, geometry):
    """One task: a run of pairs of tiles and a block of target channels of a group; w: (runs, K, C / groups, taps).

    workspace: strips, a plane, a panel, the sums, (targets, sources, points), and Z, (sources, points).
    """
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    s, g = header(geometry), planes(geometry)
    blocks = -(-s.targets // s.row_block)
    run, rest = divmod(task, s.groups * blocks)
    group, block = divmod(rest, blocks)
    first, last = block * s.row_block, min((block + 1) * s.row_block, s.targets)
    seen_at = g.spectrum_at + s.row_block * s.sources * g.spectrum_pitch
    fill(workspace, g.spectrum_at, (last - first) * s.sources * g.spectrum_pitch, 0)
    for pair in range(run * g.pairs_per_run, min((run + 1) * g.pairs_per_run, g.pairs)):
        for c in range(s.sources):
            gather_pair(x, (group * s.sources + c) * s.source_c, pair, constants, workspace, geometry)
            transform_columns(g.plane_at, g.columns, workspace, geometry)
            transform_lines(workspace, seen_at + c * g.spectrum_pitch, workspace, geometry)
        for k in range(first, last):
            gather_pair_of_outputs(y, (group * s.targets + k) * s.target_c, pair, constants, workspace, geometry)
            transform_columns(g.plane_at, g.columns, workspace, geometry)
            sums_at = g.spectrum_at + (k - first) * s.sources * g.spectrum_pitch
            _add_products_of_lines(sums_at, seen_at, workspace, geometry)
    w_at = run * s.groups * s.weight_group + (group * s.targets + first) * s.weight_target
    for number in range((last - first) * s.sources):
        store_filter(w, w_at + number * g.taps, g.spectrum_at + number * g.spectrum_pitch, workspace, geometry)


@subroutine
def _add_products_of_lines(sums_at, seen_at, workspace, geometry):
    """Add the spectra of the source channels times the conjugate of that of a plane."""
    never_inlined()
    s, g = header(geometry), planes(geometry)
    step = lanes(workspace)
    for u in range(0, g.lines, step):
        transform_panel_of_lines(workspace, g.panel_at, g.plane_at, u, workspace, geometry)
        for channel in range(s.sources):
            panel = channel * g.spectrum_pitch + u * 2 * g.columns
            _add_products(sums_at + panel, seen_at + panel, workspace, geometry)


@subroutine
def _add_products(sums_at, seen_at, workspace, geometry):
    """Add the products of a panel and the conjugate of the one that was transformed last."""
    never_inlined()
    g = planes(geometry)
    step = lanes(workspace)
    for point in range(0, 2 * step * g.columns, 2 * step):
        a, b = load(workspace, seen_at + point, 1), load(workspace, seen_at + point + step, 1)
        c, d = load(workspace, g.panel_at + point, 1), load(workspace, g.panel_at + point + step, 1)
        real, imaginary = load(workspace, sums_at + point, 1), load(workspace, sums_at + point + step, 1)
        store(workspace, sums_at + point, real + a * c + b * d)
        store(workspace, sums_at + point + step, imaginary + b * c - a * d)


KERNELS = {Op.FORWARD: _forward, Op.GRAD_INPUT: _grad_input, Op.GRAD_WEIGHT: _grad_weight}


# ---- sizes

# Cycles, fitted with FAR_CYCLES to the times of 590 planes, of all sizes that are near the best, for eleven problems
# from 512 channels of 14x14 with 7x7 to 1024x1024 with 127x127 and 480000 with 4096: the prices are within 11 % of
# three quarters of the times, and within 30 % of nearly all.
# For each register of points and each halving of a transform:
LEVEL_CYCLES = 4
# For each register of points of a transform beside it: copied and transposed, and multiplied by a single filter; and
# what a sequence is turned by on top.
POINT_CYCLES = 16
TURNED_CYCLES = 5
# For each register of points of each filter of several: it comes from a far cache, and what it meets from a near one.
# 15 to 20 are left beside the others for 384x384 with 11x11 and 3 to 12 channels to 4 to 48.
PRODUCT_CYCLES = 16
# Time on two threads, over that of their cycles, where the spectra of several filters come from the third level of the
# caches, which threads share: 17.3 instead of 13.5 ms for 16x1x161x700 to 32, 5x20 with a stride of 2.
SHARED_CACHE = 1.3
# For each transform: what begins and ends in all the loops.
TRANSFORM_CYCLES = 950
# For each register of results that is stored, and for each tap that is put into its place, one by one.
STORED_CYCLES = 11
TAP_CYCLES = 2
# Part of a task for which threads wait for each other at the end. So 32 pairs go in four runs, and six in two, on two
# threads: 1024x1024 with 127x127 in six, each with a spectrum of the filter, took 4.5 ms, and 4.1 ms so.
WAITING = 0.25
# Cycles for each register of points of a transform where a task does not fit a second-level cache of 1 MiB.
FAR_CYCLES = 16
NEAR_BYTES = 1 << 20
# Pairs of tiles are cut into runs until there are at most this many tasks; a constant, so that the sums of GRAD_WEIGHT
# do not depend on the machine.
TASKS_LEAST = 8
# Pairs of tiles at once, at most, which share what is read of the filters; and the spectra of a task.
PAIRS = 4
SPECTRA_BYTES = 2 << 20
# The spectra of all filters, in bytes.
FILTERS_BYTES = 32 << 20


@dataclass(frozen=True)
class _Sizes:
    """A plane and the tasks."""

    layout: Layout
    runs: int
    row_block: int  # target channels of a task of GRAD_WEIGHT
    spectra: int  # of a task
    tasks: int
    cycles: float


@lru_cache(maxsize=1024)
def _sizes(problem: ConvProblem, op: Op) -> _Sizes | None:
    """The sizes that take the fewest cycles, if there are any."""
    return min(_choices(problem, op), key=lambda each: each.cycles, default=None)


def _choices(problem: ConvProblem, op: Op) -> Iterator[_Sizes]:
    if accumulates(problem, op) and not _is_single(problem):
        return
    for layout in layouts(problem, op):
        size = spectrum_pitch(layout, problem.dtype) * problem.real_bytes
        if _is_single(problem) or size * math.prod(problem.w_shape[:2]) <= FILTERS_BYTES:
            yield _sized(problem, op, layout, SPECTRA_BYTES // size)


def _is_single(problem: ConvProblem) -> bool:
    """Whether every group has one channel and one filter."""
    return problem.C == problem.K == problem.groups


def _sized(problem: ConvProblem, op: Op, layout: Layout, most: int) -> _Sizes:
    """The tasks for a plane; most: spectra that a task may hold."""
    sources, targets = channels_of(problem, op)
    pairs, registers = layout.pairs(problem), layout.points / lanes_of(problem.dtype)
    level = LEVEL_CYCLES * math.log2(layout.points) + POINT_CYCLES + TURNED_CYCLES * layout.is_line
    row_block, spectra, least = targets, 1, 1
    if op is Op.GRAD_WEIGHT:
        row_block = even_split(targets, max(1, most // sources - 1))
        spectra = (1 + row_block) * sources
    elif not _is_single(problem):
        least = -(-pairs // max(1, min(PAIRS, most // sources)))
        spectra = -(-pairs // least) * sources
    blocks = -(-targets // row_block)
    far = memory_of(layout, problem.dtype, spectra).elements * problem.real_bytes > NEAR_BYTES
    transform = registers * (level + FAR_CYCLES * far) + TRANSFORM_CYCLES
    products = 0 if _is_single(problem) else sources * targets
    pair = (blocks * sources + targets) * transform + products * registers * PRODUCT_CYCLES
    once = sources * targets * (transform + problem.taps * TAP_CYCLES)
    stored = targets * problem.N * math.prod(positions(problem, op)) / lanes_of(problem.dtype) * STORED_CYCLES
    runs = _runs(problem, op, pairs, pair, once, least, problem.groups * blocks)
    spectra_made = runs if op is Op.GRAD_WEIGHT else 1
    cycles = problem.groups * (pairs * pair + spectra_made * once + stored)
    return _Sizes(layout, runs, row_block, spectra, problem.groups * blocks * runs, cycles)


def _runs(problem: ConvProblem, op: Op, pairs: int, pair: float, once: float, least: int, count: int) -> int:
    """Runs of about as many pairs, each a task for every block; of several, the filters' spectra are made before.

    The sums of GRAD_WEIGHT depend on their number, and must not on the machine.
    """
    if accumulates(problem, op):
        return 1
    most = max(least, min(pairs, -(-TASKS_LEAST // count)))
    choices = sorted({-(-pairs // -(-pairs // runs)) for runs in range(least, most + 1)})
    if op is Op.GRAD_WEIGHT:
        return choices[-1]
    threads = local_machine().threads

    def time(runs: int) -> float:
        before = once * -(-problem.groups // threads) if runs > 1 else 0
        task = -(-pairs // runs) * pair + (once if runs == 1 else 0)
        return before + (-(-runs * problem.groups // threads) + WAITING) * task

    return min(choices, key=time)


# ---- plans


def plan(problem: ConvProblem, op: Op, epilogue: Epilogue) -> Plan:
    sizes = _require(problem, op)
    kept = None
    if op is Op.GRAD_WEIGHT:
        run: Run = SummedLaunch(_launch(problem, op, epilogue, sizes, CORRELATE), sizes.runs)
    else:
        run = filtered = Filtered(
            _launch(problem, op, epilogue, sizes, FILTER),
            _launch(problem, op, epilogue, sizes, CORRELATE),
            _filters(problem, sizes.layout),
            problem.dtype,
        )
        if sizes.runs == 1 and _is_single(problem):
            run = _launch(problem, op, epilogue, sizes, BOTH)
        kept = filtered.kept_weight(_order_of_spectra(problem, op, sizes.layout))
        if accumulates(problem, op):
            run, kept = _adding(run, problem), dataclasses.replace(kept, run=_adding(kept.run, problem))
    return Plan(
        algorithm="fft",
        problem=problem,
        op=op,
        workspace_bytes=workspace(problem, op),
        run=run,
        limit=limit(problem, op, sizes.layout.points),
        is_extreme=is_extreme,
        kept_weight=kept,
        tiles={
            "lines": sizes.layout.n1,
            "columns": sizes.layout.n2,
            "pairs": sizes.layout.pairs(problem),
            "tasks": sizes.tasks,
        },
    )


def _adding(run: Run, problem: ConvProblem) -> Run:
    """A run of GRAD_INPUT that adds to its result, begun with the bias."""

    def add_to_bias(x: Array, w: Array, y: Array, residual: Array, constants: Array, threads: int) -> None:
        initialise(x, problem, constants)
        run(x, w, y, residual, constants, threads)

    return add_to_bias


def _order_of_spectra(problem: ConvProblem, op: Op, layout: Layout) -> Hashable:
    """All that the spectra depend on beside the weight."""
    return "planes", op, layout.n1, layout.n2, tuple(taps_of(problem, op, layout.cut))


def _filters(problem: ConvProblem, layout: Layout) -> int:
    """Elements of the spectra of all filters."""
    return math.prod(problem.w_shape[:2]) * spectrum_pitch(layout, problem.dtype)


def _launch(problem: ConvProblem, op: Op, epilogue: Epilogue, sizes: _Sizes, stage: int) -> Launch:
    memory = memory_of(sizes.layout, problem.dtype, sizes.spectra)
    vector = vector_of(
        problem, op, epilogue, sizes.layout, memory, sizes.runs, stage, row_block=sizes.row_block
    )  # fmt: skip
    taps, spectra = math.prod(problem.w_shape), _filters(problem, sizes.layout)
    weight_size = {FILTER: taps, CORRELATE: spectra, BOTH: taps}[stage]
    if op is Op.GRAD_WEIGHT:
        weight_size = sizes.runs * taps
    with_sizes(vector, problem, op, weight_size, memory.elements, spectra if stage == FILTER else None)
    tasks = math.prod(problem.w_shape[:2]) if stage == FILTER else sizes.tasks
    return Launch(KERNELS[op], tasks, problem.dtype, vector, memory.elements)


# ---- what the selector asks


def supports(problem: ConvProblem, op: Op) -> bool:
    """Whether these kernels serve: real tensors of one or two axes, without strides, and few filters.

    Tiles that are added up in the target are one task, which may not keep the spectra of all of them.
    """
    return serves(problem) and _sizes(problem, op) is not None


def _require(problem: ConvProblem, op: Op) -> _Sizes:
    sizes = _sizes(problem, op)
    assert sizes is not None, "supports was asked before"
    return sizes


def workspace(problem: ConvProblem, op: Op) -> int:
    """That of a task, and the spectra of the filters, where they are made before."""
    sizes = _require(problem, op)
    elements = memory_of(sizes.layout, problem.dtype, sizes.spectra).elements
    if op is not Op.GRAD_WEIGHT and not _is_single(problem):
        elements += _filters(problem, sizes.layout)
    return elements * problem.real_bytes


def error_bound(problem: ConvProblem, op: Op) -> float:
    sizes = _require(problem, op)
    sources, _ = channels_of(problem, op)
    spectra = -(-sizes.layout.pairs(problem) // sizes.runs) + sizes.runs if op is Op.GRAD_WEIGHT else sources
    return transform_error(problem, sizes.layout.points, spectra)


def cost(problem: ConvProblem, op: Op, machine: Machine) -> float:
    """The cycles of the tasks, and the tensors through memory once; more where threads share a cache."""
    sizes = _require(problem, op)
    shared = 1 if _is_single(problem) or machine.threads == 1 else SHARED_CACHE
    return machine.seconds(sizes.cycles, sizes.tasks, problem.bytes) * shared
