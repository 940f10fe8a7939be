"""The cache on disk: whole entries or none, whatever happens to files and processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from graphwright.compiler.cache import Cache, cache_key, default_directory


def files(directory: Path) -> list[Path]:
    return sorted(p for p in directory.rglob("*") if p.is_file())


def test_keys() -> None:
    keys = {cache_key("ab", "c"), cache_key("a", "bc"), cache_key("abc"), cache_key(b"ab", "c"), cache_key()}
    assert len(keys) == 5
    assert cache_key("ab", b"c") == cache_key("ab", b"c")
    assert all(len(k) == 64 for k in keys)


def test_default_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRAPHWRIGHT_CACHE_DIR", str(tmp_path / "x"))
    assert default_directory() == tmp_path / "x"
    assert Cache().directory == tmp_path / "x"
    monkeypatch.delenv("GRAPHWRIGHT_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_directory() == tmp_path / "graphwright"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_directory() == Path.home() / ".cache" / "graphwright"


def test_round_trip_info_and_clear(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c")
    keys = [cache_key(str(i)) for i in range(20)]
    assert cache.get(keys[0]) is None
    for i, key in enumerate(keys):
        assert cache.put(key, bytes([i]) * i)
    assert [cache.get(k) for k in keys] == [bytes([i]) * i for i in range(20)]
    info = Cache(tmp_path / "c").info()
    assert (info.entries, info.nbytes) == (20, sum(range(20)) + 20 * 80)
    assert (cache.info().hits, cache.info().misses) == (20, 1)
    assert not [p for p in files(tmp_path) if p.suffix]
    assert os.stat(files(tmp_path)[0]).st_mode & 0o077 == 0
    cache.clear()
    assert files(tmp_path) == []
    assert cache.get(keys[3]) is None
    for bad in ("x", "../" + "a" * 61, "A" * 64):
        with pytest.raises(ValueError, match="not a key"):
            cache.get(bad)


def test_damaged_entries_are_discarded(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    key = cache_key("k")
    payload = b"machine code"
    cache.put(key, payload)
    path = files(tmp_path)[0]
    whole = path.read_bytes()
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
        assert cache.get(key) is None
        assert not path.exists()
    for damaged in (b"", whole[:-1], whole + b"x", whole[:40]):
        path.write_bytes(damaged)
        assert cache.get(key) is None
    cache.put(cache_key("other"), b"other code")
    other = files(tmp_path)[0]
    path.write_bytes(other.read_bytes())  # a whole entry, but of another key
    assert cache.get(key) is None
    path.write_bytes(whole)
    path.chmod(0o600)
    assert cache.get(key) == payload


def test_entries_that_others_can_write_are_not_believed(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    key = cache_key("k")
    cache.put(key, b"code")
    files(tmp_path)[0].chmod(0o666)
    assert cache.get(key) is None
    cache.put(key, b"code")
    assert cache.get(key) == b"code"


def test_least_recently_used_are_evicted(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit=20000)
    keys = [cache_key(str(i)) for i in range(40)]
    past = time.time() - 10**6
    for i, key in enumerate(keys[:18]):
        assert cache.put(key, bytes(920))
        path = tmp_path / key[:2] / key[2:]
        os.utime(path, (past + i, past + i))
    assert cache.get(keys[0]) is not None  # now the most recently used
    stale = tmp_path / keys[1][:2] / "0123.tmp"
    stale.write_bytes(bytes(10))
    os.utime(stale, (past, past))
    for key in keys[18:24]:
        cache.put(key, bytes(920))
    held = [Cache(tmp_path).get(k) is not None for k in keys[:24]]
    assert cache.info().nbytes <= 20000
    assert held[0]
    assert not any(held[1:4])
    assert all(held[18:])
    assert not stale.exists()
    assert not cache.put(keys[30], bytes(30000))  # larger than all


def test_without_a_usable_directory(tmp_path: Path) -> None:
    obstacle = tmp_path / "file"
    obstacle.write_text("no folder")
    cache = Cache(obstacle / "c")
    key = cache_key("k")
    assert cache.put(key, b"x") is False
    assert cache.get(key) is None
    assert cache.info().entries == 0
    cache.clear()
    assert obstacle.read_text() == "no folder"


def test_folder_in_place_of_an_entry(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    key = cache_key("k")
    (tmp_path / key[:2] / key[2:] / "x").mkdir(parents=True)
    assert cache.get(key) is None
    assert cache.put(key, b"x") is False
    assert cache.info().entries == 0
    assert files(tmp_path) == []


MANY = """
import random, sys
from graphwright.compiler.cache import Cache, cache_key
cache = Cache(sys.argv[1], limit=60000)
rng = random.Random(int(sys.argv[2]))
print("ready", flush=True)
for step in range(int(sys.argv[3])):
    i = rng.randrange(30)
    key, payload = cache_key(str(i)), bytes([i]) * (100 * i)
    if rng.random() < 0.5:
        cache.put(key, payload)
    found = cache.get(key)
    assert found is None or found == payload
    if rng.random() < 0.01:
        cache.clear()
"""


def test_many_processes_at_once(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", MANY, str(tmp_path), str(i), "400"], stdout=subprocess.PIPE)
        for i in range(4)
    ]
    assert [p.wait(60) for p in processes] == [0] * 4
    for p in processes:
        assert p.stdout is not None
        p.stdout.close()
    cache = Cache(tmp_path, limit=60000)
    for i in range(30):
        assert cache.get(cache_key(str(i))) in (None, bytes([i]) * (100 * i))
    assert not [p for p in files(tmp_path) if p.suffix == ".tmp"]


def test_a_process_killed_while_writing(tmp_path: Path) -> None:
    for delay in (0.0, 0.005, 0.01, 0.02):
        with subprocess.Popen(
            [sys.executable, "-c", MANY, str(tmp_path), "1", "1000000"], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
    cache = Cache(tmp_path, limit=60000)
    for i in range(30):
        key, payload = cache_key(str(i)), bytes([i]) * (100 * i)
        assert cache.get(key) in (None, payload)
        assert cache.put(key, payload)
        assert cache.get(key) == payload


def test_a_write_cut_short_leaves_no_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path)
    key = cache_key("k")
    cache.put(key, b"old")

    def refuse(*_: object) -> None:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    assert cache.put(key, b"new") is False
    monkeypatch.undo()
    assert cache.get(key) == b"old"
    assert len(files(tmp_path)) == 1
