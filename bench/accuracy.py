"""Errors of every algorithm against float64: ``python -m bench.accuracy [family, file or problem line ...]``.

For each problem and operation, on normal random data in float32, prints the largest error and the root mean square of
all errors, over the root mean square of the result, and the bound that the selector goes by. The result in float64 is
that of the direct method, which the tests hold against a reference of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bench.problems import families
from fastconv.core.evaluate import evaluate
from fastconv.core.problem import ConvProblem, Op
from fastconv.core.registry import algorithms

# Products of a problem above which it is left out: a minute for all algorithms on the machine of docs/performance.md.
MOST_PRODUCTS = 1 << 35


def inputs(problem: ConvProblem, op: Op) -> dict[str, NDArray[np.float32]]:
    """Random tensors from which the operation computes the third."""
    rng = np.random.default_rng(0)
    shapes = {"x": problem.x_shape, "w": problem.w_shape, "y": problem.y_shape}
    names = {Op.FORWARD: "xw", Op.GRAD_INPUT: "wy", Op.GRAD_WEIGHT: "xy"}[op]
    return {name: rng.standard_normal(shapes[name], np.float32) for name in names}


def errors(problem: ConvProblem, op: Op) -> Iterator[tuple[str, float, float, float]]:
    """Name, largest error, root mean square error and bound of each algorithm that serves."""
    given = inputs(problem, op)
    wide = {name: tensor.astype(np.float64) for name, tensor in given.items()}
    exact = evaluate(op, problem.replace(dtype="float64"), algorithm="direct", **wide)
    scale = np.sqrt(np.mean(exact**2))
    for algorithm in algorithms():
        if algorithm.supports(problem, op) is None:
            error = np.abs(evaluate(op, problem, algorithm=algorithm.name, **given) - exact) / scale
            yield algorithm.name, error.max(), np.sqrt(np.mean(error**2)), algorithm.error_bound(problem, op)


def main(names: list[str]) -> None:
    for family in families(names, dtype="float32"):
        for problem in family.problems:
            for op in Op:
                if problem.multiplications <= MOST_PRODUCTS:
                    print(f"{op.value} of {problem}", flush=True)
                    for name, largest, mean, bound in errors(problem, op):
                        print(f"    {name:<9} largest {largest:.1e}  rms {mean:.1e}  bound {bound:.1e}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
