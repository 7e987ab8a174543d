"""The words and numbers of the tables, the same on the terminal and in the documentation."""

from __future__ import annotations

from collections import Counter

from bench.peak import Ceilings
from bench.results import OURS, Results, Row, Summary, summarize


def title(rows: list[Row]) -> str:
    return f"{rows[0].family}, {rows[0].op}, milliseconds"


def columns(rows: list[Row], libraries: tuple[str, ...], ceilings: Ceilings) -> dict[str, list[str]]:
    """A cell for each row under each heading; what no row has anything to say about is left out."""
    parts = [row.part_of_roof(ceilings) for row in rows]
    figures = {
        "GFLOP/s": ["-" if row.rate is None else f"{row.rate / 1e9:.1f}" for row in rows],
        "% of roof": ["-" if part is None else f"{100 * part:.0f}" for part in parts],
        "best peer": [row.best_peer or "-" for row in rows],
        "ratio": ["-" if row.ratio is None else f"{row.ratio:.2f}" for row in rows],
        "algorithm": [row.algorithm or "-" for row in rows],
    }
    return {
        "problem": [str(row.problem) for row in rows],
        **{name: [_time(row, name) for row in rows] for name in libraries},
        **{name: cells for name, cells in figures.items() if set(cells) != {"-"}},
    }


def _time(row: Row, name: str) -> str:
    if name in row.failures:
        return "WRONG" if name in row.errors else "FAILED"
    if name not in row.seconds:
        return "-"
    milliseconds = 1e3 * row.seconds[name]
    return f"{milliseconds:.3f}" if milliseconds < 10 else f"{milliseconds:.1f}"


def remarks(rows: list[Row]) -> list[str]:
    """Why libraries have no time, and each failure."""
    reasons = Counter((name, reason) for row in rows for name, reason in row.refusals.items())
    return [
        *(f"{name}: {reason}{_of(count, len(rows))}" for (name, reason), count in reasons.items()),
        *(f"{row.problem}: {name}: {failure}" for row in rows for name, failure in row.failures.items()),
    ]


def _of(count: int, rows: int) -> str:
    return "" if count == rows else f" ({count} of {rows} rows)"


def verdict(rows: list[Row]) -> str:
    """The summary of rows as a sentence."""
    summary = summarize(rows)
    if summary is None:
        return "nothing to compare"
    return f"geometric mean {summary.mean:.2f}, worst {summary.worst.ratio:.2f}: {summary.worst.problem}"


SUMMARY_HEADER = ["shapes", "operation", "rows", f"{OURS} faster", "geometric mean", "worst", "worst problem"]


def summary_cells(results: Results) -> list[list[str]]:
    """One line for each family and operation, then one for all."""
    groups = results.groups()
    lines = [_summary_line(rows[0].family, rows[0].op, summarize(rows)) for rows in groups]
    if len(groups) > 1:
        lines.append(_summary_line("all", "", summarize(results.rows)))
    return lines


def _summary_line(family: str, op: str, summary: Summary | None) -> list[str]:
    if summary is None:
        return [family, op, "0", "-", "-", "-", "-"]
    return [
        family,
        op,
        str(summary.rows),
        str(summary.faster),
        f"{summary.mean:.2f}",
        f"{summary.worst.ratio:.2f}",
        str(summary.worst.problem),
    ]


def disturbance_sentence(results: Results) -> str:
    if results.disturbance is None:
        return "how much other processes disturbed is not known"
    return f"between the rounds, other processes took {100 * results.disturbance:.0f} % of the processor"


def ceilings_sentence(ceilings: Ceilings, threads: int) -> str:
    rates = ", ".join(f"{rate / 1e9:.0f} GFLOP/s in {dtype}" for dtype, rate in ceilings.flops.items())
    return f"{rates} and {ceilings.bandwidth / 1e9:.1f} GB/s read and written, on {threads} threads"
