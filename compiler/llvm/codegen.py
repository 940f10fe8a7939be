"""LLVM at work: from the text of a module to optimized text, assembly, and object code."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import llvmlite.binding as llvm

from ...errors import CompileError
from ..target import CpuTarget

__all__ = ["LlvmModule", "attributes", "parse"]

llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()


@lru_cache(maxsize=8)
def _machine(target: CpuTarget) -> Any:
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
    """A parsed module for one target."""

    module: Any
    target: CpuTarget

    def optimize(self, vectorize: bool = False) -> LlvmModule:
        """Run LLVM's scalar optimizations; vectors and unrolling are ours already, unless told to make them."""
        machine = _machine(self.target)
        tuning = llvm.create_pipeline_tuning_options(speed_level=2 if vectorize else 1)
        tuning.loop_vectorization = vectorize
        tuning.slp_vectorization = vectorize
        tuning.loop_interleaving = vectorize
        tuning.loop_unrolling = vectorize
        builder = llvm.create_pass_builder(machine, tuning)
        manager = builder.getModulePassManager()
        manager.run(self.module, builder)
        return self

    def object_code(self) -> bytes:
        """A relocatable object."""
        return bytes(_machine(self.target).emit_object(self.module))

    def assembly(self) -> str:
        """The machine's assembly."""
        return str(_machine(self.target).emit_assembly(self.module))

    def __str__(self) -> str:
        return str(self.module)


def parse(text: str, target: CpuTarget) -> LlvmModule:
    """Parse and verify a module's text.

    Raises
    ------
    CompileError
        If LLVM refuses it: a fault of the code generator.
    """
    try:
        module = llvm.parse_assembly(text)
        module.triple = target.triple
        module.data_layout = str(_machine(target).target_data)
        module.verify()
    except RuntimeError as error:
        raise CompileError(f"LLVM refuses the generated module: {error}") from error
    return LlvmModule(module, target)
