"""The driver: from a graph to an executable, through the pipelines, LLVM, the linker and the cache."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import json
import os
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace as with_fields
from functools import cached_property, lru_cache
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from ..errors import CompileError
from ..ir.graph import Graph
from ..ir.loops import Kernel
from ..ir.printer import print_graph, print_kernel, print_program
from ..ir.program import Program
from ..passes.cpu_model import CpuModel
from ..runtime.buffers import Cell
from ..runtime.cpu import host_flags
from ..runtime.executable import Executable
from ..runtime.image import Image, LoadedImage
from ..runtime.native_call import is_supported
from ..runtime.signature import Signature
from .cache import Cache, cache_key
from .export import CompiledEntry
from .signature import requirements, signature_of
from .target import CpuTarget, CudaTarget, host

if TYPE_CHECKING:
    from ..passes.manager import Pipeline
    from ..passes.schedule_contraction import Choice
    from .cuda.driver import CudaCompiled
    from .dump import Recorder

__all__ = ["STAGES", "Compiled", "CpuLowered", "Lowered", "compile_graph", "host_target", "machine_code"]

STAGES = ("graph", "optimized", "program", "loops", "llvm", "asm")


class Lowered(ABC):
    """A graph on its way to code for one target; each stage is made when first asked for.

    Attributes
    ----------
    regions : the group of ops that each kernel of the program computes, by the kernel's name.
    recorder : what each pass shows its result to, if anything (`compiler.dump`).
    folder : where reproducers of internal faults are written; None for the folder of temporary files.
    """

    def __init__(self, graph: Graph, optimize: bool = True) -> None:
        self.graph = graph
        self.optimize = optimize
        self.regions: dict[str, Graph] = {}
        self.recorder: Recorder | None = None
        self.folder: str | os.PathLike[str] | None = None

    @abstractmethod
    def kernel_pipeline(self) -> Pipeline:
        """The passes that schedule a kernel for the target."""

    @abstractmethod
    def code_stages(self) -> dict[str, Callable[[], str]]:
        """How the text of each stage after the loops is made."""

    @abstractmethod
    def kernel_code(self) -> dict[str, dict[str, str]]:
        """The code of each kernel by itself: from those stages to texts by kernel name."""

    def graph_pipeline(self) -> Pipeline:
        """The passes that make the graph of fusions."""
        from ..passes.pipelines import GRAPH, PLAIN

        return GRAPH if self.optimize else PLAIN

    @cached_property
    def optimized(self) -> Graph:
        """The graph of fusions."""
        pipeline = self.graph_pipeline()
        observe = self.recorder.graph if self.recorder else None
        optimized = pipeline.run(self.graph, verifiers=_verifiers(), observe=observe, failed=self._failed).ir
        assert isinstance(optimized, Graph)
        return optimized

    @cached_property
    def program(self) -> Program:
        """Scheduled kernels over buffers with places in the arena."""
        from ..passes.lower_to_loops import lower_to_loops
        from ..passes.pipelines import program_pipeline

        pipeline, recorder = self.kernel_pipeline(), self.recorder

        def lower_kernel(region: Graph, name: str) -> Kernel:
            self.regions[name] = region
            observe = recorder.kernel if recorder else None
            loops = lower_to_loops(region, name)
            kernel = pipeline.run(loops, verifiers=_verifiers(), observe=observe, failed=self._failed).ir
            assert isinstance(kernel, Kernel)
            return kernel

        observe = recorder.program if recorder else None
        program = program_pipeline(lower_kernel).run(self.optimized, observe=observe, failed=self._failed).ir
        assert isinstance(program, Program)
        return program

    def _failed(self, name: str, ir: Any, error: Exception) -> None:
        """Say which pass failed, and how to see it again."""
        from .reproduce import internal_failure

        flags = "--verify-each" if isinstance(ir, Graph) else "--verify-each --host"
        command = f"graphwright opt {{}} --passes={name} {flags}"
        internal_failure(f"pass {name!r}", ir, f"{self.graph.name}-{name}", command, error, self.folder)

    def recorded(self, recorder: Recorder) -> Lowered:
        """The same graph on the same way again, from its beginning, with a recorder."""
        again = copy.copy(self)
        for stage in ("optimized", "program"):
            again.__dict__.pop(stage, None)
        again.regions, again.recorder = {}, recorder
        return again

    @cached_property
    def recording(self) -> Recorder:
        """What each pass does; the passes run again for it."""
        from .dump import Recorder

        recorder = Recorder()
        return recorder.run(self.recorded(recorder))

    def text(self, stage: str) -> str:
        """The IR of one of the target's stages.

        Raises
        ------
        CompileError
            If there is no such stage.
        """
        makers: dict[str, Callable[[], str]] = {
            "graph": lambda: print_graph(self.graph),
            "optimized": lambda: print_graph(self.optimized),
            "program": lambda: print_program(self.program),
            "loops": lambda: "\n".join(map(print_kernel, self.program.kernels)),
            **self.code_stages(),
        }
        if stage not in makers:
            raise CompileError(f"there is no stage {stage!r}; the stages are {', '.join(makers)}")
        return makers[stage]()


class CpuLowered(Lowered):
    """A graph on its way to machine code, through LLVM.

    Attributes
    ----------
    measured : choices of schedules (`compiler.tune`).
    prepare : whether the program may have states of its own, computed of the graph's (`passes.prepare`).
    """

    def __init__(
        self, graph: Graph, target: CpuTarget, optimize: bool = True, measured: Mapping[str, Choice] | None = None,
        prepare: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(graph, optimize)
        self.target = target
        self.measured = dict(measured or {})
        self.prepare = prepare and optimize and not _has_custom_ops(graph)
        self._preparation: Graph | None = None

    def graph_pipeline(self) -> Pipeline:
        from ..passes.pipelines import cpu_graph_pipeline

        if not self.optimize:
            return super().graph_pipeline()
        keep = (lambda graph: setattr(self, "_preparation", graph)) if self.prepare else None
        return cpu_graph_pipeline(self.target.model, keep)

    @property
    def preparation(self) -> Graph | None:
        """What updates the states that the program has beside the graph's; None if there are none."""
        assert self.optimized.name == self.graph.name
        return self._preparation

    def signature(self, structure: Any) -> Signature:
        """How the program is called: with the graph's states, and then those that are prepared."""
        optimized = self.optimized
        return signature_of(optimized, self.program, structure)

    def kernel_pipeline(self) -> Pipeline:
        from ..passes.pipelines import cpu_kernel_pipeline

        return cpu_kernel_pipeline(self.target.model, self.measured)

    @cached_property
    def module(self) -> str:
        """The text of the LLVM module, before LLVM's own passes."""
        from .llvm.program import emit_program

        return emit_program(self.program, self.target)

    def image(self) -> Image:
        """Machine code."""
        from .link import link

        objects = [self._llvm().object_code()] if _has_custom_ops(self.graph) else self._objects()
        return link(*objects, triple=self.target.triple, features=self.target.required_features)

    def _objects(self) -> list[bytes]:
        """The object of each kernel, and of the rest."""
        from .llvm.codegen import compile_modules
        from .llvm.program import pool_object
        from .reproduce import reproducible

        modules = self.modules()
        with reproducible("LLVM", self.graph, f"{self.graph.name}-llvm", "graphwright run {}", self.folder):
            return [*compile_modules(modules, self.target), pool_object(self.target)]

    def modules(self) -> Iterator[str]:
        """The text of `module` as several, one for each kernel."""
        from .llvm.program import emit_modules

        return emit_modules(self.program, self.target)

    def code_stages(self) -> dict[str, Callable[[], str]]:
        return {"llvm": lambda: str(self._llvm()), "asm": lambda: self._llvm().assembly()}

    def kernel_code(self) -> dict[str, dict[str, str]]:
        from .llvm.listing import kernel_listings

        return kernel_listings(self.module, self.program.kernels, self.target)

    def _llvm(self) -> Any:
        from .llvm.codegen import parse
        from .llvm.foreign import link_foreign
        from .reproduce import reproducible

        program, name = self.program, f"{self.graph.name}-llvm"
        with reproducible("LLVM", self.graph, name, "graphwright run {}", self.folder):
            module = parse(self.module, self.target)
        return link_foreign(module, program.kernels).optimize()


def _verifiers() -> dict[type, Callable[[Any], object]]:
    from ..ir.verify import verify_graph, verify_kernel

    return {Graph: verify_graph, Kernel: verify_kernel}


class Compiled:
    """A compiled function: what runs, what it was made from, and what an artifact needs of it."""

    def __init__(self, lowered: Lowered, image: Image, signature: Signature, cells: Sequence[Cell]) -> None:
        from .prepare import prepared

        self.lowered = lowered
        self.image = image
        self.signature = signature
        self.cells = tuple(cells)
        made, preparation = prepared(lowered, signature, cells)
        self.executable = Executable(
            image, signature.name, signature, (*cells, *made), native_entry(), preparation
        )

    def ir(self, stage: str = "optimized") -> str:
        """The IR of one stage, as text."""
        return self.lowered.text(stage)

    def provenance(self) -> dict[str, Any]:
        """Which kernel computes which op of which source line, and where its code lies (`compiler.provenance`)."""
        from .provenance import describe, with_code

        return with_code(describe(self.lowered), self.image)

    def unprepared(self) -> Compiled:
        """The same function without states of its own: it packs matrices in each call."""
        assert isinstance(self.lowered, CpuLowered)
        plain = CpuLowered(self.lowered.graph, self.lowered.target, self.lowered.optimize, self.lowered.measured)
        return Compiled(plain, *machine_code(plain, self.signature.structure), self.cells)

    def entry(self) -> CompiledEntry:
        """This function as an artifact's entry point."""
        from .provenance import describe

        if len(self.signature.states) > len(self.cells):
            return self.unprepared().entry()
        texts = {stage: self.ir(stage) for stage in ("graph", "optimized", "program", "loops")}
        return CompiledEntry(
            self.signature, self.image, self.signature.name, texts, self.cells,
            provenance=describe(self.lowered), shared=(native_entry_image(self.image.triple),),
        )  # fmt: skip


def compile_graph(
    graph: Graph,
    cells: Sequence[Cell] = (),
    structure: Any = None,
    target: CpuTarget | CudaTarget | None = None,
    optimize: bool = True,
    dump: str | os.PathLike[str] | None = None,
    prepare: bool = True,
) -> Compiled | CudaCompiled:
    """Compile a graph; for a CPU, machine code that the cache holds is taken from there.

    Programs with custom ops (`gw.custom_op`) are neither stored in the cache nor taken from it.

    Parameters
    ----------
    graph : inputs, states, outputs and updates.
    cells : the storage of its states, in their order.
    structure : how the outputs are nested (`runtime.structure`).
    target : the machine; this one by default.
    optimize : False runs each op as it stands, in a kernel of its own; for comparison.
    dump : a folder for the texts of every pass and stage (`compiler.dump`); by default what the environment
        variable ``GRAPHWRIGHT_DUMP`` names, if it is set.
    prepare : False computes nothing of variables ahead of a call, as in an artifact: neither are matrices kept in
        panels, nor do convolutions take fewer products (`passes.prepare`, `passes.winograd`).
    """
    dump = dump or os.environ.get("GRAPHWRIGHT_DUMP") or None
    if isinstance(target, CudaTarget):
        from .cuda.driver import compile_graph_cuda

        return compile_graph_cuda(graph, cells, structure, target, optimize, dump)
    cache = Cache()
    target = target or _host(cache)
    lowered = CpuLowered(graph, target, optimize, prepare=prepare)
    lowered.folder = dump
    if dump:
        from .dump import write_dump

        write_dump(lowered, dump)
    return Compiled(lowered, *machine_code(lowered, structure, cache), cells)


def machine_code(
    lowered: CpuLowered, structure: Any = None, cache: Cache | None = None, kind: str = "program"
) -> tuple[Image, Signature]:
    """The code and the signature of a program, from the cache if it holds them; `kind` is a part of the key."""
    cache, graph = cache or Cache(), lowered.graph
    if _has_custom_ops(graph):  # Python functions, of which the cache's key says nothing
        return lowered.image(), lowered.signature(structure)
    text = print_graph(graph, locations=False)
    options = repr(lowered.target), json.dumps(structure), str(lowered.optimize), str(lowered.prepare)
    choices = [repr(sorted(lowered.measured.items()))] if lowered.measured else []
    key = cache_key(kind, fingerprint(), *options, text, *choices)
    found = _decode(cache.get(key))
    if found is None:
        ahead = Thread(target=_compile_ahead, args=(lowered.target,))
        ahead.start()
        found = lowered.image(), lowered.signature(structure)
        cache.put(key, _encode(*found))
        ahead.join()
    image, signature = found
    # the key knows nothing of source lines, which the requirements' messages name
    return image, with_fields(signature, requires=requirements(graph))


def preparation_code(lowered: CpuLowered) -> tuple[Image, Signature]:
    """The code of `CpuLowered.preparation`, from the cache if it holds it."""
    cache = Cache()
    key = cache_key("preparation", fingerprint(), repr(lowered.target), print_graph(lowered.graph, locations=False))
    found = _decode(cache.get(key))
    if found is None:
        assert lowered.preparation is not None, "the program has no states of its own"
        found = machine_code(CpuLowered(lowered.preparation, lowered.target), ["none"], cache)
        cache.put(key, _encode(*found))
    return found


def _compile_ahead(target: CpuTarget) -> None:
    """Load LLVM, and have it make what every program needs, while the passes run."""
    from .llvm.program import pool_object

    native_entry()
    pool_object(target)


@lru_cache(maxsize=1)
def native_entry() -> LoadedImage | None:
    """The code by which Python calls all compiled functions of this process (`runtime.native_call`)."""
    if not is_supported():
        return None
    cache = Cache()
    return LoadedImage(native_entry_image(_host(cache).triple, cache))


def native_entry_image(triple: str, cache: Cache | None = None) -> Image:
    """The native entry from Python for any machine of a triple, from the cache if it holds it."""
    cache = cache or Cache()
    key = cache_key("native call", fingerprint(), triple)
    found = cache.get(key)
    with contextlib.suppress(ValueError, KeyError, TypeError):  # what was not written by `to_bytes` is made again
        if found is not None:
            return Image.from_bytes(found)
    from .link import link
    from .llvm.codegen import parse
    from .llvm.native_call import native_call_ir

    target = CpuTarget(triple, "", "", CpuModel(vector_bytes=16, registers=16))
    # LLVM's passes would take longer than its code generation, and calls would be no faster
    image = link(parse(native_call_ir(target), target).object_code(), triple=triple)
    cache.put(key, image.to_bytes())
    return image


def host_target(cache: Cache | None = None) -> CpuTarget:
    """This machine as a target."""
    return _host(cache or Cache())


def _host(cache: Cache) -> CpuTarget:
    """This machine, from the cache if it was described before: asking LLVM means loading it."""
    key = cache_key("host", fingerprint(), *sorted(host_flags()))
    found = cache.get(key) if host_flags() else None
    if found is not None:
        return CpuTarget.from_json(json.loads(found))
    target = host()
    cache.put(key, json.dumps(target.to_json()).encode())
    return target


def _has_custom_ops(graph: Graph) -> bool:
    return any(v.op.kernels or any(map(_has_custom_ops, v.regions)) for v in graph)


def _encode(image: Image, signature: Signature) -> bytes:
    head = json.dumps(signature.to_json()).encode()
    return struct.pack("<I", len(head)) + head + image.to_bytes()


def _decode(data: bytes | None) -> tuple[Image, Signature] | None:
    """What `_encode` wrote; None for anything else, which is compiled again."""
    if data is None:
        return None
    try:
        (size,) = struct.unpack_from("<I", data)
        return Image.from_bytes(data[4 + size :]), Signature.from_json(json.loads(data[4 : 4 + size]))
    except (ValueError, KeyError, TypeError, struct.error):
        return None


@lru_cache(maxsize=1)
def fingerprint() -> str:
    """Changes whenever the compiler's own code or LLVM does, so that no stale code is ever run."""
    root = Path(__file__).resolve().parent.parent
    files = [p for room in ("ir", "passes", "compiler", "runtime") for p in (root / room).rglob("*.py")]
    llvmlite = importlib.util.find_spec("llvmlite")
    assert llvmlite is not None and llvmlite.origin is not None, "llvmlite is a requirement of the package"
    files += [Path(llvmlite.origin), Path(llvmlite.origin).with_name("_version.py")]
    return cache_key(*(f"{p} {(s := os.stat(p)).st_size} {s.st_mtime_ns}" for p in sorted(files)))
