"""What the kernel for few channels takes, and that it spends it on products."""

from __future__ import annotations

import pytest

from fastconv.core.algorithm import PLAIN
from fastconv.cuda._few_channels import gather_channels
from fastconv.cuda._windows import Along
from tests.cuda.budget import Budget, hold


def channels(along, is_last, rows, columns, count, products, share):
    """64 sums in registers; windows and taps come by 128 bits."""
    kernel = gather_channels("float32", PLAIN, is_last, along, along, rows, columns, count)
    wide = (("LDS.128", products // 64), ("STS.128", 16), ("FFMA", products), ("LDGSTS", 2))
    return kernel, Budget(168, wide, main_loop=("FFMA", share))


KERNELS = [
    channels(Along(3, 1, 1, 1, 0), False, 1, 4, 16, 9 * 64, 0.4),
    channels(Along(7, 2, 1, 1, 0), True, 1, 4, 16, 49 * 64, 0.7),
    channels(Along(3, 1, 1, 1, 0), False, 4, 4, 4, 9 * 64, 0.4),
    channels(Along(3, 1, 2, 1, 1), False, 2, 8, 4, 9 * 16, 0.15),
]


@pytest.mark.parametrize(("kernel", "budget"), KERNELS, ids=[repr(kernel) for kernel, _ in KERNELS])
def test_the_kernel_keeps_its_budget(kernel, budget):
    hold(kernel, budget)
