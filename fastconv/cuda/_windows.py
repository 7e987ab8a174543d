"""A thread's window of the source: several neighbouring results in registers, of filters that reach one channel.

A filter is walked along each axis in the order in which its taps meet the source, so that FORWARD and GRAD_INPUT differ
in where a tap comes from and in nothing else. With o the number of a result and t that of a tap along an axis::

    place(o, t) = o * step + t * dilation + lead,      result[o] = sum over t of filter[t] * window[place / spread]

where places that the spread does not divide hold nothing: they are what GRAD_INPUT has between the elements of y, whose
spread is the stride. All of this is known at compile time, and neither a zero nor a remainder is left in the code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..core.problem import ConvProblem, Op
from ._device import function, get4, int32, quotient, remainder

# Products, and rows of a window, above which a loop nest is no longer unrolled before arrays become registers (found by
# trial with NVVM of CUDA 13.0).
UNROLLED, UNROLLED_ROWS = 256, 2
VECTOR = 4


class Along(NamedTuple):
    """How an operation walks an axis, as far as it is compiled."""

    taps: int
    step: int
    spread: int
    dilation: int
    lead: int

    @classmethod
    def of(cls, problem: ConvProblem, op: Op, axis: int) -> Along:
        """For an axis of a problem; GRAD_WEIGHT walks as FORWARD does."""
        taps, stride, dilation = problem.filter[axis], problem.stride[axis], problem.dilation[axis]
        dilation = dilation if taps > 1 else 1
        if op is not Op.GRAD_INPUT:
            return cls(taps, stride, 1, dilation, 0)
        return cls(taps, 1, stride, dilation, first_place(problem, op, axis) % stride)

    def window(self, results: int) -> int:
        """Elements of the source that this many results need, the first of which is a multiple of the spread."""
        return ((results - 1) * self.step + (self.taps - 1) * self.dilation + self.lead) // self.spread + 1

    def vectors(self, results: int) -> int:
        """The same in vectors."""
        return -(-self.window(results) // VECTOR)


def first_place(problem: ConvProblem, op: Op, axis: int) -> int:
    """Where the first tap of result 0 meets the source, whose elements are `spread` places apart."""
    low, _ = problem.padding[axis]
    return low - (problem.filter[axis] - 1) * problem.dilation[axis] if op is Op.GRAD_INPUT else -low


def in_turn(parts: list[Any]) -> Any:
    """The function of five arguments that calls functions of such one after another.

    They are joined two by two, as what is inlined is copied once for every call that it stands inside of.
    """
    if len(parts) == 1:
        return parts[0]
    first, second = in_turn(parts[: len(parts) // 2]), in_turn(parts[len(parts) // 2 :])

    @function
    def both(sums, factors, window, elements, place):
        first(sums, factors, window, elements, place)
        second(sums, factors, window, elements, place)

    return both


def _over_rows(down: Along, rows: int, products: int, load: Any, add: Any) -> Any:
    """Load a window row by row, and add to the sums what each gives: so many products."""

    def part(first: int, count: int) -> Any:
        @function
        def rows_of_window(sums, factors, window, elements, place):
            for number in range(first, first + count):
                load(window, elements, place, number)
                for i in range(rows):
                    distance = int32(number * down.spread - down.lead - i * down.step)
                    if distance >= 0 and remainder(distance, int32(down.dilation)) == 0:
                        r = quotient(distance, int32(down.dilation))
                        if r < down.taps:
                            add(sums, factors, window, elements, i, r, place)

        return rows_of_window

    height = down.window(rows)
    most = max(1, min(UNROLLED_ROWS, UNROLLED // products))
    return in_turn([part(first, min(most, height - first)) for first in range(0, height, most)])


Load = Callable[..., None]


def gathered(down: Along, across: Along, rows: int, columns: int, load: Load) -> Any:
    """The function ``(sums, filter, window, elements, place)`` that adds a filter's products to a thread's results.

    sums: (rows * columns,). filter: (taps,). window: as many as `Along.vectors` says, written. elements and place:
    what ``load(window, elements, place, number)`` reads a row of the window from.
    """
    taps, step, spread, dilation, lead = across

    @function
    def add(sums, filter_, window, elements, i, r, place):
        for j in range(columns):
            for s in range(taps):
                at = int32(j * step + s * dilation + lead)
                if remainder(at, int32(spread)) == 0:
                    sums[i * columns + j] += filter_[r * taps + s] * window[quotient(at, int32(spread))]

    return _over_rows(down, rows, rows * columns * taps, load, add)


def correlated(down: Along, across: Along, rows: int, columns: int, load: Load) -> Any:
    """The function ``(sums, gradients, window, elements, place)`` that adds to the sums of a filter's gradient.

    sums: (taps,). gradients: (rows * columns,) of y. The rest is as in `gathered`. Pixels from ``place.pixels_down``
    and ``place.pixels_across`` on are outside of y, and no product is made with what x holds there, which may be NaN.
    """
    taps, step, _, dilation, _ = across

    @function
    def add(sums, gradients, window, elements, i, r, place):
        if i < place.pixels_down:
            for j in range(columns):
                if j < place.pixels_across:
                    for s in range(taps):
                        sums[r * taps + s] += gradients[i * columns + j] * window[j * step + s * dilation]

    return _over_rows(down, rows, rows * columns * taps, load, add)


def gathered_for_channels(down: Along, across: Along, rows: int, columns: int, channels: int, load: Load) -> Any:
    """The function ``(sums, factors, window, elements, place)`` that adds to results of several channels.

    sums: (channels * rows * columns,). factors: (channels,), written. elements: shared memory, with the filters of all
    channels, (taps, channels), from ``place.filters_at`` on. The rest is as in `gathered`.
    """
    taps, step, spread, dilation, lead = across

    @function
    def add(sums, factors, window, elements, i, r, place):
        for s in range(taps):
            for k in range(0, channels, VECTOR):
                at = int32(place.filters_at + (r * taps + s) * channels + k)
                factors[k], factors[k + 1], factors[k + 2], factors[k + 3] = get4(elements, at)
            for j in range(columns):
                at = int32(j * step + s * dilation + lead)
                if remainder(at, int32(spread)) == 0:
                    for k in range(channels):
                        sums[(k * rows + i) * columns + j] += factors[k] * window[quotient(at, int32(spread))]

    return _over_rows(down, rows, rows * columns * taps * channels, load, add)
