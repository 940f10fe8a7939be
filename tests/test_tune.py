"""The measured search of schedules: what it measures and when it stops, that results keep their bits, what is kept."""

from __future__ import annotations

import numpy as np
import pytest

import graphwright as gw
from graphwright.compiler import tune
from graphwright.frontends import cli
from graphwright.frontends.tune import duration
from graphwright.ir.interpret_loops import interpret_kernel
from graphwright.ir.loops import Kernel
from graphwright.ir.parser import parse_kernel
from graphwright.ir.verify import verify_kernel
from graphwright.passes.cpu_model import CpuModel
from graphwright.passes.schedule_contraction import Choice, choices, schedule_contraction

WIDE = CpuModel(vector_bytes=32, registers=32, tile_bytes=64)
A, B, C = (Choice(rows, 16, 8, True) for rows in (4, 6, 8))


@pytest.fixture
def empty(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHWRIGHT_CACHE_DIR", str(tmp_path / "cache"))


class Clock:
    """Time that passes only while something is measured: a second each."""

    def __init__(self, seconds):
        self.now, self.seconds, self.asked = 0.0, seconds, []

    def __call__(self):
        return self.now

    def measure(self, chosen):
        self.now += 1
        self.asked.append(dict(chosen))
        return {key: self.seconds[key, choice] for key, choice in chosen.items()}


def test_search_measures_kernels_side_by_side_and_keeps_the_best_of_those_that_are_done():
    clock = Clock({("k", A): 3.0, ("k", B): 1.0, ("k", C): 2.0, ("l", A): 1.0, ("l", B): 0.99})
    times = tune.search({"k": (A, B, C), "l": (A, B)}, clock.measure, 10, clock)
    assert clock.asked == [{"k": A, "l": A}, {"k": B, "l": B}, {"k": C, "l": A}]
    assert tune.best(times["k"]) == B
    assert tune.best(times["l"]) == A  # a hundredth may be chance


@pytest.mark.parametrize(("seconds", "rounds"), [(0, 1), (1.5, 1), (2, 2), (9, 3)])
def test_search_begins_no_round_that_would_end_too_late(seconds, rounds):
    clock = Clock({("k", c): 1.0 for c in (A, B, C)})
    times = tune.search({"k": (A, B, C)}, clock.measure, seconds, clock)
    assert len(times["k"]) == len(clock.asked) == rounds


def test_search_of_nothing():
    clock = Clock({})
    assert tune.search({}, clock.measure, 5, clock) == {} and clock.asked == []


def _product(m: int | str, k: int, n: int) -> Kernel:
    return parse_kernel(f"""
    graphwright.loops v1
    kernel @product(in %a: f32[{m}, {k}], in %b: f32[{k}, {n}], out %c: f32[{m}, {n}]) {{
      for i = 0..{m} {{
        for j = 0..{n} {{
          let t = reduce(add, r = 0..{k}) load %a[i, r] * load %b[r, j]
          store %c[i, j] = t
        }}
      }}
    }}
    """)


@pytest.mark.parametrize(("m", "k", "n"), [(50, 9, 70), (9, 5, 20), ("N", 3, 48)])
def test_every_choice_computes_the_same_bits(m, k, n):
    kernel, rng = _product(m, k, n), np.random.default_rng(0)
    found = choices(kernel, WIDE)
    assert len(found) > 3 and len(set(found)) == len(found)
    rows = 45 if m == "N" else m
    a, b = (rng.standard_normal(s, dtype=np.float32) for s in ((rows, k), (k, n)))
    results = []
    for choice in found:
        scheduled = schedule_contraction(kernel, WIDE, choice)
        assert scheduled is not None and scheduled.notes == (f"measured: {choice}",)
        verify_kernel(scheduled)
        results += interpret_kernel(scheduled, [a, b], {"N": rows} if m == "N" else {})
    np.testing.assert_allclose(results[0], a.astype(np.float64) @ b, rtol=0, atol=1e-5)
    for c in results[1:]:
        np.testing.assert_array_equal(c, results[0])


def _layer(**options):
    x = gw.placeholder("x", "float32", ("N", 40))
    w = gw.Variable(np.random.default_rng(1).standard_normal((40, 96), dtype=np.float32), name="w")
    y = gw.tanh(x @ w)
    return gw.function([x], gw.mean(y), updates={w: w - 0.1 * gw.grad(gw.mean(y), w)}, name="layer", **options), w


def test_a_tuned_function_computes_the_same_and_is_remembered(empty, monkeypatch):
    times = iter(range(100, 0, -1))  # each round is faster than the one before

    def measure(compiled, names, known, args, kwargs):
        def taken(chosen):
            return dict.fromkeys(chosen, float(next(times)))

        return taken

    monkeypatch.setattr(tune, "_measure", measure)
    f, w = _layer()
    data = np.random.default_rng(0).standard_normal((50, 40), dtype=np.float32)
    before = w.value.copy()
    tuned = f.tune(data, time="1h")
    np.testing.assert_array_equal(w.value, before)
    assert tuned.tuning and all(t.after < t.before for t in tuned.tuning)
    assert 'note "measured: tiles of' in tuned.ir("loops") and "measured" not in f.ir("loops")
    start = w.value.copy()
    want, new = f(data), w.value.copy()
    w.assign(start)
    np.testing.assert_array_equal(tuned(data), want)
    np.testing.assert_array_equal(w.value, new)
    again = f.tune(data, time=0)
    assert [t.choice for t in again.tuning] == [t.choice for t in tuned.tuning]
    assert all(str(t).endswith("remembered") for t in again.tuning)
    assert again.ir("loops") == tuned.ir("loops")
    assert _layer()[0].ir("loops") == f.ir("loops")  # not asked to tune: as if nothing were remembered


def test_tune_measures_real_programs(empty):
    f, _ = _layer(tune=0)  # the cost model's choice alone is measured
    assert f.tuning and all(t.before == t.after and t.before > 0 for t in f.tuning)
    assert "us" in str(f.tuning[0])


def test_what_the_cache_holds_may_be_anything():
    assert tune._decode(b"{") is None and tune._decode(b'{"rows": 3}') is None and tune._decode(None) is None


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("1.5 min", 90), ("500ms", 0.5), ("1h", 3600), (2, 2)])
def test_durations(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize("wrong", ["", "30", "s", "-3s", -1, True, None, float("nan"), float("inf"), "3 weeks"])
def test_what_is_no_duration(wrong):
    with pytest.raises(gw.GraphError, match="is no duration"):
        duration(wrong)


@pytest.mark.parametrize("options", [{"target": "interpreter"}, {"debug": "nan"}])
def test_only_compiled_functions_are_tuned(options):
    with pytest.raises(gw.GraphwrightError, match="tune"):
        _layer(tune="1s", **options)


def test_command(empty, tmp_path, capsys):
    script = tmp_path / "script.py"
    script.write_text("""
import graphwright as gw
x, w = gw.placeholder("x", "float32", ("N", 40)), gw.placeholder("w", "float32", (40, 32))
f = gw.function([x, w], x @ w, name="product")
""")
    assert cli.main(["tune", str(script), "--time", "0s", "--dims", "N=48"]) == 0
    assert "product: 1 kernels" in capsys.readouterr().out
    assert cli.main(["tune", str(script), "--dims", "M=48"]) == 2
    assert "no dimension 'M'" in capsys.readouterr().err
