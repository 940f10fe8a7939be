"""Forward mode: the tangent of every op and control form, against differences and against reverse mode."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from checks import cases, graph, input_value, sampled_ops, symbolic
from control_forms import FORMS, INPUTS

import graphwright as gw
from graphwright.frontends.tensor import Tensor
from graphwright.ir.broadcasting import full
from graphwright.ir.dtypes import float64
from graphwright.ir.graph import make
from graphwright.ir.interpreter import interpret
from graphwright.ir.op import OPS, ZERO_GRADIENT
from graphwright.ir.verify import verify_graph
from graphwright.passes.differentiate import pullback
from graphwright.passes.pushforward import pushforward

IMPLICIT = "by_concentration"  # its derivative is not that of its value
DIFFERENTIABLE = [n for n in sampled_ops() if OPS[n].vjp not in (None, ZERO_GRADIENT) and n != IMPLICIT]
RNG = np.random.default_rng(7)


def interpreted(inputs, outputs, arrays):
    g = graph(inputs, outputs)
    verify_graph(g)
    return interpret(g, arrays)[0]


def zeros(v):
    return full(v.tensor.shape, 0, v.tensor.dtype)


def check_tangents(function, arrays, what, tolerance=1e-5):
    """The tangents of a function's results, by all float operands and by each alone, in a random direction.

    They are compared with central differences, and by ``<u, J v> = <J^T u, v>`` with reverse mode.
    """
    inputs = [input_value(f"x{k}", x.shape, x.dtype) for k, x in enumerate(arrays)]
    floats = [k for k, x in enumerate(arrays) if x.dtype == np.float64]
    result = function(*inputs)
    seeds = [input_value(f"t{k}", arrays[k].shape) for k in floats]
    ct = input_value("ct", result.tensor.shape)
    directions = [RNG.normal(size=arrays[k].shape) for k in floats]
    weight = RNG.normal(size=result.tensor.shape)
    for chosen in {tuple(floats), *((k,) for k in floats)}:
        given = [s if k in chosen else None for k, s in zip(floats, seeds)]
        (tangent,) = pushforward([result], [inputs[k] for k in floats], given)
        back = pullback([result], [ct], [inputs[k] for k in chosen])
        outputs = [tangent or zeros(result), *(g or zeros(inputs[k]) for g, k in zip(back, chosen))]
        found, *grads = interpreted([*inputs, *seeds, ct], outputs, [*arrays, *directions, weight])
        steps = {k: d for k, d in zip(floats, directions) if k in chosen}
        both = [sum(np.sum(g * steps[k]) for g, k in zip(grads, chosen)), np.sum(found * weight)]
        np.testing.assert_allclose(*both, rtol=1e-9, atol=1e-9, err_msg=f"{what} by {chosen}")
        difference = sum(
            sign * interpreted(inputs, [result], [x + sign * 1e-5 * steps.get(k, 0) if k in steps else x
                                                  for k, x in enumerate(arrays)])[0] / 2e-5
            for sign in (1, -1)
        )
        np.testing.assert_allclose(found, difference, rtol=tolerance, atol=tolerance, err_msg=f"{what} by {chosen}")


# --- ops -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_the_tangent_of_every_op(name):
    tried = 0
    for case in cases(OPS[name], (float64,)):
        if case.op.infer_type(case.values(), case.attrs).dtype == float64:
            check_tangents(lambda *x, case=case: make(case.op, x, case.attrs), case.operands, case)
            tried += 1
    assert tried


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_the_tangent_of_every_tangent_and_gradient(name):
    """Forward over forward, and forward over reverse."""
    for case in itertools.islice(cases(OPS[name], (float64,)), 1, 3):
        if case.op.infer_type(case.values(), case.attrs).dtype != float64:
            continue
        floats = [k for k, x in enumerate(case.operands) if x.dtype == np.float64]
        first = [RNG.normal(size=x.shape) for x in case.operands]
        cts = RNG.normal(size=case.expected().shape)

        def along(*x, case=case, floats=floats, first=first):
            y = make(case.op, x, case.attrs)
            (t,) = pushforward([y], [x[k] for k in floats], [constant(first[k]) for k in floats])
            return t or zeros(y)

        def back(*x, case=case, floats=floats, cts=cts):
            y = make(case.op, x, case.attrs)
            found = pullback([y], [constant(cts)], [x[floats[0]]])[0]
            return found or zeros(x[floats[0]])

        check_tangents(along, case.operands, f"twice {case}", 1e-4)
        check_tangents(back, case.operands, f"the gradient of {case}", 1e-4)


def constant(array):
    from graphwright.ir.broadcasting import as_value

    return as_value(np.asarray(array))


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_tangents_of_symbolic_sizes(name):
    for case in itertools.islice(cases(OPS[name], (float64,)), 6):
        out = case.op.infer_type(case.values(), case.attrs)
        for inputs, value, _ in symbolic(case) if out.dtype == float64 else ():
            wrt = [v for v in inputs if v.tensor.dtype == float64]
            seeds = [input_value(f"t{k}", v.tensor.shape) for k, v in enumerate(wrt)]
            (tangent,) = pushforward([value], wrt, seeds)
            directions = [RNG.normal(size=x.shape) for x in case.operands if x.dtype == np.float64]
            found = interpreted([*inputs, *seeds], [tangent or zeros(value)], [*case.operands, *directions])[0]
            static = case.values()
            known = [v for v in static if v.tensor.dtype == float64]
            seeds = [input_value(f"t{k}", v.tensor.shape) for k, v in enumerate(known)]
            result = make(case.op, static, case.attrs)
            (tangent,) = pushforward([result], known, seeds)
            expected = interpreted([*static, *seeds], [tangent or zeros(result)], [*case.operands, *directions])[0]
            np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10, err_msg=str(case))


def test_ops_without_a_derivative_are_refused():
    x = gw.placeholder("x", "float64", (3,))
    with pytest.raises(gw.DifferentiationError, match="nextafter of type .* has no derivative"):
        gw.jvp(gw.nextafter(x, x + 1.0), x, x)
    without = {n for n in OPS if OPS[n].vjp is None and OPS[n].kind not in ("leaf", "region")}
    assert {"nextafter", "masked", "item"} <= without  # the last two are the engines' own


# --- control flow --------------------------------------------------------------------------------

ARRAYS = [RNG.normal(size=shape) * 0.5 for shape in INPUTS.values()]
every_form = pytest.mark.parametrize("name", FORMS)


@every_form
def test_the_tangent_of_control_flow(name):
    looped = FORMS[name][0]
    check_tangents(lambda *values: looped(*map(Tensor, values))._value, ARRAYS, name, 2e-4)


@every_form
def test_hessian_vector_products_of_control_flow(name):
    """Forward over reverse, reverse over reverse, and forward over forward agree; compiled code too."""
    inputs = [gw.placeholder(n, "float64", shape) for n, shape in INPUTS.items()]
    directions = [gw.placeholder(f"d{n}", "float64", shape) for n, shape in INPUTS.items()]
    value = FORMS[name][0](*inputs)
    product = gw.hvp(value, inputs, directions)
    first = gw.grad(value, inputs, disconnected="zero")
    again = gw.grad(sum((g * d).sum() for g, d in zip(first, directions)), inputs, disconnected="zero")
    twice = gw.jvp(gw.jvp(value, inputs, directions), inputs, directions)
    arrays = [*ARRAYS, *(RNG.normal(size=shape) for shape in INPUTS.values())]
    outputs = [*product, *again, twice]
    found = gw.function([*inputs, *directions], outputs, target="interpreter")(*arrays)
    n = len(inputs)
    for a, b in zip(found[:n], found[n:2 * n]):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8)
    along = sum(np.sum(h * d) for h, d in zip(found[:n], arrays[n:]))
    np.testing.assert_allclose(found[-1], along, rtol=1e-8, atol=1e-8)
    compiled = gw.function([*inputs, *directions], [*product, twice])(*arrays)
    for a, b in zip(compiled, [*found[:n], found[-1]], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8)


def test_an_unbounded_loop_has_tangents():
    x, t = gw.placeholder("x", "float64", ()), gw.placeholder("t", "float64", ())
    grown = gw.while_loop(lambda c: c < 100.0, lambda c: c * x, x)
    found = gw.function([x, t], [grown, gw.jvp(grown, x, t)], target="interpreter")(3.0, 2.0)
    np.testing.assert_allclose(found, [243.0, 2 * 5 * 3.0**4])


# --- what users write ----------------------------------------------------------------------------


def placeholder(name="x", shape=(3,)):
    return gw.placeholder(name, "float64", shape)


def run(inputs, outputs, *arrays):
    return gw.function(inputs, outputs, target="interpreter")(*arrays)


def test_of_a_function_and_of_tensors():
    x, y, t = placeholder("x"), placeholder("y"), placeholder("t")

    def both(a, pair):
        return {"u": gw.sin(a) * pair[0], "n": gw.argmax(a)}

    result, tangent = gw.jvp(both, (x, [y]), (t, [x]))
    same = gw.jvp(both(x, [y]), (x, [y]), (t, [x]))
    a, b, v = RNG.normal(size=(3, 3))
    found = run([x, y, t], [result["u"], tangent["u"], same["u"], tangent["n"]], a, b, v)
    np.testing.assert_allclose(found[0], np.sin(a) * b)
    np.testing.assert_allclose(found[1], np.cos(a) * v * b + np.sin(a) * a)
    np.testing.assert_array_equal(found[1], found[2])
    assert found[3] == 0 and found[3].dtype == np.int64


def test_of_a_function_of_one_tensor():
    x = placeholder()
    result, tangent = gw.jvp(lambda a: a * a * x, x, np.ones(3))
    found = run([x], [result, tangent, gw.hvp(lambda a: (a ** 3.0).sum(), x, x)], np.array([1.0, 2, 3]))
    np.testing.assert_allclose(found, [[1, 8, 27], [2, 8, 18], [6, 24, 54]])


def test_what_depends_on_each_other_adds_up():
    x = placeholder()
    y = x * 2.0
    found = run([x], gw.jvp(y * x, [x, y], [x, x]), np.array([1.0, 2, 3]))
    np.testing.assert_allclose(found, 2 * np.array([1.0, 4, 9]) + 3 * np.array([1.0, 4, 9]))


def test_stop_gradient_and_what_is_not_reached_have_no_tangent():
    x, y = placeholder("x"), placeholder("y")
    found = run([x, y], gw.jvp([gw.stop_gradient(x) * x, y, gw.floor(x)], x, x), np.array([1.0, 2, 3]), np.ones(3))
    np.testing.assert_allclose(found, [[1, 4, 9], [0, 0, 0], [0, 0, 0]])


def test_gradients_of_ones_own_are_transposed():
    x, t = placeholder("x"), placeholder("t")

    @gw.custom_gradient
    def doubled(a, b):
        return (gw.sin(a) * b, a), lambda d: (d[0] * 2.0 * b + d[1], gw.cumulative_sum(d[0]))

    result, tangent = gw.jvp(doubled, (x, x), (t, t))
    a, v = RNG.normal(size=(2, 3))
    found = run([x, t], [*result, *tangent], a, v)
    np.testing.assert_allclose(found[2], 2 * a * v + np.cumsum(v[::-1])[::-1])
    np.testing.assert_allclose(found[3], v)


def test_gradients_of_ones_own_that_are_not_linear_are_refused():
    x = placeholder()
    clipped = gw.custom_gradient(lambda a: (a * 1.0, lambda d: gw.clip(d, -1.0, 1.0)))
    with pytest.raises(gw.DifferentiationError, match="not linear in the cotangent"):
        gw.jvp(clipped, x, x)


def test_recomputed_functions_have_tangents():
    x = placeholder()
    again = gw.checkpoint(lambda a: gw.exp(gw.sin(a)))
    loss = lambda f: (f(x) * x).sum()  # noqa: E731
    f = lambda a: gw.exp(gw.sin(a))  # noqa: E731
    outputs = [gw.jvp(loss(again), x, x), gw.hvp(loss(again), x, x), gw.jvp(loss(f), x, x), gw.hvp(loss(f), x, x)]
    a, b, c, d = run([x], outputs, RNG.normal(size=3))
    np.testing.assert_allclose(a, c)
    np.testing.assert_allclose(b, d)


def test_a_stable_form_is_differentiated():
    x = placeholder()
    tangent = gw.jvp(gw.log(1.0 + gw.exp(x)), x, gw.ones((3,), "float64"))
    np.testing.assert_allclose(run([x], tangent, np.array([-1000.0, 0, 1000])), [0, 0.5, 1])


def test_ops_of_ones_own(registry):
    import sympy

    s = sympy.Symbol("s")
    mish = gw.elementwise("mish_forward", s * sympy.tanh(sympy.log(1 + sympy.exp(s))))
    doubled = gw.custom_op(
        "doubled_forward", lambda x: (x.dtype, x.shape), double, vjp=lambda g, y, x: g * 2.0, arity=1
    )
    x = placeholder()
    tangents = [gw.jvp(mish(x), x, x), gw.grad(mish(x).sum(), x) * x, gw.jvp(doubled(x), x, x)]
    a = RNG.normal(size=3)
    found = run([x], tangents, a)
    np.testing.assert_allclose(found[0], found[1])
    np.testing.assert_allclose(found[2], 2 * a)


def double(out, x):
    for i in range(x.shape[0]):
        out[i] = 2 * x[i]
