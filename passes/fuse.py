"""Fusion: partition the graph into groups of ops, each of which becomes one kernel.

The graph is walked from its results to its inputs, and each op joins the group of its users where
that saves memory traffic and costs little:

- a *map* is inlined into the one group that reads it; into several if it is nearly free;
- a *reduction* joins the group whose outer loops it runs over (softmax, layer norm: a row group);
- a *contraction* joins the group of maps over its own result: its epilogue. Movement of its
  operands, and light maps of its right operand, join as prologue;
- a result that others need too becomes a further output of the group, if all its users are in it.

A group's ops become the region of a `fusion`, which carries the reason for its existence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import CompileError
from ..ir.dims import Dim
from ..ir.graph import Graph, Value, make, users
from ..ir.op import OPS
from ..ir.ops import structure
from ..ir.ops.window import Window
from ..ir.types import Shape
from .fuse_parts import read_in_parts
from .fuse_siblings import merge_groups
from .pieces import in_pieces, loop_shape
from .regions import is_control

__all__ = ["Axes", "Group", "Partition", "fuse", "isolate"]

MAX_MEMBERS = 128
LIGHT = 4
"""Scalar operations per element up to which a map may be computed more than once."""

OTHER = -1
Axes = tuple[int | None, ...]
"""For each axis of a value, the group's loop that runs over it; None if its size is 1, `OTHER` if no
one loop does: it is summed over, or users differ."""


@dataclass(eq=False)
class Group:
    """Ops that become one kernel; `axes` tells how each member's axes run over the loops of the root."""

    shape: Shape
    members: dict[Value, None] = field(default_factory=dict)
    axes: dict[Value, Axes | None] = field(default_factory=dict)
    anchor: Value | None = None
    reduces: bool = False
    prologue: set[Value] = field(default_factory=set)  # values that a contraction or window reads
    pieces: set[Value] = field(default_factory=set)  # concatenations whose operands run over the loops, each by itself
    sealed: bool = False


class Partition:
    """Which groups each op is in, and how its axes run over their loops."""

    def __init__(self, graph: Graph, alone: bool = False) -> None:
        self.graph = graph
        self.alone = alone
        self.order = list(graph)
        self.users = users(self.order)
        self.roots = set(graph.roots)
        self.groups: dict[Value, list[Group]] = {}

    def run(self) -> None:
        for v in reversed(self.order):
            if v.op.kind == "leaf" or is_alias(v) or is_control(v):
                continue
            group = None if self.alone else self._absorber(v)
            if self.alone:
                self._new_group(v)
            elif group is not None:
                self._join(v, [group])
            elif _nearly_free(v) and self._inlinable_everywhere(v):
                self._join(v, self._user_groups(v))
            else:
                self._new_group(v)
        if not self.alone:
            merge_groups(self)

    # --- who may take a value ---

    def _user_groups(self, v: Value) -> list[Group]:
        return list(dict.fromkeys(g for u in self.users[v] for g in self.groups.get(u, ())))

    def _only_read_in_groups(self, v: Value) -> bool:
        return all(u in self.groups and v not in random_reads(u) for u in self.users[v])

    def _absorber(self, v: Value) -> Group | None:
        """The one group that all users of a value are in, if the value may be computed there."""
        if v.op.kind in ("opaque", "region") or _scatters(v) or not self.users[v] or not self._only_read_in_groups(v):
            return None
        groups = self._user_groups(v)
        if len(groups) != 1:
            return None
        (g,) = groups
        if g.sealed or len(g.members) >= MAX_MEMBERS:
            return None
        if v in self.roots and not (self._at_root(v, g) and v.op.kind != "reduce"):
            return None
        return g if self._fits(v, g) else None

    def _fits(self, v: Value, g: Group) -> bool:
        if is_map(v):
            return all(inlinable(v, u, g) for u in self.users[v])
        if v.op.kind == "contract":
            alone = g.anchor is None and not g.reduces and all(_plain(m) for m in g.members)
            return alone and (self._at_root(v, g) or self._in_parts(v, g))
        axes = self.axes_in(v, g)  # a reduction
        if axes is None or g.anchor is not None or any(u in g.prologue for u in self.users[v]):
            return False
        known = [a for a in axes if a is not None]
        return known == list(range(len(known))) and (bool(known) or not g.shape) and not is_window(v)

    def _at_root(self, v: Value, g: Group) -> bool:
        axes = self.axes_in(v, g)
        return axes == tuple(range(len(g.shape))) and len(v.tensor.shape) == len(g.shape) and v not in g.prologue

    def _in_parts(self, v: Value, g: Group) -> bool:
        """Whether a group reads a product in parts, each at the group's own places."""
        if not all(self.groups[m] == [g] for m in g.members) or not read_in_parts(v, g.shape, g.members, self.users):
            return False
        slices = [m for m in g.members if m.op.name == "slice"]
        return all(g.axes[m] == tuple(range(len(g.shape))) for m in slices)

    def _inlinable_everywhere(self, v: Value) -> bool:
        return (
            v not in self.roots and bool(self.users[v]) and self._only_read_in_groups(v)
            and all(not g.sealed and inlinable(v, u, g) for u in self.users[v] for g in self.groups[u])
        )  # fmt: skip

    # --- bookkeeping ---

    def _new_group(self, v: Value) -> None:
        shape = v.tensor.shape if self.alone else loop_shape(v)
        g = Group(shape, sealed=v.op.kind in ("opaque", "region"))
        if in_pieces(v) and not self.alone:
            g.pieces.add(v)
        g.axes[v] = tuple(range(len(shape)))
        self._join(v, [g])

    def _join(self, v: Value, groups: Sequence[Group]) -> None:
        self.groups[v] = list(groups)
        for g in groups:
            if v not in g.axes:
                g.axes[v] = self.axes_in(v, g)
            g.members[v] = None
            g.anchor = v if v.op.kind == "contract" else g.anchor
            g.reduces |= v.op.kind == "reduce" and not is_map(v)
            if v.op.kind == "contract" or is_window(v) or v in g.prologue:
                g.prologue.update(v.operands)

    def axes_in(self, v: Value, g: Group) -> Axes | None:
        """How the axes of a value run over the group's loops, if all its users there agree."""
        found: Axes | None = None
        users = self.users[v]
        # the shorter list: a shared value has as many users as the graph is large
        few = [m for m in g.members if v in m.operands] if len(users) > len(g.members) else users
        for u in (u for u in few if u in g.members):
            for k, operand in enumerate(u.operands):
                if operand is v:
                    axes = g.axes[u] if u in g.pieces else _operand_axes(u, k, g.axes[u])
                    if axes is None:
                        return None
                    found = axes if found is None else tuple(a if a == b else OTHER for a, b in zip(axes, found))
        return found


def is_alias(v: Value) -> bool:
    """Whether a value is another's memory under a different shape: it needs no kernel."""
    return v.op.kind == "view" and not (v.op.name == "reshape" and _only_ones(v))


def _only_ones(v: Value) -> bool:
    a = [d for d in v.operands[0].tensor.shape if d != 1]
    b = [d for d in v.tensor.shape if d != 1]
    return a == b


def random_reads(u: Value) -> set[Value]:
    """Operands that a user reads at data-dependent places, or not by element."""
    if is_alias(u) or u.op.kind in ("opaque", "region"):
        return set(u.operands)
    return {u.operands[k] for k in u.op.random_access}


def is_window(v: Value) -> bool:
    return v.op.name.startswith("window") and not is_map(v)


def is_map(v: Value) -> bool:
    """Whether each element is made of given ones; as is what windows side by side give back."""
    spreads = v.op.name in ("window_put", "window_spread") and Window.of(v.attrs).tiles
    return spreads or v.op.kind in ("map", "view")


def _scatters(v: Value) -> bool:
    """Whether a contraction adds to its result bit by bit, so that it has neither prologue nor epilogue."""
    return v.op.name == "conv_input_grad"


_MOVES = {"broadcast", "transpose", "reshape", "slice", "reverse", "full", "iota", "dim", "unpack", "unpack_kernel"}


def _plain(v: Value) -> bool:
    return v.op.elementwise or v.op.name in ("cast", *_MOVES)


def _nearly_free(v: Value) -> bool:
    real = [o for o in v.operands if o.op.name != "full"]
    return v.op.kind in ("map", "view") and v.op.cost <= 1 and len(real) <= 1 and (_plain(v))


def inlinable(v: Value, user: Value, g: Group) -> bool:
    """Whether a map may be computed inside `user` wherever that reads it."""
    if _scatters(user):
        return False
    if user.op.kind == "contract" or (user in g.prologue and g.anchor is not None):
        if v.op.name in _MOVES:
            return True
        anchor = g.anchor or user
        right = anchor.op.name == "dot" and (user is not anchor or v is anchor.operands[1] is not anchor.operands[0])
        return right and _plain(v) and v.op.cost <= LIGHT and (user is not anchor or v in anchor.operands[1:])
    if is_window(user) or user in g.prologue:
        # windows that overlap compute it once for each
        again = any(is_window(m) and not Window.of(m.attrs).tiles for m in g.members)
        return _nearly_free(v) if again else v.op.cost <= LIGHT
    return True


def _operand_axes(u: Value, k: int, axes: Axes | None) -> Axes | None:
    """The axes of operand `k` of `u`, whose own axes are `axes`."""
    if axes is None:
        return None
    name, operand = u.op.name, u.operands[k]
    if u.op.elementwise or name == "cast":
        return axes
    if name == "broadcast":
        return tuple(axes[d] for d in u.attrs["dims"])
    if name == "transpose":
        out: list[int | None] = [None] * len(axes)
        for i, p in enumerate(u.attrs["perm"]):
            out[p] = axes[i]
        return tuple(out)
    if name == "reshape" and _only_ones(u):
        kept = iter([a for a, d in zip(axes, u.tensor.shape) if d != 1])
        return tuple(None if d == 1 else next(kept) for d in operand.tensor.shape)
    if u.op.kind == "reduce" and "axes" in u.attrs:
        kept = iter(axes)
        return tuple(OTHER if i in u.attrs["axes"] else next(kept) for i in range(operand.tensor.rank))
    return None


# --- regions -------------------------------------------------------------------------------------


def fuse(graph: Graph) -> Graph:
    """Replace every op that computes by `fusion` ops over regions of ops."""
    return _partitioned(Partition(graph))


def isolate(graph: Graph) -> Graph:
    """Give every op a kernel of its own: what `fuse` is compared with."""
    return _partitioned(Partition(graph, alone=True))


def _partitioned(partition: Partition) -> Graph:
    partition.run()
    graph = partition.graph
    return graph.with_roots(_Rebuild(partition).values(graph.roots))


class _Rebuild:
    """The graph again, with one `fusion` value per group; equal groups share one region."""

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self.position = {v: k for k, v in enumerate(partition.order)}
        self.done: dict[Value, Value] = {}
        self.regions: dict[tuple[int, ...], Graph] = {}

    def values(self, roots: Sequence[Value]) -> list[Value]:
        stack, waiting = list(roots), set[Value]()
        while stack:
            v = stack[-1]
            missing = [o for o in self._needs(v) if o not in self.done]
            if v in self.done or not missing:
                stack.pop()
                if v not in self.done:
                    self._make(v)
            elif v in waiting:
                raise CompileError(f"fuse: the group of {v.op.name} waits for itself, through {missing[0].op.name}")
            else:
                waiting.add(v)
                stack.extend(missing)
        return [self.done[v] for v in roots]

    def _group(self, v: Value) -> Group | None:
        groups = self.partition.groups.get(v)
        return groups[0] if groups else None

    def _needs(self, v: Value) -> Sequence[Value]:
        g = self._group(v)
        return v.operands if g is None else self._inputs(g)

    def _inputs(self, g: Group) -> list[Value]:
        members = self._members(g)
        return list(dict.fromkeys(o for m in members for o in m.operands if o not in g.members))

    def _members(self, g: Group) -> list[Value]:
        return sorted(g.members, key=self.position.__getitem__)

    def _outputs(self, g: Group) -> list[Value]:
        found = []
        for v in self._members(g):
            if self.partition.groups[v] == [g]:
                outside = any(self.partition.groups.get(u) != [g] for u in self.partition.users[v])
                if outside or v in self.partition.roots:
                    found.append(v)
        return found

    def _make(self, v: Value) -> None:
        g = self._group(v)
        if g is None:
            self.done[v] = v if not v.operands else v.with_operands([self.done[o] for o in v.operands])
            return
        inputs, outputs = self._inputs(g), self._outputs(g)
        operands = [self.done[o] for o in inputs]
        region = self._region(g, inputs, outputs)
        loc = outputs[-1].locs
        fused = make(structure.fusion, operands, {"reason": _reason(g, outputs)}, (region,), loc)
        for k, out in enumerate(outputs):
            item = fused if len(outputs) == 1 else make(structure.item, (fused,), {"index": k}, loc=out.locs)
            self.done[out] = item

    def _region(self, g: Group, inputs: list[Value], outputs: list[Value]) -> Graph:
        inside: dict[Value, Value] = {}
        for k, o in enumerate(inputs):
            t = o.tensor
            inside[o] = OPS["input"](name=f"p{k}", shape=t.shape, dtype=t.dtype)
        parameters = tuple(inside[o] for o in inputs)
        for m in self._members(g):
            inside[m] = m.with_operands([inside[o] for o in m.operands])
        results = tuple(inside[o] for o in outputs)
        key = (*map(id, parameters), 0, *map(id, results))
        if key not in self.regions:
            self.regions[key] = Graph("region", parameters, (), results)
        return self.regions[key]


def _reason(g: Group, outputs: Sequence[Value]) -> str:
    """What the group is, and the memory traffic it saves: each inner result is not written and read."""
    kind = g.anchor.op.name if g.anchor else "reduce" if g.reduces else "map"
    inner = [m for m in g.members if m not in outputs and m.op.name not in ("full", "iota")]
    if not inner:
        return kind
    saved: Dim = 0
    for m in inner:
        saved = saved + 2 * m.tensor.nbytes
    return f"{kind} of {len(g.members)} ops, saves {saved} bytes of traffic"
