"""Memory: aligned arrays, scratch memory of calls, and the storage of variables."""

from __future__ import annotations

import ctypes
import itertools
import math
import mmap
import os
import threading
import weakref
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..errors import UpdateError
from .arguments import as_array

__all__ = [
    "ALIGNMENT", "Arena", "Array", "Block", "Cell", "Overlap", "address_of", "aligned_block", "aligned_empty",
    "generation", "lasting_empty",
]  # fmt: skip

ALIGNMENT = 64  # a cache line, and the widest vector
_HUGE_PAGE = 2**21

Array = NDArray[Any]
Block = tuple[int, int, "Array | None"]
"""Scratch memory: its size, its address, and what keeps it alive if that is Python's."""
_from_buffer = ctypes.c_char.from_buffer
_addressof = ctypes.addressof


def address_of(array: Array) -> int:
    """Where an array's first element lies."""
    try:
        return _addressof(_from_buffer(array))  # type: ignore[arg-type]
    except (TypeError, ValueError):  # read-only, not contiguous, or empty: five times slower
        return int(array.__array_interface__["data"][0])


def aligned_empty(shape: Sequence[int], dtype: DTypeLike) -> Array:
    """A new array at a multiple of 64 bytes, not initialized."""
    dtype = np.dtype(dtype)
    return aligned_block(shape, dtype, math.prod(shape) * dtype.itemsize)[0]


def aligned_block(shape: Sequence[int], dtype: np.dtype[Any], nbytes: int) -> tuple[Array, int]:
    """`aligned_empty` for a known size in bytes, and the array's address."""
    memory = np.empty(nbytes + ALIGNMENT, np.uint8)
    base = _addressof(_from_buffer(memory))  # type: ignore[arg-type]
    offset = -base % ALIGNMENT
    return np.ndarray(shape, dtype, memory, offset), base + offset


def lasting_empty(shape: Sequence[int], dtype: DTypeLike) -> Array:
    """`aligned_empty` for memory that is kept: where it is large, in huge pages if the system has them.

    Matrix products walk down columns, where each row is a page of its own; with pages of 4 KiB the processor
    has addresses of only a few megabytes at hand.
    """
    dtype = np.dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < _HUGE_PAGE // 2 or not hasattr(mmap, "MADV_HUGEPAGE"):
        return aligned_empty(shape, dtype)
    rest = nbytes % _HUGE_PAGE
    room = nbytes + (_HUGE_PAGE - rest if rest >= _HUGE_PAGE // 2 else 0)  # what is added is never as much as used
    try:
        memory = mmap.mmap(-1, room + _HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"there is no memory for {nbytes} bytes") from error
    offset = -address_of(np.frombuffer(memory, np.uint8)) % _HUGE_PAGE
    with suppress(OSError):  # a hint: the system may have been built without
        memory.madvise(mmap.MADV_HUGEPAGE, offset, room)
    return np.ndarray(shape, dtype, memory, offset)


class Arena:
    """Scratch memory for calls in flight, handed from one call to the next.

    Each call takes a block for itself, so any number of threads may call at once; a block that
    is too small is replaced by one that is large enough.
    """

    _KEPT = 8

    def __init__(self) -> None:
        self._free: list[Block] = []

    def take(self, nbytes: int) -> Block:
        """A block of at least `nbytes`, aligned."""
        try:
            block = self._free.pop()  # atomic, as `append` is: no lock needed
        except IndexError:
            block = None
        if block is None or block[0] < nbytes:
            memory = lasting_empty((nbytes,), np.uint8)
            block = (nbytes, address_of(memory), memory)
        return block

    def give(self, block: Block) -> None:
        """Hand back what `take` gave."""
        if len(self._free) < self._KEPT:
            self._free.append(block)

    def clear(self) -> None:
        """Release the memory that no call uses."""
        self._free.clear()


class Overlap:
    """Whether memory is shared with any of some arrays, which are whole blocks of their own."""

    def __init__(self, arrays: Iterable[Array]) -> None:
        blocks = sorted((address_of(a), address_of(a) + a.nbytes) for a in arrays if a.nbytes)
        self._begins = [begin for begin, _ in blocks]
        self._ends = [end for _, end in blocks]

    def __bool__(self) -> bool:
        return bool(self._begins)

    def touches(self, address: int, nbytes: int) -> bool:
        """Whether one of the arrays has a byte in ``[address, address + nbytes)``."""
        before = bisect_left(self._begins, address + nbytes)  # blocks that begin before the end
        return nbytes > 0 and before > 0 and self._ends[before - 1] > address


generation: Array = np.zeros(1, np.int64)
"""Never the same again once any variable has changed. Machine code, which holds the interpreter's lock then, adds
2**32; Python, which may lose that lock at any time, gives it numbers below that have never been there."""
_generations = itertools.count(1)


class Cell:
    """The storage of one variable: fixed address, fixed dtype and shape.

    `lock` is held by whoever writes, so that an update is seen whole by other writers and by
    `value`. A compiled function that only reads does not wait for it. Whoever has written says so
    by `touch`, before releasing the lock: `stamp` counts that.
    """

    __slots__ = ("__weakref__", "array", "lock", "name", "stamp")

    def __init__(self, name: str, array: Array) -> None:
        self.name = name
        self.array = lasting_empty(array.shape, array.dtype.newbyteorder("="))
        self.array[...] = array
        self.lock = threading.RLock()
        self.stamp = np.zeros(1, np.int64)
        _cells.add(self)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def value(self) -> Array:
        """A copy of the present value."""
        with self.lock:
            return self.array.copy()

    @property
    def view(self) -> Array:
        """The storage itself, read-only; it changes when the variable is updated."""
        view = self.array.view()
        view.setflags(write=False)
        return view

    def check(self, value: Any) -> Array:
        """`value` as an array that `assign` would take.

        Raises
        ------
        UpdateError
            If its dtype or shape is another than the variable's.
        """
        array = as_array(value, self.dtype, f"variable {self.name!r}", UpdateError)
        if array.shape != self.shape:
            raise UpdateError(
                f"variable {self.name!r} has shape {self.shape}; the new value has {array.shape}"
            )
        return array

    def assign(self, value: Any) -> None:
        """Overwrite the value.

        Raises
        ------
        UpdateError
            If the dtype or shape of `value` is another; the variable is then unchanged.
        """
        array = self.check(value)
        with self.lock:
            self.array[...] = array
            self.touch()

    def touch(self) -> None:
        """Note that the value has changed; for whoever holds the lock."""
        self.stamp[0] += 1
        generation[0] = next(_generations)

    def __repr__(self) -> str:
        return f"<Cell {self.name}: {self.dtype}{list(self.shape)}>"


_cells: weakref.WeakSet[Cell] = weakref.WeakSet()


def _renew_locks() -> None:
    """In a forked child, no other thread exists that could release a lock held in the parent.

    The locks stay the same objects, since calls hold on to their methods.
    """
    for cell in list(_cells):
        cell.lock._at_fork_reinit()  # type: ignore[attr-defined]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
