"""The second half of fusion: groups that run over the same loops and share values become one.

Two groups are merged if one's loops are the other's outer loops, all that either reads of the other is
computed in the same iteration, and no third group stands between them. So the passes over a row that a loss
and its gradient make, or the sums and the sums of squares of the same rows, become one kernel, which
brings each row into the cache once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

from ..ir.dims import Dim, equal, substitute, symbols
from ..ir.graph import Value
from ..ir.types import Shape, TensorType
from .pieces import loop_shape

if TYPE_CHECKING:
    from .fuse import Axes, Group, Partition

    Unit: TypeAlias = Group | Value

__all__ = ["merge_groups"]

MAX_READERS = 16
"""Groups that share a value, beyond which not all pairs of them are tried."""

FARTHEST = 1024
"""Groups and values between two groups, in the order of execution, beyond which they stay apart."""

NOMINAL = 256
"""What a symbolic dimension counts as where sizes are compared."""

LEAST_BYTES = 256
"""Shared bytes below which a value is no reason to merge: what a kernel call costs."""


def merge_groups(partition: Partition) -> None:
    """Merge groups of a partition, largest shared values first."""
    _Merger(partition).run()


def _nominal(size: Dim) -> int:
    known = substitute(size, dict.fromkeys(symbols(size), NOMINAL))
    assert isinstance(known, int)
    return known


class _Merger:
    def __init__(self, partition: Partition) -> None:
        self.p = partition
        self.position = {v: k for k, v in enumerate(partition.order)}
        self.order = _Order(partition)
        self.refused: set[tuple[Group, Group]] = set()

    def run(self) -> None:
        sized = [(_nominal(v.tensor.nbytes), v) for v in self.p.order if self._shared(v)]
        for nbytes, v in sorted(sized, key=lambda s: -s[0]):
            if nbytes >= LEAST_BYTES:
                self._merge_around(v)

    def _shared(self, v: Value) -> bool:
        """Whether several groups may touch a value: tuples are taken apart first, constants cost nothing."""
        several = len(self.p.users[v]) + (v in self.p.groups) > 1
        return several and isinstance(v.type, TensorType) and v.op.name not in ("full", "iota")

    def _merge_around(self, v: Value) -> None:
        """Merge the groups that make or read a value, pair by pair."""
        touching = [g for u in (v, *self.p.users[v]) for g in self.p.groups.get(u, ())]
        groups = [g for g in dict.fromkeys(touching) if _open(g)][:MAX_READERS]
        done: list[Group] = []
        for g in groups:
            for k, other in enumerate(done):
                if (other, g) in self.refused:
                    continue
                merged, later = self._merged(other, g), self.order.between(other, g)
                if merged is None or later is None:
                    self.refused.add((other, g))
                else:
                    self._replace(other, g, merged)
                    self.order.merge(other, g, merged, later)
                    done[k] = merged
                    break
            else:
                done.append(g)

    # --- one pair ---

    def _merged(self, a: Group, b: Group) -> Group | None:
        """The two groups as one, if all of it can be computed in the same loops."""
        from .fuse import MAX_MEMBERS, Group

        if len(a.members) + len(b.members) > MAX_MEMBERS or not _share_loops(a.shape, b.shape):
            return None
        shape = max(a.shape, b.shape, key=len)
        members = dict.fromkeys(sorted({**a.members, **b.members}, key=self.position.__getitem__))
        g = Group(shape, members, reduces=a.reduces or b.reduces, pieces=a.pieces | b.pieces)
        if not all(self._place(v, g, (a, b)) for v in reversed(members)):
            return None
        return g

    def _place(self, v: Value, g: Group, parts: Sequence[Group]) -> bool:
        """Find how a member's axes run over the merged loops; false if it cannot be computed there."""
        from .fuse import OTHER, inlinable, is_map, is_window, random_reads

        inside = [u for u in self.p.users[v] if u in g.members]
        if v in g.pieces and inside:
            return False
        own: Axes = tuple(range(v.tensor.rank))
        axes = self.p.axes_in(v, g) if inside else own
        if self._is_output(v, parts):
            shape = loop_shape(v) if v in g.pieces else v.tensor.shape
            if not _prefix(shape, g.shape) or v in g.prologue or axes is None:
                return False
            axes = tuple(a if a == b else OTHER for a, b in zip(axes, own))
        g.axes[v] = axes
        if not is_map(v) and inside:
            known = [x for x in axes or (OTHER,) if x is not None]
            if known != list(range(len(known))) or not known or is_window(v) or v in g.prologue:
                return False
        if any(v in random_reads(u) or (is_map(v) and not inlinable(v, u, g)) for u in inside):
            return False
        if is_window(v) or v in g.prologue:
            g.prologue.update(v.operands)
        return True

    def _is_output(self, v: Value, parts: Sequence[Group]) -> bool:
        if v in self.p.roots:
            return True
        inside = [all(g in parts for g in self.p.groups.get(u, (None,))) for u in (v, *self.p.users[v])]
        return inside[0] and not all(inside)

    def _replace(self, a: Group, b: Group, merged: Group) -> None:
        for v in merged.members:
            self.p.groups[v] = list(dict.fromkeys(merged if g in (a, b) else g for g in self.p.groups[v]))


class _Order:
    """The groups, and the values that are in none, in an order in which each comes after all that it reads.

    A group runs as a whole: whatever reads any of its values comes after all of it.
    """

    def __init__(self, partition: Partition) -> None:
        self.p = partition
        # at first, a group is where its last member is: others read no other member of it
        last = {unit: k for k, v in enumerate(partition.order) for unit in self._units(v)}
        units = sorted(last, key=last.__getitem__)
        self.sequence: list[Unit | None] = [*units]
        self.place = {unit: k for k, unit in enumerate(units)}

    def _units(self, v: Value) -> Sequence[Unit]:
        return self.p.groups.get(v) or [v]

    def _following(self, unit: Unit) -> Iterator[Unit]:
        """What reads a group's own values, or a value."""
        values = [unit] if isinstance(unit, Value) else [v for v in unit.members if self.p.groups[v] == [unit]]
        return (u for v in values for user in self.p.users[v] for u in self._units(user) if u is not unit)

    def between(self, a: Group, b: Group) -> set[Unit] | None:
        """What comes after the first of two groups, and before the second; None if the second comes after it.

        If the search is long, the answer is None as well.
        """
        first, last = sorted((a, b), key=self.place.__getitem__)
        end = self.place[last]
        if end - self.place[first] > FARTHEST:
            return None
        found: set[Unit] = set()
        stack = [u for u in self._following(first) if self.place[u] < end]
        while stack:
            unit = stack.pop()
            if unit in found:
                continue
            found.add(unit)
            for u in self._following(unit):
                if u is last:
                    return None
                if self.place[u] < end:
                    stack.append(u)
        return found

    def merge(self, a: Group, b: Group, merged: Group, later: set[Unit]) -> None:
        """Put a group in the place of two, before what comes `later` than the first of them."""
        begin, end = sorted((self.place.pop(a), self.place.pop(b)))
        inner = self.sequence[begin + 1 : end]
        earlier = [u for u in inner if u not in later]
        self.sequence[begin : end + 1] = [None, *earlier, merged, *(u for u in inner if u in later)]
        for k in range(begin, end + 1):
            unit = self.sequence[k]
            if unit is not None:
                self.place[unit] = k


def _open(g: Group) -> bool:
    return not g.sealed and g.anchor is None and bool(g.shape)


def _share_loops(a: Shape, b: Shape) -> bool:
    """Whether one's loops are the other's outer ones, and these are many."""
    short, long = sorted((a, b), key=len)
    count = 1
    for d in short:
        count *= _nominal(d)
    return _prefix(short, long) and count >= 8


def _prefix(short: Shape, long: Shape) -> bool:
    return len(short) <= len(long) and all(map(equal, short, long))
