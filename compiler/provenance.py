"""Make the record of provenance (`runtime.provenance`): what each machine kernel computes of which source line."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..ir.graph import Graph, Loc, Value
from ..ir.printer import print_kernel
from ..ir.program import Program
from ..runtime.image import Image
from ..runtime.provenance import FORMAT, VERSION

if TYPE_CHECKING:
    from .driver import Lowered

__all__ = ["describe", "relative_files", "target_name", "with_code"]

Record = dict[str, Any]


def describe(lowered: Lowered) -> Record:
    """The record of a lowered graph, without the addresses of its code."""
    program = lowered.program
    reasons = _reasons(lowered.optimized)
    loops = _first_lines(program)
    calls = [call.kernel.name for call in program.calls]
    kernels = [
        {
            "name": k.name,
            "reason": reasons.get(id(lowered.regions[k.name]), "copy"),
            "calls": calls.count(k.name),
            "loops": loops[k.name],
            "ops": list(_ops(lowered.regions[k.name])),
            "code": [],
        }
        for k in program.kernels
    ]
    return {
        "format": FORMAT,
        "version": VERSION,
        "function": program.name,
        "kernels": kernels,
        "other": [],
        "lines": _lines(kernels),
    }


def _reasons(optimized: Graph) -> dict[int, str]:
    found: dict[int, str] = {}
    for v in optimized:
        if v.op.name == "fusion":
            found[id(v.regions[0])] = v.attrs["reason"]
        else:
            for region in v.regions:
                found |= _reasons(region)
    return found


def _first_lines(program: Program) -> dict[str, int]:
    """The line, from 1, at which each kernel's text begins in the stage ``loops``."""
    found: dict[str, int] = {}
    count = 0
    for k in program.kernels:
        found[k.name] = count + 1
        count += len(f"{print_kernel(k)}\n".splitlines())
    return found


# --- ops -------------------------------------------------------------------------------------------


def _ops(region: Graph) -> Iterator[Record]:
    """What a kernel computes, operands before their users."""
    parts = _parts(region)
    for v in region:
        if v in parts:
            yield {
                "op": v.op.name,
                "type": str(v.type),
                "part": parts[v],
                "result": v in region.outputs,
                "locations": [_location(loc) for loc in v.locs],
            }


def _location(loc: Loc) -> Record:
    return {"file": loc.file, "line": loc.line, "role": loc.role, "of": loc.of}


def _parts(region: Graph) -> dict[Value, str]:
    """How each op came into the kernel; inputs have no part."""
    order = [v for v in region if v not in region.inputs]
    anchor = next((v for v in order if v.op.kind == "contract"), None)
    before: set[Value] = set() if anchor is None else _needed(anchor)
    return {v: _part(v, anchor, before) for v in order}


def _part(v: Value, anchor: Value | None, before: set[Value]) -> str:
    if v.op.kind == "opaque":
        return "opaque"
    if v is anchor:
        return "contraction"
    if v.op.kind == "reduce":
        return "reduction"
    if not v.operands:
        return "constant"
    if anchor is None:
        return "map"
    return "prologue" if v in before else "epilogue"


def _needed(root: Value) -> set[Value]:
    found: set[Value] = set()
    frontier = list(root.operands)
    while frontier:
        v = frontier.pop()
        if v not in found:
            found.add(v)
            frontier.extend(v.operands)
    return found


def _lines(kernels: Iterable[Record]) -> list[Record]:
    """From each source line to the ops that come from it."""
    found: dict[tuple[str, int], list[Record]] = {}
    for k in kernels:
        for i, op in enumerate(k["ops"]):
            for place in dict.fromkeys((loc["file"], loc["line"]) for loc in op["locations"]):
                found.setdefault(place, []).append({"kernel": k["name"], "op": i})
    return [{"file": file, "line": line, "ops": ops} for (file, line), ops in sorted(found.items())]


# --- addresses and files ---------------------------------------------------------------------------


def with_code(record: Record, image: Image, target: str | None = None, base: int = 0) -> Record:
    """The record with the places of an image's functions added.

    Parameters
    ----------
    target : what the image is called; after its triple if None.
    base : where the image begins in the code that offsets refer to.
    """
    names = [k["name"] for k in record["kernels"]]
    places: dict[str | None, list[Record]] = {}
    for function, (offset, size) in image.functions.items():
        owner = _owner(function, names)
        place = {
            "target": target or target_name(image.triple), "function": function, "offset": base + offset, "size": size,
        }
        places.setdefault(owner, []).append(place)
    kernels = [{**k, "code": [*k["code"], *places.get(k["name"], [])]} for k in record["kernels"]]
    return {**record, "kernels": kernels, "other": [*record["other"], *places.get(None, [])]}


def _owner(function: str, names: Iterable[str]) -> str | None:
    """The kernel that a function belongs to: ``dot.body1`` is a part of ``dot``."""
    owners = [n for n in names if function == n or function.startswith(f"{n}.")]
    return max(owners, key=len, default=None)


def target_name(triple: str) -> str:
    """``x86_64-linux`` for ``x86_64-unknown-linux-gnu``."""
    parts = triple.split("-")
    return f"{parts[0]}-{parts[2]}" if len(parts) > 2 else triple


def relative_files(records: Mapping[str, Record]) -> dict[str, Record]:
    """Records with paths below the folder that all files share: nothing of the machine that made them."""
    files = {loc["file"] for r in records.values() for k in r["kernels"] for op in k["ops"] for loc in op["locations"]}
    paths = [f for f in files if os.path.isabs(f)]
    root = os.path.commonpath([os.path.dirname(f) for f in paths]) if paths else ""
    short = {f: os.path.relpath(f, root).replace(os.sep, "/") if f in paths else f for f in files}

    def shortened(data: Any) -> Any:
        if isinstance(data, list):
            return [shortened(item) for item in data]
        if isinstance(data, dict):
            return {key: short[item] if key == "file" else shortened(item) for key, item in data.items()}
        return data

    return {name: shortened(record) for name, record in records.items()}
