"""Helpers of the tests: one for each kind of check, enumerated over the registry of ops."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphwright.errors import DTypeError, GraphError
from graphwright.ir import dims
from graphwright.ir.dtypes import DTYPES, DType, as_dtype, float64
from graphwright.ir.graph import Graph, Value, make
from graphwright.ir.interpret_loops import interpret_kernel
from graphwright.ir.interpreter import interpret
from graphwright.ir.loops import Buffer, Const, Expr, Index, Kernel, Load, Reduce, Scalar
from graphwright.ir.op import Definition, Lowering, Op, Sample
from graphwright.ir.ops import OPS
from graphwright.ir.scalars import SCALARS
from graphwright.passes.differentiate import gradients

TESTED_DTYPES = tuple(DTYPES[name] for name in ("float64", "float32", "int32", "uint8", "bool"))
TOLERANCE = {"f64": 1e-10, "f32": 1e-4}


# --- cases ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """An op with operands of fixed dtypes, and attributes."""

    op: Op
    operands: tuple[np.ndarray, ...]
    attrs: dict[str, Any]

    def __str__(self) -> str:
        types = ", ".join(f"{x.dtype}{list(x.shape)}" for x in self.operands)
        return f"{self.op.name}({types}; {self.attrs})"

    def values(self) -> list[Value]:
        """Graph inputs for the operands."""
        return [input_value(f"x{k}", x.shape, x.dtype) for k, x in enumerate(self.operands)]

    def graph(self) -> Graph:
        """The graph of the op alone."""
        inputs = self.values()
        return graph(inputs, [make(self.op, inputs, self.attrs)])

    def expected(self) -> Any:
        """The reference's result."""
        with np.errstate(all="ignore"):
            return self.op.reference(*self.operands, **self.attrs)


def input_value(name: str, shape: Sequence[dims.Dim], dtype: Any = float64) -> Value:
    """A graph input."""
    return make(OPS["input"], (), {"name": name, "shape": tuple(shape), "dtype": as_dtype(dtype)})


def graph(inputs: Sequence[Value], outputs: Sequence[Value], **more: Any) -> Graph:
    """A graph without states."""
    return Graph("test", tuple(inputs), more.get("states", ()), tuple(outputs), more.get("updates", ()))


def typed(op: Op, sample: Sample, dtype: DType) -> Case | None:
    """A sample with its float64 operands in a dtype; None if the op does not take it."""
    operands = tuple(_to(x, dtype) if x.dtype == np.float64 else x for x in map(np.asarray, sample.operands))
    case = Case(op, operands, dict(sample.attrs))
    try:
        op.infer_type(case.values(), case.attrs)
    except DTypeError:
        return None
    return case


def _to(x: np.ndarray, dtype: DType) -> np.ndarray:
    if dtype.is_bool:
        return x > 0
    with np.errstate(all="ignore"):
        return (np.abs(x) if dtype.kind == "u" else x).astype(dtype.numpy)


def cases(op: Op, dtypes: Sequence[DType] = TESTED_DTYPES) -> Iterator[Case]:
    """Every sample in every dtype that the op takes; samples of fixed dtypes once."""
    for sample in op.samples():
        fixed = all(np.asarray(x).dtype != np.float64 for x in sample.operands)
        for dtype in dtypes[:1] if fixed else dtypes:
            case = typed(op, sample, dtype)
            if case is not None:
                yield case


def full_attrs(op: Op, attrs: dict[str, Any]) -> dict[str, Any]:
    return {**op.attrs, **attrs}


def sampled_ops() -> list[str]:
    """Names of the ops that have samples."""
    return [name for name, op in OPS.items() if list(itertools.islice(op.samples(), 1))]


def assert_close(actual: Any, expected: Any, what: object, tolerance: float | None = None) -> None:
    """Equal dtypes and shapes; values equal, or close for floats (NaN equals NaN)."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.dtype == expected.dtype, f"{what}: dtype {actual.dtype}, expected {expected.dtype}"
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    tolerance = tolerance or TOLERANCE.get(as_dtype(expected.dtype).short, 0.0)
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance, err_msg=str(what))


# --- the definition of an op, evaluated at all points at once -------------------------------------


def defined_values(case: Case) -> np.ndarray:
    """The result by the op's index-space definition, or by its loops if it is opaque.

    Every access must lie inside its operand, unless guarded.
    """
    out = case.op.infer_type(case.values(), case.attrs)
    types = [v.tensor for v in case.values()]
    buffers = [Buffer(f"in{k}", t.dtype, t.shape) for k, t in enumerate(types)]
    attrs = full_attrs(case.op, case.attrs)
    if case.op.lower is not None:
        return _lowered_values(case, buffers, out, attrs)
    assert case.op.define is not None, f"{case.op.name} has neither a definition nor a lowering"
    names = [f"i{k}" for k in range(out.rank)]
    counter = itertools.count()
    d = Definition(
        [dims.symbol(n) for n in names], types, out, attrs, lambda extent: f"r{next(counter)}"
    )
    expr = case.op.define(d, *map(_reader, buffers))
    assert expr.dtype == out.dtype, f"{case}: defined as {expr.dtype}, the type rule says {out.dtype}"
    grid = np.meshgrid(*map(np.arange, out.shape), indexing="ij", sparse=False) if names else []
    memory = dict(zip((b.name for b in buffers), case.operands))
    with np.errstate(all="ignore"):
        values = Evaluator(dict(zip(names, grid)), memory, out.rank).value(expr)
    return np.broadcast_to(values, out.shape)


def _reader(buffer: Buffer) -> Callable[..., Expr]:
    def read(indices: Sequence[Any], *, guard: Expr | None = None) -> Expr:
        return Load(buffer, tuple(i if isinstance(i, Expr) else Index(i) for i in indices), guard)

    return read


def _lowered_values(case: Case, buffers: list[Buffer], out: Any, attrs: dict[str, Any]) -> np.ndarray:
    counter = itertools.count()
    result = Buffer("out0", out.dtype, out.shape)
    lowering = Lowering(
        tuple(buffers), (result,), tuple(v.tensor for v in case.values()), out, attrs,
        lambda prefix: f"{prefix}{next(counter)}",
    )
    assert case.op.lower is not None
    kernel = Kernel("op", tuple(buffers), (result,), tuple(case.op.lower(lowering)))
    return interpret_kernel(kernel, case.operands, {})[0]


class Evaluator:
    """Evaluates a scalar expression for arrays of loop variables at once."""

    def __init__(self, variables: dict[str, Any], memory: dict[str, np.ndarray], rank: int) -> None:
        self.variables, self.memory, self.rank = variables, memory, rank

    def value(self, e: Expr) -> Any:
        if isinstance(e, Const):
            return e.dtype.numpy.type(e.value)
        if isinstance(e, Index):
            return np.asarray(self.dim(e.dim), dtype=e.dtype.numpy)
        if isinstance(e, Load):
            return self.load(e)
        if isinstance(e, Reduce):
            return self.reduce(e)
        assert isinstance(e, Scalar), e
        result = SCALARS[e.op].reference(*map(self.value, e.args))
        return np.asarray(result).astype(e.dtype.numpy, copy=False)

    def dim(self, dim: dims.Dim) -> Any:
        if isinstance(dim, int):
            return dim
        total: Any = 0
        for monomial, c in dim.terms:
            term: Any = c
            for atom, power in monomial:
                term = term * self.atom(atom) ** power
            total = total + term
        return total

    def atom(self, atom: Any) -> Any:
        if isinstance(atom, str):
            return self.variables[atom]
        operation = {"//": np.floor_divide, "%": np.remainder, "max": np.maximum, "min": np.minimum}[
            atom.kind
        ]
        result = self.dim(atom.args[0])
        for other in atom.args[1:]:
            result = operation(result, self.dim(other))
        return result

    def load(self, e: Load) -> Any:
        array = self.memory[e.buffer.name]
        inside = np.asarray(True if e.guard is None else self.value(e.guard))
        index = np.broadcast_arrays(inside, *map(self.value, e.indices))[1:]
        inside = np.broadcast_to(inside, index[0].shape) if index else inside
        for axis, (i, n) in enumerate(zip(index, array.shape)):
            assert np.all((i >= 0) & (i < n) | ~inside), f"axis {axis} of {e.buffer} is read outside 0..{n}"
        if array.size == 0:
            return np.zeros(inside.shape, array.dtype)
        safe = tuple(np.where(inside, i, 0) for i in index)
        return np.where(inside, array[safe], np.zeros((), array.dtype))

    def reduce(self, e: Reduce) -> Any:
        extents = [int(self.dim(n)) for _, n in e.axes]
        rank, m = self.rank, len(extents)
        outer = {
            k: v[(..., *[None] * m)] if isinstance(v, np.ndarray) else v for k, v in self.variables.items()
        }
        for k, ((name, _), n) in enumerate(zip(e.axes, extents)):
            outer[name] = np.arange(n).reshape([1] * (rank + k) + [n] + [1] * (m - k - 1))
        body = np.asarray(Evaluator(outer, self.memory, rank + m).value(e.body))
        shape = np.broadcast_shapes(body.shape, (1,) * rank + tuple(extents))
        body = np.broadcast_to(body, shape).reshape(
            (*shape[:rank], -1 if body.size else int(np.prod(extents)))
        )
        if e.combiner in ("argmax", "argmin"):
            return getattr(np, e.combiner)(body, axis=-1)
        ufunc = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum,
                 "or": np.logical_or, "and": np.logical_and}[e.combiner]
        return ufunc.reduce(body, axis=-1, dtype=e.dtype.numpy)


# --- gradients against differences ----------------------------------------------------------------


def check_gradient(
    function: Callable[..., Value],
    arrays: Sequence[np.ndarray],
    order: int = 1,
    what: object = "",
    tolerance: float = 1e-5,
    directions: int = 2,
) -> None:
    """Compare gradients of a function of values with central differences, along random directions.

    Arrays that are not float64 are constants. Order 2 checks the gradient of ``<gradient, u>``.
    """
    rng = np.random.default_rng(1)
    inputs = [input_value(f"x{k}", x.shape, x.dtype) for k, x in enumerate(arrays)]
    wrt = [v for v, x in zip(inputs, arrays) if x.dtype == np.float64]
    result = function(*inputs)
    for level in range(order):
        weight = constant(rng.normal(size=[int(n) for n in result.tensor.shape]))
        loss = total(result * weight)
        found = gradients(loss, wrt, on_disconnected="zero")
        if level + 1 < order:
            result = concatenated(found, rng)
    # Outputs: the loss, then its gradients.
    g = graph(inputs, [loss, *found])
    _, *grads = interpret(g, arrays)[0]
    for _ in range(directions):
        step = [rng.normal(size=x.shape) if x.dtype == np.float64 else None for x in arrays]
        expected = _difference(g, arrays, step)
        actual = sum(float(np.sum(d * s)) for d, s in zip(grads, (s for s in step if s is not None)))
        np.testing.assert_allclose(
            actual, expected, rtol=tolerance, atol=tolerance, err_msg=f"order {order}: {what}"
        )


def _difference(g: Graph, arrays: Sequence[np.ndarray], step: Sequence[Any], h: float = 1e-5) -> float:
    def at(sign: float) -> float:
        moved = [x if s is None else x + sign * h * s for x, s in zip(arrays, step)]
        return float(interpret(g, moved)[0][0])

    return (at(1) - at(-1)) / (2 * h)


def constant(array: Any) -> Value:
    """A literal."""
    from graphwright.ir.broadcasting import as_value

    return as_value(np.asarray(array))


def total(x: Value) -> Value:
    """The sum of all elements."""
    return OPS["sum"](x, axes=tuple(range(x.tensor.rank)))


def concatenated(values: Sequence[Value], rng: np.random.Generator) -> Value:
    """A scalar that depends on all elements of all values."""
    result: Value | None = None
    for v in values:
        term = total(v * constant(rng.normal(size=v.tensor.shape)))
        result = term if result is None else result + term
    assert result is not None
    return result


# --- symbolic dimensions --------------------------------------------------------------------------


def symbolic(case: Case) -> Iterator[tuple[list[Value], Value, int]]:
    """The case with all dimensions of one size made the symbol N, where the op allows that."""
    sizes = sorted({n for x in case.operands for n in x.shape if n > 1})
    for n in sizes:
        shapes = [tuple(dims.symbol("N") if d == n else d for d in x.shape) for x in case.operands]
        inputs = [input_value(f"x{k}", s, x.dtype) for k, (s, x) in enumerate(zip(shapes, case.operands))]
        for attrs in _symbolic_attrs(case.attrs, n):
            try:
                yield inputs, make(case.op, inputs, attrs), n
                break
            except GraphError:
                continue


def _symbolic_attrs(attrs: dict[str, Any], n: int) -> list[dict[str, Any]]:
    """The attributes as they are, and with shapes of that size made symbolic."""
    sized = dict(attrs)
    for name in ("shape", "size", "high"):
        value = sized.get(name)
        if value == n:
            sized[name] = dims.symbol("N")
        elif isinstance(value, tuple):
            sized[name] = tuple(dims.symbol("N") if d == n and name != "high" else d for d in value)
    return [sized, attrs]


def concrete_shape(value: Value, n: int) -> tuple[int, ...]:
    return tuple(dims.evaluate(d, {"N": n}) for d in value.tensor.shape)


__all__ = [
    "Case", "Evaluator", "assert_close", "cases", "check_gradient", "concrete_shape", "constant",
    "defined_values", "graph", "input_value", "sampled_ops", "symbolic", "total", "typed",
]
