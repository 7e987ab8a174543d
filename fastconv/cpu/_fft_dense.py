"""Convolution of many channels through the Fourier transform of small tiles, a register of channels at once.

Two tiles of an image are one complex tile z = a + i b, as in `fastconv.cpu._fft_planes`. For every frequency f the
sum over the channels is a product of matrices, real numbers in twice as many rows and columns::

    [ Re Y ]   [ -Im Z  Re Z ]   [ Im U ]
    [ Im Y ] = [  Re Z  Im Z ] * [ Re U ]        Z: (pairs, C), U: (C, K), Y: (pairs, K)

where (-Im Z, Re Z, Im Z) is stored once, and the two rows begin at its first and its second part. Filters are real, so
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
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core.algorithm import Array, Epilogue, Plan
from ..core.jit import kernel, subroutine
from ..core.machine import Machine, local_machine
from ..core.problem import ConvProblem, Op
from ._fourier import factors, frequencies, limit, passes, transform, transform_back, transform_error
from ._gemm import (
    ROWS,
    SPARE_ROWS,
    TILE_CYCLES,
    VECTORS,
    Product,
    column_steps,
    lanes_of,
    multiply,
    row_steps,
)
from ._geometry import Tables, even_split, with_sizes
from ._kernel import first_integers, never_inlined, number, views
from ._launch import Launch, scratch
from ._overlap import Cut, accumulates, halo, places, positions, serves, strips_vector, tile_of_item, whole
from ._rows import Finish, fill
from ._simd import lanes, load, splat, store, transpose, zeros
from ._strips import HEADER, Strips, gather_strips, header, store_tile
from ._tiles import channels_of


class Dense(NamedTuple):
    """Integers behind those of `Strips`; positions are in the workspace unless they say otherwise."""

    runs: int  # tasks of a group
    pairs: int  # of tiles, in all images
    pairs_per_run: int
    height: int  # points of a tile
    width: int
    row: int  # elements from one row of points to the next
    column_passes: int  # positions of the tables of both transforms in the geometry vector
    row_passes: int
    scale_at: int  # in the constants
    points_at: int  # in the geometry vector, for each point: where its frequency stands among all, and if swapped
    slots_at: int  # for each frequency of U: the elements of its point, and of the opposite one
    slots: int
    twice: int  # slots whose opposite frequency is another one; they come first
    tap_columns: int  # columns of points that hold taps
    taps: int
    places_at: int  # in the geometry vector: the elements of the point of each tap
    channels: int  # C and K of a group, in whole registers
    filters: int
    plane_at: int
    taps_at: int
    seen_at: int  # Z
    seen_pitch: int  # from one frequency to the next
    sums_of_at: int  # Y
    sums_pitch: int
    rows_at: int  # in the geometry vector: tables of the products
    taken_at: int
    offsets_at: int


DENSE = len(Dense._fields)


@subroutine
def dense(geometry):
    return Dense(*first_integers(geometry[HEADER:], DENSE))


# ---- filters


@kernel
def _transform_filters(task, x, w, y, residual, constants, workspace, geometry):
    """One task: a register of target channels and one of source channels of a group.

    x: U, (groups, slots, 2 * sources, filters), written; w: the weights.
    """
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    s, g = header(geometry), dense(geometry)
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
                w, begin + (c + part) * s.weight_source, min(step, s.targets - k), part, constants, workspace, geometry
            )  # fmt: skip
        _transform_plane(g.tap_columns, constants, workspace, geometry)
        u_at = group * g.slots * 2 * s.sources * g.filters + c * g.filters + k
        _store_spectra(x, u_at, c + 1 < s.sources, workspace, geometry)


@subroutine
def _place_taps(w, w_at, held, part, constants, workspace, geometry):
    """The taps of `held` neighbouring target channels as the real or imaginary parts of points."""
    never_inlined()
    s, g = header(geometry), dense(geometry)
    step = lanes(workspace)
    scale = splat(constants, g.scale_at, 1)
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
    s, g = header(geometry), dense(geometry)
    step = lanes(workspace)
    imaginary_to_real = s.sources * g.filters
    for slot in range(g.slots):
        at = g.plane_at + number(geometry, g.slots_at + 2 * slot)
        opposite = g.plane_at + number(geometry, g.slots_at + 2 * slot + 1)
        a, b = load(workspace, at, 1), load(workspace, at + step, 1)
        c, d = load(workspace, opposite, 1), load(workspace, opposite + step, 1)
        to = u_at + slot * 2 * imaginary_to_real
        store(u, to, d - b)
        store(u, to + imaginary_to_real, a + c)
        if both:
            store(u, to + g.filters, a - c)
            store(u, to + g.filters + imaginary_to_real, b + d)


# ---- tiles


@kernel
def _forward(task, x, w, y, residual, constants, workspace, geometry):
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    _correlate(task, x, w, y, residual, constants, workspace, geometry)


@kernel
def _grad_input(task, x, w, y, residual, constants, workspace, geometry):
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    _correlate(task, y, w, x, residual, constants, workspace, geometry)


@subroutine
def _correlate(task, source, spectra, target, residual, constants, workspace, geometry):
    """One task: a run of pairs of tiles of one group, all channels. spectra: U of all groups."""
    s, g = header(geometry), dense(geometry)
    step = lanes(workspace)
    finish = Finish(constants, residual, s.has_residual, s.activation, s.accumulates)
    group, run = divmod(task, g.runs)
    begin, end = run * g.pairs_per_run, min((run + 1) * g.pairs_per_run, g.pairs)
    for pair in range(begin, end):
        for c in range(0, s.sources, step):
            channel = group * s.sources + c
            _gather_pair(source, channel, min(step, s.sources - c), pair, constants, workspace, geometry)
            _transform_plane(g.width, constants, workspace, geometry)
            _spread(g.seen_at + (pair - begin) * 3 * g.channels + c, workspace, geometry)
    _multiply_spectra(spectra, group, 2 * (end - begin), workspace, geometry)
    for pair in range(begin, end):
        for k in range(0, s.targets, step):
            _collect(g.sums_of_at + (pair - begin) * 2 * g.filters + k, workspace, geometry)
            _transform_plane_back(s.tile_q, constants, workspace, geometry)
            channel = group * s.targets + k
            _store_pair(target, channel, min(step, s.targets - k), pair, workspace, geometry, finish)


KERNELS = {Op.FORWARD: _forward, Op.GRAD_INPUT: _grad_input}


@subroutine
def _gather_pair(source, channel, held, pair, constants, workspace, geometry):
    """Both tiles of `held` neighbouring channels as the points of a plane; zeros where there is no second tile."""
    never_inlined()
    s, g = header(geometry), dense(geometry)
    step = lanes(workspace)
    for item in range(2 * pair, 2 * pair + 2):
        image, tile = tile_of_item(s, item)
        part = g.plane_at + (item & 1) * step
        if image < s.images:
            begin = image * s.source_n + channel * s.source_c
            gather_strips(workspace, geometry, source, begin, held, whole(s, tile), constants, True)
            for i in range(g.height):
                for j in range(0, g.width, step):
                    transpose(
                        workspace, part + i * g.row + j * 2 * step, 2 * step,
                        workspace, i * g.width + j, s.channel_pitch, held, min(step, g.width - j),
                    )  # fmt: skip
        else:
            zero = zeros(workspace, 1)
            for i in range(g.height):
                for j in range(g.width):
                    store(workspace, part + i * g.row + j * 2 * step, zero)


@subroutine
def _store_pair(target, channel, held, pair, workspace, geometry, finish):
    """Both tiles of `held` neighbouring channels."""
    never_inlined()
    s, g = header(geometry), dense(geometry)
    step = lanes(workspace)
    for item in range(2 * pair, 2 * pair + 2):
        image, tile = tile_of_item(s, item)
        part = g.plane_at + (item & 1) * step
        if image < s.images:
            for i in range(tile.height):
                for j in range(0, tile.width, step):
                    transpose(
                        workspace, i * g.width + j, s.channel_pitch,
                        workspace, part + i * g.row + j * 2 * step, 2 * step, min(step, tile.width - j), held,
                    )  # fmt: skip
            store_tile(target, image * s.target_n, workspace, 0, channel, held, geometry, tile, s.phases_at, finish)


@subroutine
def _transform_plane(columns, constants, workspace, geometry):
    """The spectrum of a plane, of which only the first columns are not zero."""
    g = dense(geometry)
    step = lanes(workspace)
    if g.height > 1:
        for j in range(columns):
            transform(workspace, g.plane_at + j * 2 * step, g.row, constants, geometry, g.column_passes)
    for i in range(g.height):
        transform(workspace, g.plane_at + i * g.row, 2 * step, constants, geometry, g.row_passes)


@subroutine
def _transform_plane_back(columns, constants, workspace, geometry):
    """Undo `_transform_plane` for the first columns."""
    g = dense(geometry)
    step = lanes(workspace)
    for i in range(g.height):
        transform_back(workspace, g.plane_at + i * g.row, 2 * step, constants, geometry, g.row_passes)
    if g.height > 1:
        for j in range(columns):
            transform_back(workspace, g.plane_at + j * 2 * step, g.row, constants, geometry, g.column_passes)


@subroutine
def _spread(to, workspace, geometry):
    """Store a register of channels of every frequency as (-Im Z, Re Z, Im Z)."""
    never_inlined()
    g = dense(geometry)
    step = lanes(workspace)
    zero = zeros(workspace, 1)
    entry = g.points_at
    for i in range(g.height):
        for point in range(g.plane_at + i * g.row, g.plane_at + i * g.row + 2 * step * g.width, 2 * step):
            at, swap = to + number(geometry, entry) * g.seen_pitch, number(geometry, entry + 1) * step
            a, b = load(workspace, point + swap, 1), load(workspace, point + step - swap, 1)
            store(workspace, at, zero - b)
            store(workspace, at + g.channels, a)
            store(workspace, at + 2 * g.channels, b)
            entry += 2


@subroutine
def _collect(begin, workspace, geometry):
    """Fetch a register of target channels of every frequency."""
    never_inlined()
    g = dense(geometry)
    step = lanes(workspace)
    entry = g.points_at
    for i in range(g.height):
        for point in range(g.plane_at + i * g.row, g.plane_at + i * g.row + 2 * step * g.width, 2 * step):
            at, swap = begin + number(geometry, entry) * g.sums_pitch, number(geometry, entry + 1) * step
            store(workspace, point + swap, load(workspace, at, 1))
            store(workspace, point + step - swap, load(workspace, at + g.filters, 1))
            entry += 2


@subroutine
def _multiply_spectra(spectra, group, rows, workspace, geometry):
    """One product of matrices for every frequency."""
    never_inlined()
    s, g = header(geometry), dense(geometry)
    size = 2 * s.sources * g.filters
    for frequency in range(g.slots + g.twice):
        slot = frequency // 2 if frequency < 2 * g.twice else frequency - g.twice
        product = Product(
            workspace, g.sums_of_at + frequency * g.sums_pitch, g.filters,
            workspace, g.seen_at + frequency * g.seen_pitch,
            spectra, (group * g.slots + slot) * size,
            geometry, g.rows_at, g.taken_at, g.offsets_at, 2 * s.sources, True,
        )  # fmt: skip
        multiply(product, rows, s.targets)


# ---- sizes

# Points of a tile along an axis.
LENGTHS = (12, 16, 20, 24, 32, 40, 48, 64)
# Pairs of tiles of a task: each register of U serves that many in a product.
PAIRS = (2, 4, 6, 8, 12, 16)
# Cycles for each register of points and each halving of a transform.
LEVEL_CYCLES = 5
# Cycles for each register of points of a pair of tiles that is gathered, and that is stored, beside its transform.
GATHERED_CYCLES = 40
STORED_CYCLES = 40
# Cycles for each register of points of a pair of filters.
FILTER_CYCLES = 30
# Cycles for each register of U, Z and Y that comes from the third-level cache.
FAR_CYCLES = 4
# The largest scratch memory of a task, and U of all groups, in bytes.
TASK_BYTES = 8 << 20
SPECTRA_BYTES = 48 << 20


@dataclass(frozen=True)
class _Sizes:
    """Extents of tiles, and the tasks."""

    cut: Cut
    pairs: int
    pairs_per_run: int
    tasks: int
    filter_tasks: int
    cycles: float
    filter_cycles: float

    @property
    def height(self) -> int:
        return self.cut.strip[1]

    @property
    def width(self) -> int:
        return self.cut.strip[2]

    @property
    def points(self) -> int:
        return self.height * self.width

    @property
    def runs(self) -> int:
        return -(-self.pairs // self.pairs_per_run)

    @property
    def twice(self) -> int:
        """Pairs of frequencies that are opposite to each other: all but 0 and the middle of each axis."""
        return (self.points - (4 if self.height > 1 else 2)) // 2

    @property
    def slots(self) -> int:
        return self.points - self.twice


class _Memory(NamedTuple):
    """Places in the workspace, in elements, and distances: strips, points, taps, Z, Y, a square of registers."""

    channel_pitch: int
    row: int
    plane_at: int
    taps_at: int
    seen_at: int
    seen_pitch: int
    sums_of_at: int
    sums_pitch: int
    scratch_at: int
    elements: int


def _memory(height: int, width: int, pairs: int, sources: int, targets: int, lanes: int) -> _Memory:
    """Distances are no powers of two: a first-level cache holds only eight lines that are so far apart."""
    points, row, channel_pitch = height * width, (width + 1) * 2 * lanes, height * width + lanes
    seen_pitch = pairs * 3 * _whole(sources, lanes) + lanes
    sums_pitch = pairs * 2 * _whole(targets, lanes) + lanes
    plane_at = lanes * channel_pitch
    taps_at = plane_at + height * row
    seen_at = taps_at + lanes * lanes
    sums_of_at = seen_at + points * seen_pitch
    scratch_at = sums_of_at + points * sums_pitch + SPARE_ROWS * _whole(targets, lanes)
    return _Memory(
        channel_pitch, row, plane_at, taps_at, seen_at, seen_pitch, sums_of_at, sums_pitch,
        scratch_at, scratch_at + lanes * lanes,
    )  # fmt: skip


def _whole(channels: int, lanes: int) -> int:
    return -(-channels // lanes) * lanes


@lru_cache(maxsize=1024)
def _sizes(problem: ConvProblem, op: Op) -> _Sizes | None:
    """The sizes that take the least time on this machine's number of threads, if there are any."""
    machine = local_machine()
    return min(_choices(problem, op), key=lambda each: _seconds(problem, each, machine), default=None)


def _choices(problem: ConvProblem, op: Op) -> Iterator[_Sizes]:
    sources, targets = channels_of(problem, op)
    lanes, extents, more = lanes_of(problem.dtype), positions(problem, op), halo(problem, op)
    heights = (1,) if extents[1] + more[1] == 1 else LENGTHS
    whole_targets = _whole(targets, lanes)
    for height, width, at_once in itertools.product(heights, LENGTHS, PAIRS):
        if height <= more[1] or width <= more[2]:
            continue
        tile_p, tile_q = even_split(extents[1], height - more[1]), even_split(extents[2], width - more[2])
        cut = Cut((1, height, width), (1, tile_p, tile_q), (1, -(-extents[1] // tile_p), -(-extents[2] // tile_q)))
        pairs = -(-problem.N * cut.number // 2)
        per_run = even_split(pairs, at_once)
        elements = _memory(height, width, per_run, sources, targets, lanes).elements
        points = height * width
        spectra = problem.groups * (points // 2 + 2) * 2 * sources * whole_targets
        if elements * problem.real_bytes > TASK_BYTES or spectra * problem.real_bytes > SPECTRA_BYTES:
            continue
        runs = -(-pairs // per_run)
        transforms = points * LEVEL_CYCLES * math.log2(points)
        blocks = -(-sources // lanes) * (transforms + points * GATHERED_CYCLES)
        blocks += -(-targets // lanes) * (transforms + points * STORED_CYCLES)
        steps = 2 * sources * row_steps(2 * per_run) * column_steps(targets, lanes)
        register_tiles = -(-2 * per_run // ROWS) * -(-(whole_targets // lanes) // VECTORS)
        product = points * (steps + register_tiles * TILE_CYCLES)
        far = spectra / problem.groups + elements
        filters = -(-targets // lanes) * -(-sources // 2) * (transforms + points * FILTER_CYCLES)
        yield _Sizes(
            cut, pairs, per_run,
            tasks=problem.groups * runs,
            filter_tasks=problem.groups * -(-targets // lanes) * -(-sources // lanes),
            cycles=problem.groups * (pairs * blocks + runs * (product + far / lanes * FAR_CYCLES)),
            filter_cycles=problem.groups * filters,
        )  # fmt: skip


def _seconds(problem: ConvProblem, sizes: _Sizes, machine: Machine) -> float:
    return machine.seconds(sizes.cycles, sizes.tasks, problem.bytes) + machine.seconds(
        sizes.filter_cycles, sizes.filter_tasks, 0
    )


# ---- plans


def plan(problem: ConvProblem, op: Op, epilogue: Epilogue) -> Plan:
    sizes = _require(problem, op)
    sources, targets = channels_of(problem, op)
    lanes = lanes_of(problem.dtype)
    memory = _memory(sizes.height, sizes.width, sizes.pairs_per_run, sources, targets, lanes)
    bias = {Op.FORWARD: problem.K, Op.GRAD_INPUT: problem.C}[op]
    own_constants = np.concatenate([factors(sizes.width), _column_factors(sizes), [0.5 / sizes.points]])
    own_constants = own_constants.astype(problem.dtype)
    vector = _geometry(problem, op, epilogue, sizes, memory, bias, bias + own_constants.size - 1)
    spectra = _spectra(problem, op, sizes)
    geometry = with_sizes(vector.copy(), problem, op, spectra, memory.elements, own_constants.size)
    filter_geometry = with_sizes(
        vector, problem, op, math.prod(problem.w_shape), memory.elements, own_constants.size, spectra
    )
    transform_filters = Launch(_transform_filters, sizes.filter_tasks, problem.dtype, filter_geometry, memory.elements)
    correlate = Launch(KERNELS[op], sizes.tasks, problem.dtype, geometry, memory.elements)

    def run(x: Array, w: Array, y: Array, residual: Array, constants: Array, threads: int) -> None:
        constants = np.concatenate([constants[:-1], own_constants, constants[-1:]])
        filters = scratch(spectra, problem.dtype, "spectra")
        transform_filters(filters, w, filters, filters, constants, threads)
        correlate(x, filters, y, residual, constants, threads)

    return Plan(
        algorithm="fft",
        problem=problem,
        op=op,
        workspace_bytes=workspace(problem, op),
        run=run,
        limit=limit(problem, op, sizes.points),
        tiles={"height": sizes.height, "width": sizes.width, "pairs": sizes.pairs_per_run, "tasks": sizes.tasks},
    )


def _column_factors(sizes: _Sizes) -> NDArray[np.float64]:
    return factors(sizes.height) if sizes.height > 1 else np.empty(0)


def _spectra(problem: ConvProblem, op: Op, sizes: _Sizes) -> int:
    """Elements of U of all groups, and a register behind."""
    sources, targets = channels_of(problem, op)
    lanes = lanes_of(problem.dtype)
    return problem.groups * sizes.slots * 2 * sources * _whole(targets, lanes) + lanes


def _geometry(
    problem: ConvProblem, op: Op, epilogue: Epilogue, sizes: _Sizes, memory: _Memory, bias: int, scale_at: int
) -> NDArray[np.int64]:
    """The geometry vector: the header of strips, that of dense tiles, and the tables."""
    sources, targets = channels_of(problem, op)
    lanes = lanes_of(problem.dtype)
    channels, filters = _whole(sources, lanes), _whole(targets, lanes)
    axes = [places(problem, op, sizes.cut, axis) for axis in range(3)]
    taps = list(itertools.product(*[each.taps for each in axes]))
    order, opposite = _opposites(sizes)
    elements = memory.row * np.arange(sizes.height)[:, None] + 2 * lanes * np.arange(sizes.width)
    points = np.stack([np.argsort(order), np.isin(np.arange(sizes.points), order[1 : 2 * sizes.twice : 2])], axis=1)
    firsts = np.concatenate([order[: 2 * sizes.twice : 2], order[2 * sizes.twice :]])
    slots = elements.reshape(-1)[np.stack([firsts, opposite[firsts]], axis=1)]
    tables = Tables(Strips)
    own = np.zeros(DENSE, np.int64)
    tables.add(own)
    own[:] = Dense(
        runs=sizes.runs,
        pairs=sizes.pairs,
        pairs_per_run=sizes.pairs_per_run,
        height=sizes.height,
        width=sizes.width,
        row=memory.row,
        column_passes=tables.add(passes(sizes.height, bias + factors(sizes.width).size)) if sizes.height > 1 else 0,
        row_passes=tables.add(passes(sizes.width, bias)),
        scale_at=scale_at,
        points_at=tables.add(points),
        slots_at=tables.add(slots),
        slots=sizes.slots,
        twice=sizes.twice,
        tap_columns=max(s for _, _, s in taps) + 1,
        taps=len(taps),
        places_at=tables.add([elements[r, s] for _, r, s in taps]),
        channels=channels,
        filters=filters,
        plane_at=memory.plane_at,
        taps_at=memory.taps_at,
        seen_at=memory.seen_at,
        seen_pitch=memory.seen_pitch,
        sums_of_at=memory.sums_of_at,
        sums_pitch=memory.sums_pitch,
        rows_at=tables.add(channels * (3 * np.arange(sizes.pairs_per_run)[:, None] + np.arange(2))),
        taken_at=tables.add(channels * np.arange(2)[:, None] + np.arange(sources)),
        offsets_at=tables.add(filters * np.arange(2 * sources)),
    )
    return strips_vector(
        tables, problem, op, epilogue, sizes.cut, axes,
        channel_pitch=memory.channel_pitch, pitch=memory.channel_pitch, scratch_at=memory.scratch_at,
    )  # fmt: skip


def _opposites(sizes: _Sizes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The points of a tile by twos of opposite frequencies, then those opposite to themselves; and all opposites."""
    rows = frequencies(sizes.height) if sizes.height > 1 else np.zeros(1, np.int64)
    columns = frequencies(sizes.width)
    height, width = sizes.height, sizes.width
    opposite_row, opposite_column = (np.argsort(each)[-each % n] for each, n in ((rows, height), (columns, width)))
    opposite = (width * opposite_row[:, None] + opposite_column).reshape(-1)
    itself = np.arange(sizes.points)
    first = np.flatnonzero(itself < opposite)
    by_twos = np.stack([first, opposite[first]], axis=1).reshape(-1)
    return np.concatenate([by_twos, np.flatnonzero(itself == opposite)]), opposite


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
    memory = _memory(sizes.height, sizes.width, sizes.pairs_per_run, sources, targets, lanes_of(problem.dtype))
    return (memory.elements + _spectra(problem, op, sizes)) * problem.real_bytes


def error_bound(problem: ConvProblem, op: Op) -> float:
    return transform_error(problem, _require(problem, op).points, channels_of(problem, op)[0])


def cost(problem: ConvProblem, op: Op, machine: Machine) -> float:
    """The cycles of both launches, and the tensors through memory once."""
    return _seconds(problem, _require(problem, op), machine)
