"""The inner loops that the kernels share: copy rows in, multiply and add, copy rows out.

Everything is plain Numba, written for LLVM's vectoriser: unit strides, unsigned indices (a signed index costs a
wrap-around select in each step), and few enough distinct arrays that its overlap checks stay cheap. Arguments
called ``..._at`` are positions in a flat array. Planes are those of `fastconv.cpu._axes.Axis.packed`.
"""

from __future__ import annotations

from llvmlite import ir
from numba import carray, types, uint64
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from ..core.algorithm import running_sum_error
from ..core.jit import subroutine
from ..core.problem import ConvProblem, Op

# Numbers at the head of every geometry vector: the sizes of x, w, y, constants, workspace and the vector itself.
SIZES = 6
# Sources that one pass over a row of sums takes: 8 loads for each load and store of a sum. On one core of the
# machine of docs/performance.md, 69 GFLOP/s of 117 at rows of 512, 26 at 64.
UNROLL = 8
# Elements of the source rows that are used for every row of sums before the next are taken: half of a first-level
# cache of 32 KiB. The weights are then walked along their rows: 512x7x7 to 2048, 1x1, went from 8.0 to 5.4 ms.
SOURCE_ELEMENTS = 4096


# Pixels of a tile, of which eight rows, as many as `multiply` reads at once, take half of a first-level cache.
TILE_PIXELS = 512


def error_bound(problem: ConvProblem, op: Op) -> float:
    """Error bound of the loops below: one sum over all terms, but in GRAD_WEIGHT first over the pixels of each tile."""
    if op is Op.GRAD_WEIGHT:
        return running_sum_error(problem, TILE_PIXELS + problem.N * -(-problem.pixels // TILE_PIXELS))
    return running_sum_error(problem, problem.terms(op) + 1)


# Seconds for each row that is gathered or stored, and for each of its elements, fitted to the rows of resnet.txt on the
# machine of docs/performance.md.
ROW_SECONDS = 8e-9
ELEMENT_SECONDS = 0.5e-9


def copying(elements: float, row: float) -> float:
    """Seconds of one thread to gather or store elements in rows of this length."""
    return elements * (ELEMENT_SECONDS + ROW_SECONDS / max(1.0, row))


@subroutine
def views(x, w, y, constants, workspace, geometry):
    """The kernel's pointers as flat arrays of the sizes in the geometry vector."""
    head = carray(geometry, SIZES)
    return (
        carray(x, head[0]),
        carray(w, head[1]),
        carray(y, head[2]),
        carray(constants, head[3]),
        carray(workspace, head[4]),
        carray(geometry, head[5]),
    )


@intrinsic(prefer_literal=True)
def first_integers(typing_context, vector, count):
    """The first `count` elements of a vector as a tuple; count is a literal.

    Numba's own `to_fixed_tuple` copies the whole tuple for each element: 1.3 us for 48 of them.
    """

    def codegen(context, builder, signature, arguments):
        data = make_array(signature.args[0])(context, builder, arguments[0]).data
        places = [ir.Constant(ir.IntType(64), place) for place in range(count.literal_value)]
        values = [builder.load(builder.gep(data, [place])) for place in places]
        return context.make_tuple(builder, signature.return_type, values)

    return types.UniTuple(types.int64, count.literal_value)(vector, count), codegen


@subroutine
def plane_at(geometry, axis_at, slot):
    """Position of one plane of a packed axis."""
    return axis_at + 2 + slot * (2 + geometry[axis_at])


@subroutine
def place(geometry, plane, position):
    """Element at a position of a plane; negative when it lies outside."""
    return geometry[plane + 2 + position]


@subroutine
def _inner(geometry, plane, position, count):
    """The part of `count` positions in which elements follow each other at the axis' step."""
    first = min(max(geometry[plane] - position, 0), count)
    return first, min(max(geometry[plane + 1] - position, first), count)


@subroutine
def fill(target, target_at, count, value):
    at = uint64(target_at)
    for i in range(uint64(count)):
        target[at + i] = value


@subroutine
def gather_row(target, target_at, count, source, source_at, stride, outside, geometry, plane, step, position):
    """target[q] = element at `position + q` of a plane, for q < count, or `outside`.

    source_at, stride: first element of the axis in `source`, and the distance of its elements.
    """
    first, last = _inner(geometry, plane, position, count)
    for q in range(first):
        target[target_at + q] = _looked_up(source, source_at, stride, outside, place(geometry, plane, position + q))
    if first < last:
        begin = uint64(source_at + place(geometry, plane, position + first) * stride)
        at = uint64(target_at + first)
        if step * stride == 1:
            for q in range(uint64(last - first)):
                target[at + q] = source[begin + q]
        else:
            jump = uint64(step * stride)
            for q in range(uint64(last - first)):
                target[at + q] = source[begin + q * jump]
    for q in range(last, count):
        target[target_at + q] = _looked_up(source, source_at, stride, outside, place(geometry, plane, position + q))


@subroutine
def _looked_up(source, source_at, stride, outside, element):
    return outside if element < 0 else source[source_at + element * stride]


@subroutine
def scatter_row(target, target_at, stride, geometry, plane, step, position, source, source_at, count, bias, add):
    """Store source[q] + bias at `position + q` of a plane, for q < count; with `add`, add source[q] there.

    target_at, stride: first element of the axis in `target`, and the distance of its elements. Positions outside
    are dropped.
    """
    first, last = _inner(geometry, plane, position, count)
    for q in range(first):
        _store(target, target_at, stride, place(geometry, plane, position + q), source[source_at + q], bias, add)
    if first < last:
        begin = uint64(target_at + place(geometry, plane, position + first) * stride)
        at = uint64(source_at + first)
        jump = uint64(step * stride)
        if add:
            for q in range(uint64(last - first)):
                target[begin + q * jump] += source[at + q]
        elif jump == uint64(1):
            for q in range(uint64(last - first)):
                target[begin + q] = source[at + q] + bias
        else:
            for q in range(uint64(last - first)):
                target[begin + q * jump] = source[at + q] + bias
    for q in range(last, count):
        _store(target, target_at, stride, place(geometry, plane, position + q), source[source_at + q], bias, add)


@subroutine
def _store(target, target_at, stride, element, value, bias, add):
    if element >= 0:
        at = target_at + element * stride
        target[at] = target[at] + value if add else value + bias


@subroutine
def multiply_plain(
    sums, sums_at, pitch, rows, pixels, weights, weights_at, weights_pitch, source, table, source_at, taken_at, terms
):
    """`fastconv.cpu._gemm.multiply` for any type."""
    whole = terms - terms % UNROLL
    span = _span(pixels)
    for first in range(0, whole, span):
        for k in range(rows):
            for j in range(first, min(first + span, whole), UNROLL):
                _add_eight(
                    sums, uint64(sums_at + k * pitch), uint64(pixels),
                    weights, weights_at + k * weights_pitch,
                    source, table, uint64(source_at + j), uint64(taken_at + j),
                )  # fmt: skip
    for j in range(whole, terms):
        begin = uint64(table[source_at + j])
        for k in range(rows):
            weight = weights[weights_at + k * weights_pitch + table[taken_at + j]]
            at = uint64(sums_at + k * pitch)
            for i in range(uint64(pixels)):
                sums[at + i] += weight * source[begin + i]


@subroutine
def _span(pixels):
    """Terms whose source rows stay in the first-level cache together."""
    return max(UNROLL, SOURCE_ELEMENTS // pixels // UNROLL * UNROLL)


@subroutine
def _add_eight(sums, at, pixels, weights, w, source, table, o, t):
    w0, w1 = weights[w + table[t]], weights[w + table[t + uint64(1)]]
    w2, w3 = weights[w + table[t + uint64(2)]], weights[w + table[t + uint64(3)]]
    w4, w5 = weights[w + table[t + uint64(4)]], weights[w + table[t + uint64(5)]]
    w6, w7 = weights[w + table[t + uint64(6)]], weights[w + table[t + uint64(7)]]
    s0, s1 = uint64(table[o]), uint64(table[o + uint64(1)])
    s2, s3 = uint64(table[o + uint64(2)]), uint64(table[o + uint64(3)])
    s4, s5 = uint64(table[o + uint64(4)]), uint64(table[o + uint64(5)])
    s6, s7 = uint64(table[o + uint64(6)]), uint64(table[o + uint64(7)])
    for i in range(pixels):
        sums[at + i] += (
            w0 * source[s0 + i]
            + w1 * source[s1 + i]
            + w2 * source[s2 + i]
            + w3 * source[s3 + i]
            + w4 * source[s4 + i]
            + w5 * source[s5 + i]
            + w6 * source[s6 + i]
            + w7 * source[s7 + i]
        )


@subroutine
def dots_plain(sums, sums_at, pitch, rows, y, y_at, y_pitch, source, offsets, offsets_at, terms, begin, pixels):
    """`fastconv.cpu._gemm.dots` for any type."""
    whole = terms - terms % UNROLL
    span = _span(pixels)
    for first in range(0, whole, span):
        for k in range(rows):
            for j in range(first, min(first + span, whole), UNROLL):
                _dot_eight(
                    sums, uint64(sums_at + k * pitch + j),
                    y, uint64(y_at + k * y_pitch + begin), uint64(pixels),
                    source, offsets, uint64(offsets_at + j), uint64(begin),
                )  # fmt: skip
    for j in range(whole, terms):
        s = uint64(offsets[offsets_at + j] + begin)
        for k in range(rows):
            at = uint64(y_at + k * y_pitch + begin)
            total = y[at] * source[s]
            for i in range(uint64(1), uint64(pixels)):
                total += y[at + i] * source[s + i]
            sums[sums_at + k * pitch + j] += total


@subroutine
def _dot_eight(sums, at, y, a, pixels, source, offsets, o, begin):
    s0, s1 = uint64(offsets[o]) + begin, uint64(offsets[o + uint64(1)]) + begin
    s2, s3 = uint64(offsets[o + uint64(2)]) + begin, uint64(offsets[o + uint64(3)]) + begin
    s4, s5 = uint64(offsets[o + uint64(4)]) + begin, uint64(offsets[o + uint64(5)]) + begin
    s6, s7 = uint64(offsets[o + uint64(6)]) + begin, uint64(offsets[o + uint64(7)]) + begin
    t0 = y[a] * source[s0]
    t1 = y[a] * source[s1]
    t2 = y[a] * source[s2]
    t3 = y[a] * source[s3]
    t4 = y[a] * source[s4]
    t5 = y[a] * source[s5]
    t6 = y[a] * source[s6]
    t7 = y[a] * source[s7]
    for i in range(uint64(1), pixels):
        value = y[a + i]
        t0 += value * source[s0 + i]
        t1 += value * source[s1 + i]
        t2 += value * source[s2 + i]
        t3 += value * source[s3 + i]
        t4 += value * source[s4 + i]
        t5 += value * source[s5 + i]
        t6 += value * source[s6 + i]
        t7 += value * source[s7 + i]
    sums[at] += t0
    sums[at + uint64(1)] += t1
    sums[at + uint64(2)] += t2
    sums[at + uint64(3)] += t3
    sums[at + uint64(4)] += t4
    sums[at + uint64(5)] += t5
    sums[at + uint64(6)] += t6
    sums[at + uint64(7)] += t7


@subroutine
def all_finite(values, at, count):
    """Whether no element is NaN or infinite: such an element times zero is not zero."""
    begin = uint64(at)
    total = values[begin] * 0
    for i in range(uint64(count)):
        total += values[begin + i] * 0
    return total == 0
