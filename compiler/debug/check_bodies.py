"""``debug="check"`` in loops and branches: their kernels, each a function of its own, against the interpreter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from ...ir.graph import Graph, Value
from ...ir.interpreter import evaluate_values
from ...ir.op import OPS
from ...ir.ops.structure import item
from ...ir.types import TupleType
from ...runtime.buffers import Array
from ...runtime.executable import Executable
from .bodies import Place, is_control, watch_bodies
from .compare import Difference, Reference
from .guarded import Fused, Guarded, native

__all__ = ["BodyFault", "BodyKernels"]


class BodyFault(Exception):
    """A kernel in a body that differs from its ops: the fusion, which of its results, how, and where."""

    def __init__(self, fusion: Value, result: int, difference: Difference, places: tuple[Place, ...]) -> None:
        super().__init__()
        self.fusion, self.result, self.difference, self.places = fusion, result, difference, places


class BodyKernels:
    """The kernels in the bodies of a fused graph's loops and branches."""

    def __init__(self, fused: Graph, guard: Guarded) -> None:
        self.control = [v for v in fused if is_control(v)]
        self.kernels: dict[Value, Executable] = {}
        for fusion in _fusions(self.control):
            graph = _alone(fusion)
            # a size that no operand tells is that of a constant, say, which is not worth a kernel's check
            if {s for v in fusion.regions[0] for s in v.symbols} <= set(graph.symbols):
                self.kernels[fusion] = native(Fused(graph, guard.lowered.target), [])

    def check(self, known: Mapping[Value, Array], env: Mapping[str, int]) -> None:
        """Run all loops and branches by the interpreter, and on what each kernel reads there the kernel.

        Raises
        ------
        BodyFault
            At the first kernel that gives something else.
        """

        def observe(v: Value, operands: list[Array], _: Array, places: tuple[Place, ...]) -> None:
            if v in self.kernels:
                given = [np.ascontiguousarray(o) if np.ndim(o) else np.asarray(o) for o in operands]
                found = Reference(v.regions[0], given, env=env).first_difference(self.kernels[v](*given))
                if found is not None:
                    raise BodyFault(v, *found, places)

        with np.errstate(all="ignore"):
            for v in self.control:
                watch_bodies(v, [np.asarray(a) for a in evaluate_values(v.operands, known, env)], env, observe)


def _fusions(control: list[Value]) -> Iterator[Value]:
    for owner in control:
        for region in owner.regions:
            yield from (v for v in region if v.op.name == "fusion")
            yield from _fusions([v for v in region if is_control(v)])


def _alone(fusion: Value) -> Graph:
    """A graph of one kernel."""
    types = [o.tensor for o in fusion.operands]
    inputs = tuple(OPS["input"](name=f"x{k}", shape=t.shape, dtype=t.dtype) for k, t in enumerate(types))
    alone = fusion.with_operands(inputs)
    if not isinstance(alone.type, TupleType):
        return Graph("kernel", inputs, (), (alone,))
    return Graph("kernel", inputs, (), tuple(item(alone, index=k) for k in range(len(alone.type.items))))
