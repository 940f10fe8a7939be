"""The loop IR: a kernel as loop nests over buffers. Its whole grammar stands on this page.

Statements act in order; expressions are pure. Index arithmetic is done in `dims` polynomials over
loop variables and symbolic dimensions (all ``i64``). A kernel first has its *declarative* form, in
which a `Reduce` is an expression, and then its *scheduled* form, in which it has become loops
over accumulators. Both are the same language with the same meaning (`interpret_loops`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Union

from .dims import Dim, substitute, symbols
from .dtypes import DType, bool_, int64

__all__ = [
    "Alloc",
    "Buffer",
    "Const",
    "Expr",
    "For",
    "Foreign",
    "If",
    "Index",
    "Kernel",
    "Let",
    "Load",
    "Prefetch",
    "Reduce",
    "Scalar",
    "Stmt",
    "Store",
    "Temp",
    "children",
    "flat_index",
    "free_symbols",
    "reads_counter",
    "replace",
    "statements",
    "walk",
]


@dataclass(frozen=True)
class Buffer:
    """A dense row-major array: a kernel's parameter, or memory of an `Alloc`."""

    name: str
    dtype: DType
    shape: tuple[Dim, ...]


# --- expressions ---------------------------------------------------------------------------------


class Expr:
    """A scalar expression: immutable, compared by structure."""

    dtype: DType

    @property
    def head(self) -> tuple[object, ...]:
        """What makes an expression, with its `children`."""
        raise NotImplementedError

    def __hash__(self) -> int:  # computed once
        try:
            return self.__dict__["_hash"]  # type: ignore[no-any-return]
        except KeyError:
            value = hash((type(self).__name__, self.head, children(self)))
            self.__dict__["_hash"] = value
            return value

    def __eq__(self, other: object) -> bool:
        same: set[tuple[int, int]] = set()  # what is shared is compared once: there may be as many paths as 2^nodes
        pairs: list[tuple[Any, Any]] = [(self, other)]
        while pairs:
            a, b = pairs.pop()
            if a is b or (id(a), id(b)) in same:
                continue
            if type(a) is not type(b) or hash(a) != hash(b) or a.head != b.head or len(children(a)) != len(children(b)):
                return False
            same.add((id(a), id(b)))
            pairs.extend(zip(children(a), children(b)))
        return True


@dataclass(frozen=True, eq=False)
class Const(Expr):
    """A literal; `value` is a Python bool, int or float."""

    value: Any
    dtype: DType

    @property
    def head(self) -> tuple[object, ...]:
        return repr(self.value), self.dtype  # by text: 0.0 is not -0.0, NaN is NaN


@dataclass(frozen=True, eq=False)
class Index(Expr):
    """An index polynomial as an ``i64`` scalar."""

    dim: Dim
    dtype: DType = int64

    @property
    def head(self) -> tuple[object, ...]:
        return self.dim, self.dtype


@dataclass(frozen=True, eq=False)
class Load(Expr):
    """``buffer[indices]``, or 0 where `guard` is false (nothing is read there).

    There is one index per axis, or a single one: the row-major position.
    """

    buffer: Buffer
    indices: tuple[Expr, ...]
    guard: Expr | None = None

    @property
    def dtype(self) -> DType:  # type: ignore[override]
        return self.buffer.dtype

    @property
    def head(self) -> tuple[object, ...]:
        return self.buffer, len(self.indices)


@dataclass(frozen=True, eq=False)
class Scalar(Expr):
    """A scalar op of `ir.scalars` applied to expressions; ``select`` evaluates both branches."""

    op: str
    args: tuple[Expr, ...]
    dtype: DType

    @property
    def head(self) -> tuple[object, ...]:
        return self.op, self.dtype


@dataclass(frozen=True, eq=False)
class Temp(Expr):
    """The value bound by a `Let`."""

    name: str
    dtype: DType

    @property
    def head(self) -> tuple[object, ...]:
        return self.name, self.dtype


@dataclass(frozen=True, eq=False)
class Reduce(Expr):
    """Combine `body` over all `axes` (variable, extent), in any fixed order.

    `combiner` is ``add mul max min or and``; or ``argmax``/``argmin``, where `body` is the
    key, the position is that of the first best in row-major order of the axes, and the result
    is the position as an ``i64``. A NaN wins ``max min argmax argmin``.
    """

    combiner: str
    axes: tuple[tuple[str, Dim], ...]
    body: Expr
    dtype: DType

    @property
    def head(self) -> tuple[object, ...]:
        return self.combiner, self.axes, self.dtype


# --- statements ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class For:
    """``for var = 0..extent``, step 1.

    `kind`: ``serial``; ``parallel`` (iterations are independent, given to threads); ``vector``
    (independent, or accumulating per lane; executed `lanes` at a time, the rest in shorter vectors);
    ``unroll`` (extent is an integer); ``block`` and ``thread`` (a GPU's).
    """

    var: str
    extent: Dim
    body: tuple[Stmt, ...]
    kind: str = "serial"
    lanes: int = 1


@dataclass(frozen=True, eq=False)
class Let:
    """Bind the value of an expression to a name for the statements that follow."""

    name: str
    value: Expr


@dataclass(frozen=True, eq=False)
class Store:
    """``buffer[indices] = value``; with a `combiner`, ``buffer[indices] combiner= value``."""

    buffer: Buffer
    indices: tuple[Expr, ...]
    value: Expr
    combiner: str | None = None


@dataclass(frozen=True, eq=False)
class Alloc:
    """Memory for the statements that follow: ``register`` (constant indices once unrolled),
    ``local`` (private to the enclosing iteration, constant shape), ``shared`` (a GPU block's), or
    ``workspace`` (in the arena, at the kernel's top level)."""

    buffer: Buffer
    space: str = "local"


@dataclass(frozen=True, eq=False)
class If:
    """``if condition``."""

    condition: Expr
    then: tuple[Stmt, ...]
    otherwise: tuple[Stmt, ...] = ()


@dataclass(frozen=True, eq=False)
class Foreign:
    """Run a custom op's own kernel on whole buffers; at the top level of a kernel."""

    op: str
    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]


@dataclass(frozen=True, eq=False)
class Prefetch:
    """A hint, without meaning: the element will soon be loaded."""

    buffer: Buffer
    indices: tuple[Expr, ...]


Stmt = Union[For, Let, Store, Alloc, If, Foreign, Prefetch]


@dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel: reads `inputs`, writes `outputs`; `symbols` are its symbolic dimensions.

    `inplace` pairs an output with an input that it may share memory with: every element of the
    input is read, if at all, in the iteration that writes that element, before it is written.
    """

    name: str
    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]
    body: tuple[Stmt, ...]
    symbols: tuple[str, ...] = ()
    inplace: tuple[tuple[int, int], ...] = ()
    notes: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        from .printer import print_kernel

        return print_kernel(self)


def children(expr: Expr) -> tuple[Expr, ...]:
    """The direct subexpressions."""
    if isinstance(expr, Scalar):
        return expr.args
    if isinstance(expr, Load):
        return expr.indices if expr.guard is None else (*expr.indices, expr.guard)
    return (expr.body,) if isinstance(expr, Reduce) else ()


def walk(expr: Expr, inner: Callable[[Expr], tuple[Expr, ...]] = children) -> Iterator[Expr]:
    """All subexpressions, each distinct object once, operands before users; without recursion, as
    expanded math functions are deep. `inner` may leave subexpressions out."""
    seen: set[int] = set()
    stack = [(expr, False)]
    while stack:
        e, entered = stack.pop()
        if entered:
            yield e
        elif id(e) not in seen:
            seen.add(id(e))
            stack.append((e, True))
            stack.extend((child, False) for child in reversed(inner(e)))


def statements(body: tuple[Stmt, ...]) -> Iterator[Stmt]:
    """All statements, outer before inner."""
    for s in body:
        yield s
        if isinstance(s, For):
            yield from statements(s.body)
        elif isinstance(s, If):
            yield from statements(s.then)
            yield from statements(s.otherwise)


def replace(
    expr: Expr,
    dims: Mapping[str, Dim] | None = None,
    temps: Mapping[str, Expr] | None = None,
    guard: Expr | None = None,
    memo: dict[Expr, Expr] | None = None,
) -> Expr:
    """`expr` with loop variables and temporaries replaced; `guard` is added to every load.

    Shared subexpressions stay shared.
    """
    memo = {} if memo is None else memo
    found = memo.get(expr)
    if found is not None:
        return found
    again = partial(replace, dims=dims, temps=temps, guard=guard, memo=memo)
    result: Expr = expr
    if isinstance(expr, Index):
        result = Index(substitute(expr.dim, dims)) if dims else expr
    elif isinstance(expr, Temp):
        result = (temps or {}).get(expr.name, expr)
    elif isinstance(expr, Scalar):
        result = Scalar(expr.op, tuple(map(again, expr.args)), expr.dtype)
    elif isinstance(expr, Reduce):
        axes = tuple((v, substitute(n, dims) if dims else n) for v, n in expr.axes)
        result = Reduce(expr.combiner, axes, again(expr.body), expr.dtype)
    elif isinstance(expr, Load):
        own = again(expr.guard) if expr.guard is not None else None
        both = guard if own is None else own if guard is None else Scalar("bitand", (own, guard), bool_)
        result = Load(expr.buffer, tuple(map(again, expr.indices)), both)
    memo[expr] = result
    return result


def free_symbols(expr: Expr) -> set[str]:
    """Loop variables, dimensions and temporaries that an expression depends on."""
    found: set[str] = set()
    bound: set[str] = set()
    for e in walk(expr):
        if isinstance(e, Index):
            found |= symbols(e.dim)
        elif isinstance(e, Temp):
            found.add(e.name)
        elif isinstance(e, Reduce):
            bound |= {v for v, _ in e.axes}
            for _, extent in e.axes:
                found |= symbols(extent)
    return found - bound


def reads_counter(expr: Expr, names: set[str]) -> bool:
    """Whether loop variables occur as values or in guards, not just in the positions of loads."""

    def values(e: Expr) -> tuple[Expr, ...]:
        return (() if e.guard is None else (e.guard,)) if isinstance(e, Load) else children(e)

    return any(isinstance(e, Index) and symbols(e.dim) & names for e in walk(expr, values))


def flat_index(load: Load | Store) -> Dim | None:
    """The row-major position of an access; None where an index is data-dependent.

    An access has one index per axis of the buffer, or a single one: the position itself.
    """
    position: Dim = 0
    indices, shape = load.indices, load.buffer.shape
    if len(indices) == 1 and len(shape) != 1:
        shape = (1,)
    for i, d in zip(indices, shape, strict=True):
        if not isinstance(i, Index):
            return None
        position = position * d + i.dim
    return position
