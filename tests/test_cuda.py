"""CUDA without a GPU: kernels in Numba's simulator, and as PTX that ``ptxas`` assembles."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from lenet import lenet_step

import graphwright as gw
from graphwright.compiler.driver import compile_graph
from graphwright.compiler.target import CudaTarget
from graphwright.errors import CompileError, ExportError, GraphError
from graphwright.ir.dims import symbol
from graphwright.ir.dtypes import DTYPES
from graphwright.ir.graph import Graph
from graphwright.ir.interpret_loops import interpret_kernel
from graphwright.ir.loops import Alloc, Buffer, For, Index, Kernel, Load, Store, statements
from graphwright.ir.op import OPS
from graphwright.ir.verify_program import verify_program
from graphwright.passes.cuda_model import CudaModel
from graphwright.passes.lower_to_loops import lower_to_loops
from graphwright.passes.schedule_cuda import schedule_cuda
from graphwright.runtime.buffers import Cell

HERE = Path(__file__).parent
needs_cuda = pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None, reason="numba-cuda is not installed (the extra [cuda])"
)


def input_value(name, *shape, dtype="float32"):
    return OPS["input"](name=name, shape=shape, dtype=DTYPES[dtype])


# --- the simulator --------------------------------------------------------------------------------


@needs_cuda
@pytest.mark.parametrize("group, least", [
    ("samples", 700), ("special_values", 150), ("training", 1), ("schedules", 4), ("custom", 4), ("draws", 1),
])
def test_simulated(group, least):
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    command = [sys.executable, str(HERE / "cuda_simulation.py"), group]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=HERE, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])[group]
    assert report["count"] >= least
    assert not report["failures"], "\n\n".join(report["failures"][:10])


# --- PTX ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def step():
    model = lenet_step(size=28, channels=(6, 16), hidden=84, classes=10)
    cells = [Cell(s.attrs["name"], v) for s, v in zip(model.graph.states, model.states)]
    return compile_graph(model.graph, cells, target=CudaTarget())


@needs_cuda
def test_training_step_assembles(step):
    from graphwright.compiler.cuda.ptx import assemble, find_ptxas

    if find_ptxas() is None:
        pytest.skip("ptxas is not installed (the wheel nvidia-cuda-nvcc-cu12 of the extra [cuda])")
    launches = [launch.function for made in step.lowered.source.launches.values() for launch in made]
    assert list(step.lowered.ptx) == launches
    for name, ptx in step.lowered.ptx.items():
        assert ".target sm_80" in ptx and ".f64" not in ptx, f"{name} computes in float64"
        kernel = assemble(ptx)
        assert kernel.cubin[:4] == b"\x7fELF" and 0 < kernel.registers <= 64, name
        assert kernel.spill_stores == kernel.spill_loads == 0, name
    with pytest.raises(CompileError, match="ptxas refused"):
        assemble(ptx.replace(".entry", ".entrance"))


@needs_cuda
def test_stages(step):
    source = step.ir("cuda")
    assert source.startswith("import math\n\nfrom numba import cuda\nfrom numpy import float32")
    assert len(re.findall(r"^@cuda\.jit$", source, re.M)) == step.ir("ptx").count(".visible .entry")
    assert "block block = 0.." in step.ir("loops") and "thread thread = 0..128" in step.ir("loops")
    verify_program(step.lowered.program, {"N": 3})
    with pytest.raises(CompileError, match="the stages are graph, optimized, program, loops, cuda, ptx"):
        step.ir("llvm")
    with pytest.raises(ExportError, match="train: compiled for CUDA"):
        step.entry()


@needs_cuda
def test_source_is_what_a_person_would_write():
    n = symbol("N")
    x, b = input_value("x", n, 10), input_value("b", 10)
    y = OPS["tanh"](x + OPS["broadcast"](b, shape=x.shape, dims=(1,))) * 0.5
    compiled = compile_graph(Graph("f", (x, b), (), (y,)), target=CudaTarget())
    assert compiled.ir("cuda").split("\n\n\n")[1].strip() == """\
@cuda.jit
def add_tanh_mul(in0, in1, out0, N):
    block = cuda.blockIdx.x  # of ((10*N + 127) // 128)
    thread = cuda.threadIdx.x  # of 128
    r = (block*128 + thread) % 10
    if (block*128 + thread) < (N*10):
        out0[block*128 + thread] = tanh_f32(in1[block*128 + thread] + in0[r]) * float32(0.5)"""


@needs_cuda
def test_calling_needs_a_device():
    from numba import cuda

    if cuda.is_available():
        pytest.skip("this machine has a GPU")
    x = input_value("x", 3)
    compiled = compile_graph(Graph("f", (x,), (), (x + x,)), target=CudaTarget())
    with pytest.raises(CompileError, match="no CUDA device"):
        compiled.executable(np.ones(3, np.float32))


# --- kernels of users --------------------------------------------------------------------------------


def like_first(*types):
    return types[0].dtype, types[0].shape


def on_cpu(out, x):
    for i in range(x.shape[0]):
        out[i] = x[i]


def compiled_for_cuda(op, *inputs):
    return compile_graph(gw.function(inputs, op(*inputs), target="interpreter").graph, target=CudaTarget())


@needs_cuda
def test_kernels_of_users_assemble_with_the_others(registry):
    from custom_ops import leaky_sum

    from graphwright.compiler.cuda.ptx import assemble, find_ptxas

    op, x, decay = leaky_sum(), gw.placeholder("x", "float32", ("N", 8)), gw.placeholder("decay", "float32", ())
    y = gw.exp(op(x, decay)) * 0.5
    f = gw.function([x, decay], [y, gw.grad(gw.sum(y), x)], target="cuda")
    assert f.ir("program").count("call @leaky_sum(") == 2  # forward and backward, by the same kernel
    assert f.ir("loops").count("foreign @leaky_sum(%in0, %in1) -> (%out0)") == 1
    assert f.ir("cuda").count("def leaky_sum_cuda(out, x, decay):") == 1
    lowered = compile_graph(f.graph, target=CudaTarget()).lowered
    (launch,) = (launch for launch in lowered.source if launch.op is not None)
    assert (str(launch.blocks), launch.threads) == ("((8*N + 127) // 128)", 128)
    assert re.search(r"\.visible \.entry \w*leaky_sum_cuda", lowered.ptx[launch.function])
    if find_ptxas() is None:
        pytest.skip("ptxas is not installed (the wheel nvidia-cuda-nvcc-cu12 of the extra [cuda])")
    assert all(0 < assemble(lowered.ptx[launch.function]).registers <= 64 for launch in lowered.source)


@needs_cuda
def test_source_of_kernels_of_users(registry):
    from custom_ops import cuda, leaky_sum, leaky_sum_cuda

    x, decay = gw.placeholder("x", "float32", ("N", 8)), gw.placeholder("decay", "float32", ())
    written = inspect.getsource(leaky_sum_cuda)
    source = compiled_for_cuda(leaky_sum(), x, decay).ir("cuda")
    assert source.endswith(f"\n@cuda.jit\n{written}")
    head = source.removesuffix(f"\n@cuda.jit\n{written}").splitlines()[-1]
    assert head.startswith("# leaky_sum(out0, in0, in1): the kernel of the custom op leaky_sum")
    scope = {"cuda": cuda}
    exec("def made(out, x):\n    i = cuda.grid(1)\n    if i < out.size: out[i] = x[i] * 3", scope)
    op = gw.custom_op("made_by_a_program", like_first, on_cpu, cuda_kernel=scope["made"])
    compiled = compiled_for_cuda(op, gw.placeholder("x", "float32", ("N",)))
    assert compiled.ir("cuda").endswith("# its source is not at hand\n") and "mul" in compiled.ir("ptx")


@needs_cuda
def test_kernels_that_numba_refuses_are_named(registry):
    def wrong(out, x):
        out[0] = x.no_such_method()

    op = gw.custom_op("wrong_on_cuda", like_first, on_cpu, cuda_kernel=wrong)
    compiled = compiled_for_cuda(op, gw.placeholder("x", "float32", ("N",)))
    with pytest.raises(CompileError, match="(?s)^wrong_on_cuda: Numba cannot compile its CUDA kernel:.*no_such_method"):
        compiled.ir("ptx")


@needs_cuda
def test_ops_without_a_kernel_for_cuda_are_refused(registry):
    op = gw.custom_op("only_on_cpus", like_first, on_cpu)
    with pytest.raises(CompileError, match="(?s)^only_on_cpus: this custom op has no kernel for CUDA.*cuda_kernel"):
        compiled_for_cuda(op, gw.placeholder("x", "float32", ("N",)))
    with pytest.raises(GraphError, match="'not_callable' needs functions for infer and its kernels, got 3"):
        gw.custom_op("not_callable", like_first, on_cpu, cuda_kernel=3)


# --- schedules, by the interpreter of loops -------------------------------------------------------


def scheduled(graph, threads):
    declared = lower_to_loops(graph, "k")
    return declared, schedule_cuda(declared, CudaModel(threads=threads))


def kinds(kernel):
    loops = [s for s in kernel.body if isinstance(s, For)]
    return [[s.kind for s in statements((loop,)) if isinstance(s, For)] for loop in loops]


@pytest.mark.parametrize("threads", [4, 32])
def test_rows_mean_what_the_declared_kernel_means(threads):
    n = symbol("N")
    x = input_value("x", n, 90, dtype="float64")
    rows = {"shape": x.shape, "dims": (0,)}
    e = OPS["exp"](x - OPS["broadcast"](OPS["amax"](x, axes=(1,)), **rows))
    total = OPS["sum"](e, axes=(1,))
    graph = Graph("softmax", (x,), (), (e / OPS["broadcast"](total, **rows), total))
    declared, kernel = scheduled(graph, threads)
    assert sum(isinstance(s, Alloc) and s.space == "shared" for s in statements(kernel.body)) == 2
    array = np.random.default_rng(0).normal(size=(3, 90))
    for a, b in zip(interpret_kernel(declared, [array], {"N": 3}), interpret_kernel(kernel, [array], {"N": 3})):
        np.testing.assert_allclose(a, b, rtol=1e-14)


def test_inputs_read_after_a_store_are_not_overwritten():
    n, buffers = symbol("i"), [Buffer(name, DTYPES["float32"], (4, 4)) for name in ("a", "b", "x")]
    a, b, x = buffers
    here = (Index(symbol("i")), Index(symbol("j")))
    first, second = Store(a, here, Load(x, here)), Store(b, here, Load(x, here))
    together = Kernel("k", (x,), (a, b), (_loops(n, first, second),), (), ((0, 0), (1, 0)))
    assert schedule_cuda(together, CudaModel()).inplace == ((0, 0), (1, 0))
    apart = Kernel("k", (x,), (a, b), (_loops(n, first), _loops(n, second)), (), ((0, 0), (1, 0)))
    assert schedule_cuda(apart, CudaModel()).inplace == ()


def _loops(outer, *body):
    return For(str(outer), 4, (For("j", 4, body),))


def test_a_value_of_the_whole_grid_crosses_launches_in_a_workspace():
    x = input_value("x", symbol("N"), dtype="float64")
    total = OPS["sum"](x, axes=(0,))
    graph = Graph("normalize", (x,), (), (x / OPS["broadcast"](total, shape=x.shape, dims=()),))
    _, kernel = scheduled(graph, 8)
    assert [s.space for s in kernel.body if isinstance(s, Alloc)] == ["workspace"]
    assert [k[0] for k in kinds(kernel)] == ["block", "block"]
    for size in (0, 1, 29):
        array = np.arange(1.0, size + 1)
        (result,) = interpret_kernel(kernel, [array], {"N": size})
        np.testing.assert_allclose(result, array / max(array.sum(), 1))


def test_colliding_updates_stay_in_order():
    i, u = input_value("i", symbol("N"), dtype="int64"), input_value("u", symbol("N"), 5, dtype="float64")
    graph = Graph("scatter", (i, u), (), (OPS["scatter_add"](i, u, axis=0, size=3),))
    declared, kernel = scheduled(graph, 4)
    assert kinds(kernel) == [["block", "thread"], ["block", "thread", "serial"]]  # zeros; then rows in order
    arrays = [np.array([0, 2, 2, -1, 0, 0]), np.random.default_rng(0).normal(size=(6, 5))]
    (a,), (b,) = (interpret_kernel(k, arrays, {"N": 6}) for k in (declared, kernel))
    assert np.array_equal(a, b)
