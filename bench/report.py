"""The terminal: a progress bar, and each table when its rows are measured."""

from __future__ import annotations

import sys
from types import TracebackType

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench import tables
from bench.results import Conditions, Results, Row

# What a line of a table needs; a terminal folds the problem if it has less, a file gets all of it.
_WIDTH = 180
# Times mean little where other processes take more of the processor than this.
_QUIET = 0.05


class Report:
    """Tables and progress, as a context around the measurement."""

    def __init__(self, rows: int) -> None:
        self._console = Console(width=None if sys.stdout.isatty() else _WIDTH, highlight=False)
        # Drawn only between two measurements: a thread that draws would disturb them.
        self._progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=self._console,
            auto_refresh=False,
        )
        self._task = self._progress.add_task("the ceilings of the machine", total=rows)

    def __enter__(self) -> Report:
        self._progress.start()
        self._progress.refresh()
        return self

    def __exit__(self, *exception: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._progress.stop()

    def ceilings(self, conditions: Conditions) -> None:
        """Say what the machine can do at most."""
        self._console.print(f"Ceilings: {tables.ceilings_sentence(conditions.ceilings, conditions.threads)}.\n")

    def begin(self, row: Row) -> None:
        """Name the row that is measured next."""
        self._progress.update(self._task, description=f"{row.op} {row.problem}", refresh=True)

    def end(self) -> None:
        """Count a row that is measured."""
        self._progress.update(self._task, advance=1, refresh=True)

    def group(self, rows: list[Row], conditions: Conditions) -> None:
        """Print the table of one family and operation."""
        columns = tables.columns(rows, conditions.libraries, conditions.ceilings)
        table = _table(tables.title(rows), list(columns), words=("problem", "best peer", "algorithm"))
        for row, cells in zip(rows, zip(*columns.values(), strict=True), strict=True):
            table.add_row(*cells, style="red" if row.failures else None)
        self._console.print(table)
        for line in [tables.verdict(rows), *tables.remarks(rows)]:
            self._console.print(f"  {line}", markup=False)
        self._console.print()

    def summary(self, results: Results) -> None:
        """Print the summary of all tables."""
        table = _table("best peer's time over fastconv's", tables.SUMMARY_HEADER, words=("shapes", "operation"))
        for line in tables.summary_cells(results):
            table.add_row(*line)
        self._console.print(table)
        noisy = (results.disturbance or 0) > _QUIET
        self._console.print(tables.disturbance_sentence(results), style="red" if noisy else None)


def _table(title: str, header: list[str], words: tuple[str, ...]) -> Table:
    """A table whose columns of numbers are aligned to the right."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in header:
        table.add_column(name, justify="left" if name in words else "right", overflow="fold")
    return table
