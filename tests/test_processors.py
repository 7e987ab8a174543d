"""The kernels of processors other than this one, which Numba is told to generate code for."""

from __future__ import annotations

import os
import pathlib
import platform
import subprocess
import sys

import pytest

CODE = """
from fastconv.core.evaluate import evaluate
from fastconv.core.problem import ConvProblem, Op
from fastconv.cpu import _gemm, _simd
from tests.problems import inputs_of, random_tensors, serves
from tests.test_guards import EDGES, TOLERANCE, error
from tests.test_two_passes import SIZES, test_every_border_and_size

for dtype in ("float32", "complex64"):
    for line in EDGES[::6]:
        problem = ConvProblem.parse(line).replace(dtype=dtype)
        tensors = random_tensors(problem, 3)
        for op in Op:
            for algorithm in ("direct", "winograd"):
                if serves(algorithm, problem, op):
                    result = evaluate(op, problem, algorithm=algorithm, **inputs_of(op, tensors))
                    assert error(problem, op, tensors, result) < TOLERANCE, (line, dtype, op, algorithm)
for dtype in ("float32", "float64"):
    for sizes in SIZES:
        test_every_border_and_size(sizes, "constant", dtype)
print(_simd.REGISTER_BYTES, _gemm.TILE.rows)
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names processors of this architecture")
@pytest.mark.parametrize(
    ("name", "features", "expected"),
    [("haswell", "+avx,+avx2,+fma,+bmi2,+sse4.2", "32 4\n"), ("x86-64", "", "16 4\n")],
    ids=["AVX2", "generic"],
)
def test_smaller_registers(tmp_path, name, features, expected):
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        capture_output=True,
        text=True,
        check=False,
        cwd=pathlib.Path(__file__).parents[1],
        env={
            **os.environ,
            "NUMBA_CPU_NAME": name,
            "NUMBA_CPU_FEATURES": features,
            "NUMBA_CACHE_DIR": str(tmp_path),
        },
    )
    assert (done.returncode, done.stdout) == (0, expected), done.stderr[-2000:]
