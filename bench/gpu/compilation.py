"""Every kernel that a run takes, compiled before it by as many processes as there are processors.

A kernel takes the compiler a second or two, one after another, and there are some 250 of them: more than the minutes
of the run. The processes leave the machine code on disk, where the run finds it.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

from bench.machine import cores
from fastconv.core.algorithm import PLAIN
from fastconv.core.problem import ConvProblem, Op
from fastconv.core.selector import plan_for

Task = tuple[ConvProblem, Op, str]  # the last is an algorithm's name, or auto
SOMEWHERE = 1 << 32


class Listener:
    """Stands for `fastconv.cuda._queue.Queue`, and takes note of the kernels that are launched."""

    device = 0

    def __init__(self) -> None:
        self.kernels: dict[Any, None] = {}

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *raised: object) -> None:
        pass

    def launch(self, kernel: Any, configuration: Any, arguments: tuple[Any, ...]) -> None:
        """Take note."""
        self.kernels[kernel] = None

    def scratch(self, *parts: Any) -> tuple[int, ...]:
        """An address for each part."""
        return (SOMEWHERE,) * len(parts)

    def upload(self, values: Any) -> int:
        """What `address` takes."""
        return SOMEWHERE

    def address(self, memory: int) -> int:
        """An address."""
        return memory


def kernels_of(tasks: Sequence[Task]) -> list[Any]:
    """Each kernel once, in an order that is the same in every process."""
    listener = Listener()
    for problem, op, algorithm in tasks:
        plan = plan_for(problem, op, algorithm, PLAIN, None, "cuda")
        plan.run(SOMEWHERE, SOMEWHERE, SOMEWHERE, SOMEWHERE, None, listener)
    return list(listener.kernels)


def compile_share(tasks: Sequence[Task], capability: tuple[int, int], processes: int, number: int) -> int:
    """Compile every kernel that falls to a process of this number, and count them."""
    share = kernels_of(tasks)[number::processes]
    for kernel in share:
        kernel.kept_machine_code(capability)
    return len(share)


def compile_all(tasks: Sequence[Task], capability: tuple[int, int]) -> int:
    """Compile all kernels, and count them."""
    processes = cores()
    compiling = partial(compile_share, tasks, capability, processes)
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        return sum(pool.map(compiling, range(processes)))
