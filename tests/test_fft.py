"""The ways to convolve through the Fourier transform, each by itself: `fft` takes the cheapest of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fastconv.core.algorithm import PLAIN
from fastconv.core.machine import local_machine
from fastconv.core.problem import ConvProblem, Op
from fastconv.cpu import _fft_dense, _fft_dense_weight, _fft_phases, _fft_planes, _fft_scipy, fft
from fastconv.cpu._overlap import least_strip

from .problems import expected, inputs_of, random_tensors

PROBLEMS = [
    # single channels
    "x=1x1x40x50 w=1x1x9x7",  # one tile
    "x=3x2x100x90 w=2x1x9x7 p=4x3 g=2",  # an odd number of tiles, in pairs that cross images
    "x=1x3x70x60 w=3x1x5x5 p=5 g=3 d=3x2 mode=reflect",
    "x=1x1x90x20 w=1x1x7x5 p=3 layout=channels_last",
    "x=2x1x3000 w=1x1x300 p=20",  # a sequence
    "x=1x4x50 w=4x1x9 p=20:3 g=4 mode=constant value=2",  # a longer border than the filter
    "x=3x2x14x15 w=2x1x27x5 p=13:11x2:0 g=2 mode=constant value=2",  # a ring of lines; columns are one too many
    "x=1x3x5x6 w=3x1x3x3 p=7 g=3",  # more border than filter and image
    # few channels
    "x=3x3x60x50 w=5x3x11x11 p=5",  # an odd number of pairs, in several runs
    "x=2x4x90x40 w=6x2x9x7 g=2 p=4x3 mode=reflect",
    "x=2x3x2000 w=4x3x300 p=20 d=2",  # sequences
    # many channels
    "x=1x16x30x33 w=16x16x5x5",
    "x=3x5x40x20 w=7x5x3x5 p=1",  # parts of registers
    "x=2x40x50x31 w=20x20x5x7 p=3x2 g=2 d=1x2 mode=reflect",
    "x=1x18x30x33 w=33x18x9x5 p=4 layout=channels_last",
    "x=2x6x100 w=8x6x9 p=4",  # tiles of one row
    "x=3x70x14x13 w=75x70x3x3 p=1 mode=constant value=-1",  # several blocks of channels
    "x=3x16x15x11 w=20x16x5x5 p=2:1x2 mode=constant value=3",  # rings of points; rows are one too many
    # strides
    "x=2x3x41x50 w=10x3x5x7 s=2 p=2",
    "x=1x4x60x33 w=6x2x9x6 s=3x1 d=1x2 g=2 p=3 mode=circular",
    "x=2x2x200 w=5x2x16 s=4 mode=constant value=3 p=5",
    "x=4x7x120x120 w=18x7x3x3",  # GRAD_WEIGHT adds up several products
]
# Largest error over the root mean square of a result: the target for this method in single precision, and as many
# roundings, 168, in double.
TARGET = {"float32": 1e-5, "float64": 2e-14}


def result_of(way, problem, op, tensors, threads=1, kept=False):
    """What a way computes, without the checks around it, perhaps with filters that it keeps."""
    arrays = dict.fromkeys("xwy", np.full(problem.result_shape(op), np.nan, problem.dtype)) | inputs_of(op, tensors)
    channels = {Op.FORWARD: problem.K, Op.GRAD_INPUT: problem.C, Op.GRAD_WEIGHT: 0}[op]
    outside = 0 if op is Op.GRAD_INPUT else problem.pad_value
    constants = np.append(np.zeros(channels), outside).astype(problem.dtype)
    result = arrays[{Op.FORWARD: "y", Op.GRAD_INPUT: "x", Op.GRAD_WEIGHT: "w"}[op]]
    plan = way.plan(problem, op, PLAIN)
    if kept:
        arrays["w"] = plan.kept_weight.transform(arrays["w"], threads)
    run = plan.kept_weight.run if kept else plan.run
    run(*arrays.values(), result, constants, threads)
    return result


def served(ways):
    """Every way, problem and operation that go together."""
    return [
        pytest.param(way, line, op, id=f"{way.__name__.rpartition('.')[2]}-{line}-{op.value}")
        for way in ways for line in PROBLEMS for op in Op if way.supports(ConvProblem.parse(line), op)
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", TARGET)
@pytest.mark.parametrize(("way", "line", "op"), served(fft.WAYS))
def test_every_way_against_the_reference(way, line, op, dtype):
    problem = ConvProblem.parse(line).replace(dtype=dtype)
    tensors = random_tensors(problem, 0)
    answer = expected(problem, op, tensors)
    error = np.abs(result_of(way, problem, op, tensors) - answer).max() / np.sqrt(np.mean(answer**2))
    assert error < TARGET[dtype]


@pytest.mark.parametrize(("way", "line", "op"), served(fft.WAYS[:-1]))
def test_any_number_of_threads_gives_the_same_bits(way, line, op):
    problem = ConvProblem.parse(line)
    tensors = random_tensors(problem, 1)
    np.testing.assert_array_equal(result_of(way, problem, op, tensors, 2), result_of(way, problem, op, tensors))


@pytest.mark.parametrize(
    ("way", "line", "op"),
    [each for each in served(fft.WAYS[:-1]) if each.values[2] is not Op.GRAD_WEIGHT],
)
def test_kept_filters_give_the_same_bits(way, line, op):
    problem = ConvProblem.parse(line)
    tensors = random_tensors(problem, 2)
    np.testing.assert_array_equal(result_of(way, problem, op, tensors, kept=True), result_of(way, problem, op, tensors))


@pytest.mark.parametrize(
    ("line", "op", "least"),
    [
        ("x=1x1x14x40 w=1x1x27x5 p=13x1", Op.FORWARD, (1, 14 + 13, 40 + 1)),
        ("x=1x1x14x40 w=1x1x27x5 p=13x1", Op.GRAD_INPUT, (1, 14 + 13, 40 + 1)),
        ("x=1x1x14x40 w=1x1x27x5 p=13x1", Op.GRAD_WEIGHT, (1, 14 + 13, 40 + 1)),
        ("x=1x1x14x40 w=1x1x3x5 p=1:0x2:1", Op.FORWARD, (1, 14 + 1, 40 + 2)),  # only the shorter border is shared
        ("x=1x1x14x40 w=1x1x3x5", Op.GRAD_INPUT, (1, 14, 40)),  # the border of y is as long as the filter reaches
        ("x=1x1x14x40 w=1x1x3x5 p=1x2 mode=circular", Op.FORWARD, (1, 14 + 2, 40 + 4)),  # borders that differ
    ],
)
def test_a_whole_axis_shares_its_borders(line, op, least):
    assert least_strip(ConvProblem.parse(line), op) == least


def key_of(line):
    return fft.plan(ConvProblem.parse(line), Op.FORWARD, PLAIN).kept_weight.key


@pytest.mark.parametrize("rest", ["w=1x1x31x31", "w=16x1x9x9", "w=16x1x9x9 s=2"])
def test_spectra_are_known_by_what_they_depend_on(rest):
    assert key_of(f"x=4x1x300x300 {rest}") == key_of(f"x=8x1x300x300 {rest}")
    assert key_of(f"x=4x1x300x300 {rest}") != key_of(f"x=4x1x300x300 {rest} d=2")


@pytest.mark.parametrize(
    ("line", "op", "way"),
    [
        ("x=1x1x1024x1024 w=1x1x31x31 p=15", Op.FORWARD, _fft_planes),
        ("x=1x1x480000 w=1x1x4096", Op.GRAD_WEIGHT, _fft_planes),
        ("x=1x128x56x56 w=128x1x31x31 p=15 g=128", Op.GRAD_INPUT, _fft_planes),
        ("x=1x3x512x512 w=16x3x11x11 p=5", Op.FORWARD, _fft_planes),
        ("x=1x3x512x512 w=16x3x11x11 p=5", Op.GRAD_INPUT, _fft_planes),
        ("x=4x64x64x64 w=128x64x9x9", Op.FORWARD, _fft_dense),
        ("x=4x64x64x64 w=128x64x9x9", Op.GRAD_WEIGHT, _fft_dense_weight),
        ("x=16x1x161x700 w=32x1x5x20 s=2", Op.FORWARD, _fft_phases),
        ("x=1x4x16x32x32 w=4x4x9x9x9 p=4", Op.FORWARD, _fft_scipy),
        ("x=1x1x1024x1024 w=1x1x31x31 c64", Op.FORWARD, _fft_scipy),
    ],
)
def test_the_cheapest_way_is_taken(line, op, way):
    problem = ConvProblem.parse(line)
    assert fft.plan(problem, op, PLAIN).tiles == way.plan(problem, op, PLAIN).tiles
    machine = dataclasses.replace(local_machine(), threads=1)
    assert fft.cost(problem, op, machine) <= min(
        each.cost(problem, op, machine) for each in fft.WAYS if each.supports(problem, op)
    )
