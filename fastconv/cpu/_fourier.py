"""The Fourier transform of vectors: each lane is a transform of its own, so nothing is ever shuffled.

A point is a register of real parts and then one of imaginary parts. Points are transformed in place, in passes of small
radices r. The forward passes decimate in frequency: over intervals of L points, from L = n down,

    z[k * L/r + j]  <-  exp(-2 pi i j k / L) * sum over m of exp(-2 pi i m k / r) * z[m * L/r + j],   j < L/r

which leaves frequency `frequencies(n)[p]` at position p. The inverse passes do the reverse in the opposite order, from
such positions back to points in their order, and leave out the factor 1/n. A product of two spectra does not ask
for the order, so that none is ever restored.

Sources: Cooley, Tukey, "An Algorithm for the Machine Calculation of Complex Fourier Series", Math. Comp. 19 (1965);
Van Loan, "Computational Frameworks for the Fast Fourier Transform", SIAM 1992, section 1.9 (decimation in frequency).
"""

from __future__ import annotations

import cmath
import functools
import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from ..core.algorithm import running_sum_error
from ..core.jit import subroutine
from ..core.problem import ConvProblem, Op
from ._geometry import Tables
from ._kernel import always_inlined, elements_in, never_inlined, number
from ._simd import CONTRACT, Emitter, element, index

# Directions, as literals for the code generator.
FORWARD, BACK = 0, 1
# Integers of a pass in a table: its radix, the distance L/r of its points, and where its factors begin.
PASS = 3


# Extents of planes whose columns and rows both fill registers, of 16 lanes at most.
LENGTHS = sorted(16 * odd << power for odd in (1, 3, 5, 15) for power in range(6) if 16 * odd << power <= 512)


def radices(n: int) -> list[int]:
    """The radices of a transform of n points, in the order of the forward passes."""
    found: list[int] = []
    rest = n
    for odd in (7, 5, 3):
        while rest % odd == 0:
            found, rest = [*found, odd], rest // odd
    levels = round(math.log2(n // math.prod(found)))
    fours = -levels % 3
    return found + [4] * fours + [8] * ((levels - 2 * fours) // 3)


def frequencies(n: int) -> NDArray[np.int64]:
    """Which frequency stands at each position after the forward passes."""
    found = np.zeros(1, np.int64)
    for radix in reversed(radices(n)):
        found = (np.arange(radix)[:, None] + radix * found[None, :]).reshape(-1)
    return found


def factors(n: int) -> NDArray[np.float64]:
    """The complex factors of all passes but the last: for each pass, for each j, those of k = 1, 2, ..., r - 1."""
    found: list[complex] = []
    length = n
    for radix in radices(n)[:-1]:
        found += [
            cmath.exp(-2j * math.pi * (j * k % length) / length)
            for j in range(length // radix)
            for k in range(1, radix)
        ]
        length //= radix
    return np.array(found, np.complex128).view(np.float64)


def passes(n: int, factors_at: int) -> list[int]:
    """What the transforms read: n, how many passes there are, and each pass; the factors begin at `factors_at`."""
    table = [n, len(radices(n))]
    length = n
    for radix in radices(n):
        table += [radix, length // radix, factors_at]
        factors_at += 2 * (length // radix) * (radix - 1)
        length //= radix
    return table


def add_passes(tables: Tables, n: int, dtype: str) -> int:
    """Add the `factors` and the `passes` of n points to a geometry vector; the position of the latter."""
    return tables.add(passes(n, tables.add_elements(factors(n), dtype)))


# ---- what the selector asks


def limit(problem: ConvProblem, op: Op, points: int) -> float:
    """Magnitude of all elements below which no sum and no product of spectra of this many points overflows."""
    largest = float(np.finfo(problem.dtype).max) / problem.terms(op)
    return math.sqrt(largest) / points


def transform_error(problem: ConvProblem, points: int, additions: int) -> float:
    """Error bound of a method that adds up this many products of spectra.

    Rounding errors grow with the number of passes, log2 of the points, and as in any sum with that of the products.

    Source: Schatzman, "Accuracy of the Discrete Fourier Transform and the Fast Fourier Transform", SIAM J. Sci.
    Comput. 17 (1996), 1150-1166; 4 of it is the largest of many results, over three transforms.
    """
    return running_sum_error(problem, math.ceil((math.log2(points) + 1 + math.sqrt(additions)) ** 2))


# ---- the transforms


@subroutine
def transform(data, at, pitch, geometry, table):
    """Transform n points, `pitch` elements apart, in place: from their order to `frequencies(n)`.

    table: position of `passes(n)` in the geometry vector.
    """
    never_inlined()
    n, last = number(geometry, table), _last_entry(geometry, table)
    for entry in range(table + 2, last, PASS):
        _pass(FORWARD, data, at, pitch, n, geometry, entry)
    _last_pass(FORWARD, data, at, pitch, n, number(geometry, last))


@subroutine
def transform_back(data, at, pitch, geometry, table):
    """Undo `transform`, but for a factor of n: from `frequencies(n)` to points in their order."""
    never_inlined()
    n, last = number(geometry, table), _last_entry(geometry, table)
    _last_pass(BACK, data, at, pitch, n, number(geometry, last))
    for entry in range(last - PASS, table + 1, -PASS):
        _pass(BACK, data, at, pitch, n, geometry, entry)


@subroutine
def _last_entry(geometry, table):
    return table + 2 + PASS * (number(geometry, table + 1) - 1)


@subroutine
def _pass(direction, data, at, pitch, n, geometry, entry):
    """A pass with factors, which are the same for the points j of all intervals."""
    always_inlined()
    roots = elements_in(geometry, data)
    radix, step, factor = number(geometry, entry), number(geometry, entry + 1), number(geometry, entry + 2)
    for j in range(step):
        for begin in range(j, n, radix * step):
            place = at + begin * pitch
            if radix == 8:
                _butterfly(8, direction, data, place, step * pitch, roots, factor)
            elif radix == 4:
                _butterfly(4, direction, data, place, step * pitch, roots, factor)
            elif radix == 3:
                _butterfly(3, direction, data, place, step * pitch, roots, factor)
            elif radix == 5:
                _butterfly(5, direction, data, place, step * pitch, roots, factor)
            else:
                _butterfly(7, direction, data, place, step * pitch, roots, factor)
        factor += 2 * (radix - 1)


@subroutine
def _last_pass(direction, data, at, pitch, n, radix):
    """The pass over neighbours, whose factors are 1."""
    always_inlined()
    for begin in range(0, n, radix):
        if radix == 8:
            _small_transform(8, direction, data, at + begin * pitch, pitch)
        else:
            _small_transform(4, direction, data, at + begin * pitch, pitch)


@intrinsic(prefer_literal=True)
def _butterfly(typing_context, radix, direction, data, at, step, factors, factors_at):
    """The transform of `radix` points, `step` elements apart, in place, and its factors: after it, or back, before."""
    integer = types.int64

    def codegen(context, builder, signature, arguments):
        points = _Points(builder, context, signature, arguments)
        first = element(context, builder, signature.args[5], arguments[5], arguments[6])
        roots = [points.factor(first, k) for k in range(1, points.count)]
        values = points.load()
        if points.back:
            values = values[:1] + [points.product(z, root) for z, root in zip(values[1:], roots, strict=True)]
        values = points.transformed(values)
        if not points.back:
            values = values[:1] + [points.product(z, root) for z, root in zip(values[1:], roots, strict=True)]
        points.store(values)
        return context.get_dummy_value()

    return types.void(radix, direction, data, integer, integer, factors, integer), codegen


@intrinsic(prefer_literal=True)
def _small_transform(typing_context, radix, direction, data, at, step):
    """The transform of `radix` points, `step` elements apart, in place."""
    integer = types.int64

    def codegen(context, builder, signature, arguments):
        points = _Points(builder, context, signature, arguments)
        points.store(points.transformed(points.load()))
        return context.get_dummy_value()

    return types.void(radix, direction, data, integer, integer), codegen


class _Points:
    """Instructions on a few points in registers, each a pair of its real and its imaginary part.

    On the way back the two parts change places in memory: that conjugates all roots of unity.
    """

    def __init__(self, builder, context, signature, arguments):
        self._builder = builder
        self._emitter = Emitter(builder, signature.args[2].dtype)
        self.count = signature.args[0].literal_value
        self.back = signature.args[1].literal_value == BACK
        begin = element(context, builder, signature.args[2], arguments[2], arguments[3])
        self._places = [builder.gep(begin, [builder.mul(arguments[4], index(m))]) for m in range(self.count)]

    def load(self):
        return [tuple(self._emitter.load(part)[0] for part in self._parts(place)) for place in self._places]

    def store(self, values):
        for place, value in zip(self._places, values, strict=True):
            for part, register in zip(self._parts(place), value, strict=True):
                self._emitter.store((register,), part)

    def _parts(self, place):
        parts = place, self._builder.gep(place, [index(self._emitter.lanes)])
        return parts[::-1] if self.back else parts

    def factor(self, first, k):
        """The factor of output k, in all lanes."""
        return tuple(self._emitter.splat(self._builder.gep(first, [index(2 * (k - 1) + part)]))[0] for part in range(2))

    # -- arithmetic

    def sum(self, first, second):
        return tuple(self._builder.fadd(a, b, flags=CONTRACT) for a, b in zip(first, second, strict=True))

    def difference(self, first, second):
        return tuple(self._builder.fsub(a, b, flags=CONTRACT) for a, b in zip(first, second, strict=True))

    def scaled(self, value, factor):
        constant = ir.Constant(self._emitter.part, [factor] * self._emitter.lanes)
        return tuple(self._builder.fmul(part, constant, flags=CONTRACT) for part in value)

    def product(self, first, second):
        (a, b), (c, d) = first, second
        times = functools.partial(self._builder.fmul, flags=CONTRACT)
        return (
            self._builder.fsub(times(a, c), times(b, d), flags=CONTRACT),
            self._builder.fadd(times(a, d), times(b, c), flags=CONTRACT),
        )

    def turned(self, value):
        """-i times the value."""
        return value[1], self._builder.fneg(value[0])

    def eighth_turned(self, value):
        """exp(-2 pi i / 8) times the value."""
        return self.scaled(self.sum(value, self.turned(value)), math.sqrt(0.5))

    def transformed(self, values):
        """The transform of 1, 2, 3, 4, 5, 7 or 8 values."""
        count = len(values)
        if count == 1:
            return values
        if count % 2:
            return self._odd(values)
        even, odd = self.transformed(values[::2]), self.transformed(values[1::2])
        for k in range(1, count // 2):
            eighths = 8 * k // count
            odd[k] = self.eighth_turned(odd[k]) if eighths % 2 else odd[k]
            odd[k] = self.turned(odd[k]) if eighths >= 2 else odd[k]
        return [*map(self.sum, even, odd), *map(self.difference, even, odd)]

    def _odd(self, values):
        """An odd number: its points m and -m, which have the same cosines and opposite sines, are taken together."""
        count, half = len(values), len(values) // 2
        sums = [self.sum(values[m], values[-m]) for m in range(1, half + 1)]
        differences = [self.turned(self.difference(values[m], values[-m])) for m in range(1, half + 1)]
        results = [functools.reduce(self.sum, sums, values[0])] * count
        for k in range(1, half + 1):
            angles = [2 * math.pi * m * k / count for m in range(1, half + 1)]
            cosines = [self.scaled(z, math.cos(angle)) for z, angle in zip(sums, angles, strict=True)]
            sines = [self.scaled(z, math.sin(angle)) for z, angle in zip(differences, angles, strict=True)]
            even, odd = functools.reduce(self.sum, cosines, values[0]), functools.reduce(self.sum, sines)
            results[k], results[-k] = self.sum(even, odd), self.difference(even, odd)
        return results
