"""The processor that is measured: its tensors and its clock.

A rehearsal runs the same program on the CPU with tiny problems, so that it can be tested where there is no GPU; its
times mean nothing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

Tensor = torch.Tensor

# Calls between two events, and such runs of which the median is taken.
CALLS, RUNS = 5, 9
# Tensors are taken in turns from copies that together are this much larger than the second-level cache.
CACHE_FACTOR = 3


@dataclass(frozen=True)
class Device:
    """Where tensors live.

    Attributes
    ----------
    is_rehearsal
        Whether it is the CPU.
    """

    is_rehearsal: bool

    @property
    def name(self) -> str:
        """As the maker calls it."""
        return "a rehearsal on the CPU" if self.is_rehearsal else torch.cuda.get_device_name()

    @property
    def cache_bytes(self) -> int:
        """Size of the second-level cache."""
        return 1 << 10 if self.is_rehearsal else torch.cuda.get_device_properties(0).L2_cache_size

    def normal(self, shape: tuple[int, ...], dtype: str, seed: int, scale: float = 1.0) -> Tensor:
        """Normally distributed numbers."""
        place = "cpu" if self.is_rehearsal else "cuda"
        generator = torch.Generator(place).manual_seed(seed)
        return (torch.randn(shape, device=place, generator=generator) * scale).to(getattr(torch, dtype))

    def poisoned(self, shape: tuple[int, ...], dtype: str) -> Tensor:
        """Memory for a result, full of NaN."""
        return torch.full(shape, torch.nan, dtype=getattr(torch, dtype), device="cpu" if self.is_rehearsal else "cuda")

    def wait(self) -> None:
        """Until all that was queued is done."""
        if not self.is_rehearsal:
            torch.cuda.synchronize()

    def seconds(self, calls: list[Callable[[], Any]]) -> float:
        """Median time of one call, of several that take turns so that none finds its data in the cache."""
        for call in calls:
            call()
        self.wait()
        return statistics.median(self._run(calls) for _ in range(RUNS)) / (CALLS * len(calls))

    def _run(self, calls: list[Callable[[], Any]]) -> float:
        if self.is_rehearsal:
            start = time.perf_counter()
            self._queue(calls)
            return time.perf_counter() - start
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        self._queue(calls)
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3

    @staticmethod
    def _queue(calls: list[Callable[[], Any]]) -> None:
        for _ in range(CALLS):
            for call in calls:
                call()

    def copies(self, size: int) -> int:
        """How many copies of tensors of so many bytes together are needed to be larger than the cache."""
        return 1 + CACHE_FACTOR * self.cache_bytes // max(size, 1)
