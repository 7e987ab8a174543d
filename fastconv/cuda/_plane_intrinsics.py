"""Words of small matrices in registers, as the compiler sees them: every index is a constant of the code."""

from __future__ import annotations

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
