"""Convolution over n spatial axes, and its two transposes.

The three ops are bilinear and closed under differentiation: the gradient of each by either operand
is one of the others, so a convolution can be differentiated any number of times. Layout: inputs
``[N, C, *spatial]``, kernels ``[O, C / groups, *kernel]``. As everywhere in deep learning the
kernel is not flipped: ``y[n, o, p] = sum over c, k of x[n, c, stride*p + dilation*k - low] * w[o, c, k]``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import DTypeError, GraphError, ShapeError
from ..batching import fold, one_by_one, unfold
from ..dims import Dim, equal, floordiv, mod
from ..graph import Value, make
from ..loops import Expr, Reduce
from ..op import MULTILINEAR, REQUIRED, Definition, Lanes, Op, Read, Sample, Typing, register
from ..scalars import apply, conjunction
from ..types import Type
from .window import Window

__all__ = ["conv", "conv_input_grad", "conv_weight_grad"]

_ATTRS = {"stride": REQUIRED, "padding": REQUIRED, "dilation": REQUIRED, "groups": 1}


def _check(t: Typing, x: Sequence[Dim], w: Sequence[Dim]) -> tuple[Dim, ...]:
    """The output's shape for an input and a kernel shape, refusing what does not fit."""
    a, b = t.types
    if a.dtype != b.dtype or a.dtype.is_bool:
        t.fail(DTypeError, "operands must have one numeric dtype", "cast with astype")
    if len(x) != len(w) or len(x) < 2:
        t.fail(ShapeError, f"an input of rank {len(x)} needs a kernel of the same rank, got {len(w)}",
               "inputs are [N, C, *spatial], kernels [O, C / groups, *kernel]")
    groups = t["groups"]
    if not isinstance(groups, int) or groups < 1:
        t.fail(GraphError, f"groups must be a positive integer, got {groups}")
    if not equal(x[1], w[1] * groups):
        t.fail(
            ShapeError, f"the input has {x[1]} channels, the kernel takes {w[1]} in each of {groups} groups",
            "the input is [N, channels, *spatial], the kernel [outputs, channels // groups, *spatial]",
        )
    if not equal(mod(w[0], groups), 0):
        t.fail(ShapeError, f"{w[0]} output channels do not divide into {groups} groups")
    window = Window.of(t.attrs, w[2:])
    window.check(t, x[2:])
    return (x[0], w[0], *window.outputs(x[2:]))


def _check_cotangent(t: Typing, got: Sequence[Dim], expected: Sequence[Dim]) -> None:
    if len(got) != len(expected) or not all(map(equal, got, expected)):
        t.fail(
            ShapeError, f"the cotangent must have the shape of the convolution's result, {tuple(expected)}"
        )


def _infer_conv(t: Typing) -> Type:
    x, w = t.types
    return x.with_shape(_check(t, x.shape, w.shape))


def _infer_input_grad(t: Typing) -> Type:
    ct, w = t.types
    if ct.rank < 2 or w.rank < 2:
        t.fail(ShapeError, "a cotangent and a kernel have at least 2 axes each")
    x = (ct.shape[0], w.shape[1] * t["groups"], *t["shape"])
    _check_cotangent(t, ct.shape, _check(t, x, w.shape))
    return ct.with_shape(x)


def _infer_weight_grad(t: Typing) -> Type:
    x, ct = t.types
    if x.rank < 2 or ct.rank < 2:
        t.fail(ShapeError, "an input and a cotangent have at least 2 axes each")
    w = (ct.shape[1], floordiv(x.shape[1], t["groups"]), *t["kernel"])
    _check_cotangent(t, ct.shape, _check(t, x.shape, w))
    return x.with_shape(w)


# --- meaning in NumPy: one product of matrices for each tap of the kernel ------------------------


def _grouped(x: Any, groups: int) -> Any:
    """Channels (axis 1) split into groups."""
    return x.reshape((x.shape[0], groups, x.shape[1] // groups, *x.shape[2:]))


def _weights(w: Any, groups: int) -> Any:
    return w.reshape((groups, w.shape[0] // groups, *w.shape[1:]))


def _conv(x: Any, w: Any, groups: int, **attrs: Any) -> Any:
    window = Window.of(attrs, w.shape[2:])
    outputs: Any = window.outputs(x.shape[2:])
    padded, weights = _grouped(window.pad(x, 0), groups), _weights(w, groups)
    out = np.zeros((x.shape[0], groups, w.shape[0] // groups, *outputs), x.dtype)
    for tap, places in window.taps(outputs):
        out += np.einsum("ngc...,goc->ngo...", padded[(..., *places)], weights[(..., *tap)])
    return out.reshape((x.shape[0], w.shape[0], *outputs))


def _conv_input_grad(ct: Any, w: Any, shape: tuple[int, ...], groups: int, **attrs: Any) -> Any:
    window = Window.of(attrs, w.shape[2:])
    cts, weights = _grouped(ct, groups), _weights(w, groups)
    padded = window.pad(np.zeros((ct.shape[0], groups, w.shape[1], *shape), ct.dtype), 0)
    for tap, places in window.taps(ct.shape[2:]):
        padded[(..., *places)] += np.einsum("ngo...,goc->ngc...", cts, weights[(..., *tap)])
    return window.crop(padded).reshape((ct.shape[0], w.shape[1] * groups, *shape))


def _conv_weight_grad(x: Any, ct: Any, kernel: tuple[int, ...], groups: int, **attrs: Any) -> Any:
    window = Window.of(attrs, kernel)
    padded, cts = _grouped(window.pad(x, 0), groups), _grouped(ct, groups)
    spatial = range(4, 4 + window.rank)
    out: Any = np.zeros((groups, cts.shape[2], padded.shape[2], *kernel), x.dtype)
    for tap, places in window.taps(ct.shape[2:]):
        out[(..., *tap)] = np.einsum(
            padded[(..., *places)], [0, 1, 2, *spatial], cts, [0, 1, 3, *spatial], [1, 3, 2]
        )
    return out.reshape((ct.shape[1], padded.shape[2], *kernel))


# --- meaning in index space ----------------------------------------------------------------------


def _product(d: Definition, a: Expr, b: Expr) -> Expr:
    return Reduce("add", tuple(d.axes), apply("mul", a, b), d.out.dtype)


def _member(channel: Dim, own: Dim, other: Dim, axis: Dim, groups: int) -> Dim:
    """The `axis`-th of the `other` channels in the group of a channel, groups having `own` of these."""
    return axis if groups == 1 else floordiv(channel, own) * other + axis


def _within(channel: Dim, own: Dim, groups: int) -> Dim:
    """A channel's position in its group of `own` channels."""
    return channel if groups == 1 else mod(channel, own)


def _define_conv(d: Definition, read_x: Read, read_w: Read) -> Expr:
    (x, w), groups = d.types, d["groups"]
    window = Window.of(d.attrs, w.shape[2:])
    n, o, *output = d.index
    c = d.axis(w.shape[1])
    tap = [d.axis(k) for k in window.kernel]
    position = window.position(output, tap)
    channel = _member(o, floordiv(w.shape[0], groups), w.shape[1], c, groups)
    guard = conjunction(window.inside(position, x.shape[2:]))
    return _product(d, read_x([n, channel, *position], guard=guard), read_w([o, c, *tap]))


def _define_input_grad(d: Definition, read_ct: Read, read_w: Read) -> Expr:
    (ct, w), groups = d.types, d["groups"]
    window = Window.of(d.attrs, w.shape[2:])
    n, c, *position = d.index
    members = floordiv(w.shape[0], groups)
    o = _member(c, w.shape[1], members, d.axis(members), groups)
    tap = [d.axis(k) for k in window.kernel]
    output, conditions = window.source(position, tap, ct.shape[2:])
    guard = conjunction(conditions)
    return _product(
        d, read_ct([n, o, *output], guard=guard), read_w([o, _within(c, w.shape[1], groups), *tap])
    )


def _define_weight_grad(d: Definition, read_x: Read, read_ct: Read) -> Expr:
    (x, ct), groups = d.types, d["groups"]
    window = Window.of(d.attrs)
    o, c, *tap = d.index
    n = d.axis(ct.shape[0])
    output = [d.axis(extent) for extent in ct.shape[2:]]
    position = window.position(output, tap)
    channel = _member(o, floordiv(ct.shape[1], groups), floordiv(x.shape[1], groups), c, groups)
    guard = conjunction(window.inside(position, x.shape[2:]))
    return _product(d, read_x([n, channel, *position], guard=guard), read_ct([n, o, *output]))


# --- gradients: each by the two others -----------------------------------------------------------


def _vjp_conv(g: Value, y: Value, x: Value, w: Value, **attrs: Any) -> tuple[Value, Value]:
    return (
        conv_input_grad(g, w, shape=x.tensor.shape[2:], **attrs),
        conv_weight_grad(x, g, kernel=w.tensor.shape[2:], **attrs),
    )


def _vjp_input_grad(g: Value, y: Value, ct: Value, w: Value, shape: Any, **attrs: Any) -> tuple[Value, Value]:
    return conv(g, w, **attrs), conv_weight_grad(g, ct, kernel=w.tensor.shape[2:], **attrs)


def _vjp_weight_grad(
    g: Value, y: Value, x: Value, ct: Value, kernel: Any, **attrs: Any
) -> tuple[Value, Value]:
    return conv_input_grad(ct, g, shape=x.tensor.shape[2:], **attrs), conv(x, g, **attrs)


# --- lanes: a part of the examples, of the channels, or further groups ---------------------------

_Place = tuple[int, bool]  # an axis, and whether lanes are a part of each group's share of it
_ONE: dict[str, tuple[tuple[_Place, _Place], tuple[_Place, _Place]]] = {
    "conv": (((0, False), (0, False)), ((0, True), (1, True))),
    "conv_input_grad": (((0, False), (0, False)), ((1, False), (1, True))),
    "conv_weight_grad": (((1, True), (1, False)), ((1, True), (0, True))),
}
"""If one operand has lanes (the first, or the second): where they go in it, and where they are in the result."""
_BOTH = {"conv": (1, 0, 1), "conv_input_grad": (1, 0, 1), "conv_weight_grad": (1, 1, 0)}
"""If both operands have lanes, these are groups of groups: the axis of each operand and of the result."""


def _batch(value: Value, operands: Sequence[Lanes], size: Dim) -> Value:
    (a, a_lanes), (b, b_lanes) = operands
    name, groups = value.op.name, value.attrs["groups"]
    if a_lanes and b_lanes:
        if not isinstance(size, int) or size == 0:
            return one_by_one(value, operands, size)  # groups are a number
        first, second, result = _BOTH[name]
        attrs = {**value.attrs, "groups": groups * size}
        product = make(value.op, (fold(a, first), fold(b, second)), attrs)
        return unfold(product, result, size, value.tensor.shape[result])
    (axis, grouped), (place, by_group) = _ONE[name][not a_lanes]
    x = fold(a if a_lanes else b, axis, groups if grouped else 1)
    product = make(value.op, (x, b) if a_lanes else (a, x), value.attrs)
    return unfold(product, place, size, value.tensor.shape[place], groups if by_group else 1)


# --- samples -------------------------------------------------------------------------------------


def _cases() -> list[tuple[Any, Any, dict[str, Any]]]:
    rng = np.random.default_rng(0)
    rows: list[tuple[tuple[int, ...], tuple[int, ...], Mapping[str, Any]]] = [
        ((2, 3, 7), (4, 3, 3), {}),
        ((1, 2, 8), (2, 2, 3), {"stride": (2,), "padding": ((1, 2),)}),
        ((2, 2, 5, 6), (3, 2, 3, 3), {"padding": ((1, 1), (1, 1))}),
        ((1, 4, 6, 5), (6, 2, 2, 3),
         {"stride": (2, 1), "dilation": (2, 1), "groups": 2, "padding": ((0, 1), (2, 0))}),
        ((2, 3, 4, 4), (3, 1, 3, 3), {"groups": 3, "padding": ((1, 1), (1, 1)), "stride": (2, 2)}),
        ((2, 3, 4, 4), (5, 3, 1, 1), {}),
        ((1, 1, 3, 3, 3), (2, 1, 2, 2, 2), {}),
        ((0, 2, 4), (3, 2, 2), {}),
        ((1, 1, 1), (1, 1, 1), {}),
    ]
    cases = []
    for x, w, given in rows:
        n = len(x) - 2
        attrs = {"stride": (1,) * n, "padding": ((0, 0),) * n, "dilation": (1,) * n, "groups": 1, **given}
        cases.append((rng.normal(size=x), rng.normal(size=w), attrs))
    return cases


conv: Op = register(Op(
    "conv", "contract", _infer_conv, _conv, _define_conv, vjp=_vjp_conv, jvp=MULTILINEAR,
    batch=_batch, attrs=_ATTRS, arity=2, cost=2,
    samples=lambda: [Sample((x, w), attrs) for x, w, attrs in _cases()],
    doc="Convolution of x [N, C, *spatial] with w [O, C / groups, *kernel]; padding is (low, high) per axis.",
))
conv_input_grad: Op = register(Op(
    "conv_input_grad", "contract", _infer_input_grad, _conv_input_grad, _define_input_grad,
    vjp=_vjp_input_grad, jvp=MULTILINEAR, batch=_batch,
    attrs={"shape": REQUIRED, **_ATTRS}, arity=2, cost=2,
    samples=lambda: [
        Sample((_conv(x, w, **attrs), w), {"shape": x.shape[2:], **attrs}) for x, w, attrs in _cases()
    ],
    doc="The transpose of conv in its input (transposed convolution); `shape` is the input's spatial shape.",
))
conv_weight_grad: Op = register(Op(
    "conv_weight_grad", "contract", _infer_weight_grad, _conv_weight_grad, _define_weight_grad,
    vjp=_vjp_weight_grad, jvp=MULTILINEAR, batch=_batch, attrs={"kernel": REQUIRED, **_ATTRS}, arity=2, cost=2,
    samples=lambda: [
        Sample((x, _conv(x, w, **attrs)), {"kernel": w.shape[2:], **attrs}) for x, w, attrs in _cases()
    ],
    doc="The transpose of conv in its kernel; `kernel` is the kernel's spatial shape.",
))
