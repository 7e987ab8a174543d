"""OpenCV: `filter2D`, channel by channel."""

from __future__ import annotations

import cv2
import numpy as np

from bench.peers import Case
from bench.prepared import Array, Prepared, only
from fastconv.core.problem import Op


def prepare(case: Case) -> Prepared:
    only(case.op is Op.FORWARD and case.problem.rank == 2, "computes 2-D forward convolutions only")
    only(case.problem.groups == case.problem.C, "cannot sum over channels")
    only(case.is_dense(), "has stride 1 and dilation 1 only")
    (top, _), (left, _) = case.pads
    x, w, _ = case.tensors
    P, Q = case.output
    only(x.shape[2] >= P and x.shape[3] >= Q, "cannot give more pixels than the input has")
    only(top < w.shape[2] and left < w.shape[3], "cannot pad by the extent of the filter or more")
    cv2.setNumThreads(case.threads)
    filters_per_channel = case.problem.K // case.problem.C

    def call() -> Array:
        result = np.empty((x.shape[0], case.problem.K, *x.shape[2:]), x.dtype)
        for n, image in enumerate(x):
            for k, (weight,) in enumerate(w):
                cv2.filter2D(
                    image[k // filters_per_channel],
                    -1,
                    weight,
                    dst=result[n, k],
                    anchor=(left, top),
                    borderType=cv2.BORDER_CONSTANT,
                )
        return result[:, :, :P, :Q]

    return Prepared(call)
