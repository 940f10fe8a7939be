"""Run in a process of its own with ``NUMBA_ENABLE_CUDASIM=1``: CUDA kernels in Numba's simulator.

Prints, as JSON, how many cases ran and what went wrong, by group; see ``test_cuda.py``.
"""

from __future__ import annotations

import itertools
import json
import sys
import traceback
from collections.abc import Callable, Iterator

import numpy as np
from checks import Case, assert_close, cases, sampled_ops
from custom_ops import block_sums, leaky_sum, matches
from lenet import lenet_step

import graphwright as gw
from graphwright.compiler.driver import compile_graph
from graphwright.compiler.target import CudaTarget
from graphwright.ir.dims import symbol
from graphwright.ir.dtypes import DTYPES
from graphwright.ir.graph import Graph
from graphwright.ir.interpreter import interpret
from graphwright.ir.op import OPS
from graphwright.passes.cuda_model import CudaModel
from graphwright.runtime.buffers import Cell

TARGET = CudaTarget(model=CudaModel(threads=8))  # each is a Python thread here
PER_DTYPE = 2  # samples of an op

Check = tuple[object, Callable[[], None]]


def samples() -> Iterator[Check]:
    """The first samples of every op, in each dtype that it takes."""
    for name in sampled_ops():
        op = OPS[name]
        for dtype in ("float32", "float64", "int32", "uint8", "bool"):
            for case in itertools.islice(cases(op, (DTYPES[dtype],)), PER_DTYPE):
                yield case, lambda case=case: run(case)


def special_values() -> Iterator[Check]:
    """Elementwise ops on NaN, infinities and signed zeros, and on the limits of integers."""
    floats = np.array([0.0, -0.0, 1.0, -2.5, 3.0, 1e30, -1e-30, np.nan, np.inf, -np.inf], np.float32)
    for name in sampled_ops():
        op = OPS[name]
        if not op.elementwise or name == "nextafter":
            continue
        for values in (floats, _limits(np.int32), _limits(np.uint8), _limits(np.int64)):
            grid = [g.ravel() for g in np.meshgrid(*[values[:6] if op.arity > 2 else values] * op.arity)]
            operands = (grid[0] > 0, *grid[1:]) if name == "where" else tuple(grid)
            case = Case(op, operands, dict(op.attrs))
            try:
                op.infer_type(case.values(), case.attrs)
            except Exception:  # the op does not take this dtype, or needs attributes
                continue
            yield case, lambda case=case: run(case)


def _limits(dtype: type) -> np.ndarray:
    info = np.iinfo(dtype)
    return np.array([info.min, 0, 1, 2, info.max, 7] + ([-1, -3] if info.min else [200]), dtype)


def run(case: Case) -> None:
    compiled = compile_graph(case.graph(), target=TARGET)
    assert_close(compiled.executable(*case.operands), case.expected(), case)


def training() -> Iterator[Check]:
    yield "lenet", lambda: train(CudaTarget(model=CudaModel(threads=4)), batches=(2, 3))


def train(target: CudaTarget, batches: tuple[int, ...]) -> None:
    """Steps of different batch sizes give what the interpreter gives."""
    step = lenet_step()
    cells = [Cell(s.attrs["name"], v) for s, v in zip(step.graph.states, step.states)]
    compiled = compile_graph(step.graph, cells, target=target)
    states = step.states
    for k, n in enumerate(batches):
        batch = step.batch(n, 8, 4, seed=k)
        loss = compiled.executable(*batch)
        (expected,), states = interpret(step.graph, batch, states)
        assert_close(loss, expected, f"loss of step {k}")
        for cell, state in zip(cells, states):
            assert_close(cell.array, state, f"{cell.name} after step {k}")


def schedules() -> Iterator[Check]:
    """Nests that take each way through the schedule, with blocks of different sizes."""
    n = symbol("N")
    for threads, size in ((4, 3), (8, 1), (16, 18)):
        yield f"rows, {threads} threads", lambda t=threads, m=size: _rows(t, m, n)
    yield "variables", _variables
    yield "frontend", _frontend


def _rows(threads: int, size: int, n: object) -> None:
    x = OPS["input"](name="x", shape=(n, 100), dtype=DTYPES["float32"])
    i = OPS["input"](name="i", shape=(n,), dtype=DTYPES["int64"])
    top = OPS["broadcast"](OPS["amax"](x, axes=(1,)), shape=x.shape, dims=(0,))
    e = OPS["exp"](x - top)
    softmax = e / OPS["broadcast"](OPS["sum"](e, axes=(1,)), shape=x.shape, dims=(0,))
    total = OPS["sum"](x, axes=(0, 1))
    scaled = x * OPS["broadcast"](total, shape=x.shape, dims=())
    counts = OPS["scatter_add"](i, x, axis=0, size=4)
    best = OPS["argmax"](x, axes=(0, 1))
    graph = Graph("rows", (x, i), (), (softmax, total, scaled, counts, best, OPS["argmax"](x, axes=(1,))))
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((size, 100)).astype("f"), rng.integers(-4, 6, size)]
    compiled = compile_graph(graph, target=CudaTarget(model=CudaModel(threads=threads)))
    for actual, expected in zip(compiled.executable(*arrays), interpret(graph, arrays)[0]):
        assert_close(actual, expected, compiled.ir("loops"))
    again = compiled.executable(*arrays)
    assert all(np.array_equal(a, b) for a, b in zip(again, compiled.executable(*arrays)))


def _variables() -> None:
    """Two functions share a variable, which the host may change as well; a refused call changes nothing."""
    x = OPS["input"](name="x", shape=(3,), dtype=DTYPES["float64"])
    w = OPS["state"](name="w", shape=(3,), dtype=DTYPES["float64"])
    cell = Cell("w", np.ones(3))
    add = compile_graph(Graph("add", (x,), (w,), (w,), ((w, w + x),)), (cell,), target=TARGET)
    read = compile_graph(Graph("read", (), (w,), (w * 2.0,)), (cell,), target=TARGET)
    assert add.executable(np.full(3, 2.0)).tolist() == [1, 1, 1]
    assert cell.array.tolist() == [3, 3, 3] and read.executable().tolist() == [6, 6, 6]
    cell.assign(np.zeros(3))
    assert read.executable().tolist() == [0, 0, 0]
    cell.array[1] = 5.0
    assert add.executable(x=np.ones(3)).tolist() == [0, 5, 0] and cell.array.tolist() == [1, 6, 1]
    for wrong in ((np.ones(4),), (np.ones(3, "f"),), ()):
        try:
            add.executable(*wrong)
        except Exception as e:
            assert "add" in str(e)
        else:
            raise AssertionError(f"{wrong} was accepted")
    assert cell.array.tolist() == [1, 6, 1]


def _frontend() -> None:
    """The graph API's ``target="cuda"``."""
    x = gw.placeholder("x", "float32", ("N", 3))
    w = gw.Variable(np.ones((3, 2), np.float32), name="w")
    loss = gw.sum(gw.tanh(x @ w))
    (grad,) = gw.grad(loss, [w])
    step = gw.function([x], {"loss": loss}, updates={w: w - grad}, name="step", target="cuda")
    batch = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
    expected = np.tanh(batch @ np.ones((3, 2), np.float32)).sum()
    np.testing.assert_allclose(step(batch)["loss"], expected, rtol=1e-5, atol=1e-5)
    assert np.abs(w.value - 1).max() > 0.1
    assert "@cuda.jit" in step.ir("cuda") and step.memory(N=4) >= 0


def custom() -> Iterator[Check]:
    """Kernels of users, beside generated ones."""
    op = leaky_sum()
    for dtype in ("float32", "float64"):
        yield f"leaky_sum of {dtype}", lambda dtype=dtype: _leaky_sum(op, dtype)
    yield "dtypes and shapes", _custom_dtypes_and_shapes
    yield "variables", lambda: _custom_updates(op)


def _same_as_cpu(inputs: list[gw.Tensor], outputs: list[gw.Tensor], batches: list[tuple[np.ndarray, ...]]) -> None:
    graph = gw.function(inputs, outputs, target="interpreter").graph
    compiled = compile_graph(graph, target=TARGET)
    on_cpu = compile_graph(graph)
    assert compiled.ir("loops").count("foreign @")
    for arrays in batches:
        for actual, expected in zip(compiled.executable(*arrays), on_cpu.executable(*arrays)):
            assert actual.shape == expected.shape and actual.dtype == expected.dtype
            assert_close(actual, expected, [a.shape for a in arrays])


def _leaky_sum(op: Callable[..., gw.Tensor], dtype: str) -> None:
    """Values and gradients at all sizes; the gradient also against differences."""
    rng = np.random.default_rng(0)
    x, decay = gw.placeholder("x", dtype, ("N", "M")), gw.placeholder("decay", dtype, ())
    y = gw.tanh(op(x * 2 + 1, decay)) * 0.5
    gradient = gw.grad(gw.sum(y), x)
    sizes = ((3, 5), (1, 1), (17, 4), (0, 4), (2, 0))
    batches = [(rng.normal(size=s).astype(dtype), np.asarray(0.7, dtype)) for s in sizes]
    _same_as_cpu([x, decay], [y, gradient, op(op(x, decay), decay)], batches)
    if dtype == "float64":
        compiled = gw.function([x, decay], [gw.sum(y), gradient], target="cuda")
        at, move = rng.normal(size=(2, 3)), 1e-5 * rng.normal(size=(2, 3))
        (up, _), (down, _) = compiled(at + move, 0.7), compiled(at - move, 0.7)
        np.testing.assert_allclose(up - down, 2 * np.sum(compiled(at, 0.7)[1] * move), rtol=1e-6)


def _custom_dtypes_and_shapes() -> None:
    """Bools, a scalar, an operand without elements, and results of other sizes than the operands."""
    x, keys = gw.placeholder("x", "float32", ("R", 2)), gw.placeholder("keys", "int64", ("N",))
    wanted = gw.placeholder("wanted", "bool", ())
    rng = np.random.default_rng(1)
    batches = [
        (rng.normal(size=(r, 2)).astype("f"), rng.integers(0, 9, n), np.asarray(r != 2))
        for r, n in ((3, 20), (0, 5), (2, 3), (4, 0))
    ]
    _same_as_cpu([x, keys, wanted], [matches()(x, keys, wanted), gw.sum(x)], batches)
    op, v = block_sums(), gw.placeholder("v", "float64", ("N",))
    _same_as_cpu([v], [op(v), op(v * 2)], [(rng.normal(size=n),) for n in (0, 1, 8, 75)])


def _custom_updates(op: Callable[..., gw.Tensor]) -> None:
    """A variable that a custom op renews."""
    x, w = gw.placeholder("x", "float32", ()), gw.Variable(np.ones((2, 3), "f"), name="w")
    step = gw.function([x], gw.sum(w), updates={w: op(w, x)}, target="cuda")
    assert step(np.float32(1)) == 6 and w.value.tolist() == [[1, 2, 3]] * 2
    assert step(np.float32(0)) == 12 and w.value.tolist() == [[1, 2, 3]] * 2


def draws() -> Iterator[Check]:
    """The numbers that a CPU draws; a generator advances."""
    yield "distributions", _distributions


def _distributions() -> None:
    found = {}
    for target in ("cpu", "cuda"):
        rng = gw.random.Generator(1)
        f = gw.function([], {
            "bits": rng.bits((70,)), "bits 64": rng.bits((40,), "uint64"), "uniform": rng.uniform((5,)),
            "normal": rng.normal((70,)), "integers": rng.integers(10, shape=(20,)), "order": rng.permutation(9),
        }, target=target)  # fmt: skip
        found[target] = [*f().values(), *f().values(), rng.value]
    for actual, expected in zip(found["cuda"], found["cpu"], strict=True):
        assert_close(actual, expected, "draws")


GROUPS = {f.__name__: f for f in (samples, special_values, training, schedules, custom, draws)}


def main() -> None:
    from graphwright.compiler.cuda.functions import SIMULATED

    assert SIMULATED
    report = {}
    for name in sys.argv[1:] or GROUPS:
        count, failures = 0, []
        for what, check in GROUPS[name]():
            count += 1
            try:
                check()
            except Exception:
                failures.append(f"{what}\n{traceback.format_exc(limit=-3)}")
        report[name] = {"count": count, "failures": failures}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
