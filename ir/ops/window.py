"""Pooling over sliding windows of the trailing axes, and the transposes that its gradients need.

The window at output position ``o`` covers, along each axis, the input positions
``stride*o + dilation*k - low`` for ``0 <= k < kernel``. Positions outside the input are padding:
0 for a sum, below everything for a maximum.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import DTypeError, GraphError, ShapeError
from ..batching import aligned
from ..dims import Dim, at_most, ceildiv, dim_max, equal, evaluate, floordiv, mod, product
from ..dtypes import DType, as_dtype, int64
from ..graph import Value
from ..loops import Expr, Index, Reduce
from ..op import LINEAR, REQUIRED, ZERO_GRADIENT, Cotangents, Definition, Op, Read, Sample, Typing, register
from ..scalars import apply, cast, conjunction, const, less, select
from ..types import TensorType, Type
from .movement import linearize

__all__ = ["Window", "window_argmax", "window_get", "window_max", "window_put", "window_spread", "window_sum"]


POSITIONS = (as_dtype("int32"), int64)
"""Dtypes of a position in a window."""


# --- geometry, shared with convolution -----------------------------------------------------------


@dataclass(frozen=True)
class Window:
    """How windows lie over the input, one entry per axis."""

    kernel: tuple[Dim, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]

    @classmethod
    def of(cls, attrs: Mapping[str, Any], kernel: Sequence[Dim] | None = None) -> Window:
        """The window that an op's attributes describe."""
        sizes = attrs["kernel"] if kernel is None else kernel
        return cls(tuple(sizes), attrs["stride"], attrs["padding"], attrs["dilation"])

    @property
    def attrs(self) -> dict[str, Any]:
        """The attributes stride, padding and dilation."""
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}

    @property
    def rank(self) -> int:
        return len(self.kernel)

    @property
    def tiles(self) -> bool:
        """Whether windows lie side by side: each position is under one of them at most."""
        return self.kernel == self.stride and all(n == 1 for n in self.dilation)

    @property
    def low(self) -> tuple[int, ...]:
        return tuple(low for low, _ in self.padding)

    def span(self, axis: int) -> Dim:
        """How many positions one window reaches over."""
        return (self.kernel[axis] - 1) * self.dilation[axis] + 1

    def outputs(self, shape: Sequence[Dim]) -> tuple[Dim, ...]:
        """The number of windows along each axis of an input."""
        return tuple(
            floordiv(n + sum(self.padding[k]) - self.span(k), self.stride[k]) + 1 for k, n in enumerate(shape)
        )

    def check(self, t: Typing, shape: Sequence[Dim]) -> None:
        """Refuse entries of wrong number or sign, and a window larger than the padded input."""
        for name in ("stride", "padding", "dilation"):
            if len(getattr(self, name)) != self.rank:
                given = getattr(self, name)
                t.fail(ShapeError, f"{name} {given} needs {self.rank} entries, one per spatial axis")
        if min((*self.stride, *self.dilation), default=1) < 1 or any(min(p) < 0 for p in self.padding):
            t.fail(GraphError, "stride and dilation must be positive, and padding not negative")
        for k, n in enumerate(shape):
            padded, span = n + sum(self.padding[k]), self.span(k)
            t.require_at_most(1, self.kernel[k], f"kernel {self.kernel[k]} of spatial axis {k} is empty")
            t.require_at_most(
                span, padded,
                f"the window reaches over {span} of spatial axis {k}, more than the padded input's {padded}",
                "use a smaller kernel or dilation, or more padding",
            )

    def taps(self, outputs: Sequence[int]) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
        """Each offset in the kernel with the padded input's positions it reads, one per window."""
        for offset in np.ndindex(*(evaluate(n, {}) for n in self.kernel)):
            starts = [k * d for k, d in zip(offset, self.dilation)]
            yield offset, tuple(slice(a, a + n * s, s) for a, n, s in zip(starts, outputs, self.stride))

    def pad(self, x: Any, value: Any) -> Any:
        """An array padded along its trailing axes."""
        return np.pad(x, [(0, 0)] * (x.ndim - self.rank) + list(self.padding), constant_values=value)

    def crop(self, padded: Any) -> Any:
        """The inverse of `pad`."""
        inner = (slice(low, n - high) for (low, high), n in zip(self.padding, padded.shape[-self.rank:]))
        return padded[(..., *inner)] if self.rank else padded

    def position(self, output: Sequence[Dim], offset: Sequence[Dim]) -> list[Dim]:
        """The input position under an offset of the window at `output`."""
        axes = zip(output, offset, self.stride, self.dilation, self.low)
        return [o * s + k * d - low for o, k, s, d, low in axes]

    def inside(self, position: Sequence[Dim], shape: Sequence[Dim]) -> list[Expr]:
        """Conditions for an input position not to be padding."""
        conditions: list[Expr] = []
        for p, n, (low, high) in zip(position, shape, self.padding):
            conditions += [less(-1, p)] if low else []
            conditions += [less(p, n)] if high else []
        return conditions

    def source(
        self, position: Sequence[Dim], offset: Sequence[Dim], outputs: Sequence[Dim]
    ) -> tuple[list[Dim], list[Expr]]:
        """The window that has an input position under an offset, and conditions for it to exist."""
        index: list[Dim] = []
        conditions: list[Expr] = []
        for k, (i, tap, n) in enumerate(zip(position, offset, outputs)):
            stride, dilation, (low, high) = self.stride[k], self.dilation[k], self.padding[k]
            shifted = i + low - tap * dilation
            reach = self.span(k) - 1
            index.append(floordiv(shifted, stride))
            if not (isinstance(reach, int) and reach <= low):
                conditions.append(less(-1, shifted))
            if stride > 1:
                conditions.append(apply("eq", Index(mod(shifted, stride)), Index(0)))
            if not (isinstance(reach, int) and reach <= high):
                conditions.append(less(index[-1], n))
        return index, conditions


_ATTRS = {"kernel": REQUIRED, "stride": REQUIRED, "padding": REQUIRED, "dilation": REQUIRED}


def _spatial(shape: Sequence[Dim], window: Window) -> tuple[Dim, ...]:
    return tuple(shape[len(shape) - window.rank:])


def _checked(t: Typing, rank: int, spatial: Sequence[Dim] | None = None) -> tuple[Window, tuple[Dim, ...]]:
    """The window and the input's spatial shape, refusing what does not fit."""
    window = Window.of(t.attrs)
    if rank < window.rank:
        t.fail(ShapeError, f"a kernel of {window.rank} axes does not fit rank {rank}")
    if not all(isinstance(n, int) for n in window.kernel):
        t.fail(GraphError, f"kernel {window.kernel} must be integers")
    if not t.types[0].dtype.is_float and not t.types[0].dtype.is_integer:
        t.fail(DTypeError, "does not take bool operands", "cast with astype")
    shape = _spatial(t.types[0].shape, window) if spatial is None else tuple(spatial)
    window.check(t, shape)
    for k, pads in enumerate(window.padding):
        span = window.span(k)
        if isinstance(span, int) and max(pads) >= span:
            t.fail(ShapeError, f"padding {pads} of spatial axis {k} makes windows of nothing but padding",
                   f"pad by less than the {span} positions that the window reaches over")
    return window, shape


def _lead(d: Definition, window: Window) -> tuple[Dim, ...]:
    return d.index[:len(d.index) - window.rank]


def _infer_pool(t: Typing) -> TensorType:
    x = t.types[0]
    window, shape = _checked(t, x.rank)
    return x.with_shape([*x.shape[:x.rank - window.rank], *window.outputs(shape)])


def _infer_spread(t: Typing) -> Type:
    ct = t.types[0]
    window, shape = _checked(t, ct.rank, t["shape"])
    outputs = window.outputs(shape)
    if len(shape) != window.rank or not all(map(equal, _spatial(ct.shape, window), outputs)):
        t.fail(ShapeError, f"an input of spatial shape {shape} has {outputs} windows, not those of operand 0")
    if len(t.types) > 1:
        _check_winner(t, ct.shape)
    return ct.with_shape([*ct.shape[:ct.rank - window.rank], *shape])


def _check_winner(t: Typing, shape: Sequence[Dim]) -> None:
    winner = t.types[1]
    if winner.dtype not in POSITIONS:
        t.fail(DTypeError, f"positions must be int32 or int64, got {winner.dtype!r}", "cast them with astype")
    if winner.rank != len(shape) or not all(map(equal, winner.shape, shape)):
        t.fail(ShapeError, "there must be one position for each window")


def _samples() -> list[tuple[np.ndarray[Any, Any], dict[str, Any]]]:
    rng = np.random.default_rng(0)
    rows: list[tuple[tuple[int, ...], tuple[Any, ...], tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]] = [
        ((2, 6), (2,), (2,), ((0, 0),), (1,)),
        ((2, 7), (3,), (2,), ((1, 1),), (1,)),
        ((1, 8), (2,), (1,), ((0, 2),), (3,)),
        ((2, 1, 5, 7), (2, 3), (2, 3), ((0, 0), (0, 0)), (1, 1)),
        ((1, 2, 5, 4), (3, 2), (2, 1), ((1, 0), (1, 1)), (1, 2)),
        ((0, 4), (2,), (2,), ((0, 0),), (1,)),
        ((1,), (1,), (1,), ((0, 0),), (1,)),
    ]
    return [
        (rng.normal(size=shape), {"kernel": k, "stride": s, "padding": p, "dilation": d})
        for shape, k, s, p, d in rows
    ]


def _samples_pool() -> list[Sample]:
    return [Sample((x,), attrs) for x, attrs in _samples()]


# --- sum and its transpose -----------------------------------------------------------------------


def _window_sum(x: Any, **attrs: Any) -> Any:
    window = Window.of(attrs)
    outputs = window.outputs(x.shape[x.ndim - window.rank:])
    padded, out = window.pad(x, 0), np.zeros((*x.shape[:x.ndim - window.rank], *outputs), x.dtype)
    for _, places in window.taps(outputs):  # type: ignore[arg-type]
        out += padded[(..., *places)]
    return out


def _define_window_sum(d: Definition, read: Read) -> Expr:
    window = Window.of(d.attrs)
    lead, shape = _lead(d, window), _spatial(d.types[0].shape, window)
    position = window.position(d.index[len(lead):], [d.axis(n) for n in window.kernel])
    body = read([*lead, *position], guard=conjunction(window.inside(position, shape)))
    return Reduce("add", tuple(d.axes), body, d.out.dtype)


def _vjp_window_sum(ct: Value, out: Value, x: Value, **attrs: Any) -> tuple[Value]:
    return (window_spread(ct, shape=_spatial(x.tensor.shape, Window.of(attrs)), **attrs),)


window_sum: Op = register(Op(
    "window_sum", "reduce", _infer_pool, _window_sum, _define_window_sum, vjp=_vjp_window_sum, jvp=LINEAR,
    attrs=_ATTRS, arity=1, batch=aligned, samples=_samples_pool, doc="Sum over each window.",
))


def _window_spread(ct: Any, *winner: Any, shape: tuple[int, ...], **attrs: Any) -> Any:
    window = Window.of(attrs)
    lead = ct.shape[:ct.ndim - window.rank]
    padded = window.pad(np.zeros((*lead, *shape), ct.dtype), 0)
    for offset, places in window.taps(ct.shape[ct.ndim - window.rank:]):
        won = winner[0] == np.ravel_multi_index(offset, attrs["kernel"]) if winner else True
        padded[(..., *places)] += np.where(won, ct, 0).astype(ct.dtype)
    return window.crop(padded)


def _define_spread(d: Definition, read: Read, read_winner: Read | None = None) -> Expr:
    """Gather, for an input position, the cotangents of the windows that it lies under (or won)."""
    window = Window.of(d.attrs)
    lead, outputs = _lead(d, window), _spatial(d.types[0].shape, window)
    own = d.index[len(lead):]
    if window.tiles:
        shifted = [i + low for i, low in zip(own, window.low)]
        index = [floordiv(i, s) for i, s in zip(shifted, window.stride)]
        offset: list[Dim] = [mod(i, s) for i, s in zip(shifted, window.stride)]
        ends = [n + low for n, low in zip(_spatial(d.out.shape, window), window.low)]
        beyond = [not at_most(end, n * s) for end, n, s in zip(ends, outputs, window.stride)]
        conditions: list[Expr] = [less(o, n) for o, n, past in zip(index, outputs, beyond) if past]
    else:
        offset = [d.axis(n) for n in window.kernel]
        index, conditions = window.source(own, offset, outputs)
    guard = conjunction(conditions)
    if read_winner is not None:
        winner = read_winner([*lead, *index], guard=guard)
        own_tap = cast(Index(linearize(tuple(offset), window.kernel)), winner.dtype)
        won = apply("eq", winner, own_tap)
        if window.tiles and not conditions:  # in place everywhere: cheaper to read it all
            value = read([*lead, *index])
            return select(won, value, const(0, value.dtype))
        guard = conjunction([*conditions, won])
    body = read([*lead, *index], guard=guard)
    return body if window.tiles else Reduce("add", tuple(d.axes), body, d.out.dtype)


def _vjp_window_spread(g: Value, out: Value, ct: Value, shape: Any, **attrs: Any) -> tuple[Value]:
    return (window_sum(g, **attrs),)


def _samples_spread() -> list[Sample]:
    return [
        Sample((_window_sum(x, **attrs),), {"shape": _spatial(x.shape, Window.of(attrs)), **attrs})
        for x, attrs in _samples()
    ]


window_spread: Op = register(Op(
    "window_spread", "reduce", _infer_spread, _window_spread, _define_spread, vjp=_vjp_window_spread, jvp=LINEAR,
    attrs={"shape": REQUIRED, **_ATTRS}, arity=1, batch=aligned, cost=2, samples=_samples_spread,
    doc="Give each position the sum of its windows' values: the transpose of window_sum.",
))


# --- maximum, its position, and the two transposes of picking it ---------------------------------


def _lowest(dtype: DType) -> float:
    return -np.inf if dtype.is_float else int(np.iinfo(dtype.numpy).min)


def _stacked(x: Any, window: Window) -> Any:
    """The taps of every window along a new last axis, padding below everything."""
    outputs: Any = window.outputs(x.shape[x.ndim - window.rank:])
    padded = window.pad(x, _lowest(as_dtype(x.dtype)))
    return np.stack([padded[(..., *places)] for _, places in window.taps(outputs)], axis=-1)


def _first_taps(window: Window, output: Sequence[Any]) -> list[Any]:
    """The offset, along each axis, of the first tap that is not padding."""
    axes = zip(output, window.stride, window.dilation, window.low)
    return [dim_max(0, ceildiv(low - o * s, d)) for o, s, d, low in axes]


def _window_argmax(x: Any, dtype: DType, **attrs: Any) -> Any:
    window = Window.of(attrs)
    best = np.argmax(_stacked(x, window), axis=-1)
    outputs = best.shape[best.ndim - window.rank:]
    first = np.zeros(outputs, np.int64)
    for o in np.ndindex(*outputs):
        first[o] = linearize(tuple(_first_taps(window, o)), window.kernel)
    return np.maximum(best, first).astype(dtype.numpy)


def _key(d: Definition, read: Read, window: Window) -> Expr:
    lead, shape = _lead(d, window), _spatial(d.types[0].shape, window)
    position = window.position(d.index[len(lead):], [d.axis(n) for n in window.kernel])
    guard = conjunction(window.inside(position, shape))
    value, dtype = read([*lead, *position], guard=guard), d.types[0].dtype
    return value if guard is None else select(guard, value, const(_lowest(dtype), dtype))


def _define_window_max(d: Definition, read: Read) -> Expr:
    body = _key(d, read, Window.of(d.attrs))
    return Reduce("max", tuple(d.axes), body, d.out.dtype)


def _define_window_argmax(d: Definition, read: Read) -> Expr:
    window = Window.of(d.attrs)
    body = _key(d, read, window)
    best: Expr = Reduce("argmax", tuple(d.axes), body, int64)
    if not any(window.low):
        return cast(best, d.out.dtype)
    # Padding that comes first wins only where all is as low as padding: then take the first other tap.
    first = _first_taps(window, d.index[len(d.index) - window.rank:])
    best = apply("max", best, Index(linearize(tuple(first), window.kernel)))
    return cast(best, d.out.dtype)


def _vjp_window_max(ct: Value, out: Value, x: Value, **attrs: Any) -> tuple[Value]:
    shape = _spatial(x.tensor.shape, Window.of(attrs))
    return (window_put(ct, window_argmax(x, **attrs), shape=shape, **attrs),)


def _infer_argmax(t: Typing) -> Type:
    if t["dtype"] not in POSITIONS:
        t.fail(DTypeError, f"positions are int32 or int64, not {t['dtype']!r}")
    return _infer_pool(t).with_dtype(t["dtype"])


def _samples_argmax() -> list[Sample]:
    return [Sample((x,), {**attrs, "dtype": dtype}) for x, attrs in _samples() for dtype in POSITIONS]


window_max = register(Op(
    "window_max", "reduce", _infer_pool, lambda x, **attrs: np.max(_stacked(x, Window.of(attrs)), axis=-1),
    _define_window_max, vjp=_vjp_window_max, attrs=_ATTRS, arity=1, batch=aligned, samples=_samples_pool,
    doc="Largest of each window; NaN wins.",
))
window_argmax = register(Op(
    "window_argmax", "reduce", _infer_argmax, _window_argmax, _define_window_argmax, vjp=ZERO_GRADIENT,
    attrs={**_ATTRS, "dtype": int64}, arity=1, batch=aligned, samples=_samples_argmax,
    doc="Row-major position, in each window, of the first largest element; NaN wins, padding never does.",
))


def _vjp_window_put(g: Value, out: Value, ct: Value, winner: Value, shape: Any, **attrs: Any) -> Cotangents:
    return window_get(g, winner, **attrs), None


def _samples_put() -> list[Sample]:
    return [
        Sample((_window_sum(x, **attrs), _window_argmax(x, dtype, **attrs)),
               {"shape": _spatial(x.shape, Window.of(attrs)), **attrs})
        for x, attrs in _samples() for dtype in POSITIONS
    ]


window_put: Op = register(Op(
    "window_put", "reduce", _infer_spread, _window_spread, _define_spread, vjp=_vjp_window_put, jvp=LINEAR,
    attrs={"shape": REQUIRED, **_ATTRS}, arity=2, batch=aligned, cost=3, samples=_samples_put,
    doc="Add each window's value at the position that won it: the transpose of window_get.",
))


def _infer_get(t: Typing) -> Type:
    out = _infer_pool(t)
    _check_winner(t, out.shape)
    return out


def _window_get(x: Any, winner: Any, **attrs: Any) -> Any:
    window = Window.of(attrs)
    outputs, out = winner.shape[winner.ndim - window.rank:], np.zeros(winner.shape, x.dtype)
    padded = window.pad(x, 0)
    for offset, places in window.taps(outputs):
        out = np.where(winner == np.ravel_multi_index(offset, attrs["kernel"]), padded[(..., *places)], out)
    return out


def _define_get(d: Definition, read: Read, read_winner: Read) -> Expr:
    window = Window.of(d.attrs)
    lead, shape = _lead(d, window), _spatial(d.types[0].shape, window)
    first = window.position(d.index[len(lead):], (0,) * window.rank)
    rest: Expr = cast(read_winner(d.index), int64)
    size: Expr = Index(product(window.kernel))
    conditions: list[Expr] = [apply("le", const(0, int64), rest), apply("lt", rest, size)]
    index: list[Dim | Expr] = []
    for k in reversed(range(window.rank)):
        size = const(evaluate(window.kernel[k], {}), int64)
        step = apply("mul", apply("mod", rest, size), const(window.dilation[k], int64))
        place = apply("add", Index(first[k]), step)
        rest = apply("floordiv", rest, size)
        low, high = window.padding[k]
        conditions += [apply("le", const(0, int64), place)] if low else []
        conditions += [apply("lt", place, Index(shape[k]))] if high else []
        index.append(place)
    return read([*lead, *reversed(index)], guard=conjunction(conditions))


def _vjp_window_get(ct: Value, out: Value, x: Value, winner: Value, **attrs: Any) -> Cotangents:
    return window_put(ct, winner, shape=_spatial(x.tensor.shape, Window.of(attrs)), **attrs), None


window_get: Op = register(Op(
    "window_get", "map", _infer_get, _window_get, _define_get, vjp=_vjp_window_get, jvp=LINEAR, attrs=_ATTRS, arity=2,
    random_access=(0,), batch=aligned, cost=6,
    samples=lambda: [Sample((x, _window_argmax(x, int64, **attrs)), attrs) for x, attrs in _samples()],
    doc="The element at a given position of each window; 0 for padding and for positions outside.",
))
