"""The results as a page, as JSON and as a picture."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from statistics import geometric_mean

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
    launches: dict[str, float] = field(default_factory=dict)

    @property
    def wrong(self) -> list[Check]:
        """Results that are not right."""
        return [check for check in self.checks if not check.is_right]

    def markdown(self) -> str:
        """The page."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        rates = ", ".join(f"{rate / 1e12:.1f} TFLOP/s in {kind}" for kind, rate in self.ceilings.flops.items())
        yield f"Device: {self.device}. " + ", ".join(f"{name} {version}" for name, version in self.versions.items())
        yield f"Ceilings: {rates}; {self.ceilings.bandwidth / 1e12:.2f} TB/s read and written."
        computed = sum(check.error is not None for check in self.checks)
        yield f"Correctness: {computed - len(self.wrong)} of {computed} results are right."
        for check in self.wrong:
            yield f"- WRONG: {check.algorithm} {check.op.value} of {check.problem}: {check.error} {check.reason}"
        launches = ", ".join(f"{name} {seconds * 1e6:.1f} us" for name, seconds in self.launches.items())
        yield f"Host time of a call: {launches}."
        for (family, kind), group in groupby(self.rows, key=lambda row: (row.family, row.kind)):
            yield from self._table(family, kind, list(group))

    @staticmethod
    def _table(family: str, kind: str, rows: list[Row]) -> Iterator[str]:
        ratios = [row.ratio for row in rows if row.ratio is not None]
        mean = f"geometric mean {geometric_mean(ratios):.2f}, worst {min(ratios):.2f}" if ratios else "nothing computed"
        yield f"\n### {family}, {kind}: cuDNN's time over fastconv's, {mean}\n"
        yield "| problem | operation | fastconv ms | cuDNN ms | ratio | % of roof | algorithm |"
        yield "|---|---|---:|---:|---:|---:|---|"
        for row in rows:
            if row.ours is None:
                yield f"| {row.problem} | {row.op.value} | - | {row.cudnn * 1e3:.3f} | - | - | {row.reason} |"
            else:
                cells = f"{row.ours * 1e3:.3f} | {row.cudnn * 1e3:.3f} | {row.ratio:.2f} | {100 * row.part_of_roof:.0f}"
                yield f"| {row.problem} | {row.op.value} | {cells} | {row.algorithm} |"

    def write_json(self, path: Path) -> None:
        """For programs."""
        found = {
            "device": self.device,
            "versions": self.versions,
            "ceilings": vars(self.ceilings),
            "launches": self.launches,
            "checks": [_as_dict(each) for each in self.checks],
            "rows": [_as_dict(each) | {"ratio": each.ratio} for each in self.rows],
        }
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")

    def write_png(self, path: Path) -> None:
        """A bar for each row: cuDNN's time over fastconv's."""
        from matplotlib.figure import Figure

        rows = [row for row in self.rows if row.ratio is not None]
        figure = Figure((11, 1.5 + 0.2 * len(rows)), layout="constrained")
        axes = figure.subplots()
        ratios = [row.ratio or 0 for row in rows]
        axes.barh(range(len(rows)), ratios, color=["#2a7f62" if ratio >= 1 else "#c8553d" for ratio in ratios])
        axes.set_yticks(range(len(rows)), [f"{r.problem} {r.op.value} {r.kind}" for r in rows], fontsize=6)
        axes.set_xscale("log")
        axes.axvline(1, color="black", linewidth=0.8)
        axes.invert_yaxis()
        axes.set_xlabel("cuDNN's time over fastconv's (right of 1: fastconv is faster)")
        figure.savefig(path, dpi=120)


def _as_dict(each: Check | Row) -> dict[str, object]:
    return vars(each) | {"problem": str(each.problem), "op": each.op.value}
