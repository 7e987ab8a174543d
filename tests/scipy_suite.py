"""SciPy's own tests, of the installed SciPy, on the functions of fastconv in place of SciPy's.

A module of them is imported while the functions stand in the namespace of SciPy, since parametrizations hold them, and
keeps them afterwards; the rest of SciPy keeps its own.
"""

from __future__ import annotations

import importlib
import itertools
import types
from collections.abc import Collection
from unittest import mock

import numpy as np
import pytest

# Tests that do not pass, by the end of their name, and why; each must fail, so that none stands here in vain.
_BEYOND_DOUBLES = (
    "prewitt, which is SciPy's, takes differences below 0 through float64; correlate1d is exact modulo 2**64"
)
_IN_SINGLE = "gaussian_laplace, which is SciPy's, sums in float64; gaussian_filter sums float32 in float32"
LEFT_OUT = {
    **{f"::test_prewitt0{number}[uint64]": _BEYOND_DOUBLES for number in (1, 2, 3)},
    **{
        f"::test_gaussian_laplace0{number}[{dtype}]": _IN_SINGLE
        for number in (1, 2)
        for dtype in ("float32", "complex64")
    },
}

# What SciPy's tests are marked with; its own conftest, which knows them, would change how all tests run.
MARKERS = (
    "array_api_backends",
    "fail_slow",
    "parallel_threads_limit",
    "skip_xp_backends",
    "slow",
    "thread_unsafe",
    "xfail_on_32bit",
    "xfail_xp_backends",
    "xslow",
)


def module_of_tests(name, replaced, names, replacement):
    """A module of SciPy's tests, with functions of a module of SciPy replaced; without tests, all is skipped."""
    try:
        from scipy._lib._array_api import xp_capabilities_table
    except ImportError:
        xp_capabilities_table = {}
    original = importlib.import_module(replaced)
    functions = {each: getattr(replacement, each) for each in names}
    for each, function in functions.items():
        if getattr(original, each) in xp_capabilities_table:
            xp_capabilities_table[function] = xp_capabilities_table[getattr(original, each)]
    with mock.patch.multiple(original, **functions):
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError:
            pytest.skip(f"this SciPy comes without {name}", allow_module_level=True)
    namespace = types.ModuleType(original.__name__)
    namespace.__dict__.update(vars(original) | functions)
    setattr(module, replaced.rpartition(".")[2], namespace)
    _list_parameters(module)
    return module


def _list_parameters(module):
    """Make lists of the iterators among the parameters, of which newer versions of pytest warn."""
    holders = [module, *(each for each in vars(module).values() if isinstance(each, type))]
    tests = [test for holder in holders for name, test in vars(holder).items() if name.startswith("test")]
    for mark in itertools.chain.from_iterable(getattr(test, "pytestmark", []) for test in tests):
        if mark.name == "parametrize" and not isinstance(mark.args[1], Collection):
            object.__setattr__(mark, "args", (mark.args[0], list(mark.args[1]), *mark.args[2:]))


def xp_of_numpy():
    """The array namespace that SciPy's tests take as a fixture."""
    from scipy._lib._array_api import array_namespace

    return array_namespace(np.empty(0))


def mark_left_out(items):
    """Expect the tests that are left out to fail."""
    for item in items:
        for name, reason in LEFT_OUT.items():
            if item.nodeid.endswith(name):
                item.add_marker(pytest.mark.xfail(reason=reason, strict=True))
