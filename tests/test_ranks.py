"""Families: each member of one is a function of its own, for people, for tools and for type checkers."""

from __future__ import annotations

import ast
import inspect
import pathlib
import pickle
import typing

import pytest

import fastconv
from fastconv import functional, pooling
from fastconv.grad import convolution as convolution_gradients
from fastconv.grad import pooling as pooling_gradients
from fastconv.grad import transposed

MODULES = [functional, pooling, convolution_gradients, transposed, pooling_gradients]
MEMBERS = [(module, name) for module in MODULES for name in module.__all__]


@pytest.mark.parametrize(("module", "name"), MEMBERS)
def test_a_member_is_a_function_of_its_module(module, name):
    member = getattr(module, name)
    assert inspect.isfunction(member)
    assert (member.__module__, member.__name__, member.__qualname__) == (module.__name__, name, name)
    assert pickle.loads(pickle.dumps(member)) is member


@pytest.mark.parametrize(("module", "name"), MEMBERS)
def test_a_member_is_documented_with_its_rank_and_does_not_take_it(module, name):
    member = getattr(module, name)
    parameters = inspect.signature(member).parameters
    assert "rank" not in parameters
    assert set(typing.get_type_hints(member)) == {*parameters, "return"}
    assert "{n}" not in member.__doc__


def test_the_rank_stands_in_the_documentation():
    assert [fastconv.conv1d.__doc__[:3], fastconv.conv2d.__doc__[:3], fastconv.conv3d.__doc__[:3]] == [
        "1-D",
        "2-D",
        "3-D",
    ]
    assert "`max_pool2d`" in fastconv.avg_pool2d.__doc__


def test_a_call_that_does_not_fit_names_the_member():
    with pytest.raises(TypeError, match=r"^conv2d\(\) missing 1 required positional argument: 'weight'"):
        fastconv.conv2d([[[1.0]]])
    with pytest.raises(TypeError, match=r"^avg_pool1d\(\) got an unexpected keyword argument 'size'"):
        fastconv.avg_pool1d([[[1.0]]], size=2)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_type_checkers_can_read_the_names(module):
    """They do not run code: a computed `__all__` hides every function behind `from ... import *`."""
    tree = ast.parse(pathlib.Path(module.__file__).read_text())
    assigned = {ast.unparse(each.targets[0]): each.value for each in tree.body if isinstance(each, ast.Assign)}
    assert ast.literal_eval(assigned["__all__"]) == module.__all__
