"""JAX: one jitted function per step, parameters and optimizer state donated."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..peer import Peer, Session, Vocabulary
from ..workload import fold_batch_norm

jax: Any = None
jnp: Any = None

KEY = " key"  # of the generator, among the parameters


class _Ops(Vocabulary):
    def __init__(self, key=None):
        self.key = key

    def tanh(self, x):
        return jnp.tanh(x)

    def exp(self, x):
        return jnp.exp(x)

    def relu(self, x):
        return jax.nn.relu(x)

    def gelu(self, x):
        return jax.nn.gelu(x, approximate=False)

    def linear(self, x, w, b):
        return x @ w + b

    def image(self, x):
        # XLA's convolutions want channels last.
        return jnp.transpose(x, (0, 2, 3, 1))

    def conv2d(self, x, w, b, stride=1, padding=0):
        y = jax.lax.conv_general_dilated(
            x, w, (stride, stride), [(padding, padding)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y if b is None else y + b

    def batch_norm_training(self, x, scale, shift, mean, var):
        axes = (0, 1, 2)
        count = x.size // x.shape[3]
        center, spread = jnp.mean(x, axes), jnp.var(x, axes)
        y = (x - center) * jax.lax.rsqrt(spread + 1e-5) * scale + shift
        return y, 0.9 * mean + 0.1 * center, 0.9 * var + 0.1 * spread * (count / (count - 1))

    def max_pool2d(self, x, size, stride=None, padding=0):
        if stride not in (None, size) or padding:
            pads = ((0, 0), (padding, padding), (padding, padding), (0, 0))
            return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, size, size, 1), (1, stride, stride, 1), pads)
        # The gradient of reduce_window is slow on the CPU; that of this form is fused. Windows that do not fit are cut.
        n, height, width, channels = x.shape
        rows, columns = height // size, width // size
        x = x[:, :rows * size, :columns * size]
        return jnp.max(jnp.reshape(x, (n, rows, size, columns, size, channels)), (2, 4))

    def flatten(self, x):
        return jnp.reshape(jnp.transpose(x, (0, 3, 1, 2)), (x.shape[0], -1))

    def global_average(self, x):
        return jnp.mean(x, (1, 2))

    def self_attention(self, x, w, b, heads):
        n, steps, width = x.shape
        q, k, v = jnp.moveaxis(jnp.reshape(x @ w + b, (n, steps, 3, heads, width // heads)), 2, 0)
        return jnp.reshape(jax.nn.dot_product_attention(q, k, v), x.shape)

    def layer_norm(self, x, w, b):
        mean = jnp.mean(x, -1, keepdims=True)
        variance = jnp.var(x, -1, keepdims=True)
        return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * w + b

    def cross_entropy(self, logits, labels):
        logs = jax.nn.log_softmax(logits)
        return -jnp.mean(jnp.take_along_axis(logs, labels[:, None], 1))

    def one_hot(self, x, count):
        return jax.nn.one_hot(x, count)

    def merged(self, x):
        return jnp.reshape(x, (-1, *x.shape[2:]))

    def argmax(self, x):
        return jnp.argmax(x, -1)

    def constant(self, value):
        return jnp.asarray(value)

    def lstm(self, x, w, r, bw, br):
        zeros = jnp.zeros((x.shape[1], r.shape[1]))
        return jax.lax.scan(lambda s, z: _lstm_step(z + s[0] @ r.T, s[1]), (zeros, zeros), x @ w.T + (bw + br))[1]

    def gru(self, x, w, r, bw, br):
        def step(h, a):
            (a_r, a_u, a_n), (b_r, b_u, b_n) = (jnp.split(z, 3, -1) for z in (a, h @ r.T + br))
            reset, update = jax.nn.sigmoid(a_r + b_r), jax.nn.sigmoid(a_u + b_u)
            h = (1 - update) * jnp.tanh(a_n + reset * b_n) + update * h
            return h, h

        return jax.lax.scan(step, jnp.zeros((x.shape[1], r.shape[1])), x @ w.T + bw)[1]

    def lstm_cell(self, x, h, c, w, r, bw, br):
        return _lstm_step(x @ w.T + h @ r.T + (bw + br), c)[0]

    def scan(self, step, carry, xs):
        return jax.lax.scan(step, carry, xs)[1]

    def dropout(self, x, share):
        return jnp.where(jax.random.bernoulli(self.key, 1 - share, x.shape), x / (1 - share), 0)

    def normal_like(self, x):
        return jax.random.normal(self.key, x.shape)


def _lstm_step(z, c):
    i, f, g, o = jnp.split(z, 4, -1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return (h, c), h


def _stored(value):
    """Weights of convolutions as XLA wants them: OIHW to HWIO."""
    return jax.device_put(value.transpose(2, 3, 1, 0) if value.ndim == 4 else value)


def _restored(value):
    value = np.array(value)
    return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value


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
        if workload.kind == "forward":
            parameters = fold_batch_norm(parameters)
        state = {name: _stored(value) for name, value in parameters.items()}
        if workload.kind == "train":
            return self._train(workload, state, x)

        function = jax.jit(_value(workload) if workload.kind == "forward" else _gradient(workload))
        if workload.summary is not None:
            state[KEY] = jax.random.key(0)  # an operand, so that nothing is drawn by the compiler
        return Session(
            lambda: jax.block_until_ready(function(state, x)),
            lambda r: [np.asarray(a) for a in jax.tree.leaves(r)],
            lambda: {name: _restored(value) for name, value in state.items() if name != KEY},
            lambda new: jax.block_until_ready(function(state, new)), lambda: _scratch(function, state, x),
        )

    def _train(self, workload, state, x):
        trained = workload.trained(state)
        velocity = {name: jnp.zeros_like(state[name]) for name in trained} if workload.momentum else {}
        held = [state, velocity]

        def loss_and_state(trained, rest, x):
            return workload.value(_Ops(), trained | rest, x)

        def update(p, v, x):
            rest = {name: value for name, value in p.items() if name not in trained}
            p = {name: p[name] for name in trained}
            (loss, new), g = jax.value_and_grad(loss_and_state, has_aux=True)(p, rest, x)
            if workload.momentum:
                v = g = jax.tree.map(lambda v, g: workload.momentum * v + g, v, g)
            return jax.tree.map(lambda p, g: p - workload.learning_rate * g, p, g) | new, v, loss

        function = jax.jit(update, donate_argnums=(0, 1))

        def step(x=x):
            held[0], held[1], loss = jax.block_until_ready(function(held[0], held[1], x))
            return loss

        return Session(
            step, lambda r: [np.asarray(r)], lambda: {name: _restored(value) for name, value in held[0].items()},
            step, lambda: _scratch(function, *held, x),
        )


def _scratch(function, *arguments):
    return function.lower(*arguments).compile().memory_analysis().temp_size_in_bytes


def _value(workload):
    return lambda p, x: workload.compute(_Ops(p.get(KEY)), p, **x)


def _gradient(workload):
    def function(p, x):
        rest = {name: value for name, value in x.items() if name not in workload.wrt}
        wrt = {name: x[name] for name in workload.wrt}
        return jax.value_and_grad(lambda w: workload.compute(_Ops(), p, **rest, **w))(wrt)

    return function


PEERS = [Jax()]
