"""Bringing single elements of any type into shared memory; `fetched` waits for them."""

from __future__ import annotations

from typing import Any

from ._device import COMPUTED_AS, copy_or_zero, float32, function, get


@function
def _fetch_widened(elements, at, source, index, is_there):
    """Through a register: 16 bits become 32 on the way."""
    value = float32(0)
    if is_there:
        value = get(source, index)
    elements[at] = value


def fetch_of(dtype: str) -> Any:
    """The function ``(elements, at, source, index, is_there)`` that begins a copy, or that of a zero."""
    return copy_or_zero if COMPUTED_AS[dtype] == dtype else _fetch_widened
