"""Constant folding: ops whose operands are known are computed now, by their NumPy references.

Elementwise ops on splats give splats, whatever their shape (symbolic ones included). Other results
become literal arrays if they are no larger than `LIMIT`; larger ones are cheaper to compute than to
ship, and so are broadcasts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..ir.graph import Graph, Literal, Value, make
from ..ir.ops import OPS
from ..ir.types import TensorType
from .canonicalize import CANONICALIZE, is_elementwise
from .predicates import full_like, is_static, splat, value_of
from .rewrite import RuleSet, rewrite

__all__ = ["FOLD", "LIMIT", "fold"]

LIMIT = 64 * 1024
"""The largest literal, in bytes, that folding makes or reads."""

FOLD = RuleSet("fold")


@FOLD.rule("constant", "constant of one repeated number -> full")
def _splat_constant(value: Value) -> Value | None:
    array = value.attrs["value"].array
    if array.size == 0:
        return full_like(value.tensor, 0)
    first = array.reshape(-1)[:1]
    same_bits = array.tobytes() == first.tobytes() * array.size
    return full_like(value.tensor, first.item()) if same_bits else None


@FOLD.rule(is_elementwise, "f(full, ...) -> full")
def _splat_result(value: Value) -> Value | None:
    if not all(map(splat, value.operands)):
        return None
    return full_like(value.tensor, evaluate(value, [element(x) for x in value.operands]).item())


@FOLD.rule(lambda op: op.kind != "leaf" and op.name != "broadcast", "f(constant, ...) -> constant")
def _constant_result(value: Value) -> Value | None:
    known = all(x.op.name == "constant" or splat(x) for x in value.operands)
    if not known or not value.operands or value.regions:
        return None
    if not all(map(_small, (value, *value.operands))):
        return None
    arrays = [np.full(x.shape, element(x)) if splat(x) else x.attrs["value"].array for x in value.operands]
    return make(OPS["constant"], (), {"value": Literal(evaluate(value, arrays))})


def _small(x: Value) -> bool:
    t = x.type
    return isinstance(t, TensorType) and is_static(t.shape) and isinstance(t.nbytes, int) and t.nbytes <= LIMIT


def element(x: Value) -> Any:
    """The number of a splat, as a 0-d array of its dtype."""
    return np.asarray(value_of(x)).astype(x.tensor.dtype.numpy)


def evaluate(value: Value, operands: list[Any]) -> np.ndarray[Any, Any]:
    """The result of an op on arrays, in its dtype."""
    with np.errstate(all="ignore"):
        return np.asarray(value.op.reference(*operands, **value.attrs), value.tensor.dtype.numpy)


_RULES = FOLD + CANONICALIZE


def fold(graph: Graph) -> Graph:
    """The graph with known values computed; it stays canonical."""
    return rewrite(graph, _RULES)
