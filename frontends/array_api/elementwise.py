"""Elementwise functions: one per elementwise op of the registry, and a few that are made of them."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, Signature

from ...errors import ArgumentError
from ...ir.dtypes import as_dtype
from ...ir.op import Op
from ...ir.ops import elementwise as _records
from ..shapes import fail
from ..source import located
from ..tensor import ArrayLike, Tensor, apply, to_value

__all__ = ["astype", "clip", "isclose", "positive"]


def _function(op: Op) -> Callable[..., Tensor]:
    """The public function of an op's record, with its name and documentation."""
    name = op.api or op.name
    names = ("x",) if op.arity == 1 else ("x1", "x2", "x3")[: op.arity]

    @located
    def function(*operands: ArrayLike) -> Tensor:
        if len(operands) != op.arity:
            problem = f"takes {op.arity} tensors ({', '.join(names)}), got {len(operands)}"
            fail(name, ArgumentError, problem, operands)
        return apply(op, *operands)

    function.__name__ = function.__qualname__ = name
    function.__signature__ = Signature([Parameter(n, Parameter.POSITIONAL_ONLY) for n in names])  # type: ignore[attr-defined]
    function.__doc__ = (
        f"{op.doc}\n\n"
        "Operands broadcast and their dtypes promote; Python numbers take the tensors' dtype.\n\n"
        "Raises\n------\nShapeError\n    If the shapes do not broadcast.\n"
        "DTypeError\n    If the op does not take these dtypes.\n"
    )
    return function


@located
def astype(x: ArrayLike, dtype: object) -> Tensor:
    """``x`` in another dtype; floats lose their fraction when they become integers."""
    x, dtype = Tensor(to_value(x)), as_dtype(dtype)
    return x if x.dtype == dtype else apply("cast", x, dtype=dtype)


@located
def clip(x: ArrayLike, min: ArrayLike | None = None, max: ArrayLike | None = None) -> Tensor:
    """``x``, not below `min` and not above `max`; a bound that is None does not bind."""
    if min is not None and max is not None:
        return apply("clip", x, min, max)
    x = Tensor(to_value(x))
    if min is not None:
        return apply("max", x, min)
    return x if max is None else apply("min", x, max)


@located
def isclose(x1: ArrayLike, x2: ArrayLike, rtol: float = 1e-5, atol: float = 1e-8) -> Tensor:
    """Whether ``|x1 - x2| <= atol + rtol * |x2|``, or both are the same infinity."""
    x1, x2 = Tensor(to_value(x1)), Tensor(to_value(x2))
    near = abs(x1 - x2) <= atol + rtol * abs(x2)
    return apply("logical_or", x1 == x2, near & apply("isfinite", x2))


@located
def positive(x: ArrayLike) -> Tensor:
    """``x`` itself."""
    return Tensor(to_value(x))


for _op in [record for record in vars(_records).values() if isinstance(record, Op)]:
    _name = _op.api or _op.name
    if _name not in (*__all__, "where"):  # `where` stands in the chapter on searching
        globals()[_name] = _function(_op)
        __all__.append(_name)
