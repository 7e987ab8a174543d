"""``python -m bench``: fastconv and its peers, verified and timed on the problems of bench/shapes."""

from __future__ import annotations

import argparse
import sys

from bench import command, markdown, plot
from bench.measure import Libraries, measure
from bench.peers import LIBRARIES
from bench.problems import DTYPES, QUICK, all_names, families
from bench.reference import of_convolution
from bench.results import Results, Row
from fastconv.core.parameters import LAYOUTS
from fastconv.core.problem import ConvProblem, Op
from fastconv.core.registry import algorithm_names

_QUICK_ROUNDS = 3


def main() -> int:
    """Run the benchmark; the exit code is 1 if a result was wrong or missing."""
    parser = _parser()
    options = parser.parse_args()
    line = command.command(parser, options)
    if options.quick:
        options.shapes, options.rounds = [QUICK], min(options.rounds, _QUICK_ROUNDS)
    try:
        rows = [
            Row(family.name, problem, op)
            for family in families(options.shapes, dtype=options.dtype, layout=options.layout)
            for op in options.op
            for problem in family.problems
        ]
    except (ValueError, OSError) as error:
        parser.error(str(error))

    def measure_row(row: Row, started: Libraries) -> None:
        problem = row.problem
        assert isinstance(problem, ConvProblem)
        details = {"problem": str(problem), "op": row.op, "algorithm": options.algorithm}
        measure(row, started, details, of_convolution(problem, Op(row.op)), options.rounds)

    results = command.run("bench.peers", rows, measure_row, options, line)
    _write(results, options)
    return command.exit_code(results)


def _write(results: Results, options: argparse.Namespace) -> None:
    if options.json:
        command.write_json(results, options.json)
    if options.plot:
        plot.write(results, options.plot)
    if options.markdown:
        markdown.write(results, options.markdown, "Performance", markdown.CONVOLUTIONS, options.plot)


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("bench", __doc__.partition(": ")[2], LIBRARIES, ("json", "plot", "markdown"))
    add = parser.add_argument
    add("--op", type=command.names([op.value for op in Op]), default="forward", help="forward,grad_input,grad_weight")
    shapes = f"files, problem lines, or of bench/shapes: {','.join(all_names())}; default: all of these"
    add("--shapes", type=command.names(), default="", help=shapes)
    add("--dtype", choices=DTYPES, help="default: as the problem lines say")
    add("--layout", choices=LAYOUTS, help="of fastconv; default: as the problem lines say")
    add("--algorithm", choices=algorithm_names(), default="auto", help="of fastconv; default: %(default)s")
    add("--quick", action="store_true", help=f"ten problems that stand for the others, {_QUICK_ROUNDS} rounds")
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
