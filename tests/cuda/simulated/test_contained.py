"""A transformed algorithm's NaN is noticed when it is stored, and direct's results take the place of its own."""

from __future__ import annotations

import numpy as np
import pytest

from fastconv.core.algorithm import PLAIN
from fastconv.core.problem import Op
from fastconv.cuda import _elements
from fastconv.cuda._contained import contained, watch
from fastconv.cuda._device import pointer, put, thread
from fastconv.cuda._kernel import Body, Launch, kernels
from fastconv.cuda._plan import Work, planned

from .devices import computed, error, expected, parsed, tensors_of


@kernels
def wrong(value, size):
    def body(y, alarm):
        if thread() < size:
            watch(type(value)(value), alarm)
            put(y, thread(), value)

    return Body(body, (pointer("float32"), pointer("int32")), size)


@pytest.mark.parametrize(("value", "is_repaired"), [(np.float32(3), False), (np.float32(np.nan), True)])
def test_direct_computes_again_only_what_raised_the_alarm(value, is_repaired):
    problem = parsed("x=1x2x3x4 w=2x2x2x2", "float32")

    def make(problem, op, epilogue):
        launch = Launch(wrong(value, 12), (1,))
        return Work(lambda queue, x, w, y, residual, bias, scratch: launch(queue, y, scratch[0]))

    class Spreading:
        plan = staticmethod(planned("wrong", contained(make)))

    tensors = tensors_of(problem)
    result = computed(Spreading, problem, Op.FORWARD, tensors, PLAIN)
    right = expected(problem, Op.FORWARD, tensors)
    assert (error(result, right) < 1e-5) == is_repaired
    assert is_repaired or (result == 3).all()


@kernels
def raised() -> Body:
    def body(alarm):
        put(alarm, 0, 1)

    return Body(body, (pointer("int32"),), 1)


@pytest.mark.parametrize("op", Op)
def test_few_blocks_wait_and_compute_everything(op, monkeypatch):
    monkeypatch.setattr(_elements, "WAITING_BLOCKS", 2)
    problem = parsed("x=2x2x5x18 w=4x2x2x3 s=1x2 p=1", "float32")

    def make(problem, op, epilogue):
        launch = Launch(raised(), (1,))
        return Work(lambda queue, x, w, y, residual, bias, scratch: launch(queue, scratch[0]))

    class Spreading:
        plan = staticmethod(planned("raising", contained(make)))

    tensors = tensors_of(problem)
    result = computed(Spreading, problem, op, tensors)
    assert error(result, expected(problem, op, tensors)) < 1e-5
