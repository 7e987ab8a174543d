"""Prices against times: ``python -m bench.prices [family, file or problem line ...]``.

For each problem and operation, and each algorithm and way of fft that serves it, prints the predicted time on one
thread, the measured one (the fastest of several runs into memory that is there), their ratio, and marks what is taken
and what is fastest. The selector goes by prices, so that only their ratios to each other matter.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np

from bench.problems import families
from fastconv.core.algorithm import PLAIN, Plan
from fastconv.core.machine import local_machine
from fastconv.core.problem import ConvProblem, Op
from fastconv.core.registry import algorithms
from fastconv.core.selector import explain_problem
from fastconv.cpu import _fft_scipy, fft

ALONE = dataclasses.replace(local_machine(), threads=1)
# Seconds for the runs of one plan, and predicted seconds above which it is not run.
SECONDS = 0.1
MOST_SECONDS = 1.0


def candidates(problem: ConvProblem, op: Op) -> Iterator[tuple[str, float, Callable[[], Plan]]]:
    """Name, predicted seconds on one thread, and the maker of the plan of every algorithm, and of every way of fft."""
    for algorithm in algorithms():
        if algorithm.name != "fft" and algorithm.supports(problem, op) is None:
            yield algorithm.name, algorithm.cost(problem, op, ALONE), lambda a=algorithm: a.plan(problem, op, PLAIN)
    for way in fft.WAYS:
        if way is not _fft_scipy and way.supports(problem, op):
            name = f"fft {way.__name__.rpartition('_fft_')[2]}"
            yield name, way.cost(problem, op, ALONE), lambda w=way: w.plan(problem, op, PLAIN)


def fastest_run(plan: Plan) -> float:
    """Seconds of the fastest run on one thread."""
    problem, op = plan.problem, plan.op
    rng = np.random.default_rng(0)
    x, w, y = (
        rng.standard_normal(shape).astype(problem.dtype)
        for shape in (problem.x_shape, problem.w_shape, problem.y_shape)
    )
    channels = {Op.FORWARD: problem.K, Op.GRAD_INPUT: problem.C, Op.GRAD_WEIGHT: 0}[op]
    constants = np.zeros(channels + 1, problem.dtype)
    plan.run(x, w, y, y, constants, 1)
    times: list[float] = []
    while len(times) < 3 or sum(times) < SECONDS:
        begin = time.perf_counter()
        plan.run(x, w, y, y, constants, 1)
        times.append(time.perf_counter() - begin)
    return min(times)


def main(names: list[str]) -> None:
    print("| operation | problem | algorithm | predicted ms | measured ms | predicted / measured | |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for family in families(names, dtype="float32"):
        for problem in family.problems:
            for op in Op:
                rows = [
                    (name, price, fastest_run(make()))
                    for name, price, make in candidates(problem, op)
                    if price < MOST_SECONDS
                ]
                algorithm = explain_problem(problem, op).algorithm
                taken = min((row for row in rows if row[0].startswith(algorithm)), key=lambda row: row[1], default=None)
                fastest = min(rows, key=lambda row: row[2], default=None)
                for row in rows:
                    name, price, seconds = row
                    marks = " ".join(["taken"] * (row is taken) + ["fastest"] * (row is fastest))
                    print(
                        f"| {op.value} | {problem} | {name} | {price * 1e3:.3f} | {seconds * 1e3:.3f} "
                        f"| {price / seconds:.2f} | {marks} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main(sys.argv[1:])
