"""NumPy, with gradients by a small tape; in float64 it is the reference that all results are compared with."""

from __future__ import annotations

import numpy as np

from .. import tape
from ..peer import Peer, Session
from ..workload import fold_batch_norm


class Numpy(Peer):
    name, title, compiles = "numpy", "NumPy", False
    dtype = np.float32
    folds = True

    def load(self, threads):
        return np.__version__

    def build(self, workload, parameters, inputs):
        if self.folds and workload.kind == "forward":
            parameters = fold_batch_norm(parameters)
        p, x = ({n: self._cast(v) for n, v in arrays.items()} for arrays in (parameters, inputs))
        make = {"forward": _forward, "gradient": _gradient, "train": _train}[workload.kind]
        return Session(
            make(workload, p, x), lambda r: [np.asarray(a) for a in r], lambda: {n: v.copy() for n, v in p.items()},
        )

    def _cast(self, value):
        return value.astype(self.dtype) if value.dtype.kind == "f" else value


class Reference(Numpy):
    name, title, default, dtype = "reference", "NumPy in float64", False, np.float64
    folds = False
    ours = True  # the interpreter that starts the benchmarks has NumPy


def _forward(workload, p, x):
    ops = tape.Plain()

    def step():
        value = workload.compute(ops, p, **x)
        return value if isinstance(value, tuple) else (value,)

    return step


def _gradient(workload, p, x):
    ops = tape.Taped()

    def step():
        leaves = {n: tape.Value(v) if n in workload.wrt else v for n, v in x.items()}
        loss = workload.compute(ops, p, **leaves)
        return (loss.data, *tape.gradients(loss, [leaves[n] for n in workload.wrt]))

    return step


def _train(workload, p, x):
    ops = tape.Taped()
    trained = workload.trained(p)
    velocity = {n: np.zeros_like(p[n]) for n in trained}

    def step():
        leaves = {n: tape.Value(p[n]) for n in trained}
        loss, state = workload.value(ops, p | leaves, x)
        p.update(state)
        for name, g in zip(trained, tape.gradients(loss, list(leaves.values()))):
            if workload.momentum:
                v = velocity[name]
                v *= workload.momentum
                v += g
                g = v
            p[name] -= workload.learning_rate * g
        return (loss.data,)

    return step


PEERS = [Numpy(), Reference()]
