"""A program as one LLVM module: its kernels, its constants, and the native entry point that runs it all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ...ir.dims import Dim
from ...ir.dtypes import DType, bool_, int8, int64
from ...ir.program import Branch, Call, Loop, Program, Step, While, timeline
from ..target import CpuTarget
from .clock import read_clock
from .codegen import attributes, compile_modules
from .emit import emit_kernel, parameters
from .function import FunctionText, ModuleText
from .instructions import Val
from .pool import PARALLEL, pool_ir

__all__ = ["emit_modules", "emit_program", "pool_object"]

PART = 64
"""Steps in one function."""


def emit_program(program: Program, target: CpuTarget, clock: str | None = None) -> str:
    """The text of the module.

    Its exported function is ``i32 @<name>(ptr buffers, ptr dims, ptr arena, ptr context)``: buffers are
    the inputs, states and outputs; dims the values of the program's symbols; it returns 0. If the state
    `clock` is given, it gets the dims, the time, and of each call how long and how often it ran (`_Clock`).
    """
    module = ModuleText(target.model)
    for kernel in program.kernels:
        emit_kernel(kernel, module)
    for name, array in program.constants.items():
        module.functions.append(_constant(name, array))
    module.functions.append(_entry(program, module, target, clock))
    return "\n".join([pool_ir(target.triple.split("-")[0]), module.text(), attributes(target)])


def emit_modules(program: Program, target: CpuTarget, clock: str | None = None) -> Iterator[str]:
    """The same as several modules, which can be compiled at once: one for each kernel, then one for the rest.

    The threads they call are those of `pool_object`.
    """
    end = attributes(target)
    for kernel in program.kernels:
        module = ModuleText(target.model)
        emit_kernel(kernel, module)
        text = module.text().replace(f"define internal void @{kernel.name}(", f"define hidden void @{kernel.name}(", 1)
        yield "\n".join([f"declare hidden void {PARALLEL}", text, end])
    module = ModuleText()
    for kernel in program.kernels:
        module.declare(f"declare hidden void @{kernel.name}({parameters(kernel)})")
    for name, array in program.constants.items():
        module.functions.append(_constant(name, array))
    module.functions.append(_entry(program, module, target, clock))
    yield "\n".join([module.text(), end])


@lru_cache(maxsize=8)
def pool_object(target: CpuTarget) -> bytes:
    """The object of the pool of threads, which is the same for all programs."""
    pool = pool_ir(target.triple.split("-")[0])
    pool = pool.replace(f"define internal void {PARALLEL}", f"define hidden void {PARALLEL}", 1)
    (code,) = compile_modules([f"{pool}\n{attributes(target)}"], target)
    return code


def _constant(name: str, array: np.ndarray[Any, Any]) -> str:
    data = "".join(f"\\{byte:02X}" for byte in array.tobytes())
    return f'@{name} = private unnamed_addr constant [{array.nbytes} x i8] c"{data}", align 64'


def _entry(program: Program, module: ModuleText, target: CpuTarget, clock: str | None) -> str:
    """The entry point; a long program calls parts of itself, as LLVM needs more than linear time for a function."""
    parameters = "ptr %buffers, ptr %dims, ptr %arena, ptr %context"
    parts = [program.steps[k : k + PART] for k in range(0, len(program.steps), PART)]
    if len(parts) <= 1 or clock is not None:
        f = _Entry(program, program.steps, FunctionText(module), target, clock).f
    else:
        f = FunctionText(module)
        for k, part in enumerate(parts):
            name = f"{program.name}.part{k}"
            inner = _Entry(program, part, FunctionText(module), target, None).f
            inner.emit("ret void")
            module.functions.append(inner.text(f"define internal void @{name}({parameters}) noinline #0"))
            f.emit(f"call void @{name}({parameters})")
    f.emit("ret i32 0")
    return f.text(f"define i32 @{program.name}({parameters}) #0")


class _Entry:
    """Steps of a program, written around calls of its kernels into a function.

    With a `clock`, each call adds the time since the one before it, and 1, to its two numbers there.
    """

    def __init__(
        self, program: Program, steps: Sequence[Step], f: FunctionText, target: CpuTarget, clock: str | None
    ) -> None:
        self.program, self.f, self.target = program, f, target
        for k, name in enumerate(program.symbols):
            slot = f.assign(f"getelementptr inbounds i64, ptr %dims, i64 {k}")
            f.vars[name] = Val(f.assign(f"load i64, ptr {slot}, align 8"), int64)
        names = timeline(steps).names.union(() if clock is None else (clock,))
        self.roots = self._roots({program.place(name)[0] for name in names})
        self.clock = None if clock is None else _Clock(program, self.roots[clock], f, target)
        self.steps(steps)

    # --- places ---

    def _roots(self, names: set[str]) -> dict[str, str]:
        """Pointers to buffers that are not aliases."""
        found = {name: f"@{name}" for name in self.program.constants}
        external = 0
        for slot in self.program.slots:
            if slot.buffer.name not in names:
                external += slot.kind != "temp"
            elif slot.kind != "temp":
                place = self.f.assign(f"getelementptr inbounds ptr, ptr %buffers, i64 {external}")
                found[slot.buffer.name] = self.f.assign(f"load ptr, ptr {place}, align 8")
                external += 1
            elif slot.alias is None and slot.offset is not None:
                found[slot.buffer.name] = self.at("%arena", slot.offset)
        return found

    def at(self, base: str, offset: Dim) -> str:
        return self.f.assign(f"getelementptr inbounds i8, ptr {base}, {self.f.dim(offset)}")

    def pointer(self, name: str) -> str:
        root, position = self.program.place(name)
        return self.roots[root] if position == 0 else self.at(self.roots[root], position)

    # --- steps ---

    def steps(self, steps: Iterable[Step]) -> None:
        for step in steps:
            if isinstance(step, Call):
                self.call(step)
            elif isinstance(step, Loop):
                self.loop(step)
            elif isinstance(step, While):
                self.repeat(step)
            else:
                self.branch(step)

    def call(self, call: Call) -> None:
        arguments = ["ptr %context", *(f"ptr {self.pointer(name)}" for name in call.arguments)]
        arguments += [f"ptr {self.at('%arena', offset)}" for offset in call.workspaces]
        arguments += [str(self.f.vars[name]) for name in call.kernel.symbols]
        self.f.emit(f"call void @{call.kernel.name}({', '.join(arguments)})")
        if self.clock is not None:
            self.clock.tick()

    def loop(self, step: Loop) -> None:
        f = self.f
        end = f.dim(step.extent)
        if step.count is not None:
            count = self.scalar(step.count, int64)
            end = self.choose("slt", end, self.choose("sgt", count, Val("0", int64)))
        last = f.assign(f"sub nsw {end}, 1") if step.reverse else ""
        with f.loop(step.index, "0", end.text):
            if step.reverse:
                f.vars[step.index] = Val(f.assign(f"sub nsw i64 {last}, {f.symbol(step.index, 1).text}"), int64)
            self.steps(step.body)

    def repeat(self, step: While) -> None:
        """The body until the condition fails, or the limit is reached."""
        f = self.f
        counter = f.alloca(1, "i64")
        f.emit(f"store i64 0, ptr {counter}, align 8")
        head, again, body, done = (f.label(hint) for hint in ("head", "again", "body", "done"))
        f.emit(f"br label %{head}")
        f.start_block(head)
        limit = None if step.limit is None else f.dim(step.limit)
        with f.scope():
            count = f.vars[step.index] = Val(f.assign(f"load i64, ptr {counter}, align 8"), int64)
            self.steps(step.test)
            condition = f.assign(f"icmp ne {self.scalar(step.condition, bool_)}, 0")
            f.emit(f"br i1 {condition}, label %{again}, label %{done}")
            f.start_block(again)
            more = "true" if limit is None else f.assign(f"icmp slt {count}, {limit.text}")
            f.emit(f"br i1 {more}, label %{body}, label %{done}")
            f.start_block(body)
            self.steps(step.body)
            f.emit(f"store i64 {f.assign(f'add nsw {count}, 1')}, ptr {counter}, align 8")
        f.emit(f"br label %{head}")
        f.start_block(done)
        if step.steps is not None:
            ran = f.assign(f"load i64, ptr {counter}, align 8")
            f.emit(f"store i64 {ran}, ptr {self.pointer(step.steps)}, align 8")

    def branch(self, step: Branch) -> None:
        f = self.f
        dtype = self.program.slot(step.index).buffer.dtype
        index = self.scalar(step.index, dtype)
        labels = [f.label("case") for _ in step.branches]
        below, end = f.label("below"), f.label("end")
        negative = "false" if dtype == bool_ or not dtype.is_signed else f.assign(f"icmp slt {index}, 0")
        f.emit(f"br i1 {negative}, label %{labels[0]}, label %{below}")
        f.start_block(below)
        kind = str(index).split()[0]
        cases = " ".join(f"{kind} {k}, label %{label}" for k, label in enumerate(labels[:-1]))
        f.emit(f"switch {index}, label %{labels[-1]} [ {cases} ]")
        for label, steps in zip(labels, step.branches):
            f.start_block(label)
            with f.scope():
                self.steps(steps)
            f.emit(f"br label %{end}")
        f.start_block(end)

    def scalar(self, name: str, dtype: DType) -> Val:
        """The number in a buffer; a bool as a byte."""
        kind = "i8" if dtype == bool_ else str(Val("0", dtype)).split()[0]
        text = self.f.assign(f"load {kind}, ptr {self.pointer(name)}, align {dtype.itemsize}")
        return Val(text, int8 if dtype == bool_ else dtype)

    def choose(self, test: str, a: Val, b: Val) -> Val:
        """`a` where the comparison holds, else `b`."""
        condition = self.f.assign(f"icmp {test} {a}, {b.text}")
        return Val(self.f.assign(f"select i1 {condition}, {a}, {b}"), int64)


class _Clock:
    """Notes of the time: the dimensions, the time at the begin; then of each call the ticks, and how often it ran."""

    def __init__(self, program: Program, notes: str, f: FunctionText, target: CpuTarget) -> None:
        self.f, self.target, self.notes = f, target, notes
        self.first = len(program.symbols) + 1
        self.calls = len(program.calls)
        self.call = 0
        for k, name in enumerate(program.symbols):
            f.emit(f"store {f.vars[name]}, ptr {self._place(k)}, align 8")
        for k in range(2 * self.calls):
            f.emit(f"store i64 0, ptr {self._place(self.first + k)}, align 8")
        self.last = f.alloca(1, "i64")
        begin = read_clock(f, target)
        f.emit(f"store {begin}, ptr {self._place(self.first - 1)}, align 8")
        f.emit(f"store {begin}, ptr {self.last}, align 8")

    def _place(self, k: int) -> str:
        return self.f.assign(f"getelementptr inbounds i64, ptr {self.notes}, i64 {k}")

    def tick(self) -> None:
        """Note what the call emitted before took."""
        f = self.f
        now = read_clock(f, self.target)
        before = f.assign(f"load i64, ptr {self.last}, align 8")
        f.emit(f"store {now}, ptr {self.last}, align 8")
        self._add(self.call, f.assign(f"sub {now}, {before}"))
        self._add(self.calls + self.call, "1")
        self.call += 1

    def _add(self, k: int, amount: str) -> None:
        place = self._place(self.first + k)
        old = self.f.assign(f"load i64, ptr {place}, align 8")
        self.f.emit(f"store i64 {self.f.assign(f'add i64 {old}, {amount}')}, ptr {place}, align 8")
