"""The words of tensor cores as plain Python, for the simulator."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from ._device import cuda
from ._simulated import _checked, _widened

Number = Any


def address_of(shared: Any, at: Number) -> Any:
    """`_tensor_intrinsics.address_of`: from the beginning of the array."""
    return np.int32(at * 4)


def _words(shared: Any, address: Number) -> Any:
    """Four words of shared memory, as a view."""
    first = _checked(shared, address // 4, 4)
    return shared[first : first + 4].view(np.int32)


# By number of the thread, its groups of copies on their way, the last one open: words and what is to be in them.
_groups: dict[int, list[list[tuple[Any, Any]]]] = {}


def _own_groups() -> list[list[tuple[Any, Any]]]:
    return _groups.setdefault(int(cuda.threadIdx.x), [[]])


def copy16(shared: Any, address: Number, elements: Any, index: Number, is_there: Any) -> None:
    """`_tensor_intrinsics.copy16`: until it has been waited for, 0x7A bytes are there."""
    words, values = _words(shared, address), np.zeros(4, np.int32)
    if is_there:
        count = 16 // elements.itemsize
        first = _checked(elements, index, count)
        values[:] = elements[first : first + count].view(np.int32)
    words.view(np.uint8).fill(0x7A)
    _own_groups()[-1].append((words, values))


def end_of_group() -> None:
    """`_tensor_intrinsics.end_of_group`."""
    _own_groups().append([])


def wait_for_all_but_one_group() -> None:
    """`_tensor_intrinsics.wait_for_all_but_one_group`."""
    groups = _own_groups()
    for words, values in itertools.chain.from_iterable(groups[:-2]):
        words[:] = values
    del groups[:-2]


def bits_of(elements: Any, index: Number) -> Any:
    """`_tensor_intrinsics.bits_of`."""
    element = elements[_checked(elements, index)]
    return element.view(np.int32) if element.itemsize == 4 else np.int32(element.view(np.uint16))


def rounded_to_tf32(word: Number) -> Any:
    """`_tensor_intrinsics.rounded_to_tf32`: to nearest, ties away from zero."""
    return np.int32(word + (1 << 12) & ~((1 << 13) - 1))


def rest_of(word: Number, rounded: Number) -> Any:
    """`_tensor_intrinsics.rest_of`."""
    with np.errstate(invalid="ignore"):
        return (word.view(np.float32) - rounded.view(np.float32)).view(np.int32)


def word_at(shared: Any, address: Number) -> Any:
    """`_tensor_intrinsics.word_at`."""
    return shared[_checked(shared, address // 4)].view(np.int32)


def put_words(shared: Any, address: Number, *words: Any) -> None:
    """`_tensor_intrinsics.put_words`."""
    _words(shared, address)[:] = words


def _rows(places: list[Any]) -> list[Any]:
    """The four matrices of which the lanes named the rows."""
    rows = np.array([_words(*place).view(np.int16) for place in places])
    return [rows[8 * k : 8 * k + 8] for k in range(4)]


def _dealt(matrices: list[Any]) -> list[tuple[Any, ...]]:
    """What each lane gets of the matrices."""
    words = [np.ascontiguousarray(each).view(np.int32) for each in matrices]
    return [tuple([each[lane // 4, lane % 4] for each in words]) for lane in range(32)]


def matrices(shared: Any, address: Number) -> Any:
    """`_tensor_intrinsics.matrices`."""
    return cuda.collective(lambda places: _dealt(_rows(places)), (shared, address))


def transposed_matrices(shared: Any, address: Number) -> Any:
    """`_tensor_intrinsics.transposed_matrices`."""
    return cuda.collective(lambda places: _dealt([each.T for each in _rows(places)]), (shared, address))


def _cut_off(sums: Any) -> Any:
    """As float32, toward zero, as tensor cores do it."""
    rounded = sums.astype(np.float32)
    return np.where(np.abs(rounded) > np.abs(sums), np.nextafter(rounded, np.float32(0)), rounded)


def _multiplied(travels_as: type) -> Any:
    # Lane 4 * g + t holds words t of rows g and g + 8, then those four words on; of the sums, two neighbours each.
    lanes = np.arange(32)
    count = 4 // np.dtype(travels_as).itemsize  # elements of a word
    g, t = lanes[:, None] // 4, lanes[:, None] % 4 * count + np.arange(count)
    pair = lanes[:, None] % 4 * 2 + np.arange(2)

    def product(given: list[Any]) -> list[tuple[Any, ...]]:
        words = np.array([each[:6] for each in given], np.int32)
        factors = _widened(words.view(travels_as)).reshape(32, 6, count)
        addends = np.array([each[6:] for each in given], np.float32).reshape(32, 2, 2)
        a, b, c = np.zeros((16, 8 * count)), np.zeros((8 * count, 8)), np.zeros((16, 8))
        for k in range(4):
            a[g + k % 2 * 8, t + k // 2 * 4 * count] = factors[:, k]
        for k in range(2):
            b[t + 4 * count * k, g] = factors[:, 4 + k]
            c[g + 8 * k, pair] = addends[:, k]
        sums = _cut_off(c + a @ b)
        return list(zip(*[sums[g + 8 * (k // 2), pair][:, k % 2] for k in range(4)], strict=True))

    return lambda *words: cuda.collective(product, words)


multiply_matrices = {
    "float16": _multiplied(np.int16),
    "bfloat16": _multiplied(np.uint16),
    "tf32": _multiplied(np.float32),
}
