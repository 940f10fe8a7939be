"""Generators: random state that advances by itself, as Theano's streams did."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...ir.graph import Value
from ..array_api import astype, where
from ..source import located
from ..steps import enclosing_steps
from ..tensor import Tensor, Variable, apply, let_advance
from . import continuous, discrete, ordering, rejection
from .keys import STEP, Source, folded, seed_words

__all__ = ["Generator"]


def _advanced(state: Value) -> Value:
    """The state with its count of executions, the last two words, one higher."""
    words = Tensor(state)
    place = apply("iota", shape=words.shape, axis=0, dtype=words.dtype)
    carry = astype(words[2:3] == 0xFFFFFFFF, "uint32")
    return (words + where(place == 2, 1, where(place == 3, carry, 0)))._value


class Generator(Variable):
    """Random numbers that differ at each execution.

    It is a Variable, u32[4]: the seed's two words, and the number of executions so far. So it is saved with other
    variables, and ``rng.assign(value)`` brings a ``rng.value`` back. Each draw that a graph makes has a stream of
    its own, numbered in the order in which draws are made. At the end of each execution of a function that draws
    from it, the generator advances by one; functions that share it, run from any threads, take turns, because each
    holds the generator while it runs. In bodies of loops each step draws other numbers.

    Parameters
    ----------
    seed : an integer from 0 to 2**64 - 1. Programs that make the same draws in the same order from the same seed
        get the same numbers.
    name : as of `Variable`.

    Raises
    ------
    DTypeError, GraphError
        If the seed is no integer, or out of range.

    Examples
    --------
    >>> rng = gw.random.Generator(seed=1)
    >>> noise = gw.function([], rng.normal((3,)))
    >>> bool((noise() == noise()).any())
    False
    """

    __slots__ = ("_draws",)

    @located
    def __init__(self, seed: int, name: str | None = None) -> None:
        super().__init__(np.array([*seed_words("Generator", seed), 0, 0], np.uint32), name=name)
        self._draws = 0
        let_advance(self, _advanced)

    def _source(self) -> Source:
        """What the next draw gets: a stream of its own, and other numbers at each step of the loops around it."""
        self._draws += 1
        current = Tensor(self._value)
        for step in enclosing_steps():
            current = folded(current, Tensor(step), STEP)
        return Source(current, self._draws)

    @located
    def key(self) -> Tensor:
        """A key, u32[4], that differs at each execution and each step: for functions that take keys."""
        return self._source().bits((4,))

    def _describe(self) -> str:
        return f"Generator {self.name}: {self._value.type}"


def _method(function: Any) -> Any:
    """A distribution as a method, with the generator in place of the key."""

    @located
    def method(self: Generator, *args: Any, **kwargs: Any) -> Tensor:
        result: Tensor = function(self, *args, **kwargs)
        return result

    method.__name__ = function.__name__
    method.__qualname__ = f"Generator.{function.__name__}"
    method.__doc__ = f"``gw.random.{function.__name__}(self, ...)``."
    return method


for _module in (continuous, discrete, rejection, ordering):
    for _name in _module.__all__:
        setattr(Generator, _name, _method(getattr(_module, _name)))
