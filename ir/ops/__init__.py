"""The ops, by family; importing this package fills the registry."""

from ..op import OPS
from . import (
    control,
    conv,
    cumulative,
    elementwise,
    indexing,
    leaf,
    linalg,
    movement,
    panels,
    random,
    reduction,
    sorting,
    structure,
    window,
    winograd,
)

__all__ = [
    "OPS", "control", "conv", "cumulative", "elementwise", "indexing", "leaf", "linalg", "movement",
    "panels", "random", "reduction", "sorting", "structure", "window", "winograd",
]
