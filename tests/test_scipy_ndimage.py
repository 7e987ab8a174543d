"""SciPy's tests of filters, of the installed SciPy, on `fastconv.ndimage`."""

from __future__ import annotations

import pytest

import fastconv

from . import scipy_suite

_theirs = scipy_suite.module_of_tests(
    "scipy.ndimage.tests.test_filters", "scipy.ndimage", fastconv.ndimage.__all__, fastconv.ndimage
)
_SUBJECTS = ("convolve", "correlate", "gauss", "laplace", "prewitt", "sobel", "uniform")
# These have several filters as parameters.
_PREFIXES = ("test_filter_", "test_derivative_filter_")


def _is_about_a_filter_of_ours(name):
    return name.startswith(_PREFIXES) or any(subject in name for subject in _SUBJECTS)


class TestNdimageFilters(_theirs.TestNdimageFilters):
    locals().update(
        {
            name: None
            for name in vars(_theirs.TestNdimageFilters)
            if name.startswith("test_") and not _is_about_a_filter_of_ours(name)
        }
    )


globals().update(
    {
        name: test
        for name, test in vars(_theirs).items()
        if name.startswith("test_") and _is_about_a_filter_of_ours(name)
    }
)


@pytest.fixture
def xp():
    return scipy_suite.xp_of_numpy()


@pytest.fixture
def num_parallel_threads():
    return 1
