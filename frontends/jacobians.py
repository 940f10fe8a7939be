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
from ..ir.broadcasting import full
from ..ir.graph import Value
from ..ir.region import Trace, substitute_values
from .derivatives import like
from .shapes import fail
from .source import located, tracing
from .tensor import Tensor
from .trees import Tree, leaves_like

__all__ = ["hvp", "jvp"]


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
    seeds = d.vectors("tangents", tangents)
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
    seeds = d.vectors("vectors", vectors)
    return d.wrt.build(d.pushed(_gradients(d), seeds))


def _gradients(d: _Derivation) -> list[Value]:
    from ..passes.differentiate import gradients
    from ..passes.stabilize import stabilize_values

    return gradients(
        d.loss(), d.wrt.values, on_disconnected="zero",
        prepare=lambda value: stabilize_values([value], keep=d.wrt.values)[0],
    )
