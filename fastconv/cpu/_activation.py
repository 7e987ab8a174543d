"""Activation functions, applied to results while they are still in the first-level cache.

===========  ==============================================  ========
name         function                                        types
===========  ==============================================  ========
relu         max(x, 0)                                       real
leaky_relu   x if x > 0 else 0.01 * x                        floating
silu         x / (1 + exp(-x))                               floating
gelu         x * (1 + erf(x / sqrt(2))) / 2                  floating
sigmoid      1 / (1 + exp(-x))                               floating
tanh         the hyperbolic tangent                          floating
===========  ==============================================  ========

NaN stays NaN in all of them.
"""

from __future__ import annotations

import numpy as np
from numba import types, uint64
from numba.extending import overload

from ..core.algorithm import ACTIVATIONS, Array, Epilogue
from ..core.jit import SUBROUTINE, kernel, subroutine
from ._exponential import exp, normal_distribution, tanh
from ._kernel import SIZES, always_inlined, never_inlined, views
from ._launch import Launch
from ._simd import lanes, load_first, not_below_zero, store_first

CODES = {name: code for code, name in enumerate(ACTIVATIONS, start=1)}
RELU, LEAKY_RELU, SILU, GELU, SIGMOID, TANH = (
    CODES[name] for name in ("relu", "leaky_relu", "silu", "gelu", "sigmoid", "tanh")
)
NEGATIVE_SLOPE = 0.01  # of leaky_relu, as in PyTorch


def activation_code(epilogue: Epilogue) -> int:
    """What kernels know an activation by; 0 for none."""
    return CODES[epilogue.activation] if epilogue.activation else 0


def activate_row(target, at, jump, count, activation):
    """Apply the activation of this code, or none for 0, to `count` elements, `jump` apart."""
    raise NotImplementedError("called from compiled code only")


@overload(activate_row, jit_options=SUBROUTINE)
def _choose_activate_row(target, at, jump, count, activation):
    chosen = {types.Complex: _nothing, types.Float: _floating}.get(type(target.dtype), _integer)

    def implementation(target, at, jump, count, activation):
        if activation != 0:
            chosen(target, at, jump, count, activation)

    return implementation


@subroutine
def _nothing(target, at, jump, count, activation):
    """Complex numbers have no activation."""


@subroutine
def _integer(target, at, jump, count, activation):
    if activation == RELU:
        _relu(target, at, jump, count)


@subroutine
def _relu(target, at, jump, count):
    if jump == 1:
        step = lanes(target)
        for i in range(0, count, step):
            held = min(step, count - i)
            store_first(target, at + i, held, not_below_zero(load_first(target, at + i, held, 1)))
    else:
        for i in range(count):
            if target[at + i * jump] < 0:
                target[at + i * jump] = 0


@subroutine
def _leaky_relu(value):
    return value if value > 0 else value * type(value)(NEGATIVE_SLOPE)


@subroutine
def _sigmoid(value):
    return type(value)(1) / (type(value)(1) + exp(-value))


@subroutine
def _silu(value):
    return value / (type(value)(1) + exp(-value))


@subroutine
def _gelu(value):
    always_inlined()
    return value * normal_distribution(value)


CURVES = {LEAKY_RELU: _leaky_relu, SILU: _silu, GELU: _gelu, SIGMOID: _sigmoid, TANH: tanh}


@subroutine
def _floating(target, at, jump, count, activation):
    never_inlined()
    if activation == RELU:
        _relu(target, at, jump, count)
    elif activation == LEAKY_RELU:
        _each(target, at, jump, count, LEAKY_RELU)
    elif activation == SILU:
        _each(target, at, jump, count, SILU)
    elif activation == GELU:
        _each(target, at, jump, count, GELU)
    elif activation == SIGMOID:
        _each(target, at, jump, count, SIGMOID)
    else:
        _each(target, at, jump, count, TANH)


def _each(target, at, jump, count, curve):
    """Apply one of `CURVES`, named by a literal, to `count` elements, `jump` apart."""
    raise NotImplementedError("called from compiled code only")


@overload(_each, jit_options=SUBROUTINE, prefer_literal=True)
def _choose_each(target, at, jump, count, curve):
    function = CURVES[curve.literal_value]

    def implementation(target, at, jump, count, curve):
        if jump == 1:  # apart from the other case, as only here a register of them is loaded at once
            for i in range(uint64(count)):
                target[uint64(at) + i] = function(target[uint64(at) + i])
        else:
            for i in range(uint64(count)):
                place = uint64(at) + i * uint64(jump)
                target[place] = function(target[place])

    return implementation


# Elements of one task of `finish`: they and the residual stay in a first-level cache.
CHUNK = 4096


def finish(result: Array, residual: Array, epilogue: Epilogue, threads: int) -> None:
    """Result = activation(result + residual), for algorithms that cannot do so as they store."""
    sizes = (1, 1, result.size, residual.size, 1, 0, SIZES + 3)
    geometry = np.array([*sizes, activation_code(epilogue), epilogue.residual, CHUNK], np.int64)
    none = np.zeros(1, result.dtype)
    launch = Launch(_finish, -(-result.size // CHUNK), result.dtype.name, geometry, 0)
    launch(none, none, result, residual, none, threads)


@kernel
def _finish(task, x, w, y, residual, constants, workspace, geometry):
    """One task: y = activation(y + residual) for one chunk of y."""
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    activation, has_residual, chunk = geometry[SIZES], geometry[SIZES + 1], geometry[SIZES + 2]
    begin = task * chunk
    count = min(chunk, y.size - begin)
    if has_residual:
        for i in range(begin, begin + count):
            y[i] += residual[i]
    activate_row(y, begin, 1, count, activation)
