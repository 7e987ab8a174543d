"""What the kernels of im2col take: their main loops multiply, and their accesses are wide where shapes allow it."""

from __future__ import annotations

import pytest

from fastconv.core.algorithm import PLAIN, Epilogue
from fastconv.cuda._device import COMPUTED_AS
from fastconv.cuda._gather_tiles import Access, gather_tiles
from fastconv.cuda._gemm import MANY_REGISTERS, REGISTERS, Tile
from fastconv.cuda._weight_form import fill_form
from fastconv.cuda._weight_tiles import add_runs, sum_runs
from fastconv.cuda.im2col import DOUBLE_TILES, TILES, WEIGHT_TILES
from tests.cuda.budget import Budget, every_capability, hold

LARGE = Tile(128, 128, 8, 2, 2)
FIRST, LAST = Access("channels_first", False, True), Access("channels_last", True, True)
NARROW = [Access("channels_first", False, False), Access("channels_last", False, False)]


def wide(share, instruction="FFMA", loads=1, registers=REGISTERS):
    accesses = (("LDG.E.128", loads), ("LDS.128", 8), ("STG.E.128", 1))
    return Budget(registers, accesses, main_loop=(instruction, share))


KERNELS = {
    **{gather_tiles("float32", PLAIN, tile, FIRST): wide(share) for tile, share in TILES.items()},
    **{
        gather_tiles("float64", PLAIN, tile, LAST): wide(share, "DFMA", 4, MANY_REGISTERS)
        for tile, share in DOUBLE_TILES.items()
    },
    gather_tiles("float32", PLAIN, LARGE, LAST): wide(0.70, loads=2),
    **{gather_tiles("float32", PLAIN, LARGE, each): Budget(REGISTERS, main_loop=("FFMA", 0.7)) for each in NARROW},
    gather_tiles("float32", Epilogue("gelu", True), LARGE, LAST): wide(0.70, loads=2),
    **{
        gather_tiles(dtype, PLAIN, LARGE, LAST): Budget(REGISTERS, (("LDG.E.64", 2), ("STG.E.64", 1)))
        for dtype in ("float16", "bfloat16")
    },
    **{
        sum_runs("float32", tile, False, False): wide(share, loads=0, registers=MANY_REGISTERS)
        for tile, share in WEIGHT_TILES.items()
    },
    sum_runs("float32", LARGE, True, True): wide(0.70, loads=2),
    sum_runs("bfloat16", LARGE, True, True): Budget(REGISTERS, (("LDG.E.64", 2),), main_loop=("FFMA", 0.65)),
    sum_runs("float64", Tile(64, 64, 8, 1, 2), True, True): wide(0.5, "DFMA", 4, MANY_REGISTERS),
    **{fill_form(dtype): Budget(32) for dtype in COMPUTED_AS},
    **{add_runs(dtype): Budget(32) for dtype in COMPUTED_AS},
}


@every_capability
@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_the_kernel_keeps_its_budget(kernel, capability):
    hold(kernel, KERNELS[kernel], capability)
