"""Loops and branches: `scan`, `while_loop`, `fori`, `map`, `associative_scan`, `cond`, `switch`.

A body is a Python function that runs once, on tensors that stand for its arguments; what it computes becomes
a region of one op. Outer tensors that it reads become operands of the op by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..errors import DimensionError, DTypeError, GraphError, ShapeError
from ..ir.broadcasting import full, same_type
from ..ir.dims import Dim, equal
from ..ir.dtypes import bool_, int32, int64
from ..ir.graph import Value, make, source_location
from ..ir.op import OPS
from ..ir.ops.movement import slice_axis
from ..ir.region import Trace
from ..ir.types import TensorType
from ..runtime.structure import flatten, unflatten
from .segments import LoopBody, segments
from .shapes import as_dim, fail
from .source import located, tracing
from .steps import counting
from .tensor import ArrayLike, Tensor, apply, to_value
from .trees import Tree, leaf_value, leaves_like, paths

__all__ = ["associative_scan", "cond", "fori", "map", "scan", "switch", "while_loop"]


# --- running bodies ------------------------------------------------------------------------------


def _run(function: str, what: str, body: Any, *arguments: Any) -> Any:
    if not callable(body):
        fail(function, GraphError, f"{what} must be a function, got a {type(body).__name__}")
    with tracing():
        return body(*arguments)


def _new_carries(function: str, what: str, result: Any, carry: Tree) -> list[Value]:
    """The carries that a step gives, which must be nested and typed like those it takes."""
    leaves = leaves_like(function, what, result, carry.structure, "init")
    values = []
    for path, leaf, before in zip(carry.paths, leaves, carry.values):
        place = path.replace("init", what, 1)
        value = leaf_value(function, place, leaf, before.dtype if isinstance(leaf, (bool, int, float)) else None)
        if not same_type(value.tensor, before.tensor):
            error = DTypeError if value.dtype != before.dtype else ShapeError
            advice = "a carry keeps its dtype and shape: " + (
                f"make {path} {value.dtype!r}, or cast {place} with astype" if error is DTypeError
                else f"{path} must already have the shape of every step"
            )
            fail(function, error, f"{place} is {value.type}, but {path} is {before.type}", [before, value], advice)
        values.append(value)
    return values


def _step_number(trace: Trace) -> Value:
    """The number of a step, as one more input of the body."""
    return trace.input("step", TensorType(int64, ()))


def _items(value: Value, count: int) -> list[Value]:
    return [OPS["item"](value, index=k) for k in range(count)]


# --- scan ----------------------------------------------------------------------------------------


@located
def scan(
    step: Callable[[Any, Any], tuple[Any, Any]], init: Any, xs: Any = None, *, length: Any = None,
    reverse: bool = False, unroll: int = 1, checkpoint: int | str | None = None, truncate_gradient: int | None = None,
) -> tuple[Any, Any]:
    """Run a step along the first axis of sequences, passing a carry from each step to the next.

    In Python it would be::

        carry, ys = init, []
        for x in xs:
            carry, y = step(carry, x)
            ys.append(y)
        return carry, gw.stack(ys)

    but it is one op, whose size does not depend on the number of steps, which may be symbolic or 0.

    Parameters
    ----------
    step : from a carry and an element of the sequences to a new carry and an output, each nested in any way
        (None for nothing). It is called once. Outer tensors and variables may be used in it.
    init : the first carry: tensors, nested in lists, tuples, and dicts.
    xs : the sequences, nested in the same ways; their first axes have one length.
    length : the number of steps, if there are no sequences: an integer or a dimension (``"T"``).
    reverse : start at the last element. Outputs stay at the index of their elements.
    unroll : how many steps the compiled loop does at a time.
    checkpoint : keep for the gradient only the carries before every `checkpoint`-th step (``"sqrt"``: the root of
        the length), and compute what is between them again.
    truncate_gradient : only the last `truncate_gradient` steps that run have a gradient; all before is constant.

    Returns
    -------
    The last carry, and the outputs stacked along a new first axis.

    Raises
    ------
    ShapeError, DTypeError
        If a carry changes its shape or dtype, or sequences have no or different lengths.
    GraphError
        If the step returns something else than a pair, or a carry that is nested in another way.
    DimensionError
        If the length is negative or unknown.
    """
    carry, sequences = Tree.of("scan", "init", init), Tree.of("scan", "xs", xs)
    n = _length(sequences, length)
    options = _options(n, unroll, checkpoint, truncate_gradient)
    trace = Trace()
    before = trace.inputs_like("c", carry.types)
    elements = trace.inputs_like("x", [t.with_shape(t.shape[1:]) for t in sequences.types])
    with counting(lambda: _step_number(trace)) as steps:
        result = _run("scan", "step", step, carry.build(before), sequences.build(elements))
    if type(result) not in (tuple, list) or len(result) != 2:
        got = f"{len(result)} values" if type(result) in (tuple, list) else f"a {type(result).__name__}"
        fail("scan", GraphError, f"the step returned {got}", (), "return a pair: the new carry, and the output or None")
    after = _new_carries("scan", "the carry of step", result[0], carry)
    outputs = Tree.of("scan", "output", result[1])
    (region,), captures = trace.close({"region": [*after, *outputs.values]})
    numbers = [OPS["iota"](shape=(n,), axis=0, dtype=int64)] if steps.value else []
    rows = [*sequences.values, *numbers]
    body = LoopBody(region, len(carry.values), len(rows), captures, bool(reverse), unroll)
    last, stacked = segments(body, carry.values, rows, n, *options)
    return carry.build(last), outputs.build(stacked)


def _length(sequences: Tree, length: Any) -> Dim:
    """The number of steps, which sequences and `length` must agree on."""
    for path, x in zip(sequences.paths, sequences.values):
        if not x.shape:
            fail("scan", ShapeError, f"{path} is a scalar", [x], "a sequence has a first axis, along which to step")
    first = next(iter(sequences.values), None)
    if length is None and first is None:
        fail("scan", DimensionError, "there are no sequences and no length", (), "give length=")
    n = as_dim(length, "scan: length") if length is not None else first.shape[0]  # type: ignore[union-attr]
    for path, x in zip(sequences.paths, sequences.values):
        if not equal(x.shape[0], n):
            what = f"the length is {n}" if length is not None else f"{sequences.paths[0]} has {n}"
            fail("scan", ShapeError, f"{path} has {x.shape[0]} elements, {what}", sequences.values)
    return n


def _options(n: Dim, unroll: Any, checkpoint: Any, truncate: Any) -> tuple[Any, Any]:
    """The steps between checkpoints, and those with a gradient."""
    for name, given in (("unroll", unroll), ("truncate_gradient", truncate), ("checkpoint", checkpoint)):
        root = name == "checkpoint" and given == "sqrt"
        if not root and given is not None and (type(given) is not int or given < 1):
            choices = 'a positive integer, "sqrt", or None' if name == "checkpoint" else "a positive integer"
            fail("scan", GraphError, f"{name}={given!r}", (), f"give {choices}")
    return checkpoint, truncate


@located
def map(function: Callable[[Any], Any], xs: Any, *, reverse: bool = False, unroll: int = 1) -> Any:
    """The results of a function of each element of sequences, stacked: one at a time, in a loop.

    Parameters are those of `scan`; so are the errors.
    """

    def step(_: None, x: Any) -> tuple[None, Any]:
        return None, function(x)

    return scan(step, None, xs, reverse=reverse, unroll=unroll)[1]


@located
def fori(lower: Any, upper: Any, body: Callable[[Tensor, Any], Any], init: Any, max_steps: Any = None) -> Any:
    """Run ``carry = body(i, carry)`` for i from `lower` to `upper` - 1 (int64).

    Parameters
    ----------
    lower, upper : integers, dimensions, or integer scalars that are known only when the function runs.
    init : the first carry, nested in any way.
    max_steps : with scalar bounds, the largest number of steps; only then is there a gradient.
    """
    dims = not isinstance(lower, Tensor) and not isinstance(upper, Tensor)
    if dims:
        from .array_api import arange

        count = as_dim(upper, "fori: upper") - as_dim(lower, "fori: lower")
        if isinstance(count, int) and count <= 0:
            return Tree.of("fori", "init", init).build(Tree.of("fori", "init", init).values)
        return scan(lambda carry, i: (body(i, carry), None), init, arange(lower, upper, dtype="int64"))[0]
    start, stop = (_bound("fori", name, x) for name, x in (("lower", lower), ("upper", upper)))

    def step(carry: tuple[Tensor, Any]) -> tuple[Tensor, Any]:
        i, inner = carry
        return i + 1, body(i, inner)

    return while_loop(lambda carry: carry[0] < stop, step, (start, init), max_steps)[1]


def _bound(function: str, name: str, x: Any) -> Tensor:
    value = to_value(x, int64 if isinstance(x, int) else None)
    if not value.dtype.is_integer or value.shape:
        fail(function, DTypeError, f"{name} must be an integer scalar, got {value.type}", [value])
    return apply("cast", Tensor(value), dtype=int64)


@located
def associative_scan(
    function: Callable[[Any, Any], Any], xs: Any, *, reverse: bool = False,
) -> Any:
    """All partial results ``x[0]``, ``f(x[0], x[1])``, ``f(f(x[0], x[1]), x[2])``, ... along the first axis.

    Parameters
    ----------
    function : associative; from two elements to one, nested and typed like them.
    xs : sequences, nested in any way, of at least one element.
    reverse : begin at the last element.

    Raises
    ------
    ShapeError, DTypeError, GraphError
        If the function's result is not like an element; otherwise as `scan`.
    """
    sequences = Tree.of("associative_scan", "xs", xs)
    if not sequences.values:
        fail("associative_scan", GraphError, "xs holds no sequence")
    tensors = [Tensor(v) for v in sequences.values]
    n = _length(sequences, None)
    start = [x[n - 1 if reverse else 0] for x in tensors]
    elements = [Tensor(slice_axis(x, 0, 0 if reverse else 1, n - 1)) for x in sequences.values]

    def step(carry: Any, x: Any) -> tuple[Any, Any]:
        new = function(carry, x)
        return new, new

    build = lambda values: unflatten(sequences.structure, values)  # noqa: E731
    _, stacked = scan(step, build(start), build(elements), reverse=reverse)
    from .array_api import concat, expand_dims

    leaves, _ = flatten(stacked)
    heads = [expand_dims(x, 0) for x in start]
    return build([concat([y, h] if reverse else [h, y]) for h, y in zip(heads, leaves)])


# --- while ---------------------------------------------------------------------------------------


@located
def while_loop(
    cond: Callable[[Any], Any], body: Callable[[Any], Any], init: Any, max_steps: int | None = None,
) -> Any:
    """Run ``carry = body(carry)`` as long as ``cond(carry)`` holds.

    Parameters
    ----------
    cond : from a carry to a bool scalar.
    body : from a carry to the next, of the same structure, dtypes and shapes.
    init : the first carry: tensors, nested in lists, tuples, and dicts.
    max_steps : stop after so many steps even if `cond` holds. Only with it is there a gradient, for which the
        states of so many steps have their place in memory; the time is that of the steps that ran.

    Raises
    ------
    ShapeError, DTypeError, GraphError
        If the body's result is not like `init`, or the condition is no bool scalar.
    DimensionError
        If `max_steps` is negative.
    """
    carry = Tree.of("while_loop", "init", init)
    limit = None if max_steps is None else as_dim(max_steps, "while_loop: max_steps")
    trace = Trace()
    before = trace.inputs_like("c", carry.types)
    with counting(lambda: _step_number(trace)) as steps:
        holds = _condition("while_loop", "cond", _run("while_loop", "cond", cond, carry.build(before)))
        result = _run("while_loop", "body", body, carry.build(before))
    after = _new_carries("while_loop", "the carry of body", result, carry)
    numbers = [full((), 0, int64)] if steps.value else []
    after += [steps.value + 1] if steps.value else []
    regions, captures = trace.close({"condition": [holds], "body": after})
    attrs = {"carries": len(after), "max_steps": limit}
    loop = make(OPS["while"], [*carry.values, *numbers, *captures], attrs, regions)
    return carry.build(_items(loop, len(carry.values)))


def _condition(function: str, what: str, x: Any) -> Value:
    value = leaf_value(function, f"the result of {what}", x)
    if value.dtype != bool_ or value.shape:
        error = DTypeError if value.dtype != bool_ else ShapeError
        advice = "compare, or reduce with gw.any or gw.all"
        fail(function, error, f"{what} must give a bool scalar, got {value.type}", [value], advice)
    return value


# --- branches ------------------------------------------------------------------------------------


@located
def cond(pred: ArrayLike, then: Callable[[], Any], else_: Callable[[], Any]) -> Any:
    """The result of one of two functions without arguments; only the one taken runs.

    Parameters
    ----------
    pred : a bool scalar.
    then, else_ : functions that use outer tensors; their results are nested and typed alike.

    Raises
    ------
    DTypeError, ShapeError
        If `pred` is no bool scalar, or results differ in type.
    GraphError
        If the results are nested in different ways.
    """
    value = leaf_value("cond", "pred", pred)
    if value.dtype != bool_ or value.shape:
        error = DTypeError if value.dtype != bool_ else ShapeError
        fail("cond", error, f"pred must be a bool scalar, got {value.type}", [value], "compare, or use gw.any, gw.all")
    index = OPS["cast"](value, dtype=int32)
    return _switch("cond", index, {"else": else_, "then": then})


@located
def switch(index: ArrayLike, branches: Sequence[Callable[[], Any]]) -> Any:
    """The result of one of several functions without arguments; only the one taken runs.

    Parameters
    ----------
    index : an integer scalar; below 0 it means the first branch, beyond the last one the last (as in JAX).
    branches : functions that use outer tensors; their results are nested and typed alike.

    Raises
    ------
    DTypeError, ShapeError
        If the index is no integer scalar, or results differ in type.
    GraphError
        If there is no branch, or the results are nested in different ways.
    """
    value = leaf_value("switch", "index", index)
    if not value.dtype.is_integer or value.shape:
        error = ShapeError if value.dtype.is_integer else DTypeError
        fail("switch", error, f"the index must be an integer scalar, got {value.type}", [value])
    if not isinstance(branches, (list, tuple)) or not branches:
        fail("switch", GraphError, "needs a list of functions, at least one")
    return _switch("switch", value, {f"branch{k}": branch for k, branch in enumerate(branches)})


def _switch(function: str, index: Value, branches: dict[str, Callable[[], Any]]) -> Any:
    trace = Trace()
    results = {name: _run(function, name, branch) for name, branch in branches.items()}
    names = list(results)
    first, structure = flatten(results[names[0]])
    model = f"the result of {names[0]}"
    leaves = {names[0]: first} | {
        name: leaves_like(function, f"the result of {name}", results[name], structure, model) for name in names[1:]
    }
    columns = [_alike(function, path, column) for path, column in zip(
        paths(structure, ""), zip(*([(name, x) for x in leaves[name]] for name in names))
    )]
    bodies = dict(zip(names, [list(row) for row in zip(*columns)] or [[] for _ in names]))
    regions, captures = trace.close(bodies, hoist=False)
    chosen = make(OPS["switch"], [index, *captures], {}, regions)
    return unflatten(structure, [Tensor(v) for v in _items(chosen, len(columns))])


def _alike(function: str, path: str, column: Sequence[tuple[str, Any]]) -> list[Value]:
    """The same result of each branch, of one type; numbers take the dtype of the tensors beside them."""
    dtypes = [x.dtype for _, x in column if isinstance(x, Tensor)]
    places = [f"the result of {name}{path}" for name, _ in column]
    with source_location(None):
        values = [
            leaf_value(function, place, x, dtypes[0] if dtypes and isinstance(x, (bool, int, float)) else None)
            for place, (_, x) in zip(places, column)
        ]
    for place, value in zip(places, values):
        if not same_type(value.tensor, values[0].tensor):
            error = DTypeError if value.dtype != values[0].dtype else ShapeError
            problem = f"{place} is {value.type}, {places[0]} is {values[0].type}"
            fail(function, error, problem, values, "all branches must give the same types")
    return values
