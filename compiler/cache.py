"""A cache of compiled code on disk, shared by all processes of a user.

An entry is a file of its own, written beside its place and then moved there, so a reader sees all of it
or nothing. It carries its key and the SHA-256 of its payload; one that does not fit is removed and
compiled again. No trouble with the disk ever fails a compilation.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Cache", "CacheInfo", "cache_key", "default_directory"]

_MAGIC = b"GWCACHE1"
_HEAD = struct.Struct("<8s32s32sQ")  # magic, key, SHA-256 of the payload, its length
_LIMIT = 512 * 2**20
_STALE_SECONDS = 3600  # what a killed process left behind


def cache_key(*parts: bytes | str) -> str:
    """The key of what is made from these parts; another split of the same text is another key."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(struct.pack("<Q?", len(data), isinstance(part, str)))
        digest.update(data)
    return digest.hexdigest()


def default_directory() -> Path:
    """``GRAPHWRIGHT_CACHE_DIR``, else ``graphwright`` in the user's cache folder."""
    chosen = os.environ.get("GRAPHWRIGHT_CACHE_DIR")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "graphwright"


@dataclass(frozen=True)
class CacheInfo:
    """What a cache holds, and how often it helped this process."""

    directory: str
    entries: int
    nbytes: int
    limit: int
    hits: int
    misses: int


class Cache:
    """Bytes by key.

    Parameters
    ----------
    directory : where; `default_directory` if None. It is made when first needed.
    limit : bytes of all entries; beyond it the least recently used are removed.
    """

    def __init__(self, directory: str | os.PathLike[str] | None = None, limit: int = _LIMIT) -> None:
        self.directory = Path(directory) if directory is not None else _home()
        self.limit = limit
        self._hits = self._misses = 0
        self._unchecked = limit  # bytes written since the size was checked; at first it is unknown

    def get(self, key: str) -> bytes | None:
        """The bytes stored under a key (64 hexadecimal digits), or None."""
        payload = self._read(key)
        if payload is None:
            self._misses += 1
        else:
            self._hits += 1
        return payload

    def put(self, key: str, payload: bytes) -> bool:
        """Store bytes under a key; whether that succeeded."""
        size = _HEAD.size + len(payload)
        if self.directory is None or size > self.limit:
            return False
        head = _HEAD.pack(_MAGIC, bytes.fromhex(key), hashlib.sha256(payload).digest(), len(payload))
        path = self._path(key)
        temporary = path.with_name(f"{secrets.token_hex(8)}.tmp")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(handle, "wb") as f:
                f.write(head + payload)
            os.replace(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            return False
        self._unchecked += size
        if self._unchecked > self.limit // 16:
            self._evict()
        return True

    def clear(self) -> None:
        """Remove all entries."""
        for path, _ in self._files():
            with contextlib.suppress(OSError):
                path.unlink()

    def info(self) -> CacheInfo:
        """What it holds now."""
        sizes = [status.st_size for path, status in self._files() if path.suffix != ".tmp"]
        return CacheInfo(
            str(self.directory or ""), len(sizes), sum(sizes), self.limit, self._hits, self._misses
        )

    def _path(self, key: str) -> Path:
        if len(key) != 64 or not set(key) <= set("0123456789abcdef"):
            raise ValueError(f"{key!r} is not a key: 64 hexadecimal digits")
        assert self.directory is not None
        return self.directory / key[:2] / key[2:]

    def _read(self, key: str) -> bytes | None:
        if self.directory is None:
            return None
        path = self._path(key)
        try:
            with open(path, "rb") as f:
                status = os.fstat(f.fileno())
                data = f.read()
        except OSError:
            return None
        if not _trusted(status):
            return None
        payload = _payload(key, data)
        with contextlib.suppress(OSError):  # a folder that is only read stays as it is
            if payload is None:
                path.unlink()
            else:
                os.utime(path)
        return payload

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        """All files of the cache, with their status."""
        if self.directory is None:
            return
        for path in self.directory.glob("[0-9a-f][0-9a-f]/*"):
            with contextlib.suppress(OSError):  # another process removed it
                status = path.lstat()
                if stat.S_ISREG(status.st_mode):
                    yield path, status

    def _evict(self) -> None:
        """Remove what killed processes left, and the least recently used beyond 9/10 of the limit."""
        self._unchecked = 0
        entries = []
        for path, status in self._files():
            if path.suffix != ".tmp":
                entries.append((status.st_mtime, status.st_size, path))
            elif status.st_mtime < time.time() - _STALE_SECONDS:
                with contextlib.suppress(OSError):
                    path.unlink()
        total = sum(size for _, size, _ in entries)
        if total <= self.limit - self.limit // 16:  # what may be written before the next check
            return
        for _, size, path in sorted(entries):
            if total <= self.limit - self.limit // 10:
                return
            with contextlib.suppress(OSError):
                path.unlink()
                total -= size


def _home() -> Path | None:
    try:
        return default_directory()
    except RuntimeError:  # a user without a home
        return None


def _trusted(status: os.stat_result) -> bool:
    """Whether nobody but this user and the administrator could have written the file."""
    if not hasattr(os, "geteuid"):
        return True
    return status.st_uid in (os.geteuid(), 0) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _payload(key: str, data: bytes) -> bytes | None:
    """The payload of an entry's file, or None if it is not what `Cache.put` wrote for this key."""
    if len(data) < _HEAD.size:
        return None
    magic, found, digest, length = _HEAD.unpack_from(data)
    payload = data[_HEAD.size :]
    if (magic, found, length) != (_MAGIC, bytes.fromhex(key), len(payload)):
        return None
    return payload if hashlib.sha256(payload).digest() == digest else None
