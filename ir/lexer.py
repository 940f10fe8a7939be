"""The common ground of the IRs' texts: tokens, names, numbers, dims, types, and how errors point at them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from ..errors import GraphwrightError, ParseError
from .dims import Dim, Poly, dim_max, dim_min, floordiv, isqrt, mod, symbol
from .dtypes import DTYPES, DType
from .graph import Loc
from .types import TensorType, TupleType, Type

__all__ = ["RESERVED", "SHORT_DTYPES", "Reader", "Token", "is_identifier", "quote_name"]

MAX_DEPTH = 64  # of nested parentheses, regions and blocks
MAX_TERMS = 256  # of a polynomial
MAX_POWER = 64
MAX_DIGITS = 40

SHORT_DTYPES = {d.short: d for d in DTYPES.values()}

RESERVED = frozenset(
    ["true", "false", "inf", "nan", "none", "if", "else", "and", "or", "not", "load", "reduce", *SHORT_DTYPES]
)
"""Words that no symbol, loop variable or temp may be named."""

_TOKEN = re.compile(
    r"""
      (?P<space>[ \t\r]+)
    | (?P<newline>\n)
    | (?P<float>0x[0-9a-fA-F]+(?:\.[0-9a-fA-F]*)?p[+-]?[0-9]+
               |[0-9]+\.[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+)
    | (?P<int>[0-9]+)
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*)
    | (?P<value>[%@](?:[A-Za-z0-9_][A-Za-z0-9_.]*|"[^"\\\n]*(?:\\.[^"\\\n]*)*"))
    | (?P<share>\$[0-9]+)
    | (?P<string>"[^"\\\n]*(?:\\.[^"\\\n]*)*")
    | (?P<punct>->|\.\.|\*\*|//|==|!=|<=|>=|\+=|\*=|[-+*/%(){}\[\]<>=,:])
    """,
    re.VERBOSE,
)
_REFUSALS = (
    GraphwrightError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*\Z", re.ASCII)
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.]*\Z", re.ASCII)


def quote_name(sigil: str, name: str) -> str:
    """``%name`` or ``@name``, quoted where the name is not an identifier."""
    return sigil + (name if _PLAIN_NAME.match(name) else json.dumps(name))


def is_identifier(name: str) -> bool:
    """Whether a symbol, loop variable or temp may have this name."""
    return _IDENTIFIER.match(name) is not None and name not in RESERVED


@dataclass(frozen=True)
class Token:
    """A token; `kind` is a group of the tokenizer's pattern, or ``"end"``."""

    kind: str
    text: str
    line: int
    column: int

    def __str__(self) -> str:
        return "the end of the text" if self.kind == "end" else repr(self.text)


class Reader:
    """A cursor over the tokens of a text, with the parts of the grammar that all IRs share.

    A line that begins with ``//`` is a comment (elsewhere ``//`` divides).

    Raises
    ------
    ParseError
        From every method, if the text is not what the method reads; the message has the line, the
        column, the line's text, and what was expected.
    """

    def __init__(self, text: str, form: str) -> None:
        self.lines = text.split("\n")
        self.tokens = self._tokenize(self._version(form))
        self.position = 0
        self.depth = 0

    def _version(self, form: str) -> str:
        """The text after its first line ``graphwright.FORM v1``, line numbers kept."""
        wanted = f"graphwright.{form} v1"
        for k, line in enumerate(self.lines):
            if line.strip() == wanted:
                return "\n" * (k + 1) + "\n".join(self.lines[k + 1 :])
            if line.strip() and not line.strip().startswith("//"):
                break
        self.error(f"expected the version line {wanted!r}", Token("char", "", k + 1, 1))

    def _tokenize(self, text: str) -> list[Token]:
        tokens: list[Token] = []
        line, start, at = 1, 0, 0
        while at < len(text):
            first_on_line = not tokens or tokens[-1].line < line
            if first_on_line and text.startswith("//", at):
                end = text.find("\n", at)
                at = len(text) if end < 0 else end
                continue
            match = _TOKEN.match(text, at)
            if match is None:
                self.error(
                    f"unexpected character {text[at]!r}", Token("char", text[at], line, at - start + 1)
                )
            kind = str(match.lastgroup)
            if kind == "newline":
                line, start = line + 1, match.end()
            elif kind != "space":
                tokens.append(Token(kind, match.group(), line, at - start + 1))
            at = match.end()
        tokens.append(Token("end", "", line, at - start + 1))
        return tokens

    # --- errors and movement ---------------------------------------------------------------------

    def error(self, problem: str, token: Token | None = None) -> NoReturn:
        token = token or self.token
        source = self.lines[token.line - 1]
        first = max(0, token.column - 100)
        shown = source[first : first + 160].replace("\t", " ")
        caret = " " * (token.column - 1 - first) + "^"
        raise ParseError(f"line {token.line}, column {token.column}: {problem}\n  {shown}\n  {caret}")

    def fail(self, expected: str) -> NoReturn:
        self.error(f"expected {expected}, found {self.token}")

    def attempt(self, action: Callable[[], Any], token: Token) -> Any:
        """Build something from what was read; a refusal points at the token."""
        try:
            return action()
        except _REFUSALS as error:
            self.error(str(error) or type(error).__name__, token)

    @property
    def token(self) -> Token:
        return self.tokens[self.position]

    @property
    def following(self) -> Token:
        return self.tokens[min(self.position + 1, len(self.tokens) - 1)]

    def next(self) -> Token:
        token = self.token
        if token.kind != "end":
            self.position += 1
        return token

    def at(self, text: str) -> bool:
        return self.token.text == text and self.token.kind in ("punct", "name")

    def accept(self, text: str) -> bool:
        found = self.at(text)
        self.position += found
        return found

    def expect(self, text: str) -> Token:
        if not self.at(text):
            self.fail(repr(text))
        return self.next()

    def take(self, kind: str, expected: str) -> Token:
        if self.token.kind != kind:
            self.fail(expected)
        return self.next()

    def enter(self) -> None:
        """Count one level of nesting; `leave` ends it."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.error(f"nested deeper than {MAX_DEPTH} levels")

    def leave(self) -> None:
        self.depth -= 1

    def sequence(self, item: Callable[[], Any], close: str) -> list[Any]:
        """Items separated by commas, then the closing token."""
        items: list[Any] = []
        if not self.accept(close):
            items.append(item())
            while self.accept(","):
                items.append(item())
            if not self.accept(close):
                self.fail(f"',' or {close!r}")
        return items

    # --- names and literals ----------------------------------------------------------------------

    def name(self, what: str) -> str:
        """An identifier that is not a reserved word."""
        if self.token.kind != "name":
            self.fail(what)
        if self.token.text in RESERVED:
            self.error(f"expected {what}; {self.token.text!r} is a reserved word")
        return self.next().text

    def sigil(self, sigil: str, what: str) -> Token:
        """``%name`` or ``@name``, as it stands in the text."""
        if self.token.kind != "value" or self.token.text[0] != sigil:
            self.fail(f"{what} ({sigil}name)")
        return self.next()

    def plain(self, token: Token) -> str:
        """The name that a ``%`` or ``@`` token stands for."""
        text = token.text[1:]
        return str(self.attempt(lambda: json.loads(text), token)) if text[0] == '"' else text

    def string(self) -> str:
        token = self.take("string", "a string")
        return str(self.attempt(lambda: json.loads(token.text), token))

    def integer(self) -> int:
        token = self.take("int", "an integer")
        if len(token.text) > MAX_DIGITS:
            self.error("the integer is too large", token)
        return int(token.text)

    @property
    def at_literal(self) -> bool:
        """Whether a number, ``true``, ``false``, ``inf`` or ``nan`` comes next, signed or not."""
        token = self.following if self.at("-") else self.token
        words = ("inf", "nan") if self.at("-") else ("inf", "nan", "true", "false")
        return token.kind in ("int", "float") or token.kind == "name" and token.text in words

    def literal(self) -> bool | int | float:
        """A Python bool, int or float."""
        sign = -1 if self.accept("-") else 1
        token = self.token
        if token.kind == "int":
            return sign * self.integer()
        if token.kind == "name" and token.text in ("true", "false"):
            return self.next().text == "true"
        if token.kind == "name" and token.text in ("inf", "nan"):
            return sign * float(self.next().text)
        text = self.take("float", "a number").text
        value = float(self.attempt(lambda: float.fromhex(text) if text[:2] == "0x" else float(text), token))
        if value in (float("inf"), float("-inf")):
            self.error("the number is too large for a float", token)
        return sign * value

    # --- dims and types --------------------------------------------------------------------------

    def dim(self, first: Dim | None = None) -> Dim:
        """An index polynomial: ``+ - * // % ** max min`` over integers and names."""
        left = self._dim_term() if first is None else self._dim_factors(self.dim_power(first))
        while self.at("+") or self.at("-"):
            token = self.next()
            left = self.index_op(token, left, self._dim_term())
        return left

    def _dim_term(self) -> Dim:
        return self._dim_factors(self._dim_unary())

    def _dim_factors(self, left: Dim) -> Dim:
        while self.at("*") or self.at("//") or self.at("%"):
            token = self.next()
            left = self.index_op(token, left, self._dim_unary())
        return left

    def _dim_unary(self) -> Dim:
        minus = 0
        while self.accept("-"):
            minus += 1
        value = self._dim_primary()
        return -value if minus % 2 else value

    def _dim_primary(self) -> Dim:
        if self.token.kind == "int":
            return self.integer()
        self.enter()
        value: Dim
        if self.accept("("):
            value = self.dim()
            self.expect(")")
        elif self.token.text in ("max", "min", "isqrt") and self.following.text == "(":
            token = self.next()
            self.expect("(")
            value = self.index_function(token, self.sequence(self.dim, ")"))
        else:
            value = symbol(self.name("a dimension"))
        self.leave()
        return self.dim_power(value)

    def dim_power(self, base: Dim) -> Dim:
        """``base`` or ``base**3``."""
        token = self.token
        if not self.accept("**"):
            return base
        power = self.integer()
        if not isinstance(base, Poly) or len(base.terms) > 1 or not 1 < power <= MAX_POWER:
            self.error(f"a power must be of one symbol or term, and 2 to {MAX_POWER}", token)
        result: Dim = base
        for _ in range(power - 1):
            result = result * base
        return result

    def index_op(self, token: Token, a: Dim, b: Dim) -> Dim:
        """Index arithmetic, kept within bounds that no real program reaches."""
        sizes = [len(x.terms) if isinstance(x, Poly) else 1 for x in (a, b)]
        if (sizes[0] * sizes[1] if token.text == "*" else sum(sizes)) > MAX_TERMS:
            self.error(f"the expression has more than {MAX_TERMS} terms", token)
        operation: Callable[[], Dim] = {
            "+": lambda: a + b,
            "-": lambda: a - b,
            "*": lambda: a * b,
            "//": lambda: floordiv(a, b),
            "%": lambda: mod(a, b),
        }[token.text]
        result: Dim = self.attempt(operation, token)
        return result

    def index_function(self, token: Token, args: list[Dim]) -> Dim:
        if not args or (token.text == "isqrt" and len(args) > 1):
            self.error(f"{token.text} needs {'one' if token.text == 'isqrt' else 'an'} argument", token)
        functions: dict[str, Callable[..., Dim]] = {"max": dim_max, "min": dim_min, "isqrt": isqrt}
        result: Dim = self.attempt(lambda: functions[token.text](*args), token)
        return result

    def dtype(self) -> DType:
        if self.token.kind != "name" or self.token.text not in SHORT_DTYPES:
            self.fail(f"a dtype ({', '.join(SHORT_DTYPES)})")
        return SHORT_DTYPES[self.next().text]

    def tensor_type(self) -> TensorType:
        dtype = self.dtype()
        self.expect("[")
        return TensorType(dtype, tuple(self.sequence(self.dim, "]")))

    def type(self) -> Type:
        if self.accept("("):
            return TupleType(tuple(self.sequence(self.tensor_type, ")")))
        return self.tensor_type()

    def loc(self) -> Loc | None:
        """``loc("file":line role op)``, if it stands here."""
        if not (self.at("loc") and self.following.text == "("):
            return None
        self.next()
        self.expect("(")
        file = self.string()
        self.expect(":")
        line = self.integer()
        role, of = (self.next().text if self.token.kind == "name" else "" for _ in range(2))
        self.expect(")")
        return Loc(file, line, role, of)
