"""Is there what a CUDA device needs: the packages, the driver, a GPU that is new enough?"""

from __future__ import annotations

import importlib.util
from typing import Any

from ..core.errors import DeviceError
from ._memory import answer_of

OLDEST = (8, 0)  # compute capability: bfloat16 conversions and asynchronous copies begin with it
INSTALL = "pip install fastconv[cuda13], or fastconv[cuda12] for an older driver"


def require_packages() -> None:
    """Raise an ImportError unless Numba's CUDA target is installed."""
    if importlib.util.find_spec("numba_cuda") is None:
        raise ImportError(f"arrays on a CUDA device need the package numba-cuda: {INSTALL}")


def ready_device(number: int) -> tuple[tuple[int, int], Any]:
    """The compute capability of a device that can be used, and its context, which other libraries use too.

    Raises
    ------
    DeviceError
        Without a driver, without this GPU, or for either that is too old.
    """
    from cuda.bindings import __version__, driver
    from cuda.core import Device

    try:
        device = Device(number)
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
    knows, needed = answer_of(driver.cuDriverGetVersion()) // 1000, int(__version__.partition(".")[0])
    if knows < needed:
        raise DeviceError(
            f"cuda:{number} has a driver for CUDA {knows}, and the packages are of CUDA {needed}: a newer driver, or "
            f"pip install fastconv[cuda{knows}]"
        )
    return (capability.major, capability.minor), answer_of(driver.cuDevicePrimaryCtxRetain(number))
