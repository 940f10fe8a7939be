"""Whether two computations of one value agree, as far as rounding allows.

The reference is the interpreter, twice: in the graph's own dtypes, and with float64 in place of float32.
How far these two are apart tells how much rounding matters at each value; compiled code may be a few
times as far from the float64 values. Where these are not finite nothing is compared, because passes may
replace what overflows by what does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import GraphwrightError
from ...ir.dtypes import float32, float64
from ...ir.graph import Graph, Literal, Value, make, topological
from ...ir.interpreter import bind_symbols, evaluate_values

__all__ = ["Difference", "Reference"]

Array = np.ndarray[Any, np.dtype[Any]]

_RELATIVE = {"float32": 1e-4, "float64": 1e-9}
_ROUNDINGS = 16  # how many times as far as the interpreter in the value's own dtype


@dataclass(frozen=True)
class Difference:
    """Where two arrays differ most: at `index`, `got` is not `expected`; `count` of `size` elements differ."""

    got: Any
    expected: Any
    index: tuple[int, ...]
    error: float
    count: int
    size: int

    def __str__(self) -> str:
        return (
            f"{self.count} of {self.size} elements differ, by up to {self.error:.6g}: "
            f"at {list(self.index)} it is {self.got}, not {self.expected}"
        )


class Reference:
    """What the interpreter gives for values of one graph.

    Parameters
    ----------
    graph : its inputs and states are given `arrays`.
    values : those that are compared (default: the roots).
    env : the symbolic dimensions, where the arrays do not tell them (a kernel's region).
    """

    def __init__(
        self,
        graph: Graph,
        arrays: Sequence[Array],
        values: Sequence[Value] | None = None,
        env: Mapping[str, int] | None = None,
    ) -> None:
        leaves = (*graph.inputs, *graph.states)
        env = bind_symbols([v.tensor for v in leaves], [a.shape for a in arrays]) if env is None else env
        self.values = list(graph.roots if values is None else values)
        self.own = evaluate_values(self.values, dict(zip(leaves, arrays)), env)
        self.wide = self._widened(leaves, arrays, env)

    def _widened(self, leaves: Sequence[Value], arrays: Sequence[Array], env: Mapping[str, int]) -> list[Any]:
        try:
            images = widen([*leaves, *self.values])
            known = {images[v]: _wide(a) for v, a in zip(leaves, arrays)}
            return evaluate_values([images[v] for v in self.values], known, env)
        except (GraphwrightError, TypeError):  # an op of the user's that takes float32 only
            return self.own

    def difference(self, k: int, got: Array) -> Difference | None:
        """How an array differs from the k-th value; None if it does not."""
        own, wide = np.asarray(self.own[k]), np.asarray(self.wide[k])
        if own.dtype.kind != "f":
            wrong = (got != own) & (got != wide)
            return _difference(got, own, wrong) if wrong.any() else None
        with np.errstate(all="ignore"):
            apart = np.abs(own.astype(np.float64) - wide)
            relative = _RELATIVE[own.dtype.name]
            rounding = _ROUNDINGS * np.max(apart, where=np.isfinite(apart), initial=0.0)
            scale = np.max(np.abs(wide), where=np.isfinite(wide), initial=0.0)
            allowed = relative * np.abs(wide) + rounding + 8 * np.finfo(own.dtype).eps * scale
            largest = float(np.finfo(own.dtype).max)
            compared = np.isfinite(wide) & (np.abs(wide) < largest / 2)
            wrong = compared & ~(np.abs(got - wide) <= allowed)
        return _difference(got, wide.astype(own.dtype), wrong) if wrong.any() else None

    def first_difference(self, arrays: Sequence[Any]) -> tuple[int, Difference] | None:
        """The first value that differs from its array, by position, and how."""
        for k, array in enumerate(arrays):
            found = self.difference(k, np.asarray(array))
            if found is not None:
                return k, found
        return None


def _difference(got: Array, expected: Array, wrong: Array) -> Difference:
    with np.errstate(all="ignore"):
        error = np.where(wrong, np.abs(got.astype(np.float64) - expected), -1.0)
    error = np.where(wrong & np.isnan(error), np.inf, error)
    at = np.unravel_index(int(np.argmax(error)), error.shape)
    index = tuple(int(i) for i in at)
    return Difference(got[index], expected[index], index, float(error[index]), int(wrong.sum()), wrong.size)


def widen(roots: Sequence[Value]) -> dict[Value, Value]:
    """The image of each value with float64 in place of float32."""
    images: dict[Value, Value] = {}
    for v in topological(roots):
        attrs = {k: _wide_attr(a) for k, a in v.attrs.items()}
        images[v] = make(v.op, [images[o] for o in v.operands], attrs, tuple(map(_wide_region, v.regions)), v.locs)
    return images


def _wide_region(region: Graph) -> Graph:
    images = widen([*region.inputs, *region.states, *region.roots])
    new: Callable[[Sequence[Value]], tuple[Value, ...]] = lambda values: tuple(images[v] for v in values)  # noqa: E731
    return Graph(region.name, new(region.inputs), new(region.states), new(region.outputs))


def _wide_attr(a: Any) -> Any:
    if isinstance(a, Literal):
        return Literal(_wide(a.array))
    return float64 if a is float32 else a


def _wide(a: Array) -> Array:
    return a.astype(np.float64) if a.dtype == np.float32 else a
