"""Products that one group reads in parts: slices of equal length, side by side, as of the gates of a recurrent step."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ..ir.dims import equal, product
from ..ir.graph import Value
from ..ir.types import Shape
from .tiles import TRANSPOSE_ROWS

__all__ = ["read_in_parts"]

WHOLE_TILES = 64
"""The length of a part is a multiple of it: tiles, and panels, then end where a part does."""

MOST_PARTS = 4
"""Sums of each part that a tile has in registers."""


def read_in_parts(dot: Value, shape: Shape, members: Collection[Value], users: Mapping[Value, Sequence[Value]]) -> bool:
    """Whether the members of a group with this shape need a product only as its parts, and each of them.

    Parameters
    ----------
    users : who reads each value, in the group and outside.
    """
    if dot.op.name != "dot" or dot.attrs["batch"][0] or dot.operands[1].tensor.rank != 2 or len(dot.tensor.shape) < 2:
        return False
    if len(dot.attrs["contract"][0]) != 1 or len(dot.tensor.shape) != len(shape):
        return False
    *rows, whole = dot.tensor.shape
    part, count = shape[-1], product(rows)
    turned = tuple(dot.attrs["contract"][1]) != (0,)
    if turned and isinstance(count, int) and count < TRANSPOSE_ROWS:
        return False
    if not isinstance(whole, int) or not isinstance(part, int) or not all(map(equal, rows, shape)):
        return False
    if part == 0 or part % WHOLE_TILES or whole % part or not 2 <= whole // part <= MOST_PARTS:
        return False
    return _starts(dot, shape, members, users) == set(range(0, whole, part))


def _starts(
    dot: Value, shape: Shape, members: Collection[Value], users: Mapping[Value, Sequence[Value]]
) -> set[int] | None:
    """Where the slices begin that are all that is read of a product, or of maps of it; None if there is more."""
    found, waiting, seen = set(), [dot], set()
    while waiting:
        v = waiting.pop()
        if v in seen:
            continue
        seen.add(v)
        for u in users[v]:
            if u not in members:
                return None
            if u.op.elementwise or u.op.name == "cast":
                waiting.append(u)
                continue
            if u.op.name != "slice" or not all(map(equal, u.tensor.shape, shape)):
                return None
            *others, start = u.attrs["start"]
            if any(s != 1 for s in u.attrs["step"]) or any(s != 0 for s in others):
                return None
            found.add(start)
    return found
