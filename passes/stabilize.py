"""Numerical stability: spellings that overflow, underflow or cancel become the exact forms.

Naive code is then right at any argument, and so are its gradients when the forward values are
stabilized before they are differentiated (`stabilize_values`): for example ``log(1 + exp(800))`` is
800 with slope 1, and ``log(exp(x) / sum(exp(x)))`` is the log-softmax however it is spelled.

A sum of exponentials is shifted by its largest term, taken as a constant by differentiation. The
shift is 0 where that maximum is infinite or NaN, so that rows of ``-inf`` keep their meaning. Shifted
sums are recognized (`shifted`), which is why the rules end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..ir.graph import Graph, Value, make, topological
from ..ir.ops import OPS
from .canonicalize import CANONICALIZE
from .predicates import complement, nonnegative, positive, through_views
from .rewrite import RuleSet, rewrite, rewrite_values, rules

__all__ = ["STABILIZE", "stabilize", "stabilize_values"]

Axes = tuple[int, ...]


# --- shifted sums of exponentials ----------------------------------------------------------------


def spread(m: Value, like: Value, axes: Axes) -> Value:
    """A reduction's result along the reduced axes again."""
    return OPS["broadcast"](m, shape=like.tensor.shape, dims=complement(axes, like.tensor.rank))


def shift(x: Value, axes: Axes) -> Value:
    """What to subtract before exponentials of `x` are summed: the largest element, if it is finite."""
    m = OPS["amax"](x, axes=axes)
    return OPS["stop_gradient"](OPS["where"](OPS["isfinite"](m), m, 0.0))


def logsumexp(x: Value, axes: Axes) -> Value:
    """``log(sum(exp(x)))``, shifted."""
    m = shift(x, axes)
    return m + OPS["log"](OPS["sum"](OPS["exp"](x - spread(m, x, axes)), axes=axes))


def softmax(x: Value, axes: Axes) -> Value:
    """``exp(x) / sum(exp(x))``, shifted."""
    e = OPS["exp"](x - spread(shift(x, axes), x, axes))
    return e / spread(OPS["sum"](e, axes=axes), x, axes)


def is_shift(m: Value, x: Value, axes: Axes | None = None) -> bool:
    """Whether `m` is the maximum of `x` (over `axes`), made finite or not, in any view."""
    m = through_views(m)
    if m.op.name == "where":
        m = through_views(m.operands[1])
    return m.op.name == "amax" and m.operands[0] is x and axes in (None, m.attrs["axes"])


def shifted(x: Value, axes: Axes) -> bool:
    """Whether the maximum over `axes` has been subtracted in `x` already."""
    return x.op.name == "sub" and is_shift(x.operands[1], x.operands[0], axes)


def unshifted(x: Value, axes: Axes) -> bool:
    """Whether exponentials of `x`, summed over `axes`, need a shift and can have one."""
    return not shifted(x, axes) and all(x.tensor.shape[a] != 0 for a in axes)


def rows_of(dims: Axes, axes: Axes, x: Value) -> bool:
    """Whether a broadcast along `dims` repeats a reduction of `x` over `axes` along those axes."""
    return dims == complement(axes, x.tensor.rank)


# --- what a logarithm meets ----------------------------------------------------------------------


def exponential(x: Value) -> bool:
    """Whether `x` is a sum of exponentials and positive numbers, whose logarithm has an exact form."""
    if x.op.name in ("add", "sum"):
        return all(map(exponential, x.operands))
    return x.op.name == "exp" or positive(x)


def overflows(x: Value) -> bool:
    """Whether `x` is a sum of exponentials that is not shifted."""
    if x.op.name == "sum" and x.operands[0].op.name == "exp":
        return not shifted(x.operands[0].operands[0], x.attrs["axes"])
    return x.op.name == "add" and exponential(x)


def scale(c: Value) -> bool:
    """Whether `c` is a positive number or a dimension."""
    return positive(c) or through_views(c).op.name == "dim"


STABILIZE: RuleSet = rules("stabilize", """
    # exp(x) - 1 and log(1 + x), for small x
    exp(x) - 1                                  ~> expm1(x)
    exp(x) + -1                                 ~> expm1(x)
    1 - exp(x)                                  ~> neg(expm1(x))
    log(1 + exp(x))                             ~> softplus(x)
    log(1 + x)                                  ~> log1p(x)
    log(1 - x)                                  ~> log1p(neg(x))
    log(expm1(x))                               ~> x + log(neg(expm1(neg(x))))

    # sigmoid, softplus, tanh
    exp(x) / (1 + exp(x))                       ~> sigmoid(x)
    exp(x) / (exp(x) + c)                       ~> sigmoid(x - log(c))          if positive(c)
    exp(x) / (exp(x) + exp(y))                  ~> sigmoid(x - y)
    (exp(x) - exp(neg(x))) / (exp(x) + exp(neg(x)))  ~> tanh(x)
    expm1(x) / (1 + exp(x))                     ~> tanh(x * 0.5)
    neg(expm1(x)) / (1 + exp(x))                ~> neg(tanh(x * 0.5))
    1 / (1 + exp(x))                            ~> sigmoid(neg(x))
    a / (1 + exp(x))                            ~> a * sigmoid(neg(x))
    1 - sigmoid(x)                              ~> sigmoid(neg(x))
    sigmoid(x) - 1                              ~> neg(sigmoid(neg(x)))
    sigmoid(x) + -1                             ~> neg(sigmoid(neg(x)))
    sigmoid(x) / sigmoid(neg(x))                ~> exp(x)
    sigmoid(neg(x)) / sigmoid(x)                ~> exp(neg(x))
    exp(neg(softplus(x)))                       ~> sigmoid(neg(x))
    log(sigmoid(x))                             ~> neg(softplus(neg(x)))
    log1p(neg(sigmoid(x)))                      ~> neg(softplus(x))
    log1p(exp(x))                               ~> softplus(x)
    x + softplus(neg(x))                        ~> softplus(x)
    softplus(x) - x                             ~> softplus(neg(x))
    max(x, 0) + softplus(neg(abs(x)))           ~> softplus(x)
    relu(x) + softplus(neg(abs(x)))             ~> softplus(x)
    log(cosh(x))                                ~> (abs(x) - 0.6931471805599453) + softplus(abs(x) * -2)

    # logarithms of exponentials, their sums, products and quotients
    log(exp(x))                                 ~> x
    log(exp(x) + y)                             ~> logaddexp(x, log(y))         if exponential(y)
    log(exp(x) * y)                             ~> x + log(y)
    log(exp(x) / y)                             ~> x - log(y)
    log(y / exp(x))                             ~> log(y) - x
    log(1 / x)                                  ~> neg(log(x))                  if nonnegative(x)
    log(c / x)                                  ~> log(c) - log(x)              if positive(c) and nonnegative(x)
    log(y * c)                                  ~> log(y) + log(c)              if scale(c) and overflows(y)
    log(y / c)                                  ~> log(y) - log(c)              if scale(c) and overflows(y)
    sqrt(x * x)                                 ~> abs(x)

    # log-sum-exp, softmax, log-softmax
    log(sum(exp(x), axes=a))                    ~> logsumexp(x, a)              if unshifted(x, a)
    x - broadcast(m + l, shape=s, dims=d)
        ~> (x - broadcast(m, shape=s, dims=d)) - broadcast(l, shape=s, dims=d)  if is_shift(m, x)
    broadcast(m + l, shape=s, dims=d) - x
        ~> broadcast(l, shape=s, dims=d) - (x - broadcast(m, shape=s, dims=d))  if is_shift(m, x)
    exp(x) / broadcast(sum(exp(x), axes=a), shape=s, dims=d)
        ~> softmax(x, a)                        if rows_of(d, a, x) and unshifted(x, a)
    exp(x) * broadcast(1 / sum(exp(x), axes=a), shape=s, dims=d)
        ~> softmax(x, a)                        if rows_of(d, a, x) and unshifted(x, a)
""", [
    exponential, is_shift, logsumexp, nonnegative, overflows, positive, rows_of, scale, softmax, unshifted,
])

_LOG_PASSES = ("reshape", "transpose", "slice", "reverse", "take", "gather", "take_along_axis")


def _has_log_form(x: Value) -> bool:
    if x.op.name in ("div", "mul"):
        return any(o.op.name == "exp" for o in x.operands)
    return x.op.name in ("exp", "sigmoid", "cosh") or overflows(x)


@STABILIZE.rule("log", "log(moved(x)) -> moved(log(x))")
def _log_of_moved(value: Value) -> Value | None:
    """Bring the logarithm to the value that has an exact form, past ops that only move elements."""
    moves: list[Value] = []
    x = value.operands[0]
    while x.op.name in _LOG_PASSES:
        moves.append(x)
        x = x.operands[0]
    if not moves or not _has_log_form(x):
        return None
    result = OPS["log"](x)
    for move in reversed(moves):
        result = make(move.op, (result, *move.operands[1:]), move.attrs)
    return result


# --- passes --------------------------------------------------------------------------------------

_RULES = STABILIZE + CANONICALIZE
_MASKS = rules("masks, once all derivatives are taken", """
    masked(x, g)                -> where(g == 0, 0, x)
""")


def stabilize(graph: Graph) -> Graph:
    """The graph with `STABILIZE` applied until no rule fires; it stays canonical."""
    return rewrite(graph, _RULES + _MASKS)


def stabilize_values(values: Sequence[Value], keep: Iterable[Value] = ()) -> list[Value]:
    """Free-standing values, stabilized; those in `keep` are opaque (what one differentiates by).

    So are the guards of masks, on which the masked parts must go on to depend.
    """
    guards = [v.operands[1] for v in topological(values) if v.op.name == "masked"]
    return rewrite_values(values, _RULES, [*keep, *guards])
