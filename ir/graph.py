"""The graph: immutable, hash-consed values in static single assignment form.

A `Value` is the result of an op applied to other values. Values are interned: building the same
op on the same operands with the same attributes returns the same object, so ``is`` is equality and
equal subexpressions are shared from the start.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import GraphError
from .dims import Poly, symbols
from .types import TensorType, TupleType, Type

if TYPE_CHECKING:
    from .op import Op

__all__ = [
    "Graph", "Literal", "Loc", "Value", "current_location", "make", "next_serial", "source_location", "topological",
    "users",
]


@dataclass(frozen=True)
class Loc:
    """A line of the user's source.

    Attributes
    ----------
    role : ``"grad"`` for values made by differentiation.
    of : of those, the op whose derivative they are part of.
    """

    file: str
    line: int
    role: str = ""
    of: str = ""

    def __str__(self) -> str:
        suffix = "".join(f" {word}" for word in (self.role, self.of) if word)
        return f'loc("{self.file}":{self.line}{suffix})'

    def as_gradient(self, of: str = "") -> Loc:
        return Loc(self.file, self.line, "grad", of)


class Literal:
    """An array as an attribute: immutable, compared by content."""

    __slots__ = ("array", "key")

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        array = np.array(array, order="C")
        array.setflags(write=False)
        self.array = array
        self.key = (array.dtype.str, array.shape, array.tobytes())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Literal) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


def attr_key(value: Any) -> Any:
    """A key that tells 0.0 from -0.0, 1 from True, and equals itself for NaN."""
    if isinstance(value, tuple):
        return tuple(map(attr_key, value))
    if isinstance(value, (bool, int, float)):
        return type(value).__name__, repr(value)
    return value


def _operator(name: str, reflected: bool = False) -> Callable[[Value, Value | float], Value]:
    def method(self: Value, other: Value | float) -> Value:
        from .op import OPS

        return OPS[name](other, self) if reflected else OPS[name](self, other)

    return method


class Value:
    """One result in a graph; make it with `make` or the functions of `ir.builder`.

    Attributes
    ----------
    op : the op's definition.
    operands : the values it reads.
    attrs : its attributes, by name.
    regions : graphs that it runs (the body of a fusion).
    type : `TensorType`, or `TupleType` for several results.
    locs : the user's source lines, if known: the first that made it, then others that made it again (a few).
        They are not part of the identity.
    serial : when it was made last, counted in values. So a body that is traced knows what was made in it, whether or
        not an equal value was there before.
    """

    __slots__ = ("op", "operands", "attrs", "regions", "type", "locs", "serial", "__weakref__")

    op: Op
    operands: tuple[Value, ...]
    attrs: Mapping[str, Any]
    regions: tuple[Graph, ...]
    type: Type
    locs: tuple[Loc, ...]
    serial: int

    @property
    def loc(self) -> Loc | None:
        """The source line that made it first."""
        return self.locs[0] if self.locs else None

    @property
    def tensor(self) -> TensorType:
        """The type of a value that is one tensor."""
        assert isinstance(self.type, TensorType), f"{self.op.name} has several results"
        return self.type

    @property
    def symbols(self) -> set[str]:
        """The symbolic dimensions that its attributes name."""
        return {s for attr in self.attrs.values() for s in _attribute_symbols(attr)}

    @property
    def shape(self) -> tuple[Any, ...]:
        return self.tensor.shape

    @property
    def dtype(self) -> Any:
        return self.tensor.dtype

    # The IR's own arithmetic, in which VJPs and rewrites are written.
    __add__, __radd__ = _operator("add"), _operator("add", reflected=True)
    __sub__, __rsub__ = _operator("sub"), _operator("sub", reflected=True)
    __mul__, __rmul__ = _operator("mul"), _operator("mul", reflected=True)
    __truediv__, __rtruediv__ = _operator("div"), _operator("div", reflected=True)
    __pow__ = _operator("pow")
    __lt__, __le__, __gt__, __ge__ = map(_operator, ("lt", "le", "gt", "ge"))

    def __neg__(self) -> Value:
        from .op import OPS

        return OPS["neg"](self)

    def with_operands(self, operands: Sequence[Value]) -> Value:
        """The same op on other operands; itself if they are the same."""
        if all(a is b for a, b in zip(operands, self.operands, strict=True)):
            return self
        same_types = all(a.type == b.type for a, b in zip(operands, self.operands))
        type_ = self.type if same_types else None
        return make(self.op, operands, self.attrs, self.regions, loc=self.locs, type_=type_)

    def __repr__(self) -> str:
        return f"<{self.op.name}: {self.type}>"


def _attribute_symbols(attr: Any) -> Iterator[str]:
    if isinstance(attr, Poly):
        yield from symbols(attr)
    elif isinstance(attr, tuple):
        for item in attr:
            yield from _attribute_symbols(item)


MAX_LOCS = 16
"""How many source lines a value remembers that make it."""

_interned: weakref.WeakValueDictionary[Any, Value] = weakref.WeakValueDictionary()
_regions: weakref.WeakValueDictionary[Any, Graph] = weakref.WeakValueDictionary()


_serials = itertools.count()


def next_serial() -> int:
    """A number greater than the serial of every value so far."""
    return next(_serials)


class _Current(threading.local):
    """Each Python thread builds its own graphs, at its own lines."""

    def __init__(self) -> None:
        self.locs: list[tuple[Loc, ...]] = [()]


_current = _Current()


def current_location() -> Loc | None:
    """The source line that new values get."""
    locs = _current.locs[-1]
    return locs[0] if locs else None


class source_location:
    """Context in which new values get this source line, or these."""

    def __init__(self, loc: Loc | tuple[Loc, ...] | None) -> None:
        self.locs = _locations(loc)

    def __enter__(self) -> None:
        _current.locs.append(self.locs)

    def __exit__(self, *_: object) -> None:
        _current.locs.pop()


def _locations(loc: Loc | tuple[Loc, ...] | None) -> tuple[Loc, ...]:
    return loc if isinstance(loc, tuple) else () if loc is None else (loc,)


def _made_again(value: Value, locs: tuple[Loc, ...]) -> None:
    """Keep the lines that make a value which exists already, unless it is without lines or operands."""
    if value.locs and value.operands and len(value.locs) < MAX_LOCS:
        new = [loc for loc in locs if loc not in value.locs]
        if new:
            value.locs = (*value.locs, *new)[:MAX_LOCS]


def make(
    op: Op,
    operands: Iterable[Value] = (),
    attrs: Mapping[str, Any] | None = None,
    regions: Sequence[Graph] = (),
    loc: Loc | tuple[Loc, ...] | None = None,
    type_: Type | None = None,
) -> Value:
    """Apply an op: infer its type (if it is not given), or return the equal value that exists already.

    Raises
    ------
    GraphError
        Whatever the op's type rule raises for these operands and attributes.
    """
    operands = tuple(operands)
    attrs = dict(attrs or {})
    regions = tuple(map(_interned_region, regions))
    key = (
        op.name,
        tuple(map(id, operands)),
        tuple(sorted((k, attr_key(v)) for k, v in attrs.items())) if attrs else (),
        tuple(map(id, regions)),
    )
    locs = _locations(loc) or _current.locs[-1]
    found = _interned.get(key)
    if found is not None:
        found.serial = next_serial()
        if locs is not found.locs and locs:
            _made_again(found, locs)
        return found
    value = Value()
    value.op, value.operands, value.attrs, value.regions = op, operands, attrs, regions
    value.locs, value.serial = locs, next_serial()
    value.type = type_ or op.infer_type(operands, attrs, value.regions, locs[0] if locs else None)
    _interned[key] = value
    return value


def _interned_region(region: Graph) -> Graph:
    """The graph that stands for all regions with the same values in the same places."""
    ends = (region.inputs, region.states, region.outputs, tuple(v for pair in region.updates for v in pair))
    names = tuple(sorted((id(v), name) for v, name in region.names.items()))
    return _regions.setdefault((region.name, *(tuple(map(id, end)) for end in ends), names), region)


def topological(roots: Iterable[Value]) -> list[Value]:
    """All values the roots depend on, operands before users, in a deterministic order."""
    order: list[Value] = []
    seen: set[int] = set()
    stack: list[tuple[Value, bool]] = [(v, False) for v in reversed(list(roots))]
    while stack:
        value, done = stack.pop()
        if done:
            order.append(value)
        elif id(value) not in seen:
            seen.add(id(value))
            stack.append((value, True))
            stack.extend((o, False) for o in reversed(value.operands) if id(o) not in seen)
    return order


def users(order: Iterable[Value]) -> dict[Value, list[Value]]:
    """Who reads each value, in order."""
    readers: dict[Value, list[Value]] = {}
    for value in order:
        readers.setdefault(value, [])
        for operand in dict.fromkeys(value.operands):
            readers.setdefault(operand, []).append(value)
    return readers


@dataclass(frozen=True, eq=False)
class Graph:
    """A function: from inputs and states to outputs and new states.

    Attributes
    ----------
    name : an identifier.
    inputs : values of the op ``input``, in the order of the arguments.
    states : values of the op ``state``: mutable variables that live outside the function.
    outputs : what it returns.
    updates : pairs of a state and its new value, assigned after all outputs are computed.
    """

    name: str
    inputs: tuple[Value, ...]
    states: tuple[Value, ...]
    outputs: tuple[Value, ...]
    updates: tuple[tuple[Value, Value], ...] = ()
    names: Mapping[Value, str] = field(default_factory=dict)

    @property
    def roots(self) -> tuple[Value, ...]:
        """Outputs, then the new values of the states."""
        return self.outputs + tuple(new for _, new in self.updates)

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbolic dimensions of inputs and states, sorted."""
        found: set[str] = set()
        for value in self.inputs + self.states:
            found |= value.tensor.symbols
        return tuple(sorted(found))

    def with_roots(self, roots: Sequence[Value]) -> Graph:
        """The same function computing other roots (same number, same meaning)."""
        n = len(self.outputs)
        if all(a is b for a, b in zip(roots, self.roots, strict=True)):
            return self
        updates = tuple((s, new) for (s, _), new in zip(self.updates, roots[n:], strict=True))
        return Graph(self.name, self.inputs, self.states, tuple(roots[:n]), updates, self.names)

    def with_values(self, new: Mapping[Value, Value]) -> Graph:
        """The same function with other values for its own, named as these; the same object if no root changes."""
        result = self.with_roots([new[v] for v in self.roots])
        if result is self:
            return self
        names = {new[v]: name for v, name in self.names.items() if v in new}
        return Graph(result.name, result.inputs, result.states, result.outputs, result.updates, names)

    def __iter__(self) -> Iterator[Value]:
        """Values in topological order, inputs and states included."""
        return iter(self._order)

    @cached_property
    def _order(self) -> list[Value]:
        return topological(self.inputs + self.states + self.roots)

    def __str__(self) -> str:
        from .printer import print_graph

        return print_graph(self)


def check_tuple_index(value: Value, index: int) -> TensorType:
    """The type of one result of a value with several.

    Raises
    ------
    GraphError
        If there is no such result.
    """
    if not isinstance(value.type, TupleType) or not 0 <= index < len(value.type.items):
        raise GraphError(f"{value.op.name} of type {value.type} has no result {index}")
    return value.type.items[index]

