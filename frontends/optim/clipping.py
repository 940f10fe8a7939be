"""Gradients kept in bounds."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import GraphError
from ..array_api import clip, minimum, sqrt, sum
from ..shapes import fail
from ..source import located
from ..tensor import Tensor

__all__ = ["clip_by_norm", "clip_by_value", "global_norm"]


@located
def global_norm(tensors: Sequence[Tensor]) -> Tensor:
    """The Euclidean norm of all elements of some tensors."""
    if not tensors:
        fail("global_norm", GraphError, "needs at least one tensor")
    total = sum(tensors[0] * tensors[0])
    for x in tensors[1:]:
        total = total + sum(x * x)
    return sqrt(total)


@located
def clip_by_norm(gradients: Sequence[Tensor], most: float) -> list[Tensor]:
    """The gradients, scaled down together where their global norm exceeds `most`: Pascanu et al. (2013)."""
    scale = minimum(most / (global_norm(gradients) + 1e-6), 1.0)
    return [g * scale for g in gradients]


@located
def clip_by_value(gradients: Sequence[Tensor], most: float) -> list[Tensor]:
    """The gradients, each element within ``-most .. most``."""
    return [clip(g, -most, most) for g in gradients]
