"""Direct convolution of wide images: the rows of a strip are multiplied one by one.

Where a row of output pixels fills vectors well by itself, the border columns between the rows of a strip need neither
be computed nor packed away. In FORWARD the sums need no place of their own: the register tiles are stored where they
belong. In GRAD_WEIGHT a vector holds neighbouring pixels, and y is read as it is.
"""

from __future__ import annotations

from ..core.jit import Kernel, kernel, subroutine
from ..core.problem import Op
from . import _dots
from ._dots import Lines, multiply_by_dots, multiply_lines
from ._gemm import Ending, Product, multiply, multiply_last
from ._kernel import views
from ._past_caches import caches_passed, products_pass_caches
from ._rows import Finish, changes, finish_runs
from ._simd import lanes
from ._strips import block_of, for_both_ways, gather_strips, header, tile_of, weight_block_of


@subroutine
def _multiply_rows(plain, task, tensors):
    """One task: a tile of a single plane, one block of target channels of one group of one image.

    x, y: channels first; w: (K, C / groups, taps); workspace: strips.
    """
    x, w, y, residual, constants, workspace, geometry = tensors
    g = header(geometry)
    block = block_of(g, task)
    tile = tile_of(g, block.run)
    finish = Finish(constants, residual, g.has_residual, g.activation, None)
    is_changed = changes(finish, block.channel, block.rows)
    gather_strips(plain, workspace, geometry, x, block.source_at, g.sources, tile, constants, True)
    left, has_passed = tile.width % lanes(y), False
    may_pass = left == 0 and not is_changed
    for p in range(tile.height):
        at = (
            block.image * g.target_n + block.channel * g.target_c + tile.z * g.target_d + (tile.p + p) * g.target_h
            + tile.q
        )  # fmt: skip
        passes = may_pass and products_pass_caches(y, at, g.target_c)
        has_passed |= passes
        row = _row(geometry, w, block.weights_at, workspace, p * g.strip_w, y, at, Ending(True, passes))
        multiply(row, block.rows, tile.width - left)
        rest = _row(geometry, w, block.weights_at, workspace, p * g.strip_w, y, at, True)
        if left > _dots.MOST:
            multiply_last(rest, block.rows, tile.width - left, left)
        elif left:
            multiply_by_dots(rest, g.dots_at, g.dots_pitch, block.rows, tile.width - left, left)
        if is_changed:
            finish_runs(y, at, g.target_c, block.rows, tile.width, block.channel, 1, finish)
    if has_passed:
        caches_passed()


def _forward(plain: bool | None) -> Kernel:
    @kernel
    def run(task, x, w, y, residual, constants, workspace, geometry):
        _multiply_rows(plain, task, views(x, w, y, residual, constants, workspace, geometry))

    return run


@subroutine
def _row(geometry, weights, weights_at, strips, strip, sums, sums_at, fresh):
    """A row of output pixels, whose source begins at `strip`."""
    g = header(geometry)
    terms, offsets_at, taken_at = geometry[g.phases_at], geometry[g.phases_at + 1], geometry[g.phases_at + 2]
    return Product(
        sums, sums_at, g.target_c, weights, weights_at, strips, strip,
        geometry, g.rows_at, taken_at, offsets_at, g.sources * terms, fresh,
    )  # fmt: skip


@subroutine
def _multiply_weights(plain, task, tensors):
    """One task: a run of tiles of all images, one block of input and one of output channels of one group.

    x, y: channels first; w: (runs, K, C / groups, taps), to be added up over the runs; workspace: strips.
    """
    x, w, y, _, constants, workspace, geometry = tensors
    g = header(geometry)
    tiles = g.tiles_z * g.tiles_p * g.tiles_q
    taps, offsets_at = geometry[g.phases_at], geometry[g.phases_at + 1]
    run, group, first, channels, channel, rows = weight_block_of(g, task)
    width = g.sources * taps
    w_at = (run * g.groups * g.targets + channel) * width + first * taps
    begin = run * g.tiles_per_task
    for item in range(begin, min(begin + g.tiles_per_task, g.images * tiles)):
        image, number = divmod(item, tiles)
        tile = tile_of(g, number)
        source_at = image * g.source_n + (group * g.sources + first) * g.source_c
        y_at = (
            image * g.target_n + channel * g.target_c + tile.z * g.target_d + tile.p * g.target_h + tile.q
        )  # fmt: skip
        gather_strips(plain, workspace, geometry, x, source_at, channels, tile, constants, item == begin or tiles > 1)
        product = Product(
            w, w_at, width, y, y_at, workspace, 0,
            geometry, g.rows_at, 0, offsets_at, tile.width, item == begin,
        )  # fmt: skip
        multiply_lines(product, rows, channels * taps, Lines(tile.height, g.target_h, g.strip_w))


def _grad_weight(plain: bool | None) -> Kernel:
    @kernel
    def run(task, x, w, y, residual, constants, workspace, geometry):
        _multiply_weights(plain, task, views(x, w, y, residual, constants, workspace, geometry))

    return run


KERNELS = {Op.FORWARD: for_both_ways(_forward), Op.GRAD_WEIGHT: for_both_ways(_grad_weight)}
