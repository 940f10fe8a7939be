"""From a graph to a function that runs on a GPU; what `compiler.driver` is for CPUs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NoReturn

from ...errors import CompileError, ExportError
from ...ir.dims import product
from ...ir.graph import Graph
from ...ir.program import Program, workspace_buffers
from ...passes.manager import Pipeline
from ...passes.pipelines import cuda_kernel_pipeline
from ...passes.regions import is_control
from ...runtime.buffers import Cell
from ...runtime.device import DeviceExecutable, LaunchPlan, Place
from ...runtime.device import Launch as PlannedLaunch
from ..driver import Lowered
from ..signature import formula, signature_of
from ..target import CudaTarget
from .emit import CudaSource, emit_program
from .foreign import foreign_function

__all__ = ["STAGES", "CudaCompiled", "CudaLowered", "compile_graph_cuda", "launch_plan"]

STAGES = ("graph", "optimized", "program", "loops", "cuda", "ptx")


class CudaLowered(Lowered):
    """A graph on its way to CUDA kernels; each stage is made when first asked for."""

    def __init__(self, graph: Graph, target: CudaTarget, optimize: bool = True) -> None:
        super().__init__(graph, optimize)
        self.target = target

    def kernel_pipeline(self) -> Pipeline:
        return cuda_kernel_pipeline(self.target.model)

    @cached_property
    def source(self) -> CudaSource:
        """The kernels as Python source."""
        return emit_program(self.program.kernels, self.target.model.threads)

    @cached_property
    def functions(self) -> dict[str, Any]:
        """The source's functions, and the kernels of custom ops."""
        from .device import compile_source

        own = {n.function: foreign_function(n.op) for n in self.source if n.op is not None}
        return {**compile_source(self.source.code, self.graph.name), **own}

    @cached_property
    def ptx(self) -> Mapping[str, str]:
        """PTX by function name."""
        from .ptx import compile_ptx

        return {n.function: compile_ptx(self.functions[n.function], n, self.target.capability) for n in self.source}

    def code_stages(self) -> dict[str, Callable[[], str]]:
        return {"cuda": lambda: self.source.text, "ptx": lambda: "\n".join(self.ptx.values())}

    def kernel_code(self) -> dict[str, dict[str, str]]:
        threads = self.target.model.threads
        code = {"cuda": {k.name: emit_program((k,), threads).text for k in self.program.kernels}}
        try:
            ptx = self.ptx
        except CompileError:  # no compiler from CUDA to PTX is installed
            return code
        launches = self.source.launches
        return {**code, "ptx": {name: "\n".join(ptx[n.function] for n in made) for name, made in launches.items()}}


class CudaCompiled:
    """A function compiled for a GPU: what runs, and what it was made from."""

    def __init__(self, lowered: CudaLowered, cells: Sequence[Cell], structure: Any) -> None:
        from .device import NumbaDevice

        self.lowered, self.cells = lowered, tuple(cells)
        self.signature = signature_of(lowered.graph, lowered.program, structure)
        plan = launch_plan(lowered.program, lowered.source)
        self.executable = DeviceExecutable(plan, NumbaDevice(lowered.functions), self.signature, cells)

    def ir(self, stage: str = "optimized") -> str:
        """The IR of one stage, as text."""
        return self.lowered.text(stage)

    def provenance(self) -> dict[str, Any]:
        """Which kernel computes which op of which source line; its code has no addresses."""
        from ..provenance import describe

        return describe(self.lowered)

    def entry(self) -> NoReturn:
        """CUDA programs cannot be exported."""
        raise ExportError(
            f"{self.signature.name}: compiled for CUDA, and artifacts do not hold that; "
            "export a function compiled for 'cpu'"
        )


def compile_graph_cuda(
    graph: Graph,
    cells: Sequence[Cell] = (),
    structure: Any = None,
    target: CudaTarget | None = None,
    optimize: bool = True,
    dump: str | os.PathLike[str] | None = None,
) -> CudaCompiled:
    """Compile a graph for a GPU.

    Parameters
    ----------
    graph : inputs, states, outputs and updates.
    cells : the storage of its states, in their order.
    structure : how the outputs are nested (`runtime.structure`).
    target : the GPU; compute capability 8.0 by default.
    optimize : False runs each op as it stands, in a kernel of its own; for comparison.
    dump : a folder for the texts of every pass and stage (`compiler.dump`).

    Raises
    ------
    CompileError
        If Numba's CUDA target is not installed, a custom op has no kernel for CUDA, or the graph has loops or branches.
    """
    control = next((v for v in graph if is_control(v)), None)
    if control is not None:
        where = f" at {control.loc.file}:{control.loc.line}" if control.loc else ""
        raise CompileError(
            f"{graph.name}: the {control.op.name}{where} cannot be compiled for CUDA, where loops and branches are not "
            "supported yet; compile it for 'cpu'"
        )
    try:
        import numba.cuda  # noqa: F401
    except ImportError as e:
        raise CompileError(f"target 'cuda' needs numba-cuda: pip install graphwright[cuda]  ({e})") from e
    lowered = CudaLowered(graph, target or CudaTarget(), optimize)
    if dump:
        from ..dump import write_dump

        write_dump(lowered, dump)
    return CudaCompiled(lowered, cells, structure)


# --- the launch plan -----------------------------------------------------------------------------


def launch_plan(program: Program, source: CudaSource) -> LaunchPlan:
    """The program's kernel calls as launches over placed buffers."""
    places = _places(program)
    launches: list[PlannedLaunch] = []
    for k, step in enumerate(program.calls):
        kernel = step.kernel
        names = dict(zip([b.name for b in (*kernel.inputs, *kernel.outputs)], step.arguments, strict=True))
        for buffer, offset in zip(workspace_buffers(kernel), step.workspaces, strict=True):
            name = names[buffer.name] = f"{buffer.name}.{k}"
            places[name] = Place("arena", formula(offset), buffer.dtype.name, formula(product(buffer.shape)))
        for launch in source.launches[kernel.name]:
            buffers = tuple(names[b.name] for b in launch.buffers)
            blocks = formula(launch.blocks)
            shapes = tuple(tuple(map(formula, b.shape)) for b in launch.buffers) if launch.op is not None else None
            launches.append(PlannedLaunch(launch.function, blocks, launch.threads, buffers, launch.symbols, shapes))
    return LaunchPlan(tuple(launches), places, tuple(program.constants.values()))


def _places(program: Program) -> dict[str, Place]:
    """Where each buffer of a program lives."""
    places: dict[str, Place] = {}
    numbers = dict.fromkeys(("input", "state", "output"), 0)
    for k, (name, array) in enumerate(program.constants.items()):
        places[name] = Place("constant", k, array.dtype.name, array.size)
    for slot in program.slots:
        b = slot.buffer
        if slot.kind != "temp":
            places[b.name] = Place(slot.kind, numbers[slot.kind], b.dtype.name, formula(product(b.shape)))
            numbers[slot.kind] += 1
        elif slot.offset is not None:
            places[b.name] = Place("arena", formula(slot.offset), b.dtype.name, formula(product(b.shape)))
    for slot in program.slots:
        if slot.alias is not None:
            places[slot.buffer.name] = places[slot.alias]
    return places
