"""PyTorch, eager and compiled: tensors made once, fused optimizer."""

from __future__ import annotations

from typing import Any

from ..peer import Peer, Session, Vocabulary

torch: Any = None
F: Any = None


class _Ops(Vocabulary):
    def tanh(self, x):
        return torch.tanh(x)

    def exp(self, x):
        return torch.exp(x)

    def gelu(self, x):
        return F.gelu(x)

    def linear(self, x, w, b):
        return torch.addmm(b, x, w)

    def image(self, x):
        return x.contiguous(memory_format=torch.channels_last)

    def conv2d(self, x, w, b):
        return F.conv2d(x, w, b)

    def max_pool2d(self, x, size):
        return F.max_pool2d(x, size)

    def flatten(self, x):
        return torch.flatten(x, 1)

    def layer_norm(self, x, w, b):
        return F.layer_norm(x, x.shape[-1:], w, b)

    def cross_entropy(self, logits, labels):
        return F.cross_entropy(logits, labels)


def _stored(p):
    """Convolutions are faster with channels last, so their weights are kept so."""
    return p.contiguous(memory_format=torch.channels_last) if p.ndim == 4 else p


class Eager(Peer):
    name, title, compiles = "pytorch", "PyTorch", False

    def load(self, threads):
        global torch, F
        import torch
        import torch.nn.functional as F

        torch.set_num_threads(threads)
        return torch.__version__

    def compiled(self, function):
        return function

    def build(self, workload, parameters, inputs):
        p = {name: _stored(torch.from_numpy(value.copy())) for name, value in parameters.items()}
        x = {name: torch.from_numpy(value.copy()) for name, value in inputs.items()}
        make = {"forward": self._forward, "gradient": self._gradient, "train": self._train}[workload.kind]
        return Session(
            make(workload, p, x), lambda r: [t.detach().numpy() for t in r],
            lambda: {name: t.detach().numpy().copy() for name, t in p.items()},
        )

    def _forward(self, workload, p, x):
        torch.set_grad_enabled(False)
        function = self.compiled(lambda: workload.compute(_Ops(), p, **x))
        return lambda: (function(),)

    def _gradient(self, workload, p, x):
        wrt = [x[name].requires_grad_() for name in workload.wrt]
        function = self.compiled(lambda: workload.compute(_Ops(), p, **x))

        def step():
            value = function()
            return (value, *torch.autograd.grad(value, wrt))

        return step

    def _train(self, workload, p, x):
        parameters = [t.requires_grad_() for t in p.values()]
        optimizer = torch.optim.SGD(
            parameters, lr=workload.learning_rate, momentum=workload.momentum, fused=True,
        )
        function = self.compiled(lambda: workload.compute(_Ops(), p, **x))

        def step():
            optimizer.zero_grad()
            loss = function()
            loss.backward()
            optimizer.step()
            return (loss,)

        return step


class Compiled(Eager):
    name, title, compiles = "torch_compile", "torch.compile", True

    def environment(self, threads, cache):
        return {"TORCHINDUCTOR_CACHE_DIR": cache}

    def compiled(self, function):
        return torch.compile(function)


PEERS = [Eager(), Compiled()]
