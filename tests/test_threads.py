"""Threads and forks: right answers and no aborts on every threading layer, each in a process of its own."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

PREAMBLE = """
import os, sys, threading, warnings
import numpy as np
import numba
import fastconv
warnings.simplefilter("ignore", DeprecationWarning)  # forking a process that has threads
rng = np.random.default_rng(0)
x, weight = rng.standard_normal((2, 16, 40, 40), np.float32), rng.standard_normal((16, 16, 3, 3), np.float32)
x2, weight2 = rng.standard_normal((1, 1, 300, 300), np.float32), rng.standard_normal((1, 1, 25, 25), np.float32)

def results():
    return [
        fastconv.conv2d(x, weight, algorithm="direct"),
        fastconv.conv2d(x, weight, algorithm="im2col"),
        fastconv.conv2d(x2, weight2, algorithm="fft"),
        fastconv.grad.conv2d_weight(x, weight.shape, x[:, :, 1:-1, 1:-1]),
    ]

def same(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
"""

IN_THREADS = """
alone = results()
right = []
threads = [
    threading.Thread(target=lambda: right.append(all(same(results(), alone) for _ in range(5)))) for _ in range(4)
]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(numba.threading_layer(), right)
"""

AFTER_FORK = """
alone = results()
child = os.fork()
if child == 0:
    right = False
    try:
        right = same(results(), alone)
    finally:
        os._exit(0 if right else 1)
print(numba.threading_layer(), os.waitpid(child, 0)[1], same(results(), alone))
"""

FORK_FIRST = """
child = os.fork()
right = all(same(results(), results()) for _ in range(2))
if child == 0:
    os._exit(0 if right else 1)
print(numba.threading_layer(), os.waitpid(child, 0)[1], right)
"""


NUMBA_FIRST = """
@numba.njit(parallel=True)
def total(values):
    result = 0.0
    for i in numba.prange(len(values)):
        result += values[i]
    return result
total(np.ones(1000))
child = os.fork()
if child == 0:
    os._exit(0 if same(results(), results()) else 1)
print(numba.threading_layer(), os.waitpid(child, 0)[1], True)
"""


def run(code, layer):
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + code],
        capture_output=True,
        text=True,
        cwd=pathlib.Path(__file__).parents[1],
        env={"PATH": "", "NUMBA_THREADING_LAYER": layer, "NUMBA_NUM_THREADS": "2"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


LAYERS = pytest.mark.parametrize("layer", ["workqueue", *(["omp"] if sys.platform.startswith("linux") else [])])
FORKS = pytest.mark.skipif(not hasattr(sys.modules["os"], "fork"), reason="this system cannot fork")


@LAYERS
def test_calls_from_several_threads(layer):
    assert run(IN_THREADS, layer) == f"{layer} [True, True, True, True]"


@LAYERS
@FORKS
def test_a_child_forked_after_a_call(layer):
    assert run(AFTER_FORK, layer) == f"{layer} 0 True"


@LAYERS
@FORKS
def test_a_child_forked_before_the_first_call(layer):
    assert run(FORK_FIRST, layer) == f"{layer} 0 True"


@LAYERS
@FORKS
def test_a_child_forked_after_threads_that_numba_started_elsewhere(layer):
    assert run(NUMBA_FIRST, layer) == f"{layer} 0 True"


def test_numbas_own_number_of_threads_is_obeyed():
    code = """
from fastconv.core.threads import allowed_threads
numba.set_num_threads(1)
print(allowed_threads(None), allowed_threads(2))
numba.set_num_threads(2)
print(allowed_threads(None), allowed_threads(1), allowed_threads(7))
"""
    assert run(code, "workqueue") == "1 1\n2 1 2"
