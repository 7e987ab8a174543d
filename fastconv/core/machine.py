"""The machine model: what the cost functions divide flops and bytes by."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Machine:
    """Roofs of one machine.

    Attributes
    ----------
    threads
        Threads that run together.
    rate
        Vector registers that one thread multiplies and adds to others, per second: its cycles at the peak.
    bandwidth
        Bytes per second between memory and all threads together.
    launch
        Seconds from a call in Python to the first task.
    """

    threads: int
    rate: float
    bandwidth: float
    launch: float

    def seconds(self, cycles: float, tasks: int, bytes: float) -> float:
        """Time of a piece of work: the longer of computing and moving, after the launch.

        Parameters
        ----------
        cycles
            Work of all tasks together, in multiply-adds of a vector register.
        tasks
            Equal pieces that the work comes in; a thread takes whole ones.
        bytes
            Traffic with memory.
        """
        working = cycles / max(1, tasks) * math.ceil(tasks / self.threads) / self.rate
        return self.launch + max(working, bytes / self.bandwidth)


@cache
def local_machine() -> Machine:
    """The machine that this runs on.

    The roofs are those of the 2-core AVX-512 machine of docs/performance.md (117 GFLOP/s a core in vectors of 16,
    copies at 20 GB/s, 5 us for a launch and its views): algorithms are ranked by the ratios of their prices, which
    change far less from one machine to the next than the prices do.
    """
    return Machine(threads=os.cpu_count() or 1, rate=117e9 / 32, bandwidth=20e9, launch=5e-6)


@dataclass(frozen=True)
class Gpu:
    """Roofs of one graphics processor.

    Attributes
    ----------
    flops
        float32 operations per second, a multiply-add counted as two.
    tensor_flops
        The same of the tensor cores for 16-bit tensors.
    bandwidth
        Bytes per second between its memory and its multiprocessors.
    launch
        Seconds from one kernel to the next in a queue.
    """

    flops: float
    tensor_flops: float
    bandwidth: float
    launch: float

    def seconds(self, flops: float, bytes: float, launches: int = 1) -> float:
        """Time of a piece of work: the longer of computing and moving, after the launches.

        Parameters
        ----------
        flops
            Operations, in those of float32.
        bytes
            Traffic with memory.
        launches
            Kernels that follow one another.
        """
        return launches * self.launch + max(flops / self.flops, bytes / self.bandwidth)


def machine_of(device: str) -> Machine | Gpu:
    """What the prices of a device's algorithms are computed for."""
    return local_machine() if device == "cpu" else local_gpu()


@cache
def local_gpu() -> Gpu:
    """The processor that problems are priced for.

    The roofs are those of an H200: 67 TFLOP/s of float32 by its data sheet, 788 TFLOP/s of bfloat16 and 4.3 TB/s of
    copying as measured, 4 us for an empty launch. As on the CPU, prices rank algorithms by their ratios.
    """
    return Gpu(flops=67e12, tensor_flops=788e12, bandwidth=4.3e12, launch=4e-6)
