"""Products that are read in parts, as of gates: values in all layouts and at all sizes, and what is no such product."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import graphwright as gw
from graphwright.compiler.driver import Compiled, CpuLowered, host_target, machine_code
from graphwright.passes.cpu_model import CpuModel

RNG = np.random.default_rng(0)
PART = 64


def array(*shape, dtype="float32"):
    return (RNG.normal(size=shape) / 4).astype(dtype)


def gated(parts, layout, dtype="float32", rows="N"):
    """A step with 2 to 4 gates, and the same in NumPy."""
    h, x = gw.placeholder("h", dtype, (rows, 96)), gw.placeholder("x", dtype, (rows, parts * PART))
    shape = (parts * PART, 96) if layout == "transposed" else (96, parts * PART)
    w = gw.placeholder("w", dtype, shape)
    z = gw.matmul(h, w.T if layout == "transposed" else w) + x
    gates = [z[:, k * PART:(k + 1) * PART] for k in range(parts)]
    total = gw.tanh(gates[-1])
    for g in gates[:-1]:
        total = total * gw.nn.sigmoid(g) + g

    def expected(h, x, w):
        h, x, w = (a.astype("float64") for a in (h, x, w))
        z = h @ (w.T if layout == "transposed" else w) + x
        gates = np.split(z, parts, axis=1)
        total = np.tanh(gates[-1])
        for g in gates[:-1]:
            total = total / (1 + np.exp(-g)) + g
        return total, gates[0]

    return [h, x, w], [total, gates[0]], shape, expected


def kernels(f):
    return f.ir("program").count("call @")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", ["plain", "transposed"])
@pytest.mark.parametrize("parts", [2, 3, 4])
def test_values(parts, layout, dtype):
    inputs, outputs, shape, expected = gated(parts, layout, dtype)
    f = gw.function(inputs, outputs)
    assert kernels(f) == 1, f.ir("program")
    w = array(*shape, dtype=dtype)
    for n in (0, 1, 2, 7, 8, 33, 100):
        h, x = array(n, 96, dtype=dtype), array(n, parts * PART, dtype=dtype)
        for a, b in zip(f(h, x, w), expected(h, x, w)):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 5, 32, 64])
@pytest.mark.parametrize("model", [
    CpuModel(), CpuModel(vector_bytes=16), CpuModel(vector_bytes=32, registers=32, tile_bytes=64, masked_bytes=4),
], ids=["avx2", "sse", "avx512"])
@pytest.mark.parametrize("layout", ["plain", "transposed"])
def test_known_sizes_for_other_processors(layout, model, rows):
    inputs, outputs, shape, expected = gated(4, layout, rows=rows)
    f = gw.function(inputs, outputs)
    lowered = CpuLowered(f.graph, replace(host_target(), model=model))
    run = Compiled(lowered, *machine_code(lowered, f.compiled.signature.structure), ()).executable
    arrays = array(rows, 96), array(rows, 4 * PART), array(*shape)
    for a, b in zip(run(*arrays), expected(*arrays)):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5)


def test_a_loop_reads_panels():
    """The recurrent weight of a loop lies in panels; parts begin inside of the row of panels."""
    hidden = 128
    w = gw.Variable(array(4 * hidden, hidden), name="w")
    x = gw.placeholder("x", "float32", ("T", "N", 4 * hidden))

    def step(carry, x_t):
        h, c = carry
        i, f, g, o = gw.split(h @ w.T + x_t, 4, axis=1)
        c = gw.nn.sigmoid(f) * c + gw.nn.sigmoid(i) * gw.tanh(g)
        h = gw.nn.sigmoid(o) * gw.tanh(c)
        return (h, c), h

    zero = gw.zeros((x.shape[1], hidden), dtype="float32")
    _, y = gw.scan(step, (zero, zero), x)
    loss = gw.mean(y * y)
    both = [gw.function([x], [y, *gw.grad(loss, [w, x])], optimize=on) for on in (True, False)]
    assert "unpack" in both[0].ir("optimized")
    for t, n in ((1, 1), (6, 9), (3, 32)):
        data = array(t, n, 4 * hidden)
        for a, b in zip(both[0](data), both[1](data)):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_a_few_rows_read_a_transposed_matrix_as_it_lies():
    """They would put it into order each time."""
    for rows, count in ((1, 2), (8, 2), (64, 1), ("N", 1)):
        inputs, outputs, _, _ = gated(4, "transposed", rows=rows)
        f = gw.function(inputs, outputs)
        assert kernels(f) == count, rows


X, W = gw.placeholder("x", "float32", ("N", 96)), gw.placeholder("w", "float32", (96, 2 * PART))
Z = gw.matmul(X, W)


@pytest.mark.parametrize("outputs", [
    [Z[:, :PART] * Z[:, PART - 1:-1]],  # parts that overlap
    [gw.exp(Z[:, :PART])],  # one is not read
    [Z[:, :PART] * Z[:, PART:], Z],  # the whole is read as well
    [gw.sum(Z[:, :PART] * Z[:, PART:], axis=1)],  # a sum of what is made of parts
    [Z[::2, :PART] * Z[::2, PART:]],  # not of all rows
], ids=["overlap", "unread", "whole", "sum", "rows"])
def test_other_slices(outputs):
    f, plain = gw.function([X, W], outputs), gw.function([X, W], outputs, optimize=False)
    a, b = array(10, 96), array(96, 2 * PART)
    for p, q in zip(f(a, b), plain(a, b)):
        np.testing.assert_allclose(p, q, rtol=1e-4, atol=1e-5)
