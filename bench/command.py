"""What every benchmark's command line has, and the run that it starts: rows are measured, reported and written."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from bench import machine
from bench.measure import Libraries, libraries
from bench.peak import measure_apart
from bench.report import Report
from bench.results import OURS, Conditions, Results, Row

_ROUNDS = 7


def parser(module: str, description: str, peers: Collection[str], outputs: Collection[str]) -> argparse.ArgumentParser:
    """The options of every benchmark."""
    made = argparse.ArgumentParser(f"python -m {module}", description=description)
    add = made.add_argument
    add("--peers", type=names(peers), default=",".join(peers), help="default: %(default)s")
    add("--threads", type=positive, default=machine.cores(), help="default: one for each core")
    add("--rounds", type=positive, default=_ROUNDS, help="default: %(default)s")
    for output in outputs:
        add(f"--{output}", type=Path, metavar="FILE", help=f"write {output} to this file")
    return made


def names(allowed: Collection[str] = ()) -> Callable[[str], list[str]]:
    """Reads names between commas."""

    def read(text: str) -> list[str]:
        found = [name.strip() for name in text.split(",") if name.strip()]
        for name in found:
            if allowed and name not in allowed:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(allowed)}")
        return found

    return read


def positive(text: str) -> int:
    """Reads an integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def command(made: argparse.ArgumentParser, options: argparse.Namespace) -> str:
    """The command that measures the same again, without the files that it writes."""
    words = made.prog.split()
    for name, value in vars(made.parse_args([])).items():
        given = getattr(options, name)
        if given != value and not isinstance(given, Path):
            text = ",".join(given) if isinstance(given, list) else str(given)
            words += [f"--{name}"] if given is True else [f"--{name}", text]
    return shlex.join(words)


def run(
    source: str, rows: list[Row], measure_row: Callable[[Row, Libraries], None], options: argparse.Namespace, line: str
) -> Results:
    """Measure every row and show the tables.

    Parameters
    ----------
    source
        The module whose `prepare` makes the calls.
    measure_row
        Fills in one row.
    options, line
        The command line, as `parser` reads it and as text.
    """
    with Report(len(rows)) as report:
        results = Results(_conditions(options, line))
        report.ceilings(results.conditions)
        with libraries(source, results.conditions.libraries, options.threads) as started:
            for _, group in groupby(rows, key=lambda row: (row.family, row.op)):
                members = list(group)
                for row in members:
                    report.begin(row)
                    measure_row(row, started)
                    results.rows.append(row)
                    report.end()
                report.group(members, results.conditions)
            results.disturbance = started.rest.disturbance
    report.summary(results)
    return results


def write_json(results: Results, path: Path) -> None:
    """Write the results for programs."""
    path.write_text(json.dumps(results.as_dict(), indent=1) + "\n", encoding="utf-8")


def exit_code(results: Results) -> int:
    """1 if a result was wrong or missing."""
    return 1 if any(row.failures for row in results.rows) else 0


def _conditions(options: argparse.Namespace, line: str) -> Conditions:
    return Conditions(
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        command=line,
        machine=machine.description(),
        threads=options.threads,
        rounds=options.rounds,
        libraries=(OURS, *(name for name in options.peers if name != OURS)),
        ceilings=measure_apart(options.threads),
    )
