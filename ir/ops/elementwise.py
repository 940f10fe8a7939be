"""Elementwise ops: each element of the result from the operands' elements at the same index.

Every derivative is a row in the IR's own arithmetic, so that gradients can be differentiated again.
Integers wrap on overflow; dividing an integer by zero gives 0; floats follow IEEE 754.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ...errors import DTypeError
from ..batching import aligned
from ..dtypes import bool_
from ..graph import Value
from ..loops import Expr
from ..op import LINEAR, REQUIRED, VJP, ZERO_GRADIENT, Definition, Op, Read, Sample, Typing, register
from ..scalars import SCALARS, apply, const, select
from ..scalars import cast as scalar_cast
from ..types import Type

__all__ = [
    "abs_", "acos", "acosh", "add", "asin", "asinh", "atan", "atan2", "atanh", "bitwise_and",
    "bitwise_invert", "bitwise_left_shift", "bitwise_or", "bitwise_right_shift", "bitwise_xor", "cast",
    "ceil", "clip", "copysign",
    "cos", "cosh", "div", "elementwise", "eq", "erf", "erfinv", "exp", "exp2", "expm1", "floor", "floordiv", "ge", "gt",
    "hypot", "isfinite", "isinf", "isnan", "le", "log", "log1p", "log2", "log10", "logaddexp", "logical_and",
    "logical_not", "logical_or", "logical_xor", "lt", "max_", "min_", "mod", "mul", "ndtri", "ne", "neg",
    "nextafter", "pow_",
    "reciprocal", "relu", "round_", "sigmoid", "sign", "signbit", "sin", "sinh", "softplus", "sqrt", "square",
    "stop_gradient", "sub", "tan", "tanh", "trunc", "where",
]

Reference = Callable[..., Any]
Samples = Callable[[], Iterable[Sample]]

LN2 = math.log(2)
LN10 = math.log(10)
SHAPES: tuple[tuple[int, ...], ...] = ((), (1,), (0,), (3, 7), (33,))
"""Shapes of samples: scalar, one element, none, and sizes around the vector widths."""


def floats(low: float = -4.0, high: float = 4.0, arity: int = 1) -> Samples:
    """Samples in an interval."""

    def samples() -> Iterable[Sample]:
        rng = np.random.default_rng(0)
        for shape in SHAPES:
            yield Sample(tuple(rng.uniform(low, high, shape) for _ in range(arity)))

    return samples


def integers(arity: int, dtypes: str, low: int = -9, high: int = 9) -> Samples:
    """Samples of the named dtypes, which the tests keep."""

    def samples() -> Iterable[Sample]:
        rng = np.random.default_rng(0)
        for dtype in dtypes.split():
            bottom = low if dtype.startswith("int") else 0
            for shape in SHAPES:
                yield Sample(tuple(rng.integers(bottom, high, shape).astype(dtype) for _ in range(arity)))

    return samples


def elementwise(
    name: str,
    reference: Reference,
    *,
    vjp: VJP | None = ZERO_GRADIENT,
    scalar: str | Callable[..., Expr] = "",
    kinds: str = "f",
    result: str = "same",
    samples: Samples | None = None,
    arity: int = 1,
    **facts: Any,
) -> Op:
    """Register an elementwise op.

    Parameters
    ----------
    reference : its meaning in NumPy.
    vjp : its derivative (default: constant almost everywhere).
    scalar : the op of `ir.scalars` it is (default: its name), or a function from scalar
        expressions to one.
    kinds : dtype kinds it takes, letters of ``"biuf"``.
    result : ``"same"`` or ``"bool"``.
    samples : inputs for the tests (default: numbers between -4 and 4).
    arity : number of operands.
    """
    build = scalar if callable(scalar) else None
    scalar_name = scalar if isinstance(scalar, str) and scalar else name
    assert build is not None or scalar_name in SCALARS, scalar_name

    def infer(t: Typing) -> Type:
        t.same_shape()
        dtype = t.types[-1].dtype
        for operand in t.types:
            if operand.dtype != dtype:
                t.fail(DTypeError, "operands must have one dtype", "cast with astype")
        if dtype.kind not in kinds:
            names = {"b": "bool", "i": "signed integer", "u": "unsigned integer", "f": "floating-point"}
            wanted = ", ".join(names[k] for k in kinds)
            t.fail(DTypeError, f"does not take {dtype!r}; it takes {wanted} operands", "cast with astype")
        return t.types[-1].with_dtype(bool_ if result == "bool" else dtype)

    def define(d: Definition, *reads: Read) -> Expr:
        args = [read(d.index) for read in reads]
        return build(*args) if build else apply(scalar_name, *args, dtype=d.out.dtype)

    return register(Op(
        name, "map", infer, reference, define, vjp=vjp, elementwise=True, arity=arity,
        samples=samples or floats(arity=arity), **facts,
    ))


# --- dtype and choice ----------------------------------------------------------------------------


def _infer_cast(t: Typing) -> Type:
    return t.types[0].with_dtype(t["dtype"])


def _vjp_cast(ct: Value, out: Value, x: Value, dtype: Any) -> tuple[Value | None]:
    return (cast(ct, dtype=x.tensor.dtype) if x.tensor.dtype.is_float and dtype.is_float else None,)


def _define_cast(d: Definition, read: Read) -> Expr:
    return scalar_cast(read(d.index), d.out.dtype)


def _samples_cast() -> Iterable[Sample]:
    from ..dtypes import DTYPES

    x = np.random.default_rng(0).uniform(0, 9, (3, 7))
    for dtype in DTYPES.values():
        yield Sample((x,), {"dtype": dtype})


# `cast` is a map at one index, but not one of the dtype-joining elementwise ops: it takes any dtype.
cast = register(Op(
    "cast", "map", _infer_cast,
    reference=lambda x, dtype: np.asarray(x).astype(dtype.numpy),
    define=_define_cast, vjp=_vjp_cast, jvp=LINEAR, batch=aligned, attrs={"dtype": REQUIRED}, arity=1,
    samples=_samples_cast, api="astype", doc="Convert to another dtype; floats are truncated towards zero.",
))


def _infer_where(t: Typing) -> Type:
    t.same_shape()
    if not t.types[0].dtype.is_bool or t.types[1].dtype != t.types[2].dtype:
        t.fail(DTypeError, "needs a bool condition and two branches of one dtype")
    return t.types[1]


def _define_where(d: Definition, c: Read, a: Read, b: Read) -> Expr:
    return select(c(d.index), a(d.index), b(d.index))


def _samples_where() -> Iterable[Sample]:
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        yield Sample((rng.random(shape) < 0.5, rng.normal(size=shape), rng.normal(size=shape)))


where: Op = register(Op(
    "where", "map", _infer_where, np.where, _define_where, elementwise=True, arity=3,
    vjp=lambda g, y, c, a, b: (None, where(c, g, 0), where(c, 0, g)), jvp=LINEAR,
    samples=_samples_where, doc="Elements of a where the condition holds, of b elsewhere.",
))
stop_gradient = elementwise(
    "stop_gradient", lambda x: x, scalar=lambda x: x, kinds="biuf", cost=0,
    doc="x, taken as a constant by differentiation.",
)


# --- arithmetic ----------------------------------------------------------------------------------


def _float_floordiv(a: Expr, b: Expr) -> Expr:
    """NumPy's floor division: exact, because the remainder is (``a - a mod b`` is a multiple of b)."""
    minus_one, zero, infinity = (const(v, a.dtype) for v in (-1, 0, math.inf))
    remainder = apply("fmod", a, b)
    quotient = apply("rint", apply("div", apply("sub", a, remainder), b))
    by_infinity = select(apply("eq", remainder, b), minus_one, apply("mul", remainder, zero))
    quotient = select(apply("eq", apply("abs", b), infinity), by_infinity, quotient)
    return select(apply("eq", b, zero), apply("div", a, b), quotient)


def _floordiv(a: Expr, b: Expr) -> Expr:
    return _float_floordiv(a, b) if a.dtype.is_float else apply("floordiv", a, b)


def _sign(x: Expr) -> Expr:
    positive, negative = (apply(c, x, const(0, x.dtype)) for c in ("gt", "lt"))
    rest = x if not x.dtype.is_signed else select(negative, const(-1, x.dtype), x)
    return select(positive, const(1, x.dtype), rest)


def _vjp_pow(ct: Value, out: Value, a: Value, b: Value) -> tuple[Value, Value]:
    """At ``b = 0`` the derivative by a is 0 also where ``1/a`` is infinite; at ``a = 0`` that by b is 0."""
    if b.op.name == "full" and b.attrs["value"] != 0:
        by_a = b * a ** (b - 1)
    else:
        by_a = b * a ** where(eq(b, 0), 1, b - 1)
    return ct * by_a, ct * (out * log(where(eq(a, 0), 1, a)))


def _ipow(a: Any, b: Any) -> Any:
    return SCALARS["pow" if np.asarray(a).dtype.kind == "f" else "ipow"].reference(a, b)


def _share(g: Value, wins: Value, ties: Value) -> Value:
    """The cotangent of an operand where it wins, half of it where both are equal."""
    return where(wins, g, where(ties, 0.5 * g, 0))


add = elementwise(
    "add", np.add, kinds="iuf", arity=2, commutative=True, vjp=lambda g, y, a, b: (g, g), doc="a + b",
)
sub = elementwise(
    "sub", np.subtract, kinds="iuf", arity=2, vjp=lambda g, y, a, b: (g, -g), api="subtract", doc="a - b",
)
mul = elementwise(
    "mul", np.multiply, kinds="iuf", arity=2, commutative=True,
    vjp=lambda g, y, a, b: (g * b, g * a), api="multiply", doc="a * b",
)
div = elementwise(
    "div", np.divide, arity=2, samples=floats(0.5, 4, 2), cost=4,
    vjp=lambda g, y, a, b: (g / b, -(g / b) * y), api="divide", doc="a / b; floats only.",
)
floordiv = elementwise(
    "floordiv", np.floor_divide, kinds="iuf", arity=2, scalar=_floordiv, cost=16,
    api="floor_divide", doc="a / b rounded down; an integer divided by zero gives 0.",
)
mod = elementwise(
    "mod", np.remainder, kinds="iuf", arity=2, cost=10,
    scalar=lambda a, b: apply("fmod" if a.dtype.is_float else "mod", a, b),
    vjp=lambda g, y, a, b: (g, -(g * floordiv(a, b))),
    api="remainder", doc="a - b * floor(a / b), with the sign of b; an integer modulo zero gives 0.",
)
neg = elementwise("neg", np.negative, kinds="iuf", vjp=lambda g, y, x: (-g,), api="negative", doc="-x")
abs_ = elementwise(
    "abs", np.abs, kinds="iuf", scalar=lambda x: apply("abs", x) if x.dtype.is_signed else x,
    vjp=lambda g, y, x: (g * sign(x),), doc="Absolute value; its gradient at 0 is 0.",
)
sign: Op = elementwise("sign", np.sign, kinds="iuf", scalar=_sign, cost=2, doc="-1, 0 or 1; NaN of NaN.")
pow_ = elementwise(
    "pow", _ipow, kinds="iuf", arity=2, vjp=_vjp_pow, samples=floats(0.25, 3, 2), ulp=1, cost=30,
    scalar=lambda a, b: apply("pow" if a.dtype.is_float else "ipow", a, b),
    doc="a to the power b; an integer to a negative power is truncated towards 0.",
)
sqrt = elementwise(
    "sqrt", np.sqrt, vjp=lambda g, y, x: (g * (0.5 / y),), samples=floats(0.25, 4), cost=4,
    doc="Square root.",
)
square = elementwise(
    "square", np.square, kinds="iuf", scalar=lambda x: apply("mul", x, x),
    vjp=lambda g, y, x: (g * (2 * x),), doc="x * x",
)
reciprocal = elementwise(
    "reciprocal", np.reciprocal, scalar=lambda x: apply("div", const(1, x.dtype), x), samples=floats(0.5, 4),
    vjp=lambda g, y, x: (-g * (y * y),), cost=4, doc="1 / x",
)
hypot = elementwise(
    "hypot", np.hypot, arity=2, samples=floats(0.5, 4, 2), ulp=1, cost=12,
    vjp=lambda g, y, a, b: (g * (a / y), g * (b / y)), doc="sqrt(a*a + b*b) without overflow.",
)
max_ = elementwise(
    "max", np.maximum, kinds="iuf", arity=2, commutative=True,
    vjp=lambda g, y, a, b: (_share(g, a > b, eq(a, b)), _share(g, b > a, eq(a, b))),
    api="maximum", doc="The larger of a and b; NaN if either is. Equal operands share the gradient.",
)
min_ = elementwise(
    "min", np.minimum, kinds="iuf", arity=2, commutative=True,
    vjp=lambda g, y, a, b: (_share(g, a < b, eq(a, b)), _share(g, b < a, eq(a, b))),
    api="minimum", doc="The smaller of a and b; NaN if either is. Equal operands share the gradient.",
)


def _clip(x: Expr, low: Expr, high: Expr) -> Expr:
    return apply("min", apply("max", x, low), high)


def _vjp_clip(g: Value, y: Value, x: Value, low: Value, high: Value) -> tuple[Value, Value, Value]:
    below, above = x < low, x > high
    return where(below, 0, where(above, 0, g)), where(below, g, 0), where(above, g, 0)


def _samples_clip() -> Iterable[Sample]:
    for sample in floats(arity=3)():
        x, low, width = sample.operands
        yield Sample((x, low, low + abs(width)))


clip = elementwise(
    "clip", lambda x, low, high: np.minimum(np.maximum(x, low), high), kinds="iuf", arity=3, cost=2,
    scalar=_clip, vjp=_vjp_clip, samples=_samples_clip, doc="x, not below low and not above high.",
)
relu = elementwise(
    "relu", lambda x: np.maximum(x, 0), kinds="iuf", scalar=lambda x: apply("max", x, const(0, x.dtype)),
    vjp=lambda g, y, x: (where(x > 0, g, 0),), doc="max(x, 0); its gradient at 0 is 0.",
)


# --- exponentials and logarithms -----------------------------------------------------------------

exp = elementwise("exp", np.exp, vjp=lambda g, y, x: (g * y,), ulp=2, cost=12, doc="e to the power x.")
exp2 = elementwise(
    "exp2", np.exp2, vjp=lambda g, y, x: (g * (y * LN2),), ulp=2, cost=12, doc="2 to the power x.",
)
expm1 = elementwise(
    "expm1", np.expm1, vjp=lambda g, y, x: (g * (y + 1),), ulp=2, cost=16, doc="exp(x) - 1, exact near 0.",
)
log = elementwise(
    "log", np.log, vjp=lambda g, y, x: (g / x,), samples=floats(0.1, 8), ulp=2, cost=12,
    doc="Natural logarithm.",
)
log1p = elementwise(
    "log1p", np.log1p, vjp=lambda g, y, x: (g / (1 + x),), samples=floats(-0.9, 8), ulp=2, cost=14,
    doc="log(1 + x), exact near 0.",
)
log2 = elementwise(
    "log2", np.log2, vjp=lambda g, y, x: (g / (x * LN2),), samples=floats(0.1, 8), ulp=2, cost=13,
    doc="Logarithm to base 2.",
)
log10 = elementwise(
    "log10", np.log10, vjp=lambda g, y, x: (g / (x * LN10),), samples=floats(0.1, 8), ulp=1, cost=13,
    doc="Logarithm to base 10.",
)
logaddexp = elementwise(
    "logaddexp", np.logaddexp, arity=2, commutative=True, ulp=3, cost=26,
    vjp=lambda g, y, a, b: (g * sigmoid(a - b), g * sigmoid(b - a)),
    doc="log(exp(a) + exp(b)) without overflow.",
)
sigmoid: Op = elementwise(
    "sigmoid", SCALARS["sigmoid"].reference, vjp=lambda g, y, x: (g * (y - y * y),), ulp=3, cost=16,
    doc="1 / (1 + exp(-x))",
)
softplus = elementwise(
    "softplus", SCALARS["softplus"].reference, vjp=lambda g, y, x: (g * sigmoid(x),), ulp=2, cost=26,
    doc="log(1 + exp(x)) without overflow.",
)
erf = elementwise(
    "erf", lambda x: SCALARS["erf"].reference(x).astype(np.asarray(x).dtype), ulp=2, cost=20,
    vjp=lambda g, y, x: (g * (2 / math.sqrt(math.pi) * exp(-(x * x))),), doc="The error function.",
)
erfinv = elementwise(
    "erfinv", SCALARS["erfinv"].reference, ulp=4, cost=40, samples=floats(-0.98, 0.98),
    vjp=lambda g, y, x: (g * (math.sqrt(math.pi) / 2 * exp(y * y)),), doc="The inverse of the error function.",
)
ndtri = elementwise(
    "ndtri", SCALARS["ndtri"].reference, ulp=4, cost=40, samples=floats(0.01, 0.99),
    vjp=lambda g, y, x: (g * (math.sqrt(2 * math.pi) * exp(0.5 * (y * y))),),
    doc="The inverse of the standard normal distribution function.",
)


# --- trigonometry and hyperbolic functions -------------------------------------------------------

sin = elementwise("sin", np.sin, vjp=lambda g, y, x: (g * cos(x),), ulp=1, cost=16, doc="Sine.")
cos: Op = elementwise("cos", np.cos, vjp=lambda g, y, x: (-g * sin(x),), ulp=1, cost=16, doc="Cosine.")
tan = elementwise(
    "tan", np.tan, vjp=lambda g, y, x: (g * (1 + y * y),), samples=floats(-1.4, 1.4), ulp=1, cost=24,
    doc="Tangent.",
)
asin = elementwise(
    "asin", np.arcsin, vjp=lambda g, y, x: (g / sqrt((1 - x) * (1 + x)),), samples=floats(-0.9, 0.9), ulp=1,
    cost=20,
    doc="Inverse sine.",
)
acos = elementwise(
    "acos", np.arccos, vjp=lambda g, y, x: (-g / sqrt((1 - x) * (1 + x)),), samples=floats(-0.9, 0.9),
    ulp=1, cost=20,
    doc="Inverse cosine.",
)
atan = elementwise(
    "atan", np.arctan, vjp=lambda g, y, x: (g / (1 + x * x),), ulp=1, cost=20, doc="Inverse tangent.",
)


def _vjp_atan2(g: Value, y: Value, a: Value, b: Value) -> tuple[Value, Value]:
    scaled = g / (a * a + b * b)
    return scaled * b, -scaled * a


atan2 = elementwise(
    "atan2", np.arctan2, arity=2, vjp=_vjp_atan2, ulp=1, cost=24, doc="The angle of the point (b, a).",
)
sinh = elementwise(
    "sinh", np.sinh, vjp=lambda g, y, x: (g * cosh(x),), ulp=1, cost=20, doc="Hyperbolic sine."
)
cosh: Op = elementwise(
    "cosh", np.cosh, vjp=lambda g, y, x: (g * sinh(x),), ulp=1, cost=16, doc="Hyperbolic cosine."
)
tanh = elementwise(
    "tanh", np.tanh, vjp=lambda g, y, x: (g * (1 - y * y),), ulp=2, cost=16, doc="Hyperbolic tangent.",
)
asinh = elementwise(
    "asinh", np.arcsinh, vjp=lambda g, y, x: (g / sqrt(x * x + 1),), ulp=1, cost=24,
    doc="Inverse hyperbolic sine.",
)
acosh = elementwise(
    "acosh", np.arccosh, vjp=lambda g, y, x: (g / sqrt((x - 1) * (x + 1)),), samples=floats(1.2, 6), ulp=1,
    cost=24,
    doc="Inverse hyperbolic cosine.",
)
atanh = elementwise(
    "atanh", np.arctanh, vjp=lambda g, y, x: (g / ((1 - x) * (1 + x)),), samples=floats(-0.9, 0.9), ulp=1,
    cost=24,
    doc="Inverse hyperbolic tangent.",
)


# --- rounding and the parts of a float -----------------------------------------------------------


def _rounding(name: str, scalar: str, reference: Reference, doc: str, api: str = "") -> Op:
    return elementwise(
        name, lambda x: reference(x) if np.asarray(x).dtype.kind == "f" else x, kinds="iuf",
        scalar=lambda x: apply(scalar, x) if x.dtype.is_float else x, api=api, doc=doc,
    )


floor = _rounding("floor", "floor", np.floor, "The largest whole number not above x.")
ceil = _rounding("ceil", "ceil", np.ceil, "The smallest whole number not below x.")
trunc = _rounding("trunc", "trunc", np.trunc, "x without its fraction.")
round_ = _rounding("round", "rint", np.rint, "The nearest whole number; halves to the even one.")
copysign: Op = elementwise(
    "copysign", np.copysign, arity=2, vjp=lambda g, y, a, b: (g * (sign(a) * copysign(1, b)), None),
    doc="The magnitude of a with the sign of b.",
)
nextafter = elementwise(
    "nextafter", np.nextafter, arity=2, vjp=None, cost=8, doc="The next float after a in the direction of b.",
)


def _is_infinite(x: Expr) -> Expr:
    if not x.dtype.is_float:
        return const(False, bool_)
    return apply("eq", apply("abs", x), const(math.inf, x.dtype))


def _is_finite(x: Expr) -> Expr:
    if not x.dtype.is_float:
        return const(True, bool_)
    return apply("lt", apply("abs", x), const(math.inf, x.dtype))


def _special() -> Iterable[Sample]:
    yield from floats()()
    yield Sample((np.array([0.0, -0.0, 1.0, -1.0, np.nan, np.inf, -np.inf]),))


isnan = elementwise(
    "isnan", np.isnan, kinds="iuf", result="bool", scalar=lambda x: apply("ne", x, x), samples=_special,
    doc="Whether x is NaN.",
)
isinf = elementwise(
    "isinf", np.isinf, kinds="iuf", result="bool", scalar=_is_infinite, samples=_special,
    doc="Whether x is an infinity.",
)
isfinite = elementwise(
    "isfinite", np.isfinite, kinds="iuf", result="bool", scalar=_is_finite, samples=_special,
    doc="Whether x is neither NaN nor an infinity.",
)
signbit = elementwise(
    "signbit", np.signbit, result="bool", samples=_special,
    scalar=lambda x: apply("lt", apply("copysign", const(1, x.dtype), x), const(0, x.dtype)),
    doc="Whether the sign of x is minus, also for -0.",
)


# --- comparisons ---------------------------------------------------------------------------------


def _tied(arity: int = 2) -> Iterable[Sample]:
    """Whole numbers, so that equal pairs occur."""
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        yield Sample(tuple(rng.integers(0, 3, shape).astype(float) for _ in range(arity)))


def _comparison(name: str, reference: Reference, doc: str, api: str, kinds: str = "iuf", **facts: Any) -> Op:
    return elementwise(
        name, reference, kinds=kinds, result="bool", arity=2, samples=_tied, api=api, doc=doc, **facts,
    )


eq: Op = _comparison("eq", np.equal, "Whether a equals b.", "equal", "biuf", commutative=True)
ne = _comparison("ne", np.not_equal, "Whether a differs from b.", "not_equal", "biuf", commutative=True)
lt = _comparison("lt", np.less, "Whether a is smaller than b.", "less")
le = _comparison("le", np.less_equal, "Whether a is at most b.", "less_equal")
gt = _comparison("gt", np.greater, "Whether a is larger than b.", "greater")
ge = _comparison("ge", np.greater_equal, "Whether a is at least b.", "greater_equal")


# --- logic and bits ------------------------------------------------------------------------------


def _logic(name: str, scalar: str, reference: Reference, doc: str, arity: int = 2) -> Op:
    return elementwise(
        name, reference, kinds="b", arity=arity, scalar=scalar, commutative=arity == 2,
        samples=integers(arity, "bool", high=2), doc=doc,
    )


def _bits(name: str, scalar: str, reference: Reference, doc: str, arity: int = 2, **facts: Any) -> Op:
    return elementwise(
        name, reference, kinds=facts.pop("kinds", "biu"), arity=arity, scalar=scalar, doc=doc,
        samples=facts.pop("samples", integers(arity, "int64 uint8 bool")), **facts,
    )


logical_and = _logic("logical_and", "bitand", np.logical_and, "a and b; bools only.")
logical_or = _logic("logical_or", "bitor", np.logical_or, "a or b; bools only.")
logical_xor = _logic("logical_xor", "bitxor", np.logical_xor, "Either a or b; bools only.")
logical_not = _logic("logical_not", "bitnot", np.logical_not, "not a; bools only.", arity=1)
bitwise_and = _bits("bitwise_and", "bitand", np.bitwise_and, "Bits set in a and in b.", commutative=True)
bitwise_or = _bits("bitwise_or", "bitor", np.bitwise_or, "Bits set in a or in b.", commutative=True)
bitwise_xor = _bits("bitwise_xor", "bitxor", np.bitwise_xor, "Bits set in one of a and b.", commutative=True)
bitwise_invert = _bits("bitwise_invert", "bitnot", np.invert, "The bits of a, inverted.", arity=1)
bitwise_left_shift = _bits(
    "bitwise_left_shift", "shl", np.left_shift, "The bits of a moved up by b places; 0 from the width on.",
    kinds="iu", samples=integers(2, "int64 uint8", 0, 9),
)
bitwise_right_shift = _bits(
    "bitwise_right_shift", "shr", np.right_shift, "a // 2**b; the sign's bit fills up from the width on.",
    kinds="iu", samples=integers(2, "int64 uint8", 0, 9),
)
