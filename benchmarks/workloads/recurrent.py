"""Recurrent networks on characters: training steps of LSTM and GRU, one step with state, a text in one call."""

from __future__ import annotations

import numpy as np

from ..workload import Workload

ORDER = 90
SIZES = {"steps": 50, "batch": 32, "vocabulary": 65, "hidden": 256}
TINY = {"steps": 4, "batch": 3, "vocabulary": 5, "hidden": 7}
GATES = {"lstm": 4, "gru": 3}


def _parameters(kind):
    def make(rng, s):
        hidden, rows, scale = s["hidden"], GATES[kind] * s["hidden"], s["hidden"] ** -0.5
        shapes = {"w": (rows, s["vocabulary"]), "r": (rows, hidden), "bw": (rows,), "br": (rows,)}
        shapes |= {"wo": (hidden, s["vocabulary"]), "bo": (s["vocabulary"],)}
        return {name: rng.uniform(-scale, scale, shape).astype(np.float32) for name, shape in shapes.items()}

    return make


def _text(rng, s):
    text = rng.integers(0, s["vocabulary"], (s["steps"] + 1, s["batch"]))
    return {"x": np.ascontiguousarray(text[:-1]), "y": np.ascontiguousarray(text[1:])}


def _loss(kind):
    def compute(ops, p, x, y):
        layer = {"lstm": ops.lstm, "gru": ops.gru}[kind]
        h = layer(ops.one_hot(x, p["wo"].shape[1]), p["w"], p["r"], p["bw"], p["br"])
        return ops.cross_entropy(ops.merged(ops.linear(h, p["wo"], p["bo"])), ops.merged(y))

    return compute


def _step_flops(kind):
    def flops(s):
        rows = GATES[kind] * s["hidden"]
        of_a_character = 2 * rows * s["vocabulary"] + 3 * rows * s["hidden"] + 3 * s["hidden"] * s["vocabulary"]
        return 2 * s["steps"] * s["batch"] * of_a_character

    return flops


def _state(rng, s):
    h, c = rng.standard_normal((2, s["batch"], s["hidden"]), dtype=np.float32)
    return {"x": rng.standard_normal((s["batch"], s["vocabulary"]), dtype=np.float32), "h": h, "c": c}


def _cell(ops, p, x, h, c):
    return ops.lstm_cell(x, h, c, p["w"], p["r"], p["bw"], p["br"])


def _noise(rng, s):
    return {"noise": rng.gumbel(size=(s["steps"], s["vocabulary"])).astype(np.float32)}


def _sample(ops, p, noise):
    """Each character from the scores after those before; the noise, of Gumbel's distribution, makes the choice."""
    count = p["wo"].shape[1]

    def step(carry, noise):
        char, h, c = carry
        h, c = ops.lstm_cell(ops.one_hot(char, count), h, c, p["w"], p["r"], p["bw"], p["br"])
        char = ops.argmax(ops.linear(h, p["wo"], p["bo"]) + noise)
        return (char, h, c), char

    zeros = ops.constant(np.zeros((1, p["r"].shape[1]), np.float32))
    return ops.scan(step, (ops.constant(np.zeros(1, np.int64)), zeros, zeros), noise)



NOT_SAMPLED = {
    "torch_compile": "it unrolls the loop over the characters",
    "pytensor": "its loops are measured by the training steps",
}

WORKLOADS = [
    *(
        Workload(
            f"{kind}_step", f"{kind.upper()} 256 step, 50 characters of 65, batch 32, SGD", "train", SIZES, TINY,
            parameters=_parameters(kind), inputs=_text, compute=_loss(kind), flops=_step_flops(kind),
            learning_rate=0.5, aim=1.3,
        )
        for kind in ("lstm", "gru")
    ),
    Workload(
        "lstm_cell", "LSTM 256, one step with state, batch 1", "forward", SIZES | {"batch": 1}, TINY,
        parameters=_parameters("lstm"), inputs=_state, compute=_cell, aim=2,
        flops=lambda s: 8 * s["hidden"] * (s["hidden"] + s["vocabulary"]),
    ),
    Workload(
        "sample", "LSTM 256, 1000 characters sampled", "forward", SIZES | {"steps": 1000}, TINY,
        parameters=_parameters("lstm"), inputs=_noise, compute=_sample, batched=False, leave_out=NOT_SAMPLED, aim=5,
        flops=lambda s: 2 * s["steps"] * s["hidden"] * (4 * s["hidden"] + 5 * s["vocabulary"]),
    ),
]
