"""``graphwright opt``: read the text of a graph, program or kernel, run passes, print what comes out."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

from ..compiler.dump import Reports
from ..errors import GraphwrightError
from ..ir.graph import Graph
from ..ir.loops import Kernel
from ..ir.parser import parse_graph, parse_kernel, parse_program
from ..ir.program import Program
from ..ir.verify import verify_graph, verify_kernel
from ..ir.verify_program import verify_program
from ..passes.cpu_model import CpuModel
from ..passes.manager import PassReport, Pipeline, PipelineResult
from ..passes.registry import names, pipeline

__all__ = ["form_of", "list_passes", "transform"]

PARSERS: dict[str, Callable[[str], Any]] = {"graph": parse_graph, "program": parse_program, "loops": parse_kernel}
VERIFIERS: dict[type, Callable[[Any], object]] = {
    Graph: verify_graph, Kernel: verify_kernel, Program: verify_program,
}  # fmt: skip


def form_of(text: str) -> str:
    """``"graph"``, ``"program"`` or ``"loops"``, from a text's first line that is no comment.

    Raises
    ------
    GraphwrightError
        If it is no text of ours.
    """
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("//"):
            found = re.match(r"graphwright\.(\w+) v", line)
            if found and found[1] in PARSERS:
                return found[1]
            break
    raise GraphwrightError("the text does not begin with 'graphwright.graph v1', or '.program', or '.loops'")


def transform(
    path: str,
    passes: str = "",
    *,
    print_after: str | None = None,
    verify_each: bool = False,
    time_passes: bool = False,
    split: bool = False,
    host: bool = False,
) -> None:
    """Print what passes make of a text; times, if asked for, go to standard error.

    Parameters
    ----------
    path : a file, or ``-`` for standard input.
    passes : names with commas between them (`passes.registry`).
    print_after : ``"all"``, or the name of a pass: print the IR after it, under a comment with its name.
    verify_each : check the IR before the first pass and after each.
    split : the file holds several texts, with lines ``// -----`` between them.
    host : schedule for this machine, not for one with 16 vector registers of 32 bytes.

    Raises
    ------
    GraphwrightError
        If the text or a name is wrong, or a pass fails.
    """
    with sys.stdin if path == "-" else open(path, encoding="utf-8") as file:
        text = file.read()
    chosen = [name for name in (part.strip() for part in passes.split(",")) if name]
    cpu = _host() if host else CpuModel()
    for k, part in enumerate(_parts(text) if split else [text]):
        form = form_of(part)
        plan = pipeline(chosen, form, cpu)
        if print_after not in (None, "all", *(p.name for p in plan)):
            raise GraphwrightError(f"--print-after={print_after}: that is none of the passes {', '.join(chosen)}")
        result = _run(plan, PARSERS[form](part), print_after, verify_each)
        print(f"{'// -----' if k else ''}{chr(10) if k else ''}{str(result.ir).rstrip()}")
        if time_passes:
            print(Reports(result.reports), file=sys.stderr)


def _run(plan: Pipeline, ir: Any, print_after: str | None, verify: bool) -> PipelineResult:
    def show(made: Any, report: PassReport | None) -> None:
        if report is not None and print_after in ("all", report.name):
            print(f"// after {report.name}\n{str(made).rstrip()}\n")

    return plan.run(ir, verifiers=VERIFIERS, verify=verify or None, observe=show)


def _parts(text: str) -> Iterator[str]:
    return (part for part in re.split(r"(?m)^// -----$", text) if part.strip())


def _host() -> CpuModel:
    from ..compiler.target import host

    return host().model


def list_passes() -> None:
    """Print the passes."""
    for name, why in names().items():
        print(f"{name:<18} {why}")
