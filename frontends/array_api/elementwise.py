"""Elementwise functions: one per elementwise op of the registry, and some that are composed of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...ir.dtypes import as_dtype
from ...ir.op import OPS, Op
from ...ir.ops import elementwise as _records
from ..source import located
from ..tensor import ArrayLike, Tensor, apply, to_value

_ALIASES = {"less_equal": (), "pow": ("power",), "abs": ("absolute",), "acos": ("arccos",)}

__all__ = ["astype", "clip", "isclose", "logical_not", "positive", "round"]

_PARAMETERS = ("x1", "x2", "x3")
_BY_HAND = ("astype", "clip", "where")  # where stands in `searching`


def _function(op: Op) -> Callable[..., Tensor]:
    """The public function of an op's record, with its name and documentation."""
    name = op.api or op.name
    names = ("x",) if op.arity == 1 else _PARAMETERS[: op.arity]

    @located
    def function(*operands: ArrayLike) -> Tensor:
        if len(operands) != op.arity:
            raise TypeError(f"{name}() takes {op.arity} tensors ({', '.join(names)}), got {len(operands)}")
        return apply(op, *operands)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = (
        f"``{name}({', '.join(names)})``: {op.doc}\n\n"
        "Operands broadcast, and their dtypes promote; Python numbers take the tensors' dtype.\n\n"
        "Raises\n------\nShapeError\n    If the shapes do not broadcast.\n"
        "DTypeError\n    If the op does not take these dtypes."
    )
    return function


for _op in [op for op in vars(_records).values() if isinstance(op, Op)]:
    if (_op.api or _op.name) not in _BY_HAND:
        globals()[_op.api or _op.name] = _function(_op)
        __all__.append(_op.api or _op.name)
