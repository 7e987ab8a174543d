"""Lines of a plane in vectors: what the kernels of a single target channel need beside `fastconv.cpu._simd`.

A line ends anywhere, and around it there are zeros: a mask tells which lanes of what is loaded exist.
"""

from __future__ import annotations

from typing import NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ._past_caches import store_away
from ._simd import INDEX, Emitter, Vector, element, exchanged, index, like


def _between(emitter, low, high):
    """Lanes low, ..., high - 1, both from 0 to all: none where low is not below high.

    A mask that is made of an integer: of two compared vectors LLVM would make it again for every load.
    """
    builder, lanes = emitter.builder, emitter.lanes * emitter.width
    bits = ir.IntType(64 if lanes < 64 else 2 * lanes)
    low, high = (builder.zext(builder.mul(each, index(emitter.width)), bits) for each in (low, high))
    begun = builder.shl(ir.Constant(bits, -1), low)
    ended = builder.sub(builder.shl(ir.Constant(bits, 1), high), ir.Constant(bits, 1))
    mask = builder.trunc(builder.and_(begun, ended), ir.IntType(lanes))
    return builder.bitcast(mask, ir.VectorType(ir.IntType(1), lanes))


def _load_between(emitter, pointer, low, high, jump):
    """Elements 0, jump, 2 * jump, ... from an address on: low, ..., high - 1 of these, zeros for the others.

    Only the memory from the first of these to the last is touched; jump is 1 or 2.
    """
    if jump == 1:
        return emitter.masked_load(pointer, _between(emitter, low, high))
    builder = emitter.builder
    double = Emitter(builder, emitter.dtype, emitter.vectors * 2)
    last = builder.sub(builder.add(high, high), index(1))
    return _every_second(emitter, _load_between(double, pointer, builder.add(low, low), last, 1), 0)


def _every_second(emitter, values, start):
    """Lanes start, start + 2, ... of twice as many."""
    return tuple(emitter.shuffle(each, each, range(start, 2 * emitter.lanes, 2)) for each in values)


@intrinsic(prefer_literal=True)
def load_inside(typing_context, array, at, low, high, vectors):
    """The elements from array[at] on that exist: low, ..., high - 1, and zeros for the others, which are not read.

    Both bounds are from 0 to the number of lanes.
    """
    value = like(array, vectors)

    def codegen(context, builder, signature, arguments):
        address = element(context, builder, signature.args[0], *arguments[:2])
        emitter = Emitter(builder, value.dtype, value.vectors)
        return emitter.pack(_load_between(emitter, address, arguments[2], arguments[3], 1))

    integer = types.int64
    return value(array, integer, integer, integer, vectors), codegen


@intrinsic(prefer_literal=True)
def half_of(typing_context, value, start):
    """Lanes start, start + 2, ... of a value of several registers; start is 0 or 1."""
    half = Vector(value.dtype, value.vectors // 2)

    def codegen(context, builder, signature, arguments):
        emitter = Emitter(builder, half.dtype, half.vectors)
        return emitter.pack(_every_second(emitter, emitter.unpack(arguments[0]), start.literal_value))

    return half(value, start), codegen


@intrinsic
def by_turns(typing_context, even, odd):
    """The lanes of two values by turns, a value of as many registers as both."""
    double = Vector(even.dtype, even.vectors * 2)

    def codegen(context, builder, signature, arguments):
        emitter = Emitter(builder, even.dtype, even.vectors)
        lanes = [part + lane for lane in range(emitter.lanes) for part in (0, emitter.lanes)]
        pairs = zip(*map(emitter.unpack, arguments), strict=True)
        joined = tuple(emitter.shuffle(a, b, lanes) for a, b in pairs)
        return Emitter(builder, double.dtype, double.vectors).pack(joined)

    return double(even, odd), codegen


# Lengths of runs of taps, one below the other, for which there is code of its own.
RUNS = (7, 5, 3, 2, 1)


class Runs(NamedTuple):
    """For each of RUNS True, or None, for which no code is made."""

    seven: bool | None
    five: bool | None
    three: bool | None
    two: bool | None
    one: bool | None


@intrinsic
def add_lines(
    typing_context, sums, taps, lengths, jump, array, at, line, first, last, low, high,
    factors, factors_at, factors_step,
):  # fmt: skip
    """sums[p] plus, for r < taps, factors[factors_at + r * factors_step] times array from [at + (p + r) * line] on.

    sums: a tuple, of lines one below the other; taps: one of RUNS that `lengths`, which are `Runs`, hold; jump: any
    tuple of length 1 or 2, how far apart the elements lie that are read. What is loaded serves all sums that it
    reaches. Lines p + r outside first, ..., last - 1 are left out, elements outside low, ..., high - 1 count as zeros;
    neither is read.
    """
    integer = types.int64

    def codegen(context, builder, signature, arguments):
        emitter = _emitter(builder, sums.dtype)
        begin = element(context, builder, signature.args[4], arguments[4], arguments[5])
        factor = element(context, builder, signature.args[11], arguments[11], arguments[12])
        lines = _Lines(emitter, begin, arguments[6:11], jump.count)
        made = [length for length, kind in zip(RUNS, lengths.types, strict=True) if kind is not types.none]

        def added(totals, count, load):
            weights = [emitter.splat(builder.gep(factor, [builder.mul(arguments[13], index(r))])) for r in range(count)]
            for i in range(len(totals) + count - 1):
                reached = range(max(0, i - len(totals) + 1), min(count, i + 1))
                before = builder.block
                with builder.if_then(lines.is_inside(i), likely=True):
                    loaded = load(i)
                    sums = [
                        emitter.pack(emitter.fma(weights[r], loaded, emitter.unpack(totals[i - r]))) for r in reached
                    ]
                    behind = builder.block
                for r, sum in zip(reached, sums, strict=True):
                    totals[i - r] = _either(builder, (totals[i - r], before), (sum, behind))
            return totals

        return context.make_tuple(
            builder, signature.return_type, _by_length(builder, arguments[1], made, arguments[0], lines, added)
        )

    return sums(sums, integer, lengths, jump, array, *[integer] * 6, factors, integer, integer), codegen


def _by_length(builder, taps, lengths, packed, lines, added):
    """What `added` makes of the values of a tuple, by code of its own for each of these numbers of taps.

    And for vectors that exist as a whole, which need no mask: 96x56x56, 7x7, took 0.352 ms with one, and 0.333 without.
    To choose line by line took 18 % longer for 14x14, of which no vector is whole, when the core was shared.
    """
    values = _unpacked(builder, packed)
    end = builder.append_basic_block("end")
    ways = []

    def go(count, load):
        ways.append((added(list(values), count, load), builder.block))
        builder.branch(end)

    for count in lengths:
        condition = builder.icmp_signed("==", taps, index(count)) if count != lengths[-1] else cgutils.true_bit
        with builder.if_then(condition):
            with builder.if_then(lines.are_whole):
                go(count, lines.load)
            go(count, lines.load_between)
    builder.unreachable()
    builder.position_at_end(end)
    return [_either(builder, *((way[0][place], way[1]) for way in ways)) for place in range(len(values))]


def _emitter(builder, value):
    return Emitter(builder, value.dtype, value.vectors)


def _unpacked(builder, values):
    return list(cgutils.unpack_tuple(builder, values))


def _either(builder, *ways):
    """The value of the way that was taken, each a value and the block that it comes from."""
    found = builder.phi(ways[0][0].type)
    for value, block in ways:
        found.add_incoming(value, block)
    return found


class _Lines:
    """Lines one below the other: line i from `begin` + i * line on, of which some elements of some lines exist."""

    def __init__(self, emitter, begin, bounds, jump):
        line, first, last, low, high = bounds
        self._emitter, self._begin, self._line, self._first = emitter, begin, line, first
        self._count = emitter.builder.sub(last, first)
        self._between = low, high, jump
        ends = emitter.builder.icmp_signed("==", high, index(emitter.lanes))
        begins = emitter.builder.icmp_signed("==", low, index(0))
        self.are_whole = emitter.builder.and_(begins, ends) if jump == 1 else cgutils.false_bit

    def is_inside(self, i):
        builder = self._emitter.builder
        return builder.icmp_unsigned("<", builder.sub(index(i), self._first), self._count)

    def load(self, i):
        return self._emitter.load(self._place(i))

    def load_between(self, i):
        return _load_between(self._emitter, self._place(i), *self._between)

    def _place(self, i):
        builder = self._emitter.builder
        return builder.gep(self._begin, [builder.mul(self._line, index(i))])


@intrinsic
def store_first_of_lines(typing_context, array, at, line, lines, count, values):
    """Write the first `count` lanes of the first `lines` values of a tuple, from array[at] on, each `line` further."""
    value, integer = values.dtype, types.int64

    def codegen(context, builder, signature, arguments):
        emitter = Emitter(builder, value.dtype, value.vectors)
        begin = element(context, builder, signature.args[0], arguments[0], arguments[1])
        for number, packed in enumerate(cgutils.unpack_tuple(builder, arguments[5])):
            address = builder.gep(begin, [builder.mul(arguments[2], index(number))])
            with builder.if_then(builder.icmp_signed("<", index(number), arguments[3]), likely=True):
                emitter.store_first(emitter.unpack(packed), address, arguments[4])
        return context.get_dummy_value()

    return types.void(array, integer, integer, integer, integer, values), codegen


@intrinsic
def store_lines_past_caches(typing_context, array, at, line, values):
    """Write each value of a tuple from array[at] on, then from array[at + line] on, ...: `_past_caches`."""

    def codegen(context, builder, signature, arguments):
        emitter = Emitter(builder, values.dtype.dtype, values.dtype.vectors)
        begin = element(context, builder, signature.args[0], arguments[0], arguments[1])
        for number, packed in enumerate(cgutils.unpack_tuple(builder, arguments[3])):
            place = builder.gep(begin, [builder.mul(arguments[2], index(number))])
            store_away(emitter, emitter.unpack(packed), place)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, values), codegen


@intrinsic
def interleave_lines(typing_context, even, odd):
    """Two tuples: of the first and of the second half of each even value and its odd value by turns."""
    value = even.dtype

    def codegen(context, builder, signature, arguments):
        emitter = _emitter(builder, value)
        pairs = list(zip(*(map(emitter.unpack, _unpacked(builder, each)) for each in arguments), strict=True))
        halves = []
        for begin in (0, emitter.lanes // 2):
            lanes = [part + begin + lane for lane in range(emitter.lanes // 2) for part in (0, emitter.lanes)]
            values = [
                emitter.pack(tuple(emitter.shuffle(a, b, lanes) for a, b in zip(*pair, strict=True))) for pair in pairs
            ]
            halves.append(context.make_tuple(builder, even, values))
        return context.make_tuple(builder, signature.return_type, halves)

    return types.UniTuple(even, 2)(even, odd), codegen


@intrinsic
def cleared(typing_context, values):
    """Zeros instead of the values of a tuple, whatever they are: they need not be in registers."""
    value = values.dtype

    def codegen(context, builder, signature, arguments):
        emitter = Emitter(builder, value.dtype, value.vectors)
        return context.make_tuple(builder, signature.return_type, [emitter.pack(emitter.zero)] * values.count)

    return values(values), codegen


@intrinsic
def halved(typing_context, values):
    """Zeros of half the lanes in the place of the values of a tuple."""
    half = Vector(values.dtype.dtype, values.dtype.vectors / 2)

    def codegen(context, builder, signature, arguments):
        emitter = Emitter(builder, half.dtype, half.vectors)
        return context.make_tuple(builder, signature.return_type, [emitter.pack(emitter.zero)] * values.count)

    return types.UniTuple(half, values.count)(values), codegen


@intrinsic
def squared(typing_context, array):
    """Zeros: a tuple of as many registers of an array's elements as one of them has lanes."""
    value = Vector(array.dtype, 1)

    def codegen(context, builder, signature, arguments):
        emitter = _emitter(builder, value)
        return context.make_tuple(builder, signature.return_type, [emitter.pack(emitter.zero)] * emitter.lanes)

    return types.UniTuple(value, Emitter(None, array.dtype).lanes)(array), codegen


@intrinsic
def behind_boundary(typing_context, array, at):
    """How many elements array[at] lies behind the last address that is a multiple of the bytes of `lanes` elements."""

    def codegen(context, builder, signature, arguments):
        emitter = Emitter(builder, array.dtype)
        address = builder.ptrtoint(element(context, builder, signature.args[0], *arguments), INDEX)
        bytes = emitter.bits // 8 * emitter.width
        return builder.udiv(builder.and_(address, index(emitter.lanes * bytes - 1)), index(bytes))

    return types.int64(array, types.int64), codegen


@intrinsic
def store_transposed(typing_context, array, at, line, lines, low, high, values):
    """Write lanes low, ..., high - 1 of the first `lines` lines of the transpose of a square of lanes.

    values: a tuple of as many registers as they have lanes, the square's lines; lane 0 of the first one that is written
    would go to array[at], of the second to array[at + line].
    """
    value, integer = values.dtype, types.int64

    def codegen(context, builder, signature, arguments):
        emitter = _emitter(builder, value)
        begin = element(context, builder, signature.args[0], arguments[0], arguments[1])
        columns = exchanged(emitter, [emitter.unpack(each) for each in _unpacked(builder, arguments[6])])
        mask = _between(emitter, *arguments[4:6])
        for number, column in enumerate(columns):
            with builder.if_then(builder.icmp_signed("<", index(number), arguments[3]), likely=True):
                emitter.masked_store(column, builder.gep(begin, [builder.mul(arguments[2], index(number))]), mask)
        return context.get_dummy_value()

    return types.void(array, integer, integer, integer, integer, integer, values), codegen
