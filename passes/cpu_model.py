"""What schedules need to know of a CPU."""

from __future__ import annotations

from dataclasses import dataclass

from ..ir.dtypes import DType

__all__ = ["CpuModel"]


@dataclass(frozen=True)
class CpuModel:
    """Vector width in bytes, and number of vector registers."""

    vector_bytes: int = 32
    registers: int = 16

    def lanes(self, dtype: DType) -> int:
        """Elements of a dtype in one vector register."""
        return self.vector_bytes // dtype.itemsize
