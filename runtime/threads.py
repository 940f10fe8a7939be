"""The threads that run parallel loops: one pool for the process, whatever program is called.

The pool itself is machine code that every program with parallel loops carries along; what
happens in it, and the layout of its context, stands in ``compiler/llvm/pool.py``. Here the
context's memory is made and Python threads are started that lend themselves to that code (it
runs without the interpreter's lock).
"""

from __future__ import annotations

import atexit
import ctypes
import os
import platform
import struct
import threading
from collections.abc import Callable

from ..errors import ArgumentError
from .buffers import address_of, aligned_empty
from .image import LoadedImage

__all__ = ["WORKER", "get_num_threads", "pool_context", "ready_address", "set_num_threads"]

WORKER = "gw_worker"
_VERSION = 2
_BYTES = 384
_SPINS = 1000  # about 15 to 40 microseconds
_THREADS_OFFSET = 8
_SYSTEM_CALLS = {"x86_64": (202, 24), "aarch64": (98, 124)}  # futex, sched_yield on Linux
_MAX_THREADS = 1024

_Worker = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_int64)


class _Pool:
    """The context and the threads of this process."""

    def __init__(self) -> None:
        self.memory = aligned_empty((_BYTES,), "uint8")
        self.address = address_of(self.memory)
        self.flags = (ctypes.c_int64 * 2)(0, 1)  # `ready`, and a flag that is always set
        self.lock = threading.RLock()
        self.wanted: int | None = None
        self.closed = False
        self._threads: list[threading.Thread] = []
        self._image: LoadedImage | None = None
        self._reset()

    @property
    def ready(self) -> bool:
        """Whether the threads that are wanted run; machine code asks too (`ready_address`)."""
        return bool(self.flags[0])

    @ready.setter
    def ready(self, value: bool) -> None:
        self.flags[0] = value

    def _reset(self) -> None:
        """Write a fresh context; no thread may be using it."""
        syscall = ctypes.cast(ctypes.CDLL(None).syscall, ctypes.c_void_p).value
        numbers = _SYSTEM_CALLS.get(platform.machine()) if platform.system() == "Linux" else None
        head = struct.pack(
            "<6q", _VERSION, 1, syscall if syscall and numbers else 0, *(numbers or (0, 0)), _SPINS
        )
        self.memory[:] = 0
        self.memory[: len(head)] = memoryview(head)

    def start(self, image: LoadedImage) -> None:
        """Start the threads that are wanted, running the pool's code of `image`."""
        with self.lock:
            if self.ready or self.closed:
                return
            if self._threads:
                self.stop()  # an earlier `stop` was interrupted
            worker = _Worker(image.address(WORKER))
            self._image = image
            for i in range(1, self.count()):
                thread = threading.Thread(
                    target=_work, args=(worker, self.address, i, image), name=f"graphwright-{i}", daemon=True
                )
                try:
                    thread.start()
                except RuntimeError:  # the system gives no more, or the interpreter is shutting down
                    break
                self._threads.append(thread)
            self._set_threads(1 + len(self._threads))
            self.ready = True

    def stop(self) -> None:
        """Let all threads return, and wait for them; loops in flight are finished first."""
        with self.lock:
            self._set_threads(1)
            self.ready = False
            if self._threads and self._image is not None:
                _Worker(self._image.address(WORKER))(self.address, -1)
                for thread in self._threads:
                    thread.join()
            self._threads.clear()
            ctypes.c_int32.from_address(self.address + 132).value = 0  # the stop flag

    def forget(self) -> None:
        """In a forked child, no thread but the caller exists: begin anew."""
        self.lock = threading.RLock()
        self._threads.clear()
        self.ready = False
        self._reset()

    def count(self) -> int:
        if self.wanted is None:
            self.wanted = _default_threads()
        return self.wanted

    def _set_threads(self, n: int) -> None:
        ctypes.c_int64.from_address(self.address + _THREADS_OFFSET).value = n


def _work(worker: Callable[[int, int], int], context: int, index: int, image: LoadedImage) -> None:
    worker(context, index)  # `image` is held by this frame: its code is what runs here


def _default_threads() -> int:
    text = os.environ.get("GRAPHWRIGHT_NUM_THREADS", "").strip()
    if text:
        if not text.isdigit() or not 1 <= int(text) <= _MAX_THREADS:
            raise ArgumentError(
                f"GRAPHWRIGHT_NUM_THREADS is {text!r}; it must be an integer from 1 to {_MAX_THREADS}"
            )
        return int(text)
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), _MAX_THREADS)
    return min(os.cpu_count() or 1, _MAX_THREADS)


_pool = _Pool()


def pool_context(image: LoadedImage) -> int:
    """The address to pass as ``context`` to functions of an image; starts the threads if needed."""
    if not _pool.ready:
        _pool.start(image)
    return _pool.address


def ready_address(threaded: bool) -> int:
    """Where a 64-bit integer tells whether a program may be called now: it is not 0.

    Programs that share the pool wait for `pool_context` to start its threads.
    """
    return ctypes.addressof(_pool.flags) + (0 if threaded else 8)


def set_num_threads(n: int) -> None:
    """Let parallel loops use `n` threads, the caller included.

    Results do not depend on it. The default is the environment variable
    ``GRAPHWRIGHT_NUM_THREADS``, else the number of processors this process may use.

    Raises
    ------
    ArgumentError
        If `n` is not an integer from 1 to 1024.
    """
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= _MAX_THREADS:
        raise ArgumentError(f"the number of threads is {n!r}; it must be an integer from 1 to {_MAX_THREADS}")
    with _pool.lock:
        if n != _pool.wanted:
            _pool.stop()
            _pool.wanted = n


def get_num_threads() -> int:
    """How many threads parallel loops use, the caller included."""
    return _pool.count()


def _close() -> None:
    _pool.closed = True
    _pool.stop()


atexit.register(_close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.forget)
