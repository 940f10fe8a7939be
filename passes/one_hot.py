"""Products with one-hot rows: the other operand's rows are picked, or added up, and nothing is multiplied.

``one_hot(i) @ w`` has the rows ``w[i]``, and ``one_hot(i).T @ g`` adds row r of g to row ``i[r]``. A product also
multiplies all the other rows by 0, which is NaN where they are not finite; what is built here has NaN there as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..ir.broadcasting import full
from ..ir.dims import Dim, equal
from ..ir.dtypes import int32, int64
from ..ir.graph import Graph, Value, source_location
from ..ir.op import OPS
from .predicates import complement, full_like, splat, value_of
from .rewrite import RuleSet, rewrite

__all__ = ["one_hot"]

LEAST_COLUMNS = 8
"""Columns of a row from which adding rows beats a product."""

RULES = RuleSet("products with one-hot rows")


@dataclass(frozen=True)
class _OneHot:
    """A value that is 1 where the counter of `axis` is the integer in `positions` at the other axes, 0 elsewhere."""

    positions: Value
    axis: int
    count: int


def one_hot(graph: Graph) -> Graph:
    """The graph with rows picked or added up where rows were multiplied by 1 and 0."""
    with source_location(None):
        return rewrite(graph, RULES)


# --- recognition ---------------------------------------------------------------------------------


def _recognize(x: Value) -> _OneHot | None:
    """The one-hot form of a float matrix; None if it has none."""
    if x.op.name == "cast":
        return _of_condition(x.operands[0])
    if x.op.name == "where" and [splat(v) and value_of(v) for v in x.operands[1:]] == [1, 0]:
        return _of_condition(x.operands[0])
    if x.op.name not in ("transpose", "reshape"):
        return None
    inner = _recognize(x.operands[0])
    if inner is None:
        return None
    return _transposed(inner, x.attrs["perm"]) if x.op.name == "transpose" else _reshaped(inner, x)


def _of_condition(x: Value) -> _OneHot | None:
    """``positions == iota``, both spread over a shape."""
    if x.op.name != "eq" or not x.operands[0].tensor.dtype.is_integer:
        return None
    for counter, other in (x.operands, x.operands[::-1]):
        axis = _counted(counter)
        if axis is None:
            continue
        count = x.tensor.shape[axis]
        most = min(np.iinfo(dtype.numpy).max for dtype in (counter.tensor.dtype, int32))
        if not isinstance(count, int) or not 1 <= count < most:
            continue
        if other.op.name == "broadcast" and axis not in other.attrs["dims"]:
            rest = complement((axis,), x.tensor.rank)
            dims = [rest.index(k) for k in other.attrs["dims"]]
            return _OneHot(_spread(other.operands[0], dims, [x.tensor.shape[k] for k in rest]), axis, count)
    return None


def _counted(x: Value) -> int | None:
    """The axis that an `iota` counts, itself or spread over more axes."""
    if x.op.name == "iota":
        return int(x.attrs["axis"])
    if x.op.name == "broadcast" and x.operands[0].op.name == "iota":
        inner = x.operands[0]
        k = int(inner.attrs["axis"])
        axis = int(x.attrs["dims"][k])
        return axis if equal(inner.tensor.shape[k], x.tensor.shape[axis]) else None
    return None


def _transposed(inner: _OneHot, perm: Sequence[int]) -> _OneHot:
    order = [k - (k > inner.axis) for k in perm if k != inner.axis]
    return _OneHot(_axes_first(inner.positions, order), tuple(perm).index(inner.axis), inner.count)


def _reshaped(inner: _OneHot, x: Value) -> _OneHot | None:
    """Only axes on one side of the counted one, which is the first or the last, are taken together or apart."""
    before, after = x.operands[0].tensor.shape, x.tensor.shape
    if inner.axis == len(before) - 1 and after and equal(before[-1], after[-1]):
        return _OneHot(OPS["reshape"](inner.positions, shape=after[:-1]), len(after) - 1, inner.count)
    if inner.axis == 0 and after and equal(before[0], after[0]):
        return _OneHot(OPS["reshape"](inner.positions, shape=after[1:]), 0, inner.count)
    return None


# --- rules ---------------------------------------------------------------------------------------


@RULES.rule("dot", "dot(one_hot(i), w) -> take(w, i) + where(finite, 0, nan)")
def _picked(value: Value) -> Value | None:
    for k in _sides(value):
        found, other = _recognize(value.operands[k]), value.operands[1 - k]
        contracted, own = value.attrs["contract"][k], value.attrs["contract"][1 - k]
        if found is None or tuple(contracted) != (found.axis,):
            continue
        rows = _axes_first(other, own)
        at = _valid(found)
        picked, lead = OPS["take"](rows, at, axis=0), at.tensor.rank
        inside = _spread(OPS["lt"](at, full_like(at.tensor, found.count)), range(lead), picked.tensor.shape)
        picked = OPS["where"](inside, picked, full_like(picked.tensor, 0))
        poison = _poison(OPS["isfinite"](picked), rows, rows, 1)
        return _ordered(OPS["add"](picked, poison), lead, first=k == 0)
    return None


@RULES.rule("dot", "dot(one_hot(i), g) over all i ~> scatter_add(i, g) + where(finite, 0, nan)", exact=False)
def _added(value: Value) -> Value | None:
    for k in _sides(value):
        found, other = _recognize(value.operands[k]), value.operands[1 - k]
        contracted, own = value.attrs["contract"][k], value.attrs["contract"][1 - k]
        if found is None or found.axis in contracted or not 1 <= found.positions.tensor.rank == len(contracted):
            continue
        columns = [other.tensor.shape[a] for a in complement(own, other.tensor.rank)]
        if not columns or isinstance(columns[-1], int) and columns[-1] < LEAST_COLUMNS:
            continue
        paired = dict(zip(contracted, own))
        g = _axes_first(other, [paired[a] for a in complement((found.axis,), len(contracted) + 1)])
        # One row more, for what has no row.
        sums = OPS["scatter_add"](_valid(found), g, axis=0, size=found.count + 1)
        total = OPS["add"](sums, _poison(OPS["isfinite"](sums), sums, g, len(contracted)))
        zeros, steps = (0,) * total.tensor.rank, (1,) * total.tensor.rank
        total = OPS["slice"](total, start=zeros, shape=(found.count, *columns), step=steps)
        return _ordered(total, 1, first=k == 0)
    return None


def _sides(value: Value) -> tuple[int, ...]:
    """The operands that may be one-hot: of a product of floats without batch."""
    operands = value.operands
    plain = not value.attrs["batch"][0] and all(x.tensor.dtype == value.tensor.dtype for x in operands)
    return (0, 1) if plain and value.tensor.dtype.is_float else ()


def _poison(finite: Value, rows: Value, factors: Value, count: int) -> Value:
    """0, or NaN where a product with 0 is: `factors` has numbers that are not finite besides those added.

    Parameters
    ----------
    finite : whether each result, before, is a number.
    rows : what is picked, or the sums: where only one is not finite, it alone keeps its value.
    factors : what the product would multiply; its first `count` axes are summed over.
    """
    dtype, shape = factors.tensor.dtype, finite.tensor.shape
    none, nan = full_like(factors.tensor, 0), full_like(factors.tensor, float("nan"))
    poison = OPS["sum"](OPS["where"](OPS["isfinite"](factors), none, nan), axes=tuple(range(count)))
    wild = OPS["sum"](OPS["cast"](OPS["logical_not"](OPS["isfinite"](rows)), dtype=int32), axes=(0,))
    several = OPS["lt"](full_like(wild.tensor, 1), wild)
    tail = range(len(shape) - poison.tensor.rank, len(shape))
    others = OPS["logical_or"](finite, _spread(several, tail, shape))
    return OPS["where"](others, _spread(poison, tail, shape), full(shape, 0, dtype))


def _valid(x: _OneHot) -> Value:
    """The positions as narrow integers; the count of rows where there is no row."""
    wide = OPS["cast"](x.positions, dtype=int64)
    end = full_like(wide.tensor, x.count)
    inside = OPS["logical_and"](OPS["le"](full_like(wide.tensor, 0), wide), OPS["lt"](wide, end))
    return OPS["cast"](OPS["where"](inside, wide, end), dtype=int32)


def _axes_first(x: Value, axes: Sequence[int]) -> Value:
    """Some axes first, in the given order."""
    perm = (*axes, *complement(axes, x.tensor.rank))
    return OPS["transpose"](x, perm=perm) if perm != tuple(range(x.tensor.rank)) else x


def _ordered(x: Value, lead: int, first: bool) -> Value:
    """The result with its `lead` first axes first, or last."""
    return x if first else OPS["transpose"](x, perm=(*range(lead, x.tensor.rank), *range(lead)))


def _spread(x: Value, dims: Sequence[int], shape: Sequence[Dim]) -> Value:
    """A value along some axes of a shape."""
    same = len(dims) == len(shape)
    return x if same else OPS["broadcast"](x, dims=tuple(dims), shape=tuple(shape))
