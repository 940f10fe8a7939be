"""The estimate that decides whether a loop is given to threads."""

from __future__ import annotations

import numpy as np
import pytest

import graphwright as gw
from graphwright.compiler.llvm.cost import INSTRUCTION, PARALLEL_GRAIN, effort
from graphwright.ir.dims import evaluate, symbol
from graphwright.ir.dtypes import float32, int64
from graphwright.ir.loops import Alloc, Buffer, For, If, Index, Load, Store
from graphwright.ir.scalars import apply, const
from graphwright.passes.cpu_model import CpuModel

CPU = CpuModel()
N = symbol("N")
X = Buffer("x", float32, (N,))
AT = Index(symbol("i"))


def test_a_vector_costs_as_much_as_a_scalar():
    store = Store(X, (AT,), apply("add", Load(X, (AT,)), const(1, float32)))
    scalar = effort(For("i", N, (store,)), CPU)
    vector = effort(For("i", N, (store,), "vector", 8), CPU)
    assert scalar == 5 * INSTRUCTION * N  # two accesses of 2, and the sum
    assert vector * 8 == scalar
    assert effort(For("i", N, (store,), "vector", 32), CPU) == vector  # four registers, four instructions
    assert effort(For("i", N, (store,), "vector", 32), CpuModel(tile_bytes=64)) * 2 == vector


def test_registers_cost_nothing():
    acc = Buffer("acc", float32, (1,))
    add = Store(acc, (Index(0),), Load(X, (AT,)), "add")
    assert effort(For("i", N, (Alloc(acc, "register"), add)), CPU) == 2 * INSTRUCTION * N
    assert effort(For("i", N, (Alloc(acc, "local"), add)), CPU) == 6 * INSTRUCTION * N


def test_of_two_branches_the_longer_counts():
    store = Store(X, (AT,), Load(X, (AT,)))
    long, short = For("i", N, (store, store)), For("i", 40, (store,))
    both = If(apply("lt", Index(N), const(9, int64)), (short,), (long,))
    assert effort(both, CPU) == effort(long, CPU) == 8 * INSTRUCTION * N


@pytest.mark.parametrize(("size", "threads"), [(32, False), (256, True)])
def test_small_products_wake_no_threads(size, threads):
    a = gw.placeholder("a", "float32", (size, size))
    b = gw.placeholder("b", "float32", (size, size))
    kernel, = gw.function([a, b], a @ b).compiled.lowered.program.kernels
    nests = [s for s in kernel.body if isinstance(s, For)]
    assert (max(evaluate(effort(s, CPU), {}) for s in nests) >= PARALLEL_GRAIN) == threads
    assert nests[-1].kind == "parallel"


def test_symbolic_sizes_decide_at_run_time():
    x = gw.placeholder("x", "float32", ("N",))
    f = gw.function([x], gw.tanh(x) + 1)
    for n in (0, 3, 10**6):
        np.testing.assert_allclose(f(np.ones(n, np.float32)), np.tanh(1.0) + 1, rtol=1e-6)
