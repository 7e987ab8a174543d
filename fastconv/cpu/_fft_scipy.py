"""Convolution through the transforms of scipy.fft, tile by tile: any problem, rank and type but integers.

Strides and dilations are sequences with zeros between their elements. The image is cut into tiles of n - reach + 1
places, so that the memory does not grow with it; channels are cut into blocks for the same reason. Padding is filled in
where a tile is gathered. The products of spectra (`fastconv.cpu.fft`) are Numba's.

Source: Oppenheim, Schafer, "Discrete-Time Signal Processing", 3rd edition, section 8.7.3 (overlap-save).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core.algorithm import PLAIN, Array, Epilogue, Plan, Run
from ..core.arrays import allocate
from ..core.boundary import OUTSIDE, source_index
from ..core.jit import kernel
from ..core.machine import Machine
from ..core.problem import Axes, ConvProblem, Op
from ._activation import finish
from ._extremes import is_extreme
from ._fourier import limit, transform_error
from ._geometry import grouped, initialise
from ._kernel import first_integers, views
from ._launch import Launch
from ._simd import REGISTER_BYTES, fma, lanes, load_first, store_first

# Points of a tile, if the filter allows: a complex64 plane of 2 MiB.
TILE_POINTS = 1 << 18
# All spectra held at once, in bytes, as long as one channel of each tensor fits.
SPECTRA_BYTES = 32 << 20
# Frequencies of one task of a product: its three rows stay in a first-level cache.
FREQUENCIES = 1024
# Parts of the FMA peak of the machine of docs/performance.md: scipy.fft, with 5 n log2 n operations counted for
# a complex transform, and the products of spectra, with 8 for each.
TRANSFORM_EFFICIENCY = 0.04
PRODUCT_EFFICIENCY = 0.05
# Seconds for each call of a transform and its gathering in Python, and the points times passes transformed meanwhile.
CALL_SECONDS = 40e-6
CALL_POINTS = 150_000


# ---- products of spectra


class Spectra(NamedTuple):
    """The header of the geometry vector; strides are in elements, and 0 along what a tensor does not have."""

    sizes_1: int
    sizes_2: int
    sizes_3: int
    sizes_4: int
    sizes_5: int
    sizes_6: int
    sizes_7: int
    targets: int  # channels of one group
    sources: int
    frequencies: int
    blocks: int  # of FREQUENCIES
    x_group: int
    x_target: int
    x_source: int
    w_group: int
    w_target: int
    w_source: int
    y_group: int
    y_target: int
    y_source: int


HEADER = len(Spectra._fields)


@kernel
def _accumulate_spectra(task, x, w, y, residual, constants, workspace, geometry):
    """y[f] += x[f] * w[f] for every source; one task: a group, a target and a block of frequencies."""
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    g = Spectra(*first_integers(geometry, HEADER))
    row, block = divmod(task, g.blocks)
    group, target = divmod(row, g.targets)
    first = block * FREQUENCIES
    count = min(FREQUENCIES, g.frequencies - first)
    step = lanes(y)
    for source in range(g.sources):
        x_at = group * g.x_group + target * g.x_target + source * g.x_source + first
        w_at = group * g.w_group + target * g.w_target + source * g.w_source + first
        y_at = group * g.y_group + target * g.y_target + source * g.y_source + first
        for f in range(0, count, step):
            held = min(step, count - f)
            first_factor, second_factor = load_first(x, x_at + f, held, 1), load_first(w, w_at + f, held, 1)
            store_first(y, y_at + f, held, fma(first_factor, second_factor, load_first(y, y_at + f, held, 1)))


# ---- tiles


class Segment(NamedTuple):
    """Evenly spaced elements of a tile, and the evenly spaced elements of the tensor that stand there."""

    tile: slice
    tensor: slice


def _segments(index: NDArray[np.int64]) -> list[Segment]:
    """Cut a vector of source indices into segments; OUTSIDE belongs to none."""
    kept = np.flatnonzero(index != OUTSIDE)
    found = index[kept]
    steps = np.stack([np.diff(kept), np.diff(found)], axis=1)
    changes = np.flatnonzero(np.any(steps[1:] != steps[:-1], axis=1)) + 1
    segments, start = [], 0
    while start < len(kept):
        later = changes[np.searchsorted(changes, start, side="right") :]
        last = int(later[0]) if later.size else len(kept) - 1
        if last > start and steps[start, 1] == 0:  # one element repeated: no slice can say that
            last = start
        tile_step, step = (1, 1) if last == start else map(int, steps[start])
        segments.append(
            Segment(
                slice(int(kept[start]), int(kept[last]) + 1, tile_step),
                _inclusive(int(found[start]), int(found[last]), step),
            )
        )
        start = last + 1
    return segments


def _inclusive(first: int, last: int, step: int) -> slice:
    end = last + (1 if step > 0 else -1)
    return slice(first, end if end >= 0 else None, step)


def _window(index: NDArray[np.int64], start: int, length: int) -> NDArray[np.int64]:
    """`length` places from `start`, which may lie before or after the vector."""
    places = np.arange(start, start + length)
    held = (places >= 0) & (places < len(index))
    return np.where(held, index[np.where(held, places, 0)], OUTSIDE)


def _gather(tensor: Array, segments: list[list[Segment]], extents: Axes, outside: Any) -> Array:
    """A tile (..., extents) of a tensor (..., D, H, W)."""
    tile = allocate((*tensor.shape[:-3], *extents), tensor.dtype.name)
    tile[...] = outside
    for d, h, w in itertools.product(*segments):
        tile[..., d.tile, h.tile, w.tile] = tensor[..., d.tensor, h.tensor, w.tensor]
    return tile


def _scatter(tensor: Array, segments: list[list[Segment]], tile: Array) -> None:
    """Add a tile to where `_gather` takes it from."""
    for d, h, w in itertools.product(*segments):
        tensor[..., d.tensor, h.tensor, w.tensor] += tile[..., d.tile, h.tile, w.tile]


def _stuffed_index(outputs: int, stride: int) -> NDArray[np.int64]:
    """Output p at place p * stride, OUTSIDE between."""
    index = np.full((outputs - 1) * stride + 1, OUTSIDE, np.int64)
    index[::stride] = np.arange(outputs)
    return index


# ---- sizes


@dataclass(frozen=True)
class _Sizes:
    """Extents of transforms and tiles, and how many channels are transformed together."""

    points: Axes
    tile: Axes
    tiles: Axes
    groups: int
    targets: int
    sources: int
    frequencies: int

    @property
    def spectra(self) -> int:
        """Complex numbers held at once."""
        return self.groups * self.frequencies * (self.targets * self.sources + self.targets + self.sources)


@lru_cache(maxsize=256)
def _sizes(problem: ConvProblem, op: Op) -> _Sizes:
    covered = problem.padded if op is Op.GRAD_INPUT else _dense_output(problem)
    points = _transform_extents(covered, problem.reach)
    tile = tuple(n - reach + 1 for n, reach in zip(points, problem.reach, strict=True))
    tiles = _tile_counts(covered, problem.reach, points)
    last = points[2] if np.dtype(problem.dtype).kind == "c" else points[2] // 2 + 1
    frequencies = points[0] * points[1] * last
    groups, targets, sources = problem.groups, problem.K // problem.groups, problem.C // problem.groups
    if op is Op.GRAD_INPUT:
        targets, sources = sources, targets
    most = SPECTRA_BYTES // (2 * problem.real_bytes * frequencies)
    while groups > 1 and groups * (targets * sources + targets + sources) > most:
        groups = -(-groups // 2)
    while max(targets, sources) > 1 and targets * sources + targets + sources > most:
        if targets >= sources:
            targets = -(-targets // 2)
        else:
            sources = -(-sources // 2)
    return _Sizes(points, tile, tiles, groups, targets, sources, frequencies)  # type: ignore[arg-type]


def _dense_output(problem: ConvProblem) -> Axes:
    """Extents of the output that a stride of 1 would give, up to the last element that is kept."""
    first, second, third = (
        (extent - 1) * stride + 1 for extent, stride in zip(problem.output, problem.stride, strict=True)
    )
    return first, second, third


def _transform_extents(covered: Axes, reach: Axes) -> Axes:
    """Extents of the transforms with which all tiles together take the least time."""

    def seconds(points: Axes) -> float:
        n = math.prod(points)
        return math.prod(_tile_counts(covered, reach, points)) * (n * math.log2(n + 1) + CALL_POINTS)

    first, second, third = (_fast_lengths(whole, part) for whole, part in zip(covered, reach, strict=True))
    choices = itertools.product(first, second, third)
    return min(choices, key=lambda points: (math.prod(points) > TILE_POINTS, seconds(points)))


def _tile_counts(covered: Axes, reach: Axes, points: Axes) -> Axes:
    first, second, third = (-(-whole // (n - part + 1)) for whole, part, n in zip(covered, reach, points, strict=True))
    return first, second, third


def _fast_lengths(whole: int, reach: int) -> list[int]:
    """Good lengths for an axis: one transform for all of it, or twice, four times, ... the filter."""
    from scipy.fft import next_fast_len

    longest = int(next_fast_len(whole + reach - 1, real=True))
    doubled = (int(next_fast_len(reach * 2**power, real=True)) for power in range(1, 40))
    return [*itertools.takewhile(lambda n: n < longest, doubled), longest]


# ---- plans


class _Transforms:
    """scipy.fft for one type and one size: real to complex where the data is real."""

    def __init__(self, points: Axes, dtype: str, threads: int) -> None:
        from scipy import fft

        self.points = points
        self._axes = tuple(axis - 3 for axis in range(3) if points[axis] > 1 or axis == 2)
        self._lengths = tuple(points[axis] for axis in self._axes)
        real = np.dtype(dtype).kind != "c"
        self._transform = fft.rfftn if real else fft.fftn
        self._inverse = fft.irfftn if real else fft.ifftn
        self._workers = threads

    def forward(self, tile: Array) -> Array:
        return np.ascontiguousarray(self._transform(tile, axes=self._axes, workers=self._workers))

    def reflected(self, tile: Array) -> Array:
        """The transform of the sequence with its sign of time reversed."""
        if tile.dtype.kind != "c":
            return np.conj(self.forward(tile))
        return np.conj(self.forward(np.conj(tile)))

    def inverse(self, spectrum: Array) -> Array:
        result: Array = self._inverse(spectrum, s=self._lengths, axes=self._axes, workers=self._workers)
        return result

    def accumulate(self, x: Array, w: Array, y: Array) -> None:
        """Y += x * w, each of shape (groups, targets or 1, sources or 1, frequencies), broadcast as in NumPy."""
        groups, targets, sources = np.broadcast_shapes(x.shape[:3], w.shape[:3], y.shape[:3])
        frequencies = math.prod(x.shape[3:])
        blocks = -(-frequencies // FREQUENCIES)
        strides = [stride for each in (x, w, y) for stride in _channel_strides(each.shape, frequencies)]
        header = Spectra(x.size, w.size, y.size, 1, 1, 0, HEADER, targets, sources, frequencies, blocks, *strides)
        none = np.zeros(1, x.dtype)
        tasks = groups * targets * blocks
        launch = Launch(_accumulate_spectra, tasks, x.dtype.name, np.array(header, np.int64), 0)
        launch(x, w, y, none, none, self._workers)


def _channel_strides(shape: tuple[int, ...], frequencies: int) -> tuple[int, int, int]:
    """Elements from one group, target and source to the next; 0 along an axis that is broadcast."""
    _, targets, sources = shape[:3]
    return (
        targets * sources * frequencies,
        sources * frequencies if targets > 1 else 0,
        frequencies if sources > 1 else 0,
    )


def _stuffed(weight: Array, problem: ConvProblem, points: Axes) -> Array:
    """The filter with its dilation written out, in a tile of zeros."""
    tile = np.zeros((*weight.shape[:-3], *points), weight.dtype)
    t, r, s = _taps(problem)
    tile[..., t, r, s] = weight
    return tile


def _taps(problem: ConvProblem) -> tuple[slice, slice, slice]:
    t, r, s = (slice(0, reach, d) for reach, d in zip(problem.reach, problem.dilation, strict=True))
    return t, r, s


def _as_groups(tensor: Array, problem: ConvProblem) -> Array:
    """View x or y as (N, groups, channels, D, H, W), whatever its layout."""
    first = tensor if problem.layout == "channels_first" else np.moveaxis(tensor, -1, 1)
    spatial = (1,) * (3 - problem.rank) + first.shape[2:]
    return first.reshape(first.shape[0], problem.groups, -1, *spatial)


def _blocks(whole: int, size: int) -> Iterator[slice]:
    return (slice(first, min(first + size, whole)) for first in range(0, whole, size))


class _Tiles:
    """The tiles of a problem: for each, where its transforms read and what part of the result it gives."""

    def __init__(self, problem: ConvProblem, sizes: _Sizes) -> None:
        self._problem, self._sizes = problem, sizes
        self._padded = [
            source_index(extent, *pads, problem.padding_mode)
            for extent, pads in zip(problem.input, problem.padding, strict=True)
        ]
        self._stuffed = list(map(_stuffed_index, problem.output, problem.stride))

    def __iter__(self) -> Iterator[Axes]:
        """First place of every tile."""
        first, second, third = (
            range(0, n * size, size) for n, size in zip(self._sizes.tiles, self._sizes.tile, strict=True)
        )
        return itertools.product(first, second, third)

    def input(self, start: Axes) -> list[list[Segment]]:
        """The padded input from a place on."""
        return self._cut(self._padded, start, self._sizes.points)

    def input_valid(self, start: Axes) -> list[list[Segment]]:
        """The places of the padded input that a tile of GRAD_INPUT computes."""
        return self._cut(self._padded, start, self._sizes.tile)

    def output(self, start: Axes) -> list[list[Segment]]:
        """The outputs of a tile, at their places in the dense output."""
        return self._cut(self._stuffed, start, self._sizes.tile)

    def output_before(self, start: Axes) -> list[list[Segment]]:
        """The outputs that reach the input from a place on: those from reach - 1 places before."""
        first, second, third = (at - reach + 1 for at, reach in zip(start, self._problem.reach, strict=True))
        return self._cut(self._stuffed, (first, second, third), self._sizes.points)

    @staticmethod
    def _cut(indices: list[NDArray[np.int64]], start: Axes, extents: Axes) -> list[list[Segment]]:
        return [
            _segments(_window(index, at, length)) for index, at, length in zip(indices, start, extents, strict=True)
        ]


def plan(problem: ConvProblem, op: Op, epilogue: Epilogue) -> Plan:
    sizes = _sizes(problem, op)
    tiles = _Tiles(problem, sizes)
    make = {Op.FORWARD: _forward, Op.GRAD_INPUT: _grad_input, Op.GRAD_WEIGHT: _grad_weight}[op]
    return Plan(
        algorithm="fft",
        problem=problem,
        op=op,
        workspace_bytes=workspace(problem, op),
        run=_finished(make(problem, sizes, tiles), op, epilogue),
        limit=limit(problem, op, math.prod(sizes.points)),
        is_extreme=is_extreme,
        tiles={
            "points": math.prod(sizes.points),
            "tiles": math.prod(sizes.tiles),
            "groups": sizes.groups,
            "targets": sizes.targets,
            "sources": sizes.sources,
        },
    )


def _finished(run: Run, op: Op, epilogue: Epilogue) -> Run:
    """The run, then the epilogue over its result, which comes from the transforms in pieces."""
    if epilogue == PLAIN:
        return run

    def finished(x: Array, w: Array, y: Array, residual: Array, constants: Array, threads: int) -> None:
        run(x, w, y, residual, constants, threads)
        finish(y if op is Op.FORWARD else x, residual, epilogue, threads)

    return finished


def _forward(problem: ConvProblem, sizes: _Sizes, tiles: _Tiles) -> Run:
    def run(x: Array, w: Array, y: Array, residual: Array, constants: Array, threads: int) -> None:
        transforms = _Transforms(sizes.points, problem.dtype, threads)
        source, target, weight = _as_groups(x, problem), _as_groups(y, problem), grouped(problem, w)
        bias = constants[:-1].reshape(problem.groups, -1, 1, 1, 1)
        for g, k in itertools.product(_blocks(problem.groups, sizes.groups), _blocks(target.shape[2], sizes.targets)):
            filters = _FilterSpectra(weight[g, k], problem, sizes, transforms, reflect=True)
            for image, start in itertools.product(range(problem.N), tiles):
                tile = filters.multiply(source[image, g], tiles.input(start), constants[-1]) + bias[g, k]
                for d, h, v in itertools.product(*tiles.output(start)):
                    target[image, g, k, d.tensor, h.tensor, v.tensor] = tile[..., d.tile, h.tile, v.tile]

    return run


def _grad_input(problem: ConvProblem, sizes: _Sizes, tiles: _Tiles) -> Run:
    first, second, third = (reach - 1 for reach in problem.reach)

    def run(x: Array, w: Array, y: Array, residual: Array, constants: Array, threads: int) -> None:
        transforms = _Transforms(sizes.points, problem.dtype, threads)
        source, target, weight = _as_groups(y, problem), _as_groups(x, problem), grouped(problem, w).swapaxes(1, 2)
        initialise(x, problem, constants)
        for g, c in itertools.product(_blocks(problem.groups, sizes.groups), _blocks(target.shape[2], sizes.targets)):
            filters = _FilterSpectra(weight[g, c], problem, sizes, transforms, reflect=False)
            for image, start in itertools.product(range(problem.N), tiles):
                tile = filters.multiply(source[image, g], tiles.output_before(start), 0)
                _scatter(target[image, g, c], tiles.input_valid(start), tile[..., first:, second:, third:])

    return run


def _grad_weight(problem: ConvProblem, sizes: _Sizes, tiles: _Tiles) -> Run:
    t, r, s = _taps(problem)

    def run(x: Array, w: Array, y: Array, residual: Array, constants: Array, threads: int) -> None:
        transforms = _Transforms(sizes.points, problem.dtype, threads)
        inputs, outputs, weight = _as_groups(x, problem), _as_groups(y, problem), grouped(problem, w)
        for g, k, c in itertools.product(
            _blocks(problem.groups, sizes.groups),
            _blocks(outputs.shape[2], sizes.targets),
            _blocks(inputs.shape[2], sizes.sources),
        ):
            total = None
            for image, start in itertools.product(range(problem.N), tiles):
                seen = _gather(inputs[image, g, c], tiles.input(start), sizes.points, constants[-1])
                given = _gather(outputs[image, g, k], tiles.output(start), sizes.points, 0)
                spectrum, other = transforms.forward(seen), transforms.reflected(given)
                if total is None:
                    total = np.zeros((*other.shape[:2], *spectrum.shape[1:]), spectrum.dtype)
                transforms.accumulate(spectrum[:, None], other[:, :, None], total)
            assert total is not None, "a problem without images does not come here"
            weight[g, k, c] = transforms.inverse(total)[..., t, r, s]

    return run


class _FilterSpectra:
    """Spectra of a block of filters (groups, targets, sources, T, R, S), kept if all sources fit at once."""

    def __init__(
        self, weight: Array, problem: ConvProblem, sizes: _Sizes, transforms: _Transforms, reflect: bool
    ) -> None:
        self._weight, self._problem, self._sizes = weight, problem, sizes
        self._transforms = transforms
        self._transform = transforms.reflected if reflect else transforms.forward
        self._kept: tuple[slice, Array] | None = None

    def multiply(self, tensor: Array, read: list[list[Segment]], outside: Any) -> Array:
        """A tile (groups, targets, points) of the result, from a tensor (groups, sources, D, H, W)."""
        total = None
        for sources in _blocks(self._weight.shape[2], self._sizes.sources):
            filters = self._filters(sources)
            tile = _gather(tensor[:, sources], read, self._sizes.points, outside)
            if total is None:
                total = np.zeros((*filters.shape[:2], *filters.shape[3:]), filters.dtype)
            self._transforms.accumulate(self._transforms.forward(tile)[:, None], filters, total[:, :, None])
        assert total is not None, "a problem without channels does not come here"
        return self._transforms.inverse(total)

    def _filters(self, sources: slice) -> Array:
        if self._kept is None or self._kept[0] != sources:
            stuffed = _stuffed(self._weight[:, :, sources], self._problem, self._sizes.points)
            self._kept = sources, self._transform(stuffed)
        return self._kept[1]


# ---- what the selector asks


def supports(problem: ConvProblem, op: Op) -> bool:
    return True


def workspace(problem: ConvProblem, op: Op) -> int:
    """The spectra, and as much again for the tiles and inside the transforms."""
    return 2 * _sizes(problem, op).spectra * 2 * problem.real_bytes


def error_bound(problem: ConvProblem, op: Op) -> float:
    sizes = _sizes(problem, op)
    additions = {
        Op.FORWARD: problem.C // problem.groups,
        Op.GRAD_INPUT: problem.K // problem.groups,
        Op.GRAD_WEIGHT: problem.N * math.prod(sizes.tiles),
    }[op]
    return transform_error(problem, math.prod(sizes.points), additions)


def cost(problem: ConvProblem, op: Op, machine: Machine) -> float:
    """Transforms of x, w and y in all their tiles and blocks, and the products of their spectra."""
    sizes = _sizes(problem, op)
    n = math.prod(sizes.points)
    tiles = problem.N * math.prod(sizes.tiles)
    groups, outputs, inputs = problem.groups, problem.K // problem.groups, problem.C // problem.groups
    targets, sources = (inputs, outputs) if op is Op.GRAD_INPUT else (outputs, inputs)
    target_blocks, source_blocks = -(-targets // sizes.targets), -(-sources // sizes.sources)
    filters = groups * targets * sources * (1 if op is Op.GRAD_WEIGHT or source_blocks == 1 else tiles)
    target_transforms = groups * targets * tiles * (source_blocks if op is Op.GRAD_WEIGHT else 1)
    transforms = filters + target_transforms + groups * sources * tiles * target_blocks
    real = 1 if problem.real_products == 4 else 0.5
    flops = real * 5 * n * math.log2(n + 1) * transforms / TRANSFORM_EFFICIENCY
    flops += 8 * sizes.frequencies * groups * targets * sources * tiles / PRODUCT_EFFICIENCY
    calls = 2 * tiles * -(-groups // sizes.groups) * target_blocks * source_blocks
    cycles = flops / (2 * REGISTER_BYTES / problem.real_bytes)
    return calls * CALL_SECONDS + machine.seconds(cycles, machine.threads, problem.bytes)
