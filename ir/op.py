"""What an op is: one record that holds everything about it, and the registry of all records.

The interpreter, the constant folder, the frontend's functions, differentiation, lowering, the docs
and the tests all read these records; adding an op is adding one record to one file in `ir/ops/`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol, Union

import numpy as np

from ..errors import DimensionError, GraphError, GraphwrightError, ShapeError
from .dims import INT64_MAX, Dim, at_most, equal, symbol
from .graph import Graph, Loc, Value, current_location, make
from .loops import Buffer, Expr, Stmt
from .types import TensorType, Type

__all__ = [
    "LINEAR", "MULTILINEAR", "OPS", "REQUIRED", "ZERO_GRADIENT", "Batch", "Body", "Definition", "Lanes", "Lowering",
    "Op", "Read", "Sample", "Typing", "assumptions", "register",
]


class _Required:
    def __repr__(self) -> str:
        return "required"


Assumption = tuple[Dim, Dim, str]
REQUIRED = _Required()
"""The default of an attribute that must be given."""


class Typing:
    """What a type rule sees: operand types, attributes, and how to refuse them."""

    def __init__(
        self,
        op: Op,
        operands: Sequence[Value],
        attrs: Mapping[str, Any],
        regions: Sequence[Graph] = (),
        loc: Loc | None = None,
    ) -> None:
        self.op, self.operands, self.attrs, self.regions = op, operands, attrs, regions
        self.loc = loc or current_location()
        self.assumptions: list[Assumption] = []

    @property
    def types(self) -> tuple[TensorType, ...]:
        return tuple(v.tensor for v in self.operands)

    def __getitem__(self, name: str) -> Any:
        return self.attrs[name]

    def fail(self, error: type[GraphwrightError], problem: str, advice: str = "") -> NoReturn:
        """Raise `error`, naming the op, the operands with their source lines, and what would be right."""
        lines = [f"{self.op.name}: {problem}"]
        if self.loc:
            lines[0] += f"  at {self.loc.file}:{self.loc.line}"
        for k, v in enumerate(self.operands):
            where = f"  made by {v.op.name} at {v.loc.file}:{v.loc.line}" if v.loc else f"  made by {v.op.name}"
            lines.append(f"  operand {k}: {v.type}{where}")
        if advice:
            lines.append(f"  {advice}")
        raise error("\n".join(lines))

    def axis(self, axis: int, rank: int) -> int:
        """A normalized axis (negative ones count from the end)."""
        if not -rank <= axis < rank:
            from ..errors import IndexRangeError

            self.fail(IndexRangeError, f"axis {axis} is out of range for rank {rank}")
        return axis % rank

    def require_at_most(self, a: Dim, b: Dim, problem: str, advice: str = "") -> None:
        """Require ``a <= b``: refuse what is never so, note what depends on symbolic dimensions."""
        if at_most(b + 1, a):
            self.fail(ShapeError, problem, advice)
        if not at_most(a, b):
            self.assumptions.append((a, b, f"{self.op.name}: {problem}"))

    def require_sizes(self, shape: Sequence[Dim]) -> None:
        """Require that no dimension of a new shape is negative."""
        for d in shape:
            self.require_at_most(0, d, f"the dimension {d} is negative")

    def same_shape(self) -> None:
        """Require that all operands have one shape."""
        first = self.types[0].shape
        for t in self.types[1:]:
            if len(t.shape) != len(first) or not all(map(equal, t.shape, first)):
                self.fail(ShapeError, "operands must have the same shape")


def assumptions(value: Value) -> list[Assumption]:
    """What a value needs of the symbolic dimensions: ``(a, b, problem)``, where ``a <= b`` must hold."""
    typing = Typing(value.op, value.operands, value.attrs, value.regions, value.loc)
    value.op.infer(typing)
    return list(typing.assumptions)


class Body(Protocol):
    """A region as a `reference` runs it: from arrays of its inputs to a tuple of arrays.

    Attributes
    ----------
    outputs : NumPy dtype and shape of each result.
    """

    @property
    def outputs(self) -> Sequence[tuple[np.dtype[Any], tuple[int, ...]]]: ...

    def __call__(self, *operands: Any) -> tuple[Any, ...]: ...


class Read(Protocol):
    """Reads an operand at indices (dims, or expressions for data-dependent ones).

    Where the bool expression `guard` is false nothing is read, and the value is 0.
    """

    def __call__(self, indices: Sequence[Dim | Expr], *, guard: Expr | None = None) -> Expr: ...


class Definition:
    """What an index-space definition sees while it writes one element of the result.

    Attributes
    ----------
    index : the element's position: one dim per axis of the result.
    types : operand types.
    out : the result's type.
    attrs : the op's attributes.
    """

    def __init__(
        self,
        index: Sequence[Dim],
        types: Sequence[TensorType],
        out: TensorType,
        attrs: Mapping[str, Any],
        fresh: Callable[[Dim], str],
    ) -> None:
        self.index, self.types, self.out, self.attrs = tuple(index), tuple(types), out, attrs
        self._fresh = fresh
        self.axes: list[tuple[str, Dim]] = []

    def __getitem__(self, name: str) -> Any:
        return self.attrs[name]

    def axis(self, extent: Dim) -> Dim:
        """A new reduction variable that runs over ``0..extent``."""
        name = self._fresh(extent)
        self.axes.append((name, extent))
        return symbol(name)


@dataclass(frozen=True)
class Lowering:
    """What an opaque op sees while it writes its statements.

    Attributes
    ----------
    inputs, outputs : the buffers of its operands and results.
    types : operand types.
    out : the result's type.
    attrs : the op's attributes.
    fresh : ``fresh(prefix)`` gives a name that no other variable of the kernel has.
    """

    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]
    types: tuple[TensorType, ...]
    out: Type
    attrs: Mapping[str, Any]
    fresh: Callable[[str], str]


@dataclass(frozen=True)
class Sample:
    """Operands and attributes on which an op is tested.

    `operands` are float64 arrays (cast to each tested dtype) or arrays of the dtype they must keep
    (integers, bools).
    """

    operands: tuple[np.ndarray[Any, Any], ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)


VJP = Callable[..., "Sequence[Value | None]"]
Cotangents = Sequence[Union[Value, None]]
Tangents = Sequence[Union[Value, None]]
JVP = Callable[[Value, Tangents], Union[Value, None]]
Lanes = tuple[Value, bool]
"""A value for all lanes of a mapped axis: whether it has them as its first axis, or is alike in all."""
Batch = Callable[[Value, Sequence[Lanes], Dim], Value]


def _no_samples() -> Iterable[Sample]:
    return ()


@dataclass(frozen=True, eq=False)
class Op:
    """The record of one op.

    Attributes
    ----------
    name : its name in IR text.
    kind : ``leaf`` (input, constant), ``map`` (each result element from given operand elements),
        ``view`` (the operand's memory under another shape), ``reduce`` (combines along axes),
        ``contract`` (a sum of products), ``opaque`` (writes its own loops), ``region`` (runs graphs).
    infer : the type rule; refuses wrong operands with `Typing.fail`.
    reference : its meaning, in NumPy: ``reference(*operands, **attrs)``; of kind ``region`` also with ``bodies=``,
        a `Body` for each of its regions.
    define : its index-space definition: the scalar expression of one element of the result.
    lower : for ``opaque``: ``lower(lowering)`` gives the statements that compute it (`Lowering`).
    vjp : ``vjp(cotangent, result, *operands, **attrs)`` gives a cotangent per operand, in the IR's
        own arithmetic; None for an operand without one. An op without `vjp` raises when
        differentiated; `ZERO_GRADIENT` declares it constant almost everywhere.
    jvp : ``jvp(value, tangents)`` gives the tangent of a value of this op from those of its operands, of which None
        is 0: `LINEAR`, `MULTILINEAR`, or a function. An op without it has that which follows from its `vjp`
        (`passes.pushforward`).
    batch : ``batch(value, operands, size)`` gives what a value of this op is for `size` lanes at once, some operands
        having these as a further first axis (`ir.batching`). An elementwise op needs none.
    attrs : attribute names with their defaults (`REQUIRED` for none).
    elementwise : operands and result share one shape and are read at the same index.
    commutative : the two operands may be exchanged.
    random_access : operands read at data-dependent indices.
    ulp : the largest error in units in the last place, of the compiled float32 code.
    cost : scalar operations per element, for the cost model.
    samples : inputs that exercise it in the tests.
    api : its name in the Python Array API standard, if it differs.
    doc : one sentence for the docs.
    arity : number of operands; None for any number.
    kernels : a user's own code, by target: ``kernel(out, *operands)`` for ``"cpu"`` (compiled by Numba) and
        ``"cuda"`` (by numba.cuda; run by each of a grid's threads).
    """

    name: str
    kind: str
    infer: Callable[[Typing], Type]
    reference: Callable[..., Any]
    define: Callable[..., Expr] | None = None
    lower: Callable[..., Sequence[Stmt]] | None = None
    vjp: VJP | None = None
    jvp: JVP | None = None
    batch: Batch | None = None
    attrs: Mapping[str, Any] = field(default_factory=dict)
    elementwise: bool = False
    commutative: bool = False
    random_access: tuple[int, ...] = ()
    ulp: float = 0.0
    cost: int = 1
    samples: Callable[[], Iterable[Sample]] = _no_samples
    api: str = ""
    doc: str = ""
    arity: int | None = None
    kernels: Mapping[str, Callable[..., None]] = field(default_factory=dict)

    def infer_type(
        self,
        operands: Sequence[Value],
        attrs: Mapping[str, Any],
        regions: Sequence[Graph] = (),
        loc: Loc | None = None,
    ) -> Type:
        """The result's type, or the error that a wrong use gets."""
        typing = Typing(self, operands, attrs, regions, loc)
        if self.arity is not None and len(operands) != self.arity:
            typing.fail(GraphError, f"takes {self.arity} operands, got {len(operands)}")
        unknown = set(attrs) - set(self.attrs)
        missing = {name for name, default in self.attrs.items() if default is REQUIRED} - set(attrs)
        if unknown or missing:
            typing.fail(GraphError, f"attributes: unknown {sorted(unknown)}, missing {sorted(missing)}")
        result = self.infer(typing)
        for item in (result,) if isinstance(result, TensorType) else result.items:
            if isinstance(item.nbytes, int) and item.nbytes > INT64_MAX:
                typing.fail(DimensionError, f"the result {item} would take {item.nbytes} bytes, more than 2**63 - 1")
        return result

    def __call__(self, *operands: Value | float, **attrs: Any) -> Value:
        """Apply the op. Elementwise ops broadcast, promote, and take Python scalars (see `lift`)."""
        full = {**self.attrs, **attrs}
        missing = [name for name, value in full.items() if value is REQUIRED]
        if missing:
            raise GraphError(f"{self.name}: attribute {missing[0]!r} must be given")
        if self.elementwise:
            from .broadcasting import lift

            operands = lift(self, operands)
        return make(self, operands, full)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return f"<op {self.name}>"


def ZERO_GRADIENT(cotangent: Value, result: Value, *operands: Value, **attrs: Any) -> Cotangents:
    """The VJP of an op that is constant almost everywhere."""
    return tuple(None for _ in operands)


def LINEAR(value: Value, tangents: Tangents) -> Value:
    """The JVP of an op that is linear in its floating-point operands together: the op of their tangents."""
    from .broadcasting import full

    operands = [
        (t or full(o.tensor.shape, 0, o.tensor.dtype)) if o.tensor.dtype.is_float else o
        for o, t in zip(value.operands, tangents)
    ]
    return make(value.op, operands, value.attrs)


def MULTILINEAR(value: Value, tangents: Tangents) -> Value:
    """The JVP of an op that is linear in each operand: a sum, with one operand's tangent in its place in each term."""
    terms = [
        make(value.op, [*value.operands[:k], t, *value.operands[k + 1:]], value.attrs)
        for k, t in enumerate(tangents) if t is not None
    ]
    return functools.reduce(lambda a, b: a + b, terms)


OPS: dict[str, Op] = {}
"""All ops by name."""


def register(op: Op) -> Op:
    """Add a record to the registry.

    Raises
    ------
    GraphError
        If the name is taken.
    """
    if op.name in OPS:
        raise GraphError(f"an op named {op.name!r} exists already; choose another name")
    OPS[op.name] = op
    return op

