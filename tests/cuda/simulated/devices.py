"""Problems for the simulator, and how their tensors travel there and back."""

from __future__ import annotations

import numpy as np

from fastconv.core.algorithm import PLAIN
from fastconv.core.problem import ConvProblem, Op
from fastconv.cuda._device import travelling
from fastconv.cuda._queue import SimulatedQueue
from tests import problems

# Small enough for Python, and between them every tail, stride, padding, dilation, group, rank and layout.
LINES = (
    "x=2x3x7x9 w=4x3x3x3 p=1",
    "x=1x4x8x6 w=6x2x3x2 s=2x1 p=1:0x0:2 g=2",
    "x=2x5x9 w=3x5x4 s=3 p=2 d=2",
    "x=1x2x4x5x6 w=3x2x2x3x2 s=1x2x2 p=1",
    "x=1x3x9x7 w=3x1x3x3 s=2 p=1 g=3",
    "x=2x3x6x5 w=4x3x3x3 p=1 layout=channels_last",
    "x=1x2x6x6 w=4x1x2x3 s=2 p=1x2 d=2x1 g=2 mode=reflect layout=channels_last",
    "x=1x2x5x4 w=2x2x3x3 p=3 mode=circular",
    "x=1x2x5x4 w=2x2x3x3 p=1:3x2:0 mode=constant value=1.5",
    "x=1x2x3 w=2x2x5 p=4 mode=symmetric",
)
# Largest error over the root mean square of the result, of the sums and of the rounding to 16 bits of numbers of which
# the largest is a few times their root mean square.
TOLERANCE = {"float32": 2e-6, "float64": 1e-14, "float16": 4e-3, "bfloat16": 3e-2}


def parsed(line, dtype):
    """The problem of a line in a type."""
    return ConvProblem.parse(line).replace(dtype=dtype)


def to_device(values, dtype):
    """Values as flat elements of a type, as kernels get them."""
    flat = np.ascontiguousarray(values).reshape(-1)
    if dtype == "bfloat16":
        bits = flat.astype(np.float32).view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return flat.astype(dtype).view(travelling(dtype))


def from_device(elements, dtype):
    """Elements of a type as float64."""
    if dtype == "bfloat16":
        return (elements.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return elements.view(dtype).astype(np.float64)


def poisoned(size, dtype):
    """Memory for a result."""
    return to_device(np.full(size, np.nan), dtype)


def tensors_of(problem, seed=0):
    """x, w and y in float64, rounded to the problem's type."""
    shapes = {"x": problem.x_shape, "w": problem.w_shape, "y": problem.y_shape}
    rng = np.random.default_rng(seed)
    return {
        name: from_device(to_device(rng.standard_normal(shape), problem.dtype), problem.dtype).reshape(shape)
        for name, shape in shapes.items()
    }


def computed(algorithm, problem, op, tensors, epilogue=PLAIN, bias=None, residual=None):
    """The result of an algorithm's plan, as float64 in its shape."""
    dtype = problem.dtype
    name = {Op.FORWARD: "y", Op.GRAD_INPUT: "x", Op.GRAD_WEIGHT: "w"}[op]
    device = {each: to_device(tensors[each], dtype) for each in "xwy" if each != name}
    result = device[name] = poisoned(tensors[name].size, dtype)
    bias = None if bias is None else to_device(bias, dtype)
    residual = result if residual is None else to_device(residual, dtype)
    plan = algorithm.plan(problem, op, epilogue)
    plan.run(device["x"], device["w"], device["y"], residual, bias, SimulatedQueue())
    return from_device(result, dtype).reshape(tensors[name].shape)


def expected(problem, op, tensors):
    """The reference's result."""
    return problems.expected(problem, op, tensors)


def error(result, right):
    """Largest error over the root mean square."""
    return np.abs(result - right).max() / np.sqrt(np.mean(right**2))
