"""Position-independent machine code: as bytes, and loaded into memory."""

from __future__ import annotations

import ctypes
import json
import mmap
import platform
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..errors import CompileError
from .cpu import missing_features, same_machine

__all__ = ["Image", "LoadedImage"]

_MAGIC = b"GWIMAGE1"


@dataclass(frozen=True)
class Image:
    """Code and read-only data that run at any page-aligned address; no globals that are written.

    Attributes
    ----------
    code : the bytes to map.
    entries : offset of each exported function.
    triple : the LLVM triple of the target; "" is the machine that made it.
    features : CPU features that the code needs, by LLVM's names, such as ``"avx2"``.
    functions : offset and size in bytes of every function, those included that are not exported.
    """

    code: bytes
    entries: Mapping[str, int]
    triple: str = ""
    features: tuple[str, ...] = field(default=())
    functions: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """As one string, for the cache."""
        head = {
            "entries": dict(self.entries), "triple": self.triple, "features": list(self.features),
            "functions": [[name, *place] for name, place in self.functions.items()],
        }
        text = json.dumps(head, sort_keys=True).encode()
        return _MAGIC + struct.pack("<I", len(text)) + text + self.code

    @classmethod
    def from_bytes(cls, data: bytes) -> Image:
        """The image that `to_bytes` wrote.

        Raises
        ------
        ValueError
            If it is none.
        """
        if data[:8] != _MAGIC or len(data) < 12:
            raise ValueError("not an image")
        end = 12 + struct.unpack_from("<I", data, 8)[0]
        head = json.loads(data[12:end])
        functions = {name: (offset, size) for name, offset, size in head["functions"]}
        return cls(data[end:], head["entries"], head["triple"], tuple(head["features"]), functions)


class LoadedImage:
    """An image mapped into memory, readable and executable, never writable at the same time.

    The memory is released with the object; whoever holds an address holds the object too.

    Raises
    ------
    CompileError
        If this machine cannot run the image, or refuses to map it.
    """

    def __init__(self, image: Image) -> None:
        check_runnable(image.triple, image.features)
        self.image = image
        self._memory = mmap.mmap(-1, max(len(image.code), 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._memory.write(image.code)
        base: int = np.frombuffer(self._memory, np.uint8).ctypes.data
        libc = ctypes.CDLL(None, use_errno=True)
        size = ctypes.c_size_t(len(self._memory))
        # On AArch64 the kernel makes the instruction cache coherent when a page becomes executable.
        if libc.mprotect(ctypes.c_void_p(base), size, mmap.PROT_READ | mmap.PROT_EXEC) != 0:
            raise CompileError(f"mprotect refused executable memory: errno {ctypes.get_errno()}")
        self._base = base

    @property
    def entries(self) -> Mapping[str, int]:
        """Offset of each exported function."""
        return self.image.entries

    def address(self, name: str) -> int:
        """Where an exported function lies.

        Raises
        ------
        KeyError
            If the image has no such function.
        """
        return self._base + self.image.entries[name]


def check_runnable(triple: str, features: tuple[str, ...]) -> None:
    """Raise CompileError if code for this target cannot run here."""
    if triple and not same_machine(triple):
        raise CompileError(f"code for {triple} cannot run on {platform.machine()} {platform.system()}")
    missing = missing_features(features)
    if missing:
        raise CompileError(f"the code needs CPU features that this machine lacks: {', '.join(missing)}")
