"""What the gradients of both families of convolutions share: all of them at once, and the gradients of gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..core.arrays import Array, as_array, sum_of_channels, zeros_like
from ..core.devices import is_on_cuda
from ..core.errors import RejectedError
from ..core.parameters import elements_of

Gradients = tuple[Array | None, Array | None, Array | None]
Options = dict[str, Any]


def as_gradient(argument: str, value: ArrayLike, shape: tuple[int, ...], batched: tuple[int, ...]) -> Array:
    """An array that must have a shape, given with or without the batch axis as `shape` is."""
    array = as_array(argument, value)
    expected = batched if len(shape) == len(batched) else batched[1:]
    if array.shape != expected:
        raise RejectedError(f"{argument}.shape", array.shape, f"must be {expected}")
    return array


def conjugate(array: Array) -> Array:
    return np.conj(array) if array.dtype.kind == "c" else array


def _grad_bias(grad_output: Array, rank: int, layout: str) -> Array:
    """Sum over the batch and the pixels."""
    return sum_of_channels(grad_output, grad_output.ndim - (1 if layout == "channels_last" else rank + 1))


def options_of(
    layout: str,
    algorithm: str,
    rtol: float | None,
    num_threads: int | None,
    device: str | None,
    precision: str | None,
) -> Options:
    """The options that every operation of both families takes, by their names."""
    return {
        "layout": layout,
        "algorithm": algorithm,
        "rtol": rtol,
        "num_threads": num_threads,
        "device": device,
        "precision": precision,
    }


class Family(NamedTuple):
    """A convolution and its gradients, each of any rank; all take one window: stride, padding and so on, in order."""

    forward: Callable[..., Array]
    input: Callable[..., Array]
    weight: Callable[..., Array]
    output_shape: Callable[..., tuple[int, ...]]


def backward(
    rank: int,
    family: Family,
    grad_output: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike,
    window: tuple[Any, ...],
    affine: Options,
    linear: Options,
    mask: tuple[bool, bool, bool],
) -> Gradients:
    x_shape, weight_shape = as_array("x", x).shape, as_array("weight", weight).shape
    y_shape = family.output_shape(x_shape, weight_shape, *window, layout=affine["layout"])
    _require_shape("grad_output", grad_output, y_shape)
    _require_mask(mask)
    grad_x = grad_weight = grad_bias = None
    if mask[0]:
        grad_x = family.input(rank, x_shape, weight, grad_output, *window, **linear)
    if mask[1]:
        grad_weight = family.weight(rank, x, weight_shape, grad_output, *window, **affine)
    if mask[2]:
        grad_bias = _grad_bias(as_array("grad_output", grad_output, linear["device"]), rank, affine["layout"])
    return grad_x, grad_weight, grad_bias


def double_backward(
    rank: int,
    family: Family,
    grad_grads: tuple[ArrayLike | None, ArrayLike | None, ArrayLike | None],
    arguments: tuple[ArrayLike, ArrayLike, ArrayLike],
    window: tuple[Any, ...],
    affine: Options,
    linear: Options,
    mask: tuple[bool, bool, bool],
) -> Gradients:
    to_x, to_weight, to_bias = grad_grads
    grad_output, x, weight = arguments
    layout = affine["layout"]
    x_shape, weight_shape = as_array("x", x).shape, as_array("weight", weight).shape
    y_shape = family.output_shape(x_shape, weight_shape, *window, layout=layout)
    channels = y_shape[-1 if layout == "channels_last" else -1 - rank]
    _require_shape("grad_output", grad_output, y_shape)
    _require_shape("grad_grad_x", to_x, x_shape)
    _require_shape("grad_grad_weight", to_weight, weight_shape)
    _require_shape("grad_grad_bias", to_bias, (channels,))
    _require_mask(mask)
    grad_grad_output = grad_x = grad_weight = None
    if mask[0]:
        # Sums are added up where they are stored: arrays on a device need not know addition.
        grad_grad_output, bias = zeros_like(grad_output), to_bias
        if to_x is not None:
            grad_grad_output = family.forward(rank, to_x, weight, bias, *window, add=grad_grad_output, **linear)
            bias = None
        if to_weight is not None:
            grad_grad_output = family.forward(rank, x, to_weight, bias, *window, add=grad_grad_output, **affine)
            bias = None
        if bias is not None:
            grad_grad_output = grad_grad_output + _per_channel(bias, rank, layout)
    if mask[1]:
        grad_x = zeros_like(x)
        if to_weight is not None:
            grad_x = family.input(rank, x_shape, to_weight, grad_output, *window, **linear)
    if mask[2]:
        grad_weight = zeros_like(weight)
        if to_x is not None:
            grad_weight = family.weight(rank, to_x, weight_shape, grad_output, *window, **linear)
    return grad_grad_output, grad_x, grad_weight


def _require_shape(argument: str, value: ArrayLike | None, shape: tuple[int, ...]) -> None:
    if value is not None and as_array(argument, value).shape != shape:
        raise RejectedError(f"{argument}.shape", np.shape(value), f"must be {shape}")


def _require_mask(mask: Any) -> None:
    if len(elements_of(mask) or ()) != 3:
        raise RejectedError("output_mask", mask, "must be three booleans, one for each gradient")


def _per_channel(bias: ArrayLike, rank: int, layout: str) -> Array:
    """The bias in a shape that broadcasts along the channels."""
    values: Array = bias if is_on_cuda(bias) else np.asarray(bias)  # type: ignore[assignment]
    return values if layout == "channels_last" else values.reshape(-1, *[1] * rank)
