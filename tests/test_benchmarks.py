"""The benchmarks' machinery, with tiny sizes and without peers: it measures what is right, and refuses what is not."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from benchmarks import machine, page, report, run, scaling, tape  # noqa: E402
from benchmarks.compare import worst_error  # noqa: E402
from benchmarks.peer import peers  # noqa: E402
from benchmarks.workload import find, fold_batch_norm, workloads  # noqa: E402

QUICK = ["--tiny", "--quick", "--rounds", "2", "--seconds", "0.01", "--quiet"]
WORKLOADS = workloads()


def measured(tmp_path, *arguments):
    """The exit status and the results of a run."""
    status = run.main([*QUICK, "--out", str(tmp_path), *arguments])
    return status, json.loads((tmp_path / "results.json").read_text())


def test_a_run_writes_its_tables(tmp_path, capsys):
    status, results = measured(tmp_path, "--only", "scalar,mlp,cross_entropy", "--peers", "graphwright,numpy")
    assert status == 0, capsys.readouterr().out
    rows = {row["name"]: row for row in results["workloads"]}
    assert list(rows) == ["scalar", "mlp", "cross_entropy"]
    for row in rows.values():
        for peer in ("graphwright", "numpy"):
            assert row["peers"][peer]["median_s"] > 0
            assert row["peers"][peer]["error"] <= 1
            assert len(row["peers"][peer]["round_medians_s"]) == 2
        times = [row["peers"][peer]["median_s"] for peer in ("numpy", "graphwright")]
        assert report.ratio(row) == (times[0] / times[1], "numpy")
    text = (tmp_path / "results.md").read_text()
    assert all(row["title"] in text for row in rows.values())


@pytest.mark.parametrize("quick", [True, False])
def test_a_quick_run_imports_a_peer_once(tmp_path, quick, monkeypatch):
    started = []
    launch = run.Worker.__init__
    monkeypatch.setattr(run.Worker, "__init__", lambda w, peer, **o: started.append(peer.name) or launch(w, peer, **o))
    arguments = ["--tiny", "--no-compile-times", "--rounds", "1", "--seconds", "0.01", "--quiet", "--peers", "numpy"]
    arguments += ["--only", "scalar,small_mlp_step", "--out", str(tmp_path), *(["--quick"] if quick else [])]
    assert run.main(arguments) == 0
    assert sorted(started) == sorted(["numpy", "reference"] * (1 if quick else 2))


def test_compile_times_are_measured_cold_and_from_the_cache(tmp_path):
    status, results = measured(tmp_path, "--only", "matmul_32", "--peers", "graphwright", "--compile-times")
    cell = results["workloads"][0]["peers"]["graphwright"]
    assert status == 0
    assert 0 < cell["cached_s"] < cell["cold_s"]


def test_a_peer_that_is_not_installed_is_left_out(tmp_path):
    (tmp_path / "jax.py").write_text("raise ImportError('there is no jax')")
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}" exec "{sys.executable}" "$@"\n')
    program.chmod(0o755)
    status, results = measured(
        tmp_path, "--only", "scalar", "--peers", "graphwright,jax", "--python-peers", str(program),
    )
    assert status == 0
    assert results["order"] == ["graphwright"]
    assert results["workloads"][0]["peers"]["jax"] == {"failure": "missing: there is no jax"}
    assert "not installed: JAX jit" in (tmp_path / "results.md").read_text()


@pytest.mark.parametrize("wrong", ["value", "gradient", "nan"])
def test_wrong_results_are_found(tmp_path, wrong):
    workload = next(w for w in WORKLOADS if w.name == "small_mlp_step")
    initial, _ = workload.data(tiny=True)
    change = np.full_like(initial["w1"], 1e-3)
    good = {"step0 output0": np.float64(2.3), "parameter w1": initial["w1"].astype(float) - change}
    bad = dict(good)
    if wrong == "value":
        bad["step0 output0"] = np.float64(2.301)
    elif wrong == "gradient":
        bad["parameter w1"] = initial["w1"] - 1.01 * change  # one percent of a change of a thousandth
    else:
        bad["parameter w1"] = good["parameter w1"] * np.nan
    for name, arrays in (("good", good), ("bad", bad)):
        np.savez(tmp_path / f"{name}.npz", **arrays)
    assert worst_error(workload, tmp_path / "good.npz", tmp_path / "good.npz", initial)[0] == 0
    error, of = worst_error(workload, tmp_path / "bad.npz", tmp_path / "good.npz", initial)
    assert not error <= 1
    assert of == ("step0 output0" if wrong == "value" else "parameter w1")


@pytest.mark.parametrize("workload", [w for w in WORKLOADS if w.kind != "forward"], ids=lambda w: w.name)
def test_the_reference_differentiates_rightly(workload):
    parameters, inputs = ({k: v.astype(float) if v.dtype.kind == "f" else v for k, v in d.items()}
                          for d in workload.data(tiny=True))
    trained = [inputs[name] for name in workload.wrt] or [parameters[name] for name in workload.trained(parameters)]
    leaves = {name: tape.Value(v) for name, v in {**parameters, **inputs}.items() if any(v is t for t in trained)}

    def loss(ops, known):
        return workload.value(ops, {k: known.get(k, v) for k, v in parameters.items()},
                              {k: known.get(k, v) for k, v in inputs.items()})[0]

    found = tape.gradients(loss(tape.Taped(), leaves), list(leaves.values()))
    step = 1e-6
    for array, gradient in zip((leaf.data for leaf in leaves.values()), found):
        flat = array.reshape(-1)
        for index in {0, flat.size // 2, flat.size - 1}:
            kept, sides = flat[index], []
            for sign in (1, -1):
                flat[index] = kept + sign * step
                sides.append(loss(tape.Plain(), {}))
            flat[index] = kept
            np.testing.assert_allclose(gradient.reshape(-1)[index], (sides[0] - sides[1]) / (2 * step), 1e-6, 1e-9)


def test_a_run_of_some_workloads_keeps_the_others(tmp_path):
    _, before = measured(tmp_path, "--only", "scalar,mlp", "--peers", "numpy")
    _, after = measured(tmp_path, "--only", "mlp", "--peers", "graphwright", "--keep")
    assert [row["name"] for row in after["workloads"]] == ["scalar", "mlp"]
    assert after["workloads"][0] == before["workloads"][0]
    assert after["order"] == ["graphwright", "numpy"]
    assert list(after["workloads"][1]["peers"]) == ["graphwright"]


def test_another_batch_and_the_arena_are_measured(tmp_path):
    _, results = measured(
        tmp_path, "--only", "small_mlp_step,resnet20", "--peers", "graphwright,graphwright_static", "--compile-times"
    )
    for row in results["workloads"]:
        symbolic, static = (row["peers"][name] for name in ("graphwright", "graphwright_static"))
        assert symbolic["new_batch_s"] > 0 and symbolic["again_s"] > 0
        assert "new_batch_s" not in static  # it would have to be compiled again
        assert symbolic["scratch"] > 0 and static["scratch"] > 0


def test_recurrent_and_random_workloads_agree_with_the_reference(tmp_path, capsys):
    names = ["lstm_step", "gru_step", "lstm_cell", "sample", "dropout"]
    status, results = measured(tmp_path, "--only", ",".join(names), "--peers", "graphwright,numpy", "--rounds", "1")
    assert status == 0, capsys.readouterr().out
    for row in results["workloads"]:
        assert all(row["peers"][peer]["error"] <= 1 for peer in ("graphwright", "numpy"))


def test_of_random_results_moments_are_compared(tmp_path):
    (workload,) = find("dropout")
    kept = np.zeros(1000, np.float32)
    kept[::2] = 2
    good, bad = workload.compared([kept]), workload.compared([kept * 1.02])
    for name, arrays in (("good", good), ("bad", bad)):
        np.savez(tmp_path / f"{name}.npz", **{f"step0 output{i}": a for i, a in enumerate(arrays)})
    assert worst_error(workload, tmp_path / "good.npz", tmp_path / "good.npz", {})[0] == 0
    assert worst_error(workload, tmp_path / "bad.npz", tmp_path / "good.npz", {})[0] > 1


def test_folding_batch_norm_changes_no_result():
    (workload,) = find("resnet18")
    parameters, inputs = workload.data(tiny=True)
    folded = fold_batch_norm(parameters)
    assert "stem_b" in folded and "stem_scale" not in folded
    given, expected = (workload.compute(tape.Plain(), p, **inputs) for p in (folded, parameters))
    np.testing.assert_allclose(given, expected, atol=1e-5 * np.abs(expected).max())


def test_scaling_measures_and_its_arena_bound_is_one(tmp_path):
    assert scaling.main(["--only", "elements,nodes", "--most-elements", "1024", "--most-nodes", "100",
                         "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "scaling.json").read_text())
    assert all(p["seconds"] > 0 for points in found["elements"].values() for p in points)
    assert [len(points) for points in found["nodes"].values()] == [1, 1, 1]
    peer = peers()["graphwright"]
    peer.load(2)
    (workload,) = find("lenet")
    parameters, inputs = workload.data(tiny=True)
    f, _ = peer.function(workload, parameters, inputs)
    bound = scaling.most_alive(f.compiled.lowered.program, peer.dims(workload, inputs))
    assert 0 < bound <= peer.memory(f, workload, inputs) < 2 * bound


def test_pages_get_the_tables(tmp_path):
    measured(tmp_path, "--only", "scalar", "--peers", "graphwright,numpy")
    (tmp_path / "docs").mkdir()
    for name in ("README.md", "docs/performance.md"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    runs = f"{tmp_path},{tmp_path}"
    assert page.main(["--results", str(tmp_path), "--runs", runs, "--root", str(tmp_path)]) == 0
    assert "scalar a*b + b" in (tmp_path / "README.md").read_text()
    text = (tmp_path / "docs" / "performance.md").read_text()
    assert re.search(r"\| scalar a\*b \+ b \| 2 \| ([\d.]+ \(NumPy\)) \| \1 \|", text)
    assert text.count("<!-- results") == (ROOT / "docs" / "performance.md").read_text().count("<!-- results")
    unmeasured = "<!-- results nodes -->\nas before\n<!-- end -->\n"
    assert page.replaced(unmeasured, {"arena": "now"}) == unmeasured
    assert page.replaced(unmeasured, {"nodes": "now"}) == "<!-- results nodes -->\nnow\n<!-- end -->\n"


def test_workloads_and_peers_are_found_by_name(capsys):
    assert [w.name for w in find("mlp,matmul")] == ["mlp", "matmul_32", "matmul_64", "matmul_256", "matmul_1024"]
    assert len({w.name for w in WORKLOADS}) == len(WORKLOADS)
    assert {"graphwright", "pytorch", "torch_compile", "jax", "numpy", "pytensor", "onnxruntime"} <= set(peers())
    with pytest.raises(SystemExit, match="no workload 'nothing'"):
        find("nothing")
    with pytest.raises(SystemExit, match="no peer 'nothing'"):
        run.main([*QUICK, "--peers", "nothing"])
    assert run.main(["--list"]) == 0
    assert "lenet" in capsys.readouterr().out


def test_the_limits_of_the_machine_are_plausible():
    assert 1e8 < machine.peak_flops(1, repeat=1) < 1e13
    assert 1e8 < machine.peak_bandwidth(1, nbytes=1 << 24, repeat=1) < 1e13
