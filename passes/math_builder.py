"""Scalar expressions with Python operators: the notation in which the math expansions are written."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ..ir.dtypes import DType, bool_, float32, float64, int32, int64, uint32, uint64
from ..ir.loops import Const, Expr, Scalar

__all__ = [
    "Num",
    "Operand",
    "at_least",
    "at_most",
    "bits_of",
    "clamp",
    "copysign",
    "fma",
    "polynomial",
    "select",
    "sqrt",
]

_SIGNED = {float32: int32, float64: int64}
_UNSIGNED = {float32: uint32, float64: uint64}


@dataclass(frozen=True, eq=False)
class Num:
    """A scalar expression; Python numbers joined with it become literals of its dtype."""

    expr: Expr

    @property
    def dtype(self) -> DType:
        return self.expr.dtype

    def lift(self, value: Operand) -> Num:
        """`value` as an expression; a float32 literal is rounded to float32 here, not by the emitter."""
        if isinstance(value, Num):
            return value
        if self.dtype.is_float:
            return Num(Const(float(self.dtype.numpy.type(value)), self.dtype))
        return Num(Const(bool(value) if self.dtype.is_bool else int(value), self.dtype))

    def op(self, name: str, *others: Operand, dtype: DType | None = None) -> Num:
        """The scalar op `name` of this expression and others; of this dtype unless told."""
        expr = Scalar(name, (self.expr, *(self.lift(x).expr for x in others)), dtype or self.dtype)
        hash(expr)  # caches it, so that hashing a deep expression later never recurses
        return Num(expr)

    def __add__(self, other: Operand) -> Num:
        return self.op("add", other)

    def __radd__(self, other: Operand) -> Num:
        return self.lift(other) + self

    def __sub__(self, other: Operand) -> Num:
        return self.op("sub", other)

    def __rsub__(self, other: Operand) -> Num:
        return self.lift(other) - self

    def __mul__(self, other: Operand) -> Num:
        return self.op("mul", other)

    def __rmul__(self, other: Operand) -> Num:
        return self.lift(other) * self

    def __truediv__(self, other: Operand) -> Num:
        return self.op("div", other)

    def __rtruediv__(self, other: Operand) -> Num:
        return self.lift(other) / self

    def __neg__(self) -> Num:
        return self.op("neg")

    def __abs__(self) -> Num:
        return self.op("abs")

    def __lt__(self, other: Operand) -> Num:
        return self.op("lt", other, dtype=bool_)

    def __gt__(self, other: Operand) -> Num:
        return self.op("gt", other, dtype=bool_)

    def __and__(self, other: Operand) -> Num:
        return self.op("bitand", other)

    def __or__(self, other: Operand) -> Num:
        return self.op("bitor", other)

    def __xor__(self, other: Operand) -> Num:
        return self.op("bitxor", other)

    def __lshift__(self, count: Operand) -> Num:
        return self.op("shl", count)

    def __rshift__(self, count: Operand) -> Num:
        return self.op("shr", count)

    def equals(self, other: Operand) -> Num:
        return self.op("eq", other, dtype=bool_)

    def differs(self, other: Operand) -> Num:
        return self.op("ne", other, dtype=bool_)

    def is_nan(self) -> Num:
        return self.differs(self)

    def trunc(self) -> Num:
        return self.op("trunc")

    def cast(self, dtype: DType) -> Num:
        return self if self.dtype == dtype else self.op("cast", dtype=dtype)

    def bits(self) -> Num:
        """The bit pattern as a signed integer."""
        return self.op("bitcast", dtype=_SIGNED[self.dtype])

    def unsigned_bits(self) -> Num:
        """The bit pattern as an unsigned integer, whose right shift every vector unit has."""
        return self.op("bitcast", dtype=_UNSIGNED[self.dtype])

    def as_float(self) -> Num:
        """The float with this bit pattern."""
        return self.op("bitcast", dtype=float32 if self.dtype.bits == 32 else float64)


Operand: TypeAlias = "Num | float"


def fma(a: Num, b: Operand, c: Operand) -> Num:
    """``a * b + c``, rounded once where the target can."""
    return a.op("fma", b, c)


def select(condition: Num, a: Operand, b: Operand) -> Num:
    """``a if condition else b``; at least one branch is an expression."""
    like = a if isinstance(a, Num) else b
    assert isinstance(like, Num)
    return condition.op("select", like.lift(a), like.lift(b), dtype=like.dtype)


def sqrt(x: Num) -> Num:
    return x.op("sqrt")


def copysign(magnitude: Num, sign: Num) -> Num:
    return magnitude.op("copysign", sign)


def at_least(x: Num, low: Operand) -> Num:
    """``max(x, low)`` where a NaN `x` stays: one instruction, unlike the NaN-symmetric ``max``."""
    return select(x < low, low, x)


def at_most(x: Num, high: Operand) -> Num:
    """``min(x, high)`` where a NaN `x` stays."""
    return select(x > high, high, x)


def clamp(x: Num, low: float, high: float) -> Num:
    """`x` limited to ``[low, high]``; a NaN stays."""
    return at_most(at_least(x, low), high)


def polynomial(x: Num, coefficients: Sequence[float]) -> Num:
    """``c[0] + c[1] x + c[2] x**2 + ...`` by Horner's rule in fused multiply-adds."""
    value: Operand = coefficients[-1]
    for c in reversed(coefficients[:-1]):
        value = fma(x, value, c)
    return x.lift(value)


def bits_of(value: float, dtype: DType) -> int:
    """The bit pattern of a float literal as a non-negative integer."""
    form, whole = ("<f", "<I") if dtype == float32 else ("<d", "<Q")
    pattern: int = struct.unpack(whole, struct.pack(form, np.float64(value)))[0]
    return pattern
