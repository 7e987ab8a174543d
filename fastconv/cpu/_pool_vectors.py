"""Comparing vectors: what maximum pooling needs beside the vocabulary of `fastconv.cpu._simd`.

A lane that is not a number is the greatest of all, as in PyTorch: it is taken whenever it is met, so that the last one
of a window wins, while among equal numbers the first one does.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ._simd import INDEX, LANE, Emitter, Vector, element

# Bytes of the places that are compared and carried along; a plane may hold no more than 2^31 - 1 elements.
PLACE_BYTES = 4


def _places(value):
    """The type of as many places as a value has lanes."""
    return Vector(types.int32, value.vectors * PLACE_BYTES * 8 / Emitter(None, value.dtype).bits)


def _is_greater(builder, kind, first, second):
    """Whether lanes of the second are greater; never where one is not a number."""
    if isinstance(kind, types.Float):
        return builder.fcmp_ordered(">", second, first)
    compared = builder.icmp_signed if kind.signed else builder.icmp_unsigned
    return compared(">", second, first)


def _is_nan(builder, kind, value):
    if isinstance(kind, types.Float):
        return builder.fcmp_unordered("uno", value, value)
    return ir.Constant(ir.VectorType(ir.IntType(1), value.type.count), None)


def greater_lanes(builder, kind, first, second):
    """The greater lanes; `llvm.maximum` keeps NaN, in two instructions where the sign of zero may be either."""
    if not isinstance(kind, types.Float):
        return builder.select(_is_greater(builder, kind, first, second), second, first)
    lanes, vector = first.type.count, first.type
    name = f"llvm.maximum.v{lanes}f{kind.bitwidth}"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector, vector]), name)
    return builder.call(function, [second, first], fastmath=("nsz",))


def halves(count):
    """Lanes that bring the other half of what is left to the front, again and again, until a single one is left."""
    distance = count // 2
    while distance:
        yield [(lane + distance) % count for lane in range(count)]
        distance //= 2


@intrinsic
def load_held(typing_context, array, at, held, others):
    """The first `held` elements from array[at] on, and the lanes of another value behind them.

    Of several registers all are held; no mask is made for them.
    """

    def codegen(context, builder, signature, arguments):
        emitter = Emitter(builder, others.dtype, others.vectors)
        begin = element(context, builder, signature.args[0], *arguments[:2])
        if others.vectors > 1:
            return emitter.pack(emitter.load(begin))
        mask = _between(emitter, ir.Constant(INDEX, 0), arguments[2])
        return emitter.load_masked(emitter.address(begin, emitter.lanes), mask, arguments[3])

    return others(array, types.int64, types.int64, others), codegen


@intrinsic
def store_held(typing_context, array, at, held, value):
    """Write the first `held` lanes from array[at] on; of several registers, all."""

    def codegen(context, builder, signature, arguments):
        emitter = Emitter(builder, value.dtype, value.vectors)
        begin = element(context, builder, signature.args[0], *arguments[:2])
        if value.vectors > 1:
            emitter.store(emitter.unpack(arguments[3]), begin)
        else:
            emitter.store_first(emitter.unpack(arguments[3]), begin, arguments[2])
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, value), codegen


@intrinsic
def load_between(typing_context, array, at, begin, end, others):
    """The lanes from `begin` to before `end` of the elements from array[at] on, and those of another value around them.

    Nothing else is read, and array[at] may lie outside.
    """

    def codegen(context, builder, signature, arguments):
        emitter = Emitter(builder, others.dtype, others.vectors)
        address = emitter.address(element(context, builder, signature.args[0], *arguments[:2]), emitter.lanes)
        return emitter.load_masked(address, _between(emitter, *arguments[2:4]), arguments[4])

    return others(array, types.int64, types.int64, types.int64, others), codegen


def _between(emitter, begin, end):
    """The lanes from `begin` to before `end`."""
    builder, count = emitter.builder, emitter.lanes
    numbers = ir.Constant(ir.VectorType(LANE, count), list(range(count)))
    begin, end = (emitter.everywhere(builder.trunc(each, LANE), LANE, count) for each in (begin, end))
    return builder.and_(builder.icmp_signed(">=", numbers, begin), builder.icmp_signed("<", numbers, end))


@intrinsic
def load_apart(typing_context, array, at, step, begin, end, others):
    """`load_between` of the elements at, at + step, ..."""

    def codegen(context, builder, signature, arguments):
        emitter = Emitter(builder, others.dtype, others.vectors)
        count = emitter.lanes
        first = builder.ptrtoint(element(context, builder, signature.args[0], *arguments[:2]), INDEX)
        numbers = ir.Constant(ir.VectorType(INDEX, count), list(range(count)))
        bytes = builder.mul(arguments[2], ir.Constant(INDEX, emitter.bits // 8))
        first, bytes = (emitter.everywhere(each, INDEX, count) for each in (first, bytes))
        addresses = builder.add(first, builder.mul(numbers, bytes))
        addresses = builder.inttoptr(addresses, ir.VectorType(emitter.scalar.as_pointer(), count))
        return emitter.gather(addresses, _between(emitter, *arguments[3:5]), arguments[5])

    return others(array, *[types.int64] * 4, others), codegen


@intrinsic
def everywhere(typing_context, like, number):
    """An integer or a float64 as an element in all lanes of a value like another, of floating numbers."""

    def codegen(context, builder, signature, arguments):
        emitter = Emitter(builder, like.dtype, like.vectors)
        scalar = context.cast(builder, arguments[1], number, like.dtype)
        return emitter.everywhere(scalar, emitter.scalar, emitter.lanes)

    return like(like, number), codegen


# ---- the place of the greatest


@intrinsic
def placed(typing_context, like, table, at, factor, offset):
    """The places offset + factor * table[at], offset + factor * table[at + 1], ... for the lanes of a value.

    Of a table of int64 that goes on for as many elements as there are lanes.
    """
    kind = _places(like)

    def codegen(context, builder, signature, arguments):
        emitter = Emitter(builder, types.int64, kind.vectors * 8 / PLACE_BYTES)
        address = element(context, builder, signature.args[1], *arguments[1:3])
        (numbers,) = emitter.load(address)
        factor, offset = (emitter.everywhere(each, INDEX, emitter.lanes) for each in arguments[3:])
        return builder.trunc(
            builder.add(builder.mul(numbers, factor), offset), Emitter(None, kind.dtype, kind.vectors).part
        )

    return kind(like, table, types.int64, types.int64, types.int64), codegen


@intrinsic
def places(typing_context, like, first, step):
    """The places first, first + step, ... for the lanes of a value."""
    kind = _places(like)

    def codegen(context, builder, signature, arguments):
        emitter = Emitter(builder, kind.dtype, kind.vectors)
        numbers = ir.Constant(emitter.part, list(range(emitter.lanes)))
        first, step = (emitter.everywhere(builder.trunc(each, LANE), LANE, emitter.lanes) for each in arguments[1:])
        return builder.add(first, builder.mul(numbers, step))

    return kind(like, types.int64, types.int64), codegen


@intrinsic
def choose(typing_context, value, place, other, other_place):
    """The greater lanes of two values and their places, as a pair; the other comes later in its window."""

    def codegen(context, builder, signature, arguments):
        value, place, other, other_place = arguments
        kind = signature.args[0].dtype
        taken = builder.or_(_is_greater(builder, kind, value, other), _is_nan(builder, kind, other))
        chosen = builder.select(taken, other, value), builder.select(taken, other_place, place)
        return context.make_tuple(builder, signature.return_type, chosen)

    return types.Tuple((value, place))(value, place, value, place), codegen


@intrinsic
def chosen_of(typing_context, value, place):
    """The greatest of all lanes, whatever their order, and its place."""

    def codegen(context, builder, signature, arguments):
        kind = signature.args[0].dtype
        best, at = arguments
        for lanes in halves(best.type.count):
            turn = Emitter(builder, kind).shuffle
            other, other_at = turn(best, best, lanes), turn(at, at, lanes)
            taken = _comes_before(builder, kind, (best, at), (other, other_at))
            best, at = builder.select(taken, other, best), builder.select(taken, other_at, at)
        zero = ir.Constant(LANE, 0)
        chosen = builder.extract_element(best, zero), builder.sext(builder.extract_element(at, zero), INDEX)
        return context.make_tuple(builder, signature.return_type, chosen)

    return types.Tuple((value.dtype, types.int64))(value, place), codegen


def _comes_before(builder, kind, best, other):
    """Whether the other lanes are what a window in its order would have left: the greater, the first, the last NaN."""
    greater_, less = (_is_greater(builder, kind, *pair) for pair in ((best[0], other[0]), (other[0], best[0])))
    was_nan, is_nan = (_is_nan(builder, kind, value) for value, _ in (best, other))
    is_first = builder.icmp_signed("<", other[1], best[1])
    is_equal = builder.not_(builder.or_(builder.or_(greater_, less), builder.or_(was_nan, is_nan)))
    is_last_nan = builder.and_(is_nan, builder.not_(builder.and_(was_nan, is_first)))
    return builder.or_(builder.or_(greater_, is_last_nan), builder.and_(is_equal, is_first))


@intrinsic
def store_first_places(typing_context, indices, at, count, place):
    """Write the first `count` places as integers of 64 bits."""

    def codegen(context, builder, signature, arguments):
        wide = Emitter(builder, types.int64, place.vectors * 8 / PLACE_BYTES)
        address = element(context, builder, signature.args[0], arguments[0], arguments[1])
        wide.store_first((builder.sext(arguments[3], wide.part),), address, arguments[2])
        return context.get_dummy_value()

    return types.void(indices, types.int64, types.int64, place), codegen
