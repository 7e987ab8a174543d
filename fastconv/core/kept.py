"""Memory of large results, which the next one takes over once nobody has the first any more.

The C library gives memory of 32 MiB and more back to the system as soon as an array dies, and the next array's pages
are filled with zeros once more when they are first written: 33 MiB took 6.6 ms to fill so, and 2.6 ms in memory that
was kept.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Where glibc's M_MMAP_THRESHOLD ends up (mallopt(3), DEFAULT_MMAP_THRESHOLD_MAX); smaller arrays it keeps itself.
LEAST_BYTES = 32 << 20
# Of all that is kept together: a few results, and little beside the tensors of such sizes.
MOST_BYTES = 256 << 20
# A block is at most this much larger than what it is given for.
MOST_SURPLUS = 2

_blocks: list[Array] = []
_lock = threading.Lock()


def _after_fork() -> None:
    """Another thread, which the child does not have, may hold the lock and be changing the list."""
    global _lock
    _blocks.clear()
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _references(blocks: list[Array]) -> list[int]:
    """How often each block is referred to, by this function too."""
    return [sys.getrefcount(block) for block in blocks]


(ALONE,) = _references([np.empty(0)])


def instead_of(fresh: Array) -> Array:
    """Memory for an array like this one, which nobody has written to: kept memory, or its own, which is now kept.

    An array that is handed out, and all views of it, refer to their block; so a block that this module alone refers
    to is free.
    """
    with _lock:
        used = _used_again(fresh)
        if used is not None:
            return used
        if not _has_room(fresh.nbytes):
            return fresh
        _blocks.append(fresh)
        return fresh.view()


def _free() -> list[int]:
    """Which blocks are, the oldest first."""
    return [number for number, references in enumerate(_references(_blocks)) if references == ALONE]


def _used_again(fresh: Array) -> Array | None:
    """The beginning of a free block that is not much larger."""
    for number in _free():
        block = _blocks[number]
        if fresh.nbytes <= block.nbytes <= MOST_SURPLUS * fresh.nbytes:
            return block.reshape(-1).view(np.uint8)[: fresh.nbytes].view(fresh.dtype).reshape(fresh.shape)
    return None


def _has_room(size: int) -> bool:
    """Whether as many bytes may be kept too; free blocks are let go of for them, the oldest first."""
    while size + sum(block.nbytes for block in _blocks) > MOST_BYTES:
        free = _free()
        if not free:
            return False
        del _blocks[free[0]]
    return True
