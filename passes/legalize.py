"""Legalize convolutions and pooling: padding becomes an op of its own, positions become narrow.

What remains are convolutions without padding, whose inner loops need no guards: the schedule reads
their input where it lies. The gradient by the input stays one op where the kernel moves step by step
(`schedule_scatter`). With strides or groups it becomes the convolution of the padded, spread-out
cotangent with the reversed kernel (Dumoulin and Visin, "A guide to convolution arithmetic for deep
learning", 2016).
"""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.dims import Dim, at_most, product
from ..ir.dtypes import int32, int64
from ..ir.graph import Graph, Value, source_location
from ..ir.op import OPS
from .rewrite import RuleSet, rewrite

__all__ = ["legalize"]

LEGALIZE = RuleSet("the forms that schedules know")


def _pad(x: Value, low: Sequence[Dim], high: Sequence[Dim], interior: Sequence[Dim]) -> Value:
    """Pad the spatial axes with zeros."""
    if not any((*low, *high, *interior)):
        return x
    still = (0, 0)
    return OPS["pad"](x, low=(*still, *low), high=(*still, *high), interior=(*still, *interior), value=0)


def _is_padded(padding: Sequence[tuple[Dim, Dim]]) -> bool:
    return any(p != 0 for pair in padding for p in pair)


@LEGALIZE.rule("conv", "conv(x, w, padding=p) -> conv(pad(x), w)")
def _padded_conv(value: Value) -> Value | None:
    x, w = value.operands
    padding = value.attrs["padding"]
    if not _is_padded(padding):
        return None
    inner = _pad(x, [p for p, _ in padding], [p for _, p in padding], [0] * len(padding))
    return OPS["conv"](inner, w, **{**value.attrs, "padding": ((0, 0),) * len(padding)})


@LEGALIZE.rule("conv_weight_grad", "conv_weight_grad(x, ct, padding=p) -> conv_weight_grad(pad(x), ct)")
def _padded_weight_grad(value: Value) -> Value | None:
    x, ct = value.operands
    padding = value.attrs["padding"]
    if not _is_padded(padding):
        return None
    inner = _pad(x, [p for p, _ in padding], [p for _, p in padding], [0] * len(padding))
    return OPS["conv_weight_grad"](inner, ct, **{**value.attrs, "padding": ((0, 0),) * len(padding)})


WIDEST_SCATTER = 11
"""Taps of a kernel row up to which their sums fit the registers of any target."""


def _scatters(value: Value) -> bool:
    """Whether a gradient by the input is scheduled as it stands, but for padding."""
    taps = value.operands[1].tensor.shape[-1]
    steps = all(s == 1 for s in value.attrs["stride"])
    return steps and value.attrs["groups"] == 1 and isinstance(taps, int) and taps <= WIDEST_SCATTER


@LEGALIZE.rule("conv_input_grad", "conv_input_grad(ct, w, padding=p) -> slice(conv_input_grad(ct, w))")
def _padded_input_grad(value: Value) -> Value | None:
    ct, w = value.operands
    a = value.attrs
    if not _scatters(value) or not _is_padded(a["padding"]):
        return None
    whole = tuple(n + low + high for n, (low, high) in zip(a["shape"], a["padding"], strict=True))
    plain = ((0, 0),) * len(whole)
    full = OPS["conv_input_grad"](ct, w, **{**a, "shape": whole, "padding": plain})
    start = (0, 0, *(low for low, _ in a["padding"]))
    return OPS["slice"](full, start=start, shape=value.tensor.shape, step=(1,) * len(start))


@LEGALIZE.rule("conv_input_grad", "conv_input_grad(ct, w) -> conv(pad(ct), reversed w)")
def _input_grad(value: Value) -> Value | None:
    ct, w = value.operands
    a = value.attrs
    if _scatters(value):
        return None
    kernel, size = w.tensor.shape[2:], ct.tensor.shape[2:]
    low: list[Dim] = []
    high: list[Dim] = []
    for k, s, d, (p, _), out, whole in zip(
        kernel, a["stride"], a["dilation"], a["padding"], size, a["shape"], strict=True
    ):
        reach = (k - 1) * d
        low.append(reach - p)
        high.append(whole - 1 - (out - 1) * s + p)
    if not all(isinstance(p, int) and p >= 0 for p in (*low, *high)):
        return None  # more padding than the kernel reaches, or unknown: the direct definition is right too
    inner = _pad(ct, low, high, [s - 1 for s in a["stride"]])
    ones = (1,) * len(kernel)
    return OPS["conv"](
        inner, _reversed(w, a["groups"]), stride=ones, padding=((0, 0),) * len(kernel),
        dilation=a["dilation"], groups=a["groups"],
    )  # fmt: skip


def _reversed(w: Value, groups: int) -> Value:
    """The kernel with its spatial axes reversed, and its two channel axes exchanged within each group."""
    o, c, *kernel = w.tensor.shape
    spatial = tuple(range(2, 2 + len(kernel)))
    if groups == 1:
        return OPS["reverse"](OPS["transpose"](w, perm=(1, 0, *spatial)), axes=spatial)
    split = OPS["reshape"](w, shape=(groups, o // groups, c, *kernel))
    swapped = OPS["transpose"](split, perm=(0, 2, 1, *(k + 1 for k in spatial)))
    return OPS["reverse"](OPS["reshape"](swapped, shape=(groups * c, o // groups, *kernel)), axes=spatial)


@LEGALIZE.rule("window_put", "window_put(ct, window_argmax(x)) -> window_put(ct, window_argmax(x, dtype=int32))")
def _narrow_winner(value: Value) -> Value | None:
    ct, winner = value.operands
    if winner.op.name != "window_argmax" or winner.attrs["dtype"] != int64:
        return None
    if not at_most(product(winner.attrs["kernel"]), 2**31 - 1):
        return None
    narrow = OPS["window_argmax"](*winner.operands, **{**winner.attrs, "dtype": int32})
    return OPS["window_put"](ct, narrow, **value.attrs)


def legalize(graph: Graph) -> Graph:
    """The graph with convolutions in the forms that targets schedule."""
    with source_location(None):
        return rewrite(graph, LEGALIZE)
