"""PyTensor with its default linker: shared variables, updates in place, inputs taken without copies."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..peer import Peer, Session, Vocabulary

pytensor: Any = None
pt: Any = None


class _Ops(Vocabulary):
    def tanh(self, x):
        return pt.tanh(x)

    def exp(self, x):
        return pt.exp(x)

    def gelu(self, x):
        half = np.float32(0.5)
        return half * x * (1 + pt.erf(x * np.float32(0.5**0.5)))

    def linear(self, x, w, b):
        return x @ w + b

    def image(self, x):
        return x

    def relu(self, x):
        return pt.maximum(x, np.float32(0))

    def flatten(self, x):
        return pt.flatten(x, 2)

    def layer_norm(self, x, w, b):
        centered = x - pt.mean(x, axis=-1, keepdims=True)
        variance = pt.mean(pt.sqr(centered), axis=-1, keepdims=True)
        return centered / pt.sqrt(variance + np.float32(1e-5)) * w + b

    def self_attention(self, x, w, b, heads):
        n, (_, steps, width) = x.shape[0], x.type.shape
        split = pt.reshape(x @ w + b, (n, steps, 3, heads, width // heads)).transpose(2, 0, 3, 1, 4)
        q, k, v = split[0], split[1], split[2]
        scores = pt.special.softmax(q @ k.swapaxes(-1, -2) * np.float32((width // heads) ** -0.5), axis=-1)
        return (scores @ v).swapaxes(1, 2).reshape((n, steps, width))

    def cross_entropy(self, logits, labels):
        logs = pt.special.log_softmax(logits, axis=-1)
        return -pt.mean(logs[pt.arange(labels.shape[0]), labels])

    def one_hot(self, x, count):
        return pt.cast(pt.eq(pt.shape_padright(x), pt.arange(count)), "float32")

    def merged(self, x):
        return pt.reshape(x, (-1, *(x.shape[k] for k in range(2, x.ndim))))

    def argmax(self, x):
        return pt.argmax(x, axis=-1)

    def constant(self, value):
        return pt.constant(value)

    def lstm(self, x, w, r, bw, br):
        size = r.get_value().shape[1]
        zeros = pt.zeros((x.shape[1], size), "float32")
        step = lambda z, h, c, r: _lstm_gates(z + h @ r.T, c, size)  # noqa: E731
        return self._scan(step, x @ w.T + (bw + br), [zeros, zeros], [r])[0]

    def gru(self, x, w, r, bw, br):
        size = r.get_value().shape[1]

        def step(a, h, r, br):
            (a_r, a_u, a_n), (b_r, b_u, b_n) = _gates(a, size, 3), _gates(h @ r.T + br, size, 3)
            reset, update = pt.sigmoid(a_r + b_r), pt.sigmoid(a_u + b_u)
            return (1 - update) * pt.tanh(a_n + reset * b_n) + update * h

        return self._scan(step, x @ w.T + bw, [pt.zeros((x.shape[1], size), "float32")], [r, br])

    def _scan(self, step, xs, states, weights):
        results, _ = pytensor.scan(step, [xs], states, weights, strict=True)
        return results

    def lstm_cell(self, x, h, c, w, r, bw, br):
        return tuple(_lstm_gates(x @ w.T + h @ r.T + (bw + br), c, r.get_value().shape[1]))


def _gates(z, size, count):
    return [z[..., k * size : (k + 1) * size] for k in range(count)]


def _lstm_gates(z, c, size):
    i, f, g, o = _gates(z, size, 4)
    c = pt.sigmoid(f) * c + pt.sigmoid(i) * pt.tanh(g)
    return [pt.sigmoid(o) * pt.tanh(c), c]


class Pytensor(Peer):
    name, title, quick = "pytensor", "PyTensor", False

    def environment(self, threads, cache):
        return {"PYTENSOR_FLAGS": f"floatX=float32,openmp=False,base_compiledir={cache}"}

    def load(self, threads):
        global pytensor, pt
        import pytensor
        import pytensor.tensor as pt
        import pytensor.tensor.special

        return pytensor.__version__

    def build(self, workload, parameters, inputs):
        p = {name: pytensor.shared(value, name=name) for name, value in parameters.items()}
        # Inputs as shared variables are neither checked nor copied at a call.
        shapes = {name: (None, *v.shape[1:]) if workload.batched else v.shape for name, v in inputs.items()}
        x = {name: pytensor.shared(v, name=name, borrow=True, shape=shapes[name]) for name, v in inputs.items()}
        value, state = workload.value(_Ops(), p, x)
        outputs, updates = [*value] if isinstance(value, tuple) else [value], []
        if workload.kind == "gradient":
            outputs += pytensor.grad(value, [x[name] for name in workload.wrt])
        elif workload.kind == "train":
            trained = [p[name] for name in workload.trained(p)]
            updates = _sgd(workload, trained, pytensor.grad(value, trained))
            updates += [(p[name], new) for name, new in state.items()]
        function = pytensor.function([], outputs, updates=updates)
        function.trust_input = True

        def call(new):
            for name, value in new.items():
                x[name].set_value(value, borrow=True)
            return function()

        return Session(
            function, lambda r: [np.asarray(a) for a in r], lambda: {n: np.array(v.get_value()) for n, v in p.items()},
            call,
        )


def _sgd(workload, parameters, gradients):
    updates = []
    rate, momentum = np.float32(workload.learning_rate), np.float32(workload.momentum)
    for p, g in zip(parameters, gradients):
        if workload.momentum:
            v = pytensor.shared(np.zeros_like(p.get_value()))
            g = momentum * v + g
            updates.append((v, g))
        updates.append((p, p - rate * g))
    return updates


PEERS = [Pytensor()]
