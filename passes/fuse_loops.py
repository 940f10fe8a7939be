"""Fuse loops: scans of equal length and direction of which none needs another's results become one loop.

Steps of the one then run between those of the others: their elementwise steps become common kernels, sequences that
several read are read once, and there is one loop to wait for. Bodies with contractions or with loops of their own
stay apart: each wants the cache for its matrices.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, count
from typing import Any

from ..ir.graph import Graph, Value, attr_key
from ..ir.region import substitute_values
from .loop_parts import Loop, depends_on, parameter

__all__ = ["fuse_loops"]


def fuse_loops(graph: Graph) -> Graph:
    """The graph with its independent loops fused (those in regions not); the same object if there are none."""
    while True:
        together = next(_independent(graph), None)
        if together is None:
            return graph
        graph = _replaced(graph, _fused(list(map(Loop.of, together))))


def _independent(graph: Graph) -> Iterator[list[Value]]:
    """Loops that may be one."""
    groups: dict[Any, list[Value]] = {}
    for v in graph:
        if v.op.name == "scan" and _is_light(v.regions[0]):
            groups.setdefault(_pace(v), []).append(v)
    for members in groups.values():
        while members:
            chosen: list[Value] = []
            reached: set[Value] = set()
            for v in members:  # operands first: an earlier one cannot need a later one
                if v not in reached:
                    chosen.append(v)
                    reached |= depends_on(graph, [v])
            if len(chosen) > 1:
                yield chosen
            members = [v for v in members if v not in chosen]


def _pace(loop: Value) -> Any:
    """A key that is equal for loops that run the same steps in the same order."""
    attrs = {k: v for k, v in loop.attrs.items() if k not in ("carries", "sequences")}
    steps = id(loop.operands[-1]) if loop.attrs["counted"] else None
    return steps, tuple(sorted((name, attr_key(value)) for name, value in attrs.items()))


def _is_light(body: Graph) -> bool:
    return not any(v.regions or v.op.kind == "contract" for v in body)


def _fused(loops: list[Loop]) -> dict[Value, list[Value]]:
    """The results of one loop, for those of each."""
    first, *others = loops
    carries, places = len(first.carries), [(0, 0)]
    for other in others:
        places.append((carries, len(first.rows)))
        _rename(other, {p.attrs["name"] for p in (*first.carries, *first.elements, *first.captured)})
        carries += len(other.carries)
        for name in ("initial", "over", "captures", "carries", "elements", "captured", "new", "rows"):
            getattr(first, name).extend(getattr(other, name))
    results = first.results(first.build())
    found = {}
    for loop, (carry, row) in zip(loops, places):
        n, m = loop.value.attrs["carries"], len(loop.value.regions[0].outputs)
        rows = carries + row
        found[loop.value] = results[carry : carry + n] + results[rows : rows + m - n]
    return found


def _rename(loop: Loop, taken: set[str]) -> None:
    """Give the inputs of a body names that no other has."""
    changes = {}
    for part in ("carries", "elements", "captured"):
        inputs = getattr(loop, part)
        for p in inputs:
            plain = p.attrs["name"]
            name = next(n for n in chain([plain], (f"{plain}.{k}" for k in count(1))) if n not in taken)
            taken.add(name)
            changes[p] = parameter(p, name, p.tensor.shape)
        setattr(loop, part, [changes[p] for p in inputs])
    roots = substitute_values([*loop.new, *loop.rows], changes)
    loop.new, loop.rows = roots[: len(loop.new)], roots[len(loop.new) :]


def _replaced(graph: Graph, results: dict[Value, list[Value]]) -> Graph:
    """The graph with other results in place of those of loops."""
    new: dict[Value, Value] = {}
    for v in graph:
        if v.op.name == "item" and v.operands[0] in results:
            new[v] = results[v.operands[0]][v.attrs["index"]]
        elif v not in results:
            new[v] = v.with_operands([new[o] for o in v.operands])
    return graph.with_values(new)
