"""The libraries: what each one is given, and what it gives back.

A library is one function that takes a `Case` and makes a `Prepared` call, or raises `RefusedError` with the reason.
Tensors are converted before the call, so that only the convolution and the making of its result are timed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.reference import Array, Tensors
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


class RefusedError(Exception):
    """The library has no way to do this; the message is the reason."""


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


@dataclass(frozen=True)
class Prepared:
    """A call that computes the result, how to read the result, and which way it is computed."""

    call: Callable[[], Any]
    to_array: Callable[[Any], Array] = np.asarray
    note: str = ""


Prepare = Callable[[Case], Prepared]


def load(name: str) -> Prepare:
    """Import a library.

    Raises
    ------
    ModuleNotFoundError
        If it is not installed.
    """
    module, function = LIBRARIES[name]
    prepare: Prepare = getattr(importlib.import_module(module), function)
    return prepare


def only(allowed: bool, reason: str) -> None:
    """Refuse what is not allowed.

    Raises
    ------
    RefusedError
        With this reason.
    """
    if not allowed:
        raise RefusedError(reason)
