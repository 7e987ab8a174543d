"""The gradient of the maximum in channels_last: each element of the input takes the parts of the windows that chose it.

A line of grad_x, the channels of one place, needs the lines of grad_y whose boxes hold it
(`fastconv.cpu._pool_mean_gradient`), where their index is that place::

    grad_x[i, c] = sum over the lines o that hold i and whose index[o, c] is i of grad_y[o, c]

Every index that lies in its window is met once; where fewer are met than there are windows, some lie elsewhere.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..core.jit import kernel, subroutine
from ._kernel import first_integers, integers, never_inlined, number, views
from ._past_caches import caches_passed, goes_past_caches, store_left
from ._pool_lines import line_of, next_line
from ._pool_mean_gradient import HEADER, WIDE, Header, holders_of
from ._pool_vectors import places
from ._simd import (
    INDEX,
    LANE,
    Emitter,
    element,
    lanes_of_value,
    load,
    load_first,
    zeros,
)


@intrinsic
def where_index_is(typing_context, indices, at, place, held, value, counts):
    """The first `held` lanes of a value where indices[at], indices[at + 1], ... are a place, zeros elsewhere.

    With the counts, which are one higher in these lanes, as a pair.
    """

    def codegen(context, builder, signature, arguments):
        lanes = arguments[4].type.count
        wide = Emitter(builder, types.int64, lanes / Emitter(builder, types.int64).native)
        address = wide.address(element(context, builder, signature.args[0], *arguments[:2]), lanes)
        nowhere = builder.not_(wide.everywhere(arguments[2], INDEX, lanes))
        numbers = ir.Constant(ir.VectorType(LANE, lanes), list(range(lanes)))
        exists = builder.icmp_signed("<", numbers, wide.everywhere(builder.trunc(arguments[3], LANE), LANE, lanes))
        found = wide.load_masked(address, exists, nowhere)
        is_there = builder.icmp_signed("==", found, wide.everywhere(arguments[2], INDEX, lanes))
        chosen = builder.select(is_there, arguments[4], ir.Constant(arguments[4].type, None))
        counts = builder.sub(arguments[5], builder.sext(is_there, arguments[5].type))
        return context.make_tuple(builder, signature.return_type, (chosen, counts))

    kinds = (indices, types.int64, types.int64, types.int64, value, counts)
    return types.Tuple((value, counts))(*kinds), codegen


@intrinsic
def sum_of(typing_context, counts):
    """All lanes added up."""

    def codegen(context, builder, signature, arguments):
        (vector,) = arguments
        name = f"llvm.vector.reduce.add.v{vector.type.count}i{vector.type.element.width}"
        kind = ir.FunctionType(vector.type.element, [vector.type])
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.sext(builder.call(function, [vector]), INDEX)

    return types.int64(counts), codegen


@kernel
def max_gradient(task, x, w, y, residual, constants, workspace, geometry):
    """One task: lines of y, which is grad_x; x is grad_y. w: the indices; residual: of each task, how many it met."""
    tensors = views(x, w, y, residual, constants, workspace, geometry)
    indices, met = integers(w, tensors[0].size), integers(residual, task + 1)
    x, _, y, _, constants, workspace, geometry = tensors
    g = Header(*first_integers(geometry, HEADER))
    first = task * g.lines_per_task
    whole = g.width // lanes_of_value(zeros(x, WIDE)) * lanes_of_value(zeros(x, WIDE))
    past_caches = goes_past_caches(y, 0, g.extent)
    count = 0
    if whole > 0:
        count += _take_lines(x, indices, y, geometry, first, 0, whole, past_caches, zeros(x, WIDE))
    if whole < g.width:
        count += _take_lines(x, indices, y, geometry, first, whole, g.width, past_caches, zeros(x, 1))
    if past_caches:
        caches_passed()
    met[task] = count


@subroutine
def _take_lines(x, indices, y, geometry, first, begin, end, past_caches, nothing):
    """The channels from `begin` to before `end` of the lines of a task; gives how many indices were met."""
    never_inlined()
    g, step = Header(*first_integers(geometry, HEADER)), lanes_of_value(nothing)
    line, counts = line_of(g, first), places(nothing, 0, 0)
    for place in range(first, min(first + g.lines_per_task, g.lines)):
        holders = holders_of(g, geometry, line)
        index = (line.a * g.lines_b + line.b) * g.lines_c + line.c
        for q in range(begin, end, step):
            held, total = min(step, end - q), nothing
            for a in range(holders.begin_a, holders.end_a, 2):
                row_a = holders.outer * g.y_outer + number(geometry, a) * g.y_a + q
                for b in range(holders.begin_b, holders.end_b, 2):
                    row_b = row_a + number(geometry, b) * g.y_b
                    for c in range(holders.begin_c, holders.end_c, 2):
                        at = row_b + number(geometry, c) * g.y_c
                        if held == step:
                            chosen, counts = where_index_is(indices, at, index, step, load(x, at, nothing), counts)
                        else:
                            seen = load_first(x, at, held, nothing)
                            chosen, counts = where_index_is(indices, at, index, held, seen, counts)
                        total = total + chosen
            store_left(y, place * g.extent + q, held, total, past_caches)
        line = next_line(g, line)
    return sum_of(counts)
