"""The record of provenance: from machine kernels to graph ops to source lines, and back.

This module describes the record and checks it; ``docs/provenance.md`` explains it. It is made by
`compiler.provenance`, and stands in an artifact as ``ir/<entry>/provenance.json``.
"""

from __future__ import annotations

import json
from typing import Any

from ..errors import ArtifactError

__all__ = ["FORMAT", "SCHEMA", "VERSION", "at_line", "check", "parse"]

FORMAT = "graphwright.provenance"
VERSION = 1

_CODE = {"target": str, "function": str, "offset": int, "size": int}
_LOCATION = {"file": str, "line": int, "role": str, "of": str}
_OP = {"op": str, "type": str, "part": str, "result": bool, "locations": [_LOCATION]}

SCHEMA: dict[str, Any] = {
    "format": str,
    "version": int,
    "function": str,
    "kernels": [
        {"name": str, "reason": str, "calls": int, "loops": int, "ops": [_OP], "code": [_CODE]},
    ],
    "other": [_CODE],
    "lines": [{"file": str, "line": int, "ops": [{"kernel": str, "op": int}]}],
}
"""The fields of version 1 with their types; a list stands for any number of its one item."""


def check(record: Any) -> dict[str, Any]:
    """The record, if it is one of version 1.

    Raises
    ------
    ValueError
        Naming the field that is wrong.
    """
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError("not a record of provenance")
    if record.get("version") != VERSION or type(record["version"]) is not int:
        raise ValueError(f"version {record.get('version')!r:.40}; this release reads version {VERSION}")
    _check(record, SCHEMA, "the record")
    sizes = {k["name"]: len(k["ops"]) for k in record["kernels"]}
    for line in record["lines"]:
        for op in line["ops"]:
            if not 0 <= op["op"] < sizes.get(op["kernel"], 0):
                raise ValueError(f"line {line['line']} names op {op['op']} of {op['kernel']!r:.80}, which is none")
    return record


def _check(value: Any, schema: Any, where: str) -> None:
    if isinstance(schema, dict):
        if not isinstance(value, dict) or set(value) != set(schema):
            raise ValueError(f"{where} has missing or unknown fields")
        for name, inner in schema.items():
            _check(value[name], inner, f"{where}.{name}")
    elif isinstance(schema, list):
        if not isinstance(value, list):
            raise ValueError(f"{where} is no list")
        for k, item in enumerate(value):
            _check(item, schema[0], f"{where}[{k}]")
    elif type(value) is not schema:
        raise ValueError(f"{where} is no {schema.__name__}")


def parse(data: bytes) -> dict[str, Any]:
    """The record in a member of an artifact.

    Raises
    ------
    ArtifactError
        If it is damaged, or of another version.
    """
    try:
        return check(json.loads(data))
    except (ValueError, RecursionError) as e:
        raise ArtifactError(f"the record of provenance is damaged: {e}") from None


def at_line(record: dict[str, Any], file: str, line: int) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The kernels that compute something of a source line, each with those ops.

    `file` may leave out folders at the beginning of the path.
    """
    found: dict[str, list[int]] = {}
    for row in record["lines"]:
        if row["line"] == line and f"/{row['file']}".replace("\\", "/").endswith(f"/{file.lstrip('/')}"):
            for op in row["ops"]:
                found.setdefault(op["kernel"], []).append(op["op"])
    return [
        (k, [k["ops"][i] for i in sorted(found[k["name"]])]) for k in record["kernels"] if k["name"] in found
    ]
