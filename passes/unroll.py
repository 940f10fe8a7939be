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
from .loop_parts import Scan, map_scans, parameter

__all__ = ["unroll"]


def unroll(graph: Graph) -> Graph:
    """The graph with its loops unrolled (those in regions not), as often as their attribute says."""
    return map_scans(graph, _unrolled)


def _unrolled(scan: Scan, used: set[int]) -> Sequence[Value] | None:
    length: Dim = scan.value.attrs["length"]
    times = scan.value.attrs["unroll"]
    times = min(times, length) if isinstance(length, int) else times
    if times < 2 or scan.counted:
        return None
    trips = floordiv(length, times)
    whole, n = trips * times, len(scan.carries)
    rest = length - whole
    reverse = scan.value.attrs["reverse"]
    over = [slice_axis(x, 0, rest if reverse else 0, whole) if rest != 0 else x for x in scan.over]
    split = [OPS["reshape"](x, shape=(trips, times, *x.tensor.shape[1:])) for x in over]
    found = _loop(scan, scan.initial, split, trips, _several(scan, times))
    stacks = [OPS["reshape"](y, shape=(whole, *y.tensor.shape[2:])) for y in found[n:]]
    if rest == 0:
        return [*found[:n], *stacks]
    over = [slice_axis(x, 0, 0 if reverse else whole, rest) for x in scan.over]
    last = _loop(scan, found[:n], over, rest, scan.body)
    pairs = [(b, a) if reverse else (a, b) for a, b in zip(stacks, last[n:])]
    return [*last[:n], *(OPS["concat"](*pair, axis=0) for pair in pairs)]


def _loop(scan: Scan, initial: Sequence[Value], over: Sequence[Value], length: Dim, body: Graph) -> list[Value]:
    """The results of a loop like the given one."""
    attrs = {**scan.value.attrs, "length": length, "unroll": 1}
    loop = make(OPS["scan"], [*initial, *over, *scan.captures], attrs, (body,), scan.value.locs)
    return [OPS["item"](loop, index=k) for k in range(len(body.outputs))]


def _several(scan: Scan, times: int) -> Graph:
    """The body for several steps, one after the other."""
    shapes = [(times, *e.tensor.shape) for e in scan.elements]
    elements = [parameter(e, e.attrs["name"], shape) for e, shape in zip(scan.elements, shapes)]
    carried, rows = list(scan.carries), list[list[Value]]()
    order = range(times)
    for k in reversed(order) if scan.value.attrs["reverse"] else order:
        own = [OPS["reshape"](slice_axis(x, 0, k, 1), shape=x.tensor.shape[1:]) for x in elements]
        results = instantiate(scan.body, [*carried, *own, *scan.captured])
        carried = results[: len(carried)]
        rows.append([OPS["reshape"](y, shape=(1, *y.tensor.shape)) for y in results[len(carried) :]])
    rows = rows[::-1] if scan.value.attrs["reverse"] else rows
    outputs = [OPS["concat"](*column, axis=0) for column in zip(*rows)]
    inputs = (*scan.carries, *elements, *scan.captured)
    return Graph(scan.body.name, inputs, (), (*carried, *outputs))
