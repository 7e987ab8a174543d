"""Public functions on PyTorch's tensors, of which some are views, and on NumPy's arrays, against those on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

import fastconv
from bench.gpu.correctness import Check
from bench.gpu.device import Device
from fastconv import grad

Arrays = dict[str, Any]
SHAPES = {
    "x": (2, 8, 19, 23),
    "w": (12, 4, 3, 3),
    "bias": (12,),
    "y": (2, 12, 19, 23),
    "pooled": (2, 8, 10, 12),
    "columns": (2, 72, 437),
}
WINDOW = {"padding": 1, "groups": 2}
POOL = (3, 2, 1)  # size, stride and padding
FLOAT32_ERROR = 1e-4

FUNCTIONS: dict[str, Callable[[Arrays], Any]] = {
    "bias, add and an activation": lambda a: fastconv.conv2d(
        a["x"], a["w"], a["bias"], add=a["y"], activation="silu", **WINDOW
    ),
    "a padding that reflects": lambda a: fastconv.conv2d(a["x"], a["w"], padding_mode="reflect", **WINDOW),
    "the gradients of a padding that goes around": lambda a: grad.conv2d_backward(
        a["y"], a["x"], a["w"], padding_mode="circular", **WINDOW
    ),
    "gradients of gradients": lambda a: grad.conv2d_double_backward(
        a["x"], a["w"], a["bias"], a["y"], a["x"], a["w"], **WINDOW
    ),
    "a transposed convolution": lambda a: fastconv.conv_transpose2d(a["y"], a["w"], stride=2, **WINDOW),
    "views": lambda a: fastconv.conv2d(a["x"][:, 1:5, 1:, 1:], a["w"], padding=1),
    "an image that begins between wide accesses": lambda a: fastconv.conv2d(a["x"][0, :, 1:], a["w"], groups=2),
    "a prepared convolution": lambda a: fastconv.prepare(a["w"], a["bias"], **WINDOW)(a["x"]),
    "max_pool2d": lambda a: fastconv.max_pool2d(a["x"], *POOL, return_indices=True),
    "max_pool2d_backward": lambda a: grad.max_pool2d_backward(a["pooled"], a["x"], *POOL),
    "max_unpool2d": lambda a: fastconv.max_unpool2d(
        *fastconv.max_pool2d(a["x"], 2, return_indices=True), 2, output_size=SHAPES["x"][2:]
    ),
    "avg_pool2d": lambda a: fastconv.avg_pool2d(a["x"], *POOL),
    "avg_pool2d_backward": lambda a: grad.avg_pool2d_backward(a["pooled"], SHAPES["x"], *POOL),
    "lp_pool2d": lambda a: fastconv.lp_pool2d(a["x"], 2, 3),
    "global_max_pool2d": lambda a: fastconv.global_max_pool2d(a["x"]),
    "unfold": lambda a: fastconv.unfold(a["x"], 3, padding=1),
    "fold": lambda a: fastconv.fold(a["columns"], SHAPES["x"][2:], 3, padding=1),
}


def checks(device: Device) -> Iterator[Check]:
    """Every function, and one on NumPy's arrays."""
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}
    tensors = {name: torch.tensor(array, dtype=torch.float32, device=device.kind) for name, array in arrays.items()}
    for what, function in FUNCTIONS.items():
        yield _check(what, arrays, tensors if device.kind == "cuda" else _narrow(arrays), function, function)
    yield _check("NumPy's arrays", arrays, _narrow(arrays), _forward("cpu"), _forward(device.kind))


def _narrow(arrays: Arrays) -> Arrays:
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def _forward(device: str) -> Callable[[Arrays], Any]:
    return lambda a: fastconv.conv2d(a["x"], a["w"], device=device, **WINDOW)


def _check(
    what: str, arrays: Arrays, given: Arrays, right: Callable[[Arrays], Any], function: Callable[[Arrays], Any]
) -> Check:
    try:
        pairs = zip(_parts(function(given)), _parts(right(arrays)), strict=True)
        error = max(float(np.abs(got - wanted).max() / np.sqrt(np.mean(wanted**2))) for got, wanted in pairs)
        return Check(what, float(np.nan_to_num(error, nan=np.inf)), FLOAT32_ERROR)
    except Exception as failure:  # whatever it is, the other results are wanted too
        return Check(what, float("inf"), FLOAT32_ERROR, f"{type(failure).__name__}: {failure}")


def _parts(results: Any) -> list[np.ndarray[Any, Any]]:
    """One result or several, as NumPy's arrays of float64."""
    several = results if isinstance(results, tuple) else (results,)
    return [np.asarray(each.cpu() if isinstance(each, torch.Tensor) else each, np.float64) for each in several]
