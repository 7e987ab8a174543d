"""The pause between two rounds, in which no library runs: whatever the processor does then, others make it do."""

from __future__ import annotations

import os
import time
from pathlib import Path

SECONDS = 0.02
_STATISTICS = Path("/proc/stat")


class Rest:
    """Pauses, and how busy the processor was in all of them together."""

    def __init__(self) -> None:
        self._idle = 0.0
        self._elapsed = 0.0

    def pause(self) -> None:
        """Wait, and watch."""
        idle, start = _idle_seconds(), time.perf_counter()
        time.sleep(SECONDS)
        self._idle += _idle_seconds() - idle
        self._elapsed += time.perf_counter() - start

    @property
    def disturbance(self) -> float | None:
        """Part of the processor's time that other processes took, or None where the system does not tell."""
        if not self._elapsed or not _STATISTICS.exists():
            return None
        return max(0.0, 1 - self._idle / (self._elapsed * (os.cpu_count() or 1)))


def _idle_seconds() -> float:
    """Seconds since the start of the system in which a core had nothing to do, over all cores."""
    if not _STATISTICS.exists():
        return 0.0
    with _STATISTICS.open(encoding="ascii") as statistics:
        idle, waiting = statistics.readline().split()[4:6]
    return (int(idle) + int(waiting)) / os.sysconf("SC_CLK_TCK")
