"""Where work is queued: a stream of a device, its scratch memory, and tables that stay on the device.

Kernels of one stream run one after another, so they share one piece of scratch memory, which grows to the most that was
asked for; what is larger than `KEPT_BYTES` is given back to the driver's pool when the work that it served is done.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._device import SIMULATED, travelling
from ._memory import Current, answer_of, kept_memory, scratch_memory
from ._ready import ready_device

KEPT_BYTES = 256 << 20
DEFAULT_STREAM = 1  # CU_STREAM_LEGACY: the one that other streams wait for, unless they were made not to
ALIGNMENT = 256  # bytes, as cuMemAlloc gives
Part = tuple[str, int]  # type and number of elements


def bytes_of(parts: tuple[Part, ...]) -> int:
    """Scratch memory that these parts take together, in bytes."""
    return sum(_rounded(travelling(dtype).itemsize * count) for dtype, count in parts)


def _rounded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


class Table:
    """Integers or real numbers that kernels read, the same for every call of a plan."""

    def __init__(self, values: NDArray[Any]) -> None:
        self.values = np.ascontiguousarray(values).reshape(-1)
        self._copies: dict[int, Any] = {}

    def on(self, queue: Queue) -> Any:
        """Its address on the queue's device; it is copied there on the first call."""
        copy = self._copies.get(queue.device)
        if copy is None:
            copy = self._copies[queue.device] = queue.upload(self.values)
        return queue.address(copy)


class Queue:
    """A stream of a device.

    Parameters
    ----------
    device
        Number of the device.
    handle
        Address of the caller's stream; 0 is the default one.
    """

    def __init__(self, device: int, handle: int) -> None:
        from cuda.core import LEGACY_DEFAULT_STREAM, Stream, launch

        self.device, self.handle = device, handle
        self._lock = threading.RLock()
        self.capability, context = ready_device(device)
        self._current = Current(context)
        self._stream = Stream.from_handle(handle) if handle else LEGACY_DEFAULT_STREAM
        self._address = handle or DEFAULT_STREAM
        self._scratch: Any = None
        self._launch = launch

    def __enter__(self) -> Queue:
        """Begin the work of one call: its device is the current one, and no other thread uses the scratch memory."""
        self._current.__enter__()
        self._lock.acquire()
        return self

    def __exit__(self, *raised: object) -> None:
        self._lock.release()
        self._current.__exit__()

    def launch(self, kernel: Any, configuration: Any, arguments: tuple[Any, ...]) -> None:
        """Queue a kernel."""
        self._launch(self._stream, configuration, kernel.loaded(self.capability), *arguments)

    def scratch(self, *parts: Part) -> tuple[Any, ...]:
        """Addresses of scratch memory for each part, until the next call asks for it."""
        if not parts:
            return ()
        size = max(bytes_of(parts), ALIGNMENT)
        if self._scratch is None or self._scratch.size < size or self._scratch.size > KEPT_BYTES:
            self._scratch = None  # given back in the order of the stream
            self._scratch = scratch_memory(size, self.device, self._current, self._address)
        base, addresses = self._scratch.address, []
        for dtype, count in parts:
            addresses.append(base)
            base += _rounded(travelling(dtype).itemsize * count)
        return tuple(addresses)

    def allocate(self, part: Part) -> Any:
        """Memory on the device for so many elements of a type, for as long as it is kept, in whichever stream."""
        return kept_memory(max(travelling(part[0]).itemsize * part[1], ALIGNMENT), self.device, self._current)

    def upload(self, values: NDArray[Any]) -> Any:
        """Memory on the device that holds these values, for as long as it is kept, in whichever stream."""
        from cuda.bindings import driver

        memory = self.allocate(("int8", values.nbytes))
        with self._current:
            answer_of(driver.cuMemcpyHtoDAsync(memory.address, values.ctypes.data, values.nbytes, self._address))
        self.wait()  # another stream may be the one that reads it
        return memory

    def download(self, memory: Any, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
        """The elements that memory of `allocate` holds, once all that was queued before is done."""
        from cuda.bindings import driver

        values = np.empty(count, dtype)
        self.wait()
        with self._current:
            answer_of(driver.cuMemcpyDtoH(values.ctypes.data, memory.address, values.nbytes))
        return values

    def wait(self) -> None:
        """Until everything that was queued is done."""
        with self._current:
            self._stream.sync()

    def address(self, memory: Any) -> Any:
        """Of what `allocate` or `upload` gave."""
        return memory.address


class SimulatedQueue(Queue):
    """The same for the simulator, whose pointers are flat arrays."""

    def __init__(self, device: int = 0, handle: int = 0) -> None:
        self.device, self.handle = device, handle
        self.capability = (9, 0)

    def __enter__(self) -> Queue:
        """Nothing."""
        return self

    def __exit__(self, *raised: object) -> None:
        """Nothing."""

    def scratch(self, *parts: Part) -> tuple[Any, ...]:
        """A flat array for each part."""
        return tuple([self.allocate(part) for part in parts])

    def allocate(self, part: Part) -> Any:
        """A flat array, full of NaN or of 0x7A bytes."""
        array = np.empty(part[1], travelling(part[0]))
        array.fill(np.nan) if array.dtype.kind == "f" else array.view(np.uint8).fill(0x7A)
        return array

    def upload(self, values: NDArray[Any]) -> Any:
        """A copy, in the types in which elements travel."""
        return values.view(np.int16).copy() if values.dtype == np.float16 else values.copy()

    def download(self, memory: Any, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
        """The elements."""
        elements: NDArray[Any] = memory[:count].view(dtype)
        return elements

    def wait(self) -> None:
        """Nothing is ever under way."""

    def address(self, memory: Any) -> Any:
        """The memory."""
        return memory


@cache
def queue_of(device: int, handle: int) -> Queue:
    """The one queue of a stream."""
    return SimulatedQueue(device, handle) if SIMULATED else Queue(device, handle)
