"""What a compiled function takes and gives: names, dtypes, and shapes as formulas of its dimensions.

A `Formula` is an integer, the name of a symbolic dimension, or a tuple of an operator and
operands: ``("+", a, b, ...)``, ``("*", a, b, ...)``, ``("//", a, b)``, ``("%", a, b)``,
``("max", a, ...)``, ``("min", a, ...)``, ``("**", a, integer)``, ``("isqrt", a)``. Division rounds
towards minus infinity, the root towards zero. In JSON a tuple is a list.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Any

import numpy as np

from ..errors import DimensionError
from . import structure as nesting

__all__ = [
    "DTYPES",
    "INT64_MAX",
    "Formula",
    "Signature",
    "Slot",
    "as_formula",
    "compile_formula",
    "evaluate",
    "formula_symbols",
    "formula_text",
]

Formula = int | str | tuple[Any, ...]
Requirement = tuple[Formula, Formula, str]
"""``(a, b, problem)``: unless ``a <= b``, the function cannot run, because of the problem."""

INT64_MAX = 2**63 - 1
DTYPES = (  # those of the IR, by name
    *("bool", "float32", "float64"),
    *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
)
_MAX_DEPTH = 64
_MAX_BITS = 256  # of any intermediate value: formulas may come from a file that nobody vouches for


# --- formulas --------------------------------------------------------------------------------------


def as_formula(spec: object, depth: int = 0) -> Formula:
    """Check a formula, and turn its lists into tuples.

    Raises
    ------
    ValueError
        If it is not a formula.
    """
    if isinstance(spec, bool) or depth > _MAX_DEPTH:
        raise ValueError(f"{spec!r:.80} is not a formula")
    if isinstance(spec, int):
        if abs(spec) > INT64_MAX:
            raise ValueError(f"the constant {spec} of a formula does not fit 64 bits")
        return spec
    if isinstance(spec, str) and spec.isidentifier():
        return spec
    if not isinstance(spec, (list, tuple)) or len(spec) < 2 or not _is_operator(spec[0]):
        raise ValueError(f"{spec!r:.80} is not a formula")
    op, operands = spec[0], tuple(as_formula(s, depth + 1) for s in spec[1:])
    if op in ("//", "%", "**") and len(operands) != 2:
        raise ValueError(f"{op} of a formula takes two operands, not {len(operands)}")
    if op == "isqrt" and len(operands) != 1:
        raise ValueError(f"isqrt of a formula takes one operand, not {len(operands)}")
    if op == "**" and not (isinstance(operands[1], int) and 0 <= operands[1] <= 64):
        raise ValueError(f"the power of a formula is an integer from 0 to 64, not {operands[1]!r:.80}")
    return (op, *operands)


def _is_operator(name: object) -> bool:
    return isinstance(name, str) and name in _OPERATORS


def _divide(a: int, b: int) -> int:
    if b == 0:
        raise DimensionError(f"dimension {a} divided by zero")
    return a // b


def _modulo(a: int, b: int) -> int:
    if b == 0:
        raise DimensionError(f"dimension {a} modulo zero")
    return a % b


def _multiply(values: Sequence[int]) -> int:
    result = 1
    for value in values:
        result *= value
        if result.bit_length() > _MAX_BITS:
            raise DimensionError("a product of dimensions is too large")
    return result


def _power(a: int, b: int) -> int:
    if a.bit_length() * b > _MAX_BITS:
        raise DimensionError(f"dimension {a}**{b} is too large")
    return int(a**b)


def _root(a: int) -> int:
    if a < 0:
        raise DimensionError(f"the root of dimension {a}")
    return math.isqrt(a)


_OPERATORS: dict[str, Callable[[Sequence[int]], int]] = {
    "+": sum,
    "*": _multiply,
    "//": lambda v: _divide(v[0], v[1]),
    "%": lambda v: _modulo(v[0], v[1]),
    "max": max,
    "min": min,
    "**": lambda v: _power(v[0], v[1]),
    "isqrt": lambda v: _root(v[0]),
}


_FUNCTIONS = ("max", "min", "isqrt")


def compile_formula(formula: Formula, symbols: Sequence[str]) -> Callable[[Sequence[int]], int]:
    """A function from the values of `symbols`, in their order, to the formula's value.

    Raises
    ------
    DimensionError
        If the formula needs another symbol. The function raises it on a division by zero, and
        on a value far beyond 64 bits.
    """
    if isinstance(formula, int):
        constant = formula
        return lambda values: constant
    if isinstance(formula, str):
        if formula not in symbols:
            raise DimensionError(f"dimension {formula} is unknown; known are {', '.join(symbols) or 'none'}")
        return itemgetter(list(symbols).index(formula))
    apply = _OPERATORS[formula[0]]
    operands = [compile_formula(f, symbols) for f in formula[1:]]

    def value(values: Sequence[int]) -> int:
        result = apply([f(values) for f in operands])
        if result.bit_length() > _MAX_BITS:
            raise DimensionError(f"dimension {formula_text(formula)} is too large")
        return result

    return value


def evaluate(formula: Formula, values: Mapping[str, int]) -> int:
    """The integer that a formula stands for.

    Raises
    ------
    DimensionError
        If a symbol has no value, on a division by zero, or on a value far beyond 64 bits.
    """
    names = sorted(values)
    return compile_formula(formula, names)([values[n] for n in names])


def formula_symbols(formula: Formula) -> set[str]:
    """The names that occur in a formula."""
    if isinstance(formula, tuple):
        return set().union(*map(formula_symbols, formula[1:]))
    return {formula} if isinstance(formula, str) else set()


def formula_text(formula: Formula) -> str:
    """A formula as IR text writes it: ``N*784 + 4``."""
    if not isinstance(formula, tuple):
        return str(formula)
    op, *operands = formula
    if op in _FUNCTIONS:
        return f"{op}({', '.join(map(formula_text, operands))})"
    if op == "+":
        first, *rest = map(formula_text, operands)
        return first + "".join(f" - {t[1:]}" if t.startswith("-") else f" + {t}" for t in rest)
    if op == "*" and operands[0] == -1 and len(operands) > 1:
        return "-" + formula_text(("*", *operands[1:]))
    separator: str = op if op in ("*", "**") else f" {op} "
    return separator.join(map(_factor_text, operands))


def _factor_text(formula: Formula) -> str:
    text = formula_text(formula)
    call = isinstance(formula, tuple) and formula[0] in _FUNCTIONS
    return text if call or text.isidentifier() or text.isdigit() else f"({text})"


# --- signatures ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slot:
    """One input, state or output: `shape` holds a formula for each dimension."""

    name: str
    dtype: str
    shape: tuple[Formula, ...]

    def __post_init__(self) -> None:
        _check(isinstance(self.name, str) and self.name != "", f"{self.name!r:.80} is not a name")
        _check(self.dtype in DTYPES, f"{self.name!r}: dtype {self.dtype!r:.80} is unknown")
        _check(isinstance(self.shape, (list, tuple)), f"{self.name!r}: {self.shape!r:.80} is not a shape")
        object.__setattr__(self, "shape", tuple(map(as_formula, self.shape)))

    @property
    def static_shape(self) -> tuple[int, ...] | None:
        """The shape if it has no symbols, else None."""
        shape = tuple(d for d in self.shape if isinstance(d, int))
        return shape if len(shape) == len(self.shape) else None

    @property
    def itemsize(self) -> int:
        """Size of one element in bytes."""
        return np.dtype(self.dtype).itemsize

    @property
    def symbols(self) -> set[str]:
        """The symbolic dimensions that occur in the shape."""
        return set().union(*map(formula_symbols, self.shape))

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(formula_text, self.shape))}]"

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}

    @classmethod
    def from_json(cls, data: Any) -> Slot:
        """Raises ValueError if `data` is not what `to_json` writes."""
        _check(isinstance(data, dict) and set(data) == {"name", "dtype", "shape"}, "a slot is malformed")
        return cls(data["name"], data["dtype"], data["shape"])


@dataclass(frozen=True)
class Signature:
    """The signature of one compiled function.

    Attributes
    ----------
    name : the function's name, for messages.
    symbols : its symbolic dimensions, sorted; the order of ``dims`` in the native call.
    inputs : in the order of the call's arguments.
    states : the variables it reads or writes; the order of its cells.
    outputs : the flat list of what it returns.
    arena : bytes of scratch memory, as a formula of the symbols.
    updated : indices of the states that it writes, sorted.
    structure : how the outputs are nested, as `structure.flatten` describes it; if None, one
        output stands for itself, and several are a tuple.

    Raises
    ------
    ValueError
        If the parts contradict each other.
    """

    name: str
    symbols: tuple[str, ...]
    inputs: tuple[Slot, ...]
    states: tuple[Slot, ...]
    outputs: tuple[Slot, ...]
    arena: Formula = 0
    updated: tuple[int, ...] = ()
    structure: Any = None
    requires: tuple[Requirement, ...] = ()

    def __post_init__(self) -> None:
        for field in ("symbols", "inputs", "states", "outputs", "updated"):
            value = getattr(self, field)
            _check(isinstance(value, (list, tuple)), f"{field} is {value!r:.80}, which is not a list")
            object.__setattr__(self, field, tuple(value))
        if self.structure is None:
            object.__setattr__(self, "structure", nesting.flat(len(self.outputs)))
        object.__setattr__(self, "arena", as_formula(self.arena))
        object.__setattr__(self, "requires", tuple(map(_as_requirement, self.requires)))
        _check(isinstance(self.name, str) and self.name != "", f"{self.name!r:.80} is not a name")
        _check_symbols(self)
        _check_names("input", self.inputs)
        _check_names("variable", self.states)
        indices = range(len(self.states))
        _check(all(isinstance(i, int) and i in indices for i in self.updated), "updated: no such state")
        _check(list(self.updated) == sorted(set(self.updated)), "updated is not sorted")
        leaves = nesting.count(self.structure)
        _check(leaves == len(self.outputs), f"{len(self.outputs)} outputs, but a structure of {leaves}")

    @cached_property
    def arena_text(self) -> str:
        """The scratch memory in bytes, as text."""
        return formula_text(self.arena)

    def __str__(self) -> str:
        inputs, states, outputs = (", ".join(map(str, s)) for s in (self.inputs, self.states, self.outputs))
        return f"{self.name}({inputs})" + (f" state({states})" if states else "") + f" -> ({outputs})"

    def to_json(self) -> dict[str, Any]:
        """As dictionaries and lists that JSON can hold."""
        return {
            "name": self.name,
            "symbols": list(self.symbols),
            "inputs": [s.to_json() for s in self.inputs],
            "states": [s.to_json() for s in self.states],
            "outputs": [s.to_json() for s in self.outputs],
            "arena": self.arena,
            "updated": list(self.updated),
            "structure": self.structure,
            "requires": [list(r) for r in self.requires],
        }

    @classmethod
    def from_json(cls, data: Any) -> Signature:
        """The signature that `to_json` wrote.

        Raises
        ------
        ValueError
            If `data` is anything else.
        """
        fields = {f.name for f in dataclasses.fields(cls)}
        _check(isinstance(data, dict) and set(data) == fields, "a signature is malformed")
        slots = {}
        for field in ("inputs", "states", "outputs"):
            _check(isinstance(data[field], list), f"{field} of a signature is not a list")
            slots[field] = tuple(map(Slot.from_json, data[field]))
        _check(data["structure"] is not None, "a signature has no structure")
        return cls(**{**data, **slots})


def _as_requirement(spec: Any) -> Requirement:
    _check(isinstance(spec, (list, tuple)) and len(spec) == 3, "a requirement is malformed")
    _check(isinstance(spec[2], str), "a requirement's problem is no text")
    return as_formula(spec[0]), as_formula(spec[1]), spec[2]


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _check_symbols(signature: Signature) -> None:
    symbols = signature.symbols
    _check(all(isinstance(s, str) and s.isidentifier() for s in symbols), "symbols are not identifiers")
    _check(list(symbols) == sorted(set(symbols)), f"symbols {', '.join(symbols)} are not sorted")
    for slot in signature.inputs + signature.states + signature.outputs:
        _check(slot.symbols <= set(symbols), f"{slot}: unknown dimension")
    formulas = [signature.arena, *(f for r in signature.requires for f in r[:2])]
    for formula in formulas:
        _check(formula_symbols(formula) <= set(symbols), f"{formula_text(formula)} has an unknown dimension")


def _check_names(role: str, slots: Iterable[Slot]) -> None:
    names = [slot.name for slot in slots]
    _check(len(set(names)) == len(names), f"two slots of role {role} have one name")
