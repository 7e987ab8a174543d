"""What is missing is named, with what to install."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import fastconv

X, W = np.ones((1, 1, 5), np.float32), np.ones((1, 1, 3), np.float32)


class Old:
    """A device of compute capability 7.5."""

    name = "an old one"

    class compute_capability:
        major, minor = 7, 5

    def __init__(self, number):
        pass


def test_a_machine_without_a_driver_is_told_so(monkeypatch):
    def missing(number):
        raise RuntimeError("the driver library cannot be found.")

    monkeypatch.setattr("cuda.core.Device", missing)
    with pytest.raises(fastconv.DeviceError, match=r"cuda:0 cannot be used: the driver library cannot be found"):
        fastconv.conv1d(X, W, device="cuda")


def test_a_gpu_that_is_too_old_is_told_so(monkeypatch):
    monkeypatch.setattr("cuda.core.Device", Old)
    with pytest.raises(fastconv.DeviceError, match=r"an old one.*7\.5; fastconv needs 8\.0"):
        fastconv.conv1d(X, W, device="cuda")


def test_a_driver_that_is_too_old_is_told_so(monkeypatch):
    monkeypatch.setattr(Old.compute_capability, "major", 9)
    monkeypatch.setattr("cuda.core.Device", Old)
    monkeypatch.setattr("cuda.bindings.driver.cuDriverGetVersion", lambda: (0, 12080))
    monkeypatch.setattr("cuda.bindings.__version__", "13.0.2")
    with pytest.raises(fastconv.DeviceError, match=r"driver for CUDA 12, .* CUDA 13: .*fastconv\[cuda12\]"):
        fastconv.conv1d(X, W, device="cuda")


def test_without_the_package_it_is_named():
    code = (
        "import sys, importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'numba_cuda' else find(name, *rest)\n"
        "import numpy, fastconv\n"
        "fastconv.conv1d(numpy.ones((1, 1, 4)), numpy.ones((1, 1, 2)))\n"
        "try: fastconv.conv1d(numpy.ones((1, 1, 4)), numpy.ones((1, 1, 2)), device='cuda')\n"
        "except ImportError as error: print(error)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "numba-cuda: pip install fastconv[cuda13]" in printed
