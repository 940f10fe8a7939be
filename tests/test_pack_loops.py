"""Matrices that a loop multiplies by are read in panels: values and gradients, and when the panels are made."""

from __future__ import annotations

import numpy as np
import pytest

import graphwright as gw

RNG = np.random.default_rng(0)
DEPTH = 150


def network(steps):
    """A state of 150 numbers that is multiplied by matrices in both directions, one of them transposed."""
    x = gw.placeholder("x", "float32", (steps, "N", 3))
    u = gw.Variable(RNG.normal(size=(DEPTH, DEPTH)).astype(np.float32) / 20, name="u")
    v = gw.Variable(RNG.normal(size=(DEPTH, DEPTH)).astype(np.float32) / 20, name="v")

    def step(h, x_t):
        h = gw.tanh(h @ u.T + gw.sum(x_t, axis=1, keepdims=True)) @ v
        return h, gw.sum(h, axis=1)

    h = gw.zeros((x.shape[1], DEPTH), dtype="float32")
    return x, u, v, gw.scan(step, h, x)


def expected(x, u, v):
    h = np.zeros((x.shape[1], DEPTH))
    sums = []
    for x_t in x.astype(np.float64):
        h = np.tanh(h @ u.T + x_t.sum(1, keepdims=True)) @ v
        sums.append(h.sum(1))
    return h, np.array(sums).reshape(x.shape[:2])


@pytest.mark.parametrize("steps", ["T", 7])
def test_values_and_gradients(steps):
    x, u, v, (h, sums) = network(steps)
    loss = gw.mean(h * h) + gw.mean(sums)
    train = gw.function([x], [h, sums, *gw.grad(loss, [u, v])])
    assert train.ir("optimized").count("unpack") == 4  # two products forward, and their two gradients
    plain = gw.function([x], [h, sums, *gw.grad(loss, [u, v])], optimize=False)
    for rows in (1, 9, 40):
        data = RNG.normal(size=(7, rows, 3)).astype(np.float32)
        found = train(data)
        for a, b in zip(found, expected(data, np.asarray(u.value), np.asarray(v.value))):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
        for a, b in zip(found, plain(data)):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_panels_of_a_prediction_are_kept_until_a_variable_changes():
    x, u, v, (h, sums) = network("T")
    w = gw.Variable(RNG.normal(size=(DEPTH, DEPTH)).astype(np.float32) / 20, name="w")
    predict = gw.function([x], [h @ w, sums])
    assert "prepared" in predict.ir("optimized")
    data = RNG.normal(size=(5, 9, 3)).astype(np.float32)
    for _ in range(2):
        for _ in range(2):
            state, totals = expected(data, np.asarray(u.value), np.asarray(v.value))
            found = predict(data)
            np.testing.assert_allclose(found[0], state @ np.asarray(w.value), rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(found[1], totals, rtol=1e-4, atol=1e-4)
        v.assign(np.asarray(v.value) * np.float32(0.5))
    program = predict.ir("optimized")
    assert "transpose" not in program, program


def test_few_steps_are_not_worth_it():
    x, _, _, (h, _) = network(3)
    assert "unpack" not in gw.function([x], h, prepare=False).ir("optimized")
