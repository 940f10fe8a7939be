"""Expand the scalar functions that no target has as an instruction into machine ops.

Every expansion is a branch-free expression (``select`` evaluates both sides), so it vectorizes,
inlines, and means the same on every target; no math library is called. Bounds stand in `ULP`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..errors import CompileError
from ..ir.dtypes import DType, float32, float64
from ..ir.loops import Expr, For, If, Kernel, Let, Load, Reduce, Scalar, Stmt, Store
from ..ir.scalars import SCALARS
from . import math_exact
from .math_builder import Num
from .math_float32 import FLOAT32
from .math_float64 import FLOAT64, SHORT

__all__ = ["ULP", "expand_expr", "expand_math"]

# The largest error in units in the last place of the result, subnormal results included; 0 is exact.
# Conditions: sin cos tan: abs(x) <= 1e6 (float64), 1e8 (float32), digits are lost beyond;
# logaddexp: in units of the larger of the result and the operands, since the sum may cancel;
# float64 fmod: abs(x / y) < 2**200, beyond it gives 0; float64 pow: needs an fma rounded once.
ULP: dict[tuple[str, str], float] = {
    **{(name, "float32"): 2.0 for name in FLOAT32},
    **{(name, "float32"): 1.0 for name in SHORT},  # rounded once from float64
    **{(name, "float32"): 3.0 for name in ("sigmoid", "logaddexp")},
    **{(name, "float64"): 3.0 for name in FLOAT64},
    **{(name, dtype): 4.0 for name in ("erfinv", "ndtri") for dtype in ("float32", "float64")},
    **{(name, dtype): 0.0 for name in ("fmod", "nextafter") for dtype in ("float32", "float64")},
}


def _expansion(op: str, dtype: DType) -> Callable[..., Num]:
    """The function that builds the expansion of `op` for operands of `dtype`."""
    if dtype.is_integer and op == "ipow":
        return math_exact.ipow
    table = {float32: FLOAT32, float64: FLOAT64}.get(dtype, {})
    if op not in table:
        raise CompileError(f"scalar op {op} has no expansion for {dtype!r}")
    return table[op]


class _Expander:
    """Rewrites expressions bottom-up; equal operations on equal operands become one object.

    Sharing is kept and made where it was missing, so a DAG never unfolds into a tree. Objects are
    told apart by identity alone: the tables below keep each one alive.
    """

    def __init__(self) -> None:
        self.done: dict[int, tuple[Expr, Expr]] = {}
        self.interned: dict[object, Expr] = {}

    def __call__(self, expr: Expr) -> Expr:
        if id(expr) not in self.done:
            self.done[id(expr)] = (expr, self._rewrite(expr))
        return self.done[id(expr)][1]

    def _rewrite(self, expr: Expr) -> Expr:
        if isinstance(expr, Scalar):
            return self._scalar(expr, tuple(self(a) for a in expr.args))
        if isinstance(expr, Load):
            indices = tuple(self(i) for i in expr.indices)
            guard = None if expr.guard is None else self(expr.guard)
            unchanged = guard is expr.guard and _same(indices, expr.indices)
            return self._intern(expr if unchanged else replace(expr, indices=indices, guard=guard))
        if isinstance(expr, Reduce):
            body = self(expr.body)
            return expr if body is expr.body else replace(expr, body=body)
        return self._intern(expr)

    def _intern(self, expr: Expr) -> Expr:
        return self.interned.setdefault(expr, expr)

    def _scalar(self, expr: Scalar, args: tuple[Expr, ...]) -> Expr:
        key = (expr.op, tuple(id(a) for a in args), expr.dtype)
        if key not in self.interned:
            if SCALARS[expr.op].machine:
                result: Expr = expr if _same(args, expr.args) else Scalar(expr.op, args, expr.dtype)
                hash(result)  # cached, so that hashing a deep expression later never recurses
            else:
                result = _expansion(expr.op, args[0].dtype)(*(Num(a) for a in args)).expr
            self.interned[key] = result
        return self.interned[key]


def _same(a: tuple[object, ...], b: tuple[object, ...]) -> bool:
    return all(x is y for x, y in zip(a, b, strict=True))


def expand_expr(expr: Expr) -> Expr:
    """`expr` with every op that is not a machine op expanded, and equal subexpressions as one object.

    Raises
    ------
    CompileError
        If an op has no expansion for the dtype of its operands.
    """
    return _Expander()(expr)


def expand_math(kernel: Kernel) -> Kernel:
    """`kernel` with all its expressions expanded; itself if nothing changes."""
    expand = _Expander()
    body = _block(kernel.body, expand)
    return kernel if body is kernel.body else replace(kernel, body=body)


def _block(body: tuple[Stmt, ...], expand: _Expander) -> tuple[Stmt, ...]:
    new = tuple(_statement(s, expand) for s in body)
    return body if _same(new, body) else new


def _statement(s: Stmt, expand: _Expander) -> Stmt:
    if isinstance(s, For):
        body = _block(s.body, expand)
        return s if body is s.body else replace(s, body=body)
    if isinstance(s, If):
        condition, then, otherwise = expand(s.condition), _block(s.then, expand), _block(s.otherwise, expand)
        unchanged = _same((condition, then, otherwise), (s.condition, s.then, s.otherwise))
        return s if unchanged else If(condition, then, otherwise)
    if isinstance(s, Let):
        value = expand(s.value)
        return s if value is s.value else replace(s, value=value)
    if isinstance(s, Store):
        indices, value = tuple(expand(i) for i in s.indices), expand(s.value)
        unchanged = value is s.value and _same(indices, s.indices)
        return s if unchanged else replace(s, indices=indices, value=value)
    return s
