"""The page of the documentation that holds the results."""

from __future__ import annotations

import os
from pathlib import Path

from bench import rest, tables
from bench.measure import PATIENCE_SECONDS, PROLONGED, ROUND_SECONDS, SETTLED
from bench.reference import TOLERANCE
from bench.results import Conditions, Results, Row

_METHOD = f"""\
Every library runs in a process of its own, and only one runs at a time; the others are stopped by a signal, so that
their threads do not spin. All have the same tensors, which begin with a cache line, and the same number of threads.
First every result is verified: up to 1024 of its elements are compared with the result in float64, and the largest
error over the root mean square of the result must not exceed
{" and ".join(f"{bound:.0e} in {dtype}" for dtype, bound in TOLERANCE.items())}. Then the
libraries are timed in turns, with {1e3 * rest.SECONDS:.0f} ms of rest between them. A round is a call that warms the
caches and calls for {1e3 * ROUND_SECONDS:.0f} ms, of which the fastest counts; the time in the tables is the median
over the rounds. While that of any library is {100 * (SETTLED - 1):.0f} % above its best round, all have
further rounds, until there are {PROLONGED} times as many. A library that took {PATIENCE_SECONDS:.0f} s for its rounds
on one problem sits out the rest of them; a call that takes as long is timed once, while its result is verified.

The ratio is the time of the best peer over the time of fastconv: above 1, fastconv is faster."""

CONVOLUTIONS = """\
A call starts from the tensors in the layout of the library and ends with a new tensor. `torch_cl` is PyTorch with all
tensors in channels_last, and stands in every row; in those that say `layout=channels_last` fastconv has them so, too.
ONNX Runtime has packed the constant weight before the call; no other library does that.
OpenCV runs `filter2D` for each channel, SciPy the fastest of `signal.correlate`, `signal.convolve` and
`signal.oaconvolve`.

GFLOP/s count two operations for each product of the direct method, whatever the algorithm. The roof is the longer of
these operations at the measured rate of multiply-adds and the bytes of the three tensors at the measured rate of
copies; an algorithm that multiplies less, or tensors that fit into the caches, can exceed 100 % of it."""


def write(results: Results, path: Path, title: str, method: str, plot: Path | None = None) -> None:
    """Write the page; it ends in what is particular to the method, and shows the plot, if there is one."""
    sections = [
        f"# {title}",
        _conditions(results),
        "## Summary",
        _table(tables.SUMMARY_HEADER, tables.summary_cells(results)),
        *([f"![Times and roofline]({Path(os.path.relpath(plot, path.parent)).as_posix()})"] if plot else []),
        *(_group(rows, results.conditions) for rows in results.groups()),
        "## How it was measured",
        _METHOD,
        method,
    ]
    path.write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def _conditions(results: Results) -> str:
    conditions = results.conditions
    facts = {
        "date": conditions.date,
        "command": f"`{conditions.command}`",
        **conditions.machine,
        "threads": str(conditions.threads),
        "rounds": str(conditions.rounds),
        "ceilings, measured": tables.ceilings_sentence(conditions.ceilings, conditions.threads),
        "quiet": tables.disturbance_sentence(results),
    }
    return _table(["", ""], [[name, value] for name, value in facts.items()])


def _group(rows: list[Row], conditions: Conditions) -> str:
    columns = tables.columns(rows, conditions.libraries, conditions.ceilings)
    remarks = [f"- {line}" for line in (tables.verdict(rows), *tables.remarks(rows))]
    table = _table(list(columns), [list(cells) for cells in zip(*columns.values(), strict=True)])
    return "\n\n".join([f"## {tables.title(rows)}", table, "\n".join(remarks)])


def _table(header: list[str], lines: list[list[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
