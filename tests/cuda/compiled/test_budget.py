"""The budget itself notices what it is there for."""

from __future__ import annotations

import pytest

from fastconv.cuda._device import cuda, float32, get, get4, int32, pointer, put, thread
from fastconv.cuda._kernel import Body, kernels
from tests.cuda.budget import CAPABILITIES, Budget, measured


@kernels
def spilling():
    def body(x, y):
        values = cuda.local.array(64, float32)
        for i in range(64):
            values[i] = get(x, i)
        put(y, 0, values[int32(get(x, thread()))])  # an index that is known when it runs only

    return Body(body, (pointer("float32"),) * 2, 32)


@kernels
def copying(wide):
    def body(x, y):
        at = int32(thread() * 4)
        if wide:
            a, b, c, d = get4(x, at)
        else:
            a, b, c, d = get(x, at), get(x, int32(at + 1)), get(x, int32(at + 2)), get(x, int32(at + 3))
        put(y, thread(), a + b + c + d)

    return Body(body, (pointer("float32"),) * 2, 32)


WIDE = Budget(registers=32, at_least=(("LDG.E.128", 1),))


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_a_planted_spill_is_found(capability):
    excesses = list(Budget(registers=255).excesses(measured(spilling(), capability)))
    assert [each for each in excesses if each.startswith("spills")]


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_a_planted_scalar_load_is_found(capability):
    assert list(WIDE.excesses(measured(copying(True), capability))) == []
    assert list(WIDE.excesses(measured(copying(False), capability))) == ["0 LDG.E.128, 1 needed"]


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_too_many_registers_are_found(capability):
    excesses = list(Budget(registers=4).excesses(measured(copying(True), capability)))
    assert [each for each in excesses if "registers" in each]
