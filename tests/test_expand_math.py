"""The expansions of math functions against mpmath and NumPy, within their stated bounds."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest

from graphwright.errors import CompileError
from graphwright.ir.dtypes import DTYPES, DType, float32, float64, int64
from graphwright.ir.loops import Buffer, Const, For, If, Kernel, Let, Load, Reduce, Scalar, Store, Temp, walk
from graphwright.ir.ops import OPS
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
    rest = ((p - (s - t)) + (c - t)) + e
    exact = np.where(rest == 0, s, s + rest)  # keeps -0
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

SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, INF, -INF, NAN, 0.5, -0.5, 2.0, -2.0, 3.0, -3.0])

# Where the function moves: linear grids, besides random bit patterns everywhere.
RANGES = {
    "exp": [(-104, 89), (-1, 1)], "exp2": [(-150, 128), (-1, 1)], "expm1": [(-20, 89), (-1.1, 1.1)],
    "log": [(0, 3), (0, 1e6)], "log1p": [(-1, 2), (0, 1e6)], "log2": [(0, 3), (0, 1e6)],
    "log10": [(0, 3), (0, 1e6)], "sin": [(-8, 8), (-1e6, 1e6)], "cos": [(-8, 8), (-1e6, 1e6)],
    "tan": [(-8, 8), (-1e6, 1e6)], "asin": [(-1, 1)], "acos": [(-1, 1)], "atan": [(-3, 3), (-100, 100)],
    "sinh": [(-3, 3), (-89, 89)], "cosh": [(-3, 3), (-89, 89)], "tanh": [(-1, 1), (-10, 10)],
    "asinh": [(-3, 3), (-1e6, 1e6)], "acosh": [(1, 3), (1, 1e6)], "atanh": [(-1, 1)],
    "erf": [(-1.1, 1.1), (-6, 6)], "erfinv": [(-1, 1)], "ndtri": [(0, 1), (0, 1e-3)],
    "sigmoid": [(-104, 20), (-2, 2)], "softplus": [(-104, 20), (-2, 2)],
    "atan2": [(-3, 3), (-1e4, 1e4)], "pow": [(0, 3), (0.5, 30)], "hypot": [(-3, 3), (-1e4, 1e4)],
    "logaddexp": [(-3, 3), (-100, 100)],
}  # fmt: skip
WIDE = {
    "exp": (-745, 709.7), "exp2": (-1074, 1023.9), "expm1": (-40, 709.7), "sinh": (-710, 710), "cosh": (-710, 710),
}  # fmt: skip
LIMIT = {("sin", "float32"): 1e8, ("sin", "float64"): 1e6}


def random_floats(rng, dtype, n):
    bits = rng.integers(0, 2**dtype.bits, n, dtype=f"uint{dtype.bits}")
    return bits.view(dtype.numpy)


def points(op, dtype, n):
    """Arguments for `op`, one row per operand."""
    ranges = RANGES[op] + ([WIDE[op]] if op in WIDE and dtype == float64 else [])
    rng, rows = np.random.default_rng(7), []
    for _ in range(SCALARS[op].arity):
        parts = [rng.uniform(lo, hi, n).astype(dtype.numpy) for lo, hi in ranges]
        small = np.ldexp(rng.uniform(-1, 1, n), rng.integers(-30, 6, n)).astype(dtype.numpy)
        x = np.concatenate([*parts, small, random_floats(rng, dtype, n)])
        if op in ("sin", "cos", "tan"):
            x = x[~(np.abs(x) > LIMIT["sin", dtype.name])]
        rows.append(x)
    if op == "pow":  # most pairs overflow: choose the logarithm of the result
        rows[0] = np.abs(rows[0])
        largest = 87 if dtype == float32 else 708
        with np.errstate(all="ignore"):
            scaled = rng.uniform(-largest, largest, len(rows[0])) / np.log(rows[0].astype(float))
        rows[1] = np.where(rng.random(len(scaled)) < 0.8, scaled, rows[1]).astype(dtype.numpy)
    return rows


FLOAT64_REFERENCE = {  # in float64, for float32 arguments
    "sigmoid": lambda x: np.where(x < 0, np.exp(x) / (1 + np.exp(x)), 1 / (1 + np.exp(-x))),
}
MP_REFERENCE = {
    "exp2": lambda x: mpmath.power(2, x), "log2": lambda x: mpmath.log(x, 2),
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)), "softplus": lambda x: mpmath.log1p(mpmath.exp(x)),
    "logaddexp": lambda a, b: max(a, b) + mpmath.log1p(mpmath.exp(-abs(a - b))),
    "pow": mpmath.power, "ndtri": lambda p: mpmath.sqrt(2) * mpmath.erfinv(2 * p - 1),
}  # fmt: skip


def reference32(op, args):
    with np.errstate(all="ignore"):
        wide = [a.astype(np.float64) for a in args]
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
    error = np.where(same & ~np.isfinite(rounded), 0, error)
    return np.where(np.isnan(error), INF, error)


def mp_error(op, args, got):
    """The error of one float64 result in ULP, by mpmath; None where the value is special."""
    with mpmath.workprec(160 if op not in ("acos", "acosh", "ndtri", "sigmoid") else 1200):
        mp_args = [mpmath.mpf(float(a)) for a in args]
        want = MP_REFERENCE.get(op, getattr(mpmath, op, None))(*mp_args)
        unit = float(np.spacing(np.abs(np.float64(float(want)))))
        if op == "logaddexp":
            unit = max(unit, *(float(np.spacing(abs(a))) for a in args))
        if not math.isfinite(unit):
            return 0.0 if got == float(want) else INF
        return float(abs(mpmath.mpf(float(got)) - want) / unit)


# --- accuracy and special values -----------------------------------------------------------------

EXPANDED = [name for name, op in SCALARS.items() if not op.machine]
FLOATS = pytest.mark.parametrize("dtype", [float32, float64], ids=str)


def test_every_op_that_is_not_machine_has_a_bound():
    assert {op for op, _ in ULP} == set(EXPANDED) - {"ipow"}
    assert {dtype for _, dtype in ULP} == {"float32", "float64"}
    assert set(RANGES) | {"fmod", "nextafter", "ipow"} == set(EXPANDED)


@pytest.mark.parametrize("op", RANGES)
def test_float32_error(op):
    args = points(op, float32, 20_000)
    errors = errors32(op, args, run(op, float32, *args))
    worst = int(np.argmax(errors))
    assert errors[worst] <= ULP[op, "float32"], (op, [a[worst] for a in args])


@pytest.mark.parametrize("op", RANGES)
def test_float64_error(op):
    args = points(op, float64, 120)
    got = run(op, float64, *args)
    finite = np.isfinite(got) & np.all(np.isfinite(args), axis=0)
    assert finite.any()
    errors = {int(i): mp_error(op, [a[i] for a in args], got[i]) for i in np.nonzero(finite)[0]}
    worst = max(errors, key=lambda i: errors[i])
    assert errors[worst] <= ULP[op, "float64"], (op, [a[worst] for a in args])


def assert_same_kind(name, args, got, want):
    """Equal NaNs, infinities and signed zeros; other values about equal."""
    exact = (want == 0) | ~np.isfinite(want)
    same = np.where(np.isnan(want), np.isnan(got), (got == want) & (np.signbit(got) == np.signbit(want)))
    with np.errstate(all="ignore"):
        close = np.abs(got - want) <= 1e-6 * np.abs(want)
    wrong = np.nonzero(~np.where(exact, same, close))[0]
    assert not len(wrong), [(name, *(a[i] for a in args), got[i], want[i]) for i in wrong[:5]]


@FLOATS
@pytest.mark.parametrize("op", [op for op in EXPANDED if op != "ipow"])
def test_special_values_are_those_of_numpy(op, dtype):
    info = np.finfo(dtype.numpy)
    extremes = [info.max, -info.max, info.tiny, -info.tiny, 1.5, 800.0, -800.0, 1e5 + 1]
    values = np.concatenate([SPECIAL, extremes])
    if op in ("fmod", "nextafter", "sin", "cos", "tan"):  # huge angles and quotients are out of bounds
        values = np.concatenate([SPECIAL, [info.tiny, -info.tiny, 1.5, -2.5, 1e5 + 1]])
    values = values.astype(dtype.numpy)
    args = [values] if SCALARS[op].arity == 1 else [a.ravel() for a in np.meshgrid(values, values)]
    if op == "fmod":
        args = [a[~(np.abs(args[1]) < 1e-30) | (args[1] == 0)] for a in args]
    with np.errstate(all="ignore"):
        want = np.asarray(SCALARS[op].reference(*args)).astype(dtype.numpy)
    assert_same_kind(op, args, run(op, dtype, *args), want)


@FLOATS
def test_exponentials_overflow_and_underflow_where_numpy_does(dtype):
    largest, smallest = {
        float32: (np.float32(88.72283), np.float32(-103.9720)),
        float64: (np.float64(709.782712893384), np.float64(-745.1332191019411)),
    }[dtype]
    beyond = largest + 2 * np.spacing(largest)
    got = run("exp", dtype, [largest, beyond, smallest, smallest * 1.001])
    assert np.isfinite(got[0]) and got[1] == INF and got[3] == 0
    assert got[2] == np.finfo(dtype.numpy).smallest_subnormal
    tiny = run("exp", dtype, [smallest * 0.98])[0]
    assert 0 < tiny < np.finfo(dtype.numpy).tiny
    np.testing.assert_allclose(run("sigmoid", dtype, [smallest * 0.98])[0], tiny)


@FLOATS
def test_exact_values(dtype):
    top, bottom = (128, -149) if dtype == float32 else (1024, -1074)
    whole = np.arange(bottom, top)
    powers = np.ldexp(dtype.numpy.type(1), whole)
    np.testing.assert_array_equal(run("exp2", dtype, whole), powers)
    np.testing.assert_array_equal(run("log2", dtype, powers), whole)
    np.testing.assert_array_equal(run("pow", dtype, np.full(whole.shape, 2.0), whole), powers)
    np.testing.assert_array_equal(run("log10", dtype, 10.0 ** np.arange(10)), np.arange(10))
    assert run("exp", dtype, [0.0]) == 1 and run("cos", dtype, [0.0]) == 1 and run("log", dtype, [1.0]) == 0
    for op in ("tanh", "erf"):
        far = np.linspace(0, 30, 100_000)
        got = run(op, dtype, far)
        assert got.max() == 1 and (got[far > 20] == 1).all()
        np.testing.assert_array_equal(run(op, dtype, -far), -got)
    np.testing.assert_array_equal(run("sigmoid", dtype, [-800.0, 0.0, 800.0]), [0, 0.5, 1])
    np.testing.assert_array_equal(run("softplus", dtype, [-800.0, 1e4, -INF, INF]), [0, 1e4, 0, INF])


@FLOATS
@pytest.mark.parametrize("op", ["expm1", "log1p", "sin", "tan", "asin", "atan", "sinh", "tanh", "asinh", "atanh"])
def test_tiny_arguments_are_their_own_value(op, dtype):
    info = np.finfo(dtype.numpy)
    x = np.array([info.smallest_subnormal, info.smallest_subnormal * 7, info.tiny, info.tiny * 1.5])
    np.testing.assert_array_equal(run(op, dtype, np.concatenate([x, -x])), np.concatenate([x, -x]))


def test_angles_near_multiples_of_half_pi():
    n = np.concatenate([np.arange(-40, 41), np.random.default_rng(7).integers(-600_000, 600_000, 100)])
    x = n * (math.pi / 2)
    for op in ("sin", "cos", "tan"):
        for xi, got in zip(x, run(op, float64, x), strict=True):
            assert mp_error(op, [xi], got) <= ULP[op, "float64"], (op, xi)
    narrow = x.astype(np.float32)
    for op in ("sin", "cos"):
        assert errors32(op, [narrow], run(op, float32, narrow)).max() <= ULP[op, "float32"]


@FLOATS
def test_huge_angles_stay_in_range(dtype):
    x = random_floats(np.random.default_rng(7), dtype, 20_000)
    x = x[np.isfinite(x)]
    for op in ("sin", "cos"):
        assert (np.abs(run(op, dtype, x)) <= 1).all()


@FLOATS
def test_nextafter_and_fmod_are_exact(dtype):
    rng = np.random.default_rng(7)
    x, y = random_floats(rng, dtype, 20_000), random_floats(rng, dtype, 20_000)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(run("nextafter", dtype, x, y), np.nextafter(x, y))
        near = np.isfinite(x) & np.isfinite(y)
        if dtype == float64:  # the stated bound, and what fma64 can do
            near &= (np.abs(x / y) < 2.0**199) & (np.abs(x) < 1e290)
        x, y = x[near], y[near]
        small = rng.integers(-9, 9, (2, 5000)).astype(dtype.numpy) / 2
        x, y = np.concatenate([x, small[0]]), np.concatenate([y, small[1]])
        np.testing.assert_array_equal(run("fmod", dtype, x, y), np.remainder(x, y))
    assert len(x) > 10_000


@pytest.mark.parametrize("dtype", [d for d in DTYPES.values() if d.is_integer], ids=str)
def test_integer_power_wraps(dtype):
    info = np.iinfo(dtype.numpy)
    base = [0, 1, 2, 3, 7, 10, info.max, info.max - 1, info.min, info.min + 1]
    base = np.array(base + ([-1, -2, -3] if dtype.is_signed else []), dtype.numpy)
    exponent = np.array([0, 1, 2, 3, 5, 31, 64, 100, info.max], dtype.numpy)
    x, n = (a.ravel() for a in np.meshgrid(base, exponent))
    want = [pow(int(a), int(b), 2**dtype.bits) for a, b in zip(x, n, strict=True)]
    np.testing.assert_array_equal(run("ipow", dtype, x, n), np.array(want, np.uint64).astype(dtype.numpy))
    if dtype.is_signed:
        negative = run("ipow", dtype, [1, -1, -1, 2, -2, 0], [-3, -3, -2, -1, -1, -1])
        np.testing.assert_array_equal(negative, [1, -1, 1, 0, 0, 0])


@pytest.mark.parametrize("exponent", [-1, 0, 1, 2, 5, 10])
def test_integer_power_of_a_literal(exponent):
    expr = expand_expr(apply("ipow", Temp(X, int64), const(exponent, int64)))
    got = evaluate(expr, {X: np.array([-2, -1, 1, 2, 3])})
    want = [1 if exponent == 0 else int(float(x) ** exponent) for x in (-2, -1, 1, 2, 3)]
    np.testing.assert_array_equal(np.broadcast_to(got, 5), want)
    if exponent >= 0:
        assert sum(1 for e in walk(expr) if isinstance(e, Scalar)) <= 4


# --- structure -----------------------------------------------------------------------------------


def size(expr):
    return sum(1 for _ in walk(expr))


def test_shared_subtrees_stay_shared():
    x = Temp(X, float32)
    one = size(expand_expr(apply("exp", x)))
    e = x
    for _ in range(40):  # a tree of 2**40 nodes
        e = apply("mul", apply("exp", e), e)
    assert size(expand_expr(e)) <= 40 * (one + 1)


def test_equal_calls_are_expanded_once():
    a, b = (apply("tanh", apply("add", Temp(X, float32), const(1, float32))) for _ in range(2))
    expanded = expand_expr(apply("mul", a, b))
    assert expanded.args[0] is expanded.args[1]


def test_a_deep_chain_does_not_recurse_when_hashed():
    e = Temp(X, float64)
    for _ in range(60):
        e = apply("pow", e, e)
    expanded = expand_expr(e)
    assert isinstance(hash(expanded), int) and size(expanded) > 5000


def test_an_expression_of_machine_ops_is_itself():
    e = apply("add", apply("mul", Temp(X, float32), Temp(Y, float32)), const(1, float32))
    assert expand_expr(e) is e


def test_an_op_without_expansion_is_refused():
    with pytest.raises(CompileError, match="exp has no expansion for int64"):
        expand_expr(apply("exp", Temp(X, int64)))


def buffer(name, dtype=float32):
    return Buffer(name, dtype, (8,))


def test_a_kernel_is_expanded_everywhere():
    x, y = buffer("x"), buffer("y")
    i = Temp("i", int64)
    load = Load(x, (i,), guard=apply("gt", apply("exp", Temp("t", float32)), const(1, float32)))
    total = Reduce("add", (("k", 8),), apply("tanh", Load(x, (Temp("k", int64),))), float32)
    body = (
        For("i", 8, (
            Let("t", apply("log", total)),
            If(apply("lt", apply("sin", Temp("t", float32)), const(0, float32)), (Store(y, (i,), load),)),
            Store(y, (apply("ipow", i, const(2, int64)),), apply("erf", load), "add"),
        )),
    )  # fmt: skip
    kernel = Kernel("k", (x,), (y,), body)
    expanded = expand_math(kernel)
    loop = expanded.body[0]
    let, branch, store = loop.body
    for e in (let.value, branch.condition, branch.then[0].value, store.value, *store.indices):
        assert all(SCALARS[s.op].machine for s in walk(e) if isinstance(s, Scalar))
    assert isinstance(next(e for e in walk(let.value) if isinstance(e, Reduce)), Reduce)
    assert store.combiner == "add" and (expanded.name, expanded.inputs, expanded.outputs) == ("k", (x,), (y,))


def test_a_kernel_without_math_is_itself():
    x, y, i = buffer("x"), buffer("y"), Temp("i", int64)
    kernel = Kernel("k", (x,), (y,), (For("i", 8, (Store(y, (i,), apply("abs", Load(x, (i,)))),)),))
    assert expand_math(kernel) is kernel


@pytest.mark.parametrize("name", [n for n, dtype in ULP if dtype == "float32" and n in OPS])
def test_records_state_the_bound_that_is_tested(name):
    assert OPS[name].ulp == ULP[name, "float32"]
