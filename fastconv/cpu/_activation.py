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
from llvmlite import ir
from numba import types, uint64
from numba.extending import intrinsic, overload

from ..core.algorithm import Array, Epilogue
from ..core.jit import SUBROUTINE, Kernel, kernel, subroutine
from ._exponential import exp, normal_distribution, tanh
from ._kernel import SIZES, never_inlined, view, views
from ._launch import Launch
from ._simd import element, lanes, load_first, not_below_zero, store_first

RELU = 1
NEGATIVE_SLOPE = 0.01  # of leaky_relu, as in PyTorch


def activation_code(epilogue: Epilogue, dtype: str) -> int:
    """What kernels know an activation by: 0 for none, RELU, or the address of one of `CURVES`.

    So only who asks for a curve compiles it.
    """
    if epilogue.activation in (None, "relu"):
        return RELU if epilogue.activation else 0
    return CURVES[epilogue.activation].address(dtype)


def activate_row(target, at, jump, count, activation):
    """Apply the activation of this code to `count` elements, `jump` apart."""
    raise NotImplementedError("called from compiled code only")


@overload(activate_row, jit_options=SUBROUTINE)
def _choose_activate_row(target, at, jump, count, activation):
    chosen = _nothing if isinstance(target.dtype, types.Complex) else _activate

    def implementation(target, at, jump, count, activation):
        if activation != 0:
            chosen(target, at, jump, count, activation)

    return implementation


@subroutine
def _nothing(target, at, jump, count, activation):
    """Complex numbers have no activation."""


@subroutine
def _activate(target, at, jump, count, activation):
    never_inlined()
    if activation == RELU:
        _relu(target, at, jump, count)
    elif jump == 1:
        _call_curve(activation, target, at, count)
    else:
        for i in range(count):
            _call_curve(activation, target, at + i * jump, 1)


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


@intrinsic
def _call_curve(typing_context, address, target, at, count):
    """Call a curve through its address: the number of elements, then where they are for each pointer of a kernel."""

    def codegen(context, builder, signature, arguments):
        values = element(context, builder, signature.args[1], arguments[1], arguments[2])
        integers = ir.Constant(ir.IntType(64).as_pointer(), None)
        kinds = [ir.IntType(64), *[values.type] * 6, integers.type]
        function = builder.inttoptr(arguments[0], ir.FunctionType(ir.VoidType(), kinds).as_pointer())
        builder.call(function, [arguments[3], *[values] * 6, integers])
        return context.get_dummy_value()

    return types.void(types.int64, target, types.int64, types.int64), codegen


@kernel
def _leaky_relu(count, values, w, y, residual, constants, workspace, geometry):
    row = view(values, count)
    for i in range(uint64(count)):
        row[i] = row[i] if row[i] > 0 else row[i] * type(row[i])(NEGATIVE_SLOPE)


@kernel
def _sigmoid(count, values, w, y, residual, constants, workspace, geometry):
    row = view(values, count)
    for i in range(uint64(count)):
        row[i] = type(row[i])(1) / (type(row[i])(1) + exp(-row[i]))


@kernel
def _silu(count, values, w, y, residual, constants, workspace, geometry):
    row = view(values, count)
    for i in range(uint64(count)):
        row[i] = row[i] / (type(row[i])(1) + exp(-row[i]))


@kernel
def _gelu(count, values, w, y, residual, constants, workspace, geometry):
    row = view(values, count)
    for i in range(uint64(count)):
        row[i] = row[i] * normal_distribution(row[i])


@kernel
def _tanh(count, values, w, y, residual, constants, workspace, geometry):
    row = view(values, count)
    for i in range(uint64(count)):
        row[i] = tanh(row[i])


CURVES: dict[str, Kernel] = {
    "leaky_relu": _leaky_relu,
    "silu": _silu,
    "gelu": _gelu,
    "sigmoid": _sigmoid,
    "tanh": _tanh,
}


# Elements of one task of `finish`: they and the residual stay in a first-level cache.
CHUNK = 4096


def finish(result: Array, residual: Array, epilogue: Epilogue, threads: int) -> None:
    """Result = activation(result + residual), for algorithms that cannot do so as they store."""
    sizes = (1, 1, result.size, residual.size, 1, 0, SIZES + 3)
    geometry = np.array([*sizes, activation_code(epilogue, result.dtype.name), epilogue.residual, CHUNK], np.int64)
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
