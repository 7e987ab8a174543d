"""What is given at a launch is what the compiled kernel takes, argument by argument; the simulator takes anything."""

from __future__ import annotations

import re

import numpy as np
import pytest
from numba.cuda import types

from fastconv.core.algorithm import Epilogue
from fastconv.core.patch_problem import patch_problem
from fastconv.core.pool_problem import PoolOp, PoolProblem
from fastconv.core.problem import ConvProblem, Op
from fastconv.core.registry import algorithms
from fastconv.cuda import patches, pooling
from fastconv.cuda._limits import fits
from fastconv.cuda._weight_form import fill_form

SOMEWHERE = 1 << 32
LINES = (
    "x=2x3x7x9 w=4x3x3x3 p=1",
    "x=2x16x16x16 w=16x16x3x3 p=1",
    "x=1x4x8x6 w=6x2x3x2 s=2x1 p=1:0x0:2 g=2",
    "x=1x2x4x5x6 w=3x2x2x3x2 s=1x2x2 p=1",
    "x=2x3x6x5x4 w=4x3x3x3x3 p=1",
    "x=1x3x9x7 w=3x1x3x3 s=2 p=1 g=3",
    "x=1x3x40x40 w=3x1x13x13 p=6 g=3",
    "x=1x2x5x4 w=2x2x3x3 p=1:3x2:0 mode=constant value=1.5",
)
WIDTHS = {np.int32: 32, np.int64: 64, np.float32: 32, np.float64: 64, int: 64}


class Queue:
    """Compares what it is given with what the kernel takes."""

    device = 0

    def __init__(self):
        self.launches = 0

    def __enter__(self):
        return self

    def __exit__(self, *raised):
        pass

    def launch(self, kernel, configuration, arguments):
        assert [type(each) for each in arguments] == list(taken(kernel)), kernel
        assert fits(*configuration.grid), kernel
        self.launches += 1

    def scratch(self, *parts):
        return (SOMEWHERE,) * len(parts)

    def upload(self, values):
        return SOMEWHERE

    def address(self, memory):
        return memory


def taken(kernel):
    """The types that `cuda.core.launch` makes the kernel's parameters of: a Python integer is an address to it."""
    for argument in kernel.body.arguments:
        if isinstance(argument, types.CPointer):
            yield int
        elif isinstance(argument, types.NamedUniTuple):
            yield from [np.int32] * len(argument)
        else:
            yield getattr(np, argument.name)


@pytest.mark.parametrize("line", LINES)
def test_of_convolutions(line):
    for dtype in ("float32", "float64", "bfloat16", "tf32"):
        for layout in ("channels_first", "channels_last"):
            problem = ConvProblem.parse(line).replace(dtype=dtype, layout=layout)
            for algorithm in algorithms("cuda"):
                for op in Op:
                    if algorithm.supports(problem, op) is None and (algorithm.rounds or dtype != "tf32"):
                        queue = Queue()
                        epilogue = Epilogue("relu", op is not Op.GRAD_WEIGHT)
                        plan = algorithm.plan(problem, op, epilogue)
                        plan.run(SOMEWHERE, SOMEWHERE, SOMEWHERE, SOMEWHERE, SOMEWHERE, queue)
                        assert queue.launches > 0


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_of_pooling_and_patches(layout):
    for dtype in ("float32", "float16"):
        problem = PoolProblem.from_windows(
            (2, 8, 9, 8), 2, (3, 2), (2, 2), ((1, 1), (0, 0)), (1, 1), False, layout=layout, dtype=dtype
        )
        for op in PoolOp:
            queue = Queue()
            pooling.plan(problem, op)(queue, SOMEWHERE, SOMEWHERE, SOMEWHERE, SOMEWHERE)
            assert queue.launches > 0
        patched = patch_problem((2, 8, 9, 8), (3, 2), (1, 2), ((1, 1), (0, 2)), (1, 1), layout=layout)
        for op, pixel_rows in ((Op.FORWARD, False), (Op.FORWARD, True), (Op.GRAD_INPUT, True)):
            queue = Queue()
            patches.plan(patched.replace(dtype=dtype), op, pixel_rows)(queue, SOMEWHERE, SOMEWHERE)
            assert queue.launches > 0


def test_a_record_is_so_many_parameters_of_the_machine_code():
    kernel = fill_form("float32")
    widths = [int(width) for width in re.findall(r"\.param \.[bfsu](\d+) ", kernel.ptx.partition(")")[0])]
    assert widths == [WIDTHS[each] for each in taken(kernel)]
