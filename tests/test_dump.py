"""Dumps: what each pass did, as files, diffs and reports; and that none of it is loaded unless asked for."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import graphwright as gw
from graphwright.compiler import dump as dumps
from graphwright.compiler.dump import Recorder, Step, changes, write_dump
from graphwright.errors import CompileError, GraphError
from graphwright.ir.parser import parse_graph, parse_program
from graphwright.passes import pipelines
from graphwright.passes.manager import Pass, Pipeline
from graphwright.passes.pipelines import GRAPH

FIRST = [*(p.name for p in GRAPH.until("dce")), "pack-loops", "prepare", "fuse"]
NAMES = [*FIRST, "lower-to-program", "schedule", "expand-math", "plan-memory"]
LAST = ["llvm-emitted.ll", "llvm.ll", "asm.s"]


def layer(name="layer", **options):
    x = gw.placeholder("x", "float32", ("N", 8))
    W = gw.Variable(np.ones((8, 4), np.float32), name="W")
    loss = gw.sum(gw.tanh(x @ W * 1.0))
    return gw.function([x], loss, updates={W: W - 0.5 * gw.grad(loss, W)}, name=name, **options)


@pytest.fixture(autouse=True)
def fresh_folders(monkeypatch):
    monkeypatch.setattr(dumps, "_taken", {})


def test_passes_tell_time_rules_and_sizes():
    f = layer()
    reports = f.passes()
    assert [r.name for r in reports] == NAMES
    assert all(r.seconds >= 0 for r in reports)
    fired = {rule: count for r in reports for rule, count in r.fired.fired.items()}
    assert fired["x * 1 -> x"] == 2  # forward and backward
    assert reports[0].changed and reports[0].after < reports[0].before
    table = str(reports).splitlines()
    assert table[0].split() == ["pass", "ms", "nodes"] and table[-1].startswith("total")
    assert any("x * 1 -> x" in line for line in table)
    assert [r.seconds for r in f.passes()] == [r.seconds for r in reports]  # they ran once


def test_diff_shows_what_one_pass_changed():
    f = layer()
    diff = f.diff("canonicalize").splitlines()
    assert diff[:2] == ["--- input", "+++ canonicalize"]
    removed = [line for line in diff[2:] if line.startswith("-")]
    assert any(" mul " in line and "1.0" in line for line in removed)
    assert f.diff("dce") == ""
    assert "+  %" in f.diff("fuse") and "fusion" in f.diff("fuse")
    assert "vector" in f.diff("schedule")
    with pytest.raises(CompileError, match="no pass 'fold-constants'; the passes are canonicalize, inline-calls"):
        f.diff("fold-constants")


def test_values_that_stay_keep_their_numbers():
    before = Step("a", str(parse_graph(GRAPH_TEXT)))
    after = Step("b", before.text.replace("  %0 = mul %x, 1.0 : f32[3]\n", "").replace("exp %0", "exp %x")
                 .replace("%1", "%0").replace("%2", "%1").replace("%3", "%2"))
    parse_graph(after.text)
    assert changes(before, after).splitlines() == [
        "--- a", "+++ b", "@@ -1,6 +1,5 @@", " graphwright.graph v1", " func @f(%x: f32[3]) -> (f32[3]) {",
        "-  %0 = mul %x, 1.0 : f32[3]", "-  %1 = exp %0 : f32[3]", "+  %1 = exp %x : f32[3]",
        f'   {"%2 = sub %1, 2.0 : f32[3]":<58}  loc("a.py":1)', "   %3 = tanh %2 : f32[3]",
    ]


GRAPH_TEXT = """\
graphwright.graph v1
func @f(%x: f32[3]) -> (f32[3]) {
  %0 = mul %x, 1.0 : f32[3]
  %1 = exp %0 : f32[3]
  %2 = sub %1, 2.0 : f32[3]                                 loc("a.py":1)
  %3 = tanh %2 : f32[3]
  return %3
}
"""


def test_renumbered_texts_mean_the_same():
    recorder = layer().compiled.lowered.recording
    for before, after in zip(recorder.steps[: len(FIRST)], recorder.steps[1:]):
        again = parse_graph(dumps._renumbered(before.text, after.text))
        assert str(again) == str(parse_graph(after.text))


def test_the_documented_difference():
    text = (Path(__file__).parent.parent / "docs" / "dumps.md").read_text()
    code, shown = (re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)[1] for language in ("python", "diff"))
    namespace = {}
    exec(compile(code, "layer.py", "exec"), namespace)
    assert namespace["layer"].diff("stabilize") == shown


def test_files(tmp_path):
    layer(dump=tmp_path)
    folder = tmp_path / "layer"
    texts = sorted(p.name for p in folder.iterdir() if p.suffix != ".diff")
    expected = [f"{k:02}-{name}.gwir" for k, name in enumerate(["input", *NAMES])]
    assert texts == [*expected, *(f"{len(NAMES) + k:02}-{name}" for k, name in enumerate(LAST, 1)), "index.md"]
    for name in expected:
        text = (folder / name).read_text()
        parsed = (parse_graph if text.startswith("graphwright.graph") else parse_program)(text)
        assert str(parsed) == text
    index = (folder / "index.md").read_text()
    assert all((folder / target).exists() for target in re.findall(r"\]\((.*?)\)", index))
    assert all(name in index for name in texts[:-1])
    assert "2 × `x * 1 -> x`" in index
    assert "fusion" in (folder / f"{len(FIRST):02}-fuse.diff").read_text()


def test_the_environment_asks_for_dumps_too(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHWRIGHT_DUMP", str(tmp_path / "made"))
    layer("one")
    layer("two")
    layer("two")
    assert sorted(p.name for p in (tmp_path / "made").iterdir()) == ["one", "two", "two.2"]


def test_an_earlier_dump_is_replaced_and_nothing_else(tmp_path):
    folder = tmp_path / "layer"
    folder.mkdir()
    (folder / "40-old.gwir").write_text("old")
    (folder / "notes.txt").write_text("mine")
    layer(dump=str(tmp_path))
    assert not (folder / "40-old.gwir").exists()
    assert (folder / "notes.txt").read_text() == "mine"


def test_dumps_are_the_same_each_time(tmp_path):
    lowered = layer().compiled.lowered
    first, second = (write_dump(lowered, tmp_path) for _ in range(2))
    for path in first.iterdir():
        if path.name != "index.md":  # which has times
            assert path.read_text() == (second / path.name).read_text()


def test_what_was_made_before_a_failure_is_there(tmp_path, monkeypatch):
    def broken(kernel):
        raise ValueError("no schedule")

    def pipeline(cpu, measured=None):
        return Pipeline([Pass("schedule", broken)])

    monkeypatch.setattr(pipelines, "cpu_kernel_pipeline", pipeline)
    with pytest.raises(CompileError, match="pass 'schedule' failed: ValueError: no schedule"):
        layer(dump=tmp_path)
    files = sorted(p.name for p in (tmp_path / "layer").glob("*.gwir"))
    assert files[-2:] == [f"{len(FIRST):02}-fuse.gwir", f"{len(FIRST) + 1:02}-last-kernel.gwir"]
    assert "ValueError: no schedule" in (tmp_path / "layer" / "index.md").read_text()


def test_without_optimization_there_are_fewer_passes():
    assert [r.name for r in layer(optimize=False).passes()] == ["isolate", *NAMES[len(FIRST) :]]


def test_the_interpreter_has_no_passes():
    f = layer(target="interpreter")
    for ask in (f.passes, f.provenance, lambda: f.diff("fuse")):
        with pytest.raises(GraphError, match="interpreted"):
            ask()


def test_recording_leaves_the_function_alone():
    f = layer()
    before = f.ir("program")
    assert isinstance(f.compiled.lowered.recording, Recorder)
    assert f.ir("program") == before
    assert f.compiled.lowered.recorder is None


def test_nothing_is_loaded_unless_asked_for():
    code = (
        "import sys, numpy as np, graphwright as gw\n"
        "x = gw.placeholder('x', 'float32', ('N',))\n"
        "gw.function([x], gw.exp(x))(np.ones(3, np.float32))\n"
        "assert 'graphwright.compiler.dump' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
