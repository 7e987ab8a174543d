"""Looking for NaN, Inf and huge elements, which some algorithms would spread.

Either in one pass over an array, on all threads, or in the sums that a kernel has in registers: what is bad in an input
shows in the sums that it reaches. 8x64x112x112 to 64, 3x3, took 15.0 ms with a pass over the result and takes 14.3
without, 16x570x570 to 16 7.1 and 6.5, 256x14x14 to 256 0.65 and 0.61.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from llvmlite import ir
from numba import types, uint64
from numba.extending import intrinsic

from ..core.algorithm import Array
from ..core.arrays import extreme
from ..core.jit import kernel
from ..core.problem import ConvProblem, Op
from ._gemm import lanes_of
from ._kernel import SIZES, views
from ._launch import Launch
from ._simd import Emitter

# Elements of a task: 128 KiB of float32.
PART = 1 << 15
# Elements up to which NumPy is as fast, in two passes.
FEW = 1 << 16


def is_extreme(array: Array, limit: float, threads: int) -> bool:
    """Whether an element of a contiguous array is NaN, infinite or at least `limit` in magnitude, in either part.

    2.4 million elements of float32: 84 us on two threads of the machine of docs/performance.md, 223 us through NumPy.
    """
    if array.size <= FEW:
        return extreme(array, limit)
    reals = array.reshape(-1).view(array.real.dtype)
    launch, parts = _launch_for(reals.size, reals.dtype.name)
    found = np.empty(parts, reals.dtype)
    launch(reals, found, found, found, np.array([limit], reals.dtype), threads)
    return bool(found.any())


def limit_of(problem: ConvProblem, op: Op, growth: float) -> float:
    """Magnitude of elements below which no sum of products overflows, where sums may grow by this factor."""
    return math.sqrt(float(np.finfo(problem.dtype).max) / problem.terms(op) / growth)


@kernel
def _find(task, x, w, y, residual, constants, workspace, geometry):
    """y[task] = 1 where an element of a part of x is not below constants[0] in magnitude, else 0."""
    x, w, y, residual, constants, workspace, geometry = views(x, w, y, residual, constants, workspace, geometry)
    limit = constants[0]
    found = False
    for i in range(uint64(task * PART), uint64(min((task + 1) * PART, x.size))):
        found |= not abs(x[i]) < limit  # not >=: NaN is not below the limit, either
    y[task] = found


@lru_cache(maxsize=1024)
def _launch_for(size: int, dtype: str) -> tuple[Launch, int]:
    """The launch for so many elements, and its tasks."""
    parts = -(-size // PART)
    geometry = np.array([size, parts, parts, parts, 1, 0, SIZES], np.int64)
    return Launch(_find, parts, dtype, geometry, 0), parts


# ---- in registers
#
# The bits of magnitudes are integers in the order of the numbers; Inf is above all of these, and NaN above Inf.


def greatest_bits(emitter: Emitter, values: list[ir.Value], count: ir.Value, greatest: ir.Value) -> ir.Value:
    """Lane by lane the greatest of the bits of `greatest` and of magnitudes, for the first `count` lanes."""
    builder, whole = emitter.builder, ir.VectorType(ir.IntType(emitter.bits), emitter.lanes)
    magnitude = ir.Constant(whole, [ir.Constant(whole.element, (1 << emitter.bits - 1) - 1)] * emitter.lanes)

    def greater(first: ir.Value, second: ir.Value) -> ir.Value:
        return builder.select(builder.icmp_signed(">", first, second), first, second)

    found = ir.Constant(whole, None)
    for value in values:
        found = greater(found, builder.and_(builder.bitcast(value, whole), magnitude))
    known = builder.bitcast(greatest, whole)
    return builder.bitcast(builder.select(emitter.first(count), greater(found, known), known), emitter.part)


@intrinsic
def greatest_magnitudes(typing_context, value, count, greatest):
    """Lane by lane the greatest of `greatest` and of magnitudes of a value of one register, for the first `count`."""

    def codegen(context, builder, signature, arguments):
        emitter = Emitter(builder, value.dtype)
        return greatest_bits(emitter, [arguments[0]], arguments[1], arguments[2])

    return greatest(value, types.int64, greatest), codegen


class NoticingLaunch:
    """A launch whose tasks write a vector each, of the greatest magnitudes that they met, in the residual's place."""

    def __init__(self, launch: Launch, vectors: int, dtype: str, limit: float) -> None:
        self._launch, self._size, self._dtype, self._limit = launch, vectors * lanes_of(dtype), dtype, limit

    def __call__(self, x: Array, w: Array, y: Array, residual: Array, constants: Array, threads: int) -> bool:
        """Run every task, and tell whether a magnitude is NaN, infinite or at least the limit."""
        greatest = np.empty(self._size, self._dtype)
        self._launch(x, w, y, greatest, constants, threads)
        return not greatest.max() < self._limit  # NumPy's maximum is NaN where there is one
