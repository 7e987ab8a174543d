"""The JIT policy: what is compiled and when, and a disk cache that is never in the way."""

from __future__ import annotations

import gc
import importlib
import pathlib
import pkgutil
import subprocess
import sys

import numba
import pytest
from numba.core import event

from fastconv import cpu
from fastconv.core import jit
from fastconv.core.algorithm import PLAIN
from fastconv.core.evaluate import evaluate
from fastconv.core.problem import ConvProblem, Op
from fastconv.core.registry import algorithms
from fastconv.cpu import direct

from .problems import inputs_of, random_tensors, serves

EVERY = [pytest.param(a.name, op, id=f"{a.name}-{op.value}") for a in algorithms() for op in Op]
SHAPES = [
    "x=1x1x8x8 w=1x1x3x3",
    "x=2x6x17x9 w=4x3x2x5 s=2 p=1 d=1x2 g=2",
    "x=1x2x50 w=2x2x7 p=same mode=reflect",
    "x=1x2x5x6x7 w=3x2x2x3x2 layout=channels_last",
    "x=1x64x40x40 w=64x64x3x3 p=1",
]
# They need all that SHAPES do: both drivers, every way of fft, and winograd's kernels of three by three and of seven
# taps, of the latter those that reflect too, as do strips.
SEEN = [
    SHAPES[0],
    "x=1x1x40 w=1x1x7",
    "x=1x1x40 w=1x1x7 p=same mode=reflect",
    "x=1x2x40 w=2x2x7 p=same mode=reflect",
    "x=1x6x19x14 w=4x3x2x5 s=2 p=1 d=1x2 g=2",
    "x=1x2x6x7x8 w=3x2x3x3x3",
    SHAPES[-1],
]


class Compilations:
    """Functions that Numba compiled inside the context."""

    def __enter__(self):
        self._context = event.install_recorder("numba:run_pass")
        self._recorder = self._context.__enter__()
        return self

    def __exit__(self, *error):
        self._context.__exit__(*error)
        self.count = len(self._recorder.buffer)


@pytest.mark.parametrize(("algorithm", "op"), EVERY)
def test_new_shapes_compile_nothing(algorithm, op, monkeypatch):
    monkeypatch.setattr("fastconv.core.evaluate.SERIAL_SECONDS", 3e-6)

    def run(line):
        problem = ConvProblem.parse(line)
        if serves(algorithm, problem, op):
            evaluate(op, problem, algorithm=algorithm, **inputs_of(op, random_tensors(problem, 0)))

    for line in SEEN:
        run(line)
    with Compilations() as compilations:
        for line in SHAPES:
            run(line)
    assert compilations.count == 0


def test_the_count_sees_a_compilation():
    with Compilations() as compilations:
        numba.njit(lambda value: value + 1)(1)
    assert compilations.count > 0


def test_a_subroutine_is_no_function_of_python():
    with pytest.raises(TypeError):
        jit.subroutine(lambda value: value + 1)(1)


def run_python(code, cache, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"NUMBA_CACHE_DIR": str(cache), "PATH": "", **environment},
        cwd=pathlib.Path(__file__).parents[1],
    ).stdout


CALL = """
import numpy, fastconv
from numba.core import event
with event.install_recorder("numba:run_pass") as recorder:
    y = fastconv.conv1d(numpy.ones((1, 1, 5), "f4"), numpy.ones((1, 1, 2), "f4"), algorithm="direct")
assert (y == 2).all()
print(bool(recorder.buffer))
"""


def test_the_cache_is_used_and_survives_damage(tmp_path):
    assert run_python(CALL, tmp_path) == "True\n"
    assert run_python(CALL, tmp_path) == "False\n"
    files = [path for path in tmp_path.rglob("*") if path.suffix in (".nbi", ".nbc")]
    assert {path.suffix for path in files} == {".nbi", ".nbc"}
    for path in files:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert run_python(CALL, tmp_path) == "True\n"
    assert run_python(CALL, tmp_path) == "False\n"


def test_every_kernel_is_found_again_by_another_process():
    """The cache knows a kernel by the pickled values of its closure too, which are alike for plain data only."""
    for module in pkgutil.iter_modules(cpu.__path__):
        importlib.import_module(f"{cpu.__name__}.{module.name}")
    kernels = [each for each in gc.get_objects() if type(each) is jit.Kernel]
    assert len(kernels) > 50
    for each in kernels:
        held = [cell.cell_contents for cell in each._body.__closure__ or ()]
        assert all(isinstance(value, (int, str, type(None))) for value in held), f"{each._body.__module__}: {held}"


def test_no_place_for_a_cache_is_no_error(tmp_path):
    """A file stands where the directory would be, and the home is not writable either."""
    code = "import numba.core.caching as c; c.CacheImpl._locator_classes = []\n" + CALL
    assert run_python(code, tmp_path) == "True\n"


def test_the_stamp_covers_what_kernels_call(tmp_path):
    first = tmp_path / "kernels.py"
    first.write_text("a = 1")
    stamp = jit._stamp.__wrapped__
    before = stamp(str(first))
    assert stamp(str(first)) == before
    (tmp_path / "_shared.py").write_text("b = 2")
    assert stamp(str(first)) != before


def test_fast_math_keeps_nan_and_inf():
    assert {"contract", "reassoc"} == jit.FASTMATH


def test_a_kernel_has_one_address_for_each_type():
    plan = algorithms()[0].plan(ConvProblem.parse("x=1x1x4 w=1x1x2"), Op.FORWARD, PLAIN)
    assert plan.workspace_bytes > 0

    kernel = direct.KERNELS[Op.FORWARD][True]
    addresses = {dtype: kernel.address(dtype) for dtype in ("float32", "float64")}
    assert len(set(addresses.values())) == 2
    assert addresses == {dtype: kernel.address(dtype) for dtype in addresses}
