"""The CUDA backend without a GPU: its kernels as plain Python, in a process in which Numba simulates them."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent


@pytest.fixture(scope="module", autouse=True)
def _cuda_packages():
    if importlib.util.find_spec("numba_cuda") is None:
        pytest.skip("NOTHING OF THE CUDA BACKEND IS TESTED: numba-cuda is not installed (pip install fastconv[cuda13])")


def test_the_kernels_compute_what_the_reference_does():
    command = [sys.executable, "-m", "pytest", "-n", "2", "-p", "no:cacheprovider", HERE / "cuda" / "simulated"]
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1"}
    done = subprocess.run(command, env=environment, cwd=HERE.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "[100%]" in done.stdout
