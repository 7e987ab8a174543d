"""Memory of a device that is given back when nobody holds it any more, its context current meanwhile.

Scratch memory belongs to a stream: it is taken and given back in the order of the stream's work, and what another piece
of work gets may be the same bytes. What is kept may be read in any stream: giving it back waits for all of them.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from ..core.errors import DeviceError


class Current:
    """Context that makes a device's the current one of this thread, and then again what was; it may be nested."""

    def __init__(self, handle: Any) -> None:
        from cuda.bindings import driver

        self._handle, self._push, self._pop = handle, driver.cuCtxPushCurrent, driver.cuCtxPopCurrent

    def __enter__(self) -> None:
        answer_of(self._push(self._handle))

    def __exit__(self, *raised: object) -> None:
        answer_of(self._pop())


class Memory:
    """A piece of memory.

    Attributes
    ----------
    address
        Of its first byte.
    size
        In bytes.
    """

    def __init__(self, address: Any, size: int, current: Current, give_back: Callable[[], Any]) -> None:
        self.address, self.size = int(address), size
        # Not when the process ends: the driver then may be gone, and takes everything back by itself.
        weakref.finalize(self, _give_back, current, give_back).atexit = False


def _give_back(current: Current, give_back: Callable[[], Any]) -> None:
    with current:
        give_back()


def kept_memory(size: int, device: int, current: Current) -> Memory:
    """Memory for all streams of a device."""
    from cuda.bindings import driver

    with current:
        address = _taken(driver.cuMemAlloc(size), size, device)
    return Memory(address, size, current, lambda: driver.cuMemFree(address))  # which waits for the device


def scratch_memory(size: int, device: int, current: Current, stream: int) -> Memory:
    """Memory for one stream."""
    from cuda.bindings import driver

    with current:
        address = _taken(driver.cuMemAllocAsync(size, stream), size, device)
    return Memory(address, size, current, lambda: driver.cuMemFreeAsync(address, stream))


def _taken(answer: tuple[Any, ...], size: int, device: int) -> Any:
    if answer[0].name == "CUDA_ERROR_OUT_OF_MEMORY":
        raise MemoryError(f"cuda:{device} has no {size} bytes left")
    return answer_of(answer)


def answer_of(answer: tuple[Any, ...]) -> Any:
    """What the driver gave last, or an error of what it had to say."""
    if answer[0] != 0:
        raise DeviceError(f"the CUDA driver says {answer[0].name}")
    return answer[-1]
