"""Guard every load and store of a scheduled kernel: one outside its buffer is reported and does not happen.

The kernel gets one more output, the report ``i64[8]``: the number of the access (from 1) and the indices
of the first access that lay outside; 0 if there was none. Loops run one iteration at a time, so that
"first" has a meaning and no two threads write the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace as with_fields

from ..ir.dims import Dim, product
from ..ir.dtypes import bool_, int64
from ..ir.loops import (
    Alloc,
    Buffer,
    Const,
    Expr,
    For,
    If,
    Index,
    Kernel,
    Let,
    Load,
    Prefetch,
    Scalar,
    Stmt,
    Store,
    Temp,
    walk,
)  # fmt: skip
from ..ir.scalars import apply, const

__all__ = ["LENGTH", "REPORT", "Access", "guard_bounds"]

LENGTH = 8
"""Numbers in the report."""

REPORT = Buffer("report", int64, (LENGTH,))
"""The output that is added."""


@dataclass(frozen=True)
class Access:
    """An access of generated code: ``"load"`` or ``"store"``, of which buffer of which kernel."""

    kernel: str
    kind: str
    buffer: Buffer
    extents: tuple[Dim, ...]


def guard_bounds(kernel: Kernel, accesses: list[Access]) -> Kernel:
    """The kernel with guards; what it accesses is appended to `accesses`, by which reports are numbered."""
    body = _Guarding(kernel, accesses).block(kernel.body)
    return with_fields(kernel, outputs=(*kernel.outputs, REPORT), body=tuple(body))


class _Guarding:
    def __init__(self, kernel: Kernel, accesses: list[Access]) -> None:
        self.kernel, self.accesses = kernel, accesses
        self.count = 0

    def block(self, body: Sequence[Stmt]) -> list[Stmt]:
        return [guarded for s in body for guarded in self.statement(s)]

    def statement(self, s: Stmt) -> list[Stmt]:
        if isinstance(s, For):
            return [For(s.var, s.extent, tuple(self.block(s.body)))]
        before: list[Stmt] = []
        done: dict[Expr, Expr] = {}
        if isinstance(s, Let):
            value = self.expr(s.value, before, done)
            return [*before, Let(s.name, value)]
        if isinstance(s, If):
            condition = self.expr(s.condition, before, done)
            return [*before, If(condition, tuple(self.block(s.then)), tuple(self.block(s.otherwise)))]
        if isinstance(s, Store):
            indices = tuple(self.expr(i, before, done) for i in s.indices)
            value = self.expr(s.value, before, done)
            inside = self.inside("store", s.buffer, indices, None, before)
            return [*before, If(inside, (with_fields(s, indices=indices, value=value),))]
        if isinstance(s, Prefetch):
            return []
        if isinstance(s, Alloc) and s.space == "register":
            return [Alloc(s.buffer)]  # its indices vary now: what was unrolled is a loop
        return [s]

    def expr(self, root: Expr, before: list[Stmt], done: dict[Expr, Expr]) -> Expr:
        """The expression with guarded loads; what must be bound first goes to `before`."""
        for e in walk(root):
            if e not in done:
                done[e] = self._expr(e, before, done)
        return done[root]

    def _expr(self, e: Expr, before: list[Stmt], done: dict[Expr, Expr]) -> Expr:
        if isinstance(e, Scalar):
            return Scalar(e.op, tuple(done[a] for a in e.args), e.dtype)
        if not isinstance(e, Load):
            return e
        indices = tuple(done[i] for i in e.indices)
        guard = done[e.guard] if e.guard is not None else None
        inside = self.inside("load", e.buffer, indices, guard, before)
        return Load(e.buffer, indices, inside if guard is None else apply("bitand", guard, inside))

    def inside(
        self, kind: str, buffer: Buffer, indices: Sequence[Expr], guard: Expr | None, before: list[Stmt]
    ) -> Expr:
        """Bind whether an access lies inside its buffer, and report one that does not."""
        extents = (product(buffer.shape),) if len(indices) == 1 else buffer.shape
        self.accesses.append(Access(self.kernel.name, kind, buffer, extents))
        number = len(self.accesses)
        inside: Expr = Const(True, bool_)
        for i, extent in zip(indices, extents, strict=True):
            above, below = apply("ge", i, const(0, int64)), apply("lt", i, Index(extent))
            inside = apply("bitand", inside, apply("bitand", above, below))
        name = f"t{self.count}.g"  # no other pass gives such a name, nor can a user
        self.count += 1
        temp = Temp(name, bool_)
        before.append(Let(name, inside))
        outside = apply("bitnot", temp)
        outside = outside if guard is None else apply("bitand", guard, outside)
        before.append(If(outside, (self._report(number, indices),)))
        return temp

    def _report(self, number: int, indices: Sequence[Expr]) -> Stmt:
        first = apply("eq", Load(REPORT, (Index(0),)), const(0, int64))
        shown = list(indices)[: LENGTH - 1]
        stores = [Store(REPORT, (Index(k),), i) for k, i in enumerate(shown, 1)]
        return If(first, (*stores, Store(REPORT, (Index(0),), const(number, int64))))
