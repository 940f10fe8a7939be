"""Distributions sampled by rejection: a loop over the whole tensor, until every element has been accepted.

The loop is compiled, and its steps draw from keys of their own. Elements that were accepted keep their value, so an
element's number depends on its position and its parameters alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...errors import GraphError, ShapeError
from ...ir.dtypes import DType, as_dtype, float64, int64
from ...ir.types import Shape
from ..array_api import any as any_
from ..array_api import asarray, astype, broadcast_to, expand_dims, floor, full, log, sqrt, sum, where
from ..control import while_loop
from ..shapes import as_shape, fail
from ..source import located
from ..tensor import ArrayLike, Tensor, apply
from .keys import STEP, Source, folded
from .parameters import at_least, check, drawn, is_number, known, positive, source_of
from .uniforms import half_open, signed_tail

__all__ = ["beta", "dirichlet", "gamma", "poisson"]


def _until_accepted(
    source: Source, start: Tensor, done: Tensor, propose: Callable[[Source, Source], tuple[Tensor, Tensor]],
) -> Tensor:
    """Values of proposals, each the first that was accepted.

    Parameters
    ----------
    source : a key of its own.
    start, done : values, and which of them need no proposal.
    propose : from two sources to proposals and whether they are accepted.
    """

    def step(carry: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        i, finished, value = carry
        key = folded(source.key, i, STEP)
        proposal, accepted = propose(Source(key, 0), Source(key, 1))
        return i + 1, finished | accepted, where(finished, value, proposal)

    zero = asarray(np.array(0, np.int64))
    return while_loop(lambda carry: any_(~carry[1]), step, (zero, done, start))[2]  # type: ignore[no-any-return]


def _normal(source: Source, shape: Shape, dtype: DType) -> Tensor:
    tail, upper = signed_tail(source, shape, dtype)
    z = apply("ndtri", tail)
    return where(upper, -z, z)


def _standard_gamma(source: Source, concentration: Any, shape: Shape, dtype: DType) -> Tensor:
    """G. Marsaglia, W. W. Tsang, "A simple method for generating gamma variables", ACM TOMS 26 (2000).

    For a below 1 a number for a + 1 is multiplied by ``u**(1/a)``.
    """
    first, second = source.parts(2)
    concentration = broadcast_to(asarray(concentration, dtype), shape)
    a = apply("stop_gradient", concentration)
    small = a < 1
    d = where(small, a + 1, a) - 1 / 3
    c = 1 / (3 * sqrt(d))

    def propose(normals: Source, uniforms: Source) -> tuple[Tensor, Tensor]:
        x = _normal(normals, shape, dtype)
        t = 1 + c * x
        v = t * t * t
        u = signed_tail(uniforms, shape, dtype)
        level = where(u[1], 1 - u[0], u[0])
        bound = 0.5 * (x * x) + d * (1 - v + log(where(v > 0, v, 1)))
        return d * v, (v > 0) & (log(level) < bound)

    wrong = ~(a > 0)
    value = _until_accepted(first, where(wrong, math.nan, broadcast_to(asarray(0.0, dtype), shape)), wrong, propose)
    sample = where(small, value * _power_of_uniform(second, shape, dtype, a), value)
    return apply("by_concentration", sample, concentration)


def _power_of_uniform(source: Source, shape: Shape, dtype: DType, a: Tensor) -> Tensor:
    """``u**(1/a)``, u above 0."""
    tail, upper = signed_tail(source, shape, dtype)
    return apply("exp", where(upper, log(tail), apply("log1p", -tail)) / a)


@located
def gamma(
    key: Any, concentration: ArrayLike, rate: ArrayLike = 1.0, shape: Any = None, dtype: object = None,
) -> Tensor:
    """Gamma distributed numbers with mean ``concentration / rate``.

    Parameters
    ----------
    key : a key, or a `Generator`.
    concentration, rate : positive numbers, or tensors that broadcast, with gradients by both (`gamma_slope` in
        `ir.ops.random`). NaN where the concentration is not positive.
    shape : integers, dimensions, or their names (default: that of the parameters).
    dtype : float32 or float64 (default: that of the parameters; float32 for Python numbers).

    Raises
    ------
    GraphError
        If a known parameter is not positive.
    """
    d = drawn("gamma", shape, dtype, concentration=(concentration, positive), rate=(rate, positive))
    value = _standard_gamma(source_of("gamma", key), d.parameters[0], d.shape, d.dtype)
    return value if is_number(d.parameters[1], 1) else value / d.parameters[1]


@located
def beta(key: Any, a: ArrayLike, b: ArrayLike, shape: Any = None, dtype: object = None) -> Tensor:
    """Beta distributed numbers with mean ``a / (a + b)``: of two gamma distributed ones, the first's share.

    Parameters
    ----------
    key : a key, or a `Generator`.
    a, b : positive numbers, or tensors that broadcast, with gradients.
    shape, dtype : as of `gamma`.
    """
    d = drawn("beta", shape, dtype, a=(a, positive), b=(b, positive))
    first, second = source_of("beta", key).parts(2)
    x, y = (_standard_gamma(s, p, d.shape, d.dtype) for s, p in zip((first, second), d.parameters))
    return x / (x + y)


@located
def dirichlet(key: Any, concentration: ArrayLike, shape: Any = None, dtype: object = None) -> Tensor:
    """Vectors of positive numbers with the sum 1, Dirichlet distributed.

    Parameters
    ----------
    key : a key, or a `Generator`.
    concentration : positive, along the last axis, with a gradient.
    shape : of the result without its last axis, to which other axes of the concentration broadcast.
    dtype : as of `gamma`.
    """
    alpha = asarray(concentration)
    if not alpha.ndim:
        fail("dirichlet", ShapeError, "the concentration needs an axis, along which the sum is 1", [alpha])
    whole = alpha.shape if shape is None else (*as_shape(shape, "dirichlet"), alpha.shape[-1])
    d = drawn("dirichlet", whole, dtype, concentration=(alpha, positive))
    g = _standard_gamma(source_of("dirichlet", key), d.parameters[0], d.shape, d.dtype)
    return g / expand_dims(sum(g, axis=-1), -1)


# --- Poisson -------------------------------------------------------------------------------------

_FEW = 10.0
"""Rates below it are searched from 0 upward, others by transformed rejection."""


@located
def poisson(key: Any, rate: ArrayLike, shape: Any = None, dtype: object = int64) -> Tensor:
    """Numbers of events, Poisson distributed with mean `rate`.

    Parameters
    ----------
    key : a key, or a `Generator`.
    rate : numbers from 0, or a tensor that broadcasts, at most 2**52. There is no gradient. The result is -1 where a
        rate that is known only at a call is negative or NaN.
    shape : integers, dimensions, or their names (default: that of the parameter).
    dtype : of the result, signed integers.

    Raises
    ------
    GraphError
        If a known rate is negative.
    """
    check("poisson", "rate", rate, at_least)
    kind = as_dtype(dtype)
    if not kind.is_signed or not kind.is_integer:
        fail("poisson", GraphError, f"dtype must be that of signed integers, got {kind!r}")
    d = drawn("poisson", shape, None, rate=(rate, None))
    mean = broadcast_to(apply("stop_gradient", asarray(d.parameters[0], float64)), d.shape)
    small, large = source_of("poisson", key).parts(2)
    value = known(rate)
    if value is not None and np.all(value < _FEW):
        result = _searched(small, mean)
    elif value is not None and np.all(value >= _FEW):
        result = _transformed(large, mean)
    else:
        result = where(mean < _FEW, _searched(small, mean), _transformed(large, mean))
    return astype(where(mean >= 0, result, -1), kind)


def _searched(source: Source, mean: Tensor) -> Tensor:
    """The least k at which the distribution function is above a uniform number."""
    u = half_open(source, mean.shape, float64)
    few = (mean >= 0) & (mean < _FEW)
    first = apply("exp", -where(few, mean, 0))

    def step(carry: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        k, p, total, done = carry
        after = k + 1
        q = p * mean / after
        grown = total + q
        found = done | (u < grown) | (q == 0)
        return where(done, k, after), q, grown, found

    start = (full(mean.shape, 0.0, float64), first, first, ~few | (u < first))
    return while_loop(lambda carry: any_(~carry[3]), step, start)[0]  # type: ignore[no-any-return]


def _transformed(source: Source, mean: Tensor) -> Tensor:
    """W. Hörmann, "The transformed rejection method for generating Poisson random variables" (1993), PTRS."""
    many = mean >= _FEW
    rate = where(many, mean, _FEW)
    b = 0.931 + 2.53 * sqrt(rate)
    a = -0.059 + 0.02483 * b
    inverse_alpha = 1.1239 + 1.1328 / (b - 3.4)
    ratio = 0.9277 - 3.6224 / (b - 2)

    def propose(first: Source, second: Source) -> tuple[Tensor, Tensor]:
        u = half_open(first, mean.shape, float64) - 0.5
        v = 1 - half_open(second, mean.shape, float64)
        us = 0.5 - abs(u)
        safe = where(us > 0, us, 0.5)
        k = floor((2 * a / safe + b) * u + rate + 0.43)
        accepted = log(v) + log(inverse_alpha) - log(a / (safe * safe) + b) <= (
            k * log(rate) - rate - _log_factorial(where(k > 0, k, 0))
        )
        near = (us >= 0.07) & (v <= ratio)
        fits = (k >= 0) & (us > 0) & ((us >= 0.013) | (v <= us))
        return k, near | (fits & accepted)

    return _until_accepted(source, full(mean.shape, 0.0, float64), ~many, propose)


def _log_factorial(k: Tensor) -> Tensor:
    """``log(k!)`` by Stirling's series for k + 8, less the logarithm of ``(k + 1) ... (k + 8)``."""
    product = k + 1
    for n in range(2, 9):
        product = product * (k + n)
    x = k + 8
    inverse = 1 / x
    z = inverse * inverse
    series = inverse * (1 / 12 - z * (1 / 360 - z * (1 / 1260 - z / 1680)))
    return x * log(x) - x + 0.5 * log(2 * math.pi * x) + series - log(product)
