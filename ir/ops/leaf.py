"""Values that come from outside or from nothing: inputs, states, constants, counters."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import DimensionError, DTypeError
from ..dtypes import as_dtype, elements, holds, number_shown
from ..loops import Expr, Index
from ..op import REQUIRED, ZERO_GRADIENT, Definition, Op, Sample, Typing, register
from ..scalars import cast, const
from ..types import TensorType

__all__ = ["constant", "dim", "full", "input_", "iota", "state"]


def _declared(t: Typing) -> TensorType:
    for d in t["shape"]:
        if isinstance(d, int) and d < 0:
            t.fail(DimensionError, f"negative dimension in shape {t['shape']}")
    return TensorType(t["dtype"], tuple(t["shape"]))


def _created(t: Typing) -> TensorType:
    declared = _declared(t)
    t.require_sizes(declared.shape)
    return declared


def _filled(t: Typing) -> TensorType:
    value, dtype = t["value"], t["dtype"]
    if not holds(dtype, value):
        problem = f"{number_shown(value)} is not an element of {dtype!r}"
        t.fail(DTypeError, problem, f"{dtype!r} needs {elements(dtype)}")
    return _created(t)


def _no_reference(**_: Any) -> Any:
    raise AssertionError("the value of an input or state is given, not computed")


_DECLARED = {"name": REQUIRED, "shape": REQUIRED, "dtype": REQUIRED}

input_ = register(Op("input", "leaf", _declared, _no_reference, attrs=_DECLARED, arity=0, doc="An argument."))
state = register(Op(
    "state", "leaf", _declared, _no_reference, attrs=_DECLARED, arity=0, doc="The value of a variable.",
))

constant = register(Op(
    "constant", "leaf",
    infer=lambda t: TensorType(as_dtype(t["value"].array.dtype), t["value"].array.shape),
    reference=lambda value: value.array,
    attrs={"value": REQUIRED}, arity=0,
    doc="A literal array.",
))

full = register(Op(
    "full", "map",
    infer=_filled,
    reference=lambda shape, value, dtype: np.full(shape, value, dtype.numpy),
    define=lambda d: const(d["value"], d.out.dtype),
    vjp=ZERO_GRADIENT,
    attrs={"shape": REQUIRED, "value": REQUIRED, "dtype": REQUIRED},
    cost=0, arity=0,
    samples=lambda: [
        Sample((), {"shape": s, "value": 2.0, "dtype": as_dtype("float32")}) for s in ((), (3,), (2, 0))
    ],
    doc="A tensor of one repeated value.",
))


def _iota(shape: tuple[int, ...], axis: int, dtype: Any) -> Any:
    column = np.arange(shape[axis]).astype(dtype.numpy).reshape((-1,) + (1,) * (len(shape) - axis - 1))
    return np.broadcast_to(column, shape)


def _define_iota(d: Definition) -> Expr:
    return cast(Index(d.index[d["axis"]]), d.out.dtype)


iota = register(Op(
    "iota", "map",
    infer=_created,
    reference=_iota,
    define=_define_iota,
    vjp=ZERO_GRADIENT,
    attrs={"shape": REQUIRED, "axis": 0, "dtype": REQUIRED},
    cost=0, arity=0,
    samples=lambda: [Sample((), {"shape": (3, 4), "axis": a, "dtype": as_dtype("int64")}) for a in (0, 1)],
    doc="The position along one axis.",
))

dim = register(Op(
    "dim", "map",
    infer=lambda t: TensorType(t["dtype"], ()),
    reference=lambda value, dtype: np.asarray(value).astype(dtype.numpy),
    define=lambda d: cast(Index(d["value"]), d.out.dtype),
    vjp=ZERO_GRADIENT,
    attrs={"value": REQUIRED, "dtype": REQUIRED},
    cost=0, arity=0,
    samples=lambda: [Sample((), {"value": 7, "dtype": as_dtype(t)}) for t in ("float32", "int64")],
    doc="A dimension as a number; integers wrap.",
))
