"""Square blocks that are loaded along one axis and stored along the other: transposed in registers."""

from __future__ import annotations

from ...ir.dims import coefficient
from ...ir.loops import For, Store, flat_index
from .function import FunctionText
from .strided import shuffle

__all__ = ["is_transposition", "transpose"]


def is_transposition(s: For) -> bool:
    """Whether a vector loop holds nothing but an unrolled one of the same extent, with one plain store."""
    if s.kind != "vector" or s.extent != s.lanes or len(s.body) != 1:
        return False
    inner = s.body[0]
    if not isinstance(inner, For) or inner.kind != "unroll" or inner.extent != s.lanes or len(inner.body) != 1:
        return False
    store = inner.body[0]
    if not isinstance(store, Store) or store.combiner is not None or store.buffer.dtype.is_bool:
        return False
    position = flat_index(store)
    return s.lanes & (s.lanes - 1) == 0 and position is not None and coefficient(position, inner.var) == 1


def transpose(f: FunctionText, vector: str, rows: list[str]) -> list[str]:
    """The columns of a square block of vectors.

    Eklundh, "A fast computer method for matrix transposing" (1972): halves off the diagonal change places, for blocks
    of 2, 4, 8, ... rows.
    """
    n = len(rows)
    distance = 1
    while distance < n:
        upper = [k - distance + n if k & distance else k for k in range(n)]
        lower = [k + n if k & distance else k + distance for k in range(n)]
        for i in range(n):
            if not i & distance:
                pair = rows[i], rows[i + distance]
                rows[i], rows[i + distance] = shuffle(f, vector, *pair, upper), shuffle(f, vector, *pair, lower)
        distance *= 2
    return rows
