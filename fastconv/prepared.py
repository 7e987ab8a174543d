"""A convolution whose weight stays: what can be worked out before the call is worked out once."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Hashable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .core.arrays import Array, as_array
from .core.devices import common_device, with_precision
from .core.errors import RejectedError, problem_line, reporting
from .core.evaluate import Call, check_activation, check_algorithm, check_rtol, check_threads
from .core.parameters import Extents, Padding, joined_shape
from .core.problem import ConvProblem, Op
from .core.recent import keep
from .functional import bias_array, conv_call, dtypes_of, flipped

__all__ = ["Prepared", "prepare"]

# Kinds of x (shapes and types) that a prepared convolution keeps its work for.
MOST_KINDS = 64

# Parameters that do not tell one convolution from another.
_NO_WINDOW = ("num_threads", "device", "precision", "flip")


@reporting
def prepare(
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Extents = 1,
    padding: Padding = 0,
    dilation: Extents = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    pad_value: complex = 0,
    layout: str = "channels_first",
    activation: str | None = None,
    algorithm: str = "auto",
    rtol: float | None = None,
    num_threads: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    flip: bool = False,
) -> Prepared:
    """Fix all of a convolution but its data: ``prepare(weight, ...)(x)`` is ``conv{n}d(x, weight, ...)``, and faster.

    Parameters
    ----------
    weight : array of shape (K, C / groups, ...)
        With one, two or three spatial axes. It is copied: a later change of the caller's array has no effect.
    bias : array of shape (K,), optional
        Copied too.
    stride, padding, dilation, groups, padding_mode, pad_value, layout, activation, algorithm, rtol, num_threads
        As in `conv1d`, `conv2d` and `conv3d`.
    device, precision, flip
        As in `conv1d`, `conv2d` and `conv3d`.

    Returns
    -------
    Prepared
        To be called with x.

    Raises
    ------
    ValueError, TypeError
        For whatever is wrong without regard to x; the rest is found when it is called.

    Examples
    --------
    >>> smooth = fastconv.prepare([[[0.25, 0.5, 0.25]]], padding="same", padding_mode="replicate")
    >>> smooth([[4.0, 0, 8]])
    array([[3., 3., 6.]])
    """
    parameters = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "padding_mode": padding_mode,
        "pad_value": pad_value,
        "layout": layout,
        "activation": activation,
        "algorithm": algorithm,
        "rtol": rtol,
        "num_threads": num_threads,
        "device": device,
        "precision": precision,
        "flip": flip,
    }
    weight = as_array("weight", weight, device)
    if weight.ndim not in (3, 4, 5):
        raise RejectedError(
            "weight.shape", weight.shape, "must have 3, 4 or 5 axes: K, C / groups and the spatial ones"
        )
    return Prepared(weight, bias_array(bias, weight.shape[0], device), parameters)


class WeightForms:
    """A weight that stays, in the forms in which plans take it; each is made once.

    Parameters
    ----------
    weight
        Nobody may change it.
    num_threads
        Most threads to use, or None for all of Numba's.
    """

    def __init__(self, weight: Array, num_threads: int | None) -> None:
        self._weight, self._num_threads = weight, num_threads
        self._plain: dict[np.dtype[Any], Array] = {}
        self._kept: dict[Hashable, Array | None] = {}

    def of(self, call: Call) -> tuple[Array, Array | None]:
        """The weight as a call's plan takes it, and what the plan makes of it: None if nothing."""
        weight = self._plain.get(call.computed_dtype)
        if weight is None:
            weight = self._plain[call.computed_dtype] = call.plain(self._weight)
        if call.plan is None or call.plan.kept_weight is None:
            return weight, None
        key = (call.plan.algorithm, call.plan.kept_weight.key, call.computed_dtype)
        if key not in self._kept:
            self._kept[key] = call.kept_weight(weight, self._num_threads)
        return weight, self._kept[key]


class _Ready(NamedTuple):
    """What is kept for one kind of x: `kept` is what the plan made of the weight, None if nothing."""

    call: Call
    weight: Array
    constants: Array
    kept: Array | None


class Prepared:
    """A convolution that waits for its data; made by `prepare`.

    It may be called from several threads at once, and can be pickled and copied; a copy works out its plans anew.

    Attributes
    ----------
    weight, bias
        Its own copies, read-only, as they were given; bias may be None.
    """

    def __init__(self, weight: Array, bias: Array | None, parameters: dict[str, Any]) -> None:
        self.weight = _kept(weight)
        self.bias = None if bias is None else _kept(bias)
        self._parameters = copy.deepcopy(parameters)
        self._window = [value for name, value in self._parameters.items() if name not in _NO_WINDOW]
        self._num_threads, self._device = parameters["num_threads"], parameters["device"]
        self._precision = parameters["precision"]
        self._forms = WeightForms(flipped(self.weight, parameters["flip"]), parameters["num_threads"])
        self._ready: dict[tuple[Any, ...], _Ready] = {}
        _check_without_x(self.weight, self.bias, parameters)

    def __call__(self, x: ArrayLike, out: Array | None = None, *, add: ArrayLike | None = None) -> Array:
        """Convolve x.

        Parameters
        ----------
        x : array of shape (N, C, ...) or (C, ...)
            With layout="channels_last", (N, ..., C) or (..., C). Of any extents and batch.
        out, add
            As in `conv1d`, `conv2d` and `conv3d`.

        Returns
        -------
        array of shape (N, K, ...) or (N, ..., K), unbatched where x is
            Its type is what NumPy promotes x, weight, bias and `add` to.

        Raises
        ------
        ValueError, TypeError
            Naming the argument, what it was, what is allowed, and the problem.
        UnsupportedError
            If the named algorithm cannot serve, or none is as accurate as `rtol` says (a ValueError).
        """
        try:
            x = as_array("x", x, self._device)
            kind: tuple[Any, ...] = (x.shape, x.dtype)
            if add is not None:
                add = as_array("add", add, self._device)
                kind = (*kind, add.shape, add.dtype)
            call, weight, constants, kept = self._ready.get(kind) or self._make_ready(kind, x, add)
            if out is not None:
                call.check_out(out, (x, add))
            return call.run(x, weight, None, constants, add, out, self._num_threads, kept)
        except RejectedError as error:
            raise error.completed(self._line(x)) from None

    def _make_ready(self, kind: tuple[Any, ...], x: Array, add: Array | None) -> _Ready:
        *window, activation, algorithm, rtol = self._window
        parameters = (*window, algorithm, rtol, activation, None if add is None else add.shape)
        dtypes = dtypes_of(x, self.weight, self.bias, add, precision=self._precision)
        call = conv_call(Op.FORWARD, x.shape, self.weight.shape, dtypes, *parameters)
        weight, kept = self._forms.of(call)
        ready = _Ready(call, weight, call.constants(self.bias), kept)
        keep(self._ready, kind, ready, MOST_KINDS)
        return ready

    def _line(self, x: ArrayLike) -> str:
        p = self._parameters
        return problem_line(
            x=x, w=self.weight, s=p["stride"], p=p["padding"], d=p["dilation"], g=p["groups"], layout=p["layout"]
        )

    def __repr__(self) -> str:
        """The weight, the parameters that are not the usual ones, and a line for the plan of each kind of x seen."""
        usual = inspect.signature(prepare).parameters
        words = [f"weight={'x'.join(map(str, self.weight.shape))} {self.weight.dtype}"]
        words += [] if self.bias is None else [f"bias={self.bias.dtype}"]
        words += [
            f"{name}={value!r}" for name, value in self._parameters.items() if repr(value) != repr(usual[name].default)
        ]
        plans = [
            str(ready.call.plan or f"nothing to multiply in {ready.call.problem}")
            for ready in self._ready.copy().values()
        ]
        return "\n  ".join([f"prepare({', '.join(words)})", *plans])

    def __reduce__(self) -> tuple[Any, ...]:
        return Prepared, (self.weight, self.bias, self._parameters)


def _kept(array: Array) -> Array:
    """A contiguous copy that nobody changes; on a CUDA device, nobody else knows it."""
    if not isinstance(array, np.ndarray):
        on_cuda: Array = array.flipped(())
        return on_cuda
    copied = np.array(array, order="C")
    copied.flags.writeable = False
    return copied


def _check_without_x(weight: Array, bias: Array | None, parameters: dict[str, Any]) -> None:
    """Refuse what no x can be convolved with: tried on an x of fitting channels and of any size that it may take."""
    p, groups = parameters, parameters["groups"]
    channels = weight.shape[1] * (max(groups, 1) if isinstance(groups, (int, np.integer)) else 1)
    ConvProblem.from_shapes(
        joined_shape((), channels, (2**62,) * (weight.ndim - 2), p["layout"]),
        weight.shape,
        p["stride"],
        p["padding"],
        p["dilation"],
        groups,
        padding_mode=p["padding_mode"],
        pad_value=p["pad_value"],
        layout=p["layout"],
        dtype="complex128",  # the type is not known before x is, but every type's pad values are numbers of this one
    )
    is_complex = "c" in (weight.dtype.kind, "" if bias is None else bias.dtype.kind)
    check_activation(p["activation"], "complex128" if is_complex else "float64")
    with_precision((weight.dtype,), p["precision"])
    check_algorithm(p["algorithm"], common_device(weight.dtype))
    check_rtol(p["rtol"])
    check_threads(p["num_threads"])
