"""Convolution of many channels through the Fourier transform of small tiles, a register of channels at once.

Two tiles of an image are one complex tile z = a + i b, as in `fastconv.cpu._fft_planes`. For every frequency f the
sum over the channels is a product of complex matrices::

    Y = Z * U        Z: (pairs, C), U: (C, K), Y: (pairs, K)

which takes three real ones (`fastconv.cpu._fft_tiles`). Filters are real, so
that U(-f) is the conjugate of U(f). Exchanging real and imaginary parts conjugates what is multiplied::

    swap(Z(-f)) * U(f) = swap(Z(-f) * U(-f))

so that one of every two frequencies that are opposite to each other is stored and read with its parts exchanged, and
only half of U is needed. Filters are transformed by twos, too, which their opposite frequencies take apart.

Sources: Mathieu, Henaff, LeCun, "Fast Training of Convolutional Networks through FFTs", ICLR 2014; Zlateski, Jia, Li,
Durand, "The Anatomy of Efficient FFT and Winograd Convolutions on Modern CPUs", ICS 2019, section 3 (tiles).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core.algorithm import Epilogue, Plan
from ..core.jit import kernel, subroutine
from ..core.machine import Machine, local_machine
from ..core.problem import ConvProblem, Op
from ._extremes import is_extreme
from ._fft_filters import Filtered
from ._fft_tiles import (
    LEVEL_CYCLES,
    OWN,
    TILES,
    Shape,
    Tiles,
    gather_pair,
    prefetch_pair,
    product_of,
    shapes,
    spread,
    store_factor,
    store_pair,
    tile_fields,
    tiles_of,
    transform_plane,
    transform_plane_back,
    whole_registers,
)
from ._fourier import limit, transform_error
from ._gemm import (
    ROWS,
    SPARE_ROWS,
    TILE_CYCLES,
    VECTORS,
    Product,
    column_steps,
    lanes_of,
    multiply,
    row_cycles,
)
from ._geometry import Tables, even_split, with_sizes
from ._kernel import elements_in, first_integers, never_inlined, number, views
from ._launch import KEPT_ELEMENTS, Launch
from ._overlap import accumulates, serves, strips_vector, taps_of
from ._rows import Finish, fill
from ._simd import lanes, load, splat, store, transpose
from ._strips import Strips, header
from ._tiles import channels_of


class Dense(NamedTuple):
    """Integers behind those of `Tiles`."""

    is_of_filters: int  # whether tasks transform filters
    sums_of_at: int  # Y in three parts, in the workspace: (frequencies, 3, pairs, filters)
    sums_pitch: int  # from one frequency to the next
    rows_at: int  # in the geometry vector: tables of the products
    taken_at: int
    offsets_at: int


DENSE = len(Dense._fields)


@subroutine
def dense(geometry):
    return Dense(*first_integers(geometry[OWN:], DENSE))


# ---- filters


@subroutine
def _transform_filters(task, weights, spectra, workspace, geometry):
    """One task: a register of target channels and one of source channels of a group.

    spectra: U, (groups, blocks, slots, 3, sources, filters), written.
    """
    s, g = header(geometry), tiles_of(geometry)
    step = lanes(workspace)
    blocks, others = -(-s.targets // step), -(-s.sources // step)
    group, rest = divmod(task, blocks * others)
    block, other = divmod(rest, others)
    k = block * step
    begin = group * s.weight_group + k * s.weight_target
    for c in range(other * step, min((other + 1) * step, s.sources), 2):
        fill(workspace, g.plane_at, g.height * g.row, 0)
        for part in range(min(2, s.sources - c)):
            _place_taps(
                weights, begin + (c + part) * s.weight_source, min(step, s.targets - k), part, workspace, geometry
            )  # fmt: skip
        transform_plane(g.tap_columns, workspace, geometry)
        u_at = (_block_at(group, k, s, g) + c) * g.filters + k % g.filters
        _store_spectra(spectra, u_at, c + 1 < s.sources, workspace, geometry)


@subroutine
def _place_taps(w, w_at, held, part, workspace, geometry):
    """The taps of `held` neighbouring target channels as the real or imaginary parts of points."""
    never_inlined()
    s, g = header(geometry), tiles_of(geometry)
    step = lanes(workspace)
    scale = splat(elements_in(geometry, workspace), g.scale_at, 1)
    for first in range(0, g.taps, step):
        count = min(step, g.taps - first)
        transpose(workspace, g.taps_at, step, w, w_at + first, s.weight_target, held, count)
        for tap in range(count):
            place = g.plane_at + number(geometry, g.places_at + first + tap) + part * step
            store(workspace, place, load(workspace, g.taps_at + tap * step, 1) * scale)


@subroutine
def _store_spectra(u, u_at, both, workspace, geometry):
    """Take a pair of spectra apart, conjugate them and store them: (z + conj z') and (z - conj z') / i, z' opposite."""
    never_inlined()
    s, g = header(geometry), tiles_of(geometry)
    step = lanes(workspace)
    apart = s.sources * g.filters
    for slot in range(g.slots):
        at = g.plane_at + number(geometry, g.slots_at + 2 * slot)
        opposite = g.plane_at + number(geometry, g.slots_at + 2 * slot + 1)
        a, b = load(workspace, at, 1), load(workspace, at + step, 1)
        c, d = load(workspace, opposite, 1), load(workspace, opposite + step, 1)
        to = u_at + slot * 3 * apart
        store_factor(u, to, apart, a + c, d - b)
        if both:
            store_factor(u, to + g.filters, apart, b + d, a - c)


# ---- tiles


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
    """A task of the first launch, which transforms filters into the target, or of the second, which takes them."""
    if dense(geometry).is_of_filters:
        _transform_filters(task, weights, target, workspace, geometry)
    else:
        _correlate(task, source, weights, target, residual, constants, workspace, geometry)


@subroutine
def _correlate(task, source, spectra, target, residual, constants, workspace, geometry):
    """One task: a run of pairs of tiles of one group, all channels. spectra: U."""
    s, g, d = header(geometry), tiles_of(geometry), dense(geometry)
    step = lanes(workspace)
    finish = Finish(constants, residual, s.has_residual, s.activation, None)
    group, run = divmod(task, g.runs)
    begin, end = run * g.pairs_per_run, min((run + 1) * g.pairs_per_run, g.pairs)
    for pair in range(begin, end):
        for c in range(0, s.sources, step):
            channel = group * s.sources + c
            gather_pair(source, channel, min(step, s.sources - c), pair, constants, workspace, geometry)
            transform_plane(g.width, workspace, geometry)
            at = g.seen_at + (pair - begin) * g.channels + c
            spread(at, g.seen_pitch, g.pairs_per_run * g.channels, workspace, geometry)
    for first in range(0, s.targets, g.filters):
        last = min(first + g.filters, s.targets)
        u_at = _block_at(group, first, s, g) * g.filters
        _multiply_spectra(spectra, u_at, end - begin, last - first, workspace, geometry)
        for pair in range(begin, end):
            for k in range(first, last, step):
                channel, held = group * s.targets + k, min(step, last - k)
                prefetch_pair(target, channel, held, pair, geometry)
                _collect(d.sums_of_at + (pair - begin) * g.filters + k - first, workspace, geometry)
                transform_plane_back(s.tile_q, workspace, geometry)
                store_pair(target, channel, held, pair, workspace, geometry, finish)


KERNELS = {Op.FORWARD: _forward, Op.GRAD_INPUT: _grad_input}


@subroutine
def _collect(begin, workspace, geometry):
    """Fetch a register of target channels of every frequency."""
    never_inlined()
    g, d = tiles_of(geometry), dense(geometry)
    step = lanes(workspace)
    entry = g.points_at
    for i in range(g.height):
        for point in range(g.plane_at + i * g.row, g.plane_at + i * g.row + 2 * step * g.width, 2 * step):
            at, swap = begin + number(geometry, entry) * d.sums_pitch, number(geometry, entry + 1) * step
            real, imaginary = product_of(workspace, at, g.pairs_per_run * g.filters)
            store(workspace, point + swap, real)
            store(workspace, point + step - swap, imaginary)
            entry += 2


@subroutine
def _block_at(group, k, s, g):
    """Rows of U before those of a target channel's block."""
    return (group * -(-s.targets // g.filters) + k // g.filters) * g.slots * 3 * s.sources


@subroutine
def _multiply_spectra(spectra, u_at, rows, columns, workspace, geometry):
    """Three products of matrices for every frequency."""
    never_inlined()
    s, g, d = header(geometry), tiles_of(geometry), dense(geometry)
    size = s.sources * g.filters
    for frequency in range(g.slots + g.twice):
        slot = frequency // 2 if frequency < 2 * g.twice else frequency - g.twice
        for part in range(3):
            product = Product(
                workspace, d.sums_of_at + frequency * d.sums_pitch + part * g.pairs_per_run * g.filters, g.filters,
                workspace, g.seen_at + frequency * g.seen_pitch + part * g.pairs_per_run * g.channels,
                spectra, u_at + (slot * 3 + part) * size,
                geometry, d.rows_at, d.taken_at, d.offsets_at, s.sources, True,
            )  # fmt: skip
            multiply(product, rows, columns)


# ---- sizes

# Pairs of tiles of a task: each register of U serves that many in a product. With 16, 7x7 with 64 channels multiplied
# at 98 GFLOP/s where with 8 it did at 73.
PAIRS = (2, 4, 8, 12, 16, 24, 32)
# Cycles for each register of points of a pair of tiles, beside its transform: gathered, transposed and stored for the
# products, or fetched from them, transposed and stored. Measured one by one, as the others here, for 5x5, 7x7, 9x9 and
# 11x11 with 3 to 128 channels on the machine of docs/performance.md: 17 to 45 to gather and 13 to store for the
# products, 12 to fetch and 7 to 32 to store, the more the further the tensor.
GATHERED_CYCLES = 50
STORED_CYCLES = 35
# Cycles for each register of points of a pair of filters.
FILTER_CYCLES = 30
# Cycles for each register of U in a task, beside the products: it comes from the third-level cache; and for each of Z
# and Y, which went there shortly before. 8 to 15, and 1 to 12, for what is named above.
FAR_CYCLES = 12
KEPT_CYCLES = 4
# Cycles for each register of U where its memory is new to the process each time: half a microsecond for a page.
FAULT_CYCLES = 28
# The largest scratch memory of a task, of which two fit what a thread keeps, and U of all groups, in bytes.
TASK_BYTES = 12 << 20
SPECTRA_BYTES = 48 << 20


@dataclass(frozen=True)
class _Sizes:
    """Extents of tiles, and the tasks."""

    shape: Shape
    pairs: int
    pairs_per_run: int
    tasks: int
    filter_tasks: int
    cycles: float
    filter_cycles: float


class _Memory(NamedTuple):
    """Places in the workspace, in elements, and distances: points (from 0 on), taps, Z, Y."""

    row: int
    taps_at: int
    seen_at: int
    seen_pitch: int
    sums_of_at: int
    sums_pitch: int
    elements: int


def _memory(shape: Shape, pairs: int, sources: int, targets: int, lanes: int) -> _Memory:
    """Distances are no powers of two: a first-level cache holds only eight lines that are so far apart."""
    points, row = shape.points, (shape.width + 1) * 2 * lanes
    seen_pitch = pairs * 3 * whole_registers(sources, lanes) + lanes
    sums_pitch = pairs * 3 * _block(targets, lanes) + lanes
    taps_at = shape.height * row
    seen_at = taps_at + lanes * lanes
    sums_of_at = seen_at + points * seen_pitch
    elements = sums_of_at + points * sums_pitch + SPARE_ROWS * _block(targets, lanes)
    return _Memory(row, taps_at, seen_at, seen_pitch, sums_of_at, sums_pitch, elements)


@lru_cache(maxsize=1024)
def _sizes(problem: ConvProblem, op: Op) -> _Sizes | None:
    """The sizes that take the least time on this machine's number of threads, if there are any."""
    machine = local_machine()
    return min(_choices(problem, op), key=lambda each: _seconds(problem, each, machine), default=None)


def _choices(problem: ConvProblem, op: Op) -> Iterator[_Sizes]:
    sources, targets = channels_of(problem, op)
    lanes = lanes_of(problem.dtype)
    whole_targets = whole_registers(targets, lanes)
    for shape, at_once in itertools.product(shapes(problem, op), PAIRS):
        points = shape.points
        pairs = -(-problem.N * shape.cut.number // 2)
        per_run = even_split(pairs, at_once)
        elements = _memory(shape, per_run, sources, targets, lanes).elements
        spectra = _spectra(problem, op, shape)
        if elements * problem.real_bytes > TASK_BYTES or spectra * problem.real_bytes > SPECTRA_BYTES:
            continue
        runs = -(-pairs // per_run)
        transforms = points * LEVEL_CYCLES * math.log2(points)
        blocks = -(-sources // lanes) * (transforms + points * GATHERED_CYCLES)
        blocks += -(-targets // lanes) * (transforms + points * STORED_CYCLES)
        steps = sources * row_cycles(per_run) * column_steps(targets, lanes)
        register_tiles = -(-per_run // ROWS) * -(-(whole_targets // lanes) // VECTORS)
        product = 3 * points * (steps + register_tiles * TILE_CYCLES)
        kept = elements * -(-targets // _block(targets, lanes))  # Z is read, and Y written and read, for every block
        far = spectra / problem.groups * FAR_CYCLES + kept * KEPT_CYCLES
        filters = -(-targets // lanes) * -(-sources // 2) * (transforms + points * FILTER_CYCLES)
        if spectra > KEPT_ELEMENTS:
            filters += spectra / problem.groups / lanes * FAULT_CYCLES
        yield _Sizes(
            shape, pairs, per_run,
            tasks=problem.groups * runs,
            filter_tasks=problem.groups * -(-targets // lanes) * -(-sources // lanes),
            cycles=problem.groups * (pairs * blocks + runs * (product + far / lanes)),
            filter_cycles=problem.groups * filters,
        )  # fmt: skip


# Time on two threads, over that of their cycles: the spectra of the filters come from the third level of the caches,
# which threads share. 8x64x56x56 to 64, 3x3, took 5.8 ms instead of 3.8; 8x3x128x128 to 96, 11x11, 41 instead of 24.
SHARED_CACHE = 1.4


def _seconds(problem: ConvProblem, sizes: _Sizes, machine: Machine) -> float:
    return machine.seconds(sizes.cycles, sizes.tasks, problem.bytes) + machine.seconds(
        sizes.filter_cycles, sizes.filter_tasks, 0
    )


# ---- plans


def plan(problem: ConvProblem, op: Op, epilogue: Epilogue) -> Plan:
    sizes = _require(problem, op)
    filtered = _filtered(problem, op, epilogue, sizes)
    return Plan(
        algorithm="fft",
        problem=problem,
        op=op,
        workspace_bytes=workspace(problem, op),
        run=filtered,
        limit=limit(problem, op, sizes.shape.points),
        is_extreme=is_extreme,
        kept_weight=filtered.kept_weight(_order_of_spectra(problem, op, sizes.shape)),
        tiles={
            "height": sizes.shape.height,
            "width": sizes.shape.width,
            "pairs": sizes.pairs_per_run,
            "tasks": sizes.tasks,
        },
    )


def _filtered(problem: ConvProblem, op: Op, epilogue: Epilogue, sizes: _Sizes) -> Filtered:
    """The launch over the filters, and that over the tiles."""
    sources, targets = channels_of(problem, op)
    memory = _memory(sizes.shape, sizes.pairs_per_run, sources, targets, lanes_of(problem.dtype))
    spectra, taps = _spectra(problem, op, sizes.shape), math.prod(problem.w_shape)
    of_filters, of_tiles = (_geometry(problem, op, epilogue, sizes, memory, each) for each in (True, False))
    with_sizes(of_filters, problem, op, taps, memory.elements, result_size=spectra)
    with_sizes(of_tiles, problem, op, spectra, memory.elements)
    return Filtered(
        Launch(KERNELS[op], sizes.filter_tasks, problem.dtype, of_filters, memory.elements),
        Launch(KERNELS[op], sizes.tasks, problem.dtype, of_tiles, memory.elements),
        spectra,
        problem.dtype,
    )


def _order_of_spectra(problem: ConvProblem, op: Op, shape: Shape) -> Hashable:
    """All that U depends on beside the weight."""
    return "dense", op, problem.groups, shape.height, shape.width, tuple(taps_of(problem, op, shape.cut))


def _spectra(problem: ConvProblem, op: Op, shape: Shape) -> int:
    """Elements of U, and a register behind."""
    sources, targets = channels_of(problem, op)
    block = _block(targets, lanes_of(problem.dtype))
    return problem.groups * -(-targets // block) * block * shape.slots * 3 * sources + lanes_of(problem.dtype)


def _block(targets: int, lanes: int) -> int:
    """Target channels whose sums are held at once: as many registers as a register tile has."""
    return even_split(-(-targets // lanes), VECTORS) * lanes


def _geometry(
    problem: ConvProblem, op: Op, epilogue: Epilogue, sizes: _Sizes, memory: _Memory, is_of_filters: bool
) -> NDArray[np.int64]:
    """The geometry vector of a launch: the header of strips, that of tiles, our own, and the tables."""
    sources, targets = channels_of(problem, op)
    lanes = lanes_of(problem.dtype)
    channels, filters = whole_registers(sources, lanes), _block(targets, lanes)
    tables = Tables(Strips)
    own = np.zeros(TILES + DENSE, np.int64)
    tables.add(own)
    own[:TILES] = Tiles(
        runs=-(-sizes.pairs // sizes.pairs_per_run),
        pairs=sizes.pairs,
        pairs_per_run=sizes.pairs_per_run,
        **tile_fields(tables, problem, op, sizes.shape, memory.row),
        channels=channels,
        filters=filters,
        plane_at=0,
        taps_at=memory.taps_at,
        seen_at=memory.seen_at,
        seen_pitch=memory.seen_pitch,
    )
    own[TILES:] = Dense(
        is_of_filters=is_of_filters,
        sums_of_at=memory.sums_of_at,
        sums_pitch=memory.sums_pitch,
        rows_at=tables.add(channels * np.arange(sizes.pairs_per_run)),
        taken_at=tables.add(np.arange(sources)),
        offsets_at=tables.add(filters * np.arange(sources)),
    )
    return strips_vector(tables, problem, op, epilogue, sizes.shape.cut)


# ---- what the selector asks


def supports(problem: ConvProblem, op: Op) -> bool:
    """Whether these kernels serve: FORWARD and GRAD_INPUT of real tensors of one or two axes, without strides.

    Tiles that are added up in the target would have to be one task.
    """
    return op in KERNELS and serves(problem) and not accumulates(problem, op) and _sizes(problem, op) is not None


def _require(problem: ConvProblem, op: Op) -> _Sizes:
    sizes = _sizes(problem, op)
    assert sizes is not None, "supports was asked before"
    return sizes


def workspace(problem: ConvProblem, op: Op) -> int:
    """That of a task, and U."""
    sizes = _require(problem, op)
    sources, targets = channels_of(problem, op)
    memory = _memory(sizes.shape, sizes.pairs_per_run, sources, targets, lanes_of(problem.dtype))
    return (memory.elements + _spectra(problem, op, sizes.shape)) * problem.real_bytes


def error_bound(problem: ConvProblem, op: Op) -> float:
    return transform_error(problem, _require(problem, op).shape.points, channels_of(problem, op)[0])


def cost(problem: ConvProblem, op: Op, machine: Machine) -> float:
    """The cycles of both launches, and the tensors through memory once; more where threads share a cache."""
    return _seconds(problem, _require(problem, op), machine) * (SHARED_CACHE if machine.threads > 1 else 1)
