"""Float64 expansions, and their short forms that serve the rarer float32 functions.

A function takes a `Tables` of polynomials: `FULL` to the last digits of a float64, `SHORT` to about
1e-9, which float32 needs. Polynomials were fitted by Remez exchange at 45 digits for the relative
errors stated beside them. Range reductions are those of W. J. Cody and W. Waite, *Software Manual for
the Elementary Functions* (1980); the exact sums and products those of T. J. Dekker, "A floating-point
technique for extending the available precision" (1971).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from ..ir import normal_quantile
from ..ir.dtypes import float64
from . import math_exact
from .math_builder import Num, at_least, at_most, bits_of, clamp, copysign, fma, polynomial, select, sqrt

__all__ = ["FLOAT64", "FULL", "SHORT", "Tables"]

_INF, _NAN = float("inf"), float("nan")
_LOG2E, _LOG10E = 1.4426950408889634, 0.4342944819032518
_LN2_HI, _LN2_LO = 0.6931471805598903, 5.497923018708371e-14  # 42 bits, the rest
_LOG10_2_HI, _LOG10_2_LO = 0.3010299955494702, 1.1451100898021838e-10  # 32 bits, the rest
_LN2 = 0.6931471805599453
_SQRT_HALF = 0.7071067811865476
_PI, _PI_LO = 3.141592653589793, 1.2246467991473532e-16
_PI_2, _PI_2_LO = 1.5707963267948966, 6.123233995736766e-17
_TWO_OVER_PI = 0.6366197723675814
_PI_2_BY_33_BITS = (1.5707963267341256, 6.077100506303966e-11, 2.0222662487111665e-21, 8.4784276603689e-32)
_PI_2_BY_27_BITS = (1.570796325802803, 9.920935739593517e-10, 5.721188726109832e-18)
_ROUND = 1.5 * 2.0**52  # x + _ROUND - _ROUND is x rounded to an integer, |x| < 2**51
_MIN_NORMAL = 2.0**-1022
_BIAS = 1023 << 52
_SQRT_HALF_BITS = 0x3FE6A09E667F3BCD
_MANTISSA_FIELD, _EXPONENT_FIELD = (1 << 52) - 1, 0x7FF << 52


@dataclass(frozen=True)
class Tables:
    """Polynomials of one precision.

    Attributes
    ----------
    expm1 : (e**r - 1 - r)/r**2 on abs(r) <= ln(2)/2.
    log : (2 atanh(s)/s - 2)/z, z = s**2, on abs(s) <= 3 - sqrt(8).
    sin, cos : (sin(r)/r - 1)/z and (cos(r) - 1 + z/2)/z**2, z = r**2, on abs(r) <= pi/4.
    atan : (atan(q)/q - 1)/z, z = q**2, on abs(q) <= 1.
    """

    expm1: Sequence[float]
    log: Sequence[float]
    sin: Sequence[float]
    cos: Sequence[float]
    atan: Sequence[float]


FULL = Tables(
    expm1=(  # degree 9: 2.0e-17
        0.5000000000000006, 0.16666666666666582, 0.04166666666656942, 0.008333333333394172,
        0.0013888888934152953, 0.00019841269711531553, 2.480150198657641e-05, 2.7557411127288517e-06,
        2.7627402603322335e-07, 2.5053795439602352e-08,
    ),
    log=(  # degree 6: 1.2e-18
        0.6666666666666735, 0.39999999999411073, 0.2857142874326625, 0.2222219847565851,
        0.18183569754703288, 0.15313902916171723, 0.14797510569321579,
    ),
    sin=(  # degree 5: 3.7e-18
        -0.1666666666666663, 0.008333333333322005, -0.000198412698294952,
        2.7557313587529506e-06, -2.5050742295555803e-08, 1.5895904108152001e-10,
    ),
    cos=(  # degree 5: 5.7e-20
        0.041666666666666595, -0.0013888888888872895, 2.4801587288748244e-05,
        -2.755731414863942e-07, 2.0875696574688656e-09, -1.1358310594748344e-11,
    ),
    atan=(  # degree 19: 4.6e-18
        -0.3333333333333307, 0.19999999999951462, -0.14285714282575138, 0.11111111007026689,
        -0.09090907002996286, 0.07692279839307578, -0.06666404057432249, 0.05880527812609273,
        -0.05253518540393661, 0.04722322166020851, -0.04219178806888027, 0.036641907650186344,
        -0.029903853049731643, 0.02198484645895723, -0.013900553525553442, 0.007196498559277947,
        -0.0028849161132110004, 0.0008313210416913609, -0.00015216069639493277, 1.3225059252217695e-05,
    ),
)

_SHORT = Tables(
    expm1=(  # degree 5: 2.6e-10
        0.5, 0.16666666, 0.041666348, 0.0083333915, 0.0013941652, 0.00019845959,
    ),
    log=(  # degree 3: 4.8e-12
        0.6666666564127146, 0.40000336224713134, 0.285372379919369, 0.23583574813032007,
    ),
    sin=(-0.16666654536652156, 0.008332156053271983, -0.00019514631727734705),  # degree 2: 3.8e-9
    cos=(0.04166664555447165, -0.0013887309866652407, 2.4432412981523195e-05),  # degree 2: 1.2e-10
    atan=(  # degree 9: 4.0e-10
        -0.33333326899227855, 0.1999967111403377, -0.14279832954850186, 0.11058223122566953,
        -0.0881108946190567, 0.06741593079623111, -0.044689887659075306, 0.022539823048285952,
        -0.0073179365625149345, 0.0011137848832841048,
    ),
)

# (2**r - 1)/r on |r| <= 1/2, degree 10: 3.4e-18 of 2**r.
_EXP2 = (
    1.0, 0.6931471805599453, 0.2402265069591013, 0.055504108664820084, 0.009618129107594112,
    0.0013333558146774343, 0.00015403530457121258, 1.5252733493350624e-05, 1.3215435278365871e-06,
    1.0178199489437151e-07, 7.073783849181927e-09, 4.4347826679105275e-10,
)
# (2 atanh(s)/s - 2)/s**2 on |s| <= 1/3, degree 9: 1.3e-18.
_LOG1P_UNIT = (
    0.6666666666666631, 0.4000000000015724, 0.28571428547854555, 0.22222223969687352,
    0.18181743926510213, 0.15386559888755721, 0.13300974041536626, 0.12106082625780328,
    0.0834011742455233, 0.17018545777687974,
)
# (2 atanh(s)/s - 2 - 2/3 z)/z**2, z = s**2, on |s| <= 3 - sqrt(8), degree 6: 1.1e-20 of the whole.
_LOG_TAIL = (
    0.4000000000000227, 0.28571428570091895, 0.22222222521353513, 0.18181784237112394,
    0.15386763527590755, 0.13256668941713967, 0.13197749153208438,
)
_TWO_THIRDS, _TWO_THIRDS_LO = 2 / 3, 3.700743415417188e-17
# (sinh(x)/x - 1)/z, z = x**2, on |x| <= 1, degree 6: 8.7e-20.
_SINH = (
    0.16666666666666669, 0.008333333333333148, 0.00019841269841431875, 2.7557319157070853e-06,
    2.505212313686714e-08, 1.605725975856933e-10, 7.758749083954065e-13,
)
# erf(x)/x in x**2 on |x| <= 1, degree 11: 7.3e-18.
_ERF = (
    1.1283791670955126, -0.3761263890318352, 0.11283791670944185, -0.02686617064311153,
    0.00522397760611888, -0.000854832592932979, 0.00012055293577272878, -1.4924712308029719e-05,
    1.6447131635680484e-06, -1.6206314196309946e-07, 1.3710982108482451e-08, -7.779471406957415e-10,
)
# -log(erfc(x)) in x - 2.5 on 1 <= x <= 6, degree 16: erfc(x) to 3.0e-17.
_MINUS_LOG_ERFC = (
    7.806815272727195, 5.352680750985739, 0.9438937335267714, 0.010858072765186503,
    -0.0021654768700620714, 0.00042093241744806527, -7.703114388429273e-05, 1.2755888530220304e-05,
    -1.7682169819905974e-06, 1.5649897929601118e-07, 1.2122056460938592e-08, -1.162451207717426e-08,
    3.4759027780306037e-09, -5.628576847614422e-10, 2.614117395562833e-10, -5.506084983855652e-11,
    -1.7403287068332735e-11,
)


# --- exponentials --------------------------------------------------------------------------------


def _exp_parts(x: Num, tables: Tables, low: Num | None = None) -> tuple[Num, Num, Num]:
    """``p, a, b`` with e**(x + low) = p a b for -760 < x < 1400; a b = 2**n, p between 0.7 and 1.5."""
    shift = _ROUND + 2046.0
    shifted = fma(x, _LOG2E, shift)
    n = shifted - shift
    r = fma(n, -_LN2_LO, fma(n, -_LN2_HI, x))
    if low is not None:
        r = r + low
    return (polynomial(r, (1.0, 1.0, *tables.expm1)), *_two_scales(shifted))


def _two_scales(shifted: Num) -> tuple[Num, Num]:
    """Two normal powers of 2 whose product is 2**n, for ``shifted = _ROUND + 2046 + n``.

    Adding a large constant rounds to an integer and leaves it in the low bits, ready to be shifted
    into an exponent field.
    """
    both = shifted.unsigned_bits() & 0xFFF
    half = both >> 1
    return (half << 52).as_float(), ((both - half) << 52).as_float()


def _exp(x: Num, tables: Tables) -> Num:
    p, a, b = _exp_parts(x, tables)
    return p * a * b


def exp(x: Num, tables: Tables) -> Num:
    return _exp(clamp(x, -746.0, 710.0), tables)


def _exp_of_minus_abs(x: Num, tables: Tables) -> Num:
    return _exp(at_least(-abs(x), -746.0), tables)


def exp2(x: Num, tables: Tables) -> Num:
    """2**x = 2**n 2**r, exact for an integer x."""
    shift = _ROUND + 2046.0
    x = clamp(x, -1076.0, 1025.0)
    shifted = x + shift
    a, b = _two_scales(shifted)
    return polynomial(x - (shifted - shift), _EXP2) * a * b


def expm1(x: Num, tables: Tables) -> Num:
    """2**n (e**r - 1) + (2**n - 1), computed at half its size because 2**1024 is no float."""
    shift = _ROUND + 1022.0
    y = clamp(x, -60.0, 710.0)
    shifted = fma(y, _LOG2E, shift)
    n = shifted - shift
    r = fma(n, -_LN2_LO, fma(n, -_LN2_HI, y))
    half = (shifted.unsigned_bits() << 52).as_float()
    value = fma(half, r * r * polynomial(r, tables.expm1), fma(half, r, half - 0.5))
    return select(abs(x) < 2.0**-54, x, value + value)


def _half_exp(x: Num, tables: Tables) -> Num:
    """e**x / 2 where x >= 0; e**x itself may overflow."""
    p, a, b = _exp_parts(at_most(x, 711.0), tables)
    return p * a * (b * 0.5)


def sinh(x: Num, tables: Tables) -> Num:
    z = x * x
    half = _half_exp(abs(x), tables)
    return select(abs(x) < 1.0, fma(x * z, polynomial(z, _SINH), x), copysign(half - 0.25 / half, x))


def cosh(x: Num, tables: Tables) -> Num:
    half = _half_exp(abs(x), tables)
    return half + 0.25 / half


def tanh(x: Num, tables: Tables) -> Num:
    e = expm1(at_most(abs(x), 22.0) * 2.0, tables)
    return copysign(e / (e + 2.0), x)


def sigmoid(x: Num, tables: Tables) -> Num:
    """1/(1 + e**-x), with e**-abs(x) so that neither end overflows."""
    e = _exp_of_minus_abs(x, tables)
    return select(x < 0.0, e, 1.0) / (1.0 + e)


def erf(x: Num, tables: Tables) -> Num:
    """An odd polynomial below 1, 1 - exp(log(erfc(x))) above."""
    a, z = abs(x), x * x
    erfc = _exp(-polynomial(at_most(a, 6.0) - 2.5, _MINUS_LOG_ERFC), tables)
    return select(a < 1.0, x * polynomial(z, _ERF), copysign(1.0 - erfc, x))


def _quantile(q: Num, tail: Num, tables: Tables) -> Num:
    """The normal quantile of 1/2 + q, `tail` = 1/2 - abs(q): M. J. Wichura's algorithm AS 241 (1988)."""

    def quotient(x: Num, parts: tuple[tuple[float, ...], tuple[float, ...]]) -> Num:
        return polynomial(x, parts[0]) / polynomial(x, parts[1])

    r = sqrt(-log(tail, tables))
    far = r > normal_quantile.MIDDLE_LIMIT
    outer = select(far, quotient(r - 5.0, normal_quantile.FAR), quotient(r - 1.6, normal_quantile.MIDDLE))
    limit = normal_quantile.CENTRAL_LIMIT
    central = q * quotient(fma(-q, q, limit * limit), normal_quantile.CENTRAL)
    value = select(abs(q) < limit, central, copysign(outer, q))
    return select(tail > 0.0, value, select(tail.equals(0.0), q * _INF, _NAN))


def erfinv(x: Num, tables: Tables) -> Num:
    return _quantile(x * 0.5, 0.5 - abs(x) * 0.5, tables) * _SQRT_HALF


def ndtri(p: Num, tables: Tables) -> Num:
    return _quantile(p - 0.5, select(p < 0.5, p, 1.0 - p), tables)


# --- logarithms ----------------------------------------------------------------------------------


def _split(biased: Num, bias: Num | float) -> Num:
    """The exponent k of ``biased = bits + _BIAS - _SQRT_HALF_BITS`` as a float.

    It is written into the low bits of 2**52: vector units shift 64-bit integers without sign, but
    few convert them to floats.
    """
    return ((biased >> 52) | bits_of(2.0**52, float64)).as_float() - bias


def _mantissa(x: Num) -> tuple[Num, Num]:
    """``k, f`` with x = 2**k (1 + f), 1 + f between sqrt(1/2) and sqrt(2), for a finite x > 0."""
    tiny = x < _MIN_NORMAL
    biased = select(tiny, x * 2.0**54, x).unsigned_bits() + (_BIAS - _SQRT_HALF_BITS)
    k = _split(biased, select(tiny, x.lift(2.0**52 + 1077.0), 2.0**52 + 1023.0))
    return k, ((biased & _MANTISSA_FIELD) + _SQRT_HALF_BITS).as_float() - 1.0


def _log1p_tail(f: Num, tables: Tables) -> Num:
    """``log(1 + f) - f``: with s = f/(2 + f) the logarithm is 2 atanh(s) = f - f**2/2 + s (f**2/2 + R)."""
    s = f / (f + 2.0)
    z, half_square = s * s, f * f * 0.5
    return s * fma(z, polynomial(z, tables.log), half_square) - half_square


def _log_of_parts(k: Num, f: Num, t: Num) -> Num:
    return fma(k, _LN2_HI, f + fma(k, _LN2_LO, t))


def _log_domain(x: Num, value: Num) -> Num:
    """`value`, but the logarithm's special values where `x` is 0, negative, infinite or NaN."""
    edge = select(x.equals(0.0), x.lift(-_INF), _NAN)
    return select(x > 0.0, select(x < _INF, value, x), edge)


def log(x: Num, tables: Tables) -> Num:
    k, f = _mantissa(x)
    return _log_domain(x, _log_of_parts(k, f, _log1p_tail(f, tables)))


def log2(x: Num, tables: Tables) -> Num:
    """k + (f + t) log2(e); exact for a power of two."""
    k, f = _mantissa(x)
    return _log_domain(x, k + (f + fma(f, _LOG2E - 1, _log1p_tail(f, tables) * _LOG2E)))


def log10(x: Num, tables: Tables) -> Num:
    k, f = _mantissa(x)
    fraction = fma(f, _LOG10E, _log1p_tail(f, tables) * _LOG10E)
    return _log_domain(x, fma(k, _LOG10_2_HI, fma(k, _LOG10_2_LO, fraction)))


def log1p(x: Num, tables: Tables) -> Num:
    """The logarithm of 1 + x = 2**k (1 + f), with f = 2**-k x + (2**-k - 1) from x itself.

    So the rounding of 1 + x decides only about k. 2**-k is kept four times too large: k reaches 1024.
    """
    whole = x + 1.0
    biased = whole.unsigned_bits() + (_BIAS - _SQRT_HALF_BITS)
    scale = (biased.lift(bits_of(4.0, float64) + _BIAS) - (biased & _EXPONENT_FIELD)).as_float()
    f = fma(x * 0.25, scale, fma(scale, 0.25, -1.0))
    value = _log_of_parts(_split(biased, 2.0**52 + 1023.0), f, _log1p_tail(f, tables))
    return select(abs(x) < 2.0**-54, x, _log_domain(whole, value))


def _log1p_unit(y: Num) -> Num:
    """log(1 + y) = 2 atanh(y/(2 + y)) for 0 <= y <= 1."""
    s = y / (y + 2.0)
    z = s * s
    return fma(s * z, polynomial(z, _LOG1P_UNIT), s + s)


def softplus(x: Num, tables: Tables) -> Num:
    return at_least(x, 0.0) + _log1p_unit(_exp_of_minus_abs(x, tables))


def logaddexp(a: Num, b: Num, tables: Tables) -> Num:
    """max(a, b) + log1p(e**-abs(a - b)); equal operands differ by 0 even if infinite."""
    difference = select(a.equals(b), a.lift(0.0), a - b)
    return at_least(a, b) + _log1p_unit(_exp_of_minus_abs(difference, tables))


def asinh(x: Num, tables: Tables) -> Num:
    """log1p(a + a**2/(1 + sqrt(a**2 + 1))), a = abs(x); above 2**28, before a**2 overflows, log(2 a)."""
    a = abs(x)
    large = a > 2.0**28
    u = select(large, a - 1.0, a + a * a / (1.0 + sqrt(fma(a, a, 1.0))))
    return copysign(log1p(u, tables) + select(large, x.lift(_LN2), 0.0), x)


def acosh(x: Num, tables: Tables) -> Num:
    """log1p(t + sqrt(2 t + t**2)), t = x - 1; above 2**28 log(2 x)."""
    large = x > 2.0**28
    t = x - 1.0
    u = select(large, t, t + sqrt(fma(t, t, t + t)))
    return select(x < 1.0, x.lift(_NAN), log1p(u, tables) + select(large, x.lift(_LN2), 0.0))


def atanh(x: Num, tables: Tables) -> Num:
    a = abs(x)
    return copysign(0.5 * log1p(2.0 * a / (1.0 - a), tables), x)


# --- powers --------------------------------------------------------------------------------------


def _product(a: Num, b: Num | float) -> Num:
    """The rounded product, which an emitter that contracts ``a * b + c`` must not look through."""
    return fma(a, b, 0.0)


def _exact_log(x: Num) -> tuple[Num, Num]:
    """log(x) as the sum of two floats, to about 2**-64 of itself, for a finite x > 0.

    log(1 + f) = 2 s + 2/3 s**3 + s**5 Q(s**2), s = f/(2 + f): the first two terms in two floats.
    """
    k, f = _mantissa(x)
    d = f + 2.0
    d_low = f - (d - 2.0)
    inverse = 1.0 / d
    s = _product(f, inverse)
    s_low = fma(-s, d_low, fma(-s, d, f)) * inverse
    z = _product(s, s)
    z_low = fma(s + s, s_low, fma(s, s, -z))
    cube = _product(s, z)
    cube_low = fma(s_low, z, fma(s, z_low, fma(s, z, -cube)))
    third = _product(cube, _TWO_THIRDS)
    third_low = fma(cube_low, _TWO_THIRDS, fma(cube, _TWO_THIRDS_LO, fma(cube, _TWO_THIRDS, -third)))
    tail = _product(cube, _product(z, polynomial(z, _LOG_TAIL)))
    twice = s + s
    fraction = twice + third
    low = (third - (fraction - twice)) + fma(s_low, 2.0, third_low + tail)
    whole = _product(k, _LN2_HI)
    high = whole + fraction
    low = (fraction - (high - whole)) + fma(k, _LN2_LO, low)
    total = high + low
    return total, low - (total - high)


def pow(x: Num, y: Num, tables: Tables) -> Num:
    """e**(y log abs(x)), the exponent in two floats where `tables` is `FULL`, then C99's special cases."""
    base = abs(x)
    if tables is FULL:
        high, rest = _exact_log(base)
        log_base = _log_domain(base, high)
        product = _product(y, log_base)
        low: Num | None = fma(y, log_base, -product) + y * rest
    else:
        product, low = y * log(base, tables), None
    exponent = clamp(select(base.equals(1.0), x.lift(0.0), product), -746.0, 711.0)  # 0, not 0 * inf
    if low is not None:
        low = select(exponent.equals(product), low, 0.0)
    p, a, b = _exp_parts(exponent, tables, low)
    return _pow_cases(x, y, p * a * b)


def _pow_cases(x: Num, y: Num, magnitude: Num) -> Num:
    half = y * 0.5
    integer, even = y.equals(y.trunc()), half.equals(half.trunc())
    negative = x.bits() < 0
    signed = select(negative & integer & even.op("bitnot"), -magnitude, magnitude)
    finite_negative = (x < 0.0) & (x > -_INF)
    value = select(finite_negative & integer.op("bitnot"), x.lift(_NAN), signed)
    value = select(x.is_nan() | y.is_nan(), x + y, value)
    return select(x.equals(1.0) | y.equals(0.0), x.lift(1.0), value)


def hypot(x: Num, y: Num, tables: Tables) -> Num:
    """The larger times sqrt(1 + ratio**2); float32 operands cannot overflow in float64."""
    a, b = abs(x), abs(y)
    if tables is FULL:
        large, small = at_least(a, b), at_most(a, b)
        ratio = small / large
        value = select(large.equals(0.0), large, large * sqrt(fma(ratio, ratio, 1.0)))
    else:
        value = sqrt(fma(a, a, b * b))
    value = select(x.is_nan() | y.is_nan(), x + y, value)
    return select(a.equals(_INF) | b.equals(_INF), x.lift(_INF), value)


# --- trigonometry --------------------------------------------------------------------------------


def _reduce(x: Num, tables: Tables) -> tuple[Num, Num, Num | None]:
    """``n, r, low`` with x = n pi/2 + r + low, abs(r) <= pi/4; n is in the low bits of an integer.

    With `FULL`, products of n and the 33-bit parts of pi/2 are exact for abs(x) < 1.6e6 and r + low is
    right to the last bit there; with `SHORT` the parts have 27 bits, for abs(x) < 1e8. Beyond, digits
    are lost in proportion to x, and r is limited so that no result leaves [-1, 1].
    """
    shifted = fma(x, _TWO_OVER_PI, _ROUND)
    n = shifted - _ROUND
    low: Num | None = None
    if tables is FULL:
        p1, p2, p3, p4 = _PI_2_BY_33_BITS
        r = fma(n, -p1, x)
        r, low2 = _subtract_product(r, n, p2)
        r, low3 = _subtract_product(r, n, p3)
        rest = fma(n, -p4, low2 + low3)
        total = r + rest
        r, low = total, clamp(rest - (total - r), -(2.0**-30), 2.0**-30)
    else:
        p1, p2, p3 = _PI_2_BY_27_BITS
        r = fma(n, -p3, fma(n, -p2, fma(n, -p1, x)))
    return shifted.bits(), clamp(r, -0.79, 0.79), low


def _subtract_product(a: Num, n: Num, part: float) -> tuple[Num, Num]:
    """``a - n part`` as the rounded difference and its error."""
    difference = fma(n, -part, a)
    return difference, fma(n, -part, a - difference)


def _sin_cos(r: Num, low: Num | None, tables: Tables) -> tuple[Num, Num]:
    z = r * r
    half_z = z * 0.5
    near_one = 1.0 - half_z
    sin_tail = r * z * polynomial(z, tables.sin)
    cos_tail = ((1.0 - near_one) - half_z) + z * z * polynomial(z, tables.cos)
    if low is not None:
        sin_tail = fma(low, near_one, sin_tail)
        cos_tail = fma(-r, low, cos_tail)
    return r + sin_tail, near_one + cos_tail


def _flip(value: Num, quadrant: Num) -> Num:
    """`value` negated where bit 1 of `quadrant` is set."""
    return (value.bits() ^ ((quadrant & 2) << 62)).as_float()


def sin(x: Num, tables: Tables) -> Num:
    quadrant, r, low = _reduce(x, tables)
    s, c = _sin_cos(r, low, tables)
    return select(x.equals(0.0), x, _flip(select((quadrant & 1).differs(0), c, s), quadrant))


def cos(x: Num, tables: Tables) -> Num:
    quadrant, r, low = _reduce(x, tables)
    s, c = _sin_cos(r, low, tables)
    return _flip(select((quadrant & 1).differs(0), s, c), quadrant + 1)


def tan(x: Num, tables: Tables) -> Num:
    quadrant, r, low = _reduce(x, tables)
    s, c = _sin_cos(r, low, tables)
    odd = (quadrant & 1).differs(0)
    return select(x.equals(0.0), x, select(odd, -c, s) / select(odd, s, c))


def _angle(opposite: Num, adjacent: Num, tables: Tables) -> Num:
    """The angle in [0, pi/2] of a right triangle with legs >= 0: atan of the ratio that is <= 1."""
    steep = opposite > adjacent
    small, large = select(steep, adjacent, opposite), select(steep, opposite, adjacent)
    equal = select(large.equals(0.0), large, 1.0)  # 0/0 and inf/inf
    q = select(small.equals(large), equal, small / large)
    z = q * q
    angle = fma(q * z, polynomial(z, tables.atan), q)
    return select(steep, _PI_2 - (angle - _PI_2_LO), angle)


def _reflect(negative: Num, angle: Num) -> Num:
    """``pi - angle`` where `negative`."""
    return select(negative, _PI - (angle - _PI_LO), angle)


def atan(x: Num, tables: Tables) -> Num:
    return copysign(_angle(abs(x), x.lift(1.0), tables), x)


def atan2(y: Num, x: Num, tables: Tables) -> Num:
    return copysign(_reflect(x.bits() < 0, _angle(abs(y), abs(x), tables)), y)


def asin(x: Num, tables: Tables) -> Num:
    return copysign(_angle(abs(x), sqrt((1.0 - x) * (1.0 + x)), tables), x)


def acos(x: Num, tables: Tables) -> Num:
    return _reflect(x < 0.0, _angle(sqrt((1.0 - x) * (1.0 + x)), abs(x), tables))


_TRANSCENDENTAL: tuple[Callable[..., Num], ...] = (
    exp, exp2, expm1, log, log1p, log2, log10, sin, cos, tan, asin, acos, atan, atan2, sinh, cosh, tanh,
    asinh, acosh, atanh, pow, hypot, erf, erfinv, ndtri, sigmoid, softplus, logaddexp,
)

FLOAT64: dict[str, Callable[..., Num]] = {
    **{f.__name__: partial(f, tables=FULL) for f in _TRANSCENDENTAL},
    "fmod": math_exact.fmod,
    "nextafter": math_exact.nextafter,
}

SHORT: dict[str, Callable[..., Num]] = {
    f.__name__: partial(f, tables=_SHORT) for f in (
        log10, sin, cos, tan, asin, acos, atan, atan2, sinh, cosh, asinh, acosh, atanh, pow, hypot,
    )
}
