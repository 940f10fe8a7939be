"""Debugging as users see it: the search for a wrong pass, and values that are watched while functions run."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import GraphError
from ..ir.graph import Value, topological
from ..runtime.structure import unflatten
from .shapes import check_name, fail
from .source import located
from .tensor import Tensor, to_value

if TYPE_CHECKING:
    from ..compiler.debug import Culprit, Statistics
    from .function import Function

__all__ = ["Watched", "WatchedExecutable", "bisect", "watch", "watched_values"]

_KEPT = 1000
_names: weakref.WeakKeyDictionary[Value, str] = weakref.WeakKeyDictionary()


@located
def bisect(function: Function, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Culprit | None:
    """The pass, and the rewrite rule, that first makes a function differ from the interpreter.

    Nothing is updated. Passes over the graph are run one by one; in the one that changes the result,
    rules are allowed to fire fewer and fewer times. If all these passes are right, the kernels are
    compared one by one.

    Parameters
    ----------
    function : compiled for the CPU (or by the interpreter).
    args, kwargs : arguments for which it goes wrong.

    Returns
    -------
    What was found, to be printed; None if results agree for these arguments.
    """
    from ..compiler.debug import bisect_graph
    from .interpreted import Interpreted

    reader = Interpreted(function.graph, function.cells, None)
    arrays = [np.array(a, order="C") for a in reader.arguments(args, dict(kwargs or {}))]
    return bisect_graph(function.graph, arrays, [cell.value for cell in function.cells])


# --- watching ------------------------------------------------------------------------------------


@located
def watch(tensor: Tensor, name: str) -> Tensor:
    """Give a tensor a name under which functions compiled with ``watch=`` show its value.

    The tensor itself is returned and nothing is added to the graph, so other functions are what
    they are without it. A gradient can be watched as well.

    Raises
    ------
    GraphError
        If it is no tensor, or the name is no identifier.
    """
    if not isinstance(tensor, Tensor):
        fail("watch", GraphError, f"watches tensors, got a {type(tensor).__name__}")
    _names[tensor._value] = check_name(name, "watch")
    return tensor


def watched_values(option: object, roots: Sequence[Value]) -> dict[str, Value]:
    """The values to watch, by name: those given, or all that `watch` has named among what the roots need."""
    if isinstance(option, Mapping):
        return {check_name(name, "watch"): to_value(x) for name, x in option.items()}
    if option is not True and option != "print":
        fail("function", GraphError, f"watch must be True, 'print' or a dict of tensors, got {option!r}")
    found: dict[str, Value] = {}
    for v in topological(roots):
        if v in _names:
            name, number = _names[v], 0
            while name in found:
                number += 1
                name = f"{_names[v]}_{number}"
            found[name] = v
    if not found:
        fail("function", GraphError, "no value is watched", advice="name one with gw.watch(tensor, 'name')")
    return found


class Watched:
    """A value that is watched.

    Attributes
    ----------
    name : its name.
    value : the array of the last call; None before the first.
    history : the statistics of the last calls, at most 1000, oldest first.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.value: np.ndarray[Any, Any] | None = None
        self.history: deque[Statistics] = deque(maxlen=_KEPT)

    def record(self, value: np.ndarray[Any, Any]) -> None:
        """Note the value of one more call."""
        from ..compiler.debug import statistics

        self.value = value
        self.history.append(statistics(value))

    @property
    def last(self) -> Statistics:
        """The statistics of the last call.

        Raises
        ------
        GraphError
            If there was none.
        """
        if not self.history:
            raise GraphError(f"{self.name!r} has no value yet: call the function first")
        return self.history[-1]

    def histogram(self, bins: int = 10) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Counts and edges of the finite elements of the last call, as `numpy.histogram` gives them."""
        assert self.last and self.value is not None
        numbers = self.value.astype(np.float64).reshape(-1)
        counts, edges = np.histogram(numbers[np.isfinite(numbers)], bins)
        return counts, edges

    def __str__(self) -> str:
        return f"{self.name}: {self.last}" if self.history else f"{self.name}: no call yet"

    __repr__ = __str__

    def bars(self, bins: int = 10, width: int = 40) -> str:
        """The histogram as text."""
        counts, edges = self.histogram(bins)
        most = max(int(counts.max(initial=0)), 1)
        rows = zip(edges[:-1], edges[1:], counts)
        return "\n".join(f"{a:>12.4g} .. {b:<12.4g} {'#' * (width * int(n) // most)} {n}" for a, b, n in rows)


class WatchedExecutable:
    """Calls a function that gives the watched values after its own outputs, and keeps them."""

    def __init__(self, inner: Any, structure: Any, names: Sequence[str], printing: bool) -> None:
        self.inner, self.structure, self.printing = inner, structure, printing
        self.watched = {name: Watched(name) for name in names}
        self.memory = inner.memory

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        results = self.inner(*args, **kwargs)
        n = len(results) - len(self.watched)
        for watched, value in zip(self.watched.values(), results[n:]):
            watched.record(value)
            if self.printing:
                print(watched)
        return unflatten(self.structure, results[:n])


