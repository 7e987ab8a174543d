"""`explain`: which algorithm `auto` takes for a problem, and why no other."""

from __future__ import annotations

import dataclasses
from typing import Any

from ._separable import separation
from .core.arrays import as_array, common_dtype
from .core.devices import check_device, common_device
from .core.errors import reporting
from .core.evaluate import check_rtol
from .core.problem import ConvProblem, Op
from .core.selector import Explanation, explain_problem

__all__ = ["explain"]


@reporting
def explain(
    problem: Any,
    weight: Any = None,
    *parameters: Any,
    op: str = "forward",
    rtol: float | None = None,
    device: str | None = None,
    **options: Any,
) -> Explanation:
    """Say which algorithm `auto` takes, and why each other one is not taken.

    Parameters
    ----------
    problem
        A problem line such as ``"x=1x64x56x56 w=64x64x3x3 s=1 p=1 d=1 g=1 f32"``, or the argument x of a
        convolution; then `weight`, stride, padding, dilation, groups, padding_mode, pad_value and layout follow
        as in `conv1d`, `conv2d` and `conv3d`.
    op
        "forward", "grad_input" (also the transposed convolution) or "grad_weight".
    rtol, device
        As in `conv1d`, `conv2d` and `conv3d`; a problem line is one for the CPU unless device="cuda".

    Returns
    -------
    Explanation
        Its `str` is a table; its attributes are the problem, the algorithm, and the price, error bound,
        workspace and refusal of each candidate. Of a given weight of one channel, its `remark` says if it is separable,
        and `fastconv.signal` and `fastconv.ndimage` compute it in passes.

    Raises
    ------
    ValueError, TypeError
        For a line or arguments that are not a convolution.

    Examples
    --------
    >>> fastconv.explain("x=1x1x1024x1024 w=1x1x127x127 p=63").algorithm
    'fft'
    """
    check_rtol(rtol)
    check_device(device)
    try:
        chosen = Op(op)
    except ValueError:
        raise ValueError(f"op={op!r}: must be one of {', '.join(each.value for each in Op)}") from None
    if isinstance(problem, (str, ConvProblem)):
        if weight is not None or parameters or options:
            raise TypeError("a problem line holds all parameters; give it alone")
        given = ConvProblem.parse(problem) if isinstance(problem, str) else problem
        return explain_problem(given, chosen, rtol, device or "cpu")
    x, w = as_array("x", problem, device), as_array("weight", weight, device)
    place = common_device(x.dtype, w.dtype)
    described = ConvProblem.from_shapes(x.shape, w.shape, *parameters, dtype=common_dtype(x.dtype, w.dtype), **options)
    explanation = explain_problem(described, chosen, rtol, place)
    passes = separation(described, w[0, 0]) if chosen is Op.FORWARD and place == "cpu" else None
    return explanation if passes is None else dataclasses.replace(explanation, remark=str(passes))
