"""Mapping: values computed for one element of an axis, for all of its elements at once.

What a value becomes is said by its op's batching rule (`Op.batch`); an elementwise op needs none. Values that do not
depend on what is mapped stay as they are, and are computed once. Loops and branches have rules of their own, in
`passes.control_batching`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import GraphError
from ..ir.batching import aligned
from ..ir.broadcasting import same_type
from ..ir.dims import Dim
from ..ir.graph import Value, source_location
from ..ir.op import Lanes
from ..ir.region import topological_until
from ..ir.types import TensorType

__all__ = ["vectorize"]


def vectorize(roots: Sequence[Value], mapped: Mapping[Value, Value], size: Dim) -> list[Lanes]:
    """Values for all lanes.

    Parameters
    ----------
    roots : the values, of one lane.
    mapped : of some values that they depend on, those of all lanes, with the lanes as their first axis.
    size : the number of lanes.

    Returns
    -------
    For each root a value, and whether it has the lanes as its first axis; else it is the same in all lanes.

    Raises
    ------
    GraphError
        If an op on the way has no batching rule.
    """
    found = dict(mapped)
    same: dict[Value, Value] = {}  # what is alike in all lanes, but computed by a loop that is not
    parts: dict[Value, Sequence[Lanes]] = {}  # of the results of values with several
    for value in topological_until(roots, mapped):
        with source_location(value.locs):
            if value.op.name == "item" and value.operands[0] in parts:
                result, has_lanes = parts[value.operands[0]][value.attrs["index"]]
                (found if has_lanes else same)[value] = result
            elif any(o in found for o in value.operands):
                operands = [(found.get(o) or same.get(o, o), o in found) for o in value.operands]
                if isinstance(value.type, TensorType):
                    found[value] = _apply(value, operands, size)
                else:
                    from .control_batching import region_lanes

                    parts[value] = region_lanes(value, operands, size)
            elif any(o in same for o in value.operands):
                same[value] = value.with_operands([same.get(o, o) for o in value.operands])
    return [(found.get(r) or same.get(r, r), r in found) for r in roots]


def _apply(value: Value, operands: Sequence[Lanes], size: Dim) -> Value:
    op = value.op
    rule = op.batch or (aligned if op.elementwise else None)
    if rule is None:
        where = f" at {value.loc.file}:{value.loc.line}" if value.loc else ""
        raise GraphError(
            f"vmap: {op.name} of type {value.type}{where} has no batching rule\n"
            "  gw.map does it for one element after the other"
        )
    result = rule(value, operands, size)
    wanted = value.tensor.with_shape((size, *value.tensor.shape))
    if not same_type(result.tensor, wanted):
        raise GraphError(f"vmap: the batching rule of {op.name} gave {result.type}, not {wanted}")
    return result
