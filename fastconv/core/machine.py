"""The machine model: what the cost functions divide flops and bytes by."""

from __future__ import annotations

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
    flops
        Single-precision operations per second of one thread that multiplies and adds all the time.
    bandwidth
        Bytes per second between memory and all threads together.
    launch
        Seconds from a call in Python to the first task.
    """

    threads: int
    flops: float
    bandwidth: float
    launch: float

    def seconds(self, flops: float, copying: float, bytes: float, real_bytes: int, tasks: int) -> float:
        """Time of a piece of work: the longer of computing and moving, after the launch.

        Parameters
        ----------
        flops
            Work in single-precision operations at the peak: what an algorithm does, over the part of the peak that
            it reaches.
        copying
            Seconds of one thread that go into gathering and storing.
        bytes
            Traffic with memory.
        real_bytes
            Bytes of a real number; the rate of 8-byte numbers is half of that of 4-byte ones.
        tasks
            Pieces that can run at once; the machine may have fewer threads.
        """
        rate = self.flops * 4 / max(4, real_bytes)
        working = (flops / rate + copying) / max(1, min(self.threads, tasks))
        return self.launch + max(working, bytes / self.bandwidth)


@cache
def local_machine() -> Machine:
    """The machine that this runs on.

    The roofs are those of the 2-core AVX-512 machine of docs/performance.md (117 GFLOP/s a core, copies at
    20 GB/s, 5 us for a launch and its views): algorithms are ranked by the ratios of their prices, which
    change far less from one machine to the next than the prices do.
    """
    return Machine(threads=os.cpu_count() or 1, flops=117e9, bandwidth=20e9, launch=5e-6)
