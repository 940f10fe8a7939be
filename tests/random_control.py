"""Random loops and branches for random graphs: bodies whose values stay bounded, so that results can be compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from random_draws import noisy_body
from random_values import Builder, Known, Skip

import graphwright as gw
from graphwright.frontends.tensor import Tensor
from graphwright.ir.broadcasting import full
from graphwright.ir.dims import equal
from graphwright.ir.graph import Value

__all__ = ["branch", "counted_loop", "scan", "while_loop"]

Body = Callable[[Tensor, Tensor], Tensor]


def _alike(b: Builder, k: Known) -> Known:
    """A value of the type of another one, between -1 and 1."""
    fits = [o for o in b.values if o.dtype == k.dtype and len(o.shape) == len(k.shape)]
    fits = [o for o in fits if all(map(equal, o.shape, k.shape))]
    return b.fit(b.draw.pick(fits), -1, 1)


def _body(b: Builder, w: Tensor, depth: int = 1) -> Body:
    """A function of two values between -1 and 1 to one; `w` is captured. Some draw, or hold a loop or branch."""
    if b.draw.chance(25):
        return noisy_body(b, w)
    kind = b.draw.integer(0, 7 if depth else 5)
    if kind == 6:
        inner, reverse = _body(b, w, 0), b.draw.chance(50)
        pair = lambda c, x: gw.scan(  # noqa: E731
            lambda s, _: (inner(s, x), s * 0.5), c, length=3, reverse=reverse
        )
        return lambda c, x: (lambda last, rows: gw.tanh(last + rows.sum(axis=0)))(*pair(c, x))
    if kind == 7:
        one, other, size = _body(b, w, 0), _body(b, w, 0), b.draw.integer(0, 4)
        return lambda c, x: gw.cond(gw.asarray(c.ndim + size) > 3, lambda: one(c, x), lambda: other(x, c))
    return [
        lambda c, x: gw.tanh(c * w * 0.5 + x),
        lambda c, x: c * 0.5 + x * 0.25,
        lambda c, x: gw.sin(c + gw.exp(x * 0.5)) * w,
        lambda c, x: gw.tanh(gw.mean(c) + x) if c.ndim else gw.tanh(x),
        lambda c, x: gw.where(x * 0.0 == 0.0, c * w, x),
        lambda c, x: gw.sigmoid(c - x),
    ][kind]


def _note(b: Builder, tensor: Any, *sources: Known) -> None:
    b.note(tensor._value, -1.0, 1.0, None, all(k.smooth for k in sources))


def scan(b: Builder) -> None:
    """A scan over a value's first axis, with one carry or two, and outputs."""
    xs = b.fit(b.known("f", lambda k: len(k.shape) > 0 and b.elements(k.shape[:1]) <= 300), -1, 1)
    element = Known(full(xs.shape[1:], 0.5, xs.dtype), 0.5, 0.5, 1, True)
    first, w = (_alike(b, element) if b.draw.chance(70) else element for _ in range(2))
    body, counts = _body(b, Tensor(w.value)), b.draw.chance(40)
    options: dict[str, Any] = {"reverse": b.draw.chance(40)}
    if b.draw.chance(25):
        options["checkpoint"] = b.draw.integer(1, 4)

    def step(carry: Any, x: Tensor) -> Any:
        c, n = carry
        new = body(c, x)
        return (new, n + 1 if counts else n), [new * 0.5, c, n][: b.draw.integer(0, 3)]

    carry = (Tensor(first.value), gw.asarray(0) if counts else None)
    (last, _), rows = gw.scan(step, carry, Tensor(xs.value), **options)
    _note(b, last, xs, first, w)
    for y in rows:
        if y is not None and y.dtype == xs.dtype:
            _note(b, y, xs, first, w)


def while_loop(b: Builder) -> None:
    """A bounded loop that ends by a counter."""
    k = b.fit(b.known("f"), -1, 1)
    w = _alike(b, k)
    body, stop, limit = _body(b, Tensor(w.value)), b.draw.integer(0, 5), b.draw.integer(0, 5)
    last, _ = gw.while_loop(
        lambda c: c[1] < stop, lambda c: (body(c[0], Tensor(w.value)), c[1] + 1), (Tensor(k.value), 0), limit
    )
    _note(b, last, k, w)


def counted_loop(b: Builder) -> None:
    """A loop over a symbolic number of steps."""
    k = b.fit(b.known("f", lambda k: len(k.shape) > 0 and b.elements(k.shape[:1]) <= 300), -1, 1)
    body = _body(b, Tensor(k.value))
    last = gw.fori(0, k.shape[0], lambda i, c: body(c, Tensor(k.value)), Tensor(k.value))
    _note(b, last, k)


def branch(b: Builder) -> None:
    """A switch by a number that the graph computes, or by one that is known."""
    k = b.fit(b.known("f"), -1, 1)
    w = _alike(b, k)
    index: Value | int = b.draw.integer(-1, 3)
    if b.draw.chance(70):
        index = b.known("iu", lambda o: not o.shape).value
    bodies = [_body(b, Tensor(w.value)) for _ in range(b.draw.integer(1, 3))]
    if not bodies:
        raise Skip
    t = Tensor(k.value)
    chosen = gw.switch(
        Tensor(index) if isinstance(index, Value) else index, [lambda f=f: f(t, Tensor(w.value)) for f in bodies]
    )
    _note(b, chosen, k, w)
