"""What was measured, and the figures that follow from it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from bench.peak import Ceilings

OURS = "fastconv"


class Problem(Protocol):
    """What a row is about; its text is one line."""

    @property
    def dtype(self) -> str:
        """NumPy name of the type of the elements."""

    @property
    def flops(self) -> int:
        """Real operations that it is counted as, or 0 where they are not what takes the time."""

    @property
    def bytes(self) -> int:
        """Bytes that must be read and written at least."""


@dataclass
class Row:
    """One operation of one problem on all libraries; each library has seconds, a refusal or a failure.

    Attributes
    ----------
    family, op
        Rows that agree in both are reported together.
    seconds
        Median over the rounds.
    errors
        Largest error over the root mean square of the result.
    refusals, failures
        Why a library has no time: it has no way to do it, or its result is wrong or missing.
    notes
        Which way a library went, where it says so.
    """

    family: str
    problem: Problem
    op: str
    seconds: dict[str, float] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def algorithm(self) -> str:
        """The one that fastconv took."""
        return self.notes.get(OURS, "")

    @property
    def best_peer(self) -> str | None:
        """The fastest other library whose result is right."""
        peers = self.seconds.keys() - {OURS}
        return min(peers, key=self.seconds.__getitem__) if peers else None

    @property
    def ratio(self) -> float | None:
        """Time of the best peer over fastconv's: above 1, fastconv is faster."""
        if self.best_peer is None or OURS not in self.seconds:
            return None
        return self.seconds[self.best_peer] / self.seconds[OURS]

    @property
    def rate(self) -> float | None:
        """Operations that fastconv makes good per second."""
        return self.problem.flops / self.seconds[OURS] if OURS in self.seconds and self.problem.flops else None

    def part_of_roof(self, ceilings: Ceilings) -> float | None:
        """Shortest time for the problem's operations and bytes on this machine over fastconv's time."""
        if OURS not in self.seconds:
            return None
        problem = self.problem
        return ceilings.seconds(problem.flops, problem.bytes, problem.dtype) / self.seconds[OURS]

    def as_dict(self, ceilings: Ceilings) -> dict[str, Any]:
        """What was measured and what follows, for JSON."""
        return {
            "family": self.family,
            "problem": str(self.problem),
            "op": self.op,
            **{name: getattr(self, name) for name in ("seconds", "errors", "refusals", "failures", "notes")},
            "gflops": None if self.rate is None else self.rate / 1e9,
            "part_of_roof": self.part_of_roof(ceilings),
            "best_peer": self.best_peer,
            "ratio": self.ratio,
        }


@dataclass(frozen=True)
class Conditions:
    """What the numbers hold for."""

    date: str
    command: str
    machine: dict[str, str]
    threads: int
    rounds: int
    libraries: tuple[str, ...]
    ceilings: Ceilings


@dataclass
class Results:
    """All rows, the conditions under which they were measured, and how much other processes took meanwhile."""

    conditions: Conditions
    rows: list[Row] = field(default_factory=list)
    disturbance: float | None = None

    def groups(self) -> list[list[Row]]:
        """The rows of each family and operation, in the order in which they were measured."""
        found: dict[tuple[str, str], list[Row]] = {}
        for row in self.rows:
            found.setdefault((row.family, row.op), []).append(row)
        return list(found.values())

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        rows = [row.as_dict(self.conditions.ceilings) for row in self.rows]
        return {**asdict(self.conditions), "disturbance": self.disturbance, "rows": rows}


@dataclass(frozen=True)
class Summary:
    """Ratios of many rows in short."""

    rows: int
    faster: int
    mean: float
    worst: Row


def summarize(rows: Iterable[Row]) -> Summary | None:
    """Geometric mean and worst row of those that have a ratio, or None if none has."""
    compared = [(row.ratio, row) for row in rows if row.ratio is not None]
    if not compared:
        return None
    ratios = [ratio for ratio, _ in compared]
    worst = min(compared, key=lambda pair: pair[0])[1]
    return Summary(len(ratios), sum(ratio > 1 for ratio in ratios), _geometric_mean(ratios), worst)


def _geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))
