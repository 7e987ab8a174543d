"""A benchmark of any calls: cases by name, for each library a function that makes its call, and the right result.

A module that lists its cases is a benchmark::

    CASES = [Case("max_pool2d", "forward", "x=1x64x112x112 k=3 s=2 f32", {"fastconv": ..., "torch": ...}, ...), ...]
    prepare = preparing(CASES)  # for the process of each library

    if __name__ == "__main__":
        main("bench.pooling", __doc__, CASES)

`measure` verifies and times them as it does the convolutions.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench import command, markdown
from bench.measure import Libraries, measure
from bench.prepared import Array, Prepared, RefusedError
from bench.reference import TOLERANCE, of_array
from bench.results import Row


@dataclass(frozen=True)
class Case:
    """One call that several libraries can make.

    Attributes
    ----------
    family, op
        Cases that agree in both stand in one table.
    line
        The call in one line; no two cases of a table have the same.
    libraries
        For each library, a function of the number of threads that makes its call. It runs, and imports the library,
        in the process of that library alone; it may raise `RefusedError`.
    reference
        Gives the right result, whole, in float64, or in integers.
    bytes, flops
        What must be read and written at least, and the operations that the call is counted as, or 0.
    dtype
        Of the elements.
    tolerance
        Largest error over the root mean square of the result; None for that of the type, and 0 for integers.
    """

    family: str
    op: str
    line: str
    libraries: Mapping[str, Callable[[int], Prepared]]
    reference: Callable[[], Array]
    bytes: int
    flops: int = 0
    dtype: str = "float32"
    tolerance: float | None = None

    def __str__(self) -> str:
        return self.line

    @property
    def name(self) -> list[str]:
        """What no other case has."""
        return [self.family, self.op, self.line]


def preparing(cases: Sequence[Case]) -> Callable[[str, dict[str, Any], int], Prepared]:
    """The function that makes the calls in the processes of the libraries (`bench.worker`)."""

    def prepare(library: str, details: dict[str, Any], threads: int) -> Prepared:
        case = next(each for each in cases if each.name == details["case"])
        if library not in case.libraries:
            raise RefusedError("has no such function")
        return case.libraries[library](threads)

    return prepare


def main(module: str, description: str, cases: Sequence[Case]) -> None:
    """Run the benchmark of a module's cases and exit; the code is 1 if a result was wrong or missing.

    The first line of `description` is the title of the page that is written, the rest its remarks on the method.
    """
    title, _, remarks = description.strip().partition("\n")
    peers = list(dict.fromkeys(name for case in cases for name in case.libraries))
    parser = command.parser(module, title, peers, ("json", "markdown"))
    parser.add_argument("--only", default="", help="only cases that have this in their family, operation or line")
    options = parser.parse_args()
    rows = [Row(case.family, case, case.op) for case in cases if options.only in " ".join(case.name)]

    def measure_row(row: Row, started: Libraries) -> None:
        case = row.problem
        assert isinstance(case, Case)
        tolerance = TOLERANCE.get(case.dtype, 0.0) if case.tolerance is None else case.tolerance
        measure(row, started, {"case": case.name}, of_array(case.reference(), tolerance), options.rounds)

    try:
        results = command.run(module, rows, measure_row, options, command.command(parser, options))
    except KeyboardInterrupt:
        sys.exit(130)
    if options.json:
        command.write_json(results, options.json)
    if options.markdown:
        markdown.write(results, options.markdown, title.rstrip("."), remarks.strip())
    sys.exit(command.exit_code(results))
