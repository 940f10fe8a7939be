"""Legalize convolutions and pooling: padding becomes an op of its own, positions become narrow.

What remains are convolutions without padding, whose inner loops need no guards: the schedule reads
their input where it lies. The gradient by the input becomes the convolution of the padded, spread-out
cotangent with the reversed kernel (Dumoulin and Visin, "A guide to convolution arithmetic for deep
learning", 2016); with strides, one for each phase of the positions, so that nothing is multiplied by
the zeros in between. It stays one op where padding would make it larger (`schedule_scatter`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from ..ir.dims import Dim, at_most, floordiv, mod, product
from ..ir.dtypes import int32, int64
from ..ir.graph import Graph, Value, source_location
from ..ir.op import OPS
from ..ir.types import Shape
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
    """Whether a gradient by the input is scheduled as it stands, but for padding.

    Where the result is no larger than the cotangent, a convolution wastes nothing either.
    """
    ct, w = value.operands
    taps = w.tensor.shape[-1]
    steps = all(s == 1 for s in value.attrs["stride"])
    grows = tuple(value.attrs["shape"]) != tuple(ct.tensor.shape[2:])
    return steps and grows and value.attrs["groups"] == 1 and isinstance(taps, int) and taps <= WIDEST_SCATTER


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


@dataclass(frozen=True)
class Phase:
    """Along one axis, the positions ``stride*i + at``: which taps reach them, and their padding."""

    at: int
    first: int
    taps: int
    low: int
    high: int


def _phases(taps: Dim, stride: int, low: int, outputs: Dim, size: Dim) -> list[Phase] | None:
    """The phases of an axis; None if they differ in size, or their padding is not that of a convolution."""
    if not isinstance(taps, int) or mod(size, stride) != 0:
        return None
    found = []
    for at in range(stride):
        first = (at + low) % stride
        count = len(range(first, taps, stride))
        before = (at + low - first) // stride
        after = outputs - 1 + count - floordiv(size, stride) - before
        if not isinstance(after, int) or count and not (0 <= before < count and 0 <= after < count):
            return None
        found.append(Phase(at, first, count, before, after))
    return found


@LEGALIZE.rule("conv_input_grad", "conv_input_grad(ct, w, stride=s) -> conv_input_grad(ct, w[::s]) interleaved")
def _strided_input_grad(value: Value) -> Value | None:
    """No product with a zero: the positions of one phase are reached by some of the taps, without strides."""
    ct, w = value.operands
    a, shape = value.attrs, value.tensor.shape
    if all(s == 1 for s in a["stride"]) or any(d != 1 for d in a["dilation"]):
        return None
    axes = [
        _phases(k, s, low, out, size) for k, s, (low, _), out, size in zip(
            w.tensor.shape[2:], a["stride"], a["padding"], ct.tensor.shape[2:], a["shape"], strict=True
        )
    ]  # fmt: skip
    result: Value | None = None
    tile = {"kernel": a["stride"], "stride": a["stride"], "padding": ((0, 0),) * len(axes), "dilation": a["dilation"]}
    for phases in itertools.product(*(axis or () for axis in axes)):
        part: Value = OPS["full"](shape=shape, value=0, dtype=value.tensor.dtype)
        if all(p.taps for p in phases):
            part = OPS["window_spread"](_phase(value, phases), shape=a["shape"], **tile)
        result = part if result is None else OPS["where"](_in_phase(shape, a["stride"], phases), part, result)
    return result


def _phase(value: Value, phases: Sequence[Phase]) -> Value:
    """The gradient at the positions of one phase."""
    ct, w = value.operands
    a, (o, c, *_) = value.attrs, w.tensor.shape
    taps = OPS["slice"](
        w, start=(0, 0, *(p.first for p in phases)), shape=(o, c, *(p.taps for p in phases)), step=(1, 1, *a["stride"])
    )  # fmt: skip
    shape = tuple(floordiv(n, s) for n, s in zip(a["shape"], a["stride"], strict=True))
    return OPS["conv_input_grad"](
        ct, taps, shape=shape, stride=(1,) * len(phases), padding=tuple((p.low, p.high) for p in phases),
        dilation=a["dilation"], groups=a["groups"],
    )  # fmt: skip


def _in_phase(shape: Shape, stride: Sequence[int], phases: Sequence[Phase]) -> Value:
    """Where all spatial positions are those of a phase."""
    result: Value | None = None
    for axis, (s, p) in enumerate(zip(stride, phases, strict=True), 2):
        if s > 1:
            position = OPS["mod"](OPS["iota"](shape=shape, axis=axis, dtype=int32), s)
            own = OPS["eq"](position, p.at)
            result = own if result is None else OPS["logical_and"](result, own)
    assert result is not None
    return result


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
