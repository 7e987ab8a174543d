"""Poison: every result and every workspace holds NaN, or 0xA5 bytes for integers, before a kernel sees it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import settings

from fastconv.core import arrays, kept
from fastconv.cpu import _launch

from . import scipy_suite

# Kernels are compiled during the first example; how long an example takes says nothing.
settings.register_profile("fastconv", deadline=None, print_blob=True, derandomize=True)
settings.load_profile("fastconv")


def poisoned(shape, dtype):
    array = np.empty(shape, dtype)
    if array.dtype.kind in "fc":
        array.fill(np.nan)
    else:
        array.view(np.uint8).fill(0xFF) if array.ndim else array.fill(0)  # as floating numbers, NaN
    return array


@pytest.fixture(scope="session", autouse=True)
def poison():
    patch = pytest.MonkeyPatch()
    patch.setattr(arrays, "_empty", poisoned)
    patch.setattr(_launch, "KEPT_ELEMENTS", -1)
    patch.setattr(kept, "LEAST_BYTES", math.inf)
    yield
    patch.undo()


def pytest_configure(config):
    for marker in scipy_suite.MARKERS:
        config.addinivalue_line("markers", f"{marker}: of SciPy's own tests")


def pytest_collection_modifyitems(items):
    scipy_suite.mark_left_out(items)
