"""Tiles of Winograd's method: how the elements of a tensor are numbered in them, and their transforms' matrices.

Position i of a tile along an axis is i elements behind m times the tile's number; a tile of the source has m + r - 1
elements along it, one of the result m. Tiles are numbered image by image, slice by slice, row by row. A third axis is
not transformed: the slices of a filter are further terms of the sum, and a tile of the result takes, for tap t, the
tile of the source that stands t slices on, which is t times the tiles of a slice on, in every image at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from ..core.problem import Axes
from ..core.winograd_matrices import Filtering, Matrix, filtering
from ._device import function, int32, quotient, remainder
from ._gather import TAP_FIELDS, Gather, Strides

Coefficients = tuple[tuple[float, ...], ...]


class Square(NamedTuple):
    """F(m, r) along h and along w, as compile-time constants of kernels: outputs and taps."""

    height: tuple[int, int]
    width: tuple[int, int]

    @property
    def heights(self) -> Filtering:
        """The matrices along h."""
        return filtering(*self.height)

    @property
    def widths(self) -> Filtering:
        """The matrices along w."""
        return filtering(*self.width)

    @property
    def products(self) -> int:
        """Frequencies: products of a tile for each pair of channels."""
        return self.heights.products * self.widths.products

    @property
    def outputs(self) -> int:
        """Elements of the result in a tile."""
        return self.height[0] * self.width[0]


def coefficients(matrix: Matrix) -> Coefficients:
    """A matrix as a constant of a kernel."""
    return tuple(tuple(float(value) for value in row) for row in matrix)


class Numbers(NamedTuple):
    """A tensor in tiles, as kernels are told of it; strides are in elements."""

    tiles: int  # of all images of a launch
    rows: int  # tiles that there is room for
    slices: int  # of an image
    plane: int  # tiles of a slice
    across: int  # along w
    group_channels: int  # of the tensor
    room: int  # the same, rounded up
    all_room: int  # of all groups
    first_d: int  # place of the first element of tile 0
    first_h: int
    first_w: int
    extent_d: int
    extent_h: int
    extent_w: int
    channel: int  # strides
    d: int
    h: int
    w: int


@dataclass(frozen=True)
class Tiling:
    """The tiles of one operation of some images.

    Attributes
    ----------
    gather
        The operation, with a stride and a dilation of 1.
    square
        The tiles' sizes.
    images
        How many images are served together.
    block_rows, block_columns, block_terms
        What tiles, result channels and source channels are rounded up to.
    """

    gather: Gather
    square: Square
    images: int
    block_rows: int
    block_columns: int
    block_terms: int

    @property
    def slice_taps(self) -> int:
        """Taps along d, T."""
        return self.gather.problem.filter[0]

    @property
    def slices(self) -> int:
        """Slices of the source that the slices of one image of the result are made of."""
        return self.gather.result_extents[0] + self.slice_taps - 1

    @property
    def across(self) -> int:
        """Tiles along w."""
        return -(-self.gather.result_extents[2] // self.square.width[0])

    @cached_property
    def plane(self) -> int:
        """Tiles of a slice: a multiple of 4 where slices are further terms, for accesses of 128 bits."""
        tiles = self.across * -(-self.gather.result_extents[1] // self.square.height[0])
        return tiles if self.slice_taps == 1 else rounded_up(tiles, 4)

    @property
    def tiles(self) -> int:
        """Tiles of all images, those of the source: the result has none in the last T - 1 slices."""
        return self.images * self.slices * self.plane

    @property
    def result_rows(self) -> int:
        """Tiles of the result, rounded up."""
        return rounded_up(self.tiles, self.block_rows)

    @property
    def source_rows(self) -> int:
        """Tiles of the source, and those that the last tiles of the result would take."""
        return self.result_rows + (self.slice_taps - 1) * self.plane

    @property
    def source_room(self) -> int:
        """Source channels of a group, rounded up."""
        return rounded_up(self.gather.source_channels, self.block_terms)

    @property
    def result_room(self) -> int:
        """Result channels of a group, rounded up."""
        return rounded_up(self.gather.result_channels, self.block_columns)

    @property
    def filter_size(self) -> int:
        """Elements of one frequency of the filters."""
        return self.gather.problem.groups * self.slice_taps * self.source_room * self.result_room

    @property
    def source_size(self) -> int:
        """Elements of one frequency of the source."""
        return self.gather.problem.groups * self.source_room * self.source_rows

    @property
    def result_size(self) -> int:
        """Elements of one frequency of the result."""
        return self.gather.problem.groups * self.result_room * self.result_rows

    @property
    def source_numbers(self) -> Numbers:
        """Of the tensor that is gathered."""
        gather = self.gather
        # With filters that are turned around in GRAD_INPUT, both operations take neighbours from the lowest one on.
        taps = gather.taps[:, : TAP_FIELDS - 1]
        d, h, w = map(int, taps.min(axis=0))
        sizes = (self.source_rows, gather.source_channels, self.source_room)
        return self._numbers(*sizes, (d, h, w), gather.source_extents, gather.source_strides)

    @property
    def result_numbers(self) -> Numbers:
        """Of the tensor that is written."""
        gather = self.gather
        sizes = (self.result_rows, gather.result_channels, self.result_room)
        return self._numbers(*sizes, (0, 0, 0), gather.result_extents, gather.result_strides)

    def _numbers(
        self,
        rows: int,
        channels: int,
        room: int,
        first: Axes,
        extents: Axes,
        strides: Strides,
    ) -> Numbers:
        return Numbers(
            self.tiles,
            rows,
            self.slices,
            self.plane,
            self.across,
            channels,
            room,
            room * self.gather.problem.groups,
            *first,
            *extents,
            strides.channel,
            strides.d,
            strides.h,
            strides.w,
        )


def rounded_up(size: int, unit: int) -> int:
    """The least multiple of a unit that is not below a size."""
    return math.ceil(size / unit) * unit


@function
def place_of(tile, n, outputs_h, outputs_w):
    """Image, d, h and w of the first element of a tile, or of the last tile for one behind it; n: Numbers."""
    tile = min(tile, int32(n.tiles - 1))
    slice_ = quotient(tile, n.plane)
    position = int32(tile - slice_ * n.plane)
    image = quotient(slice_, n.slices)
    row = quotient(position, n.across)
    column = int32(position - row * n.across)
    return (
        image,
        int32(slice_ - image * n.slices + n.first_d),
        int32(row * outputs_h + n.first_h),
        int32(column * outputs_w + n.first_w),
    )


@function
def tile_and_channel(number, n, channels_last):
    """Which tile, and which of the channels of all groups with their room, an element of a frequency is of."""
    if channels_last:
        return quotient(number, n.all_room), remainder(number, n.all_room)
    return remainder(number, n.rows), quotient(number, n.rows)
