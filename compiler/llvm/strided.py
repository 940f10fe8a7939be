"""Loads whose lanes lie a few elements apart, or backwards: whole vectors, then shuffles."""

from __future__ import annotations

from collections.abc import Callable

from .function import FunctionText

__all__ = ["STRIDES", "shuffle", "strided_load"]

STRIDES = (-1, 2, 3, 4)
"""Distances between lanes for which shuffling beats gathering."""


def strided_load(f: FunctionText, vector: str, lanes: int, stride: int, load: Callable[[int], str]) -> str:
    """A vector of the elements ``0, stride, 2*stride, ...`` from a base.

    `load` loads the vector of adjacent elements that begins so many elements from the base. Nothing
    is read before the first element or after the last.
    """
    if stride == -1:
        return shuffle(f, vector, load(1 - lanes), "poison", [lanes - 1 - k for k in range(lanes)])
    starts = [j * lanes for j in range(stride - 1)] + [(stride - 1) * (lanes - 1)]
    owner = [min(k * stride // lanes, stride - 1) for k in range(lanes)]
    result = load(starts[0])
    placed = [k * stride if owner[k] == 0 else -1 for k in range(lanes)]
    for j in range(1, stride):
        mask = [lanes + k * stride - starts[j] if owner[k] == j else placed[k] for k in range(lanes)]
        result = shuffle(f, vector, result, load(starts[j]), mask)
        placed = [k if owner[k] <= j else -1 for k in range(lanes)]
    return result


def shuffle(f: FunctionText, vector: str, a: str, b: str, mask: list[int]) -> str:
    """Lanes of two vectors, by number; -1 is any."""
    places = ", ".join(f"i32 {m}" if m >= 0 else "i32 poison" for m in mask)
    return f.assign(f"shufflevector {vector} {a}, {vector} {b}, <{len(mask)} x i32> <{places}>")
