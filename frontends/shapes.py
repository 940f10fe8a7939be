"""What users write for dtypes, dimensions, shapes and axes, checked and normalized."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from ..errors import DimensionError, GraphError, GraphwrightError, IndexRangeError
from ..ir.dims import INT64_MAX, Dim, Poly, dim_max, dim_min, floordiv, mod, symbol
from ..ir.dtypes import DType, as_dtype
from ..ir.graph import Value, current_location
from ..ir.types import Shape

__all__ = ["as_axes", "as_axis", "as_dim", "as_shape", "check_name", "fail", "float_dtype"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: floordiv, ast.Mod: mod,
}
_CALLS: dict[str, Callable[..., Dim]] = {"max": dim_max, "min": dim_min}


def fail(
    function: str, error: type[GraphwrightError], problem: str, operands: Iterable[object] = (), advice: str = "",
) -> NoReturn:
    """Raise `error`, naming the function, the user's line, and each operand with its type and line."""
    loc = current_location()
    lines = [f"{function}: {problem}" + (f"  at {loc.file}:{loc.line}" if loc else "")]
    for k, operand in enumerate(operands):
        value = getattr(operand, "_value", operand)
        if isinstance(value, Value):
            where = f" at {value.loc.file}:{value.loc.line}" if value.loc else ""
            lines.append(f"  operand {k}: {value.type}  made by {value.op.name}{where}")
    if advice:
        lines.append(f"  {advice}")
    raise error("\n".join(lines))


def check_name(name: object, what: str) -> str:
    """A name that IR text and keyword arguments can carry: a Python identifier in ASCII."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        fail(what, GraphError, f"{name!r} is not a name", advice="a name has letters, digits and underscores")
    return name


def _parse(node: ast.expr, text: str) -> Dim:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.Name):
        return symbol(node.id)
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        result: Dim = _BINARY[type(node.op)](_parse(node.left, text), _parse(node.right, text))
        return result
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_parse(node.operand, text)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _CALLS:
        return _CALLS[node.func.id](*(_parse(a, text) for a in node.args))
    fail("shape", DimensionError, f"{text!r} is not a dimension", advice="write names, integers, + - * // % max min")


def as_dim(spec: object, what: str = "shape") -> Dim:
    """A dimension from an integer, a name, an expression such as ``"2*N"``, or a dimension.

    Raises
    ------
    DimensionError
        If it is none of these, negative, or more than 2**63 - 1.
    """
    if isinstance(spec, Poly):
        return spec
    if isinstance(spec, str):
        try:
            spec = _parse(ast.parse(spec.strip(), mode="eval").body, spec)
        except SyntaxError:
            fail(what, DimensionError, f"{spec!r} is not a dimension", advice="write a name such as 'N'")
        if isinstance(spec, Poly):
            return spec
    try:
        size = operator.index(None if isinstance(spec, bool) else spec)  # type: ignore[arg-type]
    except TypeError:
        fail(
            what, DimensionError, f"{spec!r} is not a dimension",
            advice="a dimension is an integer, a name such as 'N', or an expression such as '2*N'",
        )
    if not 0 <= size <= INT64_MAX:
        fail(what, DimensionError, f"dimension {spec!r} is not in 0 .. 2**63 - 1")
    return size


def as_shape(spec: object, what: str = "shape") -> Shape:
    """A shape from one dimension or a sequence of them."""
    if isinstance(spec, (str, Poly)) or not isinstance(spec, Iterable):
        spec = (spec,)
    return tuple(as_dim(d, what) for d in spec)


def as_axis(axis: object, rank: int, what: str) -> int:
    """An axis counted from 0; a negative one counts from the end.

    Raises
    ------
    IndexRangeError
        If there is no such axis.
    """
    try:
        k = operator.index(axis)  # type: ignore[arg-type]
    except TypeError:
        fail(what, GraphError, f"axis {axis!r} is not an integer")
    if not -rank <= k < rank:
        fail(
            what, IndexRangeError, f"axis {k} is out of range for rank {rank}",
            advice=f"axes are {-rank} .. {rank - 1}",
        )
    return k % rank


def as_axes(axis: int | Sequence[int] | None, rank: int, what: str) -> tuple[int, ...]:
    """Sorted axes from one, several, or None for all.

    Raises
    ------
    IndexRangeError
        If there is no such axis.
    GraphError
        If one is named twice.
    """
    if axis is None:
        return tuple(range(rank))
    axes = [as_axis(a, rank, what) for a in (axis if isinstance(axis, Iterable) else (axis,))]
    if len(set(axes)) < len(axes):
        fail(what, GraphError, f"axis named twice in {axis}", advice="name each axis once; -1 is the last one")
    return tuple(sorted(axes))


def float_dtype(spec: object, what: str) -> DType:
    """A dtype that must be floating-point."""
    from ..errors import DTypeError

    dtype = as_dtype(spec)
    if not dtype.is_float:
        fail(what, DTypeError, f"needs a floating-point dtype, got {dtype!r}", advice="cast with astype")
    return dtype
