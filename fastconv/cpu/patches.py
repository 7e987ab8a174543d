"""The patch matrix as a result of its own: copied out of x, and its adjoint, added up into x.

The matrix (`fastconv.cpu._patches`) lies in the caller's array in one of two ways: a row for each tap of each channel,
(N, C * taps, pixels), or a row for each pixel, (N, pixels, C * taps). Where taps are the rows, patches are copied
straight into the array and added up straight out of it; where pixels are, a slab at a time is transposed on the way.
A task copies part of the matrix, or adds to elements of x that no other task touches, in an order that is always the
same.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..core.algorithm import Array, PatchRun
from ..core.jit import kernel, subroutine
from ..core.machine import local_machine
from ..core.problem import ConvProblem, Op
from ._gemm import lanes_of, padded
from ._geometry import Tables, even_split, sized, tensor_strides
from ._kernel import first_integers, views
from ._launch import Launch
from ._patches import add_patches, gather, scatter
from ._rows import fill, transpose_all

# Pixels and bytes of a slab, and bytes of a band of x: a part of a second-level cache of 1 MiB.
SLAB_PIXELS = 480
SLAB_BYTES = 256 << 10
# Taps of a slab from the matrix whose rows are pixels: four cache lines of float32 of each.
TAPS_LEAST = 64
TASKS_PER_THREAD = 4


class Matrix(NamedTuple):
    """The header of the geometry vector."""

    sizes_1: int
    sizes_2: int
    sizes_3: int
    sizes_4: int
    sizes_5: int
    sizes_6: int
    sizes_7: int
    channels: int
    rows: int  # channels * taps
    pixels: int
    taps: int
    span: int  # rows of a task, or of a slab
    run_pixels: int  # pixels of a slab
    pitch: int  # distance of its rows
    block: int  # what a task adds to: channels
    band: int  # and rows along w in each of them
    bands: int
    x_rows: int  # D * H
    x_n: int  # strides in elements
    x_c: int
    x_h: int
    x_w: int
    patches_at: int  # the table of `fastconv.cpu._patches.Patches`


HEADER = len(Matrix._fields)


# ---- kernels; the matrix comes in the place of w, constants holds what stands in the padding


@kernel
def _gather_taps(task, x, w, y, residual, constants, workspace, geometry):
    """One task: some rows of the matrix of one image. w: (N, C * taps, pixels), written."""
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    g = Matrix(*first_integers(geometry, HEADER))
    image, block = divmod(task, -(-g.rows // g.span))
    first = block * g.span
    count = min(g.span, g.rows - first)
    to = (image * g.rows + first) * g.pixels
    gather(w, to, g.pixels, x, image * g.x_n, geometry, g.patches_at, first, count, 0, g.pixels, constants[0])


@kernel
def _gather_pixels(task, x, w, y, residual, constants, workspace, geometry):
    """One task: a run of pixels of one image. w: (N, pixels, C * taps), written; workspace: slab (span, pitch)."""
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    g = Matrix(*first_integers(geometry, HEADER))
    image, run = divmod(task, -(-g.pixels // g.run_pixels))
    pixel = run * g.run_pixels
    count = min(g.run_pixels, g.pixels - pixel)
    to = (image * g.pixels + pixel) * g.rows
    for first in range(0, g.rows, g.span):
        terms = min(g.span, g.rows - first)
        gather(
            workspace, 0, g.pitch, x, image * g.x_n, geometry, g.patches_at, first, terms, pixel, count, constants[0]
        )  # fmt: skip
        transpose_all(w, to + first, g.rows, workspace, 0, g.pitch, terms, count)


@kernel
def _scatter_taps(task, x, w, y, residual, constants, workspace, geometry):
    """One task: a band of some channels of one image of x, written. w: (N, C * taps, pixels)."""
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    g = Matrix(*first_integers(geometry, HEADER))
    image, channel, channels, low, high = _target_of(task, g)
    _clear(x, image * g.x_n + channel * g.x_c, channels, low, high, g)
    first = channel * g.taps
    begin = (image * g.rows + first) * g.pixels
    scatter(
        x, image * g.x_n, low, high, w, begin, g.pixels,
        geometry, g.patches_at, first, channels * g.taps, 0, g.pixels,
    )  # fmt: skip


@kernel
def _scatter_pixels(task, x, w, y, residual, constants, workspace, geometry):
    """`_scatter_taps` of w: (N, pixels, C * taps); workspace: slab (span, pitch)."""
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    g = Matrix(*first_integers(geometry, HEADER))
    image, channel, channels, low, high = _target_of(task, g)
    _clear(x, image * g.x_n + channel * g.x_c, channels, low, high, g)
    end = (channel + channels) * g.taps
    for pixel in range(0, g.pixels, g.run_pixels):
        count = min(g.run_pixels, g.pixels - pixel)
        for first in range(channel * g.taps, end, g.span):
            terms = min(g.span, end - first)
            begin = (image * g.pixels + pixel) * g.rows + first
            transpose_all(workspace, 0, g.pitch, w, begin, g.rows, count, terms)
            scatter(
                x, image * g.x_n, low, high, workspace, 0, g.pitch, geometry, g.patches_at, first, terms, pixel, count
            )  # fmt: skip


@subroutine
def _target_of(task, g):
    """Image, first channel, channels, and the distances from a channel's beginning that bound a task's band."""
    rest, band = divmod(task, g.bands)
    image, block = divmod(rest, -(-g.channels // g.block))
    channel = block * g.block
    low, high = band * g.band, min((band + 1) * g.band, g.x_rows)
    return image, channel, min(g.block, g.channels - channel), low * g.x_h, high * g.x_h


@subroutine
def _clear(x, x_at, channels, low, high, g):
    """Set a band of some channels to zero, from the first channel's beginning on."""
    if g.x_w == 1:
        for c in range(channels):
            fill(x, x_at + c * g.x_c + low, high - low, 0)
    else:
        for distance in range(low, high, g.x_w):
            fill(x, x_at + distance, channels, 0)


# ---- plans


class _Sizes(NamedTuple):
    """What a task does; its fields are those of the header."""

    tasks: int
    span: int = 0
    run_pixels: int = 0
    block: int = 1
    band: int = 1
    bands: int = 1


def _gather_sizes(problem: ConvProblem, pixel_rows: bool) -> _Sizes:
    """Tasks that are parts of an image's matrix."""
    parts = -(-_wanted() // problem.N)
    if not pixel_rows:
        span = even_split(problem.K, -(-problem.K // parts))
        return _Sizes(problem.N * -(-problem.K // span), span)
    run = even_split(problem.pixels, min(SLAB_PIXELS, -(-problem.pixels // parts)))
    return _Sizes(problem.N * -(-problem.pixels // run), _slab_rows(problem, problem.K, run), run)


def _scatter_sizes(problem: ConvProblem, pixel_rows: bool) -> _Sizes:
    """Tasks that are parts of an image of x.

    Neighbouring channels of a channels_last tensor share cache lines, and so do their taps in a row of a pixel. There,
    every band reads the whole matrix, so there are no more than make a task for each thread.
    """
    neighbours = lanes_of(problem.dtype) if problem.layout == "channels_last" else 1
    block = max(neighbours, -(-TAPS_LEAST // problem.taps)) if pixel_rows else neighbours
    block = even_split(problem.C, block)
    blocks = problem.N * -(-problem.C // block)
    x_rows = problem.input[0] * problem.input[1]
    row_bytes = problem.input[2] * block * np.dtype(problem.dtype).itemsize
    least = -(-x_rows * row_bytes // SLAB_BYTES) if not pixel_rows else 1
    bands = max(least, -(-(local_machine().threads if pixel_rows else _wanted()) // blocks))
    band = even_split(x_rows, -(-x_rows // bands))
    run = even_split(problem.pixels, SLAB_PIXELS)
    span = _slab_rows(problem, block * problem.taps, run)
    bands = -(-x_rows // band)
    return _Sizes(blocks * bands, span, run, block, band, bands)


def _wanted() -> int:
    return TASKS_PER_THREAD * local_machine().threads


def _slab_rows(problem: ConvProblem, rows: int, run: int) -> int:
    """Rows of equal slabs, whole registers of them."""
    most = SLAB_BYTES // (padded(run, problem.dtype) * np.dtype(problem.dtype).itemsize)
    return min(rows, padded(even_split(rows, most), problem.dtype))


_KERNELS = {
    (Op.FORWARD, False): _gather_taps,
    (Op.FORWARD, True): _gather_pixels,
    (Op.GRAD_INPUT, False): _scatter_taps,
    (Op.GRAD_INPUT, True): _scatter_pixels,
}


def plan(problem: ConvProblem, op: Op, pixel_rows: bool) -> PatchRun:
    """What copies a patch matrix out of x (FORWARD), or sets x to what its elements add up to (GRAD_INPUT).

    Parameters
    ----------
    problem
        A convolution with as many outputs and groups as make one for each tap of each channel: its y is the matrix.
        None of its extents is 0.
    pixel_rows
        Whether the matrix is (N, pixels, C * taps), not (N, C * taps, pixels); whatever the layout of x.

    Returns
    -------
    ``run(x, matrix, outside, threads)``
        Of contiguous arrays of the problem's type; outside: what stands in the padding.
    """
    sizes = (_gather_sizes if op is Op.FORWARD else _scatter_sizes)(problem, pixel_rows)
    (x_n, x_c, _, x_h, x_w), _ = tensor_strides(problem)
    pitch = padded(sizes.run_pixels, problem.dtype)
    workspace = sizes.span * pitch if pixel_rows else 0
    tables = Tables(Matrix)
    vector = tables.vector(
        channels=problem.C,
        rows=problem.K,
        pixels=problem.pixels,
        taps=problem.taps,
        span=sizes.span,
        run_pixels=sizes.run_pixels,
        pitch=pitch,
        block=sizes.block,
        band=sizes.band,
        bands=sizes.bands,
        x_rows=problem.input[0] * problem.input[1],
        x_n=x_n,
        x_c=x_c,
        x_h=x_h,
        x_w=x_w,
        patches_at=add_patches(tables, problem),
    )
    x_size, matrix_size = math.prod(problem.x_shape), math.prod(problem.y_shape)
    geometry = sized(vector, (x_size, matrix_size, x_size, x_size, 1, workspace))
    launch = Launch(_KERNELS[op, pixel_rows], sizes.tasks, problem.dtype, geometry, workspace)

    def run(x: Array, matrix: Array, outside: Array, threads: int) -> None:
        launch(x, matrix, x, x, outside, threads)

    return run
