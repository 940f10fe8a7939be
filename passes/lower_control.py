"""Lower loops and branches to steps around the steps of their regions.

Sequences and stacked results are not copied: an element is a view of its place there. A carry has one buffer if
each step can overwrite it; else two that alternate. If all its values are wanted (as the gradient wants them), it
has a buffer for all steps, in which each step reads one row and writes the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from ..ir.dims import Dim, mod, product, symbol
from ..ir.graph import Graph, Value
from ..ir.op import OPS
from ..ir.program import Branch, Loop, Step, While
from ..ir.types import TensorType, TupleType
from .lower_block import Block, Planned

__all__ = ["lower_control"]


def lower_control(block: Block, v: Value) -> tuple[str, ...]:
    """Plan the step of a loop or branch; the buffers of its results."""
    return _LOWERINGS[v.op.name](block, v)


def _part(block: Block, of: str, t: TensorType, row: Dim) -> str:
    """A view of one row of a buffer."""
    return block.module.temp(t, alias=of, offset=row * product(t.shape) * t.dtype.itemsize)


def _zeros(block: Block, name: str, t: TensorType) -> Planned:
    """Fill a buffer whose rows may not all be written; the step that writes them counts as its maker."""
    full = OPS["full"](shape=t.shape, value=False if t.dtype.is_bool else 0, dtype=t.dtype)
    filled = block.call(Graph("fill", (), (), (full,)), (), (name,))
    del block.maker[name]
    block.preludes.setdefault(name, []).append((filled, None))
    return filled


def _items(v: Value) -> tuple[TensorType, ...]:
    assert isinstance(v.type, TupleType)
    return v.type.items


# --- scan ------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Carry:
    """A carry's memory: where it begins, is read, is written and ends."""

    memory: str
    start: str
    before: str
    after: str
    end: str


class _Scan:
    def __init__(self, block: Block, v: Value) -> None:
        self.block, self.v, self.module = block, v, block.module
        self.body = v.regions[0]
        a = v.attrs
        self.length: Dim = a["length"]
        self.reverse: bool = a["reverse"]
        self.carries, self.sequences = a["carries"], a["sequences"]
        last = len(v.operands) - a["counted"]
        self.count = block.buffers[v.operands[-1]] if a["counted"] else None
        self.initial = v.operands[: self.carries]
        self.over = v.operands[self.carries : self.carries + self.sequences]
        self.captures = v.operands[self.carries + self.sequences : last]
        self.index = self.module.index()
        self.step = symbol(self.index)  # how many steps came before
        if self.reverse:
            self.step = self.length - 1 - symbol(self.index)

    def lower(self) -> tuple[str, ...]:
        block, body = self.block, self.body
        carried = body.outputs[: self.carries]
        rows = list(enumerate(body.outputs[self.carries :]))
        stacks: dict[int, str] = {}  # by result; of those that are no carry's history, filled below
        carries: list[_Carry | None] = [
            None if self.count else self._history(k, new, stacks) for k, new in enumerate(carried)
        ]
        memory = [c.memory if c else self._memory(k) for k, c in enumerate(carries)]
        known = {
            **{p: c.before if c else m for p, c, m in zip(body.inputs, carries, memory)},
            **dict(zip(body.inputs[self.carries :], (*self._elements(), *(block.buffers[x] for x in self.captures)))),
        }
        inside = Block(body, self.module, known)
        inside.values()
        types = _items(self.v)[self.carries :]
        own = {j: self.module.temp(types[j], prefix="stack") for j, _ in rows if j not in stacks}
        for j, out in rows:
            if j in own:
                inside.write(out, _part(block, own[j], out.tensor, symbol(self.index)))
        carries = self._place_carries(inside, carries, memory)
        inside.settle()
        begins = [self.block.start(x, c.start) for x, c in zip(self.initial, carries) if c]
        if self.count:
            begins += [_zeros(block, name, types[j]) for j, name in own.items()]
        made = tuple(dict.fromkeys([*(c.memory for c in carries if c), *own.values()]))
        reads = tuple(block.buffers[x] for x in self.v.operands[self.carries :])
        block.wait(block.step(reads, made, partial(self._make, inside)), begins)
        ends = tuple(c.end for c in carries if c)
        return (*ends, *(own[j] if j in own else stacks[j] for j, _ in rows))

    def _make(self, inside: Block) -> Step:
        count = None if self.count is None else self.module.place(self.count)
        return Loop(self.index, self.length, inside.steps(), self.reverse, count)

    def _elements(self) -> list[str]:
        inputs = self.body.inputs[self.carries : self.carries + self.sequences]
        places = (self.block.buffers[x] for x in self.over)
        return [_part(self.block, of, p.tensor, symbol(self.index)) for of, p in zip(places, inputs)]

    # --- carries ---

    def _memory(self, k: int) -> str:
        return self.module.temp(self.initial[k].tensor, prefix="carry")

    def _history(self, k: int, new: Value, stacks: dict[int, str]) -> _Carry | None:
        """The memory of a carry all of whose values are results: of what it is before each step, or after it."""
        rows = [(j, out) for j, out in enumerate(self.body.outputs[self.carries :]) if j not in stacks]
        before = [j for j, out in rows if out is self.body.inputs[k]]
        after = [j for j, out in rows if out is new and j not in before]
        if not before and not after:
            return None
        t = self.initial[k].tensor
        memory = self.module.temp(t.with_shape((self.length + 1, *t.shape)), prefix="carry")
        row, more = symbol(self.index), 1
        first, then = (row + more, row) if self.reverse else (row, row + more)
        ends = (self.length, 0) if self.reverse else (0, self.length)
        for js, read in ((before, True), (after, False)):
            for j in js:
                stack = t.with_shape((self.length, *t.shape))
                shifted = read == self.reverse  # rows 1..length
                offset = product(t.shape) * t.dtype.itemsize if shifted else 0
                stacks[j] = self.module.temp(stack, alias=memory, offset=offset)
        return _Carry(memory, *(_part(self.block, memory, t, r) for r in (ends[0], first, then, ends[1])))

    def _place_carries(
        self, inside: Block, carries: Sequence[_Carry | None], memory: Sequence[str]
    ) -> list[_Carry | None]:
        """Give all new values of carries their places; what cannot be overwritten alternates between two."""
        found = list(carries)
        pairs = list(zip(self.body.inputs, self.body.outputs))[: self.carries]
        for (_, new), c in zip(pairs, carries):
            if c is not None:
                inside.write(new, c.after)
        single = [k for k, c in enumerate(carries) if c is None]
        if self.count:  # where the last step is, is not known
            inside.update([pairs[k] for k in single])
        else:
            # what is no step's own result is copied, and so reads another carry: first
            for k in sorted(single, key=lambda k: inside.makes(pairs[k][1])):
                state, new = pairs[k]
                if new is not state and not inside.in_place(state, new):
                    found[k] = self._alternate(inside, memory[k], state)
                    inside.write(new, found[k].after)  # type: ignore[union-attr]
        return [c or _Carry(m, m, m, m, m) for c, m in zip(found, memory)]

    def _alternate(self, inside: Block, memory: str, state: Value) -> _Carry:
        """Two buffers in turn, the first of them read by the first step."""
        t = state.tensor
        both = self.module.temp(t.with_shape((2, *t.shape)), prefix="carry")
        turns = (0, mod(self.step, 2), mod(self.step + 1, 2), mod(self.length, 2))
        start, before, after, end = (_part(self.block, both, t, turn) for turn in turns)
        self.module.rename[memory] = before
        return _Carry(both, start, before, after, end)


def _lower_scan(block: Block, v: Value) -> tuple[str, ...]:
    return _Scan(block, v).lower()


# --- while and switch ------------------------------------------------------------------------------


def _lower_while(block: Block, v: Value) -> tuple[str, ...]:
    test, body = v.regions
    carries, limit = v.attrs["carries"], v.attrs["max_steps"]
    module, index = block.module, block.module.index()
    memory = [module.temp(x.tensor, prefix="carry") for x in v.operands[:carries]]
    given = [*memory, *(block.buffers[x] for x in v.operands[carries:])]
    inner_test = Block(test, module, dict(zip(test.inputs, given)))
    inner_test.values()
    condition, steps = module.temp(test.outputs[0].tensor), module.temp(_items(v)[carries])
    inner_test.write(test.outputs[0], condition)
    inner_test.settle()
    inside = Block(body, module, dict(zip(body.inputs, given)))
    inside.values()
    stacks = [module.temp(t, prefix="stack") for t in _items(v)[carries + 1 :]]
    for stack, out in zip(stacks, body.outputs[carries:]):
        inside.write(out, _part(block, stack, out.tensor, symbol(index)))
    inside.update(zip(body.inputs[:carries], body.outputs[:carries]))
    inside.settle()
    begins = [block.start(x, m) for x, m in zip(v.operands, memory)]
    begins += [_zeros(block, name, t) for name, t in zip(stacks, _items(v)[carries + 1 :])]

    def make() -> Step:
        place = module.place
        return While(index, inner_test.steps(), place(condition), inside.steps(), limit, place(steps))

    reads = tuple(block.buffers[x] for x in v.operands[carries:])
    block.wait(block.step(reads, (*memory, steps, *stacks), make), begins)
    return (*memory, steps, *stacks)


def _lower_switch(block: Block, v: Value) -> tuple[str, ...]:
    module = block.module
    results = tuple(module.temp(t) for t in _items(v))
    given = [block.buffers[x] for x in v.operands]
    branches = [_branch(block, region, given[1:], results) for region in v.regions]

    def make() -> Step:
        return Branch(module.place(given[0]), tuple(b.steps() for b in branches))

    block.step(tuple(given), results, make)
    return results


def _branch(block: Block, region: Graph, given: Sequence[str], results: Sequence[str]) -> Block:
    known: Mapping[Value, str] = dict(zip(region.inputs, given))
    inside = Block(region, block.module, known)
    inside.values()
    for out, name in zip(region.outputs, results):
        inside.write(out, name)
    inside.settle()
    return inside


_LOWERINGS = {"scan": _lower_scan, "while": _lower_while, "switch": _lower_switch}
