"""The ceilings of the machine, measured: multiply-adds per second and bytes per second, on all threads.

``python -m bench.peak THREADS`` prints them as JSON. They are measured in a process of their own, as every library.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import llvmlite.binding
import numba
import numpy as np

from bench.machine import environment, last_level_cache
from bench.prepared import Array
from bench.problems import DTYPES

# Each element goes through this many multiply-adds between its load and its store: enough to hide both, few
# enough for the processor to work on several vectors at once, which a chain of dependent steps needs. On an Intel Xeon
# with two multipliers 4, 8, 12, 16 and 24 gave 187, 386, 393, 379 and 338 GFLOP/s on two threads, where 24 sums in
# registers gave 402.
_STEPS = 12
# From one thread's row to the next: where a processor fetches what follows, it would take the neighbour's lines, which
# that one writes; there two adjacent rows gave 161 GFLOP/s.
_APART = 2
_ROW_BYTES = 4096  # of one thread; stays in the first-level cache
_REPETITIONS = 10_000
_COPY_BYTES = 256 << 20  # or four times the last-level cache
_RUNS = 60


@dataclass(frozen=True)
class Ceilings:
    """Real operations per second for each type, two for a multiply-add, and bytes read and written per second."""

    flops: dict[str, float]
    bandwidth: float

    def seconds(self, flops: float, bytes: float, dtype: str) -> float:
        """The shortest time in which work can be done that moves each of its bytes once."""
        return max(flops / self.flops[dtype] if flops else 0.0, bytes / self.bandwidth)


@numba.njit(parallel=True, fastmath={"contract"})
def _multiply_add(values: Array, factor: float, summand: float) -> None:
    for thread in numba.prange(values.shape[0]):
        row = values[thread]
        for _ in range(_REPETITIONS):
            for j in range(row.size // _APART):
                value = row[j]
                for _ in range(_STEPS):
                    value = value * factor + summand
                row[j] = value


@numba.njit(parallel=True)
def _copy(source: Array, target: Array) -> None:
    for part in numba.prange(source.shape[0]):
        target[part] = source[part]


def measure(threads: int) -> Ceilings:
    """Measure in this process, which must have started with `tuned` as its environment."""
    numba.set_num_threads(threads)
    return Ceilings({dtype: _flops(threads, dtype) for dtype in DTYPES}, _bandwidth(threads))


def measure_apart(threads: int) -> Ceilings:
    """Measure in a process of its own."""
    command = [sys.executable, "-m", "bench.peak", str(threads)]
    root = Path(__file__).parents[1]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=root, env=_tuned(threads)).stdout
    return Ceilings(**json.loads(output))


def _tuned(threads: int) -> dict[str, str]:
    """An environment in which LLVM uses the widest vectors, which it avoids on some processors that have them."""
    variables = environment(threads)
    if platform.machine() in ("x86_64", "AMD64"):
        variables["NUMBA_CPU_FEATURES"] = llvmlite.binding.get_host_cpu_features().flatten() + ",-prefer-256-bit"
    return variables


def _flops(threads: int, dtype: str) -> float:
    one = np.dtype(dtype).type(1)
    row = _ROW_BYTES // one.itemsize
    values = np.ones((threads, _APART * row), dtype)
    operations = 2 * _STEPS * _REPETITIONS * threads * row
    return operations / _fastest(lambda: _multiply_add(values, one / 2, one / 2))


def _bandwidth(threads: int) -> float:
    size = max(_COPY_BYTES, 4 * last_level_cache())
    source = np.ones((threads, size // threads // 8))
    target = np.empty_like(source)
    return 2 * source.nbytes / _fastest(lambda: _copy(source, target))


def _fastest(call: Callable[[], None]) -> float:
    """Seconds of the fastest call; the first one compiles and touches the memory."""
    times = []
    for _ in range(1 + _RUNS):
        start = perf_counter()
        call()
        times.append(perf_counter() - start)
    return min(times[1:])


if __name__ == "__main__":
    print(json.dumps(asdict(measure(int(sys.argv[1])))))
