"""Large results that are stored past the caches.

A cache fetches a line before it takes a part of it, and writes it back when it needs the place: to write a large result
takes twice its bytes. Stores past the caches write whole lines to memory and nothing else. They need registers that
begin where one does in memory, and are in order with other stores only behind `caches_passed`.

Smaller results are stored into the caches, where the next operation finds them.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ..core.arrays import LINE_BYTES
from ..core.jit import subroutine
from ._kernel import always_inlined
from ._simd import INDEX, LANE, REGISTER_BYTES, Emitter, element, lanes, lanes_of_value, store, store_first

# Bytes of a result that fills half of the last cache of the machine of docs/performance.md. There the gradient of the
# maximum of 3x3 of 8x64x112x112, channels_last, took 2.1 ms through the caches and takes 1.5, that of 2x2 of
# 8x64x224x224 7.0 and 4.4, the mean of these windows 3.6 and 3.0.
LEAST_BYTES = 1 << 24
# The same for a result between whose stores there are many products: what is written and what is read take turns then.
# There 3x224x224 to 64, 3x3, 12.8 MB, took 1.10 ms through the caches and takes 1.03, on one thread 2.35 and 2.09, and
# a 3x3 filter that reads it next made it 8.98 and 8.63.
LEAST_BYTES_OF_PRODUCTS = 1 << 23
# Whether a register is a whole cache line: others would be written in parts, with products in between.
FILLS_LINES = REGISTER_BYTES % LINE_BYTES == 0


@subroutine
def goes_past_caches(target, at, pitch, least_bytes=LEAST_BYTES):
    """Whether whole registers of a result are stored past the caches: from target[at] on, in lines `pitch` apart."""
    always_inlined()
    is_large = target.size >= least_bytes // REGISTER_BYTES * lanes(target)
    return is_large and pitch % lanes(target) == 0 and elements_to_register(target, at) == 0


@subroutine
def products_pass_caches(target, at, pitch):
    """`goes_past_caches` for a result between whose stores there are many products."""
    always_inlined()
    return FILLS_LINES and goes_past_caches(target, at, pitch, LEAST_BYTES_OF_PRODUCTS)


@intrinsic
def elements_to_register(typing_context, array, at):
    """Elements from array[at] on before one whose address is a multiple of the bytes of a register."""

    def codegen(context, builder, signature, arguments):
        begin = builder.ptrtoint(element(context, builder, signature.args[0], *arguments), INDEX)
        bytes = builder.and_(builder.neg(begin), ir.Constant(INDEX, REGISTER_BYTES - 1))
        return builder.udiv(bytes, ir.Constant(INDEX, Emitter(builder, array.dtype).bits // 8))

    return types.int64(array, types.int64), codegen


@intrinsic
def store_past_caches(typing_context, array, at, value):
    """`store` past the caches; array[at] must begin a register."""

    def codegen(context, builder, signature, arguments):
        emitter = Emitter(builder, value.dtype, value.vectors)
        store_away(emitter, emitter.unpack(arguments[2]), element(context, builder, signature.args[0], *arguments[:2]))
        return context.get_dummy_value()

    return types.void(array, types.int64, value), codegen


@subroutine
def store_left(target, at, left, value, past_caches):
    """Store as many lanes of a value as there are left. Where none is, the memory is not touched."""
    always_inlined()
    if left >= lanes_of_value(value):
        if past_caches:
            store_past_caches(target, at, value)
        else:
            store(target, at, value)
    elif left > 0:
        store_first(target, at, left, value)


def store_away(emitter, value, address):
    """Emit a store past the caches."""
    stored = emitter.store(value, address)
    stored.align = REGISTER_BYTES
    stored.set_metadata("nontemporal", emitter.builder.module.add_metadata([ir.Constant(LANE, 1)]))


@intrinsic
def caches_passed(typing_context):
    """Wait until all that was stored past the caches is where other threads see it."""

    def codegen(context, builder, signature, arguments):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen
