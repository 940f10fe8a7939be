"""Kernels as text; `parse_loops` reads it back. See ``docs/ir.md`` for the grammar."""

from __future__ import annotations

import json
from collections.abc import Iterator

from .dims import Dim, Poly, symbols
from .dtypes import DType, bool_, float32, int64, number_text
from .lexer import quote_name
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
    children,
    walk,
)
from .scalars import COMPARISONS

__all__ = [
    "ASSIGN",
    "INFIX",
    "declared_symbols",
    "default_dtype",
    "expression_text",
    "kernel_lines",
    "statement_head",
]

# The infix operators from the loosest to the tightest; all associate to the left, comparisons not at all.
_PRECEDENCE = {
    "or": 1,
    "and": 2,
    "==": 4,
    "!=": 4,
    "<": 4,
    "<=": 4,
    ">": 4,
    ">=": 4,
    "+": 5,
    "-": 5,
    "*": 6,
    "/": 6,
    "//": 6,
    "%": 6,
}
_OPEN, _NOT, _COMPARISON, _SUM, _PRODUCT, _UNARY, _ATOM = 0, 3, 4, 5, 6, 7, 8

INFIX = {
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "floordiv": "//",
    "mod": "%",
    "bitor": "or",
    "bitand": "and",
}
"""Scalar ops written between their arguments; ``and`` and ``or`` for bools only."""

_FOLDED = ("add", "sub", "mul", "floordiv", "mod", "max", "min")
"""Ops that the text of index arithmetic has as well: between two bare indices they mean that."""

ASSIGN = {None: "=", "add": "+=", "mul": "*=", "max": "max=", "min": "min=", "or": "or=", "and": "and="}
_SHARED_SIZE = 8  # subexpressions of at least so many nodes are written once...
_SHARED_DEPTH = 24  # ... and so are those at multiples of this depth, which bounds the nesting of the text


def default_dtype(op: str, args: tuple[Expr, ...]) -> DType:
    """The dtype of a scalar op whose text does not say it."""
    return bool_ if op in COMPARISONS else args[-1].dtype


class _Sharing:
    """Which subexpressions of a statement are written once, as ``$0 = ...`` before it."""

    def __init__(self, roots: tuple[Expr, ...]) -> None:
        self.names: dict[Expr, str] = {}
        self.size: dict[Expr, int] = {}
        self.depth: dict[Expr, int] = {}
        self.uses: dict[Expr, int] = {}
        for expr in (e for root in roots for e in walk(root)):  # operands first: no hash is computed recursively
            parts = children(expr)
            self.size[expr] = 1 + sum(self.size[c] for c in parts)
            self.depth[expr] = 1 + max((self.depth[c] for c in parts), default=-1)
        for expr in self.size:
            for c in children(expr):
                self.uses[c] = self.uses.get(c, 0) + 1
        whole = set(roots)
        for expr in self.size:
            if isinstance(expr, (Scalar, Load, Reduce)) and expr not in whole and self._is_shared(expr):
                self.names[expr] = f"${len(self.names)}"

    def _is_shared(self, expr: Expr) -> bool:
        repeated = self.uses.get(expr, 0) > 1 and self.size[expr] >= _SHARED_SIZE
        return repeated or self.depth[expr] > 0 and self.depth[expr] % _SHARED_DEPTH == 0


class _Writer:
    """Writes expressions with as few parentheses as their precedence allows."""

    def __init__(self, names: dict[Expr, str]) -> None:
        self.names = names

    def text(self, expr: Expr, level: int = _OPEN) -> str:
        """The expression, in parentheses if it binds looser than `level`."""
        if expr in self.names:
            return self.names[expr]
        text, binds = self.parts(expr)
        return f"({text})" if binds < level else text

    def parts(self, expr: Expr) -> tuple[str, int]:
        """The text, and how tightly it binds."""
        if isinstance(expr, Scalar):
            return self._scalar(expr)
        if isinstance(expr, Index):
            return _index(expr)
        if isinstance(expr, Const):
            return _const(expr)
        if isinstance(expr, Temp):
            return expr.name, _ATOM
        if isinstance(expr, Load):
            text = f"load {self.element(expr.buffer, expr.indices)}"
            return (text, _ATOM) if expr.guard is None else (f"{text} if {self.text(expr.guard)}", _OPEN)
        assert isinstance(expr, Reduce), expr
        axes = ", ".join(f"{name} = 0..{extent}" for name, extent in expr.axes)
        usual = int64 if expr.combiner in ("argmax", "argmin") else expr.body.dtype
        dtype = "" if expr.dtype == usual else f"<{expr.dtype}>"
        head = ", ".join(filter(None, (expr.combiner, axes)))
        return f"reduce{dtype}({head}) {self.text(expr.body)}", _OPEN

    def element(self, buffer: Buffer, indices: tuple[Expr, ...]) -> str:
        return f"{quote_name('%', buffer.name)}[{', '.join(map(self.text, indices))}]"

    def _scalar(self, expr: Scalar) -> tuple[str, int]:
        op, args = expr.op, expr.args
        if op in ("cast", "bitcast"):
            return f"{op}<{expr.dtype}>({', '.join(map(self.text, args))})", _ATOM
        usual = bool(args) and expr.dtype == default_dtype(op, args)
        if usual and len(args) == 2 and op in INFIX and (_PRECEDENCE[INFIX[op]] > 2 or _all_bool(expr)):
            return self._infix(expr)
        if usual and op == "neg" and not isinstance(args[0], (Const, Index)):
            return f"-{self.text(args[0], _UNARY)}", _UNARY
        if usual and op == "bitnot" and _all_bool(expr):
            return f"not {self.text(args[0], _NOT)}", _NOT
        dtype = "" if usual else f"<{expr.dtype}>"
        return f"{op}{dtype}({', '.join(self._arguments(expr))})", _ATOM

    def _infix(self, expr: Scalar) -> tuple[str, int]:
        sign = INFIX[expr.op]
        level = _PRECEDENCE[sign]
        left, right = self._arguments(expr, level + (level == _COMPARISON), level + 1)
        return f"{left} {sign} {right}", level

    def _arguments(self, expr: Scalar, *levels: int) -> list[str]:
        """The arguments; the first marked as opaque where the parser would fold bare indices."""
        texts = [self.text(a, level) for a, level in zip(expr.args, levels or [_OPEN] * len(expr.args))]
        if expr.op in _FOLDED and all(isinstance(a, Index) and a.dtype == int64 for a in expr.args):
            texts[0] = f"index({self.text(expr.args[0])})"
        return texts


def _all_bool(expr: Scalar) -> bool:
    return all(e.dtype == bool_ for e in (expr, *expr.args))


def _index(expr: Index) -> tuple[str, int]:
    text = str(expr.dim)
    if expr.dtype != int64:
        return f"index<{expr.dtype}>({text})", _ATOM
    return text, _dim_level(expr.dim)


def _dim_level(dim: Dim) -> int:
    if not isinstance(dim, Poly):
        return _ATOM if dim >= 0 else _UNARY
    if len(dim.terms) > 1:
        return _SUM
    ((monomial, coefficient),) = dim.terms
    factors = len(monomial) + (abs(coefficient) != 1)
    return _PRODUCT if factors > 1 else _UNARY if coefficient < 0 else _ATOM


def _const(expr: Const) -> tuple[str, int]:
    value = expr.value
    text = number_text(value, expr.dtype)
    plain = bool_ if isinstance(value, bool) else float32 if isinstance(value, float) else None
    return (text if expr.dtype == plain else f"{text}:{expr.dtype}"), (_UNARY if text[0] == "-" else _ATOM)


# --- statements ----------------------------------------------------------------------------------


def expression_text(expr: Expr) -> str:
    """One expression on one line, nothing abbreviated."""
    return _Writer({}).text(expr)


def statement_head(statement: Stmt) -> str:
    """A statement's first line, without the body that it may have."""
    *_, head = _head(statement)
    return head


def _head(s: Stmt) -> Iterator[str]:
    """The lines that define shared subexpressions, then the statement's own first line."""
    if isinstance(s, For):
        keyword = "for" if s.kind == "serial" else s.kind
        lanes = "" if s.lanes == 1 else f"({s.lanes})"
        yield f"{keyword}{lanes} {s.var} = 0..{s.extent} {{"
    elif isinstance(s, Alloc):
        yield f"alloc {_declaration(s.buffer)} {s.space}"
    elif isinstance(s, Foreign):
        yield f"foreign {quote_name('@', s.op)}({_names(s.inputs)}) -> ({_names(s.outputs)})"
    elif isinstance(s, Prefetch):
        writer, shared = _writer(s.indices)
        yield from shared
        yield f"prefetch {writer.element(s.buffer, s.indices)}"
    elif isinstance(s, Let):
        writer, shared = _writer((s.value,))
        yield from shared
        yield f"let {s.name} = {writer.text(s.value)}"
    elif isinstance(s, Store):
        writer, shared = _writer((*s.indices, s.value))
        yield from shared
        sign = ASSIGN.get(s.combiner, f"{s.combiner}=")
        yield f"store {writer.element(s.buffer, s.indices)} {sign} {writer.text(s.value)}"
    else:
        writer, shared = _writer((s.condition,))
        yield from shared
        yield f"if {writer.text(s.condition)} {{"


def _writer(roots: tuple[Expr, ...]) -> tuple[_Writer, list[str]]:
    sharing = _Sharing(roots)
    writer = _Writer(sharing.names)
    return writer, [f"{name} = {writer.parts(expr)[0]}" for expr, name in sharing.names.items()]


def _lines(body: tuple[Stmt, ...], indent: str) -> Iterator[str]:
    for s in body:
        yield from (indent + line for line in _head(s))
        if isinstance(s, For):
            yield from _lines(s.body, indent + "  ")
        elif isinstance(s, If):
            yield from _lines(s.then, indent + "  ")
            if s.otherwise:
                yield f"{indent}}} else {{"
                yield from _lines(s.otherwise, indent + "  ")
        if isinstance(s, (For, If)):
            yield f"{indent}}}"


def _names(buffers: tuple[Buffer, ...]) -> str:
    return ", ".join(quote_name("%", b.name) for b in buffers)


def _declaration(buffer: Buffer) -> str:
    return f"{quote_name('%', buffer.name)}: {buffer.dtype}[{', '.join(map(str, buffer.shape))}]"


def declared_symbols(kernel: Kernel) -> tuple[str, ...]:
    """The symbols that a kernel's parameters show; `Kernel.symbols` unless its text says others."""
    buffers = kernel.inputs + kernel.outputs
    return tuple(sorted(set().union(*(symbols(d) for b in buffers for d in b.shape))))


def kernel_lines(kernel: Kernel) -> Iterator[str]:
    """The kernel's text without the version line."""
    params = [f"in {_declaration(b)}" for b in kernel.inputs] + [
        f"out {_declaration(b)}" for b in kernel.outputs
    ]
    head = f"kernel {quote_name('@', kernel.name)}({', '.join(params)})"
    if kernel.symbols != declared_symbols(kernel):
        head += f" symbols({', '.join(kernel.symbols)})"
    if kernel.inplace:
        pairs = (
            f"{quote_name('%', kernel.outputs[o].name)} = {quote_name('%', kernel.inputs[i].name)}"
            for o, i in kernel.inplace
        )
        head += f" inplace({', '.join(pairs)})"
    yield head + " {"
    for note in kernel.notes:
        yield f"  note {json.dumps(note)}"
    yield from _lines(kernel.body, "  ")
    yield "}"
