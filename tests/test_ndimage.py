"""`fastconv.ndimage` against `scipy.ndimage`, and what it does better."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage as scipy_ndimage

from fastconv import ndimage

from .test_signal import random, result_or_error

MODES = ("reflect", "mirror", "nearest", "wrap", "constant", "grid-mirror", "grid-wrap", "grid-constant")
REAL = ("uint8", "int16", "int32", "int64", "uint16", "float32", "float64")
DTYPES = (*REAL, "complex64", "complex128")


def assert_same(ours, theirs, scale=0.0):
    """The same type and shape, integers in every bit, and other numbers within some roundings.

    scale: the sum of the magnitudes of the terms of a result; the largest result where it is not given.
    """
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    if ours.dtype.kind in "iu":
        np.testing.assert_array_equal(ours, theirs)
    else:
        scale = max(scale, np.max(np.abs(theirs), initial=1e-3))
        tolerance = 3e-6 if np.finfo(ours.dtype).eps > 1e-10 else 1e-14
        assert np.max(np.abs(ours - theirs), initial=0) <= tolerance * scale


def both(name, *arguments, **options):
    """What both libraries give, or the error that both raise."""
    theirs, refusal = result_or_error(getattr(scipy_ndimage, name), *arguments, **options)
    ours, error = result_or_error(getattr(ndimage, name), *arguments, **options)
    assert (type(error), str(error)) == (type(refusal), str(refusal))
    return None if error else (ours, theirs)


def check(name, *arguments, **options):
    found = both(name, *arguments, **options)
    if found:
        # Of a filter: its weights, and the largest element that they meet.
        terms = float(np.sum(np.abs(arguments[1]))) if len(arguments) > 1 else 4.0
        assert_same(*found, scale=terms * max(np.max(np.abs(arguments[0]), initial=0), abs(options.get("cval", 0))))


@st.composite
def filters(draw, dtypes=DTYPES, weights=("int64", "float64", "complex128", "float32")):
    """An array, and arguments of a filter of any shape, larger than the array too."""
    rank = draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    array = random(
        rng, tuple(draw(st.integers(1, 12 if rank < 3 else 6)) for _ in range(rank)), draw(dtypes_of(dtypes))
    )
    axes = draw(st.sampled_from([None, *range(rank), (-1,), tuple(range(rank))[::-1]]))
    count = rank if axes is None else np.size(axes)
    extents = tuple(draw(st.integers(1, 7)) for _ in range(count))
    # Signs, since sums of positive ones do not cancel; multiples of 1/8, which float64 holds, for what is cut.
    taps = (rng.integers(-9, 10, extents) / draw(st.sampled_from((1, 8)))).astype(draw(dtypes_of(weights)))
    options = {"mode": draw(st.sampled_from(MODES)), "cval": draw(st.sampled_from((0.0, 2, 1.5))), "axes": axes}
    origins = [draw(st.integers(-(n // 2), (n - 1) // 2)) for n in extents]
    options["origin"] = draw(st.sampled_from((0, origins)))
    return array, taps, options


def dtypes_of(names):
    return st.sampled_from(names)


# ---- the same as SciPy


@pytest.mark.parametrize("name", ["correlate", "convolve"])
@given(drawn=filters())
def test_filters_are_scipys(name, drawn):
    array, weights, options = drawn
    check(name, array, weights, **options)


@pytest.mark.parametrize("name", ["correlate", "convolve"])
@given(drawn=filters(dtypes=REAL, weights=("float64",)), output=dtypes_of(REAL))
def test_outputs_of_every_type_are_scipys(name, drawn, output):
    array, weights, options = drawn
    if array.dtype.kind == "f" and np.dtype(output).kind in "iu":
        array = np.rint(4 * array)  # sums that are cut are exact in either library
    if np.dtype(output).kind == "u":
        weights = np.abs(weights)  # what a negative sum becomes is not defined in C
        array = np.abs(array)
    if np.dtype(output).itemsize < 4 and np.dtype(output).kind in "iu":
        array, weights = np.minimum(array, 1), np.minimum(weights, 1)  # nor is what does not fit
    check(name, array, weights, output=output, **options)


@pytest.mark.parametrize("name", ["correlate1d", "convolve1d"])
@given(
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    extent=st.integers(1, 12),
    mode=st.sampled_from(MODES),
    dtype=dtypes_of(DTYPES),
    complex_weights=st.booleans(),
    data=st.data(),
)
def test_one_axis_is_scipys(name, shape, extent, mode, dtype, complex_weights, data):
    rng = np.random.default_rng(extent)
    weights = rng.integers(-9, 9, extent) * (1 + 2j if complex_weights else 1)
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    origin = data.draw(st.integers(-(extent // 2), (extent - 1) // 2))
    check(name, random(rng, shape, dtype), weights, axis, mode=mode, cval=3.0, origin=origin)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("name", "arguments", "options"),
    [
        ("gaussian_filter", (1.3,), {}),
        ("gaussian_filter", ((2, 0.7),), {"order": (0, 1), "truncate": 3.0}),
        ("gaussian_filter", (1.0,), {"radius": (2, 3), "axes": (1, 0)}),
        ("gaussian_filter", (0,), {}),
        ("gaussian_filter1d", (1.5,), {"axis": 0, "order": 3}),
        ("uniform_filter", (4,), {}),
        ("uniform_filter", ((3, 5),), {"origin": (-1, 2)}),
        ("uniform_filter", (5,), {"axes": 0}),
        ("uniform_filter1d", (7,), {"origin": 3}),
        ("sobel", (), {}),
        ("sobel", (0,), {}),
        ("laplace", (), {}),
        ("laplace", (), {"axes": (1,)}),
    ],
)
def test_named_filters_are_scipys(name, arguments, options, mode, dtype):
    array = random(np.random.default_rng(0), (13, 11), dtype)
    if array.dtype.kind in "iu":
        array = array * 2
    cval = 7.0 if "laplace" in name or "sobel" in name else 2.25
    check(name, array, *arguments, mode=mode, cval=cval, **options)


@pytest.mark.parametrize("dtype", REAL)
def test_even_areas_are_cut_as_in_scipy(dtype):
    """A mean of equal numbers is that number but for rounding, which decides what is left of it when it is cut."""
    array = np.repeat(np.arange(256), 40).reshape(256, 40).astype(dtype)
    for sigma in (0.7, 1, 2.0, 3.3):
        check("gaussian_filter1d", array, sigma, output=np.uint8)
    for size in (3, 5, 7, 10):
        check("correlate1d", array, np.ones(size) / size, output=np.uint8)
        check("uniform_filter1d", array, size, output=np.uint8)
    check("correlate", array, np.ones((1, 9)) / 9, output=np.uint8)


def test_modes_for_each_axis():
    array = random(np.random.default_rng(0), (6, 9), "float64")
    for name, arguments in (("gaussian_filter", (3,)), ("uniform_filter", (4,)), ("sobel", (1,)), ("laplace", ())):
        check(name, array, *arguments, mode=["wrap", "constant"], cval=2)
        check(name, array, *arguments, mode=["wrap"])


@pytest.mark.parametrize("rank", [4, 5])
@pytest.mark.parametrize("mode", MODES)
def test_more_than_three_axes(rank, mode):
    rng = np.random.default_rng(0)
    array, weights = random(rng, (4, 3, 5, 2, 3)[:rank], "float64"), random(rng, (2, 3, 4, 1, 2)[:rank], "float64")
    check("convolve", array, weights, mode=mode, cval=2, origin=-1 if rank == 4 else 0)
    check("gaussian_filter", array, 0.8, mode=mode)
    check("correlate", array, weights[0, :, 0], mode=mode, axes=tuple(range(rank))[-weights.ndim + 2 :])


# ---- where the result goes


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "complex128"])
def test_output_as_an_array(dtype):
    rng = np.random.default_rng(0)
    array, weights = random(rng, (9, 8), dtype), rng.standard_normal((3, 4)).round(2)
    for output in (np.empty((9, 8), dtype), np.empty((8, 9), dtype).T, np.empty((9, 16), dtype)[:, ::2]):
        assert ndimage.correlate(array, weights, output=output) is output
        assert_same(output, scipy_ndimage.correlate(array, weights))


@pytest.mark.parametrize("name", ["correlate", "gaussian_filter", "uniform_filter", "sobel", "laplace"])
@pytest.mark.parametrize("shift", [0, 1])
def test_output_may_overlap_the_input(name, shift):
    arguments = {"correlate": (np.arange(9.0).reshape(3, 3),), "gaussian_filter": (2,), "uniform_filter": (3,)}.get(
        name, ()
    )
    memory = random(np.random.default_rng(0), (21, 20), "float64")
    expected = getattr(scipy_ndimage, name)(memory[:20].copy(), *arguments)
    target = memory[shift : 20 + shift]
    getattr(ndimage, name)(memory[:20], *arguments, output=target)
    assert_same(target.copy(), expected)


@pytest.mark.parametrize("output", ["float32", np.float64, np.dtype("int16"), "D", float])
def test_output_as_a_type(output):
    array = np.arange(20.0).reshape(4, 5)
    check("correlate", array, [[1, 2], [3, 4]], output=output)


# ---- errors, and types that are SciPy's


@pytest.mark.parametrize(
    ("name", "arguments", "options"),
    [
        ("correlate", ([1.0, 2], [[1]]), {}),
        ("correlate", ([1.0, 2], [1, 1]), {"mode": "zeros"}),
        ("correlate", ([1.0, 2], [1, 1]), {"mode": ["reflect"]}),
        ("correlate", ([1.0, 2], [1, 1]), {"origin": 4}),
        ("convolve", ([1.0, 2], [1, 1]), {"origin": [0, 0]}),
        ("convolve", ([1.0, 2], [1, 1]), {"output": np.zeros(3)}),
        ("convolve", ([1.0, 2], [1, 1j]), {"output": "float64"}),
        ("convolve", ([1.0, 2], [1, 1j]), {"cval": 1j}),
        ("correlate1d", ([1.0, 2], []), {}),
        ("convolve1d", ([1.0, 2], [1]), {"axis": 1}),
        ("correlate", (np.ones((2, 2)), [1, 1]), {"axes": (0, 0)}),
        ("correlate", (np.ones((2, 2)), [1, 1]), {"axes": 2}),
        ("gaussian_filter", ([1.0, 2], [1, 2]), {}),
        ("gaussian_filter", ([1.0, 2], 1), {"order": -1}),
        ("gaussian_filter", ([1.0, 2], 1), {"radius": 1.5}),
        ("uniform_filter1d", ([1.0, 2], 0), {}),
        ("uniform_filter", ([1.0, 2], 3), {"origin": 2}),
        ("correlate", (np.ones(3, np.float16), [1]), {}),
    ],
)
def test_errors_are_scipys(name, arguments, options):
    assert both(name, *arguments, **options) is None


def test_a_real_type_for_a_complex_result_warns_as_in_scipy():
    with pytest.warns(UserWarning, match="promoting specified output dtype to complex"):
        assert ndimage.correlate(np.ones(4), [1j, 1], output=np.float32).dtype == np.complex64


@pytest.mark.parametrize("name", ndimage.__all__)
def test_signatures_are_scipys(name):
    def parameters(module):
        signature = inspect.signature(getattr(module, name))
        return [(each.name, each.default, each.kind) for each in signature.parameters.values()]

    assert parameters(ndimage) == parameters(scipy_ndimage)


def test_booleans_are_scipys():
    check_bool = both("correlate", np.eye(5, dtype=bool), np.ones((3, 3)))
    np.testing.assert_array_equal(*check_bool)
    assert check_bool[0].dtype == bool


@pytest.mark.parametrize("order", "<>")
def test_half_precision_is_refused_in_any_byte_order(order):
    half = np.ones((5, 5), order + "f2")
    assert both("correlate", half, np.ones((3, 3))) is None
    assert both("correlate", np.ones((5, 5)), np.ones((3, 3)), output=half) is None


def test_means_beyond_two_to_the_63_are_scipys():
    check("correlate1d", np.full((5, 5), 3 * 2**62, np.uint64), [0.5, 0.5])


def test_no_elements():
    check("gaussian_filter", np.ones((0, 3)), 1)


# ---- better than SciPy


def test_integers_beyond_two_to_the_53_are_exact():
    array = np.array([2**60 + 1, 2**60 + 3, 5])
    np.testing.assert_array_equal(ndimage.correlate1d(array, [1, 0, 1]), [2**61 + 4, 2**60 + 6, 2**60 + 8])


@pytest.mark.parametrize("weights", [np.ones((61, 61)), np.random.default_rng(0).standard_normal((61, 61))])
def test_a_nan_reaches_its_window_only(weights):
    array = np.random.default_rng(0).standard_normal((300, 300)).astype(np.float32)
    array[150, 150] = np.nan
    expected = np.zeros((300, 300), bool)
    expected[120:181, 120:181] = True
    np.testing.assert_array_equal(np.isnan(ndimage.correlate(array, weights)), expected)


@pytest.mark.parametrize("name", ["correlate", "convolve"])
def test_a_nan_under_a_weight_of_zero_does_no_harm(name):
    array = np.random.default_rng(0).standard_normal((9, 9))
    array[4, 4] = np.nan
    found = both(name, array, [[0, 1, 0], [1, -4, 1], [0, 1, 0]])
    np.testing.assert_allclose(*found)
    assert np.isnan(found[0]).sum() == 5
    np.testing.assert_array_equal(*both(name, np.ones((5, 5)), [[0, np.nan, 0], [1, 1, 1]]))


# The brightness stays within this many halves of a rounding: one where the products are added up, as the weights are
# rounded together. A transform, which serves the longest filter, adds the weights in a tree of log2(1024) levels, and
# rounds once at each.
@pytest.mark.parametrize(("sigma", "roundings"), [(2, 1), (5, 1), (20, 10)])
def test_single_precision_is_good_to_some_roundings(sigma, roundings):
    array = np.random.default_rng(0).random((700, 600), np.float32) + 1
    ours = ndimage.gaussian_filter(array, sigma)
    theirs = scipy_ndimage.gaussian_filter(array.astype(np.float64), sigma)
    assert np.max(np.abs(ours / theirs - 1)) < 16 * 2.0**-24
    assert abs(np.mean(ours / theirs - 1)) < roundings * 0.5 * 2.0**-24


def test_bands_leave_no_seams():
    """Arrays of several MiB go through several passes in bands of their first axis."""
    array = np.random.default_rng(0).random((2500, 1100))
    for mode in MODES:
        for axes in ((0, 1), (1, 0)):
            ours = ndimage.gaussian_filter(array, 1.5, mode=mode, cval=3.0, axes=axes)
            np.testing.assert_allclose(
                ours, scipy_ndimage.gaussian_filter(array, 1.5, mode=mode, cval=3.0, axes=axes), rtol=1e-12
            )
