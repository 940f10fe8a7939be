"""Updates in place: states read elsewhere, exchanged, chained, shared with arguments, called from many threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from checks import input_value

from graphwright.compiler.driver import Compiled, compile_graph
from graphwright.ir.dims import symbol
from graphwright.ir.dtypes import as_dtype
from graphwright.ir.graph import Graph, Value
from graphwright.ir.interpreter import interpret
from graphwright.ir.op import OPS
from graphwright.ir.verify_program import verify_program
from graphwright.runtime.buffers import Cell

SHAPE = (3, 5)


def state(name: str, shape: Sequence[Any] = SHAPE, dtype: str = "float32") -> Value:
    return OPS["state"](name=name, shape=tuple(shape), dtype=as_dtype(dtype))


def compiled(
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    updates: Sequence[tuple[Value, Value]],
    optimize: bool,
    **env: int,
) -> tuple[Compiled, list[Cell]]:
    """The function and fresh cells of its states: 0, 1, 2 ... shifted by 100 from state to state."""
    states = [s for s, _ in updates]
    graph = Graph("step", tuple(inputs), tuple(states), tuple(outputs), tuple(updates))
    cells = []
    for k, s in enumerate(states):
        shape = [int(d) if isinstance(d, int) else env[str(d)] for d in s.tensor.shape]
        cells.append(Cell(s.attrs["name"], _counting(shape, s.tensor.dtype.numpy) + 100 * k))
    result = compile_graph(graph, cells, ["list", *["*"] * len(outputs)], optimize=optimize)
    verify_program(result.lowered.program, env)
    return result, cells


def _counting(shape: Sequence[int], dtype: Any) -> np.ndarray:
    return np.arange(int(np.prod(shape)), dtype=dtype).reshape(shape)


def check(
    build: Callable[[], tuple[Sequence[Value], Sequence[Value], Sequence[tuple[Value, Value]]]], calls: int = 3
) -> None:
    """Several calls, optimized and not, against the interpreter."""
    for optimize in (True, False):
        inputs, outputs, updates = build()
        step, cells = compiled(inputs, outputs, updates, optimize)
        graph = step.lowered.graph
        arrays = [_counting(v.tensor.shape, v.tensor.dtype.numpy) / 2 for v in inputs]
        for _ in range(calls):
            expected, new = interpret(graph, arrays, [c.value for c in cells])
            actual = step.executable(*arrays)
            for a, e in zip([*actual, *(c.value for c in cells)], [*expected, *new], strict=True):
                np.testing.assert_allclose(a, e, rtol=1e-6, atol=1e-6, err_msg=f"optimize={optimize}")


def _read_elsewhere() -> Any:
    """The old value is summed, returned, and transposed after the step that could overwrite it."""
    w, x = state("w"), input_value("x", SHAPE, "float32")
    new = w + x
    return [x], [OPS["sum"](w, axes=(0, 1)), w, OPS["transpose"](w, perm=(1, 0)), new * w], [(w, new)]


def _read_by_the_update() -> Any:
    """One kernel writes the new value and more results that read the old one."""
    w, x = state("w"), input_value("x", SHAPE, "float32")
    return [x], [w * w, w - x], [(w, w * 0.5 + x)]


def _read_at_another_place() -> Any:
    """The new value reads the old one in another order, so it cannot be written in place."""
    w = state("w")
    return [], [], [(w, OPS["reverse"](w, axes=(1,)) + w)]


def _row_of_itself() -> Any:
    """Each row is normalized by a sum over it: read whole before it is written."""
    w = state("w")
    e = OPS["exp"](w * 0.01)
    total = OPS["broadcast"](OPS["sum"](e, axes=(1,)), shape=SHAPE, dims=(0,))
    return [], [], [(w, e / total)]


def _exchanged() -> Any:
    a, b = state("a"), state("b")
    return [], [a + b], [(a, b), (b, a)]


def _rotated() -> Any:
    a, b, c = (state(n) for n in "abc")
    return [], [], [(a, b), (b, c + 1), (c, a * 2)]


def _chained() -> Any:
    """Momentum: the new velocity makes the new weights, and both old values are returned."""
    w, v, g = state("w"), state("v"), input_value("g", SHAPE, "float32")
    velocity = v * 0.5 + g
    moved = w - velocity * 0.125
    return [g], [w, v, moved], [(w, moved), (v, velocity)]


def _one_value_for_two() -> Any:
    a, b, x = state("a"), state("b"), input_value("x", SHAPE, "float32")
    value = a * x + b
    return [x], [value, value], [(a, value), (b, value)]


def _input_kept() -> Any:
    """An argument is returned, is a new value, and is reshaped."""
    w, x = state("w"), input_value("x", SHAPE, "float32")
    return [x], [x, OPS["reshape"](x, shape=(15,)), w], [(w, x)]


def _through_a_view() -> Any:
    """The new value is another shape of a result; the old one is read in between."""
    w, flat = state("w"), input_value("x", (15,), "float32")
    y = flat * 2
    return [flat], [y, w], [(w, OPS["reshape"](y, shape=SHAPE))]


def _own_view() -> Any:
    """A view of the old value is read after the update, which is made of another view."""
    w = state("w")
    flat = OPS["reshape"](w, shape=(15,))
    return [], [flat * 3], [(w, OPS["reshape"](flat + 1, shape=SHAPE))]


def _product_with_itself() -> Any:
    w = state("w", (4, 4))
    squared = OPS["dot"](w * 0.01, w, contract=((1,), (0,)))
    return [], [w], [(w, squared)]


def _rows_taken() -> Any:
    """Rows are read at data-dependent places while the table is updated."""
    w = state("w")
    return [], [], [(w, OPS["take"](w, OPS["argmin"](w, axes=(0,)), axis=1) + w)]


def _cumulated() -> Any:
    """Each row is the row before, of the old value, plus itself."""
    w = state("w")
    upper = OPS["slice"](w, start=(0, 0), shape=(2, 5), step=(1, 1))
    before = OPS["pad"](upper, low=(1, 0), high=(0, 0), interior=(0, 0))
    return [], [before], [(w, before + w)]


CASES = [
    _read_elsewhere, _read_by_the_update, _read_at_another_place, _row_of_itself, _exchanged, _rotated, _chained,
    _one_value_for_two, _input_kept, _through_a_view, _own_view, _product_with_itself, _rows_taken,
    _cumulated,
]  # fmt: skip


@pytest.mark.parametrize("build", CASES, ids=lambda f: f.__name__.strip("_"))
def test_updates(build: Any) -> None:
    check(build)


# --- arguments that share memory -------------------------------------------------------------------


def _sum_step(optimize: bool) -> tuple[Compiled, list[Cell]]:
    """``w += x; return w_old - y``, with a symbolic number of rows."""
    n = symbol("N")
    w, x, y = state("w", (n, 5)), input_value("x", (n, 5), "float32"), input_value("y", (n, 5), "float32")
    return compiled([x, y], [w - y, w * x], [(w, w + x)], optimize, N=40)


@pytest.mark.parametrize("optimize", [True, False])
def test_one_array_passed_twice(optimize: bool) -> None:
    step, (cell,) = _sum_step(optimize)
    x, w = np.full((40, 5), 0.5, np.float32), cell.value
    difference, product = step.executable(x, x)
    np.testing.assert_array_equal(difference, w - x)
    np.testing.assert_array_equal(product, w * x)
    np.testing.assert_array_equal(cell.value, w + x)
    np.testing.assert_array_equal(x, 0.5)


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("part", ["whole", "view"])
def test_an_argument_that_is_the_variable(optimize: bool, part: str) -> None:
    """The variable's own memory as an argument: results are those of a copy."""
    step, (cell,) = _sum_step(optimize)
    w = cell.value
    x = cell.array if part == "whole" else cell.view
    difference, product = step.executable(x, x)
    np.testing.assert_array_equal(difference, np.zeros_like(w))
    np.testing.assert_array_equal(product, w * w)
    np.testing.assert_array_equal(cell.value, w + w)


@pytest.mark.parametrize("optimize", [True, False])
def test_an_argument_that_overlaps_the_variable(optimize: bool) -> None:
    """Rows of the variable's memory, in a function of another number of rows."""
    n = symbol("N")
    w, x = state("w", (40, 5)), input_value("x", (n, 5), "float32")
    total = OPS["broadcast"](OPS["sum"](x, axes=(0, 1)), shape=(40, 5), dims=())
    step, (cell,) = compiled([x], [x * 2, OPS["sum"](w, axes=(0, 1))], [(w, w * 0.5 + total)], optimize, N=3)
    old = cell.value
    doubled, whole = step.executable(cell.array[7:20])
    np.testing.assert_array_equal(doubled, old[7:20] * 2)
    np.testing.assert_allclose(whole, old.sum(), rtol=1e-5)
    np.testing.assert_allclose(cell.value, old * 0.5 + old[7:20].sum(), rtol=1e-5)


# --- many threads ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [4, 3000])
def test_calls_from_many_threads(rows: int) -> None:
    """Updates are neither lost nor torn, and a pure function is not disturbed by them.

    Every update adds the same number to all elements, so any whole state has equal elements.
    """
    n = symbol("N")
    w, x = state("w", (n, 64)), input_value("x", (n, 64), "float32")
    new = w + x
    ends = [OPS[name](new, axes=(0, 1)) for name in ("amin", "amax")]
    step, (cell,) = compiled([x], ends, [(w, new)], True, N=rows)
    cell.assign(np.zeros((rows, 64), np.float32))
    y = input_value("y", (n, 64), "float32")
    softened = OPS["tanh"](y) / (OPS["broadcast"](OPS["sum"](y * y, axes=(1,)), shape=(n, 64), dims=(0,)) + 1)
    pure = compile_graph(Graph("pure", (y,), (), (softened,)), structure="*").executable
    ones, given = np.ones((rows, 64), np.float32), np.linspace(-1, 1, rows * 64, dtype=np.float32).reshape(rows, 64)
    wanted = pure(given)
    threads, calls = 8, 25
    start = threading.Barrier(threads)
    seen: list[float] = []

    def work(index: int) -> None:
        start.wait()
        for _ in range(calls):
            if index % 2:
                np.testing.assert_array_equal(pure(given), wanted)
            else:
                low, high = step.executable(ones)
                assert low == high
                seen.append(float(low))

    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, k) for k in range(threads)]:
            done.result()
    updates = calls * threads // 2
    assert sorted(seen) == [float(k + 1) for k in range(updates)]
    np.testing.assert_array_equal(cell.value, updates)
