"""``python -m bench``: fastconv and its peers, verified and timed on the problems of bench/shapes."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from bench import machine, markdown, plot
from bench.measure import libraries, measure
from bench.peak import measure_apart
from bench.peers import LIBRARIES
from bench.problems import DTYPES, QUICK, all_names, families
from bench.report import Report
from bench.results import OURS, Conditions, Results, Row
from fastconv.core.problem import Op
from fastconv.core.registry import algorithm_names

_OUTPUTS = ("json", "plot", "markdown")
_ROUNDS = 7
_QUICK_ROUNDS = 3


def main() -> int:
    """Run the benchmark; the exit code is 1 if a result was wrong or missing."""
    parser = _parser()
    options = parser.parse_args()
    command = _command(parser, options)
    if options.quick:
        options.shapes, options.rounds = [QUICK], min(options.rounds, _QUICK_ROUNDS)
    try:
        rows = [
            Row(family.name, problem, op)
            for family in families(options.shapes, options.dtype)
            for op in map(Op, options.op)
            for problem in family.problems
        ]
    except (ValueError, OSError) as error:
        parser.error(str(error))
    with Report(len(rows)) as report:
        results = Results(_conditions(options, command))
        report.ceilings(results.conditions)
        _measure(rows, results, options, report)
    report.summary(results)
    _write(results, options)
    return 1 if any(row.failures for row in rows) else 0


def _measure(rows: list[Row], results: Results, options: argparse.Namespace, report: Report) -> None:
    with libraries(results.conditions.libraries, options.threads) as started:
        for _, group in groupby(rows, key=lambda row: (row.family, row.op)):
            members = list(group)
            for row in members:
                report.begin(row)
                measure(row, started, options.algorithm, options.rounds)
                results.rows.append(row)
                report.end()
            report.group(members, results.conditions)
        results.disturbance = started.rest.disturbance


def _conditions(options: argparse.Namespace, command: str) -> Conditions:
    return Conditions(
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        command=command,
        machine=machine.description(),
        threads=options.threads,
        rounds=options.rounds,
        libraries=(OURS, *(name for name in options.peers if name != OURS)),
        ceilings=measure_apart(options.threads),
    )


def _write(results: Results, options: argparse.Namespace) -> None:
    if options.json:
        options.json.write_text(json.dumps(results.as_dict(), indent=1) + "\n", encoding="utf-8")
    if options.plot:
        plot.write(results, options.plot)
    if options.markdown:
        markdown.write(results, options.markdown, options.plot)


# ---- the command line


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m bench", description=__doc__.partition(": ")[2])
    add = parser.add_argument
    add("--op", type=_names([op.value for op in Op]), default="forward", help="forward,grad_input,grad_weight")
    shapes = f"files, problem lines, or of bench/shapes: {','.join(all_names())}; default: all of these"
    add("--shapes", type=_names(), default="", help=shapes)
    add("--peers", type=_names(LIBRARIES), default=",".join(LIBRARIES), help="default: %(default)s")
    add("--threads", type=_positive, default=machine.cores(), help="default: one for each core")
    add("--dtype", choices=DTYPES, help="default: as the problem lines say")
    add("--algorithm", choices=algorithm_names(), default="auto", help="of fastconv; default: %(default)s")
    add("--rounds", type=_positive, default=_ROUNDS, help="default: %(default)s")
    add("--quick", action="store_true", help=f"ten problems that stand for the others, {_QUICK_ROUNDS} rounds")
    for output in _OUTPUTS:
        add(f"--{output}", type=Path, metavar="FILE", help=f"write {output} to this file")
    return parser


def _names(allowed: Collection[str] = ()) -> Callable[[str], list[str]]:
    """Reads names between commas."""

    def names(text: str) -> list[str]:
        found = [name.strip() for name in text.split(",") if name.strip()]
        for name in found:
            if allowed and name not in allowed:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(allowed)}")
        return found

    return names


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _command(parser: argparse.ArgumentParser, options: argparse.Namespace) -> str:
    """The command that measures the same again, without the files that it writes."""
    words = ["python", "-m", "bench"]
    for name, value in vars(parser.parse_args([])).items():
        given = getattr(options, name)
        if given != value and name not in _OUTPUTS:
            text = ",".join(given) if isinstance(given, list) else str(given)
            words += [f"--{name}"] if given is True else [f"--{name}", text]
    return shlex.join(words)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
