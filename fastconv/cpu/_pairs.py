"""Outputs in pairs that share products: Winograd's F(2, 2) wherever two taps meet neighbours.

If two taps a and b of a filter meet the elements d0, d1, d2 for two neighbouring outputs, the latter are::

    y0 = a * d0 + b * d1 = a * (d0 - d1) + (a + b) * d1
    y1 = a * d1 + b * d2 = (a + b) * d1 - b * (d1 - d2)

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

# What is made of taps: the first, the sum of both, or the first with its sign turned.
AS_IT_IS, ADDED, NEGATED = range(3)


class Kind(NamedTuple):
    """What is multiplied in the place of a tap."""

    first: int
    second: int
    form: int


class Term(NamedTuple):
    """One product of a sum: an element, or its difference from the next, times a kind of taps."""

    slot: int  # of the plane of the source
    shift: int  # positions in it from that of the first output of a pair
    is_difference: bool
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
    kinds
        All that is made of taps.
    sums
        The terms of each sum.
    outputs
        For each phase of the target those of its neighbouring outputs.
    """

    together: int
    step: int
    kinds: tuple[Kind, ...]
    sums: tuple[tuple[Term, ...], ...]
    outputs: tuple[tuple[Output, ...], ...]

    @property
    def differing(self) -> list[int]:
        """Slots of the planes whose differences are met."""
        return sorted({term.slot for terms in self.sums for term in terms if term.is_difference})

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
    kinds: dict[Kind, int] = {}
    sums: list[list[Term]] = []
    outputs = []

    def term(slot: int, shift: int, is_difference: bool, kind: Kind) -> Term:
        return Term(slot, shift, is_difference, kinds.setdefault(kind, len(kinds)))

    def add(terms: list[Term]) -> int:
        sums.append(terms)
        return len(sums) - 1

    for taps, partners in zip(phases, chosen, strict=True):
        places = dict(taps)
        alone = [number for number in places if number not in partners and number not in partners.values()]
        owns = [
            [
                term(places[each].slot, places[each].shift + turn * step, False, Kind(each, each, AS_IT_IS))
                for each in alone
            ]
            for turn in range(together)
        ]
        shared = []
        for first, second in partners.items():
            slot, shift = places[first]
            owns[0].append(term(slot, shift, True, Kind(first, first, AS_IT_IS)))
            owns[1].append(term(slot, shift + step, True, Kind(second, second, NEGATED)))
            shared.append(term(slot, shift + step, False, Kind(first, second, ADDED)))
        both = add(shared) if shared else -1
        outputs.append(tuple(Output(add(own), both) for own in owns))
    return PairedAxis(together, step, tuple(kinds), tuple(map(tuple, sums)), tuple(outputs))


def _partners(taps: Sequence[tuple[int, Tap]], step: int) -> dict[int, int]:
    """For the first tap of each pair, the one that meets the next element of the same plane."""
    numbers = {place: number for number, place in taps}
    partners: dict[int, int] = {}
    for place in sorted(numbers):
        other = numbers.get(Tap(place.slot, place.shift + step))
        if other is not None and numbers[place] not in partners.values():
            partners[numbers[place]] = other
    return partners
