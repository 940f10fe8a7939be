"""Forms of control flow, each with the same computation written without it: what tests of them enumerate."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import graphwright as gw

__all__ = ["FORMS", "INPUTS", "NESTED"]

INPUTS = {"xs": (4, 3), "W": (3, 3), "h": (3,)}
"""The float64 arguments of every form."""

FORMS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {}
"""By name: a scalar made with control flow, and the same scalar without."""


def form(*options: dict[str, Any]) -> Callable[[Callable[..., Any]], None]:
    """Add a form: a function of a loop and branches to use, of the inputs, and options."""

    def add(function: Callable[..., Any]) -> None:
        for given in options or ({},):
            suffix = "".join(f"-{k}={v}" for k, v in given.items())
            FORMS[function.__name__ + suffix] = (
                functools.partial(function, gw, **given), functools.partial(function, Plain, **given),
            )

    return add


class Plain:
    """The functions of control flow, unrolled while the graph is built; conditions become `where`."""

    @staticmethod
    def scan(step, init, xs=None, length=None, reverse=False, **_):
        n = length if xs is None else xs.shape[0]
        carry, rows = init, [None] * n
        for k in reversed(range(n)) if reverse else range(n):
            carry, rows[k] = step(carry, None if xs is None else xs[k])
        return carry, rows[0] if rows[0] is None else gw.stack(rows)

    @staticmethod
    def while_loop(cond, body, init, max_steps):
        carry = init
        for _ in range(max_steps):
            new = body(carry)
            carry = tuple(gw.where(cond(carry), b, a) for a, b in zip(carry, new))
        return carry

    @staticmethod
    def cond(pred, then, else_):
        return gw.where(pred, then(), else_())

    @staticmethod
    def switch(index, branches):
        if len(branches) == 1:
            return branches[0]()
        return Plain.cond(index <= 0, branches[0], lambda: Plain.switch(index - 1, branches[1:]))

    @staticmethod
    def map(function, xs):
        return gw.stack([function(xs[k]) for k in range(xs.shape[0])])

    @staticmethod
    def fori(lower, upper, body, init):
        carry = init
        for k in range(lower, upper):
            carry = body(gw.asarray(k), carry)
        return carry

    @staticmethod
    def associative_scan(function, xs):
        rows = [xs[0]]
        for k in range(1, xs.shape[0]):
            rows.append(function(rows[-1], xs[k]))
        return gw.stack(rows)


SCANS = ({}, {"reverse": True}, {"checkpoint": 1}, {"checkpoint": 3}, {"checkpoint": 2, "reverse": True}, {"unroll": 2})


@form(*SCANS)
def carries_and_outputs(c, xs, W, h, **options):
    def step(carry, x):
        state, scale = carry
        new = gw.tanh(state @ W + x * scale)
        return (new, scale * 0.9 + (new * new).sum() * 0.1), gw.exp(-new) * scale

    (last, scale), rows = c.scan(step, (h, xs[0, 0]), xs, **options)
    return (last * last).sum() + gw.sin(rows).sum() + scale


@form()
def only_the_last_carry(c, xs, W, h):
    return gw.sin(c.scan(lambda s, x: (gw.tanh(s @ W) + x, None), h, xs)[0]).sum()


@form()
def only_the_outputs(c, xs, W, h):
    return gw.sin(c.scan(lambda s, x: (gw.tanh(s @ W) + x, s * x), h, xs)[1]).sum()


@form()
def a_carry_that_counts(c, xs, W, h):
    def step(carry, x):
        state, k = carry
        return (gw.sin(state @ W) * (k + 1).astype("float64") + x, k + 1), None

    return c.scan(step, (h, gw.asarray(0)), xs)[0][0].sum()


@form()
def a_loop_without_sequences(c, xs, W, h):
    return c.scan(lambda s, _: (gw.sin(s @ W) + h, None), xs[0], length=3)[0].sum()


@form({}, {"checkpoint": 2})
def a_scan_in_a_scan(c, xs, W, h, **options):
    def outer(state, x):
        last, rows = c.scan(lambda s, _: (gw.tanh(s @ W + x), s * x), state, length=3, **options)
        return last + rows.sum(axis=0) * 0.3, last

    last, rows = c.scan(outer, h, xs, **options)
    return gw.sin(last).sum() + (rows * rows).sum()


@form()
def a_bounded_while(c, xs, W, h):
    going = lambda s: (s[0] * s[0]).sum() < 9.0  # noqa: E731
    body = lambda s: (gw.sin(s[0] @ W) + s[0] * 1.4, s[1] * gw.cos(s[0].sum()))  # noqa: E731
    a, b = c.while_loop(going, body, (h, xs[0]), max_steps=8)
    return (a * b).sum()


@form()
def a_while_in_a_scan(c, xs, W, h):
    def step(state, x):
        going = lambda s: (s[0] * s[0]).sum() < 4.0  # noqa: E731
        (grown,) = c.while_loop(going, lambda s: (gw.sin(s[0] @ W) + s[0] * 1.5 + x * 0.1,), (state,), max_steps=6)
        return grown * 0.5, grown.sum()

    last, rows = c.scan(step, h, xs)
    return last.sum() + (rows * rows).sum()


@form()
def a_branch(c, xs, W, h):
    return c.cond(h.sum() > 0, lambda: gw.exp(h @ W).sum(), lambda: gw.sin(h * h @ W).sum()) + c.cond(
        h.sum() <= 0, lambda: gw.exp(h @ W).sum(), lambda: xs[0].sum()
    )


@form()
def branches_in_a_scan(c, xs, W, h):
    def step(carry, x):
        state, k = carry
        branches = [lambda: gw.tanh(state @ W), lambda: state * x, lambda: gw.sin(state) + W[0]]
        new = c.switch(k, branches)
        return (new, k + 1), new * x

    (last, _), rows = c.scan(step, (h, gw.asarray(0)), xs)
    return last.sum() + (rows * rows).sum()


@form()
def a_scan_in_a_branch(c, xs, W, h):
    deep = lambda: c.scan(lambda s, x: (gw.tanh(s @ W) + x, None), h, xs)[0]  # noqa: E731
    return (c.cond(h.sum() > -99.0, deep, lambda: h) * xs[0]).sum()


@form()
def maps_and_counted_loops(c, xs, W, h):
    squares = c.map(lambda x: gw.sin(x @ W) * h, xs)
    grown = c.fori(1, 4, lambda k, s: gw.tanh(s @ W) * k.astype("float64"), h)
    return (squares * squares).sum() + grown.sum()


@form()
def an_associative_scan(c, xs, W, h):
    return (gw.sin(c.associative_scan(lambda a, b: a * b + a, xs)) * h).sum()


# --- each in each --------------------------------------------------------------------------------

Wrapped = Callable[[Any, Callable[[Any], Any], Any, Any], Any]


def _scan(c, f, v, xs):
    last, rows = c.scan(lambda s, x: (f(s) + x * 0.2, s * x), v, xs)
    return last + rows.sum(axis=0) * 0.3


def _while(c, f, v, xs):
    return c.while_loop(lambda s: (s[0] * s[0]).sum() < 2.0, lambda s: (f(s[0]) + s[0] * 1.3,), (v,), max_steps=3)[0]


def _switch(c, f, v, xs):
    index = (v.sum() > 0.1).astype("int64") + (v[0] > 0).astype("int64")
    return c.switch(index, [lambda: v * v, lambda: f(v), lambda: f(v) * v])


WRAPPED: dict[str, Wrapped] = {
    "scan": _scan,
    "while": _while,
    "cond": lambda c, f, v, xs: c.cond(v.sum() > 0.1, lambda: f(v), lambda: gw.sin(f(v * v))),
    "switch": _switch,
    "map": lambda c, f, v, xs: c.map(lambda x: f(x * v), xs).sum(axis=0),
    "fori": lambda c, f, v, xs: c.fori(0, 2, lambda k, s: f(s) * (k + 1).astype("float64"), v),
    "associative_scan": lambda c, f, v, xs: c.associative_scan(lambda a, b: f(a) * b + a, xs)[1] * v,
}
"""By name: a function of vectors, and what a form of control flow makes of it."""


def _nested(outer: Wrapped, inner: Wrapped, c: Any, xs: Any, W: Any, h: Any) -> Any:
    rows = xs[:2]
    layer = lambda v: gw.tanh(v @ W + v * 0.3)  # noqa: E731
    last = outer(c, lambda v: inner(c, layer, v, rows), h, rows)
    return (last * last).sum() + gw.sin(last).sum()


NESTED = {
    f"{b} in {a}": (functools.partial(_nested, outer, inner, gw), functools.partial(_nested, outer, inner, Plain))
    for a, outer in WRAPPED.items() for b, inner in WRAPPED.items()
}
"""As `FORMS`: each form of control flow in the body of each."""
