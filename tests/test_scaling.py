"""Graphs much larger than usual: deep, wide, with many variables; and the arena of many blocks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import graphwright as gw
from graphwright.ir.dims import at_most, evaluate, floordiv, symbol
from graphwright.ir.parser import parse_program
from graphwright.ir.verify_program import verify_program
from graphwright.passes.place_blocks import Block, place_blocks


def test_a_chain_of_thousands_of_ops_with_its_gradient():
    x = gw.placeholder("x", "float32", ("N",))
    y, length = x, 1500
    for _ in range(length // 3):
        y = gw.tanh(y) * 1.01 + x * 0.01
    f = gw.function([x], [y, gw.grad(gw.sum(y), x)])
    array = np.linspace(-1, 1, 9, dtype=np.float32)
    value, slope, a = array.astype("f8"), np.ones(9), array.astype("f8")
    for _ in range(length // 3):
        t = np.tanh(value)
        value, slope = t * 1.01 + a * 0.01, (1 - t * t) * slope * 1.01 + 0.01
    result, gradient = f(array)
    np.testing.assert_allclose(result, value, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gradient, slope, rtol=1e-3, atol=1e-5)
    verify_program(parse_program(f.ir("program")))


def test_a_program_of_more_steps_than_one_function_has():
    x = gw.placeholder("x", "float32", (4,))
    variables = [gw.Variable(np.full(4, k, np.float32), name=f"v{k}") for k in range(150)]
    f = gw.function([x], gw.sum(x), updates={v: v + x for v in variables})
    f(np.arange(4, dtype=np.float32))
    for k, v in enumerate(variables):
        np.testing.assert_array_equal(v.value, k + np.arange(4))


USES = {
    "map": lambda p, x: p,
    "where": lambda p, x: gw.where(p > 1, x, p),
    "sum": lambda p, x: gw.sum(p, axis=0),
    "argmax": lambda p, x: gw.argmax(p, axis=1),
    "softmax": lambda p, x: gw.nn.softmax(p, axis=1),
    "product": lambda p, x: gw.matmul(p, gw.permute_dims(p + x, (1, 0))),
    "one-hot product": lambda p, x: gw.matmul(gw.nn.one_hot(gw.argmax(x, axis=0), 4), p),
    "transposition": lambda p, x: gw.permute_dims(p, (1, 0)) * 2.0,
    "gradient": lambda p, x: gw.grad(gw.sum(p), x),
}


@pytest.mark.parametrize("use", USES)
def test_values_that_are_reached_along_many_paths_are_computed_once(use):
    """Each of forty products reads the two before it: one kernel in which 10^8 paths lead to the first."""
    x = gw.placeholder("x", "float64", (4, 3))
    p, q = x, x + 1e-12
    for _ in range(40):
        p, q = q, p * q
    y = USES[use](q, x)
    f = gw.function([x], y)
    array = 1 + np.linspace(-1, 1, 12).reshape(4, 3) * 1e-9
    np.testing.assert_allclose(f(array), gw.function([x], y, target="interpreter")(array), rtol=1e-9)
    assert f.ir("loops").count(" * ") < 400


def _blocks(rng: np.random.Generator, count: int) -> list[Block]:
    n = symbol("N")
    sizes = [64, 1024, 128 * n, 640 * n, 64 * n + 64, 64 * floordiv(n + 15, 16), 64 * symbol("M") * n]
    firsts = rng.integers(0, 3 * count, count)
    return [
        Block(k, sizes[int(rng.integers(len(sizes)))], int(first), int(first + rng.integers(0, 12)))
        for k, first in enumerate(firsts)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_blocks_that_live_together_share_no_byte_whatever_the_sizes(seed):
    blocks = _blocks(np.random.default_rng(seed), 60)
    arena = place_blocks(blocks, {"N": 64, "M": 64})
    for n, m in itertools.product((0, 1, 15, 64, 1000), (0, 1, 70)):
        sizes = {"N": n, "M": m}
        places = [(b, evaluate(b.start, sizes), evaluate(b.size, sizes)) for b in blocks]
        assert all(start + size <= evaluate(arena, sizes) for _, start, size in places)
        for (a, start, size), (b, other, length) in itertools.combinations(places, 2):
            if a.first <= b.last and b.first <= a.last:
                assert start + size <= other or other + length <= start


def test_equal_blocks_take_no_more_than_what_lives_at_once():
    blocks = [Block(k, 64 * symbol("N"), k, k + 3) for k in range(200)]
    assert place_blocks(blocks, {"N": 64}) == 4 * 64 * symbol("N")


def test_a_block_fits_below_others_where_only_the_formulas_show_it():
    """``64 * ceil(N / 16)`` is at most ``128 * N``, though no coefficient says so."""
    n = symbol("N")
    small = 64 * floordiv(n + 15, 16)
    assert at_most(small, 128 * n)
    blocks = [Block("large", 128 * n, 0, 1), Block("next", 128 * n, 1, 2), Block("small", small, 2, 3)]
    assert place_blocks(blocks, {"N": 64}) == 256 * n
    assert blocks[2].offset == 0


def test_arenas_beyond_63_bits_are_planned_as_well():
    blocks = [Block(k, 2**62, 0, 1) for k in range(4)]
    assert place_blocks(blocks, {}) == 2**64
    assert sorted(b.offset for b in blocks) == [k * 2**62 for k in range(4)]


def test_the_arena_is_the_larger_of_two_needs_that_no_coefficient_compares():
    """A fixed workspace, and activations that outlive it: the peak is at one step or at the other."""
    n = symbol("N")
    blocks = [Block("kept", 64 * n, 0, 5), Block("panel", 4096, 1, 1), Block("large", 640 * n, 3, 4)]
    arena = place_blocks(blocks, {"N": 64})
    for size in (0, 1, 6, 7, 1000):
        assert evaluate(arena, {"N": size}) == 64 * size + max(4096, 640 * size)
