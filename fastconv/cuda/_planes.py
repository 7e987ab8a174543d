"""Tiles of planes in shared memory: how a block of threads divides a channels_first tensor and loads what it needs.

A block has a power of two of threads across, of threads down, and of planes, so that a plane of 7 x 7 takes as few idle
threads as one of 112 x 112. Each thread owns `rows` x `columns` neighbouring results, which compile-time constants give.
"""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any, NamedTuple

from ._device import block_x, cuda, function, get, int32, quotient, remainder, thread
from ._windows import VECTOR, Along

THREADS = 128
# Elements of a tile: 18 KiB of float32, of which a multiprocessor of sm_80 holds nine, and of sm_90 twelve.
CAPACITY = 4608
# Loads of a thread that are under way at once: 128 threads of nine blocks then wait for 36 KiB, about what 3 to 4 TB/s
# over 132 multiprocessors bring in the 800 ns of an access (an estimate).
BATCH = 8
SHARED_ALIGNMENT = 32


class Tile(NamedTuple):
    """The threads of a block, and the part of the source that they need."""

    across_bits: int  # log2 of the threads across
    down_bits: int  # and down
    planes: int
    tiles_across: int  # of a plane
    tiles_down: int
    source_rows: int
    pitch: int  # elements of a row of the tile
    skip_plane: int  # from an element of the tile to that THREADS on
    skip_row: int
    skip_column: int


def tile_of(
    down: Along, across: Along, rows: int, columns: int, extents: tuple[int, int], most_planes: int
) -> Tile | None:
    """The division of planes of these results that leaves the fewest threads idle; None where no tile fits."""
    height, width = extents
    found: list[tuple[float, Tile]] = []
    for across_bits, down_bits in itertools.product(range(8), repeat=2):
        if 1 << across_bits + down_bits > THREADS:
            continue
        source_rows = down.window(rows << down_bits)
        pitch = ((columns << across_bits) - columns) * across.step // across.spread
        pitch += across.vectors(columns) * VECTOR
        planes = min(THREADS >> across_bits + down_bits, most_planes, CAPACITY // (source_rows * pitch))
        if planes == 0:
            continue
        tiles_across, tiles_down = -(-width // (columns << across_bits)), -(-height // (rows << down_bits))
        skip_row, skip_column = divmod(THREADS, pitch)
        skips = (*divmod(skip_row, source_rows), skip_column)
        tile = Tile(across_bits, down_bits, planes, tiles_across, tiles_down, source_rows, pitch, *skips)
        loaded = source_rows * pitch * tiles_across * tiles_down
        occupied = tiles_across * tiles_down / planes * THREADS * rows * columns
        found.append((loaded + occupied, tile))
    return min(found)[1] if found else None


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


@cache
def tile_loader(real: Any) -> Any:
    """The function that loads the source of a tile, zeros outside, of these planes of a slice.

    elements: shared, written. source: pointer to the first plane. n: strides and extents of it. h, w: of the tile's
    first element.
    """

    @function
    def load(elements, source, tile, planes, n, d, h, w):
        values = cuda.local.array(BATCH, real)
        column = remainder(thread(), tile.pitch)
        rest = quotient(thread(), tile.pitch)
        row, plane = remainder(rest, tile.source_rows), quotient(rest, tile.source_rows)
        for first in range(thread(), int32(planes * tile.source_rows * tile.pitch), int32(THREADS * BATCH)):
            for k in range(BATCH):
                at_h, at_w = int32(h + row), int32(w + column)
                value = real(0)
                if plane < planes and at_h >= 0 and at_h < n.source_height and at_w >= 0 and at_w < n.source_width:
                    value = get(
                        source, int32(plane * n.source_channel + d * n.source_d + at_h * n.source_h + at_w * n.source_w)
                    )
                values[k] = value
                column = int32(column + tile.skip_column)
                carry = int32(column >= tile.pitch)
                column = int32(column - carry * tile.pitch)
                row = int32(row + tile.skip_row + carry)
                carry = int32(row >= tile.source_rows)
                row = int32(row - carry * tile.source_rows)
                plane = int32(plane + tile.skip_plane + carry)
            for k in range(BATCH):
                at = int32(first + k * THREADS)
                if at < planes * tile.source_rows * tile.pitch:
                    elements[at] = values[k]

    return load
