"""Strips, panels and tiles: what the direct kernels copy in and out.

A strip holds, for each channel, the padded rows that a tile of positions needs, each stride phase in a plane of its
own (`fastconv.cpu._axes`). A panel holds the same pixels once for each filter tap, without the border columns between
the rows of a strip.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..core.jit import Kernel, subroutine
from ..core.problem import ConvProblem, Op
from ._axes import folding
from ._kernel import first_integers, inner, never_inlined, number, place, plane_at
from ._rows import (
    copy,
    fill,
    fill_first,
    gather_channels,
    gather_row,
    gather_rows,
    gather_rows_by_turns,
    store_by_turns,
    store_channels,
    store_row,
    store_run,
    transpose_all,
)
from ._simd import lanes, load, splat, store


class Strips(NamedTuple):
    """The header of the geometry vector. `source` is gathered; `target` is stored, or gathered in GRAD_WEIGHT."""

    sizes_1: int
    sizes_2: int
    sizes_3: int
    sizes_4: int
    sizes_5: int
    sizes_6: int
    sizes_7: int
    images: int
    groups: int
    sources: int  # channels of one group, as all channel counts here
    targets: int
    channel_block: int  # source channels in the strip at once
    strip_channels: int  # those of the block that are gathered at once
    row_block: int  # target channels of one task
    row_group: int  # target channels that are stored at once
    keeps_sums: int  # whether the sums of all rows are kept, or each group of rows reuses the same memory
    phase_pitch: int  # from the sums of one phase to those of the next
    panel_pitch: int  # from the panel of one phase to that of the next
    source_n: int  # strides in elements
    source_c: int
    source_d: int
    source_h: int
    source_w: int
    target_n: int
    target_c: int
    target_d: int
    target_h: int
    target_w: int
    weight_group: int
    weight_source: int
    weight_target: int
    positions_z: int
    positions_p: int
    positions_q: int
    tiles_z: int
    tiles_p: int
    tiles_q: int
    tile_z: int
    tile_p: int
    tile_q: int
    tiles_per_task: int
    strip_d: int
    strip_h: int
    strip_w: int
    planes_d: int
    planes_h: int
    planes_w: int
    gap_w: int  # positions of a strip between those of two neighbouring pixels
    channel_pitch: int  # elements of all planes of a channel
    is_far: int  # whether lines of the target are fetched before they are stored
    pixel_pitch: int  # in channels_last, from one pixel of a strip to the next, and from one vector of its channels
    vector_pitch: int
    position_d: int  # elements of the source from one position to the next, where it is read in place
    position_h: int
    position_w: int
    packed: int  # whether a panel is packed
    plane_pitch: int  # from one plane of pixels to the next in sums, and from one row to the next
    line_pitch: int
    pitch: int  # of the panel's rows and of the rows of sums
    columns_pitch: int  # of the panel and the sums whose vectors hold target channels
    panel_at: int  # positions in the workspace
    sums_at: int
    scratch_at: int
    dots_at: int  # pixels that are left over, their terms one after the other; negative where there are none
    dots_pitch: int
    source_axis_d: int  # positions of packed axes in the vector
    source_axis_h: int
    source_axis_w: int
    target_axis_d: int
    target_axis_h: int
    target_axis_w: int
    plain: int  # whether rows are gathered from elements at most two apart, with nothing but padding around
    joined: int  # whether the rows of a plane of a tile follow each other in the target
    in_place: int  # whether sums may be added up in the target, where tiles are whole vectors and rows
    in_source: int  # whether the kernels of lines read the source where it lies
    accumulates: int  # whether the target is added to
    activation: int
    has_residual: int
    rows_at: int  # the first weight of each row
    panel_rows_at: int  # the rows of a panel
    copied_at: int  # those of pixels that are copied there, where others are read in place
    pixels_at: int  # the pixels of a tile, as positions in the strip
    pairs_at: int  # what `fastconv.cpu._winograd_pairs` knows beside this
    phases: int
    together: int  # phases that are stored together: 2 where they take turns in the rows of the target
    phases_at: int  # for each phase: taps, source offsets and taken weights in the vector, target slots in d, h, w


PHASE = 6
# Cache lines ahead of those that are gathered which are fetched: rows of different channels lie too far from each other
# for the processor to guess. 256 channels of 56x56, read once from memory: 12.4 ms without, 11.0 ms so.
PREFETCHED = 224


HEADER = len(Strips._fields)


def is_plain(problem: ConvProblem, op: Op, gap: int = 0) -> bool:
    """Whether strips can be gathered the fast way: near elements, and nothing but zeros or the pad value around."""
    if problem.layout == "channels_last":
        return False
    return op is Op.GRAD_INPUT or (problem.stride[2] // (gap + 1) <= 2 and not folding(problem))


@subroutine
def header(geometry):
    return Strips(*first_integers(geometry, HEADER))


class Tile(NamedTuple):
    """First position of a tile, and its extents as far as there are positions."""

    z: int
    p: int
    q: int
    depth: int
    height: int
    width: int


@subroutine
def part_of(rank, counts, sizes, extents):
    """One of `counts` parts of these sizes along the axes, cut off where the extents end."""
    z, rest = divmod(rank, counts[1] * counts[2])
    p, q = divmod(rest, counts[2])
    z, p, q = z * sizes[0], p * sizes[1], q * sizes[2]
    return Tile(
        z, p, q, min(sizes[0], extents[0] - z), min(sizes[1], extents[1] - p), min(sizes[2], extents[2] - q)
    )  # fmt: skip


@subroutine
def tile_of(g, rank):
    return part_of(
        rank, (g.tiles_z, g.tiles_p, g.tiles_q), (g.tile_z, g.tile_p, g.tile_q),
        (g.positions_z, g.positions_p, g.positions_q),
    )  # fmt: skip


class Block(NamedTuple):
    """What a task of FORWARD or GRAD_INPUT works on."""

    image: int
    run: int  # of tiles
    channel: int  # the first of the target channels, of all groups
    rows: int  # target channels
    source_at: int  # the first source channel of the group in that image
    weights_at: int


@subroutine
def block_of(g, task):
    tiles = g.tiles_z * g.tiles_p * g.tiles_q
    runs = -(-tiles // g.tiles_per_task)
    blocks = -(-g.targets // g.row_block)
    image, rest = divmod(task, g.groups * runs * blocks)
    group, rest = divmod(rest, runs * blocks)
    run, block = divmod(rest, blocks)
    begin = block * g.row_block
    return Block(
        image, run, group * g.targets + begin, min(g.row_block, g.targets - begin),
        image * g.source_n + group * g.sources * g.source_c, group * g.weight_group + begin * g.weight_target,
    )  # fmt: skip


class WeightBlock(NamedTuple):
    """What a task of GRAD_WEIGHT works on."""

    run: int  # of the tiles of all images
    group: int
    first: int  # of the source channels of the group
    channels: int
    channel: int  # the first of the target channels, of all groups
    rows: int  # target channels


@subroutine
def weight_block_of(g, task):
    channel_blocks = -(-g.sources // g.channel_block)
    row_blocks = -(-g.targets // g.row_block)
    run, rest = divmod(task, g.groups * channel_blocks * row_blocks)
    group, rest = divmod(rest, channel_blocks * row_blocks)
    block, row = divmod(rest, row_blocks)
    first, row = block * g.channel_block, row * g.row_block
    return WeightBlock(
        run, group, first, min(g.channel_block, g.sources - first), group * g.targets + row,
        min(g.row_block, g.targets - row),
    )  # fmt: skip


@subroutine
def columns_of(g, tile):
    """Columns of sums from the first pixel of a tile to its last, border columns between them included."""
    return (tile.depth - 1) * g.plane_pitch + (tile.height - 1) * g.line_pitch + tile.width


def for_both_ways(make: Callable[[bool | None], Kernel]) -> dict[bool, Kernel]:
    """The kernels that `make` makes for `gather_strips`, by whether the problem `is_plain`.

    With code for both ways the first call with 3 channels of 224x224, 7x7, took a sixth longer.
    """
    return {True: make(True), False: make(None)}


@subroutine
def gather_strips(plain, workspace, geometry, source, source_at, channels, tile, constants, with_borders):
    """workspace[c, plane, d, h, w] = the padded source around a tile, for c < channels.

    plain: True where the problem `is_plain`, else None; its type says which code is made.

    The last of `constants` stands where there is no element; it may stay there from the same tile of other channels.
    """
    never_inlined()
    g = header(geometry)
    jump = geometry[g.source_axis_w + 1] * g.source_w
    depth, height = tile.depth + g.strip_d - g.tile_z, tile.height + g.strip_h - g.tile_p
    width = g.strip_w - (g.tile_q - tile.width) * (g.gap_w + 1)
    tile = Tile(tile.z, tile.p, tile.q * (g.gap_w + 1), tile.depth, tile.height, tile.width)
    plane = g.strip_d * g.strip_h * g.strip_w
    turns = 2 if plain is not None and g.planes_w == 2 else 1
    # One call gathers channels of a single plane each, or channels whose elements are neighbours.
    is_joint = plane == g.channel_pitch and depth == 1 if plain is not None else g.source_c == 1
    together = channels if is_joint else 1
    ahead = max(1, PREFETCHED // (g.channel_pitch // lanes(workspace) + 1)) * g.source_c
    for c in range(0, channels, together):
        at = c * g.channel_pitch
        channel_at = source_at + c * g.source_c
        for slot_d in range(g.planes_d):
            plane_d = plane_at(geometry, g.source_axis_d, slot_d)
            for slot_h in range(g.planes_h):
                plane_h = plane_at(geometry, g.source_axis_h, slot_h)
                for slot_w in range(0, g.planes_w, turns):
                    plane_w = plane_at(geometry, g.source_axis_w, slot_w)
                    for d in range(depth):
                        in_d = place(geometry, plane_d, tile.z + d)
                        begin = channel_at + in_d * g.source_d
                        to = at + d * g.strip_h * g.strip_w
                        if plain is None:
                            _gather_any_rows(
                                workspace, to, height, width, together, source, begin, in_d < 0, constants,
                                geometry, plane_h, plane_w, tile,
                            )  # fmt: skip
                        elif in_d < 0:
                            for row in range(turns * together * height):
                                part, h = divmod(row, height)
                                turn, channel = divmod(part, together)
                                at_row = to + turn * plane + channel * g.channel_pitch + h * g.strip_w
                                fill_first(workspace, at_row, width, splat(constants, constants.size - 1, 1))
                        elif turns == 2:
                            gather_rows_by_turns(
                                workspace, to, to + plane, g.strip_w, height, width, source, begin, g.source_h,
                                constants, with_borders, geometry, plane_h, tile.p,
                                plane_w, plane_at(geometry, g.source_axis_w, 1), tile.q, ahead,
                            )  # fmt: skip
                        else:
                            gather_rows(
                                workspace, to, g.strip_w, height, width, source, begin, g.source_h, jump,
                                constants, with_borders, geometry, plane_h, tile.p, plane_w, tile.q,
                                together, g.channel_pitch, g.source_c, ahead,
                            )  # fmt: skip
                    at += turns * plane


@subroutine
def _gather_any_rows(
    workspace, target_at, height, width, channels, source, source_at, is_outside, constants,
    geometry, plane_h, plane_w, tile,
):  # fmt: skip
    """The rows of a plane of neighbouring channels, in either layout, with any stride and any border."""
    never_inlined()
    g = header(geometry)
    outside = constants[constants.size - 1]
    step = geometry[g.source_axis_w + 1]
    for h in range(height):
        in_h = place(geometry, plane_h, tile.p + h)
        at = target_at + h * g.strip_w
        if is_outside or in_h < 0:
            for c in range(channels):
                fill(workspace, at + c * g.channel_pitch, width, outside)
        elif channels == 1:
            gather_row(
                workspace, at, width, source, source_at + in_h * g.source_h, g.source_w, outside,
                geometry, plane_w, step, tile.q,
            )  # fmt: skip
        else:
            gather_channels(
                workspace, at, g.channel_pitch, channels, width, source, source_at + in_h * g.source_h, g.source_w,
                outside, geometry, plane_w, step, tile.q,
            )  # fmt: skip


@subroutine
def pack_panel(workspace, g, geometry, panel_at, offsets_at, terms, tile):
    """workspace[panel_at + j * pitch + i] = the strip at the j-th offset and the i-th pixel.

    Whole vectors are copied: what is written behind a row is overwritten by the next, or lies in the spare vector.
    """
    step = lanes(workspace)
    for j in range(terms):
        offset = number(geometry, offsets_at + j)
        at = panel_at + j * g.pitch
        for z in range(tile.depth):
            for p in range(tile.height):
                begin = offset + (z * g.strip_h + p) * g.strip_w
                for q in range(0, tile.width, step):
                    store(workspace, at + q, load(workspace, begin + q, 1))
                at += tile.width


@subroutine
def store_tile(target, target_at, workspace, sums, channel, rows, geometry, tile, entry, finish):
    """Store the sums of a tile, (rows, pitch) from `sums` on, in one phase of the target, or two by turns, finished.

    target_at: element 0 of the image; channel: the first of the rows.
    """
    never_inlined()
    g = header(geometry)
    plane_d = plane_at(geometry, g.target_axis_d, geometry[entry + 3])
    plane_h = plane_at(geometry, g.target_axis_h, geometry[entry + 4])
    plane_w = plane_at(geometry, g.target_axis_w, geometry[entry + 5])
    step = geometry[g.target_axis_w + 1]
    last = g.target_c == 1 and g.joined == 0  # neighbouring channels in channels_last
    height = 1 if g.joined else tile.height
    for k in range(0, rows, rows if last else 1):
        at = target_at + (channel + k) * g.target_c
        for d in range(tile.depth):
            in_d = place(geometry, plane_d, tile.z + d)
            for h in range(height):
                in_h = place(geometry, plane_h, tile.p + h)
                to = at + in_d * g.target_d + in_h * g.target_h
                begin = sums + k * g.pitch + d * g.plane_pitch + h * g.line_pitch
                if in_d >= 0 and in_h >= 0:
                    if g.together == 2:
                        other_w = plane_at(geometry, g.target_axis_w, geometry[entry + PHASE + 5])
                        count = inner(geometry, plane_w, tile.q, tile.width)[1]
                        count += inner(geometry, other_w, tile.q, tile.width)[1]
                        store_by_turns(
                            target, to + 2 * tile.q, begin, begin + g.phase_pitch, workspace, count, channel + k, finish
                        )  # fmt: skip
                    elif g.joined:
                        store_run(target, to, workspace, begin, tile.height * tile.width, channel + k, finish)
                    elif last:
                        store_channels(
                            target, to, g.target_w, geometry, plane_w, step, tile.q, workspace, begin, g.pitch,
                            rows, tile.width, channel, finish, g.scratch_at,
                        )  # fmt: skip
                    else:
                        store_row(
                            target, to, g.target_w, geometry, plane_w, step, tile.q,
                            workspace, begin, tile.width, channel + k, finish,
                        )  # fmt: skip


@subroutine
def transpose_tile(workspace, g, y, image_at, channel, rows, tile):
    """workspace[panel_at + i * pitch + k] = y at the i-th pixel of a tile, for k < rows."""
    at = g.panel_at
    width, height = (tile.height * tile.width, 1) if g.joined else (tile.width, tile.height)
    for d in range(tile.depth):
        for h in range(height):
            begin = (
                image_at + channel * g.target_c
                + (tile.z + d) * g.target_d + (tile.p + h) * g.target_h + tile.q * g.target_w
            )  # fmt: skip
            if g.target_c == 1:
                for q in range(width):
                    copy(workspace, at + q * g.pitch, y, begin + q * g.target_w, rows)
            else:
                transpose_all(workspace, at, g.pitch, y, begin, g.target_c, rows, width)
            at += width * g.pitch
