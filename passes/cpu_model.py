"""What schedules need to know of a CPU."""

from __future__ import annotations

from dataclasses import dataclass

from ..ir.dims import Dim
from ..ir.dtypes import DType

__all__ = ["CpuModel"]


@dataclass(frozen=True)
class CpuModel:
    """Vector width in bytes, number of vector registers, and the width for the tiles of contractions.

    `tile_bytes` (0: as `vector_bytes`) may be wider: a tile has nothing but whole vectors, and wide ones need
    fewer instructions for the same sums. `masked_bytes` is the size of the smallest elements that loads and stores
    can mask (0: none).
    """

    vector_bytes: int = 32
    registers: int = 16
    tile_bytes: int = 0
    masked_bytes: int = 0

    def folds_masked(self, nbytes: int) -> bool:
        """Whether a masked load of so many bytes can be a part of the instruction that uses it (AVX-512)."""
        return self.masked_bytes > 0 and self.registers == 32 and nbytes in (16, 32, 64)

    def lanes(self, dtype: DType) -> int:
        """Elements of a dtype in one vector register."""
        return self.vector_bytes // dtype.itemsize

    def tile_lanes(self, dtype: DType, columns: Dim) -> int:
        """Lanes for tiles of a result of so many columns: wide vectors where they are nearly all full."""
        wide = max(self.tile_bytes, self.vector_bytes) // dtype.itemsize
        full = not isinstance(columns, int) or columns % wide == 0 or columns >= 4 * wide
        return wide if full else self.lanes(dtype)
