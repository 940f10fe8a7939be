"""Learning rates that change: functions from the number of steps done (int64) to the rate.

Give one as an optimizer's `learning_rate`; it becomes part of the graph. `ReduceOnPlateau` listens to a figure
that is measured outside, so it sets a variable.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from ...errors import GraphError
from ..array_api import astype, cos, minimum, where
from ..shapes import fail
from ..tensor import Tensor, Variable

__all__ = ["ReduceOnPlateau", "Schedule", "constant", "cosine", "exponential", "linear", "step_decay", "warm_up"]

Schedule = Callable[[Tensor], Tensor]


def _positive(name: str, what: str, steps: int) -> None:
    if not isinstance(steps, int) or steps < 1:
        fail(name, GraphError, f"{what} must be a positive integer, got {steps!r}")


def _part(t: Tensor, steps: int) -> Tensor:
    """How much of `steps` is done, from 0 to 1."""
    return astype(minimum(t, steps), "float32") / steps


def constant(rate: float) -> Schedule:
    """Always `rate`."""
    return lambda t: 0 * astype(t, "float32") + rate


def step_decay(rate: float, every: int, factor: float = 0.1) -> Schedule:
    """`rate`, times `factor` after `every` steps each."""
    _positive("step_decay", "every", every)
    return lambda t: rate * factor ** astype(t // every, "float32")


def exponential(rate: float, factor: float) -> Schedule:
    """`rate`, times `factor` after each step."""
    return lambda t: rate * factor ** astype(t, "float32")


def linear(first: float, last: float, steps: int) -> Schedule:
    """From `first` in a straight line to `last` after `steps` steps, then constant."""
    _positive("linear", "steps", steps)
    return lambda t: first + (last - first) * _part(t, steps)


def cosine(rate: float, steps: int, last: float = 0.0) -> Schedule:
    """From `rate` along half a cosine to `last` after `steps` steps, then constant: Loshchilov, Hutter (2017)."""
    _positive("cosine", "steps", steps)
    return lambda t: last + (rate - last) * 0.5 * (1 + cos(math.pi * _part(t, steps)))


def warm_up(schedule: float | Schedule, steps: int, first: float = 0.0) -> Schedule:
    """`steps` steps in which the rate rises from the part `first` of it to all, then `schedule` from its start."""
    _positive("warm_up", "steps", steps)
    after = schedule if callable(schedule) else constant(schedule)

    def rate(t: Tensor) -> Tensor:
        rising = (first + (1 - first) * _part(t, steps)) * after(0 * t)
        return where(t < steps, rising, after(where(t < steps, 0, t - steps)))

    return rate


class ReduceOnPlateau:
    """Lowers a rate when a figure has stopped improving.

    Parameters
    ----------
    rate : the variable that is the learning rate.
    factor : what it is multiplied with.
    patience : after how many observations without improvement, more than which lower the rate.
    mode : ``"min"`` if less is better, else ``"max"``.
    threshold : an improvement is at least this part of the best.
    cooldown : observations that do not count, after the rate was lowered.
    least : the rate is not lowered below this.
    """

    def __init__(
        self, rate: Variable, factor: float = 0.1, patience: int = 10, mode: Literal["min", "max"] = "min",
        threshold: float = 1e-4, cooldown: int = 0, least: float = 0.0,
    ) -> None:  # fmt: skip
        if not isinstance(rate, Variable) or rate.shape != ():
            fail("ReduceOnPlateau", GraphError, "the rate must be a variable that holds one number")
        if not 0 < factor < 1:
            fail("ReduceOnPlateau", GraphError, f"factor must be between 0 and 1, got {factor!r}")
        if mode not in ("min", "max"):
            fail("ReduceOnPlateau", GraphError, f"mode must be 'min' or 'max', got {mode!r}")
        self.rate, self.factor, self.patience, self.mode = rate, factor, patience, mode
        self.threshold, self.cooldown, self.least = threshold, cooldown, least
        self.best = math.inf if mode == "min" else -math.inf
        self._bad = self._resting = 0

    def observe(self, figure: float) -> bool:
        """Take the figure of an epoch; whether the rate was lowered."""
        if self._better(float(figure)):
            self.best, self._bad = float(figure), 0
        else:
            self._bad += 1
        if self._resting:
            self._resting -= 1
            self._bad = 0
        if self._bad <= self.patience:
            return False
        self._bad, self._resting = 0, self.cooldown
        self.rate.assign(self.rate.value.dtype.type(max(self.rate.value * self.factor, self.least)))
        return True

    def _better(self, figure: float) -> bool:
        if math.isinf(self.best):
            return figure < self.best if self.mode == "min" else figure > self.best
        if self.mode == "min":
            return figure < self.best * (1 - self.threshold)
        return figure > self.best * (1 + self.threshold)
