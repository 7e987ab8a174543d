"""The transforms of Winograd's tiles, a register of tiles or filters at a time.

A lane holds one tile, or one filter, so that a transform is plain arithmetic on registers; the matrices are constants
of the code (`fastconv.core.winograd_matrices`). Elements j, m + j, 2 * m + j, ... of a line are element j of its tiles.
What a tile reads beyond its own m elements stands in further copies of the line, m elements on, so that the tiles of
several lines follow each other and fill registers also where lines are short.
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
        """Rows V columns^T, of the matrix V whose rows are lists of values."""
        by_column = [self.applied(rows, column) for column in zip(*values, strict=True)]
        return [self.applied(columns, row) for row in zip(*by_column, strict=True)]

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
def transform_data(typing_context, kind, array, at, phase_pitch, copy_pitch, line, to, point_pitch):
    """array[to + e * point_pitch] = B^T d B of a register of tiles, point by point.

    Row i of the first tile lies at ``at + i % m * phase_pitch + i // m * line``; `copy_pitch` further on, the same from
    the m-th element on, and so on.
    """
    integer = types.int64
    square = SQUARES[kind.literal_value]

    def codegen(context, builder, signature, arguments):
        lanes = _Lanes(Emitter(builder, signature.args[1].dtype))
        emitter = lanes.emitter
        _, values, at, phase_pitch, copy_pitch, line, to, point_pitch = arguments
        m = square.width.outputs

        def elements(begin):
            begin = element(context, builder, signature.args[1], values, begin)
            loaded = [emitter.load(builder.gep(begin, [index(v * emitter.lanes)]))[0] for v in range(m)]
            return lanes.phases(loaded)

        rows = []
        for i in range(square.height.products):
            phase, further = i % square.height.outputs, i // square.height.outputs
            begin = builder.add(at, builder.mul(phase_pitch, index(phase)))
            begin = builder.add(begin, builder.mul(line, index(further)))
            row = elements(begin)
            for _ in range(square.width.further):
                begin = builder.add(begin, copy_pitch)
                row += elements(begin)
            rows.append(row[: square.width.products])
        points = lanes.applied_to_square(square.height.data, square.width.data, rows)
        begin = element(context, builder, signature.args[1], values, to)
        _store_points(emitter, points, begin, point_pitch)
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
            place = builder.mul(pitch, builder.select(exists, index(number), last))
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
        _store_points(emitter, points, begin, point_pitch)
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
        outputs = lanes.applied_to_square(square.height.back, square.width.back, points)
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
        tile = []
        for i in range(rows.shape[1]):
            row = builder.gep(begin, [builder.mul(line, index(i))])
            places = [builder.gep(row, [index(j * emitter.lanes)]) for j in range(columns.shape[1])]
            tile.append([emitter.load(place)[0] for place in places])
        points = lanes.applied_to_square(rows, columns, tile)
        begin = element(context, builder, signature.args[2], values, to)
        _store_points(emitter, points, begin, point_pitch)
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
        taps = [tap for row in lanes.applied_to_square(square.height.back, square.width.back, points) for tap in row]
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
    """Rows of points, `point_pitch` elements from one to the next."""
    builder = emitter.builder
    height, width = square.height.products, square.width.products
    places = [[builder.mul(point_pitch, index(i * width + j)) for j in range(width)] for i in range(height)]
    return [[emitter.load(builder.gep(begin, [place]))[0] for place in row] for row in places]


def _store_points(emitter, points, begin, point_pitch):
    """Store rows of points, `point_pitch` elements from one to the next."""
    builder = emitter.builder
    for e, point in enumerate(value for row in points for value in row):
        emitter.store((point,), builder.gep(begin, [builder.mul(point_pitch, index(e))]))


def _transposed(emitter, begins, columns):
    """The first `columns` elements from each of these addresses: for each column the elements of all rows."""
    transposed = []
    for first in range(0, columns, emitter.lanes):
        held = index(min(emitter.lanes, columns - first))
        rows = [emitter.load_first(emitter.builder.gep(begin, [index(first)]), held) for begin in begins]
        transposed += [part for (part,) in exchanged(emitter, rows)]
    return transposed[:columns]
