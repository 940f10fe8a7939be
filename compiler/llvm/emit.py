"""A scheduled kernel as LLVM functions: statements, vector and parallel loops."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import CompileError
from ...ir.dims import Dim, Op, Poly, product
from ...ir.dtypes import DType, bool_, int64
from ...ir.loops import (
    Alloc,
    Buffer,
    Expr,
    For,
    Foreign,
    If,
    Kernel,
    Let,
    Load,
    Prefetch,
    Scalar,
    Stmt,
    Store,
    Temp,
    statements,
    walk,
)  # fmt: skip
from ...passes.schedule_cpu import accesses
from .cost import PARALLEL_GRAIN, effort, length
from .expressions import Expressions, Memory, mangled
from .foreign import foreign_symbol
from .function import ModuleText
from .instructions import Val, emit_scalar, splat, storage_type
from .transpose import is_transposition, transpose

__all__ = ["emit_kernel", "parameters"]

NEAR = 2
"""Where prefetched data go: the second level of cache, since what a tile sums up is in the first."""

UNROLL_VECTORS = 8
"""A vector loop of at most so many vectors, of known extent, is emitted without a loop."""

UNROLL_OPERATIONS = 512
"""The same with more operations than this is a loop, unless they are on registers, which have no index.

Two vectors always stand side by side, so that their chains of dependent operations overlap.
"""


class _Emitter(Expressions):
    """Emits the statements of one function; parallel bodies become functions of their own."""

    def body(self, stmts: Sequence[Stmt]) -> None:
        for s in stmts:
            if isinstance(s, Store):
                self.store(s)
            elif isinstance(s, For):
                self.loop(s)
            elif isinstance(s, Let):
                self.temps[s.name] = self.expr(s.value, {})
            elif isinstance(s, Alloc):
                self.alloc(s)
            elif isinstance(s, Foreign):
                self.foreign(s)
            elif isinstance(s, Prefetch):
                self.prefetch(s)
            else:
                self.branch(s)

    def store(self, s: Store) -> None:
        f = self.f
        memo: dict[Expr, Val] = {}
        pointer, contiguous = self.address(s.buffer, s.indices, memo)
        value = self._combined(s, pointer, contiguous, memo)
        lanes = self.lanes if contiguous else pointer.lanes
        if value.lanes > lanes and self.mask is None:
            raise CompileError(f"kernel {self.kernel.name}: lanes collide in a store to %{s.buffer.name}")
        value = splat(f, value, lanes)
        if value.dtype.is_bool:
            value = Val(f.assign(f"zext {value} to {self._storage_vector(bool_, lanes)}"), bool_, lanes)
        text = f"{self._storage_vector(s.buffer.dtype, lanes)} {value.text}"
        own = self.memory[s.buffer.name].lanes > 1
        mask = self._both(self.mask, self.edge if lanes > 1 and not own else None)
        if mask is not None and contiguous and self._private(s):
            self._blend(s.buffer, value, pointer, splat(f, mask, lanes))
        elif mask is not None and (mask.lanes > 1 or pointer.lanes > 1):
            self._masked_store(s.buffer, text, pointer, contiguous, splat(f, mask, lanes))
        elif pointer.lanes > 1:
            self._masked_store(s.buffer, text, pointer, False, splat(f, Val("true", bool_), lanes))
        else:
            size = 1 if s.buffer.dtype.is_bool else s.buffer.dtype.itemsize
            f.emit(f"store {text}, {pointer.text}, align {size}{self._alias(s.buffer)}")

    def prefetch(self, s: Prefetch) -> None:
        pointer, _ = self.address(s.buffer, s.indices, {})
        self.f.module.declare("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        self.f.emit(f"call void @llvm.prefetch.p0({pointer.text}, i32 0, i32 {NEAR}, i32 1)")  # to read; data

    def _combined(self, s: Store, pointer: Val, contiguous: bool, memo: dict[Expr, Val]) -> Val:
        if s.combiner is None:
            return self.expr(s.value, memo)
        old = self.load(Load(s.buffer, s.indices), memo)
        v = s.value
        if s.combiner == "add" and isinstance(v, Scalar) and v.op == "mul" and v.dtype.is_float:
            return emit_scalar(self.f, "fma", [*(self.expr(a, memo) for a in v.args), old], v.dtype)
        op = {"and": "bitand", "or": "bitor"}.get(s.combiner, s.combiner)
        return emit_scalar(self.f, op, [old, self.expr(v, memo)], s.buffer.dtype)

    def _blend(self, buffer: Buffer, value: Val, pointer: Val, mask: Val) -> None:
        """Store some lanes to private memory as a whole vector, which LLVM can keep in a register."""
        kind = self._storage_vector(buffer.dtype, mask.lanes)
        old = self._plain_load(buffer, pointer, mask.lanes)
        new = self.f.assign(f"select {mask}, {kind} {value.text}, {kind} {old}")
        self.f.emit(f"store {kind} {new}, {pointer.text}, align {1 if buffer.dtype.is_bool else buffer.dtype.itemsize}")

    def _masked_store(self, buffer: Buffer, text: str, pointer: Val, contiguous: bool, mask: Val) -> None:
        f, n = self.f, mask.lanes
        kind = self._storage_vector(buffer.dtype, n)
        suffix = f"v{n}{mangled(buffer.dtype)}"
        size = buffer.dtype.itemsize
        if contiguous:
            f.module.declare(f"declare void @llvm.masked.store.{suffix}.p0({kind}, ptr, i32, <{n} x i1>)")
            f.emit(f"call void @llvm.masked.store.{suffix}.p0({text}, {pointer.text}, i32 {size}, {mask})")
        else:
            f.module.declare(f"declare void @llvm.masked.scatter.{suffix}.v{n}p0({kind}, <{n} x ptr>, i32, <{n} x i1>)")
            f.emit(
                f"call void @llvm.masked.scatter.{suffix}.v{n}p0({text}, {self._pointers(pointer, n)}, "
                f"i32 {size}, {mask})"
            )

    def alloc(self, s: Alloc) -> None:
        if s.space == "workspace":
            return  # a parameter
        size = product(s.buffer.shape)
        if not isinstance(size, int):
            raise CompileError(f"kernel {self.kernel.name}: %{s.buffer.name} needs a constant size")
        register = s.space == "register"
        lanes = self.lanes if register else 1
        pointer = self.f.alloca(max(size, 1) * lanes, storage_type(s.buffer.dtype))
        self.memory[s.buffer.name] = Memory(pointer, lanes, size if register else 0)

    def foreign(self, s: Foreign) -> None:
        """Call a custom op's kernel (`foreign.foreign_symbol`)."""
        f, buffers = self.f, (*s.outputs, *s.inputs)
        dims = [d for b in buffers for d in b.shape]
        sizes = f.alloca(max(len(dims), 1), "i64")
        for k, d in enumerate(dims):
            slot = f.assign(f"getelementptr inbounds i64, ptr {sizes}, i64 {k}")
            f.emit(f"store {f.dim(d)}, ptr {slot}, align 8")
        unused = [f.alloca(1, "ptr"), f.alloca(1, "ptr")]
        pointers = [*unused, *(self.memory[b.name].pointer for b in buffers), sizes]
        name = foreign_symbol(s)
        f.module.declare(f"declare i32 @{name}({', '.join(['ptr'] * len(pointers))})")
        f.emit(f"call i32 @{name}({', '.join(f'ptr {p}' for p in pointers)})")

    def branch(self, s: If) -> None:
        condition = self.expr(s.condition, {})
        if condition.lanes == 1:
            with self.f.when(condition.text):
                self.body(s.then)
            if s.otherwise:
                negated = emit_scalar(self.f, "bitnot", [condition], bool_)
                with self.f.when(negated.text):
                    self.body(s.otherwise)
            return
        outer = self.mask
        for taken, stmts in ((True, s.then), (False, s.otherwise)):
            if stmts:
                mask = condition if taken else emit_scalar(self.f, "bitnot", [condition], bool_)
                self.mask = emit_scalar(self.f, "bitand", [outer, mask], bool_) if outer else mask
                self.body(stmts)
        self.mask = outer

    # --- loops ---

    def loop(self, s: For) -> None:
        kind = s.kind
        if kind == "vector" and s.lanes > 1 and self.f.vector is None:
            if is_transposition(s) and self.mask is None:
                self.transposition(s)
            else:
                self.vector_loop(s)
        elif kind == "unroll":
            assert isinstance(s.extent, int), "an unrolled loop has a constant extent"
            for k in range(s.extent):
                with self.f.scope(s.var):
                    self.f.vars[s.var] = k
                    self.body(s.body)
        elif kind == "parallel" and not self.f.vector and self.mask is None:
            self.parallel_loop(s)
        else:
            self.serial(s, "0", self.f.dim(s.extent).text)

    def serial(self, s: For, begin: str, end: str) -> None:
        with self.f.loop(s.var, begin, end):
            self.body(s.body)

    def vector_loop(self, s: For) -> None:
        f, lanes = self.f, s.lanes
        if isinstance(s.extent, int) and s.extent < UNROLL_VECTORS * lanes + lanes and not self._is_long(s):
            for k in range(0, s.extent // lanes * lanes, lanes):
                self._vector_body(s, k, lanes)
            self._rest(s, s.extent // lanes * lanes, s.extent)
            return
        if _remainder(s.extent, lanes) and self._maskable(s):
            self._masked(s, 0)
            return
        main = f.dim(s.extent - s.extent % lanes) if isinstance(s.extent, int) else self._multiple(s.extent, lanes)
        with f.loop(s.var, "0", main.text, lanes):
            f.vector = (s.var, lanes)
            self.body(s.body)
            f.vector = None
        if isinstance(s.extent, int):
            self._rest(s, s.extent // lanes * lanes, s.extent)
        elif not self._maskable(s):
            self.serial(s, main.text, f.dim(s.extent).text)
        else:
            self._masked(s, main)

    def _is_long(self, s: For) -> bool:
        """Whether a vector loop is too much text to stand there for each vector."""
        assert isinstance(s.extent, int)
        vectors = s.extent // s.lanes
        on_registers = any(a.buffer.name in self.memory and self.memory[a.buffer.name].size for a in accesses(s))
        return vectors > 2 and not on_registers and vectors * length(s.body) > UNROLL_OPERATIONS

    def _masked(self, s: For, start: int | Val) -> None:
        """The iterations from `start`, fewer than a vector, if there are any."""
        f, end = self.f, self.f.dim(s.extent)
        some = f.assign(f"icmp slt i64 {start if isinstance(start, int) else start.text}, {end.text}")
        with f.when(some):
            self._vector_body(s, start, s.lanes, end)

    def _rest(self, s: For, start: int, end: int) -> None:
        """The last iterations, fewer than a vector: in one under a mask if they can, else in ever shorter ones."""
        while start < end:
            count = end - start
            whole = 1 << (count - 1).bit_length()
            if whole != count and not self._maskable(s):
                whole = 1 << (count.bit_length() - 1)
            if whole == 1:
                with self.f.scope(s.var):
                    self.f.vars[s.var] = start
                    self.body(s.body)
            else:
                self._vector_body(s, start, whole, Val(str(end), int64) if whole > count else None)
            start += whole

    def _maskable(self, s: For) -> bool:
        """Whether the target can mask all that a loop loads and stores in vectors."""
        least = self.f.module.model.masked_bytes
        return least > 0 and all(a.buffer.dtype.itemsize >= least for a in accesses(s))

    def transposition(self, s: For) -> None:
        """A block whose values are computed along the vector loop, and stored along the loop inside it."""
        f, n, inner = self.f, s.lanes, s.body[0]
        assert isinstance(inner, For) and isinstance(inner.body[0], Store)
        store, rows = inner.body[0], []
        kind = self._storage_vector(store.buffer.dtype, n)
        for k in range(n):
            with f.scope():
                f.vars.update({s.var: 0, inner.var: k})
                f.vector = (s.var, n)
                rows.append(splat(f, self.expr(store.value, {}), n).text)
        for k, row in enumerate(transpose(f, kind, rows)):
            with f.scope():
                f.vars.update({s.var: k, inner.var: 0})
                f.vector = (inner.var, n)
                pointer, _ = self.address(store.buffer, store.indices, {})
                size = store.buffer.dtype.itemsize
                f.emit(f"store {kind} {row}, {pointer.text}, align {size}{self._alias(store.buffer)}")
        f.vector = None

    def _multiple(self, extent: Dim, lanes: int) -> Val:
        return Val(self.f.assign(f"and {self.f.dim(extent)}, {-lanes}"), int64)

    def _vector_body(self, s: For, start: int | Val, lanes: int, end: Val | None = None) -> None:
        """One vector of iterations from `start`, those before `end`."""
        f = self.f
        with f.scope(s.var):
            f.vars[s.var] = start
            f.vector = (s.var, lanes)
            if end is not None:
                positions = f.symbol(s.var, lanes)
                self.edge = Val(f.assign(f"icmp slt {positions}, {splat(f, end, lanes).text}"), bool_, lanes)
            self.body(s.body)
            f.vector = self.edge = None

    def parallel_loop(self, s: For) -> None:
        """Outline the body as ``void body(ptr captured, i64 begin, i64 end)`` and hand it to the threads."""
        f = self.f
        name = f.module.numbered(f"{self.kernel.name}.body")
        captured = self._captured(s)
        inner = _Emitter(self.kernel, f.module, self.scopes)
        inner._unpack(captured)
        with inner.f.loop(s.var, "%begin", "%end"):
            inner.body(s.body)
        inner.f.emit("ret void")
        header = f"define internal void @{name}(ptr %captured, i64 %begin, i64 %end) #0"
        f.module.functions.append(inner.f.text(header))
        record = f.alloca(len(captured), "i64")
        for k, (_, value) in enumerate(captured):
            slot = f.assign(f"getelementptr inbounds i64, ptr {record}, i64 {k}")
            f.emit(f"store {value}, ptr {slot}, align 8")
        extent = f.dim(s.extent)
        small = f.assign(f"icmp slt {f.dim(effort(s, f.module.model))}, {PARALLEL_GRAIN}")
        context = f.assign(f"select i1 {small}, ptr null, ptr %context")
        f.emit(f"call void @gw_parallel(ptr {context}, ptr @{name}, ptr {record}, {extent})")

    def _captured(self, s: For) -> list[tuple[str, str]]:
        """What the body needs: (what it is, typed value)."""
        found = [(f"memory {n}", f"ptr {m.pointer}") for n, m in self.memory.items() if m.lanes == 1]
        for name, value in self.f.vars.items():
            typed = f"i64 {value}" if isinstance(value, int) else str(value)
            found.append((f"var {name}", typed))
        used = {e.name for st in statements((s,)) for e in _temps(st)}
        found += [(f"temp {n}", str(self.temps[n])) for n in sorted(used) if n in self.temps]
        return found

    def _unpack(self, captured: list[tuple[str, str]]) -> None:
        f = self.f
        for k, (what, typed) in enumerate(captured):
            kind, name = what.split(" ", 1)
            slot = f.assign(f"getelementptr inbounds i64, ptr %captured, i64 {k}")
            value = f.assign(f"load {typed.split()[0]}, ptr {slot}, align 8")
            if kind == "memory":
                self.memory[name] = Memory(value)
            elif kind == "var":
                f.vars[name] = Val(value, int64)
            else:
                self.temps[name] = Val(value, _dtype_of_temp(self.kernel, name))


def _remainder(extent: Dim, lanes: int) -> bool:
    """Whether an extent is what another leaves of whole vectors."""
    if not isinstance(extent, Poly) or len(extent.terms) != 1:
        return False
    (monomial, c), = extent.terms
    atom, power = monomial[0]
    by = atom.args[1] if len(monomial) == 1 and power == c == 1 and isinstance(atom, Op) and atom.kind == "%" else None
    return isinstance(by, int) and 0 < by <= lanes


def _temps(s: Stmt) -> list[Temp]:
    roots: list[Expr] = []
    if isinstance(s, (Let, Store)):
        roots = [s.value, *(s.indices if isinstance(s, Store) else ())]
    elif isinstance(s, If):
        roots = [s.condition]
    return [e for r in roots for e in walk(r) if isinstance(e, Temp)]


def _dtype_of_temp(kernel: Kernel, name: str) -> DType:
    for s in statements(kernel.body):
        if isinstance(s, Let) and s.name == name:
            return s.value.dtype
    raise CompileError(f"kernel {kernel.name}: %{name} is not bound")


def workspaces(kernel: Kernel) -> list[Buffer]:
    """Buffers that the kernel wants in the arena while it runs."""
    return [s.buffer for s in kernel.body if isinstance(s, Alloc) and s.space == "workspace"]


def emit_kernel(kernel: Kernel, module: ModuleText) -> None:
    """Add a kernel's functions to a module.

    The entry is ``void @name(ptr context, ptr inputs..., ptr outputs..., ptr workspaces..., i64 symbols...)``.
    """
    emitter = _Emitter(kernel, module, _alias_scopes(kernel, module))
    buffers = [*kernel.inputs, *kernel.outputs, *workspaces(kernel)]
    for k, b in enumerate(buffers):
        emitter.memory[b.name] = Memory(f"%p{k}")
    for name in kernel.symbols:
        emitter.f.vars[name] = Val(f"%dim.{name}", int64)
    emitter.body(kernel.body)
    emitter.f.emit("ret void")
    # not inlined: then a kernel has addresses of its own, for profilers and the record of provenance
    head = f"define internal void @{kernel.name}({parameters(kernel)}) noinline #0"
    module.functions.append(emitter.f.text(head))


def parameters(kernel: Kernel) -> str:
    """The parameters of a kernel's entry, as LLVM text."""
    count = len(kernel.inputs) + len(kernel.outputs) + len(workspaces(kernel))
    pointers = ["ptr %context", *(f"ptr %p{k}" for k in range(count))]
    return ", ".join([*pointers, *(f"i64 %dim.{name}" for name in kernel.symbols)])


def _alias_scopes(kernel: Kernel, module: ModuleText) -> dict[str, str]:
    """Metadata that tells LLVM which buffers do not overlap: all, but for in-place pairs."""
    same = {kernel.outputs[o].name: kernel.inputs[i].name for o, i in kernel.inplace}
    names = [b.name for b in (*kernel.inputs, *kernel.outputs, *workspaces(kernel)) if b.name not in same]
    if len(names) < 2:
        return {}
    domain = module.metadata("@", distinct=True)
    scope = {n: module.metadata(f"@, {domain}", distinct=True) for n in names}
    found = {}
    for n in names:
        others = ", ".join(scope[m] for m in names if m != n)
        found[n] = f", !alias.scope {module.metadata(scope[n])}, !noalias {module.metadata(others)}"
    return {**found, **{output: found[source] for output, source in same.items()}}
