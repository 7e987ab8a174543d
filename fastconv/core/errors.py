"""How a bad argument is reported: what was given, what is allowed, and the problem it was given for."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class UnsupportedError(ValueError):
    """An algorithm was asked for by name and cannot serve the problem; the message says why."""


class DeviceError(RuntimeError):
    """A CUDA device was asked for and cannot be used; the message says what is missing."""


class RejectedError(Exception):
    """An argument was refused where the whole problem is not in sight; `reporting` makes it complete."""

    def __init__(self, argument: str, value: object, allowed: str, kind: type[Exception] = ValueError) -> None:
        super().__init__(argument, value, allowed)
        self.argument = argument
        self.value = value
        self.allowed = allowed
        self.kind = kind

    def completed(self, line: str) -> Exception:
        """The exception that the caller sees."""
        return self.kind(f"{self.argument}={self.value!r}: {self.allowed}" + (f"  [problem: {line}]" if line else ""))


# What the problem line calls a parameter; it leaves out all others. The first of x's names is x.
_WORDS = {
    **dict.fromkeys(("x", "input_size", "x_shape", "input_shape", "problem", "grad_output"), "x"),
    **dict.fromkeys(("weight", "weight_size", "weight_shape"), "w"),
    "norm_type": "norm_type",
    "output_size": "output_size",
    "kernel_size": "k",
    "stride": "s",
    "padding": "p",
    "output_padding": "output_padding",
    "dilation": "d",
    "groups": "g",
    "ceil_mode": "ceil_mode",
    "layout": "layout",
}


def reporting(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Turn a `RejectedError` of a function into a ValueError or TypeError which names the problem line.

    The line is made only when there is an error, of the arguments as they were given.
    """

    @wraps(function)
    def reported(*arguments: Parameters.args, **options: Parameters.kwargs) -> Result:
        try:
            return function(*arguments, **options)
        except RejectedError as error:
            given = inspect.signature(function).bind(*arguments, **options)
            given.apply_defaults()
            raise error.completed(problem_line(**_words_of(given.arguments))) from None

    return reported


def _words_of(arguments: dict[str, Any]) -> dict[str, Any]:
    """What the problem line says of a function's arguments: nothing where there is no tensor among them."""
    given = {name: arguments[name] for name in _WORDS if name in arguments}
    words: dict[str, Any] = {}
    for name, value in given.items():
        words.setdefault(_WORDS[name], value)
    return words if words.keys() & {"x", "w"} else {}


def problem_line(*, x: Any = None, w: Any = None, **parameters: Any) -> str:
    """The problem as the caller gave it, valid or not: tensors or their shapes, then parameters."""
    words = [f"{name}={_extents(value)}" for name, value in (("x", x), ("w", w)) if value is not None]
    words += [
        f"{name}={_plain(value)}"
        for name, value in parameters.items()
        if not isinstance(value, str) or value != _UNSAID.get(name)
    ]
    return " ".join([*words, str(getattr(x, "dtype", ""))]).rstrip()


# Parameters that the problem line leaves out.
_UNSAID = {"layout": "channels_first"}


def _extents(tensor: Any) -> str:
    """An array or a shape, as the problem line writes it."""
    shape = getattr(tensor, "shape", tensor)
    try:
        return "x".join(str(int(extent)) for extent in shape)
    except (TypeError, ValueError):
        return repr(shape)


def _plain(value: Any) -> str:
    return str(value).replace(" ", "")
