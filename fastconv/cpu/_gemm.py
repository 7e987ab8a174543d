"""The product at the heart of every algorithm, in register tiles.

A tile of sums, some rows times some vectors, stays in registers while the inner index goes by, so that each load
serves several multiplications. What is multiplied is found through tables, so that no operand needs to be packed:
weights are read where they are, pixels where a strip or a panel holds them.

Source: Van Zee, van de Geijn, "BLIS: A Framework for Rapidly Instantiating BLAS Functionality", ACM Trans. Math.
Softw. 41 (2015), section 5 (the micro-kernel).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..core.jit import subroutine
from ..core.problem import ConvProblem
from ._geometry import even_split
from ._kernel import never_inlined
from ._past_caches import store_away
from ._simd import FAST_PRODUCTS, INDEX, REGISTER_BYTES, VECTOR_OPERAND, Emitter, cpu_features, element, index, lanes


class RegisterTile(NamedTuple):
    """Extents of the tiles: many rows, few rows, and a single one."""

    rows: int
    vectors: int
    few_rows: int
    few_vectors: int
    single_vectors: int


def _register_tile() -> RegisterTile:
    """The largest tiles whose sums, vectors and one broadcast fit the registers of this processor.

    8 x 3 of 32 registers reached 98 % of the peak on the machine of docs/performance.md; 4 x 3 is its half for 16.
    """
    features = cpu_features()
    many = features.get("avx512f") or features.get("neon")
    return RegisterTile(8, 3, 4, 6, 8) if many else RegisterTile(4, 3, 2, 4, 8)


TILE = _register_tile()
ROWS, VECTORS, FEW_ROWS, FEW_VECTORS, SINGLE_VECTORS = TILE
# Sums that a complex tile keeps at once: each takes two registers.
COMPLEX_SUMS = ROWS * VECTORS // 2
# Stands for half a vector: 81 GFLOP/s where 8 columns are left, which a whole one would do at 57.
HALF = 0
# Rows behind the last that `multiply` may write.
SPARE_ROWS = FEW_ROWS - 1


# Cycles of a product of two registers. Where two products take one, all else takes as long, so that less of it should
# stand beside them. Of 0.6, 0.7 and 0.8 the last changes the fewest choices on an Intel Xeon, and only for better:
# 3x224x224 to 64, 7x7 with a stride of 2, 0.91 to 0.76 ms, its GRAD_WEIGHT 1.41 to 0.87; with 0.6 a GRAD_WEIGHT of 32
# groups took 2.1 ms in place of 1.3.
PRODUCT_CYCLES = 0.8 if FAST_PRODUCTS else 1.0
# Cycles of a register tile beside its products: to find its rows, to load and to store its sums. Fitted as those of
# `fastconv.cpu._rows`.
TILE_CYCLES = 80


def lanes_of(dtype: str) -> int:
    """Elements of one step of `multiply`: a register of them, or two registers of complex ones."""
    kind = np.dtype(dtype)
    return REGISTER_BYTES // (kind.itemsize // (2 if kind.kind == "c" else 1))


def padded(count: int, dtype: str) -> int:
    """Elements rounded up to whole vectors: the distance of rows that `multiply` reads or writes."""
    return -(-count // lanes_of(dtype)) * lanes_of(dtype)


def whole_rows(rows: int, most: int) -> int:
    """Size of the about equal blocks, of at most about `most`, that rows are divided into: whole register tiles."""
    return max(1, min(rows, -(-even_split(rows, most) // ROWS) * ROWS))


def row_cycles(rows: int) -> float:
    """Cycles that rows take for each term and vector: those of a short or single tile are counted as what they cost."""
    rest = rows % ROWS
    return PRODUCT_CYCLES * (
        rows if rest == 0 else rows - rest + (-(-rest // FEW_ROWS) * FEW_ROWS if rest > 2 else 2 * rest)
    )


def column_steps(columns: int, lanes: int) -> int:
    """Vectors that take as long: half of one, where that is left over, is no faster than one if weights are far."""
    return -(-columns // lanes)


def vector_steps(problem: ConvProblem) -> int:
    """Multiply-adds of one register that a product of vectors takes: four for complex numbers."""
    return problem.real_products


class Ending(NamedTuple):
    """What happens to sums, in the place of `Product.fresh` alone."""

    fresh: bool
    past_caches: bool  # whether vectors are set past the caches, at places that begin registers


class Near(NamedTuple):
    """In the place of `Product.fresh`, for sums that stand in a cache, where nothing is gained by fetching them."""

    fresh: bool


class Product(NamedTuple):
    """sums[k, i] = or += sum over j of left[row[k] + taken[j]] * right[offset[j] + i].

    row, taken and offset are integers in `table`, from their ..._at on; sums, left and right begin at their own.
    """

    sums: types.Array
    sums_at: int
    pitch: int  # of the rows of sums
    left: types.Array
    left_at: int
    right: types.Array
    right_at: int
    table: types.Array
    row_at: int
    taken_at: int
    offset_at: int
    terms: int
    fresh: bool | Ending | Near  # whether the sums are set, not added to


@subroutine
def multiply_last(product, rows, column, count):
    """The columns of a `Product` that fill no vector: `count` from `column` on; only these are written.

    rows: whole register tiles.
    """
    for k in range(0, rows, ROWS):
        add_tile(ROWS, 1, product, k, column, ROWS, None, count)


class Place(NamedTuple):
    """Where something stands that belongs to terms: that of term j from array[at + table[terms_at + j]] on."""

    at: int
    terms_at: int


class Fetched(NamedTuple):
    """What a register tile fetches for a later one: an element with each term."""

    array: types.Array
    place: Place


class Copied(NamedTuple):
    """What a register tile copies as it meets it, or None: vectors of columns, and rows, which are neighbours."""

    array: types.Array
    columns: Place | None
    rows: Place | None


@subroutine
def multiply(product, rows, columns):
    """A `Product` of this many rows and columns.

    Whole vectors are read and written, and up to SPARE_ROWS rows of sums behind the last are overwritten.
    """
    step = lanes(product.sums)
    vectors = -(-columns // step)
    k = 0
    while rows - k >= ROWS:
        held = rows - k
        v = 0
        while v < vectors:
            left = vectors - v
            if left >= VECTORS and left != VECTORS + 1:  # 4 vectors are 2 + 2 rather than 3 + 1
                add_tile(ROWS, VECTORS, product, k, v * step, held, None, None)
                v += VECTORS
            elif left >= 2:
                add_tile(ROWS, 2, product, k, v * step, held, None, None)
                v += 2
            elif 2 * (columns - v * step) > step:
                add_tile(ROWS, 1, product, k, v * step, held, None, None)
                v += 1
            else:
                add_tile(ROWS, HALF, product, k, v * step, held, None, None)
                v += 1
        k += ROWS
    multiply_last_rows(product, k, rows, columns)


@subroutine
def multiply_last_rows(product, first, rows, columns):
    """The rows of a `Product` from `first` on, which make no whole register tile."""
    step = lanes(product.sums)
    vectors = -(-columns // step)
    k = first
    while k < rows:
        held = rows - k
        v = 0
        if held > 2:
            while v < vectors:
                if vectors - v >= FEW_VECTORS:
                    add_tile(FEW_ROWS, FEW_VECTORS, product, k, v * step, held, None, None)
                    v += FEW_VECTORS
                else:
                    add_tile(FEW_ROWS, 1, product, k, v * step, held, None, None)
                    v += 1
            k += FEW_ROWS
        else:
            while v < vectors:
                if vectors - v >= SINGLE_VECTORS:
                    add_tile(1, SINGLE_VECTORS, product, k, v * step, held, None, None)
                    v += SINGLE_VECTORS
                else:
                    add_tile(1, 1, product, k, v * step, held, None, None)
                    v += 1
            k += 1


@subroutine
def multiply_by_columns(product, rows, columns):
    """`multiply` for whole register tiles of rows and whole vectors: all rows of a few columns, then of the next.

    So columns that come from far serve all rows while they are near, the next ones are fetched meanwhile, and they need
    not be packed.
    """
    never_inlined()
    step = lanes(product.sums)
    column = 0
    while column < columns:
        left = (columns - column) // step
        width = VECTORS if left >= VECTORS and left != VECTORS + 1 else min(2, left)
        for k in range(0, rows, ROWS):
            # The first rows fetch one of the next vectors each, the others what is near.
            ahead = width * step + k // ROWS * step if k < VECTORS * ROWS else 0
            fetched = Fetched(product.right, Place(product.right_at + column + ahead, product.offset_at))
            if width == VECTORS:
                add_tile(ROWS, VECTORS, product, k, column, ROWS, fetched, None)
            elif width == 2:
                add_tile(ROWS, 2, product, k, column, ROWS, fetched, None)
            else:
                add_tile(ROWS, 1, product, k, column, ROWS, fetched, None)
        column += width * step


def _not_unrolled(builder, number):
    """The number, hidden from the optimiser: an unrolled loop needs more registers than there are and spills sums.

    An empty piece of assembly passes it on; with the loop of 8 x 3 unrolled twice, `multiply` ran at 25 GFLOP/s instead
    of 110.
    """
    kind = ir.FunctionType(number.type, [number.type])
    return builder.call(ir.InlineAsm(kind, "", "=r,0", side_effect=False), [number])


def _after(builder, number, sums):
    """The number, which the code generator knows only after these sums, and with it all that follows from it.

    Stores, and fetching, are moved before products otherwise, with all that is loaded for these: the sums find no room
    in the registers then. The loop of 8 x 3 that copies its columns took 26 to 29 cycles for each term on an
    Intel Xeon, and takes 19 to 22.
    """
    if VECTOR_OPERAND is None:
        return number
    parts = [part for total in sums for part in total]
    kind = ir.FunctionType(number.type, [number.type, *(part.type for part in parts)])
    constraints = ",".join(["=r", "0", *[VECTOR_OPERAND] * len(parts)])
    return builder.call(ir.InlineAsm(kind, "", constraints, side_effect=False), [number, *parts])


@intrinsic(prefer_literal=True)
def add_tile(typing_context, rows, vectors, product, k, column, held, beside, count):
    """The tile of a `Product` at row k and this column, in registers.

    rows, vectors: literal extents, the latter perhaps HALF; held: rows from k on that exist, the others repeat the
    last; beside: what else is done with each term, a `Fetched`, a `Copied` or None; count: columns of a single vector
    that are written, or None for all; terms: at least 1.
    """
    integer = types.int64
    height, width = rows.literal_value, vectors.literal_value

    def codegen(context, builder, signature, arguments):
        kinds = Product(*signature.args[2].types)
        values = Product(*cgutils.unpack_tuple(builder, arguments[2]))
        _, _, _, k, column, held, beside, count = arguments
        beside = _beside(context, builder, signature.args[6], beside, kinds, values)
        count = count if isinstance(signature.args[7], types.Integer) else None
        if isinstance(kinds.fresh, types.BaseNamedTuple):
            parts = cgutils.unpack_tuple(builder, values.fresh)
            values = values._replace(fresh=kinds.fresh.instance_class(*parts))
        emitter = Emitter(builder, kinds.sums.dtype, 1 if width else 0.5)
        at = builder.add(values.sums_at, builder.add(builder.mul(k, values.pitch), column))
        sums = element(context, builder, kinds.sums, values.sums, at)
        right = element(context, builder, kinds.right, values.right, builder.add(values.right_at, column))
        left = element(context, builder, kinds.left, values.left, values.left_at)
        row, taken, offset = (
            element(context, builder, kinds.table, values.table, each)
            for each in (builder.add(values.row_at, k), values.taken_at, values.offset_at)
        )
        last = builder.sub(held, index(1))
        lefts, targets = [], []
        for number in range(height):
            exists = builder.icmp_signed("<", index(number), last)
            place = builder.load(builder.gep(row, [builder.select(exists, index(number), last)]))
            lefts.append(builder.gep(left, [place]))
            targets.append(builder.gep(sums, [builder.mul(values.pitch, index(number))]))
        part = height if not emitter.is_complex else max(1, min(height, COMPLEX_SUMS // max(1, width)))
        for begin in range(0, height, part):
            chosen = slice(begin, begin + part)
            _emit_loop(
                emitter, values, lefts[chosen], targets[chosen], right, taken, offset, max(1, width), beside, begin,
                count,
            )  # fmt: skip
        return context.get_dummy_value()

    return types.void(rows, vectors, product, integer, integer, integer, beside, count), codegen


def _beside(context, builder, kind, packed, kinds, values):
    """A `Fetched` or `Copied` of values, with pointers in its places, or None."""
    if not isinstance(kind, types.BaseTuple):
        return None
    array, *places = cgutils.unpack_tuple(builder, packed)

    def pointers(kind_of_place, place):
        if not isinstance(kind_of_place, types.BaseTuple):
            return None
        at, terms_at = cgutils.unpack_tuple(builder, place)
        first = element(context, builder, kind.types[0], array, at)
        return Place(first, element(context, builder, kinds.table, values.table, terms_at))

    return kind.instance_class(None, *map(pointers, kind.types[1:], places))


def _at(builder, place, j):
    """The pointer to what belongs to term j."""
    return builder.gep(place.at, [builder.load(builder.gep(place.terms_at, [j]))])


def _emit_beside(emitter, beside, j, loaded, columns, rows):
    """What is done with term j beside products; loaded: its vectors; rows: where the first is, and which these are."""
    builder = emitter.builder
    if isinstance(beside, Fetched):
        emitter.prefetch(_at(builder, beside.place, j))
        return
    if beside.columns:
        copies = _at(builder, beside.columns, j)
        for value, column in zip(loaded, columns, strict=True):
            emitter.store(value, builder.gep(copies, [column]))
    if beside.rows:
        met, chosen = rows
        copies = builder.gep(_at(builder, beside.rows, j), [index(chosen.start)])
        count = index(chosen.stop - chosen.start)
        cgutils.raw_memcpy(builder, copies, met, count, emitter.bits // 8 * emitter.width)


def _emit_loop(emitter, values, lefts, targets, right, taken, offset, width, beside, first_row, count):
    """The loop over the terms of one tile, or of some of its rows."""
    builder = emitter.builder
    columns = [index(v * emitter.lanes) for v in range(width)]
    places = [builder.gep(target, [column]) for target in targets for column in columns]
    if isinstance(values.fresh, Ending):
        is_fetched = builder.not_(values.fresh.past_caches)
    else:
        is_fetched = cgutils.false_bit if isinstance(values.fresh, Near) else cgutils.true_bit
    with builder.if_then(is_fetched):
        for place in places:  # written at the end: a line that has to come from far is there by then
            emitter.prefetch(place, writing=True)
    begun = [emitter.zero] * len(places)
    before, loop, after = builder.block, *map(builder.append_basic_block, ("terms", "store"))
    builder.branch(loop)
    builder.position_at_end(loop)
    j = builder.phi(INDEX)
    totals = [tuple(builder.phi(emitter.part) for _ in start) for start in begun]
    pixels = builder.gep(right, [builder.load(builder.gep(offset, [j]))])
    place = builder.load(builder.gep(taken, [j]))
    loaded = [emitter.load(builder.gep(pixels, [column])) for column in columns]
    added = []
    for number, left in enumerate(lefts):
        weight = emitter.splat(builder.gep(left, [place]))
        added += [emitter.fma(weight, loaded[v], totals[number * width + v]) for v in range(width)]
    if beside is not None:
        rows = builder.gep(lefts[0], [place]), slice(first_row, first_row + len(lefts))
        _emit_beside(emitter, beside, _after(builder, j, added), loaded, columns, rows)
    following = _not_unrolled(builder, builder.add(j, index(1)))
    j.add_incoming(index(0), before)
    end = builder.block
    j.add_incoming(following, end)
    for phis, starts, parts in zip(totals, begun, added, strict=True):
        for phi, start, part in zip(phis, starts, parts, strict=True):
            phi.add_incoming(start, before)
            phi.add_incoming(part, end)
    builder.cbranch(builder.icmp_signed("<", following, values.terms), loop, after)
    builder.position_at_end(after)
    _emit_end(emitter, values.fresh, places, added, count)


def _emit_end(emitter, ending, places, added, count):
    """Set the sums, through the caches or past them, or add them to what is at the places.

    Added at the end, the rounding errors of many tiles grow with their number and not with that of all terms.
    """
    builder = emitter.builder

    def load(place):
        return emitter.load(place) if count is None else emitter.load_first(place, count)

    def store(value, place):
        if count is None:
            emitter.store(value, place)
        else:
            emitter.store_first(value, place, count)

    def store_or_add(fresh):
        with builder.if_else(fresh) as (setting, adding):
            with setting:
                for place, value in zip(places, added, strict=True):
                    store(value, place)
            with adding:
                for place, value in zip(places, added, strict=True):
                    store(emitter.add(load(place), value), place)

    if not isinstance(ending, Ending):
        store_or_add(ending.fresh if isinstance(ending, Near) else ending)
    elif count is not None:
        store_or_add(ending.fresh)
    else:
        with builder.if_else(ending.past_caches) as (far, near):
            with far:
                for place, value in zip(places, added, strict=True):
                    store_away(emitter, value, place)
            with near:
                store_or_add(ending.fresh)
