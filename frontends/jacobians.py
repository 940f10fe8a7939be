"""Derivatives in forward mode, and those made of both modes: `jvp`, `hvp`, `jacobian`, `hessian`.

Each is asked in one of two ways. Of tensors that exist, as `gw.grad`: ``jvp(outputs, wrt, tangents)``. Or of a function
and its arguments, as `gw.vjp`: ``jvp(function, primals, tangents)``; then derivatives are by the arguments alone, not
by what else the function reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import GraphError
from ..ir.batching import with_lanes
from ..ir.broadcasting import full
from ..ir.dims import Dim, at_most
from ..ir.dtypes import int64
from ..ir.graph import Value
from ..ir.op import OPS
from ..ir.region import Trace, stand_in, substitute_values
from ..runtime.structure import unflatten
from .derivatives import like
from .shapes import fail
from .source import located, tracing
from .tensor import Tensor
from .trees import Tree, leaves_like

__all__ = ["hessian", "hvp", "jacobian", "jvp"]


@dataclass(frozen=True)
class _Derivation:
    """What is differentiated by what.

    Attributes
    ----------
    outputs, wrt : trees of values; those of `wrt` are stand-ins for the arguments of a function.
    actual : what the stand-ins stand for.
    model : what `wrt` is to the user.
    """

    function: str
    outputs: Tree
    wrt: Tree
    actual: dict[Value, Value]
    model: str

    @staticmethod
    def of(name: str, what: Any, at: Any) -> _Derivation:
        from ..passes.differentiate import require_float

        of_function = callable(what) and not isinstance(what, Tensor)
        model = "primals" if of_function else "wrt"
        at = tuple(at) if of_function and type(at) is list else at
        given = Tree.of(name, model, at)
        for value in given.values:
            require_float(value)
        if not of_function:
            return _Derivation(name, Tree.of(name, "outputs", what), given, {}, model)
        trace = Trace()
        wrt = Tree(trace.inputs_like("a", given.types), given.structure, given.paths)
        arguments = wrt.build(wrt.values)
        with tracing():
            result = what(*arguments) if type(arguments) is tuple else what(arguments)
        outputs = Tree.of(name, "the result", result)
        return _Derivation(name, outputs, wrt, dict(zip(wrt.values, given.values)), model)

    def vectors(self, what: str, tree: Any) -> list[Value]:
        """Leaves that must be nested and typed like what is differentiated by."""
        leaves = leaves_like(self.function, what, tree, self.wrt.structure, self.model)
        places = [path.replace(self.model, what, 1) for path in self.wrt.paths]
        return [like(self.function, p, x, v.tensor) for p, x, v in zip(places, leaves, self.wrt.values)]

    def stable(self) -> list[Value]:
        """The outputs in stable forms."""
        from ..passes.stabilize import stabilize_values

        return stabilize_values(self.outputs.values, keep=self.wrt.values)

    def loss(self) -> Value:
        """The one output, a scalar."""
        if len(self.outputs.values) != 1:
            fail(self.function, GraphError, f"needs one scalar, got {len(self.outputs.values)} tensors")
        return self.outputs.values[0]

    def pushed(self, outputs: Sequence[Value], tangents: Sequence[Value]) -> list[Value]:
        """The tangents of values, zeros where there are none, of the actual arguments."""
        from ..passes.pushforward import pushforward

        found = pushforward(outputs, self.wrt.values, tangents)
        return self.at([t or full(v.tensor.shape, 0, v.tensor.dtype) for t, v in zip(found, outputs)])

    def at(self, values: Sequence[Value]) -> list[Value]:
        """Values of the actual arguments."""
        return substitute_values(values, self.actual)


@located
def jvp(function: Callable[..., Any] | Any, primals: Any, tangents: Any) -> Any:
    """The derivative in a direction: the product of the Jacobian with tangents, in forward mode.

    It costs about as much as what is differentiated, whatever the number of outputs, and keeps nothing.

    Parameters
    ----------
    function : tensors, nested in any way; or a function of tensors, nested in any way, which is called once.
    primals : what to differentiate by, floating-point: tensors on which the given ones depend, nested in any way; or
        the function's arguments, in a list or tuple (or its one argument, if that is no list or tuple).
    tangents : the direction: nested and typed like `primals`.

    Returns
    -------
    Of tensors, their tangents: nested and typed like them, zeros for what is not floating-point. Of a function, a
    pair: its result, and the tangents.

    Raises
    ------
    DifferentiationError
        If a primal is not floating-point, or an op on the way has no derivative.
    GraphError, ShapeError, DTypeError
        If the tangents are not like the primals.
    """
    d = _Derivation.of("jvp", function, primals)
    seeds = d.vectors("tangent", tangents)
    found = d.outputs.build(d.pushed(d.stable(), seeds))
    return (d.outputs.build(d.at(d.outputs.values)), found) if d.actual or d.model == "primals" else found


@located
def hvp(loss: Callable[..., Any] | Any, wrt: Any, vectors: Any) -> Any:
    """The product of the Hessian of a scalar with vectors: the tangent of its gradient (forward over reverse).

    Parameters
    ----------
    loss : a floating-point scalar, or a function that gives one.
    wrt : what to differentiate by, as for `jvp`.
    vectors : nested and typed like `wrt`.

    Returns
    -------
    The product, nested and typed like `wrt`.

    Raises
    ------
    As `gw.grad` and `jvp`.
    """
    d = _Derivation.of("hvp", loss, wrt)
    seeds = d.vectors("vector", vectors)
    return d.wrt.build(d.pushed(_gradients(d), seeds))


def _gradients(d: _Derivation) -> list[Value]:
    from ..passes.differentiate import gradients
    from ..passes.stabilize import stabilize_values

    return gradients(
        d.loss(), d.wrt.values, on_disconnected="zero",
        prepare=lambda value: stabilize_values([value], keep=d.wrt.values)[0],
    )


# --- whole matrices ------------------------------------------------------------------------------


@located
def jacobian(function: Callable[..., Any] | Any, primals: Any, mode: str = "auto") -> Any:
    """The derivatives of all elements by all elements.

    It is the map (`gw.vmap`) of a tangent over the unit vectors of each primal, or of a gradient over those of each
    output.

    Parameters
    ----------
    function, primals : as for `jvp`; the outputs are floating-point.
    mode : ``"forward"``, ``"reverse"``, or ``"auto"``: forward if the primals certainly have fewer elements than the
        outputs, else reverse.

    Returns
    -------
    For each output, and in it for each primal, nested like these, a tensor of the output's shape followed by the
    primal's.

    Raises
    ------
    DifferentiationError
        If an output or a primal is not floating-point, or an op on the way has no derivative.
    GraphError
        If an op on the way has no batching rule, or the mode is another.
    """
    from ..passes.differentiate import require_float

    if mode not in ("auto", "forward", "reverse"):
        fail("jacobian", GraphError, f"mode={mode!r}", (), 'give "forward", "reverse", or "auto"')
    d = _Derivation.of("jacobian", function, primals)
    outputs = d.stable()
    for value in outputs:
        require_float(value, "")
    if mode == "auto":
        sizes = [sum((v.tensor.size for v in values), start=0) for values in (d.wrt.values, outputs)]
        mode = "forward" if at_most(sizes[0] + 1, sizes[1]) else "reverse"
    rows = _columns(outputs, d.wrt.values) if mode == "forward" else _rows(outputs, d.wrt.values)
    return _nested(d, d.outputs.structure, rows)


@located
def hessian(loss: Callable[..., Any] | Any, wrt: Any) -> Any:
    """The second derivatives of a scalar: the Jacobian, in forward mode, of its gradient.

    Parameters
    ----------
    loss, wrt : as for `hvp`.

    Returns
    -------
    For each in `wrt`, and in it for each in `wrt`, nested like these, a tensor of the first one's shape followed by the
    second one's.

    Raises
    ------
    As `gw.grad` and `jacobian`.
    """
    d = _Derivation.of("hessian", loss, wrt)
    return _nested(d, d.wrt.structure, _columns(_gradients(d), d.wrt.values))


def _nested(d: _Derivation, structure: Any, rows: Sequence[Sequence[Value]]) -> Any:
    return unflatten(structure, [d.wrt.build(d.at(row)) for row in rows])


def _columns(outputs: Sequence[Value], wrt: Sequence[Value]) -> list[list[Value]]:
    """The blocks of the Jacobian of each output, by the tangents of the unit vectors of each primal."""
    from ..passes.pushforward import pushforward

    rows: list[list[Value]] = [[] for _ in outputs]
    for x in wrt:
        seed = stand_in("t", x.tensor)
        for row, y, lanes in zip(rows, outputs, _lanes(pushforward(outputs, [x], [seed]), seed)):
            shape = (*y.tensor.shape, *x.tensor.shape)
            row.append(_zeros(shape, y) if lanes is None else _reshape(_to_end(lanes), shape))
    return rows


def _rows(outputs: Sequence[Value], wrt: Sequence[Value]) -> list[list[Value]]:
    """The blocks of the Jacobian of each output, by the gradients of its unit vectors."""
    from ..passes.differentiate import pullback

    rows = []
    for y in outputs:
        seed = stand_in("g", y.tensor)
        blocks = zip(wrt, _lanes(pullback([y], [seed], wrt), seed))
        shape = y.tensor.shape
        rows.append([
            _zeros((*shape, *x.tensor.shape), y) if lanes is None else _reshape(lanes, (*shape, *x.tensor.shape))
            for x, lanes in blocks
        ])
    return rows


def _lanes(values: Sequence[Value | None], seed: Value) -> list[Value | None]:
    """What linear functions of a seed are of each of its unit vectors, along a new first axis."""
    from ..passes.vectorize_map import vectorize

    n = seed.tensor.size
    places = [OPS["iota"](shape=(n, n), axis=k, dtype=int64) for k in (0, 1)]
    unit = OPS["cast"](OPS["eq"](*places), dtype=seed.tensor.dtype)
    basis = _reshape(unit, (n, *seed.tensor.shape))
    found = iter(vectorize([v for v in values if v is not None], {seed: basis}, n))
    return [None if v is None else with_lanes(next(found), n) for v in values]


def _reshape(x: Value, shape: Sequence[Dim]) -> Value:
    return OPS["reshape"](x, shape=tuple(shape))


def _to_end(x: Value) -> Value:
    """`x` with its first axis as its last."""
    return OPS["transpose"](x, perm=(*range(1, x.tensor.rank), 0))


def _zeros(shape: Sequence[Dim], like: Value) -> Value:
    return full(tuple(shape), 0, like.tensor.dtype)
