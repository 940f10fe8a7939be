"""The debuggers: each finds what was planted, names it, and leaves the variables as they were."""

from __future__ import annotations

import dataclasses
import inspect
import sys

import numpy as np
import pytest

import graphwright as gw
from graphwright.compiler.debug import statistics
from graphwright.compiler.debug.compare import Reference
from graphwright.ir.graph import Graph
from graphwright.ir.loops import Index
from graphwright.ir.op import OPS
from graphwright.passes import lower_block, rewrite

HERE = "test_debug.py"


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path, monkeypatch):
    """What is planted into passes is not seen by the cache's keys."""
    monkeypatch.setenv("GRAPHWRIGHT_CACHE_DIR", str(tmp_path))


def line():
    """The caller's line, as messages name it."""
    return f"{HERE}:{inspect.currentframe().f_back.f_lineno}"


def plant(monkeypatch, table, where="simplify"):
    """Put wrong rules before those of a pass."""
    ruleset = sys.modules[f"graphwright.passes.{where}"]._RULES
    wrong = rewrite.rules("planted", table)
    monkeypatch.setattr(ruleset, "items", [*wrong.items, *ruleset.items])
    monkeypatch.setattr(ruleset, "_by_root", {})


def step(**options):
    """A function that updates a variable; the line where it takes a logarithm."""
    x = gw.placeholder("x", "float32", ("N", 4))
    w = gw.Variable(np.ones((4, 3), np.float32), name="w")
    count = gw.Variable(np.zeros((), np.int64), name="count")
    h = x @ w
    y, at = gw.log(h), line()
    loss = gw.mean(y * y)
    updates = {w: w - 0.1 * gw.grad(loss, w), count: count + 1}
    return gw.function([x], (loss, [y]), updates=updates, name="step", **options), w, count, at


def refused(function, error, *words):
    with pytest.raises(error) as caught:
        function()
    assert isinstance(caught.value, gw.GraphwrightError)
    for word in (*words, "no variable was updated"):
        assert word in str(caught.value), f"{word!r} is not in:\n{caught.value}"
    return str(caught.value)


ONES = np.ones((5, 4), np.float32)


@pytest.mark.parametrize("mode", ["nan", "check", "bounds"])
def test_a_debugged_function_does_what_the_plain_one_does(mode):
    (plain, w, count, _), (debugged, w2, count2, _) = step(), step(debug=mode)
    for n in (5, 1, 9):
        x = np.random.default_rng(n).uniform(0.5, 2, (n, 4)).astype(np.float32)
        (a, [b]), (c, [d]) = plain(x), debugged(x=x)
        assert np.allclose(a, c, rtol=1e-5) and np.allclose(b, d, rtol=1e-5)
        assert np.allclose(w.value, w2.value, rtol=1e-5) and count.value == count2.value
    assert debugged.ir("program") == plain.ir("program")
    with pytest.raises(gw.ArgumentError):
        debugged(np.ones((5, 4)))


# --- nan -----------------------------------------------------------------------------------------


def test_nan_names_the_op_the_line_and_the_operands():
    function, w, count, at = step(debug="nan")
    function(ONES)
    before = w.value
    x = ONES.copy()
    x[3] = -2
    refused(lambda: function(x), gw.NumericError, "log makes NaN", at, "3 NaN", "[3, 0]", "there -7.8")
    assert np.array_equal(w.value, before) and count.value == 1


def test_nan_in_a_loop_names_the_step():
    x, h = gw.placeholder("x", "float32", ("T",)), gw.placeholder("h", "float32", ())
    array = np.array([1, 2, 3, -1, 5], np.float32)

    def step(c, e):
        y, step.at = gw.log(e), line()
        return c + gw.where(e > 0, y, 0.0), None  # hidden later

    last, _ = gw.scan(step, h, x)
    refused(
        lambda: gw.function([x, h], last, debug="nan")(array, 0.0), gw.NumericError, "log makes NaN", step.at,
        "in step 3 of scan", "operand 0: float32[]: min -1",
    )
    last, _ = gw.scan(step, h, x, reverse=True)
    refused(
        lambda: gw.function([x, h], last, debug="nan")(array, 0.0), gw.NumericError, "in step 1 (element 3) of scan"
    )
    root, _ = gw.while_loop(lambda c: c[1] < 6, lambda c: (gw.sqrt(c[0]) - 0.6, c[1] + 1), (h, 0))
    run = gw.function([h], root, debug="nan")
    refused(lambda: run(2.0), gw.NumericError, "sqrt makes NaN", "in step 3 of while")
    assert run(1000.0) == gw.function([h], root)(1000.0)


def test_nan_in_nested_bodies_names_every_step():
    x, h = gw.placeholder("x", "float32", (5,)), gw.placeholder("h", "float32", ())

    def outer(c, e):
        z, _ = gw.scan(lambda s, u: (s + u, None), c, x)
        return gw.cond(e > 0, lambda: z + c, lambda: gw.fori(0, 3, lambda i, s: gw.log(s - 60), z)), None

    run = gw.function([x, h], gw.scan(outer, h, x)[0], debug="nan")
    text = refused(lambda: run(np.array([1, 1, 1, -1, 1], np.float32), 20.0), gw.NumericError, "log makes NaN")
    places = [line.split(",")[0].strip() for line in text.splitlines() if line.startswith("  in ")]
    assert places == ["in step 1 of scan", "in branch 0 of switch", "in step 3 of scan"]


@pytest.mark.parametrize("mode", ["nan", "check", "bounds"])
def test_loops_that_draw_are_debugged(mode):
    """The generator advances as it does without a debugger, and the numbers are the same."""
    x, found = gw.placeholder("x", "float32", ("T", 3)), []
    for options in ({}, {"debug": mode}):
        rng = gw.random.Generator(3)
        total = gw.Variable(np.zeros(3, np.float32))
        last, rows = gw.scan(lambda c, e, rng=rng: (c + rng.normal((3,)) * e, c), total, x)
        run = gw.function([x], [rows, gw.random.gamma(rng, 2.0, shape=(4,))], updates={total: last}, **options)
        found.append([*(r for _ in range(2) for r in run(np.ones((4, 3), np.float32))), total.value, rng.value])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_infinity_is_found_where_it_is_made_though_it_is_hidden_later():
    x = gw.placeholder("x", "float32", ("N",))
    big, at = gw.exp(x), line()
    function = gw.function([x], 1 / (1 + big * big), debug="nan")
    assert function(np.zeros(3, np.float32)).tolist() == [0.5] * 3
    refused(lambda: function(np.full(3, 100, np.float32)), gw.NumericError, "exp makes an infinity", at, "3 infinite")


def test_infinities_that_were_given_pass_through():
    x = gw.placeholder("x", "float32", ("N", 3))
    mask = np.array([0, -np.inf, 0], np.float32)
    function = gw.function([x], gw.nn.softmax(x + mask), debug="nan")
    assert function(np.zeros((2, 3), np.float32)).tolist() == [[0.5, 0, 0.5]] * 2
    passed = gw.function([x], x * 2, debug="nan")(np.full((1, 3), np.inf, np.float32))
    assert np.isinf(passed).all()
    difference = gw.function([x], x - x, debug="nan")
    refused(lambda: difference(np.full((1, 3), np.inf, np.float32)), gw.NumericError, "sub makes NaN")


def test_nan_in_arguments_and_variables_is_refused_by_name():
    function, w, _, _ = step(debug="nan")
    x = ONES.copy()
    x[0, 0] = np.nan
    refused(lambda: function(x), gw.NumericError, "input x holds NaN", "1 NaN")
    w.assign(np.full((4, 3), np.nan, np.float32))
    refused(lambda: function(ONES), gw.NumericError, "variable w holds NaN")


def test_the_gradient_of_an_op_is_named_as_such():
    x = gw.placeholder("x", "float32", ("N",))
    w = gw.Variable(np.zeros(1, np.float32), name="w")
    root, at = gw.sqrt(w), line()
    function = gw.function([x], updates={w: w - gw.grad(gw.sum(x * root), w)}, debug="nan")
    refused(lambda: function(np.ones(3, np.float32)), gw.NumericError, "makes an infinity", at, "gradient of sqrt")


# --- check and bisect ----------------------------------------------------------------------------


def test_check_finds_a_wrong_rule_and_bisect_names_it(monkeypatch):
    plant(monkeypatch, "tanh(x) -> sigmoid(x)")
    x = gw.placeholder("x", "float32", ("N", 4))
    w = gw.Variable(np.full((4, 4), 0.25, np.float32), name="w")
    h = gw.nn.relu(x @ w)
    y, at = gw.tanh(h), line()
    loss = gw.mean(gw.square(y - 1))
    function = gw.function([x], loss, updates={w: w - gw.grad(loss, w)}, debug="check")
    before = w.value
    refused(lambda: function(ONES), gw.CheckError, "tanh", at, "differ, by up to", "gw.debug.bisect")
    culprit = gw.debug.bisect(function, [ONES])
    assert (culprit.pass_name, culprit.rule) == ("simplify", "tanh(x) -> sigmoid(x)")
    assert at in str(culprit) and "tanh(" in culprit.before and "sigmoid(" in culprit.after
    assert 1 <= culprit.firing <= culprit.firings
    assert np.array_equal(w.value, before)


def test_bisect_tells_right_firings_of_other_rules_from_the_wrong_one(monkeypatch):
    plant(monkeypatch, "abs(x) -> x")
    x = gw.placeholder("x", "float32", ("N",))
    y = 0 - (-x) + gw.abs(x) - (-x) * 2
    culprit = gw.debug.bisect(gw.function([x], y), [np.array([-1, 2], np.float32)])
    assert culprit.rule == "abs(x) -> x" and culprit.firings > 1
    assert gw.debug.bisect(gw.function([x], y), [np.array([1, 2], np.float32)]) is None, "right for these arguments"


def test_bisect_names_a_pass_without_rules(monkeypatch):
    pipelines = sys.modules["graphwright.passes.pipelines"]
    x = gw.placeholder("x", "float32", ("N",))

    def negated(graph):
        return graph.with_roots([-v for v in graph.roots])

    passes = [dataclasses.replace(p, run=negated) if p.name == "dce" else p for p in pipelines.GRAPH]
    monkeypatch.setattr(sys.modules["graphwright.compiler.debug.bisect"], "GRAPH", passes)
    culprit = gw.debug.bisect(gw.function([x], x + 1), {}, {"x": np.ones(3, np.float32)})
    assert culprit.pass_name == "dce" and culprit.rule is None


def wrong_kernel(monkeypatch):
    """Let kernels compute cosines where they should compute sines."""
    module = sys.modules["graphwright.passes.expand_math"]
    table = {**module.FLOAT32, "sin": module.FLOAT32["cos"]}
    monkeypatch.setattr(module, "FLOAT32", table)


def test_a_wrong_kernel_is_named_with_the_pass_that_made_it(monkeypatch):
    wrong_kernel(monkeypatch)
    x = gw.placeholder("x", "float32", ("N",))
    y = gw.exp(x)
    z, at = gw.sum(gw.sin(y)), line()
    function = gw.function([x], z, debug="check")
    message = refused(lambda: function(np.ones(3, np.float32)), gw.CheckError, "kernel @", at, "differ")
    culprit = gw.debug.bisect(gw.function([x], z), [np.ones(3, np.float32)])
    assert culprit.pass_name == "expand-math"
    assert f"@{culprit.kernel} " in message and at in str(culprit)


def test_a_wrong_kernel_in_a_loop_is_named_with_the_step(monkeypatch):
    wrong_kernel(monkeypatch)
    x, h = gw.placeholder("x", "float32", ("T", 3)), gw.placeholder("h", "float32", (3,))

    def step(c, e):
        taken, step.at = gw.cond(e[0] > 0, lambda: gw.sin(c) + e, lambda: c * 0.5), line()
        return taken, None

    function = gw.function([x, h], gw.scan(step, h, x)[0], debug="check")
    arrays = np.array([[-1, 0, 1], [-2, 0, 0], [1, 2, 3]], np.float32), np.ones(3, np.float32)
    places = ["in branch 1 of switch", "in step 2 of scan"]
    refused(lambda: function(*arrays), gw.CheckError, "kernel @", step.at, *places, "differ")
    assert function(-arrays[0] * arrays[0], arrays[1]).tolist() == [0.125] * 3


def test_a_wrong_plan_of_memory_is_told_from_wrong_kernels(monkeypatch):
    x = gw.placeholder("x", "float32", ("N",))
    w = gw.Variable(np.ones(40, np.float32), name="w")  # several vectors
    monkeypatch.setattr(lower_block.Block, "_dependents", lambda self, position: set())
    monkeypatch.setattr(lower_block.Block, "_reads_in_place", lambda self, *_: True)
    reversed_ = gw.flip(w)
    function = gw.function([x], x, updates={w: reversed_ + 1}, debug="check")
    w.assign(np.arange(40, dtype=np.float32))
    refused(lambda: function(np.ones(2, np.float32)), gw.CheckError, "not the program")
    assert w.value.tolist() == list(range(40))


def test_rounding_is_no_difference_and_stable_forms_are_not_wrong():
    x = gw.placeholder("x", "float32", ("N", 300))
    naive = gw.log(1 + gw.exp(x))
    outputs = [naive, gw.nn.softmax(x), gw.var(x, axis=1), gw.sum(x - gw.mean(x, axis=1, keepdims=True), axis=1)]
    function = gw.function([x], outputs, debug="check")
    data = np.random.default_rng(0).standard_normal((7, 300)).astype(np.float32) * 30
    data[0, 0] = 800
    assert function(data)[0][0, 0] == 800


def test_the_reference_knows_how_much_rounding_matters():
    x = OPS["input"](name="x", shape=(1000,), dtype=gw.float32)
    graph = Graph("f", (x,), (), (OPS["sum"](x, axes=(0,)), x * 3.0, OPS["lt"](x, x * 0.5)))
    data = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    reference = Reference(graph, [data])
    right = [data.astype(np.float64).sum().astype(np.float32), data * 3, data < data / 2]
    assert reference.first_difference(right) is None
    wrong = [right[0], right[1] + np.float32(0.01), right[2]]
    k, difference = reference.first_difference(wrong)
    assert k == 1 and difference.count > 900 and difference.error == pytest.approx(0.01, rel=0.01)
    assert reference.first_difference([*right[:2], ~right[2]])[1].count == 1000
    assert reference.first_difference([np.float32(np.nan), *right[1:]])[0] == 0


# --- bounds --------------------------------------------------------------------------------------


def define_shifted(by):
    """`take` as if its definition read some elements further."""

    def define(d, read, read_index):
        del read_index
        return read([Index(d.index[0] + by)])

    return define


@pytest.fixture
def shifted(monkeypatch):
    """Let `take` read outside its operand, by so many elements."""

    def plant_shift(by):
        wrong = dataclasses.replace(OPS["take"], define=define_shifted(by))
        object.__setattr__(OPS["take"], "define", wrong.define)

    original = OPS["take"].define
    yield plant_shift
    object.__setattr__(OPS["take"], "define", original)


@pytest.mark.parametrize("by, index", [(2, "%in0[5]"), (-3, "%in0[-3]"), (1 << 40, f"%in0[{1 << 40}]")])
def test_bounds_names_kernel_buffer_index_and_line(shifted, by, index):
    x, i = gw.placeholder("x", "float32", ("N",)), gw.placeholder("i", "int64", ("M",))
    w = gw.Variable(np.zeros((), np.float32), name="w")
    shifted(by)
    y, at = gw.take(x, i), line()
    function = gw.function([x, i], y, updates={w: w + 1}, debug="bounds")
    words = ("kernel @take", "loads", index, "there x", "f32[N]", at)
    refused(lambda: function(np.ones(5, np.float32), np.arange(5)), gw.BoundsError, *words)
    assert w.value == 0


def test_accesses_inside_are_not_refused(shifted):
    x, i = gw.placeholder("x", "float32", ("N",)), gw.placeholder("i", "int64", ("M",))
    shifted(2)
    function = gw.function([x, i], gw.take(x, i), debug="bounds")
    assert function(np.arange(5, dtype=np.float32), np.arange(3)).tolist() == [2, 3, 4]
    refused(lambda: function(np.ones(4, np.float32), np.arange(3)), gw.BoundsError, "%in0[4]")
    assert function(np.arange(5, dtype=np.float32), np.arange(3)).tolist() == [2, 3, 4], "the report is cleared"


def test_stores_are_guarded(monkeypatch):
    module = sys.modules["graphwright.passes.lower_to_loops"]
    original = module._lower_nest

    def later(inliner, nest, group, outputs):
        def moved(s):
            if hasattr(s, "body"):
                return dataclasses.replace(s, body=tuple(map(moved, s.body)))
            indices = tuple(Index(i.dim + 3) for i in s.indices)
            return dataclasses.replace(s, indices=indices)

        return [moved(s) for s in original(inliner, nest, group, outputs)]

    monkeypatch.setattr(module, "_lower_nest", later)
    x = gw.placeholder("x", "float32", ("N",))
    function = gw.function([x], x + 1, debug="bounds")
    refused(lambda: function(np.ones(5, np.float32)), gw.BoundsError, "stores %out0[5]", "kernel @add")


def test_a_network_runs_within_bounds(monkeypatch):
    monkeypatch.setenv("GRAPHWRIGHT_VERIFY", "1")
    x, y = gw.placeholder("x", "float32", ("N", 1, 8, 8)), gw.placeholder("y", "int64", ("N",))
    rng = np.random.default_rng(0)
    k = gw.Variable(rng.standard_normal((3, 1, 3, 3)).astype(np.float32), name="k")
    w = gw.Variable(rng.standard_normal((4, 48)).astype(np.float32), name="w")
    h = gw.nn.max_pool2d(gw.nn.relu(gw.nn.conv2d(x, k, padding=1)), 2)
    loss = gw.nn.cross_entropy(gw.nn.linear(gw.reshape(h, (h.shape[0], 48)), w), y)
    updates = {p: p - 0.1 * g for p, g in zip((k, w), gw.grad(loss, [k, w]))}
    batch = rng.standard_normal((5, 1, 8, 8)).astype(np.float32), np.arange(5) % 4
    expected = gw.function([x, y], loss)(*batch)
    for mode in ("bounds", "check", "nan"):
        found = gw.function([x, y], loss, updates={} if mode == "bounds" else updates, debug=mode)(*batch)
        assert found == pytest.approx(expected, rel=1e-4)
        expected = gw.function([x, y], loss)(*batch)


# --- modes ---------------------------------------------------------------------------------------


def test_misuse_is_refused(tmp_path):
    x = gw.placeholder("x", "float32", ("N",))
    with pytest.raises(gw.CompileError, match="'nan', 'check', 'bounds'"):
        gw.function([x], x, debug="everything")
    with pytest.raises(gw.GraphError, match="target 'cpu'"):
        gw.function([x], x, debug="nan", target="interpreter")
    with pytest.raises(gw.GraphError, match="optimize"):
        gw.function([x], x, debug="nan", optimize=False)
    with pytest.raises(gw.ExportError, match="debug"):
        gw.export(tmp_path / "f.gwa", {"f": gw.function([x], x + 1, debug="nan")})
    with pytest.raises(gw.GraphError, match="watches"):
        gw.export(tmp_path / "f.gwa", {"f": gw.function([x], x + 1, watch={"x": x})})


# --- watching ------------------------------------------------------------------------------------


def test_watched_values_are_recorded_and_cost_nothing_elsewhere():
    x = gw.placeholder("x", "float32", ("N", 3))
    w = gw.Variable(np.ones(3, np.float32), name="w")

    def build(watch):
        h = watch(x * w, "h1")
        loss = gw.sum(h * h)
        return loss, watch(gw.grad(loss, w), "dw")

    loss, g = build(lambda t, name: t)
    plain = gw.function([x], {"loss": loss}, updates={w: w - g})
    before = plain.ir("program")
    loss, g = build(gw.watch)
    assert gw.function([x], {"loss": loss}, updates={w: w - g}).ir("program") == before

    function = gw.function([x], {"loss": loss}, updates={w: w - g}, watch=True)
    data = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert function(data) == {"loss": 55} and set(function.watched) == {"h1", "dw"}
    h1 = function.watched["h1"]
    assert np.array_equal(h1.value, data) and (h1.last.minimum, h1.last.maximum, h1.last.mean) == (0, 5, 2.5)
    assert function.watched["dw"].value.tolist() == [18, 34, 58]
    function(data)
    assert len(h1.history) == 2 and h1.history[0].maximum == 5 and h1.last.maximum != 5
    counts, edges = h1.histogram(4)
    assert counts.sum() == 6 and len(edges) == 5 and h1.bars(4).count("\n") == 3
    with pytest.raises(gw.GraphError, match="watch=True"):
        plain.watched  # noqa: B018


def test_watched_values_are_printed(capsys):
    x = gw.placeholder("x", "float32", ("N",))
    e = gw.watch(gw.exp(x), "e")
    function = gw.function([x], gw.sum(e), watch="print")
    assert capsys.readouterr().out == "" and "no call" in str(function.watched["e"])
    function(np.array([0, 1000], np.float32))
    assert "e: float32[2]: min 1, max 1" in capsys.readouterr().out
    assert function.watched["e"].last.infinities == 1


def test_the_same_name_twice_is_numbered_and_givens_are_followed():
    x, z = gw.placeholder("x", "float32", ("N",)), gw.placeholder("z", "float32", ("N",))
    y = gw.watch(gw.watch(x + 1, "h") * 2, "h")
    function = gw.function([z], y, givens={x: z * 10}, watch=True)
    assert function(np.ones(1, np.float32)) == 22
    assert {name: w.value.tolist() for name, w in function.watched.items()} == {"h": [11], "h_1": [22]}


@pytest.mark.parametrize("options", [{"target": "interpreter"}, {"debug": "nan"}, {"debug": "bounds"}], ids=str)
def test_watching_works_in_every_mode(options):
    x = gw.placeholder("x", "float32", ("N",))
    h = x * 3
    function = gw.function([x], h + 1, watch={"h": h}, **options)
    assert function(np.ones(2, np.float32)).tolist() == [4, 4] and function.watched["h"].last.mean == 3


def test_watching_wrongly_is_refused():
    x = gw.placeholder("x", "float32", ("N",))
    with pytest.raises(gw.GraphError, match="no value is watched"):
        gw.function([x], x - 17, watch=True)
    with pytest.raises(gw.GraphError, match="name"):
        gw.watch(x, "not a name")
    with pytest.raises(gw.GraphError, match="tensors"):
        gw.watch(3, "three")
    with pytest.raises(gw.GraphError, match="watch must be"):
        gw.function([x], x - 17, watch="write")
    with pytest.raises(gw.GraphError, match="no value yet"):
        gw.function([x], x - 17, watch={"x": x}).watched["x"].last  # noqa: B018


def test_statistics_are_those_of_finite_elements():
    s = statistics(np.array([1, np.nan, 3, np.inf, -np.inf]))
    assert (s.minimum, s.maximum, s.mean, s.std, s.nans, s.infinities) == (1, 3, 2, 1, 1, 2)
    assert "1 NaN, 2 infinite" in str(s) and not s.finite
    assert statistics(np.array([True, False])).mean == 0.5
    assert np.isnan(statistics(np.zeros(0)).minimum) and statistics(np.zeros(0)).finite
