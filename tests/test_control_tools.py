"""Loops, branches and generators in what surrounds functions: artifacts, profiles, reports, memory."""

from __future__ import annotations

import json

import numpy as np
import pytest

import graphwright as gw
from graphwright.frontends.report.data import report_data, subject_of

ROWS = np.linspace(-1, 1, 40, dtype=np.float32).reshape(5, 8)


def noisy_recurrence():
    """A training step whose scan draws, with a branch and a loop with a condition in its body; and its states."""
    rng, W = gw.random.Generator(8, name="rng"), gw.Variable(np.eye(8, dtype=np.float32) * 0.5, name="W")
    x = gw.placeholder("x", "float32", ("T", 8))

    def step(c, e):
        c = gw.tanh(c @ W + e + rng.normal((8,)) * 0.1)
        c = gw.cond(rng.bernoulli((), 0.5), lambda: c * 0.5, lambda: gw.sin(c))
        c, _ = gw.while_loop(lambda s: s[1] < 2, lambda s: (s[0] * rng.uniform((8,)), s[1] + 1), (c, 0), max_steps=3)
        return c, (c * c).sum()

    _, rows = gw.scan(step, gw.zeros((8,)), x, checkpoint=2)
    loss = rows.sum()
    return gw.function([x], loss, updates={W: W - 0.1 * gw.grad(loss, W)}, name="train"), rng, W


def test_an_artifact_goes_on_with_states_and_numbers(tmp_path):
    train, rng, W = noisy_recurrence()
    train(ROWS)
    gw.export(tmp_path / "train.gwa", {"train": train})
    model = gw.load(tmp_path / "train.gwa")
    for length in (5, 1, 0, 4):
        np.testing.assert_array_equal(model.train(ROWS[:length]), train(ROWS[:length]))
    np.testing.assert_array_equal(model.variables["W"], W.value)
    np.testing.assert_array_equal(model.variables["rng"], rng.value)
    assert rng.value.tolist() == [8, 0, 5, 0]


def test_a_profile_counts_the_calls_in_loops():
    train, rng, _ = noisy_recurrence()
    plain, other, _ = noisy_recurrence()
    with gw.profile(train) as p:
        found = [float(train(ROWS)) for _ in range(3)]
    assert found == [float(plain(ROWS)) for _ in range(3)]
    assert rng.value.tolist() == other.value.tolist() == [8, 0, 3, 0]
    assert p.calls == 3
    assert any(k.calls >= 3 * 5 for k in p.kernels)  # those of the body, once a step
    assert "test_control_tools.py:" in str(p)
    before = rng.value
    train.profile(ROWS, repeat=2)
    np.testing.assert_array_equal(rng.value, before)


def test_a_report_shows_the_bodies():
    train, _, _ = noisy_recurrence()
    data = report_data(subject_of(train))
    text = json.dumps(data)
    assert all(word in text for word in ("scan", "switch", "while", "random_bits", "test_control_tools.py"))


@pytest.mark.parametrize("length", [0, 5])
def test_the_memory_is_a_formula_of_the_length(length):
    train, _, _ = noisy_recurrence()
    assert "T" in str(train.memory())
    assert int(train.memory(T=length)) >= 0
    train(ROWS[:length])
