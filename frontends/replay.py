"""``graphwright run FILE.gwir``: a text graph on the interpreter and on compiled code, compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..compiler.driver import compile_graph
from ..errors import DimensionError, GraphError, VerifyError
from ..ir.dims import evaluate
from ..ir.graph import Graph, Value
from ..ir.interpreter import bind_symbols, interpret
from ..ir.parser import parse_graph
from ..ir.verify import verify_graph
from ..passes.inline import inline
from ..runtime.buffers import Cell

__all__ = ["TOLERANCE", "difference", "random_array", "replay"]

Array = np.ndarray[Any, Any]

TOLERANCE = {"float32": 1e-4, "float64": 1e-10}
"""By how much compiled code may differ, relative to the largest element: its sums have another order."""

DEFAULT_SIZE = 5


def replay(
    text: str, given: Mapping[str, Any], dims: Mapping[str, int], seed: int = 0, optimize: bool = True
) -> dict[str, Array]:
    """Run a graph's text both ways, and print a line for each result.

    Parameters
    ----------
    text : the graph.
    given : arrays for inputs and states by name; the others are random.
    dims : sizes of symbolic dimensions; of those that neither this nor an array tells, 5.
    seed : of the random arrays.
    optimize : False compiles each op as it stands.

    Returns
    -------
    The results of the compiled code by name: ``out.0``..., then the updated states.

    Raises
    ------
    VerifyError
        If a result differs; the message names it.
    GraphError
        If an array is given for what the graph does not have.
    DimensionError
        If the sizes contradict each other.
    """
    graph = parse_graph(text)
    verify_graph(graph)
    arrays = _arrays(graph, given, dims, np.random.default_rng(seed))
    values = [arrays[v.attrs["name"]] for v in graph.inputs]
    states = [arrays[v.attrs["name"]] for v in graph.states]
    outputs, new = interpret(graph, values, states)
    updated = [s.attrs["name"] for s, _ in graph.updates]
    after = dict(zip((s.attrs["name"] for s in graph.states), new))
    expected = {**{f"out.{k}": x for k, x in enumerate(outputs)}, **{name: after[name] for name in updated}}
    cells = [Cell(s.attrs["name"], x.copy()) for s, x in zip(graph.states, states)]
    compiled = compile_graph(inline(graph), cells, ["list", *["*"] * len(graph.outputs)], optimize=optimize)
    results = compiled.executable(*values)
    stored = {cell.name: cell.value for cell in cells}
    actual = {**{f"out.{k}": x for k, x in enumerate(results)}, **{name: stored[name] for name in updated}}
    for value, array in zip(graph.inputs, values):
        print(f"input  {value.attrs['name']}: {_summary(array)}")
    _compare(actual, expected)
    return actual


def _compare(actual: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    wrong: list[str] = []
    for name, value in expected.items():
        error = difference(actual[name], value)
        verdict = "equal" if error == 0 else f"differs by {error:.2g} of the largest"
        if error > TOLERANCE.get(value.dtype.name, 0):
            wrong.append(name)
        print(f"output {name}: {_summary(actual[name])}; {verdict}")
    if wrong:
        raise VerifyError(f"compiled code and interpreter differ in {', '.join(wrong)}")


def difference(actual: Array, expected: Array) -> float:
    """The largest difference of two arrays, relative to the largest finite element; inf where NaNs or signs differ."""
    if actual.dtype != expected.dtype or actual.shape != expected.shape:
        return float("inf")
    if actual.dtype.kind != "f":
        return 0.0 if np.array_equal(actual, expected) else float("inf")
    finite = np.isfinite(expected)
    if not np.array_equal(actual[~finite], expected[~finite], equal_nan=True) or not np.isfinite(actual[finite]).all():
        return float("inf")
    if not finite.any():
        return 0.0
    a, b = actual[finite].astype(np.float64), expected[finite].astype(np.float64)
    return float(np.abs(a - b).max() / max(np.abs(b).max(), float(np.finfo(expected.dtype).tiny)))


def _summary(array: Array) -> str:
    head = f"{array.dtype}{list(array.shape)}"
    if array.dtype.kind != "f" or not array.size:
        return head if array.size != 1 else f"{head} {array.item()}"
    finite = array[np.isfinite(array)]
    text = f"{head}, from {finite.min():.6g} to {finite.max():.6g}" if finite.size else head
    return text if finite.size == array.size else f"{text}, {array.size - finite.size} not finite"


# --- what it is run on -----------------------------------------------------------------------------


def _arrays(
    graph: Graph, given: Mapping[str, Any], dims: Mapping[str, int], random: np.random.Generator
) -> dict[str, Array]:
    """Every input and state: as given, or random of a shape that fits."""
    known = {v.attrs["name"]: v for v in (*graph.inputs, *graph.states)}
    for name in given:
        if name not in known:
            raise GraphError(f"the graph has no input or state {name!r}; it has {', '.join(known) or 'none'}")
    for name in dims:
        if name not in graph.symbols:
            raise DimensionError(f"the graph has no dimension {name!r}; it has {', '.join(graph.symbols) or 'none'}")
    chosen = {name: np.ascontiguousarray(x, known[name].dtype.numpy) for name, x in given.items()}
    sizes = _sizes([known[name] for name in chosen], list(chosen.values()), graph.symbols, dims)
    for name, value in known.items():
        if name not in chosen:
            shape = tuple(evaluate(d, sizes) for d in value.shape)
            chosen[name] = random_array(shape, value.dtype.numpy, random)
    return chosen


def _sizes(
    values: Sequence[Value], arrays: Sequence[Array], symbols: Sequence[str], dims: Mapping[str, int]
) -> dict[str, int]:
    found = bind_symbols([v.tensor for v in values], [a.shape for a in arrays])
    for name, size in dims.items():
        if found.get(name, size) != size:
            raise DimensionError(f"the arrays have {name} = {found[name]}, --dims says {size}")
    return {**dict.fromkeys(symbols, DEFAULT_SIZE), **dims, **found}


def random_array(shape: Sequence[int], dtype: Any, random: np.random.Generator) -> Array:
    """Normal floats, integers from 0 to 2 (which may index most axes), booleans."""
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return random.standard_normal(tuple(shape)).astype(dtype)
    return random.integers(0, 2 if dtype.kind == "b" else 3, tuple(shape)).astype(dtype)
