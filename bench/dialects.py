"""SciPy's dialects.

Calls of `fastconv.ndimage` and `fastconv.signal` beside the functions of SciPy that have the same name, other functions
of SciPy that give the same result by a transform (`scipy_fft`: `signal.oaconvolve`, or `signal.correlate`), and
OpenCV: `GaussianBlur`, `filter2D`, and, where a filter is an outer product, `sepFilter2D`, which is given the factors
(`opencv_sep`). Every call ends with a new array. The roof is the bytes of the arrays that are read and written, at the
measured rate of copies. A right result is SciPy's in float64, or in long double where float64 is measured.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.calls import Case, main, preparing
from bench.prepared import Array, Prepared, compiled, normal

IMAGE = (2048, 2048)
Calls = dict[str, Callable[[int], Prepared]]


def _random(shape: tuple[int, ...], seed: int, dtype: Any = np.float32) -> Array:
    """Normally distributed numbers, the same in every process."""
    return normal(np.random.default_rng(seed), shape, dtype)


def _with_threads(make: Callable[[Any], Callable[[], Any]], module: str, threads: int) -> Prepared:
    """A call of a library that takes its number of threads as a global setting; make: the call from the library."""
    if module == "cv2":
        import cv2

        cv2.setNumThreads(threads)
        return Prepared(make(cv2))
    if module == "scipy":
        import scipy.fft
        import scipy.ndimage
        import scipy.signal

        call = make(scipy)

        def with_workers() -> Any:
            with scipy.fft.set_workers(threads):
                return call()

        return Prepared(with_workers)
    import numba

    import fastconv

    numba.set_num_threads(threads)
    return Prepared(compiled(make(fastconv)))


def _calls(**makes: Callable[[Any], Callable[[], Any]]) -> Calls:
    """The calls of the libraries by their names; those of one library begin with it."""
    modules = {"fastconv": "fastconv", "scipy": "scipy", "opencv": "cv2"}
    return {
        name: functools.partial(_with_threads, make, modules[name.partition("_")[0]]) for name, make in makes.items()
    }


# ---- ndimage


def _gaussian(sigma: float) -> Case:
    image = functools.partial(_random, IMAGE, 0)
    extent = 2 * int(4 * sigma + 0.5) + 1

    def scipys(image: Array) -> Array:
        from scipy import ndimage

        return ndimage.gaussian_filter(image, sigma)

    def opencvs(cv2: Any) -> Callable[[], Any]:
        x = image()
        return lambda: cv2.GaussianBlur(x, (extent, extent), sigma, borderType=cv2.BORDER_REFLECT)

    def named(library: Any) -> Callable[[], Any]:
        x = image()
        return lambda: library.ndimage.gaussian_filter(x, sigma)

    return Case(
        "ndimage",
        "gaussian_filter",
        f"x=2048x2048 sigma={sigma} f32",
        _calls(fastconv=named, scipy=named, opencv=opencvs),
        lambda: scipys(image().astype(np.float64)),
        2 * image().nbytes,
    )


def _image_filter(extent: int, separable: bool) -> Case:
    image = functools.partial(_random, IMAGE, 0)
    down, across = _random((2, extent), 2)
    weights = np.outer(down, across) if separable else _random((extent, extent), 1)

    def reference() -> Array:
        from scipy import ndimage

        return ndimage.convolve(image().astype(np.float64), weights)

    def named(library: Any) -> Callable[[], Any]:
        x = image()
        return lambda: library.ndimage.convolve(x, weights)

    def filter2d(cv2: Any) -> Callable[[], Any]:
        x, taps = image(), np.ascontiguousarray(np.flip(weights))
        return lambda: cv2.filter2D(x, -1, taps, borderType=cv2.BORDER_REFLECT)

    def separably(cv2: Any) -> Callable[[], Any]:
        x, columns, rows = image(), np.flip(down).copy(), np.flip(across).copy()
        return lambda: cv2.sepFilter2D(x, -1, rows, columns, borderType=cv2.BORDER_REFLECT)

    libraries = {"fastconv": named, "scipy": named, "opencv": filter2d}
    kind = "outer product" if separable else "any"
    return Case(
        "ndimage",
        "convolve",
        f"x=2048x2048 w={extent}x{extent} {kind} f32",
        _calls(**libraries, **({"opencv_sep": separably} if separable else {})),
        reference,
        2 * image().nbytes,
        2 * image().size * weights.size,
    )


# ---- signal


def _reverberation(dtype: str) -> Case:
    """Ten seconds of sound at 48 kHz and the response of a room, of one second."""
    sound, response = functools.partial(_random, (480_000,), 0, dtype), functools.partial(_random, (48_000,), 1, dtype)

    def reference() -> Array:
        from scipy import signal

        wide = np.float64 if dtype == "float32" else np.longdouble
        return signal.fftconvolve(sound().astype(wide), response().astype(wide))

    def named(library: Any) -> Callable[[], Any]:
        x, w = sound(), response()
        return lambda: library.signal.convolve(x, w)

    def transformed(scipy: Any) -> Callable[[], Any]:
        x, w = sound(), response()
        return lambda: scipy.signal.oaconvolve(x, w)

    return Case(
        "signal",
        "convolve",
        f"x=480000 w=48000 {dtype}",
        _calls(fastconv=named, scipy=named, scipy_fft=transformed),
        reference,
        2 * (sound().nbytes + response().nbytes),
        dtype=dtype,
    )


def _matching(dtype: str) -> Case:
    """The cross-correlation of an image and a template, wherever they overlap."""
    image, template = functools.partial(_random, (512, 512), 0, dtype), functools.partial(_random, (64, 64), 1, dtype)

    def reference() -> Array:
        from scipy import signal

        wide = np.float64 if dtype == "float32" else np.longdouble
        return signal.fftconvolve(image().astype(wide), np.flip(template()).astype(wide))

    def named(library: Any) -> Callable[[], Any]:
        x, w = image(), template()
        return lambda: library.signal.correlate2d(x, w)

    def transformed(scipy: Any) -> Callable[[], Any]:
        x, w = image(), template()
        return lambda: scipy.signal.correlate(x, w, method="fft")

    def filter2d(cv2: Any) -> Callable[[], Any]:
        x, w = image(), template()

        def call() -> Any:
            padded = cv2.copyMakeBorder(x, 63, 0, 63, 0, cv2.BORDER_CONSTANT)
            return cv2.filter2D(padded, -1, w, anchor=(0, 0), borderType=cv2.BORDER_CONSTANT)

        return call

    return Case(
        "signal",
        "correlate2d",
        f"x=512x512 w=64x64 full {dtype}",
        _calls(fastconv=named, scipy=named, scipy_fft=transformed, opencv=filter2d),
        reference,
        2 * (image().nbytes + template().nbytes),
        dtype=dtype,
    )


CASES = [
    *(_gaussian(sigma) for sigma in (2, 5, 20)),
    *(_image_filter(extent, separable) for separable in (False, True) for extent in (3, 9, 25)),
    *(_reverberation(dtype) for dtype in ("float32", "float64")),
    *(_matching(dtype) for dtype in ("float32", "float64")),
]
prepare = preparing(CASES)

if __name__ == "__main__":
    main("bench.dialects", __doc__, CASES)
