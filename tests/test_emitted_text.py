"""The length of LLVM text, on which depends how long LLVM takes."""

from __future__ import annotations

import numpy as np

import graphwright as gw


def _module(inputs, output):
    return gw.function(inputs, output).compiled.lowered.module


def test_a_division_of_a_loop_counter_is_known_to_all_that_follows():
    """The tile of eight rows stores each under its own condition, and each needs its place in the merged loop."""
    x = gw.placeholder("x", "float32", ("N", 64))
    w, b = gw.Variable(np.ones((64, 300), np.float32)), gw.Variable(np.ones(300, np.float32))
    text = _module([x], x @ w + b)
    assert "srem" in text and text.count(" sdiv ") + text.count(" udiv ") < 20


def test_a_long_body_is_written_for_two_vectors_or_for_one_in_a_loop():
    def lines(n):
        x, y = gw.placeholder("x", "float32", (n,)), gw.placeholder("y", "float32", ("M", n))
        return len(_module([x, y], gw.tanh(y + x) * gw.exp(x)).splitlines())

    assert lines(8) == lines(16) < lines(256) < 2.5 * lines(16)
    assert lines(512) == lines(4096) < 1.2 * lines(16)
