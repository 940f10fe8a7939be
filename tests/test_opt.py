"""`graphwright opt` and `graphwright run FILE.gwir`: passes over texts, and texts that are executed.

``tests/filecheck/opt/*.gwir`` have ``RUN`` lines, whose output PyPI's filecheck compares with the ``CHECK`` lines.
"""

from __future__ import annotations

import io
import shlex
from pathlib import Path

import numpy as np
import pytest
from filecheck.matcher import Matcher
from filecheck.options import parse_argv_options

from graphwright.errors import GraphError
from graphwright.frontends import cli
from graphwright.frontends.replay import difference
from graphwright.ir.parser import parse_graph, parse_kernel, parse_program
from graphwright.ir.verify_program import verify_program
from graphwright.passes import registry
from graphwright.passes.cse import cse
from graphwright.passes.fuse import fuse
from graphwright.passes.inline import inline
from graphwright.passes.pipelines import GRAPH, PLAIN

FOLDER = Path(__file__).parent
CHECKED = sorted(FOLDER.glob("filecheck/opt/*.gwir"))
GRAPHS = sorted(FOLDER.glob("lowering/*.gwir"))

TEXT = """\
// a comment
graphwright.graph v1
func @f(%x: f32[N, 3], %k: i64[N]) state(%w: f32[3]) -> (f32[N, 3], i64[N]) {
  %0 = full {value = 2.0} : f32[3]
  %1 = mul %0, 0.5 : f32[3]
  %2 = mul %w, %1 : f32[3]
  %3 = broadcast %2 {dims = (1)} : f32[N, 3]
  %4 = exp %x : f32[N, 3]
  %5 = mul %4, %3 : f32[N, 3]
  %6 = add %k, %k : i64[N]
  %7 = sum %5 {axes = (0)} : f32[3]
  update %w = %7
  return %5, %6
}
"""


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "f.gwir"
    file.write_text(TEXT)
    return str(file)


def run(capsys, *arguments):
    assert cli.main([str(a) for a in arguments]) == 0
    return capsys.readouterr()


def refused(capsys, *arguments):
    assert cli.main([str(a) for a in arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("graphwright: error: ") and len(err.splitlines()) == 1
    return err


# --- texts with expectations ---------------------------------------------------------------------


@pytest.mark.parametrize("file", CHECKED, ids=lambda p: p.stem)
def test_filecheck(file, capsys, monkeypatch):
    commands = [line.split("RUN:")[1] for line in file.read_text().splitlines() if line.startswith("// RUN:")]
    assert commands
    for command in commands:
        tool, check = (shlex.split(part.replace("%s", shlex.quote(str(file)))) for part in command.split("|"))
        assert tool[0] == "graphwright" and check[0] == "filecheck"
        monkeypatch.setattr("sys.stdin", io.StringIO(run(capsys, *tool[1:]).out))
        assert Matcher.from_opts(parse_argv_options(check)).run() == 0, capsys.readouterr()


def test_filecheck_can_fail(capsys, monkeypatch):
    file = FOLDER / "filecheck" / "opt" / "fuse.gwir"
    monkeypatch.setattr("sys.stdin", io.StringIO(run(capsys, "opt", file, "--split").out))
    assert Matcher.from_opts(parse_argv_options(["filecheck", str(file)])).run() != 0


# --- opt -----------------------------------------------------------------------------------------


def test_passes_run_in_order(path, capsys):
    out = run(capsys, "opt", path, "--passes=fold, cse,fuse", "--verify-each").out
    graph = parse_graph(TEXT)
    folded = next(p for p in GRAPH if p.name == "fold").run(graph)
    assert out == str(fuse(cse(folded)))
    assert run(capsys, "opt", path).out == str(graph)  # a text without passes is printed as it is


def test_print_after(path, capsys):
    all_ = run(capsys, "opt", path, "--passes=fold,dce", "--print-after=all").out
    assert [line for line in all_.splitlines() if line.startswith("//")] == ["// after fold", "// after dce"]
    assert all_.count("graphwright.graph v1") == 3
    one = run(capsys, "opt", path, "--passes=fold,dce", "--print-after=dce").out
    assert one.count("graphwright.graph v1") == 2
    assert "none of the passes" in refused(capsys, "opt", path, "--passes=fold", "--print-after=dce")


def test_times_and_rules_go_to_standard_error(path, capsys):
    out, err = run(capsys, "opt", path, "--passes=optimize", "--time-passes")
    assert parse_graph(out).name == "f"
    assert [line.split()[0] for line in err.splitlines() if line[:1].isalpha()] == [
        "pass", *(p.name for p in GRAPH), "total",
    ]


def test_all_forms_are_read(path, capsys, tmp_path):
    program = tmp_path / "program.gwir"
    program.write_text(run(capsys, "opt", path, "--passes=optimize,lower-to-program").out)
    lowered = parse_program(run(capsys, "opt", program, "--passes=schedule,expand-math,plan-memory").out)
    verify_program(lowered, {"N": 5})
    assert str(lowered) == run(capsys, "opt", path, "--passes=optimize,lower").out.rstrip() + "\n"
    kernel = tmp_path / "kernel.gwir"
    kernel.write_text("\n".join(["graphwright.loops v1", *program.read_text().split("\n\n")[1].splitlines()]) + "\n")
    assert "vector(8)" in str(parse_kernel(run(capsys, "opt", kernel, "--passes=schedule").out))


def test_standard_input(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(TEXT))
    assert "full" not in run(capsys, "opt", "--passes=fold").out


def test_every_pass_is_listed(capsys):
    out = run(capsys, "opt", "--list-passes").out
    named = {line.split()[0] for line in out.splitlines()}
    assert named == set(registry.names()) > {p.name for p in (*GRAPH, *PLAIN)}
    assert all(len(line.split()) > 2 for line in out.splitlines())


def test_mistakes(path, capsys, tmp_path):
    assert "no pass 'folt'; there are canonicalize" in refused(capsys, "opt", path, "--passes=folt")
    assert "takes a loops text" in refused(capsys, "opt", path, "--passes=schedule")
    (tmp_path / "empty.gwir").write_text("// nothing\n")
    assert "does not begin with" in refused(capsys, "opt", tmp_path / "empty.gwir")
    (tmp_path / "bad.gwir").write_text(TEXT.replace("add %k", "ad %k"))
    assert "line 10, column 8" in refused(capsys, "opt", tmp_path / "bad.gwir", "--passes=fold")
    with pytest.raises(GraphError, match="takes a graph text"):
        registry.pipeline(["plan-memory", "fuse"], "program")


@pytest.mark.parametrize("file", GRAPHS, ids=lambda p: p.stem)
def test_inline_undoes_fusion(file):
    graph = parse_graph(file.read_text())
    assert inline(fuse(graph)).roots == graph.roots
    assert inline(graph) is graph


# --- run -----------------------------------------------------------------------------------------


def test_run_compares_and_prints(path, capsys, tmp_path):
    out = run(capsys, "run", path, "--dims", "N=7", "--seed", "3", "--output", tmp_path / "out.npz").out
    assert [line.split(",")[0] for line in out.splitlines()] == [
        "input  x: float32[7", "input  k: int64[7]",
        "output out.0: float32[7", "output out.1: int64[7]; equal", "output w: float32[3]",
    ]
    results = np.load(tmp_path / "out.npz")
    np.testing.assert_allclose(results["out.0"].sum(0), results["w"], rtol=1e-5)
    assert run(capsys, "run", path, "--dims", "N=7", "--seed", "3").out == out


def test_run_takes_given_inputs(path, capsys, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((4, 3)))
    np.save(tmp_path / "w.npy", np.arange(3))
    run(capsys, "run", path, "--input", f"x={tmp_path / 'x.npy'}", "--input", f"w={tmp_path / 'w.npy'}",
        "--output", tmp_path / "out.npz")
    np.testing.assert_array_equal(np.load(tmp_path / "out.npz")["w"], [0, 4, 8])
    assert "have N = 4" in refused(capsys, "run", path, "--input", f"x={tmp_path / 'x.npy'}", "--dims", "N=5")
    assert "no input or state 'y'" in refused(capsys, "run", path, "--input", "y=1")
    assert "no dimension 'M'" in refused(capsys, "run", path, "--dims", "M=1")
    assert "only artifacts have entry points" in refused(capsys, "run", path, "f")


def test_run_takes_fused_texts(path, capsys, tmp_path):
    fused = tmp_path / "fused.gwir"
    fused.write_text(run(capsys, "opt", path, "--passes=optimize").out)
    assert "fusion" in fused.read_text()
    assert "output w: float32[3]" in run(capsys, "run", fused).out


def test_run_fails_if_compiled_code_differs(path, capsys, monkeypatch):
    from graphwright.frontends import replay

    def wrong(graph, *args):
        outputs, states = interpret(graph, *args)
        return [outputs[0] * np.float32(1.01), *outputs[1:]], states

    interpret = replay.interpret
    monkeypatch.setattr(replay, "interpret", wrong)
    assert cli.main(["run", path]) == 2
    assert "differ in out.0" in capsys.readouterr().err


def test_difference():
    x = np.array([1.0, np.nan, np.inf], np.float32)
    assert difference(x, x) == 0
    assert difference(np.array([1.0, np.nan, -np.inf], np.float32), x) == np.inf
    assert difference(np.array([np.nan, np.nan, np.inf], np.float32), x) == np.inf
    assert difference(np.array([1.5, np.nan, np.inf], np.float32), x) == 0.5
    assert difference(x.astype(np.float64), x) == np.inf
    assert difference(np.array([1]), np.array([2])) == np.inf
    assert difference(np.array([]), np.array([])) == 0
