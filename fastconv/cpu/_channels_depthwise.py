"""Direct depthwise convolution in channels_last: a vector holds neighbouring channels of a pixel.

Every channel has a filter of its own, so that products go lane by lane. A task gathers strips of a block of channels
(`fastconv.cpu._channels`) and turns its weights around, so that those of one tap are neighbours. PIXELS sums stay in
registers while the taps go by::

    y[q, c] = sum over j of strip[q + offset[j], c] * w[j, c],   j = (t, r, s)

GRAD_INPUT is the same with the roles exchanged, each stride phase of x an output of its own with its own taps. In
GRAD_WEIGHT the sums of TAPS taps stay in registers while the pixels go by.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from ..core.algorithm import Epilogue, Plan
from ..core.jit import kernel, subroutine
from ..core.machine import local_machine
from ..core.problem import Axes, ConvProblem, Op
from ._activation import activate_row
from ._axes import folding
from ._channels import CHANNELS_CYCLES, PIXEL_CYCLES, Sizes, gather_pixels
from ._gemm import lanes_of
from ._geometry import Tables, with_sizes
from ._kernel import inner, integers_at, never_inlined, number, place, plane_at, views
from ._launch import Launch, SummedLaunch
from ._phases import axes_and_phases, fields_of, offsets_of, taken_weights
from ._rows import TRANSPOSED_CYCLES, Finish, transpose_all
from ._simd import (
    add_each,
    add_neighbouring_products,
    add_products,
    lanes,
    load,
    load_first,
    multiples_of,
    prefetch,
    store_each,
    store_first,
    tuple_of,
    zeros,
)
from ._strips import PHASE, Strips, header, tile_of
from ._tiles import (
    TASK_CYCLES,
    TASKS_LEAST,
    axes,
    halo_of,
    parts_of,
    planes_of,
    positions_of,
    summing_cycles,
)

# Pixels of a register tile: they divide rows of 7, 14, 28, 56, 112 and 224.
PIXELS = 7
# Taps whose sums stay in registers in GRAD_WEIGHT: they divide those of 3x3, 5x5 and 7x7 with little waste.
TAPS = 9
# Bytes of a strip: half of a second-level cache of 1 MiB. 8x64x112x112, 3x3 with a stride of 2, took 2.6 ms on two
# threads with 128 KiB, 2.1 with 256 and 1.7 so.
STRIP_BYTES = 512 << 10
# Bytes of the strip of a register tile, at most, however large it is: a thread is to have no more than 8 MiB.
LEAST_STRIP_BYTES = 4 << 20
# Bytes of a result whose lines are fetched before they are stored: 64x64, 240 channels, 5x5, of 3.9 MB, took 0.48 ms
# without and 0.38 so, but 14x14, 512 channels, 3x3, of 0.4 MB, 0.034 and 0.039.
FAR_BYTES = 3 << 20
# Cycles of a register tile beside its products.
TILE_CYCLES = 20


# ---- kernels


@kernel
def _forward(task, x, w, y, residual, constants, workspace, geometry):
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    _filter_channels(task, x, w, y, residual, constants, workspace, geometry)


@kernel
def _grad_input(task, x, w, y, residual, constants, workspace, geometry):
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    _filter_channels(task, y, w, x, residual, constants, workspace, geometry)


@subroutine
def _filter_channels(task, source, weights, target, residual, constants, workspace, geometry):
    """One task: a run of the tiles of all images, one block of channels.

    source, target: channels last; weights: (channels, taps); workspace: a strip, the weights, both by vectors.
    """
    g = header(geometry)
    step, tiles, taps = lanes(workspace), g.tiles_z * g.tiles_p * g.tiles_q, g.weight_group
    block, run = divmod(task, -(-g.images * tiles // g.tiles_per_task))
    begin, end = block * g.channel_block, min((block + 1) * g.channel_block, g.groups)
    for c in range(begin, end, step):
        to = g.panel_at + (c - begin) * taps
        transpose_all(workspace, to, step, weights, c * taps, taps, min(step, end - c), taps)
    finish = Finish(constants, residual, g.has_residual, g.activation, None)
    for item in range(run * g.tiles_per_task, min((run + 1) * g.tiles_per_task, g.images * tiles)):
        image, rank = divmod(item, tiles)
        tile = tile_of(g, rank)
        gather_pixels(workspace, geometry, source, image * g.source_n + begin, end - begin, tile, constants)
        for c in range(begin, end, step):
            strip, weights_at = (c - begin) // step * g.vector_pitch, g.panel_at + (c - begin) * taps
            for phase in range(g.phases):
                _filter_tile(
                    target, image * g.target_n, workspace, strip, weights_at, geometry, g.phases_at + phase * PHASE,
                    tile, c, min(step, end - c), finish,
                )  # fmt: skip


@subroutine
def _filter_tile(target, target_at, workspace, strip, weights_at, geometry, entry, tile, channel, count, finish):
    """`count` channels of one phase of a tile: every row of its pixels, stored and finished."""
    never_inlined()
    g = header(geometry)
    plane_d = plane_at(geometry, g.target_axis_d, geometry[entry + 3])
    plane_h = plane_at(geometry, g.target_axis_h, geometry[entry + 4])
    plane_w = plane_at(geometry, g.target_axis_w, geometry[entry + 5])
    distance = geometry[g.target_axis_w + 1] * g.target_w
    width = inner(geometry, plane_w, tile.q, tile.width)[1]
    for d in range(tile.depth):
        in_d = place(geometry, plane_d, tile.z + d)
        for h in range(tile.height):
            in_h = place(geometry, plane_h, tile.p + h)
            if width > 0 and in_d >= 0 and in_h >= 0:
                at = target_at + in_d * g.target_d + in_h * g.target_h + channel
                at += place(geometry, plane_w, tile.q) * g.target_w
                begin = strip + (d * g.strip_h + h) * g.strip_w * lanes(workspace)
                _filter_row(
                    target, at, distance, width, workspace, begin, weights_at, geometry, entry, channel, count, finish
                )  # fmt: skip
                _finish_row(target, at, distance, width, count, finish)


@subroutine
def _filter_row(
    target, target_at, distance, width, workspace, begin, weights_at, geometry, entry, channel, count, finish
):  # fmt: skip
    """`width` pixels of the target, `distance` elements apart, from the strip from `begin` on, with their bias."""
    g = header(geometry)
    step = lanes(workspace)
    taps, offsets_at, taken_at = geometry[entry], geometry[entry + 1] + 1, geometry[entry + 2]
    together = number(geometry, offsets_at - 1)
    bias, pixels = load_first(finish.constants, channel, count, 1), multiples_of(step, PIXELS)
    for q in range(0, width, PIXELS):
        # Stored after all taps: a line that has to come from far is there by then.
        for i in range(q, q + PIXELS if g.is_far else q):
            prefetch(target, target_at + i * distance)
        at, totals = begin + q * step, tuple_of(bias, PIXELS)
        for j in range(0, together, 3):
            weights = (
                load(workspace, weights_at + number(geometry, taken_at + j), 1),
                load(workspace, weights_at + number(geometry, taken_at + j + 1), 1),
                load(workspace, weights_at + number(geometry, taken_at + j + 2), 1),
            )
            totals = add_neighbouring_products(totals, weights, workspace, at + number(geometry, offsets_at + j))
        for j in range(together, taps):
            weight = load(workspace, weights_at + number(geometry, taken_at + j), 1)
            totals = add_products(totals, weight, workspace, at + number(geometry, offsets_at + j), pixels)
        store_each(target, target_at + q * distance, distance, min(PIXELS, width - q), count, totals)


@subroutine
def _finish_row(target, target_at, distance, width, count, finish):
    """Add the residual to what is stored, and apply the activation."""
    if finish.has_residual or finish.activation != 0:
        for at in range(target_at, target_at + width * distance, distance):
            if finish.has_residual:
                value = load_first(target, at, count, 1) + load_first(finish.residual, at, count, 1)
                store_first(target, at, count, value)
            activate_row(target, at, 1, count, finish.activation)


@kernel
def _grad_weight(task, x, w, y, residual, constants, workspace, geometry):
    """One task: a run of the tiles of all images, one block of channels.

    x, y: channels last; w: (runs, channels, taps), to be added up over the runs; workspace: a strip, sums, both by
    vectors.
    """
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    g = header(geometry)
    step, tiles, taps = lanes(workspace), g.tiles_z * g.tiles_p * g.tiles_q, g.weight_group
    block, run = divmod(task, -(-g.images * tiles // g.tiles_per_task))
    begin, end = block * g.channel_block, min((block + 1) * g.channel_block, g.groups)
    sums_pitch, first = -(-taps // TAPS) * TAPS * step, run * g.tiles_per_task
    for item in range(first, min(first + g.tiles_per_task, g.images * tiles)):
        image, rank = divmod(item, tiles)
        tile = tile_of(g, rank)
        gather_pixels(workspace, geometry, x, image * g.source_n + begin, end - begin, tile, constants)
        for c in range(begin, end, step):
            vector = (c - begin) // step
            _add_tile(
                workspace, vector * g.vector_pitch, g.panel_at + vector * sums_pitch, y, image * g.target_n + c,
                min(step, end - c), geometry, tile, item == first,
            )  # fmt: skip
    for c in range(begin, end, step):
        sums = g.panel_at + (c - begin) // step * sums_pitch
        transpose_all(w, (run * g.groups + c) * taps, taps, workspace, sums, step, taps, min(step, end - c))


@subroutine
def _add_tile(workspace, strip, sums_at, y, y_at, count, geometry, tile, fresh):
    """Set the sums of every tap of `count` channels to those of a tile, or add these."""
    never_inlined()
    g = header(geometry)
    step = lanes(workspace)
    offsets_at = geometry[g.phases_at + 1]
    for j in range(0, g.weight_group, TAPS):
        offsets = integers_at(geometry, offsets_at + j, TAPS)
        totals = tuple_of(zeros(workspace, 1), TAPS)
        for d in range(tile.depth):
            for h in range(tile.height):
                row = y_at + (tile.z + d) * g.target_d + (tile.p + h) * g.target_h + tile.q * g.target_w
                begin = strip + (d * g.strip_h + h) * g.strip_w * step
                for q in range(tile.width):
                    seen = load_first(y, row + q * g.target_w, count, 1)
                    totals = add_products(totals, seen, workspace, begin + q * step, offsets)
        to = sums_at + j * step
        if not fresh:
            totals = add_each(totals, workspace, to, step)
        store_each(workspace, to, step, TAPS, step, totals)


KERNELS = {Op.FORWARD: _forward, Op.GRAD_INPUT: _grad_input, Op.GRAD_WEIGHT: _grad_weight}


# ---- sizes


def serves(problem: ConvProblem, op: Op) -> bool:
    """Whether this computes a problem."""
    return (
        problem.layout == "channels_last"
        and problem.real_products == 1
        and problem.groups == problem.C == problem.K
        and lanes_of(problem.dtype) // 2 <= problem.C
        and not (op is Op.GRAD_INPUT and folding(problem))
        and _least_strip(problem, op) * np.dtype(problem.dtype).itemsize <= LEAST_STRIP_BYTES
    )


def _least_strip(problem: ConvProblem, op: Op) -> int:
    """Elements of the strip of a register tile."""
    depth, height, width = halo_of(problem, op)
    pixels = math.prod(planes_of(problem, op)) * (1 + depth) * (1 + height) * (PIXELS + width)
    return pixels * lanes_of(problem.dtype)


@lru_cache(maxsize=1024)
def sizes_of(problem: ConvProblem, op: Op) -> Sizes:
    """The sizes that take the least time."""
    threads = TASKS_LEAST if op is Op.GRAD_WEIGHT else local_machine().threads
    return min(_tilings(problem, op), key=lambda each: each.time(threads))


def _tilings(problem: ConvProblem, op: Op) -> Iterator[Sizes]:
    positions, halo, planes = positions_of(problem, op), halo_of(problem, op), planes_of(problem, op)
    size, lanes = np.dtype(problem.dtype).itemsize, lanes_of(problem.dtype)
    phases = math.prod(problem.stride) if op is Op.GRAD_INPUT else 1
    vectors = -(-problem.C // lanes)
    for tile, columns in itertools.product(
        _tiles(positions, STRIP_BYTES // (2 * lanes * size)), parts_of(vectors, vectors)
    ):
        strip = axes(part + more for part, more in zip(tile, halo, strict=True))
        held = math.prod(planes) * math.prod(strip)
        if held * columns * lanes * size > STRIP_BYTES and (columns > 1 or math.prod(tile) > PIXELS):
            continue
        gather = held * (PIXEL_CYCLES + CHANNELS_CYCLES * columns)
        rows = tile[0] * tile[1]
        if op is Op.GRAD_WEIGHT:
            taken = -(-problem.taps // TAPS)
            item: float = gather + taken * columns * (rows * tile[2] * (TAPS + 1) + 2 * TAPS)
        else:
            tiles = phases * rows * -(-tile[2] // PIXELS) * columns
            item = gather + tiles * (TILE_CYCLES + PIXELS) + tiles / phases * problem.taps * (PIXELS + 1)
        items = problem.N * math.prod(-(-whole // part) for whole, part in zip(positions, tile, strict=True))
        blocks = -(-vectors // columns)
        turned = problem.taps * columns * TRANSPOSED_CYCLES + TASK_CYCLES
        threads = TASKS_LEAST if op is Op.GRAD_WEIGHT else 4 * local_machine().threads
        for per_task in {-(-items // parts) for parts in range(1, min(items, threads) + 1)}:
            runs = -(-items // per_task)
            parts = runs if op is Op.GRAD_WEIGHT else 1
            yield Sizes(
                positions, tile, strip, planes, columns * lanes, 1, False, columns * lanes, blocks * runs,
                tiles_per_task=per_task, parts=parts, additions=math.prod(tile) + items,
                cycles=blocks * (items * item + runs * turned) + summing_cycles(problem, parts),
            )  # fmt: skip


def _tiles(positions: Axes, pixels: int) -> Iterator[Axes]:
    """Parts of a row, at most so many pixels of it, and a register tile; whole rows, or whole planes."""
    depth, height, width = positions
    yield 1, 1, min(width, PIXELS)
    for part in itertools.islice(parts_of(width, pixels), 6):
        yield 1, 1, part
    for part in parts_of(height, height):
        yield 1, part, width
    for part in parts_of(depth, depth):
        yield part, height, width


def workspace(problem: ConvProblem, op: Op) -> int:
    """Scratch memory of a thread, in bytes."""
    return sum(_memory(problem, op)) * np.dtype(problem.dtype).itemsize


def _memory(problem: ConvProblem, op: Op) -> tuple[int, int]:
    """Elements of a strip, with what a last register tile reads behind it, and of the weights or their sums."""
    sizes = sizes_of(problem, op)
    pitch = sizes.channel_block
    return sizes.channel_pitch * pitch + PIXELS * lanes_of(problem.dtype), -(-problem.taps // TAPS) * TAPS * pitch


# ---- plans


def _in_threes(places: list[int]) -> tuple[list[int], int]:
    """An order of taps: first those of which three after one another read neighbours, and how many these are."""
    order = sorted(range(len(places)), key=places.__getitem__)
    threes: list[int] = []
    others: list[int] = []
    at = 0
    while at < len(order):
        if [places[tap] - places[order[at]] for tap in order[at : at + 3]] == [0, 1, 2]:
            threes += order[at : at + 3]
            at += 3
        else:
            others.append(order[at])
            at += 1
    return threes + others, len(threes)


def plan(whole: ConvProblem, problem: ConvProblem, op: Op, epilogue: Epilogue) -> Plan:
    """The plan of a problem, as it was and with its axes made one."""
    sizes = sizes_of(problem, op)
    panel_at, weights = _memory(problem, op)
    step = lanes_of(problem.dtype)
    source_axes, target_axes, phases = axes_and_phases(problem, op, sizes)
    tables = Tables(Strips)
    entries: list[int] = []
    for phase in phases:
        offsets, taken = offsets_of(phase, sizes, 1), taken_weights(phase, problem, 1, 0)
        if op is Op.GRAD_WEIGHT:
            offsets = step * np.append(offsets, np.repeat(offsets[-1:], -offsets.size % TAPS))
        else:
            order, together = _in_threes(offsets.tolist())
            offsets, taken = np.append(together, step * offsets[order]), step * taken[order]
        entries += [phase.count, tables.add(offsets), tables.add(taken), *phase.slots]
    vector = tables.partial_vector(
        **fields_of(tables, problem, op, epilogue, sizes, (source_axes, target_axes)),
        is_far=math.prod(problem.result_shape(op)) * problem.real_bytes >= FAR_BYTES,
        pixel_pitch=step,
        vector_pitch=step * sizes.channel_pitch,
        panel_at=panel_at,
        phases=len(phases),
        phases_at=tables.add(entries),
    )
    geometry = with_sizes(vector, problem, op, sizes.parts * math.prod(problem.w_shape), panel_at + weights)
    launch = Launch(KERNELS[op], sizes.tasks, problem.dtype, geometry, panel_at + weights)
    return Plan(
        algorithm="direct",
        problem=whole,
        op=op,
        workspace_bytes=workspace(problem, op),
        run=SummedLaunch(launch, sizes.parts) if op is Op.GRAD_WEIGHT else launch,
        tiles={"pixels": math.prod(sizes.tile), "channels": sizes.channel_block, "tasks": sizes.tasks},
    )
