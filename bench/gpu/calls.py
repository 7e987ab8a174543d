"""One operation of one problem as calls: fastconv's with any algorithm, cuDNN's, and the reference in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import fastconv
from bench.gpu.device import Device, Tensor
from fastconv.core.problem import ConvProblem, Op


@dataclass(frozen=True)
class Tensors:
    """x, w and y of a problem, in its layout and type."""

    x: Tensor
    w: Tensor
    y: Tensor

    @classmethod
    def of(cls, device: Device, problem: ConvProblem, seed: int = 0) -> Tensors:
        """Normally distributed, w so that results are too."""
        scale = (problem.C // problem.groups * problem.taps) ** -0.5
        return cls(
            device.normal(problem.x_shape, problem.dtype, seed),
            device.normal(problem.w_shape, problem.dtype, seed + 1, scale),
            device.normal(problem.y_shape, problem.dtype, seed + 2),
        )


def _window(problem: ConvProblem) -> dict[str, Any]:
    lead = 3 - problem.rank
    return {
        "stride": problem.stride[lead:],
        "padding": problem.padding[lead:],
        "dilation": problem.dilation[lead:],
        "groups": problem.groups,
        "layout": problem.layout,
    }


def ours(
    device: Device, problem: ConvProblem, op: Op, tensors: Tensors, out: Tensor, algorithm: str = "auto", **more: Any
) -> Callable[[], Any]:
    """The call of fastconv, which writes into `out`."""
    rank = problem.rank
    x, w, y = map(plain, (tensors.x, tensors.w, tensors.y))
    function, arguments = {
        Op.FORWARD: (getattr(fastconv, f"conv{rank}d"), (x, w)),
        Op.GRAD_INPUT: (getattr(fastconv.grad, f"conv{rank}d_input"), (tuple(tensors.x.shape), w, y)),
        Op.GRAD_WEIGHT: (getattr(fastconv.grad, f"conv{rank}d_weight"), (x, tuple(tensors.w.shape), y)),
    }[op]
    options = {**_window(problem), "algorithm": algorithm, "out": plain(out), **more}
    if problem.dtype == "tf32":
        options["precision"] = "tf32"
    return lambda: function(*arguments, **options)


def plain(tensor: Tensor) -> Tensor | np.ndarray[Any, Any]:
    """The tensor on a GPU; NumPy's view of it in a rehearsal."""
    return tensor if tensor.is_cuda else tensor.numpy()


def cudnn(problem: ConvProblem, op: Op, tensors: Tensors) -> Callable[[], Tensor]:
    """PyTorch's call, in either memory format, for problems that are padded alike at both ends with zeros."""
    lead, rank = 3 - problem.rank, problem.rank
    x, w, y = tensors.x, tensors.w, tensors.y
    if problem.layout == "channels_last":
        x, y = (each.movedim(-1, 1) for each in (x, y))
        if rank > 1:
            w = w.contiguous(memory_format=torch.channels_last if rank == 2 else torch.channels_last_3d)
    padding = [low for low, _ in problem.padding[lead:]]
    stride, dilation = problem.stride[lead:], problem.dilation[lead:]
    if op is Op.FORWARD:
        convolve = getattr(torch, f"conv{rank}d")
        return lambda: convolve(x, w, None, stride, padding, dilation, problem.groups)
    wanted = (op is Op.GRAD_INPUT, op is Op.GRAD_WEIGHT, False)
    window = (stride, padding, dilation, False, [0] * rank, problem.groups)
    backward = torch.ops.aten.convolution_backward
    return lambda: backward(y, x, w, None, *window, wanted)[wanted.index(True)]


def reference(problem: ConvProblem, op: Op, tensors: Tensors) -> Tensor:
    """The result in float64, in the problem's layout."""
    wide = Tensors(tensors.x.double(), tensors.w.double(), tensors.y.double())
    result = cudnn(problem, op, wide)()
    return result.movedim(1, -1) if problem.layout == "channels_last" and op is not Op.GRAD_WEIGHT else result
