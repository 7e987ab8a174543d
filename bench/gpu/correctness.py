"""Every algorithm, operation, type and layout against float64, on random data, into memory full of NaN.

Each is computed twice, in two streams, and has to come out the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from bench.gpu.calls import Tensors, ours, reference
from bench.gpu.device import Device, Tensor
from fastconv.core.algorithm import Algorithm
from fastconv.core.problem import ConvProblem, Op
from fastconv.core.registry import algorithms
from fastconv.core.selector import computed_by

DTYPES = {"cpu": ("float32", "float64"), "cuda": ("float32", "float64", "float16", "bfloat16", "tf32")}
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
TOLERANCE = {"float32": 1e-4, "float64": 1e-12, "float16": 1e-2, "bfloat16": 8e-2, "tf32": 5e-3}


@dataclass(frozen=True)
class Check:
    """One result: its error over what is allowed, or why there is none.

    Attributes
    ----------
    what
        Was computed.
    error
        Largest error over the root mean square of the result.
    tolerance
        What is allowed.
    failure
        What was raised in place of a result, or nothing.
    """

    what: str
    error: float
    tolerance: float
    failure: str = ""

    @property
    def is_right(self) -> bool:
        """Whether the error is in the tolerance; that of what failed is infinite."""
        return self.error <= self.tolerance


def problems(device: Device) -> Iterator[ConvProblem]:
    """All problems, types and layouts."""
    for line in LINES:
        for dtype in DTYPES[device.kind]:
            for layout in ("channels_first", "channels_last"):
                yield ConvProblem.parse(line).replace(dtype=dtype, layout=layout)


def serving(device: Device, problem: ConvProblem, op: Op) -> Iterator[Algorithm]:
    """The algorithms that compute an operation; for TF32 those alone that would not compute the same for float32."""
    for algorithm in algorithms(device.kind):
        is_asked = problem.dtype != "tf32" or algorithm.rounds
        if is_asked and algorithm.supports(computed_by(algorithm, problem), op) is None:
            yield algorithm


def checks(device: Device, problem: ConvProblem) -> Iterator[Check]:
    """Every algorithm and operation on one problem."""
    tensors = Tensors.of(device, problem)
    for op in Op:
        right = reference(problem, op, tensors)
        for algorithm in serving(device, problem, op):
            what, tolerance = f"{algorithm.name} {op.value} of {problem}", TOLERANCE[problem.dtype]
            try:
                error = _error(device, problem, op, tensors, right, algorithm.name)
                yield Check(what, error, tolerance)
            except Exception as failure:  # whatever it is, the other results are wanted too
                yield Check(what, float("inf"), tolerance, f"{type(failure).__name__}: {failure}")


def _error(device: Device, problem: ConvProblem, op: Op, tensors: Tensors, right: Tensor, algorithm: str) -> float:
    first, second = (device.poisoned(tuple(right.shape), problem.dtype) for _ in range(2))
    ours(device, problem, op, tensors, first, algorithm)()
    device.wait()
    with device.in_another_stream():
        ours(device, problem, op, tensors, second, algorithm)()
    device.wait()
    off = (first.double() - right).abs().max() / right.square().mean().sqrt()
    error = float(off.nan_to_num(nan=float("inf")))
    if not torch.equal(first.nan_to_num(), second.nan_to_num()):
        raise ArithmeticError(f"another stream gave other bits, this one an error of {error}")
    return error
