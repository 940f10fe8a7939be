"""Jacobians and Hessians: against differences, in both modes, with control flow and symbolic sizes."""

from __future__ import annotations

import numpy as np
import pytest
from control_forms import FORMS, INPUTS

import graphwright as gw
from graphwright.frontends.tensor import Tensor
from graphwright.ir.dims import symbol

RNG = np.random.default_rng(3)
ARRAYS = [RNG.normal(size=shape) * 0.5 for shape in INPUTS.values()]


def placeholder(name="x", *shape):
    return gw.placeholder(name, "float64", shape)


def run(inputs, outputs, *arrays, target="interpreter"):
    return gw.function(inputs, outputs, target=target)(*arrays)


def differences(function, arrays, k, h=1e-5):
    """The Jacobian of an array function by its argument k, by central differences."""
    columns = []
    for index in np.ndindex(arrays[k].shape):
        step = np.zeros_like(arrays[k])
        step[index] = h
        up, down = (function(*[a + s * step if j == k else a for j, a in enumerate(arrays)]) for s in (1, -1))
        columns.append((np.asarray(up) - np.asarray(down)) / (2 * h))
    out = np.shape(columns[0])
    return np.moveaxis(np.array(columns), 0, -1).reshape(*out, *arrays[k].shape)


@pytest.mark.parametrize("mode", ["auto", "forward", "reverse"])
def test_blocks_of_a_nested_function(mode):
    x, w, s = placeholder("x", 4), placeholder("w", 3, 4), placeholder("s")

    def layer(point, params):
        y = gw.tanh(params["w"] @ point) * params["s"]
        return [y, gw.cumulative_sum(point)]

    found = gw.jacobian(layer, (x, {"w": w, "s": s}), mode=mode)
    arrays = [RNG.normal(size=4), RNG.normal(size=(3, 4)), np.asarray(RNG.normal())]
    values = gw.function([x, w, s], layer(x, {"w": w, "s": s}), target="interpreter")
    for k in range(2):
        (by_x, by_params), what = found[k], lambda *a, k=k: values(*a)[k]
        blocks = run([x, w, s], [by_x, by_params["w"], by_params["s"]], *arrays)
        for j, block in enumerate(blocks):
            np.testing.assert_allclose(block, differences(what, arrays, j), rtol=1e-6, atol=1e-8)


def test_the_mode_is_that_of_the_smaller_side():
    x = placeholder("x", "N")
    few, many = gw.jacobian(x[:2] * gw.sum(x), x), gw.jacobian(gw.concat([x, x * x]), x)
    texts = [gw.function([x], j, target="interpreter").ir() for j in (few, many)]
    assert [" pad " in text for text in texts] == [True, False]  # the gradient of a slice is a pad
    assert few.shape[1] == many.shape[1] == symbol("N")
    a = RNG.normal(size=3)
    expected = np.concatenate([np.eye(3), np.diag(2 * a)])
    np.testing.assert_allclose(run([x], many, a), expected)
    np.testing.assert_allclose(run([x], few, a), np.eye(2, 3) * a.sum() + a[:2, None])


@pytest.mark.parametrize("target", ["interpreter", "cpu"])
def test_a_symbolic_hessian(target):
    x = placeholder("x", "N")
    y = gw.prod(x) + gw.sum(gw.exp(x) * x[0])
    h, g = gw.hessian(y, x), gw.grad(y, x)
    assert h.shape == (symbol("N"), symbol("N"))
    gradient = gw.function([x], g, target="interpreter")
    for n in (1, 2, 5):
        a = RNG.normal(size=n)
        np.testing.assert_allclose(
            run([x], h, a, target=target), differences(gradient, [a], 0), rtol=1e-5, atol=1e-7
        )


def test_a_hessian_of_several():
    x, w = placeholder("x", 2), placeholder("w", 2, 2)
    f = lambda a, b: gw.sin((b @ a).sum()) * a[0]  # noqa: E731
    h = gw.hessian(f, [x, w])
    arrays = [RNG.normal(size=2), RNG.normal(size=(2, 2))]
    gradients = gw.function([x, w], gw.grad(f(x, w), [x, w]), target="interpreter")
    for i in range(2):
        for j in range(2):
            expected = differences(lambda *a, i=i: gradients(*a)[i], arrays, j)
            np.testing.assert_allclose(run([x, w], h[i][j], *arrays), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", FORMS)
def test_hessians_of_control_flow(name):
    looped = FORMS[name][0]
    inputs = [gw.placeholder(n, "float64", shape) for n, shape in INPUTS.items()]
    value = looped(*inputs)
    hessian = gw.hessian(value, inputs[2])
    gradient = gw.function(inputs, gw.grad(value, inputs[2], disconnected="zero"), target="interpreter")
    found = run(inputs, hessian, *ARRAYS)
    np.testing.assert_allclose(found, differences(gradient, ARRAYS, 2), rtol=1e-4, atol=1e-5)
    reverse = gw.jacobian(gw.grad(value, inputs[2], disconnected="zero"), inputs[2], mode="reverse")
    np.testing.assert_allclose(run(inputs, reverse, *ARRAYS), found, rtol=1e-8, atol=1e-8)


def test_jacobians_in_maps_and_of_maps():
    x = placeholder("x", "B", 3)
    f = lambda row: gw.sin(row) * row[0]  # noqa: E731
    each = gw.vmap(lambda row: gw.jacobian(f, row))(x)
    whole = gw.jacobian(gw.vmap(f)(x), x)
    rows = RNG.normal(size=(4, 3))
    a, b = run([x], [each, whole], rows)
    np.testing.assert_allclose(np.einsum("bibj->bij", b), a)
    assert np.count_nonzero(b) == np.count_nonzero(a)


def test_per_example_gradients_are_the_jacobian_of_the_losses():
    x, w = placeholder("x", 5, 3), gw.Variable(RNG.normal(size=3), name="w")
    losses = gw.tanh(x @ w)
    rows = RNG.normal(size=(5, 3))
    a, b = run([x], [gw.jacobian(losses, w), gw.vmap(lambda r: gw.grad(gw.tanh(r @ w), w))(x)], rows)
    np.testing.assert_allclose(a, b)
    assert isinstance(losses, Tensor)


@pytest.mark.parametrize("target", ["interpreter", "cpu"])
def test_second_derivatives_where_a_masked_cotangent_happens_to_be_zero(target):
    """At 0, the cotangent of the branch taken is 0, but moves; that of the branch not taken stays 0 and is masked."""
    x, y = placeholder("x", 4), placeholder("y", 4)
    taken = gw.where(x > -9.0, gw.sin(gw.sin(x) * y), gw.sqrt(x))
    other = gw.where(x > 9.0, gw.log(x) / x, taken)
    loss = gw.sum(other * other * other + other * other)
    first = gw.grad(loss, x)
    arrays = [np.array([0.0, 1.0, -2.0, 0.0]), np.array([3.0, 2.0, 1.0, 0.0])]
    direction = gw.ones((4,), "float64")
    found = [
        gw.hessian(loss, x), gw.jacobian(first, x, mode="reverse"),
        gw.jvp(gw.jvp(loss, x, direction), x, direction),
    ]
    plain = gw.sin(gw.sin(x) * y)
    expected = gw.hessian(gw.sum(plain * plain * plain + plain * plain), x)
    a, b, c, h = run([x, y], [*found, expected], *arrays, target=target)
    assert h[0, 0] == 18
    for hessian in (a, b):
        np.testing.assert_allclose(hessian, h, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(c, h.sum())
    third = gw.grad(gw.sum(gw.grad(gw.sum(first), x)), x)
    again = gw.grad(gw.sum(gw.grad(gw.grad(gw.sum(plain ** 3.0 + plain * plain), x).sum(), x)), x)
    np.testing.assert_allclose(*run([x, y], [third, again], *arrays, target=target), rtol=1e-10, atol=1e-10)
