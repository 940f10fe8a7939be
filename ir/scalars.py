"""The scalar ops that expressions of the loop IR are made of, with their meaning in NumPy.

``machine`` ops become one or a few instructions on every target. The others are expanded into
machine ops by `passes.expand_math` before code is generated for a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .dims import Dim
from .dtypes import DType, bool_, rounded
from .loops import Const, Expr, Index, Scalar
from .normal_quantile import erfinv, ndtri

__all__ = ["COMPARISONS", "SCALARS", "ScalarOp", "apply", "cast", "conjunction", "const", "less", "select"]


@dataclass(frozen=True)
class ScalarOp:
    """A scalar op: number of arguments, meaning, whether targets have it as an instruction."""

    name: str
    arity: int
    reference: Callable[..., Any]
    machine: bool = False


def _erf(x: Any) -> Any:
    return np.vectorize(math.erf, otypes=[float])(x)


def _fma(a: Any, b: Any, c: Any) -> Any:
    if getattr(a, "dtype", None) == np.float32:  # the exact product of two float32 fits a float64
        return np.float32(np.float64(a) * np.float64(b) + np.float64(c))
    return a * b + c


def _sigmoid(x: Any) -> Any:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e)).astype(np.asarray(x).dtype)


def _softplus(x: Any) -> Any:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _integer_power(x: Any, y: Any) -> Any:
    whole = np.power(x, np.maximum(y, 0))
    inverse = np.where(x == 1, 1, np.where(x == -1, 1 - 2 * (y & 1), 0))
    return np.where(y < 0, inverse, whole).astype(np.asarray(whole).dtype)


def _rows(machine: bool, **ops: tuple[int, Callable[..., Any]]) -> dict[str, ScalarOp]:
    return {name: ScalarOp(name, n, f, machine) for name, (n, f) in ops.items()}


COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")

SCALARS: dict[str, ScalarOp] = {
    **_rows(
        True,
        add=(2, np.add), sub=(2, np.subtract), mul=(2, np.multiply),
        div=(2, np.divide),                      # floats only
        floordiv=(2, np.floor_divide), mod=(2, np.remainder),   # integers: floor; x/0 is 0
        neg=(1, np.negative), abs=(1, np.abs), sqrt=(1, np.sqrt), fma=(3, _fma),
        max=(2, np.maximum), min=(2, np.minimum),               # NaN wins
        floor=(1, np.floor), ceil=(1, np.ceil), trunc=(1, np.trunc), rint=(1, np.rint),
        copysign=(2, np.copysign),
        eq=(2, np.equal), ne=(2, np.not_equal), lt=(2, np.less), le=(2, np.less_equal),
        gt=(2, np.greater), ge=(2, np.greater_equal),
        bitand=(2, np.bitwise_and), bitor=(2, np.bitwise_or), bitxor=(2, np.bitwise_xor),
        bitnot=(1, np.invert),                                  # bools: logical
        shl=(2, np.left_shift), shr=(2, np.right_shift),        # shr is arithmetic on signed
        select=(3, np.where),
        cast=(1, lambda x: x),                                  # to the expression's dtype
        bitcast=(1, lambda x: x),                               # same width, same bits
    ),
    **_rows(
        False,
        exp=(1, np.exp), exp2=(1, np.exp2), expm1=(1, np.expm1), log=(1, np.log), log1p=(1, np.log1p),
        log2=(1, np.log2), log10=(1, np.log10), sin=(1, np.sin), cos=(1, np.cos), tan=(1, np.tan),
        asin=(1, np.arcsin), acos=(1, np.arccos), atan=(1, np.arctan), atan2=(2, np.arctan2),
        sinh=(1, np.sinh), cosh=(1, np.cosh), tanh=(1, np.tanh), asinh=(1, np.arcsinh),
        acosh=(1, np.arccosh), atanh=(1, np.arctanh), pow=(2, np.power), hypot=(2, np.hypot),
        erf=(1, _erf), erfinv=(1, erfinv), ndtri=(1, ndtri),
        sigmoid=(1, _sigmoid), softplus=(1, _softplus), logaddexp=(2, np.logaddexp),
        nextafter=(2, np.nextafter), fmod=(2, np.remainder),    # floats: sign of the divisor
        ipow=(2, _integer_power),                               # integers; truncated where y < 0
    ),
}


def apply(op: str, *args: Expr, dtype: DType | None = None) -> Scalar:
    """``op(*args)``; the dtype defaults to that of the last argument, bool for comparisons."""
    if dtype is None:
        dtype = bool_ if op in COMPARISONS else args[-1].dtype
    return Scalar(op, args, dtype)


def const(value: float, dtype: DType) -> Const:
    """A literal of a dtype."""
    return Const(rounded(value, dtype), dtype)


def cast(x: Expr, dtype: DType) -> Expr:
    """``x`` converted to `dtype`; itself if it has it."""
    return x if x.dtype == dtype else Scalar("cast", (x,), dtype)


def select(condition: Expr, a: Expr, b: Expr) -> Scalar:
    """``a if condition else b``."""
    return Scalar("select", (condition, a, b), a.dtype)


def less(a: Dim, b: Dim) -> Scalar:
    """Whether an index ``a < b``."""
    return apply("lt", Index(a), Index(b))


def conjunction(conditions: Iterable[Expr]) -> Expr | None:
    """Whether all conditions hold; None if there are none."""
    result: Expr | None = None
    for c in conditions:
        result = c if result is None else apply("bitand", result, c)
    return result
