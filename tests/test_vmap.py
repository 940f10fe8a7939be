"""Mapping: every op's batching rule against a loop over the interpreter, control flow, and `gw.vmap`."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from checks import assert_close, cases, graph, input_value, sampled_ops
from control_forms import FORMS, INPUTS

import graphwright as gw
from graphwright.frontends.tensor import Tensor
from graphwright.ir.batching import with_lanes
from graphwright.ir.dims import symbol
from graphwright.ir.dtypes import float64
from graphwright.ir.graph import make
from graphwright.ir.interpreter import interpret
from graphwright.ir.op import OPS
from graphwright.ir.verify import verify_graph
from graphwright.passes.differentiate import pullback
from graphwright.passes.vectorize_map import vectorize

RNG = np.random.default_rng(11)
LANES = 3
WITHOUT_OPERANDS = {"input", "state", "constant", "full", "iota", "dim"}
BY_THE_ENGINE = {"item", "scan", "while", "switch", "call"}
WITHOUT_A_RULE = {"fusion": "it is made after all mapping is done"}
"""Ops that cannot be mapped, and why."""
MAPPED = [name for name in sampled_ops() if name not in WITHOUT_OPERANDS]


def test_every_op_has_a_rule():
    ruled = {name for name, op in OPS.items() if op.batch or op.elementwise}
    assert set(OPS) - ruled == WITHOUT_OPERANDS | BY_THE_ENGINE | set(WITHOUT_A_RULE)


def lanes_of(x, count):
    """Different elements of one kind: numbers are scaled and rolled, so that they stay in the op's domain."""
    rows = [np.roll(x, k) * (x.dtype.type(1) if x.dtype.kind != "f" else 1 - 0.1 * k) for k in range(count)]
    return np.array(rows, x.dtype).reshape(count, *x.shape)


def check_lanes(function, arrays, size=LANES, symbolic=False, what="", tolerance=None):
    """A function of all lanes at once against one lane after the other, for each choice of mapped operands."""
    inner = [input_value(f"x{k}", x.shape, x.dtype) for k, x in enumerate(arrays)]
    result = function(*inner)
    one = graph(inner, [result])
    for chosen in itertools.product((False, True), repeat=len(arrays)):
        if not any(chosen):
            continue
        n = symbol("B") if symbolic else size
        outer = [
            input_value(f"b{k}", (n, *x.shape), x.dtype) if m else inner[k]
            for k, (m, x) in enumerate(zip(chosen, arrays))
        ]
        mapped = {a: b for a, b, m in zip(inner, outer, chosen) if m}
        all_lanes = with_lanes(*vectorize([result], mapped, n), n)
        given = [lanes_of(x, size) if m else x for x, m in zip(arrays, chosen)]
        g = graph(outer, [all_lanes])
        verify_graph(g)
        found = interpret(g, given)[0][0]
        expected = [
            interpret(one, [x[i] if m else x for x, m in zip(given, chosen)])[0][0] for i in range(size)
        ]
        assert_close(found, np.array(expected, found.dtype).reshape(found.shape), f"{what} {chosen}", tolerance)


@pytest.mark.parametrize("name", MAPPED)
def test_the_lanes_of_every_op(name):
    for case in cases(OPS[name], (float64,)):
        check_lanes(lambda *x, case=case: make(case.op, x, case.attrs), case.operands, what=case)


@pytest.mark.parametrize("name", MAPPED)
def test_symbolic_and_no_lanes(name):
    for case in itertools.islice(cases(OPS[name], (float64,)), 4):
        check_lanes(lambda *x, case=case: make(case.op, x, case.attrs), case.operands, symbolic=True, what=case)
    case = next(iter(cases(OPS[name], (float64,))))
    check_lanes(lambda *x: make(case.op, x, case.attrs), case.operands, size=0, what=case)


@pytest.mark.parametrize("name", [n for n in MAPPED if OPS[n].vjp])
def test_gradients_of_lanes(name):
    """The gradient of all lanes is the lanes of the gradient."""
    for case in itertools.islice(cases(OPS[name], (float64,)), 2, 4):
        out = case.op.infer_type(case.values(), case.attrs)
        wrt = [k for k, x in enumerate(case.operands) if x.dtype == np.float64]
        if out.dtype != float64 or not wrt:
            continue
        inner, ct = case.values(), input_value("ct", out.shape)
        result = make(case.op, inner, case.attrs)
        outer = [input_value(f"b{k}", (LANES, *x.shape), x.dtype) for k, x in enumerate(case.operands)]
        cts = input_value("cts", (LANES, *out.shape))
        ((together, _),) = vectorize([result], dict(zip(inner, outer)), LANES)
        of_lanes = pullback([together], [cts], [outer[k] for k in wrt])
        one = [g for g in pullback([result], [ct], [inner[k] for k in wrt]) if g is not None]
        lanes_of_it = vectorize(one, {**dict(zip(inner, outer)), ct: cts}, LANES)
        given = [*(lanes_of(x, LANES) for x in case.operands), RNG.normal(size=(LANES, *out.shape))]
        pairs = [[g for g in of_lanes if g is not None], [g for g, _ in lanes_of_it]]
        a, b = (interpret(graph([*outer, cts], values), given)[0] for values in pairs)
        for x, y in zip(a, b, strict=True):
            assert_close(x, np.broadcast_to(y, x.shape), case, 1e-9)


# --- control flow --------------------------------------------------------------------------------

ARRAYS = [RNG.normal(size=shape) * 0.5 for shape in INPUTS.values()]
every_form = pytest.mark.parametrize("name", FORMS)


@every_form
def test_the_lanes_of_control_flow(name):
    looped = FORMS[name][0]
    check_lanes(lambda *v: looped(*map(Tensor, v))._value, ARRAYS, what=name, tolerance=1e-9)
    check_lanes(lambda *v: looped(*map(Tensor, v))._value, ARRAYS, symbolic=True, what=name, tolerance=1e-9)


@every_form
def test_the_lanes_of_gradients_of_control_flow(name):
    looped = FORMS[name][0]

    def gradient(*values):
        inputs = [*map(Tensor, values)]
        return gw.grad(looped(*inputs), inputs, disconnected="zero")[1]._value

    check_lanes(gradient, ARRAYS, what=name, tolerance=1e-9)


@every_form
def test_gradients_of_mapped_control_flow_compiled(name):
    looped = FORMS[name][0]
    inputs = [gw.placeholder(n, "float64", (LANES, *shape)) for n, shape in INPUTS.items()]
    together = gw.grad(gw.vmap(looped)(*inputs).sum(), inputs, disconnected="zero")
    one = gw.vmap(lambda *v: gw.grad(looped(*v), list(v), disconnected="zero"))(*inputs)
    given = [lanes_of(x, LANES) for x in ARRAYS]
    found = gw.function(inputs, [*together, *one], target="interpreter")(*given)
    n = len(inputs)
    for a, b in zip(found[:n], found[n:]):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
    for a, b in zip(gw.function(inputs, together)(*given), found[:n]):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def run(inputs, outputs, *arrays):
    f = gw.function(inputs, outputs, target="interpreter")
    verify_graph(f.graph)
    return f(*arrays)


def test_a_while_loop_with_its_own_number_of_steps_in_each_lane():
    x = gw.placeholder("x", "float64", ("B",))
    grown = gw.vmap(lambda v: gw.while_loop(lambda c: c[0] < 100.0, lambda c: (c[0] * 2.0, c[1] + 1), (v, 0)))
    values, steps = run([x], grown(x), np.array([1.0, 60.0, 1000.0]))
    np.testing.assert_array_equal(values, [128, 120, 1000])
    np.testing.assert_array_equal(steps, [7, 1, 0])


def test_a_branch_of_its_own_in_each_lane():
    k, x = gw.placeholder("k", "int32", (5,)), gw.placeholder("x", "float64", (5, 2))
    chosen = gw.vmap(lambda i, v: gw.switch(i, [lambda: v, lambda: v * 2.0, lambda: gw.zeros((2,), "float64")]))
    rows = RNG.normal(size=(5, 2))
    found = run([k, x], chosen(k, x), np.array([-3, 0, 1, 2, 9], np.int32), rows)
    np.testing.assert_array_equal(found, rows * np.array([1, 1, 2, 0, 0])[:, None])


# --- gw.vmap -------------------------------------------------------------------------------------


def placeholder(name, *shape):
    return gw.placeholder(name, "float64", shape)


def test_axes_of_arguments_and_results():
    x, w, s = placeholder("x", 4, "B"), placeholder("w", 3, 4), placeholder("s", "B")

    def layer(tree, scale):
        y = tree["w"] @ tree["x"] * scale
        return {"y": y, "total": y.sum(), "w": tree["w"].sum()}

    mapped = gw.vmap(layer, in_axes=({"x": -1, "w": None}, 0), out_axes={"y": 1, "total": 0, "w": None})
    result = mapped({"x": x, "w": w}, s)
    assert result["y"].shape == (3, symbol("B")) and result["w"].shape == ()
    a, b, c = RNG.normal(size=(4, 5)), RNG.normal(size=(3, 4)), RNG.normal(size=5)
    y, total, whole = run([x, w, s], [result["y"], result["total"], result["w"]], a, b, c)
    np.testing.assert_allclose(y, b @ a * c)
    np.testing.assert_allclose(total, (b @ a * c).sum(0))
    np.testing.assert_allclose(whole, b.sum())


def test_a_result_that_is_the_same_for_all():
    x, w = placeholder("x", "B"), placeholder("w", 2)
    found = run([x, w], gw.vmap(lambda v: [w * 2.0, v])(x), np.arange(3.0), np.array([1.0, 2]))
    np.testing.assert_array_equal(found[0], [[2, 4]] * 3)


def test_nested():
    a, b = placeholder("a", "N", 3), placeholder("b", "M", 3)
    distances = gw.vmap(gw.vmap(lambda p, q: gw.sqrt(((p - q) ** 2.0).sum()), (None, 0)), (0, None))(a, b)
    assert distances.shape == (symbol("N"), symbol("M"))
    p, q = RNG.normal(size=(4, 3)), RNG.normal(size=(5, 3))
    np.testing.assert_allclose(run([a, b], distances, p, q), np.linalg.norm(p[:, None] - q, axis=-1))


def test_gradients_of_each_example():
    x, w = placeholder("x", "B", 3), gw.Variable(RNG.normal(size=3), name="w")
    loss = lambda row: gw.tanh(row @ w) ** 2.0  # noqa: E731
    each = gw.vmap(lambda row: gw.grad(loss(row), w))(x)
    rows = RNG.normal(size=(4, 3))
    found = gw.function([x], [each, gw.grad(gw.vmap(loss)(x).sum(), w)])(rows)
    t = np.tanh(rows @ w.value)
    np.testing.assert_allclose(found[0], (2 * t * (1 - t * t))[:, None] * rows)
    np.testing.assert_allclose(found[1], found[0].sum(0))


def test_a_function_with_its_own_gradient():
    x, w = placeholder("x", "B", 3), placeholder("w", 3)
    doubled = gw.custom_gradient(lambda v, u: (gw.sin(v) * u, lambda d: (d * 2.0 * u, d)))
    value = gw.vmap(doubled, (0, None))(x, w)
    rows, u = RNG.normal(size=(4, 3)), RNG.normal(size=3)
    y, dx, dw = run([x, w], [value, *gw.grad((value * value).sum(), [x, w])], rows, u)
    np.testing.assert_allclose(y, np.sin(rows) * u)
    np.testing.assert_allclose(dx, 2 * y * 2 * u)
    np.testing.assert_allclose(dw, (2 * y).sum(0))


def test_a_recomputed_function():
    x, w = placeholder("x", "B", 3), placeholder("w", 3)
    found = []
    for wrap in (lambda f: f, gw.checkpoint):
        f = wrap(lambda v: gw.exp(gw.sin(v) * w))
        value = gw.vmap(lambda v, f=f: f(v).sum())(x)
        found.append(run([x, w], [value, *gw.grad((value * value).sum(), [x, w])], *FIXED))
    for a, b in zip(*found):
        np.testing.assert_allclose(a, b, rtol=1e-12)


FIXED = [RNG.normal(size=(4, 3)), RNG.normal(size=3)]


def test_convolutions_with_kernels_of_their_own_for_symbolic_lanes():
    """Groups are a number, so that the lanes are a loop."""
    x, w = placeholder("x", "B", 2, 1, 6), placeholder("w", "B", 4, 1, 3)
    mapped = gw.vmap(lambda a, b: gw.nn.conv1d(a, b))(x, w)
    f = gw.function([x, w], mapped, target="interpreter")
    assert " scan " in f.ir()
    a, b = RNG.normal(size=(3, 2, 1, 6)), RNG.normal(size=(3, 4, 1, 3))
    expected = [gw.nn.conv1d(gw.asarray(p), gw.asarray(q)).eval() for p, q in zip(a, b)]
    np.testing.assert_allclose(f(a, b), expected)


def test_ops_of_ones_own_have_no_rule(registry):
    double = gw.custom_op("double_lanes", lambda x: (x.dtype, x.shape), lambda out, x: None, arity=1)
    with pytest.raises(gw.GraphError, match="double_lanes of type .* has no batching rule"):
        gw.vmap(double)(placeholder("x", 2, 3))
    assert gw.map(double, placeholder("x", 2, 3)).shape == (2, 3)


def test_keys_of_their_own_draw_different_numbers():
    keys = gw.placeholder("keys", "uint32", ("B", 4))
    draw = lambda key: gw.random.normal(key, (5,))  # noqa: E731
    rows = np.arange(12, dtype=np.uint32).reshape(3, 4)
    found, alone = run([keys], [gw.vmap(draw)(keys), gw.stack([draw(keys[k]) for k in range(3)])], rows)
    np.testing.assert_array_equal(found, alone)
    assert len(set(found.ravel())) == 15


def test_a_generator_draws_other_numbers_for_each_lane():
    x, rng = placeholder("x", "B"), gw.random.Generator(3)
    noisy = gw.function([x], gw.vmap(lambda v: v + rng.normal((2,), dtype="float64"))(x))
    first, second = noisy(np.zeros(4)), noisy(np.zeros(4))
    assert len({*first.ravel(), *second.ravel()}) == 16


def test_dropout_of_each_example():
    x, rng = gw.placeholder("x", "float32", ("B", 64)), gw.random.Generator(3)
    found = gw.function([x], gw.vmap(lambda row: gw.nn.dropout(row, 0.5, rng=rng))(x))(np.ones((3, 64), np.float32))
    assert set(found.ravel()) == {0.0, 2.0} and len({row.tobytes() for row in found}) == 3
