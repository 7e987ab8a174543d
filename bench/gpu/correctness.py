"""Every algorithm, operation, type and layout against float64, on random data, into memory full of NaN."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import fastconv
from bench.gpu.calls import Tensors, ours, reference
from bench.gpu.device import Device
from fastconv.core.problem import ConvProblem, Op
from fastconv.core.registry import algorithms

DTYPES = {False: ("float32", "float64", "float16", "bfloat16"), True: ("float32", "float64")}
# Sizes that fill tiles of every kernel and leave tails; filters of every family; every rank.
LINES = (
    "x=3x40x33x47 w=72x40x3x3 p=1",
    "x=3x64x30x30 w=64x64x3x3 s=2 p=1",
    "x=2x33x19x21 w=65x33x1x1",
    "x=2x64x28x28 w=128x64x1x1 s=2",
    "x=4x3x65x63 w=64x3x7x7 s=2 p=3",
    "x=2x32x56x56 w=32x1x3x3 p=1 g=32",
    "x=2x32x57x55 w=32x1x3x3 s=2 p=1 g=32",
    "x=2x24x40x40 w=24x1x7x7 p=3 g=24",
    "x=2x8x64x64 w=8x1x31x31 p=15 g=8",
    "x=2x16x32x32 w=24x16x5x5 p=2",
    "x=2x48x20x24 w=36x16x3x3 p=2 d=2 g=3",
    "x=2x16x500 w=24x16x9 p=4",
    "x=1x16x10x18x20 w=24x16x3x3x3 p=1",
    "x=1x16x11x17x19 w=32x8x2x3x3 s=2x1x2 p=1 g=2",
)
# Largest error over the root mean square of the result.
TOLERANCE = {"float32": 1e-4, "float64": 1e-12, "float16": 1e-2, "bfloat16": 8e-2}


@dataclass(frozen=True)
class Check:
    """One result: its error, or the reason for which there is none."""

    problem: ConvProblem
    op: Op
    algorithm: str
    error: float | None
    reason: str = ""

    @property
    def is_right(self) -> bool:
        """Whether the error is in the type's tolerance; a refusal with a reason is no fault."""
        if self.error is None:
            return not self.reason.startswith("FAILED")
        return self.error <= TOLERANCE[self.problem.dtype]


def problems(device: Device) -> Iterator[ConvProblem]:
    """All problems, types and layouts."""
    for line in LINES:
        for dtype in DTYPES[device.is_rehearsal]:
            for layout in ("channels_first", "channels_last"):
                yield ConvProblem.parse(line).replace(dtype=dtype, layout=layout)


def checks(device: Device, problem: ConvProblem) -> Iterator[Check]:
    """Every algorithm and operation on one problem."""
    tensors = Tensors.of(device, problem)
    for op in Op:
        right = reference(problem, op, tensors)
        for algorithm in algorithms("cpu" if device.is_rehearsal else "cuda"):
            reason = algorithm.supports(problem, op)
            if reason is not None:
                yield Check(problem, op, algorithm.name, None, reason)
                continue
            out = device.poisoned(tuple(right.shape), problem.dtype)
            try:
                ours(device, problem, op, tensors, out, algorithm.name)()
            except (fastconv.UnsupportedError, ValueError, RuntimeError) as failure:
                yield Check(problem, op, algorithm.name, None, f"FAILED: {failure}")
                continue
            off = (out.double() - right).abs().max() / right.square().mean().sqrt()
            yield Check(problem, op, algorithm.name, float(off.nan_to_num(nan=float("inf"))))
