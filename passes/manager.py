"""The pass manager: runs a pipeline, checks its order, and records what each pass did.

A `Pass` declares the properties it requires of the IR and those it establishes or invalidates, so
that a wrong order is refused when the pipeline is written, not discovered in its output.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import GraphError, VerifyError
from ..ir.loops import Kernel, statements
from ..ir.program import Program
from .rewrite import RewriteStats, counting

__all__ = ["Pass", "PassReport", "Pipeline", "PipelineResult", "verify_by_default"]

Verifiers = Mapping[type, Callable[[Any], object]]


def verify_by_default() -> bool:
    """Whether the environment asks for verification after each pass (``GRAPHWRIGHT_VERIFY=1``)."""
    return os.environ.get("GRAPHWRIGHT_VERIFY", "") not in ("", "0")


@dataclass(frozen=True)
class Pass:
    """One step of a pipeline.

    Attributes
    ----------
    name : its name in dumps and reports.
    run : from IR to IR.
    requires : properties that the IR must have.
    establishes : properties that it has afterwards.
    invalidates : properties that it may no longer have.
    why : why it stands where it stands.
    """

    name: str
    run: Callable[[Any], Any]
    requires: tuple[str, ...] = ()
    establishes: tuple[str, ...] = ()
    invalidates: tuple[str, ...] = ()
    why: str = ""

    def after(self, properties: frozenset[str]) -> frozenset[str]:
        """The properties of the IR after this pass.

        Raises
        ------
        GraphError
            If a required one is absent before it.
        """
        absent = sorted(set(self.requires) - properties)
        if absent:
            raise GraphError(
                f"pass {self.name!r} requires {', '.join(absent)}, which no earlier pass establishes "
                f"(or one invalidates); established there: {', '.join(sorted(properties)) or 'nothing'}"
            )
        return properties.difference(self.invalidates).union(self.establishes)


@dataclass
class PassReport:
    """What one pass did: wall-clock seconds, IR nodes before and after, rules fired, text if dumped."""

    name: str
    seconds: float
    before: int
    after: int
    fired: RewriteStats
    changed: bool
    text: str | None = None

    def __str__(self) -> str:
        size = f"{self.before}" if self.before == self.after else f"{self.before} -> {self.after}"
        note = f"  {self.fired.total} rewrites" if self.fired.total else ""
        return f"{self.name:<24} {1e3 * self.seconds:8.2f} ms  {size} nodes{note}"


@dataclass
class PipelineResult:
    """The IR that a pipeline made, its properties, and a report per pass."""

    ir: Any
    properties: frozenset[str]
    reports: list[PassReport] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return sum(r.seconds for r in self.reports)

    def __str__(self) -> str:
        return "\n".join(map(str, self.reports))


class Pipeline:
    """Passes in order, read downward.

    Parameters
    ----------
    passes : the passes.
    given : properties that the first IR has.

    Raises
    ------
    GraphError
        If a pass requires what no earlier one establishes.
    """

    def __init__(self, passes: Iterable[Pass], given: Iterable[str] = ()) -> None:
        self.passes = tuple(passes)
        self.given = frozenset(given)
        properties = self.given
        for p in self.passes:
            properties = p.after(properties)
        self.establishes = properties

    def __iter__(self) -> Iterator[Pass]:
        return iter(self.passes)

    def __len__(self) -> int:
        return len(self.passes)

    def __add__(self, other: Pipeline) -> Pipeline:
        return Pipeline((*self.passes, *other.passes), self.given | other.given)

    def __str__(self) -> str:
        return "\n".join(f"{p.name:<24} {p.why}".rstrip() for p in self.passes)

    def until(self, name: str) -> Pipeline:
        """The passes up to and including the named one.

        Raises
        ------
        GraphError
            If there is no such pass.
        """
        names = [p.name for p in self.passes]
        if name not in names:
            raise GraphError(f"the pipeline has no pass {name!r}; it has {', '.join(names)}")
        return Pipeline(self.passes[: names.index(name) + 1], self.given)

    def run(
        self,
        ir: Any,
        *,
        verifiers: Verifiers | None = None,
        verify: bool | None = None,
        snapshots: bool = False,
        dump: Callable[[int, str, str], object] | None = None,
        observe: Callable[[Any, PassReport | None], object] | None = None,
        failed: Callable[[str, Any, Exception], object] | None = None,
    ) -> PipelineResult:
        """Run all passes.

        Parameters
        ----------
        verifiers : for each class of IR, the function that raises if one is malformed.
        verify : whether they run, before the first pass and after each (default:
            `verify_by_default`).
        snapshots : keep the text of each pass's result in its report.
        dump : called as ``dump(position, pass name, text)`` with each pass's result; position 0 is
            what went in, named ``"input"``.
        observe : called as ``observe(ir, report)`` with what went in (and None), then with each pass's result.
        failed : called as ``failed(pass name, what the pass was given, error)`` when one fails; it may raise
            an error that says more.

        Raises
        ------
        VerifyError
            If a pass breaks the IR; the message names the pass.
        """
        checks = verifiers or {} if (verify_by_default() if verify is None else verify) else {}
        _check(checks, ir, "the input of the pipeline")
        if dump:
            dump(0, "input", str(ir))
        if observe:
            observe(ir, None)
        result = PipelineResult(ir, self.given)
        for position, p in enumerate(self.passes, 1):
            given = result.ir
            try:
                report = _run_pass(p, result, snapshots or dump is not None)
                _check(checks, result.ir, f"pass {p.name!r}")
            except Exception as error:
                if failed:
                    failed(p.name, given, error)
                raise
            if dump:
                dump(position, p.name, report.text or "")
            if observe:
                observe(result.ir, report)
            if not snapshots:
                report.text = None
        return result


def _run_pass(p: Pass, result: PipelineResult, keep_text: bool) -> PassReport:
    properties = p.after(result.properties)
    before = node_count(result.ir)
    start = time.perf_counter()
    with counting(RewriteStats()) as stats:
        new = p.run(result.ir)
    seconds = time.perf_counter() - start
    text = str(new) if keep_text else None
    report = PassReport(p.name, seconds, before, node_count(new), stats, new is not result.ir, text)
    result.ir, result.properties = new, properties
    result.reports.append(report)
    return report


def node_count(ir: Any) -> int:
    """The number of nodes: a graph's values, the statements of a kernel or of a program's kernels; 1 of any other."""
    if isinstance(ir, (Kernel, Program)):
        kernels = ir.kernels if isinstance(ir, Program) else (ir,)
        return sum(1 for kernel in kernels for _ in statements(kernel.body))
    return sum(1 for _ in ir) if isinstance(ir, Iterable) else 1


def _check(verifiers: Verifiers, ir: Any, maker: str) -> None:
    for kind, verifier in verifiers.items():
        if isinstance(ir, kind):
            try:
                verifier(ir)
            except VerifyError as error:
                raise VerifyError(f"{maker} is malformed or left a malformed IR: {error}") from error
