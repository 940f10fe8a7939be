"""Debuggers: compiled functions that watch what they compute, and the search for the pass that errs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...errors import CompileError
from ...ir.graph import Graph
from ...runtime.buffers import Cell
from ..target import CpuTarget
from .bisect import Culprit, bisect_graph
from .bounds import BoundsGuard
from .check import CheckGuard
from .guarded import Guarded
from .nan import NanGuard
from .statistics import Statistics, statistics

__all__ = ["MODES", "Culprit", "Guarded", "Statistics", "bisect_graph", "debug_graph", "statistics"]

MODES: dict[str, type[Guarded]] = {"nan": NanGuard, "check": CheckGuard, "bounds": BoundsGuard}


def debug_graph(
    graph: Graph, cells: Sequence[Cell], structure: Any, mode: str, target: CpuTarget | None = None
) -> Guarded:
    """A function that debugs itself.

    Parameters
    ----------
    mode : ``"nan"``, ``"check"`` or ``"bounds"``.

    Raises
    ------
    CompileError
        If there is no such mode.
    """
    if mode not in MODES:
        raise CompileError(f"there is no debug mode {mode!r}; there are {', '.join(map(repr, MODES))}")
    return MODES[mode](graph, cells, structure, target)
