"""Winograd: convolutions whose kernel does not change, by fewer products (`ir.ops.winograd`).

A 3 x 3 kernel without strides needs 9 products for each channel and result. For tiles of m x m results, whose
transforms cost little beside, it is 4 (m = 2) or 2.25 (m = 4). The sums are rounded otherwise: with float32 an
element is wrong by at most 2e-6 (m = 2) or 2e-5 (m = 4) of the sum of its products' magnitudes, as tests check; random
values gave 2e-7 and 3e-6, and plain sums 3e-7. Where magnitudes in a window of m + 2 positions differ widely, it is of
that sum with the largest ones. An infinite or NaN input makes all results of its tiles NaN.
``gw.function(..., prepare=False)`` keeps the plain sums.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..ir.dims import Dim, at_most
from ..ir.dtypes import float32, float64
from ..ir.graph import Literal, Value
from ..ir.op import OPS
from ..ir.ops.winograd import MATRICES
from .cpu_model import CpuModel
from .panels import in_panels
from .predicates import is_static

__all__ = ["LEAST_CHANNELS", "winograd"]

LEAST_CHANNELS = 32
"""Channels, of the input and of the result, from which the products outweigh the transforms."""

LARGE = 12
"""Results along an axis from which the larger tiles are full enough."""


def winograd(conv: Value, operands: Sequence[Value], cpu: CpuModel) -> Value | None:
    """A convolution of these operands by way of products of transformed tiles; None where that is not worth it."""
    x, w = operands
    tile = _tile(conv)
    if tile is None:
        return None
    x, low = _without_padding(x)
    tiles = OPS["winograd_input"](x, tile=tile, shape=conv.tensor.shape[2:], low=low)
    kernel = in_panels(_kernel(w, tile), cpu)
    products = OPS["dot"](tiles, kernel, contract=((3,), (1,)), batch=((0,), (0,)))
    return OPS["winograd_output"](products, tile=tile, shape=conv.tensor.shape[2:])


def _tile(conv: Value) -> int | None:
    """The results along an axis of a tile."""
    x, w = (v.tensor for v in conv.operands)
    a, shape = conv.attrs, conv.tensor.shape[2:]
    plain = a["groups"] == 1 and all(s == 1 for s in (*a["stride"], *a["dilation"])) and not _padded(a["padding"])
    if not plain or w.shape[2:] != (3, 3) or x.dtype != float32:
        return None
    known = is_static((*w.shape, *x.shape[1:]))
    if not known or not all(at_most(LEAST_CHANNELS, n) for n in w.shape[:2]):
        return None
    return 4 if all(isinstance(n, int) and n >= LARGE for n in shape) else 2


def _padded(padding: tuple[tuple[Dim, Dim], ...]) -> bool:
    return any(p != 0 for pair in padding for p in pair)


def _without_padding(x: Value) -> tuple[Value, tuple[int, int]]:
    """What is padded with zeros, and by how many before its axes: the transform knows the edges itself."""
    if x.op.name == "pad":
        a = x.attrs
        spatial = not any((*a["low"][:2], *a["high"][:2], *a["interior"]))
        low = a["low"][2:]
        if spatial and a["value"] == 0 and all(isinstance(p, int) and p >= 0 for p in (*low, *a["high"][2:])):
            return x.operands[0], (low[0], low[1])
    return x, (0, 0)


def _kernel(w: Value, tile: int) -> Value:
    """The transformed kernel ``[(tile + 2)**2, C, O]``, computed in float64."""
    g = np.array(MATRICES[tile][1])
    both = np.einsum("ai,bj->ijab", g, g).reshape(9, -1)
    o, c = w.tensor.shape[:2]
    wide = OPS["cast"](OPS["reshape"](w, shape=(o, c, 9)), dtype=float64)
    transformed = OPS["dot"](wide, OPS["constant"](value=Literal(both)), contract=((2,), (0,)))
    return OPS["cast"](OPS["transpose"](transformed, perm=(2, 1, 0)), dtype=float32)
