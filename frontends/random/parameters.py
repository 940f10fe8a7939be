"""What distributions are given: where bits come from, shapes, dtypes, and parameters, checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import DTypeError, GraphError, ShapeError
from ...ir.broadcasting import broadcast_shapes
from ...ir.dims import equal
from ...ir.dtypes import DType, float32, promote
from ...ir.types import Shape, shape_text
from ..array_api import asarray, astype
from ..shapes import as_shape, fail, float_dtype
from ..tensor import ArrayLike, Tensor
from .keys import Source, as_key

__all__ = [
    "Drawn", "Rule", "at_least", "check", "drawn", "is_number", "known", "positive", "probability", "shape_of",
    "source_of",
]

Number = int | float | Tensor


@dataclass(frozen=True)
class Rule:
    """What a parameter must be, checked where its value is known when the graph is built."""

    holds: Callable[[Any], Any]
    advice: str


probability = Rule(lambda p: (p >= 0) & (p <= 1), "a probability is from 0 to 1")
positive = Rule(lambda x: x > 0, "it must be positive")
at_least = Rule(lambda x: x >= 0, "it must not be negative")


def source_of(function: str, key: Any) -> Source:
    """Where a draw gets its bits: a key, or a `Generator`, of which each draw has a stream of its own."""
    from .generator import Generator

    return key._source() if isinstance(key, Generator) else Source(as_key(function, key))


def known(x: Any) -> np.ndarray[Any, Any] | None:
    """The value of a parameter, if it is known when the graph is built."""
    if not isinstance(x, Tensor):
        return np.asarray(x)
    value = x._value
    if value.op.name == "constant":
        return np.asarray(value.attrs["value"].array)
    return np.asarray(value.attrs["value"]) if value.op.name == "full" else None


def is_number(x: Any, value: float) -> bool:
    """Whether a parameter is this Python number."""
    return not isinstance(x, Tensor) and bool(x == value)


def check(function: str, name: str, x: Any, rule: Rule) -> None:
    """Refuse a known parameter that is not what it must be; NaN is not."""
    value = known(x)
    if value is not None and value.dtype.kind not in "biuf":
        fail(function, DTypeError, f"{name} is a {type(x).__name__}, no number", [x])
    if value is not None and not np.all(rule.holds(value)):
        wrong = value[~rule.holds(value)].ravel()[0] if value.ndim else value
        fail(function, GraphError, f"{name} = {wrong}", [x] if isinstance(x, Tensor) else (), rule.advice)


@dataclass(frozen=True)
class Drawn:
    """The shape and dtype of a draw, and its parameters: Python numbers as they are, others as tensors."""

    shape: Shape
    dtype: DType
    parameters: tuple[Any, ...]


def drawn(function: str, shape: Any, dtype: object, **parameters: tuple[Any, Rule | None]) -> Drawn:
    """What a draw with floating-point parameters gives; tensors among these broadcast to its shape.

    Parameters
    ----------
    shape : None for that of the parameters together.
    dtype : None for that of the parameters together, float32 without any.

    Raises
    ------
    GraphError
        If a known parameter is out of its range.
    DTypeError, ShapeError
        If a parameter is not floating-point, or does not broadcast to the shape.
    """
    found: list[Any] = []
    for name, (x, rule) in parameters.items():
        if rule is not None:
            check(function, name, x, rule)
        found.append(_number(function, name, x))
    tensors = [x for x in found if isinstance(x, Tensor)]
    if dtype is None:
        common: DType | None = None
        for x in tensors:
            common = x.dtype if common is None else promote(common, x.dtype)
        kind = common or float32
    else:
        kind = float_dtype(dtype, function)
    cast = tuple(astype(x, kind) if isinstance(x, Tensor) else x for x in found)
    return Drawn(shape_of(function, shape, tensors), kind, cast)


def _number(function: str, name: str, x: ArrayLike) -> Number:
    if isinstance(x, (int, float)) and not isinstance(x, bool):
        return x
    if isinstance(x, np.generic) and x.dtype.kind != "b":
        return x.item()  # type: ignore[no-any-return]
    tensor = asarray(x)
    if tensor.dtype.is_integer:
        tensor = astype(tensor, "float32")
    if not tensor.dtype.is_float:
        fail(function, DTypeError, f"{name} must be floating-point, got {tensor.dtype!r}", [tensor], "cast with astype")
    return tensor


def shape_of(function: str, shape: Any, parameters: list[Tensor]) -> Shape:
    """The given shape, to which parameters must broadcast; None for their common one."""
    common: Shape | None = ()
    for x in parameters:
        common = None if common is None else broadcast_shapes(common, x.shape)
    if common is None:
        fail(function, ShapeError, "the shapes of the parameters do not broadcast", parameters)
    if shape is None:
        return common
    wanted = as_shape(shape, function)
    both = broadcast_shapes(common, wanted)
    if both is None or len(both) != len(wanted) or not all(map(equal, both, wanted)):
        problem = f"parameters of shape [{shape_text(common)}] do not broadcast to [{shape_text(wanted)}]"
        fail(function, ShapeError, problem, parameters)
    return wanted
