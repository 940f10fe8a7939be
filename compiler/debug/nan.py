"""``debug="nan"``: every op runs as it stands after the passes, and what it makes is looked at.

The kernels compute one op each, and give back all their results, so that a NaN or an infinity is seen
where it comes into being, also when a later op would hide it.
"""

from __future__ import annotations

import math
from typing import NoReturn

import numpy as np

from ...errors import NumericError
from ...ir.graph import Graph, Value
from ...ir.interpreter import bind_symbols, evaluate_values
from ...ir.types import TensorType
from ...passes.pipelines import GRAPH
from ...runtime.buffers import Array
from ...runtime.executable import Executable
from ..driver import CpuLowered
from .bodies import Place, is_control, watch_bodies
from .guarded import Guarded, describe, native, where
from .statistics import statistics

__all__ = ["NanGuard"]

_MOVES = {
    "broadcast", "transpose", "reshape", "slice", "reverse", "pad", "concat", "take", "full", "iota", "constant",
    "stop_gradient",
}  # fmt: skip


class NanGuard(Guarded):
    """Stops at the first op that makes a NaN from operands without any, or an infinity from finite ones."""

    def build(self) -> Executable:
        optimized: Graph = GRAPH.until("dce").run(self.graph).ir
        self.optimized = optimized
        self.watched = [v for v in optimized if is_control(v) or _makes_numbers(v)]
        plain = [v for v in self.watched if not is_control(v)]
        inside = [o for v in self.watched if is_control(v) for o in v.operands]
        self.results = list(dict.fromkeys((*optimized.roots, *plain, *(o for o in inside if _is_made(o)))))
        graph = Graph(self.graph.name, self.graph.inputs, self.graph.states, tuple(self.results))
        lowered = CpuLowered(graph, self.lowered.target, optimize=False)
        return native(lowered, self.copies)

    def run(self, arguments: list[Array]) -> tuple[list[Array], list[Array]]:
        optimized = self.optimized
        leaves = (*self.graph.inputs, *self.graph.states)
        known = dict(zip(leaves, (*arguments, *(c.array for c in self.copies))))
        self._check_given(known)
        made = dict(zip(self.results, self.inner(*arguments)))
        known |= made
        env = bind_symbols([v.tensor for v in leaves], [known[v].shape for v in leaves])
        for value in self.watched:
            if is_control(value):
                self._look_inside(value, known, env)
            elif not np.isfinite(made[value]).all():
                self._judge(value, self._operands(value, known, env), made[value])
        new = dict(optimized.updates)
        states = [made[new[s]] if s in new else known[s] for s in self.graph.states]
        return [made[v] for v in optimized.outputs], states

    def _check_given(self, known: dict[Value, Array]) -> None:
        """Raise NumericError for a NaN in an argument or a variable."""
        for value, array in known.items():
            if array.dtype.kind == "f" and np.isnan(array).any():
                kind = "input" if value.op.name == "input" else "variable"
                raise NumericError(
                    f"{self.graph.name}: {kind} {value.attrs['name']} holds NaN\n  {statistics(array)}\n"
                    "  no variable was updated"
                )

    def _operands(self, value: Value, known: dict[Value, Array], env: dict[str, int]) -> list[Array]:
        return [np.asarray(o) for o in evaluate_values(value.operands, known, env)]

    def _look_inside(self, value: Value, known: dict[Value, Array], env: dict[str, int]) -> None:
        """Raise NumericError if a value of a loop's or branch's body is where a NaN or an infinity began."""

        def observe(v: Value, operands: list[Array], result: Array, places: tuple[Place, ...]) -> None:
            if _makes_numbers(v) and not np.isfinite(result).all():
                self._judge(v, operands, result, places)

        with np.errstate(all="ignore"):
            watch_bodies(value, self._operands(value, known, env), env, observe)

    def _judge(
        self, value: Value, operands: list[Array], result: Array, places: tuple[Place, ...] = ()
    ) -> None:
        """Raise NumericError if the value is where it began."""
        numbers = [o for o in operands if o.dtype.kind == "f"]
        nan = bool(np.isnan(result).any()) and not any(np.isnan(o).any() for o in numbers)
        infinity = bool(np.isinf(result).any()) and all(np.isfinite(o).all() for o in numbers)
        if nan or infinity:
            self._fail(value, result, operands, "NaN" if nan else "an infinity", places)

    def _fail(
        self, value: Value, result: Array, operands: list[Array], what: str, places: tuple[Place, ...]
    ) -> NoReturn:
        bad = np.isnan(result) if what == "NaN" else np.isinf(result)
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        text = [f"{self.graph.name}: {value.op.name} makes {what}, {where(value.loc)}"]
        text += [f"  {place}" for place in reversed(places)]
        text.append(f"  {describe(value, 3)}")
        text.append(f"  result: {statistics(result)}; the first at {list(first)}")
        for k, (v, array) in enumerate(zip(value.operands, operands)):
            there = f"; there {array[first]}" if array.shape == result.shape else ""
            text.append(f"  operand {k}: {statistics(array)}{there}  made by {describe(v, 1)} {where(v.loc)}")
        raise NumericError("\n".join([*text, "  no variable was updated"]))


def _makes_numbers(v: Value) -> bool:
    """Whether a value is computed, of floats, and not told to be infinite."""
    given = [a for a in v.attrs.values() if isinstance(a, float)]
    plain = v.op.kind not in ("leaf", "view") and v.op.name not in _MOVES
    floats = isinstance(v.type, TensorType) and v.type.dtype.is_float
    return plain and floats and not v.regions and all(map(math.isfinite, given))


def _is_made(v: Value) -> bool:
    """Whether a value is computed, rather than given."""
    return v.op.kind != "leaf" and isinstance(v.type, TensorType)

