"""Bugs that were found once, each as small as it could be made."""

from __future__ import annotations

import numpy as np
import pytest
from checks import graph, input_value
from guard_pages import fenced

from graphwright.compiler.driver import compile_graph
from graphwright.compiler.llvm.function import FunctionText, ModuleText
from graphwright.compiler.llvm.strided import STRIDES, strided_load
from graphwright.errors import DimensionError, VerifyError
from graphwright.ir import dims
from graphwright.ir.broadcasting import full
from graphwright.ir.dtypes import DTYPES, float32
from graphwright.ir.graph import Graph, topological
from graphwright.ir.interpret_program import interpret_program
from graphwright.ir.interpreter import interpret
from graphwright.ir.loops import For, statements
from graphwright.ir.op import OPS
from graphwright.ir.parser import parse_program
from graphwright.ir.verify import verify_graph
from graphwright.ir.verify_program import verify_program
from graphwright.passes.cpu_model import CpuModel
from graphwright.passes.differentiate import gradients
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


@pytest.mark.parametrize("op", ["full", "iota", "broadcast"])
def test_a_negative_size_of_what_is_created(op: str) -> None:
    """It is refused by interpreter and compiled code alike, though only a sum of it comes out."""
    x = input_value("x", (N,), "float32")
    made = {
        "full": lambda: full((N - 1,), 0.5, float32),
        "iota": lambda: OPS["iota"](shape=(N - 1,), axis=0, dtype=float32),
        "broadcast": lambda: OPS["broadcast"](OPS["sum"](x, axes=(0,)), shape=(N - 1,), dims=()),
    }[op]()
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


def test_comparing_dims_where_a_divisor_may_be_zero() -> None:
    """Looking at the case N = 0 divided by it."""
    rest = dims.floordiv(dims.mod(M, N), 2)
    assert not dims.at_most(M, rest)
    assert not dims.equal(rest, M)


@pytest.mark.parametrize("rank", [9, 17])
def test_more_loops_than_there_are_letters(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loops were called i8 and i16, which are dtypes."""
    monkeypatch.setenv("GRAPHWRIGHT_VERIFY", "1")
    x = input_value("x", (1,) * (rank - 2) + (2, 3), "float32")
    order = (*reversed(range(rank - 2)), rank - 1, rank - 2)
    g = graph([x], [OPS["transpose"](OPS["tanh"](x), perm=order)])
    array = np.linspace(-1, 1, 6, dtype=np.float32).reshape(x.tensor.shape)
    compiled = compile_graph(g, structure="*")
    assert parse_program(compiled.ir("program"))
    np.testing.assert_allclose(compiled.executable(array), interpret(g, [array])[0][0], rtol=1e-6)


@pytest.mark.parametrize("shape", [(1, 2, 3), (1, 2, 1, 2)])
def test_a_scatter_of_many_axes(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHWRIGHT_VERIFY", "1")
    index, updates = input_value("i", (4,), "int64"), input_value("u", (*shape, 4), "float32")
    g = graph([index, updates], [OPS["scatter_add"](index, updates, axis=len(shape), size=3)])
    arrays = [np.array([2, 0, 2, 1]), np.arange(4 * np.prod(shape), dtype=np.float32).reshape(*shape, 4)]
    compiled = compile_graph(g, structure="*")
    np.testing.assert_array_equal(compiled.executable(*arrays), interpret(g, arrays)[0][0])


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "float32", "bool"])
@pytest.mark.parametrize("size", [N, 300])
def test_a_size_that_its_dtype_cannot_hold(size: dims.Dim, dtype: str) -> None:
    """A sum of ones became a `full` of 300 in uint8, which the interpreter refused; integers wrap."""
    x, kind = input_value("x", (N,), "float32"), DTYPES[dtype]
    results = [OPS["dim"](value=size, dtype=kind), OPS["iota"](shape=(size,), axis=0, dtype=kind)]
    if not kind.is_bool:
        results.append(OPS["sum"](full((5, size), 1, kind), axes=(0, 1)))
    g = graph([x], results)
    for optimize in (True, False):
        compiled = compile_graph(g, structure=["list", *["*"] * len(results)], optimize=optimize)
        for n in (3, 300):
            array = np.zeros(n, np.float32)
            expected = interpret(g, [array])[0]
            for stage in (compiled.executable(array), interpret(compiled.lowered.optimized, [array])[0]):
                for a, b in zip(stage, expected, strict=True):
                    np.testing.assert_array_equal(a, b)


def test_the_gradient_of_a_product_takes_no_more_memory_than_the_product() -> None:
    """With a symbolic extent it compared all pairs of elements; the second gradient even all triples."""
    x = input_value("x", (N,), "float32")
    (first,) = gradients(OPS["prod"](x, axes=(0,)), [x])
    (second,) = gradients(OPS["sum"](first * first, axes=(0,)), [x])
    for v in topological([first, second]):
        assert dims.at_most(v.tensor.size, N + 1), v
    array = np.array([2, 0, 3, 0.5], np.float32)
    g = graph([x], [first, second])
    for a, b in zip(compile_graph(g, structure=["list", "*", "*"]).executable(array), interpret(g, [array])[0]):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    np.testing.assert_array_equal(interpret(g, [array])[0][0], [0, 3, 0, 0])


def test_a_dimension_that_nothing_gives_is_refused() -> None:
    """The code generator failed with a KeyError."""
    g = graph([input_value("x", (N,), "float32")], [OPS["dim"](value=M * N + 1, dtype=float32)])
    with pytest.raises(VerifyError, match="no input or state has the dimension M"):
        verify_graph(g)


def test_one_number_is_drawn_from_the_whole_key() -> None:
    """Its position 0 was taken for the index of the key's first word, and moved with the lanes, beyond the key."""
    key = OPS["state"](name="key", shape=(4,), dtype=DTYPES["uint32"])
    g = Graph("one", (), (key,), (OPS["reshape"](OPS["random_bits"](key, shape=(), stream=1), shape=(1,)),), ())
    words = np.array([3, 1, 4, 1], np.uint32)
    (expected,), _ = interpret(g, [], [words])
    compiled = compile_graph(g, [Cell("key", words)], structure=["list", "*"])
    (checked,), _ = interpret_program(compiled.lowered.program, [], [words], {})
    for found in (checked, compiled.executable()[0]):
        np.testing.assert_array_equal(found, expected)


def test_no_row_of_an_empty_array_is_read() -> None:
    """The sum over a row that all elements share was made before their loop, also where there are no rows."""
    x = input_value("x", (0, 16), "float32")
    first = OPS["take"](x, full((0,), 0, DTYPES["int64"]), axis=0)
    program = compile_graph(graph([x], [OPS["sum"](first, axes=(1,))]), structure="*").lowered.program
    outputs, _ = interpret_program(program, [np.zeros((0, 16), np.float32)], [], {})
    assert outputs[0].shape == (0,)


def test_a_last_axis_of_one_is_no_panel() -> None:
    """An index of 0 was taken for the column modulo the panel's one column: the schedule failed."""
    x = input_value("x", (3, 3, 3, 1), "float32")
    y = OPS["reshape"](x, shape=(3, 3, 3))
    g = graph([x], [OPS["dot"](x, y, contract=((2,), (1,)), batch=((1,), (2,)))])
    array = np.arange(27, dtype=np.float32).reshape(x.shape)
    (expected,), _ = interpret(g, [array])
    np.testing.assert_array_equal(compile_graph(g, structure="*").executable(array), expected)


@pytest.mark.parametrize("at_end", [False, True], ids=["begin", "end"])
@pytest.mark.parametrize("op", ["mul", "max"])
def test_padding_is_not_read(op: str, at_end: bool) -> None:
    """LLVM dropped the mask of a load on its way into a multiplication under the same mask."""
    x = input_value("x", (2, 17), "float32")
    scaled = OPS[op](x, full((2, 17), 0.9, float32)) + full((2, 17), 0.5, float32)
    window = {"kernel": (3,), "stride": (1,), "dilation": (1,), "padding": ((0, 1) if at_end else (1, 0),)}
    g = graph([x], [OPS["window_sum"](scaled, **window)])
    array = np.random.default_rng(0).normal(size=(2, 17)).astype(np.float32)
    given = fenced(array, at_end)
    (expected,), _ = interpret(g, [array])
    np.testing.assert_allclose(compile_graph(g, structure="*").executable(given), expected, rtol=1e-6)


def test_long_sums_of_floats() -> None:
    """One accumulator took all terms: where these are alike, so are the errors, and a mean was wrong by a hundredth."""
    x, y = input_value("x", (N,), "float32"), input_value("y", (N, M), "float32")
    for value, shape in ((x, (2_000_000,)), (y, (500_000, 3)), (y, (500_000, 40)), (y, (3, 500_000))):
        axes = [(0,)] if len(shape) == 1 else [(0,), (1,), (0, 1)]
        for chosen in axes:
            compiled = compile_graph(graph([value], [OPS["sum"](value, axes=chosen)]), structure="*")
            array = np.full(shape, 0.7616, "f4")
            np.testing.assert_allclose(compiled.executable(array), array.sum(chosen, np.float64), rtol=1e-5)


def test_a_product_over_no_elements_is_zero() -> None:
    """Where the sum has no terms, NumPy's `einsum` returned what memory held, in two processes of many."""
    a, b = input_value("a", (N, M), "float32"), input_value("b", (M, 5), "float32")
    dot = OPS["dot"](a, b, contract=((1,), (0,)))
    (found,), _ = interpret(graph([a, b], [dot]), [np.zeros((3, 0), "f4"), np.zeros((0, 5), "f4")])
    assert found.dtype == np.float32 and found.tolist() == [[0.0] * 5] * 3


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("lanes", [2, 4, 8, 16])
def test_strided_loads_stay_between_the_first_and_the_last_element(lanes: int, stride: int) -> None:
    """Of two elements that are four apart, the one after the second was read as well."""
    begins: list[int] = []

    def load(start: int) -> str:
        begins.append(start)
        return f"%v{start}"

    strided_load(FunctionText(ModuleText(CpuModel())), f"<{lanes} x float>", lanes, stride, load)
    ends = sorted((0, (lanes - 1) * stride))
    assert ends[0] == min(begins) and max(begins) + lanes - 1 == ends[1]
