"""The text of one LLVM function while it is written: blocks, fresh names, scopes of known values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ...ir.dims import Dim, Op, Poly, from_terms, symbols
from ...ir.dtypes import DType, bool_, float64, int64
from ...passes.cpu_model import CpuModel
from .instructions import Val, emit_scalar, lane_numbers, splat

__all__ = ["FunctionText", "ModuleText"]


class ModuleText:
    """The text of one LLVM module while it is written: functions, declarations, metadata nodes.

    `model` is the target's.
    """

    def __init__(self, model: CpuModel | None = None) -> None:
        self.model = model or CpuModel()
        self.functions: list[str] = []
        self._declarations: dict[str, None] = {}
        self._metadata: list[str] = []
        self._numbers: dict[str, int] = {}

    def declare(self, declaration: str) -> None:
        """Add a declaration, once."""
        self._declarations[declaration] = None

    def numbered(self, name: str) -> str:
        """The name with the number of times that it was asked for before."""
        self._numbers[name] = self._numbers.get(name, -1) + 1
        return f"{name}{self._numbers[name]}"

    def metadata(self, content: str, distinct: bool = False) -> str:
        """Add a node; ``@`` in its content stands for the node itself. Returns its name."""
        name = f"!{len(self._metadata)}"
        self._metadata.append(f"{name} = {'distinct ' if distinct else ''}!{{{content.replace('@', name)}}}")
        return name

    def text(self) -> str:
        return "\n\n".join([*self.functions, "\n".join(self._declarations), "\n".join(self._metadata)]) + "\n"


@dataclass
class _Scope:
    """Dims whose values are known; `unrolled` is the counter of a loop of which this is one iteration, if it is one."""

    unrolled: str = ""
    values: dict[tuple[Dim, int], Val] = field(default_factory=dict)


class FunctionText:
    """Instructions of one function, in order."""

    def __init__(self, module: ModuleText) -> None:
        self.module = module
        self.lines: list[str] = []
        self.allocas: list[str] = []
        self.block = "entry"
        self._parts: set[str] = set()
        self._count = 0
        self._scopes: list[_Scope] = [_Scope()]
        self.vars: dict[str, Val | int] = {}  # loop variables and symbols: SSA values, or unrolled integers
        self.vector: tuple[str, int] | None = None  # the vectorized variable and its lanes

    # --- instructions ---

    def fresh(self, prefix: str = "v") -> str:
        self._count += 1
        return f"%{prefix}{self._count}"

    def assign(self, instruction: str) -> str:
        """Append ``%name = instruction``; returns the name."""
        name = self.fresh()
        self.lines.append(f"  {name} = {instruction}")
        return name

    def emit(self, instruction: str) -> None:
        self.lines.append(f"  {instruction}")

    def alloca(self, count: int, element: str) -> str:
        """Stack memory, allocated once in the entry block."""
        name = self.fresh("mem")
        self.allocas.append(f"  {name} = alloca [{count} x {element}], align 64")
        return name

    def part(self, memory: str, element: str, offset: int) -> str:
        """The address of an element of stack memory, computed once, in the entry block."""
        name = f"{memory}.{offset}"
        if name not in self._parts:
            self._parts.add(name)
            self.allocas.append(f"  {name} = getelementptr inbounds {element}, ptr {memory}, i64 {offset}")
        return name

    # --- control flow ---

    def start_block(self, label: str) -> None:
        self.lines.append(f"{label}:")
        self.block = label

    def label(self, hint: str) -> str:
        self._count += 1
        return f"{hint}{self._count}"

    @contextmanager
    def scope(self, unrolled: str = "") -> Iterator[None]:
        """Values emitted inside are forgotten at the end: they may not dominate what follows.

        In an iteration of an `unrolled` loop, written after the one before, those do that do not depend on its counter.
        """
        self._scopes.append(_Scope(unrolled))
        saved = dict(self.vars)
        try:
            yield
        finally:
            self._scopes.pop()
            self.vars = saved

    @contextmanager
    def loop(self, var: str, begin: str, end: str, step: int = 1) -> Iterator[None]:
        """``for (i64 var = begin; var < end; var += step)`` around what is emitted inside."""
        head, body, exit_ = self.label("head"), self.label("body"), self.label("exit")
        counter, following = self.fresh("i"), self.fresh("next")
        before = self.block
        self.emit(f"br label %{head}")
        self.start_block(head)
        position = len(self.lines)
        self.lines.append("")  # the phi, once the latch is known
        test = self.assign(f"icmp slt i64 {counter}, {end}")
        self.emit(f"br i1 {test}, label %{body}, label %{exit_}")
        self.start_block(body)
        with self.scope():
            self.vars[var] = Val(counter, int64)
            yield
        self.emit(f"{following} = add nsw i64 {counter}, {step}")
        self.lines[position] = f"  {counter} = phi i64 [ {begin}, %{before} ], [ {following}, %{self.block} ]"
        self.emit(f"br label %{head}")
        self.start_block(exit_)

    @contextmanager
    def when(self, condition: str) -> Iterator[None]:
        """Emit what is inside under a condition."""
        then, after = self.label("then"), self.label("after")
        self.emit(f"br i1 {condition}, label %{then}, label %{after}")
        self.start_block(then)
        with self.scope():
            yield
        self.emit(f"br label %{after}")
        self.start_block(after)

    # --- index arithmetic ---

    def symbol(self, name: str, lanes: int) -> Val:
        """The value of a loop variable or symbolic dimension; a vector for the vectorized one."""
        value = self.vars[name]
        base = Val(str(value), int64) if isinstance(value, int) else value
        if self.vector and self.vector[0] == name and lanes > 1:
            return emit_scalar(self, "add", [splat(self, base, lanes), lane_numbers(lanes)], int64)
        return base

    def dim(self, dim: Dim, lanes: int = 1) -> Val:
        """Emit an index polynomial (``i64``, a vector if it varies over the lanes)."""
        if isinstance(dim, int):
            return Val(str(dim), int64)
        key = (dim, lanes)
        for scope in reversed(self._scopes):
            if key in scope.values:
                return scope.values[key]
        value = self._scope_of(dim).values[key] = self._sum(dim, lanes)
        return value

    def _sum(self, dim: Poly, lanes: int) -> Val:
        """The last term added to the others, which are known to whatever differs from them in a constant."""
        *others, (monomial, c) = dim.terms
        if others:
            total = self.dim(from_terms(dict(others)), lanes)
            return emit_scalar(self, "add", [total, self.dim(from_terms({monomial: c}), lanes)], int64)
        if c != 1:
            return emit_scalar(self, "mul", [Val(str(c), int64), self.dim(from_terms({monomial: 1}), lanes)], int64)
        (atom, power), *rest = monomial
        if rest or power > 1:
            first, *factors = [from_terms({((a, 1),): 1}) for a, p in monomial for _ in range(p)]
            product = self.dim(first, lanes)
            for factor in factors:
                product = emit_scalar(self, "mul", [product, self.dim(factor, lanes)], int64)
            return product
        return self.symbol(atom, lanes) if isinstance(atom, str) else self._op(atom, lanes)

    def _scope_of(self, dim: Dim) -> _Scope:
        """The outermost scope in which a value that is emitted now stays known."""
        k = len(self._scopes) - 1
        while self._scopes[k].unrolled and self._scopes[k].unrolled not in symbols(dim):
            k -= 1
        return self._scopes[k]

    def _op(self, atom: Op, lanes: int) -> Val:
        args = [self.dim(a, lanes) for a in atom.args]
        if atom.kind in ("max", "min"):
            result = args[0]
            for a in args[1:]:
                result = emit_scalar(self, atom.kind, [result, a], int64)
            return result
        if atom.kind == "isqrt":
            return self._isqrt(args[0])
        left, by = args
        plain = all(c >= 0 for _, c in atom.args[0].terms) if isinstance(atom.args[0], Poly) else True
        divisor = atom.args[1]
        if isinstance(divisor, int) and divisor > 0:
            n = max(left.lanes, by.lanes)
            left, by = splat(self, left, n), splat(self, by, n)
            if divisor & (divisor - 1) == 0:  # a power of two: exact for negative numbers too
                shift = splat(self, Val(str(divisor.bit_length() - 1), int64), n).text
                masked = splat(self, Val(str(divisor - 1), int64), n).text
                text = f"ashr {left}, {shift}" if atom.kind == "//" else f"and {left}, {masked}"
                return Val(self.assign(text), int64, n)
            if plain:
                return Val(self.assign(f"{'udiv' if atom.kind == '//' else 'urem'} {left}, {by.text}"), int64, n)
        return emit_scalar(self, "floordiv" if atom.kind == "//" else "mod", [left, by], int64)

    def _isqrt(self, x: Val) -> Val:
        """The root in float64, which may be off by one where `x` has more than 53 bits, and corrected."""

        def do(op: str, *args: Val, dtype: DType = int64) -> Val:
            return emit_scalar(self, op, list(args), dtype)

        one = Val("1", int64)
        root = do("cast", do("sqrt", do("cast", x, dtype=float64), dtype=float64))
        root = do("sub", root, do("cast", do("gt", do("mul", root, root), x, dtype=bool_)))
        after = do("add", root, one)
        return do("add", root, do("cast", do("le", do("mul", after, after), x, dtype=bool_)))

    def text(self, header: str) -> str:
        """The whole function."""
        return "\n".join([header + " {", "entry:", *self.allocas, *self.lines, "}"])
