"""A LeNet-style network, one training step."""

from __future__ import annotations

import numpy as np

from ..workload import Workload, dense

ORDER = 50


def _side(s):
    """Pixels along an axis after both convolutions and poolings."""
    return ((s["pixels"] - 4) // 2 - 4) // 2


def _convolution(rng, name, inputs, outputs):
    w = rng.standard_normal((outputs, inputs, 5, 5)) / (inputs * 25) ** 0.5
    return {f"w{name}": w.astype(np.float32), f"b{name}": np.zeros(outputs, np.float32)}


def _parameters(rng, s):
    return (
        _convolution(rng, "1", 1, s["first"]) | _convolution(rng, "2", s["first"], s["second"])
        | dense(rng, "3", s["second"] * _side(s) ** 2, s["hidden"]) | dense(rng, "4", s["hidden"], 10)
    )


def _inputs(rng, s):
    shape = (s["batch"], 1, s["pixels"], s["pixels"])
    return {"x": rng.standard_normal(shape, dtype=np.float32), "y": rng.integers(0, 10, s["batch"])}


def _loss(ops, p, x, y):
    h = ops.image(x)
    h = ops.max_pool2d(ops.tanh(ops.conv2d(h, p["w1"], p["b1"])), 2)
    h = ops.max_pool2d(ops.tanh(ops.conv2d(h, p["w2"], p["b2"])), 2)
    h = ops.tanh(ops.linear(ops.flatten(h), p["w3"], p["b3"]))
    return ops.cross_entropy(ops.linear(h, p["w4"], p["b4"]), y)


def _flops(s):
    one, two = s["pixels"] - 4, (s["pixels"] - 4) // 2 - 4
    first = one**2 * s["first"] * 25
    rest = two**2 * s["second"] * s["first"] * 25 + s["second"] * _side(s) ** 2 * s["hidden"] + s["hidden"] * 10
    return 2 * s["batch"] * (2 * first + 3 * rest)


WORKLOADS = [
    Workload(
        "lenet", "LeNet 20-50-500-10 step, batch 64, momentum", "train",
        sizes={"batch": 64, "pixels": 28, "first": 20, "second": 50, "hidden": 500},
        tiny={"batch": 3, "pixels": 16, "first": 3, "second": 5, "hidden": 7},
        parameters=_parameters, inputs=_inputs, compute=_loss, flops=_flops, learning_rate=0.02, momentum=0.9,
        aim=2,
    ),
]
