"""Float32 expansions of the functions that kernels use most; all others go through float64.

Each polynomial was fitted by Remez exchange at 45 digits for the relative error stated beside it,
then rounded to float32. The products of an exponent and a
leading constant (``_LN2_HI`` ...) are exact even where a target has no fused multiply-add.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..ir.dtypes import float32, float64
from . import math_exact, math_float64
from .math_builder import Num, at_least, at_most, clamp, copysign, fma, polynomial, select, sqrt

__all__ = ["FLOAT32"]

_INF, _NAN = float("inf"), float("nan")
_SQRT_HALF = 0.7071067811865476
_LOG2E = 1.4426950408889634
_LN2 = 0.6931472
_LN2_HI, _LN2_LO = 0.693359375, -2.12194440e-4
_ROUND = 1.5 * 2.0**23  # x + _ROUND - _ROUND is x rounded to an integer, |x| < 2**22
_MIN_NORMAL = 2.0**-126
_SQRT_HALF_BITS = 0x3F3504F3
_EXPONENT_FIELD = -0x800000  # sign and exponent bits, as a signed integer

# (e**r - 1 - r)/r**2 on |r| <= ln 2, degree 5: 1.5e-8 of e**r.
_EXP = (1.0, 1.0, 0.50000036, 0.16666614, 0.04166126, 0.008336109, 0.0014104677, 0.00019611345)
# The same on |r| <= ln(2)/2, degree 5: 2.6e-10 of expm1(r).
_EXPM1 = (0.5, 0.16666666, 0.041666348, 0.0083333915, 0.0013941652, 0.00019845959)
# The same, degree 4, for e**r: 5.0e-9.
_EXP_SHORT = (1.0, 1.0, 0.49999997, 0.16666539, 0.041667223, 0.008367181, 0.0013882398)
# (2**r - 1)/r on |r| <= 1/2, degree 5: 2.0e-9 of 2**r.
_EXP2 = (1.0, 0.6931472, 0.24022648, 0.055503324, 0.009618437, 0.0013398874, 0.00015353363)
# (log1p(f) - f)/f**2 on sqrt(1/2) <= 1 + f <= sqrt(2), degree 7: 3.0e-8 of log1p(f).
_LOG = (-0.4999999, 0.33333954, -0.25001767, 0.19961885, -0.16570081, 0.1491973, -0.14311641, 0.08734735)
# (log1p(y) - y)/y**2 on 0 <= y <= 1 in y - 1/2, degree 8: 5.1e-9 of log1p(y).
_LOG1P_UNIT = (
    -0.37813956, 0.1792249, -0.09323186, 0.05108906, -0.028904999,
    0.016656987, -0.010177709, 0.0069306935, -0.003318465,
)
# log2(erfc(a))/a on 0 <= a <= 3.93, degree 8: 1.2e-8 of erf(a), together with the next.
_LOG2_ERFC = (
    -1.627907, -0.91844815, -0.14827016, 0.027599363, 0.00030231377,
    -0.0024839684, 0.00095949095, -0.00018343862, 1.4943672e-05,
)
# ((2**r - 1)/r - ln 2)/r on |r| <= 1/2, degree 4: 1.0e-8 of 2**r - 1 below 0, 1.6e-8 above.
_EXP2M1 = (0.24022648, 0.05550367, 0.0096186595, 0.0013387477, 0.00015270972)
# sqrt(2) erfinv(x)/x in w - 3, w = -log(1 - x**2), on 0 <= w <= 6, degree 9: 5.0e-8.
_QUANTILE = (
    2.2960352897644043, 0.3417168855667114, -0.008115578442811966, -0.0011823838576674461, 0.000276445149211213,
    -1.804137536964845e-05, -2.6662398795451736e-06, 6.442832614084182e-07, -6.131920748941866e-09,
    -8.240029991668507e-09,
)
# The same over sqrt(w), in t - 1/4, t = 1/sqrt(w), on 6 <= w <= 104, degree 10: 5.0e-8.
_QUANTILE_TAIL = (
    1.357568621635437, -0.28027671575546265, 0.11402236670255661, 0.7972844243049622, -0.8031262159347534,
    8.99112606048584, 51.51165771484375, 27.499956130981445, -1142.7115478515625, -1186.0849609375, 9614.3984375,
)


def exp(x: Num) -> Num:
    """e**x = 2**(2m) e**r, scaled twice by 2**m, which neither overflows nor underflows early.

    Adding a large constant rounds ``x / (2 ln 2)`` to m and leaves m + 127 in the low bits, ready to
    be shifted into an exponent field.
    """
    x = clamp(x, -105.0, 90.0)
    shift = _ROUND + 127.0
    shifted = fma(x, _LOG2E / 2, shift)
    m = shifted - shift
    r = fma(m, -2 * _LN2_LO, fma(m, -2 * _LN2_HI, x))
    scale = (shifted.unsigned_bits() << 23).as_float()
    return polynomial(r, _EXP) * scale * scale


def exp2(x: Num) -> Num:
    """2**x = 2**n 2**r, exact for an integer x; n is split in two halves that are normal exponents."""
    shift = _ROUND + 254.0
    x = clamp(x, -151.0, 129.0)
    shifted = x + shift
    both = shifted.unsigned_bits() & 0x1FF  # n + 254
    half = both >> 1
    p = polynomial(x - (shifted - shift), _EXP2)
    return p * (half << 23).as_float() * ((both - half) << 23).as_float()


def _reduce_by_ln2(x: Num, bias: float) -> tuple[Num, Num]:
    """``scale, r`` with e**x = 2**n e**r and abs(r) <= ln(2)/2; the scale's exponent field is n + `bias`."""
    shifted = fma(x, _LOG2E, _ROUND + bias)
    n = shifted - (_ROUND + bias)
    return (shifted.unsigned_bits() << 23).as_float(), fma(n, -_LN2_LO, fma(n, -_LN2_HI, x))


def _exp_of_minus_abs(x: Num) -> Num:
    """e**-abs(x): one factor 2**n suffices, 2**64 too large so that it is a normal number."""
    scale, r = _reduce_by_ln2(at_least(-abs(x), -105.0), 127.0 + 64.0)
    return polynomial(r, _EXP_SHORT) * scale * 2.0**-64


def _expm1_times(scale: Num, one: float, r: Num) -> Num:
    """``scale * e**r - one``, its leading terms in one rounding."""
    return fma(scale, r * r * polynomial(r, _EXPM1), fma(scale, r, scale - one))


def expm1(x: Num) -> Num:
    """2**n e**r - 1, computed at half its size because 2**128 is no float."""
    half, r = _reduce_by_ln2(clamp(x, -30.0, 89.0), 126.0)
    value = _expm1_times(half, 0.5, r)
    return select(abs(x) < 2.0**-25, x, value + value)


def _log_parts(x: Num) -> tuple[Num, Num, Num]:
    """``k, f, t`` with ``log(x) = k 2**-23 ln 2 + f + t`` and f + 1 between sqrt(1/2) and sqrt(2)."""
    tiny = x < _MIN_NORMAL
    bits = select(tiny, x * 2.0**23, x).bits()
    exponent = (bits - _SQRT_HALF_BITS) & _EXPONENT_FIELD
    k = exponent.cast(float32) - select(tiny, x.lift(23 * 2.0**23), 0.0)
    f = (bits - exponent).as_float() - 1.0
    return k, f, f * f * polynomial(f, _LOG)


def _log_of_parts(k: Num, f: Num, t: Num) -> Num:
    return fma(k, _LN2_HI * 2.0**-23, f + fma(k, _LN2_LO * 2.0**-23, t))


def _log_domain(x: Num, value: Num) -> Num:
    """`value`, but the logarithm's special values where `x` is 0, negative, infinite or NaN."""
    edge = select(x.equals(0.0), x.lift(-_INF), _NAN)
    return select(x > 0.0, select(x < _INF, value, x), edge)


def log(x: Num) -> Num:
    return _log_domain(x, _log_of_parts(*_log_parts(x)))


def log2(x: Num) -> Num:
    """k + (f + t) log2(e); exact for a power of two."""
    k, f, t = _log_parts(x)
    return _log_domain(x, fma(k, 2.0**-23, f + fma(f, _LOG2E - 1, t * _LOG2E)))


def log1p(x: Num) -> Num:
    """The logarithm of 1 + x = 2**k (1 + f), with f = 2**-k x + (2**-k - 1) from x itself.

    So the rounding of 1 + x decides only about k. 2**-k is kept four times too large: k reaches 128.
    """
    whole = x + 1.0
    exponent = (whole.bits() - _SQRT_HALF_BITS) & _EXPONENT_FIELD
    scale = (0x40800000 - exponent).as_float()
    f = fma(x * 0.25, scale, fma(scale, 0.25, -1.0))
    t = f * f * polynomial(f, _LOG)
    value = _log_domain(whole, _log_of_parts(exponent.cast(float32), f, t))
    return select(abs(x) < 2.0**-25, x, value)


def _log1p_unit(y: Num) -> Num:
    """log(1 + y) for 0 <= y <= 1."""
    return fma(y * y, polynomial(y - 0.5, _LOG1P_UNIT), y)


def tanh(x: Num) -> Num:
    """(e**u - 1)/(e**u + 1), u = -2 abs(x), each term rounded by itself; 1 exactly where it should be."""
    scale, r = _reduce_by_ln2(at_least(abs(x) * -2.0, -40.0), 127.0)
    p = fma(r * r, polynomial(r, _EXPM1), r)
    return copysign(fma(scale, p, scale - 1.0) / fma(scale, p, scale + 1.0), x)


def erf(x: Num) -> Num:
    """1 - erfc(a) = 1 - 2**log2(erfc(a)), a = abs(x), as (1 - 2**n) - 2**n (2**r - 1), which is right near 0 as well.

    There is no division, and base 2 needs no multiplications to find n and r: they are what limits its speed.
    """
    a = at_most(abs(x), 3.93)
    log2_erfc = a * fma(a, _in_halves(a, _LOG2_ERFC[1:]), _LOG2_ERFC[0])
    shifted = log2_erfc + (_ROUND + 127.0)
    scale, r = (shifted.unsigned_bits() << 23).as_float(), log2_erfc - (shifted - (_ROUND + 127.0))
    power = fma(r, _LN2, r * r * _in_halves(r, _EXP2M1))
    return copysign(fma(scale, power, scale - 1.0), x)


def _in_halves(x: Num, coefficients: Sequence[float]) -> Num:
    """A polynomial as that of its even and that of its odd coefficients."""
    square = x * x
    return fma(x, polynomial(square, coefficients[1::2]), polynomial(square, coefficients[::2]))


def _quantile_over(w: Num) -> Num:
    """sqrt(2) erfinv(x)/x from w = -log(1 - x**2): after M. B. Giles, "Approximating the erfinv function" (2012)."""
    s = sqrt(w)
    tail = s * polynomial(1.0 / s - 0.25, _QUANTILE_TAIL)
    return select(w < 6.0, polynomial(w - 3.0, _QUANTILE), tail)


def erfinv(x: Num) -> Num:
    value = x * _SQRT_HALF * _quantile_over(-log((1.0 - x) * (1.0 + x)))
    return select(abs(x) < 1.0, value, select(abs(x).equals(1.0), x * _INF, _NAN))


def ndtri(p: Num) -> Num:
    """(2p - 1) _quantile_over(-log(4 p (1 - p))), as exact for p near 0 as near 1/2."""
    q = 1.0 - p
    value = ((p - 0.5) * 2.0) * _quantile_over(-log(p * 4.0 * q))
    edge = select(p.equals(0.0), p.lift(-_INF), select(p.equals(1.0), p * _INF, _NAN))
    return select((p > 0.0) & (p < 1.0), value, edge)


def sigmoid(x: Num) -> Num:
    """1/(1 + e**-x), with e**-abs(x) so that neither end overflows."""
    e = _exp_of_minus_abs(x)
    return select(x < 0.0, e, 1.0) / (1.0 + e)


def softplus(x: Num) -> Num:
    return at_least(x, 0.0) + _log1p_unit(_exp_of_minus_abs(x))


def logaddexp(a: Num, b: Num) -> Num:
    """max(a, b) + log1p(e**-abs(a - b)); equal operands differ by 0 even if infinite."""
    difference = select(a.equals(b), a.lift(0.0), a - b)
    return at_least(a, b) + _log1p_unit(_exp_of_minus_abs(difference))


def _through_float64(name: str) -> Callable[..., Num]:
    """The function computed in float64 with polynomials of float32's needs, rounded once."""
    function = math_float64.SHORT[name]

    def narrow(*args: Num) -> Num:
        return function(*(x.cast(float64) for x in args)).cast(float32)

    return narrow


FLOAT32: dict[str, Callable[..., Num]] = {
    **{f.__name__: f for f in (
        exp, exp2, expm1, log, log1p, log2, tanh, erf, erfinv, ndtri, sigmoid, softplus,
        logaddexp,
        math_exact.fmod, math_exact.nextafter,
    )},
    **{name: _through_float64(name) for name in math_float64.SHORT},
}
