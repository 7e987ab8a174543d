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

    def seconds(self, flops: float, bytes: float, efficiency: float, real_bytes: int, threads: int) -> float:
        """Time of a piece of work: the longer of computing and moving, after the launch.

        Parameters
        ----------
        flops, bytes
            Work in single-precision operations, traffic in bytes.
        efficiency
            Part of the peak that the algorithm reaches.
        real_bytes
            Bytes of a real number; the rate of 8-byte numbers is half of that of 4-byte ones.
        threads
            Tasks that can run at once; the machine may have fewer threads.
        """
        rate = self.flops * efficiency * max(1, min(self.threads, threads)) * 4 / max(4, real_bytes)
        return self.launch + max(flops / rate, bytes / self.bandwidth)


@cache
def local_machine() -> Machine:
    """The machine that this runs on.

    The roofs are those of the 2-core AVX-512 machine of docs/performance.md (117 GFLOP/s a core, copies at
    20 GB/s, 5 us for a launch and its views): algorithms are ranked by the ratios of their prices, which
    change far less from one machine to the next than the prices do.
    """
    return Machine(threads=os.cpu_count() or 1, flops=117e9, bandwidth=20e9, launch=5e-6)
