"""Columns of a product that fill no vector, as dot products along the terms.

Images of 7x7 and 14x14 leave one and four pixels over, for which a vector of pixels would do as much work as for
sixteen. Their terms are put together once, and then a vector holds neighbouring terms of the weights and of a pixel.
"""

from __future__ import annotations

from numba import types, uint64
from numba.core import cgutils
from numba.extending import intrinsic

from ..core.jit import subroutine
from ._gemm import Product
from ._kernel import never_inlined, number
from ._simd import INDEX, LANE, Emitter, element, index

# Columns that are computed so, at most; their sums with four rows, or those of one with eight, are at most sixteen.
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
        totals = _emit_loop(emitter, values.terms, weights, pixels)
        for number_of_row in range(height):
            with builder.if_then(builder.icmp_signed("<", index(number_of_row), held)):
                value = _gathered(emitter, totals[number_of_row * width : (number_of_row + 1) * width])
                to = builder.gep(sums, [builder.mul(values.pitch, index(number_of_row))])
                kept = builder.select(values.fresh, index(0), count)
                emitter.store_first(emitter.add(value, emitter.load_first(to, kept)), to, count)
        return context.get_dummy_value()

    return types.void(rows, columns, product, *[integer] * 6), codegen


def _existing(builder, place, count):
    """A row or column, or the last that exists."""
    exists = builder.icmp_signed("<", index(place), count)
    return builder.select(exists, index(place), builder.sub(count, index(1)))


def _emit_loop(emitter, terms, weights, pixels):
    """The products of every row of weights with every pixel, lane by lane, over all terms."""
    builder = emitter.builder
    before, head, body, after = builder.block, *map(builder.append_basic_block, ("head", "terms", "last"))
    builder.branch(head)
    builder.position_at_end(head)
    j = builder.phi(INDEX)
    totals = [tuple(builder.phi(emitter.part) for _ in emitter.zero) for _ in range(len(weights) * len(pixels))]
    following = builder.add(j, index(emitter.lanes))
    builder.cbranch(builder.icmp_signed("<=", following, terms), body, after)
    builder.position_at_end(body)
    added = _added(emitter, totals, weights, pixels, lambda row: emitter.load(builder.gep(row, [j])))
    builder.branch(head)
    j.add_incoming(index(0), before)
    j.add_incoming(following, body)
    for phis, parts in zip(totals, added, strict=True):
        for phi, zero, part in zip(phis, emitter.zero, parts, strict=True):
            phi.add_incoming(zero, before)
            phi.add_incoming(part, body)
    builder.position_at_end(after)
    left = builder.sub(terms, j)
    return _added(emitter, totals, weights, pixels, lambda row: emitter.load_first(builder.gep(row, [j]), left))


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
