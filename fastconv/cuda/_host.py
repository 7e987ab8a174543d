"""NumPy arrays on the device: copied there, computed, and copied back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..core.arrays import Array, allocate
from ._queue import queue_of


class HostCopy:
    """Memory on a device that stands for a NumPy array.

    Attributes
    ----------
    shape, dtype
        Of the array; the name of the type.
    device
        Number of the device.
    """

    def __init__(self, shape: tuple[int, ...], dtype: str, device: int, memory: Any, home: Array) -> None:
        self.shape, self.dtype, self.device = shape, dtype, device
        self._memory, self._home = memory, home

    @classmethod
    def of(cls, array: Array, device: int = 0) -> HostCopy:
        """A copy of an array."""
        memory = queue_of(device, 0).upload(np.ascontiguousarray(array).reshape(-1))
        return cls(array.shape, array.dtype.name, device, memory, array)

    @classmethod
    def empty(cls, shape: tuple[int, ...], dtype: str, device: int, home: Array | None = None) -> HostCopy:
        """Memory for a result that goes to `home`, or to a new array."""
        memory = queue_of(device, 0).allocate((dtype, math.prod(shape)))
        return cls(shape, dtype, device, memory, allocate(shape, dtype) if home is None else home)

    @property
    def pointer(self) -> Any:
        """Address of the first element."""
        return queue_of(self.device, 0).address(self._memory)

    def converted(self, dtype: str) -> HostCopy:
        """The same numbers in another type, copied anew."""
        return HostCopy.of(self._home.astype(dtype), self.device)

    def flipped(self, axes: tuple[int, ...]) -> HostCopy:
        """The same, reversed along axes."""
        return HostCopy.of(np.flip(self._home, axes), self.device)

    def back(self) -> Array:
        """The NumPy array, filled with what the device holds."""
        self._home[...] = (
            queue_of(self.device, 0).download(self._memory, self._home.dtype, self._home.size).reshape(self.shape)
        )
        return self._home
