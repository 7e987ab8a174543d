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
