"""The words of tensor cores as the compiler sees them: PTX of asynchronous copies and of products of small matrices.

Source: PTX ISA 8.0, sections 9.7.8.22 (cp.async) and 9.7.13.4 (ldmatrix, mma.sync and which thread holds what).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.cuda import types
from numba.cuda.extending import intrinsic

from ._intrinsics import float32, int32

_I8, _I32, _I64, _FLOAT = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.FloatType()
_SHARED, _GLOBAL = 3, 1  # address spaces of PTX
_WORDS = 4


def _global_address(builder: Any, elements: Any, index: Any) -> Any:
    place = builder.bitcast(builder.gep(elements, [index], inbounds=True), _I8.as_pointer())
    return builder.ptrtoint(builder.addrspacecast(place, ir.PointerType(_I8, _GLOBAL)), _I64)


def _assembly(builder: Any, text: str, result: Any, constraints: str, arguments: list[Any], acts: bool = True) -> Any:
    kind = ir.FunctionType(result, [each.type for each in arguments])
    return builder.call(ir.InlineAsm(kind, text, constraints, side_effect=acts), arguments)


# ---- addresses in shared memory: the words below take them as 32-bit integers, in bytes, which are worked out once


@intrinsic
def address_of(typing_context, shared, at):
    """The address of a word of shared memory."""

    def code(context, builder, signature, arguments):
        array = context.make_array(signature.args[0])(context, builder, value=arguments[0])
        begin = builder.addrspacecast(builder.bitcast(array.data, _I8.as_pointer()), ir.PointerType(_I8, _SHARED))
        return builder.add(builder.ptrtoint(begin, _I32), builder.shl(arguments[1], _I32(2)))

    return int32(shared, int32), code


# ---- copies from global to shared memory, behind the back of the thread


@intrinsic
def copy16(typing_context, shared, address, elements, index, is_there):
    """Begin to copy 16 bytes from an element on, or zeros, to an address in shared memory, both multiples of 16."""

    def code(context, builder, signature, arguments):
        from_ = _global_address(builder, *arguments[2:4])
        size = builder.select(arguments[4], _I32(16), _I32(0))
        text = "cp.async.cg.shared.global [$0], [$1], 16, $2;"
        _assembly(builder, text, ir.VoidType(), "r,l,r,~{memory}", [arguments[1], from_, size])
        return context.get_dummy_value()

    return types.void(shared, int32, elements, int32, types.boolean), code


@intrinsic
def end_of_group(typing_context):
    """The copies that this thread began since the last end are a group."""

    def code(context, builder, signature, arguments):
        _assembly(builder, "cp.async.commit_group;", ir.VoidType(), "~{memory}", [])
        return context.get_dummy_value()

    return types.void(), code


@intrinsic
def wait_for_all_but_one_group(typing_context):
    """Wait until no more than the last group of this thread's copies is on its way."""

    def code(context, builder, signature, arguments):
        _assembly(builder, "cp.async.wait_group 1;", ir.VoidType(), "~{memory}", [])
        return context.get_dummy_value()

    return types.void(), code


# ---- bits


@intrinsic
def bits_of(typing_context, elements, index):
    """The bits of an element of 16 bits, in the lower half of a word, or of 32."""

    def code(context, builder, signature, arguments):
        bits = builder.load(builder.gep(arguments[0], [arguments[1]], inbounds=True))
        return builder.bitcast(bits, _I32) if bits.type == _FLOAT else builder.zext(bits, _I32)

    return int32(elements, int32), code


@intrinsic
def rounded_to_tf32(typing_context, word):
    """The bits of a float32, its fraction rounded to 10 bits."""

    def code(context, builder, signature, arguments):
        return _assembly(builder, "cvt.rna.tf32.f32 $0, $1;", _I32, "=r,r", arguments, acts=False)

    return int32(int32), code


@intrinsic
def rest_of(typing_context, word, rounded):
    """The bits of a float32 less a rounded one."""

    def code(context, builder, signature, arguments):
        whole, part = (builder.bitcast(each, _FLOAT) for each in arguments)
        return builder.bitcast(builder.fsub(whole, part), _I32)

    return int32(int32, int32), code


@intrinsic
def word_at(typing_context, shared, address):
    """The word at an address."""

    def code(context, builder, signature, arguments):
        return _assembly(builder, "ld.shared.b32 $0, [$1];", _I32, "=r,r,~{memory}", arguments[1:])

    return int32(shared, int32), code


@intrinsic
def put_words(typing_context, shared, address, first, second, third, fourth):
    """Store four words from an address, a multiple of 16 bytes, on."""

    def code(context, builder, signature, arguments):
        text = "st.shared.v4.b32 [$0], {$1, $2, $3, $4};"
        _assembly(builder, text, ir.VoidType(), "r,r,r,r,r,~{memory}", arguments[1:])
        return context.get_dummy_value()

    return types.void(shared, int32, *[int32] * _WORDS), code


# ---- matrices


def _loaded(modifier: str) -> Any:
    def loading(typing_context, shared, address):
        def code(context, builder, signature, arguments):
            text = f"ldmatrix.sync.aligned.m8n8.x4{modifier}.shared.b16 {{$0, $1, $2, $3}}, [$4];"
            result = ir.LiteralStructType([_I32] * _WORDS)
            words = _assembly(builder, text, result, "=r,=r,=r,=r,r,~{memory}", arguments[1:])
            parts = [builder.extract_value(words, k) for k in range(_WORDS)]
            return context.make_tuple(builder, signature.return_type, parts)

        return types.UniTuple(int32, _WORDS)(shared, int32), code

    return intrinsic(loading)


# Four matrices of 8 x 8 elements of 16 bits. Lane i gives where row i % 8 of matrix i // 8 lies in shared memory, and
# gets of each matrix columns 2 * (i % 4) and the next of row i // 4; transposed, these rows of that column.
matrices = _loaded("")
transposed_matrices = _loaded(".trans")


def _multiplied(kind: str, shape: str) -> Any:
    def multiplying(typing_context, a0, a1, a2, a3, b0, b1, c0, c1, c2, c3):
        def code(context, builder, signature, arguments):
            text = (
                f"mma.sync.aligned.{shape}.row.col.f32.{kind}.{kind}.f32 "
                "{$0, $1, $2, $3}, {$4, $5, $6, $7}, {$8, $9}, {$10, $11, $12, $13};"
            )
            result = ir.LiteralStructType([_FLOAT] * 4)
            sums = _assembly(builder, text, result, "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f", arguments, acts=False)
            parts = [builder.extract_value(sums, k) for k in range(4)]
            return context.make_tuple(builder, signature.return_type, parts)

        return types.UniTuple(float32, 4)(*[int32] * 6, *[float32] * 4), code

    return intrinsic(multiplying)


# Add the product of a 16 x 16 and a 16 x 8 matrix to one of 16 x 8; of tf32, a 16 x 8 and an 8 x 8.
multiply_matrices = {
    "float16": _multiplied("f16", "m16n8k16"),
    "bfloat16": _multiplied("bf16", "m16n8k16"),
    "tf32": _multiplied("tf32", "m16n8k8"),
}
