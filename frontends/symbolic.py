"""SymPy expressions as programs: one translation into any algebra that has the IR's scalar ops.

Spellings that overflow or cancel, such as ``log(1 + exp(x))``, become functions with an exact form first
(`stabilized`); these know their derivatives, so derivatives of any order stay exact as well.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Generic, TypeVar

from ..errors import GraphError

__all__ = ["Algebra", "stabilized", "translate"]

T = TypeVar("T")


@dataclass(frozen=True)
class Algebra(Generic[T]):
    """Where an expression is evaluated: how to make a constant, and how to apply a scalar op."""

    constant: Callable[[bool | int | float], T]
    apply: Callable[..., T]  # apply(name, *operands), names of `ir.scalars`


_FUNCTIONS = {
    "Abs": "abs", "acos": "acos", "acosh": "acosh", "asin": "asin", "asinh": "asinh", "atan": "atan",
    "atan2": "atan2", "atanh": "atanh", "ceiling": "ceil", "cos": "cos", "cosh": "cosh", "erf": "erf",
    "exp": "exp", "expm1": "expm1", "floor": "floor", "log": "log", "log1p": "log1p", "sigmoid": "sigmoid",
    "sin": "sin", "sinh": "sinh", "softplus": "softplus", "tan": "tan", "tanh": "tanh",
}
_FOLDS = {"Add": "add", "Mul": "mul", "Max": "max", "Min": "min", "And": "bitand", "Or": "bitor"}
_RELATIONS = {
    "Equality": "eq", "Unequality": "ne", "StrictLessThan": "lt", "LessThan": "le", "StrictGreaterThan": "gt",
    "GreaterThan": "ge",
}
_RECIPROCALS = {"sec": "cos", "csc": "sin", "cot": "tan", "sech": "cosh", "csch": "sinh", "coth": "tanh"}
_LARGEST_POWER = 16  # integer powers up to here become multiplications


# --- exact forms ---------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def _exact() -> SimpleNamespace:
    """SymPy functions for the exact forms; made when first needed, for SymPy takes long to import."""
    import sympy

    class sigmoid(sympy.Function):  # type: ignore[misc]
        def fdiff(self, argindex: int = 1) -> Any:
            return sigmoid(self.args[0]) * sigmoid(-self.args[0])

    class softplus(sympy.Function):  # type: ignore[misc]
        def fdiff(self, argindex: int = 1) -> Any:
            return sigmoid(self.args[0])

    class log1p(sympy.Function):  # type: ignore[misc]
        def fdiff(self, argindex: int = 1) -> Any:
            return 1 / (1 + self.args[0])

    class expm1(sympy.Function):  # type: ignore[misc]
        def fdiff(self, argindex: int = 1) -> Any:
            return sympy.exp(self.args[0])

    return SimpleNamespace(sigmoid=sigmoid, softplus=softplus, log1p=log1p, expm1=expm1)


def stabilized(expression: Any) -> Any:
    """The expression with spellings that overflow or cancel replaced by functions with an exact form."""
    if not expression.args:
        return expression
    arguments = [stabilized(a) for a in expression.args]
    if any(a is not b for a, b in zip(arguments, expression.args, strict=True)):
        expression = expression.func(*arguments)
    rule = _EXACT.get(expression.func.__name__)
    return rule(expression) if rule else expression


def _exact_log(e: Any) -> Any:
    """log(1 + exp(u)) -> softplus(u); log(1 + u) -> log1p(u)"""
    import sympy

    (argument,) = e.args
    if not (argument.is_Add and sympy.S.One in argument.args):
        return e
    rest = argument - 1
    return _exact().softplus(rest.args[0]) if isinstance(rest, sympy.exp) else _exact().log1p(rest)


def _exact_power(e: Any) -> Any:
    """1 / (1 + exp(u))**n -> sigmoid(-u)**n"""
    import sympy

    base, exponent = e.args
    if exponent.is_Integer and exponent < 0 and base.is_Add and sympy.S.One in base.args:
        rest = base - 1
        if isinstance(rest, sympy.exp):
            return _exact().sigmoid(-rest.args[0]) ** -exponent
    return e


def _exact_sum(e: Any) -> Any:
    """exp(u) - 1 -> expm1(u)"""
    import sympy

    exponentials = [a for a in e.args if isinstance(a, sympy.exp)]
    if sympy.S.NegativeOne in e.args and exponentials:
        return e + 1 - exponentials[0] + _exact().expm1(exponentials[0].args[0])
    return e


def _exact_product(e: Any) -> Any:
    """exp(u) * sigmoid(-u) -> sigmoid(u)"""
    import sympy

    for a in e.args:
        partner = _exact().sigmoid(-a.args[0]) if isinstance(a, sympy.exp) else None
        if partner is not None and partner in e.args:
            return sympy.Mul(*(x for x in e.args if x not in (a, partner))) * _exact().sigmoid(a.args[0])
    return e


_EXACT = {"log": _exact_log, "Pow": _exact_power, "Add": _exact_sum, "Mul": _exact_product}


# --- translation ---------------------------------------------------------------------------------


def translate(expression: Any, leaves: Mapping[Any, T], algebra: Algebra[T]) -> T:
    """Evaluate a SymPy expression in an algebra, given the values of its symbols.

    Raises
    ------
    GraphError
        If it has a symbol without a value, or a function that the IR does not have.
    """
    return _Translator(leaves, algebra).visit(expression)


class _Translator(Generic[T]):
    """One translation; equal subexpressions are translated once."""

    def __init__(self, leaves: Mapping[Any, T], algebra: Algebra[T]) -> None:
        self.known: dict[Any, T] = dict(leaves)
        self.constant, self.apply = algebra.constant, algebra.apply

    def visit(self, e: Any) -> T:
        if e not in self.known:
            self.known[e] = self._translate(e)
        return self.known[e]

    def _translate(self, e: Any) -> T:
        name = e.func.__name__
        if e.is_Symbol:
            raise GraphError(f"the symbol {e} of the expression has no value")
        if name in ("BooleanTrue", "BooleanFalse"):
            return self.constant(bool(e))
        if not e.free_symbols and getattr(e, "is_number", False):
            return self._number(e)
        if name in _FUNCTIONS:
            return self.apply(_FUNCTIONS[name], *map(self.visit, e.args))
        if name in _RELATIONS:
            return self.apply(_RELATIONS[name], *map(self.visit, e.args))
        if name in _RECIPROCALS:
            return self.apply("div", self.constant(1), self.apply(_RECIPROCALS[name], self.visit(e.args[0])))
        method = getattr(self, f"_{name}", None)
        if method is not None:
            result: T = method(e)
            return result
        if name in _FOLDS:
            return self._fold(_FOLDS[name], e.args)
        raise GraphError(
            f"the SymPy function {name} in {e} is not supported; supported are + - * / **, comparisons, Piecewise, "
            f"{', '.join(sorted({*_FUNCTIONS, *_RECIPROCALS, 'Max', 'Min', 'sign', 'Heaviside', 'sqrt'}))}"
        )

    def _number(self, e: Any) -> T:
        if e.is_Integer:
            return self.constant(int(e))
        value = complex(e.evalf(20))
        if value.imag or value != value:
            raise GraphError(f"the constant {e} of the expression is not a real number")
        return self.constant(value.real)

    def _fold(self, op: str, args: Sequence[Any]) -> T:
        result = self.visit(args[0])
        for a in args[1:]:
            result = self.apply(op, result, self.visit(a))
        return result

    def _Add(self, e: Any) -> T:
        """Positive terms first, so that the others can be subtracted."""
        negative = [a for a in e.args if a.could_extract_minus_sign()]
        positive = [a for a in e.args if not a.could_extract_minus_sign()]
        result = self._fold("add", positive) if positive else self.apply("neg", self.visit(-negative.pop(0)))
        for a in negative:
            result = self.apply("sub", result, self.visit(-a))
        return result

    def _Mul(self, e: Any) -> T:
        if e.args[0] == -1:
            return self.apply("neg", self.visit(e.func(*e.args[1:])))
        divisors = [1 / a for a in e.args if a.is_Pow and a.args[1].is_number and a.args[1].is_negative]
        factors = [a for a in e.args if 1 / a not in divisors]
        top = self._fold("mul", factors) if factors else self.constant(1)
        return self.apply("div", top, self._fold("mul", divisors)) if divisors else top

    def _Pow(self, e: Any) -> T:
        base, exponent = e.args
        if exponent.is_Rational and exponent.q in (1, 2) and abs(exponent.p) <= _LARGEST_POWER:
            power = self._root_power(self.visit(base), abs(exponent.p), exponent.q)
            return power if exponent > 0 else self.apply("div", self.constant(1), power)
        return self.apply("pow", self.visit(base), self.visit(exponent))

    def _root_power(self, x: T, n: int, root: int) -> T:
        """``x**(n / root)`` by repeated squaring, the root being 1 or 2."""
        x = self.apply("sqrt", x) if root == 2 else x
        result: T | None = None
        while n:
            if n & 1:
                result = x if result is None else self.apply("mul", result, x)
            n >>= 1
            x = self.apply("mul", x, x) if n else x
        assert result is not None
        return result

    def _Not(self, e: Any) -> T:
        return self.apply("bitnot", self.visit(e.args[0]))

    def _sign(self, e: Any) -> T:
        x, zero = self.visit(e.args[0]), self.constant(0)
        rest = self.apply("select", self.apply("lt", x, zero), self.constant(-1), zero)
        return self.apply("select", self.apply("gt", x, zero), self.constant(1), rest)

    def _Heaviside(self, e: Any) -> T:
        x, zero = self.visit(e.args[0]), self.constant(0)
        rest = self.apply("select", self.apply("lt", x, zero), zero, self.visit(e.args[1]))
        return self.apply("select", self.apply("gt", x, zero), self.constant(1), rest)

    def _Piecewise(self, e: Any) -> T:
        pieces = list(e.args)
        otherwise = pieces.pop()[0] if pieces[-1][1].func.__name__ == "BooleanTrue" else None
        result = self.constant(float("nan")) if otherwise is None else self.visit(otherwise)
        for value, condition in reversed(pieces):
            result = self.apply("select", self.visit(condition), self.visit(value), result)
        return result

    def _DiracDelta(self, e: Any) -> T:
        return self.constant(0)  # the derivative of a step, almost everywhere

    def _Derivative(self, e: Any) -> T:
        if e.args[0].func.__name__ in ("floor", "ceiling", "sign"):
            return self.constant(0)
        raise GraphError(f"SymPy does not know the derivative {e}")

    def _Subs(self, e: Any) -> T:
        return self.visit(e.args[0])  # of a derivative that is 0 everywhere
