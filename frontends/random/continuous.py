"""Continuous distributions by inversion: each number from bits of its own, with pathwise gradients."""

from __future__ import annotations

import math
from typing import Any

from ...errors import GraphError
from ...ir.dtypes import as_dtype, float64, uint32, uint64
from ..array_api import astype, clip, log, where
from ..shapes import as_shape, fail
from ..source import located
from ..tensor import ArrayLike, Tensor, apply
from .parameters import at_least, drawn, is_number, known, positive, source_of
from .uniforms import half_open, minus_log, signed_tail

__all__ = ["bits", "exponential", "gumbel", "laplace", "normal", "truncated_normal", "uniform"]


@located
def bits(key: Any, shape: Any = (), dtype: object = uint32) -> Tensor:
    """Integers of uniformly distributed bits.

    Parameters
    ----------
    key : a key, or a `Generator`.
    shape : integers, dimensions, or their names.
    dtype : uint32 or uint64.
    """
    kind = as_dtype(dtype)
    if kind not in (uint32, uint64):
        fail("bits", GraphError, f"dtype must be uint32 or uint64, got {kind!r}")
    return source_of("bits", key).bits(as_shape(shape, "bits"), kind)


@located
def uniform(
    key: Any, shape: Any = None, low: ArrayLike = 0.0, high: ArrayLike = 1.0, dtype: object = None,
) -> Tensor:
    """Numbers spread evenly from `low` up to, not including, `high` (but for rounding).

    Between 0 and 1 they are multiples of 2**-24, in float64 of 2**-53.

    Parameters
    ----------
    key : a key, or a `Generator`.
    shape : integers, dimensions, or their names (default: that of the parameters).
    low, high : numbers, or tensors that broadcast to the shape. There are gradients by both.
    dtype : float32 or float64 (default: that of the parameters; float32 for Python numbers).
    """
    d = drawn("uniform", shape, dtype, low=(low, None), high=(high, None))
    first, last = d.parameters
    if not isinstance(first, Tensor) and not isinstance(last, Tensor) and not first <= last:
        fail("uniform", GraphError, f"low = {first} is above high = {last}")
    u = half_open(source_of("uniform", key), d.shape, d.dtype)
    return _located_scaled(u, first, last - first)


def _located_scaled(x: Tensor, loc: Any, scale: Any) -> Tensor:
    """``loc + scale * x``, without what changes nothing."""
    scaled = x if is_number(scale, 1) else x * scale
    return scaled if is_number(loc, 0) else scaled + loc


@located
def normal(
    key: Any, shape: Any = None, loc: ArrayLike = 0.0, scale: ArrayLike = 1.0, dtype: object = None,
) -> Tensor:
    """Normally distributed numbers with mean `loc` and standard deviation `scale`.

    The inverse of the distribution function, `ndtri`, of uniform numbers with full precision in both tails, which
    reach 6.3 (float64: 9.1) standard deviations.

    Parameters
    ----------
    key : a key, or a `Generator`.
    shape : integers, dimensions, or their names (default: that of the parameters).
    loc, scale : numbers, or tensors that broadcast to the shape; there are gradients by both.
    dtype : float32 or float64 (default: that of the parameters; float32 for Python numbers).

    Raises
    ------
    GraphError
        If the scale is known and negative.
    """
    d = drawn("normal", shape, dtype, loc=(loc, None), scale=(scale, at_least))
    tail, upper = signed_tail(source_of("normal", key), d.shape, d.dtype)
    z = apply("ndtri", tail)
    return _located_scaled(where(upper, -z, z), *d.parameters)


@located
def truncated_normal(
    key: Any, shape: Any = None, lower: ArrayLike = -2.0, upper: ArrayLike = 2.0, loc: ArrayLike = 0.0,
    scale: ArrayLike = 1.0, dtype: object = None,
) -> Tensor:
    """Normally distributed numbers of which only those between two bounds are taken.

    By inversion in float64: right for bounds within 8 standard deviations.

    Parameters
    ----------
    key : a key, or a `Generator`.
    shape : integers, dimensions, or their names (default: that of the parameters).
    lower, upper : the bounds before `loc` and `scale` are applied: numbers, or tensors that broadcast.
    loc, scale : as of `normal`; there are gradients by both, none by the bounds.
    dtype : float32 or float64 (default: that of the parameters; float32 for Python numbers).
    """
    name = "truncated_normal"
    d = drawn(
        name, shape, dtype, lower=(lower, None), upper=(upper, None), loc=(loc, None), scale=(scale, at_least)
    )
    a, b, mean, deviation = d.parameters
    if known(a) is not None and known(b) is not None and not (known(a) < known(b)).all():  # type: ignore[operator]
        fail(name, GraphError, f"lower = {lower} is not below upper = {upper}")
    a, b = (apply("stop_gradient", x) if isinstance(x, Tensor) else x for x in (a, b))
    below, above = _normal_cdf(a), _normal_cdf(b)
    u = half_open(source_of(name, key), d.shape, float64)
    z = clip(astype(apply("ndtri", below + u * (above - below)), d.dtype), a, b)
    return _located_scaled(z, mean, deviation)


def _normal_cdf(x: Any) -> Any:
    if not isinstance(x, Tensor):
        return math.erfc(-x * math.sqrt(0.5)) / 2
    return 0.5 * (1 + apply("erf", astype(x, float64) * math.sqrt(0.5)))


@located
def exponential(key: Any, shape: Any = None, rate: ArrayLike = 1.0, dtype: object = None) -> Tensor:
    """Exponentially distributed numbers with mean ``1 / rate``: ``-log(u) / rate``, never 0.

    Parameters
    ----------
    key : a key, or a `Generator`.
    shape : integers, dimensions, or their names (default: that of the parameter).
    rate : positive: a number, or a tensor that broadcasts; there is a gradient by it.
    dtype : float32 or float64 (default: that of the parameter; float32 for Python numbers).
    """
    d = drawn("exponential", shape, dtype, rate=(rate, positive))
    e = minus_log(source_of("exponential", key), d.shape, d.dtype)
    return e if is_number(d.parameters[0], 1) else e / d.parameters[0]


@located
def gumbel(
    key: Any, shape: Any = None, loc: ArrayLike = 0.0, scale: ArrayLike = 1.0, dtype: object = None,
) -> Tensor:
    """Numbers with Gumbel's extreme value distribution: ``loc - scale * log(-log(u))``.

    Parameters are those of `normal`; the mean is ``loc + 0.5772 * scale``.
    """
    d = drawn("gumbel", shape, dtype, loc=(loc, None), scale=(scale, at_least))
    return _located_scaled(-log(minus_log(source_of("gumbel", key), d.shape, d.dtype)), *d.parameters)


@located
def laplace(
    key: Any, shape: Any = None, loc: ArrayLike = 0.0, scale: ArrayLike = 1.0, dtype: object = None,
) -> Tensor:
    """Numbers with density ``exp(-abs(x - loc) / scale) / (2 scale)``.

    Parameters are those of `normal`; the standard deviation is ``sqrt(2) * scale``.
    """
    d = drawn("laplace", shape, dtype, loc=(loc, None), scale=(scale, at_least))
    tail, upper = signed_tail(source_of("laplace", key), d.shape, d.dtype)
    z = log(2 * tail)
    return _located_scaled(where(upper, -z, z), *d.parameters)
