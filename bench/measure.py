"""The order of a measurement: every library on one case, verified, then timed in turns."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median

import numpy as np

from bench.process import FailureError, Message, Process, RefusalError
from bench.reference import Reference
from bench.rest import Rest
from bench.results import Row

ROUND_SECONDS = 0.03
# A library that took longer than this for its rounds on one case sits out the others, and all of them if the
# call that is verified took as long: the time of that call then stands for them.
PATIENCE_SECONDS = 5.0
# While the median of a library's rounds is this much above its best one, something else slowed them down: all
# libraries then have further rounds on this case, this many times as many as were asked for in all.
SETTLED = 1.1
PROLONGED = 3


@dataclass
class Libraries:
    """The processes of the libraries, and the pause between two."""

    running: list[Process] = field(default_factory=list)
    rest: Rest = field(default_factory=Rest)


@contextmanager
def libraries(source: str, names: tuple[str, ...], threads: int) -> Iterator[Libraries]:
    """Start each library of a module in its process; all are ended at the exit."""
    started = Libraries()
    try:
        started.running.extend(Process(source, name, threads) for name in names)
        yield started
    finally:
        for process in started.running:
            process.close()


def measure(row: Row, among: Libraries, details: Message, reference: Reference, rounds: int) -> None:
    """Fill in the row: a library with a right result is timed, any other one is left with its reason."""
    right = []
    for process in among.running:
        try:
            seconds = _verify(process, row, details, reference)
            if seconds < PATIENCE_SECONDS:
                right.append(process)
            else:
                row.seconds[process.name] = seconds
        except RefusalError as refusal:
            row.refusals[process.name] = str(refusal)
        except FailureError as failure:
            row.failures[process.name] = str(failure)
    for process, times in _rounds(right, among.rest, row, rounds):
        row.seconds[process.name] = median(times)


def _verify(process: Process, row: Row, details: Message, reference: Reference) -> float:
    """Seconds of the call whose result is right."""
    note = process.ask("prepare", details=details)["note"]
    if note:
        row.notes[process.name] = note
    reply = process.ask("verify", points=reference.points.tolist())
    row.errors[process.name] = reference.error(np.array(reply["values"]))
    fault = reference.fault(tuple(reply["shape"]), row.errors[process.name])
    if fault is not None:
        raise FailureError(f"wrong result: {fault}")
    return float(reply["seconds"])


def _rounds(processes: list[Process], rest: Rest, row: Row, rounds: int) -> Iterator[tuple[Process, list[float]]]:
    """Each library in turn, again and again, so that a change of the machine's speed meets them all."""
    times: dict[Process, list[float]] = {process: [] for process in processes}
    spent = dict.fromkeys(processes, 0.0)
    for turn in range(PROLONGED * rounds):
        if turn >= rounds and all(median(each) <= SETTLED * min(each) for each in times.values()):
            break
        for process in [each for each in times if spent[each] < PATIENCE_SECONDS]:
            rest.pause()
            start = time.perf_counter()
            try:
                times[process].append(process.ask("time", seconds=ROUND_SECONDS)["seconds"])
            except FailureError as failure:
                row.failures[process.name] = str(failure)
                del times[process]
            spent[process] += time.perf_counter() - start
    yield from times.items()
