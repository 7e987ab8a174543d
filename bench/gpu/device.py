"""The processor that is measured: its tensors, its streams and its clock.

A rehearsal runs the same program on the CPU with tiny problems, so that it can be tested where there is no GPU; its
times mean nothing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

Tensor = torch.Tensor

# Passes over all calls between two events, at most and for at most so many seconds, and such runs of which the median
# is taken.
PASSES, SECONDS, RUNS = 5, 0.05, 7
# Tensors are taken in turns from copies that together are this much larger than the second-level cache.
CACHE_FACTOR = 3
# Twice the cycles of the processor in a second: it idles so long that the host has queued all calls before the first
# begins, and what is measured is theirs and not the host's time.
CYCLES = 4e9


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
    def kind(self) -> str:
        """As fastconv calls it."""
        return "cpu" if self.is_rehearsal else "cuda"

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
        generator = torch.Generator(self.kind).manual_seed(seed)
        return (torch.randn(shape, device=self.kind, generator=generator) * scale).to(type_of(dtype))

    def poisoned(self, shape: tuple[int, ...], dtype: str) -> Tensor:
        """Memory for a result, full of NaN."""
        return torch.full(shape, torch.nan, dtype=type_of(dtype), device=self.kind)

    def wait(self) -> None:
        """Until all that was queued is done."""
        if not self.is_rehearsal:
            torch.cuda.synchronize()

    def in_another_stream(self) -> AbstractContextManager[Any]:
        """Context in which PyTorch queues its work, and fastconv that for its tensors, in a stream of its own."""
        return nullcontext() if self.is_rehearsal else torch.cuda.stream(self._other_stream)

    @cached_property
    def _other_stream(self) -> Any:
        return torch.cuda.Stream()

    def seconds(self, calls: list[Callable[[], Any]]) -> float:
        """Median time of one call, of several that take turns so that none finds its data in the cache."""
        _queue(calls, 1)
        self.wait()
        start = time.perf_counter()
        _queue(calls, 1)
        host = time.perf_counter() - start
        self.wait()
        passes = max(1, min(PASSES, int(SECONDS / (time.perf_counter() - start))))
        return statistics.median(self._run(calls, passes, host) for _ in range(RUNS)) / (passes * len(calls))

    def _run(self, calls: list[Callable[[], Any]], passes: int, host: float) -> float:
        if self.is_rehearsal:
            start = time.perf_counter()
            _queue(calls, passes)
            return time.perf_counter() - start
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(int(passes * host * CYCLES))
        begin.record()
        _queue(calls, passes)
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3

    def copies(self, size: int) -> int:
        """How many copies of tensors of so many bytes together are needed to be larger than the cache."""
        return 1 + CACHE_FACTOR * self.cache_bytes // max(size, 1)


def type_of(dtype: str) -> torch.dtype:
    """PyTorch's type for tensors of a problem's."""
    found: torch.dtype = getattr(torch, "float32" if dtype == "tf32" else dtype)
    return found


def _queue(calls: list[Callable[[], Any]], passes: int) -> None:
    for _ in range(passes):
        for call in calls:
            call()
