"""Pack loops: a matrix that each step of a loop multiplies by is put into panels once, before the loop.

Register tiles read some columns of a matrix, row by row. In a matrix whose rows are a power of two long these displace
each other in the cache; in panels (`ir.ops.panels`) they follow one another.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ..ir.graph import Graph, Value, source_location, users
from ..ir.op import OPS
from .cpu_model import CpuModel
from .lay_out import LEAST_ROWS
from .loop_parts import Loop, map_loops
from .panels import panels_of, worth_panels

__all__ = ["pack_loops"]

FEW_STEPS = 4
"""Steps up to which it is not worth to read and write a matrix again."""


def pack_loops(graph: Graph, cpu: CpuModel) -> Graph:
    """The graph with constant factors of products in its loops in panels (those in regions not)."""
    return map_loops(graph, partial(_packed, cpu))


def _packed(cpu: CpuModel, loop: Loop, used: set[int]) -> Sequence[Value] | None:
    length = loop.value.attrs.get("length")
    if isinstance(length, int) and length <= FEW_STEPS:
        return None
    changes: dict[Value, Value] = {}
    readers = users(loop.body)
    for outer, inside in list(zip(loop.captures, loop.captured)):
        products = readers[inside]
        if products and all(_is_right_factor(inside, u) for u in products) and _worth(outer, cpu):
            with source_location(products[0].locs):
                panels = loop.capture(panels_of(outer, cpu))
                changes[inside] = OPS["unpack"](panels, columns=outer.tensor.shape[1])
    if not changes:
        return None
    loop.replace(changes)
    kept = [(outer, inside) for outer, inside in zip(loop.captures, loop.captured) if inside not in changes]
    loop.captures, loop.captured = map(list, zip(*kept))
    return loop.results(loop.build())


def _worth(matrix: Value, cpu: CpuModel) -> bool:
    return matrix.tensor.rank == 2 and worth_panels(matrix, matrix.tensor.shape[1], cpu)


def _is_right_factor(matrix: Value, dot: Value) -> bool:
    """Whether a product of several rows has a matrix as its right factor, and sums over its rows."""
    if dot.op.name != "dot" or dot.operands[0] is matrix:
        return False
    (_, cb), (ba, _) = dot.attrs["contract"], dot.attrs["batch"]
    rows = dot.tensor.shape[0] if dot.tensor.rank == 2 else 0
    return tuple(cb) == (0,) and not ba and (not isinstance(rows, int) or rows >= LEAST_ROWS)
