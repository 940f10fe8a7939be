"""Normalization: over a layer, a batch, groups of channels, or to unit length."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import GraphError, ShapeError
from ...ir.dims import Dim, equal, floordiv, mod, product
from .. import array_api
from ..array_api import asarray, maximum, mean, reshape, sqrt
from ..shapes import as_axis, as_shape, fail
from ..source import located
from ..tensor import ArrayLike, Tensor
from .common import along_channels, floating

__all__ = ["batch_norm", "cosine_similarity", "group_norm", "instance_norm", "layer_norm", "normalize", "rms_norm"]


def _standardized(x: Tensor, axes: tuple[int, ...], eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """``(x - mean) / sqrt(var + eps)`` over axes, with the mean and the variance (sizes 1 kept).

    One division for all elements of a mean, then products.
    """
    center = mean(x, axes, keepdims=True)
    deviation = x - center
    variance = mean(deviation * deviation, axes, keepdims=True)
    return deviation * (1 / sqrt(variance + eps)), center, variance


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _trailing(name: str, x: Tensor, normalized_shape: int | Sequence[Dim]) -> tuple[int, ...]:
    shape = as_shape(normalized_shape, name)
    own = x.shape[x.ndim - len(shape):]
    if not shape or len(shape) > x.ndim or not all(map(equal, shape, own)):
        fail(
            name, ShapeError, f"normalized_shape {shape} is not that of the last axes", [x],
            "statistics are taken over the last axes: give their sizes",
        )
    return tuple(range(x.ndim - len(shape), x.ndim))


@located
def layer_norm(
    x: ArrayLike, normalized_shape: int | Sequence[Dim], weight: ArrayLike | None = None,
    bias: ArrayLike | None = None, eps: float = 1e-5,
) -> Tensor:
    """Mean 0 and variance 1 over the last axes, then times `weight` plus `bias` (Ba et al. 2016).

    Raises
    ------
    ShapeError
        If `normalized_shape` is not that of the last axes.
    """
    x = floating("layer_norm", x)
    axes = _trailing("layer_norm", x, normalized_shape)
    y, _, _ = _standardized(x, axes, eps)
    return _affine(y, *(None if p is None else asarray(p) for p in (weight, bias)))


@located
def rms_norm(
    x: ArrayLike, normalized_shape: int | Sequence[Dim], weight: ArrayLike | None = None, eps: float = 1e-6,
) -> Tensor:
    """``x / sqrt(mean(x^2) + eps)`` over the last axes, then times `weight` (Zhang and Sennrich 2019)."""
    x = floating("rms_norm", x)
    axes = _trailing("rms_norm", x, normalized_shape)
    y = x * (1 / sqrt(mean(x * x, axes, keepdims=True) + eps))
    return _affine(y, None if weight is None else asarray(weight), None)


def _channels(name: str, x: Tensor, argument: str, vector: ArrayLike | None) -> Tensor | None:
    """A per-channel vector, shaped to broadcast with `x`."""
    if vector is None:
        return None
    tensor = asarray(vector)
    if tensor.ndim != 1 or not equal(tensor.shape[0], x.shape[1]):
        fail(name, ShapeError, f"{argument} must have shape [{x.shape[1]}], one per channel", [x, tensor])
    return along_channels(tensor, x.ndim)


@located
def batch_norm(
    x: ArrayLike, running_mean: ArrayLike | None, running_var: ArrayLike | None, weight: ArrayLike | None = None,
    bias: ArrayLike | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor | tuple[Tensor, Tensor | None, Tensor | None]:
    """Mean 0 and variance 1 per channel (axis 1), then times `weight` plus `bias` (Ioffe and Szegedy 2015).

    Returns
    -------
    With ``training=False`` the output, normalized with the running statistics.

    With ``training=True`` three tensors: the output, normalized with the batch's statistics, and the new
    running mean and variance (``(1 - momentum) * old + momentum * batch``, the batch's variance divided by
    n - 1). A graph does not write into its arguments: pass them on as updates::

        y, mean, var = gw.nn.batch_norm(x, running_mean, running_var, weight, bias, training=True)
        gw.function([x], y, updates={running_mean: mean, running_var: var})

    The new statistics are None where the old ones are.
    """
    x = floating("batch_norm", x)
    if x.ndim < 2:
        fail("batch_norm", ShapeError, "needs an input [N, C, ...]", [x])
    scale, shift, center, variance = (
        _channels("batch_norm", x, argument, vector)
        for argument, vector in zip(
            ("weight", "bias", "running_mean", "running_var"), (weight, bias, running_mean, running_var),
        )
    )
    if not training:
        if center is None or variance is None:
            fail("batch_norm", GraphError, "inference needs running_mean and running_var", [x], "or set training=True")
        return _affine((x - center) * (1 / sqrt(variance + eps)), scale, shift)
    axes = (0, *range(2, x.ndim))
    y, batch_mean, batch_var = _standardized(x, axes, eps)
    count = asarray(product(x.shape[a] for a in axes), x.dtype)
    unbiased = batch_var * (count / (count - 1))
    new = [
        None if old is None else reshape((1 - momentum) * old + momentum * batch, (x.shape[1],))
        for old, batch in ((center, batch_mean), (variance, unbiased))
    ]
    return _affine(y, scale, shift), new[0], new[1]


@located
def group_norm(
    x: ArrayLike, num_groups: int, weight: ArrayLike | None = None, bias: ArrayLike | None = None, eps: float = 1e-5,
) -> Tensor:
    """Mean 0 and variance 1 over each group of channels (axis 1) of each example (Wu and He 2018)."""
    x = floating("group_norm", x)
    if x.ndim < 2 or num_groups < 1 or not equal(mod(x.shape[1], num_groups), 0):
        fail("group_norm", ShapeError, f"the channels do not divide into {num_groups} groups", [x])
    grouped = reshape(x, (x.shape[0], num_groups, floordiv(x.shape[1], num_groups), *x.shape[2:]))
    y, _, _ = _standardized(grouped, tuple(range(2, grouped.ndim)), eps)
    scale, shift = (_channels("group_norm", x, n, v) for n, v in (("weight", weight), ("bias", bias)))
    return _affine(reshape(y, x.shape), scale, shift)


@located
def instance_norm(
    x: ArrayLike, weight: ArrayLike | None = None, bias: ArrayLike | None = None, eps: float = 1e-5,
) -> Tensor:
    """Mean 0 and variance 1 over each channel of each example (Ulyanov et al. 2016)."""
    x = floating("instance_norm", x)
    if x.ndim < 3:
        fail("instance_norm", ShapeError, "needs an input [N, C, ...] with spatial axes", [x])
    y, _, _ = _standardized(x, tuple(range(2, x.ndim)), eps)
    scale, shift = (_channels("instance_norm", x, n, v) for n, v in (("weight", weight), ("bias", bias)))
    return _affine(y, scale, shift)


@located
def normalize(x: ArrayLike, p: float = 2.0, axis: int = 1, eps: float = 1e-12) -> Tensor:
    """``x / max(norm, eps)`` with the p-norm along an axis."""
    x = floating("normalize", x)
    axes = (as_axis(axis, x.ndim, "normalize"),)
    if p == 2:
        norm = sqrt(array_api.sum(x * x, axes, keepdims=True))
    elif p == 1:
        norm = array_api.sum(abs(x), axes, keepdims=True)
    elif p == float("inf"):
        norm = array_api.max(abs(x), axes, keepdims=True)
    else:
        norm = array_api.sum(abs(x) ** p, axes, keepdims=True) ** (1 / p)
    return x / maximum(norm, eps)


@located
def cosine_similarity(x1: ArrayLike, x2: ArrayLike, axis: int = 1, eps: float = 1e-8) -> Tensor:
    """``x1 . x2 / max(|x1| |x2|, eps)`` along an axis; the operands broadcast."""
    a, b = array_api.broadcast_arrays(floating("cosine_similarity", x1), floating("cosine_similarity", x2))
    axes = (as_axis(axis, a.ndim, "cosine_similarity"),)
    dot, aa, bb = (array_api.sum(p, axes) for p in (a * b, a * a, b * b))
    return dot / sqrt(maximum(aa * bb, eps * eps))

