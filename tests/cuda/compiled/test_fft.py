"""What the kernels of fft take."""

from __future__ import annotations

import pytest

from fastconv.core.algorithm import PLAIN, Epilogue
from fastconv.cuda._fft_planes import correlate_tiles, transform_filters
from fastconv.cuda._fft_weights import sum_spectra, transform_back
from fastconv.cuda.fft import SQUARES
from tests.cuda.budget import Budget, hold

LARGE, SMALL = SQUARES["float32"]
# The twiddles come in accesses of 128 bits: four a thread, in each of four passes. No constant made a float64 of a sum.
SINGLE = {"at_least": (("LDG.E.128", 16),), "never": ("DFMA", "DMUL", "DADD")}
# Four blocks of 256 threads on a multiprocessor of 65536 registers, or three.
FOUR, THREE = Budget(registers=64, **SINGLE), Budget(registers=85, **{**SINGLE, "at_least": (("LDG.E.128", 8),)})
# Four of 128 threads.
SMALL_FOUR = Budget(registers=128, **SINGLE)
DOUBLE = Budget(registers=128, at_least=(("LDG.E.128", 16),))

KERNELS = [
    (correlate_tiles("float32", LARGE, PLAIN), FOUR),
    (correlate_tiles("float32", LARGE, Epilogue("gelu", True)), FOUR),
    (correlate_tiles("bfloat16", SMALL, PLAIN), SMALL_FOUR),
    (correlate_tiles("float64", SMALL, PLAIN), DOUBLE),
    (transform_filters("float32", LARGE, True), THREE),
    (sum_spectra("float32", LARGE), THREE),
    (transform_back("float32", LARGE), THREE),
]


@pytest.mark.parametrize(("kernel", "budget"), KERNELS, ids=repr)
def test_the_kernel_keeps_its_budget(kernel, budget):
    hold(kernel, budget)
