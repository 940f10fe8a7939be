"""From a program to the signature that the runtime calls it by."""

from __future__ import annotations

from typing import Any

from ..ir.dims import Dim, at_most
from ..ir.graph import Graph, Value
from ..ir.op import assumptions
from ..ir.program import Program
from ..runtime.signature import Formula, Requirement, Signature, Slot

__all__ = ["formula", "requirements", "signature_of"]


def formula(dim: Dim) -> Formula:
    """A dim as the runtime's formula."""
    if isinstance(dim, int):
        return dim
    terms: list[Any] = []
    for monomial, c in dim.terms:
        factors: list[Any] = [c] if c != 1 or not monomial else []
        for atom, power in monomial:
            base = atom if isinstance(atom, str) else (atom.kind, *map(formula, atom.args))
            factors += [base] * power
        terms.append(factors[0] if len(factors) == 1 else ("*", *factors))
    return terms[0] if len(terms) == 1 else ("+", *terms)


def _slot(name: str, v: Value) -> Slot:
    return Slot(name, v.tensor.dtype.name, tuple(map(formula, v.tensor.shape)))


def signature_of(graph: Graph, program: Program, structure: Any) -> Signature:
    """The signature of a compiled graph; `structure` describes how its outputs are nested."""
    position = {s: k for k, s in enumerate(graph.states)}
    return Signature(
        name=graph.name,
        symbols=program.symbols,
        inputs=tuple(_slot(v.attrs["name"], v) for v in graph.inputs),
        states=tuple(_slot(v.attrs["name"], v) for v in graph.states),
        outputs=tuple(_slot(f"out{k}", v) for k, v in enumerate(graph.outputs)),
        arena=formula(program.arena),
        updated=tuple(sorted(position[s] for s, new in graph.updates if new is not s)),
        structure=structure,
        requires=requirements(graph),
    )


def requirements(graph: Graph) -> tuple[Requirement, ...]:
    """What the graph's ops need of the symbolic dimensions, each once."""
    found: dict[Requirement, None] = {}
    for v in graph:
        for small, large, problem in assumptions(v):
            if not at_most(small, large):
                where = f" at {v.loc.file}:{v.loc.line}" if v.loc else ""
                found[formula(small), formula(large), f"{problem}{where}"] = None
    return tuple(found)
