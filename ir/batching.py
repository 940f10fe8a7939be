"""Batching rules: ops on operands that have a further first axis, along which the op is to be done for each *lane*.

A rule (`Op.batch`) takes a value of its op, for each of the value's operands what stands for it, and the number of
lanes; it gives the results of all lanes, with the lanes as their first axis. At least one operand has lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .broadcasting import broadcast_to
from .dims import Dim, floordiv
from .graph import Value, make
from .op import OPS, Batch, Lanes
from .region import Trace

__all__ = ["aligned", "aligned_with", "fold", "one_by_one", "shifted", "to_front", "unfold", "with_lanes"]


def with_lanes(operand: Lanes, size: Dim) -> Value:
    """An operand with lanes; one without is repeated."""
    x, has_lanes = operand
    return x if has_lanes else broadcast_to(x, (size, *x.tensor.shape))


def aligned(value: Value, operands: Sequence[Lanes], size: Dim) -> Value:
    """The rule of an op that takes further first axes as it is: those of all operands must be alike."""
    return make(value.op, [with_lanes(o, size) for o in operands], value.attrs)


def aligned_with(change: Callable[[Mapping[str, Any], Dim], Mapping[str, Any]]) -> Batch:
    """The rule of an op that takes a further first axis of all operands with other attributes.

    Parameters
    ----------
    change : from the attributes and the number of lanes to the attributes that are different.
    """

    def rule(value: Value, operands: Sequence[Lanes], size: Dim) -> Value:
        attrs = {**value.attrs, **change(value.attrs, size)}
        return make(value.op, [with_lanes(o, size) for o in operands], attrs)

    return rule


def one_by_one(value: Value, operands: Sequence[Lanes], size: Dim) -> Value:
    """The rule of an op that takes no further axis: a loop over the lanes."""
    ordered = sorted(range(len(operands)), key=lambda k: not operands[k][1])
    trace = Trace()
    inputs = trace.inputs_like("x", [value.operands[k].tensor for k in ordered])
    result = make(value.op, [inputs[ordered.index(k)] for k in range(len(operands))], value.attrs)
    regions, captured = trace.close({"region": [result]})
    attrs = {**OPS["scan"].attrs, "carries": 0, "sequences": sum(has for _, has in operands), "length": size}
    loop = make(OPS["scan"], [*(operands[k][0] for k in ordered), *captured], attrs, regions)
    return OPS["item"](loop, index=0)


# --- axes ----------------------------------------------------------------------------------------


def shifted(axes: Sequence[int]) -> tuple[int, ...]:
    """Axes behind a further first one."""
    return tuple(k + 1 for k in axes)


def to_front(x: Value, axis: int) -> Value:
    """`x` with an axis as its first."""
    return _moved(x, axis, 0)


def _moved(x: Value, source: int, destination: int) -> Value:
    """`x` with an axis at another place."""
    order = [k for k in range(x.tensor.rank) if k != source]
    order.insert(destination, source)
    return x if source == destination else OPS["transpose"](x, perm=tuple(order))


def _reshaped(x: Value, shape: Sequence[Dim]) -> Value:
    return OPS["reshape"](x, shape=tuple(shape))


def fold(x: Value, axis: int, groups: int = 1) -> Value:
    """The lanes of `x` as a part of an axis (counted without them): outermost, or of each of its groups."""
    size, *shape = x.tensor.shape
    head, n, tail = shape[:axis], shape[axis], shape[axis + 1:]
    if groups > 1:
        x = _reshaped(x, (size, *head, groups, floordiv(n, groups), *tail))
    x = _moved(x, 0, axis + (groups > 1))
    return _reshaped(x, (*head, size * n, *tail))


def unfold(x: Value, axis: int, size: Dim, extent: Dim, groups: int = 1) -> Value:
    """The inverse of `fold`: the lanes that are a part of an axis as the first axis; the axis is then `extent` long."""
    shape = x.tensor.shape
    head, n, tail = shape[:axis], floordiv(extent, groups), shape[axis + 1:]
    split = [groups, size, n] if groups > 1 else [size, n]
    x = to_front(_reshaped(x, (*head, *split, *tail)), axis + len(split) - 2)
    return _reshaped(x, (size, *head, extent, *tail)) if groups > 1 else x
