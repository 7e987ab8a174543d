"""FORWARD and GRAD_INPUT as a product of matrices of which one is never stored: implicit GEMM.

The rows are the positions of one phase of all images, the columns the result channels of one group, and what is summed
over are the pairs of a tap and a source channel, tap by tap (`fastconv.cuda._gather`)::

    result[position, r] = sum over taps t and c of source[c, position * step + shift[t]] * form[t, c, r]

A block builds the panel of the source when it needs it: where a position's tap lies, and whether inside, is worked out
once for each tap; from channel to channel it is one step.

Source: Chetlur et al., "cuDNN: efficient primitives for deep learning", arXiv:1410.0759, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ..core.algorithm import Epilogue
from ._device import (
    barrier,
    block_x,
    cuda,
    function,
    get,
    get4,
    int32,
    int64,
    pointer,
    put,
    put4,
    quotient,
    real_of,
    record,
    remainder,
    shifted,
    thread,
)
from ._elements import Numbers
from ._epilogue import finish
from ._gather import TAP_FIELDS, Gather
from ._gemm import PIECE, Tile, multiply, resident_blocks, spread_sums
from ._kernel import Body, Kernel, Launch, kernels
from ._queue import Table
from ._weight_form import filled_up

# In blocks of fewer threads, with as many sums each, what a thread fetches and keeps does not fit 128 registers too.
MANY_THREADS, MANY_SUMS = 256, 64


class Access(NamedTuple):
    """How the kernel reads the source and writes the result.

    Attributes
    ----------
    layout
        Of both.
    wide_source
        Whether four source channels are read at once, which are neighbours and begin at a multiple of four.
    wide_result
        Whether four neighbours of the result are written at once: positions, or channels with channels_last.
    """

    layout: str
    wide_source: bool
    wide_result: bool

    @classmethod
    def of(cls, gather: Gather) -> Access:
        """What an operation allows."""
        is_last = gather.problem.layout == "channels_last"
        positions = math.prod(gather.result_extents)
        wide_positions = max(gather.spread) == 1 and positions % PIECE == 0
        return cls(
            gather.problem.layout,
            is_last and gather.source_channels % PIECE == 0,
            gather.result_channels % PIECE == 0 if is_last else wide_positions,
        )


class TileNumbers(NamedTuple):
    """What `gather_tiles` is told besides the `Numbers` of a phase."""

    pixels: int  # positions of all images
    pixel_tiles: int
    channel_tiles: int  # of one group
    form_rows: int  # source channels of a tap, filled up
    form_columns: int  # result channels, filled up

    @classmethod
    def of(cls, gather: Gather, positions: int, rows: int, columns: int, depth: int) -> TileNumbers:
        """For a phase of so many positions, in tiles of these sizes."""
        pixels = positions * gather.problem.N
        form = filled_up(gather, depth, columns)
        return cls(pixels, -(-pixels // rows), form[1] // columns, *form)


@function
def share_of(block, rows, columns, m):
    """Of a block whose tile has so many rows and columns: its group, its first position and its first channel there.

    Blocks that follow one another share their positions, so that the source comes from memory once.
    """
    channel_tile = remainder(block, m.channel_tiles)
    rest = quotient(block, m.channel_tiles)
    group = quotient(rest, m.pixel_tiles)
    return group, int32((rest - group * m.pixel_tiles) * rows), int32(channel_tile * columns)


@function
def position_of(pixel, n):
    """Image, d, h and w of a position: its number among those of all images, counted through."""
    image = quotient(pixel, n.positions)
    position = int32(pixel - image * n.positions)
    row = quotient(position, n.width)
    slice_ = quotient(row, n.height)
    return image, slice_, int32(row - slice_ * n.height), int32(position - row * n.width)


@function
def inside(slice_, row, column, shift_d, shift_h, shift_w, n):
    """Whether a tap of the position is inside the source, and how far from the first element of its channel."""
    d = int32(slice_ * n.step_d + shift_d)
    h = int32(row * n.step_h + shift_h)
    w = int32(column * n.step_w + shift_w)
    is_inside = d >= 0 and d < n.extent_d and h >= 0 and h < n.extent_h and w >= 0 and w < n.extent_w
    return is_inside, int32(d * n.source_d + h * n.source_h + w * n.source_w)


def fetch_channels(wide: bool, loads: int, real) -> Any:
    """The function ``(source, at, stride, count, fetched, to)``: read channels of a place, zeros after the first count.

    fetched, to: a local array, and where in it the first of `loads` goes.
    """
    step = PIECE if wide else 1

    @function
    def fetch(source, at, stride, count, fetched, to):
        for i in range(0, loads, step):
            for k in range(step):
                fetched[to + i + k] = real(0)
            if i < count:
                if wide:
                    first, second, third, fourth = get4(source, int32(at + i))
                    fetched[to + i] = first
                    fetched[to + i + 1] = second
                    fetched[to + i + 2] = third
                    fetched[to + i + 3] = fourth
                else:
                    fetched[to + i] = get(source, int32(at + i * stride))

    return fetch


def store_tile(epilogue: Epilogue, layout: str, wide: bool, rows: int, columns: int, threads: int) -> Any:
    """The function ``(sums, result, residual, bias, pixel, channel, group, n, tile, result_image)``: finish and write.

    sums: rows x columns of them in the block's memory, neighbours next to each other: positions, or channels with
    channels_last. pixel, channel: where in the result, and in the group, the first belongs.
    """
    end = finish(epilogue)
    is_last = layout == "channels_last"
    step = PIECE if wide else 1
    across = (columns if is_last else rows) // step  # accesses along the neighbours
    accesses = rows * columns // step // threads
    neighbour = (0, 1) if is_last else (1, 0)  # positions and channels from one to the next

    @function
    def store(sums, result, residual, bias, pixel, channel, group, n, tile, result_image):
        for i in range(accesses):
            number = int32(thread() + i * threads)
            beside = int32(remainder(number, int32(across)) * step)
            line = quotient(number, int32(across))
            to_pixel = int32(pixel + (line if is_last else beside))
            to_channel = int32(channel + (beside if is_last else line))
            if to_pixel < tile.pixels and to_channel < n.group_channels:
                image, slice_, row, column = position_of(to_pixel, n)
                to_channel = int32(to_channel + group * n.group_channels)
                at = int32(
                    to_channel * n.result_channel
                    + (slice_ * n.spread_d + n.first_d) * n.result_d
                    + (row * n.spread_h + n.first_h) * n.result_h
                    + (column * n.spread_w + n.first_w) * n.result_w
                )
                offset = int64(image) * result_image
                target, added = shifted(result, offset), shifted(residual, offset)
                if wide:
                    first, second, third, fourth = get4(sums, int32(number * PIECE))
                    put4(
                        target,
                        at,
                        end(first, to_channel, at, bias, n.has_bias, added),
                        end(second, int32(to_channel + neighbour[1]), int32(at + 1), bias, n.has_bias, added),
                        end(third, int32(to_channel + 2 * neighbour[1]), int32(at + 2), bias, n.has_bias, added),
                        end(fourth, int32(to_channel + 3 * neighbour[1]), int32(at + 3), bias, n.has_bias, added),
                    )
                else:
                    put(target, at, end(get(sums, number), to_channel, at, bias, n.has_bias, added))

    return store


@kernels
def gather_tiles(dtype: str, epilogue: Epilogue, tile: Tile, access: Access) -> Body:
    """FORWARD and GRAD_INPUT: a block sums a tile of positions x result channels."""
    real = real_of(dtype)
    threads, depth, columns = tile.threads, tile.depth, tile.columns
    is_last = access.layout == "channels_last"
    one_panel, row_stride, column_stride = tile.panels, tile.row_stride, tile.column_stride
    memory, column_panel, sums_size = tile.memory, depth * row_stride, tile.sums
    row_threads, column_threads = tile.row_threads, tile.column_threads
    row_lines, column_lines = PIECE * tile.row_pieces, PIECE * tile.column_pieces
    # Of a panel of the source each thread fetches some channels of one position.
    loads = depth * tile.rows // threads
    by_position = threads // tile.rows
    fetch = fetch_channels(access.wide_source, loads, real)
    # Of a panel of the form it fetches pieces of four columns, whole rows of the panel apart; where there are more
    # threads than pieces, some fetch and lay the same.
    row_pieces = columns // PIECE
    form_pieces = depth * row_pieces
    form_loads = -(-form_pieces // threads)
    form_step = threads // row_pieces
    fetched_size, form_size = loads, form_loads * PIECE
    multiply_panels, lay = multiply(tile), spread_sums(tile, not is_last)
    pieces = tile.row_pieces * tile.column_pieces
    piece_rows, piece_columns = tile.rows // tile.row_pieces, columns // tile.column_pieces
    store = store_tile(epilogue, access.layout, access.wide_result, piece_rows, piece_columns, threads)

    @function
    def step_on(taps, tap, c, at, left, slice_, row, column, most, n):
        """The next tap, and of what is fetched next the first channel, its place, and how many channels there are."""
        c, at, left = int32(c + depth), int32(at + depth * n.source_channel), int32(left - depth)
        if c >= n.source_channels:
            table_row = int32(tap * TAP_FIELDS)
            shift_d, shift_h = get(taps, table_row), get(taps, int32(table_row + 1))
            is_inside, at = inside(slice_, row, column, shift_d, shift_h, get(taps, int32(table_row + 2)), n)
            c, tap, left = int32(0), int32(tap + 1), most if is_inside else int32(0)
        return tap, c, at, left

    @function
    def fetch_form(fetched, forms, at, form_columns):
        """Pieces of a panel of the form, on their way to registers."""
        for i in range(form_loads):
            one, two, three, four = get4(forms, int32(at + i * form_step * form_columns))
            fetched[PIECE * i] = one
            fetched[PIECE * i + 1] = two
            fetched[PIECE * i + 2] = three
            fetched[PIECE * i + 3] = four

    @function
    def lay_panels(panels, to, fetched, row_to, fetched_form, column_to):
        """Both panels, as they were fetched."""
        for i in range(loads):
            put(panels, int32(to + row_to + i * row_stride), fetched[i])
        for i in range(form_loads):
            k = PIECE * i
            at = int32(to + column_to + i * form_step * column_stride)
            put4(panels, at, fetched_form[k], fetched_form[k + 1], fetched_form[k + 2], fetched_form[k + 3])

    def body(
        source,  # the tensor that is gathered, read
        form,  # w as in `_weight_form`, read
        result,  # written
        residual,  # like the result, read where the epilogue says so
        bias,  # (channels of the result,), read where there is one
        taps,  # int32 (rows, 4): shifts along d, h, w and the place in the filter
        n,  # Numbers
        m,  # TileNumbers
        source_image,  # int64: elements from one image of the source to the next
        result_image,  # int64: likewise of the result
        form_group,  # int64: elements of the form from one group to the next
    ):
        panels = cuda.shared.array(memory, real, 16)
        sums = cuda.local.array(sums_size, real)
        rows = cuda.local.array(row_lines, real)
        factors = cuda.local.array(column_lines, real)
        fetched = cuda.local.array(fetched_size, real)
        fetched_form = cuda.local.array(form_size, real)
        t = thread()
        group, first_pixel, first_channel = share_of(block_x(), int32(tile.rows), int32(columns), m)

        if is_last:  # neighbouring threads take neighbouring channels, else positions
            lane, first_load = quotient(t, int32(by_position)), int32(remainder(t, int32(by_position)) * loads)
        else:
            lane, first_load = remainder(t, int32(tile.rows)), int32(quotient(t, int32(tile.rows)) * loads)
        pixel = int32(first_pixel + lane)
        is_there = pixel < m.pixels
        image, slice_, row, column = position_of(pixel if is_there else int32(0), n)
        first = int32((group * n.source_channels + min(first_load, int32(n.source_channels - 1))) * n.source_channel)
        images = shifted(source, int64(image) * source_image + int64(first))
        most = int32(n.source_channels - first_load) if is_there else int32(0)  # channels that it may fetch
        row_to = int32(first_load * row_stride + lane)

        item = remainder(t, int32(form_pieces))
        form_row, form_column = quotient(item, int32(row_pieces)), int32(remainder(item, int32(row_pieces)) * PIECE)
        forms = shifted(form, int64(group) * form_group)
        form_at = int32((n.first_tap * m.form_rows + form_row) * m.form_columns + first_channel + form_column)
        column_to = int32(column_panel + form_row * column_stride + form_column)

        along_rows = remainder(t, int32(row_threads)) if not is_last else quotient(t, int32(column_threads))
        along_columns = quotient(t, int32(row_threads)) if not is_last else remainder(t, int32(column_threads))
        row_from = int32(along_rows * PIECE)
        column_from = int32(column_panel + along_columns * PIECE)

        for i in range(sums_size):
            sums[i] = real(0)
        tap, c, at, left = n.first_tap, n.source_channels, int32(0), int32(0)
        steps = int32(n.taps * quotient(m.form_rows, int32(depth)))
        panel = int32(0)  # where the panels that are multiplied begin; those that are laid are the others
        if steps > 0:
            tap, c, at, left = step_on(taps, tap, c, at, left, slice_, row, column, most, n)
            fetch(images, at, n.source_channel, left, fetched, 0)
            fetch_form(fetched_form, forms, form_at, m.form_columns)
            lay_panels(panels, panel, fetched, row_to, fetched_form, column_to)
        barrier()
        # The last step fetches once more what it multiplies: behind a condition, the compiler would move the loads to
        # where they are stored, and every step would wait for them.
        while steps > 0:
            steps = int32(steps - 1)
            if steps > 0:
                tap, c, at, left = step_on(taps, tap, c, at, left, slice_, row, column, most, n)
                form_at = int32(form_at + depth * m.form_columns)
            fetch(images, at, n.source_channel, left, fetched, 0)
            fetch_form(fetched_form, forms, form_at, m.form_columns)
            multiply_panels(panels, int32(panel + row_from), int32(panel + column_from), sums, rows, factors)
            panel = int32(one_panel - panel)
            lay_panels(panels, panel, fetched, row_to, fetched_form, column_to)
            barrier()

        for piece in range(pieces):
            lay(panels, sums, piece, along_rows, along_columns)
            barrier()
            i, j = quotient(int32(piece), int32(tile.column_pieces)), remainder(int32(piece), int32(tile.column_pieces))
            to_pixel = int32(first_pixel + i * piece_rows)
            to_channel = int32(first_channel + j * piece_columns)
            store(panels, result, residual, bias, to_pixel, to_channel, group, n, m, result_image)
            barrier()

    return Body(body, arguments_of(dtype), threads, resident_of(dtype, tile))


def arguments_of(dtype: str) -> tuple[Any, ...]:
    """The types of the arguments of a kernel that `launched` runs."""
    return *[pointer(dtype)] * 5, pointer("int32"), record(Numbers), record(TileNumbers), *[int64] * 3


def resident_of(dtype: str, tile: Tile) -> int:
    """Blocks of `gather_tiles` that a multiprocessor is to hold at once."""
    return resident_blocks(dtype, tile.threads, tile.threads < MANY_THREADS and tile.sums >= MANY_SUMS)


def launched(gather: Gather, kernel: Kernel, tile: Any) -> Callable[..., None]:
    """What runs an operation with a kernel that sums tiles of so many rows and columns, in panels of so much depth.

    Returns
    -------
    function ``(queue, source, form, result, residual, bias)``
        bias is None where there is none.
    """
    problem = gather.problem
    taps = Table(gather.taps)
    form = filled_up(gather, tile.depth, tile.columns)
    sizes = [gather.source_strides.image, gather.result_strides.image, problem.taps * math.prod(form)]

    @cache
    def launches(has_bias: bool) -> list[Launch]:
        made = []
        for phase in gather.phases:
            n = Numbers.of(gather, phase, has_bias)
            m = TileNumbers.of(gather, n.positions, tile.rows, tile.columns, tile.depth)
            blocks = m.pixel_tiles * m.channel_tiles * problem.groups
            made.append(Launch(kernel, (blocks,), n, m, *map(np.int64, sizes)))
        return made

    def run(queue, source, form, result, residual, bias):
        table = taps.on(queue)
        for launch in launches(bias is not None):
            launch(queue, source, form, result, residual, result if bias is None else bias, table)

    return run
