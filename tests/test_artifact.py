"""Artifacts: written whole, byte for byte the same, and read with suspicion."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import random
import struct
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from native_code import ACCUMULATE, ARCH, SQUARES, TRIPLE, TWICE, image_of, with_pool

from graphwright.compiler import export
from graphwright.compiler.export import CompiledEntry, artifact_bytes, write_artifact
from graphwright.errors import ArtifactError, ExportError, UpdateError
from graphwright.runtime import container, safetensors
from graphwright.runtime.artifact import canonical_json, load
from graphwright.runtime.buffers import Cell
from graphwright.runtime.image import Image
from graphwright.runtime.signature import Signature, Slot


def train_signature() -> Signature:
    return Signature(
        "train",
        ("N",),
        (Slot("x", "float64", ("N",)),),
        (Slot("W", "float64", ("N",)),),
        (Slot("old", "float64", ("N",)),),
        arena=("*", "N", 8),
        updated=(0,),
        structure=["dict", ["old", "*"]],
    )


def twice_signature() -> Signature:
    return Signature("twice", (), (Slot("x", "float32", ()),), (), (Slot("y", "float32", ()),))


def entries(cell: Cell | None = None) -> dict[str, CompiledEntry]:
    cell = cell or Cell("W", np.arange(3.0))
    ir = {"graph": "graphwright.graph v1\n", "loops": "π\n"}
    return {
        "train": CompiledEntry(train_signature(), image_of(ACCUMULATE), "accumulate", ir, [cell]),
        "again": CompiledEntry(train_signature(), image_of(ACCUMULATE), "accumulate", {}, [cell]),
        "twice": CompiledEntry(twice_signature(), image_of(TWICE), "twice"),
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.gwa"


def test_round_trip(path: Path) -> None:
    write_artifact(path, entries())
    model = load(path)
    assert sorted(model.entries) == ["again", "train", "twice"]
    assert model.twice(1.5) == 3.0
    np.testing.assert_array_equal(model.train(np.ones(3))["old"], [0, 1, 2])
    np.testing.assert_array_equal(model.variables["W"], [1, 2, 3])
    np.testing.assert_array_equal(model.again(np.ones(3))["old"], [1, 2, 3])  # they share the variable
    assert model.train.memory() == "N*8"
    assert model.train.memory(N=4) == 32
    assert model.ir("train", "loops") == "π\n"
    assert model.manifest["entries"]["train"]["ir"] == ["graph", "loops"]
    assert "twice" in dir(model)
    with pytest.raises(AttributeError, match="no entry point 'predict'; it has again, train, twice"):
        _ = model.predict
    with pytest.raises(KeyError):
        model.ir("train", "asm")


def test_variables(path: Path) -> None:
    a, b = Cell("a", np.ones(2)), Cell("b", np.array(7, np.int8))
    states = (Slot("a", "float64", (2,)), Slot("b", "int8", ()))
    s = Signature("twice", (), (Slot("x", "float32", ()),), states, (Slot("y", "float32", ()),))
    text = TWICE.replace("i64 1", "i64 3")  # the output follows two states
    write_artifact(path, {"f": CompiledEntry(s, image_of(text), "twice", {}, [a, b])})
    v = load(path).variables
    assert dict(v) == {"b": 7, "a": pytest.approx(np.ones(2))}
    assert len(v) == 2
    assert v["b"].dtype == np.int8
    v["a"][0] = 99  # a copy
    v.assign("a", [3, 4])
    v["b"] = 5
    with pytest.raises(UpdateError, match="'b'"):
        v.update({"a": [5, 6], "b": 1000})
    assert v["a"].tolist() == [3, 4]  # all or none
    with pytest.raises(UpdateError, match="no variable 'c'; there are"):
        v.assign("c", 1)
    with pytest.raises(KeyError):
        _ = v["c"]


def test_parallel_code_brings_the_pool(path: Path) -> None:
    s = Signature("squares", ("N",), (Slot("x", "int64", ("N",)),), (), (Slot("o", "int64", ("N",)),))
    twice = CompiledEntry(twice_signature(), image_of(TWICE), "twice")
    write_artifact(path, {"squares": CompiledEntry(s, with_pool(SQUARES), "squares"), "twice": twice})
    model = load(path)
    np.testing.assert_array_equal(model.squares(np.zeros(1000, np.int64)), np.arange(1000) ** 2)
    assert model.twice(2.0) == 4.0


def test_bytes_are_the_same_for_the_same_content(path: Path) -> None:
    write_artifact(path, entries())
    first = path.read_bytes()
    write_artifact(path, dict(reversed(list(entries().items()))))
    assert path.read_bytes() == first
    code = (
        f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r})\n"
        f"import test_artifact as t\nt.write_artifact({str(path)!r}, t.entries())"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONHASHSEED": "7"})
    assert path.read_bytes() == first


def test_any_zip_tool_reads_it(path: Path) -> None:
    write_artifact(path, entries())
    with zipfile.ZipFile(path) as z:
        assert z.testzip() is None
        assert z.namelist()[0] == "manifest.json"
        assert all(i.compress_type == zipfile.ZIP_STORED for i in z.infolist())
        manifest = json.loads(z.read("manifest.json"))
        assert (
            hashlib.sha256(z.read(f"code/{ARCH}-linux.bin")).hexdigest()
            == (manifest["members"][f"code/{ARCH}-linux.bin"]["sha256"])
        )
        weights = z.read("weights.safetensors")
    library = pytest.importorskip("safetensors.numpy")
    np.testing.assert_array_equal(library.load(weights)["W"], np.arange(3.0))


# --- writing ---------------------------------------------------------------------------------------


def test_a_failed_write_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_artifact(path, entries())
    whole = path.read_bytes()

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as m:
            m.setattr(os, name, refuse)
            with pytest.raises(ExportError, match="no space left"):
                write_artifact(path, entries(Cell("W", np.zeros(9))))
        assert path.read_bytes() == whole
        assert os.listdir(path.parent) == ["model.gwa"]
    for target in (path.parent / "no" / "m.gwa", path.parent):
        with pytest.raises(ExportError, match="could not be written"):
            write_artifact(target, entries())
    assert os.listdir(path.parent) == ["model.gwa"]


def test_a_link_is_followed(path: Path) -> None:
    link = path.with_name("link.gwa")
    link.symlink_to(path)
    write_artifact(link, entries())
    assert link.is_symlink()
    assert load(path).twice(1.0) == 2.0


def changed(e: CompiledEntry, **fields: Any) -> CompiledEntry:
    return CompiledEntry(**{**vars(e), **fields})


def test_what_cannot_be_exported(path: Path) -> None:
    good = entries()
    twice = good["twice"]
    for bad, message in (
        ({}, "at least one"),
        ({"a b": twice}, "cannot be the name"),
        ({"_x": twice}, "cannot be the name"),
        ({"π": twice}, "cannot be the name"),
        ({"gw_worker": twice}, "cannot be the name"),
        ({"variables": twice}, "every model has"),
        ({"ir": twice}, "every model has"),
        ({"f": changed(twice, symbol="nothing")}, "does not define 'nothing'"),
        ({"f": changed(good["train"], cells=[])}, "not the states"),
        ({"f": changed(twice, ir={"../../x": ""})}, "cannot be the name of a member"),
        ({"f": changed(twice, others=[twice.image])}, "the same targets, each once"),
        ({"f": changed(twice, image=Image(twice.image.code, twice.image.entries))}, "record its target"),
        (
            {**good, "other": changed(good["train"], cells=[Cell("W", np.ones(3))])},
            "two different variables have the name 'W'",
        ),
    ):
        with pytest.raises(ExportError, match=message):
            write_artifact(path, bad)
    assert not path.exists()
    with pytest.raises(ValueError, match="bytes"):
        list(container.headers([container.Member("a", 2**32 - 1, 0)]))


def test_code_for_several_machines(path: Path) -> None:
    image = image_of(TWICE)
    arm = Image(b"\0" * 64, image.entries, "riscv64-unknown-linux-gnu", ("f", "d"))
    better = Image(b"\xc3" + image.code, {"twice": 1}, TRIPLE, ("no-such-thing",))
    e = CompiledEntry(twice_signature(), arm, "twice", {}, (), (better, image))
    write_artifact(path, {"twice": e})
    assert set(load(path).manifest["targets"]) == {"riscv64-linux", f"{ARCH}-linux", f"{ARCH}-linux.2"}
    write_artifact(path, {"twice": changed(e, others=(better,))})
    with pytest.raises(
        ArtifactError, match="riscv64-unknown-linux-gnu.* needs the CPU features no-such-thing"
    ):
        load(path)


# --- damage ----------------------------------------------------------------------------------------


def small() -> bytes:
    return artifact_bytes(
        {
            "train": CompiledEntry(
                train_signature(), image_of(ACCUMULATE), "accumulate", {"graph": "g"}, [Cell("W", np.ones(2))]
            )
        },
        producer="test",
    )


def contents(path: Path) -> Any:
    model = load(path)
    return model.manifest, {k: v.tolist() for k, v in model.variables.items()}, model.ir("train", "graph")


def test_every_altered_byte_is_noticed(path: Path) -> None:
    whole = small()
    path.write_bytes(whole)
    original = contents(path)
    noticed = 0
    rng = random.Random(0)
    for i in range(len(whole)):
        for flip in (1 << rng.randrange(8), 0xFF):
            path.write_bytes(whole[:i] + bytes([whole[i] ^ flip]) + whole[i + 1 :])
            try:
                assert contents(path) == original
            except ArtifactError as e:
                assert str(path) in str(e)
                noticed += 1
    assert noticed == 2 * len(whole)


def test_truncated_and_extended_files(path: Path) -> None:
    whole = small()
    for data in (
        *(whole[:n] for n in range(0, len(whole), 7)),
        whole[1:],
        b"x" + whole,
        whole + b"x",
        whole + whole,
        whole + b"\0" * 22,
        b"PK\5\6" + b"\0" * 18,
        os.urandom(500),
    ):
        path.write_bytes(data)
        with pytest.raises(ArtifactError):
            load(path)
    with pytest.raises(FileNotFoundError):
        load(path.with_name("missing.gwa"))


def rebuilt(files: dict[str, bytes]) -> bytes:
    heads, tail = container.headers(container.Member.of(n, d) for n, d in files.items())
    return b"".join(p for (_, h), d in zip(heads, files.values(), strict=True) for p in (h, d)) + tail


def forged(change: Callable[[dict[str, Any], dict[str, bytes]], object], rehash: bool = True) -> bytes:
    """An artifact whose checksums and hashes are right, but whose content somebody changed."""
    files = {n: bytes(d) for n, d in container.read(small()).items()}
    manifest = json.loads(files.pop("manifest.json"))
    change(manifest, files)
    if rehash:
        manifest["members"] = {
            n: {"size": len(d), "sha256": hashlib.sha256(d).hexdigest()} for n, d in files.items()
        }
    return rebuilt({"manifest.json": canonical_json(manifest), **dict(sorted(files.items()))})


def put(*keys: Any) -> Callable[[dict[str, Any], dict[str, bytes]], None]:
    """Set ``manifest[k1][k2]... = value``."""
    *path, last, value = keys

    def change(manifest: dict[str, Any], _: dict[str, bytes]) -> None:
        for key in path:
            manifest = manifest[key]
        manifest[last] = value

    return change


SIGNATURE = ("entries", "train", "signature")
TARGET = ("targets", f"{ARCH}-linux")
WEIGHTS = "weights.safetensors"


@pytest.mark.parametrize(
    "change",
    [
        put("schema", 2),
        put("schema", True),
        put("format", "other"),
        put("more", 1),
        put("entries", []),
        put("entries", {}),
        put("targets", {}),
        put("entries", "train", {}),
        put("entries", "train", 5),
        put("entries", "train", "ir", 5),
        put("entries", "train", "ir", []),
        put("entries", "train", "ir", [["graph"]]),
        put("entries", "train", "memory", "N"),
        put("entries", "train", "signature", None),
        put(*SIGNATURE, "updated", [1]),
        put(*SIGNATURE, "symbols", ["M"]),
        put(*SIGNATURE, "symbols", [[]]),
        put(*SIGNATURE, "symbols", []),
        put(*SIGNATURE, "inputs", None),
        put(*SIGNATURE, "inputs", [5]),
        put(*SIGNATURE, "arena", ["**", 10, 99]),
        put(*SIGNATURE, "arena", [[], 1]),
        put(*SIGNATURE, "structure", [[]]),
        put(*SIGNATURE, "states", [{"name": "V", "dtype": "float64", "shape": ["N"]}]),
        put(*SIGNATURE, "states", [{"name": "W", "dtype": "float32", "shape": ["N"]}]),
        put(*SIGNATURE, "states", [{"name": "W", "dtype": "float64", "shape": [3]}]),
        put(*SIGNATURE, "states", [{"name": "W", "dtype": [], "shape": [2]}]),
        put(*TARGET, "triple", "wasm32-unknown-unknown"),
        put(*TARGET, "triple", 5),
        put(*TARGET, "features", ["no-such-thing"]),
        put(*TARGET, "features", [5]),
        put(*TARGET, "entries", {"train": 10**6}),
        put(*TARGET, "entries", {"train": -1}),
        put(*TARGET, "entries", {"train": 0.5}),
        put(*TARGET, "entries", {}),
        put(*TARGET, "entries", {"train": 0, "more": 0}),
        put("targets", f"{ARCH}-linux", None),
        lambda m, f: f.update({"extra.txt": b""}),
        lambda m, f: f.pop("ir/train/graph.gwir"),
        lambda m, f: f.pop(WEIGHTS),
        lambda m, f: f.update({WEIGHTS: b""}),
        lambda m, f: f.update({WEIGHTS: struct.pack("<Q", 2) + b"{}"}),
        lambda m, f: f.update({WEIGHTS: struct.pack("<Q", 2**63) + b"{}"}),
    ],
)
def test_forged_content_is_refused(path: Path, change: Any) -> None:
    path.write_bytes(forged(change))
    with pytest.raises(ArtifactError, match="model.gwa: "):
        load(path)


def test_forgery_itself_is_sound(path: Path) -> None:
    path.write_bytes(forged(lambda m, f: None))
    assert path.read_bytes() == small()
    assert contents(path)[2] == "g"
    for change in (lambda m, f: f.update({"ir/train/graph.gwir": b"h"}), put("members", {})):
        path.write_bytes(forged(change, rehash=False))
        with pytest.raises(ArtifactError, match="damaged|other members"):
            load(path)


def test_unusual_manifests(path: Path) -> None:
    files = {n: bytes(d) for n, d in container.read(small()).items()}
    text = files["manifest.json"]
    for manifest in (
        b"",
        b"[]",
        b"null",
        b"{" + text[1:].replace(b":", b": ", 1),
        text.replace(b'"schema":1', b'"schema":1,"schema":1'),
        text.replace(b'"schema":1', b'"schema":1.0'),
        text.replace(b'"schema":1', b'"schema":NaN'),
        text.replace(b'"schema":1', b'"schema":' + b"9" * 5000),
        b"[" * 100000,
        b"\xff\xfe",
    ):
        path.write_bytes(rebuilt({**files, "manifest.json": manifest}))
        with pytest.raises(ArtifactError):
            load(path)
    reordered = dict(reversed(list(files.items())))
    path.write_bytes(rebuilt(reordered))
    with pytest.raises(ArtifactError, match="first member"):
        load(path)


def test_zips_of_other_tools(path: Path) -> None:
    files = {n: bytes(d) for n, d in container.read(small()).items()}
    for names, method, comment in (
        (list(files), zipfile.ZIP_DEFLATED, b""),
        (list(files), zipfile.ZIP_STORED, b"comment"),
        ([*files, "manifest.json"], zipfile.ZIP_STORED, b""),
        ([*files, "../escape"], zipfile.ZIP_STORED, b""),
        ([*files, "/etc/passwd"], zipfile.ZIP_STORED, b""),
        ([*files, "folder/"], zipfile.ZIP_STORED, b""),
    ):
        memory = io.BytesIO()
        with warnings.catch_warnings(), zipfile.ZipFile(memory, "w", method) as z:
            warnings.simplefilter("ignore")  # of duplicate names
            for name in names:
                z.writestr(zipfile.ZipInfo(name), files.get(name, b""), method)
            z.comment = comment
        path.write_bytes(memory.getvalue())
        with pytest.raises(ArtifactError):
            load(path)


# --- safetensors -----------------------------------------------------------------------------------


def test_safetensors_round_trip() -> None:
    rng = np.random.default_rng(0)
    tensors = {
        d: (rng.random((2, 3)) * 100).astype(d)
        for d in (
            "bool",
            "int8",
            "int16",
            "int32",
            "int64",
            "uint8",
            "uint16",
            "uint32",
            "uint64",
            "float32",
            "float64",
        )
    }
    tensors |= {
        "scalar": np.array(2.5),
        "empty": np.ones((0, 4)),
        "π": np.ones(1, ">f4"),
        "t": np.ones((3, 2)).T,
    }
    data = safetensors.encode(tensors)
    assert data == safetensors.encode(dict(reversed(list(tensors.items()))))
    for decode in (safetensors.decode, pytest.importorskip("safetensors.numpy").load):
        found = decode(data)
        assert set(found) == set(tensors)
        for name, array in tensors.items():
            np.testing.assert_array_equal(
                found[name], array.astype(array.dtype.newbyteorder("=")), strict=True
            )
    other = pytest.importorskip("safetensors.numpy").save({"a": np.arange(5.0)}, {"made": "elsewhere"})
    assert safetensors.decode(other)["a"].tolist() == [0, 1, 2, 3, 4]
    for bad in ({"x": np.ones(2, complex)}, {"__metadata__": np.ones(2)}):
        with pytest.raises(ValueError, match="cannot be stored"):
            safetensors.encode(bad)


def with_header(text: bytes | dict[str, Any], data: bytes = bytes(8)) -> bytes:
    head = text if isinstance(text, bytes) else json.dumps(text).encode()
    return struct.pack("<Q", len(head)) + head + data


def entry(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F64", "shape": [1], "data_offsets": [0, 8], **changes}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(8),
        struct.pack("<Q", 10**9) + b"{}",
        with_header(b"[]", b""),
        with_header(b" {}", b""),
        with_header(b"{}"),
        with_header(b"\xff", b""),
        with_header(b'{"a":' * 100000, b""),
        with_header({"a": 1}),
        with_header({"a": entry(dtype="F16")}),
        with_header({"a": entry(dtype=[])}),
        with_header({"a": entry(shape=[2])}),
        with_header({"a": entry(shape=[-1])}),
        with_header({"a": entry(shape=[True])}),
        with_header({"a": entry(shape=[1.0])}),
        with_header({"a": entry(shape=[2**62, 4])}),
        with_header({"a": entry(shape=[2**62, 2**62, 0], data_offsets=[0, 0])}, b""),
        with_header({"a": entry(shape=[1] * 65)}),
        with_header({"a": entry(data_offsets=[0, 9])}),
        with_header({"a": entry(data_offsets=[8, 0])}),
        with_header({"a": entry(data_offsets=[0])}),
        with_header({"a": entry(data_offsets=[8, 16])}),
        with_header({"a": entry(more=1)}),
        with_header({"a": entry(), "b": entry()}),
        with_header(b'{"a":' + json.dumps(entry()).encode() + b',"a":' + json.dumps(entry()).encode() + b"}"),
        with_header({"a": entry(), "__metadata__": {"x": 1}}),
        with_header({"a": entry(), "__metadata__": 5}),
    ],
)
def test_malformed_safetensors(data: bytes) -> None:
    with pytest.raises(ArtifactError, match="safetensors"):
        safetensors.decode(data)


def test_version_of_the_producer() -> None:
    assert export._version().startswith("graphwright ")
