"""The matrix of a convolution and its operator: against the convolution, its gradient, and SciPy's solvers."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg, signal, sparse
from scipy.sparse.linalg import aslinearoperator, cg, lsqr, svds

import fastconv
from fastconv import grad
from fastconv.core.boundary import PADDING_MODES
from fastconv.core.problem import Op

from .problems import conv_problems, expected, random_tensors

LINEAR_MODES = tuple(mode for mode in PADDING_MODES if mode != "constant")
# All numbers are whole and small, so that floating-point types must be exact too.
PROBLEMS = conv_problems(("float32", "float64", "complex128", "int32", "int64", "uint8"), LINEAR_MODES)


def arguments_of(problem, tensors):
    """The arguments of both functions for a problem."""
    lead = 3 - problem.rank
    window = (problem.stride[lead:], problem.padding[lead:], problem.dilation[lead:], problem.groups)
    return (tensors["w"], problem.x_shape, *window, problem.padding_mode), {"layout": problem.layout}


def tensors_of(problem):
    tensors = random_tensors(problem, 0, small_integers=True)
    if np.dtype(problem.dtype).kind == "c":
        turned = random_tensors(problem, 1, small_integers=True)
        tensors = {name: tensor + 1j * turned[name] for name, tensor in tensors.items()}
    return tensors


def adjoint_of(problem, tensors):
    """The gradient in x, which conjugates the weight."""
    answer = expected(problem, Op.GRAD_INPUT, tensors | {"w": tensors["w"].conj()})
    return answer.astype(problem.dtype, casting="unsafe")


# ---- the matrix


@given(PROBLEMS)
def test_the_matrix_is_the_convolution(problem):
    tensors = tensors_of(problem)
    positional, options = arguments_of(problem, tensors)
    A = fastconv.conv_matrix(*positional, **options)
    y = expected(problem, Op.FORWARD, tensors).astype(problem.dtype, casting="unsafe")
    np.testing.assert_array_equal(A @ tensors["x"].ravel(), y.ravel())
    assert (A.format, A.shape, A.dtype) == ("csr", (y.size, tensors["x"].size), problem.dtype)
    assert A.has_canonical_format


@given(PROBLEMS)
def test_its_conjugate_transpose_is_the_gradient(problem):
    tensors = tensors_of(problem)
    positional, options = arguments_of(problem, tensors)
    A = fastconv.conv_matrix(*positional, **options)
    np.testing.assert_array_equal(A.conj().T @ tensors["y"].ravel(), adjoint_of(problem, tensors).ravel())


def test_its_transpose_is_the_transposed_convolution():
    rng = np.random.default_rng(0)
    weight, x = rng.integers(-4, 5, (4, 3, 3, 2)), rng.integers(-4, 5, (4, 5, 6))
    y = fastconv.conv_transpose2d(x, weight, stride=2, padding=1, output_padding=1)
    A = fastconv.conv_matrix(weight, y.shape, stride=2, padding=1)
    np.testing.assert_array_equal(A.T @ x.ravel(), y.ravel())
    np.testing.assert_array_equal(A.T @ x.ravel(), grad.conv2d_input(y.shape, weight, x, 2, 1).ravel())


def test_toeplitz_and_circulant():
    """One axis: constant diagonals, which "circular" continues round the corner."""
    taps = np.array([1, 2, 3])
    valid = fastconv.conv_matrix([[taps]], (1, 5))
    np.testing.assert_array_equal(valid.toarray(), linalg.toeplitz([1, 0, 0], [1, 2, 3, 0, 0]))
    full = fastconv.conv_matrix([[taps]], (1, 5), padding="full", flip=True)
    np.testing.assert_array_equal(full.toarray(), linalg.convolution_matrix(taps, 5))
    around = fastconv.conv_matrix([[taps]], (1, 5), padding=1, padding_mode="circular")
    np.testing.assert_array_equal(around.toarray(), linalg.circulant([2, 1, 0, 0, 3]))


def test_two_axes_are_blocks_of_one():
    """MATLAB's convmtx2: block Toeplitz, each block the Toeplitz matrix of a row of taps."""
    taps, x = np.arange(1, 7).reshape(2, 3), np.arange(20).reshape(4, 5)
    A = fastconv.conv_matrix(taps[np.newaxis, np.newaxis], (1, 4, 5), padding="full", flip=True)
    np.testing.assert_array_equal((A @ x.ravel()).reshape(5, 7), signal.convolve2d(x, taps))
    rows = [sparse.csr_array(linalg.convolution_matrix(row, 5)) for row in taps]
    shifts = [sparse.eye_array(5, 4, k=-r, dtype=int) for r in range(2)]
    blocks = sum(sparse.kron(shift, row) for shift, row in zip(shifts, rows, strict=True))
    np.testing.assert_array_equal(A.toarray(), blocks.toarray())


def test_a_batch_is_a_block_diagonal():
    weight = np.arange(12).reshape(2, 1, 2, 3)
    image = fastconv.conv_matrix(weight, (1, 4, 5))
    batch = fastconv.conv_matrix(weight, (3, 1, 4, 5))
    np.testing.assert_array_equal(batch.toarray(), sparse.block_diag([image] * 3).toarray())


def test_the_matrix_holds_a_number_for_every_product():
    """Built without a loop over pixels: 2.4 million elements in a fraction of a second."""
    A = fastconv.conv_matrix(np.ones((1, 1, 3, 3), np.float32), (1, 512, 512), padding=1)
    assert A.nnz == (3 * 512 - 2) ** 2
    assert A.indices.dtype == np.int32


# ---- the operator


@given(PROBLEMS, st.integers(1, 3))
def test_the_operator_is_the_matrix(problem, columns):
    tensors = tensors_of(problem)
    positional, options = arguments_of(problem, tensors)
    A = fastconv.conv_matrix(*positional, **options)
    operator = fastconv.conv_operator(*positional, **options)
    assert (operator.shape, operator.dtype) == (A.shape, A.dtype)
    rng = np.random.default_rng(0)
    x, y = (rng.integers(-4, 5, (size, columns)).astype(problem.dtype) for size in A.shape[::-1])
    adjoint = A.conj().T
    # Whole numbers, up to the rounding of the transforms that "auto" may take.
    tolerance = {"rtol": 0, "atol": 0 if problem.is_exact else {4: 2e-2, 8: 1e-9}[problem.real_bytes]}
    for first, second in (
        (operator.matvec(x[:, 0]), A @ x[:, 0]),
        (operator.matmat(x), A @ x),
        (operator.rmatvec(y[:, 0]), adjoint @ y[:, 0]),
        (operator.rmatmat(y), adjoint @ y),
        (operator.H @ y, adjoint @ y),
        (operator.adjoint() @ y, adjoint @ y),
        (operator.T @ y, A.T @ y),
        (operator.transpose() @ y, A.T @ y),
    ):
        np.testing.assert_allclose(first, second, **tolerance)
        assert first.dtype == problem.dtype


def test_products_are_promoted():
    operator = fastconv.conv_operator(np.ones((1, 1, 3), np.float32), (1, 8))
    assert (operator @ np.ones(8, np.float32)).dtype == np.float32
    assert (operator @ np.ones(8)).dtype == np.float64
    assert (operator @ np.ones(8, np.complex64)).dtype == np.complex64
    assert fastconv.conv_operator(np.ones((1, 1, 3), np.float16), (1, 8)).dtype == np.float32


def test_shapes_of_tensors():
    operator = fastconv.conv_operator(np.ones((4, 3, 3, 3)), (3, 8, 9), stride=2)
    assert (operator.input_shape, operator.output_shape) == ((3, 8, 9), (4, 3, 4))
    x = np.random.default_rng(0).standard_normal((3, 8, 9))
    y = (operator @ x.ravel()).reshape(operator.output_shape)
    np.testing.assert_allclose(y, fastconv.conv2d(x, np.ones((4, 3, 3, 3)), stride=2), atol=1e-12)
    assert "x=1x3x8x9 w=4x3x3x3 s=2" in repr(operator)
    of_array = fastconv.conv_operator(np.ones((4, 3, 3, 3)), np.array([3, 8, 9]), stride=2)
    assert repr(of_array.input_shape) == "(3, 8, 9)"


def test_a_pickled_operator():
    operator = fastconv.conv_operator(np.ones((1, 1, 3)), (1, 8), padding=1)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(operator)) @ np.arange(8), operator @ np.arange(8))


def test_a_later_change_of_the_weight_has_no_effect():
    weight = np.ones((1, 1, 3))
    operator = fastconv.conv_operator(weight, (1, 3))
    weight[...] = np.nan
    assert operator @ np.ones(3) == [3]


# ---- solvers

RNG = np.random.default_rng(0)
BLUR = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1])[np.newaxis, np.newaxis] / 256
PHOTO = RNG.random((1, 20, 24))
SAME = {"padding": "same", "padding_mode": "symmetric"}


def both():
    """Operator and matrix of a blur."""
    return fastconv.conv_operator(BLUR, PHOTO.shape, **SAME), fastconv.conv_matrix(BLUR, PHOTO.shape, **SAME)


def test_lsqr_recovers_a_blurred_image():
    A, matrix = both()
    b = A @ PHOTO.ravel()
    x, matrix_x = (lsqr(each, b, damp=0.05, atol=1e-12, btol=1e-12)[0] for each in (A, matrix))
    np.testing.assert_allclose(x, matrix_x, atol=1e-8)
    assert np.linalg.norm(x - PHOTO.ravel()) < 0.9 * np.linalg.norm(b - PHOTO.ravel())


def test_cg_solves_the_damped_normal_equations():
    A, matrix = both()
    b = A @ PHOTO.ravel()
    normal = A.H @ A + 0.05**2 * aslinearoperator(sparse.eye_array(PHOTO.size))
    x, failed = cg(normal, A.H @ b, rtol=1e-12, maxiter=2000)
    assert failed == 0
    dense = matrix.toarray()
    np.testing.assert_allclose(x, linalg.solve(dense.T @ dense + 0.05**2 * np.eye(PHOTO.size), dense.T @ b), atol=1e-8)


def test_svds_finds_the_largest_singular_values():
    A, matrix = both()
    np.testing.assert_allclose(sorted(svds(A, 4)[1]), sorted(linalg.svdvals(matrix.toarray())[:4]), rtol=1e-9)


def test_complex_singular_values():
    weight = RNG.standard_normal((2, 1, 3)) + 1j * RNG.standard_normal((2, 1, 3))
    A, matrix = fastconv.conv_operator(weight, (1, 12)), fastconv.conv_matrix(weight, (1, 12))
    np.testing.assert_allclose(sorted(svds(A, 3)[1]), sorted(linalg.svdvals(matrix.toarray())[:3]), rtol=1e-9)


# ---- refusals


@pytest.mark.parametrize("function", [fastconv.conv_matrix, fastconv.conv_operator])
@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((np.ones((1, 1, 3)), (1, 2)), {}, r"weight.shape=\(1, 1, 3\): the dilated filter \(3,\) must not exceed"),
        ((np.ones((1, 1, 3)), (8,)), {}, r"input_shape=\(8,\): must have 3 axes, or 2 without the batch"),
        ((np.ones((1, 2, 3)), (1, 8)), {}, r"weight.shape=\(1, 2, 3\): axis 1 must be channels / groups"),
        ((np.ones(3), (1, 8)), {}, r"weight.shape=\(3,\): must have 3, 4 or 5 axes"),
        ((np.ones((1, 1, 3)), (1, 8)), {"padding_mode": "constant"}, "padding_mode='constant': is not linear in x"),
        ((np.ones((1, 1, 3)), (1, 8)), {"stride": 0}, "stride=0: must be an integer of at least 1"),
    ],
)
def test_refusals_name_the_argument_and_the_problem(function, arguments, options, message):
    with pytest.raises(ValueError, match=rf"^{message}.*\[problem: x=.* w=.* s=.* p=.* d=.* g=.*\]$"):
        function(*arguments, **options)


def test_an_algorithm_that_cannot_serve_is_refused_at_once():
    with pytest.raises(fastconv.UnsupportedError, match="winograd"):
        fastconv.conv_operator(np.ones((1, 1, 3, 3)), (1, 8, 8), stride=2, algorithm="winograd")
    with pytest.raises(ValueError, match="algorithm='none': must be one of"):
        fastconv.conv_operator(np.ones((1, 1, 3)), (1, 8), algorithm="none")


def test_a_vector_of_the_wrong_length():
    with pytest.raises(ValueError, match="dimension mismatch"):
        fastconv.conv_operator(np.ones((1, 1, 3)), (1, 8)) @ np.ones(7)


def test_a_vector_that_cannot_be_convolved_is_named():
    A = fastconv.conv_operator(np.ones((1, 1, 3)), (1, 8), algorithm="fft")
    with pytest.raises(TypeError, match=r"x.dtype='bool': must have one of .*\[problem: x=1x1x8 w=1x1x3 "):
        A @ np.ones(8, bool)
    with pytest.raises(ValueError, match=r"algorithm='fft': spreads NaN.*\[problem: x=1x1x8 w=1x1x3 "):
        A.rmatvec(np.full(6, np.nan))


def test_no_columns():
    A = fastconv.conv_operator(np.ones((1, 1, 3)), (1, 8))
    assert (A @ np.ones((8, 0))).shape == (6, 0)
    assert (A.H @ np.ones((6, 0))).shape == (8, 0)


def test_a_weight_of_half_precision_in_any_byte_order_counts_as_float32():
    weight = np.array([[[1.0, 2.0]]], np.float16)
    for order in "<>":
        given = weight.astype(weight.dtype.newbyteorder(order))
        A, B = fastconv.conv_matrix(given, (1, 4)), fastconv.conv_operator(given, (1, 4))
        assert A.dtype == B.dtype == np.float32
        np.testing.assert_array_equal(A.toarray(), B @ np.eye(4, dtype=np.float32))


def test_scipy_is_imported_when_an_operator_is_made():
    code = (
        "import sys, numpy, fastconv\n"
        "before = 'scipy' in sys.modules\n"
        "fastconv.conv_operator(numpy.ones((1, 1, 3)), (1, 8))\n"
        "print(before, 'scipy.sparse.linalg' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False True\n"
