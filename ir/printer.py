"""The IRs as text: deterministic, versioned, read back by `parser`. See ``docs/ir.md`` for the grammar."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .dims import Dim, Op, Poly
from .dtypes import DType, as_dtype, bool_, number_text
from .graph import Graph, Literal, Loc, Value, attr_key
from .lexer import quote_name
from .loops import Kernel
from .op import REQUIRED
from .print_loops import kernel_lines
from .program import Call, Loop, Program, Slot, Step, While
from .types import TensorType, Type

__all__ = ["LOC_COLUMN", "dense_text", "literal_dtype", "print_graph", "print_kernel", "print_program", "value_parts"]

LOC_COLUMN = 60
_LOC = re.compile(r' +loc\("(?:[^"\\]|\\.)*":\d+[ \w]*\)$')
_LISTED = 32  # larger arrays are written in base64


def print_graph(graph: Graph, locations: bool = True) -> str:
    """A graph as text, the version line first; source lines are left out without `locations`."""
    lines: Iterable[str] = _graph_lines(graph)
    if not locations:
        lines = (_LOC.sub("", line) for line in lines)
    return "\n".join(["graphwright.graph v1", *lines]) + "\n"


def print_kernel(kernel: Kernel) -> str:
    """A kernel as text, the version line first."""
    return "\n".join(["graphwright.loops v1", *kernel_lines(kernel)]) + "\n"


def print_program(program: Program) -> str:
    """A program as text, the version line first, its kernels after it."""
    lines = ["graphwright.program v1", *_program_lines(program)]
    for kernel in program.kernels:
        lines += ["", *kernel_lines(kernel)]
    return "\n".join(lines) + "\n"


# --- graphs --------------------------------------------------------------------------------------


def _graph_lines(graph: Graph) -> Iterator[str]:
    yield f"func {quote_name('@', graph.name)}{_signature(graph)} {{"
    yield from _body(graph, "  ")
    yield "}"


def _signature(graph: Graph) -> str:
    text = f"({_params(graph.inputs)})"
    if graph.states:
        text += f" state({_params(graph.states)})"
    return f"{text} -> ({', '.join(str(v.type) for v in graph.outputs)})"


def _params(values: Sequence[Value]) -> str:
    return ", ".join(f"{_given_name(v.attrs['name'])}: {v.type}" for v in values)


def _given_name(name: str) -> str:
    """A name that a user chose; numbers are quoted, being the names of the unnamed."""
    return "%" + json.dumps(name) if name[:1].isdigit() else quote_name("%", name)


def literal_dtype(value: Value, position: int) -> DType:
    """The dtype of a literal operand of an elementwise op, from what else its line shows."""
    if value.op.name == "where" and position == 0:
        return bool_
    others = value.operands[value.op.name == "where" :]
    shown = [v for v in others if v.op.name != "full"]
    return shown[0].tensor.dtype if shown else value.tensor.dtype


def _is_inline(user: Value, position: int) -> bool:
    operand = user.operands[position]
    return (
        operand.op.name == "full"
        and user.op.elementwise
        and isinstance(user.type, TensorType)
        and operand.tensor.shape == user.type.shape
        and operand.tensor.dtype == literal_dtype(user, position)
    )


def _names(graph: Graph, order: Sequence[Value]) -> dict[Value, str]:
    """A name for each value that is written on a line of its own."""
    names: dict[Value, str] = {v: _given_name(v.attrs["name"]) for v in graph.inputs + graph.states}
    needed = set(graph.roots)
    for value in order:
        needed.update(v for k, v in enumerate(value.operands) if not _is_inline(value, k))
    taken = set(names.values())
    count = 0
    for value in order:
        if value in names or value not in needed:
            continue
        chosen = _given_name(graph.names[value]) if value in graph.names else ""
        if not chosen or chosen in taken:
            chosen, count = f"%{count}", count + 1
        taken.add(chosen)
        names[value] = chosen
    return names


def value_parts(graph: Graph) -> dict[Value, tuple[str, tuple[Value | str, ...], str]]:
    """What `print_graph` writes of each value: its name, its operands (literals as text), its attributes.

    Values of which only literals are seen are absent.
    """
    order = list(graph)
    names = _names(graph, order)
    return {v: (names[v], tuple(_operands(v)), _head(v)) for v in order if v in names}


def _operands(value: Value) -> Iterator[Value | str]:
    for k, v in enumerate(value.operands):
        yield number_text(v.attrs["value"], v.tensor.dtype) if _is_inline(value, k) else v


def _head(value: Value) -> str:
    return dense_text(value.attrs["value"].array) if value.op.name == "constant" else _attrs_text(value).strip()


def _body(graph: Graph, indent: str) -> Iterator[str]:
    order = list(graph)
    names = _names(graph, order)
    parameters = set(graph.inputs + graph.states)
    for value in order:
        if value in names and value not in parameters:
            yield from _value_lines(value, names, indent)
    for state, new in graph.updates:
        yield f"{indent}update {names[state]} = {names[new]}"
    yield f"{indent}return {', '.join(names[v] for v in graph.outputs)}".rstrip()


def _value_lines(value: Value, names: Mapping[Value, str], indent: str) -> Iterator[str]:
    operands = [
        number_text(v.attrs["value"], v.tensor.dtype) if _is_inline(value, k) else names[v]
        for k, v in enumerate(value.operands)
    ]
    head = f"{indent}{names[value]} = {value.op.name}"
    if operands:
        head += " " + ", ".join(operands)
    if value.op.name == "constant":
        head += " " + dense_text(value.attrs["value"].array)
    else:
        head += _attrs_text(value)
    for k, region in enumerate(value.regions):
        name = "" if region.name == "region" else quote_name("@", region.name)
        yield f"{head}{',' if k else ''} {name}{_signature(region)} {{"
        yield from _body(region, indent + "  ")
        head = f"{indent}}}"
    line = f"{head} : {value.type}"
    yield line if value.loc is None else f"{line:<{LOC_COLUMN}}  {_loc_text(value.loc)}"


def _loc_text(loc: Loc) -> str:
    file = os.path.basename(loc.file.replace("\\", "/"))
    words = "".join(f" {word}" for word in (loc.role, loc.of) if word)
    return f"loc({json.dumps(file)}:{loc.line}{words})"


# --- attributes ----------------------------------------------------------------------------------


def implied_attrs(type_: Type) -> dict[str, Any]:
    """Attributes that a result's type tells, for ops that must have them."""
    return {"shape": type_.shape, "dtype": type_.dtype} if isinstance(type_, TensorType) else {}


def _attrs_text(value: Value) -> str:
    implied = implied_attrs(value.type)
    shown = []
    for name in sorted(value.attrs, key=list(value.op.attrs).index):
        attr, default = value.attrs[name], value.op.attrs[name]
        known = implied.get(name, REQUIRED) if default is REQUIRED else default
        if known is REQUIRED or attr_key(attr) != attr_key(known):
            is_element = value.op.name == "full" and name == "value"
            text = number_text(attr, value.tensor.dtype) if is_element else _attr_text(attr)
            shown.append(f"{name} = {text}")
    return f" {{{', '.join(shown)}}}" if shown else ""


def _attr_text(attr: Any) -> str:
    if attr is None:
        return "none"
    if isinstance(attr, (bool, int, float)):
        return _scalar_text(attr)
    if isinstance(attr, str):
        return json.dumps(attr)
    if isinstance(attr, tuple):
        return f"({', '.join(map(_attr_text, attr))})"
    if isinstance(attr, (DType, TensorType)):
        return str(attr)
    if isinstance(attr, Poly):
        return _dim_text(attr)
    if isinstance(attr, Literal):
        return f"{dense_text(attr.array)} : {_array_type(attr.array)}"
    return f"opaque<{json.dumps(getattr(attr, '__name__', type(attr).__name__))}>"


def _scalar_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _dim_text(dim: Poly) -> str:
    """A dim without outer parentheses, which in an attribute would make a tuple."""
    (monomial, coefficient), *more = dim.terms
    lone = not more and coefficient == 1 and len(monomial) == 1 and monomial[0][1] == 1
    is_division = lone and isinstance(monomial[0][0], Op) and monomial[0][0].kind in ("//", "%")
    return str(dim)[1:-1] if is_division else str(dim)


def _array_type(array: np.ndarray[Any, Any]) -> TensorType:
    return TensorType(as_dtype(array.dtype), array.shape)


def dense_text(array: np.ndarray[Any, Any]) -> str:
    """An array's elements: ``dense<[[1, 2], [3, 4]]>``; base64 where it is large or has unusual NaNs."""
    exact = array.size <= _LISTED and (
        array.dtype.kind != "f" or np.isfinite(array).all() or _plain_nans(array)
    )
    if not exact:
        data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        return f'dense<"{base64.b64encode(data).decode("ascii")}">'
    return f"dense<{_nested_text(array)}>"


def _plain_nans(array: np.ndarray[Any, Any]) -> bool:
    nans = array[np.isnan(array)]
    return bool(nans.tobytes() == np.full_like(nans, np.nan).tobytes())


def _nested_text(array: np.ndarray[Any, Any]) -> str:
    if array.ndim:
        return f"[{', '.join(map(_nested_text, array))}]"
    element = array[()]
    if array.dtype.kind != "f":
        return _scalar_text(element.item())
    short = str(element)  # the fewest digits that tell it from other floats of its width
    text = short if array.dtype.type(float(short)).tobytes() == element.tobytes() else float(element).hex()
    return text if any(c in text for c in ".einxp") else text + ".0"


# --- programs ------------------------------------------------------------------------------------


def _program_lines(program: Program) -> Iterator[str]:
    symbols = f" symbols({', '.join(program.symbols)})" if program.symbols else ""
    yield f"program {quote_name('@', program.name)}{symbols} arena({program.arena}) {{"
    for slot in program.slots:
        yield "  " + _slot_text(slot)
    for name, array in program.constants.items():
        yield f"  constant {quote_name('%', name)}: {_array_type(array)} = {dense_text(array)}"
    yield from _step_lines(program.steps, "  ")
    yield "}"


def _step_lines(steps: Iterable[Step], indent: str) -> Iterator[str]:
    inner = indent + "  "
    for step in steps:
        if isinstance(step, Call):
            line = indent + _call_text(step)
            locs = " ".join(map(_loc_text, step.locs))
            yield f"{line:<{LOC_COLUMN}}  {locs}" if locs else line
            continue
        if isinstance(step, Loop):
            how = " reverse" if step.reverse else ""
            how += f" count({quote_name('%', step.count)})" if step.count else ""
            yield f"{indent}for {step.index} = 0..{step.extent}{how} {{"
            yield from _step_lines(step.body, inner)
        elif isinstance(step, While):
            limit = "" if step.limit is None else f" limit({step.limit})"
            ran = "" if step.steps is None else f" steps({quote_name('%', step.steps)})"
            yield f"{indent}loop {step.index}{limit}{ran} {{"
            yield from _step_lines(step.test, inner)
            yield f"{inner}break unless {quote_name('%', step.condition)}"
            yield from _step_lines(step.body, inner)
        else:
            yield f"{indent}switch {quote_name('%', step.index)} {{"
            for k, branch in enumerate(step.branches):
                yield f"{indent}case {k} {{"
                yield from _step_lines(branch, inner)
                yield f"{indent}}}"
        yield f"{indent}}}"


def _slot_text(slot: Slot) -> str:
    buffer = slot.buffer
    type_ = TensorType(buffer.dtype, buffer.shape)
    place = "" if slot.alias is None else f" alias {quote_name('%', slot.alias)}"
    if slot.offset is not None:
        place += f" at {slot.offset}"
    return f"{slot.kind} {quote_name('%', buffer.name)}: {type_}{place}"


def _call_text(call: Call) -> str:
    reads, writes = (", ".join(quote_name("%", n) for n in names) for names in (call.reads, call.writes))
    text = f"call {quote_name('@', call.kernel.name)}({reads}) -> ({writes})"
    return text + (f" workspace({_dims_text(call.workspaces)})" if call.workspaces else "")


def _dims_text(dims: Iterable[Dim]) -> str:
    return ", ".join(map(str, dims))
