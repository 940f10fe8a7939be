"""New ops by users: elementwise ones from SymPy expressions, and any other from kernels of their own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError, DTypeError, GraphError
from ..ir.broadcasting import as_value
from ..ir.dims import evaluate
from ..ir.dtypes import DType, as_dtype, float32, promote
from ..ir.graph import Value, make
from ..ir.loops import Expr
from ..ir.op import OPS, REQUIRED, Op, Sample, Typing, register
from ..ir.ops.elementwise import SHAPES
from ..ir.ops.elementwise import elementwise as elementwise_record
from ..ir.scalars import COMPARISONS, SCALARS, const
from ..ir.scalars import apply as scalar_apply
from ..ir.types import TensorType
from .shapes import as_shape, check_name, fail
from .source import located
from .symbolic import Algebra, stabilized, translate
from .tensor import Tensor, apply, to_value

__all__ = ["custom_op", "elementwise", "from_sympy"]

_VALUE_OPS = {"select": "where", "bitand": "logical_and", "bitor": "logical_or", "bitnot": "logical_not"}

_expressions: dict[str, tuple[Any, tuple[Any, ...]]] = {}  # what each op was defined as


def _values(dtype: DType) -> Algebra[Any]:
    """Graph values; constants are numbers, which take the dtype of what they meet, or else `dtype`."""

    def op(name: str, *operands: Any) -> Value:
        if name == "select" and not any(isinstance(x, Value) for x in operands[1:]):
            operands = (operands[0], *(as_value(x, dtype) for x in operands[1:]))
        return OPS[_VALUE_OPS.get(name, name)](*operands)

    return Algebra(constant=lambda c: c, apply=op)


_ARRAYS: Algebra[Any] = Algebra(constant=lambda c: c, apply=lambda name, *args: SCALARS[name].reference(*args))


def _numeric(operands: Sequence[Expr]) -> Algebra[Expr]:
    """The scalar expressions of the loop IR, constants taking the operands' dtype."""
    dtype = operands[0].dtype

    def op(name: str, *args: Expr) -> Expr:
        return scalar_apply(name, *args, dtype=None if name in COMPARISONS else args[-1].dtype)

    return Algebra(constant=lambda c: const(c, as_dtype("bool") if isinstance(c, bool) else dtype), apply=op)


def _expression(function: str, expr: Any) -> Any:
    import sympy

    if not isinstance(expr, sympy.Expr):
        fail(function, GraphError, f"needs a SymPy expression, got a {type(expr).__name__}")
    return expr


def _real(expr: Any, symbols: Sequence[Any]) -> tuple[Any, tuple[Any, ...]]:
    """The expression over real symbols of the same names: then ``|x|`` has a derivative."""
    import sympy

    real = tuple(sympy.Symbol(s.name, real=True) for s in symbols)
    return stabilized(expr.xreplace(dict(zip(symbols, real)))), real


@located
def elementwise(name: str, expr: Any, symbols: Sequence[Any] | None = None) -> Callable[..., Tensor]:
    """A new elementwise op from a SymPy expression, with derivatives of any order.

    Parameters
    ----------
    name : the op's name in IR text.
    expr : a SymPy expression over its symbols: arithmetic, comparisons, ``Piecewise``, and the usual functions.
    symbols : the order of the operands (default: sorted by name).

    Returns
    -------
    A function of one tensor per symbol. Operands broadcast; they must be floating-point.

    Raises
    ------
    GraphError
        If the name is taken by another op, or the expression has a function that the IR does not have.

    Examples
    --------
    >>> x = sympy.Symbol("x")
    >>> mish = gw.elementwise("mish", x * sympy.tanh(sympy.log(1 + sympy.exp(x))))
    """
    check_name(name, "elementwise")
    expr = _expression("elementwise", expr)
    order = sorted(expr.free_symbols, key=lambda s: s.name) if symbols is None else list(symbols)
    if not order or set(order) < expr.free_symbols:
        missing = ", ".join(sorted(str(s) for s in expr.free_symbols - set(order))) or "none of its own"
        fail("elementwise", GraphError, f"the expression {expr} has symbols that are not operands: {missing}")
    exact, real = _real(expr, order)
    if _expressions.get(name) != (exact, real):
        _check_supported(exact, real)
        register_expression(name, exact, real)
        _expressions[name] = exact, real
    op = OPS[name]

    @located
    def function(*operands: Any) -> Tensor:
        if len(operands) != len(real):
            problem = f"takes {len(real)} tensors ({', '.join(map(str, real))}), got {len(operands)}"
            fail(name, ArgumentError, problem, operands)
        return apply(op, *operands, expression=_text(exact, real))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"``{expr}``, elementwise, for ({', '.join(map(str, real))})."
    return function


def _text(expr: Any, symbols: Sequence[Any]) -> str:
    """The definition as an attribute: it identifies the op in IR text and in the cache of compiled code."""
    return f"{', '.join(map(str, symbols))} -> {expr}"


def _check_supported(expr: Any, symbols: Sequence[Any]) -> None:
    """Refuse functions that the IR does not have, by a trial translation."""
    translate(expr, dict.fromkeys(symbols, 0), Algebra(constant=lambda c: 0, apply=lambda *_: 0))


def register_expression(name: str, expr: Any, symbols: Sequence[Any]) -> Op:
    """The record of an op that a stabilized expression over real symbols defines."""

    def reference(*arrays: Any, expression: str) -> Any:
        dtype = np.result_type(*arrays)
        result = translate(expr, dict(zip(symbols, map(np.asarray, arrays))), _ARRAYS)
        return np.broadcast_to(np.asarray(result, dtype), np.broadcast_shapes(*(np.shape(a) for a in arrays)))

    def scalar(*operands: Expr) -> Expr:
        result: Expr = translate(expr, dict(zip(symbols, operands)), _numeric(operands))
        return result

    @functools.cache
    def derivative(k: int) -> Any:
        return stabilized(expr.diff(symbols[k]))

    def vjp(ct: Value, out: Value, *operands: Value, expression: str) -> list[Value]:
        known = dict(zip(symbols, operands))
        return [ct * translate(derivative(k), known, _values(out.tensor.dtype)) for k in range(len(symbols))]

    def samples() -> Iterable[Sample]:
        rng = np.random.default_rng(0)
        for shape in SHAPES:
            yield Sample(tuple(rng.uniform(0.25, 0.75, shape) for _ in symbols), {"expression": _text(expr, symbols)})

    return elementwise_record(
        name, reference, scalar=scalar, vjp=vjp, arity=len(symbols), samples=samples, ulp=16,
        cost=int(expr.count_ops()) * 4, doc=str(expr), attrs={"expression": REQUIRED},
    )


@located
def from_sympy(expr: Any, values: Mapping[Any, Any]) -> Tensor:
    """A SymPy expression as a tensor, given tensors (or numbers) for its symbols.

    It is made of the IR's own ops; to make it one op of its own, use `elementwise`.

    Parameters
    ----------
    expr : as for `elementwise`.
    values : from symbols, or their names, to tensors.

    Raises
    ------
    GraphError
        If a symbol has no value, or the expression has a function that the IR does not have.
    """
    expr = _expression("from_sympy", expr)
    named = {str(k): v for k, v in values.items()}
    order = sorted(expr.free_symbols, key=lambda s: s.name)
    for s in order:
        if s.name not in named:
            fail("from_sympy", GraphError, f"the symbol {s} of {expr} has no value", advice=f"add it: {{{s}: tensor}}")
    exact, real = _real(expr, order)
    known = {r: to_value(named[r.name]) for r in real}
    dtypes = [v.tensor.dtype for v in known.values() if not v.tensor.dtype.is_bool]
    algebra = _values(functools.reduce(promote, dtypes) if dtypes else float32)
    return Tensor(to_value(translate(exact, known, algebra)))


@located
def custom_op(
    name: str,
    infer: Callable[..., Any],
    kernel: Callable[..., None],
    vjp: Callable[..., Sequence[Tensor | None] | Tensor] | None = None,
    cuda_kernel: Callable[..., None] | None = None,
    arity: int | None = None,
    doc: str = "",
) -> Callable[..., Tensor]:
    """A new op whose kernel is a Python function that Numba compiles.

    Parameters
    ----------
    name : the op's name in IR text.
    infer : ``infer(*types)`` gives the result's ``(dtype, shape)``; types have `dtype` and `shape`, with
        symbolic dimensions, in which the result's shape may be expressed. It raises to refuse operands.
    kernel : ``kernel(out, *operands)`` writes every element of ``out``. It gets row-major arrays, and
        must be in the subset of Python that Numba compiles without the interpreter: loops over single
        elements and mathematical functions; it cannot make arrays (as ``out[:] = x`` does), raise, or print.
        Indices are not checked.
    vjp : ``vjp(cotangent, result, *operands)``, of tensors, gives the operands' cotangents (None for an
        operand without one). Without it the op raises when differentiated.
    cuda_kernel : ``cuda_kernel(out, *operands)``, a plain Python function in the subset of numba.cuda, for GPUs.
        It is launched as a kernel of its own, on a one-dimensional grid of at least one thread per element of
        ``out``: a thread is ``cuda.grid(1)``, and checks itself that it is within bounds. It gets row-major
        device arrays of the operands' shapes; together the threads write every element of ``out``, whose
        memory holds anything before. Blocks run in no order. Without it the op is refused on CUDA.
    arity : the number of operands, if it is fixed.
    doc : one sentence for the documentation.

    Returns
    -------
    A function of tensors.

    Raises
    ------
    GraphError
        If the name is taken, or `infer` or a kernel is not callable.
    CompileError
        When a function is compiled: if Numba refuses a kernel, it cannot run without Python, or the op has none
        for the target.
    """
    check_name(name, "custom_op")
    for given in (infer, kernel, *(() if cuda_kernel is None else (cuda_kernel,))):
        if not callable(given):
            fail("custom_op", GraphError, f"{name!r} needs functions for infer and its kernels, got {given!r}")
    kernels = {"cpu": kernel} if cuda_kernel is None else {"cpu": kernel, "cuda": cuda_kernel}

    def reference(*arrays: Any) -> Any:
        own = [np.ascontiguousarray(a).reshape(np.shape(a)) for a in arrays]
        result = _result_type(name, infer, [TensorType(as_dtype(a.dtype), a.shape) for a in own])
        out = np.zeros([evaluate(d, {}) for d in result.shape], result.dtype.numpy)
        kernel(out, *own)
        return out

    op = register(Op(
        name, "opaque", lambda t: _inferred(t, infer), reference, vjp=None if vjp is None else _tensor_vjp(vjp),
        arity=arity, cost=8, doc=doc, kernels=kernels,
    ))

    @located
    def function(*operands: Any) -> Tensor:
        return Tensor(make(op, [to_value(x) for x in operands]))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


def _result_type(name: str, infer: Callable[..., Any], types: Sequence[TensorType]) -> TensorType:
    result = infer(*types)
    if isinstance(result, TensorType):
        return result
    try:
        dtype, shape = result
    except (TypeError, ValueError):
        raise GraphError(f"{name}: infer must return (dtype, shape), got {result!r}") from None
    return TensorType(as_dtype(dtype), as_shape(shape, name))


def _inferred(t: Typing, infer: Callable[..., Any]) -> TensorType:
    """The type rule of a custom op: the user's own, its errors with the operands' lines."""
    try:
        return _result_type(t.op.name, infer, t.types)
    except (ValueError, TypeError, IndexError) as error:
        t.fail(DTypeError if isinstance(error, TypeError) else GraphError, f"refused by its type rule: {error}")


def _tensor_vjp(vjp: Callable[..., Any]) -> Callable[..., list[Value | None]]:
    """A VJP of values from a user's one of tensors."""

    def wrapped(ct: Value, out: Value, *operands: Value) -> list[Value | None]:
        result = vjp(*map(Tensor, (ct, out, *operands)))
        parts = result if isinstance(result, (tuple, list)) else [result]
        if len(parts) != len(operands):
            raise GraphError(f"{out.op.name}: its VJP gave {len(parts)} cotangents for {len(operands)} operands")
        return [None if p is None else to_value(p) for p in parts]

    return wrapped
