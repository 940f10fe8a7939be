"""Ops about the graph itself: groups of ops that become one kernel, and one of several results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...errors import GraphError
from ..broadcasting import same_type
from ..graph import check_tuple_index
from ..op import REQUIRED, Body, Op, Typing, register
from ..types import TupleType, Type

__all__ = ["fusion", "item"]


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

item = register(Op(
    "item", "view",
    infer=lambda t: check_tuple_index(t.operands[0], t["index"]),
    reference=lambda x, index: x[index],
    attrs={"index": REQUIRED}, cost=0,
    doc="One of an op's several results.",
))
