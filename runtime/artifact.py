"""Artifacts: compiled functions and their variables in one file; reading them needs NumPy only.

A ``.gwa`` file is a zip (`container`) with these members:

- ``manifest.json``, first: canonical JSON that lists all others with size and SHA-256, the targets,
  and the entry points with their signatures;
- ``code/<target>.bin``: the machine code of all entry points for one target;
- ``ir/<entry>/<stage>.gwir``: the program's text at each stage, for people;
- ``ir/<entry>/provenance.json``: which kernel computes what of which source line (`provenance`);
- ``weights.safetensors``: the variables' values.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from ..errors import ArtifactError, GraphwrightError, UpdateError
from . import container, safetensors
from .buffers import Array, Cell
from .cpu import missing_features, same_machine
from .executable import Executable
from .image import Image, LoadedImage
from .native_call import ENTRIES
from .signature import Signature
from .threads import WORKER

__all__ = ["FORMAT", "MANIFEST", "SCHEMA", "WEIGHTS", "Model", "Variables", "canonical_json", "load", "read"]

FORMAT = "graphwright.artifact"
SCHEMA = 1
MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"

T = TypeVar("T")


def canonical_json(data: Any) -> bytes:
    """JSON with one text for each content: sorted keys, no spaces, no NaN."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


class Variables(Mapping[str, Array]):
    """The variables of a model: reading one gives a copy of its value."""

    def __init__(self, cells: Mapping[str, Cell]) -> None:
        self._cells = dict(cells)

    def __getitem__(self, name: str) -> Array:
        return self._cells[name].value

    def __setitem__(self, name: str, value: Any) -> None:
        self.assign(name, value)

    def __iter__(self) -> Iterator[str]:
        return iter(self._cells)

    def __len__(self) -> int:
        return len(self._cells)

    def assign(self, name: str, value: Any) -> None:
        """Overwrite one variable.

        Raises
        ------
        UpdateError
            If there is no such variable, or the dtype or shape of `value` is another.
        """
        self.update({name: value})

    def update(self, values: Mapping[str, Any]) -> None:
        """Overwrite several variables, all of them or, if any value is refused, none.

        Raises
        ------
        UpdateError
            As for `assign`.
        """
        for name in values:
            if name not in self._cells:
                raise UpdateError(
                    f"there is no variable {name!r}; there are {', '.join(self._cells) or 'none'}"
                )
        checked = {name: self._cells[name].check(value) for name, value in values.items()}
        for name, array in checked.items():
            self._cells[name].assign(array)

    def __repr__(self) -> str:
        return f"<Variables {', '.join(self._cells) or '(none)'}>"


class Model:
    """A loaded artifact; its entry points are its methods: ``model.predict(x)``.

    Attributes
    ----------
    entries : the entry points by name.
    variables : the variables by name; the entry points share them.
    manifest : the artifact's record of itself.
    """

    def __init__(
        self,
        entries: Mapping[str, Executable],
        cells: Mapping[str, Cell],
        manifest: Mapping[str, Any],
        texts: Mapping[str, bytes],
    ) -> None:
        self.entries: Mapping[str, Executable] = MappingProxyType(dict(entries))
        self.variables = Variables(cells)
        self.manifest = manifest
        self._texts = dict(texts)
        # found without a detour by `__getattr__`; no name of our own can be taken
        self.__dict__ |= {n: e for n, e in entries.items() if not hasattr(type(self), n) and n not in self.__dict__}

    def ir(self, entry: str, stage: str) -> str:
        """The text of an entry point's program at one stage.

        Raises
        ------
        KeyError
            If the artifact has no such text.
        """
        return self._texts[f"ir/{entry}/{stage}.gwir"].decode()

    def provenance(self, entry: str) -> dict[str, Any]:
        """The record of an entry point's kernels: their code, ops and source lines (`runtime.provenance`).

        Raises
        ------
        KeyError
            If the artifact has none.
        ArtifactError
            If it is damaged, or of another version.
        """
        from .provenance import parse

        return parse(self._texts[f"ir/{entry}/provenance.json"])

    def __getattr__(self, name: str) -> Executable:
        entries = self.__dict__.get("entries", {})
        if name in entries:
            found: Executable = entries[name]
            return found
        raise AttributeError(f"the model has no entry point {name!r}; it has {', '.join(entries)}")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.entries]

    def __repr__(self) -> str:
        return f"<Model {', '.join(str(e.signature) for e in self.entries.values())}>"


def load(path: str | os.PathLike[str]) -> Model:
    """Open an artifact. Everything is checked before any code is mapped; no code runs.

    Raises
    ------
    ArtifactError
        If the file is truncated, altered, of an unknown version, or for another machine.
    OSError
        If it cannot be read.
    """
    return _from_file(path, _open)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, memoryview]]:
    """The manifest and the members of an artifact, checked; it may be for another machine.

    Raises
    ------
    ArtifactError
        If the file is truncated, altered, or of an unknown version.
    OSError
        If it cannot be read.
    """
    return _from_file(path, _members)


def _from_file(path: str | os.PathLike[str], parse: Callable[[bytes], T]) -> T:
    with open(path, "rb") as f:
        data = f.read()
    try:
        return parse(data)
    except ArtifactError as e:
        raise ArtifactError(f"{os.fspath(path)}: {e}") from None
    except (GraphwrightError, ValueError, KeyError, TypeError, RecursionError) as e:
        raise ArtifactError(f"{os.fspath(path)}: the manifest contradicts itself: {e}") from e


def _open(data: bytes) -> Model:
    manifest, members = _members(data)
    cells = _cells(members)
    image = _image(manifest, members)
    signatures = {name: _signature(name, entry, cells) for name, entry in manifest["entries"].items()}
    if set(signatures) != set(image.entries) - {WORKER, *ENTRIES}:
        raise ArtifactError("the code has other entry points than the manifest")
    for name in signatures:
        if not name.isidentifier():
            raise ArtifactError(f"{name!r} cannot be the name of an entry point")
    loaded = LoadedImage(image)
    entries = {
        name: Executable(loaded, name, s, [cells[slot.name] for slot in s.states])
        for name, s in signatures.items()
    }
    texts = {name: bytes(m) for name, m in members.items() if name.startswith("ir/")}
    return Model(entries, cells, manifest, texts)


def _members(data: bytes) -> tuple[dict[str, Any], dict[str, memoryview]]:
    members = container.read(data)
    manifest = _manifest(members)
    _check_members(manifest, members)
    return manifest, members


def _manifest(members: Mapping[str, memoryview]) -> dict[str, Any]:
    if next(iter(members), None) != MANIFEST:
        raise ArtifactError("the file is a zip, but no artifact: its first member is not the manifest")
    text = bytes(members[MANIFEST])
    try:
        manifest = json.loads(text)
        canonical = canonical_json(manifest) == text
    except (ValueError, RecursionError):
        canonical = False
    if not canonical or not isinstance(manifest, dict):
        raise ArtifactError("the manifest is damaged")
    if manifest.get("format") != FORMAT:
        raise ArtifactError("the file is a zip, but no artifact")
    if manifest.get("schema") != SCHEMA or type(manifest["schema"]) is not int:
        raise ArtifactError(
            f"the artifact has schema {manifest.get('schema')!r:.80}, made by "
            f"{manifest.get('producer')!r:.80}; this release reads schema {SCHEMA}"
        )
    if set(manifest) != {"format", "schema", "producer", "members", "targets", "entries"}:
        raise ArtifactError("the manifest has missing or unknown fields")
    if not all(isinstance(manifest[key], dict) for key in ("members", "targets", "entries")):
        raise ArtifactError("the manifest is damaged")
    return manifest


def _check_members(manifest: Mapping[str, Any], members: Mapping[str, memoryview]) -> None:
    """Every member is listed with its size and hash, and has a name that belongs here."""
    listed = manifest["members"]
    if set(listed) != set(members) - {MANIFEST} or list(members) != [MANIFEST, *sorted(listed)]:
        raise ArtifactError("the file has other members than the manifest lists")
    expected = {WEIGHTS, *(f"code/{target}.bin" for target in manifest["targets"])}
    for name, entry in manifest["entries"].items():
        recorded = isinstance(entry, dict) and type(entry.get("provenance")) is int
        _fields(entry, {"signature", "memory", "ir", *(["provenance"] if recorded else [])}, f"entry {name!r}")
        expected |= {f"ir/{name}/{stage}.gwir" for stage in entry["ir"]}
        expected |= {f"ir/{name}/provenance.json"} if recorded else set()
    if set(listed) != expected:
        raise ArtifactError("the file has members that belong to no entry point or target, or lacks some")
    for name, record in listed.items():
        digest = hashlib.sha256(members[name]).hexdigest()
        if record != {"sha256": digest, "size": len(members[name])}:
            raise ArtifactError(f"member {name!r} is damaged: its size or hash is not the manifest's")


def _cells(members: Mapping[str, memoryview]) -> dict[str, Cell]:
    tensors = safetensors.decode(members[WEIGHTS])
    return {name: Cell(name, array) for name, array in tensors.items()}


def _image(manifest: Mapping[str, Any], members: Mapping[str, memoryview]) -> Image:
    """The code for this machine; of several, that which uses most features of it."""
    usable: list[tuple[int, str]] = []
    reasons: list[str] = []
    for name, target in manifest["targets"].items():
        _fields(target, {"triple", "features", "entries"}, f"target {name!r}")
        triple, features = target["triple"], target["features"]
        if not isinstance(triple, str) or not _are_strings(features):
            raise ArtifactError(f"target {name!r} of the manifest is damaged")
        missing = missing_features(features)
        if not same_machine(triple):
            reasons.append(f"{name} is for {triple}")
        elif missing:
            reasons.append(f"{name} needs the CPU features {', '.join(missing)}")
        else:
            usable.append((len(features), name))
    if not usable:
        raise ArtifactError(f"no code for this machine: {'; '.join(reasons) or 'no target at all'}")
    name = max(usable)[1]
    target, code = manifest["targets"][name], bytes(members[f"code/{name}.bin"])
    offsets = target["entries"]
    if not isinstance(offsets, dict) or not all(
        type(offset) is int and 0 <= offset < len(code) for offset in offsets.values()
    ):
        raise ArtifactError(f"an entry point of target {name!r} lies outside its code")
    return Image(code, offsets, target["triple"], tuple(target["features"]))


def _signature(name: str, entry: Mapping[str, Any], cells: Mapping[str, Cell]) -> Signature:
    signature = Signature.from_json(entry["signature"])
    if entry["memory"] != signature.arena_text:
        raise ArtifactError(f"entry {name!r}: the memory formula is not the signature's")
    for slot in signature.states:
        if slot.name not in cells:
            raise ArtifactError(f"entry {name!r}: the weights lack the variable {slot.name!r}")
    return signature


def _fields(record: Any, names: set[str], what: str) -> None:
    if not isinstance(record, dict) or set(record) != names:
        raise ArtifactError(f"{what} of the manifest has missing or unknown fields")


def _are_strings(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(v, str) for v in values)
