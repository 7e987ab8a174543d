"""The convolution problem: everything about shapes and types, nothing about how it is computed.

One trilinear form in the input x, the filter w and the output y::

    form(x, w, y) = sum over n,g,k,c,p,q,r,s of y[n,k,p,q] * w[k,c,r,s] * x[n,c,p*stride+r*dilation-pad,...]

Fixing two of the tensors leaves three operations (`Op`). A problem always has three spatial axes; those of
lower rank have extent 1 in front. This module is the only place where parameters are validated, and
`ConvProblem.output` is the only formula for an output extent.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import numbers
import operator
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from .boundary import PADDING_MODES, folds
from .errors import RejectedError, reporting

Axes = tuple[int, int, int]
Pads = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
Extents = int | Sequence[int]
Padding = int | str | Sequence[int] | Sequence[tuple[int, int]]
Value = TypeVar("Value")

LAYOUTS = ("channels_first", "channels_last")

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
DTYPE_CODES = {name: f"{np.dtype(name).kind}{np.dtype(name).itemsize * 8}" for name in COMPUTE_DTYPES}


class Op(enum.Enum):
    """Which tensor is computed from the other two."""

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
        return _axes(
            (padded - reach) // stride + 1
            for padded, reach, stride in zip(self.padded, self.reach, self.stride, strict=True)
        )

    @cached_property
    def padded(self) -> Axes:
        """Extents of the padded input."""
        return _axes(extent + low + high for extent, (low, high) in zip(self.input, self.padding, strict=True))

    @cached_property
    def reach(self) -> Axes:
        """Extents of the dilated filter: dilation * (filter - 1) + 1."""
        return _axes(d * (f - 1) + 1 for d, f in zip(self.dilation, self.filter, strict=True))

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
        spatial = extents[3 - self.rank :]
        if self.layout == "channels_first":
            return (self.N, channels, *spatial)
        return (self.N, *spatial, channels)

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
        return 4 if np.dtype(self.dtype).kind == "c" else 1

    @property
    def real_bytes(self) -> int:
        """Bytes of one real number of the type."""
        kind = np.dtype(self.dtype)
        return kind.itemsize // 2 if kind.kind == "c" else kind.itemsize

    @property
    def is_exact(self) -> bool:
        """Whether arithmetic in the type does not round."""
        return np.dtype(self.dtype).kind in "iu"

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
        return elements * np.dtype(self.dtype).itemsize

    # ---- variants

    @cached_property
    def computed(self) -> ConvProblem:
        """The same problem in the type in which it is computed."""
        return self if COMPUTE_DTYPES[self.dtype] == self.dtype else self.replace(dtype=COMPUTE_DTYPES[self.dtype])

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
        x_shape, weight_shape = _shape("x", x_shape), _shape("weight", weight_shape)
        rank = _rank(weight_shape)
        N, C, extents = _split(x_shape, rank, _one_of("layout", layout, LAYOUTS), "x")
        K, channels = weight_shape[0], weight_shape[1]
        groups = _integer("groups", groups, 1)
        if C % groups or K % groups:
            raise RejectedError("groups", groups, f"must divide the {C} input and the {K} output channels")
        if channels * groups != C:
            raise RejectedError("weight.shape", weight_shape, f"axis 1 must be channels / groups = {C} / {groups}")
        filter_extents = tuple(weight_shape[2:])
        strides = _per_axis("stride", stride, rank, 1)
        dilations = _per_axis("dilation", dilation, rank, 1)
        problem = cls(
            N=N,
            C=C,
            K=K,
            input=_lifted(extents, 1),
            filter=_lifted(filter_extents, 1),
            stride=_lifted(strides, 1),
            dilation=_lifted(dilations, 1),
            padding=_lifted(_pads(padding, extents, filter_extents, strides, dilations), (0, 0)),
            groups=groups,
            rank=rank,
            dtype=dtype,
            padding_mode=_one_of("padding_mode", padding_mode, PADDING_MODES),
            pad_value=_pad_value(pad_value, padding_mode, dtype),
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
        shape, weight_shape = _shape("x", shape), _shape("weight", weight_shape)
        rank = _rank(weight_shape)
        N, channels, extents = _split(shape, rank, _one_of("layout", layout, LAYOUTS), "x")
        if min(channels, *extents) < 1:
            raise RejectedError("x.shape", shape, "channels and every spatial extent must be at least 1")
        if weight_shape[1] < 1:
            raise RejectedError("weight.shape", weight_shape, "needs at least one output channel")
        groups = _integer("groups", groups, 1)
        if channels % groups:
            raise RejectedError("groups", groups, f"must divide the {channels} input channels")
        if weight_shape[0] != channels:
            raise RejectedError("weight.shape", weight_shape, f"axis 0 must be the {channels} input channels")
        strides = _per_axis("stride", stride, rank, 1)
        dilations = _per_axis("dilation", dilation, rank, 1)
        extra = _per_axis("output_padding", output_padding, rank, 0)
        if any(e >= s for e, s in zip(extra, strides, strict=True)):
            raise RejectedError("output_padding", output_padding, f"must be less than stride={strides}")
        if isinstance(padding, str) and padding != "valid":
            raise RejectedError("padding", padding, 'must be "valid", integers or (low, high) pairs')
        filter_extents = tuple(weight_shape[2:])
        pads = _pads(padding, extents, filter_extents, strides, dilations)
        result = tuple(
            (i - 1) * s - sum(p) + d * (f - 1) + e + 1
            for i, s, p, d, f, e in zip(extents, strides, pads, dilations, filter_extents, extra, strict=True)
        )
        if min(result) < 1:
            raise RejectedError("padding", padding, f"leaves nothing of the output, extents {result}")
        channels_out = weight_shape[1] * groups
        x_shape = (N, channels_out, *result) if layout == "channels_first" else (N, *result, channels_out)
        return cls.from_shapes(x_shape, weight_shape, strides, pads, dilations, groups, layout=layout, dtype=dtype)

    @classmethod
    def from_patches(
        cls,
        x_shape: Sequence[int],
        kernel_size: Extents,
        stride: Extents = 1,
        padding: Padding = 0,
        dilation: Extents = 1,
        *,
        padding_mode: str = "zeros",
        pad_value: complex = 0,
        layout: str = "channels_first",
        dtype: str = "float32",
    ) -> ConvProblem:
        """The convolution whose y is the patch matrix of x: K = C * taps, each filter with a single one in it.

        Its rank is the length of `kernel_size`; an integer stands for as many axes as x has, and for two where x may
        or may not have a batch.
        """
        x_shape = _shape("x", x_shape)
        rank = _length(kernel_size) or {2: 1, 5: 3}.get(len(x_shape), 2)
        filter_extents = _kernel_extents(kernel_size, rank)
        _, C, _ = _split(x_shape, rank, _one_of("layout", layout, LAYOUTS), "x")
        if C < 1:
            raise RejectedError("x.shape", x_shape, "needs at least one channel")
        try:
            return cls.from_shapes(
                x_shape,
                (C * math.prod(filter_extents), 1, *filter_extents),
                stride,
                padding,
                dilation,
                C,
                padding_mode=padding_mode,
                pad_value=pad_value,
                layout=layout,
                dtype=dtype,
            )
        except RejectedError as error:
            if error.argument != "weight.shape":
                raise
            raise RejectedError("kernel_size", kernel_size, error.allowed) from None

    @classmethod
    def from_folded(
        cls,
        shape: Sequence[int],
        output_size: Extents,
        kernel_size: Extents,
        stride: Extents = 1,
        padding: Padding = 0,
        dilation: Extents = 1,
        *,
        padding_mode: str = "zeros",
        layout: str = "channels_first",
        dtype: str = "float32",
    ) -> ConvProblem:
        """The convolution of `from_patches` whose y, with its pixels as one axis, has this shape.

        Its rank is the length of `output_size`, or of `kernel_size` where that is an integer, or two; the extents of x
        are `output_size`.
        """
        shape = _shape("x", shape)
        rank = _length(output_size) or _length(kernel_size) or 2
        filter_extents = _kernel_extents(kernel_size, rank)
        extents = _per_axis("output_size", output_size, rank, 1)
        if len(shape) not in (2, 3):
            raise RejectedError("x.shape", shape, "must have 3 axes, or 2 without the batch")
        (*batch, rows, pixels), taps = shape, math.prod(filter_extents)
        if _one_of("layout", layout, LAYOUTS) == "channels_last":
            rows, pixels = pixels, rows
        if rows < 1 or rows % taps:
            raise RejectedError("x.shape", shape, f"the axis of {rows} must be the channels times the {taps} taps")
        channels = (rows // taps,)
        problem = cls.from_patches(
            (*batch, *channels, *extents) if layout == "channels_first" else (*batch, *extents, *channels),
            filter_extents,
            stride,
            padding,
            dilation,
            padding_mode="zeros" if padding_mode == "constant" else padding_mode,
            layout=layout,
            dtype=dtype,
        )
        if problem.pixels != pixels:
            raise RejectedError("x.shape", shape, f"the axis of {pixels} must be the {problem.pixels} patches")
        return problem

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
            f"x={_joined((self.N, self.C, *self.input[lead:]))}",
            f"w={_joined(self.w_shape)}",
            f"s={_merged(self.stride[lead:])}",
            f"p={_merged([str(lo) if lo == hi else f'{lo}:{hi}' for lo, hi in self.padding[lead:]])}",
            f"d={_merged(self.dilation[lead:])}",
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
            x_shape, weight_shape = _split_integers(words["x"]), _split_integers(words["w"])
            if len(x_shape) != len(weight_shape):
                raise ValueError("x and w have different numbers of axes, which")
            parameters = (
                _split_integers(words.get("s", "1")),
                _split_padding(words.get("p", "0")),
                _split_integers(words.get("d", "1")),
                int(words.get("g", "1")),
            )
            pad_value, dtype = _number(words.get("value", "0")), codes[words.get("dtype", "f32")]
        except (KeyError, ValueError) as error:
            raise ValueError(f"problem line {line!r}: {error} is not understood") from None
        layout = words.get("layout", "channels_first")
        if layout == "channels_last":
            x_shape = (x_shape[0], *x_shape[2:], *x_shape[1:2])
        with reporting(line=line):
            return cls.from_shapes(
                x_shape,
                weight_shape,
                *parameters,
                padding_mode=words.get("mode", "zeros"),
                pad_value=pad_value,
                layout=layout,
                dtype=dtype,
            )


_EXAMPLE_LINE = "x=1x64x56x56 w=64x64x3x3 s=1 p=1 d=1 g=1 f32"


# ---- reading parameters


def _axes(values: Any) -> Axes:
    first, second, third = values
    return first, second, third


def _lifted(values: Sequence[Value], neutral: Value) -> tuple[Value, Value, Value]:
    """Per-axis values with the missing leading axes filled in."""
    first, second, third = [neutral] * (3 - len(values)) + list(values)
    return first, second, third


def _integer(argument: str, value: Any, least: int) -> int:
    allowed = f"must be an integer of at least {least}"
    if isinstance(value, (bool, np.bool_)):
        raise RejectedError(argument, value, allowed, TypeError)
    try:
        number = operator.index(value)
    except TypeError:
        raise RejectedError(argument, value, allowed, TypeError) from None
    if number < least:
        raise RejectedError(argument, value, allowed)
    return number


def _shape(argument: str, shape: Sequence[int]) -> tuple[int, ...]:
    """A shape as integers of at least 0."""
    try:
        extents = tuple(map(operator.index, shape))
    except TypeError:
        raise RejectedError(f"{argument}.shape", shape, "must be integers", TypeError) from None
    if extents and min(extents) < 0:
        raise RejectedError(f"{argument}.shape", extents, "must not be negative")
    return extents


def _rank(weight_shape: tuple[int, ...]) -> int:
    rank = len(weight_shape) - 2
    if rank not in (1, 2, 3):
        raise RejectedError("weight.shape", weight_shape, "must have 3, 4 or 5 axes: one, two or three of them spatial")
    return rank


def _one_of(argument: str, value: Any, allowed: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise RejectedError(argument, value, f"must be one of {', '.join(allowed)}")
    return value


def _per_axis(argument: str, value: Any, rank: int, least: int) -> tuple[int, ...]:
    """One integer for each axis, from one for all or one each."""
    if isinstance(value, (str, bytes)) or not hasattr(value, "__len__"):
        return (_integer(argument, value, least),) * rank
    if len(value) == 1:
        return (_integer(argument, value[0], least),) * rank
    if len(value) != rank:
        raise RejectedError(argument, value, f"must be one integer, or one for each of the {rank} axes")
    return tuple(_integer(argument, element, least) for element in value)


def _length(value: Any) -> int:
    """Elements of a sequence, and 0 for what is none."""
    return len(value) if hasattr(value, "__len__") and not isinstance(value, (str, bytes)) else 0


def _kernel_extents(kernel_size: Any, rank: int) -> tuple[int, ...]:
    if rank not in (1, 2, 3):
        raise RejectedError("kernel_size", kernel_size, "must be one integer, or one for each of 1, 2 or 3 axes")
    return _per_axis("kernel_size", kernel_size, rank, 1)


def _split(shape: Sequence[int], rank: int, layout: str, argument: str) -> tuple[int, int, tuple[int, ...]]:
    """(batch, channels, spatial extents) of a batched or unbatched shape."""
    if len(shape) not in (rank + 1, rank + 2):
        raise RejectedError(
            f"{argument}.shape", tuple(shape), f"must have {rank + 2} axes, or {rank + 1} without the batch"
        )
    batched = tuple(shape) if len(shape) == rank + 2 else (1, *shape)
    if layout == "channels_first":
        return batched[0], batched[1], batched[2:]
    return batched[0], batched[-1], batched[1:-1]


def _same(extent: int, reach: int, stride: int) -> int:
    """Padding, in all, with which the output extent is ceil(extent / stride)."""
    return max((-(-extent // stride) - 1) * stride + reach - extent, 0)


_NAMED_PADS: dict[str, Callable[[int, int, int], tuple[int, int]]] = {
    "valid": lambda extent, reach, stride: (0, 0),
    "same": lambda extent, reach, stride: (
        _same(extent, reach, stride) // 2,
        -(-_same(extent, reach, stride) // 2),
    ),
    "same_lower": lambda extent, reach, stride: (
        -(-_same(extent, reach, stride) // 2),
        _same(extent, reach, stride) // 2,
    ),
    "full": lambda extent, reach, stride: (reach - 1, reach - 1),
    "causal": lambda extent, reach, stride: (reach - 1, 0),
}


def _pads(
    padding: Any,
    extents: Sequence[int],
    filter_extents: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> tuple[tuple[int, int], ...]:
    """(low, high) for each axis, from any of the forms that `padding` takes."""
    rank = len(extents)
    if isinstance(padding, str):
        if padding not in _NAMED_PADS or (padding == "causal" and rank != 1):
            names = ", ".join(name for name in _NAMED_PADS if name != "causal" or rank == 1)
            raise RejectedError("padding", padding, f"must be integers or one of {names}")
        reaches = [d * (f - 1) + 1 for d, f in zip(dilations, filter_extents, strict=True)]
        return tuple(map(_NAMED_PADS[padding], extents, reaches, strides))
    if not hasattr(padding, "__len__"):
        return ((_integer("padding", padding, 0),) * 2,) * rank
    if len(padding) not in (1, rank):
        raise RejectedError(
            "padding",
            padding,
            f"must be one integer, or an integer or a (low, high) pair for each of the {rank} axes",
        )
    pairs = []
    for element in tuple(padding) * (rank if len(padding) == 1 else 1):
        pair = tuple(element) if hasattr(element, "__len__") else (element, element)
        if len(pair) != 2 or isinstance(element, str):
            raise RejectedError("padding", padding, "each axis takes one integer or a pair (low, high)")
        pairs.append((_integer("padding", pair[0], 0), _integer("padding", pair[1], 0)))
    return tuple(pairs)


def _pad_value(value: Any, padding_mode: str, dtype: str) -> complex:
    """The pad value as a Python number that the type can hold."""
    target, allowed = np.dtype(dtype), f"must be a number that {dtype} can hold"
    if not isinstance(value, numbers.Number) or isinstance(value, bool):
        raise RejectedError("pad_value", value, allowed, TypeError)
    number: complex = value.item() if isinstance(value, np.number) else value  # type: ignore[assignment]
    if padding_mode != "constant":
        if number == 0:
            return 0
        raise RejectedError("pad_value", value, 'needs padding_mode="constant"')
    try:
        with np.errstate(over="ignore"):
            held: complex = target.type(number).item()
    except (TypeError, ValueError, OverflowError):
        raise RejectedError("pad_value", value, allowed) from None
    if (target.kind in "iu" and held != number) or (np.isinf(held) and not np.isinf(number)):
        raise RejectedError("pad_value", value, allowed)
    # The one NaN of the math module is equal to itself as part of a key; a new one never is.
    return math.nan if isinstance(held, float) and math.isnan(held) else held


# ---- the text form


def _joined(values: Sequence[Any]) -> str:
    return "x".join(map(str, values))


def _merged(values: Sequence[Any]) -> str:
    """One value where all axes agree."""
    return str(values[0]) if len(set(values)) == 1 else _joined(values)


def _split_integers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("x"))


def _split_padding(text: str) -> Any:
    if text in _NAMED_PADS:
        return text
    pads = [tuple(int(part) for part in axis.split(":")) for axis in text.split("x")]
    if len(pads) == 1 and len(pads[0]) == 1:
        return pads[0][0]
    return [pad if len(pad) == 2 else pad * 2 for pad in pads]


def _number(text: str) -> complex:
    for kind in (int, float, complex):
        try:
            return kind(text)
        except ValueError:
            continue
    raise ValueError(f"value={text!r} is not a number")
