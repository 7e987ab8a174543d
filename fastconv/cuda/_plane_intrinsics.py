"""Words of small matrices in registers, as the compiler sees them: every index is a constant of the code."""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba.cuda import types
from numba.cuda.extending import intrinsic

Coefficients = tuple[tuple[float, ...], ...]

_I32 = ir.IntType(32)


def _place(context: Any, builder: Any, type_: Any, value: Any, index: int) -> Any:
    """Address of an element of a thread's own array."""
    data = context.make_array(type_)(context, builder, value=value).data
    return builder.gep(data, [_I32(index)], inbounds=True)


def _combined(builder: Any, coefficients: tuple[float, ...], values: list[Any]) -> Any:
    """The sum of coefficient times value, without those that are zero."""
    terms = [(coefficient, value) for coefficient, value in zip(coefficients, values, strict=True) if coefficient]
    (coefficient, value), *others = terms
    total = value if coefficient == 1 else builder.fmul(value, ir.Constant(value.type, coefficient))
    for coefficient, value in others:
        size = abs(coefficient)
        term = value if size == 1 else builder.fmul(value, ir.Constant(value.type, size))
        total = (builder.fadd if coefficient > 0 else builder.fsub)(total, term)
    return total


def along_both(rows: Coefficients, columns: Coefficients) -> Any:
    """The function ``(values)`` that puts ``rows @ values @ columns.T`` in the place of a matrix.

    values: a local array of real numbers; a row of the matrix, before and after, begins at multiples of its larger
    width.
    """
    pitch = max(len(columns), len(columns[0]))

    @intrinsic
    def transform(typing_context, values):
        def code(context, builder, signature, arguments):
            def place(i: int, j: int) -> Any:
                return _place(context, builder, signature.args[0], arguments[0], i * pitch + j)

            matrix = [[builder.load(place(i, j)) for j in range(len(columns[0]))] for i in range(len(rows[0]))]
            taken = [[_combined(builder, row, list(along)) for along in zip(*matrix, strict=True)] for row in rows]
            for i, along in enumerate(taken):
                for j, column in enumerate(columns):
                    builder.store(_combined(builder, column, along), place(i, j))
            return context.get_dummy_value()

        return types.void(values), code

    return transform


def _turned(builder: Any, real: Any, imaginary: Any, eighths: int) -> tuple[Any, Any]:
    """A complex number times exp(-2 * pi * i * eighths / 8), for eighths of 0 to 3."""
    zero, root = ir.Constant(real.type, -0.0), ir.Constant(real.type, math.sqrt(0.5))
    if eighths >= 2:
        real, imaginary = imaginary, builder.fsub(zero, real)
    if eighths % 2:
        real, imaginary = builder.fadd(real, imaginary), builder.fsub(imaginary, real)
        real, imaginary = builder.fmul(real, root), builder.fmul(imaginary, root)
    return real, imaginary


def _transformed(builder: Any, values: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """The discrete Fourier transform of 2, 4 or 8 complex numbers, by Cooley and Tukey's halves."""
    half = len(values) // 2
    if half == 0:
        return values
    even, odd = _transformed(builder, values[::2]), _transformed(builder, values[1::2])
    odd = [_turned(builder, *value, 4 // half * k) for k, value in enumerate(odd)]
    pairs = list(zip(even, odd, strict=True))
    return [
        (combine(left[0], right[0]), combine(left[1], right[1]))
        for combine in (builder.fadd, builder.fsub)
        for left, right in pairs
    ]


def fourier(count: int) -> Any:
    """The function ``(real, imaginary)`` that transforms as many complex numbers, in local arrays, in place.

    ``X[k] = sum over n of x[n] * exp(-2 * pi * i * n * k / count)`` for a count of 2, 4 or 8. With real and imaginary
    parts exchanged it is the inverse, without the division by the count.
    """

    @intrinsic
    def transform(typing_context, real, imaginary):
        def code(context, builder, signature, arguments):
            def place(part: int, k: int) -> Any:
                return _place(context, builder, signature.args[part], arguments[part], k)

            values = [(builder.load(place(0, k)), builder.load(place(1, k))) for k in range(count)]
            for k, value in enumerate(_transformed(builder, values)):
                for part in range(2):
                    builder.store(value[part], place(part, k))
            return context.get_dummy_value()

        return types.void(real, imaginary), code

    return transform


@intrinsic
def add_products(typing_context, sums, left, right):
    """``sums[i * len(right) + j] += left[i] * right[j]`` for tuples left and right and a local array of sums."""

    def code(context, builder, signature, arguments):
        rows, columns = (
            [builder.extract_value(each, k) for k in range(len(type_))]
            for each, type_ in zip(arguments[1:], signature.args[1:], strict=True)
        )
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                place = _place(context, builder, signature.args[0], arguments[0], i * len(columns) + j)
                builder.store(builder.fma(row, column, builder.load(place)), place)
        return context.get_dummy_value()

    return types.void(sums, left, right), code
