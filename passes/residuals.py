"""Residuals: which values of a forward computation to keep for the backward one, and which to compute again.

What is expensive (contractions, reductions, loops) must be kept, or something that is computed from it; maps and
views may be computed again from what is kept. Among all such choices the one of the fewest bytes is a minimum
cut between what is expensive and what the backward computation reads (Jain et al., "Checkmate", 2020, treat the
general problem; the cut is that of PyTorch's min-cut partitioner, Dodds and He, 2022). Among cuts of equal size the
one nearest to the backward computation is taken, which leaves the least to compute again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence

from ..ir.dims import evaluate
from ..ir.graph import Value
from ..ir.types import TensorType

__all__ = ["kept_values"]

_INFINITE = 1 << 62
_PROBE = 64
"""The size at which symbolic dimensions are compared."""

RECOMPUTED = frozenset({"map", "view", "leaf"})
"""Kinds of ops that are computed again rather than kept, if that takes less memory."""


def kept_values(
    needed: Iterable[Value], order: Sequence[Value], unavailable: Collection[Value], free: Collection[Value],
    kept_anyway: Collection[Value] = (), recompute: bool = False,
) -> list[Value]:
    """The values to keep.

    Parameters
    ----------
    needed : what the backward computation reads.
    order : the forward values, operands first.
    unavailable : inputs that the backward computation cannot read unless they are kept.
    free : values that it can read anyway, or that cost nothing.
    kept_anyway : values that are kept for other reasons: keeping them costs nothing more.
    recompute : compute everything again, whatever it costs, from the unavailable inputs.
    """
    network = _Network()
    for value in order:
        if value in free:
            continue
        network.add(("in", value), ("out", value), 0 if value in kept_anyway else _bytes(value))
        if value in unavailable or not recompute and _is_expensive(value):
            network.add("source", ("in", value), _INFINITE)
            continue
        for operand in value.operands:
            if operand not in free:
                network.add(("out", operand), ("in", value), _INFINITE)
    for value in needed:
        if value not in free:
            network.add(("out", value), "sink", _INFINITE)
    behind = network.behind_the_cut()
    return [v for v in order if v not in free and ("out", v) in behind and ("in", v) not in behind]


def _is_expensive(value: Value) -> bool:
    if value.op.name == "item":
        return False
    return value.op.kind not in RECOMPUTED


def _bytes(value: Value) -> int:
    """Bytes of a value; one of several results is kept by its items."""
    if not isinstance(value.type, TensorType):
        return _INFINITE
    size = evaluate(value.tensor.nbytes, dict.fromkeys(value.tensor.symbols, _PROBE))
    return max(1, size)


class _Network:
    """A flow network, and its minimum cut (Edmonds and Karp, 1972)."""

    def __init__(self) -> None:
        self.left: dict[object, dict[object, int]] = {"source": {}, "sink": {}}

    def add(self, a: object, b: object, capacity: int) -> None:
        self.left.setdefault(a, {})[b] = capacity
        self.left.setdefault(b, {}).setdefault(a, 0)

    def behind_the_cut(self) -> set[object]:
        """The nodes from which the sink can be reached once the flow is greatest."""
        while (path := self._path()) is not None:
            amount = min(self.left[a][b] for a, b in path)
            for a, b in path:
                self.left[a][b] -= amount
                self.left[b][a] += amount
        behind: set[object] = {"sink"}
        queue: deque[object] = deque(["sink"])
        while queue:
            b = queue.popleft()
            for a in self.left[b]:
                if a not in behind and self.left[a][b] > 0:
                    behind.add(a)
                    queue.append(a)
        return behind

    def _path(self) -> list[tuple[object, object]] | None:
        """The shortest path on which more can flow."""
        came: dict[object, object] = {"source": None}
        queue: deque[object] = deque(["source"])
        while queue:
            a = queue.popleft()
            for b, capacity in self.left[a].items():
                if capacity > 0 and b not in came:
                    came[b] = a
                    if b == "sink":
                        return _trail(came, b)
                    queue.append(b)
        return None


def _trail(came: dict[object, object], end: object) -> list[tuple[object, object]]:
    path = []
    while came[end] is not None:
        path.append((came[end], end))
        end = came[end]
    return path
