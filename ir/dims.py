"""Symbolic integers: dimensions of shapes, and index expressions of loops.

A `Dim` is an ``int`` or a `Poly`: a polynomial with integer coefficients over *atoms*. An atom is a
symbol (a dimension such as ``N``, or a loop variable) or an irreducible ``//``, ``%``, ``max``,
``min``. Polynomials are kept in one normal form, so equal ones are equal objects in nearly every
case; SymPy, imported only then, decides the rest (see `equal`). All symbols stand for
non-negative integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from functools import lru_cache
from itertools import product as product_of
from typing import Union

from ..errors import DimensionError

__all__ = [
    "Atom",
    "Dim",
    "Monomial",
    "Op",
    "Poly",
    "align",
    "at_most",
    "bound",
    "ceildiv",
    "coefficient",
    "dim_max",
    "dim_min",
    "equal",
    "evaluate",
    "floordiv",
    "from_terms",
    "isqrt",
    "join",
    "mod",
    "product",
    "simplify",
    "substitute",
    "symbol",
    "symbols",
    "terms_of",
    "with_remainders",
]

INT64_MAX = 2**63 - 1


class Op:
    """An irreducible ``//``, ``%``, ``max``, ``min`` or ``isqrt`` of dims; an atom of `Poly`."""

    __slots__ = ("args", "kind", "_hash")

    def __init__(self, kind: str, args: tuple[Dim, ...]) -> None:
        self.kind = kind
        self.args = args
        self._hash = hash((kind, args))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Op) and self.kind == other.kind and self.args == other.args

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        if self.kind in ("max", "min", "isqrt"):
            return f"{self.kind}({', '.join(map(str, self.args))})"
        left, right = (_parenthesized(a) for a in self.args)
        if "*" in right.replace("**", "") and not right.startswith("("):  # N // (2*M)
            right = f"({right})"
        return f"({left} {self.kind} {right})"


Atom = Union[str, Op]
Monomial = tuple[tuple[Atom, int], ...]  # sorted (atom, power) pairs; () is the constant term


def _parenthesized(dim: Dim) -> str:
    text = str(dim)
    if isinstance(dim, int) or len(dim.terms) > 1:
        return text if isinstance(dim, int) else f"({text})"
    (monomial, c), = dim.terms
    alone = c == 1 and len(monomial) == 1 and monomial[0][1] == 1  # an operation has its own parentheses
    return text if alone or " " not in text else f"({text})"


class Poly:
    """A polynomial that is not a constant; build it with operators on `symbol`."""

    __slots__ = ("terms", "_hash")

    def __init__(self, terms: tuple[tuple[Monomial, int], ...]) -> None:
        self.terms = terms
        self._hash = hash(terms)

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Poly) and self._hash == other._hash and self.terms == other.terms
        )

    def __hash__(self) -> int:
        return self._hash

    def __add__(self, other: Dim) -> Dim:
        if not isinstance(other, (int, Poly)):
            return NotImplemented  # a tensor, which takes the dim as a number
        total = dict(self.terms)
        for monomial, c in terms_of(other):
            total[monomial] = total.get(monomial, 0) + c
        return from_terms(total)

    def __neg__(self) -> Dim:
        return from_terms({m: -c for m, c in self.terms})

    def __sub__(self, other: Dim) -> Dim:
        return self + -other

    def __rsub__(self, other: Dim) -> Dim:
        return -self + other

    def __mul__(self, other: Dim) -> Dim:
        if not isinstance(other, (int, Poly)):
            return NotImplemented  # a tensor, which takes the dim as a number
        total: dict[Monomial, int] = {}
        for m1, c1 in self.terms:
            for m2, c2 in terms_of(other):
                m = _multiply(m1, m2)
                total[m] = total.get(m, 0) + c1 * c2
        return from_terms(total)

    __radd__ = __add__
    __rmul__ = __mul__

    def __floordiv__(self, other: Dim) -> Dim:
        return floordiv(self, other)

    def __rfloordiv__(self, other: Dim) -> Dim:
        return floordiv(other, self)

    def __mod__(self, other: Dim) -> Dim:
        return mod(self, other)

    def __rmod__(self, other: Dim) -> Dim:
        return mod(other, self)

    def __str__(self) -> str:
        out = ""
        for monomial, c in self.terms:
            factors = [str(a) if p == 1 else f"{a}**{p}" for a, p in monomial]
            if abs(c) != 1 or not factors:
                factors.insert(0, str(abs(c)))
            sign = ("-" if c < 0 else "") if not out else (" - " if c < 0 else " + ")
            out += sign + "*".join(factors)
        return out

    __repr__ = __str__


Dim = Union[int, Poly]


def terms_of(dim: Dim) -> Iterable[tuple[Monomial, int]]:
    """The monomials of a dim with their coefficients."""
    return dim.terms if isinstance(dim, Poly) else (((), dim),)


@lru_cache(maxsize=65536)
def _order(monomial: Monomial) -> tuple[int, str]:
    return -sum(p for _, p in monomial), " ".join(f"{a}^{p}" for a, p in monomial)


def from_terms(terms: Mapping[Monomial, int]) -> Dim:
    """The dim of these terms, in normal form."""
    kept = [(m, c) for m, c in terms.items() if c]
    if not kept:
        return 0
    if len(kept) == 1:
        return kept[0][1] if not kept[0][0] else Poly(tuple(kept))
    kept.sort(key=lambda term: _order(term[0]))
    return Poly(tuple(kept))


@lru_cache(maxsize=65536)
def _multiply(a: Monomial, b: Monomial) -> Monomial:
    if not a or not b:
        return a or b
    powers = dict(a)
    for atom, p in b:
        powers[atom] = powers.get(atom, 0) + p
    return tuple(sorted(powers.items(), key=lambda item: str(item[0])))


def _atom(kind: str, *args: Dim) -> Dim:
    return Poly((((((Op(kind, args)), 1),), 1),))


@lru_cache(maxsize=4096)
def symbol(name: str) -> Poly:
    """The dim that stands for a named, non-negative integer."""
    return Poly(((((name, 1),), 1),))


def product(dims: Iterable[Dim]) -> Dim:
    """The product of dims; 1 of none."""
    result: Dim = 1
    for d in dims:
        result = result * d
    return result


def _divide_term(monomial: Monomial, c: int, by: Monomial, by_c: int) -> tuple[Monomial, int] | None:
    if c % by_c:
        return None
    powers = dict(monomial)
    for atom, p in by:
        if powers.get(atom, 0) < p:
            return None
        powers[atom] -= p
    return tuple((a, p) for a, p in powers.items() if p), c // by_c


def _split(a: Dim, b: Dim) -> tuple[Dim, Dim]:
    """Write ``a = b * quotient + rest`` with every divisible term in the quotient."""
    terms_b = tuple(terms_of(b))
    if len(terms_b) != 1:
        return (1, 0) if a == b else (0, a)
    (by, by_c), = terms_b
    quotient: dict[Monomial, int] = {}
    rest: dict[Monomial, int] = {}
    for m, c in terms_of(a):
        if not m and not by:  # an integer constant: split it as Python's divmod does
            q, r = divmod(c, by_c)
            quotient[()] = quotient.get((), 0) + q
            rest[()] = rest.get((), 0) + r
            continue
        divided = _divide_term(m, c, by, by_c)
        target, (key, value) = (rest, (m, c)) if divided is None else (quotient, divided)
        target[key] = target.get(key, 0) + value
    return from_terms(quotient), from_terms(rest)


def floordiv(a: Dim, b: Dim) -> Dim:
    """``a // b``, rounded towards minus infinity.

    Raises
    ------
    DimensionError
        If `b` is the constant 0.
    """
    if isinstance(b, int):
        if b == 0:
            raise DimensionError(f"dimension {a} divided by zero")
        if isinstance(a, int):
            return a // b
        if b == 1:
            return a
    quotient, rest = _split(a, b)
    if isinstance(rest, int) and (rest == 0 or isinstance(b, int)):
        return quotient + (rest // b if isinstance(b, int) else 0)
    return quotient + _atom("//", rest, b)


def mod(a: Dim, b: Dim) -> Dim:
    """``a % b``, with the sign of `b`."""
    if isinstance(b, int):
        if b == 0:
            raise DimensionError(f"dimension {a} modulo zero")
        if isinstance(a, int):
            return a % b
        if b == 1:
            return 0
    _, rest = _split(a, b)
    if isinstance(rest, int) and (rest == 0 or isinstance(b, int)):
        return rest % b if isinstance(b, int) else 0
    return _atom("%", rest, b)


def ceildiv(a: Dim, b: int) -> Dim:
    """``a / b`` rounded up, for a positive integer `b`."""
    return floordiv(a + (b - 1), b)


def align(size: Dim, to: int) -> Dim:
    """The smallest multiple of `to` that is at least `size`."""
    if all(c % to == 0 for _, c in terms_of(size)):
        return size
    return ceildiv(size, to) * to


@lru_cache(maxsize=65536)
def at_most(a: Dim, b: Dim) -> bool:
    """Whether ``a <= b`` is certain for all non-negative values of the symbols."""
    difference = b - a
    if isinstance(difference, int):
        return difference >= 0
    if _certainly_positive(difference):
        return True
    names = sorted(symbols(difference))
    if len(names) > 3 or not all(isinstance(x, str) or _plain_division(x) for m, _ in difference.terms for x, _ in m):
        return False
    return all(_positive_in_case(difference, dict(zip(names, case))) for case in product_of((0, 1), repeat=len(names)))


def _plain_division(atom: Op) -> bool:
    return atom.kind == "//" and isinstance(atom.args[1], int) and atom.args[1] > 0


def _certainly_positive(dim: Poly) -> bool:
    return all(
        c >= 0 and all(isinstance(x, str) or _non_negative(x) for x, _ in m) for m, c in dim.terms
    )


def _positive_in_case(dim: Dim, least: Mapping[str, int]) -> bool:
    """Whether a dim is non-negative where each symbol is 0, or is at least 1 (as `least` says)."""
    try:
        shifted = substitute(dim, {n: symbol(n) + 1 if low else 0 for n, low in least.items()})
    except DimensionError:
        return True  # divided by zero: the dim does not exist there
    if not isinstance(shifted, Poly):
        return shifted >= 0
    bound: dict[Monomial, Fraction] = {}
    for monomial, c in shifted.terms:
        for m, value in _lower_bound(monomial, c):
            bound[m] = bound.get(m, Fraction(0)) + value
    return all(c >= 0 and all(isinstance(x, str) for x, _ in m) for m, c in bound.items() if c)


def _lower_bound(monomial: Monomial, c: int) -> list[tuple[Monomial, Fraction]]:
    """Terms that are at most ``c * monomial``: a single ``p // q`` lies between (p - q + 1)/q and p/q."""
    if len(monomial) == 1 and monomial[0][1] == 1:
        atom = monomial[0][0]
        if isinstance(atom, Op) and _plain_division(atom):
            above, below = atom.args
            assert isinstance(below, int)
            numerator = above if c < 0 else above - (below - 1)
            return [(m, Fraction(c * x, below)) for m, x in terms_of(numerator)]
    return [(monomial, Fraction(c))]


def with_remainders(dim: Dim) -> Dim:
    """The same dim with ``a % b`` for ``a - b*(a // b)``, which is smaller than `join` could know."""
    for monomial, c in terms_of(dim):
        for atom, power in monomial if c < 0 else ():
            if isinstance(atom, Op) and atom.kind == "//" and power == 1:
                a, b = atom.args
                times, rest = _split(from_terms({tuple(x for x in monomial if x[0] != atom): -c}), b)
                other = dim + times * (mod(a, b) + b * floordiv(a, b) - a) if rest == 0 else dim
                if _negative_terms(other) < _negative_terms(dim):
                    return with_remainders(other)
    return dim


def _negative_terms(dim: Dim) -> int:
    return sum(c < 0 for _, c in terms_of(dim))


def join(*dims: Dim) -> Dim:
    """A dim that is at least each of the given ones (whose terms are all positive), free of ``max``.

    It has, for each term, the largest coefficient found: exact where one dim exceeds the others in all.
    """
    kept = [d for k, d in enumerate(dims) if not any(
        at_most(d, other) and (k > j or not at_most(other, d)) for j, other in enumerate(dims) if j != k
    )]  # fmt: skip
    terms: dict[Monomial, int] = {}
    for d in kept:
        for m, c in terms_of(d):
            terms[m] = max(terms.get(m, 0), c)
    return from_terms(terms)


def _non_negative(atom: Op) -> bool:
    if atom.kind == "%":
        return at_most(1, atom.args[1])
    if atom.kind == "isqrt":
        return True
    if atom.kind == "max":
        return any(at_most(0, a) for a in atom.args)
    return all(at_most(0, a) for a in atom.args)


def _extremum(kind: str, dims: Iterable[Dim]) -> Dim:
    def yields(a: Dim, b: Dim) -> bool:
        return at_most(a, b) if kind == "max" else at_most(b, a)

    kept: list[Dim] = []
    for d in dims:
        if not any(yields(d, k) for k in kept):
            kept = [k for k in kept if not yields(k, d)] + [d]
    if len(kept) == 1:
        return kept[0]
    return _atom(kind, *sorted(kept, key=str))


def dim_max(*dims: Dim) -> Dim:
    """The largest of the dims, without those that another always exceeds."""
    return _extremum("max", dims)


def dim_min(*dims: Dim) -> Dim:
    """The smallest of the dims, without those that never are."""
    return _extremum("min", dims)


def bound(dim: Dim) -> Dim:
    """What a dim never exceeds: the number among what it is the least of; else itself."""
    if isinstance(dim, Poly) and len(dim.terms) == 1:
        (monomial, factor), = dim.terms
        if factor == 1 and len(monomial) == 1 and monomial[0][1] == 1:
            atom = monomial[0][0]
            if isinstance(atom, Op) and atom.kind == "min":
                return min((a for a in atom.args if isinstance(a, int)), default=dim)
    return dim


def isqrt(dim: Dim) -> Dim:
    """The root of a non-negative dim, rounded down.

    Raises
    ------
    DimensionError
        If it is a negative constant.
    """
    if not isinstance(dim, int):
        return _atom("isqrt", dim)
    if dim < 0:
        raise DimensionError(f"the root of {dim}")
    return math.isqrt(dim)


def symbols(dim: Dim) -> set[str]:
    """The names that occur in a dim."""
    found: set[str] = set()
    if isinstance(dim, Poly):
        for monomial, _ in dim.terms:
            for atom, _power in monomial:
                found |= {atom} if isinstance(atom, str) else set().union(*map(symbols, atom.args))
    return found


_APPLY: dict[str, Callable[..., Dim]] = {
    "//": floordiv, "%": mod, "max": dim_max, "min": dim_min, "isqrt": isqrt,
}  # fmt: skip


def substitute(dim: Dim, values: Mapping[str, Dim]) -> Dim:
    """The dim with symbols replaced by other dims."""
    if not isinstance(dim, Poly):
        return dim
    plain: dict[Monomial, int] = {}  # terms in which symbols stay, or become integers
    others: Dim = 0
    for monomial, c in dim.terms:
        kept: list[tuple[Atom, int]] = []
        factor: Dim = c
        for atom, power in monomial:
            if isinstance(atom, str):
                if atom not in values:
                    kept.append((atom, power))
                    continue
                value = values[atom]
            else:
                value = _APPLY[atom.kind](*(substitute(a, values) for a in atom.args))
            for _ in range(power):
                factor = factor * value
        m: Monomial = tuple(kept)
        if isinstance(factor, int):
            plain[m] = plain.get(m, 0) + factor
        else:
            others = others + factor * from_terms({m: 1})
    return from_terms(plain) + others


def evaluate(dim: Dim, values: Mapping[str, int]) -> int:
    """The integer a dim stands for.

    Raises
    ------
    DimensionError
        If a symbol has no value.
    """
    result = substitute(dim, values)
    if not isinstance(result, int):
        raise DimensionError(f"dimension {dim} needs a value for {', '.join(sorted(symbols(result)))}")
    return result


def coefficient(dim: Dim, name: str) -> Dim | None:
    """The factor of a symbol in a dim that is linear in it; None where it is not linear."""
    if not isinstance(dim, Poly):
        return 0
    factor: Dim = 0
    for monomial, c in dim.terms:
        powers = dict(monomial)
        power = powers.pop(name, 0)
        if power > 1 or any(isinstance(a, Op) and name in symbols(from_terms({((a, 1),): 1})) for a in powers):
            return None
        if power:
            factor = factor + from_terms({tuple(powers.items()): c})
    return factor


def simplify(dim: Dim, extents: Mapping[str, Dim]) -> Dim:
    """Remove ``//`` and ``%`` that cannot act, given ``0 <= symbol < extent`` for some symbols."""
    if not isinstance(dim, Poly):
        return dim
    total: Dim = 0
    for monomial, c in dim.terms:
        term: Dim = c
        for atom, power in monomial:
            factor = symbol(atom) if isinstance(atom, str) else _simplify_op(atom, extents)
            for _ in range(power):
                term = term * factor
        total = total + term
    return total


def _simplify_op(atom: Op, extents: Mapping[str, Dim]) -> Dim:
    args = tuple(simplify(a, extents) for a in atom.args)
    if atom.kind in ("//", "%"):
        quotient, rest = _split(args[0], args[1])
        if _below(rest, args[1], extents):
            return quotient if atom.kind == "//" else rest
    return _APPLY[atom.kind](*args)


def _below(dim: Dim, bound: Dim, extents: Mapping[str, Dim]) -> bool:
    """Whether ``0 <= dim < bound`` is certain."""
    if not all(c >= 0 and all(isinstance(a, str) for a, _ in m) for m, c in terms_of(dim)):
        return False
    largest = substitute(dim, {name: extent - 1 for name, extent in extents.items()})
    return at_most(largest + 1, bound)


def equal(a: Dim, b: Dim) -> bool:
    """Whether two dims are equal for all values of their symbols (SymPy decides the hard cases)."""
    if a == b:
        return True
    difference = a - b
    if isinstance(difference, int) or all(isinstance(x, str) for m, _ in difference.terms for x, _ in m):
        return False  # polynomials in normal form: different terms, different functions
    return _vanishes(difference)


_PROBES = ((0, 0), (0, 1), (1, 1), (2, 3), (5, 2), (3, 64), (101, 7))  # the k-th symbol is p + k*q


@lru_cache(maxsize=4096)
def _vanishes(difference: Poly) -> bool:
    """Whether a dim is 0 for all values of its symbols: probes refute it in most cases, SymPy decides the rest."""
    found = sorted(symbols(difference))
    for p, q in _PROBES:
        try:
            if evaluate(difference, {s: p + k * q for k, s in enumerate(found)}) != 0:
                return False
        except DimensionError:  # divided by zero there
            continue
    import sympy

    names = {s: sympy.Symbol(s, integer=True, nonnegative=True) for s in found}
    functions = {
        "max": sympy.Max, "min": sympy.Min, "//": lambda p, q: sympy.floor(p / q), "%": sympy.Mod,
        "isqrt": lambda p: sympy.floor(sympy.sqrt(p)),
    }  # fmt: skip

    def convert(dim: Dim) -> sympy.Expr:
        return sympy.Add(*(
            c * sympy.Mul(*(
                (names[x] if isinstance(x, str) else functions[x.kind](*map(convert, x.args))) ** p
                for x, p in m
            ))
            for m, c in terms_of(dim)
        ))

    return bool(sympy.simplify(convert(difference)) == 0)
