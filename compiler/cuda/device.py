"""The GPU of this machine, or Numba's simulator of one, as a `runtime.device.Device`."""

from __future__ import annotations

import linecache
import math
import warnings
import weakref
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np

from ...errors import CompileError
from ...runtime.buffers import Array, Cell
from ...runtime.device import Memory, Mirror
from .functions import SIMULATED, cuda, refusals
from .simulator import simulation

__all__ = ["NumbaDevice", "compile_source"]


@lru_cache(maxsize=1)
def _mirrors() -> weakref.WeakKeyDictionary[Cell, Mirror]:
    return weakref.WeakKeyDictionary()


def compile_source(source: str, name: str) -> dict[str, Any]:
    """The ``@cuda.jit`` functions of a source, by name; Numba compiles each at its first launch."""
    file = f"<graphwright cuda {name} {zlib.crc32(source.encode()):08x}>"
    linecache.cache[file] = (len(source), None, source.splitlines(True), file)  # for tracebacks
    namespace: dict[str, Any] = {"__name__": f"graphwright_cuda_{name}"}
    exec(compile(source, file, "exec"), namespace)
    return namespace


class NumbaDevice:
    """The current device of Numba; the functions of one program.

    All of them share `mirrors`, so that variables lie in the device's memory once.
    """

    def __init__(self, functions: dict[str, Any]) -> None:
        self.functions = functions
        self.mirrors = _mirrors()

    def empty(self, count: int, dtype: np.dtype[Any]) -> Memory:
        if not cuda.is_available():
            raise CompileError(
                "this machine has no CUDA device that Numba can use; set NUMBA_ENABLE_CUDASIM=1 before Numba is "
                "imported to simulate one"
            )
        return cuda.device_array(count, dtype)

    def view(self, memory: Memory, offset: int, count: int, dtype: np.dtype[Any]) -> Memory:
        return memory[offset : offset + count * dtype.itemsize].view(dtype)

    def shaped(self, memory: Memory, shape: tuple[int, ...]) -> Memory:
        count = math.prod(shape)
        return memory[:count].reshape(shape) if count else cuda.device_array(shape, memory.dtype)

    def write(self, memory: Memory, host: Array) -> None:
        memory.copy_to_device(host)

    def read(self, memory: Memory, host: Array) -> None:
        memory.copy_to_host(host)

    def launch(self, function: str, blocks: int, threads: int, arguments: Sequence[Any]) -> None:
        with refusals(function), simulation() if SIMULATED else _quiet():
            self.functions[function][blocks, threads](*arguments)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Numba's advice on small grids."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Grid size")
        yield
