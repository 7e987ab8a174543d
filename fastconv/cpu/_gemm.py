"""The two products at the heart of every algorithm, in register tiles.

`multiply` adds weights times rows of pixels to rows of sums; `dots` adds up, over the pixels, rows of y times rows of
pixels. For float32 and float64 a tile of sums, some rows times some vectors or terms, stays in registers while the
inner index goes by, so that each load serves several multiplications. For the other types the plain loops of
`fastconv.cpu._loops` do the same.

Source: Van Zee, van de Geijn, "BLIS: A Framework for Rapidly Instantiating BLAS Functionality", ACM Trans. Math.
Softw. 41 (2015), section 5 (the micro-kernel).
"""

from __future__ import annotations

from typing import NamedTuple

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload
from numba.np.arrayobj import make_array

from ..core.jit import OPTIONS, subroutine
from ..core.problem import ConvProblem
from ._geometry import even_split
from ._loops import dots_plain, multiply_plain

TILED = ("float32", "float64")


class RegisterTile(NamedTuple):
    """Vector length in bytes, and the extents of the tiles of `multiply` and `dots`."""

    bytes: int
    rows: int
    vectors: int
    wide: int  # vectors of the tile for a single row
    dot_rows: int
    dot_terms: int


def _host_tile() -> RegisterTile:
    """The largest tile whose sums, vectors and one broadcast fit the registers of this processor.

    8 x 3 of 32 registers reached 99 % of the peak on the machine of docs/performance.md; 4 x 3 is its half for 16
    registers. A tile of dots holds its rows of y besides: 4 x 6, or 3 x 3.
    """
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return RegisterTile(64, 8, 3, 8, 4, 6)
    if features.get("avx2"):
        return RegisterTile(32, 4, 3, 8, 3, 3)
    return RegisterTile(16, 8, 3, 8, 4, 6) if features.get("neon") else RegisterTile(16, 4, 3, 8, 3, 3)


TILE = _host_tile()
ROWS, VECTORS, WIDE, DOT_ROWS, DOT_TERMS = TILE[1:]


# Part of the peak that register tiles and plain loops reach on the machine of docs/performance.md. Plain complex
# products do not vectorise well, and a tile of a single row loads a vector for each multiplication.
EFFICIENCY = {"f": 0.9, "i": 0.35, "c": 0.15}
SINGLE_ROW_EFFICIENCY = 0.5


def peak_flops(problem: ConvProblem, products: float, rows: int) -> float:
    """Operations at the peak that take as long as this many products, with this many rows of sums."""
    efficiency = EFFICIENCY[np.dtype(problem.dtype).kind]
    single = rows % ROWS / max(1, rows)
    slowness = (1 - single) / efficiency + single / min(efficiency, SINGLE_ROW_EFFICIENCY)
    return 2 * products * problem.real_products * slowness


def padded(pixels: int, dtype: str) -> int:
    """Pixels rounded up to whole vectors: the distance of rows that `multiply` reads or writes."""
    lanes = TILE.bytes // np.dtype(dtype).itemsize if dtype in TILED else 1
    return -(-pixels // lanes) * lanes


def whole_rows(rows: int, most: int) -> int:
    """Size of the about equal blocks, of at most about `most`, that rows are divided into: whole register tiles."""
    return max(1, min(rows, -(-even_split(rows, most) // ROWS) * ROWS))


def multiply(
    sums, sums_at, pitch, rows, pixels, weights, weights_at, weights_pitch, source, table, source_at, taken_at, terms
):
    """sums[k, i] += sum over j of weights[k * weights_pitch + taken[j]] * source[offset[j] + i], k < rows, i < pixels.

    sums: (rows, pitch); offset and taken: (terms,), in the table at source_at and taken_at. Whole vectors are read
    and written: pitch is at least padded(pixels), and source has as many elements after the last.
    """
    raise NotImplementedError("called from compiled code only")


@overload(multiply, jit_options=OPTIONS)
def _choose_multiply(
    sums, sums_at, pitch, rows, pixels, weights, weights_at, weights_pitch, source, table, source_at, taken_at, terms
):
    chosen = _multiply_tiles if _is_tiled(sums) else multiply_plain

    def implementation(
        sums,
        sums_at,
        pitch,
        rows,
        pixels,
        weights,
        weights_at,
        weights_pitch,
        source,
        table,
        source_at,
        taken_at,
        terms,
    ):
        chosen(
            sums, sums_at, pitch, rows, pixels,
            weights, weights_at, weights_pitch, source, table, source_at, taken_at, terms,
        )  # fmt: skip

    return implementation


def dots(sums, sums_at, pitch, rows, y, y_at, y_pitch, source, offsets, offsets_at, terms, begin, pixels):
    """sums[k, j] += sum over i of y[k, begin + i] * source[offsets[j] + begin + i], k < rows, j < terms, i < pixels.

    sums: (rows, pitch); y: (rows, y_pitch); offsets: (terms,), positions in `source`; pixels: at least 1.
    """
    raise NotImplementedError("called from compiled code only")


@overload(dots, jit_options=OPTIONS)
def _choose_dots(sums, sums_at, pitch, rows, y, y_at, y_pitch, source, offsets, offsets_at, terms, begin, pixels):
    chosen = _dots_tiles if _is_tiled(sums) else dots_plain

    def implementation(sums, sums_at, pitch, rows, y, y_at, y_pitch, source, offsets, offsets_at, terms, begin, pixels):
        chosen(sums, sums_at, pitch, rows, y, y_at, y_pitch, source, offsets, offsets_at, terms, begin, pixels)

    return implementation


def _is_tiled(array):
    return array.dtype in (types.float32, types.float64)


@subroutine
def _multiply_tiles(
    sums, sums_at, pitch, rows, pixels, weights, weights_at, weights_pitch, source, table, source_at, taken_at, terms
):
    """`multiply` in register tiles."""
    if terms == 0:
        return
    lanes = _lanes(sums)
    vectors = -(-pixels // lanes)
    k = 0
    while k < rows:
        at, w_at = sums_at + k * pitch, weights_at + k * weights_pitch
        if rows - k >= ROWS:
            v = 0
            while v < vectors:
                left = vectors - v
                if left >= VECTORS and left != VECTORS + 1:  # 4 vectors are 2 + 2 rather than 3 + 1
                    _add_tile(
                        ROWS, VECTORS, sums, at + v * lanes, pitch, weights, w_at, weights_pitch,
                        source, v * lanes, table, source_at, taken_at, terms,
                    )  # fmt: skip
                    v += VECTORS
                elif left >= 2:
                    _add_tile(
                        ROWS, 2, sums, at + v * lanes, pitch, weights, w_at, weights_pitch,
                        source, v * lanes, table, source_at, taken_at, terms,
                    )  # fmt: skip
                    v += 2
                else:
                    _add_tile(
                        ROWS, 1, sums, at + v * lanes, pitch, weights, w_at, weights_pitch,
                        source, v * lanes, table, source_at, taken_at, terms,
                    )  # fmt: skip
                    v += 1
            k += ROWS
        else:
            v = 0
            while v < vectors:
                if vectors - v >= WIDE:
                    _add_tile(
                        1, WIDE, sums, at + v * lanes, pitch, weights, w_at, weights_pitch,
                        source, v * lanes, table, source_at, taken_at, terms,
                    )  # fmt: skip
                    v += WIDE
                else:
                    _add_tile(
                        1, 1, sums, at + v * lanes, pitch, weights, w_at, weights_pitch,
                        source, v * lanes, table, source_at, taken_at, terms,
                    )  # fmt: skip
                    v += 1
            k += 1


@subroutine
def _dots_tiles(sums, sums_at, pitch, rows, y, y_at, y_pitch, source, offsets, offsets_at, terms, begin, pixels):
    """`dots` in register tiles."""
    j = 0
    while j < terms:
        tall = terms - j >= DOT_TERMS
        k = 0
        while k < rows:
            at, from_y = sums_at + k * pitch + j, y_at + k * y_pitch + begin
            many = rows - k >= DOT_ROWS
            if tall and many:
                _dot_tile(
                    DOT_ROWS,
                    DOT_TERMS,
                    sums,
                    at,
                    pitch,
                    y,
                    from_y,
                    y_pitch,
                    source,
                    begin,
                    offsets,
                    offsets_at + j,
                    pixels,
                )
            elif tall:
                _dot_tile(
                    1, DOT_TERMS, sums, at, pitch, y, from_y, y_pitch, source, begin, offsets, offsets_at + j, pixels
                )
            elif many:
                _dot_tile(
                    DOT_ROWS, 1, sums, at, pitch, y, from_y, y_pitch, source, begin, offsets, offsets_at + j, pixels
                )
            else:
                _dot_tile(1, 1, sums, at, pitch, y, from_y, y_pitch, source, begin, offsets, offsets_at + j, pixels)
            k += DOT_ROWS if many else 1
        j += DOT_TERMS if tall else 1


# ---- code generation


class _Vectors:
    """The few vector instructions that the tiles are made of, for one element type."""

    def __init__(self, builder, element):
        self._builder = builder
        self._bytes = element.bitwidth // 8
        self.lanes = TILE.bytes // self._bytes
        self._scalar = ir.FloatType() if self._bytes == 4 else ir.DoubleType()
        self.type = ir.VectorType(self._scalar, self.lanes)
        self.zero = ir.Constant(self.type, None)

    def _function(self, name, result, arguments):
        return cgutils.get_or_insert_function(self._builder.module, ir.FunctionType(result, arguments), name)

    def _address(self, base, number):
        element = self._builder.gep(base, [number])
        return self._builder.bitcast(element, self.type.as_pointer())

    def load(self, base, number):
        """A vector from the element `number` on, which may lie anywhere."""
        value = self._builder.load(self._address(base, number))
        value.align = self._bytes
        return value

    def load_first(self, base, number, mask):
        """A vector of which only the lanes of the mask are read; the others are zero."""
        address = self._address(base, number)
        function = self._function(
            f"llvm.masked.load.v{self.lanes}f{self._bytes * 8}.p0",
            self.type,
            [address.type, ir.IntType(32), mask.type, self.type],
        )
        return self._builder.call(function, [address, ir.Constant(ir.IntType(32), self._bytes), mask, self.zero])

    def first_lanes(self, count):
        """The mask of the first `count` lanes."""
        builder = self._builder
        integers = ir.VectorType(ir.IntType(64), self.lanes)
        numbers = ir.Constant(integers, [ir.Constant(ir.IntType(64), lane) for lane in range(self.lanes)])
        return builder.icmp_signed("<", numbers, self._everywhere(count, integers))

    def store(self, value, base, number):
        self._builder.store(value, self._address(base, number)).align = self._bytes

    def broadcast(self, scalar):
        return self._everywhere(scalar, self.type)

    def _everywhere(self, scalar, kind):
        undefined = ir.Constant(kind, ir.Undefined)
        first = self._builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), None)
        return self._builder.shuffle_vector(first, undefined, lanes)

    def multiply_add(self, first, second, total):
        name = f"llvm.fma.v{self.lanes}f{self._bytes * 8}"
        return self._builder.call(self._function(name, self.type, [self.type] * 3), [first, second, total])

    def total(self, value):
        """The sum of all lanes, in halves."""
        name = f"llvm.vector.reduce.fadd.v{self.lanes}f{self._bytes * 8}"
        function = self._function(name, self._scalar, [self._scalar, self.type])
        return self._builder.call(function, [ir.Constant(self._scalar, -0.0), value], fastmath=("reassoc",))


def _constant(value):
    return ir.Constant(ir.IntType(64), value)


def _pointer(context, builder, signature, arguments, number):
    """Address of the element of an array argument at the position in the argument after it."""
    array = make_array(signature.args[number])(context, builder, arguments[number])
    return builder.gep(array.data, [arguments[number + 1]])


def _not_unrolled(builder, index):
    """The index, hidden from the optimiser: an unrolled loop needs more registers than there are and spills sums.

    An empty piece of assembly passes it on; with the loop of 8 x 3 unrolled twice, `multiply` ran at 25 GFLOP/s instead
    of 110.
    """
    kind = ir.FunctionType(index.type, [index.type])
    return builder.call(ir.InlineAsm(kind, "", "=r,0", side_effect=False), [index])


def _rows(builder, base, pitch, count):
    return [builder.gep(base, [builder.mul(pitch, _constant(k))]) for k in range(count)]


@intrinsic
def _lanes(typing_context, array):
    """Elements of a vector, a constant."""

    def codegen(context, builder, signature, arguments):
        return _constant(TILE.bytes * 8 // signature.args[0].dtype.bitwidth)

    return types.int64(array), codegen


@intrinsic(prefer_literal=True)
def _add_tile(
    typing_context, rows, vectors, sums, sums_at, pitch, weights, weights_at, weights_pitch,
    source, first, table, source_at, taken_at, terms,
):  # fmt: skip
    """sums[k, i] += sum over j < terms of weights[k, taken[j]] * source[offset[j] + first + i], in registers.

    rows, vectors: literal extents of the tile; terms: at least 1.
    """
    integer = types.int64
    signature = types.void(
        rows, vectors, sums, integer, integer, weights, integer, integer, source, integer, table, *[integer] * 3
    )
    height, width = rows.literal_value, vectors.literal_value

    def codegen(context, builder, signature, arguments):
        simd = _Vectors(builder, sums.dtype)
        columns = [_constant(v * simd.lanes) for v in range(width)]
        sums_base, weights_base, source_base, offsets = (
            _pointer(context, builder, signature, arguments, number) for number in (2, 5, 8, 10)
        )
        taken = builder.gep(offsets, [builder.sub(arguments[12], arguments[11])])
        sum_rows = _rows(builder, sums_base, arguments[4], height)
        weight_rows = _rows(builder, weights_base, arguments[7], height)
        terms = arguments[13]
        begun = [simd.load(row, column) for row in sum_rows for column in columns]

        before, loop, after = builder.block, *map(builder.append_basic_block, ("terms", "store"))
        builder.branch(loop)
        builder.position_at_end(loop)
        j = builder.phi(ir.IntType(64))
        totals = [builder.phi(simd.type) for _ in begun]
        row = builder.gep(source_base, [builder.load(builder.gep(offsets, [j]))])
        weight_at = builder.load(builder.gep(taken, [j]))
        pixels = [simd.load(row, column) for column in columns]
        added = []
        for k in range(height):
            weight = simd.broadcast(builder.load(builder.gep(weight_rows[k], [weight_at])))
            added += [simd.multiply_add(weight, pixels[v], totals[k * width + v]) for v in range(width)]
        following = _not_unrolled(builder, builder.add(j, _constant(1)))
        for phi, start, value in zip([j, *totals], [_constant(0), *begun], [following, *added], strict=True):
            phi.add_incoming(start, before)
            phi.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", following, terms), loop, after)

        builder.position_at_end(after)
        for number, value in enumerate(added):
            simd.store(value, sum_rows[number // width], columns[number % width])
        return context.get_dummy_value()

    return signature, codegen


@intrinsic(prefer_literal=True)
def _dot_tile(
    typing_context, rows, terms, sums, sums_at, pitch, y, y_at, y_pitch, source, begin, offsets, offsets_at, pixels
):
    """sums[k, j] += sum over i < pixels of y[k, i] * source[offset[j] + begin + i], in registers.

    rows, terms: literal extents of the tile. The last vector is read only as far as `pixels`.
    """
    integer = types.int64
    signature = types.void(
        rows, terms, sums, integer, integer, y, integer, integer, source, integer, offsets, integer, integer
    )
    height, width = rows.literal_value, terms.literal_value

    def codegen(context, builder, signature, arguments):
        simd = _Vectors(builder, sums.dtype)
        sums_base, y_base, source_base, table = (
            _pointer(context, builder, signature, arguments, number) for number in (2, 5, 8, 10)
        )
        sum_rows = _rows(builder, sums_base, arguments[4], height)
        y_rows = _rows(builder, y_base, arguments[7], height)
        source_rows = [
            builder.gep(source_base, [builder.load(builder.gep(table, [_constant(j)]))]) for j in range(width)
        ]
        pixels = arguments[12]
        lanes = _constant(simd.lanes)
        tail = builder.srem(pixels, lanes)
        whole = builder.sub(pixels, tail)

        def accumulated(totals, load):
            given, seen = [load(row) for row in y_rows], [load(row) for row in source_rows]
            return [
                simd.multiply_add(given[number // width], seen[number % width], total)
                for number, total in enumerate(totals)
            ]

        # While a whole vector is left, take it; then the rest through a mask; then add up the lanes.
        before = builder.block
        test, body, rest, done = map(builder.append_basic_block, ("test", "whole", "rest", "done"))
        builder.branch(test)
        builder.position_at_end(test)
        i = builder.phi(ir.IntType(64))
        totals = [builder.phi(simd.type) for _ in range(height * width)]
        ahead = builder.append_basic_block("ahead")
        builder.cbranch(builder.icmp_signed("<", i, whole), body, ahead)
        builder.position_at_end(body)
        added = accumulated(totals, lambda row: simd.load(row, i))
        following = _not_unrolled(builder, builder.add(i, lanes))
        starts = [_constant(0), *[simd.zero] * len(totals)]
        for phi, start, value in zip([i, *totals], starts, [following, *added], strict=True):
            phi.add_incoming(start, before)
            phi.add_incoming(value, body)
        builder.branch(test)

        builder.position_at_end(ahead)
        builder.cbranch(builder.icmp_signed(">", tail, _constant(0)), rest, done)
        builder.position_at_end(rest)
        mask = simd.first_lanes(tail)
        completed = accumulated(totals, lambda row: simd.load_first(row, whole, mask))
        builder.branch(done)

        builder.position_at_end(done)
        for number, (total, value) in enumerate(zip(totals, completed, strict=True)):
            final = builder.phi(simd.type)
            final.add_incoming(total, ahead)
            final.add_incoming(value, rest)
            totals[number] = final
        for number, final in enumerate(totals):
            address = builder.gep(sum_rows[number // width], [_constant(number % width)])
            builder.store(builder.fadd(builder.load(address), simd.total(final)), address)
        return context.get_dummy_value()

    return signature, codegen
