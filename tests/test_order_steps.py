"""The order of a block's steps: dependences hold, and a step that frees memory does not wait."""

from __future__ import annotations

import random

import pytest

from graphwright.passes.order_steps import Touched, order_steps


def ordered(steps, size=lambda name: 0 if name.startswith("out") else 8, waits=()):
    """The order of steps given as pairs of names; each must come after those that write what it reads."""
    maker = {w: p for p, (_, writes) in enumerate(steps) for w in writes}
    before = {p: {maker[r] for r in reads if r in maker} for p, (reads, _) in enumerate(steps)}
    for p, q in waits:
        before[q].add(p)
    return order_steps([Touched(reads, writes) for reads, writes in steps], before, size)


def test_without_a_gain_the_order_is_the_graphs():
    steps = [(["x"], ["a"]), (["x"], ["b"]), (["a", "b"], ["c"]), (["c"], ["out"])]
    assert ordered(steps) == [0, 1, 2, 3]


def test_a_step_that_frees_memory_comes_as_soon_as_it_can():
    chain = [(["x"], ["a"]), (["a"], ["b"]), (["b"], ["c"]), (["a"], ["out0"]), (["b"], ["out1"]), (["c"], ["out2"])]
    assert ordered(chain) == [0, 1, 3, 2, 4, 5]
    assert ordered(chain, waits=[(5, 3)]) == [0, 1, 2, 4, 5, 3]


def test_a_result_as_large_as_what_it_frees_is_no_gain():
    steps = [(["x"], ["a"]), (["x"], ["b"]), (["a"], ["c"]), (["b", "c"], ["out"])]
    assert ordered(steps) == [0, 1, 2, 3]
    assert ordered(steps, size=lambda name: {"a": 16}.get(name, 8)) == [0, 2, 1, 3]


def test_dependences_hold_in_random_blocks():
    rng = random.Random(0)
    for _ in range(50):
        steps = [([f"v{rng.randrange(k)}" for _ in range(2)] if k else [], [f"v{k}"]) for k in range(30)]
        sizes = {f"v{k}": rng.randrange(4) for k in range(30)}
        order = ordered(steps, sizes.__getitem__)
        assert sorted(order) == list(range(30))
        place = {p: k for k, p in enumerate(order)}
        assert all(place[int(r[1:])] < place[p] for p, (reads, _) in enumerate(steps) for r in reads)


def test_a_cycle_is_an_error():
    with pytest.raises(ValueError, match="cyclic"):
        ordered([(["b"], ["a"]), (["a"], ["b"])])
