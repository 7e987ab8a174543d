"""The Fourier transform of a square in shared memory, by all threads of a block.

With an edge of N = A * B, places n = B * n1 + n2 and frequencies k = k1 + A * k2, a line is transformed in two passes,
each in place::

    first   x[B * k1 + n2] = exp(-2 pi i n2 k1 / N) * sum over n1 of x[B * n1 + n2] * exp(-2 pi i n1 k1 / A)
    second  x[B * k1 + k2] = sum over n2 of x[B * k1 + n2] * exp(-2 pi i n2 k2 / B)

so that frequency k1 + A * k2 stands at place B * k1 + k2. Nothing puts them in order: the product of spectra needs
none, and the inverse takes the same way back. A thread has the A or B numbers of its sum in registers; threads of a
warp take neighbouring lines. (Cooley, Tukey, "An Algorithm for the Machine Calculation of Complex Fourier Series",
1965; Bailey, "FFTs in External or Hierarchical Memory", 1990, for the two passes.)

An odd pitch lets neighbouring threads take either neighbouring rows or neighbouring columns without two of a warp
falling into one bank.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._device import WARP, barrier, cuda, fourier, function, get, get4, int32, put, quotient, remainder, thread


@dataclass(frozen=True)
class Square:
    """The sizes of a square of complex numbers, and the passes over it.

    Attributes
    ----------
    first, second
        A and B.
    """

    first: int
    second: int

    @property
    def edge(self) -> int:
        """N."""
        return self.first * self.second

    @property
    def pitch(self) -> int:
        """Elements of shared memory from row to row."""
        return self.edge + 1

    @property
    def threads(self) -> int:
        """Threads of a block: two sums of the second pass each."""
        return self.edge * self.first // 2

    @property
    def memory(self) -> int:
        """Elements of each of both parts in shared memory."""
        return self.edge * self.pitch

    @cached_property
    def twiddles(self) -> NDArray[np.float64]:
        """(B, A, 2): real and imaginary part of exp(-2 pi i n2 k1 / N)."""
        n2, k1 = np.indices((self.second, self.first))
        angles = 2 * np.pi / self.edge * n2 * k1
        return np.stack([np.cos(angles), -np.sin(angles)], axis=-1)

    def __repr__(self) -> str:
        return f"Square({self.first}, {self.second})"


# ---- functions of kernels, by their compile-time constants


def taking(count: int, stride: int) -> Any:
    """The function ``(real, imaginary, some_real, some_imaginary, at)`` that has numbers of a line in registers."""

    @function
    def take(real, imaginary, some_real, some_imaginary, at):
        for k in range(count):
            real[k] = get(some_real, int32(at + k * stride))
            imaginary[k] = get(some_imaginary, int32(at + k * stride))

    return take


def keeping(count: int, stride: int) -> Any:
    """The function ``(real, imaginary, some_real, some_imaginary, at)`` that puts them back."""

    @function
    def keep(real, imaginary, some_real, some_imaginary, at):
        for k in range(count):
            put(some_real, int32(at + k * stride), real[k])
            put(some_imaginary, int32(at + k * stride), imaginary[k])

    return keep


def twisting(square: Square, is_inverse: bool) -> Any:
    """The function ``(real, imaginary, twiddles, n2)`` that multiplies by the twiddles, or by their conjugates."""
    count = square.first

    @function
    def multiply(real, imaginary, k, cosine, sine):
        if is_inverse:
            sine = -sine
        value = real[k]
        real[k] = value * cosine - imaginary[k] * sine
        imaginary[k] = imaginary[k] * cosine + value * sine

    @function
    def twist(real, imaginary, twiddles, n2):
        for pair in range(count // 2):
            numbers = get4(twiddles, int32((n2 * count + 2 * pair) * 2))
            multiply(real, imaginary, 2 * pair, numbers[0], numbers[1])
            multiply(real, imaginary, 2 * pair + 1, numbers[2], numbers[3])

    return twist


def row_of(square: Square) -> Any:
    """The function ``(item)`` that gives the row and n2 of a sum of the first pass over rows.

    Threads of a warp have all n2, and rows that are B apart: so they take neighbouring elements of the tensor, and
    different banks.
    """
    second, rows = square.second, WARP // square.second

    @function
    def place(item):
        n2 = remainder(item, int32(second))
        number = quotient(item, int32(second))
        among = remainder(number, int32(rows))
        warp = quotient(number, int32(rows))
        return int32(remainder(warp, int32(second)) + second * among + WARP * quotient(warp, int32(second))), n2

    return place


def passing(square: Square, real_type: Any, over_rows: bool, is_first: bool, is_inverse: bool) -> Any:
    """The function ``(some_real, some_imaginary, twiddles)`` that is one pass over all lines, without a barrier."""
    edge, pitch, threads = square.edge, square.pitch, square.threads
    count = square.first if is_first else square.second
    along, across = (1, pitch) if over_rows else (pitch, 1)
    stride, begin = (square.second * along, along) if is_first else (along, square.second * along)
    pieces = edge * edge // count // threads
    take, keep, transform = taking(count, stride), keeping(count, stride), fourier(count)
    twist = twisting(square, is_inverse)
    rows_apart = over_rows and is_first
    place = row_of(square)

    @function
    def run(some_real, some_imaginary, twiddles):
        real, imaginary = cuda.local.array(count, real_type), cuda.local.array(count, real_type)
        for piece in range(pieces):
            item = int32(thread() + piece * threads)
            if rows_apart:
                line, number = place(item)
            else:
                line, number = remainder(item, int32(edge)), quotient(item, int32(edge))
            at = int32(line * across + number * begin)
            take(real, imaginary, some_real, some_imaginary, at)
            if is_inverse:
                if is_first:
                    twist(real, imaginary, twiddles, number)
                transform(imaginary, real)
            else:
                transform(real, imaginary)
                if is_first:
                    twist(real, imaginary, twiddles, number)
            keep(real, imaginary, some_real, some_imaginary, at)

    return run


def transforming(square: Square, real_type: Any, is_inverse: bool) -> Any:
    """The function ``(some_real, some_imaginary, twiddles)`` that transforms a square, or back, with its barriers."""
    passes = [
        passing(square, real_type, over_rows, is_first, is_inverse)
        for over_rows in (True, False)
        for is_first in (True, False)
    ]
    first, second, third, fourth = reversed(passes) if is_inverse else passes

    @function
    def transform(some_real, some_imaginary, twiddles):
        barrier()
        first(some_real, some_imaginary, twiddles)
        barrier()
        second(some_real, some_imaginary, twiddles)
        barrier()
        third(some_real, some_imaginary, twiddles)
        barrier()
        fourth(some_real, some_imaginary, twiddles)
        barrier()

    return transform
