"""Strided convolution through the Fourier transform: each phase of the input is a channel of its own.

A stride of s reads every s-th element at a time, from one of s phases for each tap. With the phases apart (an input of
s times the channels, or s * s, and extents as much smaller) it is a convolution without strides, of a filter that is as
much shorter, and only what is kept is computed::

    y[p]  =  sum over phases f and r of  x[s (p + r) + f] * w[s r + f]

Phases, and taps that do not meet any because of a dilation, are those of `fastconv.cpu._axes.input_axis`; taps that do
not exist are zeros.

Source: Vaidyanathan, "Multirate Systems and Filter Banks", Prentice Hall 1993, section 4.3 (polyphase representation).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from ..core.algorithm import Array, Epilogue, KeptWeight, Plan, Run
from ..core.jit import Kernel, kernel, subroutine
from ..core.machine import Machine, local_machine
from ..core.problem import ConvProblem, Op
from . import _fft_dense, _fft_dense_weight, _fft_planes
from ._axes import folding, input_axis
from ._gemm import lanes_of
from ._geometry import Integers, Tables, even_split, named, with_sizes
from ._kernel import views
from ._launch import Launch, scratch
from ._strips import Strips, Tile, for_both_ways, gather_strips, header
from ._tiles import role_fields

WAYS = (_fft_planes, _fft_dense, _fft_dense_weight)
# Rows of a plane that one task copies, at most.
TASK_ROWS = 32
# Cycles for each register that is copied: every second element of two, from memory.
COPIED_CYCLES = 12


@subroutine
def _take_apart(plain, task, tensors):
    """One task: some rows of all phases of a channel. y: (N, C, phases, H, W), written."""
    x, _, y, _, constants, _, geometry = tensors
    s = header(geometry)
    blocks = -(-s.strip_h // s.row_block)
    row, block = divmod(task, blocks)
    image, channel = divmod(row, s.groups * s.sources)
    first = block * s.row_block
    tile = Tile(0, first, 0, s.strip_d, min(s.row_block, s.strip_h - first), s.strip_w)
    at = row * s.channel_pitch + first * s.strip_w
    gather_strips(plain, y[at:], geometry, x, image * s.source_n + channel * s.source_c, 1, tile, constants, True)


def _separate(plain: bool | None) -> Kernel:
    @kernel
    def run(task, x, w, y, residual, constants, workspace, geometry):
        _take_apart(plain, task, views(x, w, y, residual, constants, workspace, geometry))

    return run


KERNELS = for_both_ways(_separate)


@lru_cache(maxsize=1024)
def _separated(problem: ConvProblem) -> ConvProblem:
    """The problem without strides whose channels are the phases."""
    axes = [input_axis(problem, axis, problem.output[axis]) for axis in range(3)]
    phases = math.prod(len(axis.index) for axis, _ in axes)
    first, second, third = (axis.positions for axis, _ in axes)
    filter = tuple(max(tap.shift for tap in taps) + 1 for _, taps in axes)
    return problem.replace(
        C=problem.C * phases,
        input=(first, second, third),
        filter=filter,
        stride=(1, 1, 1),
        dilation=(1, 1, 1),
        padding=((0, 0), (0, 0), (0, 0)),
        padding_mode="zeros",
        pad_value=0,
    )


def _places(problem: ConvProblem) -> NDArray[np.int64]:
    """Where each tap stands among the phases and taps of a channel's filters in the separated problem."""
    separated = _separated(problem)
    slot, place = np.zeros((2, 1), np.int64)
    for axis in range(3):
        planes, taps = input_axis(problem, axis, problem.output[axis])
        slots, shifts = (np.array(each) for each in zip(*taps, strict=True))
        slot = (slot[:, None] * len(planes.index) + slots).reshape(-1)
        place = (place[:, None] * separated.filter[axis] + shifts).reshape(-1)
    return slot * separated.taps + place


# ---- plans


def plan(problem: ConvProblem, op: Op, epilogue: Epilogue) -> Plan:
    separated, places = _separated(problem), _places(problem)
    inner: Plan = _way(separated, op).plan(separated, op, epilogue)
    separate = _copying(problem, op, separated)
    kept = inner.kept_weight
    if kept is not None:
        kept = KeptWeight(
            key=("phases", problem.stride, problem.dilation, kept.key),
            transform=_after(kept.transform, separated, places),
            run=_with_phases(kept.run, separate, separated),
        )
    run = _of_filters(inner.run, separated, places) if op is Op.FORWARD else _of_gradients(inner.run, separated, places)
    return dataclasses.replace(
        inner,
        problem=problem,
        workspace_bytes=workspace(problem, op),
        run=_with_phases(run, separate, separated),
        kept_weight=kept,
    )


def _copying(problem: ConvProblem, op: Op, separated: ConvProblem) -> Launch:
    """The launch that separates the phases of x."""
    axes = [input_axis(problem, axis, problem.output[axis])[0] for axis in range(3)]
    depth, height, width = separated.input
    rows = even_split(height, TASK_ROWS)
    tables = Tables(Strips)
    fields = {
        **role_fields(problem, Op.FORWARD),
        "row_block": rows,
        **named("planes_{}", "dhw", [len(axis.index) for axis in axes]),
        **named("strip_{}", "dhw", separated.input),
        **named("tile_{}", "zpq", separated.input),
        "channel_pitch": separated.C // problem.C * depth * height * width,
        **named("source_axis_{}", "dhw", [tables.add(axis.packed()) for axis in axes]),
    }
    vector: Integers = tables.partial_vector(**fields)
    with_sizes(vector, problem, op, math.prod(problem.w_shape), 1, math.prod(separated.x_shape))
    kernel = KERNELS[not folding(problem) and problem.stride[2] <= 2]
    return Launch(kernel, problem.N * problem.C * -(-height // rows), problem.dtype, vector, 1)


def _with_phases(run: Run, separate: Launch, separated: ConvProblem) -> Run:
    """The run on an x with its phases apart."""

    def on_phases(x: Array, w: Array, y: Array, residual: Array, constants: Array, threads: int) -> None:
        phases = scratch(math.prod(separated.x_shape), separated.dtype, "phases")
        separate(x, w, phases, phases, constants, threads)
        run(phases, w, y, residual, constants, threads)

    return on_phases


def _separated_filters(w: Array, separated: ConvProblem, places: NDArray[np.int64]) -> Array:
    filters = np.zeros(separated.w_shape, separated.dtype)
    _by_channels(filters, w)[..., places] = w.reshape(*w.shape[:2], -1)
    return filters


def _by_channels(filters: Array, w: Array) -> Array:
    """View the separated filters as (K, C / groups, phases and taps)."""
    return filters.reshape(*w.shape[:2], -1)


def _after(
    transform: Callable[[Array, int], Array], separated: ConvProblem, places: NDArray[np.int64]
) -> Callable[[Array, int], Array]:
    return lambda w, threads: transform(_separated_filters(w, separated, places), threads)


def _of_filters(run: Run, separated: ConvProblem, places: NDArray[np.int64]) -> Run:
    """The run with the filters of the separated problem."""

    def forward(x: Array, w: Array, y: Array, residual: Array, constants: Array, threads: int) -> None:
        run(x, _separated_filters(w, separated, places), y, residual, constants, threads)

    return forward


def _of_gradients(run: Run, separated: ConvProblem, places: NDArray[np.int64]) -> Run:
    """The run for those of its filters' elements that are taps."""

    def grad_weight(x: Array, w: Array, y: Array, residual: Array, constants: Array, threads: int) -> None:
        filters = np.empty(separated.w_shape, separated.dtype)
        run(x, filters, y, filters, constants, threads)
        w.reshape(*w.shape[:2], -1)[...] = _by_channels(filters, w)[..., places]

    return grad_weight


# ---- what the selector asks


def supports(problem: ConvProblem, op: Op) -> bool:
    """Whether these kernels serve: FORWARD and GRAD_WEIGHT, with strides, of real tensors in channels_first."""
    return (
        op is not Op.GRAD_INPUT
        and problem.stride != (1, 1, 1)
        and problem.real_products == 1
        and problem.layout == "channels_first"
        and any(way.supports(_separated(problem), op) for way in WAYS)
    )


def _way(separated: ConvProblem, op: Op) -> ModuleType:
    return cheapest(WAYS, separated, op)


def cheapest(ways: Sequence[ModuleType], problem: ConvProblem, op: Op) -> ModuleType:
    """The module, of those that support a problem, whose price is the lowest."""
    serving = (way for way in ways if way.supports(problem, op))
    return min(serving, key=lambda way: way.cost(problem, op, local_machine()))


def workspace(problem: ConvProblem, op: Op) -> int:
    """That of the separated problem, and its input."""
    separated = _separated(problem)
    bytes: int = _way(separated, op).workspace(separated, op)
    return bytes + math.prod(separated.x_shape) * problem.real_bytes


def error_bound(problem: ConvProblem, op: Op) -> float:
    separated = _separated(problem)
    error: float = _way(separated, op).error_bound(separated, op)
    return error


def cost(problem: ConvProblem, op: Op, machine: Machine) -> float:
    """The separated problem, and the way of x into it."""
    separated = _separated(problem)
    elements = math.prod(separated.x_shape)
    cycles = elements / lanes_of(problem.dtype) * COPIED_CYCLES
    seconds: float = _way(separated, op).cost(separated, op, machine)
    return seconds + machine.seconds(cycles, machine.threads, 2 * elements * problem.real_bytes)
