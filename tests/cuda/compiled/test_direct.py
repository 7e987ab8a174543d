"""What the kernels of direct, and of padding, take."""

from __future__ import annotations

import pytest

from fastconv.core.algorithm import PLAIN, Epilogue
from fastconv.cuda._device import DTYPES
from fastconv.cuda._elements import gather_elements, sum_pixels
from fastconv.cuda._padding import pad_images
from fastconv.cuda._places import add_places
from tests.cuda.budget import Budget, hold

# Two blocks of 256 threads or more on a multiprocessor of 65536 registers.
FREE = Budget(registers=128)
KERNELS = [
    *[gather_elements(dtype, PLAIN, False) for dtype in DTYPES],
    *[
        gather_elements("float32", Epilogue(each, True), True)
        for each in ("relu", "gelu", "silu", "sigmoid", "tanh", "leaky_relu")
    ],
    *[sum_pixels(dtype, True) for dtype in DTYPES],
    *[pad_images(dtype) for dtype in DTYPES],
    *[add_places(dtype, PLAIN, False) for dtype in DTYPES],
]


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_the_kernel_keeps_its_budget(kernel):
    hold(kernel, FREE)
