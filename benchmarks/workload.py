"""What is measured: a record per workload, found in the modules of `benchmarks.workloads`.

A workload is written once, against the vocabulary `Ops` that every peer provides in its own idiom, so all
peers do the same work on the same data, and a new workload is one small file.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

__all__ = ["Arrays", "Ops", "Sizes", "Workload", "dense", "find", "fold_batch_norm", "workloads"]

Sizes = Mapping[str, int]
Arrays = dict[str, np.ndarray]

BATCH_NORM = ("scale", "shift", "mean", "var")  # the parameters of a batch norm, in the order of `Ops.batch_norm`


class Ops(Protocol):
    """The functions that workloads are written with, beside the operators ``+ - * @``.

    A peer that lacks one is left out of the workloads that need it.
    """

    def tanh(self, x: Any) -> Any: ...
    def exp(self, x: Any) -> Any: ...
    def relu(self, x: Any) -> Any:
        """May overwrite x, which nothing else reads."""
    def gelu(self, x: Any) -> Any:
        """The exact form, with erf."""
    def linear(self, x: Any, w: Any, b: Any) -> Any:
        """``x @ w + b`` with w of shape (inputs, outputs), along the last axis of x."""
    def image(self, x: Any) -> Any:
        """Images (N, C, H, W), brought to the layout that the peer likes best; `flatten` undoes it."""
    def conv2d(self, x: Any, w: Any, b: Any, stride: int = 1, padding: int = 0) -> Any:
        """w of shape (outputs, inputs, height, width), b may be None; zeros around the image."""
    def batch_norm(self, x: Any, scale: Any, shift: Any, mean: Any, var: Any) -> Any:
        """Of images, with the running statistics, eps 1e-5."""
    def batch_norm_training(self, x: Any, scale: Any, shift: Any, mean: Any, var: Any) -> tuple[Any, Any, Any]:
        """With the batch's statistics; and the new running mean and variance (unbiased), with momentum 0.1."""
    def max_pool2d(self, x: Any, size: int, stride: int | None = None, padding: int = 0) -> Any:
        """Windows of size x size, by default side by side; the padding is never the largest."""
    def flatten(self, x: Any) -> Any:
        """(N, C, H, W) to (N, C*H*W), in this order."""
    def global_average(self, x: Any) -> Any:
        """The means of images: (N, C, H, W) to (N, C)."""
    def layer_norm(self, x: Any, w: Any, b: Any) -> Any:
        """Over the last axis, eps 1e-5."""
    def self_attention(self, x: Any, w: Any, b: Any, heads: int) -> Any:
        """Softmax attention within sequences (N, S, D), before the output projection; w, of shape (D, 3*D), and b
        make queries, keys and values."""
    def cross_entropy(self, logits: Any, labels: Any) -> Any:
        """The mean over the batch, of integer labels."""
    def one_hot(self, x: Any, count: int) -> Any:
        """float32, with a last axis of that many."""
    def merged(self, x: Any) -> Any:
        """The first two axes as one."""
    def argmax(self, x: Any) -> Any:
        """Along the last axis."""
    def constant(self, value: np.ndarray) -> Any: ...
    def lstm(self, x: Any, w: Any, r: Any, bw: Any, br: Any) -> Any:
        """The outputs (T, N, H) for x (T, N, D) from a state of zeros; w of shape (4*H, D) and r (4*H, H) hold the
        gates input, forget, cell, output; both have a bias."""
    def gru(self, x: Any, w: Any, r: Any, bw: Any, br: Any) -> Any:
        """The same; the gates are reset, update, new; the reset gate acts on the product with the state."""
    def lstm_cell(self, x: Any, h: Any, c: Any, w: Any, r: Any, bw: Any, br: Any) -> tuple[Any, Any]:
        """One step, x (N, D): the new h and c."""
    def scan(self, step: Callable[..., Any], carry: Any, xs: Any) -> Any:
        """All y, along a new first axis, of ``carry, y = step(carry, x)`` along the first axis of xs."""
    def dropout(self, x: Any, share: float) -> Any:
        """Other numbers at each call."""
    def normal_like(self, x: Any) -> Any:
        """Standard normal variates in the shape of x."""


@dataclass(frozen=True)
class Workload:
    """One workload.

    Attributes
    ----------
    name, title : for the command line and for the table.
    kind : ``forward`` computes a value; ``gradient`` a value and its gradient by the inputs named in `wrt`;
        ``train`` a loss, its gradient by all parameters, and the update of them in place.
    sizes, tiny : the dimensions measured, and those for a test of the machinery.
    parameters, inputs : make the float32 parameters and the inputs from a generator and the sizes.
    compute : the computation, from `Ops`, parameters and inputs, both by name.
    flops, nbytes : multiplications and additions, and bytes that must move, for a call; for the limits.
    batched : whether the first axis of each input is a batch, which Graphwright then compiles as ``N``.
    is_state : of the name of a parameter, whether it is not trained, but has a new value after each step;
        `compute` then returns a pair, the loss and a dict of the new values.
    learning_rate, momentum : of SGD: ``v = momentum*v + g; p = p - learning_rate*v``.
    tolerance, change_tolerance : largest error allowed of values, and of the changes of parameters by the training
        steps (sums of many gradients), relative to the largest value or change.
    summary : what is compared of the results instead of themselves, where these are random.
    leave_out : peers not measured here, with the reason.
    aim : how many times longer than Graphwright the fastest peer is to take, at least.
    """

    name: str
    title: str
    kind: Literal["forward", "gradient", "train"]
    sizes: Sizes
    tiny: Sizes
    inputs: Callable[[np.random.Generator, Sizes], Arrays]
    compute: Callable[..., Any]
    parameters: Callable[[np.random.Generator, Sizes], Arrays] = lambda rng, sizes: {}
    flops: Callable[[Sizes], float] | None = None
    nbytes: Callable[[Sizes], float] | None = None
    batched: bool = True
    wrt: tuple[str, ...] = ()
    is_state: Callable[[str], bool] | None = None
    learning_rate: float = 0.0
    momentum: float = 0.0
    tolerance: float = 1e-4
    change_tolerance: float = 1e-3
    summary: Callable[[list[np.ndarray]], list[np.ndarray]] | None = None
    leave_out: Mapping[str, str] = field(default_factory=dict)
    aim: float = 1.0

    def data(self, tiny: bool = False, seed: int = 0) -> tuple[Arrays, Arrays]:
        """Parameters and inputs: the same for each peer."""
        rng, sizes = np.random.default_rng(seed), self.tiny if tiny else self.sizes
        return self.parameters(rng, sizes), self.inputs(rng, sizes)

    def trained(self, parameters: Mapping[str, Any]) -> list[str]:
        """The names of the parameters that the gradient is for."""
        return [name for name in parameters if self.is_state is None or not self.is_state(name)]

    def compared(self, results: list[np.ndarray]) -> list[np.ndarray]:
        """What is compared of results."""
        return results if self.summary is None else [np.asarray(a) for a in self.summary(results)]

    def value(self, ops: Any, parameters: Mapping[str, Any], inputs: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        """What `compute` returns: the value, and the new values of the state, if there is one."""
        found = self.compute(ops, parameters, **inputs)
        return (found, {}) if self.is_state is None else found


def dense(rng: np.random.Generator, name: str, inputs: int, outputs: int) -> Arrays:
    """Weights and bias of a dense layer."""
    return {
        f"w{name}": (rng.standard_normal((inputs, outputs)) / inputs**0.5).astype(np.float32),
        f"b{name}": np.zeros(outputs, np.float32),
    }


def fold_batch_norm(parameters: Arrays) -> Arrays:
    """Parameters in which batch norm for inference is part of the convolution before it, as users do it by hand.

    ``NAME_w, NAME_scale, NAME_shift, NAME_mean, NAME_var`` become ``NAME_w, NAME_b``.
    """
    folded = dict(parameters)
    for name in [key.removesuffix("_scale") for key in parameters if key.endswith("_scale")]:
        scale, shift, mean, var = (folded.pop(f"{name}_{part}").astype(np.float64) for part in BATCH_NORM)
        scale = scale / np.sqrt(var + 1e-5)
        folded[f"{name}_w"] = (folded[f"{name}_w"] * scale[:, None, None, None]).astype(np.float32)
        folded[f"{name}_b"] = (shift - mean * scale).astype(np.float32)
    return folded


def workloads() -> list[Workload]:
    """All of them, in the order of the table."""
    from . import workloads as package

    found: list[tuple[int, Workload]] = []
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        found += [(module.ORDER, workload) for workload in module.WORKLOADS]
    return [workload for _, workload in sorted(found, key=lambda item: item[0])]


def find(names: str | None) -> list[Workload]:
    """Those named in a comma-separated list: by name, or by its beginning up to an underscore."""
    everything = workloads()
    if names is None:
        return everything
    chosen: list[Workload] = []
    for name in names.split(","):
        hits = [w for w in everything if w.name == name or w.name.startswith(name + "_")]
        if not hits:
            raise SystemExit(f"no workload {name!r}; there are {', '.join(w.name for w in everything)}")
        chosen += [w for w in hits if w not in chosen]
    return chosen
