"""Lower a fused graph to a program: kernels over buffers, in an order in which states can be updated in place."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..ir.graph import Graph, Loc, Value, topological
from ..ir.loops import Buffer, Kernel
from ..ir.op import OPS
from ..ir.program import Call, Program, Slot
from ..ir.types import TensorType, TupleType

__all__ = ["lower_to_program"]

LowerKernel = Callable[[Graph, str], Kernel]


def lower_to_program(graph: Graph, lower_kernel: LowerKernel) -> Program:
    """The program of a fused graph; temps have no offsets yet (`plan_memory`).

    `lower_kernel` makes the kernel of a region; each distinct region is lowered once.
    """
    return _Lowering(graph, lower_kernel).program()


@dataclass(eq=False)
class _Step:
    """A kernel call before buffers have their final names; `position` is its place in the graph's order."""

    region: Graph
    operands: tuple[Value, ...]
    results: tuple[str, ...]
    position: int
    locs: tuple[Loc, ...]
    after: set[int] = field(default_factory=set)


class _Lowering:
    def __init__(self, graph: Graph, lower_kernel: LowerKernel) -> None:
        self.graph = graph
        self.lower_kernel = lower_kernel
        self.steps: list[_Step] = []
        self.buffers: dict[Value, str] = {}  # value -> the buffer (or alias) that holds it
        self.results: dict[Value, tuple[str, ...]] = {}
        self.slots: dict[str, Slot] = {}
        self.maker: dict[str, int] = {}  # buffer -> the step that writes it
        self.readers: dict[str, set[int]] = {}  # buffer -> the steps that read it
        self.followers: dict[int, set[int]] = {}  # step -> the steps that read what it makes, or wait for it
        self.rename: dict[str, str] = {}  # temp -> the output or state whose memory it takes
        self.constants: dict[str, np.ndarray[Any, Any]] = {}
        self.kernels: dict[int, Kernel] = {}
        self.names = {graph.name}  # the program and its kernels are functions of one module

    def program(self) -> Program:
        for v in (*self.graph.inputs, *self.graph.states):
            self._external(v, v.op.name)
        for v in topological(self.graph.roots):
            self._value(v)
        outputs = [self._output(k, v) for k, v in enumerate(self.graph.outputs)]
        updates = [(s, self._saved(s, new)) for s, new in self.graph.updates]
        copies = [(s, new) for s, new in updates if not self._in_place(s, new)]
        final = [self._copy(new, self.buffers[s]) for s, new in copies]
        for s, _ in copies:  # whoever reads a state reads its old value
            del self.maker[self.buffers[s]]
        order = self._order(final)
        calls = tuple(self._call(step) for step in order)
        fixed = [self.slots[self.buffers[v]] for v in (*self.graph.inputs, *self.graph.states)]
        names = {s.buffer.name for s in (*fixed, *outputs)}
        temps = [s for n, s in self.slots.items() if n not in names and self._place(n) == n]
        slots = (*fixed, *outputs, *(self._renamed(s) for s in temps))
        return Program(self.graph.name, self.graph.symbols, slots, calls, 0, self.constants)

    def _renamed(self, s: Slot) -> Slot:
        source = self.rename.get(s.buffer.name, s.alias)
        return s if source is None else Slot(s.buffer, s.kind, None, self.rename.get(source, source))

    def _place(self, name: str) -> str:
        """The buffer that a call is given: the memory a temp takes, or the temp as a view of it."""
        target = self.rename.get(name, name)
        same = target == name or self.slots[target].buffer.shape == self.slots[name].buffer.shape
        return target if same else name

    # --- values to buffers ---

    def _external(self, v: Value, kind: str) -> None:
        name = v.attrs["name"]
        self.buffers[v] = name
        self.slots[name] = Slot(Buffer(name, v.tensor.dtype, v.tensor.shape), kind)

    def _temp(self, t: TensorType, alias: str | None = None) -> str:
        # a dot keeps our names apart from the user's
        name = f"{'view' if alias else 'tmp'}.{len(self.slots)}"
        self.slots[name] = Slot(Buffer(name, t.dtype, t.shape), "temp", None, alias)
        return name

    def _value(self, v: Value) -> None:
        if v in self.buffers or v.op.name in ("input", "state"):
            return
        if v.op.name == "constant":
            name = f"const.{len(self.constants)}"
            self.buffers[v] = name
            self.constants[name] = v.attrs["value"].array
        elif v.op.name == "fusion":
            types = v.type.items if isinstance(v.type, TupleType) else (v.type,)
            results = tuple(self._temp(t) for t in types)
            self._step(v.regions[0], v.operands, results)
            if len(results) == 1:
                self.buffers[v] = results[0]
            self.results[v] = results
        elif v.op.name == "item":
            self.buffers[v] = self.results[v.operands[0]][v.attrs["index"]]
        else:  # a view of memory
            source = self._base(self.buffers[v.operands[0]])
            self.buffers[v] = self._temp(v.tensor, alias=source)

    def _step(self, region: Graph, operands: tuple[Value, ...], results: tuple[str, ...]) -> _Step:
        made = [m for m in region if m.loc is not None]  # leaves may stand for an equal one at another line
        lines = [m.loc for m in made if m.operands and m.loc] or [m.loc for m in made if m.loc]
        locs = tuple(dict.fromkeys(Loc(line.file, line.line, line.role) for line in lines))
        step = _Step(region, operands, results, len(self.steps), locs)
        self.steps.append(step)
        for o in operands:
            base = self._base(self.buffers[o])
            self.readers.setdefault(base, set()).add(step.position)
            if base in self.maker:
                self.followers.setdefault(self.maker[base], set()).add(step.position)
        for r in results:
            self.maker[r] = step.position
        return step

    def _base(self, name: str) -> str:
        slot = self.slots.get(name)
        return name if slot is None or slot.alias is None else slot.alias

    # --- outputs and updates ---

    def _output(self, k: int, v: Value) -> Slot:
        """Give an output the caller's memory: directly, if a step makes it for nobody else's memory."""
        name = f"out.{k}"
        slot = Slot(Buffer(name, v.tensor.dtype, v.tensor.shape), "output")
        base = self._base(self.buffers[v])
        if base in self.maker and base not in self.rename:
            self.rename[base] = name
        else:
            self._copy(v, name)
        self.slots[name] = slot
        return slot

    def _copy(self, v: Value, to: str) -> _Step:
        t = v.tensor
        p = OPS["input"](name="p0", shape=t.shape, dtype=t.dtype)
        return self._step(Graph("copy", (p,), (), (OPS["stop_gradient"](p),)), (v,), (to,))

    def _saved(self, state: Value, new: Value) -> Value:
        """A new value that is another updated state's memory (``a, b = b, a``): a copy of it, made in time."""
        base = self._base(self.buffers[new])
        updated = {self.buffers[s] for s, n in self.graph.updates if n is not s}
        if base not in updated - {self.buffers[state]}:
            return new
        saved = OPS["stop_gradient"](new)
        self.buffers[saved] = self._temp(new.tensor)
        self._copy(new, self.buffers[saved])
        return saved

    def _in_place(self, state: Value, new: Value) -> bool:
        """Let the step that makes a state's new value write it to the state's memory, if order allows."""
        if new is state:
            return True
        base, target = self._base(self.buffers[new]), self.buffers[state]
        if base not in self.maker or base in self.rename:
            return False
        writer = self.maker[base]
        readers = self.readers.get(target, set())
        if writer in readers and not self._reads_in_place(self.steps[writer], base, state):
            return False
        others = readers - {writer}
        if others & self._dependents(writer):
            return False
        self.steps[writer].after |= others
        for r in others:
            self.followers.setdefault(r, set()).add(writer)
        self.rename[base] = target
        return True

    def _reads_in_place(self, step: _Step, result: str, state: Value) -> bool:
        kernel = self._kernel(step.region)
        o = step.results.index(result)
        sources = [i for i, v in enumerate(step.operands) if self._base(self.buffers[v]) == self.buffers[state]]
        return all((o, i) in kernel.inplace for i in sources)

    def _dependents(self, position: int) -> set[int]:
        """Steps that run after a step, by data or by order."""
        found: set[int] = set()
        frontier = [position]
        while frontier:
            new = self.followers.get(frontier.pop(), set()) - found
            found |= new
            frontier.extend(new)
        return found

    def _predecessors(self, s: _Step) -> set[int]:
        made = (self.maker.get(self._base(self.buffers[o])) for o in s.operands)
        return {m for m in made if m is not None} | s.after

    # --- order and calls ---

    def _order(self, final: Sequence[_Step]) -> list[_Step]:
        """Steps in the graph's order as far as dependences allow; the copies into states come last."""
        last = {s.position for s in final}
        waiting = {s.position: self._predecessors(s) for s in self.steps}
        for p in last:
            waiting[p] |= set(waiting) - last
        blocked: dict[int, list[int]] = {}
        for p, before in waiting.items():
            for b in before:
                blocked.setdefault(b, []).append(p)
        ready = [p for p, before in waiting.items() if not before]
        heapq.heapify(ready)
        order = []
        while ready:
            p = heapq.heappop(ready)
            order.append(self.steps[p])
            for q in blocked.get(p, ()):
                waiting[q].discard(p)
                if not waiting[q]:
                    heapq.heappush(ready, q)
        assert len(order) == len(self.steps), "cyclic dependences between kernels"
        return order

    def _kernel(self, region: Graph) -> Kernel:
        kernel = self.kernels.get(id(region))
        if kernel is None:
            name = _kernel_name(region)
            candidates = (name, *(f"{name}_{k}" for k in range(1, len(self.names) + 1)))
            name = next(n for n in candidates if n not in self.names)
            self.names.add(name)
            kernel = self.lower_kernel(region, name)
            self.kernels[id(region)] = kernel
        return kernel

    def _call(self, step: _Step) -> Call:
        names = [self.buffers[o] for o in step.operands] + list(step.results)
        return Call(self._kernel(step.region), tuple(map(self._place, names)), (), step.locs)


def _kernel_name(region: Graph) -> str:
    """A readable name: the ops of the region, the weightiest first kept."""
    ops = [v.op.name for v in region if v.op.kind not in ("leaf", "view") and v.op.name not in ("full", "broadcast")]
    heavy = [n for n in ops if OPS[n].kind != "map"]
    light = [n for n in dict.fromkeys(ops) if OPS[n].kind == "map"]
    return "_".join([*dict.fromkeys(heavy), *light][:4]) or "fill"
