"""Reductions over axes: sums, extremes, moments, and whether any or all."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import DTypeError, ShapeError
from ...ir.broadcasting import lift
from ...ir.dims import Dim, product
from ...ir.dtypes import DType, as_dtype, int64, uint64
from ...ir.op import OPS
from ...ir.ops.cumulative import running_product
from ..shapes import as_axes, fail
from ..source import located
from ..tensor import ArrayLike, Tensor, apply, to_value
from .creation import asarray
from .manipulation import reshape

__all__ = [
    "all", "any", "count_nonzero", "cumulative_prod", "cumulative_sum", "logsumexp", "max", "mean", "min", "prod",
    "recurrence", "std", "sum", "var",
]

Axis = int | Sequence[int] | None


def reduce(op: str, x: Tensor, axes: tuple[int, ...], keepdims: bool) -> Tensor:
    """A reduction op over sorted axes."""
    result = apply(op, x, axes=axes)
    return reshape(result, kept(x, axes)) if keepdims else result


def kept(x: Tensor, axes: tuple[int, ...]) -> tuple[Dim, ...]:
    """The shape of `x` with size 1 in place of the reduced axes."""
    return tuple(1 if k in axes else d for k, d in enumerate(x.shape))


def count(x: Tensor, axes: tuple[int, ...]) -> Dim:
    """How many elements are combined into one."""
    return product(x.shape[a] for a in axes)


def _accumulator(x: Tensor, dtype: object) -> DType:
    """The dtype of a sum: integers and bools widen to 64 bits unless told otherwise."""
    if dtype is not None:
        return as_dtype(dtype)
    if x.dtype.is_float:
        return x.dtype
    return uint64 if x.dtype.kind == "u" else int64


def _floating(name: str, x: ArrayLike) -> Tensor:
    x = asarray(x)
    if not x.dtype.is_float:
        fail(name, DTypeError, f"needs a floating-point tensor, got {x.dtype!r}", [x], "cast with astype")
    return x


@located
def sum(x: ArrayLike, axis: Axis = None, dtype: object = None, keepdims: bool = False) -> Tensor:
    """The sum over `axis` (all axes by default); 0 of nothing. Integers are summed in 64 bits."""
    x = asarray(x)
    x = asarray(x, _accumulator(x, dtype))
    return reduce("sum", x, as_axes(axis, x.ndim, "sum"), keepdims)


@located
def prod(x: ArrayLike, axis: Axis = None, dtype: object = None, keepdims: bool = False) -> Tensor:
    """The product over `axis` (all axes by default); 1 of nothing. Integers are multiplied in 64 bits."""
    x = asarray(x)
    x = asarray(x, _accumulator(x, dtype))
    return reduce("prod", x, as_axes(axis, x.ndim, "prod"), keepdims)


def _cumulated_axis(name: str, x: Tensor, axis: int | None) -> int:
    if axis is None and x.ndim != 1:
        fail(name, ShapeError, f"needs an axis for a tensor of rank {x.ndim}", [x], "give axis=")
    return as_axes(0 if axis is None else axis, x.ndim, name)[0]


def _with_initial(x: Tensor, axis: int, initial: float) -> Tensor:
    low = tuple(int(k == axis) for k in range(x.ndim))
    none = (0,) * x.ndim
    return apply("pad", x, low=low, high=none, interior=none, value=initial)


@located
def cumulative_sum(
    x: ArrayLike, axis: int | None = None, dtype: object = None, include_initial: bool = False
) -> Tensor:
    """The sums of all elements up to each along an axis, which a tensor of rank 1 need not name.

    With `include_initial` a 0 stands before them. Integers are summed in 64 bits.
    """
    x = asarray(x)
    x = asarray(x, _accumulator(x, dtype))
    k = _cumulated_axis("cumulative_sum", x, axis)
    y = apply("cumsum", x, axis=k)
    return _with_initial(y, k, 0) if include_initial else y


@located
def cumulative_prod(
    x: ArrayLike, axis: int | None = None, dtype: object = None, include_initial: bool = False
) -> Tensor:
    """The products of all elements up to each along an axis, which a tensor of rank 1 need not name.

    With `include_initial` a 1 stands before them. Integers are multiplied in 64 bits.
    """
    x = asarray(x)
    x = asarray(x, _accumulator(x, dtype))
    k = _cumulated_axis("cumulative_prod", x, axis)
    y = Tensor(running_product(to_value(x), k))
    return _with_initial(y, k, 1) if include_initial else y


@located
def recurrence(a: ArrayLike, b: ArrayLike, axis: int = 0, reverse: bool = False) -> Tensor:
    """``y[t] = a[t] * y[t-1] + b[t]`` along an axis, from ``y[0] = b[0]``; from the end if `reverse`.

    Discounted returns are ``recurrence(full(T, gamma), rewards, reverse=True)``; a running average with
    the decay ``d`` is ``recurrence(full(T, d), (1 - d) * x)``. `a` and `b` broadcast and promote.
    """
    operands = [x if isinstance(x, (bool, int, float)) else to_value(asarray(x)) for x in (a, b)]
    factors, terms = map(Tensor, lift(OPS["mul"], operands))
    at = as_axes(axis, terms.ndim, "recurrence")[0]
    return apply("recurrence", factors, terms, axis=at, reverse=reverse)


def _extreme(name: str, op: str, x: ArrayLike, axis: Axis, keepdims: bool) -> Tensor:
    x = asarray(x)
    axes = as_axes(axis, x.ndim, name)
    if count(x, axes) == 0:
        fail(name, ShapeError, "there is no extreme of no elements", [x])
    return reduce(op, x, axes, keepdims)


@located
def max(x: ArrayLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The largest element over `axis` (all axes by default); NaN if there is one."""
    return _extreme("max", "amax", x, axis, keepdims)


@located
def min(x: ArrayLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The smallest element over `axis` (all axes by default); NaN if there is one."""
    return _extreme("min", "amin", x, axis, keepdims)


@located
def mean(x: ArrayLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The mean over `axis` (all axes by default); NaN of nothing."""
    x = _floating("mean", x)
    axes = as_axes(axis, x.ndim, "mean")
    return reduce("sum", x, axes, keepdims) / count(x, axes)


@located
def var(x: ArrayLike, axis: Axis = None, correction: float = 0, keepdims: bool = False) -> Tensor:
    """The variance over `axis` (all axes by default): squared deviations over ``count - correction``."""
    x = _floating("var", x)
    axes = as_axes(axis, x.ndim, "var")
    deviation = x - mean(x, axes, keepdims=True)
    number = asarray(count(x, axes), x.dtype)
    return reduce("sum", deviation * deviation, axes, keepdims) / (number - correction if correction else number)


@located
def std(x: ArrayLike, axis: Axis = None, correction: float = 0, keepdims: bool = False) -> Tensor:
    """The square root of the variance (see `var`)."""
    return apply("sqrt", var(x, axis, correction, keepdims))


def _truth(x: ArrayLike) -> Tensor:
    x = asarray(x)
    return x if x.dtype.is_bool else x != 0


@located
def any(x: ArrayLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether any element over `axis` (all axes by default) is true, or not 0."""
    x = _truth(x)
    return reduce("any", x, as_axes(axis, x.ndim, "any"), keepdims)


@located
def all(x: ArrayLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether all elements over `axis` (all axes by default) are true, or not 0."""
    x = _truth(x)
    return reduce("all", x, as_axes(axis, x.ndim, "all"), keepdims)


@located
def count_nonzero(x: ArrayLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """How many elements over `axis` (all axes by default) are true, or not 0."""
    return sum(asarray(_truth(x), int64), axis, keepdims=keepdims)


@located
def logsumexp(x: ArrayLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """``log(sum(exp(x)))`` over `axis` without overflow; -inf of nothing but -inf."""
    x = _floating("logsumexp", x)
    axes = as_axes(axis, x.ndim, "logsumexp")
    top = shift(x, axes)
    total = top + apply("log", apply("sum", apply("exp", x - spread(top, x, axes)), axes=axes))
    return reshape(total, kept(x, axes)) if keepdims else total


def shift(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """What to subtract before exponentials are summed: the largest element if finite, as a constant."""
    top = apply("amax", x, axes=axes)
    return apply("stop_gradient", apply("where", apply("isfinite", top), top, 0))


def spread(x: Tensor, like: Tensor, axes: tuple[int, ...]) -> Tensor:
    """A reduction's result repeated along the reduced axes again."""
    return apply("broadcast", x, shape=like.shape, dims=tuple(k for k in range(like.ndim) if k not in axes))
