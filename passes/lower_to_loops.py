"""Lower a group of ops (a region graph) to one declarative kernel.

Every op is inlined at the index where its users read it, by its index-space definition; what
remains are loads of the group's inputs, scalar ops and reductions. A reduction is bound by a `Let`
in the outermost loop in which all its variables are known: softmax, for instance, becomes

    for i { let m = reduce(max, k) x[i,k]; let s = reduce(add, k) exp(x[i,k] - m)
            for j { store y[i,j] = exp(x[i,j] - m) / s } }
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..errors import CompileError
from ..ir.dims import Dim, at_most, dim_min, equal, simplify, symbol
from ..ir.dims import symbols as symbols_of
from ..ir.graph import Graph, Value
from ..ir.lexer import is_identifier
from ..ir.loops import (
    Buffer,
    Expr,
    For,
    Foreign,
    If,
    Index,
    Kernel,
    Let,
    Load,
    Reduce,
    Scalar,
    Stmt,
    Store,
    Temp,
    flat_index,
    free_symbols,
    statements,
    walk,
)  # fmt: skip
from ..ir.op import Definition, Lowering
from ..ir.scalars import apply, const
from ..ir.types import Shape, TensorType
from .picked_terms import picked
from .pieces import loop_shape

__all__ = ["lower_to_loops"]


def lower_to_loops(group: Graph, name: str) -> Kernel:
    """The declarative kernel of a group; buffers are named ``in0.. out0..`` by position.

    Raises
    ------
    CompileError
        If the group holds an op without a definition, or an opaque op beside others.
    """
    inputs = tuple(_buffer(f"in{k}", v.tensor) for k, v in enumerate(group.inputs))
    outputs = tuple(_buffer(f"out{k}", v.tensor) for k, v in enumerate(group.outputs))
    if any(v.op.kind == "opaque" for v in group):
        body = _lower_opaque(group, inputs, outputs)
        return Kernel(name, inputs, outputs, body, _symbols(inputs, outputs, body))
    inliner = _Inliner(dict(zip(group.inputs, inputs)), _dimensions(group))
    body = tuple(s for nest in _nests(group) for s in _lower_nest(inliner, nest, group, outputs))
    symbols = _symbols(inputs, outputs, body)
    return Kernel(name, inputs, outputs, body, symbols, _inplace(inputs, outputs, body))


def _symbols(inputs: tuple[Buffer, ...], outputs: tuple[Buffer, ...], body: tuple[Stmt, ...]) -> tuple[str, ...]:
    """The symbolic dimensions of buffers and statements: every name that no statement binds."""
    found = {s for b in (*inputs, *outputs) for d in b.shape for s in symbols_of(d)}
    bound: set[str] = set()
    for s in statements(body):
        if isinstance(s, For):
            bound.add(s.var)
            found |= symbols_of(s.extent)
        elif isinstance(s, Let):
            bound.add(s.name)
            found |= free_symbols(s.value)
        elif isinstance(s, Store):
            found = found.union(free_symbols(s.value), *map(free_symbols, s.indices))
        elif isinstance(s, If):
            found |= free_symbols(s.condition)
    return tuple(sorted(found - bound))


def _buffer(name: str, t: TensorType) -> Buffer:
    return Buffer(name, t.dtype, t.shape)


def _lower_opaque(group: Graph, inputs: tuple[Buffer, ...], outputs: tuple[Buffer, ...]) -> tuple[Stmt, ...]:
    (value,) = group.outputs
    buffers = dict(zip(group.inputs, inputs))
    if not buffers.keys() >= set(value.operands):
        raise CompileError(f"{value.op.name} cannot be fused with its neighbours")
    inputs = tuple(buffers[v] for v in value.operands)
    if value.op.kernels:
        return (Foreign(value.op.name, inputs, outputs),)
    if value.op.lower is None:
        raise CompileError(f"{value.op.name} has neither statements nor a kernel of its own")
    counter, taken = itertools.count(), _dimensions(group)
    return tuple(value.op.lower(Lowering(
        inputs, outputs, tuple(v.tensor for v in value.operands), value.tensor, value.attrs,
        lambda prefix: next(_names(prefix, counter, taken)),
    )))


def _dimensions(group: Graph) -> set[str]:
    """The symbolic dimensions of all values of a group."""
    return set().union(*(v.tensor.symbols for v in group))


def _names(prefix: str, counter: Iterable[int], taken: set[str]) -> Iterator[str]:
    """The prefix with each number: neither a dimension's name nor reserved in IR text (``i8`` is a dtype)."""
    return (name for k in counter if is_identifier(name := f"{prefix}{k}") and name not in taken)


# --- inlining ------------------------------------------------------------------------------------


class _Inliner:
    """Gives the scalar expression of any value of the group at any index."""

    def __init__(self, buffers: Mapping[Value, Buffer], taken: set[str]) -> None:
        self.buffers = buffers
        self.taken = taken
        self.extents: dict[str, Dim] = {}
        self._memo: dict[tuple[Value, tuple[Dim | Expr, ...], Expr | None], Expr] = {}
        self._names = _names("r", itertools.count(), taken)

    def at(self, v: Value, index: Sequence[Dim | Expr], guard: Expr | None = None) -> Expr:
        clean = tuple(simplify(i, self.extents) if not isinstance(i, (int, Expr)) else i for i in index)
        key = (v, clean, guard)
        if key not in self._memo:
            self._memo[key] = self._at(v, clean, guard)
        return self._memo[key]

    def _at(self, v: Value, index: tuple[Dim | Expr, ...], guard: Expr | None) -> Expr:
        buffer = self.buffers.get(v)
        if buffer is not None:
            return Load(buffer, tuple(i if isinstance(i, Expr) else Index(i) for i in index), guard)
        if v.op.define is None:
            raise CompileError(f"{v.op.name} has no definition in index space")

        def read(operand: Value):  # type: ignore[no-untyped-def]
            def at(indices: Sequence[Dim | Expr], guard: Expr | None = guard) -> Expr:
                return self.at(operand, indices, _both(guard, outer))

            outer = guard
            return at

        d = Definition(index, [o.tensor for o in v.operands], v.tensor, v.attrs, self._fresh)  # type: ignore[arg-type]
        expr = v.op.define(d, *map(read, v.operands))
        if isinstance(expr, Reduce):
            expr = picked(expr) if expr.axes else expr.body  # no axes: an outer product, say
        if guard is not None:
            expr = Scalar("select", (guard, expr, const(0, expr.dtype)), expr.dtype)
        return expr

    def _fresh(self, extent: Dim) -> str:
        name = next(self._names)
        self.extents[name] = extent
        return name


def _both(a: Expr | None, b: Expr | None) -> Expr | None:
    if a is None or b is None or a is b:
        return a if b is None else b
    return apply("bitand", a, b)


# --- loop nests ----------------------------------------------------------------------------------


def _nests(group: Graph) -> list[list[int]]:
    """Outputs by nest: those whose loops are a prefix of the nest's longest share it."""
    nests: list[list[int]] = []
    shapes = [_loops(v, group) for v in group.outputs]
    for k in sorted(range(len(shapes)), key=lambda k: -len(shapes[k])):
        for nest in nests:
            if _prefix(shapes[k], shapes[nest[0]]):
                nest.append(k)
                break
        else:
            nests.append([k])
    return nests


def _loops(v: Value, group: Graph) -> Shape:
    """The extents of the loops that compute an output; over one piece, if nothing else in the group reads the whole."""
    return v.tensor.shape if any(v in u.operands for u in group) else loop_shape(v)


def _prefix(short: Shape, long: Shape) -> bool:
    return len(short) <= len(long) and all(map(equal, short, long))


def _lower_nest(inliner: _Inliner, nest: list[int], group: Graph, outputs: tuple[Buffer, ...]) -> list[Stmt]:
    shape = _loops(group.outputs[nest[0]], group)
    names = list(itertools.islice(_names("i", itertools.count(), inliner.taken), len(shape)))
    inliner.extents.update(zip(names, shape))
    place = _Placement(names, shape, inliner.taken)
    stores: list[list[Stmt]] = [[] for _ in range(len(names) + 1)]
    parts = [(k, part, at) for k in nest for part, at in _parts(group.outputs[k], group, names)]
    for k, part, at in sorted(parts, key=lambda p: p[1].tensor.rank):  # outer values are known to inner loops
        rank = part.tensor.rank
        expr = inliner.at(part, [symbol(n) for n in names[:rank]])
        value = place.bind_reductions(expr, rank)
        if len(parts) > 1:  # all values first, then the stores: one may overwrite what another reads
            value = place.bind(value, rank, known_as=expr)
        stores[rank].append(Store(outputs[k], tuple(map(Index, at)), value))
    return place.assemble(stores)


def _parts(v: Value, group: Graph, names: Sequence[str]) -> Iterator[tuple[Value, list[Dim]]]:
    """An output, or its pieces; and where in it the element of an iteration is stored."""
    at: list[Dim] = [symbol(n) for n in names[: v.tensor.rank]]
    if _loops(v, group) == v.tensor.shape:
        yield v, at
        return
    axis, size = v.attrs["axis"], v.operands[0].tensor.shape[v.attrs["axis"]]
    for k, piece in enumerate(v.operands):
        yield piece, [d + k * size if i == axis else d for i, d in enumerate(at)]


class _Placement:
    """Statements by loop depth; reductions are bound at the depth their variables need."""

    def __init__(self, names: list[str], shape: Shape, dimensions: set[str]) -> None:
        self.names, self.shape, self.dimensions = names, shape, dimensions
        self._temps = _names("t", itertools.count(), dimensions)
        self.levels: list[list[Stmt]] = [[] for _ in range(len(names) + 1)]
        self._depth: dict[str, int] = {n: k + 1 for k, n in enumerate(names)}
        self._memo: dict[Expr, Expr] = {}
        self._inside: dict[tuple[Expr, frozenset[str]], Expr] = {}  # what varies with the axes of reductions

    def bind_reductions(self, e: Expr, rank: int, inside: frozenset[str] = frozenset()) -> Expr:
        """`e`, which is read at depth `rank`, with a temporary for each reduction that is in no other's way."""
        known = self._memo.get(e) or self._inside.get((e, inside))
        if known is not None:
            return known
        result = e
        if isinstance(e, Scalar):
            result = Scalar(e.op, tuple(self.bind_reductions(a, rank, inside) for a in e.args), e.dtype)
        elif isinstance(e, Load):
            indices = tuple(self.bind_reductions(i, rank, inside) for i in e.indices)
            guard = self.bind_reductions(e.guard, rank, inside) if e.guard is not None else None
            result = Load(e.buffer, indices, guard)
        elif isinstance(e, Reduce):
            own = inside | {v for v, _ in e.axes}
            result = Reduce(e.combiner, e.axes, self.bind_reductions(e.body, rank, own), e.dtype)
            if not free_symbols(result) & inside:
                depth = max((self._depth.get(s, 0) for s in free_symbols(result)), default=0)
                result = self.bind(self._where_read(result, depth, rank), depth)
        if free_symbols(e) & inside:
            self._inside[e, inside] = result
        else:
            self._memo[e] = result
        return result

    def _where_read(self, e: Reduce, depth: int, rank: int) -> Reduce:
        """A reduction outside of the loops that read it: of nothing where these are empty, and its operands perhaps."""
        if not any(isinstance(x, Load) and self._needs_an_element(x) for x in walk(e)):
            return e
        (var, extent), *others = e.axes
        for n in self.shape[depth:rank]:
            extent = extent if at_most(1, n) else extent * dim_min(1, n)
        return Reduce(e.combiner, ((var, extent), *others), e.body, e.dtype)

    def _needs_an_element(self, x: Load) -> bool:
        """Whether a load's index is the same in each iteration, along an axis that may be empty."""
        fixed = (free_symbols(i) <= self.dimensions and not at_most(1, n) for i, n in zip(x.indices, x.buffer.shape))
        return x.guard is None and any(fixed)

    def bind(self, e: Expr, depth: int, known_as: Expr | None = None) -> Temp:
        """A temporary for an expression, for the statements at a depth.

        Where it occurs later, as `known_as` or in its present form, it is that temporary.
        """
        if isinstance(e, Temp):
            return e
        temp = Temp(next(self._temps), e.dtype)
        self._depth[temp.name] = depth
        self.levels[depth].append(Let(temp.name, e))
        self._memo[e] = temp
        if known_as is not None:
            self._memo[known_as] = temp
        return temp

    def assemble(self, last: list[list[Stmt]]) -> list[Stmt]:
        """The loops; the last statements of a depth come after the loops inside, which read what they overwrite."""
        rank = len(self.shape)
        body: list[Stmt] = [*self.levels[rank], *last[rank]]
        for depth in reversed(range(rank)):
            body = [*self.levels[depth], For(self.names[depth], self.shape[depth], tuple(body)), *last[depth]]
        return body


# --- in place ------------------------------------------------------------------------------------


def _inplace(
    inputs: tuple[Buffer, ...], outputs: tuple[Buffer, ...], body: tuple[Stmt, ...]
) -> tuple[tuple[int, int], ...]:
    """Pairs (output, input) where each element is read, if at all, only by the iteration that overwrites it."""
    accesses: dict[str, list[tuple[int, Dim | None]]] = {}
    stores: dict[str, tuple[int, Dim | None]] = {}
    for nest, top in enumerate(body):
        for s in statements((top,)):
            if isinstance(s, Store):
                several = s.buffer.name in stores  # pieces of it: each iteration overwrites many places
                stores[s.buffer.name] = (nest, None if several else flat_index(s))
            roots = [s.value] if isinstance(s, (Let, Store)) else []
            for e in (e for r in roots for e in walk(r)):
                if isinstance(e, Load):
                    accesses.setdefault(e.buffer.name, []).append((nest, flat_index(e)))
    pairs = []
    for o, out in enumerate(outputs):
        for i, source in enumerate(inputs):
            same = source.dtype == out.dtype and _prefix(source.shape, out.shape) and _prefix(out.shape, source.shape)
            reads = accesses.get(source.name, [])
            if same and stores[out.name][1] is not None and all(r == stores[out.name] for r in reads):
                pairs.append((o, i))
    return tuple(pairs)

