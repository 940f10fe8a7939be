"""JAX: one jitted function per step, parameters and optimizer state donated."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..peer import Peer, Session, Vocabulary

jax: Any = None
jnp: Any = None


class _Ops(Vocabulary):
    def tanh(self, x):
        return jnp.tanh(x)

    def exp(self, x):
        return jnp.exp(x)

    def gelu(self, x):
        return jax.nn.gelu(x, approximate=False)

    def linear(self, x, w, b):
        return x @ w + b

    def image(self, x):
        # XLA's convolutions want channels last.
        return jnp.transpose(x, (0, 2, 3, 1))

    def conv2d(self, x, w, b):
        return jax.lax.conv_general_dilated(x, w, (1, 1), "VALID", dimension_numbers=("NHWC", "OIHW", "NHWC")) + b

    def max_pool2d(self, x, size):
        # The gradient of reduce_window is slow on the CPU; that of this form is fused. Windows that do not fit are cut.
        n, height, width, channels = x.shape
        rows, columns = height // size, width // size
        x = x[:, :rows * size, :columns * size]
        return jnp.max(jnp.reshape(x, (n, rows, size, columns, size, channels)), (2, 4))

    def flatten(self, x):
        return jnp.reshape(jnp.transpose(x, (0, 3, 1, 2)), (x.shape[0], -1))

    def layer_norm(self, x, w, b):
        mean = jnp.mean(x, -1, keepdims=True)
        variance = jnp.var(x, -1, keepdims=True)
        return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * w + b

    def cross_entropy(self, logits, labels):
        logs = jax.nn.log_softmax(logits)
        return -jnp.mean(jnp.take_along_axis(logs, labels[:, None], 1))


class Jax(Peer):
    name, title = "jax", "JAX jit"

    def environment(self, threads, cache):
        # XLA sizes its pool for the CPU by NPROC.
        return {
            "JAX_PLATFORMS": "cpu", "NPROC": str(threads), "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=true",
            "JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }

    def load(self, threads):
        global jax, jnp
        import jax
        import jax.numpy as jnp

        return jax.__version__

    def build(self, workload, parameters, inputs):
        x = {name: jax.device_put(value) for name, value in inputs.items()}
        state = {name: jax.device_put(value) for name, value in parameters.items()}
        if workload.kind == "train":
            return self._train(workload, state, x)

        function = jax.jit(_value(workload) if workload.kind == "forward" else _gradient(workload))
        return Session(
            lambda: jax.block_until_ready(function(state, x)),
            lambda r: [np.asarray(a) for a in jax.tree.leaves(r)],
            lambda: {name: np.asarray(value) for name, value in state.items()},
        )

    def _train(self, workload, state, x):
        velocity = {name: jnp.zeros_like(p) for name, p in state.items()} if workload.momentum else {}
        held = [state, velocity]

        def update(p, v, x):
            loss, g = jax.value_and_grad(_value(workload))(p, x)
            if workload.momentum:
                v = g = jax.tree.map(lambda v, g: workload.momentum * v + g, v, g)
            return jax.tree.map(lambda p, g: p - workload.learning_rate * g, p, g), v, loss

        function = jax.jit(update, donate_argnums=(0, 1))

        def step():
            held[0], held[1], loss = jax.block_until_ready(function(held[0], held[1], x))
            return loss

        return Session(
            step, lambda r: [np.asarray(r)], lambda: {name: np.array(value) for name, value in held[0].items()},
        )


def _value(workload):
    return lambda p, x: workload.compute(_Ops(), p, **x)


def _gradient(workload):
    def function(p, x):
        rest = {name: value for name, value in x.items() if name not in workload.wrt}
        wrt = {name: x[name] for name in workload.wrt}
        return jax.value_and_grad(lambda w: workload.compute(_Ops(), p, **rest, **w))(wrt)

    return function


PEERS = [Jax()]
