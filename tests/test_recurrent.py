"""Recurrent networks as compiled programs: their size, their memory, and loops of several steps at a time."""

from __future__ import annotations

import numpy as np
import pytest

import graphwright as gw
from graphwright import nn


def training_step(T, B: int, H: int, inputs: int) -> object:
    """A step of gradient descent, by the last state of an LSTM."""
    model = nn.LSTM(inputs, H, rng=0)
    x = gw.placeholder("x", "float32", (T, B, inputs))
    _, (h, _) = model(x)
    loss, weights = gw.mean(h * h), list(model.parameters())
    updates = {w: w - 0.1 * g for w, g in zip(weights, gw.grad(loss, weights))}
    return gw.function([x], loss, updates=updates, name="train")


def test_programs_do_not_grow_with_the_length():
    short, long = (training_step(T, 4, 16, 8) for T in (1000, 100_000))
    for stage in ("graph", "optimized", "program"):
        a, b = short.ir(stage), long.ir(stage)
        assert abs(len(a.splitlines()) - len(b.splitlines())) <= 2 and len(b) < 1.05 * len(a)
        for what in ("call @", "kernel @", " = fusion "):
            assert a.count(what) == b.count(what)


@pytest.mark.parametrize("B, H, inputs", [(8, 32, 16), (16, 64, 8)])
def test_memory_of_the_gradient(B: int, H: int, inputs: int):
    """Of a step are kept: h, c, four gates; the cotangents of the gates lie where their inputs' products were.

    Where tiles end with the gates, a step's product is not stored; then the two cotangents that go from step to step
    are the most that is there besides.
    """
    step = training_step("T", B, H, inputs)
    states, zeros, product, weights = 2 * B * H, B * H, 4 * B * H, 4 * H * H
    besides = zeros + product if H % 64 else 2 * B * H
    for T in (1, 7, 1000):
        assert step.memory(T=T) == 4 * (T * (4 + 2 + 4) * B * H + states + besides + weights)


def test_a_step_is_one_kernel_and_that_of_its_gradient_two():
    """Gates are the epilogue of their product; all that the backward step computes beside its product is one map."""
    lines = training_step(50, 32, 64, 16).ir("program").splitlines()
    begins = [k for k, line in enumerate(lines) if line.startswith("  for t")]
    bodies = [lines[k + 1 : lines.index("  }", k)] for k in begins]
    assert [sum("call @" in line for line in body) for body in bodies] == [1, 2]


@pytest.mark.parametrize("T", [1, 6, 7, "T"])
@pytest.mark.parametrize("reverse", [False, True])
def test_several_steps_at_a_time(T, reverse: bool):
    """They compute the same bits, also of the gradient, whatever is left over."""

    def results(unroll: int) -> list[np.ndarray]:
        x, h = gw.placeholder("x", "float32", (T, 4)), gw.placeholder("h", "float32", (4,))
        step = lambda c, e: (gw.tanh(c * 0.5 + e), (c, c * e))  # noqa: E731
        last, (states, products) = gw.scan(step, h, x, reverse=reverse, unroll=unroll)
        gradient = gw.grad(gw.sum(products) + gw.sum(last * last), x)
        run = gw.function([x, h], [last, states, products, gradient])
        text = run.ir("optimized")
        assert text.count("length = T // 3") == (2 if (T, unroll) == ("T", 3) else 0)
        lengths = (7, 2, 0) if T == "T" else (T,)
        rng = np.random.default_rng(0)
        return [a for n in lengths for a in run(rng.normal(size=(n, 4)).astype("f"), np.ones(4, "f"))]

    plain = results(1)
    for unroll in (2, 3, 10):
        for a, b in zip(results(unroll), plain, strict=True):
            np.testing.assert_array_equal(a, b)
