"""The table: fastconv beside cuDNN on well-known shapes at batch 32."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

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
# In the order of what matters: the last are left out where the time is up. cuDNN may use TF32 where fastconv may.
KINDS = {"cpu": ("float32",), "cuda": ("float32", "bfloat16", "tf32")}
LAYOUTS = ("channels_first", "channels_last")


@dataclass(frozen=True)
class Case:
    """One operation of one problem, whose type says in which arithmetic."""

    family: str
    problem: ConvProblem
    op: Op


@dataclass(frozen=True)
class Row:
    """Both times of a case, in seconds and each in the layout that is faster; infinite where nothing came of it."""

    case: Case
    ours: float
    cudnn: float
    algorithm: str
    part_of_roof: float
    failure: str = ""

    @property
    def ratio(self) -> float | None:
        """Time of cuDNN over fastconv's."""
        return self.cudnn / self.ours if max(self.ours, self.cudnn) < math.inf else None


def cases(device: Device) -> Iterator[Case]:
    """All rows that are wanted."""
    for kind in KINDS[device.kind]:
        for family, lines in FAMILIES.items():
            for line in lines:
                problem = ConvProblem.parse(line).replace(dtype=kind)
                for op in Op:
                    yield Case(family, _shrunk(problem) if device.is_rehearsal else problem, op)


def _shrunk(problem: ConvProblem) -> ConvProblem:
    lead, tiny = 3 - problem.rank, (9, 9, 9)
    small = problem.replace(N=1, input=((1,) * lead + tiny)[:3])
    return small if min(small.output) > 0 else ConvProblem.parse("x=1x3x9x9 w=4x3x3x3 p=1")


def measured(device: Device, ceilings: Ceilings, case: Case) -> Row:
    """Both times of one case."""
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = case.problem.dtype == "tf32"
    ours_by_layout, theirs, failures = {}, math.inf, []
    for layout in LAYOUTS:
        problem = case.problem.replace(layout=layout)
        copies = [Tensors.of(device, problem, 3 * seed) for seed in range(device.copies(problem.bytes))]
        out = device.poisoned(problem.result_shape(case.op), problem.dtype)
        calls = [ours(device, problem, case.op, each, out) for each in copies]
        ours_by_layout[layout] = _seconds(device, calls, failures)
        calls = [cudnn(problem, case.op, each) for each in copies]
        theirs = min(theirs, _seconds(device, calls, failures))
    layout, seconds = min(ours_by_layout.items(), key=lambda each: each[1])
    best = Case(case.family, case.problem.replace(layout=layout), case.op)
    where = {} if device.is_rehearsal else {"device": "cuda"}
    algorithm = fastconv.explain(best.problem, op=best.op.value, **where).algorithm
    part = ceilings.part(best.problem.flops, best.problem.bytes, best.problem.dtype, seconds)
    return Row(best, seconds, theirs, algorithm, part, "; ".join(failures))


def _seconds(device: Device, calls: list[Callable[[], Any]], failures: list[str]) -> float:
    """The time of one call; infinite, and a word about it, for calls that fail."""
    try:
        return device.seconds(calls)
    except Exception as failure:  # whatever it is, the other rows are wanted too
        failures.append(f"{type(failure).__name__}: {failure}")
        return math.inf
