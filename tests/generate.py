"""Random graphs and arguments for them, for differential tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import random_control
import random_draws
import random_rows
from random_values import Builder, Draw, Skip, sample_array

from graphwright.frontends.tensor import successors
from graphwright.ir.dims import evaluate, symbol
from graphwright.ir.dtypes import float32, int64
from graphwright.ir.graph import Graph, Value, topological
from graphwright.ir.ops import OPS
from graphwright.ir.types import TupleType
from graphwright.passes.differentiate import gradients
from graphwright.passes.stabilize import stabilize_values

__all__ = ["LARGE", "SMALL", "Draw", "arrays_for", "random_graph"]

SMALL = {"N": 70, "M": 40}
"""The largest sizes at which a graph is run."""
LARGE = {"N": 300, "M": 130}
"""Sizes at which kernels are worth two threads."""

STEPS: tuple[tuple[Callable[[Builder], None], int], ...] = (
    (Builder.unary, 5), (Builder.arithmetic, 7), (Builder.exact_unary, 3), (Builder.rounding, 1), (Builder.signs, 1),
    (Builder.transcendental_binary, 2), (Builder.float_division, 1), (Builder.integers, 3),
    (Builder.comparison, 2), (Builder.logic, 2), (Builder.where, 3), (Builder.cast, 2),
    (Builder.broadcast, 3), (Builder.reshape, 3), (Builder.transpose, 3), (Builder.slice, 3), (Builder.pad, 2),
    (Builder.concat, 2), (Builder.reverse, 1), (Builder.cumulative, 1), (Builder.reduce, 5),
    (Builder.position, 1), (Builder.dot, 4), (Builder.dense, 2), (Builder.conv, 1),
    (Builder.pool, 1), (random_rows.take, 2), (random_rows.scatter, 1), (random_rows.one_hot, 1),
    (random_control.scan, 2), (random_control.while_loop, 1), (random_control.counted_loop, 1),
    (random_control.branch, 1),
    (random_draws.exact_draw, 2), (random_draws.distribution, 2), (random_draws.dropout, 1), (random_draws.shuffle, 1),
    (random_draws.order, 1), (random_draws.rejected, 1),
    (Builder.leaves, 3), (Builder.softmax, 2), (Builder.logsumexp, 1), (Builder.layer_norm, 2), (Builder.gelu, 1),
)  # fmt: skip
_WEIGHTED = [step for step, weight in STEPS for _ in range(weight)]


def random_graph(draw: Draw, sizes: Mapping[str, int] = SMALL, limit: int = 30_000, steps: int = 14) -> Graph:
    """A graph of random steps with outputs, updates of states, and sometimes gradients.

    Parameters
    ----------
    sizes : the largest values of the symbolic dimensions it is to be run at.
    limit : the most elements a value has at these sizes.
    steps : how many are drawn at most.
    """
    b = Builder(draw, sizes, limit)
    for rank in (2, draw.integer(0, 3)):
        b.leaf(b.float, b.shape(rank))
    shape = b.shape(draw.integer(0, 2))
    for _ in range(draw.pick([0, 1, 1, 2, 3])):  # often of one type, so that they can be exchanged
        b.leaf(draw.pick([b.float, b.float, int64]), shape if draw.chance(70) else b.shape(2), state=True)
    for _ in range(draw.integer(2, steps)):
        _step(b)
    read = {o for v in topological([k.value for k in b.values]) for o in v.operands}
    unread = [k.value for k in b.values if k.value not in read]
    outputs = unread[-2:] + [draw.pick(b.values).value for _ in range(draw.integer(0, 2))]
    found = _gradients(b) if draw.chance(50) else {}
    outputs += [g for g in found.values() if draw.chance(70)]
    updates = _updates(b, found)
    updates += tuple(successors(topological([*outputs, *(new for _, new in updates)])))
    roots = [*outputs, *b.inputs, *b.states, *(new for _, new in updates)]
    used = {s for v in topological(roots) for s in _symbols(v)}
    anchored = {s for v in (*b.inputs, *b.states) for d in v.tensor.shape for s in sizes if d == symbol(s)}
    if used - anchored:
        b.leaf(float32, (symbol("N"), symbol("M")))
    return Graph("test", tuple(b.inputs), tuple(b.states), tuple(outputs), updates)


def _symbols(v: Value) -> set[str]:
    """The symbolic dimensions that a value names, in bodies as well."""
    types = v.type.items if isinstance(v.type, TupleType) else (v.type,)
    inside = (_symbols(u) for region in v.regions for u in region)
    return set(v.symbols).union(*(t.symbols for t in types), *inside)


def _step(b: Builder) -> None:
    """One more value, by the first of a few drawn steps that applies."""
    for _ in range(6):
        try:
            b.draw.pick(_WEIGHTED)(b)
            return
        except Skip:
            continue


def _gradients(b: Builder) -> dict[Value, Value]:
    """Gradients, by some leaves, of a sum; sometimes of the square of such a gradient."""
    leaves = [v for v in (*b.inputs, *b.states) if v.tensor.dtype.is_float]
    depends = {k: set(topological([k.value])) for k in b.values if k.dtype.is_float and k.smooth and k.bound < 1e4}
    fits = [k for k, below in depends.items() if k.value.operands and any(v in below for v in leaves)]
    if not fits:
        return {}
    k = b.draw.pick(fits[-3:])
    loss = OPS["sum"](k.value, axes=tuple(range(len(k.shape))))
    wrt = [v for v in leaves if v in depends[k]]
    stable = stabilize_values([loss], keep=wrt)[0] if b.draw.chance(50) else loss
    found = gradients(stable, wrt, on_disconnected="zero")
    if b.draw.chance(15):
        first = found[0] * 0.125
        loss = OPS["sum"](first * first, axes=tuple(range(first.tensor.rank)))
        found = gradients(loss, wrt, on_disconnected="zero")
    return dict(zip(wrt, found))


def _updates(b: Builder, found: Mapping[Value, Value]) -> tuple[tuple[Value, Value], ...]:
    """New values of most states: a step along the gradient, another value of its type, or their difference."""
    updates = []
    streams = {g._value for g in b.generators}
    for state in (s for s in b.states if s not in streams):
        same = [k.value for k in b.values if k.value.type == state.type]
        how = b.draw.pick(["value", "step", "none", "value"])
        if state in found and how != "none":
            updates.append((state, state - 0.125 * found[state]))
        elif how == "step" and not state.tensor.dtype.is_bool:
            updates.append((state, OPS["sub"](state, b.draw.pick(same))))
        elif how != "none":
            updates.append((state, b.draw.pick(same)))
    return tuple(updates)


def arrays_for(values: Sequence[Value], sizes: Mapping[str, int], seed: int) -> list[np.ndarray]:
    """Random arguments for inputs or states."""
    rng = np.random.default_rng(seed)
    return [sample_array(rng, v.tensor.dtype, [max(0, evaluate(d, sizes)) for d in v.tensor.shape]) for v in values]
