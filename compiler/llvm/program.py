"""A program as one LLVM module: its kernels, its constants, and the native entry point that runs it all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...ir.dims import Dim
from ...ir.dtypes import int64
from ...ir.program import Call, Program
from ..target import CpuTarget
from .clock import read_clock
from .codegen import attributes
from .emit import emit_kernel
from .function import FunctionText, ModuleText
from .instructions import Val
from .pool import pool_ir

__all__ = ["emit_program"]


def emit_program(program: Program, target: CpuTarget, clock: str | None = None) -> str:
    """The text of the module.

    Its exported function is ``i32 @<name>(ptr buffers, ptr dims, ptr arena, ptr context)``: buffers are
    the inputs, states and outputs; dims the values of the program's symbols; it returns 0. If the state
    `clock` is given, it gets the dims, the time, and the time after each step (`clock.read_clock`).
    """
    module = ModuleText()
    for kernel in program.kernels:
        emit_kernel(kernel, module)
    for name, array in program.constants.items():
        module.functions.append(_constant(name, array))
    module.functions.append(_entry(program, module, target, clock))
    return "\n".join([pool_ir(target.triple.split("-")[0]), module.text(), attributes(target)])


def _constant(name: str, array: np.ndarray[Any, Any]) -> str:
    data = "".join(f"\\{byte:02X}" for byte in array.tobytes())
    return f'@{name} = private unnamed_addr constant [{array.nbytes} x i8] c"{data}", align 64'


def _entry(program: Program, module: ModuleText, target: CpuTarget, clock: str | None) -> str:
    f = FunctionText(module)
    for k, name in enumerate(program.symbols):
        slot = f.assign(f"getelementptr inbounds i64, ptr %dims, i64 {k}")
        f.vars[name] = Val(f.assign(f"load i64, ptr {slot}, align 8"), int64)
    pointers = _pointers(program, f)
    if clock is not None:
        for k, name in enumerate(program.symbols):
            _record(str(f.vars[name]), pointers[clock], k, f)
        _record(read_clock(f, target), pointers[clock], len(program.symbols), f)
    for k, step in enumerate(program.steps, len(program.symbols) + 1):
        _call(step, pointers, f)
        if clock is not None:
            _record(read_clock(f, target), pointers[clock], k, f)
    f.emit("ret i32 0")
    return f.text(f"define i32 @{program.name}(ptr %buffers, ptr %dims, ptr %arena, ptr %context) #0")


def _record(value: str, clock: str, k: int, f: FunctionText) -> None:
    slot = f.assign(f"getelementptr inbounds i64, ptr {clock}, i64 {k}")
    f.emit(f"store {value}, ptr {slot}, align 8")


def _pointers(program: Program, f: FunctionText) -> dict[str, str]:
    found = {name: f"@{name}" for name in program.constants}
    external = 0
    for slot in program.slots:
        if slot.kind != "temp":
            place = f.assign(f"getelementptr inbounds ptr, ptr %buffers, i64 {external}")
            found[slot.buffer.name] = f.assign(f"load ptr, ptr {place}, align 8")
            external += 1
        elif slot.alias is None and slot.offset is not None:
            found[slot.buffer.name] = _in_arena(slot.offset, f)
    for slot in program.slots:
        if slot.alias is not None:
            found[slot.buffer.name] = found[slot.alias]
    return found


def _in_arena(offset: Dim, f: FunctionText) -> str:
    return f.assign(f"getelementptr inbounds i8, ptr %arena, {f.dim(offset)}")


def _call(step: Call, pointers: Mapping[str, str], f: FunctionText) -> None:
    arguments = ["ptr %context", *(f"ptr {pointers[name]}" for name in step.arguments)]
    arguments += [f"ptr {_in_arena(offset, f)}" for offset in step.workspaces]
    arguments += [str(f.vars[name]) for name in step.kernel.symbols]
    f.emit(f"call void @{step.kernel.name}({', '.join(arguments)})")
