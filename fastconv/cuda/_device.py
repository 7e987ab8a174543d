"""What kernels are written in: the words of the device, and the only place that knows Numba's CUDA target.

A kernel is a function of pointers and integers, made by a factory whose arguments are its compile-time constants.
Pointers are to elements of one type; `get` and `put` convert between that type and the one that is computed in:

============  ============  ===================================================
tensor        pointed at    computed in
============  ============  ===================================================
float32       float32       float32
float64       float64       float64
float16       its bits      float32
bfloat16      its bits      float32
tf32          float32       float32, products rounded to 11 bits where that pays
============  ============  ===================================================

Indices are 32-bit integers: Numba makes 64 bits of every sum and product, so that each is put into `int32` at its end,
once, and the compiler narrows what stands inside. What may lie beyond 2**31 elements is reached by `shifted`, once.

Under Numba's simulator (NUMBA_ENABLE_CUDASIM=1) the same words are the plain functions of `_simulated`. Memory of a
block and of a thread are `cuda.shared.array` and `cuda.local.array`, which Numba knows by these names alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda
from numba.core import config

from ._ready import require_packages

__all__ = [
    "FULL_WARP",
    "SIMULATED",
    "WARP",
    "add_products",
    "along_both",
    "barrier",
    "block_x",
    "block_y",
    "block_z",
    "copy_or_zero",
    "cuda",
    "fetched",
    "float32",
    "float64",
    "fourier",
    "from_other_lane",
    "function",
    "get",
    "get4",
    "get_behind",
    "int32",
    "int64",
    "pointer",
    "put",
    "put4",
    "quotient",
    "quotient_by",
    "real_of",
    "reciprocal",
    "record",
    "remainder",
    "repeated",
    "shifted",
    "sum_of_block",
    "sum_of_warp",
    "thread",
]

SIMULATED = bool(config.ENABLE_CUDASIM)

if not SIMULATED:
    require_packages()

# Element types by name: how each travels.
_TRAVELS_AS = {
    **{name: name for name in ("float32", "float64", "int32", "int64", "int8")},
    "float16": "int16",
    "bfloat16": "uint16",
    "tf32": "float32",
}
DTYPES = ("float32", "float64", "float16", "bfloat16")  # of tensors
COMPUTED_AS = {
    "float32": "float32",
    "float64": "float64",
    "float16": "float32",
    "bfloat16": "float32",
    "tf32": "float32",
}

WARP = 32
FULL_WARP = 0xFFFFFFFF

barrier = cuda.syncthreads


if SIMULATED:
    from ._plane_simulated import add_products, along_both, fourier
    from ._simulated import (
        copy_or_zero,
        fetched,
        float32,
        float64,
        function,
        get,
        get4,
        get_behind,
        int32,
        int64,
        pointer,
        put,
        put4,
        quotient,
        quotient_by,
        record,
        remainder,
        shifted,
    )
else:
    from ._function import function
    from ._intrinsics import (
        copy_or_zero,
        fetched,
        float32,
        float64,
        get,
        get4,
        get_behind,
        int32,
        int64,
        pointer,
        put,
        put4,
        quotient,
        quotient_by,
        record,
        remainder,
        shifted,
    )
    from ._plane_intrinsics import add_products, along_both, fourier


def repeated(count: int, step: Any) -> Any:
    """The function ``(arguments)`` that calls ``step(k, arguments)`` for k from 0 to count - 1, each a constant.

    The compiler leaves a loop around a large body; this is how such a body comes to have constant indices, and its
    loads to be moved across its repetitions. arguments: a tuple.
    """
    last = count - 1
    before = repeated(last, step) if last else None

    @function
    def calls(arguments):
        if before is not None:
            before(arguments)
        step(last, arguments)

    return calls


@function
def thread():
    """Number of the thread in its block, of one axis."""
    return int32(cuda.threadIdx.x)


@function
def block_x():
    """Number of the block along the grid's first axis."""
    return int32(cuda.blockIdx.x)


@function
def block_y():
    """Number of the block along the grid's second axis."""
    return int32(cuda.blockIdx.y)


@function
def block_z():
    """Number of the block along the grid's third axis."""
    return int32(cuda.blockIdx.z)


@function
def from_other_lane(value, distance):
    """The value of the thread whose number in the warp differs in the bits of `distance`."""
    return cuda.shfl_xor_sync(FULL_WARP, value, distance)


@function
def sum_of_warp(value):
    """The sum of a value over the 32 threads of a warp, in one order, in each of them."""
    for distance in (16, 8, 4, 2, 1):
        value += from_other_lane(value, distance)
    return value


def sum_of_block(warps: int) -> Any:
    """The function ``(value, parts)`` that gives thread 0 the sum of a value over a block, in one order.

    parts: shared memory, an element for each warp.
    """

    @function
    def total(value, parts):
        value = sum_of_warp(value)
        if remainder(thread(), int32(WARP)) == 0:
            parts[quotient(thread(), int32(WARP))] = value
        barrier()
        for warp in range(1, warps):
            value += parts[warp]
        return value

    return total


def real_of(dtype: str) -> Any:
    """The type that tensors of this type are computed in."""
    return {"float32": float32, "float64": float64}[COMPUTED_AS[dtype]]


def reciprocal(divisor: int) -> tuple[int, int]:
    """The multiplier, as 32 bits with a sign, and the shift by which `quotient_by` divides.

    With a shift l of at least log2(divisor) and m = ceil(2**(31 + l) / divisor), the quotient of n < 2**31 is
    n * m >> 31 + l (Granlund and Montgomery, "Division by invariant integers using multiplication", PLDI 1994,
    theorem 4.2).
    """
    shift = (divisor - 1).bit_length()
    return -(-(1 << 31 + shift) // divisor) - (1 << 32), shift


def travelling(dtype: str) -> np.dtype[Any]:
    """The NumPy type of the elements that a pointer to a tensor of this type points at."""
    return np.dtype(_TRAVELS_AS[dtype])
