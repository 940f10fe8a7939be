"""Reading the processor's clock in generated code: a counter of fixed rate, in some 20 cycles."""

from __future__ import annotations

from ...errors import CompileError
from ..target import CpuTarget
from .function import FunctionText

__all__ = ["read_clock"]


def read_clock(f: FunctionText, target: CpuTarget) -> str:
    """Emit reading it; the value with its type, ``i64 %v``.

    Raises
    ------
    CompileError
        If no counter of the target is known that programs may read.
    """
    arch = target.triple.split("-")[0]
    if arch == "x86_64":  # rdtsc
        f.module.declare("declare i64 @llvm.readcyclecounter()")
        return f"i64 {f.assign('call i64 @llvm.readcyclecounter()')}"
    if arch == "aarch64":
        counter = f.assign('call i64 asm sideeffect "mrs $0, cntvct_el0", "=r"()')
        return f"i64 {counter}"
    raise CompileError(f"programs for {arch} cannot be profiled: no clock is known that they may read")
