"""Pixels of channels_last tensors, whose channels are neighbours: gathered into strips, and stored.

A strip holds the padded pixels that a tile of positions needs, each stride phase in a plane of its own, as those of
`fastconv.cpu._strips`; but a block of channels of each pixel, `pixel_pitch` elements after that of the pixel before.
Vectors of these are neighbours, or each has its planes for itself: they lie `vector_pitch` apart.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..core.jit import subroutine
from ._activation import activate_row
from ._kernel import inner, never_inlined, place, plane_at
from ._rows import copy
from ._simd import lanes, load, load_first, prefetch, splat, store, store_first
from ._strips import header
from ._tiles import Tiling

# Cycles for each pixel that is gathered or stored, and for each vector of its channels: 14x14 with a border, 512
# channels, took 27 us, and 114x114, 32 channels, 47 us.
PIXEL_CYCLES, CHANNELS_CYCLES = 6, 3
# Pixels from what is gathered to what is fetched meanwhile: 64x64, 240 channels, 5x5, 1.11 ms on one thread without,
# 0.87 with 16, and on two 0.57 with 16 and 0.49 so.
AHEAD = 32


@dataclass(frozen=True)
class Sizes(Tiling):
    """Sizes of tiles, strips and blocks; in GRAD_WEIGHT, so many additions one after the other make a sum."""

    additions: int = 0


def gather_cycles(pixels: int, rows: int, channels: int, lanes: int, are_joined: bool) -> int:
    """Of pixels in so many rows; are_joined: whether all channels of the pixels of a row follow each other."""
    if are_joined:
        return rows * PIXEL_CYCLES + -(-pixels * channels // lanes) * CHANNELS_CYCLES
    return pixels * (PIXEL_CYCLES + CHANNELS_CYCLES * -(-channels // lanes))


@subroutine
def gather_pixels(workspace, geometry, source, source_at, channels, tile, constants):
    """Gather the padded source around a tile; source_at: the first of the channels of the first pixel of the image.

    Pixels of different phases take turns, so that the source is read from one end to the other.
    """
    never_inlined()
    g = header(geometry)
    depth, height = tile.depth + g.strip_d - g.tile_z, tile.height + g.strip_h - g.tile_p
    width = g.strip_w - (g.tile_q - tile.width) * (g.gap_w + 1)
    line = g.strip_w * g.pixel_pitch
    plane = g.strip_d * g.strip_h * line
    for d_slot in range(depth * g.planes_d):
        d, slot_d = divmod(d_slot, g.planes_d)
        in_d = place(geometry, plane_at(geometry, g.source_axis_d, slot_d), tile.z + d)
        for h_slot in range(height * g.planes_h):
            h, slot_h = divmod(h_slot, g.planes_h)
            in_h = place(geometry, plane_at(geometry, g.source_axis_h, slot_h), tile.p + h)
            at = (slot_d * g.planes_h + slot_h) * g.planes_w * plane + (d * g.strip_h + h) * line
            row = source_at + in_d * g.source_d + in_h * g.source_h
            is_outside = in_d < 0 or in_h < 0
            _gather_line(
                workspace, at, plane, geometry, source, row, is_outside, channels, tile.q * (g.gap_w + 1), width,
                constants,
            )  # fmt: skip


@subroutine
def _gather_line(workspace, at, plane, geometry, source, row, is_outside, channels, position, width, constants):
    """The pixels of a row from a position on, those of each phase a plane further on."""
    g = header(geometry)
    planes_at = plane_at(geometry, g.source_axis_w, 0)
    jump = geometry[g.source_axis_w + 1] * g.source_w
    first, last = inner(geometry, planes_at, position, width)
    if is_outside or g.planes_w > 1 or first == last:
        first, last = width, width
    else:
        begin = row + place(geometry, planes_at, position + first) * g.source_w
        _copy_run(workspace, at + first * g.pixel_pitch, g, source, begin, jump, last - first, channels)
    for i in range(width):
        if i < first or i >= last:
            for slot in range(g.planes_w):
                element = place(geometry, plane_at(geometry, g.source_axis_w, slot), position + i)
                to = at + slot * plane + i * g.pixel_pitch
                if is_outside or element < 0:
                    _fill_pixel(workspace, to, g, channels, constants)
                else:
                    _copy_run(workspace, to, g, source, row + element * g.source_w, jump, 1, channels)


@subroutine
def _copy_run(workspace, at, g, source, begin, jump, count, channels):
    """Pixels that are `jump` elements apart: all that follow each other at once, or a vector of each, then the next."""
    step = lanes(workspace)
    if jump == channels == g.pixel_pitch and g.vector_pitch == step:
        copy(workspace, at, source, begin, count * channels)
        return
    rest = channels % step
    for c in range(0, channels - rest, step):
        for i in range(count):
            prefetch(source, begin + c + (i + AHEAD) * jump)
            store(workspace, at + i * g.pixel_pitch, load(source, begin + c + i * jump, 1))
        at += g.vector_pitch
    if rest:
        for i in range(count):
            value = load_first(source, begin + channels - rest + i * jump, rest, 1)
            store_first(workspace, at + i * g.pixel_pitch, rest, value)


@subroutine
def _fill_pixel(workspace, at, g, channels, constants):
    """A pixel of what stands for elements that do not exist, the last of `constants`."""
    step, outside = lanes(workspace), splat(constants, constants.size - 1, 1)
    for c in range(0, channels, step):
        store_first(workspace, at + c // step * g.vector_pitch, min(step, channels - c), outside)


@subroutine
def copy_pixels(workspace, at, pitch, source, source_at, channels, g, tile):
    """workspace[at + i * pitch + c] = channel c of the i-th pixel of a tile, of the tensor that is met."""
    never_inlined()
    for d in range(tile.depth):
        for h in range(tile.height):
            row = source_at + (tile.z + d) * g.target_d + (tile.p + h) * g.target_h + tile.q * g.target_w
            for q in range(tile.width):
                for c in range(0, channels, lanes(source)):
                    prefetch(source, row + (q + AHEAD) * g.target_w + c)
                copy(workspace, at, source, row + q * g.target_w, channels)
                at += pitch


@subroutine
def store_pixels(target, target_at, workspace, sums, pitch, channel, channels, geometry, tile, entry, finish):
    """Store the sums of a tile, a pixel every `pitch` elements from `sums` on, in one phase of the target, finished.

    target_at: element 0 of the image; channel: the first of the channels.
    """
    never_inlined()
    g = header(geometry)
    plane_d = plane_at(geometry, g.target_axis_d, geometry[entry + 3])
    plane_h = plane_at(geometry, g.target_axis_h, geometry[entry + 4])
    plane_w = plane_at(geometry, g.target_axis_w, geometry[entry + 5])
    for d in range(tile.depth):
        in_d = place(geometry, plane_d, tile.z + d)
        for h in range(tile.height):
            in_h = place(geometry, plane_h, tile.p + h)
            row = target_at + in_d * g.target_d + in_h * g.target_h + channel
            begin = sums + (d * g.tile_p + h) * g.tile_q * pitch
            for q in range(tile.width):
                in_w = place(geometry, plane_w, tile.q + q)
                if in_d >= 0 and in_h >= 0 and in_w >= 0:
                    at = row + in_w * g.target_w
                    _store_pixel(target, at, workspace, begin + q * pitch, channel, channels, finish)


@subroutine
def finish_pixels(target, target_at, channel, channels, geometry, tile, finish):
    """Finish the pixels of a tile that follow each other and hold their sums already."""
    never_inlined()
    g = header(geometry)
    at = target_at + tile.z * g.target_d + tile.p * g.target_h + tile.q * g.target_w + channel
    for _ in range(tile.depth * tile.height * tile.width):
        _store_pixel(target, at, target, at, channel, channels, finish)
        at += g.target_w


@subroutine
def _store_pixel(target, at, sums, begin, channel, channels, finish):
    """Store a pixel, finished."""
    step = lanes(target)
    for c in range(0, channels, step):
        held = min(step, channels - c)
        value = load_first(sums, begin + c, held, 1) + load_first(finish.constants, channel + c, held, 1)
        if finish.has_residual:
            value = value + load_first(finish.residual, at + c, held, 1)
        store_first(target, at + c, held, value)
    activate_row(target, at, 1, channels, finish.activation)
