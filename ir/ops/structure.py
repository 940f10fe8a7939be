"""Ops about the graph itself: groups of ops that become one kernel or have a gradient of their own, one of several
results, and the order of computation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ...errors import DTypeError, GraphError
from ..batching import with_lanes
from ..broadcasting import same_type
from ..graph import Graph, check_tuple_index
from ..loops import Expr
from ..op import REQUIRED, Body, Definition, Op, Read, Sample, Typing, register
from ..scalars import apply, const, select
from ..types import TensorType, TupleType, Type
from .elementwise import SHAPES

__all__ = ["after", "call", "fusion", "item", "masked"]


def _infer_fusion(t: Typing) -> Type:
    (region,) = t.regions
    if len(region.inputs) != len(t.operands) or not all(
        same_type(a, b.tensor) for a, b in zip(t.types, region.inputs)
    ):
        t.fail(GraphError, "operands do not fit the region's inputs")
    types = tuple(v.tensor for v in region.outputs)
    return types[0] if len(types) == 1 else TupleType(types)


def _run(*operands: Any, bodies: Sequence[Body], reason: str) -> Any:
    results = bodies[0](*operands)
    return results[0] if len(results) == 1 else results


fusion = register(Op(
    "fusion", "region", _infer_fusion, _run, attrs={"reason": ""},
    doc="A group of ops that is lowered to one kernel; `reason` says why they are together.",
))



def _infer_call(t: Typing) -> Type:
    custom, n = t["rule"] == "custom", t["arguments"]
    if t["rule"] not in ("custom", "recompute") or len(t.regions) != 1 + custom:
        t.fail(GraphError, f"{len(t.regions)} regions with the rule {t['rule']!r}")
    forward = t.regions[0]
    if not _fits(forward, t.types):
        t.fail(GraphError, "operands do not fit the region's inputs")
    types = tuple(v.tensor for v in forward.outputs)
    if custom:
        seeds = [x for x in types if x.dtype.is_float]
        if not 0 <= n <= len(t.operands) or not _fits(t.regions[1], [*t.types[:n], *seeds, *t.types[n:]]):
            t.fail(GraphError, "its gradient takes other values than the arguments, the cotangents and the captures")
        wanted = [x for x in t.types[:n] if x.dtype.is_float]
        got = [v.tensor for v in t.regions[1].outputs]
        if len(got) != len(wanted) or not all(map(same_type, got, wanted)):
            t.fail(GraphError, "its gradient does not give a cotangent for each floating-point argument")
    return TupleType(types)


def _fits(region: Graph, types: Sequence[TensorType]) -> bool:
    return len(region.inputs) == len(types) and all(same_type(v.tensor, x) for v, x in zip(region.inputs, types))


call = register(Op(
    "call", "region", _infer_call, lambda *operands, bodies, rule, arguments: bodies[0](*operands),
    attrs={"rule": REQUIRED, "arguments": 0},
    doc="Runs its region, for which differentiation has a rule: `recompute` computes what the gradient needs of it "
    "once more, instead of keeping it; `custom` takes the gradient from a second region, over the first `arguments` "
    "operands, the cotangents, and the other operands, which it treats as constants.",
))

after: Op = register(Op(
    "after", "view",
    infer=lambda t: t.types[0],
    reference=lambda x, _: x,
    define=lambda d, x, _: x(d.index),
    vjp=lambda g, y, x, _: (g, None), jvp=lambda y, t: t[0] and after(t[0], y.operands[1]),
    batch=lambda y, operands, n: after(with_lanes(operands[0], n), operands[1][0]),
    cost=0, arity=2,
    samples=lambda: [Sample((np.linspace(-1, 1, n).reshape(2, -1), np.zeros(3))) for n in (0, 6)],
    doc="x, not before the second operand is computed; what is made of it is not shared with what is made of x.",
))

# --- masks in derivatives ------------------------------------------------------------------------


def _infer_masked(t: Typing) -> Type:
    x, guard = t.types
    if not x.dtype.is_float or guard.dtype != x.dtype:
        t.fail(DTypeError, "needs a floating-point value, and a guard of its dtype")
    t.same_shape()
    return x


def _define_masked(d: Definition, x: Read, guard: Read) -> Expr:
    zero = const(0, d.out.dtype)
    return select(apply("eq", guard(d.index), zero), zero, x(d.index))


def _samples_masked() -> Iterable[Sample]:
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        yield Sample((rng.normal(size=shape), rng.integers(0, 2, shape) * 1.5))


masked: Op = register(Op(
    "masked", "map", _infer_masked, lambda x, guard: np.where(guard == 0, x.dtype.type(0), x), _define_masked,
    elementwise=True, arity=2, samples=_samples_masked,
    doc="x, or 0 where the guard is: a product of the guard and something that may be infinite. Differentiation "
    "(`passes.differentiate`) takes x for linear in the guard also where that is 0.",
))


item = register(Op(
    "item", "view",
    infer=lambda t: check_tuple_index(t.operands[0], t["index"]),
    reference=lambda x, index: x[index],
    attrs={"index": REQUIRED}, cost=0,
    doc="One of an op's several results.",
))
