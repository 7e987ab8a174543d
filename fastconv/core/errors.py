"""How a bad argument is reported: what was given, what is allowed, and the problem it was given for."""

from __future__ import annotations

from types import TracebackType
from typing import Any


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


class reporting(dict[str, Any]):
    """Context that turns a `RejectedError` into a ValueError or TypeError which names the problem line.

    It holds what `problem_line` takes, and calls it only when there is an error.
    """

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, RejectedError):
            raise error.completed(problem_line(**self)) from None


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
