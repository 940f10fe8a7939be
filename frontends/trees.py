"""Nested tensors: the leaves of lists, tuples and dicts as graph values, and comparing how two are nested."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import GraphError, GraphwrightError
from ..ir.graph import Value
from ..ir.types import TensorType
from ..runtime.structure import LEAF, flatten, unflatten
from .shapes import fail
from .tensor import Tensor, to_value

__all__ = ["Tree", "leaf_value", "leaves_like", "paths"]


@dataclass(frozen=True)
class Tree:
    """Values, how they were nested, and where each stood (``init['h'][0]``)."""

    values: list[Value]
    structure: Any
    paths: list[str]

    @staticmethod
    def of(function: str, what: str, tree: Any) -> Tree:
        """The tree of nested tensors; an error names `function`, and the place in `what`."""
        try:
            leaves, structure = flatten(tree)
        except GraphwrightError as error:
            fail(function, GraphError, str(error).replace("outputs", what).replace("an output", f"a {what}"))
        where = list(paths(structure, what))
        return Tree([leaf_value(function, p, x) for p, x in zip(where, leaves)], structure, where)

    @property
    def types(self) -> list[TensorType]:
        return [v.tensor for v in self.values]

    def build(self, values: Sequence[Value]) -> Any:
        """Tensors of other values, nested in the same way."""
        return unflatten(self.structure, [Tensor(v) for v in values])


def leaf_value(function: str, path: str, leaf: Any, dtype: Any = None) -> Value:
    """The value of a leaf, which must be a tensor, an array or a number."""
    if isinstance(leaf, (list, tuple, dict, str, bytes)) or callable(leaf):
        advice = "tensors may be nested in lists, tuples, and dicts with string keys"
        fail(function, GraphError, f"{path} is a {type(leaf).__name__}", (), advice)
    try:
        return to_value(leaf, dtype)
    except GraphwrightError as error:
        fail(function, GraphError, f"{path} is a {type(leaf).__name__}, no tensor: {error}")


def paths(structure: Any, root: str) -> Iterator[str]:
    """Where each leaf of a description stands, as a Python expression."""
    if structure == LEAF:
        yield root
        return
    kind, *children = structure
    for k, child in enumerate(children):
        key, child = child if kind == "dict" else (k, child)
        yield from paths(child, f"{root}[{key!r}]")


def leaves_like(function: str, what: str, tree: Any, structure: Any, model: str) -> list[Any]:
    """The leaves of a tree that must be nested as a description says; dicts may have another order.

    Parameters
    ----------
    what, model : what the tree and the description are, for the error.
    """
    if structure == LEAF:
        if tree is None or type(tree) in (list, tuple, dict):
            fail(function, GraphError, f"{what} is {_kind(tree)}, {model} has a tensor there")
        return [tree]
    kind, *children = structure
    keys = [key for key, _ in children] if kind == "dict" else list(range(len(children)))
    fits = {
        "none": tree is None,
        "list": type(tree) is list and len(tree) == len(keys),
        "tuple": type(tree) is tuple and len(tree) == len(keys),
        "dict": type(tree) is dict and set(tree) == set(keys),
    }
    if not fits[kind]:
        fail(function, GraphError, f"{what} is {_kind(tree)}, {model} has {_described(structure)} there")
    leaves = []
    for key, child in zip(keys, children):
        child = child[1] if kind == "dict" else child
        leaves += leaves_like(function, f"{what}[{key!r}]", tree[key], child, model)
    return leaves


def _kind(tree: Any) -> str:
    if tree is None:
        return "None"
    if type(tree) is dict:
        return _keys(tree)
    return f"a {type(tree).__name__} of {len(tree)}" if type(tree) in (list, tuple) else "a tensor"


def _described(structure: Any) -> str:
    kind, *children = structure
    if kind == "none":
        return "None"
    return _keys(dict(children)) if kind == "dict" else f"a {kind} of {len(children)}"


def _keys(mapping: dict[str, Any]) -> str:
    return f"a dict of {', '.join(map(repr, mapping))}" if mapping else "an empty dict"
