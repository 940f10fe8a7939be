"""Derivatives of functions: vjp, gradients of one's own, recomputation; merging of loops made twice."""

from __future__ import annotations

import numpy as np
import pytest
from control_forms import FORMS, INPUTS

import graphwright as gw
from graphwright.ir.interpreter import interpret
from graphwright.ir.parser import parse_graph
from graphwright.ir.printer import print_graph
from graphwright.ir.verify import verify_graph
from graphwright.passes.cse import cse
from graphwright.passes.inline import inline_calls
from graphwright.passes.merge_loops import merge_loops
from graphwright.passes.pipelines import GRAPH

RNG = np.random.default_rng(5)
ARRAYS = [RNG.normal(size=shape) * 0.5 for shape in INPUTS.values()]


def placeholder(name="x", shape=(3,)):
    return gw.placeholder(name, "float64", shape)


def run(inputs, outputs, *arrays):
    f = gw.function(inputs, outputs, target="interpreter")
    verify_graph(f.graph)
    text = print_graph(f.graph)
    assert print_graph(parse_graph(text)) == text
    return f(*arrays)


# --- vjp -----------------------------------------------------------------------------------------


def test_vjp_is_the_product_with_the_jacobian():
    x, y = placeholder("x"), placeholder("y")
    result, pull = gw.vjp(lambda a, pair: {"u": gw.sin(a) * pair[0], "v": (a * a).sum()}, x, [y])
    dx, (dy,) = pull({"u": x, "v": 2.0})
    a, b = RNG.normal(size=3), RNG.normal(size=3)
    found = run([x, y], [result["u"], dx, dy], a, b)
    np.testing.assert_allclose(found[0], np.sin(a) * b)
    np.testing.assert_allclose(found[1], a * np.cos(a) * b + 4 * a)
    np.testing.assert_allclose(found[2], a * np.sin(a))


def test_vjp_is_by_the_arguments_alone():
    """What else the function reads is constant to it, even where an argument was made of the same tensor."""
    x = placeholder()
    _, pull = gw.vjp(lambda a: a * x, x * 2.0)
    a = RNG.normal(size=3)
    np.testing.assert_allclose(run([x], pull(gw.ones((3,), "float64"))[0], a), a)


def test_vjp_of_vjp():
    x = placeholder()

    def first(a):
        return gw.vjp(lambda b: (b * b * b).sum(), a)[1](1.0)[0]

    _, pull = gw.vjp(first, x)
    np.testing.assert_allclose(run([x], pull(x), np.array([1.0, 2.0, 3.0])), ([6.0, 24.0, 54.0],))


def test_vjp_in_a_loop():
    """A step of gradient descent as the body of a scan."""
    x = placeholder()

    def step(point, _):
        value, pull = gw.vjp(lambda p: ((p - 3.0) ** 2).sum(), point)
        return point - 0.25 * pull(1.0)[0], value

    last, values = gw.scan(step, x, length=20)
    point, losses = run([x], [last, values], np.zeros(3))
    np.testing.assert_allclose(point, 3.0, atol=1e-5)
    assert losses[0] == 27.0 and np.all(np.diff(losses) < 0)


# --- gradients of one's own ----------------------------------------------------------------------


def test_a_gradient_of_ones_own():
    x, s = placeholder(), placeholder("s", ())

    @gw.custom_gradient
    def clipped(pair, scale):
        return {"y": gw.tanh(pair[0] + pair[1])}, lambda d: ([gw.clip(d["y"], -1.0, 1.0), None], d["y"].sum() * scale)

    loss = (clipped([x, x * 2.0], s)["y"] * 3.0).sum()
    a = RNG.normal(size=3)
    value, dx, ds = run([x, s], [loss, *gw.grad(loss, [x, s])], a, 0.5)
    np.testing.assert_allclose(value, 3 * np.tanh(3 * a).sum())
    np.testing.assert_array_equal(dx, np.ones(3))
    assert ds == 4.5


def test_a_gradient_of_ones_own_in_a_loop():
    x = placeholder()

    @gw.custom_gradient
    def doubled_gradient(v):
        return gw.sin(v), lambda d: d * 2.0 * gw.cos(v)

    last, _ = gw.scan(lambda c, _: (doubled_gradient(c), None), x, length=3)
    plain, _ = gw.scan(lambda c, _: (gw.sin(c), None), x, length=3)
    a = RNG.normal(size=3)
    found, expected = run([x], [gw.grad(last.sum(), x), gw.grad(plain.sum(), x)], a)
    np.testing.assert_allclose(found, 8 * expected)


def test_what_a_gradient_of_ones_own_does_not_cover_is_refused():
    x, w = placeholder(), placeholder("w")
    scaled = gw.custom_gradient(lambda v: (v * w, lambda d: d))
    gw.grad(scaled(x).sum(), x)
    with pytest.raises(gw.DifferentiationError, match=r"'w' of type f64\[3\] .* none of its arguments"):
        gw.grad(scaled(x).sum(), w)
    gw.grad(gw.custom_gradient(lambda v: (v * gw.stop_gradient(w), lambda d: d))(x).sum(), x)


# --- recomputation -------------------------------------------------------------------------------


def layers(layer, x):
    for _ in range(4):
        x = layer(x)
    return x.sum()


def test_checkpoint_computes_again():
    x, W = placeholder("x", ("N", 8)), gw.Variable(RNG.normal(size=(8, 8)), name="W")

    def layer(v):
        return gw.tanh(gw.exp(gw.sin(v @ W) * 0.1) @ W)

    arrays = RNG.normal(size=(5, 8))
    found = []
    for chosen in (layer, gw.checkpoint(layer)):
        loss = layers(chosen, x)
        f = gw.function([x], [loss, *gw.grad(loss, [x, W])])
        found.append((f(arrays), f.ir("optimized"), gw.function([x], gw.grad(loss, W), target="interpreter")(arrays)))
    (plain, kept, _), (again, recomputed, interpreted) = found
    for a, b in zip(plain, again):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    np.testing.assert_allclose(interpreted, plain[2], rtol=1e-12)
    assert kept.count(" sin ") == 4 and recomputed.count(" sin ") == 8
    assert " after " in recomputed and " call " not in recomputed


def training_step(depth, wrap):
    """A step of a deep network of blocks of three layers with 64 units, for 256 rows."""
    x = gw.placeholder("x", "float32", (256, 64))
    weights = [[gw.Variable(np.eye(64, dtype=np.float32)) for _ in range(3)] for _ in range(depth)]

    def block(v, layers):
        for w in layers:
            v = gw.tanh(v @ w)
        return v

    y = x
    for layers in weights:
        y = wrap(lambda v, layers=layers: block(v, layers))(y)
    flat = [w for layers in weights for w in layers]
    gradient = gw.grad((y * y).sum(), flat)
    return gw.function([x], updates={w: w - 0.1 * g for w, g in zip(flat, gradient)})


def test_checkpoints_lower_the_peak():
    """A block is computed again just before its gradient: one value of each is kept, and the inner ones of one."""
    row = 256 * 64 * 4
    plain, again = (int(training_step(12, wrap).memory()) for wrap in (lambda f: f, gw.checkpoint))
    assert plain >= 36 * row and again <= (12 + 3 + 4) * row
    deeper = int(training_step(24, gw.checkpoint).memory())
    assert deeper - again == 12 * row


def test_gradients_of_weights_do_not_wait_for_all_cotangents():
    """So the cotangents, as many as values, need not be kept: of 36 values there are three more."""
    assert int(training_step(12, lambda f: f).memory()) <= (36 + 4) * 256 * 64 * 4


def test_checkpoint_in_loops_and_loops_in_checkpoint():
    x, W = placeholder("x", (3,)), placeholder("W", (3, 3))

    def values(wrap):
        inner = wrap(lambda c: gw.scan(lambda s, _: (gw.tanh(s @ W), None), c, length=2)[0])
        last, _ = gw.scan(lambda c, _: (inner(c) + c, None), x, length=3)
        first = gw.grad((last * last).sum(), [x, W])
        return [*first, *gw.grad(sum(gw.sin(g).sum() for g in first), [x, W])]

    arrays = [RNG.normal(size=3), RNG.normal(size=(3, 3))]
    expected = run([x, W], values(lambda f: f), *arrays)
    for a, b in zip(run([x, W], values(gw.checkpoint), *arrays), expected):
        np.testing.assert_allclose(a, b, rtol=1e-10)


def test_what_is_computed_again_is_not_shared():
    x = placeholder()
    text = gw.function([x], gw.grad(gw.checkpoint(lambda v: gw.exp(gw.sin(v)))(x).sum(), x), target="interpreter")
    graph = inline_calls(text.graph)
    assert cse(graph) is graph
    assert str(graph).count(" after ") == 1


# --- merging -------------------------------------------------------------------------------------


def loops(graph):
    text = print_graph(graph)
    return text.count(" scan ") + text.count(" while ")


def test_the_forward_loop_and_the_one_that_keeps_values_become_one():
    x, h = placeholder("x", ("T", 3)), placeholder("h")
    last, rows = gw.scan(lambda c, e: (gw.tanh(c * e), c.sum()), h, x)
    loss = (last * last).sum() + rows.sum()
    graph = gw.function([x, h], [loss, gw.grad(loss, h)], target="interpreter").graph
    assert loops(graph) == 3
    merged = merge_loops(graph)
    verify_graph(merged)
    assert loops(merged) == 2
    arrays = [RNG.normal(size=(4, 3)), RNG.normal(size=3)]
    for a, b in zip(interpret(graph, arrays)[0], interpret(merged, arrays)[0]):
        np.testing.assert_array_equal(a, b)
    assert merge_loops(merged) is merged


@pytest.mark.parametrize("name", FORMS)
def test_the_passes_keep_values_of_control_flow(name):
    """Every pass before fusion, on a form's gradient: the same values, and no loop runs twice."""
    inputs = [placeholder(n, shape) for n, shape in INPUTS.items()]
    value = FORMS[name][0](*inputs)
    graph = gw.function(inputs, [value, *gw.grad(value, inputs, disconnected="zero")], target="interpreter").graph
    expected = interpret(graph, ARRAYS)[0]
    for p in GRAPH:
        if p.name == "fuse":
            break
        graph = p.run(graph)
        verify_graph(graph)
    for a, b in zip(interpret(graph, ARRAYS)[0], expected):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    if name == "carries_and_outputs":
        assert loops(graph) == 2
