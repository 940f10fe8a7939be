"""The profiler: a variant of a program that notes the time after each kernel, and what becomes of the notes.

The variant is compiled when it is first asked for; it differs from the program only in its entry
point, which reads the processor's clock between kernels and stores it to one more variable.
"""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import CompileError
from ..ir.dims import Dim, evaluate
from ..ir.graph import Loc
from ..ir.program import Call, Program
from ..passes.lower_to_loops import lower_to_loops
from ..runtime.buffers import Array, Cell
from ..runtime.executable import Executable
from .count import Work, call_bytes, kernel_work, line_work
from .driver import Compiled, CpuLowered, machine_code
from .instrument import report_cell, with_report, with_report_slot
from .prepare import prepared
from .roofline import Roofline, clock_rate, roofline

__all__ = ["KernelProfile", "LineProfile", "Profile", "Profiled"]

_CLOCK = "profile.clock"
_FOLDED = 1024  # calls whose notes are kept one by one before they are added up
_TRACED = 1000  # calls that a trace shows, the last ones


class _Clocked(CpuLowered):
    """A graph on its way to code that notes the time after each kernel."""

    def __init__(self, plain: CpuLowered) -> None:
        super().__init__(plain.graph, plain.target, plain.optimize, plain.measured, plain.prepare)

    @property
    def notes(self) -> int:
        """Numbers that a call leaves: the dimensions, the time at its begin; of each kernel call ticks and runs."""
        return len(self.program.symbols) + 1 + 2 * len(self.program.calls)

    @cached_property
    def module(self) -> str:
        from .llvm.program import emit_program

        return emit_program(with_report(self.program, _CLOCK, self.notes), self.target, clock=_CLOCK)

    def modules(self) -> Iterator[str]:
        from .llvm.program import emit_modules

        return emit_modules(with_report(self.program, _CLOCK, self.notes), self.target, clock=_CLOCK)


class Profiled:
    """A function that gives what the plain one gives, and keeps a `profile` of its calls.

    Parameters
    ----------
    compiled : the plain function.
    cells : the memory of its variables (default: those of the plain function).

    Raises
    ------
    CompileError
        If the function is not compiled for the CPU.
    """

    def __init__(self, compiled: Any, cells: Sequence[Cell] | None = None) -> None:
        if not isinstance(compiled, Compiled) or not isinstance(compiled.lowered, CpuLowered):
            raise CompileError("only functions compiled for the CPU, without debug=, can be profiled")
        lowered = _Clocked(compiled.lowered)
        image, plain = machine_code(lowered, compiled.signature.structure, kind="profile")
        signature = with_report_slot(plain, _CLOCK, lowered.notes)
        self._notes = report_cell(_CLOCK, lowered.notes)
        states = compiled.cells if cells is None else cells
        made, preparation = prepared(lowered, plain, states)
        every = (*states, *made, self._notes)
        self.executable = Executable(image, signature.name, signature, every, preparation=preparation)
        self.memory = self.executable.memory
        self.profile = Profile(lowered)
        self._lock = threading.Lock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it; calls of several threads take turns."""
        with self._lock:
            outputs = self.executable(*args, **kwargs)
            self.profile.add(self._notes.array.copy())
        return outputs


@dataclass
class KernelProfile:
    """What one kernel did in all measured calls.

    Attributes
    ----------
    name : the kernel's.
    calls : how often it ran.
    seconds : in all.
    flops, nbytes : floating-point operations, and bytes read and written, in all.
    bound : the time that the machine's roofline allows, in all.
    locs : the source lines that it computes.
    """

    name: str
    locs: tuple[Loc, ...]
    calls: int = 0
    seconds: float = 0.0
    flops: int = 0
    nbytes: int = 0
    bound: float = 0.0

    @property
    def roofline(self) -> float:
        """The share of the roofline that it reaches: 1 is all that the machine can do."""
        return self.bound / self.seconds if self.seconds else 0.0


@dataclass
class LineProfile:
    """What one source line took: of each kernel the part that its ops have in the kernel's operations."""

    loc: Loc | None
    seconds: float = 0.0
    flops: float = 0.0
    kernels: tuple[str, ...] = ()

    def __str__(self) -> str:
        return _place(self.loc)


@dataclass(frozen=True)
class _Step:
    """A kernel call with its formulas."""

    call: Call
    work: Work
    nbytes: Dim
    lines: Mapping[Loc | None, Dim]


class Profile:
    """Where the time of a function's calls went; print it, or read `kernels` and `lines`."""

    def __init__(self, lowered: _Clocked) -> None:
        self.name = lowered.graph.name
        self._lowered = lowered
        self._recent: list[Array] = []
        self._traced: deque[Array] = deque(maxlen=_TRACED)
        self._sums: dict[tuple[int, ...], tuple[int, Array]] = {}  # by dimensions: calls, and notes

    def add(self, notes: Array) -> None:
        """Keep what one call has noted."""
        self._recent.append(notes)
        if len(self._recent) >= _FOLDED:
            self._fold()

    def clear(self) -> None:
        """Forget the calls so far."""
        self._recent.clear()
        self._traced.clear()
        self._sums.clear()

    def _fold(self) -> None:
        d = len(self._program.symbols)
        for notes in self._recent:
            key = tuple(map(int, notes[:d]))
            calls, sums = self._sums.get(key, (0, np.zeros(len(notes) - d - 1, np.int64)))
            self._sums[key] = calls + 1, sums + notes[d + 1 :]
        self._traced.extend(self._recent)
        self._recent.clear()

    @property
    def _program(self) -> Program:
        return self._lowered.program

    @cached_property
    def _steps(self) -> list[_Step]:
        regions, known = self._lowered.regions, {}
        for name, region in regions.items():
            known[name] = kernel_work(lower_to_loops(region, name)), line_work(region)
        return [
            _Step(c, known[c.kernel.name][0], call_bytes(self._program, c), known[c.kernel.name][1])
            for c in self._program.calls
        ]

    def _measured(self) -> Iterator[tuple[dict[str, int], int, _Step, float]]:
        """Dimensions, a kernel call, how often it ran in all calls of the function, and its seconds then."""
        self._fold()
        rate, n = clock_rate(), len(self._steps)
        for key, (_, sums) in self._sums.items():
            env = dict(zip(self._program.symbols, key))
            for step, ticks, runs in zip(self._steps, sums[:n], sums[n:]):
                yield env, int(runs), step, float(ticks) / rate

    # --- results ---

    @property
    def calls(self) -> int:
        """How many calls were measured."""
        self._fold()
        return sum(calls for calls, _ in self._sums.values())

    @property
    def seconds(self) -> float:
        """The time in generated code, in all calls."""
        return sum(s for *_, s in self._measured())

    @cached_property
    def roofline(self) -> Roofline:
        """What this machine can do at most."""
        rates = [
            evaluate(step.work.single, env) * calls / seconds
            for env, calls, step, seconds in self._measured() if seconds
        ]
        return roofline(max(rates, default=0.0))

    @property
    def seconds_of(self) -> dict[str, float]:
        """The time in each kernel, in all calls, by its name."""
        found: dict[str, float] = {}
        for _, _, step, seconds in self._measured():
            name = step.call.kernel.name
            found[name] = found.get(name, 0.0) + seconds
        return found

    @property
    def kernels(self) -> list[KernelProfile]:
        """Per kernel, the longest first."""
        rows: dict[str, KernelProfile] = {}
        for env, calls, step, seconds in self._measured():
            name = step.call.kernel.name
            row = rows.setdefault(name, KernelProfile(name, step.call.locs))
            row.locs = tuple(dict.fromkeys((*row.locs, *step.call.locs)))
            single, double, nbytes = (evaluate(d, env) for d in (step.work.single, step.work.double, step.nbytes))
            row.calls += calls
            row.seconds += seconds
            row.flops += calls * (single + double)
            row.nbytes += calls * nbytes
            row.bound += calls * self.roofline.seconds(single, double, nbytes)
        return sorted(rows.values(), key=lambda r: -r.seconds)

    @property
    def lines(self) -> list[LineProfile]:
        """Per source line (gradients count to their forward lines, marked), the longest first."""
        rows: dict[Loc | None, LineProfile] = {}
        for env, calls, step, seconds in self._measured():
            parts = {loc: evaluate(d, env) for loc, d in step.lines.items()}
            if not any(parts.values()):  # nothing is computed, only written
                parts = dict.fromkeys(parts or (None,), 1)
            total = sum(parts.values())
            flops = calls * evaluate(step.work.total, env)
            for loc, part in parts.items():
                row = rows.setdefault(loc, LineProfile(loc))
                row.seconds += seconds * part / total
                row.flops += flops * part / total
                row.kernels = tuple(dict.fromkeys((*row.kernels, step.call.kernel.name)))
        return sorted(rows.values(), key=lambda r: -r.seconds)

    def __str__(self) -> str:
        calls = self.calls
        if not calls:
            return f"{self.name}: no call was measured"
        head = f"{self.name}: {calls} calls, {1e6 * self.seconds / calls:.1f} us each in generated code"
        return "\n".join([f"{head}; this machine: {self.roofline}", "", *self._kernel_table(), "", *self._line_table()])

    __repr__ = __str__

    def _kernel_table(self) -> list[str]:
        total = self.seconds or 1.0
        rows = ["kernel                                calls   us/call   share  GFLOP/s    GB/s  roofline  source"]
        for k in self.kernels:
            seconds = k.seconds or 1e-12
            rows.append(
                f"{_cut(k.name, 36):<36}{k.calls:>7}{1e6 * k.seconds / k.calls:>10.2f}{k.seconds / total:>8.1%}"
                f"{k.flops / seconds / 1e9:>9.2f}{k.nbytes / seconds / 1e9:>8.2f}{k.roofline:>10.1%}  "
                f"{', '.join(dict.fromkeys(map(_short, k.locs)))}"
            )
        return rows

    def _line_table(self) -> list[str]:
        total, calls = self.seconds or 1.0, self.calls
        rows = ["source line                                   us/call   share  GFLOP/s"]
        for line in self.lines:
            rate = line.flops / line.seconds / 1e9 if line.seconds else 0.0
            rows.append(
                f"{_cut(_place(line.loc), 42):<42}{1e6 * line.seconds / calls:>11.2f}"
                f"{line.seconds / total:>8.1%}{rate:>9.2f}"
            )
        return rows

    # --- trace ---

    def trace(self, path: str | os.PathLike[str]) -> None:
        """Write the last calls, at most 1000, as a file that chrome://tracing and ui.perfetto.dev open.

        All runs of a kernel call in a loop are one event.
        """
        self._fold()
        with open(path, "w", encoding="utf-8") as f:
            json.dump({"traceEvents": list(self._events()), "displayTimeUnit": "ns"}, f)

    def _events(self) -> Iterator[dict[str, Any]]:
        d, rate = len(self._program.symbols), clock_rate()
        first = min((int(notes[d]) for notes in self._traced), default=0)
        for notes in self._traced:
            env = dict(zip(self._program.symbols, map(int, notes[:d])))
            ends = np.cumsum(notes[d : d + 1 + len(self._steps)])
            times = [(int(t) - first) / rate * 1e6 for t in ends]
            yield _event(self.name, times[0], times[-1], env)
            for step, begin, end in zip(self._steps, times, times[1:]):
                yield _event(step.call.kernel.name, begin, end, {
                    "flops": evaluate(step.work.total, env), "bytes": evaluate(step.nbytes, env),
                    "source": [_place(loc) for loc in step.call.locs],
                })  # fmt: skip


def _event(name: str, begin: float, end: float, args: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "ph": "X", "ts": begin, "dur": end - begin, "pid": 1, "tid": 1, "args": args}


def _cut(text: str, width: int) -> str:
    return text if len(text) < width else f"{text[: width - 3]}.."


def _short(loc: Loc) -> str:
    return f"{os.path.basename(loc.file)}:{loc.line}"


def _place(loc: Loc | None) -> str:
    if loc is None:
        return "(no source line)"
    role = f" gradient of {loc.of}" if loc.of else f" {loc.role}" if loc.role else ""
    return f"{_short(loc)}{role}"
