"""Writing artifacts: what `runtime.artifact` describes and reads."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import ExportError
from ..runtime import container, safetensors
from ..runtime.artifact import FORMAT, MANIFEST, SCHEMA, WEIGHTS, Model, canonical_json
from ..runtime.buffers import Array, Cell
from ..runtime.files import replace_file
from ..runtime.image import Image
from ..runtime.native_call import ENTRIES
from ..runtime.signature import Signature
from ..runtime.threads import WORKER
from .provenance import relative_files, target_name, with_code

__all__ = ["CompiledEntry", "artifact_bytes", "write_artifact"]

_PAGE = 4096


@dataclass(frozen=True)
class CompiledEntry:
    """One entry point of an artifact.

    Attributes
    ----------
    signature : what it takes and gives.
    image : its code, for the first target.
    symbol : the function's name in the image.
    ir : the program's text at each stage, in the order of the pipeline.
    cells : storage of its states; entries that share a cell share the variable.
    others : its code for further targets.
    provenance : the record of its kernels without code (`compiler.provenance.describe`), or None.
    shared : for each target, in their order, an image of what programs share: their native entry from Python.
    """

    signature: Signature
    image: Image
    symbol: str
    ir: Mapping[str, str] = field(default_factory=dict)
    cells: Sequence[Cell] = ()
    others: Sequence[Image] = ()
    provenance: Mapping[str, Any] | None = None
    shared: Sequence[Image] = ()

    @property
    def images(self) -> tuple[Image, ...]:
        return (self.image, *self.others)


def write_artifact(
    path: str | os.PathLike[str], entries: Mapping[str, CompiledEntry], *, producer: str | None = None
) -> None:
    """Write an artifact, whole or not at all.

    Parameters
    ----------
    path : the file; one that exists is replaced once the new one is safely on disk.
    entries : the entry points by name; all for the same targets.
    producer : who wrote it, for the manifest; this release's version if None.

    Raises
    ------
    ExportError
        If an entry cannot be stored, or the file not be written. A file that stood there is unchanged.
    """
    try:
        data = artifact_bytes(entries, producer=producer or _version())
        replace_file(os.path.realpath(os.fspath(path)), data)
    except ExportError:
        raise
    except (OSError, ValueError, TypeError, KeyError) as e:
        raise ExportError(f"{os.fspath(path)} could not be written: {_reason(e)}") from e


def artifact_bytes(entries: Mapping[str, CompiledEntry], *, producer: str) -> bytes:
    """The bytes of an artifact: the same for the same entries.

    Raises
    ------
    ExportError
        If a name is not fit for an entry point, entries have different targets, or two variables
        have one name.
    ValueError
        If it is too large, or a name is not fit for a file.
    """
    _check_entries(entries)
    targets, members = _targets(entries)
    members[WEIGHTS] = safetensors.encode(_weights(entries))
    for name, entry in entries.items():
        for stage, text in entry.ir.items():
            members[f"ir/{name}/{stage}.gwir"] = text.encode()
    for name, record in _provenance(entries, targets).items():
        members[f"ir/{name}/provenance.json"] = canonical_json(record)
    manifest = {
        "format": FORMAT,
        "schema": SCHEMA,
        "producer": producer,
        "targets": targets,
        "entries": {
            name: {
                "signature": e.signature.to_json(),
                "memory": e.signature.arena_text,
                "ir": list(e.ir),
                **({} if e.provenance is None else {"provenance": e.provenance["version"]}),
            }
            for name, e in entries.items()
        },
        "members": {
            name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in members.items()
        },
    }
    files = {MANIFEST: canonical_json(manifest), **{name: members[name] for name in sorted(members)}}
    heads, tail = container.headers(container.Member.of(name, data) for name, data in files.items())
    parts = [part for (_, head), data in zip(heads, files.values(), strict=True) for part in (head, data)]
    return b"".join((*parts, tail))


def _check_entries(entries: Mapping[str, CompiledEntry]) -> None:
    if not entries:
        raise ExportError("an artifact needs at least one entry point")
    for name, entry in entries.items():
        if not (name.isidentifier() and name.isascii()) or name.startswith("_") or name in (WORKER, *ENTRIES):
            raise ExportError(f"{name!r} cannot be the name of an entry point; use a plain identifier")
        if name in _RESERVED:
            raise ExportError(f"an entry point cannot have the name {name!r}, which every model has already")
        if [c.name for c in entry.cells] != [s.name for s in entry.signature.states]:
            raise ExportError(f"entry {name!r}: its cells are not the states of its signature")
        for image in entry.images:
            if entry.symbol not in image.entries:
                raise ExportError(f"entry {name!r}: its code does not define {entry.symbol!r}")
        kinds = [(i.triple, i.features) for i in entry.images]
        first = next(iter(entries.values()))
        if kinds != [(i.triple, i.features) for i in first.images] or len(set(kinds)) != len(kinds):
            raise ExportError(f"entry {name!r}: all entries must have the same targets, each once")
        if not all(triple for triple, _ in kinds):
            raise ExportError(f"entry {name!r}: its code does not record its target")


_RESERVED = {"entries", "ir", "manifest", "variables"} | {n for n in dir(Model) if not n.startswith("_")}


def _weights(entries: Mapping[str, CompiledEntry]) -> dict[str, Array]:
    cells: dict[str, Cell] = {}
    for entry in entries.values():
        for cell in entry.cells:
            if cells.setdefault(cell.name, cell) is not cell:
                raise ExportError(f"two different variables have the name {cell.name!r}")
    with contextlib.ExitStack() as stack:  # one moment for all of them
        for cell in sorted(cells.values(), key=id):
            stack.enter_context(cell.lock)
        return {name: cell.value for name, cell in cells.items()}


def _targets(entries: Mapping[str, CompiledEntry]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The manifest's record of each target, and its code: that of all entries, each image once."""
    records: dict[str, Any] = {}
    members: dict[str, bytes] = {}
    for i, image in enumerate(next(iter(entries.values())).images):
        programs = {name: (e.images[i], e.symbol) for name, e in sorted(entries.items())}
        code, offsets = _join(programs, _shared(entries, i))
        name = _unused(target_name(image.triple), records)
        records[name] = {"triple": image.triple, "features": sorted(image.features), "entries": offsets}
        members[f"code/{name}.bin"] = code
    return records, members


def _provenance(entries: Mapping[str, CompiledEntry], targets: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The records of the entries that have one, with the places of their kernels in the code of each target."""
    records = {name: dict(e.provenance) for name, e in entries.items() if e.provenance is not None}
    for name in records:
        for image, (target, made) in zip(entries[name].images, targets.items(), strict=True):
            base = made["entries"][name] - image.entries[entries[name].symbol]
            records[name] = with_code(records[name], image, target, base)
    return relative_files(records)


def _shared(entries: Mapping[str, CompiledEntry], i: int) -> dict[str, tuple[Image, str]]:
    """The code that all programs for target number `i` share, if there is any."""
    found = next((e.shared[i] for e in entries.values() if i < len(e.shared)), None)
    return {name: (found, name) for name in found.entries} if found else {}


def _join(
    programs: Mapping[str, tuple[Image, str]], shared: Mapping[str, tuple[Image, str]]
) -> tuple[bytes, dict[str, int]]:
    """Images one after another, each at a page; and the offset of each entry, and of the pool's worker."""
    code = bytearray()
    bases: dict[bytes, int] = {}
    offsets: dict[str, int] = {}
    for name, (image, symbol) in (*programs.items(), *shared.items()):
        if image.code not in bases:
            code += b"\0" * (-len(code) % _PAGE)
            bases[image.code] = len(code)
            code += image.code
        base = bases[image.code]
        offsets[name] = base + image.entries[symbol]
        if WORKER in image.entries:
            offsets.setdefault(WORKER, base + image.entries[WORKER])
    return bytes(code), offsets


def _unused(name: str, taken: Mapping[str, Any]) -> str:
    candidates = (name if i == 1 else f"{name}.{i}" for i in range(1, len(taken) + 2))
    return next(c for c in candidates if c not in taken)


# --- files -----------------------------------------------------------------------------------------


def _reason(error: Exception) -> str:
    """Why a file cannot be written, without the name of the temporary file beside it."""
    reason = error.strerror if isinstance(error, OSError) else None
    return reason or str(error)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"graphwright {version('graphwright')}"
    except PackageNotFoundError:
        return "graphwright"
