"""Index tables of the three spatial axes: padding, stride and dilation turned into integers once.

Along an axis of stride s, the padded coordinate of output p and tap r is ``p * s + r * dilation``. Written as
``s * (p + shift) + phase``, the elements that one tap meets, for all p, are neighbours in the plane of their
phase: position ``p + shift`` of it. So a padded axis is a few planes of unit stride, and stride and dilation are
gone. GRAD_INPUT is the same with the roles exchanged: its input has one plane, its output one for each phase.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core.boundary import OUTSIDE, folds, source_index
from ..core.problem import ConvProblem

Integers = NDArray[np.int64]


class Tap(NamedTuple):
    """Where one filter tap reads: position ``p + shift`` of the plane in this slot."""

    slot: int
    shift: int


@dataclass(frozen=True)
class Axis:
    """The planes of one axis.

    Attributes
    ----------
    index
        (planes, positions): the element at each position, or OUTSIDE.
    step
        Distance of neighbours within a plane, in elements.
    runs
        (planes, 2): first position, and the one after the last, between which elements follow each other at
        `step`; elsewhere each position must be looked up.
    """

    index: Integers
    step: int
    runs: Integers

    @property
    def positions(self) -> int:
        return int(self.index.shape[1])

    def packed(self) -> Integers:
        """All of it as one vector: positions, step, then for each plane its run and its indices."""
        planes = np.concatenate([self.runs, self.index], axis=1)
        return np.concatenate([[self.positions, self.step], planes.reshape(-1)]).astype(np.int64)


def phased_axis(places: Integers, phases: list[int], step: int, run: tuple[int, int], positions: int) -> Axis:
    """Split the places of a padded axis into planes.

    Parameters
    ----------
    places
        Element at each place of the axis, or OUTSIDE.
    phases
        First place of each plane.
    step
        Places from one position of a plane to the next.
    run
        Places between which elements follow each other, as far as there are places.
    positions
        Length of the planes; positions after the last place are OUTSIDE.
    """
    wanted = np.asarray(phases, np.int64)[:, None] + step * np.arange(positions, dtype=np.int64)
    held = wanted < len(places)
    index = np.where(held, places[np.where(held, wanted, 0)], OUTSIDE)
    bounds = [[-(-(min(edge, len(places)) - phase) // step) for edge in run] for phase in phases]
    return Axis(index, step, np.clip(bounds, 0, positions).astype(np.int64))


def input_axis(problem: ConvProblem, axis: int, outputs: int, gap: int = 0) -> tuple[Axis, list[Tap]]:
    """Planes of the padded input for `outputs` output positions, and what each tap reads.

    gap: positions of a plane between those that a tap meets one after the other; all phases are one plane where it is
    the stride less 1.
    """
    extent, dilation, step = problem.input[axis], problem.dilation[axis], problem.stride[axis] // (gap + 1)
    low, high = problem.padding[axis]
    reads = [tap * dilation for tap in range(problem.filter[axis])]
    phases = sorted({read % step for read in reads})
    places = source_index(extent, low, high, problem.padding_mode)
    positions = (outputs - 1) * (gap + 1) + 1 + reads[-1] // step
    planes = phased_axis(places, phases, step, (low, low + extent), positions)
    return planes, [Tap(phases.index(read % step), read // step) for read in reads]


def output_axis(problem: ConvProblem, axis: int, outputs: int) -> Axis:
    """The output as a single plane of `outputs` positions, those past its end OUTSIDE."""
    extent = problem.output[axis]
    return phased_axis(np.arange(extent), [0], 1, (0, extent), outputs)


def folding(problem: ConvProblem) -> bool:
    """Whether GRAD_INPUT adds what falls on the padding to elements that have a place of their own."""
    return folds(problem.padding_mode) and any(low or high for low, high in problem.padding)


def transposed_reach(problem: ConvProblem, axis: int) -> tuple[int, int]:
    """What GRAD_INPUT reads around a position: elements of y before it, and behind it."""
    deltas = [delta for _, _, delta in _meetings(problem, axis)]
    return max(0, -min(deltas, default=0)), max(0, max(deltas, default=0))


def transposed_extent(problem: ConvProblem, axis: int) -> int:
    """Places of the input that GRAD_INPUT computes: also those in the padding, where they are folded back."""
    return problem.padded[axis] if folding(problem) else problem.input[axis]


def _meetings(problem: ConvProblem, axis: int) -> list[tuple[int, int, int]]:
    """Every (phase, tap, delta) such that place ``stride * j + phase`` receives ``y[j + delta]`` from the tap."""
    stride, dilation = problem.stride[axis], problem.dilation[axis]
    cut = 0 if folding(problem) else problem.padding[axis][0]
    met = []
    for phase in range(min(stride, transposed_extent(problem, axis))):
        for tap in range(problem.filter[axis]):
            delta, rest = divmod(cut + phase - tap * dilation, stride)
            if rest == 0:
                met.append((phase, tap, delta))
    return met


def transposed_axes(problem: ConvProblem, axis: int, positions: int) -> tuple[Axis, Axis, list[list[tuple[int, Tap]]]]:
    """GRAD_INPUT along one axis, for this many positions of each phase.

    Returns
    -------
    (the bordered output, the input's planes by phase, for each phase its (tap number, tap) pairs)
    """
    before, behind = transposed_reach(problem, axis)
    stride, extent, computed = problem.stride[axis], problem.output[axis], transposed_extent(problem, axis)
    gathered = phased_axis(
        source_index(extent, before, 0, "zeros"), [0], 1, (before, before + extent), before + positions + behind
    )
    low, high = problem.padding[axis] if folding(problem) else (0, 0)
    places = source_index(problem.input[axis], low, high, problem.padding_mode)
    phases = list(range(min(stride, computed)))
    scattered = phased_axis(places, phases, stride, (low, low + problem.input[axis]), positions)
    meets: list[list[tuple[int, Tap]]] = [[] for _ in phases]
    for phase, tap, delta in _meetings(problem, axis):
        meets[phase].append((tap, Tap(0, before + delta)))
    return gathered, scattered, meets
