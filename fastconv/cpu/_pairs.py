"""Outputs in pairs that share products: Winograd's F(2, 2) wherever two taps meet neighbours.

If two taps a and b of a filter meet the elements d0, d1, d2 for two neighbouring outputs, the latter are::

    y0 = a * d0 + b * d1 = a * (d0 - d1) + (a + b) * d1
    y1 = a * d1 + b * d2 = (a + b) * d1 + b * (d2 - d1)

so that three products serve for four. Taps without such a neighbour are products of their own. With a stride of 2 the
first and the third tap of a filter are such taps, as they meet elements of the same phase: five products serve for six
along an axis, and 25 for 36 along two. Nothing but sums and differences is needed, of elements in memory and of taps.

Here this is put down for one axis: which sums there are, what each of them adds up, and which of them make an output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..core.problem import ConvProblem, Op
from ._axes import Tap, input_axis, transposed_axes


class Kind(NamedTuple):
    """What is multiplied in the place of a tap: the first, or the sum of two where there is a second."""

    first: int
    second: int = -1

    @property
    def is_sum(self) -> bool:
        return self.second >= 0


class Element(NamedTuple):
    """What is multiplied in the place of an element: this one, or what remains of it less another."""

    slot: int  # of the plane of the source
    shift: int  # positions in it from that of the first output of a pair
    less: int = 0  # positions from the element to the one that is taken away, or 0


class Term(NamedTuple):
    """One product of a sum: an element times a kind of taps, by their numbers."""

    element: int
    kind: int


class Output(NamedTuple):
    """The sums that make an output: one of its own, and one that it shares with its neighbour, or -1."""

    own: int
    shared: int


@dataclass(frozen=True)
class PairedAxis:
    """The sums of an axis.

    Attributes
    ----------
    together
        Neighbouring outputs that are computed together: 2, or 1 where no products are shared.
    step
        Positions of the source from one output to the next.
    elements, kinds
        All that is made of elements, and of taps.
    sums
        The terms of each sum.
    outputs
        For each phase of the target those of its neighbouring outputs.
    """

    together: int
    step: int
    elements: tuple[Element, ...]
    kinds: tuple[Kind, ...]
    sums: tuple[tuple[Term, ...], ...]
    outputs: tuple[tuple[Output, ...], ...]

    @property
    def period(self) -> int:
        """Positions of the source from one pair of outputs to the next."""
        return self.step * self.together

    @property
    def further(self) -> int:
        """Groups of outputs further on into which those of one reach."""
        return max(each.shift + max(0, each.less) for each in self.elements) // self.period

    @property
    def products(self) -> int:
        """Products for `together` outputs of every phase."""
        return sum(map(len, self.sums))


def paired_axis(problem: ConvProblem, op: Op, axis: int, gap: int) -> PairedAxis:
    """The sums along an axis; gap: as in `fastconv.cpu._axes.input_axis`."""
    if op is Op.GRAD_INPUT:
        phases, count = transposed_axes(problem, axis, 1)[2], -(-problem.input[axis] // problem.stride[axis])
    else:
        phases, count = [list(enumerate(input_axis(problem, axis, 1, gap)[1]))], problem.output[axis]
    return sums_of(phases, gap + 1, is_paired=count > 1)


def sums_of(phases: Sequence[Sequence[tuple[int, Tap]]], step: int, is_paired: bool) -> PairedAxis:
    """The sums of the taps that meet each phase of the target, which are numbered; not in pairs where none has one."""
    chosen = [_partners(taps, step) if is_paired else {} for taps in phases]
    together = 2 if any(chosen) else 1
    elements: dict[Element, int] = {}
    kinds: dict[Kind, int] = {}
    sums: list[list[Term]] = []
    outputs = []

    def term(element: Element, kind: Kind) -> Term:
        return Term(elements.setdefault(element, len(elements)), kinds.setdefault(kind, len(kinds)))

    def add(terms: list[Term]) -> int:
        sums.append(terms)
        return len(sums) - 1

    for taps, partners in zip(phases, chosen, strict=True):
        places = dict(taps)
        alone = [number for number in places if number not in partners and number not in partners.values()]
        owns = [
            [term(Element(places[each].slot, places[each].shift + turn * step), Kind(each)) for each in alone]
            for turn in range(together)
        ]
        shared = []
        for first, second in partners.items():
            slot, shift = places[first]
            owns[0].append(term(Element(slot, shift, step), Kind(first)))
            owns[1].append(term(Element(slot, shift + 2 * step, -step), Kind(second)))
            shared.append(term(Element(slot, shift + step), Kind(first, second)))
        both = add(shared) if shared else -1
        outputs.append(tuple(Output(add(own), both) for own in owns))
    return PairedAxis(together, step, tuple(elements), tuple(kinds), tuple(map(tuple, sums)), tuple(outputs))


def _partners(taps: Sequence[tuple[int, Tap]], step: int) -> dict[int, int]:
    """For the first tap of each pair, the one that meets the next element of the same plane."""
    numbers = {place: number for number, place in taps}
    partners: dict[int, int] = {}
    for place in sorted(numbers):
        other = numbers.get(Tap(place.slot, place.shift + step))
        if other is not None and numbers[place] not in partners.values():
            partners[numbers[place]] = other
    return partners
