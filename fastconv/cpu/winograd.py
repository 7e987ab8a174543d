"""Winograd's minimal filtering: fewer products, between transforms of tiles and filters.

The output is cut into tiles of m elements along each axis. With the matrices of F(m, r), which
`fastconv.core.winograd_matrices` makes, the sum over the input channels is formed for each of the (m + r - 1)^2 points
of a tile::

    data[e, c, tile]  = B^T d B           of the input around the tile
    filters[e, k, c]  = G w[k, c] G^T
    sums[e, k, tile]  = sum over c of filters[e, k, c] * data[e, c, tile]
    y[k, tile]        = A^T sums A

F(4, 3) takes 36 products for 16 outputs where the direct method takes 144, F(2, 3) 16 for 4 in place of 36. Tiles need
not be square: F(7, 3) along H and F(4, 3) along W take 54 for 28, fit images of 28, 56 and 112 rows, and err less than
F(6, 3) along both. A task does all of this for a block of tiles and some output channels, near a second-level cache.

GRAD_INPUT is the same with the filters turned around, and input and output exchanged; GRAD_WEIGHT stands in
`fastconv.cpu._winograd_weights`. A third axis is not transformed: the slices of a filter are further terms of the sum.
A filter of dilation d meets every d-th row and column only: the outputs whose positions have the same remainders are
an undilated convolution of a part of the input, and all such parts are planes of one. Strides have kernels of their own
(`fastconv.cpu._winograd_pairs`).

Sources: Winograd, Arithmetic Complexity of Computations, 1980; Lavin, Gray, "Fast Algorithms for Convolutional Neural
Networks", CVPR 2016, section 4.
"""

from __future__ import annotations

import math

import numpy as np
from numba import literally

from ..core.algorithm import Algorithm, Array, Epilogue, KeptWeight, Plan, Run, running_sum_error
from ..core.arrays import allocate
from ..core.jit import Kernel, kernel, subroutine
from ..core.machine import Machine
from ..core.problem import ConvProblem, Op
from . import _winograd_pair_sizes, _winograd_pairs, _winograd_weights
from ._activation import activation_code
from ._axes import folding
from ._extremes import NoticingLaunch, is_extreme, limit_of
from ._gemm import Product, lanes_of, multiply
from ._geometry import Integers, Tables, initialise, named, with_sizes
from ._kernel import views
from ._launch import Launch
from ._rows import Finish
from ._simd import lanes, store, zeros
from ._tiles import channels_of, role_fields
from ._winograd_sizes import (
    Memory,
    Sizes,
    depth_reach,
    gathers,
    kinds,
    memory_of,
    phases_of,
    plane_extents,
    prepared_sizes_of,
    scatters,
    sizes_of,
    source_axis,
    target_axis,
)
from ._winograd_tiles import Blocks, block_of, header, store_block, transform_block, transform_weights
from ._winograd_transforms import SQUARES, Square

# Error of the transforms along one axis and along two, by products, in units of rounding of the result's root mean
# square. With that of the sums, it is above the largest errors of all served problems of bench/shapes and of others
# with 1 to 2048 channels: 1.05e-5 for F(4, 3), 4.3e-6 for F(2, 3), 6.4e-5 for F(6, 3), 4.6e-5 for F(4, 5), 4.5e-5 for
# F(7, 3) with F(4, 3), and along one axis 3.9e-6 for 6 products, 7.5e-6 for 8 and 2.8e-5 for 10.
TRANSFORM_ERROR = {(1, 6): 60, (4, 4): 60, (6, 6): 200, (6, 9): 700, (1, 8): 150, (1, 10): 600, (8, 8): 1200}

# Target channels of a task that transforms filters.
PREPARED_ROWS = 16


# ---- kernels


def _forward(kind: int, gathers: bool | None, scatters: bool | None) -> Kernel:
    """The kernel of one of `SQUARES`, for rows that are read and stored in place or not.

    Where both are in place, the first call of a process takes 4.0 s, and 6.1 s with a kernel for all of them.
    """

    @kernel
    def correlate(task, x, w, y, residual, constants, workspace, geometry):
        x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
        _correlate(kind, 0, gathers, scatters, None, task, x, w, y, residual, constants, workspace, geometry)

    return correlate


def _grad_input(kind: int, gathers: bool | None, scatters: bool | None) -> Kernel:
    """The same with x and y in each other's place."""

    @kernel
    def correlate(task, x, w, y, residual, constants, workspace, geometry):
        x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
        accumulates = header(geometry).accumulates
        _correlate(kind, 1, gathers, scatters, accumulates, task, y, w, x, residual, constants, workspace, geometry)

    return correlate


KERNELS = {
    (op, gathers, scatters): [kernel_of(kind, gathers or None, scatters or None) for kind in range(len(SQUARES))]
    for op, kernel_of in ((Op.FORWARD, _forward), (Op.GRAD_INPUT, _grad_input))
    for gathers in (False, True)
    for scatters in (False, True)
}


@subroutine
def _correlate(
    kind, flipped, gathers, scatters, accumulates,
    task, source, weights, target, residual, constants, workspace, geometry,
):  # fmt: skip
    """One task: a run of blocks of tiles, one block of target channels of one group of one image.

    gathers: as in `transform_block`; scatters: as in `store_block`; accumulates: as in `Finish`; source, target:
    tensors; weights: (K, C / groups, taps), or the filters that `_prepare` makes of it; residual: that of `Finish`, or
    where the greatest magnitudes are told; workspace: elements of tiles, rows as they were gathered, data, filters
    unless they are given, sums, lines of outputs.
    """
    literally(kind)
    literally(flipped)
    g = header(geometry)
    if g.prepares:
        _prepare(kind, flipped, task, weights, target, geometry)
        return
    blocks = g.blocks_z * g.blocks_p * g.blocks_q
    runs = -(-blocks // g.blocks_per_task)
    row_blocks = -(-g.targets // g.row_block)
    image, rest = divmod(task, g.groups * runs * row_blocks)
    group, rest = divmod(rest, runs * row_blocks)
    run, row = divmod(rest, row_blocks)
    row *= g.row_block
    rows = min(g.row_block, g.targets - row)
    source_at = image * g.source_n + group * g.sources * g.source_c
    weights_at = group * g.weight_group + row * g.weight_target
    filters, filters_at = workspace, g.filters_at
    if g.prepared:
        filters, filters_at = weights, group * g.filters_group + row * g.filters_pitch
    finish = Finish(constants, residual, g.has_residual, g.activation, accumulates)
    greatest = zeros(target, 1)
    stays = g.channel_block >= g.sources and g.filter_block >= g.row_block
    begin = run * g.blocks_per_task
    for number in range(begin, min(begin + g.blocks_per_task, blocks)):
        block = block_of(g, number)
        tiles = (block.depth - 1) * g.plane + block.height * block.width
        for first in range(0, g.sources, g.channel_block):
            channels = min(g.channel_block, g.sources - first)
            transform_block(
                kind, gathers, workspace, geometry, source, source_at + first * g.source_c, channels, block, constants
            )  # fmt: skip
            for k in range(0, rows, g.filter_block):
                held = min(g.filter_block, rows - k)
                at = filters_at
                if g.prepared:
                    at += first
                elif number == begin or not stays:
                    transform_weights(
                        kind, flipped, workspace, at, geometry,
                        weights, weights_at + k * g.weight_target + first * g.weight_source, held, channels,
                    )  # fmt: skip
                for e in range(g.points):
                    product = Product(
                        workspace, g.sums_at + e * g.sums_point + k * g.sums_pitch, g.sums_pitch,
                        filters, at + e * g.filters_point,
                        workspace, g.data_at + e * g.data_point,
                        geometry, g.rows_at, g.taken_at, g.offsets_at, channels * g.slices, first == 0,
                    )  # fmt: skip
                    multiply(product, held, tiles)
        channel = group * g.targets + row
        greatest = store_block(
            kind, scatters, target, image * g.target_n, workspace, geometry, channel, rows, block, finish, greatest
        )  # fmt: skip
    if g.notices:
        store(residual, task * lanes(residual), greatest)


@subroutine
def _prepare(kind, flipped, task, weights, filters, geometry):
    """One task: filters[group, e, target, slice, source] = point e of the filters of some targets of a group."""
    g = header(geometry)
    group, row = divmod(task, -(-g.targets // PREPARED_ROWS))
    row *= PREPARED_ROWS
    transform_weights(
        kind, flipped, filters, group * g.filters_group + row * g.filters_pitch, geometry,
        weights, group * g.weight_group + row * g.weight_target, min(PREPARED_ROWS, g.targets - row), g.sources,
    )  # fmt: skip


# ---- plans


class _Launches:
    """What computes y or x with blocks of these sizes."""

    def __init__(self, problem: ConvProblem, op: Op, sizes: Sizes, epilogue: Epilogue) -> None:
        self._problem, self._op, self._sizes = problem, op, sizes
        vector, self._memory = _vector(problem, op, sizes, epilogue)
        notices = not epilogue.residual
        launch = self._launch(vector, sizes.tasks, sizes.tasks * lanes_of(problem.dtype) if notices else None)
        limit = _limit(problem, op, sizes.square)
        self._convolve: Run = NoticingLaunch(launch, sizes.tasks, problem.dtype, limit) if notices else launch
        vector = vector.copy()
        vector[Blocks._fields.index("prepares")] = 1
        self._prepare = self._launch(vector, problem.groups * -(-channels_of(problem, op)[1] // PREPARED_ROWS))

    def _launch(self, vector: Integers, tasks: int, residual_size: int | None = None) -> Launch:
        problem, op = self._problem, self._op
        weight_size = self._memory.prepared_elements or math.prod(problem.w_shape)
        geometry = with_sizes(
            vector, problem, op, weight_size, self._memory.elements, residual_size=residual_size
        )  # fmt: skip
        kernel = KERNELS[op, gathers(problem, op), scatters(problem, op)][self._sizes.kind]
        return Launch(kernel, tasks, problem.dtype, geometry, self._memory.elements)

    def run(self, x: Array, w: Array, y: Array, residual: Array, constants: Array, threads: int) -> bool | None:
        """`Plan.run`; w: the weight, or what `transform` makes of it if the sizes say so."""
        if self._op is Op.GRAD_INPUT and folding(self._problem):
            initialise(x, self._problem, constants)
        return self._convolve(x, w, y, residual, constants, threads)

    def transform(self, w: Array, threads: int) -> Array:
        """The transformed filters, which do not depend on the extents of x."""
        w, filters = w.ravel(), allocate(self._memory.prepared_elements, w.dtype)
        x, y = (w, filters) if self._op is Op.FORWARD else (filters, w)
        self._prepare(x, w, y, w, w, threads)
        return filters


def _vector(problem: ConvProblem, op: Op, sizes: Sizes, epilogue: Epilogue) -> tuple[Integers, Memory]:
    """The geometry vector but for the sizes of tensors."""
    memory = memory_of(problem, op, sizes)
    square, blocks = sizes.square, sizes.blocks
    roles = role_fields(problem, op)
    phases = [phases_of(problem, op, axis) for axis in (1, 2)]
    folds = op is Op.GRAD_INPUT and folding(problem)
    T, R, S = problem.filter
    tables = Tables(Blocks)
    heights, widths = square.height, square.width
    positions = (
        -(-blocks[0] * sizes.block[0] // phases[0] // phases[1]) + problem.reach[0] - 1,
        blocks[1] * sizes.block[1] * heights.outputs + heights.reach,
        blocks[2] * sizes.block[2] * widths.outputs + widths.reach,
    )
    source_axes, target_axes = (
        [tables.add(make(problem, op, axis, positions[axis]).packed()) for axis in range(3)]
        for make in (source_axis, target_axis)
    )
    c, t = np.arange(sizes.channel_block)[:, None], np.arange(T)
    fields = vars(memory).items()
    vector = tables.vector(
        **roles,
        prepares=0,
        prepared=sizes.prepared,
        channel_block=sizes.channel_block,
        row_block=sizes.row_block,
        filter_block=sizes.filter_block,
        weight_depth=-R * S if op is Op.GRAD_INPUT else R * S,
        weight_first=(T - 1) * R * S if op is Op.GRAD_INPUT else 0,
        slices=T,
        depth_reach=depth_reach(problem, op),
        **named("phases_{}", "hw", phases),
        outputs_h=heights.outputs,
        outputs_w=widths.outputs,
        reach_h=heights.reach,
        reach_w=widths.reach,
        further_w=widths.further,
        points=square.products,
        **named("target_{}", "pq", plane_extents(problem, op)[1:]),
        **named("tiles_{}", "zpq", sizes.tiles),
        **named("block_{}", "zpq", sizes.block),
        **named("blocks_{}", "zpq", blocks),
        blocks_per_task=sizes.blocks_per_task,
        plane=sizes.plane,
        **{name: value for name, value in fields if name not in ("elements", "prepared_elements")},
        **named("source_axis_{}", "dhw", source_axes),
        **named("target_axis_{}", "dhw", target_axes),
        accumulates=folds,
        activation=activation_code(epilogue, problem.dtype),
        has_residual=epilogue.residual,
        notices=not epilogue.residual,
        rows_at=tables.add(memory.filters_pitch * np.arange(sizes.row_block)),
        taken_at=tables.add(c + memory.filters_slice * t),
        offsets_at=tables.add(c * memory.data_pitch + sizes.plane * math.prod(phases) * problem.dilation[0] * t),
    )
    return vector, memory


def plan(problem: ConvProblem, op: Op, epilogue: Epilogue) -> Plan:
    if _is_strided(problem):
        return _winograd_pairs.plan(problem, op, epilogue)
    sizes = _sizes(problem, op)
    kept_weight = None
    if isinstance(sizes, Sizes):
        run: Run = _Launches(problem, op, sizes, epilogue).run
        prepared_sizes = prepared_sizes_of(problem, op)
        if prepared_sizes is not None:
            prepared = _Launches(problem, op, prepared_sizes, epilogue)
            kept_weight = KeptWeight((op, sizes.kind, problem.groups), prepared.transform, prepared.run)
    else:
        run = _winograd_weights.launch_of(problem, sizes)
    return Plan(
        algorithm="winograd",
        problem=problem,
        op=op,
        workspace_bytes=workspace(problem, op),
        run=run,
        limit=_limit(problem, op, sizes.square),
        notices=isinstance(sizes, Sizes) and not epilogue.residual,
        is_extreme=is_extreme,
        kept_weight=kept_weight,
        tiles={
            "outputs": sizes.square.width.outputs,
            "tiles": math.prod(sizes.block),
            "channels": sizes.channel_block,
            "rows": sizes.row_block,
            "tasks": sizes.tasks,
        },
    )


def _limit(problem: ConvProblem, op: Op, square: Square) -> float:
    return limit_of(problem, op, square.height.growth * square.width.growth)


def _sizes(problem: ConvProblem, op: Op) -> Sizes | _winograd_weights.Sizes:
    return _winograd_weights.sizes_of(problem) if op is Op.GRAD_WEIGHT else sizes_of(problem, op)


# ---- what the selector asks


def supports(problem: ConvProblem, op: Op) -> str | None:
    if problem.is_exact:
        return "it computes in floating point, and integers must be exact"
    if problem.real_products != 1:
        return "it serves real numbers only"
    if _is_strided(problem):
        return _winograd_pair_sizes.refusal(problem, op)
    if not kinds(problem):
        R, S = problem.filter[1:]
        return f"it serves filters of 3x3 and 5x5, and of 3, 5 or 7 taps along H or W, and not of {R}x{S}"
    return None


def _is_strided(problem: ConvProblem) -> bool:
    return problem.stride != (1, 1, 1)


def workspace(problem: ConvProblem, op: Op) -> int:
    if _is_strided(problem):
        return _winograd_pair_sizes.workspace(problem, op)
    sizes = _sizes(problem, op)
    if isinstance(sizes, Sizes):
        return memory_of(problem, op, sizes).elements * problem.real_bytes
    return _winograd_weights.memory_of(problem, sizes).elements * problem.real_bytes


def error_bound(problem: ConvProblem, op: Op) -> float:
    """What the transforms add, and the sums of blocks, which are added up in turn."""
    if _is_strided(problem):
        return _winograd_pair_sizes.error_bound(problem, op)
    sizes = _sizes(problem, op)
    precision = {4: 2.0**-24, 8: 2.0**-53}[problem.real_bytes]
    fewer, more = sorted(each.products for each in sizes.square)
    return TRANSFORM_ERROR[fewer, more] * precision + running_sum_error(problem, sizes.additions)


def cost(problem: ConvProblem, op: Op, machine: Machine) -> float:
    """The cycles of the tasks, then x and y through memory: nothing is computed while a block of these is moved.

    A filter is read while the one before is transformed: 512 channels of 7x7 to as many, 3x3, took 1.06 ms, of which
    9.4 MB of weights would be 0.47 in a pass of their own.
    """
    sizes = _winograd_pair_sizes.sizes_of(problem, op) if _is_strided(problem) else _sizes(problem, op)
    moved = (math.prod(problem.x_shape) + math.prod(problem.y_shape)) * problem.real_bytes
    return machine.seconds(sizes.cycles, sizes.tasks, 0) + moved / machine.bandwidth


ALGORITHM = Algorithm(
    name="winograd",
    device="cpu",
    supports=supports,
    cost=cost,
    error_bound=error_bound,
    workspace=workspace,
    plan=plan,
    spreads=True,
)
