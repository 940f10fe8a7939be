"""The zip container of artifacts: stored members, one layout for each content, read strictly.

Any zip tool can open such a file. The reader, though, accepts only the bytes that `write` makes of
the same members: from the central directory it takes names, sizes and checksums, builds all
headers anew, and compares. So there are no gaps, duplicates, comments, links or second meanings.

Format: PKWARE APPNOTE 6.3.10, sections 4.3.7, 4.3.12 and 4.3.16.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import ArtifactError

__all__ = ["MAX_BYTES", "Member", "headers", "read", "valid_name"]

MAX_BYTES = 2**32 - 2**27  # of members; all offsets then fit 32 bits, directory included
_MAX_MEMBERS = 65534
_DATE = 0 | 1 << 5 | 0 << 9  # 1 January 1980, the zero of the format
_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")


@dataclass(frozen=True)
class Member:
    """What the headers say of one member."""

    name: str
    size: int
    crc: int

    @classmethod
    def of(cls, name: str, data: bytes) -> Member:
        return cls(name, len(data), zlib.crc32(data))


def valid_name(name: str) -> bool:
    """Whether a member may have this name: plain words with slashes between, no ``..``."""
    return len(name) < 1024 and _NAME.fullmatch(name) is not None


def headers(members: Iterable[Member]) -> tuple[list[tuple[int, bytes]], bytes]:
    """The header of each member with its offset, and what follows the last member.

    Raises
    ------
    ValueError
        If there are too many members, too many bytes, or a name is not valid or not unique.
    """
    local: list[tuple[int, bytes]] = []
    central: list[bytes] = []
    offset = 0
    names = set()
    for m in members:
        if not valid_name(m.name) or m.name in names:
            raise ValueError(f"{m.name!r} cannot be the name of a member")
        names.add(m.name)
        name = m.name.encode()
        fields = (20, 0, 0, 0, _DATE, m.crc, m.size, m.size, len(name), 0)
        head = _LOCAL.pack(b"PK\3\4", *fields) + name
        local.append((offset, head))
        central.append(_CENTRAL.pack(b"PK\1\2", 20, *fields, 0, 0, 0, 0, offset) + name)
        offset += len(head) + m.size
        if offset > MAX_BYTES or len(local) > _MAX_MEMBERS:
            raise ValueError(f"an artifact holds at most {MAX_BYTES} bytes and {_MAX_MEMBERS} members")
    directory = b"".join(central)
    end = _END.pack(b"PK\5\6", 0, 0, len(local), len(local), len(directory), offset, 0)
    return local, directory + end


def read(data: bytes | memoryview) -> dict[str, memoryview]:
    """The members of a file, by name, in their order.

    Raises
    ------
    ArtifactError
        If the file is not exactly what `headers` and the members' data make.
    """
    view = memoryview(data)
    members = list(_directory(view))
    try:
        local, tail = headers(members)
    except ValueError as e:
        raise ArtifactError(str(e)) from None
    content: dict[str, memoryview] = {}
    position = 0
    for m, (offset, head) in zip(members, local, strict=True):
        begin = offset + len(head)
        if view[offset:begin] != head:
            raise ArtifactError(f"the header of member {m.name!r} is damaged")
        position = begin + m.size
        content[m.name] = view[begin:position]
        if position > len(view) or zlib.crc32(content[m.name]) != m.crc:
            raise ArtifactError(f"member {m.name!r} is damaged: its checksum is another")
    if view[position:] != tail:
        raise ArtifactError("the directory of the file is damaged")
    return content


def _directory(view: memoryview) -> Iterable[Member]:
    """What the central directory claims; the caller checks it."""
    if len(view) < _END.size:
        raise ArtifactError("the file is too short to be an artifact")
    magic, _, _, _, count, size, begin, _ = _END.unpack_from(view, len(view) - _END.size)
    if magic != b"PK\5\6" or begin + size + _END.size != len(view):
        raise ArtifactError("the file is truncated, or no artifact")
    position = begin
    for _ in range(count):
        if position + _CENTRAL.size > len(view):
            raise ArtifactError("the directory of the file is damaged")
        fields = _CENTRAL.unpack_from(view, position)
        crc, length, name_length = fields[7], fields[9], fields[10]
        position += _CENTRAL.size
        try:
            name = bytes(view[position : position + name_length]).decode("ascii")
        except UnicodeDecodeError:
            raise ArtifactError("the directory of the file is damaged") from None
        position += name_length
        yield Member(name, length, crc)
