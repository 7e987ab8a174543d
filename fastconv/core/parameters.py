"""The parameters of an operation, as the caller may write them, read into the form in which problems hold them.

Each function gives what it was given in one form only, or raises a `RejectedError` that names the argument.
"""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from .errors import RejectedError

Extents = int | Sequence[int]
Padding = int | str | Sequence[int] | Sequence[tuple[int, int]]
Value = TypeVar("Value")

LAYOUTS = ("channels_first", "channels_last")


def numpy_type(dtype: str) -> np.dtype[Any]:
    """The NumPy type of that name; of those that NumPy lacks, one of the same kind and size."""
    return np.dtype({"bfloat16": "float16", "tf32": "float32"}.get(dtype, dtype))


# ---- numbers and words


def as_integer(argument: str, value: Any, least: int) -> int:
    """An integer of at least `least`; booleans are none."""
    allowed = f"must be an integer of at least {least}"
    if isinstance(value, (bool, np.bool_)):
        raise RejectedError(argument, value, allowed, TypeError)
    try:
        number = operator.index(value)
    except TypeError:
        raise RejectedError(argument, value, allowed, TypeError) from None
    if number < least:
        raise RejectedError(argument, value, allowed)
    return number


def is_positive(value: Any) -> bool:
    """Whether a value is a finite real number above 0; booleans are none."""
    is_number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return is_number and bool(0 < value < math.inf)


def one_of(argument: str, value: Any, allowed: Sequence[str]) -> str:
    """One of these words."""
    if not isinstance(value, str) or value not in allowed:
        raise RejectedError(argument, value, f"must be one of {', '.join(allowed)}")
    return value


def as_pad_value(value: Any, padding_mode: str, dtype: str) -> complex:
    """The pad value as a Python number that the type can hold; 0 unless the padding is constant."""
    target, allowed = numpy_type(dtype), f"must be a number that {dtype} can hold"
    if not isinstance(value, numbers.Number) or isinstance(value, bool):
        raise RejectedError("pad_value", value, allowed, TypeError)
    number: complex = value.item() if isinstance(value, np.number) else value  # type: ignore[assignment]
    if padding_mode != "constant":
        if number == 0:
            return 0
        raise RejectedError("pad_value", value, 'needs padding_mode="constant"')
    try:
        with np.errstate(over="ignore"):
            held: complex = target.type(number).item()
    except (TypeError, ValueError, OverflowError):
        raise RejectedError("pad_value", value, allowed) from None
    if (target.kind in "iu" and held != number) or (np.isinf(held) and not np.isinf(number)):
        raise RejectedError("pad_value", value, allowed)
    # The one NaN of the math module is equal to itself as part of a key; a new one never is.
    return math.nan if isinstance(held, float) and math.isnan(held) else held


# ---- shapes


def as_shape(argument: str, shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of an argument, as integers of at least 0."""
    try:
        extents = tuple(map(operator.index, shape))
    except TypeError:
        raise RejectedError(f"{argument}.shape", shape, "must be integers", TypeError) from None
    if extents and min(extents) < 0:
        raise RejectedError(f"{argument}.shape", extents, "must not be negative")
    return extents


def as_size(argument: str, size: Sequence[int], lengths: tuple[int, ...]) -> tuple[int, ...]:
    """A shape that is itself the argument, of one of these lengths."""
    kind: type[Exception] = ValueError
    try:
        shape = tuple(map(operator.index, size))
        if len(shape) in lengths and min(shape) >= 0:
            return shape
    except TypeError:
        kind = TypeError
    raise RejectedError(argument, size, f"must be a shape of {' or '.join(map(str, lengths))} integers", kind)


def rank_of_weight(weight_shape: tuple[int, ...]) -> int:
    """Spatial axes of a weight: 1, 2 or 3."""
    rank = len(weight_shape) - 2
    if rank not in (1, 2, 3):
        raise RejectedError("weight.shape", weight_shape, "must have 3, 4 or 5 axes: one, two or three of them spatial")
    return rank


def split_shape(argument: str, shape: tuple[int, ...], rank: int, layout: str) -> tuple[int, int, tuple[int, ...]]:
    """(batch, channels, spatial extents) of a batched or unbatched shape."""
    one_of("layout", layout, LAYOUTS)
    if len(shape) not in (rank + 1, rank + 2):
        raise RejectedError(f"{argument}.shape", shape, f"must have {rank + 2} axes, or {rank + 1} without the batch")
    batched = shape if len(shape) == rank + 2 else (1, *shape)
    if layout == "channels_first":
        return batched[0], batched[1], batched[2:]
    return batched[0], batched[-1], batched[1:-1]


def joined_shape(batch: tuple[int, ...], channels: int, extents: Sequence[int], layout: str) -> tuple[int, ...]:
    """The shape in a layout; what `split_shape` undoes. `batch` may be ()."""
    return (*batch, channels, *extents) if layout == "channels_first" else (*batch, *extents, channels)


# ---- along the axes


def elements_of(value: Any) -> tuple[Any, ...] | None:
    """The elements of a sequence, or None for what is none: numbers, arrays without axes, words, sets and mappings."""
    if isinstance(value, (str, bytes, Mapping)) or not hasattr(value, "__getitem__"):
        return None
    try:
        return tuple(value)
    except TypeError:  # a number that is an array
        return None


def per_axis(argument: str, value: Any, rank: int, least: int) -> tuple[int, ...]:
    """One integer for each axis, from one for all or one each."""
    given = elements_of(value)
    if given is None:
        return (as_integer(argument, value, least),) * rank
    if len(given) not in (1, rank):
        raise RejectedError(argument, value, f"must be one integer, or one for each of the {rank} axes")
    return tuple(as_integer(argument, element, least) for element in given) * (rank // len(given))


def lifted(values: Sequence[Value], neutral: Value) -> tuple[Value, Value, Value]:
    """Per-axis values with the missing leading axes filled in."""
    first, second, third = [neutral] * (3 - len(values)) + list(values)
    return first, second, third


def _same(extent: int, reach: int, stride: int) -> int:
    """Padding, in all, with which the output extent is ceil(extent / stride)."""
    return max((-(-extent // stride) - 1) * stride + reach - extent, 0)


# (low, high) along one axis, of the extent, the reach of the filter, and the stride.
_NAMED_PADS: dict[str, Callable[[int, int, int], tuple[int, int]]] = {
    "valid": lambda extent, reach, stride: (0, 0),
    "same": lambda extent, reach, stride: (
        _same(extent, reach, stride) // 2,
        -(-_same(extent, reach, stride) // 2),
    ),
    "same_lower": lambda extent, reach, stride: (
        -(-_same(extent, reach, stride) // 2),
        _same(extent, reach, stride) // 2,
    ),
    "full": lambda extent, reach, stride: (reach - 1, reach - 1),
    "causal": lambda extent, reach, stride: (reach - 1, 0),
}


def as_pads(
    padding: Any,
    extents: Sequence[int],
    filter_extents: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> tuple[tuple[int, int], ...]:
    """(low, high) for each axis, from any of the forms that `padding` takes."""
    rank = len(extents)
    if isinstance(padding, str):
        if padding not in _NAMED_PADS or (padding == "causal" and rank != 1):
            names = ", ".join(name for name in _NAMED_PADS if name != "causal" or rank == 1)
            raise RejectedError("padding", padding, f"must be integers or one of {names}")
        reaches = [d * (f - 1) + 1 for d, f in zip(dilations, filter_extents, strict=True)]
        return tuple(map(_NAMED_PADS[padding], extents, reaches, strides))
    given = elements_of(padding)
    if given is None:
        return ((as_integer("padding", padding, 0),) * 2,) * rank
    if len(given) not in (1, rank):
        allowed = f"must be one integer, or an integer or a (low, high) pair for each of the {rank} axes"
        raise RejectedError("padding", padding, allowed)
    pairs = []
    for element in given * (rank // len(given)):
        pair = elements_of(element) or (element, element)
        if len(pair) != 2 or isinstance(element, str):
            raise RejectedError("padding", padding, "each axis takes one integer or a pair (low, high)")
        pairs.append((as_integer("padding", pair[0], 0), as_integer("padding", pair[1], 0)))
    return tuple(pairs)


# ---- in a line of text


def joined(values: Sequence[Any]) -> str:
    """Numbers as a line holds them, `1x64x56x56`."""
    return "x".join(map(str, values))


def merged(values: Sequence[Any]) -> str:
    """One value where all axes agree."""
    return str(values[0]) if len(set(values)) == 1 else joined(values)


def integers_of(text: str) -> tuple[int, ...]:
    """What `joined` wrote."""
    return tuple(int(part) for part in text.split("x"))


def padding_of(text: str) -> Any:
    """Padding by its name, as one integer, or as low:high pairs, `0:1x2`."""
    if text in _NAMED_PADS:
        return text
    pads = [tuple(int(part) for part in axis.split(":")) for axis in text.split("x")]
    if len(pads) == 1 and len(pads[0]) == 1:
        return pads[0][0]
    return [pad if len(pad) == 2 else pad * 2 for pad in pads]


def number_of(text: str) -> complex:
    """A number of the simplest kind that the text can be read as."""
    for kind in (int, float, complex):
        try:
            return kind(text)
        except ValueError:
            continue
    raise ValueError(f"value={text!r} is not a number")
