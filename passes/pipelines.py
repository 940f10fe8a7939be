"""The pipelines: every pass in order, read downward, each with why it stands there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace as with_fields
from functools import partial
from typing import Any

from ..ir.graph import Graph
from ..ir.loops import Kernel
from ..ir.printer import print_kernel
from .canonicalize import canonicalize
from .cpu_model import CpuModel
from .cse import cse
from .cuda_model import CudaModel
from .dce import dce
from .expand_math import expand_math
from .fold import fold
from .fuse import fuse, isolate
from .fuse_loops import fuse_loops
from .hoist import hoist
from .inline import inline_calls
from .lay_out import lay_out
from .legalize import legalize
from .lower_to_program import lower_to_program
from .manager import Pass, Pipeline
from .merge_loops import merge_loops
from .names_apart import with_names_apart
from .one_hot import one_hot
from .pack_loops import pack_loops
from .plan_memory import plan_memory
from .prepare import prepare
from .prune_loops import prune_loops
from .regions import with_regions
from .schedule_contraction import Choice
from .schedule_cpu import schedule_cpu
from .schedule_cuda import schedule_cuda
from .simplify import simplify
from .sink import sink
from .stabilize import stabilize
from .unroll import unroll

__all__ = [
    "GRAPH", "PLAIN", "cpu_graph_pipeline", "cpu_kernel_pipeline", "cuda_kernel_pipeline", "kernel_key",
    "program_pipeline",
]  # fmt: skip


def _deep(name: str, run: Callable[[Graph], Graph], **properties: Any) -> Pass:
    """A pass that reaches into the bodies of loops and branches."""
    return Pass(name, with_regions(run), **properties)


GRAPH = Pipeline([
    _deep("canonicalize", canonicalize, establishes=("canonical",), why="one spelling, so that rules need one pattern"),
    Pass("inline-calls", inline_calls, why="their gradients are taken; all that follows sees through them"),
    _deep("fold", fold, requires=("canonical",), why="constants first: they decide which rules apply"),
    _deep("stabilize", stabilize, requires=("canonical",), why="exact forms, before algebra hides the naive ones"),
    Pass("merge-loops", merge_loops, requires=("canonical",), why="before rules can make equal steps differ"),
    _deep("prune-loops", prune_loops, requires=("canonical",), why="what no result needs is not worth moving"),
    _deep("one-hot", one_hot, requires=("canonical",), why="before hoist: what of it does not change in a loop"),
    _deep("hoist", hoist, requires=("canonical",), why="before loops, where simplify sees it: what needs no carry"),
    _deep("sink", sink, requires=("canonical",), why="after loops: sums over steps, when their terms are known"),
    _deep("fuse-loops", fuse_loops, requires=("canonical",), why="what is left of them: one loop to wait for"),
    _deep("reprune-loops", prune_loops, requires=("canonical",), why="what only the moved values read is not needed"),
    _deep("one-hot-again", one_hot, requires=("canonical",), why="products that hoist and sink made of many"),
    _deep("simplify", simplify, requires=("canonical",), establishes=("simple",), why="less to compute"),
    _deep("legalize", legalize, requires=("simple",), establishes=("legal",), why="the forms that schedules know"),
    _deep("recanonicalize", canonicalize, requires=("legal",), why="what legalization moved may cancel"),
    _deep("lay-out", lay_out, requires=("legal",), why="when no rule would turn products back"),
    _deep("unroll", unroll, requires=("legal",), why="when each step is as good as it gets"),
    Pass("cse", cse, requires=("canonical",), why="after rewriting, equal values are one again"),
    _deep("dce", dce, establishes=("clean",), why="nothing that fusion would have to skip"),
    _deep("fuse", fuse, requires=("legal", "clean"), establishes=("fused",), why="last: it draws the kernels' borders"),
])  # fmt: skip
"""From the user's graph to a graph of fusions."""


def cpu_graph_pipeline(cpu: CpuModel, keep: Callable[[Graph | None], object] | None = None) -> Pipeline:
    """`GRAPH` for a CPU.

    With `keep`, of a function whose prepared states the driver provides; it is given the graph that updates them.
    """

    def prepared(graph: Graph) -> Graph:
        assert keep is not None
        main, preparation = prepare(graph, cpu)
        keep(preparation)
        return main

    *rest, fusing = GRAPH
    pack = partial(pack_loops, cpu=cpu)
    rest.append(_deep("pack-loops", pack, requires=("legal",), why="matrices of loops as tiles read them"))
    if keep is not None:
        why = "when nothing else changes: matrices in the order in which they are read, once for all calls"
        rest.append(Pass("prepare", prepared, requires=("legal", "clean"), why=why))
    return Pipeline([*rest, fusing])


PLAIN = Pipeline([
    Pass(
        "isolate", lambda g: with_regions(isolate)(inline_calls(g)), establishes=("fused",),
        why="each op as it stands, in a kernel of its own",
    ),
])  # fmt: skip
"""The same without optimization: what optimized code is compared with."""


def kernel_key(kernel: Kernel) -> str:
    """What a choice is remembered under: the declarative kernel's text, whatever it is called."""
    text = print_kernel(with_fields(kernel, name="kernel", inplace=()))
    return hashlib.sha256(text.encode()).hexdigest()


def program_pipeline(lower_kernel: Callable[[Graph, str], Kernel]) -> Pipeline:
    """From a graph of fusions to kernels over buffers with places in the arena; `lower_kernel` makes the kernels."""
    return Pipeline([
        Pass("lower-to-program", lambda g: lower_to_program(g, lower_kernel), why="kernels, in an order"),
        Pass("plan-memory", plan_memory, why="last: it must know what every kernel reads, writes and needs"),
    ])  # fmt: skip


def cpu_kernel_pipeline(cpu: CpuModel, measured: Mapping[str, Choice] | None = None) -> Pipeline:
    """From a declarative kernel to what the LLVM emitter takes; `measured` are choices by `kernel_key`."""

    def schedule(kernel: Kernel) -> Kernel:
        choice = measured.get(kernel_key(kernel)) if measured else None
        return with_names_apart(kernel, lambda k: schedule_cpu(k, cpu, choice))

    return Pipeline([
        Pass("schedule", schedule, establishes=("scheduled",), why="loops for this CPU"),
        Pass("expand-math", expand_math, requires=("scheduled",), why="functions become machine operations"),
    ])  # fmt: skip


def cuda_kernel_pipeline(gpu: CudaModel) -> Pipeline:
    """From a declarative kernel to what the CUDA emitter takes; the device's library has the functions."""

    def schedule(kernel: Kernel) -> Kernel:
        return with_names_apart(kernel, lambda k: schedule_cuda(k, gpu))

    return Pipeline([
        Pass("schedule", schedule, establishes=("scheduled",), why="launches and threads"),
    ])  # fmt: skip
