"""The target ``"interpreter"``: a function that runs the reference semantics in NumPy.

It needs no compilation, and is what compiled code is compared with. Calls take the same arguments,
give the same structures and raise the same classes of errors as those of compiled functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from ..errors import ArgumentError, GraphError
from ..ir.graph import Graph
from ..ir.interpreter import interpret
from ..ir.printer import print_graph
from ..runtime.arguments import as_array
from ..runtime.buffers import Cell
from ..runtime.structure import unflatten

__all__ = ["Interpreted"]


class Interpreted:
    """What `compiler.driver.Compiled` is for machine code: something to call, and its text."""

    def __init__(self, graph: Graph, cells: Sequence[Cell], structure: Any) -> None:
        self.graph, self.cells, self.structure = graph, tuple(cells), structure
        self.executable = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Interpret the graph; see `frontends.function.Function.__call__`."""
        arrays = self.arguments(args, kwargs)
        with ExitStack() as locks:
            for cell in sorted(set(self.cells), key=id):
                locks.enter_context(cell.lock)
            outputs, states = interpret(self.graph, arrays, [cell.array.copy() for cell in self.cells])
            results = [np.array(x, order="C") for x in outputs]
            for cell, new in zip(self.cells, states):
                cell.array[...] = new
                cell.touch()
        return unflatten(self.structure, results)

    def ir(self, stage: str = "graph") -> str:
        """The graph as text: there is no other stage."""
        if stage not in ("graph", "optimized"):
            raise GraphError(f"the interpreter has no stage {stage!r}, only 'graph'")
        return print_graph(self.graph)

    def memory(self, **dims: int) -> int:
        """Not planned: the interpreter allocates as it goes."""
        raise GraphError("the interpreter does not plan memory; compile for the target 'cpu'")

    def arguments(self, args: Sequence[Any], kwargs: dict[str, Any]) -> list[np.ndarray[Any, Any]]:
        """The arguments of a call as arrays, in the order of the inputs."""
        return [self._argument(k, x) for k, x in enumerate(self._arranged(args, kwargs))]

    def _arranged(self, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
        """Arguments in the order of the inputs."""
        names = [v.attrs["name"] for v in self.graph.inputs]
        if len(args) > len(names):
            raise ArgumentError(f"{self.graph.name} takes {len(names)} inputs ({', '.join(names)}), got {len(args)}")
        given = dict(zip(names, args))
        for name, x in kwargs.items():
            if name not in names:
                raise ArgumentError(f"{self.graph.name} has no input {name!r}; it has {', '.join(names) or 'none'}")
            if name in given:
                raise ArgumentError(f"{self.graph.name} got input {name!r} twice")
            given[name] = x
        missing = [name for name in names if name not in given]
        if missing:
            raise ArgumentError(f"{self.graph.name} misses {len(missing)} inputs: {', '.join(missing)}")
        return [given[name] for name in names]

    def _argument(self, k: int, x: Any) -> np.ndarray[Any, Any]:
        t, name = self.graph.inputs[k].tensor, self.graph.inputs[k].attrs["name"]
        what = f"{self.graph.name}: input {name}: {t}"
        array = as_array(x, t.dtype.numpy, what, ArgumentError)
        if array.ndim != t.rank or any(isinstance(d, int) and d != n for d, n in zip(t.shape, array.shape)):
            raise ArgumentError(f"{what} got an array of shape {array.shape}")
        return array
