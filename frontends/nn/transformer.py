"""Attention layers and the Transformer's encoder layer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...errors import DTypeError, GraphError, ShapeError
from ...ir.dims import equal
from ...ir.dtypes import as_dtype
from ...ir.types import shape_text
from .. import array_api
from ..array_api import asarray, permute_dims, reshape
from ..shapes import fail
from ..source import located
from ..tensor import ArrayLike, Tensor, Variable
from . import init as initial
from .activations import gelu, relu
from .attention import scaled_dot_product_attention
from .convolution import linear
from .layers import Linear, check_features, sizes
from .module import Module
from .norms import LayerNorm

__all__ = ["MultiheadAttention", "TransformerEncoderLayer"]


class MultiheadAttention(Module):
    """Attention of several heads (Vaswani et al. 2017) over ``[N, L, E]``.

    Parameters
    ----------
    embed_dim : E.
    num_heads : heads of ``E / num_heads`` features.
    bias : whether biases are added.
    dropout : of the weights of attention: ``nn.Dropout(p, rng=...)``.
    rng : a generator or seed for the weights; default: the shared one.

    Called with ``(query, key, value, attn_mask=None, key_mask=None, is_causal=False)``: ``[N, L, E]``, ``[N, S, E]``
    and ``[N, S, E]``; without key and value it is self-attention. `attn_mask` is as of
    `scaled_dot_product_attention`: it broadcasts to ``[N, heads, L, S]``, where True takes part; `key_mask` is
    ``[N, S]`` (bool), False for padding. Parameters have PyTorch's names: ``in_proj_weight [3E, E]``,
    ``in_proj_bias``, ``out_proj``.
    """

    @located
    def __init__(
        self, embed_dim: int, num_heads: int, bias: bool = True, *, dropout: Callable[[Tensor], Tensor] | None = None,
        rng: initial.Seed = None, dtype: object = "float32",
    ) -> None:  # fmt: skip
        sizes("MultiheadAttention", embed_dim=embed_dim, num_heads=num_heads)
        if embed_dim % num_heads:
            fail("MultiheadAttention", GraphError, f"{embed_dim} features do not divide into {num_heads} heads")
        self.embed_dim, self.num_heads, self.dropout = int(embed_dim), int(num_heads), dropout
        rng = initial.generator(rng)
        blocks = [initial.glorot_uniform()((embed_dim, embed_dim), rng) for _ in range(3)]
        self.in_proj_weight = Variable(np.concatenate(blocks), "in_proj_weight", as_dtype(dtype))
        self.in_proj_bias = Variable(np.zeros(3 * embed_dim), "in_proj_bias", as_dtype(dtype)) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias, rng=rng, dtype=dtype)

    @located
    def forward(
        self, query: ArrayLike, key: ArrayLike | None = None, value: ArrayLike | None = None,
        attn_mask: ArrayLike | None = None, key_mask: ArrayLike | None = None, is_causal: bool = False,
    ) -> Tensor:  # fmt: skip
        q = asarray(query)
        k = q if key is None else asarray(key)
        v = k if value is None else asarray(value)
        for x in (q, k, v):
            check_features(self, x, -1, self.embed_dim, (3,))
        q, k, v = self._projections(q, k, v)
        mask = attn_mask if key_mask is None else self._joined(asarray(key_mask), attn_mask, k, is_causal)
        causal = is_causal and key_mask is None
        heads = scaled_dot_product_attention(q, k, v, mask, is_causal=causal, dropout=self.dropout)
        n, _, length, _ = heads.shape
        return self.out_proj(reshape(permute_dims(heads, (0, 2, 1, 3)), (n, length, self.embed_dim)))

    def _projections(self, q: Tensor, k: Tensor, v: Tensor) -> list[Tensor]:
        """Query, key and value as ``[N, heads, length, features]``; of one tensor by one product."""
        e, w, b = self.embed_dim, self.in_proj_weight, self.in_proj_bias
        rows = [slice(j * e, (j + 1) * e) for j in range(3)]
        if q is k and k is v:
            z = linear(q, w, b)
            parts = [z[..., r] for r in rows]
        else:
            parts = [linear(x, w[r], None if b is None else b[r]) for x, r in zip((q, k, v), rows)]
        split = [reshape(p, (*p.shape[:2], self.num_heads, e // self.num_heads)) for p in parts]
        return [permute_dims(p, (0, 2, 1, 3)) for p in split]

    def _joined(self, key_mask: Tensor, attn_mask: ArrayLike | None, k: Tensor, is_causal: bool) -> Tensor:
        """The mask of keys together with the other."""
        wanted = (k.shape[0], k.shape[2])
        if not key_mask.dtype.is_bool:
            fail(repr(self), DTypeError, f"key_mask must be bool, True for what takes part; got {key_mask.dtype!r}",
                 [key_mask])
        if key_mask.ndim != 2 or not all(map(equal, key_mask.shape, wanted)):
            fail(repr(self), ShapeError, f"key_mask must be [{shape_text(wanted)}], one for each key; got "
                 f"[{shape_text(key_mask.shape)}]", [key_mask])
        mask = array_api.expand_dims(key_mask, (1, 2))
        if is_causal:
            fail(repr(self), GraphError, "is_causal and key_mask exclude each other", [key_mask],
                 "in causal attention, padding at the end is seen by padding only")
        if attn_mask is None:
            return mask
        other = asarray(attn_mask)
        return mask & other if other.dtype.is_bool else array_api.where(mask, other, -np.inf)

    def describe(self) -> str:
        return f"{self.embed_dim}, {self.num_heads} heads"


class TransformerEncoderLayer(Module):
    """Self-attention and two dense layers, each with a connection around it and a layer norm (Vaswani et al. 2017).

    Parameters
    ----------
    d_model, nhead : features and heads.
    dim_feedforward : features between the dense layers.
    activation : ``"relu"``, ``"gelu"``, or a function.
    norm_first : whether the norms are before (Xiong et al. 2020) instead of after.
    dropout : of the weights of attention, between the dense layers, and before sums: ``nn.Dropout(p, rng=...)``.
    """

    @located
    def __init__(
        self, d_model: int, nhead: int, dim_feedforward: int = 2048,
        activation: str | Callable[[Tensor], Tensor] = "relu", norm_first: bool = False, eps: float = 1e-5, *,
        dropout: Callable[[Tensor], Tensor] | None = None, rng: initial.Seed = None, dtype: object = "float32",
    ) -> None:  # fmt: skip
        choices = {"relu": relu, "gelu": gelu}
        if not callable(activation) and activation not in choices:
            fail("TransformerEncoderLayer", GraphError, f"activation must be 'relu' or 'gelu', got {activation!r}")
        rng = initial.generator(rng)
        self.self_attn = MultiheadAttention(d_model, nhead, dropout=dropout, rng=rng, dtype=dtype)
        self.linear1 = Linear(d_model, dim_feedforward, rng=rng, dtype=dtype)
        self.linear2 = Linear(dim_feedforward, d_model, rng=rng, dtype=dtype)
        self.norm1, self.norm2 = LayerNorm(d_model, eps, dtype=dtype), LayerNorm(d_model, eps, dtype=dtype)
        self.activation = activation if callable(activation) else choices[activation]
        self.norm_first, self.dropout = norm_first, dropout

    def forward(
        self, x: ArrayLike, attn_mask: ArrayLike | None = None, key_mask: ArrayLike | None = None,
        is_causal: bool = False,
    ) -> Tensor:  # fmt: skip
        x = asarray(x)
        options = {"attn_mask": attn_mask, "key_mask": key_mask, "is_causal": is_causal}
        if self.norm_first:
            x = x + self._dropped(self.self_attn(self.norm1(x), **options))
            return x + self._dense(self.norm2(x))
        x = self.norm1(x + self._dropped(self.self_attn(x, **options)))
        return self.norm2(x + self._dense(x))

    def _dropped(self, x: Tensor) -> Tensor:
        return x if self.dropout is None else self.dropout(x)

    def _dense(self, x: Tensor) -> Tensor:
        return self._dropped(self.linear2(self._dropped(self.activation(self.linear1(x)))))

    def describe(self) -> str:
        return f"{self.linear1.in_features}, {self.self_attn.num_heads} heads, {self.linear1.out_features}"
