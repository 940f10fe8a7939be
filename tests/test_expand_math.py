"""The expansions of math functions against mpmath and NumPy, within their stated bounds."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest

from graphwright.errors import CompileError
from graphwright.ir.dtypes import DTYPES, DType, float32, float64, int64
from graphwright.ir.loops import Buffer, Const, For, If, Kernel, Let, Load, Reduce, Scalar, Store, Temp, walk
from graphwright.ir.scalars import SCALARS, apply, const
from graphwright.passes.expand_math import ULP, expand_expr, expand_math

INF, NAN = math.inf, math.nan
X, Y, Z = "x", "y", "z"


# --- a vectorized evaluator ----------------------------------------------------------------------


def two_product(a, b):
    """a * b as the sum of two float64 (Dekker)."""
    p = a * b
    parts = []
    for v in (a, b):
        t = v * 134217729.0
        high = t - (t - v)
        parts += [high, v - high]
    ah, al, bh, bl = parts
    return p, al * bl - (((p - ah * bh) - al * bh) - ah * bl)


def fma64(a, b, c):
    """a * b + c in one rounding, up to double rounding of the last sum."""
    p, e = two_product(a, b)
    s = p + c
    t = s - p
    exact = s + (((p - (s - t)) + (c - t)) + e)
    return np.where(np.isfinite(exact), exact, a * b + c)


def evaluate(expr, env):
    """The value of an expression of machine ops, each distinct object evaluated once."""
    values = {}
    for e in walk(expr):
        if isinstance(e, Temp):
            values[id(e)] = env[e.name]
        elif isinstance(e, Const):
            values[id(e)] = e.dtype.numpy.type(e.value)
        else:
            assert SCALARS[e.op].machine, f"{e.op} was not expanded"
            args = [values[id(a)] for a in e.args]
            if e.op == "bitcast":
                value = np.ascontiguousarray(args[0]).view(e.dtype.numpy)
            elif e.op == "cast":
                value = args[0].astype(e.dtype.numpy)
            elif e.op == "fma" and e.dtype == float64:
                value = fma64(*args)
            else:
                value = SCALARS[e.op].reference(*args)
            assert np.asarray(value).dtype == e.dtype.numpy, f"{e.op} gives {np.asarray(value).dtype}"
            values[id(e)] = value
    return values[id(expr)]


def run(op, dtype: DType, *args):
    """The expansion of `op` applied to arrays."""
    names = (X, Y, Z)[: len(args)]
    expr = expand_expr(apply(op, *(Temp(n, dtype) for n in names), dtype=dtype))
    with np.errstate(all="ignore"):
        arrays = np.broadcast_arrays(*(np.atleast_1d(np.asarray(a, dtype.numpy)) for a in args))
        return evaluate(expr, dict(zip(names, arrays, strict=True)))


# --- points and references -----------------------------------------------------------------------

RNG = np.random.default_rng(7)
SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, INF, -INF, NAN, 0.5, -0.5, 2.0, -2.0, 3.0, -3.0])

# Where the function moves: linear grids, besides random bit patterns everywhere.
RANGES = {
    "exp": [(-104, 89), (-1, 1)], "exp2": [(-150, 128), (-1, 1)], "expm1": [(-20, 89), (-1.1, 1.1)],
    "log": [(0, 3), (0, 1e6)], "log1p": [(-1, 2), (0, 1e6)], "log2": [(0, 3), (0, 1e6)],
    "log10": [(0, 3), (0, 1e6)], "sin": [(-8, 8), (-1e6, 1e6)], "cos": [(-8, 8), (-1e6, 1e6)],
    "tan": [(-8, 8), (-1e6, 1e6)], "asin": [(-1, 1)], "acos": [(-1, 1)], "atan": [(-3, 3), (-100, 100)],
    "sinh": [(-3, 3), (-89, 89)], "cosh": [(-3, 3), (-89, 89)], "tanh": [(-1, 1), (-10, 10)],
    "asinh": [(-3, 3), (-1e6, 1e6)], "acosh": [(1, 3), (1, 1e6)], "atanh": [(-1, 1)],
    "erf": [(-1.1, 1.1), (-6, 6)], "sigmoid": [(-104, 20), (-2, 2)], "softplus": [(-104, 20), (-2, 2)],
    "atan2": [(-3, 3), (-1e4, 1e4)], "pow": [(0, 3), (0.5, 30)], "hypot": [(-3, 3), (-1e4, 1e4)],
    "logaddexp": [(-3, 3), (-100, 100)],
}  # fmt: skip
WIDE = {"exp": (-745, 709.7), "exp2": (-1074, 1023.9), "expm1": (-40, 709.7), "sinh": (-710, 710), "cosh": (-710, 710)}
LIMIT = {("sin", "float32"): 1e8, ("sin", "float64"): 1e6}


def random_floats(dtype, n):
    bits = RNG.integers(0, 2**dtype.bits, n, dtype=f"uint{dtype.bits}")
    return bits.view(dtype.numpy)


def points(op, dtype, n):
    """Arguments for `op`, one row per operand."""
    ranges = RANGES[op] + ([WIDE[op]] if op in WIDE and dtype == float64 else [])
    rows = []
    for _ in range(SCALARS[op].arity):
        parts = [RNG.uniform(lo, hi, n).astype(dtype.numpy) for lo, hi in ranges]
        small = np.ldexp(RNG.uniform(-1, 1, n), RNG.integers(-30, 6, n)).astype(dtype.numpy)
        x = np.concatenate([*parts, small, random_floats(dtype, n)])
        if op in ("sin", "cos", "tan"):
            x = x[~(np.abs(x) > LIMIT["sin", dtype.name])]
        rows.append(x)
    if op == "pow":  # most pairs overflow: choose the logarithm of the result
        rows[0] = np.abs(rows[0])
        with np.errstate(all="ignore"):
            scaled = RNG.uniform(-1, 1, len(rows[0])) * (87 if dtype == float32 else 708) / np.log(rows[0].astype(float))
        rows[1] = np.where(RNG.random(len(scaled)) < 0.8, scaled, rows[1]).astype(dtype.numpy)
    return rows


FLOAT64_REFERENCE = {  # in float64, for float32 arguments
    "sigmoid": lambda x: np.where(x < 0, np.exp(x) / (1 + np.exp(x)), 1 / (1 + np.exp(-x))),
}
MP_REFERENCE = {
    "exp2": lambda x: mpmath.power(2, x), "log2": lambda x: mpmath.log(x, 2),
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)), "softplus": lambda x: mpmath.log1p(mpmath.exp(x)),
    "logaddexp": lambda a, b: max(a, b) + mpmath.log1p(mpmath.exp(-abs(a - b))),
    "pow": mpmath.power,
}  # fmt: skip


def reference32(op, args):
    wide = [a.astype(np.float64) for a in args]
    with np.errstate(all="ignore"):
        return FLOAT64_REFERENCE.get(op, SCALARS[op].reference)(*wide)


def errors32(op, args, got):
    """Errors in ULP against a float64 reference; the wrong kind of value counts as infinite."""
    want = reference32(op, args)
    with np.errstate(all="ignore"):
        rounded = want.astype(np.float32)
        unit = np.spacing(np.abs(rounded)).astype(np.float64)
        if op == "logaddexp":
            unit = np.spacing(np.maximum(np.abs(rounded), np.maximum(np.abs(args[0]), np.abs(args[1]))))
        error = np.abs(got.astype(np.float64) - want) / unit
    same = (rounded == got) | (np.isnan(rounded) & np.isnan(got))
    error = np.where(same, np.where(np.isfinite(rounded), error, 0), np.where(np.isnan(error), INF, error))
    return np.where(same & ~np.isfinite(error), 0, error)


def mp_error(op, args, got):
    """The error of one float64 result in ULP, by mpmath; None where the value is special."""
    with mpmath.workprec(160 if op not in ("acos", "acosh", "sigmoid") else 1200):
        mp_args = [mpmath.mpf(float(a)) for a in args]
        want = MP_REFERENCE.get(op, getattr(mpmath, op, None))(*mp_args)
        unit = float(np.spacing(np.abs(np.float64(float(want)))))
        if op == "logaddexp":
            unit = max(unit, *(float(np.spacing(abs(a))) for a in args))
        if not math.isfinite(unit):
            return 0.0 if got == float(want) else INF
        return float(abs(mpmath.mpf(float(got)) - want) / unit)
