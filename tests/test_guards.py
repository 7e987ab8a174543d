"""Memory: kernels read and write nothing but their arrays, whatever the sizes around the edges of tiles."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from fastconv.core.evaluate import evaluate
from fastconv.core.problem import ConvProblem, Op
from fastconv.core.registry import algorithms
from fastconv.cpu import _launch

from .problems import expected, inputs_of, random_tensors, serves

ROOT = pathlib.Path(__file__).parents[1]
ALGORITHMS = [each.name for each in algorithms()]
# Of errors over the largest element, in float32: sums of at most 200 normal products err by about
# 4 * 2**-24 * sqrt(200), or 3e-6, of their root mean square, transforms by less than 1e-5; a single product is
# 1 / sqrt(200) of it.
TOLERANCE = 1e-4
CANARY = 7.5
GUARD = 64

# Sizes at, before and behind the edges of register tiles (8 and 4 rows; 1, 2 and 3 vectors of 8 or 16), of tiles of
# pixels, of lines (1, 2, 4, 7, 8 or 14 at once, runs of 1, 2, 3, 5 and 7 taps), and of pixels left over (4 at most).
EDGES = [
    *[f"x=1x{C}x5x17 w={K}x{C}x3x3 p=1" for C in (1, 3, 8) for K in (1, 2, 3, 4, 5, 7, 8, 9, 12, 17)],
    *[f"x=2x3x4x{W} w=9x3x2x3 p=1" for W in (1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 47, 48, 49, 63, 65)],
    *[f"x=1x3x{H}x{H + 1} w=9x3x3x3 p=1" for H in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 26)],
    *[f"x=1x5x3x{W} w=5x1x3x3 p=1 g=5" for W in (1, 2, 7, 8, 15, 16, 17, 33, 64, 65, 80, 129)],
    *[f"x=1x4x{H}x9 w=4x1x3x3 s=2 p=1 g=4" for H in (1, 2, 3, 8, 9)],
    *[f"x=2x8x3x{W} w=8x1x3x3 p=1 g=8" for W in (1, 2, 15, 16, 17, 33)],
    *[f"x=2x8x{H}x{2 * H + 15} w=8x1x3x3 s=2 p=1 g=8" for H in (1, 2, 3, 8, 9, 17)],
    *[f"x=1x2x1x{W} w=3x2x1x1" for W in (479, 480, 481, 960, 961)],
    *[f"x=1x3x{H}x9 w=3x1x5x2 p=2x0 g=3" for H in (1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 14, 15, 16, 17)],
    *[f"x=1x3x9x{W} w=3x1x{R}x3 p={R // 2}x1 g=3" for R in (1, 2, 4, 6, 8, 9, 12, 15) for W in (7, 33)],
    *[f"x=1x9x1x{W} w={K}x9x1x1" for W in (3, 4, 5, 17, 18, 20, 21, 36) for K in (4, 8, 16)],
    *[f"x=2x9x3x{W} w=8x9x1x1 s={stride}" for W in (16, 17, 31, 33, 65) for stride in (2, 3, "2x1")],
    *[f"x=1x{C}x4x9 w={K}x{C}x1x1" for C in (2, 7, 16, 17, 33) for K in (3, 8, 16, 31)],
    *[f"x=2x3x9x{W} w={K}x3x4x3 s=4" for W in (15, 31, 32, 33, 66) for K in (16, 17, 48)],
    *[f"x=1x17x{H}x{2 * H + 5} w=18x17x3x3 s=2 p=1" for H in (1, 2, 3, 4, 5, 8, 9, 15)],
    *[f"x=1x17x9x{W} w=33x17x{R}x{R} s=2 p={R // 2}" for W in (15, 33, 64) for R in (4, 5, 7)],
    "x=1x2x1600 w=16x2x5 s=3",
    "x=1x8x5x4x9 w=16x8x1x1x1 s=2x3x2",
    "x=1x2x30x520 w=2x1x9x7 p=4x3 g=2",
    "x=1x1x3x4200 w=1x1x3x3 p=1",
    "x=1x8x1 w=8x8x2 s=2 p=1",
    "x=1x8x9x1 w=8x8x3x2 s=2 p=1",
    "x=2x17x7x7 w=18x17x1x1",
    "x=1x20x14x14 w=24x20x3x3 p=1",
    "x=1x6x9x11 w=8x6x3x3 s=2 p=1",
    "x=1x6x10x12 w=10x3x3x3 s=2 p=1 g=2",
    "x=1x3x4x5x6 w=5x3x2x3x2 s=1x2x1 p=1",
    "x=1x8x5x2x16 w=8x8x3x1x1 s=2x1x1 p=1x0x0",
    "x=1x8x4x3x16 w=8x8x2x3x3 s=3x1x1 p=0x1x1",
]
# Padding that is wider than the filter reaches: GRAD_INPUT needs neither the first nor the last outputs.
WIDELY_PADDED = [
    "x=1x8x6 w=31x8x3 p=4",
    "x=1x8x9x7 w=17x8x3x3 p=4x3",
    "x=1x3x6x9 w=3x1x3x3 p=5 g=3",
    "x=1x2x9 w=2x2x1 p=3",
]


def error(problem, op, tensors, result):
    answer = expected(problem, op, tensors)
    return np.abs(result - answer).max() / max(1.0, np.abs(answer).max())


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("line", EDGES)
@pytest.mark.parametrize("op", Op)
def test_sizes_around_the_edges_of_tiles(op, line, layout):
    """Small integers: any wrong product shows in full."""
    problem = ConvProblem.parse(line).replace(layout=layout)
    tensors = random_tensors(problem, 0, small_integers=True)
    for algorithm in ("direct", "im2col"):
        result = evaluate(op, problem, algorithm=algorithm, **inputs_of(op, tensors))
        np.testing.assert_array_equal(result, expected(problem, op, tensors))


def guarded(shape, dtype):
    """An array between two bands of canaries, and a function that tells whether they live."""
    size = int(np.prod(shape))
    memory = np.full(size + 2 * GUARD, CANARY, dtype)
    memory[GUARD : GUARD + size] = np.nan
    bands = memory[:GUARD], memory[GUARD + size :]
    return memory[GUARD : GUARD + size].reshape(shape), lambda: all((band == CANARY).all() for band in bands)


SERVED = [
    (op, line, name)
    for op in Op for line in EDGES[::3] for name in ALGORITHMS if serves(name, ConvProblem.parse(line), op)
]  # fmt: skip


@pytest.mark.parametrize(("op", "line", "algorithm"), SERVED)
def test_nothing_is_written_around_results_and_workspaces(op, line, algorithm, monkeypatch):
    problem = ConvProblem.parse(line)
    tensors = random_tensors(problem, 1)
    alive = []

    def scratch(elements, dtype):
        array, check = guarded((elements,), dtype)
        alive.append(check)
        return array

    for memory in ("on_a_line", "on_large_pages"):
        monkeypatch.setattr(_launch, memory, scratch)
    out, check = guarded(problem.result_shape(op), problem.dtype)
    evaluate(op, problem, algorithm=algorithm, out=out, **inputs_of(op, tensors))
    assert error(problem, op, tensors, out) < TOLERANCE
    assert check()
    assert all(each() for each in alive)


AT_THE_END_OF_A_PAGE = """
import ctypes, mmap
import numpy as np
from fastconv.core.evaluate import evaluate
from fastconv.core.problem import ConvProblem, Op
from tests.problems import inputs_of, random_tensors, serves
from tests.test_guards import EDGES, TOLERANCE, WIDELY_PADDED, error

libc = ctypes.CDLL(None, use_errno=True)
PAGE = mmap.PAGESIZE

def fenced(array, at_the_end):
    "A copy that ends, or begins, where memory that nobody may touch begins or ends."
    pages = -(-array.nbytes // PAGE)
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (0, pages + 1):
        assert libc.mprotect(ctypes.c_void_p(base + page * PAGE), ctypes.c_size_t(PAGE), 0) == 0
    first = PAGE + (pages * PAGE - array.nbytes if at_the_end else 0)
    copy = np.frombuffer(memory, array.dtype, array.size, first).reshape(array.shape)
    copy[...] = array
    return copy

for line in EDGES[::4] + WIDELY_PADDED:
    for layout in ("channels_first", "channels_last"):
        problem = ConvProblem.parse(line).replace(layout=layout)
        tensors = random_tensors(problem, 2)
        for op in Op:
            for algorithm in ("direct", "im2col", "winograd"):
                for at_the_end in (False, True) if serves(algorithm, problem, op) else ():
                    inputs = {name: fenced(each, at_the_end) for name, each in inputs_of(op, tensors).items()}
                    out = fenced(np.zeros(problem.result_shape(op), problem.dtype), at_the_end)
                    evaluate(op, problem, algorithm=algorithm, out=out, **inputs)
                    assert error(problem, op, tensors, out) < TOLERANCE, (line, layout, op, algorithm)
print("done")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="protects pages through the C library's mprotect")
def test_nothing_is_touched_beyond_the_tensors():
    """A read or write past either end of a tensor ends the process."""
    done = subprocess.run(
        [sys.executable, "-c", AT_THE_END_OF_A_PAGE], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr[-2000:]


WITH_BOUNDS_CHECKS = """
from fastconv.core.evaluate import evaluate
from fastconv.core.problem import ConvProblem, Op
from tests.problems import inputs_of, random_tensors, serves
from tests.test_guards import EDGES, TOLERANCE, error

for line in EDGES[::5]:
    for mode in ("zeros", "reflect"):
        problem = ConvProblem.parse(line)
        if mode == "reflect":
            problem = problem.replace(padding_mode=mode)
        tensors = random_tensors(problem, 3)
        for op in Op:
            for algorithm in ("direct", "im2col", "fft", "winograd"):
                if not serves(algorithm, problem, op):
                    continue
                result = evaluate(op, problem, algorithm=algorithm, num_threads=1, **inputs_of(op, tensors))
                assert error(problem, op, tensors, result) < TOLERANCE, (line, mode, op, algorithm)
print("done")
"""


def test_indices_are_within_bounds(tmp_path):
    """Numba checks every index, which it does in serial code only, and prints what a kernel raises."""
    done = subprocess.run(
        [sys.executable, "-c", WITH_BOUNDS_CHECKS],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
