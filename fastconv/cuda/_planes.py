"""Tiles of planes in shared memory: how a block of threads divides a channels_first tensor and loads what it needs.

A block has a power of two of threads across and of threads down, and several planes, so that planes of 7 x 7 leave as
few threads idle as those of 112 x 112. Each thread owns `rows` x `columns` neighbouring results.
"""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any, NamedTuple

from ._device import block_x, function, int32, quotient, remainder, thread
from ._fetches import fetch_of
from ._windows import VECTOR, Along

THREADS = 128
# Elements of a tile: 18 KiB of float32, of which a multiprocessor of sm_80 holds nine, and of sm_90 twelve.
CAPACITY = 4608
SHARED_ALIGNMENT = 32
# Log2 of the fewest threads that load a row of a tile: 16 float32 are two sectors of memory, and a warp then asks for
# no more than two rows at once.
LEAST_LANES_BITS = 4


class Tile(NamedTuple):
    """The threads of a block, and the part of the source that they need."""

    across_bits: int  # log2 of the threads across
    down_bits: int  # and down
    planes: int
    tiles_across: int  # of a plane
    tiles_down: int
    source_rows: int
    pitch: int  # elements of a row of the tile
    lanes_bits: int  # log2 of the threads that load a row of it
    filters_at: int  # where the filters of the planes stand behind the tile


def tile_of(
    down: Along, across: Along, rows: int, columns: int, extents: tuple[int, int], most_planes: int, filters: int = 1
) -> Tile | None:
    """The division of planes of these results that leaves the fewest threads idle; None where no tile fits.

    filters: how many meet each plane, and stand behind it in shared memory.
    """
    height, width = extents
    found: list[tuple[float, Tile]] = []
    for across_bits, down_bits in itertools.product(range(THREADS.bit_length()), repeat=2):
        if 1 << across_bits + down_bits > THREADS or columns << across_bits > THREADS:
            continue
        source_rows = down.window(rows << down_bits)
        pitch = ((columns << across_bits) - columns) * across.step // across.spread
        pitch += across.vectors(columns) * VECTOR
        room = CAPACITY // (source_rows * pitch + down.taps * across.taps * filters)
        planes = min(THREADS >> across_bits + down_bits, most_planes, room)
        if planes == 0:
            continue
        tiles_across, tiles_down = -(-width // (columns << across_bits)), -(-height // (rows << down_bits))
        lanes_bits = _lanes_bits(pitch)
        filters_at = planes * source_rows * pitch
        tile = Tile(
            across_bits, down_bits, planes, tiles_across, tiles_down, source_rows, pitch, lanes_bits, filters_at
        )
        loaded = source_rows * (-(-pitch >> lanes_bits) << lanes_bits)
        occupied = THREADS * rows * columns / planes
        found.append(((loaded + occupied) * tiles_across * tiles_down, tile))
    return min(found)[1] if found else None


def _lanes_bits(pitch: int) -> int:
    """Log2 of the threads that load a row of this pitch: most of them busy, then most of them."""
    return min(
        range(LEAST_LANES_BITS, THREADS.bit_length()), key=lambda bits: (-(-pitch // (1 << bits)) * (1 << bits), -bits)
    )


@function
def place_of_block(tile, channel_blocks, depth):
    """Image, block of channels, slice, and the tile's number down and across."""
    rest = quotient(block_x(), tile.tiles_across)
    across = int32(block_x() - rest * tile.tiles_across)
    down = remainder(rest, tile.tiles_down)
    rest = quotient(rest, tile.tiles_down)
    slice_ = remainder(rest, depth)
    rest = quotient(rest, depth)
    return quotient(rest, channel_blocks), remainder(rest, channel_blocks), slice_, down, across


@function
def place_of_thread(tile):
    """Plane, and the thread's number down and across."""
    across = int32(thread() & ((1 << tile.across_bits) - 1))
    rest = int32(thread() >> tile.across_bits)
    return int32(rest >> tile.down_bits), int32(rest & ((1 << tile.down_bits) - 1)), across


def tile_begin(down: Along, across: Along, rows: int, columns: int) -> Any:
    """The function ``(tile, channel_blocks, n)`` that says where the tile of a block begins.

    Its image, block of channels and slice, its first row and column, and where the source that they need begins.
    """

    @function
    def begin(tile, channel_blocks, n):
        image, block, slice_, row, column = place_of_block(tile, channel_blocks, n.depth)
        row, column = int32(row * rows << tile.down_bits), int32(column * columns << tile.across_bits)
        h = int32(n.first_h + quotient(int32(row * down.step), int32(down.spread)))
        w = int32(n.first_w + quotient(int32(column * across.step), int32(across.spread)))
        return image, block, slice_, row, column, h, w

    return begin


def window_begin(down: Along, across: Along, rows: int, columns: int) -> Any:
    """The function ``(tile)`` that gives a thread's plane, and where its window begins in shared memory."""

    @function
    def begin(tile):
        plane, row, column = place_of_thread(tile)
        row = int32(quotient(int32(row * rows * down.step), int32(down.spread)) + plane * tile.source_rows)
        column = quotient(int32(column * columns * across.step), int32(across.spread))
        return plane, int32(row * tile.pitch + column)

    return begin


@cache
def tile_loader(dtype: str) -> Any:
    """The function that begins to load the source of a tile, zeros outside, for these planes of a slice.

    elements: shared, written. source: pointer to the slice of the first plane. n: strides and extents of the source.
    h, w: of the tile's first element.
    """
    fetch = fetch_of(dtype)

    @function
    def load(elements, source, tile, planes, n, h, w):
        first_row = int32(thread() >> tile.lanes_bits)
        lane = int32(thread() & ((1 << tile.lanes_bits) - 1))
        for column in range(lane, tile.pitch, int32(1 << tile.lanes_bits)):
            at_w = int32(w + column)
            is_inside = at_w >= 0 and at_w < n.source_width
            row, plane = remainder(first_row, tile.source_rows), quotient(first_row, tile.source_rows)
            for each in range(first_row, int32(planes * tile.source_rows), int32(THREADS >> tile.lanes_bits)):
                at_h = int32(h + row)
                index = int32(plane * n.source_channel + at_h * n.source_h + at_w * n.source_w)
                is_there = is_inside and at_h >= 0 and at_h < n.source_height
                fetch(elements, int32(each * tile.pitch + column), source, index, is_there)
                row = int32(row + (THREADS >> tile.lanes_bits))
                while row >= tile.source_rows:
                    row, plane = int32(row - tile.source_rows), int32(plane + 1)

    return load
