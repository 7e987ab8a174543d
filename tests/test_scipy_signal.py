"""SciPy's tests of convolution and correlation, of the installed SciPy, on `fastconv.signal`."""

from __future__ import annotations

import pytest

import fastconv

from . import scipy_suite

_theirs = scipy_suite.module_of_tests(
    "scipy.signal.tests.test_signaltools", "scipy.signal", fastconv.signal.__all__, fastconv.signal
)
_SUBJECTS = ("Convolve", "Correlat", "FFTConvolve", "OAConvolve", "AllFreqConvolves", "ChooseConvMethod")
_PREFIXES = (*(f"Test{subject}" for subject in _SUBJECTS), "test_convolve", "test_correlation", "test_choose_conv")
globals().update({name: test for name, test in vars(_theirs).items() if name.startswith(_PREFIXES)})


@pytest.fixture
def xp():
    return scipy_suite.xp_of_numpy()


@pytest.fixture
def num_parallel_threads():
    return 1
