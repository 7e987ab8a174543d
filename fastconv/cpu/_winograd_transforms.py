"""The transforms of Winograd's tiles, a register of tiles or filters at a time.

A lane holds one tile, or one filter, so that a transform is plain arithmetic on registers; the matrices are constants
of the code (`fastconv.core.winograd_matrices`). Elements j, m + j, 2 * m + j, ... of a line are element j of its tiles,
and those that a tile reads beyond its own m elements are the first ones of the tiles further on. All of them are
separated before, so that the tiles of several lines follow each other and fill registers also where lines are short.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ..core.winograd_matrices import Filtering, Matrix, filtering
from ._extremes import greatest_bits
from ._simd import Emitter, element, exchanged, index


class Square(NamedTuple):
    """The filterings along H and along W."""

    height: Filtering
    width: Filtering

    @property
    def products(self) -> int:
        """Products of a tile."""
        return self.height.products * self.width.products

    @property
    def exchanged(self) -> Square:
        """F(r, m) in place of F(m, r): outputs take the place of the filter. The data matrix stays as it is."""
        return Square(*(filtering(each.taps, each.outputs) for each in self))


# What kernels are compiled for; they know them by their numbers.
SQUARES = (
    *(Square(filtering(m, 3), filtering(m, 3)) for m in (2, 4, 6)),
    Square(filtering(7, 3), filtering(4, 3)),
    Square(filtering(4, 5), filtering(4, 5)),
    *(Square(filtering(1, 1), filtering(m, r)) for m, r in ((4, 3), (4, 5), (4, 7))),
    *(Square(filtering(m, r), filtering(1, 1)) for m, r in ((4, 3), (4, 5), (4, 7))),
)


# ---- arithmetic with constant matrices


class _Lanes:
    """Arithmetic on registers of real numbers; None is zero."""

    def __init__(self, emitter: Emitter) -> None:
        self.emitter = emitter

    def constant(self, value: float) -> ir.Constant:
        return ir.Constant(self.emitter.part, [ir.Constant(self.emitter.scalar, value)] * self.emitter.lanes)

    def multiply_add(self, factor, value, total):
        """Factor * value + total, for a constant factor."""
        builder = self.emitter.builder
        if total is None:
            return value if factor == 1 else builder.fmul(self.constant(factor), value)
        if abs(factor) == 1:
            return (builder.fadd if factor > 0 else builder.fsub)(total, value)
        return self.emitter.fma((self.constant(factor),), (value,), (total,))[0]

    def combination(self, coefficients, values):
        """The sum of coefficients times values; it begins with one that needs no product, if there is any."""
        total = None
        for j in sorted(np.flatnonzero(coefficients), key=lambda j: coefficients[j] != 1):
            total = self.multiply_add(float(coefficients[j]), values[j], total)
        return total

    def applied(self, matrix: Matrix, values):
        """Matrix times values: what two columns or two rows have in common but for signs is worked out once."""
        matrix, values = self._with_pairs_of_columns(matrix, values)
        results = [None] * len(matrix)
        for i, row in enumerate(matrix):
            twin = next((other for other in range(i + 1, len(matrix)) if _are_twins(row, matrix[other])), None)
            if results[i] is None and twin is not None:
                same = np.isclose(row, matrix[twin])
                results[i], results[twin] = self._twins(np.where(same, row, 0), np.where(same, 0, row), values)
            elif results[i] is None:
                results[i] = self.combination(row, values)
        return results

    def _with_pairs_of_columns(self, matrix: Matrix, values):
        """The same product with the sum and the difference of values whose columns differ in signs only."""
        matrix, values = matrix.copy(), list(values)
        for j in range(len(values)):
            for other in range(j + 1, len(values)):
                if _are_twins(matrix[:, j], matrix[:, other]):
                    same = np.isclose(matrix[:, j], matrix[:, other])
                    first, second = values[j], values[other]
                    values[j] = self.emitter.builder.fadd(first, second)
                    values[other] = self.emitter.builder.fsub(first, second)
                    matrix[:, other] = np.where(same, 0, matrix[:, j])
                    matrix[:, j] = np.where(same, matrix[:, j], 0)
        return matrix, values

    def _twins(self, even, odd, values):
        """Both even + odd and even - odd."""
        first = self.combination(even, values)
        scale = float(odd[np.flatnonzero(odd)[-1]])
        second = self.combination(odd / scale, values)
        return self.multiply_add(scale, second, first), self.multiply_add(-scale, second, first)

    def applied_to_square(self, rows: Matrix, columns: Matrix, values):
        """The columns of rows V columns^T, one after another, of the matrix V whose rows are lists of values.

        Values that come one row after another, and columns that are stored as they come, leave registers to what stands
        between them.
        """
        by_row = [self.applied(columns, row) for row in values]
        for column in zip(*by_row, strict=True):
            yield self.applied(rows, column)

    # -- taking lines apart, and putting them together

    def phases(self, values):
        """Every m-th element of m values after one another, from the first, the second, ... on."""
        count = len(values)
        if count == 1:
            return list(values)
        if count % 2:
            return [self._every(values, range(start, count * self.emitter.lanes, count)) for start in range(count)]
        lanes = range(2 * self.emitter.lanes)
        pairs = list(zip(values[::2], values[1::2], strict=True))
        halves = [self.phases([self.emitter.shuffle(*pair, lanes[start::2]) for pair in pairs]) for start in range(2)]
        return [halves[phase % 2][phase // 2] for phase in range(count)]

    def by_turns(self, values):
        """The inverse of `phases`."""
        count = len(values)
        if count == 1:
            return list(values)
        lanes = self.emitter.lanes
        if count % 2:
            order = [part * lanes + lane for lane in range(lanes) for part in range(count)]
            return [self._every(values, order[begin : begin + lanes]) for begin in range(0, count * lanes, lanes)]
        halves = [self.by_turns(values[start::2]) for start in range(2)]
        order = [part + lane for lane in range(lanes) for part in (0, lanes)]
        return [
            self.emitter.shuffle(even, odd, order[half : half + lanes])
            for even, odd in zip(*halves, strict=True)
            for half in (0, lanes)
        ]

    def _every(self, values, places):
        """The elements at these places of three values after one another."""
        lanes = self.emitter.lanes
        first, second, third = values
        joined = self.emitter.shuffle(first, second, [place if place < 2 * lanes else 0 for place in places])
        order = [lane if place < 2 * lanes else place - lanes for lane, place in enumerate(places)]
        return self.emitter.shuffle(joined, third, order)


def _are_twins(first, second) -> bool:
    """Whether two vectors differ in signs only, and in some of them only."""
    return (
        np.allclose(np.abs(first), np.abs(second))
        and not np.allclose(first, second)
        and not np.allclose(first, -second)
    )


# ---- what kernels call
#
# `kind` is a literal number of `SQUARES`.


@intrinsic(prefer_literal=True)
def separate(typing_context, kind, array, at, element_pitch, is_first, source, begin, first, last, outside):
    """array[at + e * element_pitch + t] = element e of tile t of a register of tiles.

    A line of tiles begins at `begin` in the source, of which there is what stands from `first` to `last`, and `outside`
    around it. Elements that belong to tiles further on are written one tile back for each, but not before the line.
    """
    integer = types.int64
    width = SQUARES[kind.literal_value].width

    def codegen(context, builder, signature, arguments):
        lanes = _Lanes(Emitter(builder, signature.args[1].dtype))
        emitter = lanes.emitter
        _, values, at, element_pitch, is_first, source, begin, first, last, outside = arguments
        begin = element(context, builder, signature.args[5], source, begin)
        to = element(context, builder, signature.args[1], values, at)
        held = emitter.spread(builder.sub(last, first))
        loaded = []
        for v in range(width.outputs):
            number = builder.sub(emitter.numbers(v * emitter.lanes), emitter.spread(first))
            place = emitter.address(builder.gep(begin, [index(v * emitter.lanes)]), emitter.lanes)
            loaded.append(emitter.load_masked(place, builder.icmp_unsigned("<", number, held), outside))
        phases = lanes.phases(loaded)
        for e in range(width.products):
            further, phase = divmod(e, width.outputs)
            place = builder.gep(to, [builder.sub(builder.mul(element_pitch, index(e)), index(further))])
            if further == 0:
                emitter.store((phases[phase],), place)
                continue
            before = emitter.spread(builder.select(is_first, index(further), index(0)))
            emitter.masked_store((phases[phase],), place, builder.icmp_signed(">=", emitter.numbers(0), before))
        return context.get_dummy_value()

    return types.void(kind, array, integer, integer, types.boolean, source, integer, integer, integer, outside), codegen


@intrinsic(prefer_literal=True)
def transform_data(typing_context, kind, array, at, phase_pitch, element_pitch, line, to, point_pitch):
    """array[to + e * point_pitch] = B^T d B of a register of tiles, point by point.

    Element j of row i of the first tile lies at ``at + i % m * phase_pitch + i // m * line + j * element_pitch``.
    """
    integer = types.int64
    square = SQUARES[kind.literal_value]

    def codegen(context, builder, signature, arguments):
        lanes = _Lanes(Emitter(builder, signature.args[1].dtype))
        emitter = lanes.emitter
        _, values, at, phase_pitch, element_pitch, line, to, point_pitch = arguments

        def row(i):
            further, phase = divmod(i, square.height.outputs)
            begin = builder.add(at, builder.mul(phase_pitch, index(phase)))
            begin = builder.add(begin, builder.mul(line, index(further)))
            begin = element(context, builder, signature.args[1], values, begin)
            places = [builder.mul(element_pitch, index(j)) for j in range(square.width.products)]
            return [emitter.load(builder.gep(begin, [place]))[0] for place in places]

        rows = (row(i) for i in range(square.height.products))
        points = lanes.applied_to_square(square.height.data, square.width.data, rows)
        begin = element(context, builder, signature.args[1], values, to)
        _store_points(emitter, square, points, begin, point_pitch)
        return context.get_dummy_value()

    return types.void(kind, array, *[integer] * 6), codegen


@intrinsic(prefer_literal=True)
def transform_filters(typing_context, kind, flipped, weights, at, pitch, count, ahead, array, to, point_pitch):
    """array[to + e * point_pitch] = G g G^T of `count` filters, at most a register of them, `pitch` elements apart.

    flipped: literal, whether the filters are turned around; ahead: elements from a filter to one that is fetched for
    later. Lanes behind the last filter hold it again.

    The arithmetic is in the elements' type: with filters transformed in float64, the root mean square errors of F(4, 3)
    and F(2, 3) in float32 stayed the same within 3 % (64 and 256 channels), as those of the sums are larger.
    """
    integer = types.int64
    square = SQUARES[kind.literal_value]

    def codegen(context, builder, signature, arguments):
        lanes = _Lanes(Emitter(builder, signature.args[2].dtype))
        emitter = lanes.emitter
        _, _, weights, at, pitch, count, ahead, values, to, point_pitch = arguments
        last = builder.sub(count, index(1))
        begins = []
        for number in range(emitter.lanes):
            exists = builder.icmp_signed("<", index(number), last)
            place = builder.select(exists, builder.mul(pitch, index(number)), builder.mul(pitch, last))
            begins.append(element(context, builder, signature.args[2], weights, builder.add(at, place)))
        for begin in begins:
            emitter.prefetch(builder.gep(begin, [ahead]))
        height, width = square.height.taps, square.width.taps
        taps = _transposed(emitter, begins, height * width)
        if signature.args[1].literal_value:
            taps.reverse()
        filters = [taps[r * width : (r + 1) * width] for r in range(height)]
        points = lanes.applied_to_square(square.height.filter, square.width.filter, filters)
        begin = element(context, builder, signature.args[7], values, to)
        _store_points(emitter, square, points, begin, point_pitch)
        return context.get_dummy_value()

    return types.void(kind, flipped, weights, *[integer] * 4, array, integer, integer), codegen


@intrinsic(prefer_literal=True)
def transform_back(typing_context, kind, array, at, point_pitch, to, line_pitch, count, greatest):
    """array[to + i * line_pitch] = row i of A^T M A of a register of tiles, which follow each other along it.

    Point e of the first tile is array[at + e * point_pitch]. Gives the greatest magnitudes of `count` tiles, at most a
    register, and of `greatest` (`greatest_bits`).
    """
    integer = types.int64
    square = SQUARES[kind.literal_value]

    def codegen(context, builder, signature, arguments):
        lanes = _Lanes(Emitter(builder, signature.args[1].dtype))
        emitter = lanes.emitter
        _, values, at, point_pitch, to, line_pitch, count, greatest = arguments
        begin = element(context, builder, signature.args[1], values, at)
        points = _loaded_points(emitter, square, begin, point_pitch)
        columns = lanes.applied_to_square(square.height.back, square.width.back, points)
        outputs = list(zip(*columns, strict=True))
        for i, row in enumerate(outputs):
            line = builder.add(to, builder.mul(line_pitch, index(i)))
            begin = element(context, builder, signature.args[1], values, line)
            for v, value in enumerate(lanes.by_turns(row)):
                emitter.store((value,), builder.gep(begin, [index(v * emitter.lanes)]))
        return greatest_bits(emitter, [value for row in outputs for value in row], count, greatest)

    return greatest(kind, array, *[integer] * 5, greatest), codegen


@intrinsic(prefer_literal=True)
def transform_channels(typing_context, kind, is_data, array, at, line, to, point_pitch):
    """array[to + e * point_pitch] = point e of one tile of a register of channels, for the gradient of the weight.

    is_data: literal, whether B^T d B of data, or G y G^T of outputs. Element (i, j) of the tile is the register at
    ``at + i * line + j * lanes``.
    """
    integer = types.int64
    square = SQUARES[kind.literal_value].exchanged
    rows, columns = ((each.data if is_data.literal_value else each.filter) for each in square)

    def codegen(context, builder, signature, arguments):
        lanes = _Lanes(Emitter(builder, signature.args[2].dtype))
        emitter = lanes.emitter
        _, _, values, at, line, to, point_pitch = arguments
        begin = element(context, builder, signature.args[2], values, at)

        def row(i):
            row = builder.gep(begin, [builder.mul(line, index(i))])
            return [emitter.load(builder.gep(row, [index(j * emitter.lanes)]))[0] for j in range(columns.shape[1])]

        points = lanes.applied_to_square(rows, columns, (row(i) for i in range(rows.shape[1])))
        _store_points(emitter, square, points, element(context, builder, signature.args[2], values, to), point_pitch)
        return context.get_dummy_value()

    return types.void(kind, is_data, array, *[integer] * 4), codegen


@intrinsic(prefer_literal=True)
def transform_sums(typing_context, kind, array, at, point_pitch, target, to, pitch, count):
    """target[to + c * pitch] = the filter that A^T S A gives for channel c, of `count`, at most a register of them.

    Point e of the channels is the register at ``at + e * point_pitch``.
    """
    integer = types.int64
    square = SQUARES[kind.literal_value].exchanged

    def codegen(context, builder, signature, arguments):
        lanes = _Lanes(Emitter(builder, signature.args[1].dtype))
        emitter = lanes.emitter
        _, values, at, point_pitch, target, to, pitch, count = arguments
        begin = element(context, builder, signature.args[1], values, at)
        points = _loaded_points(emitter, square, begin, point_pitch)
        columns = lanes.applied_to_square(square.height.back, square.width.back, points)
        taps = [tap for row in zip(*columns, strict=True) for tap in row]
        begin = element(context, builder, signature.args[4], target, to)
        for first in range(0, len(taps), emitter.lanes):
            some = [(tap,) for tap in taps[first : first + emitter.lanes]]
            filters = exchanged(emitter, some + [emitter.zero] * (emitter.lanes - len(some)))
            for number, filter in enumerate(filters):
                held = builder.select(builder.icmp_signed("<", index(number), count), index(len(some)), index(0))
                place = builder.gep(begin, [builder.add(builder.mul(pitch, index(number)), index(first))])
                emitter.store_first(filter, place, held)
        return context.get_dummy_value()

    return types.void(kind, array, integer, integer, target, integer, integer, integer), codegen


def _loaded_points(emitter, square, begin, point_pitch):
    """Rows of points, `point_pitch` elements from one to the next, loaded as they are wanted."""
    builder, width = emitter.builder, square.width.products
    for i in range(square.height.products):
        places = [builder.mul(point_pitch, index(i * width + j)) for j in range(width)]
        yield [emitter.load(builder.gep(begin, [place]))[0] for place in places]


def _store_points(emitter, square, columns, begin, point_pitch):
    """Store columns of points, which are numbered row by row, `point_pitch` elements from one to the next."""
    builder = emitter.builder
    for j, column in enumerate(columns):
        for i, point in enumerate(column):
            place = builder.mul(point_pitch, index(i * square.width.products + j))
            emitter.store((point,), builder.gep(begin, [place]))


def _transposed(emitter, begins, columns):
    """The first `columns` elements from each of these addresses: for each column the elements of all rows.

    Columns are taken by powers of two, and rows that are shorter than a register share one. 512x7x7 to 512, 3x3, took
    1.07 ms where each row had a register of its own, and 1.03 so.
    """
    transposed: list[ir.Value] = []
    while len(transposed) < columns:
        first = len(transposed)
        width = min(emitter.lanes, 1 << (columns - first).bit_length() - 1)
        places = [emitter.builder.gep(begin, [index(first)]) for begin in begins]
        rows = [(emitter.load_parts(places[i::width], width),) for i in range(width)]
        transposed += [part for (part,) in exchanged(emitter, rows)]
    return transposed
