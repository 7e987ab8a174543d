"""The machine and the software: what the numbers hold for, and the environment of measured processes."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import llvmlite.binding

import fastconv

_PACKAGES = ("numpy", "numba", "llvmlite", "scipy", "torch", "onnxruntime", "opencv-python-headless")
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
_VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "sve": "SVE", "neon": "NEON"}


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment(threads: int) -> dict[str, str]:
    """The environment of this process with the number of threads in every variable that a library reads."""
    return {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(threads))}


def description() -> dict[str, str]:
    """Processor, operating system, and the version of each library that is installed."""
    return {
        "processor": f"{_processor()}, {cores()} cores{_vectors()}",
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "fastconv": fastconv.__version__,
        **dict(_versions()),
    }


def last_level_cache() -> int:
    """Bytes of the largest cache, or 0 where the system does not tell."""
    sizes = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    return max((int(path.read_text().strip().removesuffix("K")) * 1024 for path in sizes), default=0)


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _vectors() -> str:
    features = llvmlite.binding.get_host_cpu_features()
    return next((f", {name}" for feature, name in _VECTORS.items() if features.get(feature)), "")


def _versions() -> Iterator[tuple[str, str]]:
    for package in _PACKAGES:
        try:
            yield package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            yield package, "not installed"
