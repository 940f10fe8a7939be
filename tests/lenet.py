"""The training step of a small LeNet, built from the ops of the IR: what target tests compile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphwright.ir.dims import symbol
from graphwright.ir.dtypes import float32, int64
from graphwright.ir.graph import Graph, Value
from graphwright.ir.ops import OPS
from graphwright.passes.differentiate import gradients
from graphwright.passes.stabilize import stabilize_values


@dataclass
class Step:
    """A training step, and initial values of its states: weights, biases, then their velocities."""

    graph: Graph
    states: list[np.ndarray]

    def batch(self, n: int, size: int, classes: int, seed: int = 0) -> list[np.ndarray]:
        rng = np.random.default_rng(seed)
        return [rng.standard_normal((n, 1, size, size)).astype("f"), rng.integers(0, classes, n)]


def lenet_step(size: int = 8, channels: tuple[int, int] = (2, 3), hidden: int = 5, classes: int = 4) -> Step:
    """Two convolutions (bias, tanh), two max-poolings, two dense layers, cross-entropy, SGD with momentum."""
    n, rng = symbol("N"), np.random.default_rng(1)
    x = OPS["input"](name="x", shape=(n, 1, size, size), dtype=float32)
    y = OPS["input"](name="y", shape=(n,), dtype=int64)
    weights: list[Value] = []
    values: list[np.ndarray] = []

    def parameter(name: str, *shape: int) -> Value:
        weights.append(OPS["state"](name=name, shape=shape, dtype=float32))
        values.append((rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype("f"))
        return weights[-1]

    h = x
    for k, (i, o) in enumerate(((1, channels[0]), channels)):
        w, b = parameter(f"conv{k}.w", o, i, 3, 3), parameter(f"conv{k}.b", o)
        h = OPS["conv"](h, w, stride=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), groups=1)
        h = OPS["tanh"](h + OPS["broadcast"](b, shape=h.shape, dims=(1,)))
        h = OPS["window_max"](h, kernel=(2, 2), stride=(2, 2), padding=((0, 0), (0, 0)), dilation=(1, 1))
    flat = channels[1] * (size // 4) ** 2
    h = OPS["reshape"](h, shape=(n, flat))
    h = OPS["tanh"](_dense(h, parameter("dense0.w", flat, hidden), parameter("dense0.b", hidden)))
    logits = _dense(h, parameter("dense1.w", hidden, classes), parameter("dense1.b", classes))
    (loss,) = stabilize_values([_cross_entropy(logits, y)], weights)
    updates, velocities = [], []
    for w, g in zip(weights, gradients(loss, weights)):
        v = OPS["state"](name=f"{w.attrs['name']}.v", shape=w.shape, dtype=float32)
        velocities.append(v)
        updates += [(v, v * 0.9 + g), (w, w - (v * 0.9 + g) * 0.1)]
    graph = Graph("train", (x, y), (*weights, *velocities), (loss,), tuple(updates))
    return Step(graph, [*values, *map(np.zeros_like, values)])


def _dense(h: Value, w: Value, b: Value) -> Value:
    h = OPS["dot"](h, w, contract=((1,), (0,)))
    return h + OPS["broadcast"](b, shape=h.shape, dims=(1,))


def _cross_entropy(logits: Value, y: Value) -> Value:
    def rows(v: Value) -> Value:
        return OPS["broadcast"](v, shape=logits.shape, dims=(0,))

    n = logits.shape[0]
    top = OPS["stop_gradient"](OPS["amax"](logits, axes=(1,)))
    total = top + OPS["log"](OPS["sum"](OPS["exp"](logits - rows(top)), axes=(1,)))
    hot = OPS["eq"](rows(y), OPS["iota"](shape=logits.shape, axis=1, dtype=int64))
    picked = OPS["sum"](OPS["where"](hot, logits, 0.0), axes=(1,))
    count = OPS["sum"](OPS["full"](shape=(n,), value=1.0, dtype=float32), axes=(0,))
    return OPS["sum"](total - picked, axes=(0,)) / count
