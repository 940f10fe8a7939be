"""Reads the text of kernels: the inverse of `print_loops`."""

from __future__ import annotations

from collections.abc import Callable

from .dims import Dim, symbol
from .dtypes import DType, bool_, float32, int64, rounded
from .lexer import Reader, Token
from .loops import (
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
    Reduce,
    Scalar,
    Stmt,
    Store,
    Temp,
)
from .print_loops import ASSIGN, INFIX, declared_symbols, default_dtype
from .scalars import SCALARS

__all__ = ["KernelReader"]

Operand = Expr | Dim
"""An expression; or a dim: index arithmetic that may still grow, as ``i`` in ``i + 1``."""

_KINDS = {"for": "serial", **{k: k for k in ("parallel", "vector", "unroll", "block", "thread")}}
_SPACES = ("register", "local", "shared", "workspace")
_OPS = {sign: op for op, sign in INFIX.items()}
_OR, _AND, _NOT, _COMPARISON, _SUM, _PRODUCT = 1, 2, 3, 4, 5, 6
_LEVELS = {
    _OR: ("or",),
    _AND: ("and",),
    _COMPARISON: ("==", "!=", "<", "<=", ">", ">="),
    _SUM: ("+", "-"),
    _PRODUCT: ("*", "/", "//", "%"),
}
_COMBINERS = ("add", "mul", "max", "min", "or", "and")


def _expr(operand: Operand) -> Expr:
    return operand if isinstance(operand, Expr) else Index(operand)


class KernelReader(Reader):
    """Recursive descent over kernels, with the names that are in scope."""

    def __init__(self, text: str, form: str) -> None:
        super().__init__(text, form)
        self.buffers: dict[str, Buffer] = {}
        self.temps: dict[str, DType] = {}
        self.indices: set[str] = set()
        self.shared: dict[str, tuple[Expr, frozenset[str]]] = {}
        self.unbound: set[str] | None = None

    # --- kernels ---------------------------------------------------------------------------------

    def kernel(self) -> Kernel:
        """``kernel @name(in %x: T, out %y: T) symbols(...) inplace(...) { ... }``."""
        self.buffers, self.temps, self.shared = {}, {}, {}
        self.expect("kernel")
        name = self.plain(self.sigil("@", "the kernel's name"))
        self.expect("(")
        params: list[tuple[str, Buffer]] = self.sequence(self._parameter, ")")
        inputs = tuple(b for role, b in params if role == "in")
        outputs = tuple(b for role, b in params if role == "out")
        symbols = declared_symbols(Kernel(name, inputs, outputs, ()))
        if self.accept("symbols"):
            self.expect("(")
            symbols = tuple(self.sequence(lambda: self.name("a symbol"), ")"))
        inplace: list[tuple[int, int]] = []
        if self.accept("inplace"):
            self.expect("(")
            inplace = self.sequence(lambda: self._inplace(inputs, outputs), ")")
        self.indices = set(symbols)
        self.expect("{")
        notes: list[str] = []
        while self.accept("note"):
            notes.append(self.string())
        return Kernel(name, inputs, outputs, self._block(), symbols, tuple(inplace), tuple(notes))

    def _parameter(self) -> tuple[str, Buffer]:
        if not (self.at("in") or self.at("out")):
            self.fail("'in' or 'out'")
        return self.next().text, self._declaration()

    def _declaration(self) -> Buffer:
        token = self.sigil("%", "a buffer's name")
        name = self.plain(token)
        if name in self.buffers:
            self.error(f"a buffer %{name} exists already", token)
        self.expect(":")
        type_ = self.tensor_type()
        self.buffers[name] = Buffer(name, type_.dtype, type_.shape)
        return self.buffers[name]

    def _buffer(self) -> Buffer:
        token = self.sigil("%", "a buffer")
        name = self.plain(token)
        if name not in self.buffers:
            known = ", ".join("%" + b for b in self.buffers)
            self.error(f"unknown buffer %{name}; in scope: {known}", token)
        return self.buffers[name]

    def _inplace(self, inputs: tuple[Buffer, ...], outputs: tuple[Buffer, ...]) -> tuple[int, int]:
        token = self.token
        written = self._buffer()
        self.expect("=")
        read = self._buffer()
        if written not in outputs or read not in inputs:
            self.error("expected '%output = %input'", token)
        return outputs.index(written), inputs.index(read)

    # --- statements ------------------------------------------------------------------------------

    def _block(self) -> tuple[Stmt, ...]:
        """Statements up to and including the closing brace; names they bind end there."""
        self.enter()
        buffers, temps = dict(self.buffers), dict(self.temps)
        body: list[Stmt] = []
        while not self.accept("}"):
            statement = self._statement()
            if statement is not None:
                body.append(statement)
                self.shared.clear()
        self.buffers, self.temps = buffers, temps
        self.leave()
        return tuple(body)

    def _statement(self) -> Stmt | None:
        if self.token.kind == "share":
            self._share()
            return None
        if self.token.kind == "name" and self.token.text in _KINDS:
            return self._for()
        readers: dict[str, Callable[[], Stmt]] = {
            "let": self._let,
            "store": self._store,
            "alloc": self._alloc,
            "foreign": self._foreign,
            "if": self._if,
            "prefetch": lambda: Prefetch(*self._element()),
        }
        if self.token.kind != "name" or self.token.text not in readers:
            self.fail("a statement (a loop, 'let', 'store', 'alloc', 'foreign', 'if', 'prefetch') or '}'")
        return readers[self.next().text]()

    def _share(self) -> None:
        """``$0 = expression``: where it is used, it may name the axes of reductions around it."""
        name = self.next().text
        self.expect("=")
        self.unbound = set()
        value = self.expression()
        self.shared[name] = value, frozenset(self.unbound)
        self.unbound = None

    def _for(self) -> For:
        kind = _KINDS[self.next().text]
        lanes = 1
        if self.accept("("):
            lanes = self.integer()
            self.expect(")")
        token = self.token
        var = self._new_index()
        extent = self._extent()
        self.expect("{")
        self.indices.add(var)
        body = self._block()
        self.indices.discard(var)
        if kind == "unroll" and not isinstance(extent, int):
            self.error("the extent of an unrolled loop must be an integer", token)
        return For(var, extent, body, kind, lanes)

    def _new_index(self) -> str:
        token = self.token
        var = self.name("a loop variable")
        if var in self.indices or var in self.temps:
            self.error(f"{var} has a meaning here already", token)
        return var

    def _extent(self) -> Dim:
        self.expect("=")
        if self.take("int", "'0..'").text != "0":
            self.error("loops start at 0")
        self.expect("..")
        token = self.token
        extent = self._operand(_SUM)
        if isinstance(extent, Expr):
            self.error("an extent is index arithmetic over symbols and loop variables", token)
        return extent

    def _let(self) -> Let:
        token = self.token
        name = self.name("a name")
        if name in self.indices:
            self.error(f"{name} is a symbol or loop variable", token)
        self.expect("=")
        value = self.expression()
        self.temps[name] = value.dtype
        return Let(name, value)

    def _store(self) -> Store:
        buffer, indices = self._element()
        for combiner, sign in ASSIGN.items():
            if sign[:-1] and sign[:-1].isalpha():
                if self.at(sign[:-1]) and self.following.text == "=":
                    self.next()
                    self.expect("=")
                    return Store(buffer, indices, self.expression(), combiner)
            elif self.accept(sign):
                return Store(buffer, indices, self.expression(), combiner)
        self.fail(f"one of {' '.join(ASSIGN.values())}")

    def _alloc(self) -> Alloc:
        buffer = self._declaration()
        if self.token.text not in _SPACES:
            self.fail(f"one of {', '.join(_SPACES)}")
        return Alloc(buffer, self.next().text)

    def _foreign(self) -> Foreign:
        op = self.plain(self.sigil("@", "an op's name"))
        self.expect("(")
        inputs = tuple(self.sequence(self._buffer, ")"))
        self.expect("->")
        self.expect("(")
        return Foreign(op, inputs, tuple(self.sequence(self._buffer, ")")))

    def _if(self) -> If:
        condition = self.expression()
        self.expect("{")
        self.shared.clear()
        then = self._block()
        otherwise: tuple[Stmt, ...] = ()
        if self.accept("else"):
            self.expect("{")
            otherwise = self._block()
        return If(condition, then, otherwise)

    # --- expressions -----------------------------------------------------------------------------

    def expression(self) -> Expr:
        """An expression of any kind, as far as it reaches."""
        return _expr(self._open())

    def _open(self) -> Operand:
        """The loosest level: ``reduce(...) body``, ``load %x[i] if guard``, or an infix expression."""
        self.enter()
        result = self._reduce() if self.at("reduce") else self._operand(_OR)
        guarded = isinstance(result, Load) and result.guard is None
        same_line = self.token.line == self.tokens[self.position - 1].line
        if guarded and same_line and self.accept("if"):
            assert isinstance(result, Load)
            result = Load(result.buffer, result.indices, self.expression())
        self.leave()
        return result

    def _reduce(self) -> Reduce:
        self.expect("reduce")
        dtype = self._angle_dtype() if self.at("<") else None
        self.expect("(")
        token = self.take("name", "a combiner")
        if token.text not in (*_COMBINERS, "argmax", "argmin"):
            self.error(f"unknown combiner; one of {', '.join(_COMBINERS)}, argmax, argmin", token)
        axes: list[tuple[str, Dim]] = []
        while self.accept(","):
            var = self._new_index()
            axes.append((var, self._extent()))
            self.indices.add(var)
        self.expect(")")
        body = self.expression()
        self.indices.difference_update(var for var, _ in axes)
        usual = int64 if token.text in ("argmax", "argmin") else body.dtype
        return Reduce(token.text, tuple(axes), body, dtype or usual)

    def _angle_dtype(self) -> DType:
        self.expect("<")
        dtype = self.dtype()
        self.expect(">")
        return dtype

    def _operand(self, level: int) -> Operand:
        """An infix expression whose operators bind at least as tightly as `level`."""
        if level == _NOT:
            return self._not()
        if level > _PRODUCT:
            return self._unary()
        left = self._operand(level + 1)
        while self.token.kind in ("punct", "name") and self.token.text in _LEVELS[level]:
            token = self.next()
            left = self._binary(token, left, self._operand(level + 1))
            if level == _COMPARISON and self.token.text in _LEVELS[level]:
                self.error("comparisons do not chain; use parentheses and 'and'")
        return left

    def _binary(self, token: Token, left: Operand, right: Operand) -> Operand:
        foldable = token.text in ("+", "-", "*", "//", "%")
        if foldable and not isinstance(left, Expr) and not isinstance(right, Expr):
            return self.index_op(token, left, right)
        args = (_expr(left), _expr(right))
        op = _OPS[token.text]
        return Scalar(op, args, bool_ if token.text in ("and", "or") else default_dtype(op, args))

    def _not(self) -> Operand:
        count = 0
        while self.accept("not"):
            count += 1
        operand = self._operand(_COMPARISON)
        for _ in range(count):
            operand = Scalar("bitnot", (_expr(operand),), bool_)
        return operand

    def _unary(self) -> Operand:
        minus = 0
        while self.at("-") and not self.at_literal:
            self.next()
            minus += 1
        operand = self._primary()
        for _ in range(minus):
            operand = -operand if not isinstance(operand, Expr) else Scalar("neg", (operand,), operand.dtype)
        return operand

    def _primary(self) -> Operand:
        token = self.token
        if self.at_literal:
            return self._literal()
        if token.kind == "share":
            return self._shared()
        if self.accept("("):
            inner = self._open()
            self.expect(")")
            return inner if isinstance(inner, Expr) else self.dim_power(inner)
        if self.accept("load"):
            return Load(*self._element())
        if token.kind == "name" and self.following.text in ("(", "<") and self._at_call():
            return self._call()
        return self._name()

    def _shared(self) -> Expr:
        token = self.next()
        if token.text not in self.shared:
            self.error(f"{token.text} is not defined just above", token)
        value, names = self.shared[token.text]
        missing = names - self.indices
        if self.unbound is not None:
            self.unbound |= missing
        elif missing:
            self.error(f"{token.text} needs {min(missing)}, which is not in scope here", token)
        return value

    def _element(self) -> tuple[Buffer, tuple[Expr, ...]]:
        token = self.token
        buffer = self._buffer()
        self.expect("[")
        indices = tuple(self.sequence(self.expression, "]"))
        if len(indices) not in (1, len(buffer.shape)):
            self.error(f"%{buffer.name} has {len(buffer.shape)} axes, indexed with {len(indices)}", token)
        return buffer, indices

    def _literal(self) -> Operand:
        negative = self.at("-")
        value = self.literal()
        if self.accept(":"):
            dtype = self.dtype()
            return Const(rounded(value, dtype) if isinstance(value, float) and dtype.is_float else value, dtype)
        if isinstance(value, bool):
            return Const(value, bool_)
        if isinstance(value, float):
            return Const(rounded(value, float32), float32)
        return value if negative else self.dim_power(value)

    def _name(self) -> Operand:
        token = self.token
        name = self.name("an expression")
        if name in self.temps:
            return Temp(name, self.temps[name])
        if name not in self.indices and self.unbound is not None:
            self.unbound.add(name)
        elif name not in self.indices:
            known = ", ".join(sorted({*self.temps, *self.indices}))
            self.error(f"unknown name {name!r}; in scope: {known}", token)
        return self.dim_power(symbol(name))

    # --- calls -----------------------------------------------------------------------------------

    def _at_call(self) -> bool:
        """Whether ``name(`` or ``name<dtype>(`` stands here, rather than ``name < ...``."""
        rest = [t.text for t in self.tokens[self.position + 1 : self.position + 5]]
        return rest[0] == "(" or len(rest) == 4 and rest[2] == ">" and rest[3] == "("

    def _call(self) -> Operand:
        token = self.next()
        op = token.text
        dtype = self._angle_dtype() if self.at("<") else None
        self.expect("(")
        args: list[Operand] = self.sequence(self._open, ")")
        dims = [a for a in args if not isinstance(a, Expr)]
        if op == "index":
            if len(args) != 1 or not dims:
                self.error("index(...) takes one piece of index arithmetic", token)
            return Index(dims[0], dtype or int64)
        if op in ("max", "min", "isqrt") and args and len(dims) == len(args) and dtype is None:
            return self.dim_power(self.index_function(token, dims))
        return self._scalar(token, tuple(map(_expr, args)), dtype)

    def _scalar(self, token: Token, args: tuple[Expr, ...], dtype: DType | None) -> Scalar:
        op = token.text
        if op not in SCALARS:
            self.error(f"unknown scalar op {op!r}", token)
        if len(args) != SCALARS[op].arity:
            self.error(f"{op} takes {SCALARS[op].arity} arguments, got {len(args)}", token)
        if op in ("cast", "bitcast") and dtype is None:
            self.error(f"write the dtype: {op}<f32>(...)", token)
        return Scalar(op, args, dtype or default_dtype(op, args))
