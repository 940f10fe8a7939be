"""Rewrite rules as rows of text, and the driver that applies them.

A row reads ``pattern -> replacement`` or ``pattern -> replacement if guard``, all three in Python's
expression syntax::

    x * 1                                    -> x
    log(1 + exp(x))                          ~> softplus(x)
    transpose(transpose(x, perm=p), perm=q)  -> transpose(x, perm=compose(p, q))
    x * (c := full(value=v))                 -> x / inverse(c)   if power_of_two(v)

In a pattern, a name stands for any value (the same name for the same value), a number for a `full` of
that number (``0`` is not ``-0.0``), a call or an operator for an op, ``attr=`` for an attribute (a name
or a literal), and ``name := pattern`` also names an inner value. Commutative ops match both orders.
The guard is plain Python over the names and the helper functions given to `rules`; the replacement
builds values with the IR's operators, ops and those helpers. A number as replacement is a `full`.

The arrow states what a rule promises: ``->`` equal bit for bit (NaN, infinities and signed zeros
included; only the bits of a NaN may differ), ``~>`` equal in exact arithmetic, and at least as accurate.
"""

from __future__ import annotations

import ast
import builtins
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import CodeType
from typing import Any, NoReturn

from ..errors import GraphError, VerifyError
from ..ir.broadcasting import full, same_type
from ..ir.graph import Graph, Value, make, source_location
from ..ir.op import Op
from ..ir.ops import OPS
from ..ir.types import TensorType

__all__ = [
    "FiringLimit", "RewriteStats", "Row", "Rule", "RuleSet", "counting", "limited", "rewrite", "rewrite_values",
    "rules",
]

Bindings = dict[str, Any]
Apply = Callable[[Value], Value | None]

CHAIN_LIMIT = 500
"""How many rules may fire one on the result of the other before that counts as divergence.

Each value of the graph that was given adds one, because a rule may move an op along a whole chain.
"""

_BINARY: dict[type[ast.AST], str] = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div", ast.Pow: "pow", ast.FloorDiv: "floordiv",
    ast.Mod: "mod", ast.Eq: "eq", ast.NotEq: "ne", ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge",
}
_CONSTANTS: Bindings = {"inf": math.inf, "nan": math.nan}


# --- patterns ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AnyValue:
    """A name: any value, the same one at each occurrence."""

    name: str

    def match(self, value: Value, found: Bindings) -> bool:
        return found.setdefault(self.name, value) is value


@dataclass(frozen=True)
class Number:
    """A literal: a `full` of that number, of the same kind (bool or not) and sign of zero."""

    number: bool | int | float

    def match(self, value: Value, found: Bindings) -> bool:
        if value.op.name != "full":
            return False
        own, number = value.attrs["value"], self.number
        if own != number or isinstance(own, bool) != isinstance(number, bool):
            return False
        if isinstance(number, float) and not isinstance(own, float):
            return False
        return number != 0 or not isinstance(own, float) or math.copysign(1, own) == math.copysign(1, number)


@dataclass(frozen=True)
class Named:
    """``name := pattern``."""

    name: str
    inner: Pattern

    def match(self, value: Value, found: Bindings) -> bool:
        return found.setdefault(self.name, value) is value and self.inner.match(value, found)


@dataclass(frozen=True)
class Applied:
    """An op on operands that match; attributes are names to bind (`AnyValue`) or literals."""

    op: str
    operands: tuple[Pattern, ...]
    attrs: tuple[tuple[str, Any], ...] = ()

    def match(self, value: Value, found: Bindings) -> bool:
        if value.op.name != self.op or len(value.operands) != len(self.operands):
            return False
        for name, wanted in self.attrs:
            own = value.attrs[name]
            if (found.setdefault(wanted.name, own) if isinstance(wanted, AnyValue) else wanted) != own:
                return False
        for pattern, operand in zip(self.operands, value.operands):
            if not pattern.match(operand, found):
                return False
        return True


Pattern = AnyValue | Number | Named | Applied


Screen = tuple[str | None, ...]


def _op_of(pattern: Pattern) -> str | None:
    """The op that a value must have to match; None for any."""
    if isinstance(pattern, Named):
        return _op_of(pattern.inner)
    return pattern.op if isinstance(pattern, Applied) else "full" if isinstance(pattern, Number) else None


def _pass(operands: Sequence[Value], ops: Screen) -> bool:
    for operand, op in zip(operands, ops):
        if op is not None and op != operand.op.name:
            return False
    return True


def _orders(pattern: Pattern) -> list[Pattern]:
    """The pattern with the operands of its commutative ops in each order."""
    if isinstance(pattern, Named):
        return [Named(pattern.name, p) for p in _orders(pattern.inner)]
    if not isinstance(pattern, Applied):
        return [pattern]
    found: dict[Pattern, None] = {}
    for operands in itertools.product(*map(_orders, pattern.operands)):
        found[Applied(pattern.op, operands, pattern.attrs)] = None
        if OPS[pattern.op].commutative:
            found[Applied(pattern.op, operands[::-1], pattern.attrs)] = None
    return list(found)


# --- rows ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Row:
    """One line of a rule table, parsed.

    Attributes
    ----------
    text : the row, in one spacing; its name.
    exact : whether the arrow is ``->``.
    patterns : what it matches, in each order of commutative operands.
    screens : for each pattern the ops of its operands (None for any): comparing them first refuses
        nearly all values cheaply.
    values, attributes : the names that the pattern gives to operands, and to attributes.
    """

    text: str
    exact: bool
    patterns: tuple[Applied, ...]
    screens: tuple[Screen, ...]
    values: tuple[str, ...]
    attributes: tuple[str, ...]
    left: CodeType
    right: CodeType
    guard: CodeType | None
    builders: Bindings
    helpers: Bindings

    def __call__(self, value: Value) -> Value | None:
        """The replacement of a value; None if the row does not apply to it."""
        for ops, pattern in zip(self.screens, self.patterns):
            found: Bindings = {}
            if _pass(value.operands, ops) and pattern.match(value, found) and self.holds(found):
                return self.build(self.right, found, value.tensor)
        return None

    def holds(self, found: Bindings) -> bool:
        """Whether the guard accepts these bindings."""
        return self.guard is None or bool(eval(self.guard, {**self.helpers, **found}))

    def build(self, side: CodeType, found: Bindings, like: TensorType | None = None) -> Value:
        """One side (`left` or `right`) on given values; `like` is the type of a bare number."""
        result = eval(side, self.builders, dict(found))
        if isinstance(result, Value):
            return result
        assert like is not None, "a bare number needs a type"
        return full(like.shape, result, like.dtype)


_ROW = re.compile(r"(?P<left>.*?)\s*(?P<arrow>[-~]>)\s*(?P<right>.*?)(?:\s+if\s+(?P<guard>.*))?$")


class _Comparisons(ast.NodeTransformer):
    """Comparisons of a built side are ops, not Python's."""

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        name = ast.Name(_BINARY[type(node.ops[0])], ast.Load())
        return ast.copy_location(ast.Call(name, [node.left, node.comparators[0]], []), node)


class _RowParser:
    """Parses one row; refuses what the language does not have, with the row's text."""

    def __init__(self, text: str, helpers: Bindings) -> None:
        self.text, self.helpers = " ".join(text.split()), helpers
        self.values: dict[str, None] = {}
        self.attributes: dict[str, None] = {}
        self.parts: set[str] = set()  # names of inner values

    def parse(self) -> Row:
        parts = _ROW.match(self.text)
        if not parts:
            self.fail("write 'pattern -> replacement' or 'pattern -> replacement if guard'")
        left = self.expression(parts["left"])
        pattern = self.pattern(left)
        if not isinstance(pattern, Applied):
            self.fail("the pattern must be an op applied to operands")
        builders = {"__builtins__": {}, **_CONSTANTS, **OPS, **self.helpers}
        bound = {*self.values, *self.attributes, *self.parts}
        right = self.expression(parts["right"], {*builders, *bound})
        guard = None
        if parts["guard"]:
            condition = self.expression(parts["guard"], {*dir(builtins), *self.helpers, *bound})
            guard = compile(ast.Expression(condition), self.text, "eval")
        patterns = tuple(p for p in _orders(pattern) if isinstance(p, Applied))
        screens = tuple(tuple(map(_op_of, p.operands)) for p in patterns)
        return Row(
            self.text, parts["arrow"] == "->", patterns, screens, tuple(self.values), tuple(self.attributes),
            self.side(left), self.side(right), guard, builders, dict(self.helpers),
        )

    def fail(self, problem: str) -> NoReturn:
        raise GraphError(f"rewrite rule {self.text!r}: {problem}")

    def expression(self, text: str, known: Collection[str] | None = None) -> ast.expr:
        try:
            node = ast.parse(text, mode="eval").body
        except SyntaxError as error:
            self.fail(f"{text!r} is not an expression: {error.msg}")
        for name in ast.walk(node) if known is not None else ():
            if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Load) and name.id not in (known or ()):
                self.fail(f"{name.id!r} is neither bound by the pattern, nor an op, nor a helper")
        return node

    def side(self, node: ast.expr) -> CodeType:
        tree = ast.fix_missing_locations(ast.Expression(_Comparisons().visit(node)))
        return compile(tree, self.text, "eval")

    def pattern(self, node: ast.expr) -> Pattern:
        number = self.number(node)
        if number is not None:
            return Number(number)
        if isinstance(node, ast.Name):
            self.values[node.id] = None
            return AnyValue(node.id)
        if isinstance(node, ast.NamedExpr):
            self.parts.add(node.target.id)
            return Named(node.target.id, self.pattern(node.value))
        if isinstance(node, ast.BinOp):
            return self.applied(_BINARY[type(node.op)], [node.left, node.right])
        if isinstance(node, ast.Compare):
            return self.applied(_BINARY[type(node.ops[0])], [node.left, *node.comparators])
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return self.applied("neg", [node.operand])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            return self.applied(node.func.id, node.args, node.keywords)
        self.fail(f"{ast.unparse(node)!r} is not a pattern")

    def applied(self, op: str, operands: list[ast.expr], attrs: Sequence[ast.keyword] = ()) -> Applied:
        if op not in OPS:
            self.fail(f"there is no op {op!r}")
        unknown = [k.arg for k in attrs if k.arg not in OPS[op].attrs]
        if unknown:
            self.fail(f"{op} has no attribute {unknown[0]!r}")
        named = tuple((k.arg or "", self.attr(k.value)) for k in attrs)
        return Applied(op, tuple(map(self.pattern, operands)), named)

    def attr(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Name):
            self.attributes[node.id] = None
            return AnyValue(node.id)
        return ast.literal_eval(node)

    def number(self, node: ast.expr) -> bool | int | float | None:
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            inner = self.number(node.operand)
            return None if inner is None else -inner
        if isinstance(node, ast.Name) and node.id in _CONSTANTS:
            return float(_CONSTANTS[node.id])
        if isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
            return node.value
        return None


# --- rules and rule sets -------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Rule:
    """A named rewrite of values of some root ops: those named, or those that a predicate accepts."""

    name: str
    roots: tuple[str, ...] | Callable[[Op], bool]
    apply: Apply
    exact: bool = True

    def applies_to(self, op: Op) -> bool:
        """Whether the op is one of the roots."""
        return self.roots(op) if callable(self.roots) else op.name in self.roots

    @property
    def row(self) -> Row | None:
        """The row it was written as, if it is not a function."""
        return self.apply if isinstance(self.apply, Row) else None


class RuleSet:
    """Rules in order, found by root op; sets compose with ``+``."""

    def __init__(self, name: str, items: Iterable[Rule] = ()) -> None:
        self.name = name
        self.items = list(items)
        self._by_root: dict[Op, tuple[Rule, ...]] = {}

    def __iter__(self) -> Iterator[Rule]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __add__(self, other: RuleSet) -> RuleSet:
        return RuleSet(f"{self.name}+{other.name}", [*self.items, *other.items])

    def __repr__(self) -> str:
        return f"<rules {self.name}: {len(self)}>"

    def rooted(self, op: Op) -> tuple[Rule, ...]:
        """The rules that may apply to a value of an op, in order."""
        found = self._by_root.get(op)
        if found is None:
            found = tuple(r for r in self.items if r.applies_to(op))
            self._by_root[op] = found
        return found

    def rule(
        self, roots: str | Sequence[str] | Callable[[Op], bool], name: str, exact: bool = True
    ) -> Callable[[Apply], Apply]:
        """Add a decorated function ``value -> replacement or None`` for some root ops."""
        names = (roots,) if isinstance(roots, str) else roots if callable(roots) else tuple(roots)

        def add(function: Apply) -> Apply:
            self.items.append(Rule(name, names, function, exact))
            self._by_root.clear()
            return function

        return add


def rules(name: str, table: str, helpers: Iterable[Callable[..., Any]] = ()) -> RuleSet:
    """The rule set that a table of rows describes (see the module's docstring).

    Blank lines and comments (``#``) are skipped; a line that starts with an arrow or with ``if``
    continues the row above it. `helpers` are the functions that guards and replacements may call.

    Raises
    ------
    GraphError
        If a row is not in the language, or names an unknown op, attribute or helper.
    """
    named = {f.__name__: f for f in helpers}
    lines: list[str] = []
    for line in (raw.split("#")[0].strip() for raw in table.splitlines()):
        if line.startswith(("->", "~>", "if ")) and lines:
            lines[-1] += " " + line
        elif line:
            lines.append(line)
    rows = [_RowParser(line, named).parse() for line in lines]
    return RuleSet(name, [Rule(row.text, (row.patterns[0].op,), row, row.exact) for row in rows])


# --- statistics ----------------------------------------------------------------------------------


@dataclass
class RewriteStats:
    """How often each rule fired."""

    fired: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        return sum(self.fired.values())

    def __str__(self) -> str:
        return "\n".join(f"{count:6d}  {name}" for name, count in self.fired.most_common())


_counting: ContextVar[RewriteStats | None] = ContextVar("graphwright_rewrite_stats", default=None)


@contextmanager
def counting(stats: RewriteStats) -> Iterator[RewriteStats]:
    """Count into `stats` the rules that fire in this context."""
    token = _counting.set(stats)
    try:
        yield stats
    finally:
        _counting.reset(token)


@dataclass
class FiringLimit:
    """Lets the first `most` firings of rules happen, and no more: so a wrong one is found by bisection.

    Attributes
    ----------
    most : how many; None for all.
    fired : how many happened.
    last : the last of them: the rule's name, the value it replaced, and the replacement.
    """

    most: int | None = None
    fired: int = 0
    last: tuple[str, Value, Value] | None = None

    def allows(self, rule: str, old: Value, new: Value) -> bool:
        """Whether one more may happen; if so, it is noted."""
        if self.most is not None and self.fired >= self.most:
            return False
        self.fired += 1
        self.last = rule, old, new
        return True


_limit: ContextVar[FiringLimit | None] = ContextVar("graphwright_firing_limit", default=None)


@contextmanager
def limited(most: int | None = None) -> Iterator[FiringLimit]:
    """Let at most so many rules fire in this context, in all."""
    limit = FiringLimit(most)
    token = _limit.set(limit)
    try:
        yield limit
    finally:
        _limit.reset(token)


# --- the driver ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Step:
    """A value was replaced by `next`, whose own final form is awaited."""

    rule: str
    next: Value


class _Driver:
    """Rewrites values bottom-up until no rule fires; each value once."""

    def __init__(self, ruleset: RuleSet, keep: Iterable[Value], stats: RewriteStats | None) -> None:
        self.ruleset, self.stats = ruleset, stats if stats is not None else _counting.get()
        self.limit = _limit.get()
        self.final: dict[Value, Value] = {v: v for v in keep}
        self.active: dict[Value, _Step | None] = {}  # on the stack, waiting for operands or for a step
        self.regions: dict[int, Graph] = {}
        self.chain_limit = CHAIN_LIMIT

    def run(self, root: Value) -> Value:
        """The final form of a value. Iterative, so that deep graphs need no deep Python stack."""
        final, active = self.final, self.active
        stack: list[tuple[Value, int]] = [(root, 0)]
        while stack:
            value, chain = stack[-1]
            if chain == 0:
                self.chain_limit = CHAIN_LIMIT + len(final)
            if value in final:
                stack.pop()
                continue
            step = active.get(value)
            if step is None:
                waiting = [o for o in value.operands if o not in final]
                if waiting:
                    self._wait(stack, value, None, reversed(waiting), chain)
                    continue
                step = self._step(value)
            if step is None:
                final[value] = value
            elif step.next not in final:
                self._wait(stack, value, step, (step.next,), chain + bool(step.rule))
                continue
            else:
                final[value] = final[step.next]
            active.pop(value, None)
            stack.pop()
        return final[root]

    def _wait(
        self, stack: list[tuple[Value, int]], value: Value, step: _Step | None, on: Iterable[Value], chain: int
    ) -> None:
        self.active[value] = step
        for v in on:
            if v in self.active or chain > self.chain_limit:
                self._diverges(stack, v)
            stack.append((v, chain))

    def _step(self, value: Value) -> _Step | None:
        """What becomes of a value whose operands are final; None if it stays."""
        final = self.final
        if value.regions or any(final[o] is not o for o in value.operands):
            rebuilt = self._rebuilt(value)
            if rebuilt is not value:
                return _Step("", rebuilt)
        found = self.ruleset.rooted(value.op)
        if found:
            with source_location(value.locs):
                for rule in found:
                    new = rule.apply(value)
                    if new is not None and new is not value:
                        if self.limit is not None and not self.limit.allows(rule.name, value, new):
                            return None
                        self._check(rule, value, new)
                        return _Step(rule.name, new)
        return None

    def _rebuilt(self, value: Value) -> Value:
        operands = [self.final[o] for o in value.operands]
        regions = tuple(map(self._region, value.regions))
        if any(a is not b for a, b in zip(regions, value.regions)):
            return make(value.op, operands, value.attrs, regions, value.locs)
        return value.with_operands(operands)

    def _region(self, region: Graph) -> Graph:
        if id(region) not in self.regions:
            self.regions[id(region)] = rewrite(region, self.ruleset, self.stats)
        return self.regions[id(region)]

    def _check(self, rule: Rule, old: Value, new: Value) -> None:
        if self.stats is not None:
            self.stats.fired[rule.name] += 1
        if old.type == new.type:
            return
        tensors = isinstance(old.type, TensorType) and isinstance(new.type, TensorType)
        if not tensors or not same_type(old.tensor, new.tensor):
            raise VerifyError(f"rewrite rule {rule.name!r} turned {old.op.name} of {old.type} into {new.type}")

    def _diverges(self, stack: Sequence[tuple[Value, int]], value: Value) -> None:
        values = [v for v, _ in stack]
        start = values.index(value) if value in self.active else max(0, len(values) - 50)
        steps = [self.active.get(v) for v in values[start:]]
        names = list(dict.fromkeys(s.rule for s in steps if s is not None and s.rule))
        raise VerifyError(
            f"rewriting with {self.ruleset.name} does not converge at {value!r}; these rules undo or feed "
            "each other:\n" + "\n".join(f"  {name}" for name in names)
        )


def rewrite_values(
    values: Sequence[Value], ruleset: RuleSet, keep: Iterable[Value] = (), stats: RewriteStats | None = None
) -> list[Value]:
    """The values with rules applied to them and to all they depend on, until none fires.

    Values in `keep` are opaque: neither they nor what they are made of are touched. New values take
    the source line of the value they replace.

    Raises
    ------
    VerifyError
        If the rules do not converge (the message names those that fire in the cycle), or if one
        changes a type.
    """
    driver = _Driver(ruleset, keep, stats)
    return [driver.run(v) for v in values]


def rewrite(graph: Graph, ruleset: RuleSet, stats: RewriteStats | None = None) -> Graph:
    """The graph with rules applied until none fires; the same object if none does (see `rewrite_values`)."""
    driver = _Driver(ruleset, (), stats)
    new = graph.with_roots([driver.run(v) for v in graph.roots])
    if new is graph:
        return graph
    names = {driver.final.get(v, v): name for v, name in graph.names.items()}
    return Graph(new.name, new.inputs, new.states, new.outputs, new.updates, names)
