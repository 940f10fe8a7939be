"""Expressions of the loop IR as Python that Numba types exactly; see `emit`."""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Callable, Iterator, Sequence

from ...errors import CompileError
from ...ir.dims import Atom, Dim, Op, Poly, floordiv, mod, product, symbol, symbols
from ...ir.dtypes import DType, int64
from ...ir.loops import Buffer, Const, Expr, Index, Load, Scalar, Store, Temp, flat_index
from ...ir.scalars import apply

__all__ = ["LIBDEVICE", "TYPES", "Names", "Writer", "dtype_name", "position"]

LIBDEVICE = {
    **{name: name for name in (
        "sqrt", "fma", "floor", "ceil", "trunc", "rint", "copysign", "exp", "exp2", "expm1", "log", "log1p",
        "log2", "log10", "sin", "cos", "tan", "asin", "acos", "atan", "atan2", "sinh", "cosh", "tanh",
        "asinh", "acosh", "atanh", "pow", "hypot", "erf", "nextafter",
    )},
    "c_fmod": "fmod", "erfinv": "erfinv", "ndtri": "normcdfinv",
}  # fmt: skip
"""libdevice's functions of floats, by the names of `ir.scalars`; those of float32 end in ``f`` there."""

TYPES = {"bool_", "float32", "float64", *(f"{k}{n}" for k in ("int", "uint") for n in (8, 16, 32, 64))}
"""The types of NumPy that source may name."""

_RESERVED = {"cuda", "math", "range", "abs", "min", "max", "maximum", "minimum", *TYPES}
_FUNCTION = re.compile(r".*_[fiu](8|16|32|64)")
_DEEP = 6  # expressions nested deeper than that are broken into lines

_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "bitand": "&", "bitor": "|", "bitxor": "^",
    "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
}  # fmt: skip
_WRAPPING = ("add", "sub", "mul", "bitand", "bitor", "bitxor")  # in 64 bits, for Numba
_COMPOSED = ("sigmoid", "softplus", "logaddexp", "fmod")
_INTEGER = ("floordiv", "mod", "shl", "shr", "ipow")
_ROUNDING = ("floor", "ceil", "trunc", "rint")


def dtype_name(dtype: DType) -> str:
    """The NumPy scalar type of a dtype, as source writes it."""
    return "bool_" if dtype.is_bool else dtype.name


class Names:
    """Identifiers for the names of an IR, each different from all others."""

    def __init__(self) -> None:
        self._taken: dict[str, int] = {}

    def unique(self, name: str) -> str:
        base = re.sub(r"\W", "_", name)
        if not base or base[0].isdigit() or keyword.iskeyword(base) or base in _RESERVED or _FUNCTION.fullmatch(base):
            base = f"_{base}"
        count = self._taken.get(base)
        self._taken[base] = 1 if count is None else count + 1
        return base if count is None else self.unique(f"{base}_{count}")


class Writer:
    """Writes the expressions of one launch.

    Attributes
    ----------
    used : types and functions that the source must import.
    """

    def __init__(self, kernel: str) -> None:
        self.kernel = kernel
        self.used: set[str] = set()
        self._names = Names()
        self._variables: dict[str, str] = {}  # dims, loop variables and temps
        self._memory: dict[str, str] = {}
        self._scalars: set[str] = set()  # buffers that are Python variables
        self._divisions: list[dict[Op, str]] = [{}]
        self._shared: dict[Expr, str] = {}

    # --- names -----------------------------------------------------------------------------------

    def fresh(self, name: str) -> str:
        return self._names.unique(name)

    def variable(self, name: str) -> str:
        if name not in self._variables:
            self._variables[name] = self.fresh(name)
        return self._variables[name]

    def parameter(self, buffer: Buffer) -> str:
        """The name of an array."""
        if buffer.name not in self._memory:
            self._memory[buffer.name] = self.fresh(buffer.name)
        return self._memory[buffer.name]

    def scalar(self, buffer: Buffer) -> None:
        """Let a register be a Python variable."""
        self.parameter(buffer)
        self._scalars.add(buffer.name)

    def enter(self) -> None:
        """Begin a scope: names of divisions end with it."""
        self._divisions.append({})

    def leave(self) -> None:
        self._divisions.pop()

    # --- index arithmetic --------------------------------------------------------------------------

    def name_divisions(self, dim: Dim, bound: set[str]) -> Iterator[str]:
        """Lines that name the divisions of a dim whose symbols are all bound."""
        for monomial, _ in dim.terms if isinstance(dim, Poly) else ():
            for atom, _power in monomial:
                if isinstance(atom, Op):
                    for arg in atom.args:
                        yield from self.name_divisions(arg, bound)
                    known = atom.kind not in ("//", "%") or self._division(atom) is not None
                    if not known and _op_symbols(atom) <= bound:
                        text = self._op(atom)
                        name = self.fresh("q" if atom.kind == "//" else "r")
                        self._divisions[-1][atom] = name
                        yield f"{name} = {text}"

    def _division(self, atom: Op) -> str | None:
        return next((scope[atom] for scope in self._divisions if atom in scope), None)

    def dim(self, dim: Dim, operand: bool = False) -> str:
        """A dim's text, in parentheses if it is an operand and not one word."""
        if not isinstance(dim, Poly):
            return f"({dim})" if operand and dim < 0 else str(dim)
        text = ""
        for monomial, c in dim.terms:
            factors = [self._atom(a) for a, power in monomial for _ in range(power)]
            if abs(c) != 1 or not factors:
                factors.append(str(abs(c)))
            sign = ("-" if c < 0 else "") if not text else (" - " if c < 0 else " + ")
            text += sign + "*".join(factors)
        return f"({text})" if operand and not text.isidentifier() else text

    def _atom(self, atom: Atom) -> str:
        if isinstance(atom, str):
            return self.variable(atom)
        return self._division(atom) or (f"({self._op(atom)})" if atom.kind in ("//", "%") else self._op(atom))

    def _op(self, atom: Op) -> str:
        if atom.kind in ("//", "%"):
            return f"{self.dim(atom.args[0], True)} {atom.kind} {self.dim(atom.args[1], True)}"
        if atom.kind == "isqrt":
            raise CompileError(f"{atom}: loops whose lengths are roots run on the CPU only")
        return f"{atom.kind}({', '.join(map(self.dim, atom.args))})"

    # --- memory ------------------------------------------------------------------------------------

    def element(self, buffer: Buffer, indices: Sequence[Expr]) -> str:
        """``array[position]``, or the variable that a register is."""
        name = self.parameter(buffer)
        if buffer.name in self._scalars:
            return name
        return f"{name}[{self._position(buffer, tuple(indices))}]"

    def _position(self, buffer: Buffer, indices: tuple[Expr, ...]) -> str:
        flat = position(buffer, indices)
        if flat is not None:
            return self.dim(flat)
        shape: tuple[Dim, ...] = (1,) if len(indices) == 1 else buffer.shape
        terms: list[str] = []
        affine: Dim = 0
        for k, i in enumerate(indices):
            stride = product(shape[k + 1 :])
            if isinstance(i, Index):
                affine = affine + i.dim * stride
                continue
            text = self.text(i, operand=True) if i.dtype == int64 else self._call("int64", i)
            terms.append(text if stride == 1 else f"{text}*{self.dim(stride, True)}")
        terms += [self.dim(affine)] if affine != 0 else []
        return " + ".join(terms)

    def combined(self, s: Store) -> Expr:
        """The value that a store leaves behind, its combiner applied."""
        if s.combiner is None:
            return s.value
        op = {"and": "bitand", "or": "bitor"}.get(s.combiner, s.combiner)
        return apply(op, Load(s.buffer, s.indices), s.value, dtype=s.buffer.dtype)

    # --- expressions -------------------------------------------------------------------------------

    def values(self, roots: Sequence[Expr]) -> tuple[list[str], list[str]]:
        """Lines that name what the expressions share or nest too deeply, and the expressions' texts."""
        self._shared = {}
        lines: list[str] = []
        for e in _shared(roots):
            text = self.text(e)
            self._shared[e] = self.fresh("v")
            lines.append(f"{self._shared[e]} = {text}")
        return lines, [self.text(root) for root in roots]

    def text(self, e: Expr, operand: bool = False) -> str:
        """An expression's text, in parentheses if it is an operand and not one word or call."""
        if e in self._shared:
            return self._shared[e]
        text, closed = self._parts(e)
        return f"({text})" if operand and not closed else text

    def _parts(self, e: Expr) -> tuple[str, bool]:
        if isinstance(e, Const):
            return self._literal(e), True
        if isinstance(e, Index):
            return self._typed(e.dtype, self.dim(e.dim)), True
        if isinstance(e, Temp):
            return self.variable(e.name), True
        if isinstance(e, Load):
            text = self.element(e.buffer, e.indices)
            if e.guard is None:
                return text, True
            return f"{text} if {self.text(e.guard, True)} else {self._literal(Const(0, e.dtype))}", False
        if isinstance(e, Scalar):
            return self._scalar(e)
        raise CompileError(f"kernel {self.kernel}: {type(e).__name__} in a scheduled kernel")

    def _typed(self, dtype: DType, text: str) -> str:
        name = dtype_name(dtype)
        self.used.add(name)
        return f"{name}({text})"

    def _literal(self, e: Const) -> str:
        if e.dtype.is_bool:
            return str(bool(e.value))
        if not e.dtype.is_float:
            return self._typed(e.dtype, str(int(e.value)))
        if math.isfinite(e.value):
            return self._typed(e.dtype, repr(float(e.value)))
        self.used.add("math")
        text = "math.nan" if math.isnan(e.value) else "math.inf" if e.value > 0 else "-math.inf"
        return self._typed(e.dtype, text)

    def _call(self, name: str, *args: Expr) -> str:
        self.used.add(name)
        return f"{name}({', '.join(map(self.text, args))})"

    def _scalar(self, e: Scalar) -> tuple[str, bool]:
        special = _SPECIAL.get(e.op)
        if special is not None:
            return special(self, e)
        operand = e.args[0].dtype
        if e.op in _ROUNDING and not operand.is_float:
            return self.text(e.args[0], True), True
        if e.op in _INFIX and not (operand.is_bool and e.op in ("lt", "le", "gt", "ge")):
            return self._infix(e)
        if operand.is_float and (e.op in LIBDEVICE or e.op in _COMPOSED):
            return self._call(f"{e.op}_{operand}", *e.args), True
        if operand.is_integer and e.op in _INTEGER:
            return self._integer(e)
        raise CompileError(f"kernel {self.kernel}: scalar op {e.op} on {operand!r} has no CUDA code")

    def _infix(self, e: Scalar) -> tuple[str, bool]:
        a, b = (self.text(x, operand=True) for x in e.args)
        if e.dtype.is_bool and all(isinstance(x, Index) for x in e.args):
            a, b = (self.dim(x.dim, operand=True) for x in e.args if isinstance(x, Index))
        text = f"{a} {_INFIX[e.op]} {b}"
        if e.op in _WRAPPING and e.dtype.is_integer and e.dtype.bits < 64:
            return self._typed(e.dtype, text), True
        return text, False

    def _integer(self, e: Scalar) -> tuple[str, bool]:
        divisor = e.args[1]
        if e.op in ("floordiv", "mod") and isinstance(divisor, Const) and divisor.value > 0:
            a, b = (self.text(x, operand=True) for x in e.args)
            return self._typed(e.dtype, f"{a} {'//' if e.op == 'floordiv' else '%'} {b}"), True
        return self._call(f"{e.op}_{e.dtype}", *e.args), True

    # --- ops of their own form ---

    def _select(self, e: Scalar) -> tuple[str, bool]:
        condition, a, b = (self.text(x, operand=True) for x in e.args)
        return f"{a} if {condition} else {b}", False

    def _cast(self, e: Scalar) -> tuple[str, bool]:
        (x,) = e.args
        if x.dtype == e.dtype:
            return self.text(x, operand=True), True
        if e.dtype.is_bool:
            return f"{self.text(x, operand=True)} != {self._literal(Const(0, x.dtype))}", False
        if x.dtype.is_float and e.dtype.is_integer:
            return self._call(f"saturate_{e.dtype}", x), True
        return self._call(dtype_name(e.dtype), x), True

    def _bitcast(self, e: Scalar) -> tuple[str, bool]:
        return f"{self.text(e.args[0], operand=True)}.view({self._type(e.dtype)})", True

    def _type(self, dtype: DType) -> str:
        self.used.add(dtype_name(dtype))
        return dtype_name(dtype)

    def _negative(self, e: Scalar) -> tuple[str, bool]:
        text = self.text(e.args[0], operand=True)
        if e.dtype.is_float:
            return f"-{text}", False
        return self._typed(e.dtype, f"{self._literal(Const(0, e.dtype))} - {text}"), True

    def _absolute(self, e: Scalar) -> tuple[str, bool]:
        if not e.dtype.is_signed:
            return self.text(e.args[0], operand=True), True
        text = f"abs({self.text(e.args[0])})"
        return (text if e.dtype.is_float else self._typed(e.dtype, text)), True

    def _complement(self, e: Scalar) -> tuple[str, bool]:
        text = self.text(e.args[0], operand=True)
        return (f"not {text}", False) if e.dtype.is_bool else (self._typed(e.dtype, f"~{text}"), True)

    def _extremum(self, e: Scalar) -> tuple[str, bool]:
        if e.dtype.is_bool:
            a, b = (self.text(x, operand=True) for x in e.args)
            return f"{a} {'|' if e.op == 'max' else '&'} {b}", False
        return self._call("maximum" if e.op == "max" else "minimum", *e.args), True


_SPECIAL: dict[str, Callable[[Writer, Scalar], tuple[str, bool]]] = {
    "select": Writer._select, "cast": Writer._cast, "bitcast": Writer._bitcast, "neg": Writer._negative,
    "abs": Writer._absolute, "bitnot": Writer._complement, "max": Writer._extremum, "min": Writer._extremum,
}


def position(buffer: Buffer, indices: tuple[Expr, ...]) -> Dim | None:
    """The row-major position of an access; None where an index is data-dependent."""
    flat = flat_index(Load(buffer, indices))
    return None if flat is None else _recombined(flat)


def _recombined(dim: Dim) -> Dim:
    """A dim with ``b*(a // b) + a % b`` written as ``a``, whatever their common factor."""
    for monomial, c in dim.terms if isinstance(dim, Poly) else ():
        for atom, power in monomial:
            if isinstance(atom, Op) and atom.kind == "%" and power == 1:
                a, b = atom.args
                factor = product(_power(x, p) for x, p in monomial if x is not atom) * c
                whole = dim - factor * mod(a, b)
                rest = whole - factor * b * floordiv(a, b)
                if _length(rest) < _length(whole):
                    return _recombined(rest + factor * a)
    return dim


def _power(atom: Atom, power: int) -> Dim:
    factor = symbol(atom) if isinstance(atom, str) else Poly(((((atom, 1),), 1),))
    return product([factor] * power)


def _length(dim: Dim) -> int:
    return len(dim.terms) if isinstance(dim, Poly) else int(dim != 0)


def _op_symbols(atom: Op) -> set[str]:
    return set().union(*map(symbols, atom.args))


# --- sharing -------------------------------------------------------------------------------------


def _parts(e: Expr) -> tuple[Expr, ...]:
    """What is evaluated whenever the expression is: not the indices of a load under a guard."""
    if isinstance(e, Scalar):
        return e.args
    if isinstance(e, Load):
        return e.indices if e.guard is None else (e.guard,)
    return ()


def _shared(roots: Sequence[Expr]) -> list[Expr]:
    """Subexpressions to be written once, operands first: those used again, and those nested too deeply."""
    order: list[Expr] = []
    uses: dict[Expr, int] = {}
    depth: dict[Expr, int] = {}
    deep: set[Expr] = set()

    def visit(e: Expr) -> None:
        uses[e] = uses.get(e, 0) + 1
        if uses[e] > 1:
            return
        for part in _parts(e):
            visit(part)
        inner = max((depth[p] for p in _parts(e)), default=-1) + 1
        if inner >= _DEEP and isinstance(e, Scalar):
            deep.add(e)
        depth[e] = 0 if e in deep else inner
        if isinstance(e, (Scalar, Load)):
            order.append(e)

    for root in roots:
        visit(root)
    whole = set(roots)
    return [e for e in order if uses[e] > 1 or e in deep and e not in whole]
