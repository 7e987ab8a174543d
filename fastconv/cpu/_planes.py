"""Planes of complex points: the Fourier transform of two tiles of a channel at once.

A plane has n1 x n2 complex points. Its columns are transformed first, a register of neighbouring columns at once, then
its lines, a register of lines at once, for which squares of registers are transposed. Two tiles of the same channel
share it, one as the real and one as the imaginary part: filters are real, so that ::

    (a + i b) * w  =  a * w  +  i (b * w)

and nothing needs to be taken apart. A sequence of n1 * n2 elements fills the same plane, line by line; between columns
and lines each point is turned by exp(-2 pi i j k / (n1 n2)), for line frequency k and column j. A spectrum is stored in
panels of a register of lines, in which the columns follow each other.

Source: Bailey, "FFTs in External or Hierarchical Memory", J. Supercomputing 4 (1990), section 2 (sequences as planes).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core.algorithm import Epilogue
from ..core.jit import subroutine
from ..core.problem import Axes, ConvProblem, Op
from ._fourier import LENGTHS, add_passes, frequencies, transform, transform_back
from ._gemm import lanes_of
from ._geometry import Integers, Tables, even_split
from ._kernel import elements_in, first_integers, never_inlined, number, place, plane_at
from ._overlap import (
    Cut,
    least_strip,
    most_outputs,
    positions,
    prefetch_tile,
    strips_vector,
    taps_of,
    tile_of_item,
)
from ._rows import copy, fill, gather_row, gather_rows, store_row, store_runs
from ._simd import lanes, load, store, transpose
from ._strips import HEADER, Strips, header, is_plain


class Planes(NamedTuple):
    """Integers behind those of `Strips`; positions are in the workspace unless they say otherwise."""

    runs: int  # tasks of a channel
    pairs: int  # of tiles, in all images
    pairs_per_run: int
    lines: int  # n1
    columns: int  # n2
    line_passes: int  # positions of the tables of both transforms in the geometry vector
    column_passes: int
    turns_at: int  # factors between columns and lines, among the elements in the geometry vector; 0 for an image
    scale_at: int  # 1 / (n1 n2) there
    stage: int  # what tasks do
    kept_lines: int  # of a plane, which hold the outputs of a tile
    kept_columns: int  # whole panels of them
    tap_panels: int  # panels of columns that hold taps
    taps: int
    places_at: int  # in the geometry vector: where each tap stands in a plane
    second_at: int  # the strip of the second tile
    plane_at: int  # a plane of columns
    panel_at: int  # a panel of lines
    spectrum_at: int
    spectrum_pitch: int  # from one spectrum to the next


PLANES = len(Planes._fields)


@subroutine
def planes(geometry):
    return Planes(*first_integers(geometry[HEADER:], PLANES))


# ---- tiles


@subroutine
def gather_pair(source, source_at, pair, constants, workspace, geometry):
    """Both strips; the second is border where the number of tiles is odd and the pair the last."""
    never_inlined()
    s, g = header(geometry), planes(geometry)
    outside = constants[constants.size - 1]
    plane_h, plane_w = plane_at(geometry, s.source_axis_h, 0), plane_at(geometry, s.source_axis_w, 0)
    for item in range(2 * pair, 2 * pair + 2):
        image, tile = tile_of_item(s, item)
        begin = g.second_at if item & 1 else 0
        if s.plain and image < s.images:
            gather_rows(
                workspace, begin, s.strip_w, s.strip_h, s.strip_w, source, source_at + image * s.source_n, s.source_h,
                1, constants, True, geometry, plane_h, tile.p, plane_w, tile.q, 1, 0, 0, 0,
            )  # fmt: skip
            continue
        for h in range(s.strip_h):
            at, in_h = begin + h * s.strip_w, place(geometry, plane_h, tile.p + h)
            if image < s.images and in_h >= 0:
                row = source_at + image * s.source_n + in_h * s.source_h
                gather_row(
                    workspace, at, s.strip_w, source, row, s.source_w, outside, geometry, plane_w, 1, tile.q
                )  # fmt: skip
            else:
                fill(workspace, at, s.strip_w, outside)


@subroutine
def gather_pair_of_outputs(y, y_at, pair, constants, workspace, geometry):
    """Both strips with the outputs of a tile of each, and zeros around them."""
    never_inlined()
    s, g = header(geometry), planes(geometry)
    for item in range(2 * pair, 2 * pair + 2):
        image, tile = tile_of_item(s, item)
        at = g.second_at if item & 1 else 0
        fill(workspace, at, g.lines * g.columns, 0)
        if image < s.images:
            begin = y_at + image * s.target_n + tile.p * s.target_h + tile.q * s.target_w
            for p in range(tile.height):
                row, to = begin + p * s.target_h, at + p * s.strip_w
                if s.target_w == 1:
                    copy(workspace, to, y, row, tile.width)
                else:
                    for q in range(tile.width):
                        workspace[to + q] = y[row + q * s.target_w]


@subroutine
def prefetch_pair(target, channel, pair, geometry):
    """Begin to fetch where both tiles of a channel are stored."""
    never_inlined()
    s = header(geometry)
    for item in range(2 * pair, 2 * pair + 2):
        image, tile = tile_of_item(s, item)
        if image < s.images:
            prefetch_tile(target, channel, 1, image, tile, geometry)


@subroutine
def store_pair(target, channel, pair, workspace, geometry, finish):
    never_inlined()
    s, g = header(geometry), planes(geometry)
    plane_h, plane_w = plane_at(geometry, s.target_axis_h, 0), plane_at(geometry, s.target_axis_w, 0)
    for item in range(2 * pair, 2 * pair + 2):
        image, tile = tile_of_item(s, item)
        if image < s.images:
            begin = image * s.target_n + channel * s.target_c
            if s.target_w == 1 and not s.accumulates:
                begin += tile.p * s.target_h + tile.q
                store_runs(
                    target, begin, s.target_h, workspace, g.second_at if item & 1 else 0, s.strip_w,
                    tile.height, tile.width, channel, 0, finish,
                )  # fmt: skip
                continue
            for h in range(tile.height):
                at, in_h = h * s.strip_w + (g.second_at if item & 1 else 0), place(geometry, plane_h, tile.p + h)
                if in_h >= 0:
                    store_row(
                        target, begin + in_h * s.target_h, s.target_w, geometry, plane_w, 1, tile.q,
                        workspace, at, tile.width, channel, finish,
                    )  # fmt: skip


# ---- transforms of planes: columns in panels of one register, then lines likewise


@subroutine
def transform_columns(plane, columns, workspace, geometry):
    """The columns of the strips, panel by panel; those from `columns` on hold zeros."""
    never_inlined()
    g = planes(geometry)
    step = lanes(workspace)
    for v in range(0, g.columns, step):
        at = plane + v * 2 * g.lines
        if v >= columns:
            fill(workspace, at, 2 * step * g.lines, 0)
            continue
        for i in range(g.lines):
            point, place = at + i * 2 * step, i * g.columns + v
            store(workspace, point, load(workspace, place, 1))
            store(workspace, point + step, load(workspace, g.second_at + place, 1))
        transform(workspace, at, 2 * step, geometry, g.column_passes)
        if g.turns_at:
            turns = g.turns_at + v * 2 * g.lines
            for point in range(0, 2 * step * g.lines, 2 * step):
                multiply_point(workspace, at + point, elements_in(geometry, workspace), turns + point, 1)


@subroutine
def transform_columns_back(plane, columns, lines, workspace, geometry):
    """Undo `transform_columns` for the first columns, and put back the first lines."""
    never_inlined()
    g = planes(geometry)
    step = lanes(workspace)
    for v in range(0, columns, step):
        at = plane + v * 2 * g.lines
        if g.turns_at:
            turns = g.turns_at + v * 2 * g.lines
            for point in range(0, 2 * step * g.lines, 2 * step):
                multiply_point(workspace, at + point, elements_in(geometry, workspace), turns + point, -1)
        transform_back(workspace, at, 2 * step, geometry, g.column_passes)
        for i in range(lines):
            point, place = at + i * 2 * step, i * g.columns + v
            store(workspace, place, load(workspace, point, 1))
            store(workspace, g.second_at + place, load(workspace, point + step, 1))


@subroutine
def transform_panel_of_lines(panels, to, plane, u, workspace, geometry):
    """Transform the lines from u on, a register of them, into the panel at `to`."""
    g = planes(geometry)
    step = lanes(workspace)
    for v in range(0, g.columns, step):
        _transpose_points(panels, to + v * 2 * step, workspace, plane + v * 2 * g.lines + u * 2 * step)
    transform(panels, to, 2 * step, geometry, g.line_passes)


@subroutine
def transform_panel_of_lines_back(panel, plane, u, columns, workspace, geometry):
    """Undo `transform_panel_of_lines` for the first columns."""
    g = planes(geometry)
    step = lanes(workspace)
    transform_back(workspace, panel, 2 * step, geometry, g.line_passes)
    for v in range(0, columns, step):
        _transpose_points(workspace, plane + v * 2 * g.lines + u * 2 * step, workspace, panel + v * 2 * step)


@subroutine
def _transpose_points(target, to, source, begin):
    """As many points as they have lanes: what was lane i of point j is lane j of point i."""
    step = lanes(source)
    for part in range(0, 2 * step, step):
        transpose(target, to + part, 2 * step, source, begin + part, 2 * step, step, step)


@subroutine
def transform_lines(panels, to, workspace, geometry):
    """Transform the lines of a plane into a spectrum at `to`."""
    never_inlined()
    g = planes(geometry)
    for u in range(0, g.lines, lanes(workspace)):
        transform_panel_of_lines(panels, to + u * 2 * g.columns, g.plane_at, u, workspace, geometry)


@subroutine
def transform_lines_back(spectrum_at, columns, workspace, geometry):
    """The lines of a spectrum back into the first columns of a plane."""
    never_inlined()
    g = planes(geometry)
    for u in range(0, g.lines, lanes(workspace)):
        transform_panel_of_lines_back(spectrum_at + u * 2 * g.columns, g.plane_at, u, columns, workspace, geometry)


@subroutine
def multiply_point(workspace, at, factors, factors_at, sign):
    """Multiply a point by another, or with a sign of -1 by its conjugate."""
    step = lanes(workspace)
    a, b = load(workspace, at, 1), load(workspace, at + step, 1)
    c, d = load(factors, factors_at, 1), load(factors, factors_at + step, 1)
    if sign > 0:
        store(workspace, at, a * c - b * d)
        store(workspace, at + step, a * d + b * c)
    else:
        store(workspace, at, a * c + b * d)
        store(workspace, at + step, b * c - a * d)


# ---- filters


@subroutine
def transform_filter(spectra, spectrum_at, weights, weights_at, workspace, geometry):
    """The spectrum of a filter: conjugated, so that products with it correlate, and over the number of points."""
    never_inlined()
    g = planes(geometry)
    step = lanes(workspace)
    fill(workspace, 0, g.lines * g.columns, 0)
    fill(workspace, g.second_at, g.lines * g.columns, 0)
    scale = elements_in(geometry, workspace)[g.scale_at]
    for tap in range(g.taps):
        workspace[number(geometry, g.places_at + tap)] = weights[weights_at + tap] * scale
    transform_columns(g.plane_at, g.tap_panels * step, workspace, geometry)
    transform_lines(spectra, spectrum_at, workspace, geometry)
    zero = load(workspace, g.second_at, 1)
    for point in range(spectrum_at + step, spectrum_at + 2 * g.lines * g.columns, 2 * step):
        store(spectra, point, zero - load(spectra, point, 1))


@subroutine
def store_filter(weights, weights_at, spectrum_at, workspace, geometry):
    """The taps of a filter whose spectrum, not conjugated, is in the workspace."""
    never_inlined()
    g = planes(geometry)
    columns = g.tap_panels * lanes(workspace)
    transform_lines_back(spectrum_at, columns, workspace, geometry)
    transform_columns_back(g.plane_at, columns, g.lines, workspace, geometry)
    scale = elements_in(geometry, workspace)[g.scale_at]
    for tap in range(g.taps):
        weights[weights_at + tap] = workspace[number(geometry, g.places_at + tap)] * scale


# ---- sizes

# Points of a plane: 2 MiB of float32.
MOST_POINTS = 1 << 18


@dataclass(frozen=True)
class Layout:
    """Extents of a plane, and the tiles that are cut for it."""

    n1: int
    n2: int
    cut: Cut

    @property
    def points(self) -> int:
        return self.n1 * self.n2

    @property
    def is_line(self) -> bool:
        """Whether the plane holds a sequence."""
        return self.cut.strip[1] == 1

    def pairs(self, problem: ConvProblem) -> int:
        """Pairs of tiles, in all images."""
        return -(-problem.N * self.cut.number // 2)


def layouts(problem: ConvProblem, op: Op) -> Iterator[Layout]:
    """Planes that are larger than the halo."""
    for n1, n2, strip in _extents(problem, op):
        most = most_outputs(problem, op, strip)
        if min(most) >= 1:
            extents = positions(problem, op)
            _, height, width = (even_split(whole, part) for whole, part in zip(extents, most, strict=True))
            yield Layout(n1, n2, Cut(strip, (1, height, width), (1, -(-extents[1] // height), -(-extents[2] // width))))


def _extents(problem: ConvProblem, op: Op) -> Iterator[tuple[int, int, Axes]]:
    """Extents of planes, and those of the strips that fill them."""
    _, height, width = least_strip(problem, op)
    if problem.padded[:2] == problem.filter[:2] == (1, 1):
        for n1, n2 in itertools.product(LENGTHS, LENGTHS):
            if n1 <= n2 <= 2 * n1:
                yield n1, n2, (1, 1, n1 * n2)
        return
    for n1, n2 in itertools.product(_lengths(height), _lengths(width)):
        if n1 * n2 <= MOST_POINTS:
            yield n1, n2, (1, n1, n2)


def _lengths(whole: int) -> list[int]:
    """Lengths for an axis, up to the first that holds all of it."""
    return [n for n in LENGTHS if n <= min((n for n in LENGTHS if n >= whole), default=LENGTHS[-1])]


class Memory(NamedTuple):
    """Places in the workspace, in elements."""

    second_at: int
    plane_at: int
    panel_at: int
    spectrum_at: int
    spectrum_pitch: int
    elements: int


def memory_of(layout: Layout, dtype: str, spectra: int) -> Memory:
    """Two strips, a plane, a panel, and some spectra."""
    strip, plane_at = layout.points, 2 * layout.points
    panel_at = plane_at + 2 * layout.points
    spectrum_at = panel_at + 2 * lanes_of(dtype) * layout.n2
    pitch = spectrum_pitch(layout, dtype)
    return Memory(strip, plane_at, panel_at, spectrum_at, pitch, spectrum_at + spectra * pitch)


def spectrum_pitch(layout: Layout, dtype: str) -> int:
    """Elements from one spectrum to the next: no power of two, or neighbours would share a few lines of the cache."""
    return 2 * layout.points + lanes_of(dtype)


def vector_of(
    problem: ConvProblem,
    op: Op,
    epilogue: Epilogue,
    layout: Layout,
    memory: Memory,
    runs: int,
    stage: int,
    **fields: int,
) -> Integers:
    """The geometry vector: the header of strips, with further fields of it, that of planes, and the tables."""
    n1, n2, cut = layout.n1, layout.n2, layout.cut
    _, height, width = cut.strip
    taps = [(t * height + r) * width + s for t, r, s in taps_of(problem, op, cut)]
    lanes = lanes_of(problem.dtype)
    pairs = layout.pairs(problem)
    tables = Tables(Strips)
    own = np.zeros(PLANES, np.int64)
    tables.add(own)
    own[:] = Planes(
        runs=runs,
        pairs=pairs,
        pairs_per_run=-(-pairs // runs),
        lines=n1,
        columns=n2,
        line_passes=add_passes(tables, n2, problem.dtype),
        column_passes=add_passes(tables, n1, problem.dtype),
        turns_at=tables.add_elements(_turns(layout, lanes), problem.dtype) if layout.is_line else 0,
        scale_at=tables.add_elements(np.array([1 / layout.points]), problem.dtype),
        stage=stage,
        kept_lines=-(-cut.tile[2] // n2) if layout.is_line else cut.tile[1],
        kept_columns=n2 if layout.is_line else -(-cut.tile[2] // lanes) * lanes,
        tap_panels=max(tap % n2 for tap in taps) // lanes + 1,
        taps=len(taps),
        places_at=tables.add(taps),
        second_at=memory.second_at,
        plane_at=memory.plane_at,
        panel_at=memory.panel_at,
        spectrum_at=memory.spectrum_at,
        spectrum_pitch=memory.spectrum_pitch,
    )
    return strips_vector(tables, problem, op, epilogue, cut, plain=is_plain(problem, op), **fields)


def _turns(layout: Layout, lanes: int) -> NDArray[np.float64]:
    """exp(-2 pi i j k / (n1 n2)) for line frequency k and column j, as the points of a plane."""
    angles = np.outer(frequencies(layout.n1), np.arange(layout.n2)) % layout.points * (-2 * math.pi / layout.points)
    parts = np.stack([np.cos(angles), np.sin(angles)], axis=1)  # (n1, 2, n2)
    return parts.reshape(layout.n1, 2, -1, lanes).transpose(2, 0, 1, 3).reshape(-1)
