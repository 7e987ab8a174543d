"""Padding modes other than zeros: a padded copy of x, and its adjoint, which adds padded places up."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..core.algorithm import Epilogue
from ..core.boundary import source_index
from ..core.problem import ConvProblem
from ._device import (
    COMPUTED_AS,
    block_x,
    get,
    int32,
    int64,
    pointer,
    put,
    quotient,
    real_of,
    record,
    shifted,
    thread,
)
from ._gather import Strides
from ._kernel import Body, Launch, kernels
from ._places import THREADS, Image, add_places, place_in, table_of
from ._queue import Queue, Table

_NONE = ((0, 0), (0, 0), (0, 0))


def is_zero_padded(problem: ConvProblem) -> bool:
    """Whether nothing but zeros stands in the padding."""
    is_zero = problem.padding_mode == "zeros" or (problem.padding_mode == "constant" and problem.pad_value == 0)
    return is_zero or problem.padding == _NONE


def padded_problem(problem: ConvProblem) -> ConvProblem:
    """The same convolution of the padded x."""
    return problem.replace(input=problem.padded, padding=_NONE, padding_mode="zeros", pad_value=0)


class Padded(NamedTuple):
    """Extents of an image and of the padded one: ``outer`` channels in front of the axes, ``inner`` behind them."""

    outer: int
    inner: int
    depth: int
    height: int
    width: int
    padded_depth: int
    padded_height: int
    padded_width: int
    blocks: int  # of the grid for one image

    @classmethod
    def of(cls, problem: ConvProblem) -> Padded:
        """With a thread for each element of the padded image."""
        outer, inner = (problem.C, 1) if problem.layout == "channels_first" else (1, problem.C)
        blocks = -(-problem.C * math.prod(problem.padded) // THREADS)
        return cls(outer, inner, *problem.input, *problem.padded, blocks)


@kernels
def pad_images(dtype: str) -> Body:
    """Copy images into padded ones."""

    def body(
        x,  # images, read
        padded,  # images, written
        sources,  # int32: the place in x of each padded place along d, then h, then w; negative outside
        n,  # Padded
        outside,  # value that stands there
        x_image,  # int64: elements from one image of x to the next
        padded_image,  # int64: likewise of the padded ones
    ):
        image = quotient(block_x(), n.blocks)
        at = int32((block_x() - image * n.blocks) * THREADS + thread())
        outer, d, h, w, i = place_in(at, n.inner, n.padded_depth, n.padded_height, n.padded_width)
        if outer < n.outer:
            from_d = get(sources, d)
            from_h = get(sources, int32(n.padded_depth + h))
            from_w = get(sources, int32(n.padded_depth + n.padded_height + w))
            value = outside
            if from_d >= 0 and from_h >= 0 and from_w >= 0:
                row = (outer * n.depth + from_d) * n.height + from_h
                value = get(shifted(x, int64(image) * x_image), int32((row * n.width + from_w) * n.inner + i))
            put(shifted(padded, int64(image) * padded_image), at, value)

    real = real_of(dtype)
    pointers = pointer(dtype), pointer(dtype), pointer("int32")
    return Body(body, (*pointers, record(Padded), real, int64, int64), THREADS)


class Pad:
    """Copies x, padded."""

    def __init__(self, problem: ConvProblem) -> None:
        self._sources = Table(np.concatenate(sources_of(problem)).astype(np.int32))
        n, outside = Padded.of(problem), np.dtype(COMPUTED_AS[problem.dtype]).type(problem.pad_value.real)
        self._launch = Launch(pad_images(problem.dtype), (problem.N * n.blocks,), n, outside, *_images(problem))

    def __call__(self, queue: Queue, x: Any, padded: Any) -> None:
        """x: read; padded: written."""
        self._launch(queue, x, padded, self._sources.on(queue))


class Fold:
    """Adds a padded gradient up to that of x, and finishes it."""

    def __init__(self, problem: ConvProblem, epilogue: Epilogue) -> None:
        padded = Strides.of(problem.C, problem.padded, problem.layout)
        numbers = [
            stride * np.arange(extent)
            for stride, extent in zip((padded.d, padded.h, padded.w), problem.padded, strict=True)
        ]
        self._places = table_of(problem.input, sources_of(problem), numbers)
        kernel = add_places(problem.dtype, epilogue, False)
        n = Image.of(problem.C, problem.input, problem.layout, padded.channel)
        self._launches = {
            has_bias: Launch(kernel, (problem.N * n.blocks,), n, int(has_bias), *_images(problem))
            for has_bias in (False, True)
        }

    def __call__(self, queue: Queue, padded: Any, x: Any, residual: Any, bias: Any | None) -> None:
        """padded: read; x: written; residual and bias: as in `fastconv.cuda._epilogue.finish`."""
        self._launches[bias is not None](
            queue, padded, x, residual, x if bias is None else bias, self._places.on(queue)
        )


def _images(problem: ConvProblem) -> tuple[np.int64, np.int64]:
    """Elements of an image of x, and of a padded one."""
    return np.int64(problem.C * math.prod(problem.input)), np.int64(problem.C * math.prod(problem.padded))


def sources_of(problem: ConvProblem) -> list[Any]:
    """The place in x of each padded place along d, h and w; negative outside."""
    return [
        source_index(extent, low, high, problem.padding_mode)
        for extent, (low, high) in zip(problem.input, problem.padding, strict=True)
    ]
