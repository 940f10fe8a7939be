"""LLVM at work: from the text of a module to optimized text, assembly, and object code."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from ctypes import string_at
from dataclasses import dataclass
from functools import lru_cache, partial
from queue import SimpleQueue
from threading import Thread
from typing import Any

import llvmlite.binding as llvm
from llvmlite.binding import ffi

from ...errors import CompileError
from ..target import CpuTarget

__all__ = ["LlvmModule", "attributes", "compile_modules", "parse"]

llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()


THREADS = 4
"""Threads that compile modules; more would wait for Python, which writes them."""


@lru_cache(maxsize=8)
def _machine(target: CpuTarget) -> Any:
    return _new_machine(target)


def _new_machine(target: CpuTarget) -> Any:
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=2, reloc="pic", codemodel="small"
    )


def attributes(target: CpuTarget) -> str:
    """Attribute group 0, which every function of ours has."""
    features = ""
    if target.cpu:
        features += f' "target-cpu"="{target.cpu}"'
    if target.features:
        features += f' "target-features"="{target.features}"'
    width = target.model.vector_bytes * 8
    return (
        f'attributes #0 = {{ nounwind "no-builtins" "prefer-vector-width"="{width}" '
        f'"no-trapping-math"="true"{features} }}'
    )


@dataclass
class LlvmModule:
    """A parsed module for one target, and LLVM's model of the machine."""

    module: Any
    target: CpuTarget
    machine: Any

    def optimize(self, vectorize: bool = False) -> LlvmModule:
        """Run LLVM's scalar optimizations; vectors and unrolling are ours already, unless told to make them."""
        self.passes(vectorize)()
        return self

    def passes(self, vectorize: bool = False) -> Callable[[], object]:
        """What `optimize` runs, in one call into LLVM."""
        tuning = llvm.create_pipeline_tuning_options(speed_level=2 if vectorize else 1)
        tuning.loop_vectorization = vectorize
        tuning.slp_vectorization = vectorize
        tuning.loop_interleaving = vectorize
        tuning.loop_unrolling = vectorize
        builder = llvm.create_pass_builder(self.machine, tuning)
        manager = builder.getModulePassManager()
        return partial(_unlocked("LLVMPY_RunNewModulePassManager"), manager, self.module, builder)

    def object_code(self) -> bytes:
        """A relocatable object."""
        making = _ObjectCode(self)
        making.emit()
        return making.take()

    def assembly(self) -> str:
        """The machine's assembly."""
        return str(self.machine.emit_assembly(self.module))

    def __str__(self) -> str:
        return str(self.module)


def parse(text: str, target: CpuTarget, context: Any = None, machine: Any = None) -> LlvmModule:
    """Parse and verify a module's text.

    Raises
    ------
    CompileError
        If LLVM refuses it: a fault of the code generator.
    """
    try:
        machine = machine or _machine(target)
        module = llvm.parse_assembly(text, context)
        module.triple = target.triple
        module.data_layout = str(machine.target_data)
        module.verify()
    except RuntimeError as error:
        raise CompileError(f"LLVM refuses the generated module: {error}") from error
    return LlvmModule(module, target, machine)


# --- many modules --------------------------------------------------------------------------------


def compile_modules(texts: Iterable[str], target: CpuTarget) -> list[bytes]:
    """The object of each module's text, in their order; several threads work while the texts are written.

    Raises
    ------
    CompileError
        If LLVM refuses one.
    """
    with _Workshop() as workshop:
        jobs = [workshop.begin(parse(t, target, llvm.create_context(), _new_machine(target))) for t in texts]
    return [job.take() for job in jobs]


class _Workshop:
    """Threads that compile modules as they come.

    They do what takes LLVM long. The short calls before and after it are the caller's: while it writes texts, a thread
    waits some milliseconds for Python after each return from LLVM.
    """

    def __init__(self) -> None:
        self.queue: SimpleQueue[tuple[Callable[[], object], _ObjectCode] | None] = SimpleQueue()
        self.threads: list[Thread] = []

    def __enter__(self) -> _Workshop:
        return self

    def __exit__(self, *_: object) -> None:
        for _thread in self.threads:
            self.queue.put(None)
        for thread in self.threads:
            thread.join()

    def begin(self, module: LlvmModule) -> _ObjectCode:
        """Have a module compiled; its code can be taken when the workshop has closed."""
        if len(self.threads) < min(THREADS, os.cpu_count() or 1):
            self.threads.append(Thread(target=self._work, daemon=True))
            self.threads[-1].start()
        code = _ObjectCode(module)
        self.queue.put((module.passes(), code))
        return code

    def _work(self) -> None:
        while (job := self.queue.get()) is not None:
            optimize, code = job
            optimize()
            code.emit()


class _ObjectCode:
    """The object code of a module: made in one call into LLVM, taken when that is done."""

    def __init__(self, module: LlvmModule) -> None:
        self.module = module
        self.message = ffi.OutputString()
        self.buffer: Any = None

    def emit(self) -> None:
        function = _unlocked("LLVMPY_TargetMachineEmitToMemory")
        self.buffer = function(self.module.machine, self.module.module, 1, self.message)

    def take(self) -> bytes:
        if not self.buffer:
            raise CompileError(f"LLVM cannot make code of the generated module: {self.message}")
        try:
            return string_at(ffi.lib.LLVMPY_GetBufferStart(self.buffer), ffi.lib.LLVMPY_GetBufferSize(self.buffer))
        finally:
            ffi.lib.LLVMPY_DisposeMemoryBuffer(self.buffer)


def _unlocked(name: str) -> Callable[..., Any]:
    """A function of LLVM, without the lock that lets one thread at a time into LLVM.

    LLVM itself asks only that no two threads use the same context.
    """
    function = getattr(ffi.lib, name)
    unlocked: Callable[..., Any] = getattr(function, "_cfn", function)
    return unlocked
