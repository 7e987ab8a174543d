"""im2col in tiles of every size: tails along every axis, narrow and wide accesses, several blocks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fastconv.core.problem import Op
from fastconv.cuda._device import quotient_by, reciprocal
from fastconv.cuda._gather import Gather
from fastconv.cuda._gather_tiles import Access
from fastconv.cuda._gemm import Tile
from fastconv.cuda._plan import planned
from fastconv.cuda._tensor_cores import is_copied
from fastconv.cuda._tensor_weights import copied_lines
from fastconv.cuda._tiles import DOUBLE_TILES, MATRIX_TILES, TILES, WEIGHT_MATRIX_TILES, WEIGHT_TILES
from fastconv.cuda._warp_products import WarpTile
from fastconv.cuda._weight_runs import RunNumbers
from fastconv.cuda.im2col import gathered, summed

from .devices import TOLERANCE, computed, error, expected, parsed, tensors_of

SMALL = Tile(32, 32, 8, 1, 1)


class InTiles:
    """An algorithm that takes this tile always."""

    def __init__(self, tile, runs=1, precision=None):
        def make(problem, op, epilogue):
            if op is Op.GRAD_WEIGHT:
                return summed(problem, tile, runs, precision)
            return gathered(Gather(problem, op), epilogue, tile, precision)

        self.plan = planned("tiles", make)


def is_right(tile, problem, op, runs=1):
    tensors = tensors_of(problem)
    result = computed(InTiles(tile, runs), problem, op, tensors)
    return error(result, expected(problem, op, tensors)) < TOLERANCE[problem.dtype] * math.sqrt(problem.terms(op))


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize(("dtype", "tile"), [*(("float32", t) for t in TILES), *(("float64", t) for t in DOUBLE_TILES)])
def test_a_tile_of_every_size_is_summed(dtype, tile, layout):
    # A little more than half a tile along both axes reaches the last pieces of the threads, with tails.
    channels, pixels = tile.columns // 2 + 3, tile.rows // 2 + 5
    problem = parsed(f"x=1x9x{pixels} w={channels}x9x1 layout={layout}", dtype)
    assert is_right(tile, problem, Op.FORWARD)


# Of each kind of access: four source channels at once, or one; four results at once, or one.
ACCESSES = {
    "x=2x5x6x6 w=36x5x2x3 p=1x1": (False, False),
    "x=3x5x6x6 w=35x5x3x3 p=1": (False, True),
    "x=2x12x5x5 w=7x12x3x3 p=1 layout=channels_last": (True, False),
    "x=2x3x5x7 w=36x3x3x2 layout=channels_last": (False, True),
    "x=1x24x7x6 w=24x12x3x3 s=2 p=1 g=2 layout=channels_last": (True, True),
}


@pytest.mark.parametrize("line", ACCESSES)
def test_every_access_is_right_across_tiles(line):
    problem = parsed(line, "float32")
    assert Access.of(Gather(problem, Op.FORWARD))[1:] == ACCESSES[line]
    assert is_right(SMALL, problem, Op.FORWARD)
    assert is_right(SMALL, problem, Op.GRAD_INPUT)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("line", list(ACCESSES)[1:3])
def test_tensors_of_16_bits_are_summed_in_float32(line, dtype):
    assert is_right(SMALL, parsed(line, dtype), Op.FORWARD)


# Source channels copied or by way of registers, both layouts, tails of the last eight and of every tile, two images.
MATRICES = {
    "x=2x11x5x7 w=70x11x1x2 p=0x1": False,
    "x=1x5x5x4 w=11x5x2x1 layout=channels_last": False,
    "x=2x16x4x9 w=16x8x2x2 s=2 p=1 g=2 layout=channels_last": True,
    "x=1x40x8x9 w=40x40x1x1 layout=channels_last": True,
}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("line", MATRICES)
def test_matrices_are_multiplied(line, dtype):
    problem = parsed(line, dtype)
    assert is_copied(Gather(problem, Op.FORWARD)) == MATRICES[line]
    assert is_right(WarpTile(64, 64, 32, 1, 2), problem, Op.FORWARD)
    assert is_right(WarpTile(64, 64, 32, 1, 2), problem, Op.GRAD_INPUT)


@pytest.mark.parametrize("tile", MATRIX_TILES)
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_matrices_of_every_size_are_multiplied(tile, layout):
    channels, pixels = tile.columns // 2 + 4, tile.rows // 2 + 5
    problem = parsed(f"x=1x40x{pixels} w={channels}x40x1 layout={layout}", "bfloat16")
    assert is_right(tile, problem, Op.FORWARD)


# Largest error over the root mean square of the result: what rounding factors to 11 bits makes of it, and no more than
# float32 where three products stand for one.
PRECISIONS = {"tf32": 4e-4, "3xtf32": TOLERANCE["float32"]}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("op", Op)
@pytest.mark.parametrize("line", list(MATRICES)[1:3])
def test_float32_is_multiplied_on_tensor_cores(line, op, precision):
    problem = parsed(line, "float32")
    tensors, algorithm = tensors_of(problem), InTiles(WarpTile(64, 64, 16, 1, 2), precision=precision)
    reached = error(computed(algorithm, problem, op, tensors), expected(problem, op, tensors))
    assert reached < PRECISIONS[precision] * math.sqrt(problem.terms(op))
    assert precision == "3xtf32" or reached > TOLERANCE["float32"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_three_products_keep_a_nan(value):
    problem = parsed("x=1x4x3x3 w=4x4x1x1", "float32")
    tensors = tensors_of(problem)
    tensors["x"][0, 1, 1, 2] = value
    algorithm = InTiles(WarpTile(64, 64, 16, 1, 2), precision="3xtf32")
    result = computed(algorithm, problem, Op.FORWARD, tensors)
    assert np.isnan(result[0, :, 1, 2]).all()
    assert np.isnan(result).sum() == problem.K


def test_three_products_are_not_cut_off():
    # All of one sign, sums that tensor cores cut off would miss 3 * 32 times half a unit in the last place: 6e-6.
    problem = parsed("x=1x256x4 w=4x256x1 layout=channels_last", "float32")
    tensors = {name: np.abs(values) for name, values in tensors_of(problem).items()}
    algorithm = InTiles(WarpTile(64, 64, 16, 1, 2), precision="3xtf32")
    result = computed(algorithm, problem, Op.FORWARD, tensors)
    assert error(result, expected(problem, Op.FORWARD, tensors)) < 1e-6


def test_a_phase_without_taps_is_written():
    assert is_right(SMALL, parsed("x=1x4x7x8 w=5x4x1x1 s=2", "float32"), Op.GRAD_INPUT)


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize(
    ("dtype", "tile"), [*(("float32", t) for t in WEIGHT_TILES), *(("float64", t) for t in DOUBLE_TILES)]
)
def test_w_is_summed_in_a_tile_of_every_size(dtype, tile, layout):
    channels, inputs = tile.columns // 2 + 4, tile.rows // 2 + 4
    problem = parsed(f"x=1x{inputs}x9 w={channels}x{inputs}x1 layout={layout}", dtype)
    assert is_right(tile, problem, Op.GRAD_WEIGHT)


@pytest.mark.parametrize("divisor", [1, 2, 3, 7, 640, 2**16 + 1, 2**30, 2**30 + 1, 2**31 - 1])
def test_a_reciprocal_divides(divisor):
    for dividend in (0, 1, divisor - 1, divisor, 2**31 // divisor * divisor - 1, 2**31 - 2, 2**31 - 1):
        assert quotient_by(dividend, *reciprocal(divisor)) == dividend // divisor


@pytest.mark.parametrize("line", ACCESSES)
def test_runs_of_pixels_are_added_up(line):
    problem = parsed(line, "float32")
    assert RunNumbers.of(problem, SMALL, 3).runs > 1
    assert is_right(SMALL, problem, Op.GRAD_WEIGHT, runs=3)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_w_of_16_bits_is_summed_in_float32(dtype):
    assert is_right(SMALL, parsed("x=2x4x5x5 w=8x4x3x3 layout=channels_last", dtype), Op.GRAD_WEIGHT, runs=2)


# x and y copied or by way of registers: every rank, tails of pieces, of tiles along both axes, of panels and of runs.
WEIGHT_MATRICES = {
    "x=2x11x5x7 w=70x11x1x2 p=0x1": (False, False),
    "x=1x5x5x4 w=11x5x2x1 layout=channels_last": (False, False),
    "x=3x3x7 w=72x3x4 p=2 d=2 layout=channels_last": (False, True),
    "x=1x8x3x3x5 w=9x8x2x2x3 p=1x0x1 layout=channels_last": (True, False),
    "x=2x16x4x9 w=16x8x3x3 s=1x2 p=1 g=2 layout=channels_last": (True, True),
}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("line", WEIGHT_MATRICES)
def test_w_is_summed_in_matrices(line, dtype):
    problem, tile = parsed(line, dtype), WarpTile(64, 64, 32, 2, 2)
    assert copied_lines(Gather(problem, Op.FORWARD)) == WEIGHT_MATRICES[line]
    assert is_right(tile, problem, Op.GRAD_WEIGHT, runs=2)


@pytest.mark.parametrize("tile", WEIGHT_MATRIX_TILES)
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_w_is_summed_in_matrices_of_every_size(tile, layout):
    channels, inputs = tile.columns // 2 + 8, tile.rows // 2 + 8
    problem = parsed(f"x=1x{inputs}x40 w={channels}x{inputs}x1 layout={layout}", "bfloat16")
    assert is_right(tile, problem, Op.GRAD_WEIGHT)
