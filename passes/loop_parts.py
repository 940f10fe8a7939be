"""Loops taken apart and put together again, for the passes that change them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from ..ir.graph import Graph, Value, make
from ..ir.op import OPS
from ..ir.region import instantiate

__all__ = ["Loop", "depends_on", "map_loops", "parameter"]


@dataclass
class Loop:
    """The operands of a `scan` or `while`, and the inputs and outputs of its body, by what they are.

    Change the lists, and `build`.

    Attributes
    ----------
    body : as it was, for walking over its values; the condition of a `while` is its last output.
    initial, over, captures : operands: the carries' initial values, the sequences, what else the body reads.
    carries, elements, captured : the body's inputs, in the same order.
    new, rows : the body's outputs: the carries' new values, and what is stacked.
    test : the condition of a `while`, of the body's inputs.
    """

    value: Value
    body: Graph
    initial: list[Value]
    over: list[Value]
    captures: list[Value]
    carries: list[Value]
    elements: list[Value]
    captured: list[Value]
    new: list[Value]
    rows: list[Value]
    test: Value | None = None

    @staticmethod
    def of(value: Value) -> Loop:
        body, n = value.regions[-1], value.attrs["carries"]
        m = n + value.attrs.get("sequences", 0)
        operands = value.operands[: len(value.operands) - value.attrs.get("counted", False)]
        test: Value | None = None
        if value.op.name == "while":
            (test,) = instantiate(value.regions[0], body.inputs)
        initial, over, captures = (list(x) for x in (operands[:n], operands[n:m], operands[m:]))
        carries, elements, captured = (list(x) for x in (body.inputs[:n], body.inputs[n:m], body.inputs[m:]))
        new, rows = list(body.outputs[:n]), list(body.outputs[n:])
        if test is not None:
            body = Graph(body.name, body.inputs, (), (*body.outputs, test))
        return Loop(value, body, initial, over, captures, carries, elements, captured, new, rows, test)

    @property
    def counted(self) -> bool:
        return bool(self.value.attrs.get("counted", False))

    @property
    def first_row(self) -> int:
        """Which of the results is the first stack: carries come before it, and the number of steps of a `while`."""
        return len(self.new) + (self.test is not None)

    def results(self, loop: Value) -> list[Value]:
        """What the loop gives, once it is built."""
        return [OPS["item"](loop, index=k) for k in range(self.first_row + len(self.rows))]

    def build(self) -> Value:
        """The loop of these parts; the same value if nothing has changed."""
        v = self.value
        count = v.operands[len(v.operands) - self.counted :]
        operands = (*self.initial, *self.over, *self.captures, *count)
        inputs, outputs = (*self.carries, *self.elements, *self.captured), (*self.new, *self.rows)
        tests = () if self.test is None else (self.test,)
        if inputs == self.body.inputs and (*outputs, *tests) == self.body.outputs:
            return v.with_operands(operands)
        conditions = [Graph(v.regions[0].name, inputs, (), tests)] if tests else []
        attrs = {**v.attrs, "carries": len(self.carries)}
        if v.op.name == "scan":
            attrs["sequences"] = len(self.elements)
        return make(v.op, operands, attrs, (*conditions, Graph(self.body.name, inputs, (), outputs)), v.locs)

    def capture(self, outer: Value) -> Value:
        """The body's input that stands for an outer value."""
        for given, inside in zip(self.captures, self.captured):
            if given is outer:
                return inside
        self.captures.append(outer)
        self.captured.append(parameter(outer, self._names("k"), outer.tensor.shape))
        return self.captured[-1]

    def element(self, outer: Value) -> Value:
        """The body's input that stands for the elements of an outer value."""
        for given, inside in zip(self.over, self.elements):
            if given is outer:
                return inside
        self.over.append(outer)
        self.elements.append(parameter(outer, self._names("x"), outer.tensor.shape[1:]))
        return self.elements[-1]

    def row(self, v: Value) -> int:
        """The position among the rows at which a value of the body is stacked."""
        if v not in self.rows:
            self.rows.append(v)
        return self.rows.index(v)

    def _names(self, prefix: str) -> str:
        taken = {p.attrs["name"] for p in (*self.carries, *self.elements, *self.captured)}
        return next(n for k in range(len(taken) + 1) if (n := f"{prefix}{k}") not in taken)

    def replace(self, changes: dict[Value, Value]) -> None:
        """Let values of the body be others."""
        done = dict(changes)
        for v in self.body:
            if v not in done:
                done[v] = v.with_operands([done[o] for o in v.operands])
        self.new = [done[v] for v in self.new]
        self.rows = [done[v] for v in self.rows]
        self.test = self.test and done[self.test]


def parameter(like: Value, name: str, shape: Sequence[object]) -> Value:
    """A new input of a region."""
    return make(OPS["input"], (), {"name": name, "shape": tuple(shape), "dtype": like.dtype})


def depends_on(graph: Graph, roots: Iterable[Value]) -> set[Value]:
    """The values of a graph that depend on some of its inputs, themselves included."""
    found = set(roots)
    for v in graph:
        if any(o in found for o in v.operands):
            found.add(v)
    return found


Change = Callable[[Loop, set[int]], "Sequence[Value | None] | None"]


def map_loops(graph: Graph, change: Change, ops: Collection[str] = ("scan", "while")) -> Graph:
    """The graph with its loops changed (those in regions not); the same object if none is.

    ``change(loop, used)`` gives what its results are now, None for one that nobody uses; or None for no change.
    `used` are the positions of the results that are used.
    """
    order = list(graph)
    used: dict[Value, set[int]] = {}
    for v in order:
        if v.op.name == "item":
            used.setdefault(v.operands[0], set()).add(v.attrs["index"])
    new: dict[Value, Value] = {}
    results: dict[Value, Sequence[Value | None]] = {}
    for v in order:
        if v.op.name == "item" and v.operands[0] in results:
            item = results[v.operands[0]][v.attrs["index"]]
            assert item is not None, "a result in use has gone"
            new[v] = item
            continue
        new[v] = v.with_operands([new[o] for o in v.operands])
        if v.op.name in ops:
            changed = change(Loop.of(new[v]), used.get(v, set()))
            if changed is not None:
                results[v] = changed
    return graph.with_values(new)
