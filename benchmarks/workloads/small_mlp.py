"""A small perceptron, where the overhead of a call counts: training step and forward."""

from __future__ import annotations

import numpy as np

from ..workload import Workload, dense

ORDER = 40
SIZES = {"batch": 32, "pixels": 784, "hidden": 256, "classes": 10}
TINY = {"batch": 5, "pixels": 12, "hidden": 9, "classes": 10}


def _parameters(rng, s):
    return dense(rng, "1", s["pixels"], s["hidden"]) | dense(rng, "2", s["hidden"], s["classes"])


def _images(rng, s):
    return {"x": rng.standard_normal((s["batch"], s["pixels"]), dtype=np.float32)}


def _inputs(rng, s):
    return _images(rng, s) | {"y": rng.integers(0, s["classes"], s["batch"])}


def _logits(ops, p, x):
    return ops.linear(ops.tanh(ops.linear(x, p["w1"], p["b1"])), p["w2"], p["b2"])


def _loss(ops, p, x, y):
    return ops.cross_entropy(_logits(ops, p, x), y)


def _forward_flops(s):
    return 2 * s["batch"] * s["hidden"] * (s["pixels"] + s["classes"])


def _step_flops(s):
    return 2 * s["batch"] * s["hidden"] * (2 * s["pixels"] + 3 * s["classes"])


WORKLOADS = [
    Workload(
        "small_mlp_step", "small MLP 784-256-10 step, batch 32, SGD", "train", SIZES, TINY,
        parameters=_parameters, inputs=_inputs, compute=_loss, flops=_step_flops, learning_rate=0.02, aim=2,
    ),
    Workload(
        "small_mlp_forward", "small MLP 784-256-10 forward, batch 32", "forward", SIZES, TINY,
        parameters=_parameters, inputs=_images, compute=_logits, flops=_forward_flops, aim=1.4,
    ),
]
