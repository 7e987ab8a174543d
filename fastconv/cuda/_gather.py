"""FORWARD and GRAD_INPUT are one thing on the device: each element of the result gathers from a source, tap by tap.

With i the number of a position along each axis, and r and c a result and a source channel of one group::

    result[n, r, i * spread + first] = sum over taps t and c of weight[r, c, t] * source[n, c, i * step + shift[t]]

where places outside the source count as zeros. FORWARD has one phase: spread 1, first 0, step the stride and
shift[t] = t * dilation - padding. GRAD_INPUT has a phase for every residue of the place modulo the stride: spread is
the stride, first the residue, step 1, and shift[t] = (first + padding - t * dilation) / stride for the taps that it
divides. So no zero is inserted and none multiplied, and a kernel that serves one operation serves both.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..core.problem import Axes, ConvProblem, Op

TAP_FIELDS = 4  # of a row of `Gather.taps`


@dataclass(frozen=True)
class Strides:
    """Elements from one image, channel, d, h and w of a contiguous tensor to the next."""

    image: int
    channel: int
    d: int
    h: int
    w: int

    @classmethod
    def of(cls, channels: int, extents: Axes, layout: str) -> Strides:
        """Of a tensor of so many channels and these extents."""
        depth, height, width = extents
        if layout == "channels_first":
            return cls(channels * depth * height * width, depth * height * width, height * width, width, 1)
        return cls(depth * height * width * channels, 1, height * width * channels, width * channels, channels)


@dataclass(frozen=True)
class Phase:
    """Positions of the result that the same taps reach.

    Attributes
    ----------
    first
        Place of position 0.
    positions
        How many positions along each axis.
    first_tap, taps
        Which rows of `Gather.taps`.
    """

    first: Axes
    positions: Axes
    first_tap: int
    taps: int


@dataclass(frozen=True)
class Gather:
    """An operation, FORWARD or GRAD_INPUT, of a problem whose padding is zeros.

    Attributes
    ----------
    problem, op
        What is computed.
    """

    problem: ConvProblem
    op: Op

    @property
    def is_forward(self) -> bool:
        """Whether the source is x."""
        return self.op is Op.FORWARD

    @property
    def source_channels(self) -> int:
        """Channels of the source in one group."""
        return (self.problem.C if self.is_forward else self.problem.K) // self.problem.groups

    @property
    def result_channels(self) -> int:
        """Channels of the result in one group."""
        return (self.problem.K if self.is_forward else self.problem.C) // self.problem.groups

    @property
    def source_extents(self) -> Axes:
        """Extents of the source."""
        return self.problem.input if self.is_forward else self.problem.output

    @property
    def result_extents(self) -> Axes:
        """Extents of the result."""
        return self.problem.output if self.is_forward else self.problem.input

    @cached_property
    def source_strides(self) -> Strides:
        """Of the source."""
        return Strides.of(self.source_channels * self.problem.groups, self.source_extents, self.problem.layout)

    @cached_property
    def result_strides(self) -> Strides:
        """Of the result."""
        return Strides.of(self.result_channels * self.problem.groups, self.result_extents, self.problem.layout)

    @property
    def weight_strides(self) -> tuple[int, int, int]:
        """Elements of w from one group, result channel and source channel to the next; from tap to tap it is one."""
        taps, inputs = self.problem.taps, self.problem.C // self.problem.groups
        group = self.problem.K // self.problem.groups * inputs * taps
        return (group, inputs * taps, taps) if self.is_forward else (group, taps, inputs * taps)

    @property
    def step(self) -> Axes:
        """Places in the source from one position to the next."""
        return self.problem.stride if self.is_forward else (1, 1, 1)

    @property
    def spread(self) -> Axes:
        """Places in the result from one position to the next."""
        return (1, 1, 1) if self.is_forward else self.problem.stride

    @cached_property
    def phases(self) -> tuple[Phase, ...]:
        """Every phase; together their positions are all of the result."""
        phases, begin = [], 0
        for first in itertools.product(*map(range, self.spread)):
            positions = tuple(
                max(0, -(-(extent - f) // s))
                for extent, f, s in zip(self.result_extents, first, self.spread, strict=True)
            )
            count = math.prod(len(along) for along in self._taps_of(first))
            if math.prod(positions):
                phases.append(Phase(first, positions, begin, count))  # type: ignore[arg-type]
            begin += count
        return tuple(phases)

    @cached_property
    def taps(self) -> NDArray[np.int32]:
        """(rows, TAP_FIELDS), phase by phase: shift along d, h and w, and how far the weight is from that of tap 0."""
        _, R, S = self.problem.filter
        rows = []
        for first in itertools.product(*map(range, self.spread)):
            for (t, d), (r, h), (s, w) in itertools.product(*self._taps_of(first)):
                rows.append((d, h, w, (t * R + r) * S + s))
        return np.array(rows, np.int32).reshape(-1, TAP_FIELDS)

    def _taps_of(self, first: tuple[int, ...]) -> list[list[tuple[int, int]]]:
        """The taps that reach a phase along each axis, each with its shift."""
        return [
            [
                (tap, offset // divisor)
                for tap in range(taps)
                for offset in [tap * dilation - low if self.is_forward else residue + low - tap * dilation]
                if offset % divisor == 0
            ]
            for taps, dilation, (low, _), residue, divisor in zip(
                self.problem.filter, self.problem.dilation, self.problem.padding, first, self.spread, strict=True
            )
        ]
