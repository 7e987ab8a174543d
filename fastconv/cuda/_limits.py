"""What no algorithm of this device serves."""

from __future__ import annotations

import math

from ..core.algorithm import running_sum_error
from ..core.problem import ConvProblem
from ._device import COMPUTED_AS, DTYPES

# Indices inside one image, and inside w, have 32 bits with a sign; between images they have 64.
MOST_ELEMENTS = 2**31
# Of a million normal random results the largest is 5 times their root mean square, and rounds in proportion.
LARGEST_OVER_RMS = 5


def refusal(problem: ConvProblem) -> str | None:
    """None, or one sentence that says why the problem cannot be served on this device."""
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


def rounding_error(problem: ConvProblem, additions: int) -> float:
    """Error bound of a method in which this many additions follow one another in the sum of a result.

    As on the CPU (`fastconv.core.algorithm.running_sum_error`), and where the tensors have 16 bits, the rounding of the
    result to them on top.
    """
    computed = running_sum_error(problem.replace(dtype=COMPUTED_AS[problem.dtype]), additions)
    return computed + {"float16": 2.0**-11, "bfloat16": 2.0**-8}.get(problem.dtype, 0.0) * LARGEST_OVER_RMS
