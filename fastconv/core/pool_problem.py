"""The pooling problem: which elements of the input each window holds, and nothing about how they are pooled.

Along each axis, output p sees the elements ``first[p] + r * dilation`` for r < ``count[p]``; places in the padding are
left out, and counted where an average counts them. As in `fastconv.core.problem` there are always three spatial axes,
those of lower rank with extent 1 in front, and this is the only place where the parameters are validated.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import RejectedError
from .parameters import (
    Extents,
    Padding,
    as_integer,
    as_pads,
    as_shape,
    elements_of,
    joined,
    joined_shape,
    lifted,
    numpy_type,
    per_axis,
    split_shape,
)
from .problem import DTYPE_CODES

Integers = NDArray[np.int64]
# x, indices or None, y and the most threads to use: contiguous arrays in a problem's shapes and type. The first is read
# and the last written.
PoolRun = Callable[[Any, Any, Any, int], None]


class PoolOp(enum.Enum):
    """What is computed: of x, or with gives_x, of y."""

    __hash__ = object.__hash__  # that of `Enum` is a Python function

    MAX = "max"
    MAX_WITH_INDICES = "max with indices"
    MEAN = "mean"
    MEAN_GRADIENT = "gradient of the mean"
    MAX_GRADIENT = "gradient of the max"
    ADD_AT = "add at indices"
    PUT_AT = "put at indices"
    TAKE_AT = "take at indices"

    @property
    def has_indices(self) -> bool:
        """Whether a tensor of indices takes part."""
        return self not in (PoolOp.MAX, PoolOp.MEAN, PoolOp.MEAN_GRADIENT)

    @property
    def gives_x(self) -> bool:
        """Whether the result has the extents of the input of the pooling."""
        return self in (PoolOp.MEAN_GRADIENT, PoolOp.MAX_GRADIENT, PoolOp.ADD_AT, PoolOp.PUT_AT)

    @property
    def argument(self) -> str:
        """What the caller calls the tensor that is read."""
        gradients = (PoolOp.MEAN_GRADIENT, PoolOp.MAX_GRADIENT, PoolOp.ADD_AT, PoolOp.TAKE_AT)
        return "grad_output" if self in gradients else "x"


@dataclasses.dataclass(frozen=True)
class PoolAxis:
    """The windows along one axis.

    Attributes
    ----------
    input, output
        Extents of x and y.
    size, stride, dilation, low, high
        Of windows that follow each other evenly, as given: size 0 where they are adaptive, from
        floor(p * input / output) to ceil((p + 1) * input / output).
    counts_padding
        Whether an average counts the padding.
    divisor
        What an average is divided by along this axis instead of a count, or None.
    """

    input: int
    output: int
    size: int = 0
    stride: int = 1
    dilation: int = 1
    low: int = 0
    high: int = 0
    counts_padding: bool = False
    divisor: int | None = None

    @property
    def is_adaptive(self) -> bool:
        """Whether the windows divide the axis among them."""
        return self.size == 0

    @cached_property
    def first(self) -> Integers:
        """First element of each window that is not in the padding."""
        p = np.arange(self.output, dtype=np.int64)
        if self.is_adaptive:
            return p * self.input // self.output
        start = p * self.stride - self.low
        return np.where(start < 0, start + -(start // self.dilation) * self.dilation, start)

    @cached_property
    def count(self) -> Integers:
        """Elements of each window that are not in the padding."""
        p = np.arange(self.output, dtype=np.int64)
        if self.is_adaptive:
            return -(-(p + 1) * self.input // self.output) - self.first
        skipped = (self.first - p * self.stride + self.low) // self.dilation
        inside = -((self.first - self.input) // self.dilation)
        found: Integers = np.clip(np.minimum(self.size - skipped, inside), 0, None)
        return found

    @cached_property
    def divisors(self) -> Integers:
        """What the sum of each window is divided by, at least 1."""
        if self.divisor is not None:
            return np.full(self.output, self.divisor, np.int64)
        if not self.counts_padding or self.is_adaptive:
            return np.maximum(self.count, 1)
        left = self.low + self.input + self.high - np.arange(self.output, dtype=np.int64) * self.stride
        return np.clip(-(-left // self.dilation), 1, self.size)


Axes = tuple[PoolAxis, PoolAxis, PoolAxis]


@dataclasses.dataclass(frozen=True)
class PoolProblem:
    """Shapes and type of one pooling; hashable.

    Attributes
    ----------
    N, C
        Batch and channels.
    axes
        The windows along D, H and W.
    rank
        Spatial axes that the caller sees: 1, 2 or 3.
    dtype
        NumPy name of the type in which it is computed.
    layout
        "channels_first", (N, C, ...), or "channels_last", (N, ..., C), for x and y.
    """

    N: int
    C: int
    axes: Axes
    rank: int
    dtype: str
    layout: str = "channels_first"

    @cached_property
    def x_shape(self) -> tuple[int, ...]:
        """Shape of x in the problem's layout."""
        return self._tensor_shape([axis.input for axis in self.axes])

    @cached_property
    def y_shape(self) -> tuple[int, ...]:
        """Shape of y and of the indices in the problem's layout."""
        return self._tensor_shape([axis.output for axis in self.axes])

    def _tensor_shape(self, extents: Sequence[int]) -> tuple[int, ...]:
        return joined_shape((self.N,), self.C, extents[3 - self.rank :], self.layout)

    @property
    def plane(self) -> int:
        """Elements of one channel of x: indices are below it."""
        return math.prod(axis.input for axis in self.axes)

    @property
    def window(self) -> int:
        """Elements of a window that hangs over no end."""
        return math.prod(axis.size for axis in self.axes)

    @property
    def taps(self) -> int:
        """Elements of the largest window."""
        return math.prod(int(axis.count.max(initial=0)) for axis in self.axes)

    @property
    def bytes(self) -> int:
        """Bytes of x and y together."""
        return (math.prod(self.x_shape) + math.prod(self.y_shape)) * numpy_type(self.dtype).itemsize

    def replace(self, **changes: Any) -> PoolProblem:
        """The same problem with some attributes changed."""
        return dataclasses.replace(self, **changes)

    def __str__(self) -> str:
        lead = 3 - self.rank
        inputs, outputs = ([getattr(axis, name) for axis in self.axes[lead:]] for name in ("input", "output"))
        return f"x={joined((self.N, self.C, *inputs))} y={joined(outputs)} {DTYPE_CODES[self.dtype]}"

    # ---- making one

    @classmethod
    def from_windows(
        cls,
        x_shape: Sequence[int],
        rank: int,
        kernel_size: Extents,
        stride: Extents | None = None,
        padding: Padding = 0,
        dilation: Extents = 1,
        ceil_mode: bool | str = False,
        *,
        count_include_pad: bool = False,
        divisor_override: int | None = None,
        layout: str = "channels_first",
        dtype: str = "float32",
    ) -> PoolProblem:
        """Windows of one size, `stride` apart (by default their size), over an input of shape (N, C, ...) or (C, ...).

        Raises
        ------
        RejectedError
            Inside `reporting`, a ValueError or TypeError that names the argument and the problem.
        """
        N, C, extents = _input(x_shape, rank, layout)
        sizes = per_axis("kernel_size", kernel_size, rank, 1)
        strides = sizes if stride is None else per_axis("stride", stride, rank, 1)
        dilations = per_axis("dilation", dilation, rank, 1)
        pads = as_pads(padding, extents, sizes, strides, dilations)
        mode = _ceil_mode(ceil_mode)
        divisor = None if divisor_override is None else as_integer("divisor_override", divisor_override, 1)
        axes = tuple(
            PoolAxis(
                input=n,
                output=_output(n, low, high, d * (k - 1) + 1, s, mode),
                size=k,
                stride=s,
                dilation=d,
                low=low,
                high=high,
                counts_padding=bool(count_include_pad),
                divisor=None if divisor is None else 1,
            )
            for n, k, s, d, (low, high) in zip(extents, sizes, strides, dilations, pads, strict=True)
        )
        if min(axis.output for axis in axes) < 1:
            reaches = tuple(d * (k - 1) + 1 for d, k in zip(dilations, sizes, strict=True))
            padded = tuple(axis.low + axis.input + axis.high for axis in axes)
            raise RejectedError(
                "kernel_size", kernel_size, f"the dilated window {reaches} must not exceed the padded input {padded}"
            )
        if divisor is not None:
            axes = (*axes[:-1], dataclasses.replace(axes[-1], divisor=divisor))
        return cls(N, C, lifted(axes, PoolAxis(1, 1, 1)), rank, dtype, layout)

    @classmethod
    def adaptive(
        cls,
        x_shape: Sequence[int],
        rank: int,
        output_size: Any,
        *,
        layout: str = "channels_first",
        dtype: str = "float32",
    ) -> PoolProblem:
        """So many windows along each axis, None for as many as elements, that divide the input among them."""
        N, C, extents = _input(x_shape, rank, layout)
        sizes = elements_of(output_size)
        if sizes is None:
            sizes = (output_size,)
        if len(sizes) not in (1, rank):
            allowed = f"must be an integer or None, or one for each of the {rank} axes"
            raise RejectedError("output_size", output_size, allowed)
        outputs = [
            extent if size is None else as_integer("output_size", size, 1)
            for extent, size in zip(extents, sizes * (rank // len(sizes)), strict=True)
        ]
        axes = tuple(map(PoolAxis, extents, outputs))
        return cls(N, C, lifted(axes, PoolAxis(1, 1)), rank, dtype, layout)

    @staticmethod
    def unpooled(
        x_shape: Sequence[int],
        rank: int,
        kernel_size: Extents,
        stride: Extents | None,
        padding: Any,
        output_size: Any,
        *,
        layout: str,
    ) -> tuple[int, ...]:
        """Extents of what windows of one size have pooled to an input of this shape: `output_size`, or the least."""
        _, _, extents = _input(x_shape, rank, layout)
        sizes = per_axis("kernel_size", kernel_size, rank, 1)
        strides = sizes if stride is None else per_axis("stride", stride, rank, 1)
        if isinstance(padding, str):
            raise RejectedError("padding", padding, "must be integers or (low, high) pairs")
        pads = as_pads(padding, extents, sizes, strides, (1,) * rank)
        usual = [(n - 1) * s - sum(pad) + k for n, s, k, pad in zip(extents, strides, sizes, pads, strict=True)]
        if output_size is None:
            found = tuple(usual)
        else:
            given = elements_of(output_size) or (output_size,)
            lead = len(given) - rank
            whole = given[lead - 1 : -1] if layout == "channels_last" and lead else given[max(lead, 0) :]
            if lead not in (0, 1, 2):
                raise RejectedError("output_size", output_size, f"must be {rank} extents, or a shape")
            found = per_axis("output_size", whole, rank, 1)
            if any(abs(one - least) >= s for one, least, s in zip(found, usual, strides, strict=True)):
                raise RejectedError(
                    "output_size", output_size, f"must differ from {tuple(usual)} by less than stride={strides}"
                )
        if min(found) < 1:
            raise RejectedError("padding", padding, f"leaves nothing of the output, extents {found}")
        return found

    @classmethod
    def from_extents(
        cls, y_shape: Sequence[int], rank: int, extents: Sequence[int], *, layout: str, dtype: str
    ) -> PoolProblem:
        """Indices into planes of these extents, whatever the windows were that gave them."""
        N, C, outputs = _input(y_shape, rank, layout)
        axes = tuple(map(PoolAxis, extents, outputs))
        return cls(N, C, lifted(axes, PoolAxis(1, 1)), rank, dtype, layout)


def _input(x_shape: Sequence[int], rank: int, layout: str) -> tuple[int, int, tuple[int, ...]]:
    """(batch, channels, spatial extents) of an input that can be pooled."""
    shape = as_shape("x", x_shape)
    N, C, extents = split_shape("x", shape, rank, layout)
    if min(extents) < 1:
        raise RejectedError("x.shape", shape, "every spatial extent must be at least 1")
    return N, C, extents


def _ceil_mode(value: Any) -> bool | str:
    if isinstance(value, (bool, np.bool_)) or (isinstance(value, str) and value == "all"):
        return value if isinstance(value, str) else bool(value)
    raise RejectedError("ceil_mode", value, 'must be False, True or "all"')


def _output(extent: int, low: int, high: int, reach: int, stride: int, ceil_mode: bool | str) -> int:
    """Windows along one axis.

    floor((input + pads - dilation * (size - 1) - 1) / stride) + 1, with `ceil_mode` the ceiling: then the last
    window may hang over the end. With True, windows that would start in the padding at the end are left out.
    """
    span = low + extent + high - reach
    if not ceil_mode:
        return span // stride + 1
    windows = -(-span // stride) + 1
    return windows if ceil_mode == "all" else min(windows, -(-(low + extent) // stride))
