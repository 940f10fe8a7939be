"""Dropout: elements set to zero at random while training."""

from __future__ import annotations

from typing import Any

from ..array_api import where, zeros_like
from ..random.discrete import below
from ..random.parameters import check, drawn, is_number, probability, source_of
from ..source import located
from ..tensor import ArrayLike, Tensor
from .common import floating
from .module import Module

__all__ = ["Dropout", "dropout"]


@located
def dropout(x: ArrayLike, p: ArrayLike = 0.5, training: bool = True, *, rng: Any) -> Tensor:
    """Each element 0 with probability `p`, else ``x / (1 - p)``, so that means stay the same.

    N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting" (2014).

    Parameters
    ----------
    p : a number from 0 to 1, or a tensor that broadcasts to `x`.
    training : False for `x` itself.
    rng : a `gw.random.Generator`, from which each execution draws another mask, or a key.

    Raises
    ------
    GraphError
        If `p` is known and no probability.
    """
    x = floating("dropout", x)
    check("dropout", "p", p, probability)
    (rate,) = drawn("dropout", x.shape, None, p=(p, None)).parameters
    if not training or is_number(rate, 0):
        return x
    if is_number(rate, 1):
        return zeros_like(x)
    dropped = below(source_of("dropout", rng), x.shape, rate)
    return where(dropped, 0, x * (1 / (1 - rate)))


class Dropout(Module):
    """`dropout` in training, nothing in evaluation.

    Parameters
    ----------
    p : the probability of 0.
    rng : the `gw.random.Generator` that draws masks; layers may share one. It is part of the state dict.
    """

    def __init__(self, p: float = 0.5, *, rng: Any) -> None:
        check("Dropout", "p", p, probability)
        self.p, self.rng = p, rng

    @located
    def forward(self, x: ArrayLike) -> Tensor:
        return dropout(x, self.p, self.training, rng=self.rng)
