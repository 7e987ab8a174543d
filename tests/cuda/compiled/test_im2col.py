"""What the kernels of im2col take: their main loops multiply, and their accesses are wide where shapes allow it."""

from __future__ import annotations

import pytest

from fastconv.core.algorithm import PLAIN, Epilogue
from fastconv.cuda._device import COMPUTED_AS
from fastconv.cuda._gather_tiles import Access, gather_tiles
from fastconv.cuda._gemm import MANY_REGISTERS, REGISTERS, Tile
from fastconv.cuda._tensor_cores import gather_matrices
from fastconv.cuda._tensor_weights import sum_matrices
from fastconv.cuda._tiles import DOUBLE_TILES, MATRIX_TILES, TILES, WEIGHT_MATRIX_TILES, WEIGHT_TILES
from fastconv.cuda._warp_products import WarpTile
from fastconv.cuda._weight_form import fill_form
from fastconv.cuda._weight_runs import add_runs
from fastconv.cuda._weight_tiles import sum_runs
from tests.cuda.budget import Budget, hold

LARGE = Tile(128, 128, 8, 2, 2)
HALVES, WORDS = WarpTile(128, 128, 32, 2, 4), WarpTile(128, 128, 16, 2, 4)
ALL_REGISTERS = 255  # of one block of 256 threads
SMALL = WarpTile(64, 64, 32, 2, 2)
FIRST, LAST = Access("channels_first", False, True), Access("channels_last", True, True)
NARROW = Access("channels_first", False, False)


def wide(share, instruction="FFMA", loads=1, registers=MANY_REGISTERS):
    accesses = (("LDG.E.128", loads), ("LDS.128", 8), ("STG.E.128", 1))
    return Budget(registers, accesses, main_loop=(instruction, share))


def on_tensor_cores(share, copies, registers=REGISTERS):
    pipeline = (("LDGSTS.E.BYPASS.128", copies), ("LDSM.16.M88.4", 8))
    return Budget(registers, pipeline, main_loop=("HMMA", share))


def summing(share, copies, registers=REGISTERS, matrices=8):
    pipeline = (("LDGSTS.E.BYPASS.128", copies), ("LDSM.16.MT88.4", matrices), ("STG.E.128", 4))
    return Budget(registers, pipeline, main_loop=("HMMA", share))


# Of each tile of GRAD_WEIGHT the share of products in the main loop, and the copies there.
SUMMED = dict(zip(WEIGHT_MATRIX_TILES, ((0.17, 4), (0.075, 3), (0.09, 4)), strict=True))
KERNELS = {
    **{gather_tiles("float32", PLAIN, tile, FIRST): wide(share) for tile, share in TILES.items()},
    **{gather_tiles("float64", PLAIN, tile, LAST): wide(share, "DFMA", 4) for tile, share in DOUBLE_TILES.items()},
    gather_tiles("float32", Epilogue("gelu", True), LARGE, LAST): wide(0.82, "FFMA", 2, REGISTERS),
    gather_tiles("float32", PLAIN, LARGE, NARROW): Budget(REGISTERS, main_loop=("FFMA", 0.8)),
    gather_tiles("float16", PLAIN, LARGE, LAST): Budget(REGISTERS, (("LDG.E.64", 2), ("STG.E.64", 1))),
    **{sum_runs("float32", tile, False, False): wide(share, loads=0) for tile, share in WEIGHT_TILES.items()},
    sum_runs("float32", LARGE, True, True): wide(0.78, "FFMA", 2, REGISTERS),
    sum_runs("float64", Tile(64, 64, 8, 1, 2), True, True): wide(0.5, "DFMA", 4),
    **{gather_matrices("bfloat16", PLAIN, tile, LAST, True): on_tensor_cores(0.22, 4) for tile in MATRIX_TILES},
    gather_matrices("float16", PLAIN, HALVES, NARROW, False): on_tensor_cores(0.1, 2),
    gather_matrices("tf32", PLAIN, WORDS, LAST, True): on_tensor_cores(0.12, 4),
    gather_matrices("3xtf32", PLAIN, WORDS, LAST, True): on_tensor_cores(0.18, 4, ALL_REGISTERS),
    gather_matrices("3xtf32", PLAIN, WORDS, NARROW, False): on_tensor_cores(0.15, 2, ALL_REGISTERS),
    **{
        sum_matrices("bfloat16", tile, "channels_last", True, True): summing(share, copies)
        for tile, (share, copies) in SUMMED.items()
    },
    sum_matrices("float16", HALVES, "channels_first", False, False): summing(0.075, 0),
    sum_matrices("float16", SMALL, "channels_first", False, False): summing(0.045, 0),
    sum_matrices("bfloat16", HALVES, "channels_last", False, True): summing(0.08, 2),
    sum_matrices("tf32", WORDS, "channels_last", True, True): summing(0.085, 4, matrices=0),
    sum_matrices("3xtf32", WORDS, "channels_last", True, True): summing(0.16, 4, ALL_REGISTERS, matrices=0),
    **{fill_form(dtype): Budget(32) for dtype in COMPUTED_AS},
    **{add_runs(dtype): Budget(40) for dtype in COMPUTED_AS},
}


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_the_kernel_keeps_its_budget(kernel):
    hold(kernel, KERNELS[kernel])
