"""Prepare: what depends on unchanging states alone is computed once, not in each call.

A function that reads variables and does not update them, a prediction for instance, computes some things of them
alone: the factors of a batch norm, a product of two matrices. These become states of their own, *prepared* ones,
which a second graph computes when a variable has changed (`runtime.preparation`). Then it pays as well to put the
matrices of products into the order in which register tiles read them (`passes.pack_panels` would do so in each call).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..ir.dims import at_most, product
from ..ir.graph import Graph, Value, source_location, topological, users
from ..ir.op import OPS
from .cpu_model import CpuModel
from .panels import in_panels, kernel_in_panels, worth_panels
from .predicates import is_static
from .winograd import winograd

__all__ = ["prepare"]

WIDE_ROWS, NARROW_ROWS = 56, 15
"""Results in a row, with and without strides, up to which a convolution runs along its outputs instead."""

LEAST_KERNEL = 1 << 12
"""Elements of a kernel from which its panels are worth it."""

LEAST_OUTPUTS, LEAST_SUM = 32, 64
"""Outputs that fill a tile, and products summed for each from which writing them apart costs little."""

_FREE = {"broadcast", "transpose", "reshape", "slice", "reverse", "stop_gradient", "unpack", "unpack_kernel"}
"""Ops that cost next to nothing where their result is read."""


def prepare(graph: Graph, cpu: CpuModel) -> tuple[Graph, Graph | None]:
    """The graph over prepared states, which follow its own, and the graph that updates them.

    Where no product has a matrix that is worth it, the graph stays as it is, and the other is None.
    """
    kept = _kept(graph)
    packed = _packed(graph, kept, cpu)
    if packed is graph:
        return graph, None
    kept = _kept(packed)
    values = _frontier(packed, kept)
    with source_location(None):
        states = {v: _state(k, v) for k, v in enumerate(values)}
    main = _replaced(packed, states)
    reached = set(topological(values))
    used = [s for s in graph.states if s in reached]
    updates = tuple((states[v], v) for v in values)
    own = (*used, *states.values())
    return (
        Graph(main.name, main.inputs, (*main.states, *states.values()), main.outputs, main.updates, main.names),
        Graph(f"{graph.name}_prepare", (), own, (), updates),
    )


def _kept(graph: Graph) -> dict[Value, bool]:
    """Values that depend on no input, and on no state that the graph changes; and whether on a state at all."""
    changed = {s for s, new in graph.updates if new is not s}
    found: dict[Value, bool] = {}
    for v in graph:
        if v.op.name == "state":
            if v not in changed:
                found[v] = True
        elif v.op.name != "input" and not v.regions and all(o in found for o in v.operands):
            found[v] = any(found[o] for o in v.operands)
    return found


def _packed(graph: Graph, kept: Mapping[Value, bool], cpu: CpuModel) -> Graph:
    """The graph with the kept matrices of its products in panels; the same object if there are none."""
    new: dict[Value, Value] = {}
    for v in graph:
        operands = [new[o] for o in v.operands]
        new[v] = v.with_operands(operands)
        if v.op.name == "dot" and v not in kept and v.operands[1] in kept and _worth(v, cpu):
            with source_location(v.locs):
                new[v] = _product(v, operands, cpu)
        elif v.op.name == "conv" and v not in kept and v.operands[1] in kept:
            with source_location(v.locs):
                new[v] = winograd(v, operands, cpu) or _convolution(v, operands, cpu)
    return graph.with_values(new)


def _worth(dot: Value, cpu: CpuModel) -> bool:
    b, contract = dot.operands[1], dot.attrs["contract"][1]
    plain = len(contract) == 1 and not dot.attrs["batch"][0] and b.tensor.rank == 2
    return plain and worth_panels(b, b.tensor.shape[1 - contract[0]], cpu)


def _product(dot: Value, operands: Sequence[Value], cpu: CpuModel) -> Value:
    """The product of these operands, its matrix in panels."""
    a, b = operands
    left, (rows,) = dot.attrs["contract"]
    matrix = OPS["transpose"](b, perm=(1, 0)) if rows == 1 else b
    return OPS["dot"](a, in_panels(matrix, cpu), **{**dot.attrs, "contract": (left, (0,))})


def _convolution(conv: Value, operands: Sequence[Value], cpu: CpuModel) -> Value:
    """The convolution of these operands, its kernel in panels where vectors along rows of the result would be worse."""
    x, w = operands
    (outputs, *rest), width = w.tensor.shape, conv.tensor.shape[-1]
    strided = any(s != 1 for s in conv.attrs["stride"])
    narrow = isinstance(width, int) and width <= (WIDE_ROWS if strided else NARROW_ROWS)
    large = is_static(w.tensor.shape) and at_most(LEAST_KERNEL, w.tensor.size) and at_most(LEAST_SUM, product(rest))
    if not narrow or not large or conv.attrs["groups"] != 1 or at_most(outputs, LEAST_OUTPUTS - 1):
        return conv.with_operands(operands)
    return conv.with_operands((x, kernel_in_panels(w, cpu)))


def _frontier(graph: Graph, kept: Mapping[Value, bool]) -> list[Value]:
    """Kept values that others read, but for what is free to compute again."""
    order = list(graph)
    readers = users(order)
    wanted = [v for v in order if kept.get(v) and any(u not in kept for u in readers[v])]
    # what is free where it is read is not where a loop reads it: its panels
    found = {v: None for v in wanted if v.op.name == "transpose" and any(u.regions for u in readers[v])}
    while wanted:
        v = wanted.pop()
        if v in found:
            continue
        if v.op.name in ("unpack", "unpack_kernel"):
            found[v.operands[0]] = None
        elif v.op.name in _FREE:
            wanted.extend(v.operands)
        elif kept[v] and v.op.name != "state" and is_static(v.tensor.shape):
            found[v] = None
    return [v for v in order if v in found]


def _state(k: int, v: Value) -> Value:
    return OPS["state"](name=f"prepared.{k}", shape=v.tensor.shape, dtype=v.tensor.dtype)


def _replaced(graph: Graph, states: dict[Value, Value]) -> Graph:
    new: dict[Value, Value] = {}
    for v in graph:
        new[v] = states[v] if v in states else v.with_operands([new[o] for o in v.operands])
    return graph.with_values(new)
