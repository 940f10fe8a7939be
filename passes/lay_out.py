"""Lay out: a loop's constant factors of products are put, once and before the loop, in the order that products read.

A product reads its right factor row by row, along the columns of its result. Where the columns of a matrix that no
step changes lie apart in memory (the gradient of ``h @ U`` multiplies by the transposed ``U``), each step would
transpose it again.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.graph import Graph, Value, source_location
from ..ir.op import OPS
from .loop_parts import Loop, map_loops

__all__ = ["lay_out"]

LEAST_ROWS = 8
"""Rows of the left factor from which a product runs along the columns, not along the sum."""


def lay_out(graph: Graph) -> Graph:
    """The graph with captured matrices transposed before its loops, where products want that (those in regions not)."""
    return map_loops(graph, _laid_out)


def _laid_out(loop: Loop, used: set[int]) -> Sequence[Value] | None:
    outer = dict(zip(loop.captured, loop.captures))
    changes: dict[Value, Value] = {}
    for v in loop.body:
        if v.op.name == "dot" and v.operands[1] in outer and _reads_columns(v):
            a, b = v.operands
            with source_location(v.locs):
                turned = loop.capture(_turned(outer[b]))
                changes[v] = OPS["dot"](a, turned, contract=(v.attrs["contract"][0], (0,)))
    if not changes:
        return None
    loop.replace(changes)
    return loop.results(loop.build())


def _turned(matrix: Value) -> Value:
    """A matrix transposed; what is transposed for another loop already, as it was."""
    if matrix.op.name == "transpose":
        return matrix.operands[0]
    return OPS["transpose"](matrix, perm=(1, 0))


def _reads_columns(dot: Value) -> bool:
    """Whether a product of several rows sums over the last axis of a matrix that is its right factor."""
    a, b = dot.operands
    (ca, cb), (ba, _) = dot.attrs["contract"], dot.attrs["batch"]
    rows = a.tensor.shape[0] if a.tensor.rank == 2 and tuple(ca) == (1,) else 0
    return b.tensor.rank == 2 and tuple(cb) == (1,) and not ba and (not isinstance(rows, int) or rows >= LEAST_ROWS)
