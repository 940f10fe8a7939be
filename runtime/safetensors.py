"""The safetensors format: named arrays in one file, with nothing in it that could be executed.

Eight bytes with the header's length, a JSON header, then the data without gaps
(https://huggingface.co/docs/safetensors). Everything is checked before an array is made.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import ArtifactError
from .buffers import Array
from .signature import INT64_MAX

__all__ = ["decode", "encode"]

_NAMES = {
    "bool": "BOOL",
    "float32": "F32",
    "float64": "F64",
    **{f"int{n}": f"I{n}" for n in (8, 16, 32, 64)},
    **{f"uint{n}": f"U{n}" for n in (8, 16, 32, 64)},
}
_DTYPES = {short: np.dtype(name).newbyteorder("<") for name, short in _NAMES.items()}
_MAX_HEADER = 100_000_000  # the limit of the reference implementation
_MAX_RANK = 64


def encode(tensors: Mapping[str, Array]) -> bytes:
    """The file's bytes: the same for the same tensors, whatever their order.

    Raises
    ------
    ValueError
        If a dtype has no place in the format, or a name is the reserved ``__metadata__``.
    """
    header: dict[str, Any] = {}
    parts: list[bytes] = []
    begin = 0
    for name, array in sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0])):
        if array.dtype.name not in _NAMES or name == "__metadata__":
            raise ValueError(f"tensor {name!r} of dtype {array.dtype.name} cannot be stored")
        data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        end = begin + len(data)
        header[name] = {
            "dtype": _NAMES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [begin, end],
        }
        parts.append(data)
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the data is aligned
    return struct.pack("<Q", len(text)) + text + b"".join(parts)


def decode(data: bytes | memoryview) -> dict[str, Array]:
    """The tensors of a file, as read-only arrays that share its memory.

    Raises
    ------
    ArtifactError
        If the file is not valid: a damaged header, an unknown dtype, a shape that does not fit
        its bytes, bytes that overlap or belong to no tensor.
    """
    view = memoryview(data).toreadonly()
    if len(view) < 8:
        raise ArtifactError("safetensors: the file is too short")
    length = struct.unpack_from("<Q", view)[0]
    if length > min(len(view) - 8, _MAX_HEADER):
        raise ArtifactError("safetensors: the header is longer than the file")
    header = _header(bytes(view[8 : 8 + length]))
    body = view[8 + length :]
    arrays: dict[str, Array] = {}
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: _offsets(*item)):
        dtype, shape, (begin, stop) = _entry(name, entry)
        if begin != end or stop > len(body) or stop - begin != math.prod(shape) * dtype.itemsize:
            raise ArtifactError(f"safetensors: the bytes of tensor {name!r} do not fit its shape or place")
        try:
            arrays[name] = np.frombuffer(body[begin:stop], dtype).reshape(shape)
        except ValueError as e:  # a rank or an empty shape that NumPy cannot represent
            raise ArtifactError(f"safetensors: tensor {name!r}: {e}") from None
        end = stop
    if end != len(body):
        raise ArtifactError("safetensors: bytes that belong to no tensor")
    return {name: arrays[name] for name in header}


def _header(text: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) != len(pairs):
            raise ValueError("a key occurs twice")
        return dict(pairs)

    try:
        header = json.loads(text.decode(), object_pairs_hook=unique)
    except (ValueError, RecursionError) as e:
        raise ArtifactError(f"safetensors: the header is damaged: {e}") from None
    if not text.startswith(b"{") or not isinstance(header, dict):
        raise ArtifactError("safetensors: the header is not an object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ArtifactError("safetensors: the metadata is not an object of strings")
    return header


def _offsets(name: str, entry: Any) -> tuple[int, int]:
    return _entry(name, entry)[2]


def _entry(name: str, entry: Any) -> tuple[np.dtype[Any], tuple[int, ...], tuple[int, int]]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ArtifactError(f"safetensors: the entry of tensor {name!r:.80} is damaged")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise ArtifactError(f"safetensors: tensor {name!r:.80} has the unknown dtype {dtype!r:.80}")
    if not (_are_sizes(shape) and len(shape) <= _MAX_RANK and _are_sizes(offsets) and len(offsets) == 2):
        raise ArtifactError(f"safetensors: tensor {name!r:.80} has no valid shape or place")
    return _DTYPES[dtype], tuple(shape), (offsets[0], offsets[1])


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and 0 <= v <= INT64_MAX for v in values)
