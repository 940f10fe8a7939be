"""Lower one graph, a function's or a region's, to steps of a program: values to buffers, and steps in order."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..ir.dims import equal, evaluate, symbols
from ..ir.graph import Graph, Value, topological
from ..ir.op import OPS
from ..ir.program import Call, Step, nbytes
from ..ir.types import TensorType, TupleType
from .order_steps import Touched, order_steps
from .plan_memory import TYPICAL

if TYPE_CHECKING:
    from .lower_to_program import Module

__all__ = ["Block", "Planned", "copy_region"]

Updates = Iterable[tuple[Value, Value]]


@dataclass(eq=False)
class Planned:
    """A step before buffers have their final names.

    Attributes
    ----------
    position : its place in the graph's order.
    reads, results : buffers.
    make : gives the program's step, once everything has its place.
    region, operands : of a kernel call.
    after : positions of steps that must come before, beside those whose results it reads.
    skipped : a copy that turned out to be needless.
    """

    position: int
    reads: tuple[str, ...]
    results: tuple[str, ...]
    make: Callable[[], Step]
    region: Graph | None = None
    operands: tuple[Value, ...] = ()
    after: set[int] = field(default_factory=set)
    skipped: bool = False


def copy_region(t: TensorType) -> Graph:
    """The group of ops that copies a buffer."""
    p = OPS["input"](name="p0", shape=t.shape, dtype=t.dtype)
    return Graph("copy", (p,), (), (OPS["stop_gradient"](p),))


class Block:
    """Steps of one graph.

    Parameters
    ----------
    known : buffers of the graph's inputs and states; whose memory they are does not matter here.
    """

    def __init__(self, graph: Graph, module: Module, known: Mapping[Value, str]) -> None:
        self.graph = graph
        self.module = module
        self.buffers = dict(known)  # value -> the buffer (or alias) that holds it
        self.outside = set(known.values())
        self.planned: list[Planned] = []
        self.results: dict[Value, tuple[str, ...]] = {}
        self.maker: dict[str, int] = {}  # buffer -> the step that writes it
        self.readers: dict[str, set[int]] = {}  # buffer -> the steps that read it
        self.followers: dict[int, set[int]] = {}  # step -> the steps that read what it makes, or wait for it
        self.starts: list[tuple[Planned, Value, str]] = []  # copies to where loops begin, which may be needless
        self.preludes: dict[str, list[tuple[Planned, Value | None]]] = {}  # who writes a loop's buffer before it
        self.delays: dict[str, str] = {}  # view -> the buffer that must be made before it is read
        self.final: list[Planned] = []  # copies that come last

    # --- values to buffers ---

    def values(self) -> None:
        """Lower all values that the graph's results need."""
        for v in topological(self.graph.roots):
            self._value(v)

    def _value(self, v: Value) -> None:
        if v in self.buffers or v.op.name in ("input", "state"):
            return
        if v.op.name == "constant":
            self.buffers[v] = self.module.constant(v.attrs["value"].array)
        elif v.op.name == "fusion":
            types = v.type.items if isinstance(v.type, TupleType) else (v.type,)
            results = tuple(self.module.temp(t) for t in types)
            self.call(v.regions[0], v.operands, results)
            if len(results) == 1:
                self.buffers[v] = results[0]
            self.results[v] = results
        elif v.regions:
            from .lower_control import lower_control

            self.results[v] = lower_control(self, v)
        elif v.op.name == "item":
            self.buffers[v] = self.results[v.operands[0]][v.attrs["index"]]
        else:  # a view of memory
            self.buffers[v] = name = self.module.temp(v.tensor, alias=self.buffers[v.operands[0]])
            if v.op.name == "after":
                self.delays[name] = self.buffers[v.operands[1]]

    def call(self, region: Graph, operands: tuple[Value, ...], results: tuple[str, ...]) -> Planned:
        """Plan a kernel's call."""
        locs = self.module.source_lines(region)
        names = [self.buffers[o] for o in operands] + list(results)

        def make() -> Call:
            return Call(self.module.kernel(region), tuple(map(self.module.place, names)), (), locs)

        reads = tuple(self.buffers[o] for o in operands)
        return self.step(reads, results, make, region, operands)

    def step(
        self,
        reads: tuple[str, ...],
        results: tuple[str, ...],
        make: Callable[[], Step],
        region: Graph | None = None,
        operands: tuple[Value, ...] = (),
    ) -> Planned:
        """Plan a step that reads buffers and makes the whole of others."""
        step = Planned(len(self.planned), reads, results, make, region, operands)
        self.planned.append(step)
        for base in map(self.base, reads):
            self.readers.setdefault(base, set()).add(step.position)
            if base in self.maker:
                self.followers.setdefault(self.maker[base], set()).add(step.position)
        for r in results:
            self.maker[r] = step.position
        self.wait(step, (self.planned[self.maker[b]] for b in self._delaying(reads) if b in self.maker))
        return step

    def _delaying(self, reads: Iterable[str]) -> set[str]:
        """The buffers that what is read must wait for."""
        found: set[str] = set()
        for name in reads:
            while name not in self.outside and (slot := self.module.slots.get(name)) is not None:
                if name in self.delays:
                    found.add(self.base(self.delays[name]))
                if slot.alias is None:
                    break
                name = slot.alias
        return found

    def wait(self, step: Planned, others: Iterable[Planned]) -> None:
        """Let a step come after others."""
        for other in others:
            step.after.add(other.position)
            self.followers.setdefault(other.position, set()).add(step.position)

    def base(self, name: str) -> str:
        """The buffer of this block whose memory a buffer is."""
        while name not in self.outside:
            slot = self.module.slots.get(name)
            if slot is None or slot.alias is None:
                break
            name = slot.alias
        return name

    def _takes_over(self, v: Value) -> str | None:
        """The buffer of which a value is the whole, if it may still be given other memory."""
        name = self.buffers[v]
        base = self.base(name)
        if base not in self.maker or base in self.module.rename:
            return None
        slots = self.module.slots
        while name != base:
            slot = slots[name]
            if slot.offset is not None or slot.alias is None:
                return None
            name = slot.alias
        same = equal(nbytes(slots[self.buffers[v]].buffer), nbytes(slots[base].buffer))
        return base if same else None

    def makes(self, v: Value) -> bool:
        """Whether a step of this block makes a value, rather than being given it."""
        return self.base(self.buffers[v]) in self.maker

    # --- results where they belong ---

    def write(self, v: Value, name: str) -> None:
        """Give a value this memory: directly, if a step makes it for nobody else's memory."""
        base = self._takes_over(v)
        if base is None:
            self.copy(v, name)
        else:
            self.module.rename[base] = name

    def copy(self, v: Value, to: str) -> Planned:
        return self.call(copy_region(v.tensor), (v,), (to,))

    def start(self, v: Value, name: str) -> Planned:
        """Copy a value to where a loop begins; `settle` may let the value be made there."""
        copy = self.copy(v, name)
        self.starts.append((copy, v, name))
        self.preludes.setdefault(self.base(name), []).append((copy, v))
        return copy

    def _writers(self, base: str) -> dict[int, str]:
        """All steps that write a buffer, under which name: its maker, and what prepares it if that is a loop."""
        found = {self.maker[base]: base}
        for step, v in self.preludes.get(base, ()):
            found[step.position] = step.results[0]
            if step.skipped and v is not None:
                found |= self._writers(self.base(self.buffers[v]))
        return found

    def _after_readers(self, base: str, target: str, ignored: Container[int] = ()) -> bool:
        """Let what writes a buffer come after all who read the memory it is to have, if order allows."""
        writers, readers = self._writers(base), self.readers.get(target, set())
        if not all(self._reads_in_place(self.planned[w], writers[w], target) for w in readers & set(writers)):
            return False
        others = {r for r in readers - set(writers) if r not in ignored}
        if any(others & self._dependents(w) for w in writers):
            return False
        for w in writers:
            self.wait(self.planned[w], (self.planned[r] for r in others))
        return True

    def settle(self) -> None:
        """Make values where loops begin with them, if nobody else needs them."""
        for copy, v, name in reversed(self.starts):  # a loop that begins with another's result knows its place then
            base = self._takes_over(v)
            if base is None or self.readers[base] != {copy.position}:
                continue
            target = self._final(name)
            if target not in self.outside or self._after_readers(base, target, {copy.position}):
                self.module.rename[base] = name
                copy.skipped = True

    def _final(self, name: str) -> str:
        """The buffer of this block whose memory another one has been given."""
        base = self.base(name)
        while base in self.module.rename:
            base = self.base(self.module.rename[base])
        return base

    # --- states ---

    def update(self, updates: Updates) -> None:
        """Give states their new values: in place where order allows, else by copies at the end."""
        updates = [(s, new) for s, new in updates if new is not s]
        names = {self.buffers[s] for s, _ in updates}
        saved = [(s, self._saved(s, new, names)) for s, new in updates]
        copies = [(s, new) for s, new in saved if not self.in_place(s, new)]
        self.final = [self.copy(new, self.buffers[s]) for s, new in copies]
        for s, _ in copies:  # whoever reads a state reads its old value
            del self.maker[self.buffers[s]]

    def _saved(self, state: Value, new: Value, updated: set[str]) -> Value:
        """A new value that is another updated state's memory (``a, b = b, a``): a copy of it, made in time."""
        base = self.base(self.buffers[new])
        if base not in updated or base == self.buffers[state]:
            return new
        saved = OPS["stop_gradient"](new)
        self.buffers[saved] = self.module.temp(new.tensor)
        self.copy(new, self.buffers[saved])
        return saved

    def in_place(self, state: Value, new: Value) -> bool:
        """Let the step that makes a state's new value write it to the state's memory, if order allows."""
        target = self.buffers[state]
        base = self._takes_over(new)
        if base is None:
            return False
        if not self._after_readers(base, target):
            return False
        self.module.rename[base] = target
        return True

    def _reads_in_place(self, step: Planned, result: str, target: str) -> bool:
        """Whether a step may write a result to memory that it reads."""
        if step.region is None:
            return False
        kernel = self.module.kernel(step.region)
        o = step.results.index(result)
        sources = [i for i, v in enumerate(step.operands) if self.base(self.buffers[v]) == target]
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

    # --- order ---

    def steps(self) -> tuple[Step, ...]:
        """The program's steps, once everything has its place."""
        return tuple(s.make() for s in self._order() if not s.skipped and not self._copies_to_itself(s))

    def _copies_to_itself(self, step: Planned) -> bool:
        """Whether a copy is from a buffer to the same memory, both having found their places."""
        if step.region is None or step.region.name != "copy":
            return False
        return self.module.place(step.reads[0]) == self.module.place(step.results[0])

    def _predecessors(self, s: Planned) -> set[int]:
        made = (self.maker.get(self.base(name)) for name in s.reads)
        return {m for m in made if m is not None} | s.after

    def _order(self) -> Sequence[Planned]:
        """Steps in the graph's order, as far as dependences and memory allow; the copies into states come last."""
        last = {s.position for s in self.final}
        before = {s.position: self._predecessors(s) for s in self.planned}
        for p in last:
            before[p] |= set(before) - last
        touched = [Touched({*map(self._final, s.reads)}, {*map(self._final, s.results)}) for s in self.planned]
        return [self.planned[p] for p in order_steps(touched, before, self._typical_bytes)]

    def _typical_bytes(self, name: str) -> int:
        """About how much memory a buffer needs while this block uses it."""
        if name not in self.maker or name in self.outside or self.module.slots[name].kind != "temp":
            return 0
        size = nbytes(self.module.slots[name].buffer)
        return size if isinstance(size, int) else evaluate(size, dict.fromkeys(symbols(size), TYPICAL))
