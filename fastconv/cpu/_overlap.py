"""Overlap-save: the tiles that are gathered for a transform, and those that come out of it.

A cyclic correlation of n points comes out right for n - halo outputs, where the halo is what the filter reaches beyond
the first of its elements. So strips of n overlap by the halo, and are stored next to each other. A strip of a whole
axis closes to a ring, on which the border at its end and that at its begin are one: with a border of b at both, n
points suffice for n + b - halo outputs. GRAD_INPUT is a correlation too, with the filter turned around
(`fastconv.cpu._axes.transposed_axes`).

Source: Oppenheim, Schafer, "Discrete-Time Signal Processing", 3rd edition, section 8.7.3.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

from ..core.algorithm import Epilogue
from ..core.boundary import folds
from ..core.jit import subroutine
from ..core.problem import Axes, ConvProblem, Op
from ._activation import activation_code
from ._axes import Axis, folding, input_axis, output_axis, transposed_axes, transposed_extent, transposed_reach
from ._geometry import Integers, Tables, named
from ._kernel import never_inlined, plane_at
from ._rows import prefetch_rows
from ._strips import header, tile_of
from ._tiles import role_fields


def serves(problem: ConvProblem) -> bool:
    """Whether a problem is real, of one or two axes, and without strides."""
    return problem.real_products == 1 and problem.padded[0] == problem.filter[0] == 1 and problem.stride == (1, 1, 1)


def positions(problem: ConvProblem, op: Op) -> Axes:
    """Extents of what is computed; in GRAD_WEIGHT, of what the sum goes over."""
    if op is not Op.GRAD_INPUT:
        return problem.output
    first, second, third = (transposed_extent(problem, axis) for axis in range(3))
    return first, second, third


def halo(problem: ConvProblem, op: Op) -> Axes:
    """Positions that a tile needs beyond its own."""
    if op is Op.GRAD_INPUT:
        first, second, third = (sum(transposed_reach(problem, axis)) for axis in range(3))
    else:
        first, second, third = (reach - 1 for reach in problem.reach)
    return first, second, third


def least_strip(problem: ConvProblem, op: Op) -> Axes:
    """The shortest strips that hold whole axes, their borders at both ends in the same place."""
    whole, more = positions(problem, op), halo(problem, op)
    first, second, third = (
        max(whole[axis], more[axis] + 1, whole[axis] + more[axis] - _common_border(problem, op, axis))
        for axis in range(3)
    )
    return first, second, third


def _common_border(problem: ConvProblem, op: Op, axis: int) -> int:
    """Positions at the begin of what is gathered, and as many at its end, that hold the value outside."""
    if op is Op.GRAD_INPUT:
        before, behind = transposed_reach(problem, axis)
        return max(0, min(before, transposed_extent(problem, axis) + behind - problem.output[axis]))
    return 0 if folds(problem.padding_mode) else min(problem.padding[axis])


def most_outputs(problem: ConvProblem, op: Op, strip: Axes) -> Axes:
    """Positions that come out right of a strip; none, or less, where it is too short for the filter."""
    first, second, third = (
        whole if extent >= least else extent - more
        for whole, extent, least, more in zip(
            positions(problem, op), strip, least_strip(problem, op), halo(problem, op), strict=True
        )
    )
    return first, second, third


class Cut(NamedTuple):
    """How strips and tiles cover the axes."""

    strip: Axes
    tile: Axes
    tiles: Axes

    @property
    def number(self) -> int:
        return math.prod(self.tiles)


class Places(NamedTuple):
    """Both packed tensors along one axis, and where each tap of the filter stands in a strip."""

    source: Axis
    target: Axis
    taps: list[int]


def places(problem: ConvProblem, op: Op, cut: Cut, axis: int) -> Places:
    """The index tables of one axis, for all of its strips."""
    last = max(cut.tile[axis], cut.strip[axis] - halo(problem, op)[axis])
    outputs = (cut.tiles[axis] - 1) * cut.tile[axis] + last
    if op is Op.GRAD_INPUT:
        source, target, (meets,) = transposed_axes(problem, axis, outputs)
        return Places(source, target, [tap.shift for _, tap in sorted(meets)])
    source, taps = input_axis(problem, axis, outputs)
    return Places(source, output_axis(problem, axis, outputs), [tap.shift for tap in taps])


def taps_of(problem: ConvProblem, op: Op, cut: Cut) -> list[Axes]:
    """Where each tap of the filter stands in a strip."""
    first, second, third = (places(problem, op, cut, axis).taps for axis in range(3))
    return list(itertools.product(first, second, third))


def accumulates(problem: ConvProblem, op: Op) -> bool:
    """Whether several places of the target are added up to one element."""
    return op is Op.GRAD_INPUT and folding(problem)


def strips_vector(
    tables: Tables, problem: ConvProblem, op: Op, epilogue: Epilogue, cut: Cut, **further: int
) -> Integers:
    """The geometry vector with the header of `Strips`, with further fields of it."""
    axes = [places(problem, op, cut, axis) for axis in range(3)]
    fields = {
        "images": problem.N,
        **role_fields(problem, op),
        **named("positions_{}", "zpq", positions(problem, op)),
        **named("tiles_{}", "zpq", cut.tiles),
        **named("tile_{}", "zpq", cut.tile),
        **named("strip_{}", "dhw", cut.strip),
        **named("source_axis_{}", "dhw", [tables.add(each.source.packed()) for each in axes]),
        **named("target_axis_{}", "dhw", [tables.add(each.target.packed()) for each in axes]),
        "accumulates": accumulates(problem, op),
        "activation": activation_code(epilogue, problem.dtype),
        "has_residual": epilogue.residual,
        **further,
    }
    return tables.partial_vector(**fields)


# ---- in kernels: items are the tiles of all images


@subroutine
def tile_of_item(s, item):
    """Image and tile; the image does not exist where the item is past the last."""
    image, rank = divmod(item, s.tiles_z * s.tiles_p * s.tiles_q)
    return image, tile_of(s, rank)


@subroutine
def prefetch_tile(target, channel, channels, image, tile, geometry):
    """Begin to fetch where the tile of neighbouring channels is stored, if its rows are dense.

    A store that has to wait for a far cache holds up those behind it: 1024x1024, 31x31, took 3.3 ms without and 2.6 ms
    with this.
    """
    never_inlined()
    s = header(geometry)
    plane_h, plane_w = plane_at(geometry, s.target_axis_h, 0), plane_at(geometry, s.target_axis_w, 0)
    for k in range(channel, channel + channels if s.target_w == 1 else channel):
        prefetch_rows(
            target, image * s.target_n + k * s.target_c, s.target_h, tile.height, tile.width, s.target_w,
            geometry, plane_h, tile.p, plane_w, tile.q,
        )  # fmt: skip
