"""Recurrent layers for the tape, with backpropagation through time written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["FUNCTIONS"]


def _one_hot(x, count):
    return np.eye(count, dtype=np.float32)[x], None


def _merged(x):
    return x.reshape(-1, *x.shape[2:]), (lambda g: g.reshape(x.shape),)


def _argmax(x):
    return np.argmax(x, -1), None


def _constant(value):
    return value, None


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _gates(z, count):
    return np.split(z, count, axis=-1)


def _lstm_gates(z, c):
    i, f, g, o = _gates(z, 4)
    i, f, g, o = _sigmoid(i), _sigmoid(f), np.tanh(g), _sigmoid(o)
    c = f * c + i * g
    return i, f, g, o, c, o * np.tanh(c)


def _lstm_cell(x, h, c, w, r, bw, br):
    *_, c, h = _lstm_gates(x @ w.T + h @ r.T + (bw + br), c)
    return (h, c), None


def _totals(x, w, r, products):
    """The cotangents of a layer's operands from those of its products, of all steps."""
    by_w, by_h, before = products
    flat = [a.reshape(-1, a.shape[-1]) for a in (by_w, x, by_h, before)]
    return by_w @ w, flat[0].T @ flat[1], flat[2].T @ flat[3], flat[0].sum(0), flat[2].sum(0)


def _pullbacks(backward):
    """A map per operand, of a function that gives all cotangents at once."""
    found: list[Any] = [None, None]  # for which cotangent, and what was found

    def of(position):
        def pullback(g):
            if found[0] is not g:
                found[:] = g, backward(g)
            return found[1][position]

        return pullback

    return tuple(of(k) for k in range(5))


def _lstm(x, w, r, bw, br):
    z = x @ w.T + (bw + br)
    h = c = np.zeros((x.shape[1], r.shape[1]), z.dtype)
    kept, outputs = [], []
    for t in range(len(x)):
        before = h, c
        i, f, g, o, c, h = _lstm_gates(z[t] + h @ r.T, c)
        kept.append((i, f, g, o, c, *before))
        outputs.append(h)

    def backward(cotangent):
        by_z, by_h, by_c = np.empty_like(z), np.zeros_like(h), np.zeros_like(c)
        for t in reversed(range(len(x))):
            i, f, g, o, c1, _, c0 = kept[t]
            by_h, s = by_h + cotangent[t], np.tanh(c1)
            by_c = by_c + by_h * o * (1 - s * s)
            parts = by_c * g * i * (1 - i), by_c * c0 * f * (1 - f), by_c * i * (1 - g * g), by_h * s * o * (1 - o)
            by_z[t] = np.concatenate(parts, axis=-1)
            by_h, by_c = by_z[t] @ r, by_c * f
        return _totals(x, w, r, (by_z, by_z, np.stack([k[5] for k in kept])))

    return np.stack(outputs), _pullbacks(backward)


def _gru(x, w, r, bw, br):
    z = x @ w.T + bw
    h = np.zeros((x.shape[1], r.shape[1]), z.dtype)
    kept, outputs = [], []
    for t in range(len(x)):
        before = h
        (a_r, a_u, a_n), (b_r, b_u, b_n) = _gates(z[t], 3), _gates(h @ r.T + br, 3)
        reset, update = _sigmoid(a_r + b_r), _sigmoid(a_u + b_u)
        new = np.tanh(a_n + reset * b_n)
        h = (1 - update) * new + update * h
        kept.append((reset, update, new, b_n, before))
        outputs.append(h)

    def backward(cotangent):
        by_z, by_b, by_h = np.empty_like(z), np.empty_like(z), np.zeros_like(h)
        for t in reversed(range(len(x))):
            reset, update, new, b_n, before = kept[t]
            by_h = by_h + cotangent[t]
            by_n = by_h * (1 - update) * (1 - new * new)
            by_u = by_h * (before - new) * update * (1 - update)
            by_r = by_n * b_n * reset * (1 - reset)
            by_z[t] = np.concatenate((by_r, by_u, by_n), axis=-1)
            by_b[t] = np.concatenate((by_r, by_u, by_n * reset), axis=-1)
            by_h = by_h * update + by_b[t] @ r
        return _totals(x, w, r, (by_z, by_b, np.stack([k[4] for k in kept])))

    return np.stack(outputs), _pullbacks(backward)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "one_hot": _one_hot, "merged": _merged, "argmax": _argmax, "constant": _constant, "lstm": _lstm, "gru": _gru,
    "lstm_cell": _lstm_cell,
}
