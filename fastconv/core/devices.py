"""Where arguments live: in memory, as NumPy arrays, or on a CUDA device, as arrays of the caller's library."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from typing import Any

from .errors import RejectedError

DEVICES = ("cpu", "cuda")
INDICES = ("int64",)  # the types of indices on a device

_DLPACK_CUDA = (2, 13)  # kDLCUDA and kDLCUDAManaged of the DLPack standard


@dataclass(frozen=True)
class DeviceType:
    """Type of the elements of an array on a CUDA device; among the types of arguments, it tells where they live.

    Attributes
    ----------
    name
        Of the type.
    device
        Number of the device.
    """

    name: str
    device: int
    kind = "f"  # as of a NumPy type: nothing else is computed on devices


def is_on_cuda(value: Any) -> bool:
    """Whether an argument is an array on a CUDA device, by DLPack or by ``__cuda_array_interface__``."""
    device_of = getattr(value, "__dlpack_device__", None)
    if device_of is not None:
        return device_of()[0] in _DLPACK_CUDA
    return hasattr(type(value), "__cuda_array_interface__")


def check_device(device: Any) -> None:
    """Refuse a ``device=`` that does not exist."""
    if device is not None and device not in DEVICES:
        raise RejectedError("device", device, f"must be None or one of {', '.join(DEVICES)}")


@cache
def cuda_arrays() -> Any:
    """The module that reads arrays on a CUDA device; it is imported on the first call."""
    return importlib.import_module("fastconv.cuda._arrays")


@cache
def device_type(name: str, device: int) -> DeviceType:
    """The one `DeviceType` of a type and a device."""
    return DeviceType(name, device)


def with_precision(dtypes: tuple[Any, ...], precision: str | None) -> tuple[Any, ...]:
    """The types of arguments, float32 as "tf32" where its products may be rounded to that.

    Raises
    ------
    RejectedError
        For a precision that does not exist, or arrays that are not on a CUDA device.
    """
    if precision is None:
        return dtypes
    if precision != "tf32":
        raise RejectedError("precision", precision, 'must be None or "tf32"')
    if common_device(*dtypes) != "cuda":
        raise RejectedError("precision", precision, "must be None for NumPy arrays: the CPU has no TF32")
    return tuple(
        [each if each is None or each.name != "float32" else DeviceType("tf32", each.device) for each in dtypes]
    )


def common_device(*dtypes: Any) -> str:
    """The device on which arguments of these types live together; None is passed over."""
    given = [dtype for dtype in dtypes if dtype is not None]
    places = {f"cuda:{dtype.device}" if isinstance(dtype, DeviceType) else "cpu" for dtype in given}
    if len(places) > 1:
        allowed = 'all arrays must be on one device; device="cuda" copies NumPy arrays there and back'
        raise RejectedError("device", " and ".join(sorted(places)), allowed)
    return "cpu" if places <= {"cpu"} else "cuda"
