"""Derivatives of functions of tensors: `vjp`, gradients of one's own, and recomputation instead of memory."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import DTypeError, GraphError, ShapeError
from ..ir.broadcasting import full, same_type
from ..ir.graph import Graph, Value, make
from ..ir.op import OPS
from ..ir.region import Trace, substitute_values
from ..ir.types import TensorType
from ..runtime.structure import unflatten
from .shapes import fail
from .source import located, tracing
from .tensor import Tensor
from .trees import Tree, leaf_value, leaves_like

__all__ = ["checkpoint", "custom_gradient", "like", "vjp"]


def _traced(function: str, body: Any, trees: Sequence[Tree], trace: Trace) -> Any:
    """What a function gives for stand-ins of its arguments."""
    if not callable(body):
        fail(function, GraphError, f"needs a function, got a {type(body).__name__}")
    start = len(trace.inputs)
    trace.inputs_like("a", [t for tree in trees for t in tree.types])
    values = iter(trace.inputs[start:])
    with tracing():
        return body(*(tree.build([next(values) for _ in tree.values]) for tree in trees))


def _arguments(function: str, args: Sequence[Any]) -> list[Tree]:
    return [Tree.of(function, f"argument {k}", x) for k, x in enumerate(args)]


@located
def vjp(function: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """A function's result, and the function that pulls cotangents back through it.

    Parameters
    ----------
    function : of tensors, nested in any way, to tensors, nested in any way. It is called once.
    primals : its arguments; floating-point.

    Returns
    -------
    The result; and a function from a cotangent, nested and typed like the result, to one cotangent per argument (a
    tuple): its product with the Jacobian by the arguments alone, not by what else the function reads.

    Raises
    ------
    DifferentiationError
        If an argument is not floating-point, or an op has no derivative (when the cotangent is given).
    """
    from ..passes.differentiate import require_float

    trees = _arguments("vjp", primals)
    trace = Trace()
    results = Tree.of("vjp", "the result", _traced("vjp", function, trees, trace))
    values = [v for tree in trees for v in tree.values]
    for value in values:
        require_float(value)
    actual = dict(zip(trace.inputs, values))

    @located
    def pull(cotangent: Any) -> tuple[Any, ...]:
        from ..passes.differentiate import pullback

        leaves = leaves_like("vjp", "the cotangent", cotangent, results.structure, "the result")
        seeds = [like("vjp", "the cotangent", x, v.tensor) for x, v in zip(leaves, results.values)]
        pairs = [(v, s) for v, s in zip(results.values, seeds) if v.dtype.is_float]
        found = pullback([v for v, _ in pairs], [s for _, s in pairs], trace.inputs)
        filled = [g or full(v.shape, 0, v.dtype) for g, v in zip(found, trace.inputs)]
        grads = iter(substitute_values(filled, actual))
        return tuple(tree.build([next(grads) for _ in tree.values]) for tree in trees)

    return results.build(substitute_values(results.values, actual)), pull


def like(function: str, what: str, x: Any, t: TensorType) -> Value:
    """The value of a leaf that must have a type; `what` names it in errors."""
    value = leaf_value(function, what, x, t.dtype if isinstance(x, (bool, int, float)) else None)
    if not same_type(value.tensor, t):
        error = DTypeError if value.dtype != t.dtype else ShapeError
        fail(function, error, f"{what} has type {value.type}, it must have {t}", [value])
    return value


def checkpoint(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose inner values are computed again for the gradient, instead of kept until then.

    Its arguments are kept. Arguments and results are tensors, nested in any way; outer tensors may be used in it,
    and have gradients. In IR text, what is computed again starts at `after` ops.
    """

    @functools.wraps(function)
    @located
    def wrapped(*args: Any) -> Any:
        trees = _arguments("checkpoint", args)
        trace = Trace()
        results = Tree.of("checkpoint", "the result", _traced("checkpoint", function, trees, trace))
        (region,), captures = trace.close({"region": results.values}, hoist=False)
        operands = [*(v for tree in trees for v in tree.values), *captures]
        called = make(OPS["call"], operands, {"rule": "recompute", "arguments": len(operands)}, (region,))
        return results.build([OPS["item"](called, index=k) for k in range(len(results.values))])

    return wrapped


def custom_gradient(function: Callable[..., tuple[Any, Callable[[Any], Any]]]) -> Callable[..., Any]:
    """A function that brings its own gradient.

    Parameters
    ----------
    function : from tensors, nested in any way, to a pair: its result, and a function from the cotangent of the
        result, nested like it (None for what is not floating-point), to the cotangents of the arguments: one, or a
        tuple of as many as there are arguments, each nested like its argument, with None for no gradient. Both may
        use outer tensors, but these get no gradient: to ask for it is an error.

    Raises
    ------
    GraphError
        If the function or its gradient return something else.
    ShapeError, DTypeError
        If a cotangent has not the type of its argument.
    """

    @functools.wraps(function)
    @located
    def wrapped(*args: Any) -> Any:
        trees = _arguments("custom_gradient", args)
        trace = Trace()
        pair = _traced("custom_gradient", function, trees, trace)
        if type(pair) is not tuple or len(pair) != 2 or not callable(pair[1]):
            fail("custom_gradient", GraphError, "the function must return a pair: its result, and its gradient")
        results = Tree.of("custom_gradient", "the result", pair[0])
        arguments = len(trace.inputs)
        seeds = [
            Tensor(trace.input(f"d{k}", v.tensor)) if v.dtype.is_float else None for k, v in enumerate(results.values)
        ]
        with tracing():
            given = pair[1](unflatten(results.structure, seeds))
        cotangents = _cotangents(trees, given)
        regions, captures = trace.close({"forward": results.values, "gradient": cotangents}, hoist=False)
        forward = Graph("forward", _without(regions[0].inputs, arguments, seeds), (), regions[0].outputs)
        operands = [*(v for tree in trees for v in tree.values), *captures]
        attrs = {"rule": "custom", "arguments": arguments}
        called = make(OPS["call"], operands, attrs, (forward, regions[1]))
        return results.build([OPS["item"](called, index=k) for k in range(len(results.values))])

    return wrapped


def _without(inputs: tuple[Value, ...], arguments: int, seeds: Sequence[Tensor | None]) -> tuple[Value, ...]:
    """The inputs of the gradient without the cotangents: those of the function."""
    return inputs[:arguments] + inputs[arguments + sum(s is not None for s in seeds):]


def _cotangents(trees: Sequence[Tree], given: Any) -> list[Value]:
    """The cotangent of each floating-point argument."""
    what = "the gradient's result"
    per_argument = [given] if len(trees) == 1 and type(given) is not tuple else given
    if type(per_argument) not in (tuple, list) or len(per_argument) != len(trees):
        got = f"{len(given)} values" if type(given) in (tuple, list) else f"a {type(given).__name__}"
        fail("custom_gradient", GraphError, f"the gradient gives {got} for {len(trees)} arguments")
    found = []
    for k, (tree, x) in enumerate(zip(trees, per_argument)):
        leaves = [None] * len(tree.values) if x is None else leaves_like(
            "custom_gradient", f"{what} {k}", _filled(x), tree.structure, f"argument {k}"
        )
        for leaf, v in zip(leaves, tree.values):
            if v.dtype.is_float:
                missing = leaf is None or leaf is _NOTHING
                found.append(full(v.shape, 0, v.dtype) if missing else like(
                    "custom_gradient", f"{what} {k}", leaf, v.tensor
                ))
    return found


_NOTHING = object()


def _filled(tree: Any) -> Any:
    """A tree in which None stands for a leaf: no gradient."""
    if tree is None:
        return _NOTHING
    if type(tree) in (list, tuple):
        return type(tree)(map(_filled, tree))
    return {k: _filled(x) for k, x in tree.items()} if type(tree) is dict else tree
