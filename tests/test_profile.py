"""The profiler: what it counts is exact, what it measures adds up, and profiled calls do what plain ones do."""

from __future__ import annotations

import json

import numpy as np
import pytest

import graphwright as gw
from graphwright.compiler.count import call_bytes, kernel_work, line_work
from graphwright.compiler.roofline import Roofline, clock_rate, roofline
from graphwright.ir.dims import evaluate
from graphwright.passes.lower_to_loops import lower_to_loops


def matmul_step():
    x = gw.placeholder("x", "float32", ("N", 8))
    w = gw.Variable(np.full((8, 4), 0.5, np.float32), name="w")
    h = gw.tanh(x @ w)
    loss = gw.mean(h * h)
    return gw.function([x], {"loss": loss}, updates={w: w - 0.1 * gw.grad(loss, w)}, name="step"), w


def formulas(function, **dims):
    """Flops and bytes of a function's kernels, in order."""
    lowered = function.compiled.lowered
    program = lowered.program
    found = []
    for call in program.calls:
        work = kernel_work(lower_to_loops(lowered.regions[call.kernel.name], "k"))
        found.append(tuple(evaluate(d, dims) for d in (work.single, work.double, call_bytes(program, call))))
    return found


@pytest.mark.parametrize(
    "dtype, build, expected",
    [
        ("float32", lambda x: x + 1, (12, 0, 96)),
        ("float64", lambda x: x * x + x, (0, 24, 192)),
        ("float32", lambda x: gw.sum(x), (12, 0, 52)),
        ("float32", lambda x: gw.exp(x), (12, 0, 96)),
        ("float32", lambda x: x > 0, (0, 0, 60)),
        ("float32", lambda x: x @ x.T, (2 * 3 * 3 * 4, 0, 48 + 36)),
    ],
    ids=["map", "float64", "reduce", "function", "comparison", "matmul"],
)
def test_operations_and_bytes_are_counted_exactly(dtype, build, expected):
    x = gw.placeholder("x", dtype, ("N", 4))
    assert formulas(gw.function([x], build(x)), N=3) == [expected]


def test_a_convolution_counts_each_multiply_add_twice():
    x = gw.placeholder("x", "float32", ("N", 3, 8, 8))
    w = gw.placeholder("w", "float32", (5, 3, 3, 3))
    (row,) = formulas(gw.function([x, w], gw.nn.conv2d(x, w)), N=2)
    assert row[0] == 2 * (2 * 5 * 6 * 6) * (3 * 3 * 3)


def test_lines_share_a_kernel_by_their_operations():
    x = gw.placeholder("x", "float32", ("N",))
    a = x + 1
    b = a * a * a
    f = gw.function([x], b)
    (region,) = {id(r): r for r in (f.compiled.lowered.program and f.compiled.lowered.regions).values()}.values()
    parts = {loc.line: evaluate(d, {"N": 5}) for loc, d in line_work(region).items()}
    assert parts == {a._value.loc.line: 5, b._value.loc.line: 10}


def test_kernels_without_operations_or_elements_keep_their_time():
    x = gw.placeholder("x", "float32", ("N",))
    f = gw.function([x], [gw.zeros((x.shape[0], 2)), gw.exp(x)])
    with gw.profile(f) as p:
        f(np.zeros(3, np.float32))
        f(np.zeros(0, np.float32))
    assert sum(line.seconds for line in p.lines) == pytest.approx(p.seconds)


def test_profiled_calls_do_what_plain_ones_do():
    step, w = matmul_step()
    x = np.random.default_rng(0).standard_normal((16, 8)).astype(np.float32)
    before = w.value
    plain = step(x)
    after = w.value
    w.assign(before)
    with gw.profile(step) as p:
        measured = step(x=x)
    assert measured["loss"] == plain["loss"] and np.array_equal(w.value, after)
    assert p.calls == 1
    step(x)
    assert p.calls == 1, "calls after the block are not measured"


def test_a_profile_adds_up():
    step, w = matmul_step()
    before = w.value
    with gw.profile(step) as p:
        for n in (4, 16, 16):
            step(np.ones((n, 8), np.float32))
    kernels, lines = p.kernels, p.lines
    assert p.calls == 3 and 0 < p.seconds < 10
    assert sum(k.seconds for k in kernels) == pytest.approx(p.seconds)
    assert sum(line.seconds for line in lines) == pytest.approx(p.seconds)
    assert [k.seconds for k in kernels] == sorted((k.seconds for k in kernels), reverse=True)
    assert all(k.calls % 3 == 0 and k.nbytes > 0 and k.roofline > 0 for k in kernels)
    flops = sum(row[0] for n in (4, 16, 16) for row in formulas(step, N=n))
    assert sum(k.flops for k in kernels) == flops
    assert sum(line.flops for line in lines) == pytest.approx(flops)
    assert not np.array_equal(w.value, before)


def test_fn_profile_updates_nothing():
    step, w = matmul_step()
    before = w.value
    p = step.profile(np.ones((4, 8), np.float32), repeat=7)
    assert p.calls == 7 and np.array_equal(w.value, before)


def test_the_table_names_kernels_and_lines():
    step, _ = matmul_step()
    p = step.profile(np.ones((4, 8), np.float32), repeat=3)
    text = str(p)
    assert "step: 3 calls" in text and "GFLOP/s" in text
    assert all(k.name[:30] in text for k in p.kernels)
    assert "test_profile.py:" in text and "gradient of" in text


def test_without_calls_there_is_nothing_to_show():
    step, _ = matmul_step()
    with gw.profile(step) as p:
        pass
    assert "no call" in str(p) and p.kernels == []


def test_more_calls_than_are_kept_one_by_one():
    x = gw.placeholder("x", "float32", (4,))
    f = gw.function([x], x + 1)
    with gw.profile(f) as p:
        for _ in range(2100):
            f(np.zeros(4, np.float32))
    assert p.calls == 2100 and p.kernels[0].flops == 4 * 2100


def test_the_trace_is_what_chrome_reads(tmp_path):
    step, _ = matmul_step()
    p = step.profile(np.ones((4, 8), np.float32), repeat=3)
    p.trace(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    calls = [e for e in events if e["name"] == "step"]
    kernels = [e for e in events if "flops" in e["args"]]
    assert len(calls) == 3 and calls[0]["args"] == {"N": 4} and calls[0]["ts"] == 0
    assert all(e["ph"] == "X" and e["dur"] >= 0 for e in events)
    spans = [(c["ts"], c["ts"] + c["dur"] + 1e-6) for c in calls]
    assert all(any(a <= k["ts"] and k["ts"] + k["dur"] <= b for a, b in spans) for k in kernels)
    assert "test_profile.py" in kernels[0]["args"]["source"][0]


def test_parallel_kernels_and_watched_functions_are_measured():
    x = gw.placeholder("x", "float32", ("N",))
    h = gw.exp(x)
    f = gw.function([x], gw.sum(h), watch={"h": h})
    data = np.zeros(200_000, np.float32)
    with gw.profile(f) as p:
        assert f(data) == 200_000
    assert p.calls == 1 and f.watched["h"].last.mean == 1


def test_what_cannot_be_profiled_is_refused():
    x = gw.placeholder("x", "float32", ("N",))
    for function in (gw.function([x], x + 1, target="interpreter"), gw.function([x], x + 1, debug="nan")):
        with pytest.raises(gw.CompileError, match="CPU"):
            function.profile(np.zeros(3, np.float32))
    with pytest.raises(gw.GraphError, match="function"), gw.profile(x):
        pass


def test_plain_code_knows_nothing_of_the_profiler():
    step, _ = matmul_step()
    assert "readcyclecounter" not in step.ir("llvm") and "profile.clock" not in step.ir("program")


def test_the_machine_is_measured_once():
    first, second = roofline(), roofline()
    assert first == second and first.flops > 1e8
    assert all(rate > 1e7 for _, rate in first.bandwidth)
    assert 1e6 < clock_rate() < 1e11


def test_a_roofline_that_a_kernel_exceeds_is_measured_again(monkeypatch, tmp_path):
    monkeypatch.setenv("GRAPHWRIGHT_CACHE_DIR", str(tmp_path))
    rates = iter([1e9, 3e9, 2e9])
    monkeypatch.setattr("graphwright.compiler.roofline._peak_flops", lambda threads: next(rates))
    monkeypatch.setattr("graphwright.compiler.roofline._bandwidth", lambda nbytes, threads: 1e9)
    assert roofline().flops == roofline(0.9e9).flops == 1e9
    assert roofline(2e9).flops == roofline(2.5e9).flops == 3e9
    assert roofline(4e9).flops == 3e9  # the larger figure remains


def test_the_roofline_is_the_slower_of_arithmetic_and_memory():
    machine = Roofline(1e9, ((1000, 1e9), (10**6, 1e8)), 1)
    assert machine.seconds(2000, 0, 10) == 2e-6
    assert machine.seconds(0, 1000, 10) == 2e-6, "float64 takes twice as long"
    assert machine.seconds(1, 0, 1000) == 1e-6
    assert machine.seconds(1, 0, 2000) == 2e-5, "what does not fit a cache comes from memory"
