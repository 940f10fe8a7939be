"""Memory of large results: once a result is gone, a later one takes its place.

The system hands out memory of this size a page at a time, cleared, at its first use: that takes as long as several
passes over it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .buffers import Array, address_of, aligned_block, lasting_empty

__all__ = ["RECYCLED", "Shelf", "new_result"]

RECYCLED = 1 << 25
"""Bytes from which a result is recycled: the C library takes smaller memory from what was freed before."""

MOST_KEPT = 1 << 29
"""Bytes that wait for results, at most."""


class _Block:
    """A piece of memory; blocks are equal only to themselves, unlike arrays."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self.memory: Array = lasting_empty((nbytes,), np.uint8)
        self.address = address_of(self.memory)


class Shelf:
    """Memory that waits for results."""

    def __init__(self, most: int = MOST_KEPT) -> None:
        self.most = most
        self._free: list[_Block] = []

    @property
    def nbytes(self) -> int:
        """What is kept."""
        return sum(block.nbytes for block in list(self._free))

    def empty(self, shape: Sequence[int], dtype: np.dtype[Any], nbytes: int) -> Array:
        """A new array, not initialized; its memory comes back when nothing refers to it any more."""
        return np.asarray(_Lease(self, self._take(nbytes), tuple(shape), dtype))

    def clear(self) -> None:
        """Release the memory that no result uses."""
        self._free.clear()

    def _take(self, nbytes: int) -> _Block:
        for block in list(self._free):
            if nbytes <= block.nbytes <= nbytes + nbytes // 4:
                try:
                    self._free.remove(block)  # another thread may have been faster
                except ValueError:
                    continue
                return block
        return _Block(nbytes)

    def give(self, block: _Block) -> None:
        """Keep memory for another result, and the oldest no longer where that is too much."""
        self._free.append(block)
        while self.nbytes > self.most:
            try:
                self._free.pop(0)
            except IndexError:
                return


class _Lease:
    """Who an array's memory belongs to while the array, or a view of it, is there."""

    def __init__(self, shelf: Shelf, block: _Block, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shelf, self.block = shelf, block
        self.__array_interface__ = {
            "version": 3, "shape": shape, "typestr": dtype.str, "data": (block.address, False),
        }

    def __del__(self) -> None:
        self.shelf.give(self.block)


_shelf = Shelf()


def new_result(shape: Sequence[int], dtype: np.dtype[Any], nbytes: int) -> tuple[Array, int]:
    """A new array at a multiple of 64 bytes, not initialized, and its address."""
    if nbytes < RECYCLED:
        return aligned_block(shape, dtype, nbytes)
    array = _shelf.empty(shape, dtype, nbytes)
    return array, address_of(array)
