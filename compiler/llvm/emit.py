"""A scheduled kernel as LLVM functions: statements, memory accesses, vector and parallel loops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import CompileError
from ...ir.dims import Dim, Op, Poly, coefficient, product, substitute
from ...ir.dtypes import DType, bool_, int64
from ...ir.loops import (
    Alloc,
    Buffer,
    Const,
    Expr,
    For,
    Foreign,
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
    flat_index,
    statements,
    walk,
)  # fmt: skip
from ...passes.schedule_cpu import accesses
from .cost import PARALLEL_GRAIN, effort
from .foreign import foreign_symbol
from .function import FunctionText, ModuleText
from .instructions import Val, emit_scalar, literal, splat, storage_type
from .strided import STRIDES, repeated, repetition, spread, strided_load
from .transpose import is_transposition, transpose

__all__ = ["emit_kernel", "parameters"]

NEAR = 2
"""Where prefetched data go: the second level of cache, since what a tile sums up is in the first."""

UNROLL_VECTORS = 8
"""A vector loop of at most so many vectors, of known extent, is emitted without a loop."""


@dataclass
class Memory:
    """Where a buffer lives: a pointer, and the lanes each element is widened to (registers)."""

    pointer: str
    lanes: int = 1
    size: int = 0
    """Elements of memory that nobody else sees, in registers; else 0."""


class _Emitter:
    """Emits the statements of one function; parallel bodies become functions of their own."""

    def __init__(self, kernel: Kernel, module: ModuleText, scopes: dict[str, str]) -> None:
        self.kernel = kernel
        self.f = FunctionText(module)
        self.memory: dict[str, Memory] = {}
        self.temps: dict[str, Val] = {}
        self.mask: Val | None = None
        self.edge: Val | None = None  # lanes that are iterations, in what is left of a vector loop: at least one
        self.scopes = scopes  # buffer name -> alias metadata of its loads and stores

    # --- expressions ---

    @property
    def lanes(self) -> int:
        return self.f.vector[1] if self.f.vector else 1

    def expr(self, e: Expr, memo: dict[Expr, Val]) -> Val:
        """Emit an expression, operands first: fused chains are too deep for recursion."""
        if e not in memo:
            for part in walk(e):
                if part is e or (isinstance(part, (Scalar, Load)) and part not in memo):
                    memo[part] = self._expr(part, memo)
        return memo[e]

    def _expr(self, e: Expr, memo: dict[Expr, Val]) -> Val:
        if isinstance(e, Const):
            return Val(literal(e.value, e.dtype), e.dtype)
        if isinstance(e, Index):
            return self.f.dim(e.dim, self.lanes)
        if isinstance(e, Temp):
            return self.temps[e.name]
        if isinstance(e, Load):
            return self.load(e, memo)
        if isinstance(e, Scalar):
            return emit_scalar(self.f, e.op, [self.expr(a, memo) for a in e.args], e.dtype)
        raise CompileError(f"kernel {self.kernel.name}: {type(e).__name__} in a scheduled kernel")

    # --- memory ---

    def address(self, buffer: Buffer, indices: Sequence[Expr], memo: dict[Expr, Val]) -> tuple[Val, bool]:
        """The element's pointer (or a vector of them), and whether lanes are contiguous from it."""
        memory = self.memory[buffer.name]
        element = storage_type(buffer.dtype)
        flat = len(indices) == 1
        strides: list[Dim] = [1] if flat else [product(buffer.shape[k + 1 :]) for k in range(len(buffer.shape))]
        if all(isinstance(i, Index) for i in indices):
            offset: Dim = 0
            for i, s in zip(indices, strides, strict=True):
                offset = offset + i.dim * s  # type: ignore[attr-defined]
            return self._affine_address(memory, element, offset)
        total = Val("0", int64)
        for i, s in zip(indices, strides, strict=True):
            term = emit_scalar(self.f, "mul", [self.expr(i, memo), self.f.dim(s)], int64)
            total = emit_scalar(self.f, "add", [total, term], int64)
        return self._pointer(memory.pointer, element, total), False

    def _pointer(self, base: str, element: str, offset: Val) -> Val:
        kind = "ptr" if offset.lanes == 1 else f"<{offset.lanes} x ptr>"
        text = self.f.assign(f"getelementptr inbounds {element}, ptr {base}, {offset}")
        return Val(f"{kind} {text}", int64, offset.lanes)

    def _affine_address(self, memory: Memory, element: str, offset: Dim) -> tuple[Val, bool]:
        f = self.f
        var, lanes = f.vector or ("", 1)
        unrolled: dict[str, Dim] = {v: x for v, x in f.vars.items() if isinstance(x, int) and v != var}
        offset = substitute(offset, unrolled)
        stride = coefficient(offset, var) if lanes > 1 else 0
        if stride not in (0, 1):
            return self._pointer(memory.pointer, element, f.dim(offset, lanes)), False
        base = f.vars[var] if lanes > 1 else None
        if isinstance(base, int):  # the loop is unrolled: lanes count from a known start
            offset = substitute(offset, {var: base})
        if memory.lanes > 1:
            offset, stride = offset * memory.lanes, 1
        constant = dict(offset.terms).get((), 0) if isinstance(offset, Poly) else offset
        pointer = memory.pointer
        if isinstance(offset, Poly):
            pointer = f.assign(f"getelementptr inbounds {element}, ptr {pointer}, {f.dim(offset - constant)}")
        if constant:
            pointer = f.assign(f"getelementptr inbounds {element}, ptr {pointer}, i64 {constant}")
        return Val(f"ptr {pointer}", int64), stride == 1

    def _both(self, a: Val | None, b: Val | None) -> Val | None:
        return a or b if a is None or b is None else emit_scalar(self.f, "bitand", [a, b], bool_)

    def _private(self, access: Load | Store) -> bool:
        """Whether all lanes of an access are memory that nobody else sees, so that no mask is needed."""
        memory, position = self.memory[access.buffer.name], flat_index(access)
        if memory.lanes > 1 or position is None:
            return memory.lanes > 1
        known: dict[str, Dim] = {v: x for v, x in self.f.vars.items() if isinstance(x, int)}
        first = substitute(position, known)
        return isinstance(first, int) and first + self.lanes <= memory.size

    def load(self, e: Load, memo: dict[Expr, Val]) -> Val:
        guard = self._both(self.expr(e.guard, memo) if e.guard is not None else None, self.mask)
        guard = self._both(guard, self.edge) if guard is not None else None
        if guard is not None and guard.lanes == 1:
            return self._guarded_load(e, guard, memo)
        stride, shown = self._stride(e), self._both(guard, self.edge)
        if isinstance(stride, int) and stride in STRIDES and (shown is None or stride > 1 and self._masks(e)):
            return self._from_storage(self._strided_load(e, stride, shown), e.dtype, self.lanes)
        times = self._repetition(e) if guard is None and self.edge is None and stride == 0 else 0
        if times > 1:
            return self._from_storage(self._repeated_load(e, times), e.dtype, self.lanes)
        pointer, contiguous = self.address(e.buffer, e.indices, memo)
        lanes = self.lanes if contiguous else pointer.lanes
        if guard is None and lanes > 1 and not self._private(e):
            guard = self.edge
        if guard is not None:
            lanes = guard.lanes
            return self._from_storage(self._masked_load(e.buffer, pointer, contiguous, guard), e.dtype, lanes)
        if pointer.lanes > 1:
            true = splat(self.f, Val("true", bool_), lanes)
            return self._from_storage(self._masked_load(e.buffer, pointer, False, true), e.dtype, lanes)
        return self._from_storage(self._plain_load(e.buffer, pointer, lanes), e.dtype, lanes)

    def _stride(self, e: Load) -> Dim:
        """How many elements lie between lanes, if the same number everywhere; else 0."""
        position = flat_index(e)
        if position is None or self.lanes == 1 or self.memory[e.buffer.name].lanes > 1:
            return 0
        return coefficient(position, self.f.vector[0] if self.f.vector else "") or 0

    def _repetition(self, e: Load) -> int:
        """How many adjacent lanes read the same element, if groups of them begin where a vector does."""
        position = flat_index(e)
        if position is None or self.f.vector is None or self.memory[e.buffer.name].lanes > 1:
            return 0
        var, lanes = self.f.vector
        start = self.f.vars[var]
        unrolled: dict[str, Dim] = {v: x for v, x in self.f.vars.items() if isinstance(x, int) and v != var}
        times = repetition(substitute(position, unrolled), var)
        whole = times > 1 and lanes % times == 0 and (not isinstance(start, int) or start % times == 0)
        return times if whole else 0

    def _repeated_load(self, e: Load, times: int) -> str:
        count = self.lanes // times
        raw = self._plain_load(e.buffer, Val(f"ptr {self._first(e)}", int64), count)
        if count == 1:
            return splat(self.f, Val(raw, e.dtype), times).text
        return repeated(self.f, self._storage_vector(e.buffer.dtype, count), raw, count, times)

    def _first(self, e: Load) -> str:
        """The address that the first lane reads."""
        f, position = self.f, flat_index(e)
        assert position is not None
        unrolled: dict[str, Dim] = {v: x for v, x in f.vars.items() if isinstance(x, int)}
        first = f.dim(substitute(position, unrolled))
        element = storage_type(e.buffer.dtype)
        return f.assign(f"getelementptr inbounds {element}, ptr {self.memory[e.buffer.name].pointer}, {first}")

    def _masks(self, e: Load) -> bool:
        """Whether the target can load a vector of such elements under a mask."""
        return 0 < self.f.module.model.masked_bytes <= e.buffer.dtype.itemsize

    def _strided_load(self, e: Load, stride: int, mask: Val | None) -> str:
        f, element, base = self.f, storage_type(e.buffer.dtype), self._first(e)

        def load(offset: int) -> str:
            # under a mask, an address may be outside of the buffer
            inside = "" if mask is not None else " inbounds"
            at = Val(f"ptr {f.assign(f'getelementptr{inside} {element}, ptr {base}, i64 {offset}')}", int64)
            if mask is None:
                return self._plain_load(e.buffer, at, self.lanes)
            return self._masked_load(e.buffer, at, True, spread(f, mask, stride, offset))

        return strided_load(f, self._storage_vector(e.buffer.dtype, self.lanes), self.lanes, stride, load)

    def _storage_vector(self, dtype: DType, lanes: int) -> str:
        return storage_type(dtype) if lanes == 1 else f"<{lanes} x {storage_type(dtype)}>"

    def _plain_load(self, buffer: Buffer, pointer: Val, lanes: int) -> str:
        kind = self._storage_vector(buffer.dtype, lanes)
        size = 1 if buffer.dtype.is_bool else buffer.dtype.itemsize
        return self.f.assign(f"load {kind}, {pointer.text}, align {size}{self._alias(buffer)}")

    def _masked_load(self, buffer: Buffer, pointer: Val, contiguous: bool, mask: Val) -> str:
        f, n = self.f, mask.lanes
        kind = self._storage_vector(buffer.dtype, n)
        suffix = f"v{n}{_mangled(buffer.dtype)}"
        if contiguous:
            f.module.declare(f"declare {kind} @llvm.masked.load.{suffix}.p0(ptr, i32, <{n} x i1>, {kind})")
            loaded = f.assign(
                f"call {kind} @llvm.masked.load.{suffix}.p0({pointer.text}, i32 {buffer.dtype.itemsize}, "
                f"{mask}, {kind} zeroinitializer)"
            )
            return self._apart(loaded, kind) if f.module.model.folds_masked(n * buffer.dtype.itemsize) else loaded
        vector = self._pointers(pointer, n)
        f.module.declare(f"declare {kind} @llvm.masked.gather.{suffix}.v{n}p0(<{n} x ptr>, i32, <{n} x i1>, {kind})")
        return f.assign(
            f"call {kind} @llvm.masked.gather.{suffix}.v{n}p0({vector}, i32 {buffer.dtype.itemsize}, "
            f"{mask}, {kind} zeroinitializer)"
        )

    def _apart(self, loaded: str, kind: str) -> str:
        """A loaded vector in a register of its own.

        LLVM 22 makes a masked load, and an operation on it under the same mask, one instruction for x86, and where it
        takes these apart again (to reuse the register of another operand), it loads without the mask: also what
        lies outside of the buffer.
        """
        return self.f.assign(f'call {kind} asm "", "=v,0"({kind} {loaded})')

    def _pointers(self, pointer: Val, lanes: int) -> str:
        if pointer.lanes == lanes:
            return pointer.text
        f = self.f
        one = f.assign(f"insertelement <{lanes} x ptr> poison, {pointer.text}, i64 0")
        many = f.assign(
            f"shufflevector <{lanes} x ptr> {one}, <{lanes} x ptr> poison, <{lanes} x i32> zeroinitializer"
        )
        return f"<{lanes} x ptr> {many}"

    def _guarded_load(self, e: Load, guard: Val, memo: dict[Expr, Val]) -> Val:
        """A load under a condition that is one for all lanes: a branch around it."""
        f = self.f
        before, join = f.block, f.label("join")
        then = f.label("load")
        f.emit(f"br {guard}, label %{then}, label %{join}")
        f.start_block(then)
        with f.scope():
            pointer, contiguous = self.address(e.buffer, e.indices, {})
            lanes = self.lanes if contiguous else pointer.lanes
            if pointer.lanes > 1:
                true = splat(f, Val("true", bool_), lanes)
                raw = self._masked_load(e.buffer, pointer, False, true)
            else:
                raw = self._plain_load(e.buffer, pointer, lanes)
        loaded = f.block
        f.emit(f"br label %{join}")
        f.start_block(join)
        kind = self._storage_vector(e.dtype, lanes)
        zero = "zeroinitializer" if lanes > 1 else ("0.0" if e.dtype.is_float else "0")
        merged = f.assign(f"phi {kind} [ {zero}, %{before} ], [ {raw}, %{loaded} ]")
        return self._from_storage(merged, e.dtype, lanes)

    def _from_storage(self, text: str, dtype: DType, lanes: int) -> Val:
        if dtype.is_bool:
            zero = "zeroinitializer" if lanes > 1 else "0"
            text = self.f.assign(f"icmp ne {self._storage_vector(dtype, lanes)} {text}, {zero}")
        return Val(text, dtype, lanes)

    def _alias(self, buffer: Buffer) -> str:
        return self.scopes.get(buffer.name, "")

    # --- statements ---

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
        f, memo = self.f, {}  # type: FunctionText, dict[Expr, Val]
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
        suffix = f"v{n}{_mangled(buffer.dtype)}"
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
                with self.f.scope():
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
        if isinstance(s.extent, int) and s.extent < UNROLL_VECTORS * lanes + lanes:
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
                with self.f.scope():
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
        with f.scope():
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
        small = f.assign(f"icmp slt {f.dim(effort(s))}, {PARALLEL_GRAIN}")
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


def _mangled(dtype: DType) -> str:
    return f"f{dtype.bits}" if dtype.is_float else f"i{dtype.bits}"


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
