"""Adding up what lands on each element of an image: padding that is folded back, and patches.

A thread has an element of the image, and takes in one order what another tensor holds of it. Each place there is a sum
of one number for the channel and one for each axis, and a table lists those numbers: for d, h and w where each
element's list begins and the last one ends, then the lists.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core.algorithm import Epilogue
from ..core.problem import Axes
from ._device import (
    block_x,
    function,
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
from ._kernel import Body, kernels
from ._queue import Table

THREADS = 256


class Image(NamedTuple):
    """Extents of the image: ``outer`` channels in front of the axes, ``inner`` behind them."""

    outer: int
    inner: int
    depth: int
    height: int
    width: int
    channel: int  # elements of the other tensor from one channel to the next
    blocks: int  # of the grid for one image

    @classmethod
    def of(cls, channels: int, extents: Axes, layout: str, channel: int) -> Image:
        """With a thread for each element."""
        outer, inner = (channels, 1) if layout == "channels_first" else (1, channels)
        return cls(outer, inner, *extents, channel, -(-channels * math.prod(extents) // THREADS))


def table_of(extents: tuple[int, ...], elements: list[NDArray[Any]], numbers: list[NDArray[Any]]) -> Table:
    """The table of an image of these extents.

    elements, numbers: for each axis, which element what lies there belongs to, negative for none, and its number.
    """
    begins, lists = [], []
    position = sum(extent + 1 for extent in extents)
    for extent, found, each in zip(extents, elements, numbers, strict=True):
        order = np.argsort(found, kind="stable")
        order = order[found[order] >= 0]
        begins.append(position + np.searchsorted(found[order], np.arange(extent + 1)))
        lists.append(each[order])
        position += order.size
    return Table(np.concatenate([*begins, *lists]).astype(np.int32))


@function
def place_in(number, inner, depth, height, width):
    """Channels in front, places along d, h and w, and piece behind, of an element's number in an image."""
    i, rest = remainder(number, inner), quotient(number, inner)
    w, rest = remainder(rest, width), quotient(rest, width)
    h, rest = remainder(rest, height), quotient(rest, height)
    return quotient(rest, depth), remainder(rest, depth), h, w, i


@function
def lists_of(n, d, h, w):
    """Where a table has the beginnings of an element's lists; n: `Image`, or others with its extents."""
    return d, int32(n.depth + 1 + h), int32(n.depth + n.height + 2 + w)


@kernels
def add_places(dtype: str, epilogue: Epilogue, normalized: bool) -> Body:
    """A thread adds up one element, and divides it by the number of its places if `normalized`."""
    end, real = finish(epilogue), real_of(dtype)

    def body(
        other,  # read
        x,  # images, written
        residual,  # like x, read where the epilogue says so
        bias,  # (channels,), read where there is one
        places,  # of `table_of`
        n,  # Image
        has_bias,
        x_image,  # int64: elements from one image of x to the next
        other_image,  # int64: likewise of the other tensor
    ):
        image = quotient(block_x(), n.blocks)
        at = int32((block_x() - image * n.blocks) * THREADS + thread())
        outer, d, h, w, i = place_in(at, n.inner, n.depth, n.height, n.width)
        if outer < n.outer:
            elements = shifted(other, int64(image) * other_image)
            channel = int32(outer + i)
            d, h, w = lists_of(n, d, h, w)
            total = real(0)
            for each_d in range(get(places, d), get(places, int32(d + 1))):
                slice_ = int32(channel * n.channel + get(places, int32(each_d)))
                for each_h in range(get(places, h), get(places, int32(h + 1))):
                    row = int32(slice_ + get(places, int32(each_h)))
                    for each_w in range(get(places, w), get(places, int32(w + 1))):
                        total += get(elements, int32(row + get(places, int32(each_w))))
            if normalized:
                count_d = int32(get(places, int32(d + 1)) - get(places, d))
                count_h = int32(get(places, int32(h + 1)) - get(places, h))
                count_w = int32(get(places, int32(w + 1)) - get(places, w))
                total /= real(max(int32(count_d * count_h * count_w), int32(1)))
            offset = int64(image) * x_image
            put(shifted(x, offset), at, end(total, channel, at, bias, has_bias, shifted(residual, offset)))

    return Body(body, (*[pointer(dtype)] * 4, pointer("int32"), record(Image), int32, int64, int64), THREADS)
