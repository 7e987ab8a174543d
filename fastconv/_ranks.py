"""Families of functions that differ in their rank alone: each is written once, and its members have names of their own.

A family is a function whose first parameter is the rank, with "{n}" for it in the documentation.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from .core.errors import reporting

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def of_ranks(
    family: Callable[Concatenate[int, Parameters], Result], name: str
) -> tuple[Callable[Parameters, Result], Callable[Parameters, Result], Callable[Parameters, Result]]:
    """What a family does at the ranks 1, 2 and 3, as functions named after the template `name`."""
    first, second, third = (_member(cast(FunctionType, family), name.format(n=rank), rank) for rank in (1, 2, 3))
    return first, second, third


def _member(family: FunctionType, name: str, rank: int) -> Callable[..., Any]:
    # A copy, so that Python calls it by its own name where a call does not fit its parameters.
    copy = FunctionType(family.__code__, family.__globals__, name, family.__defaults__)
    copy.__qualname__, copy.__module__, copy.__kwdefaults__ = name, family.__module__, family.__kwdefaults__
    copy.__doc__ = (family.__doc__ or "").replace("{n}", str(rank))
    copy.__annotations__ = {key: value for key, value in family.__annotations__.items() if key != "rank"}
    return reporting(MethodType(copy, rank))  # its signature has no rank
