"""Keep a kernel's symbolic dimensions apart from the names that scheduling gives its loops.

A user may call a dimension ``chunk``, and so may a schedule call a loop. While a kernel is scheduled, its
symbols therefore have names that no schedule gives (``dim.chunk``); then they get their own back, and it is
the loop that yields. Schedules name nothing with a capital letter, so ``N`` stays ``N`` all the while.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace as with_fields
from typing import Any

from ..ir.dims import Dim, substitute, symbol
from ..ir.loops import (
    Alloc,
    Buffer,
    Expr,
    For,
    If,
    Index,
    Kernel,
    Let,
    Load,
    Prefetch,
    Reduce,
    Scalar,
    Stmt,
    Store,
    Temp,
    statements,
    walk,
)  # fmt: skip

__all__ = ["with_names_apart"]


def with_names_apart(kernel: Kernel, schedule: Callable[[Kernel], Kernel]) -> Kernel:
    """``schedule(kernel)``, safe for symbols of any name."""
    apart = {s: f"dim.{s}" for s in kernel.symbols if not s[0].isupper()}
    if not apart:
        return schedule(kernel)
    scheduled = schedule(_Renaming(apart).kernel(kernel))
    back = {new: old for old, new in apart.items()}
    bound = set(_bound(scheduled.body))
    for name in bound & apart.keys():
        tries = (f"{name}.{k}" for k in range(1, len(bound) + 2))
        back[name] = next(n for n in tries if n not in bound)
    return _Renaming(back).kernel(scheduled)


def _bound(body: tuple[Stmt, ...]) -> Iterable[str]:
    for s in statements(body):
        if isinstance(s, (For, Let)):
            yield s.var if isinstance(s, For) else s.name
        roots = (s.value,) if isinstance(s, (Let, Store)) else ()
        for e in (e for root in roots for e in walk(root) if isinstance(e, Reduce)):
            yield from (var for var, _ in e.axes)


class _Renaming:
    """A kernel with symbols, loop variables and temporaries renamed; buffers keep their names."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = names
        self.dims: dict[str, Dim] = {old: symbol(new) for old, new in names.items()}
        self.done: dict[Expr, Expr] = {}

    def kernel(self, k: Kernel) -> Kernel:
        inputs, outputs = (tuple(map(self.buffer, buffers)) for buffers in (k.inputs, k.outputs))
        symbols = tuple(sorted(map(self.name, k.symbols)))
        return with_fields(k, inputs=inputs, outputs=outputs, body=self.block(k.body), symbols=symbols)

    def name(self, name: str) -> str:
        return self.names.get(name, name)

    def dim(self, dim: Dim) -> Dim:
        return substitute(dim, self.dims)

    def buffer(self, b: Buffer) -> Buffer:
        return Buffer(b.name, b.dtype, tuple(map(self.dim, b.shape)))

    def block(self, body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        return tuple(map(self.statement, body))

    def statement(self, s: Stmt) -> Stmt:
        if isinstance(s, For):
            return with_fields(s, var=self.name(s.var), extent=self.dim(s.extent), body=self.block(s.body))
        if isinstance(s, Let):
            return Let(self.name(s.name), self.expr(s.value))
        if isinstance(s, Store):
            return Store(self.buffer(s.buffer), tuple(map(self.expr, s.indices)), self.expr(s.value), s.combiner)
        if isinstance(s, If):
            return If(self.expr(s.condition), self.block(s.then), self.block(s.otherwise))
        if isinstance(s, Alloc):
            return Alloc(self.buffer(s.buffer), s.space)
        if isinstance(s, Prefetch):
            return Prefetch(self.buffer(s.buffer), tuple(map(self.expr, s.indices)))
        return with_fields(s, inputs=tuple(map(self.buffer, s.inputs)), outputs=tuple(map(self.buffer, s.outputs)))

    def expr(self, root: Expr) -> Expr:
        for e in walk(root):
            if e not in self.done:
                self.done[e] = self._expr(e)
        return self.done[root]

    def _expr(self, e: Expr) -> Expr:
        done: Any = self.done.__getitem__
        if isinstance(e, Index):
            return Index(self.dim(e.dim))
        if isinstance(e, Temp):
            return Temp(self.name(e.name), e.dtype)
        if isinstance(e, Scalar):
            return Scalar(e.op, tuple(map(done, e.args)), e.dtype)
        if isinstance(e, Reduce):
            axes = tuple((self.name(var), self.dim(extent)) for var, extent in e.axes)
            return Reduce(e.combiner, axes, done(e.body), e.dtype)
        if isinstance(e, Load):
            guard = done(e.guard) if e.guard is not None else None
            return Load(self.buffer(e.buffer), tuple(map(done, e.indices)), guard)
        return e
