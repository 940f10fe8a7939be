"""Adjacent axes of a contraction that every operand walks through as one become one.

``[N, 128, K] @ [K, M]`` is a product of ``N * 128`` rows: tiles then fill whatever ``N`` is, one included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace as with_fields

from ..ir.dims import Dim, coefficient, substitute, symbol, symbols
from ..ir.loops import Expr, Index, Let, Load, Stmt, Store, flat_index, reads_counter, replace, walk
from .contraction import Contraction

__all__ = ["flatten_contraction"]

Axes = tuple[tuple[str, Dim], ...]


def flatten_contraction(c: Contraction) -> Contraction:
    """The same contraction with as few axes as its accesses allow."""
    c = _flatten(c, c.loops, "loops")
    return _flatten(c, c.axes, "axes")


def _flatten(c: Contraction, axes: Axes, field: str) -> Contraction:
    for at in range(len(axes) - 1, 0, -1):
        (outer, n), (inner, m) = axes[at - 1 : at + 1]
        if _as_one(c, outer, inner, m):
            axes = (*axes[: at - 1], (inner, n * m), *axes[at + 1 :])
            c = _merge(with_fields(c, loops=axes) if field == "loops" else with_fields(c, axes=axes), outer, inner)
    return c


def _roots(c: Contraction) -> list[Expr]:
    """Every expression in which an axis may occur, as a value or in the position of a load."""
    return [c.a, c.b, *(s.value for s in c.epilogue if isinstance(s, (Let, Store)))]


def _as_one(c: Contraction, outer: str, inner: str, extent: Dim) -> bool:
    """Whether a step of `outer` is `extent` steps of `inner` for every access, and neither counts otherwise."""
    pair = {outer, inner}
    if any(reads_counter(root, pair) for root in _roots(c)):
        return False
    accesses: list[Load | Store] = [e for root in _roots(c) for e in walk(root) if isinstance(e, Load)]
    accesses += [s for s in c.epilogue if isinstance(s, Store)]
    for access in accesses:
        position = flat_index(access)
        if position is None:
            return False
        a, b = coefficient(position, outer), coefficient(position, inner)
        if a is None or b is None or a != extent * b:
            return False
    return True


def _merge(c: Contraction, outer: str, inner: str) -> Contraction:
    """Accesses addressed by their position, with `inner` counting for both axes."""
    values: dict[str, Dim] = {outer: 0, inner: symbol(inner)}
    memo: dict[Expr, Expr] = {}

    def moved(access: Load | Store) -> tuple[Expr, ...]:
        position = flat_index(access)
        assert position is not None
        return (Index(substitute(position, values)),) if {outer, inner} & symbols(position) else access.indices

    def again(e: Expr) -> Expr:
        for load in (x for x in walk(e) if isinstance(x, Load)):
            memo.setdefault(load, Load(load.buffer, moved(load), load.guard))
        return replace(e, memo=memo)

    def statements(body: Sequence[Stmt]) -> tuple[Stmt, ...]:
        out: list[Stmt] = []
        for s in body:
            if isinstance(s, Let):
                out.append(Let(s.name, again(s.value)))
            elif isinstance(s, Store):
                out.append(Store(s.buffer, moved(s), again(s.value), s.combiner))
        return tuple(out)

    return with_fields(c, a=again(c.a), b=again(c.b), epilogue=statements(c.epilogue))
