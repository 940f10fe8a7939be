"""Layers without state: dense, convolutions, pooling, embedding, containers, activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ...errors import GraphError, ShapeError
from ...ir.dims import equal
from ...ir.dtypes import as_dtype
from ...ir.types import shape_text
from .. import array_api
from ..array_api import asarray, where
from ..shapes import fail
from ..source import located
from ..tensor import ArrayLike, Tensor, Variable, apply
from . import activations, convolution, pooling
from . import init as initial
from .attention import embedding
from .common import IntOrTuple, tuple_of
from .convolution import Padding
from .module import Module

__all__ = [
    "GELU", "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AvgPool1d", "AvgPool2d", "Conv1d", "Conv2d", "ConvTranspose1d",
    "ConvTranspose2d", "Dense", "Embedding", "Flatten", "Lambda", "Linear", "MaxPool1d", "MaxPool2d", "ReLU",
    "Sequential", "SiLU", "Sigmoid", "Softmax", "Softplus", "Tanh",
]  # fmt: skip


def make_variable(
    name: str, init: initial.Initializer, shape: Sequence[int], rng: initial.Seed, dtype: object,
) -> Variable:
    """A parameter with the values of an initializer."""
    return Variable(init(shape, initial.generator(rng)), name=name, dtype=as_dtype(dtype))


def sizes(layer: str, least: int = 1, **values: Any) -> None:
    """Refuse sizes that are no integers, or too small."""
    for name, value in values.items():
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
            fail(layer, GraphError, f"{name} must be an integer >= {least}, got {value!r}")


def check_features(layer: Module, x: Tensor, axis: int, size: int, rank: tuple[int, ...] | None = None) -> None:
    """Refuse an input of another rank or number of features than those that the layer was made for."""
    what = f"{layer!r}"
    if rank is not None and x.ndim not in rank:
        wanted = " or ".join(map(str, rank))
        fail(what, ShapeError, f"needs an input of rank {wanted}, got [{shape_text(x.shape)}]", [x])
    if x.ndim == 0 or not equal(x.shape[axis], size):
        shown = f"{x.shape[axis]} features in axis {axis}" if x.ndim else "no axes"
        fail(what, ShapeError, f"the input has {shown}, the layer is made for {size}", [x],
             f"the input's shape is [{shape_text(x.shape)}]")


# --- dense ---------------------------------------------------------------------------------------


class Linear(Module):
    """``x @ weight.T + bias``: ``[..., in]`` to ``[..., out]``.

    Parameters
    ----------
    in_features, out_features : sizes of the last axis.
    bias : whether a bias is added.
    weight_init, bias_init : initializers of ``weight [out, in]`` and ``bias [out]`` (see `nn.init`).
    rng : a generator or seed for them; default: the shared one (`nn.init.seed`).
    """

    @located
    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *,
        weight_init: initial.Initializer | None = None, bias_init: initial.Initializer | None = None,
        rng: initial.Seed = None, dtype: object = "float32",
    ) -> None:  # fmt: skip
        sizes("Linear", in_features=in_features, out_features=out_features)
        rng = initial.generator(rng)
        self.in_features, self.out_features = int(in_features), int(out_features)
        shape = (self.out_features, self.in_features)
        self.weight = make_variable("weight", weight_init or initial.glorot_uniform(), shape, rng, dtype)
        self.bias = make_variable("bias", bias_init or initial.zeros(), shape[:1], rng, dtype) if bias else None

    @located
    def forward(self, x: ArrayLike) -> Tensor:
        x = asarray(x)
        check_features(self, x, -1, self.in_features)
        return convolution.linear(x, self.weight, self.bias)

    def describe(self) -> str:
        return f"{self.in_features}, {self.out_features}" + ", bias=False" * (self.bias is None)


Dense = Linear


# --- convolutions --------------------------------------------------------------------------------


class _Conv(Module):
    """What convolutions share; the weight is ``[out, in / groups, ...]``, or ``[in, out / groups, ...]`` transposed."""

    axes: int
    transposed = False
    function: Callable[..., Tensor]

    @located
    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: IntOrTuple, stride: IntOrTuple = 1,
        padding: Padding = 0, dilation: IntOrTuple = 1, groups: int = 1, bias: bool = True, *,
        weight_init: initial.Initializer | None = None, bias_init: initial.Initializer | None = None,
        rng: initial.Seed = None, dtype: object = "float32", **options: Any,
    ) -> None:  # fmt: skip
        name = type(self).__name__
        sizes(name, in_channels=in_channels, out_channels=out_channels, groups=groups)
        if in_channels % groups or out_channels % groups:
            fail(name, GraphError, f"{in_channels} and {out_channels} channels do not divide into {groups} groups")
        rng = initial.generator(rng)
        self.kernel_size = tuple_of(name, "kernel_size", kernel_size, self.axes, 1)
        self.in_channels, self.out_channels = int(in_channels), int(out_channels)
        self.options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, **options}
        first, second = (in_channels, out_channels)[:: 1 if self.transposed else -1]
        shape = (first, second // groups, *self.kernel_size)
        self.weight = make_variable("weight", weight_init or initial.glorot_uniform(), shape, rng, dtype)
        self.bias = make_variable("bias", bias_init or initial.zeros(), (out_channels,), rng, dtype) if bias else None

    @located
    def forward(self, x: ArrayLike) -> Tensor:
        x = asarray(x)
        check_features(self, x, -self.axes - 1, self.in_channels, (self.axes + 1, self.axes + 2))
        return type(self).function(x, self.weight, self.bias, **self.options)

    def describe(self) -> str:
        defaults = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "output_padding": 0}
        extra = [f"{key}={value}" for key, value in self.options.items() if value != defaults[key]]
        extra += ["bias=False"] * (self.bias is None)
        return ", ".join([str(self.in_channels), str(self.out_channels), str(self.kernel_size), *extra])


class Conv1d(_Conv):
    """Convolution over one axis, ``[N, C, L]``; see `Conv2d`."""

    axes, function = 1, convolution.conv1d


class Conv2d(_Conv):
    """Convolution over two axes, ``[N, C, H, W]``; see the function `conv2d`.

    Parameters
    ----------
    in_channels, out_channels : sizes of axis 1 of the input and of the output.
    kernel_size, stride, padding, dilation, groups : as of `conv2d`.
    bias, weight_init, bias_init, rng : as of `Linear`.
    """

    axes, function = 2, convolution.conv2d


class _ConvTranspose(_Conv):
    transposed = True

    @located
    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: IntOrTuple, stride: IntOrTuple = 1,
        padding: IntOrTuple = 0, output_padding: IntOrTuple = 0, groups: int = 1, bias: bool = True,
        dilation: IntOrTuple = 1, **keywords: Any,
    ) -> None:  # fmt: skip
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
            output_padding=output_padding, **keywords,
        )


class ConvTranspose1d(_ConvTranspose):
    """Transposed convolution over one axis; see `ConvTranspose2d`."""

    axes, function = 1, convolution.conv_transpose1d


class ConvTranspose2d(_ConvTranspose):
    """Transposed convolution over two axes; see the function `conv_transpose2d`, and `Conv2d` for the parameters."""

    axes, function = 2, convolution.conv_transpose2d


# --- functions as modules ------------------------------------------------------------------------


class Lambda(Module):
    """Any function of tensors as a module, with settings: for `Sequential`."""

    @located
    def __init__(self, function: Callable[..., Any], *args: Any, **settings: Any) -> None:
        self.function, self.args, self.settings = function, args, settings

    def forward(self, *inputs: Any) -> Any:
        return self.function(*inputs, *self.args, **self.settings)

    def describe(self) -> str:
        own = [getattr(self.function, "__name__", "function")] if type(self) is Lambda else []
        return ", ".join([*own, *map(repr, self.args), *(f"{k}={v!r}" for k, v in self.settings.items())])


def _module(name: str, function: Callable[..., Any]) -> type[Lambda]:
    """The module of a function with settings."""

    @located
    def __init__(self: Lambda, *args: Any, **settings: Any) -> None:
        Lambda.__init__(self, function, *args, **settings)

    doc = f"`{function.__name__}` as a module; the arguments are those after its first."
    return type(name, (Lambda,), {"__init__": __init__, "__doc__": doc, "__module__": __name__})


MaxPool1d, MaxPool2d = _module("MaxPool1d", pooling.max_pool1d), _module("MaxPool2d", pooling.max_pool2d)
AvgPool1d, AvgPool2d = _module("AvgPool1d", pooling.avg_pool1d), _module("AvgPool2d", pooling.avg_pool2d)
AdaptiveAvgPool1d = _module("AdaptiveAvgPool1d", pooling.adaptive_avg_pool1d)
AdaptiveAvgPool2d = _module("AdaptiveAvgPool2d", pooling.adaptive_avg_pool2d)
ReLU, GELU, SiLU = (_module(n, getattr(activations, n.lower())) for n in ("ReLU", "GELU", "SiLU"))
Sigmoid, Tanh = _module("Sigmoid", activations.sigmoid), _module("Tanh", activations.tanh)
Softmax, Softplus = _module("Softmax", activations.softmax), _module("Softplus", activations.softplus)


class Flatten(Module):
    """The axes from `start_axis` to `end_axis` joined into one; by default all but the first."""

    @located
    def __init__(self, start_axis: int = 1, end_axis: int = -1) -> None:
        self.start_axis, self.end_axis = start_axis, end_axis

    def forward(self, x: ArrayLike) -> Tensor:
        return array_api.flatten(x, self.start_axis, self.end_axis)


class Sequential(Module):
    """Modules, or functions of tensors, one after the other; their names are ``0``, ``1``, ...

    Raises
    ------
    GraphError
        If one of them can not be called.
    """

    @located
    def __init__(self, *modules: Callable[..., Any]) -> None:
        for k, module in enumerate(modules):
            if not callable(module):
                found = type(module).__name__
                fail("Sequential", GraphError, f"part {k} is a {found}", (), "give modules or functions")
            setattr(self, str(k), module)

    def __len__(self) -> int:
        return len(self._parts())

    def __iter__(self) -> Iterator[Callable[..., Any]]:
        return iter(self._parts())

    def __getitem__(self, k: int) -> Callable[..., Any]:
        return self._parts()[k]

    def _parts(self) -> list[Callable[..., Any]]:
        return [part for name, part in vars(self).items() if name.isdigit()]

    def forward(self, x: Any) -> Any:
        for part in self._parts():
            x = part(x)
        return x

    def describe(self) -> str:
        return f"{len(self)} parts"


# --- embedding -----------------------------------------------------------------------------------


class Embedding(Module):
    """A row of ``weight [num_embeddings, embedding_dim]`` for each integer; see the function `embedding`.

    Parameters
    ----------
    padding_idx : this row is zeros at first, and has no gradient, so that it stays.
    weight_init, rng : as of `Linear`; default: the normal distribution.
    """

    @located
    def __init__(
        self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None, *,
        weight_init: initial.Initializer | None = None, rng: initial.Seed = None, dtype: object = "float32",
    ) -> None:  # fmt: skip
        sizes("Embedding", num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            fail("Embedding", GraphError, f"padding_idx {padding_idx} is no row of {num_embeddings}")
        self.num_embeddings, self.embedding_dim = int(num_embeddings), int(embedding_dim)
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        values = (weight_init or initial.normal())((num_embeddings, embedding_dim), initial.generator(rng))
        if self.padding_idx is not None:
            values[self.padding_idx] = 0
        self.weight = Variable(values, name="weight", dtype=as_dtype(dtype))

    @located
    def forward(self, indices: ArrayLike) -> Tensor:
        indices = asarray(indices)
        rows = embedding(indices, self.weight)
        if self.padding_idx is None:
            return rows
        padding = array_api.expand_dims(indices == self.padding_idx, -1)
        return where(padding, apply("stop_gradient", rows), rows)

    def describe(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"
