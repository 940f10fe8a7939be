"""The passes by name, for `graphwright opt` and tests: which form of IR each takes, and what it makes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from dataclasses import replace as with_fields
from typing import Any

from ..errors import GraphError
from ..ir.graph import Graph
from ..ir.loops import Kernel
from ..ir.program import Program
from .cpu_model import CpuModel
from .inline import inline
from .lower_to_loops import lower_to_loops
from .lower_to_program import lower_to_program
from .manager import Pass, Pipeline
from .pipelines import GRAPH, PLAIN, cpu_graph_pipeline, cpu_kernel_pipeline
from .plan_memory import plan_memory

__all__ = ["NamedPass", "names", "pipeline"]


@dataclass(frozen=True)
class NamedPass:
    """A pass that stands by itself.

    Attributes
    ----------
    form : ``"graph"``, ``"program"`` or ``"loops"``: the IR that it takes; one for loops takes each kernel of a
        program as well.
    why : what it is good for.
    """

    name: str
    form: str
    run: Callable[[Any], Any]
    why: str = ""


def _table(cpu: CpuModel) -> dict[str, NamedPass]:
    kernel = cpu_kernel_pipeline(cpu)

    def lower_kernel(region: Graph, name: str) -> Kernel:
        """As it stands, but in place only where that holds once it is scheduled."""
        declarative = lower_to_loops(region, name)
        return with_fields(declarative, inplace=kernel.run(declarative, verify=False).ir.inplace)

    passes = [
        *(NamedPass(p.name, "graph", p.run, p.why) for p in (*cpu_graph_pipeline(cpu), *PLAIN)),
        NamedPass("inline", "graph", inline, "the ops of each fusion in its place"),
        NamedPass("lower-to-loops", "graph", lambda g: lower_to_loops(g, g.name), "the whole graph as one kernel"),
        NamedPass(
            "lower-to-program", "graph", lambda g: lower_to_program(g, lower_kernel), "after fuse: kernels, in an order"
        ),
        *(NamedPass(p.name, "loops", p.run, p.why) for p in kernel),
        NamedPass("plan-memory", "program", plan_memory, "the place of every temporary in the arena"),
    ]
    return {p.name: p for p in passes}


ALIASES = {
    "optimize": tuple(p.name for p in GRAPH),
    "lower": ("lower-to-program", *(p.name for p in cpu_kernel_pipeline(CpuModel())), "plan-memory"),
}
"""Names that stand for several passes: what the compiler does to a graph, and to a graph of fusions."""


def names() -> dict[str, str]:
    """The names of all passes and aliases, each with a line of explanation."""
    found = {p.name: f"{p.form}: {p.why}" for p in _table(CpuModel()).values()}
    return {**found, **{alias: ", ".join(passes) for alias, passes in ALIASES.items()}}


def pipeline(chosen: Iterable[str], form: str, cpu: CpuModel | None = None) -> Pipeline:
    """The named passes in that order.

    What they require of each other is taken for granted: the text that they start from may be anything.

    Parameters
    ----------
    chosen : names of passes or aliases.
    form : of the IR that they are given: ``"graph"``, ``"program"`` or ``"loops"``.
    cpu : the machine that schedules are for.

    Raises
    ------
    GraphError
        If there is no such pass, or one does not take what the pass before it makes.
    """
    table = _table(cpu or CpuModel())
    passes: list[Pass] = []
    for name in (n for c in chosen for n in ALIASES.get(c, (c,))):
        if name not in table:
            raise GraphError(f"there is no pass {name!r}; there are {', '.join([*table, *ALIASES])}")
        p = table[name]
        if p.form != form and (p.form, form) != ("loops", "program"):
            raise GraphError(f"pass {name!r} takes a {p.form} text; what it would be given is a {form}")
        passes.append(Pass(name, _kernelwise(p.run) if p.form == "loops" else p.run, why=p.why))
        form = {"lower-to-loops": "loops", "lower-to-program": "program"}.get(name, form)
    return Pipeline(passes)


def _kernelwise(run: Callable[[Kernel], Kernel]) -> Callable[[Any], Any]:
    """A pass over kernels, for a kernel or all of a program's."""

    def apply(ir: Kernel | Program) -> Kernel | Program:
        if isinstance(ir, Kernel):
            return run(ir)
        made = {kernel.name: run(kernel) for kernel in ir.kernels}
        return ir.with_calls(lambda call: with_fields(call, kernel=made[call.kernel.name]))

    return apply
