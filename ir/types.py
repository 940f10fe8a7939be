"""Types of values: a dtype and a shape, or a tuple of such types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Union

from .dims import Dim, product, symbols
from .dtypes import DType

__all__ = ["Shape", "TensorType", "TupleType", "Type", "shape_text"]

Shape = tuple[Dim, ...]


def shape_text(shape: Sequence[Dim]) -> str:
    """A shape as IR text writes it: ``N, 784``."""
    return ", ".join(map(str, shape))


@dataclass(frozen=True)
class TensorType:
    """A dense, row-major array of `dtype` whose dimensions are integers or symbolic."""

    dtype: DType
    shape: Shape

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> Dim:
        """Number of elements."""
        return product(self.shape)

    @property
    def nbytes(self) -> Dim:
        """Size in bytes."""
        return self.size * self.dtype.itemsize

    @property
    def symbols(self) -> set[str]:
        """Names of the symbolic dimensions."""
        return set().union(*map(symbols, self.shape)) if self.shape else set()

    def with_shape(self, shape: Sequence[Dim]) -> TensorType:
        return TensorType(self.dtype, tuple(shape))

    def with_dtype(self, dtype: DType) -> TensorType:
        return TensorType(dtype, self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}[{shape_text(self.shape)}]"


@dataclass(frozen=True)
class TupleType:
    """The type of an op with several results."""

    items: tuple[TensorType, ...]

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.items))})"


Type = Union[TensorType, TupleType]
