"""The device's words as the compiler sees them: LLVM instructions and inline PTX."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.cuda import types
from numba.cuda.extending import intrinsic

float32, float64, int32, int64 = types.float32, types.float64, types.int32, types.int64

_TYPES = {"float32": float32, "tf32": float32, "float64": float64, "float16": types.int16, "bfloat16": types.uint16}
_TYPES |= {"int32": int32, "int64": int64}
_I16, _I32 = ir.IntType(16), ir.IntType(32)
_HALF, _FLOAT = ir.HalfType(), ir.FloatType()
VECTOR = 4
GLOBAL, SHARED = 1, 3  # numbers of the address spaces


def pointer(dtype: str) -> Any:
    """The type of a kernel's argument that points at elements of this type."""
    return types.CPointer(_TYPES[dtype])


def record(kind: type) -> Any:
    """The type of a kernel's argument that is a NamedTuple of 32-bit integers."""
    return types.NamedUniTuple(int32, len(kind._fields), kind)  # type: ignore[attr-defined]


# ---- addresses


def _place(context: Any, builder: Any, type_: Any, value: Any, index: Any) -> Any:
    """Address of an element of a pointer or of a shared array; a 32-bit index takes one instruction."""
    base = value if isinstance(type_, types.CPointer) else context.make_array(type_)(context, builder, value=value).data
    return builder.gep(base, [index], inbounds=True)


def _element(type_: Any) -> Any:
    return type_.dtype


@intrinsic
def shifted(typing_context, elements, count):
    """The pointer to global memory, so many elements on; the count has 64 bits.

    It passes through PTX, so that the compiler works it out here, once, and not again for every element behind it. A
    loop moves a count on and not the pointer: NVVM of CUDA 13.0 did not come to an end of one that did.
    """

    def code(context, builder, signature, arguments):
        place = builder.gep(arguments[0], [arguments[1]])
        in_global = builder.addrspacecast(place, ir.PointerType(place.type.pointee, GLOBAL))
        kind = ir.FunctionType(in_global.type, [in_global.type])
        kept = builder.call(ir.InlineAsm(kind, "mov.u64 $0, $1;", "=l,l", side_effect=False), [in_global])
        return builder.addrspacecast(kept, place.type)

    return elements(elements, types.int64), code


# ---- elements, as what is computed in


def _computed(element: Any) -> Any:
    return float32 if element in (types.int16, types.uint16) else element


def _widened(builder: Any, element: Any, value: Any) -> Any:
    """An element in the type that is computed in."""
    if element == types.int16:  # the bits of a float16
        return builder.fpext(builder.bitcast(value, _HALF), _FLOAT)
    if element == types.uint16:  # of a bfloat16, the upper half of a float32
        return builder.bitcast(builder.shl(builder.zext(value, _I32), _I32(16)), _FLOAT)
    return value


def _narrowed(builder: Any, element: Any, value: Any) -> Any:
    """A computed value as an element, rounded to nearest even."""
    if element == types.int16:
        return builder.bitcast(builder.fptrunc(value, _HALF), _I16)
    if element == types.uint16:
        convert = ir.InlineAsm(ir.FunctionType(_I16, [_FLOAT]), "cvt.rn.bf16.f32 $0, $1;", "=h,f", side_effect=False)
        return builder.call(convert, [value])
    return value


@intrinsic
def get(typing_context, elements, index):
    """The element of this index, in the type that is computed in."""
    element = _element(elements)

    def code(context, builder, signature, arguments):
        return _widened(builder, element, builder.load(_place(context, builder, signature.args[0], *arguments)))

    return _computed(element)(elements, types.int32), code


@intrinsic
def get_behind(typing_context, elements, index, count):
    """The element that stands `count`, a constant, behind this index: no instruction adds it to the address."""
    element = _element(elements)

    def code(context, builder, signature, arguments):
        place = _place(context, builder, signature.args[0], *arguments[:2])
        place = builder.gep(place, [arguments[2]], inbounds=True)
        return _widened(builder, element, builder.load(place))

    return _computed(element)(elements, types.int32, types.int32), code


@intrinsic
def put(typing_context, elements, index, value):
    """Store a computed value as the element of this index."""
    element = _element(elements)

    def code(context, builder, signature, arguments):
        place = _place(context, builder, signature.args[0], *arguments[:2])
        builder.store(_narrowed(builder, element, arguments[2]), place)
        return context.get_dummy_value()

    return types.void(elements, types.int32, _computed(element)), code


@intrinsic
def get4(typing_context, elements, index):
    """Four elements from this index, a multiple of four, on: one access, of 128 bits for float32."""
    element = _element(elements)

    def code(context, builder, signature, arguments):
        place = _place(context, builder, signature.args[0], *arguments)
        kind = context.get_value_type(element)
        # Four numbers of 16 bits are one of 64: of a vector of them the compiler would make four loads.
        as_one = ir.IntType(VECTOR * kind.width) if kind == _I16 else ir.VectorType(kind, VECTOR)
        whole = builder.load(builder.bitcast(place, as_one.as_pointer()))
        whole.align = VECTOR * element.bitwidth // 8
        if kind == _I16:
            parts = [builder.trunc(builder.lshr(whole, as_one(k * kind.width)), kind) for k in range(VECTOR)]
        else:
            parts = [builder.extract_element(whole, _I32(k)) for k in range(VECTOR)]
        values = [_widened(builder, element, part) for part in parts]
        return context.make_tuple(builder, signature.return_type, values)

    return types.UniTuple(_computed(element), VECTOR)(elements, types.int32), code


@intrinsic
def put4(typing_context, elements, index, first, second, third, fourth):
    """Store four values from this index, a multiple of four, on: one access, of 128 bits for float32."""
    element = _element(elements)
    computed = _computed(element)

    def code(context, builder, signature, arguments):
        place = _place(context, builder, signature.args[0], *arguments[:2])
        kind = ir.VectorType(context.get_value_type(element), VECTOR)
        vector = ir.Constant(kind, ir.Undefined)
        for k in range(VECTOR):
            vector = builder.insert_element(vector, _narrowed(builder, element, arguments[2 + k]), _I32(k))
        store = builder.store(vector, builder.bitcast(place, kind.as_pointer()))
        store.align = VECTOR * element.bitwidth // 8
        return context.get_dummy_value()

    return types.void(elements, types.int32, *[computed] * VECTOR), code


# ---- integers: without a sign, a division takes a third of the instructions


@intrinsic
def quotient(typing_context, dividend, divisor):
    """Dividend // divisor of integers that are not negative."""

    def code(context, builder, signature, arguments):
        return builder.udiv(*arguments)

    return types.int32(types.int32, types.int32), code


@intrinsic
def remainder(typing_context, dividend, divisor):
    """Dividend % divisor of integers that are not negative."""

    def code(context, builder, signature, arguments):
        return builder.urem(*arguments)

    return types.int32(types.int32, types.int32), code


@intrinsic
def quotient_by(typing_context, dividend, multiplier, shift):
    """Dividend // divisor of an integer that is not negative, of a divisor whose `reciprocal` is known: no division."""

    def code(context, builder, signature, arguments):
        wide = ir.IntType(64)
        doubled, factor = builder.shl(arguments[0], _I32(1)), arguments[1]
        product = builder.mul(builder.zext(doubled, wide), builder.zext(factor, wide))
        return builder.lshr(builder.trunc(builder.lshr(product, wide(32)), _I32), arguments[2])

    return types.int32(types.int32, types.int32, types.int32), code


# ---- copies into shared memory that nobody waits for at once (cp.async, PTX ISA 9.7.9.25)


@intrinsic
def copy_or_zero(typing_context, elements, at, source, index, is_there):
    """Begin to copy a float32 or float64 into a shared array; a zero, and nothing is read, unless it is there."""
    size = source.dtype.bitwidth // 8

    def code(context, builder, signature, arguments):
        to = _place(context, builder, signature.args[0], *arguments[:2])
        to = builder.ptrtoint(builder.addrspacecast(to, ir.PointerType(to.type.pointee, SHARED)), _I32)
        from_ = builder.ptrtoint(_place(context, builder, signature.args[2], *arguments[2:4]), ir.IntType(64))
        kind = ir.FunctionType(ir.VoidType(), [_I32, ir.IntType(64), _I32])
        text = f"cp.async.ca.shared.global [$0], [$1], {size}, $2;"
        copy = ir.InlineAsm(kind, text, "r,l,r,~{memory}", side_effect=True)
        builder.call(copy, [to, from_, builder.select(arguments[4], _I32(size), _I32(0))])
        return context.get_dummy_value()

    return types.void(elements, types.int32, source, types.int32, types.boolean), code


@intrinsic
def fetched(typing_context):
    """Wait for the copies that the thread has begun; of those of others a barrier tells."""

    def code(context, builder, signature, arguments):
        kind = ir.FunctionType(ir.VoidType(), [])
        builder.call(ir.InlineAsm(kind, "cp.async.wait_all;", "~{memory}", side_effect=True), [])
        return context.get_dummy_value()

    return types.void(), code
