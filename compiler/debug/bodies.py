"""The bodies of loops and branches under a debugger: run by the interpreter, value by value, with the step at hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...ir.dims import evaluate
from ...ir.graph import Graph, Value, topological
from ...ir.interpreter import evaluate_attrs, evaluate_values
from ...runtime.buffers import Array
from .guarded import where

__all__ = ["Place", "is_control", "watch_bodies"]

Observe = Callable[[Value, list[Array], Array, "tuple[Place, ...]"], None]


@dataclass(frozen=True)
class Place:
    """Where in a loop or branch a value was computed: the op, which of its regions, and at which run of it."""

    op: Value
    region: int
    run: int
    env: Mapping[str, int]

    def __str__(self) -> str:
        name = self.op.op.name
        if name not in ("scan", "while"):
            return f"in branch {self.region} of {name}, {where(self.op.loc)}"
        which = f"step {self.run}"
        if self.op.attrs.get("reverse"):
            which += f" (element {evaluate(self.op.attrs['length'], self.env) - 1 - self.run})"
        part = "the condition of " if name == "while" and self.region == 0 else ""
        return f"in {part}{which} of {name}, {where(self.op.loc)}"


def is_control(value: Value) -> bool:
    """Whether a value is a loop or a branch, rather than a kernel or an op."""
    return bool(value.regions) and value.op.name != "fusion"


def watch_bodies(
    value: Value, operands: Sequence[Array], env: Mapping[str, int], observe: Observe,
    places: tuple[Place, ...] = (),
) -> Any:
    """Run a loop or branch; `observe` is shown each value of its bodies, with its operands and where it stands.

    Returns
    -------
    The op's results.
    """
    bodies = [_Body(value, k, env, observe, places) for k in range(len(value.regions))]
    return value.op.reference(*operands, bodies=bodies, **evaluate_attrs(value.attrs, env))


class _Body:
    """A region as an op's reference runs it (`ir.op.Body`)."""

    def __init__(
        self, owner: Value, index: int, env: Mapping[str, int], observe: Observe, places: tuple[Place, ...]
    ) -> None:
        self.owner, self.index, self.env, self.observe, self.places = owner, index, env, observe, places
        self.region: Graph = owner.regions[index]
        self.runs = 0

    @property
    def outputs(self) -> list[tuple[np.dtype[Any], tuple[int, ...]]]:
        types = [v.tensor for v in self.region.outputs]
        return [(t.dtype.numpy, tuple(evaluate(d, self.env) for d in t.shape)) for t in types]

    def __call__(self, *operands: Any) -> tuple[Any, ...]:
        places = (*self.places, Place(self.owner, self.index, self.runs, self.env))
        self.runs += 1
        known: dict[Value, Any] = {v: np.asarray(a) for v, a in zip(self.region.inputs, operands, strict=True)}
        for v in topological(self.region.outputs):
            if v in known:
                continue
            given = [known[o] for o in v.operands]
            if is_control(v):
                known[v] = watch_bodies(v, given, self.env, self.observe, places)
            else:
                known[v] = evaluate_values([v], known, self.env)[0]
                self.observe(v, given, known[v], places)
        return tuple(known[v] for v in self.region.outputs)
