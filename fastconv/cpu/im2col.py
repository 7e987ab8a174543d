"""im2col: store the patch matrix, a slab at a time, and multiply it by the weight matrix.

Column i of the patch matrix holds what output pixel i sees, row j = (c, t, r, s) one tap of one channel::

    patch[j, i] = x_padded[c, i * stride + (t, r, s) * dilation]
    FORWARD      y[k, i]    = sum over j of w[k, j] * patch[j, i]
    GRAD_INPUT   patch[j, i] = sum over k of w[k, j] * y[k, i],  added back to where it came from (col2im)
    GRAD_WEIGHT  w[k, j]    = sum over i of y[k, i] * patch[j, i]

A slab is a block of rows and a run of pixels, sized to stay in the second-level cache, so the workspace does not
grow with the problem. Pixels are numbered through the whole output, with no border columns: small outputs lose
nothing. GRAD_INPUT gives each task whole channels of x, so that no two tasks add to one element.

Source: Chellapilla, Puri, Simard, "High Performance Convolutional Neural Networks for Document Processing",
IWFHR 2006, section 3 (unrolling convolution into a matrix product).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import uint64

from ..core.algorithm import Algorithm, Array, Plan
from ..core.jit import kernel, subroutine
from ..core.machine import Machine, local_machine
from ..core.problem import ConvProblem, Op
from ._axes import input_axis
from ._gemm import dots, multiply, padded, peak_flops, whole_rows
from ._geometry import Tables, even_split, initialise, tensor_strides, with_sizes
from ._launch import launch, summed_in_parts
from ._loops import (
    SIZES,
    TILE_PIXELS,
    copying,
    error_bound,
    fill,
    first_integers,
    gather_row,
    place,
    plane_at,
    scatter_row,
    views,
)

# The slab and the sums of a task, each a quarter of a second-level cache of 1 MiB.
SLAB_BYTES = 256 << 10
SUMS_BYTES = 256 << 10
# The sum over the pixels is cut into parts until there are this many tasks; a constant, so that the result does not
# depend on the machine.
PARTS_LEAST = 8
ROWS_LEAST = 16


class Slabs(NamedTuple):
    """The header of the geometry vector."""

    sizes_1: int
    sizes_2: int
    sizes_3: int
    sizes_4: int
    sizes_5: int
    sizes_6: int
    groups: int
    images: int
    patch_rows: int  # of one group: C / groups * taps
    output_channels: int  # of one group
    row_block: int  # patch rows of a slab
    channel_block: int  # output channels in the workspace at once
    span: int  # GRAD_INPUT: patch rows of a task, those of whole channels
    run_pixels: int  # pixels of a slab
    pitch: int  # distance of its rows
    runs: int  # slabs that the pixels of one image make
    runs_per_task: int  # GRAD_WEIGHT: of all images
    pixels: int
    output_h: int
    output_w: int
    x_n: int  # strides in elements
    x_c: int
    x_d: int
    x_h: int
    x_w: int
    y_n: int
    y_c: int
    y_pixel: int
    axis_d: int  # positions of the packed input axes in the vector
    axis_h: int
    axis_w: int
    taps: int
    taps_at: int  # for each tap its slot and shift in d, h and w
    offsets_at: int  # the rows that `multiply` and `dots` read in the workspace
    taken_at: int  # the weights that belong to them


HEADER = len(Slabs._fields)
TAP = 6


# ---- kernels


@kernel
def _forward(task, x, w, y, constants, workspace, geometry):
    """One task: a run of pixels of one image, one block of output channels of one group.

    w: (groups, K / groups, patch rows); workspace: slab (row_block, pitch), sums (channel_block, pitch).
    """
    x, w, y, constants, workspace, geometry = views(x, w, y, constants, workspace, geometry)
    g = Slabs(*first_integers(geometry, HEADER))
    blocks = -(-g.output_channels // g.channel_block)
    image, rest = divmod(task, g.groups * g.runs * blocks)
    group, rest = divmod(rest, g.runs * blocks)
    run, block = divmod(rest, blocks)
    pixel = run * g.run_pixels
    count = min(g.run_pixels, g.pixels - pixel)
    rows = min(g.channel_block, g.output_channels - block * g.channel_block)
    channel = group * g.output_channels + block * g.channel_block
    sums = g.row_block * g.pitch
    outside = constants[constants.size - 1]
    fill(workspace, sums, rows * g.pitch, 0)
    for first in range(0, g.patch_rows, g.row_block):
        terms = min(g.row_block, g.patch_rows - first)
        _gather_patches(workspace, g, geometry, x, image, group, first, terms, pixel, count, outside)
        multiply(
            workspace, sums, g.pitch, rows, count,
            w, channel * g.patch_rows + first, g.patch_rows,
            workspace, geometry, g.offsets_at, g.taken_at, terms,
        )  # fmt: skip
    _store_pixels(y, workspace, sums, g, image, channel, rows, pixel, count, constants)


@kernel
def _grad_input(task, x, w, y, constants, workspace, geometry):
    """One task: some channels of x of one image and group, which hold their bias already.

    w: (groups, K / groups, patch rows); workspace: slab (row_block, pitch), y (channel_block, pitch).
    """
    x, w, y, constants, workspace, geometry = views(x, w, y, constants, workspace, geometry)
    g = Slabs(*first_integers(geometry, HEADER))
    blocks = -(-g.patch_rows // g.span)
    image, rest = divmod(task, g.groups * blocks)
    group, block = divmod(rest, blocks)
    end = min((block + 1) * g.span, g.patch_rows)
    y_at = g.row_block * g.pitch
    for run in range(g.runs):
        pixel = run * g.run_pixels
        count = min(g.run_pixels, g.pixels - pixel)
        for first in range(block * g.span, end, g.row_block):
            rows = min(g.row_block, end - first)
            fill(workspace, 0, rows * g.pitch, 0)
            for k in range(0, g.output_channels, g.channel_block):
                terms = min(g.channel_block, g.output_channels - k)
                if first == block * g.span or g.channel_block < g.output_channels:
                    _gather_pixels(workspace, y_at, y, g, image, group * g.output_channels + k, terms, pixel, count)
                multiply(
                    workspace, 0, g.pitch, rows, count,
                    w, (group * g.output_channels + k) * g.patch_rows + first, 1,
                    workspace, geometry, g.offsets_at, g.taken_at, terms,
                )  # fmt: skip
            _scatter_patches(x, workspace, g, geometry, image, group, first, rows, pixel, count)


@kernel
def _grad_weight(task, x, w, y, constants, workspace, geometry):
    """One task: part of the runs of all images, one block of patch rows of one group.

    w: (parts, groups, K / groups, patch rows), zero at first, to be added up over the parts; workspace: slab
    (row_block, pitch), y (channel_block, pitch).
    """
    x, w, y, constants, workspace, geometry = views(x, w, y, constants, workspace, geometry)
    g = Slabs(*first_integers(geometry, HEADER))
    blocks = -(-g.patch_rows // g.row_block)
    part, rest = divmod(task, g.groups * blocks)
    group, block = divmod(rest, blocks)
    first = block * g.row_block
    terms = min(g.row_block, g.patch_rows - first)
    outside = constants[constants.size - 1]
    y_at = g.row_block * g.pitch
    for item in range(part * g.runs_per_task, min((part + 1) * g.runs_per_task, g.images * g.runs)):
        image, run = divmod(item, g.runs)
        pixel = run * g.run_pixels
        count = min(g.run_pixels, g.pixels - pixel)
        _gather_patches(workspace, g, geometry, x, image, group, first, terms, pixel, count, outside)
        for k in range(0, g.output_channels, g.channel_block):
            rows = min(g.channel_block, g.output_channels - k)
            channel = group * g.output_channels + k
            _gather_pixels(workspace, y_at, y, g, image, channel, rows, pixel, count)
            dots(
                w, ((part * g.groups * g.output_channels) + channel) * g.patch_rows + first, g.patch_rows, rows,
                workspace, y_at, g.pitch,
                workspace, geometry, g.offsets_at, terms, 0, count,
            )  # fmt: skip


@subroutine
def _gather_patches(workspace, g, geometry, x, image, group, first, rows, pixel, count, outside):
    """workspace[j, i] = patch[first + j, pixel + i], for j < rows, i < count."""
    step = geometry[g.axis_w + 1]
    channels = g.patch_rows // g.taps
    for j in range(rows):
        channel, tap = divmod(first + j, g.taps)
        x_at = image * g.x_n + (group * channels + channel) * g.x_c
        t = g.taps_at + tap * TAP
        plane_d = plane_at(geometry, g.axis_d, geometry[t])
        plane_h = plane_at(geometry, g.axis_h, geometry[t + 2])
        plane_w = plane_at(geometry, g.axis_w, geometry[t + 4])
        at = j * g.pitch
        left = count
        row, q = divmod(pixel, g.output_w)
        z, p = divmod(row, g.output_h)
        while left > 0:
            length = min(left, g.output_w - q)
            in_d = place(geometry, plane_d, z + geometry[t + 1])
            in_h = place(geometry, plane_h, p + geometry[t + 3])
            if in_d < 0 or in_h < 0:
                fill(workspace, at, length, outside)
            else:
                gather_row(
                    workspace, at, length, x, x_at + in_d * g.x_d + in_h * g.x_h, g.x_w, outside,
                    geometry, plane_w, step, q + geometry[t + 5],
                )  # fmt: skip
            at += length
            left -= length
            z, p, q = _next_row(g, z, p)


@subroutine
def _scatter_patches(x, workspace, g, geometry, image, group, first, rows, pixel, count):
    """The adjoint of `_gather_patches`: every element of the slab is added to where it came from."""
    step = geometry[g.axis_w + 1]
    channels = g.patch_rows // g.taps
    for j in range(rows):
        channel, tap = divmod(first + j, g.taps)
        x_at = image * g.x_n + (group * channels + channel) * g.x_c
        t = g.taps_at + tap * TAP
        plane_d = plane_at(geometry, g.axis_d, geometry[t])
        plane_h = plane_at(geometry, g.axis_h, geometry[t + 2])
        plane_w = plane_at(geometry, g.axis_w, geometry[t + 4])
        at = j * g.pitch
        left = count
        row, q = divmod(pixel, g.output_w)
        z, p = divmod(row, g.output_h)
        while left > 0:
            length = min(left, g.output_w - q)
            in_d = place(geometry, plane_d, z + geometry[t + 1])
            in_h = place(geometry, plane_h, p + geometry[t + 3])
            if in_d >= 0 and in_h >= 0:
                scatter_row(
                    x, x_at + in_d * g.x_d + in_h * g.x_h, g.x_w, geometry, plane_w, step, q + geometry[t + 5],
                    workspace, at, length, 0, 1,
                )  # fmt: skip
            at += length
            left -= length
            z, p, q = _next_row(g, z, p)


@subroutine
def _next_row(g, z, p):
    """The output pixel (z, p, q) at which the next row begins."""
    return (z, p + 1, 0) if p + 1 < g.output_h else (z + 1, 0, 0)


@subroutine
def _gather_pixels(workspace, at, y, g, image, channel, rows, pixel, count):
    """workspace[at:] = y as (rows, pitch): some channels of a run of pixels."""
    stride = uint64(g.y_pixel)
    for k in range(rows):
        begin = uint64(image * g.y_n + (channel + k) * g.y_c + pixel * g.y_pixel)
        to = uint64(at + k * g.pitch)
        for i in range(uint64(count)):
            workspace[to + i] = y[begin + i * stride]


@subroutine
def _store_pixels(y, workspace, at, g, image, channel, rows, pixel, count, constants):
    """Y = sums (rows, pitch) + bias, for some channels of a run of pixels."""
    stride = uint64(g.y_pixel)
    for k in range(rows):
        bias = constants[channel + k]
        begin = uint64(image * g.y_n + (channel + k) * g.y_c + pixel * g.y_pixel)
        source = uint64(at + k * g.pitch)
        for i in range(uint64(count)):
            y[begin + i * stride] = workspace[source + i] + bias


# ---- sizes


@dataclass(frozen=True)
class _Slabbing:
    """Sizes of slabs and blocks."""

    run_pixels: int
    pitch: int
    runs: int
    row_block: int
    channel_block: int
    span: int
    runs_per_task: int
    tasks: int

    @property
    def workspace_elements(self) -> int:
        return (self.row_block + self.channel_block) * self.pitch


@lru_cache(maxsize=256)
def _slabbing(problem: ConvProblem, op: Op) -> _Slabbing:
    size = np.dtype(problem.dtype).itemsize
    channels, outputs = problem.C // problem.groups, problem.K // problem.groups
    rows = channels * problem.taps
    run_pixels = even_split(problem.pixels, TILE_PIXELS)
    runs = -(-problem.pixels // run_pixels)
    pitch = padded(run_pixels, problem.dtype)
    row_block = whole_rows(rows, max(ROWS_LEAST, SLAB_BYTES // (pitch * size)))
    channel_block = whole_rows(outputs, max(ROWS_LEAST, SUMS_BYTES // (pitch * size)))
    wanted = 2 * local_machine().threads
    span, runs_per_task = rows, 1
    whole = problem.N * problem.groups
    if op is Op.FORWARD:
        while whole * runs * -(-outputs // channel_block) < wanted and channel_block > ROWS_LEAST:
            channel_block = whole_rows(channel_block, max(ROWS_LEAST, channel_block // 2))
        tasks = whole * runs * -(-outputs // channel_block)
    elif op is Op.GRAD_INPUT:
        span = problem.taps * even_split(channels, max(1, -(-channels * whole // wanted))) if channels else 1
        row_block = min(row_block, span)
        tasks = whole * -(-rows // span)
    else:
        blocks = problem.groups * -(-rows // row_block)
        items = problem.N * runs
        runs_per_task = max(1, -(-items // max(1, PARTS_LEAST // max(1, blocks))))
        tasks = blocks * max(1, -(-items // runs_per_task))
    return _Slabbing(run_pixels, pitch, runs, row_block, channel_block, span, runs_per_task, tasks)


# ---- plans


def plan(problem: ConvProblem, op: Op) -> Plan:
    slabbing = _slabbing(problem, op)
    x_strides, y_strides = tensor_strides(problem)
    outputs = problem.K // problem.groups
    tables = Tables(HEADER)
    axes, taps = zip(*[input_axis(problem, axis, problem.output[axis]) for axis in range(3)], strict=True)
    axes_at = [tables.add(axis.packed()) for axis in axes]
    taps_at = tables.add([number for combination in itertools.product(*taps) for tap in combination for number in tap])
    first, count = (slabbing.row_block, slabbing.channel_block) if op is Op.GRAD_INPUT else (0, slabbing.row_block)
    offsets_at = tables.add(slabbing.pitch * np.arange(first, first + count))
    taken_at = tables.add((problem.C // problem.groups * problem.taps if op is Op.GRAD_INPUT else 1) * np.arange(count))
    header = Slabs._make(
        (
            *[0] * SIZES,
            problem.groups,
            problem.N,
            problem.C // problem.groups * problem.taps,
            outputs,
            slabbing.row_block,
            slabbing.channel_block,
            slabbing.span,
            slabbing.run_pixels,
            slabbing.pitch,
            slabbing.runs,
            slabbing.runs_per_task,
            problem.pixels,
            *problem.output[1:],
            *x_strides,
            *y_strides[:2],
            y_strides[4],
            *axes_at,
            problem.taps,
            taps_at,
            offsets_at,
            taken_at,
        )
    )
    parts = max(1, -(-problem.N * slabbing.runs // slabbing.runs_per_task)) if op is Op.GRAD_WEIGHT else 1
    geometry = with_sizes(
        tables.vector(header), problem, op, parts * math.prod(problem.w_shape), slabbing.workspace_elements
    )
    elements, tasks = slabbing.workspace_elements, slabbing.tasks

    def forward(x: Array, w: Array, y: Array, constants: Array, threads: int) -> None:
        launch(_forward, tasks, x, w, y, constants, geometry, elements, threads)

    def grad_input(x: Array, w: Array, y: Array, constants: Array, threads: int) -> None:
        initialise(x, problem, constants)
        launch(_grad_input, tasks, x, w, y, constants, geometry, elements, threads)

    def grad_weight(x: Array, w: Array, y: Array, constants: Array, threads: int) -> None:
        summed_in_parts(_grad_weight, parts, tasks, x, w, y, constants, geometry, elements, threads)

    return Plan(
        algorithm="im2col",
        problem=problem,
        op=op,
        workspace_bytes=workspace(problem, op),
        run={Op.FORWARD: forward, Op.GRAD_INPUT: grad_input, Op.GRAD_WEIGHT: grad_weight}[op],
        tiles={
            "pixels": slabbing.run_pixels,
            "rows": slabbing.row_block,
            "channels": slabbing.channel_block,
            "tasks": tasks,
        },
    )


# ---- what the selector asks


def supports(problem: ConvProblem, op: Op) -> str | None:
    return None


def workspace(problem: ConvProblem, op: Op) -> int:
    return _slabbing(problem, op).workspace_elements * np.dtype(problem.dtype).itemsize


def cost(problem: ConvProblem, op: Op, machine: Machine) -> float:
    """Every product once, and every element of the patch matrix and of y, as often as it is gathered or stored."""
    slabbing = _slabbing(problem, op)
    rows, outputs = problem.C // problem.groups * problem.taps, problem.K // problem.groups
    whole = problem.N * problem.groups * problem.pixels
    patches = whole * rows * (-(-outputs // slabbing.channel_block) if op is Op.FORWARD else 1)
    again = {Op.FORWARD: 1, Op.GRAD_INPUT: -(-rows // slabbing.span), Op.GRAD_WEIGHT: -(-rows // slabbing.row_block)}[
        op
    ]
    copied = copying(patches, min(problem.output[2], slabbing.run_pixels))
    copied += copying(2 * whole * outputs * again, slabbing.run_pixels)
    flops = peak_flops(problem, problem.multiplications, rows if op is Op.GRAD_INPUT else outputs)
    return machine.seconds(flops, copied, problem.bytes, problem.real_bytes, slabbing.tasks)


ALGORITHM = Algorithm(
    name="im2col",
    device="cpu",
    supports=supports,
    cost=cost,
    error_bound=error_bound,
    workspace=workspace,
    plan=plan,
)
