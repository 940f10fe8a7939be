"""The ops, by family; importing this package fills the registry."""

from . import elementwise, leaf, linalg, movement, reduction
from ..op import OPS

__all__ = ["OPS", "elementwise", "leaf", "linalg", "movement", "reduction"]
