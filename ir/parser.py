"""Reads the text of graphs, kernels and programs: the inverse of `printer`.

Texts may come from anywhere: whatever is wrong with one raises `ParseError`, and nothing is executed.
"""

from __future__ import annotations

import base64
import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from ..errors import ParseError
from .broadcasting import same_type
from .dims import Dim
from .dtypes import DType, bool_, holds, rounded
from .graph import Graph, Literal, Loc, Value, make
from .lexer import SHORT_DTYPES, Reader, Token
from .loops import Buffer, Kernel
from .op import REQUIRED
from .ops import OPS
from .parse_loops import KernelReader
from .printer import implied_attrs
from .program import Branch, Call, Loop, Program, Slot, Step, While
from .types import TensorType, Type

__all__ = ["parse_graph", "parse_kernel", "parse_program"]

T = TypeVar("T")
Operand = Value | bool | int | float
Linked = Callable[[Mapping[str, Kernel]], T]
"""Makes something once the kernels of a program's text are known."""


def parse_graph(text: str) -> Graph:
    """The graph that `print_graph` wrote.

    Raises
    ------
    ParseError
        With line, column, the line's text, and what was expected there.
    """
    return _parse(lambda: _whole(GraphReader(text, "graph"), GraphReader.graph))


def parse_kernel(text: str) -> Kernel:
    """The kernel that `print_kernel` wrote; raises `ParseError` as `parse_graph` does."""
    return _parse(lambda: _whole(KernelReader(text, "loops"), KernelReader.kernel))


def parse_program(text: str) -> Program:
    """The program that `print_program` wrote; raises `ParseError` as `parse_graph` does."""
    return _parse(lambda: _whole(ProgramReader(text, "program"), ProgramReader.program))


def _parse(read: Callable[[], T]) -> T:
    try:
        return read()
    except RecursionError:
        raise ParseError("the text is nested too deeply for the stack that is left") from None


R = TypeVar("R", bound=Reader)


def _whole(reader: R, read: Callable[[R], T]) -> T:
    result = read(reader)
    if reader.token.kind != "end":
        reader.fail("the end of the text")
    return result


# --- arrays --------------------------------------------------------------------------------------


def _dense(reader: Reader) -> Callable[[TensorType], np.ndarray[Any, Any]]:
    """Read ``dense<...>``; the array is made once its type, which follows, is known."""
    token = reader.expect("dense")
    reader.expect("<")
    data: str | list[Any] = reader.string() if reader.token.kind == "string" else _elements(reader)
    reader.expect(">")
    return lambda type_: reader.attempt(lambda: _array(data, type_), token)


def _elements(reader: Reader) -> list[Any]:
    """The numbers of nested lists, in row-major order."""
    if not reader.accept("["):
        return [reader.literal()]
    reader.enter()
    rows = reader.sequence(lambda: _elements(reader), "]")
    reader.leave()
    return [x for row in rows for x in row]


def _array(data: str | list[Any], type_: TensorType) -> np.ndarray[Any, Any]:
    if not all(isinstance(d, int) for d in type_.shape):
        raise ParseError(f"an array needs a static shape, not {type_}")
    dtype, size = type_.dtype, math.prod(int(d) for d in type_.shape if isinstance(d, int))
    if isinstance(data, str):
        flat = np.frombuffer(base64.b64decode(data, validate=True), dtype.numpy.newbyteorder("<"))
        if dtype.is_bool and flat.view(np.uint8).max(initial=0) > 1:
            raise ParseError("a bool is 0 or 1")
    else:
        wanted = bool if dtype.is_bool else (int, float) if dtype.is_float else int
        if not all(isinstance(x, wanted) and isinstance(x, bool) == dtype.is_bool for x in data):
            raise ParseError(f"the elements are not all {dtype!r}")
        with np.errstate(over="raise"):
            flat = np.array(data, dtype.numpy)
    if flat.size != size:
        raise ParseError(f"{flat.size} elements given, {size} needed for {type_}")
    return flat.astype(dtype.numpy).reshape(type_.shape)


# --- graphs --------------------------------------------------------------------------------------


class GraphReader(Reader):
    """Recursive descent over graphs."""

    def graph(self) -> Graph:
        """``func @name(inputs) state(states) -> (types) { ... }``."""
        self.expect("func")
        return self._function(self.plain(self.sigil("@", "the function's name")))

    def _function(self, name: str) -> Graph:
        self.enter()
        scope: dict[str, Value] = {}
        self.expect("(")
        inputs = self.sequence(lambda: self._parameter("input", scope), ")")
        states: list[Value] = []
        if self.accept("state"):
            self.expect("(")
            states = self.sequence(lambda: self._parameter("state", scope), ")")
        self.expect("->")
        self.expect("(")
        results = self.sequence(self.type, ")")
        self.expect("{")
        updates: dict[Value, Value] = {}
        names: dict[Value, str] = {}
        while not self.at("return"):
            if self.accept("update"):
                self._update(scope, states, updates)
            else:
                self._statement(scope, names)
        outputs = self._return(scope, results)
        self.leave()
        return Graph(name, tuple(inputs), tuple(states), outputs, tuple(updates.items()), names)

    def _parameter(self, op: str, scope: dict[str, Value]) -> Value:
        token = self.sigil("%", "a name")
        self.expect(":")
        type_ = self.tensor_type()
        if token.text in scope:
            self.error(f"{token.text} exists already", token)
        attrs = {"name": self.plain(token), "shape": type_.shape, "dtype": type_.dtype}
        value: Value = self.attempt(lambda: make(OPS[op], (), attrs), token)
        scope[token.text] = value
        return value

    def _value(self, scope: Mapping[str, Value]) -> Value:
        token = self.sigil("%", "a value")
        if token.text not in scope:
            close = difflib.get_close_matches(token.text, scope, 1)
            advice = "".join(f"; did you mean {c}?" for c in close)
            self.error(f"{token.text} is not defined above{advice}", token)
        return scope[token.text]

    def _update(self, scope: Mapping[str, Value], states: list[Value], updates: dict[Value, Value]) -> None:
        token = self.token
        state = self._value(scope)
        if state not in states or state in updates:
            self.error(f"{token.text} is not a state, or is updated twice", token)
        self.expect("=")
        updates[state] = self._value(scope)

    def _return(self, scope: Mapping[str, Value], results: list[Type]) -> tuple[Value, ...]:
        token = self.expect("return")
        outputs: list[Value] = self.sequence(lambda: self._value(scope), "}")
        if len(outputs) != len(results):
            self.error(f"{len(results)} values must be returned, found {len(outputs)}", token)
        for k, (value, type_) in enumerate(zip(outputs, results)):
            if not _same(value.type, type_):
                self.error(f"result {k} is {value.type}, the signature says {type_}", token)
        return tuple(outputs)

    # --- one value -------------------------------------------------------------------------------

    def _statement(self, scope: dict[str, Value], names: dict[Value, str]) -> None:
        target = self.sigil("%", "a value, 'update' or 'return'")
        if target.text in scope:
            self.error(f"{target.text} is defined already", target)
        self.expect("=")
        token = self.take("name", "an op")
        if token.text not in OPS or token.text in ("input", "state"):
            close = difflib.get_close_matches(token.text, OPS, 1)
            advice = "".join(f"; did you mean {c}?" for c in close)
            self.error(f"unknown op {token.text!r}{advice}", token)
        operands = self._operands(scope)
        array = _dense(self) if token.text == "constant" and self.at("dense") else None
        given = self._attrs() if self.accept("{") else {}
        regions = self._regions()
        self.expect(":")
        type_ = self.type()
        if array is not None:
            if not isinstance(type_, TensorType):
                self.error("a constant is one tensor", token)
            given["value"] = Literal(array(type_))
        value = self._make(token, operands, given, regions, type_)
        scope[target.text] = value
        if not target.text[1].isdigit():
            names[value] = self.plain(target)

    def _make(
        self,
        token: Token,
        operands: list[Operand],
        given: dict[str, Any],
        regions: Sequence[Graph],
        type_: Type,
    ) -> Value:
        op, loc = OPS[token.text], self.loc()
        implied = implied_attrs(type_)
        unknown = set(given) - set(op.attrs)
        if unknown:
            known = ", ".join(op.attrs) or "none"
            self.error(f"{op.name} has no attribute {min(unknown)!r}; it has {known}", token)
        attrs = {}
        for name, default in op.attrs.items():
            attrs[name] = given.get(name, implied.get(name, REQUIRED) if default is REQUIRED else default)
            if attrs[name] is REQUIRED:
                self.error(f"{op.name} needs the attribute {name!r}", token)

        def build() -> Value:
            values = (
                x if isinstance(x, Value) else _literal(op.name, k, operands, type_, x)
                for k, x in enumerate(operands)
            )
            if op.name == "full":
                attrs["value"] = _element(attrs["value"], attrs["dtype"])
            return make(op, values, attrs, regions, loc)

        value: Value = self.attempt(build, token)
        if not _same(value.type, type_):
            self.error(f"{op.name} gives {value.type}, the text says {type_}", token)
        return value

    def _operands(self, scope: Mapping[str, Value]) -> list[Operand]:
        def operand() -> Operand:
            return self.literal() if self.at_literal else self._value(scope)

        operands: list[Operand] = []
        if self.at_literal or self.token.kind == "value" and self.token.text[0] == "%":
            operands.append(operand())
            while self.accept(","):
                operands.append(operand())
        return operands

    def _regions(self) -> list[Graph]:
        regions: list[Graph] = []
        while self.at("(") or self.token.kind == "value" or regions and self.accept(","):
            named = self.token.kind == "value"
            name = self.plain(self.sigil("@", "a region's name")) if named else "region"
            regions.append(self._function(name))
        return regions

    # --- attributes ------------------------------------------------------------------------------

    def _attrs(self) -> dict[str, Any]:
        attrs: dict[str, Any] = {}

        def attr() -> None:
            token = self.take("name", "an attribute's name")
            if token.text in attrs:
                self.error(f"{token.text!r} is given twice", token)
            self.expect("=")
            attrs[token.text] = self._attr()

        self.sequence(attr, "}")
        return attrs

    def _attr(self) -> Any:
        token = self.token
        if token.kind == "string":
            return self.string()
        if self.accept("none"):
            return None
        if self.accept("("):
            return self._tuple()
        if self.at("dense") and self.following.text == "<":
            array = _dense(self)
            self.expect(":")
            return Literal(array(self.tensor_type()))
        if self.at("opaque") and self.following.text == "<":
            self.error("an opaque attribute has no text and cannot be read back")
        number = self.following if self.at("-") else token
        if self.at_literal and number.kind != "int":
            return self.literal()
        if token.kind == "name" and token.text in SHORT_DTYPES:
            return self.tensor_type() if self.following.text == "[" else self.dtype()
        return self.dim()

    def _tuple(self) -> Any:
        """The rest of a tuple; or of a dim that begins with a parenthesis, as ``(N // 2)*4``."""
        self.enter()
        items = tuple(self.sequence(self._attr, ")"))
        self.leave()
        is_dim = len(items) == 1 and self.token.text in ("+", "-", "*", "//", "%", "**")
        if not is_dim or isinstance(items[0], (tuple, str, float, DType, TensorType, Literal, type(None))):
            return items
        first: Dim = items[0]
        return self.dim(first)


def _same(a: Type, b: Type) -> bool:
    if isinstance(a, TensorType) and isinstance(b, TensorType):
        return same_type(a, b)
    return a == b


def _literal(op: str, position: int, operands: Sequence[Operand], type_: Type, value: Any) -> Value:
    """The `full` that a literal operand stands for; the dtype by the rule of `printer.literal_dtype`."""
    if not OPS[op].elementwise or not isinstance(type_, TensorType):
        raise ParseError(f"{op} takes no literal operands; write a `full` on a line of its own")
    others = [x for x in operands[op == "where" :] if isinstance(x, Value) and x.op.name != "full"]
    dtype = bool_ if op == "where" and position == 0 else others[0].tensor.dtype if others else type_.dtype
    return make(OPS["full"], (), {"shape": type_.shape, "value": _element(value, dtype), "dtype": dtype})


def _element(value: Any, dtype: DType) -> Any:
    """A number rounded to its dtype; one that does not fit as it is, for the type rule to refuse."""
    return rounded(value, dtype) if holds(dtype, value) else value


# --- programs ------------------------------------------------------------------------------------


class ProgramReader(KernelReader):
    """Recursive descent over programs; a document holds the program, then its kernels."""

    def program(self) -> Program:
        """``program @name symbols(...) arena(...) { slots, constants, calls }``, then kernels."""
        self.expect("program")
        name = self.plain(self.sigil("@", "the program's name"))
        symbols: list[str] = []
        if self.accept("symbols"):
            self.expect("(")
            symbols = self.sequence(lambda: self.name("a symbol"), ")")
        self.expect("arena")
        self.expect("(")
        arena = self.dim()
        self.expect(")")
        self.expect("{")
        slots: list[Slot] = []
        self.aliases: list[Token] = []
        while self.token.text in ("input", "state", "output", "temp"):
            slots.append(self._slot())
        constants: dict[str, np.ndarray[Any, Any]] = {}
        while self.accept("constant"):
            constant, array = self._constant()
            constants[constant] = array
        for token in self.aliases:
            if self.plain(token) not in self.buffers:
                self.error(f"unknown buffer {token.text}", token)
        steps = self._steps()
        if not self.accept("}"):
            self.fail("a slot ('input', 'state', 'output', 'temp'), 'constant', a step or '}'")
        return Program(name, tuple(symbols), tuple(slots), steps(self._kernels()), arena, constants)

    def _steps(self) -> Linked[tuple[Step, ...]]:
        """Steps; their kernels, which the text defines below, are known later."""
        readers = {"call": self._call_statement, "for": self._loop, "loop": self._while, "switch": self._branch}
        found: list[Linked[Any]] = []
        self.enter()
        while self.token.kind == "name" and self.token.text in readers:
            found.append(readers[self.token.text]())
        self.leave()
        return lambda kernels: tuple(link(kernels) for link in found)

    def _body(self) -> Linked[tuple[Step, ...]]:
        self.expect("{")
        steps = self._steps()
        self.expect("}")
        return steps

    def _loop(self) -> Linked[Step]:
        self.expect("for")
        index = self.name("a loop's index")
        self.expect("=")
        if self.take("int", "'0..'").text != "0":
            self.error("a loop begins at 0")
        self.expect("..")
        extent = self.dim()
        reverse = self.accept("reverse")
        count = self._named_buffer("count")
        body = self._body()
        return lambda kernels: Loop(index, extent, body(kernels), reverse, count)

    def _named_buffer(self, word: str) -> str | None:
        """The buffer of ``word(%buffer)``, if that stands here."""
        if not self.accept(word):
            return None
        self.expect("(")
        name = self._buffer().name
        self.expect(")")
        return name

    def _while(self) -> Linked[Step]:
        self.expect("loop")
        index = self.name("a loop's index")
        limit: Dim | None = None
        if self.accept("limit"):
            self.expect("(")
            limit = self.dim()
            self.expect(")")
        steps = self._named_buffer("steps")
        self.expect("{")
        test = self._steps()
        self.expect("break")
        self.expect("unless")
        condition = self._buffer().name
        body = self._steps()
        self.expect("}")
        return lambda kernels: While(index, test(kernels), condition, body(kernels), limit, steps)

    def _branch(self) -> Linked[Step]:
        self.expect("switch")
        index = self._buffer().name
        self.expect("{")
        branches: list[Linked[tuple[Step, ...]]] = []
        while self.accept("case"):
            number = self.take("int", f"the number {len(branches)}")
            if number.text != str(len(branches)):
                self.error(f"expected the number {len(branches)}, found {number}", number)
            branches.append(self._body())
        self.expect("}")
        return lambda kernels: Branch(index, tuple(b(kernels) for b in branches))

    def _slot(self) -> Slot:
        kind = self.next().text
        buffer = self._declaration()
        alias: str | None = None
        if self.accept("alias"):
            self.aliases.append(self.sigil("%", "a buffer"))  # may be declared below
            alias = self.plain(self.aliases[-1])
        offset = self.dim() if self.accept("at") else None
        return Slot(buffer, kind, offset, alias)

    def _constant(self) -> tuple[str, np.ndarray[Any, Any]]:
        token = self.sigil("%", "a name")
        name = self.plain(token)
        if name in self.buffers:
            self.error(f"a buffer %{name} exists already", token)
        self.expect(":")
        type_ = self.tensor_type()
        self.expect("=")
        array = _dense(self)(type_)
        self.buffers[name] = Buffer(name, type_.dtype, type_.shape)
        return name, array

    def _call_statement(self) -> Linked[Step]:
        self.expect("call")
        token = self.sigil("@", "a kernel")
        self.expect("(")
        reads = self.sequence(lambda: self._buffer().name, ")")
        self.expect("->")
        self.expect("(")
        writes = self.sequence(lambda: self._buffer().name, ")")
        workspaces: list[Dim] = []
        if self.accept("workspace"):
            self.expect("(")
            workspaces = self.sequence(self.dim, ")")
        locs: list[Loc] = []
        while (loc := self.loc()) is not None:
            locs.append(loc)

        def link(kernels: Mapping[str, Kernel]) -> Call:
            kernel = kernels.get(self.plain(token))
            if kernel is None:
                self.error(f"the text has no kernel {token.text}", token)
            if (len(reads), len(writes)) != (len(kernel.inputs), len(kernel.outputs)):
                counts = f"takes {len(kernel.inputs)} and gives {len(kernel.outputs)} buffers"
                self.error(f"@{kernel.name} {counts}", token)
            return Call(kernel, (*reads, *writes), tuple(workspaces), tuple(locs))

        return link

    def _kernels(self) -> dict[str, Kernel]:
        kernels: dict[str, Kernel] = {}
        while self.token.kind != "end":
            token = self.following
            kernel = self.kernel()
            if kernel.name in kernels:
                self.error(f"a kernel @{kernel.name} exists already", token)
            kernels[kernel.name] = kernel
        return kernels
