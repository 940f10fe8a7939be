"""Schedule a declarative kernel for a GPU: loops over blocks and threads.

In the scheduled form each top-level ``block`` loop is one launch, and so is a custom op's own kernel
(`Foreign`); launches run one after the other. Inside, all threads run the statements of the block; a
``thread`` loop gives each its own iteration, and a barrier stands between one thread loop and the
next. A kernel's values that cross from one launch to another go through workspaces.

A loop nest becomes, whichever fits first:

- *elements*: one thread for each iteration of the independent loops; reductions run in the thread;
- *rows*: one block for each outer iteration, whose reductions are trees in shared memory and whose
  inner loops are spread over the threads.

The order of every sum is fixed by the shapes and `CudaModel`, so results are reproducible.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace as with_fields
from itertools import groupby

from ..errors import CompileError
from ..ir.dims import Dim, ceildiv, floordiv, mod, product, symbol, symbols
from ..ir.loops import (
    Alloc,
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
    Stmt,
    Store,
    Temp,
    replace,
    statements,
    walk,
)  # fmt: skip
from ..ir.op import OPS
from ..ir.scalars import less
from .cuda_model import CudaModel
from .schedule_cpu import accesses, merge_loops, rename
from .schedule_reduction import identity, serial_reduction

__all__ = ["schedule_cuda"]

SHORT = 64
"""Loops of at most so many iterations stay within one thread."""

FEW = 256
"""Up to so many results of long reductions get a block each."""

LONG = 1024
"""From so many terms on, a reduction may be worth a block."""

Loops = tuple[tuple[str, Dim], ...]


def schedule_cuda(kernel: Kernel, gpu: CudaModel) -> Kernel:
    """The scheduled form of a declarative kernel, with the same meaning; a custom op's own kernel stays as it is.

    Raises
    ------
    CompileError
        If a reduction stands inside a reduction that depends on it, or a custom op has no kernel for CUDA.
    """
    foreign = [s for s in kernel.body if isinstance(s, Foreign)]
    for s in foreign:
        if "cuda" not in OPS[s.op].kernels:
            raise CompileError(
                f"{s.op}: this custom op has no kernel for CUDA\n"
                "  give gw.custom_op a cuda_kernel, or compile the function for 'cpu'"
            )
    if foreign:
        return kernel
    return _Scheduler(kernel, gpu).run()


class _Scheduler:
    def __init__(self, kernel: Kernel, gpu: CudaModel) -> None:
        self.kernel, self.threads = kernel, gpu.threads
        self._taken = {*kernel.symbols, *(s.var for s in statements(kernel.body) if isinstance(s, For))}
        self.block, self.thread = self._fresh("block"), self._fresh("thread")
        self.workspaces: list[Stmt] = []

    def _fresh(self, name: str) -> str:
        unique, count = name, 1
        while unique in self._taken:
            unique, count = f"{name}{count}", count + 1
        self._taken.add(unique)
        return unique

    def run(self) -> Kernel:
        launches: list[Stmt] = []
        known: dict[str, Expr] = {}  # temps of earlier launches, by the workspaces that hold them
        self.workspaces = [s for s in self.kernel.body if isinstance(s, Alloc) and s.space == "workspace"]
        rest = tuple(s for s in self.kernel.body if s not in self.workspaces)
        if any(isinstance(s, (Alloc, If)) for s in rest):  # private memory of the whole kernel
            return with_fields(self.kernel, body=(*self.workspaces, self._elements((), rest)), inplace=())
        for is_nest, group in groupby(rest, lambda s: isinstance(s, For)):
            members = tuple(group)
            rest = rest[len(members) :]
            body = _with_temps(members, known)
            if is_nest:
                launches += [self._nest(s) for s in body if isinstance(s, For)]
            else:
                launches.append(self._scalars(body, rest, known))
        inplace = tuple(pair for pair in self.kernel.inplace if _overwrites_last(self.kernel, *pair))
        return with_fields(self.kernel, body=(*self.workspaces, *launches), inplace=inplace)

    def _scalars(self, body: tuple[Stmt, ...], rest: tuple[Stmt, ...], known: dict[str, Expr]) -> For:
        """Statements outside all loops: one block, which leaves what later launches need in workspaces."""
        bound = {s.name: s.value.dtype for s in body if isinstance(s, Let)}
        keep: list[Stmt] = []
        for name in bound:
            known.pop(name, None)
        for name in sorted(_temps(rest) & set(bound)):
            buffer = Buffer(f"{name}.kept{len(self.workspaces)}", bound[name], ())
            self.workspaces.append(Alloc(buffer, "workspace"))
            keep.append(Store(buffer, (), Temp(name, bound[name])))
            known[name] = Load(buffer, ())
        return self._rows((), (*body, *keep))

    # --- loop nests ------------------------------------------------------------------------------

    def _nest(self, s: For) -> For:
        s = merge_loops(s)
        loops, body = _perfect(s)
        nest = tuple(statements((s,)))
        private = any(isinstance(t, (Alloc, If)) for t in nest)
        if private or not all(_independent(t, self.kernel.symbols) for t in nest if isinstance(t, For)):
            free = _shared_points(s, self.kernel.symbols)
            points = tuple((t.var, t.extent) for t in nest if isinstance(t, For) and t.var in free)
            return self._elements(points, _without_loops((s,), free))
        if any(isinstance(t, For) for t in body) and not _all_short(body):
            return self._rows(loops, body)
        if _few(loops) and any(_is_long(t) for t in body):
            return self._rows(loops, body)
        return self._elements(loops, body)

    def _elements(self, loops: Loops, body: Sequence[Stmt]) -> For:
        """One thread for each iteration of the loops."""
        total = product(extent for _, extent in loops)
        if isinstance(total, int) and total <= self.threads:
            inner = _serial(rename(tuple(body), _split(loops, symbol(self.thread))))
            return For(self.block, min(total, 1), (For(self.thread, total, inner, "thread"),), "block")
        index = symbol(self.block) * self.threads + symbol(self.thread)
        inner = _serial(rename(tuple(body), _split(loops, index)))
        if not isinstance(total, int) or total % self.threads:
            inner = (If(less(index, total), inner),)
        each = For(self.thread, self.threads, inner, "thread")
        return For(self.block, ceildiv(total, self.threads), (each,), "block")

    # --- one block for each row ------------------------------------------------------------------

    def _rows(self, loops: Loops, body: Sequence[Stmt]) -> For:
        """One block for each iteration of the loops; its threads share the statements' work."""
        out: list[Stmt] = []
        placed = rename(tuple(body), _split(loops, symbol(self.block)))
        for is_store, group in groupby(placed, lambda s: isinstance(s, Store)):
            if is_store:
                out.append(self._once(*group))
                continue
            for s in group:
                if isinstance(s, For):
                    out.append(self._spread(*_perfect(s)))
                elif isinstance(s, Let) and isinstance(s.value, Reduce):
                    out += self._reduction(s.name, s.value)
                else:
                    out.append(s)
        return For(self.block, product(extent for _, extent in loops), tuple(out), "block")

    def _once(self, *body: Stmt) -> For:
        """Statements for the first thread alone."""
        return For(self.thread, 1, body, "thread")

    def _spread(self, loops: Loops, body: Sequence[Stmt]) -> For:
        """Loops whose iterations are dealt out to the threads, one after the other."""
        total = product(extent for _, extent in loops)
        if isinstance(total, int) and total <= self.threads:
            inner = _serial(rename(tuple(body), _split(loops, symbol(self.thread))))
            return For(self.thread, total, inner, "thread")
        step = self._fresh("step")
        inner = _serial(rename(tuple(body), _split(loops, symbol(step) * self.threads + symbol(self.thread))))
        return For(self.thread, self.threads, (For(step, self._turns(total), inner),), "thread")

    def _turns(self, total: Dim) -> Dim:
        """How many of so many iterations a thread gets."""
        return floordiv(total - symbol(self.thread) + (self.threads - 1), self.threads)

    def _reduction(self, name: str, e: Reduce) -> list[Stmt]:
        """A reduction by all threads: each reduces its share, then they combine pairwise."""
        if e.combiner in ("argmax", "argmin"):
            result = Buffer(f"{name}.result", e.dtype, (1,))
            own = (*serial_reduction([Let(f"{name}.own", e)]), Store(result, (Index(0),), Temp(f"{name}.own", e.dtype)))
            return [Alloc(result, "shared"), self._once(*own), Let(name, Load(result, (Index(0),)))]
        acc, parts = Buffer(f"{name}.acc", e.dtype, ()), Buffer(f"{name}.parts", e.dtype, (self.threads,))
        step, thread = self._fresh("step"), symbol(self.thread)
        axes = _split(e.axes, symbol(step) * self.threads + thread)
        total = product(extent for _, extent in e.axes)
        share: tuple[Stmt, ...] = (
            Alloc(acc, "register"),
            Store(acc, (), identity(e.combiner, e.dtype)),
            For(step, self._turns(total), (Store(acc, (), replace(e.body, axes), e.combiner),)),
            Store(parts, (Index(thread),), Load(acc, ())),
        )
        out: list[Stmt] = [Alloc(parts, "shared"), For(self.thread, self.threads, share, "thread")]
        width = self.threads
        while width > 1:
            width //= 2
            fold = Store(parts, (Index(thread),), Load(parts, (Index(thread + width),)), e.combiner)
            out.append(For(self.thread, width, (fold,), "thread"))
        return [*out, Let(name, Load(parts, (Index(0),)))]


# --- loops ---------------------------------------------------------------------------------------


def _perfect(s: For) -> tuple[Loops, tuple[Stmt, ...]]:
    """The loops around the first body that is more than one loop, and that body."""
    loops = [(s.var, s.extent)]
    while len(s.body) == 1 and isinstance(s.body[0], For):
        s = s.body[0]
        loops.append((s.var, s.extent))
    return tuple(loops), s.body


def _split(loops: Loops, index: Dim) -> dict[str, Dim]:
    """The loop variables at a position in the loops' iterations, which run in row-major order."""
    values: dict[str, Dim] = {}
    for k, (var, extent) in reversed(list(enumerate(loops))):
        extent = 1 if extent == 0 else extent  # then there is no position
        values[var] = index if k == 0 else mod(index, extent)
        index = floordiv(index, extent) if k else index
    return values


def _stores(s: For) -> list[Store]:
    """The stores under a loop to memory from outside it."""
    nest = tuple(statements((s,)))
    private = {t.buffer.name for t in nest if isinstance(t, Alloc)}
    return [t for t in nest if isinstance(t, Store) and t.buffer.name not in private]


def _indices(s: Store) -> set[str]:
    """Variables that are an index of a store by themselves."""
    return {str(i.dim) for i in s.indices if isinstance(i, Index)}


def _independent(s: For, dimensions: Sequence[str]) -> bool:
    """Whether the iterations write different elements: each store has the variable as an index."""
    return symbols(s.extent) <= set(dimensions) and all(s.var in _indices(t) for t in _stores(s))


def _shared_points(s: For, dimensions: Sequence[str]) -> set[str]:
    """Loops over which all stores of a nest are independent, so that each iteration can be a thread of its own."""
    loops = {t.var for t in statements((s,)) if isinstance(t, For) and symbols(t.extent) <= set(dimensions)}
    return loops.intersection(*map(_indices, _stores(s)))


def _without_loops(body: Sequence[Stmt], names: set[str]) -> tuple[Stmt, ...]:
    """Statements with some loops left out: their bodies stand in their place."""
    out: list[Stmt] = []
    for s in body:
        if isinstance(s, For):
            inner = _without_loops(s.body, names)
            out += inner if s.var in names else (with_fields(s, body=inner),)
        elif isinstance(s, If):
            out.append(If(s.condition, _without_loops(s.then, names), _without_loops(s.otherwise, names)))
        else:
            out.append(s)
    return tuple(out)


def _serial(body: Sequence[Stmt]) -> tuple[Stmt, ...]:
    """Statements for one thread: serial loops, reductions over accumulators."""
    out: list[Stmt] = []
    for s in body:
        if isinstance(s, For):
            out.append(For(s.var, s.extent, _serial(s.body)))
        elif isinstance(s, If):
            out.append(If(s.condition, _serial(s.then), _serial(s.otherwise)))
        elif isinstance(s, Let) and isinstance(s.value, Reduce):
            out += serial_reduction([s])
        else:
            out.append(s)
    return tuple(out)


def _few(loops: Loops) -> bool:
    total = product(extent for _, extent in loops)
    return isinstance(total, int) and total <= FEW


def _is_long(s: Stmt) -> bool:
    """Whether a statement binds a reduction that a block's threads should share."""
    if not isinstance(s, Let) or not isinstance(s.value, Reduce) or s.value.combiner in ("argmax", "argmin"):
        return False
    terms = product(extent for _, extent in s.value.axes)
    return not isinstance(terms, int) or terms >= LONG


def _all_short(body: Sequence[Stmt]) -> bool:
    """Whether all loops and reductions under statements are short."""
    extents: list[Dim] = []
    for s in statements(tuple(body)):
        if isinstance(s, For):
            extents.append(s.extent)
        elif isinstance(s, Let) and isinstance(s.value, Reduce):
            extents.append(product(extent for _, extent in s.value.axes))
    return all(isinstance(n, int) and n <= SHORT for n in extents)


# --- temps and memory ----------------------------------------------------------------------------


def _expressions(s: Stmt) -> tuple[Expr, ...]:
    """The expressions of a statement itself."""
    if isinstance(s, Store):
        return (*s.indices, s.value)
    if isinstance(s, Let):
        return (s.value,)
    return (s.condition,) if isinstance(s, If) else ()


def _temps(body: Sequence[Stmt]) -> set[str]:
    """Names of the temps that statements read."""
    roots = [e for s in statements(tuple(body)) for e in _expressions(s)]
    return {e.name for root in roots for e in walk(root) if isinstance(e, Temp)}


def _with_temps(body: tuple[Stmt, ...], values: Mapping[str, Expr]) -> tuple[Stmt, ...]:
    """Statements with temps replaced, as far as they do not bind them anew."""
    out: list[Stmt] = []
    temps = dict(values)
    for s in body:
        if not temps:
            out.append(s)
        elif isinstance(s, For):
            out.append(with_fields(s, body=_with_temps(s.body, temps)))
        elif isinstance(s, If):
            condition = replace(s.condition, temps=temps)
            out.append(If(condition, _with_temps(s.then, temps), _with_temps(s.otherwise, temps)))
        elif isinstance(s, Let):
            out.append(Let(s.name, replace(s.value, temps=temps)))
            temps.pop(s.name, None)
        elif isinstance(s, Store):
            indices = tuple(replace(i, temps=temps) for i in s.indices)
            out.append(Store(s.buffer, indices, replace(s.value, temps=temps), s.combiner))
        else:
            out.append(s)
    return tuple(out)


def _bodies(body: tuple[Stmt, ...]) -> Iterator[tuple[Stmt, ...]]:
    """All blocks of statements."""
    yield body
    for s in body:
        if isinstance(s, For):
            yield from _bodies(s.body)
        elif isinstance(s, If):
            yield from _bodies(s.then)
            yield from _bodies(s.otherwise)


def _overwrites_last(kernel: Kernel, output: int, source: int) -> bool:
    """Whether no thread can read an element of an input after the store that takes its place.

    Stores that stand together read all they need before any of them writes, so the input may be
    read up to and by those around the store, in the same body.
    """
    out, memory = kernel.outputs[output].name, kernel.inputs[source].name
    for body in _bodies(kernel.body):
        own = [k for k, s in enumerate(body) if isinstance(s, Store) and s.buffer.name == out]
        last = own[-1] if own else -1
        while own and last + 1 < len(body) and isinstance(body[last + 1], Store):
            last += 1
        for k, s in enumerate(body):
            if not isinstance(s, (For, If)) and k > last and any(a.buffer.name == memory for a in accesses(s)):
                return False
    return True
