"""What the kernels of the patch matrix take."""

from __future__ import annotations

import pytest

from fastconv.core.algorithm import PLAIN
from fastconv.cuda._places import add_places
from fastconv.cuda.patches import copy_pixels, copy_taps
from tests.cuda.budget import Budget, hold

# Four blocks of 256 threads or more on a multiprocessor of 65536 registers.
FREE = Budget(registers=64)
KERNELS = [
    make(dtype, *more)
    for make, more in ((copy_taps, ()), (copy_pixels, ()), (add_places, (PLAIN, True)))
    for dtype in ("float32", "float64", "bfloat16")
]


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_the_kernel_keeps_its_budget(kernel):
    hold(kernel, FREE)
