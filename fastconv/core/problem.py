"""The convolution problem: everything about shapes and types, nothing about how it is computed.

One trilinear form in the input x, the filter w and the output y::

    form(x, w, y) = sum over n,g,k,c,p,q,r,s of y[n,k,p,q] * w[k,c,r,s] * x[n,c,p*stride+r*dilation-pad,...]

Fixing two of the tensors leaves three operations (`Op`). A problem always has three spatial axes; those of
lower rank have extent 1 in front. `ConvProblem.output` is the only formula for an output extent, and the constructors
are the only place where the parameters, read one by one in `fastconv.core.parameters`, are validated together.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from .boundary import PADDING_MODES, folds
from .errors import RejectedError
from .parameters import (
    Extents,
    Padding,
    as_integer,
    as_pad_value,
    as_pads,
    as_shape,
    integers_of,
    joined,
    joined_shape,
    lifted,
    merged,
    number_of,
    numpy_type,
    one_of,
    padding_of,
    per_axis,
    rank_of_weight,
    split_shape,
)

Axes = tuple[int, int, int]
Pads = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

# Each type and the type in which it is computed. Integers are computed modulo 2**32 or 2**64, which is exact
# modulo the width of the result.
COMPUTE_DTYPES = {
    "float16": "float32",
    "float32": "float32",
    "float64": "float64",
    "complex64": "complex64",
    "complex128": "complex128",
    **dict.fromkeys(("int8", "int16", "int32", "uint8", "uint16", "uint32"), "int32"),
    **dict.fromkeys(("int64", "uint64"), "int64"),
}
DTYPE_CODES = {name: f"{np.dtype(name).kind}{np.dtype(name).itemsize * 8}" for name in COMPUTE_DTYPES} | {
    # On CUDA devices only; tf32 is float32 whose products may be rounded to TF32.
    "bfloat16": "bf16",
    "tf32": "tf32",
}


class Op(enum.Enum):
    """Which tensor is computed from the other two."""

    __hash__ = object.__hash__  # that of `Enum` is a Python function

    FORWARD = "forward"
    GRAD_INPUT = "grad_input"
    GRAD_WEIGHT = "grad_weight"


@dataclasses.dataclass(frozen=True)
class ConvProblem:
    """Shapes and types of one convolution; hashable, and the key of every plan.

    Attributes
    ----------
    N, C, K
        Batch, input channels, output channels.
    input, filter
        Extents (D, H, W) of x and (T, R, S) of the filter.
    stride, dilation
        Per axis, at least 1.
    padding
        (low, high) per axis, in elements.
    groups
        C and K are divided into this many independent convolutions.
    rank
        Spatial axes that the caller sees: 1, 2 or 3.
    dtype
        NumPy name of the type of all three tensors.
    padding_mode, pad_value
        What stands in the padding; the value counts for "constant" only.
    layout
        "channels_first", (N, C, ...), or "channels_last", (N, ..., C), for x and y.
    """

    N: int
    C: int
    K: int
    input: Axes
    filter: Axes
    stride: Axes
    dilation: Axes
    padding: Pads
    groups: int
    rank: int
    dtype: str
    padding_mode: str = "zeros"
    pad_value: complex = 0
    layout: str = "channels_first"

    # ---- shapes

    @cached_property
    def output(self) -> Axes:
        """Extents (Z, P, Q) of y: floor((input + pads - dilation * (filter - 1) - 1) / stride) + 1."""
        return axes(
            (padded - reach) // stride + 1
            for padded, reach, stride in zip(self.padded, self.reach, self.stride, strict=True)
        )

    @cached_property
    def padded(self) -> Axes:
        """Extents of the padded input."""
        return axes(extent + low + high for extent, (low, high) in zip(self.input, self.padding, strict=True))

    @cached_property
    def reach(self) -> Axes:
        """Extents of the dilated filter: dilation * (filter - 1) + 1."""
        return axes(d * (f - 1) + 1 for d, f in zip(self.dilation, self.filter, strict=True))

    @cached_property
    def x_shape(self) -> tuple[int, ...]:
        """Shape of x in the problem's layout."""
        return self._tensor_shape(self.C, self.input)

    @cached_property
    def y_shape(self) -> tuple[int, ...]:
        """Shape of y in the problem's layout."""
        return self._tensor_shape(self.K, self.output)

    @cached_property
    def w_shape(self) -> tuple[int, ...]:
        """Shape of w, (K, C / groups, ...) in either layout."""
        return (self.K, self.C // self.groups, *self.filter[3 - self.rank :])

    def _tensor_shape(self, channels: int, extents: Axes) -> tuple[int, ...]:
        return joined_shape((self.N,), channels, extents[3 - self.rank :], self.layout)

    def result_shape(self, op: Op) -> tuple[int, ...]:
        """Shape of the tensor that `op` computes."""
        return {Op.FORWARD: self.y_shape, Op.GRAD_INPUT: self.x_shape, Op.GRAD_WEIGHT: self.w_shape}[op]

    # ---- sizes

    @property
    def taps(self) -> int:
        """Filter elements of one channel, T * R * S."""
        return math.prod(self.filter)

    @property
    def pixels(self) -> int:
        """Output elements of one channel of one image, Z * P * Q."""
        return math.prod(self.output)

    @property
    def multiplications(self) -> int:
        """Products in the form, the same for all three operations."""
        return self.N * self.K * self.pixels * (self.C // self.groups) * self.taps

    @property
    def flops(self) -> int:
        """Real operations of the direct method: 2 for each product, 8 for a complex one."""
        return self.multiplications * 2 * self.real_products

    @property
    def real_products(self) -> int:
        """Real products in one product of the type."""
        return 4 if numpy_type(self.dtype).kind == "c" else 1

    @property
    def real_bytes(self) -> int:
        """Bytes of one real number of the type."""
        kind = numpy_type(self.dtype)
        return kind.itemsize // 2 if kind.kind == "c" else kind.itemsize

    @property
    def is_exact(self) -> bool:
        """Whether arithmetic in the type does not round."""
        return numpy_type(self.dtype).kind in "iu"

    def terms(self, op: Op) -> int:
        """Upper bound of the number of products in one element of the result."""
        if op is Op.GRAD_WEIGHT:
            return self.N * self.pixels
        if op is Op.FORWARD:
            return self.C // self.groups * self.taps
        places = 1
        if folds(self.padding_mode):
            places = math.prod(-(-whole // part) + 1 for whole, part in zip(self.padded, self.input, strict=True))
        return self.K // self.groups * self.taps * places

    @property
    def bytes(self) -> int:
        """Bytes of x, w and y together."""
        elements = math.prod(self.x_shape) + math.prod(self.w_shape) + math.prod(self.y_shape)
        return elements * numpy_type(self.dtype).itemsize

    # ---- variants

    @cached_property
    def computed(self) -> ConvProblem:
        """The same problem in the type in which it is computed."""
        computed = COMPUTE_DTYPES.get(self.dtype, self.dtype)
        return self if computed == self.dtype else self.replace(dtype=computed)

    def replace(self, **changes: Any) -> ConvProblem:
        """The same problem with some attributes changed."""
        return dataclasses.replace(self, **changes)

    # ---- making one

    @classmethod
    def from_shapes(
        cls,
        x_shape: Sequence[int],
        weight_shape: Sequence[int],
        stride: Extents = 1,
        padding: Padding = 0,
        dilation: Extents = 1,
        groups: int = 1,
        *,
        padding_mode: str = "zeros",
        pad_value: complex = 0,
        layout: str = "channels_first",
        dtype: str = "float32",
    ) -> ConvProblem:
        """Validate the parameters of a convolution.

        Parameters
        ----------
        x_shape
            (N, C, ...) or, with layout="channels_last", (N, ..., C); the batch axis may be missing.
        weight_shape
            (K, C / groups, ...).
        stride, dilation
            An integer, or one for each axis.
        padding
            An integer, one for each axis, a pair (low, high) for each axis, or "valid", "same" (the odd
            element after), "same_lower" (before), "full", "causal" (1-D only).
        dtype
            NumPy name of a supported type.

        Raises
        ------
        RejectedError
            Inside `reporting`, a ValueError or TypeError that names the argument and the problem.
        """
        x_shape, weight_shape = as_shape("x", x_shape), as_shape("weight", weight_shape)
        rank = rank_of_weight(weight_shape)
        N, C, extents = split_shape("x", x_shape, rank, layout)
        K, channels = weight_shape[0], weight_shape[1]
        groups = as_integer("groups", groups, 1)
        if C % groups or K % groups:
            raise RejectedError("groups", groups, f"must divide the {C} input and the {K} output channels")
        if channels * groups != C:
            raise RejectedError("weight.shape", weight_shape, f"axis 1 must be channels / groups = {C} / {groups}")
        filter_extents = tuple(weight_shape[2:])
        strides = per_axis("stride", stride, rank, 1)
        dilations = per_axis("dilation", dilation, rank, 1)
        problem = cls(
            N=N,
            C=C,
            K=K,
            input=lifted(extents, 1),
            filter=lifted(filter_extents, 1),
            stride=lifted(strides, 1),
            dilation=lifted(dilations, 1),
            padding=lifted(as_pads(padding, extents, filter_extents, strides, dilations), (0, 0)),
            groups=groups,
            rank=rank,
            dtype=dtype,
            padding_mode=one_of("padding_mode", padding_mode, PADDING_MODES),
            pad_value=as_pad_value(pad_value, padding_mode, dtype),
            layout=layout,
        )
        return problem._checked()

    @classmethod
    def from_transposed(
        cls,
        shape: Sequence[int],
        weight_shape: Sequence[int],
        stride: Extents = 1,
        padding: Padding = 0,
        output_padding: Extents = 0,
        groups: int = 1,
        dilation: Extents = 1,
        *,
        layout: str = "channels_first",
        dtype: str = "float32",
    ) -> ConvProblem:
        """The convolution whose GRAD_INPUT is the transposed convolution of an input of this shape.

        The input of the transposed convolution is y, (N, C, ...), the weight (C, K / groups, ...) and the
        result x, (N, K, ...), with extents
        (input - 1) * stride - pads + dilation * (filter - 1) + output_padding + 1.
        """
        shape, weight_shape = as_shape("x", shape), as_shape("weight", weight_shape)
        rank = rank_of_weight(weight_shape)
        N, channels, extents = split_shape("x", shape, rank, layout)
        if min(channels, *extents) < 1:
            raise RejectedError("x.shape", shape, "channels and every spatial extent must be at least 1")
        if weight_shape[1] < 1:
            raise RejectedError("weight.shape", weight_shape, "needs at least one output channel")
        groups = as_integer("groups", groups, 1)
        if channels % groups:
            raise RejectedError("groups", groups, f"must divide the {channels} input channels")
        if weight_shape[0] != channels:
            raise RejectedError("weight.shape", weight_shape, f"axis 0 must be the {channels} input channels")
        strides = per_axis("stride", stride, rank, 1)
        dilations = per_axis("dilation", dilation, rank, 1)
        extra = per_axis("output_padding", output_padding, rank, 0)
        if any(e >= s for e, s in zip(extra, strides, strict=True)):
            raise RejectedError("output_padding", output_padding, f"must be less than stride={strides}")
        if isinstance(padding, str) and padding != "valid":
            raise RejectedError("padding", padding, 'must be "valid", integers or (low, high) pairs')
        filter_extents = tuple(weight_shape[2:])
        pads = as_pads(padding, extents, filter_extents, strides, dilations)
        result = tuple(
            (i - 1) * s - sum(p) + d * (f - 1) + e + 1
            for i, s, p, d, f, e in zip(extents, strides, pads, dilations, filter_extents, extra, strict=True)
        )
        if min(result) < 1:
            raise RejectedError("padding", padding, f"leaves nothing of the output, extents {result}")
        x_shape = joined_shape((N,), weight_shape[1] * groups, result, layout)
        return cls.from_shapes(x_shape, weight_shape, strides, pads, dilations, groups, layout=layout, dtype=dtype)

    def _checked(self) -> ConvProblem:
        """Refuse what no algorithm can mean."""
        if self.K < 1:
            raise RejectedError("weight.shape", self.w_shape, "needs at least one output channel")
        if min(self.filter) < 1:
            raise RejectedError("weight.shape", self.w_shape, "every filter extent must be at least 1")
        if min(self.input) < 1:
            raise RejectedError("x.shape", self.x_shape, "every spatial extent must be at least 1")
        if min(self.output) < 1:
            raise RejectedError(
                "weight.shape",
                self.w_shape,
                f"the dilated filter {self.reach[3 - self.rank :]} must not exceed "
                f"the padded input {self.padded[3 - self.rank :]}",
            )
        return self

    # ---- the text form

    def __str__(self) -> str:
        """The problem line, `x=1x64x56x56 w=64x64x3x3 s=1 p=1 d=1 g=1 f32`; x is written N, C, spatial."""
        lead = 3 - self.rank
        words = [
            f"x={joined((self.N, self.C, *self.input[lead:]))}",
            f"w={joined(self.w_shape)}",
            f"s={merged(self.stride[lead:])}",
            f"p={merged([str(lo) if lo == hi else f'{lo}:{hi}' for lo, hi in self.padding[lead:]])}",
            f"d={merged(self.dilation[lead:])}",
            f"g={self.groups}",
            DTYPE_CODES[self.dtype],
        ]
        words += [
            f"{key}={value}"
            for key, value, usual in (
                ("mode", self.padding_mode, "zeros"),
                ("value", self.pad_value, 0),
                ("layout", self.layout, "channels_first"),
            )
            if value != usual
        ]
        return " ".join(words)

    @classmethod
    def parse(cls, line: str) -> ConvProblem:
        """Read a problem line back; s, p, d, g and the type may be missing.

        Raises
        ------
        ValueError
            If the line cannot be read or the problem is not valid.
        """
        pairs = [word.partition("=") for word in line.split()]
        words = {key if equals else "dtype": value if equals else key for key, equals, value in pairs}
        known = {"x", "w", "s", "p", "d", "g", "dtype", "mode", "value", "layout"}
        if not {"x", "w"} <= words.keys() <= known or len(words) != len(pairs):
            raise ValueError(f"problem line {line!r}: allowed is {_EXAMPLE_LINE!r}, then mode=, value=, layout=")
        codes = {code: name for name, code in DTYPE_CODES.items()}
        try:
            x_shape, weight_shape = integers_of(words["x"]), integers_of(words["w"])
            if len(x_shape) != len(weight_shape):
                raise ValueError("x and w have different numbers of axes, which")
            parameters = (
                integers_of(words.get("s", "1")),
                padding_of(words.get("p", "0")),
                integers_of(words.get("d", "1")),
                int(words.get("g", "1")),
            )
            pad_value, dtype = number_of(words.get("value", "0")), codes[words.get("dtype", "f32")]
        except (KeyError, ValueError) as error:
            raise ValueError(f"problem line {line!r}: {error} is not understood") from None
        layout = words.get("layout", "channels_first")
        if layout == "channels_last":
            x_shape = (x_shape[0], *x_shape[2:], *x_shape[1:2])
        try:
            return cls.from_shapes(
                x_shape,
                weight_shape,
                *parameters,
                padding_mode=words.get("mode", "zeros"),
                pad_value=pad_value,
                layout=layout,
                dtype=dtype,
            )
        except RejectedError as error:
            raise error.completed(line) from None


def axes(values: Iterable[int]) -> Axes:
    """Three values as a tuple."""
    first, second, third = values
    return first, second, third


_EXAMPLE_LINE = "x=1x64x56x56 w=64x64x3x3 s=1 p=1 d=1 g=1 f32"
