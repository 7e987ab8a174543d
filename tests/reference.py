"""The reference: convolution and its gradients as the formulas say, in wide types, for any rank.

Shares no code with the package. Tensors are channels first; `pads` is a (low, high) pair for each axis.
"""

from __future__ import annotations

import itertools

import numpy as np
from scipy import signal

_NUMPY_MODES = {
    "zeros": "constant",
    "constant": "constant",
    "reflect": "reflect",
    "replicate": "edge",
    "circular": "wrap",
    "symmetric": "symmetric",
}


def wide(array):
    """The array in a type that holds its products: float64, complex128, or integers modulo 2**64."""
    return array.astype({"f": np.float64, "c": np.complex128, "i": np.int64, "u": np.uint64}[array.dtype.kind])


def pad(x, pads, mode="zeros", value=0):
    options = {"constant_values": value} if mode == "constant" else {}
    return np.pad(x, [(0, 0), (0, 0), *pads], mode=_NUMPY_MODES[mode], **options)


def forward(x, w, stride, pads, dilation, groups, mode="zeros", value=0):
    """y[n,k,p] = sum of w[k,c,r] * x_padded[n,c,p*stride+r*dilation]."""
    padded, w = pad(wide(x), pads, mode, value), wide(w)
    outputs = _outputs(padded, w, stride, dilation)
    y = np.zeros((x.shape[0], w.shape[0], *outputs), padded.dtype)
    for (ks, cs), tap in itertools.product(_groups(x.shape[1], w.shape[0], groups), _taps(w)):
        seen = padded[(slice(None), cs, *_window(tap, outputs, stride, dilation))]
        y[:, ks] += np.einsum("nc...,kc->nk...", seen, w[(ks, slice(None), *tap)])
    return y


def grad_input(y, w, input_extents, stride, pads, dilation, groups, mode="zeros"):
    """The adjoint of `forward` in x; padded places that repeat an element are added to it."""
    y, w = wide(y), wide(w)
    channels = w.shape[1] * groups
    padded_extents = [n + low + high for n, (low, high) in zip(input_extents, pads, strict=True)]
    padded = np.zeros((y.shape[0], channels, *padded_extents), np.result_type(y, w))
    for (ks, cs), tap in itertools.product(_groups(channels, w.shape[0], groups), _taps(w)):
        window = _window(tap, y.shape[2:], stride, dilation)
        padded[(slice(None), cs, *window)] += np.einsum("nk...,kc->nc...", y[:, ks], w[(ks, slice(None), *tap)])
    number = np.arange(1, 1 + np.prod(input_extents, dtype=int)).reshape(1, 1, *input_extents)
    source = pad(number, pads, mode).ravel()
    folded = np.zeros((1 + number.size, y.shape[0] * channels), padded.dtype)
    np.add.at(folded, source, padded.reshape(y.shape[0] * channels, -1).T)
    return folded[1:].T.reshape(y.shape[0], channels, *input_extents)


def grad_weight(x, y, filter_extents, stride, pads, dilation, groups, mode="zeros", value=0):
    """w[k,c,r] = sum of y[n,k,p] * x_padded[n,c,p*stride+r*dilation]."""
    padded, y = pad(wide(x), pads, mode, value), wide(y)
    w = np.zeros((y.shape[1], x.shape[1] // groups, *filter_extents), np.result_type(padded, y))
    for (ks, cs), tap in itertools.product(_groups(x.shape[1], y.shape[1], groups), _taps(w)):
        seen = padded[(slice(None), cs, *_window(tap, y.shape[2:], stride, dilation))]
        w[(ks, slice(None), *tap)] = np.einsum("nki,nci->kc", _pixels(y[:, ks]), _pixels(seen))
    return w


def scipy_forward(x, w, stride, pads, dilation, groups, mode="zeros", value=0):
    """The same as `forward`, each pair of channels through scipy.signal.correlate."""
    padded, w = pad(wide(x), pads, mode, value), wide(w)
    dilated = np.zeros((*w.shape[:2], *(d * (n - 1) + 1 for d, n in zip(dilation, w.shape[2:], strict=True))), w.dtype)
    dilated[(..., *(slice(None, None, d) for d in dilation))] = w
    outputs = _outputs(padded, w, stride, dilation)
    y = np.zeros((x.shape[0], w.shape[0], *outputs), padded.dtype)
    for n, (k, each) in itertools.product(range(x.shape[0]), enumerate(dilated)):
        first = k // (w.shape[0] // groups) * w.shape[1]
        for c, taps in enumerate(each):
            # scipy conjugates its second argument
            dense = signal.correlate(padded[n, first + c], np.conj(taps), mode="valid", method="direct")
            y[n, k] += dense[tuple(slice(None, None, s) for s in stride)]
    return y


def _outputs(padded, w, stride, dilation):
    return tuple(
        (n - d * (f - 1) - 1) // s + 1
        for n, f, s, d in zip(padded.shape[2:], w.shape[2:], stride, dilation, strict=True)
    )


def _taps(w):
    return itertools.product(*map(range, w.shape[2:]))


def _window(tap, outputs, stride, dilation):
    """The places of a padded input that one tap meets, as slices."""
    return tuple(
        slice(r * d, r * d + (p - 1) * s + 1, s) for r, p, s, d in zip(tap, outputs, stride, dilation, strict=True)
    )


def _pixels(tensor):
    """The spatial axes as one."""
    return tensor.reshape(*tensor.shape[:2], -1)


def _groups(channels, outputs, groups):
    """Slices of the output and the input channels of each group."""
    k, c = outputs // groups, channels // groups
    return [(slice(g * k, (g + 1) * k), slice(g * c, (g + 1) * c)) for g in range(groups)]
