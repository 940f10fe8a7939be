"""PyTorch, eager and compiled: tensors made once, fused optimizer."""

from __future__ import annotations

from typing import Any

from ..peer import Peer, Session, Vocabulary
from ..workload import fold_batch_norm

torch: Any = None
F: Any = None


class _Ops(Vocabulary):
    def tanh(self, x):
        return torch.tanh(x)

    def exp(self, x):
        return torch.exp(x)

    def relu(self, x):
        return F.relu(x, inplace=True)

    def gelu(self, x):
        return F.gelu(x)

    def linear(self, x, w, b):
        return torch.addmm(b, x, w) if x.ndim == 2 else F.linear(x, w.mT, b)

    def image(self, x):
        return x.contiguous(memory_format=torch.channels_last)

    def conv2d(self, x, w, b, stride=1, padding=0):
        return F.conv2d(x, w, b, stride, padding)

    def batch_norm(self, x, scale, shift, mean, var):
        return F.batch_norm(x, mean, var, scale, shift)

    def batch_norm_training(self, x, scale, shift, mean, var):
        return F.batch_norm(x, mean, var, scale, shift, training=True), mean, var  # it has overwritten the statistics

    def max_pool2d(self, x, size, stride=None, padding=0):
        return F.max_pool2d(x, size, stride, padding)

    def global_average(self, x):
        return torch.mean(x, (2, 3))

    def flatten(self, x):
        return torch.flatten(x, 1)

    def layer_norm(self, x, w, b):
        return F.layer_norm(x, x.shape[-1:], w, b)

    def self_attention(self, x, w, b, heads):
        n, steps, width = x.shape
        q, k, v = self.linear(x, w, b).view(n, steps, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)

    def cross_entropy(self, logits, labels):
        return F.cross_entropy(logits, labels)

    def one_hot(self, x, count):
        return F.one_hot(x, count).float()

    def merged(self, x):
        return torch.flatten(x, 0, 1)

    def argmax(self, x):
        return torch.argmax(x, -1)

    def constant(self, value):
        return torch.from_numpy(value)

    def lstm(self, x, *weights):
        state = 2 * [x.new_zeros(1, x.shape[1], weights[1].shape[1])]
        return _recurrent(torch.lstm)(x, state, weights, True, 1, 0.0, False, False, False)[0]

    def gru(self, x, *weights):
        state = x.new_zeros(1, x.shape[1], weights[1].shape[1])
        return _recurrent(torch.gru)(x, state, weights, True, 1, 0.0, False, False, False)[0]

    def lstm_cell(self, x, h, c, *weights):
        return torch.lstm_cell(x, (h, c), *weights)

    def scan(self, step, carry, xs):
        results = []
        for x in xs:
            carry, y = step(carry, x)
            results.append(y)
        return torch.stack(results)

    def dropout(self, x, share):
        return F.dropout(x, share, training=True)

    def normal_like(self, x):
        return torch.randn_like(x)


def _recurrent(function):
    """What nn.LSTM and nn.GRU call; `torch.compile` leaves these modules as they are."""
    return torch.compiler.disable(function)


def _stored(p):
    """Convolutions are faster with channels last, so their weights are kept so."""
    return p.contiguous(memory_format=torch.channels_last) if p.ndim == 4 else p


def _model(workload, p):
    """A module for inference, the parameters of which `torch.compile` takes for constants when it freezes."""

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for name, value in p.items():
                self.register_buffer(name, value)

        def forward(self, **x):
            return workload.compute(_Ops(), {name: getattr(self, name) for name in p}, **x)

    return Model().eval()


class Eager(Peer):
    name, title, compiles = "pytorch", "PyTorch", False
    folds = True  # torch.nn.utils.fusion.fuse_conv_bn_eval and its like are for eager use

    def load(self, threads):
        global torch, F
        import torch
        import torch.nn.functional as F

        torch.set_num_threads(threads)
        return torch.__version__

    def compiled(self, function):
        return function

    def build(self, workload, parameters, inputs):
        if self.folds and workload.kind == "forward":
            parameters = fold_batch_norm(parameters)
        p = {name: _stored(torch.from_numpy(value.copy())) for name, value in parameters.items()}
        x = {name: torch.from_numpy(value.copy()) for name, value in inputs.items()}
        make = {"forward": self._forward, "gradient": self._gradient, "train": self._train}[workload.kind]
        step = make(workload, p)
        return Session(
            lambda: step(x), lambda r: [t.detach().numpy() for t in r],
            lambda: {name: t.detach().numpy().copy() for name, t in p.items()},
            lambda new: step({name: torch.from_numpy(value) for name, value in new.items()}),
        )

    def _forward(self, workload, p):
        torch.set_grad_enabled(False)
        function = self.compiled(_model(workload, p))

        def step(x):
            with torch.inference_mode():
                value = function(**x)
                return value if isinstance(value, tuple) else (value,)

        return step

    def _gradient(self, workload, p):
        function = self.compiled(lambda x: workload.compute(_Ops(), p, **x))

        def step(x):
            wrt = [x[name].requires_grad_() for name in workload.wrt]
            value = function(x)
            return (value, *torch.autograd.grad(value, wrt))

        return step

    def _train(self, workload, p):
        parameters = [p[name].requires_grad_() for name in workload.trained(p)]
        optimizer = torch.optim.SGD(
            parameters, lr=workload.learning_rate, momentum=workload.momentum, fused=True,
        )
        function = self.compiled(lambda x: workload.value(_Ops(), p, x)[0])

        def step(x):
            optimizer.zero_grad()
            loss = function(x)
            loss.backward()
            optimizer.step()
            return (loss,)

        return step


class Compiled(Eager):
    name, title, compiles = "torch_compile", "torch.compile", True
    folds = False  # freezing does it

    def environment(self, threads, cache):
        # No processes that compile: they would belong to the parent of those that measure.
        return {"TORCHINDUCTOR_CACHE_DIR": cache, "TORCHINDUCTOR_FREEZING": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}

    def load(self, threads):
        version = super().load(threads)
        import torch._inductor.compile_fx  # noqa: F401 - else with the first workload, each time

        return version

    def compiled(self, function):
        return torch.compile(function)


PEERS = [Eager(), Compiled()]
