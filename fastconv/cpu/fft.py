"""Convolution through the Fourier transform: a product of spectra in place of R * S products for each output.

Over a cyclic interval of n points a correlation is a product of spectra. With F the transform, and
F'(v) = conj(F(conj(v))) that of the reflected sequence::

    FORWARD      F(y)[k] = sum over c of F(x)[c]  * F'(w)[k, c]
    GRAD_INPUT   F(x)[c] = sum over k of F(y)[k]  * F(w)[k, c]
    GRAD_WEIGHT  F(w)[k, c] = sum over tiles of F(x)[c] * F'(y)[k]

Of n points, n - reach + 1 come out right (overlap-save), so that images are cut into tiles. There are several ways to
do so, each in a module of its own, and the cheapest of those that serve a problem is taken:

- `_fft_planes`: one or few channels, two tiles of each as one complex plane;
- `_fft_dense`, `_fft_dense_weight`: many channels, a register of them at once, in small tiles;
- `_fft_phases`: strides, whose phases are channels;
- `_fft_scipy`: anything, with the transforms of scipy.fft.

Source: Mathieu, Henaff, LeCun, "Fast Training of Convolutional Networks through FFTs", ICLR 2014.
"""

from __future__ import annotations

from types import ModuleType

from ..core.algorithm import Algorithm, Epilogue, Plan
from ..core.machine import Machine
from ..core.problem import ConvProblem, Op
from . import _fft_dense, _fft_dense_weight, _fft_phases, _fft_planes, _fft_scipy
from ._fft_phases import cheapest

WAYS = (_fft_planes, _fft_dense, _fft_dense_weight, _fft_phases, _fft_scipy)


def _way(problem: ConvProblem, op: Op) -> ModuleType:
    """The module that computes a problem."""
    return cheapest(WAYS, problem, op)


def supports(problem: ConvProblem, op: Op) -> str | None:
    if problem.is_exact:
        return "it computes in floating point, and integers must be exact"
    return None


def cost(problem: ConvProblem, op: Op, machine: Machine) -> float:
    seconds: float = _way(problem, op).cost(problem, op, machine)
    return seconds


def error_bound(problem: ConvProblem, op: Op) -> float:
    error: float = _way(problem, op).error_bound(problem, op)
    return error


def workspace(problem: ConvProblem, op: Op) -> int:
    bytes: int = _way(problem, op).workspace(problem, op)
    return bytes


def plan(problem: ConvProblem, op: Op, epilogue: Epilogue) -> Plan:
    made: Plan = _way(problem, op).plan(problem, op, epilogue)
    return made


ALGORITHM = Algorithm(
    name="fft",
    device="cpu",
    supports=supports,
    cost=cost,
    error_bound=error_bound,
    workspace=workspace,
    plan=plan,
    spreads=True,
)
