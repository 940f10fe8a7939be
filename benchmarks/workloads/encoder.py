"""A transformer encoder of the size of MiniLM-L6 (Wang et al. 2020): post-norm, as in BERT, without the embedding."""

from __future__ import annotations

import numpy as np

from ..workload import Workload, dense

ORDER = 70
HEADS = 12


def _parameters(rng, s):
    p, width = {}, s["width"]
    for layer in range(s["layers"]):
        for name, inputs, outputs in (
            ("qkv", width, 3 * width), ("mix", width, width), ("up", width, s["inner"]), ("down", s["inner"], width),
        ):
            p |= dense(rng, f"{layer}_{name}", inputs, outputs)
        for norm in ("norm1", "norm2"):
            scale, shift = rng.standard_normal((2, width), dtype=np.float32) * np.float32(0.1)
            p |= {f"w{layer}_{norm}": 1 + scale, f"b{layer}_{norm}": shift}
    return p


def _inputs(rng, s):
    return {"x": rng.standard_normal((s["batch"], s["steps"], s["width"]), dtype=np.float32)}


def _encode(ops, p, x):
    def pair(name):
        return p[f"w{name}"], p[f"b{name}"]

    for layer in range(sum(key.endswith("_qkv") for key in p) // 2):
        mixed = ops.linear(ops.self_attention(x, *pair(f"{layer}_qkv"), HEADS), *pair(f"{layer}_mix"))
        x = ops.layer_norm(x + mixed, *pair(f"{layer}_norm1"))
        inner = ops.linear(ops.gelu(ops.linear(x, *pair(f"{layer}_up"))), *pair(f"{layer}_down"))
        x = ops.layer_norm(x + inner, *pair(f"{layer}_norm2"))
    return x


def _flops(s):
    products = 4 * s["width"] ** 2 + 2 * s["width"] * s["inner"] + 2 * s["steps"] * s["width"]
    return 2 * s["batch"] * s["layers"] * s["steps"] * products


WORKLOADS = [
    Workload(
        "encoder", "encoder, 6 layers, d 384, sequence 128, inference", "forward",
        sizes={"batch": 1, "steps": 128, "width": 384, "inner": 1536, "layers": 6},
        tiny={"batch": 2, "steps": 5, "width": 24, "inner": 16, "layers": 2},
        parameters=_parameters, inputs=_inputs, compute=_encode, flops=_flops, aim=1.3,
    ),
]
