"""The exponential function and its kin without branches, so that LLVM computes a register of values at a time.

exp(x) = 2**n * exp(r) with n the integer nearest to x / log(2) and r = x - n * log(2), at most log(2) / 2 in magnitude.
log(2) is subtracted in two parts, of which the first has so few digits that n times it is exact. exp(r) - 1 is the
Taylor polynomial up to where the next term is below the rounding error.

Sources: Cody and Waite, "Software Manual for the Elementary Functions", 1980, chapter 6; Schonfelder, "Chebyshev
Expansions for the Error and Related Functions", Math. Comp. 32 (1978), 1232-1240.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from ..core.jit import IN_ORDER
from ._kernel import always_inlined


class _Format(NamedTuple):
    """What depends on the floating type.

    Attributes
    ----------
    real
        The type.
    digits, bias
        Bits of the mantissa behind its leading one; what is added to exponents.
    degree
        Of the Taylor polynomial.
    least, most
        Beyond them, exp is 0 and infinite.
    terms
        Of the Chebyshev series of erfc.
    """

    real: type[np.floating]
    digits: int
    bias: int
    degree: int
    least: float
    most: float
    terms: int


_FORMATS = {
    32: _Format(np.float32, 23, 127, 7, -104.0, 89.0, 13),
    64: _Format(np.float64, 52, 1023, 13, -746.0, 710.0, 24),
}

_POLE = 3.75
# Chebyshev coefficients of exp(z**2) * erfc(z) * (z + _POLE) in (z - _POLE) / (z + _POLE), for z >= 0; from their sums
# over 48 nodes in arithmetic of 60 digits.
_SCALED_ERFC = (
    1.5802719754089016, -1.4155291636062, 0.5310168126584589, -0.16770511573096467,
    0.044234890018353, -0.009506139167741073, 0.0015696224296742666, -0.0001678661262168746,
    1.971677029425334e-06, 3.086971620657423e-06, -4.936920694378021e-07, -9.53473146659699e-09,
    1.355826598349273e-08, -1.0830423386818938e-09, -2.9040184105173024e-10, 5.307787477918412e-11,
    5.780745301094449e-12, -1.993785314415682e-12, -1.1724828156626574e-13, 7.242772425819852e-14,
    2.8807292328713077e-15, -2.704740368320276e-15, -1.0963030130900087e-16, 1.0501564927720586e-16,
)  # fmt: skip


def _taylor(shape: _Format) -> list[float]:
    """(exp(r) - 1) / r."""
    return [1 / math.factorial(power + 1) for power in range(shape.degree)]


def _scaled_erfc(shape: _Format) -> list[float]:
    """The Chebyshev series in powers; they are as small as its coefficients, as those fall fast."""
    powers: list[float] = np.polynomial.chebyshev.cheb2poly(_SCALED_ERFC[: shape.terms]).tolist()
    return powers


TAYLOR, ERFC = 0, 1
_SERIES = {TAYLOR: _taylor, ERFC: _scaled_erfc}


@intrinsic(prefer_literal=True)
def _polynomial(typing_context, x, series):
    """One of `_SERIES`, a literal, at x, by Horner's rule; written out, as a loop in a loop would not be vectorised."""
    powers = _SERIES[series.literal_value](_FORMATS[x.bitwidth])

    def codegen(context, builder, signature, arguments):
        kind = context.get_value_type(x)
        name, form = f"llvm.fmuladd.f{x.bitwidth}", ir.FunctionType(kind, [kind] * 3)
        fma = cgutils.get_or_insert_function(builder.module, form, name)
        *lower, total = [ir.Constant(kind, power) for power in powers]
        for power in reversed(lower):
            total = builder.call(fma, [total, arguments[0], power])
        return total

    return x(x, series), codegen


_LOG_TWO_DIGITS = 6931471805599453094172321214581765680755  # log(2) * 10**40


def _log_two(kept: int) -> tuple[float, float]:
    """log(2) as a number of `kept` bits, and the rest."""
    scale = 1 << kept
    exact = Fraction(_LOG_TWO_DIGITS) / 10**40
    first = Fraction(math.floor(exact * scale), scale)
    return float(first), float(exact - first)


@intrinsic
def _power_of_two(typing_context, exponent, real):
    """2**exponent in the type of `real`, for the exponents of its normal numbers."""
    shape = _FORMATS[real.bitwidth]

    def codegen(context, builder, signature, arguments):
        integer = ir.IntType(real.bitwidth)
        number = builder.sext(arguments[0], integer) if real.bitwidth > 32 else arguments[0]
        biased = builder.add(number, ir.Constant(integer, shape.bias))
        bits = builder.shl(biased, ir.Constant(integer, shape.digits))
        return builder.bitcast(bits, context.get_value_type(real))

    return real(types.int32, real), codegen


def _reduced(x):
    """Integer n and exp(r) - 1, for which exp(x) = 2**n * exp(r); x must be within reach. For NaN, 0 and NaN."""
    raise NotImplementedError("called from compiled code only")


@overload(_reduced, jit_options=IN_ORDER)
def _choose_reduced(x):
    shape = _FORMATS[x.bitwidth]
    real = shape.real
    per_turn, half, none = real(1 / math.log(2)), real(0.5), real(0)
    first, second = map(real, _log_two(shape.digits - 12))

    def implementation(x):
        turns = x * per_turn
        rounded = turns + math.copysign(half, turns)
        n = np.int32(rounded if rounded == rounded else none)
        r = (x - real(n) * first) - real(n) * second
        return n, _polynomial(r, TAYLOR) * r

    return implementation


def exp(x):
    """The exponential function, within 2 units in the last place."""
    raise NotImplementedError("called from compiled code only")


@overload(exp, jit_options=IN_ORDER)
def _choose_exp(x):
    shape = _FORMATS[x.bitwidth]
    one, least, most = shape.real(1), shape.real(shape.least), shape.real(shape.most)

    def implementation(x):
        x = most if x > most else x
        x = least if x < least else x
        n, above_one = _reduced(x)
        half = n >> np.int32(1)  # in two steps, as 2**n may be no normal number
        return (one + above_one) * _power_of_two(half, x) * _power_of_two(np.int32(n - half), x)

    return implementation


def tanh(x):
    """The hyperbolic tangent, within 4 units in the last place: t / (t + 2) with t = exp(2 * x) - 1."""
    raise NotImplementedError("called from compiled code only")


@overload(tanh, jit_options=IN_ORDER)
def _choose_tanh(x):
    shape = _FORMATS[x.bitwidth]
    one, two, flat = shape.real(1), shape.real(2), shape.real(44)  # tanh(22) rounds to 1

    def implementation(x):
        twice = abs(x) * two
        n, above_one = _reduced(flat if twice > flat else twice)
        scale = _power_of_two(n, x)
        t = scale * above_one + (scale - one)
        return math.copysign(t / (t + two), x)

    return implementation


def normal_distribution(x):
    """The distribution function of the normal distribution, erfc(-x / sqrt(2)) / 2.

    Within 8 + x**2 units in the last place: the rounding of the exponent, -x**2 / 2, is magnified by it.
    """
    raise NotImplementedError("called from compiled code only")


@overload(normal_distribution, jit_options=IN_ORDER)
def _choose_normal_distribution(x):
    shape = _FORMATS[x.bitwidth]
    one, two, half = map(shape.real, (1, 2, 0.5))
    root_half, pole = shape.real(math.sqrt(0.5)), shape.real(_POLE)

    def implementation(x):
        always_inlined()
        z = abs(x) * root_half
        inverse = one / (z + pole)
        t = one - two * pole * inverse
        tail = half * (exp(-half * x * x) * _polynomial(t, ERFC) * inverse)
        return one - tail if x > 0 else tail

    return implementation
