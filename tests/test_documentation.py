"""The documentation: examples give what they say."""

from __future__ import annotations

import doctest
import pathlib

import pytest

import fastconv
from fastconv import explanation, operators, patches, prepared

ROOT = pathlib.Path(__file__).parents[1]


def test_the_readme():
    failed, tried = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert (failed, tried > 10) == (0, True)


@pytest.mark.parametrize(
    "module", [fastconv, explanation, operators, patches, prepared], ids=lambda module: module.__name__
)
def test_docstrings(module):
    failed, tried = doctest.testmod(module, extraglobs={"fastconv": fastconv})
    assert (failed, tried > 0) == (0, True)
