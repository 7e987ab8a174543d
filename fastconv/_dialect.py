"""What the dialects leave to SciPy: arguments that fastconv does not serve, or that nobody does."""

from __future__ import annotations

import importlib
import operator
from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from .core.arrays import Array
from .core.errors import RejectedError
from .core.problem import COMPUTE_DTYPES

Function = TypeVar("Function", bound=Callable[..., Any])


class LeftToSciPyError(Exception):
    """These arguments are SciPy's: it has a path of its own for them, or a message that says what is wrong."""


def leave() -> NoReturn:
    """Leave the call to SciPy."""
    raise LeftToSciPyError


def or_scipy(module: str) -> Callable[[Function], Function]:
    """Make a function hand what it leaves, and what fastconv refuses, to its namesake in a module of SciPy."""

    def decorate(function: Function) -> Function:
        @wraps(function)
        def called(*arguments: Any, **options: Any) -> Any:
            try:
                return function(*arguments, **options)
            except (LeftToSciPyError, RejectedError):
                pass
            return getattr(importlib.import_module(module), function.__name__)(*arguments, **options)

        return called  # type: ignore[return-value]

    return decorate


def served_array(value: ArrayLike) -> Array:
    """An argument as an array with elements, of a type that fastconv computes; others are left to SciPy."""
    array = np.asarray(value)
    if array.dtype.name not in COMPUTE_DTYPES or array.size == 0 or array.ndim == 0:
        leave()
    return array


def chosen_axes(axes: Any, rank: int) -> list[int]:
    """The axes that ``axes=`` means, by number, those from the end too; all where it is None."""
    if axes is None:
        return list(range(rank))
    try:
        given = [operator.index(axis) for axis in (axes if np.iterable(axes) else [axes])]
    except TypeError:
        leave()
    chosen = [axis + rank if axis < 0 else axis for axis in given]
    if len(set(chosen)) != len(chosen) or not set(chosen) <= set(range(rank)):
        leave()
    return chosen
