"""Bugs that were found once, each as small as it could be made."""

from __future__ import annotations

import numpy as np
import pytest
from checks import graph, input_value

from graphwright.compiler.driver import compile_graph
from graphwright.errors import DimensionError
from graphwright.ir import dims
from graphwright.ir.broadcasting import full
from graphwright.ir.dtypes import float32
from graphwright.ir.graph import Graph
from graphwright.ir.interpreter import interpret
from graphwright.ir.loops import For, statements
from graphwright.ir.op import OPS
from graphwright.ir.verify import verify_program
from graphwright.runtime.buffers import Cell

N, M = dims.symbol("N"), dims.symbol("M")


def test_rows_that_may_collide_are_not_given_to_threads() -> None:
    """The loop over the positions of a scatter was merged into the parallel one: updates were lost."""
    index, updates = input_value("i", (M * N,), "int64"), input_value("u", (3, M * N), "float32")
    anchor = input_value("a", (N, M), "float32")
    g = graph([index, updates, anchor], [OPS["scatter_add"](index, updates, axis=1, size=N + 1)])
    compiled = compile_graph(g, structure="*")
    (kernel,) = compiled.lowered.program.kernels
    loops = [s for s in statements(kernel.body) if isinstance(s, For)]
    assert not any(s.kind == "parallel" and s.extent == 3 * M * N for s in loops)
    assert any(s.kind == "parallel" and s.extent == 3 for s in loops)  # rows of the result are independent
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 5, 70 * 40), rng.integers(-9, 9, (3, 70 * 40)).astype("f4"), np.zeros((70, 40), "f4")]
    (expected,), _ = interpret(g, arrays)
    for _ in range(20):
        np.testing.assert_array_equal(compiled.executable(*arrays), expected)


def test_an_output_that_is_another_shape_of_a_result() -> None:
    """The step that makes the result was given the output's memory under the output's shape."""
    x = input_value("x", (N, 4), "float32")
    y = OPS["tanh"](x)
    g = graph([x], [OPS["reshape"](y, shape=(4 * N,)), y])
    compiled = compile_graph(g, structure=["tuple", "*", "*"])
    verify_program(compiled.lowered.program, {"N": 5})
    array = np.linspace(-1, 1, 20, dtype=np.float32).reshape(5, 4)
    flat, same = compiled.executable(array)
    np.testing.assert_allclose(same, np.tanh(array), rtol=1e-6)
    np.testing.assert_array_equal(flat, same.ravel())


def test_an_update_by_another_shape_of_a_result() -> None:
    w = OPS["state"](name="w", shape=(4, 5), dtype=float32)
    x = input_value("x", (20,), "float32")
    g = Graph("step", (x,), (w,), (), ((w, OPS["reshape"](OPS["neg"](x), shape=(4, 5))),))
    cell = Cell("w", np.zeros((4, 5), np.float32))
    compiled = compile_graph(g, [cell], ["tuple"])
    verify_program(compiled.lowered.program)
    compiled.executable(np.arange(20, dtype=np.float32))
    np.testing.assert_array_equal(cell.value, -np.arange(20, dtype=np.float32).reshape(4, 5))


@pytest.mark.parametrize("op", ["full", "iota"])
def test_a_negative_size_of_what_is_created(op: str) -> None:
    """It is refused by interpreter and compiled code alike, though only a sum of it comes out."""
    x = input_value("x", (N,), "float32")
    made = full((N - 1,), 0.5, float32) if op == "full" else OPS["iota"](shape=(N - 1,), axis=0, dtype=float32)
    g = graph([x], [OPS["sum"](made, axes=(0,))])
    run = compile_graph(g, structure="*").executable
    np.testing.assert_allclose(run(np.zeros(4, np.float32)), interpret(g, [np.zeros(4, np.float32)])[0][0])
    nothing = np.zeros(0, np.float32)
    with pytest.raises(DimensionError, match="negative"):
        interpret(g, [nothing])
    with pytest.raises(DimensionError, match="negative"):
        run(nothing)


def test_different_dims_are_told_apart_without_sympy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparing `max(0, 2*N - 1)` with another dim took SymPy a third of a second, every time."""
    import sympy

    def simplify(*_: object) -> None:
        raise AssertionError("SymPy was asked")

    monkeypatch.setattr(sympy, "simplify", simplify)
    dilated = dims.dim_max(0, 2 * N - 1)
    for other in (N, 2 * N - 1, M, dims.floordiv(N, 3), dilated + 1):
        assert not dims.equal(dilated, other)
        assert not dims.equal(dims.floordiv(dilated, 3) + 1, other)
