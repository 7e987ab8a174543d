"""SciPy's tests of filters, of the installed SciPy, on `fastconv.ndimage`."""

from __future__ import annotations

import pytest

import fastconv

from . import scipy_suite

_theirs = scipy_suite.module_of_tests(
    "scipy.ndimage.tests.test_filters", "scipy.ndimage", fastconv.ndimage.__all__, fastconv.ndimage
)
globals().update({name: test for name, test in vars(_theirs).items() if name.startswith(("Test", "test_"))})


@pytest.fixture
def xp():
    return scipy_suite.xp_of_numpy()
