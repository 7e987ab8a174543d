"""What happens to a sum when it is stored: activation(sum + bias + residual)."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from ..core.algorithm import Epilogue
from ._device import function, get, int32

NEGATIVE_SLOPE = 0.01  # of leaky_relu, as in PyTorch
_HALF_ROOT = math.sqrt(0.5)


@function
def _identity(value):
    return value


@function
def _relu(value):
    return type(value)(0) if value < 0 else value


@function
def _leaky_relu(value):
    return value if not value < 0 else value * type(value)(NEGATIVE_SLOPE)


@function
def _sigmoid(value):
    return type(value)(1) / (type(value)(1) + math.exp(-value))


@function
def _silu(value):
    return value / (type(value)(1) + math.exp(-value))


@function
def _gelu(value):
    return value * (type(value)(0.5) + type(value)(0.5) * math.erf(value * type(value)(_HALF_ROOT)))


@function
def _tanh(value):
    return math.tanh(value)


_ACTIVATIONS = {
    None: _identity,
    "relu": _relu,
    "leaky_relu": _leaky_relu,
    "sigmoid": _sigmoid,
    "silu": _silu,
    "gelu": _gelu,
    "tanh": _tanh,
}


@cache
def finish(epilogue: Epilogue) -> Any:
    """The function ``(value, channel, at, bias, has_bias, residual) -> value`` that kernels end with.

    channel: of the result, all groups counted. at: where the result is stored, and the residual read, a 32-bit integer.
    bias, residual: pointers; read only if ``has_bias`` is not 0, and if the epilogue has a residual.
    """
    activation, has_residual = _ACTIVATIONS[epilogue.activation], epilogue.residual

    @function
    def finished(value, channel, at, bias, has_bias, residual):
        if has_bias != 0:
            value += get(bias, int32(channel))
        if has_residual:
            value += get(residual, at)
        return activation(value)

    return finished
