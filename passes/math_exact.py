"""Expansions that are exact: next float, floating-point modulo, integer power."""

from __future__ import annotations

from ..ir.dtypes import float32, float64
from ..ir.loops import Const
from .math_builder import Num, copysign, fma, select

__all__ = ["fmod", "ipow", "nextafter"]


def nextafter(x: Num, y: Num) -> Num:
    """The float next to `x` towards `y`: floats of one sign are ordered as their bit patterns."""
    bits = x.bits()
    outward = (x < y) ^ (x < 0.0)  # y lies farther from 0 than x does, on the side of x
    stepped = (bits + select(outward, bits.lift(1), -1)).as_float()
    smallest = copysign(bits.lift(1).as_float(), y)
    moved = select(x.equals(0.0), smallest, stepped)
    return select(x.is_nan() | y.is_nan(), x + y, select(x.equals(y), y, moved))


def fmod(x: Num, y: Num) -> Num:
    """``x - floor(x / y) * y``, with the sign of `y`.

    A step subtracts the rounded quotient times `y`: the remainder of a correctly rounded division is
    exact in one fma, and the quotient loses 53 bits. Six steps in double precision exhaust every
    quotient of two float32 (below 2**277); four exhaust quotients of float64 below 2**200, and the
    result is 0 beyond, where no digit of `x` could say more.
    """
    dividend, divisor = x.cast(float64), y.cast(float64)
    remainder = dividend
    for _ in range(6 if x.dtype == float32 else 4):
        remainder = fma(-(remainder / divisor).trunc(), divisor, remainder)
    if x.dtype == float64:  # (x - x) / y is 0, or NaN for infinite x and for y = 0
        remainder = select(abs(x / y) > 2.0**200, (x - x) / y, remainder)
    remainder = select(abs(dividend) < abs(divisor), dividend, remainder)  # also for an infinite divisor
    remainder = remainder.cast(x.dtype)
    shifted = select((remainder < 0.0) ^ (y < 0.0), remainder + y, remainder)
    return select(remainder.equals(0.0), copysign(remainder.lift(0.0), y), shifted)


def ipow(x: Num, n: Num) -> Num:
    """``x ** n`` of integers modulo ``2**bits``, by squaring over the bits of `n`.

    A negative exponent gives the truncated value: 0 unless the base is 1 or -1, which keep the parity;
    a base of 0 gives 0. A literal exponent unrolls over its own bits only.
    """
    if isinstance(n.expr, Const):
        exponent = int(n.expr.value)
        if exponent >= 0:
            return _power_of_literal(x, exponent)
    signed = x.dtype.is_signed
    result, square = x.lift(1), x
    top = x.dtype.bits - (1 if signed else 0)
    for bit in range(top):
        result = select((n & (1 << bit)).differs(0), result * square, result)
        if bit + 1 < top:
            square = square * square
    if not signed:
        return result
    unit = x.equals(1) | x.equals(-1)
    inverse = select(unit, select((n & 1).differs(0), x, x.lift(1)), 0)
    return select(n < 0, inverse, result)


def _power_of_literal(x: Num, exponent: int) -> Num:
    result: Num | None = None
    while exponent:
        if exponent & 1:
            result = x if result is None else result * x
        exponent >>= 1
        if exponent:
            x = x * x
    return x.lift(1) if result is None else result
