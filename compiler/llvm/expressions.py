"""Expressions of a kernel as LLVM instructions, and the loads in them: plain, masked, strided, guarded."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import CompileError
from ...ir.dims import Dim, Poly, coefficient, product, substitute
from ...ir.dtypes import DType, bool_, int64
from ...ir.loops import Buffer, Const, Expr, Index, Kernel, Load, Scalar, Store, Temp, flat_index, walk
from .function import FunctionText, ModuleText
from .instructions import Val, emit_scalar, literal, splat, storage_type
from .strided import STRIDES, repeated, repetition, spread, strided_load

__all__ = ["Expressions", "Memory", "mangled"]


@dataclass
class Memory:
    """Where a buffer lives: a pointer, and the lanes each element is widened to (registers)."""

    pointer: str
    lanes: int = 1
    size: int = 0
    """Elements of memory that nobody else sees, in registers; else 0."""


class Expressions:
    """Emits the expressions of one function, its loads among them."""

    def __init__(self, kernel: Kernel, module: ModuleText, scopes: dict[str, str]) -> None:
        self.kernel = kernel
        self.f = FunctionText(module)
        self.memory: dict[str, Memory] = {}
        self.temps: dict[str, Val] = {}
        self.mask: Val | None = None
        self.edge: Val | None = None  # lanes that are iterations, in what is left of a vector loop: at least one
        self._positions: dict[tuple[Buffer, tuple[Expr, ...]], Dim | None] = {}
        self.scopes = scopes  # buffer name -> alias metadata of its loads and stores

    # --- expressions ---

    @property
    def lanes(self) -> int:
        return self.f.vector[1] if self.f.vector else 1

    def expr(self, e: Expr, memo: dict[Expr, Val]) -> Val:
        """Emit an expression, operands first: fused chains are too deep for recursion."""
        if not isinstance(e, (Scalar, Load)):
            return self._expr(e, memo)
        if e not in memo:
            for part in walk(e):
                if isinstance(part, (Scalar, Load)) and part not in memo:
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

    def position(self, buffer: Buffer, indices: tuple[Expr, ...]) -> Dim | None:
        """The row-major position of an access; None where data choose it."""
        key = buffer, indices
        if key not in self._positions:
            self._positions[key] = flat_index(Load(buffer, indices))
        return self._positions[key]

    def address(self, buffer: Buffer, indices: tuple[Expr, ...], memo: dict[Expr, Val]) -> tuple[Val, bool]:
        """The element's pointer (or a vector of them), and whether lanes are contiguous from it."""
        memory = self.memory[buffer.name]
        element = storage_type(buffer.dtype)
        position = self.position(buffer, indices)
        if position is not None:
            return self._affine_address(memory, element, position)
        chosen, affine = self._chosen_position(buffer, indices, memo)
        if chosen.lanes == 1 and memory.lanes == 1:  # a row that data choose, and a place in it
            row = self.f.assign(f"getelementptr inbounds {element}, ptr {memory.pointer}, {chosen}")
            return self._affine_address(Memory(row), element, affine)
        total = emit_scalar(self.f, "add", [chosen, self.f.dim(affine, self.lanes)], int64)
        return self._pointer(memory.pointer, element, total), False

    def _chosen_position(
        self, buffer: Buffer, indices: tuple[Expr, ...], memo: dict[Expr, Val]
    ) -> tuple[Val, Dim]:  # fmt: skip
        """The two parts of a position: what data choose, of which there is some, and the rest."""
        flat = len(indices) == 1
        strides: list[Dim] = [1] if flat else [product(buffer.shape[k + 1 :]) for k in range(len(buffer.shape))]
        affine: Dim = 0
        chosen: Val | None = None
        for i, stride in zip(indices, strides, strict=True):
            if isinstance(i, Index):
                affine = affine + i.dim * stride
            else:
                term = emit_scalar(self.f, "mul", [self.expr(i, memo), self.f.dim(stride)], int64)
                chosen = term if chosen is None else emit_scalar(self.f, "add", [chosen, term], int64)
        assert chosen is not None
        return chosen, affine

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
        if memory.size and isinstance(offset, int):
            return Val(f"ptr {f.part(memory.pointer, element, offset)}", int64), stride == 1
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
        memory, position = self.memory[access.buffer.name], self.position(access.buffer, access.indices)
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
        position = self.position(e.buffer, e.indices)
        if position is None or self.lanes == 1 or self.memory[e.buffer.name].lanes > 1:
            return 0
        return coefficient(position, self.f.vector[0] if self.f.vector else "") or 0

    def _repetition(self, e: Load) -> int:
        """How many adjacent lanes read the same element, if groups of them begin where a vector does."""
        position = self.position(e.buffer, e.indices)
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
        f, position = self.f, self.position(e.buffer, e.indices)
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
        suffix = f"v{n}{mangled(buffer.dtype)}"
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


def mangled(dtype: DType) -> str:
    return f"f{dtype.bits}" if dtype.is_float else f"i{dtype.bits}"
