"""Convolutions and pooling as compiled, with their gradients, over many shapes: the interpreter's values, and the
same bits for any number of threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checks import assert_close

from graphwright.compiler.driver import compile_graph
from graphwright.ir.dims import symbol
from graphwright.ir.dtypes import as_dtype
from graphwright.ir.graph import Graph, Value
from graphwright.ir.interpreter import interpret
from graphwright.ir.op import OPS
from graphwright.ir.printer import print_kernel
from graphwright.passes.cpu_model import CpuModel
from graphwright.passes.lower_to_loops import lower_to_loops
from graphwright.passes.schedule_contraction import schedule_contraction
from graphwright.runtime.threads import get_num_threads, set_num_threads

FLOAT32 = as_dtype("float32")


def run_both(outputs: list[Value], inputs: list[Value], arrays: list[np.ndarray]) -> None:
    """Compiled with one thread and with two, against the interpreter."""
    graph = Graph("f", tuple(inputs), (), tuple(outputs))
    compiled = compile_graph(graph).executable
    before, found = get_num_threads(), []
    try:
        for threads in (1, 2):
            set_num_threads(threads)
            found.append([np.array(r) for r in compiled(*arrays)])
    finally:
        set_num_threads(before)
    expected = interpret(graph, arrays)[0]
    for one, two, right in zip(*found, expected, strict=True):
        assert one.tobytes() == two.tobytes()
        assert_close(one, right, graph, tolerance=2e-4)


def placeholder(name: str, shape: tuple[Any, ...]) -> Value:
    return OPS["input"](name=name, shape=shape, dtype=FLOAT32)


POOLS: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((9, 24), {}), ((8, 8), {}), ((7, 13), {}), ((6, 150), {}), ((5, 5), {"padding": ((0, 1), (1, 0))}),
    ((9, 21), {"kernel": (3, 3), "stride": (3, 3)}), ((12, 16), {"kernel": (4, 4), "stride": (4, 4)}),
    ((9, 17), {"kernel": (3, 3), "padding": ((1, 1), (1, 1))}), ((10, 11), {"dilation": (2, 2)}),
    ((6, 14), {"kernel": (2, 1), "stride": (2, 1)}),
    ((9, 25), {"kernel": (3, 3), "padding": ((1, 1), (1, 1))}),
]  # fmt: skip


@pytest.mark.parametrize("size, given", POOLS)
def test_max_pooling_and_its_gradient(size: tuple[int, ...], given: dict[str, Any]) -> None:
    attrs = {"kernel": (2, 2), "stride": (2, 2), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), **given}
    rng = np.random.default_rng(0)
    x = placeholder("x", (symbol("N"), 3, *size))
    pooled = OPS["window_max"](x, **attrs)
    g = placeholder("g", pooled.tensor.shape)
    where = OPS["window_argmax"](x, **attrs)
    put = OPS["mul"](OPS["window_put"](g, where, shape=size, **attrs), x)
    array = rng.integers(-3, 3, size=(5, 3, *size)).astype(np.float32)  # with ties
    cotangent = rng.normal(size=(5, *pooled.tensor.shape[1:])).astype(np.float32)
    run_both([pooled, where, put], [x, g], [array, cotangent])


CONVOLUTIONS: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((3, 9, 57), (5, 3, 3, 3), {"stride": (2, 2), "padding": ((1, 1), (1, 1))}),
    ((3, 9, 27), (5, 3, 1, 1), {"stride": (2, 2)}),
    ((3, 9, 41), (5, 3, 2, 2), {"stride": (3, 3)}),
    ((3, 8, 8), (4, 3, 3, 3), {"padding": ((1, 1), (1, 1))}),
    ((3, 16, 16), (4, 3, 3, 3), {"stride": (2, 2), "padding": ((1, 1), (1, 1))}),
    ((3, 9, 15), (4, 3, 3, 3), {"stride": (2, 2), "padding": ((1, 1), (1, 1))}),
    ((3, 12, 10), (2, 3, 1, 1), {"stride": (2, 2)}),
    ((2, 12, 18), (3, 2, 7, 7), {"stride": (2, 2), "padding": ((3, 3), (3, 3))}),
    ((2, 12, 18), (3, 2, 5, 4), {"stride": (3, 2), "padding": ((2, 0), (1, 2))}),
    ((2, 12, 20), (3, 2, 3, 3), {"stride": (2, 1), "padding": ((0, 1), (1, 1))}),
    ((4, 8, 12), (6, 2, 3, 3), {"stride": (2, 2), "padding": ((1, 1), (1, 1)), "groups": 2}),
    ((4, 10, 12), (4, 1, 3, 3), {"padding": ((1, 1), (1, 1)), "groups": 4}),
    ((2, 12, 40), (5, 2, 3, 3), {"stride": (1, 2), "dilation": (2, 1), "padding": ((2, 2), (1, 1))}),
    ((3, 70), (4, 3, 5), {"stride": (4,), "padding": ((2, 1),)}),
    ((3, 4, 34), (20, 3, 3, 3), {"stride": (2, 2), "padding": ((1, 0), (1, 0))}),
    ((3, 6, 56), (10, 3, 1, 3), {"padding": ((0, 0), (1, 1))}),  # tiles of whole rows
    ((2, 6, 14), (20, 2, 3, 3), {"padding": ((1, 1), (1, 1))}),  # of wide vectors
    ((3, 8, 8), (18, 3, 3, 3), {"padding": ((1, 1), (1, 1))}),  # of several lines
    ((3, 7, 7), (9, 3, 3, 3), {"padding": ((1, 1), (1, 1))}),
    ((3, 14, 14), (9, 3, 3, 3), {"stride": (2, 2), "padding": ((1, 1), (1, 1))}),  # strides under a mask
    ((2, 4, 6, 8), (3, 2, 2, 3, 3), {"stride": (1, 2, 2), "padding": ((0, 1), (1, 1), (1, 1))}),
]  # fmt: skip


@pytest.mark.parametrize("size, kernel, given", CONVOLUTIONS)
def test_a_convolution_and_its_gradients(size: tuple[int, ...], kernel: tuple[int, ...], given: dict[str, Any]) -> None:
    n = len(size) - 1
    attrs = {"stride": (1,) * n, "padding": ((0, 0),) * n, "dilation": (1,) * n, "groups": 1, **given}
    rng = np.random.default_rng(0)
    x, w = placeholder("x", (symbol("N"), *size)), placeholder("w", kernel)
    y = OPS["conv"](x, w, **attrs)
    g = placeholder("g", y.tensor.shape)
    by_input = OPS["conv_input_grad"](g, w, shape=size[1:], **attrs)
    by_kernel = OPS["conv_weight_grad"](x, g, kernel=kernel[2:], **attrs)
    shapes = [(5, *size), kernel, (5, *y.tensor.shape[1:])]
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    run_both([y, by_input, by_kernel], [x, w, g], arrays)


@pytest.mark.parametrize("size, tile", [(58, "[3, 56]"), (30, "[8, 32]"), (16, "[16, 16]"), (10, "[4, 4, 8]")])
def test_the_tile_of_a_convolution_fits_its_rows(size: int, tile: str) -> None:
    """Rows x columns, or rows x lines x columns: a row of odd vectors, two or one wide ones, short lines."""
    x, w = placeholder("x", (symbol("N"), 8, size, size)), placeholder("w", (64, 8, 3, 3))
    y = OPS["conv"](x, w, stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1))
    kernel = lower_to_loops(Graph("f", (x, w), (), (y,)), "conv")
    scheduled = schedule_contraction(kernel, CpuModel(32, registers=32, tile_bytes=64, masked_bytes=4))
    assert scheduled is not None
    assert f"alloc %acc: f32{tile} register" in print_kernel(scheduled)
