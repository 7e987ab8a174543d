"""The table: fastconv beside cuDNN on well-known shapes at batch 32."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

import fastconv
from bench.gpu.calls import Tensors, cudnn, ours
from bench.gpu.ceilings import Ceilings
from bench.gpu.device import Device
from fastconv.core.problem import ConvProblem, Op

# Each family's lines; those of a rehearsal are shrunk.
FAMILIES = {
    "resnet": (
        "x=32x3x224x224 w=64x3x7x7 s=2 p=3",
        "x=32x64x56x56 w=64x64x3x3 p=1",
        "x=32x128x28x28 w=128x128x3x3 p=1",
        "x=32x256x14x14 w=256x256x3x3 p=1",
        "x=32x512x7x7 w=512x512x3x3 p=1",
        "x=32x128x56x56 w=128x128x3x3 s=2 p=1",
        "x=32x64x56x56 w=256x64x1x1",
        "x=32x256x56x56 w=512x256x1x1 s=2",
        "x=32x1024x14x14 w=256x1024x1x1",
    ),
    "vgg": (
        "x=32x64x112x112 w=128x64x3x3 p=1",
        "x=32x256x56x56 w=256x256x3x3 p=1",
        "x=32x512x28x28 w=512x512x3x3 p=1",
    ),
    "depthwise": (
        "x=32x96x112x112 w=96x1x3x3 p=1 g=96",
        "x=32x144x56x56 w=144x1x3x3 s=2 p=1 g=144",
        "x=32x96x56x56 w=96x1x7x7 p=3 g=96",
        "x=32x384x14x14 w=384x1x7x7 p=3 g=384",
        "x=32x128x56x56 w=128x1x31x31 p=15 g=128",
    ),
    "large": (
        "x=32x64x28x28 w=64x64x5x5 p=2",
        "x=32x64x56x56 w=64x64x7x7 p=3",
        "x=32x64x56x56 w=64x64x11x11 p=5",
    ),
    "3d": ("x=4x64x16x56x56 w=64x64x3x3x3 p=1",),
}
# What is computed, in which type, and whether cuDNN may use TF32 for it.
KINDS = {"float32": ("float32", False), "tf32": ("float32", True), "bfloat16": ("bfloat16", False)}


@dataclass(frozen=True)
class Row:
    """One operation of one problem in one kind of arithmetic; times in seconds."""

    family: str
    problem: ConvProblem
    op: Op
    kind: str
    ours: float | None
    cudnn: float
    algorithm: str
    part_of_roof: float | None
    reason: str = ""

    @property
    def ratio(self) -> float | None:
        """Time of cuDNN over fastconv's."""
        return None if self.ours is None else self.cudnn / self.ours


def cases(device: Device) -> Iterator[tuple[str, ConvProblem, Op, str]]:
    """Family, problem, operation and kind of every row."""
    for family, lines in FAMILIES.items():
        for line in lines:
            problem = ConvProblem.parse(line)
            if device.is_rehearsal:
                lead, tiny = 3 - problem.rank, (1, 1, 9, 9)
                problem = problem.replace(N=1, input=(*(1,) * lead, *tiny[4 - problem.rank :]))
                problem = problem if min(problem.output) > 0 else ConvProblem.parse("x=1x3x9x9 w=4x3x3x3 p=1")
            for kind, (dtype, _) in KINDS.items():
                if not (device.is_rehearsal and dtype == "bfloat16"):
                    for op in Op:
                        yield family, problem.replace(dtype=dtype), op, kind


def measured(device: Device, ceilings: Ceilings, case: tuple[str, ConvProblem, Op, str]) -> Row:
    """Both times of one row, in the layout that is faster for each."""
    family, problem, op, kind = case
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = KINDS[kind][1]
    size = problem.bytes
    theirs, times, reason = math.inf, {}, ""
    for layout in ("channels_first", "channels_last"):
        laid_out = problem.replace(layout=layout)
        copies = [Tensors.of(device, laid_out, 3 * seed) for seed in range(device.copies(size))]
        theirs = min(theirs, device.seconds([cudnn(laid_out, op, each) for each in copies]))
        out = device.poisoned(laid_out.result_shape(op), problem.dtype)
        try:
            calls = [ours(device, laid_out, op, each, out) for each in copies]
            times[layout] = device.seconds(calls)
        except (fastconv.UnsupportedError, ValueError) as refused:
            reason = str(refused)
    if not times:
        return Row(family, problem, op, kind, None, theirs, "", None, reason)
    layout = min(times, key=lambda each: times[each])
    best = problem.replace(layout=layout)
    taken = fastconv.explain(best, op=op.value, **({} if device.is_rehearsal else {"device": "cuda"})).algorithm
    part = ceilings.part(problem.flops, size, kind, times[layout])
    return Row(family, best, op, kind, times[layout], theirs, taken, part)
