"""A scheduled kernel as the Python source of ``@cuda.jit`` functions, one for each of its launches.

Everything is typed by hand, so that Numba promotes nothing: literals are written ``float32(0.5)``,
and integer results narrower than 64 bits are converted back (``int8(a + b)``), as Numba computes
them in 64. Buffers are flat arrays. The source is what a person would write, and runs as it stands.
A custom op's own kernel is a function already, and is launched as its author wrote it (`foreign`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ...errors import CompileError
from ...ir.dims import Dim, ceildiv, product
from ...ir.dims import symbols as symbols_of
from ...ir.loops import (
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
    Stmt,
    Store,
    free_symbols,
    statements,
    walk,
)  # fmt: skip
from ...ir.program import workspace_buffers
from .expressions import TYPES, Names, Writer, dtype_name, position
from .foreign import foreign_text

__all__ = ["CudaSource", "Launch", "emit_program"]


@dataclass(frozen=True, eq=False)
class Launch:
    """One function of the source, and how a kernel launches it.

    Attributes
    ----------
    function : its name.
    buffers : the kernel's buffers (inputs, outputs, workspaces) that it takes, in order.
    symbols : the symbolic dimensions that it takes after them, as 64-bit integers.
    blocks : size of the grid.
    threads : size of a block.
    op : the custom op whose own kernel it is, which takes arrays of the buffers' shapes; the others are
        functions of the source, and take flat arrays.
    """

    function: str
    buffers: tuple[Buffer, ...]
    symbols: tuple[str, ...]
    blocks: Dim
    threads: int
    op: str | None = None


@dataclass(frozen=True, eq=False)
class CudaSource:
    """The source of a program's kernels.

    Attributes
    ----------
    text : all of it, to be read.
    code : a Python module with what is generated: all but the kernels of custom ops.
    launches : the launches of each kernel, by its name.
    """

    text: str
    code: str
    launches: dict[str, tuple[Launch, ...]]

    def __iter__(self) -> Iterator[Launch]:
        """All launches, kernel by kernel."""
        return (launch for made in self.launches.values() for launch in made)


def emit_program(kernels: Iterable[Kernel], threads: int = 128) -> CudaSource:
    """The source of all kernels as one Python module; custom ops run in blocks of so many threads.

    Raises
    ------
    CompileError
        If a kernel is not scheduled for CUDA.
    """
    used: set[str] = set()
    names = Names()
    bodies: list[str] = []
    foreign: list[str] = []
    launches: dict[str, tuple[Launch, ...]] = {}
    for kernel in kernels:
        loops = [s for s in kernel.body if not isinstance(s, Alloc)]
        made = []
        for k, loop in enumerate(loops):
            name = names.unique(kernel.name if len(loops) == 1 else f"{kernel.name}_part{k}")
            if isinstance(loop, Foreign):
                foreign.append(foreign_text(loop, name))
                made.append(_foreign_launch(loop, name, threads))
                continue
            if not isinstance(loop, For) or loop.kind != "block":
                raise CompileError(f"kernel {kernel.name}: not scheduled for CUDA")
            emitter = _Emitter(kernel, loop, name)
            bodies.append(emitter.text())
            used |= emitter.writer.used
            made.append(emitter.launch)
        launches[kernel.name] = tuple(made)
    generated = [_imports(used), *bodies]
    return CudaSource("\n\n".join([*generated, *foreign]), "\n\n".join(generated), launches)


def _foreign_launch(s: Foreign, name: str, threads: int) -> Launch:
    """One thread for each element of the result, at least."""
    (out,) = s.outputs
    return Launch(name, (out, *s.inputs), (), ceildiv(product(out.shape), threads), threads, s.op)


def _imports(used: set[str]) -> str:
    """The head of the module: what its functions use."""
    lines = ["import math", ""] if "math" in used else []
    lines.append("from numba import cuda")
    types = sorted(used & TYPES)
    if types:
        lines.append(f"from numpy import {', '.join(types)}")
    functions = sorted(used - set(types) - {"math"})
    if functions:
        lines += ["", f"from graphwright.compiler.cuda.functions import {', '.join(functions)}"]
    return "\n".join(lines) + "\n"


class _Emitter:
    """Writes one launch."""

    def __init__(self, kernel: Kernel, loop: For, name: str) -> None:
        self.kernel, self.loop, self.name = kernel, loop, name
        self.writer = Writer(kernel.name)
        self.lines: list[str] = []
        self.depth = 1
        self.threads = max([int(t.extent) for t in _thread_loops(loop.body)], default=1)  # type: ignore[arg-type]
        self.exchange = "clean"  # of the block's memory: "dirty" after writes, "read" after reads
        inside = tuple(statements((loop,)))
        touched = {b.name for s in inside for b in _buffers(s)}
        parameters = (*kernel.inputs, *kernel.outputs, *workspace_buffers(kernel))
        self.buffers = tuple(b for b in parameters if b.name in touched)
        wanted = set().union(*map(_symbols, inside), *(symbols_of(d) for b in self.buffers for d in b.shape))
        self.symbols = tuple(s for s in kernel.symbols if s in wanted)

    @property
    def launch(self) -> Launch:
        return Launch(self.name, self.buffers, self.symbols, self.loop.extent, self.threads)

    def text(self) -> str:
        writer, loop = self.writer, self.loop
        parameters = [writer.parameter(b) for b in self.buffers] + [writer.variable(s) for s in self.symbols]
        thread = next(iter(_thread_loops(loop.body)), None)
        self.line(f"{writer.variable(loop.var)} = cuda.blockIdx.x  # of {loop.extent}")
        if thread is not None:
            self.line(f"{writer.variable(thread.var)} = cuda.threadIdx.x  # of {self.threads}")
        self.block_body(loop.body, {*self.symbols, loop.var})
        head = f"@cuda.jit\ndef {self.name}({', '.join(parameters)}):"
        return "\n".join([head, *self.lines]) + "\n"

    def line(self, text: str) -> None:
        self.lines.append("    " * self.depth + text)

    # --- what all threads of the block do together ---

    def block_body(self, body: Sequence[Stmt], bound: set[str]) -> None:
        self.hoist(body, bound)
        for s in body:
            if isinstance(s, For) and s.kind == "thread":
                self.barrier(before_writes=True)
                self.thread_loop(s, bound)
                self.exchange = "dirty"
            elif isinstance(s, For) and any(True for _ in _thread_loops((s,))):
                self.exchange = "dirty"  # also of the iteration before
                self.open(f"for {self.writer.variable(s.var)} in range({self.writer.dim(s.extent)}):")
                self.block_body(s.body, bound | {s.var})
                self.close()
            else:
                if not isinstance(s, Alloc):
                    self.barrier(before_writes=False)
                    self.exchange = "read"
                self.statement(s, bound)

    def barrier(self, before_writes: bool) -> None:
        """Wait for all threads if they may not yet have written, or read, what is touched next."""
        if self.exchange == "dirty" or before_writes and self.exchange == "read":
            self.line("cuda.syncthreads()")

    def thread_loop(self, s: For, bound: set[str]) -> None:
        if s.extent != self.threads:
            self.open(f"if {self.writer.variable(s.var)} < {self.writer.dim(s.extent)}:")
        self.body(s.body, bound | {s.var})
        if s.extent != self.threads:
            self.close()

    # --- what one thread does ---

    def open(self, head: str) -> None:
        self.line(head)
        self.depth += 1
        self.writer.enter()

    def close(self) -> None:
        if self.lines[-1].endswith(":"):
            self.line("pass")
        self.writer.leave()
        self.depth -= 1

    def hoist(self, body: Sequence[Stmt], bound: set[str]) -> None:
        """Name the divisions of indices that are known here, so that none is done twice."""
        for s in statements(tuple(body)):
            for dim in _dims(s):
                for line in self.writer.name_divisions(dim, bound):
                    self.line(line)

    def body(self, body: Sequence[Stmt], bound: set[str]) -> None:
        self.hoist(body, bound)
        k = 0
        while k < len(body):
            run = _store_run(body[k:])
            if len(run) > 1:
                self.stores(run)
            else:
                self.statement(body[k], bound)
            k += max(len(run), 1)

    def statement(self, s: Stmt, bound: set[str]) -> None:
        writer = self.writer
        if isinstance(s, Store):
            self.stores([s])
        elif isinstance(s, Let):
            (value,) = self.values([s.value])
            self.line(f"{writer.variable(s.name)} = {value}")
        elif isinstance(s, Alloc):
            self.alloc(s)
        elif isinstance(s, For):
            self.open(f"for {writer.variable(s.var)} in range({writer.dim(s.extent)}):")
            self.body(s.body, bound | {s.var})
            self.close()
        elif isinstance(s, If):
            self.branch(s, bound)
        elif isinstance(s, Foreign):
            raise CompileError(f"kernel {self.kernel.name}: {s.op} has no CUDA code")

    def values(self, roots: Sequence[Expr]) -> list[str]:
        """The texts of expressions, after lines that compute what they share."""
        lines, texts = self.writer.values(roots)
        for line in lines:
            self.line(line)
        return texts

    def stores(self, run: Sequence[Store]) -> None:
        """Stores that stand together: all values are read before any is written (see `Kernel.inplace`)."""
        updated = [self.writer.combined(s) for s in run]
        texts = self.values([*updated, *(i for s in run for i in s.indices if not isinstance(i, Index))])
        if len(run) > 1:
            for k in range(len(run)):
                if not texts[k].isidentifier():
                    name = self.writer.fresh("value")
                    self.line(f"{name} = {texts[k]}")
                    texts[k] = name
        for s, text in zip(run, texts):
            self.line(f"{self.writer.element(s.buffer, s.indices)} = {text}")

    def alloc(self, s: Alloc) -> None:
        writer = self.writer
        if s.space == "workspace":
            return
        size = 1
        for d in s.buffer.shape:
            if not isinstance(d, int):
                raise CompileError(f"kernel {self.kernel.name}: %{s.buffer.name} needs a constant size")
            size *= d
        if s.space != "shared" and not s.buffer.shape:
            writer.scalar(s.buffer)
            return
        space = "shared" if s.space == "shared" else "local"
        dtype = dtype_name(s.buffer.dtype)
        writer.used.add(dtype)
        self.line(f"{writer.parameter(s.buffer)} = cuda.{space}.array({max(size, 1)}, {dtype})")

    def branch(self, s: If, bound: set[str]) -> None:
        (condition,) = self.values([s.condition])
        self.open(f"if {condition}:")
        self.body(s.then, bound)
        self.close()
        if s.otherwise:
            self.open("else:")
            self.body(s.otherwise, bound)
            self.close()


def _thread_loops(body: Sequence[Stmt]) -> Iterable[For]:
    return (s for s in statements(tuple(body)) if isinstance(s, For) and s.kind == "thread")


def _store_run(body: Sequence[Stmt]) -> list[Store]:
    """The stores that a body begins with, as long as none reads what another writes."""
    run: list[Store] = []
    written: set[str] = set()
    for s in body:
        if not isinstance(s, Store) or s.combiner is not None:
            break
        if {e.buffer.name for r in (s.value, *s.indices) for e in walk(r) if isinstance(e, Load)} & written:
            break
        run.append(s)
        written.add(s.buffer.name)
    return run


def _roots(s: Stmt) -> tuple[Expr, ...]:
    if isinstance(s, Store):
        return (*s.indices, s.value)
    if isinstance(s, Let):
        return (s.value,)
    return (s.condition,) if isinstance(s, If) else ()


def _buffers(s: Stmt) -> list[Buffer]:
    found = [e.buffer for r in _roots(s) for e in walk(r) if isinstance(e, Load)]
    return [*found, s.buffer] if isinstance(s, Store) else found


def _dims(s: Stmt) -> list[Dim]:
    """The index arithmetic of a statement: positions in memory, and indices that are values."""
    if isinstance(s, For):
        return [s.extent]
    found: list[Dim] = []
    in_positions: set[int] = set()
    accesses: list[Load | Store] = [e for r in _roots(s) for e in walk(r) if isinstance(e, Load)]
    for access in (*accesses, s) if isinstance(s, Store) else accesses:
        flat = position(access.buffer, access.indices)
        if flat is not None:
            found.append(flat)
            in_positions |= set(map(id, access.indices))
    values = (e for r in _roots(s) for e in walk(r) if isinstance(e, Index) and id(e) not in in_positions)
    return [*found, *(e.dim for e in values)]


def _symbols(s: Stmt) -> set[str]:
    found = set().union(*map(free_symbols, _roots(s))) if _roots(s) else set()
    return found | symbols_of(s.extent) if isinstance(s, For) else found
