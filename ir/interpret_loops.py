"""The meaning of the loop IR: an interpreter in NumPy, against which generated code is compared.

All loops run serially and in order, whatever their kind. Arithmetic is done on NumPy scalars of
the expressions' own dtypes, so ``f32`` stays ``f32``. Fresh memory is poisoned and every
access is checked, so that a kernel that reads what nothing wrote, or outside a buffer, shows it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from ..errors import VerifyError
from .dims import Dim, Op
from .dtypes import DType
from .loops import (
    Alloc,
    Buffer,
    Const,
    Expr,
    For,
    Foreign,
    If,
    Index,
    Kernel,
    Let,
    Load,
    Prefetch,
    Reduce,
    Scalar,
    Stmt,
    Store,
    Temp,
)
from .op import OPS
from .scalars import SCALARS

__all__ = ["Environment", "combine", "evaluate", "identity", "interpret_kernel", "poison"]

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass
class Environment:
    """What names stand for while a kernel runs.

    Attributes
    ----------
    symbols : symbolic dimensions and loop variables.
    temps : values bound by `Let`, as NumPy scalars.
    buffers : memory of parameters and of allocations.
    statement : the one being executed, for error messages.
    """

    symbols: dict[str, int] = field(default_factory=dict)
    temps: dict[str, Any] = field(default_factory=dict)
    buffers: dict[str, Array] = field(default_factory=dict)
    statement: Stmt | None = None

    def fail(self, problem: str) -> NoReturn:
        if self.statement is None:
            raise VerifyError(problem)
        from .print_loops import statement_head

        values = ", ".join(f"{k} = {v}" for k, v in self.symbols.items())
        raise VerifyError(f"{problem}\n  in: {statement_head(self.statement)}\n  where {values}")


def interpret_kernel(kernel: Kernel, inputs: Sequence[Array], symbols: Mapping[str, int]) -> list[Array]:
    """Run a kernel on arrays.

    Parameters
    ----------
    inputs : one array per input, of its dtype and of its shape at these dimensions.
    symbols : the value of every symbolic dimension.

    Returns
    -------
    The outputs, in order.

    Raises
    ------
    VerifyError
        If an input does not fit, or an access lies outside its buffer.
    """
    env = Environment(dict(symbols))
    if len(inputs) != len(kernel.inputs):
        env.fail(f"@{kernel.name} takes {len(kernel.inputs)} inputs, got {len(inputs)}")
    for buffer, array in zip(kernel.inputs, map(np.asarray, inputs)):
        shape = _shape(buffer, env)
        if array.shape != shape or array.dtype != buffer.dtype.numpy:
            given = f"{array.dtype}{list(array.shape)}"
            env.fail(f"input %{buffer.name} must be {buffer.dtype}{list(shape)}, got {given}")
        env.buffers[buffer.name] = array.view()
        env.buffers[buffer.name].setflags(write=False)
    for buffer in kernel.outputs:
        env.buffers[buffer.name] = _allocate(buffer, env)
    with np.errstate(all="ignore"):
        _run(kernel.body, env)
    return [env.buffers[buffer.name] for buffer in kernel.outputs]


def evaluate(expr: Expr, env: Environment) -> Any:
    """The value of an expression, a NumPy scalar of its dtype.

    Raises
    ------
    VerifyError
        If a name is unknown or a load lies outside its buffer.
    """
    with np.errstate(all="ignore"):
        return _value(expr, env, {})


def poison(dtype: DType) -> Any:
    """What memory holds before it is written: NaN, or the largest integer."""
    if dtype.is_float:
        return np.nan
    return True if dtype.is_bool else np.iinfo(dtype.numpy).max


# --- statements ----------------------------------------------------------------------------------


def _run(body: tuple[Stmt, ...], env: Environment) -> None:
    for statement in body:
        env.statement = statement
        _STATEMENTS[type(statement)](statement, env)


def _for(s: For, env: Environment) -> None:
    for k in range(_dim(s.extent, env)):
        env.symbols[s.var] = k
        _run(s.body, env)
    env.symbols.pop(s.var, None)


def _let(s: Let, env: Environment) -> None:
    env.temps[s.name] = _value(s.value, env, {})


def _store(s: Store, env: Environment) -> None:
    memo: dict[int, Any] = {}
    index = _element(s.buffer, s.indices, env, memo)
    value = _value(s.value, env, memo)
    array = env.buffers[s.buffer.name]
    if not array.flags.writeable:
        env.fail(f"store to the input %{s.buffer.name}")
    array[index] = value if s.combiner is None else combine(s.combiner, array[index], value)


def _alloc(s: Alloc, env: Environment) -> None:
    env.buffers[s.buffer.name] = _allocate(s.buffer, env)


def _foreign(s: Foreign, env: Environment) -> None:
    (out,) = s.outputs
    env.buffers[out.name][...] = OPS[s.op].reference(*(env.buffers[b.name] for b in s.inputs))


def _if(s: If, env: Environment) -> None:
    _run(s.then if _value(s.condition, env, {}) else s.otherwise, env)


_STATEMENTS: dict[type[Any], Callable[[Any, Environment], None]] = {
    For: _for,
    Let: _let,
    Store: _store,
    Alloc: _alloc,
    Foreign: _foreign,
    If: _if,
    Prefetch: lambda s, env: None,
}


def _shape(buffer: Buffer, env: Environment) -> tuple[int, ...]:
    return tuple(_dim(d, env) for d in buffer.shape)


def _allocate(buffer: Buffer, env: Environment) -> Array:
    return np.full(_shape(buffer, env), poison(buffer.dtype), buffer.dtype.numpy)


def _element(
    buffer: Buffer, indices: tuple[Expr, ...], env: Environment, memo: dict[int, Any]
) -> tuple[int, ...]:
    """The position of an access, once it is known to lie inside the buffer."""
    if buffer.name not in env.buffers:
        env.fail(f"%{buffer.name} is not allocated here")
    shape = env.buffers[buffer.name].shape
    index = tuple(int(_value(i, env, memo)) for i in indices)
    if len(index) == 1 and len(shape) != 1:  # a row-major position
        size = math.prod(shape)
        if not 0 <= index[0] < size:
            env.fail(f"%{buffer.name}[{index[0]}] lies outside its {size} elements")
        return tuple(map(int, np.unravel_index(index[0], shape))) if shape else ()
    if len(index) != len(shape) or not all(0 <= i < n for i, n in zip(index, shape)):
        env.fail(f"%{buffer.name}{list(index)} lies outside its shape {list(shape)}")
    return index


# --- expressions ---------------------------------------------------------------------------------


def _value(expr: Expr, env: Environment, memo: dict[int, Any]) -> Any:
    """`memo` holds the values of shared subexpressions; it lasts while no variable changes."""
    if isinstance(expr, Scalar):
        if id(expr) not in memo:
            memo[id(expr)] = _scalar(expr, [_value(a, env, memo) for a in expr.args])
        return memo[id(expr)]
    if isinstance(expr, Index):
        return expr.dtype.numpy.type(_dim(expr.dim, env))
    if isinstance(expr, Const):
        return expr.dtype.numpy.type(expr.value)
    if isinstance(expr, Temp):
        if expr.name not in env.temps:
            env.fail(f"{expr.name} is not bound here")
        return env.temps[expr.name]
    if isinstance(expr, Load):
        return _load(expr, env, memo)
    if isinstance(expr, Reduce):
        return _reduce(expr, env)
    raise VerifyError(f"{type(expr).__name__} is not an expression of the loop IR")


def _load(expr: Load, env: Environment, memo: dict[int, Any]) -> Any:
    if expr.guard is not None and not _value(expr.guard, env, memo):
        return expr.dtype.numpy.type(0)
    index = _element(expr.buffer, expr.indices, env, memo)
    return env.buffers[expr.buffer.name][index]


def _scalar(expr: Scalar, args: list[Any]) -> Any:
    if expr.op == "bitcast":
        return args[0].view(expr.dtype.numpy)
    if expr.op in ("floordiv", "mod") and expr.dtype.is_integer and args[1] == 0:
        return expr.dtype.numpy.type(0)
    result = SCALARS[expr.op].reference(*args)
    return np.asarray(result).astype(expr.dtype.numpy, copy=False)[()]


def identity(combiner: str, dtype: DType) -> Any:
    """What a reduction over nothing gives: 0, 1, -inf, +inf, False, True (0 for a position)."""
    if combiner in ("max", "min"):
        if dtype.is_bool:
            value: Any = combiner == "min"
        elif dtype.is_float:
            value = -np.inf if combiner == "max" else np.inf
        else:
            info = np.iinfo(dtype.numpy)
            value = info.min if combiner == "max" else info.max
    else:
        value = {"add": 0, "mul": 1, "or": False, "and": True, "argmax": 0, "argmin": 0}[combiner]
    return dtype.numpy.type(value)


_COMBINE: dict[str, Callable[[Any, Any], Any]] = {
    "add": np.add,
    "mul": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
    "or": np.logical_or,
    "and": np.logical_and,
}


def combine(combiner: str, a: Any, b: Any) -> Any:
    """One step of a reduction. A NaN wins ``max`` and ``min``."""
    return _COMBINE[combiner](a, b)


def _reduce(expr: Reduce, env: Environment) -> Any:
    names = [name for name, _ in expr.axes]
    spaces = [range(_dim(extent, env)) for _, extent in expr.axes]
    total = identity(expr.combiner, expr.dtype)
    best: Any = None
    hidden = {n: env.symbols[n] for n in names if n in env.symbols}
    for position, index in enumerate(itertools.product(*spaces)):
        env.symbols.update(zip(names, index))
        value = _value(expr.body, env, {})
        if expr.combiner not in ("argmax", "argmin"):
            total = combine(expr.combiner, total, value)
        elif best is None or _better(expr.combiner, value, best):
            best, total = value, expr.dtype.numpy.type(position)
    for name in names:
        env.symbols.pop(name, None)
    env.symbols.update(hidden)
    return total


def _better(combiner: str, value: Any, best: Any) -> bool:
    """Whether a later key replaces the best one so far: not if equal, and never a NaN."""
    if np.isnan(best):
        return False
    return bool(np.isnan(value) or (value > best if combiner == "argmax" else value < best))


def _dim(dim: Dim, env: Environment) -> int:
    """The integer that an index polynomial stands for."""
    if isinstance(dim, int):
        return dim
    total = 0
    for monomial, coefficient in dim.terms:
        term = coefficient
        for atom, power in monomial:
            term *= _atom(atom, env) ** power
        total += term
    return total


def _atom(atom: str | Op, env: Environment) -> int:
    if isinstance(atom, str):
        if atom not in env.symbols:
            env.fail(f"{atom} is neither a loop variable nor a symbolic dimension here")
        return env.symbols[atom]
    args = [_dim(a, env) for a in atom.args]
    if atom.kind in ("max", "min"):
        return max(args) if atom.kind == "max" else min(args)
    if atom.kind == "isqrt":
        if args[0] < 0:
            env.fail(f"the root of {args[0]}")
        return math.isqrt(args[0])
    if args[1] == 0:
        env.fail(f"the index {atom} divides by zero")
    return args[0] // args[1] if atom.kind == "//" else args[0] % args[1]
