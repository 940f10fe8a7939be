"""What schedules need to know of a GPU."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CudaModel"]


@dataclass(frozen=True)
class CudaModel:
    """Threads of a block: a power of two."""

    threads: int = 128
