"""Loads whose lanes lie a few elements apart, backwards, or repeat: whole vectors, then shuffles."""

from __future__ import annotations

from collections.abc import Callable

from ...ir.dims import Dim, Poly, coefficient, mod, symbol, symbols
from .function import FunctionText
from .instructions import Val

__all__ = ["STRIDES", "repeated", "repetition", "shuffle", "spread", "strided_load"]

STRIDES = (-1, 2, 3, 4)
"""Distances between lanes for which shuffling beats gathering."""


def strided_load(f: FunctionText, vector: str, lanes: int, stride: int, load: Callable[[int], str]) -> str:
    """A vector of the elements ``0, stride, 2*stride, ...`` from a base.

    `load` loads the vector of adjacent elements that begins so many elements from the base. Nothing
    is read before the first element or after the last.
    """
    if stride == -1:
        return shuffle(f, vector, load(1 - lanes), "poison", [lanes - 1 - k for k in range(lanes)])
    last = (stride - 1) * (lanes - 1)  # from here on, a vector ends with the last element
    starts = [min(j * lanes, last) for j in range(stride - 1)] + [last]
    owner = [min(k * stride // lanes, stride - 1) for k in range(lanes)]
    result = load(starts[0])
    placed = [k * stride if owner[k] == 0 else -1 for k in range(lanes)]
    for j in range(1, stride):
        mask = [lanes + k * stride - starts[j] if owner[k] == j else placed[k] for k in range(lanes)]
        result = shuffle(f, vector, result, load(starts[j]), mask)
        placed = [k if owner[k] <= j else -1 for k in range(lanes)]
    return result


def spread(f: FunctionText, mask: Val, stride: int, start: int) -> Val:
    """Of a mask for the elements ``0, stride, 2*stride, ...``: that for the adjacent ones from `start` on."""
    n, kind = mask.lanes, f"<{mask.lanes} x i1>"
    sources = [n if t % stride else t // stride for t in range(start, start + n)]
    return Val(shuffle(f, kind, mask.text, "zeroinitializer", sources), mask.dtype, n)


def shuffle(f: FunctionText, vector: str, a: str, b: str, mask: list[int]) -> str:
    """Lanes of two vectors, by number; -1 is any."""
    places = ", ".join(f"i32 {m}" if m >= 0 else "i32 poison" for m in mask)
    return f.assign(f"shufflevector {vector} {a}, {vector} {b}, <{len(mask)} x i32> <{places}>")


def repetition(position: Dim, var: str) -> int:
    """How many adjacent lanes read each element: `n` of ``(var + multiple of n) // n + ...``; 0 if it is not so."""
    found = 0
    for monomial, c in position.terms if isinstance(position, Poly) else ():
        for atom, power in monomial:
            if isinstance(atom, str) or not any(var in symbols(a) for a in atom.args):
                if atom == var:
                    return 0
                continue
            numerator, n = atom.args[0], atom.args[-1]
            plain = atom.kind == "//" and c == power == len(monomial) == 1 and isinstance(n, int) and not found
            if not plain or coefficient(numerator, var) != 1 or mod(numerator - symbol(var), n) != 0:
                return 0
            found = n if isinstance(n, int) else 0
    return found


def repeated(f: FunctionText, vector: str, text: str, lanes: int, times: int) -> str:
    """``lanes * times`` lanes, in which each of a vector's elements stands so many times."""
    return shuffle(f, vector, text, "poison", [k // times for k in range(lanes * times)])
