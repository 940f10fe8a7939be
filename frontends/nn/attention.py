"""Embedding and attention."""

from __future__ import annotations

import math
from collections.abc import Callable

from ...errors import DTypeError, GraphError, ShapeError
from ...ir.dims import equal
from ..array_api import asarray, matmul, matrix_transpose, take, where
from ..array_api.creation import iota
from ..shapes import fail
from ..source import located
from ..tensor import ArrayLike, Tensor
from .activations import softmax
from .common import floating

__all__ = ["embedding", "scaled_dot_product_attention"]


@located
def embedding(input: ArrayLike, weight: ArrayLike) -> Tensor:
    """The rows of `weight` at integer positions: ``[...]`` and ``[V, D]`` give ``[..., D]``.

    Positions are read as by `take`: a negative one counts from the end, one out of range is clamped. The
    gradient adds up over equal positions.
    """
    weight = asarray(weight)
    if weight.ndim != 2:
        fail("embedding", ShapeError, f"the weight must be [V, D], got rank {weight.ndim}", [weight])
    return take(weight, input, axis=0)


@located
def scaled_dot_product_attention(
    query: ArrayLike, key: ArrayLike, value: ArrayLike, attn_mask: ArrayLike | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, *, dropout: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """``softmax(query @ key^T * scale + mask) @ value`` (Vaswani et al. 2017).

    Parameters
    ----------
    query, key, value : ``[..., L, E]``, ``[..., S, E]`` and ``[..., S, V]``.
    attn_mask : broadcasts to ``[..., L, S]``; bool (True takes part) or floating-point (added).
    dropout_p : must be 0: random numbers come from a generator, so give `dropout`.
    dropout : a function of the weights before they meet the values, such as ``nn.Dropout(0.1, rng=rng)``.
    is_causal : position i attends to positions up to i only; not together with a mask.
    scale : default ``1 / sqrt(E)``.

    Returns
    -------
    ``[..., L, V]``; NaN in a row where the mask lets nothing take part.
    """
    name = "scaled_dot_product_attention"
    q, k, v = floating(name, query), floating(name, key), floating(name, value)
    if dropout_p:
        fail(name, GraphError, f"dropout_p must be 0, got {dropout_p}", (), "give dropout=nn.Dropout(p, rng=rng)")
    if is_causal and attn_mask is not None:
        fail(name, GraphError, "is_causal and attn_mask exclude each other", [q, k, v])
    if min(q.ndim, k.ndim, v.ndim) < 2 or not equal(q.shape[-1], k.shape[-1]) or not equal(k.shape[-2], v.shape[-2]):
        fail(name, ShapeError, "needs query [..., L, E], key [..., S, E] and value [..., S, V]", [q, k, v])
    if scale is None:
        width = q.shape[-1]
        scaled = q * (1 / math.sqrt(width)) if isinstance(width, int) and width else q / asarray(width, q.dtype) ** 0.5
    else:
        scaled = q * scale
    scores = matmul(scaled, matrix_transpose(k))
    weights = softmax(_masked(name, scores, attn_mask, is_causal))
    return matmul(weights if dropout is None else dropout(weights), v)


def _masked(name: str, scores: Tensor, mask: ArrayLike | None, is_causal: bool) -> Tensor:
    """Scores with minus infinity where a position takes no part."""
    if is_causal:
        shape = scores.shape[-2:]
        return where(iota(shape, 0) >= iota(shape, 1), scores, -math.inf)
    if mask is None:
        return scores
    mask = asarray(mask)
    if mask.dtype.is_bool:
        return where(mask, scores, -math.inf)
    if not mask.dtype.is_float:
        fail(name, DTypeError, f"the mask must be bool or floating-point, got {mask.dtype!r}", [scores, mask])
    return scores + mask
