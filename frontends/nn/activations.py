"""Activation functions, and softmax with its logarithm."""

from __future__ import annotations

import math

from ...errors import GraphError, ShapeError
from .. import array_api
from ..array_api import astype, clip, logsumexp, one_hot, reshape, split, where
from ..array_api.statistical import shift, spread
from ..shapes import as_axis, fail
from ..source import located
from ..tensor import ArrayLike, Tensor, apply
from .common import floating

__all__ = [
    "celu", "elu", "gelu", "glu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "log_softmax", "logsigmoid",
    "logsumexp", "mish", "one_hot", "prelu", "relu", "relu6", "selu", "sigmoid", "silu", "softmax", "softmin",
    "softplus", "softsign", "tanh", "tanhshrink", "threshold",
]


@located
def relu(x: ArrayLike) -> Tensor:
    """``max(x, 0)``; the gradient at 0 is 0."""
    return apply("relu", x)


@located
def relu6(x: ArrayLike) -> Tensor:
    """``min(max(x, 0), 6)``."""
    return clip(x, 0, 6)


@located
def leaky_relu(x: ArrayLike, negative_slope: float = 0.01) -> Tensor:
    """``x`` where positive, ``negative_slope * x`` elsewhere."""
    x = floating("leaky_relu", x)
    return where(x > 0, x, x * negative_slope)


@located
def prelu(x: ArrayLike, weight: ArrayLike) -> Tensor:
    """`leaky_relu` with one learned slope, or one per channel (axis 1)."""
    x, weight = floating("prelu", x), floating("prelu", weight)
    if weight.ndim > 1:
        fail("prelu", ShapeError, "the weight must have at most one axis", [x, weight])
    if weight.ndim == 1 and weight.shape[0] != 1 and x.ndim > 1:
        weight = reshape(weight, (weight.shape[0], *(1,) * (x.ndim - 2)))
    return where(x > 0, x, x * weight)


@located
def elu(x: ArrayLike, alpha: float = 1.0) -> Tensor:
    """``x`` where positive, ``alpha * (exp(x) - 1)`` elsewhere (Clevert et al. 2015)."""
    x = floating("elu", x)
    return where(x > 0, x, alpha * array_api.expm1(x))


@located
def celu(x: ArrayLike, alpha: float = 1.0) -> Tensor:
    """``x`` where positive, ``alpha * (exp(x / alpha) - 1)`` elsewhere (Barron 2017)."""
    x = floating("celu", x)
    return where(x > 0, x, alpha * array_api.expm1(x / alpha))


@located
def selu(x: ArrayLike) -> Tensor:
    """`elu` scaled to keep mean 0 and variance 1 (Klambauer et al. 2017)."""
    return 1.0507009873554804934193349852946 * elu(x, 1.6732632423543772848170429916717)


@located
def gelu(x: ArrayLike, approximate: str = "none") -> Tensor:
    """``x * Phi(x)`` with the normal distribution function (Hendrycks and Gimpel 2016).

    ``approximate="tanh"`` takes their formula with tanh instead of the error function.
    """
    x = floating("gelu", x)
    if approximate == "none":
        return 0.5 * x * (1 + array_api.erf(x * math.sqrt(0.5)))
    if approximate != "tanh":
        fail("gelu", GraphError, f"approximate must be 'none' or 'tanh', got {approximate!r}", [x])
    return 0.5 * x * (1 + array_api.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))))


@located
def sigmoid(x: ArrayLike) -> Tensor:
    """``1 / (1 + exp(-x))``."""
    return apply("sigmoid", x)


@located
def logsigmoid(x: ArrayLike) -> Tensor:
    """``log(sigmoid(x))``, exact for all x."""
    return -apply("softplus", -floating("logsigmoid", x))


@located
def silu(x: ArrayLike) -> Tensor:
    """``x * sigmoid(x)``, also called swish."""
    x = floating("silu", x)
    return x * apply("sigmoid", x)


@located
def mish(x: ArrayLike) -> Tensor:
    """``x * tanh(softplus(x))`` (Misra 2019)."""
    x = floating("mish", x)
    return x * array_api.tanh(apply("softplus", x))


@located
def softplus(x: ArrayLike, beta: float = 1.0, threshold: float | None = None) -> Tensor:
    """``log(1 + exp(beta * x)) / beta``, exact for all x; `x` itself where ``beta * x > threshold``."""
    x = floating("softplus", x)
    result = apply("softplus", x) if beta == 1 else apply("softplus", beta * x) / beta
    return result if threshold is None else where(beta * x > threshold, x, result)


@located
def tanh(x: ArrayLike) -> Tensor:
    """The hyperbolic tangent."""
    return apply("tanh", x)


@located
def hardtanh(x: ArrayLike, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """``x``, not below `min_val` and not above `max_val`."""
    return clip(floating("hardtanh", x), min_val, max_val)


@located
def hardsigmoid(x: ArrayLike) -> Tensor:
    """``min(max(x + 3, 0), 6) / 6``."""
    return clip(floating("hardsigmoid", x) + 3, 0, 6) / 6


@located
def hardswish(x: ArrayLike) -> Tensor:
    """``x * hardsigmoid(x)`` (Howard et al. 2019)."""
    x = floating("hardswish", x)
    return x * hardsigmoid(x)


@located
def softsign(x: ArrayLike) -> Tensor:
    """``x / (1 + |x|)``."""
    x = floating("softsign", x)
    return x / (1 + abs(x))


@located
def tanhshrink(x: ArrayLike) -> Tensor:
    """``x - tanh(x)``."""
    x = floating("tanhshrink", x)
    return x - array_api.tanh(x)


@located
def threshold(x: ArrayLike, threshold: float, value: float) -> Tensor:
    """``x`` where above the threshold, `value` elsewhere."""
    x = floating("threshold", x)
    return where(x > threshold, x, value)


@located
def glu(x: ArrayLike, axis: int = -1) -> Tensor:
    """The first half along `axis` times the sigmoid of the second (Dauphin et al. 2016)."""
    a, b = split(floating("glu", x), 2, axis)
    return a * apply("sigmoid", b)


@located
def softmax(x: ArrayLike, axis: int = -1, dtype: object = None) -> Tensor:
    """``exp(x) / sum(exp(x))`` along an axis, without overflow."""
    x = floating("softmax", x if dtype is None else astype(x, dtype))
    axes = (as_axis(axis, x.ndim, "softmax"),)
    weights = array_api.exp(x - spread(shift(x, axes), x, axes))
    return weights / spread(array_api.sum(weights, axes), x, axes)


@located
def softmin(x: ArrayLike, axis: int = -1, dtype: object = None) -> Tensor:
    """``softmax(-x)``."""
    return softmax(-floating("softmin", x), axis, dtype)


@located
def log_softmax(x: ArrayLike, axis: int = -1, dtype: object = None) -> Tensor:
    """``log(softmax(x))`` along an axis, exact where the softmax underflows."""
    x = floating("log_softmax", x if dtype is None else astype(x, dtype))
    axes = (as_axis(axis, x.ndim, "log_softmax"),)
    shifted = x - spread(shift(x, axes), x, axes)
    return shifted - spread(array_api.log(array_api.sum(array_api.exp(shifted), axes)), x, axes)
