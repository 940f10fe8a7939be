"""Normalization layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import ShapeError
from ...ir.dtypes import as_dtype
from ...ir.types import shape_text
from ..array_api import asarray
from ..shapes import as_shape, fail
from ..source import located
from ..tensor import ArrayLike, Tensor, Variable
from . import normalization
from .layers import check_features, sizes
from .module import Buffer, Module

__all__ = ["BatchNorm", "BatchNorm1d", "BatchNorm2d", "GroupNorm", "LayerNorm", "RMSNorm"]


def _scale(shape: Sequence[int], dtype: object) -> Variable:
    return Variable(np.ones(shape), name="weight", dtype=as_dtype(dtype))


def _shift(shape: Sequence[int], dtype: object) -> Variable:
    return Variable(np.zeros(shape), name="bias", dtype=as_dtype(dtype))


class BatchNorm(Module):
    """Mean 0 and variance 1 per channel (axis 1), then times ``weight`` plus ``bias`` (Ioffe and Szegedy 2015).

    In training the statistics are those of the batch, and the buffers ``running_mean`` and ``running_var`` move
    towards them: pass `Module.updates`, or what `nn.training` collects, to the function that trains. In evaluation
    the buffers are used.

    Parameters
    ----------
    num_features : the number of channels.
    eps : added to the variance.
    momentum : the weight of a batch in the running statistics; None: they are the mean over all batches.
    affine : whether there are a weight and a bias.
    track_running_stats : without them the batch's statistics serve in evaluation, too.
    """

    ranks: tuple[int, ...] | None = None

    @located
    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True, *, dtype: object = "float32",
    ) -> None:  # fmt: skip
        sizes(type(self).__name__, num_features=num_features)
        self.num_features, self.eps, self.momentum = int(num_features), eps, momentum
        shape, kind = (self.num_features,), as_dtype(dtype)
        self.weight, self.bias = (_scale(shape, kind), _shift(shape, kind)) if affine else (None, None)
        self.running_mean = self.running_var = self.num_batches_tracked = None
        if track_running_stats:
            self.running_mean = Buffer(np.zeros(shape), "running_mean", kind)
            self.running_var = Buffer(np.ones(shape), "running_var", kind)
            self.num_batches_tracked = Buffer(np.zeros((), np.int64), "num_batches_tracked")

    @located
    def forward(self, x: ArrayLike) -> Tensor:
        x = asarray(x)
        if x.ndim < 2:
            fail(repr(self), ShapeError, f"needs an input [N, C, ...], got [{shape_text(x.shape)}]", [x])
        check_features(self, x, 1, self.num_features, self.ranks)
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return normalization.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)[0]  # type: ignore[index]
        mean, var, seen = map(self.current, (self.running_mean, self.running_var, self.num_batches_tracked))
        if not self.training:
            return normalization.batch_norm(x, mean, var, self.weight, self.bias, eps=self.eps)  # type: ignore[return-value]
        seen = seen + 1
        momentum = 1 / seen.astype(x.dtype) if self.momentum is None else self.momentum
        y, mean, var = normalization.batch_norm(x, mean, var, self.weight, self.bias, True, momentum, self.eps)  # type: ignore
        self.update(self.running_mean, mean)
        self.update(self.running_var, var)
        self.update(self.num_batches_tracked, seen)
        return y

    def describe(self) -> str:
        return f"{self.num_features}, eps={self.eps:g}, momentum={self.momentum}"


class BatchNorm1d(BatchNorm):
    """`BatchNorm` of ``[N, C]`` or ``[N, C, L]``."""

    ranks = (2, 3)


class BatchNorm2d(BatchNorm):
    """`BatchNorm` of ``[N, C, H, W]``."""

    ranks = (4,)


class LayerNorm(Module):
    """Mean 0 and variance 1 over the last axes, then times ``weight`` plus ``bias`` (Ba et al. 2016).

    Parameters
    ----------
    normalized_shape : the sizes of these axes.
    eps : added to the variance.
    affine, bias : whether there are a weight, and with it a bias.
    """

    @located
    def __init__(
        self, normalized_shape: int | Sequence[int], eps: float = 1e-5, affine: bool = True, bias: bool = True, *,
        dtype: object = "float32",
    ) -> None:  # fmt: skip
        shape = as_shape(normalized_shape, "LayerNorm")
        sizes("LayerNorm", **{f"size_{k}": n for k, n in enumerate(shape)})
        self.normalized_shape, self.eps = shape, eps
        self.weight = _scale(shape, dtype) if affine else None  # type: ignore[arg-type]
        self.bias = _shift(shape, dtype) if affine and bias else None  # type: ignore[arg-type]

    @located
    def forward(self, x: ArrayLike) -> Tensor:
        return normalization.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def describe(self) -> str:
        return f"{', '.join(map(str, self.normalized_shape))}, eps={self.eps:g}"


class RMSNorm(Module):
    """``x / sqrt(mean(x^2) + eps)`` over the last axes, times ``weight`` (Zhang and Sennrich 2019)."""

    @located
    def __init__(
        self, normalized_shape: int | Sequence[int], eps: float = 1e-6, affine: bool = True, *,
        dtype: object = "float32",
    ) -> None:  # fmt: skip
        shape = as_shape(normalized_shape, "RMSNorm")
        sizes("RMSNorm", **{f"size_{k}": n for k, n in enumerate(shape)})
        self.normalized_shape, self.eps = shape, eps
        self.weight = _scale(shape, dtype) if affine else None  # type: ignore[arg-type]

    @located
    def forward(self, x: ArrayLike) -> Tensor:
        return normalization.rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def describe(self) -> str:
        return f"{', '.join(map(str, self.normalized_shape))}, eps={self.eps:g}"


class GroupNorm(Module):
    """Mean 0 and variance 1 over each of `num_groups` groups of channels of each example (Wu and He 2018)."""

    @located
    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, *, dtype: object = "float32",
    ) -> None:  # fmt: skip
        sizes("GroupNorm", num_groups=num_groups, num_channels=num_channels)
        if num_channels % num_groups:
            fail("GroupNorm", ShapeError, f"{num_channels} channels do not divide into {num_groups} groups")
        self.num_groups, self.num_channels, self.eps = int(num_groups), int(num_channels), eps
        shape = (self.num_channels,)
        self.weight, self.bias = (_scale(shape, dtype), _shift(shape, dtype)) if affine else (None, None)

    @located
    def forward(self, x: ArrayLike) -> Tensor:
        x = asarray(x)
        if x.ndim < 2:
            fail(repr(self), ShapeError, f"needs an input [N, C, ...], got [{shape_text(x.shape)}]", [x])
        check_features(self, x, 1, self.num_channels)
        return normalization.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def describe(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps:g}"
