"""The algorithms there are, by device. Adding one is a module and a line here."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

from .algorithm import Algorithm, PatchRun
from .problem import ConvProblem, Op

_MODULES = {
    "cuda": ("fastconv.cuda.direct", "fastconv.cuda.im2col", "fastconv.cuda.fft", "fastconv.cuda.winograd"),
    "cpu": ("fastconv.cpu.direct", "fastconv.cpu.im2col", "fastconv.cpu.fft", "fastconv.cpu.winograd"),
}


@cache
def algorithms(device: str = "cpu") -> tuple[Algorithm, ...]:
    """Every algorithm of a device; its modules are imported on the first call."""
    return tuple(importlib.import_module(module).ALGORITHM for module in _MODULES[device])


def algorithm_names(device: str = "cpu") -> tuple[str, ...]:
    """What ``algorithm=`` takes, without importing anything."""
    return ("auto", *(module.rpartition(".")[2] for module in _MODULES[device]))


def patch_plan(problem: ConvProblem, op: Op, pixel_rows: bool, device: str = "cpu") -> PatchRun:
    """What copies patches, or adds them up, on a device (`fastconv.cpu.patches.plan`)."""
    run: PatchRun = importlib.import_module(f"fastconv.{device}.patches").plan(problem, op, pixel_rows)
    return run


def passes_module() -> Any:
    """The module that goes through images twice in one launch; it is imported on the first call."""
    return importlib.import_module("fastconv.cpu.passes")


def call_class(device: str = "cpu") -> Any:
    """What makes calls on a device: `fastconv.core.evaluate.Call`, or the class of that name of another device."""
    return importlib.import_module("fastconv.core.evaluate" if device == "cpu" else f"fastconv.{device}.evaluate").Call


def patch_class(device: str) -> Any:
    """What copies patches between arrays of a device other than the CPU."""
    return importlib.import_module(f"fastconv.{device}.patch_evaluate").Copy


def pooling_class(device: str = "cpu") -> Any:
    """What pools arrays of a device: `fastconv.core.pooling.Pooling`, or the class of that name of another device."""
    module = "fastconv.core.pooling" if device == "cpu" else f"fastconv.{device}.pool_evaluate"
    return importlib.import_module(module).Pooling


def pooling_device(device: str = "cpu") -> Any:
    """The module that pools on a device; it is imported on the first call."""
    return importlib.import_module(f"fastconv.{device}.pooling")
