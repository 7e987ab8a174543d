"""`fastconv.signal` against `scipy.signal`, and what it does better."""

from __future__ import annotations

import inspect
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal as scipy_signal

import fastconv
from fastconv import signal

MODES = ("full", "same", "valid")
DTYPES = ("uint8", "int16", "int32", "int64", "uint64", "float32", "float64", "complex64", "complex128")
SINGLE, DOUBLE = 8e-6, 4e-14


def random(rng, shape, dtype):
    if np.dtype(dtype).kind in "iu":
        return rng.integers(0, 50, shape).astype(dtype)
    values = rng.standard_normal(shape)
    return (values + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else values).astype(dtype)


def tolerance(*dtypes):
    """Largest error over the largest result: some roundings of the narrowest of these types."""
    narrow = min(np.dtype(dtype).itemsize // (1 + (np.dtype(dtype).kind == "c")) for dtype in dtypes)
    return SINGLE if narrow <= 4 else DOUBLE


def assert_same(ours, theirs, error=None):
    """The same type and shape, and the same numbers but for rounding; integers in every bit."""
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    if ours.dtype.kind in "iu":
        np.testing.assert_array_equal(ours, theirs)
    else:
        scale = np.max(np.abs(theirs), initial=1.0)
        assert np.max(np.abs(ours - theirs), initial=0) <= (error or tolerance(ours.dtype)) * scale


@st.composite
def pairs(draw, ranks=(1, 2, 3), dtypes=DTYPES):
    """Two arrays of one rank, either of which may be the larger one along any axis."""
    count = draw(st.sampled_from(ranks))
    extents = st.integers(1, {1: 80, 2: 16, 3: 7}.get(count, 4))
    shapes = [tuple(draw(extents) for _ in range(count)) for _ in range(2)]
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return [random(rng, shape, draw(st.sampled_from(dtypes))) for shape in shapes]


def result_or_error(function, *arguments, **options):
    try:
        return function(*arguments, **options), None
    except Exception as error:
        return None, error


def both(name, *arguments, **options):
    """What both libraries give, or the error that both raise.

    Without the warnings of the processor's flags: SciPy casts memory for its result to the common type before it writes
    it, and tells of an invalid value where that happens to hold one.
    """
    with np.errstate(all="ignore"):
        theirs, refusal = result_or_error(getattr(scipy_signal, name), *arguments, **options)
        ours, error = result_or_error(getattr(signal, name), *arguments, **options)
    assert (type(error), str(error)) == (type(refusal), str(refusal))
    return None if error else (ours, theirs)


# ---- the same as SciPy


@pytest.mark.parametrize("name", ["convolve", "correlate"])
@given(pair=pairs(), mode=st.sampled_from(MODES))
def test_direct_is_scipys(name, pair, mode):
    found = both(name, *pair, mode=mode, method="direct")
    if found:
        assert_same(*found)


@pytest.mark.parametrize("name", ["convolve", "correlate"])
@pytest.mark.parametrize("method", ["auto", "fft"])
@given(pair=pairs(dtypes=("int32", "float32", "float64", "complex128")), mode=st.sampled_from(MODES))
def test_every_method_gives_the_direct_result(name, method, pair, mode):
    found = both(name, *pair, mode=mode, method="direct")
    if found:
        assert_same(getattr(signal, name)(*pair, mode=mode, method=method), found[1])


@pytest.mark.parametrize("name", ["convolve2d", "correlate2d"])
@given(
    pair=pairs(ranks=(2,)),
    mode=st.sampled_from(MODES),
    boundary=st.sampled_from(("fill", "pad", "wrap", "circular", "symm", "symmetric")),
    fillvalue=st.sampled_from((0, 3, 2.5)),
)
def test_the_plane_is_scipys(name, pair, mode, boundary, fillvalue):
    found = both(name, *pair, mode=mode, boundary=boundary, fillvalue=fillvalue)
    if found:
        assert_same(*found)


@pytest.mark.parametrize("name", ["fftconvolve", "oaconvolve"])
@given(
    pair=pairs(ranks=(1, 2, 3, 4), dtypes=("int16", "float32", "float64", "complex64")),
    mode=st.sampled_from(MODES),
    axes=st.sampled_from((None, 0, -1, (0, 1), (1, 0), (0, 2), [])),
    shared=st.booleans(),
)
def test_transforms_along_axes_are_scipys(name, pair, mode, axes, shared):
    first, second = pair
    if shared and axes not in (None, []):  # extents that agree, or are 1, along the other axes
        along = [axis % first.ndim for axis in np.atleast_1d(axes) if -first.ndim <= axis < first.ndim]
        keep = [slice(None) if axis in along else slice(0, 1 + axis % 2) for axis in range(first.ndim)]
        first, second = first[tuple(keep)], second[tuple(keep)]
    found = both(name, first, second, mode=mode, axes=axes)
    if found:  # SciPy transforms each in its own type
        assert_same(*found, tolerance(*(each.dtype for each in pair if each.dtype.kind in "fc"), float))


@pytest.mark.parametrize("rank", [4, 5])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["int64", "float32", "complex128"])
def test_more_than_three_axes(rank, mode, dtype):
    rng = np.random.default_rng(rank)
    first, second = random(rng, (4, 3, 5, 4, 3)[:rank], dtype), random(rng, (2, 3, 1, 2, 3)[:rank], dtype)
    assert_same(*both("convolve", first, second, mode))
    assert_same(*both("correlate", first, second, mode))


@pytest.mark.parametrize("dtype", ["bool", "object", "longdouble", "clongdouble", "float16"])
@pytest.mark.parametrize("name", ["convolve", "correlate", "convolve2d", "correlate2d", "fftconvolve", "oaconvolve"])
@pytest.mark.parametrize("rank", [1, 2])
def test_other_types_are_as_in_scipy(dtype, name, rank):
    first, second = (np.ones((n,) * rank).astype(dtype) for n in (5, 3))
    found = both(name, first, second)
    if found:
        assert found[0].dtype == found[1].dtype
        np.testing.assert_array_almost_equal(found[0].astype(complex), found[1].astype(complex), decimal=2)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("convolve", ([1, 2], [[1]])),
        ("convolve", ([1, 2], [1], "all")),
        ("convolve", ([1, 2], [1], "full", "quick")),
        ("convolve", ([], [1])),
        ("correlate", (1, [2])),
        ("convolve2d", ([1], [1])),
        ("convolve2d", ([[1]], [[1]], "full", "mirror")),
        ("convolve2d", ([[1]], [[1.0]], "full", "fill", 1j)),
        ("fftconvolve", (np.ones((2, 3)), np.ones((3, 3)), "full", 1)),
        ("fftconvolve", ([1.0, 2], [1.0, 2], "full", [])),
        ("oaconvolve", ([1.0, 2], [1.0, 2], "full", 7)),
        ("oaconvolve", ([1.0, 2], [1.0, 2], "full", "x")),
    ],
)
@pytest.mark.filterwarnings("ignore:Casting complex")
def test_errors_are_scipys(name, arguments):
    assert both(name, *arguments) is None


@pytest.mark.parametrize("name", signal.__all__)
def test_signatures_are_scipys(name):
    def parameters(module):
        return [(each.name, each.default) for each in inspect.signature(getattr(module, name)).parameters.values()]

    assert parameters(signal) == parameters(scipy_signal)


def test_inputs_of_any_kind_and_order():
    backwards = np.arange(12.0).reshape(3, 4, order="F")[::-1, ::2]
    assert_same(*both("convolve", backwards, np.array([[1, 2]], ">f4")))
    assert_same(*both("correlate", [1, 2, 3], (0.5, 1)))
    half = np.ones((5, 4), np.float16)  # SciPy refuses that of the other byte order
    assert_same(signal.fftconvolve(*[half.astype(">f2")] * 2), signal.fftconvolve(half, half))
    given_0d = both("convolve", 3, 4)
    assert given_0d[0] == given_0d[1] == 12


def test_autocorrelation():
    x = np.random.default_rng(0).standard_normal(1000)
    y = signal.correlate(x, x)
    assert signal.correlation_lags(1000, 1000)[np.argmax(y)] == 0
    np.testing.assert_allclose(y, y[::-1], atol=1e-9)


# ---- better than SciPy


def test_integers_are_exact_where_a_transform_is_not():
    x = np.random.default_rng(0).integers(-(2**51), 2**51, 3000)
    w = np.random.default_rng(1).integers(-(2**51), 2**51, 700)
    expected = np.convolve(x.astype(object), w.astype(object))
    np.testing.assert_array_equal(
        signal.convolve(x, w), np.array([n % 2**64 for n in expected], np.uint64).astype(np.int64)
    )


def test_sums_near_two_to_the_53_keep_their_last_bit():
    x = np.full(400, 2**26 + 1)
    w = np.zeros(400, np.int64)
    w[7] = 2**27 - 1
    assert np.all(signal.convolve(x, w)[7:407] == (2**26 + 1) * (2**27 - 1))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stays_where_it_belongs(value):
    x = np.random.default_rng(0).standard_normal(20_000)
    x[5000] = value
    y = signal.convolve(x, np.ones(3000))
    assert signal.choose_conv_method(x, np.ones(3000)) == "fft"
    assert not np.any(np.isfinite(y[5000:8000]))
    assert np.all(np.isfinite(y[:5000]))
    assert np.all(np.isfinite(y[8000:]))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("method", ["auto", "direct"])
@pytest.mark.parametrize("name", ["convolve", "correlate"])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_a_filter_that_is_not_finite_meets_no_zeros(dtype, rank, name, method, value):
    """Each of both arrays in turn; of ones, so that a sum over where the value stands tells what it reaches."""
    place = (1,) * rank
    for which in (0, 1):
        arrays = [np.ones((extent,) * rank, dtype) for extent in (5, 3)]
        marks = [np.ones_like(array, int) for array in arrays]
        arrays[which][place] = value
        marks[which][...], marks[which][place] = 0, 1
        for mode in MODES:
            reached = getattr(scipy_signal, name)(*marks, mode, "direct") > 0
            found = getattr(signal, name)(*arrays, mode, method)
            np.testing.assert_array_equal(~np.isfinite(found), reached)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("loud", [1e4, 1e9])
def test_a_quiet_passage_keeps_half_of_its_digits_beside_a_loud_one(dtype, loud):
    rng = np.random.default_rng(0)
    x, w = random(rng, 20_000, dtype), random(rng, 1000, dtype)
    x[:10_000] *= loud
    quiet = slice(12_000, 20_000)
    wide = [each.astype(np.clongdouble if each.dtype.kind == "c" else np.longdouble) for each in (x, w)]
    expected = np.convolve(*wide)[quiet]
    error = np.max(np.abs(signal.convolve(x, w)[quiet] - expected)) / np.sqrt(np.mean(np.abs(expected) ** 2))
    assert error < np.sqrt(np.finfo(dtype).eps)


def test_a_method_that_is_named_is_taken():
    x, w = np.random.default_rng(0).standard_normal((2, 5000))
    x[:2500] *= 1e12
    scale = np.max(np.abs(x)) * np.sum(np.abs(w))
    direct, transformed = (signal.convolve(x, w, method=method) for method in ("direct", "fft"))
    assert 0 < np.max(np.abs(direct - transformed)) < 1e-13 * scale
    assert np.max(np.abs((direct - transformed)[8000:])) > 1e-6  # the transform spoils what is small


def test_a_nan_in_a_transform_that_is_named_warns_as_in_scipy():
    x = np.ones(1000)
    x[3] = np.nan
    with pytest.warns(RuntimeWarning, match="Use of fft convolution"):
        assert np.all(np.isnan(signal.convolve(x, np.ones(100), method="fft")))


def test_choosing_a_method():
    rng = np.random.default_rng(0)
    long, short = rng.standard_normal(50_000), rng.standard_normal(5)
    assert signal.choose_conv_method(long, long) == "fft"
    assert signal.choose_conv_method(long, short) == "direct"
    assert signal.choose_conv_method(long.astype(int), long.astype(int)) == "direct"
    method, times = signal.choose_conv_method(long, short, measure=True)
    assert method == min(times, key=times.get)


def test_importing_it_imports_no_scipy():
    code = "import sys, fastconv; fastconv.signal.convolve, fastconv.ndimage.sobel; print('scipy' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


def test_it_is_an_attribute_of_the_package():
    assert fastconv.signal.convolve is signal.convolve
