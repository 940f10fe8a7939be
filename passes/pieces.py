"""Concatenations of equal pieces: a kernel writes them piece by piece, in loops over one piece.

So what the pieces share is computed once (the gradients of a recurrent network's gates, side by side), and no
element asks which piece it belongs to.
"""

from __future__ import annotations

from ..ir.dims import equal, product
from ..ir.graph import Value
from ..ir.types import Shape

__all__ = ["in_pieces", "loop_shape"]

MOST = 8
"""Pieces for which the loop's body may be repeated."""

LEAST = 16
"""Adjacent elements of a piece at least: fewer would not fill a vector."""


def in_pieces(v: Value) -> bool:
    """Whether a kernel that results in this value writes it piece by piece."""
    if v.op.name != "concat" or not 2 <= len(v.operands) <= MOST:
        return False
    first, *others = (o.tensor.shape for o in v.operands)
    adjacent = product(first[v.attrs["axis"]:])
    return all(all(map(equal, first, s)) for s in others) and not (isinstance(adjacent, int) and adjacent < LEAST)


def loop_shape(v: Value) -> Shape:
    """The extents of the loops that compute a result of a kernel."""
    return v.operands[0].tensor.shape if in_pieces(v) else v.tensor.shape
