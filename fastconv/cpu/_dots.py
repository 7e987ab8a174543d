"""Products as dot products along the terms: a vector holds neighbouring terms of a row and of a column.

Images of 7x7 and 14x14 leave one and four pixels over, for which a vector of pixels would do as much work as for
sixteen. Their terms are put together once. And where sums run over pixels, as those of GRAD_WEIGHT, rows and columns
are read as they are, and nothing needs to be transposed.
"""

from __future__ import annotations

from typing import NamedTuple

from numba import types, uint64
from numba.core import cgutils
from numba.extending import intrinsic

from ..core.jit import subroutine
from ._gemm import ROWS, VECTORS, Product
from ._kernel import never_inlined, number
from ._simd import INDEX, LANE, Emitter, element, index

# Columns of a register tile whose terms come in lines, where the ROWS make as many sums as `fastconv.cpu._gemm` has.
LINE_COLUMNS = VECTORS
# Cycles of such a tile beside its products: to add up its sums across the lanes, to begin a line, and to mask the end
# of one. 512 channels of 7x7 to 2048, 1x1, took 244 for each tile, of which the products are 96; lines of 112 pixels
# took 171, of which they are 168, and lines of 28 took 100, of which they are 48.
SUMS_CYCLES, LINE_CYCLES, MASKED_CYCLES = 100, 4, 48
# Columns that are left over and computed so, at most; their sums with four rows, or those of one with eight, are at
# most sixteen.
MOST = 4
# Time of so many columns over that of a vector of them: 0.26 for the 49th pixel, 0.37 for the 49th to the 52nd, of 1024
# channels to 256, 1x1.
FIRST_STEPS, MORE_STEPS = 0.22, 0.04


def steps(columns: int, lanes: int) -> float:
    """Vectors of columns that take as long, where what is left over is computed here."""
    left = columns % lanes
    if left > MOST:
        return columns // lanes + 1
    return columns // lanes + (FIRST_STEPS + MORE_STEPS * left if left else 0)


def line_cycles(terms: int, lanes: int) -> int:
    """Cycles of a register tile for a line of terms, beside its products."""
    return LINE_CYCLES + (MASKED_CYCLES if terms % lanes else 0)


@subroutine
def multiply_by_dots(product, at, pitch, rows, column, count):
    """The columns of a `Product` from `column` on, at most MOST; its weights must be taken one after the other.

    product.right[at + i * pitch + j] is overwritten with the j-th term of column i, for i < count.
    """
    never_inlined()
    for i in range(count):
        begin = product.right_at + column + i
        for j in range(product.terms):
            offset = number(product.table, product.offset_at + j)
            product.right[uint64(at + i * pitch + j)] = product.right[uint64(begin + offset)]
    if count == 1:
        for k in range(0, rows, 8):
            _add_dots(8, 1, product, at, pitch, k, min(8, rows - k), column, count)
    else:
        for k in range(0, rows, 4):
            _add_dots(4, MOST, product, at, pitch, k, min(4, rows - k), column, count)


class Lines(NamedTuple):
    """Terms that come in lines of `Product.terms`: how many, and from one to the next in the rows and the columns."""

    number: int
    left_pitch: int
    right_pitch: int


@subroutine
def multiply_lines(product, rows, columns, lines):
    """sums[k, i] = or += sum over lines and j of left[row[k] + line * pitch + j] * right[offset[i] + line * pitch + j].

    For a `Product` whose terms are neighbours; `taken_at` has no meaning.
    """
    never_inlined()
    for k in range(0, rows, ROWS):
        held = min(ROWS, rows - k)
        i = 0
        while i < columns:
            if columns - i >= LINE_COLUMNS:
                _add_lines(ROWS, LINE_COLUMNS, product, k, held, i, lines)
                i += LINE_COLUMNS
            else:
                _add_lines(ROWS, 1, product, k, held, i, lines)
                i += 1


@intrinsic(prefer_literal=True)
def _add_lines(typing_context, rows, columns, product, k, held, column, lines):
    """Set or add to the sums of `held` rows from k on and all of the columns from `column` on.

    rows, columns: literals, the extents of the sums in registers; lines: `Lines`.
    """
    integer = types.int64
    height, width = rows.literal_value, columns.literal_value

    def codegen(context, builder, signature, arguments):
        kinds = Product(*signature.args[2].types)
        values = Product(*cgutils.unpack_tuple(builder, arguments[2]))
        _, _, _, k, held, column, lines = arguments
        lines = Lines(*cgutils.unpack_tuple(builder, lines))
        emitter = Emitter(builder, kinds.sums.dtype)
        row, offset = (
            element(context, builder, kinds.table, values.table, builder.add(*place))
            for place in ((values.row_at, k), (values.offset_at, column))
        )
        left = element(context, builder, kinds.left, values.left, values.left_at)
        right = element(context, builder, kinds.right, values.right, values.right_at)
        place = builder.add(values.sums_at, builder.add(builder.mul(k, values.pitch), column))
        sums = element(context, builder, kinds.sums, values.sums, place)
        lefts = [
            builder.gep(left, [builder.load(builder.gep(row, [_existing(builder, each, held)]))])
            for each in range(height)
        ]
        rights = [builder.gep(right, [builder.load(builder.gep(offset, [index(each)]))]) for each in range(width)]
        totals = _emit_lines(emitter, values.terms, lefts, rights, lines)
        _emit_sums(emitter, values, sums, totals, height, width, held, index(width))
        return context.get_dummy_value()

    return types.void(rows, columns, product, integer, integer, integer, lines), codegen


@intrinsic(prefer_literal=True)
def _add_dots(typing_context, rows, columns, product, at, pitch, k, held, column, count):
    """Set or add to the sums of `held` rows from k on and `count` columns; the others are computed and dropped.

    rows, columns: literals, the extents of the sums in registers.
    """
    integer = types.int64
    height, width = rows.literal_value, columns.literal_value

    def codegen(context, builder, signature, arguments):
        kinds = Product(*signature.args[2].types)
        values = Product(*cgutils.unpack_tuple(builder, arguments[2]))
        _, _, _, at, pitch, k, held, column, count = arguments
        emitter = Emitter(builder, kinds.sums.dtype)
        row = element(context, builder, kinds.table, values.table, builder.add(values.row_at, k))
        taken = builder.load(element(context, builder, kinds.table, values.table, values.taken_at))
        left = element(context, builder, kinds.left, values.left, builder.add(values.left_at, taken))
        right = element(context, builder, kinds.right, values.right, at)
        place = builder.add(values.sums_at, builder.add(builder.mul(k, values.pitch), column))
        sums = element(context, builder, kinds.sums, values.sums, place)
        weights = [
            builder.gep(left, [builder.load(builder.gep(row, [_existing(builder, each, held)]))])
            for each in range(height)
        ]
        pixels = [
            builder.gep(right, [builder.mul(pitch, _existing(builder, each, count))]) for each in range(width)
        ]  # fmt: skip
        totals = _emit_line(emitter, values.terms, weights, pixels, [emitter.zero] * (height * width))
        _emit_sums(emitter, values, sums, totals, height, width, held, count)
        return context.get_dummy_value()

    return types.void(rows, columns, product, *[integer] * 6), codegen


def _existing(builder, place, count):
    """A row or column, or the last that exists."""
    exists = builder.icmp_signed("<", index(place), count)
    return builder.select(exists, index(place), builder.sub(count, index(1)))


def _emit_lines(emitter, terms, lefts, rights, lines):
    """The products of every row with every column, lane by lane, over all lines; there is one at least."""
    builder = emitter.builder
    before, head, after = builder.block, *map(builder.append_basic_block, ("lines", "sums"))
    builder.branch(head)
    builder.position_at_end(head)
    line = builder.phi(INDEX)
    totals = _phis(emitter, len(lefts) * len(rights))
    rows = [builder.gep(left, [builder.mul(line, lines.left_pitch)]) for left in lefts]
    columns = [builder.gep(right, [builder.mul(line, lines.right_pitch)]) for right in rights]
    added = _emit_line(emitter, terms, rows, columns, totals)
    following = builder.add(line, index(1))
    line.add_incoming(index(0), before)
    line.add_incoming(following, builder.block)
    _flow(totals, [emitter.zero] * len(totals), before)
    _flow(totals, added, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, lines.number), head, after)
    builder.position_at_end(after)
    return added


def _emit_line(emitter, terms, rows, columns, begun):
    """What was begun, plus the products of every row with every column, lane by lane, over one line of terms."""
    builder = emitter.builder
    before = builder.block
    head, body, last, short, done = map(builder.append_basic_block, ("head", "terms", "last", "short", "done"))
    builder.branch(head)
    builder.position_at_end(head)
    j = builder.phi(INDEX)
    totals = _phis(emitter, len(begun))
    following = builder.add(j, index(emitter.lanes))
    builder.cbranch(builder.icmp_signed("<=", following, terms), body, last)
    builder.position_at_end(body)
    added = _added(emitter, totals, rows, columns, lambda row: emitter.load(builder.gep(row, [j])))
    builder.branch(head)
    j.add_incoming(index(0), before)
    j.add_incoming(following, body)
    _flow(totals, begun, before)
    _flow(totals, added, body)
    builder.position_at_end(last)
    left = builder.sub(terms, j)
    builder.cbranch(builder.icmp_signed(">", left, index(0)), short, done)
    builder.position_at_end(short)
    rest = _added(emitter, totals, rows, columns, lambda row: emitter.load_first(builder.gep(row, [j]), left))
    builder.branch(done)
    builder.position_at_end(done)
    ended = _phis(emitter, len(begun))
    _flow(ended, totals, last)
    _flow(ended, rest, short)
    return ended


def _phis(emitter, count):
    """Values that depend on where the program comes from."""
    return [tuple(emitter.builder.phi(emitter.part) for _ in emitter.zero) for _ in range(count)]


def _flow(phis, values, block):
    """The values that phis take where the program comes from a block."""
    for parts, incoming in zip(phis, values, strict=True):
        for phi, part in zip(parts, incoming, strict=True):
            phi.add_incoming(part, block)


def _emit_sums(emitter, values, sums, totals, height, width, held, count):
    """Store the first `count` sums of the rows that exist, or add them to what is there."""
    builder = emitter.builder
    for number_of_row in range(height):
        with builder.if_then(builder.icmp_signed("<", index(number_of_row), held)):
            value = _gathered(emitter, totals[number_of_row * width : (number_of_row + 1) * width])
            to = builder.gep(sums, [builder.mul(values.pitch, index(number_of_row))])
            kept = builder.select(values.fresh, index(0), count)
            emitter.store_first(emitter.add(value, emitter.load_first(to, kept)), to, count)


def _added(emitter, totals, weights, pixels, load):
    """The totals plus the products of what is loaded of each row and each pixel."""
    seen = [load(pixel) for pixel in pixels]
    added = []
    for number_of_row, row in enumerate(weights):
        weight = load(row)
        begin = number_of_row * len(pixels)
        added += [emitter.fma(weight, each, totals[begin + i]) for i, each in enumerate(seen)]
    return added


def _gathered(emitter, totals):
    """A value whose first lanes are the sums of all lanes of each total."""
    parts = list(emitter.zero)
    for lane, total in enumerate(totals):
        for number_of_part, scalar in enumerate(emitter.total(total)):
            parts[number_of_part] = emitter.builder.insert_element(parts[number_of_part], scalar, LANE(lane))
    return tuple(parts)
