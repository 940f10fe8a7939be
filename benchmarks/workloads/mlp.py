"""A multilayer perceptron of 1.9 million parameters, one training step."""

from __future__ import annotations

import numpy as np

from ..workload import Workload, dense

ORDER = 30


def _parameters(rng, s):
    return (
        dense(rng, "1", s["pixels"], s["hidden"]) | dense(rng, "2", s["hidden"], s["hidden"])
        | dense(rng, "3", s["hidden"], s["classes"])
    )


def _inputs(rng, s):
    return {
        "x": rng.standard_normal((s["batch"], s["pixels"]), dtype=np.float32),
        "y": rng.integers(0, s["classes"], s["batch"]),
    }


def _loss(ops, p, x, y):
    h = ops.tanh(ops.linear(x, p["w1"], p["b1"]))
    h = ops.tanh(ops.linear(h, p["w2"], p["b2"]))
    return ops.cross_entropy(ops.linear(h, p["w3"], p["b3"]), y)


def _flops(s):
    # Forward, gradient by the weights, and, but for the first layer, gradient by the inputs.
    first, rest = s["pixels"] * s["hidden"], s["hidden"] * (s["hidden"] + s["classes"])
    return 2 * s["batch"] * (2 * first + 3 * rest)


WORKLOADS = [
    Workload(
        "mlp", "MLP 784-1024-1024-10 step, batch 128, momentum", "train",
        sizes={"batch": 128, "pixels": 784, "hidden": 1024, "classes": 10},
        tiny={"batch": 5, "pixels": 12, "hidden": 9, "classes": 10},
        parameters=_parameters, inputs=_inputs, compute=_loss, flops=_flops, learning_rate=0.02, momentum=0.9,
        aim=1.25,
    ),
]
