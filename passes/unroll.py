"""Unroll: a loop with ``unroll = k`` does k steps at a time, which fusion then sees together.

Sequences are read, and outputs stacked, k elements at a time; the steps that are left over are a loop of their own.
A loop that counts its steps while it runs stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.dims import Dim, floordiv
from ..ir.graph import Graph, Value, make
from ..ir.op import OPS
from ..ir.ops.movement import slice_axis
from ..ir.region import instantiate
from .loop_parts import Loop, map_loops, parameter

__all__ = ["unroll"]


def unroll(graph: Graph) -> Graph:
    """The graph with its loops unrolled (those in regions not), as often as their attribute says."""
    return map_loops(graph, _unrolled, ("scan",))


def _unrolled(loop: Loop, used: set[int]) -> Sequence[Value] | None:
    length: Dim = loop.value.attrs["length"]
    times = loop.value.attrs["unroll"]
    times = min(times, length) if isinstance(length, int) else times
    if times < 2 or loop.counted:
        return None
    trips = floordiv(length, times)
    whole, n = trips * times, len(loop.carries)
    rest = length - whole
    reverse = loop.value.attrs["reverse"]
    over = [slice_axis(x, 0, rest if reverse else 0, whole) if rest != 0 else x for x in loop.over]
    split = [OPS["reshape"](x, shape=(trips, times, *x.tensor.shape[1:])) for x in over]
    found = _loop(loop, loop.initial, split, trips, _several(loop, times))
    stacks = [OPS["reshape"](y, shape=(whole, *y.tensor.shape[2:])) for y in found[n:]]
    if rest == 0:
        return [*found[:n], *stacks]
    over = [slice_axis(x, 0, 0 if reverse else whole, rest) for x in loop.over]
    last = _loop(loop, found[:n], over, rest, loop.body)
    pairs = [(b, a) if reverse else (a, b) for a, b in zip(stacks, last[n:])]
    return [*last[:n], *(OPS["concat"](*pair, axis=0) for pair in pairs)]


def _loop(loop: Loop, initial: Sequence[Value], over: Sequence[Value], length: Dim, body: Graph) -> list[Value]:
    """The results of a loop like the given one."""
    attrs = {**loop.value.attrs, "length": length, "unroll": 1}
    made = make(OPS["scan"], [*initial, *over, *loop.captures], attrs, (body,), loop.value.locs)
    return [OPS["item"](made, index=k) for k in range(len(body.outputs))]


def _several(loop: Loop, times: int) -> Graph:
    """The body for several steps, one after the other."""
    shapes = [(times, *e.tensor.shape) for e in loop.elements]
    elements = [parameter(e, e.attrs["name"], shape) for e, shape in zip(loop.elements, shapes)]
    carried, rows = list(loop.carries), list[list[Value]]()
    order = range(times)
    for k in reversed(order) if loop.value.attrs["reverse"] else order:
        own = [OPS["reshape"](slice_axis(x, 0, k, 1), shape=x.tensor.shape[1:]) for x in elements]
        results = instantiate(loop.body, [*carried, *own, *loop.captured])
        carried = results[: len(carried)]
        rows.append([OPS["reshape"](y, shape=(1, *y.tensor.shape)) for y in results[len(carried) :]])
    rows = rows[::-1] if loop.value.attrs["reverse"] else rows
    outputs = [OPS["concat"](*column, axis=0) for column in zip(*rows)]
    inputs = (*loop.carries, *elements, *loop.captured)
    return Graph(loop.body.name, inputs, (), (*carried, *outputs))
