"""Boundary modes: which input element stands at each place of a padded axis.

Padding never copies a tensor here. An axis of extent `n`, padded by `low` and `high`, is described by a
vector of `low + n + high` source indices; `OUTSIDE` marks the places that hold the pad value. Gathering
through the vector pads, and adding through it is the adjoint, which is how gradients fold back.

Every mode is continued periodically, so that padding may exceed the extent:

===========  ======================  ==================================
mode         ``a b c d`` padded by 3  the same as in `numpy.pad`
===========  ======================  ==================================
zeros        ``0 0 0 a b c d 0 0 0``  ``constant``
constant     ``v v v a b c d v v v``  ``constant, constant_values=v``
replicate    ``a a a a b c d d d d``  ``edge``
reflect      ``d c b a b c d c b a``  ``reflect``
symmetric    ``c b a a b c d d c b``  ``symmetric``
circular     ``b c d a b c d a b c``  ``wrap``
===========  ======================  ==================================
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

OUTSIDE = -1


def _outside(place: NDArray[np.int64], extent: int) -> NDArray[np.int64]:
    return np.where((place >= 0) & (place < extent), place, OUTSIDE)


def _replicate(place: NDArray[np.int64], extent: int) -> NDArray[np.int64]:
    return np.clip(place, 0, extent - 1)


def _circular(place: NDArray[np.int64], extent: int) -> NDArray[np.int64]:
    return place % extent


def _symmetric(place: NDArray[np.int64], extent: int) -> NDArray[np.int64]:
    folded = place % (2 * extent)
    return np.minimum(folded, 2 * extent - 1 - folded)


def _reflect(place: NDArray[np.int64], extent: int) -> NDArray[np.int64]:
    period = max(2 * (extent - 1), 1)
    folded = place % period
    return np.minimum(folded, period - folded) if extent > 1 else np.zeros_like(place)


_MODES: dict[str, Callable[[NDArray[np.int64], int], NDArray[np.int64]]] = {
    "zeros": _outside,
    "constant": _outside,
    "reflect": _reflect,
    "replicate": _replicate,
    "circular": _circular,
    "symmetric": _symmetric,
}

PADDING_MODES = tuple(_MODES)


def source_index(extent: int, low: int, high: int, mode: str) -> NDArray[np.int64]:
    """Source index of every place of a padded axis.

    Parameters
    ----------
    extent
        Elements along the axis, at least 1.
    low, high
        Elements added before and after, at least 0.
    mode
        One of `PADDING_MODES`.

    Returns
    -------
    array of shape (low + extent + high,)
        Indices into the axis; `OUTSIDE` where the pad value stands.
    """
    return _MODES[mode](np.arange(-low, extent + high, dtype=np.int64), extent)


def linear_mode(mode: str) -> str:
    """The mode of whatever is linear in the elements alone: there, constant padding is zero."""
    return "zeros" if mode == "constant" else mode


def folds(mode: str) -> bool:
    """Whether padded places refer back to elements, so that the gradient of an element has several terms."""
    return _MODES[mode] is not _outside
