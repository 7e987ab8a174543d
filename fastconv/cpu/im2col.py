"""im2col: store the patch matrix, a slab at a time, and multiply it by the weight matrix.

With the patch matrix of `fastconv.cpu._patches`, whose column i holds what output pixel i sees::

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

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..core.algorithm import PLAIN, Algorithm, Array, Epilogue, Plan, Run, running_sum_error
from ..core.jit import kernel, subroutine
from ..core.machine import Machine, local_machine
from ..core.problem import ConvProblem, Op
from ._activation import activation_code, finish
from ._gemm import (
    ROWS,
    SPARE_ROWS,
    TILE_CYCLES,
    VECTORS,
    Product,
    lanes_of,
    multiply,
    padded,
    row_cycles,
    vector_steps,
    whole_rows,
)
from ._geometry import Tables, even_split, initialise, tensor_strides, with_sizes
from ._kernel import first_integers, views
from ._launch import Launch, SummedLaunch
from ._patches import add_patches, gather, scatter
from ._rows import (
    ROW_CYCLES,
    STORED_CYCLES,
    TRANSPOSED_CYCLES,
    VECTOR_CYCLES,
    Finish,
    copy,
    store_run,
    store_run_of_channels,
    transpose_all,
)

# Pixels of a slab: ten times the widest register tile of float32.
SLAB_PIXELS = 480
# The slab and the sums of a task, each a quarter of a second-level cache of 1 MiB.
SLAB_BYTES = 256 << 10
SUMS_BYTES = 256 << 10
# The sum over the pixels is cut into parts until there are this many tasks; a constant, so that the result does not
# depend on the machine.
PARTS_LEAST = 8
ROWS_LEAST = 16
# Time of a product over its multiply-adds: weights come from the second level for every slab, and the slab itself for
# every eight rows. Fitted to resnet.txt and vgg.txt on the machine of docs/performance.md.
PRODUCT_SLOWNESS = 1.25
# Cycles to add one element of the slab to where it came from, a load, an addition and a store; and to add a vector,
# where elements of x follow each other or are two apart: 64x56x56, 3x3, and 3x224x224, 7x7 of stride 2, took 1.3 and
# 2.0 ms on the machine of docs/performance.md.
ADDED_CYCLES = 4
ADDED_VECTOR_CYCLES = 4


class Slabs(NamedTuple):
    """The header of the geometry vector."""

    sizes_1: int
    sizes_2: int
    sizes_3: int
    sizes_4: int
    sizes_5: int
    sizes_6: int
    sizes_7: int
    groups: int
    images: int
    patch_rows: int  # of one group: C / groups * taps
    output_channels: int  # of one group
    row_block: int  # patch rows of a slab
    channel_block: int  # output channels in the workspace at once
    span: int  # GRAD_INPUT: patch rows of a task, those of whole channels
    run_pixels: int  # pixels of a slab
    pitch: int  # distance of its rows
    y_pitch: int  # GRAD_WEIGHT: distance of the rows of y transposed, and of the sums
    y_at: int  # positions in the workspace
    sums_at: int
    scratch_at: int
    runs: int  # slabs that the pixels of one image make
    runs_per_task: int  # GRAD_WEIGHT: of all images
    pixels: int
    x_n: int  # strides in elements
    x_group: int
    y_n: int
    y_c: int
    y_pixel: int
    patches_at: int  # the table of `fastconv.cpu._patches.Patches`
    slab_rows_at: int  # the rows of the slab
    y_rows_at: int  # GRAD_WEIGHT: the pixels of y transposed
    taken_at: int  # the weights of each term
    weight_rows_at: int  # the weights of each row of sums
    has_residual: int
    activation: int


HEADER = len(Slabs._fields)


# ---- kernels


@kernel
def _forward(task, x, w, y, residual, constants, workspace, geometry):
    """One task: a run of pixels of one image, one block of output channels of one group.

    w: (groups, K / groups, patch rows); workspace: slab (row_block, pitch), sums (channel_block, pitch).
    """
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    g = Slabs(*first_integers(geometry, HEADER))
    blocks = -(-g.output_channels // g.channel_block)
    image, rest = divmod(task, g.groups * g.runs * blocks)
    group, rest = divmod(rest, g.runs * blocks)
    run, block = divmod(rest, blocks)
    pixel = run * g.run_pixels
    count = min(g.run_pixels, g.pixels - pixel)
    rows = min(g.channel_block, g.output_channels - block * g.channel_block)
    channel = group * g.output_channels + block * g.channel_block
    outside = constants[constants.size - 1]
    ending = Finish(constants, residual, g.has_residual, g.activation, None)
    x_at = image * g.x_n + group * g.x_group
    for first in range(0, g.patch_rows, g.row_block):
        terms = min(g.row_block, g.patch_rows - first)
        gather(workspace, 0, g.pitch, x, x_at, geometry, g.patches_at, first, terms, pixel, count, outside)
        product = Product(
            workspace, g.sums_at, g.pitch, w, channel * g.patch_rows + first, workspace, 0,
            geometry, g.weight_rows_at, g.taken_at, g.slab_rows_at, terms, first == 0,
        )  # fmt: skip
        multiply(product, rows, count)
    if g.y_pixel == 1:
        for k in range(rows):
            to = image * g.y_n + (channel + k) * g.y_c + pixel
            store_run(y, to, workspace, g.sums_at + k * g.pitch, count, channel + k, ending)
    else:
        to = image * g.y_n + pixel * g.y_pixel + channel
        store_run_of_channels(
            y, to, g.y_pixel, workspace, g.sums_at, g.pitch, rows, count, channel, ending, g.scratch_at
        )  # fmt: skip


@kernel
def _grad_input(task, x, w, y, residual, constants, workspace, geometry):
    """One task: some channels of x of one image and group, which hold their bias already.

    w: (groups, K / groups, patch rows); workspace: slab (row_block, pitch), y (channel_block, pitch).
    """
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    g = Slabs(*first_integers(geometry, HEADER))
    blocks = -(-g.patch_rows // g.span)
    image, rest = divmod(task, g.groups * blocks)
    group, block = divmod(rest, blocks)
    end = min((block + 1) * g.span, g.patch_rows)
    x_at = image * g.x_n + group * g.x_group
    for run in range(g.runs):
        pixel = run * g.run_pixels
        count = min(g.run_pixels, g.pixels - pixel)
        for first in range(block * g.span, end, g.row_block):
            rows = min(g.row_block, end - first)
            for k in range(0, g.output_channels, g.channel_block):
                terms = min(g.channel_block, g.output_channels - k)
                if first == block * g.span or g.channel_block < g.output_channels:
                    _gather_pixels(workspace, y, g, image, group * g.output_channels + k, terms, pixel, count)
                product = Product(
                    workspace, 0, g.pitch, w, (group * g.output_channels + k) * g.patch_rows + first,
                    workspace, g.y_at, geometry, g.weight_rows_at, g.taken_at, g.slab_rows_at, terms, k == 0,
                )  # fmt: skip
                multiply(product, rows, count)
            scatter(x, x_at, 0, g.x_n, workspace, 0, g.pitch, geometry, g.patches_at, first, rows, pixel, count)


@kernel
def _grad_weight(task, x, w, y, residual, constants, workspace, geometry):
    """One task: part of the runs of all images, one block of patch rows of one group.

    w: (parts, groups, K / groups, patch rows), zero at first, to be added up over the parts; workspace: slab
    (row_block, pitch), y (channel_block, pitch).
    """
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    g = Slabs(*first_integers(geometry, HEADER))
    blocks = -(-g.patch_rows // g.row_block)
    part, rest = divmod(task, g.groups * blocks)
    group, block = divmod(rest, blocks)
    first = block * g.row_block
    terms = min(g.row_block, g.patch_rows - first)
    outside = constants[constants.size - 1]
    begin = part * g.runs_per_task
    for k in range(0, g.output_channels, g.channel_block):
        columns = min(g.channel_block, g.output_channels - k)
        channel = group * g.output_channels + k
        for item in range(begin, min(begin + g.runs_per_task, g.images * g.runs)):
            image, run = divmod(item, g.runs)
            pixel = run * g.run_pixels
            count = min(g.run_pixels, g.pixels - pixel)
            x_at = image * g.x_n + group * g.x_group
            gather(workspace, 0, g.pitch, x, x_at, geometry, g.patches_at, first, terms, pixel, count, outside)
            _transpose_pixels(workspace, y, g, image, channel, columns, pixel, count)
            product = Product(
                workspace, g.sums_at, g.y_pitch, workspace, 0, workspace, g.y_at,
                geometry, g.slab_rows_at, g.taken_at, g.y_rows_at, count, item == begin,
            )  # fmt: skip
            multiply(product, terms, columns)
        w_at = (part * g.groups * g.output_channels + channel) * g.patch_rows + first
        transpose_all(w, w_at, g.patch_rows, workspace, g.sums_at, g.y_pitch, terms, columns)


@subroutine
def _gather_pixels(workspace, y, g, image, channel, rows, pixel, count):
    """workspace[y_at:] = y as (rows, pitch): some channels of a run of pixels."""
    begin = image * g.y_n + channel * g.y_c + pixel * g.y_pixel
    if g.y_pixel == 1:
        for k in range(rows):
            copy(workspace, g.y_at + k * g.pitch, y, begin + k * g.y_c, count)
    else:
        transpose_all(workspace, g.y_at, g.pitch, y, begin, g.y_pixel, count, rows)


@subroutine
def _transpose_pixels(workspace, y, g, image, channel, columns, pixel, count):
    """workspace[y_at:] = y as (count, y_pitch): a run of pixels of some channels."""
    begin = image * g.y_n + channel * g.y_c + pixel * g.y_pixel
    if g.y_pixel == 1:
        transpose_all(workspace, g.y_at, g.y_pitch, y, begin, g.y_c, columns, count)
    else:
        for i in range(count):
            copy(workspace, g.y_at + i * g.y_pitch, y, begin + i * g.y_pixel, columns)


# ---- sizes


@dataclass(frozen=True)
class _Slabbing:
    """Sizes of slabs and blocks, and places in the workspace."""

    run_pixels: int
    pitch: int
    y_pitch: int
    runs: int
    row_block: int
    channel_block: int
    span: int
    runs_per_task: int
    tasks: int
    y_at: int
    sums_at: int
    scratch_at: int
    workspace_elements: int


@lru_cache(maxsize=256)
def _slabbing(problem: ConvProblem, op: Op) -> _Slabbing:
    size, lanes = np.dtype(problem.dtype).itemsize, lanes_of(problem.dtype)
    channels, outputs = problem.C // problem.groups, problem.K // problem.groups
    rows = channels * problem.taps
    run_pixels = even_split(problem.pixels, SLAB_PIXELS)
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
    y_pitch = padded(channel_block, problem.dtype)
    slab = (row_block + SPARE_ROWS) * pitch
    y_elements = {Op.FORWARD: 0, Op.GRAD_INPUT: channel_block * pitch, Op.GRAD_WEIGHT: run_pixels * y_pitch}[op]
    sums_rows, sums_pitch = (row_block, y_pitch) if op is Op.GRAD_WEIGHT else (channel_block, pitch)
    sums = 0 if op is Op.GRAD_INPUT else (sums_rows + SPARE_ROWS) * sums_pitch
    return _Slabbing(
        run_pixels, pitch, y_pitch, runs, row_block, channel_block, span, runs_per_task, tasks,
        y_at=slab, sums_at=slab + y_elements, scratch_at=slab + y_elements + sums,
        workspace_elements=slab + y_elements + sums + lanes * lanes,
    )  # fmt: skip


# ---- plans


def plan(problem: ConvProblem, op: Op, epilogue: Epilogue) -> Plan:
    slabbing = _slabbing(problem, op)
    x_strides, y_strides = tensor_strides(problem)
    outputs = problem.K // problem.groups
    patch_rows = problem.C // problem.groups * problem.taps
    tables = Tables(Slabs)
    # The terms of the product, and its rows, as the operation has them.
    taken, rows = {
        Op.FORWARD: (np.arange(slabbing.row_block), patch_rows * np.arange(slabbing.channel_block)),
        Op.GRAD_INPUT: (patch_rows * np.arange(slabbing.channel_block), np.arange(slabbing.row_block)),
        Op.GRAD_WEIGHT: (np.arange(slabbing.run_pixels), np.arange(0)),
    }[op]
    vector = tables.vector(
        groups=problem.groups,
        images=problem.N,
        patch_rows=patch_rows,
        output_channels=outputs,
        row_block=slabbing.row_block,
        channel_block=slabbing.channel_block,
        span=slabbing.span,
        run_pixels=slabbing.run_pixels,
        pitch=slabbing.pitch,
        y_pitch=slabbing.y_pitch,
        y_at=slabbing.y_at,
        sums_at=slabbing.sums_at,
        scratch_at=slabbing.scratch_at,
        runs=slabbing.runs,
        runs_per_task=slabbing.runs_per_task,
        pixels=problem.pixels,
        x_n=x_strides[0],
        x_group=problem.C // problem.groups * x_strides[1],
        y_n=y_strides[0],
        y_c=y_strides[1],
        y_pixel=y_strides[4],
        patches_at=add_patches(tables, problem),
        slab_rows_at=tables.add(slabbing.pitch * np.arange(max(slabbing.row_block, slabbing.channel_block))),
        y_rows_at=tables.add(slabbing.y_pitch * np.arange(slabbing.run_pixels)),
        taken_at=tables.add(taken),
        weight_rows_at=tables.add(rows),
        has_residual=epilogue.residual,
        activation=activation_code(epilogue, problem.dtype),
    )
    parts = max(1, -(-problem.N * slabbing.runs // slabbing.runs_per_task)) if op is Op.GRAD_WEIGHT else 1
    elements, tasks = slabbing.workspace_elements, slabbing.tasks
    geometry = with_sizes(vector, problem, op, parts * math.prod(problem.w_shape), elements)

    kernel = {Op.FORWARD: _forward, Op.GRAD_INPUT: _grad_input, Op.GRAD_WEIGHT: _grad_weight}[op]
    launch = Launch(kernel, tasks, problem.dtype, geometry, elements)

    def add_to_bias(x: Array, w: Array, y: Array, residual: Array, constants: Array, threads: int) -> None:
        initialise(x, problem, constants)
        launch(x, w, y, residual, constants, threads)
        if epilogue != PLAIN:
            finish(x, residual, epilogue, threads)

    run: Run = SummedLaunch(launch, parts) if op is Op.GRAD_WEIGHT else add_to_bias if op is Op.GRAD_INPUT else launch
    return Plan(
        algorithm="im2col",
        problem=problem,
        op=op,
        workspace_bytes=workspace(problem, op),
        run=run,
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


def error_bound(problem: ConvProblem, op: Op) -> float:
    """One sum over the terms of a slab, and one over the slabs."""
    slabbing = _slabbing(problem, op)
    block = slabbing.run_pixels if op is Op.GRAD_WEIGHT else problem.terms(op)
    return running_sum_error(problem, block + -(-problem.terms(op) // block) + 1)


def cost(problem: ConvProblem, op: Op, machine: Machine) -> float:
    """Every product once, and every element of the patch matrix and of y, as often as it is gathered or stored."""
    slabbing = _slabbing(problem, op)
    lanes = lanes_of(problem.dtype)
    rows, outputs = problem.C // problem.groups * problem.taps, problem.K // problem.groups
    whole = problem.N * problem.groups
    channel_blocks = -(-outputs // slabbing.channel_block)
    vectors = slabbing.runs * -(-slabbing.run_pixels // lanes)
    lines = problem.pixels / min(problem.output[2], slabbing.run_pixels)
    patch_vectors = -(-problem.output[2] // lanes)
    patch = lines * (ROW_CYCLES + VECTOR_CYCLES * patch_vectors)
    if op is Op.FORWARD:
        products = row_cycles(outputs) * rows * vectors
        copies = rows * patch * channel_blocks + outputs * vectors * STORED_CYCLES
    elif op is Op.GRAD_INPUT:
        products = row_cycles(rows) * outputs * vectors
        are_near = problem.layout == "channels_first" and problem.stride[2] <= 2
        added = ADDED_VECTOR_CYCLES * patch_vectors if are_near else ADDED_CYCLES * problem.output[2]
        scattered = rows * lines * (ROW_CYCLES + added)
        copies = scattered + -(-rows // slabbing.span) * outputs * vectors * VECTOR_CYCLES
    else:
        products = row_cycles(rows) * problem.pixels * -(-outputs // lanes)
        turned = outputs * vectors * TRANSPOSED_CYCLES * -(-rows // slabbing.row_block)
        copies = rows * patch * channel_blocks + turned
    register_tiles = (
        slabbing.runs * -(-rows * outputs // (ROWS * lanes))
        if op is Op.GRAD_WEIGHT
        else (-(-(rows if op is Op.GRAD_INPUT else outputs) // ROWS) * vectors)
    )
    copies += register_tiles / VECTORS * TILE_CYCLES
    cycles = whole * (products * vector_steps(problem) * PRODUCT_SLOWNESS + copies)
    return machine.seconds(cycles, slabbing.tasks, problem.bytes)


ALGORITHM = Algorithm(
    name="im2col",
    device="cpu",
    supports=supports,
    cost=cost,
    error_bound=error_bound,
    workspace=workspace,
    plan=plan,
)
