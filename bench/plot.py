"""The picture of the results: each library's time relative to the best peer, and fastconv under the roofs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.results import OURS, Results, Row

_FASTER, _SLOWER, _PEERS = "#2a7f62", "#c8553d", ("#1f77b4", "#9ecae1", "#e6a817", "#7b5ea7", "#555555")
_BAR_INCHES, _ROOF_INCHES, _WIDTH_INCHES = 0.24, 6.0, 11.0


def write(results: Results, path: Path) -> None:
    """Draw the rows that have a ratio, and the roofs."""
    rows = [row for row in results.rows if row.ratio is not None]
    heights = (_BAR_INCHES * len(rows) + 1, _ROOF_INCHES)
    figure = Figure((_WIDTH_INCHES, sum(heights)), layout="constrained")
    bars, roof = figure.subplots(2, 1, height_ratios=heights)
    _draw_times(bars, rows, [name for name in results.conditions.libraries if name != OURS])
    _draw_roof(roof, results)
    figure.savefig(path, dpi=120)


def _draw_times(axes: Axes, rows: list[Row], peers: list[str]) -> None:
    """A bar for fastconv and a dot for each peer; the best peer stands at 1."""
    relative = np.array([1 / row.ratio for row in rows if row.ratio is not None])
    for label, color, these in (("faster", _FASTER, relative < 1), ("slower", _SLOWER, relative >= 1)):
        axes.barh(np.flatnonzero(these), relative[these] - 1, left=1, color=color, label=f"{OURS}, {label}")
    for peer, color in zip(peers, _PEERS, strict=False):
        members = [(at, row) for at, row in enumerate(rows) if peer in row.seconds]
        if not members:
            continue
        times = [row.seconds[peer] / row.seconds[str(row.best_peer)] for _, row in members]
        axes.scatter(times, [at for at, _ in members], s=16, color=color, label=peer, zorder=3)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    labels = [f"{row.problem}  {row.op}" for row in rows]
    axes.set_yticks(range(len(rows)), labels, fontsize=7, family="monospace")
    axes.set_ylim(max(len(rows), 1) - 0.5, -0.5)
    axes.set_xlabel("time relative to the best peer (left of 1: fastconv is faster)")
    axes.grid(axis="x", which="both", alpha=0.3)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(peers) + 2, fontsize=8, frameon=False)


def _draw_roof(axes: Axes, results: Results) -> None:
    """The rate of fastconv over the operations for each byte of the three tensors, and the two ceilings."""
    ceilings = results.conditions.ceilings
    rows = [row for row in results.rows if row.rate is not None]
    for family in dict.fromkeys(row.family for row in rows):
        members = [row for row in rows if row.family == family]
        axes.scatter(list(map(_intensity, members)), [(row.rate or 0) / 1e9 for row in members], s=22, label=family)
    intensities = [*map(_intensity, rows), 1]
    span = np.geomspace(min(intensities) / 2, max(intensities) * 2, 200)
    for dtype in dict.fromkeys(row.problem.dtype for row in rows):
        roof = np.minimum(ceilings.flops[dtype], span * ceilings.bandwidth) / 1e9
        axes.plot(span, roof, color="black", linewidth=1, label=f"roof, {dtype}")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("operations of the direct method for each byte of x, w and y")
    axes.set_ylabel("GFLOP/s of fastconv")
    axes.grid(which="both", alpha=0.3)
    axes.legend(fontsize=8)


def _intensity(row: Row) -> float:
    return row.problem.flops / row.problem.bytes
