"""What the kernels of winograd take."""

from __future__ import annotations

import pytest

from fastconv.core.algorithm import PLAIN, Epilogue
from fastconv.cuda._winograd_fused import correlate_tiles
from fastconv.cuda._winograd_products import multiply_frequencies
from fastconv.cuda._winograd_transforms import transform_data, transform_filters, transform_sums
from fastconv.cuda._winograd_weights import transform_weight_sums
from fastconv.cuda.winograd import SQUARES
from tests.cuda.budget import Budget, hold

LARGE, FIVE, LINE = SQUARES[3, 3][1], SQUARES[5, 5][0], SQUARES[1, 5][1]
# Four blocks of 128 threads on a multiprocessor of 65536 registers.
TRANSFORM = Budget(registers=128)
# Two for each tensor: the first step's loads and the loop's.
WIDE = (("LDG.E.128", 4), ("LDS.128", 32), ("STG.E.128", 16))
PRODUCTS = Budget(registers=128, at_least=WIDE, main_loop=("FFMA", 0.78))
PRODUCTS_64 = Budget(registers=255, at_least=WIDE, main_loop=("DFMA", 0.75))
# One block of 256 threads, which hold 128 sums each.
FUSED = Budget(registers=255, at_least=(("LDG.E.128", 8), ("LDS.128", 32)), main_loop=("FFMA", 0.72))

KERNELS = [
    *[(transform_filters("float32", square, True, 4), TRANSFORM) for square in (LARGE, SQUARES[1, 3][0])],
    *[(transform_data("float32", LARGE, channels_last), TRANSFORM) for channels_last in (False, True)],
    (transform_data("float32", LARGE, True, True), TRANSFORM),
    (transform_sums("float32", LARGE, False, PLAIN), TRANSFORM),
    *[(transform_weight_sums(dtype, LARGE), TRANSFORM) for dtype in ("float32", "float64")],
    (transform_sums("float32", LARGE, True, Epilogue("gelu", True)), TRANSFORM),
    *[
        (kernel, TRANSFORM)
        for square in (FIVE, LINE)
        for kernel in (
            transform_filters("float32", square, False, 4),
            transform_data("float32", square, False),
            transform_sums("float32", square, True, PLAIN),
            transform_weight_sums("float32", square),
        )
    ],
    (transform_data("float64", LARGE, False), Budget(registers=255)),
    (transform_sums("float64", LARGE, False, PLAIN), Budget(registers=255)),
    *[
        (multiply_frequencies("float32", rows, columns, channels_last), PRODUCTS)
        for rows, columns in ((64, 64), (128, 64), (128, 128))
        for channels_last in (False, True)
    ],
    (multiply_frequencies("float64", 64, 64, False), PRODUCTS_64),
    (correlate_tiles(False, PLAIN), FUSED),
    (correlate_tiles(True, Epilogue("gelu", True)), FUSED),
]


@pytest.mark.parametrize(("kernel", "budget"), KERNELS, ids=repr)
def test_the_kernel_keeps_its_budget(kernel, budget):
    hold(kernel, budget)
