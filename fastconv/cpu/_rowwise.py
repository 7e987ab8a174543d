"""Direct convolution of wide images: the rows of a strip are multiplied one by one, into the target in place.

Where a row of output pixels fills vectors well by itself, the border columns between the rows of a strip need neither
be computed nor packed away, and sums need no place of their own: the register tiles are stored where they belong.
"""

from __future__ import annotations

from ..core.jit import kernel
from . import _dots
from ._dots import multiply_by_dots
from ._gemm import Product, multiply, multiply_last
from ._kernel import views
from ._rows import Finish, changes, finish_runs
from ._simd import lanes
from ._strips import block_of, gather_strips, header, tile_of


@kernel
def forward(task, x, w, y, residual, constants, workspace, geometry):
    """One task: a tile of a single plane, one block of target channels of one group of one image.

    x, y: channels first; w: (K, C / groups, taps); workspace: strips.
    """
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    g = header(geometry)
    block = block_of(g, task)
    tile = tile_of(g, block.run)
    finish = Finish(constants, residual, g.has_residual, g.activation, g.accumulates)
    is_changed = changes(finish, block.channel, block.rows)
    gather_strips(workspace, geometry, x, block.source_at, g.sources, tile, constants, True)
    terms, offsets_at, taken_at = geometry[g.phases_at], geometry[g.phases_at + 1], geometry[g.phases_at + 2]
    left = tile.width % lanes(y)
    for p in range(tile.height):
        at = (
            block.image * g.target_n + block.channel * g.target_c + tile.z * g.target_d + (tile.p + p) * g.target_h
            + tile.q
        )  # fmt: skip
        product = Product(
            y, at, g.target_c, w, block.weights_at, workspace, p * g.strip_w,
            geometry, g.rows_at, taken_at, offsets_at, g.sources * terms, True,
        )  # fmt: skip
        multiply(product, block.rows, tile.width - left)
        if left > _dots.MOST:
            multiply_last(product, block.rows, tile.width - left, left)
        elif left:
            multiply_by_dots(product, g.dots_at, g.dots_pitch, block.rows, tile.width - left, left)
        if is_changed:
            finish_runs(y, at, g.target_c, block.rows, tile.width, block.channel, 1, finish)
