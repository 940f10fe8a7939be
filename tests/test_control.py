"""Loops and branches as users write them: values against Python's own, structures, captures, lines."""

from __future__ import annotations

import math

import numpy as np
import pytest
from checks import graph

import graphwright as gw
from graphwright.compiler.driver import compile_graph
from graphwright.errors import DimensionError
from graphwright.ir import dims
from graphwright.ir.dtypes import float32, int64
from graphwright.ir.op import OPS
from graphwright.ir.parser import parse_graph
from graphwright.ir.printer import print_graph
from graphwright.ir.verify import verify_graph
from graphwright.runtime.structure import flatten

x = gw.placeholder("x", "float32", ("T", "N"))
h = gw.placeholder("h", "float32", ("N",))
i = gw.placeholder("i", "int64", ())


def run(inputs, outputs, *arrays):
    """The outputs for some arguments: compiled and interpreted, the same through the text of the graph."""
    f = gw.function(inputs, outputs, target="interpreter")
    verify_graph(f.graph)
    text = print_graph(f.graph)
    assert print_graph(parse_graph(text)) == text
    found = f(*arrays)
    compiled = gw.function(inputs, outputs)(*arrays)
    for a, b in zip(flatten(compiled)[0], flatten(found)[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    return found


def sample(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


# --- scan ----------------------------------------------------------------------------------------

OPTIONS = [
    {}, {"checkpoint": 1}, {"checkpoint": 2}, {"checkpoint": 9}, {"truncate_gradient": 1}, {"truncate_gradient": 3},
    {"checkpoint": 2, "truncate_gradient": 3}, {"unroll": 3},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [0, 1, 5, 6])
def test_scan_is_the_loop(length, reverse, options):
    def step(carry, element):
        new = {"h": carry["h"] * 0.5 + element, "n": carry["n"] + 1}
        return new, (new["h"] * 2.0, [carry["n"], None])

    result = gw.scan(step, {"h": h, "n": 0}, x, reverse=reverse, **options)
    assert result[1][0].shape == x.shape
    xs, start = sample(length, 2), sample(2)
    last, (doubled, (numbers, nothing)) = run([x, h], result, xs, start)
    c, rows, counts = start, np.zeros((length, 2), np.float32), np.zeros(length, np.int64)
    for n, k in enumerate(reversed(range(length)) if reverse else range(length)):
        c = c * np.float32(0.5) + xs[k]
        rows[k], counts[k] = 2 * c, n
    np.testing.assert_array_equal(last["h"], c)
    assert last["n"] == length and nothing is None
    np.testing.assert_array_equal(doubled, rows)
    np.testing.assert_array_equal(numbers, counts)


def test_the_step_runs_once_whatever_the_length():
    calls = []
    for length in (2, 1000, "T"):
        gw.scan(lambda c, _: (calls.append(0) or c * 2.0, None), h, length=length)
    assert len(calls) == 3


def test_the_root_of_a_known_length():
    xs = gw.placeholder("xs", "float32", (10,))
    last, _ = gw.scan(lambda c, e: (c + e, None), 0.0, xs, checkpoint="sqrt")
    f = gw.function([xs], last, target="interpreter")
    assert "length = 3, checkpoint = true}" in f.ir()
    assert f(np.arange(10, dtype=np.float32)) == 45


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "backward"])
def test_the_root_of_a_symbolic_length(reverse):
    """One compilation for all lengths, those with steps left over and none at all included."""
    x, U = gw.placeholder("x", "float64", ("T", 3)), gw.placeholder("U", "float64", (3, 3))

    def gradient(checkpoint):
        step = lambda c, e: (gw.tanh(c @ U + e), c)  # noqa: E731
        last, rows = gw.scan(step, gw.zeros(3, "float64"), x, reverse=reverse, checkpoint=checkpoint)
        return gw.function([x, U], gw.grad(gw.sum(last * last) + gw.sum(rows), [x, U]))

    f, plain = gradient("sqrt"), gradient(None)
    assert "isqrt(T)" in f.ir("program")
    rng = np.random.default_rng(0)
    u = rng.normal(size=(3, 3))
    for length in (0, 1, 2, 3, 4, 8, 9, 10, 63, 64, 65, 1000):
        xs = rng.normal(size=(length, 3))
        for found, expected in zip(f(xs, u), plain(xs, u), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_memory_grows_like_the_root_of_the_length():
    h = gw.placeholder("h", "float32", (64,))

    def gradient(checkpoint):
        last, _ = gw.scan(lambda c, _: (gw.sin(c), None), h, length="T", checkpoint=checkpoint)
        return gw.function([x, h], gw.grad(gw.sum(last), h))

    f, plain = gradient("sqrt"), gradient(None)
    for length in (10_000, 1_000_000):
        assert 256 * length <= plain.memory(T=length, N=1) < 3 * 256 * length
        assert f.memory(T=length, N=1) < 6 * 256 * math.isqrt(length)
    assert "isqrt" in str(f.memory())


def test_roots_of_dimensions_are_exact():
    x = OPS["input"](name="x", shape=(dims.symbol("T"),), dtype=float32)
    root = dims.isqrt(dims.symbol("T"))
    results = [OPS["dim"](value=d, dtype=int64) for d in (root, dims.isqrt(root) - 1)]
    f = compile_graph(graph([x], results), structure=["list", "*", "*"])
    for n in (0, 1, 2, 3, 4, 8, 9, 15, 16, 17, 99, 100, 101, 65535, 65536, 65537):
        assert f.executable(np.zeros(n, np.float32)) == [math.isqrt(n), math.isqrt(math.isqrt(n)) - 1]
    assert dims.equal(dims.isqrt(dims.symbol("T")), root) and dims.at_most(0, root)
    with pytest.raises(DimensionError, match="the root of -1"):
        dims.isqrt(-1)


def test_captures_are_found_in_nested_bodies():
    W = gw.Variable(np.eye(2, dtype=np.float32) * 3, name="W")
    x, h = gw.placeholder("x", "float32", ("T", 2)), gw.placeholder("h", "float32", (2,))
    scale = gw.exp(h)

    def inner(c, _):
        return c @ W + scale, None

    def outer(c, e):
        return gw.scan(inner, c + e, length=2)[0], None

    last, _ = gw.scan(outer, h, x)
    xs, start = sample(3, 2), sample(2)
    c = start
    for e in xs:
        c = c + e
        for _ in range(2):
            c = 3 * c + np.exp(start)
    np.testing.assert_allclose(run([x, h], last, xs, start), c, rtol=1e-6)


def test_what_does_not_change_is_computed_before_the_loop():
    last, _ = gw.scan(lambda c, _: (c * gw.exp(h), None), h, length=3)
    assert gw.function([h], last, target="interpreter").ir().index(" exp ") < 100


def test_a_symbolic_length_may_be_one_of_no_sequence():
    last, counts = gw.scan(lambda c, _: (c + 1, c), 0, length="T")
    f = gw.function([x], [last, counts], target="interpreter")
    assert f(sample(4, 2))[0] == 4


def test_lines_inside_of_bodies_are_the_users():
    def step(c, e):
        return gw.tanh(c + e), None

    last, _ = gw.scan(step, h, x)
    line = step.__code__.co_firstlineno + 1
    text = gw.function([x, h], last, target="interpreter").ir()
    assert any("tanh %0" in t and t.endswith(f'loc("test_control.py":{line})') for t in text.splitlines())


def test_variables_are_read_and_updated_around_loops():
    v = gw.Variable(np.ones(2, np.float32), name="v")
    x = gw.placeholder("x", "float32", ("T", 2))
    last, _ = gw.scan(lambda c, e: (c * v + e, None), v, x)
    f = gw.function([x], last, updates={v: last}, target="interpreter")
    f(np.ones((1, 2), np.float32))
    np.testing.assert_array_equal(v.value, [2, 2])
    np.testing.assert_array_equal(f(np.ones((1, 2), np.float32)), [5, 5])


def test_map():
    squares = gw.map(lambda pair: (pair[0] * pair[1], pair[0].sum()), (x, x))
    xs = sample(3, 2)
    products, sums = run([x], squares, xs)
    np.testing.assert_array_equal(products, xs * xs)
    np.testing.assert_allclose(sums, xs.sum(1), rtol=1e-6)


@pytest.mark.parametrize("reverse", [False, True])
def test_associative_scan(reverse):
    both = lambda a, b: {"s": a["s"] + b["s"], "p": a["p"] * b["p"]}  # noqa: E731
    pairs = gw.associative_scan(both, {"s": x, "p": x}, reverse=reverse)
    assert pairs["s"].shape == x.shape
    xs = sample(4, 2)
    found = run([x], pairs, xs)
    order = slice(None, None, -1) if reverse else slice(None)
    np.testing.assert_allclose(found["s"], np.cumsum(xs[order], 0)[order], rtol=1e-5)
    np.testing.assert_allclose(found["p"], np.cumprod(xs[order], 0)[order], rtol=1e-5)


# --- while ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "steps"), [(None, 7), (3, 3), (7, 7), (100, 7), (0, 0)])
def test_while_loop(limit, steps):
    double = lambda c: {"x": c["x"] * 2.0, "n": c["n"] + 1}  # noqa: E731
    found = run([], gw.while_loop(lambda c: c["x"] < 100.0, double, {"x": 1.0, "n": 0}, limit))
    assert found["n"] == steps and found["x"] == 2.0**steps


def test_fori():
    body = lambda k, c: c * 10 + k  # noqa: E731
    assert run([], gw.fori(1, 4, body, 0)) == 123
    assert run([], gw.fori(4, 1, body, 7)) == 7
    for k, found in ((4, 123), (1, 0), (-3, 0)):
        assert run([i], gw.fori(1, i, body, 0), k) == found
    assert run([i], gw.fori(1, i, body, 0, max_steps=2), 4) == 12
    sizes = gw.fori(0, x.shape[0], lambda k, c: c + k, 0)
    assert run([x], sizes, sample(5, 2)) == 10


# --- branches ------------------------------------------------------------------------------------


def test_cond():
    chosen = gw.cond(h.sum() > 0, lambda: {"a": gw.exp(h), "b": 1}, lambda: {"b": h[0], "a": h})
    for start in (np.array([1, 2], np.float32), np.array([-1, -2], np.float32)):
        found = run([h], chosen, start)
        positive = start.sum() > 0
        np.testing.assert_allclose(found["a"], np.exp(start) if positive else start, rtol=1e-6)
        assert found["b"] == (1 if positive else start[0])


@pytest.mark.parametrize(("index", "taken"), [(-5, 0), (0, 0), (1, 1), (2, 2), (9, 2)])
def test_switch_clamps(index, taken):
    chosen = gw.switch(i, [lambda: h, lambda: h * 2.0, lambda: h * 3.0])
    np.testing.assert_array_equal(run([h, i], chosen, sample(2), index), sample(2) * (taken + 1))


def test_only_the_branch_taken_runs():
    """What a branch computes of outer values stays inside of it; what was there before is shared."""
    before = gw.exp(h)
    chosen = gw.cond(h.sum() > 0, lambda: gw.log(before), lambda: gw.sin(h))
    text = gw.function([h], chosen, target="interpreter").ir()
    top = [line for line in text.splitlines() if line.startswith("  %")]
    assert any(" exp " in line for line in top)
    assert not any(" log " in line or " sin " in line for line in top)


def test_a_branch_is_the_same_whatever_there_was_before():
    def text():
        return gw.function([h], gw.cond(h.sum() > 0, lambda: gw.log(gw.exp(h)), lambda: h), target="interpreter").ir()

    first = text()
    kept = gw.log(gw.exp(h))
    assert text().splitlines() == first.splitlines()
    assert kept.shape == h.shape


def test_branches_may_hold_loops_and_loops_branches():
    def step(c, e):
        up = lambda: gw.while_loop(lambda v: v.sum() < 10.0, lambda v: v * 2.0, c + e)  # noqa: E731
        return gw.cond(e.sum() > 0, up, lambda: c - 1.0), None

    last, _ = gw.scan(step, h, x)
    xs = np.array([[1, 1], [-1, 0], [0.5, 0]], np.float32)
    c = np.ones(2, np.float32)
    for e in xs:
        if e.sum() > 0:
            c = c + e
            while c.sum() < 10:
                c = c * 2
        else:
            c = c - 1
    np.testing.assert_array_equal(run([x, h], last, xs, np.ones(2, np.float32)), c)


# --- mistakes (those that only need a message are in error_cases_control.py) ---------------------


def test_a_tensor_of_a_body_does_not_leave_it():
    leaked = []
    gw.scan(lambda c, e: (leaked.append(c * e) or c, None), h, x)
    with pytest.raises(gw.GraphError, match="belongs to the body of a loop or branch, and was used outside of it"):
        gw.function([x, h], leaked[0])


def test_an_error_in_a_body_leaves_nothing_behind():
    with pytest.raises(ZeroDivisionError):
        gw.scan(lambda c, e: 1 / 0, h, x)
    v = gw.Variable(np.ones(2, np.float32))
    v.assign(np.zeros(2, np.float32))  # no body is being traced any more
    assert gw.exp(h)._value.loc.file == __file__
