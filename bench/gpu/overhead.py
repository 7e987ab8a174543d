"""What a call costs the host: a prepared convolution of almost nothing, queued again and again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

import fastconv
from bench.gpu.calls import plain
from bench.gpu.device import Device

CALLS = 500


def launch_seconds(device: Device) -> dict[str, float]:
    """Host seconds of one call, by name."""
    x, w = device.normal((1, 1, 8, 8), "float32", 0), device.normal((1, 1, 3, 3), "float32", 1)
    out = device.poisoned((1, 1, 6, 6), "float32")
    ours_x, ours_w, ours_out = map(plain, (x, w, out))
    prepared = fastconv.prepare(ours_w)
    return {
        "prepared": _of(device, lambda: prepared(ours_x, out=ours_out)),
        "conv2d": _of(device, lambda: fastconv.conv2d(ours_x, ours_w, out=ours_out)),
        "torch.conv2d": _of(device, lambda: torch.conv2d(x, w)),
    }


def _of(device: Device, call: Callable[[], Any]) -> float:
    for _ in range(20):
        call()
    device.wait()
    start = time.perf_counter()
    for _ in range(CALLS):
        call()
    seconds = (time.perf_counter() - start) / CALLS
    device.wait()
    return seconds
