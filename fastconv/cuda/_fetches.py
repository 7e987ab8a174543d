"""Copies of single elements into shared memory that nobody waits for before `fetched` (cp.async, PTX ISA 9.7.9.25)."""

from __future__ import annotations

from functools import cache
from typing import Any

from ._device import COMPUTED_AS, SIMULATED, float32, function, get


@function
def _fetch_widened(elements, at, source, index, is_there):
    """Through a register, where the type changes on the way."""
    value = float32(0)
    if is_there:
        value = get(source, index)
    elements[at] = value


if SIMULATED:

    def copy_or_zero(elements: Any, at: Any, source: Any, index: Any, is_there: Any) -> None:
        """The intrinsic, which has copied by the time that it returns."""
        elements[at] = get(source, index) if is_there else 0

    def fetched() -> None:
        """Nothing is under way."""

else:
    from llvmlite import ir
    from numba.cuda import types
    from numba.cuda.extending import intrinsic

    from ._intrinsics import _place

    _I32 = ir.IntType(32)

    @intrinsic
    def copy_or_zero(typing_context, elements, at, source, index, is_there):
        """Begin to copy a float32 or float64 into shared memory; a zero unless it is there."""
        size = source.dtype.bitwidth // 8

        def code(context, builder, signature, arguments):
            to = _place(context, builder, signature.args[0], *arguments[:2])
            from_ = _place(context, builder, signature.args[2], *arguments[2:4])
            to = builder.addrspacecast(to, ir.PointerType(to.type.pointee, 3))
            kind = ir.FunctionType(ir.VoidType(), [_I32, ir.IntType(64), _I32])
            text = f"cp.async.ca.shared.global [$0], [$1], {size}, $2;"
            copy = ir.InlineAsm(kind, text, "r,l,r,~{memory}", side_effect=True)
            bytes_there = builder.select(arguments[4], _I32(size), _I32(0))
            addresses = builder.ptrtoint(to, _I32), builder.ptrtoint(from_, ir.IntType(64))
            builder.call(copy, [*addresses, bytes_there])
            return context.get_dummy_value()

        return types.void(elements, types.int32, source, types.int32, types.boolean), code

    @intrinsic
    def fetched(typing_context):
        """Wait for the thread's own copies."""

        def code(context, builder, signature, arguments):
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(ir.InlineAsm(kind, "cp.async.wait_all;", "~{memory}", side_effect=True), [])
            return context.get_dummy_value()

        return types.void(), code


@cache
def fetch_of(dtype: str) -> Any:
    """The function ``(elements, at, source, index, is_there)`` for tensors of a type."""
    return copy_or_zero if COMPUTED_AS[dtype] == dtype else _fetch_widened
