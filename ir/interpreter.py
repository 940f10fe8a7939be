"""The meaning of a graph: an interpreter in NumPy, with which everything compiled is compared.

Every value is computed by its op's `reference`, and its shape checked against the inferred type, so
that a wrong type rule shows. Regions are graphs and run the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError, DimensionError, VerifyError
from .dims import Dim, Poly, coefficient, evaluate, substitute, symbol, symbols
from .graph import Graph, Literal, Value, topological
from .op import assumptions
from .types import TensorType

__all__ = ["bind_symbols", "evaluate_attrs", "evaluate_values", "interpret"]

Array = np.ndarray[Any, np.dtype[Any]]


def interpret(
    graph: Graph, inputs: Sequence[Any], states: Sequence[Any] = ()
) -> tuple[list[Array], list[Array]]:
    """Run a graph.

    Parameters
    ----------
    inputs, states : one array-like per input and per state, of its dtype and shape. Symbolic
        dimensions get their values from these shapes.

    Returns
    -------
    The outputs, and the new values of all states (a state without an update keeps its value).

    Raises
    ------
    ArgumentError
        If an array has the wrong dtype or rank, or there are too few or too many.
    DimensionError
        If shapes contradict each other, or a dimension is impossible for one of the ops.
    """
    values = (*graph.inputs, *graph.states)
    arrays = [_argument(v, a) for v, a in _pairs(values, (*inputs, *states))]
    env = bind_symbols([v.tensor for v in values], [a.shape for a in arrays])
    known: dict[Value, Any] = dict(zip(values, arrays))
    with np.errstate(all="ignore"):
        _run(graph.roots, known, env)
    updated = dict(graph.updates)
    return [known[v] for v in graph.outputs], [known[updated.get(s, s)] for s in graph.states]


def evaluate_values(values: Sequence[Value], known: Mapping[Value, Any], env: Mapping[str, int]) -> list[Any]:
    """The arrays of values, given those of the inputs they depend on and the symbolic dimensions."""
    memo = dict(known)
    with np.errstate(all="ignore"):
        _run(values, memo, env)
    return [memo[v] for v in values]


def bind_symbols(types: Sequence[TensorType], shapes: Sequence[tuple[int, ...]]) -> dict[str, int]:
    """Values of the symbolic dimensions that give types these shapes.

    Raises
    ------
    DimensionError
        If there are none, or a symbol is not determined.
    """
    env: dict[str, int] = {}
    equations = [(dim, size) for t, shape in zip(types, shapes) for dim, size in zip(t.shape, shape)]
    open_ = equations
    while open_:
        rest = [(dim, size) for dim, size in open_ if not _solve(dim, size, env)]
        if len(rest) == len(open_):
            names = sorted(set().union(*(symbols(d) for d, _ in rest)) - set(env))
            raise DimensionError(f"the shapes do not determine {', '.join(names)}")
        open_ = rest
    for dim, size in equations:
        if evaluate(dim, env) != size:
            values = ", ".join(f"{k} = {v}" for k, v in sorted(env.items()))
            raise DimensionError(f"dimension {dim} must be {evaluate(dim, env)}, got {size}  ({values})")
    return env


def _solve(dim: Dim, size: int, env: dict[str, int]) -> bool:
    """Bind the one unknown symbol of a linear equation; whether the dim is now known."""
    left = substitute(dim, env)
    unknown = symbols(left)
    if len(unknown) == 1:
        (name,) = unknown
        factor = coefficient(left, name)
        if isinstance(factor, int) and factor:
            rest = left - factor * symbol(name)
            if isinstance(rest, int):
                env[name] = (size - rest) // factor
                if env[name] < 0:
                    raise DimensionError(f"dimension {dim} cannot be {size}: {name} would be negative")
                return True
    return not unknown


def evaluate_attrs(attrs: Mapping[str, Any], env: Mapping[str, int]) -> dict[str, Any]:
    """Attributes as `reference` takes them: symbolic dimensions replaced by their values."""
    return {name: _concrete(value, env) for name, value in attrs.items()}


def _concrete(value: Any, env: Mapping[str, int]) -> Any:
    if isinstance(value, Poly):
        return evaluate(value, env)
    return tuple(_concrete(v, env) for v in value) if isinstance(value, tuple) else value


# --- running -------------------------------------------------------------------------------------


def _pairs(values: Sequence[Value], arrays: Sequence[Any]) -> Iterable[tuple[Value, Any]]:
    if len(values) != len(arrays):
        raise ArgumentError(f"the graph takes {len(values)} arrays (inputs, then states), got {len(arrays)}")
    return zip(values, arrays)


def _argument(value: Value, array: Any) -> Array:
    """An argument as an array of its value's dtype; Python numbers take it."""
    t, name = value.tensor, value.attrs.get("name", value.op.name)
    result = np.asarray(array, dtype=None if hasattr(array, "dtype") else t.dtype.numpy)
    if result.dtype != t.dtype.numpy or result.ndim != t.rank:
        raise ArgumentError(f"{name}: needs {t}, got {result.dtype}{list(result.shape)}")
    return result


def _run(roots: Iterable[Value], known: dict[Value, Any], env: Mapping[str, int]) -> None:
    """Compute what the roots need, into `known`."""
    for value in _needed(roots, known):
        known[value] = _checked(value, _compute(value, [known[o] for o in value.operands], env), env)


def _needed(roots: Iterable[Value], known: Mapping[Value, Any]) -> list[Value]:
    """Values to compute, operands first; what is known hides what it was computed from."""
    if all(v.op.kind == "leaf" for v in known):
        return [v for v in topological(roots) if v not in known]
    order: list[Value] = []
    stack = [(v, False) for v in roots]
    seen = set(known)
    while stack:
        value, done = stack.pop()
        if done:
            order.append(value)
        elif value not in seen:
            seen.add(value)
            stack.append((value, True))
            stack.extend((o, False) for o in value.operands)
    return order


def _compute(value: Value, operands: list[Any], env: Mapping[str, int]) -> Any:
    if value.regions:
        bodies = [_Body(region, env) for region in value.regions]
        return value.op.reference(*operands, bodies=bodies, **evaluate_attrs(value.attrs, env))
    if any(isinstance(v, Literal) for v in value.attrs.values()):
        return value.op.reference(*operands, **value.attrs)
    for a, b, problem in assumptions(value) if env else ():
        if evaluate(a, env) > evaluate(b, env):
            sizes = ", ".join(f"{k} = {v}" for k, v in sorted(env.items()))
            raise DimensionError(f"{problem}  (here {sizes})")
    return value.op.reference(*operands, **evaluate_attrs(value.attrs, env))


class _Body:
    """A region that an op's reference can run (`ir.op.Body`)."""

    def __init__(self, region: Graph, env: Mapping[str, int]) -> None:
        self.region, self.env = region, env

    @property
    def outputs(self) -> list[tuple[np.dtype[Any], tuple[int, ...]]]:
        types = [v.tensor for v in self.region.outputs]
        return [(t.dtype.numpy, tuple(evaluate(d, self.env) for d in t.shape)) for t in types]

    def __call__(self, *operands: Any) -> tuple[Any, ...]:
        known: dict[Value, Any] = {v: np.asarray(a) for v, a in zip(self.region.inputs, operands, strict=True)}
        _run(self.region.outputs, known, self.env)
        return tuple(known[v] for v in self.region.outputs)


def _checked(value: Value, result: Any, env: Mapping[str, int]) -> Any:
    """The result as arrays of the inferred types.

    Raises
    ------
    VerifyError
        If a shape contradicts the type rule: an op's record is wrong.
    """
    if not isinstance(value.type, TensorType):
        return tuple(_as_type(value, r, t, env) for r, t in zip(result, value.type.items, strict=True))
    return _as_type(value, result, value.type, env)


def _as_type(value: Value, result: Any, t: TensorType, env: Mapping[str, int]) -> Array:
    array = np.asarray(result, dtype=t.dtype.numpy)
    shape = tuple(evaluate(d, env) for d in t.shape)
    if array.shape != shape:
        raise VerifyError(
            f"{value.op.name}: the reference gives shape {array.shape}, the type {t} says {shape}"
        )
    return array
