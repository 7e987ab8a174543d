"""GRAD_WEIGHT of many channels through the Fourier transform of small tiles, as `fastconv.cpu._fft_dense`.

With z = a + i b for two tiles of x and v for those of y, the sum over both tiles is the real part of a correlation.
That is half the sum over opposite frequencies, which exchanging real and imaginary parts gives::

    W(f)  =  Z(f) conj(V(f)) + conj(Z(-f)) V(-f)  =  Z(f) conj(V(f)) + swap(Z(-f)) conj(swap(V(-f)))

so that it is one product of complex matrices over tiles and opposite frequencies, Z: (C, pairs), conj(V): (pairs, K),
W: (C, K), which takes three real ones (`fastconv.cpu._fft_tiles`). Two input channels are put together again as one
complex spectrum.

Sources: those of `fastconv.cpu._fft_dense`.
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

from ..core.algorithm import PLAIN, Epilogue, Plan
from ..core.jit import kernel, subroutine
from ..core.machine import Machine
from ..core.problem import ConvProblem, Op
from ._extremes import is_extreme
from ._fft_tiles import (
    LEVEL_CYCLES,
    OWN,
    TILES,
    Shape,
    Tiles,
    gather_pair,
    product_of,
    shapes,
    spread,
    store_factor,
    tile_fields,
    tiles_of,
    transform_plane,
    transform_plane_back,
    whole_registers,
)
from ._fourier import limit, transform_error
from ._gemm import ROWS, SPARE_ROWS, TILE_CYCLES, VECTORS, Product, column_steps, lanes_of, multiply, row_cycles
from ._geometry import Tables, even_split, with_sizes
from ._kernel import elements_in, first_integers, never_inlined, number, views
from ._launch import Launch, SummedLaunch
from ._overlap import serves, strips_vector, tile_of_item
from ._rows import fill
from ._simd import lanes, load, load_first, splat, store, transpose, zeros
from ._strips import Strips, header
from ._tiles import TASKS_LEAST, channels_of


class Weight(NamedTuple):
    """Integers behind those of `Tiles`; positions are in the workspace unless they say otherwise."""

    source_block: int  # channels of a task
    target_block: int
    at_once: int  # pairs of tiles in a product
    given_at: int  # V, (frequencies, 3, pairs, filters)
    given_pitch: int
    totals_at: int  # W in three parts, (slots, 3, source_block, filters)
    totals_apart: int  # from one part to the next
    totals_pitch: int
    rows_at: int  # in the geometry vector: tables of the products
    taken_at: int  # of frequencies with an opposite one
    offsets_at: int
    own_taken_at: int  # of frequencies that are their own opposites
    own_offsets_at: int


WEIGHT = len(Weight._fields)


@subroutine
def weight_of(geometry):
    return Weight(*first_integers(geometry[OWN:], WEIGHT))


# ---- kernel


@kernel
def _grad_weight(task, x, w, y, residual, constants, workspace, geometry):
    """One task: a run of pairs of tiles, a block of source and one of target channels of one group.

    w: (runs, K, C / groups, taps), to be added up over the runs.
    """
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    s, g, b = header(geometry), tiles_of(geometry), weight_of(geometry)
    step = lanes(workspace)
    source_blocks, target_blocks = -(-s.sources // b.source_block), -(-s.targets // b.target_block)
    run, rest = divmod(task, s.groups * source_blocks * target_blocks)
    group, rest = divmod(rest, source_blocks * target_blocks)
    c, k = rest // target_blocks * b.source_block, rest % target_blocks * b.target_block
    sources, targets = min(b.source_block, s.sources - c), min(b.target_block, s.targets - k)
    begin, end = run * g.pairs_per_run, min((run + 1) * g.pairs_per_run, g.pairs)
    for first in range(begin, end, b.at_once):
        last = min(first + b.at_once, end)
        for pair in range(first, last):
            for i in range(0, sources, step):
                channel = group * s.sources + c + i
                gather_pair(x, channel, min(step, sources - i), pair, constants, workspace, geometry)
                transform_plane(g.width, workspace, geometry)
                at = g.seen_at + (pair - first) * g.channels + i
                spread(at, g.seen_pitch, b.at_once * g.channels, workspace, geometry)
            for i in range(0, targets, step):
                channel = group * s.targets + k + i
                _gather_outputs(y, channel, min(step, targets - i), pair, workspace, geometry)
                transform_plane(s.tile_q, workspace, geometry)
                at = b.given_at + (pair - first) * g.filters + i
                _spread_factors(at, b.given_pitch, b.at_once * g.filters, workspace, geometry)
        _add_products(sources, targets, last - first, first == begin, workspace, geometry)
    w_at = (run * s.groups + group) * s.weight_group + c * s.weight_source + k * s.weight_target
    for i in range(0, targets, step):
        for j in range(0, sources, 2):
            both = j + 1 < sources
            _put_together(b.totals_at + j * g.filters + i, both, workspace, geometry)
            transform_plane_back(g.tap_columns, workspace, geometry)
            for part in range(2 if both else 1):
                at = w_at + i * s.weight_target + (j + part) * s.weight_source
                _store_taps(w, at, min(step, targets - i), part, workspace, geometry)


@subroutine
def _gather_outputs(y, channel, held, pair, workspace, geometry):
    """The outputs of both tiles of `held` neighbouring channels as the points of a plane, and zeros around them."""
    never_inlined()
    s, g = header(geometry), tiles_of(geometry)
    step = lanes(workspace)
    fill(workspace, g.plane_at, g.height * g.row, 0)
    for item in range(2 * pair, 2 * pair + 2):
        image, tile = tile_of_item(s, item)
        if image < s.images:
            for i in range(tile.height):
                to = g.plane_at + (item & 1) * step + i * g.row
                begin = image * s.target_n + channel * s.target_c + (tile.p + i) * s.target_h + tile.q * s.target_w
                if s.target_c == 1:
                    for j in range(tile.width):
                        store(workspace, to + j * 2 * step, load_first(y, begin + j * s.target_w, held, 1))
                else:
                    for j in range(0, tile.width, step):
                        transpose(
                            workspace, to + j * 2 * step, 2 * step,
                            y, begin + j, s.target_c, held, min(step, tile.width - j),
                        )  # fmt: skip


@subroutine
def _spread_factors(to, pitch, apart, workspace, geometry):
    """`spread` of the conjugates, in the parts that meet those."""
    never_inlined()
    g = tiles_of(geometry)
    step = lanes(workspace)
    zero = zeros(workspace, 1)
    entry = g.points_at
    for i in range(g.height):
        for point in range(g.plane_at + i * g.row, g.plane_at + i * g.row + 2 * step * g.width, 2 * step):
            at, swap = to + number(geometry, entry) * pitch, number(geometry, entry + 1) * step
            real, imaginary = load(workspace, point + swap, 1), load(workspace, point + step - swap, 1)
            store_factor(workspace, at, apart, real, zero - imaginary)
            entry += 2


@subroutine
def _add_products(rows, columns, pairs, fresh, workspace, geometry):
    """Three products of matrices for every frequency but the opposite ones."""
    never_inlined()
    g, b = tiles_of(geometry), weight_of(geometry)
    for slot in range(g.slots):
        doubled = slot < g.twice
        frequency = 2 * slot if doubled else slot + g.twice
        for part in range(3):
            product = Product(
                workspace, b.totals_at + slot * b.totals_pitch + part * b.totals_apart, g.filters,
                workspace, g.seen_at + frequency * g.seen_pitch + part * b.at_once * g.channels,
                workspace, b.given_at + frequency * b.given_pitch + part * b.at_once * g.filters,
                geometry, b.rows_at,
                b.taken_at if doubled else b.own_taken_at,
                b.offsets_at if doubled else b.own_offsets_at,
                2 * pairs if doubled else pairs, fresh,
            )  # fmt: skip
            multiply(product, rows, columns)


@subroutine
def _put_together(begin, both, workspace, geometry):
    """The spectrum s + i t of two source channels, and conj(s) + i conj(t) at the opposite frequency."""
    never_inlined()
    g, b = tiles_of(geometry), weight_of(geometry)
    step = lanes(workspace)
    zero = zeros(workspace, 1)
    for slot in range(g.slots):
        at = begin + slot * b.totals_pitch
        s_real, s_imaginary = product_of(workspace, at, b.totals_apart)
        t_real, t_imaginary = zero, zero
        if both:
            t_real, t_imaginary = product_of(workspace, at + g.filters, b.totals_apart)
        point = g.plane_at + number(geometry, g.slots_at + 2 * slot)
        opposite = g.plane_at + number(geometry, g.slots_at + 2 * slot + 1)
        if slot < g.twice:
            store(workspace, point, s_real - t_imaginary)
            store(workspace, point + step, s_imaginary + t_real)
            store(workspace, opposite, s_real + t_imaginary)
            store(workspace, opposite + step, t_real - s_imaginary)
        else:  # both of these in the same place
            store(workspace, point, s_real + s_real)
            store(workspace, point + step, t_real + t_real)


@subroutine
def _store_taps(w, w_at, held, part, workspace, geometry):
    """The taps of `held` neighbouring target channels, from the real or imaginary parts of points."""
    never_inlined()
    s, g = header(geometry), tiles_of(geometry)
    step = lanes(workspace)
    scale = splat(elements_in(geometry, workspace), g.scale_at, 1)
    for first in range(0, g.taps, step):
        count = min(step, g.taps - first)
        for tap in range(count):
            place = g.plane_at + number(geometry, g.places_at + first + tap) + part * step
            store(workspace, g.taps_at + tap * step, load(workspace, place, 1) * scale)
        transpose(w, w_at + first, s.weight_target, workspace, g.taps_at, step, count, held)


# ---- sizes

# Pairs of tiles in a product: its inner index goes over twice as many.
PAIRS = (4, 8, 12, 16, 24, 32)
# Channels of a task.
BLOCKS = (16, 32, 64, 128)
# Cycles for each register of points of a pair of tiles beside its transform, and of a pair of filters likewise. They
# and the next are estimates: with them the price is 0.94 to 1.4 times what 9 taps, 5x5, 7x7, 9x9 and 11x11 with 3 to
# 128 channels took on the machine of docs/performance.md.
GATHERED_CYCLES = 60
FILTER_CYCLES = 30
# Cycles for each register of W that is added to, beside its products.
TOTAL_CYCLES = 6
# The largest scratch memory of a task, in bytes.
TASK_BYTES = 8 << 20


@dataclass(frozen=True)
class _Sizes:
    """Extents of tiles and blocks, and the tasks."""

    shape: Shape
    source_block: int
    target_block: int
    at_once: int
    pairs: int
    runs: int
    tasks: int
    cycles: float

    @property
    def pairs_per_run(self) -> int:
        return -(-self.pairs // self.runs)


class _Memory(NamedTuple):
    """Places in the workspace, in elements, and distances: points (from 0 on), taps, Z, V, W."""

    row: int
    taps_at: int
    seen_at: int
    seen_pitch: int
    given_at: int
    given_pitch: int
    totals_at: int
    totals_apart: int
    totals_pitch: int
    elements: int


def _memory(shape: Shape, at_once: int, source_block: int, target_block: int, lanes: int) -> _Memory:
    """Distances are no powers of two: a first-level cache holds only eight lines that are so far apart."""
    row = (shape.width + 1) * 2 * lanes
    filters = whole_registers(target_block, lanes)
    seen_pitch = at_once * 3 * whole_registers(source_block, lanes) + lanes
    given_pitch = at_once * 3 * filters + lanes
    totals_apart = (source_block + SPARE_ROWS) * filters
    totals_pitch = 3 * totals_apart + lanes
    taps_at = shape.height * row
    seen_at = taps_at + lanes * lanes
    given_at = seen_at + shape.points * seen_pitch
    totals_at = given_at + shape.points * given_pitch
    return _Memory(
        row, taps_at, seen_at, seen_pitch, given_at, given_pitch,
        totals_at, totals_apart, totals_pitch, totals_at + shape.slots * totals_pitch,
    )  # fmt: skip


@lru_cache(maxsize=1024)
def _sizes(problem: ConvProblem) -> _Sizes | None:
    """The sizes that take the fewest cycles, if there are any."""
    return min(_choices(problem), key=lambda each: each.cycles, default=None)


def _choices(problem: ConvProblem) -> Iterator[_Sizes]:
    sources, targets = channels_of(problem, Op.GRAD_WEIGHT)
    lanes = lanes_of(problem.dtype)
    blocks = {(min(c, sources), min(k, targets)) for c, k in itertools.product(BLOCKS, BLOCKS)}
    for shape, at_once, (source_block, target_block) in itertools.product(
        shapes(problem, Op.GRAD_WEIGHT), PAIRS, sorted(blocks)
    ):
        points = shape.points
        pairs = -(-problem.N * shape.cut.number // 2)
        at_once = even_split(pairs, at_once)
        memory = _memory(shape, at_once, source_block, target_block, lanes)
        if memory.elements * problem.real_bytes > TASK_BYTES:
            continue
        count = problem.groups * -(-sources // source_block) * -(-targets // target_block)
        runs = min(pairs, -(-TASKS_LEAST // count))
        runs = -(-pairs // -(-pairs // runs))
        gathered = points * (LEVEL_CYCLES * math.log2(points) + GATHERED_CYCLES)
        vectors = -(-target_block // lanes)
        registers = -(-source_block // lanes) + vectors
        steps = row_cycles(source_block) * column_steps(target_block, lanes)
        product = 3 * pairs * points * steps
        register_tiles = 3 * -(-source_block // ROWS) * -(-vectors // VECTORS)
        totals = 3 * source_block * vectors
        added = -(-pairs // at_once) * shape.slots * (register_tiles * TILE_CYCLES + totals * TOTAL_CYCLES)
        filters = vectors * -(-source_block // 2) * points * (LEVEL_CYCLES * math.log2(points) + FILTER_CYCLES)
        yield _Sizes(
            shape, source_block, target_block, at_once, pairs, runs,
            tasks=count * runs,
            cycles=count * (pairs * registers * gathered + product + added + runs * filters),
        )  # fmt: skip


# ---- plans


def plan(problem: ConvProblem, op: Op, epilogue: Epilogue) -> Plan:
    sizes = _require(problem)
    memory = _memory_of(problem, sizes)
    weight_size = sizes.runs * math.prod(problem.w_shape)
    vector = _geometry(problem, sizes, memory)
    geometry = with_sizes(vector, problem, op, weight_size, memory.elements)
    launch = Launch(_grad_weight, sizes.tasks, problem.dtype, geometry, memory.elements)
    return Plan(
        algorithm="fft",
        problem=problem,
        op=op,
        workspace_bytes=workspace(problem, op),
        run=SummedLaunch(launch, sizes.runs),
        limit=limit(problem, op, sizes.shape.points),
        is_extreme=is_extreme,
        tiles={
            "height": sizes.shape.height,
            "width": sizes.shape.width,
            "channels": sizes.source_block,
            "rows": sizes.target_block,
            "tasks": sizes.tasks,
        },
    )


def _geometry(problem: ConvProblem, sizes: _Sizes, memory: _Memory) -> NDArray[np.int64]:
    """The geometry vector: the header of strips, that of tiles, our own, and the tables."""
    lanes = lanes_of(problem.dtype)
    channels, filters = whole_registers(sizes.source_block, lanes), whole_registers(sizes.target_block, lanes)
    tables = Tables(Strips)
    own = np.zeros(TILES + WEIGHT, np.int64)
    tables.add(own)
    own[:TILES] = Tiles(
        runs=sizes.runs,
        pairs=sizes.pairs,
        pairs_per_run=sizes.pairs_per_run,
        **tile_fields(tables, problem, Op.GRAD_WEIGHT, sizes.shape, memory.row),
        channels=channels,
        filters=filters,
        plane_at=0,
        taps_at=memory.taps_at,
        seen_at=memory.seen_at,
        seen_pitch=memory.seen_pitch,
    )
    pair, opposite = np.ogrid[: sizes.at_once, :2]  # the inner index of products
    taken = opposite * memory.seen_pitch + pair * channels
    offsets = opposite * memory.given_pitch + pair * filters
    own[TILES:] = Weight(
        source_block=sizes.source_block,
        target_block=sizes.target_block,
        at_once=sizes.at_once,
        given_at=memory.given_at,
        given_pitch=memory.given_pitch,
        totals_at=memory.totals_at,
        totals_apart=memory.totals_apart,
        totals_pitch=memory.totals_pitch,
        rows_at=tables.add(np.arange(sizes.source_block)),
        taken_at=tables.add(taken),
        offsets_at=tables.add(offsets),
        own_taken_at=tables.add(taken[:, 0]),
        own_offsets_at=tables.add(offsets[:, 0]),
    )
    return strips_vector(tables, problem, Op.GRAD_WEIGHT, PLAIN, sizes.shape.cut)


# ---- what the selector asks


def supports(problem: ConvProblem, op: Op) -> bool:
    """Whether this kernel serves: real tensors of one or two axes, without strides."""
    return op is Op.GRAD_WEIGHT and serves(problem) and _sizes(problem) is not None


def _require(problem: ConvProblem) -> _Sizes:
    sizes = _sizes(problem)
    assert sizes is not None, "supports was asked before"
    return sizes


def _memory_of(problem: ConvProblem, sizes: _Sizes) -> _Memory:
    return _memory(sizes.shape, sizes.at_once, sizes.source_block, sizes.target_block, lanes_of(problem.dtype))


def workspace(problem: ConvProblem, op: Op) -> int:
    return _memory_of(problem, _require(problem)).elements * problem.real_bytes


def error_bound(problem: ConvProblem, op: Op) -> float:
    """Sums over the pairs of a product, over the products of a run, and over the runs."""
    sizes = _require(problem)
    spectra = 2 * sizes.at_once + -(-sizes.pairs_per_run // sizes.at_once) + sizes.runs
    return transform_error(problem, sizes.shape.points, spectra)


def cost(problem: ConvProblem, op: Op, machine: Machine) -> float:
    """The cycles of the tasks, and the tensors through memory once."""
    sizes = _require(problem)
    return machine.seconds(sizes.cycles, sizes.tasks, problem.bytes)
