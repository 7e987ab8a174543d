"""What the kernels of pooling take; in channels_last they move four channels at once."""

from __future__ import annotations

import pytest

from fastconv.cuda._device import DTYPES, WARP
from fastconv.cuda._pool_indices import put_in_pixels, put_in_planes, take
from fastconv.cuda._pool_max_gradient import find_strays, spread_maxima
from fastconv.cuda._pool_mean_gradient import spread_means
from fastconv.cuda._pool_power import raise_elements
from fastconv.cuda._pool_windows import VECTOR, average, greatest
from tests.cuda.budget import Budget, hold

# Four blocks of 256 threads or more on a multiprocessor of 65536 registers.
FREE = Budget(registers=64)
THREE = Budget(registers=85)  # three such blocks
WIDE = Budget(registers=64, at_least=(("LDG.E.128", 1), ("STG.E.128", 1)))
KERNELS = [
    *[(average("float32", wide, 1), budget) for wide, budget in ((1, FREE), (VECTOR, WIDE))],
    *[(greatest("float32", wide, 1, False), budget) for wide, budget in ((1, FREE), (VECTOR, WIDE))],
    *[(spread_means("float32", wide), budget) for wide, budget in ((1, FREE), (VECTOR, WIDE))],
    *[(greatest(dtype, VECTOR, 1, True), THREE) for dtype in DTYPES],
    *[(average(dtype, VECTOR, 1), FREE) for dtype in ("float64", "bfloat16")],
    *[(average(dtype, 1, WARP), FREE) for dtype in ("float32", "float64")],
    *[(greatest(dtype, 1, WARP, True), FREE) for dtype in ("float64", "float16")],
    (spread_means("float64", VECTOR), THREE),
    *[(spread_maxima("float32", wide), budget) for wide, budget in ((1, FREE), (VECTOR, WIDE))],
    (spread_maxima("float64", VECTOR), THREE),
    (find_strays(), FREE),
    *[(put(dtype, True, True), FREE) for put in (put_in_planes, put_in_pixels) for dtype in ("float64", "float16")],
    (put_in_planes("float32", False, False), Budget(registers=64, at_least=(("LDS.128", 1),))),
    (take("bfloat16"), FREE),
    *[(raise_elements(dtype, None, True), FREE) for dtype in ("float32", "float64")],
    (raise_elements("float16", 2.0, False), FREE),
]


@pytest.mark.parametrize(("kernel", "budget"), KERNELS, ids=[repr(kernel) for kernel, _ in KERNELS])
def test_the_kernel_keeps_its_budget(kernel, budget):
    hold(kernel, budget)
