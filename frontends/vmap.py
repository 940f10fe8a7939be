"""`vmap`: a function of one element as a function of all elements along an axis, without a loop."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import GraphError, IndexRangeError, ShapeError
from ..ir.batching import to_front, with_lanes
from ..ir.dims import Dim, equal
from ..ir.dtypes import int64
from ..ir.graph import Value
from ..ir.op import OPS
from ..ir.region import stand_in
from ..ir.types import TensorType
from ..runtime.structure import LEAF, count
from .shapes import fail
from .source import located, tracing
from .steps import counting
from .trees import Tree

__all__ = ["vmap"]


@located
def vmap(function: Callable[..., Any], in_axes: Any = 0, out_axes: Any = 0) -> Callable[..., Any]:
    """A function that does for all elements along an axis of its arguments what a function does for one.

    The graph is that of one element, with each op on all of them at once; what does not depend on the mapped
    arguments is computed once. It may be nested, differentiated, and map what is a derivative.

    Parameters
    ----------
    function : of tensors, nested in any way, to tensors, nested in any way. It is called once for each call.
    in_axes : the axis of each argument that is mapped: an integer for all of them, or a tuple or list with one entry
        for each: an integer, None for an argument that is the same for all elements, or nested like the argument.
    out_axes : where the mapped axis is in the results: an integer, or nested like the result; None for what is the
        same for all elements.

    Returns
    -------
    The function. If its result does not depend on what is mapped, that is repeated.

    Raises
    ------
    ShapeError
        If the mapped axes have different sizes. Symbolic sizes are allowed.
    IndexRangeError
        If an argument or a result does not have the axis.
    GraphError
        If nothing is mapped, axes are nested in another way than arguments, an op has no batching rule, or a result
        with ``out_axes=None`` depends on what is mapped.

    Notes
    -----
    A `gw.random.Generator` draws other numbers for each element. By key, they are the same for all elements from a
    key that is not mapped, and others from each of mapped keys. A while loop runs until the condition is false for all
    elements, and of branches chosen by a mapped condition all are computed.

    Examples
    --------
    >>> gw.vmap(gw.dot, in_axes=(0, None))(rows, vector)
    """
    if not callable(function):
        fail("vmap", GraphError, f"needs a function, got a {type(function).__name__}")

    @functools.wraps(function)
    @located
    def mapped(*args: Any) -> Any:
        trees = [Tree.of("vmap", f"argument {k}", x) for k, x in enumerate(args)]
        axes = _of_arguments(in_axes, trees)
        size = _size(trees, axes)
        known: dict[Value, Value] = {}
        arguments = []
        for tree, where in zip(trees, axes):
            lanes = [_lane(x, axis, known) for x, axis in zip(tree.values, where)]
            arguments.append(tree.build(lanes))
        with tracing(), counting(lambda: _number(known, size)):
            results = Tree.of("vmap", "the result", function(*arguments))
        return results.build(_results(results, out_axes, known, size))

    return mapped


def _of_arguments(in_axes: Any, trees: Sequence[Tree]) -> list[list[int | None]]:
    """The axis of each leaf of each argument."""
    if type(in_axes) not in (tuple, list):
        return [_of_leaves("in_axes", in_axes, tree) for tree in trees]
    if len(in_axes) != len(trees):
        fail("vmap", GraphError, f"in_axes has {len(in_axes)} entries for {len(trees)} arguments")
    return [_of_leaves(f"in_axes[{k}]", axes, tree) for k, (axes, tree) in enumerate(zip(in_axes, trees))]


def _of_leaves(what: str, axes: Any, tree: Tree) -> list[int | None]:
    """The axis of each leaf, from axes that may stand for whole subtrees."""
    found: list[int | None] = []

    def walk(place: str, axis: Any, structure: Any) -> None:
        if axis is None or type(axis) is int:
            found.extend([axis] * count(structure))
            return
        kind, *children = [structure] if structure == LEAF else structure
        fits = type(axis).__name__ == kind and len(axis) == len(children)
        if not fits or kind == "dict" and set(axis) != {key for key, _ in children}:
            fail("vmap", GraphError, f"{place} is {axis!r}", tree.values, "axes are integers, None, or nested like "
                 "the argument or result")
        for k, child in enumerate(children):
            key, child = child if kind == "dict" else (k, child)
            walk(f"{place}[{key!r}]", axis[key], child)

    walk(what, axes, tree.structure)
    normal = []
    for axis, x, path in zip(found, tree.values, tree.paths):
        extra = what.startswith("out")  # results get the axis
        rank = x.tensor.rank + extra
        if axis is not None and not -rank <= axis < rank:
            advice = "" if extra else "give None for what is the same for all"
            fail("vmap", IndexRangeError, f"{what}: axis {axis} is out of range for {path} of rank {rank}", [x], advice)
        normal.append(None if axis is None else axis % rank)
    return normal


def _size(trees: Sequence[Tree], axes: Sequence[Sequence[int | None]]) -> Dim:
    """The one size of all mapped axes."""
    sizes = [
        (path, x, x.tensor.shape[axis])
        for tree, where in zip(trees, axes) for path, x, axis in zip(tree.paths, tree.values, where) if axis is not None
    ]
    if not sizes:
        values = [x for tree in trees for x in tree.values]
        fail("vmap", GraphError, "no argument is mapped", values, "give an axis in in_axes")
    first, _, size = sizes[0]
    for path, x, other in sizes:
        if not equal(size, other):
            fail("vmap", ShapeError, f"{path} has {other} elements along its mapped axis, {first} has {size}",
                 [sizes[0][1], x])
    return size


def _lane(x: Value, axis: int | None, known: dict[Value, Value]) -> Value:
    """What stands for one element of an argument."""
    if axis is None:
        return x
    front = to_front(x, axis)
    lane = stand_in("lane", x.tensor.with_shape(front.tensor.shape[1:]))
    known[lane] = front
    return lane


def _number(known: dict[Value, Value], size: Dim) -> Value:
    """Which element it is: a generator draws other numbers for each."""
    lane = stand_in("lane", TensorType(int64, ()))
    known[lane] = OPS["iota"](shape=(size,), axis=0, dtype=int64)
    return lane


def _results(results: Tree, out_axes: Any, known: dict[Value, Value], size: Dim) -> list[Value]:
    from ..passes.vectorize_map import vectorize

    axes = _of_leaves("out_axes", out_axes, results)
    found = []
    for path, axis, lanes in zip(results.paths, axes, vectorize(results.values, known, size)):
        if axis is None and lanes[1]:
            fail("vmap", GraphError, f"{path} depends on what is mapped, but its axis in out_axes is None", [lanes[0]])
        found.append(lanes[0] if axis is None else _behind(with_lanes(lanes, size), axis))
    return found


def _behind(x: Value, axis: int) -> Value:
    """`x` with its first axis at another place."""
    perm = [*range(1, axis + 1), 0, *range(axis + 1, x.tensor.rank)]
    return OPS["transpose"](x, perm=tuple(perm)) if axis else x
