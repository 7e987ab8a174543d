"""The product at the heart of every algorithm: rows of weights times rows of pixels.

For float32 and float64 a register tile of sums, some rows times some vectors, stays in registers while the terms go
by: for each term it loads the vectors once and multiplies them by one broadcast weight a row. For the other types
the plain loops of `fastconv.cpu._loops` do the same.

Source: Van Zee, van de Geijn, "BLIS: A Framework for Rapidly Instantiating BLAS Functionality", ACM Trans. Math.
Softw. 41 (2015), section 5 (the micro-kernel).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload
from numba.np.arrayobj import make_array

from ..core.jit import FASTMATH, subroutine
from ._geometry import even_split
from ._loops import multiply_plain

TILED = ("float32", "float64")


class RegisterTile(NamedTuple):
    """Vector length in bytes, rows and vectors of the tile, and vectors of the tile for a single row."""

    bytes: int
    rows: int
    vectors: int
    wide: int


def _host_tile() -> RegisterTile:
    """The largest tile whose sums, vectors and one broadcast fit the registers of this processor.

    8 x 3 of 32 registers reached 99 % of the peak on the machine of docs/performance.md, 4 x 3 is its half for 16
    registers.
    """
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return RegisterTile(64, 8, 3, 8)
    if features.get("avx2"):
        return RegisterTile(32, 4, 3, 8)
    return RegisterTile(16, 8, 3, 8) if features.get("neon") else RegisterTile(16, 4, 3, 8)


TILE = _host_tile()
ROWS, VECTORS, WIDE = TILE.rows, TILE.vectors, TILE.wide


def padded(pixels: int, dtype: str) -> int:
    """Pixels rounded up to whole vectors: the distance of rows that `multiply` reads or writes."""
    lanes = TILE.bytes // np.dtype(dtype).itemsize if dtype in TILED else 1
    return -(-pixels // lanes) * lanes


def whole_rows(rows: int, most: int) -> int:
    """Size of the about equal blocks, of at most about `most`, that rows are divided into: whole register tiles."""
    return max(1, min(rows, -(-even_split(rows, most) // ROWS) * ROWS))


def multiply(sums, sums_at, pitch, rows, pixels, weights, weights_at, weights_pitch, source, offsets, offsets_at, terms):
    """sums[k, i] += sum over j of weights[k, j] * source[offsets[j] + i], for k < rows, i < pixels, j < terms.

    sums: (rows, pitch); weights: (rows, weights_pitch); offsets: (terms,), positions in `source`. Whole vectors are
    read and written: pitch is at least padded(pixels), and source has as many elements after the last.
    """
    raise NotImplementedError("called from compiled code only")


@overload(multiply, jit_options={"fastmath": FASTMATH, "error_model": "numpy"})
def _choose_multiply(
    sums, sums_at, pitch, rows, pixels, weights, weights_at, weights_pitch, source, offsets, offsets_at, terms
):
    chosen = multiply_tiles if sums.dtype in (types.float32, types.float64) else multiply_plain

    def implementation(
        sums, sums_at, pitch, rows, pixels, weights, weights_at, weights_pitch, source, offsets, offsets_at, terms
    ):
        chosen(
            sums, sums_at, pitch, rows, pixels,
            weights, weights_at, weights_pitch, source, offsets, offsets_at, terms,
        )  # fmt: skip

    return implementation


@subroutine
def multiply_tiles(
    sums, sums_at, pitch, rows, pixels, weights, weights_at, weights_pitch, source, offsets, offsets_at, terms
):
    """`multiply` in register tiles; the vectors of a row are dealt out to tiles of 3 and 2 rather than 3 and 1."""
    if terms == 0:
        return
    lanes = _lanes(sums)
    vectors = -(-pixels // lanes)
    whole = rows - rows % ROWS
    for k in range(0, whole, ROWS):
        v = 0
        while v < vectors:
            at, w_at, left = sums_at + k * pitch + v * lanes, weights_at + k * weights_pitch, vectors - v
            if left >= VECTORS and left != VECTORS + 1:
                _add_tile(ROWS, VECTORS, sums, at, pitch, weights, w_at, weights_pitch, source, v * lanes, offsets, offsets_at, terms)
                v += VECTORS
            elif left >= 2:
                _add_tile(ROWS, 2, sums, at, pitch, weights, w_at, weights_pitch, source, v * lanes, offsets, offsets_at, terms)
                v += 2
            else:
                _add_tile(ROWS, 1, sums, at, pitch, weights, w_at, weights_pitch, source, v * lanes, offsets, offsets_at, terms)
                v += 1
    for k in range(whole, rows):
        v = 0
        while v < vectors:
            at, w_at = sums_at + k * pitch + v * lanes, weights_at + k * weights_pitch
            if vectors - v >= WIDE:
                _add_tile(1, WIDE, sums, at, pitch, weights, w_at, weights_pitch, source, v * lanes, offsets, offsets_at, terms)
                v += WIDE
            else:
                _add_tile(1, 1, sums, at, pitch, weights, w_at, weights_pitch, source, v * lanes, offsets, offsets_at, terms)
                v += 1


def _vector_type(dtype: Any) -> ir.VectorType:
    element = ir.FloatType() if dtype == types.float32 else ir.DoubleType()
    return ir.VectorType(element, TILE.bytes * 8 // dtype.bitwidth)


@intrinsic
def _lanes(typing_context, array):
    """Elements of a vector, a constant."""

    def codegen(context, builder, signature, arguments):
        return ir.Constant(ir.IntType(64), _vector_type(signature.args[0].dtype).count)

    return types.int64(array), codegen


@intrinsic(prefer_literal=True)
def _add_tile(
    typing_context, rows, vectors, sums, sums_at, pitch, weights, weights_at, weights_pitch,
    source, source_at, offsets, offsets_at, terms,
):  # fmt: skip
    """sums[k, i] += sum over j < terms of weights[k, j] * source[offsets[j] + source_at + i], in registers.

    rows, vectors: literal extents of the tile; terms: at least 1.
    """
    integer = types.int64
    signature = types.void(
        rows, vectors, sums, integer, integer, weights, integer, integer, source, integer, offsets, integer, integer
    )
    height, width = rows.literal_value, vectors.literal_value

    def codegen(context, builder, signature, arguments):
        vector = _vector_type(sums.dtype)
        size = sums.dtype.bitwidth // 8
        fma = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(vector, [vector] * 3),
            f"llvm.fma.v{vector.count}f{sums.dtype.bitwidth}",
        )

        def pointer(argument):
            """Address of the element of an array argument at the position in the argument after it."""
            array = make_array(signature.args[argument])(context, builder, arguments[argument])
            return builder.gep(array.data, [arguments[argument + 1]])

        def constant(value):
            return ir.Constant(ir.IntType(64), value)

        def vector_at(base, number):
            return builder.bitcast(builder.gep(base, [constant(number * vector.count)]), vector.as_pointer())

        def load(address):
            value = builder.load(address)
            value.align = size  # rows begin anywhere
            return value

        def broadcast(scalar):
            undefined = ir.Constant(vector, ir.Undefined)
            first = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
            everywhere = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None)
            return builder.shuffle_vector(first, undefined, everywhere)

        sums_base, weights_base, source_base, offsets_base = map(pointer, (2, 5, 8, 10))
        pitch, weights_pitch, terms = arguments[4], arguments[7], arguments[12]
        sum_rows = [builder.gep(sums_base, [builder.mul(pitch, constant(k))]) for k in range(height)]
        weight_rows = [builder.gep(weights_base, [builder.mul(weights_pitch, constant(k))]) for k in range(height)]
        first_sums = [load(vector_at(row, v)) for row in sum_rows for v in range(width)]

        before = builder.block
        loop = builder.append_basic_block("terms")
        after = builder.append_basic_block("store")
        builder.branch(loop)
        builder.position_at_end(loop)
        j = builder.phi(ir.IntType(64))
        j.add_incoming(constant(0), before)
        totals = [builder.phi(vector) for _ in first_sums]
        for total, first in zip(totals, first_sums, strict=True):
            total.add_incoming(first, before)
        row = builder.gep(source_base, [builder.load(builder.gep(offsets_base, [j]))])
        pixels = [load(vector_at(row, v)) for v in range(width)]
        added = []
        for k in range(height):
            weight = broadcast(builder.load(builder.gep(weight_rows[k], [j])))
            added += [builder.call(fma, [weight, pixels[v], totals[k * width + v]]) for v in range(width)]
        following = builder.add(j, constant(1))
        j.add_incoming(following, loop)
        for total, value in zip(totals, added, strict=True):
            total.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", following, terms), loop, after)

        builder.position_at_end(after)
        for k in range(height):
            for v in range(width):
                builder.store(added[k * width + v], vector_at(sum_rows[k], v)).align = size
        return context.get_dummy_value()

    return signature, codegen
