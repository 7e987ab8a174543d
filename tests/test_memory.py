"""Memory: workspaces stay bounded whatever the problem."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest
from hypothesis import given

from fastconv.core.arrays import LARGE_PAGE_BYTES, LINE_BYTES, on_large_pages
from fastconv.core.problem import ConvProblem, Op
from fastconv.core.registry import algorithms

from .problems import conv_problems

LARGE = [
    "x=1x1x8192x8192 w=1x1x31x31 p=15",
    "x=1x2048x14x14 w=2048x2048x3x3 p=1",
    "x=1x64x224x224 w=64x64x31x31 p=15",
    "x=1x1x10000000 w=1x1x65536",
    "x=64x3x224x224 w=64x3x7x7 s=2 p=3",
    "x=1x64x56x64x64 w=64x64x3x3x3",
    "x=1x4096x4096 w=4096x1x4095 g=4096",
]
MIB = 1 << 20


@pytest.mark.parametrize("line", LARGE)
@pytest.mark.parametrize("op", Op)
@pytest.mark.parametrize("algorithm", algorithms(), ids=lambda each: each.name)
def test_the_workspace_of_large_problems(algorithm, op, line):
    problem = ConvProblem.parse(line)
    if algorithm.supports(problem, op) is None:
        assert algorithm.workspace(problem, op) <= 64 * MIB


@pytest.mark.parametrize("elements", [1, LARGE_PAGE_BYTES // 8 - 1, LARGE_PAGE_BYTES // 8, LARGE_PAGE_BYTES + 5])
def test_memory_on_large_pages(elements):
    memory = on_large_pages(elements, "float64")
    assert (memory.shape, memory.dtype) == ((elements,), "float64")
    assert memory.ctypes.data % (LARGE_PAGE_BYTES if memory.nbytes >= LARGE_PAGE_BYTES else LINE_BYTES) == 0
    memory[...] = 1
    assert memory.sum() == elements


@given(problem=conv_problems())
def test_im2col_needs_no_more_than_two_blocks(problem):
    im2col = next(each for each in algorithms() if each.name == "im2col")
    for op in Op:
        assert im2col.workspace(problem, op) <= 2 * 256 * 1024


def test_a_large_image_through_the_transform():
    """8192 x 8192 pixels, a 31 x 31 filter: at most 512 MiB beyond input and output."""
    code = """
import resource
import numpy as np, fastconv
weight = np.ones((1, 1, 31, 31), np.float32)
fastconv.conv2d(np.ones((1, 1, 64, 64), np.float32), weight, algorithm="fft")
x, out = np.ones((1, 1, 8192, 8192), np.float32), np.zeros((1, 1, 8192, 8192), np.float32)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
fastconv.conv2d(x, weight, padding=15, algorithm="fft", out=out)
assert abs(out[0, 0, 4000, 4000] - 961) < 0.01
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=pathlib.Path(__file__).parents[1]
    )
    assert int(done.stdout) * 1024 <= 512 * MIB
