"""Words of small matrices as plain Python, for Numba's simulator."""

from __future__ import annotations

from typing import Any

import numpy as np

Coefficients = tuple[tuple[float, ...], ...]


def along_both(rows: Coefficients, columns: Coefficients) -> Any:
    """`_plane_intrinsics.along_both`."""
    heights, widths = np.array(rows), np.array(columns)
    (to_height, from_height), (to_width, from_width) = heights.shape, widths.shape

    def transform(values: Any) -> None:
        matrix = values.reshape(-1, max(to_width, from_width))
        taken = heights.astype(values.dtype) @ matrix[:from_height, :from_width]
        matrix[:to_height, :to_width] = taken @ widths.T.astype(values.dtype)

    return transform


def fourier(count: int) -> Any:
    """`_plane_intrinsics.fourier`."""

    def transform(real: Any, imaginary: Any) -> None:
        values = np.fft.fft(real[:count] + 1j * imaginary[:count].astype(complex))
        real[:count], imaginary[:count] = values.real, values.imag

    return transform


def add_products(sums: Any, left: Any, right: Any) -> None:
    """`_plane_intrinsics.add_products`."""
    sums += np.outer(left, right).reshape(-1)
