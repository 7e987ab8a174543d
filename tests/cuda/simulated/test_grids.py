"""Grids hold what a GPU takes of blocks, whatever the problem."""

from __future__ import annotations

import pytest

from fastconv.core.algorithm import PLAIN
from fastconv.core.pool_problem import PoolProblem
from fastconv.core.problem import ConvProblem, Op
from fastconv.core.registry import algorithms
from fastconv.cuda import _limits, pooling
from fastconv.cuda._kernel import Launch
from fastconv.cuda._queue import SimulatedQueue

GROUPS = 70000  # more than the blocks that a grid has along its second or third axis
LINES = [
    f"x=2x{inputs}x{extents} w={outputs}x{inputs // groups}x{taps} p=1 g={groups}{layout}"
    for inputs, outputs, groups, extents, taps in (
        (GROUPS, GROUPS, GROUPS, "5x6", "3x3"),
        (2 * GROUPS, 2 * GROUPS, GROUPS, "5x6", "3x3"),
        (GROUPS, GROUPS, GROUPS, "20x20", "9x9"),
        (60000, 60000, 60000, "5x6", "3x3"),
    )
    for layout in ("", " layout=channels_last")
]


class Planned(SimulatedQueue):
    """A queue without memory."""

    def allocate(self, part):
        return None


@pytest.fixture
def grids(monkeypatch):
    """Of all launches, in place of their results."""
    found = []
    monkeypatch.setattr(Launch, "__call__", lambda launch, queue, *pointers: found.append(launch.grid))
    return found


@pytest.mark.parametrize("op", Op)
@pytest.mark.parametrize("algorithm", algorithms("cuda"), ids=lambda each: each.name)
@pytest.mark.parametrize("line", LINES)
def test_a_grid_has_room_for_many_groups(line, algorithm, op, grids):
    problem = ConvProblem.parse(line)
    if algorithm.supports(problem, op) is None:
        algorithm.plan(problem, op, PLAIN).run(*[None] * 5, Planned())
        assert grids
        assert all(_limits.fits(*grid) for grid in grids)


def test_what_a_grid_cannot_hold_is_refused():
    winograd, fft = ({each.name: each for each in algorithms("cuda")}[name] for name in ("winograd", "fft"))
    assert "groups" in winograd.supports(ConvProblem.parse(LINES[0]), Op.FORWARD)
    assert winograd.supports(ConvProblem.parse(LINES[-1]), Op.FORWARD) is None
    many_tiles = ConvProblem.parse("x=4096x64x128x128 w=64x1x64x64 g=64")
    assert "blocks" in fft.supports(many_tiles, Op.GRAD_INPUT)
    assert "planes" in _limits.refusal(ConvProblem.parse("x=65536x32768x1x1 w=32768x1x1x1 g=32768"))
    assert "planes" in pooling.refusal(PoolProblem.adaptive((65536, 32768, 1, 1), 2, (1, 1), dtype="float32"))
    assert not _limits.fits(1, GROUPS)
