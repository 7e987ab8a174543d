"""PyTorch on the CPU: `torch.conv*d` and the operator behind its backward pass, on either memory layout."""

from __future__ import annotations

import torch

from bench.peers import Case
from bench.prepared import Prepared, only
from fastconv.core.problem import Op

_CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


def prepare(case: Case) -> Prepared:
    return _prepared(case, torch.contiguous_format)


def prepare_channels_last(case: Case) -> Prepared:
    only(case.problem.rank in _CHANNELS_LAST, "has no channels_last layout in 1-D")
    return _prepared(case, _CHANNELS_LAST[case.problem.rank])


def _prepared(case: Case, layout: torch.memory_format) -> Prepared:
    only(case.is_evenly_padded(), "cannot pad the two ends of an axis differently")
    torch.set_num_threads(case.threads)
    torch.set_grad_enabled(False)
    x, w, y = (torch.from_numpy(tensor).contiguous(memory_format=layout) for tensor in case.tensors)
    rank, groups = case.problem.rank, case.problem.groups
    padding = [low for low, _ in case.pads]
    if case.op is Op.FORWARD:
        conv = getattr(torch, f"conv{rank}d")
        return Prepared(lambda: conv(x, w, None, case.stride, padding, case.dilation, groups))

    backward = torch.ops.aten.convolution_backward
    window = (case.stride, padding, case.dilation, False, [0] * rank, groups)
    wanted = (case.op is Op.GRAD_INPUT, case.op is Op.GRAD_WEIGHT, False)
    return Prepared(lambda: backward(y, x, w, None, *window, wanted)[wanted.index(True)])
