"""What a library makes of a case: a call that is ready to be measured, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class RefusedError(Exception):
    """The library has no way to do this; the message is the reason."""


@dataclass(frozen=True)
class Prepared:
    """A call that computes the result, how to read the result, and which way it is computed."""

    call: Callable[[], Any]
    to_array: Callable[[Any], Array] = np.asarray
    note: str = ""


def only(allowed: bool, reason: str) -> None:
    """Refuse what is not allowed.

    Raises
    ------
    RefusedError
        With this reason.
    """
    if not allowed:
        raise RefusedError(reason)
