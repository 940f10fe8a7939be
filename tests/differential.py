"""Differential checks: the interpreter, unoptimized and optimized code must agree on one graph at many sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from generate import arrays_for
from guard_pages import fenced

from graphwright.compiler.driver import Compiled, compile_graph
from graphwright.errors import DimensionError
from graphwright.ir.dims import evaluate, product
from graphwright.ir.dtypes import float32, float64
from graphwright.ir.graph import Graph, Literal, Value, make, topological
from graphwright.ir.interpret_program import interpret_program
from graphwright.ir.interpreter import evaluate_values, interpret
from graphwright.ir.op import OPS
from graphwright.ir.parser import parse_graph, parse_program
from graphwright.ir.printer import print_graph, print_program
from graphwright.ir.types import TensorType
from graphwright.ir.verify import verify_graph
from graphwright.ir.verify_program import verify_program
from graphwright.runtime.buffers import Cell
from graphwright.runtime.executable import Executable
from graphwright.runtime.threads import set_num_threads

__all__ = ["TINY", "check_graph", "reduce_graph"]

TINY = {"N": 3, "M": 2}
ONCE: tuple[Mapping[str, int], ...] = ({},)
Array = np.ndarray


class Case:
    """A graph, compiled with and without optimization."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.wide, self.images = widened(graph)

    @cached_property
    def compiled(self) -> dict[str, Compiled]:
        cells = self.cells(arrays_for(self.graph.states, TINY, 0))
        structure = ["list", *["*"] * len(self.graph.outputs)]
        return {
            "optimized": compile_graph(self.graph, cells, structure),
            "plain": compile_graph(self.graph, cells, structure, optimize=False),
        }

    def cells(self, states: Sequence[Array]) -> list[Cell]:
        return [Cell(v.attrs["name"], s) for v, s in zip(self.graph.states, states)]

    def run(self, how: str, inputs: Sequence[Array], states: Sequence[Array]) -> list[Array]:
        """Outputs and new states of a fresh call; beside each input, at one of its ends, nothing can be read."""
        given = [fenced(a, at_end=(k + len(how)) % 2 == 1) for k, a in enumerate(inputs)]
        compiled: Compiled = self.compiled[how]
        cells = self.cells(states)
        executable = Executable(compiled.executable.image, self.graph.name, compiled.signature, cells)
        outputs = executable(*given)
        for x, original in zip(given, inputs):
            assert x.tobytes() == original.tobytes(), "an input was overwritten"
        others = [*outputs, *given, *(c.array for c in cells)]
        for k, out in enumerate(outputs):
            assert not any(np.may_share_memory(out, x) for x in others[k + 1 :]), f"output {k} shares memory"
        return [*outputs, *(c.value for c in cells)]

    def expected(self, inputs: Sequence[Array], states: Sequence[Array], sizes: Mapping[str, int]) -> Expected:
        outputs, new = interpret(self.graph, inputs, states)
        return Expected([*outputs, *new], self._limits(inputs, states, sizes))

    def _limits(self, inputs: Sequence[Array], states: Sequence[Array], sizes: Mapping[str, int]) -> list[Any]:
        """For each result the size of what it was computed from, whether in float32, and float64 values."""
        parameters = (*self.graph.inputs, *self.graph.states)
        known = {self.images[v]: _widen(a) for v, a in zip(parameters, (*inputs, *states))}
        order = topological(self.wide.roots)
        values = dict(zip(order, evaluate_values(order, known, sizes)))
        magnitude = {v: _magnitude(a) for v, a in values.items()}
        tensors = [v for v in topological(self.graph.roots) if isinstance(v.type, TensorType)]
        narrow = {self.images[v] for v in tensors if v.tensor.dtype == float32}
        updates = dict(self.wide.updates)
        results = []
        for root in [*self.wide.outputs, *(updates.get(s, s) for s in self.wide.states)]:
            below = topological([root])
            scale = max((magnitude.get(v, 0.0) for v in below), default=0.0)
            results.append((scale, any(v in narrow for v in below), values.get(root, known.get(root))))
        return results


class Expected:
    """The interpreter's results, and how far others may be off."""

    def __init__(self, arrays: Sequence[Array], limits: Sequence[Any]) -> None:
        self.arrays, self.limits = arrays, limits
        self._copies = [a.tobytes() for a in arrays]

    def check(self, actual: Sequence[Array], what: str) -> None:
        """Results that agree; and nothing that ran in between has written to these arrays."""
        for k, (a, e, limit) in enumerate(zip(actual, self.arrays, self.limits, strict=True)):
            assert e.tobytes() == self._copies[k], f"result {k}, {what}: the interpreter's result was overwritten"
            assert_agrees(a, e, limit, f"result {k}, {what}")


def _widen(a: Array) -> Array:
    return a.astype(np.float64) if a.dtype == np.float32 else a


def _magnitude(a: Any) -> float:
    if isinstance(a, tuple):
        return max(map(_magnitude, a), default=0.0)
    a = np.asarray(a)
    finite = np.abs(a[np.isfinite(a)]) if a.dtype.kind == "f" else ()
    return float(np.max(finite, initial=0.0))


def widened(graph: Graph) -> tuple[Graph, dict[Value, Value]]:
    """The graph with float64 in place of float32, and the image of each value."""
    images: dict[Value, Value] = {}
    for v in topological([*graph.inputs, *graph.states, *graph.roots]):
        attrs = {k: float64 if a is float32 or a == float32 else _literal(a) for k, a in v.attrs.items()}
        images[v] = make(v.op, [images[o] for o in v.operands], attrs, [widened(r)[0] for r in v.regions])

    def of(values: Sequence[Value]) -> tuple[Value, ...]:
        return tuple(images[v] for v in values)

    updates = tuple((images[s], images[new]) for s, new in graph.updates)
    return Graph(graph.name, of(graph.inputs), of(graph.states), of(graph.outputs), updates), images


def _literal(a: Any) -> Any:
    return Literal(_widen(a.array)) if isinstance(a, Literal) else a


# --- the checks ----------------------------------------------------------------------------------


def check_graph(graph: Graph, sizes: Sequence[Mapping[str, int]] = ONCE, seed: int = 0, threads: bool = False) -> None:
    """Check one graph: structure, text, and values at all sizes, with one compiled function.

    Parameters
    ----------
    threads : compare one thread with two at the last size.
    """
    verify_graph(graph)
    case = Case(graph)
    for compiled in case.compiled.values():
        _check_texts(compiled)
    for env in sizes:
        _check_values(case, env, seed)
    if threads:
        _check_threads(case, sizes[-1], seed)
    _check_loops(case, {k: min(n, TINY[k]) for k, n in sizes[-1].items()}, seed)


def _check_texts(compiled: Compiled) -> None:
    text = print_graph(compiled.lowered.optimized)
    assert print_graph(parse_graph(text)) == text
    text = print_program(compiled.lowered.program)
    assert print_program(parse_program(text)) == text


def _check_values(case: Case, env: Mapping[str, int], seed: int) -> None:
    graph = case.graph
    inputs, states = arrays_for(graph.inputs, env, seed), arrays_for(graph.states, env, seed + 1)
    try:
        expected = case.expected(inputs, states, env)
    except DimensionError:
        for how in case.compiled:
            _expect_refusal(case, how, inputs, states)
        return
    for how, compiled in case.compiled.items():
        verify_program(compiled.lowered.program, env)
        expected.check(case.run(how, inputs, states), f"{how}, at {dict(env)}")


def _expect_refusal(case: Case, how: str, inputs: Sequence[Array], states: Sequence[Array]) -> None:
    try:
        case.run(how, inputs, states)
    except DimensionError:
        return
    raise AssertionError(f"the {how} code takes sizes that the interpreter refuses")


def assert_agrees(actual: Array, expected: Array, limit: tuple[float, bool, Any], what: str) -> None:
    """Equal, or for floats close: relative to what they were computed from, and to the interpreter's own error."""
    assert actual.dtype == expected.dtype and actual.shape == expected.shape, (
        f"{what}: {actual.dtype}{actual.shape}, expected {expected.dtype}{expected.shape}"
    )
    if actual.dtype.kind != "f":
        np.testing.assert_array_equal(actual, expected, err_msg=what)
        return
    scale, narrow, exact = limit
    if scale > 1e12:
        return  # meaningless in float32
    with np.errstate(invalid="ignore"):
        error = _magnitude(expected - np.asarray(exact))
    relative = 1e-5 if narrow else 1e-10
    absolute = 3e-6 * scale + 64 * error if narrow else 1e-12 * scale
    np.testing.assert_allclose(actual, expected, rtol=relative, atol=absolute, err_msg=what)


def _check_threads(case: Case, env: Mapping[str, int], seed: int) -> None:
    """Results must not depend on the number of threads, to the bit."""
    graph = case.graph
    inputs, states = arrays_for(graph.inputs, env, seed), arrays_for(graph.states, env, seed + 1)
    for how in case.compiled:
        results = []
        for n in (1, 2):
            set_num_threads(n)
            results.append(case.run(how, inputs, states))
        for k, (one, two) in enumerate(zip(*results)):
            assert one.tobytes() == two.tobytes(), f"result {k}, {how}: two threads differ from one at {dict(env)}"


# --- programs by the interpreter of loops ---------------------------------------------------------


def _check_loops(case: Case, env: Mapping[str, int], seed: int) -> None:
    graph = case.graph
    inputs, states = arrays_for(graph.inputs, env, seed), arrays_for(graph.states, env, seed + 1)
    if any(evaluate(product(v.tensor.shape), env) > 300 for v in graph if isinstance(v.type, TensorType)):
        return  # too slow
    try:
        expected = case.expected(inputs, states, env)
    except DimensionError:
        return
    for how, compiled in case.compiled.items():
        outputs, new = interpret_program(compiled.lowered.program, inputs, states, env)
        expected.check([*outputs, *new], f"{how} loops, at {dict(env)}")


# --- reducing a failure ---------------------------------------------------------------------------


def reduce_graph(graph: Graph, fails: Callable[[Graph], bool]) -> Graph:
    """A smaller graph that still fails: fewer results, inner values made inputs or replaced by an operand."""
    shrunk = True
    while shrunk:
        shrunk = False
        for candidate in _smaller(graph):
            if fails(candidate):
                graph, shrunk = candidate, True
                break
    return graph


def _smaller(graph: Graph) -> Iterator[Graph]:
    for k in range(len(graph.outputs)):
        if len(graph.outputs) > 1:
            yield _pruned(graph, graph.outputs[:k] + graph.outputs[k + 1 :], graph.updates)
    for o in dict.fromkeys(o for v in graph.roots for o in v.operands):
        yield _pruned(graph, (o,), ())
    for k in range(len(graph.updates)):
        yield _pruned(graph, graph.outputs, graph.updates[:k] + graph.updates[k + 1 :])
    inner = [v for v in topological(graph.roots) if v.operands]
    for v in reversed(inner):
        for o in v.operands:
            if o.type == v.type:
                yield _replaced(graph, v, o)
    for n, v in enumerate(v for v in reversed(inner) if isinstance(v.type, TensorType)):
        fresh = OPS["input"](name=f"cut{len(graph.inputs)}_{n}", shape=v.tensor.shape, dtype=v.tensor.dtype)
        yield _replaced(graph, v, fresh)


def _replaced(graph: Graph, old: Value, new: Value) -> Graph:
    images: dict[Value, Value] = {}
    for v in topological(graph.roots):
        images[v] = new if v is old else v.with_operands([images[o] for o in v.operands])
    updates = tuple((s, images[v]) for s, v in graph.updates)
    extended = Graph(graph.name, (*graph.inputs, new), graph.states, graph.outputs, graph.updates)
    source = extended if new.op.name == "input" and new not in graph.inputs else graph
    return _pruned(source, tuple(images[v] for v in graph.outputs), updates)


def _pruned(graph: Graph, outputs: Sequence[Value], updates: Any) -> Graph:
    """Without the inputs and states that nothing needs, unless they give a dimension its value."""
    states = [s for s, _ in updates]
    used = set(topological([*outputs, *states, *(new for _, new in updates)]))
    symbols = set().union(*(v.symbols for v in used))

    def known(inputs: Sequence[Value]) -> bool:
        return symbols <= {str(d) for v in inputs for d in v.tensor.shape}

    inputs = list(graph.inputs)
    for v in graph.inputs:
        rest = [i for i in inputs if i is not v]
        if v not in used and known(rest):
            inputs = rest
    kept = tuple(s for s in graph.states if s in used)
    return Graph(graph.name, tuple(inputs), kept, tuple(outputs), tuple(updates))
