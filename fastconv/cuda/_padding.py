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
    remainder,
    shifted,
    thread,
)
from ._epilogue import finish
from ._kernel import Body, Kernel, Launch, kernels
from ._queue import Queue, Table

THREADS = 256
_NONE = ((0, 0), (0, 0), (0, 0))


def is_zero_padded(problem: ConvProblem) -> bool:
    """Whether nothing but zeros stands in the padding."""
    is_zero = problem.padding_mode == "zeros" or (problem.padding_mode == "constant" and problem.pad_value == 0)
    return is_zero or problem.padding == _NONE


def padded_problem(problem: ConvProblem) -> ConvProblem:
    """The same convolution of the padded x."""
    return problem.replace(input=problem.padded, padding=_NONE, padding_mode="zeros", pad_value=0)


class ImageShape(NamedTuple):
    """Extents of an image and of the padded one: ``outer`` channels in front of the axes, ``inner`` behind them."""

    outer: int
    inner: int
    depth: int
    height: int
    width: int
    padded_depth: int
    padded_height: int
    padded_width: int
    blocks: int  # of the grid that one image takes
    channels: int
    has_bias: int

    @classmethod
    def of(cls, problem: ConvProblem, elements: int, has_bias: bool) -> ImageShape:
        """For a kernel with a thread for each of so many elements of an image."""
        outer, inner = (problem.C, 1) if problem.layout == "channels_first" else (1, problem.C)
        blocks = -(-elements // THREADS)
        return cls(outer, inner, *problem.input, *problem.padded, blocks, problem.C, int(has_bias))


@kernels
def pad_images(dtype: str) -> Body:
    """Copy images into padded ones."""

    def body(
        x,  # images, read
        padded,  # images, written
        sources,  # int32: the place in x of each padded place along d, then h, then w; negative outside
        shape,  # ImageShape
        outside,  # value that stands there
    ):
        image = quotient(block_x(), shape.blocks)
        at = int32((block_x() - image * shape.blocks) * THREADS + thread())
        size = int32(shape.outer * shape.inner * shape.padded_depth * shape.padded_height * shape.padded_width)
        if at < size:
            i = remainder(at, shape.inner)
            rest = quotient(at, shape.inner)
            w = remainder(rest, shape.padded_width)
            rest = quotient(rest, shape.padded_width)
            h = remainder(rest, shape.padded_height)
            rest = quotient(rest, shape.padded_height)
            d = remainder(rest, shape.padded_depth)
            outer = quotient(rest, shape.padded_depth)
            from_d = get(sources, d)
            from_h = get(sources, int32(shape.padded_depth + h))
            from_w = get(sources, int32(shape.padded_depth + shape.padded_height + w))
            value = outside
            if from_d >= 0 and from_h >= 0 and from_w >= 0:
                row = (outer * shape.depth + from_d) * shape.height + from_h
                source_size = int64(shape.outer * shape.inner) * int64(shape.depth * shape.height) * int64(shape.width)
                images = shifted(x, int64(image) * source_size)
                value = get(images, int32((row * shape.width + from_w) * shape.inner + i))
            put(shifted(padded, int64(image) * int64(size)), at, value)

    real = real_of(dtype)
    return Body(body, (pointer(dtype), pointer(dtype), pointer("int32"), record(ImageShape), real), THREADS)


@kernels
def fold_images(dtype: str, epilogue: Epilogue) -> Body:
    """Add up, for each element of an image, all of its places in the padded one."""
    end = finish(epilogue)
    real = real_of(dtype)

    def body(
        padded,  # images, read
        x,  # images, written
        residual,  # images, read where the epilogue says so
        bias,  # (channels,), read where there is one
        places,  # int32: for d, h and w where each place's list begins and the last one ends, then the lists
        shape,  # ImageShape
    ):
        image = quotient(block_x(), shape.blocks)
        at = int32((block_x() - image * shape.blocks) * THREADS + thread())
        size = int32(shape.outer * shape.inner * shape.depth * shape.height * shape.width)
        if at < size:
            i = remainder(at, shape.inner)
            rest = quotient(at, shape.inner)
            w = remainder(rest, shape.width)
            rest = quotient(rest, shape.width)
            h = int32(shape.depth + 1 + remainder(rest, shape.height))
            rest = quotient(rest, shape.height)
            d = remainder(rest, shape.depth)
            outer = quotient(rest, shape.depth)
            w = int32(shape.depth + shape.height + 2 + w)
            padded_size = int64(shape.outer * shape.inner * shape.padded_depth * shape.padded_height)
            images = shifted(padded, int64(image) * padded_size * int64(shape.padded_width))
            value = real(0)
            for each_d in range(get(places, d), get(places, int32(d + 1))):
                for each_h in range(get(places, h), get(places, int32(h + 1))):
                    for each_w in range(get(places, w), get(places, int32(w + 1))):
                        row = outer * shape.padded_depth + get(places, int32(each_d))
                        row = row * shape.padded_height + get(places, int32(each_h))
                        column = row * shape.padded_width + get(places, int32(each_w))
                        value += get(images, int32(column * shape.inner + i))
            channel = outer + i
            offset = int64(image) * int64(size)
            value = end(value, channel, at, bias, shape.has_bias, shifted(residual, offset))
            put(shifted(x, offset), at, value)

    pointers = (*[pointer(dtype)] * 4, pointer("int32"))
    return Body(body, (*pointers, record(ImageShape)), THREADS)


class Pad:
    """Copies x, padded."""

    def __init__(self, problem: ConvProblem) -> None:
        self._sources = Table(np.concatenate(sources_of(problem)).astype(np.int32))
        shape = ImageShape.of(problem, problem.C * math.prod(problem.padded), False)
        real = np.dtype(COMPUTED_AS[problem.dtype]).type
        self._launch = Launch(
            pad_images(problem.dtype), (problem.N * shape.blocks,), shape, real(problem.pad_value.real)
        )

    def __call__(self, queue: Queue, x: Any, padded: Any) -> None:
        """x: read; padded: written."""
        self._launch(queue, x, padded, self._sources.on(queue))


class Fold:
    """Adds a padded gradient up to that of x, and finishes it."""

    def __init__(self, problem: ConvProblem, epilogue: Epilogue) -> None:
        self._places = Table(_places(problem))
        self._kernel: Kernel = fold_images(problem.dtype, epilogue)
        self._launches = {}
        for has_bias in (False, True):
            shape = ImageShape.of(problem, problem.C * math.prod(problem.input), has_bias)
            self._launches[has_bias] = Launch(self._kernel, (problem.N * shape.blocks,), shape)

    def __call__(self, queue: Queue, padded: Any, x: Any, residual: Any, bias: Any | None) -> None:
        """padded: read; x: written; residual and bias: as in `fastconv.cuda._epilogue.finish`."""
        self._launches[bias is not None](
            queue, padded, x, residual, x if bias is None else bias, self._places.on(queue)
        )


def sources_of(problem: ConvProblem) -> list[Any]:
    """The place in x of each padded place along d, h and w; negative outside."""
    return [
        source_index(extent, low, high, problem.padding_mode)
        for extent, (low, high) in zip(problem.input, problem.padding, strict=True)
    ]


def _places(problem: ConvProblem) -> Any:
    """The table of `fold_images`."""
    begins, lists = [], []
    position = sum(extent + 1 for extent in problem.input)
    for extent, sources in zip(problem.input, sources_of(problem), strict=True):
        order = np.argsort(sources, kind="stable")
        order = order[sources[order] >= 0]
        begins.append(position + np.searchsorted(sources[order], np.arange(extent + 1)))
        lists.append(order)
        position += order.size
    return np.concatenate([*begins, *lists]).astype(np.int32)
