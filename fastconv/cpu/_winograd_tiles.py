"""What the kernels of Winograd's method copy in and out: lines of tiles, their transforms, and finished rows."""

from __future__ import annotations

from typing import NamedTuple

from numba import literally

from ..core.jit import subroutine
from ._kernel import first_integers, inner, never_inlined, place, plane_at
from ._kernel import number as number_at
from ._rows import fill, gather_channels, gather_row, store_channels, store_row, store_run
from ._simd import lanes, prefetch, splat
from ._strips import part_of
from ._winograd_transforms import separate, transform_back, transform_data, transform_filters

# Elements ahead of the filters that are transformed at which others are fetched, at least.
AHEAD = 64
# Channels ahead of lines with a dilation at which others are fetched: the processor does not guess rows that are as far
# apart. 512x38x57 to 512 with a dilation of 3 took 44 ms without, 38 ms so. Without a dilation the next channel's lines
# are: 512x56x56 to 512 in 32 groups took 2.70 ms without, 2.51 so, and 256x56x56 to 256 10.5 and 10.0.
CHANNELS_AHEAD = 4


class Blocks(NamedTuple):
    """The header of the geometry vector. `source` is gathered, `target` is stored; channels are those of one group."""

    sizes_1: int
    sizes_2: int
    sizes_3: int
    sizes_4: int
    sizes_5: int
    sizes_6: int
    sizes_7: int
    groups: int
    sources: int
    targets: int
    channel_block: int  # source channels that are transformed at once
    row_block: int  # target channels of one task
    filter_block: int  # target channels whose filters are transformed at once
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
    weight_depth: int  # from one slice of a filter to the one that is met next
    weight_first: int  # the slice that is met first
    slices: int  # of a filter, along the depth
    depth_reach: int  # planes that the last slice is behind the first
    phases_h: int  # planes for each element along the depth
    phases_w: int
    outputs_h: int  # of a tile
    outputs_w: int
    reach_h: int  # elements behind these that a tile reaches
    reach_w: int
    further_w: int  # tiles behind it that a tile reaches into
    planes_together: int  # planes of elements in the workspace at once
    channels_together: int  # planes that are gathered at once
    elements_pitch: int  # from one element of a row of tiles to the next,
    elements_phase: int  # from one row of a tile to the next,
    elements_plane: int  # and from one plane to the next
    gathered_at: int  # rows, where they have to be gathered, element by element
    gathered_pitch: int  # from one plane to the next
    points: int  # of a tile
    target_p: int  # extents of the planes of the target
    target_q: int
    tiles_z: int  # planes and tiles of the target
    tiles_p: int
    tiles_q: int
    block_z: int  # tiles of a block
    block_p: int
    block_q: int
    blocks_z: int
    blocks_p: int
    blocks_q: int
    blocks_per_task: int
    plane: int  # tiles of a plane of a block
    data_at: int  # positions in the workspace
    data_pitch: int  # from one channel to the next, and from one point to the next
    data_point: int
    prepares: int  # whether tasks do nothing but transform filters
    prepared: int  # whether tasks are given transformed filters in place of the weight
    filters_at: int
    filters_slice: int  # from one slice to the next
    filters_pitch: int
    filters_point: int
    filters_group: int
    sums_at: int
    sums_pitch: int
    sums_point: int
    rows_together: int  # target channels that are stored at once
    lines_at: int  # outputs
    lines_pitch: int
    lines_row: int  # from one target channel to the next
    scratch_at: int
    source_axis_d: int  # positions of packed axes in the vector
    source_axis_h: int
    source_axis_w: int
    target_axis_d: int
    target_axis_h: int
    target_axis_w: int
    accumulates: int  # whether the target is added to
    activation: int
    has_residual: int
    notices: int  # whether tasks tell the greatest magnitudes, in the place of the residual
    rows_at: int  # tables of the product: rows of filters,
    taken_at: int  # places in them,
    offsets_at: int  # and data, by term


HEADER = len(Blocks._fields)


@subroutine
def header(geometry):
    return Blocks(*first_integers(geometry, HEADER))


@subroutine
def block_of(g, rank):
    """First tile of a block, and its extents as far as there are tiles."""
    return part_of(
        rank, (g.blocks_z, g.blocks_p, g.blocks_q), (g.block_z, g.block_p, g.block_q),
        (g.tiles_z, g.tiles_p, g.tiles_q),
    )  # fmt: skip


@subroutine
def plane_of(g, number):
    """The element along the depth that a plane stands at, and the phases along H and W that it holds."""
    z, phase = divmod(number, g.phases_h * g.phases_w)
    phase_h, phase_w = divmod(phase, g.phases_w)
    return z, phase_h, phase_w


@subroutine
def transform_block(kind, gathers, workspace, geometry, source, source_at, channels, block, constants):
    """workspace[data_at + (e, c, d, tile)] = point e of the padded source around a tile, for c < channels.

    gathers: None where rows are read in place (`fastconv.cpu._winograd_sizes.gathers`): then no gathering is compiled.

    The elements of some planes at a time stand at the begin of the workspace, as `transform_data` wants them. Reading
    what has just been written waits for all that was written before: one plane at a time took twice as long.
    """
    literally(kind)
    never_inlined()
    g = header(geometry)
    tiles = block.height * block.width
    for d in range(block.depth + g.depth_reach):
        plane = _source_plane(g, geometry, source_at, block, d)
        for c in range(0, channels, g.channels_together):
            end_of_gathered = min(c + g.channels_together, channels)
            if gathers is not None:
                _gather_planes(workspace, geometry, source, plane, c, end_of_gathered, constants, block)
            for begin in range(c, end_of_gathered, g.planes_together):
                end = min(begin + g.planes_together, end_of_gathered)
                gathered_at = g.gathered_at + (begin - c) * g.gathered_pitch
                _separate_planes(
                    kind, gathers, workspace, geometry, source, plane, begin, end, gathered_at, constants, block
                )  # fmt: skip
                for channel in range(begin, end):
                    at = (channel - begin) * g.elements_plane
                    to = g.data_at + channel * g.data_pitch + d * g.plane
                    for v in range(0, tiles, lanes(workspace)):
                        transform_data(
                            kind, workspace, at + v, g.elements_phase, g.elements_pitch, block.width, to + v,
                            g.data_point,
                        )  # fmt: skip


@subroutine
def _extent(g, block):
    """Rows and columns of the padded source that a block reaches."""
    return block.height * g.outputs_h + g.reach_h, block.width * g.outputs_w + g.reach_w


class Plane(NamedTuple):
    """A plane of the source that a block reaches: whether it is there, the first channel's begin, its axes."""

    is_inside: bool
    begin: int
    plane_h: int
    plane_w: int


@subroutine
def _source_plane(g, geometry, source_at, block, d):
    z, phase_h, phase_w = plane_of(g, block.z + d)
    in_d = place(geometry, plane_at(geometry, g.source_axis_d, 0), z)
    return Plane(
        in_d >= 0, source_at + in_d * g.source_d,
        plane_at(geometry, g.source_axis_h, phase_h), plane_at(geometry, g.source_axis_w, phase_w),
    )  # fmt: skip


@subroutine
def _gather_planes(workspace, geometry, source, plane, begin, end, constants, block):
    """workspace[gathered_at + (channel, row, column)] = the padded planes around a block, of channels begin to end.

    In channels_last, those of all channels at once.
    """
    g = header(geometry)
    step = number_at(geometry, g.source_axis_w + 1)
    outside = constants[constants.size - 1]
    rows, columns = _extent(g, block)
    position = block.q * g.outputs_w
    together = end - begin if g.source_c == 1 else 1
    first, last = inner(geometry, plane.plane_w, position, columns)
    for c in range(begin, end if plane.is_inside else begin, together):
        first_at = plane.begin + c * g.source_c
        ahead = first_at + place(geometry, plane.plane_w, position + first) * g.source_w + CHANNELS_AHEAD * g.source_c
        for row in range(rows):
            in_h = place(geometry, plane.plane_h, block.p * g.outputs_h + row)
            to = g.gathered_at + (c - begin) * g.gathered_pitch + row * columns
            if in_h < 0:
                for each in range(together):
                    fill(workspace, to + each * g.gathered_pitch, columns, outside)
            elif together > 1:
                gather_channels(
                    workspace, to, g.gathered_pitch, together, columns, source, first_at + in_h * g.source_h,
                    g.source_w, outside, geometry, plane.plane_w, step, position,
                )  # fmt: skip
            else:
                for i in range(0, (last - first) * step, lanes(source)):
                    prefetch(source, ahead + in_h * g.source_h + i)
                gather_row(
                    workspace, to, columns, source, first_at + in_h * g.source_h, g.source_w,
                    outside, geometry, plane.plane_w, step, position,
                )  # fmt: skip


@subroutine
def _separate_planes(kind, gathers, workspace, geometry, source, plane, begin, end, gathered_at, constants, block):
    """Take planes apart into the elements of tiles, out of the source or as they were gathered."""
    literally(kind)
    g = header(geometry)
    rows, columns = _extent(g, block)
    position = block.q * g.outputs_w
    for c in range(begin, end):
        to = (c - begin) * g.elements_plane
        if not plane.is_inside:
            fill(workspace, to, g.elements_plane, constants[constants.size - 1])
        elif gathers is None:
            first, last = inner(geometry, plane.plane_w, position, columns)
            at = plane.begin + c * g.source_c + place(geometry, plane.plane_w, position + first) - first
            _separate_rows(
                kind, gathers, workspace, to, geometry, source, at, plane.plane_h, rows, first, last, constants, block
            )  # fmt: skip
        else:
            at = gathered_at + (c - begin) * g.gathered_pitch
            _separate_rows(kind, gathers, workspace, to, geometry, workspace, at, 0, rows, 0, columns, constants, block)


@subroutine
def _separate_rows(
    kind, gathers, workspace, to, geometry, source, source_at, plane_h, rows, first, last, constants, block
):  # fmt: skip
    """workspace[to + i % m * elements_phase + e * elements_pitch + i // m * tiles + t] = element e of tile t of row i.

    Columns from `first` to `last` of a row are there, and around them is the last of the constants. Rows of the source
    are where `plane_h` says, those that have been gathered follow each other.
    """
    literally(kind)
    g = header(geometry)
    step = lanes(workspace)
    outside = splat(constants, constants.size - 1, 1)
    stride = g.source_h if gathers is None else last
    for row in range(rows):
        in_h = place(geometry, plane_h, block.p * g.outputs_h + row) if gathers is None else row
        begin = source_at + in_h * stride
        end = last if in_h >= 0 else first
        if gathers is None:
            for i in range(first, end, step):
                prefetch(source, begin + g.source_c + i)
        at = to + row % g.outputs_h * g.elements_phase + row // g.outputs_h * block.width
        # What is written behind the last tile is written over by the next line.
        for t in range(0, block.width + g.further_w, step):
            column = t * g.outputs_w
            separate(
                kind, workspace, at + t, g.elements_pitch, t == 0,
                source, begin + column, first - column, end - column, outside,
            )  # fmt: skip


@subroutine
def transform_weights(kind, flipped, filters, filters_at, geometry, weights, weights_at, rows, channels):
    """filters[filters_at + (k, slice, c) + e * filters_point] = point e of the filters of a block.

    They are met in the order of the weight, which GRAD_INPUT has the other way round.
    """
    literally(kind)
    literally(flipped)
    never_inlined()
    g = header(geometry)
    step = lanes(filters)
    vectors = -(-channels // step)
    outer, nested = (vectors, rows) if flipped else (rows, vectors)
    ahead = max(step * g.weight_source if flipped else g.weight_target, AHEAD)
    for i in range(outer):
        for j in range(nested):
            c, k = (i * step, j) if flipped else (j * step, i)
            for t in range(g.slices):
                begin = weights_at + k * g.weight_target + c * g.weight_source
                transform_filters(
                    kind, flipped, weights, begin + g.weight_first + t * g.weight_depth, g.weight_source,
                    min(step, channels - c), ahead,
                    filters, filters_at + k * g.filters_pitch + t * g.filters_slice + c, g.filters_point,
                )  # fmt: skip


@subroutine
def store_block(kind, scatters, target, target_at, workspace, geometry, channel, rows, block, finish, greatest):
    """Store what the sums of a block give, finished; gives the greatest magnitudes before that, and of `greatest`.

    scatters: None where rows are stored in place (`fastconv.cpu._winograd_sizes.scatters`); target_at: element 0 of the
    image; channel: the first of the rows.
    """
    literally(kind)
    never_inlined()
    g = header(geometry)
    plane_d = plane_at(geometry, g.target_axis_d, 0)
    step = number_at(geometry, g.target_axis_w + 1)
    tiles = (block.depth - 1) * g.plane + block.height * block.width
    line = g.outputs_w * block.width
    q = g.outputs_w * block.q
    count = min(line, g.target_q - q)
    for k in range(0, rows, g.rows_together):
        held = min(g.rows_together, rows - k)
        for row in range(k, k + held):
            lines_at = g.lines_at + (row - k) * g.lines_row
            for v in range(0, tiles, lanes(workspace)):
                greatest = transform_back(
                    kind, workspace, g.sums_at + row * g.sums_pitch + v, g.sums_point,
                    lines_at + v * g.outputs_w, g.lines_pitch, tiles - v, greatest,
                )  # fmt: skip
        for d in range(block.depth):
            z, phase_h, phase_w = plane_of(g, block.z + d)
            plane_h = plane_at(geometry, g.target_axis_h, phase_h)
            plane_w = plane_at(geometry, g.target_axis_w, phase_w)
            to = target_at + (channel + k) * g.target_c + place(geometry, plane_d, z) * g.target_d
            begin = g.lines_at + g.outputs_w * d * g.plane
            for h in range(min(block.height * g.outputs_h, g.target_p - block.p * g.outputs_h)):
                at = begin + h % g.outputs_h * g.lines_pitch + h // g.outputs_h * line
                in_h = place(geometry, plane_h, block.p * g.outputs_h + h)
                row = to + in_h * g.target_h
                if in_h < 0:
                    continue
                if scatters is None:
                    # The next channel's row, as stores that wait for a far cache hold up what follows: 512x56x56 to 512
                    # in 32 groups took 2.04 ms without, and 1.96 so.
                    for i in range(0, count, lanes(workspace)):
                        prefetch(target, row + q + g.target_c + i)
                    store_run(target, row + q, workspace, at, count, channel + k, finish)
                elif g.target_c == 1:
                    store_channels(
                        target, row, g.target_w, geometry, plane_w, step, q, workspace, at, g.lines_row, held, count,
                        channel + k, finish, g.scratch_at,
                    )  # fmt: skip
                else:
                    store_row(
                        target, row, g.target_w, geometry, plane_w, step, q, workspace, at, count, channel + k, finish
                    )  # fmt: skip
    return greatest
