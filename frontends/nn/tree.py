"""A recursive layer: states of trees, from the leaves up."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import DTypeError, ShapeError
from ...ir.dims import equal
from ...ir.dtypes import as_dtype
from ...ir.types import shape_text
from ..array_api import asarray, expand_dims, sum, take, tanh, where, zeros
from ..control import scan
from ..shapes import as_dim, fail
from ..source import located
from ..tensor import ArrayLike, Tensor, Variable
from . import init as initial
from .activations import sigmoid
from .convolution import linear
from .layers import check_features, sizes
from .module import Module

__all__ = ["TreeLSTM"]


class TreeLSTM(Module):
    """The child-sum Tree-LSTM (Tai, Socher, Manning 2015, equations 2 to 8), for any number of children.

    Called with ``(x, children, depth)``: the inputs ``[nodes, in]`` of one or several trees; the positions of the
    children ``[nodes, most]``, where -1 stands for none; and the height of the highest tree (1: leaves only; an
    integer or a dimension). Gives the states h and c of all nodes, ``[nodes, H]``.

    All nodes are computed at once, `depth` times: after k times, those up to height k are final. Children
    are read by gather, so the order of nodes does not matter.

    Parameters
    ----------
    input_size, hidden_size : features of the inputs and of the states.
    rng : a generator or seed for the weights; default: the shared one.
    """

    @located
    def __init__(
        self, input_size: int, hidden_size: int, *, rng: initial.Seed = None, dtype: object = "float32",
    ) -> None:
        sizes("TreeLSTM", input_size=input_size, hidden_size=hidden_size)
        self.input_size, self.hidden_size = int(input_size), int(hidden_size)
        rng, self.dtype = initial.generator(rng), as_dtype(dtype)
        of_x = [initial.glorot_uniform()((hidden_size, input_size), rng) for _ in range(4)]
        of_h = [initial.orthogonal()((hidden_size, hidden_size), rng) for _ in range(4)]
        self.weight_x = Variable(np.concatenate(of_x), "weight_x", self.dtype)
        self.weight_h = Variable(np.concatenate(of_h), "weight_h", self.dtype)
        bias = np.zeros(4 * self.hidden_size)
        bias[3 * self.hidden_size :] = 1  # of the forget gates
        self.bias = Variable(bias, "bias", self.dtype)

    @located
    def forward(self, x: ArrayLike, children: ArrayLike, depth: Any) -> tuple[Tensor, Tensor]:
        x, children = asarray(x), asarray(children)
        check_features(self, x, -1, self.input_size, (2,))
        if not children.dtype.is_integer:
            fail(repr(self), DTypeError, f"children must be integers, got {children.dtype!r}", [children])
        if children.ndim != 2 or not equal(children.shape[0], x.shape[0]):
            fail(repr(self), ShapeError, f"children must be [{x.shape[0]}, most], a row for each node; got "
                 f"[{shape_text(children.shape)}]", [x, children])
        n = self.hidden_size
        z = linear(x, self.weight_x, self.bias)
        there = expand_dims(children >= 0, -1)
        places = where(children >= 0, children, 0)

        def grow(states: tuple[Tensor, Tensor], _: None) -> tuple[tuple[Tensor, Tensor], None]:
            below_h, below_c = (where(there, take(s, places, axis=0), 0) for s in states)
            inner = z[:, : 3 * n] + linear(sum(below_h, axis=1), self.weight_h[: 3 * n])
            i, o, u = (inner[:, k * n : (k + 1) * n] for k in range(3))
            forget = sigmoid(expand_dims(z[:, 3 * n :], 1) + linear(below_h, self.weight_h[3 * n :]))
            c = sigmoid(i) * tanh(u) + sum(forget * below_c, axis=1)
            return (sigmoid(o) * tanh(c), c), None

        first = zeros((x.shape[0], n), self.dtype)
        (h, c), _ = scan(grow, (first, first), length=as_dim(depth, "TreeLSTM: depth"))
        return h, c

    def describe(self) -> str:
        return f"{self.input_size}, {self.hidden_size}"
