"""The results as a page, as JSON and as a picture."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from bench.gpu.ceilings import Ceilings
from bench.gpu.correctness import Check
from bench.gpu.rows import Row


@dataclass
class Report:
    """Everything that one run found."""

    device: str
    versions: dict[str, str]
    ceilings: Ceilings
    checks: list[Check] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    left_out: int = 0  # rows for which there was no time
    launches: dict[str, float] = field(default_factory=dict)
    end: str = ""  # what ended the run before its time

    @property
    def wrong(self) -> list[Check]:
        """Results that are not right."""
        return [check for check in self.checks if not check.is_right]

    @property
    def is_right(self) -> bool:
        """Whether every result is, and the run came to its end."""
        return not self.wrong and not self.end

    def markdown(self) -> str:
        """The page."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        rates = ", ".join(f"{rate / 1e12:.1f} TFLOP/s in {kind}" for kind, rate in self.ceilings.flops.items())
        yield f"Device: {self.device}. " + ", ".join(f"{name} {version}" for name, version in self.versions.items())
        yield f"Ceilings: {rates}; {self.ceilings.bandwidth / 1e12:.2f} TB/s read and written."
        yield f"Correctness: {len(self.checks) - len(self.wrong)} of {len(self.checks)} results are right."
        for check in self.wrong:
            yield f"- WRONG: {check.what}: {check.failure or check.error}"
        launches = ", ".join(f"{name} {seconds * 1e6:.1f} us" for name, seconds in self.launches.items())
        yield f"Host time of a call: {launches}."
        for (kind, family), group in groupby(self.rows, key=lambda row: (row.case.problem.dtype, row.case.family)):
            yield from self._table(family, kind, list(group))
        if self.left_out:
            yield f"\n{self.left_out} more rows were left out: {self.end or 'the time was up'}."

    @staticmethod
    def _table(family: str, kind: str, rows: list[Row]) -> Iterator[str]:
        ratios = [row.ratio for row in rows if row.ratio is not None]
        mean = f"geometric mean {geometric_mean(ratios):.2f}, worst {min(ratios):.2f}" if ratios else "nothing computed"
        yield f"\n### {family}, {kind}: cuDNN's time over fastconv's, {mean}\n"
        yield "| problem | operation | fastconv ms | cuDNN ms | ratio | % of roof | algorithm |"
        yield "|---|---|---:|---:|---:|---:|---|"
        for row in rows:
            ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
            cells = f"{row.ours * 1e3:.3f} | {row.cudnn * 1e3:.3f} | {ratio} | {100 * row.part_of_roof:.0f}"
            yield f"| {row.case.problem} | {row.case.op.value} | {cells} | {row.failure or row.algorithm} |"

    def write_json(self, path: Path) -> None:
        """For programs; what is infinite or was not measured is null."""
        found = {
            "device": self.device,
            "versions": self.versions,
            "ceilings": vars(self.ceilings),
            "launches": self.launches,
            "checks": [_finite(vars(each)) for each in self.checks],
            "rows": [_finite(vars(row) | _words(row)) for row in self.rows],
            "left_out": self.left_out,
            "end": self.end,
        }
        path.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", encoding="utf-8")

    def write_png(self, path: Path) -> None:
        """A bar for each row: cuDNN's time over fastconv's."""
        from matplotlib.figure import Figure

        rows = [(row, row.ratio) for row in self.rows if row.ratio is not None]
        figure = Figure((11, 1.5 + 0.2 * len(rows)), layout="constrained")
        axes = figure.subplots()
        ratios = [ratio for _, ratio in rows]
        axes.barh(range(len(rows)), ratios, color=["#2a7f62" if ratio >= 1 else "#c8553d" for ratio in ratios])
        axes.set_yticks(range(len(rows)), [f"{row.case.problem} {row.case.op.value}" for row, _ in rows], fontsize=6)
        axes.set_xscale("log")
        axes.axvline(1, color="black", linewidth=0.8)
        axes.invert_yaxis()
        axes.set_xlabel("cuDNN's time over fastconv's (right of 1: fastconv is faster)")
        figure.savefig(path, dpi=120)


def _words(row: Row) -> dict[str, object]:
    case = row.case
    return {"case": f"{case.family}: {case.op.value} of {case.problem}", "ratio": row.ratio}


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {name: None if value in (math.inf, -math.inf) else value for name, value in values.items()}
