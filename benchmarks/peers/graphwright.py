"""Graphwright, through its public face: NumPy arrays in, NumPy arrays out."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..peer import Peer, Session

gw: Any = None


class _Ops:
    def __getattr__(self, name):
        return getattr(gw.nn, name, None) or getattr(gw, name)

    def linear(self, x, w, b):
        return x @ w + b

    def image(self, x):
        return x

    def global_average(self, x):
        return gw.mean(x, (2, 3))

    def batch_norm(self, x, scale, shift, mean, var):
        return gw.nn.batch_norm(x, mean, var, scale, shift)

    def batch_norm_training(self, x, scale, shift, mean, var):
        return gw.nn.batch_norm(x, mean, var, scale, shift, training=True)

    def self_attention(self, x, w, b, heads):
        n, steps, width = x.shape
        split = gw.reshape(x @ w + b, (n, steps, 3, heads, width // heads))
        q, k, v = (gw.permute_dims(split[:, :, i], (0, 2, 1, 3)) for i in range(3))
        mixed = gw.nn.scaled_dot_product_attention(q, k, v)
        return gw.reshape(gw.permute_dims(mixed, (0, 2, 1, 3)), (n, steps, width))

    def flatten(self, x):
        return gw.flatten(x, 1)

    def layer_norm(self, x, w, b):
        return gw.nn.layer_norm(x, x.shape[-1:], w, b)

    def one_hot(self, x, count):
        return gw.nn.one_hot(x, count, dtype="float32")

    def merged(self, x):
        return gw.flatten(x, 0, 1)

    def argmax(self, x):
        return gw.argmax(x, -1)

    def constant(self, value):
        return gw.asarray(value)

    def lstm(self, x, *weights):
        return _with_weights(gw.nn.LSTM, weights)(x)[0]

    def gru(self, x, *weights):
        return _with_weights(gw.nn.GRU, weights)(x)[0]

    def lstm_cell(self, x, h, c, *weights):
        return _with_weights(gw.nn.LSTMCell, weights, "")(x, (h, c))

    def scan(self, step, carry, xs):
        return gw.scan(step, carry, xs)[1]

    def dropout(self, x, share):
        return gw.nn.dropout(x, share, rng=gw.random.Generator(0))

    def normal_like(self, x):
        return gw.random.Generator(0).normal(x.shape)


def _with_weights(kind, weights, suffix="_l0"):
    """A layer with parameters that are there already."""
    w, r = weights[:2]
    layer = kind(w.shape[1], r.shape[1])
    for name, value in zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), weights):
        setattr(layer, name + suffix, value)
    return layer


class Graphwright(Peer):
    """One compilation for every batch size: the batch is a symbolic dimension."""

    name, title, ours = "graphwright", "Graphwright", True
    symbolic = True

    def environment(self, threads, cache):
        return {"GRAPHWRIGHT_NUM_THREADS": str(threads), "GRAPHWRIGHT_CACHE_DIR": cache}

    def load(self, threads):
        global gw
        import graphwright as gw

        gw.set_num_threads(threads)
        return gw.__version__

    def build(self, workload, parameters, inputs):
        f, p = self.function(workload, parameters, inputs)
        given = tuple(inputs.values())
        return Session(
            lambda: f(*given), lambda r: [np.asarray(a) for a in (r if isinstance(r, list | tuple) else [r])],
            lambda: {name: np.array(v.value) for name, v in p.items()},
            (lambda new: f(*new.values())) if self.symbolic else None, lambda: self.memory(f, workload, inputs),
        )

    def dims(self, workload, inputs):
        """The values of the symbolic dimensions."""
        return {"N": len(next(iter(inputs.values())))} if workload.batched and self.symbolic else {}

    def memory(self, f, workload, inputs):
        """Bytes of the arena: without symbolic dimensions, the formula is a number."""
        return int(f.memory(**self.dims(workload, inputs)))

    def function(self, workload, parameters, inputs):
        """The compiled workload, and its variables by name."""
        p = {name: gw.Variable(value, name=name) for name, value in parameters.items()}
        args = {name: self._placeholder(workload, name, value) for name, value in inputs.items()}
        value, state = workload.value(_Ops(), p, args)
        outputs, updates = [*value] if isinstance(value, tuple) else [value], {}
        if workload.kind == "gradient":
            outputs += gw.grad(value, [args[name] for name in workload.wrt])
        elif workload.kind == "train":
            trained = [p[name] for name in workload.trained(p)]
            updates = _sgd(workload, trained, gw.grad(value, trained)) | {p[name]: new for name, new in state.items()}
        # A single output is returned as it is, not in a list, as users would have it.
        single = len(outputs) == 1
        f = gw.function(list(args.values()), outputs[0] if single else outputs, updates=updates, name=workload.name)
        return f, p

    def _placeholder(self, workload, name, value):
        shape = ("N", *value.shape[1:]) if workload.batched and self.symbolic else value.shape
        return gw.placeholder(name, value.dtype.name, shape)


class Static(Graphwright):
    """All sizes known to the compiler, as in the peers that compile."""

    name, title, symbolic, default = "graphwright_static", "Graphwright, fixed sizes", False, False


def _sgd(workload, parameters, gradients):
    updates = {}
    for p, g in zip(parameters, gradients):
        if workload.momentum:
            v = gw.Variable(np.zeros(p.value.shape, np.float32), name=f"velocity_{p.name}")
            updates[v] = g = workload.momentum * v + g
        updates[p] = p - workload.learning_rate * g
    return updates


PEERS = [Graphwright(), Static()]
