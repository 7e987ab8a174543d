"""The vector vocabulary: a Numba type for some vectors of elements, and what kernels do with it.

A value holds `vectors` times as many elements as a register of this processor does; the code generator splits it into
registers. So ``fma(splat(w), load(x, at, 4), sums)`` is four loads and four fused multiply-adds. Memory may be aligned
to elements only. A complex value holds its real and imaginary parts apart: a load takes interleaved numbers apart, a
store puts them together, and a product is four real ones.

All intrinsics stand at module level and take their extents as literals: those made in closures would never be found
in the cache on disk.
"""

from __future__ import annotations

import operator

import llvmlite.binding as llvm
import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model
from numba.np.arrayobj import make_array

INDEX = ir.IntType(64)
LANE = ir.IntType(32)
# Level of the caches in LLVM's terms, where 3 is the first.
SECOND_LEVEL = 2
# Flags of instructions that may become one with what they are added to.
CONTRACT = ("contract",)


def cpu_features() -> dict[str, bool]:
    """What Numba generates code for: this processor, or what NUMBA_CPU_FEATURES says instead."""
    chosen = numba.config.CPU_FEATURES
    if chosen is None:
        return dict(llvm.get_host_cpu_features())
    return {feature[1:]: feature[0] == "+" for feature in chosen.split(",") if feature}


def _register_bytes() -> int:
    """Bytes of a vector register: 64 with AVX-512, 32 with AVX2; 16 with NEON and for anything else."""
    features = cpu_features()
    return 64 if features.get("avx512f") else 32 if features.get("avx2") else 16


def _has_fast_products() -> bool:
    """Whether two registers of 64 bytes are multiplied in a cycle. Zen 4 takes a cycle for each half of one."""
    return _register_bytes() == 64 and (numba.config.CPU_NAME or llvm.get_host_cpu_name()) != "znver4"


REGISTER_BYTES = _register_bytes()
FAST_PRODUCTS = _has_fast_products()
# What stands for a vector register among the operands of a piece of assembly, where that is known.
VECTOR_OPERAND = {"x86_64": "v", "aarch64": "w", "arm64": "w"}.get(llvm.get_default_triple().partition("-")[0])
# AVX-512 has 32 of them, AVX2 16.
REGISTERS = 32 if REGISTER_BYTES == 64 else 16


class Vector(types.Type):  # type: ignore[misc]
    """The Numba type of `vectors` registers of elements."""

    def __init__(self, dtype: types.Type, vectors: int) -> None:
        self.dtype = dtype
        self.vectors = vectors
        super().__init__(f"vector({dtype} x {vectors})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager, kind):
        super().__init__(manager, kind, Emitter(None, kind.dtype, kind.vectors).kind)


class Emitter:
    """Instructions on values of one vector type.

    A value is a tuple of LLVM vectors: one, or the real and the imaginary part; `pack` and `unpack` go between that
    and the single LLVM value which Numba passes around.
    """

    def __init__(self, builder: ir.IRBuilder, dtype: types.Type, vectors: float = 1) -> None:
        self.builder, self.dtype, self.vectors = builder, dtype, vectors
        self.is_complex = isinstance(dtype, types.Complex)
        real = dtype.underlying_float if self.is_complex else dtype
        self.is_float = isinstance(real, types.Float)
        self.bits = real.bitwidth
        self.native = REGISTER_BYTES * 8 // self.bits  # lanes of a register
        self.lanes = int(self.native * vectors)
        self.scalar = {32: ir.FloatType(), 64: ir.DoubleType()}[self.bits] if self.is_float else ir.IntType(self.bits)
        self.part = ir.VectorType(self.scalar, self.lanes)
        self.kind = ir.LiteralStructType([self.part, self.part]) if self.is_complex else self.part
        self.width = 2 if self.is_complex else 1  # parts, and reals in an element
        self.zero = (ir.Constant(self.part, None),) * self.width

    def pack(self, value):
        if not self.is_complex:
            return value[0]
        packed = self.builder.insert_value(ir.Constant(self.kind, ir.Undefined), value[0], 0)
        return self.builder.insert_value(packed, value[1], 1)

    def unpack(self, packed):
        return tuple(self.builder.extract_value(packed, part) for part in range(2)) if self.is_complex else (packed,)

    # -- memory

    def address(self, pointer, lanes):
        """An address of elements as that of a vector of so many reals."""
        return self.builder.bitcast(pointer, ir.VectorType(self.scalar, lanes).as_pointer())

    def load(self, pointer):
        """The elements from an address on."""
        value = self.builder.load(self.address(pointer, self.lanes * self.width))
        value.align = self.bits // 8
        return self._apart(value)

    def store(self, value, pointer):
        joined = self._together(value)
        stored = self.builder.store(joined, self.address(pointer, self.lanes * self.width))
        stored.align = self.bits // 8
        return stored

    def load_first(self, pointer, count):
        """The first `count` elements, and zeros; the memory behind them is not touched."""
        return self.masked_load(pointer, self.first(count))

    def masked_load(self, pointer, mask):
        lanes = self.lanes * self.width
        nothing = ir.Constant(ir.VectorType(self.scalar, lanes), None)
        return self._apart(self.load_masked(self.address(pointer, lanes), mask, nothing))

    def load_masked(self, address, mask, others):
        """The reals of a vector in memory where the mask is set, and those of another elsewhere."""
        kind = others.type
        function = self._function(
            "llvm.masked.load", f"{kind.count}", kind, [address.type, LANE, mask.type, kind], ".p0"
        )
        return self.builder.call(function, [address, ir.Constant(LANE, self.bits // 8), mask, others])

    def gather(self, addresses, mask, others):
        """The reals at a vector of addresses where the mask is set, and those of another vector elsewhere."""
        arguments = [addresses.type, LANE, mask.type, others.type]
        lanes = others.type.count
        function = self._function("llvm.masked.gather", f"{lanes}", others.type, arguments, f".v{lanes}p0")
        return self.builder.call(function, [addresses, ir.Constant(LANE, self.bits // 8), mask, others])

    def store_first(self, value, pointer, count):
        """Store the first `count` elements only."""
        self.masked_store(value, pointer, self.first(count))

    def masked_store(self, value, pointer, mask):
        lanes = self.lanes * self.width
        joined, address = self._together(value), self.address(pointer, lanes)
        arguments = [joined.type, address.type, LANE, mask.type]
        function = self._function("llvm.masked.store", f"{lanes}", ir.VoidType(), arguments, ".p0")
        self.builder.call(function, [joined, address, ir.Constant(LANE, self.bits // 8), mask])

    def load_parts(self, pointers, count):
        """The `count` reals from each of these addresses on, which together fill a vector."""
        parts = []
        for pointer in pointers:
            parts.append(self.builder.load(self.address(pointer, count)))
            parts[-1].align = self.bits // 8
        while len(parts) > 1:
            lanes = range(2 * parts[0].type.count)
            parts = [self.shuffle(*pair, lanes) for pair in zip(parts[::2], parts[1::2], strict=True)]
        return parts[0]

    def prefetch(self, pointer, writing=False):
        """Begin to fetch the cache line of an address into the second-level cache.

        Few lines can be on their way into the first level, and what is loaded waits for them: the weight gradient of
        8x64x112x112, 3x3 with a stride of 2, took 1.40 ms with those on two threads and takes 1.12, and most other
        operations up to 12 % less.
        """
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, LANE, LANE, LANE])
        function = cgutils.get_or_insert_function(self.builder.module, kind, "llvm.prefetch.p0")
        self.builder.call(function, [pointer, *(ir.Constant(LANE, value) for value in (int(writing), SECOND_LEVEL, 1))])

    def first(self, count):
        """A mask of the first `count` elements."""
        reals = self.builder.mul(count, ir.Constant(INDEX, self.width))
        return self.builder.icmp_signed("<", self.numbers(0), self.spread(reals))

    def numbers(self, start):
        """The numbers of the reals of a vector, from `start` on."""
        lanes = range(start, start + self.lanes * self.width)
        return ir.Constant(ir.VectorType(LANE, len(lanes)), [ir.Constant(LANE, lane) for lane in lanes])

    def spread(self, number):
        """An index as the number of each of the reals of a vector."""
        return self.everywhere(self.builder.trunc(number, LANE), LANE, self.lanes * self.width)

    def _apart(self, value):
        return (self.shuffle(value, value, range(0, 2 * self.lanes, 2)),
                self.shuffle(value, value, range(1, 2 * self.lanes, 2))) if self.is_complex else (value,)  # fmt: skip

    def _together(self, value):
        if not self.is_complex:
            return value[0]
        return self.shuffle(
            value[0], value[1], [part * self.lanes + lane for lane in range(self.lanes) for part in range(2)]
        )

    # -- arithmetic

    def _function(self, name, lanes, result, arguments, suffix=""):
        letter = "f" if self.is_float else "i"
        full = f"{name}.v{lanes}{letter}{self.bits}{suffix}"
        return cgutils.get_or_insert_function(self.builder.module, ir.FunctionType(result, arguments), full)

    def shuffle(self, first, second, lanes):
        mask = [ir.Constant(LANE, lane) for lane in lanes]
        return self.builder.shuffle_vector(first, second, ir.Constant(ir.VectorType(LANE, len(mask)), mask))

    def with_every(self, value, part, jump, number):
        """Lane i is to be element jump * i of several registers: those in part `number`, beside what `value` has.

        For number 1, value is the first register itself.
        """
        lanes = []
        for lane in range(self.lanes):
            holder, place = divmod(jump * lane, self.lanes)
            kept = place if number == 1 else lane
            lanes.append(self.lanes + place if holder == number else kept)
        return tuple(self.shuffle(a, b, lanes) for a, b in zip(value, part, strict=True))

    def everywhere(self, scalar, kind, lanes):
        """A scalar of this LLVM type in so many lanes."""
        undefined = ir.Constant(ir.VectorType(kind, lanes), ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(LANE, 0))
        return self.builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(LANE, lanes), None))

    def splat(self, pointer):
        """The element at an address in all lanes."""
        real = self.builder.bitcast(pointer, self.scalar.as_pointer())
        parts = [self.builder.gep(real, [ir.Constant(INDEX, part)]) for part in range(self.width)]
        return tuple(self.everywhere(self.builder.load(part), self.scalar, self.lanes) for part in parts)

    def add(self, first, second):
        return tuple(self._sum(a, b) for a, b in zip(first, second, strict=True))

    def _sum(self, first, second):
        return self.builder.fadd(first, second, flags=CONTRACT) if self.is_float else self.builder.add(first, second)

    def subtract(self, first, second):
        subtracted = self.builder.fsub if self.is_float else self.builder.sub
        return tuple(subtracted(a, b, flags=CONTRACT * self.is_float) for a, b in zip(first, second, strict=True))

    def multiply(self, first, second):
        """The products of real numbers; they may become one instruction with the sum or difference that takes them."""
        multiplied = self.builder.fmul if self.is_float else self.builder.mul
        return (multiplied(first[0], second[0], flags=CONTRACT * self.is_float),)

    def divide(self, first, second):
        """The quotients of floating numbers."""
        return (self.builder.fdiv(first[0], second[0]),)

    def fma(self, first, second, total):
        """First * second + total."""
        if not self.is_complex:
            return (self._fma(first[0], second[0], total[0]),)
        negative = self.builder.fneg(first[1])
        return (
            self._fma(negative, second[1], self._fma(first[0], second[0], total[0])),
            self._fma(first[1], second[0], self._fma(first[0], second[1], total[1])),
        )

    def _fma(self, first, second, total):
        if not self.is_float:
            return self.builder.add(self.builder.mul(first, second), total)
        function = self._function("llvm.fmuladd", f"{self.lanes}", self.part, [self.part] * 3)
        return self.builder.call(function, [first, second, total])

    def total(self, value):
        """The sums of all lanes, part by part."""
        if not self.is_float:
            function = self._function("llvm.vector.reduce.add", f"{self.lanes}", self.scalar, [self.part])
            return tuple(self.builder.call(function, [part]) for part in value)
        function = self._function("llvm.vector.reduce.fadd", f"{self.lanes}", self.scalar, [self.scalar, self.part])
        start = ir.Constant(self.scalar, -0.0)
        return tuple(self.builder.call(function, [start, part], fastmath=("reassoc",)) for part in value)


def index(value: int) -> ir.Constant:
    """An integer in generated code."""
    return ir.Constant(INDEX, value)


def element(context, builder, kind, array, at):
    """Address of an element of an array value."""
    return builder.gep(make_array(kind)(context, builder, array).data, [at])


# ---- what kernels call
#
# `vectors` is a literal, or any value of as many registers as are wanted.


def like(array, vectors):
    """The type of `vectors` registers of an array's elements."""
    return Vector(array.dtype, vectors.vectors if isinstance(vectors, Vector) else vectors.literal_value)


@intrinsic
def lanes(typing_context, array):
    """Elements of one register, a constant."""

    def codegen(context, builder, signature, arguments):
        return index(Emitter(builder, signature.args[0].dtype).lanes)

    return types.int64(array), codegen


@intrinsic
def lanes_of_value(typing_context, value):
    """Elements that a value holds, a constant."""

    def codegen(context, builder, signature, arguments):
        return index(Emitter(builder, value.dtype, value.vectors).lanes)

    return types.int64(value), codegen


@intrinsic(prefer_literal=True)
def zeros(typing_context, array, vectors):
    """Zeros of the type of an array's elements."""
    value = like(array, vectors)

    def codegen(context, builder, signature, arguments):
        emitter = Emitter(builder, value.dtype, value.vectors)
        return emitter.pack(emitter.zero)

    return value(array, vectors), codegen


@intrinsic(prefer_literal=True)
def splat(typing_context, array, at, vectors):
    """array[at] in all lanes."""
    value = like(array, vectors)

    def codegen(context, builder, signature, arguments):
        emitter = Emitter(builder, value.dtype, value.vectors)
        return emitter.pack(emitter.splat(element(context, builder, signature.args[0], arguments[0], arguments[1])))

    return value(array, types.int64, vectors), codegen


@intrinsic(prefer_literal=True)
def load(typing_context, array, at, vectors):
    """The elements from array[at] on."""
    value = like(array, vectors)

    def codegen(context, builder, signature, arguments):
        emitter = Emitter(builder, value.dtype, value.vectors)
        return emitter.pack(emitter.load(element(context, builder, signature.args[0], arguments[0], arguments[1])))

    return value(array, types.int64, vectors), codegen


@intrinsic(prefer_literal=True)
def load_first(typing_context, array, at, count, vectors):
    """`count` elements from array[at] on, then zeros; nothing behind them is read."""
    value = like(array, vectors)

    def codegen(context, builder, signature, arguments):
        emitter = Emitter(builder, value.dtype, value.vectors)
        address = element(context, builder, signature.args[0], arguments[0], arguments[1])
        return emitter.pack(emitter.load_first(address, arguments[2]))

    return value(array, types.int64, types.int64, vectors), codegen


@intrinsic(prefer_literal=True)
def load_every(typing_context, array, at, jump, count):
    """array[at + jump * i] in lane i, for i < count, and anything in the others; jump: literal.

    Nothing in front of the first or behind the last is read.
    """

    def codegen(context, builder, signature, arguments):
        emitter = Emitter(builder, array.dtype)
        distance = jump.literal_value
        begin = element(context, builder, signature.args[0], arguments[0], arguments[1])
        held = builder.add(builder.mul(builder.sub(arguments[3], index(1)), index(distance)), index(1))
        value = None
        for number in range(distance):
            behind = number * emitter.lanes
            part = emitter.load_first(builder.gep(begin, [index(behind)]), builder.sub(held, index(behind)))
            value = part if value is None else emitter.with_every(value, part, distance, number)
        return emitter.pack(value)

    return Vector(array.dtype, 1)(array, types.int64, jump, types.int64), codegen


@intrinsic
def store(typing_context, array, at, value):
    """Write all lanes from array[at] on."""

    def codegen(context, builder, signature, arguments):
        emitter = Emitter(builder, value.dtype, value.vectors)
        address = element(context, builder, signature.args[0], arguments[0], arguments[1])
        emitter.store(emitter.unpack(arguments[2]), address)
        return context.get_dummy_value()

    return types.void(array, types.int64, value), codegen


@intrinsic
def store_first(typing_context, array, at, count, value):
    """Write the first `count` lanes from array[at] on."""

    def codegen(context, builder, signature, arguments):
        emitter = Emitter(builder, value.dtype, value.vectors)
        address = element(context, builder, signature.args[0], arguments[0], arguments[1])
        emitter.store_first(emitter.unpack(arguments[3]), address, arguments[2])
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, value), codegen


@intrinsic
def prefetch(typing_context, array, at):
    """Begin to fetch the cache line of array[at]; any position is allowed."""

    def codegen(context, builder, signature, arguments):
        address = element(context, builder, signature.args[0], arguments[0], arguments[1])
        Emitter(builder, array.dtype).prefetch(address)
        return context.get_dummy_value()

    return types.void(array, types.int64), codegen


@intrinsic
def fma(typing_context, first, second, total):
    """First * second + total."""

    def codegen(context, builder, signature, arguments):
        emitter = Emitter(builder, total.dtype, total.vectors)
        return emitter.pack(emitter.fma(*map(emitter.unpack, arguments)))

    return total(total, total, total), codegen


@intrinsic
def add_products(typing_context, totals, factor, array, at, offsets):
    """Each total plus factor times the elements from array[at + offset] on; as many offsets as totals, both tuples."""
    value = totals.dtype

    def codegen(context, builder, signature, arguments):
        emitter = Emitter(builder, value.dtype, value.vectors)
        begin = element(context, builder, signature.args[2], arguments[2], arguments[3])
        factor = emitter.unpack(arguments[1])
        added = []
        for total, offset in zip(*(cgutils.unpack_tuple(builder, arguments[each]) for each in (0, 4)), strict=True):
            loaded = emitter.load(builder.gep(begin, [offset]))
            added.append(emitter.pack(emitter.fma(factor, loaded, emitter.unpack(total))))
        return context.make_tuple(builder, signature.return_type, added)

    return totals(totals, value, array, types.int64, offsets), codegen


@intrinsic
def add_neighbouring_products(typing_context, totals, factors, array, at):
    """Total q plus the sum over s of factor s times register q + s of an array, from array[at] on.

    totals, factors: tuples; each register is loaded once.
    """
    value = totals.dtype

    def codegen(context, builder, signature, arguments):
        emitter = Emitter(builder, value.dtype, value.vectors)
        begin = element(context, builder, signature.args[2], arguments[2], arguments[3])
        added, weights = (
            [emitter.unpack(packed) for packed in cgutils.unpack_tuple(builder, arguments[each])] for each in (0, 1)
        )
        for i in range(len(added) + len(weights) - 1):
            loaded = emitter.load(builder.gep(begin, [index(i * emitter.lanes)]))
            for s, weight in enumerate(weights):
                if 0 <= i - s < len(added):
                    added[i - s] = emitter.fma(weight, loaded, added[i - s])
        return context.make_tuple(builder, signature.return_type, [emitter.pack(each) for each in added])

    return totals(totals, factors, array, types.int64), codegen


@intrinsic
def add_first_products(typing_context, totals, factor, array, at, offsets, count):
    """`add_products` of the first `count` elements; the others are not read."""
    value = totals.dtype

    def codegen(context, builder, signature, arguments):
        emitter = Emitter(builder, value.dtype, value.vectors)
        begin = element(context, builder, signature.args[2], arguments[2], arguments[3])
        factor = emitter.unpack(arguments[1])
        added = []
        for total, offset in zip(*(cgutils.unpack_tuple(builder, arguments[each]) for each in (0, 4)), strict=True):
            loaded = emitter.load_first(builder.gep(begin, [offset]), arguments[5])
            added.append(emitter.pack(emitter.fma(factor, loaded, emitter.unpack(total))))
        return context.make_tuple(builder, signature.return_type, added)

    return totals(totals, value, array, types.int64, offsets, types.int64), codegen


@intrinsic
def store_each(typing_context, array, at, distance, held, count, values):
    """Write the first `count` lanes of each of the first `held` values of a tuple, `distance` elements apart."""

    def codegen(context, builder, signature, arguments):
        value = values.dtype
        emitter = Emitter(builder, value.dtype, value.vectors)
        begin = element(context, builder, signature.args[0], arguments[0], arguments[1])
        mask = emitter.first(arguments[4])
        for number, packed in enumerate(cgutils.unpack_tuple(builder, arguments[5])):
            with builder.if_then(builder.icmp_signed("<", index(number), arguments[3])):
                place = builder.gep(begin, [builder.mul(arguments[2], index(number))])
                emitter.masked_store(emitter.unpack(packed), place, mask)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, types.int64, types.int64, values), codegen


@intrinsic
def add_each(typing_context, totals, array, at, distance):
    """Each value of a tuple plus the elements of an array, those of the next value `distance` elements on."""
    value = totals.dtype

    def codegen(context, builder, signature, arguments):
        emitter = Emitter(builder, value.dtype, value.vectors)
        begin = element(context, builder, signature.args[1], arguments[1], arguments[2])
        added = []
        for number, packed in enumerate(cgutils.unpack_tuple(builder, arguments[0])):
            loaded = emitter.load(builder.gep(begin, [builder.mul(arguments[3], index(number))]))
            added.append(emitter.pack(emitter.add(emitter.unpack(packed), loaded)))
        return context.make_tuple(builder, signature.return_type, added)

    return totals(totals, array, types.int64, types.int64), codegen


@intrinsic(prefer_literal=True)
def multiples_of(typing_context, number, count):
    """0, number, 2 * number, ...: a tuple of so many; count is a literal."""

    def codegen(context, builder, signature, arguments):
        multiples = [builder.mul(arguments[0], index(each)) for each in range(count.literal_value)]
        return context.make_tuple(builder, signature.return_type, multiples)

    return types.UniTuple(types.int64, count.literal_value)(types.int64, count), codegen


@intrinsic(prefer_literal=True)
def tuple_of(typing_context, value, count):
    """A tuple that holds a value `count` times; count is a literal."""

    def codegen(context, builder, signature, arguments):
        return context.make_tuple(builder, signature.return_type, [arguments[0]] * count.literal_value)

    return types.UniTuple(value, count.literal_value)(value, count), codegen


@intrinsic
def totals_of(typing_context, values):
    """The sum of all lanes of each value of a tuple."""
    value = values.dtype

    def codegen(context, builder, signature, arguments):
        emitter = Emitter(builder, value.dtype, value.vectors)
        sums = []
        for packed in cgutils.unpack_tuple(builder, arguments[0]):
            parts = emitter.total(emitter.unpack(packed))
            if emitter.is_complex:
                number = context.make_complex(builder, value.dtype)
                number.real, number.imag = parts
                sums.append(number._getvalue())
            else:
                sums.append(parts[0])
        return context.make_tuple(builder, signature.return_type, sums)

    return types.UniTuple(value.dtype, values.count)(values), codegen


@intrinsic
def not_below_zero(typing_context, value):
    """The lanes, with zero for those below zero; NaN stays."""

    def codegen(context, builder, signature, arguments):
        emitter = Emitter(builder, value.dtype, value.vectors)
        zero = emitter.zero[0]
        if emitter.is_float:
            below = builder.fcmp_ordered("<", arguments[0], zero)
        else:
            below = builder.icmp_signed("<", arguments[0], zero)
        return builder.select(below, zero, arguments[0])

    return value(value), codegen


@intrinsic(prefer_literal=True)
def every_second(typing_context, first, second, start):
    """Lanes start, start + 2, ... of two values after one another; start is 0 or 1."""

    def codegen(context, builder, signature, arguments):
        emitter = Emitter(builder, first.dtype, first.vectors)
        lanes = range(start.literal_value, 2 * emitter.lanes, 2)
        pairs = zip(*map(emitter.unpack, arguments[:2]), strict=True)
        return emitter.pack(tuple(emitter.shuffle(a, b, lanes) for a, b in pairs))

    return first(first, first, start), codegen


@intrinsic
def turned(typing_context, value):
    """The lanes of a register from the last to the first."""

    def codegen(context, builder, signature, arguments):
        emitter = Emitter(builder, value.dtype, value.vectors)
        order = range(emitter.lanes - 1, -1, -1)
        return emitter.pack(tuple(emitter.shuffle(part, part, order) for part in emitter.unpack(arguments[0])))

    return value(value), codegen


@intrinsic(prefer_literal=True)
def interleaved(typing_context, first, second, half):
    """The first or second half (0 or 1) of the lanes of two values by turns."""

    def codegen(context, builder, signature, arguments):
        emitter = Emitter(builder, first.dtype, first.vectors)
        begin = half.literal_value * emitter.lanes // 2
        lanes = [part + begin + lane for lane in range(emitter.lanes // 2) for part in (0, emitter.lanes)]
        pairs = zip(*map(emitter.unpack, arguments[:2]), strict=True)
        return emitter.pack(tuple(emitter.shuffle(a, b, lanes) for a, b in pairs))

    return first(first, first, half), codegen


@intrinsic
def transpose(
    typing_context, target, target_at, target_pitch, source, source_at, source_pitch, rows, columns
):  # fmt: skip
    """target[j, i] = source[i, j] for i < rows, j < columns, both at most the lanes of a register."""
    integer = types.int64

    def codegen(context, builder, signature, arguments):
        emitter = Emitter(builder, source.dtype)
        count = emitter.lanes
        to = element(context, builder, signature.args[0], arguments[0], arguments[1])
        start = element(context, builder, signature.args[3], arguments[3], arguments[4])
        target_pitch, source_pitch, rows, columns = arguments[2], arguments[5], arguments[6], arguments[7]
        values = []
        for i in range(count):  # a load of nothing is slow where there is no memory: rows that are not are the first
            exists = builder.icmp_signed("<", index(i), rows)
            place = builder.select(exists, builder.mul(source_pitch, index(i)), index(0))
            held = builder.select(exists, columns, index(0))
            values.append(emitter.load_first(builder.gep(start, [place]), held))
        values = exchanged(emitter, values)
        for j in range(count):
            with builder.if_then(builder.icmp_signed("<", index(j), columns)):
                emitter.store_first(values[j], builder.gep(to, [builder.mul(target_pitch, index(j))]), rows)
        return context.get_dummy_value()

    return types.void(target, integer, integer, source, integer, integer, integer, integer), codegen


def exchanged(emitter, values):
    """Values transposed: as many as they have lanes; or fewer, and the squares of each such number of lanes are.

    log2(values) rounds exchange ever smaller squares, as in Eklundh, "A Fast Computer Method for Matrix
    Transposing", IEEE Trans. Comput. C-21 (1972).
    """
    distance = len(values) // 2
    while distance:
        values = _exchanged(emitter, values, distance)
        distance //= 2
    return values


def _exchanged(emitter, values, distance):
    """Exchange the off-diagonal squares of this size: lane `distance` of one row with lane 0 of the row below."""
    count = emitter.lanes
    upper = [lane if not lane & distance else lane - distance + count for lane in range(count)]
    lower = [lane + distance if not lane & distance else lane + count for lane in range(count)]
    result = list(values)
    for i in range(len(values)):
        if not i & distance:
            pairs = list(zip(values[i], values[i + distance], strict=True))
            result[i] = tuple(emitter.shuffle(a, b, upper) for a, b in pairs)
            result[i + distance] = tuple(emitter.shuffle(a, b, lower) for a, b in pairs)
    return result


class _Elementwise(AbstractTemplate):  # type: ignore[misc]
    def generic(self, arguments, keywords):
        if len(arguments) == 2 and isinstance(arguments[0], Vector) and arguments[0] == arguments[1]:
            return signature(arguments[0], *arguments)
        return None


def _operator(function, emit):
    """Let kernels write a Python operator between two values of one type."""
    infer_global(function)(type(f"_{function.__name__}", (_Elementwise,), {}))

    @lower_builtin(function, Vector, Vector)
    def lowered(context, builder, signature, arguments):
        emitter = Emitter(builder, signature.return_type.dtype, signature.return_type.vectors)
        return emitter.pack(emit(emitter, *map(emitter.unpack, arguments)))


_operator(operator.add, Emitter.add)
_operator(operator.sub, Emitter.subtract)
_operator(operator.mul, Emitter.multiply)
_operator(operator.truediv, Emitter.divide)
