"""How a kernel begins: its pointers as arrays, its header as a tuple, and the index tables of packed axes."""

from __future__ import annotations

from llvmlite import ir
from numba import types, uint64
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

from ..core.jit import subroutine

# Numbers at the head of every geometry vector: the sizes of x, w, y, residual, constants, workspace and itself.
SIZES = 7


@intrinsic
def views(typing_context, x, w, y, residual, constants, workspace, geometry):
    """The kernel's pointers as flat arrays of the sizes in the geometry vector."""
    kinds = [types.Array(pointer.dtype, 1, "C") for pointer in (x, w, y, residual, constants, workspace, geometry)]

    def codegen(context, builder, signature, pointers):
        arrays = []
        for number, (kind, pointer) in enumerate(zip(kinds, pointers, strict=True)):
            size = builder.load(builder.gep(pointers[-1], [ir.Constant(ir.IntType(64), number)]))
            arrays.append(_array(context, builder, kind, pointer, size))
        return context.make_tuple(builder, signature.return_type, arrays)

    return types.Tuple(kinds)(x, w, y, residual, constants, workspace, geometry), codegen


@intrinsic
def view(typing_context, pointer, size):
    """A pointer as a flat array."""
    kind = types.Array(pointer.dtype, 1, "C")

    def codegen(context, builder, signature, arguments):
        return _array(context, builder, kind, *arguments)

    return kind(pointer, types.int64), codegen


@intrinsic
def elements_in(typing_context, geometry, like):
    """The geometry vector as elements of the type of another array: `fastconv.cpu._geometry.Tables.add_elements`."""
    kind = types.Array(like.dtype, 1, "C")

    def codegen(context, builder, signature, arguments):
        integers = make_array(geometry)(context, builder, arguments[0])
        pointer = builder.bitcast(integers.data, context.get_data_type(kind.dtype).as_pointer())
        bytes = builder.mul(integers.nitems, integers.itemsize)
        size = builder.udiv(bytes, context.get_constant(types.intp, _bytes_of(context, kind.dtype)))
        return _array(context, builder, kind, pointer, size)

    return kind(geometry, like), codegen


@intrinsic
def integers(typing_context, pointer, size):
    """A pointer to elements of any type as a flat array of int64: what a kernel gets of indices."""
    kind = types.Array(types.int64, 1, "C")

    def codegen(context, builder, signature, arguments):
        return _array(context, builder, kind, builder.bitcast(arguments[0], ir.IntType(64).as_pointer()), arguments[1])

    return kind(pointer, types.int64), codegen


def _bytes_of(context, dtype):
    return context.get_abi_sizeof(context.get_data_type(dtype))


def _array(context, builder, kind, pointer, size):
    bytes = context.get_constant(types.intp, _bytes_of(context, kind.dtype))
    array = make_array(kind)(context, builder)
    populate_array(array, pointer, [size], [bytes], bytes, None)
    return array._getvalue()


@intrinsic(prefer_literal=True)
def first_integers(typing_context, vector, count):
    """The first `count` elements of a vector as a tuple; count is a literal.

    Numba's own `to_fixed_tuple` copies the whole tuple for each element: 1.3 us for 48 of them.
    """

    def codegen(context, builder, signature, arguments):
        data = make_array(signature.args[0])(context, builder, arguments[0]).data
        return _tuple_of(context, builder, signature, data)

    return types.UniTuple(types.int64, count.literal_value)(vector, count), codegen


@intrinsic(prefer_literal=True)
def integers_at(typing_context, vector, at, count):
    """`count` elements of a vector, from vector[at] on, as a tuple; count is a literal."""

    def codegen(context, builder, signature, arguments):
        data = make_array(signature.args[0])(context, builder, arguments[0]).data
        return _tuple_of(context, builder, signature, builder.gep(data, [arguments[1]]))

    return types.UniTuple(types.int64, count.literal_value)(vector, types.int64, count), codegen


def _tuple_of(context, builder, signature, pointer):
    """The integers from an address on, as the tuple that the signature returns."""
    places = [ir.Constant(ir.IntType(64), place) for place in range(signature.return_type.count)]
    values = [builder.load(builder.gep(pointer, [place])) for place in places]
    return context.make_tuple(builder, signature.return_type, values)


@subroutine
def number(geometry, at):
    """An integer of the geometry vector. The index is unsigned: a signed one may count from the end, at a price."""
    return geometry[uint64(at)]


@intrinsic
def real(typing_context, geometry, at):
    """The float64 whose bits an integer of the geometry vector has."""

    def codegen(context, builder, signature, arguments):
        data = make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.bitcast(builder.load(builder.gep(data, [arguments[1]])), ir.DoubleType())

    return types.float64(geometry, types.int64), codegen


@subroutine
def plane_at(geometry, axis_at, slot):
    """Position of one plane of a packed axis (`fastconv.cpu._axes.Axis.packed`)."""
    return axis_at + 2 + slot * (2 + number(geometry, axis_at))


@subroutine
def place(geometry, plane, position):
    """Element at a position of a plane; negative when it lies outside."""
    return number(geometry, plane + 2 + position)


@subroutine
def inner(geometry, plane, position, count):
    """The part of `count` positions in which elements follow each other at the axis' step: first, and past the last."""
    first = min(max(number(geometry, plane) - position, 0), count)
    return first, min(max(number(geometry, plane + 1) - position, first), count)


@intrinsic
def never_inlined(typing_context):
    """Ask LLVM to keep the function that calls this a function of its own: it is called rarely, or from many places."""

    def codegen(context, builder, signature, arguments):
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def always_inlined(typing_context):
    """Make LLVM inline the function that calls this: a loop with a call in it is not vectorised."""

    def codegen(context, builder, signature, arguments):
        builder.function.attributes.add("alwaysinline")
        return context.get_dummy_value()

    return types.void(), codegen
