"""Optimizers: updates of variables from gradients, as part of the graph.

An optimizer makes the pairs that `gw.function` takes as ``updates``; its moments are variables, so they are
compiled, saved and shipped with the function. Formulas and defaults are PyTorch's.
"""

from . import averages, clipping, optimizers, schedules
from .averages import *  # noqa: F403
from .clipping import *  # noqa: F403
from .optimizers import *  # noqa: F403
from .schedules import *  # noqa: F403

__all__ = [*averages.__all__, *clipping.__all__, *optimizers.__all__, *schedules.__all__]
