"""Convolutions by transformed tiles: where they are taken, what they compute, and how exactly."""

from __future__ import annotations

import numpy as np
import pytest

import graphwright as gw
from graphwright.ir.interpreter import interpret
from graphwright.ir.parser import parse_graph
from graphwright.ir.printer import print_graph
from graphwright.passes.cpu_model import CpuModel
from graphwright.passes.prepare import prepare

WIDE = CpuModel(vector_bytes=32, registers=32, tile_bytes=64)
BOUND = {2: 2e-6, 4: 2e-5}
"""Of the sum of the products' magnitudes, as `passes.winograd` says."""

BEFORE = """\
graphwright.graph v1
func @f(%x: f32[N, 32, 14, 15]) state(%W: f32[40, 32, 3, 3]) -> (f32[N, 40, 14, 15]) {
  %0 = pad %x {low = (0, 0, 1, 1), high = (0, 0, 1, 1), interior = (0, 0, 0, 0)} : f32[N, 32, 16, 17]
  %1 = conv %0, %W {stride = (1, 1), padding = ((0, 0), (0, 0)), dilation = (1, 1)} : f32[N, 40, 14, 15]
  return %1
}
"""
AFTER = """\
graphwright.graph v1
func @f(%x: f32[N, 32, 14, 15]) state(%W: f32[40, 32, 3, 3], %prepared.0: f32[36, 3, 32, 16]) -> (f32[N, 40, 14, 15]) {
  %0 = winograd_input %x {tile = 4, shape = (14, 15), low = (1, 1)} : f32[36, N, 16, 32]
  %1 = unpack %prepared.0 {columns = 40} : f32[36, 32, 40]
  %2 = dot %0, %1 {contract = ((3), (1)), batch = ((0), (0))} : f32[36, N, 16, 40]
  %3 = winograd_output %2 {tile = 4, shape = (14, 15)} : f32[N, 40, 14, 15]
  return %3
}
"""


def _random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_text_and_values():
    graph = parse_graph(BEFORE)
    main, preparation = prepare(graph, WIDE)
    assert print_graph(main) == AFTER
    x, w = _random(2, 32, 14, 15), _random(40, 32, 3, 3)
    _, made = interpret(preparation, [], [w, np.zeros((36, 3, 32, 16), np.float32)])
    (found,), _ = interpret(main, [x], [w, made[-1]])
    (expected,), _ = interpret(graph, [x], [w])
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("change", [
    ("stride = (1, 1)", "stride = (2, 2)", "f32[N, 40, 14, 15]", "f32[N, 40, 7, 8]"),
    ("dilation = (1, 1)", "dilation = (2, 2)", "f32[N, 40, 14, 15]", "f32[N, 40, 12, 13]"),
    ("[40, 32, 3, 3]", "[40, 32, 3, 4]", "f32[N, 40, 14, 15]", "f32[N, 40, 14, 14]"),
    ("[40, 32, 3, 3]", "[40, 16, 3, 3]", "dilation = (1, 1)}", "dilation = (1, 1), groups = 2}"),
    ("f32", "f64"), ("40", "31"), ("15", "M", "17", "M + 2"),
])  # fmt: skip
def test_other_convolutions_stay(change):
    text = BEFORE
    for old, new in zip(change[::2], change[1::2]):
        text = text.replace(old, new)
    main, _ = prepare(parse_graph(text), WIDE)
    assert "winograd" not in print_graph(main)


def _conv(w, shape, padding, dtype=np.float32, **options):
    w = gw.Variable(w.astype(dtype), name="w")
    x = gw.placeholder("x", np.dtype(dtype).name, ("N", w.shape[1], *shape))
    return gw.function([x], gw.nn.conv2d(x, w, None, 1, padding), name="f", **options), w


CASES = [
    ((16, 12), 1), ((14, 19), 1), ((7, 7), 1), ((9, 8), 0), ((1, 40), 1), ((13, 13), 2), ((3, 3), 0), ((56, 56), 1),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "padding"), CASES)
@pytest.mark.parametrize("kind", ["normal", "positive", "wide"])
def test_error_bound(shape, padding, kind):
    w, x = _random(33, 37, 3, 3), _random(2, 37, *shape, seed=1)
    if kind == "positive":  # nothing cancels in the result, all of it in the transforms
        w, x = abs(w), abs(x)
    elif kind == "wide":  # magnitudes from 1e-3 to 1e3
        w, x = (np.float32(10) ** _random(*a.shape, seed=2).clip(-3, 3) * np.sign(a) for a in (w, x))
    f, _ = _conv(w, shape, padding)
    tile = 4 if "tile = 4" in f.ir() else 2
    assert "winograd_input" in f.ir()
    exact = _conv(w, shape, padding, np.float64)[0](x.astype(np.float64))
    magnitude = _conv(abs(w), shape, padding, np.float64)[0](abs(x).astype(np.float64))
    if kind == "wide":  # the transforms mix what lies in one window: all is rounded like the largest
        largest = 9 * abs(w).max((2, 3)).astype(np.float64) @ abs(x).max((2, 3)).T
        magnitude = np.maximum(magnitude, largest.T[:, :, None, None])
    scale = magnitude
    assert (abs(f(x) - exact) <= BOUND[tile] * scale).all()


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_batches_and_new_kernels(batch):
    f, w = _conv(_random(32, 32, 3, 3), (10, 14), 1)
    plain, other = _conv(_random(32, 32, 3, 3), (10, 14), 1, prepare=False)
    assert "winograd_input" not in plain.ir()
    for seed in range(3):
        x = _random(batch, 32, 10, 14, seed=seed)
        np.testing.assert_allclose(f(x), plain(x), atol=2e-4)
        w.assign(_random(32, 32, 3, 3, seed=seed + 5))
        other.assign(w.value)


def test_with_what_stands_around_it():
    """A residual block, whose kernels share a padded input with a convolution that stays."""
    rng = np.random.default_rng(3)
    parts = [(rng.standard_normal((32, 32, k, k)) / 10).astype(np.float32) for k in (3, 3, 1)]
    x = gw.placeholder("x", "float32", ("N", 32, 12, 12))
    f, plain = (gw.function([x], _block(x, parts), prepare=prepared) for prepared in (True, False))
    a = _random(2, 32, 12, 12)
    np.testing.assert_allclose(f(a), plain(a), rtol=1e-4, atol=1e-4)


def _block(x, parts):
    first, second, third = (gw.Variable(w) for w in parts)
    scale = gw.Variable(np.linspace(0.5, 1.5, 32, dtype=np.float32))
    conv = gw.nn.conv2d
    h = gw.nn.relu(conv(x, first, None, 1, 1) * gw.reshape(gw.sqrt(scale), (32, 1, 1)))
    corner = conv(x, second, None, 2, 1)[:, :, :1, :1]
    return gw.nn.relu(conv(h, second, None, 1, 1) + conv(x, third, None, 1, 0) + corner)


def test_training_is_as_it_was():
    f, w = _conv(_random(32, 32, 3, 3), (8, 8), 1)
    x = gw.placeholder("x", "float32", ("N", 32, 8, 8))
    loss = gw.mean(gw.square(gw.nn.conv2d(x, w, None, 1, 1)))
    step = gw.function([x], loss, updates={w: w - 0.1 * gw.grad(loss, w)})
    assert "winograd_input" not in step.ir()
    a = _random(2, 32, 8, 8)
    before = f(a)
    step(a)
    assert abs(f(a) - before).max() > 1e-3
