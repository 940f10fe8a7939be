"""What a report shows, as plain data for JSON: graphs after each pass, kernels and their code, memory."""

from __future__ import annotations

import itertools
import linecache
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...compiler.signature import formula
from ...errors import GraphError
from ...ir.dims import Dim
from ...ir.graph import Graph, Loc, Value
from ...ir.loops import Buffer
from ...ir.printer import print_kernel
from ...ir.program import Program, nbytes, timeline, workspace_buffers
from ...ir.types import TensorType
from .history import Node, flatten, trace

__all__ = ["Snapshot", "Subject", "report_data", "subject_of"]

VERSION = 1
TYPICAL = 64
CONTEXT = 2
"""Lines of source shown before and after the one that made an op."""


@dataclass
class Snapshot:
    """The graph after one pass; `rules` are those that fired, with how often."""

    name: str
    graph: Graph
    why: str = ""
    seconds: float | None = None
    rules: dict[str, int] = field(default_factory=dict)


@dataclass
class Subject:
    """What is reported on.

    Attributes
    ----------
    snapshots : the graph as written, then after each pass; the last is the one of fusions.
    program : absent for the interpreter.
    regions : what each kernel was lowered from, by its name; empty if unknown.
    code : texts by stage and kernel.
    note : why something is absent.
    """

    name: str
    target: str
    snapshots: list[Snapshot]
    program: Program | None = None
    regions: Mapping[str, Graph] = field(default_factory=dict)
    code: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    note: str = ""


def subject_of(function: Any) -> Subject:
    """A function's graphs, program and code; passes run again, one by one."""
    lowered = getattr(function.compiled, "lowered", None)
    written = Snapshot("as written", function.graph, "the graph as it was declared")
    if lowered is None:
        return Subject(function.name, "interpreter", [written], note="The interpreter runs the graph as written.")
    from ...passes.pipelines import GRAPH, PLAIN

    snapshots = [written, *_passes(GRAPH if lowered.optimize else PLAIN, function.graph)]
    snapshots[-1].graph = lowered.optimized  # whose fusions are those of the program
    target = getattr(lowered.target, "triple", "") or type(lowered.target).__name__
    program = lowered.program
    return Subject(function.name, target, snapshots, program, lowered.regions, lowered.kernel_code())


def _passes(pipeline: Any, graph: Graph) -> Iterator[Snapshot]:
    from ...passes.manager import Pipeline

    properties = pipeline.given
    for p in pipeline:
        result = Pipeline([p], properties).run(graph)
        graph, properties = result.ir, result.properties
        (report,) = result.reports
        yield Snapshot(p.name, graph, p.why, report.seconds, dict(report.fired.fired.most_common()))


def report_data(
    subject: Subject, profile: Sequence[Mapping[str, Any]] | None = None, dims: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """The data of a report, ready for JSON.

    Parameters
    ----------
    profile : rows ``{"kernel", "seconds", "calls", "flops", "bytes"}``; only the first two must be there.
    dims : values of symbolic dimensions at which memory is shown first (default: 64 each).

    Raises
    ------
    GraphError
        If a profile's row or a dimension names nothing of the function.
    """
    from ... import __version__

    return {
        "version": VERSION,
        "producer": f"graphwright {__version__}",
        "name": subject.name,
        "target": subject.target,
        "note": subject.note,
        **_Builder(subject).build(),
        "dims": _dims(subject, dims or {}),
        "profile": _profile(subject, profile),
    }


def _dims(subject: Subject, given: Mapping[str, int]) -> dict[str, int]:
    known = subject.snapshots[0].graph.symbols
    for name, value in given.items():
        if name not in known:
            raise GraphError(f"report: {subject.name} has no dimension {name!r}; it has {', '.join(known) or 'none'}")
        if not isinstance(value, int) or value < 0:
            raise GraphError(f"report: dimension {name} must be a non-negative integer, got {value!r}")
    return {name: given.get(name, TYPICAL) for name in known}


def _profile(subject: Subject, rows: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]] | None:
    if rows is None:
        return None
    names = [] if subject.program is None else [k.name for k in subject.program.kernels]
    result = []
    for row in rows:
        if not {"kernel", "seconds"} <= set(row):
            raise GraphError(f"report: a row of the profile needs 'kernel' and 'seconds', got {sorted(row)}")
        if row["kernel"] not in names:
            raise GraphError(f"report: the profile names kernel {row['kernel']!r}, which {subject.name} does not have")
        numbers = {key: row[key] for key in ("seconds", "calls", "flops", "bytes") if row.get(key) is not None}
        result.append({"kernel": row["kernel"], **{key: float(n) for key, n in numbers.items()}})
    return result


# --- graphs --------------------------------------------------------------------------------------


class _Builder:
    """Numbers source lines, values, kernels and calls, so that the parts can refer to each other."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.locs: dict[tuple[str, int, str], int] = {}
        self.sources: dict[str, dict[int, str]] = {}
        self.ops: dict[int, dict[str, Any]] = {}
        self.flat = [flatten(s.graph) for s in subject.snapshots]

    def build(self) -> dict[str, Any]:
        trace([nodes for nodes, _ in self.flat])
        stages = [self._stage(k) for k in range(len(self.flat))]
        graph = self.subject.snapshots[0].graph
        return {
            "signature": _signature(graph),
            "stages": stages,
            "steps": self._steps(),
            "kernels": self._kernels(),
            "memory": self._memory(),
            "ops": [self.ops[k] for k in range(len(self.ops))],
            "locs": [{"file": file, "line": line, "role": role} for file, line, role in self.locs],
            "sources": self.sources,
        }

    def _loc(self, loc: Loc | None) -> int | None:
        if loc is None:
            return None
        key = (os.path.basename(loc.file.replace("\\", "/")), loc.line, loc.role)
        if key not in self.locs:
            lines = self.sources.setdefault(key[0], {})
            for n in range(max(1, loc.line - CONTEXT), loc.line + CONTEXT + 1):
                text = linecache.getline(loc.file, n)
                if text:
                    lines[n] = text.rstrip("\n")
        return self.locs.setdefault(key, len(self.locs))

    def _stage(self, k: int) -> dict[str, Any]:
        snapshot, (nodes, made) = self.subject.snapshots[k], self.flat[k]
        for n in nodes:
            if n.identity not in self.ops:
                self.ops[n.identity] = self._op(n)
        before = [n.identity for n in self.flat[k - 1][0]] if k else []
        now = {n.identity for n in nodes}
        return {
            "name": snapshot.name,
            "why": snapshot.why,
            "seconds": snapshot.seconds,
            "rules": list(snapshot.rules.items()),
            "nodes": [
                [n.identity, n.name, [o if isinstance(o, str) else o.identity for o in n.operands]] for n in nodes
            ],
            "marks": {n.identity: n.mark for n in nodes if n.mark},
            "gone": [i for i in before if i not in now],
            "outputs": [made[v].identity for v in snapshot.graph.outputs],
            "updates": [[made[s].identity, made[new].identity] for s, new in snapshot.graph.updates if new is not s],
        }

    def _op(self, n: Node) -> dict[str, Any]:
        v = n.value
        return {
            "op": v.op.name,
            "kind": _kind(v),
            "type": str(v.type),
            "attrs": n.attrs,
            "label": str(v.attrs.get("name", "")),
            "loc": self._loc(v.loc),
            "of": getattr(v.loc, "of", ""),
            "doc": v.op.doc,
            "step": None,
        }

    # --- the program ---

    def _steps(self) -> list[dict[str, Any]]:
        program, (nodes, _) = self.subject.program, self.flat[-1]
        if program is None:
            return []
        calls = fusions_of_calls(self.subject.snapshots[-1].graph, program, self.subject.regions)
        position = {k.name: i for i, k in enumerate(program.kernels)}
        steps = []
        for k, (step, fusion) in enumerate(zip(program.calls, calls)):
            members = [n.identity for n in nodes if fusion is not None and n.fusion is fusion]
            for i in members:
                self.ops[i]["step"] = k
            steps.append({
                "kernel": position[step.kernel.name],
                "reads": step.reads,
                "writes": step.writes,
                "locs": [self._loc(line) for line in step.locs],
                "ops": members,
                "reason": fusion.attrs["reason"] if fusion is not None else "copy",
            })
        return steps

    def _kernels(self) -> list[dict[str, Any]]:
        kernels = () if self.subject.program is None else self.subject.program.kernels
        code = self.subject.code
        return [
            {
                "name": k.name,
                "code": {"loops": print_kernel(k)} | {s: code[s][k.name] for s in code if k.name in code[s]},
            }
            for k in kernels
        ]

    def _memory(self) -> dict[str, Any] | None:
        program = self.subject.program
        if program is None:
            return None
        external = [(s.buffer, s.kind) for s in program.slots if s.kind != "temp"]
        views = [s.buffer for s in program.slots if s.kind == "temp" and s.alias is not None]
        constants = [{"name": n, "kind": "constant", "size": a.nbytes} for n, a in program.constants.items()]
        return {
            "arena": _formula(program.arena),
            "blocks": list(_blocks(program)),
            "external": [{**_buffer(b), "kind": kind} for b, kind in external],
            "views": [_buffer(b) for b in views],
            "constants": constants,
        }


def _kind(v: Value) -> str:
    """The op's kind as the page distinguishes them."""
    if v.op.kind == "leaf" or v.op.name == "full":
        return "input" if v.op.name == "input" else "leaf"
    if v.op.name in ("broadcast", "transpose", "reshape", "slice", "reverse", "pad", "concatenate"):
        return "move"
    return v.op.kind


def _signature(graph: Graph) -> str:
    inputs = ", ".join(f"{v.attrs['name']}: {v.type}" for v in graph.inputs)
    outputs = ", ".join(str(v.type) for v in graph.outputs)
    return f"{graph.name}({inputs}) → {outputs or 'nothing'}"


def fusions_of_calls(graph: Graph, program: Program, regions: Mapping[str, Graph]) -> list[Value | None]:
    """The fusion that each call of a program computes, found by following what the buffers hold; None for copies."""
    holds: dict[str, tuple[Value, int]] = {v.attrs["name"]: (v, 0) for v in (*graph.inputs, *graph.states)}
    waiting = [v for v in graph if v.op.name == "fusion"]
    inside = [v for v in _in_bodies(graph) if v.op.name == "fusion"]
    found: list[Value | None] = []
    for step in program.calls:
        reads = [None if r in program.constants else holds.get(program.place(r)[0]) for r in step.reads]
        fits = (v for v in waiting if _computes(v, step.kernel.name, regions) and _reads(v, reads))
        fusion = next(fits, None) or next((v for v in inside if _computes(v, step.kernel.name, regions)), None)
        found.append(fusion)
        if fusion in waiting:
            waiting.remove(fusion)
        elif fusion in inside:
            inside.remove(fusion)
        for k, w in enumerate(step.writes):
            held = (fusion, k) if fusion is not None else reads[0] if reads else None
            if held is not None:
                holds[program.place(w)[0]] = held
    return found


def _in_bodies(graph: Graph) -> Iterator[Value]:
    """The values in bodies of loops and branches."""
    for v in graph:
        for region in v.regions if v.op.name != "fusion" else ():
            yield from region
            yield from _in_bodies(region)


def _computes(fusion: Value, kernel: str, regions: Mapping[str, Graph]) -> bool:
    """Whether the kernel was lowered from the fusion's region; by what its name says, if that is not known."""
    region = fusion.regions[0]
    if regions:
        return regions.get(kernel) is region
    names = {v.op.name for v in region if v.op.kind not in ("leaf", "view")} - {"full", "broadcast"}
    return kernel.startswith(tuple(names) or "fill")


def _reads(fusion: Value, held: Sequence[tuple[Value, int] | None]) -> bool:
    made = [_source(o) for o in fusion.operands]
    return len(made) == len(held) and all(h is None or a == h or a[0].op.name == "constant" for a, h in zip(made, held))


def _source(v: Value) -> tuple[Value, int]:
    """The leaf or the fusion's result whose memory a value is."""
    while v.op.name != "fusion" and v.operands:
        if v.op.name == "item":
            return v.operands[0], v.attrs["index"]
        v = v.operands[0]
    return v, 0


# --- memory --------------------------------------------------------------------------------------


def _blocks(program: Program) -> Iterator[dict[str, Any]]:
    """The temps and workspaces: their places in the arena, and the steps during which they live."""
    lives = _lives(program)
    for slot in program.slots:
        name = slot.buffer.name
        if slot.kind == "temp" and slot.alias is None and slot.offset is not None and name in lives:
            yield {**_buffer(slot.buffer), "kind": "temp", "lives": lives[name], "offset": _formula(slot.offset)}
    for k, step in enumerate(program.calls):
        for buffer, offset in zip(workspace_buffers(step.kernel), step.workspaces):
            yield {**_buffer(buffer), "kind": "workspace", "lives": (k, k), "offset": _formula(offset)}


def _lives(program: Program) -> dict[str, tuple[int, int]]:
    """The numbers of the first and the last call during which each buffer's memory is in use."""
    moments = timeline(program.steps)
    calls = list(itertools.accumulate(call is not None for _, call in moments.touched))
    found = moments.lives(lambda name: program.place(name)[0])
    return {n: (calls[a] - (moments.touched[a][1] is not None), calls[b] - 1) for n, (a, b) in found.items()}


def _buffer(b: Buffer) -> dict[str, Any]:
    return {"name": b.name, "type": str(TensorType(b.dtype, b.shape)), "size": _formula(nbytes(b))}


def _formula(dim: Dim) -> dict[str, Any]:
    return {"text": str(dim), "tree": formula(dim)}
