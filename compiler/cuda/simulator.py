"""Numba's CUDA simulator, made quiet, quick, and free of a race.

In it each CUDA thread is a Python thread, and the main thread polls them. Its ``cuda.shared.array``
looks an array up and then makes it if there is none: two threads may each make one of their own.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np

__all__ = ["simulation"]

_lock = threading.Lock()


def _shared_array(self: Any, shape: Any, dtype: Any, alignment: Any = None) -> Any:
    """The block's array for the line of source that asks for it; made once."""
    caller = sys._getframe(1)
    place = caller.f_code.co_filename, caller.f_lineno
    with _lock:
        if place not in self._allocations:
            self._allocations[place] = np.empty(shape, dtype)
        return self._allocations[place]


@lru_cache(maxsize=1)
def _repair() -> None:
    import_module("numba.cuda.simulator.kernelapi").FakeCUDAShared.array = _shared_array


@contextmanager
def simulation() -> Iterator[None]:
    """Without NumPy's warnings (a GPU overflows silently), and with quick switches between threads."""
    _repair()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            yield
    finally:
        sys.setswitchinterval(interval)
