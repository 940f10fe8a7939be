"""Nested outputs: lists, tuples and dictionaries of leaves, flattened and built again.

A *description* is what JSON can hold: ``"*"`` for a leaf, ``["none"]`` for None, ``["list", d, ...]``,
``["tuple", d, ...]`` and ``["dict", [key, d], ...]``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..errors import ArgumentError

__all__ = ["count", "flat", "flatten", "unflatten", "unflattener"]

LEAF = "*"
_MAX_DEPTH = 64


def flat(n: int) -> Any:
    """The description of one leaf, or of a tuple of several."""
    return LEAF if n == 1 else ["tuple", *[LEAF] * n]


def flatten(tree: Any) -> tuple[list[Any], Any]:
    """The leaves of a tree, in order, and its description; whatever is no container is a leaf.

    Raises
    ------
    ArgumentError
        If the key of a dictionary is not a string, or the nesting is too deep.
    """
    leaves: list[Any] = []

    def describe(node: Any, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise ArgumentError(f"outputs are nested deeper than {_MAX_DEPTH} levels")
        if node is None:
            return ["none"]
        if type(node) is list or type(node) is tuple:
            return [type(node).__name__, *(describe(child, depth + 1) for child in node)]
        if type(node) is dict:
            for key in node:
                if not isinstance(key, str):
                    raise ArgumentError(f"the key {key!r} of an output dictionary is not a string")
            return ["dict", *([key, describe(child, depth + 1)] for key, child in node.items())]
        leaves.append(node)
        return LEAF

    return leaves, describe(tree, 0)


def count(description: Any, depth: int = 0) -> int:
    """The number of leaves of a description.

    Raises
    ------
    ValueError
        If it is not one.
    """
    if description == LEAF:
        return 1
    if depth > _MAX_DEPTH or not isinstance(description, (list, tuple)) or not description:
        raise ValueError(f"{description!r:.80} does not describe outputs")
    kind, *children = description
    if kind == "none" and not children:
        return 0
    if kind in ("list", "tuple"):
        return sum(count(child, depth + 1) for child in children)
    if kind != "dict" or not all(_is_item(child) for child in children):
        raise ValueError(f"{description!r:.80} does not describe outputs")
    if len({key for key, _ in children}) != len(children):
        raise ValueError("an output dictionary has one key twice")
    return sum(count(child, depth + 1) for _, child in children)


def _is_item(item: Any) -> bool:
    return isinstance(item, (list, tuple)) and len(item) == 2 and isinstance(item[0], str)


def unflattener(description: Any) -> Callable[[Sequence[Any]], Any]:
    """A function from the flat list of leaves to the tree that a description stands for."""
    n = count(description)
    if description == LEAF:
        return lambda leaves: leaves[0]
    if isinstance(description, (list, tuple)) and list(description) == ["tuple", *[LEAF] * n]:
        return tuple
    if isinstance(description, (list, tuple)) and list(description) == ["list", *[LEAF] * n]:
        return list
    if n and description[0] == "dict" and all(child == LEAF for _, child in description[1:]):
        keys = [key for key, _ in description[1:]]
        return lambda leaves: dict(zip(keys, leaves, strict=True))
    return lambda leaves: _build(description, iter(leaves))


def unflatten(description: Any, leaves: Sequence[Any]) -> Any:
    """The tree of a description with these leaves.

    Raises
    ------
    ValueError
        If their number does not fit.
    """
    if len(leaves) != count(description):
        raise ValueError(f"{len(leaves)} leaves for a structure of {count(description)}")
    return unflattener(description)(leaves)


def _build(description: Any, leaves: Iterator[Any]) -> Any:
    if description == LEAF:
        return next(leaves)
    kind, *children = description
    if kind == "none":
        return None
    if kind == "dict":
        return {key: _build(child, leaves) for key, child in children}
    built = [_build(child, leaves) for child in children]
    return built if kind == "list" else tuple(built)
