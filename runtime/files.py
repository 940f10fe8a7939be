"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator

__all__ = ["replace_file"]


def replace_file(path: str, data: bytes) -> None:
    """Write a file beside the old one, make sure that it is on disk, and put it in its place.

    Raises
    ------
    OSError
        If that fails; a file that stood there is unchanged.
    """
    folder, name = os.path.split(path)
    with _temporary(os.path.join(folder, f".{name}.{secrets.token_hex(8)}.tmp")) as temporary:
        with open(temporary, "xb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    with contextlib.suppress(OSError):  # some file systems cannot sync a folder
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def _temporary(path: str) -> Iterator[str]:
    """A path that does not exist afterwards."""
    try:
        yield path
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)
