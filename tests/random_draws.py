"""Random numbers for random graphs: keys and generators, and draws that interpreter and compiled code take alike.

Bits, and what follows from bits by exact arithmetic, are compared exactly. Rejection is in float64, where the chance
that a proposal lies within rounding of what is accepted is nil; draws that compare rounded float32 are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from random_values import Builder, Skip

import graphwright as gw
from graphwright.frontends.random.generator import _advanced
from graphwright.frontends.tensor import Tensor, let_advance
from graphwright.ir.dtypes import DType, float32, float64, int32, int64, uint8, uint32, uint64
from graphwright.ir.graph import Value
from graphwright.ir.types import Shape

__all__ = ["Stream", "distribution", "dropout", "exact_draw", "noisy_body", "order", "rejected", "shuffle"]

TAIL = {float32: 24, float64: 46}
"""Above any exponentially distributed number, and so any other with such tails."""
FEW = 1000
"""The most elements of a draw by rejection."""


class Stream(gw.random.Generator):
    """A generator whose state is one of the graph's own, given at each execution."""

    def __init__(self, state: Value) -> None:
        Tensor.__init__(self, state)
        self._draws = 0
        let_advance(self, _advanced)


def stream(b: Builder) -> Stream:
    """A generator: often one that was drawn from before."""
    if not b.generators or b.draw.chance(30):
        b.generators.append(Stream(b.leaf(uint32, (4,), state=True).value))
    return b.draw.pick(b.generators)  # type: ignore[no-any-return]


def source(b: Builder) -> Any:
    """A generator, or a key: known, an input, made from a number, or from another source."""
    how = b.draw.integer(0, 8)
    if how > 5:
        return stream(b)
    if how == 0:
        return gw.random.key(b.draw.integer(0, 3) * 2**40 + 7)
    if how == 1:
        return Tensor(b.leaf(uint32, (4,)).value)
    if how == 2:
        return gw.random.key(Tensor(b.known("i", lambda k: not k.shape).value))
    if how == 3:
        return gw.random.fold_in(source(b), b.draw.integer(0, 2))
    if how == 4:
        return gw.random.fold_in(source(b), Tensor(b.known("iu", lambda k: not k.shape).value))
    return gw.random.split(source(b), 3)[b.draw.integer(0, 2)]


def _shape(b: Builder) -> Shape:
    return b.shape(b.draw.integer(0, 3))


def exact_draw(b: Builder) -> None:
    """Bits, integers, truth values, and multiples of a power of two: they follow from bits exactly."""
    key, shape = source(b), _shape(b)
    how = b.draw.pick(["bits", "integers", "bernoulli", "probability", "uniform", "choice"])
    if how == "bits":
        dtype = b.draw.pick([uint32, uint64])
        b.note(gw.random.bits(key, shape, dtype)._value, 0, 2**dtype.bits - 1, 0)
    elif how == "integers":
        low, n = b.draw.integer(-5, 3), b.draw.pick([1, 2, 7, 2**31, 2**40])
        dtype: DType = b.draw.pick([int64, int64, int32, uint8]) if n < 10 else int64
        low = max(low, 0) if dtype == uint8 else low
        b.note(gw.random.integers(key, low, low + n, shape, dtype)._value, low, low + n - 1, 0)
    elif how == "bernoulli":
        b.note(gw.random.bernoulli(key, shape, b.draw.pick([0.5, 0.9, 0.0, 1.0, 1e-3]))._value, 0, 1, 0)
    elif how == "probability":
        k = b.known("f", lambda k: k.exact)
        p = gw.clip(Tensor(k.value) * 0.25 + 0.5, 0.0, 1.0)
        b.note(gw.random.bernoulli(key, p=p)._value, 0, 1, 0)
    elif how == "uniform":
        u = gw.random.uniform(key, shape, dtype=b.float)
        b.note((gw.floor(u * 16) * 0.125 - 1)._value, -1, 1, 3)
    else:
        b.note(gw.random.choice(key, b.draw.integer(1, 9), shape)._value, 0, 9, 0)


def distribution(b: Builder) -> None:
    """A float distribution by inversion; sometimes with parameters, by which there are gradients."""
    name = b.draw.pick(["uniform", "normal", "exponential", "gumbel", "laplace", "truncated_normal"])
    draw = getattr(gw.random, name)
    low, high = {"uniform": (0, 1), "exponential": (0, TAIL[b.float]), "truncated_normal": (-2, 2)}.get(
        name, (-TAIL[b.float], TAIL[b.float])
    )
    if name in ("exponential", "truncated_normal") or b.draw.chance(50):
        b.note(draw(source(b), _shape(b), dtype=b.float)._value, low, high, None)
        return
    loc = b.fit(b.known(), -2, 2)
    scale = b.partner(loc)
    scale = b.fit(scale, 0.25, 2)
    first, second = Tensor(loc.value), Tensor(scale.value)
    given = {"low": first, "high": first + second} if name == "uniform" else {"loc": first, "scale": second}
    bound = 2 + 2 * TAIL[loc.dtype]
    b.note(draw(source(b), **given)._value, -bound, bound, None, loc.smooth and scale.smooth)


def dropout(b: Builder) -> None:
    """Some elements of a value dropped, the others scaled."""
    k, rate = b.known(), b.draw.pick([0.5, 0.75])
    kept = gw.random.bernoulli(source(b), k.shape, 1 - rate)
    scale = 1 / (1 - rate)
    value = gw.where(kept, Tensor(k.value) * scale, 0.0)._value
    b.note(value, min(k.low, 0) * scale, max(k.high, 0) * scale, k.frac, k.smooth)


def shuffle(b: Builder) -> None:
    """The parts of a value in random order."""
    k = b.known("fiub", lambda k: len(k.shape) > 0)
    axis = b.draw.integer(0, len(k.shape) - 1)
    b.like(gw.random.permutation(source(b), Tensor(k.value), axis)._value, k)


def order(b: Builder) -> None:
    """The positions of elements in their order."""
    k = b.known("fiub", lambda k: len(k.shape) > 0 and k.exact)
    value = gw.argsort(Tensor(k.value), descending=b.draw.chance(40))._value
    b.note(value, 0, max(b.elements(k.shape[-1:]), 1), 0)


def rejected(b: Builder) -> None:
    """Numbers by rejection, whose loop ends when all are accepted."""
    key, shape = source(b), _shape(b)
    if b.elements(shape) > FEW:
        raise Skip
    parameter = b.draw.pick([0.5, 1.0, 3.0, 20.0])
    how = b.draw.pick(["gamma", "poisson", "beta"])
    if how == "poisson":
        b.note(gw.random.poisson(key, parameter, shape)._value, 0, 200, 0)
    elif how == "beta":
        b.note(gw.random.beta(key, parameter, 2.0, shape, float64)._value, 0, 1, None)
    else:
        b.note(gw.random.gamma(key, parameter, 1.0, shape, float64)._value, 0, 200, None)


def noisy_body(b: Builder, w: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """A function of two values between -1 and 1 to one, that draws; `w` is captured."""
    rng, kind = source(b), b.draw.integer(0, 5)

    def uniform(c: Tensor) -> Tensor:
        return gw.random.uniform(rng, c.shape, dtype=c.dtype)

    bodies: list[Callable[[Tensor, Tensor], Tensor]] = [
        lambda c, x: c * 0.5 + uniform(c) * 0.5,
        lambda c, x: gw.where(gw.random.bernoulli(rng, c.shape, 0.75), c * w, x),
        lambda c, x: gw.tanh(c * w + gw.random.normal(rng, c.shape, dtype=c.dtype) * x),
        lambda c, x: c * 0.5 + gw.astype(gw.random.integers(rng, -2, 3, c.shape), c.dtype) * 0.25,
        lambda c, x: (uniform(c) - uniform(c)) * x,
        lambda c, x: gw.cond(
            gw.random.bernoulli(rng, (), 0.5), lambda: uniform(c) * w, lambda: gw.where(uniform(x) < 0.5, x, c)
        ),
    ]
    return bodies[kind]
