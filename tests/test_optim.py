"""Optimizers, step by step against PyTorch's (`golden/pytorch_optimizers.py`), and what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import graphwright as gw
from graphwright import optim
from graphwright.errors import GraphError, ShapeError

GOLDEN = json.loads((Path(__file__).parent / "golden" / "pytorch_optimizers.json").read_text())

OPTIMIZERS: dict[str, Callable[[], optim.Optimizer]] = {
    "sgd": lambda: optim.SGD(0.1),
    "sgd_momentum": lambda: optim.SGD(0.1, momentum=0.9, weight_decay=0.01),
    "sgd_nesterov": lambda: optim.SGD(0.1, momentum=0.9, nesterov=True),
    "adagrad": lambda: optim.Adagrad(0.1, rate_decay=0.05, weight_decay=0.01, initial_accumulator=0.1),
    "adadelta": lambda: optim.Adadelta(1.0, weight_decay=0.01),
    "rmsprop": lambda: optim.RMSprop(0.01),
    "rmsprop_centered": lambda: optim.RMSprop(0.01, centered=True, momentum=0.9, weight_decay=0.01),
    "adam": lambda: optim.Adam(0.01, weight_decay=0.01),
    "adam_amsgrad": lambda: optim.Adam(0.01, amsgrad=True),
    "adamw": lambda: optim.AdamW(0.01, weight_decay=0.1),
    "nadam": lambda: optim.NAdam(0.01, weight_decay=0.01),
    "clip_by_norm": lambda: optim.SGD(1.0),
}
SCHEDULES = {
    "step_decay": optim.step_decay(0.1, 3, 0.5),
    "exponential": optim.exponential(0.1, 0.9),
    "cosine": optim.cosine(0.1, 11, 0.01),
    "linear": optim.linear(0.1, 0.02, 8),
    "warm_up": optim.warm_up(optim.exponential(0.1, 0.9), 4, first=0.1),
}


def _step(optimizer: optim.Optimizer, w: gw.Variable, clipped: bool = False) -> gw.Function:
    x, y = gw.placeholder("x", w.dtype, ("N", 4)), gw.placeholder("y", w.dtype, ("N", 3))
    loss = gw.mean((gw.tanh(x @ gw.permute_dims(w, (1, 0))) - y) ** 2)
    if clipped:
        return gw.function([x, y], updates=optimizer.updates(optim.clip_by_norm(gw.grad(10 * loss, [w]), 0.5), [w]))
    return gw.function([x, y], loss, updates=optimizer.updates(loss, [w]))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_those_of_pytorch(name: str, dtype: str) -> None:
    w = gw.Variable(np.array(GOLDEN["w"], dtype), name="w")
    step = _step(OPTIMIZERS[name](), w, name == "clip_by_norm")
    tolerance = 1e-9 if dtype == "float64" else 2e-5
    for x, y, expected in zip(GOLDEN["x"], GOLDEN["y"], GOLDEN["steps"][name], strict=True):
        step(np.array(x, dtype), np.array(y, dtype))
        np.testing.assert_allclose(w.value, expected, rtol=tolerance, atol=tolerance)


def test_lamb_follows_its_paper() -> None:
    rng = np.random.default_rng(0)
    start = rng.normal(size=(3, 4))
    w = gw.Variable(start, name="w")
    g = gw.placeholder("g", "float64", (3, 4))
    step = gw.function([g], updates=optim.LAMB(0.01, weight_decay=0.1).updates([g], [w]))
    p, m, v = start.copy(), np.zeros((3, 4)), np.zeros((3, 4))
    for t in range(1, 5):
        gradient = rng.normal(size=(3, 4))
        step(gradient)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        r = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-6) + 0.1 * p
        p = p - 0.01 * np.linalg.norm(p) / np.linalg.norm(r) * r
        np.testing.assert_allclose(w.value, p, rtol=1e-9)


@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_are_those_of_pytorch(name: str) -> None:
    w = gw.Variable(np.zeros(()), name="w")
    optimizer = optim.SGD(SCHEDULES[name])
    step = gw.function([], updates=optimizer.updates([gw.asarray(-1.0, "float64")], [w]))
    before = 0.0
    for expected in GOLDEN["rates"][name]:
        step()
        assert float(w.value) - before == pytest.approx(expected, rel=2e-6)
        before = float(w.value)
    assert optimizer.steps is not None and int(optimizer.steps.value) == len(GOLDEN["rates"][name])


def test_a_rate_falls_when_a_figure_has_stopped_improving() -> None:
    rate = gw.Variable(np.float64(0.1), name="rate")
    plateau = optim.ReduceOnPlateau(rate, factor=0.5, patience=1, cooldown=2, threshold=0.01)
    for figure, expected in zip(GOLDEN["plateau"]["figures"], GOLDEN["plateau"]["rates"], strict=True):
        before = float(rate.value)
        assert plateau.observe(figure) == (expected < before)
        assert float(rate.value) == pytest.approx(expected)
    rising = optim.ReduceOnPlateau(rate, mode="max", patience=0)
    assert [rising.observe(f) for f in (0.5, 0.6, 0.6)] == [False, False, True]


def test_the_rate_may_be_a_variable_or_an_argument() -> None:
    w, rate = gw.Variable(np.float32(1), name="w"), gw.Variable(np.float32(0.5), name="rate")
    given = gw.placeholder("given", "float32", ())
    one = gw.asarray(1.0, "float32")
    by_variable = gw.function([], updates=optim.SGD(rate).updates([one], [w]))
    by_argument = gw.function([given], updates=optim.SGD(given).updates([one], [w]))
    by_variable()
    rate.assign(np.float32(0.25))
    by_variable()
    by_argument(2.0)
    assert float(w.value) == 1 - 0.5 - 0.25 - 2


def test_bias_correction_is_accurate_in_float32() -> None:
    """``1 - 0.999**t`` in float32 is off by 5e-5 at the first step, and so would be the step."""
    w = gw.Variable(np.zeros(1, np.float32), name="w")
    gw.function([], updates=optim.Adam(1.0, eps=0.0).updates([gw.asarray([3.0], "float32")], [w]))()
    np.testing.assert_allclose(w.value, [-1], rtol=3e-7)


def test_averages_follow_the_new_values() -> None:
    w = gw.Variable(np.array([1.0, 2.0]), name="w")
    average = optim.ExponentialMovingAverage([w], 0.9)
    updates = optim.SGD(1.0).updates([gw.asarray([1.0, -1.0], "float64")], [w])
    step = gw.function([], updates={**updates, **average.updates(updates)})
    x = gw.placeholder("x", "float64", ())
    plain, averaged = gw.function([x], x * w), gw.function([x], x * w, givens=average.values)
    step()
    np.testing.assert_allclose(plain(2.0), [0.0, 6.0])
    np.testing.assert_allclose(averaged(2.0), [2 * (0.9 * 1 + 0.1 * 0), 2 * (0.9 * 2 + 0.1 * 3)])


def test_norms_and_clipping() -> None:
    a, b = np.array([3.0, 0.0]), np.array([[4.0]])
    x, y = gw.placeholder("x", "float64", (2,)), gw.placeholder("y", "float64", (1, 1))
    f = gw.function([x, y], [optim.global_norm([x, y]), *optim.clip_by_value([x, y], 3.5)])
    norm, p, q = f(a, b)
    assert norm == 5 and p.tolist() == [3, 0] and q.tolist() == [[3.5]]


def test_moments_keep_their_variables_for_a_second_function() -> None:
    w, optimizer = gw.Variable(np.ones(2), name="w"), optim.Adam()
    first = optimizer.updates([gw.asarray([1.0, 1.0], "float64")], [w])
    second = optimizer.updates([gw.asarray([2.0, 2.0], "float64")], [w])
    assert list(first) == list(second)
    assert sorted(optimizer.state) == ["steps", "w_mean", "w_square"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.SGD(-0.1), "learning_rate must be at least 0, got -0.1"),
        (lambda: optim.SGD(0.1, nesterov=True), "nesterov needs a momentum"),
        (lambda: optim.Adam(betas=(0.9, 1.0)), r"beta2 must be in \[0, 1\), got 1.0"),
        (lambda: optim.cosine(0.1, 0), "steps must be a positive integer, got 0"),
        (lambda: optim.ExponentialMovingAverage([], 1.5), "decay must be in"),
        (lambda: optim.ReduceOnPlateau(0.1), "must be a variable"),  # type: ignore[arg-type]
    ],
)
def test_wrong_settings_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        make()


def test_wrong_parameters_are_refused() -> None:
    w = gw.Variable(np.ones(2), name="w")
    g = gw.asarray([1.0, 1.0], "float64")
    with pytest.raises(GraphError, match="parameter 0 is no variable"):
        optim.SGD(0.1).updates([g], [g])  # type: ignore[list-item]
    with pytest.raises(GraphError, match="'w' stands twice"):
        optim.SGD(0.1).updates([g, g], [w, w])
    with pytest.raises(ShapeError, match="1 gradients for 0 parameters"):
        optim.SGD(0.1).updates([g], [])
    with pytest.raises(ShapeError, match="the gradient of variable 'w' has another shape"):
        optim.SGD(0.1).updates([g[0]], [w])
