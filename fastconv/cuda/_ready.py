"""Is there what a CUDA device needs: the packages, the driver, a GPU that is new enough?"""

from __future__ import annotations

import importlib.util
from typing import Any

from ..core.errors import DeviceError

OLDEST = (8, 0)  # compute capability: bfloat16 conversions and asynchronous copies begin with it
INSTALL = "pip install fastconv[cuda13], or fastconv[cuda12] for an older driver"


def require_packages() -> None:
    """Raise an ImportError unless Numba's CUDA target is installed."""
    if importlib.util.find_spec("numba_cuda") is None:
        raise ImportError(f"arrays on a CUDA device need the package numba-cuda: {INSTALL}")


def ready_device(number: int) -> Any:
    """A device that can be used, as cuda.core knows it.

    Raises
    ------
    DeviceError
        Without a driver, without this GPU, or for one that is too old.
    """
    from cuda.core import Device

    try:
        device = Device(number)
        device.set_current()
        capability = device.compute_capability
    except Exception as error:  # of which kind depends on what is missing
        raise DeviceError(
            f"cuda:{number} cannot be used: {error} It takes an NVIDIA GPU and its driver; the packages are there."
        ) from error
    if (capability.major, capability.minor) < OLDEST:
        raise DeviceError(
            f"cuda:{number} ({device.name}) has compute capability {capability.major}.{capability.minor}; "
            f"fastconv needs {OLDEST[0]}.{OLDEST[1]} or newer"
        )
    return device


class memory_reported:
    """Context that turns the driver's refusal of memory into a MemoryError which says how much was asked for."""

    def __init__(self, size: int, number: int) -> None:
        self._size, self._number = size, number

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None and "OUT_OF_MEMORY" in str(error):
            raise MemoryError(f"cuda:{self._number} has no {self._size} bytes left for scratch memory") from error
