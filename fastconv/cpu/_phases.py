"""The geometry of direct kernels: the planes of both tensors, and where in a strip each tap and each pixel is."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..core.algorithm import Epilogue
from ..core.problem import Axes, ConvProblem, Op
from ._activation import activation_code
from ._axes import Axis, Tap, input_axis, output_axis, transposed_axes
from ._geometry import Tables, named
from ._tiles import Tiling, role_fields, together


@dataclass(frozen=True)
class Phase:
    """One plane of the target: its slots, and the taps that reach it, by axis."""

    slots: Axes
    taps: tuple[list[tuple[int, Tap]], ...]

    @property
    def count(self) -> int:
        return math.prod(map(len, self.taps))


def axes_and_phases(problem: ConvProblem, op: Op, sizes: Tiling) -> tuple[list[Axis], list[Axis], list[Phase]]:
    """Source axes, target axes and the phases of the target."""
    covered = [count * size for count, size in zip(sizes.tiles, sizes.tile, strict=True)]
    if op is Op.GRAD_INPUT:
        transposed = [transposed_axes(problem, axis, covered[axis]) for axis in range(3)]
        sources, targets, meets = map(list, zip(*transposed, strict=True))
        phases = [
            Phase(slots, tuple(meets[axis][slot] for axis, slot in enumerate(slots)))  # type: ignore[arg-type]
            for slots in itertools.product(*[range(len(each)) for each in meets])
        ]
        return sources, targets, phases
    gathered = [input_axis(problem, axis, covered[axis], gap) for axis, gap in enumerate((0, 0, sizes.gap))]
    taps = tuple(list(enumerate(reads)) for _, reads in gathered)
    targets = [output_axis(problem, axis, covered[axis]) for axis in range(3)]
    return [planes for planes, _ in gathered], targets, [Phase((0, 0, 0), taps)]


def offsets_of(phase: Phase, sizes: Tiling, channels: int) -> NDArray[np.int64]:
    """Positions in the strip of every (channel, tap) of a phase."""
    strip, planes = sizes.strip, sizes.planes
    taps = [
        ((t.slot * planes[1] + r.slot) * planes[2] + s.slot) * math.prod(strip)
        + (t.shift * strip[1] + r.shift) * strip[2]
        + s.shift
        for (_, t), (_, r), (_, s) in itertools.product(*phase.taps)
    ]
    begins = sizes.channel_pitch * np.arange(channels, dtype=np.int64)
    return (begins[:, None] + np.asarray(taps, np.int64)).reshape(-1)


def taken_weights(phase: Phase, problem: ConvProblem, channels: int, channel_stride: int) -> NDArray[np.int64]:
    """Places of the weights of every (channel, tap) of a phase, from the first channel's first tap."""
    _, height, width = problem.filter
    taps = [(t * height + r) * width + s for (t, _), (r, _), (s, _) in itertools.product(*phase.taps)]
    return (channel_stride * np.arange(channels, dtype=np.int64)[:, None] + np.asarray(taps, np.int64)).reshape(-1)


def pixels_of(sizes: Tiling) -> NDArray[np.int64]:
    """Positions in the strip of the pixels of a tile."""
    z, p, q = np.ogrid[: sizes.tile[0], : sizes.tile[1], : sizes.tile[2]]
    places = (z * sizes.strip[1] + p) * sizes.strip[2] + q * (sizes.gap + 1)
    return np.asarray(places, np.int64).reshape(-1)


def fields_of(
    tables: Tables, problem: ConvProblem, op: Op, epilogue: Epilogue, sizes: Tiling, axes: tuple[list[Axis], list[Axis]]
) -> dict[str, int]:
    """The fields of the header `Strips` that do not depend on how sums are computed; axes: of source and target."""
    source_at, target_at = ([tables.add(axis.packed()) for axis in each] for each in axes)
    return {
        "images": problem.N,
        **role_fields(problem, op),
        "channel_block": sizes.channel_block,
        "row_block": sizes.row_block,
        **named("positions_{}", "zpq", sizes.positions),
        **named("tiles_{}", "zpq", sizes.tiles),
        **named("tile_{}", "zpq", sizes.tile),
        "tiles_per_task": sizes.tiles_per_task,
        **named("strip_{}", "dhw", sizes.strip),
        **named("planes_{}", "dhw", sizes.planes),
        "gap_w": sizes.gap,
        "channel_pitch": sizes.channel_pitch,
        "plane_pitch": sizes.plane_pitch,
        "line_pitch": sizes.line_pitch,
        "pitch": sizes.pitch,
        **named("source_axis_{}", "dhw", source_at),
        **named("target_axis_{}", "dhw", target_at),
        "activation": activation_code(epilogue, problem.dtype),
        "has_residual": epilogue.residual,
        "pixels_at": tables.add(pixels_of(sizes)),
        "together": together(problem, op),
    }
