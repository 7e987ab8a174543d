"""What no algorithm of this device serves."""

from __future__ import annotations

import math

from ..core.algorithm import running_sum_error
from ..core.problem import ConvProblem
from ._device import COMPUTED_AS, DTYPES

# Indices inside one image, and inside w, have 32 bits with a sign; between images they have 64.
MOST_ELEMENTS = 2**31
# Blocks of a grid along each of its axes (CUDA C++ Programming Guide, table "Technical Specifications per Compute
# Capability").
MOST_BLOCKS = (2**31 - 1, 2**16 - 1, 2**16 - 1)
# Of a million normal random results the largest is 5 times their root mean square, and rounds in proportion.
LARGEST_OVER_RMS = 5


def refusal(problem: ConvProblem) -> str | None:
    """None, or one sentence that says why the problem cannot be served on this device."""
    return refusal_of_sizes(problem) or refusal_of_planes(problem.N, max(problem.C, problem.K))


def refusal_of_sizes(problem: ConvProblem) -> str | None:
    """None, or one sentence that says why its types or tensors cannot be served."""
    if problem.dtype not in COMPUTED_AS:
        return f"{problem.dtype} is not computed on CUDA devices, which take {', '.join(DTYPES)}"
    sizes = {
        "an image of x, padded,": problem.C * math.prod(problem.padded),
        "an image of y": problem.K * math.prod(problem.output),
        "w": math.prod(problem.w_shape),
    }
    for tensor, size in sizes.items():
        if size >= MOST_ELEMENTS:
            return f"{tensor} has {size} elements, and indices inside it 31 bits"
    return None


def fits(*grid: int) -> bool:
    """Whether a grid may have so many blocks along its axes."""
    return all(blocks <= most for blocks, most in zip(grid, MOST_BLOCKS, strict=False))


def refusal_of_planes(images: int, channels: int) -> str | None:
    """None, or one sentence that says why a grid cannot have a block, or more, for each channel of each image.

    Blocks that take parts of a plane have hundreds of elements each: a tensor of which those were too many would fit
    into no memory.
    """
    if fits(images * channels):
        return None
    return f"{images} images of {channels} channels have more planes than a grid has blocks, {MOST_BLOCKS[0]}"


def rounding_error(problem: ConvProblem, additions: int) -> float:
    """Error bound of a method in which this many additions follow one another in the sum of a result.

    As on the CPU (`fastconv.core.algorithm.running_sum_error`), and where the tensors have 16 bits, the rounding of the
    result to them on top.
    """
    computed = running_sum_error(problem.replace(dtype=COMPUTED_AS[problem.dtype]), additions)
    return computed + {"float16": 2.0**-11, "bfloat16": 2.0**-8}.get(problem.dtype, 0.0) * LARGEST_OVER_RMS
