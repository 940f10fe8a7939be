"""Place blocks of memory in one arena, so that blocks that are alive together share no byte.

Blocks are placed one by one, each at the lowest place that is free: the largest first (Pisarchyk and Lee,
"Efficient memory management for deep neural net inference", 2020), or in another order where that needs
less. While the arena is larger than what is alive at once, the block that ends highest is placed earlier
("squeaky wheel" optimization, Joslin and Clements, 1999). What is lowest is decided at a typical size of the
symbolic dimensions; what is free must be so for all sizes. Sizes and offsets are therefore vectors: the
coefficients of the monomials that occur in them.
As monomials are not negative, ``a <= b`` holds for all sizes if it holds for each coefficient; where this
does not decide, `at_most` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ir.dims import INT64_MAX, Dim, Monomial, at_most, dim_max, evaluate, from_terms, join, terms_of

__all__ = ["Block", "place_blocks"]

MANY = 1000
"""Blocks from which one order of placement is tried, not several."""
ROUNDS = 24
"""Times that blocks are placed again to need less."""
GAPS = 16
"""Free places that are tried before a block goes above all others."""
DOUBTS = 64
"""Comparisons of formulas that one place is worth."""

Vector = NDArray[Any]  # of integers of 64 bits, or of any size where these might overflow


@dataclass(eq=False)
class Block:
    """Memory that one or more temps (each dying where the next is made) or a workspace needs.

    Attributes
    ----------
    first, last : the steps between which it is in use, both included.
    offset : its place, once it has one.
    """

    key: object
    size: Dim
    first: int
    last: int
    offset: Dim | None = None

    @property
    def start(self) -> Dim:
        assert self.offset is not None, "the block has no place yet"
        return self.offset


def place_blocks(blocks: Sequence[Block], typical: Mapping[str, int]) -> Dim:
    """Give every block an offset; returns the size of the arena."""
    size = {b: evaluate(b.size, typical) for b in blocks}
    orders: list[Callable[[Block], Any]] = [
        lambda b: -size[b],
        lambda b: -size[b] * (b.last - b.first + 1),
        lambda b: b.first - b.last,
        lambda b: b.first,
    ]
    found = []
    for order in orders if len(blocks) <= MANY else orders[:1]:
        ordered = sorted(blocks, key=lambda b: (order(b), -size[b], b.first, str(b.key)))
        found.append((_Plan(ordered, typical), ordered))
    best, ordered = min(found, key=lambda plan: plan[0].needs)
    if len(blocks) <= MANY:
        best = _improved(best, ordered, _most_alive(blocks, size), typical)
    for block, offset in best.offsets.items():
        block.offset = offset
    return best.size


class _Plan:
    """Places for the blocks, in the order in which they come."""

    def __init__(self, ordered: Sequence[Block], typical: Mapping[str, int]) -> None:
        arena = _Arena([b.size for b in ordered], typical)
        self.offsets = {b: arena.place(b.size, b.first, b.last) for b in ordered}
        self.size = arena.size
        self.needs = evaluate(self.size, typical)


def _improved(plan: _Plan, ordered: list[Block], least: int, typical: Mapping[str, int]) -> _Plan:
    """The best of some plans, in each of which the highest block of the plan before is placed earlier."""
    best = plan
    for _ in range(ROUNDS):
        if best.needs <= least:
            break
        highest = max(ordered, key=lambda b: evaluate(plan.offsets[b], typical) + evaluate(b.size, typical))
        ordered = ordered.copy()
        k = ordered.index(highest)
        ordered.insert(k // 2, ordered.pop(k))
        plan = _Plan(ordered, typical)
        best = min(best, plan, key=lambda p: p.needs)
    return best


def _most_alive(blocks: Sequence[Block], size: Mapping[Block, int]) -> int:
    """The most bytes in use at one step: no arena is smaller."""
    changes = [(b.first, size[b]) for b in blocks] + [(b.last + 1, -size[b]) for b in blocks]
    return max(accumulate(change for _, change in sorted(changes)), default=0)


class _Arena:
    """The blocks placed so far, as arrays sorted by where they start at the typical size."""

    def __init__(self, sizes: Sequence[Dim], typical: Mapping[str, int]) -> None:
        self.monomials: list[Monomial] = list(dict.fromkeys(m for s in sizes for m, _ in terms_of(s)))
        values = {m: evaluate(from_terms({m: 1}), typical) for m in self.monomials}
        most = sum(abs(c) * values[m] for s in sizes for m, c in terms_of(s))
        self.dtype: type = np.int64 if most < INT64_MAX else object
        self.values = np.array(list(values.values()), self.dtype)
        self.signed = np.array([not at_most(0, from_terms({m: 1})) for m in self.monomials], bool)[:, None]
        self.dims: dict[tuple[int, ...], Dim] = {}
        self.life = np.zeros((2, 0), np.int64)  # first, last
        self.span = np.zeros((2, 0), self.dtype)  # start, end at the typical size
        self.bounds = np.zeros((2, len(self.monomials), 0), self.dtype)  # start, end as vectors

    @property
    def size(self) -> Dim:
        """Where the last block ends."""
        highest = self.highest(self.bounds[1])
        return dim_max(0, *highest) if len(highest) < DOUBTS else self.dim(self.join(self.bounds[1]).tolist())

    def vector(self, dim: Dim) -> Vector:
        coefficients = dict(terms_of(dim))
        return np.array([coefficients.get(m, 0) for m in self.monomials], self.dtype)

    def dim(self, vector: Sequence[int]) -> Dim:
        key = tuple(vector)
        if key not in self.dims:
            self.dims[key] = from_terms(dict(zip(self.monomials, key)))
        return self.dims[key]

    def over(self, a: Vector, b: Vector) -> NDArray[np.bool_]:
        """Which columns of `a` their coefficients do not show to be at most those of `b`."""
        doubtful: NDArray[np.bool_] = ((a > b) | self.signed & (a != b)).any(axis=0)
        return doubtful

    def highest(self, ends: Vector) -> list[Dim]:
        """Those ends (one a column) that no other is known to exceed; not more than `DOUBTS`."""
        kept: list[Dim] = []
        while ends.shape[1] and len(kept) < DOUBTS:
            top = ends[:, int((self.values @ ends).argmax())]
            kept.append(self.dim(top.tolist()))
            ends = ends[:, self.over(ends, top[:, None])]
        return kept

    def join(self, ends: Vector) -> Vector:
        """A place that is at or after all ends."""
        highest = self.highest(ends)
        return self.vector(join(0, *highest)) if len(highest) < DOUBTS else ends.max(axis=1, initial=0)

    def place(self, dim: Dim, first: int, last: int) -> Dim:
        """Take the lowest free place for a block that lives from one step to another."""
        size = self.vector(dim)
        rivals = np.flatnonzero((self.life[0] <= last) & (self.life[1] >= first))
        start = self._lowest(size, self.span[:, rivals], self.bounds[:, :, rivals])
        self._add(start, start + size, first, last)
        return self.dim(start.tolist())

    def _lowest(self, size: Vector, span: Vector, bounds: Vector) -> Vector:
        """The lowest start that is certainly free of rivals: each ends before it, or begins after the end."""
        reach = np.maximum.accumulate(np.concatenate(([0], span[1])))  # where all before a rival have ended
        wide = np.flatnonzero(span[0] - reach[:-1] >= size @ self.values)
        for gap in wide[:GAPS].tolist():
            below = slice(0, gap)
            start = bounds[1, :, int(span[1, below].argmax())] if gap else np.zeros_like(size)
            if self._fits(start, size, bounds[1, :, below], bounds[0, :, gap:]):
                return start
        return self.join(bounds[1])

    def _fits(self, start: Vector, size: Vector, ends: Vector, starts: Vector) -> bool:
        """Whether `ends` are at most `start`, and `starts` at least where the block ends."""
        end = start + size
        low = set(map(tuple, ends[:, self.over(ends, start[:, None])].T.tolist()))
        high = set(map(tuple, starts[:, self.over(-starts, -end[:, None])].T.tolist()))
        if len(low) + len(high) > DOUBTS:
            return False
        bottom, top = self.dim(start.tolist()), self.dim(end.tolist())
        return all(at_most(self.dim(e), bottom) for e in low) and all(at_most(top, self.dim(s)) for s in high)

    def _add(self, start: Vector, end: Vector, first: int, last: int) -> None:
        begins = int(start @ self.values)
        k = int(self.span[0].searchsorted(begins, "right"))
        self.life = np.insert(self.life, k, (first, last), axis=1)
        self.span = np.insert(self.span, k, (begins, int(end @ self.values)), axis=1)
        self.bounds = np.insert(self.bounds, k, (start, end), axis=2)
