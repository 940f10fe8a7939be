"""Loops that draw random bits: blocks of the generator in vector lanes, each computed once for its four words.

By its definition, an element computes a whole block and takes one of the words. Where the loop's counter is the
position of the bits, a piece of the loop first writes the words of all its blocks to memory that stays in cache,

    vector l: words[l], words[l + 16], words[l + 32], words[l + 48] = the words of block l

and then runs as it was written, with loads in place of draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as with_fields

from ..ir.dims import Dim, dim_min, floordiv, symbol, symbols
from ..ir.dtypes import uint64
from ..ir.loops import (
    Alloc,
    Buffer,
    Expr,
    For,
    Index,
    Let,
    Load,
    Reduce,
    Stmt,
    Store,
    free_symbols,
    replace,
    walk,
)
from ..ir.ops.random import LANES, block_of, chunk_of, numbers_of
from .cpu_model import CpuModel

__all__ = ["Draw", "drawing_loop", "with_draws_apart"]

PIECE = 2048
"""Elements whose words are written at a time; a multiple of all chunks. They take half of a small first-level cache."""

_CHUNK = 4 * LANES


@dataclass(frozen=True)
class Draw:
    """Random bits that a loop reads, as loads from a buffer that stands for them.

    Attributes
    ----------
    buffer : of the loop nest's shape.
    numbers : the expressions of what one block gives, and `block` what they call its number.
    """

    buffer: Buffer
    numbers: Sequence[Expr]
    block: Expr


def with_draws_apart(s: For) -> tuple[For, list[Draw]]:
    """A perfect nest of loops with its draws at the nest's own position replaced by loads, and what they stand for."""
    names, extents = [s.var], [s.extent]
    inner = s
    while len(inner.body) == 1 and isinstance(inner.body[0], For):
        inner = inner.body[0]
        names.append(inner.var)
        extents.append(inner.extent)
    if not all(isinstance(t, (Let, Store)) for t in inner.body):
        return s, []
    position: Dim = 0
    for name, extent in zip(names, extents):
        position = position * extent + (0 if extent == 1 else symbol(name))
    draws = _draws(inner.body, names, position, tuple(extents)) if symbols(position) else {}
    if not draws:
        return s, []
    index = tuple(Index(symbol(n)) for n in names)
    memo: dict[Expr, Expr] = {e: Load(d.buffer, index) for e, d in draws.items()}
    body = _replaced(inner.body, memo)
    return _rebuilt(s, inner, body), list(draws.values())


def _rebuilt(s: For, inner: For, body: tuple[Stmt, ...]) -> For:
    if s is inner:
        return with_fields(s, body=body)
    child = s.body[0]
    assert isinstance(child, For)
    return with_fields(s, body=(_rebuilt(child, inner, body),))


def _draws(
    body: Sequence[Stmt], names: Sequence[str], position: Dim, shape: tuple[Dim, ...]
) -> dict[Expr, Draw]:
    found: dict[Expr, Draw] = {}
    for t in body:
        assert isinstance(t, (Let, Store))
        if any(isinstance(e, Reduce) for e in walk(t.value)):
            return {}
        for e in walk(t.value):
            numbers = numbers_of(e, position)
            if numbers is None or e in found:
                continue
            block = Index(block_of(position, e.dtype))
            elsewhere = (replace(x, memo={block: Index(0)}) for x in numbers)
            if not any(free_symbols(x) & set(names) for x in elsewhere):  # a key for each row, say
                found[e] = Draw(Buffer(f"bits{len(found)}", e.dtype, shape), numbers, block)
    return found


def _replaced(body: Sequence[Stmt], memo: Mapping[Expr, Expr]) -> tuple[Stmt, ...]:
    known = dict(memo)
    return tuple(
        with_fields(t, value=replace(t.value, memo=known)) if isinstance(t, (Let, Store)) else t for t in body
    )


def drawing_loop(s: For, draws: Sequence[Draw], cpu: CpuModel) -> For:
    """The pieces of one loop, vectorized and not yet parallel, whose counter is the position of its draws."""
    piece = min(PIECE, -(-max(s.extent, 1) // _CHUNK) * _CHUNK) if isinstance(s.extent, int) else PIECE
    at = symbol(f"{s.var}p")
    size = dim_min(piece, s.extent - at * piece)
    memory = {d.buffer.name: Buffer(d.buffer.name, d.buffer.dtype, (piece,)) for d in draws}
    body: list[Stmt] = [Alloc(b, "local") for b in memory.values()]
    for dtype in dict.fromkeys(d.buffer.dtype for d in draws):
        alike = [d for d in draws if d.buffer.dtype == dtype]
        body.append(_blocks(s.var, alike, memory, floordiv(at * piece, chunk_of(dtype)), size, cpu))
    inner = s.var
    loads: dict[Expr, Expr] = {
        e: Load(memory[e.buffer.name], (Index(symbol(inner)),))
        for t in s.body if isinstance(t, (Let, Store)) for e in walk(t.value)
        if isinstance(e, Load) and e.buffer.name in memory
    }
    values = {s.var: at * piece + symbol(inner)}
    statements: list[Stmt] = []
    for t in s.body:
        assert isinstance(t, (Let, Store))
        value = replace(t.value, values, memo=dict(loads))
        if isinstance(t, Store):
            statements.append(Store(t.buffer, tuple(replace(i, values) for i in t.indices), value, t.combiner))
        else:
            statements.append(Let(t.name, value))
    body.append(For(inner, size, tuple(statements), s.kind, s.lanes))
    return For(f"{s.var}p", floordiv(s.extent + (piece - 1), piece), tuple(body))


def _blocks(
    var: str, draws: Sequence[Draw], memory: Mapping[str, Buffer], first: Dim, size: Dim, cpu: CpuModel
) -> For:
    """The words of the chunks that a piece begins with `first`."""
    dtype = draws[0].buffer.dtype
    chunk = chunk_of(dtype)
    q, lane = symbol(f"{var}q"), symbol(f"{var}l")
    block = Index((first + q) * LANES + lane)
    stores: list[Stmt] = []
    for d in draws:
        for k, word in enumerate(d.numbers):
            place = Index(q * chunk + (k * LANES) + lane)
            stores.append(Store(memory[d.buffer.name], (place,), replace(word, memo={d.block: block})))
    lanes = min(LANES, 2 * cpu.lanes(uint64))
    inner = For(f"{var}l", LANES, tuple(stores), "vector", lanes)
    return For(f"{var}q", floordiv(size + (chunk - 1), chunk), (inner,))
