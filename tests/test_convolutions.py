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
