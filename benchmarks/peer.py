"""Who is measured: a class per peer, found in the modules of `benchmarks.peers`."""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .workload import Arrays, Workload

__all__ = ["Peer", "Session", "Unsupported", "Vocabulary", "peers"]


class Unsupported(Exception):
    """The peer cannot do this workload; the text says why."""


class Vocabulary:
    """Base of the peers' `Ops`: what they do not define, they cannot do."""

    def __getattr__(self, name: str) -> Any:
        raise Unsupported(f"no {name}")


@dataclass
class Session:
    """A workload ready to run in a peer.

    Attributes
    ----------
    step : what is timed: one call, complete when it returns.
    results : what `step` returned, as arrays: the value, then for ``gradient`` the gradients.
    parameters : the parameters as they are now.
    call : the same, compiled as it is, with inputs of another batch size; None where there is no such thing.
    scratch : bytes that a call needs beside inputs, results and parameters, where the peer knows.
    """

    step: Callable[[], Any]
    results: Callable[[Any], list[np.ndarray]]
    parameters: Callable[[], Arrays] = dict
    call: Callable[[Arrays], Any] | None = None
    scratch: Callable[[], int] | None = None


class Peer(ABC):
    """A framework, or a way to use it.

    Its module is imported in the parent as well, so the framework is imported in `build` only, or in `load`.
    """

    name: str
    title: str
    compiles = True  # whether the first call compiles
    default = True  # whether it is measured when no peers are named
    quick = True  # whether that is so with --quick as well: not if it compiles for minutes
    ours = False  # whether it needs Graphwright, so runs in the interpreter that started the benchmarks

    def environment(self, threads: int, cache: str) -> dict[str, str]:
        """Environment variables of its process, beside those that all get; `cache` is a folder of its own."""
        return {}

    @abstractmethod
    def load(self, threads: int) -> str:
        """Import the framework, set the number of threads, return the version. ImportError: not installed."""

    @abstractmethod
    def build(self, workload: Workload, parameters: Arrays, inputs: Arrays) -> Session:
        """Compile a workload; nothing here is timed but as compile time."""


def peers() -> dict[str, Peer]:
    """All of them by name."""
    from . import peers as package

    found: dict[str, Peer] = {}
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        found |= {peer.name: peer for peer in module.PEERS}
    return found
