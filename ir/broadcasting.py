"""How operands of elementwise ops meet: Python scalars, dtype promotion, shape broadcasting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DTypeError, GraphError, ShapeError
from .dims import Dim, equal
from .dtypes import DType, bool_, default_dtype, promote, result_dtype_with_scalar, rounded
from .graph import Literal, Value, make
from .types import Shape, TensorType

if TYPE_CHECKING:
    from .op import Op

__all__ = ["as_value", "broadcast_shapes", "broadcast_to", "full", "lift"]

_SCALARS = (bool, int, float, np.bool_, np.integer, np.floating)


def full(shape: Shape, value: float, dtype: DType) -> Value:
    """A tensor whose elements are all `value`."""
    from .op import OPS

    return make(OPS["full"], (), {"shape": tuple(shape), "value": rounded(value, dtype), "dtype": dtype})


def as_value(x: object, dtype: DType | None = None) -> Value:
    """A value for anything array-like: a `Value`, a Python scalar, or what NumPy can convert."""
    from .dtypes import as_dtype
    from .op import OPS

    if isinstance(x, Value):
        return x
    if isinstance(x, (bool, int, float)):
        return full((), x, dtype or default_dtype(x))
    array = np.asarray(x)
    if dtype is None:
        as_dtype(array.dtype)
    else:
        array = array.astype(dtype.numpy)
    return make(OPS["constant"], (), {"value": Literal(array)})


def broadcast_shapes(a: Shape, b: Shape) -> Shape | None:
    """The common shape by NumPy's rule, symbolic dimensions included; None if there is none."""
    rank = max(len(a), len(b))
    a, b = (1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b
    out: list[Dim] = []
    for p, q in zip(a, b):
        if equal(p, q) or q == 1:
            out.append(p)
        elif p == 1:
            out.append(q)
        else:
            return None
    return tuple(out)


def broadcast_to(x: Value, shape: Shape) -> Value:
    """`x` repeated along new and size-1 axes up to `shape` (which its own shape must fit)."""
    from .op import OPS

    own = x.tensor.shape
    if len(own) == len(shape) and all(map(equal, own, shape)):
        return x
    if x.op.name == "full":
        return full(shape, x.attrs["value"], x.tensor.dtype)
    shift = len(shape) - len(own)
    kept = [k for k, d in enumerate(own) if not (d == 1 and shape[k + shift] != 1)]
    if len(kept) < len(own):
        x = make(OPS["reshape"], (x,), {"shape": tuple(own[k] for k in kept)})
    return make(OPS["broadcast"], (x,), {"shape": tuple(shape), "dims": tuple(k + shift for k in kept)})


def _common_dtype(op: Op, operands: Sequence[object]) -> DType | None:
    dtype: DType | None = None
    for x in operands:
        if isinstance(x, Value):
            dtype = x.tensor.dtype if dtype is None else promote(dtype, x.tensor.dtype)
    for x in operands:
        if not isinstance(x, Value) and isinstance(x, _SCALARS):
            scalar = x.item() if isinstance(x, np.generic) else x
            dtype = default_dtype(scalar) if dtype is None else result_dtype_with_scalar(dtype, scalar)
    return dtype


def lift(op: Op, operands: Sequence[object]) -> tuple[Value, ...]:
    """Operands brought to one dtype and one shape, as an elementwise op needs them.

    ``where`` keeps its condition bool. Python scalars take the tensors' dtype.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.
    DTypeError
        If the dtypes have no common one.
    """
    from .op import Typing

    head: tuple[object, ...] = ()
    if op.name == "where":
        head, operands = tuple(operands[:1]), operands[1:]
    if not all(isinstance(x, (Value, np.ndarray, *_SCALARS)) for x in (*head, *operands)):
        bad = next(x for x in (*head, *operands) if not isinstance(x, (Value, np.ndarray, *_SCALARS)))
        made = [x for x in (*head, *operands) if isinstance(x, Value)]
        Typing(op, made, {}).fail(
            GraphError, f"an operand of type {type(bad).__name__}", "give tensors, arrays or numbers"
        )
    operands = [as_value(x) if isinstance(x, np.ndarray) else x for x in operands]
    try:
        dtype = _common_dtype(op, operands)
        given = [as_value(x, dtype) if not isinstance(x, Value) else x for x in operands]
        values = [_cast(x, dtype) for x in given]
    except DTypeError as error:
        made = [as_value(x) for x in operands]
        Typing(op, made, {}).fail(DTypeError, str(error))
    values = [as_value(x, bool_) for x in head] + values
    shape: Shape | None = ()
    for v in values:
        shape = broadcast_shapes(shape, v.tensor.shape) if shape is not None else None
    if shape is None:
        Typing(op, [*values[:len(head)], *given], {}).fail(
            ShapeError, "the shapes do not broadcast",
            "dimensions must be equal or 1, aligned at the last axis",
        )
    return tuple(broadcast_to(v, shape) for v in values)


def _cast(x: Value, dtype: DType | None) -> Value:
    from .op import OPS

    if dtype is None or x.tensor.dtype == dtype:
        return x
    if x.op.name == "full":
        return full(x.tensor.shape, x.attrs["value"], dtype)
    return make(OPS["cast"], (x,), {"dtype": dtype})


def same_type(a: TensorType, b: TensorType) -> bool:
    """Whether two types are equal, symbolic dimensions decided."""
    return a.dtype == b.dtype and len(a.shape) == len(b.shape) and all(map(equal, a.shape, b.shape))
