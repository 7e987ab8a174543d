"""What the kernels for filters of one channel take, and that they spend it on products."""

from __future__ import annotations

import pytest

from fastconv.core.algorithm import PLAIN, Epilogue
from fastconv.cuda._depthwise import gather_pixels, gather_planes
from fastconv.cuda._depthwise_weight import add_splits, correlate_pixels, correlate_planes
from fastconv.cuda._windows import Along
from tests.cuda.budget import Budget, hold

THREE, SEVEN = Along(3, 1, 1, 1, 0), Along(7, 1, 1, 1, 0)
MANY = 500
STRIDED, SPREAD, SPREAD_SEVEN = Along(3, 2, 1, 1, 0), Along(3, 1, 2, 1, 1), Along(7, 1, 2, 1, 1)


def planes(along, rows, columns, registers, windows, products, dtype="float32"):
    """Windows are read by 128 bits, and results staged so; most of the loop are products where there are many."""
    wide = (("LDS.128", windows), ("STS.128", rows * columns // 4), ("FFMA", products))
    wide += (("LDGSTS", 2),) if dtype == "float32" else ()
    main_loop = ("FFMA", 0.5) if products > MANY else None
    return gather_planes(dtype, PLAIN, along, along, rows, columns), Budget(registers, wide, main_loop=main_loop)


# Registers for as many blocks of 128 threads as `resident` asks for.
KERNELS = [
    planes(THREE, 4, 4, 80, 6, 9 * 16),
    planes(SEVEN, 4, 4, 168, 20, 49 * 16),
    planes(STRIDED, 2, 4, 80, 10, 9 * 8),
    planes(SPREAD, 4, 8, 96, 3, 9 * 8),
    planes(SPREAD_SEVEN, 4, 8, 168, 10, 49 * 8),
    planes(THREE, 4, 4, 80, 6, 9 * 16, "float16"),
    (gather_planes("float64", PLAIN, SEVEN, SEVEN, 4, 4), Budget(255, (("DFMA", 49 * 16), ("LDS.128", 40)))),
    (gather_planes("bfloat16", Epilogue("gelu", True), THREE, THREE, 4, 4), Budget(80, (("LDS.128", 6),))),
    (gather_pixels("float32", PLAIN, THREE, THREE, 4, 4), Budget(96, (("FFMA", 9 * 16),))),
    (gather_pixels("float32", PLAIN, SEVEN, SEVEN, 4, 4), Budget(255, (("FFMA", 49 * 16),))),
    (gather_pixels("float32", PLAIN, SPREAD, SPREAD, 4, 8), Budget(128, (("FFMA", 9 * 8),))),
    (gather_pixels("float64", PLAIN, THREE, THREE, 4, 4), Budget(168, (("DFMA", 9 * 16),))),
    (correlate_planes("float32", THREE, THREE, 4, 4), Budget(80, (("LDS.128", 6), ("FFMA", 9 * 16)))),
    (correlate_planes("float32", SEVEN, SEVEN, 4, 4), Budget(168, (("LDS.128", 20), ("FFMA", 49 * 16)))),
    (correlate_planes("float64", SEVEN, SEVEN, 4, 4), Budget(255, (("DFMA", 49 * 16),))),
    (correlate_pixels("float32", THREE, THREE, 4, 4), Budget(96, (("FFMA", 9 * 16),))),
    (correlate_pixels("float32", SEVEN, SEVEN, 4, 4), Budget(255, (("FFMA", 49 * 16),))),
    (add_splits("bfloat16"), Budget(40)),
]


@pytest.mark.parametrize(("kernel", "budget"), KERNELS, ids=[repr(kernel) for kernel, _ in KERNELS])
def test_the_kernel_keeps_its_budget(kernel, budget):
    hold(kernel, budget)
