"""Pooling.

A call starts from the tensors in the layout of the library and ends with new tensors. PyTorch's maximum gives the
indices in any case; fastconv's and ONNX Runtime's do not. The gradient of a maximum starts from the indices that the
forward call gave. `torch_cl` is PyTorch with all tensors in channels_last, and stands in every row; in those that say
`layout=channels_last` fastconv has them so, too. The roof is the bytes of the tensors that are read and written,
indices included, at the measured rate of copies.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.calls import Case, main, preparing
from bench.prepared import Array, Prepared, compiled, copied, normal


@dataclass(frozen=True)
class Window:
    """Pooling of an input of a shape by windows of one extent and stride along every axis."""

    kind: str  # "max" or "avg"
    shape: tuple[int, ...]
    size: int
    stride: int
    padding: int = 0
    layout: str = "channels_first"

    @property
    def rank(self) -> int:
        """Spatial axes."""
        return len(self.shape) - 2

    @property
    def output(self) -> tuple[int, ...]:
        """Shape of the result."""
        return (*self.shape[:2], *((n + 2 * self.padding - self.size) // self.stride + 1 for n in self.shape[2:]))

    @property
    def line(self) -> str:
        """All of it."""
        return f"x={'x'.join(map(str, self.shape))} k={self.size} s={self.stride} p={self.padding}{self._layout} f32"

    @property
    def _layout(self) -> str:
        return "" if self.layout == "channels_first" else f" layout={self.layout}"

    @property
    def arguments(self) -> tuple[int, int, int]:
        """As all libraries take them."""
        return self.size, self.stride, self.padding

    def data(self) -> tuple[Array, Array]:
        """The input and the gradient of the result: normally distributed, the same in every process."""
        rng = np.random.default_rng(0)
        return normal(rng, self.shape), normal(rng, self.output)

    def bytes(self, op: str) -> int:
        """Of the tensors: x and y, and 8 for each index of a maximum whose gradient is wanted."""
        indices = 8 if (op, self.kind) == ("gradient", "max") else 0
        return 4 * math.prod(self.shape) + (4 + indices) * math.prod(self.output)


# ---- the right results


def _taps(window: Window, padded: Array) -> list[Array]:
    """Views of a padded input: for each place in the window, the elements that the results find there."""
    reach = [range(window.size)] * window.rank
    return [
        padded[(..., *(slice(r, r + (q - 1) * window.stride + 1, window.stride) for r, q in
                       zip(place, window.output[2:], strict=True)))]
        for place in itertools.product(*reach)
    ]  # fmt: skip


def _padded(window: Window, x: Array, value: float) -> Array:
    widths = [(0, 0)] * 2 + [(window.padding, window.padding)] * window.rank
    return np.pad(x.astype(np.float64), widths, constant_values=value)


def _forward(window: Window) -> Array:
    x, _ = window.data()
    if window.kind == "max":
        return functools.reduce(np.maximum, _taps(window, _padded(window, x, -np.inf)))
    return sum(_taps(window, _padded(window, x, 0))) / window.size**window.rank  # type: ignore[return-value]


def _gradient(window: Window) -> Array:
    x, y = window.data()
    padded = _padded(window, x, -np.inf if window.kind == "max" else 0)
    result = np.zeros_like(padded)
    greatest = functools.reduce(np.maximum, _taps(window, padded)) if window.kind == "max" else None
    for values, target in zip(_taps(window, padded), _taps(window, result), strict=True):
        target += y / window.size**window.rank if greatest is None else y * (values == greatest)
    inner = slice(window.padding, -window.padding or None)
    return result[(..., *[inner] * window.rank)]


# ---- the libraries


def _fastconv(window: Window, op: str, threads: int) -> Prepared:
    import fastconv

    x, y = window.data()
    options: dict[str, Any] = {"num_threads": threads, "layout": window.layout}
    to_array: Callable[[Array], Array] = np.asarray
    if window.layout == "channels_last":
        x, y = (copied(np.moveaxis(tensor, 1, -1)) for tensor in (x, y))
        to_array = functools.partial(np.moveaxis, source=-1, destination=1)
    pool = getattr(fastconv, f"{window.kind}_pool{window.rank}d")
    if op == "forward":
        return Prepared(compiled(lambda: pool(x, *window.arguments, **options)), to_array)
    backward = getattr(fastconv.grad, f"{window.kind}_pool{window.rank}d_backward")
    if window.kind == "avg":
        return Prepared(compiled(lambda: backward(y, x.shape, *window.arguments, **options)), to_array)
    _, indices = pool(x, *window.arguments, return_indices=True, **options)
    return Prepared(compiled(lambda: backward(y, x, *window.arguments, indices=indices, **options)), to_array)


def _torch(window: Window, op: str, threads: int, channels_last: bool = False) -> Prepared:
    import torch

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    layouts = {2: torch.channels_last, 3: torch.channels_last_3d} if channels_last else {}
    layout = layouts.get(window.rank, torch.contiguous_format)
    x, y = (torch.from_numpy(tensor).contiguous(memory_format=layout) for tensor in window.data())
    size, stride, padding = ([each] * window.rank for each in window.arguments)
    if op == "forward":
        pool = getattr(torch.nn.functional, f"{window.kind}_pool{window.rank}d")
        return Prepared(lambda: pool(x, size, stride, padding))
    aten = torch.ops.aten
    if window.kind == "avg":
        backward = getattr(aten, f"avg_pool{window.rank}d_backward")
        return Prepared(lambda: backward(y, x, size, stride, padding, False, True, None))
    backward = getattr(aten, f"max_pool{window.rank}d_with_indices_backward")
    dense = [1] * window.rank
    _, indices = getattr(aten, f"max_pool{window.rank}d_with_indices")(x, size, stride, padding, dense, False)
    return Prepared(lambda: backward(y, x, size, stride, padding, dense, False, indices))


def _onnxruntime(window: Window, op: str, threads: int) -> Prepared:
    import onnxruntime
    from onnx import TensorProto, helper

    node = helper.make_node(
        {"max": "MaxPool", "avg": "AveragePool"}[window.kind],
        ["x"],
        ["y"],
        kernel_shape=[window.size] * window.rank,
        strides=[window.stride] * window.rank,
        pads=[window.padding] * 2 * window.rank,
        **({"count_include_pad": 1} if window.kind == "avg" else {}),
    )
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, window.output)]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, window.shape)]
    graph = helper.make_graph([node], "pooling", inputs, outputs)
    # The oldest format that has all of this; a newer one may be too new for the runtime.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    given = {"x": onnxruntime.OrtValue.ortvalue_from_numpy(window.data()[0])}
    return Prepared(lambda: session.run_with_ort_values(["y"], given)[0], lambda result: np.asarray(result.numpy()))


# ---- the cases


def _case(window: Window, op: str) -> Case:
    libraries: dict[str, Callable[[int], Prepared]] = {
        "fastconv": functools.partial(_fastconv, window, op),
        "torch": functools.partial(_torch, window, op),
        "torch_cl": functools.partial(_torch, window, op, channels_last=True),
    }
    if window.layout == "channels_last":
        del libraries["torch"]
    elif op == "forward":
        libraries["onnxruntime"] = functools.partial(_onnxruntime, window, op)
    reference = functools.partial({"forward": _forward, "gradient": _gradient}[op], window)
    return Case(f"{window.kind}_pool{window.rank}d", op, window.line, libraries, reference, window.bytes(op))


_WINDOWS = [
    Window(kind, (batch, *extents), *sizes, layout)
    for kind, extents, sizes in (
        ("max", (64, 112, 112), (3, 2, 1)),  # the first pooling of ResNet
        ("max", (64, 224, 224), (2, 2, 0)),  # of VGG
        ("avg", (64, 112, 112), (3, 2, 1)),
        ("avg", (64, 224, 224), (2, 2, 0)),
        ("avg", (2048, 7, 7), (7, 1, 0)),  # the last one of ResNet
        ("max", (64, 16, 56, 56), (2, 2, 0)),  # of C3D, after its second convolution
        ("avg", (64, 16, 56, 56), (2, 2, 0)),
    )
    for layout in ("channels_first", "channels_last")
    for batch in (1, 8)
]
CASES = [
    _case(window, op)
    for kind, rank in (("max", 2), ("avg", 2), ("max", 3), ("avg", 3))
    for op in ("forward", "gradient")
    for window in _WINDOWS
    if (window.kind, window.rank) == (kind, rank)
]
prepare = preparing(CASES)

if __name__ == "__main__":
    main("bench.pooling", __doc__, CASES)
