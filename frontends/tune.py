"""Tuning as users see it: for the arguments of a call, or for made-up ones."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DimensionError, GraphError
from ..ir.dims import evaluate
from ..ir.graph import Graph
from .interpreted import Interpreted
from .shapes import fail
from .source import located

if TYPE_CHECKING:
    from ..compiler.tune import Tuned
    from .function import Function

__all__ = ["duration", "parse_duration", "tune_call", "tuned_for_sizes"]

DEFAULT_SIZE = 64
"""Of symbolic dimensions, where no arguments say more."""

_UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def parse_duration(time: Any) -> float | None:
    """Seconds of a duration such as ``"30s"``, ``"2 min"`` or ``1.5``; None for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d*)?)\s*([a-z]+)", time) if isinstance(time, str) else None
    if found:
        return float(found[1]) * _UNITS[found[2]] if found[2] in _UNITS else None
    number = isinstance(time, (int, float)) and not isinstance(time, bool)
    return float(time) if number and 0 <= time < math.inf else None


@located
def duration(time: Any) -> float:
    """Seconds of a duration; an error for anything else."""
    seconds = parse_duration(time)
    if seconds is None:
        fail(
            "tune", GraphError, f"{time!r} is no duration",
            advice='write a number of seconds, or a text with a unit: "30s", "2min", "500ms", "1h"',
        )  # fmt: skip
    return seconds


def tune_call(function: Function, args: Sequence[Any], kwargs: Mapping[str, Any], time: Any) -> Function:
    """The function with the schedules that are fastest for these arguments."""
    from .function import Function

    compiled, found = _search(function.graph, function.compiled, args, kwargs, duration(time))
    tuned = Function(function.graph, function.cells, compiled)
    tuned.tuning = tuple(found)
    return tuned


def tuned_for_sizes(
    graph: Graph, compiled: Any, seconds: float, dims: Mapping[str, int] | None = None
) -> tuple[Any, list[Tuned]]:
    """The compiled graph tuned on random arguments: symbolic dimensions have the given sizes, or `DEFAULT_SIZE`."""
    from .replay import random_array

    for name in dims or {}:
        if name not in graph.symbols:
            raise DimensionError(f"the graph has no dimension {name!r}; it has {', '.join(graph.symbols) or 'none'}")
    sizes = {**dict.fromkeys(graph.symbols, DEFAULT_SIZE), **(dims or {})}
    random = np.random.default_rng(0)
    args = [random_array([evaluate(d, sizes) for d in v.shape], v.dtype.numpy, random) for v in graph.inputs]
    return _search(graph, compiled, args, {}, seconds)


def _search(
    graph: Graph, compiled: Any, args: Sequence[Any], kwargs: Mapping[str, Any], seconds: float
) -> tuple[Any, list[Tuned]]:
    from ..compiler.tune import tune

    if isinstance(compiled, Interpreted):
        fail("tune", GraphError, f"function {graph.name!r} is interpreted: there is nothing to tune")
    return tune(compiled, args, kwargs, _dims(graph, args, kwargs), seconds)


def _dims(graph: Graph, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, int]:
    """Sizes of the dimensions that are an argument's own; a call finds all, and what is wrong with them."""
    names = [v.attrs["name"] for v in graph.inputs]
    given = {**dict(zip(names, args)), **kwargs}
    shapes = {v: np.shape(given[name]) for name, v in zip(names, graph.inputs) if name in given}
    return {
        symbol: size for v, shape in shapes.items() for d, size in zip(v.shape, shape)
        for symbol in graph.symbols if str(d) == symbol
    }  # fmt: skip
