"""Averages of parameters over the steps of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...errors import GraphError
from ..shapes import fail
from ..source import located
from ..tensor import Tensor, Variable

__all__ = ["ExponentialMovingAverage"]


class ExponentialMovingAverage:
    """``average = decay*average + (1 - decay)*parameter`` after each step, from the present values on.

    Give `values` to `gw.function` as `givens`, to compute with the averages in place of the parameters.

    Attributes
    ----------
    values : from each parameter to the variable that is its average.
    """

    def __init__(self, parameters: Sequence[Variable], decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            fail("ExponentialMovingAverage", GraphError, f"decay must be in [0, 1), got {decay!r}")
        self.decay = decay
        self.values = {p: Variable(p.value, name=f"{p.name}_average") for p in parameters}

    @located
    def updates(self, updates: Mapping[Variable, Tensor]) -> dict[Variable, Tensor]:
        """The averages' new values, from the parameters' new ones: add them to the updates of the step."""
        return {
            average: self.decay * average + (1 - self.decay) * updates.get(p, p)
            for p, average in self.values.items()
        }
