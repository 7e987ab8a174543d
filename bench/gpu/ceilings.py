"""What the device can do, measured: float32 multiply-adds, products on tensor cores, and copying."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bench.gpu.device import Device

_SIZE = {False: 8192, True: 64}  # of the matrices
_COPY_BYTES = {False: 2 << 30, True: 1 << 16}


@dataclass(frozen=True)
class Ceilings:
    """Operations per second by type, a multiply-add counted as two, and bytes read and written per second."""

    flops: dict[str, float]
    bandwidth: float

    def part(self, flops: float, bytes: float, dtype: str, seconds: float) -> float:
        """The share of the roof that a time reaches."""
        return max(flops / self.flops[dtype], bytes / self.bandwidth) / seconds


def measure(device: Device) -> Ceilings:
    """Matrix products of the device's own library stand for the arithmetic, a copy of a tensor for the memory."""
    size = _SIZE[device.is_rehearsal]
    flops = {}
    for name, dtype, allows_tf32 in (
        ("float32", "float32", False),
        ("tf32", "float32", True),
        ("bfloat16", "bfloat16", False),
        ("float16", "float16", False),
    ):
        torch.backends.cuda.matmul.allow_tf32 = allows_tf32
        a, b = device.normal((size, size), dtype, 0), device.normal((size, size), dtype, 1)
        flops[name] = 2 * size**3 / device.seconds([lambda a=a, b=b: torch.mm(a, b)])  # type: ignore[misc]
    torch.backends.cuda.matmul.allow_tf32 = False
    source = device.normal((_COPY_BYTES[device.is_rehearsal] // 4,), "float32", 0)
    target = torch.empty_like(source)
    return Ceilings(flops, 2 * source.nbytes / device.seconds([lambda: target.copy_(source)]))
