"""The libraries that convolve: what each one is given, and what it gives back.

A library is one function that takes a `Case` and makes a `Prepared` call, or raises `RefusedError` with the reason.
Tensors are converted before the call, so that only the convolution and the making of its result are timed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.prepared import Prepared
from bench.reference import Tensors, tensors
from fastconv.core.problem import ConvProblem, Op

# Module and function, imported in the process of the library alone.
LIBRARIES = {
    "fastconv": ("bench.peers.fastconv", "prepare"),
    "torch": ("bench.peers.torch", "prepare"),
    "torch_cl": ("bench.peers.torch", "prepare_channels_last"),
    "onnxruntime": ("bench.peers.onnxruntime", "prepare"),
    "opencv": ("bench.peers.opencv", "prepare"),
    "scipy": ("bench.peers.scipy", "prepare"),
}


@dataclass(frozen=True)
class Case:
    """One operation on given tensors; per-axis parameters have one entry for each axis that the problem has."""

    problem: ConvProblem
    op: Op
    tensors: Tensors
    threads: int
    algorithm: str

    @property
    def stride(self) -> tuple[int, ...]:
        """Per axis."""
        return self.problem.stride[3 - self.problem.rank :]

    @property
    def dilation(self) -> tuple[int, ...]:
        """Per axis."""
        return self.problem.dilation[3 - self.problem.rank :]

    @property
    def pads(self) -> tuple[tuple[int, int], ...]:
        """(low, high) per axis."""
        return self.problem.padding[3 - self.problem.rank :]

    @property
    def output(self) -> tuple[int, ...]:
        """Extent of y per axis."""
        return self.problem.output[3 - self.problem.rank :]

    def is_dense(self) -> bool:
        """Whether stride and dilation are 1."""
        return set(self.stride) | set(self.dilation) == {1}

    def is_evenly_padded(self) -> bool:
        """Whether every axis has as much padding before as after."""
        return all(low == high for low, high in self.pads)


def prepare(library: str, details: dict[str, Any], threads: int) -> Prepared:
    """What a library makes of a problem line, the name of an operation, and that of an algorithm of fastconv.

    Raises
    ------
    ModuleNotFoundError
        If the library is not installed.
    """
    module, function = LIBRARIES[library]
    make: Callable[[Case], Prepared] = getattr(importlib.import_module(module), function)
    problem = ConvProblem.parse(details["problem"])
    return make(Case(problem, Op(details["op"]), tensors(problem), threads, details["algorithm"]))
