"""The command line, from what it prints to what it says of mistakes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import graphwright as gw
from graphwright.compiler import driver
from graphwright.frontends import cli, demo
from graphwright.ir.parser import parse_graph, parse_kernel, parse_program

SCRIPT = """\
import sys
import numpy as np, graphwright as gw
print("arguments", sys.argv[1:])
x = gw.placeholder("x", "float32", ("N", 4))
W = gw.Variable(np.ones((4, 2), np.float32), name="W")
first = gw.function([x], gw.tanh(x @ W), name="first")
second = gw.function([x], gw.sum(x), name="second")
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return str(path)


@pytest.fixture
def model(tmp_path):
    x = gw.placeholder("x", "float32", ("N", 3))
    scale = gw.placeholder("scale", "float32", ())
    total = gw.Variable(np.zeros((), np.float32), name="total")
    f = gw.function([x, scale], x * scale, updates={total: total + gw.sum(x)}, name="f")
    g = gw.function([x], {"rows": gw.sum(x, axis=1), "all": [gw.sum(x), gw.max(x)]}, name="g")
    gw.export(tmp_path / "model.gwa", {"f": f, "g": g})
    return str(tmp_path / "model.gwa")


@pytest.fixture
def array(tmp_path):
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.save(tmp_path / "x.npy", x)
    return x, str(tmp_path / "x.npy")


def refused(capsys, *arguments):
    """The one line that is printed on an error."""
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("graphwright: error: ")
    assert len(err.splitlines()) == 1
    return err


# --- ir ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", driver.STAGES)
def test_ir_of_a_script(stage, script, capsys):
    assert cli.main(["ir", script, "--stage", stage, "--function", "first"]) == 0
    out, err = capsys.readouterr()
    assert "arguments []" in err  # the script's own output does not mix with the IR
    if stage in ("graph", "optimized"):
        assert parse_graph(out).name == "first"
    elif stage == "program":
        assert parse_program(out).name == "first"
    elif stage == "loops":
        assert [p.name for p in parse_kernel(out).inputs] == ["in0", "in1"]
    else:
        assert "first" in out


def test_ir_of_all_functions_of_a_script_with_arguments(script, capsys):
    assert cli.main(["ir", script, "--stage", "graph", "--", "-v", "3"]) == 0
    out, err = capsys.readouterr()
    assert "@first(" in out
    assert "@second(" in out
    assert "arguments ['-v', '3']" in err


def test_ir_of_an_artifact_is_that_of_the_function(model, capsys):
    assert cli.main(["ir", model, "--stage", "graph", "--function", "g"]) == 0
    out, _ = capsys.readouterr()
    assert out == gw.load(model).ir("g", "graph")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("1 / 0", "script.py:1: ZeroDivisionError"),
        ("x = (", "script.py:1: SyntaxError"),
        ("import sys; sys.exit(3)", "exited with 3"),
        ("x = 1", "makes no function"),
        ("import graphwright as gw\ngw.placeholder('x', 'float31')", "script.py:2: DTypeError"),
    ],
)
def test_ir_of_a_script_that_fails(source, message, tmp_path, capsys):
    path = tmp_path / "script.py"
    path.write_text(source)
    before = sys.argv, list(sys.path)
    assert message in refused(capsys, "ir", str(path))
    assert before == (sys.argv, sys.path)


def test_ir_of_what_is_not_there(script, model, capsys):
    assert cli.main(["ir", script, "--function", "third"]) == 2
    assert "no function 'third'; it has first, second" in capsys.readouterr().err
    assert "no function 'third'; it has f, g" in refused(capsys, "ir", model, "--function", "third")
    assert "only at the stages graph, optimized, program, loops" in refused(capsys, "ir", model, "--stage", "asm")
    assert cli.main(["ir", script, "--stage", "moon"]) == 2
    assert "there is no stage 'moon'; the stages are graph, optimized" in capsys.readouterr().err
    assert "no-such.py" in refused(capsys, "ir", "no-such.py")


# --- run -----------------------------------------------------------------------------------------


def test_run_writes_one_result(model, array, tmp_path, capsys):
    x, path = array
    out = str(tmp_path / "out.npy")
    assert cli.main(["run", model, "f", "--input", f"x={path}", "--input", "scale=2.5", "--output", out]) == 0
    np.testing.assert_array_equal(np.load(out), x * np.float32(2.5))


def test_run_writes_nested_results_by_their_path(model, array, tmp_path):
    x, path = array
    out = str(tmp_path / "out.npz")
    assert cli.main(["run", model, "g", "--input", f"x={path}", "--output", out]) == 0
    results = np.load(out)
    assert sorted(results) == ["all.0", "all.1", "rows"]
    np.testing.assert_array_equal(results["rows"], x.sum(axis=1))
    assert results["all.1"] == x.max()


def test_run_prints_results(model, array, capsys):
    assert cli.main(["run", model, "g", "--input", f"x={array[1]}"]) == 0
    assert "rows: float32[2]\n[ 3. 12.]" in capsys.readouterr().out


def test_run_refuses_what_does_not_fit(model, array, tmp_path, capsys):
    _, path = array
    assert "no entry point 'h'; it has f, g" in refused(capsys, "run", model, "h")
    assert "scale" in refused(capsys, "run", model, "f", "--input", f"x={path}")
    assert "no input 'z'" in refused(capsys, "run", model, "g", "--input", f"z={path}")
    assert "NAME=FILE.npy" in refused(capsys, "run", model, "g", "--input", path)
    assert "none.npy" in refused(capsys, "run", model, "g", "--input", "x=none.npy")
    assert ".npz" in refused(capsys, "run", model, "g", "--input", f"x={path}", "--output", str(tmp_path / "o.npy"))
    assert ".npy or .npz" in refused(capsys, "run", model, "g", "--input", f"x={path}", "--output", "o.txt")


def test_run_never_unpickles(model, tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    assert "not an array's .npy file" in refused(capsys, "run", model, "g", "--input", f"x={tmp_path / 'x.npy'}")


def test_damaged_artifacts_are_refused(model, capsys):
    data = bytearray(Path(model).read_bytes())
    data[len(data) // 2] ^= 1
    Path(model).write_bytes(data)
    for command in (["run", model, "f"], ["inspect", model], ["ir", model]):
        assert model in refused(capsys, *command)


# --- inspect, cache, doctor ----------------------------------------------------------------------


def test_inspect(model, capsys):
    assert cli.main(["inspect", model]) == 0
    out = capsys.readouterr().out
    assert "schema 1" in out
    assert "f(x: float32[N, 3], scale: float32[])" in out
    assert "updates  total" in out
    assert "total: float32[], 4 B" in out


def test_cache(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GRAPHWRIGHT_CACHE_DIR", str(tmp_path / "cache"))
    x = gw.placeholder("x", "float32", (4,))
    gw.function([x], x * 17.5)
    assert cli.main(["cache"]) == 0
    assert re.search(r"cache: [1-9]\d* entries", capsys.readouterr().out)
    assert cli.main(["cache", "clear"]) == 0
    assert cli.main(["cache", "info"]) == 0
    assert ": 0 entries" in capsys.readouterr().out


def test_doctor(capsys):
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    rows = {line.split()[0] for line in out.splitlines()}
    assert {"python", "packages", "cpu", "vector", "threads", "llvm", "cache", "linker", "cuda", "ptxas", "gpu"} <= rows
    assert "failed:" not in out
    assert np.__version__ in out


@pytest.mark.parametrize("arguments", [[], ["fly"], ["ir"], ["cache", "eat"]])
def test_wrong_commands_exit_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert "graphwright" in capsys.readouterr().err


# --- demo ----------------------------------------------------------------------------------------


def test_the_demo_does_the_main_job(tmp_path):
    command = [sys.executable, "-m", "graphwright", "demo", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    said = {line.split()[0]: line for line in done.stdout.splitlines() if not line.startswith(" ")}
    accuracy = float(said["accuracy"].split()[1].rstrip("%"))
    assert accuracy >= 98
    assert "to the bit as before" in done.stdout
    for name in ("curves.png", "digits.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert parse_graph((tmp_path / "00-graph.gwir").read_text()).name == "train"
    assert 'loc("demo.py":' in (tmp_path / "01-optimized.gwir").read_text()
    assert sorted(gw.load(tmp_path / "lenet.gwa").entries) == ["predict", "train"]
    assert (tmp_path / "05-asm.s").stat().st_size > 1000


def npz(path, **changes):
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.integers(0, 256, (80, 28, 28), np.uint8), "y_train": rng.integers(0, 10, 80, np.uint8),
        "x_test": rng.integers(0, 256, (20, 28, 28), np.uint8), "y_test": rng.integers(0, 10, 20, np.uint8),
    }
    np.savez(path, **{name: x for name, x in {**arrays, **changes}.items() if x is not None})
    return str(path)


def test_the_demo_takes_a_file_of_larger_digits(tmp_path, capsys):
    data = npz(tmp_path / "data.npz")
    assert cli.main(["demo", "--data", data, "--epochs", "1", "--out", str(tmp_path / "out")]) == 0
    assert "data, 28x28 pixels: 76 images to train, 4 to validate, 20 to test" in capsys.readouterr().out
    assert (tmp_path / "out" / "lenet.gwa").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, "lacks y_test"),
        ({"x_test": np.zeros((20, 784), np.uint8)}, r"x_test is uint8[20, 784]"),
        ({"x_train": np.zeros((80, 28, 28))}, "x_train is float64"),
        ({"y_train": np.full(80, 10)}, "digits from 0 to 9"),
    ],
)
def test_the_demo_refuses_other_files(changes, message, tmp_path, capsys):
    data = npz(tmp_path / "data.npz", **changes)
    assert message in refused(capsys, "demo", "--data", data, "--out", str(tmp_path / "out"))


def test_shifted_moves_whole_images():
    images = np.random.default_rng(0).random((50, 1, 6, 6), np.float32)
    moved = demo.shifted(images, 1, np.random.default_rng(1))
    padded = np.pad(images[:, 0], ((0, 0), (1, 1), (1, 1)))
    for k in range(50):
        places = [padded[k, i : i + 6, j : j + 6] for i in range(3) for j in range(3)]
        assert any(np.array_equal(moved[k, 0], place) for place in places)
