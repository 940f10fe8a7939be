"""Rows for random graphs: those that data choose, by their positions or as a product with one-hot vectors."""

from __future__ import annotations

from random_values import Builder, Known, Skip

from graphwright.ir.dims import symbol
from graphwright.ir.dtypes import int32, int64
from graphwright.ir.ops import OPS

__all__ = ["one_hot", "scatter", "take"]


def _positions(b: Builder, rank: int) -> Known:
    if b.draw.chance(50):
        return b.known("iu", lambda i: len(i.shape) <= rank)
    return b.leaf(b.draw.pick([int64, int32]), b.shape(1))


def take(b: Builder) -> None:
    k = b.known("fiub", lambda k: bool(k.shape))
    axis = b.draw.integer(0, len(k.shape) - 1)
    if k.shape[axis] == 0:
        raise Skip
    index = _positions(b, 2)
    if len(k.shape) + len(index.shape) > 5:
        raise Skip
    b.like(OPS["take"](k.value, index.value, axis=axis), k)


def scatter(b: Builder) -> None:
    k = b.known("fiu", lambda k: bool(k.shape))
    axis = b.draw.integer(0, len(k.shape) - 1)
    index = b.leaf(int64, k.shape[axis : axis + 1])
    size = b.draw.pick([4, 1, 7, *([symbol("N") + 1] if b.symbolic else [])])
    value = OPS["scatter_add"](index.value, k.value, axis=axis, size=size)
    bound = k.bound * max(b.elements(k.shape[axis : axis + 1]), 1)
    b.note(value, -bound, bound, k.frac, k.smooth)


def one_hot(b: Builder) -> None:
    """A product with one-hot vectors: over what they count, or over all of them."""
    index = _positions(b, 2)
    count, units, rank = b.draw.pick([1, 3, 9, 17]), b.draw.pick([1, 8, 13, 40]), len(index.shape)
    shape = (*index.shape, count)
    if b.elements(index.shape) * max(count, units) > b.limit:
        raise Skip
    spread = OPS["broadcast"](index.value, dims=tuple(range(rank)), shape=shape)
    counter = OPS["iota"](shape=shape, axis=rank, dtype=index.dtype)
    hot = b.note(OPS["cast"](OPS["eq"](spread, counter), dtype=b.float), 0, 1, 0)
    if b.draw.chance(50):
        other, contract = b.leaf(b.float, (count, units), b.draw.chance(50)), ([rank], [0])
    else:
        other, contract = b.leaf(b.float, (*index.shape, units)), (list(range(rank)), list(range(rank)))
    if b.draw.chance(50):
        b.product(hot, other, contract, ([], []))
    else:
        b.product(other, hot, contract[::-1], ([], []))
